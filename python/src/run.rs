//! One backtest: config in, result out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::backtest::result::{Include, write_result as write_artefacts};
use engine::data::Sources;
use optimizer::cli::strategies::describe;
use optimizer::document::Document;
use optimizer::error::CommandError;
use optimizer::replay::ReplayError;
use optimizer::single::SingleRun;
use pyo3::prelude::*;
use serde_json::{Value, json};

use crate::bars::Bars;
use crate::boundary::{bad_argument, detached, invalid, refused, told, unknown_strategy};

/// Names of what a run leaves in its folder.
const ARTEFACTS: [&str; 6] = ["meta.json", "trades.json", "equity.csv", "metrics.json", "profiling", "logs"];

/// Runs one backtest; returns the success document or, if the run failed, the error document, as JSON text.
///
/// `bars`: bars in memory instead of files. `include`: blocks of the document (`trades`, `metrics`, `equity_curve`).
/// `folder`: where the artefacts go; with `folder_is_root`, to a folder named by the run id below it. `name`: file the
/// config came from, for messages and `meta.json`.
#[pyfunction]
#[pyo3(signature = (config_json, *, bars = None, include = None, folder = None, folder_is_root = false, name = "", strict = false))]
#[allow(clippy::too_many_arguments, reason = "keyword arguments of a Python function")]
pub(crate) fn run_backtest(
    py: Python<'_>,
    config_json: &str,
    bars: Option<Vec<Py<Bars>>>,
    include: Option<Vec<String>>,
    folder: Option<PathBuf>,
    folder_is_root: bool,
    name: &str,
    strict: bool,
) -> PyResult<String> {
    let include = included(include.as_deref())?;
    let document = Document::parse(name, config_json).map_err(|faults| invalid(&faults))?;
    let source = Path::new(name).file_name().map(|name| name.to_string_lossy().into_owned());
    let config = document.to_json();
    let single = match SingleRun::of_document(document, source, strict) {
        Ok(single) => single,
        Err(error) => {
            return match unknown_strategy(&config, strict) {
                Some(unknown) => Err(unknown),
                None => refused(&error).map(|document| document.to_string()),
            };
        }
    };
    if let Some(folder) = folder.as_deref().filter(|_| !folder_is_root) {
        refuse_foreign(folder)?;
    }
    let sources = sources(bars);
    let outcome = detached(py, || {
        let profile = single.profiles();
        let open = single.open(&sources)?;
        open.document(include, profile, |run_id| folder.map(|f| if folder_is_root { f.join(run_id) } else { f }))
    })?;
    told(outcome)
}

/// The blocks named; none: all of them.
pub(crate) fn included(names: Option<&[String]>) -> PyResult<Include> {
    let Some(names) = names else { return Ok(Include::ALL) };
    Include::of(names.iter().map(String::as_str)).map_err(|unknown| {
        let nearest = engine::error::nearest(unknown, Include::NAMES);
        let hint = nearest.map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"));
        bad_argument("include", format!("must name some of {}, got \"{unknown}\"{hint}", Include::NAMES.join(", ")))
    })
}

/// The places of the environment, and bars in memory beside them.
pub(crate) fn sources(bars: Option<Vec<Py<Bars>>>) -> Sources {
    let memory = bars.unwrap_or_default().iter().map(|bars| Arc::clone(bars.get().inner())).collect();
    Sources { memory, ..Sources::from_env() }
}

/// Artefacts replace a folder as a whole; one that holds anything else is somebody's and stays.
fn refuse_foreign(folder: &Path) -> PyResult<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    let foreign = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .find(|name| !ARTEFACTS.contains(&name.as_str()));
    match foreign {
        None => Ok(()),
        Some(name) => Err(bad_argument(
            "output_dir",
            format!(
                "must be new, empty or the folder of an earlier run, which is replaced as a whole; {} holds `{name}`",
                folder.display()
            ),
        )),
    }
}

/// Normalises and validates a run config, its strategy's parameters included; returns `{"config": …, "warnings": […]}`.
/// Raises `ValueError` with every violation.
#[pyfunction]
#[pyo3(signature = (config_json, *, name = "", strict = false))]
pub(crate) fn normalise_config(py: Python<'_>, config_json: &str, name: &str, strict: bool) -> PyResult<String> {
    let outcome = detached(py, || -> Result<PyResult<String>, CommandError> {
        let document = Document::parse(name, config_json)?;
        let config = document.to_json();
        match SingleRun::of_document(document, None, strict).and_then(|single| single.check().map(|()| single)) {
            Ok(single) => Ok(Ok(json!({ "config": single.config.document, "warnings": single.warnings }).to_string())),
            Err(error) => match unknown_strategy(&config, strict) {
                Some(unknown) => Ok(Err(unknown)),
                None => Err(error),
            },
        }
    })?;
    match outcome {
        Ok(outcome) => outcome,
        Err(error) => refused(&error).map(|document| document.to_string()),
    }
}

/// Writes the four artefacts of a success document (JSON text) as `folder`.
#[pyfunction]
pub(crate) fn write_result(py: Python<'_>, result_json: &str, folder: PathBuf) -> PyResult<()> {
    let result: Value =
        serde_json::from_str(result_json).map_err(|error| bad_argument("result", format!("is no JSON: {error}")))?;
    refuse_foreign(&folder)?;
    detached(py, || write_artefacts(&folder, &result))?.map_err(|error| match error {
        io @ engine::backtest::artefact::ArtefactError::Io { .. } => {
            match refused(&CommandError::Replay(ReplayError::Artefact(io))) {
                Ok(document) => bad_argument("result", document),
                Err(error) => error,
            }
        }
        malformed => bad_argument("result", malformed),
    })
}

/// JSON schema of a run config.
#[pyfunction]
pub(crate) fn run_config_schema() -> &'static str {
    include_str!("../../schemas/run-config.json")
}

/// Every registered strategy with its parameters, as JSON text.
#[pyfunction]
pub(crate) fn strategies() -> String {
    Value::Array(engine::strategy::families().iter().map(|family| describe(*family)).collect()).to_string()
}
