//! A whole walk-forward: the grid understood, the bars loaded, every setting evaluated on every window, the choices made,
//! the result written.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use engine::Error;
use engine::backtest::{Environment, RunConfig, canonical};
use engine::data::Sources;
use engine::strategy::Variant;
use engine::units::{DAY_NS, EpochNs};
use serde_json::{Value, json};

use crate::chunk::ChunkPlan;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::driver::{self, DriverError, End, Job, Observer, chunk_bytes};
use crate::error::{CommandError, ExitCode};
use crate::fingerprint::Fingerprint;
use crate::grid::{Length, WalkForward, WindowMode};
use crate::merge::Pieces;
use crate::plan::memory::{Ledger, Reservation};
use crate::resume::{Finished, scan_with};
use crate::reuse::{Earlier, refuse_unless_runs};
use crate::row;
use crate::run_folder::RunFolder;
use crate::shard::Shard;
use crate::single::keep_manifest;
use crate::space::axis::Target;
use crate::sweep::{
    ENGINE_VERSION, Experiment, MAY_CHANGE, Options, book_bars, cap_of, execution_master, find_earlier, left_out,
    lock_text, open_folder, refuse_incomplete, refuse_unseeded_shard, shard_manifest, sweep_parts,
};
use crate::trial::TrialConfigs;
use crate::walkforward::cells::Layout;
use crate::walkforward::choice::{Chunks, Failures, Judges, WindowTally};
use crate::walkforward::chunk_file::{self, CellSchema};
use crate::walkforward::files::{self, Tables, design_name};
use crate::walkforward::result::{Bench, DesignResult};
use crate::walkforward::windows::{Span, Timeline, instant_text};
use crate::walkforward::work::{WindowCells, trial_bytes};

/// Bars kept back from every step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBack {
    /// First instant that nothing reads.
    pub from_ns: EpochNs,
    /// Tradable bars from there on.
    pub bars: usize,
}

/// A walk-forward with its bars loaded and its folder owned, about to start.
pub struct WalkForwardRun {
    experiment: Experiment,
    windows: WalkForward,
    environment: Environment,
    held_back: Option<HeldBack>,
    layout: Layout,
    configs: TrialConfigs,
    plan: ChunkPlan,
    schema: CellSchema,
    fingerprint: Fingerprint,
    folder: RunFolder,
    finished: Finished,
    earlier: Earlier,
    ledger: Ledger,
    threads: usize,
    _bars: Reservation,
}

/// What a walk-forward left behind.
pub struct Report {
    /// How it ended.
    pub end: End,
    /// The run folder.
    pub folder: std::path::PathBuf,
    /// The shard, if it was one: it leaves no result.
    pub shard: Option<Shard>,
    /// Trials, all of them; of a shard, its own.
    pub trials: u64,
    /// Trials found finished at the start.
    pub cached: u64,
    /// Trials whose cells were taken over from earlier runs.
    pub reused: u64,
    /// The result, if every chunk is there.
    pub result: Option<Complete>,
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
        let chose_nothing = |complete: &Complete| {
            complete.designs.iter().flat_map(|design| &design.windows).all(|window| window.setting.is_none())
        };
        match (self.end, &self.result) {
            (End::Interrupted, _) => ExitCode::Interrupted,
            (End::Complete, None) if self.shard.is_some() => ExitCode::Done,
            (End::Deadline, _) | (End::Complete, None) => ExitCode::Limit,
            (End::Complete, Some(complete)) if chose_nothing(complete) => ExitCode::NothingPassed,
            (End::Complete, Some(complete)) if !complete.failures.by_code.is_empty() => ExitCode::FailedTrials,
            (End::Complete, Some(_)) => ExitCode::Done,
        }
    }
}

/// A complete walk-forward.
pub struct Complete {
    /// Windows, design by design.
    pub layout: Layout,
    /// What all settings did, per window of the layout.
    pub tallies: Vec<WindowTally>,
    /// Result of each design.
    pub designs: Vec<DesignResult>,
    /// Trials that failed, as a whole or on some window.
    pub failures: Failures,
    /// Names of the axes' columns, and whether each varies.
    pub params: Vec<(String, bool)>,
    /// Values of those columns per window of the layout; empty without a choice.
    pub chosen: Vec<Vec<row::ParamValue>>,
}

