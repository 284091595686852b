//! The metrics of one backtest, from its trades and its equity.

use std::ops::AddAssign;

use pulp::{Scalar, Simd};
use serde_json::{Map, Value, json};

use crate::metrics::catalogue::{CATALOGUE, Metric, MetricValues, round_half_away};
use crate::metrics::drawdown::Drawdown;
use crate::metrics::ratios::{DailyReturns, calmar};
use crate::portfolio::Trade;
use crate::simd::lanes;
use crate::units::{DAY_NS, Direction, EpochNs};

use super::ratios::Moments;

const SQRT_252: f64 = 15.874_507_866_387_544;

/// What the loop counts beside trades and equity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Signals returned, refused ones included.
    pub signals: u64,
    /// Orders refused by the stop guard or the smallest lot.
    pub orders_rejected: u64,
    /// Pending orders dropped because no slot was free.
    pub orders_dropped_no_slot: u64,
    /// Pending orders left at the end.
    pub pending_orders_at_end: u64,
    /// Positions open at the end.
    pub open_positions_at_end: u64,
    /// Executed fills.
    pub fills: u64,
    /// Tradable bars.
    pub bars: u64,
    /// Tradable bars on which a position of an earlier bar was open or closed.
    pub exposed_bars: u64,
}

/// Follows equity bar by bar.
#[derive(Debug, Clone, PartialEq)]
pub struct EquityStats {
    drawdown: Drawdown,
    daily: DailyReturns,
    first: Option<(EpochNs, f64)>,
    last: (EpochNs, f64),
    bars: u64,
}

impl EquityStats {
    /// Before the first bar.
    pub fn new(initial_balance: f64) -> Self {
        Self {
            drawdown: Drawdown::new(initial_balance),
            daily: DailyReturns::default(),
            first: None,
            last: (0, initial_balance),
            bars: 0,
        }
    }

    /// Takes the equity of the next bar.
    #[inline]
    pub fn push(&mut self, time_ns: EpochNs, equity: f64) {
        self.drawdown.push(equity);
        self.daily.push(time_ns, equity);
        self.first.get_or_insert((time_ns, equity));
        self.last = (time_ns, equity);
        self.bars += 1;
    }

    /// Peak and falls so far.
    #[inline]
    pub fn drawdown(&self) -> &Drawdown {
        &self.drawdown
    }

    /// Last equity.
    pub fn last_equity(&self) -> f64 {
        self.last.1
    }

    fn finish(self) -> EquityFacts {
        EquityFacts {
            drawdown: self.drawdown,
            daily: self.daily.finish(),
            first: self.first.unwrap_or(self.last),
            last: self.last,
            bars: self.bars,
        }
    }
}

/// What the metrics need of the equity curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct EquityFacts {
    /// Peak and falls.
    pub(crate) drawdown: Drawdown,
    /// Returns from day end to day end.
    pub(crate) daily: Moments,
    /// First bar and its equity.
    pub(crate) first: (EpochNs, f64),
    /// Last bar and its equity.
    pub(crate) last: (EpochNs, f64),
    /// Bars.
    pub(crate) bars: u64,
}

/// Metrics and what is needed to write them as an artefact.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Values of the leaderboard: unrounded, undefined is none.
    pub values: MetricValues,
    daily_returns: u64,
    trades: u64,
}

impl Summary {
    /// Every key of `metrics.json` with its rounded value: a number, or `"n/a"` for a ratio of fewer than two samples.
    pub fn artefact(&self) -> Map<String, Value> {
        let mut map = Map::new();
        for (metric, value) in self.values.iter().filter(|(metric, _)| metric.def().in_artefact) {
            let def = metric.def();
            let samples = match metric {
                Metric::SharpeTradeR | Metric::SortinoTradeR => self.trades,
                _ => self.daily_returns,
            };
            let json = match value {
                None if def.text_when_undefined && samples < 2 => Value::from("n/a"),
                None if def.unit.is_integer() => Value::from(0),
                None => Value::from(0.0),
                Some(x) if def.unit.is_integer() => Value::from(x as i64),
                Some(x) => Value::from(round_half_away(x, def.unit.decimals())),
            };
            map.insert(def.key.to_owned(), json);
        }
        map
    }

