//! `omega-opt show`, `replay`, `export` and `verify`: single rows of a run folder.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;
use engine::Error;
use engine::data::Sources;
use engine::metrics::Metric;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::chunk::ChunkError;
use crate::cli::threads;
use crate::error::{CommandError, ExitCode};
use crate::fingerprint::hex;
use crate::objective::judge;
use crate::replay::{Provenance, ReplayError, replay};
use crate::row::{Outcome, Row};
use crate::search::group;
use crate::stored::{StoredRow, StoredRun, differences};
use crate::sweep::usage;

/// A row of a run folder.
#[derive(Debug, Args)]
struct Which {
    /// Run folder, {output root}/{name}-{hash8}.
    run: PathBuf,
    /// A rank (3), a trial (t417) or a prefix of the config hash (h3fa9c1).
    id: String,
}

/// Show one row: its setting and every metric.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    which: Which,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Walk one row again and write its four artefacts; exit code 6 if a metric differs from the row in any bit.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    which: Which,
    /// Output root; the artefacts go to {DIR}/{run_id}. Default: `replay` in the run folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Write the run config of one row, ready for `omega-opt run`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    which: Which,
    /// File to write; default: stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Recompute rows and compare every bit; exit code 6 on a difference.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Run folder, {output root}/{name}-{hash8}.
    run: PathBuf,
    /// Share of the rows (1%) or number of rows (500), spread evenly; default: all.
    #[arg(long, value_name = "SHARE")]
    sample: Option<String>,
    /// Worker threads.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
}

