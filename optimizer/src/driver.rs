//! The parallel part of a sweep: waves of chunks, cut into tiles, evaluated on all cores, committed chunk by chunk.
//!
//! Nothing here decides a row: order, tiles, waves and threads change only when a chunk is finished.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use engine::Error;
use engine::backtest::walk::Nobody;
use engine::backtest::{Environment, Prepared};
use engine::indicators::ColumnKey;
use engine::metrics::Metric;
use engine::portfolio::Trade;
use rayon::prelude::*;

use crate::atomic::{FileError, sync_dir};
use crate::chunk::{ChunkPlan, read_chunk, write_chunk};
use crate::fingerprint::Fingerprint;
use crate::plan::memory::{Ledger, Reservation};
use crate::resume::Finished;
use crate::row::{Outcome, ParamValue, Row, RowSchema};
use crate::run_folder::RunFolder;
use crate::search::Trials;
use crate::space::Setting;
use crate::trial::TrialConfigs;

/// Work aimed at per wave: a kill costs at most about this much.
const WAVE: Duration = Duration::from_secs(30);
/// Trials per tile at most: small enough to keep all cores busy to the end of a wave.
const TILE: usize = 64;
/// Chunks waiting to be written before workers wait for the disk.
const WRITE_QUEUE: usize = 8;
/// Memory of one remembered `rules_hash`, map overhead included.
const REMEMBERED_BYTES: usize = 48;
/// Memory of one trial while its wave is planned and evaluated, beside its row.
const PLANNED_BYTES: usize = 256;

/// Everything a sweep works on.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// Settings by number.
    pub trials: &'a Trials,
    /// Configs by setting.
    pub configs: &'a TrialConfigs,
    /// Bars, columns, costs.
    pub environment: &'a Environment,
    /// Where chunks go.
    pub folder: &'a RunFolder,
    /// How trials are cut into chunks.
    pub plan: ChunkPlan,
    /// Columns of a chunk.
    pub schema: &'a RowSchema,
    /// What decides the rows.
    pub fingerprint: &'a Fingerprint,
    /// Books of the process.
    pub ledger: &'a Ledger,
    /// Worker threads, ≥ 1.
    pub threads: usize,
    /// No wave starts after this.
    pub deadline: Option<Instant>,
    /// Set from outside to end after the running wave.
    pub stop: &'a AtomicBool,
    /// Who watches.
    pub observer: &'a dyn Observer,
}

/// Watches a sweep. Called from worker threads; may not influence anything.
pub trait Observer: Sync {
    /// A wave begins.
    fn wave(&self, _chunks: &[u64], _trials: u64) {}
    /// `sharing` trials of the running wave have this outcome; all but one of them were spared.
    fn evaluated(&self, _outcome: &Outcome, _sharing: u64) {}
    /// A chunk is on disk.
    fn committed(&self, _index: u64, _rows: u64) {}
}

/// How a sweep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every chunk is there.
    Complete,
    /// Stopped from outside after a wave; resumable.
    Interrupted,
    /// The deadline passed; resumable.
    Deadline,
}

/// A sweep could not go on. Finished chunks stay.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A chunk could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The worker threads could not be started.
    #[error("cannot start {threads} worker threads: {reason}")]
    Threads {
        /// How many.
        threads: usize,
        /// What the system said.
        reason: String,
    },
    /// Not even one chunk fits under the memory cap.
    #[error("one chunk needs {needed} bytes, {free} are free under the memory cap")]
    Memory {
        /// Bytes needed.
        needed: usize,
        /// Bytes free.
        free: usize,
    },
}

