//! Many backtests on the same bars, evaluated together: what a thread of a search works on at a time.
//!
//! A job is a resolved setting on a range of bars; walk-forward windows of one setting are jobs like any others. Each
//! result is that of the job alone, to the bit, whatever else is in the tile. Jobs that cannot jump are walked.
//!
//! Time is cut into pieces that stay in the cache of a core: in each piece the conditions of all jobs are worked out
//! once, and jobs that leave positions by the same rules share what is found about exits.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use crate::backtest::exits::{End, Entry, ExitRule, ExitTable, Ground, Money, Position, at_close};
use crate::backtest::jump::{Course, Deal, Filled, Leave, Paid, Progress, Trip};
use crate::backtest::landmarks::Landmarks;
use crate::backtest::setup::{Market, Prepared};
use crate::backtest::walk::{Nobody, Plan};
use crate::error::{Error, Result};
use crate::execution::ExitReason;
use crate::indicators::{Column, ColumnKey, ZONE};
use crate::metrics::{Counters, MetricValues, first_not_finite};
use crate::portfolio::Trade;
use crate::rules::{
    BitMask, Condition, ConditionSet, Expr, GuardEvaluator, LateGuard, MaskCache, Node, Operand, Rule, RuleSet, Term,
    Values, read_ahead,
};
use crate::strategy::{OrderType, Variant};
use crate::units::Direction;

/// One backtest of a tile.
#[derive(Clone)]
pub struct Job<'a> {
    /// The setting.
    pub setting: &'a Prepared,
    /// Tradable bars.
    pub bars: Range<usize>,
    /// What is open on the last bar is closed there.
    pub close_at_end: bool,
}

impl<'a> Job<'a> {
    /// A setting on the bars of its own configuration.
    pub fn whole(setting: &'a Prepared) -> Self {
        let plan = setting.plan();
        Self { setting, bars: plan.bars.clone(), close_at_end: plan.close_at_end }
    }
}

/// What a search keeps of a backtest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluated {
    /// Metrics, all finite or undefined.
    pub values: MetricValues,
    /// Counts.
    pub counters: Counters,
}

/// Why a setting is walked bar by bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalkReason {
    /// The strategy is not stated as rules.
    NotRules,
    /// The strategy looks after its open positions.
    ManagesPositions,
    /// More than one position may be open.
    SeveralPositions,
    /// Semantics of the reference system.
    Parity,
}

impl WalkReason {
    /// One line for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotRules => "the strategy is not stated as rules",
            Self::ManagesPositions => "the strategy manages open positions",
            Self::SeveralPositions => "max_positions is above 1",
            Self::Parity => "variant v1_parity",
        }
    }
}

impl Prepared {
    /// Why this setting is walked; none: it jumps. Design §4.1.
    pub fn why_walk(&self) -> Option<WalkReason> {
        let (plan, strategy) = (self.plan(), self.strategy());
        if plan.terms.variant != Variant::V2 {
            return Some(WalkReason::Parity);
        }
        if strategy.rules().is_none() {
            return Some(WalkReason::NotRules);
        }
        if strategy.manages_positions() {
            return Some(WalkReason::ManagesPositions);
        }
        (plan.max_positions != 1).then_some(WalkReason::SeveralPositions)
    }
}

/// What was done so far, for those who explain where time goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Jobs that jumped.
    pub jumped: u64,
    /// Jobs that were walked.
    pub walked: u64,
    /// Exits looked for.
    pub exits_found: u64,
}

/// Memory a thread reuses from tile to tile.
#[derive(Debug, Default)]
pub struct Workspace {
    trades: Vec<Trade>,
    tables: Vec<ExitTable>,
    words: Vec<u64>,
    trips: Vec<Trip>,
    work: Work,
}

/// Columns of prices and the like that following trades reads.
const PRICES: usize = 8;
/// Bytes of columns that a piece of time may have: half the second-level cache of a small server core.
const PIECE_BYTES: usize = 1 << 20;
/// Powers of two, so that a piece lies within one page of a mask.
const PIECE_BARS: Range<usize> = 1024..MaskCache::PAGE_BARS;

