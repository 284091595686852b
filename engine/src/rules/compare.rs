//! A condition tied to its columns, and the bits of the bars on which it holds.
//!
//! Extremes per block of bars decide most blocks without a look at their values.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd, bytemuck};

use crate::indicators::{Column, ColumnKey, ZONE, Zones};
use crate::rules::{Comparison, Condition, Operand};
use crate::simd::lane_bits;

/// An operand over values, with their extremes per block where they are known.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Term<'a> {
    Const(f64),
    Column(Values<'a>),
    Linear { base: Values<'a>, factor: f64, term: Values<'a> },
    Offset { base: Values<'a>, offset: f64 },
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Values<'a> {
    values: &'a [f64],
    zones: Option<&'a Zones>,
}

impl<'a> From<&'a [f64]> for Values<'a> {
    fn from(values: &'a [f64]) -> Self {
        Self { values, zones: None }
    }
}

impl<'a> From<&'a Column> for Values<'a> {
    fn from(column: &'a Column) -> Self {
        Self { values: column, zones: column.zones() }
    }
}

/// Bounds of what a term is in a block: every defined value lies between them.
type Bounds = (f64, f64);

impl Values<'_> {
    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    #[inline]
    fn bounds(&self, block: usize) -> Option<Bounds> {
        let zones = self.zones?;
        Some((*zones.min().get(block)?, *zones.max().get(block)?))
    }

    /// No value of the block is undefined.
    #[inline]
    fn all_defined(&self, block: usize) -> bool {
        self.zones.is_some_and(|zones| zones.defined_from() <= block)
    }

    /// Those of the blocks that are full.
    #[inline]
    fn full(&self, blocks: &Range<usize>) -> &[[f64; ZONE]] {
        let (all, _) = self.values.as_chunks();
        all.get(blocks.start..blocks.end.min(all.len())).unwrap_or_default()
    }

    fn block<'s>(&'s self, block: usize, scratch: &'s mut [f64; ZONE]) -> &'s [f64; ZONE] {
        let rest = self.values.get(block * ZONE..).unwrap_or_default();
        rest.first_chunk().unwrap_or_else(|| {
            *scratch = std::array::from_fn(|k| rest.get(k).copied().unwrap_or(f64::NAN));
            scratch
        })
    }
}

impl<'a> Term<'a> {
    /// Ties an operand to its columns.
    pub(crate) fn bind<E>(operand: &Operand, column: &impl Fn(&ColumnKey) -> Result<Values<'a>, E>) -> Result<Self, E> {
        Ok(match operand {
            Operand::Const(value) => Self::Const(value.get()),
            Operand::Column(key) => Self::Column(column(key)?),
            Operand::Linear { base, factor, term } => {
                Self::Linear { base: column(base)?, factor: factor.get(), term: column(term)? }
            }
            Operand::Offset { base, offset } => Self::Offset { base: column(base)?, offset: offset.get() },
        })
    }

    /// Reads the bars of `range` in order; see [`read_ahead`].
    pub(crate) fn read_ahead(&self, range: &Range<usize>) {
        match self {
            Self::Const(_) => {}
            Self::Column(column) | Self::Offset { base: column, .. } => read_ahead(column.values, range),
            Self::Linear { base, term, .. } => {
                read_ahead(base.values, range);
                read_ahead(term.values, range);
            }
        }
    }

    /// The operand at bar `i`.
    #[inline]
    pub(crate) fn value(&self, i: usize) -> f64 {
        match *self {
            Self::Const(value) => value,
            Self::Column(column) => column.values[i],
            Self::Linear { base, factor, term } => base.values[i] + factor * term.values[i],
            Self::Offset { base, offset } => base.values[i] + offset,
        }
    }

    /// Each rounded operation is monotone, so it may be applied to the ends.
    #[inline]
    fn bounds(&self, block: usize) -> Option<Bounds> {
        match self {
            Self::Const(value) => Some((*value, *value)),
            Self::Column(column) => column.bounds(block),
            Self::Offset { base, offset } => base.bounds(block).map(|(low, high)| (low + offset, high + offset)),
            Self::Linear { base, factor, term } => {
                let ((low, high), (from, to)) = (base.bounds(block)?, term.bounds(block)?);
                let (a, b) = (factor * from, factor * to);
                let (least, most) = if *factor >= 0.0 { (a, b) } else { (b, a) };
                Some((low + least, high + most))
            }
        }
    }

    #[inline]
    fn all_defined(&self, block: usize) -> bool {
        match self {
            Self::Const(_) => true,
            Self::Column(column) | Self::Offset { base: column, .. } => column.all_defined(block),
            // The product or the sum of infinities may be undefined.
            Self::Linear { .. } => false,
        }
    }