impl WalkForwardRun {
    /// Loads the bars, cuts the holdout off, lays the windows, opens the run folder and finds what is finished.
    ///
    /// # Errors
    /// A grid without windows, windows that cannot be laid, data errors, a folder that cannot be used, a cap that is too
    /// small: all before work starts.
    pub fn open(experiment: Experiment, options: &Options, sources: &Sources) -> Result<Self, CommandError> {
        Self::begin(experiment, options, sources, None)
    }

    /// As [`WalkForwardRun::open`], with every chunk taken from other folders of the same run.
    ///
    /// # Errors
    /// Those of [`WalkForwardRun::open`], and bars or a program that are not those of the folders.
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
        refuse_unless_runs(options.reuse.as_deref().unwrap_or_default())?;
        let Laid { experiment, windows, environment, held_back, layout, fingerprint, ledger } =
            Laid::new(experiment, options, sources)?;
        let plan = experiment.chunks().of_shard(options.shard);
        let schema = CellSchema::new(&layout);
        let chunk = chunk_bytes(&plan, trial_bytes(&layout, &schema));
        let bars = book_bars(&environment, &experiment, options, &ledger, chunk, 2 * chunk)?;
        let folder = open_folder(&experiment, options, &fingerprint, pieces)?;
        let master = execution_master(&experiment.config, &folder)?;
        let lock = lock_text(&experiment, &plan, master);
        folder.write_grid_lock(&lock, &MAY_CHANGE)?;
        let check =
            |index: u64| chunk_file::read(&folder.chunk(index), &schema, &fingerprint, plan.trials(index)).map(|_| ());
        let finished = scan_with(&folder, &plan, options.threads, &check)?;
        if pieces.is_some() {
            refuse_incomplete(&finished, &plan)?;
        }
        if let Some(shard) = options.shard {
            folder.write_manifest(&shard_manifest("walkforward", &experiment, &plan, shard, &fingerprint))?;
        }
        let space = Arc::clone(experiment.trials.space());
        let configs = TrialConfigs::new(space, experiment.config.document.clone(), master);
        let earlier = if finished.missing(&plan).next().is_some() {
            find_earlier(&experiment, options, &environment, &ledger, chunk, &fingerprint, folder.path())
        } else {
            Earlier::none(&ledger)
        };
        Ok(Self {
            experiment,
            windows,
            environment,
            held_back,
            layout,
            configs,
            plan,
            schema,
            fingerprint,
            folder,
            finished,
            earlier,
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

    /// Windows of all designs.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The section of the grid, with the embargo in force.
    pub fn windows(&self) -> &WalkForward {
        &self.windows
    }

    /// Bars kept back.
    pub fn held_back(&self) -> Option<&HeldBack> {
        self.held_back.as_ref()
    }

    /// How trials are cut, and which chunks are worked on here.
    pub fn plan(&self) -> &ChunkPlan {
        &self.plan
    }

    /// Trials in chunks found finished.
    pub fn cached(&self) -> u64 {
        self.finished.trials(&self.plan)
    }

    /// Cells of earlier runs.
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

    fn judges(&self) -> Judges<'_> {
        Judges { objective: &self.experiment.grid.objective, gates: &self.experiment.grid.gates }
    }

    fn chunks(&self) -> Chunks<'_> {
        Chunks {
            folder: &self.folder,
            plan: self.plan,
            schema: &self.schema,
            fingerprint: &self.fingerprint,
            layout: &self.layout,
            judges: self.judges(),
        }
    }

    /// No wave starts later than `most` after the start, nor than the grid allows.
    pub fn limit_time(&mut self, most: Duration) {
        let limit = &mut self.experiment.grid.limits.time;
        *limit = Some(limit.map_or(most, |limit| limit.min(most)));
    }

