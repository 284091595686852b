//! Strength and rate of recent moves: RSI and ROC.

use super::ewm::ewm;

/// Relative strength index of `period` bars.
///
/// `d_t = x_t − x_{t−1}`; `g`, `l` = [`ewm`] with `α = 1 / p` of `max(d, 0)` and `max(−d, 0)`, seeded at `t = 1`;
/// `100 − 100 / (1 + g / l)`.
///
/// `x`: `[n]`; result `[n]` in 0 … 100. NaN at 0 and until the first change; 100 if there were gains only; all NaN for
/// `period = 0`.
///
/// Wilder (1978), New Concepts in Technical Trading Systems; here seeded with the first change, not with an average.
pub fn rsi(x: &[f64], period: u32) -> Vec<f64> {
    if period == 0 {
        return vec![f64::NAN; x.len()];
    }
    let alpha = 1.0 / f64::from(period);
    let moves = |sign: f64| -> Vec<f64> {
        let mut moves = vec![f64::NAN; x.len()];
        for t in 1..x.len() {
            let change = sign * (x[t] - x[t - 1]);
            // Not `f64::max`: an undefined change stays undefined.
            moves[t] = if change < 0.0 { 0.0 } else { change };
        }
        moves
    };
    let gains = ewm(&moves(1.0), alpha);
    let losses = ewm(&moves(-1.0), alpha);
    gains.iter().zip(&losses).map(|(g, l)| 100.0 - 100.0 / (1.0 + g / l)).collect()
}

/// Rate of change: `100·(x_t − x_{t−p}) / x_{t−p}` with `p = period`.
///
/// `x`: `[n]`; result `[n]` in per cent, NaN for the first `p`; ±inf or NaN where the earlier value is 0.
pub fn roc(x: &[f64], period: u32) -> Vec<f64> {
    let p = period as usize;
    let mut out = vec![f64::NAN; x.len()];
    for t in p..x.len() {
        out[t] = 100.0 * (x[t] - x[t - p]) / x[t - p];
    }
    out
}
