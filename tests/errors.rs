//! Every error of one backtest is reachable and carries its code, its category and what happened.
//!
//! One test per code of config-and-errors specification §8.3, through the public interface. E4005 cannot happen from
//! outside (a full book drops orders before they fill): `engine/src/backtest/walk_breaches.rs` provokes it. A panic
//! (E4900) is caught in `optimizer/src/driver.rs` and tested there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests fail loudly")]

#[path = "support/cli.rs"]
mod cli;
mod support;

use std::fs;
use std::path::Path;

use engine::backtest::RunConfig;
use engine::error::Category;
use engine::indicators::{ColumnKey, Series};
use engine::rules::RuleSet;
use engine::strategy::{self, DataSlice, PositionAction, Strategy, TradeSignal};
use engine::units::{Direction, Timeframe};
use engine::{Error, Result};
use optimizer::error::{CommandError, ExitCode};
use serde_json::{Value, json};
use support::candles::Candles;
use support::market::{EURUSD, Lab, NO_COSTS, Ohlc, Script, document, flat, market, quotes, times, write_news};

/// Code, category, and the exit code of the command it ends.
fn assert_code(error: &Error, code: &str, category: Category) {
    assert_eq!((error.code(), error.category()), (code, category), "{error}");
    assert!(!error.to_string().contains('\n'), "one line: {error}");
    let exit = match category {
        Category::Config => ExitCode::Usage,
        Category::MarketData => ExitCode::Data,
        Category::Execution | Category::Strategy | Category::Runtime => ExitCode::Internal,
    };
    assert_eq!(CommandError::from(error.clone()).exit_code(), exit);
}

const BARS: usize = 20;

fn both_sides() -> [Candles; 2] {
    quotes(&times("2024-03-04T10:00", Timeframe::M5, BARS), &[flat(1.1); BARS], 0.0002)
}

/// Writes candles into a folder, lets the test spoil it, and opens the run.
fn opening(changes: &Value, [bid, ask]: &[Candles; 2], spoil: impl FnOnce(&Path)) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let sources = support::sources(folder.path());
    for (candles, side) in [(bid, "BID"), (ask, "ASK")] {
        candles.write(&sources.parquet_root.join(format!("EURUSD/EURUSD_M5_{side}.parquet")));
    }
    fs::write(&sources.costs_file, NO_COSTS).unwrap();
    fs::write(&sources.specs_file, EURUSD).unwrap();
    spoil(folder.path());
    let config = support::config(&document(changes));
    engine::backtest::Environment::open(&config, &[], &sources, std::sync::Arc::new(engine::indicators::Unlimited))
        .expect_err("the run must not open")
}

fn lab(changes: &Value, bars: &[Ohlc]) -> Lab {
    let candles = quotes(&times("2024-03-04T10:00", Timeframe::M5, bars.len()), bars, 0.0002);
    Lab::open(&document(changes), &candles, NO_COSTS, |_| ())
}

fn buy() -> TradeSignal {
    market(Direction::Long, 1.1002, 1.09, None)
}

#[test]
fn e4001_a_strategy_nobody_registered() {
    let error = strategy::find("sma_crss").map(drop).unwrap_err();
    assert_code(&error, "E4001", Category::Config);
    assert!(error.to_string().contains("sma_crss") && error.to_string().contains("mean_reversion_z_score"), "{error}");
    assert!(error.hint().unwrap().contains("sma_cross"), "{:?}", error.hint());
}

#[test]
fn e4002_every_violation_by_its_path() {
    let violations = RunConfig::parse(&document(&json!({"warmup_bars": -1, "symbol": "€"})), true).unwrap_err();
    let error = Error::Config(violations);
    assert_code(&error, "E4002", Category::Config);
    assert!(error.to_string().contains("warmup_bars: ") && error.to_string().contains("symbol: "), "{error}");
}

#[test]
fn e4002_a_parameter_of_the_strategy() {
    let changes = json!({"strategy_parameters": {"fast_length": 0, "slow_lenght": 3}});
    let lab = lab(&changes, &[flat(1.1); BARS]);
    let error = lab.environment.prepare(&lab.config, 42).map(drop).unwrap_err();
    assert_code(&error, "E4002", Category::Config);
    assert!(error.to_string().contains("fast_length") && error.to_string().contains("slow_lenght"), "{error}");
}

