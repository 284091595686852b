//! `omega-opt data`: bars judged, described, made up.
//!
//! Tables and JSON go to stdout, what went wrong to stderr. `check` prints a line for every pair and then fails with
//! the first refusal, so the exit code is that of bad data.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table, presets};
use engine::data::{CheckedPair, SyntheticSource, check_pair, synthetic};
use engine::units::{EpochNs, Timeframe};
use serde_json::{Value, json};

use crate::cli::import;

/// Judge, describe, import or generate bars.
#[derive(Debug, Args)]
pub struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Check every {SYMBOL}/{SYMBOL}_{TF}_{BID|ASK}.parquet pair below a folder as a run would; exit code 3 if one is
    /// refused.
    Check(FolderArgs),
    /// Show extent, spread, gaps and hash of every pair below a folder.
    Info(FolderArgs),
    /// Make such pairs of text files of Dukascopy, MetaTrader 5, HistData, TradingView, Binance and others.
    Import(Box<import::ImportArgs>),
    /// Write seeded synthetic bars of a timeframe and of every longer one made from it.
    Generate(GenerateArgs),
}

#[derive(Debug, Args)]
struct FolderArgs {
    /// Folder that is searched, with all folders below it.
    dir: PathBuf,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct GenerateArgs {
    /// Data root to write to: {out}/{SYMBOL}/… Files of these names are replaced.
    #[arg(long)]
    out: PathBuf,
    /// Symbol; decides price level, volatility, decimals and spread.
    #[arg(long, default_value = "EURUSD")]
    symbol: String,
    /// Shortest timeframe: M1 M5 M15 M30 H1 H4 D1.
    #[arg(long, default_value = "M5")]
    timeframe: Timeframe,
    /// Bars of that timeframe, from Monday 2020-01-06 on.
    #[arg(long, default_value_t = 75_000)]
    bars: usize,
    /// The same seed gives the same bytes.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs one of the data commands.
pub fn run(args: DataArgs) -> anyhow::Result<()> {
    match args.command {
        DataCommand::Check(folder) => check(&folder),
        DataCommand::Info(folder) => info(&folder),
        DataCommand::Import(what) => import::run(&what),
        DataCommand::Generate(what) => generate(&what),
    }
}

fn check(args: &FolderArgs) -> anyhow::Result<()> {
    let judged = judge_folder(&args.dir)?;
    if args.json {
        print_json(&Value::Array(judged.iter().map(|pair| pair.json(Pair::verdict_fields)).collect()))?;
    } else {
        let headers = ["pair", "rows", "one-sided", "duplicates", "gap loss", "filler", "verdict"];
        print_table(&headers, judged.iter().map(Pair::verdict_row))?;
    }
    let refused = judged.iter().filter(|pair| pair.outcome.is_err()).count();
    let mut talk = io::stderr().lock();
    for pair in &judged {
        for warning in pair.outcome.iter().flat_map(|checked| &checked.warnings) {
            // Symbol and timeframe stand in the warning itself.
            let folder =
                if pair.folder == Path::new("") { String::new() } else { format!("{}: ", pair.folder.display()) };
            writeln!(talk, "warning: {folder}{warning}")?;
        }
    }
    if refused > 0 {
        writeln!(talk, "{refused} of {} pairs refused", judged.len())?;
    }
    fail_with_first_refusal(judged)
}

fn info(args: &FolderArgs) -> anyhow::Result<()> {
    let judged = judge_folder(&args.dir)?;
    if args.json {
        print_json(&Value::Array(judged.iter().map(|pair| pair.json(Pair::extent_fields)).collect()))?;
    } else {
        let mut headers =
            vec!["symbol", "tf", "rows", "first", "last", "median spread", "gap loss", "sha256 bid", "sha256 ask"];
        let made: Vec<Option<String>> =
            judged.iter().map(|pair| pair.outcome.as_ref().ok().and_then(made_sides)).collect();
        // Only where import made a side, which is worth a column then.
        let with_made = made.iter().any(Option::is_some);
        if with_made {
            headers.push("not quoted");
        }
        let rows = judged.iter().zip(made).map(|(pair, made)| {
            let mut row = pair.extent_row();
            if with_made {
                row.push(made.unwrap_or_else(|| "–".to_owned()));
            }
            row
        });
        print_table(&headers, rows)?;
    }
    fail_with_first_refusal(judged)
}

fn generate(args: &GenerateArgs) -> anyhow::Result<()> {
    let symbol = args.symbol.trim().to_ascii_uppercase();
    synthetic::write(&args.out, &symbol, args.timeframe, SyntheticSource { seed: args.seed, bars: args.bars })?;
    info(&FolderArgs { dir: args.out.join(&symbol), json: args.json })
}

fn fail_with_first_refusal(judged: Vec<Pair>) -> anyhow::Result<()> {
    match judged.into_iter().find_map(|pair| pair.outcome.err().map(|error| (pair.folder, error))) {
        Some((folder, error)) => Err(anyhow::Error::new(error).context(format!("refused: {}", folder.display()))),
        None => Ok(()),
    }
}

/// A pair of files and what the checks say of it.
#[derive(Debug)]
struct Pair {
    /// Data root, relative to the folder that was searched.
    folder: PathBuf,
    symbol: String,
    timeframe: Timeframe,
    outcome: Result<CheckedPair, engine::Error>,
}

/// Finds and checks every pair below `dir`, in the order of folder, symbol, timeframe.
fn judge_folder(dir: &Path) -> anyhow::Result<Vec<Pair>> {
    let mut found = BTreeSet::new();
    collect_pairs(dir, &mut found)?;
    if found.is_empty() {
        let reason = "no {SYMBOL}/{SYMBOL}_{TF}_{BID|ASK}.parquet below this folder".to_owned();
        return Err(engine::Error::DataFile { kind: "FileNotFound", path: dir.to_owned(), reason }.into());
    }
    let judge = |(root, symbol, timeframe): (PathBuf, String, Timeframe)| Pair {
        folder: root.strip_prefix(dir).map_or_else(|_| root.clone(), Path::to_owned),
        outcome: check_pair(&root, &symbol, timeframe),
        symbol,
        timeframe,
    };
    Ok(found.into_iter().map(judge).collect())
}

/// Adds `(data root, symbol, timeframe)` of every candle file of one side or the other.
fn collect_pairs(dir: &Path, found: &mut BTreeSet<(PathBuf, String, Timeframe)>) -> anyhow::Result<()> {
    let unreadable = |error: io::Error| engine::Error::DataFile {
        kind: "FileNotFound",
        path: dir.to_owned(),
        reason: format!("the folder cannot be read: {error}"),
    };
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // A link to a folder is not followed: it could lead back.
        if entry.file_type().map_err(unreadable)?.is_dir() {
            collect_pairs(&entry.path(), found)?;
        } else if let Some((symbol, timeframe)) = entry.file_name().to_str().and_then(candle_file) {
            // The folder is named after the symbol, and the root is what holds it.
            if dir.canonicalize().is_ok_and(|full| full.file_name().is_some_and(|name| *name == *symbol)) {
                let root = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
                let root = root.map_or_else(|| dir.join(".."), Path::to_owned);
                found.insert((root, symbol, timeframe));
            }
        }
    }
    Ok(())
}

/// Symbol and timeframe of a candle file name.
fn candle_file(name: &str) -> Option<(String, Timeframe)> {
    let stem = name.strip_suffix(".parquet")?;
    let rest = stem.strip_suffix("_BID").or_else(|| stem.strip_suffix("_ASK"))?;
    let (symbol, timeframe) = rest.rsplit_once('_')?;
    let timeframe = Timeframe::ALL.into_iter().find(|known| known.as_str() == timeframe)?;
    (!symbol.is_empty()).then(|| (symbol.to_owned(), timeframe))
}

impl Pair {
    fn name(&self) -> String {
        self.folder.join(&self.symbol).join(self.timeframe.as_str()).display().to_string()
    }

