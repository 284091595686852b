//! GARCH(1,1) volatility of returns, over the whole history and over a local window, and the z-score it scales.

use super::kalman::kalman_last;
use super::key::GarchKey;

/// Returns of `x`: `scale·ln(x_t / x_{t−1})` if `log`, else `scale·(x_t / x_{t−1} − 1)`.
///
/// `x`: `[n]`, prices; result `[n]`, fractions times `scale`; NaN at 0 and where either price is.
pub fn returns(x: &[f64], log: bool, scale: f64) -> Vec<f64> {
    let mut out = vec![f64::NAN; x.len()];
    for t in 1..x.len() {
        let ratio = x[t] / x[t - 1];
        out[t] = if log { scale * libm::log(ratio) } else { scale * (ratio - 1.0) };
    }
    out
}

/// One-step variance forecast, fed with returns one after another.
struct Recursion {
    alpha: f64,
    beta: f64,
    constant: f64,
    floor: f64,
    scale: f64,
    center: f64,
    variance: f64,
    shock: f64,
}

impl Recursion {
    /// None if `alpha + beta >= 1`: no stationary variance, no values.
    fn new(key: &GarchKey) -> Option<Self> {
        let (alpha, beta) = (key.alpha.get(), key.beta.get());
        if alpha + beta >= 1.0 {
            return None;
        }
        let sigma_floor = key.sigma_floor.get();
        let constant = match key.omega {
            Some(omega) => omega.get().max(0.0),
            None => 1e-6 * (1.0 - alpha - beta).max(1e-6),
        };
        Some(Self {
            alpha,
            beta,
            constant,
            floor: sigma_floor * sigma_floor,
            scale: key.scale.get(),
            center: f64::NAN,
            variance: f64::NAN,
            shock: 0.0,
        })
    }

    /// Starts at the first finite return. The reference names averages over up to 2000 returns here; its windows always
    /// hold this one value, and `1e-6` is what it puts in place of their zero variance.
    fn start(&mut self, first: f64) {
        self.center = first;
        self.variance = (self.floor).max(1e-6);
        self.shock = 0.0;
    }

    /// Variance at the bar of return `r`, forecast from the returns before it. At a non-finite return the memory stays
    /// as it is.
    fn step(&mut self, r: f64) {
        if r.is_finite() {
            self.variance = (self.constant + self.alpha * self.shock + self.beta * self.variance).max(self.floor);
            let deviation = r - self.center;
            self.shock = deviation * deviation;
        }
    }

    fn sigma(&self) -> f64 {
        self.variance.sqrt() / self.scale
    }
}

/// GARCH(1,1) deviation of returns.
///
/// With `f` the first finite return, `mu = r_f` and `w` = omega (or `1e-6·max(1e-6, 1 − α − β)`):
/// `v_f = max(1e-6, floor²)`, `v_t = max(w + α·(r_{t−1} − mu)² + β·v_{t−1}, floor²)`, `σ_t = sqrt(v_t) / scale` for
/// `t >= f + min_periods`. At a non-finite return σ repeats.
///
/// `returns`: `[n]`, scaled as by [`returns`]; result `[n]`, fractions (not per cent, not prices): the value at `t` uses
/// returns up to `t − 1`. All NaN if `α + β >= 1`.
///
/// Bollerslev (1986), Journal of Econometrics 31(3), 307–327; start values are the reference's, not an estimate.
pub fn garch_sigma(returns: &[f64], key: &GarchKey, min_periods: u32) -> Vec<f64> {
    let mut out = vec![f64::NAN; returns.len()];
    sigmas_into(returns, key, min_periods, &mut out);
    out
}

fn sigmas_into(returns: &[f64], key: &GarchKey, min_periods: u32, out: &mut [f64]) {
    let Some(mut recursion) = Recursion::new(key) else { return };
    let Some(first) = returns.iter().position(|r| r.is_finite()) else { return };
    let masked = first.saturating_add(min_periods as usize);
    recursion.start(returns[first]);
    for t in first..returns.len() {
        if t > first {
            recursion.step(returns[t]);
        }
        if t >= masked {
            out[t] = recursion.sigma();
        }
    }
}

