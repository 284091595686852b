//! Structured logs of a run, under `logs/` in its folder: `run.log` for people, `run.jsonl` for machines.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

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
    subscribe(Mutex::<File>::new(human), Mutex::<File>::new(machine));
}

/// Starts logging into memory: the folder of a single run appears only when it is complete.
pub(super) fn start_in_memory() -> InMemory {
    let logs = InMemory::default();
    subscribe(logs.human.clone(), logs.machine.clone());
    logs
}

/// A panic of one trial becomes its row; its text belongs into the log and not over the progress line. Any other panic
/// is told by [`crate::cli::main`], which ends with it.
fn subscribe<H, M>(human: H, machine: M)
where
    H: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    M: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
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
        let write = |name: &str, buffer: &Buffer| {
            let bytes = buffer.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::fs::write(folder.join(name), &*bytes)
        };
        // As above: logs are a convenience.
        let _ = std::fs::create_dir_all(folder)
            .and_then(|()| write(HUMAN, &self.human))
            .and_then(|()| write(MACHINE, &self.machine));
    }
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