/// Evaluates every chunk that is not finished.
///
/// # Errors
/// A file that could not be written, threads that could not be started, a cap too small for one chunk.
pub fn run(job: &Job<'_>, finished: &Finished) -> Result<End, DriverError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(job.threads)
        .thread_name(|n| format!("worker-{n}"))
        .build()
        .map_err(|error| DriverError::Threads { threads: job.threads, reason: error.to_string() })?;
    let missing: Vec<u64> = finished.missing(&job.plan).collect();
    let mut known = Known::new(job.ledger.clone());
    let mut next = 0;
    let mut wave_chunks = 1;
    while next < missing.len() {
        if job.stop.load(Ordering::SeqCst) {
            return Ok(End::Interrupted);
        }
        if job.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(End::Deadline);
        }
        let (chunks, _memory) = reserve_wave(job, &missing[next..], wave_chunks)?;
        let started = Instant::now();
        evaluate_wave(job, &pool, chunks, &mut known)?;
        next += chunks.len();
        wave_chunks = next_wave(chunks.len(), started.elapsed(), job.deadline);
    }
    Ok(End::Complete)
}

/// Chunks of the next wave, from what the last one took; grows at most eightfold at a time. A wave is not meant to
/// outlast the deadline: a limit of an hour ends the sweep after an hour.
fn next_wave(chunks: usize, took: Duration, deadline: Option<Instant>) -> usize {
    let left = deadline.map_or(WAVE, |deadline| deadline.saturating_duration_since(Instant::now()).min(WAVE));
    let fitting = chunks as f64 * left.as_secs_f64() / took.as_secs_f64().max(1e-3);
    (fitting as usize).clamp(1, chunks.saturating_mul(8))
}

/// Books the memory of the wave: as many of the wanted chunks as fit, at least one.
fn reserve_wave<'m>(job: &Job<'_>, missing: &'m [u64], wanted: usize) -> Result<(&'m [u64], Reservation), DriverError> {
    let most = wanted.min(missing.len());
    let bytes = |chunks: usize| chunk_bytes(&job.plan, job.schema).saturating_mul(chunks);
    for chunks in (1..=most).rev() {
        if let Some(reservation) = job.ledger.try_reserve(bytes(chunks)) {
            return Ok((&missing[..chunks], reservation));
        }
    }
    let freed = job.environment.release_memory(bytes(1));
    match job.ledger.try_reserve(bytes(1)) {
        Some(reservation) => Ok((&missing[..1], reservation)),
        None => {
            let free = job.ledger.cap().saturating_sub(job.ledger.used()).max(freed);
            Err(DriverError::Memory { needed: bytes(1), free })
        }
    }
}

/// Memory of one chunk in work: rows, their columns while they are written, and the plan of its trials.
pub fn chunk_bytes(plan: &ChunkPlan, schema: &RowSchema) -> usize {
    let trials = usize::try_from(plan.size().min(plan.total())).unwrap_or(usize::MAX);
    trials.saturating_mul(size_of::<Row>() + 2 * schema.row_bytes() + PLANNED_BYTES)
}

/// One trial of a wave, planned.
struct Planned {
    setting: Setting,
    config_hash: [u8; 32],
    rng_seed: u64,
    work: Work,
}

/// Where a trial's outcome comes from.
enum Work {
    /// Known before evaluation: it failed to resolve.
    Failed(Box<Outcome>),
    /// The unit of this index.
    Unit { unit: usize, rules_hash: [u8; 8] },
}

/// One distinct rule set of a wave, evaluated once.
struct Unit {
    /// Trial of the wave that is evaluated.
    representative: usize,
    /// Trials of the wave that share it, itself included.
    sharers: Vec<usize>,
    /// Rank of its columns: units of equal columns are worked on together.
    columns: usize,
    outcome: OnceLock<Outcome>,
}

/// State of a wave shared by the workers.
struct Wave<'a> {
    job: Job<'a>,
    chunks: &'a [u64],
    /// First trial of each chunk in `planned`, and the end.
    bounds: Vec<usize>,
    planned: Vec<Planned>,
    units: Vec<Unit>,
    /// Units each chunk still waits for.
    waiting: Vec<AtomicUsize>,
    writer: SyncSender<(u64, Vec<Row>)>,
}

