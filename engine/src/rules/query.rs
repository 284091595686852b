//! The conditions of many settings as bits, each worked out once: whole masks kept for everybody who asks again, or
//! piece by piece of time for those who work together.
//!
//! Extremes per block of bars decide most blocks without a look at their values.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use pulp::{Arch, Simd, WithSimd, bytemuck};

use crate::indicators::{Budget, Column, ColumnKey, Keep, Reservation, Shared, Shelf, ZONE, Zones};
use crate::rules::{Comparison, Condition, Expr, Operand};
use crate::simd::lane_bits;

/// A mask that is worked out page by page, when somebody first needs the page, and its booking.
#[derive(Debug)]
struct Booked {
    pages: Vec<OnceLock<Box<[u64; PAGE]>>>,
    /// Dropped with the mask.
    _reservation: Reservation,
}

/// Words of a page.
const PAGE: usize = 128;

impl Booked {
    /// The words of `blocks`, which lie on one page, if they are there.
    fn words(&self, blocks: &Range<usize>) -> Option<&[u64]> {
        let page = self.pages.get(blocks.start / PAGE)?.get()?;
        page.get(blocks.start % PAGE..blocks.start % PAGE + blocks.len())
    }

    fn fill(&self, blocks: &Range<usize>, bound: &BoundCondition<'_>) {
        let number = blocks.start / PAGE;
        if let Some(page) = self.pages.get(number) {
            page.get_or_init(|| {
                let mut words = Box::new([0; PAGE]);
                bound.bits_of(number * PAGE..(number + 1) * PAGE, words.as_mut_slice());
                words
            });
        }
    }
}

#[derive(Debug, Clone)]
struct Kept(Option<Arc<Booked>>);

impl Shared for Kept {
    fn is_last(&self) -> bool {
        self.0.as_ref().is_some_and(|booked| Arc::strong_count(booked) == 1)
    }

    fn is_sound(&self) -> bool {
        self.0.is_some()
    }
}

/// Masks by condition, shared by all trials and threads on one data set.
///
/// A mask that finds no room under the budget is not made; whoever asked works piece by piece. Bits are the same.
pub struct MaskCache {
    shelf: Shelf<Condition, Kept>,
    len: usize,
}

impl MaskCache {
    /// Bars of a page: whoever asks for the bits of a piece of time keeps within one.
    pub(crate) const PAGE_BARS: usize = PAGE * ZONE;

    /// An empty cache for `len` bars.
    pub fn new(len: usize, budget: Arc<dyn Budget>) -> Self {
        Self { shelf: Shelf::new(budget, len.div_ceil(Self::PAGE_BARS) * PAGE * size_of::<u64>()), len }
    }

    /// Memory of one mask in bytes.
    pub fn mask_bytes(&self) -> usize {
        self.shelf.bytes()
    }

    /// Masks made so far.
    pub fn made(&self) -> u64 {
        self.shelf.made()
    }

    /// Drops masks nobody holds until `bytes` are free or none is left; returns the bytes given back to the budget.
    pub fn evict(&self, bytes: usize) -> usize {
        self.shelf.evict(bytes)
    }

    fn get(&self, condition: &Condition) -> Kept {
        self.shelf.get(condition, Keep::Evicting, |reservation| {
            let pages = || (0..self.len.div_ceil(Self::PAGE_BARS)).map(|_| OnceLock::new()).collect();
            Kept(reservation.map(|reservation| Arc::new(Booked { pages: pages(), _reservation: reservation })))
        })
    }
}

