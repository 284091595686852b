//! A whole sweep as one call: the grid in, the report out, counters to look at in between.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::data::Sources;
use optimizer::atomic::FileError;
use optimizer::cli;
use optimizer::cli::sweep::report_json;
use optimizer::document::Document;
use optimizer::driver::{End, Observer, Phase};
use optimizer::error::CommandError;
use optimizer::grid::Grid;
use optimizer::objective::{Gates, Goal, Objective};
use optimizer::plan::memory::{Ledger, parse_bytes};
use optimizer::plan::outlook::Outlook;
use optimizer::progress::Progress;
use optimizer::row::Outcome;
use optimizer::run_folder::RunFolder;
use optimizer::sweep::{Experiment, Options, Sweep, usage};
use optimizer::walkforward::run::WalkForwardRun;
use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::bars::Bars;
use crate::boundary::{bad_argument, internal_error, quiet_panics, told, unknown_strategy};
use crate::run::sources;

/// Distance of looks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(50);
/// Stack of the thread a sweep runs on: that of a main thread.
const STACK: usize = 8 << 20;

/// What `sweep` is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    grid: GridSource,
    #[serde(default)]
    set: Vec<String>,
    out: Option<PathBuf>,
    threads: Option<usize>,
    memory: Option<String>,
    #[serde(default)]
    fresh: bool,
}

/// Where a grid comes from.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum GridSource {
    /// A file.
    Path(PathBuf),
    /// YAML or JSON; paths in it start at the working directory.
    Text(String),
}

impl Request {
    pub(crate) fn parse(text: &str) -> PyResult<Self> {
        serde_json::from_str(text).map_err(|error| bad_argument("request", error))
    }

    /// The grid understood.
    pub(crate) fn experiment(&self) -> Result<Experiment, CommandError> {
        let grid = match &self.grid {
            GridSource::Path(path) => Grid::load(path)?,
            GridSource::Text(text) => Grid::parse(Document::parse("", text.as_str())?, Path::new(""), "sweep")?,
        };
        Experiment::of_grid(grid, &self.set)
    }

    /// The E4001 behind a refusal, if it is one.
    pub(crate) fn unknown_strategy(&self) -> Option<PyErr> {
        let mut grid = match &self.grid {
            GridSource::Path(path) => Grid::load(path).ok()?,
            GridSource::Text(text) => {
                Grid::parse(Document::parse("", text.as_str()).ok()?, Path::new(""), "sweep").ok()?
            }
        };
        self.set.iter().try_for_each(|assignment| grid.set(assignment)).ok()?;
        unknown_strategy(&grid.config_json(), true)
    }

    pub(crate) fn options(&self) -> Result<Options, CommandError> {
        let memory = match &self.memory {
            Some(text) => Some(parse_bytes(text).map_err(|e| usage("memory", e.to_string(), "for example 8GB"))?),
            None => None,
        };
        Ok(Options {
            set: self.set.clone(),
            out: self.out.clone(),
            threads: cli::threads(self.threads)?,
            memory,
            fresh: self.fresh,
            shard: None,
            reuse: Some(Vec::new()),
        })
    }
}

/// Counters of a running call, filled by its threads and read from any other. Reading calls nothing back.
#[pyclass(frozen, module = "omega_bt")]
#[derive(Default)]
pub(crate) struct Meter {
    counts: Arc<Counts>,
}

#[derive(Default)]
pub(crate) struct Counts {
    total: AtomicU64,
    cached: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    stopping: AtomicBool,
    running: Mutex<Option<Running>>,
}

/// What is known once the sweep has opened its folder.
struct Running {
    folder: PathBuf,
    started: Instant,
    ledger: Ledger,
    best: Option<f64>,
}

#[pymethods]
impl Meter {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// `(total, cached, done, failed, best, seconds, memory_bytes, stopping)`; total is 0 before work starts.
    #[allow(clippy::type_complexity, reason = "a tuple for Python")]
    fn read(&self) -> (u64, u64, u64, u64, Option<f64>, f64, usize, bool) {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let counts = &self.counts;
        let running = counts.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (best, seconds, memory) = running
            .as_ref()
            .map_or((None, 0.0, 0), |run| (run.best, run.started.elapsed().as_secs_f64(), run.ledger.used()));
        let stopping = counts.stopping.load(Ordering::Relaxed);
        let (total, cached) = (count(&counts.total), count(&counts.cached));
        (total, cached, count(&counts.done), count(&counts.failed), best, seconds, memory, stopping)
    }

    /// The run folder, once it is open.
    #[getter]
    fn folder(&self) -> Option<PathBuf> {
        let running = self.counts.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(|run| run.folder.clone())
    }
}

