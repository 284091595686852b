//! Hand-made bars with known outcomes, driven through a whole run by a strategy that is not rules.
//!
//! Source: execution specification §14.1 (market orders), §7.2, §7.3, §11.3, §12, §14.4, §14.5. Prices are compared to
//! 1e-9, money to the cent the tables print: both are decimals there, the run works in binary.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly and say what they measured")]

mod support;

use std::sync::{Arc, Mutex};

use engine::execution::ExitReason;
use engine::strategy::{PositionAction, TradeSignal};
use engine::units::{Direction, MINUTE_NS, Timeframe};
use serde_json::{Value, json};
use support::market::{Lab, NO_COSTS, Ohlc, Run, Script, document, flat, instant, market, quotes, times, write_news};

const SPREAD: f64 = 0.0002;
const VARIANTS: [&str; 2] = ["v1_parity", "v2"];

/// What becomes of an order.
#[derive(Debug, Clone, Copy)]
enum End {
    Rejected,
    Open,
    /// Reason, price, result if the table states it.
    Closed(ExitReason, f64, Option<f64>),
}

use End::{Closed, Open, Rejected};
use ExitReason::{StopLoss, TakeProfit};

struct Row {
    name: &'static str,
    signal: TradeSignal,
    bar_0: Ohlc,
    bar_1: Option<Ohlc>,
    lots: Option<f64>,
    /// `v1_parity`, `v2`.
    ends: [End; 2],
}

fn long(name: &'static str, stop: f64, target: Option<f64>, bar_1: Ohlc, ends: [End; 2]) -> Row {
    let signal = market(Direction::Long, 1.1002, stop, target);
    Row { name, signal, bar_0: flat(1.1), bar_1: Some(bar_1), lots: Some(0.83), ends }
}

fn a(name: &'static str, bar_1: Ohlc, ends: [End; 2]) -> Row {
    long(name, 1.099, Some(1.1022), bar_1, ends)
}

fn h(name: &'static str, bar_1: Ohlc, ends: [End; 2]) -> Row {
    let signal = market(Direction::Short, 1.1, 1.1012, Some(1.098));
    Row { name, signal, bar_0: flat(1.1), bar_1: Some(bar_1), lots: Some(0.83), ends }
}

fn both(end: End) -> [End; 2] {
    [end, end]
}

fn near(found: f64, expected: f64, tolerance: f64, what: &str) {
    assert!((found - expected).abs() <= tolerance, "{what}: found {found}, expected {expected}");
}

fn check(row: &Row, variant: &str, end: End, costs: &str, changes: &Value) -> Run {
    let mut changes = changes.clone();
    changes["execution_variant"] = json!(variant);
    let bars: Vec<Ohlc> = [row.bar_0].into_iter().chain(row.bar_1).collect();
    let candles = quotes(&times("2024-03-04T10:00", Timeframe::M5, bars.len()), &bars, SPREAD);
    let lab = Lab::open(&document(&changes), &candles, costs, |_| ());
    let run = lab.run(Script::once(0, row.signal.clone()));
    let what = format!("{} in {variant}", row.name);
    let counters = run.outcome.walked.counters;
    assert_eq!(counters.signals, 1, "{what}: signals");
    assert_eq!(counters.orders_rejected, u64::from(matches!(end, Rejected)), "{what}: rejected");
    assert_eq!(counters.open_positions_at_end, u64::from(matches!(end, Open)), "{what}: open at the end");
    assert_eq!(run.entered.len(), usize::from(!matches!(end, Rejected)), "{what}: entries");
    if let (Some(lots), Some(position)) = (row.lots, run.entered.first()) {
        near(position.lots, lots, 1e-12, &format!("{what}: lots"));
    }
    if let Closed(reason, price, result) = end {
        let [trade] = run.trades() else { panic!("{what}: {} trades", run.trades().len()) };
        assert_eq!((trade.reason, trade.entry_bar, trade.exit_bar), (reason, 0, 1), "{what}");
        near(trade.exit_price, price, 1e-9, &format!("{what}: exit"));
        if let Some(result) = result {
            near(trade.result, result, 0.005, &format!("{what}: result"));
        }
    }
    run
}

