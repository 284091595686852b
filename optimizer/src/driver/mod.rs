//! The parallel part of a search: waves of chunks, cut into tiles, evaluated on all cores, committed chunk by chunk.
//!
//! Nothing here decides a row: order, tiles, waves and threads change only when a chunk is finished. What is kept of a
//! setting and how a chunk of it is written is the business of a [`Work`]: one row per trial for a sweep, one small
//! record per trial and window for a walk-forward.

mod blocks;
mod known;
mod wave;

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::backtest::tile::{Evaluated, Job as Backtest, Workspace};
use engine::backtest::{Environment, Prepared};
use engine::rules::{Expr, Rule};
use engine::{Error, error};
use rayon::ThreadPool;

use self::known::Known;
use crate::atomic::FileError;
use crate::chunk::ChunkPlan;
use crate::plan::memory::{Ledger, Reservation};
use crate::resume::Finished;
use crate::reuse::{Earlier, Wanted};
pub use crate::row::Done;
use crate::row::Outcome;
use crate::search::Trials;
use crate::trial::{Resolver, TrialConfigs};

/// Work aimed at per wave: a kill costs at most about this much.
const WAVE: Duration = Duration::from_secs(30);
/// Trials of the first wave at most, as long as a chunk is not larger: enough to share columns and exits, few enough to
/// learn how long they take.
const FIRST_TRIALS: u64 = 1024;
/// Chunks of the first wave at most: small chunks are chosen to be committed often.
const FIRST_CHUNKS: usize = 64;
/// Bars that all trials of the first wave visit together at most, a second or so of walking.
const FIRST_BARS: u64 = 1_000_000_000;
/// Memory of one trial while its wave is planned and evaluated, beside its unit and what the work keeps of it.
const PLANNED_BYTES: usize = 256;
/// Memory of one unit beside its rules and columns.
const UNIT_BYTES: usize = 2048;

/// What a search keeps of its trials, and how.
///
/// A unit is a distinct `rules_hash` of a wave: it is evaluated once, and its outcome is that of every trial that
/// shares it. Everything here must be a function of the setting alone.
pub trait Work: Sync {
    /// What is kept of a unit.
    type Outcome: Clone + Send + Sync;
    /// A finished chunk, read back.
    type Stored;

    /// Pushes the backtests of a setting: one on all bars, or one per window.
    fn jobs<'p>(&self, setting: &'p Prepared, jobs: &mut Vec<Backtest<'p>>);

    /// Backtests per setting, as [`Work::jobs`] pushes them; tiles are cut by it.
    fn jobs_per_setting(&self) -> usize {
        1
    }

    /// What the backtests of a setting come to; `results` are in the order of its jobs.
    ///
    /// # Errors
    /// Whatever makes the trial a failed one.
    fn outcome(&self, setting: &Prepared, results: &[error::Result<Evaluated>]) -> Result<Self::Outcome, Error>;

    /// The outcome of a trial that could not be evaluated: code (`E4003`) and reason.
    fn failed(&self, code: String, reason: String) -> Self::Outcome;

    /// Tells the observer of an outcome that `sharing` trials of the running wave have.
    fn tell(&self, outcome: &Self::Outcome, sharing: u64, observer: &dyn Observer);

