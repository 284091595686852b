//! Every indicator against the vectors of the specification: values of the reference, NaN in the same places, within
//! 1e-10 absolute (closer where said).

#![allow(clippy::unwrap_used, reason = "helpers of tests: a wrong vector file must fail loudly")]

mod vectors;

use engine::data::{MarketData, Quotes};
use engine::indicators::{
    ColumnKey, GarchKey, HtfMethod, MtfOptions, NO_BAR, Series, StaleLimit, Visibility, compute, garch_sigma_local,
    kalman_gains, kalman_garch_z_local, kmeans, returns, visible_bars,
};
use engine::rules::{ClusterFeature, Comparison, GuardCache, LateGuard};
use engine::units::{Bits, PriceSide, Timeframe};
use std::sync::Arc;
use vectors::{Table, assert_close, bars, market, vectors};

/// Absolute, as the specification asks.
const TOLERANCE: f64 = 1e-10;

fn garch(alpha: f64, beta: f64, omega: Option<f64>, log_returns: bool) -> GarchKey {
    GarchKey {
        alpha: alpha.into(),
        beta: beta.into(),
        omega: omega.map(Bits::new),
        log_returns,
        scale: 100.0.into(),
        sigma_floor: 1e-6.into(),
    }
}

fn kalman_mean(r: f64, q: f64) -> Series {
    Series::KalmanMean { r: r.into(), q: q.into() }
}

fn kalman_z(window: u32, r: f64, q: f64) -> Series {
    Series::KalmanZ { window, r: r.into(), q: q.into() }
}

fn column(market: &MarketData, side: PriceSide, series: Series) -> Vec<f64> {
    compute(&ColumnKey::new(market.bars.timeframe, side, series), market, &MtfOptions::default()).unwrap()
}

fn bid(market: &MarketData, series: Series) -> Vec<f64> {
    column(market, PriceSide::Bid, series)
}

/// `mid + factor · sd`, as a strategy forms a band on read.
fn band(market: &MarketData, length: u32, factor: f64) -> Vec<f64> {
    let mid = bid(market, Series::RollingMean(length));
    let sd = bid(market, Series::RollingSd(length));
    mid.iter().zip(&sd).map(|(m, s)| m + factor * s).collect()
}