    /// Evaluates what is missing and, when nothing is, chooses, walks the choices and writes the result.
    ///
    /// # Errors
    /// Files that cannot be written; finished chunks stay.
    pub fn run(mut self, stop: &AtomicBool, observer: &dyn Observer) -> Result<Report, CommandError> {
        let started = Instant::now();
        let limit = self.experiment.grid.limits.time;
        let work = WindowCells {
            chunks: self.chunks(),
            environment: &self.environment,
            trials: &self.experiment.trials,
            configs: &self.configs,
        };
        let chunks = self.folder.chunks();
        let job = Job {
            work: &work,
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
        let result = match end {
            End::Complete if self.plan.shard().is_none() => Some(self.pool()?.install(|| self.finish())?),
            End::Complete | End::Interrupted | End::Deadline => None,
        };
        Ok(Report {
            end,
            folder: self.folder.path().to_owned(),
            shard: self.plan.shard(),
            trials: self.plan.own_trials(),
            cached: self.cached(),
            reused: self.earlier.reused(),
            result,
            warnings: self.warnings(),
            elapsed,
            peak_memory: self.ledger.peak(),
        })
    }

    /// For what is worked out side by side after evaluation.
    fn pool(&self) -> Result<rayon::ThreadPool, DriverError> {
        let threads = self.threads;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.map_err(|error| DriverError::Threads { threads, reason: error.to_string() })
    }

    fn finish(&self) -> Result<Complete, CommandError> {
        // Columns are not needed any more; what follows may use their room.
        self.environment.release_memory(usize::MAX);
        let space = self.experiment.trials.space();
        let (tallies, failures) = self.chunks().tally(&self.ledger)?;
        if let Some((_, code, reason)) = failures.first.clone().filter(|_| failures.whole == self.plan.total()) {
            return Err(CommandError::AllFailed { trials: self.plan.total(), code, reason });
        }
        let bench = Bench {
            environment: &self.environment,
            config: &self.experiment.config,
            configs: &self.configs,
            trials: &self.experiment.trials,
            judges: self.judges(),
            layout: &self.layout,
            checks: &self.windows.verdict,
        };
        let folder = self.folder.path();
        let mut tables = Tables::create(folder, space, &self.fingerprint)?;
        let mut designs: Vec<DesignResult> = Vec::new();
        let mut from = 0;
        for design in self.layout.designs() {
            let own = &tallies[from..from + design.windows.len()];
            from += design.windows.len();
            let name = design_name(design);
            let result = bench.design::<CommandError>(design, own, |number, piece| {
                Ok(tables.piece(&name, &self.experiment.config.symbol, number, piece)?)
            })?;
            tables.design(design, own, &result)?;
            designs.push(result);
        }
        tables.commit()?;
        if self.windows.mode == WindowMode::Matrix {
            files::write_matrix(folder, self.layout.designs(), &designs, &self.fingerprint)?;
        }
        files::write_configs(&folder.join("windows"), self.layout.designs(), &designs)?;
        files::write_json(folder.join("summary.json"), &self.summary(&designs))?;
        let manifest = format!("{:#}\n", self.manifest(&designs, &failures));
        self.folder.write_manifest(&manifest)?;
        let params = space.columns().iter().map(|column| (column.name.clone(), space.axes()[column.axis].len() > 1));
        let chosen = designs.iter().flat_map(|design| &design.windows).map(|window| {
            let values = window.setting.as_ref().map(|setting| space.values(setting)).unwrap_or_default();
            let typed = values.iter().zip(space.columns());
            typed.filter_map(|(value, column)| row::ParamValue::from_json(value, column.kind)).collect()
        });
        Ok(Complete {
            chosen: chosen.collect(),
            params: params.collect(),
            layout: self.layout.clone(),
            tallies,
            designs,
            failures,
        })
    }

    fn summary(&self, designs: &[DesignResult]) -> Value {
        let space = self.experiment.trials.space();
        let designs = self.layout.designs().iter().zip(designs);
        json!({
            "format_version": 1,
            "name": self.experiment.grid.name,
            "mode": self.windows.mode.as_str(),
            "embargo": self.windows.embargo.map(|embargo| embargo.to_string()),
            "holdout": self.held_back.as_ref().map(|held| json!({"from": instant_text(held.from_ns), "bars": held.bars})),
            "designs": designs
                .map(|(design, result)| files::design_json(self.windows.mode, design, result, space))
                .collect::<Vec<_>>(),
        })
    }

    fn manifest(&self, designs: &[DesignResult], failures: &Failures) -> Value {
        let experiment = &self.experiment;
        let mut statuses = std::collections::BTreeMap::<&str, u64>::new();
        for window in designs.iter().flat_map(|design| &design.windows) {
            *statuses.entry(window.status.as_str()).or_default() += 1;
        }
        json!({
            "format_version": 1,
            "command": "walkforward",
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
            "lattice_points": experiment.trials.space().size().to_string(),
            "trials": experiment.trials.len(),
            "chunk_size": self.plan.size(),
            "chunks": self.plan.count(),
            "designs": self.layout.designs().len(),
            "windows": self.layout.places().len(),
            "window_status": statuses,
            "backtests_per_trial": self.layout.spans().len(),
            "failures": failures.by_code,
            "left_out": left_out(experiment),
            "warnings": self.environment.warnings().iter().chain(&experiment.warnings).collect::<Vec<_>>(),
        })
    }
}

/// A walk-forward whose windows are laid: what its run folder is called by.
pub(crate) struct Laid {
    pub(crate) experiment: Experiment,
    windows: WalkForward,
    environment: Environment,
    held_back: Option<HeldBack>,
    layout: Layout,
    pub(crate) fingerprint: Fingerprint,
    ledger: Ledger,
}

impl Laid {
    /// Loads the bars, cuts the holdout off and lays the windows.
    pub(crate) fn new(mut experiment: Experiment, options: &Options, sources: &Sources) -> Result<Self, CommandError> {
        let mut windows = understood(&experiment)?;
        let ledger = Ledger::within(cap_of(&experiment, options));
        let environment =
            Environment::open(&experiment.config, &experiment.timeframes, sources, Arc::new(ledger.clone()))?;
        keep_manifest(&environment, &sources.cache_dir);
        let (environment, held_back) = hold_back(environment, &experiment, &windows)?;
        let embargo = match windows.embargo {
            Some(embargo) => embargo,
            None => default_embargo(&environment, &experiment),
        };
        windows.embargo = Some(embargo);
        experiment.grid.walk_forward = Some(windows.clone());
        let layout = lay(&environment, &experiment, &windows, embargo)?;
        let fingerprint = fingerprint(&experiment, &environment, &layout, &windows);
        Ok(Self { experiment, windows, environment, held_back, layout, fingerprint, ledger })
    }
}

fn refuse(experiment: &Experiment, path: &str, message: &str, hint: &str) -> CommandError {
    let place = experiment.grid.config.locate(path);
    Box::new(Diagnostics::from(Diagnostic::new(Some(place.span(true)), path, message).with_hint(hint))).into()
}

/// The section of the grid, once nothing in the grid contradicts it.
fn understood(experiment: &Experiment) -> Result<WalkForward, CommandError> {
    let Some(windows) = experiment.grid.walk_forward.clone() else {
        let hint = "for example `walk_forward: {mode: rolling, train: 365d, test: 90d}`";
        let fault = experiment.grid.walk_forward_fault("", "is required to walk forward", hint);
        return Err(Box::new(Diagnostics::from(fault)).into());
    };
    if experiment.config.variant != Variant::V2 {
        let hint = "leave `execution_variant` out: a window is a run with `trade_window`, which only v2 knows";
        return Err(refuse(experiment, "execution_variant", "walk-forward needs v2", hint));
    }
    if experiment.config.trade_window.is_some() {
        let hint = "leave it out; start_date and end_date bound the windows";
        return Err(refuse(experiment, "trade_window", "a walk-forward lays windows of its own", hint));
    }
    let money = ["account.initial_balance", "account.account_currency"];
    let columns = experiment.trials.space().columns();
    for column in columns.iter().filter(|column| matches!(&column.target, Target::Config(_))) {
        let path = column.target.path().join(".");
        if money.contains(&path.as_str()) {
            let message = format!("`{path}` is an axis, but the windows' profits are added up in one account");
            let fault = experiment.grid.walk_forward_fault("", message, "give it one value");
            return Err(Box::new(Diagnostics::from(fault)).into());
        }
    }
    Ok(windows)
}

fn timeline<'a>(environment: &'a Environment, config: &RunConfig) -> Result<Timeline<'a>, CommandError> {
    let market = &environment.data().market;
    let bar_ns = market.bars.timeframe.duration_ns();
    Timeline::new(&market.bars.open_time, market.first_tradable, bar_ns).ok_or_else(|| {
        let error = Error::DataCorrupt {
            kind: "DateRangeEmpty",
            path: config.symbol.clone().into(),
            row: 0,
            timestamp_ns: None,
            rule: "a walk-forward needs tradable bars before its holdout".to_owned(),
            found: "none".to_owned(),
        };
        error.into()
    })
}

