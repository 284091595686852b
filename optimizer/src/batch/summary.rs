//! What a batch tells: a table of its jobs for programs, a page for people.
//!
//! `batch.parquet` and `batch.csv` say how the jobs stand, and hold no clock: equal rows give equal bytes however often the
//! batch was interrupted. `batch.md` tells of the last start: when, how long, what was evaluated.

use std::path::Path;
use std::time::Duration;

use engine::metrics::{Metric, Unit};
use jiff::{Timestamp, Zoned};
use serde_json::{Value, json};

use crate::atomic::FileError;
use crate::batch::Job;
use crate::batch::run::{Found, Outcome, Report, Standing};
use crate::driver::End;
use crate::error::ExitCode;
use crate::fingerprint::Fingerprint;
use crate::progress::show_seconds;
use crate::row::ParamValue;
use crate::search::{counted, group};
use crate::space::ColumnKind;
use crate::sweep::ENGINE_VERSION;
use crate::walkforward::table::{Column, TableFile, int, of_unit, text};

/// Metrics of a job's result that the table holds.
const FIGURES: [Metric; 4] = [Metric::TotalTrades, Metric::ProfitNet, Metric::MaxDrawdown, Metric::SharpeEquityDaily];

fn columns() -> Vec<Column> {
    let texts = |names: &[&str]| names.iter().map(|name| Column::text(*name)).collect::<Vec<_>>();
    let ints = |names: &[&str]| names.iter().map(|name| Column::int(*name)).collect::<Vec<_>>();
    let mut columns = texts(&["job", "outcome"]);
    columns.extend(ints(&["exit_code"]));
    columns.extend(texts(&["reason", "kind", "grid", "variant", "strategy", "symbol", "timeframe"]));
    columns.extend(ints(&["priority"]));
    columns.extend(texts(&["folder"]));
    columns.extend(ints(&["trials", "trials_finished", "chunks", "chunks_finished"]));
    columns.extend(ints(&["ok", "gated", "no_score", "failed", "distinct_rules"]));
    columns.extend(ints(&["windows", "windows_chosen", "checks", "checks_passed"]));
    columns.extend(ints(&["trial"]));
    columns.extend(texts(&["config_hash", "setting"]));
    columns.push(Column::new("passes", ColumnKind::Bool));
    columns.push(Column::of_unit("objective", Unit::Ratio));
    columns.extend(FIGURES.map(|metric| Column::metric("", metric.def())));
    columns
}

fn row(job: &Job, standing: &Standing) -> Vec<ParamValue> {
    let found = standing.found.as_ref();
    let number = |of: fn(&Found) -> u64| found.map_or(ParamValue::Null, |found| int(of(found)));
    let named = |of: fn(&Found) -> &String| text(found.map(of).cloned());
    let symbol = found.map(|found| found.symbol.clone()).or_else(|| job.symbol.clone());
    let timeframe = found.map(|found| found.timeframe.clone());
    let timeframe = timeframe.or_else(|| job.timeframe.map(|timeframe| timeframe.to_string()));
    let mut row = vec![text(Some(&job.name)), text(Some(standing.outcome.as_str()))];
    row.push(standing.code.map_or(ParamValue::Null, |code| int(code as u8)));
    row.extend([text(standing.reason.clone()), text(Some(job.kind.as_str()))]);
    row.push(text(Some(job.grid.display().to_string())));
    row.extend([text(job.variant.clone()), named(|found| &found.strategy), text(symbol), text(timeframe)]);
    row.extend([int(job.priority), named(|found| &found.folder)]);
    row.extend([number(|found| found.trials), number(|found| found.trials_finished)]);
    row.extend([number(|found| found.chunks), number(|found| found.chunks_finished)]);
    let rows = found.and_then(|found| found.rows);
    let rows = rows.map(|rows| [rows.ok, rows.gated, rows.no_score, rows.failed, rows.distinct_rules].map(int));
    row.extend(rows.unwrap_or([const { ParamValue::Null }; 5]));
    let windows = found.filter(|found| found.is_whole()).and_then(|found| found.windows);
    let windows = windows.map(|of| [of.windows, of.chosen, of.checks, of.checks_passed].map(int));
    row.extend(windows.unwrap_or([const { ParamValue::Null }; 4]));
    let best = found.and_then(|found| found.best.as_ref());
    row.push(best.map_or(ParamValue::Null, |best| int(best.trial)));
    row.extend([text(best.map(|best| best.config_hash.clone())), text(best.map(|best| best.setting.clone()))]);
    row.push(best.map_or(ParamValue::Null, |best| ParamValue::Bool(best.passes)));
    row.push(of_unit(best.and_then(|best| best.objective), Unit::Ratio));
    let figures = found.map(|found| found.figures).unwrap_or_default();
    let values = [figures.total_trades, figures.profit_net, figures.max_drawdown, figures.sharpe_equity_daily];
    row.extend(values.into_iter().zip(FIGURES).map(|(value, metric)| of_unit(value, metric.def().unit)));
    row
}

