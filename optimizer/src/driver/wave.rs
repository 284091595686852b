//! One wave: its trials resolved, grouped into units, cut into tiles, evaluated, and its chunks written as they are
//! complete.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use engine::Error;
use engine::backtest::Prepared;
use engine::backtest::tile::Workspace;
use engine::indicators::{ColumnKey, Series};
use engine::rules::{Condition, LateGuard};
use rayon::prelude::*;

use super::blocks::{self, distinct};
use super::known::Known;
use super::{Done, DriverError, Job, Phase, State, Work, Workers};
use crate::atomic::{FileError, sync_dir};
use crate::error::guarded;
use crate::plan::memory::Reservation;
use crate::plan::survey::questions;
use crate::reuse::Wanted;
use crate::row::Way;
use crate::space::Setting;
use crate::trial::{self, Resolver};

/// Backtests per tile at most: what they share is found out once, and a panic repeats no more than these.
const TILE: usize = 1024;
/// Tiles per thread at least, where there are enough units: all cores stay busy to the end of a wave.
const TILES_PER_THREAD: usize = 16;
/// Settings resolved one after another.
const PIECE: usize = 256;
/// Conditions remembered from wave to wave.
const MOST_ASKED: usize = 1 << 16;

/// A trial of a wave.
struct Planned<O> {
    trial: u64,
    config_hash: [u8; 32],
    rng_seed: u64,
    way: Way,
    from: From<O>,
}

/// Where a trial's outcome comes from.
enum From<O> {
    /// Known before evaluation: it failed to resolve.
    Failed(Box<O>),
    /// The unit of this index.
    Unit { unit: usize, rules_hash: [u8; 8] },
}

/// One distinct rule set of a wave, evaluated once.
struct Unit<O> {
    /// None: its outcome is known from an earlier wave or run.
    prepared: Option<Prepared>,
    /// Trials of the wave that share it.
    sharers: Vec<usize>,
    outcome: OnceLock<O>,
}

/// A trial resolved, its unit not yet known.
struct Resolved<O> {
    trial: u64,
    config_hash: [u8; 32],
    rng_seed: u64,
    way: Way,
    result: Result<Rules, Box<O>>,
}

/// What a setting resolves to.
struct Rules {
    hash: [u8; 8],
    /// None where an earlier setting resolved to the same, or an earlier wave has the outcome.
    prepared: Option<Prepared>,
}

/// State of a wave shared by the workers.
struct Wave<'a, W: Work> {
    job: &'a Job<'a, W>,
    workers: &'a Workers,
    chunks: &'a [u64],
    /// First trial of each chunk in `planned`, and the end.
    bounds: Vec<usize>,
    planned: Vec<Planned<W::Outcome>>,
    units: Vec<Unit<W::Outcome>>,
    /// Units each chunk still waits for.
    waiting: Vec<AtomicUsize>,
    /// Memory for columns and what guards remember.
    room: usize,
}

