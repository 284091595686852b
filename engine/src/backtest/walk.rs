//! The bar-by-bar backtest: the definition every faster way must equal.
//!
//! One tradable bar, in this order: stop and target changes scheduled earlier take effect; gates; strategy (once, if
//! every gate is open); fill of its market order or placement of its pending one; triggers of orders placed earlier;
//! stop and target of open positions; trade management; equity.
//! Source: execution specification §2. Nothing is allocated per bar.

use std::ops::Range;

use crate::backtest::pending::{PendingBook, PendingOrder};
use crate::data::{Bars, MarketData};
use crate::error::{Error, Result};
use crate::execution::{DrawTable, ExitReason, Levels, Terms, level_exit, r_multiple};
use crate::metrics::{Counters, Drawdown, EquityStats};
use crate::portfolio::{Ledger, OpenPosition, Trade};
use crate::rules::{BitMask, BoundRules, GuardCache, Hit};
use crate::strategy::{ColumnView, DataSlice, OrderType, Position, PositionAction, Strategy, TradeSignal, Variant};
use crate::units::{Direction, EpochNs};

/// Numbers of one run that do not change from bar to bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Prices, sizes and costs.
    pub terms: Terms,
    /// Money at the start.
    pub initial_balance: f64,
    /// Open positions allowed at once.
    pub max_positions: usize,
    /// Bars after a signal without another.
    pub cooldown_bars: i64,
    /// Nanoseconds after a signal without another.
    pub cooldown_ns: i64,
    /// Nanoseconds after an exit without a signal.
    pub cooldown_after_exit_ns: i64,
    /// The holding-time rule.
    pub holding: Option<HoldingRule>,
    /// Tradable bars.
    pub bars: Range<usize>,
    /// What is open on the last bar is closed there (a trade window); otherwise it stays open.
    pub close_at_end: bool,
}

/// Closes positions held for `limit_ns` or longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldingRule {
    /// Limit, measured between bar-open times, > 0.
    pub limit_ns: i64,
    /// Scenarios it applies to; empty: all.
    pub only_scenarios: Vec<u8>,
}

impl HoldingRule {
    /// Positions of this scenario are closed by it.
    #[inline]
    pub(super) fn applies_to(&self, scenario_id: u8) -> bool {
        self.only_scenarios.is_empty() || self.only_scenarios.contains(&scenario_id)
    }
}

/// Everything a run reads.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// Bars.
    pub market: &'a MarketData,
    /// Strategy with fixed parameters.
    pub strategy: &'a dyn Strategy,
    /// Its columns.
    pub columns: &'a dyn ColumnView,
    /// Its late guards; none for a strategy without.
    pub guards: Option<&'a GuardCache>,
    /// Bars on which sessions and news let entries pass; none: all.
    pub gates: Option<&'a BitMask>,
    /// Random part of slippage.
    pub draws: &'a DrawTable,
}

/// Watches a run; artefacts are written by one, a search by none. May not influence anything.
pub trait Observer {
    /// A position was opened at the close of bar `slice.index()`.
    fn entered(&mut self, _position: &Position, _origin: &Origin<'_>, _slice: &DataSlice<'_>) {}
    /// The equity point of a bar.
    fn equity(&mut self, _point: EquityPoint) {}
}

/// Watches nothing.
pub struct Nobody;

impl Observer for Nobody {}

/// Who asked for an entry.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// The rule of this index.
    Rule(usize),
    /// The strategy's `evaluate`.
    Signal(&'a TradeSignal),
}

/// One row of the equity curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EquityPoint {
    /// Open time of the bar.
    pub time_ns: EpochNs,
    /// Balance plus open profit.
    pub equity: f64,
    /// Cash.
    pub balance: f64,
    /// Fall from the running peak, share of the peak, at most 1.
    pub drawdown: f64,
    /// Running peak.
    pub high_water: f64,
}

/// What a run leaves behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Walked {
    /// Closed trades in booking order.
    pub trades: Vec<Trade>,
    /// Equity, followed.
    pub equity: EquityStats,
    /// Counts.
    pub counters: Counters,
    /// Final cash and fees.
    pub ledger: Ledger,
}