#[test]
fn e4002_a_yaml_file() {
    let error = opening(&json!({}), &both_sides(), |root| {
        fs::write(root.join("execution_costs.yaml"), "defaults: {schema: per_moon}\n").unwrap();
    });
    assert_code(&error, "E4002", Category::Config);
    assert!(error.to_string().contains("per_moon"), "{error}");
}

#[test]
fn e4003_a_warm_up_too_short() {
    let changes = json!({"warmup_bars": 5, "strategy_parameters": {"fast_length": 3, "slow_length": 12, "lots": 0.1}});
    let lab = lab(&changes, &[flat(1.1); BARS]);
    let error = lab.environment.prepare(&lab.config, 42).map(drop).unwrap_err();
    assert_code(&error, "E4003", Category::Runtime);
    assert!(
        matches!(&error, Error::WarmupTooShort { first_index, warmup_bars: 5, needed, .. } if first_index == needed)
    );
}

/// Answers with an error, or reads what is not there.
#[derive(Debug)]
struct Stubborn {
    columns: Vec<ColumnKey>,
}

impl Strategy for Stubborn {
    fn name(&self) -> &'static str {
        "stubborn"
    }

    fn version(&self) -> &'static str {
        "1"
    }

    fn primary_timeframe(&self) -> Timeframe {
        Timeframe::M5
    }

    fn columns(&self) -> Vec<ColumnKey> {
        self.columns.clone()
    }

    fn rules(&self) -> Option<&RuleSet> {
        None
    }

    fn evaluate(&self, slice: &DataSlice<'_>) -> Result<Option<TradeSignal>> {
        Err(Error::StrategyFailure { bar: slice.index(), reason: "no opinion".to_owned() })
    }
}

fn stubborn(columns: Vec<ColumnKey>) -> Error {
    // A column of a longer timeframe asks for one bar of warm-up before it is looked for.
    let lab = lab(&json!({"warmup_bars": columns.len()}), &[flat(1.1); BARS]);
    let prepared = lab.environment.prepare_with(Box::new(Stubborn { columns }), &lab.config, 42).unwrap();
    prepared.run(Vec::new(), &mut engine::backtest::walk::Nobody).unwrap_err()
}

#[test]
fn e4003_a_column_of_bars_nobody_loaded() {
    let column = ColumnKey::bid(Timeframe::D1, Series::Close);
    let error = stubborn(vec![column]);
    assert_code(&error, "E4003", Category::Runtime);
    assert!(matches!(error, Error::IndicatorNotAvailable { timeframe: Timeframe::D1, .. }), "{error}");
}

#[test]
fn e4004_fewer_bars_than_warm_up_and_run_need() {
    let error = opening(&json!({"warmup_bars": 100}), &both_sides(), |_| ());
    assert_code(&error, "E4004", Category::MarketData);
    assert!(
        matches!(error, Error::InsufficientData { timeframe: Timeframe::M5, required, available } if required > available)
    );
}

#[test]
fn e4006_every_field_of_a_signal_that_is_no_order() {
    let stop = |stop_loss| TradeSignal { stop_loss, ..buy() };
    let lots = |lots| TradeSignal { lots: Some(lots), ..buy() };
    let entry = |entry_price| TradeSignal { entry_price, ..buy() };
    let cases = [
        ("entry_price", entry(f64::NAN)),
        ("entry_price", entry(f64::INFINITY)),
        ("entry_price", entry(0.0)),
        ("entry_price", entry(-1.1)),
        ("stop_loss", stop(Some(f64::NAN))),
        ("stop_loss", stop(Some(0.0))),
        ("stop_loss", stop(None)),
        ("take_profit", TradeSignal { take_profit: Some(f64::NAN), ..buy() }),
        ("take_profit", TradeSignal { take_profit: Some(f64::NEG_INFINITY), ..buy() }),
        ("lots", lots(0.0)),
        ("lots", lots(-1.0)),
        ("lots", lots(f64::NAN)),
    ];
    let lab = lab(&json!({}), &[flat(1.1); BARS]);
    for (expected, signal) in cases {
        for order_type in [strategy::OrderType::Market, strategy::OrderType::Limit, strategy::OrderType::Stop] {
            let error =
                lab.try_run(Script::once(3, TradeSignal { order_type, ..signal.clone() })).map(drop).unwrap_err();
            assert_code(&error, "E4006", Category::Strategy);
            let Error::InvalidSignal { bar: 3, timestamp_ns, field, .. } = error else { panic!("{error:?}") };
            assert_eq!((field, timestamp_ns), (expected, lab.environment.data().market.bars.open_time[3]));
        }
    }
}