/// Evaluates and writes `chunks`, on the books of `memory`.
pub(super) fn evaluate<W: Work>(
    job: &Job<'_, W>,
    workers: &Workers,
    chunks: &[u64],
    memory: &Reservation,
    state: &mut State<W::Stored>,
) -> Result<(), DriverError> {
    let ranges: Vec<Range<u64>> = chunks.iter().map(|index| job.plan.trials(*index)).collect();
    let trials: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    job.observer.wave(chunks, trials);
    let started = Instant::now();
    let mut bounds = vec![0];
    for range in &ranges {
        let count = usize::try_from(range.end - range.start).unwrap_or(0);
        bounds.push(bounds.last().copied().unwrap_or(0) + count);
    }
    let known = state.known.places();
    let pieces: Vec<Range<u64>> = ranges
        .iter()
        .flat_map(|range| {
            range.clone().step_by(PIECE).map(move |from| from..range.end.min(from.saturating_add(PIECE as u64)))
        })
        .collect();
    let resolved: Vec<Vec<Resolved<W::Outcome>>> = workers.pool.install(|| {
        // Each thread takes settings next to each other in order, and keeps what resolved to something new among them.
        let own = || (Resolver::new(job.configs, job.environment), HashSet::new());
        let resolve = |(resolver, seen): &mut (Resolver<'_>, HashSet<[u8; 8]>), piece: &Range<u64>| {
            let mut is_new = |hash: &[u8; 8]| seen.insert(*hash) && known.get(hash).is_none();
            job.trials.settings(piece.clone()).map(|one| resolve(job.work, resolver, &one, &mut is_new)).collect()
        };
        pieces.par_iter().map_init(own, resolve).collect()
    });
    let (planned, units, spare) = group(job, resolved, &mut state.known);
    let waiting = waiting_units(&planned, &units, &bounds);
    let room = job.ledger.cap().saturating_sub(state.fixed + memory.bytes() + state.known.bytes());
    let wave = Wave { job, workers, chunks, bounds, planned, units, waiting, room };
    let (tiles, asked) = workers.pool.install(|| {
        drop_all(spare);
        let tiles = wave.tiles();
        let asked = Asked::new(&wave.units, &tiles.units, &mut state.asked);
        (tiles, asked)
    });
    job.observer.took(Phase::Resolve, started.elapsed());

    let (writer, queue) = channel();
    let writing = Writing { queue: Mutex::new(queue), failure: Mutex::new(None) };
    std::thread::scope(|scope| {
        if job.threads > 1 {
            scope.spawn(|| wave.write_queue(&writing));
        }
        workers.pool.install(|| wave.work(&tiles, &asked, &writer, &writing));
        drop(writer);
        // Nothing is left to evaluate: all threads write.
        workers.pool.broadcast(|_| wave.write_queue(&writing));
    });
    if let Some(error) = writing.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error.into());
    }
    sync_dir(job.chunks)?;
    wave.remember(&mut state.known);
    workers.pool.install(|| drop_all(wave.units));
    Ok(())
}

/// Drops on all threads what consists of many small pieces.
fn drop_all<T: Send>(values: Vec<T>) {
    values.into_par_iter().for_each(drop);
}

/// Chunks to be written, and the first failure to do so.
struct Writing {
    queue: Mutex<Receiver<usize>>,
    failure: Mutex<Option<FileError>>,
}

/// Units in the order of work, cut into tiles.
struct Tiles {
    units: Vec<Vec<usize>>,
    /// All columns of the wave fit beside everything else.
    columns_fit: bool,
}

/// Conditions that more than one tile asks, by hash. Only a hint: nothing rests on it.
struct Asked(HashSet<u64>);

impl Asked {
    fn new<O: Send + Sync>(units: &[Unit<O>], tiles: &[Vec<usize>], before: &mut HashSet<u64>) -> Self {
        let mut seen: HashMap<u64, usize> = HashMap::new();
        let mut shared = HashSet::new();
        let asked_in = |tile: &Vec<usize>| -> HashSet<u64> {
            let prepared = tile.iter().filter_map(|unit| units[*unit].prepared.as_ref());
            prepared.flat_map(Prepared::conditions).map(|condition| hash_of(&condition)).collect()
        };
        let asked: Vec<HashSet<u64>> = tiles.par_iter().map(asked_in).collect();
        for (number, hashes) in asked.into_iter().enumerate() {
            for hash in hashes {
                if *seen.entry(hash).or_insert(number) != number || before.contains(&hash) {
                    shared.insert(hash);
                }
            }
        }
        if before.len() < MOST_ASKED {
            before.extend(seen.into_keys());
        }
        Self(shared)
    }

    fn contains(&self, condition: &Condition) -> bool {
        self.0.contains(&hash_of(condition))
    }
}

