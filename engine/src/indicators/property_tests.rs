//! Properties that hold for every column on any data: no look at the future, one computation per key, the same bits
//! whatever is remembered.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use proptest::prelude::*;

use super::*;
use crate::data::{Bars, MarketData, Quotes};
use crate::error::Error;
use crate::rules::{ClusterFeature, Comparison, GuardCache, LateGuard};
use crate::units::{Bits, MINUTE_NS, PriceSide, Timeframe};

/// A random walk on a coarse lattice, so that equal closes and flat bars occur; `holes` primary bars are missing.
fn walk(steps: &[(i8, u8, u8)], timeframe: Timeframe, start: i64, skip: usize) -> Bars {
    let mut price = 200.0;
    let (mut open_time, mut open, mut high, mut low, mut close) = (vec![], vec![], vec![], vec![], vec![]);
    for (n, &(step, up, down)) in steps.iter().enumerate() {
        let from = price;
        price += f64::from(step) * 0.25;
        if skip > 0 && n % skip == skip - 1 {
            continue;
        }
        open_time.push(start + i64::try_from(n).unwrap() * timeframe.duration_ns());
        open.push(from);
        high.push(from.max(price) + f64::from(up) * 0.25);
        low.push(from.min(price) - f64::from(down) * 0.25);
        close.push(price);
    }
    let volume = vec![1.0; open.len()];
    let bid =
        Quotes { open: open.into(), high: high.into(), low: low.into(), close: close.into(), volume: volume.into() };
    Bars { timeframe, open_time: open_time.into(), ask: bid.clone(), bid }
}

fn data(steps: &[(i8, u8, u8)], skip: usize) -> MarketData {
    let hours: Vec<(i8, u8, u8)> = steps.iter().step_by(3).copied().collect();
    MarketData {
        symbol: "TEST".to_owned(),
        bars: walk(steps, Timeframe::M15, 0, skip),
        first_tradable: 0,
        others: vec![
            walk(steps, Timeframe::M5, 0, 0),
            // Starts earlier: a warm-up history of its own.
            walk(&hours, Timeframe::H1, -20 * 60 * MINUTE_NS, 0),
        ],
    }
}