    /// No value of the block is infinite. (An undefined one fails every comparison anyway.)
    #[inline]
    fn all_finite(&self, block: usize) -> bool {
        self.bounds(block).is_some_and(|(low, high)| low > f64::NEG_INFINITY && high < f64::INFINITY)
    }

    fn block<'s>(&'s self, block: usize, scratch: &'s mut [f64; ZONE]) -> &'s [f64; ZONE] {
        match self {
            Self::Const(value) => scratch.fill(*value),
            Self::Column(column) => return column.block(block, scratch),
            Self::Linear { base, factor, term } => {
                let (mut bases, mut terms) = ([0.0; ZONE], [0.0; ZONE]);
                let (base, term) = (base.block(block, &mut bases), term.block(block, &mut terms));
                *scratch = std::array::from_fn(|k| base[k] + factor * term[k]);
            }
            Self::Offset { base, offset } => {
                let mut bases = [0.0; ZONE];
                *scratch = base.block(block, &mut bases).map(|base| base + offset);
            }
        }
        scratch
    }
}

/// Reads one value per cache line of `values[range]` in order, so that the processor fetches ahead. Whoever then looks at
/// scattered bars of it finds them in the cache.
pub(crate) fn read_ahead(values: &[f64], range: &Range<usize>) {
    const LINE: usize = 8;
    let piece = values.get(range.clone()).unwrap_or_default();
    std::hint::black_box(piece.iter().step_by(LINE).fold(0.0, |sum, value| sum + value));
}

/// A condition over columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BoundCondition<'a> {
    left: Term<'a>,
    comparison: Comparison,
    right: Term<'a>,
    /// Infinite values are still to be cut.
    pub(super) finite: bool,
    /// Bars there are.
    pub(super) len: usize,
    /// Extremes decide most blocks.
    settled: bool,
}

impl<'a> BoundCondition<'a> {
    /// Ties a condition to its columns, which have `len` bars.
    pub(crate) fn bind<E>(
        condition: &Condition,
        len: usize,
        column: &impl Fn(&ColumnKey) -> Result<Values<'a>, E>,
    ) -> Result<Self, E> {
        let mut bound = Self {
            left: Term::bind(&condition.left, column)?,
            comparison: condition.comparison,
            right: Term::bind(&condition.right, column)?,
            finite: condition.finite,
            len,
            settled: false,
        };
        // Where no block has an infinite value there is nothing to cut.
        bound.finite = bound.finite && !(0..len.div_ceil(ZONE)).all(|block| bound.left.all_finite(block));
        bound.settled = bound.looks_settled();
        Ok(bound)
    }

    /// Extremes decide three of four blocks, as far as a few spread over all bars tell.
    fn looks_settled(&self) -> bool {
        const SAMPLED: usize = 32;
        let blocks = self.len.div_ceil(ZONE);
        let sample = (0..blocks).step_by((blocks / SAMPLED).max(1));
        let open = sample.clone().filter(|block| self.decided(*block).is_none()).count();
        open * 4 <= sample.len()
    }

    /// One bit per bar of a block.
    pub(crate) fn bits(&self, block: usize) -> u64 {
        self.decided(block).unwrap_or_else(|| {
            let mut word = [0];
            Arch::new().dispatch(Compare { bound: self, blocks: block..block + 1, out: &mut word });
            word[0]
        })
    }

    /// The bits of many blocks. Where extremes leave some open, none is left out: values that are read in order come from
    /// memory several times faster than those behind gaps.
    pub(super) fn bits_of(&self, blocks: Range<usize>, out: &mut [u64]) {
        if self.settled {
            out.iter_mut().zip(blocks).for_each(|(word, block)| *word = self.bits(block));
        } else {
            Arch::new().dispatch(Compare { bound: self, blocks, out });
        }
    }

    /// As [`BoundCondition::bits_of`], where `opposite` are the bits of the same operands compared the other way round.
    pub(super) fn bits_of_opposite(&self, opposite: &[u64], blocks: Range<usize>, out: &mut [u64]) {
        for ((word, opposite), block) in out.iter_mut().zip(opposite).zip(blocks) {
            *word = if self.all_defined(block) { !opposite & self.existing(block) } else { self.bits(block) };
        }
    }

    /// No operand is undefined in the block.
    pub(super) fn all_defined(&self, block: usize) -> bool {
        self.left.all_defined(block) && self.right.all_defined(block)
    }

