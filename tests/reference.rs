//! Whole sweeps against plain loops: the two workloads of `benches/`, written out bar by bar from the specification
//! with nothing of the engine, on made-up bars and on real silver.
//!
//! Trades and wins must be equal; the sums agree to 1e-9 relative, since each side adds up in its own way.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail loudly and say what they measured"
)]

mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use engine::data::Sources;
use optimizer::driver::Observer;
use optimizer::sweep::{Experiment, Options, Sweep};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use support::candles::Candles;

const WARMUP: usize = 500;

/// What a loop counts for one setting.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    trades: u32,
    wins: u32,
    /// Summed price gain, or the summed R of the trades.
    sum: f64,
}

/// Both sides of the market.
struct Market {
    bid: Candles,
    ask: Candles,
}

#[test]
fn sma_cross_on_made_up_bars() {
    let market = made_up(40_000);
    let root = tempfile::tempdir().unwrap();
    market.write(root.path(), "EURUSD");
    let set = ["fast_length=5..62:3", "slow_length=70..266:28"];
    let rows = sweep("bench_sma_1000", &set, root.path(), root.path());
    assert_eq!(rows.len(), 160);
    let average = |n: f64| moving_average(&market.bid.close, n as usize);
    for row in &rows {
        let expected = cross(&market, &average(row.axis("fast_length")), &average(row.axis("slow_length")));
        row.check(expected, row.number("profit_gross") / 100_000.0, expected.sum);
    }
}

#[test]
fn z_score_on_made_up_bars() {
    let market = made_up(40_000);
    let root = tempfile::tempdir().unwrap();
    market.write(root.path(), "EURUSD");
    check_z_score(&market, &sweep("bench_mrz1", &["window_length=[20, 60, 120]"], root.path(), root.path()), 300, 1e-4);
}

#[test]
fn z_score_on_silver() {
    let Some(data) = support::data_root("z_score_on_silver") else { return };
    let side = |side: &str| Candles::read(&data.join(format!("XAGUSD/XAGUSD_M5_{side}.parquet")));
    let market = Market { bid: side("BID"), ask: side("ASK") };
    assert_eq!(market.bid.time, market.ask.time, "the loop knows no alignment");
    let scratch = tempfile::tempdir().unwrap();
    let set = ["window_length=[20, 50]", "ema_length=[20, 30, 80]"];
    check_z_score(&market, &sweep("bench_mrz1_xagusd", &set, &data, scratch.path()), 150, 0.01);
}

/// Compares every row with its own loop; `pip`: price of a pip.
fn check_z_score(market: &Market, rows: &[Setting], settings: usize, pip: f64) {
    assert_eq!(rows.len(), settings);
    let range = average_range(&market.bid, 14);
    /// R and Q of the Kalman filter.
    type Filter = (f64, f64);
    let mut columns: Vec<(Filter, [Vec<f64>; 2])> = Vec::new();
    for row in rows {
        let key = (row.axis("window_length"), row.axis("ema_length"));
        let at = columns.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
            let mean = exponential_average(&market.bid.close, key.1);
            let z = z_score(&market.bid.close, &mean, key.0 as usize);
            columns.push((key, [z, mean]));
            columns.len() - 1
        });
        let [z, mean] = &columns[at].1;
        let expected = revert(market, z, mean, &range, row.axis("z_score_long"), row.axis("atr_mult"), 0.1 * pip);
        row.check(expected, row.number("avg_r_stop"), expected.sum / f64::from(expected.trades));
    }
}

/// Long while the fast average is above the slow one, one lot, no stop: in on the ask close, out on the bid close.
fn cross(market: &Market, fast: &[f64], slow: &[f64]) -> Tally {
    let mut tally = Tally::default();
    let mut paid = None;
    for i in WARMUP..market.bid.close.len() {
        let above = fast[i] > slow[i];
        match paid {
            None if above => paid = Some(market.ask.close[i]),
            Some(price) if !above => {
                tally.book(market.bid.close[i] - price, market.bid.close[i] - price);
                paid = None;
            }
            _ => {}
        }
    }
    tally
}

