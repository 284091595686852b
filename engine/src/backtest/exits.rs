//! Where positions leave, found once per entry bar and exit rule and shared by all settings that leave by it.
//!
//! Where a position ends depends on its entry bar and its exit rule, not on the road to it. The money of a round trip
//! depends on more; it is kept too while slippage is the same for every fill and the terms do not change.

use crate::backtest::jump::{Deal, Filled, Leave, Paid, Stake, Wish};
use crate::backtest::landmarks::{Bracket, Landmarks};
use crate::backtest::walk::check_signal;
use crate::data::Bars;
use crate::error::Error;
use crate::execution::{DrawTable, ExitReason, Levels, Terms, level_exit};
use crate::indicators::ZONE;
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

/// What an entry on a bar comes to.
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
    /// Extremes of the middle price over the bars it is marked on.
    pub(super) mids: (f64, f64),
}

/// What a signal comes to under given terms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Money {
    /// A level is undefined: there is no signal.
    Undefined,
    /// The signal is not valid: the run fails.
    Invalid,
    /// The order is refused.
    Refused,
    /// A position; without an exit bar if it leaves on no bar that was looked at.
    Deal(Deal, Stake),
}

impl Entry {
    /// Filled as numbers `k` and, on leaving, `k + 1`.
    pub(super) fn money(&self, entry_bar: usize, terms: &Terms, k: u64, draws: &DrawTable) -> Money {
        let position = match self {
            Self::Undefined => return Money::Undefined,
            Self::Invalid(_) => return Money::Invalid,
            Self::Position(position) => position,
        };
        let Some(filled) = position.wish.fill(terms, k, draws) else { return Money::Refused };
        let deal = Deal::new(&position.wish, &filled, terms, position.mids, true);
        let deal = match position.leave {
            None => deal,
            Some(leave) => deal.closed(leave.bar, &position.paid(&filled, entry_bar, &leave, terms, k + 1, draws)),
        };
        Money::Deal(deal, Stake { price: filled.price, lots: filled.lots })
    }
}

impl Position {
    /// The money of leaving as `leave` says, by fill number `k`.
    pub(super) fn paid(
        &self,
        filled: &Filled,
        entry_bar: usize,
        leave: &Leave,
        terms: &Terms,
        k: u64,
        draws: &DrawTable,
    ) -> Paid {
        Paid::new(&self.wish, filled, entry_bar, leave, terms, k, draws)
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

impl ExitRule<'_> {
    /// What an entry at the close of bar `i` comes to.
    pub(super) fn entry(&self, ground: &Ground<'_>, conditions: &ConditionSet<'_>, i: usize) -> Entry {
        let (stop, target) = (self.stop.map(|term| term.value(i)), self.target.map(|term| term.value(i)));
        if stop.is_some_and(f64::is_nan) || target.is_some_and(f64::is_nan) {
            return Entry::Undefined;
        }
        let rounded = |level: Option<f64>| match self.level_decimals {
            Some(decimals) => level.map(|value| round_decimal(value, decimals)),
            None => level,
        };
        let direction = self.rule.direction;
        let requested = match direction {
            Direction::Long => ground.bars.ask.close[i],
            Direction::Short => ground.bars.bid.close[i],
        };
        let lots = self.rule.lots.map(|lots| lots.get());
        let wish = Wish { direction, requested, stop: rounded(stop), target: rounded(target), lots };
        if let Err(error) = check_signal(ground.bars, i, requested, wish.stop, wish.target, lots, Variant::V2) {
            return Entry::Invalid(Box::new(error));
        }
        let leave = self.leave(ground, conditions, i, &wish);
        let marked_to = leave.map_or(ground.end, |leave| leave.bar);
        let mids = ground.landmarks.mid_zones.extremes_in(&ground.landmarks.mid, i..marked_to);
        Entry::Position(Position { wish, leave, mids })
    }

    /// The earliest of levels, exit condition and limit in bars; on the same bar in this order.
    fn leave(&self, ground: &Ground<'_>, conditions: &ConditionSet<'_>, i: usize, wish: &Wish) -> Option<Leave> {
        let Ground { bars, landmarks, buffer, end } = *ground;
        let limit = self.rule.exit.hold_bars.map(|hold| i.saturating_add((hold as usize).max(1)));
        let limit = limit.filter(|bar| *bar < end);
        let end = limit.map_or(end, |bar| bar + 1);
        let bracket = Bracket::new(wish.direction, wish.stop, wish.target, buffer);
        let level = landmarks.first_reached(bars, wish.direction, bracket, i + 1, end);
        let signal_end = level.unwrap_or(end);
        let signal = self.condition.as_ref().and_then(|node| first_set(conditions, node, i + 1, signal_end));
        if let Some(bar) = signal {
            return Some(at_close(bars, wish.direction, bar, ExitReason::Signal));
        }
        if let Some(bar) = level {
            return leave_at_level(bars, wish, buffer, bar);
        }
        limit.map(|bar| at_close(bars, wish.direction, bar, ExitReason::Timeout))
    }
}

/// Leaves at the level that `bar` reaches.
fn leave_at_level(bars: &Bars, wish: &Wish, buffer: f64, bar: usize) -> Option<Leave> {
    let levels = Levels { direction: wish.direction, stop: wish.stop, target: wish.target, triggered_now: None };
    let exit = level_exit(bars, bar, levels, buffer, Variant::V2)?;
    Some(Leave { bar, reason: exit.reason, base_price: exit.base_price })
}

/// Leaves at the close of `bar`.
pub(super) fn at_close(bars: &Bars, direction: Direction, bar: usize, reason: ExitReason) -> Leave {
    let base_price = match direction {
        Direction::Long => bars.bid.close[bar],
        Direction::Short => bars.ask.close[bar],
    };
    Leave { bar, reason, base_price }
}

/// The first bar of `from .. end` on which `node` holds.
fn first_set(conditions: &ConditionSet<'_>, node: &Node, from: usize, end: usize) -> Option<usize> {
    let mut block = from / ZONE;
    let mut keep = !0_u64 << (from % ZONE);
    while block * ZONE < end {
        let bits = conditions.bits(node, block) & keep;
        if bits != 0 {
            return Some(block * ZONE + bits.trailing_zeros() as usize).filter(|bar| *bar < end);
        }
        keep = !0;
        block += 1;
    }
    None
}

/// Entries of one rule in one piece of time, filled when first asked for, and what they come to under fixed terms.
#[derive(Debug, Default)]
pub(super) struct ExitTable {
    start: usize,
    /// Per bar of the piece: what an entry on it comes to under the terms in force.
    ends: Vec<End>,
    /// Per bar of the piece: 0, or one more than its place in the lists.
    places: Vec<u16>,
    entries: Vec<Entry>,
    deals: Vec<Deal>,
    stakes: Vec<Stake>,
    /// The terms in force.
    terms: usize,
    /// Entries found so far, over all pieces.
    pub(super) found: u64,
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
    /// Forgets everything; the piece is `start .. start + len`, `len` at most 65,535.
    pub(super) fn reset(&mut self, start: usize, len: usize) {
        debug_assert!(len < usize::from(u16::MAX));
        self.start = start;
        self.ends.clear();
        self.ends.resize(len, End::UNKNOWN);
        self.places.clear();
        self.places.resize(len, 0);
        self.entries.clear();
        self.deals.clear();
        self.stakes.clear();
        self.terms = usize::MAX;
    }

