//! Smallest and largest values per block of bars: a threshold that a whole block lies above or below need not be
//! looked for inside it.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd, bytemuck};

/// Bars of a block; the bits of one mask word.
pub const ZONE: usize = 64;

/// Minimum and maximum of each block of [`ZONE`] values. NaN takes no part: a block of nothing else has the minimum
/// `+inf` and the maximum `-inf`, which no threshold lies between.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Zones {
    min: Vec<f64>,
    max: Vec<f64>,
    defined_from: usize,
}

impl Zones {
    /// The blocks of `values`; the last one may be shorter.
    pub fn new(values: &[f64]) -> Self {
        let (min, max): (Vec<f64>, Vec<f64>) = values.chunks(ZONE).map(extremes).unzip();
        let has_gap = |block: &[f64]| block.iter().any(|x| x.is_nan());
        let defined_from = values.chunks(ZONE).rposition(has_gap).map_or(0, |block| block + 1);
        Self { min, max, defined_from }
    }

    /// Memory of the zones of `len` values, in bytes.
    pub fn bytes_for(len: usize) -> usize {
        len.div_ceil(ZONE) * 2 * size_of::<f64>()
    }

    /// Minima, one per block.
    pub fn min(&self) -> &[f64] {
        &self.min
    }

    /// Maxima, one per block.
    pub fn max(&self) -> &[f64] {
        &self.max
    }

    /// From this block on every value is defined.
    pub fn defined_from(&self) -> usize {
        self.defined_from
    }

    /// Minimum and maximum of `values[range]`, of which these are the zones. `(+inf, -inf)` for an empty range.
    pub fn extremes_in(&self, values: &[f64], range: Range<usize>) -> (f64, f64) {
        let (first, last) = (range.start.div_ceil(ZONE), range.end / ZONE);
        if first >= last {
            return extremes(&values[range]);
        }
        let head = extremes(&values[range.start..first * ZONE]);
        let tail = extremes(&values[last * ZONE..range.end]);
        let (low, _) = extremes(&self.min[first..last]);
        let (_, high) = extremes(&self.max[first..last]);
        (low.min(head.0).min(tail.0), high.max(head.1).max(tail.1))
    }
}

/// Minimum and maximum, NaN left out.
fn extremes(values: &[f64]) -> (f64, f64) {
    Arch::new().dispatch(Extremes(values))
}

struct Extremes<'a>(&'a [f64]);

impl WithSimd for Extremes<'_> {
    type Output = (f64, f64);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f64, f64) {
        // Comparisons, not minima: a comparison with NaN is false.
        let narrow = |(low, high): (f64, f64), x: f64| (if x < low { x } else { low }, if x > high { x } else { high });
        let nothing = (f64::INFINITY, f64::NEG_INFINITY);
        let values = self.0;
        let Some(rest) = values.len().checked_sub(S::F64_LANES) else {
            return values.iter().copied().fold(nothing, narrow);
        };
        let (mut low, mut high) = (simd.splat_f64s(nothing.0), simd.splat_f64s(nothing.1));
        // What is left over is looked at together with bars seen before: an extreme does not change by being seen twice.
        let tail = values.get(rest..).unwrap_or_default();
        for x in S::as_simd_f64s(values).0.iter().chain(S::as_simd_f64s(tail).0) {
            low = simd.select_f64s(simd.less_than_f64s(*x, low), *x, low);
            high = simd.select_f64s(simd.less_than_f64s(high, *x), *x, high);
        }
        let lanes = |lanes: &[f64]| lanes.iter().copied().fold(nothing, narrow);
        let of = |x: S::f64s| lanes(bytemuck::cast_slice(std::slice::from_ref(&x)));
        (of(low).0, of(high).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_of_any_range_agree_with_a_plain_scan() {
        let values: Vec<f64> =
            (0..400_u32).map(|k| if k % 37 == 0 { f64::NAN } else { f64::from(k * 7919 % 1000) }).collect();
        let zones = Zones::new(&values);
        for start in (0..400).step_by(7) {
            for end in (start..=400).step_by(11) {
                let defined = || values[start..end].iter().copied().filter(|x| !x.is_nan());
                let expected = (defined().fold(f64::INFINITY, f64::min), defined().fold(f64::NEG_INFINITY, f64::max));
                assert_eq!(zones.extremes_in(&values, start..end), expected, "{start}..{end}");
            }
        }
        assert_eq!(Zones::new(&[f64::NAN; 3]).min(), [f64::INFINITY]);
    }

    #[test]
    fn every_width_finds_the_same_extremes() {
        for len in 0..40_u32 {
            let values: Vec<f64> = (0..len)
                .map(|k| match k * 7 % 11 {
                    0 => f64::NAN,
                    1 if k % 2 == 0 => f64::INFINITY,
                    other => f64::from(other) - 4.0,
                })
                .collect();
            let defined = || values.iter().copied().filter(|x| !x.is_nan());
            let expected = (defined().fold(f64::INFINITY, f64::min), defined().fold(f64::NEG_INFINITY, f64::max));
            for found in crate::simd::on_all_widths(|| Extremes(&values)) {
                assert_eq!(found, expected, "{values:?}");
            }
        }
    }
}