#[test]
fn core_indicators_agree_with_the_reference() {
    let Some(folder) = vectors("core_indicators") else { return };
    let market = market(bars(&folder.join("core_bars_m5.csv"), Timeframe::M5), Vec::new());
    let expected = Table::read(&folder.join("core_indicators.csv"));
    let check = |name: &str, found: Vec<f64>, tolerance: f64| {
        assert_close(name, &found, &expected.floats(name), tolerance);
    };
    let default = garch(0.05, 0.90, None, true);
    let a = garch(0.1, 0.76, None, true);
    // Whatever needs no logarithm has the digits of the reference.
    check("sma_20", bid(&market, Series::Sma(20)), 0.0);
    check("ema_18", bid(&market, Series::Ema(18)), 0.0);
    check("ema_30", bid(&market, Series::Ema(30)), 0.0);
    check("atr_14_bid", bid(&market, Series::Atr(14)), 0.0);
    check("atr_14_ask", column(&market, PriceSide::Ask, Series::Atr(14)), 0.0);
    check("bb_20_2_mid", bid(&market, Series::RollingMean(20)), 0.0);
    check("bb_20_2_upper", band(&market, 20, 2.0), 0.0);
    check("bb_20_2_lower", band(&market, 20, -2.0), 0.0);
    check("bb_48_1p5_mid", bid(&market, Series::RollingMean(48)), 0.0);
    check("bb_48_1p5_upper", band(&market, 48, 1.5), 0.0);
    check("bb_48_1p5_lower", band(&market, 48, -1.5), 0.0);
    check("zscore_rolling_20", bid(&market, Series::ZRolling { window: 20 }), 0.0);
    check("zscore_ema_w20_e18", bid(&market, Series::ZEma { window: 20, ema: 18 }), 0.0);
    check("zscore_ema_w100_e30", bid(&market, Series::ZEma { window: 100, ema: 30 }), 0.0);
    for (tag, r, q) in [("r0p01_q1", 0.01, 1.0), ("r0p546_q0p02", 0.546, 0.02)] {
        check(&format!("kalman_mean_{tag}"), bid(&market, kalman_mean(r, q)), 0.0);
        for window in [20, 100] {
            check(&format!("kalman_z_w{window}_{tag}"), bid(&market, kalman_z(window, r, q)), 0.0);
        }
    }
    let sigma = |garch, min_periods| bid(&market, Series::GarchSigma { garch, min_periods });
    check("garch_default", sigma(default, 50), TOLERANCE);
    check("garch_a", sigma(a, 20), TOLERANCE);
    check("garch_omega", sigma(garch(0.08, 0.85, Some(0.0002), true), 10), TOLERANCE);
    check("garch_simple", sigma(garch(0.1, 0.8, None, false), 30), 0.0);
    let z = |r: f64, q: f64, garch, min_periods| {
        bid(&market, Series::KalmanGarchZ { r: r.into(), q: q.into(), garch, min_periods })
    };
    check("kgz_default", z(0.01, 1.0, default, 50), TOLERANCE);
    check("kgz_a", z(0.546, 0.02, a, 20), TOLERANCE);

    let closes = bid(&market, Series::Close);
    let moves = returns(&closes, true, 100.0);
    let local = |r: f64, q: f64, lookback: u32, key: &GarchKey, min_periods: u32| -> Vec<f64> {
        let gains = kalman_gains(r, q, lookback as usize);
        (0..closes.len())
            .map(|i| kalman_garch_z_local(&closes, &moves, &gains, i, lookback, key, min_periods))
            .collect()
    };
    check("kgz_local_l120_default", local(0.01, 1.0, 120, &default, 50), TOLERANCE);
    check("kgz_local_l60_a", local(0.546, 0.02, 60, &a, 20), TOLERANCE);
    let mut window = Vec::new();
    let mut last = |i: usize| {
        garch_sigma_local(&moves, i, 120, &a, 20, &mut window);
        window.last().copied().unwrap_or(f64::NAN)
    };
    check("garch_local_last_l120_a", (0..closes.len()).map(&mut last).collect(), TOLERANCE);

    let whole = Table::read(&folder.join("garch_local_window_idx250_l120_a.csv"));
    garch_sigma_local(&moves, 250, 120, &a, 20, &mut window);
    assert_close("local window", &window, &whole.floats("sigma"), TOLERANCE);
}

#[test]
fn further_indicators_agree_with_the_reference() {
    let Some(folder) = vectors("core_indicators_extra") else { return };
    let market = market(bars(&folder.join("core_bars_m5.csv"), Timeframe::M5), Vec::new());
    let expected = Table::read(&folder.join("core_indicators_extra.csv"));
    for (name, series) in [
        ("rsi_14", Series::Rsi(14)),
        ("macd_12_26_9_line", Series::MacdLine { fast: 12, slow: 26 }),
        ("macd_12_26_9_signal", Series::MacdSignal { fast: 12, slow: 26, signal: 9 }),
        ("roc_14", Series::Roc(14)),
        ("dmi_14_plus", Series::DiPlus(14)),
        ("dmi_14_minus", Series::DiMinus(14)),
        ("dmi_14_adx", Series::Adx(14)),
        ("chop_14", Series::Choppiness(14)),
    ] {
        assert_close(name, &bid(&market, series), &expected.floats(name), TOLERANCE);
    }
}

