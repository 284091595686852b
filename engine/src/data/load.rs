//! From a request to bars: files found, checked, aligned, kept, cut to window and warm-up, and accounted for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::data::align::{Alignment, align};
use crate::data::gaps::{Gaps, gaps};
use crate::data::import::ImportRecord;
use crate::data::manifest::{InputFile, portable, sha256_hex};
use crate::data::memory::MemoryBars;
use crate::data::read::Rows;
use crate::data::store::{Facts, FileFacts, Slot, Stored, in_memory};
use crate::data::validate::{Filler, filler, validate};
use crate::data::{Bars, CostFile, MarketData, NewsCalendar, Session, SymbolSpecs, read, synthetic};
use crate::error::{Error, Result, Violation};
use crate::units::{EpochNs, PriceSide, Timeframe};

/// Variables that move an input, in the order in which they are reported.
const OVERRIDES: [&str; 4] =
    ["OMEGA_DATA_PARQUET_ROOT", "OMEGA_NEWS_CALENDAR_FILE", "OMEGA_EXECUTION_COSTS_FILE", "OMEGA_SYMBOL_SPECS_FILE"];

/// Where the inputs are. Relative paths count from the current working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Folder of `{SYMBOL}/{SYMBOL}_{TF}_{BID|ASK}.parquet`.
    pub parquet_root: PathBuf,
    /// News calendar.
    pub news_file: PathBuf,
    /// `execution_costs.yaml`.
    pub costs_file: PathBuf,
    /// `symbol_specs.yaml`.
    pub specs_file: PathBuf,
    /// Bar store, generated bars, manifests. Deleting it costs time only.
    pub cache_dir: PathBuf,
    /// Names of the variables that replaced a default, as the governance block reports them. The cache folder
    /// changes no result and is not among them.
    pub env_overrides: Vec<String>,
    /// Bars handed over in memory; with any, no candle file is read.
    pub memory: Vec<Arc<MemoryBars>>,
}

impl Sources {
    /// The default places, moved by the `OMEGA_…` variables; an empty variable counts as unset.
    pub fn from_env() -> Self {
        Self::resolve(|name| std::env::var_os(name))
    }

    fn resolve(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let path = |i: usize, default: &str| set(OVERRIDES[i]).unwrap_or_else(|| default.into());
        Self {
            parquet_root: path(0, "data/parquet"),
            // The spelling is part of the contract.
            news_file: path(1, "data/news/news_calender_history.parquet"),
            costs_file: path(2, "configs/execution_costs.yaml"),
            specs_file: path(3, "configs/symbol_specs.yaml"),
            cache_dir: set("OMEGA_CACHE_DIR").unwrap_or_else(|| platform_cache(set).join("omega-opt")),
            env_overrides: OVERRIDES.iter().filter(|name| set(name).is_some()).map(|&name| name.to_owned()).collect(),
            memory: Vec::new(),
        }
    }

    /// The cost file and its identity.
    pub fn costs(&self) -> Result<(CostFile, InputFile)> {
        let (label, bytes) = config_bytes(&self.costs_file)?;
        Ok((CostFile::parse(&bytes, &label)?, InputFile::of_bytes("execution_costs_yaml", label, &bytes)))
    }

    /// The symbol specs and their identity.
    pub fn specs(&self) -> Result<(SymbolSpecs, InputFile)> {
        let (label, bytes) = config_bytes(&self.specs_file)?;
        Ok((SymbolSpecs::parse(&bytes, &label)?, InputFile::of_bytes("symbol_specs_yaml", label, &bytes)))
    }

    /// The news calendar and its identity; only to be asked if the news filter is enabled.
    pub fn news(&self) -> Result<(NewsCalendar, InputFile)> {
        let label = portable(&self.news_file, &working_directory());
        let bytes = read::file_bytes(&self.news_file, Path::new(&label))?;
        let mut input = InputFile::of_bytes("news_parquet", label.clone(), &bytes);
        let calendar = NewsCalendar::parse(bytes, Path::new(&label))?;
        input.rows = Some(calendar.rows() as u64);
        input.start_time_ns = calendar.events().first().map(|event| event.time_ns);
        input.end_time_ns = calendar.events().last().map(|event| event.time_ns);
        Ok((calendar, input))
    }
}

fn working_directory() -> PathBuf {
    std::env::current_dir().unwrap_or_default()
}

