//! Mean of a random walk seen through noise: a scalar Kalman filter.

/// Gains of the filter, one per step: they depend on the variances only, not on the data.
///
/// `P_0 = R`; then `P⁻ = P + Q`, `K = P⁻ / (P⁻ + R)`, `P = (1 − K)·P⁻`.
#[derive(Debug, Clone)]
struct Gains {
    r: f64,
    q: f64,
    p: f64,
    gain: f64,
    settled: bool,
}

impl Gains {
    fn new(r: f64, q: f64) -> Self {
        Self { r, q, p: r, gain: f64::NAN, settled: false }
    }

    fn next(&mut self) -> f64 {
        if !self.settled {
            let predicted = self.p + self.q;
            let gain = predicted / (predicted + self.r);
            let p = (1.0 - gain) * predicted;
            // The recursion is a function of `p` alone: once it repeats, every later gain is this one, to the bit.
            self.settled = p.to_bits() == self.p.to_bits();
            self.p = p;
            self.gain = gain;
        }
        self.gain
    }
}

/// The first `count` gains of a filter that starts at one bar: what a local window uses after its first close.
pub fn kalman_gains(r: f64, q: f64, count: usize) -> Vec<f64> {
    let mut gains = Gains::new(r, q);
    (0..count).map(|_| gains.next()).collect()
}

/// Kalman mean with measurement variance `r` and process variance `q`.
///
/// `k_f = x_f`, `P_f = R` at the first defined input `f`; then `P⁻ = P + Q`, `K = P⁻ / (P⁻ + R)`,
/// `k_t = k_{t−1} + K·(x_t − k_{t−1})`, `P = (1 − K)·P⁻`. Depends on `q / r` only.
///
/// `x`: `[n]`; result `[n]` in the unit of `x`. NaN before `f`; after a missing input NaN for ever.
///
/// Kalman (1960), Journal of Basic Engineering 82(1), 35–45.
pub fn kalman_mean(x: &[f64], r: f64, q: f64) -> Vec<f64> {
    let mut out = vec![f64::NAN; x.len()];
    let Some(first) = x.iter().position(|value| !value.is_nan()) else { return out };
    let mut gains = Gains::new(r, q);
    let mut mean = x[first];
    out[first] = mean;
    for t in first + 1..x.len() {
        mean += gains.next() * (x[t] - mean);
        out[t] = mean;
    }
    out
}

/// The last value of [`kalman_mean`] over `closes` alone, with `gains` of [`kalman_gains`], at least one per close but
/// the first. NaN without a close or with too few gains; the first close must be defined.
pub fn kalman_last(closes: &[f64], gains: &[f64]) -> f64 {
    let Some((&first, rest)) = closes.split_first() else { return f64::NAN };
    if gains.len() < rest.len() {
        return f64::NAN;
    }
    rest.iter().zip(gains).fold(first, |mean, (x, gain)| mean + gain * (x - mean))
}