impl fmt::Debug for MaskCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaskCache")
            .field("made", &self.made())
            .field("kept", &self.shelf.kept())
            .finish_non_exhaustive()
    }
}

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
    finite: bool,
    /// Bars there are.
    len: usize,
    /// Extremes decide nearly all blocks.
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

    /// Extremes decide seven of eight blocks, as far as a few spread over all bars tell.
    fn looks_settled(&self) -> bool {
        const SAMPLED: usize = 32;
        let blocks = self.len.div_ceil(ZONE);
        let sample = (0..blocks).step_by((blocks / SAMPLED).max(1));
        let open = sample.clone().filter(|block| self.decided(*block).is_none()).count();
        open * 8 <= sample.len()
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
    fn bits_of(&self, blocks: Range<usize>, out: &mut [u64]) {
        if self.settled {
            out.iter_mut().zip(blocks).for_each(|(word, block)| *word = self.bits(block));
        } else {
            Arch::new().dispatch(Compare { bound: self, blocks, out });
        }
    }

    /// As [`BoundCondition::bits_of`], where `opposite` are the bits of the same operands compared the other way round.
    fn bits_of_opposite(&self, opposite: &[u64], blocks: Range<usize>, out: &mut [u64]) {
        for ((word, opposite), block) in out.iter_mut().zip(opposite).zip(blocks) {
            *word = if self.all_defined(block) { !opposite & self.existing(block) } else { self.bits(block) };
        }
    }

    /// No operand is undefined in the block.
    fn all_defined(&self, block: usize) -> bool {
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

/// One condition and where its bits are.
struct Source<'a> {
    condition: Condition,
    bound: BoundCondition<'a>,
    /// Shared with everybody.
    kept: Option<Arc<Booked>>,
    /// Otherwise its row among those of the [`Draft`].
    row: usize,
}

/// The bits of the conditions that are not kept, on the blocks of one piece: a row of words each, in the order in which they
/// are worked out. What that needs lies in the same order.
#[derive(Default)]
struct Draft<'a> {
    /// And whether it is the opposite of the one before it.
    conditions: Vec<(BoundCondition<'a>, bool)>,
    words: Vec<u64>,
    piece: Range<usize>,
}

/// Operands of a side whose conditions are worked out together, and blocks worked out at a time: so that the values of
/// two times so many columns stay in the second-level cache.
const SQUARE: usize = 16;
const STRIP: usize = 16;

impl<'a> Draft<'a> {
    /// Few columns are compared with few others, then the next few.
    fn new(sources: &mut [Source<'a>]) -> Self {
        let ranks = |side: fn(&Condition) -> Operand| -> HashMap<Operand, usize> {
            let operands: BTreeSet<Operand> = sources.iter().map(|source| side(&source.condition)).collect();
            operands.into_iter().enumerate().map(|(rank, operand)| (operand, rank)).collect()
        };
        let (lefts, rights) = (ranks(|condition| condition.left), ranks(|condition| condition.right));
        let mut open: Vec<&mut Source<'a>> = sources.iter_mut().filter(|source| source.kept.is_none()).collect();
        open.sort_by_cached_key(|source| {
            let (row, column) = (lefts[&source.condition.left], rights[&source.condition.right]);
            let comparison = source.condition.comparison;
            (row / SQUARE, column / SQUARE, row, column, comparison.min(comparison.opposite()), comparison)
        });
        open.iter_mut().enumerate().for_each(|(row, source)| source.row = row);
        let is_opposite = |row: usize| {
            let Some([before, source]) = row.checked_sub(1).and_then(|before| open.get(before..=row)) else {
                return false;
            };
            let Condition { left, comparison, right, .. } = source.condition;
            (before.condition.left, before.condition.right) == (left, right)
                && before.condition.comparison == comparison.opposite()
                && !(before.bound.finite || source.bound.finite)
                && source.bound.all_defined(source.bound.len.div_ceil(ZONE).saturating_sub(1))
        };
        let conditions = open.iter().enumerate().map(|(row, source)| (source.bound, is_opposite(row))).collect();
        Self { conditions, words: Vec::new(), piece: 0..0 }
    }

    fn prepare(&mut self, piece: &Range<usize>) {
        self.piece = piece.clone();
        self.words.resize(self.conditions.len() * piece.len(), 0);
        let mut done = 0;
        while done < piece.len() {
            let strip = done..piece.len().min(done + STRIP);
            let blocks = piece.start + strip.start..piece.start + strip.end;
            let mut before: &[u64] = &[];
            for ((bound, is_opposite), out) in self.conditions.iter().zip(self.words.chunks_mut(piece.len())) {
                let out = &mut out[strip.clone()];
                if *is_opposite {
                    bound.bits_of_opposite(before, blocks.clone(), out);
                } else {
                    bound.bits_of(blocks.clone(), out);
                }
                before = out;
            }
            done = strip.end;
        }
    }

    fn row(&self, row: usize) -> &[u64] {
        let width = self.piece.len();
        self.words.get(row * width..(row + 1) * width).unwrap_or_default()
    }
}

/// The conditions of settings that are worked on together, by number.
#[derive(Default)]
pub(crate) struct ConditionSet<'a> {
    sources: Vec<Source<'a>>,
    numbers: HashMap<Condition, u32>,
    /// Made when all conditions are known.
    draft: Option<Draft<'a>>,
}

/// Clears the bits of `out` that are not in `with`.
struct And<'w> {
    out: &'w mut [u64],
    with: &'w [u64],
}

impl WithSimd for And<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ((outs, out), (withs, with)) = (S::as_mut_simd_u64s(self.out), S::as_simd_u64s(self.with));
        for (out, with) in outs.iter_mut().zip(withs) {
            *out = simd.and_u64s(*out, *with);
        }
        for (out, with) in out.iter_mut().zip(with) {
            *out &= with;
        }
    }
}

/// An expression over the numbered conditions of a [`ConditionSet`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Is(u32),
    All(Vec<Node>),
    Any(Vec<Node>),
    AtLeast(usize, Vec<Node>),
    Never,
}