/// Scenario 1, long: in on the ask close of a bar whose z-score is at or below `threshold`, unless the stop is nearer
/// than `nearest`; out on a later bar at the stop or, if that is not reached, at the mean, in either case at the open
/// where the bar starts beyond it.
fn revert(market: &Market, z: &[f64], mean: &[f64], range: &[f64], threshold: f64, factor: f64, nearest: f64) -> Tally {
    let bid = &market.bid;
    let mut tally = Tally::default();
    // Entry price, stop, target.
    let mut position: Option<(f64, f64, f64)> = None;
    for i in WARMUP..bid.close.len() {
        let Some((entry, stop, target)) = position else {
            if z[i].is_finite() && z[i] <= threshold {
                let (entry, stop) = (market.ask.close[i], bid.low[i] - factor * range[i]);
                if entry - stop >= nearest - 1e-12 {
                    position = Some((entry, stop, mean[i]));
                }
            }
            continue;
        };
        let exit = if bid.low[i] <= stop {
            stop.min(bid.open[i])
        } else if bid.high[i] >= target {
            target.max(bid.open[i])
        } else {
            continue;
        };
        tally.book(exit - entry, (exit - entry) / (entry - stop));
        position = None;
    }
    tally
}

impl Tally {
    fn book(&mut self, gain: f64, share: f64) {
        self.trades += 1;
        self.wins += u32::from(gain > 0.0);
        self.sum += share;
    }
}

/// Mean of the last `n` values, each window summed anew.
fn moving_average(values: &[f64], n: usize) -> Vec<f64> {
    let mut means = vec![f64::NAN; values.len()];
    for i in n - 1..values.len() {
        let mut sum = 0.0;
        for value in &values[i + 1 - n..=i] {
            sum += value;
        }
        means[i] = sum / n as f64;
    }
    means
}

/// `e_0 = x_0`, `e_i = e_{i−1} + 2/(n + 1)·(x_i − e_{i−1})`.
fn exponential_average(values: &[f64], n: f64) -> Vec<f64> {
    let mut last = values[0];
    values
        .iter()
        .map(|value| {
            last += 2.0 / (n + 1.0) * (value - last);
            last
        })
        .collect()
}

/// Distance of the price from its mean over the sample deviation of the last `n` distances.
fn z_score(price: &[f64], mean: &[f64], n: usize) -> Vec<f64> {
    let distance: Vec<f64> = price.iter().zip(mean).map(|(price, mean)| price - mean).collect();
    let mut z = vec![f64::NAN; price.len()];
    for i in n - 1..price.len() {
        let window = &distance[i + 1 - n..=i];
        let mut sum = 0.0;
        for d in window {
            sum += d;
        }
        let centre = sum / n as f64;
        let mut squares = 0.0;
        for d in window {
            squares += (d - centre) * (d - centre);
        }
        z[i] = distance[i] / (squares / (n - 1) as f64).sqrt();
    }
    z
}

/// Wilder's average true range: the mean of the first `n`, then `(a·(n − 1) + t)/n`.
fn average_range(bars: &Candles, n: usize) -> Vec<f64> {
    let true_range = |i: usize| {
        let (high, low) = (bars.high[i], bars.low[i]);
        let before = if i == 0 { low } else { bars.close[i - 1] };
        if i == 0 { high - low } else { (high - low).max((high - before).abs()).max((low - before).abs()) }
    };
    let mut average = vec![f64::NAN; bars.close.len()];
    let mut last = (0..n).map(true_range).sum::<f64>() / n as f64;
    average[n - 1] = last;
    for (i, slot) in average.iter_mut().enumerate().skip(n) {
        last = (last * (n - 1) as f64 + true_range(i)) / n as f64;
        *slot = last;
    }
    average
}

