//! A whole sweep: the grid understood, the bars loaded, every setting evaluated, the rows ranked, the best shown.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use engine::backtest::{Environment, RunConfig, RunMode, canonical};
use engine::data::{Bars, MarketData, Sources};
use engine::indicators::warmup_needed;
use engine::strategy::{self, Family, ParamKind};
use engine::units::Timeframe;
use engine::{Error, Violation};
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::atomic::write_atomic;
use crate::chunk::{ChunkPlan, Kept};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::driver::{self, End, Job, Observer, Phase, chunk_bytes, unit_bytes};
use crate::error::{CommandError, ExitCode};
use crate::fingerprint::Fingerprint;
use crate::grid::{CsvRows, Grid};
use crate::leaderboard::{self, Summary, Targets};
use crate::merge::{MergeError, Pieces};
use crate::objective::Verdict;
use crate::plan::memory::{Ledger, Reservation, memory_for};
use crate::plan::places::SHARE;
use crate::replay::{Provenance, replay};
use crate::resume::{Finished, present, scan};
use crate::reuse::{self, Earlier};
use crate::row::RowSchema;
use crate::rows::{Rows, trial_bytes};
use crate::run_folder::RunFolder;
use crate::search::Trials;
use crate::shard::Shard;
use crate::single::{keep_manifest, located};
use crate::space::axis::Target;
use crate::space::{Setting, Space};
use crate::trial::{Resolver, TrialConfigs};

/// Crate version and digest of everything that can change a result.
pub const ENGINE_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("OMEGA_SOURCE_DIGEST"));

/// Keys of the lock file that decide no row of a chunk. Of a walk-forward, what they lead to is part of the folder's name.
pub(crate) const MAY_CHANGE: [&str; 5] = ["objective", "gates", "limits", "output", "walk_forward"];

/// What was typed, beside the grid file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `--set` assignments, in order.
    pub set: Vec<String>,
    /// Output root; none: the grid's, else `results`.
    pub out: Option<PathBuf>,
    /// Worker threads.
    pub threads: usize,
    /// Memory cap in bytes; none: the grid's, else a share of the machine's.
    pub memory: Option<usize>,
    /// Drop finished chunks first.
    pub fresh: bool,
    /// Work on this share of the chunks only, in a folder of its own.
    pub shard: Option<Shard>,
    /// Take rows over from earlier runs: those of these folders and those found beside the run's own. None: evaluate all.
    pub reuse: Option<Vec<PathBuf>>,
}

/// A sweep understood: nothing is loaded or written yet.
pub struct Experiment {
    /// The grid file with `--set`.
    pub grid: Grid,
    /// Base run config, normalised.
    pub config: RunConfig,
    /// The strategy.
    pub family: &'static dyn Family,
    /// Settings by number.
    pub trials: Trials,
    /// Timeframes any setting needs beside the primary and additional ones.
    pub timeframes: Vec<Timeframe>,
    /// Worth telling: keys without effect, settings that need more warm-up.
    pub warnings: Vec<String>,
}

impl Experiment {
    /// Reads a grid file and everything it names, and checks all of it that can be checked without bars.
    ///
    /// # Errors
    /// Every fault, with its place.
    pub fn read(path: &Path, set: &[String]) -> Result<Self, CommandError> {
        Self::of_grid(Grid::load(path)?, set)
    }

    /// As [`Experiment::read`], of a grid that need not have come from a file.
    ///
    /// # Errors
    /// Every fault, with its place.
    pub fn of_grid(mut grid: Grid, set: &[String]) -> Result<Self, CommandError> {
        for assignment in set {
            grid.set(assignment)?;
        }
        let refuse = |violations: &[Violation]| Box::new(Diagnostics::from_violations(&grid.config, violations));
        let config = RunConfig::parse(&grid.config_json(), true).map_err(|v| refuse(&v))?.config;
        let family = strategy::find(&config.strategy_name).map_err(|error| {
            let mut violation = Violation::value("strategy_name", error.to_string());
            violation.hint = error.hint();
            refuse(&[violation])
        })?;
        let context = config.build_context();
        let space = Arc::new(grid.space(family, &context, &config.document)?);
        let trials = grid.trials(Arc::clone(&space))?;
        let mut experiment = Self { grid, config, family, trials, timeframes: Vec::new(), warnings: Vec::new() };
        experiment.check_first_setting()?;
        experiment.timeframes = experiment.needed_timeframes();
        experiment.warnings = experiment.find_warnings();
        Ok(experiment)
    }

    pub(crate) fn space(&self) -> &Arc<Space> {
        self.trials.space()
    }

