//! One wave: its trials resolved, grouped into units, cut into tiles, evaluated, and its chunks written as they are
//! complete.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};

use engine::Error;
use engine::backtest::Prepared;
use engine::backtest::tile::Workspace;
use engine::indicators::ColumnKey;
use engine::rules::Condition;
use rayon::prelude::*;

use super::known::Known;
use super::{Done, DriverError, Job, Work, Workers};
use crate::atomic::{FileError, sync_dir};
use crate::error::guarded;
use crate::space::Setting;
use crate::trial::{self, Resolver};

/// Backtests per tile at most: what they share is found out once, and a panic repeats no more than these.
const TILE: usize = 1024;
/// Tiles per thread at least, where there are enough units: all cores stay busy to the end of a wave.
const TILES_PER_THREAD: usize = 8;
/// Chunks waiting to be written before workers wait for the disk.
const WRITE_QUEUE: usize = 8;

/// A trial of a wave.
struct Planned<O> {
    trial: u64,
    config_hash: [u8; 32],
    rng_seed: u64,
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
    /// None: its outcome is known from an earlier wave.
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
    result: Result<Prepared, Box<O>>,
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
}

/// Evaluates and writes `chunks`.
pub(super) fn evaluate<W: Work>(
    job: &Job<'_, W>,
    workers: &Workers,
    chunks: &[u64],
    known: &mut Known<W::Stored>,
) -> Result<(), DriverError> {
    let ranges: Vec<Range<u64>> = chunks.iter().map(|index| job.plan.trials(*index)).collect();
    let trials: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    job.observer.wave(chunks, trials);
    let mut bounds = vec![0];
    let settings: Vec<Setting> = ranges
        .iter()
        .flat_map(|range| {
            let count = usize::try_from(range.end - range.start).unwrap_or(0);
            bounds.push(bounds.last().copied().unwrap_or(0) + count);
            job.trials.settings(range.clone())
        })
        .collect();
    let resolved: Vec<Resolved<W::Outcome>> = workers.pool.install(|| {
        let resolver = || Resolver::new(job.configs, job.environment);
        settings.par_iter().map_init(resolver, |own, setting| resolve(job.work, own, setting)).collect()
    });
    drop(settings);
    let (planned, units) = group(job, resolved, known);
    let waiting = waiting_units(&planned, &units, &bounds);
    let wave = Wave { job, workers, chunks, bounds, planned, units, waiting };

    let (writer, queue) = sync_channel(WRITE_QUEUE);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        scope.spawn(|| wave.write_queue(queue, &failure));
        workers.pool.install(|| wave.work(&writer));
        drop(writer);
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error.into());
    }
    sync_dir(job.chunks)?;
    wave.remember(known);
    Ok(())
}

fn failed<W: Work>(work: &W, error: &Error) -> W::Outcome {
    work.failed(error.code().to_owned(), error.to_string())
}

fn resolve<W: Work>(work: &W, resolver: &mut Resolver<'_>, setting: &Setting) -> Resolved<W::Outcome> {
    let trial::Resolved { trial, config_hash, rng_seed, prepared } = resolver.resolve(setting);
    Resolved { trial, config_hash, rng_seed, result: prepared.map_err(|error| Box::new(failed(work, &error))) }
}

