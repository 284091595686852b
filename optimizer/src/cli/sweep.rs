//! `omega-opt sweep`: what is typed, what is shown, what the process ends with.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use engine::data::Sources;
use engine::metrics::{Metric, Unit};
use serde_json::{Value, json};

use crate::chunk::ChunkPlan;
use crate::cli::{ReuseArgs, logs, memory, shard, threads};
use crate::driver::End;
use crate::error::{CommandError, ExitCode};
use crate::leaderboard::TopRow;
use crate::objective::Verdict;
use crate::plan::memory::show_bytes;
use crate::progress::{Progress, show_rate, show_seconds};
use crate::search::{counted, group};
use crate::shard::Shard;
use crate::sweep::{Experiment, Options, Ranked, Report, Sweep, left_out};

/// Evaluate every setting of a grid file and rank them.
///
/// Writes a run folder {out}/{name}-{hash8} with chunks, leaderboard.parquet, leaderboard.csv and the artefacts of
/// the best rows. An unfinished run of the same grid is continued by itself: finished chunks are never evaluated
/// again. Rows depend on the grid, the data and the engine version only, never on threads, memory or interruptions.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Grid file (YAML).
    grid: PathBuf,
    /// Replace an axis or a key: --set window_length=40..80:10 --set costs.enabled=false --set search.trials=500.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Output root; the run folder is made below it. Default: output.dir of the grid, else `results`.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Worker threads. Default: RAYON_NUM_THREADS, else all cores. Never changes a result.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Memory cap: 8GB, 512MiB. Work is cut to fit; too small a cap is refused at the start with the least it needs.
    /// Default: limits.memory of the grid, else a share of the machine's memory. Never changes a result.
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Drop the finished chunks of this grid and start anew; nothing is taken over from other runs.
    #[arg(long, conflicts_with = "reuse")]
    fresh: bool,
    #[command(flatten)]
    reuse: ReuseArgs,
    /// Evaluate only every n-th chunk, from the i-th on, in a folder of its own (its name ends in .shard-i-of-n): machines
    /// share a sweep, each one shard, and `omega-opt merge` makes the leaderboard of all.
    #[arg(long, value_name = "i/n")]
    shard: Option<String>,
    /// Only count settings and chunks; load no bars, write nothing.
    #[arg(long)]
    dry_run: bool,
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
pub fn run(args: &SweepArgs) -> Result<ExitCode, CommandError> {
    let shard = shard(args.shard.as_deref())?;
    let experiment = Experiment::read(&args.grid, &args.set)?;
    if args.dry_run {
        show_plan(args, &experiment);
        return Ok(ExitCode::Done);
    }
    let options = Options {
        set: args.set.clone(),
        out: args.out.clone(),
        threads: threads(args.threads)?,
        memory: memory(args.memory.as_deref())?,
        fresh: args.fresh,
        shard,
        reuse: args.reuse.folders(),
    };
    let sweep = Sweep::open(experiment, &options, &Sources::from_env())?;
    let again = Again {
        command: "sweep",
        grid: &args.grid,
        set: &args.set,
        out: args.out.as_deref(),
        reuse: &args.reuse,
        shard,
    };
    follow(sweep, &Talk { quiet: args.quiet, json: args.json, threads: options.threads, again: again.to_string() })
}

/// How much is told of a run, and where.
pub(super) struct Talk {
    pub(super) quiet: bool,
    pub(super) json: bool,
    pub(super) threads: usize,
    /// The command that continues it.
    pub(super) again: String,
}

/// A command that continues a run.
pub(super) struct Again<'a> {
    pub(super) command: &'static str,
    pub(super) grid: &'a Path,
    pub(super) set: &'a [String],
    pub(super) out: Option<&'a Path>,
    pub(super) reuse: &'a ReuseArgs,
    pub(super) shard: Option<Shard>,
}

impl fmt::Display for Again<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "omega-opt {} {}", self.command, self.grid.display())?;
        self.set.iter().try_for_each(|set| write!(f, " --set '{set}'"))?;
        self.out.iter().try_for_each(|out| write!(f, " --out {}", out.display()))?;
        write!(f, "{}", self.reuse)?;
        self.shard.iter().try_for_each(|shard| write!(f, " --shard {shard}"))
    }
}

