//! Smallest and largest values per block of bars: a threshold that a whole block lies above or below need not be
//! looked for inside it.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

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
        Arch::new().dispatch(OfAll(values))
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
    pub fn extremes_of(&self, values: &[f64], range: Range<usize>) -> (f64, f64) {
        Arch::new().dispatch(InZones { zones: self, values, range })
    }

    /// [`Zones::extremes_of`] for those who are on vectors already.
    #[inline(always)]
    pub(crate) fn extremes_in<S: Simd>(&self, simd: S, values: &[f64], range: Range<usize>) -> (f64, f64) {
        let (first, last) = (range.start.div_ceil(ZONE), range.end / ZONE);
        let mut extremes = Extremes::new(simd);
        if first >= last {
            extremes.take_slice(simd, &values[range]);
            return extremes.finish(simd);
        }
        extremes.take_slice(simd, &values[range.start..first * ZONE]);
        extremes.take_slice(simd, &values[last * ZONE..range.end]);
        // A block without values has the minimum +inf and the maximum -inf.
        let (mut lows, mut highs) = (Extremes::new(simd), Extremes::new(simd));
        lows.take_slice(simd, &self.min[first..last]);
        highs.take_slice(simd, &self.max[first..last]);
        let ((low, high), (lowest, _), (_, highest)) = (extremes.finish(simd), lows.finish(simd), highs.finish(simd));
        (low.min(lowest), high.max(highest))
    }
}

struct InZones<'z> {
    zones: &'z Zones,
    values: &'z [f64],
    range: Range<usize>,
}

impl WithSimd for InZones<'_> {
    type Output = (f64, f64);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f64, f64) {
        self.zones.extremes_in(simd, self.values, self.range)
    }
}

/// [`Zones::new`].
struct OfAll<'a>(&'a [f64]);

impl WithSimd for OfAll<'_> {
    type Output = Zones;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Zones {
        let blocks = self.0.len().div_ceil(ZONE);
        let mut zones = Zones { min: Vec::with_capacity(blocks), max: Vec::with_capacity(blocks), defined_from: 0 };
        for (number, block) in self.0.chunks(ZONE).enumerate() {
            let mut extremes = Extremes::new(simd);
            extremes.take_slice(simd, block);
            let (min, max) = extremes.finish(simd);
            zones.min.push(min);
            zones.max.push(max);
            if block.iter().fold(false, |gap, x| gap | x.is_nan()) {
                zones.defined_from = number + 1;
            }
        }
        zones
    }
}

/// Minimum and maximum of what was taken, NaN left out; `(+inf, -inf)` of nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extremes<S: Simd> {
    low: S::f64s,
    high: S::f64s,
}

impl<S: Simd> Extremes<S> {
    #[inline(always)]
    pub(crate) fn new(simd: S) -> Self {
        Self { low: simd.splat_f64s(f64::INFINITY), high: simd.splat_f64s(f64::NEG_INFINITY) }
    }

    #[inline(always)]
    pub(crate) fn take(&mut self, simd: S, x: S::f64s) {
        // Comparisons, not minima: a comparison with NaN is false.
        self.low = simd.select_f64s(simd.less_than_f64s(x, self.low), x, self.low);
        self.high = simd.select_f64s(simd.less_than_f64s(self.high, x), x, self.high);
    }

    /// Takes the lanes of `mask`.
    #[inline(always)]
    pub(crate) fn take_where(&mut self, simd: S, mask: S::m64s, x: S::f64s) {
        self.take(simd, simd.select_f64s(mask, x, simd.splat_f64s(f64::NAN)));
    }

    /// Takes the values of a slice.
    #[inline(always)]
    pub(crate) fn take_slice(&mut self, simd: S, values: &[f64]) {
        let Some(rest) = values.len().checked_sub(S::F64_LANES) else {
            for x in values {
                self.take(simd, simd.splat_f64s(*x));
            }
            return;
        };
        // What is left over is looked at together with bars seen before: an extreme does not change by being seen twice.
        let tail = values.get(rest..).unwrap_or_default();
        for x in S::as_simd_f64s(values).0 {
            self.take(simd, *x);
        }
        for x in S::as_simd_f64s(tail).0 {
            self.take(simd, *x);
        }
    }

    #[inline(always)]
    pub(crate) fn finish(self, simd: S) -> (f64, f64) {
        (simd.reduce_min_f64s(self.low), simd.reduce_max_f64s(self.high))
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
                assert_eq!(zones.extremes_of(&values, start..end), expected, "{start}..{end}");
            }
        }
        assert_eq!(Zones::new(&[f64::NAN; 3]).min(), [f64::INFINITY]);
    }

    #[test]
    fn every_width_finds_the_same_extremes() {
        for len in (0..40_u32).chain(62..67).chain(126..131) {
            let values: Vec<f64> = (0..len)
                .map(|k| match k * 7 % 11 {
                    0 if k < 100 => f64::NAN,
                    1 if k % 2 == 0 => f64::INFINITY,
                    other => f64::from(other) - 4.0,
                })
                .collect();
            let extremes = |block: &[f64]| {
                let defined = || block.iter().copied().filter(|x| !x.is_nan());
                (defined().fold(f64::INFINITY, f64::min), defined().fold(f64::NEG_INFINITY, f64::max))
            };
            let (min, max) = values.chunks(ZONE).map(extremes).unzip();
            let gap = values.iter().rposition(|x| x.is_nan());
            let expected = Zones { min, max, defined_from: gap.map_or(0, |at| at / ZONE + 1) };
            for found in crate::simd::on_all_widths(|| OfAll(&values)) {
                assert_eq!(found, expected, "{values:?}");
            }
        }
    }
}