fn evaluate_wave(
    job: &Job<'_>,
    pool: &rayon::ThreadPool,
    chunks: &[u64],
    known: &mut Known,
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
    let resolved: Vec<Resolved> =
        pool.install(|| settings.into_par_iter().map(|setting| resolve(job, setting)).collect());
    let (planned, units) = plan_units(job, resolved, known);
    let remembered: Vec<_> = planned.iter().map(|trial| trial.work.rules_hash()).collect();

    let (writer, queue) = sync_channel(WRITE_QUEUE);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        scope.spawn(|| write_queue(job, queue, &failure));
        let waiting = waiting_units(&planned, &units, &bounds);
        let wave = Wave { job: *job, chunks, bounds: bounds.clone(), planned, units, waiting, writer };
        pool.install(|| work(&wave));
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error.into());
    }
    sync_dir(&job.folder.chunks())?;
    for (slot, range) in bounds.windows(2).enumerate() {
        for (row, rules_hash) in remembered[range[0]..range[1]].iter().enumerate() {
            if let Some(rules_hash) = rules_hash {
                known.remember(*rules_hash, chunks[slot], row);
            }
        }
    }
    Ok(())
}

impl Work {
    fn rules_hash(&self) -> Option<[u8; 8]> {
        match self {
            Self::Failed(_) => None,
            Self::Unit { rules_hash, .. } => Some(*rules_hash),
        }
    }
}

struct Resolved {
    setting: Setting,
    config_hash: [u8; 32],
    rng_seed: u64,
    result: Result<([u8; 8], Vec<ColumnKey>), Box<Outcome>>,
}

pub(crate) fn failed(error: &Error) -> Box<Outcome> {
    Box::new(Outcome::Failed { code: error.code().to_owned(), reason: error.to_string() })
}

fn resolve(job: &Job<'_>, setting: Setting) -> Resolved {
    match job.configs.trial(&setting) {
        Ok(trial) => {
            let result = guarded(|| {
                let prepared = job.environment.prepare(&trial.config, trial.rng_seed)?;
                Ok((prepared.rules_hash(), prepared.columns().to_vec()))
            });
            Resolved { setting, config_hash: trial.config_hash, rng_seed: trial.rng_seed, result }
        }
        // Values were checked against their ranges before the sweep; what is left is a contradiction between them.
        Err(error) => {
            let config_hash = job.configs.hash_as_given(&setting);
            Resolved { setting, config_hash, rng_seed: 0, result: Err(failed(&error)) }
        }
    }
}

/// Runs `work`; an error or a panic becomes the failure of this trial alone.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Box<Outcome>> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(&error)),
        Err(payload) => Err(failed(&Error::Internal(panic_text(payload.as_ref())))),
    }
}

/// What the row of a prepared trial says, in a sweep and when it is recomputed, and its trades as storage to reuse.
///
/// # Errors
/// Whatever ends the backtest: the reason of a failed row.
pub(crate) fn outcome_of(prepared: &Prepared, storage: Vec<Trade>) -> Result<(Outcome, Vec<Trade>), Error> {
    let outcome = prepared.run(storage, &mut Nobody)?;
    let values = outcome.summary.values;
    let traded = values.get(Metric::TotalTrades).is_some_and(|n| n > 0.0);
    let no_trade_reason = if traded { None } else { Some(prepared.why_no_trade(&outcome.walked.counters)?) };
    Ok((Outcome::Done { values, no_trade_reason }, outcome.walked.trades))
}

/// Message of a panic.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
}

