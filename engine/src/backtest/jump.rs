//! The fast equal of the bar-by-bar loop: from one entry to the next one possible after its exit.
//!
//! While flat, equity does not change; while a position is open, the extremes of the middle price bound it, and bars are
//! looked at only where a bound could move the peak or the largest fall. Every quantity is accumulated from the same
//! numbers in the same order as in [`walk`](super::walk::walk), so trades and metrics are equal to the bit.

use std::ops::Range;

use pulp::{Arch, Scalar, Simd, WithSimd};

use crate::backtest::landmarks::Landmarks;
use crate::backtest::walk::Plan;
use crate::data::Bars;
use crate::error::{Error, Result};
use crate::execution::{DrawTable, ExitReason, FillSide, Terms, r_multiples};
use crate::metrics::{
    Below, Counters, DayEnds, Drawdown, EquityFacts, Summary, TradeCounts, TradeFacts, TradeSums, summarise_sums,
};
use crate::portfolio::{after_exit, after_fee};
use crate::simd::{columns_of, gather_lanes, lanes};
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

impl Wish {
    /// Filled as number `k`, the order would be refused.
    #[inline(always)]
    pub(super) fn is_refused(&self, terms: &Terms, k: u64, draws: &DrawTable) -> bool {
        let price = terms.market_price(self.direction, self.requested, k, draws);
        terms.refuses(self.direction, price, self.stop, self.lots)
    }
}

lanes! {
    /// A round trip before its money is reckoned.
    pub(super) struct Outline {
        /// `d` of every formula.
        sign: f64s,
        requested: f64s,
        /// Undefined without a stop.
        stop: f64s,
        /// Undefined where the risk decides.
        lots: f64s,
        /// Price of the exit before slippage.
        base_price: f64s,
        /// Extremes of the middle price over the bars it is marked on.
        low: f64s,
        high: f64s,
        /// Middle price on the last bar of the entry's day, if the exit is on the next one; undefined if it is on the same,
        /// infinite if it is on a later one.
        night: f64s,
        entry_day: u64s,
        /// See [`Tally`].
        tally: u64s,
    }
}

/// Stands for one night where there are several, or where its profit is no number.
const SEVERAL: f64 = f64::INFINITY;

impl Outline {
    /// Entered on bar `entry` and left as `leave` says.
    #[inline(always)]
    pub(super) fn new(
        landmarks: &Landmarks,
        wish: &Wish,
        entry: usize,
        leave: &Leave,
        (low, high): (f64, f64),
    ) -> Self {
        let Landmarks { mid, day_of, day_last, .. } = landmarks;
        let (entry_day, exit_day) = (day_of[entry], day_of[leave.bar]);
        let night = match exit_day - entry_day {
            0 => f64::NAN,
            1 => mid[day_last[entry_day as usize]],
            _ => SEVERAL,
        };
        let tally = Tally::of(TradeCounts {
            hold_bars: (leave.bar - entry) as u64,
            with_stop: u64::from(wish.stop.is_some()),
            long: u64::from(wish.direction == Direction::Long),
        });
        Self {
            sign: wish.direction.sign(),
            requested: wish.requested,
            stop: wish.stop.unwrap_or(f64::NAN),
            lots: wish.lots.unwrap_or(f64::NAN),
            base_price: leave.base_price,
            low,
            high,
            night,
            entry_day: u64::from(entry_day),
            tally: tally.0,
        }
    }

    #[inline(always)]
    pub(super) fn direction(&self) -> Direction {
        if self.sign > 0.0 { Direction::Long } else { Direction::Short }
    }
}

