//! The worked examples of the indicator specification (§8): eight bars, every column by hand, to the 12 digits printed
//! there.

use super::*;
use crate::data::{Bars, MarketData, Quotes};
use crate::units::{Bits, MINUTE_NS, PriceSide, Timeframe};

const CLOSE: [f64; 8] = [100.0, 101.0, 99.0, 102.0, 103.0, 101.0, 98.0, 100.0];
const HIGH: [f64; 8] = [101.0, 101.5, 101.0, 102.5, 104.0, 103.0, 101.0, 100.5];
const LOW: [f64; 8] = [99.5, 100.0, 98.5, 99.0, 101.5, 100.5, 97.5, 97.8];
const N: f64 = f64::NAN;

fn market() -> MarketData {
    let quotes = Quotes {
        open: CLOSE.to_vec().into(),
        high: HIGH.to_vec().into(),
        low: LOW.to_vec().into(),
        close: CLOSE.to_vec().into(),
        volume: vec![0.0; 8].into(),
    };
    let open_time: Vec<i64> = (0..8).map(|i| i * 5 * MINUTE_NS).collect();
    let bars = Bars { timeframe: Timeframe::M5, open_time: open_time.into(), bid: quotes.clone(), ask: quotes };
    MarketData { symbol: "TEST".to_owned(), bars, first_tradable: 0, others: Vec::new() }
}

fn column(series: Series) -> Vec<f64> {
    compute(&ColumnKey::new(Timeframe::M5, PriceSide::Bid, series), &market(), &MtfOptions::default()).unwrap()
}

/// The specification prints 12 significant digits: half a unit of the last one, relative.
fn same(name: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let close = (f.is_nan() && e.is_nan()) || (f - e).abs() <= 6e-12 * e.abs().max(1e-12);
        assert!(close, "{name}[{i}]: found {f}, expected {e}");
    }
}

fn garch(omega: Option<f64>) -> GarchKey {
    GarchKey {
        alpha: 0.1.into(),
        beta: 0.8.into(),
        omega: omega.map(Bits::new),
        log_returns: true,
        scale: 100.0.into(),
        sigma_floor: 1e-6.into(),
    }
}

#[test]
fn means_and_bands() {
    same("tr", &true_range(&HIGH, &LOW, &CLOSE), &[1.5, 1.5, 2.5, 3.5, 2.5, 2.5, 3.5, 2.7]);
    let sma = [N, N, 100.0, 100.666666666667, 101.333333333333, 102.0, 100.666666666667, 99.6666666666667];
    same("sma", &column(Series::Sma(3)), &sma);
    same("mid", &column(Series::RollingMean(3)), &sma);
    same("ema 3", &column(Series::Ema(3)), &[100.0, 100.5, 99.75, 100.875, 101.9375, 101.46875, 99.734375, 99.8671875]);
    same(
        "ema 4",
        &column(Series::Ema(4)),
        &[100.0, 100.4, 99.84, 100.704, 101.6224, 101.37344, 100.024064, 100.0144384],
    );
    same(
        "atr",
        &column(Series::Atr(3)),
        &[N, N, 1.83333333333333, 2.38888888888889, 2.42592592592593, 2.45061728395, 2.80041152263, 2.76694101509],
    );
    let sd = column(Series::RollingSd(3));
    same("sd", &sd, &[N, N, 1.0, 1.52752523165, 2.08166599947, 1.0, 2.51661147842, 1.52752523165]);
    let band = |factor: f64| -> Vec<f64> {
        column(Series::Sma(3)).iter().zip(&sd).map(|(mid, sd)| mid + factor * sd).collect()
    };
    same("upper", &band(2.0), &[N, N, 102.0, 103.72171713, 105.496665332, 104.0, 105.699889624, 102.72171713]);
    same("lower", &band(-2.0), &[N, N, 98.0, 97.6116162034, 97.1700013344, 100.0, 95.6334437098, 96.6116162034]);
}

