//! Smallest and largest values per block of bars: a threshold that a whole block lies above or below need not be
//! looked for inside it.

use std::ops::Range;

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
    // Several accumulators, so that the comparisons run side by side.
    const LANES: usize = 8;
    let (mut low, mut high) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            // A comparison with NaN is false.
            low[lane] = if chunk[lane] < low[lane] { chunk[lane] } else { low[lane] };
            high[lane] = if chunk[lane] > high[lane] { chunk[lane] } else { high[lane] };
        }
    }
    for x in rest {
        low[0] = if *x < low[0] { *x } else { low[0] };
        high[0] = if *x > high[0] { *x } else { high[0] };
    }
    let least = low.into_iter().fold(f64::INFINITY, |a, b| if b < a { b } else { a });
    let most = high.into_iter().fold(f64::NEG_INFINITY, |a, b| if b > a { b } else { a });
    (least, most)
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
}
