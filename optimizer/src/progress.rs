//! What a person sees of a running sweep: one line on a terminal, plain lines elsewhere, and the event file.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::atomic::waited_for_disk;
use crate::driver::{Observer, Phase};
use crate::objective::{Gates, Goal, Objective};
use crate::plan::memory::{Ledger, show_bytes};
use crate::replay::now_ns;
use crate::row::Outcome;

/// Redraw on a terminal.
const REDRAW: Duration = Duration::from_millis(200);
/// Distance of plain lines.
const PLAIN: Duration = Duration::from_secs(10);

/// A file of JSON lines, one per event, each with the time of the clock. It is for people and their tools: a line that
/// cannot be written is lost.
pub struct EventFile(Mutex<File>);

impl EventFile {
    /// Opens a file for more lines.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Mutex::new(OpenOptions::new().create(true).append(true).open(path)?)))
    }

    /// Appends an event: `time_ns`, `event` and the fields.
    pub fn write(&self, kind: &str, fields: Value) {
        let mut line = json!({ "time_ns": now_ns(), "event": kind });
        if let (Value::Object(line), Value::Object(fields)) = (&mut line, fields) {
            line.extend(fields);
        }
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One write, so that a kill leaves no half line for the next start to go on with. A full disk shows at the next
        // chunk, which matters.
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}

/// Follows a sweep and shows it.
pub struct Progress {
    total: u64,
    cached: u64,
    done: AtomicU64,
    failed: AtomicU64,
    reused: AtomicU64,
    best: Mutex<Option<f64>>,
    objective: Objective,
    gates: Gates,
    ledger: Ledger,
    started: Instant,
    waited: Duration,
    phases: Mutex<BTreeMap<Phase, Duration>>,
    events: EventFile,
    finished: AtomicBool,
    wake: (Mutex<()>, Condvar),
    bar: Option<ProgressBar>,
    quiet: bool,
}

impl Progress {
    /// For a sweep of `total` trials, `cached` of them finished before. Events are appended to `events`.
    ///
    /// # Errors
    /// The event file cannot be opened.
    pub fn new(
        total: u64,
        cached: u64,
        objective: Objective,
        gates: Gates,
        ledger: Ledger,
        events: &Path,
        quiet: bool,
    ) -> io::Result<Self> {
        let events = EventFile::open(events)?;
        let bar = (!quiet && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg}") {
                bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
            }
            bar.set_position(cached);
            bar
        });
        Ok(Self {
            total,
            cached,
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            reused: AtomicU64::new(0),
            best: Mutex::new(None),
            objective,
            gates,
            ledger,
            started: Instant::now(),
            waited: waited_for_disk(),
            phases: Mutex::default(),
            events,
            finished: AtomicBool::new(false),
            wake: (Mutex::new(()), Condvar::new()),
            bar,
            quiet,
        })
    }

    /// Shows the line until [`Progress::finish`], and says so once when `stop` is set; to be run on a thread of its own.
    pub fn show(&self, stop: &AtomicBool) {
        let pause = if self.bar.is_some() { REDRAW } else { PLAIN };
        let mut drawn = Instant::now();
        let mut told = false;
        let mut guard = self.wake.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let ended = self.finished.load(Ordering::SeqCst);
            // Also at the end: a short wave may be over before the next look.
            if !told && stop.load(Ordering::SeqCst) {
                told = true;
                self.say("stopping after the running wave (at most about 30 s); again to stop at once");
            }
            if ended {
                return;
            }
            if drawn.elapsed() >= pause {
                drawn = Instant::now();
                self.draw();
            }
            guard = self.wake.1.wait_timeout(guard, REDRAW).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Trials taken over from earlier runs so far.
    pub fn taken_over(&self) -> u64 {
        self.reused.load(Ordering::Relaxed)
    }

    /// Ends [`Progress::show`] and clears the line.
    pub fn finish(&self) {
        self.finished.store(true, Ordering::SeqCst);
        let _guard = self.wake.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.wake.1.notify_all();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// A line for people while the progress line stands.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| write_line(text)),
            None => write_line(text),
        }
    }

    /// Appends an event with the time of the clock.
    pub fn event(&self, kind: &str, fields: Value) {
        self.events.write(kind, fields);
    }

    /// Seconds per phase, threads added up, and of waiting for the disk (which chunk files and ranking contain).
    pub fn times(&self) -> Value {
        let phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e6;
        let mut times: serde_json::Map<String, Value> =
            phases.iter().map(|(phase, time)| (phase.as_str().to_owned(), json!(seconds(*time)))).collect();
        let waited = waited_for_disk().saturating_sub(self.waited);
        times.insert("waiting_for_disk".to_owned(), json!(seconds(waited)));
        Value::Object(times)
    }

    fn draw(&self) {
        if self.quiet {
            return;
        }
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.cached + self.done.load(Ordering::Relaxed));
                bar.set_message(self.line());
            }
            None => write_line(&self.line()),
        }
    }

    fn line(&self) -> String {
        let done = self.done.load(Ordering::Relaxed);
        let failed = self.failed.load(Ordering::Relaxed);
        let elapsed = self.started.elapsed().as_secs_f64();
        let rate = if elapsed > 0.0 { done as f64 / elapsed } else { 0.0 };
        let left = self.total.saturating_sub(self.cached + done);
        let eta = if left == 0 {
            "0 s, ranking".to_owned()
        } else if rate > 0.0 {
            show_seconds(left as f64 / rate)
        } else {
            "–".to_owned()
        };
        let best =
            self.best.lock().unwrap_or_else(PoisonError::into_inner).map_or("–".to_owned(), |x| format!("{x:.4}"));
        format!(
            "{}/{} · {} cached · {failed} failed · {}/s · ETA {eta} · best {best} · {}",
            self.cached + done,
            self.total,
            self.cached,
            show_rate(rate),
            show_bytes(self.ledger.used()),
        )
    }
}

