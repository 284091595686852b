//! `omega-opt data import`: text files of vendors to candle files.
//!
//! What was typed becomes a request of the engine, which refuses what it cannot know. The pairs written go to stdout,
//! warnings to stderr.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;
use engine::data::Sources;
use engine::data::SymbolSpecs;
use engine::data::import::{
    DateOrder, DayStart, Fold, Format, ImportReport, ImportRequest, ImportedSeries, Side, SourceFile, Spread, import,
};
use engine::units::Timeframe;
use serde_json::{Value, json};

use crate::cli::data::{iso, print_json, print_table};

/// Import text files of bars.
///
/// The format is told from the content. What a file does not state must be stated here: --tz for its clock, --side for its
/// price, --spread where it has one price only, --point where it counts in points. Several files of one series are
/// joined; files of both sides are paired. Existing candle files are kept unless --force.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Text files; a name with the word BID or ASK tells the side.
    #[arg(value_name = "FILE", required_unless_present_any = ["bid", "ask"])]
    files: Vec<PathBuf>,
    /// A file of bid prices, whatever its name says; may be repeated.
    #[arg(long, value_name = "FILE")]
    bid: Vec<PathBuf>,
    /// A file of ask prices; may be repeated.
    #[arg(long, value_name = "FILE")]
    ask: Vec<PathBuf>,
    /// Data root to write to: {out}/{SYMBOL}/{SYMBOL}_{TF}_{BID|ASK}.parquet and import.json.
    #[arg(long, value_name = "ROOT")]
    out: PathBuf,
    /// Symbol.
    #[arg(long)]
    symbol: String,
    /// Length of the bars in the files: M1, M10, H4, D1 … Told from the stamps if not given.
    #[arg(long, value_name = "TF")]
    timeframe: Option<String>,
    /// Price of the files that do not tell it: bid, ask, mid or last.
    #[arg(long, value_parser = side)]
    side: Option<Side>,
    /// Clock of stamps that do not tell it: UTC, +02:00, EST (no daylight saving), an IANA name such as
    /// America/New_York, or one with hours ahead of it, America/New_York+7 (the server of many brokers).
    #[arg(long = "tz", value_name = "ZONE", allow_hyphen_values = true)]
    zone: Option<String>,
    /// Spread of bars with one price: 0.8pips (of --pip), 12points (of --point) or 0.00008 (price units). A bid gets the
    /// ask above it, an ask the bid below it, mid and last prices half of it to each side.
    #[arg(long, value_parser = spread, conflicts_with = "spread_column")]
    spread: Option<Spread>,
    /// Take the spread of each bar from the file's spread column, in points of --point.
    #[arg(long)]
    spread_column: bool,
    /// Size of a pip in price units; if not given, pip_size of the symbol in symbol_specs.yaml.
    #[arg(long)]
    pip: Option<f64>,
    /// Size of a point in price units, such as 0.00001: for spread columns and for prices in whole points.
    #[arg(long)]
    point: Option<f64>,
    /// Where the days of aggregated bars begin: utc or new-york-17 (17:00 New York, daylight saving included).
    #[arg(long, value_parser = day, default_value = "utc")]
    day: DayStart,
    /// Longer timeframes to make as well: M5,M15,H1,H4,D1.
    #[arg(long, value_delimiter = ',', value_name = "TF,…")]
    aggregate: Vec<Timeframe>,
    /// Read every file as this format instead of telling it from the content.
    #[arg(long, value_parser = format, value_name = "NAME")]
    format: Option<Format>,
    /// Order of dates that do not prove it: dmy, mdy or ymd.
    #[arg(long, value_parser = date_order, value_name = "ORDER")]
    date_order: Option<DateOrder>,
    /// Pass of an hour that the clock showed twice, where the file has only one: earlier or later.
    #[arg(long, value_parser = fold, value_name = "PASS")]
    fold: Option<Fold>,
    /// Leave bars out whose ask lies below the bid, instead of refusing the files.
    #[arg(long)]
    drop_crossed: bool,
    /// Move a high or low that does not hold open and close, instead of refusing the files.
    #[arg(long)]
    widen_range: bool,
    /// Replace candle files that are there.
    #[arg(long)]
    force: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn side(text: &str) -> Result<Side, String> {
    Side::parse(text).ok_or_else(|| "one of bid, ask, mid, last".to_owned())
}