/// execution §14.1, market orders. D, D2, E, E2 are moved by 1e-6 off the tie they sit on.
#[test]
fn market_orders_of_the_intrabar_table() {
    let rows = [
        Row { bar_0: [1.1, 1.103, 1.0985, 1.1], bar_1: None, ..a("A", flat(1.1), both(Open)) },
        a(
            "B",
            [1.1, 1.1003, 1.0985, 1.1],
            [Closed(StopLoss, 1.099, Some(-100.0)), Closed(StopLoss, 1.099, Some(-99.6))],
        ),
        a("C", [1.1, 1.103, 1.0985, 1.1], both(Closed(StopLoss, 1.099, None))),
        a(
            "D",
            [1.1, 1.102_151, 1.1, 1.1],
            [Closed(TakeProfit, 1.1022, Some(166.67)), Closed(TakeProfit, 1.1022, Some(166.0))],
        ),
        a("D2", [1.1, 1.102_149, 1.1, 1.1], both(Open)),
        a("E", [1.1, 1.1005, 1.099_049, 1.1], both(Closed(StopLoss, 1.099, None))),
        a("E2", [1.1, 1.1005, 1.099_051, 1.1], both(Open)),
        a(
            "F",
            [1.097, 1.098, 1.096, 1.0975],
            [Closed(StopLoss, 1.099, Some(-100.0)), Closed(StopLoss, 1.097, Some(-265.6))],
        ),
        a(
            "G",
            [1.104, 1.105, 1.1035, 1.1045],
            [Closed(TakeProfit, 1.1022, Some(166.67)), Closed(TakeProfit, 1.104, Some(315.4))],
        ),
        h("H", [1.1, 1.101, 1.0995, 1.1], [Closed(StopLoss, 1.1012, None), Closed(StopLoss, 1.1012, Some(-99.6))]),
        h("H2", [1.1, 1.100_94, 1.0995, 1.1], both(Open)),
        h(
            "I",
            [1.1, 1.1002, 1.0978, 1.0985],
            [Closed(TakeProfit, 1.098, Some(166.67)), Closed(TakeProfit, 1.098, Some(166.0))],
        ),
        long(
            "W",
            1.099,
            Some(1.1),
            [1.1001, 1.1003, 1.0999, 1.1],
            [Closed(TakeProfit, 1.1, Some(-16.67)), Closed(TakeProfit, 1.1001, Some(-8.3))],
        ),
        // Beyond its own stop from the start; V1 closes it where the stop is.
        Row { bar_1: None, lots: None, ..long("X", 1.1005, None, flat(1.1), [Open, Rejected]) },
    ];
    for row in &rows {
        for (variant, end) in VARIANTS.into_iter().zip(row.ends) {
            let run = check(row, variant, end, NO_COSTS, &json!({"costs": {"enabled": false}}));
            match (row.name, variant) {
                ("F", "v2") => near(run.trades()[0].r_multiple.unwrap(), -2.666_667, 5e-7, "F: R"),
                ("G", "v2") => near(run.trades()[0].r_multiple.unwrap(), 3.166_667, 5e-7, "G: R"),
                _ => {}
            }
        }
    }
}

/// execution §14.1, rows R and R2: fixed slippage of 0.2 pip, no fees.
#[test]
fn fixed_slippage() {
    let costs = "defaults: {schema: per_lot, per_lot: 0, slippage: {fixed_pips: 0.2, random_pips: 0}}\n";
    let rows = [
        (
            Row {
                lots: Some(0.81),
                ..long(
                    "R",
                    1.099,
                    None,
                    [1.1, 1.1003, 1.0985, 1.1],
                    [Closed(StopLoss, 1.099_02, Some(-98.36)), Closed(StopLoss, 1.098_98, Some(-100.44))],
                )
            },
            1.100_22,
        ),
        (
            Row {
                lots: Some(0.81),
                ..h(
                    "R2",
                    [1.1, 1.101, 1.0995, 1.1],
                    [Closed(StopLoss, 1.101_18, Some(-98.36)), Closed(StopLoss, 1.101_22, Some(-100.44))],
                )
            },
            1.099_98,
        ),
    ];
    for (row, fill) in &rows {
        for (variant, end) in VARIANTS.into_iter().zip(row.ends) {
            let run = check(row, variant, end, costs, &json!({}));
            near(run.entered[0].entry_price, *fill, 1e-9, "fill");
            if variant == "v2" {
                near(run.trades()[0].r_multiple.unwrap(), -1.016_393, 5e-7, "R");
            }
        }
    }
}