#[test]
fn z_scores() {
    same(
        "rolling",
        &column(Series::ZRolling { window: 3 }),
        &[N, N, N, N, 1.14707866935, -0.688247201612, -1.21998856266, 0.221766381286],
    );
    same(
        "ema",
        &column(Series::ZEma { window: 3, ema: 3 }),
        &[N, N, -1.19207912136, 1.17837660727, 0.997701146385, -0.519303753437, -1.23836325135, 0.139352064631],
    );
    let (r, q) = (Bits::new(0.5), Bits::new(0.1));
    same(
        "kalman mean",
        &column(Series::KalmanMean { r, q }),
        &[
            100.0,
            100.545454545455,
            99.8854166666667,
            100.700384123,
            101.549507349,
            101.350172925,
            100.143766088,
            100.092151673,
        ],
    );
    same(
        "kalman z",
        &column(Series::KalmanZ { window: 3, r, q }),
        &[N, N, -1.29935281948, 1.17952017913, 1.10956538876, -0.350553967782, -1.19288279469, -0.0824632515175],
    );
}

#[test]
fn volatility() {
    same(
        "returns",
        &column(Series::Return { log: true, scale: 100.0.into() }),
        &[
            N,
            0.995033085317,
            -2.00006667067,
            2.98529631497,
            0.975617494536,
            -1.96084713884,
            -3.01530381707,
            2.02027073175,
        ],
    );
    let variance = column(Series::GarchSigma { garch: garch(None), min_periods: 0 });
    let variance: Vec<f64> = variance.iter().map(|sigma| (sigma * 100.0) * (sigma * 100.0)).collect();
    same(
        "variance",
        &variance,
        &[N, 1e-6, 9e-7, 0.897063074829, 1.11376533219, 0.891050062272, 1.58656293977, 2.87753065888],
    );
    same(
        "sigma",
        &column(Series::GarchSigma { garch: garch(None), min_periods: 2 }),
        &[N, N, N, 0.00947134137717, 0.0105535081001, 0.00943954481038, 0.0125958840094, 0.0169632858223],
    );
    same(
        "sigma, omega given",
        &column(Series::GarchSigma { garch: garch(Some(0.05)), min_periods: 2 }),
        &[N, N, N, 0.00993510389895, 0.011116497147, 0.0101914168155, 0.0132462923251, 0.0174985550545],
    );
    same(
        "z",
        &column(Series::KalmanGarchZ { r: 0.5.into(), q: 0.1.into(), garch: garch(None), min_periods: 2 }),
        &[N, N, N, 1.34525107066, 1.33438594873, -0.367290873875, -1.73669145759, -0.0543241879085],
    );
    let unstable = GarchKey { alpha: 0.2.into(), ..garch(None) };
    let sigma = column(Series::GarchSigma { garch: unstable, min_periods: 2 });
    assert!(sigma.iter().all(|value| value.is_nan()), "alpha + beta = 1 has no values");
}

#[test]
fn local_volatility() {
    let returns = column(Series::Return { log: true, scale: 100.0.into() });
    let mut window = vec![1.0; 3];
    garch_sigma_local(&returns, 7, 5, &garch(None), 2, &mut window);
    same("slice", &window, &[N, N, N, 0.00928592092528, 0.0151081832494]);
    let gains = kalman_gains(0.5, 0.1, 8);
    let z = |idx, lookback| kalman_garch_z_local(&CLOSE, &returns, &gains, idx, lookback, &garch(None), 2);
    same("z", &[z(7, 5)], &[-0.161971865812]);
    assert!(z(7, 3).is_nan(), "needs min_periods + 2 closes");
    assert!(z(7, 4).is_finite());
    assert!(z(8, 5).is_nan(), "outside the data");
    assert!(z(0, 5).is_nan(), "one close");
    // The series form clamps the index instead.
    let mut clamped = Vec::new();
    garch_sigma_local(&returns, 99, 5, &garch(None), 2, &mut clamped);
    same("clamped", &clamped, &window);
    garch_sigma_local(&[], 0, 5, &garch(None), 2, &mut clamped);
    assert!(clamped.is_empty());
    // A window as long as the history is the series itself.
    garch_sigma_local(&returns, 7, 8, &garch(None), 2, &mut clamped);
    same("whole", &clamped, &column(Series::GarchSigma { garch: garch(None), min_periods: 2 }));
}

