//! A batch file: which sweeps and walk-forwards a night is for, in which order, within which limits.
//!
//! Reading is strict, as for a grid, but does not look into the grids: one that is wrong fails its own job, when its turn
//! comes, and no other. [`run`] works the jobs off, [`summary`] says what became of them.

pub mod run;
pub mod summary;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::error::nearest;
use engine::units::Timeframe;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

use crate::diagnostic::Diagnostics;
use crate::document::{Document, Node, NodeKind};
use crate::grid::reader::{At, Reader};
use crate::grid::sections::{parse_time, quantity};
use crate::grid::{is_name_char, read_name, stem_of};
use crate::plan::memory::parse_bytes;

const KEYS: [&str; 6] = ["name", "jobs", "limits", "retries", "retry_wait", "output"];
const JOB_KEYS: [&str; 9] = ["name", "grid", "kind", "symbols", "timeframes", "set", "variants", "priority", "retries"];
const LIMIT_KEYS: [&str; 5] = ["threads", "memory", "time", "finish_by", "time_zone"];

/// Longest name of a job: with the hash it still names a run folder.
const MAX_NAME: usize = 91;
/// Most jobs of a batch.
const MAX_JOBS: usize = 10_000;
/// Tries after the first, where the file does not say.
const RETRIES: u32 = 1;
/// Pause before jobs are tried again, where the file does not say.
const RETRY_WAIT: Duration = Duration::from_secs(30);

/// What a job does with its grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Evaluates every setting and ranks them.
    Sweep,
    /// Chooses window by window and judges the choices.
    WalkForward,
}

impl Kind {
    /// `sweep` or `walkforward`, as the commands are called.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sweep => "sweep",
            Self::WalkForward => "walkforward",
        }
    }
}

/// One grid on one symbol and timeframe: a run folder of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Unique in the batch; the name of the run folder, without its hash.
    pub name: String,
    /// What is done.
    pub kind: Kind,
    /// Grid file, relative to the working directory like the batch file itself.
    pub grid: PathBuf,
    /// Symbol put in place of the run config's.
    pub symbol: Option<String>,
    /// Primary timeframe put in place of the run config's.
    pub timeframe: Option<Timeframe>,
    /// Name of the assignments that set it apart from its siblings.
    pub variant: Option<String>,
    /// Assignments as `--set` takes them, in order; those for symbol and timeframe come first.
    pub set: Vec<String>,
    /// Higher goes first.
    pub priority: u64,
    /// Tries after the first, for failures that may pass.
    pub retries: u32,
}

/// When evaluation has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishBy {
    /// The next time a clock shows it.
    TimeOfDay(Time),
    /// Once.
    At(DateTime),
}

impl FinishBy {
    /// Parses `06:00`, `6:00:30` or `2026-01-31 06:00`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().split_once([' ', 'T']) {
            None => time_of_day(text.trim()).map(Self::TimeOfDay),
            Some((day, time)) => {
                let day: Date = day.parse().ok()?;
                Some(Self::At(day.to_datetime(time_of_day(time.trim())?)))
            }
        }
    }

    /// The instant meant by someone who says it at `now`, by the clock of `now`'s zone: a time of day that is over is
    /// tomorrow's. A time that a change of the clock skips is moved on by it, one that comes twice is the first of them.
    ///
    /// # Errors
    /// An instant beyond the calendar.
    pub fn after(self, now: &Zoned) -> Result<Timestamp, jiff::Error> {
        let zone = now.time_zone();
        match self {
            Self::At(at) => Ok(at.to_zoned(zone.clone())?.timestamp()),
            Self::TimeOfDay(time) => {
                let on = |day: Date| -> Result<Timestamp, jiff::Error> {
                    Ok(day.to_datetime(time).to_zoned(zone.clone())?.timestamp())
                };
                let today = on(now.date())?;
                if today > now.timestamp() { Ok(today) } else { on(now.date().tomorrow()?) }
            }
        }
    }
}

