//! One run config, one backtest, its artefacts: `omega-opt run`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use engine::backtest::artefact::write_folder;
use engine::backtest::config::TOP_LEVEL_KEYS;
use engine::backtest::result::{Include, success_document};
use engine::backtest::{Environment, Prepared, RunConfig, RunMode};
use engine::data::Sources;
use engine::indicators::Unlimited;
use engine::strategy::{self, Family, Strategy};
use engine::{Error, Violation};
use serde_json::{Value, json};

use crate::diagnostic::Diagnostics;
use crate::document::{Document, Source, Span};
use crate::error::CommandError;
use crate::replay::{Provenance, Replay, ReplayError, now_ns, record};
use crate::sweep::usage;

/// A run config understood: nothing is loaded or written yet.
pub struct SingleRun {
    /// Normalised config.
    pub config: RunConfig,
    /// File name, without folders, if it came from a file.
    pub source: Option<String>,
    /// Unknown keys that are ignored, and keys without effect.
    pub warnings: Vec<String>,
    document: Document,
    family: &'static dyn Family,
}

impl SingleRun {
    /// Reads a run config with `--set` changes. Unknown keys are warnings, unless `strict`.
    ///
    /// # Errors
    /// Every fault, with its place.
    pub fn read(path: &Path, set: &[String], strict: bool) -> Result<Self, CommandError> {
        let mut document = Document::read(path, path.display().to_string())?;
        for assignment in set {
            apply(&mut document, assignment)?;
        }
        let source = path.file_name().map(|name| name.to_string_lossy().into_owned());
        Self::of_document(document, source, strict)
    }

    /// A run config read from a document. `source`: name of the file it came from, without folders, if from one.
    ///
    /// # Errors
    /// As [`SingleRun::read`].
    pub fn of_document(document: Document, source: Option<String>, strict: bool) -> Result<Self, CommandError> {
        let refuse = |violations: &[Violation]| Box::new(Diagnostics::from_violations(&document, violations));
        let parsed = RunConfig::parse(&document.to_json(), strict).map_err(|v| refuse(&v))?;
        let ignored = parsed.warnings.iter().map(|violation| format!("{violation}; it is ignored"));
        let mut warnings: Vec<String> = ignored.collect();
        let family = find_family(&parsed.config, &document)?;
        warnings.extend(family.warnings(&parsed.config.strategy_parameters, &parsed.config.build_context()));
        Ok(Self { config: parsed.config, source, warnings, document, family })
    }

    /// The config asks for a profile.
    pub fn profiles(&self) -> bool {
        let asked = |pointer: &str| self.config.document.pointer(pointer).and_then(Value::as_bool) == Some(true);
        asked("/profiling/enabled") || asked("/observability/profiling_mode")
    }

    /// Level of its log unless `RUST_LOG` says otherwise.
    pub fn log_level(&self) -> &'static str {
        match self.config.run_mode {
            RunMode::Dev => "info",
            RunMode::Prod => "warn",
        }
    }

    /// Checks the strategy's parameters, which [`SingleRun::open`] does too; for those who stop there.
    ///
    /// # Errors
    /// Strategy parameters.
    pub fn check(&self) -> Result<(), CommandError> {
        self.strategy().map(drop)
    }

    fn strategy(&self) -> Result<Box<dyn Strategy>, CommandError> {
        let built = self.family.build(&self.config.strategy_parameters, &self.config.build_context());
        built.map_err(|error| located(error, &self.document))
    }

    /// Loads the bars. From here on the run has a name.
    ///
    /// # Errors
    /// Strategy parameters, data errors.
    pub fn open(&self, sources: &Sources) -> Result<OpenRun<'_>, CommandError> {
        let started = Instant::now();
        let config = &self.config;
        let strategy = self.strategy()?;
        let environment = Environment::open(config, &strategy.timeframes(), sources, Arc::new(Unlimited))?;
        let rng_seed = match config.rng_seed {
            Some(seed) => seed,
            None => getrandom::u64().map_err(|error| Error::Internal(format!("no entropy: {error}")))?,
        };
        let mut clock = Clock { started, last: started, laps: Vec::new() };
        clock.lap("time_data_load");
        Ok(OpenRun { single: self, environment, rng_seed, cache_dir: sources.cache_dir.clone(), clock })
    }
}

/// A run whose bars are loaded.
pub struct OpenRun<'a> {
    single: &'a SingleRun,
    environment: Environment,
    rng_seed: u64,
    cache_dir: PathBuf,
    clock: Clock,
}

