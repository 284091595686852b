//! Everything that can go wrong in one backtest, with the codes of the interface (`E4001` … `E4302`).
//!
//! Variants hold values, so a message can say what was found, where, and which rule it breaks. Remedies come
//! from [`Error::hint`].

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::units::{EpochNs, Timeframe};

/// Shorthand used throughout the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One broken rule of a configuration, addressed by its dotted path (`account.risk_per_trade`, `sessions[1].start`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Dotted path from the root of the document.
    pub path: String,
    /// The rule and the value found: `must be > 0, got -5`.
    pub reason: String,
    /// Nearest valid name or another remedy.
    pub hint: Option<String>,
    /// The complaint is about the key itself (unknown, duplicate) and not about its value.
    pub about_key: bool,
}

impl Violation {
    /// A violation of the value at `path`.
    pub fn value(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into(), hint: None, about_key: false }
    }

    /// An unknown key at `path`; `nearest` is the closest valid name, if any is close.
    pub fn unknown_key(path: impl Into<String>, nearest: Option<&str>) -> Self {
        Self {
            path: path.into(),
            reason: "unknown key".to_owned(),
            hint: nearest.map(|name| format!("did you mean `{name}`?")),
            about_key: true,
        }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Category of an error in the interface document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// Configuration: refused before a run starts.
    Config,
    /// Bars, news or other market input.
    MarketData,
    /// Fills and positions.
    Execution,
    /// What a strategy returned.
    Strategy,
    /// Everything else.
    Runtime,
}

impl Category {
    /// Name in the interface document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::MarketData => "market_data",
            Self::Execution => "execution",
            Self::Strategy => "strategy",
            Self::Runtime => "runtime",
        }
    }

    /// The category of a code of the interface, as rows of a sweep keep it; a code of no category is `runtime`.
    pub fn of_code(code: &str) -> Self {
        match code {
            "E4001" | "E4002" => Self::Config,
            "E4004" => Self::MarketData,
            "E4005" | "E4300" => Self::Execution,
            "E4006" | "E4200" => Self::Strategy,
            code if code.starts_with("E41") => Self::MarketData,
            _ => Self::Runtime,
        }
    }
}