/// Runs an open sweep to its end and tells of it.
pub(super) fn follow(sweep: Sweep, talk: &Talk) -> Result<ExitCode, CommandError> {
    logs::start(&sweep.folder().logs());
    let folder = sweep.folder().path().to_owned();
    let warnings = sweep.warnings();
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if !talk.quiet {
        introduce(&sweep, &warnings);
    } else {
        warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    }
    let grid = &sweep.experiment().grid;
    let (total, cached) = (sweep.plan().own_trials(), sweep.cached());
    let progress = Progress::new(
        total,
        cached,
        grid.objective.clone(),
        grid.gates.clone(),
        sweep.ledger().clone(),
        &sweep.folder().events(),
        talk.quiet,
    )
    .map_err(|e| crate::atomic::FileError::io(sweep.folder().events(), "open it", e))?;
    progress.event("start", json!({ "trials": total, "cached": cached, "threads": talk.threads }));
    sweep.earlier().notes().iter().for_each(|note| tracing::info!("{note}"));
    let stop = stop_flag();
    let result = std::thread::scope(|scope| {
        scope.spawn(|| progress.show(stop));
        let result = sweep.run(stop, &progress);
        progress.finish();
        result
    });
    match result {
        Ok(report) => {
            let (seconds, times) = (report.elapsed.as_secs_f64(), progress.times());
            let code = report.exit_code();
            tracing::info!(code = code as u8, seconds, %times, "end");
            let waiting = times["waiting_for_disk"].clone();
            progress.event(
                "end",
                json!({
                    "end": format!("{:?}", report.end),
                    "seconds": seconds,
                    "reused": report.reused,
                    "phases_s": times,
                    "waiting_for_disk_s": waiting,
                }),
            );
            if talk.json {
                show_json(&report, code);
            } else if !talk.quiet || report.ranked.is_none() {
                show_report(&report, &talk.again);
            }
            Ok(code)
        }
        Err(error) => {
            progress.event("error", json!({ "message": error.to_string() }));
            tracing::error!("{error}");
            if error.is_full() {
                say(&format!("finished chunks are kept in {}; the same command continues", folder.display()));
            }
            Err(error)
        }
    }
}

/// Set by the first Ctrl-C or SIGTERM; a second one ends the process at once. What is committed stays either way.
pub(super) fn stop_flag() -> &'static AtomicBool {
    static STOP: AtomicBool = AtomicBool::new(false);
    static SIGNALS: AtomicU8 = AtomicU8::new(0);
    let installed = ctrlc::set_handler(|| {
        if SIGNALS.fetch_add(1, Ordering::SeqCst) > 0 {
            std::process::exit(ExitCode::Interrupted as i32);
        }
        STOP.store(true, Ordering::SeqCst);
    });
    if let Err(error) = installed {
        tracing::warn!("signals end the process at once: {error}");
    }
    &STOP
}

pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