    /// `definitions` of `metrics.json`.
    pub fn definitions() -> Map<String, Value> {
        let describe = |def: &super::MetricDef| {
            json!({
                "unit": def.unit.as_str(),
                "description": def.description,
                "domain": def.domain,
                "source": def.source,
                "type": if def.text_when_undefined { "number|string" } else { "number" },
            })
        };
        CATALOGUE.iter().filter(|def| def.in_artefact).map(|def| (def.key.to_owned(), describe(def))).collect()
    }
}

/// What of trades is only counted, in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TradeCounts {
    /// Bars from entry to exit.
    pub(crate) hold_bars: u64,
    /// Trades with a stop.
    pub(crate) with_stop: u64,
    /// Long trades.
    pub(crate) long: u64,
}

impl AddAssign for TradeCounts {
    fn add_assign(&mut self, more: Self) {
        self.hold_bars += more.hold_bars;
        self.with_stop += more.with_stop;
        self.long += more.long;
    }
}

lanes! {
    /// What the metrics add up of one trade.
    pub(crate) struct TradeFacts {
        /// Before fees.
        pub(crate) result: f64s,
        /// Result over the money risked.
        pub(crate) r: f64s,
        /// Price move over initial stop distance; 0 without a stop.
        pub(crate) r_stop: f64s,
    }
}

lanes! {
    /// Sums over trades in booking order.
    pub(crate) struct TradeSums {
        wins: u64s,
        losses: u64s,
        gross: f64s,
        won: f64s,
        lost: f64s,
        largest_win: f64s,
        largest_loss: f64s,
        r_sum: f64s,
        r_stop_sum: f64s,
        losing_streak: u64s,
        longest_losing_streak: u64s,
        ..r_moments: Moments,
    }
}

impl TradeSums {
    /// Before the first trade.
    pub(crate) const fn new() -> Self {
        Self {
            r_moments: Moments::new(0.0),
            wins: 0,
            losses: 0,
            gross: 0.0,
            won: 0.0,
            lost: 0.0,
            largest_win: 0.0,
            largest_loss: 0.0,
            r_sum: 0.0,
            r_stop_sum: 0.0,
            losing_streak: 0,
            longest_losing_streak: 0,
        }
    }

    /// Trades taken.
    pub(crate) fn count(&self) -> u64 {
        self.r_moments.count()
    }
}

impl<S: Simd> TradeSums<S> {
    /// Takes the next trade. Without branches: whether a trade wins is as hard to guess for a processor as for a trader.
    #[inline(always)]
    pub(crate) fn push(&mut self, simd: S, trade: &TradeFacts<S>) {
        let (zero, none, one) = (simd.splat_f64s(0.0), simd.splat_u64s(0), simd.splat_u64s(1));
        self.r_moments.push_from_first(simd, trade.r);
        self.gross = simd.add_f64s(self.gross, trade.result);
        self.r_sum = simd.add_f64s(self.r_sum, trade.r);
        // A sum that starts at +0 never becomes -0: adding 0 changes nothing.
        self.r_stop_sum = simd.add_f64s(self.r_stop_sum, trade.r_stop);
        let (win, loss) = (simd.less_than_f64s(zero, trade.result), simd.less_than_f64s(trade.result, zero));
        let won = simd.select_f64s(win, trade.result, zero);
        let lost = simd.select_f64s(loss, simd.neg_f64s(trade.result), zero);
        self.wins = simd.add_u64s(self.wins, simd.select_u64s(win, one, none));
        self.losses = simd.add_u64s(self.losses, simd.select_u64s(loss, one, none));
        self.won = simd.add_f64s(self.won, won);
        self.lost = simd.add_f64s(self.lost, lost);
        let greater = |old: S::f64s, new: S::f64s| simd.select_f64s(simd.less_than_f64s(old, new), new, old);
        self.largest_win = greater(self.largest_win, won);
        self.largest_loss = greater(self.largest_loss, lost);
        self.losing_streak = simd.select_u64s(loss, simd.add_u64s(self.losing_streak, one), none);
        let longer = simd.less_than_u64s(self.longest_losing_streak, self.losing_streak);
        self.longest_losing_streak = simd.select_u64s(longer, self.losing_streak, self.longest_losing_streak);
    }
}

