//! Every cent is explained: random runs of every registered strategy, each trade and each equity point worked out again
//! from bars, costs and definitions.
//!
//! Tolerances are relative to the money moved, 1e-8 and tighter: sums here run in another order than in the engine.
//! Source of the rules: execution specification §3, §5 to §11, §15; metrics specification §2 to §5.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly and say what they measured")]

mod support;

use std::collections::BTreeMap;

use engine::backtest::{Prepared, RunConfig};
use engine::data::Bars;
use engine::execution::ExitReason;
use engine::indicators::ColumnKey;
use engine::portfolio::Trade;
use engine::rules::{Comparison, Expr, GuardEvaluator, Operand, Rule, RuleSet};
use engine::strategy::{DataSlice, OrderType, Position, PositionAction, SignalNotes, Strategy, TradeSignal};
use engine::units::{Direction, MINUTE_NS, PriceSide, Timeframe};
use engine::{Error, Result};
use proptest::prelude::*;
use support::in_folder;
use support::market::Run;
use support::metrics::{Facts, assert_agree, recompute};
use support::settings::{MIN_STOP_PIPS, Setting, any_setting, build, cases, record};

/// A run with what is needed to check it.
struct Checked<'a> {
    setting: &'a Setting,
    config: &'a RunConfig,
    prepared: &'a Prepared,
    run: &'a Run,
}

