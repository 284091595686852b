//! `omega-opt plan`: what a sweep will do and take, before it does.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;
use engine::data::Sources;
use serde_json::{Value, json};

use crate::cli::{ReuseArgs, memory, threads};
use crate::error::{CommandError, ExitCode};
use crate::plan::memory::{enough_bytes, show_bytes};
use crate::plan::outlook::Outlook;
use crate::progress::show_seconds;
use crate::row::Way;
use crate::search::{counted, group};
use crate::sweep::{Experiment, Options, left_out};

/// Tell what a sweep of a grid file will do: settings, distinct settings, columns, time, memory, disk.
///
/// Loads the bars, resolves the settings (a sample of a large space) and runs a few of them to estimate the time.
/// Writes nothing but the cache of bars.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Grid file (YAML).
    grid: PathBuf,
    /// Replace an axis or a key, as for `sweep`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Output root, in which finished chunks are looked for. Default: output.dir of the grid, else `results`.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Worker threads the time is estimated for. Default: RAYON_NUM_THREADS, else all cores.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Memory cap: 8GB, 512MiB. Default: limits.memory of the grid, else a share of the machine's memory.
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    #[command(flatten)]
    reuse: ReuseArgs,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Faults of the grid, data errors.
pub fn run(args: &PlanArgs) -> Result<ExitCode, CommandError> {
    let experiment = Experiment::read(&args.grid, &args.set)?;
    let options = Options {
        set: args.set.clone(),
        out: args.out.clone(),
        threads: threads(args.threads)?,
        memory: memory(args.memory.as_deref())?,
        fresh: false,
        shard: None,
        reuse: args.reuse.folders(),
    };
    let outlook = Outlook::new(&experiment, &options, &Sources::from_env())?;
    let text =
        if args.json { document(&experiment, &outlook).to_string() } else { lines(&experiment, &outlook).join("\n") };
    let _ = writeln!(io::stdout(), "{text}");
    Ok(ExitCode::Done)
}

/// What `--json` prints.
pub fn document(experiment: &Experiment, outlook: &Outlook) -> Value {
    let space = experiment.trials.space();
    let axes: Vec<Value> =
        space.axes().iter().map(|axis| json!({ "name": axis.name(), "values": axis.len() })).collect();
    let mut document = json!({
        "name": experiment.grid.name,
        "strategy": experiment.config.strategy_name,
        "axes": axes,
        "lattice_points": space.size().to_string(),
        "trials": experiment.trials.len(),
        "search": experiment.trials.search().as_str(),
        "left_out": left_out(experiment),
    });
    if let (Value::Object(document), Value::Object(more)) = (&mut document, outlook.to_json()) {
        document.extend(more);
    }
    document
}

fn lines(experiment: &Experiment, outlook: &Outlook) -> Vec<String> {
    let space = experiment.trials.space();
    let number = |count: u64| group(count.into());
    let size = |count: usize| group(count as u128);
    let survey = &outlook.survey;
    let mut lines = vec![format!(
        "{}: {} of {} ({} search), {}",
        experiment.grid.name,
        counted(experiment.trials.len(), "setting"),
        experiment.config.strategy_name,
        experiment.trials.search().as_str(),
        counted(space.size(), "lattice point")
    )];
    lines.extend(
        space.axes().iter().map(|axis| format!("  {:<32} {:>8} values", axis.name(), group(axis.len().into()))),
    );
    lines.extend(left_out(experiment).iter().map(|row| {
        let text = |key: &str| row[key].as_str().unwrap_or("some").to_owned();
        format!("  left out {} for `{}` ({})", text("settings"), text("constraint"), text("origin"))
    }));
    lines.push(if survey.compared == 0 {
        format!("distinct    {} settings", number(survey.distinct))
    } else {
        format!(
            "distinct    about {} settings, estimated from {} of them and their neighbours on every axis",
            number(survey.distinct),
            number(survey.compared)
        )
    });
    let sample = if survey.resolved == survey.settings {
        String::new()
    } else {
        format!(", seen in a sample of {}", number(survey.resolved))
    };
    lines.push(format!(
        "shared      {} columns ({}), {} masks, {} exit tables, {} guard questions{sample}",
        size(survey.columns),
        show_bytes(outlook.column_bytes),
        size(survey.masks),
        size(survey.exit_tables),
        size(survey.guard_questions),
    ));
    for (way, count) in &survey.ways {
        let share = match way {
            Way::Jumped => "jump".to_owned(),
            Way::Walked(reason) => format!("are walked: {}", reason.as_str()),
            Way::Unresolved => {
                let codes: Vec<String> =
                    survey.failures.iter().map(|(code, n)| format!("{code}: {}", number(*n))).collect();
                format!("fail ({})", codes.join(", "))
            }
        };
        lines.push(format!("            {} of {} {share}", number(*count), number(survey.resolved)));
    }
    let damaged = if outlook.damaged > 0 { format!(", {} damaged", number(outlook.damaged)) } else { String::new() };
    lines.push(format!(
        "chunks      {} of {}, {} finished ({}){damaged}",
        number(outlook.chunks.count()),
        number(outlook.chunks.size()),
        number(outlook.finished),
        counted(outlook.finished_trials, "setting")
    ));
    let reusable = &outlook.reusable;
    if reusable.settings > 0 {
        lines.push(format!(
            "reuse       {}{} settings, finished by {} earlier {}",
            if reusable.sampled { "about " } else { "" },
            number(reusable.settings),
            size(reusable.runs),
            if reusable.runs == 1 { "run" } else { "runs" },
        ));
    }
    lines.push(format!(
        "time        about {} on {} threads, from {} settings probed on {} bars",
        show_seconds(outlook.seconds),
        outlook.threads,
        number(outlook.probed),
        size(outlook.bars)
    ));
    lines.push(format!(
        "memory      about {} of a cap of {}; at least {}",
        show_bytes(outlook.memory_peak),
        show_bytes(outlook.memory_cap),
        enough_bytes(outlook.memory_least)
    ));
    let bytes = |count: u64| show_bytes(usize::try_from(count).unwrap_or(usize::MAX));
    lines.push(format!(
        "disk        about {} of chunks, {} of leaderboard, in {}",
        bytes(outlook.chunk_bytes),
        bytes(outlook.leaderboard_bytes),
        outlook.folder
    ));
    lines.extend(outlook.refused.iter().map(|why| format!("warning: a sweep would refuse its folder: {why}")));
    lines.extend(outlook.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines
}