/// `H:MM` or `H:MM:SS`, from 00:00 to 23:59:59.
fn time_of_day(text: &str) -> Option<Time> {
    let mut parts = text.split(':');
    let mut part = |most_digits: std::ops::RangeInclusive<usize>| {
        let text = parts.next()?;
        let digits = most_digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if digits { text.parse::<i8>().ok() } else { None }
    };
    let (hour, minute) = (part(1..=2)?, part(2..=2)?);
    let second = if text.matches(':').count() > 1 { part(2..=2)? } else { 0 };
    match parts.next() {
        Some(_) => None,
        None => Time::new(hour, minute, second, 0).ok(),
    }
}

/// Bounds that all jobs share; none of them changes a row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Worker threads.
    pub threads: Option<usize>,
    /// Cap of memory in bytes.
    pub memory: Option<usize>,
    /// Longest time of the whole batch.
    pub time: Option<Duration>,
    /// When evaluation has to end.
    pub finish_by: Option<FinishBy>,
    /// By which clock; none: the system's.
    pub zone: Option<TimeZone>,
}

impl Limits {
    /// The instant after which no wave starts, for a batch that starts at `now`: the earlier of its two bounds. A bound
    /// beyond the calendar is none.
    pub fn deadline(&self, now: &Zoned) -> Option<Timestamp> {
        let local = self.zone.as_ref().map_or_else(|| now.clone(), |zone| now.with_time_zone(zone.clone()));
        let finish_by = self.finish_by.and_then(|finish_by| finish_by.after(&local).ok());
        let time = self.time.and_then(|time| SignedDuration::try_from(time).ok());
        let time = time.and_then(|time| now.timestamp().checked_add(time).ok());
        finish_by.into_iter().chain(time).min()
    }
}

/// A batch file, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nightly {
    /// Name of its folder below the output root.
    pub name: String,
    /// Jobs in the order of their turns: by priority, then as written.
    pub jobs: Vec<Job>,
    /// Bounds of all of them together.
    pub limits: Limits,
    /// Pause before jobs are tried again.
    pub retry_wait: Duration,
    /// Output root.
    pub out: Option<String>,
}

impl Nightly {
    /// Reads a batch file. Grids are not looked into.
    ///
    /// # Errors
    /// A file that cannot be read or parsed, or every fault of it, with its place.
    pub fn load(path: &Path) -> Result<Self, Box<Diagnostics>> {
        let document = Document::read(path, path.display().to_string())?;
        Self::parse(&document, path.parent().unwrap_or_else(|| Path::new("")), &stem_of(path))
    }

    /// Reads a batch from a document; `folder` is where the paths of grids start, `stem` names a batch without a name.
    ///
    /// # Errors
    /// As [`Nightly::load`].
    pub fn parse(document: &Document, folder: &Path, stem: &str) -> Result<Self, Box<Diagnostics>> {
        let mut reader = Reader::default();
        let root = At { path: String::new(), node: &document.root };
        reader.map(&root, &KEYS);
        let name = root.key("name").map_or_else(|| Some(stem.to_owned()), |name| read_name(&mut reader, &name));
        let retries = read_retries(&mut reader, &root).unwrap_or(RETRIES);
        let retry_wait = quantity(&mut reader, &root, "retry_wait", parse_time, "a time (`30s`, `5min`)");
        let limits = root.key("limits").map(|at| read_limits(&mut reader, &at)).unwrap_or_default();
        let out = root.key("output").and_then(|at| {
            reader.map(&at, &["dir"]);
            at.key("dir").and_then(|dir| reader.text(&dir).map(str::to_owned))
        });
        let jobs = read_jobs(&mut reader, &root, folder, retries);
        let nightly =
            Self { name: name.unwrap_or_default(), jobs, limits, retry_wait: retry_wait.unwrap_or(RETRY_WAIT), out };
        reader.found.or(nightly)
    }
}

fn read_retries(reader: &mut Reader, at: &At<'_>) -> Option<u32> {
    let retries = at.key("retries")?;
    reader.whole(&retries, 0, 100).and_then(|retries| u32::try_from(retries).ok())
}