fn hash_of(condition: &Condition) -> u64 {
    let mut hasher = DefaultHasher::new();
    condition.hash(&mut hasher);
    hasher.finish()
}

fn failed<W: Work>(work: &W, error: &Error) -> W::Outcome {
    work.failed(error.code().to_owned(), error.to_string())
}

fn resolve<W: Work>(
    work: &W,
    resolver: &mut Resolver<'_>,
    setting: &Setting,
    is_new: &mut impl FnMut(&[u8; 8]) -> bool,
) -> Resolved<W::Outcome> {
    let trial::Resolved { trial, config_hash, rng_seed, prepared } = resolver.resolve(setting);
    let way = prepared.as_ref().map_or(Way::Unresolved, Way::of);
    let rules = |prepared: Prepared| {
        let hash = prepared.rules_hash();
        Rules { hash, prepared: is_new(&hash).then_some(prepared) }
    };
    let result = prepared.map(rules).map_err(|error| Box::new(failed(work, &error)));
    Resolved { trial, config_hash, rng_seed, way, result }
}

/// Groups the trials by `rules_hash`; units whose outcome an earlier wave or run wrote get it from there. Also returns
/// the settings that are not needed.
#[allow(clippy::type_complexity, reason = "the two halves of a plan, and what is left over")]
fn group<W: Work>(
    job: &Job<'_, W>,
    resolved: Vec<Vec<Resolved<W::Outcome>>>,
    known: &mut Known<W::Stored>,
) -> (Vec<Planned<W::Outcome>>, Vec<Unit<W::Outcome>>, Vec<Prepared>) {
    let mut by_hash: HashMap<[u8; 8], usize> = HashMap::new();
    let mut units: Vec<Unit<W::Outcome>> = Vec::new();
    let mut planned = Vec::with_capacity(resolved.iter().map(Vec::len).sum());
    let (mut hits, mut spare) = (Vec::new(), Vec::new());
    for (at, Resolved { trial, config_hash, rng_seed, way, result }) in resolved.into_iter().flatten().enumerate() {
        let from = match result {
            Err(outcome) => From::Failed(outcome),
            Ok(Rules { hash: rules_hash, mut prepared }) => {
                let unit = *by_hash.entry(rules_hash).or_insert_with(|| {
                    units.push(match known.recall(job.work, &rules_hash) {
                        Some(outcome) => Unit { prepared: None, sharers: Vec::new(), outcome: OnceLock::from(outcome) },
                        None => unit_of(job, trial, prepared.take()),
                    });
                    units.len() - 1
                });
                spare.extend(prepared);
                units[unit].sharers.push(at);
                hits.extend(job.earlier.place(&config_hash).map(|place| Hit { place, trial: at, unit }));
                From::Unit { unit, rules_hash }
            }
        };
        planned.push(Planned { trial, config_hash, rng_seed, way, from });
    }
    take_over(job, hits, &planned, &mut units);
    (planned, units, spare)
}

/// A unit to be evaluated, as `trial` resolves: anew if it was thought to be known.
fn unit_of<W: Work>(job: &Job<'_, W>, trial: u64, prepared: Option<Prepared>) -> Unit<W::Outcome> {
    let again = || {
        let missing = || Error::Internal(format!("there is no trial {trial}"));
        let setting = job.trials.setting(trial).ok_or_else(missing)?;
        Resolver::new(job.configs, job.environment).resolve(&setting).prepared
    };
    let (prepared, outcome) = match prepared.map_or_else(again, Ok) {
        Ok(prepared) => (Some(prepared), OnceLock::new()),
        Err(error) => (None, OnceLock::from(failed(job.work, &error))),
    };
    Unit { prepared, sharers: Vec::new(), outcome }
}

/// A trial that stands in a chunk of an earlier run: file and row.
struct Hit {
    place: (u32, u32),
    trial: usize,
    unit: usize,
}