fn config_bytes(path: &Path) -> Result<(String, Vec<u8>)> {
    let label = portable(path, &working_directory());
    match std::fs::read(path) {
        Ok(bytes) => Ok((label, bytes)),
        Err(error) => {
            let hint = "start in the folder that holds configs/, or set OMEGA_EXECUTION_COSTS_FILE and OMEGA_SYMBOL_SPECS_FILE";
            Err(Error::Config(vec![Violation::value(label, format!("cannot be read: {error}")).with_hint(hint)]))
        }
    }
}

/// The folder for caches of this platform; the temporary folder if the environment names none.
fn platform_cache(set: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    let home = |rest: &str| set("HOME").map(|home| home.join(rest));
    let found = if cfg!(target_os = "windows") {
        set("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        home("Library/Caches")
    } else {
        set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).or_else(|| home(".cache"))
    };
    found.unwrap_or_else(std::env::temp_dir)
}

/// Bars from the built-in generator instead of the data root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SyntheticSource {
    /// Seed of the generator.
    pub seed: u64,
    /// Primary bars.
    pub bars: usize,
}

/// The bars a run needs.
#[derive(Debug, Clone, PartialEq)]
pub struct DataRequest {
    /// Instrument, upper case.
    pub symbol: String,
    /// Timeframe of the bar loop.
    pub primary: Timeframe,
    /// Every other timeframe needed; order and repetitions do not matter.
    pub others: Vec<Timeframe>,
    /// First instant of the window, inclusive.
    pub start_ns: EpochNs,
    /// Last instant of the window, inclusive on the open time. In `v1_parity` 00:00 of the end date.
    pub end_ns: EpochNs,
    /// Bars before the window, per timeframe.
    pub warmup_bars: usize,
    /// Variant `v1_parity`: warm-up by the calendar instead of by bars.
    pub parity: bool,
    /// Sessions of the configuration: they say which bars gap statistics expect.
    pub sessions: Vec<Session>,
    /// Generated bars; `None` reads the data root.
    pub synthetic: Option<SyntheticSource>,
}

/// A worst value over the timeframes and the values it is the worst of.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ByTimeframe<T> {
    /// Largest loss of any timeframe, a fraction.
    pub loss_max: f64,
    /// Per timeframe name.
    pub by_timeframe: BTreeMap<String, T>,
}

/// A count per timeframe name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Per timeframe name.
    pub by_timeframe: BTreeMap<String, usize>,
}

/// `dataset.governance` of `meta.json` (`data-contract.md` §14).
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Governance {
    /// Bid and ask brought together.
    pub alignment: ByTimeframe<Alignment>,
    /// Missing bars of the loaded window.
    pub gaps: ByTimeframe<Gaps>,
    /// Exact duplicates removed, both sides together.
    pub duplicates_dropped: Counts,
    /// The symbol has a spec; set by whoever reads the specs.
    pub specs_found: bool,
    /// Nobody stated the pip size; set by whoever resolves it.
    pub pip_size_defaulted: bool,
    /// Names of active variables.
    pub env_overrides: Vec<String>,
}

/// What a request brings.
#[derive(Debug, Clone)]
pub struct LoadedData {
    /// The bars.
    pub market: MarketData,
    /// How clean they were.
    pub governance: Governance,
    /// The candle files read; costs, specs and news come from [`Sources`].
    pub inputs: Vec<InputFile>,
    /// Worth telling, in a fixed order.
    pub warnings: Vec<String>,
}

/// Loads, checks and cuts every series of the request.
///
/// `v2`: the bars of `[start, end]` and the last `warmup_bars` before them, per timeframe; first tradable index
/// `warmup_bars`. `v1_parity`: the bars of `[start − warmup_bars · longest Δ, end]`; first tradable is the first bar
/// at or after `start` (`data-contract.md` §7).
pub fn load(request: &DataRequest, sources: &Sources) -> Result<LoadedData> {
    if request.start_ns > request.end_ns {
        return Err(Error::config("start_date", "must not be after end_date"));
    }
    let mut others = request.others.clone();
    others.sort_unstable();
    others.dedup();
    others.retain(|&timeframe| timeframe != request.primary);
    let timeframes = || std::iter::once(request.primary).chain(others.iter().copied());
    let longest = timeframes().map(Timeframe::duration_ns).max().unwrap_or_default();

    let root = match request.synthetic {
        Some(source) => synthetic::ensure(&sources.cache_dir, &request.symbol, request.primary, source)?,
        None => sources.parquet_root.clone(),
    };
    let mut loaded = LoadedData {
        market: MarketData {
            symbol: request.symbol.clone(),
            bars: in_memory(Default::default(), Default::default(), request.primary),
            first_tradable: 0,
            others: Vec::new(),
        },
        governance: Governance { env_overrides: sources.env_overrides.clone(), ..Governance::default() },
        inputs: Vec::new(),
        warnings: Vec::new(),
    };
    for timeframe in timeframes() {
        let series = match in_memory_series(request, sources, timeframe)? {
            Some(series) => series,
            None => Series::read(&root, &request.symbol, timeframe, Some(&sources.cache_dir))?,
        };
        let (bars, first_tradable) = series.window(request, longest)?;
        series.account(&bars, &request.sessions, &mut loaded);
        if timeframe == request.primary {
            loaded.market.first_tradable = first_tradable;
            loaded.market.bars = bars;
        } else {
            loaded.market.others.push(bars);
        }
    }
    refuse_unmapped(&loaded.market)?;
    Ok(loaded)
}