pub(super) fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn show_plan(args: &SweepArgs, experiment: &Experiment) {
    let chunks = experiment.chunks();
    let space = experiment.trials.space();
    let skipped = left_out(experiment);
    if args.json {
        let axes: Vec<Value> =
            space.axes().iter().map(|axis| json!({ "name": axis.name(), "values": axis.len() })).collect();
        let document = json!({
            "name": experiment.grid.name,
            "strategy": experiment.config.strategy_name,
            "axes": axes,
            "lattice_points": space.size().to_string(),
            "trials": experiment.trials.len(),
            "search": experiment.trials.search().as_str(),
            "left_out": skipped,
            "chunk_size": chunks.size(),
            "chunks": chunks.count(),
            "warnings": experiment.warnings,
        });
        return print(&document.to_string());
    }
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
    lines.extend(skipped.iter().map(|row| {
        let count = row["settings"].as_str().unwrap_or("some");
        format!(
            "  left out {count} for `{}` ({})",
            row["constraint"].as_str().unwrap_or_default(),
            row["origin"].as_str().unwrap_or_default()
        )
    }));
    lines.push(format!("{} of {}", counted(chunks.count(), "chunk"), group(chunks.size().into())));
    lines.extend(experiment.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.iter().for_each(|line| print(line));
}

fn introduce(sweep: &Sweep, warnings: &[String]) {
    let experiment = sweep.experiment();
    let cached = sweep.cached();
    let kept = if cached > 0 { format!(", {} finished before", group(cached.into())) } else { String::new() };
    say(&format!(
        "{}: {} of {} on {} {}{kept}",
        experiment.grid.name,
        counted(experiment.trials.len(), "setting"),
        experiment.config.strategy_name,
        experiment.config.symbol,
        experiment.config.primary,
    ));
    introduce_shard(sweep.plan());
    for row in left_out(experiment) {
        let (constraint, count) = (row["constraint"].as_str().unwrap_or_default(), row["settings"].as_str());
        say(&format!("left out: {} settings that break `{constraint}`", count.unwrap_or("some")));
    }
    warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
}

/// Says what part of the run is worked on, if it is a part.
pub(super) fn introduce_shard(plan: &ChunkPlan) {
    if let Some(shard) = plan.shard() {
        say(&format!(
            "shard {shard}: {} in {} of {}",
            counted(plan.own_trials(), "setting"),
            group(plan.own().count() as u128),
            counted(plan.count(), "chunk"),
        ));
    }
}

/// Says what comes next after a run that left no result: it did not end, or it was a shard.
pub(super) fn show_unfinished(end: End, shard: Option<Shard>, folder: &Path, partial: Option<&Path>, again: &str) {
    match (end, shard) {
        (End::Complete, Some(shard)) => {
            say(&format!("shard {shard} is finished, in {}; it has no leaderboard of its own", folder.display()));
            let all = folder.file_name().and_then(|name| Shard::of_folder_name(name.to_str()?));
            if let Some((run, shard)) = all {
                let all = folder.with_file_name(format!("{run}.shard-*-of-{}", shard.count()));
                say(&format!("when all {} are finished: omega-opt merge {}", shard.count(), all.display()));
            }
        }
        _ => {
            let why = if end == End::Deadline { "time limit reached" } else { "interrupted" };
            say(&format!("{why}; finished chunks are kept in {}", folder.display()));
            if let Some(partial) = partial {
                say(&format!("ranked so far, and not more than that: {}", partial.display()));
            }
            say(&format!("continue with: {again}"));
        }
    }
}

fn show_report(report: &Report, again: &str) {
    let evaluated = report.trials - report.cached - report.reused;
    let seconds = report.elapsed.as_secs_f64();
    let Some(ranked) = &report.ranked else {
        let partial = report.partial.as_ref().map(|partial| partial.csv.as_path());
        return show_unfinished(report.end, report.shard, &report.folder, partial, again);
    };
    let summary = &ranked.summary;
    let rate = if seconds > 0.0 { evaluated as f64 / seconds } else { 0.0 };
    let mut lines = vec![format!(
        "{} rows: {} ok, {} gated, {} without score, {} failed · {} distinct rule sets",
        group(summary.rows.into()),
        group(summary.count(Verdict::Ok).into()),
        group(summary.count(Verdict::Gated).into()),
        group(summary.count(Verdict::NoScore).into()),
        group(summary.count(Verdict::Failed).into()),
        group(summary.distinct_rules.into()),
    )];
    lines.push(match evaluated {
        0 if report.reused == 0 => "nothing to evaluate: all settings were finished before, ranked anew".to_owned(),
        _ => format!(
            "{} evaluated in {} ({}/s), {}{} cached · memory {}",
            group(evaluated.into()),
            show_seconds(seconds),
            show_rate(rate),
            reused(report.reused),
            group(report.cached.into()),
            show_bytes(report.peak_memory),
        ),
    });
    lines.push(String::new());
    lines.push(best_table(ranked));
    lines.push(String::new());
    if !ranked.failures.is_empty() {
        let counts: Vec<String> =
            ranked.failures.iter().map(|(code, rows)| format!("{code}: {}", group((*rows).into()))).collect();
        lines.push(format!("failed rows, reasons in the leaderboard: {}", counts.join(", ")));
    }
    for (gate, passed) in &ranked.gates {
        let verdict = if *passed > 0 { "pass" } else { "FAIL" };
        lines.push(format!("{verdict}  {gate}: {} of {} rows", group((*passed).into()), group(summary.rows.into())));
    }
    lines.push(format!(
        "The best of {} tries is partly luck: judge it on bars the search has not seen.",
        group(summary.distinct_rules.into())
    ));
    lines.extend(report.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.push(String::new());
    lines.push(format!("{}", report.folder.join("leaderboard.parquet").display()));
    let left = summary.csv_left_out();
    let note = if left > 0 { format!(" (best {} rows)", group(summary.csv_rows.into())) } else { String::new() };
    lines.push(format!("{}{note}", report.folder.join("leaderboard.csv").display()));
    if !ranked.top.is_empty() {
        lines.push(format!("{} trades, equity and metrics of the best", report.folder.join("top").display()));
    }
    let text = lines.join("\n");
    if io::stdout().is_terminal() { print(&format!("\n{text}")) } else { print(&text) }
}

/// `1,120 reused, `; empty if there are none.
pub(super) fn reused(trials: u64) -> String {
    if trials > 0 { format!("{} reused, ", group(trials.into())) } else { String::new() }
}

/// The five best settings, one per rule set; undefined is a dash.
fn best_table(ranked: &Ranked) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let metrics = [
        ("trades", Metric::TotalTrades),
        ("net", Metric::ProfitNet),
        ("win", Metric::WinRate),
        ("pf", Metric::ProfitFactor),
        ("dd", Metric::MaxDrawdown),
        ("sharpe", Metric::SharpeEquityDaily),
    ];
    let head = ["rank", "objective"].into_iter().chain(metrics.iter().map(|(name, _)| *name));
    // An axis of one value is the same in every row and would only make the table wider.
    let params = ranked.params.iter().zip(&ranked.varies).filter(|(_, varies)| **varies).map(|(name, _)| name.as_str());
    // Worth a column only where settings share their rules.
    let shared = ranked.summary.top.iter().any(|row| row.sharing > 1);
    table.set_header(head.chain(shared.then_some("same rules")).chain(params));
    for row in ranked.summary.top.iter().filter(|row| row.verdict != Verdict::Failed).take(5) {
        table.add_row(best_row(row, &metrics, shared, &ranked.varies));
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn best_row(row: &TopRow, metrics: &[(&str, Metric)], shared: bool, varies: &[bool]) -> Vec<String> {
    let dash = || "–".to_owned();
    let rank = if row.verdict == Verdict::Ok {
        row.rank.to_string()
    } else {
        format!("{} ({})", row.rank, row.verdict.as_str())
    };
    let mut cells = vec![rank, row.objective.map_or_else(dash, |x| format!("{x:.4}"))];
    cells.extend(metrics.iter().map(|(_, metric)| {
        row.values.get(*metric).map_or_else(dash, |x| match metric.def().unit {
            unit if unit.is_integer() => group(x as u128),
            Unit::AccountCurrency => format!("{x:.2}"),
            _ => format!("{x:.3}"),
        })
    }));
    cells.extend(shared.then(|| row.sharing.to_string()));
    cells.extend(row.params.iter().zip(varies).filter(|(_, varies)| **varies).map(|(value, _)| {
        let text = value.to_text();
        if text.is_empty() { dash() } else { text }
    }));
    cells
}

fn show_json(report: &Report, code: ExitCode) {
    print(&report_json(report, code).to_string());
}

/// What `--json` prints.
pub fn report_json(report: &Report, code: ExitCode) -> Value {
    let ranked = report.ranked.as_ref().map(|ranked| {
        let top: Vec<Value> = ranked
            .summary
            .top
            .iter()
            .map(|row| {
                let params: serde_json::Map<String, Value> =
                    ranked.params.iter().cloned().zip(row.params.iter().map(|value| json!(value.to_text()))).collect();
                json!({
                    "rank": row.rank,
                    "trial": row.trial,
                    "config_hash": crate::fingerprint::hex(&row.config_hash),
                    "status": row.verdict.as_str(),
                    "objective": row.objective,
                    "total_trades": row.values.get(Metric::TotalTrades),
                    "profit_net": row.values.get(Metric::ProfitNet),
                    "max_drawdown": row.values.get(Metric::MaxDrawdown),
                    "same_rules": row.sharing,
                    "params": params,
                })
            })
            .collect();
        json!({
            "rows": ranked.summary.rows,
            "ok": ranked.summary.count(Verdict::Ok),
            "gated": ranked.summary.count(Verdict::Gated),
            "no_score": ranked.summary.count(Verdict::NoScore),
            "failed": ranked.summary.count(Verdict::Failed),
            "distinct_rules": ranked.summary.distinct_rules,
            "gates": ranked.gates.iter().map(|(gate, passed)| json!({"gate": gate, "passed": passed})).collect::<Vec<_>>(),
            "top": top,
        })
    });
    json!({
        "end": match report.end {
            End::Complete => "complete",
            End::Interrupted => "interrupted",
            End::Deadline => "deadline",
        },
        "exit_code": code as u8,
        "folder": report.folder.display().to_string(),
        "shard": report.shard.map(|shard| shard.to_string()),
        "trials": report.trials,
        "cached": report.cached,
        "reused": report.reused,
        "seconds": report.elapsed.as_secs_f64(),
        "result": ranked,
        "partial": report.partial.as_ref().map(|partial| json!({
            "rows": partial.summary.rows,
            "chunks": partial.chunks,
            "csv": partial.csv.display().to_string(),
        })),
        "warnings": report.warnings,
    })
}
