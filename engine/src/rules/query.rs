//! The conditions of many settings as bits, each worked out once: whole masks kept for everybody who asks again, or
//! piece by piece of time for those who work together.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use pulp::{Arch, Simd, WithSimd};

use crate::indicators::{Budget, ColumnKey, Keep, Reservation, Shared, Shelf, ZONE};
use crate::rules::compare::{BoundCondition, Values};
use crate::rules::{Condition, Expr, Operand};

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
const STRIP: usize = 32;

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
        let known = self.words_from(node, from / ZONE);
        let mut keep = !0_u64 << (from % ZONE);
        for (at, block) in (from / ZONE..end.div_ceil(ZONE)).enumerate() {
            let bits = known.get(at).copied().unwrap_or_else(|| self.bits(node, block)) & keep;
            if bits != 0 {
                return Some(block * ZONE + bits.trailing_zeros() as usize).filter(|bar| *bar < end);
            }
            keep = !0;
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
    use crate::indicators::{Column, Series, Unlimited};
    use crate::rules::Comparison;
    use crate::rules::compare::tests::holds;
    use crate::units::Timeframe;

    #[test]
    fn bits_are_counted_across_words() {
        let words = [0b1111_u64, 0b0111, 0b0011, 0b0001];
        let of = |count| bits_with_at_least(count, words.into_iter()) & 0b1111;
        assert_eq!([0, 1, 2, 3, 4, 5].map(of), [0b1111, 0b1111, 0b0111, 0b0011, 0b0001, 0]);
        assert_eq!(bits_with_at_least(1 << 20, words.into_iter()), 0);
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
}