impl<S: Simd> Outline<S> {
    /// Filled with these pips of slippage at entry and exit; the order is not refused.
    #[inline(always)]
    pub(super) fn deal(&self, simd: S, terms: &Terms, pips: (S::f64s, S::f64s)) -> (Deal<S>, Fill<S>) {
        let zero = simd.splat_f64s(0.0);
        let price = terms.slipped(simd, self.requested, self.sign, pips.0);
        let exit_price = terms.slipped(simd, self.base_price, simd.neg_f64s(self.sign), pips.1);
        let lots = terms.lots(simd, price, self.stop, self.lots);
        // Profit is monotone in the price, also after rounding.
        let (at_low, at_high) = (
            terms.gains(simd, self.sign, (price, self.low), lots),
            terms.gains(simd, self.sign, (price, self.high), lots),
        );
        let long = simd.less_than_f64s(zero, self.sign);
        let night = terms.gains(simd, self.sign, (price, self.night), lots);
        let several = simd.splat_f64s(SEVERAL);
        // One night whose profit is no number, or several: neither is undefined, and both are looked at one by one.
        let one = simd.less_than_f64s(simd.abs_f64s(self.night), several);
        let some = simd.equal_f64s(self.night, self.night);
        let night = simd.select_f64s(simd.and_m64s(one, simd.equal_f64s(night, night)), night, several);
        let night = simd.select_f64s(some, night, simd.splat_f64s(f64::NAN));
        let result = terms.gains(simd, self.sign, (price, exit_price), lots);
        let r_stop = r_multiples(simd, self.sign, (price, exit_price), self.stop);
        let with_stop = simd.equal_f64s(self.stop, self.stop);
        let deal = Deal {
            entry_day: self.entry_day,
            tally: self.tally,
            entry_fee: terms.fees.fees(simd, FillSide::Entry, price, lots),
            exit_fee: terms.fees.fees(simd, FillSide::Exit, exit_price, lots),
            least: simd.select_f64s(long, at_low, at_high),
            greatest: simd.select_f64s(long, at_high, at_low),
            night,
            facts: TradeFacts {
                result,
                r: simd.div_f64s(result, simd.splat_f64s(terms.risk)),
                r_stop: simd.select_f64s(with_stop, r_stop, zero),
            },
        };
        (deal, Fill { price, lots })
    }
}

lanes! {
    /// What an entry was filled with.
    pub(super) struct Fill {
        pub(super) price: f64s,
        pub(super) lots: f64s,
    }
}

/// A position that was held: what is needed to look at it bar by bar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Held {
    entry: u32,
    exit: u32,
    direction: Direction,
    price: f64,
    lots: f64,
}

impl Held {
    #[inline(always)]
    pub(super) fn new(direction: Direction, fill: Fill, bars: Range<usize>) -> Self {
        let Fill { price, lots } = fill;
        Self { entry: bars.start as u32, exit: bars.end as u32, direction, price, lots }
    }

    /// Bars it is marked on.
    fn bars(&self) -> Range<usize> {
        self.entry as usize..self.exit as usize
    }

    /// Open profit where the middle price is `mid`.
    #[inline]
    fn profit(&self, terms: &Terms, mid: f64) -> f64 {
        terms.gain(self.direction, self.price, mid, self.lots)
    }

    /// The least and the greatest open profit between two middle prices: it is monotone, also after rounding.
    fn profits(&self, terms: &Terms, (low, high): (f64, f64)) -> (f64, f64) {
        let (at_low, at_high) = (self.profit(terms, low), self.profit(terms, high));
        if self.direction == Direction::Long { (at_low, at_high) } else { (at_high, at_low) }
    }
}

lanes! {
    /// A round trip as the account sees it.
    pub(super) struct Deal {
        entry_day: u64s,
        /// See [`Tally`].
        tally: u64s,
        pub(super) entry_fee: f64s,
        pub(super) exit_fee: f64s,
        /// Extremes of the open profit over the bars it is marked on.
        least: f64s,
        greatest: f64s,
        /// Open profit over the night, in the manner of [`Outline`].
        night: f64s,
        ..pub(super) facts: TradeFacts,
    }
}

/// A [`Deal`] in rows of four, so that those of several settings are brought into lanes by moving rows.
pub(super) type Packed = [[f64; 4]; 3];

impl Deal {
    #[inline(always)]
    pub(super) fn pack(&self) -> Packed {
        let TradeFacts { result, r, r_stop } = self.facts;
        [
            [f64::from_bits(self.entry_day), f64::from_bits(self.tally), self.entry_fee, self.exit_fee],
            [self.least, self.greatest, self.night, result],
            [r, r_stop, 0.0, 0.0],
        ]
    }

    #[inline(always)]
    pub(super) fn unpack(packed: &Packed) -> Self {
        Deal::<Scalar>::side_by_side(Scalar::new(), |_| packed)
    }
}