/// Bars of every timeframe that have ended at the close of primary bar `i`.
fn cut(market: &MarketData, i: usize) -> MarketData {
    let now = market.bars.close_instant(i);
    let others = market.others.iter().map(|bars| {
        let ended = (0..bars.len()).take_while(|&k| bars.close_instant(k) <= now).count();
        bars.slice(0, ended)
    });
    MarketData { bars: market.bars.slice(0, i + 1), others: others.collect(), ..market.clone() }
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

fn every_series() -> Vec<Series> {
    let (r, q, garch) = (Bits::new(0.5), Bits::new(0.1), garch());
    let simple = GarchKey { log_returns: false, omega: Some(0.01.into()), ..garch };
    vec![
        Series::Open,
        Series::High,
        Series::Low,
        Series::Close,
        Series::Sma(3),
        Series::Ema(4),
        Series::Atr(3),
        Series::RollingMean(5),
        Series::RollingSd(3),
        Series::ZRolling { window: 3 },
        Series::ZEma { window: 3, ema: 4 },
        Series::KalmanMean { r, q },
        Series::KalmanZ { window: 3, r, q },
        Series::Return { log: true, scale: 100.0.into() },
        Series::GarchSigma { garch, min_periods: 3 },
        Series::GarchSigma { garch: simple, min_periods: 0 },
        Series::KalmanGarchZ { r, q, garch, min_periods: 3 },
        Series::Rsi(3),
        Series::MacdLine { fast: 2, slow: 4 },
        Series::MacdSignal { fast: 2, slow: 4, signal: 3 },
        Series::Roc(3),
        Series::DiPlus(3),
        Series::DiMinus(3),
        Series::Adx(3),
        Series::Choppiness(3),
        Series::ChannelHigh(3),
        Series::ChannelLow(3),
        Series::HighestHigh(3),
        Series::LowestLow(3),
    ]
}

fn every_key() -> Vec<ColumnKey> {
    let mut keys = Vec::new();
    for series in every_series() {
        for timeframe in [Timeframe::M15, Timeframe::M5, Timeframe::H1] {
            for method in [HtfMethod::Native, HtfMethod::Stepwise] {
                keys.push(ColumnKey { method, ..ColumnKey::bid(timeframe, series) });
            }
        }
    }
    keys
}

fn every_option() -> Vec<MtfOptions> {
    vec![
        MtfOptions::default(),
        MtfOptions { visibility: Visibility::Open, close_stamped: Vec::new(), stale_limit: Some(StaleLimit::Bars(2)) },
    ]
}

fn bits(values: &[f64]) -> Vec<u64> {
    // All NaN are one: which operand's payload survives an addition is not specified.
    values.iter().map(|v| if v.is_nan() { u64::MAX } else { v.to_bits() }).collect()
}

fn steps() -> impl Strategy<Value = Vec<(i8, u8, u8)>> {
    prop::collection::vec((-3_i8..=3, 0_u8..3, 0_u8..3), 2..70)
}

fn guards() -> Vec<LateGuard> {
    let cluster = |feature, hysteresis_bars| LateGuard::VolCluster {
        feature,
        window: 10,
        k: 3,
        min_points: 4,
        log_transform: true,
        hysteresis_bars,
        allowed: vec!["low".to_owned(), "mid".to_owned()],
    };
    let local = ClusterFeature::LocalGarch { garch: garch(), min_periods: 3, lookback: 15 };
    vec![
        LateGuard::LocalKalmanGarchZ {
            r: 0.5.into(),
            q: 0.1.into(),
            garch: garch(),
            min_periods: 3,
            lookback: 12,
            comparison: Comparison::LessOrEqual,
            threshold: (-0.1).into(),
        },
        cluster(local, 0),
        cluster(local, 3),
        cluster(ClusterFeature::Atr { length: 3 }, 0),
    ]
}

fn cache(market: MarketData, budget: impl Budget + 'static) -> ColumnCache {
    ColumnCache::new(Arc::new(market), MtfOptions::default(), Arc::new(budget))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Cutting everything after a bar, or replacing it, leaves the values up to the bar alone.
    #[test]
    fn prop_the_future_does_not_reach_back(steps in steps(), other in steps(), at in 0.0..1.0_f64, skip in 0_usize..9) {
        let market = data(&steps, skip);
        let n = market.bars.len();
        prop_assume!(n > 0);
        let i = ((n as f64 * at) as usize).min(n - 1);
        let past = cut(&market, i);
        // The same steps up to the bar, others after it.
        let kept = steps.iter().enumerate().map(|(s, step)| {
            let ended = i64::try_from(s).unwrap() * Timeframe::M15.duration_ns() <= market.bars.open_time[i];
            if ended { *step } else { other[s % other.len()] }
        });
        let mut changed = market.clone();
        changed.bars = walk(&kept.collect::<Vec<_>>(), Timeframe::M15, 0, skip);
        for options in every_option() {
            for key in every_key() {
                let whole = compute(&key, &market, &options).unwrap();
                prop_assert_eq!(whole.len(), n);
                let before = compute(&key, &past, &options).unwrap();
                prop_assert_eq!(bits(&before), bits(&whole[..=i]), "{} cut at {}", key, i);
                if key.timeframe == Timeframe::M15 {
                    let after = compute(&key, &changed, &options).unwrap();
                    prop_assert_eq!(bits(&after[..=i]), bits(&whole[..=i]), "{} changed after {}", key, i);
                }
            }
        }
        let whole = GuardCache::new(Arc::new(cache(market, Unlimited)));
        let before = GuardCache::new(Arc::new(cache(past, Unlimited)));
        for guard in guards() {
            prop_assert_eq!(
                whole.evaluator(&guard).unwrap().holds(i),
                before.evaluator(&guard).unwrap().holds(i),
                "{:?} at {}", guard, i
            );
        }
    }

    /// Nothing is defined before its first index, so a warm-up that reaches it is never too generous.
    #[test]
    fn prop_nothing_is_defined_before_its_first_index(steps in steps()) {
        let market = data(&steps, 0);
        for series in every_series() {
            let values = compute(&ColumnKey::bid(Timeframe::M15, series), &market, &MtfOptions::default()).unwrap();
            let first = first_index(&series).min(values.len());
            prop_assert!(values[..first].iter().all(|v| v.is_nan()), "{}", series);
        }
    }

    /// The cache gives the bits of a fresh computation, with any memory.
    #[test]
    fn prop_remembered_columns_have_the_same_bits(steps in steps(), columns in 0_usize..6) {
        let market = data(&steps, 0);
        let cap = columns * market.bars.len() * 8;
        let cached = cache(market.clone(), Capped::new(cap));
        for key in every_key().iter().chain(every_key().iter().rev()) {
            let fresh = compute(key, &market, &MtfOptions::default()).unwrap();
            // The stepwise form of the primary timeframe is the plain one.
            prop_assert_eq!(bits(&cached.get(key).unwrap()), bits(&fresh), "{}", key);
        }
    }

    /// Remembered answers of late guards are those of a fresh evaluator.
    #[test]
    fn prop_remembered_guards_answer_the_same(steps in steps()) {
        let market = data(&steps, 0);
        let n = market.bars.len();
        let shared = GuardCache::new(Arc::new(cache(market.clone(), Unlimited)));
        let forgetful = GuardCache::new(Arc::new(cache(market, Capped::new(0))));
        for guard in guards() {
            let remembered = shared.evaluator(&guard).unwrap();
            let fresh = forgetful.evaluator(&guard).unwrap();
            for i in (0..n).chain(0..n) {
                prop_assert_eq!(remembered.holds(i), fresh.holds(i), "{:?} at {}", guard, i);
            }
        }
    }
}

/// Grants up to a cap and knows its highest use.
struct Capped {
    cap: usize,
    used: AtomicUsize,
    peak: Arc<AtomicUsize>,
}

impl Capped {
    fn new(cap: usize) -> Self {
        Self { cap, used: AtomicUsize::new(0), peak: Arc::default() }
    }
}

impl Budget for Capped {
    fn reserve(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.cap);
        match self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits) {
            Ok(before) => {
                self.peak.fetch_max(before + bytes, Ordering::SeqCst);
                true
            }
            Err(_) => false,
        }
    }

    fn release(&self, bytes: usize) {
        assert!(self.used.fetch_sub(bytes, Ordering::SeqCst) >= bytes, "more released than reserved");
    }
}