/// Runs `plan` over `inputs`, bar by bar. `trades` is cleared and used as storage.
///
/// # Errors
/// [`Error::InvalidSignal`], [`Error::ExecutionFailure`] for a stop or target moved to what is no number,
/// [`Error::PositionLimitExceeded`], [`Error::Consistency`], and whatever the strategy or a guard returns.
pub fn walk(inputs: Inputs<'_>, plan: &Plan, trades: Vec<Trade>, observer: &mut impl Observer) -> Result<Walked> {
    let rules =
        inputs.strategy.rules().map(|rules| BoundRules::bind(rules, inputs.columns, inputs.guards)).transpose()?;
    let mut book = Book::new(inputs, plan, trades);
    for i in plan.bars.clone() {
        if book.open.is_empty() && rules.as_ref().is_some_and(|rules| !rules.may_open(i)) {
            // None of the steps but the last has anything to do.
            book.mark(i, observer);
            continue;
        }
        book.apply_scheduled_changes();
        if book.gates_open(i) {
            book.ask(rules.as_ref(), i, observer)?;
        }
        book.fill_pending(i, observer)?;
        book.exit_at_levels(i);
        book.manage(rules.as_ref(), i)?;
        if plan.close_at_end && i + 1 == plan.bars.end {
            book.close_all(i, ExitReason::WindowEnd);
        }
        book.mark(i, observer);
    }
    book.finish()
}

/// State of a run.
struct Book<'a> {
    inputs: Inputs<'a>,
    bars: &'a Bars,
    plan: &'a Plan,
    ledger: Ledger,
    open: Vec<OpenSlot>,
    pending: PendingBook,
    trades: Vec<Trade>,
    equity: EquityStats,
    counters: Counters,
    /// The strategy wants to be asked about open positions.
    manages_positions: bool,
    next_id: u64,
    last_signal: Option<usize>,
    last_exit: Option<usize>,
}

struct OpenSlot {
    held: OpenPosition,
    next_stop: Option<f64>,
    next_target: Option<f64>,
}

struct Intent<'s> {
    direction: Direction,
    requested: f64,
    stop: Option<f64>,
    target: Option<f64>,
    lots: Option<f64>,
    scenario_id: u8,
    rule: u16,
    origin: Origin<'s>,
}

impl<'a> Book<'a> {
    fn new(inputs: Inputs<'a>, plan: &'a Plan, mut trades: Vec<Trade>) -> Self {
        trades.clear();
        Self {
            inputs,
            bars: &inputs.market.bars,
            plan,
            ledger: Ledger::new(plan.initial_balance),
            open: Vec::with_capacity(plan.max_positions.min(64)),
            pending: PendingBook::default(),
            trades,
            equity: EquityStats::new(plan.initial_balance),
            counters: Counters { bars: plan.bars.len() as u64, ..Counters::default() },
            manages_positions: inputs.strategy.manages_positions(),
            next_id: 1,
            last_signal: None,
            last_exit: None,
        }
    }