impl Workspace {
    /// What was done so far.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Runs every job; results in the order of `jobs`. `shared` says of a condition that settings of other tiles ask it
    /// too, so that its answers are worth keeping.
    ///
    /// The columns of all jobs are held while it runs: whoever cuts tiles sees to it that they fit.
    pub fn run(&mut self, jobs: &[Job<'_>], shared: &dyn Fn(&Condition) -> bool) -> Vec<Result<Evaluated>> {
        let mut results: Vec<Option<Result<Evaluated>>> = vec![None; jobs.len()];
        let (jumping, walked): (Vec<usize>, Vec<usize>) =
            (0..jobs.len()).partition(|at| jobs[*at].setting.why_walk().is_none() && !jobs[*at].bars.is_empty());
        for at in walked {
            self.work.walked += 1;
            results[at] = Some(self.walk(&jobs[at]));
        }
        self.work.jumped += jumping.len() as u64;
        for market in by_market(jobs, jumping) {
            self.jump(jobs, &market, shared, &mut results, None);
        }
        let missing = || Err(Error::Internal("a job of a tile was left out".to_owned()));
        results.into_iter().map(|result| result.unwrap_or_else(missing)).collect()
    }

    /// The trades of one job and its result, by jumping; none if it is walked. For tests of law 1.
    ///
    /// # Errors
    /// Those of the run.
    pub fn jump_with_trades(&mut self, job: &Job<'_>) -> Option<Result<(Evaluated, Vec<Trade>)>> {
        if job.setting.why_walk().is_some() || job.bars.is_empty() {
            return None;
        }
        let mut results = vec![None];
        let mut trades = Vec::new();
        self.jump(std::slice::from_ref(job), &[0], &|_| false, &mut results, Some(&mut trades));
        results.pop()?.map(|result| result.map(|evaluated| (evaluated, trades)))
    }

    fn walk(&mut self, job: &Job<'_>) -> Result<Evaluated> {
        let mut plan = job.setting.plan().clone();
        plan.bars = job.bars.clone();
        plan.close_at_end = job.close_at_end;
        let walked = job.setting.walk_on(&plan, std::mem::take(&mut self.trades), &mut Nobody)?;
        let outcome = job.setting.judge(walked)?;
        self.trades = outcome.walked.trades;
        Ok(Evaluated { values: outcome.summary.values, counters: outcome.walked.counters })
    }

    /// Jumps the jobs of `members`, which share a market.
    fn jump(
        &mut self,
        jobs: &[Job<'_>],
        members: &[usize],
        shared: &dyn Fn(&Condition) -> bool,
        results: &mut [Option<Result<Evaluated>>],
        trades: Option<&mut Vec<Trade>>,
    ) {
        let Some(first) = members.first() else { return };
        let market = jobs[*first].setting.market();
        let columns = match Columns::fetch(jobs, members, market) {
            Ok(columns) => columns,
            Err(error) => {
                members.iter().for_each(|at| results[*at] = Some(Err(error.clone())));
                return;
            }
        };
        let landmarks = market.landmarks();
        let binder = Binder { columns: &columns, market, shared };
        let mut tile = match Tile::bind(jobs, members, landmarks, &binder) {
            Ok(tile) => tile,
            Err(error) => {
                members.iter().for_each(|at| results[*at] = Some(Err(error.clone())));
                return;
            }
        };
        let per_bar = (tile.columns_read_often() + PRICES) * size_of::<f64>();
        let fitting = PIECE_BYTES / per_bar;
        let piece = (1_usize << fitting.max(1).ilog2()).clamp(PIECE_BARS.start, PIECE_BARS.end);
        let start = members.iter().map(|at| jobs[*at].bars.start).min().unwrap_or(0) / piece * piece;
        let end = members.iter().map(|at| jobs[*at].bars.end).max().unwrap_or(0);
        if trades.is_some() {
            tile.groups
                .iter_mut()
                .flat_map(|group| &mut group.runners)
                .for_each(|runner| runner.trades = Some(Vec::new()));
        }
        for from in (start..end).step_by(piece) {
            tile.advance(from..(from + piece).min(end), self);
        }
        if let Some(trades) = trades {
            let runners = tile.groups.iter_mut().flat_map(|group| &mut group.runners);
            trades.extend(runners.filter_map(|runner| runner.trades.take()).flatten());
        }
        self.work.exits_found += self.tables.iter_mut().map(|table| std::mem::take(&mut table.found)).sum::<u64>();
        for group in tile.groups {
            for runner in group.runners {
                let job = runner.job;
                results[job] = Some(runner.finish());
            }
        }
    }
}

/// Jobs by the market they run on.
fn by_market(jobs: &[Job<'_>], members: Vec<usize>) -> Vec<Vec<usize>> {
    let mut found: Vec<Vec<usize>> = Vec::new();
    for at in members {
        let same = |group: &&mut Vec<usize>| Arc::ptr_eq(jobs[group[0]].setting.market(), jobs[at].setting.market());
        match found.iter_mut().find(same) {
            Some(group) => group.push(at),
            None => found.push(vec![at]),
        }
    }
    found
}

/// The distinct columns of a tile, held while it is worked on.
struct Columns {
    keys: Vec<ColumnKey>,
    columns: Vec<Column>,
}

impl Columns {
    fn fetch(jobs: &[Job<'_>], members: &[usize], market: &Market) -> Result<Self> {
        let mut keys: Vec<ColumnKey> = members.iter().flat_map(|at| jobs[*at].setting.columns()).copied().collect();
        keys.sort_unstable();
        keys.dedup();
        let columns = market.columns.get_all(&keys)?;
        Ok(Self { keys, columns })
    }

    fn get(&self, key: &ColumnKey) -> Option<&Column> {
        self.keys.binary_search(key).ok().map(|at| &self.columns[at])
    }
}

/// Ties rules to columns.
struct Binder<'b, 'a> {
    columns: &'a Columns,
    market: &'a Market,
    shared: &'b dyn Fn(&Condition) -> bool,
}

impl<'a> Binder<'_, 'a> {
    fn values(&self, key: &ColumnKey) -> Result<Values<'a>> {
        let missing = || Error::Internal(format!("a rule reads {key}, which the strategy did not declare"));
        self.columns.get(key).map(Values::from).ok_or_else(missing)
    }

    fn node(&self, expr: &Expr, conditions: &mut ConditionSet<'a>) -> Result<Node> {
        let len = self.market.data.bars.len();
        conditions.add(expr, len, &|key: &_| self.values(key), &self.market.masks, self.shared)
    }

    fn term(&self, operand: &Operand) -> Result<Term<'a>> {
        Term::bind(operand, &|key: &_| self.values(key))
    }
}

/// Jobs on one market, bound.
struct Tile<'a> {
    conditions: ConditionSet<'a>,
    groups: Vec<Group<'a>>,
}