fn long_walk(n: i32) -> Vec<(i8, u8, u8)> {
    (0..n).map(|i| (i8::try_from((i * i * 7 + i * 3) % 7 - 3).unwrap(), 1, 1)).collect()
}

#[test]
fn a_column_is_computed_once_however_many_threads_ask() {
    let keys: Vec<ColumnKey> = (2..12).map(|n| ColumnKey::bid(Timeframe::M15, Series::RollingSd(n))).collect();
    let cache = cache(data(&long_walk(3000), 0), Unlimited);
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (cache, keys, start) = (&cache, &keys, &start);
            scope.spawn(move || {
                start.wait();
                for n in 0..keys.len() {
                    // Half of the threads start elsewhere.
                    let key = &keys[(n + thread % 2 * 5) % keys.len()];
                    assert_eq!(cache.get(key).unwrap().len(), 3000);
                }
            });
        }
    });
    assert_eq!(cache.stats(), CacheStats { computed: 10, evicted: 0, unbooked: 0, kept: 10 });
}

#[test]
fn steps_on_the_way_are_shared() {
    let cache = cache(data(&long_walk(300), 0), Unlimited);
    let (r, q) = (Bits::new(0.5), Bits::new(0.1));
    for window in [5, 10, 15] {
        cache.get(&ColumnKey::bid(Timeframe::M15, Series::KalmanZ { window, r, q })).unwrap();
        cache
            .get(&ColumnKey::bid(Timeframe::M15, Series::KalmanGarchZ { r, q, garch: garch(), min_periods: window }))
            .unwrap();
    }
    // Three of each, one Kalman mean, one return, one deviation.
    assert_eq!(cache.stats().computed, 9);
    // The middle band is the moving average.
    let sma = cache.get(&ColumnKey::bid(Timeframe::M15, Series::Sma(5))).unwrap();
    let mid = cache.get(&ColumnKey::bid(Timeframe::M15, Series::RollingMean(5))).unwrap();
    assert!(std::ptr::eq(sma.as_ptr(), mid.as_ptr()));
}

#[test]
fn prices_of_the_primary_bars_are_not_copied() {
    let market = data(&long_walk(300), 0);
    let cache = cache(market.clone(), Capped::new(0));
    let close = cache.get(&ColumnKey::bid(Timeframe::M15, Series::Close)).unwrap();
    assert!(std::ptr::eq(close.as_ptr(), market.bars.bid.close.as_ptr()));
    assert_eq!(cache.stats(), CacheStats::default());
}