impl Checked<'_> {
    fn bars(&self) -> &Bars {
        &self.prepared.market().data.bars
    }

    fn trades(&self) -> &[Trade] {
        self.run.trades()
    }

    /// Account money per price unit and lot: 100,000 units, quoted in USD, EURUSD at 1.25.
    fn unit_value(&self) -> f64 {
        if self.config.account.currency == "EUR" { 100_000.0 / 1.25 } else { 100_000.0 }
    }

    /// Money that went through the books.
    fn scale(&self) -> f64 {
        let moved: f64 = self.trades().iter().map(|trade| trade.result.abs()).sum();
        moved + self.config.account.initial_balance
    }

    fn near(&self, found: f64, expected: f64, what: &str) {
        assert!((found - expected).abs() <= 1e-8 * self.scale().max(1.0) / 1e4, "{what}: {found} against {expected}");
    }

    fn check(&self) {
        self.check_cash();
        self.check_equity();
        self.check_entries();
        for trade in self.trades() {
            self.check_slippage(trade);
            self.check_exit(trade);
            self.check_fees(trade);
        }
        self.check_order();
        self.check_metrics();
    }

    fn check_cash(&self) {
        let ledger = &self.run.outcome.walked.ledger;
        let results: f64 = self.trades().iter().map(|trade| trade.result).sum();
        let initial = self.config.account.initial_balance;
        self.near(results - ledger.fees_total(), ledger.balance() - initial, "results less fees");
        for trade in self.trades() {
            let d = trade.direction.sign();
            let gain = d * (trade.exit_price - trade.entry_price) * trade.lots * self.unit_value();
            self.near(trade.result, gain, "result");
        }
    }

    /// Entry fees of positions that were never closed.
    fn open_entry_fees(&self) -> f64 {
        let closed: f64 = self.trades().iter().map(|trade| trade.entry_fee + trade.exit_fee).sum();
        self.run.outcome.walked.ledger.fees_total() - closed
    }

    fn check_equity(&self) {
        let (bars, plan) = (self.bars(), self.prepared.plan());
        let equity = &self.run.equity;
        assert_eq!(equity.len(), plan.bars.len());
        let exits: BTreeMap<u64, &Trade> = self.trades().iter().map(|trade| (trade.position_id, trade)).collect();
        let mut peak = self.config.account.initial_balance;
        let terms = &plan.terms;
        for (i, point) in plan.bars.clone().zip(equity) {
            assert_eq!(point.time_ns, bars.open_time[i]);
            let mut balance = self.config.account.initial_balance;
            let mut open_profit = 0.0;
            let mid = f64::midpoint(bars.bid.close[i], bars.ask.close[i]);
            let mut held = 0;
            for position in self.run.entered.iter().filter(|position| position.entry_bar <= i) {
                let entry = engine::execution::FillSide::Entry;
                balance -= terms.fees.fee(entry, position.entry_price, position.lots);
                match exits.get(&position.id).filter(|trade| trade.exit_bar <= i) {
                    Some(trade) => balance += trade.result - trade.exit_fee,
                    None => {
                        held += 1;
                        let gain = position.direction.sign() * (mid - position.entry_price);
                        open_profit += gain * position.lots * self.unit_value();
                    }
                }
            }
            assert!(held <= self.config.account.max_positions, "{held} positions on bar {i}");
            self.near(point.balance, balance, "balance of a bar");
            self.near(point.equity, balance + open_profit, "equity of a bar");
            peak = peak.max(point.equity);
            assert_eq!(point.high_water, peak);
            assert!((0.0..=1.0).contains(&point.drawdown));
        }
        let last = equity[equity.len() - 1];
        assert_eq!(last.balance, self.run.outcome.walked.ledger.balance());
    }

    fn check_entries(&self) {
        let counters = &self.run.outcome.walked.counters;
        let entered = self.run.entered.len() as u64;
        assert_eq!(counters.signals, entered + counters.orders_rejected);
        assert_eq!(counters.fills, entered + self.trades().len() as u64);
        assert_eq!(counters.open_positions_at_end, entered - self.trades().len() as u64);
        let allowed =
            |close: i64| self.config.sessions.as_deref().is_none_or(|sessions| engine::data::open_at(sessions, close));
        for position in &self.run.entered {
            let lots = position.lots;
            let steps = (lots - 0.01) / 0.01;
            assert!((steps - steps.round()).abs() < 1e-6 && (0.01..=200.0).contains(&lots), "{lots} lots");
            if let (Some(stop), None) =
                (position.stop_loss, self.config.strategy_parameters.get("lots").and_then(serde_json::Value::as_f64))
            {
                let at_risk = (position.entry_price - stop).abs() * lots * self.unit_value();
                assert!(at_risk <= self.config.account.risk_per_trade * (1.0 + 1e-9), "{at_risk} at risk");
            }
            assert!(self.prepared.plan().bars.contains(&position.entry_bar));
            assert!(allowed(self.bars().close_instant(position.entry_bar)), "entered outside the sessions");
            self.check_entry_price(position);
        }
        self.check_cooldowns();
    }

    fn check_entry_price(&self, position: &Position) {
        let (i, d) = (position.entry_bar, position.direction.sign());
        let base = match position.direction {
            Direction::Long => self.bars().ask.close[i],
            Direction::Short => self.bars().bid.close[i],
        };
        let slip = d * (position.entry_price - base);
        assert!((-1e-12..=self.largest_slippage() + 1e-12).contains(&slip), "entry slips by {slip}");
        if let Some(stop) = position.stop_loss {
            assert!(d * (position.entry_price - stop) >= MIN_STOP_PIPS * 0.0001 - 2e-12, "stop guard");
        }
    }

    /// Fixed and whole random part, in price.
    fn largest_slippage(&self) -> f64 {
        if !self.config.costs.enabled {
            return 0.0;
        }
        let pips = [0.5, 0.1, 0.5, 0.0][self.setting.costs];
        pips * self.config.costs.slippage_multiplier * 0.0001
    }

    fn check_cooldowns(&self) {
        let time = &self.bars().open_time;
        for pair in self.run.entered.windows(2) {
            let (a, b) = (pair[0].entry_bar, pair[1].entry_bar);
            assert!((b - a) as i64 >= self.config.cooldown_candles.max(1));
            assert!(time[b] - time[a] >= self.config.cooldown_minutes * MINUTE_NS);
        }
        for position in &self.run.entered {
            let entered = position.entry_bar;
            let last_exit = self.trades().iter().map(|trade| trade.exit_bar).filter(|exit| *exit < entered).max();
            if let Some(exit) = last_exit {
                assert!(time[entered] - time[exit] >= self.config.cooldown_minutes_trade * MINUTE_NS);
            }
        }
    }

    fn check_slippage(&self, trade: &Trade) {
        let adverse = trade.direction.sign() * (self.exit_base(trade) - trade.exit_price);
        assert!((-1e-12..=self.largest_slippage() + 1e-12).contains(&adverse), "exit slips by {adverse}: {trade:?}");
    }

    fn exit_base(&self, trade: &Trade) -> f64 {
        let (bars, i) = (self.bars(), trade.exit_bar);
        match (trade.reason, trade.direction) {
            (ExitReason::StopLoss, Direction::Long) => trade.stop_loss.unwrap().min(bars.bid.open[i]),
            (ExitReason::StopLoss, Direction::Short) => trade.stop_loss.unwrap().max(bars.ask.open[i]),
            (ExitReason::TakeProfit, Direction::Long) => trade.take_profit.unwrap().max(bars.bid.open[i]),
            (ExitReason::TakeProfit, Direction::Short) => trade.take_profit.unwrap().min(bars.ask.open[i]),
            (_, Direction::Long) => bars.bid.close[i],
            (_, Direction::Short) => bars.ask.close[i],
        }
    }

    fn stop_hit(&self, trade: &Trade, i: usize) -> bool {
        let (bars, buffer) = (self.bars(), self.prepared.plan().terms.buffer);
        trade.stop_loss.is_some_and(|stop| match trade.direction {
            Direction::Long => bars.bid.low[i] <= stop + buffer,
            Direction::Short => bars.ask.high[i] >= stop - buffer,
        })
    }

    fn target_hit(&self, trade: &Trade, i: usize) -> bool {
        let (bars, buffer) = (self.bars(), self.prepared.plan().terms.buffer);
        trade.take_profit.is_some_and(|target| match trade.direction {
            Direction::Long => bars.bid.high[i] >= target - buffer,
            Direction::Short => bars.ask.low[i] <= target + buffer,
        })
    }

    /// The trade ended on the first bar on which anything ended it, and for the reason that comes first.
    fn check_exit(&self, trade: &Trade) {
        let window_end = trade.reason == ExitReason::WindowEnd;
        // A position opened on the last bar of a window is closed there.
        assert!(trade.exit_bar > trade.entry_bar || window_end, "{trade:?}");
        let touched = |i: usize| self.stop_hit(trade, i) || self.target_hit(trade, i);
        assert!(!(trade.entry_bar + 1..trade.exit_bar).any(touched), "passed over a level: {trade:?}");
        let at = trade.exit_bar;
        match trade.reason {
            ExitReason::StopLoss => assert!(self.stop_hit(trade, at)),
            ExitReason::TakeProfit => assert!(self.target_hit(trade, at) && !self.stop_hit(trade, at)),
            _ if window_end && at == trade.entry_bar => {}
            _ => assert!(!touched(at), "a level comes before {:?}", trade.reason),
        }
        if window_end {
            assert_eq!(at + 1, self.prepared.plan().bars.end);
        }
        if let Some(holding) = &self.prepared.plan().holding
            && (holding.only_scenarios.is_empty() || holding.only_scenarios.contains(&trade.scenario_id))
        {
            let time = &self.bars().open_time;
            let too_long = |i: usize| time[i] - trade.entry_time_ns >= holding.limit_ns;
            assert!(!too_long(at - usize::from(at > trade.entry_bar)) || at == trade.entry_bar + 1, "held too long");
            assert!(
                !too_long(at)
                    || matches!(trade.reason, ExitReason::StopLoss | ExitReason::TakeProfit | ExitReason::Timeout)
            );
        }
        let expected = match trade.initial_stop_loss {
            None => None,
            Some(stop) => {
                let d = trade.direction.sign();
                Some(d * (trade.exit_price - trade.entry_price) / (trade.entry_price - stop).abs())
            }
        };
        assert_eq!(trade.r_multiple, expected);
    }

    /// Both fees from the rates of the cost file, to the cent.
    fn check_fees(&self, trade: &Trade) {
        let costs = &self.config.costs;
        let eur = self.config.account.currency == "EUR";
        let fee = |price: f64, entry: bool| -> f64 {
            let notional = price * 100_000.0 * trade.lots;
            let m = costs.fee_multiplier;
            let to_account = if eur { 1.0 / 1.25 } else { 1.0 };
            match self.setting.costs {
                // Stated in the account's currency.
                0 => 2.5 * trade.lots * m,
                // Stated in USD, at least one.
                1 => (25.0 * notional / 1e6 * m).max(m) * to_account,
                2 => {
                    if entry {
                        0.00002 * notional * m * to_account
                    } else {
                        0.0
                    }
                }
                _ => {
                    if entry {
                        0.0
                    } else {
                        3.0 * trade.lots * m
                    }
                }
            }
        };
        for (found, exact) in
            [(trade.entry_fee, fee(trade.entry_price, true)), (trade.exit_fee, fee(trade.exit_price, false))]
        {
            let expected = if costs.enabled { exact } else { 0.0 };
            assert!(found >= 0.0 && (found - expected).abs() <= 0.005 + 1e-9, "fee {found}, exactly {expected}");
            assert!((found * 100.0 - (found * 100.0).round()).abs() < 1e-6, "{found} is not whole cents");
        }
    }

    /// Trades stand in booking order; positions of one bar in ascending id.
    fn check_order(&self) {
        let key = |trade: &Trade| (trade.exit_bar, trade.position_id);
        let exits_at_levels = |trade: &Trade| matches!(trade.reason, ExitReason::StopLoss | ExitReason::TakeProfit);
        for pair in self.trades().windows(2) {
            let same_step = exits_at_levels(&pair[0]) == exits_at_levels(&pair[1]);
            assert!(pair[0].exit_bar <= pair[1].exit_bar);
            assert!(!same_step || key(&pair[0]) < key(&pair[1]), "{pair:?}");
        }
    }

    fn check_metrics(&self) {
        let facts = Facts {
            trades: self.trades(),
            equity: &self.run.equity,
            counters: &self.run.outcome.walked.counters,
            initial_balance: self.config.account.initial_balance,
            risk: self.config.account.risk_per_trade,
            open_entry_fees: self.open_entry_fees(),
        };
        assert_agree(&self.run.outcome.summary.values, &recompute(&facts), 1e-7);
        let exposed = self.prepared.plan().bars.clone().filter(|i| {
            let trades: BTreeMap<u64, &Trade> = self.trades().iter().map(|trade| (trade.position_id, trade)).collect();
            let held = |position: &Position| {
                position.entry_bar < *i && trades.get(&position.id).is_none_or(|trade| *i <= trade.exit_bar)
            };
            self.run.entered.iter().any(held)
        });
        assert_eq!(exposed.count() as u64, self.run.outcome.walked.counters.exposed_bars, "exposure");
    }
}

