//! The parts of a grid beside its axes: search, objective, gates, walk-forward, limits, output.

use std::time::Duration;

use crate::document::NodeKind;
use crate::grid::reader::{At, Reader};
use crate::objective::{Gates, Goal, Objective};
use crate::plan::memory::parse_bytes;
use crate::search::Search;
use crate::space::axis::decimal;
use crate::walkforward::verdict::Checks;

/// How windows follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowMode {
    /// Train windows of fixed length move on.
    Rolling,
    /// Train windows start together and grow.
    Anchored,
    /// Every combination of several lengths.
    Matrix,
}

impl WindowMode {
    /// `rolling`, `anchored` or `matrix`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::Anchored => "anchored",
            Self::Matrix => "matrix",
        }
    }
}

/// A length of time of a window: `365d`, `12mo`, `5000bars`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Calendar days.
    Days(u32),
    /// Calendar months.
    Months(u32),
    /// Bars of the primary timeframe.
    Bars(u64),
}

impl std::fmt::Display for Length {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Days(n) => write!(f, "{n}d"),
            Self::Months(n) => write!(f, "{n}mo"),
            Self::Bars(n) => write!(f, "{n}bars"),
        }
    }
}

impl Length {
    /// Parses `365d`, `12mo` or `5000bars`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        match unit.trim() {
            "d" => number.parse().ok().map(Self::Days),
            "mo" => number.parse().ok().map(Self::Months),
            "bars" => number.parse().ok().map(Self::Bars),
            _ => None,
        }
    }

    /// Whether it is shorter than another of the same unit; unknown where the units differ.
    pub fn is_shorter(self, than: Self) -> Option<bool> {
        match (self, than) {
            (Self::Days(a), Self::Days(b)) | (Self::Months(a), Self::Months(b)) => Some(a < b),
            (Self::Bars(a), Self::Bars(b)) => Some(a < b),
            _ => None,
        }
    }

    fn is_zero(self) -> bool {
        matches!(self, Self::Days(0) | Self::Months(0) | Self::Bars(0))
    }
}

/// Windows of a walk-forward.
#[derive(Debug, Clone, PartialEq)]
pub struct WalkForward {
    /// How windows follow one another.
    pub mode: WindowMode,
    /// Length of the part the choice sees; several only in matrix mode.
    pub train: Vec<Length>,
    /// Length of the part it is judged on; several only in matrix mode.
    pub test: Vec<Length>,
    /// Distance between tests; none: the length of the test.
    pub step: Option<Length>,
    /// Gap between train and test; none: the longer of a day and the longest holding time.
    pub embargo: Option<Length>,
    /// Tests may overlap; each bar then counts for the first test that holds it.
    pub allow_overlap: bool,
    /// Bars at the end that nothing reads.
    pub holdout: Option<Holdout>,
    /// What the stitched result must meet.
    pub verdict: Checks,
}

/// Bars at the end of the data that no search step reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holdout {
    /// The last so much.
    Last(Length),
    /// Everything from this day (00:00 UTC) on.
    From(jiff::civil::Date),
}

/// Bounds of a run; none of them changes a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Cap of memory in bytes.
    pub memory: Option<u64>,
    /// Cap of time.
    pub time: Option<Duration>,
    /// Trials per chunk.
    pub chunk: Option<u64>,
}

/// How many rows the CSV keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CsvRows {
    /// The best so many.
    Best(u64),
    /// All.
    All,
}

/// Where and how much is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Output root.
    pub dir: Option<String>,
    /// Rows that get the artefacts of a single run.
    pub top: u64,
    /// Rows of the CSV.
    pub csv: CsvRows,
}

impl Default for Output {
    /// Ten best rows with artefacts, 100,000 rows of CSV.
    fn default() -> Self {
        Self { dir: None, top: 10, csv: CsvRows::Best(100_000) }
    }
}

/// Most rows that get artefacts.
const MAX_TOP: u64 = 10_000;
/// Largest chunk.
const MAX_CHUNK: u64 = 65_536;

pub(super) fn read_search(reader: &mut Reader, at: Option<At<'_>>) -> Search {
    let Some(at) = at else { return Search::Grid };
    if at.node.as_text().is_some() {
        if reader.word(&at, &[("grid", true), ("random", false)]) == Some(false) {
            let hint = Some("for example `search: {method: random, trials: 5000}`".to_owned());
            reader.fault_with_hint(&at.node.span, at.path, "random search needs `trials`", hint);
        }
        return Search::Grid;
    }
    reader.map(&at, &["method", "trials"]);
    let is_grid = match at.key("method") {
        Some(method) => reader.word(&method, &[("grid", true), ("random", false)]),
        None => Some(at.key("trials").is_none()),
    };
    let trials = at.key("trials").and_then(|trials| reader.whole(&trials, 1, u64::MAX).map(|n| (trials, n)));
    match (is_grid, trials) {
        (Some(false), Some((_, trials))) => Search::Random { trials },
        (Some(false), None) => {
            if at.key("trials").is_none() {
                let hint = Some("for example `search: {method: random, trials: 5000}`".to_owned());
                reader.fault_with_hint(&at.node.span, at.path, "random search needs `trials`", hint);
            }
            Search::Grid
        }
        (Some(true), Some((trials, _))) => {
            let hint = Some("`method: random` draws that many".to_owned());
            reader.fault_with_hint(&trials.node.span, trials.path, "`method: grid` tries every setting", hint);
            Search::Grid
        }
        _ => Search::Grid,
    }
}

