//! The fast equal of the bar-by-bar loop: from one entry to the next one possible after its exit.
//!
//! While flat, equity does not change; while a position is open, the extremes of the middle price bound it, and bars are
//! looked at only where a bound could move the peak or the largest fall. Every quantity is accumulated from the same
//! numbers in the same order as in [`walk`](super::walk::walk), so trades and metrics are equal to the bit.

use crate::backtest::landmarks::Landmarks;
use crate::backtest::walk::Plan;
use crate::data::Bars;
use crate::error::{Error, Result};
use crate::execution::{DrawTable, ExitReason, Terms, r_multiple};
use crate::metrics::{Counters, DayEnds, Drawdown, EquityFacts, Summary, TradeFacts, TradeSums, summarise_sums};
use crate::portfolio::Ledger;
use crate::strategy::OrderType;
use crate::units::Direction;

/// Where and why a position leaves, before slippage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Leave {
    pub(super) bar: usize,
    pub(super) reason: ExitReason,
    pub(super) base_price: f64,
}

/// An entry as its rule states it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Wish {
    pub(super) direction: Direction,
    pub(super) requested: f64,
    pub(super) stop: Option<f64>,
    pub(super) target: Option<f64>,
    pub(super) lots: Option<f64>,
}

/// The money of a filled entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Filled {
    pub(super) price: f64,
    pub(super) lots: f64,
    pub(super) fee: f64,
}

impl Wish {
    /// Fills as number `k`; none if the order is refused.
    pub(super) fn fill(&self, terms: &Terms, k: u64, draws: &DrawTable) -> Option<Filled> {
        let price = terms.market_price(self.direction, self.requested, k, draws);
        terms.guard(self.direction, OrderType::Market, price, self.stop).ok()?;
        let entry = terms.open(price, self.stop, self.lots).ok()?;
        Some(Filled { price: entry.price, lots: entry.lots, fee: entry.fee })
    }
}

/// The money of an exit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Paid {
    pub(super) price: f64,
    pub(super) fee: f64,
    pub(super) facts: TradeFacts,
}

impl Paid {
    /// Leaves as fill number `k`.
    pub(super) fn new(
        wish: &Wish,
        filled: &Filled,
        entry_bar: usize,
        leave: &Leave,
        terms: &Terms,
        k: u64,
        draws: &DrawTable,
    ) -> Self {
        let price = terms.exit_price(wish.direction, leave.reason, leave.base_price, k, draws);
        let r_stop = r_multiple(wish.direction, filled.price, price, wish.stop);
        let result = terms.result(wish.direction, filled.price, price, filled.lots, r_stop);
        let facts = TradeFacts {
            result,
            r: result / terms.risk,
            r_stop,
            hold_bars: (leave.bar - entry_bar) as u32,
            long: wish.direction == Direction::Long,
        };
        Self { price, fee: terms.exit_fee(leave.reason, price, filled.lots), facts }
    }
}

/// A round trip as the account sees it: all that most trades are looked at for, in one line of the cache.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(align(64))]
pub(super) struct Deal {
    pub(super) entry_fee: f64,
    pub(super) exit_fee: f64,
    /// Bounds of the open profit over the bars it is marked on.
    pub(super) least: f64,
    pub(super) greatest: f64,
    pub(super) result: f64,
    pub(super) r: f64,
    pub(super) r_stop: f64,
    pub(super) exit_bar: u32,
    pub(super) long: bool,
    pub(super) has_stop: bool,
    /// Both bounds are reached on these bars.
    pub(super) reached: bool,
}

impl Deal {
    /// A place not filled yet.
    pub(super) const NONE: Self = Self {
        entry_fee: 0.0,
        exit_fee: 0.0,
        least: 0.0,
        greatest: 0.0,
        result: 0.0,
        r: 0.0,
        r_stop: 0.0,
        exit_bar: u32::MAX,
        long: false,
        has_stop: false,
        reached: false,
    };

