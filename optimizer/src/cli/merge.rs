//! `omega-opt merge`: what is typed; the rest is a sweep or walk-forward that finds all its chunks finished.

use std::path::PathBuf;

use clap::Args;
use engine::data::Sources;

use crate::cli::sweep::{Talk, say};
use crate::cli::{memory, sweep, threads, walkforward};
use crate::error::{CommandError, ExitCode};
use crate::merge::Folders;
use crate::search::counted;
use crate::sweep::{Experiment, Options, Sweep};
use crate::walkforward::run::WalkForwardRun;

/// Unite the shards of a sweep or walk-forward into its result.
///
/// Takes the run folders of one run, shards or parts of it, and writes the run folder {out}/{name}-{hash8} that a run
/// without shards would have left, byte for byte. Every chunk must be there and sound; nothing is evaluated, nothing in
/// the folders is changed. The bars of the run must be at hand: the best rows are walked again for their artefacts.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// Run folders: shards (their names end in .shard-i-of-n), or unfinished runs of the same grid.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Output root; the run folder is made below it. Default: where the first RUN is.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Worker threads. Default: RAYON_NUM_THREADS, else all cores. Never changes a result.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Memory cap: 8GB, 512MiB; too small a cap is refused at the start with the least it needs. Default: a share of the
    /// machine's memory. Never changes a result.
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// No progress and no summary; warnings and errors still go to stderr.
    #[arg(long)]
    quiet: bool,
    /// Print one JSON document with the result to stdout instead of the summary.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Whatever ends it early.
pub fn run(args: &MergeArgs) -> Result<ExitCode, CommandError> {
    let (threads, memory) = (threads(args.threads)?, memory(args.memory.as_deref())?);
    let folders = Folders::look(&args.runs)?;
    let experiment = Experiment::read(&folders.lock_path(), &[])?;
    let out = Some(args.out.clone().unwrap_or_else(|| folders.root()));
    let options = Options { set: Vec::new(), out, threads, memory, fresh: false, shard: None, reuse: None };
    let (count, walks) = (folders.count(), folders.is_walk_forward());
    let plan = experiment.chunks();
    let pieces = folders.pieces(&plan, threads)?;
    let typed: Vec<String> = args.runs.iter().map(|run| run.display().to_string()).collect();
    let again = format!("omega-opt merge {}", typed.join(" "));
    let talk = Talk { quiet: args.quiet, json: args.json, threads, again };
    let sources = Sources::from_env();
    pieces.warnings().iter().for_each(|warning| say(&format!("warning: {warning}")));
    let begin = || {
        if !args.quiet {
            say(&format!("merging {} of {}", counted(plan.count(), "chunk"), counted(count as u128, "folder")));
        }
    };
    if walks {
        let run = WalkForwardRun::merge(experiment, &options, &sources, &pieces)?;
        begin();
        walkforward::follow(run, &talk)
    } else {
        let sweep = Sweep::merge(experiment, &options, &sources, &pieces)?;
        begin();
        sweep::follow(sweep, &talk)
    }
}