    fn config_of(&self, setting: &Setting) -> Result<RunConfig, Vec<Violation>> {
        let mut given = self.config.document.clone();
        self.space().apply(setting, &mut given);
        RunConfig::parse(&given, true).map(|parsed| parsed.config)
    }

    /// Fixed values that contradict the strategy are faults of the grid, not of its trials.
    fn check_first_setting(&self) -> Result<(), CommandError> {
        let Some(setting) = self.trials.setting(0) else { return Ok(()) };
        let refuse = |violations: &[Violation]| Diagnostics::from_violations(&self.grid.config, violations);
        let config = self.config_of(&setting).map_err(|v| Box::new(refuse(&v)))?;
        match self.family.build(&config.strategy_parameters, &config.build_context()) {
            Ok(_) => Ok(()),
            Err(error) => Err(located(error, &self.grid.config)),
        }
    }

    /// Timeframes of every combination of the parameters that are no numbers: numbers do not choose timeframes.
    fn needed_timeframes(&self) -> Vec<Timeframe> {
        const MOST: usize = 20_000;
        let space = self.space();
        let names_things = |name: &str| {
            let spec = self.family.parameters().iter().find(|spec| spec.name == name);
            spec.is_none_or(|spec| !matches!(spec.kind, ParamKind::Int { .. } | ParamKind::Float { .. }))
        };
        let mut points = vec![vec![0_u32; space.axes().len()]];
        for (at, axis) in space.axes().iter().enumerate() {
            let varies = axis.members.iter().any(|member| match &member.target {
                Target::Parameter(name) => names_things(name),
                Target::Config(_) => false,
            });
            if !varies || points.len() * axis.len() as usize > MOST {
                continue;
            }
            points = points
                .iter()
                .flat_map(|point| {
                    (0..axis.len()).map(move |k| {
                        let mut next = point.clone();
                        next[at] = k;
                        next
                    })
                })
                .collect();
        }
        let mut needed = BTreeSet::new();
        for point in points {
            let setting = space.setting(0, space.lattice_index(&point));
            let Ok(config) = self.config_of(&setting) else { continue };
            if let Ok(strategy) = self.family.build(&config.strategy_parameters, &config.build_context()) {
                needed.extend(strategy.timeframes());
            }
        }
        needed.into_iter().collect()
    }

    fn find_warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings_of_all();
        let needed = self.warmup_need();
        if needed > self.config.warmup_bars {
            warnings.push(format!(
                "some settings need warmup_bars >= {needed}, the config has {}: those become failed rows (E4003)",
                self.config.warmup_bars
            ));
        }
        warnings
    }

    /// Configs of feasible settings that stand for all: some trials, and from both corners of the lattice each axis moved
    /// to its other values (many values: to the middle and the ends).
    pub(crate) fn probes(&self) -> Vec<RunConfig> {
        const MOST: u32 = 16;
        let space = self.space();
        let first = vec![0; space.axes().len()];
        let last: Vec<u32> = space.axes().iter().map(|axis| axis.len() - 1).collect();
        let end = self.trials.len().saturating_sub(1);
        let trials = [0, end / 2, end].into_iter().filter_map(|trial| self.trials.setting(trial));
        let mut points: Vec<Vec<u32>> = trials.map(|setting| setting.value_index).collect();
        for (at, axis) in space.axes().iter().enumerate() {
            let end = axis.len() - 1;
            let tried: Vec<u32> = if axis.len() <= MOST { (0..=end).collect() } else { vec![0, end / 2, end] };
            for (start, k) in [&first, &last].into_iter().flat_map(|start| tried.iter().map(move |k| (start, *k))) {
                let mut point = start.clone();
                point[at] = k;
                points.push(point);
            }
        }
        points.sort_unstable();
        points.dedup();
        let feasible = points.iter().filter(|point| space.is_feasible(point));
        feasible.filter_map(|point| self.config_of(&space.setting(0, space.lattice_index(point))).ok()).collect()
    }

    /// What the strategy tells of every setting looked at (see [`Experiment::probes`]). What depends on an axis is left
    /// out.
    fn warnings_of_all(&self) -> Vec<String> {
        let mut common: Option<Vec<String>> = None;
        for config in self.probes() {
            let told = self.family.warnings(&config.strategy_parameters, &config.build_context());
            match &mut common {
                None => common = Some(told),
                Some(common) => common.retain(|warning| told.contains(warning)),
            }
            if common.as_ref().is_some_and(Vec::is_empty) {
                break;
            }
        }
        common.unwrap_or_default()
    }

    /// Warm-up the longest settings need: every axis at its last value, and each at its first. Lengths lengthen
    /// columns, so the largest need stands at an end of the axes.
    fn warmup_need(&self) -> usize {
        let space = self.space();
        let last: Vec<u32> = space.axes().iter().map(|axis| axis.len() - 1).collect();
        let ends = (0..last.len()).map(|at| {
            let mut point = last.clone();
            point[at] = 0;
            point
        });
        std::iter::once(last.clone())
            .chain(ends)
            .filter_map(|point| {
                let setting = space.setting(0, space.lattice_index(&point));
                let config = self.config_of(&setting).ok()?;
                let strategy = self.family.build(&config.strategy_parameters, &config.build_context()).ok()?;
                Some(warmup_needed(&strategy.columns(), config.primary))
            })
            .max()
            .unwrap_or(0)
    }

    /// How trials are cut into chunks.
    pub fn chunks(&self) -> ChunkPlan {
        ChunkPlan::new(self.trials.len(), self.grid.limits.chunk)
    }
}

