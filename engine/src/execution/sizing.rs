//! How large a position is.

use pulp::{Scalar, Simd};

use crate::simd::floor;
use crate::strategy::Variant;
use crate::units::round_decimals;

/// Volume grid of a symbol, in lots.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VolumeGrid {
    /// Smallest volume; anchor of the grid.
    pub min: f64,
    /// Distance of two volumes.
    pub step: f64,
    /// Largest volume.
    pub max: f64,
}

impl VolumeGrid {
    /// The largest volume of the grid not above `raw`, capped at the maximum; none below the smallest volume.
    ///
    /// `n = floor((raw − min + 1e-12)/step)`, `min + n·step`. `v2` rounds to 8 decimals and refuses what is too
    /// small, because rounding up would exceed the risk; `v1_parity` does not round and takes the smallest volume.
    /// Source: execution specification §10.2.
    pub fn quantise(&self, raw: f64, variant: Variant) -> Option<f64> {
        if self.is_below(raw) {
            return (variant == Variant::V1Parity).then_some(self.min);
        }
        Some(match variant {
            Variant::V2 => self.largest_up_to(Scalar::new(), raw),
            Variant::V1Parity => self.on_grid(Scalar::new(), raw).min(self.max),
        })
    }

    /// Below the smallest volume, or undefined.
    #[inline(always)]
    pub(crate) fn is_below(&self, raw: f64) -> bool {
        raw + 1e-12 < self.min || raw.is_nan()
    }

    /// [`VolumeGrid::quantise`] of `v2` for volumes that are not [below](Self::is_below) the smallest.
    #[inline(always)]
    pub(crate) fn largest_up_to<S: Simd>(&self, simd: S, raw: S::f64s) -> S::f64s {
        let lots = round_decimals(simd, self.on_grid(simd, raw), 8);
        let max = simd.splat_f64s(self.max);
        simd.select_f64s(simd.less_than_f64s(lots, max), lots, max)
    }

    /// `min + n·step`, not rounded.
    #[inline(always)]
    fn on_grid<S: Simd>(&self, simd: S, raw: S::f64s) -> S::f64s {
        let (min, step) = (simd.splat_f64s(self.min), simd.splat_f64s(self.step));
        let above = simd.add_f64s(simd.sub_f64s(raw, min), simd.splat_f64s(1e-12));
        simd.add_f64s(min, simd.mul_f64s(floor(simd, simd.div_f64s(above, step)), step))
    }
}

/// Sizing by risk: `raw = risk/(stop_pips·pv)`, `stop_pips = |F − S|/p`, evaluated in this order.
///
/// `risk`: account currency; `pip`: price; `pip_value`: account currency per pip and lot. Infinite for a zero
/// distance, which the caller's stop guard excludes in `v2`.
pub fn lots_for_risk(risk: f64, fill: f64, stop: f64, pip: f64, pip_value: f64) -> f64 {
    lots_at_risk(Scalar::new(), risk, (fill, stop), pip, pip_value)
}

/// [`lots_for_risk`] in every lane.
#[inline(always)]
pub(crate) fn lots_at_risk<S: Simd>(
    simd: S,
    risk: f64,
    (fill, stop): (S::f64s, S::f64s),
    pip: f64,
    pip_value: f64,
) -> S::f64s {
    let stop_pips = simd.div_f64s(simd.abs_f64s(simd.sub_f64s(fill, stop)), simd.splat_f64s(pip));
    simd.div_f64s(simd.splat_f64s(risk), simd.mul_f64s(stop_pips, simd.splat_f64s(pip_value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FX: VolumeGrid = VolumeGrid { min: 0.01, step: 0.01, max: 100.0 };

    /// execution §14.3: lots of EURUSD, USDJPY, XAUUSD in USD and EUR accounts.
    #[test]
    fn lots_match_the_golden_table() {
        let eur = 10.0 / 1.1;
        let cases = [
            (100.0, 20.0, 10.0, 0.50),
            (100.0, 20.0, eur, 0.55),
            (100.0, 7.0, 10.0, 1.42),
            (100.0, 7.0, eur, 1.57),
            (100.0, 7.3, 10.0, 1.36),
            (100.0, 7.3, eur, 1.50),
            (100.0, 3.33, 10.0, 3.00),
            (100.0, 3.33, eur, 3.30),
            (1000.0, 34.5, 10.0, 2.89),
            (1000.0, 34.5, eur, 3.18),
            (100.0, 25.0, 1000.0 / 150.0, 0.60),
            (100.0, 25.0, 1000.0 / 150.0 / 1.1, 0.66),
            (100.0, 300.0, 1.0, 0.33),
            (100.0, 300.0, 1.0 / 1.1, 0.36),
        ];
        for (risk, pips, pip_value, lots) in cases {
            let raw = lots_for_risk(risk, pips, 0.0, 1.0, pip_value);
            assert_eq!(FX.quantise(raw, Variant::V2), Some(lots), "{risk} at {pips} pips of {pip_value}");
        }
        let capped = VolumeGrid { max: 200.0, ..FX };
        assert_eq!(capped.quantise(lots_for_risk(100.0, 0.04, 0.0, 1.0, 10.0), Variant::V2), Some(200.0));
        let index = VolumeGrid { min: 0.1, step: 0.1, max: 100.0 };
        assert_eq!(index.quantise(lots_for_risk(100.0, 20.0, 0.0, 1.0, 1.0), Variant::V2), Some(5.0));
        assert_eq!(index.quantise(lots_for_risk(100.0, 20.0, 0.0, 1.0, 1.0 / 1.1), Variant::V2), Some(5.5));
    }

    #[test]
    fn below_the_smallest_lot_the_variants_differ() {
        let raw = lots_for_risk(10.0, 5000.0, 0.0, 1.0, 10.0);
        assert_eq!(FX.quantise(raw, Variant::V2), None);
        assert_eq!(FX.quantise(raw, Variant::V1Parity), Some(0.01));
    }

    /// execution X-18.
    #[test]
    fn parity_keeps_the_binary_tail() {
        assert_eq!(FX.quantise(0.29, Variant::V1Parity), Some(0.01 + 28.0 * 0.01));
        assert_eq!(FX.quantise(0.29, Variant::V2), Some(0.29));
    }
}