/// A failure of one backtest or of its inputs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// E4001.
    #[error("strategy `{name}` is not registered; known: {}", known.join(", "))]
    StrategyNotFound {
        /// The name found.
        name: String,
        /// Every registered name.
        known: Vec<String>,
        /// The closest of them.
        nearest: Option<String>,
    },
    /// E4002. All violations, not only the first.
    #[error("{}", join(.0))]
    Config(Vec<Violation>),
    /// E4003. A column has no value at the first tradable bar.
    #[error(
        "{column} has its first value at bar {first_index} of {timeframe}, but warmup_bars is {warmup_bars}; the setting needs warmup_bars >= {needed}"
    )]
    WarmupTooShort {
        /// The column.
        column: String,
        /// Its timeframe.
        timeframe: Timeframe,
        /// First defined index.
        first_index: usize,
        /// What the run has.
        warmup_bars: usize,
        /// What it would need.
        needed: usize,
    },
    /// E4003. A column cannot be built.
    #[error("{column} is not available: {reason}")]
    IndicatorNotAvailable {
        /// The column.
        column: String,
        /// Its timeframe.
        timeframe: Timeframe,
        /// Why.
        reason: String,
    },
    /// E4004.
    #[error("{timeframe}: {available} bars available, {required} required (warm-up included)")]
    InsufficientData {
        /// The timeframe that is too short.
        timeframe: Timeframe,
        /// Bars needed.
        required: usize,
        /// Bars found.
        available: usize,
    },
    /// E4005.
    #[error("{open} positions are open, the limit is {limit}")]
    PositionLimitExceeded {
        /// `account.max_positions`.
        limit: usize,
        /// Positions found open.
        open: usize,
    },
    /// E4006.
    #[error("bar {bar}: signal field `{field}` is {found}; it must be {rule}")]
    InvalidSignal {
        /// Bar index in the loaded series.
        bar: usize,
        /// Open time of that bar.
        timestamp_ns: EpochNs,
        /// Field of the signal.
        field: &'static str,
        /// The value found, printed.
        found: String,
        /// What it must be.
        rule: &'static str,
    },
    /// E4100: missing or unreadable.
    #[error("{}: {reason}", path.display())]
    DataFile {
        /// `FileNotFound`, `ParseError`; for generated bars `Unwritable` and `StorageFull`; for bars given in memory
        /// `NotInMemory`.
        kind: &'static str,
        /// File as addressed by the user (relative to its root where possible).
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// E4101: column missing, of another type, of another zone, or with nulls.
    #[error("{}: column `{column}`: {kind}: expected {expected}, found {found}", path.display())]
    DataSchema {
        /// `MissingColumn`, `InvalidColumnType`, `InvalidTimezone` or `NullValue`.
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// E4102.
    #[error("{}: {kind}: row {row}{}: {rule}, found {found}", path.display(), at(.timestamp_ns))]
    DataCorrupt {
        /// `CorruptData`, `EmptyData` or `DateRangeEmpty`.
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// Row in file order, from 0.
        row: usize,
        /// Its stamp, where it has one.
        timestamp_ns: Option<EpochNs>,
        /// The rule broken.
        rule: String,
        /// The values found.
        found: String,
    },
    /// E4103.
    #[error("{symbol} {timeframe}: bid has {bid} bars, ask {ask}, common {common}: {reason}")]
    DataAlignment {
        /// Instrument.
        symbol: String,
        /// Timeframe.
        timeframe: Timeframe,
        /// Bars of the bid file.
        bid: usize,
        /// Bars of the ask file.
        ask: usize,
        /// Bars on both sides.
        common: usize,
        /// The rule broken.
        reason: String,
    },
    /// E4104.
    #[error("{symbol} {timeframe}: InvalidSpread at {}: {field} ask {ask} is below bid {bid}", iso(*.timestamp_ns))]
    DataSpread {
        /// Instrument.
        symbol: String,
        /// Timeframe.
        timeframe: Timeframe,
        /// Bar.
        timestamp_ns: EpochNs,
        /// `Open` or `Close`.
        field: &'static str,
        /// Bid price found.
        bid: f64,
        /// Ask price found.
        ask: f64,
    },
    /// E4105.
    #[error("{}: row {row}: {rule}, found {found}", path.display())]
    NewsInvalid {
        /// The file.
        path: PathBuf,
        /// Row in file order, from 0.
        row: usize,
        /// The rule broken.
        rule: String,
        /// The value found.
        found: String,
    },
    /// E4106.
    #[error("the tradable bar at {} has no {timeframe} bar at or before it", iso(*.timestamp_ns))]
    HtfUnmapped {
        /// The higher timeframe.
        timeframe: Timeframe,
        /// Primary bar.
        timestamp_ns: EpochNs,
    },
    /// E4107. A text file cannot be imported. The code is this project's own: the interface document knows no import.
    #[error("{}{}: {rule}, found {found}", path.display(), line.map_or_else(String::new, |line| format!(":{line}")))]
    DataImport {
        /// The file, as the user named it.
        path: PathBuf,
        /// Line of the file, from 1, where one line is at fault.
        line: Option<u64>,
        /// The rule broken.
        rule: String,
        /// The value found.
        found: String,
        /// The option that settles it.
        remedy: Option<String>,
    },
    /// E4200.
    #[error("bar {bar}: strategy failed: {reason}")]
    StrategyFailure {
        /// Bar index in the loaded series.
        bar: usize,
        /// What the strategy said.
        reason: String,
    },
    /// E4300.
    #[error("bar {bar}: {reason}")]
    ExecutionFailure {
        /// Bar index in the loaded series.
        bar: usize,
        /// What was violated.
        reason: String,
    },
    /// E4301.
    #[error("equity differs from balance plus unrealised profit by {difference}")]
    Consistency {
        /// In account currency.
        difference: f64,
    },
    /// E4302.
    #[error("metric `{key}` is not finite")]
    MetricNotFinite {
        /// The metric.
        key: &'static str,
    },
    /// E4900. A panic caught at a boundary.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// A configuration error with one violation.
    pub fn config(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Config(vec![Violation::value(path, reason)])
    }

    /// Code of the interface, `E4001` … `E4900`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::StrategyNotFound { .. } => "E4001",
            Self::Config(_) => "E4002",
            Self::WarmupTooShort { .. } | Self::IndicatorNotAvailable { .. } => "E4003",
            Self::InsufficientData { .. } => "E4004",
            Self::PositionLimitExceeded { .. } => "E4005",
            Self::InvalidSignal { .. } => "E4006",
            Self::DataFile { .. } => "E4100",
            Self::DataSchema { .. } => "E4101",
            Self::DataCorrupt { .. } => "E4102",
            Self::DataAlignment { .. } => "E4103",
            Self::DataSpread { .. } => "E4104",
            Self::NewsInvalid { .. } => "E4105",
            Self::HtfUnmapped { .. } => "E4106",
            Self::DataImport { .. } => "E4107",
            Self::StrategyFailure { .. } => "E4200",
            Self::ExecutionFailure { .. } => "E4300",
            Self::Consistency { .. } => "E4301",
            Self::MetricNotFinite { .. } => "E4302",
            Self::Internal(_) => "E4900",
        }
    }

    /// Category of the interface document.
    pub fn category(&self) -> Category {
        match self {
            Self::StrategyNotFound { .. } | Self::Config(_) => Category::Config,
            Self::WarmupTooShort { .. }
            | Self::IndicatorNotAvailable { .. }
            | Self::Consistency { .. }
            | Self::MetricNotFinite { .. }
            | Self::Internal(_) => Category::Runtime,
            Self::InsufficientData { .. }
            | Self::DataFile { .. }
            | Self::DataSchema { .. }
            | Self::DataCorrupt { .. }
            | Self::DataAlignment { .. }
            | Self::DataSpread { .. }
            | Self::NewsInvalid { .. }
            | Self::HtfUnmapped { .. }
            | Self::DataImport { .. } => Category::MarketData,
            Self::PositionLimitExceeded { .. } | Self::ExecutionFailure { .. } => Category::Execution,
            Self::InvalidSignal { .. } | Self::StrategyFailure { .. } => Category::Strategy,
        }
    }

    /// `details` of the error document (config-and-errors specification §8.3); an empty object where there is none.
    pub fn details(&self) -> Value {
        match self {
            Self::StrategyNotFound { .. } | Self::Config(_) | Self::Internal(_) => json!({}),
            Self::WarmupTooShort { column, timeframe, first_index, .. } => {
                json!({ "indicator": column, "timeframe": timeframe.as_str(), "index": first_index })
            }
            Self::IndicatorNotAvailable { column, timeframe, .. } => {
                json!({ "indicator": column, "timeframe": timeframe.as_str(), "index": null })
            }
            Self::InsufficientData { timeframe, required, available } => {
                json!({ "required": required, "available": available, "timeframe": timeframe.as_str() })
            }
            Self::PositionLimitExceeded { limit, open } => json!({ "limit": limit, "open": open }),
            Self::InvalidSignal { bar, timestamp_ns, field, .. } => {
                json!({ "bar": bar, "timestamp_ns": timestamp_ns, "field": field })
            }
            Self::DataFile { kind, path, .. } => {
                json!({ "kind": kind, "path": path.to_string_lossy(), "timeframe": timeframe_of(path) })
            }
            Self::DataSchema { column, found, .. } => json!({ "column": column, "found": found }),
            Self::DataCorrupt { row, timestamp_ns, rule, .. } => {
                json!({ "row": row, "timestamp_ns": timestamp_ns, "rule": rule })
            }
            Self::DataAlignment { bid, ask, common, .. } => json!({ "bid": bid, "ask": ask, "common": common }),
            Self::DataSpread { timestamp_ns, .. } => json!({ "timestamp_ns": timestamp_ns }),
            Self::NewsInvalid { row, rule, .. } => json!({ "row": row, "rule": rule }),
            Self::HtfUnmapped { timeframe, timestamp_ns } => {
                json!({ "timeframe": timeframe.as_str(), "timestamp_ns": timestamp_ns })
            }
            Self::DataImport { line, rule, .. } => json!({ "line": line, "rule": rule }),
            Self::StrategyFailure { bar, .. } | Self::ExecutionFailure { bar, .. } => json!({ "bar": bar }),
            Self::Consistency { difference } => json!({ "difference": difference }),
            Self::MetricNotFinite { key } => json!({ "key": key }),
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::StrategyNotFound { nearest, .. } => {
                nearest.as_ref().map(|name| format!("did you mean `{name}`?"))
            }
            Self::WarmupTooShort { needed, .. } => {
                Some(format!("set `warmup_bars` to {needed} or more, for the whole space"))
            }
            Self::DataFile { kind: "FileNotFound", path, .. } if path.to_string_lossy().contains("news") => Some(
                "the calendar is read because news_filter.enabled is true; OMEGA_NEWS_CALENDAR_FILE names it (default data/news/news_calender_history.parquet)".to_owned(),
            ),
            Self::DataFile { kind: "StorageFull", .. } => Some(
                "free some space, or name a cache folder with room in OMEGA_CACHE_DIR; then start the same command again"
                    .to_owned(),
            ),
            Self::DataFile { kind: "FileNotFound", .. } => Some(
                "bars are read from {root}/{SYMBOL}/{SYMBOL}_{TF}_{BID|ASK}.parquet; OMEGA_DATA_PARQUET_ROOT sets the root (default data/parquet)".to_owned(),
            ),
            Self::DataSchema { kind: "InvalidTimezone" | "InvalidColumnType", column, .. }
                if column == "UTC time" =>
            {
                Some("write the column as Timestamp(nanosecond, \"UTC\"); most table libraries default to microseconds".to_owned())
            }
            Self::DataImport { remedy, .. } => remedy.clone(),
            Self::DataSpread { .. } => {
                Some("repair or drop the crossed rows at the source; nothing is guessed here".to_owned())
            }
            _ => None,
        }
    }
}