/// Writes `batch.parquet` and `batch.csv`: a row per job, in the order of their turns.
///
/// # Errors
/// Files that cannot be written.
pub fn write_tables(folder: &Path, jobs: &[(&Job, &Standing)]) -> Result<(), FileError> {
    let made_by = Fingerprint::new([("engine_version", ENGINE_VERSION)]);
    let mut table = TableFile::create(folder, "batch", columns(), &made_by)?;
    table.append(jobs.iter().map(|(job, standing)| row(job, standing)).collect())?;
    table.commit()
}

/// A batch, as far as it has come.
pub struct Night<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its folder.
    pub folder: &'a Path,
    /// Jobs in the order of their turns.
    pub jobs: &'a [(&'a Job, &'a Standing)],
    /// How it ended; none while it runs.
    pub end: Option<End>,
    /// What the process would end with.
    pub code: ExitCode,
    /// When it started.
    pub started: &'a Zoned,
    /// How long it has been running.
    pub elapsed: Duration,
    /// The instant after which no wave starts.
    pub deadline: Option<Timestamp>,
}

/// `complete`, `deadline` …: how a batch ended, in a word; complete is one in which every job had its turns.
pub fn end_text(end: Option<End>) -> &'static str {
    match end {
        None => "running",
        Some(End::Complete) => "complete",
        Some(End::Interrupted) => "interrupted",
        Some(End::Deadline) => "deadline",
    }
}

/// `3 of 6 jobs done, 1 partial, 1 failed, 1 waiting`.
pub fn counts(jobs: &[(&Job, &Standing)]) -> String {
    let of = |outcome: Outcome| jobs.iter().filter(|(_, standing)| standing.outcome == outcome).count();
    let mut text = format!("{} of {} done", of(Outcome::Done), counted(jobs.len() as u128, "job"));
    for outcome in Outcome::ALL.into_iter().skip(1).filter(|outcome| of(*outcome) > 0) {
        text.push_str(&format!(", {} {}", of(outcome), outcome.as_str()));
    }
    text
}

/// Header of [`cells`].
pub const HEADER: [&str; 10] =
    ["job", "outcome", "code", "settings", "pass", "objective", "trades", "net", "dd", "this start"];

/// One job in a line for people; undefined is a dash.
pub fn cells(job: &Job, standing: &Standing) -> Vec<String> {
    let dash = || "–".to_owned();
    let found = standing.found.as_ref();
    let settings = found.map_or_else(dash, |found| match found.is_whole() {
        true => group(found.trials.into()),
        false => format!("{} of {}", group(found.trials_finished.into()), group(found.trials.into())),
    });
    let pass = found.and_then(|found| match (found.rows, found.windows.filter(|_| found.is_whole())) {
        (Some(rows), _) => Some(group(rows.ok.into())),
        (None, Some(windows)) => Some(format!("{} of {} checks", windows.checks_passed, windows.checks)),
        (None, None) => None,
    });
    let number = |value: Option<f64>, decimals: usize| value.map_or_else(dash, |value| format!("{value:.decimals$}"));
    let figures = found.map(|found| found.figures).unwrap_or_default();
    let best = found.and_then(|found| found.best.as_ref());
    let spent = match standing.tries {
        0 => dash(),
        _ if standing.before => "finished before".to_owned(),
        tries => {
            let evaluated = group(standing.evaluated.into());
            let mut spent = format!("{evaluated} in {}", show_seconds(standing.elapsed.as_secs_f64()));
            if standing.reused > 0 {
                spent.push_str(&format!(", {} reused", group(standing.reused.into())));
            }
            if tries > 1 {
                spent.push_str(&format!(", {tries} tries"));
            }
            spent
        }
    };
    vec![
        job.name.clone(),
        standing.outcome.as_str().to_owned(),
        standing.code.map_or_else(dash, |code| (code as u8).to_string()),
        settings,
        pass.unwrap_or_else(dash),
        number(best.and_then(|best| best.objective), 4),
        number(figures.total_trades, 0),
        number(figures.profit_net, 2),
        number(figures.max_drawdown, 3),
        spent,
    ]
}

/// Distinct rule sets over all sweeps: the tries among which the best rows were found.
pub fn tries(jobs: &[(&Job, &Standing)]) -> u64 {
    let rows = jobs.iter().filter_map(|(_, standing)| standing.found.as_ref()?.rows);
    rows.map(|rows| rows.distinct_rules).sum()
}

