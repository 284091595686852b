//! Where positions leave, found once per entry bar and exit rule and shared by all settings that leave by it.
//!
//! Where a position ends depends on its entry bar and its exit rule, not on the road to it. The money of a round trip
//! depends on more; it is kept too while slippage is the same for every fill and the terms do not change.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::backtest::jump::{Course, Held, Leave, Outline, Packed, Wish};
use crate::backtest::landmarks::{Bracket, Landmarks};
use crate::backtest::walk::check_signal;
use crate::data::Bars;
use crate::error::Error;
use crate::execution::{ExitReason, Levels, Terms, level_exit};
use crate::rules::{ConditionSet, Node, Rule, Term};
use crate::strategy::Variant;
use crate::units::{Direction, round_decimal};

/// One way out of a position, tied to its columns.
pub(super) struct ExitRule<'a> {
    pub(super) rule: &'a Rule,
    pub(super) stop: Option<Term<'a>>,
    pub(super) target: Option<Term<'a>>,
    pub(super) condition: Option<Node>,
    pub(super) level_decimals: Option<u8>,
}

/// What an entry on a bar comes to, whatever it costs.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// A level is undefined: no signal.
    Undefined,
    /// The signal is not valid: the run fails.
    Invalid(Box<Error>),
    /// A position.
    Position(Position),
}

/// A position and its natural end: without time limits by the clock, window ends and the end of the data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Position {
    pub(super) wish: Wish,
    /// None: it leaves on no bar that was looked at.
    pub(super) leave: Option<Leave>,
    /// Extremes of the middle price over the bars it is marked on until then.
    pub(super) mids: (f64, f64),
}

impl Position {
    /// The extremes of the middle price until a way out that may be earlier than the natural one.
    pub(super) fn mids_until(&self, landmarks: &Landmarks, entry: usize, exit: usize) -> (f64, f64) {
        match self.leave {
            Some(natural) if natural.bar == exit => self.mids,
            _ => landmarks.mids(entry..exit),
        }
    }
}

/// Where exits are looked for.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) bars: &'a Bars,
    pub(super) landmarks: &'a Landmarks,
    pub(super) buffer: f64,
    /// No exit behind this bar matters to anybody.
    pub(super) end: usize,
}

/// What an entry at the close of `bar` comes to is looked for.
#[derive(Clone, Copy)]
pub(super) struct Search<'s, 'a> {
    pub(super) exit: &'s ExitRule<'a>,
    pub(super) conditions: &'s ConditionSet<'a>,
    pub(super) ground: Ground<'s>,
    pub(super) bar: usize,
}

impl WithSimd for Search<'_, '_> {
    type Output = Entry;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Entry {
        let Self { exit, ground, bar, .. } = self;
        let (stop, target) = (exit.stop.map(|term| term.value(bar)), exit.target.map(|term| term.value(bar)));
        if stop.is_some_and(f64::is_nan) || target.is_some_and(f64::is_nan) {
            return Entry::Undefined;
        }
        let rounded = |level: Option<f64>| match exit.level_decimals {
            Some(decimals) => level.map(|value| round_decimal(value, decimals)),
            None => level,
        };
        let direction = exit.rule.direction;
        let requested = match direction {
            Direction::Long => ground.bars.ask.close[bar],
            Direction::Short => ground.bars.bid.close[bar],
        };
        let lots = exit.rule.lots.map(|lots| lots.get());
        let wish = Wish { direction, requested, stop: rounded(stop), target: rounded(target), lots };
        if let Err(error) = check_signal(ground.bars, bar, requested, wish.stop, wish.target, lots, Variant::V2) {
            return Entry::Invalid(Box::new(error));
        }
        let (leave, mids) = self.leave(simd, &wish);
        Entry::Position(Position { wish, leave, mids })
    }
}

impl Search<'_, '_> {
    /// The earliest of levels, exit condition and limit in bars; on the same bar in this order. With the extremes of the
    /// middle price until then.
    #[inline(always)]
    fn leave<S: Simd>(&self, simd: S, wish: &Wish) -> (Option<Leave>, (f64, f64)) {
        let Self { exit, conditions, ground: Ground { bars, landmarks, buffer, end }, bar: entry } = *self;
        let direction = wish.direction;
        let limit = exit.rule.exit.hold_bars.map(|hold| entry.saturating_add((hold as usize).max(1)));
        let limit = limit.filter(|bar| *bar < end);
        let limited = limit.map_or(end, |bar| bar + 1);
        let bracket = Bracket::new(direction, wish.stop, wish.target, buffer);
        let (level, mids) = landmarks.first_reached(simd, bars, direction, bracket, entry, limited);
        let signal =
            exit.condition.as_ref().and_then(|node| conditions.first(node, entry + 1, level.unwrap_or(limited)));
        let leave = match (signal, level) {
            (Some(bar), _) => Some(at_close(bars, direction, bar, ExitReason::Signal)),
            (None, Some(bar)) => leave_at_level(bars, wish, buffer, bar),
            (None, None) => limit.map(|bar| at_close(bars, direction, bar, ExitReason::Timeout)),
        };
        match mids {
            Some(mids) if signal.is_none() && level.is_some() => (leave, mids),
            _ => {
                let marked = entry..leave.map_or(end, |leave| leave.bar);
                (leave, landmarks.mid_zones.extremes_in(simd, &landmarks.mid, marked))
            }
        }
    }
}