/// Jobs whose positions leave by the same rules.
struct Group<'a> {
    exits: Vec<ExitRule<'a>>,
    /// Last bar any of them looks at, exclusive.
    end: usize,
    runners: Vec<Runner<'a>>,
}

/// One job under way.
struct Runner<'a> {
    job: usize,
    course: Course<'a>,
    close_at_end: bool,
    /// Per rule: when it enters.
    when: Rc<Vec<Node>>,
    guards: Vec<Vec<Rc<GuardEvaluator>>>,
    gates: Option<&'a BitMask>,
    /// Number of its terms among those of the tile; none: money changes from fill to fill.
    terms: Option<usize>,
    progress: Progress,
    /// Kept if somebody wants them.
    trades: Option<Vec<Trade>>,
    failure: Option<Error>,
}

impl<'a> Tile<'a> {
    fn bind(jobs: &'a [Job<'a>], members: &[usize], landmarks: &'a Landmarks, binder: &Binder<'_, 'a>) -> Result<Self> {
        let mut conditions = ConditionSet::default();
        let mut order = members.to_vec();
        order.sort_by_cached_key(|at| jobs[*at].setting.exit_hint());
        let mut guards: HashMap<&'a LateGuard, Rc<GuardEvaluator>> = HashMap::new();
        let mut terms: Vec<&'a Plan> = Vec::new();
        let mut groups: Vec<Group<'a>> = Vec::new();
        let mut last_setting: Option<(&'a Prepared, Rc<Vec<Node>>)> = None;
        for at in order {
            let job = &jobs[at];
            let setting = job.setting;
            let Some(rules) = setting.strategy().rules() else { continue };
            let market = setting.market();
            let when = match &last_setting {
                // Windows of one setting follow each other.
                Some((last, when)) if std::ptr::eq(*last, setting) => Rc::clone(when),
                _ => Rc::new(bind_entries(rules, &mut conditions, binder)?),
            };
            last_setting = Some((setting, Rc::clone(&when)));
            let same_exits = |group: &Group<'_>| {
                // The pip buffer belongs to the hit tests, hence to the exit rule.
                let buffer = group.runners.first().map(|runner| runner.course.plan.terms.buffer);
                buffer == Some(setting.plan().terms.buffer)
                    && group.exits.len() == rules.rules.len()
                    && group.exits.iter().zip(&rules.rules).all(|(exit, rule)| leaves_alike(exit, rule, rules))
            };
            if !groups.last().is_some_and(same_exits) {
                let exits = bind_exits(rules, &mut conditions, binder)?;
                groups.push(Group { exits, end: 0, runners: Vec::new() });
            }
            let plan = setting.plan();
            let course = Course {
                plan,
                bars: &market.data.bars,
                landmarks,
                draws: setting.draws(),
                start: job.bars.start,
                end: job.bars.end,
            };
            let mut evaluators = Vec::with_capacity(rules.rules.len());
            for rule in &rules.rules {
                let mut of_rule = Vec::with_capacity(rule.guards.len());
                for guard in &rule.guards {
                    of_rule.push(match guards.get(guard) {
                        Some(evaluator) => Rc::clone(evaluator),
                        None => {
                            let evaluator = Rc::new(binder.market.guards.evaluator(guard)?);
                            guards.insert(guard, Rc::clone(&evaluator));
                            evaluator
                        }
                    });
                }
                evaluators.push(of_rule);
            }
            let runner = Runner {
                job: at,
                close_at_end: job.close_at_end,
                when,
                guards: evaluators,
                gates: setting.gates(),
                terms: plan.terms.slippage.is_fixed().then(|| number_of(plan, &mut terms)),
                progress: Progress::new(&course),
                course,
                trades: None,
                failure: None,
            };
            if let Some(group) = groups.last_mut() {
                group.end = group.end.max(job.bars.end);
                group.runners.push(runner);
            }
        }
        Ok(Self { conditions, groups })
    }

    /// Columns that are read more than once per piece: those compared with each other, and levels. Columns compared with
    /// constants are read once, all their conditions in a row.
    fn columns_read_often(&self) -> usize {
        let rules = self.groups.iter().flat_map(|group| &group.exits).map(|exit| exit.rule);
        let levels = rules.flat_map(|rule| rule.stop.iter().chain(&rule.target)).flat_map(Operand::columns);
        self.conditions.paired_columns().chain(levels).collect::<BTreeSet<ColumnKey>>().len()
    }

    /// Every job as far as entries on the bars of `piece`.
    fn advance(&mut self, piece: Range<usize>, workspace: &mut Workspace) {
        let blocks = piece.start / ZONE..piece.end.div_ceil(ZONE);
        if self.groups.iter().flat_map(|group| &group.runners).any(|runner| runner.enters_in(&piece)) {
            self.conditions.prepare_all(&blocks);
            self.read_ahead(&piece);
        }
        for group in &mut self.groups {
            if group.runners.iter().all(|runner| !runner.enters_in(&piece)) {
                continue;
            }
            workspace.tables.resize_with(workspace.tables.len().max(group.exits.len()), ExitTable::default);
            workspace.tables[..group.exits.len()].iter_mut().for_each(|table| table.reset(piece.start, piece.len()));
            for runner in &mut group.runners {
                if runner.enters_in(&piece) {
                    let tables = &mut workspace.tables[..group.exits.len()];
                    let ground = Scene { exits: &group.exits, end: group.end, piece: &piece, blocks: &blocks };
                    runner.advance(&ground, &self.conditions, tables, &mut workspace.words, &mut workspace.trips);
                }
            }
        }
    }
}