/// Groups the trials by `rules_hash`; units whose outcome an earlier wave wrote get it from there.
fn plan_units(job: &Job<'_>, resolved: Vec<Resolved>, known: &mut Known) -> (Vec<Planned>, Vec<Unit>) {
    let mut column_sets: BTreeMap<Vec<ColumnKey>, usize> = BTreeMap::new();
    for trial in &resolved {
        if let Ok((_, columns)) = &trial.result {
            column_sets.entry(columns.clone()).or_insert(0);
        }
    }
    column_sets.values_mut().enumerate().for_each(|(rank, slot)| *slot = rank);
    let mut by_hash: HashMap<[u8; 8], usize> = HashMap::new();
    let mut units: Vec<Unit> = Vec::new();
    let mut planned = Vec::with_capacity(resolved.len());
    for (at, trial) in resolved.into_iter().enumerate() {
        let work = match trial.result {
            Err(outcome) => Work::Failed(outcome),
            Ok((rules_hash, columns)) => {
                let unit = *by_hash.entry(rules_hash).or_insert_with(|| {
                    let columns = column_sets.get(&columns).copied().unwrap_or(0);
                    let outcome = known.recall(job, &rules_hash).map_or_else(OnceLock::new, OnceLock::from);
                    units.push(Unit { representative: at, sharers: Vec::new(), columns, outcome });
                    units.len() - 1
                });
                units[unit].sharers.push(at);
                Work::Unit { unit, rules_hash }
            }
        };
        planned.push(Planned {
            setting: trial.setting,
            config_hash: trial.config_hash,
            rng_seed: trial.rng_seed,
            work,
        });
    }
    (planned, units)
}

/// For each chunk, the number of distinct units its trials wait for, plus one that [`work`] takes back itself so
/// that a chunk of failed trials only is committed too.
fn waiting_units(planned: &[Planned], units: &[Unit], bounds: &[usize]) -> Vec<AtomicUsize> {
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

fn work(wave: &Wave<'_>) {
    for trial in &wave.planned {
        if let Work::Failed(outcome) = &trial.work {
            wave.job.observer.evaluated(outcome, 1);
        }
    }
    (0..wave.waiting.len()).for_each(|slot| wave.unit_done(slot));
    let mut order: Vec<usize> = (0..wave.units.len()).collect();
    order.sort_by_key(|unit| (wave.units[*unit].columns, *unit));
    let tile = order.len().div_ceil(wave.job.threads * 8).clamp(1, TILE);
    order.par_chunks(tile).for_each(|tile| {
        let mut trades: Vec<Trade> = Vec::new();
        for unit in tile {
            let unit = &wave.units[*unit];
            let outcome = unit.outcome.get_or_init(|| wave.evaluate(unit, &mut trades));
            wave.job.observer.evaluated(outcome, unit.sharers.len() as u64);
            wave.finish(unit);
        }
    });
}

impl Wave<'_> {
    fn evaluate(&self, unit: &Unit, trades: &mut Vec<Trade>) -> Outcome {
        let planned = &self.planned[unit.representative];
        let storage = std::mem::take(trades);
        let done = guarded(|| {
            let trial = self.job.configs.trial(&planned.setting)?;
            let prepared = self.job.environment.prepare(&trial.config, trial.rng_seed)?;
            outcome_of(&prepared, storage)
        });
        match done {
            Ok((outcome, storage)) => {
                *trades = storage;
                outcome
            }
            Err(outcome) => *outcome,
        }
    }

    /// Tells every chunk with a trial of this unit.
    fn finish(&self, unit: &Unit) {
        let mut last = None;
        for trial in &unit.sharers {
            let chunk = self.bounds.partition_point(|bound| bound <= trial) - 1;
            if last != Some(chunk) {
                last = Some(chunk);
                self.unit_done(chunk);
            }
        }
    }

    /// The last unit a chunk waits for sends its rows to the writer.
    fn unit_done(&self, chunk: usize) {
        if self.waiting[chunk].fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let rows = self.planned[self.bounds[chunk]..self.bounds[chunk + 1]].iter().map(|trial| self.row(trial));
        // The writer has gone only after an error, which ends the sweep after this wave.
        let _ = self.writer.send((self.chunks[chunk], rows.collect()));
    }

    fn row(&self, planned: &Planned) -> Row {
        let (outcome, rules_hash) = match &planned.work {
            Work::Failed(outcome) => (outcome.as_ref().clone(), [0; 8]),
            Work::Unit { unit, rules_hash } => {
                let outcome = self.units[*unit].outcome.get().cloned();
                let missing = || *failed(&Error::Internal("a chunk was committed before its trials".to_owned()));
                (outcome.unwrap_or_else(missing), *rules_hash)
            }
        };
        Row {
            trial: planned.setting.trial,
            config_hash: planned.config_hash,
            rules_hash,
            outcome,
            rng_seed: planned.rng_seed,
        }
    }
}