/// Leaves at the level that `bar` reaches.
#[inline(always)]
fn leave_at_level(bars: &Bars, wish: &Wish, buffer: f64, bar: usize) -> Option<Leave> {
    let levels = Levels { direction: wish.direction, stop: wish.stop, target: wish.target, triggered_now: None };
    let exit = level_exit(bars, bar, levels, buffer, Variant::V2)?;
    Some(Leave { bar, reason: exit.reason, base_price: exit.base_price })
}

/// Leaves at the close of `bar`.
#[inline(always)]
pub(super) fn at_close(bars: &Bars, direction: Direction, bar: usize, reason: ExitReason) -> Leave {
    let base_price = match direction {
        Direction::Long => bars.bid.close[bar],
        Direction::Short => bars.ask.close[bar],
    };
    Leave { bar, reason, base_price }
}

/// Entries of one rule in one piece of time, found when first asked for.
#[derive(Debug, Default)]
pub(super) struct ExitTable {
    start: usize,
    /// One per bar of the piece.
    slots: Vec<Slot>,
    /// Per bar of the piece: 0, or one more than the number of its position.
    positions: Vec<u32>,
    /// The terms in force; the greatest number before the first.
    terms: usize,
    /// Entries found so far, over all pieces.
    pub(super) found: u64,
}

/// An entry on one bar.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// What it comes to under the terms in force.
    end: End,
    /// Its round trip, if it comes to one.
    trip: u32,
}

impl Slot {
    const EMPTY: Self = Self { end: End::UNKNOWN, trip: 0 };
}

/// A round trip under fixed terms: two lines of the cache.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Trip {
    pub(super) deal: Packed,
    pub(super) held: Held,
}

/// Positions found, and the round trips of those that were asked for under fixed terms.
#[derive(Debug, Default)]
pub(super) struct Deals {
    positions: Vec<Position>,
    outlines: Vec<(Outline, Range<u32>)>,
    /// From which outline on which terms hold.
    terms: Vec<(usize, Terms)>,
    /// Reckoned so far.
    trips: Vec<Trip>,
}

impl Deals {
    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.positions.clear();
        self.outlines.clear();
        self.terms.clear();
        self.trips.clear();
    }

    /// Round trips there are.
    pub(super) fn len(&self) -> usize {
        self.outlines.len()
    }

    /// What is pushed from now on is under these terms, which are the same for every fill.
    pub(super) fn under_terms(&mut self, terms: &Terms) {
        self.terms.push((self.outlines.len(), *terms));
    }

    /// The round trip at a place. It must be reckoned.
    #[inline]
    pub(super) fn trip(&self, place: u32) -> &Trip {
        &self.trips[place as usize]
    }

    /// Returns the place.
    #[inline(always)]
    pub(super) fn push(&mut self, outline: Outline, bars: Range<usize>) -> u32 {
        self.outlines.push((outline, bars.start as u32..bars.end as u32));
        self.outlines.len() as u32 - 1
    }

    /// What the position entered on `bar` comes to under the terms of `course`.
    #[inline(always)]
    fn take(&mut self, course: &Course<'_>, bar: usize, position: &Position) -> (End, u32) {
        let Position { wish, leave, mids } = position;
        match leave {
            _ if wish.is_refused(&course.plan.terms, 0, course.draws) => (End::REFUSED, 0),
            None => (End::OPEN, 0),
            Some(leave) => {
                let outline = Outline::new(course.landmarks, wish, bar, leave, *mids);
                (End(leave.bar as u32), self.push(outline, bar..leave.bar))
            }
        }
    }

    /// Reckons what was pushed since the last time.
    pub(super) fn reckon(&mut self) {
        Arch::new().dispatch(ReckonAll(self));
    }
}

struct ReckonAll<'d>(&'d mut Deals);

impl WithSimd for ReckonAll<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Deals { outlines, terms, trips, .. } = self.0;
        let done = trips.len();
        for (number, (from, terms_of)) in terms.iter().enumerate() {
            let to = terms.get(number + 1).map_or(outlines.len(), |(next, _)| *next);
            let mut rest = &outlines[(*from).max(done).min(to)..to];
            let pips = simd.splat_f64s(terms_of.slippage.fixed());
            while let Some((last, _)) = rest.len().checked_sub(1).zip(rest.first()) {
                // Lanes behind the end repeat the last one.
                let outline = Outline::gather(|lane| &rest[lane.min(last)].0);
                let (deals, fills) = outline.deal(simd, terms_of, (pips, pips));
                let taken = rest.len().min(S::F64_LANES);
                for (lane, (outline, bars)) in rest.iter().enumerate().take(taken) {
                    let bars = bars.start as usize..bars.end as usize;
                    let held = Held::new(outline.direction(), fills.lane(lane), bars);
                    trips.push(Trip { deal: deals.lane(lane).pack(), held });
                }
                rest = &rest[taken..];
            }
        }
    }
}