impl OpenRun<'_> {
    fn provenance(&self) -> Provenance<'_> {
        let SingleRun { config, source, .. } = self.single;
        Provenance { config, source: source.as_deref(), rng_seed: self.rng_seed, environment: &self.environment }
    }

    /// Name of the run and of its folder.
    pub fn run_id(&self) -> String {
        self.provenance().run_id()
    }

    /// Runs, and writes `<root>/<run_id>/`.
    ///
    /// # Errors
    /// A failing backtest, files that cannot be written.
    pub fn run(mut self, root: &Path, profile: bool) -> Result<SingleReport, CommandError> {
        self.clock.log("time_data_load");
        let (prepared, replay) = self.walk()?;
        let folder = root.join(self.run_id());
        replay.write(&folder, &prepared, self.provenance()).map_err(ReplayError::from)?;
        self.clock.lap("time_write");
        keep_manifest(&self.environment, &self.cache_dir);
        if profile {
            write_profile(&folder, &self.profile(&prepared, &replay))?;
        }
        let seconds = self.clock.started.elapsed().as_secs_f64();
        Ok(SingleReport { folder, replay, warnings: self.warnings(), seconds })
    }

    /// Runs, and returns the success document with the blocks of `include`; its artefacts are written where
    /// `folder_of` says, given the run id, if it names a folder.
    ///
    /// # Errors
    /// As [`OpenRun::run`].
    pub fn document(
        mut self,
        include: Include,
        profile: bool,
        folder_of: impl FnOnce(&str) -> Option<PathBuf>,
    ) -> Result<String, CommandError> {
        self.clock.log("time_data_load");
        let (prepared, replay) = self.walk()?;
        let folder = folder_of(&self.run_id());
        let warnings = self.warnings();
        let provenance = self.provenance();
        let document = replay.with_documents(&prepared, provenance, |documents| -> Result<_, CommandError> {
            if let Some(folder) = &folder {
                write_folder(folder, documents).map_err(ReplayError::from)?;
                keep_manifest(&self.environment, &self.cache_dir);
            }
            let profiling = profile.then(|| {
                let mut clock = self.clock.clone();
                clock.lap("time_write");
                clock.profile(&prepared, &replay, self.environment.data().market.bars.len())
            });
            if let (Some(folder), Some(profiling)) = (&folder, &profiling) {
                write_profile(folder, profiling)?;
            }
            let text = success_document(documents, include, &warnings, profiling.as_ref());
            Ok(text.map_err(ReplayError::from)?)
        })?;
        Ok(document)
    }

    fn walk(&mut self) -> Result<(Prepared, Replay), CommandError> {
        let prepared = self.environment.prepare(&self.single.config, self.rng_seed)?;
        prepared.warm()?;
        self.clock.lap("time_indicators");
        let recorded = record(&prepared)?;
        self.clock.lap("time_backtest");
        let replay = recorded.judge(&prepared)?;
        self.clock.lap("time_metrics");
        Ok((prepared, replay))
    }

    fn profile(&self, prepared: &Prepared, replay: &Replay) -> Value {
        self.clock.profile(prepared, replay, self.environment.data().market.bars.len())
    }

    fn warnings(&self) -> Vec<String> {
        self.environment.warnings().iter().chain(&self.single.warnings).cloned().collect()
    }
}

fn write_profile(folder: &Path, profile: &Value) -> Result<(), CommandError> {
    let path = folder.join("profiling").join("profiling.json");
    let write = || {
        std::fs::create_dir_all(folder.join("profiling"))?;
        std::fs::write(&path, format!("{profile:#}\n"))
    };
    write().map_err(|e| crate::atomic::FileError::io(&path, "write it", e).into())
}

/// What a single run left behind.
pub struct SingleReport {
    /// Folder of the artefacts.
    pub folder: PathBuf,
    /// Trades, metrics, counts.
    pub replay: Replay,
    /// What may change money.
    pub warnings: Vec<String>,
    /// Time of everything.
    pub seconds: f64,
}

/// Keeps the identity of the data beside the bars. The manifest file is a convenience: the run folder has the hash.
pub fn keep_manifest(environment: &Environment, cache_dir: &Path) {
    if let Err(error) = environment.manifest().write(cache_dir, now_ns()) {
        tracing::warn!("the dataset manifest was not kept: {error}");
    }
}

fn find_family(config: &RunConfig, document: &Document) -> Result<&'static dyn Family, CommandError> {
    strategy::find(&config.strategy_name).map_err(|error| {
        let mut violation = Violation::value("strategy_name", error.to_string());
        violation.hint = error.hint();
        Box::new(Diagnostics::from_violations(document, &[violation])).into()
    })
}