fn spread(text: &str) -> Result<Spread, String> {
    Spread::parse(text).ok_or_else(|| "a number >= 0: 0.8pips, 12points or 0.00008".to_owned())
}

fn day(text: &str) -> Result<DayStart, String> {
    DayStart::parse(text).ok_or_else(|| "utc or new-york-17".to_owned())
}

fn format(text: &str) -> Result<Format, String> {
    Format::parse(text).map_err(|near| {
        let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        format!("one of {}{near}", Format::ALL.map(Format::as_str).join(", "))
    })
}

fn date_order(text: &str) -> Result<DateOrder, String> {
    DateOrder::parse(text).ok_or_else(|| "dmy, mdy or ymd".to_owned())
}

fn fold(text: &str) -> Result<Fold, String> {
    Fold::parse(text).ok_or_else(|| "earlier or later".to_owned())
}

/// Imports and reports.
pub(super) fn run(args: &ImportArgs) -> anyhow::Result<()> {
    let report = import(&request(args)?)?;
    if args.json {
        print_json(&json(&report))?;
    } else {
        let headers = ["symbol", "tf", "bid bars", "ask bars", "first", "last", "not quoted", "aggregated from"];
        print_table(&headers, report.series.iter().map(|series| row(&report.symbol, series)))?;
    }
    let mut talk = io::stderr().lock();
    for warning in &report.warnings {
        writeln!(talk, "warning: {warning}")?;
    }
    Ok(())
}

fn request(args: &ImportArgs) -> anyhow::Result<ImportRequest> {
    let of = |paths: &[PathBuf], side: Option<Side>| -> Vec<SourceFile> {
        paths.iter().map(|path| SourceFile { path: path.clone(), side }).collect()
    };
    let mut files = of(&args.files, None);
    files.extend(of(&args.bid, Some(Side::Bid)));
    files.extend(of(&args.ask, Some(Side::Ask)));
    let spread = if args.spread_column { Some(Spread::Column) } else { args.spread };
    Ok(ImportRequest {
        files,
        root: args.out.clone(),
        symbol: args.symbol.clone(),
        timeframe: args.timeframe.clone(),
        side: args.side,
        zone: args.zone.clone(),
        pip: match (args.pip, spread) {
            (None, Some(Spread::Pips(_))) => pip_of_specs(&args.symbol)?,
            (given, _) => given,
        },
        spread,
        point: args.point,
        day: args.day,
        aggregate: args.aggregate.clone(),
        format: args.format,
        date_order: args.date_order,
        fold: args.fold,
        drop_crossed: args.drop_crossed,
        widen_range: args.widen_range,
        force: args.force,
    })
}

/// `pip_size` of the symbol, if there is a specs file and it states one. The default of the engine is not taken: a
/// pip nobody stated would be far too small for metals and indices.
fn pip_of_specs(symbol: &str) -> anyhow::Result<Option<f64>> {
    let sources = Sources::from_env();
    if !sources.specs_file.is_file() {
        return Ok(None);
    }
    let (spec, _) = SymbolSpecs::load(&sources.specs_file)?.for_symbol(&symbol.trim().to_ascii_uppercase());
    Ok(spec.pip_size)
}

fn row(symbol: &str, series: &ImportedSeries) -> Vec<String> {
    let record = &series.record;
    let time = &series.checked.bars.open_time;
    let instant = |t: Option<&i64>| t.map_or_else(|| "–".to_owned(), |&t| iso(t));
    let made = record.made_side.as_ref().zip(record.made_how.as_ref()).map(|(side, how)| format!("{side} = {how}"));
    vec![
        symbol.to_owned(),
        series.timeframe.to_string(),
        record.bid_rows.to_string(),
        record.ask_rows.to_string(),
        instant(time.first()),
        instant(time.last()),
        made.unwrap_or_else(|| "–".to_owned()),
        record.aggregated_from.clone().unwrap_or_else(|| "–".to_owned()),
    ]
}

fn json(report: &ImportReport) -> Value {
    let series = report.series.iter().map(|series| {
        let time = &series.checked.bars.open_time;
        json!({
            "timeframe": series.timeframe,
            "aligned_bars": series.checked.bars.len(),
            "first": time.first().map(|&t| iso(t)),
            "last": time.last().map(|&t| iso(t)),
            "record": series.record,
        })
    });
    json!({"symbol": report.symbol, "series": series.collect::<Vec<_>>(), "warnings": report.warnings})
}