impl Tile<'_> {
    /// Fetches the prices and levels of a piece.
    fn read_ahead(&self, piece: &Range<usize>) {
        let Some(course) = self.groups.first().and_then(|group| group.runners.first()).map(|runner| runner.course)
        else {
            return;
        };
        let exits = || self.groups.iter().flat_map(|group| &group.exits);
        let (bid, ask) = (&course.bars.bid, &course.bars.ask);
        let mut columns: Vec<&[f64]> = vec![&course.landmarks.mid];
        if exits().any(|exit| exit.rule.direction == Direction::Long) {
            columns.extend([&*bid.open, &*bid.high, &*bid.low, &*ask.close]);
        }
        if exits().any(|exit| exit.rule.direction == Direction::Short) {
            columns.extend([&*ask.open, &*ask.high, &*ask.low, &*bid.close]);
        }
        columns.into_iter().for_each(|values| read_ahead(values, piece));
        let mut seen: Vec<&Option<Operand>> = Vec::new();
        for exit in exits() {
            for (operand, term) in [(&exit.rule.stop, &exit.stop), (&exit.rule.target, &exit.target)] {
                if !seen.contains(&operand) {
                    seen.push(operand);
                    term.iter().for_each(|term| term.read_ahead(piece));
                }
            }
        }
    }
}