/// Faults of strategy parameters at their place in the document.
pub fn located(error: Error, document: &Document) -> CommandError {
    let Error::Config(mut violations) = error else { return error.into() };
    for violation in &mut violations {
        violation.path = match violation.path.as_str() {
            "" => "strategy_parameters".to_owned(),
            path if path.starts_with("strategy_parameters") => path.to_owned(),
            path => format!("strategy_parameters.{path}"),
        };
    }
    Box::new(Diagnostics::from_violations(document, &violations)).into()
}

/// `key=value`; a key that is none of the run config is one of the strategy's parameters.
fn apply(document: &mut Document, assignment: &str) -> Result<(), CommandError> {
    let Some((key, text)) = assignment.split_once('=').map(|(key, text)| (key.trim(), text.trim())) else {
        return Err(usage(
            "--set",
            format!("must be key=value, got `{assignment}`"),
            "for example --set costs.enabled=false",
        ));
    };
    let name = format!("--set {key}");
    let value = Document::parse(name.clone(), text)?.root;
    let source = Arc::new(Source { name, text: key.to_owned() });
    let span = Span::new(&source, 0, key.len());
    let head = key.split('.').next().unwrap_or(key);
    let known = TOP_LEVEL_KEYS.contains(&head) || ["profiling", "observability"].contains(&head);
    let path: Vec<&str> = if known { key.split('.').collect() } else { vec!["strategy_parameters", key] };
    document
        .root
        .set(&path, &span, value)
        .map_err(|obstacle| Box::new(Diagnostics::at(span, key, format!("`{obstacle}` is no map"))).into())
}

/// Wall-clock times of the phases of a run.
#[derive(Clone)]
struct Clock {
    started: Instant,
    last: Instant,
    laps: Vec<(&'static str, u128)>,
}

impl Clock {
    fn lap(&mut self, name: &'static str) {
        let now = Instant::now();
        self.laps.push((name, now.duration_since(self.last).as_nanos()));
        self.last = now;
        if name != "time_data_load" {
            self.log(name);
        }
    }

    /// Tells that a phase is over. Loading is told later than it ends: its log lines would not know the run id.
    fn log(&self, name: &str) {
        let ns = self.laps.iter().find(|(lap, _)| *lap == name).map_or(0, |(_, ns)| *ns);
        let (phase, milliseconds) = (name.trim_start_matches("time_"), ns / 1_000_000);
        tracing::info!(
            component = "run",
            phase,
            milliseconds = u64::try_from(milliseconds).unwrap_or(u64::MAX),
            "done"
        );
    }

    fn profile(&self, prepared: &Prepared, replay: &Replay, bars: usize) -> Value {
        let counters = &replay.outcome.walked.counters;
        let total = ("wall_time_total", self.last.duration_since(self.started).as_nanos());
        let mut metrics = serde_json::Map::new();
        let mut definitions = serde_json::Map::new();
        let mut put = |key: String, value: Value, unit: &str, description: String| {
            metrics.insert(key.clone(), value);
            definitions.insert(key, json!({ "unit": unit, "description": description }));
        };
        for (name, ns) in std::iter::once(&total).chain(&self.laps) {
            let what = name.trim_start_matches("time_").replace('_', " ");
            let ns = u64::try_from(*ns).unwrap_or(u64::MAX);
            put(format!("{name}_ns"), json!(ns), "ns", format!("wall clock: {what}"));
            put(format!("{name}_ms"), json!(ns / 1_000_000), "ms", format!("wall clock: {what}, truncated"));
        }
        put("peak_rss_mb".to_owned(), json!(peak_rss_mb()), "MB", "highest resident memory; 0 if unknown".to_owned());
        let processed = prepared.plan().bars.len();
        let trades = replay.outcome.walked.trades.len() as u64;
        let counts = [
            ("bars_total", bars as u64, "primary bars loaded"),
            ("bars_processed", processed as u64, "tradable bars walked"),
            ("trades_emitted", trades, "closed trades"),
            ("orders_filled", counters.fills, "executed fills"),
            ("events_processed", counters.signals + counters.fills + processed as u64, "signals, fills and bars"),
        ];
        for (name, count, description) in counts {
            put(name.to_owned(), json!(count), "count", description.to_owned());
        }
        json!({ "metrics": metrics, "definitions": definitions })
    }
}

/// Highest resident memory of the process in MB; 0 where the platform does not tell.
pub fn peak_rss_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok());
    kib.map_or(0, |kib| kib * 1024 / 1_000_000)
}