impl<S: Simd> Deal<S> {
    /// Lane by lane what `of` has for it.
    #[inline(always)]
    pub(super) fn side_by_side<'p>(simd: S, of: impl Fn(usize) -> &'p Packed) -> Self {
        let [entry_day, tally, entry_fee, exit_fee] = columns_of(simd, |lane| of(lane)[0]);
        let [least, greatest, night, result] = columns_of(simd, |lane| of(lane)[1]);
        let [r, r_stop, ..] = columns_of(simd, |lane| of(lane)[2]);
        let [entry_day, tally] = [entry_day, tally].map(pulp::bytemuck::cast);
        Self { entry_day, tally, entry_fee, exit_fee, least, greatest, night, facts: TradeFacts { result, r, r_stop } }
    }
}

/// [`TradeCounts`] in one word, to be added up over fewer than 65,536 round trips: bars held in the lower half, since
/// positions follow each other and there are fewer than 2³² bars, then trades with a stop, then long ones.
#[derive(Debug, Clone, Copy)]
struct Tally(u64);

impl Tally {
    fn of(counts: TradeCounts) -> Self {
        Self(counts.hold_bars | counts.with_stop << 32 | counts.long << 48)
    }

    fn counts(self) -> TradeCounts {
        let Self(word) = self;
        TradeCounts { hold_bars: word & 0xffff_ffff, with_stop: word >> 32 & 0xffff, long: word >> 48 }
    }
}

lanes! {
    /// The account of a run up to its last round trip.
    pub(super) struct Account {
        balance: f64s,
        fees: f64s,
        /// Largest equity so far.
        peak: f64s,
        /// Least equity since [`Progress::account`].
        lowest: f64s,
        /// See [`Tally`]; since [`Progress::account`].
        tally: u64s,
        /// The day under way; all before it are in `ends`.
        day: u64s,
        /// Day of the last entry.
        entry_day: u64s,
        entry_days: u64s,
        ..sums: TradeSums,
        ..ends: DayEnds,
    }
}

impl<S: Simd> Account<S> {
    /// Where a round trip stays below the peak and is open over one night at most, so that no single bar must be looked at.
    #[inline(always)]
    pub(super) fn is_quiet(&self, simd: S, deal: &Deal<S>) -> S::m64s {
        let below_peak = |equity: S::f64s| simd.less_than_f64s(equity, self.peak);
        let (held, _) = after_fee(simd, (self.balance, self.fees), deal.entry_fee);
        let (low, high) = (simd.add_f64s(held, deal.least), simd.add_f64s(held, deal.greatest));
        // An undefined bound decides nothing.
        let below = simd.and_m64s(simd.and_m64s(below_peak(self.balance), below_peak(low)), below_peak(high));
        let several = simd.equal_f64s(deal.night, simd.splat_f64s(SEVERAL));
        // `below` without `several`.
        simd.xor_m64s(below, simd.and_m64s(below, several))
    }

    /// Books a round trip: that is all where it is quiet; elsewhere single bars must be looked at.
    #[inline(always)]
    pub(super) fn book(&mut self, simd: S, deal: &Deal<S>) {
        let (none, one) = (simd.splat_u64s(0), simd.splat_u64s(1));
        let flat = self.balance;
        let (held, fees) = after_fee(simd, (flat, self.fees), deal.entry_fee);
        let one_night = simd.equal_f64s(deal.night, deal.night);

        self.flat_until(simd, deal.entry_day);
        self.ends.push(simd, one_night, simd.add_f64s(held, deal.night));
        self.day = simd.add_u64s(deal.entry_day, simd.select_u64s(one_night, one, none));
        let lower = |a: S::f64s, b: S::f64s| simd.select_f64s(simd.less_than_f64s(a, b), a, b);
        self.lowest = lower(lower(flat, simd.add_f64s(held, deal.least)), self.lowest);
        let same_day = simd.equal_u64s(deal.entry_day, self.entry_day);
        self.entry_days = simd.add_u64s(self.entry_days, simd.select_u64s(same_day, none, one));
        self.entry_day = deal.entry_day;
        self.tally = simd.add_u64s(self.tally, deal.tally);
        (self.balance, self.fees) = after_exit(simd, (held, fees), deal.facts.result, deal.exit_fee);
        self.sums.push(simd, &deal.facts);
    }

