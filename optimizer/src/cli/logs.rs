//! Structured logs of a run, under `logs/` in its folder: `run.log` for people, `run.jsonl` for machines.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging into `folder`. Level INFO unless `RUST_LOG` says otherwise. Logs are a convenience: if a file cannot
/// be opened, the run goes on without it.
pub(super) fn start(folder: &Path) {
    let open = |name: &str| OpenOptions::new().create(true).append(true).open(folder.join(name)).ok();
    let (Some(human), Some(machine)) = (open("run.log"), open("run.jsonl")) else { return };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let shared = |file: File| Mutex::new(file);
    // A second start in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(fmt::layer().with_ansi(false).with_writer(shared(human)))
        .with(fmt::layer().json().with_writer(shared(machine)))
        .try_init();
    // A panic of one trial becomes its row; its text belongs into the log and not over the progress line.
    std::panic::set_hook(Box::new(|info| tracing::error!("{info}")));
}
