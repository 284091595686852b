//! `omega-opt run`: one backtest with its artefacts.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;
use engine::data::Sources;
use engine::metrics::Metric;
use serde_json::json;

use crate::cli::logs;
use crate::error::{CommandError, ExitCode};
use crate::progress::show_seconds;
use crate::single::{SingleReport, SingleRun};

/// Run one backtest and write its artefacts.
///
/// Writes {out}/{run_id}/ with meta.json, trades.json, equity.csv and metrics.json. The run id follows from config and
/// data, so the same run lands in the same folder; an earlier one is replaced as a whole.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Run config (JSON, schema 2).
    config: PathBuf,
    /// Change a key or a strategy parameter: --set costs.enabled=false --set window_length=60.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Output root.
    #[arg(long, value_name = "DIR", default_value = "results")]
    out: PathBuf,
    /// Refuse unknown keys instead of warning about them.
    #[arg(long)]
    strict: bool,
    /// Write profiling/profiling.json, as `profiling.enabled` does.
    #[arg(long)]
    profile: bool,
    /// No summary.
    #[arg(long)]
    quiet: bool,
    /// Print one JSON document with the metrics to stdout instead of the summary.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Whatever ends it early; nothing is written then.
pub fn run(args: &RunArgs) -> Result<ExitCode, CommandError> {
    let single = SingleRun::read(&args.config, &args.set, args.strict)?;
    let kept = logs::start_in_memory(single.log_level());
    let profile = args.profile || single.profiles();
    let open = single.open(&Sources::from_env())?;
    // Of the highest level, so that no filter of levels takes the fields from the events that pass it.
    let span = tracing::error_span!(
        "run",
        run_id = open.run_id(),
        strategy_name = single.config.strategy_name,
        symbol = single.config.symbol,
        timeframe = single.config.primary.as_str(),
    );
    let _entered = span.enter();
    tracing::info!(component = "cli", phase = "start", "run");
    let report = open.run(&args.out, profile)?;
    report.warnings.iter().for_each(|warning| tracing::warn!(component = "cli", phase = "data", "{warning}"));
    tracing::info!(component = "cli", phase = "end", trades = report.replay.outcome.walked.trades.len(), "run");
    kept.write(&report.folder.join("logs"));
    for warning in &report.warnings {
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    let text = if args.json {
        json!({ "folder": report.folder.display().to_string(), "metrics": report.replay.outcome.summary.artefact() })
            .to_string()
    } else if args.quiet {
        return Ok(ExitCode::Done);
    } else {
        summary(&report)
    };
    let _ = writeln!(io::stdout(), "{text}");
    Ok(ExitCode::Done)
}

fn summary(report: &SingleReport) -> String {
    let outcome = &report.replay.outcome;
    let show = |metric: Metric| {
        let decimals = metric.def().unit.decimals().min(4) as usize;
        let value = outcome.summary.values.get(metric);
        let value = value.map_or_else(|| "–".to_owned(), |x| format!("{x:.decimals$}"));
        format!("{:<28} {value:>14}", metric.key())
    };
    let keys = [
        Metric::TotalTrades,
        Metric::WinRate,
        Metric::ProfitNet,
        Metric::FeesTotal,
        Metric::ProfitFactor,
        Metric::MaxDrawdown,
        Metric::SharpeEquityDaily,
        Metric::CalmarRatio,
        Metric::Signals,
        Metric::OrdersRejected,
        Metric::OpenPositionsAtEnd,
    ];
    let mut lines: Vec<String> = keys.into_iter().map(show).collect();
    lines.push(format!("{} bars in {}", outcome.walked.counters.bars, show_seconds(report.seconds)));
    lines.push(report.folder.display().to_string());
    lines.join("\n")
}
