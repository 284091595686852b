//! The command line, one file per command.

pub mod batch;
pub mod data;
mod import;
mod logs;
pub mod merge;
pub mod plan;
pub mod rows;
pub mod run;
pub mod strategies;
pub mod sweep;
pub mod walkforward;

use std::fmt;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::error::{CommandError, ExitCode, panic_text};
use crate::plan::memory::parse_bytes;
use crate::shard::{BadShard, Shard};
use crate::sweep::usage;

/// Find out which settings of a trading strategy deserve belief.
///
/// Exit codes: 0 done, 1 internal error, 2 usage or config, 3 data, 4 finished with failed trials, 5 nothing passed
/// the gates, 6 a recomputed row differs, 7 limit, deadline or full disk (resumable), 130 interrupted (resumable).
#[derive(Debug, Parser)]
#[command(name = "omega-opt", version = crate::sweep::ENGINE_VERSION, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Evaluate every setting of a grid file and rank them.
    Sweep(sweep::SweepArgs),
    /// Tell what a sweep will do and take, and run nothing.
    Plan(plan::PlanArgs),
    /// Choose on the past, judge on the unseen, window by window.
    Walkforward(walkforward::WalkForwardArgs),
    /// Unite the shards of a sweep or walk-forward into its result.
    Merge(merge::MergeArgs),
    Batch(batch::BatchArgs),
    /// Run one backtest and write its artefacts.
    Run(run::RunArgs),
    /// Show one row of a run folder: its setting and every metric.
    Show(rows::ShowArgs),
    /// Walk one row again and write its four artefacts.
    Replay(rows::ReplayArgs),
    /// Recompute rows and compare every bit.
    Verify(rows::VerifyArgs),
    /// Write the run config of one row.
    Export(rows::ExportArgs),
    /// Judge, describe, import or generate bars.
    Data(data::DataArgs),
    /// List strategies and their parameters.
    Strategies(strategies::StrategiesArgs),
}

/// Runs what was typed and returns the exit code; errors are told on stderr.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap prints them to stdout.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::Usage } else { ExitCode::Done };
        }
    };
    let result = catch_unwind(AssertUnwindSafe(|| match cli.command {
        Command::Sweep(args) => sweep::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Walkforward(args) => walkforward::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Batch(args) => batch::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Show(args) => rows::show(&args),
        Command::Replay(args) => rows::replay_row(&args),
        Command::Verify(args) => rows::verify(&args),
        Command::Export(args) => rows::export(&args),
        Command::Data(args) => data::run(args).map(|()| ExitCode::Done).map_err(command_error),
        Command::Strategies(args) => strategies::run(&args),
    }));
    let result = result.unwrap_or_else(|payload| Err(engine::Error::Internal(panic_text(payload.as_ref())).into()));
    result.unwrap_or_else(|error| {
        tell(&error);
        error.exit_code()
    })
}

fn command_error(error: anyhow::Error) -> CommandError {
    match error.downcast::<engine::Error>() {
        Ok(error) => error.into(),
        Err(error) => usage("", format!("{error:#}"), ""),
    }
}

fn tell(error: &CommandError) {
    let mut text = match error {
        CommandError::Input(diagnostics) => diagnostics.render_for_stderr(),
        CommandError::Engine(error) => format!("error[{}]: {error}\n", error.code()),
        other => format!("error: {other}\n"),
    };
    if let Some(hint) = error.hint() {
        text.push_str(&format!("help: {hint}\n"));
    }
    let _ = io::stderr().write_all(text.as_bytes());
}

/// `--threads`, else `RAYON_NUM_THREADS`, else all cores.
///
/// # Errors
/// Zero threads.
pub fn threads(typed: Option<usize>) -> Result<usize, CommandError> {
    if typed == Some(0) {
        return Err(usage("--threads", "must be >= 1, got 0", "leave it out to use all cores"));
    }
    let from_env = || std::env::var("RAYON_NUM_THREADS").ok()?.trim().parse().ok().filter(|n| *n > 0);
    let all = || std::thread::available_parallelism().map_or(1, Into::into);
    Ok(typed.or_else(from_env).unwrap_or_else(all))
}

/// Bytes of `--memory`.
///
/// # Errors
/// A text that is no amount.
fn memory(typed: Option<&str>) -> Result<Option<usize>, CommandError> {
    let bytes = typed.map(parse_bytes).transpose();
    bytes.map_err(|error| usage("--memory", error.to_string(), "for example --memory 8GB"))
}

/// The shard of `--shard`.
///
/// # Errors
/// A text that is none.
fn shard(typed: Option<&str>) -> Result<Option<Shard>, CommandError> {
    let shard = typed.map(str::parse).transpose();
    shard.map_err(|error: BadShard| usage("--shard", error.to_string(), error.hint()))
}

/// Whose rows are taken over.
#[derive(Debug, Args)]
struct ReuseArgs {
    /// Take rows over from this run folder too (may be given several times). Rows of the same setting on the same data by
    /// the same engine version are not evaluated again; runs below the output root are found by themselves. Never
    /// changes a result.
    #[arg(long, value_name = "RUN", conflicts_with = "no_reuse")]
    reuse: Vec<PathBuf>,
    /// Evaluate every setting, whatever earlier runs have.
    #[arg(long)]
    no_reuse: bool,
}

impl ReuseArgs {
    /// As [`crate::sweep::Options::reuse`].
    fn folders(&self) -> Option<Vec<PathBuf>> {
        (!self.no_reuse).then(|| self.reuse.clone())
    }
}

impl fmt::Display for ReuseArgs {
    /// As typed, after a blank.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reuse.iter().try_for_each(|run| write!(f, " --reuse {}", run.display()))?;
        if self.no_reuse { f.write_str(" --no-reuse") } else { Ok(()) }
    }
}
