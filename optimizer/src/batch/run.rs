//! A batch at work: each job in its turn, none of them able to stop another, until all are done or time is up.
//!
//! A job is an ordinary sweep or walk-forward in a run folder of its own below the batch's, so it continues by itself.
//! What a complete one came to is kept in `outcomes/`, with the digest of what decides its files: while that is the same,
//! the job is finished and a later night passes it by.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::Error;
use engine::backtest::Environment;
use engine::data::Sources;
use engine::metrics::{Metric, MetricValues};
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::atomic::{FileError, remove_leftovers, write_atomic};
use crate::batch::summary;
use crate::batch::{Job, Kind, Nightly};
use crate::chunk::ChunkPlan;
use crate::driver::End;
use crate::error::{CommandError, ExitCode, guarded};
use crate::fingerprint::hex;
use crate::leaderboard::{Summary, TopRow};
use crate::objective::{Gates, Objective, Verdict};
use crate::plan::memory::Ledger;
use crate::progress::{EventFile, Progress};
use crate::resume::present;
use crate::run_folder::{folder_name, remove_if_there, take_lock};
use crate::search::{counted, group};
use crate::space::Space;
use crate::sweep::{ENGINE_VERSION, Experiment, Options, Sweep, cap_of, fingerprint, lock_text};
use crate::walkforward::run::{Complete, Laid, WalkForwardRun};
use crate::walkforward::verdict::Figure;

/// Distance of looks at the stop flag while waiting.
const LOOK: Duration = Duration::from_millis(50);

/// What was typed, beside the batch file, once the file's limits are filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchOptions {
    /// What every job gets: assignments after its own, threads, memory; `out` is the root of the batch's folder.
    pub shared: Options,
    /// No wave of any job starts after this.
    pub deadline: Option<Timestamp>,
    /// No progress and no talk but failures.
    pub quiet: bool,
}

impl BatchOptions {
    /// Folder of the batch.
    pub fn folder(&self, nightly: &Nightly) -> PathBuf {
        let root = self.shared.out.clone().or_else(|| nightly.out.clone().map(PathBuf::from));
        root.unwrap_or_else(|| PathBuf::from("results")).join(&nightly.name)
    }
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Every chunk is there and the result is written.
    Done,
    /// Out of time or disk; the next start continues.
    Partial,
    /// Stopped from outside; the next start continues.
    Interrupted,
    /// Cannot be done, or not this time.
    Failed,
    /// Its turn has not come.
    Waiting,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Done, Self::Partial, Self::Interrupted, Self::Failed, Self::Waiting];

    /// Name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Partial => "partial",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
        }
    }
}

/// What is known of a job's run folder: a function of its finished rows, never of the clock or of interruptions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Name of the run folder.
    pub folder: String,
    /// Strategy searched.
    pub strategy: String,
    /// Symbol.
    pub symbol: String,
    /// Primary timeframe.
    pub timeframe: String,
    /// Trials, all of them.
    pub trials: u64,
    /// Trials per chunk.
    pub chunk_size: u64,
    /// Chunks, all of them.
    pub chunks: u64,
    /// Chunks that are there.
    pub chunks_finished: u64,
    /// Trials in them.
    pub trials_finished: u64,
    /// Rows by verdict, of a sweep that is complete or partly ranked.
    pub rows: Option<Rows>,
    /// Windows and checks, of a complete walk-forward.
    pub windows: Option<Windows>,
    /// The best setting of a sweep.
    pub best: Option<BestSetting>,
    /// Metrics of the best setting, or of the stitched tests of a walk-forward of one design.
    pub figures: Figures,
}

/// Rows of a leaderboard by verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Pass the gates.
    pub ok: u64,
    /// Fail one.
    pub gated: u64,
    /// Have no score.
    pub no_score: u64,
    /// Could not be evaluated.
    pub failed: u64,
    /// Distinct `rules_hash`: the number of tries for questions of luck.
    pub distinct_rules: u64,
}