#[test]
fn e4100_a_file_that_is_not_there_or_no_parquet() {
    let path = "bars/EURUSD/EURUSD_M5_ASK.parquet";
    let missing = opening(&json!({}), &both_sides(), |root| fs::remove_file(root.join(path)).unwrap());
    assert_code(&missing, "E4100", Category::MarketData);
    assert!(matches!(&missing, Error::DataFile { kind: "FileNotFound", .. }), "{missing}");
    let text = opening(&json!({}), &both_sides(), |root| fs::write(root.join(path), "Open,High\n").unwrap());
    assert_code(&text, "E4100", Category::MarketData);
    assert!(matches!(&text, Error::DataFile { kind: "ParseError", .. }), "{text}");
}

#[test]
fn e4101_a_column_that_is_not_there() {
    let error = opening(&json!({}), &both_sides(), |root| {
        write_news(&root.join("bars/EURUSD/EURUSD_M5_BID.parquet"), &[("2024-03-04T10:00", "HIGH", "USD")]);
    });
    assert_code(&error, "E4101", Category::MarketData);
    assert!(matches!(&error, Error::DataSchema { kind: "MissingColumn", .. }), "{error}");
}

#[test]
fn e4102_a_bar_whose_high_is_below_its_low() {
    let mut sides = both_sides();
    sides[0].high[7] = 1.0;
    let error = opening(&json!({}), &sides, |_| ());
    assert_code(&error, "E4102", Category::MarketData);
    assert!(matches!(error, Error::DataCorrupt { row: 7, timestamp_ns: Some(_), .. }), "{error}");
}

#[test]
fn e4102_a_trade_window_without_a_bar() {
    let window = json!({"start": "2024-06-01", "end": "2024-07-01"});
    let changes = json!({"trade_window": window, "strategy_parameters": {"lots": 0.1, "fast_length": 1, "slow_length": 2}, "warmup_bars": 2});
    let lab = lab(&changes, &[flat(1.1); BARS]);
    let error = lab.environment.prepare(&lab.config, 42).map(drop).unwrap_err();
    assert_code(&error, "E4102", Category::MarketData);
    assert!(matches!(error, Error::DataCorrupt { kind: "DateRangeEmpty", .. }), "{error}");
}

#[test]
fn e4103_sides_that_share_too_few_bars() {
    let [bid, ask] = both_sides();
    let first = ask.time[0];
    let error = opening(&json!({}), &[bid, ask.filter(|candles, row| candles.time[row] != first)], |_| ());
    assert_code(&error, "E4103", Category::MarketData);
    assert!(matches!(error, Error::DataAlignment { bid: 20, ask: 19, common: 19, .. }), "{error}");
}

#[test]
fn e4104_an_ask_below_its_bid() {
    let mut sides = both_sides();
    for price in [&mut sides[1].open, &mut sides[1].high, &mut sides[1].low, &mut sides[1].close] {
        price[4] = 1.0999;
    }
    let at = sides[0].time[4];
    let error = opening(&json!({}), &sides, |_| ());
    assert_code(&error, "E4104", Category::MarketData);
    assert!(matches!(error, Error::DataSpread { timestamp_ns, .. } if timestamp_ns == at), "{error}");
}

#[test]
fn e4105_a_calendar_that_breaks_a_rule() {
    let error = opening(&json!({"news_filter": {"enabled": true}}), &both_sides(), |root| {
        write_news(
            &root.join("news.parquet"),
            &[("2024-03-04T10:00", "HIGH", "USD"), ("2024-03-04T11:00", "huge", "USD")],
        );
    });
    assert_code(&error, "E4105", Category::MarketData);
    assert!(matches!(error, Error::NewsInvalid { row: 1, .. }), "{error}");
}

#[test]
fn e4106_a_bar_before_the_first_of_a_longer_timeframe() {
    let [bid, ask] = quotes(&times("2024-03-04T11:00", Timeframe::H1, 4), &[flat(1.1); 4], 0.0002);
    let changes = json!({"timeframes": {"primary": "M5", "additional": ["H1"]}});
    let error = opening(&changes, &both_sides(), |root| {
        bid.write(&root.join("bars/EURUSD/EURUSD_H1_BID.parquet"));
        ask.write(&root.join("bars/EURUSD/EURUSD_H1_ASK.parquet"));
    });
    assert_code(&error, "E4106", Category::MarketData);
    assert!(matches!(error, Error::HtfUnmapped { timeframe: Timeframe::H1, .. }), "{error}");
}