pub(super) fn read_objective(reader: &mut Reader, at: Option<At<'_>>) -> Objective {
    let Some(at) = at else { return Objective::default() };
    let (goal, text_at) = if at.node.as_text().is_some() {
        (Goal::Maximize, Some(at))
    } else {
        reader.map(&at, &["maximize", "minimize"]);
        match (at.key("maximize"), at.key("minimize")) {
            (Some(_), Some(second)) => {
                let message = "an objective is either maximised or minimised, not both";
                reader.fault(&second.node.span, second.path, message);
                return Objective::default();
            }
            (Some(text), None) => (Goal::Maximize, Some(text)),
            (None, text) => {
                if text.is_none() && at.node.as_map().is_some() {
                    let hint = Some("for example `objective: {maximize: sharpe_equity_daily}`".to_owned());
                    reader.fault_with_hint(&at.node.span, at.path.clone(), "names no metric", hint);
                }
                (Goal::Minimize, text)
            }
        }
    };
    let Some(text_at) = text_at else { return Objective::default() };
    let Some(text) = reader.text(&text_at) else { return Objective::default() };
    Objective::parse(goal, text).unwrap_or_else(|error| {
        reader.expression(&text_at, text, error);
        Objective::default()
    })
}

pub(super) fn read_gates(reader: &mut Reader, at: Option<At<'_>>) -> Gates {
    let mut gates = Gates::default();
    let Some(at) = at else { return gates };
    for (number, node) in reader.list(&at).iter().enumerate() {
        let item = at.item(number, node);
        if let Some(text) = reader.text(&item)
            && let Err(error) = gates.push(text)
        {
            reader.expression(&item, text, error);
        }
    }
    gates
}

const WALK_FORWARD_KEYS: [&str; 8] =
    ["mode", "train", "test", "step", "embargo", "allow_overlap", "holdout", "verdict"];

pub(super) fn read_walk_forward(reader: &mut Reader, at: Option<At<'_>>) -> Option<WalkForward> {
    let at = at?;
    reader.map(&at, &WALK_FORWARD_KEYS);
    let modes = [("rolling", WindowMode::Rolling), ("anchored", WindowMode::Anchored), ("matrix", WindowMode::Matrix)];
    let mode = at.key("mode").map_or(Some(WindowMode::Rolling), |mode| reader.word(&mode, &modes));
    let several = mode == Some(WindowMode::Matrix);
    let mut required = |key: &str| {
        let lengths = at.key(key).map(|at| read_lengths(reader, &at, several));
        if lengths.is_none() && at.node.as_map().is_some() {
            let hint = Some(format!("for example `{key}: 365d`"));
            reader.fault_with_hint(&at.node.span, format!("{}.{key}", at.path), "is required", hint);
        }
        lengths.unwrap_or_default()
    };
    let (train, test) = (required("train"), required("test"));
    let mut optional = |key: &str, zero: bool| at.key(key).and_then(|at| read_length(reader, &at, zero));
    let (step, embargo) = (optional("step", false), optional("embargo", true));
    let allow_overlap = at.key("allow_overlap").and_then(|at| reader.flag(&at)).unwrap_or(false);
    if let (Some(step), Some(step_at), false) = (step, at.key("step"), allow_overlap)
        && let Some(test) = test.iter().find(|test| step.is_shorter(**test) == Some(true))
    {
        let message = format!("{step} is shorter than the test of {test}: tests would overlap");
        let hint = Some("leave `step` out, or say `allow_overlap: true`".to_owned());
        reader.fault_with_hint(&step_at.node.span, step_at.path, message, hint);
    }
    let holdout = at.key("holdout").and_then(|at| read_holdout(reader, &at));
    let verdict = at.key("verdict").map_or_else(Checks::default, |at| read_checks(reader, &at));
    Some(WalkForward { mode: mode?, train, test, step, embargo, allow_overlap, holdout, verdict })
}

/// A length, or the day from which on the bars are kept back: `{from: 2017-01-01}`.
fn read_holdout(reader: &mut Reader, at: &At<'_>) -> Option<Holdout> {
    if at.node.as_map().is_none() {
        return read_length(reader, at, false).map(Holdout::Last);
    }
    reader.map(at, &["from"]);
    let Some(from) = at.key("from") else {
        let hint = Some("for example `holdout: {from: 2017-01-01}`".to_owned());
        reader.fault_with_hint(&at.node.span, at.path.clone(), "names no day", hint);
        return None;
    };
    let day = from.node.as_text().and_then(|text| text.parse().ok());
    if day.is_none() {
        reader.wrong(&from, "a day (`2017-01-01`)");
    }
    day.map(Holdout::From)
}

