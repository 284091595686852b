//! Test windows laid end to end: what following every choice would have earned, in one curve.
//!
//! Every window is a run of its own: balance and fill counter start anew. The curve adds their profits to one initial
//! balance, which is what a fixed risk per trade earns (statistical-validity specification §1).

use engine::Error;
use engine::backtest::walk::{EquityPoint, Observer};
use engine::backtest::{Outcome, Prepared};
use engine::metrics::{Counters, EquityStats, Metric, MetricValues, summarise};
use engine::portfolio::Trade;
use engine::units::{DAY_NS, EpochNs};

use crate::walkforward::stats::Daily;

/// One setting walked on one part of a window, with its equity.
pub struct Leg {
    /// Trades, metrics, counts.
    pub outcome: Outcome,
    /// One point per bar.
    pub equity: Vec<EquityPoint>,
    /// Money at the start.
    pub initial: f64,
    /// Money risked per trade.
    pub risk: f64,
    /// Why there was no trade, if there was none.
    pub no_trade_reason: Option<String>,
}

struct Curve(Vec<EquityPoint>);

impl Observer for Curve {
    fn equity(&mut self, point: EquityPoint) {
        self.0.push(point);
    }
}

impl Leg {
    /// Walks a setting prepared with its trade window.
    ///
    /// # Errors
    /// Those of the backtest.
    pub fn walk(prepared: &Prepared) -> Result<Self, Error> {
        let mut curve = Curve(Vec::with_capacity(prepared.plan().bars.len()));
        let outcome = prepared.run(Vec::new(), &mut curve)?;
        let no_trade_reason =
            outcome.walked.trades.is_empty().then(|| prepared.why_no_trade(&outcome.walked.counters)).transpose()?;
        let plan = prepared.plan();
        Ok(Self { outcome, equity: curve.0, initial: plan.initial_balance, risk: plan.terms.risk, no_trade_reason })
    }

    /// Metrics.
    pub fn values(&self) -> &MetricValues {
        &self.outcome.summary.values
    }

    /// Net profit in account currency.
    pub fn profit(&self) -> f64 {
        self.values().get(Metric::ProfitNet).unwrap_or(0.0)
    }
}

/// Legs end to end.
pub struct Stitched {
    initial: f64,
    /// None once two legs risked different amounts: multiples of risk then have no common unit.
    risk: Option<f64>,
    first_risk: Option<f64>,
    carried: f64,
    stats: EquityStats,
    trades: Vec<Trade>,
    counters: Counters,
    fees_total: f64,
    days: Days,
}

impl Stitched {
    /// Nothing yet; `risk` is the amount per trade where no leg says otherwise.
    pub fn new(initial: f64, risk: f64) -> Self {
        Self {
            initial,
            risk: Some(risk),
            first_risk: None,
            carried: 0.0,
            stats: EquityStats::new(initial),
            trades: Vec::new(),
            counters: Counters::default(),
            fees_total: 0.0,
            days: Days::new(initial),
        }
    }

    /// Trades so far, under position numbers of the whole.
    pub fn trades(&self) -> &[Trade] {
        &self.trades
    }

    /// Adds a leg after the last; returns its part of the curve.
    pub fn add(&mut self, leg: &Leg) -> Vec<EquityPoint> {
        let first_risk = *self.first_risk.get_or_insert(leg.risk);
        self.risk = self.risk.and((first_risk == leg.risk).then_some(leg.risk));
        let walked = &leg.outcome.walked;
        let last_id = self.trades.iter().map(|trade| trade.position_id).max().unwrap_or(0);
        let renumbered = |trade: &Trade| Trade { position_id: trade.position_id + last_id, ..*trade };
        self.trades.extend(walked.trades.iter().map(renumbered));
        let (sum, part) = (&mut self.counters, &walked.counters);
        sum.signals += part.signals;
        sum.orders_rejected += part.orders_rejected;
        sum.orders_dropped_no_slot += part.orders_dropped_no_slot;
        sum.pending_orders_at_end += part.pending_orders_at_end;
        sum.open_positions_at_end += part.open_positions_at_end;
        sum.fills += part.fills;
        sum.exposed_bars += part.exposed_bars;
        self.fees_total += walked.ledger.fees_total();
        let shift = self.carried + (self.initial - leg.initial);
        let points: Vec<EquityPoint> =
            leg.equity.iter().map(|p| self.point(p.time_ns, p.equity + shift, p.balance + shift)).collect();
        self.carried = points.last().map_or(self.carried, |last| last.equity - self.initial);
        points
    }

    /// Adds bars without a position.
    pub fn rest(&mut self, times: &[EpochNs]) -> Vec<EquityPoint> {
        let equity = self.initial + self.carried;
        times.iter().map(|time| self.point(*time, equity, equity)).collect()
    }