/// A random walk of M5 bars from 2015-01-05, with a spread of 0.5 to 1.5 pips and volatility that comes and goes.
///
/// On seven decimals: on five, averages of different lengths tie now and then, and the last digit of each side's way
/// of summing would decide.
fn made_up(bars: usize) -> Market {
    let mut state = 20_150_105_u64;
    // SplitMix64: uniform in [−1, 1).
    let mut draw = move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    };
    // Prices are whole points of 1e-7: the quotient is the nearest double to the decimal, as a file would hold it.
    let price = |points: i64| points as f64 / 1e7;
    let (mut bid, mut ask) = (Candles::default(), Candles::default());
    let (mut last, mut volatility) = (11_000_000_i64, 2_000.0);
    for i in 0..bars {
        volatility = (volatility * (1.0 + 0.05 * draw())).clamp(800.0, 6_000.0);
        let mut step = || (volatility * (draw() + draw())) as i64;
        let open = last + step() / 10;
        let close = open + step() - (open - 11_000_000) / 2_000;
        let high = open.max(close) + step().abs() / 2;
        let low = open.min(close) - step().abs() / 2;
        let spread = 500 + step().rem_euclid(1_001);
        last = close;
        for (side, shift) in [(&mut bid, 0), (&mut ask, spread)] {
            side.time.push(1_420_416_000_000_000_000 + i as i64 * 300_000_000_000);
            side.open.push(price(open + shift));
            side.high.push(price(high + shift));
            side.low.push(price(low + shift));
            side.close.push(price(close + shift));
            side.volume.push(1.0);
        }
    }
    Market { bid, ask }
}

impl Market {
    fn write(&self, root: &Path, symbol: &str) {
        self.bid.write(&root.join(format!("{symbol}/{symbol}_M5_BID.parquet")));
        self.ask.write(&root.join(format!("{symbol}/{symbol}_M5_ASK.parquet")));
    }
}

/// One row of a leaderboard.
struct Setting {
    batch: RecordBatch,
    row: usize,
}

impl Setting {
    fn axis(&self, name: &str) -> f64 {
        self.number(&format!("param.{name}"))
    }

    fn number(&self, name: &str) -> f64 {
        let column = self.batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
        assert!(column.is_valid(self.row), "{name} is null");
        if let Some(values) = column.as_primitive_opt::<Float64Type>() {
            values.value(self.row)
        } else if let Some(values) = column.as_primitive_opt::<Int64Type>() {
            values.value(self.row) as f64
        } else {
            column.as_primitive::<UInt64Type>().value(self.row) as f64
        }
    }

    fn check(&self, expected: Tally, sum: f64, expected_sum: f64) {
        let trial = self.number("trial");
        assert!(expected.trades > 0, "a setting that never trades proves nothing");
        let counted = (self.number("total_trades"), self.number("wins"));
        assert_eq!(counted, (f64::from(expected.trades), f64::from(expected.wins)), "trial {trial}");
        let difference = (sum - expected_sum).abs();
        assert!(difference <= 1e-9 * expected_sum.abs(), "trial {trial}: {sum} against {expected_sum}");
    }
}

struct Quiet;

impl Observer for Quiet {}

/// Runs a grid of the repository on the bars below `bars`, and reads its leaderboard.
fn sweep(grid: &str, set: &[&str], bars: &Path, scratch: &Path) -> Vec<Setting> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = Sources {
        parquet_root: bars.to_owned(),
        costs_file: repository.join("configs/execution_costs.yaml"),
        specs_file: repository.join("configs/symbol_specs.yaml"),
        ..support::sources(scratch)
    };
    let set: Vec<String> = set.iter().map(|&text| text.to_owned()).collect();
    let experiment = Experiment::read(&repository.join(format!("grids/{grid}.yaml")), &set);
    let experiment = experiment.unwrap_or_else(|error| panic!("{error}"));
    let out = scratch.join("out");
    let options =
        Options { set, out: Some(out), threads: 2, memory: Some(1 << 30), fresh: false, shard: None, reuse: None };
    let sweep = Sweep::open(experiment, &options, &sources).unwrap_or_else(|error| panic!("{error}"));
    let report = sweep.run(&AtomicBool::new(false), &Quiet).unwrap_or_else(|error| panic!("{error}"));
    rows(report.folder.join("leaderboard.parquet"))
}

fn rows(leaderboard: PathBuf) -> Vec<Setting> {
    let file = File::open(leaderboard).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    reader
        .flat_map(|batch| {
            let batch = batch.unwrap();
            (0..batch.num_rows()).map(move |row| Setting { batch: batch.clone(), row })
        })
        .collect()
}
