//! Limit and stop orders on hand-made bars with known outcomes.
//!
//! Source: execution specification §4, §5.2, §7.3, §12, §14.1 (rows J to R3). Prices are compared to 1e-9, money to the
//! cent the tables print.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly and say what they measured")]

mod support;

use engine::execution::ExitReason;
use engine::strategy::{OrderType, PositionAction, TradeSignal};
use engine::units::{Direction, Timeframe};
use serde_json::{Value, json};
use support::market::{Lab, NO_COSTS, Ohlc, Run, Script, document, flat, market, quotes, times};

const SPREAD: f64 = 0.0002;
const K: Ohlc = [1.1, 1.1005, 1.0975, 1.1];

#[derive(Debug, Clone, Copy)]
enum End {
    Pending,
    /// Fill price, lots.
    Open(f64, f64),
    /// Fill price, lots, reason, exit price, result.
    Closed(f64, f64, ExitReason, f64, f64),
}

use End::{Closed, Open, Pending};
use ExitReason::{StopLoss, TakeProfit};

fn order(order_type: OrderType, direction: Direction, entry: f64, stop: f64, target: Option<f64>) -> TradeSignal {
    TradeSignal { order_type, ..market(direction, entry, stop, target) }
}

fn near(found: f64, expected: f64, tolerance: f64, what: &str) {
    assert!((found - expected).abs() <= tolerance, "{what}: found {found}, expected {expected}");
}

fn play(bars: &[Ohlc], script: Script, variant: &str, costs: &str, changes: &Value) -> Run {
    let mut changes = changes.clone();
    changes["execution_variant"] = json!(variant);
    let candles = quotes(&times("2024-03-04T10:00", Timeframe::M5, bars.len()), bars, SPREAD);
    Lab::open(&document(&changes), &candles, costs, |_| ()).run(script)
}

fn check(name: &str, signal: &TradeSignal, bars: &[Ohlc], costs: &str, ends: [End; 2]) {
    for (variant, end) in ["v1_parity", "v2"].into_iter().zip(ends) {
        let run = play(bars, Script::once(0, signal.clone()), variant, costs, &json!({}));
        let what = format!("{name} in {variant}");
        let counters = run.outcome.walked.counters;
        assert_eq!(counters.signals, 1, "{what}: signals");
        assert_eq!(counters.pending_orders_at_end, u64::from(matches!(end, Pending)), "{what}: pending");
        assert_eq!(counters.open_positions_at_end, u64::from(matches!(end, Open(..))), "{what}: open");
        assert_eq!(run.trades().len(), usize::from(matches!(end, Closed(..))), "{what}: trades");
        if let Open(fill, lots) | Closed(fill, lots, ..) = end {
            near(run.entered[0].entry_price, fill, 1e-9, &format!("{what}: fill"));
            near(run.entered[0].lots, lots, 1e-12, &format!("{what}: lots"));
        }
        if let Closed(fill, _, reason, exit, result) = end {
            let trade = &run.trades()[0];
            assert_eq!((trade.reason, trade.order_type), (reason, signal.order_type), "{what}");
            assert_eq!((trade.entry_bar, trade.exit_bar), (1, 1), "{what}: entered and left on the trigger bar");
            near(trade.exit_price, exit, 1e-9, &format!("{what}: exit"));
            near(trade.result, result, 0.005, &format!("{what}: result"));
            let r = (exit - fill) * trade.direction.sign() / (fill - signal.stop_loss.unwrap()).abs();
            near(trade.r_multiple.unwrap(), r, 1e-6, &format!("{what}: R"));
        }
    }
}