#[test]
fn the_least_recently_used_column_makes_room_and_one_in_use_stays() {
    let key = |n| ColumnKey::bid(Timeframe::M15, Series::Ema(n));
    let budget = Capped::new(2 * (300 * 8 + Zones::bytes_for(300)));
    let peak = Arc::clone(&budget.peak);
    let cache = cache(data(&long_walk(300), 0), budget);
    let held = cache.get(&key(1)).unwrap();
    cache.get(&key(2)).unwrap();
    cache.get(&key(3)).unwrap();
    // 1 is older, but held: 2 went.
    assert_eq!(cache.stats(), CacheStats { computed: 3, evicted: 1, unbooked: 0, kept: 2 });
    cache.get(&key(1)).unwrap();
    assert_eq!(cache.stats().computed, 3);
    let third = cache.get(&key(3)).unwrap();
    // Both are held: the next is handed out, but not kept.
    let fourth = cache.get(&key(4)).unwrap();
    assert_eq!(cache.stats(), CacheStats { computed: 4, evicted: 1, unbooked: 1, kept: 2 });
    assert_eq!(fourth.len(), 300);
    drop((held, third, fourth));
    assert_eq!(cache.evict(1), 300 * 8 + Zones::bytes_for(300));
    assert_eq!(cache.evict(usize::MAX), 300 * 8 + Zones::bytes_for(300));
    assert_eq!(cache.stats().kept, 0);
    assert_eq!(peak.load(Ordering::SeqCst), 2 * (300 * 8 + Zones::bytes_for(300)));
}

#[test]
fn many_threads_and_little_memory_keep_the_cap() {
    let budget = Arc::new(Capped::new(5 * (500 * 8 + Zones::bytes_for(500))));
    let market = data(&long_walk(500), 0);
    let cache =
        ColumnCache::new(Arc::new(market.clone()), MtfOptions::default(), Arc::clone(&budget) as Arc<dyn Budget>);
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let (cache, market) = (&cache, &market);
            scope.spawn(move || {
                for n in 0..60 {
                    let key = ColumnKey::bid(Timeframe::M15, Series::Ema(1 + (n * 7 + thread * 3) % 13));
                    let fresh = compute(&key, market, &MtfOptions::default()).unwrap();
                    assert_eq!(bits(&cache.get(&key).unwrap()), bits(&fresh));
                }
            });
        }
    });
    assert!(budget.peak.load(Ordering::SeqCst) <= budget.cap);
    drop(cache);
    assert_eq!(budget.used.load(Ordering::SeqCst), 0, "everything is given back");
}

#[test]
fn guard_answers_use_memory_where_bars_are_looked_at_and_give_it_back() {
    let budget = Arc::new(Capped::new(1 << 20));
    let columns = Arc::new(ColumnCache::new(
        Arc::new(data(&long_walk(3000), 0)),
        MtfOptions::default(),
        Arc::clone(&budget) as Arc<dyn Budget>,
    ));
    let guards_of = GuardCache::new(Arc::clone(&columns));
    let guard = &guards()[1];
    let evaluator = guards_of.evaluator(guard).unwrap();
    let before = budget.used.load(Ordering::SeqCst);
    let answers: Vec<bool> = (1000..1010).map(|i| evaluator.holds(i)).collect();
    let one_page = budget.used.load(Ordering::SeqCst) - before;
    assert!(one_page > 0 && one_page <= 4096 + 64, "{one_page}");
    drop(evaluator);
    assert_eq!(guards_of.clear(), one_page);
    assert_eq!(budget.used.load(Ordering::SeqCst), before);
    let again = guards_of.evaluator(guard).unwrap();
    assert_eq!((1000..1010).map(|i| again.holds(i)).collect::<Vec<_>>(), answers);
}

#[test]
fn guard_answers_push_out_columns_nobody_holds_and_then_answers_nobody_asks_for() {
    // Two columns of the guard, and one more.
    let column = 3000 * 8 + Zones::bytes_for(3000);
    let budget = Arc::new(Capped::new(3 * column));
    let columns = Arc::new(ColumnCache::new(
        Arc::new(data(&long_walk(3000), 0)),
        MtfOptions::default(),
        Arc::clone(&budget) as Arc<dyn Budget>,
    ));
    for n in 1..4 {
        columns.get(&ColumnKey::bid(Timeframe::M15, Series::Ema(n))).unwrap();
    }
    let guards_of = GuardCache::new(Arc::clone(&columns));
    let evaluator = guards_of.evaluator(&guards()[0]).unwrap();
    assert_eq!(columns.stats().evicted, 1, "the returns replaced one column");
    evaluator.holds(100);
    assert_eq!(columns.stats().evicted, 2, "a page replaced another");
    // All columns are held, so the next is unbooked: answers nobody asks for go when a guard is next prepared.
    drop(evaluator);
    let held: Vec<Column> =
        (5..8).map(|n| columns.get(&ColumnKey::bid(Timeframe::M15, Series::Ema(n))).unwrap()).collect();
    assert_eq!(columns.stats().unbooked, 1);
    let page = budget.used.load(Ordering::SeqCst) - 2 * column;
    assert!(page > 0 && page < column, "{page}");
    let evaluator = guards_of.evaluator(&guards()[3]).unwrap();
    assert_eq!(budget.used.load(Ordering::SeqCst), 2 * column + column, "the page made room for the range");
    drop((held, evaluator));
}