/// Gives units the outcomes that earlier runs have of their trials. Each file is read once; what it does not hold after
/// all is evaluated.
fn take_over<W: Work>(
    job: &Job<'_, W>,
    mut hits: Vec<Hit>,
    planned: &[Planned<W::Outcome>],
    units: &mut [Unit<W::Outcome>],
) {
    if hits.is_empty() {
        return;
    }
    let bytes = job.earlier.read_bytes();
    let mut memory = job.ledger.try_reserve(bytes);
    if memory.is_none() {
        job.environment.release_memory(bytes);
        memory = job.ledger.try_reserve(bytes);
    }
    if memory.is_none() {
        return;
    }
    hits.sort_unstable_by_key(|hit| hit.place);
    for of_file in hits.chunk_by(|a, b| a.place.0 == b.place.0) {
        let open: Vec<&Hit> = of_file.iter().filter(|hit| units[hit.unit].outcome.get().is_none()).collect();
        let Some(path) = open.first().and_then(|hit| job.earlier.file(hit.place.0)) else { continue };
        let wanted = |hit: &&Hit| {
            let Planned { config_hash, rng_seed, .. } = &planned[hit.trial];
            Wanted { row: hit.place.1 as usize, config_hash, rng_seed: *rng_seed }
        };
        let outcomes = job.work.recall_earlier(path, &open.iter().map(wanted).collect::<Vec<_>>());
        for (hit, outcome) in open.into_iter().zip(outcomes) {
            let unit = &mut units[hit.unit];
            if outcome.is_some_and(|outcome| unit.outcome.set(outcome).is_ok()) {
                unit.prepared = None;
            }
        }
    }
    let reused = hits.iter().filter(|hit| units[hit.unit].prepared.is_none()).count() as u64;
    job.earlier.count(reused);
    job.observer.reused(reused);
}

/// For each chunk, the number of distinct units its trials wait for, plus one that [`Wave::work`] takes back itself so
/// that a chunk of failed trials only is committed too.
fn waiting_units<O>(planned: &[Planned<O>], units: &[Unit<O>], bounds: &[usize]) -> Vec<AtomicUsize> {
    let chunk_of = |trial: usize| bounds.partition_point(|bound| *bound <= trial) - 1;
    let mut counts = vec![1_usize; bounds.len() - 1];
    for unit in units {
        let mut chunks: Vec<usize> = unit.sharers.iter().map(|trial| chunk_of(*trial)).collect();
        chunks.dedup();
        chunks.into_iter().for_each(|chunk| counts[chunk] += 1);
    }
    debug_assert_eq!(bounds.last(), Some(&planned.len()));
    counts.into_iter().map(AtomicUsize::new).collect()
}