#[test]
fn gaps_leave_values_undefined_where_the_reference_does() {
    let Some(folder) = vectors("gaps") else { return };
    let mut bars = bars(&folder.join("core_bars_m5.csv"), Timeframe::M5).slice(0, 40);
    let holed = |values: &[f64]| -> Vec<f64> {
        let missing = [5, 6, 13, 20, 21, 22];
        values.iter().enumerate().map(|(i, v)| if missing.contains(&i) { f64::NAN } else { *v }).collect()
    };
    bars.bid = Quotes {
        open: holed(&bars.bid.open).into(),
        high: holed(&bars.bid.high).into(),
        low: holed(&bars.bid.low).into(),
        close: holed(&bars.bid.close).into(),
        volume: bars.bid.volume.clone(),
    };
    let market = market(bars, Vec::new());
    let expected = Table::read(&folder.join("gaps.csv"));
    let check = |name: &str, found: Vec<f64>| assert_close(name, &found, &expected.floats(name), TOLERANCE);
    check("close", bid(&market, Series::Close));
    check("sma_3", bid(&market, Series::Sma(3)));
    check("ema_5", bid(&market, Series::Ema(5)));
    check("atr_3", bid(&market, Series::Atr(3)));
    check("bb_3_2_upper", band(&market, 3, 2.0));
    check("bb_3_2_mid", bid(&market, Series::RollingMean(3)));
    check("bb_3_2_lower", band(&market, 3, -2.0));
    check("kalman_mean_r0p01_q1", bid(&market, kalman_mean(0.01, 1.0)));
    let sigma = Series::GarchSigma { garch: garch(0.05, 0.90, None, true), min_periods: 2 };
    check("garch_default_min2", bid(&market, sigma));
    check("rsi_3", bid(&market, Series::Rsi(3)));
    check("dmi_3_plus", bid(&market, Series::DiPlus(3)));
    check("dmi_3_minus", bid(&market, Series::DiMinus(3)));
    check("dmi_3_adx", bid(&market, Series::Adx(3)));
    check("chop_3", bid(&market, Series::Choppiness(3)));
    check("zscore_ema_w3_e5", bid(&market, Series::ZEma { window: 3, ema: 5 }));
}

#[test]
fn kmeans_finds_the_centres_and_labels_of_the_reference() {
    let Some(folder) = vectors("kmeans_cases") else { return };
    let cases = Table::read(&folder.join("kmeans_cases.csv"));
    let list = |text: &str| -> Vec<f64> { text.split(';').map(|v| v.parse().unwrap()).collect() };
    for case in 0..cases.rows() {
        let k: u32 = cases.text("k_requested")[case].parse().unwrap();
        let found = kmeans(&list(&cases.text("values")[case]), k);
        assert_close(&format!("case {case}"), &found.centers, &list(&cases.text("centers")[case]), TOLERANCE);
        let labels: Vec<String> = found.labels.iter().map(u32::to_string).collect();
        assert_eq!(labels.join(";"), cases.text("labels")[case], "case {case}");
    }
}

fn multi_timeframe(folder: &std::path::Path) -> MarketData {
    market(
        bars(&folder.join("mtf_bars_m5.csv"), Timeframe::M5),
        [(Timeframe::H1, "h1"), (Timeframe::H4, "h4"), (Timeframe::D1, "d1")]
            .into_iter()
            .map(|(timeframe, name)| bars(&folder.join(format!("mtf_bars_{name}.csv")), timeframe))
            .collect(),
    )
}

fn parity(visibility: Visibility) -> MtfOptions {
    MtfOptions { visibility, close_stamped: Vec::new(), stale_limit: Some(StaleLimit::Automatic) }
}

fn stepwise(market: &MarketData, timeframe: Timeframe, series: Series) -> Vec<f64> {
    let key = ColumnKey { method: HtfMethod::Stepwise, ..ColumnKey::bid(timeframe, series) };
    compute(&key, market, &parity(Visibility::Close)).unwrap()
}