#[test]
fn a_timeframe_that_is_not_loaded_is_an_error() {
    let cache = cache(data(&long_walk(30), 0), Unlimited);
    let key = ColumnKey::bid(Timeframe::D1, Series::Ema(5));
    for result in [cache.get(&key).map(|column| column.to_vec()), compute(&key, cache.market(), cache.options())] {
        assert!(matches!(&result, Err(Error::IndicatorNotAvailable { timeframe: Timeframe::D1, .. })), "{result:?}");
    }
    assert_eq!(cache.stats().kept, 0);
}

#[test]
fn warm_up_is_checked_against_the_column_that_needs_most() {
    let keys = [
        ColumnKey::bid(Timeframe::M5, Series::ZRolling { window: 51 }),
        ColumnKey::bid(Timeframe::D1, Series::RollingMean(101)),
        ColumnKey::bid(Timeframe::M5, Series::Ema(1000)),
    ];
    assert_eq!(warmup_needed(&keys, Timeframe::M5), 101);
    assert_eq!(check_warmup(&keys, Timeframe::M5, 101), Ok(()));
    assert_eq!(check_warmup(&keys[..1], Timeframe::M5, 100), Ok(()));
    assert_eq!(
        check_warmup(&keys, Timeframe::M5, 100),
        Err(Error::WarmupTooShort {
            column: "rolling_mean(101)@D1:bid".to_owned(),
            timeframe: Timeframe::D1,
            first_index: 100,
            warmup_bars: 100,
            needed: 101,
        })
    );
    assert_eq!(check_warmup(&[], Timeframe::M5, 0), Ok(()));
}

/// The table of the data contract, §10, and of the indicator specification, §4.1: H1 read from M5.
#[test]
fn visible_hours_are_those_of_the_specification() {
    let minutes = [25, 50, 55, 60, 115];
    let flat = |n: usize| Quotes {
        open: vec![1.0; n].into(),
        high: vec![1.0; n].into(),
        low: vec![1.0; n].into(),
        close: vec![1.0; n].into(),
        volume: vec![1.0; n].into(),
    };
    let bars = |timeframe, minutes: &[i64]| Bars {
        timeframe,
        open_time: minutes.iter().map(|m| m * MINUTE_NS).collect::<Vec<_>>().into(),
        bid: flat(minutes.len()),
        ask: flat(minutes.len()),
    };
    let primary = bars(Timeframe::M5, &minutes);
    let hours = bars(Timeframe::H1, &[0, 60, 120]);
    let close = MtfOptions::default();
    assert_eq!(visible_bars(&primary, &hours, &close), [NO_BAR, NO_BAR, 0, 0, 1]);
    let open = MtfOptions { visibility: Visibility::Open, ..close.clone() };
    assert_eq!(visible_bars(&primary, &hours, &open), [NO_BAR, NO_BAR, NO_BAR, 0, 0]);
    // Close stamps show each bar at its own stamp.
    let stamped = MtfOptions { close_stamped: vec![Timeframe::H1], ..close.clone() };
    assert_eq!(visible_bars(&primary, &hours, &stamped), [0, 0, 1, 1, 2]);
    // Visible since the third bar; one bar later is still fresh, two are not.
    let missing = bars(Timeframe::H1, &[0]);
    let stale = |limit| MtfOptions { stale_limit: Some(limit), ..close.clone() };
    assert_eq!(visible_bars(&primary, &missing, &stale(StaleLimit::Bars(1))), [NO_BAR, NO_BAR, 0, 0, NO_BAR]);
    assert_eq!(visible_bars(&primary, &missing, &stale(StaleLimit::from_bars(0))), [NO_BAR, NO_BAR, 0, 0, 0]);
    // A value is read at the visible bar, and is NaN where there is none.
    let market = MarketData { symbol: "TEST".to_owned(), bars: primary, first_tradable: 0, others: vec![hours] };
    let read = compute(&ColumnKey::new(Timeframe::H1, PriceSide::Ask, Series::Close), &market, &close).unwrap();
    assert_eq!(bits(&read), bits(&[f64::NAN, f64::NAN, 1.0, 1.0, 1.0]));
}