#[test]
fn e4200_a_strategy_that_fails() {
    let error = stubborn(Vec::new());
    assert_code(&error, "E4200", Category::Strategy);
    assert_eq!(error.to_string(), "bar 0: strategy failed: no opinion");
}

#[test]
fn e4300_a_level_moved_to_what_is_no_number() {
    let actions = [
        PositionAction::ModifyStop(f64::NAN),
        PositionAction::ModifyStop(f64::INFINITY),
        PositionAction::ModifyTarget(f64::NAN),
    ];
    let lab = lab(&json!({}), &[flat(1.1); BARS]);
    for action in actions {
        let error = lab.try_run(Script::once(2, buy()).managing(move |_, _| action)).map(drop).unwrap_err();
        assert_code(&error, "E4300", Category::Execution);
        assert!(matches!(error, Error::ExecutionFailure { bar: 2, .. }), "{error}");
    }
    assert!(lab.try_run(Script::once(2, buy()).managing(|_, _| PositionAction::ModifyStop(1.095))).is_ok());
}

/// A contract so large that a small move is more money than there are numbers.
#[test]
fn e4301_a_balance_that_is_no_number() {
    let mut bars = vec![flat(1.1); BARS];
    bars[10..].fill(flat(5.0));
    let candles = quotes(&times("2024-03-04T10:00", Timeframe::M5, BARS), &bars, 0.0002);
    let lab = Lab::open(&document(&json!({})), &candles, NO_COSTS, |root| {
        fs::write(root.join("symbol_specs.yaml"), EURUSD.replace("contract_size: 100000", "contract_size: 1.0e+307"))
            .unwrap();
    });
    let signal = TradeSignal { lots: Some(100.0), take_profit: Some(2.0), ..buy() };
    let error = lab.try_run(Script::once(2, signal)).map(drop).unwrap_err();
    assert_code(&error, "E4301", Category::Runtime);
}

/// A risk so small that the multiples of it cannot be squared.
#[test]
fn e4302_a_metric_that_is_no_number() {
    let account = json!({"initial_balance": 10_000.0, "account_currency": "USD", "risk_per_trade": 1e-300});
    let mut bars = vec![flat(1.1); BARS];
    bars[5] = [1.1, 1.13, 1.1, 1.12];
    bars[9] = [1.12, 1.12, 1.08, 1.1];
    let lab = lab(&json!({"account": account}), &bars);
    let signal = TradeSignal { lots: Some(1.0), take_profit: Some(1.12), ..buy() };
    let script = Script::new(move |slice| [2, 7].contains(&slice.index()).then(|| signal.clone()));
    let error = lab.try_run(script).map(drop).unwrap_err();
    assert_code(&error, "E4302", Category::Runtime);
    assert!(matches!(error, Error::MetricNotFinite { key } if key.ends_with("trade_r")), "{error}");
}

#[test]
fn e4900_is_what_a_panic_becomes() {
    assert_code(&Error::Internal("panic".to_owned()), "E4900", Category::Runtime);
}

/// design §3, law 4: a failed trial is a row with a reason, and the others are done.
#[test]
fn a_failed_trial_stops_no_sweep() {
    let desk = cli::Desk::new();
    desk.grid("[50, 60, 80]", "[50, 300, 80]");
    let shown = desk.run("sweep small.yaml");
    assert_eq!(shown.code, Some(4), "{}", shown.stderr);
    let folder = desk.run_folder("results").strip_prefix(desk.path()).unwrap().display().to_string();
    let (mut done, mut failed) = (0, 0);
    for trial in 0..24 {
        let shown = desk.run(&format!("show {folder} t{trial} --json"));
        assert_eq!(shown.code, Some(0), "{}", shown.stderr);
        let row: Value = serde_json::from_str(&shown.stdout).unwrap();
        if row["params"]["slow_length"] == 300 {
            failed += 1;
            assert_eq!((&row["status"], &row["objective"]), (&json!("failed"), &Value::Null));
            let reason = row["reason"].as_str().unwrap();
            assert!(reason.starts_with("E4003: ") && reason.contains("warmup_bars >= 299"), "{reason}");
        } else {
            done += 1;
            assert_eq!(row["status"], "ok", "{row}");
        }
    }
    assert_eq!((done, failed), (16, 8));
}