    /// Writes a chunk, whole or not at all: its trials in order. Several chunks may be written at once, each by one
    /// thread.
    ///
    /// # Errors
    /// The file cannot be written.
    fn write(&self, chunk: u64, trials: &[Done<'_, Self::Outcome>]) -> Result<(), FileError>;

    /// Reads a chunk back to reuse its outcomes; none if that cannot be done, and then they are evaluated again.
    fn read(&self, chunk: u64) -> Option<Self::Stored>;

    /// The outcome in a row of a chunk read back, if the row is of this `rules_hash`.
    fn recall(&self, stored: &Self::Stored, row: usize, rules_hash: &[u8; 8]) -> Option<Self::Outcome>;

    /// The outcomes of settings in a chunk file of an earlier run, in their order; none for a row that is not the
    /// setting's, and none at all of a file that cannot be trusted.
    fn recall_earlier(&self, path: &Path, wanted: &[Wanted<'_>]) -> Vec<Option<Self::Outcome>>;

    /// Bytes of one trial in work: its outcome, and what writing its chunk takes.
    fn trial_bytes(&self) -> usize;
}

/// Everything a search works on.
pub struct Job<'a, W> {
    /// What is kept of a trial.
    pub work: &'a W,
    /// Settings by number.
    pub trials: &'a Trials,
    /// Configs by setting.
    pub configs: &'a TrialConfigs,
    /// Bars, columns, costs.
    pub environment: &'a Environment,
    /// Folder of the chunks, flushed once per wave.
    pub chunks: &'a Path,
    /// How trials are cut into chunks.
    pub plan: ChunkPlan,
    /// Rows of earlier runs that need not be evaluated again.
    pub earlier: &'a Earlier,
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

/// What time is spent on. Threads are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Settings resolved, hashed and grouped.
    Resolve,
    /// Columns computed.
    Columns,
    /// Backtests.
    Evaluate,
    /// Chunk files, waiting for the disk included.
    Write,
    /// Ranking and leaderboard, waiting for the disk included.
    Rank,
}

impl Phase {
    /// Name in the event file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Columns => "columns",
            Self::Evaluate => "evaluate",
            Self::Write => "chunk_files",
            Self::Rank => "rank",
        }
    }
}

/// Watches a search. Called from worker threads; may not influence anything.
pub trait Observer: Sync {
    /// A wave begins.
    fn wave(&self, _chunks: &[u64], _trials: u64) {}
    /// `sharing` trials of the running wave have this outcome; all but one of them were spared.
    fn evaluated(&self, _outcome: &Outcome, _sharing: u64) {}
    /// Of `trials` of the running wave, the outcome was taken over from earlier runs.
    fn reused(&self, _trials: u64) {}
    /// A chunk is on disk.
    fn committed(&self, _index: u64, _rows: u64) {}
    /// A thread has spent time on something.
    fn took(&self, _phase: Phase, _time: Duration) {}
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every chunk is there.
    Complete,
    /// Stopped from outside after a wave; resumable.
    Interrupted,
    /// The deadline passed; resumable.
    Deadline,
}

/// A search could not go on. Finished chunks stay.
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
pub fn run<W: Work>(job: &Job<'_, W>, finished: &Finished) -> Result<End, DriverError> {
    let workers = Workers::start(job.threads)?;
    let missing: Vec<u64> = finished.missing(&job.plan).collect();
    let mut state = State::new(job, &missing);
    let mut next = 0;
    let mut wave_chunks = first_wave(job);
    while next < missing.len() {
        if job.stop.load(Ordering::SeqCst) {
            return Ok(End::Interrupted);
        }
        if job.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(End::Deadline);
        }
        let (chunks, memory) = reserve_wave(job, &state, &missing[next..], wave_chunks)?;
        let started = Instant::now();
        wave::evaluate(job, &workers, chunks, &memory, &mut state)?;
        next += chunks.len();
        wave_chunks = next_wave(chunks.len(), started.elapsed(), job.deadline);
    }
    Ok(End::Complete)
}

/// What a wave leaves to the next.
struct State<S> {
    known: Known<S>,
    /// Hashes of conditions that earlier waves asked.
    asked: HashSet<u64>,
    /// Memory that is not columns and not the wave's: bars and the like.
    fixed: usize,
    /// Memory of one chunk in work.
    chunk_bytes: usize,
}

impl<S> State<S> {
    fn new<W: Work<Stored = S>>(job: &Job<'_, W>, missing: &[u64]) -> Self {
        let first = missing.first().and_then(|chunk| job.trials.setting(job.plan.trials(*chunk).start));
        let prepared =
            first.and_then(|setting| Resolver::new(job.configs, job.environment).resolve(&setting).prepared.ok());
        let trial_bytes = job.work.trial_bytes() + prepared.as_ref().map_or(UNIT_BYTES, unit_bytes);
        Self {
            known: Known::new(job.ledger.clone()),
            asked: HashSet::new(),
            fixed: job.ledger.used(),
            chunk_bytes: chunk_bytes(&job.plan, trial_bytes),
        }
    }
}