/// The timeframe in the name of a candle file, `EURUSD_H1_BID.parquet`; none of any other file.
fn timeframe_of(path: &Path) -> Option<&'static str> {
    let name = path.file_stem()?.to_str()?;
    name.split('_').rev().find_map(|part| part.parse::<Timeframe>().ok()).map(Timeframe::as_str)
}

fn join(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn iso(ns: EpochNs) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns)).map_or_else(|_| format!("{ns} ns"), |t| t.to_string())
}

fn at(ns: &Option<EpochNs>) -> String {
    ns.map_or_else(String::new, |ns| format!(" ({})", iso(ns)))
}

/// The name of `known` closest to `given`, if it is close enough to be what was meant.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = given.to_ascii_lowercase();
    known
        .into_iter()
        // A name may be listed because it stands in the same faulty file; it is no remedy for itself.
        .filter(|name| *name != given)
        .map(|name| (strsim::jaro_winkler(&lower, &name.to_ascii_lowercase()), name))
        .filter(|(score, _)| *score >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_name_what_the_interface_names() {
        let path = PathBuf::from("EUR_USD/EUR_USD_H1_BID.parquet");
        let error = Error::DataFile { kind: "FileNotFound", path, reason: String::new() };
        assert_eq!(
            error.details(),
            json!({ "kind": "FileNotFound", "path": "EUR_USD/EUR_USD_H1_BID.parquet", "timeframe": "H1" })
        );
        assert_eq!(timeframe_of(Path::new("news_calendar.parquet")), None);
        for error in [
            error,
            Error::config("a", "b"),
            Error::Consistency { difference: 1.0 },
            Error::StrategyFailure { bar: 1, reason: String::new() },
            Error::ExecutionFailure { bar: 1, reason: String::new() },
            Error::InsufficientData { timeframe: Timeframe::H1, required: 2, available: 1 },
        ] {
            assert_eq!(Category::of_code(error.code()), error.category(), "{error}");
        }
    }

    #[test]
    fn the_nearest_name_is_another_one() {
        let known = ["windw_length", "window_length", "ema_length"];
        assert_eq!(nearest("windw_length", known), Some("window_length"));
        assert_eq!(nearest("Window_Length", known), Some("window_length"));
        assert_eq!(nearest("qqq", known), None);
    }
}