#[test]
fn momentum_and_trend() {
    same("rsi", &column(Series::Rsi(3)), &[N, 100.0, 50.0, 76.4705882353, 81.3953488372, 50.0, 26.7686424474, 50.0]);
    same(
        "macd",
        &column(Series::MacdLine { fast: 2, slow: 4 }),
        &[
            0.0,
            0.266666666667,
            -0.284444444444,
            0.481185185185,
            0.772661728395,
            0.0915805761317,
            -0.869057141289,
            -0.29610278043,
        ],
    );
    same(
        "signal",
        &column(Series::MacdSignal { fast: 2, slow: 4, signal: 3 }),
        &[
            0.0,
            0.133333333333,
            -0.0755555555556,
            0.202814814815,
            0.487738271605,
            0.289659423868,
            -0.289698858711,
            -0.29290081957,
        ],
    );
    same("roc", &column(Series::Roc(3)), &[N, N, N, 2.0, 1.9801980198, 2.0202020202, -3.92156862745, -2.91262135922]);
    same(
        "plus",
        &column(Series::DiPlus(3)),
        &[0.0, 11.1111111111, 6.06060606061, 24.0310077519, 36.3867684478, 24.013434089, 14.0093068822, 9.45251433576],
    );
    same(
        "minus",
        &column(Series::DiMinus(3)),
        &[0.0, 0.0, 27.2727272727, 13.9534883721, 9.16030534351, 19.6473551637, 47.1711976488, 31.827871697],
    );
    same(
        "adx",
        &column(Series::Adx(3)),
        &[N, 100.0, 87.8787878788, 67.4293960008, 64.8784427715, 46.5856285143, 49.1248732396, 50.8177030565],
    );
    same(
        "choppiness",
        &column(Series::Choppiness(3)),
        &[N, N, 55.1728585073, 57.2184260004, 39.6243584518, 48.2998648873, 24.418440369, 41.7412892749],
    );
}

#[test]
fn channels() {
    same("including", &column(Series::HighestHigh(3)), &[N, N, 101.5, 102.5, 104.0, 104.0, 104.0, 103.0]);
    same("before", &column(Series::ChannelHigh(3)), &[N, N, N, 101.5, 102.5, 104.0, 104.0, 104.0]);
    same("including", &column(Series::LowestLow(3)), &[N, N, 98.5, 98.5, 98.5, 99.0, 97.5, 97.5]);
    same("before", &column(Series::ChannelLow(2)), &[N, N, 99.5, 98.5, 98.5, 99.0, 100.5, 97.5]);
}

#[test]
fn an_ema_over_a_gap_renormalises_its_weights() {
    same("gap", &ema(&[1.0, 1.1, N, 1.2], 3), &[1.0, 1.05, 1.05, 1.15]);
    // A gap before the first value is no gap.
    same("lead", &ema(&[N, N, 1.0, 1.1], 3), &[N, N, 1.0, 1.05]);
}

#[test]
fn equal_windows_are_exact() {
    let x = [0.3, 1.7, 0.1, 0.1, 0.1, 5.5];
    let mean = rolling_mean(&x, 3);
    let sd = rolling_sd(&x, 3);
    assert_eq!(mean[4], 0.1);
    assert_eq!(sd[4], 0.0);
    assert!(sd[5] > 0.0);
    assert!(rolling_sd(&x, 1).iter().all(|value| value.is_nan()), "one value has no deviation");
    assert_eq!(rolling_mean(&x, 1), x, "a window of one is the value");
    // 0 / 0 is undefined, anything else over 0 infinite.
    let z = residual_z(&[1.0; 4], &[1.0; 4], 2);
    assert!(z.iter().all(|value| value.is_nan()));
    let z = residual_z(&[3.0; 4], &[1.0; 4], 2);
    assert!(z[1..].iter().all(|value| *value == f64::INFINITY));
}

