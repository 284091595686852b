//! Exponential weighting without adjustment term, and what is built of it directly: EMA and MACD.

/// Exponentially weighted mean with weight `alpha` of the newest value, seeded with the first defined one.
///
/// `y_t = (1 − α)·y_{t−1} + α·x_t`; where `x_t = y_{t−1}` the value is kept, so a constant series stays constant to the
/// bit. At a NaN input the output repeats; after `g` NaNs
/// `y_t = ((1 − α)^{g+1}·y + α·x_t) / ((1 − α)^{g+1} + α)`.
///
/// `x`: `[n]`, any unit; result `[n]` in the same unit, NaN before the first defined input. The convention of pandas 2
/// `ewm(adjust=False, ignore_na=False, min_periods=0)`.
pub fn ewm(x: &[f64], alpha: f64) -> Vec<f64> {
    let decay = 1.0 - alpha;
    let mut out = Vec::with_capacity(x.len());
    let mut y = f64::NAN;
    let mut gap = 0_usize;
    // Weight of the old value: decays over a gap.
    let mut old = decay;
    for &value in x {
        if value.is_nan() {
            if !y.is_nan() {
                gap += 1;
                old *= decay;
            }
        } else {
            if y.is_nan() {
                y = value;
            } else if value != y {
                y = if gap == 0 { decay * y + alpha * value } else { (old * y + alpha * value) / (old + alpha) };
            }
            gap = 0;
            old = decay;
        }
        out.push(y);
    }
    out
}

/// Exponential moving average: [`ewm`] with `α = 2 / (period + 1)`.
///
/// `x`: `[n]`; result `[n]` in the unit of `x`, defined from the first defined input; all NaN for `period = 0`. Seeded
/// with the first value, not with an average of the first `period`.
pub fn ema(x: &[f64], period: u32) -> Vec<f64> {
    if period == 0 {
        return vec![f64::NAN; x.len()];
    }
    ewm(x, 2.0 / (f64::from(period) + 1.0))
}

/// MACD line: `EMA(fast) − EMA(slow)`, both `[n]` and of the same input. Unit of the input, defined from 0.
pub fn macd_line(fast: &[f64], slow: &[f64]) -> Vec<f64> {
    fast.iter().zip(slow).map(|(f, s)| f - s).collect()
}

/// Signal line of the MACD: [`ema`] of the line with period `signal`.
pub fn macd_signal(line: &[f64], signal: u32) -> Vec<f64> {
    ema(line, signal)
}