mod property_tests {
    use super::*;

    proptest! {
        #![proptest_config(cases(96))]

        #[test]
        fn prop_every_cent_is_explained(setting in any_setting()) {
            in_folder(|folder| {
                let config = setting.config();
                let environment = setting.open(&setting.bars(), folder);
                let prepared = support::prepare(&environment, &config);
                let run = record(&prepared);
                Checked { setting: &setting, config: &config, prepared: &prepared, run: &run }.check();
                assert_eq!(record(&support::prepare(&environment, &config)).outcome, run.outcome, "a second run");
            });
        }
    }

    proptest! {
        #![proptest_config(cases(48))]

        /// The same strategy stated as rules and asked bar by bar.
        #[test]
        fn prop_rules_and_evaluate_trade_alike(setting in any_setting()) {
            in_folder(|folder| {
                let config = setting.config();
                let environment = setting.open(&setting.bars(), folder);
                let prepared = support::prepare(&environment, &config);
                let by_rules = record(&prepared);
                let asked = Asked::new(build(&config), &prepared);
                let asked = environment.prepare_with(Box::new(asked), &config, config.rng_seed.unwrap()).unwrap();
                let by_asking = record(&asked);
                let plain = |run: &Run| -> Vec<Trade> {
                    // A strategy that is not rules has no rule numbers, and closes by its own hand.
                    let own = |reason| match reason {
                        ExitReason::Signal | ExitReason::Timeout => ExitReason::Manual,
                        other => other,
                    };
                    run.trades().iter().map(|trade| Trade { rule: 0, reason: own(trade.reason), ..*trade }).collect()
                };
                assert_eq!(plain(&by_rules), plain(&by_asking));
                assert_eq!(by_rules.equity, by_asking.equity);
                assert_eq!(by_rules.outcome.summary, by_asking.outcome.summary);
            });
        }
    }
}