/// Windows of a walk-forward and what its verdict says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// Windows of all designs.
    pub windows: u64,
    /// Windows in which a setting was chosen.
    pub chosen: u64,
    /// Conditions of the verdict, over all designs.
    pub checks: u64,
    /// Conditions that hold.
    pub checks_passed: u64,
}

/// First row of a leaderboard.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BestSetting {
    /// Trial number.
    pub trial: u64,
    /// SHA-256 of its resolved config, 64 hex digits.
    pub config_hash: String,
    /// Objective, unrounded.
    pub objective: Option<f64>,
    /// It passes the gates.
    pub passes: bool,
    /// Values of the axes that vary: `window_length 120, atr_mult 2.5`.
    pub setting: String,
}

/// The metrics a summary shows, unrounded; undefined is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named like the metrics")]
pub struct Figures {
    pub total_trades: Option<f64>,
    pub profit_net: Option<f64>,
    pub max_drawdown: Option<f64>,
    pub sharpe_equity_daily: Option<f64>,
}

impl Figures {
    fn of(values: &MetricValues) -> Self {
        Self {
            total_trades: values.get(Metric::TotalTrades),
            profit_net: values.get(Metric::ProfitNet),
            max_drawdown: values.get(Metric::MaxDrawdown),
            sharpe_equity_daily: values.get(Metric::SharpeEquityDaily),
        }
    }
}

impl Found {
    fn new(kind: Kind, experiment: &Experiment, folder: &Path) -> Self {
        let plan = experiment.chunks();
        let windows = match kind {
            Kind::Sweep => None,
            Kind::WalkForward => Some(Windows::default()),
        };
        let mut found = Self {
            folder: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            strategy: experiment.config.strategy_name.clone(),
            symbol: experiment.config.symbol.clone(),
            timeframe: experiment.config.primary.to_string(),
            trials: plan.total(),
            chunk_size: plan.size(),
            chunks: plan.count(),
            windows,
            ..Self::default()
        };
        found.count(folder);
        found
    }

    /// Counts the chunks that are there.
    fn count(&mut self, folder: &Path) {
        let plan = ChunkPlan::new(self.trials, Some(self.chunk_size));
        let chunks = present(&folder.join("chunks"), &plan);
        self.chunks_finished = chunks.len() as u64;
        self.trials_finished =
            chunks.iter().map(|chunk| plan.trials(*chunk)).map(|trials| trials.end - trials.start).sum();
    }

    /// True if no chunk is missing.
    pub fn is_whole(&self) -> bool {
        self.chunks_finished == self.chunks
    }

    fn add_rows(&mut self, summary: &Summary, space: &Space) {
        self.rows = Some(Rows {
            ok: summary.count(Verdict::Ok),
            gated: summary.count(Verdict::Gated),
            no_score: summary.count(Verdict::NoScore),
            failed: summary.count(Verdict::Failed),
            distinct_rules: summary.distinct_rules,
        });
        if let Some(row) = summary.top.first().filter(|row| row.objective.is_some()) {
            self.best = Some(best_setting(row, space));
            self.figures = Figures::of(&row.values);
        }
    }

    fn add_windows(&mut self, complete: &Complete) {
        let checks = complete.designs.iter().flat_map(|design| &design.checks);
        let chosen = complete.designs.iter().filter_map(|design| design.figures.get(Figure::Chosen)).sum::<f64>();
        self.windows = Some(Windows {
            windows: complete.designs.iter().map(|design| design.windows.len() as u64).sum(),
            chosen: chosen as u64,
            checks: checks.clone().count() as u64,
            checks_passed: checks.filter(|check| check.passed).count() as u64,
        });
        if let [design] = &complete.designs[..] {
            self.figures = Figures::of(&design.figures.metrics);
        }
    }
}

fn best_setting(row: &TopRow, space: &Space) -> BestSetting {
    let columns = space.columns().iter().zip(&row.params);
    let varying = columns.filter(|(column, _)| space.axes()[column.axis].len() > 1);
    let setting: Vec<String> = varying.map(|(column, value)| format!("{} {}", column.name, value.to_text())).collect();
    BestSetting {
        trial: row.trial,
        config_hash: hex(&row.config_hash),
        objective: row.objective,
        passes: row.verdict == Verdict::Ok,
        setting: setting.join(", "),
    }
}

