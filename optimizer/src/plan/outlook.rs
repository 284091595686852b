//! The outlook of a sweep before it runs: how much there is to do, how long it will take, what it needs. Nothing is
//! written but the cache of bars.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::backtest::tile::{Job, Workspace};
use engine::backtest::{Environment, Prepared, RunMode};
use engine::data::Sources;
use engine::rules::Condition;
use rayon::ThreadPool;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::chunk::{ChunkError, ChunkPlan, file_name, read_chunk};
use crate::driver::{DriverError, chunk_bytes, unit_bytes};
use crate::error::{CommandError, guarded};
use crate::fingerprint::Fingerprint;
use crate::leaderboard::least_memory;
use crate::plan::memory::{Ledger, memory_for};
use crate::plan::survey::{Survey, questions, survey};
use crate::reuse::{Earlier, read_rows, refuse_unless_runs};
use crate::row::RowSchema;
use crate::rows::trial_bytes;
use crate::run_folder::folder_name;
use crate::single::keep_manifest;
use crate::sweep::{Experiment, Options, cap_of, find_earlier, fingerprint, market_bytes, needed_memory, output_root};
use crate::trial::{Resolver, TrialConfigs};

/// The probe stops after the first block that makes this much.
const PROBE: Duration = Duration::from_millis(500);
/// Settings of the largest block probed.
const MOST_PROBED: u64 = 512;
/// Time per row for hashing, chunk file, ranking and leaderboard, all threads together; measured, see benches.
const ROW_SECONDS: f64 = 20e-6;
/// Settings whose hash is looked up among those of earlier runs at most.
const MOST_COUNTED: u64 = 1 << 22;
/// Share of its plain size that a compressed file takes, roughly.
const COMPRESSED: f64 = 0.6;

/// What a sweep will take.
#[derive(Debug)]
pub struct Outlook {
    /// What the settings come to.
    pub survey: Survey,
    /// How trials are cut.
    pub chunks: ChunkPlan,
    /// Run folder, if the output root allows one.
    pub folder: String,
    /// Sound chunks found there.
    pub finished: u64,
    /// Trials in them.
    pub finished_trials: u64,
    /// Damaged chunks found there; a sweep sets them aside.
    pub damaged: u64,
    /// Trials that are not finished, but whose rows a sweep takes over from earlier runs.
    pub reusable: Reusable,
    /// Why a sweep would refuse the folder.
    pub refused: Option<String>,
    /// Bars of the primary timeframe.
    pub bars: usize,
    /// Settings probed.
    pub probed: u64,
    /// Estimated time of the sweep.
    pub seconds: f64,
    /// Threads it is estimated for.
    pub threads: usize,
    /// Memory cap.
    pub memory_cap: usize,
    /// Least cap that a sweep accepts.
    pub memory_least: usize,
    /// Estimated peak, below the cap.
    pub memory_peak: usize,
    /// Bytes all columns take together.
    pub column_bytes: usize,
    /// Estimated bytes of chunk files.
    pub chunk_bytes: u64,
    /// Estimated bytes of the leaderboard in both forms.
    pub leaderboard_bytes: u64,
    /// Worth telling.
    pub warnings: Vec<String>,
}