/// A strategy stated as rules, asked bar by bar instead: its statements read once more, from the slice alone.
#[derive(Debug)]
struct Asked {
    inner: Box<dyn Strategy>,
    guards: Vec<Vec<std::sync::Mutex<GuardEvaluator>>>,
}

impl Asked {
    fn new(inner: Box<dyn Strategy>, prepared: &Prepared) -> Self {
        let rules = &inner.rules().unwrap().rules;
        let evaluator = |guard| std::sync::Mutex::new(prepared.market().guards.evaluator(guard).unwrap());
        let guards = rules.iter().map(|rule: &Rule| rule.guards.iter().map(evaluator).collect()).collect();
        Self { inner, guards }
    }

    fn rules(&self) -> &[Rule] {
        self.inner.rules().map(|rules| rules.rules.as_slice()).unwrap_or_default()
    }
}

fn value(operand: &Operand, slice: &DataSlice<'_>) -> Option<f64> {
    let column = |key: &ColumnKey| slice.value(key);
    match operand {
        Operand::Const(constant) => Some(constant.get()),
        Operand::Column(key) => column(key),
        Operand::Linear { base, factor, term } => Some(column(base)? + factor.get() * column(term)?),
        Operand::Offset { base, offset } => Some(column(base)? + offset.get()),
    }
}