/// Passes what happens on to the event file and to the counters.
struct Watcher<'a> {
    progress: &'a Progress,
    counts: &'a Counts,
    objective: Objective,
    gates: Gates,
}

impl Observer for Watcher<'_> {
    fn wave(&self, chunks: &[u64], trials: u64) {
        self.progress.wave(chunks, trials);
    }

    fn evaluated(&self, outcome: &Outcome, sharing: u64) {
        self.progress.evaluated(outcome, sharing);
        self.counts.done.fetch_add(sharing, Ordering::Relaxed);
        match outcome {
            Outcome::Failed { .. } => {
                self.counts.failed.fetch_add(sharing, Ordering::Relaxed);
            }
            Outcome::Done { values, .. } => {
                let Some(score) = self.objective.score(values) else { return };
                if self.gates.first_failed(values).is_some() {
                    return;
                }
                let mut running = self.counts.running.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(run) = running.as_mut() else { return };
                let better = |old: f64| match self.objective.goal {
                    Goal::Maximize => score > old,
                    Goal::Minimize => score < old,
                };
                if run.best.is_none_or(better) {
                    run.best = Some(score);
                }
            }
        }
    }

    fn reused(&self, trials: u64) {
        self.progress.reused(trials);
    }

    fn committed(&self, index: u64, rows: u64) {
        self.progress.committed(index, rows);
    }

    fn took(&self, phase: Phase, time: Duration) {
        self.progress.took(phase, time);
    }
}

/// Runs a sweep; returns its report (with `ok: true`) or the error document as JSON text.
///
/// `request_json`: `{"grid": {"path": …} | {"text": …}, "set": [], "out": …, "threads": …, "memory": …, "fresh": …}`.
/// Ctrl-C lets the running wave end, keeps what is finished and raises `KeyboardInterrupt`; a second one does not wait.
#[pyfunction]
#[pyo3(signature = (request_json, *, bars = None, meter = None))]
pub(crate) fn sweep(
    py: Python<'_>,
    request_json: &str,
    bars: Option<Vec<Py<Bars>>>,
    meter: Option<Py<Meter>>,
) -> PyResult<String> {
    let request = Request::parse(request_json)?;
    let counts = meter.map_or_else(Arc::default, |meter| Arc::clone(&meter.get().counts));
    let sources = sources(bars);
    interruptible(py, request, counts, move |request, counts, stop| evaluate(request, &sources, counts, stop))
}

/// Runs `work` on a thread of its own while this one listens for Ctrl-C.
pub(crate) fn interruptible(
    py: Python<'_>,
    request: Request,
    counts: Arc<Counts>,
    work: impl FnOnce(&Request, &Counts, &AtomicBool) -> Result<Value, CommandError> + Send + 'static,
) -> PyResult<String> {
    quiet_panics();
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = channel();
    let request = Arc::new(request);
    let thread = {
        let (request, counts, stop) = (Arc::clone(&request), Arc::clone(&counts), Arc::clone(&stop));
        move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| work(&request, &counts, &stop)));
            // Nobody listens any more after a second Ctrl-C.
            let _ = sender.send(outcome);
        }
    };
    std::thread::Builder::new()
        .name("sweep".to_owned())
        .stack_size(STACK)
        .spawn(thread)
        .map_err(|error| pyo3::exceptions::PyOSError::new_err(format!("cannot start a thread: {error}")))?;
    let receiver = Mutex::new(receiver);
    let mut interrupt: Option<PyErr> = None;
    let outcome = loop {
        let received = py.detach(|| receiver.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(LOOK));
        match received {
            Ok(outcome) => break outcome,
            Err(RecvTimeoutError::Disconnected) => return Err(internal_error()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Err(signal) = py.check_signals() {
            if interrupt.is_some() {
                return Err(signal);
            }
            stop.store(true, Ordering::SeqCst);
            counts.stopping.store(true, Ordering::Relaxed);
            interrupt = Some(signal);
        }
    };
    if let Some(interrupt) = interrupt {
        return Err(interrupt);
    }
    let outcome = outcome.map_err(|_| internal_error())?;
    if matches!(outcome, Err(CommandError::Input(_)))
        && let Some(unknown) = request.unknown_strategy()
    {
        return Err(unknown);
    }
    told(outcome.map(|mut report| {
        report["ok"] = Value::Bool(true);
        report.to_string()
    }))
}

/// A call whose settings are evaluated wave by wave: what its progress is told of.
struct Started<'a> {
    experiment: &'a Experiment,
    cached: u64,
    ledger: &'a Ledger,
    folder: &'a RunFolder,
    threads: usize,
}