/// execution §14.1, last lines: the random part, seed 42. Equal to the last digit printed.
#[test]
fn random_slippage() {
    let costs = "defaults: {schema: per_lot, per_lot: 0, slippage: {fixed_pips: 0.2, random_pips: 0.3}}\n";
    let lots = Some(0.8);
    let end = |price| both(Closed(StopLoss, price, None));
    let r = Row { lots, ..long("random long", 1.099, None, [1.1, 1.1003, 1.0985, 1.1], end(1.098_977_603_910_432_4)) };
    let r2 = Row { lots, ..h("random short", [1.1, 1.101, 1.0995, 1.1], end(1.101_222_396_089_567_5)) };
    for (row, fill) in [(r, 1.100_240_456_885_769_3), (r2, 1.099_959_543_114_230_8)] {
        let run = check(&row, "v2", row.ends[1], costs, &json!({"rng_seed": 42}));
        let trade = &run.trades()[0];
        near(trade.entry_price, fill, 1e-15, "fill");
        near(trade.result, -101.028_238, 5e-7, "result");
    }
}

/// A signal that a run cannot take is an error of the strategy, not a trade.
#[test]
fn invalid_signals_end_the_run() {
    let good = market(Direction::Long, 1.1002, 1.099, None);
    let bad = [
        TradeSignal { entry_price: f64::NAN, ..good.clone() },
        TradeSignal { entry_price: -1.0, ..good.clone() },
        TradeSignal { stop_loss: Some(f64::INFINITY), ..good.clone() },
        TradeSignal { stop_loss: None, ..good.clone() },
        TradeSignal { take_profit: Some(f64::NAN), ..good.clone() },
        TradeSignal { lots: Some(0.0), ..good.clone() },
    ];
    let candles = quotes(&times("2024-03-04T10:00", Timeframe::M5, 2), &[flat(1.1); 2], SPREAD);
    let lab = Lab::open(&document(&json!({})), &candles, NO_COSTS, |_| ());
    for signal in bad {
        let text = format!("{signal:?}");
        let error = lab.try_run(Script::once(0, signal)).err().unwrap_or_else(|| panic!("taken: {text}"));
        assert_eq!(error.code(), "E4006", "{text}: {error}");
    }
    let without_stop = TradeSignal { stop_loss: None, lots: Some(0.5), ..good };
    let run = lab.run(Script::once(0, without_stop));
    assert_eq!((run.entered[0].lots, run.entered[0].stop_loss), (0.5, None));
}

fn closed(run: &Run) -> (i64, ExitReason) {
    let [trade] = run.trades() else { panic!("{} trades", run.trades().len()) };
    (trade.exit_time_ns, trade.reason)
}

/// execution §7.2, table.
#[test]
fn the_holding_time_is_measured_between_open_times() {
    let five = times("2024-03-04T10:00", Timeframe::M5, 20);
    let hours = times("2024-03-04T10:00", Timeframe::H1, 20);
    let weekend: Vec<i64> = times("2024-03-08T20:00", Timeframe::H1, 1)
        .into_iter()
        .chain(times("2024-03-10T22:00", Timeframe::H1, 3))
        .collect();
    let cases = [
        ("M5", &five, 7, "2024-03-04T10:10"),
        ("M5", &five, 30, "2024-03-04T10:30"),
        ("H1", &hours, 30, "2024-03-04T11:00"),
        ("H1", &weekend, 300, "2024-03-10T22:00"),
    ];
    for (timeframe, times, limit, closes) in cases {
        for variant in VARIANTS {
            let changes = json!({
                "execution_variant": variant,
                "timeframes": {"primary": timeframe},
                "trade_management": {"enabled": true, "rules": {"max_holding_time": {"max_holding_minutes": limit}}},
            });
            let candles = quotes(times, &vec![flat(1.1); times.len()], SPREAD);
            let lab = Lab::open(&document(&changes), &candles, NO_COSTS, |_| ());
            let run = lab.run(Script::once(0, market(Direction::Long, 1.1002, 1.099, None)));
            assert_eq!(closed(&run), (instant(closes), ExitReason::Timeout), "{limit} min on {timeframe}, {variant}");
        }
    }
}