fn holds(expr: &Expr, slice: &DataSlice<'_>) -> bool {
    match expr {
        Expr::Is(condition) => {
            let (Some(left), Some(right)) = (value(&condition.left, slice), value(&condition.right, slice)) else {
                return false;
            };
            let order = left.partial_cmp(&right);
            let related = match condition.comparison {
                Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
                Comparison::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
                Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
                Comparison::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
            };
            related && (!condition.finite || left.is_finite())
        }
        Expr::All(parts) => parts.iter().all(|part| holds(part, slice)),
        Expr::Any(parts) => parts.iter().any(|part| holds(part, slice)),
        Expr::AtLeast { count, of } => of.iter().filter(|part| holds(part, slice)).count() >= *count,
        Expr::Never(_) => false,
    }
}

impl Strategy for Asked {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn version(&self) -> &'static str {
        self.inner.version()
    }

    fn primary_timeframe(&self) -> Timeframe {
        self.inner.primary_timeframe()
    }

    fn columns(&self) -> Vec<ColumnKey> {
        self.inner.columns()
    }

    fn rules(&self) -> Option<&RuleSet> {
        None
    }

    fn uses_position_manager(&self) -> bool {
        self.inner.uses_position_manager()
    }

    fn max_holding_minutes(&self) -> Option<i64> {
        self.inner.max_holding_minutes()
    }

    fn evaluate(&self, slice: &DataSlice<'_>) -> Result<Option<TradeSignal>, Error> {
        for (rule, guards) in self.rules().iter().zip(&self.guards) {
            let level = |operand: &Option<Operand>| operand.as_ref().map(|operand| value(operand, slice));
            let (stop, target) = (level(&rule.stop), level(&rule.target));
            let undefined = stop == Some(None) || target == Some(None);
            if undefined || !rule.when.iter().all(|expr| holds(expr, slice)) {
                continue;
            }
            if !guards.iter().all(|guard| guard.lock().unwrap().holds(slice.index())) {
                continue;
            }
            let side = if rule.direction == Direction::Long { PriceSide::Ask } else { PriceSide::Bid };
            return Ok(Some(TradeSignal {
                direction: rule.direction,
                order_type: OrderType::Market,
                entry_price: slice.closes(side)[slice.index()],
                stop_loss: stop.flatten(),
                take_profit: target.flatten(),
                lots: rule.lots.map(|lots| lots.get()),
                scenario_id: rule.scenario_id,
                label: rule.label.clone(),
                reason: rule.reason.to_owned(),
                notes: SignalNotes::default(),
            }));
        }
        Ok(None)
    }

    fn manages_positions(&self) -> bool {
        self.rules().iter().any(|rule| rule.exit.condition.is_some() || rule.exit.hold_bars.is_some())
    }

    fn manage_position(&self, position: &Position, slice: &DataSlice<'_>) -> Result<PositionAction, Error> {
        let of = |rule: &&Rule| rule.direction == position.direction && rule.scenario_id == position.scenario_id;
        let held = slice.index() - position.entry_bar;
        let Some(rule) = self.rules().iter().find(of).filter(|_| held > 0) else { return Ok(PositionAction::Hold) };
        let ends = rule.exit.condition.as_ref().is_some_and(|expr| holds(expr, slice));
        let over = rule.exit.hold_bars.is_some_and(|bars| held >= bars as usize);
        Ok(if ends || over { PositionAction::Close } else { PositionAction::Hold })
    }
}