/// How a job stands and how this start got there.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// How it stands.
    pub outcome: Outcome,
    /// What the process would end with if this were its only job; none while it waits.
    pub code: Option<ExitCode>,
    /// Why it failed or is not done.
    pub reason: Option<String>,
    /// A remedy.
    pub hint: Option<String>,
    /// What is known of its run folder; none if it could not be opened.
    pub found: Option<Found>,
    /// Tries of this start.
    pub tries: u32,
    /// It was finished before this start.
    pub before: bool,
    /// Trials evaluated by this start.
    pub evaluated: u64,
    /// Trials taken over from earlier runs by this start.
    pub reused: u64,
    /// Time this start spent on it.
    pub elapsed: Duration,
    /// What may change money or was left out.
    pub warnings: Vec<String>,
    /// A further try may succeed.
    again: bool,
}

impl Standing {
    fn new() -> Self {
        Self {
            outcome: Outcome::Waiting,
            code: None,
            reason: None,
            hint: None,
            found: None,
            tries: 0,
            before: false,
            evaluated: 0,
            reused: 0,
            elapsed: Duration::ZERO,
            warnings: Vec::new(),
            again: false,
        }
    }

    fn end(&mut self, outcome: Outcome, code: ExitCode) {
        (self.outcome, self.code) = (outcome, Some(code));
    }
}

/// A batch whose folder is owned, about to start.
pub struct Batch {
    nightly: Nightly,
    options: BatchOptions,
    folder: PathBuf,
    standings: Vec<Standing>,
    events: EventFile,
    started: Zoned,
    clock: Instant,
    /// Holds the kernel's lock; freed when the process dies, however it dies.
    _lock: File,
}

/// What a batch left behind.
pub struct Report {
    /// The jobs and how they stand, in the order of their turns.
    pub jobs: Vec<(Job, Standing)>,
    /// Folder of the batch.
    pub folder: PathBuf,
    /// What the process ends with.
    pub code: ExitCode,
    /// How the batch ended.
    pub end: End,
    /// When it started.
    pub started: Zoned,
    /// How long it took.
    pub elapsed: Duration,
    /// The instant after which no wave started.
    pub deadline: Option<Timestamp>,
    /// Name of the batch.
    pub name: String,
}

impl Batch {
    /// Opens the batch's folder, takes its lock and writes the first summary, in which every job waits.
    ///
    /// # Errors
    /// Another process at work in the folder, or one that takes no files.
    pub fn open(nightly: Nightly, options: BatchOptions) -> Result<Self, CommandError> {
        let folder = options.folder(&nightly);
        for dir in [folder.join("logs"), folder.join("outcomes")] {
            fs::create_dir_all(&dir).map_err(|e| FileError::io(&dir, "create it", e))?;
        }
        let lock = take_lock(&folder)?;
        remove_leftovers(&folder)?;
        remove_leftovers(&folder.join("outcomes"))?;
        let path = folder.join("events.jsonl");
        let events = EventFile::open(&path).map_err(|e| FileError::io(path, "open it", e))?;
        let standings = nightly.jobs.iter().map(|_| Standing::new()).collect();
        let zone = nightly.limits.zone.clone();
        let now = Zoned::now();
        let started = zone.map_or_else(|| now.clone(), |zone| now.with_time_zone(zone));
        let batch = Self { nightly, options, folder, standings, events, started, clock: Instant::now(), _lock: lock };
        batch.write_summary(None)?;
        Ok(batch)
    }