/// execution §14.1, rows J to Q.
#[test]
fn pending_orders_of_the_intrabar_table() {
    use Direction::{Long, Short};
    use OrderType::{Limit, Stop};
    let k = order(Limit, Long, 1.099, 1.098, Some(1.101));
    let n = order(Stop, Long, 1.101, 1.1, Some(1.102));
    let o = order(Stop, Long, 1.101, 1.1, Some(1.105));
    let p = order(Limit, Short, 1.101, 1.102, Some(1.099));
    let both = |end| [end, end];
    let rows: [(&str, &TradeSignal, Vec<Ohlc>, [End; 2]); 12] = [
        ("J", &k, vec![[1.1, 1.1, 1.0985, 1.1]], both(Pending)),
        ("K", &k, vec![flat(1.1), K], both(Closed(1.099, 1.0, StopLoss, 1.098, -100.0))),
        ("L", &k, vec![flat(1.1), [1.1, 1.1015, 1.0985, 1.1005]], both(Open(1.099, 1.0))),
        ("M", &k, vec![flat(1.1), [1.1, 1.1015, 1.0985, 1.1012]], both(Closed(1.099, 1.0, TakeProfit, 1.101, 200.0))),
        ("M2", &k, vec![flat(1.1), [1.1, 1.1015, 1.0985, 1.101]], both(Open(1.099, 1.0))),
        (
            "N",
            &n,
            vec![flat(1.1), [1.1005, 1.1025, 1.1002, 1.1008]],
            [Closed(1.101, 1.0, TakeProfit, 1.102, 100.0), Open(1.101, 1.0)],
        ),
        ("N2", &n, vec![flat(1.1), [1.1005, 1.1015, 1.0999, 1.1008]], both(Closed(1.101, 1.0, StopLoss, 1.1, -100.0))),
        ("O", &o, vec![flat(1.1), [1.103, 1.1035, 1.1025, 1.1032]], [Open(1.101, 1.0), Open(1.1032, 0.31)]),
        ("P", &p, vec![flat(1.1), [1.1, 1.101, 1.0999, 1.1005]], both(Open(1.101, 1.0))),
        ("P2", &p, vec![flat(1.1), [1.1, 1.100_99, 1.0999, 1.1005]], both(Pending)),
        ("Q", &k, vec![flat(1.1), [1.1, 1.1002, 1.0989, 1.0995]], both(Pending)),
        // A limit never triggers on the bar it is placed on, but on a later one.
        ("J later", &k, vec![[1.1, 1.1, 1.0985, 1.1], [1.1, 1.1, 1.0985, 1.1]], both(Open(1.099, 1.0))),
    ];
    for (name, signal, bars, ends) in rows {
        check(name, signal, &bars, NO_COSTS, ends);
    }
}

/// execution §14.1, row R3: fixed slippage of 0.2 pip.
#[test]
fn slippage_of_pending_orders() {
    let costs = "defaults: {schema: per_lot, per_lot: 0, slippage: {fixed_pips: 0.2, random_pips: 0}}\n";
    let signal = order(OrderType::Limit, Direction::Long, 1.099, 1.098, None);
    let ends = [Closed(1.099, 1.0, StopLoss, 1.098_02, -98.0), Closed(1.099_02, 0.98, StopLoss, 1.097_98, -101.92)];
    check("R3", &signal, &[flat(1.1), K], costs, ends);
}

/// execution §4: a limit order that opens beyond its price fills at the open, a short stop order at the worse price.
#[test]
fn gaps_through_pending_prices() {
    let limit = order(OrderType::Limit, Direction::Long, 1.099, 1.09, None);
    let run = play(&[flat(1.1), flat(1.095)], Script::once(0, limit), "v2", NO_COSTS, &json!({}));
    near(run.entered[0].entry_price, 1.0952, 1e-9, "buy limit at the ask open");
    let stop = order(OrderType::Stop, Direction::Short, 1.099, 1.11, None);
    let run = play(&[flat(1.1), flat(1.095)], Script::once(0, stop), "v2", NO_COSTS, &json!({}));
    near(run.entered[0].entry_price, 1.095, 1e-9, "sell stop at the bid open");
}

/// execution §4 and §12: pending orders take no slot; without a free one a triggered order is dropped, without a fee and
/// without a draw, and it does not come back.
#[test]
fn a_triggered_order_without_a_slot_is_dropped() {
    let script = Script::new(|slice| match slice.index() {
        0 => Some(order(OrderType::Limit, Direction::Long, 1.099, 1.09, None)),
        1 => Some(market(Direction::Long, 1.1002, 1.08, None)),
        _ => None,
    });
    let bars = [flat(1.1), flat(1.1), [1.1, 1.1, 1.0985, 1.1], [1.1, 1.1, 1.0985, 1.1]];
    let run = play(&bars, script, "v2", NO_COSTS, &json!({}));
    let counters = run.outcome.walked.counters;
    assert_eq!((counters.signals, counters.orders_dropped_no_slot, counters.fills), (2, 1, 1));
    assert_eq!((counters.pending_orders_at_end, counters.open_positions_at_end), (0, 1));
}

