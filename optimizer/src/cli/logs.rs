//! Structured logs of a run, under `logs/` in its folder: `run.log` for people, `run.jsonl` for machines
//! (metrics-and-outputs specification §9).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

const HUMAN: &str = "run.log";
const MACHINE: &str = "run.jsonl";

/// Starts logging into `folder`. Level INFO unless `RUST_LOG` says otherwise. Logs are a convenience: if a file cannot
/// be opened, the run goes on without it.
pub(super) fn start(folder: &Path) {
    let open = |name: &str| OpenOptions::new().create(true).append(true).open(folder.join(name)).ok();
    let (Some(human), Some(machine)) = (open(HUMAN), open(MACHINE)) else { return };
    subscribe(Mutex::<File>::new(human), Mutex::<File>::new(machine), "info");
}

/// Starts logging into memory: the folder of a single run appears only when it is complete. `level` holds unless
/// `RUST_LOG` says otherwise.
pub(super) fn start_in_memory(level: &str) -> InMemory {
    let logs = InMemory::default();
    subscribe(logs.human.clone(), logs.machine.clone(), level);
    logs
}

/// A panic of one trial becomes its row; its text belongs into the log and not over the progress line. Any other panic
/// is told by [`crate::cli::main`], which ends with it.
fn subscribe<H, M>(human: H, machine: M, level: &str)
where
    H: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    M: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // A second start in one process keeps the first subscriber.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(fmt::layer().with_ansi(false).with_writer(human))
        .with(fmt::layer().json().with_writer(machine))
        .try_init();
    std::panic::set_hook(Box::new(|info| tracing::error!("{info}")));
}

/// Log lines kept until there is a folder for them.
#[derive(Clone, Default)]
pub(super) struct InMemory {
    human: Buffer,
    machine: Buffer,
}

impl InMemory {
    /// Writes both files below `folder`.
    pub(super) fn write(&self, folder: &Path) {
        let bytes = |buffer: &Buffer| buffer.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // As above: logs are a convenience.
        let _ = std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(folder.join(HUMAN), bytes(&self.human)))
            .and_then(|()| std::fs::write(folder.join(MACHINE), lift_span_fields(&bytes(&self.machine))));
    }
}

/// Puts the fields of the run's span (run id, strategy, symbol, timeframe) on the top level of every line, where a
/// reader of JSON lines looks for them, instead of twice below `span` and `spans`.
fn lift_span_fields(lines: &[u8]) -> Vec<u8> {
    let mut lifted = Vec::with_capacity(lines.len());
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice::<Map<String, Value>>(line) {
            Ok(mut event) => {
                event.remove("spans");
                if let Some(Value::Object(mut span)) = event.remove("span") {
                    span.remove("name");
                    event.extend(span);
                }
                lifted.extend(Value::Object(event).to_string().into_bytes());
            }
            Err(_) => lifted.extend_from_slice(line),
        }
        lifted.push(b'\n');
    }
    lifted
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Buffer {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
