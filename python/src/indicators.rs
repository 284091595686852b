//! Every indicator as a function on numpy arrays: read where they are, results handed over without a copy.
//!
//! Arguments are checked as parameters of a strategy are (indicator specification §1.4); the formulas are those of
//! `engine::indicators`, the very functions a backtest calls.

use engine::indicators as of;
use engine::indicators::{ClusterOutcome, ClusterSettings, GarchKey, Movement};
use numpy::{IntoPyArray as _, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use serde_json::json;

use crate::boundary::{bad_argument, detached};

type Input<'py> = PyReadonlyArray1<'py, f64>;
type Output<'py> = Bound<'py, PyArray1<f64>>;
type Pair<'py> = (Output<'py>, Output<'py>);

/// The memory of an array of float64 in one piece.
fn slice<'a>(name: &str, x: &'a Input<'_>) -> PyResult<&'a [f64]> {
    x.as_slice().map_err(|_| bad_argument(name, "must be one contiguous array of float64"))
}

/// Arrays of one length.
fn slices<'a, const N: usize>(named: [(&str, &'a Input<'_>); N]) -> PyResult<[&'a [f64]; N]> {
    let mut all = [[].as_slice(); N];
    for (at, (name, x)) in named.into_iter().enumerate() {
        all[at] = slice(name, x)?;
        if all[at].len() != all[0].len() {
            return Err(bad_argument(
                name,
                format!("must be as long as `{}`, {}, got {}", named[0].0, all[0].len(), all[at].len()),
            ));
        }
    }
    Ok(all)
}

/// A number of bars, at least `least`.
fn bars(name: &str, value: i64, least: u32) -> PyResult<u32> {
    u32::try_from(value)
        .ok()
        .filter(|bars| *bars >= least)
        .ok_or_else(|| bad_argument(name, format!("must be a whole number >= {least}, got {value}")))
}

fn real(name: &str, value: f64, rule: &str, holds: impl Fn(f64) -> bool) -> PyResult<f64> {
    if value.is_finite() && holds(value) {
        Ok(value)
    } else {
        Err(bad_argument(name, format!("must be {rule}, got {value}")))
    }
}

fn at_least_zero(name: &str, value: f64) -> PyResult<f64> {
    real(name, value, ">= 0", |x| x >= 0.0)
}

fn above_zero(name: &str, value: f64) -> PyResult<f64> {
    real(name, value, "> 0", |x| x > 0.0)
}

/// The work of most functions: one result, made without the interpreter lock.
fn one<'py>(py: Python<'py>, work: impl FnOnce() -> Vec<f64> + Send) -> PyResult<Output<'py>> {
    Ok(detached(py, work)?.into_pyarray(py))
}

fn two<'py>(py: Python<'py>, work: impl FnOnce() -> (Vec<f64>, Vec<f64>) + Send) -> PyResult<Pair<'py>> {
    let (a, b) = detached(py, work)?;
    Ok((a.into_pyarray(py), b.into_pyarray(py)))
}

/// Mean of the last `period` values.
#[pyfunction]
pub(crate) fn sma<'py>(py: Python<'py>, x: Input<'py>, period: i64) -> PyResult<Output<'py>> {
    let (x, n) = (slice("x", &x)?, bars("period", period, 1)?);
    one(py, || of::rolling_mean(x, n))
}

/// Exponential mean, `alpha = 2 / (period + 1)`, seeded with the first value.
#[pyfunction]
pub(crate) fn ema<'py>(py: Python<'py>, x: Input<'py>, period: i64) -> PyResult<Output<'py>> {
    let (x, n) = (slice("x", &x)?, bars("period", period, 1)?);
    one(py, || of::ema(x, n))
}

/// Mean of a window, all values required.
#[pyfunction]
pub(crate) fn rolling_mean<'py>(py: Python<'py>, x: Input<'py>, window: i64) -> PyResult<Output<'py>> {
    let (x, n) = (slice("x", &x)?, bars("window", window, 1)?);
    one(py, || of::rolling_mean(x, n))
}

/// Sample deviation (ddof 1) of a window.
#[pyfunction]
pub(crate) fn rolling_sd<'py>(py: Python<'py>, x: Input<'py>, window: i64) -> PyResult<Output<'py>> {
    let (x, n) = (slice("x", &x)?, bars("window", window, 1)?);
    one(py, || of::rolling_sd(x, n))
}