/// The bars in memory of `timeframe`; none if no bars are in memory at all.
///
/// Files and generated bars are no stand-in for what is missing in memory: bars of two origins would be one result.
fn in_memory_series(request: &DataRequest, sources: &Sources, timeframe: Timeframe) -> Result<Option<Series>> {
    if sources.memory.is_empty() {
        return Ok(None);
    }
    if request.synthetic.is_some() {
        return Err(Error::config("data", "must be left out where bars are given in memory"));
    }
    let wanted = |bars: &&Arc<MemoryBars>| bars.symbol() == request.symbol && bars.timeframe() == timeframe;
    let found = sources.memory.iter().find(wanted).ok_or_else(|| {
        let given = sources.memory.iter().map(|bars| format!("{} {}", bars.symbol(), bars.timeframe()));
        Error::DataFile {
            kind: "NotInMemory",
            path: PathBuf::from(format!("{0}/{0}_{timeframe}", request.symbol)),
            reason: format!("NotInMemory: the bars given are {}", given.collect::<Vec<_>>().join(", ")),
        }
    })?;
    Ok(Some(found.series().clone()))
}

/// Every tradable bar needs a longer bar that has opened (`data-contract.md` §10). The first one decides for all.
/// A shorter timeframe is read by its own rules and may start later.
fn refuse_unmapped(market: &MarketData) -> Result<()> {
    let Some(&first) = market.bars.open_time.get(market.first_tradable) else { return Ok(()) };
    let unmapped = market.others.iter().find(|bars| {
        bars.timeframe > market.bars.timeframe && bars.open_time.first().is_none_or(|&opened| opened > first)
    });
    match unmapped {
        Some(bars) => Err(Error::HtfUnmapped { timeframe: bars.timeframe, timestamp_ns: first }),
        None => Ok(()),
    }
}

/// A pair of files, read, checked and aligned as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) stored: Stored,
    pub(crate) inputs: [InputFile; 2],
    pub(crate) symbol: String,
}

impl Series {
    /// Reads `{root}/{SYMBOL}/{SYMBOL}_{TF}_{SIDE}.parquet` of both sides, through the store if there is a cache.
    pub(crate) fn read(root: &Path, symbol: &str, timeframe: Timeframe, cache: Option<&Path>) -> Result<Self> {
        let label = |side: &str| format!("{symbol}/{symbol}_{timeframe}_{side}.parquet");
        let file = |side: &str| root.join(symbol).join(format!("{symbol}_{timeframe}_{side}.parquet"));
        let (bid_label, ask_label) = (label("BID"), label("ASK"));
        let bid = read::file_bytes(&file("BID"), Path::new(&bid_label))?;
        let ask = read::file_bytes(&file("ASK"), Path::new(&ask_label))?;
        let (bid_sha, ask_sha) = (sha256_hex(&bid), sha256_hex(&ask));
        let slot = cache.map(|cache| Slot::new(cache, symbol, timeframe, &bid_sha, &ask_sha));
        let stored = match slot.as_ref().and_then(Slot::open) {
            Some(stored) => stored,
            None => {
                let bid = checked(bid, Path::new(&bid_label))?;
                let ask = checked(ask, Path::new(&ask_label))?;
                let (bid, ask, facts) = pair(bid, ask, symbol, timeframe)?;
                match slot {
                    Some(slot) => slot.keep(bid, ask, facts),
                    None => Stored { bars: in_memory(bid, ask, timeframe), facts },
                }
            }
        };
        let record = ImportRecord::read(root, symbol);
        let record = record.as_ref().and_then(|record| record.of(timeframe, &bid_sha, &ask_sha));
        let input = |side: PriceSide, path: String, sha256: String, facts: &FileFacts| InputFile {
            kind: format!("market_parquet_{side}"),
            path,
            sha256,
            made: record.and_then(|record| record.made(side)).map(str::to_owned),
            rows: Some(facts.rows),
            start_time_ns: Some(facts.start_time_ns),
            end_time_ns: Some(facts.end_time_ns),
        };
        let inputs = [
            input(PriceSide::Bid, bid_label, bid_sha, &stored.facts.bid),
            input(PriceSide::Ask, ask_label, ask_sha, &stored.facts.ask),
        ];
        Ok(Self { stored, inputs, symbol: symbol.to_owned() })
    }