impl<'a> ConditionSet<'a> {
    /// The expression over numbers; conditions not seen before are bound to columns of `len` bars, those of which
    /// `shared` says so to a mask from `cache`.
    ///
    /// # Errors
    /// Whatever `column` says of a column that is missing.
    pub(crate) fn add<E>(
        &mut self,
        expr: &Expr,
        len: usize,
        column: &impl Fn(&ColumnKey) -> Result<Values<'a>, E>,
        cache: &MaskCache,
        shared: &dyn Fn(&Condition) -> bool,
    ) -> Result<Node, E> {
        let mut list = |parts: &[Expr]| {
            parts.iter().map(|part| self.add(part, len, column, cache, shared)).collect::<Result<Vec<_>, E>>()
        };
        Ok(match expr {
            Expr::All(parts) => Node::All(list(parts)?),
            Expr::Any(parts) => Node::Any(list(parts)?),
            Expr::AtLeast { count, of } => Node::AtLeast(*count, list(of)?),
            Expr::Never(_) => Node::Never,
            Expr::Is(condition) => {
                if let Some(number) = self.numbers.get(condition) {
                    return Ok(Node::Is(*number));
                }
                let bound = BoundCondition::bind(condition, len, column)?;
                let kept = if shared(condition) { cache.get(condition).0 } else { None };
                let number = self.sources.len() as u32;
                self.sources.push(Source { condition: *condition, bound, kept, row: 0 });
                self.draft = None;
                self.numbers.insert(*condition, number);
                Node::Is(number)
            }
        })
    }

    /// Works out every condition on the blocks of `piece`, which lie on one page.
    pub(crate) fn prepare_all(&mut self, piece: &Range<usize>) {
        for source in &self.sources {
            if let Some(kept) = &source.kept {
                kept.fill(piece, &source.bound);
            }
        }
        self.draft.get_or_insert_with(|| Draft::new(&mut self.sources)).prepare(piece);
    }

    /// Writes the bits of `node` on the blocks of `piece` to `out`, one word per block. The piece must be prepared.
    pub(crate) fn words(&self, node: &Node, piece: &Range<usize>, out: &mut [u64]) {
        out.fill(!0);
        self.and_into(node, piece, out);
    }

    fn known(&self, number: u32, piece: &Range<usize>) -> &[u64] {
        let source = &self.sources[number as usize];
        let known = match (&source.kept, &self.draft) {
            (Some(kept), _) => kept.words(piece).unwrap_or_default(),
            (None, Some(draft)) if draft.piece == *piece => draft.row(source.row),
            (None, _) => &[],
        };
        assert_eq!(known.len(), piece.len(), "a condition was not worked out");
        known
    }

    /// Clears the bits of `out` on which `node` does not hold.
    fn and_into(&self, node: &Node, piece: &Range<usize>, out: &mut [u64]) {
        match node {
            Node::Is(number) => Arch::new().dispatch(And { out, with: self.known(*number, piece) }),
            Node::All(parts) => parts.iter().for_each(|part| self.and_into(part, piece, out)),
            Node::Never => out.fill(0),
            Node::Any(parts) => self.at_least(1, parts, piece, out),
            Node::AtLeast(count, parts) => self.at_least(*count, parts, piece, out),
        }
    }

    fn at_least(&self, count: usize, parts: &[Node], piece: &Range<usize>, out: &mut [u64]) {
        let mut holding = vec![0_u64; parts.len() * out.len()];
        for (part, words) in parts.iter().zip(holding.chunks_mut(out.len().max(1))) {
            words.fill(!0);
            self.and_into(part, piece, words);
        }
        let width = out.len();
        for (at, out) in out.iter_mut().enumerate() {
            let column = (0..parts.len()).map(|part| holding[part * width + at]);
            *out &= bits_with_at_least(count, column);
        }
    }

    /// The first bar of `from .. end` on which `node` holds, wherever that is.
    pub(crate) fn first(&self, node: &Node, from: usize, end: usize) -> Option<usize> {
        let mut block = from / ZONE;
        let mut keep = !0_u64 << (from % ZONE);
        let found =
            |block: usize, bits: u64| Some(block * ZONE + bits.trailing_zeros() as usize).filter(|bar| *bar < end);
        for word in self.words_from(node, block) {
            let bits = word & keep;
            if bits != 0 || block * ZONE >= end {
                return found(block, bits);
            }
            keep = !0;
            block += 1;
        }
        while block * ZONE < end {
            let bits = self.bits(node, block) & keep;
            if bits != 0 {
                return found(block, bits);
            }
            keep = !0;
            block += 1;
        }
        None
    }