    /// Clears the bits of what is not finite, where it must be, and of what lies behind the end: there everything is
    /// undefined, but two constants compare as ever.
    #[inline(always)]
    fn cut(&self, blocks: Range<usize>, out: &mut [u64]) {
        if self.finite {
            self.cut_infinite(blocks.clone(), out);
        }
        if blocks.end * ZONE > self.len {
            out.iter_mut().zip(blocks).for_each(|(word, block)| *word &= self.existing(block));
        }
    }

    #[inline(never)]
    fn cut_infinite(&self, blocks: Range<usize>, out: &mut [u64]) {
        for (word, block) in out.iter_mut().zip(blocks) {
            if *word != 0 && !self.left.all_finite(block) {
                let mut scratch = [0.0; ZONE];
                let values = self.left.block(block, &mut scratch);
                *word &= values.iter().enumerate().fold(0, |bits, (k, x)| bits | u64::from(x.is_finite()) << k);
            }
        }
    }

    /// The bits of a block that its extremes decide.
    #[inline]
    fn decided(&self, block: usize) -> Option<u64> {
        let ((l_min, l_max), (r_min, r_max)) = (self.left.bounds(block)?, self.right.bounds(block)?);
        let (possible, certain) = match self.comparison {
            Comparison::Less => (l_min < r_max, l_max < r_min),
            Comparison::LessOrEqual => (l_min <= r_max, l_max <= r_min),
            Comparison::Greater => (l_max > r_min, l_min > r_max),
            Comparison::GreaterOrEqual => (l_max >= r_min, l_min >= r_max),
        };
        if !possible {
            // Also where a side is undefined throughout. A bound that is undefined itself decides nothing.
            return (!l_min.is_nan() && !l_max.is_nan() && !r_min.is_nan() && !r_max.is_nan()).then_some(0);
        }
        let all = certain && (!self.finite || self.left.all_finite(block)) && self.all_defined(block);
        all.then(|| self.existing(block))
    }

    /// Bits of the bars of a block that exist.
    #[inline]
    fn existing(&self, block: usize) -> u64 {
        let left = self.len.saturating_sub(block * ZONE);
        if left >= ZONE { !0 } else { (1_u64 << left) - 1 }
    }
}

/// The bits of blocks of bars, value by value, with the widest vectors the processor has. A comparison with NaN is false by
/// IEEE rules: an undefined operand needs no test of its own.
struct Compare<'c, 'a> {
    bound: &'c BoundCondition<'a>,
    blocks: Range<usize>,
    out: &'c mut [u64],
}

impl WithSimd for Compare<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { bound, blocks, out } = self;
        // a > b is b < a.
        match bound.comparison {
            Comparison::Less => compare::<S, false>(simd, &bound.left, &bound.right, blocks.clone(), out),
            Comparison::LessOrEqual => compare::<S, true>(simd, &bound.left, &bound.right, blocks.clone(), out),
            Comparison::Greater => compare::<S, false>(simd, &bound.right, &bound.left, blocks.clone(), out),
            Comparison::GreaterOrEqual => compare::<S, true>(simd, &bound.right, &bound.left, blocks.clone(), out),
        }
        bound.cut(blocks, out);
    }
}

/// `left < right`, or `left <= right`.
#[inline(always)]
fn compare<S: Simd, const OR_EQUAL: bool>(
    simd: S,
    left: &Term<'_>,
    right: &Term<'_>,
    blocks: Range<usize>,
    out: &mut [u64],
) {
    // Columns and constants are compared where they lie, up to a last block that is not full.
    let mut whole = 0;
    match (left, right) {
        (Term::Column(left), Term::Column(right)) => {
            let (left, right) = (left.full(&blocks), right.full(&blocks));
            for ((word, left), right) in out.iter_mut().zip(left).zip(right) {
                *word = word_of::<S, OR_EQUAL>(simd, left, right);
                whole += 1;
            }
        }
        (Term::Column(left), Term::Const(right)) => {
            let right = Everywhere(simd.splat_f64s(*right));
            for (word, left) in out.iter_mut().zip(left.full(&blocks)) {
                *word = word_of::<S, OR_EQUAL>(simd, left, right);
                whole += 1;
            }
        }
        (Term::Const(left), Term::Column(right)) => {
            let left = Everywhere(simd.splat_f64s(*left));
            for (word, right) in out.iter_mut().zip(right.full(&blocks)) {
                *word = word_of::<S, OR_EQUAL>(simd, left, right);
                whole += 1;
            }
        }
        _ => {}
    }
    for (word, block) in out.iter_mut().zip(blocks).skip(whole) {
        let (mut lefts, mut rights) = ([0.0; ZONE], [0.0; ZONE]);
        *word = word_of::<S, OR_EQUAL>(simd, left.block(block, &mut lefts), right.block(block, &mut rights));
    }
}