    /// The bars the request asks for and the first tradable index among them.
    fn window(&self, request: &DataRequest, longest_ns: i64) -> Result<(Bars, usize)> {
        let bars = &self.stored.bars;
        let time = &bars.open_time;
        let lo = time.partition_point(|&t| t < request.start_ns);
        let hi = time.partition_point(|&t| t <= request.end_ns).max(lo);
        let primary = bars.timeframe == request.primary;
        if primary && lo == hi {
            return Err(self.empty_window(request));
        }
        let from = if request.parity {
            let back = i64::try_from(request.warmup_bars).unwrap_or(i64::MAX).saturating_mul(longest_ns);
            let earliest = request.start_ns.saturating_sub(back);
            time.partition_point(|&t| t < earliest)
        } else {
            lo.saturating_sub(request.warmup_bars)
        };
        let available = hi - from;
        // The primary series needs one bar to trade on behind the warm-up.
        let required = request.warmup_bars + usize::from(primary);
        if !request.parity && available < required {
            return Err(Error::InsufficientData { timeframe: bars.timeframe, required, available });
        }
        let first_tradable = if request.parity { lo - from } else { request.warmup_bars };
        Ok((bars.slice(from, available), first_tradable))
    }

    fn empty_window(&self, request: &DataRequest) -> Error {
        let time = &self.stored.bars.open_time;
        let iso = |ns: EpochNs| {
            jiff::Timestamp::from_nanosecond(i128::from(ns)).map_or_else(|_| format!("{ns} ns"), |t| t.to_string())
        };
        let range =
            time.first().zip(time.last()).map(|(&first, &last)| format!("bars from {} to {}", iso(first), iso(last)));
        Error::DataCorrupt {
            kind: "DateRangeEmpty",
            path: PathBuf::from(&self.inputs[0].path),
            row: time.partition_point(|&t| t < request.start_ns),
            timestamp_ns: None,
            rule: format!("at least one bar from {} to {}", iso(request.start_ns), iso(request.end_ns)),
            found: range.unwrap_or_else(|| "no bar".to_owned()),
        }
    }

    /// Enters the series into governance, inputs and warnings.
    fn account(&self, window: &Bars, sessions: &[Session], loaded: &mut LoadedData) {
        let facts = &self.stored.facts;
        let timeframe = window.timeframe;
        let gaps = gaps(&window.open_time, timeframe, sessions);
        let governance = &mut loaded.governance;
        enter(&mut governance.alignment, timeframe, facts.alignment, facts.alignment.alignment_loss);
        enter(&mut governance.gaps, timeframe, gaps, gaps.gap_loss);
        let dropped = facts.bid.duplicates_dropped + facts.ask.duplicates_dropped;
        governance.duplicates_dropped.by_timeframe.insert(timeframe.to_string(), dropped);
        loaded.warnings.extend(self.warnings(&gaps));
        loaded.inputs.extend(self.inputs.iter().cloned());
    }

    /// What is worth telling about a clean enough series.
    pub(crate) fn warnings(&self, gaps: &Gaps) -> Vec<String> {
        let Facts { bid, ask, alignment, filler } = &self.stored.facts;
        let bars = &self.stored.bars;
        let name = format!("{} {}", self.symbol, bars.timeframe);
        let mut told = Vec::new();
        // One line, also where both sides were made.
        let made = self.inputs.iter().find_map(|input| input.made.as_ref());
        if let Some(how) = made {
            told.push(format!("{name}: bid and ask were not both quoted; imported as {how}"));
        }
        if alignment.discarded_count > 0 {
            told.push(format!(
                "{name}: {} bars stand on one side only and are left out ({})",
                alignment.discarded_count,
                percent(alignment.alignment_loss)
            ));
        }
        let duplicates = bid.duplicates_dropped + ask.duplicates_dropped;
        if duplicates > 0 {
            told.push(format!("{name}: {duplicates} exact duplicates removed"));
        }
        if gaps.gap_loss > 0.05 {
            told.push(format!(
                "{name}: {} of {} expected bars are missing ({})",
                gaps.missing_bars,
                gaps.expected_bars,
                percent(gaps.gap_loss)
            ));
        }
        if let Filler { bars: count @ 1.., first_ns: Some(first) } = *filler {
            let first = jiff::Timestamp::from_nanosecond(i128::from(first)).map(|t| t.to_string()).unwrap_or_default();
            told.push(format!(
                "{name}: {count} of {} bars are filler (flat, without volume, for hours; the first at {first}), {}; they take part as they are",
                bars.len(),
                percent(count as f64 / bars.len() as f64)
            ));
        }
        told
    }
}