    fn json(&self, fields: impl Fn(&Self, &CheckedPair) -> Value) -> Value {
        let mut object = json!({
            "folder": self.folder.display().to_string(),
            "symbol": self.symbol,
            "timeframe": self.timeframe,
            "ok": self.outcome.is_ok(),
        });
        let more = match &self.outcome {
            Ok(checked) => fields(self, checked),
            Err(error) => json!({"error": {"code": error.code(), "message": error.to_string()}}),
        };
        if let (Value::Object(all), Value::Object(more)) = (&mut object, more) {
            all.extend(more);
        }
        object
    }

    fn verdict_fields(&self, checked: &CheckedPair) -> Value {
        json!({
            "rows": checked.bars.len(),
            "alignment": checked.alignment,
            "duplicates_dropped": checked.duplicates_dropped,
            "gaps": checked.gaps,
            "filler": checked.filler,
            "warnings": checked.warnings,
        })
    }

    fn verdict_row(&self) -> Vec<String> {
        match &self.outcome {
            Ok(checked) => vec![
                self.name(),
                checked.bars.len().to_string(),
                checked.alignment.discarded_count.to_string(),
                checked.duplicates_dropped.to_string(),
                percent(checked.gaps.gap_loss),
                checked.filler.bars.to_string(),
                if checked.warnings.is_empty() { "ok" } else { "ok, with warnings" }.to_owned(),
            ],
            Err(error) => {
                let mut row = vec![self.name()];
                row.resize(6, "–".to_owned());
                row.push(format!("refused {}: {error}", error.code()));
                row
            }
        }
    }

