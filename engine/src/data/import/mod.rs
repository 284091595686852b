//! Text files of vendors to candle files: `omega-opt data import`.
//!
//! Nothing is guessed. What neither the content nor the vendor's documentation nor an option states (zone, side, length of
//! a bar, order of day and month, size of a point, spread) is refused with the file, the line, the rule, what was
//! found and the option that settles it.
//!
//! The way of a file: bytes → `text` → `format` (which one, and what it states) → `table` (cells to numbers,
//! `stamp`s in a `zone` to instants) → `sides` (files joined, the missing side made) → aggregation → `save` (written,
//! checked, renamed) with a `record` of where it all came from. Prices are read as the nearest double and written as
//! they are.

mod format;
mod record;
mod save;
mod sides;
mod stamp;
mod table;
mod text;
mod zone;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::data::aggregate::{Day, aggregate, straddling};
use crate::data::align::align;
use crate::data::manifest::sha256_hex;
use crate::data::read::Candles;
use crate::error::{Error, Result, Violation};
use crate::units::{EpochNs, Timeframe};

pub use format::{Format, Side};
pub use record::{ImportRecord, SeriesRecord, SourceRecord};
pub use save::ImportedSeries;
pub use sides::Spread;
pub use stamp::DateOrder;
pub use table::Fold;

use format::{Layout, PriceColumns, StatedSide};
use save::Finished;
use sides::{Changes, Made, OneSide, Pair};
use table::{Rows, Stated, minutes_name};
use zone::Zone;

/// A file to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its side, where the user names it for this file alone.
    pub side: Option<Side>,
}

/// Where the days of aggregated bars begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DayStart {
    /// 00:00 UTC.
    #[default]
    Utc,
    /// 17:00 in New York, daylight saving included.
    NewYork17,
}

impl DayStart {
    /// `utc` or `new-york-17`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Utc => "utc",
            Self::NewYork17 => "new-york-17",
        }
    }

    /// The start of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Utc, Self::NewYork17].into_iter().find(|day| day.as_str() == text.trim())
    }
}

