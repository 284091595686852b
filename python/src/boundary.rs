//! What crosses from Rust to Python when something goes wrong, and how a panic is kept from crossing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use engine::Error;
use engine::backtest::RunConfig;
use engine::backtest::artefact::ArtefactError;
use engine::backtest::result::{error_document, failure};
use engine::error::Category;
use optimizer::chunk::ChunkError;
use optimizer::diagnostic::{Diagnostic, Diagnostics};
use optimizer::driver::DriverError;
use optimizer::error::CommandError;
use optimizer::replay::ReplayError;
use optimizer::run_folder::FolderError;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use serde_json::{Value, json};

/// Works without the interpreter lock. A panic becomes `RuntimeError("internal error")`: PyO3's own exception for it is
/// no subclass of `Exception` and must not escape.
pub(crate) fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    quiet_panics();
    py.detach(|| catch_unwind(AssertUnwindSafe(work))).map_err(|_| internal_error())
}

/// Its text says nothing: what happened is in the log.
pub(crate) fn internal_error() -> PyErr {
    PyRuntimeError::new_err("internal error")
}

/// The text of a panic goes to the log and not over what Python prints.
pub(crate) fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|info| tracing::error!("{info}"))));
}

/// A call whose work succeeded or failed, as Python sees it: the text, the error document, or an exception.
pub(crate) fn told(outcome: Result<String, CommandError>) -> PyResult<String> {
    outcome.or_else(|error| refused(&error).map(|document| document.to_string()))
}

/// The error document of a failure inside a run; an exception for everything that is wrong before or around it.
pub(crate) fn refused(error: &CommandError) -> PyResult<Value> {
    match error {
        CommandError::Input(diagnostics) => Err(invalid(diagnostics)),
        CommandError::Engine(error) | CommandError::Replay(ReplayError::Engine(error)) => engine_error(error),
        CommandError::AllFailed { trials, code, reason } => {
            Ok(failure(code, Category::of_code(code), reason, json!({ "trials": trials })))
        }
        CommandError::Memory { .. } | CommandError::Driver(DriverError::Memory { .. }) => {
            Err(PyValueError::new_err(format!("E4002 memory: {}", with_hint(error))))
        }
        CommandError::File(_)
        | CommandError::Folder(FolderError::File(_))
        | CommandError::Driver(DriverError::File(_))
        | CommandError::Chunk(ChunkError::File(_))
        | CommandError::Replay(ReplayError::Artefact(ArtefactError::Io { .. })) => {
            Err(PyOSError::new_err(with_hint(error)))
        }
        CommandError::Leaderboard(inner) if inner.is_full() => Err(PyOSError::new_err(with_hint(error))),
        _ => Err(PyRuntimeError::new_err(with_hint(error))),
    }
}

/// What the engine says, by its category: an exception for configuration and panics, else the error document.
pub(crate) fn engine_error(error: &Error) -> PyResult<Value> {
    match error {
        Error::Internal(_) => Err(internal_error()),
        error if error.category() == Category::Config => {
            let hint = error.hint().map_or_else(String::new, |hint| format!(" ({hint})"));
            Err(PyValueError::new_err(format!("{} {error}{hint}", error.code())))
        }
        error => Ok(error_document(error)),
    }
}

fn with_hint(error: &CommandError) -> String {
    match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    }
}

/// `ValueError` with every fault on a line of its own, the first behind the code.
pub(crate) fn invalid(diagnostics: &Diagnostics) -> PyErr {
    let lines: Vec<String> = diagnostics.items.iter().map(fault).collect();
    PyValueError::new_err(format!("{} {}", Diagnostics::CODE, lines.join("\n")))
}

/// `path: rule (hint) [file:line:column]`; without the place where the text came from no file.
fn fault(item: &Diagnostic) -> String {
    let mut text = match item.path.as_str() {
        "" => item.message.clone(),
        path => format!("{path}: {}", item.message),
    };
    if let Some(hint) = &item.hint {
        text.push_str(&format!(" ({hint})"));
    }
    if let Some(span) = item.span.as_ref().filter(|span| !span.source.name.is_empty()) {
        text.push_str(&format!(" [{span}]"));
    }
    text
}

/// A faulty argument.
pub(crate) fn bad_argument(path: &str, reason: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(format!("{} {path}: {reason}", Diagnostics::CODE))
}

/// E4001, if the config is sound but its strategy unknown: commands tell that as a fault of the document.
pub(crate) fn unknown_strategy(config: &Value, strict: bool) -> Option<PyErr> {
    let parsed = RunConfig::parse(config, strict).ok()?;
    let error = engine::strategy::find(&parsed.config.strategy_name).err()?;
    engine_error(&error).err()
}

/// Panics behind the boundary: what a fault of the program looks like from outside. For tests.
#[pyfunction]
pub(crate) fn provoke_panic(py: Python<'_>) -> PyResult<()> {
    #[allow(clippy::panic, reason = "a panic is the purpose")]
    detached(py, || panic!("provoked"))
}