/// Largest value of a window.
#[pyfunction]
pub(crate) fn rolling_max<'py>(py: Python<'py>, x: Input<'py>, window: i64) -> PyResult<Output<'py>> {
    let (x, n) = (slice("x", &x)?, bars("window", window, 1)?);
    one(py, || of::rolling_max(x, n))
}

/// Smallest value of a window.
#[pyfunction]
pub(crate) fn rolling_min<'py>(py: Python<'py>, x: Input<'py>, window: i64) -> PyResult<Output<'py>> {
    let (x, n) = (slice("x", &x)?, bars("window", window, 1)?);
    one(py, || of::rolling_min(x, n))
}

/// Upper, middle and lower band: mean and `factor` sample deviations.
#[pyfunction]
#[pyo3(signature = (x, period = 20, factor = 2.0))]
pub(crate) fn bollinger<'py>(
    py: Python<'py>,
    x: Input<'py>,
    period: i64,
    factor: f64,
) -> PyResult<(Output<'py>, Output<'py>, Output<'py>)> {
    let (x, n, factor) = (slice("x", &x)?, bars("period", period, 2)?, at_least_zero("factor", factor)?);
    let (upper, mid, lower) = detached(py, || {
        let (mid, sd) = (of::rolling_mean(x, n), of::rolling_sd(x, n));
        let band = |k: f64| mid.iter().zip(&sd).map(|(m, s)| m + k * s).collect::<Vec<f64>>();
        (band(factor), mid.clone(), band(-factor))
    })?;
    Ok((upper.into_pyarray(py), mid.into_pyarray(py), lower.into_pyarray(py)))
}

/// True range of each bar.
#[pyfunction]
pub(crate) fn true_range<'py>(
    py: Python<'py>,
    high: Input<'py>,
    low: Input<'py>,
    close: Input<'py>,
) -> PyResult<Output<'py>> {
    let [high, low, close] = slices([("high", &high), ("low", &low), ("close", &close)])?;
    one(py, || of::true_range(high, low, close))
}

/// Wilder's average true range.
#[pyfunction]
#[pyo3(signature = (high, low, close, period = 14))]
pub(crate) fn atr<'py>(
    py: Python<'py>,
    high: Input<'py>,
    low: Input<'py>,
    close: Input<'py>,
    period: i64,
) -> PyResult<Output<'py>> {
    let [high, low, close] = slices([("high", &high), ("low", &low), ("close", &close)])?;
    let n = bars("period", period, 1)?;
    one(py, || of::atr(&of::true_range(high, low, close), n))
}

/// Choppiness index.
#[pyfunction]
#[pyo3(signature = (high, low, close, period = 14))]
pub(crate) fn choppiness<'py>(
    py: Python<'py>,
    high: Input<'py>,
    low: Input<'py>,
    close: Input<'py>,
    period: i64,
) -> PyResult<Output<'py>> {
    let [high, low, close] = slices([("high", &high), ("low", &low), ("close", &close)])?;
    let n = bars("period", period, 2)?;
    one(py, || of::choppiness(&of::true_range(high, low, close), high, low, n))
}

/// +DI and −DI.
#[pyfunction]
#[pyo3(signature = (high, low, close, period = 14))]
pub(crate) fn directional<'py>(
    py: Python<'py>,
    high: Input<'py>,
    low: Input<'py>,
    close: Input<'py>,
    period: i64,
) -> PyResult<Pair<'py>> {
    let [high, low, close] = slices([("high", &high), ("low", &low), ("close", &close)])?;
    let n = bars("period", period, 1)?;
    two(py, || movement(high, low, close, n))
}

fn movement(high: &[f64], low: &[f64], close: &[f64], period: u32) -> (Vec<f64>, Vec<f64>) {
    let ranges = of::true_range(high, low, close);
    let side = |movement| of::directional(high, low, &ranges, period, movement);
    (side(Movement::Plus), side(Movement::Minus))
}

/// Average directional index.
#[pyfunction]
#[pyo3(signature = (high, low, close, period = 14))]
pub(crate) fn adx<'py>(
    py: Python<'py>,
    high: Input<'py>,
    low: Input<'py>,
    close: Input<'py>,
    period: i64,
) -> PyResult<Output<'py>> {
    let [high, low, close] = slices([("high", &high), ("low", &low), ("close", &close)])?;
    let n = bars("period", period, 1)?;
    one(py, || {
        let (plus, minus) = movement(high, low, close, n);
        of::adx(&plus, &minus, n)
    })
}