    /// Folder of the batch.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Gives every job its turn, and those whose failure may pass another one, until all are done, `stop` is set or the
    /// deadline has passed. `say` tells people what happens.
    ///
    /// # Errors
    /// The summary cannot be written. A job that fails is no error.
    pub fn run(mut self, sources: &Sources, stop: &AtomicBool, say: &dyn Fn(&str)) -> Result<Report, CommandError> {
        let deadline = self.options.deadline.map(|deadline| deadline.to_string());
        self.events.write("batch_start", json!({ "jobs": self.nightly.jobs.len(), "deadline": deadline }));
        let end = self.work_off(sources, stop, say);
        self.events.write(
            "batch_end",
            json!({
                "end": format!("{end:?}"),
                "exit_code": self.code(Some(end)) as u8,
                "seconds": self.clock.elapsed().as_secs_f64(),
            }),
        );
        self.write_summary(Some(end))?;
        Ok(self.report(end))
    }

    fn work_off(&mut self, sources: &Sources, stop: &AtomicBool, say: &dyn Fn(&str)) -> End {
        let mut turns: Vec<usize> = (0..self.nightly.jobs.len()).collect();
        loop {
            for at in turns {
                if let Some(end) = self.cut(stop) {
                    return end;
                }
                self.take_turn(at, sources, stop, say);
                if self.standings[at].before {
                    continue;
                }
                // The job's own files are safe; a summary that does not fit now may fit at the end, where it is an error.
                if let Err(error) = self.write_summary(None) {
                    say(&format!("warning: the summary cannot be written: {error}"));
                }
            }
            let again = |(job, standing): &(&Job, &Standing)| standing.again && standing.tries <= job.retries;
            let waiting = self.nightly.jobs.iter().zip(&self.standings).enumerate();
            turns = waiting.filter(|(_, pair)| again(pair)).map(|(at, _)| at).collect();
            if turns.is_empty() {
                // The last job may have been cut short: that is how the batch ends, too.
                return self.cut(stop).filter(|_| !self.is_done()).unwrap_or(End::Complete);
            }
            if !self.options.quiet {
                let wait = crate::progress::show_seconds(self.nightly.retry_wait.as_secs_f64());
                say(&format!("{} to be tried again in {wait}", counted(turns.len() as u128, "job")));
            }
            if let Some(end) = self.wait(stop) {
                return end;
            }
        }
    }

    fn is_done(&self) -> bool {
        self.standings.iter().all(|standing| matches!(standing.outcome, Outcome::Done | Outcome::Failed))
    }

    /// Why no further turn begins.
    fn cut(&self, stop: &AtomicBool) -> Option<End> {
        if stop.load(Ordering::SeqCst) {
            return Some(End::Interrupted);
        }
        self.left().filter(Duration::is_zero).map(|_| End::Deadline)
    }

    /// Time to the deadline by the clock on the wall, which a sleeping machine does not stop; none without one.
    fn left(&self) -> Option<Duration> {
        let deadline = self.options.deadline?;
        Some(Duration::try_from(Timestamp::now().duration_until(deadline)).unwrap_or_default())
    }

    /// Waits before the next round of tries.
    fn wait(&self, stop: &AtomicBool) -> Option<End> {
        let start = Instant::now();
        while start.elapsed() < self.nightly.retry_wait {
            if let Some(end) = self.cut(stop) {
                return Some(end);
            }
            std::thread::sleep(LOOK.min(self.nightly.retry_wait));
        }
        self.cut(stop)
    }

    /// One try of a job; whatever happens in it, even a panic, ends the job alone.
    fn take_turn(&mut self, at: usize, sources: &Sources, stop: &AtomicBool, say: &dyn Fn(&str)) {
        let job = &self.nightly.jobs[at];
        let before = &self.standings[at];
        let mut standing = Standing { tries: before.tries + 1, found: before.found.clone(), ..Standing::new() };
        let started = Instant::now();
        let talk = |text: &str| say(&format!("[{}/{}] {}: {text}", at + 1, self.nightly.jobs.len(), job.name));
        self.events.write("job_start", json!({ "job": job.name, "try": standing.tries }));
        tracing::info!(job = job.name, attempt = standing.tries, "job starts");
        let tried = guarded(|| self.attempt(job, &mut standing, sources, stop, &talk));
        if let Err(error) = tried {
            self.note_failure(&mut standing, &error);
        }
        standing.elapsed = before.elapsed + started.elapsed();
        standing.evaluated += before.evaluated;
        standing.reused += before.reused;
        let code = standing.code.map(|code| code as u8);
        let (outcome, reason) = (standing.outcome, standing.reason.clone());
        self.events.write(
            "job_end",
            json!({
                "job": job.name,
                "try": standing.tries,
                "outcome": outcome.as_str(),
                "exit_code": code,
                "before": standing.before,
                "evaluated": standing.evaluated,
                "reused": standing.reused,
                "seconds": started.elapsed().as_secs_f64(),
                "folder": standing.found.as_ref().map(|found| &found.folder),
                "reason": reason,
            }),
        );
        tracing::info!(job = job.name, code, outcome = outcome.as_str(), reason, "job ends");
        if outcome == Outcome::Failed || !self.options.quiet {
            talk(&told(&standing));
        }
        self.standings[at] = standing;
    }

