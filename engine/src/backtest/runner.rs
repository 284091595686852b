//! One job of a tile under way: from one entry to the next, in pieces of time.

use std::ops::Range;
use std::rc::Rc;

use pulp::Scalar;

use crate::backtest::exits::{Deals, End, Entry, ExitRule, ExitTable, Ground, Position, Search, Trip, at_close};
use crate::backtest::jump::{Course, Deal, Fill, Held, Leave, Outline, Progress, Wish};
use crate::backtest::tile::Evaluated;
use crate::error::{Error, Result};
use crate::execution::{Entry as Filled, ExitReason};
use crate::indicators::ZONE;
use crate::metrics::first_not_finite;
use crate::portfolio::Trade;
use crate::rules::{BitMask, ConditionSet, GuardEvaluator, Node, Rule};
use crate::strategy::OrderType;

/// One job under way.
pub(super) struct Runner<'a> {
    pub(super) job: usize,
    pub(super) course: Course<'a>,
    pub(super) close_at_end: bool,
    /// Per rule: when it enters.
    pub(super) when: Rc<Vec<Node>>,
    pub(super) guards: Vec<Vec<Rc<GuardEvaluator>>>,
    pub(super) gates: Option<&'a BitMask>,
    /// Number of its terms among those of the tile; none: money changes from fill to fill.
    pub(super) terms: Option<usize>,
    pub(super) progress: Progress,
    /// Kept if somebody wants them.
    pub(super) trades: Option<Vec<Trade>>,
    pub(super) failure: Option<Error>,
}

/// What the jobs of a group share in a piece.
pub(super) struct Scene<'s, 'a> {
    pub(super) conditions: &'s ConditionSet<'a>,
    pub(super) exits: &'s [ExitRule<'a>],
    /// Last bar any of them looks at, exclusive.
    pub(super) end: usize,
    pub(super) piece: &'s Range<usize>,
    pub(super) blocks: &'s Range<usize>,
}

impl Scene<'_, '_> {
    /// First bar of the first block.
    pub(super) fn base(&self) -> usize {
        self.blocks.start * ZONE
    }
}

/// What came of a bar on which the conditions of a rule hold.
enum Entered {
    /// Nothing: there is no signal, or it is not valid and the run has failed.
    No,
    /// A signal whose order was refused.
    Refused,
    /// A round trip, by its place among the deals.
    Trip(u32),
    /// A position that is open on the last bar.
    StaysOpen(Position),
}

/// What the jobs of a group found so far in a piece, and where more goes.
pub(super) struct Found<'f> {
    pub(super) tables: &'f mut [ExitTable],
    pub(super) deals: &'f mut Deals,
    /// Places in `deals`, run by run.
    pub(super) trips: &'f mut Vec<u32>,
}

impl<'a> Runner<'a> {
    pub(super) fn enters_in(&self, piece: &Range<usize>) -> bool {
        self.failure.is_none() && self.progress.next < piece.end.min(self.course.end)
    }

    /// The bits on which rule `rule` may enter.
    pub(super) fn entries(&self, scene: &Scene<'_, '_>, rule: usize, out: &mut [u64]) {
        scene.conditions.words(&self.when[rule], scene.blocks, out);
        if let Some(gates) = self.gates {
            out.iter_mut().zip(&gates.words()[scene.blocks.clone()]).for_each(|(word, gate)| *word &= gate);
        }
    }