fn read_checks(reader: &mut Reader, at: &At<'_>) -> Checks {
    let mut checks = Checks::none();
    for (number, node) in reader.list(at).iter().enumerate() {
        let item = at.item(number, node);
        if let Some(text) = reader.text(&item)
            && let Err(error) = checks.push(text)
        {
            reader.expression(&item, text, error);
        }
    }
    checks
}

fn read_lengths(reader: &mut Reader, at: &At<'_>, several: bool) -> Vec<Length> {
    match &at.node.kind {
        NodeKind::List(items) if several && !items.is_empty() => items
            .iter()
            .enumerate()
            .filter_map(|(number, node)| read_length(reader, &at.item(number, node), false))
            .collect(),
        NodeKind::List(_) if !several => {
            let hint = Some("several lengths make a matrix: `mode: matrix`".to_owned());
            reader.fault_with_hint(&at.node.span, at.path.clone(), "must be one length, got a list", hint);
            Vec::new()
        }
        _ => read_length(reader, at, false).into_iter().collect(),
    }
}

fn read_length(reader: &mut Reader, at: &At<'_>, zero: bool) -> Option<Length> {
    let length = at.node.as_text().and_then(Length::parse).filter(|length| zero || !length.is_zero());
    if length.is_none() {
        let bound = if zero { "" } else { " above 0" };
        reader.wrong(at, &format!("a length{bound} in d, mo or bars (`365d`, `12mo`, `5000bars`)"));
    }
    length
}

pub(super) fn read_limits(reader: &mut Reader, at: Option<At<'_>>) -> Limits {
    let Some(at) = at else { return Limits::default() };
    reader.map(&at, &["memory", "time", "chunk"]);
    // A number without a unit is no text in YAML, so `memory: 8` is refused here rather than taken for 8 bytes.
    let bytes = |text: &str| parse_bytes(text).ok().and_then(|bytes| u64::try_from(bytes).ok());
    let memory = quantity(reader, &at, "memory", bytes, "an amount of memory (`8GB`, `512MiB`)");
    let time = quantity(reader, &at, "time", parse_time, "a time (`90s`, `30min`, `6h`, `2d`)");
    let chunk = at.key("chunk").and_then(|chunk| reader.whole(&chunk, 1, MAX_CHUNK));
    Limits { memory, time, chunk }
}

pub(crate) fn quantity<T>(
    reader: &mut Reader,
    at: &At<'_>,
    key: &str,
    parse: impl Fn(&str) -> Option<T>,
    rule: &str,
) -> Option<T> {
    let at = at.key(key)?;
    let amount = at.node.as_text().and_then(parse);
    if amount.is_none() {
        reader.wrong(&at, rule);
    }
    amount
}

const TIME_UNITS: [(&str, u64); 5] = [("min", 60), ("m", 60), ("s", 1), ("h", 3600), ("d", 86_400)];

/// `number unit`, the number a decimal > 0; whole milliseconds, rounded down.
pub(crate) fn parse_time(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, factor) =
        TIME_UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim(), *factor)))?;
    let amount = decimal(number).ok()?.checked_mul((factor * 1000).into())?;
    u64::try_from(amount.floor()).ok().filter(|amount| *amount > 0).map(Duration::from_millis)
}

pub(super) fn read_output(reader: &mut Reader, at: Option<At<'_>>) -> Output {
    let mut output = Output::default();
    let Some(at) = at else { return output };
    reader.map(&at, &["dir", "top", "csv"]);
    output.dir = at.key("dir").and_then(|dir| reader.text(&dir).map(str::to_owned));
    if let Some(top) = at.key("top").and_then(|top| reader.whole(&top, 0, MAX_TOP)) {
        output.top = top;
    }
    if let Some(csv) = at.key("csv") {
        if csv.node.as_text() == Some("all") {
            output.csv = CsvRows::All;
        } else if let NodeKind::Number(literal) = &csv.node.kind
            && let Ok(rows) = literal.parse()
        {
            output.csv = CsvRows::Best(rows);
        } else {
            reader.wrong(&csv, "a whole number of rows or `all`");
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_and_lengths() {
        assert_eq!(parse_time("6h"), Some(Duration::from_secs(21_600)));
        assert_eq!(parse_time("0.25 s"), Some(Duration::from_millis(250)));
        assert_eq!(parse_time("0s"), None);
        assert_eq!(parse_time("-1s"), None);
        assert_eq!(parse_time("30min"), Some(Duration::from_secs(1800)));
        assert_eq!(Length::parse("365d"), Some(Length::Days(365)));
        assert_eq!(Length::parse("5000bars").map(|length| length.to_string()), Some("5000bars".to_owned()));
        assert_eq!(Length::parse("d"), None);
        assert_eq!(Length::parse("3w"), None);
    }
}