    /// What was reckoned so far is forgotten unless it was under these terms.
    pub(super) fn under_terms(&mut self, terms: usize) {
        if self.terms != terms {
            self.terms = terms;
            self.ends.fill(End::UNKNOWN);
        }
    }

    /// The entry on bar `i`, found by `find` if nobody asked before.
    pub(super) fn entry(&mut self, i: usize, find: impl FnOnce() -> Entry) -> &Entry {
        let place = self.place(i, find);
        &self.entries[place]
    }

    fn place(&mut self, i: usize, find: impl FnOnce() -> Entry) -> usize {
        let place = self.places[i - self.start];
        if place != 0 {
            return usize::from(place) - 1;
        }
        self.found += 1;
        self.entries.push(find());
        self.deals.push(Deal::NONE);
        self.stakes.push(Stake::default());
        self.places[i - self.start] = self.entries.len() as u16;
        self.entries.len() - 1
    }

    /// What an entry on bar `i` comes to, as far as it is known.
    #[inline]
    pub(super) fn end(&self, i: usize) -> End {
        self.ends[i - self.start]
    }

    /// What an entry on bar `i`, found by `find`, comes to under `terms`, which are those in force and the same for
    /// every fill.
    #[inline(never)]
    pub(super) fn reckon(&mut self, i: usize, terms: &Terms, draws: &DrawTable, find: impl FnOnce() -> Entry) -> End {
        let place = self.place(i, find);
        let end = match self.entries[place].money(i, terms, 0, draws) {
            Money::Undefined => End::UNDEFINED,
            Money::Invalid => End::INVALID,
            Money::Refused => End::REFUSED,
            Money::Deal(deal, stake) => {
                (self.deals[place], self.stakes[place]) = (deal, stake);
                if deal.exit_bar == u32::MAX { End::OPEN } else { End(deal.exit_bar) }
            }
        };
        self.ends[i - self.start] = end;
        end
    }

    /// What was reckoned of the position entered on bar `i`.
    #[inline]
    pub(super) fn deal(&self, i: usize) -> (&Deal, &Stake) {
        let place = usize::from(self.places[i - self.start]) - 1;
        (&self.deals[place], &self.stakes[place])
    }
}