    /// The days before `day` end without a position.
    #[inline(always)]
    fn flat_until(&mut self, simd: S, day: S::u64s) {
        let (none, one) = (simd.splat_u64s(0), simd.splat_u64s(1));
        let later = simd.less_than_u64s(self.day, day);
        self.ends.push(simd, later, self.balance);
        let between = simd.sub_u64s(simd.sub_u64s(day, self.day), one);
        self.ends.push_unchanged(simd, simd.select_u64s(later, between, none));
        self.day = day;
    }
}

/// A position marked bar by bar at these middle prices on top of a balance.
struct Marks<'m> {
    drawdown: &'m mut Drawdown,
    terms: &'m Terms,
    held: &'m Held,
    balance: f64,
    mids: &'m [f64],
}

impl WithSimd for Marks<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { drawdown, terms, held, balance, mids } = self;
        let [balance, sign, price, lots] =
            [balance, held.direction.sign(), held.price, held.lots].map(|x| simd.splat_f64s(x));
        let mut below = Below::new(simd);
        let (full, rest) = S::as_simd_f64s(mids);
        for mid in full {
            let equity = simd.add_f64s(balance, terms.gains(simd, sign, (price, *mid), lots));
            drawdown.push_lanes(simd, &mut below, equity, S::F64_LANES);
        }
        if !rest.is_empty() {
            let mid = gather_lanes(|lane| rest.get(lane).copied().unwrap_or(f64::NAN));
            let equity = simd.add_f64s(balance, terms.gains(simd, sign, (price, mid), lots));
            drawdown.push_lanes(simd, &mut below, equity, rest.len());
        }
        drawdown.push_gathered(simd, &mut below);
    }
}

