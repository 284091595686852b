//! What is measured by the range of a bar: true range, Wilder's ATR, choppiness.

use super::rolling::{rolling_max, rolling_min, rolling_sum};

/// True range: `max(|H_t − L_t|, |H_t − C_{t−1}|, |L_t − C_{t−1}|)`, undefined members ignored; `|H − L|` on the first
/// bar.
///
/// `high`, `low`, `close`: `[n]`, prices of one side; result `[n]`, a price difference, NaN on a missing bar.
///
/// Wilder (1978), New Concepts in Technical Trading Systems.
pub fn true_range(high: &[f64], low: &[f64], close: &[f64]) -> Vec<f64> {
    let previous = std::iter::once(f64::NAN).chain(close.iter().copied());
    high.iter()
        .zip(low)
        .zip(previous)
        // `f64::max` returns the other operand where one is NaN.
        .map(|((h, l), c)| (h - l).abs().max((h - c).abs()).max((l - c).abs()))
        .collect()
}

/// Wilder's average true range of `period` bars.
///
/// With `f` the first bar of defined range: `A_{f+p−1} = mean(TR_f … TR_{f+p−1})`, then
/// `A_t = (A_{t−1}·(p − 1) + TR_t) / p`; repeated where the range is undefined. All NaN if one of the first `p` ranges
/// is not finite (no later start is sought), if there are fewer than `p`, or for `p = 0`.
///
/// `ranges`: `[n]` of [`true_range`]; result `[n]` in the unit of price.
///
/// Wilder (1978), New Concepts in Technical Trading Systems.
pub fn atr(ranges: &[f64], period: u32) -> Vec<f64> {
    let p = period as usize;
    let mut out = vec![f64::NAN; ranges.len()];
    let Some(first) = ranges.iter().position(|range| !range.is_nan()) else { return out };
    let Some(seed) = ranges.get(first..first.saturating_add(p)) else { return out };
    if p == 0 || seed.iter().any(|range| !range.is_finite()) {
        return out;
    }
    let length = f64::from(period);
    let mut value = seed.iter().sum::<f64>() / length;
    out[first + p - 1] = value;
    for t in first + p..ranges.len() {
        if !ranges[t].is_nan() {
            value = (value * (length - 1.0) + ranges[t]) / length;
        }
        out[t] = value;
    }
    out
}

/// Choppiness index: `100·log10(Σ TR_p / (max H_p − min L_p)) / log10(p)` over the last `p = period` bars.
///
/// All arguments `[n]`; result `[n]` in per cent, high in a sideways market, can exceed 100. NaN while `t < p − 1`, where
/// a bar of the window is missing and where its range is 0; ±inf for `p = 1`.
///
/// Dreiss (1993), the choppiness index.
pub fn choppiness(ranges: &[f64], high: &[f64], low: &[f64], period: u32) -> Vec<f64> {
    let sums = rolling_sum(ranges, period);
    let highest = rolling_max(high, period);
    let lowest = rolling_min(low, period);
    let scale = libm::log10(f64::from(period));
    sums.iter()
        .zip(highest.iter().zip(&lowest))
        .map(|(sum, (top, bottom))| {
            let range = top - bottom;
            if range == 0.0 { f64::NAN } else { 100.0 * libm::log10(sum / range) / scale }
        })
        .collect()
}