/// execution §7.2: price, slippage and fee of a timeout; scenarios that are spared.
#[test]
fn a_timeout_costs_slippage_and_fee_in_v2_only() {
    let costs = "defaults: {schema: per_lot, per_lot: 2.5, slippage: {fixed_pips: 0.2, random_pips: 0}}\n";
    let candles = quotes(
        &times("2024-03-04T10:00", Timeframe::M5, 4),
        &[flat(1.1), flat(1.1), [1.1, 1.1006, 1.1, 1.1005], flat(1.1005)],
        SPREAD,
    );
    let management = |rule: Value| json!({"enabled": true, "rules": {"max_holding_time": rule}});
    for (direction, stop, bid_close_side, sign) in
        [(Direction::Long, 1.099, 1.1005, 1.0), (Direction::Short, 1.1012, 1.1007, -1.0)]
    {
        let entry = if direction == Direction::Long { 1.1002 } else { 1.1 };
        for (variant, pips, fee) in [("v2", 0.2, true), ("v1_parity", 0.0, false)] {
            let changes = json!({
                "execution_variant": variant,
                "trade_management": management(json!({"max_holding_minutes": 10})),
            });
            let lab = Lab::open(&document(&changes), &candles, costs, |_| ());
            let run = lab.run(Script::once(0, market(direction, entry, stop, None)));
            let trade = &run.trades()[0];
            assert_eq!((trade.exit_bar, trade.reason), (2, ExitReason::Timeout));
            near(trade.exit_price, bid_close_side - sign * pips * 0.0001, 1e-9, "timeout price");
            assert_eq!(trade.exit_fee > 0.0, fee, "{variant}");
        }
    }
    for (scenarios, trades) in [(json!([1]), 1), (json!([2, 3]), 0), (json!([]), 1)] {
        let rule = json!({"max_holding_minutes": 10, "only_scenarios": scenarios});
        let lab = Lab::open(&document(&json!({"trade_management": management(rule)})), &candles, costs, |_| ());
        let run = lab.run(Script::once(0, market(Direction::Long, 1.1002, 1.099, None)));
        assert_eq!(run.trades().len(), trades, "only scenarios {scenarios}");
    }
}

/// Bars on which the strategy was asked, and all its signals refused or taken.
fn asked(
    changes: &Value,
    times: &[i64],
    bid: &[Ohlc],
    signal: Option<TradeSignal>,
    news: &[(&str, &str, &str)],
) -> Vec<i64> {
    let bars = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&bars);
    let script = Script::new(move |slice| {
        seen.lock().unwrap().push(slice.open_time());
        signal.clone()
    });
    let candles = quotes(times, bid, SPREAD);
    let lab = Lab::open(&document(changes), &candles, NO_COSTS, |folder| {
        if !news.is_empty() {
            write_news(&folder.join("news.parquet"), news);
        }
    });
    lab.run(script);
    std::mem::take(&mut *bars.lock().unwrap())
}

/// The same, as positions in `times`.
fn asked_at(changes: &Value, times: &[i64], bid: &[Ohlc], signal: TradeSignal) -> Vec<usize> {
    let asked = asked(changes, times, bid, Some(signal), &[]);
    asked.iter().map(|time| times.binary_search(time).unwrap()).collect()
}