    fn note_failure(&self, standing: &mut Standing, error: &CommandError) {
        let outcome = if error.is_full() { Outcome::Partial } else { Outcome::Failed };
        standing.end(outcome, error.exit_code());
        standing.reason = Some(match error {
            CommandError::Engine(error) => format!("{} {error}", error.code()),
            other => other.to_string(),
        });
        standing.hint = error.hint();
        standing.again = error.may_pass_later() && !error.is_full();
        if let Some(found) = &mut standing.found {
            let before = found.trials_finished;
            found.count(&self.folder.join(&found.folder));
            standing.evaluated = found.trials_finished.saturating_sub(before + standing.reused);
        }
    }

    fn attempt(
        &self,
        job: &Job,
        standing: &mut Standing,
        sources: &Sources,
        stop: &AtomicBool,
        say: &dyn Fn(&str),
    ) -> Result<(), CommandError> {
        let experiment = experiment(job, &self.options.shared)?;
        let options = self.options_of(standing.tries);
        match job.kind {
            Kind::Sweep => {
                let run = Sweep::open(experiment, &options, sources)?;
                let opened = Opened::new(job, run.experiment(), run.folder().path(), run.cached(), run.ledger());
                standing.warnings = run.warnings();
                self.go(job, opened, standing, stop, say, run)
            }
            Kind::WalkForward => {
                let run = WalkForwardRun::open(experiment, &options, sources)?;
                let opened = Opened::new(job, run.experiment(), run.folder().path(), run.cached(), run.ledger());
                standing.warnings = run.warnings();
                self.go(job, opened, standing, stop, say, run)
            }
        }
    }

    /// Options of a job. What a failed try has finished is dropped by no further one.
    fn options_of(&self, tries: u32) -> Options {
        let shared = &self.options.shared;
        Options { out: Some(self.folder.clone()), fresh: shared.fresh && tries == 1, ..shared.clone() }
    }

    /// Runs what is opened, unless it was finished before.
    fn go<R: Runs>(
        &self,
        job: &Job,
        opened: Opened,
        standing: &mut Standing,
        stop: &AtomicBool,
        say: &dyn Fn(&str),
        run: R,
    ) -> Result<(), CommandError> {
        let Opened { identity, folder, mut found, cached, objective, gates, own_limit, ledger } = opened;
        standing.found = Some(found.clone());
        if found.is_whole()
            && let Some((code, found)) = kept(&self.folder, job, &identity, &folder)
        {
            standing.before = true;
            standing.found = Some(found);
            standing.end(Outcome::Done, code);
            return Ok(());
        }
        if !self.options.quiet {
            say(&describe(&found, cached));
            standing.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
        }
        // From here on the result changes: what it was says nothing any more.
        remove_if_there(outcome_file(&self.folder, job))?;
        let events = folder.join("events.jsonl");
        let progress = Progress::new(found.trials, cached, objective, gates, ledger, &events, self.options.quiet)
            .map_err(|e| FileError::io(events, "open it", e))?;
        let threads = self.options.shared.threads;
        progress.event("start", json!({ "trials": found.trials, "cached": cached, "threads": threads }));
        let left = self.left();
        let ran = std::thread::scope(|scope| {
            scope.spawn(|| progress.show(stop));
            // The line must end also when the job panics: the scope waits for it.
            let ran = guarded(|| run.evaluate(left, stop, &progress));
            progress.finish();
            ran
        });
        standing.reused = progress.taken_over();
        let ended = ran.inspect_err(|error| progress.event("error", json!({ "message": error.to_string() })))?;
        progress.event("end", json!({ "end": format!("{:?}", ended.end), "seconds": ended.elapsed.as_secs_f64() }));
        found.count(&folder);
        (ended.add)(&mut found);
        standing.evaluated = found.trials_finished.saturating_sub(cached + standing.reused);
        match ended.end {
            End::Complete => {
                self.keep(job, &identity, ended.code, &found)?;
                standing.end(Outcome::Done, ended.code);
            }
            End::Deadline => {
                let own = own_limit.is_some_and(|own| left.is_none_or(|left| own < left));
                standing.reason =
                    Some(format!("stopped by {}", if own { "its own time limit" } else { "the deadline" }));
                standing.end(Outcome::Partial, ended.code);
            }
            End::Interrupted => standing.end(Outcome::Interrupted, ended.code),
        }
        standing.found = Some(found);
        Ok(())
    }