/// What a sweep left behind.
pub struct Report {
    /// How it ended.
    pub end: End,
    /// The run folder.
    pub folder: PathBuf,
    /// The shard, if it was one: it leaves no leaderboard.
    pub shard: Option<Shard>,
    /// Trials, all of them; of a shard, its own.
    pub trials: u64,
    /// Trials found finished at the start.
    pub cached: u64,
    /// Trials whose rows were taken over from earlier runs.
    pub reused: u64,
    /// The leaderboard, if the sweep is complete.
    pub ranked: Option<Ranked>,
    /// The ranked rows of the finished chunks, if time ran out and there is at least one.
    pub partial: Option<Partial>,
    /// Chunk files that were damaged and set aside.
    pub damaged: Vec<String>,
    /// What may change money or was left out.
    pub warnings: Vec<String>,
    /// Time of evaluation.
    pub elapsed: Duration,
    /// Highest booked memory in bytes.
    pub peak_memory: usize,
}

impl Report {
    /// What the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        match (self.end, &self.ranked) {
            (End::Interrupted, _) => ExitCode::Interrupted,
            (End::Complete, None) if self.shard.is_some() => ExitCode::Done,
            (End::Deadline, _) | (End::Complete, None) => ExitCode::Limit,
            (End::Complete, Some(ranked)) if ranked.summary.count(Verdict::Ok) == 0 => ExitCode::NothingPassed,
            (End::Complete, Some(ranked)) if ranked.summary.count(Verdict::Failed) > 0 => ExitCode::FailedTrials,
            (End::Complete, Some(_)) => ExitCode::Done,
        }
    }
}

/// What a sweep leaves that ran out of time: valid, marked as partial in name, metadata and manifest, and gone as soon as
/// the sweep is complete.
pub struct Partial {
    /// Counts and best rows of the finished chunks.
    pub summary: Summary,
    /// How many chunks that are.
    pub chunks: u64,
    /// The best rows, for people; the Parquet file of all of them stands beside it.
    pub csv: PathBuf,
}

/// A complete sweep, ranked.
pub struct Ranked {
    /// Counts and best rows.
    pub summary: Summary,
    /// Failed rows by code.
    pub failures: std::collections::BTreeMap<String, u64>,
    /// Rows that pass each gate, in the order of the grid.
    pub gates: Vec<(String, u64)>,
    /// Folders of the best rows' artefacts.
    pub top: Vec<PathBuf>,
    /// Names of the axes, in the order of a row's parameters.
    pub params: Vec<String>,
    /// Which of them have more than one value.
    pub varies: Vec<bool>,
}

/// A sweep with its bars loaded and its folder owned, about to start.
pub struct Sweep {
    experiment: Experiment,
    environment: Environment,
    configs: TrialConfigs,
    plan: ChunkPlan,
    schema: RowSchema,
    fingerprint: Fingerprint,
    folder: RunFolder,
    finished: Finished,
    earlier: Earlier,
    kept: Kept,
    ledger: Ledger,
    threads: usize,
    _bars: Reservation,
}

impl Sweep {
    /// Loads the bars, opens the run folder and finds what is finished.
    ///
    /// # Errors
    /// Data errors, a folder that cannot be used, a cap that is too small: all before work starts.
    pub fn open(experiment: Experiment, options: &Options, sources: &Sources) -> Result<Self, CommandError> {
        Self::begin(experiment, options, sources, None)
    }

    /// As [`Sweep::open`], with every chunk taken from other folders of the same run.
    ///
    /// # Errors
    /// Those of [`Sweep::open`], and bars or a program that are not those of the folders.
    pub fn merge(
        experiment: Experiment,
        options: &Options,
        sources: &Sources,
        pieces: &Pieces,
    ) -> Result<Self, CommandError> {
        Self::begin(experiment, options, sources, Some(pieces))
    }

