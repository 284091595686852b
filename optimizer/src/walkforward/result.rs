//! From the choices of a design to its result: every choice walked again on train and test, the tests stitched, the
//! yardsticks beside them.

use engine::Error;
use engine::backtest::{Environment, RunConfig};
use engine::metrics::{Metric, MetricValues};
use engine::units::EpochNs;
use serde_json::{Value, json};

use crate::objective::Verdict;
use crate::search::{Trials, group};
use crate::space::Setting;
use crate::trial::TrialConfigs;
use crate::walkforward::cells::Layout;
use crate::walkforward::choice::{Chosen, Judges, WindowTally};
use crate::walkforward::stats::{self, Earned};
use crate::walkforward::stitch::{BuyAndHold, Leg, Stitched};
use crate::walkforward::verdict::{Check, Checks, Figure, Figures};
use crate::walkforward::windows::{Design, Span, Window, instant_text};

/// How a window ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// A setting was chosen and traded.
    Ok,
    /// A setting was chosen and never traded on test.
    NoTrades,
    /// No setting passed the gates on train.
    NoChoice,
    /// Train or test holds no bar.
    NoBars,
    /// The chosen setting ended in an error on test.
    Failed,
}

impl Status {
    /// Text of the `status` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NoTrades => "no_trades",
            Self::NoChoice => "no_choice",
            Self::NoBars => "no_bars",
            Self::Failed => "failed",
        }
    }
}

/// One window, told in full.
pub struct WindowResult {
    /// How it ended.
    pub status: Status,
    /// Why it is not `ok`.
    pub reason: Option<String>,
    /// Worth knowing of a window that is judged all the same.
    pub notes: Vec<String>,
    /// The setting it chose.
    pub setting: Option<Setting>,
    /// Test metrics of the choice.
    pub test: Option<MetricValues>,
    /// Profit per day out of sample over that in sample.
    pub efficiency: Option<f64>,
    /// Per axis, the distance from the choice of the window before, as a share of the axis.
    pub drift: Vec<Option<f64>>,
    /// Profit of the first choice on this test.
    pub first_choice_net: Option<f64>,
    /// Profit of holding over the bars of this test that no earlier one holds.
    pub buy_and_hold_net: Option<f64>,
    /// What `omega-opt run` needs to make the train and the test cell again.
    pub configs: Option<[Value; 2]>,
}

/// A bar of the stitched curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint {
    /// Equity, balance and drawdown of following the choices.
    pub point: engine::backtest::walk::EquityPoint,
    /// Equity of keeping the first choice; none before there is one.
    pub first_choice: Option<f64>,
    /// Equity of holding.
    pub buy_and_hold: f64,
}

/// Part of a design's curve and trades that one window adds.
pub struct Piece {
    /// Its bars.
    pub curve: Vec<CurvePoint>,
    /// Trades from this index of [`Stitched::trades`] on are its own.
    pub trades: Vec<engine::portfolio::Trade>,
}

/// A design's result.
pub struct DesignResult {
    /// Per window.
    pub windows: Vec<WindowResult>,
    /// Stitched metrics and everything else known.
    pub figures: Figures,
    /// Per axis, the mean distance between consecutive choices, as a share of the axis.
    pub drift: Vec<Option<f64>>,
    /// The verdict, line by line.
    pub checks: Vec<Check>,
}

/// What results are made from.
#[derive(Clone, Copy)]
pub struct Bench<'a> {
    /// Bars and columns.
    pub environment: &'a Environment,
    /// Base run config.
    pub config: &'a RunConfig,
    /// Configs of settings.
    pub configs: &'a TrialConfigs,
    /// Settings by number.
    pub trials: &'a Trials,
    /// What ranks.
    pub judges: Judges<'a>,
    /// Windows.
    pub layout: &'a Layout,
    /// Conditions of the verdict.
    pub checks: &'a Checks,
}