impl Started<'_> {
    /// Opens the event file and fills the counters.
    fn progress(&self, counts: &Counts) -> Result<Progress, CommandError> {
        let (grid, total) = (&self.experiment.grid, self.experiment.trials.len());
        let (objective, gates) = (grid.objective.clone(), grid.gates.clone());
        let events = self.folder.events();
        let progress = Progress::new(total, self.cached, objective, gates, self.ledger.clone(), &events, true)
            .map_err(|error| FileError::io(&events, "open it", error))?;
        progress.event("start", json!({ "trials": total, "cached": self.cached, "threads": self.threads }));
        *counts.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(Running {
            folder: self.folder.path().to_owned(),
            started: Instant::now(),
            ledger: self.ledger.clone(),
            best: None,
        });
        counts.cached.store(self.cached, Ordering::Relaxed);
        counts.total.store(total, Ordering::Relaxed);
        Ok(progress)
    }
}

/// Tells the event file how a call ended.
fn ended<T>(progress: &Progress, outcome: &Result<T, CommandError>, end: impl FnOnce(&T) -> (End, Duration)) {
    match outcome {
        Ok(report) => {
            let (end, elapsed) = end(report);
            let (end, seconds) = (format!("{end:?}"), elapsed.as_secs_f64());
            progress.event("end", json!({ "end": end, "seconds": seconds, "phases_s": progress.times() }));
        }
        Err(error) => progress.event("error", json!({ "message": error.to_string() })),
    }
}

fn evaluate(request: &Request, sources: &Sources, counts: &Counts, stop: &AtomicBool) -> Result<Value, CommandError> {
    let (experiment, options) = (request.experiment()?, request.options()?);
    let (objective, gates) = (experiment.grid.objective.clone(), experiment.grid.gates.clone());
    let sweep = Sweep::open(experiment, &options, sources)?;
    let started = Started {
        experiment: sweep.experiment(),
        cached: sweep.cached(),
        ledger: sweep.ledger(),
        folder: sweep.folder(),
        threads: options.threads,
    };
    let progress = started.progress(counts)?;
    let report = sweep.run(stop, &Watcher { progress: &progress, counts, objective, gates });
    ended(&progress, &report, |report| (report.end, report.elapsed));
    report.map(|report| report_json(&report, report.exit_code()))
}

/// Runs the walk-forward of a grid; returns a report (with `ok: true`) or the error document as JSON text. What it found is
/// in the files of the run folder. Arguments and interruption as for `sweep`.
#[pyfunction]
#[pyo3(signature = (request_json, *, bars = None, meter = None))]
pub(crate) fn walk_forward(
    py: Python<'_>,
    request_json: &str,
    bars: Option<Vec<Py<Bars>>>,
    meter: Option<Py<Meter>>,
) -> PyResult<String> {
    let request = Request::parse(request_json)?;
    let counts = meter.map_or_else(Arc::default, |meter| Arc::clone(&meter.get().counts));
    let sources = sources(bars);
    interruptible(py, request, counts, move |request, counts, stop| walk(request, &sources, counts, stop))
}

fn walk(request: &Request, sources: &Sources, counts: &Counts, stop: &AtomicBool) -> Result<Value, CommandError> {
    let (experiment, options) = (request.experiment()?, request.options()?);
    let (objective, gates) = (experiment.grid.objective.clone(), experiment.grid.gates.clone());
    let run = WalkForwardRun::open(experiment, &options, sources)?;
    let started = Started {
        experiment: run.experiment(),
        cached: run.cached(),
        ledger: run.ledger(),
        folder: run.folder(),
        threads: options.threads,
    };
    let progress = started.progress(counts)?;
    let report = run.run(stop, &Watcher { progress: &progress, counts, objective, gates });
    ended(&progress, &report, |report| (report.end, report.elapsed));
    report.map(|report| {
        json!({
            "end": match report.end {
                End::Complete => "complete",
                End::Interrupted => "interrupted",
                End::Deadline => "deadline",
            },
            "folder": report.folder.display().to_string(),
            "trials": report.trials,
            "cached": report.cached,
            "seconds": report.elapsed.as_secs_f64(),
            "warnings": report.warnings,
        })
    })
}

/// What a sweep would do, as JSON text: settings, columns, time, memory, disk. Arguments as for `sweep`.
#[pyfunction]
#[pyo3(signature = (request_json, *, bars = None))]
pub(crate) fn plan(py: Python<'_>, request_json: &str, bars: Option<Vec<Py<Bars>>>) -> PyResult<String> {
    let request = Request::parse(request_json)?;
    let sources = sources(bars);
    interruptible(py, request, Arc::default(), move |request, _, _| {
        let experiment = request.experiment()?;
        let outlook = Outlook::new(&experiment, &request.options()?, &sources)?;
        Ok(cli::plan::document(&experiment, &outlook))
    })
}