/// The number of these terms among those seen; equal terms have one.
fn number_of<'a>(plan: &'a Plan, seen: &mut Vec<&'a Plan>) -> usize {
    seen.iter().rposition(|other| other.terms == plan.terms).unwrap_or_else(|| {
        seen.push(plan);
        seen.len() - 1
    })
}

fn bind_entries<'a>(rules: &RuleSet, conditions: &mut ConditionSet<'a>, binder: &Binder<'_, 'a>) -> Result<Vec<Node>> {
    let mut of_rule = |rule: &Rule| {
        let parts = rule.when.iter().map(|expr| binder.node(expr, conditions)).collect::<Result<Vec<_>>>();
        parts.map(Node::All)
    };
    rules.rules.iter().map(&mut of_rule).collect()
}

fn bind_exits<'a>(
    rules: &'a RuleSet,
    conditions: &mut ConditionSet<'a>,
    binder: &Binder<'_, 'a>,
) -> Result<Vec<ExitRule<'a>>> {
    let bind = |rule: &'a Rule| {
        Ok(ExitRule {
            rule,
            stop: rule.stop.as_ref().map(|operand| binder.term(operand)).transpose()?,
            target: rule.target.as_ref().map(|operand| binder.term(operand)).transpose()?,
            condition: rule.exit.condition.as_ref().map(|expr| binder.node(expr, conditions)).transpose()?,
            level_decimals: rules.level_decimals,
        })
    };
    rules.rules.iter().map(bind).collect()
}

/// Positions of `rule` leave as `exit` says.
fn leaves_alike(exit: &ExitRule<'_>, rule: &Rule, rules: &RuleSet) -> bool {
    let other = exit.rule;
    exit.level_decimals == rules.level_decimals
        && other.direction == rule.direction
        && other.stop == rule.stop
        && other.target == rule.target
        && other.lots == rule.lots
        && other.exit == rule.exit
}

/// What the jobs of a group share in a piece.
struct Scene<'s, 'a> {
    exits: &'s [ExitRule<'a>],
    end: usize,
    piece: &'s Range<usize>,
    blocks: &'s Range<usize>,
}