/// Runs `show`.
///
/// # Errors
/// A folder or an ID that names nothing.
pub fn show(args: &ShowArgs) -> Result<ExitCode, CommandError> {
    let run = StoredRun::open(&args.which.run)?;
    let found = run.find(&args.which.id)?;
    if args.json {
        print(&describe(&run, &found).to_string());
        return Ok(ExitCode::Done);
    }
    let document = describe(&run, &found);
    let line = |name: &str, value: &Value| {
        let text = match value {
            Value::Null => "–".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        print(&format!("{name:<30} {text}"));
    };
    for key in ["rank", "trial", "config_hash", "rules_hash", "status", "reason", "objective", "rng_seed"] {
        line(key, &document[key]);
    }
    print("");
    let space = run.experiment().trials.space();
    space.columns().iter().for_each(|column| line(&column.name, &document["params"][&column.name]));
    print("");
    Metric::ALL.into_iter().for_each(|metric| line(metric.key(), &document["metrics"][metric.key()]));
    Ok(ExitCode::Done)
}

/// A row as `show --json` prints it.
pub fn describe(run: &StoredRun, found: &StoredRow) -> Value {
    let grid = &run.experiment().grid;
    let values = match &found.row.outcome {
        Outcome::Done { values, .. } => Some(values),
        Outcome::Failed { .. } => None,
    };
    let judgement = judge(&grid.objective, &grid.gates, values);
    let reason = match &found.row.outcome {
        Outcome::Failed { code, reason } => Some(format!("{code}: {reason}")),
        Outcome::Done { no_trade_reason, .. } => judgement.failed_gate.map(str::to_owned).or(no_trade_reason.clone()),
    };
    let space = run.experiment().trials.space();
    let params: serde_json::Map<String, Value> =
        space.columns().iter().map(|column| column.name.clone()).zip(space.values(&found.setting)).collect();
    let metrics: serde_json::Map<String, Value> = Metric::ALL
        .into_iter()
        .map(|metric| {
            let value = values.and_then(|values| values.get(metric));
            let whole = metric.def().unit.is_integer();
            (metric.key().to_owned(), if whole { json!(value.map(|x| x as i64)) } else { json!(value) })
        })
        .collect();
    json!({
        "rank": found.rank,
        "trial": found.row.trial,
        "config_hash": hex(&found.row.config_hash),
        "rules_hash": hex(&found.row.rules_hash),
        "status": judgement.verdict.as_str(),
        "reason": reason,
        "objective": judgement.score,
        "rng_seed": found.row.rng_seed,
        "params": params,
        "metrics": metrics,
    })
}

/// Runs `replay`.
///
/// # Errors
/// A folder or an ID that names nothing, data errors, files that cannot be written.
pub fn replay_row(args: &ReplayArgs) -> Result<ExitCode, CommandError> {
    let run = StoredRun::open(&args.which.run)?;
    let found = run.find(&args.which.id)?;
    let config = run.configs().full(&found.setting).map_err(Error::Config)?;
    let (environment, warnings) = run.environment(&Sources::from_env())?;
    warn(&warnings);
    let prepared = environment.prepare(&config, found.row.rng_seed)?;
    let replay = replay(&prepared)?;
    let provenance =
        Provenance { config: &config, source: None, rng_seed: found.row.rng_seed, environment: &environment };
    let root = args.out.clone().unwrap_or_else(|| args.which.run.join("replay"));
    let folder = root.join(provenance.run_id());
    replay.write(&folder, &prepared, provenance).map_err(ReplayError::from)?;
    print(&folder.display().to_string());
    let computed = Row {
        outcome: Outcome::Done { values: replay.outcome.summary.values, no_trade_reason: None },
        rules_hash: prepared.rules_hash(),
        ..found.row.clone()
    };
    let mut stored = found.row;
    if let Outcome::Done { no_trade_reason, .. } = &mut stored.outcome {
        *no_trade_reason = None;
    }
    Ok(report(stored.trial, &differences(&stored, &computed)))
}

fn report(trial: u64, differences: &[String]) -> ExitCode {
    for line in differences {
        let _ = writeln!(io::stderr(), "trial {trial}: {line}");
    }
    if differences.is_empty() { ExitCode::Done } else { ExitCode::Mismatch }
}

/// Runs `export`.
///
/// # Errors
/// A folder or an ID that names nothing, a file that cannot be written.
pub fn export(args: &ExportArgs) -> Result<ExitCode, CommandError> {
    let run = StoredRun::open(&args.which.run)?;
    let found = run.find(&args.which.id)?;
    let config = run.configs().full(&found.setting).map_err(Error::Config)?;
    let mut document = config.document;
    // The seed in force travels with the config: in `prod` it was drawn, and without it the row could not be run again.
    document["rng_seed"] = json!(found.row.rng_seed);
    let text = format!("{document:#}\n");
    match &args.out {
        Some(path) => crate::atomic::write_atomic(path, |w| w.write_all(text.as_bytes()))?,
        None => print(text.trim_end()),
    }
    Ok(ExitCode::Done)
}

/// Runs `verify`.
///
/// # Errors
/// A folder that is no run, data errors.
pub fn verify(args: &VerifyArgs) -> Result<ExitCode, CommandError> {
    let run = StoredRun::open(&args.run)?;
    let total = run.trials();
    let share = sample_share(args.sample.as_deref(), total)?;
    let (environment, warnings) = run.environment(&Sources::from_env())?;
    warn(&warnings);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads(args.threads)?)
        .build()
        .map_err(|error| Error::Internal(error.to_string()))?;
    let (mut checked, mut wrong, mut damaged) = (0_u64, 0_u64, false);
    for index in 0..run.plan().count() {
        let trials = run.plan().trials(index);
        let sampled: Vec<u64> = trials.clone().filter(|trial| is_sampled(*trial, share)).collect();
        let chunk = match run.chunk(index) {
            // What is stored is not what was written: the very thing that is asked here, and no reason to leave the
            // other chunks unchecked.
            Err(CommandError::Chunk(error @ ChunkError::Damaged { .. })) => {
                let _ = writeln!(io::stderr(), "{error}");
                checked += sampled.len() as u64;
                wrong += sampled.len() as u64;
                damaged = true;
                continue;
            }
            other => other?,
        };
        let results: Vec<(u64, Vec<String>)> = pool.install(|| {
            sampled
                .into_par_iter()
                .map(|trial| (trial, check(&run, &environment, &chunk, trial, trials.start)))
                .collect()
        });
        checked += results.len() as u64;
        for (trial, differences) in results {
            wrong += u64::from(report(trial, &differences) == ExitCode::Mismatch);
        }
    }
    print(&format!(
        "{} of {} rows recomputed, {} differ",
        group(checked.into()),
        group(total.into()),
        group(wrong.into())
    ));
    Ok(if wrong == 0 && !damaged { ExitCode::Done } else { ExitCode::Mismatch })
}

fn check(
    run: &StoredRun,
    environment: &engine::backtest::Environment,
    chunk: &crate::chunk::Chunk,
    trial: u64,
    first: u64,
) -> Vec<String> {
    let stored = usize::try_from(trial - first).ok().and_then(|row| chunk.row(run.schema(), row));
    let setting = run.experiment().trials.setting(trial);
    let (Some(stored), Some(setting)) = (stored, setting) else { return vec!["the row is missing".to_owned()] };
    match run.recompute(environment, &setting) {
        Ok(computed) => differences(&stored, &computed),
        Err(error) => vec![error.to_string()],
    }
}

/// Share of the trials that is recomputed, in (0, 1].
fn sample_share(sample: Option<&str>, total: u64) -> Result<f64, CommandError> {
    let Some(text) = sample else { return Ok(1.0) };
    let share = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok().map(|percent| percent / 100.0),
        None => text.trim().parse::<u64>().ok().map(|rows| rows as f64 / total.max(1) as f64),
    };
    share.filter(|share| *share > 0.0).map(|share| share.min(1.0)).ok_or_else(|| {
        usage(
            "--sample",
            format!("must be a share like 1% or a number of rows, got `{text}`"),
            "for example --sample 1%",
        )
    })
}

/// The trials at which the running share passes a whole number: evenly spread, the first one included.
fn is_sampled(trial: u64, share: f64) -> bool {
    trial == 0 || (trial as f64 * share).floor() > ((trial - 1) as f64 * share).floor()
}