fn stepwise_band(market: &MarketData, timeframe: Timeframe, length: u32, factor: f64) -> Vec<f64> {
    let mid = stepwise(market, timeframe, Series::RollingMean(length));
    let sd = stepwise(market, timeframe, Series::RollingSd(length));
    mid.iter().zip(&sd).map(|(m, s)| m + factor * s).collect()
}

fn indices(visible: &[u32]) -> Vec<i64> {
    visible.iter().map(|&bar| if bar == NO_BAR { -1 } else { i64::from(bar) }).collect()
}

#[test]
fn visible_bars_are_those_of_the_reference_under_both_rules() {
    let Some(folder) = vectors("mtf_mapping") else { return };
    let market = multi_timeframe(&folder);
    let expected = Table::read(&folder.join("mtf_mapping.csv"));
    for (rule, options) in [("open", parity(Visibility::Open)), ("close", parity(Visibility::Close))] {
        for other in &market.others {
            let name = format!("{}_{rule}", other.timeframe.as_str().to_lowercase());
            assert_eq!(indices(&visible_bars(&market.bars, other, &options)), expected.ints(&name), "{name}");
        }
    }
}

#[test]
fn stepwise_columns_agree_with_the_reference() {
    let Some(folder) = vectors("mtf_stepwise") else { return };
    let market = multi_timeframe(&folder);
    let expected = Table::read(&folder.join("mtf_stepwise.csv"));
    let check = |name: &str, found: Vec<f64>| assert_close(name, &found, &expected.floats(name), TOLERANCE);
    for (name, timeframe) in [("h1", Timeframe::H1), ("h4", Timeframe::H4), ("d1", Timeframe::D1)] {
        check(&format!("{name}_close_aligned"), stepwise(&market, timeframe, Series::Close));
    }
    check("h1_ema_step_10", stepwise(&market, Timeframe::H1, Series::Ema(10)));
    check("h4_ema_step_6", stepwise(&market, Timeframe::H4, Series::Ema(6)));
    check("d1_ema_step_3", stepwise(&market, Timeframe::D1, Series::Ema(3)));
    check("h1_bb_step_12_1p5_mid", stepwise(&market, Timeframe::H1, Series::RollingMean(12)));
    check("h1_bb_step_12_1p5_upper", stepwise_band(&market, Timeframe::H1, 12, 1.5));
    check("h1_bb_step_12_1p5_lower", stepwise_band(&market, Timeframe::H1, 12, -1.5));
    check("h1_kz_step_w15_r0p01_q1", stepwise(&market, Timeframe::H1, kalman_z(15, 0.01, 1.0)));
    check("m5_kz_step_w30_r0p5_q0p1", stepwise(&market, Timeframe::M5, kalman_z(30, 0.5, 0.1)));
}

#[test]
fn a_timeframe_below_the_primary_shows_its_last_bar() {
    let Some(folder) = vectors("mtf_lower_tf") else { return };
    let m5 = bars(&folder.join("mtf_bars_m5.csv"), Timeframe::M5);
    let market = market(bars(&folder.join("mtf_bars_h1.csv"), Timeframe::H1), vec![m5]);
    let expected = Table::read(&folder.join("mtf_lower_tf.csv"));
    for (name, rule) in [("m5_open", Visibility::Open), ("m5_close", Visibility::Close)] {
        let visible = visible_bars(&market.bars, &market.others[0], &parity(rule));
        assert_eq!(indices(&visible), expected.ints(name), "{name}");
    }
    let check = |name: &str, found: Vec<f64>| assert_close(name, &found, &expected.floats(name), TOLERANCE);
    check("m5_close_aligned", stepwise(&market, Timeframe::M5, Series::Close));
    check("m5_kz_step_w20_r0p5_q0p1", stepwise(&market, Timeframe::M5, kalman_z(20, 0.5, 0.1)));
    check("m5_bb_step_20_1_lower", stepwise_band(&market, Timeframe::M5, 20, -1.0));
    check("m5_bb_step_20_1_upper", stepwise_band(&market, Timeframe::M5, 20, 1.0));
}