/// Cuts the holdout off the data, so that no step can read it.
fn hold_back(
    environment: Environment,
    experiment: &Experiment,
    windows: &WalkForward,
) -> Result<(Environment, Option<HeldBack>), CommandError> {
    let Some(holdout) = windows.holdout else { return Ok((environment, None)) };
    let all = timeline(&environment, &experiment.config)?;
    let from_ns = all.holdout_start(holdout);
    if from_ns >= all.end() || from_ns <= all.origin() {
        let message = format!(
            "starts at {}, outside the tradable bars from {} to {}",
            instant_text(from_ns),
            instant_text(all.origin()),
            instant_text(all.end())
        );
        let fault =
            experiment.grid.walk_forward_fault("holdout", message, "leave bars to search on and bars to keep back");
        return Err(Box::new(Diagnostics::from(fault)).into());
    }
    let before = environment.data().market.bars.len();
    let environment = environment.closed_by(from_ns);
    let bars = before - environment.data().market.bars.len();
    Ok((environment, Some(HeldBack { from_ns, bars })))
}

/// The longer of a day and the longest holding time any setting allows, in whole days; a day without a limit.
fn default_embargo(environment: &Environment, experiment: &Experiment) -> Length {
    let bar_ns = experiment.config.primary.duration_ns();
    let longest = experiment.probes().into_iter().filter_map(|config| {
        let prepared = environment.prepare(&config, config.rng_seed.unwrap_or_default()).ok()?;
        let held = prepared.plan().holding.as_ref().map(|holding| holding.limit_ns);
        let rules = prepared.strategy().rules().map(|rules| rules.rules.iter());
        let bars = rules.into_iter().flatten().filter_map(|rule| rule.exit.hold_bars).max();
        held.max(bars.map(|bars| i64::from(bars).saturating_mul(bar_ns)))
    });
    let longest_ns = longest.max().unwrap_or(0);
    let days = longest_ns.div_euclid(DAY_NS) + i64::from(longest_ns.rem_euclid(DAY_NS) > 0);
    Length::Days(u32::try_from(days.max(1)).unwrap_or(u32::MAX))
}