/// The computing threads, and the memory each of them reuses from tile to tile.
struct Workers {
    pool: ThreadPool,
    workspaces: Vec<Mutex<Workspace>>,
}

impl Workers {
    fn start(threads: usize) -> Result<Self, DriverError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|n| format!("worker-{n}"))
            .build()
            .map_err(|error| DriverError::Threads { threads, reason: error.to_string() })?;
        Ok(Self { pool, workspaces: (0..threads).map(|_| Mutex::default()).collect() })
    }

    /// Works with the workspace of this thread.
    fn with_workspace<T>(&self, work: impl FnOnce(&mut Workspace) -> T) -> T {
        let own = rayon::current_thread_index().and_then(|index| self.workspaces.get(index));
        match own {
            // A panic leaves a workspace behind that is not to be trusted: see [`guarded`].
            Some(own) => work(&mut own.lock().unwrap_or_else(PoisonError::into_inner)),
            None => work(&mut Workspace::default()),
        }
    }
}

/// Chunks of the first wave.
fn first_wave<W: Work>(job: &Job<'_, W>) -> usize {
    let bars = (job.environment.data().market.bars.len() as u64).saturating_mul(job.work.jobs_per_setting() as u64);
    let trials = FIRST_TRIALS.min(FIRST_BARS / bars.max(1));
    usize::try_from(trials / job.plan.size()).unwrap_or(usize::MAX).clamp(1, FIRST_CHUNKS)
}

/// Chunks of the next wave, from what the last one took; grows at most eightfold at a time. A wave is not meant to
/// outlast the deadline: a limit of an hour ends the sweep after an hour.
fn next_wave(chunks: usize, took: Duration, deadline: Option<Instant>) -> usize {
    let left = deadline.map_or(WAVE, |deadline| deadline.saturating_duration_since(Instant::now()).min(WAVE));
    let fitting = chunks as f64 * left.as_secs_f64() / took.as_secs_f64().max(1e-3);
    (fitting as usize).clamp(1, chunks.saturating_mul(8))
}

/// Books the memory of the wave: as many of the wanted chunks as fit into a third of what bars leave, at least one.
/// Columns nobody uses make room.
fn reserve_wave<'m, W: Work>(
    job: &Job<'_, W>,
    state: &State<W::Stored>,
    missing: &'m [u64],
    wanted: usize,
) -> Result<(&'m [u64], Reservation), DriverError> {
    let one = state.chunk_bytes;
    let fair = job.ledger.cap().saturating_sub(state.fixed) / 3 / one.max(1);
    let mut chunks = wanted.min(missing.len()).min(fair).max(1);
    loop {
        let bytes = one.saturating_mul(chunks);
        let freed = match job.ledger.try_reserve(bytes) {
            Some(reservation) => return Ok((&missing[..chunks], reservation)),
            None => job.environment.release_memory(bytes),
        };
        if let Some(reservation) = job.ledger.try_reserve(bytes) {
            return Ok((&missing[..chunks], reservation));
        }
        if chunks == 1 {
            let free = job.ledger.cap().saturating_sub(job.ledger.used()).max(freed);
            return Err(DriverError::Memory { needed: one, free });
        }
        chunks /= 2;
    }
}

/// Memory of one chunk in work: what is kept of its trials, their columns while they are written, and their plan.
/// `trial_bytes`: [`Work::trial_bytes`] and [`unit_bytes`].
pub fn chunk_bytes(plan: &ChunkPlan, trial_bytes: usize) -> usize {
    let trials = usize::try_from(plan.size().min(plan.total())).unwrap_or(usize::MAX);
    trials.saturating_mul(trial_bytes.saturating_add(PLANNED_BYTES))
}

/// Memory of a prepared setting, estimated from what its rules state.
pub fn unit_bytes(prepared: &Prepared) -> usize {
    let rules = prepared.strategy().rules().map_or(0, |rules| rules.rules.len());
    UNIT_BYTES
        + size_of_val(prepared.columns())
        + prepared.conditions().len() * size_of::<Expr>()
        + rules * (size_of::<Rule>() + 256)
}