/// Random settings that never trade would prove nothing: what the other tests of this file reach, counted.
#[test]
fn random_settings_reach_every_strategy_scenario_and_exit() {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut trades: BTreeMap<(String, u8), u64> = BTreeMap::new();
    let mut reasons: BTreeMap<ExitReason, u64> = BTreeMap::new();
    let (mut rejected, mut together, mut silent) = (0, 0, 0);
    for _ in 0..150 {
        let setting = any_setting().new_tree(&mut runner).unwrap().current();
        let config = setting.config();
        let run = in_folder(|folder| {
            let environment = setting.open(&setting.bars(), folder);
            record(&support::prepare(&environment, &config))
        });
        rejected += run.outcome.walked.counters.orders_rejected;
        silent += u64::from(run.entered.is_empty());
        for trade in run.trades() {
            *trades.entry((config.strategy_name.clone(), trade.scenario_id)).or_default() += 1;
            *reasons.entry(trade.reason).or_default() += 1;
        }
        let overlap = |pair: &[Trade]| pair[1].entry_bar < pair[0].exit_bar;
        together += run.trades().windows(2).filter(|pair| overlap(pair)).count();
    }
    println!("{trades:?}\n{reasons:?}\nrejected {rejected}, together {together}, silent {silent}");
    for name in ["sma_cross", "donchian_breakout", "rsi_reversion"] {
        assert!(trades.get(&(name.to_owned(), 0)).is_some_and(|n| *n > 50), "{name}");
    }
    for scenario in 1..=6 {
        assert!(trades.get(&("mean_reversion_z_score".to_owned(), scenario)).is_some_and(|n| *n > 20), "{scenario}");
    }
    for reason in
        [ExitReason::StopLoss, ExitReason::TakeProfit, ExitReason::Timeout, ExitReason::Signal, ExitReason::WindowEnd]
    {
        assert!(reasons.get(&reason).is_some_and(|n| *n > 5), "{reason:?}");
    }
    assert!(rejected > 20 && together > 20 && silent < 60);
}