    fn begin(
        experiment: Experiment,
        options: &Options,
        sources: &Sources,
        pieces: Option<&Pieces>,
    ) -> Result<Self, CommandError> {
        refuse_unseeded_shard(&experiment, options.shard)?;
        reuse::refuse_unless_runs(options.reuse.as_deref().unwrap_or_default())?;
        let ledger = Ledger::within(cap_of(&experiment, options));
        let environment =
            Environment::open(&experiment.config, &experiment.timeframes, sources, Arc::new(ledger.clone()))?;
        keep_manifest(&environment, &sources.cache_dir);
        let plan = experiment.chunks().of_shard(options.shard);
        let schema = RowSchema::of(experiment.space());
        let chunk = chunk_bytes(&plan, trial_bytes(&schema));
        // A shard is ranked by whoever merges it.
        let ranking = if options.shard.is_some() { 0 } else { leaderboard::least_memory(&schema, &plan) };
        let bars = book_bars(&environment, &experiment, options, &ledger, chunk, ranking)?;
        let fingerprint = fingerprint(&experiment, &environment);
        let folder = open_folder(&experiment, options, &fingerprint, pieces)?;
        let master = execution_master(&experiment.config, &folder)?;
        let lock = lock_text(&experiment, &plan, master);
        folder.write_grid_lock(&lock, &MAY_CHANGE)?;
        let finished = scan(&folder, &plan, &schema, &fingerprint, options.threads)?;
        if pieces.is_some() {
            refuse_incomplete(&finished, &plan)?;
        }
        if let Some(shard) = options.shard {
            folder.write_manifest(&shard_manifest("sweep", &experiment, &plan, shard, &fingerprint))?;
        }
        let configs = TrialConfigs::new(Arc::clone(experiment.space()), experiment.config.document.clone(), master);
        let earlier = if finished.missing(&plan).next().is_some() {
            find_earlier(&experiment, options, &environment, &ledger, chunk, &fingerprint, folder.path())
        } else {
            Earlier::none(&ledger)
        };
        Ok(Self {
            experiment,
            environment,
            configs,
            plan,
            schema,
            fingerprint,
            folder,
            finished,
            earlier,
            kept: Kept::new(&ledger),
            ledger,
            threads: options.threads,
            _bars: bars,
        })
    }

    /// The run folder.
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// The grid and its settings.
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// How trials are cut, and which chunks are worked on here.
    pub fn plan(&self) -> &ChunkPlan {
        &self.plan
    }

    /// Trials in chunks found finished.
    pub fn cached(&self) -> u64 {
        self.finished.trials(&self.plan)
    }

    /// Rows of earlier runs.
    pub fn earlier(&self) -> &Earlier {
        &self.earlier
    }

    /// Books of the process.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What is worth telling before the start.
    pub fn warnings(&self) -> Vec<String> {
        let damaged = self.finished.damaged.iter().map(|chunk| {
            format!("chunk {} was damaged ({}), set aside as {}", chunk.index, chunk.reason, chunk.moved_to.display())
        });
        let kept = self.environment.warnings().iter().chain(&self.experiment.warnings).chain(self.earlier.warnings());
        kept.cloned().chain(damaged).collect()
    }

    /// No wave starts later than `most` after the start, nor than the grid allows.
    pub fn limit_time(&mut self, most: Duration) {
        let limit = &mut self.experiment.grid.limits.time;
        *limit = Some(limit.map_or(most, |limit| limit.min(most)));
    }

    /// Evaluates what is missing and, when nothing is, ranks all rows and writes the best ones out. Where time runs out
    /// first, ranks the rows of the finished chunks.
    ///
    /// # Errors
    /// Files that cannot be written; finished chunks stay.
    pub fn run(mut self, stop: &AtomicBool, observer: &dyn Observer) -> Result<Report, CommandError> {
        let started = Instant::now();
        let limit = self.experiment.grid.limits.time;
        let rows = Rows {
            trials: &self.experiment.trials,
            configs: &self.configs,
            folder: &self.folder,
            plan: self.plan,
            schema: &self.schema,
            kept: &self.kept,
            fingerprint: &self.fingerprint,
        };
        let chunks = self.folder.chunks();
        let job = Job {
            work: &rows,
            trials: &self.experiment.trials,
            configs: &self.configs,
            environment: &self.environment,
            chunks: &chunks,
            plan: self.plan,
            earlier: &self.earlier,
            ledger: &self.ledger,
            threads: self.threads,
            deadline: limit.and_then(|limit| started.checked_add(limit)),
            stop,
            observer,
        };
        let end = driver::run(&job, &self.finished)?;
        let elapsed = started.elapsed();
        self.earlier.release();
        let ranking = Instant::now();
        let (ranked, partial) = match end {
            End::Complete if self.plan.shard().is_none() => (Some(self.rank()?), None),
            End::Deadline if self.plan.shard().is_none() => (None, self.rank_part()?),
            End::Complete | End::Deadline | End::Interrupted => (None, None),
        };
        observer.took(Phase::Rank, ranking.elapsed());
        Ok(Report {
            end,
            folder: self.folder.path().to_owned(),
            shard: self.plan.shard(),
            trials: self.plan.own_trials(),
            cached: self.cached(),
            reused: self.earlier.reused(),
            damaged: self.finished.damaged.iter().map(|chunk| chunk.moved_to.display().to_string()).collect(),
            warnings: self.warnings(),
            ranked,
            partial,
            elapsed,
            peak_memory: self.ledger.peak(),
        })
    }