    /// Remembers what a complete job came to.
    fn keep(&self, job: &Job, identity: &str, code: ExitCode, found: &Found) -> Result<(), CommandError> {
        let kept =
            Kept { format_version: 1, identity: identity.to_owned(), exit_code: code as u8, found: found.clone() };
        let text = serde_json::to_string_pretty(&kept).map_err(|e| Error::Internal(e.to_string()))?;
        Ok(write_atomic(outcome_file(&self.folder, job), |file| file.write_all(format!("{text}\n").as_bytes()))?)
    }

    /// The code of the batch as it stands.
    fn code(&self, end: Option<End>) -> ExitCode {
        let ended = end.and_then(|end| match end {
            End::Complete => None,
            End::Interrupted => Some(ExitCode::Interrupted),
            End::Deadline => Some(ExitCode::Limit),
        });
        ExitCode::of_all(self.standings.iter().filter_map(|standing| standing.code).chain(ended))
    }

    /// Writes the table and the page; `end` is none while jobs are still to come.
    fn write_summary(&self, end: Option<End>) -> Result<(), CommandError> {
        let pairs: Vec<(&Job, &Standing)> = self.nightly.jobs.iter().zip(&self.standings).collect();
        summary::write_tables(&self.folder, &pairs)?;
        let page = summary::page(&summary::Night {
            name: &self.nightly.name,
            folder: &self.folder,
            jobs: &pairs,
            end,
            code: self.code(end),
            started: &self.started,
            elapsed: self.clock.elapsed(),
            deadline: self.options.deadline,
        });
        Ok(write_atomic(self.folder.join("batch.md"), |file| file.write_all(page.as_bytes()))?)
    }

    fn report(self, end: End) -> Report {
        let code = self.code(Some(end));
        Report {
            jobs: self.nightly.jobs.into_iter().zip(self.standings).collect(),
            folder: self.folder,
            code,
            end,
            started: self.started,
            elapsed: self.clock.elapsed(),
            deadline: self.options.deadline,
            name: self.nightly.name,
        }
    }
}

/// What a complete job came to, as `outcomes/<job>.json` keeps it.
#[derive(Serialize, Deserialize)]
struct Kept {
    format_version: u32,
    /// Of what decides the files of the run folder.
    identity: String,
    exit_code: u8,
    found: Found,
}

fn outcome_file(batch: &Path, job: &Job) -> PathBuf {
    batch.join("outcomes").join(format!("{}.json", job.name))
}