    /// Where exits are looked for.
    pub(super) fn ground(&self, scene: &Scene<'_, '_>) -> Ground<'a> {
        let Course { plan, bars, landmarks, .. } = self.course;
        Ground { bars, landmarks, buffer: plan.terms.buffer, end: scene.end }
    }

    /// As far as entries on the bars of the piece; `words` is scratch memory.
    pub(super) fn advance(&mut self, scene: &Scene<'_, '_>, found: &mut Found<'_>, words: &mut Vec<u64>) {
        let Found { tables, deals, trips } = found;
        let (rules, width) = (scene.exits.len(), scene.blocks.len());
        // The bits of each rule, and of any of them.
        words.clear();
        words.resize((rules + 1) * width, 0);
        let (of_rules, any) = words.split_at_mut(rules * width);
        for (rule, of_rule) in of_rules.chunks_mut(width).enumerate() {
            self.entries(scene, rule, of_rule);
            any.iter_mut().zip(of_rule).for_each(|(any, word)| *any |= *word);
        }
        // Fills whose money depends on their number are taken one by one.
        let together = self.terms.is_some() && self.trades.is_none();
        let ground = self.ground(scene);
        let end = scene.piece.end.min(self.course.end);
        let base = scene.base();
        let mut from = self.progress.next.max(scene.piece.start);
        let before = trips.len();
        while let Some(bar) = next_set(any, base, from, end) {
            let (block, bit) = ((bar - base) / ZONE, bar % ZONE);
            // The first rule that holds, whose late guards hold and whose levels are defined.
            let mut next = bar + 1;
            for rule in 0..rules {
                if of_rules[rule * width + block] >> bit & 1 == 0 || !self.guards[rule].iter().all(|g| g.holds(bar)) {
                    continue;
                }
                let exit = &scene.exits[rule];
                let search = Search { exit, conditions: scene.conditions, ground, bar };
                let entered = if together {
                    let known = tables[rule].known(&self.course, search, deals);
                    let entered = self.enter(search, known, &mut tables[rule], deals);
                    self.take_in(entered, bar, trips, before, deals)
                } else {
                    self.enter_singly(exit, rule, &tables[rule].entry(search, deals), bar)
                };
                if entered {
                    next = self.progress.next;
                    break;
                }
            }
            if self.failure.is_some() {
                return;
            }
            from = next;
        }
        // What no rule wanted in this piece is not asked again.
        self.progress.next = from.max(end);
    }

    /// Adds what came of a bar to the round trips still to be taken, which are those from `before` on; false if there was
    /// no signal.
    fn take_in(
        &mut self,
        entered: Entered,
        bar: usize,
        trips: &mut Vec<u32>,
        before: usize,
        deals: &mut Deals,
    ) -> bool {
        match entered {
            Entered::No => return false,
            Entered::Refused => {}
            Entered::Trip(place) => trips.push(place),
            Entered::StaysOpen(position) => {
                deals.reckon();
                for place in trips.drain(before..) {
                    let Trip { deal, held } = deals.trip(place);
                    self.progress.round_trip(&self.course, &Deal::unpack(deal), held);
                }
                self.stay_open(&position, bar);
            }
        }
        true
    }

    /// One rule without late guards, cooldown and holding time: from one entry to the bar after its exit.
    pub(super) fn is_plain(&self) -> bool {
        let plan = self.course.plan;
        self.terms.is_some()
            && self.trades.is_none()
            && self.guards.len() == 1
            && self.guards[0].is_empty()
            && plan.holding.is_none()
            && Progress::has_no_cooldown(plan)
    }

    /// An entry of a plain run that is no round trip within the run, or fails; returns where it goes on.
    #[inline(never)]
    pub(super) fn asks(&mut self, search: Search<'_, '_>, found: &mut Found<'_>, trips: &mut Vec<u32>) -> usize {
        let known = found.tables[0].known(&self.course, search, found.deals);
        let entered = self.enter(search, known, &mut found.tables[0], found.deals);
        if self.take_in(entered, search.bar, trips, 0, found.deals) { self.progress.next } else { search.bar + 1 }
    }

    /// The conditions of a rule hold on the bar of `search`; under terms that are the same for every fill. `known`: what
    /// the table says of it.
    fn enter(
        &mut self,
        search: Search<'_, '_>,
        (end, place): (End, u32),
        table: &mut ExitTable,
        deals: &mut Deals,
    ) -> Entered {
        let (course, bar, exit) = (self.course, search.bar, search.exit);
        if end == End::UNDEFINED {
            return Entered::No;
        }
        if end == End::INVALID {
            return self.fail(&table.entry(search, deals));
        }
        self.progress.signal(bar);
        if end == End::REFUSED {
            self.progress.refused(&course, bar);
            return Entered::Refused;
        }
        if end.bar() < course.end && !self.may_time_out(exit.rule, bar, end.bar()) {
            self.progress.left(&course, end.bar());
            return Entered::Trip(place);
        }
        let Entry::Position(position) = table.entry(search, deals) else { return Entered::No };
        let Some(leave) = self.cut_short(exit.rule, &position, bar) else { return Entered::StaysOpen(position) };
        self.progress.left(&course, leave.bar);
        let mids = position.mids_until(course.landmarks, bar, leave.bar);
        let outline = Outline::new(course.landmarks, &position.wish, bar, &leave, mids);
        Entered::Trip(deals.push(outline, bar..leave.bar))
    }

    /// As [`Runner::enter`], where money changes from fill to fill; false if there is no signal.
    fn enter_singly(&mut self, exit: &ExitRule<'_>, rule: usize, entry: &Entry, bar: usize) -> bool {
        let course = self.course;
        let position = match entry {
            Entry::Undefined => return false,
            Entry::Invalid(_) => {
                self.fail(entry);
                return true;
            }
            Entry::Position(position) => position,
        };
        let k = self.progress.fills();
        let Course { plan, landmarks, draws, .. } = course;
        self.progress.signal(bar);
        if position.wish.is_refused(&plan.terms, k, draws) {
            self.progress.refused(&course, bar);
            return true;
        }
        let Some(leave) = self.cut_short(exit.rule, position, bar) else {
            self.stay_open(position, bar);
            return true;
        };
        let mids = position.mids_until(landmarks, bar, leave.bar);
        let outline = Outline::new(landmarks, &position.wish, bar, &leave, mids);
        let pips = [k, k + 1].map(|k| plan.terms.slippage.pips(k, draws));
        let (deal, fill) = outline.deal(Scalar::new(), &plan.terms, (pips[0], pips[1]));
        self.progress.round_trip(&course, &deal, &Held::new(position.wish.direction, fill, bar..leave.bar));
        self.progress.left(&course, leave.bar);
        if let Some(trades) = &mut self.trades {
            trades.push(trade(&course, (exit.rule, rule), position, bar, &leave, k, (&deal, fill)));
        }
        true
    }

    fn stay_open(&mut self, position: &Position, bar: usize) {
        let Course { plan, draws, .. } = self.course;
        let Wish { direction, requested, stop, lots, .. } = position.wish;
        let price = plan.terms.market_price(direction, requested, self.progress.fills(), draws);
        if let Ok(Filled { price, lots, fee }) = plan.terms.open(price, stop, lots) {
            let held = Held::new(direction, Fill { price, lots }, bar..self.course.end);
            self.progress.stays_open(&self.course, fee, &held);
        }
    }

    fn fail(&mut self, entry: &Entry) -> Entered {
        if let Entry::Invalid(error) = entry {
            self.failure = Some(error.as_ref().clone());
        }
        Entered::No
    }

    /// The holding-time rule applies, and its limit lies not behind `exit_bar`.
    #[inline]
    fn may_time_out(&self, rule: &Rule, entry: usize, exit_bar: usize) -> bool {
        let times = &self.course.bars.open_time;
        self.course.plan.holding.as_ref().is_some_and(|holding| {
            holding.applies_to(rule.scenario_id) && times[exit_bar] - times[entry] >= holding.limit_ns
        })
    }

    /// Where a position leaves with everything that may end it earlier: the first bar, and on it levels, holding time,
    /// exit condition, limit in bars, window end, in this order. None: it stays open.
    fn cut_short(&self, rule: &Rule, position: &Position, entry: usize) -> Option<Leave> {
        let Course { plan, bars, end, .. } = self.course;
        let direction = position.wish.direction;
        let natural = position.leave.filter(|leave| leave.bar < end).map(|leave| {
            let rank = match leave.reason {
                ExitReason::Signal => 2,
                ExitReason::Timeout => 3,
                _ => 0,
            };
            (leave.bar, rank, leave)
        });
        let holding =
            plan.holding.as_ref().filter(|holding| holding.applies_to(rule.scenario_id)).and_then(|holding| {
                let since = bars.open_time[entry];
                let later = &bars.open_time[entry..end];
                let bar = entry + later.partition_point(|time| *time - since < holding.limit_ns);
                (bar < end).then(|| (bar, 1, at_close(bars, direction, bar, ExitReason::Timeout)))
            });
        let window = self.close_at_end.then(|| (end - 1, 4, at_close(bars, direction, end - 1, ExitReason::WindowEnd)));
        let first = natural.into_iter().chain(holding).chain(window).min_by_key(|(bar, rank, _)| (*bar, *rank));
        first.map(|(_, _, leave)| leave)
    }

    pub(super) fn finish(self) -> Result<Evaluated> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        let (summary, counters) = self.progress.finish(&self.course)?;
        match first_not_finite(&summary.values) {
            Some(metric) => Err(Error::MetricNotFinite { key: metric.key() }),
            None => Ok(Evaluated { values: summary.values, counters }),
        }
    }
}