/// Relative strength index.
#[pyfunction]
#[pyo3(signature = (x, period = 14))]
pub(crate) fn rsi<'py>(py: Python<'py>, x: Input<'py>, period: i64) -> PyResult<Output<'py>> {
    let (x, n) = (slice("x", &x)?, bars("period", period, 1)?);
    one(py, || of::rsi(x, n))
}

/// Rate of change in per cent.
#[pyfunction]
#[pyo3(signature = (x, period = 14))]
pub(crate) fn roc<'py>(py: Python<'py>, x: Input<'py>, period: i64) -> PyResult<Output<'py>> {
    let (x, n) = (slice("x", &x)?, bars("period", period, 1)?);
    one(py, || of::roc(x, n))
}

/// MACD line and signal line.
#[pyfunction]
#[pyo3(signature = (x, fast = 12, slow = 26, signal = 9))]
pub(crate) fn macd<'py>(py: Python<'py>, x: Input<'py>, fast: i64, slow: i64, signal: i64) -> PyResult<Pair<'py>> {
    let x = slice("x", &x)?;
    let (fast, slow, signal) = (bars("fast", fast, 1)?, bars("slow", slow, 1)?, bars("signal", signal, 1)?);
    two(py, || {
        let line = of::macd_line(&of::ema(x, fast), &of::ema(x, slow));
        let signal = of::macd_signal(&line, signal);
        (line, signal)
    })
}

/// z-score around an SMA of the same window or, with `ema_period`, around that EMA.
#[pyfunction]
#[pyo3(signature = (x, window = 100, ema_period = None))]
pub(crate) fn z_score<'py>(
    py: Python<'py>,
    x: Input<'py>,
    window: i64,
    ema_period: Option<i64>,
) -> PyResult<Output<'py>> {
    let (x, window) = (slice("x", &x)?, bars("window", window, 2)?);
    let ema_period = ema_period.map(|period| bars("ema_period", period, 1)).transpose()?;
    one(py, || {
        let center = ema_period.map_or_else(|| of::rolling_mean(x, window), |period| of::ema(x, period));
        of::residual_z(x, &center, window)
    })
}

fn variances(r: f64, q: f64) -> PyResult<(f64, f64)> {
    Ok((above_zero("r", r)?, at_least_zero("q", q)?))
}

/// Kalman mean of a random walk: `r` measurement variance, `q` process variance.
#[pyfunction]
#[pyo3(signature = (x, r = 0.01, q = 1.0))]
pub(crate) fn kalman_mean<'py>(py: Python<'py>, x: Input<'py>, r: f64, q: f64) -> PyResult<Output<'py>> {
    let (x, (r, q)) = (slice("x", &x)?, variances(r, q)?);
    one(py, || of::kalman_mean(x, r, q))
}

/// z-score around the Kalman mean.
#[pyfunction]
#[pyo3(signature = (x, window = 100, r = 0.01, q = 1.0))]
pub(crate) fn kalman_z<'py>(py: Python<'py>, x: Input<'py>, window: i64, r: f64, q: f64) -> PyResult<Output<'py>> {
    let (x, window, (r, q)) = (slice("x", &x)?, bars("window", window, 2)?, variances(r, q)?);
    one(py, || of::residual_z(x, &of::kalman_mean(x, r, q), window))
}

/// The GARCH recursion as keywords of a call.
#[derive(FromPyObject)]
pub(crate) struct Garch {
    #[pyo3(item)]
    alpha: f64,
    #[pyo3(item)]
    beta: f64,
    #[pyo3(item)]
    omega: Option<f64>,
    #[pyo3(item)]
    log_returns: bool,
    #[pyo3(item)]
    scale: f64,
    #[pyo3(item)]
    sigma_floor: f64,
    #[pyo3(item)]
    min_periods: i64,
}

impl Garch {
    fn checked(&self) -> PyResult<(GarchKey, u32)> {
        let (alpha, beta) = (at_least_zero("alpha", self.alpha)?, at_least_zero("beta", self.beta)?);
        if alpha + beta >= 1.0 {
            return Err(bad_argument("alpha", format!("alpha + beta must be < 1, got {}", alpha + beta)));
        }
        let key = GarchKey {
            alpha: alpha.into(),
            beta: beta.into(),
            omega: self.omega.map(|omega| at_least_zero("omega", omega)).transpose()?.map(Into::into),
            log_returns: self.log_returns,
            scale: above_zero("scale", self.scale)?.into(),
            sigma_floor: at_least_zero("sigma_floor", self.sigma_floor)?.into(),
        };
        Ok((key, bars("min_periods", self.min_periods, 0)?))
    }
}