fn read_limits(reader: &mut Reader, at: &At<'_>) -> Limits {
    reader.map(at, &LIMIT_KEYS);
    let threads = at.key("threads").and_then(|threads| reader.whole(&threads, 1, 65_536));
    let bytes = |text: &str| parse_bytes(text).ok();
    Limits {
        threads: threads.and_then(|threads| usize::try_from(threads).ok()),
        memory: quantity(reader, at, "memory", bytes, "an amount of memory (`8GB`, `512MiB`)"),
        time: quantity(reader, at, "time", parse_time, "a time (`90s`, `30min`, `6h`, `2d`)"),
        finish_by: at.key("finish_by").and_then(|at| {
            let finish_by = at.node.as_text().and_then(FinishBy::parse);
            if finish_by.is_none() {
                reader.wrong(&at, "a time of day (`06:00`) or a day and a time (`2026-01-31 06:00`)");
            }
            finish_by
        }),
        zone: at.key("time_zone").and_then(|at| read_zone(reader, &at)),
    }
}

fn read_zone(reader: &mut Reader, at: &At<'_>) -> Option<TimeZone> {
    let name = reader.text(at)?;
    let zone = zone(name);
    if let Err(hint) = &zone {
        let message = format!("must be a time zone of the IANA database, got {}", at.node.describe());
        reader.fault_with_hint(&at.node.span, at.path.clone(), message, Some(hint.clone()));
    }
    zone.ok()
}

/// The time zone of a name such as `Europe/Berlin` or `UTC`.
///
/// # Errors
/// The nearest name there is, as a remedy.
pub fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| {
        let names: Vec<String> = jiff::tz::db().available().map(|name| name.as_str().to_owned()).collect();
        let near = nearest(name, names.iter().map(String::as_str));
        near.map_or_else(|| "for example `Europe/Berlin` or `UTC`".to_owned(), |near| format!("did you mean `{near}`?"))
    })
}

fn read_jobs(reader: &mut Reader, root: &At<'_>, folder: &Path, retries: u32) -> Vec<Job> {
    let Some(at) = root.key("jobs") else {
        if root.node.as_map().is_some() {
            let hint = Some("for example `jobs: [{grid: grids/quickstart.yaml}]`".to_owned());
            reader.fault_with_hint(&root.node.span, "jobs", "is required", hint);
        }
        return Vec::new();
    };
    let items = reader.list(&at);
    if items.is_empty() && at.node.as_list().is_some() {
        reader.fault(&at.node.span, at.path.clone(), "must hold at least one job, got none");
    }
    let mut jobs = Vec::new();
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    for (number, node) in items.iter().enumerate() {
        let item = at.item(number, node);
        for job in read_entry(reader, &item, folder, retries) {
            // Folders of names that differ in case only are one and the same on some systems.
            if let Some(first) = named.insert(job.name.to_lowercase(), item.path.clone()) {
                let message = format!("`{}` is a job of {first} already; every job needs a name of its own", job.name);
                let place = item.key("name").map_or(&node.span, |name| &name.node.span).clone();
                reader.fault_with_hint(&place, item.path.clone(), message, Some("give it a `name`".to_owned()));
                break;
            }
            jobs.push(job);
        }
        if jobs.len() > MAX_JOBS {
            reader.fault(&node.span, item.path, format!("a batch has at most {MAX_JOBS} jobs"));
            break;
        }
    }
    jobs.sort_by_key(|job| Reverse(job.priority));
    jobs
}