/// execution §4: first placed, first filled; with two slots both fill on the bar that triggers them.
#[test]
fn orders_fill_in_order_of_placement() {
    let script = Script::new(|slice| match slice.index() {
        0 => Some(order(OrderType::Limit, Direction::Long, 1.098, 1.09, None)),
        1 => Some(order(OrderType::Limit, Direction::Long, 1.099, 1.09, None)),
        _ => None,
    });
    let account = json!({"account": {"account_currency": "USD", "max_positions": 2}});
    let run = play(&[flat(1.1), flat(1.1), [1.1, 1.1, 1.0975, 1.1]], script, "v2", NO_COSTS, &account);
    let prices: Vec<f64> = run.entered.iter().map(|position| position.entry_price).collect();
    assert_eq!(prices, [1.098, 1.099]);
}

/// execution §6: pending orders are guarded at placement with `E` and on the fill in `v2`, never in `v1_parity`.
#[test]
fn the_stop_guard_of_pending_orders() {
    let wrong_side = order(OrderType::Limit, Direction::Long, 1.099, 1.0995, None);
    let run = play(&[flat(1.1), K], Script::once(0, wrong_side.clone()), "v2", NO_COSTS, &json!({}));
    assert_eq!(run.outcome.walked.counters.orders_rejected, 1);
    let run = play(&[flat(1.1), K], Script::once(0, wrong_side), "v1_parity", NO_COSTS, &json!({}));
    assert_eq!((run.outcome.walked.counters.orders_rejected, run.entered.len()), (0, 1));
    // Placed in good order; the gap fills it below its stop.
    let gapped = order(OrderType::Limit, Direction::Long, 1.099, 1.098, None);
    let run = play(&[flat(1.1), flat(1.095)], Script::once(0, gapped), "v2", NO_COSTS, &json!({}));
    assert_eq!((run.outcome.walked.counters.orders_rejected, run.entered.len()), (1, 0));
}

/// execution §2: `v1_parity` stamps a pending entry with its placement bar, for the holding-time rule too.
#[test]
fn parity_stamps_the_placement_bar() {
    let signal = order(OrderType::Limit, Direction::Long, 1.099, 1.09, None);
    let dip: Ohlc = [1.1, 1.1, 1.0985, 1.1];
    let management =
        json!({"trade_management": {"enabled": true, "rules": {"max_holding_time": {"max_holding_minutes": 15}}}});
    for (variant, stamped, left) in [("v1_parity", 0, 3), ("v2", 2, 5)] {
        let bars = [flat(1.1), flat(1.1), dip, flat(1.1), flat(1.1), flat(1.1), flat(1.1)];
        let run = play(&bars, Script::once(0, signal.clone()), variant, NO_COSTS, &management);
        let trade = &run.trades()[0];
        let opens = times("2024-03-04T10:00", Timeframe::M5, bars.len());
        assert_eq!((trade.entry_bar, trade.entry_time_ns, trade.exit_bar), (2, opens[stamped], left), "{variant}");
        assert_eq!(trade.reason, ExitReason::Timeout);
    }
}

/// execution §5.3 and §7.3: a stop that was moved and then hit keeps its reason in `v2`; V1 calls it break even.
#[test]
fn a_moved_stop_is_told_apart_in_parity() {
    for (variant, reason) in [("v1_parity", ExitReason::BreakEvenStopLoss), ("v2", ExitReason::StopLoss)] {
        let script = Script::once(0, market(Direction::Long, 1.1002, 1.09, None))
            .managing(|_, _| PositionAction::ModifyStop(1.0995));
        let run = play(&[flat(1.1), flat(1.1), [1.1, 1.1, 1.099, 1.1]], script, variant, NO_COSTS, &json!({}));
        let trade = &run.trades()[0];
        assert_eq!((trade.reason, trade.stop_loss, trade.initial_stop_loss), (reason, Some(1.0995), Some(1.09)));
    }
}
