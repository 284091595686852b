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

use crate::backtest::exits::{Deals, ExitRule, ExitTable};
use crate::backtest::jump::{Course, Progress};
use crate::backtest::landmarks::Landmarks;
use crate::backtest::paths::{Paths, follow};
use crate::backtest::runner::{Found, Runner, Scene};
use crate::backtest::settle::{Queue, settle};
use crate::backtest::setup::{Market, Prepared};
use crate::backtest::walk::{Nobody, Plan};
use crate::error::{Error, Result};
use crate::indicators::{Column, ColumnKey, ZONE};
use crate::metrics::{Counters, MetricValues};
use crate::portfolio::Trade;
use crate::rules::{
    Condition, ConditionSet, Expr, GuardEvaluator, LateGuard, MaskCache, Node, Operand, Rule, RuleSet, Term, Values,
    read_ahead,
};
use crate::strategy::Variant;
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
    deals: Deals,
    trips: Vec<u32>,
    words: Vec<u64>,
    paths: Paths,
    work: Work,
}

/// Columns of prices and the like that following trades reads.
const PRICES: usize = 8;
/// Bytes of columns and prices looked up bar by bar that a piece of time may have: half the second-level cache of a small
/// server core.
const PIECE_BYTES: usize = 1 << 20;
/// Deals found before round trips are settled: about a quarter of the second-level cache.
const DEALS: usize = 2048;
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
        let per_bar = (tile.columns_looked_up() + PRICES) * size_of::<f64>();
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

impl<'a> Tile<'a> {
    fn bind(jobs: &'a [Job<'a>], members: &[usize], landmarks: &'a Landmarks, binder: &Binder<'_, 'a>) -> Result<Self> {
        let mut conditions = ConditionSet::default();
        let mut exits: HashMap<u64, usize> = HashMap::new();
        let mut order = members.to_vec();
        order.sort_by_cached_key(|at| {
            let next = exits.len();
            *exits.entry(jobs[*at].setting.exit_hint()).or_insert(next)
        });
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
        for group in &mut groups {
            group.runners.sort_by_key(|runner| (runner.terms, runner.is_plain()));
        }
        Ok(Self { conditions, groups })
    }

    /// Columns whose values are looked up bar by bar: levels. Those of conditions are read in order, a strip at a time.
    fn columns_looked_up(&self) -> usize {
        let rules = self.groups.iter().flat_map(|group| &group.exits).map(|exit| exit.rule);
        let levels = rules.flat_map(|rule| rule.stop.iter().chain(&rule.target)).flat_map(Operand::columns);
        levels.collect::<BTreeSet<ColumnKey>>().len()
    }

    /// Every job as far as entries on the bars of `piece`.
    fn advance(&mut self, piece: Range<usize>, workspace: &mut Workspace) {
        let blocks = piece.start / ZONE..piece.end.div_ceil(ZONE);
        if self.groups.iter().flat_map(|group| &group.runners).any(|runner| runner.enters_in(&piece)) {
            self.conditions.prepare_all(&blocks);
            self.read_ahead(&piece);
        }
        let Workspace { tables, deals, trips, words, paths, .. } = workspace;
        let mut queues = Vec::new();
        for group in &mut self.groups {
            if group.runners.iter().all(|runner| !runner.enters_in(&piece)) {
                continue;
            }
            let Group { exits, end, runners } = group;
            tables.resize_with(tables.len().max(exits.len()), ExitTable::default);
            let tables = &mut tables[..exits.len()];
            let shared = runners.len() > 1;
            let keeps = runners.iter().any(|runner| !runner.is_plain() || runner.terms != runners[0].terms);
            tables.iter_mut().for_each(|table| table.reset(piece.start, piece.len(), shared, keeps));
            let scene = Scene { conditions: &self.conditions, exits, end: *end, piece: &piece, blocks: &blocks };
            let mut found = Found { tables, deals, trips };
            for alike in runners.chunk_by_mut(|a, b| a.terms == b.terms && a.is_plain() == b.is_plain()) {
                let mut entering = alike.iter_mut().filter(|runner| runner.enters_in(&piece)).peekable();
                if let Some(Runner { terms: Some(terms), course, .. }) = entering.peek() {
                    found.tables.iter_mut().for_each(|table| table.under_terms(*terms));
                    found.deals.under_terms(&course.plan.terms);
                }
                match exits.as_slice() {
                    [exit] if entering.peek().is_some_and(|runner| runner.is_plain()) => {
                        follow(entering, (&scene, exit), &mut found, &mut queues, paths);
                    }
                    _ => entering.for_each(|runner| {
                        let from = found.trips.len();
                        runner.advance(&scene, &mut found, words);
                        let Runner { course, progress, .. } = runner;
                        queues.push(Queue { course, progress, trips: from..found.trips.len() });
                    }),
                }
            }
            // Deals of groups that are small are settled together.
            if deals.len() >= DEALS {
                settle(&mut queues, trips, deals);
            }
        }
        settle(&mut queues, trips, deals);
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