#[test]
fn lengths_of_zero_and_empty_data_give_no_values() {
    for series in [
        Series::Sma(0),
        Series::Ema(0),
        Series::Atr(0),
        Series::RollingSd(0),
        Series::ZRolling { window: 0 },
        Series::Rsi(0),
        Series::DiPlus(0),
        Series::Adx(0),
        Series::HighestHigh(0),
        Series::ChannelLow(0),
        Series::Atr(9),
        Series::Atr(u32::MAX),
        Series::Roc(u32::MAX),
        Series::ZRolling { window: u32::MAX },
        Series::GarchSigma { garch: garch(None), min_periods: u32::MAX },
    ] {
        assert!(column(series).iter().all(|value| value.is_nan()), "{series}");
    }
    assert!(rolling_max(&[], 3).is_empty() && atr(&[], 3).is_empty() && kalman_mean(&[], 1.0, 1.0).is_empty());
}

#[test]
fn kmeans_by_hand() {
    let found = kmeans(&[1.0, 1.1, 0.9, 2.0, 2.2, 1.9, 5.0, 5.5], 3);
    same("centres", &found.centers, &[1.0, 2.03333333333333, 5.25]);
    assert_eq!(found.labels, [0, 0, 0, 1, 1, 1, 2, 2]);
    let found = kmeans(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 10.0], 2);
    assert_eq!(found.centers, [10.0, 0.0]);
    assert_eq!(found.labels, [1, 1, 1, 1, 1, 1, 0]);
    assert_eq!(kmeans(&[], 3), Clustering::default());
    // A value equally far from two centres goes to the lower index.
    assert_eq!(kmeans(&[2.0, 4.0, 6.0], 2).labels, [0, 1, 1]);
}

#[test]
fn cluster_states_by_hand() {
    let settings = ClusterSettings { window: 8, k: 3, min_points: 8, log_transform: false };
    let series = [N, 1.0, 1.1, 0.9, 2.0, 2.2, 1.9, 5.0, 5.5];
    let (sample_size, outcome) = cluster_state(&series, &settings);
    let ClusterOutcome::Ok(state) = outcome else { panic!("{outcome:?}") };
    assert_eq!((sample_size, state.rank, state.run, state.label().as_str()), (8, 2, 2, "high"));
    assert_eq!(state.sigma, 5.5);
    assert_eq!(state.centers_log, None);
    assert_eq!(cluster_state(&series[..6], &settings), (5, ClusterOutcome::InsufficientPoints));
    assert_eq!(cluster_state(&[], &settings), (0, ClusterOutcome::InsufficientPoints));
    let narrow = ClusterSettings { window: 2, ..settings };
    assert_eq!(cluster_state(&series, &narrow), (8, ClusterOutcome::InsufficientUnique));
    // Zeros are the raised minimum.
    let zeros = ClusterSettings { window: 0, k: 0, min_points: 0, log_transform: true };
    let (_, outcome) = cluster_state(&series, &zeros);
    let ClusterOutcome::Ok(state) = outcome else { panic!("{outcome:?}") };
    assert_eq!((state.label().as_str(), state.run, state.labels.len()), ("low", 1, 1));
    // The lower centre has the higher index: names follow the centres.
    let (_, outcome) = cluster_state(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 10.0], &ClusterSettings { k: 2, ..zeros });
    assert_eq!(outcome, ClusterOutcome::InsufficientUnique);
    let all = ClusterSettings { window: 7, k: 2, min_points: 1, log_transform: false };
    let (_, outcome) = cluster_state(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 10.0], &all);
    let ClusterOutcome::Ok(state) = outcome else { panic!("{outcome:?}") };
    assert_eq!((state.current, state.label().as_str()), (0, "mid"));
    assert_eq!(state.centers, [0.0, 10.0]);
    for rank in 0..9 {
        assert_eq!(cluster_rank(&cluster_label(rank)), Some(rank));
    }
    assert_eq!(cluster_rank("cluster_3"), None);
    assert_eq!(cluster_rank("cluster_07"), None);
}