/// The jobs of one entry: every grid with every symbol, timeframe and variant, the last fastest.
fn read_entry(reader: &mut Reader, at: &At<'_>, folder: &Path, retries: u32) -> Vec<Job> {
    reader.map(at, &JOB_KEYS);
    if at.node.as_map().is_none() {
        return Vec::new();
    }
    let name = at.key("name").map(|name| read_name(reader, &name).unwrap_or_default());
    let kinds = [("sweep", Kind::Sweep), ("walkforward", Kind::WalkForward)];
    let kind = at.key("kind").and_then(|kind| reader.word(&kind, &kinds)).unwrap_or(Kind::Sweep);
    let priority = at.key("priority").and_then(|priority| reader.whole(&priority, 0, 1_000_000)).unwrap_or(0);
    let retries = read_retries(reader, at).unwrap_or(retries);
    let set = at.key("set").map(|set| read_assignments(reader, &set)).unwrap_or_default();
    let variants = at.key("variants").map(|variants| read_variants(reader, &variants));
    let symbols = at.key("symbols").map(|symbols| read_symbols(reader, &symbols));
    let timeframes = at.key("timeframes").map(|timeframes| read_timeframes(reader, &timeframes));
    let Some(grids) = read_grids(reader, at) else { return Vec::new() };
    let several_grids = grids.len() > 1;
    let mut jobs = Vec::new();
    let mut too_long = None;
    for grid in &grids {
        let stem = stem_of(Path::new(grid));
        for symbol in alternatives(symbols.as_deref()) {
            for timeframe in alternatives(timeframes.as_deref()) {
                for variant in alternatives(variants.as_deref()) {
                    let own = if several_grids || name.is_none() { Some(stem.clone()) } else { None };
                    let parts = [name.clone(), own, symbol.cloned(), timeframe.map(Timeframe::to_string)];
                    let parts = parts.into_iter().flatten().chain(variant.map(|(name, _)| name.clone()));
                    let full = parts.collect::<Vec<_>>().join("-");
                    if full.len() > MAX_NAME {
                        too_long = Some(full);
                        continue;
                    }
                    let assigned = symbol.map(|symbol| format!("symbol={symbol}"));
                    let assigned = assigned.into_iter().chain(timeframe.map(|tf| format!("timeframes.primary={tf}")));
                    let further = variant.map(|(_, set)| set.as_slice()).unwrap_or_default();
                    jobs.push(Job {
                        name: full,
                        kind,
                        grid: folder.join(grid),
                        symbol: symbol.cloned(),
                        timeframe: timeframe.copied(),
                        variant: variant.map(|(name, _)| name.clone()),
                        set: assigned.chain(set.iter().cloned()).chain(further.iter().cloned()).collect(),
                        priority,
                        retries,
                    });
                }
            }
        }
    }
    if let Some(name) = too_long {
        let message = format!("the name of a job has at most {MAX_NAME} characters, `{name}` has {}", name.len());
        reader.fault_with_hint(&at.node.span, at.path.clone(), message, Some("give it a shorter `name`".to_owned()));
    }
    jobs
}

/// Each of the values, or once nothing where none are given.
fn alternatives<T>(values: Option<&[T]>) -> Vec<Option<&T>> {
    values.map_or_else(|| vec![None], |values| values.iter().map(Some).collect())
}

/// One file or a list of them.
fn read_grids(reader: &mut Reader, at: &At<'_>) -> Option<Vec<String>> {
    let Some(grid) = at.key("grid") else {
        let hint = Some("for example `grid: grids/quickstart.yaml`".to_owned());
        reader.fault_with_hint(&at.node.span, format!("{}.grid", at.path), "is required", hint);
        return None;
    };
    let mut files = Vec::new();
    for item in one_or_several(reader, &grid)? {
        match item.node.as_text().map(str::trim).filter(|text| !text.is_empty()) {
            Some(file) => files.push(file.to_owned()),
            None => reader.wrong(&item, "the path of a grid file"),
        }
    }
    Some(files)
}

/// The items of a list that is not empty, or the value itself.
fn one_or_several<'a>(reader: &mut Reader, at: &At<'a>) -> Option<Vec<At<'a>>> {
    match &at.node.kind {
        NodeKind::List(items) if items.is_empty() => {
            reader.wrong(at, "a value or a list of at least one");
            None
        }
        NodeKind::List(items) => Some(items.iter().enumerate().map(|(number, node)| at.item(number, node)).collect()),
        _ => Some(vec![at.clone()]),
    }
}