    fn rank(&self) -> Result<Ranked, CommandError> {
        // Columns are not needed any more; ranking may use their room.
        self.environment.release_memory(usize::MAX);
        let grid = &self.experiment.grid;
        let summary = self.leaderboard(None, self.folder.leaderboard_parquet(), self.folder.leaderboard_csv())?;
        let top = self.write_top(&summary)?;
        self.folder.write_manifest(&pretty(&self.manifest(&summary)))?;
        self.folder.remove_partial()?;
        if summary.rows > 0 && summary.count(Verdict::Failed) == summary.rows {
            let (code, reason) = summary.first_failure.unwrap_or_default();
            return Err(CommandError::AllFailed { trials: summary.rows, code, reason });
        }
        let gates = grid.gates.texts().map(str::to_owned).zip(summary.gates.iter().copied()).collect();
        let params = self.schema.params().iter().map(|param| param.name.clone()).collect();
        let space = self.experiment.space();
        let varies = space.columns().iter().map(|column| space.axes()[column.axis].len() > 1).collect();
        let failures = summary.failures.clone();
        Ok(Ranked { summary, failures, gates, top, params, varies })
    }

    /// Ranks the rows of the chunks that are there; none if none is.
    fn rank_part(&self) -> Result<Option<Partial>, CommandError> {
        let chunks = present(&self.folder.chunks(), &self.plan);
        if chunks.is_empty() {
            return Ok(None);
        }
        self.environment.release_memory(usize::MAX);
        let csv = self.folder.partial_csv();
        let summary = self.leaderboard(Some(&chunks), self.folder.partial_parquet(), csv.clone())?;
        let mut manifest = self.manifest(&summary);
        let chunks = chunks.len() as u64;
        manifest["partial"] = json!({ "chunks": chunks, "of": self.plan.count() });
        let path = self.folder.partial_manifest();
        write_atomic(path, |file| file.write_all(pretty(&manifest).as_bytes()))?;
        Ok(Some(Partial { summary, chunks, csv }))
    }

    /// Ranks the rows of some chunks, or of all, into two files.
    fn leaderboard(&self, only: Option<&[u64]>, parquet: PathBuf, csv: PathBuf) -> Result<Summary, CommandError> {
        let grid = &self.experiment.grid;
        let csv_rows = match grid.output.csv {
            CsvRows::All => None,
            CsvRows::Best(rows) => Some(rows),
        };
        let top = usize::try_from(grid.output.top).unwrap_or(usize::MAX).max(5);
        let chunks = self.folder.chunks();
        let sources = leaderboard::Sources {
            kept: &self.kept,
            threads: self.threads,
            chunks: &chunks,
            only,
            plan: self.plan,
            schema: &self.schema,
            fingerprint: &self.fingerprint,
            objective: &grid.objective,
            gates: &grid.gates,
        };
        // The columns just dropped are free, but the allocator need not have given them back to the system: ranking gets
        // two fifths of the room, so that both together stay near the cap.
        let room = self.ledger.cap().saturating_sub(self.ledger.used());
        let least = leaderboard::least_memory(&self.schema, &self.plan);
        let ranking = Ledger::new((room / 5 * 2).max(least).min(room));
        let summary = leaderboard::write(&sources, &Targets { parquet, csv, csv_rows, top }, &ranking)?;
        self.ledger.note(ranking.peak());
        Ok(summary)
    }