/// execution §11.3: every signal starts the cooldowns, also one whose order is refused.
#[test]
fn cooldowns_after_a_signal() {
    let refused = market(Direction::Long, 1.1002, 1.1005, None);
    let week = times("2024-03-04T10:00", Timeframe::M5, 8);
    let bid = [flat(1.1); 8];
    let run = |changes: Value| asked_at(&changes, &week, &bid, refused.clone());
    assert_eq!(run(json!({})), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(run(json!({"cooldown_candles": 1})), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(run(json!({"cooldown_candles": 3})), [0, 3, 6]);
    assert_eq!(run(json!({"cooldown_minutes": 10})), [0, 2, 4, 6]);
    assert_eq!(run(json!({"cooldown_minutes": 11})), [0, 3, 6]);
    assert_eq!(run(json!({"cooldown_candles": 2, "cooldown_minutes": 15})), [0, 3, 6]);
    assert_eq!(run(json!({"cooldown_minutes_trade": 60})), [0, 1, 2, 3, 4, 5, 6, 7], "nothing was closed");

    // Over a weekend minutes pass, bars do not.
    let weekend: Vec<i64> = times("2024-03-08T21:50", Timeframe::M5, 2)
        .into_iter()
        .chain(times("2024-03-10T22:00", Timeframe::M5, 4))
        .collect();
    let run = |changes: Value| asked_at(&changes, &weekend, &[flat(1.1); 6], refused.clone());
    assert_eq!(run(json!({"cooldown_minutes": 60})), [0, 2]);
    assert_eq!(run(json!({"cooldown_candles": 4})), [0, 4]);
}

/// execution §11.3 and X-03: the strategy comes before exits, so what an exit frees or blocks begins one bar later.
#[test]
fn an_exit_matters_from_the_next_bar_on() {
    let bars = times("2024-03-04T10:00", Timeframe::M5, 7);
    let mut bid = [flat(1.1); 7];
    bid[1] = [1.1, 1.1001, 1.0985, 1.1];
    let signal = market(Direction::Long, 1.1002, 1.099, None);
    let run = |minutes: i64| asked_at(&json!({"cooldown_minutes_trade": minutes}), &bars, &bid, signal.clone());
    // Entered on 0, stopped out on 1; entered again as soon as allowed, and held to the end.
    assert_eq!(run(0), [0, 2]);
    assert_eq!(run(5), [0, 2]);
    assert_eq!(run(6), [0, 3]);
    assert_eq!(run(15), [0, 4]);
}

fn allowed(timeframe: &str, sessions: &Value, opened: &str) -> bool {
    let changes = json!({"sessions": sessions, "timeframes": {"primary": timeframe}});
    !asked(&changes, &[instant(opened)], &[flat(1.1)], None, &[]).is_empty()
}

/// execution §14.4.
#[test]
fn sessions_look_at_the_close_of_the_bar() {
    let day = json!([{"start": "08:00", "end": "17:00"}]);
    for (opened, expected) in [("07:50", false), ("07:55", true), ("16:55", true), ("17:00", false)] {
        assert_eq!(allowed("M5", &day, &format!("2024-03-05T{opened}")), expected, "M5 {opened}");
    }
    let night = json!([{"start": "23:00", "end": "05:00"}, {"start": "15:00", "end": "19:00"}]);
    let rows = [
        ("21:00", false),
        ("22:00", true),
        ("23:00", true),
        ("04:00", true),
        ("05:00", false),
        ("13:00", false),
        ("14:00", true),
        ("18:00", true),
        ("19:00", false),
    ];
    for (opened, expected) in rows {
        assert_eq!(allowed("H1", &night, &format!("2024-03-05T{opened}")), expected, "H1 {opened}");
    }
    assert!(!allowed("D1", &day, "2024-03-05T00:00"));
}

/// execution §11.1: exits go on outside the session.
#[test]
fn sessions_block_entries_only() {
    let bars = times("2024-03-04T16:55", Timeframe::M5, 4);
    let bid = [flat(1.1), flat(1.1), [1.1, 1.1001, 1.0985, 1.1], flat(1.1)];
    let changes = json!({"sessions": [{"start": "08:00", "end": "17:00"}]});
    let lab = Lab::open(&document(&changes), &quotes(&bars, &bid, SPREAD), NO_COSTS, |_| ());
    let run = lab.run(Script::new(|_| Some(market(Direction::Long, 1.1002, 1.099, None))));
    assert_eq!(closed(&run), (bars[2], StopLoss));
    assert_eq!(run.entered.len(), 1, "the freed slot stays empty after the session");
}

/// execution §14.5 and §11.2.
#[test]
fn news_block_bars_that_close_near_an_event() {
    let rows = [("12:20", true), ("12:25", false), ("13:55", false), ("14:00", true)];
    let filter = |extra: Value| {
        let mut filter = json!({"enabled": true, "minutes_before": 60, "minutes_after": 30});
        for (key, value) in extra.as_object().unwrap() {
            filter[key] = value.clone();
        }
        json!({ "news_filter": filter })
    };
    let free = |changes: &Value, opened: &str, event: (&str, &str, &str)| {
        let opened = instant(&format!("2024-03-05T{opened}"));
        !asked(changes, &[opened], &[flat(1.1)], None, &[event]).is_empty()
    };
    const AT: &str = "2024-03-05T13:30";
    for (opened, expected) in rows {
        assert_eq!(free(&filter(json!({})), opened, (AT, "HIGH", "USD")), expected, "{opened}");
    }
    let free = |extra: Value, impact: &str, currency: &str| free(&filter(extra), "13:00", (AT, impact, currency));
    assert!(free(json!({}), "LOW", "USD"), "below the default impact");
    assert!(!free(json!({"min_impact": "low"}), "LOW", "USD"));
    assert!(!free(json!({}), "MEDIUM", "EUR"), "base currency");
    assert!(free(json!({}), "HIGH", "JPY"), "another pair's currency");
    assert!(!free(json!({"currencies": []}), "HIGH", "JPY"), "every currency");
    assert!(free(json!({"currencies": ["GBP"]}), "HIGH", "USD"));
    assert!(!free(json!({}), "HIGH", "ALL"), "global events match every list");
}

/// config-and-errors §2.1: only bars of the window are tradable; what is open on the last one is closed there.
#[test]
fn a_trade_window_is_half_open_and_closes_what_is_open() {
    let bars = times("2024-03-04T10:00", Timeframe::M5, 8);
    let bid: Vec<Ohlc> = (0..8).map(|k| flat(1.1 + 0.0001 * f64::from(k))).collect();
    let changes = json!({"trade_window": {"start": "2024-03-04T10:10:00Z", "end": "2024-03-04T10:30:00Z"}});
    let lab = Lab::open(&document(&changes), &quotes(&bars, &bid, SPREAD), NO_COSTS, |_| ());
    let run = lab.run(Script::new(|slice| {
        let entry = slice.closes(engine::units::PriceSide::Ask)[slice.index()];
        Some(market(Direction::Long, entry, entry - 0.01, None))
    }));
    assert_eq!(run.equity.iter().map(|point| point.time_ns).collect::<Vec<_>>(), &bars[2..6]);
    assert_eq!(run.trades()[0].entry_time_ns, bars[2]);
    assert_eq!(closed(&run), (bars[5], ExitReason::WindowEnd));
    near(run.trades()[0].exit_price, 1.1005, 1e-9, "the closing bid");
    assert_eq!(run.outcome.walked.counters.open_positions_at_end, 0);
    let last = run.equity[3];
    assert_eq!(last.equity, last.balance, "nothing is open at the end of the window");
}

/// execution §9.4: without a window the position stays open, and its entry fee stays booked.
#[test]
fn what_is_open_at_the_end_of_the_data_stays_open() {
    let costs = "defaults: {schema: per_lot, per_lot: 2.5}\n";
    let candles = quotes(&times("2024-03-04T10:00", Timeframe::M5, 3), &[flat(1.1); 3], SPREAD);
    let lab = Lab::open(&document(&json!({})), &candles, costs, |_| ());
    let run = lab.run(Script::once(0, market(Direction::Long, 1.1002, 1.099, None)));
    assert_eq!((run.trades().len(), run.outcome.walked.counters.open_positions_at_end), (0, 1));
    // 0.83 lots at 2.50: 2.0749999999999997 in binary.
    assert_eq!(run.outcome.walked.ledger.fees_total(), 2.07);
    let last = run.equity[2];
    near(last.balance, 10_000.0 - 2.07, 1e-9, "balance");
    near(last.equity, last.balance - 0.0001 * 0.83 * 100_000.0, 1e-6, "marked at the mid");
}

/// execution §12: positions are independent; the strategy is asked while a slot is free.
#[test]
fn two_positions_at_once() {
    let bars = times("2024-03-04T10:00", Timeframe::M5, 5);
    let mut bid = [flat(1.1); 5];
    bid[3] = [1.1, 1.1001, 1.0985, 1.1];
    let changes = json!({"account": {"account_currency": "USD", "max_positions": 2}});
    let lab = Lab::open(&document(&changes), &quotes(&bars, &bid, SPREAD), NO_COSTS, |_| ());
    let run = lab.run(Script::new(|slice| {
        let stop = if slice.index() == 0 { 1.098 } else { 1.099 };
        Some(market(Direction::Long, 1.1002, stop, None))
    }));
    let entered: Vec<(u64, usize)> = run.entered.iter().map(|position| (position.id, position.entry_bar)).collect();
    assert_eq!(entered, [(1, 0), (2, 1), (3, 4)]);
    let trades: Vec<(u64, usize)> = run.trades().iter().map(|trade| (trade.position_id, trade.exit_bar)).collect();
    assert_eq!(trades, [(2, 3)]);
    let open = (0.45 + 0.83) * -0.0001 * 100_000.0;
    near(run.equity[2].equity - run.equity[2].balance, open, 1e-6, "both are marked");
}

/// execution §7.3: a moved stop counts from the next bar on, and only if it tightens; a target moves freely.
#[test]
fn stops_move_from_the_next_bar_on() {
    let bars = times("2024-03-04T10:00", Timeframe::M5, 5);
    // Bar 1 dips below the new stop while it is being set; bar 3 dips again, bar 4 below every stop.
    let dip = [1.1, 1.1001, 1.0994, 1.1];
    let bid = [flat(1.1), dip, flat(1.1), dip, [1.1, 1.1001, 1.097, 1.1]];
    let lab = Lab::open(&document(&json!({})), &quotes(&bars, &bid, SPREAD), NO_COSTS, |_| ());
    let moved = |to: f64| {
        lab.run(Script::once(0, market(Direction::Long, 1.1002, 1.099, None)).managing(move |_, slice| {
            if slice.index() == 1 { PositionAction::ModifyStop(to) } else { PositionAction::Hold }
        }))
    };
    let run = moved(1.0995);
    let trade = &run.trades()[0];
    assert_eq!((trade.exit_bar, trade.reason), (3, StopLoss));
    assert_eq!((trade.initial_stop_loss, trade.stop_loss), (Some(1.099), Some(1.0995)));
    near(trade.r_multiple.unwrap(), -0.0007 / 0.0012, 1e-9, "R counts from the initial stop");
    for (to, stop) in [(1.098, 1.099), (1.099, 1.099), (1.0992, 1.0992)] {
        let run = moved(to);
        let trade = &run.trades()[0];
        assert_eq!(
            (trade.exit_bar, trade.stop_loss),
            (4, Some(stop)),
            "a stop moved to {to}: a wider one is not taken"
        );
        near(trade.exit_price, stop, 1e-12, "exit");
    }

    let target = lab.run(Script::once(0, market(Direction::Long, 1.1002, 1.099, Some(1.2))).managing(|_, slice| {
        if slice.index() == 2 { PositionAction::ModifyTarget(1.0999) } else { PositionAction::Hold }
    }));
    assert_eq!(closed(&target), (bars[3], TakeProfit));

    let short =
        lab.run(Script::once(0, market(Direction::Short, 1.1, 1.102, None)).managing(|_, slice| match slice.index() {
            1 => PositionAction::ModifyStop(1.103),
            2 => PositionAction::ModifyStop(1.1003),
            _ => PositionAction::Hold,
        }));
    assert_eq!(closed(&short), (bars[3], StopLoss), "shorts tighten downwards");
    assert_eq!(short.trades()[0].stop_loss, Some(1.1003));
}

/// execution §7.1, priority 50, and its order after the holding-time rule.
#[test]
fn a_strategy_closes_its_own_position() {
    let bars = times("2024-03-04T10:00", Timeframe::M5, 5);
    let candles = quotes(&bars, &[flat(1.1); 5], SPREAD);
    let script = || {
        Script::once(0, market(Direction::Long, 1.1002, 1.099, None)).managing(|position, slice| {
            if slice.open_time() - position.entry_time_ns >= 10 * MINUTE_NS {
                PositionAction::Close
            } else {
                PositionAction::Hold
            }
        })
    };
    let run = Lab::open(&document(&json!({})), &candles, NO_COSTS, |_| ()).run(script());
    assert_eq!(closed(&run), (bars[2], ExitReason::Manual));
    near(run.trades()[0].exit_price, 1.1, 1e-12, "the closing bid");
    let limit = json!({"enabled": true, "rules": {"max_holding_time": {"max_holding_minutes": 10}}});
    let run = Lab::open(&document(&json!({"trade_management": limit})), &candles, NO_COSTS, |_| ()).run(script());
    assert_eq!(closed(&run), (bars[2], ExitReason::Timeout), "the limit has priority");
}