/// What a job came to when it was complete, if it is the same job and its files are still there. A file that cannot be read
/// is as good as none: the rows are ranked anew.
fn kept(batch: &Path, job: &Job, identity: &str, folder: &Path) -> Option<(ExitCode, Found)> {
    let kept: Kept = serde_json::from_slice(&fs::read(outcome_file(batch, job)).ok()?).ok()?;
    let results: &[&str] = match job.kind {
        Kind::Sweep => &["manifest.json", "leaderboard.parquet", "leaderboard.csv"],
        Kind::WalkForward => &["manifest.json", "summary.json", "windows.parquet", "windows.csv"],
    };
    let same = kept.identity == identity && results.iter().all(|name| folder.join(name).is_file());
    Some((ExitCode::of_number(kept.exit_code).filter(|_| same)?, kept.found))
}

/// Digest of everything that decides the files of a run folder: those that decide its rows are in its name, objective,
/// gates and output in the text of its lock file.
fn identity(kind: Kind, experiment: &Experiment, folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let lock = lock_text(experiment, &experiment.chunks(), None);
    hex(&Sha256::digest(format!("{}\n{name}\n{ENGINE_VERSION}\n{lock}", kind.as_str())))
}

/// The grid of a job under the name of the job, with its own assignments and those for all jobs.
fn experiment(job: &Job, shared: &Options) -> Result<Experiment, CommandError> {
    let set: Vec<String> = job.set.iter().chain(&shared.set).cloned().collect();
    let mut experiment = Experiment::read(&job.grid, &set)?;
    experiment.grid.name.clone_from(&job.name);
    Ok(experiment)
}

/// A job whose folder is open.
struct Opened {
    identity: String,
    folder: PathBuf,
    found: Found,
    cached: u64,
    objective: Objective,
    gates: Gates,
    /// Time the grid allows.
    own_limit: Option<Duration>,
    ledger: Ledger,
}

impl Opened {
    fn new(job: &Job, experiment: &Experiment, folder: &Path, cached: u64, ledger: &Ledger) -> Self {
        Self {
            identity: identity(job.kind, experiment, folder),
            folder: folder.to_owned(),
            found: Found::new(job.kind, experiment, folder),
            cached,
            objective: experiment.grid.objective.clone(),
            gates: experiment.grid.gates.clone(),
            own_limit: experiment.grid.limits.time,
            ledger: ledger.clone(),
        }
    }
}

/// What both kinds of run have in common.
trait Runs {
    /// Evaluates what is missing; no wave starts later than `left` from now.
    fn evaluate(self, left: Option<Duration>, stop: &AtomicBool, progress: &Progress) -> Result<Ended, CommandError>;
}

/// How a run ended.
struct Ended {
    end: End,
    code: ExitCode,
    elapsed: Duration,
    /// Adds what it came to.
    add: Box<dyn FnOnce(&mut Found) + Send>,
}

impl Runs for Sweep {
    fn evaluate(
        mut self,
        left: Option<Duration>,
        stop: &AtomicBool,
        progress: &Progress,
    ) -> Result<Ended, CommandError> {
        left.into_iter().for_each(|left| self.limit_time(left));
        let space = Arc::clone(self.experiment().trials.space());
        let report = self.run(stop, progress)?;
        let (end, code, elapsed) = (report.end, report.exit_code(), report.elapsed);
        let summary = report.ranked.map(|ranked| ranked.summary).or(report.partial.map(|partial| partial.summary));
        let add = move |found: &mut Found| summary.iter().for_each(|summary| found.add_rows(summary, &space));
        Ok(Ended { end, code, elapsed, add: Box::new(add) })
    }
}

impl Runs for WalkForwardRun {
    fn evaluate(
        mut self,
        left: Option<Duration>,
        stop: &AtomicBool,
        progress: &Progress,
    ) -> Result<Ended, CommandError> {
        left.into_iter().for_each(|left| self.limit_time(left));
        let report = self.run(stop, progress)?;
        let (end, code, elapsed) = (report.end, report.exit_code(), report.elapsed);
        let add = move |found: &mut Found| report.result.iter().for_each(|complete| found.add_windows(complete));
        Ok(Ended { end, code, elapsed, add: Box::new(add) })
    }
}

fn describe(found: &Found, cached: u64) -> String {
    let kept = if cached > 0 { format!(", {} finished before", group(cached.into())) } else { String::new() };
    format!("{} of {} on {} {}{kept}", counted(found.trials, "setting"), found.strategy, found.symbol, found.timeframe)
}