/// Writes chunks as they come, off the computing threads; after an error it takes the rest without writing.
fn write_queue(job: &Job<'_>, queue: Receiver<(u64, Vec<Row>)>, failure: &Mutex<Option<FileError>>) {
    for (index, rows) in queue {
        if failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            continue;
        }
        let written =
            write_chunk(&job.folder.chunk(index), job.schema, job.fingerprint, &rows, &mut |trial, values| {
                params_of(job, trial, values);
            });
        match written {
            Ok(()) => job.observer.committed(index, rows.len() as u64),
            Err(error) => *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
        }
    }
}

fn params_of(job: &Job<'_>, trial: u64, values: &mut Vec<ParamValue>) {
    let Some(setting) = job.trials.setting(trial) else { return };
    let space = job.trials.space();
    let columns = space.columns().iter().enumerate();
    values.extend(columns.map(|(at, column)| {
        ParamValue::from_json(&space.value(&setting, at), column.kind).unwrap_or(ParamValue::Null)
    }));
}

/// Which chunk holds the outcome of a rule set, as long as the ledger has room.
struct Known {
    ledger: Ledger,
    places: HashMap<[u8; 8], (u64, u32)>,
    memory: Vec<Reservation>,
    free: usize,
    /// The chunk read last: sharers of a rule set tend to share a chunk.
    open: Option<(u64, Arc<crate::chunk::Chunk>)>,
}

impl Known {
    const BLOCK: usize = 4096;

    fn new(ledger: Ledger) -> Self {
        Self { ledger, places: HashMap::new(), memory: Vec::new(), free: 0, open: None }
    }

    fn remember(&mut self, rules_hash: [u8; 8], chunk: u64, row: usize) {
        if self.free == 0 {
            match self.ledger.try_reserve(Self::BLOCK * REMEMBERED_BYTES) {
                Some(reservation) => self.memory.push(reservation),
                None => return,
            }
            self.free = Self::BLOCK;
        }
        if let Ok(row) = u32::try_from(row)
            && self.places.insert(rules_hash, (chunk, row)).is_none()
        {
            self.free -= 1;
        }
    }

    fn recall(&mut self, job: &Job<'_>, rules_hash: &[u8; 8]) -> Option<Outcome> {
        let (index, row) = *self.places.get(rules_hash)?;
        if self.open.as_ref().is_none_or(|(open, _)| *open != index) {
            let chunk = read_chunk(&job.folder.chunk(index), job.schema, job.fingerprint, job.plan.trials(index));
            self.open = Some((index, Arc::new(chunk.ok()?)));
        }
        let (_, chunk) = self.open.as_ref()?;
        let row = chunk.row(job.schema, row as usize)?;
        (row.rules_hash == *rules_hash).then_some(row.outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// config-and-errors §8.4: a caught panic and an error end the trial they happen in, with their code.
    #[test]
    fn a_panic_becomes_the_failure_of_its_trial() {
        let code = |work: &dyn Fn() -> Result<(), Error>| match guarded(work).map_err(|failed| *failed) {
            Err(Outcome::Failed { code, reason }) => (code, reason),
            other => panic!("{other:?}"),
        };
        let said = code(&|| panic!("index {} of nothing", 3));
        assert_eq!(said, ("E4900".to_owned(), "internal error: index 3 of nothing".to_owned()));
        let said = code(&|| Err(Error::MetricNotFinite { key: "calmar_ratio" }));
        assert_eq!(said, ("E4302".to_owned(), "metric `calmar_ratio` is not finite".to_owned()));
        assert_eq!(guarded(|| Ok(7)), Ok(7));
    }
}
