//! Walk-forward against a loop that knows nothing of it: windows laid by hand, every cell a single run with
//! `trade_window`, the choice made by sorting.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests fail loudly")]

#[path = "support/cli.rs"]
mod cli;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array as _, RecordBatch};
use engine::backtest::Environment;
use engine::backtest::walk::Nobody;
use engine::data::Sources;
use engine::metrics::{Metric, MetricValues};
use engine::units::{DAY_NS, Timeframe};
use optimizer::driver::{End, Observer};
use optimizer::sweep::{Experiment, Options};
use optimizer::walkforward::run::{Report, WalkForwardRun};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use serde_json::{Value, json};
use support::candles::Candles;
use support::market::{EURUSD, quotes, times};
use support::table::{number, parquet, text};

// ---------------------------------------------------------------------------------------------- walk-forward under test

struct Silent;

impl Observer for Silent {}

/// A study in a folder of its own: inputs, a run config, axes, the sections of a grid as text.
struct Study {
    folder: tempfile::TempDir,
    sources: Sources,
    config: Value,
    axes: Vec<(&'static str, Vec<Value>)>,
    sections: String,
}

impl Study {
    fn new(config: Value, axes: Vec<(&'static str, Vec<Value>)>, sections: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources { cache_dir: cli::cache().to_owned(), ..support::sources(folder.path()) };
        fs::write(&sources.costs_file, support::settings::COSTS[0]).unwrap();
        fs::write(&sources.specs_file, EURUSD).unwrap();
        Self { folder, sources, config, axes, sections: sections.to_owned() }
    }

    fn grid(&self) -> PathBuf {
        let axes: Vec<String> =
            self.axes.iter().map(|(name, values)| format!("  {name}: {}", json!({"values": values}))).collect();
        let text =
            format!("name: study\nconfig: {}\nparameters:\n{}\n{}\n", self.config, axes.join("\n"), self.sections);
        let path = self.folder.path().join("study.yaml");
        fs::write(&path, text).unwrap();
        path
    }

    fn open(&self, out: &str, threads: usize) -> WalkForwardRun {
        let experiment = Experiment::read(&self.grid(), &[]).unwrap_or_else(|error| panic!("{error}"));
        let out = Some(self.folder.path().join(out));
        let options = Options { set: Vec::new(), out, threads, memory: None, fresh: false, shard: None, reuse: None };
        WalkForwardRun::open(experiment, &options, &self.sources).unwrap_or_else(|error| panic!("{error}"))
    }

    fn run(&self) -> Walked {
        let run = self.open("out", 2);
        let report = run.run(&AtomicBool::new(false), &Silent).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(report.end, End::Complete);
        Walked::read(&report)
    }

    /// The parameters of every setting, in the order of trial numbers: the last axis fastest.
    fn settings(&self) -> Vec<Vec<(&'static str, Value)>> {
        let mut settings = vec![Vec::new()];
        for (name, values) in &self.axes {
            let extended = settings.iter().flat_map(|setting: &Vec<(&'static str, Value)>| {
                values.iter().map(move |value| [setting.clone(), vec![(*name, value.clone())]].concat())
            });
            settings = extended.collect();
        }
        settings
    }

    fn environment(&self) -> Environment {
        support::open(&support::config(&self.document(&self.settings()[0], None)), &self.sources).unwrap()
    }

    /// The config of a single run.
    fn document(&self, setting: &[(&'static str, Value)], window: Option<&Range<i64>>) -> Value {
        let mut document = self.config.clone();
        for (name, value) in setting {
            document["strategy_parameters"][*name] = value.clone();
        }
        if let Some(window) = window {
            document["trade_window"] = json!({"start": iso(window.start), "end": iso(window.end)});
        }
        document
    }

    /// A single run with `trade_window`.
    fn single(
        &self,
        environment: &Environment,
        setting: &[(&'static str, Value)],
        window: &Range<i64>,
    ) -> MetricValues {
        let config = support::config(&self.document(setting, Some(window)));
        support::prepare(environment, &config).run(Vec::new(), &mut Nobody).unwrap().summary.values
    }
}

fn iso(ns: i64) -> String {
    engine::backtest::artefact::iso_time(ns)
}

/// The files a walk-forward left.
struct Walked {
    folder: PathBuf,
    cells: RecordBatch,
    windows: RecordBatch,
    equity: RecordBatch,
    trades: RecordBatch,
    summary: Value,
}

impl Walked {
    fn read(report: &Report) -> Self {
        let folder = report.folder.clone();
        let table = |name: &str| parquet(&folder.join(format!("{name}.parquet")));
        let summary = serde_json::from_str(&fs::read_to_string(folder.join("summary.json")).unwrap()).unwrap();
        Self {
            // One chunk: the studies of these tests say so.
            cells: parquet(&folder.join("chunks/chunk-000000.parquet")),
            windows: table("windows"),
            equity: table("equity"),
            trades: table("trades"),
            summary,
            folder,
        }
    }

    /// Objective of a cell and whether it passed the gates; no verdict if it failed.
    fn cell(&self, window: usize, part: &str, trial: usize) -> (Option<f64>, Option<bool>) {
        let name = format!("w{window:03}.{part}");
        let passed = self.cells.column_by_name(&format!("{name}_passed")).unwrap().as_boolean();
        (number(&self.cells, &name, trial), passed.is_valid(trial).then(|| passed.value(trial)))
    }

    fn windows(&self) -> usize {
        self.windows.num_rows()
    }

    fn span(&self, window: usize, part: &str) -> Range<i64> {
        let at = |edge: &str| number(&self.windows, &format!("{part}_{edge}_ns"), window);
        // Instants are whole numbers: read them as such.
        let exact = |edge: &str| {
            let _ = at(edge);
            let column = self.windows.column_by_name(&format!("{part}_{edge}_ns")).unwrap();
            column.as_primitive::<Int64Type>().value(window)
        };
        exact("start")..exact("end")
    }

    fn text(&self, column: &str, window: usize) -> Option<String> {
        text(&self.windows, column, window)
    }

    fn design(&self, at: usize) -> &Value {
        &self.summary["designs"][at]
    }
}

// --------------------------------------------------------------------------------------------------- the loop by hand

/// What the studies ask for.
struct Rule {
    least_trades: f64,
    most_drawdown: f64,
}

impl Rule {
    fn sections(&self, walk_forward: &str) -> String {
        format!(
            "objective: {{maximize: sharpe_equity_daily}}\ngates: [\"total_trades >= {}\", \"max_drawdown <= {}\"]\n\
             limits: {{chunk: 65536}}\nwalk_forward: {walk_forward}",
            self.least_trades, self.most_drawdown
        )
    }

    /// Objective and gates of a run.
    fn judge(&self, values: &MetricValues) -> (Option<f64>, bool) {
        let get = |metric| values.get(metric);
        let trades = get(Metric::TotalTrades).unwrap();
        let score = get(Metric::SharpeEquityDaily).filter(|_| trades > 0.0);
        let passed = trades >= self.least_trades && get(Metric::MaxDrawdown).unwrap() <= self.most_drawdown;
        (score, score.is_some() && passed)
    }
}

fn rounded(x: f64, decimals: i32) -> f64 {
    let scale = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6][decimals as usize];
    (x.abs() * scale + 0.5).floor().copysign(x) / scale
}

/// Every cell of the trials `sample` accepts is the single run, and on the windows `whole` accepts the choice is the
/// first of all settings sorted by hand.
fn check(
    study: &Study,
    rule: &Rule,
    walked: &Walked,
    sample: impl Fn(usize) -> bool + Sync,
    whole: impl Fn(usize) -> bool + Sync,
) {
    let settings = study.settings();
    let environment = study.environment();
    assert_eq!(walked.cells.num_rows(), settings.len());
    let next = AtomicUsize::new(0);
    let compared = AtomicUsize::new(0);
    let one_window = |window: usize| {
        let (train, test) = (walked.span(window, "train"), walked.span(window, "test"));
        let mut passing = Vec::new();
        for (trial, setting) in settings.iter().enumerate() {
            for (part, span) in [("train", &train), ("test", &test)] {
                if !(sample(trial) || (part == "train" && whole(window))) {
                    continue;
                }
                let values = study.single(&environment, setting, span);
                let (score, passed) = rule.judge(&values);
                let found = walked.cell(window, part, trial);
                let bits = |(score, passed): (Option<f64>, Option<bool>)| (score.map(f64::to_bits), passed);
                let place = format!("window {window}, {part}, trial {trial} {setting:?}");
                assert_eq!(bits(found), bits((score, Some(passed))), "{place}: {found:?}, single run {score:?}");
                compared.fetch_add(1, Ordering::Relaxed);
                if part == "train" && passed {
                    let get = |metric, decimals| rounded(values.get(metric).unwrap(), decimals);
                    let hash = text(&walked.cells, "config_hash", trial).unwrap();
                    let key = (-rounded(score.unwrap(), 6), -get(Metric::ProfitNet, 2), get(Metric::MaxDrawdown, 6));
                    passing.push((key, hash, trial));
                }
            }
        }
        if whole(window) {
            passing.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap().then_with(|| a.1.cmp(&b.1)));
            let expected = passing.first().map(|(_, _, trial)| *trial as f64);
            assert_eq!(number(&walked.windows, "trial", window), expected, "choice of window {window}");
            assert_eq!(number(&walked.windows, "train_ok", window), Some(passing.len() as f64));
        }
        chosen_row(study, &environment, &settings, walked, window);
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let window = next.fetch_add(1, Ordering::Relaxed);
                        if window >= walked.windows() {
                            return;
                        }
                        one_window(window);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    println!("{} windows x {} settings: {} cells compared", walked.windows(), settings.len(), compared.into_inner());
}

/// Both metric blocks of a window's row are those of single runs of its choice, and its rank on test is counted.
fn chosen_row(
    study: &Study,
    environment: &Environment,
    settings: &[Vec<(&'static str, Value)>],
    walked: &Walked,
    window: usize,
) {
    let Some(trial) = number(&walked.windows, "trial", window) else { return };
    for (part, prefix) in [("train", "is"), ("test", "oos")] {
        let values = study.single(environment, &settings[trial as usize], &walked.span(window, part));
        for (metric, value) in values.iter() {
            let found = number(&walked.windows, &format!("{prefix}.{}", metric.key()), window);
            assert_eq!(found.map(f64::to_bits), value.map(f64::to_bits), "window {window} {part} {}", metric.key());
        }
    }
    let order = |(score, passed): (Option<f64>, Option<bool>)| match (score, passed) {
        (Some(score), Some(true)) => (2, rounded(score, 6)),
        (Some(score), _) => (1, rounded(score, 6)),
        (None, _) => (0, 0.0),
    };
    let own = walked.cell(window, "test", trial as usize);
    let ahead = (0..settings.len()).filter(|other| order(walked.cell(window, "test", *other)) > order(own)).count();
    let expected = own.0.map(|_| ahead as f64 + 1.0);
    assert_eq!(number(&walked.windows, "test_rank", window), expected, "rank of window {window}");
}

/// Windows of optimizer-and-ratings §5.1, forward from the first tradable day; all lengths in days.
fn windows_in_days(
    times: &[i64],
    first: usize,
    bar: i64,
    anchored: bool,
    [train, embargo, test, step]: [i64; 4],
) -> Vec<[Range<i64>; 2]> {
    let origin = times[first].div_euclid(DAY_NS) * DAY_NS;
    let end = times.last().unwrap() + bar;
    let mut windows = Vec::new();
    let mut current = origin;
    loop {
        let train_end = current + train * DAY_NS;
        let test_start = train_end + embargo * DAY_NS;
        let test_end = test_start + test * DAY_NS;
        if test_end > end {
            return windows;
        }
        let start = if anchored { origin } else { current };
        windows.push([start..train_end, test_start..test_end]);
        current += step * DAY_NS;
    }
}

fn assert_windows(walked: &Walked, expected: &[[Range<i64>; 2]]) {
    let found: Vec<[Range<i64>; 2]> =
        (0..walked.windows()).map(|window| ["train", "test"].map(|part| walked.span(window, part))).collect();
    assert_eq!(found, expected);
}

// --------------------------------------------------------------------------------------------------------- real bars

fn eurusd(data: &Path, axes: Vec<(&'static str, Vec<Value>)>, sections: &str) -> Study {
    let config = json!({
        "strategy_name": "mean_reversion_z_score",
        "symbol": "EURUSD",
        "start_date": "2007-01-01",
        "end_date": "2017-12-31",
        "timeframes": {"primary": "H1", "additional": ["D1"]},
        "warmup_bars": 300,
        "account": {"initial_balance": 100_000.0, "account_currency": "USD", "risk_per_trade": 100.0},
        "strategy_parameters": {"enabled_scenarios": [2], "htf_tf": "D1", "extra_htf_tf": "NONE", "htf_ema": 50},
    });
    let mut study = Study::new(config, axes, sections);
    study.sources.parquet_root = data.join("long");
    study
}

/// 2,000 settings, or the 40 that are left of them.
fn axes(all: bool) -> Vec<(&'static str, Vec<Value>)> {
    let some = |values: Value, keep: usize| {
        let values = values.as_array().unwrap().clone();
        if all { values } else { values[..keep].to_vec() }
    };
    vec![
        ("htf_filter", some(json!(["both", "above", "below", "none"]), 2)),
        ("window_length", some(json!([40, 80, 120, 160, 200]), 2)),
        ("direction_filter", some(json!(["long", "short"]), 2)),
        ("b_b_length", some(json!([20, 40]), 1)),
        ("z_score_long", some(json!([-0.8, -1.2, -1.6, -2.0, -2.4]), 1)),
        ("std_factor", some(json!([1.4, 1.6, 1.8, 2.0, 2.2]), 5)),
    ]
}

/// Everything, instead of a dense sample: `OMEGA_WALKFORWARD_FULL=1`, best with `--release`.
fn full() -> bool {
    std::env::var_os("OMEGA_WALKFORWARD_FULL").is_some()
}

const RULE: Rule = Rule { least_trades: 15.0, most_drawdown: 0.05 };

#[test]
fn rolling_on_real_bars_agrees_with_single_runs() {
    let Some(data) = cli::real_data("rolling_on_real_bars_agrees_with_single_runs") else { return };
    let sections = RULE.sections("{mode: rolling, train: 365d, test: 90d, step: 160d}");
    let study = eurusd(&data, axes(true), &sections);
    let walked = study.run();
    assert!(walked.windows() >= 20 && study.settings().len() == 2000);
    check(&study, &RULE, &walked, |trial| full() || trial % 19 == 7, |window| full() || window % 10 == 3);
    let environment = study.environment();
    let market = &environment.data().market;
    let lengths = [365, 1, 90, 160];
    let expected = windows_in_days(&market.bars.open_time, market.first_tradable, 3600 * 1_000_000_000, false, lengths);
    assert_windows(&walked, &expected);
    stitched_is_the_sum_of_its_windows(&study, &walked);
}

#[test]
fn anchored_on_real_bars_agrees_with_single_runs() {
    let Some(data) = cli::real_data("anchored_on_real_bars_agrees_with_single_runs") else { return };
    let sections = RULE.sections("{mode: anchored, train: 365d, test: 160d, embargo: 3d}");
    let study = eurusd(&data, axes(full()), &sections);
    let walked = study.run();
    assert!(walked.windows() >= 20);
    check(&study, &RULE, &walked, |_| true, |_| true);
    let environment = study.environment();
    let market = &environment.data().market;
    let lengths = [365, 3, 160, 160];
    let expected = windows_in_days(&market.bars.open_time, market.first_tradable, 3600 * 1_000_000_000, true, lengths);
    assert_windows(&walked, &expected);
    stitched_is_the_sum_of_its_windows(&study, &walked);
}

#[test]
fn a_matrix_on_real_bars_agrees_with_single_runs() {
    let Some(data) = cli::real_data("a_matrix_on_real_bars_agrees_with_single_runs") else { return };
    let sections = RULE.sections("{mode: matrix, train: [365d, 24mo, 10000d], test: [6mo, 365d], embargo: 3d}");
    let study = eurusd(&data, axes(full()), &sections);
    let walked = study.run();
    assert!(walked.windows() >= 20);
    check(&study, &RULE, &walked, |_| true, |_| true);
    let matrix = parquet(&walked.folder.join("matrix.parquet"));
    let designs: Vec<(String, f64, Option<String>)> = (0..matrix.num_rows())
        .map(|row| {
            let of = |name| text(&matrix, name, row);
            (of("design").unwrap(), number(&matrix, "windows", row).unwrap(), of("reason"))
        })
        .collect();
    let names: Vec<&str> = designs.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["365d-6mo", "365d-365d", "24mo-6mo", "24mo-365d", "10000d-6mo", "10000d-365d"]);
    // A length that fits nowhere is a row that says so.
    assert!(
        designs.iter().all(|(_, windows, reason)| (*windows == 0.0) == (reason.as_deref() == Some("no window fits")))
    );
    assert!(designs[4].1 == 0.0 && designs[3].1 > 0.0);
    let rows: f64 = designs.iter().map(|(_, windows, _)| windows).sum();
    assert_eq!(rows as usize, walked.windows());
    stitched_is_the_sum_of_its_windows(&study, &walked);
}

/// The curve of each design is its windows' runs end to end, trade by trade and cent by cent.
fn stitched_is_the_sum_of_its_windows(study: &Study, walked: &Walked) {
    for design in walked.summary["designs"].as_array().unwrap() {
        let name = design["design"].as_str().unwrap();
        let own = |batch: &RecordBatch| -> Vec<usize> {
            (0..batch.num_rows()).filter(|row| text(batch, "design", *row).as_deref() == Some(name)).collect()
        };
        let (windows, trades, points) = (own(&walked.windows), own(&walked.trades), own(&walked.equity));
        let sum =
            |column: &str| -> f64 { windows.iter().filter_map(|row| number(&walked.windows, column, *row)).sum() };
        let metric = |key: &str| design["metrics"][key].as_f64();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{name}: {a} is not {b}");
        near(metric("profit_net").unwrap(), sum("oos.profit_net"));
        near(metric("fees_total").unwrap(), sum("oos.fees_total"));
        assert_eq!(metric("total_trades").unwrap(), sum("oos.total_trades"));
        assert_eq!(trades.len() as f64, sum("oos.total_trades"));
        let initial = study.config["account"]["initial_balance"].as_f64().unwrap();
        let mut high_water = initial;
        let mut last_time = i64::MIN;
        for row in &points {
            let of = |column: &str| number(&walked.equity, column, *row).unwrap();
            let time = walked.equity.column_by_name("timestamp_ns").unwrap().as_primitive::<Int64Type>().value(*row);
            assert!(time > last_time, "bars stand in order, each once");
            last_time = time;
            high_water = f64::max(high_water, of("equity"));
            assert_eq!((of("high_water"), of("drawdown")), (high_water, (high_water - of("equity")) / high_water));
        }
        if let Some(last) = points.last() {
            near(number(&walked.equity, "equity", *last).unwrap(), initial + sum("oos.profit_net"));
            // Without a choice in the first window there is nothing to keep.
            if let Some(kept) = number(&walked.equity, "first_choice", *last) {
                near(kept, initial + sum("first_choice_net"));
            }
            near(number(&walked.equity, "buy_and_hold", *last).unwrap(), initial + sum("buy_and_hold_net"));
        }
        // Statistical-validity §12, from the table alone.
        let days = |part: &str, row: usize| {
            let span = walked.span(row, part);
            (span.end - span.start) as f64 / DAY_NS as f64
        };
        let chosen: Vec<usize> =
            windows.iter().copied().filter(|row| number(&walked.windows, "oos.profit_net", *row).is_some()).collect();
        let per_day = |column: &str, part: &str| {
            let profit: f64 = chosen.iter().map(|row| number(&walked.windows, column, *row).unwrap()).sum();
            profit / chosen.iter().map(|row| days(part, *row)).sum::<f64>()
        };
        let (inside, outside) = (per_day("is.profit_net", "train"), per_day("oos.profit_net", "test"));
        let figure = |key: &str| design["figures"][key].as_f64();
        match figure("wfe") {
            Some(wfe) => near(wfe, outside / inside),
            None => assert!(chosen.is_empty() || inside <= 0.0),
        }
        let profits: Vec<f64> =
            windows.iter().map(|row| number(&walked.windows, "oos.profit_net", *row).unwrap_or(0.0)).collect();
        let winning = profits.iter().filter(|profit| **profit > 0.0);
        if !profits.is_empty() {
            near(figure("wf_consistency").unwrap(), winning.clone().count() as f64 / profits.len() as f64);
        }
        if let Some(concentration) = figure("wf_concentration") {
            let largest = profits.iter().copied().fold(0.0, f64::max);
            near(concentration, largest / winning.sum::<f64>());
        }
    }
}

// --------------------------------------------------------------------------------------------------- small random cases

#[derive(Debug, Clone, Copy)]
enum Unit {
    Days,
    Bars,
}

#[derive(Debug, Clone)]
struct Small {
    seed: u64,
    bars: usize,
    warmup: usize,
    unit: Unit,
    /// Train, embargo, test, step: in days, or in tens of bars.
    lengths: [i64; 4],
    anchored: bool,
    least_trades: u32,
    fast: Vec<u32>,
    slow: Vec<u32>,
    holdout: Option<u32>,
}

fn smalls() -> impl Strategy<Value = Small> {
    let lengths = [5_i64..40, 0_i64..4, 3_i64..25, 0_i64..10];
    let rest = (any::<bool>(), 0_u32..6, proptest::option::of(2_u32..12));
    let axes = (
        proptest::sample::subsequence(vec![3_u32, 5, 8, 13, 21], 1..4),
        proptest::sample::subsequence(vec![30_u32, 40, 55], 1..3),
    );
    let unit = prop_oneof![Just(Unit::Days), Just(Unit::Bars)];
    (0_u64..3, 900_usize..1500, 60_usize..100, unit, lengths, rest, axes).prop_map(
        |(seed, bars, warmup, unit, mut lengths, (anchored, least_trades, holdout), (fast, slow))| {
            // The step is the test and some more: overlaps have a test of their own.
            lengths[3] += lengths[2];
            Small { seed, bars, warmup, unit, lengths, anchored, least_trades, fast, slow, holdout }
        },
    )
}

fn small_config(seed: u64, bars: usize, warmup: usize) -> Value {
    json!({
        "strategy_name": "sma_cross",
        "symbol": "EURUSD",
        "start_date": "2020-01-01",
        "end_date": "2021-12-31",
        "data": {"source": "synthetic", "seed": seed, "bars": bars},
        "timeframes": {"primary": "H1", "additional": []},
        "warmup_bars": warmup,
        "account": {"initial_balance": 100_000.0, "account_currency": "USD", "risk_per_trade": 100.0},
        "strategy_parameters": {"lots": 0.5},
    })
}

fn whole(values: &[u32]) -> Vec<Value> {
    values.iter().map(|value| json!(value)).collect()
}

fn small_case(case: &Small) {
    let text = |at: usize| match case.unit {
        Unit::Days => format!("{}d", case.lengths[at]),
        Unit::Bars => format!("{}bars", case.lengths[at] * 10),
    };
    let mode = if case.anchored { "anchored" } else { "rolling" };
    let holdout = case.holdout.map_or_else(String::new, |days| format!(", holdout: {days}d"));
    let windows = format!(
        "{{mode: {mode}, train: {}, embargo: {}, test: {}, step: {}{holdout}}}",
        text(0),
        text(1),
        text(2),
        text(3)
    );
    let rule = Rule { least_trades: case.least_trades.into(), most_drawdown: 0.03 };
    let axes = vec![("fast_length", whole(&case.fast)), ("slow_length", whole(&case.slow))];
    let study = Study::new(small_config(case.seed, case.bars, case.warmup), axes, &rule.sections(&windows));
    let environment = study.environment();
    let market = &environment.data().market;
    let bar = Timeframe::H1.duration_ns();
    let mut times: Vec<i64> = market.bars.open_time.to_vec();
    if let Some(days) = case.holdout {
        let cut = (times.last().unwrap().div_euclid(DAY_NS) + 1 - i64::from(days)) * DAY_NS;
        times.retain(|time| time + bar <= cut);
    }
    let expected = match case.unit {
        Unit::Days => windows_in_days(&times, market.first_tradable, bar, case.anchored, case.lengths),
        Unit::Bars => windows_in_bars(&times, market.first_tradable, bar, case.anchored, case.lengths.map(|n| n * 10)),
    };
    if expected.is_empty() {
        return;
    }
    let walked = study.run();
    assert_windows(&walked, &expected);
    check(&study, &rule, &walked, |_| true, |_| true);
    stitched_is_the_sum_of_its_windows(&study, &walked);
}

/// The same rule with all lengths in bars, by index.
fn windows_in_bars(times: &[i64], first: usize, bar: i64, anchored: bool, lengths: [i64; 4]) -> Vec<[Range<i64>; 2]> {
    let [train, embargo, test, step] = lengths.map(|n| n as usize);
    let at = |index: usize| times.get(index).copied().unwrap_or(times.last().unwrap() + bar);
    let origin = times[first].div_euclid(DAY_NS) * DAY_NS;
    let mut windows = Vec::new();
    let mut current = first;
    while current + train + embargo + test <= times.len() {
        let start = if anchored || current == first { origin } else { at(current) };
        let test_start = current + train + embargo;
        windows.push([start..at(current + train), at(test_start)..at(test_start + test)]);
        current += step;
    }
    windows
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn prop_small_cases_agree_with_single_runs(case in smalls()) {
        small_case(&case);
    }
}

// ------------------------------------------------------------------------------------------------------- no look-ahead

/// Hourly bars of a random walk, weekends left out.
fn random_walk(seed: u64, bars: usize) -> [Candles; 2] {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1_u64 << 24) as f64 - 0.5
    };
    let mut price = 1.2;
    let made: Vec<[f64; 4]> = (0..bars)
        .map(|_| {
            let open: f64 = price;
            price = f64::max(open + 0.004 * draw(), 0.5);
            let wick = 0.0005 * (draw() + 0.5);
            let five = |x: f64| format!("{x:.5}").parse::<f64>().unwrap();
            let (high, low) = (f64::max(open, price) + wick, f64::min(open, price) - wick);
            price = five(price);
            [five(open), five(high), five(low), price]
        })
        .collect();
    let open = |time: &i64| (time.div_euclid(DAY_NS) + 3).rem_euclid(7) < 5;
    let times: Vec<i64> =
        times("2024-01-01T00:00", Timeframe::H1, 2 * bars).into_iter().filter(open).take(bars).collect();
    quotes(&times, &made, 0.0001)
}

fn files(study: &Study, sides: &[Candles; 2]) {
    for (side, name) in sides.iter().zip(["BID", "ASK"]) {
        side.write(&study.sources.parquet_root.join(format!("EURUSD/EURUSD_H1_{name}.parquet")));
    }
}

/// Every bar from `from` on moved by a factor that changes from bar to bar.
fn changed_after(sides: &[Candles; 2], from: i64) -> [Candles; 2] {
    sides.clone().map(|mut side| {
        for i in 0..side.time.len() {
            if side.time[i] >= from {
                let factor = 1.0 + 0.05 * f64::from(u8::from(i % 7 < 3)) + 0.01 * (i % 5) as f64;
                for prices in [&mut side.open, &mut side.high, &mut side.low, &mut side.close] {
                    prices[i] *= factor;
                }
            }
        }
        side
    })
}

/// All columns of a window's row, or those that tell of its train and its choice.
fn told(walked: &Walked, window: usize, choice_only: bool) -> BTreeMap<String, String> {
    let schema = walked.windows.schema();
    let of_choice = |name: &str| {
        let fixed = ["trial", "config_hash", "rules_hash", "train_objective", "settings", "train_bars"];
        fixed.contains(&name) || name.starts_with("is.") || name.starts_with("param.") || name.starts_with("train_")
    };
    let names = schema.fields().iter().map(|field| field.name().clone());
    let names = names.filter(|name| !choice_only || of_choice(name));
    names
        .map(|name| {
            let value = walked.windows.column_by_name(&name).unwrap().slice(window, 1);
            let value = format!("{value:?}");
            (name, value)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(10) })]

    /// What comes after a train changes no choice; what comes after a test changes nothing in the row.
    #[test]
    fn prop_the_future_changes_no_window_behind_it(seed in 0_u64..1000, at in 300_usize..1900, anchored: bool) {
        let rule = Rule { least_trades: 2.0, most_drawdown: 0.5 };
        let mode = if anchored { "anchored" } else { "rolling" };
        let mut config = small_config(0, 0, 60);
        config["data"] = Value::Null;
        (config["start_date"], config["end_date"]) = (json!("2024-01-01"), json!("2024-12-31"));
        let axes = vec![("fast_length", whole(&[3, 5, 8, 13])), ("slow_length", whole(&[21, 34, 55]))];
        let sections = rule.sections(&format!("{{mode: {mode}, train: 20d, test: 9d, embargo: 2d}}"));
        let study = Study::new(config, axes, &sections);
        let bars = random_walk(seed, 2000);
        files(&study, &bars);
        let before = study.run();
        let from = bars[0].time[at];
        files(&study, &changed_after(&bars, from));
        let after = study.run();
        assert_ne!(before.folder, after.folder, "other bars are another run");
        assert_eq!(before.windows(), after.windows());
        let mut same = [0, 0];
        for window in 0..before.windows() {
            if before.span(window, "train").end <= from {
                assert_eq!(told(&before, window, true), told(&after, window, true), "choice of window {window}");
                same[0] += 1;
            }
            if before.span(window, "test").end <= from {
                assert_eq!(told(&before, window, false), told(&after, window, false), "row of window {window}");
                same[1] += 1;
            }
        }
        assert!(at < 700 || (same[0] > 0 && same[1] > 0), "{same:?} of {}", before.windows());
    }
}

/// Bars of the holdout may be anything: not even a file without them would tell.
#[test]
fn the_holdout_is_cut_off_before_the_search() {
    let rule = Rule { least_trades: 1.0, most_drawdown: 0.5 };
    let mut config = small_config(0, 0, 60);
    config["data"] = Value::Null;
    (config["start_date"], config["end_date"]) = (json!("2024-01-01"), json!("2024-12-31"));
    let sections = rule.sections("{train: 20d, test: 10d, holdout: {from: 2024-03-04}}");
    let axes = vec![("fast_length", whole(&[3, 5, 8])), ("slow_length", whole(&[21, 34]))];
    let study = Study::new(config, axes, &sections);
    let bars = random_walk(5, 1600);
    files(&study, &bars);
    let run = study.open("out", 1);
    let held = run.held_back().unwrap();
    assert_eq!(iso(held.from_ns), "2024-03-04T00:00:00+00:00");
    assert_eq!(held.bars, bars[0].time.iter().filter(|time| **time >= held.from_ns).count());
    drop(run);
    let before = study.run();
    assert!(
        before.windows() > 0
            && before.span(before.windows() - 1, "test").end <= support::market::instant("2024-03-04T00:00")
    );
    files(&study, &changed_after(&bars, support::market::instant("2024-03-04T00:00")));
    let after = study.run();
    for window in 0..before.windows() {
        assert_eq!(told(&before, window, false), told(&after, window, false));
    }
    assert_eq!(before.summary, after.summary);
    let end = |walked: &Walked| walked.equity.num_rows();
    assert_eq!(end(&before), end(&after));
}

// ------------------------------------------------------------------------------------------------------ explicit rows

#[test]
fn windows_without_choice_trades_or_bars_say_why() {
    let mut config = small_config(0, 0, 60);
    config["data"] = Value::Null;
    (config["start_date"], config["end_date"]) = (json!("2024-01-01"), json!("2024-12-31"));
    config["strategy_parameters"]["lots"] = json!(0.5);
    let rule = Rule { least_trades: 4.0, most_drawdown: 0.5 };
    let axes = vec![("fast_length", whole(&[5, 8])), ("slow_length", whole(&[30, 45]))];
    let study = Study::new(config, axes, &rule.sections("{train: 14d, test: 7d, embargo: 0d}"));
    let [bid, ask] = random_walk(11, 2000);
    // Two weeks without bars and four without movement, the spread aside.
    let hole = support::market::instant("2024-02-05T00:00")..support::market::instant("2024-02-19T00:00");
    let still = support::market::instant("2024-03-04T00:00")..support::market::instant("2024-04-01T00:00");
    let spoiled = [bid, ask].map(|side| {
        let mut side = side.filter(|side, row| !hole.contains(&side.time[row]));
        let price = side.close[side.time.iter().position(|time| *time >= still.start).unwrap()];
        for i in 0..side.time.len() {
            if still.contains(&side.time[i]) {
                (side.open[i], side.high[i], side.low[i], side.close[i]) = (price, price, price, price);
            }
        }
        side
    });
    files(&study, &spoiled);
    let walked = study.run();
    let column =
        |name: &str| -> Vec<Option<String>> { (0..walked.windows()).map(|window| walked.text(name, window)).collect() };
    let statuses: Vec<String> = column("status").into_iter().flatten().collect();
    for (status, reason) in statuses.iter().zip(column("reason")) {
        assert_eq!(reason.is_none(), status == "ok", "{status}: {reason:?}");
    }
    let with = |status: &str| -> Vec<usize> { (0..statuses.len()).filter(|at| statuses[*at] == status).collect() };
    assert!(!with("ok").is_empty(), "{statuses:?}");
    for window in with("no_bars") {
        assert!(column("reason")[window].as_ref().unwrap().starts_with("no bar in "));
        assert_eq!(number(&walked.windows, "oos.total_trades", window), None);
    }
    for window in with("no_choice") {
        let reason = column("reason")[window].clone().unwrap();
        assert!(reason.starts_with("no setting passes the gates on train: 4 "), "{reason}");
        assert_eq!(number(&walked.windows, "trial", window), None);
    }
    for window in with("no_trades") {
        assert!(number(&walked.windows, "trial", window).is_some());
        assert_eq!(number(&walked.windows, "oos.total_trades", window), Some(0.0));
        assert_eq!(number(&walked.windows, "oos.win_rate", window), None, "undefined is null");
        assert!(column("reason")[window].as_ref().unwrap().starts_with("no_signal"));
    }
    for status in ["no_bars", "no_choice", "no_trades"] {
        assert!(!with(status).is_empty(), "no window is {status}: {statuses:?}");
    }
    stitched_is_the_sum_of_its_windows(&study, &walked);
}

#[test]
fn a_window_shorter_than_the_warm_up_is_judged_and_says_so() {
    let rule = Rule { least_trades: 1.0, most_drawdown: 0.9 };
    let axes = vec![("fast_length", whole(&[5, 8])), ("slow_length", whole(&[30]))];
    let study =
        Study::new(small_config(1, 1500, 100), axes, &rule.sections("{train: 200bars, test: 50bars, embargo: 1bars}"));
    let walked = study.run();
    assert_eq!(walked.text("notes", 0).as_deref(), Some("test holds 50 bars, fewer than warmup_bars (100)"));
    check(&study, &rule, &walked, |_| true, |_| true);
}

#[test]
fn overlapping_tests_count_each_bar_for_the_first() {
    let rule = Rule { least_trades: 1.0, most_drawdown: 0.9 };
    let axes = vec![("fast_length", whole(&[3, 5, 8])), ("slow_length", whole(&[30, 40]))];
    let windows = "{train: 20d, test: 15d, step: 6d, embargo: 1d, allow_overlap: true}";
    let study = Study::new(small_config(2, 1400, 60), axes, &rule.sections(windows));
    let walked = study.run();
    check(&study, &rule, &walked, |_| true, |_| true);
    let (environment, settings) = (study.environment(), study.settings());
    let mut from = i64::MIN;
    let mut profit = 0.0;
    for window in 0..walked.windows() {
        let test = walked.span(window, "test");
        let times = &environment.data().market.bars.open_time;
        let own = times.iter().copied().find(|time| *time >= test.start.max(from)).unwrap()..test.end;
        let trial = number(&walked.windows, "trial", window).unwrap() as usize;
        profit += study.single(&environment, &settings[trial], &own).get(Metric::ProfitNet).unwrap();
        from = test.end;
    }
    let stitched = walked.design(0)["metrics"]["profit_net"].as_f64().unwrap();
    assert!((stitched - profit).abs() < 1e-6, "{stitched} is not {profit}");
}

#[test]
fn the_embargo_covers_the_longest_holding_time() {
    let rule = Rule { least_trades: 1.0, most_drawdown: 0.9 };
    let embargo = |minutes: &[u32], management: Value| {
        let mut config = small_config(2, 1400, 60);
        config["strategy_name"] = json!("mean_reversion_z_score");
        config["strategy_parameters"] = json!({"enabled_scenarios": [1], "htf_filter": "none", "extra_htf_filter": "none", "ema_length": 20, "window_length": 20});
        config["trade_management"] = management;
        let axes = vec![("max_holding_minutes", whole(minutes)), ("atr_length", whole(&[10, 14]))];
        let study = Study::new(config, axes, &rule.sections("{train: 20d, test: 10d}"));
        study.open("out", 1).windows().embargo.unwrap().to_string()
    };
    assert_eq!(embargo(&[60, 300], json!({"enabled": true})), "1d");
    assert_eq!(embargo(&[60, 4400, 300], json!({"enabled": true})), "4d");
    assert_eq!(embargo(&[60, 4400, 300], json!({"enabled": false})), "1d");
}