    fn point(&mut self, time_ns: EpochNs, equity: f64, balance: f64) -> EquityPoint {
        self.stats.push(time_ns, equity);
        self.days.push(time_ns, equity);
        self.counters.bars += 1;
        let drawdown = self.stats.drawdown();
        EquityPoint { time_ns, equity, balance, drawdown: drawdown.current(equity), high_water: drawdown.high_water() }
    }

    /// Profit so far.
    pub fn profit(&self) -> f64 {
        self.carried
    }

    /// Metrics of the whole, and its daily returns described.
    pub fn finish(self) -> (MetricValues, Daily) {
        let risk = self.risk.unwrap_or(1.0);
        let summary = summarise(&self.trades, self.stats, &self.counters, self.fees_total, risk);
        let mut values = summary.values;
        if self.risk.is_none() {
            for metric in [Metric::AvgRMultiple, Metric::Expectancy, Metric::SharpeTradeR, Metric::SortinoTradeR] {
                values.set(metric, None);
            }
        }
        (values, Daily::of(&self.days.finish()))
    }
}

/// Daily profit as a share of the initial balance: from the last equity of a UTC day to that of the next day with bars,
/// the first from the initial balance. Source: statistical-validity specification §1.
struct Days {
    initial: f64,
    day: Option<i64>,
    last: f64,
    previous_end: f64,
    returns: Vec<f64>,
}

impl Days {
    fn new(initial: f64) -> Self {
        Self { initial, day: None, last: initial, previous_end: initial, returns: Vec::new() }
    }

    fn push(&mut self, time_ns: EpochNs, equity: f64) {
        let day = time_ns.div_euclid(DAY_NS);
        if self.day.is_some_and(|running| running != day) {
            self.end_day();
        }
        self.day = Some(day);
        self.last = equity;
    }

    fn end_day(&mut self) {
        self.returns.push((self.last - self.previous_end) / self.initial);
        self.previous_end = self.last;
    }

    fn finish(mut self) -> Vec<f64> {
        if self.day.is_some() {
            self.end_day();
        }
        self.returns
    }
}

/// The initial balance put into the instrument once, on the first bar, at the ask, and valued at the bid: no fees, no
/// slippage, no leverage, currency rates constant.
pub struct BuyAndHold {
    initial: f64,
    entry: Option<f64>,
    stats: EquityStats,
}

impl BuyAndHold {
    /// Before the first bar.
    pub fn new(initial: f64) -> Self {
        Self { initial, entry: None, stats: EquityStats::new(initial) }
    }

    /// Value after a bar with these closes.
    pub fn push(&mut self, time_ns: EpochNs, bid: f64, ask: f64) -> f64 {
        let entry = *self.entry.get_or_insert(ask);
        let equity = self.initial * (bid / entry);
        self.stats.push(time_ns, equity);
        equity
    }

    /// Profit so far.
    pub fn profit(&self) -> f64 {
        self.stats.last_equity() - self.initial
    }

    /// Largest fall from the running peak, a share of the peak.
    pub fn max_drawdown(&self) -> f64 {
        self.stats.drawdown().max_relative().min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daily_returns_are_shares_of_the_initial_balance() {
        let mut days = Days::new(1000.0);
        let hour = DAY_NS / 24;
        for (time, equity) in [(0, 1000.0), (hour, 1010.0), (DAY_NS + hour, 1030.0), (3 * DAY_NS, 990.0)] {
            days.push(time, equity);
        }
        let returns = days.finish();
        assert_eq!(returns, [0.01, 0.02, -0.04]);
        assert!(Days::new(1.0).finish().is_empty());
    }

    #[test]
    fn holding_pays_the_spread_once() {
        let mut hold = BuyAndHold::new(1000.0);
        let values = [(1.0, 1.25), (1.25, 1.5), (0.625, 0.75)].map(|(bid, ask)| hold.push(0, bid, ask));
        assert_eq!(values, [800.0, 1000.0, 500.0]);
        assert_eq!((hold.profit(), hold.max_drawdown()), (-500.0, 0.5));
    }

    #[test]
    fn resting_keeps_what_was_earned() {
        let mut stitched = Stitched::new(1000.0, 10.0);
        stitched.carried = 50.0;
        let points = stitched.rest(&[0, DAY_NS]);
        assert_eq!(points.iter().map(|p| (p.equity, p.balance)).collect::<Vec<_>>(), [(1050.0, 1050.0); 2]);
        let (values, daily) = stitched.finish();
        assert_eq!((values.get(Metric::TotalTrades), values.get(Metric::MaxDrawdown)), (Some(0.0), Some(0.0)));
        assert_eq!(daily.days, 2);
    }
}