impl Bench<'_> {
    fn unknown_setting(&self, chosen: &Chosen) -> Error {
        Error::Internal(format!("trial {} of a chunk has no setting", chosen.identity.trial))
    }

    /// The config of a choice on the bars between two instants, as a single run takes it.
    fn window_config(
        &self,
        setting: &Setting,
        rng_seed: u64,
        start: EpochNs,
        end: EpochNs,
    ) -> Result<RunConfig, Error> {
        let mut config = self.configs.full(setting).map_err(Error::Config)?;
        // A window may begin at midnight before a start within the day, and end with a bar that closes after the last
        // instant; the bars are the same.
        let (start, end) = (start.max(config.start_ns), end.min(config.end_ns.saturating_add(1)));
        config.trade_window = Some((start, end));
        config.document["trade_window"] = json!({ "start": instant_text(start), "end": instant_text(end) });
        config.document["rng_seed"] = json!(rng_seed);
        Ok(config)
    }

    fn leg(&self, setting: &Setting, rng_seed: u64, start: EpochNs, end: EpochNs) -> Result<Leg, Error> {
        let config = self.window_config(setting, rng_seed, start, end)?;
        Leg::walk(&self.environment.prepare(&config, rng_seed)?)
    }

    fn on_span(&self, setting: &Setting, rng_seed: u64, span: &Span) -> Result<Leg, Error> {
        self.leg(setting, rng_seed, span.start_ns, span.end_ns)
    }

    /// Walks the choice on train and test again: the walk must give what the search found, to the last bit.
    fn legs(&self, window: &Window, chosen: &Chosen, setting: &Setting) -> Result<(Leg, Result<Leg, Error>), Error> {
        let seed = chosen.identity.rng_seed;
        let differs = |part: &str, what: String| {
            let trial = chosen.identity.trial;
            Error::Internal(format!("trial {trial}, {part} from {}: {what}", instant_text(window.train.start_ns)))
        };
        let train = self.on_span(setting, seed, &window.train)?;
        let same = |a: &MetricValues, b: &MetricValues| {
            a.iter().zip(b.iter()).all(|((_, a), (_, b))| a.map(f64::to_bits) == b.map(f64::to_bits))
        };
        if !same(train.values(), &chosen.values) {
            return Err(differs("train", "walked again, its metrics are not those of its chunk".to_owned()));
        }
        let test = self.on_span(setting, seed, &window.test);
        let score = test.as_ref().ok().and_then(|leg| self.judges.objective.score(leg.values()));
        if score.map(f64::to_bits) != chosen.test.score.map(f64::to_bits) {
            let what = format!("objective {:?} in its chunk, {score:?} walked again", chosen.test.score);
            return Err(differs("test", what));
        }
        Ok((train, test))
    }

    /// Works out a design. `tallies` are those of its windows; `take` gets each window's part of curve and trades.
    ///
    /// # Errors
    /// Those of the backtests, and of `take`.
    pub fn design<E: From<Error>>(
        &self,
        design: &Design,
        tallies: &[WindowTally],
        mut take: impl FnMut(usize, Piece) -> Result<(), E>,
    ) -> Result<DesignResult, E> {
        let (initial, risk) = (self.config.account.initial_balance, self.config.account.risk_per_trade);
        let bars = &self.environment.market(self.config.effective_spread_multiplier()).data.bars;
        let (mut stitched, mut first_stitched) = (Stitched::new(initial, risk), Stitched::new(initial, risk));
        let mut hold = BuyAndHold::new(initial);
        let mut first: Option<(Setting, u64)> = None;
        let mut windows: Vec<WindowResult> = Vec::with_capacity(design.windows.len());
        let (mut earned, mut profits) = (Vec::new(), Vec::new());
        for (number, (window, tally)) in design.windows.iter().zip(tallies).enumerate() {
            let mut result = self.start(window, tally);
            let times = &bars.open_time[window.owned.clone()];
            let trades_before = stitched.trades().len();
            let mut curve = None;
            if let (Some(chosen), false) = (tally.choice(), result.status == Status::NoBars) {
                let setting = self.trials.setting(chosen.identity.trial).ok_or_else(|| self.unknown_setting(chosen))?;
                let seed = chosen.identity.rng_seed;
                first.get_or_insert_with(|| (setting.clone(), seed));
                let (train, test) = self.legs(window, chosen, &setting)?;
                match test {
                    Ok(test) => {
                        let both = Earned {
                            in_sample: train.profit(),
                            in_sample_days: window.train.days(),
                            out_of_sample: test.profit(),
                            out_of_sample_days: window.test.days(),
                        };
                        earned.push(both);
                        result.efficiency = both.efficiency();
                        result.test = Some(*test.values());
                        if let Some(reason) = &test.no_trade_reason {
                            (result.status, result.reason) = (Status::NoTrades, Some(reason.clone()));
                        }
                        curve = self.own_curve(window, &setting, seed, test, bars, &mut stitched)?;
                    }
                    Err(error) => {
                        (result.status, result.reason) = (Status::Failed, Some(format!("{}: {error}", error.code())));
                    }
                }
                let config = |span: &Span| self.window_config(&setting, seed, span.start_ns, span.end_ns);
                result.configs = Some([config(&window.train)?.document, config(&window.test)?.document]);
                result.setting = Some(setting);
            }
            let curve = curve.unwrap_or_else(|| stitched.rest(times));
            profits.push(result.test.and_then(|test| test.get(Metric::ProfitNet)).unwrap_or(0.0));
            let first_curve =
                self.first_choice(window, first.as_ref(), times, bars, &mut first_stitched, &mut result)?;
            let held_before = hold.profit();
            let curve: Vec<CurvePoint> = curve
                .into_iter()
                .zip(window.owned.clone())
                .enumerate()
                .map(|(at, (point, bar))| CurvePoint {
                    point,
                    first_choice: first_curve.as_ref().map(|curve| curve[at].equity),
                    buy_and_hold: hold.push(point.time_ns, bars.bid.close[bar], bars.ask.close[bar]),
                })
                .collect();
            result.buy_and_hold_net = (!curve.is_empty()).then(|| hold.profit() - held_before);
            result.drift = self.drift(windows.last().and_then(|last| last.setting.as_ref()), result.setting.as_ref());
            take(number, Piece { curve, trades: stitched.trades()[trades_before..].to_vec() })?;
            windows.push(result);
        }
        let drift = self.mean_drift(&windows);
        let (metrics, daily) = stitched.finish();
        let mut figures = Figures::new(metrics);
        let mean = |values: &mut dyn Iterator<Item = f64>| {
            let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
            (count > 0).then(|| sum / f64::from(count))
        };
        figures.set(Figure::Windows, Some(windows.len() as f64));
        figures.set(Figure::Chosen, Some(windows.iter().filter(|window| window.setting.is_some()).count() as f64));
        figures.set(Figure::Days, Some(daily.days as f64));
        figures.set(Figure::SharpeDaily, daily.sharpe);
        figures.set(Figure::Skew, daily.skew);
        figures.set(Figure::Kurt, daily.kurt);
        figures.set(Figure::Psr, daily.psr);
        figures.set(Figure::T, daily.t);
        figures.set(Figure::Wfe, stats::efficiency(&earned));
        figures.set(Figure::Consistency, stats::consistency(&profits));
        figures.set(Figure::Concentration, stats::concentration(&profits));
        figures.set(Figure::RankCorrelation, mean(&mut tallies.iter().filter_map(|tally| tally.rank_correlation)));
        figures.set(Figure::Drift, mean(&mut drift.iter().flatten().copied()));
        figures.set(Figure::FirstChoiceNet, first.is_some().then(|| first_stitched.profit()));
        let held = profits.len() == windows.len() && windows.iter().any(|window| window.buy_and_hold_net.is_some());
        figures.set(Figure::BuyAndHoldNet, held.then(|| hold.profit()));
        figures.set(Figure::BuyAndHoldDrawdown, held.then(|| hold.max_drawdown()));
        let checks = self.checks.judge(&figures);
        Ok(DesignResult { windows, figures, drift, checks })
    }

    /// The window before its choice is walked.
    fn start(&self, window: &Window, tally: &WindowTally) -> WindowResult {
        let warmup = self.config.warmup_bars;
        let mut notes = Vec::new();
        let mut empty = Vec::new();
        for (part, span) in [("train", &window.train), ("test", &window.test)] {
            match span.bars.len() {
                0 => empty.push(part),
                bars if bars < warmup => {
                    notes.push(format!("{part} holds {bars} bars, fewer than warmup_bars ({warmup})"));
                }
                _ => {}
            }
        }
        let (status, reason) = if !empty.is_empty() {
            (Status::NoBars, Some(format!("no bar in {}", empty.join(" and "))))
        } else if tally.choice().is_none() {
            (Status::NoChoice, Some(self.why_no_choice(tally)))
        } else {
            (Status::Ok, None)
        };
        WindowResult {
            status,
            reason,
            notes,
            setting: None,
            test: None,
            efficiency: None,
            drift: Vec::new(),
            first_choice_net: None,
            buy_and_hold_net: None,
            configs: None,
        }
    }

    fn why_no_choice(&self, tally: &WindowTally) -> String {
        let count = |verdict: Verdict| tally.train[verdict as usize];
        let parts = [
            (count(Verdict::Gated), "fail a gate"),
            (count(Verdict::NoScore), "have no score"),
            (count(Verdict::Failed), "failed"),
        ];
        let parts: Vec<String> = parts
            .into_iter()
            .filter(|(settings, _)| *settings > 0)
            .map(|(settings, what)| format!("{} {what}", group(settings.into())))
            .collect();
        let gate = tally.best.as_ref().and_then(|best| self.judges.gates.first_failed(&best.values));
        let gate = gate.map_or_else(String::new, |gate| format!("; the best of them fails `{gate}`"));
        format!("no setting passes the gates on train: {}{gate}", parts.join(", "))
    }

    /// The part of the curve that belongs to this window: the test itself, or its bars that no earlier test holds as a
    /// run of their own.
    fn own_curve(
        &self,
        window: &Window,
        setting: &Setting,
        seed: u64,
        test: Leg,
        bars: &engine::data::Bars,
        stitched: &mut Stitched,
    ) -> Result<Option<Vec<engine::backtest::walk::EquityPoint>>, Error> {
        if window.owned == window.test.bars {
            return Ok(Some(stitched.add(&test)));
        }
        match self.owned_leg(window, setting, seed, bars) {
            Some(leg) => Ok(Some(stitched.add(&leg?))),
            None => Ok(None),
        }
    }

    /// A setting on the window's own bars; none without one.
    fn owned_leg(
        &self,
        window: &Window,
        setting: &Setting,
        seed: u64,
        bars: &engine::data::Bars,
    ) -> Option<Result<Leg, Error>> {
        let start = *bars.open_time[window.owned.clone()].first()?;
        Some(self.leg(setting, seed, start, window.test.end_ns))
    }

    fn first_choice(
        &self,
        window: &Window,
        first: Option<&(Setting, u64)>,
        times: &[EpochNs],
        bars: &engine::data::Bars,
        stitched: &mut Stitched,
        result: &mut WindowResult,
    ) -> Result<Option<Vec<engine::backtest::walk::EquityPoint>>, Error> {
        let Some((setting, seed)) = first else { return Ok(None) };
        let before = stitched.profit();
        let curve = match self.owned_leg(window, setting, *seed, bars) {
            Some(Ok(leg)) => stitched.add(&leg),
            // Told where it is a window's own choice; as a yardstick it rests.
            Some(Err(_)) | None => stitched.rest(times),
        };
        result.first_choice_net = (!times.is_empty()).then(|| stitched.profit() - before);
        Ok(Some(curve))
    }

    /// Per axis with more than one value, `|k − k'| / (values − 1)` for the value indices of consecutive choices.
    fn drift(&self, before: Option<&Setting>, now: Option<&Setting>) -> Vec<Option<f64>> {
        let axes = self.trials.space().axes().iter().enumerate();
        axes.map(|(at, axis)| {
            let (before, now) = (before?.value_index.get(at)?, now?.value_index.get(at)?);
            (axis.len() > 1).then(|| f64::from(before.abs_diff(*now)) / f64::from(axis.len() - 1))
        })
        .collect()
    }

    fn mean_drift(&self, windows: &[WindowResult]) -> Vec<Option<f64>> {
        let axes = 0..self.trials.space().axes().len();
        axes.map(|axis| {
            let known: Vec<f64> = windows.iter().filter_map(|window| *window.drift.get(axis)?).collect();
            (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
        })
        .collect()
    }
}