/// How a turn ended, in a line.
fn told(standing: &Standing) -> String {
    let found = standing.found.clone().unwrap_or_default();
    let progress = || format!("{} of {} settings", group(found.trials_finished.into()), group(found.trials.into()));
    let code = standing.code.map_or(0, |code| code as u8);
    let reason = standing.reason.as_deref().unwrap_or_default();
    match standing.outcome {
        Outcome::Done if standing.before => "finished before".to_owned(),
        Outcome::Done => match (&found.rows, &found.windows) {
            (Some(rows), _) => {
                format!("done, {} of {} settings pass", group(rows.ok.into()), group(found.trials.into()))
            }
            (None, Some(windows)) => format!(
                "done, {} of {} windows with a choice, {} of {} checks pass",
                windows.chosen, windows.windows, windows.checks_passed, windows.checks
            ),
            (None, None) => "done".to_owned(),
        },
        Outcome::Partial => format!("{}: {reason}", progress()),
        Outcome::Interrupted => format!("{}: interrupted", progress()),
        Outcome::Failed => format!("failed (exit code {code}): {reason}"),
        Outcome::Waiting => "waiting".to_owned(),
    }
}

/// What a job would do.
#[derive(Debug)]
pub struct Prospect {
    /// What is known of its run folder.
    pub found: Found,
    /// It is finished: its turn would change nothing.
    pub finished: bool,
}

impl Prospect {
    /// Looks at a job without running it: reads its grid, loads its bars, counts the chunks in its run folder. Writes
    /// nothing but the cache of bars.
    ///
    /// # Errors
    /// Whatever its turn would fail with before work starts.
    pub fn look(job: &Job, nightly: &Nightly, options: &BatchOptions, sources: &Sources) -> Result<Self, CommandError> {
        guarded(|| {
            let experiment = experiment(job, &options.shared)?;
            let (experiment, fingerprint) = match job.kind {
                Kind::Sweep => {
                    let ledger = Arc::new(Ledger::within(cap_of(&experiment, &options.shared)));
                    let environment = Environment::open(&experiment.config, &experiment.timeframes, sources, ledger)?;
                    let fingerprint = fingerprint(&experiment, &environment);
                    (experiment, fingerprint)
                }
                Kind::WalkForward => {
                    let laid = Laid::new(experiment, &options.shared, sources)?;
                    (laid.experiment, laid.fingerprint)
                }
            };
            let batch = options.folder(nightly);
            let folder = batch.join(folder_name(&experiment.grid.name, &fingerprint.hash8())?);
            let mut found = Found::new(job.kind, &experiment, &folder);
            if options.shared.fresh {
                (found.chunks_finished, found.trials_finished) = (0, 0);
            }
            let identity = identity(job.kind, &experiment, &folder);
            let finished = found.is_whole() && kept(&batch, job, &identity, &folder).is_some();
            Ok(Self { found, finished })
        })
    }

    /// `new`, `continue`, `rank` (all chunks are there, the result is not) or `finished`.
    pub fn as_str(&self) -> &'static str {
        match self.found.chunks_finished {
            _ if self.finished => "finished",
            0 => "new",
            _ if self.found.is_whole() => "rank",
            _ => "continue",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_the_job_alone() {
        let error = guarded(|| -> Result<(), CommandError> { panic!("index {} of nothing", 3) }).unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.exit_code()),
            ("internal error: index 3 of nothing", ExitCode::Internal)
        );
        assert!(error.may_pass_later());
    }

    #[test]
    fn what_a_job_came_to_is_read_back_to_the_bit() {
        let best = BestSetting { objective: Some(0.1 + 0.2), config_hash: "ab".to_owned(), ..BestSetting::default() };
        let figures = Figures { profit_net: Some(-1e-300), ..Figures::default() };
        let found = Found { trials: u64::MAX, best: Some(best), figures, ..Found::default() };
        let text = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Found>(&text).unwrap(), found);
    }
}