/// Groups the trials by `rules_hash`; units whose outcome an earlier wave wrote get it from there.
#[allow(clippy::type_complexity, reason = "the two halves of a plan")]
fn group<W: Work>(
    job: &Job<'_, W>,
    resolved: Vec<Resolved<W::Outcome>>,
    known: &mut Known<W::Stored>,
) -> (Vec<Planned<W::Outcome>>, Vec<Unit<W::Outcome>>) {
    let mut by_hash: HashMap<[u8; 8], usize> = HashMap::new();
    let mut units: Vec<Unit<W::Outcome>> = Vec::new();
    let mut planned = Vec::with_capacity(resolved.len());
    for (at, trial) in resolved.into_iter().enumerate() {
        let from = match trial.result {
            Err(outcome) => From::Failed(outcome),
            Ok(prepared) => {
                let rules_hash = prepared.rules_hash();
                let unit = *by_hash.entry(rules_hash).or_insert_with(|| {
                    let recalled = known.recall(job.work, &rules_hash);
                    let prepared = recalled.is_none().then_some(prepared);
                    let outcome = recalled.map_or_else(OnceLock::new, OnceLock::from);
                    units.push(Unit { prepared, sharers: Vec::new(), outcome });
                    units.len() - 1
                });
                units[unit].sharers.push(at);
                From::Unit { unit, rules_hash }
            }
        };
        planned.push(Planned { trial: trial.trial, config_hash: trial.config_hash, rng_seed: trial.rng_seed, from });
    }
    (planned, units)
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
    fn work(&self, writer: &SyncSender<usize>) {
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
        let tiles = self.tiles();
        let asked = times_asked(&self.units, &tiles);
        let shared = |condition: &Condition| asked.get(condition).is_some_and(|tiles| *tiles > 1);
        tiles.par_iter().for_each(|tile| self.evaluate(tile, &shared, writer));
    }

    /// Units to be evaluated, in the order of work, cut into tiles.
    fn tiles(&self) -> Vec<Vec<usize>> {
        let to_do: Vec<usize> = (0..self.units.len()).filter(|unit| self.units[*unit].prepared.is_some()).collect();
        let mut columns: BTreeMap<&[ColumnKey], usize> = BTreeMap::new();
        let prepared = |unit: usize| self.units[unit].prepared.as_ref();
        for unit in &to_do {
            columns.insert(prepared(*unit).map_or(&[], Prepared::columns), 0);
        }
        columns.values_mut().enumerate().for_each(|(rank, slot)| *slot = rank);
        let mut order: Vec<(u64, usize, usize)> = to_do
            .iter()
            .filter_map(|unit| {
                let prepared = prepared(*unit)?;
                Some((prepared.exit_hint(), columns.get(prepared.columns()).copied().unwrap_or(0), *unit))
            })
            .collect();
        order.sort_unstable();
        let most = (TILE / self.job.work.jobs_per_setting().max(1)).max(1);
        let threads = self.job.threads;
        let least = if threads > 1 { order.len().div_ceil(threads * TILES_PER_THREAD) } else { most };
        let tiles = order.chunks(least.clamp(1, most));
        tiles.map(|tile| tile.iter().map(|(_, _, unit)| *unit).collect()).collect()
    }

    /// Evaluates the units of a tile together and passes their outcomes on.
    fn evaluate(&self, tile: &[usize], shared: &(dyn Fn(&Condition) -> bool + Sync), writer: &SyncSender<usize>) {
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
    fn finish(&self, unit: &Unit<W::Outcome>, writer: &SyncSender<usize>) {
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
    fn unit_done(&self, chunk: usize, writer: &SyncSender<usize>) {
        if self.waiting[chunk].fetch_sub(1, Ordering::AcqRel) == 1 {
            // The writer has gone only after an error, which ends the sweep after this wave.
            let _ = writer.send(chunk);
        }
    }

    /// Writes chunks as they come, off the computing threads; after an error it takes the rest without writing.
    fn write_queue(&self, queue: Receiver<usize>, failure: &Mutex<Option<FileError>>) {
        for slot in queue {
            if failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                continue;
            }
            let (index, range) = (self.chunks[slot], self.bounds[slot]..self.bounds[slot + 1]);
            let missing = failed(self.job.work, &Error::Internal("a chunk was committed before its trials".to_owned()));
            let trials: Vec<Done<'_, W::Outcome>> =
                self.planned[range].iter().map(|planned| self.done(planned, &missing)).collect();
            match self.job.work.write(index, &trials) {
                Ok(()) => self.job.observer.committed(index, trials.len() as u64),
                Err(error) => *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
            }
        }
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

/// In how many tiles each condition is asked.
fn times_asked<O>(units: &[Unit<O>], tiles: &[Vec<usize>]) -> HashMap<Condition, u32> {
    let mut asked: HashMap<Condition, (usize, u32)> = HashMap::new();
    if tiles.len() < 2 {
        return HashMap::new();
    }
    for (number, tile) in tiles.iter().enumerate() {
        for condition in tile.iter().filter_map(|unit| units[*unit].prepared.as_ref()).flat_map(Prepared::conditions) {
            let (last, count) = asked.entry(condition).or_insert((usize::MAX, 0));
            if *last != number {
                (*last, *count) = (number, *count + 1);
            }
        }
    }
    asked.into_iter().map(|(condition, (_, count))| (condition, count)).collect()
}