/// The trade as its run reports it: what was booked, and where and why.
fn trade(
    course: &Course<'_>,
    (rule, index): (&Rule, usize),
    position: &Position,
    entry_bar: usize,
    leave: &Leave,
    k: u64,
    (deal, fill): (&Deal, Fill),
) -> Trade {
    let Course { plan, draws, .. } = course;
    let wish = &position.wish;
    let times = &course.bars.open_time;
    Trade {
        // Fills alternate entry, exit.
        position_id: k / 2 + 1,
        direction: wish.direction,
        order_type: OrderType::Market,
        scenario_id: rule.scenario_id,
        rule: index as u16,
        entry_bar,
        exit_bar: leave.bar,
        entry_time_ns: times[entry_bar],
        exit_time_ns: times[leave.bar],
        entry_price: fill.price,
        exit_price: plan.terms.exit_price(wish.direction, leave.reason, leave.base_price, k + 1, draws),
        initial_stop_loss: wish.stop,
        stop_loss: wish.stop,
        take_profit: wish.target,
        lots: fill.lots,
        result: deal.facts.result,
        entry_fee: deal.entry_fee,
        exit_fee: deal.exit_fee,
        r_multiple: wish.stop.is_some().then_some(deal.facts.r_stop),
        reason: leave.reason,
    }
}

/// The first bar of `from .. end` whose bit is set; the bit of bar `base` is the first of `words`.
#[inline]
fn next_set(words: &[u64], base: usize, from: usize, end: usize) -> Option<usize> {
    if from >= end {
        return None;
    }
    let mut at = (from - base) / ZONE;
    let mut bits = words[at] & (!0 << (from % ZONE));
    while bits == 0 {
        at += 1;
        bits = *words.get(at)?;
    }
    Some(base + at * ZONE + bits.trailing_zeros() as usize).filter(|bar| *bar < end)
}