    /// Artefacts of the best settings that have a score; folders of an earlier ranking give way.
    fn write_top(&self, summary: &Summary) -> Result<Vec<PathBuf>, CommandError> {
        let root = self.folder.top();
        if root.exists() {
            std::fs::remove_dir_all(&root).map_err(|e| crate::atomic::FileError::io(&root, "clear it", e))?;
        }
        let wanted = usize::try_from(self.experiment.grid.output.top).unwrap_or(usize::MAX);
        let scored = |row: &&leaderboard::TopRow| matches!(row.verdict, Verdict::Ok | Verdict::Gated);
        let best: Vec<&leaderboard::TopRow> = summary.top.iter().filter(scored).take(wanted).collect();
        let write = |row: &&leaderboard::TopRow| self.write_run(row, root.join(row.rank.to_string()));
        let (threads, _granted) = self.threads_for_runs(best.len());
        let pool = (threads > 1).then(|| ThreadPoolBuilder::new().num_threads(threads).build().ok()).flatten();
        let folders: Vec<Result<PathBuf, CommandError>> = match pool {
            Some(pool) => pool.install(|| best.par_iter().map(write).collect()),
            None => best.iter().map(write).collect(),
        };
        folders.into_iter().collect()
    }

    /// Threads that may walk one backtest each, as far as there is memory for more than one, and its booking.
    fn threads_for_runs(&self, runs: usize) -> (usize, Option<Reservation>) {
        // What a run and its artefacts keep of each bar.
        const NUMBERS: usize = 24;
        let each = self.environment.data().market.bars.len() * NUMBERS * size_of::<f64>();
        let more = self.threads.min(runs).saturating_sub(1);
        let granted = self.ledger.reserve_between(0, more.saturating_mul(each));
        let threads = granted.as_ref().map_or(0, |granted| granted.bytes() / each.max(1));
        (1 + threads.min(more), granted)
    }

    /// The artefacts of a row.
    fn write_run(&self, row: &leaderboard::TopRow, folder: PathBuf) -> Result<PathBuf, CommandError> {
        let trial = row.trial;
        let missing = || Error::Internal(format!("there is no trial {trial}"));
        let setting = self.experiment.trials.setting(trial).ok_or_else(missing)?;
        let config = self.configs.full(&setting).map_err(Error::Config)?;
        let prepared = self.environment.prepare(&config, row.rng_seed)?;
        let replay = replay(&prepared).map_err(crate::replay::ReplayError::from)?;
        let provenance =
            Provenance { config: &config, source: None, rng_seed: row.rng_seed, environment: &self.environment };
        replay.write(&folder, &prepared, provenance).map_err(crate::replay::ReplayError::from)?;
        Ok(folder)
    }

    fn manifest(&self, summary: &Summary) -> Value {
        let experiment = &self.experiment;
        let counts: serde_json::Map<String, Value> =
            Verdict::ALL.into_iter().map(|v| (v.as_str().to_owned(), Value::from(summary.count(v)))).collect();
        json!({
            "format_version": 1,
            "engine_version": ENGINE_VERSION,
            "name": experiment.grid.name,
            "fingerprint": self.fingerprint.parts().collect::<std::collections::BTreeMap<_, _>>(),
            "data": {
                "manifest_sha256": self.environment.manifest().sha256(),
                "inputs": self.environment.inputs(),
                "governance": &self.environment.data().governance,
            },
            "seed": experiment.grid.seed,
            "rng_seed": experiment.config.rng_seed,
            "search": experiment.trials.search().as_str(),
            "lattice_points": experiment.space().size().to_string(),
            "trials": experiment.trials.len(),
            "chunk_size": self.plan.size(),
            "chunks": self.plan.count(),
            "rows": summary.rows,
            "duplicates": summary.duplicates,
            "distinct_rules": summary.distinct_rules,
            "status": counts,
            "failures": summary.failures,
            "left_out": self.left_out(),
            "jumped": summary.ways.get("jumped").copied().unwrap_or(0),
            "walked": walked(&summary.ways),
            "csv_rows": summary.csv_rows,
            "csv_left_out": summary.csv_left_out(),
            "gates": experiment.grid.gates.texts().zip(&summary.gates).map(|(gate, passed)| json!({"gate": gate, "passed": passed})).collect::<Vec<_>>(),
            "warnings": self.environment.warnings().iter().chain(&experiment.warnings).collect::<Vec<_>>(),
        })
    }

    fn left_out(&self) -> Vec<Value> {
        left_out(&self.experiment)
    }
}

fn pretty(document: &Value) -> String {
    format!("{document:#}\n")
}

/// Rows that are walked, by reason.
fn walked(ways: &std::collections::BTreeMap<String, u64>) -> serde_json::Map<String, Value> {
    let walked = ways.iter().filter_map(|(way, rows)| Some((way.strip_prefix("walked: ")?.to_owned(), json!(rows))));
    walked.collect()
}