    /// `mids`: bounds of the middle price over the bars it is marked on; profit is monotone in it, also after rounding.
    pub(super) fn new(wish: &Wish, filled: &Filled, terms: &Terms, mids: (f64, f64), reached: bool) -> Self {
        let gain = |mid| terms.gain(wish.direction, filled.price, mid, filled.lots);
        let (a, b) = (gain(mids.0), gain(mids.1));
        let long = wish.direction == Direction::Long;
        let (least, greatest) = if long { (a, b) } else { (b, a) };
        Self { entry_fee: filled.fee, least, greatest, long, reached, ..Self::NONE }
    }

    /// With its end.
    pub(super) fn closed(self, exit_bar: usize, paid: &Paid) -> Self {
        let facts = &paid.facts;
        Self {
            exit_fee: paid.fee,
            result: facts.result,
            r: facts.r,
            r_stop: facts.r_stop.unwrap_or(0.0),
            has_stop: facts.r_stop.is_some(),
            exit_bar: exit_bar as u32,
            ..self
        }
    }

    pub(super) fn direction(&self) -> Direction {
        if self.long { Direction::Long } else { Direction::Short }
    }

    #[inline]
    fn facts(&self, entry_bar: usize) -> TradeFacts {
        TradeFacts {
            result: self.result,
            r: self.r,
            r_stop: self.has_stop.then_some(self.r_stop),
            hold_bars: self.exit_bar - entry_bar as u32,
            long: self.long,
        }
    }
}

/// What the open profit of a position is reckoned from.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Stake {
    pub(super) price: f64,
    pub(super) lots: f64,
}

impl Stake {
    #[inline]
    pub(super) fn profit(&self, terms: &Terms, direction: Direction, mid: f64) -> f64 {
        terms.gain(direction, self.price, mid, self.lots)
    }
}

/// A round trip to be taken: entered on `bar` by a rule of this index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trip {
    pub(super) bar: u32,
    pub(super) rule: u32,
}

/// Before the first bar.
const NO_BAR: isize = -1;

/// A run between two trades.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    /// First bar on which an entry may be looked for; the end of the run once nothing more can happen.
    pub(super) next: usize,
    /// First bar whose equity is not taken yet; from there on it is the balance.
    flat_from: usize,
    ledger: Ledger,
    drawdown: Drawdown,
    ends: DayEnds,
    /// Last bar of the day of the last bar taken, and the equity of that bar.
    day_end: isize,
    day_equity: f64,
    first_equity: Option<f64>,
    sums: TradeSums,
    entry_days: u64,
    /// Last bar of the day of the last entry.
    entry_day_end: isize,
    pub(super) counters: Counters,
    last_signal: Option<usize>,
    last_exit: Option<usize>,
}