impl Outlook {
    /// Loads the bars, resolves settings and runs a few.
    ///
    /// # Errors
    /// Data errors, threads that cannot be started.
    pub fn new(experiment: &Experiment, options: &Options, sources: &Sources) -> Result<Self, CommandError> {
        refuse_unless_runs(options.reuse.as_deref().unwrap_or_default())?;
        let cap = cap_of(experiment, options);
        let ledger = Ledger::within(cap);
        let environment =
            Environment::open(&experiment.config, &experiment.timeframes, sources, Arc::new(ledger.clone()))?;
        keep_manifest(&environment, &sources.cache_dir);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .build()
            .map_err(|e| DriverError::Threads { threads: options.threads, reason: e.to_string() })?;
        let (chunks, schema) = (experiment.chunks(), RowSchema::of(experiment.space()));
        let (chunk, ranking) = (chunk_bytes(&chunks, trial_bytes(&schema)), least_memory(&schema, &chunks));
        let memory_least = memory_for(needed_memory(&environment, experiment, options.threads, chunk, ranking));
        let market = market_bytes(&environment.data().market);
        // A cap that is too small is told, not refused: nothing runs.
        let _bars = ledger.try_reserve(market);
        let document = experiment.config.document.clone();
        let configs = TrialConfigs::new(Arc::clone(experiment.space()), document, None);
        let survey = pool.install(|| survey(&experiment.trials, &configs, &environment));
        let fingerprint = fingerprint(experiment, &environment);
        let folder = Folder::look(experiment, &fingerprint, options, &schema, &pool);
        let earlier = match folder.missing[..] {
            [] => Earlier::none(&ledger),
            _ => {
                let own = Path::new(&folder.path);
                find_earlier(experiment, options, &environment, &ledger, chunk, &fingerprint, own)
            }
        };
        let reusable = pool.install(|| Reusable::count(experiment, &configs, &earlier, &fingerprint, &folder.missing));
        let probe = Probe::run(experiment, &configs, &environment);

        let to_do = chunks.total() - folder.finished_trials - reusable.settings;
        let share = to_do as f64 / chunks.total().max(1) as f64;
        let work = share * probe.work(&survey) + ROW_SECONDS * chunks.total() as f64;
        let bars = environment.data().market.bars.len();
        let column_bytes = survey.columns * bars * size_of::<f64>();
        let wave = chunks.total().min(65_536) as usize * (trial_bytes(&schema) + probe.unit_bytes);
        let peak = market
            + column_bytes
            + survey.guard_questions * bars * size_of::<f64>()
            + survey.masks * bars.div_ceil(8)
            + wave;
        let row_bytes = schema.row_bytes() as f64;
        let packed = |rows: u64, per_file: u64| {
            let share = if per_file > crate::parquet_file::UNCOMPRESSED_ROWS { COMPRESSED } else { 1.0 };
            (rows as f64 * row_bytes * share) as u64
        };
        let csv_rows = match experiment.grid.output.csv {
            crate::grid::CsvRows::All => chunks.total(),
            crate::grid::CsvRows::Best(rows) => rows.min(chunks.total()),
        };
        let mut warnings: Vec<String> = environment.warnings().iter().chain(&experiment.warnings).cloned().collect();
        if memory_least > cap {
            warnings.push(format!(
                "a sweep refuses a cap of {}: it needs at least {}",
                crate::plan::memory::show_bytes(cap),
                crate::plan::memory::enough_bytes(memory_least)
            ));
        }
        Ok(Self {
            seconds: work / options.threads as f64,
            probed: probe.settings,
            bars,
            threads: options.threads,
            memory_cap: cap,
            memory_least,
            memory_peak: peak.clamp(memory_least.min(cap), cap),
            column_bytes,
            chunk_bytes: packed(chunks.total(), chunks.size().min(chunks.total())),
            leaderboard_bytes: packed(chunks.total(), chunks.total()) + csv_rows * schema.row_bytes() as u64,
            folder: folder.path,
            finished: folder.finished,
            finished_trials: folder.finished_trials,
            damaged: folder.damaged,
            reusable,
            refused: folder.refused,
            survey,
            chunks,
            warnings,
        })
    }

    /// As one JSON document.
    pub fn to_json(&self) -> Value {
        let survey = &self.survey;
        let ways: serde_json::Map<String, Value> =
            survey.ways.iter().map(|(way, count)| (way.text(), json!(count))).collect();
        json!({
            "distinct_settings": survey.distinct,
            "distinct_exact": survey.compared == 0,
            "distinct_compared": survey.compared,
            "resolved": survey.resolved,
            "columns": survey.columns,
            "column_bytes": self.column_bytes,
            "masks": survey.masks,
            "exit_tables": survey.exit_tables,
            "guard_questions": survey.guard_questions,
            "ways": ways,
            "failures": survey.failures,
            "bars": self.bars,
            "chunk_size": self.chunks.size(),
            "chunks": self.chunks.count(),
            "chunks_finished": self.finished,
            "trials_finished": self.finished_trials,
            "chunks_damaged": self.damaged,
            "trials_reusable": self.reusable.settings,
            "reusable_exact": !self.reusable.sampled,
            "reusable_runs": self.reusable.runs,
            "folder": self.folder,
            "folder_refused": self.refused,
            "probed": self.probed,
            "seconds": self.seconds,
            "threads": self.threads,
            "memory_cap": self.memory_cap,
            "memory_least": self.memory_least,
            "memory_peak": self.memory_peak,
            "chunk_bytes": self.chunk_bytes,
            "leaderboard_bytes": self.leaderboard_bytes,
            "warnings": self.warnings,
        })
    }
}