fn returns(x: &[f64], key: &GarchKey) -> Vec<f64> {
    of::returns(x, key.log_returns, key.scale.get())
}

/// GARCH(1,1) deviation of returns.
#[pyfunction]
pub(crate) fn garch_sigma<'py>(py: Python<'py>, x: Input<'py>, garch: Garch) -> PyResult<Output<'py>> {
    let (x, (key, min_periods)) = (slice("x", &x)?, garch.checked()?);
    one(py, || of::garch_sigma(&returns(x, &key), &key, min_periods))
}

/// GARCH deviation of the last `lookback` values up to `index` alone.
#[pyfunction]
pub(crate) fn garch_sigma_local<'py>(
    py: Python<'py>,
    x: Input<'py>,
    index: usize,
    lookback: i64,
    garch: Garch,
) -> PyResult<Output<'py>> {
    let (x, (key, min_periods), lookback) = (slice("x", &x)?, garch.checked()?, bars("lookback", lookback, 2)?);
    one(py, || {
        let mut sigma = Vec::new();
        of::garch_sigma_local(&returns(x, &key), index, lookback, &key, min_periods, &mut sigma);
        sigma
    })
}

/// Distance from the Kalman mean in units of the GARCH deviation.
#[pyfunction]
pub(crate) fn kalman_garch_z<'py>(
    py: Python<'py>,
    x: Input<'py>,
    r: f64,
    q: f64,
    garch: Garch,
) -> PyResult<Output<'py>> {
    let (x, (key, min_periods), (r, q)) = (slice("x", &x)?, garch.checked()?, variances(r, q)?);
    one(py, || {
        let sigma = of::garch_sigma(&returns(x, &key), &key, min_periods);
        of::kalman_garch_z(x, &of::kalman_mean(x, r, q), &sigma)
    })
}

/// The same from the last `lookback` values up to `index` alone; NaN where there is none.
#[pyfunction]
pub(crate) fn kalman_garch_z_local(
    py: Python<'_>,
    x: Input<'_>,
    index: usize,
    lookback: i64,
    r: f64,
    q: f64,
    garch: Garch,
) -> PyResult<f64> {
    let (x, (key, min_periods), (r, q)) = (slice("x", &x)?, garch.checked()?, variances(r, q)?);
    let lookback = bars("lookback", lookback, 2)?;
    detached(py, || {
        let gains = of::kalman_gains(r, q, (lookback as usize).min(x.len()));
        of::kalman_garch_z_local(x, &returns(x, &key), &gains, index, lookback, &key, min_periods)
    })
}

/// Centres and labels of one-dimensional k-means started from quantiles.
#[pyfunction]
pub(crate) fn kmeans<'py>(
    py: Python<'py>,
    x: Input<'py>,
    k: i64,
) -> PyResult<(Output<'py>, Bound<'py, PyArray1<u32>>)> {
    let (x, k) = (slice("x", &x)?, bars("k", k, 1)?);
    if x.iter().any(|value| value.is_nan()) {
        return Err(bad_argument("x", "must not hold NaN"));
    }
    let found = detached(py, || of::kmeans(x, k))?;
    Ok((found.centers.into_pyarray(py), found.labels.into_pyarray(py)))
}

/// Volatility cluster of the last value, as JSON text.
#[pyfunction]
pub(crate) fn cluster_state(
    py: Python<'_>,
    x: Input<'_>,
    window: i64,
    k: i64,
    min_points: i64,
    log_transform: bool,
) -> PyResult<String> {
    let settings = ClusterSettings {
        window: bars("window", window, 1)?,
        k: bars("k", k, 1)?,
        min_points: bars("min_points", min_points, 1)?,
        log_transform,
    };
    let x = slice("x", &x)?;
    let (sample_size, outcome) = detached(py, || of::cluster_state(x, &settings))?;
    let document = match outcome {
        ClusterOutcome::InsufficientPoints => json!({ "status": "insufficient_points", "sample_size": sample_size }),
        ClusterOutcome::InsufficientUnique => json!({ "status": "insufficient_unique", "sample_size": sample_size }),
        ClusterOutcome::Ok(state) => json!({
            "status": "ok",
            "sample_size": sample_size,
            "label": state.label(),
            "labels": state.labels,
            "centers": state.centers,
            "centers_log": state.centers_log,
            "sigma": state.sigma,
            "run": state.run,
        }),
    };
    Ok(document.to_string())
}