    fn extent_fields(&self, checked: &CheckedPair) -> Value {
        json!({
            "rows": checked.bars.len(),
            "first": checked.bars.open_time.first().map(|&t| iso(t)),
            "last": checked.bars.open_time.last().map(|&t| iso(t)),
            "median_spread": median_spread(checked),
            "gaps": checked.gaps,
            "inputs": checked.inputs,
        })
    }

    fn extent_row(&self) -> Vec<String> {
        let mut row = vec![self.folder.join(&self.symbol).display().to_string(), self.timeframe.to_string()];
        match &self.outcome {
            Ok(checked) => {
                let instant = |t: Option<&EpochNs>| t.map_or_else(|| "–".to_owned(), |&t| iso(t));
                let hash = |i: usize| checked.inputs[i].sha256[..12].to_owned();
                row.extend([
                    checked.bars.len().to_string(),
                    instant(checked.bars.open_time.first()),
                    instant(checked.bars.open_time.last()),
                    median_spread(checked).map_or_else(|| "–".to_owned(), significant),
                    percent(checked.gaps.gap_loss),
                    hash(0),
                    hash(1),
                ]);
            }
            Err(error) => {
                row.push(format!("refused {}", error.code()));
                row.resize(9, "–".to_owned());
            }
        }
        row
    }
}

/// The sides nobody quoted, and how import made them.
fn made_sides(checked: &CheckedPair) -> Option<String> {
    let made: Vec<&str> = checked.inputs.iter().filter_map(|input| input.made.as_deref()).collect();
    let sides = match [&checked.inputs[0].made, &checked.inputs[1].made] {
        [Some(_), Some(_)] => "bid and ask",
        [Some(_), None] => "bid",
        _ => "ask",
    };
    made.first().map(|how| format!("{sides} = {how}"))
}

/// Median of ask minus bid at the close, price units: of an even number, the lower of the two in the middle.
fn median_spread(checked: &CheckedPair) -> Option<f64> {
    let bars = &checked.bars;
    let mut spreads: Vec<f64> = bars.bid.close.iter().zip(bars.ask.close.iter()).map(|(b, a)| a - b).collect();
    let middle = spreads.len().checked_sub(1)? / 2;
    Some(*spreads.select_nth_unstable_by(middle, f64::total_cmp).1)
}

/// A number to four significant digits, without trailing zeros.
fn significant(value: f64) -> String {
    format!("{value:.3e}").parse::<f64>().map_or_else(|_| value.to_string(), |rounded| rounded.to_string())
}

fn percent(fraction: f64) -> String {
    format!("{:.2} %", fraction * 100.0)
}

pub(super) fn iso(t: EpochNs) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(t)).map_or_else(|_| format!("{t} ns"), |t| t.to_string())
}

pub(super) fn print_table(headers: &[&str], rows: impl Iterator<Item = Vec<String>>) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headers.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    let mut out = io::stdout().lock();
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

pub(super) fn print_json(value: &Value) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_candle_files_count() {
        assert_eq!(candle_file("EURUSD_M5_BID.parquet"), Some(("EURUSD".to_owned(), Timeframe::M5)));
        assert_eq!(candle_file("US_500_D1_ASK.parquet"), Some(("US_500".to_owned(), Timeframe::D1)));
        for name in ["EURUSD_M5_MID.parquet", "EURUSD_M5_BID.csv", "_M5_BID.parquet", "EURUSD_m5_BID.parquet"] {
            assert_eq!(candle_file(name), None, "{name}");
        }
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(significant(0.00006000000000005898), "0.00006");
        assert_eq!(significant(0.3620000001), "0.362");
        assert_eq!(percent(0.0234), "2.34 %");
    }

    #[test]
    fn generated_bars_are_found_and_pass() {
        let folder = tempfile::tempdir().unwrap();
        let source = SyntheticSource { seed: 1, bars: 400 };
        synthetic::write(folder.path(), "USDJPY", Timeframe::H1, source).unwrap();
        let judged = judge_folder(folder.path()).unwrap();
        let names: Vec<String> = judged.iter().map(Pair::name).collect();
        assert_eq!(names, ["USDJPY/H1", "USDJPY/H4", "USDJPY/D1", "USDJPY/W1"]);
        assert!(judged.iter().all(|pair| pair.outcome.is_ok()));
        // The folder of the symbol itself may be named, too.
        assert_eq!(judge_folder(&folder.path().join("USDJPY")).unwrap().len(), 4);

        std::fs::remove_file(folder.path().join("USDJPY/USDJPY_H4_ASK.parquet")).unwrap();
        let args = FolderArgs { dir: folder.path().to_owned(), json: false };
        let error = fail_with_first_refusal(judge_folder(&args.dir).unwrap()).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(engine::Error::DataFile { kind: "FileNotFound", .. })));
    }

    #[test]
    fn an_empty_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(judge_folder(folder.path()).is_err());
        assert!(judge_folder(&folder.path().join("absent")).is_err());
    }
}