/// What stays the same during a run.
#[derive(Clone, Copy)]
pub(super) struct Course<'a> {
    pub(super) plan: &'a Plan,
    pub(super) bars: &'a Bars,
    pub(super) landmarks: &'a Landmarks,
    pub(super) draws: &'a DrawTable,
    /// Tradable bars.
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Progress {
    pub(super) fn new(course: &Course<'_>) -> Self {
        let balance = course.plan.initial_balance;
        Self {
            next: course.start,
            flat_from: course.start,
            ledger: Ledger::new(balance),
            drawdown: Drawdown::new(balance),
            ends: DayEnds::default(),
            day_end: NO_BAR,
            day_equity: balance,
            first_equity: None,
            sums: TradeSums::new(),
            entry_days: 0,
            entry_day_end: NO_BAR,
            counters: Counters { bars: (course.end - course.start) as u64, ..Counters::default() },
            last_signal: None,
            last_exit: None,
        }
    }

    /// No bar after an exit is forbidden.
    #[inline]
    pub(super) fn has_no_cooldown(plan: &Plan) -> bool {
        plan.cooldown_bars <= 1 && plan.cooldown_ns <= 0 && plan.cooldown_after_exit_ns <= 0
    }

    /// A signal counts, and starts the cooldowns, whether or not its order is refused.
    #[inline]
    pub(super) fn signal(&mut self, bar: usize) {
        self.counters.signals += 1;
        self.last_signal = Some(bar);
    }

    /// The order of the signal on `bar` was refused.
    #[inline]
    pub(super) fn refused(&mut self, course: &Course<'_>, bar: usize) {
        self.counters.orders_rejected += 1;
        self.next = self.earliest(course, bar + 1);
    }

    /// The first bar from `from` on that no cooldown forbids.
    #[inline]
    fn earliest(&self, course: &Course<'_>, from: usize) -> usize {
        if Self::has_no_cooldown(course.plan) {
            return from;
        }
        self.after_cooldowns(course, from)
    }

    #[inline(never)]
    fn after_cooldowns(&self, course: &Course<'_>, from: usize) -> usize {
        let plan = course.plan;
        let times = &course.bars.open_time;
        let after = |from: usize, since: usize, ns: i64| {
            if ns <= 0 || from >= course.end {
                return from;
            }
            from + times[from..course.end].partition_point(|time| *time - times[since] < ns)
        };
        let mut earliest = from;
        if let Some(last) = self.last_signal {
            let bars = usize::try_from(plan.cooldown_bars).unwrap_or(0);
            earliest = after(earliest.max(last.saturating_add(bars)), last, plan.cooldown_ns);
        }
        if let Some(last) = self.last_exit {
            earliest = after(earliest, last, plan.cooldown_after_exit_ns);
        }
        earliest
    }

    /// Takes the bars without a position up to `until`.
    #[inline]
    fn flat(&mut self, landmarks: &Landmarks, until: usize) {
        if self.flat_from >= until {
            return;
        }
        let balance = self.ledger.balance();
        if self.first_equity.is_none() {
            self.first_equity = Some(balance);
        }
        self.drawdown.push_run(balance, until - self.flat_from);
        if until as isize > self.day_end + 1 {
            self.flat_days(landmarks, until, balance);
        }
        self.day_equity = balance;
        self.flat_from = until;
    }

    /// Days that begin or end before `until`, all but the first of them flat.
    #[inline(never)]
    fn flat_days(&mut self, landmarks: &Landmarks, until: usize, balance: f64) {
        self.begin_day(landmarks, self.flat_from);
        if until as isize > self.day_end + 1 {
            let (first, last) = (landmarks.day_of[self.day_end as usize], landmarks.day_of[until - 1]);
            self.ends.push(balance);
            self.ends.push_unchanged(u64::from(last - first - 1));
            self.day_end = landmarks.day_last[last as usize] as isize;
        }
    }

    /// The day of `bar` is under way.
    #[inline]
    fn begin_day(&mut self, landmarks: &Landmarks, bar: usize) {
        if bar as isize > self.day_end {
            if self.day_end != NO_BAR {
                self.ends.push(self.day_equity);
            }
            self.day_end = landmarks.day_last[landmarks.day_of[bar] as usize] as isize;
        }
    }

    /// Takes the bars `entry .. exit` on which a position is marked; `gain` is its open profit at a bar.
    #[inline]
    fn held(&mut self, landmarks: &Landmarks, entry: usize, exit: usize, deal: &Deal, gain: impl Fn(usize) -> f64) {
        if entry == exit {
            return;
        }
        let balance = self.ledger.balance();
        if self.first_equity.is_none() {
            self.first_equity = Some(balance + gain(entry));
        }
        let (low, high) = (balance + deal.least, balance + deal.greatest);
        let peak = self.drawdown.high_water();
        // An undefined bound decides nothing.
        if high < peak && peak - low <= self.drawdown.fall() {
            self.drawdown.skip(exit - entry);
        } else if high < peak && deal.reached {
            self.drawdown.push_below_peak(low, exit - entry);
        } else {
            (entry..exit).for_each(|bar| self.drawdown.push(balance + gain(bar)));
        }
        if exit as isize > self.day_end {
            self.held_days(landmarks, entry, exit, |bar| balance + gain(bar));
        }
        self.flat_from = exit;
    }

    /// Days that begin or end between `entry` and `exit`.
    #[inline(never)]
    fn held_days(&mut self, landmarks: &Landmarks, entry: usize, exit: usize, equity: impl Fn(usize) -> f64) {
        self.begin_day(landmarks, entry);
        while exit as isize > self.day_end + 1 {
            let last = self.day_end as usize;
            self.ends.push(equity(last));
            self.day_end = landmarks.day_last[landmarks.day_of[last] as usize + 1] as isize;
        }
        // Should the exit be on a new day, this one ends with the position open.
        self.day_equity = equity(exit - 1);
    }

    /// The position of the last signal left on `exit`.
    #[inline]
    pub(super) fn left(&mut self, course: &Course<'_>, exit: usize) {
        self.last_exit = Some(exit);
        self.next = self.earliest(course, exit + 1);
    }

    /// A signal on `bar` and a way out on `exit`: the round trip itself is taken later.
    #[inline]
    pub(super) fn enters_and_leaves(&mut self, course: &Course<'_>, bar: usize, exit: usize) {
        self.last_signal = Some(bar);
        self.left(course, exit);
    }

    /// Takes round trips in order, the signal of each included; `of` looks up what was reckoned of them.
    pub(super) fn round_trips<'d>(
        &mut self,
        course: &Course<'_>,
        trips: &[Trip],
        of: impl Fn(&Trip) -> (&'d Deal, &'d Stake),
    ) {
        self.counters.signals += trips.len() as u64;
        let mut rest = trips;
        loop {
            rest = &rest[self.quiet_trips(course, rest, &of)..];
            let Some((trip, after)) = rest.split_first() else { return };
            let (deal, stake) = of(trip);
            let gain = |bar: usize| stake.profit(&course.plan.terms, deal.direction(), course.landmarks.mid[bar]);
            self.round_trip(course, trip.bar as usize, deal, gain);
            rest = after;
        }
    }

    /// Takes the round trips at the head of `trips` that stay below the peak and see at most one day end, before the entry
    /// or after it; returns how many these are.
    #[inline]
    fn quiet_trips<'d>(
        &mut self,
        course: &Course<'_>,
        trips: &[Trip],
        of: &impl Fn(&Trip) -> (&'d Deal, &'d Stake),
    ) -> usize {
        let Landmarks { day_of, day_last, mid, .. } = course.landmarks;
        let (mut drawdown, mut ledger, mut sums, mut ends) = (self.drawdown, self.ledger, self.sums, self.ends);
        let peak = drawdown.high_water();
        let (mut flat_from, mut day_end, mut entry_day_end) = (self.flat_from, self.day_end, self.entry_day_end);
        let (mut taken, mut exposed, mut entry_days) = (0, 0, 0);
        for trip in trips {
            // The day under way is not begun yet.
            if flat_from as isize > day_end {
                break;
            }
            let (deal, stake) = of(trip);
            let (entry, exit) = (trip.bar as usize, deal.exit_bar as usize);
            let flat = ledger.balance();
            let held = flat - deal.entry_fee;
            let (low, high) = (held + deal.least, held + deal.greatest);
            // An undefined bound decides nothing.
            let below = (flat < peak) & (high < peak) & (low < peak) & deal.reached;
            if !below {
                break;
            }
            let mut days = [day_end; 2];
            if exit as isize > day_end {
                let (last, later) = (day_of[day_end as usize] as usize, entry as isize > day_end);
                let day = if later { day_of[entry] as usize } else { last + 1 };
                if exit > day_last[day] {
                    break;
                }
                if later {
                    ends.push(flat);
                    ends.push_unchanged((day - last - 1) as u64);
                    days[0] = day_last[day] as isize;
                } else {
                    ends.push(held + stake.profit(&course.plan.terms, deal.direction(), mid[day_end as usize]));
                }
                days[1] = day_last[day] as isize;
            }
            drawdown.push_below_peak(flat, entry - flat_from);
            drawdown.push_below_peak(low, exit - entry);
            // The days of entry and exit.
            let [entry_day, exit_day] = days;
            entry_days += u64::from(entry_day_end != entry_day);
            (entry_day_end, day_end) = (entry_day, exit_day);
            ledger.book_entry(deal.entry_fee);
            ledger.book_exit(deal.result, deal.exit_fee);
            sums.push(&deal.facts(entry));
            exposed += u64::from(deal.exit_bar - trip.bar);
            flat_from = exit;
            taken += 1;
        }
        (self.drawdown, self.ledger, self.sums, self.ends) = (drawdown, ledger, sums, ends);
        (self.flat_from, self.day_end, self.entry_day_end) = (flat_from, day_end, entry_day_end);
        self.counters.fills += 2 * taken as u64;
        self.counters.exposed_bars += exposed;
        self.entry_days += entry_days;
        taken
    }

    /// A position entered on `entry` that is closed as `deal` says; `gain` is its open profit at a bar.
    pub(super) fn round_trip(&mut self, course: &Course<'_>, entry: usize, deal: &Deal, gain: impl Fn(usize) -> f64) {
        let exit = deal.exit_bar as usize;
        self.enters(course, entry, deal);
        self.held(course.landmarks, entry, exit, deal, gain);
        self.ledger.book_exit(deal.result, deal.exit_fee);
        self.sums.push(&deal.facts(entry));
        if entry as isize > self.entry_day_end {
            self.entry_days += 1;
            let landmarks = course.landmarks;
            self.entry_day_end = landmarks.day_last[landmarks.day_of[entry] as usize] as isize;
        }
        self.counters.fills += 2;
        self.counters.exposed_bars += (exit - entry) as u64;
    }

    /// A position entered on `entry` that is still open on the last bar.
    pub(super) fn stays_open(&mut self, course: &Course<'_>, entry: usize, deal: &Deal, gain: impl Fn(usize) -> f64) {
        self.enters(course, entry, deal);
        let last_equity = self.ledger.balance() + gain(course.end - 1);
        self.held(course.landmarks, entry, course.end, deal, gain);
        self.day_equity = last_equity;
        self.counters.fills += 1;
        self.counters.exposed_bars += (course.end - 1 - entry) as u64;
        self.counters.open_positions_at_end = 1;
        self.next = course.end;
    }

    #[inline]
    fn enters(&mut self, course: &Course<'_>, entry: usize, deal: &Deal) {
        self.flat(course.landmarks, entry);
        self.ledger.book_entry(deal.entry_fee);
    }

    /// Nothing more happens: the metrics.
    ///
    /// # Errors
    /// [`Error::Consistency`] if equity is no number.
    pub(super) fn finish(mut self, course: &Course<'_>) -> Result<(Summary, Counters, Ledger)> {
        self.flat(course.landmarks, course.end);
        let last_equity = self.day_equity;
        if !last_equity.is_finite() {
            return Err(Error::Consistency { difference: f64::NAN });
        }
        self.ends.push(self.day_equity);
        let times = &course.bars.open_time;
        let facts = EquityFacts {
            drawdown: self.drawdown,
            daily: self.ends.finish(),
            first: (times[course.start], self.first_equity.unwrap_or(last_equity)),
            last: (times[course.end - 1], last_equity),
            bars: self.counters.bars,
        };
        let fees = self.ledger.fees_total();
        Ok((summarise_sums(&self.sums, self.entry_days, &facts, &self.counters, fees), self.counters, self.ledger))
    }
}