/// The bar that a position leaves on, or what else an entry comes to: numbers behind every bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End(u32);

impl End {
    /// Not reckoned yet.
    pub(super) const UNKNOWN: Self = Self(u32::MAX);
    /// A level is undefined: there is no signal.
    pub(super) const UNDEFINED: Self = Self(u32::MAX - 1);
    /// The signal is not valid: the run fails.
    pub(super) const INVALID: Self = Self(u32::MAX - 2);
    /// The order is refused.
    pub(super) const REFUSED: Self = Self(u32::MAX - 3);
    /// A position that leaves on no bar that was looked at.
    pub(super) const OPEN: Self = Self(u32::MAX - 4);

    /// The bar, or a number that is greater than every bar.
    #[inline]
    pub(super) fn bar(self) -> usize {
        self.0 as usize
    }
}

impl ExitTable {
    /// Forgets everything; the piece is `start .. start + len`. Round trips are remembered if more than one run asks for
    /// them (`shared`); with `keeps` positions too, for those who ask under other terms or for more.
    pub(super) fn reset(&mut self, start: usize, len: usize, shared: bool, keeps: bool) {
        self.start = start;
        self.slots.clear();
        self.slots.resize(if shared { len } else { 0 }, Slot::EMPTY);
        self.positions.clear();
        self.positions.resize(if shared && keeps { len } else { 0 }, 0);
        self.terms = usize::MAX;
    }

    /// What was reckoned so far is forgotten unless it was under these terms.
    pub(super) fn under_terms(&mut self, terms: usize) {
        let before = std::mem::replace(&mut self.terms, terms);
        if before != terms && before != usize::MAX {
            self.slots.iter_mut().for_each(|slot| slot.end = End::UNKNOWN);
        }
    }

    /// What an entry on bar `i` comes to, as far as it is known, and the place of its round trip.
    #[inline]
    pub(super) fn end(&self, i: usize) -> (End, u32) {
        let slot = self.slots.get(i - self.start).copied().unwrap_or(Slot::EMPTY);
        (slot.end, slot.trip)
    }

    /// What is looked for, found if nobody asked before.
    pub(super) fn entry(&mut self, search: Search<'_, '_>, deals: &mut Deals) -> Entry {
        let ExitTable { positions, start, found, .. } = self;
        let mut kept = positions.get_mut(search.bar - *start);
        if let Some(position @ 1..) = kept {
            return Entry::Position(deals.positions[*position as usize - 1]);
        }
        *found += 1;
        let entry = Arch::new().dispatch(search);
        if let (Entry::Position(position), Some(kept)) = (&entry, &mut kept) {
            deals.positions.push(*position);
            **kept = deals.positions.len() as u32;
        }
        entry
    }

    /// What is looked for comes to under the terms of `course`, which are those in force and the same for every fill.
    pub(super) fn known(&mut self, course: &Course<'_>, search: Search<'_, '_>, deals: &mut Deals) -> (End, u32) {
        match self.end(search.bar) {
            (End::UNKNOWN, _) => Arch::new().dispatch(Reckon { table: self, course, search, deals }),
            known => known,
        }
    }

    /// As [`ExitTable::known`], where nothing is known yet.
    #[inline(always)]
    pub(super) fn reckon<S: Simd>(
        &mut self,
        simd: S,
        course: &Course<'_>,
        search: Search<'_, '_>,
        deals: &mut Deals,
    ) -> (End, u32) {
        let bar = search.bar;
        let (end, trip) = if !self.positions.is_empty() {
            match self.entry(search, deals) {
                Entry::Undefined => (End::UNDEFINED, 0),
                Entry::Invalid(_) => (End::INVALID, 0),
                Entry::Position(position) => deals.take(course, bar, &position),
            }
        } else {
            self.found += 1;
            match search.with_simd(simd) {
                Entry::Undefined => (End::UNDEFINED, 0),
                Entry::Invalid(_) => (End::INVALID, 0),
                Entry::Position(position) => deals.take(course, bar, &position),
            }
        };
        if let Some(slot) = self.slots.get_mut(bar - self.start) {
            (slot.end, slot.trip) = (end, trip);
        }
        (end, trip)
    }
}

/// [`ExitTable::reckon`].
struct Reckon<'k, 's, 'a> {
    course: &'k Course<'a>,
    table: &'k mut ExitTable,
    search: Search<'s, 'a>,
    deals: &'k mut Deals,
}

impl WithSimd for Reckon<'_, '_, '_> {
    type Output = (End, u32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (End, u32) {
        self.table.reckon(simd, self.course, self.search, self.deals)
    }
}