/// Hides the values of an unmasked deviation (`min_periods = 0`) before its first index plus `min_periods`: bit for bit
/// what [`garch_sigma`] gives with these `min_periods`.
pub fn mask_min_periods(sigma: &[f64], min_periods: u32) -> Vec<f64> {
    let mut out = sigma.to_vec();
    let first = sigma.iter().position(|value| !value.is_nan()).unwrap_or(sigma.len());
    let masked = first.saturating_add(min_periods as usize).min(out.len());
    out[..masked].fill(f64::NAN);
    out
}

/// Kalman+GARCH z-score: `(x_t − k_t) / (|x_t|·σ_t)`; NaN if the denominator is 0 or a part is undefined.
///
/// `x`: closes `[n]`; `mean`: Kalman mean `[n]`; `sigma`: fractions `[n]`. Result `[n]`, a plain number.
pub fn kalman_garch_z(x: &[f64], mean: &[f64], sigma: &[f64]) -> Vec<f64> {
    x.iter().zip(mean.iter().zip(sigma)).map(|(&x, (&k, &sigma))| z_at(x, k, sigma)).collect()
}

fn z_at(x: f64, mean: f64, sigma: f64) -> f64 {
    let scale = x.abs() * sigma;
    if scale == 0.0 { f64::NAN } else { (x - mean) / scale }
}

/// The window of a local form: `lookback` bars up to `idx`, fewer at the start of the data.
fn local_window(len: usize, idx: usize, lookback: u32) -> std::ops::Range<usize> {
    let Some(last) = len.checked_sub(1) else { return 0..0 };
    let idx = idx.min(last);
    (idx + 1).saturating_sub(lookback.max(1) as usize)..idx + 1
}

/// [`garch_sigma`] of the last `lookback` closes up to `idx` alone, one value per close of the window.
///
/// `returns`: `[n]` over the whole history (that of the window's first close is not part of the window); `idx >= n`
/// counts as `n − 1`. `out` is cleared and filled with `min(lookback, idx + 1)` values; it stays empty without data or
/// if `α + β >= 1`.
pub fn garch_sigma_local(
    returns: &[f64],
    idx: usize,
    lookback: u32,
    key: &GarchKey,
    min_periods: u32,
    out: &mut Vec<f64>,
) {
    out.clear();
    let window = local_window(returns.len(), idx, lookback);
    if window.is_empty() || key.alpha.get() + key.beta.get() >= 1.0 {
        return;
    }
    out.resize(window.len(), f64::NAN);
    sigmas_into(&returns[window.start + 1..window.end], key, min_periods, &mut out[1..]);
}

/// Kalman+GARCH z-score at `idx` from the last `lookback` closes alone; NaN where there is none.
///
/// Kalman mean and GARCH deviation restart at the window's first close; the last value counts. None without two closes,
/// with fewer than `min_periods + 2`, with a deviation that is not finite and positive, a close of 0, `α + β >= 1`, or
/// `idx` outside the data. `returns`: `[n]` over the whole history; `gains`: at least `lookback − 1` of
/// [`super::kalman_gains`].
pub fn kalman_garch_z_local(
    closes: &[f64],
    returns: &[f64],
    gains: &[f64],
    idx: usize,
    lookback: u32,
    key: &GarchKey,
    min_periods: u32,
) -> f64 {
    if idx >= closes.len() || returns.len() != closes.len() {
        return f64::NAN;
    }
    let window = local_window(closes.len(), idx, lookback);
    let Some(mut recursion) = Recursion::new(key) else { return f64::NAN };
    let slice = &returns[window.start + 1..window.end];
    let Some(first) = slice.iter().position(|r| r.is_finite()) else { return f64::NAN };
    if slice.len() - 1 < first.saturating_add(min_periods as usize) {
        return f64::NAN;
    }
    recursion.start(slice[first]);
    for &r in &slice[first + 1..] {
        recursion.step(r);
    }
    let sigma = recursion.sigma();
    if !(sigma.is_finite() && sigma > 0.0) {
        return f64::NAN;
    }
    z_at(closes[idx], kalman_last(&closes[window], gains), sigma)
}