/// A run between two trades.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    /// First bar on which an entry may be looked for; the end of the run once nothing more can happen.
    pub(super) next: usize,
    /// First bar whose equity is not taken yet; from there on it is the balance.
    flat_from: usize,
    account: Account,
    counts: TradeCounts,
    drawdown: Drawdown,
    first_equity: Option<f64>,
    /// Equity of the last bar, if a position is open there.
    open_equity: Option<f64>,
    counters: Counters,
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
        let account = Account {
            balance,
            fees: 0.0,
            peak: balance,
            lowest: f64::INFINITY,
            tally: 0,
            day: u64::from(course.landmarks.day_of[course.start]),
            entry_day: u64::MAX,
            entry_days: 0,
            sums: TradeSums::new(),
            ends: DayEnds::default(),
        };
        Self {
            next: course.start,
            flat_from: course.start,
            account,
            counts: TradeCounts::default(),
            drawdown: Drawdown::new(balance),
            first_equity: None,
            open_equity: None,
            counters: Counters { bars: (course.end - course.start) as u64, ..Counters::default() },
            last_signal: None,
            last_exit: None,
        }
    }

    /// Number of the next fill: they alternate entry, exit.
    #[inline]
    pub(super) fn fills(&self) -> u64 {
        2 * self.account.sums.count()
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

    /// Signals that start no cooldown.
    #[inline]
    pub(super) fn count_signals(&mut self, signals: u64) {
        self.counters.signals += signals;
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

    /// The account, to be carried on by [`Account::book`] and given back to [`Progress::set_account`].
    #[inline]
    pub(super) fn account(&self) -> Account {
        Account { peak: self.drawdown.high_water(), lowest: f64::INFINITY, tally: 0, ..self.account }
    }

    /// Takes back an account after round trips, all of them quiet, of which `last` is the last.
    #[inline]
    pub(super) fn set_account(&mut self, account: Account, last: &Held) {
        let exit = last.exit as usize;
        self.drawdown.push_below_peak(account.lowest, exit - self.flat_from);
        self.counts += Tally(account.tally).counts();
        self.flat_from = exit;
        self.account = account;
    }

    /// Takes the bars without a position up to `until`.
    fn flat(&mut self, until: usize) {
        if self.flat_from < until {
            self.first_equity.get_or_insert(self.account.balance);
            self.drawdown.push_run(self.account.balance, until - self.flat_from);
        }
    }

    /// Takes the bars on which a position of these extremes of profit is marked on top of `balance`.
    fn fall(&mut self, course: &Course<'_>, balance: f64, held: &Held, (least, greatest): (f64, f64)) {
        let (terms, mids) = (&course.plan.terms, &course.landmarks.mid[held.bars()]);
        if self.first_equity.is_none() {
            self.first_equity = mids.first().map(|mid| balance + held.profit(terms, *mid));
        }
        let (low, high) = (balance + least, balance + greatest);
        let peak = self.drawdown.high_water();
        // An undefined bound decides nothing.
        if high < peak && low < peak {
            self.drawdown.push_below_peak(low, mids.len());
        } else {
            Arch::new().dispatch(Marks { drawdown: &mut self.drawdown, terms, held, balance, mids });
        }
    }

    /// The position of the last signal left on `exit`.
    #[inline]
    pub(super) fn left(&mut self, course: &Course<'_>, exit: usize) {
        self.last_exit = Some(exit);
        self.next = self.earliest(course, exit + 1);
    }

    /// Takes a round trip; its signal and what comes after it are told apart from it.
    pub(super) fn round_trip(&mut self, course: &Course<'_>, deal: &Deal, held: &Held) {
        let simd = Scalar::new();
        let mut account = self.account();
        let quiet = account.is_quiet(simd, deal);
        account.book(simd, deal);
        if quiet {
            self.set_account(account, held);
            return;
        }
        let Landmarks { mid, day_last, day_of, .. } = course.landmarks;
        let gain = |bar: usize| held.profit(&course.plan.terms, mid[bar]);
        let bars = held.bars();
        self.flat(bars.start);
        let (balance, _) = after_fee(simd, (self.account.balance, self.account.fees), deal.entry_fee);
        self.fall(course, balance, held, (deal.least, deal.greatest));
        let mut before = self.account;
        before.flat_until(simd, deal.entry_day);
        let nights = day_of[bars.start]..day_of[bars.end];
        account.day = u64::from(nights.end);
        for day in nights {
            before.ends.push(simd, true, balance + gain(day_last[day as usize]));
        }
        self.counts += Tally(account.tally).counts();
        self.flat_from = bars.end;
        self.account = Account { ends: before.ends, ..account };
    }

    /// A position, entered at this fee, that is still open on the last bar.
    pub(super) fn stays_open(&mut self, course: &Course<'_>, fee: f64, held: &Held) {
        let simd = Scalar::new();
        let Landmarks { mid, day_of, day_last, .. } = course.landmarks;
        let gain = |bar: usize| held.profit(&course.plan.terms, mid[bar]);
        let bars = held.bars();
        self.flat(bars.start);
        let account = &mut self.account;
        account.flat_until(simd, u64::from(day_of[bars.start]));
        (account.balance, account.fees) = after_fee(simd, (account.balance, account.fees), fee);
        let balance = account.balance;
        for day in day_of[bars.start]..day_of[bars.end - 1] {
            account.ends.push(simd, true, balance + gain(day_last[day as usize]));
        }
        let extremes = held.profits(&course.plan.terms, course.landmarks.mids(bars.clone()));
        self.fall(course, balance, held, extremes);
        self.open_equity = Some(balance + gain(bars.end - 1));
        self.counters.exposed_bars = (bars.len() - 1) as u64;
        self.counters.open_positions_at_end = 1;
        self.next = bars.end;
    }

    /// Nothing more happens: the metrics.
    ///
    /// # Errors
    /// [`Error::Consistency`] if equity is no number.
    pub(super) fn finish(mut self, course: &Course<'_>) -> Result<(Summary, Counters)> {
        let simd = Scalar::new();
        if self.open_equity.is_none() {
            self.flat(course.end);
            self.account.flat_until(simd, u64::from(course.landmarks.day_of[course.end - 1]));
        }
        let Account { sums, mut ends, entry_days, fees, .. } = self.account;
        let last_equity = self.open_equity.unwrap_or(self.account.balance);
        if !last_equity.is_finite() {
            return Err(Error::Consistency { difference: f64::NAN });
        }
        ends.push(simd, true, last_equity);
        let times = &course.bars.open_time;
        let facts = EquityFacts {
            drawdown: self.drawdown,
            daily: ends.finish(),
            first: (times[course.start], self.first_equity.unwrap_or(last_equity)),
            last: (times[course.end - 1], last_equity),
            bars: self.counters.bars,
        };
        let counters = Counters {
            fills: self.fills() + self.counters.open_positions_at_end,
            exposed_bars: self.counters.exposed_bars + self.counts.hold_bars,
            ..self.counters
        };
        Ok((summarise_sums(&sums, &self.counts, entry_days, &facts, &counters, fees), counters))
    }
}