fn write_line(text: &str) {
    // Standard error closed by the reader is no reason to stop a night's work.
    let _ = writeln!(io::stderr(), "{text}");
}

impl Observer for Progress {
    fn wave(&self, chunks: &[u64], trials: u64) {
        self.event("wave", json!({ "first_chunk": chunks.first(), "chunks": chunks.len(), "trials": trials }));
        tracing::info!(chunks = chunks.len(), trials, "wave");
    }

    fn evaluated(&self, outcome: &Outcome, sharing: u64) {
        self.done.fetch_add(sharing, Ordering::Relaxed);
        match outcome {
            Outcome::Failed { code, reason } => {
                self.failed.fetch_add(sharing, Ordering::Relaxed);
                tracing::debug!(code, reason, sharing, "trial failed");
            }
            Outcome::Done { values, .. } => {
                let Some(score) = self.objective.score(values) else { return };
                if self.gates.first_failed(values).is_some() {
                    return;
                }
                let mut best = self.best.lock().unwrap_or_else(PoisonError::into_inner);
                let better = |old: f64| match self.objective.goal {
                    Goal::Maximize => score > old,
                    Goal::Minimize => score < old,
                };
                if best.is_none_or(better) {
                    *best = Some(score);
                }
            }
        }
    }

    fn reused(&self, trials: u64) {
        self.reused.fetch_add(trials, Ordering::Relaxed);
        self.event("reused", json!({ "trials": trials }));
        tracing::info!(trials, "reused");
    }

    fn took(&self, phase: Phase, time: Duration) {
        *self.phases.lock().unwrap_or_else(PoisonError::into_inner).entry(phase).or_default() += time;
    }

    fn committed(&self, index: u64, rows: u64) {
        self.event("chunk", json!({ "chunk": index, "rows": rows }));
    }
}

/// `0.4 s`, `95 s`, `12 min`, `3 h 20 min`.
pub fn show_seconds(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 5970.0 => format!("{:.0} min", s / 60.0),
        s => format!("{} h {:02} min", (s / 3600.0) as u64, (s % 3600.0 / 60.0) as u64),
    }
}

/// Trials per second with as many digits as mean something.
pub fn show_rate(rate: f64) -> String {
    match rate {
        r if r < 10.0 => format!("{r:.2}"),
        r if r < 1000.0 => format!("{r:.0}"),
        r => crate::search::group(r as u128),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_read_well() {
        assert_eq!(show_seconds(12.4), "12 s");
        assert_eq!(show_seconds(720.0), "12 min");
        assert_eq!(show_seconds(12_000.0), "3 h 20 min");
        assert_eq!(show_rate(1234567.8), "1,234,567");
        assert_eq!(show_rate(2.5), "2.50");
    }
}