fn read_symbols(reader: &mut Reader, at: &At<'_>) -> Vec<String> {
    let mut symbols = Vec::new();
    for item in one_or_several(reader, at).unwrap_or_default() {
        let text = item.node.as_text().map(str::trim).unwrap_or_default();
        if text.is_empty() || text.len() > 32 || !text.chars().all(is_name_char) {
            reader.wrong(&item, "a symbol (1 to 32 letters, digits, `-`, `_` or `.`)");
        } else {
            symbols.push(text.to_uppercase());
        }
    }
    symbols
}

fn read_timeframes(reader: &mut Reader, at: &At<'_>) -> Vec<Timeframe> {
    let words = Timeframe::ALL.map(|timeframe| (timeframe.as_str(), timeframe));
    let items = one_or_several(reader, at).unwrap_or_default();
    items.iter().filter_map(|item| reader.word(item, &words)).collect()
}

fn read_assignments(reader: &mut Reader, at: &At<'_>) -> Vec<String> {
    let mut assignments = Vec::new();
    for (number, node) in reader.list(at).iter().enumerate() {
        let item = at.item(number, node);
        match node.as_text().filter(|text| text.contains('=')) {
            Some(text) => assignments.push(text.to_owned()),
            None => {
                let message = format!("must be key=value, got {}", node.describe());
                let hint = Some("as for `--set`, for example `costs.slippage_multiplier=2`".to_owned());
                reader.fault_with_hint(&node.span, item.path, message, hint);
            }
        }
    }
    assignments
}