impl<W: Work> Wave<'_, W> {
    fn work(&self, tiles: &Tiles, asked: &Asked, writer: &Sender<usize>, writing: &Writing) {
        let Job { work, observer, .. } = *self.job;
        for trial in &self.planned {
            if let From::Failed(outcome) = &trial.from {
                work.tell(outcome, 1, observer);
            }
        }
        (0..self.waiting.len()).for_each(|slot| self.unit_done(slot, writer));
        for unit in &self.units {
            if let Some(outcome) = unit.outcome.get() {
                work.tell(outcome, unit.sharers.len() as u64, observer);
                self.finish(unit, writer);
            }
        }
        let shared = |condition: &Condition| asked.contains(condition);
        tiles.units.par_iter().for_each(|tile| {
            if tiles.columns_fit {
                self.warm(tile);
            }
            let started = Instant::now();
            self.evaluate(tile, &shared, writer);
            observer.took(Phase::Evaluate, started.elapsed());
            if self.job.threads == 1 {
                // One thread is one thread: nobody else writes meanwhile.
                self.write_ready(writing);
            }
        });
    }

    /// Computes the columns of a tile ahead, so that their time can be told apart.
    fn warm(&self, tile: &[usize]) {
        let started = Instant::now();
        let mut last: &[ColumnKey] = &[];
        for prepared in tile.iter().filter_map(|unit| self.units[*unit].prepared.as_ref()) {
            if prepared.columns() != last {
                last = prepared.columns();
                // What fails or panics here does so again where it can be told of the trial.
                let _ = guarded(|| prepared.warm());
            }
        }
        self.job.observer.took(Phase::Columns, started.elapsed());
    }

    /// Units to be evaluated, in the order of work, cut into tiles.
    ///
    /// Where the columns of the whole wave fit, units that leave their positions by the same rules stand together, so
    /// that exits are found once, and among them those that ask the same of late guards, whose answers then stay in the
    /// cache of a core. Where they do not fit, what is dear to compute changes slowest, so that it is computed once and
    /// then makes room.
    fn tiles(&self) -> Tiles {
        let to_do: Vec<(usize, &Prepared)> =
            self.units.iter().enumerate().filter_map(|(at, unit)| Some((at, unit.prepared.as_ref()?))).collect();
        let dear: Vec<Vec<Dear>> = to_do.par_iter().map(|(_, prepared)| dear_of(prepared)).collect();
        let (target, most) = self.tile_sizes(to_do.len());
        let lists = distinct(to_do.par_iter().map(|(_, prepared)| prepared.columns()));
        let of_tile = (target * lists.len()).div_ceil(to_do.len().max(1));
        let columns = blocks::places(lists, of_tile);
        let dear_ranks: HashMap<&[Dear], u64> =
            distinct(dear.par_iter().map(Vec::as_slice)).into_iter().zip(0..).collect();
        let columns_fit = self.columns_fit(columns.keys().copied().flatten(), dear_ranks.keys().copied().flatten());
        let rank = |(dear, (unit, prepared)): (&Vec<Dear>, &(usize, &Prepared))| Place {
            group: (prepared.exit_hint(), dear_ranks.get(dear.as_slice()).copied().unwrap_or(0)),
            columns: columns.get(prepared.columns()).copied().unwrap_or_default(),
            unit: *unit,
        };
        let mut order: Vec<Place> = dear.par_iter().zip(&to_do).map(rank).collect();
        // Exits are numbered in the order of columns, so that groups next to each other read the same ones.
        order.par_sort_unstable_by_key(|place| (place.columns, place.unit));
        let mut exits: HashMap<u64, u64> = HashMap::new();
        for place in &mut order {
            let (hint, dear) = place.group;
            let next = exits.len() as u64;
            let exit = *exits.entry(hint).or_insert(next);
            place.group = if columns_fit { (exit, dear) } else { (dear, exit) };
        }
        order.par_sort_unstable();
        Tiles { units: self.cut(&order, columns_fit, (target, most)), columns_fit }
    }

    /// Units a tile should have, and has at most.
    fn tile_sizes(&self, units: usize) -> (usize, usize) {
        let most = (TILE / self.job.work.jobs_per_setting().max(1)).max(1);
        let busy = units.div_ceil(self.job.threads * TILES_PER_THREAD);
        let target = if self.job.threads > 1 { busy.clamp(1, most) } else { most };
        (target, most.min(target.saturating_mul(2)))
    }

    /// Tiles end where a group ends (of equal exits, or of equal dear things), if one does within twice their size, and
    /// earlier where a block of columns ends as well; and before their columns, all of which are held while a tile is worked
    /// on, take more than a thread's share of the room.
    fn cut(&self, order: &[Place], columns_fit: bool, (target, most): (usize, usize)) -> Vec<Vec<usize>> {
        let column = self.job.environment.data().market.bars.len() * size_of::<f64>();
        let most_columns = self.room / 2 / self.job.threads / column.max(1);
        let mut columns: HashSet<&ColumnKey> = HashSet::new();
        let mut tiles: Vec<Vec<usize>> = Vec::new();
        let (mut group, mut block) = (None, None);
        for place in order {
            if !columns_fit {
                columns.extend(self.units[place.unit].prepared.iter().flat_map(Prepared::columns));
            }
            let ends = |tile: &Vec<usize>| {
                tile.len() >= most
                    || (tile.len() >= target && group != Some(place.group.0))
                    || (2 * tile.len() >= target && group != Some(place.group.0) && block != Some(place.columns.0))
                    || columns.len() > most_columns
            };
            if tiles.last().is_none_or(ends) {
                tiles.push(Vec::with_capacity(target));
                columns.clear();
                if !columns_fit {
                    columns.extend(self.units[place.unit].prepared.iter().flat_map(Prepared::columns));
                }
            }
            if let Some(tile) = tiles.last_mut() {
                tile.push(place.unit);
            }
            (group, block) = (Some(place.group.0), Some(place.columns.0));
        }
        tiles
    }

    /// All distinct columns, and what late guards may remember, fit into the room of the wave.
    fn columns_fit<'d>(
        &self,
        columns: impl Iterator<Item = &'d ColumnKey>,
        dear: impl Iterator<Item = &'d Dear>,
    ) -> bool {
        let distinct: HashSet<&ColumnKey> = columns.collect();
        let questions: HashSet<&Dear> = dear.filter(|dear| matches!(dear, Dear::Guard(_))).collect();
        let one = self.job.environment.data().market.bars.len() * size_of::<f64>();
        (distinct.len() + questions.len()).saturating_mul(one) <= self.room
    }

    /// Evaluates the units of a tile together and passes their outcomes on.
    fn evaluate(&self, tile: &[usize], shared: &(dyn Fn(&Condition) -> bool + Sync), writer: &Sender<usize>) {
        let together = catch_unwind(AssertUnwindSafe(|| {
            self.workers.with_workspace(|workspace| self.run(tile, workspace, shared))
        }));
        let outcomes = together.unwrap_or_else(|_| {
            // One of them panicked: each alone, so that only the guilty one fails.
            self.workers.with_workspace(|workspace| *workspace = Workspace::default());
            let alone = |unit: &usize| {
                guarded(|| {
                    let mut outcomes = self.run(&[*unit], &mut Workspace::default(), &|_| false);
                    outcomes.pop().unwrap_or_else(|| Err(Error::Internal("a tile gave no result".to_owned())))
                })
            };
            tile.iter().map(alone).collect()
        });
        for (unit, outcome) in tile.iter().zip(outcomes) {
            let unit = &self.units[*unit];
            let outcome = unit.outcome.get_or_init(|| outcome.unwrap_or_else(|error| failed(self.job.work, &error)));
            self.job.work.tell(outcome, unit.sharers.len() as u64, self.job.observer);
            self.finish(unit, writer);
        }
    }

    /// The outcomes of some units, in their order.
    fn run(
        &self,
        units: &[usize],
        workspace: &mut Workspace,
        shared: &dyn Fn(&Condition) -> bool,
    ) -> Vec<Result<W::Outcome, Error>> {
        let work = self.job.work;
        let mut jobs = Vec::with_capacity(units.len() * work.jobs_per_setting());
        let mut ends = Vec::with_capacity(units.len());
        for unit in units {
            if let Some(prepared) = &self.units[*unit].prepared {
                work.jobs(prepared, &mut jobs);
            }
            ends.push(jobs.len());
        }
        let results = workspace.run(&jobs, shared);
        let mut start = 0;
        let outcome_of = |(unit, end): (&usize, usize)| {
            let range = std::mem::replace(&mut start, end)..end;
            match (&self.units[*unit].prepared, results.get(range)) {
                (Some(prepared), Some(results)) => work.outcome(prepared, results),
                _ => Err(Error::Internal("a tile gave too few results".to_owned())),
            }
        };
        units.iter().zip(ends).map(outcome_of).collect()
    }

    /// Tells every chunk with a trial of this unit.
    fn finish(&self, unit: &Unit<W::Outcome>, writer: &Sender<usize>) {
        let mut last = None;
        for trial in &unit.sharers {
            let chunk = self.bounds.partition_point(|bound| bound <= trial) - 1;
            if last != Some(chunk) {
                last = Some(chunk);
                self.unit_done(chunk, writer);
            }
        }
    }

    /// The last unit a chunk waits for sends it to the writer.
    fn unit_done(&self, chunk: usize, writer: &Sender<usize>) {
        if self.waiting[chunk].fetch_sub(1, Ordering::AcqRel) == 1 {
            // The writer has gone only after an error, which ends the sweep after this wave.
            let _ = writer.send(chunk);
        }
    }

    /// Writes chunks as they come, until no more will come.
    fn write_queue(&self, writing: &Writing) {
        let next = || writing.queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        while let Ok(slot) = next() {
            self.write_chunk(slot, writing);
        }
    }

    /// Writes the chunks that are complete.
    fn write_ready(&self, writing: &Writing) {
        let next = || writing.queue.lock().unwrap_or_else(PoisonError::into_inner).try_recv();
        while let Ok(slot) = next() {
            self.write_chunk(slot, writing);
        }
    }

    /// Writes a chunk, unless one could not be written before.
    fn write_chunk(&self, slot: usize, writing: &Writing) {
        if writing.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return;
        }
        let started = Instant::now();
        let (index, range) = (self.chunks[slot], self.bounds[slot]..self.bounds[slot + 1]);
        let missing = failed(self.job.work, &Error::Internal("a chunk was committed before its trials".to_owned()));
        let trials: Vec<Done<'_, W::Outcome>> =
            self.planned[range].iter().map(|planned| self.done(planned, &missing)).collect();
        match self.job.work.write(index, &trials) {
            Ok(()) => self.job.observer.committed(index, trials.len() as u64),
            Err(error) => {
                let mut failure = writing.failure.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert(error);
            }
        }
        self.job.observer.took(Phase::Write, started.elapsed());
    }

    fn done<'d>(&'d self, planned: &'d Planned<W::Outcome>, missing: &'d W::Outcome) -> Done<'d, W::Outcome> {
        let (outcome, rules_hash) = match &planned.from {
            From::Failed(outcome) => (outcome.as_ref(), [0; 8]),
            From::Unit { unit, rules_hash } => (self.units[*unit].outcome.get().unwrap_or(missing), *rules_hash),
        };
        Done {
            trial: planned.trial,
            config_hash: &planned.config_hash,
            rules_hash,
            rng_seed: planned.rng_seed,
            way: planned.way,
            outcome,
        }
    }

    fn remember(&self, known: &mut Known<W::Stored>) {
        for (slot, range) in self.bounds.windows(2).enumerate() {
            for (row, planned) in self.planned[range[0]..range[1]].iter().enumerate() {
                if let From::Unit { rules_hash, .. } = planned.from {
                    known.remember(rules_hash, self.chunks[slot], row);
                }
            }
        }
    }
}

/// Where a unit stands in the order of work.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Hint of its exits and rank of what is dear about it, the slower one first.
    group: (u64, u64),
    columns: blocks::Place,
    unit: usize,
}

/// What is dear to find out and worth finding out once; the dearest first.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Dear {
    Guard(LateGuard),
    Recursion(ColumnKey),
}

fn dear_of(prepared: &Prepared) -> Vec<Dear> {
    let guards = questions(prepared).into_iter().map(Dear::Guard);
    let is_dear = |key: &&ColumnKey| {
        matches!(
            key.series,
            Series::KalmanMean { .. }
                | Series::KalmanZ { .. }
                | Series::GarchSigma { .. }
                | Series::KalmanGarchZ { .. }
        )
    };
    guards.chain(prepared.columns().iter().filter(is_dear).map(|key| Dear::Recursion(*key))).collect()
}
