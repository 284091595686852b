//! Columns of 75,000 bars (a year of M5), one thread.
//!
//! Inside the clock: `columns/*` one column from bars, its intermediate steps included, allocation and freeing too;
//! `mapping` a D1 average read on M5 bars; `cache/hit` one look-up of a column already there; `guards/*` late guards at
//! 1,000 bars, nothing remembered. Outside: making the bars. The bars come from a fixed seed. Before timing, each
//! column is checked against a direct form.

#![allow(missing_docs, reason = "criterion's macros generate undocumented items")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::data::{Bars, MarketData, Quotes};
use engine::indicators::{
    ClusterSettings, ColumnCache, ColumnKey, GarchKey, MtfOptions, Series, Unlimited, cluster_state, compute,
    garch_sigma_local, kalman_gains, kalman_garch_z_local, returns,
};
use engine::units::{MINUTE_NS, Timeframe};

const BARS: usize = 75_000;

/// SplitMix64: uniform in [−1, 1).
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

fn bars(timeframe: Timeframe, len: usize) -> Bars {
    let mut draws = Draws(7);
    let mut price = 1.1;
    let mut quotes = [const { Vec::new() }; 4];
    for _ in 0..len {
        let open = price;
        price += 2e-4 * draws.next();
        let (top, bottom) = (1e-4 * draws.next().abs(), 1e-4 * draws.next().abs());
        for (series, value) in quotes.iter_mut().zip([open, open.max(price) + top, open.min(price) - bottom, price]) {
            series.push(value);
        }
    }
    let [open, high, low, close] = quotes.map(Into::into);
    let bid = Quotes { open, high, low, close, volume: vec![0.0; len].into() };
    let step = timeframe.minutes() * MINUTE_NS;
    let open_time: Vec<i64> = (0_i64..).take(len).map(|n| n * step).collect();
    Bars { timeframe, open_time: open_time.into(), ask: bid.clone(), bid }
}

fn market() -> MarketData {
    MarketData {
        symbol: "BENCH".to_owned(),
        bars: bars(Timeframe::M5, BARS),
        first_tradable: 500,
        others: vec![bars(Timeframe::D1, BARS / 288)],
    }
}

fn garch() -> GarchKey {
    GarchKey {
        alpha: 0.1.into(),
        beta: 0.8.into(),
        omega: None,
        log_returns: true,
        scale: 100.0.into(),
        sigma_floor: 1e-6.into(),
    }
}

fn columns(c: &mut Criterion) {
    let market = market();
    let options = MtfOptions::default();
    let (r, q) = (0.5.into(), 0.1.into());
    let mut group = c.benchmark_group("columns");
    group.throughput(Throughput::Elements(BARS as u64));
    for series in [
        Series::Sma(100),
        Series::Ema(100),
        Series::Atr(14),
        Series::RollingSd(100),
        Series::ZEma { window: 100, ema: 30 },
        Series::KalmanMean { r, q },
        Series::KalmanZ { window: 100, r, q },
        Series::GarchSigma { garch: garch(), min_periods: 50 },
        Series::KalmanGarchZ { r, q, garch: garch(), min_periods: 50 },
        Series::Rsi(14),
        Series::Adx(14),
        Series::HighestHigh(100),
    ] {
        let key = ColumnKey::bid(Timeframe::M5, series);
        if let Series::RollingSd(window) = series {
            let found = compute(&key, &market, &options).unwrap_or_default();
            check_deviation(&market, &found, window as usize);
        }
        group.bench_function(series.to_string(), |b| b.iter(|| compute(black_box(&key), &market, &options)));
    }
    group.finish();

    let mut group = c.benchmark_group("mapping");
    group.throughput(Throughput::Elements(BARS as u64));
    let key = ColumnKey::bid(Timeframe::D1, Series::Ema(20));
    group.bench_function("ema(20)@D1 on M5", |b| b.iter(|| compute(black_box(&key), &market, &options)));
    group.finish();
}

/// Two passes over the last window: the running update has not drifted.
fn check_deviation(market: &MarketData, found: &[f64], window: usize) {
    assert_eq!(found.len(), BARS);
    let tail = &market.bars.bid.close[BARS - window..];
    let mean = tail.iter().sum::<f64>() / window as f64;
    let squares: f64 = tail.iter().map(|x| (x - mean) * (x - mean)).sum();
    let direct = (squares / (window - 1) as f64).sqrt();
    assert!((found[BARS - 1] - direct).abs() < 1e-10, "{} against {direct}", found[BARS - 1]);
}

fn cache(c: &mut Criterion) {
    let cache = ColumnCache::new(Arc::new(market()), MtfOptions::default(), Arc::new(Unlimited));
    let keys: Vec<ColumnKey> = (2..60).map(|n| ColumnKey::bid(Timeframe::M5, Series::Ema(n))).collect();
    assert_eq!(cache.get_all(&keys).map(|columns| columns.len()), Ok(58));
    c.bench_function("cache/hit among 58", |b| b.iter(|| cache.get(black_box(&keys[31]))));
    assert_eq!(cache.stats().computed, 58);
}

fn guards(c: &mut Criterion) {
    let market = market();
    let closes = &market.bars.bid.close;
    let moves = returns(closes, true, 100.0);
    let gains = kalman_gains(0.5, 0.1, 500);
    let at: Vec<usize> = (0..1_000).map(|n| 1_000 + n * 70).collect();
    let z = |i| kalman_garch_z_local(closes, &moves, &gains, i, 500, &garch(), 50);
    assert!(at.iter().all(|&i| z(i).is_finite()));
    let mut group = c.benchmark_group("guards");
    group.throughput(Throughput::Elements(at.len() as u64));
    group.sample_size(20);
    group.bench_function("local z, lookback 500", |b| b.iter(|| at.iter().map(|&i| z(i)).sum::<f64>()));
    let settings = ClusterSettings { window: 300, k: 3, min_points: 60, log_transform: true };
    let mut series = Vec::new();
    group.bench_function("cluster of 300, lookback 500", |b| {
        b.iter(|| {
            for &i in &at {
                garch_sigma_local(&moves, i, 500, &garch(), 50, &mut series);
                black_box(cluster_state(&series, &settings));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, columns, cache, guards);
criterion_main!(benches);
