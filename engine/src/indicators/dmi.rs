//! Directional movement: +DI, −DI and ADX.

use super::ewm::ewm;

/// Which of the two directional indicators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Movement {
    /// Rising highs: +DI.
    Plus,
    /// Falling lows: −DI.
    Minus,
}

/// Directional indicator of `period` bars.
///
/// `u = H_t − H_{t−1}`, `d = L_{t−1} − L_t`; `+DM = u` if `u > d` and `u > 0`, else 0; `−DM = d` if `d > u` and `d > 0`,
/// else 0 (both 0 on the first bar and at gaps); `DI = 100·S(DM) / S(TR)`, `S` = [`ewm`] with `α = 1 / p`.
///
/// `high`, `low`, `ranges` (of [`super::true_range`]): `[n]`; result `[n]` in per cent, NaN while `S(TR)` is 0; all NaN
/// for `period = 0`.
///
/// Wilder (1978), New Concepts in Technical Trading Systems; here seeded with the first value, unlike the ATR.
pub fn directional(high: &[f64], low: &[f64], ranges: &[f64], period: u32, movement: Movement) -> Vec<f64> {
    if period == 0 {
        return vec![f64::NAN; high.len()];
    }
    let alpha = 1.0 / f64::from(period);
    let mut moves = vec![0.0; high.len()];
    for t in 1..high.len() {
        let up = high[t] - high[t - 1];
        let down = low[t - 1] - low[t];
        let (this, other) = match movement {
            Movement::Plus => (up, down),
            Movement::Minus => (down, up),
        };
        if this > other && this > 0.0 {
            moves[t] = this;
        }
    }
    let smoothed = ewm(&moves, alpha);
    let scale = ewm(ranges, alpha);
    smoothed.iter().zip(&scale).map(|(m, s)| 100.0 * m / s).collect()
}

/// Average directional index: `DX = 100·|+DI − −DI| / (+DI + −DI)`, `ADX = S(DX)` with `α = 1 / period`.
///
/// `plus`, `minus`: `[n]` of [`directional`]; result `[n]` in per cent, NaN until the first bar with movement (`DX` is
/// `0 / 0` there and skipped); all NaN for `period = 0`.
pub fn adx(plus: &[f64], minus: &[f64], period: u32) -> Vec<f64> {
    if period == 0 {
        return vec![f64::NAN; plus.len()];
    }
    let dx: Vec<f64> = plus.iter().zip(minus).map(|(p, m)| 100.0 * (p - m).abs() / (p + m)).collect();
    ewm(&dx, 1.0 / f64::from(period))
}
