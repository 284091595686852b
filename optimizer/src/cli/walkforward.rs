//! `omega-opt walkforward`: what is typed, what is shown, what the process ends with.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use engine::data::Sources;
use engine::metrics::{Metric, MetricValues};
use serde_json::{Value, json};

use crate::cli::sweep::{Again, Talk, introduce_shard, print, reused, say, show_unfinished, stop_flag};
use crate::cli::{ReuseArgs, logs, memory, shard, threads};
use crate::driver::End;
use crate::error::{CommandError, ExitCode};
use crate::objective::Verdict;
use crate::plan::memory::show_bytes;
use crate::progress::{Progress, show_rate, show_seconds};
use crate::search::{counted, group};
use crate::sweep::{Experiment, Options, left_out};
use crate::walkforward::files::{design_json, design_name};
use crate::walkforward::result::{DesignResult, Status, WindowResult};
use crate::walkforward::run::{Complete, Report, WalkForwardRun};
use crate::walkforward::verdict::Figure;
use crate::walkforward::windows::{Design, Window, instant_text};

/// Windows shown at the end; the table has all.
const SHOWN: usize = 60;

/// Choose on the past, judge on the unseen: every setting on every window of a grid's `walk_forward`.
///
/// In each window the best setting on train, by the grid's objective among those that pass its gates, is the choice, and
/// only its test counts. Writes a run folder {out}/{name}-{hash8} with the windows, the tests stitched into one curve with
/// its trades, efficiency, drift, yardsticks and a verdict. A cell is a run with `trade_window`: windows/000/test.json
/// and its like make any of the choices again with `omega-opt run`. An unfinished walk-forward is continued by itself.
#[derive(Debug, Args)]
pub struct WalkForwardArgs {
    /// Grid file (YAML) with a `walk_forward` section.
    grid: PathBuf,
    /// Replace an axis or a key: --set window_length=40..80:10 --set walk_forward.test=60d.
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
    /// share a walk-forward, each one shard, and `omega-opt merge` makes the result of all.
    #[arg(long, value_name = "i/n")]
    shard: Option<String>,
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
pub fn run(args: &WalkForwardArgs) -> Result<ExitCode, CommandError> {
    let shard = shard(args.shard.as_deref())?;
    let experiment = Experiment::read(&args.grid, &args.set)?;
    let options = Options {
        set: args.set.clone(),
        out: args.out.clone(),
        threads: threads(args.threads)?,
        memory: memory(args.memory.as_deref())?,
        fresh: args.fresh,
        shard,
        reuse: args.reuse.folders(),
    };
    let run = WalkForwardRun::open(experiment, &options, &Sources::from_env())?;
    let again = Again {
        command: "walkforward",
        grid: &args.grid,
        set: &args.set,
        out: args.out.as_deref(),
        reuse: &args.reuse,
        shard,
    };
    follow(run, &Talk { quiet: args.quiet, json: args.json, threads: options.threads, again: again.to_string() })
}

/// Runs an open walk-forward to its end and tells of it.
pub(super) fn follow(run: WalkForwardRun, talk: &Talk) -> Result<ExitCode, CommandError> {
    logs::start(&run.folder().logs());
    let folder = run.folder().path().to_owned();
    let warnings = run.warnings();
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if !talk.quiet {
        introduce(&run);
    }
    warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    let grid = &run.experiment().grid;
    let (total, cached) = (run.plan().own_trials(), run.cached());
    let progress = Progress::new(
        total,
        cached,
        grid.objective.clone(),
        grid.gates.clone(),
        run.ledger().clone(),
        &run.folder().events(),
        talk.quiet,
    )
    .map_err(|e| crate::atomic::FileError::io(run.folder().events(), "open it", e))?;
    progress.event("start", json!({ "trials": total, "cached": cached, "threads": talk.threads }));
    let mode = run.windows().mode;
    let space = std::sync::Arc::clone(run.experiment().trials.space());
    run.earlier().notes().iter().for_each(|note| tracing::info!("{note}"));
    let stop = stop_flag();
    let result = std::thread::scope(|scope| {
        scope.spawn(|| progress.show(stop));
        let result = run.run(stop, &progress);
        progress.finish();
        result
    });
    match result {
        Ok(report) => {
            progress
                .event("end", json!({ "end": format!("{:?}", report.end), "seconds": report.elapsed.as_secs_f64(), "reused": report.reused }));
            let code = report.exit_code();
            tracing::info!(code = code as u8, seconds = report.elapsed.as_secs_f64(), "end");
            if talk.json {
                let designs = report.result.as_ref().map(|complete| {
                    let pairs = complete.layout.designs().iter().zip(&complete.designs);
                    pairs.map(|(design, result)| design_json(mode, design, result, &space)).collect::<Vec<_>>()
                });
                show_json(&report, code, designs);
            } else if !talk.quiet || report.result.is_none() {
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

fn introduce(run: &WalkForwardRun) {
    let experiment = run.experiment();
    let (cached, layout) = (run.cached(), run.layout());
    let kept = if cached > 0 { format!(", {} finished before", group(cached.into())) } else { String::new() };
    say(&format!(
        "{}: {} of {} on {} {}, {} ({}){kept}",
        experiment.grid.name,
        counted(experiment.trials.len(), "setting"),
        experiment.config.strategy_name,
        experiment.config.symbol,
        experiment.config.primary,
        counted(layout.places().len() as u128, "window"),
        run.windows().mode.as_str(),
    ));
    introduce_shard(run.plan());
    for design in layout.designs() {
        say(&describe(design, run));
    }
    if let Some(held) = run.held_back() {
        say(&format!(
            "kept back: {} bars from {}, which nothing here reads",
            group(held.bars as u128),
            instant_text(held.from_ns)
        ));
    }
    for row in left_out(experiment) {
        let (constraint, count) = (row["constraint"].as_str().unwrap_or_default(), row["settings"].as_str());
        say(&format!("left out: {} settings that break `{constraint}`", count.unwrap_or("some")));
    }
}

fn describe(design: &Design, run: &WalkForwardRun) -> String {
    let embargo = run.windows().embargo.map(|embargo| embargo.to_string()).unwrap_or_default();
    let tests = match (design.windows.first(), design.windows.last()) {
        (Some(first), Some(last)) => {
            format!("{} tests from {} to {}", design.windows.len(), day(first.test.start_ns), day(last.test.end_ns))
        }
        _ => "no window fits".to_owned(),
    };
    format!(
        "train {}, embargo {embargo}, test {}, step {}: {tests}, {} bars left over",
        design.train,
        design.test,
        design.step,
        group(design.left_over as u128)
    )
}

fn day(ns: i64) -> String {
    instant_text(ns).chars().take(10).collect()
}

fn show_report(report: &Report, again: &str) {
    let Some(complete) = &report.result else {
        return show_unfinished(report.end, report.shard, &report.folder, None, again);
    };
    let evaluated = report.trials - report.cached - report.reused;
    let seconds = report.elapsed.as_secs_f64();
    let cells = u128::from(evaluated) * complete.layout.spans().len() as u128;
    let mut lines = vec![match evaluated {
        0 if report.reused == 0 => "nothing to evaluate: all settings were finished before, chosen anew".to_owned(),
        _ => format!(
            "{} settings evaluated in {} ({} backtests, {}/s), {}{} cached · memory {}",
            group(evaluated.into()),
            show_seconds(seconds),
            group(cells),
            show_rate(cells as f64 / seconds.max(1e-9)),
            reused(report.reused),
            group(report.cached.into()),
            show_bytes(report.peak_memory),
        ),
    }];
    lines.push(String::new());
    let mut from = 0;
    let several = complete.designs.len() > 1;
    for (design, result) in complete.layout.designs().iter().zip(&complete.designs) {
        let range = from..from + design.windows.len();
        from = range.end;
        if !several {
            lines.push(window_table(complete, design, result));
            lines.push(String::new());
            lines.extend(figure_lines(result));
            lines.push(String::new());
            lines.extend(result.checks.iter().map(|check| {
                let found: Vec<String> =
                    check.found.iter().map(|(name, value)| format!("{name} {}", number(*value, 4))).collect();
                let word = if check.passed { "pass" } else { "FAIL" };
                format!("{word}  {} ({})", check.text, found.join(", "))
            }));
        }
    }
    if several {
        lines.push(matrix_table(complete));
        lines.push(String::new());
        lines.push(format!(
            "The best of {} designs is partly luck: choose the lengths for a reason, not for this table.",
            complete.designs.len()
        ));
    }
    if !complete.failures.by_code.is_empty() {
        let codes = complete.failures.by_code.iter();
        let counts: Vec<String> = codes.map(|(code, rows)| format!("{code}: {}", group((*rows).into()))).collect();
        lines.push(format!("settings that failed on some window: {}", counts.join(", ")));
    }
    lines.extend(report.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.push(String::new());
    let file = |name: &str| report.folder.join(name).display().to_string();
    if several {
        lines.push(file("matrix.csv"));
    }
    lines.push(format!("{} every window, its choice and both results", file("windows.csv")));
    lines.push(format!("{} and {}", file("equity.csv"), file("trades.csv")));
    lines.push(format!("{} run configs of every choice", file("windows")));
    print(&lines.join("\n"));
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
}

fn metric(values: Option<&MetricValues>, metric: Metric, decimals: usize) -> String {
    number(values.and_then(|values| values.get(metric)), decimals)
}

fn plain(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table
}

fn finish(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn window_table(complete: &Complete, design: &Design, result: &DesignResult) -> String {
    let head = ["window", "test from", "passed", "train", "test", "rank", "trades", "net", "dd"];
    let params = || complete.params.iter().enumerate().filter(|(_, (_, varies))| *varies);
    let header = head.into_iter().map(str::to_owned).chain(params().map(|(_, (name, _))| name.clone()));
    let mut table = plain(header.collect());
    for (number, (window, row)) in design.windows.iter().zip(&result.windows).take(SHOWN).enumerate() {
        let mut cells = window_row(number, complete, window, row);
        let values = &complete.chosen[number];
        cells.extend(params().map(|(at, _)| match values.get(at).map(|value| value.to_text()) {
            Some(text) if !text.is_empty() => text,
            _ => "–".to_owned(),
        }));
        table.add_row(cells);
    }
    let mut text = finish(table);
    if design.windows.len() > SHOWN {
        text.push_str(&format!("\n… and {} more", design.windows.len() - SHOWN));
    }
    for (at, row) in result.windows.iter().enumerate().filter(|(_, row)| row.status != Status::Ok).take(SHOWN) {
        let reason = row.reason.as_deref().unwrap_or_default();
        text.push_str(&format!("\nwindow {at}: {} ({reason})", row.status.as_str()));
    }
    text
}

fn window_row(at: usize, complete: &Complete, window: &Window, row: &WindowResult) -> Vec<String> {
    let tally = &complete.tallies[at];
    let chosen = tally.choice().filter(|_| row.setting.is_some());
    let rank = chosen.and(tally.test_rank).map_or_else(
        || "–".to_owned(),
        |rank| format!("{}/{}", group(rank.into()), group(tally.ranked_on_test().into())),
    );
    vec![
        at.to_string(),
        day(window.test.start_ns),
        group(tally.train[Verdict::Ok as usize].into()),
        number(chosen.and_then(|chosen| chosen.score), 3),
        number(chosen.and_then(|chosen| chosen.test.score), 3),
        rank,
        metric(row.test.as_ref(), Metric::TotalTrades, 0),
        metric(row.test.as_ref(), Metric::ProfitNet, 2),
        metric(row.test.as_ref(), Metric::MaxDrawdown, 3),
    ]
}

/// What following every choice earned, beside what needs no search.
fn figure_lines(result: &DesignResult) -> Vec<String> {
    let (figures, metrics) = (&result.figures, Some(&result.figures.metrics));
    vec![
        format!(
            "out of sample: {} trades, net {}, max drawdown {}, Sharpe {} a year, PSR {}",
            metric(metrics, Metric::TotalTrades, 0),
            metric(metrics, Metric::ProfitNet, 2),
            metric(metrics, Metric::MaxDrawdown, 3),
            metric(metrics, Metric::SharpeEquityDaily, 3),
            number(figures.get(Figure::Psr), 3),
        ),
        format!(
            "efficiency {}, consistency {}, concentration {}, rank correlation {}, parameter drift {}",
            number(figures.get(Figure::Wfe), 3),
            number(figures.get(Figure::Consistency), 3),
            number(figures.get(Figure::Concentration), 3),
            number(figures.get(Figure::RankCorrelation), 3),
            number(figures.get(Figure::Drift), 3),
        ),
        format!(
            "first choice kept: net {}; buy and hold: net {}, max drawdown {}",
            number(figures.get(Figure::FirstChoiceNet), 2),
            number(figures.get(Figure::BuyAndHoldNet), 2),
            number(figures.get(Figure::BuyAndHoldDrawdown), 3),
        ),
    ]
}

fn matrix_table(complete: &Complete) -> String {
    let head =
        ["train-test", "windows", "chosen", "trades", "net", "dd", "sharpe", "psr", "wfe", "consistency", "verdict"];
    let mut table = plain(head.map(str::to_owned).into());
    for (design, result) in complete.layout.designs().iter().zip(&complete.designs) {
        let (figures, metrics) = (&result.figures, Some(&result.figures.metrics));
        let passed = result.checks.iter().filter(|check| check.passed).count();
        table.add_row(vec![
            design_name(design),
            number(figures.get(Figure::Windows), 0),
            number(figures.get(Figure::Chosen), 0),
            metric(metrics, Metric::TotalTrades, 0),
            metric(metrics, Metric::ProfitNet, 2),
            metric(metrics, Metric::MaxDrawdown, 3),
            metric(metrics, Metric::SharpeEquityDaily, 3),
            number(figures.get(Figure::Psr), 3),
            number(figures.get(Figure::Wfe), 3),
            number(figures.get(Figure::Consistency), 3),
            format!("{passed} of {} pass", result.checks.len()),
        ]);
    }
    finish(table)
}

fn show_json(report: &Report, code: ExitCode, designs: Option<Vec<Value>>) {
    let document = json!({
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
        "designs": designs,
        "warnings": report.warnings,
    });
    print(&document.to_string());
}