/// What to import, whereto, and what the user states about it.
#[derive(Debug, Clone, Default)]
pub struct ImportRequest {
    /// Text files: of one series, of several months of it, or of both sides.
    pub files: Vec<SourceFile>,
    /// Data root.
    pub root: PathBuf,
    /// Instrument; taken upper-case.
    pub symbol: String,
    /// Length of the bars of the files: `M1`, `M10`, `H4`, `D1`; told from the stamps if not given.
    pub timeframe: Option<String>,
    /// Side of files whose format and name do not tell it.
    pub side: Option<Side>,
    /// Zone of stamps that do not tell it (see the documentation of `--tz`).
    pub zone: Option<String>,
    /// Spread for bars of one price.
    pub spread: Option<Spread>,
    /// Size of a pip, price units, > 0.
    pub pip: Option<f64>,
    /// Size of a point, price units, > 0.
    pub point: Option<f64>,
    /// Where aggregated days begin.
    pub day: DayStart,
    /// Longer timeframes to make.
    pub aggregate: Vec<Timeframe>,
    /// Reads every file as this format.
    pub format: Option<Format>,
    /// Order of day and month where the file does not prove it.
    pub date_order: Option<DateOrder>,
    /// Pass of a doubled hour that the file holds.
    pub fold: Option<Fold>,
    /// Leaves bars out whose ask lies below the bid, instead of refusing.
    pub drop_crossed: bool,
    /// Moves a high or low that does not hold open and close, instead of refusing. Candles whose open is the close of
    /// the bar before, as FXCM's, need it.
    pub widen_range: bool,
    /// Replaces candle files that are there.
    pub force: bool,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct ImportReport {
    /// Instrument, upper case.
    pub symbol: String,
    /// Every pair written, short to long.
    pub series: Vec<ImportedSeries>,
    /// Worth telling, in a fixed order.
    pub warnings: Vec<String>,
}

/// Imports the files of a request. Either every series is written or none, and nothing that was there is harmed.
///
/// Candle files that exist are refused unless `force` is set. What is written has passed the checks of `data check`.
pub fn import(request: &ImportRequest) -> Result<ImportReport> {
    let plan = Plan::of(request)?;
    let paths: Vec<PathBuf> = request.files.iter().map(|file| file.path.clone()).collect();
    let mut sources = Vec::new();
    let mut sides: BTreeMap<Side, Vec<OneSide>> = BTreeMap::new();
    let mut minutes: Option<(i64, &Path)> = None;
    for (number, file) in request.files.iter().enumerate() {
        let read = read_file(file, number, request, &plan.stated)?;
        match minutes {
            Some((first, path)) if first != read.minutes => {
                let rule =
                    format!("all files must have bars of one length; {} has {}", path.display(), minutes_name(first));
                return Err(refuse(&file.path, None, rule, minutes_name(read.minutes), None));
            }
            _ => minutes = Some((read.minutes, &file.path)),
        }
        sources.push(read.record);
        for (side, rows) in read.sides {
            sides.entry(side).or_default().push(rows);
        }
    }
    let minutes = minutes.map(|(minutes, _)| minutes).unwrap_or_default();
    let base = Timeframe::ALL.into_iter().find(|timeframe| timeframe.minutes() == minutes);
    let longer = plan.timeframes(request, minutes, base)?;
    if !request.force {
        save::refuse_overwriting(&request.root, &plan.symbol, base.into_iter().chain(longer.iter().copied()))?;
    }

    let mut joined = BTreeMap::new();
    let mut changes = Changes::default();
    for (side, parts) in sides {
        let (side_rows, changed) = sides::join(parts, &paths, request.widen_range)?;
        changes.duplicates_dropped += changed.duplicates_dropped;
        changes.ranges_widened += changed.ranges_widened;
        joined.insert(side, side_rows);
    }
    let (pair, made) = both_sides(joined, request, &paths)?;
    let mut warnings = Vec::new();
    let mut tell = |what: String| warnings.push(format!("{}: {what}", plan.symbol));
    if let Some(made) = &made {
        tell(format!("{} made, not quoted: {}", made.side, made.how));
    }
    let counts = [
        (pair.crossed_dropped, "bars with the ask below the bid left out"),
        (changes.duplicates_dropped, "exact duplicates left out"),
        (changes.ranges_widened, "bars with high and low moved to hold open and close"),
    ];
    counts.iter().filter(|(count, _)| *count > 0).for_each(|(count, what)| tell(format!("{count} {what}")));

    let record = |bid: &Candles, ask: &Candles, aggregated: bool| SeriesRecord {
        bid_sha256: String::new(),
        ask_sha256: String::new(),
        bid_rows: bid.len(),
        ask_rows: ask.len(),
        sources: sources.clone(),
        made_side: made.as_ref().map(|made| made.side.to_owned()),
        made_how: made.as_ref().map(|made| made.how.clone()),
        aggregated_from: aggregated.then(|| minutes_name(minutes)),
        day: aggregated.then(|| request.day.as_str().to_owned()),
        duplicates_dropped: changes.duplicates_dropped,
        crossed_dropped: pair.crossed_dropped,
        ranges_widened: changes.ranges_widened,
    };
    let mut finished = Vec::new();
    // Longer bars hold the minutes of both sides: one that only the bid has would tear open and close apart.
    let (mut bid, mut ask) = (pair.bid.clone(), pair.ask.clone());
    let timeframe = base.or(longer.first().copied()).unwrap_or(Timeframe::M1);
    align(&mut bid, &mut ask, &plan.symbol, timeframe)?;
    for timeframe in longer {
        refuse_straddling(&bid, minutes, timeframe, &plan, &paths)?;
        let [bid, ask] = [&bid, &ask].map(|side| aggregate(side, timeframe, &plan.day));
        finished.push(Finished { timeframe, record: record(&bid, &ask, true), bid, ask });
    }
    if let Some(timeframe) = base {
        let record = record(&pair.bid, &pair.ask, false);
        finished.insert(0, Finished { timeframe, record, bid: pair.bid, ask: pair.ask });
    }
    let series = save::save(&request.root, &plan.symbol, finished)?;
    warnings.extend(series.iter().flat_map(|series| series.checked.warnings.iter().cloned()));
    Ok(ImportReport { symbol: plan.symbol, series, warnings })
}

/// The request, understood.
struct Plan {
    symbol: String,
    stated: Stated,
    day: Day,
}

impl Plan {
    fn of(request: &ImportRequest) -> Result<Self> {
        let mut wrong = Vec::new();
        let symbol = request.symbol.trim().to_ascii_uppercase();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
        if symbol.is_empty() || symbol.starts_with('.') || !symbol.chars().all(plain) {
            wrong.push(Violation::value("--symbol", format!("must be letters, digits, `.` or `_`, got `{symbol}`")));
        }
        if request.files.is_empty() {
            wrong.push(Violation::value("FILE", "must name at least one file"));
        }
        for (option, size) in [("--pip", request.pip), ("--point", request.point)] {
            if let Some(size) = size.filter(|size| !(size.is_finite() && *size > 0.0)) {
                wrong.push(Violation::value(option, format!("must be > 0, got {size}")));
            }
        }
        let zone = match request.zone.as_deref().map(Zone::parse) {
            Some(Err(reason)) => {
                wrong.push(Violation::value("--tz", reason));
                None
            }
            Some(Ok(zone)) => Some(zone),
            None => None,
        };
        let minutes = match request.timeframe.as_deref().map(|text| (text, table::parse_minutes(text))) {
            Some((text, None)) => {
                wrong
                    .push(Violation::value("--timeframe", format!("must be like M1, M10, H4, D1 or W1, got `{text}`")));
                None
            }
            given => given.and_then(|(_, minutes)| minutes),
        };
        if !wrong.is_empty() {
            return Err(Error::Config(wrong));
        }
        let day = match request.day {
            DayStart::Utc => Day::Utc,
            DayStart::NewYork17 => Day::new_york_17()?,
        };
        let stated = Stated { zone, order: request.date_order, fold: request.fold, point: request.point, minutes };
        Ok(Self { symbol, stated, day })
    }