/// Settings of the lattice that break each constraint.
pub fn left_out(experiment: &Experiment) -> Vec<Value> {
    let constraints = experiment.space().constraints().iter();
    constraints
        .zip(experiment.trials.broken())
        .filter(|(_, count)| *count != Some(0))
        .map(|(constraint, count)| {
            json!({
                "constraint": constraint.text,
                "origin": constraint.origin.as_str(),
                "settings": count.map(|count| count.to_string()),
            })
        })
        .collect()
}

/// `--memory`, else the grid's, else a share of the machine's.
pub(crate) fn cap_of(experiment: &Experiment, options: &Options) -> usize {
    let grid_memory = experiment.grid.limits.memory.and_then(|bytes| usize::try_from(bytes).ok());
    options.memory.or(grid_memory).unwrap_or_else(crate::plan::memory::default_cap)
}

pub(crate) fn output_root(experiment: &Experiment, options: &Options) -> PathBuf {
    let named = options.out.clone().or_else(|| experiment.grid.output.dir.clone().map(PathBuf::from));
    named.unwrap_or_else(|| PathBuf::from("results"))
}

/// What earlier runs have of a run's settings, on memory that the least amount of work (`chunk`: [`needed_memory`]) does
/// not need. `own` is the run's folder.
pub(crate) fn find_earlier(
    experiment: &Experiment,
    options: &Options,
    environment: &Environment,
    ledger: &Ledger,
    chunk: usize,
    fingerprint: &Fingerprint,
    own: &Path,
) -> Earlier {
    let Some(named) = options.reuse.as_ref().filter(|_| !options.fresh) else { return Earlier::none(ledger) };
    let least = needed_memory(environment, experiment, options.threads, chunk, 0);
    let most = ledger.cap().saturating_sub(least).min(ledger.cap() / SHARE);
    Earlier::find(&reuse::Search { named, own, fingerprint, threads: options.threads }, ledger, most)
}

/// Opens the folder of a run or shard; with `pieces`, once the run here is known to be theirs, and puts them into it.
pub(crate) fn open_folder(
    experiment: &Experiment,
    options: &Options,
    fingerprint: &Fingerprint,
    pieces: Option<&Pieces>,
) -> Result<RunFolder, CommandError> {
    if let Some(pieces) = pieces {
        pieces.check(fingerprint)?;
    }
    let (root, name) = (output_root(experiment, options), &experiment.grid.name);
    let folder = RunFolder::open_shard(&root, name, &fingerprint.hash8(), options.shard, options.fresh)?;
    if let Some(pieces) = pieces {
        // Before the seed of a `prod` sweep is drawn: it is kept there.
        folder.write_grid_lock(pieces.lock(), &MAY_CHANGE)?;
        pieces.put_into(&folder)?;
    }
    Ok(folder)
}

/// Chunks put together were all sound a moment ago; whatever is amiss now is not to be evaluated by a merge.
pub(crate) fn refuse_incomplete(finished: &Finished, plan: &ChunkPlan) -> Result<(), MergeError> {
    if finished.missing(plan).next().is_none() {
        return Ok(());
    }
    let chunks = finished.damaged.iter().map(|chunk| (chunk.index, chunk.moved_to.clone(), chunk.reason.clone()));
    Err(MergeError::Damaged { chunks: chunks.collect() })
}

/// In `prod` without a seed one is drawn at the start: shards would draw one each.
pub(crate) fn refuse_unseeded_shard(experiment: &Experiment, shard: Option<Shard>) -> Result<(), CommandError> {
    let config = &experiment.config;
    if shard.is_none() || config.run_mode != RunMode::Prod || config.rng_seed.is_some() {
        return Ok(());
    }
    let place = experiment.grid.config.locate("run_mode");
    let message = "`prod` without `rng_seed` draws a seed of its own in each shard: their rows are not of one run";
    let fault = Diagnostic::new(Some(place.span(true)), "run_mode", message);
    Err(CommandError::Input(Box::new(
        fault.with_hint("give all shards one seed, for example --set rng_seed=42").into(),
    )))
}

/// What a shard says of itself: enough to know which run it belongs to before its first chunk is there.
pub(crate) fn shard_manifest(
    command: &str,
    experiment: &Experiment,
    plan: &ChunkPlan,
    shard: Shard,
    fingerprint: &Fingerprint,
) -> String {
    let document = json!({
        "format_version": 1,
        "command": command,
        "engine_version": ENGINE_VERSION,
        "name": experiment.grid.name,
        "fingerprint": fingerprint.parts().collect::<std::collections::BTreeMap<_, _>>(),
        "shard": shard.to_string(),
        "chunk_size": plan.size(),
        "chunks": plan.count(),
    });
    format!("{document:#}\n")
}