/// Metrics of a finished backtest. `trades` in booking order; `risk`: account currency.
///
/// Formulas, units and degenerate cases: the catalogue and the metrics specification §2 to §5.
pub fn summarise(trades: &[Trade], equity: EquityStats, counters: &Counters, fees_total: f64, risk: f64) -> Summary {
    let (mut sums, mut counts) = (TradeSums::new(), TradeCounts::default());
    for trade in trades {
        let facts =
            TradeFacts { result: trade.result, r: trade.result / risk, r_stop: trade.r_multiple.unwrap_or(0.0) };
        sums.push(Scalar::new(), &facts);
        counts += TradeCounts {
            hold_bars: (trade.exit_bar - trade.entry_bar) as u64,
            with_stop: u64::from(trade.r_multiple.is_some()),
            long: u64::from(trade.direction == Direction::Long),
        };
    }
    summarise_sums(&sums, &counts, active_days(trades), &equity.finish(), counters, fees_total)
}

/// [`summarise`] from sums already made. `days`: distinct UTC days with an entry.
pub(crate) fn summarise_sums(
    sums: &TradeSums,
    counts: &TradeCounts,
    days: u64,
    equity: &EquityFacts,
    counters: &Counters,
    fees_total: f64,
) -> Summary {
    let trades = sums.count();
    let n = trades as f64;
    let per_trade = |total: f64| (trades > 0).then(|| total / n);
    let share = |total: f64, count: u64| (count > 0).then(|| total / count as f64);
    let positive = |value: f64, count: u64| (count > 0).then_some(value);
    let net = sums.gross - fees_total;
    let max_drawdown = equity.drawdown.max_relative();
    let (r_moments, daily) = (&sums.r_moments, &equity.daily);

    let mut values = MetricValues::UNDEFINED;
    let mut set = |metric: Metric, value: Option<f64>| values.set(metric, value);
    set(Metric::TotalTrades, Some(n));
    set(Metric::Wins, Some(sums.wins as f64));
    set(Metric::Losses, Some(sums.losses as f64));
    set(Metric::WinRate, per_trade(sums.wins as f64));
    set(Metric::ProfitGross, Some(sums.gross));
    set(Metric::FeesTotal, Some(fees_total));
    set(Metric::ProfitNet, Some(net));
    set(Metric::AvgTradePnl, per_trade(net));
    set(Metric::AvgWin, share(sums.won, sums.wins));
    set(Metric::AvgLoss, share(sums.lost, sums.losses));
    set(Metric::LargestWin, positive(sums.largest_win, sums.wins));
    set(Metric::LargestLoss, positive(sums.largest_loss, sums.losses));
    set(Metric::ProfitFactor, positive(sums.won / sums.lost, sums.losses));
    set(Metric::AvgRMultiple, per_trade(sums.r_sum));
    set(Metric::Expectancy, per_trade(sums.r_sum));
    set(Metric::ActiveDays, Some(days as f64));
    set(Metric::TradesPerDay, share(n, days));
    set(Metric::MaxDrawdown, Some(max_drawdown));
    set(Metric::MaxDrawdownAbs, Some(equity.drawdown.max_absolute()));
    set(Metric::MaxDrawdownDurationBars, Some(equity.drawdown.duration_bars() as f64));
    set(Metric::CalmarRatio, calmar(equity.first, equity.last, equity.bars, max_drawdown));
    set(Metric::SharpeTradeR, r_moments.sharpe(1.0));
    set(Metric::SortinoTradeR, r_moments.sortino(1.0));
    set(Metric::SharpeEquityDaily, daily.sharpe(SQRT_252));
    set(Metric::SortinoEquityDaily, daily.sortino(SQRT_252));
    set(Metric::AvgRStop, share(sums.r_stop_sum, counts.with_stop));
    set(Metric::TradesLong, Some(counts.long as f64));
    set(Metric::TradesShort, Some(n - counts.long as f64));
    set(Metric::AvgHoldBars, per_trade(counts.hold_bars as f64));
    set(Metric::Exposure, share(counters.exposed_bars as f64, counters.bars));
    set(Metric::MaxConsecutiveLosses, Some(sums.longest_losing_streak as f64));
    set(Metric::Signals, Some(counters.signals as f64));
    set(Metric::OrdersRejected, Some(counters.orders_rejected as f64));
    set(Metric::OpenPositionsAtEnd, Some(counters.open_positions_at_end as f64));
    Summary { values, daily_returns: daily.count(), trades }
}