    /// The timeframes to aggregate, short to long.
    fn timeframes(&self, request: &ImportRequest, minutes: i64, base: Option<Timeframe>) -> Result<Vec<Timeframe>> {
        let mut longer = request.aggregate.clone();
        longer.sort_unstable();
        longer.dedup();
        longer.retain(|timeframe| Some(*timeframe) != base);
        let uneven =
            longer.iter().find(|timeframe| timeframe.minutes() < minutes || timeframe.minutes() % minutes != 0);
        if let Some(timeframe) = uneven {
            let reason = format!("{timeframe} cannot be made of bars of {}", minutes_name(minutes));
            return Err(Error::config("--aggregate", reason));
        }
        if base.is_none() && longer.is_empty() {
            let first = request.files.first().map(|file| file.path.clone()).unwrap_or_default();
            let rule = "a candle file must be one of M1 M5 M15 M30 H1 H4 D1 W1".to_owned();
            let remedy = Some("--aggregate M30,H1 makes longer bars of them".to_owned());
            return Err(refuse(&first, None, rule, format!("bars of {}", minutes_name(minutes)), remedy));
        }
        Ok(longer)
    }
}

/// One file, read.
struct ReadFile {
    sides: Vec<(Side, OneSide)>,
    minutes: i64,
    record: SourceRecord,
}

fn read_file(file: &SourceFile, number: usize, request: &ImportRequest, stated: &Stated) -> Result<ReadFile> {
    let path = &file.path;
    let bytes = std::fs::read(path).map_err(|error| Error::DataFile {
        kind: "FileNotFound",
        path: path.clone(),
        reason: format!("FileNotFound: {error}"),
    })?;
    let sha256 = sha256_hex(&bytes);
    let text = text::decode(bytes, path)?;
    let head = text::Head::read(&text);
    let layout = format::detect(path, &head, request.format)?;
    let rows = table::rows(path, &text, &head, &layout, stated)?;
    let (sides, told_by) = sides_of(file, request.side, &layout, &rows)?;
    let names: Vec<&str> = sides.iter().map(|side| side.as_str()).collect();
    let uses_points = layout.in_points || request.spread == Some(Spread::Column);
    let record = SourceRecord {
        file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        sha256,
        format: layout.format.as_str().to_owned(),
        side: names.join(" and "),
        side_stated_by: told_by.to_owned(),
        zone: rows.zone.clone(),
        point: request.point.filter(|_| uses_points),
        timeframe: minutes_name(rows.minutes),
        rows: rows.lines.len(),
    };
    let origin: Vec<(usize, u64)> = rows.lines.iter().map(|line| (number, *line)).collect();
    let spread = rows.spread_points;
    let one = |candles| OneSide { candles, spread_points: spread.clone(), origin: origin.clone() };
    let sides = sides.into_iter().zip(rows.sides.into_iter().map(one)).collect();
    Ok(ReadFile { sides, minutes: rows.minutes, record })
}

/// The side or sides of a file, and what states them. Two statements must agree.
fn sides_of(file: &SourceFile, given: Option<Side>, layout: &Layout, rows: &Rows) -> Result<(Vec<Side>, &'static str)> {
    let path = &file.path;
    let by_user = file.side.or(given);
    let contradiction = |rule: &str, found: String| {
        Err(refuse(path, None, rule.to_owned(), found, Some("leave --side out, or rename the file".to_owned())))
    };
    if let PriceColumns::Both { .. } = layout.prices {
        return match by_user {
            None => Ok((vec![Side::Bid, Side::Ask], "the format")),
            Some(side) => contradiction(
                "a file with bid and ask in every row has both sides",
                format!("--side {}", side.as_str()),
            ),
        };
    }
    if let StatedSide::Is(is) = layout.side {
        return match by_user {
            Some(side) if side != is => contradiction(
                &format!("--side must agree with the format: {} holds {} prices", layout.format.as_str(), is.as_str()),
                format!("--side {}", side.as_str()),
            ),
            _ => Ok((vec![is], "the format")),
        };
    }
    // `--bid FILE` and `--ask FILE` speak of one file and win over its name; `--side` speaks of all.
    if let Some(side) = file.side {
        return Ok((vec![side], "the user"));
    }
    let named = format::named_side(path);
    match (named, given) {
        (Some(named), Some(given)) if named != given => contradiction(
            &format!("--side must agree with the file name, which says {}", named.as_str()),
            format!("--side {}", given.as_str()),
        ),
        (_, Some(given)) => Ok((vec![given], "the user")),
        (Some(named), None) => Ok((vec![named], "the file name")),
        (None, None) => match (layout.side, rows.exchange_volume) {
            (StatedSide::Unless { side, .. }, None) => Ok((vec![side], "the format")),
            (StatedSide::Unless { .. }, Some(line)) => Err(refuse(
                path,
                Some(line),
                "the side must be stated: MetaTrader draws bars from the bid, but those of an exchange from the last price".to_owned(),
                "volume of an exchange".to_owned(),
                Some("--side bid or --side last".to_owned()),
            )),
            _ => Err(refuse(
                path,
                None,
                "the side of the prices must be stated".to_owned(),
                "none in the format, the content or the file name".to_owned(),
                Some("--side bid|ask|mid|last, or --bid FILE and --ask FILE".to_owned()),
            )),
        },
    }
}

/// Bid and ask as quoted, or made from one price and a spread.
fn both_sides(
    mut joined: BTreeMap<Side, OneSide>,
    request: &ImportRequest,
    paths: &[PathBuf],
) -> Result<(Pair, Option<Made>)> {
    if let (Some(bid), Some(ask), true) = (joined.get(&Side::Bid), joined.get(&Side::Ask), joined.len() == 2) {
        if request.spread.is_some() {
            return Err(Error::config("--spread", "must not be given: the files hold bid and ask"));
        }
        return sides::quoted_pair(bid.clone(), ask.clone(), request.drop_crossed, paths).map(|pair| (pair, None));
    }
    let names: Vec<&str> = joined.keys().map(|side| side.as_str()).collect();
    let first = paths.first().map_or(Path::new(""), PathBuf::as_path);
    let (Some((side, given)), true) = (joined.pop_first(), joined.is_empty()) else {
        let rule = "the files must hold bid and ask, or one price".to_owned();
        return Err(refuse(first, None, rule, names.join(" and "), Some("import one price at a time".to_owned())));
    };
    let Some(rule) = request.spread else {
        let column = if given.spread_points.is_some() { "the file has a spread column" } else { "no spread column" };
        return Err(refuse(
            first,
            None,
            "bars of one price need a spread for the other side".to_owned(),
            format!("only {} prices, {column}", side.as_str()),
            Some(
                "--spread 0.8pips, --spread 0.00008, or --spread-column with --point where the file has one".to_owned(),
            ),
        ));
    };
    let (amounts, words) = sides::spreads(rule, &given, request.pip, request.point)?;
    let (bid, ask) = sides::make_pair(side, &given.candles, &amounts);
    let (made, how) = match side {
        Side::Bid => ("ask", format!("bid + {words}")),
        Side::Ask => ("bid", format!("ask - {words}")),
        Side::Mid | Side::Last => ("bid and ask", format!("{} -/+ half of {words}", side.as_str())),
    };
    Ok((Pair { bid, ask, crossed_dropped: 0 }, Some(Made { side: made, how })))
}

fn refuse_straddling(bars: &Candles, minutes: i64, timeframe: Timeframe, plan: &Plan, paths: &[PathBuf]) -> Result<()> {
    let Some(i) = straddling(&bars.time, minutes, timeframe, &plan.day) else { return Ok(()) };
    let first = paths.first().map_or(Path::new(""), PathBuf::as_path);
    let rule = format!("every bar must lie inside one {timeframe} bar to be aggregated");
    let found = format!("a bar of {} at {} that reaches beyond", minutes_name(minutes), iso(bars.time[i]));
    let remedy = "--day utc or --day new-york-17 moves the bins; shorter bars fit into any".to_owned();
    Err(refuse(first, None, rule, found, Some(remedy)))
}

/// An error of import.
pub(crate) fn refuse(path: &Path, line: Option<u64>, rule: String, found: String, remedy: Option<String>) -> Error {
    Error::DataImport { path: path.to_owned(), line, rule, found, remedy }
}

pub(crate) fn iso(t: EpochNs) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(t)).map_or_else(|_| format!("{t} ns"), |t| t.to_string())
}