/// Everything that decides the rows, each part as a digest or a short text.
pub(crate) fn fingerprint(experiment: &Experiment, environment: &Environment) -> Fingerprint {
    Fingerprint::new(sweep_parts(experiment, environment))
}

/// The parts of a sweep's fingerprint.
pub(crate) fn sweep_parts(experiment: &Experiment, environment: &Environment) -> Vec<(String, String)> {
    let space = experiment.space();
    let identity = experiment.grid.identity(space, &experiment.config.hashed_document());
    let digest = |part: &str| canonical::canonical_hash(&identity[part]);
    let parts = [
        ("config", digest("config")),
        ("space", digest("space")),
        ("search", canonical::canonical_json(&identity["search"])),
        ("seed", experiment.grid.seed.to_string()),
        ("data", environment.manifest().sha256()),
        ("engine_version", ENGINE_VERSION.to_owned()),
    ];
    parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Marks the line of the lock file that keeps the master seed of a `prod` sweep.
pub(crate) const MASTER_LINE: &str = "# execution master seed: ";

pub(crate) fn lock_text(experiment: &Experiment, plan: &ChunkPlan, master: Option<u64>) -> String {
    let text = experiment.grid.lock_yaml(experiment.space(), &experiment.config.hashed_document(), plan.size());
    match master {
        Some(master) => format!("{MASTER_LINE}{master}\n{text}"),
        None => text,
    }
}

/// In `prod` without a seed: one 64-bit number per sweep from the operating system, kept in the lock file.
pub(crate) fn execution_master(config: &RunConfig, folder: &RunFolder) -> Result<Option<u64>, CommandError> {
    if config.run_mode != RunMode::Prod || config.rng_seed.is_some() {
        return Ok(None);
    }
    let kept = folder.read_grid_lock()?;
    let kept = kept.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix(MASTER_LINE)));
    if let Some(master) = kept.and_then(|text| text.trim().parse().ok()) {
        return Ok(Some(master));
    }
    let drawn = getrandom::u64().map_err(|error| Error::Internal(format!("no entropy: {error}")))?;
    Ok(Some(drawn))
}

/// Books the mapped bars and makes sure that the rest of what is needed fits beside them: see [`needed_memory`].
pub(crate) fn book_bars(
    environment: &Environment,
    experiment: &Experiment,
    options: &Options,
    ledger: &Ledger,
    chunk: usize,
    finish: usize,
) -> Result<Reservation, CommandError> {
    let (cap, threads) = (cap_of(experiment, options), options.threads);
    let needed = needed_memory(environment, experiment, threads, chunk, finish);
    let refused = CommandError::Memory { cap, needed: memory_for(needed) };
    if needed > ledger.cap() {
        return Err(refused);
    }
    ledger.try_reserve(market_bytes(&environment.data().market)).ok_or(refused)
}

/// The least cap that holds: bars, and beside them one tile per thread and one chunk (`chunk` bytes), and at the end what
/// comes after evaluation (`finish` bytes).
pub(crate) fn needed_memory(
    environment: &Environment,
    experiment: &Experiment,
    threads: usize,
    chunk: usize,
    finish: usize,
) -> usize {
    let market = &environment.data().market;
    let first = experiment.trials.setting(0);
    let configs = TrialConfigs::new(Arc::clone(experiment.space()), experiment.config.document.clone(), None);
    let first = first.and_then(|setting| Resolver::new(&configs, environment).resolve(&setting).prepared.ok());
    let (columns, unit) = first.map_or((0, 0), |prepared| (prepared.columns().len(), unit_bytes(&prepared)));
    let tile = threads * columns * market.bars.len() * size_of::<f64>();
    let plan = experiment.chunks();
    let settings = usize::try_from(plan.size().min(plan.total())).unwrap_or(usize::MAX).saturating_mul(unit);
    let work = tile.saturating_add(chunk).saturating_add(settings).max(finish);
    market_bytes(market).saturating_add(work)
}

pub(crate) fn market_bytes(market: &MarketData) -> usize {
    const COLUMNS: usize = 11;
    let bytes = |bars: &Bars| bars.len() * COLUMNS * size_of::<f64>();
    bytes(&market.bars) + market.others.iter().map(bytes).sum::<usize>()
}

/// A usage fault without a file.
pub fn usage(path: &str, message: impl Into<String>, hint: impl Into<String>) -> CommandError {
    CommandError::Input(Box::new(Diagnostic::new(None, path, message).with_hint(hint).into()))
}