fn percent(fraction: f64) -> String {
    format!("{:.2} %", fraction * 100.0)
}

fn enter<T>(block: &mut ByTimeframe<T>, timeframe: Timeframe, value: T, loss: f64) {
    block.loss_max = block.loss_max.max(loss);
    block.by_timeframe.insert(timeframe.to_string(), value);
}

type Checked = (read::Candles, FileFacts);

fn checked(bytes: bytes::Bytes, label: &Path) -> Result<Checked> {
    let mut candles = read::candles(bytes, label)?;
    let facts = check_side(&mut candles, label)?;
    Ok((candles, facts))
}

/// The row checks of one side, and what is known of it.
pub(crate) fn check_side(side: &mut impl Rows, label: &Path) -> Result<FileFacts> {
    let rows = side.columns().len();
    let duplicates_dropped = validate(side, label)?;
    let time = side.columns().time;
    let (first, last) = (time.first().copied(), time.last().copied());
    Ok(FileFacts {
        rows: rows as u64,
        start_time_ns: first.unwrap_or_default(),
        end_time_ns: last.unwrap_or_default(),
        duplicates_dropped,
    })
}

/// Brings two checked sides together.
pub(crate) fn check_pair_of<R: Rows>(
    (bid, bid_facts): (&mut R, FileFacts),
    (ask, ask_facts): (&mut R, FileFacts),
    symbol: &str,
    timeframe: Timeframe,
) -> Result<Facts> {
    let alignment = align(bid, ask, symbol, timeframe)?;
    let filler = filler(bid.columns().time, bid, ask, timeframe);
    Ok(Facts { bid: bid_facts, ask: ask_facts, alignment, filler })
}

fn pair(
    (mut bid, bid_facts): Checked,
    (mut ask, ask_facts): Checked,
    symbol: &str,
    timeframe: Timeframe,
) -> Result<(read::Candles, read::Candles, Facts)> {
    let facts = check_pair_of((&mut bid, bid_facts), (&mut ask, ask_facts), symbol, timeframe)?;
    Ok((bid, ask, facts))
}

/// One pair of candle files, judged.
#[derive(Debug, Clone)]
pub struct CheckedPair {
    /// The whole series.
    pub bars: Bars,
    /// Bid and ask brought together.
    pub alignment: Alignment,
    /// Missing bars, Monday to Friday.
    pub gaps: Gaps,
    /// Exact duplicates removed, both sides.
    pub duplicates_dropped: usize,
    /// Flat stretches without volume.
    pub filler: Filler,
    /// Bid and ask file.
    pub inputs: [InputFile; 2],
    /// Worth telling.
    pub warnings: Vec<String>,
}

/// Reads and checks a pair of files as a run would, without window and without the cache.
pub fn check_pair(root: &Path, symbol: &str, timeframe: Timeframe) -> Result<CheckedPair> {
    let series = Series::read(root, symbol, timeframe, None)?;
    let gaps = gaps(&series.stored.bars.open_time, timeframe, &[]);
    let facts = series.stored.facts;
    Ok(CheckedPair {
        warnings: series.warnings(&gaps),
        alignment: facts.alignment,
        gaps,
        duplicates_dropped: facts.bid.duplicates_dropped + facts.ask.duplicates_dropped,
        filler: facts.filler,
        inputs: series.inputs,
        bars: series.stored.bars,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_variables_count_as_unset() {
        let sources = Sources::resolve(|name| match name {
            "OMEGA_DATA_PARQUET_ROOT" => Some("bars".into()),
            "OMEGA_NEWS_CALENDAR_FILE" => Some("".into()),
            "OMEGA_CACHE_DIR" => Some("cache".into()),
            _ => None,
        });
        assert_eq!(sources.parquet_root, Path::new("bars"));
        assert_eq!(sources.news_file, Path::new("data/news/news_calender_history.parquet"));
        assert_eq!(sources.costs_file, Path::new("configs/execution_costs.yaml"));
        assert_eq!(sources.cache_dir, Path::new("cache"));
        assert_eq!(sources.env_overrides, ["OMEGA_DATA_PARQUET_ROOT"]);
    }
}