#[test]
fn cluster_guards_agree_with_the_reference() {
    let Some(folder) = vectors("vol_cluster_states") else { return };
    let market = Arc::new(multi_timeframe(&folder));
    let columns = engine::indicators::ColumnCache::new(
        Arc::clone(&market),
        parity(Visibility::Close),
        Arc::new(engine::indicators::Unlimited),
    );
    let guards = GuardCache::new(Arc::new(columns));
    let guard = |feature, window, k, log_transform| LateGuard::VolCluster {
        feature,
        window,
        k,
        min_points: 80,
        log_transform,
        hysteresis_bars: 0,
        allowed: vec!["low".to_owned(), "mid".to_owned()],
    };
    let sigma = ClusterFeature::LocalGarch { garch: garch(0.1, 0.8, None, true), min_periods: 50, lookback: 300 };
    let cases = [
        ("garch", guard(sigma, 150, 3, true)),
        ("atr", guard(ClusterFeature::Atr { length: 14 }, 150, 4, false)),
        ("garch_k5", guard(sigma, 100, 5, true)),
    ];
    let expected = Table::read(&folder.join("vol_cluster_states.csv"));
    let mut seen = 0;
    for (case, guard) in &cases {
        let evaluator = guards.evaluator(guard).unwrap();
        for row in (0..expected.rows()).filter(|&row| expected.text("case")[row] == *case) {
            seen += 1;
            let text = |column: &str| expected.text(column)[row].as_str();
            let idx: usize = text("idx").parse().unwrap();
            let name = format!("{case} at {idx}");
            let report = evaluator.cluster_report(idx).unwrap();
            assert_eq!(report.status.as_str(), text("status"), "{name}");
            assert_eq!(report.sample_size.to_string(), text("sample_size"), "{name}");
            assert_eq!(report.label.as_deref().unwrap_or(""), text("label"), "{name}");
            let expected_sigma: f64 = text("sigma").parse().unwrap();
            assert_close(&name, &[report.sigma.unwrap_or(f64::NAN)], &[expected_sigma], TOLERANCE);
            let centers: Vec<f64> =
                text("centers").split(';').filter(|c| !c.is_empty()).map(|c| c.parse().unwrap()).collect();
            assert_close(&name, &report.centers, &centers, TOLERANCE);
            // Asked twice: worked out, then remembered.
            for _ in 0..2 {
                assert_eq!(evaluator.holds(idx).to_string(), text("passes"), "{name}");
            }
        }
    }
    assert_eq!(seen, expected.rows());
}

#[test]
fn a_local_guard_compares_the_local_z() {
    let Some(folder) = vectors("kgz_local_l120_default") else { return };
    let market = Arc::new(market(bars(&folder.join("core_bars_m5.csv"), Timeframe::M5), Vec::new()));
    let expected = Table::read(&folder.join("core_indicators.csv")).floats("kgz_local_l120_default");
    let columns =
        engine::indicators::ColumnCache::new(market, MtfOptions::default(), Arc::new(engine::indicators::Unlimited));
    let guards = GuardCache::new(Arc::new(columns));
    let threshold = -0.02;
    let evaluator = guards
        .evaluator(&LateGuard::LocalKalmanGarchZ {
            r: 0.01.into(),
            q: 1.0.into(),
            garch: garch(0.05, 0.90, None, true),
            min_periods: 50,
            lookback: 120,
            comparison: Comparison::LessOrEqual,
            threshold: threshold.into(),
        })
        .unwrap();
    let mut held = 0;
    for (i, z) in expected.iter().enumerate() {
        assert_close("z", &[evaluator.local_z(i)], &[*z], TOLERANCE);
        assert_eq!(evaluator.holds(i), *z <= threshold, "bar {i}, z {z}");
        held += usize::from(evaluator.holds(i));
    }
    assert!(held > 0, "the threshold is reached somewhere");
    assert!(!evaluator.holds(expected.len()), "outside the data");
}