/// Named lists of assignments.
fn read_variants(reader: &mut Reader, at: &At<'_>) -> Vec<(String, Vec<String>)> {
    let Some(entries) = at.node.as_map().filter(|entries| !entries.is_empty()) else {
        reader.wrong(at, "a map of names to lists of assignments");
        return Vec::new();
    };
    let mut variants = Vec::new();
    for entry in entries {
        // The name becomes part of a job's.
        let name = Node { span: entry.key_span.clone(), kind: NodeKind::Text(entry.key.clone()) };
        let path = format!("{}.{}", at.path, entry.key);
        let set = read_assignments(reader, &At { path: path.clone(), node: &entry.value });
        if let Some(name) = read_name(reader, &At { path, node: &name }) {
            variants.push((name, set));
        }
    }
    variants
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Nightly, Box<Diagnostics>> {
        Nightly::parse(&Document::parse("nightly.yaml", text).unwrap(), Path::new("grids"), "nightly")
    }

    fn names(nightly: &Nightly) -> Vec<&str> {
        nightly.jobs.iter().map(|job| job.name.as_str()).collect()
    }

    #[test]
    fn entries_become_jobs_in_the_order_of_their_priority() {
        let nightly = parse(
            "jobs:\n- grid: a.yaml\n- name: two\n  grid: [a.yaml, b.yaml]\n  symbols: [eurusd, XAUUSD]\n  priority: 2\n\
             - name: costs\n  grid: a.yaml\n  timeframes: H1\n  kind: walkforward\n  set: [warmup_bars=10]\n  \
             variants: {plain: [], dear: [costs.fee_multiplier=2]}\n",
        )
        .unwrap();
        assert_eq!(nightly.name, "nightly");
        assert_eq!(
            names(&nightly),
            ["two-a-EURUSD", "two-a-XAUUSD", "two-b-EURUSD", "two-b-XAUUSD", "a", "costs-H1-plain", "costs-H1-dear"]
        );
        let [first, .., plain, dear] = &nightly.jobs[..] else { panic!() };
        assert_eq!((first.kind, first.grid.as_path()), (Kind::Sweep, Path::new("grids/a.yaml")));
        assert_eq!(first.set, ["symbol=EURUSD"]);
        assert_eq!(plain.set, ["timeframes.primary=H1", "warmup_bars=10"]);
        assert_eq!(dear.set, ["timeframes.primary=H1", "warmup_bars=10", "costs.fee_multiplier=2"]);
        assert_eq!((dear.kind, dear.variant.as_deref(), dear.retries), (Kind::WalkForward, Some("dear"), RETRIES));
    }

    #[test]
    fn names_are_told_apart_whatever_their_case() {
        let error = parse("jobs:\n- {grid: a.yaml}\n- {grid: x/A.yaml}\n").unwrap_err();
        insta::assert_snapshot!(error.to_string(), @"nightly.yaml:3:3: jobs[1]: `A` is a job of jobs[0] already; every job needs a name of its own (give it a `name`)");
    }

    #[test]
    fn times_of_day_and_days() {
        let time = |h, m, s| Some(FinishBy::TimeOfDay(Time::new(h, m, s, 0).unwrap()));
        assert_eq!(FinishBy::parse("06:00"), time(6, 0, 0));
        assert_eq!(FinishBy::parse(" 6:05:07 "), time(6, 5, 7));
        let day = Date::new(2026, 1, 31).unwrap();
        assert_eq!(FinishBy::parse("2026-01-31 23:59"), Some(FinishBy::At(day.at(23, 59, 0, 0))));
        for text in
            ["6", "24:00", "06:60", "6am", "06:0", "-6:00", "06:00:00:00", "06:00:", "2026-02-30 06:00", "", ":"]
        {
            assert_eq!(FinishBy::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_of_day_is_the_next_one_by_the_clock_of_its_zone() {
        let next = |now: &str, finish_by: &str| {
            let now: Zoned = now.parse().unwrap();
            FinishBy::parse(finish_by).unwrap().after(&now).unwrap().to_string()
        };
        assert_eq!(next("2026-01-10T22:00[Europe/Berlin]", "06:00"), "2026-01-11T05:00:00Z");
        assert_eq!(next("2026-01-11T05:59:59[Europe/Berlin]", "06:00"), "2026-01-11T05:00:00Z");
        assert_eq!(next("2026-01-11T06:00[Europe/Berlin]", "06:00"), "2026-01-12T05:00:00Z");
        // The night the clock is put forward is an hour shorter, and 02:30 is skipped in it.
        assert_eq!(next("2026-03-28T22:00[Europe/Berlin]", "06:00"), "2026-03-29T04:00:00Z");
        assert_eq!(next("2026-03-28T22:00[Europe/Berlin]", "02:30"), "2026-03-29T01:30:00Z");
        // In autumn 02:30 comes twice.
        assert_eq!(next("2026-10-24T22:00[Europe/Berlin]", "02:30"), "2026-10-25T00:30:00Z");
        assert_eq!(next("2026-10-25T02:45+02:00[Europe/Berlin]", "02:30"), "2026-10-26T01:30:00Z");
        assert_eq!(next("2026-01-10T22:00[UTC]", "2026-01-09 06:00"), "2026-01-09T06:00:00Z");
    }

    #[test]
    fn the_earlier_bound_counts() {
        let now: Zoned = "2026-01-10T22:00[UTC]".parse().unwrap();
        let limits = |time: u64, finish_by: &str, zone: &str| Limits {
            time: Some(Duration::from_secs(time)),
            finish_by: FinishBy::parse(finish_by),
            zone: TimeZone::get(zone).ok(),
            ..Limits::default()
        };
        let deadline = |limits: Limits| limits.deadline(&now).unwrap().to_string();
        assert_eq!(deadline(limits(60, "06:00", "UTC")), "2026-01-10T22:01:00Z");
        // 22:00 UTC is 07:00 in Tokyo: the next six o'clock there is 23 hours away.
        assert_eq!(deadline(limits(1_000_000, "06:00", "Asia/Tokyo")), "2026-01-11T21:00:00Z");
        assert_eq!(Limits::default().deadline(&now), None);
        assert_eq!(Limits { time: Some(Duration::MAX), ..Limits::default() }.deadline(&now), None);
    }
}