/// What a run folder holds, looked at without touching it.
#[derive(Default)]
struct Folder {
    path: String,
    finished: u64,
    finished_trials: u64,
    damaged: u64,
    /// Chunks that a sweep has to make.
    missing: Vec<u64>,
    refused: Option<String>,
}

impl Folder {
    fn look(
        experiment: &Experiment,
        fingerprint: &Fingerprint,
        options: &Options,
        schema: &RowSchema,
        pool: &ThreadPool,
    ) -> Self {
        let name = match folder_name(&experiment.grid.name, &fingerprint.hash8()) {
            Ok(name) => name,
            Err(error) => return Self { refused: Some(error.to_string()), ..Self::default() },
        };
        let path = output_root(experiment, options).join(name);
        let plan = experiment.chunks();
        let missing = (0..plan.count()).collect();
        let mut found = Self { path: path.display().to_string(), missing, ..Self::default() };
        if options.fresh {
            return found;
        }
        let chunks = path.join("chunks");
        let read = |index: u64| {
            let file = chunks.join(file_name(index));
            file.exists().then(|| (index, read_chunk(&file, schema, fingerprint, plan.trials(index)).map(drop)))
        };
        let verdicts: Vec<(u64, Result<(), ChunkError>)> =
            pool.install(|| (0..plan.count()).into_par_iter().filter_map(read).collect());
        let finished: HashSet<u64> =
            verdicts.iter().filter(|(_, verdict)| verdict.is_ok()).map(|(index, _)| *index).collect();
        found.missing.retain(|index| !finished.contains(index));
        for (index, verdict) in verdicts {
            let trials = plan.trials(index);
            match verdict {
                Ok(()) => {
                    found.finished += 1;
                    found.finished_trials += trials.end - trials.start;
                }
                Err(ChunkError::Damaged { .. }) => found.damaged += 1,
                Err(other) => found.refused = found.refused.take().or(Some(other.to_string())),
            }
        }
        found
    }
}

/// Settings of the missing chunks that earlier runs hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reusable {
    /// How many.
    pub settings: u64,
    /// Estimated from a sample of the chunks.
    pub sampled: bool,
    /// Earlier runs that hold them.
    pub runs: usize,
}

impl Reusable {
    fn count(
        experiment: &Experiment,
        configs: &TrialConfigs,
        earlier: &Earlier,
        fingerprint: &Fingerprint,
        missing: &[u64],
    ) -> Self {
        // A seed drawn for this run alone is in no other's rows.
        let drawn = experiment.config.run_mode == RunMode::Prod && experiment.config.rng_seed.is_none();
        if earlier.is_empty() || drawn {
            return Self::default();
        }
        let plan = experiment.chunks();
        let trials = |chunks: &[u64]| -> u64 {
            chunks.iter().map(|index| plan.trials(*index)).map(|range| range.end - range.start).sum()
        };
        let step = usize::try_from(trials(missing).div_ceil(MOST_COUNTED)).unwrap_or(usize::MAX).max(1);
        let sample: Vec<u64> = missing.iter().copied().step_by(step).collect();
        let look = |index: &u64| {
            let settings = experiment.trials.settings(plan.trials(*index));
            let files = settings.filter_map(|setting| Some(earlier.place(&configs.config_hash(&setting)?)?.0));
            let mut counts = BTreeMap::new();
            files.for_each(|file| *counts.entry(file).or_insert(0_u64) += 1);
            counts
        };
        let add = |mut sum: BTreeMap<u32, u64>, more: BTreeMap<u32, u64>| {
            more.into_iter().for_each(|(file, count)| *sum.entry(file).or_default() += count);
            sum
        };
        let counts = sample.par_iter().map(look).reduce(BTreeMap::new, add);
        // A file that turns out damaged is not reused.
        let sound = |(file, count): (u32, u64)| {
            let path = earlier.file(file).filter(|path| read_rows(path, fingerprint).is_some())?;
            Some((path.parent(), count))
        };
        let found: Vec<(Option<&Path>, u64)> = counts.into_par_iter().filter_map(sound).collect();
        let (settings, all, seen) =
            (found.iter().map(|(_, count)| count).sum::<u64>(), trials(missing), trials(&sample));
        let runs = found.iter().map(|(folder, _)| *folder).collect::<HashSet<_>>().len();
        let sampled = seen < all;
        let scale = if sampled { all as f64 / seen.max(1) as f64 } else { 1.0 };
        Self { settings: (settings as f64 * scale) as u64, sampled, runs }
    }
}