impl Runner<'_> {
    fn enters_in(&self, piece: &Range<usize>) -> bool {
        self.failure.is_none() && self.progress.next < piece.end.min(self.course.end)
    }

    fn advance(
        &mut self,
        scene: &Scene<'_, '_>,
        conditions: &ConditionSet<'_>,
        tables: &mut [ExitTable],
        words: &mut Vec<u64>,
        trips: &mut Vec<Trip>,
    ) {
        let (rules, width) = (scene.exits.len(), scene.blocks.len());
        // The bits of each rule, and of any of them.
        words.resize(rules * width + if rules == 1 { 0 } else { width }, 0);
        for (node, out) in self.when.iter().zip(words.chunks_mut(width)) {
            conditions.words(node, scene.blocks, out);
            if let Some(gates) = self.gates {
                out.iter_mut().zip(&gates.words()[scene.blocks.clone()]).for_each(|(word, gate)| *word &= gate);
            }
        }
        let (of_rules, any) = words.split_at_mut(rules * width);
        any.fill(0);
        for of_rule in of_rules.chunks(width) {
            any.iter_mut().zip(of_rule).for_each(|(any, word)| *any |= word);
        }
        let (of_rules, any) = (&*of_rules, if rules == 1 { &*of_rules } else { &*any });
        // Fills whose money depends on their number are taken one by one.
        let together = self.terms.is_some() && self.trades.is_none();
        if let Some(terms) = self.terms {
            tables.iter_mut().for_each(|table| table.under_terms(terms));
        }
        let ground = Ground {
            bars: self.course.bars,
            landmarks: self.course.landmarks,
            buffer: self.course.plan.terms.buffer,
            end: scene.end,
        };
        let end = scene.piece.end.min(self.course.end);
        let base = scene.blocks.start * ZONE;
        let mut from = self.progress.next.max(scene.piece.start);
        let plain = together && self.is_plain();
        while let Some(bar) = next_set(any, base, from, end) {
            if plain {
                let exit = tables[0].end(bar).bar();
                if exit < self.course.end {
                    trips.push(Trip { bar: bar as u32, rule: 0 });
                    from = exit + 1;
                    continue;
                }
            }
            let (block, bit) = ((bar - base) / ZONE, bar % ZONE);
            // The first rule that holds, whose late guards hold and whose levels are defined.
            let mut next = bar + 1;
            for rule in 0..rules {
                if of_rules[rule * width + block] >> bit & 1 == 0 || !self.guards[rule].iter().all(|g| g.holds(bar)) {
                    continue;
                }
                let exit = &scene.exits[rule];
                let find = || exit.entry(&ground, conditions, bar);
                let entered = if together {
                    self.enter(exit, rule, tables, bar, find, trips)
                } else {
                    self.enter_singly(exit, rule, tables[rule].entry(bar, find), bar)
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
        self.settle(trips, tables);
        // What no rule wanted in this piece is not asked again.
        self.progress.next = from.max(end);
    }

    /// One rule without late guards, cooldown and holding time: from one entry to the bar after its exit.
    fn is_plain(&self) -> bool {
        let plan = self.course.plan;
        self.guards.len() == 1 && self.guards[0].is_empty() && plan.holding.is_none() && Progress::has_no_cooldown(plan)
    }

    /// Takes the round trips gathered so far.
    fn settle(&mut self, trips: &mut Vec<Trip>, tables: &[ExitTable]) {
        let course = self.course;
        self.progress.round_trips(&course, trips, |trip| tables[trip.rule as usize].deal(trip.bar as usize));
        trips.clear();
    }

    /// The conditions of `rule` hold on `bar`; false if there is no signal, because a level is undefined. Under terms
    /// that are the same for every fill.
    fn enter(
        &mut self,
        exit: &ExitRule<'_>,
        rule: usize,
        tables: &mut [ExitTable],
        bar: usize,
        find: impl Fn() -> Entry + Copy,
        trips: &mut Vec<Trip>,
    ) -> bool {
        let course = self.course;
        let table = &mut tables[rule];
        let end = match table.end(bar) {
            End::UNKNOWN => table.reckon(bar, &course.plan.terms, course.draws, find),
            known => known,
        };
        if end.bar() < course.end && !self.may_time_out(exit.rule, bar, end.bar()) {
            self.progress.enters_and_leaves(&course, bar, end.bar());
            trips.push(Trip { bar: bar as u32, rule: rule as u32 });
            return true;
        }
        match end {
            End::UNDEFINED => return false,
            End::REFUSED => {
                self.progress.signal(bar);
                self.progress.refused(&course, bar);
            }
            _ => {
                let deal = (end != End::INVALID).then(|| *table.deal(bar).0);
                self.settle(trips, tables);
                let entry = tables[rule].entry(bar, find);
                match deal {
                    Some(deal) => {
                        self.progress.signal(bar);
                        self.leave_by_all_rules(exit.rule, rule, entry, &deal, bar, self.progress.counters.fills);
                    }
                    None => self.fail(entry),
                }
            }
        }
        true
    }

    /// As [`Runner::enter`], where money changes from fill to fill.
    fn enter_singly(&mut self, exit: &ExitRule<'_>, rule: usize, entry: &Entry, bar: usize) -> bool {
        let course = self.course;
        let k = self.progress.counters.fills;
        match entry.money(bar, &course.plan.terms, k, course.draws) {
            Money::Deal(deal, stake) => {
                self.progress.signal(bar);
                let exit_bar = deal.exit_bar as usize;
                if exit_bar < course.end && !self.may_time_out(exit.rule, bar, exit_bar) && self.trades.is_none() {
                    let (terms, mid) = (&course.plan.terms, &course.landmarks.mid);
                    let gain = |bar: usize| stake.profit(terms, deal.direction(), mid[bar]);
                    self.progress.round_trip(&course, bar, &deal, gain);
                    self.progress.left(&course, exit_bar);
                } else {
                    self.leave_by_all_rules(exit.rule, rule, entry, &deal, bar, k);
                }
            }
            Money::Refused => {
                self.progress.signal(bar);
                self.progress.refused(&course, bar);
            }
            Money::Undefined => return false,
            Money::Invalid => self.fail(entry),
        }
        true
    }

    fn fail(&mut self, entry: &Entry) {
        if let Entry::Invalid(error) = entry {
            self.failure = Some(error.as_ref().clone());
        }
    }

    /// A position that a time limit or an end may cut short, or whose trade is wanted.
    #[inline(never)]
    fn leave_by_all_rules(&mut self, exit: &Rule, rule: usize, entry: &Entry, deal: &Deal, bar: usize, k: u64) {
        let course = self.course;
        let terms = &course.plan.terms;
        let Entry::Position(position) = entry else { return };
        let Some(filled) = position.wish.fill(terms, k, course.draws) else { return };
        let gain = |at: usize| terms.gain(position.wish.direction, filled.price, course.landmarks.mid[at], filled.lots);
        let Some(leave) = self.cut_short(exit, position, bar) else {
            self.progress.stays_open(&course, bar, &Deal { reached: false, ..*deal }, gain);
            return;
        };
        let paid = position.paid(&filled, bar, &leave, terms, k + 1, course.draws);
        let reached = position.leave == Some(leave);
        let deal = Deal { reached, ..*deal }.closed(leave.bar, &paid);
        self.progress.round_trip(&course, bar, &deal, gain);
        self.progress.left(&course, leave.bar);
        if let Some(trades) = &mut self.trades {
            trades.push(trade(&course, exit, rule, position, bar, &filled, &leave, &paid, k));
        }
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

    fn finish(self) -> Result<Evaluated> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        let (summary, counters, _) = self.progress.finish(&self.course)?;
        match first_not_finite(&summary.values) {
            Some(metric) => Err(Error::MetricNotFinite { key: metric.key() }),
            None => Ok(Evaluated { values: summary.values, counters }),
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "one place, and every part of a trade is needed")]
fn trade(
    course: &Course<'_>,
    rule: &Rule,
    index: usize,
    position: &Position,
    entry_bar: usize,
    filled: &Filled,
    leave: &Leave,
    paid: &Paid,
    k: u64,
) -> Trade {
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
        entry_price: filled.price,
        exit_price: paid.price,
        initial_stop_loss: wish.stop,
        stop_loss: wish.stop,
        take_profit: wish.target,
        lots: filled.lots,
        result: paid.facts.result,
        entry_fee: filled.fee,
        exit_fee: paid.fee,
        r_multiple: paid.facts.r_stop,
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