/// The bit of each bar of a block.
const BIT: [u64; ZONE] = {
    let mut bits = [0; ZONE];
    let mut k = 0;
    while k < ZONE {
        bits[k] = 1 << k;
        k += 1;
    }
    bits
};

/// One side of a comparison on a block, vector by vector.
trait Side<S: Simd>: Copy {
    fn vector(self, at: usize) -> S::f64s;
}

/// The same on every bar.
#[derive(Clone, Copy)]
struct Everywhere<V>(V);

impl<S: Simd> Side<S> for Everywhere<S::f64s> {
    #[inline(always)]
    fn vector(self, _: usize) -> S::f64s {
        self.0
    }
}

impl<S: Simd> Side<S> for &[f64; ZONE] {
    #[inline(always)]
    fn vector(self, at: usize) -> S::f64s {
        S::as_simd_f64s(self).0[at]
    }
}

/// The bits of one block.
#[inline(always)]
fn word_of<S: Simd, const OR_EQUAL: bool>(simd: S, left: impl Side<S>, right: impl Side<S>) -> u64 {
    let vectors = ZONE / S::F64_LANES;
    if vectors == 8 {
        // Answers are bytes already.
        let mut bytes = [0; 8];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = lane_bits::<S>(holds::<S, OR_EQUAL>(simd, left.vector(at), right.vector(at))) as u8;
        }
        return u64::from_le_bytes(bytes);
    }
    let mut bits = simd.splat_u64s(0);
    for (at, bit) in S::as_simd_u64s(&BIT).0.iter().enumerate() {
        let holds = holds::<S, OR_EQUAL>(simd, left.vector(at), right.vector(at));
        bits = simd.or_u64s(bits, simd.select_u64s(holds, *bit, simd.splat_u64s(0)));
    }
    let lanes: &[u64] = bytemuck::cast_slice(std::slice::from_ref(&bits));
    let mut word = 0;
    for lane in lanes {
        word |= lane;
    }
    word
}

#[inline(always)]
fn holds<S: Simd, const OR_EQUAL: bool>(simd: S, left: S::f64s, right: S::f64s) -> S::m64s {
    if OR_EQUAL { simd.less_than_or_equal_f64s(left, right) } else { simd.less_than_f64s(left, right) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn every_width_compares_alike() {
        let len = 3 * ZONE + 17;
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0];
        let column = |step: usize| -> Vec<f64> {
            (0..len).map(|k| odd.get(k * step % 23).copied().unwrap_or((k * step % 7) as f64 - 3.0)).collect()
        };
        let (a, b) = (column(5), column(3));
        let (first, second) = (Values::from(a.as_slice()), Values::from(b.as_slice()));
        let terms = [
            Term::Column(first),
            Term::Column(second),
            Term::Const(1.0),
            Term::Const(f64::NAN),
            Term::Linear { base: first, factor: -0.5, term: second },
            Term::Offset { base: second, offset: 1.0 },
        ];
        for (left, right) in terms.iter().flat_map(|left| terms.iter().map(move |right| (*left, *right))) {
            for comparison in
                [Comparison::Less, Comparison::LessOrEqual, Comparison::Greater, Comparison::GreaterOrEqual]
            {
                let bound = BoundCondition { left, comparison, right, finite: false, len, settled: false };
                for out in crate::simd::on_all_widths(|| Alone(&bound)) {
                    for i in 0..4 * ZONE {
                        let holds = i < len && holds(comparison, left.value(i), right.value(i));
                        assert_eq!(
                            out[i / ZONE] >> (i % ZONE) & 1 == 1,
                            holds,
                            "{left:?} {comparison:?} {right:?} at {i}"
                        );
                    }
                }
            }
        }
    }

    pub(crate) fn holds(comparison: Comparison, left: f64, right: f64) -> bool {
        match comparison {
            Comparison::Less => left < right,
            Comparison::LessOrEqual => left <= right,
            Comparison::Greater => left > right,
            Comparison::GreaterOrEqual => left >= right,
        }
    }

    /// [`Compare`] on all bars.
    struct Alone<'c, 'a>(&'c BoundCondition<'a>);

    impl WithSimd for Alone<'_, '_> {
        type Output = [u64; 4];

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> [u64; 4] {
            let mut out = [0; 4];
            Compare { bound: self.0, blocks: 0..4, out: &mut out }.with_simd(simd);
            out
        }
    }
}
