//! One backtest of `mean_reversion_z_score` on 30,000 generated M5 bars, metrics included, one thread.
//!
//! Inside the clock: `cold/*` everything one setting costs once the bars are loaded: strategy and terms from the
//! configuration, its columns from the bars, late guards, the walk, the metrics; freeing included. `warm/*` the same with
//! columns and guard answers already there, as the later trials of a sweep find them. `load` opening the inputs: files
//! hashed, the bar store mapped, window and warm-up cut. Outside: generating bars.
//!
//! Before timing, scenario 1 is worked out again from the bars by a direct form that shares nothing with the engine, and
//! every scenario's metrics from its trades and its equity.

#![allow(missing_docs, reason = "criterion's macros generate undocumented items")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot run should stop")]

#[path = "../tests/support/metrics.rs"]
mod metrics;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::backtest::walk::{EquityPoint, Nobody, Observer};
use engine::backtest::{Environment, Prepared, RunConfig};
use engine::data::{Bars, Sources};
use engine::indicators::Unlimited;
use engine::metrics::Metric;
use engine::strategy::find;
use serde_json::{Value, json};

const BARS: usize = 30_000;
const WARMUP: usize = 500;

fn document(parameters: &Value) -> Value {
    json!({
        "strategy_name": "mean_reversion_z_score",
        "symbol": "EURUSD",
        "start_date": "2020-01-06",
        "end_date": "2030-01-01",
        "warmup_bars": WARMUP,
        "data": {"source": "synthetic", "seed": 7, "bars": BARS + WARMUP},
        "timeframes": {"primary": "M5", "additional": ["H1"]},
        "account": {"initial_balance": 100_000.0, "account_currency": "USD", "risk_per_trade": 100.0},
        "strategy_parameters": parameters,
    })
}

