//! `omega-opt batch`: what is typed, what is shown, what the process ends with.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use engine::data::Sources;
use jiff::Zoned;
use serde_json::{Value, json};

use crate::batch::run::{Batch, BatchOptions, Outcome, Prospect, Report, Standing};
use crate::batch::summary::{HEADER, cells, counts, document, tries};
use crate::batch::{FinishBy, Job, Nightly};
use crate::cli::sweep::{print, say, stop_flag};
use crate::cli::{logs, threads};
use crate::driver::End;
use crate::error::{CommandError, ExitCode};
use crate::grid::sections::parse_time;
use crate::plan::memory::parse_bytes;
use crate::progress::show_seconds;
use crate::search::{counted, group};
use crate::sweep::{Options, usage};

/// Run many sweeps and walk-forwards, one after another, with a deadline.
///
/// Each job of the file is a grid on a symbol and timeframe, in a run folder of its own below {out}/{name}. A job that
/// fails stops no other. Finished jobs are passed by, unfinished ones continue, so the same command every night, from
/// cron or a systemd timer, works the list off. At the deadline the running wave ends, sweeps rank what is finished
/// into leaderboard.partial.parquet and .csv, and the exit code is 7. Writes batch.parquet, batch.csv (one row per job) and
/// batch.md (the night, for people).
///
/// Exit codes of several jobs at once, the first that applies: 130, 7, 1, 2, 3, 5, 4, 0.
#[derive(Debug, Args)]
pub struct BatchArgs {
    /// Batch file (YAML).
    nightly: PathBuf,
    /// Replace an axis or a key in every job, after the job's own assignments.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Output root; the folder of the batch is made below it. Default: output.dir of the file, else `results`.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Worker threads. Default: limits.threads of the file, else RAYON_NUM_THREADS, else all cores. Never changes a
    /// result.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Memory cap of each job: 8GB, 512MiB. Default: limits.memory of the file, else of the grid, else a share of the
    /// machine's memory. Never changes a result.
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// End by this time of day (06:00) or day and time, in limits.time_zone, instead of limits.finish_by.
    #[arg(long, value_name = "TIME")]
    finish_by: Option<String>,
    /// End after so long (90s, 30min, 6h), instead of limits.time.
    #[arg(long, value_name = "DURATION")]
    finish_in: Option<String>,
    /// Drop the finished chunks of all jobs and start anew.
    #[arg(long)]
    fresh: bool,
    /// List the jobs in order with what each would do; run nothing, write nothing but the cache of bars.
    #[arg(long)]
    dry_run: bool,
    /// No progress and no summary; failures still go to stderr.
    #[arg(long)]
    quiet: bool,
    /// Print one JSON document to stdout instead of the summary.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// A faulty batch file, a folder in use or not writable. A job that fails is no error.
pub fn run(args: &BatchArgs) -> Result<ExitCode, CommandError> {
    let nightly = Nightly::load(&args.nightly)?;
    let options = options(args, &nightly)?;
    let sources = Sources::from_env();
    if args.dry_run {
        return Ok(show_plan(args, &nightly, &options, &sources));
    }
    let batch = Batch::open(nightly, options)?;
    logs::start(&batch.folder().join("logs"));
    let report = batch.run(&sources, stop_flag(), &say)?;
    if args.json {
        print(&document(&report).to_string());
    } else if !args.quiet {
        show_report(&report, args);
    }
    Ok(report.code)
}

fn options(args: &BatchArgs, nightly: &Nightly) -> Result<BatchOptions, CommandError> {
    let limits = &nightly.limits;
    let memory = match &args.memory {
        Some(text) => {
            Some(parse_bytes(text).map_err(|e| usage("--memory", e.to_string(), "for example --memory 8GB"))?)
        }
        None => limits.memory,
    };
    let mut bounds = limits.clone();
    if let Some(text) = &args.finish_by {
        let hint = "for example --finish-by 06:00";
        let message = || format!("must be a time of day or a day and a time, got `{text}`");
        bounds.finish_by = Some(FinishBy::parse(text).ok_or_else(|| usage("--finish-by", message(), hint))?);
    }
    if let Some(text) = &args.finish_in {
        let message = || format!("must be a time above 0, got `{text}`");
        let time = parse_time(text).ok_or_else(|| usage("--finish-in", message(), "for example --finish-in 8h"))?;
        bounds.time = Some(time);
    }
    let shared = Options {
        set: args.set.clone(),
        out: args.out.clone(),
        threads: threads(args.threads.or(limits.threads))?,
        memory,
        fresh: args.fresh,
        shard: None,
        // Runs of earlier nights lie below the output root.
        reuse: Some(Vec::new()),
    };
    Ok(BatchOptions { shared, deadline: bounds.deadline(&Zoned::now()), quiet: args.quiet })
}

/// Lists the jobs; the exit code is that of the heaviest fault found.
fn show_plan(args: &BatchArgs, nightly: &Nightly, options: &BatchOptions, sources: &Sources) -> ExitCode {
    let looks: Vec<(&Job, Result<Prospect, CommandError>)> =
        nightly.jobs.iter().map(|job| (job, Prospect::look(job, nightly, options, sources))).collect();
    let code = ExitCode::of_all(looks.iter().filter_map(|(_, look)| look.as_ref().err()).map(CommandError::exit_code));
    if args.json {
        let jobs = looks.iter().map(|(job, look)| {
            let error = look.as_ref().err().map(ToString::to_string);
            let found = look.as_ref().ok().map(|look| &look.found);
            json!({
                "job": job.name,
                "kind": job.kind.as_str(),
                "grid": job.grid.display().to_string(),
                "set": job.set,
                "priority": job.priority,
                "would": look.as_ref().map_or("fail", Prospect::as_str),
                "error": error,
                "found": found,
            })
        });
        let jobs: Vec<Value> = jobs.collect();
        let deadline = options.deadline.map(|deadline| deadline.to_string());
        let folder = options.folder(nightly).display().to_string();
        print(&json!({ "name": nightly.name, "folder": folder, "deadline": deadline, "jobs": jobs }).to_string());
        return code;
    }
    let zone = nightly.limits.zone.clone().unwrap_or_else(jiff::tz::TimeZone::system);
    let until = options.deadline.map(|deadline| deadline.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %Z").to_string());
    let until = until.map_or_else(|| "no deadline".to_owned(), |until| format!("to finish by {until}"));
    print(&format!("{}: {} jobs, {until}", nightly.name, group(nightly.jobs.len() as u128)));
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (number, (job, look)) in looks.iter().enumerate() {
        let would = match look {
            Err(error) => format!("would fail (exit code {})", error.exit_code() as u8),
            Ok(look) => {
                let found = &look.found;
                let settings = counted(found.trials, "setting");
                match look.as_str() {
                    "new" => format!("new, {settings} in {}", counted(found.chunks, "chunk")),
                    "continue" => {
                        let (done, all) = (group(found.chunks_finished.into()), counted(found.chunks, "chunk"));
                        format!("continue, {done} of {all} finished, {settings}")
                    }
                    "rank" => format!("rank, {settings}, all evaluated"),
                    word => format!("{word}, {settings}"),
                }
            }
        };
        table.add_row([(number + 1).to_string(), job.name.clone(), job.kind.as_str().to_owned(), would]);
    }
    print(&trimmed(&table));
    for (job, look) in &looks {
        if let Err(error) = look {
            say(&format!("{}: {error}", job.name));
        }
    }
    code
}

fn trimmed(table: &Table) -> String {
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn show_report(report: &Report, args: &BatchArgs) {
    let jobs: Vec<(&Job, &Standing)> = report.jobs.iter().map(|(job, standing)| (job, standing)).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(HEADER);
    for (job, standing) in &jobs {
        table.add_row(cells(job, standing));
    }
    for column in table.column_iter_mut().skip(2).take(HEADER.len() - 3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let end = match report.end {
        End::Complete => "",
        End::Interrupted => ", interrupted",
        End::Deadline => ", out of time",
    };
    let mut lines =
        vec![format!("{}{end}, in {}", counts(&jobs), show_seconds(report.elapsed.as_secs_f64())), String::new()];
    lines.extend([trimmed(&table), String::new()]);
    if tries(&jobs) > 0 {
        lines.push(format!(
            "The best of {} tries over all jobs is partly luck: judge it on bars the search has not seen.",
            group(tries(&jobs).into())
        ));
        lines.push(String::new());
    }
    lines.push(format!("{} the night, and why what is not done is not", report.folder.join("batch.md").display()));
    lines.push(format!("{} and batch.parquet, a row per job", report.folder.join("batch.csv").display()));
    print(&lines.join("\n"));
    if jobs.iter().any(|(_, standing)| !matches!(standing.outcome, Outcome::Done | Outcome::Failed)) {
        let sets: String = args.set.iter().map(|set| format!(" --set '{set}'")).collect();
        let out = args.out.as_ref().map(|out| format!(" --out {}", out.display())).unwrap_or_default();
        say(&format!("continue with: omega-opt batch {}{sets}{out}", args.nightly.display()));
    }
}