/// The page for people, in Markdown.
pub fn page(night: &Night<'_>) -> String {
    let zone = night.started.time_zone();
    let clock = |time: &Zoned| time.strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
    let mut lines = vec![
        match night.end {
            Some(End::Complete) => format!("# {}: exit code {}", night.name, night.code as u8),
            end => format!("# {}: {}, exit code {}", night.name, end_text(end), night.code as u8),
        },
        String::new(),
        format!("{}.", counts(night.jobs)),
    ];
    let spent = show_seconds(night.elapsed.as_secs_f64());
    let deadline = night.deadline.map(|deadline| clock(&deadline.to_zoned(zone.clone())));
    let deadline = deadline.map_or_else(|| "no deadline".to_owned(), |deadline| format!("to finish by {deadline}"));
    lines.push(format!("Started {}, {spent}, {deadline}.", clock(night.started)));
    lines.push(String::new());
    lines.push(format!("| {} |", HEADER.join(" | ")));
    let rules = HEADER.iter().enumerate().map(|(at, _)| if (2..9).contains(&at) { "---:" } else { "---" });
    lines.push(format!("| {} |", rules.collect::<Vec<_>>().join(" | ")));
    lines.extend(night.jobs.iter().map(|(job, standing)| format!("| {} |", cells(job, standing).join(" | "))));
    lines.extend(trouble(night));
    lines.extend(best(night));
    if night.code == ExitCode::Limit || night.code == ExitCode::Interrupted {
        lines.extend([
            String::new(),
            "The same command continues; finished chunks are never evaluated again.".to_owned(),
        ]);
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Jobs that are not done, each with the reason.
fn trouble(night: &Night<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let open = night.jobs.iter().filter(|(_, standing)| !matches!(standing.outcome, Outcome::Done));
    for (job, standing) in open {
        let reason = standing.reason.as_deref().unwrap_or_default();
        let partial = standing.found.as_ref().filter(|found| found.rows.is_some());
        lines.push(match standing.outcome {
            Outcome::Failed => {
                let tries = if standing.tries > 1 { format!(", {} tries", standing.tries) } else { String::new() };
                let code = standing.code.map_or(0, |code| code as u8);
                format!("* **{}** failed (exit code {code}{tries}):", job.name)
            }
            Outcome::Partial => match partial {
                Some(found) => {
                    format!("* **{}** {reason}; ranked so far: `{}/leaderboard.partial.csv`", job.name, found.folder)
                }
                None => format!("* **{}** {reason}", job.name),
            },
            Outcome::Waiting if night.end.is_some() => format!("* **{}** had no turn", job.name),
            Outcome::Waiting => continue,
            Outcome::Interrupted | Outcome::Done => format!("* **{}** was interrupted", job.name),
        });
        if standing.outcome == Outcome::Failed {
            lines.push(String::new());
            lines.extend(reason.lines().map(|line| format!("      {line}")));
            lines.extend(standing.hint.iter().map(|hint| format!("      help: {hint}")));
            lines.push(String::new());
        }
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    headed("Not done", lines)
}

/// Best settings of the sweeps that have one.
fn best(night: &Night<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for (job, standing) in night.jobs {
        let Some((found, best)) = standing.found.as_ref().and_then(|found| Some((found, found.best.as_ref()?))) else {
            continue;
        };
        let gates = if best.passes { "" } else { ", fails a gate" };
        let part = if found.is_whole() { "" } else { ", of the finished part" };
        let setting = if best.setting.is_empty() { "its only setting" } else { &best.setting };
        lines.push(format!("* **{}** {setting} (trial t{}{gates}{part})", job.name, best.trial));
    }
    if !lines.is_empty() {
        lines.push(String::new());
        lines.push(format!(
            "The best of {} tries over all jobs is partly luck: judge it on bars the search has not seen.",
            group(tries(night.jobs).into())
        ));
    }
    headed("Best settings", lines)
}

fn headed(heading: &str, lines: Vec<String>) -> Vec<String> {
    if lines.is_empty() {
        return lines;
    }
    [String::new(), format!("## {heading}"), String::new()].into_iter().chain(lines).collect()
}

/// What `--json` prints.
pub fn document(report: &Report) -> Value {
    let jobs = report.jobs.iter().map(|(job, standing)| {
        json!({
            "job": job.name,
            "kind": job.kind.as_str(),
            "grid": job.grid.display().to_string(),
            "symbol": job.symbol,
            "timeframe": job.timeframe.map(|timeframe| timeframe.to_string()),
            "variant": job.variant,
            "set": job.set,
            "priority": job.priority,
            "outcome": standing.outcome.as_str(),
            "exit_code": standing.code.map(|code| code as u8),
            "reason": standing.reason,
            "tries": standing.tries,
            "finished_before": standing.before,
            "evaluated": standing.evaluated,
            "reused": standing.reused,
            "seconds": standing.elapsed.as_secs_f64(),
            "found": standing.found,
            "warnings": standing.warnings,
        })
    });
    json!({
        "name": report.name,
        "end": end_text(Some(report.end)),
        "exit_code": report.code as u8,
        "folder": report.folder.display().to_string(),
        "deadline": report.deadline.map(|deadline| deadline.to_string()),
        "seconds": report.elapsed.as_secs_f64(),
        "jobs": jobs.collect::<Vec<_>>(),
    })
}