/// Times measured on a few settings, in seconds.
#[derive(Default)]
struct Probe {
    settings: u64,
    /// Per distinct setting, with everything shared found out.
    setting: f64,
    /// Per column.
    column: f64,
    /// For what the settings probed share, masks and answers of late guards, beside columns.
    shared: f64,
    /// Masks and guard questions among them.
    masks: usize,
    questions: usize,
    /// Memory of a prepared setting.
    unit_bytes: usize,
}

impl Probe {
    /// Runs blocks of consecutive settings from the middle of the search, each twice as large as the one before, and
    /// keeps the last. It is run twice: the first time finds out what settings share.
    fn run(experiment: &Experiment, configs: &TrialConfigs, environment: &Environment) -> Self {
        let mut resolver = Resolver::new(configs, environment);
        let (trials, mut size) = (&experiment.trials, 16);
        let (mut columns, mut column_time) = (0, Duration::ZERO);
        loop {
            let start = (trials.len() / 2).min(trials.len().saturating_sub(size));
            let mut prepared: Vec<Prepared> = trials
                .settings(start..(start + size).min(trials.len()))
                .filter_map(|setting| resolver.resolve(&setting).prepared.ok())
                .collect();
            prepared.sort_by_key(Prepared::rules_hash);
            prepared.dedup_by_key(|prepared| prepared.rules_hash());
            prepared.sort_by_key(Prepared::exit_hint);
            let before = computed(&prepared);
            column_time += timed(|| {
                for setting in &prepared {
                    // What fails here is a failed row in a sweep.
                    let _ = guarded(|| setting.warm());
                }
            });
            columns += computed(&prepared) - before;
            let jobs: Vec<Job<'_>> = prepared.iter().map(Job::whole).collect();
            let run = || timed(|| drop(guarded(|| Ok::<_, engine::Error>(Workspace::default().run(&jobs, &|_| true)))));
            let (first, again) = (run(), run());
            if first >= PROBE || size >= MOST_PROBED || size >= trials.len() {
                let masks: HashSet<Condition> = prepared.iter().flat_map(Prepared::conditions).collect();
                return Self {
                    settings: jobs.len() as u64,
                    setting: again.as_secs_f64() / jobs.len().max(1) as f64,
                    column: column_time.as_secs_f64() / columns.max(1) as f64,
                    shared: first.saturating_sub(again).as_secs_f64(),
                    masks: masks.len(),
                    questions: prepared.iter().flat_map(questions).collect::<HashSet<_>>().len(),
                    unit_bytes: prepared.first().map_or(0, unit_bytes),
                };
            }
            size *= 2;
        }
    }

    /// Time of a whole space on one thread, files left out.
    fn work(&self, survey: &Survey) -> f64 {
        let of = |all: usize, probed: usize| all as f64 / probed.max(1) as f64;
        // Answers of guards are so much dearer than masks that they stand for what is shared.
        let share = match self.questions {
            0 => of(survey.masks, self.masks),
            questions => of(survey.guard_questions, questions),
        };
        self.setting * survey.distinct as f64 + self.column * survey.columns as f64 + self.shared * share
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

/// Columns computed so far on the market of some settings.
fn computed(prepared: &[Prepared]) -> u64 {
    prepared.first().map_or(0, |setting| setting.market().columns.stats().computed)
}