fn lay(
    environment: &Environment,
    experiment: &Experiment,
    windows: &WalkForward,
    embargo: Length,
) -> Result<Layout, CommandError> {
    let designs = timeline(environment, &experiment.config)?.designs(windows, embargo).map_err(|error| {
        use crate::walkforward::windows::WindowError;
        let (key, hint) = match &error {
            WindowError::Overlap { .. } => ("step", "leave `step` out, or say `allow_overlap: true`"),
            WindowError::NoneFits { .. } => ("train", "shorten train, embargo or test, or load more bars"),
            WindowError::TooMany { .. } => ("test", "lengthen test or step"),
        };
        CommandError::from(Box::new(Diagnostics::from(experiment.grid.walk_forward_fault(
            key,
            error.to_string(),
            hint,
        ))))
    })?;
    Ok(Layout::new(designs))
}

/// What decides the cells: what decides the rows of a sweep, and windows, objective and gates.
fn fingerprint(
    experiment: &Experiment,
    environment: &Environment,
    layout: &Layout,
    windows: &WalkForward,
) -> Fingerprint {
    let span = |span: &Span| json!([span.start_ns, span.end_ns]);
    let designs = layout.designs().iter().map(|design| {
        let windows = design.windows.iter().map(|window| json!([span(&window.train), span(&window.test)]));
        json!({ "design": design_name(design), "windows": windows.collect::<Vec<_>>() })
    });
    let held_back = json!([windows.allow_overlap, windows.holdout.map(|holdout| format!("{holdout:?}"))]);
    let identity = json!([designs.collect::<Vec<_>>(), held_back]);
    let grid = &experiment.grid;
    let judged = [
        ("windows".to_owned(), canonical::canonical_hash(&identity)),
        ("objective".to_owned(), format!("{} {}", grid.objective.goal.as_str(), grid.objective.text())),
        ("gates".to_owned(), json!(grid.gates.texts().collect::<Vec<_>>()).to_string()),
    ];
    Fingerprint::new(sweep_parts(experiment, environment).into_iter().chain(judged))
}