    fn slice(&self, i: usize) -> DataSlice<'a> {
        DataSlice::new(self.inputs.market, i, self.inputs.columns)
    }

    /// A stop is taken only if it tightens; a target is free.
    #[inline]
    fn apply_scheduled_changes(&mut self) {
        for slot in &mut self.open {
            let position = &mut slot.held.position;
            if let Some(stop) = slot.next_stop.take() {
                let tightens = position.stop_loss.is_none_or(|old| match position.direction {
                    Direction::Long => stop > old,
                    Direction::Short => stop < old,
                });
                if tightens {
                    position.stop_loss = Some(stop);
                }
            }
            if let Some(target) = slot.next_target.take() {
                position.take_profit = Some(target);
            }
        }
    }

    /// Slot, session, news and cooldowns. Cooldowns compare bars of one timeframe, so open times serve for closes.
    #[inline]
    fn gates_open(&self, i: usize) -> bool {
        if self.open.len() >= self.plan.max_positions || self.inputs.gates.is_some_and(|mask| !mask.get(i)) {
            return false;
        }
        let elapsed = |from: usize| self.bars.open_time[i] - self.bars.open_time[from];
        let after_signal = self
            .last_signal
            .is_none_or(|last| (i - last) as i64 >= self.plan.cooldown_bars && elapsed(last) >= self.plan.cooldown_ns);
        let after_exit = self.last_exit.is_none_or(|last| elapsed(last) >= self.plan.cooldown_after_exit_ns);
        after_signal && after_exit
    }

    fn ask(&mut self, rules: Option<&BoundRules<'_>>, i: usize, observer: &mut impl Observer) -> Result<()> {
        match rules {
            Some(rules) => match rules.first(i) {
                Some(hit) => self.take(i, &self.intent_of_rule(rules, hit, i), observer),
                None => Ok(()),
            },
            None => match self.inputs.strategy.evaluate(&self.slice(i))? {
                Some(signal) if signal.order_type == OrderType::Market => {
                    self.take(i, &intent_of_signal(&signal), observer)
                }
                Some(signal) => self.place(i, signal),
                None => Ok(()),
            },
        }
    }

    fn intent_of_rule(&self, rules: &BoundRules<'_>, hit: Hit, i: usize) -> Intent<'static> {
        let rule = rules.rule(hit.rule);
        Intent {
            direction: rule.direction,
            requested: match rule.direction {
                Direction::Long => self.bars.ask.close[i],
                Direction::Short => self.bars.bid.close[i],
            },
            stop: hit.stop,
            target: hit.target,
            lots: rule.lots.map(|lots| lots.get()),
            scenario_id: rule.scenario_id,
            rule: hit.rule as u16,
            origin: Origin::Rule(hit.rule),
        }
    }

    /// A signal counts, and starts the cooldowns, whether or not its order is refused.
    fn count_signal(&mut self, i: usize, intent: &Intent<'_>) -> Result<()> {
        let Intent { requested, stop, target, lots, .. } = *intent;
        check_signal(self.bars, i, requested, stop, target, lots, self.plan.terms.variant)?;
        self.counters.signals += 1;
        self.last_signal = Some(i);
        Ok(())
    }

    fn take(&mut self, i: usize, intent: &Intent<'_>, observer: &mut impl Observer) -> Result<()> {
        self.count_signal(i, intent)?;
        let price =
            self.plan.terms.market_price(intent.direction, intent.requested, self.counters.fills, self.inputs.draws);
        self.open(i, intent, OrderType::Market, price, self.bars.open_time[i], observer)
    }

    /// Places a limit or stop order at the close of bar `i`; it can trigger from the next bar on.
    fn place(&mut self, i: usize, signal: TradeSignal) -> Result<()> {
        let intent = intent_of_signal(&signal);
        self.count_signal(i, &intent)?;
        let guard = self.plan.terms.guard(intent.direction, signal.order_type, intent.requested, intent.stop);
        match guard {
            Ok(()) => self.pending.place(PendingOrder { signal, placed_bar: i }),
            Err(_) => self.counters.orders_rejected += 1,
        }
        Ok(())
    }

    /// Orders placed on earlier bars that this bar triggers, first placed first.
    fn fill_pending(&mut self, i: usize, observer: &mut impl Observer) -> Result<()> {
        let mut from = 0;
        while let Some(order) = self.pending.next_triggered(self.bars, i, &mut from) {
            if self.open.len() >= self.plan.max_positions {
                self.counters.orders_dropped_no_slot += 1;
                continue;
            }
            let intent = intent_of_signal(&order.signal);
            let terms = &self.plan.terms;
            let open = match intent.direction {
                Direction::Long => self.bars.ask.open[i],
                Direction::Short => self.bars.bid.open[i],
            };
            let price = terms.pending_price(
                intent.direction,
                order.signal.order_type,
                intent.requested,
                open,
                self.counters.fills,
                self.inputs.draws,
            );
            let stamped = match terms.variant {
                Variant::V2 => i,
                Variant::V1Parity => order.placed_bar,
            };
            self.open(i, &intent, order.signal.order_type, price, self.bars.open_time[stamped], observer)?;
        }
        Ok(())
    }

    /// Opens a position filled at `price` on bar `i`, unless its order is refused.
    fn open(
        &mut self,
        i: usize,
        intent: &Intent<'_>,
        order_type: OrderType,
        price: f64,
        entry_time_ns: EpochNs,
        observer: &mut impl Observer,
    ) -> Result<()> {
        let terms = &self.plan.terms;
        let entry = terms
            .guard(intent.direction, order_type, price, intent.stop)
            .and_then(|()| terms.open(price, intent.stop, intent.lots));
        let Ok(entry) = entry else {
            self.counters.orders_rejected += 1;
            return Ok(());
        };
        self.counters.fills += 1;
        self.ledger.book_entry(entry.fee);
        let position = Position {
            id: self.next_id,
            direction: intent.direction,
            entry_bar: i,
            entry_time_ns,
            entry_price: entry.price,
            lots: entry.lots,
            stop_loss: intent.stop,
            initial_stop_loss: intent.stop,
            take_profit: intent.target,
            scenario_id: intent.scenario_id,
        };
        self.next_id += 1;
        observer.entered(&position, &intent.origin, &self.slice(i));
        let held = OpenPosition { position, order_type, rule: intent.rule, entry_fee: entry.fee };
        self.open.push(OpenSlot { held, next_stop: None, next_target: None });
        if self.open.len() > self.plan.max_positions {
            return Err(Error::PositionLimitExceeded { limit: self.plan.max_positions, open: self.open.len() });
        }
        Ok(())
    }

    /// Stop and target, in ascending id. A market position is not tested on its entry bar.
    #[inline]
    fn exit_at_levels(&mut self, i: usize) {
        let mut exposed = false;
        let mut slot = 0;
        while slot < self.open.len() {
            let OpenPosition { position, order_type, .. } = &self.open[slot].held;
            let entered_now = position.entry_bar == i;
            exposed |= !entered_now;
            if entered_now && *order_type == OrderType::Market {
                slot += 1;
                continue;
            }
            let levels = Levels {
                direction: position.direction,
                stop: position.stop_loss,
                target: position.take_profit,
                triggered_now: entered_now.then_some(*order_type),
            };
            let terms = &self.plan.terms;
            match level_exit(self.bars, i, levels, terms.buffer, terms.variant) {
                Some(exit) => self.close(slot, i, exit.reason, exit.base_price),
                None => slot += 1,
            }
        }
        self.counters.exposed_bars += u64::from(exposed);
    }

    /// Rules that close or change what is still open; one action per position, the lowest priority number wins, a
    /// close beats a change.
    #[inline]
    fn manage(&mut self, rules: Option<&BoundRules<'_>>, i: usize) -> Result<()> {
        let mut slot = 0;
        while slot < self.open.len() {
            match self.action(slot, rules, i)? {
                Managed::Keep => slot += 1,
                Managed::Close(reason) => self.close_at_market(slot, i, reason),
                Managed::Change(action) => {
                    if let PositionAction::ModifyStop(level) | PositionAction::ModifyTarget(level) = action
                        && !level.is_finite()
                    {
                        let id = self.open[slot].held.position.id;
                        let reason = format!("position {id} is to get the level {level}; it must be finite");
                        return Err(Error::ExecutionFailure { bar: i, reason });
                    }
                    match action {
                        PositionAction::ModifyStop(stop) => self.open[slot].next_stop = Some(stop),
                        PositionAction::ModifyTarget(target) => self.open[slot].next_target = Some(target),
                        PositionAction::Hold | PositionAction::Close => {}
                    }
                    slot += 1;
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn action(&self, slot: usize, rules: Option<&BoundRules<'_>>, i: usize) -> Result<Managed> {
        let OpenPosition { position, rule, .. } = &self.open[slot].held;
        if let Some(holding) = &self.plan.holding
            && self.bars.open_time[i] - position.entry_time_ns >= holding.limit_ns
            && holding.applies_to(position.scenario_id)
        {
            return Ok(Managed::Close(ExitReason::Timeout));
        }
        if let Some(rules) = rules
            && i > position.entry_bar
        {
            let rule = usize::from(*rule);
            // Condition before limit: on the bar where both close, the trade is told by what the market did.
            if rules.exits(rule, i) {
                return Ok(Managed::Close(ExitReason::Signal));
            }
            let limit = rules.rule(rule).exit.hold_bars;
            if limit.is_some_and(|bars| i - position.entry_bar >= bars as usize) {
                return Ok(Managed::Close(ExitReason::Timeout));
            }
        }
        if !self.manages_positions {
            return Ok(Managed::Keep);
        }
        Ok(match self.inputs.strategy.manage_position(position, &self.slice(i))? {
            PositionAction::Hold => Managed::Keep,
            PositionAction::Close => Managed::Close(ExitReason::Manual),
            change => Managed::Change(change),
        })
    }

    fn close_all(&mut self, i: usize, reason: ExitReason) {
        while !self.open.is_empty() {
            self.close_at_market(0, i, reason);
        }
    }

    fn close_at_market(&mut self, slot: usize, i: usize, reason: ExitReason) {
        let base = match self.open[slot].held.position.direction {
            Direction::Long => self.bars.bid.close[i],
            Direction::Short => self.bars.ask.close[i],
        };
        self.close(slot, i, reason, base);
    }

    fn close(&mut self, slot: usize, i: usize, reason: ExitReason, base: f64) {
        let OpenPosition { position, order_type, rule, entry_fee } = self.open.remove(slot).held;
        let terms = &self.plan.terms;
        let moved = position.stop_loss != position.initial_stop_loss;
        let parity_name = terms.variant == Variant::V1Parity && moved && i > position.entry_bar;
        let reason = match reason {
            ExitReason::StopLoss if parity_name => ExitReason::BreakEvenStopLoss,
            other => other,
        };
        let exit_price = terms.exit_price(position.direction, reason, base, self.counters.fills, self.inputs.draws);
        self.counters.fills += 1;
        let r = r_multiple(position.direction, position.entry_price, exit_price, position.initial_stop_loss);
        let result = terms.result(position.direction, position.entry_price, exit_price, position.lots, r);
        let exit_fee = terms.exit_fee(reason, exit_price, position.lots);
        self.ledger.book_exit(result, exit_fee);
        self.last_exit = Some(i);
        self.trades.push(Trade {
            position_id: position.id,
            direction: position.direction,
            order_type,
            scenario_id: position.scenario_id,
            rule,
            entry_bar: position.entry_bar,
            exit_bar: i,
            entry_time_ns: position.entry_time_ns,
            exit_time_ns: self.bars.open_time[i],
            entry_price: position.entry_price,
            exit_price,
            initial_stop_loss: position.initial_stop_loss,
            stop_loss: position.stop_loss,
            take_profit: position.take_profit,
            lots: position.lots,
            result,
            entry_fee,
            exit_fee,
            r_multiple: r,
            reason,
        });
    }

    #[inline]
    fn unrealised(&self, i: usize) -> f64 {
        if self.open.is_empty() || self.plan.terms.variant == Variant::V1Parity {
            return 0.0;
        }
        let mid = (self.bars.bid.close[i] + self.bars.ask.close[i]) / 2.0;
        let gain = |slot: &OpenSlot| {
            let position = &slot.held.position;
            self.plan.terms.gain(position.direction, position.entry_price, mid, position.lots)
        };
        self.open.iter().map(gain).sum()
    }

    #[inline]
    fn mark(&mut self, i: usize, observer: &mut impl Observer) {
        let (time_ns, balance) = (self.bars.open_time[i], self.ledger.balance());
        let equity = balance + self.unrealised(i);
        self.equity.push(time_ns, equity);
        let drawdown: &Drawdown = self.equity.drawdown();
        observer.equity(EquityPoint {
            time_ns,
            equity,
            balance,
            drawdown: drawdown.current(equity),
            high_water: drawdown.high_water(),
        });
    }

    fn finish(mut self) -> Result<Walked> {
        self.counters.open_positions_at_end = self.open.len() as u64;
        self.counters.pending_orders_at_end = self.pending.len() as u64;
        let last = self.plan.bars.end.saturating_sub(1);
        let expected = self.ledger.balance() + if self.plan.bars.is_empty() { 0.0 } else { self.unrealised(last) };
        let difference = (self.equity.last_equity() - expected).abs();
        if difference.is_nan() || difference > 1e-8 {
            return Err(Error::Consistency { difference });
        }
        Ok(Walked { trades: self.trades, equity: self.equity, counters: self.counters, ledger: self.ledger })
    }
}

/// What a signal must state, whoever states it.
#[inline(always)]
pub(super) fn check_signal(
    bars: &Bars,
    i: usize,
    requested: f64,
    stop: Option<f64>,
    target: Option<f64>,
    lots: Option<f64>,
    variant: Variant,
) -> Result<()> {
    let positive = |x: f64| x.is_finite() && x > 0.0;
    let invalid = |field, found, rule| Err(invalid_signal(bars, i, field, found, rule));
    if !positive(requested) {
        return invalid("entry_price", Some(requested), "finite and > 0");
    }
    match (stop, lots) {
        (Some(stop), _) if !positive(stop) => return invalid("stop_loss", Some(stop), "finite and > 0"),
        (None, None) => return invalid("stop_loss", None, "given, or the size explicit"),
        (None, Some(_)) if variant == Variant::V1Parity => {
            return invalid("stop_loss", None, "given: v1_parity knows no position without a stop");
        }
        _ => {}
    }
    if let Some(target) = target.filter(|target| !target.is_finite()) {
        return invalid("take_profit", Some(target), "finite");
    }
    match lots.filter(|lots| !positive(*lots)) {
        Some(lots) => invalid("lots", Some(lots), "finite and > 0"),
        None => Ok(()),
    }
}

#[cold]
#[inline(never)]
fn invalid_signal(bars: &Bars, i: usize, field: &'static str, found: Option<f64>, rule: &'static str) -> Error {
    let found = found.map_or_else(|| "none".to_owned(), |found| found.to_string());
    Error::InvalidSignal { bar: i, timestamp_ns: bars.open_time[i], field, found, rule }
}

fn intent_of_signal(signal: &TradeSignal) -> Intent<'_> {
    Intent {
        direction: signal.direction,
        requested: signal.entry_price,
        stop: signal.stop_loss,
        target: signal.take_profit,
        lots: signal.lots,
        scenario_id: signal.scenario_id,
        rule: 0,
        origin: Origin::Signal(signal),
    }
}

enum Managed {
    Keep,
    Close(ExitReason),
    Change(PositionAction),
}

#[cfg(test)]
#[path = "walk_breaches.rs"]
mod breaches;