    /// Words of `node` from `block` on, as far as they are there.
    fn words_from(&self, node: &Node, block: usize) -> &[u64] {
        let Node::Is(number) = node else { return &[] };
        let source = &self.sources[*number as usize];
        let Some(draft) = self.draft.as_ref().filter(|_| source.kept.is_none()) else { return &[] };
        block.checked_sub(draft.piece.start).and_then(|at| draft.row(source.row).get(at..)).unwrap_or_default()
    }

    /// The bits of `node` on one block, wherever it lies.
    pub(crate) fn bits(&self, node: &Node, block: usize) -> u64 {
        match node {
            Node::Is(number) => {
                let source = &self.sources[*number as usize];
                let known = match (&source.kept, &self.draft) {
                    (Some(kept), _) => kept.words(&(block..block + 1)).map(|words| words[0]),
                    (None, Some(draft)) if draft.piece.contains(&block) => {
                        draft.row(source.row).get(block - draft.piece.start).copied()
                    }
                    (None, _) => None,
                };
                known.unwrap_or_else(|| source.bound.bits(block))
            }
            Node::All(parts) => {
                parts.iter().fold(!0, |bits, part| if bits == 0 { 0 } else { bits & self.bits(part, block) })
            }
            Node::Any(parts) => parts.iter().fold(0, |bits, part| bits | self.bits(part, block)),
            Node::AtLeast(count, parts) => bits_with_at_least(*count, parts.iter().map(|part| self.bits(part, block))),
            Node::Never => 0,
        }
    }
}

/// Bits set in at least `count` of the words: a count per bit, kept as binary digits across words.
pub(super) fn bits_with_at_least(count: usize, words: impl Iterator<Item = u64>) -> u64 {
    let mut digits = [0_u64; 16];
    for word in words {
        let mut carry = word;
        for digit in &mut digits {
            (*digit, carry) = (*digit ^ carry, *digit & carry);
            if carry == 0 {
                break;
            }
        }
    }
    if count >= 1 << digits.len() {
        return 0;
    }
    // Compared from the highest digit down: greater so far, or equal so far.
    let (mut greater, mut equal) = (0, !0);
    for (at, digit) in digits.iter().enumerate().rev() {
        if count >> at & 1 == 1 {
            equal &= digit;
        } else {
            greater |= equal & digit;
            equal &= !digit;
        }
    }
    greater | equal
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::indicators::{Series, Unlimited};
    use crate::units::Timeframe;

    #[test]
    fn bits_are_counted_across_words() {
        let words = [0b1111_u64, 0b0111, 0b0011, 0b0001];
        let of = |count| bits_with_at_least(count, words.into_iter()) & 0b1111;
        assert_eq!([0, 1, 2, 3, 4, 5].map(of), [0b1111, 0b1111, 0b0111, 0b0011, 0b0001, 0]);
        assert_eq!(bits_with_at_least(1 << 20, words.into_iter()), 0);
    }

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

    #[test]
    fn opposites_are_worked_out_from_each_other() {
        let len = 5 * ZONE + 9;
        let column = |step: usize, undefined: usize| -> Column {
            (0..len).map(|k| if k < undefined { f64::NAN } else { (k * step % 7) as f64 }).collect::<Vec<_>>().into()
        };
        let series = [column(3, 70), column(5, 0), column(4, len)];
        let key = |k: usize| ColumnKey::bid(Timeframe::H1, Series::Sma(k as u32 + 1));
        let find = |wanted: &ColumnKey| -> Result<Values<'_>, Infallible> {
            Ok(Values::from(&series[(0..3).find(|k| key(*k) == *wanted).unwrap()]))
        };
        let cache = MaskCache::new(len, Arc::new(Unlimited));
        let mut set = ConditionSet::default();
        let comparisons = [Comparison::Less, Comparison::LessOrEqual, Comparison::Greater, Comparison::GreaterOrEqual];
        for (a, b) in [(0, 1), (1, 0), (0, 2)] {
            for comparison in comparisons {
                let of = |k| Operand::Column(key(k));
                let condition = Expr::Is(Condition::new(of(a), comparison, of(b)));
                let node = set.add(&condition, len, &find, &cache, &|_| false).unwrap();
                set.prepare_all(&(0..6));
                let mut words = [0; 6];
                set.words(&node, &(0..6), &mut words);
                for i in 0..6 * ZONE {
                    let expected = i < len && holds(comparison, series[a][i], series[b][i]);
                    assert_eq!(words[i / ZONE] >> (i % ZONE) & 1 == 1, expected, "{a} {comparison:?} {b} at {i}");
                }
            }
        }
        let draft = set.draft.unwrap();
        assert_eq!(draft.conditions.iter().filter(|(_, is_opposite)| *is_opposite).count(), 4);
    }

    fn holds(comparison: Comparison, left: f64, right: f64) -> bool {
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