/// Name, parameters.
fn settings() -> [(&'static str, Value); 6] {
    let kalman = |scenario: u8, more: Value| {
        let mut parameters = json!({
            "enabled_scenarios": [scenario], "htf_tf": "NONE", "htf_filter": "none",
            "extra_htf_tf": "H1", "extra_htf_filter": "above", "extra_htf_ema": 50,
            "atr_mult": 1.8, "b_b_length": 36, "std_factor": 1.4, "window_length": 150,
            "z_score_long": -0.8, "z_score_short": 0.8, "kalman_r": 0.3, "kalman_q": 0.1, "tp_min_distance": 0.0,
        });
        for (key, value) in more.as_object().unwrap() {
            parameters[key] = value.clone();
        }
        parameters
    };
    let garch = json!({"garch_alpha": 0.1, "garch_beta": 0.8, "z_score_long": -0.2, "z_score_short": 0.2});
    let mut local = garch.clone();
    local["local_z_lookback"] = json!(500);
    [
        ("scenario 1", json!({"enabled_scenarios": [1], "z_score_long": -1.8, "z_score_short": 1.8})),
        ("scenario 2 above H1", kalman(2, json!({}))),
        ("scenario 4", kalman(4, garch)),
        ("scenario 4, local z", kalman(4, local)),
        ("scenario 5", kalman(5, json!({"cluster_hysteresis_bars": 2}))),
        ("scenario 6", kalman(6, json!({"scenario6_timeframes": ["PRIMARY", "H1"], "scenario6_mode": "any"}))),
    ]
}

fn parse(parameters: &Value) -> RunConfig {
    RunConfig::parse(&document(parameters), true).unwrap_or_else(|violations| panic!("{violations:?}")).config
}

fn sources(cache: &Path) -> Sources {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    Sources {
        parquet_root: cache.to_owned(),
        news_file: cache.join("none"),
        costs_file: configs.join("execution_costs.yaml"),
        specs_file: configs.join("symbol_specs.yaml"),
        cache_dir: cache.to_owned(),
        env_overrides: Vec::new(),
        memory: Vec::new(),
    }
}

fn open(config: &RunConfig, sources: &Sources) -> Environment {
    let family = find(&config.strategy_name).unwrap();
    let timeframes = family.build(&config.strategy_parameters, &config.build_context()).unwrap().timeframes();
    Environment::open(config, &timeframes, sources, Arc::new(Unlimited)).unwrap()
}

/// What a run earned; an observer would take its time.
fn net(prepared: &Prepared) -> f64 {
    let outcome = prepared.run(Vec::new(), &mut Nobody).unwrap();
    outcome.summary.values.get(Metric::ProfitNet).unwrap()
}

struct Curve(Vec<EquityPoint>);

impl Observer for Curve {
    fn equity(&mut self, point: EquityPoint) {
        self.0.push(point);
    }
}

fn check(prepared: &Prepared, config: &RunConfig) {
    let mut curve = Curve(Vec::new());
    let outcome = prepared.run(Vec::new(), &mut curve).unwrap();
    let walked = &outcome.walked;
    assert_eq!(walked.counters.bars, BARS as u64);
    assert!(walked.trades.len() >= 30, "{} trades", walked.trades.len());
    let closed: f64 = walked.trades.iter().map(|trade| trade.entry_fee + trade.exit_fee).sum();
    let facts = metrics::Facts {
        trades: &walked.trades,
        equity: &curve.0,
        counters: &walked.counters,
        initial_balance: config.account.initial_balance,
        risk: config.account.risk_per_trade,
        open_entry_fees: walked.ledger.fees_total() - closed,
    };
    metrics::assert_agree(&outcome.summary.values, &metrics::recompute(&facts), 1e-7);
}

/// Number of trades and sum of R multiples of scenario 1 with its defaults and z of ±1.8, without slippage, by the
/// definitions: EMA(30), deviation of the last 100 residuals in two passes, Wilder's ATR(14) of both sides, fills and
/// exits bar by bar.
fn direct(bars: &Bars) -> (usize, f64) {
    const BUFFER: f64 = 0.0001 * 0.5;
    let close = &bars.bid.close;
    let ema = average(close, 2.0 / 31.0);
    let residuals: Vec<f64> = close.iter().zip(&ema).map(|(x, mean)| x - mean).collect();
    let (atr_bid, atr_ask) = (true_range_average(&bars.bid), true_range_average(&bars.ask));
    let (mut trades, mut sum) = (0, 0.0);
    let mut open: Option<(f64, f64, f64, f64)> = None;
    for i in WARMUP..bars.len() {
        let entered = open.is_none();
        if entered {
            let window = &residuals[i - 99..=i];
            let mean = window.iter().sum::<f64>() / 100.0;
            let deviation = (window.iter().map(|e| (e - mean) * (e - mean)).sum::<f64>() / 99.0).sqrt();
            let z = residuals[i] / deviation;
            let short = (-1.0, bars.bid.close[i], bars.bid.high[i] + 2.0 * atr_ask[i], ema[i]);
            let long = (1.0, bars.ask.close[i], bars.bid.low[i] - 2.0 * atr_bid[i], ema[i]);
            open = if z >= 1.8 {
                Some(short)
            } else if z <= -1.8 {
                Some(long)
            } else {
                None
            };
            continue;
        }
        let Some((d, entry, stop, target)) = open else { continue };
        let side = if d > 0.0 { &bars.bid } else { &bars.ask };
        let (stopped, reached) = if d > 0.0 {
            (side.low[i] <= stop + BUFFER, side.high[i] >= target - BUFFER)
        } else {
            (side.high[i] >= stop - BUFFER, side.low[i] <= target + BUFFER)
        };
        // The worse of level and open for the stop, the better for the target.
        let exit = match (stopped, reached, d > 0.0) {
            (true, _, true) => stop.min(side.open[i]),
            (true, _, false) => stop.max(side.open[i]),
            (false, true, true) => target.max(side.open[i]),
            (false, true, false) => target.min(side.open[i]),
            (false, false, _) => continue,
        };
        trades += 1;
        sum += d * (exit - entry) / (entry - stop).abs();
        open = None;
    }
    (trades, sum)
}

fn average(values: &[f64], weight: f64) -> Vec<f64> {
    let mut last = values[0];
    values
        .iter()
        .map(|x| {
            last += weight * (x - last);
            last
        })
        .collect()
}

fn true_range_average(side: &engine::data::Quotes) -> Vec<f64> {
    let range = |i: usize| {
        let (high, low) = (side.high[i], side.low[i]);
        let before = if i == 0 { low } else { side.close[i - 1] };
        (high - low).max((high - before).abs()).max((low - before).abs())
    };
    let mut last = (0..14).map(range).sum::<f64>() / 14.0;
    (0..side.high.len())
        .map(|i| {
            if i >= 14 {
                last = (last * 13.0 + range(i)) / 14.0;
            }
            last
        })
        .collect()
}

fn check_directly(cache: &Path) {
    let [(_, parameters), ..] = settings();
    let mut document = document(&parameters);
    document["costs"] = json!({"enabled": false});
    // An order below the smallest lot would be refused, which the direct form does not know.
    document["account"]["risk_per_trade"] = json!(10_000.0);
    let config = RunConfig::parse(&document, true).unwrap().config;
    let environment = open(&config, &sources(cache));
    let prepared = environment.prepare(&config, 42).unwrap();
    let outcome = prepared.run(Vec::new(), &mut Nobody).unwrap();
    let (trades, sum) = direct(&prepared.market().data.bars);
    assert_eq!(outcome.walked.trades.len(), trades, "trades");
    let found = outcome.summary.values.get(Metric::AvgRStop).unwrap();
    let expected = sum / trades as f64;
    assert!((found - expected).abs() < 1e-9, "avg_r_stop {found}, directly {expected}");
}

fn backtest(c: &mut Criterion) {
    let cache = tempfile::tempdir().unwrap();
    check_directly(cache.path());
    let sources = sources(cache.path());
    let runs = settings().map(|(name, parameters)| {
        let config = parse(&parameters);
        let environment = open(&config, &sources);
        check(&environment.prepare(&config, 42).unwrap(), &config);
        (name, config, environment)
    });

    let mut group = c.benchmark_group("cold");
    group.throughput(Throughput::Elements(BARS as u64));
    group.sample_size(20);
    for (name, config, environment) in &runs {
        let market = environment.market(1.0);
        let forget = || {
            market.guards.clear();
            market.columns.evict(usize::MAX);
        };
        forget();
        let before = market.columns.stats().computed;
        net(&environment.prepare(config, 42).unwrap());
        assert!(market.columns.stats().computed > before, "columns were kept: this would not be cold");
        group.bench_function(*name, |b| {
            b.iter(|| {
                forget();
                net(&environment.prepare(black_box(config), 42).unwrap())
            });
        });
    }
    group.finish();

    let mut group = c.benchmark_group("warm");
    group.throughput(Throughput::Elements(BARS as u64));
    for (name, config, environment) in &runs {
        let prepared = environment.prepare(config, 42).unwrap();
        net(&prepared);
        group.bench_function(*name, |b| b.iter(|| net(black_box(&prepared))));
    }
    group.finish();

    let config = &runs[0].1;
    c.bench_function("load/30,500 M5 and H1 bars from the store", |b| b.iter(|| open(black_box(config), &sources)));
}

criterion_group!(benches, backtest);
criterion_main!(benches);
