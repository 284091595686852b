//! Whole runs of the V1 reference on real bid and ask bars, reproduced trade by trade to the last bit.
//!
//! The cases and how the reference was set are told in `v1_trades/README.md` beside the specification; acceptance is
//! stricter than execution specification §13 asks: every price, stop, volume, R multiple, result and fee is equal.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly and say what they measured")]

mod support;

use std::path::{Path, PathBuf};

use engine::backtest::walk::Nobody;
use engine::data::{Sources, sha256_hex};
use engine::portfolio::Trade;
use engine::units::{DAY_NS, MINUTE_NS};
use serde_json::Value;
use support::candles::Candles;

const HOUR_NS: i64 = 60 * MINUTE_NS;

/// One test per case.
macro_rules! cases {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            if let Some(data) = support::data_root(stringify!($name)) {
                Case::load(&data, stringify!($name)).check();
            }
        }
    )* };
}

cases! {
    all_scenarios_h1
    cooldowns_h1
    defaults_h1
    eur_account_h1
    news_h1
    pm300_sessions_h1
    pm30_h1
    s1_h1
    s1_long_h1_open
    s2_d1_close_stamps
    s2_filters_h1
    s2_filters_open_mode
    s2_h1_d1
    s2_stale_h1
    s3_h1
    s4_h1
    s4_local_h1
    s5_atr_points_h1
    s5_hysteresis_h1
    s6_all_h1
    s6_any_h1
    sessions_midnight_h1
    xag_pm30_m5
    xag_s1_m5
    xag_s2_m15_auto_h4
    xag_s2_m5_h1_d1
    xag_s4_local_news_m5
    xag_s5_m5
}

/// A case nobody runs would prove nothing.
#[test]
fn every_case_of_the_folder_is_run() {
    let Some(data) = support::data_root("every_case_of_the_folder_is_run") else { return };
    let folders = std::fs::read_dir(support::vectors(&data, "v1_trades")).unwrap();
    let mut names: Vec<String> = folders
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    let listed = include_str!("parity.rs");
    let missing: Vec<&String> = names.iter().filter(|name| !listed.contains(&format!("\n    {name}\n"))).collect();
    assert_eq!((names.len(), missing), (28, Vec::new()));
}

struct Case {
    folder: PathBuf,
    dataset: PathBuf,
    document: Value,
    environment: Value,
    summary: Value,
    expected: Vec<Expected>,
}

/// A line of `trades.csv`.
#[derive(Debug, PartialEq)]
struct Expected {
    entry_time_ns: i64,
    exit_time_ns: i64,
    direction: String,
    label: String,
    /// Entry price, exit price, initial stop, target, lots, R multiple, result, entry fee, exit fee.
    numbers: [f64; 9],
    reason: String,
}

const NUMBERS: [&str; 9] = [
    "entry_price",
    "exit_price",
    "initial_stop",
    "take_profit",
    "lots",
    "r_multiple",
    "result",
    "entry_fee",
    "exit_fee",
];

fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn expected(path: &Path) -> Vec<Expected> {
    let mut reader = csv::Reader::from_path(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let header = reader.headers().unwrap().clone();
    let at = |name: &str| header.iter().position(|column| column == name).unwrap_or_else(|| panic!("no column {name}"));
    let rows = reader.records().map(|row| {
        let row = row.unwrap();
        Expected {
            entry_time_ns: row[at("entry_time_ns")].parse().unwrap(),
            exit_time_ns: row[at("exit_time_ns")].parse().unwrap(),
            direction: row[at("direction")].to_owned(),
            label: row[at("label")].to_owned(),
            numbers: NUMBERS.map(|name| row[at(name)].parse().unwrap()),
            reason: row[at("reason")].to_owned(),
        }
    });
    rows.collect()
}

impl From<&Trade> for Expected {
    fn from(trade: &Trade) -> Self {
        Self {
            entry_time_ns: trade.entry_time_ns,
            exit_time_ns: trade.exit_time_ns,
            direction: trade.direction.to_string(),
            label: format!("{}_{}", trade.direction, trade.scenario_id),
            numbers: [
                trade.entry_price,
                trade.exit_price,
                trade.initial_stop_loss.unwrap_or(f64::NAN),
                trade.take_profit.unwrap_or(f64::NAN),
                trade.lots,
                trade.r_multiple.unwrap_or(f64::NAN),
                trade.result,
                trade.entry_fee,
                trade.exit_fee,
            ],
            reason: trade.reason.as_str().to_owned(),
        }
    }
}

impl Case {
    fn load(data: &Path, name: &str) -> Self {
        let folder = support::vectors(data, "v1_trades").join(name);
        let environment = json(&folder.join("env.json"));
        Self {
            dataset: data.join(environment["dataset"].as_str().unwrap()),
            document: json(&folder.join("case.json")),
            summary: json(&folder.join("summary.json")),
            expected: expected(&folder.join("trades.csv")),
            environment,
            folder,
        }
    }

    /// Writes the bars that V1 keeps, and checks that they are the ones the reference ran on.
    fn filter_bars(&self, root: &Path) {
        let symbol = self.environment["symbol"].as_str().unwrap();
        for (timeframe, window) in self.environment["bars_in_window"].as_object().unwrap() {
            for side in ["BID", "ASK"] {
                let name = format!("{symbol}_{timeframe}_{side}.parquet");
                let kept = Candles::read(&self.dataset.join(&name)).filter(|candles, row| {
                    if timeframe == "D1" { is_trading_day(candles, row) } else { in_market_hours(candles.time[row]) }
                });
                let bound = |key: &str| window[key].as_i64().unwrap();
                let (first, last) = (bound("first_open_ns"), bound("last_open_ns"));
                let inside: Vec<i64> = kept.time.iter().copied().filter(|t| (first..=last).contains(t)).collect();
                let bytes: Vec<u8> = inside.iter().flat_map(|time| time.to_le_bytes()).collect();
                assert_eq!(inside.len() as u64, window["rows"].as_u64().unwrap(), "{name}: rows");
                assert_eq!(sha256_hex(&bytes), window["open_times_sha256"].as_str().unwrap(), "{name}: open times");
                kept.write(&root.join(symbol).join(name));
            }
        }
    }

    fn sources(&self, root: &Path) -> Sources {
        Sources {
            news_file: self.folder.join("news.parquet"),
            costs_file: self.folder.join("execution_costs.yaml"),
            specs_file: self.folder.join("symbol_specs.yaml"),
            ..support::sources(root)
        }
    }

    fn check(&self) {
        let root = tempfile::tempdir().unwrap();
        let sources = self.sources(root.path());
        self.filter_bars(&sources.parquet_root);
        let config = support::config(&self.document);
        let environment = support::open(&config, &sources).unwrap_or_else(|error| panic!("{error}"));
        let prepared = support::prepare(&environment, &config);
        let outcome = prepared.run(Vec::new(), &mut Nobody).unwrap_or_else(|error| panic!("{error}"));

        let market = &prepared.market().data;
        let bars = &prepared.plan().bars;
        assert_eq!(market.bars.open_time[bars.start], self.integer("first_bar_ns"), "first bar");
        assert_eq!(market.bars.open_time[bars.end - 1], self.integer("last_bar_ns"), "last bar");

        let walked = &outcome.walked;
        let found: Vec<Expected> = walked.trades.iter().map(Expected::from).collect();
        for (k, (found, expected)) in found.iter().zip(&self.expected).enumerate() {
            assert_eq!(found, expected, "trade {k}");
        }
        assert_eq!(found.len(), self.expected.len(), "number of trades");
        assert_eq!(found.len() as i64, self.integer("trades"));
        assert_eq!(walked.counters.open_positions_at_end as i64, self.integer("open_positions_at_end"));
        assert_eq!(walked.ledger.fees_total(), self.number("fees_total"), "fees_total");
        assert_eq!(walked.ledger.balance(), self.number("final_balance"), "final_balance");
    }

    fn integer(&self, key: &str) -> i64 {
        self.summary[key].as_i64().unwrap_or_else(|| panic!("no whole number {key}"))
    }

    fn number(&self, key: &str) -> f64 {
        self.summary[key].as_f64().unwrap_or_else(|| panic!("no number {key}"))
    }
}

/// No bars on Saturday and Sunday, none without movement and volume.
fn is_trading_day(candles: &Candles, row: usize) -> bool {
    let weekday = (candles.time[row].div_euclid(DAY_NS) + 3).rem_euclid(7);
    let (open, high, low, close) = (candles.open[row], candles.high[row], candles.low[row], candles.close[row]);
    let flat = candles.volume[row] == 0.0 && open == high && high == low && low == close;
    weekday < 5 && !flat
}

/// Monday 07:00 (included) to Saturday 07:00 (excluded) of Sydney: UTC + 10, + 11 from the first Sunday of October to
/// the first Sunday of April (since 2008), changed at 02:00 and 03:00 local time, while the market is closed.
fn in_market_hours(open_time: i64) -> bool {
    let offset = if sydney_daylight_saving(open_time) { 11 } else { 10 };
    let local = open_time + offset * HOUR_NS;
    let weekday = (local.div_euclid(DAY_NS) + 3).rem_euclid(7);
    let hour = local.rem_euclid(DAY_NS) / HOUR_NS;
    match weekday {
        0 => hour >= 7,
        1..=4 => true,
        5 => hour < 7,
        _ => false,
    }
}

fn sydney_daylight_saving(time: i64) -> bool {
    // Both changes happen at 16:00 UTC of the Saturday before.
    let day = (time + 8 * HOUR_NS).div_euclid(DAY_NS);
    let (month, day_of_month) = civil(day);
    let weekday = (day + 3).rem_euclid(7);
    let sundays_begun = |day_of_month: i64| day_of_month > (weekday + 1).rem_euclid(7);
    match month {
        10 => sundays_begun(day_of_month),
        4 => !sundays_begun(day_of_month),
        11 | 12 | 1..=3 => true,
        _ => false,
    }
}

/// Month and day of a day number. Hinnant, chrono-compatible low-level date algorithms, `civil_from_days`.
fn civil(day: i64) -> (i64, i64) {
    let z = day + 719_468;
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (month, doy - (153 * mp + 2) / 5 + 1)
}