/// Distinct UTC days with an entry. Booking order is entry order while only one position can be open.
fn active_days(trades: &[Trade]) -> u64 {
    let day = |trade: &Trade| trade.entry_time_ns.div_euclid(DAY_NS);
    if trades.is_sorted_by_key(day) {
        return trades.chunk_by(|a, b| day(a) == day(b)).count() as u64;
    }
    trades.iter().map(day).collect::<std::collections::BTreeSet<_>>().len() as u64
}

/// The first metric that is neither finite nor undefined.
pub fn first_not_finite(values: &MetricValues) -> Option<Metric> {
    values.iter().find(|(_, value)| value.is_some_and(|x| !x.is_finite())).map(|(metric, _)| metric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::ExitReason;

    fn trade(result: f64, day: i64) -> Trade {
        Trade {
            position_id: 1,
            direction: Direction::Long,
            order_type: crate::strategy::OrderType::Market,
            scenario_id: 0,
            rule: 0,
            entry_bar: 0,
            exit_bar: 1,
            entry_time_ns: day * DAY_NS,
            exit_time_ns: day * DAY_NS,
            entry_price: 1.0,
            exit_price: 1.0,
            initial_stop_loss: None,
            stop_loss: None,
            take_profit: None,
            lots: 1.0,
            result,
            entry_fee: 0.0,
            exit_fee: 0.0,
            r_multiple: None,
            reason: ExitReason::Signal,
        }
    }

    /// metrics-and-outputs §6.
    #[test]
    fn golden_metric_vector() {
        let trades = [(100., 1), (-50., 2), (75., 3), (-25., 4), (0., 4)].map(|(r, day)| trade(r, day));
        let mut equity = EquityStats::new(10_000.0);
        for (day, e) in [10_000., 10_100., 10_050., 10_150.5].into_iter().enumerate() {
            equity.push(day as i64 * DAY_NS, e);
        }
        let summary = summarise(&trades, equity, &Counters::default(), 12.5, 50.0);
        let artefact = summary.artefact();
        let expected = json!({
            "total_trades": 5, "wins": 2, "losses": 2, "win_rate": 0.4, "profit_gross": 100.0, "fees_total": 12.5,
            "profit_net": 87.5, "avg_trade_pnl": 17.5, "sharpe_equity_daily": 9.225848, "sortino_equity_daily": 27.86206,
            "avg_r_multiple": 0.4, "expectancy": 0.4, "profit_factor": 2.333333, "avg_win": 87.5, "avg_loss": 37.5,
            "largest_win": 100.0, "largest_loss": 50.0, "active_days": 4, "trades_per_day": 1.25,
            "sharpe_trade_r": 0.309067, "sortino_trade_r": 0.8,
        });
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&artefact[key], value, "{key}");
        }
    }

    #[test]
    fn without_trades_numbers_are_zero_and_ratios_not_available() {
        let mut equity = EquityStats::new(10_000.0);
        equity.push(0, 10_000.0);
        let summary = summarise(&[], equity, &Counters::default(), 0.0, 100.0);
        let artefact = summary.artefact();
        for (key, value) in &artefact {
            let expected = if key.contains("sharpe") || key.contains("sortino") { json!("n/a") } else { json!(0.0) };
            assert!(*value == expected || *value == json!(0), "{key} = {value}");
        }
        assert_eq!(artefact.len(), Summary::definitions().len());
        assert_eq!(summary.values.get(Metric::WinRate), None);
    }
}
