//! Distance from a mean in units of the recent deviation of that distance.

use super::rolling::rolling_sd;

/// z-score of `x` around `center`: `e_t = x_t − c_t`, `z_t = e_t / sd_w(e)_t`.
///
/// The deviation is that of the residuals `e`, not of `x`, and the mean of the residuals is not subtracted. `x`,
/// `center`: `[n]` in one unit; result `[n]`, a plain number, first defined `window − 1` bars after the first residual
/// (`2w − 2` around an SMA of the same window, `w − 1` around an EMA or a Kalman mean). Zero deviation: NaN if the
/// residual is 0 too, else ±inf.
pub fn residual_z(x: &[f64], center: &[f64], window: u32) -> Vec<f64> {
    let residuals: Vec<f64> = x.iter().zip(center).map(|(x, c)| x - c).collect();
    let mut z = rolling_sd(&residuals, window);
    for (z, residual) in z.iter_mut().zip(&residuals) {
        *z = residual / *z;
    }
    z
}
