//! The data contract, seen from outside: every rule a file can break, windows and warm-up, higher timeframes, the
//! store, and the genuine data and faults of the shared folder.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests fail and talk like tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{
    ArrayRef, Float64Array, Int64Array, LargeStringArray, RecordBatch, StringArray, TimestampMicrosecondArray,
    TimestampNanosecondArray,
};
use engine::Error;
use engine::data::{
    CostFile, DataRequest, LoadedData, NewsCalendar, Sources, SymbolSpecs, SyntheticSource, check_pair, load, synthetic,
};
use engine::units::{DAY_NS, MINUTE_NS, Timeframe};
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

/// Monday, 2024-01-08 00:00 UTC.
const MONDAY: i64 = 1_704_672_000_000_000_000;
const SPREAD: f64 = 0.25;

/// Columns of one file, ready to be spoilt.
#[derive(Clone)]
struct Columns(Vec<(&'static str, ArrayRef)>);

impl Columns {
    /// Flat-free bars at `times`, all prices raised by `add`.
    fn candles(times: &[i64], add: f64) -> Self {
        let column = |offset: f64| floats(times.iter().enumerate().map(|(i, _)| 100.0 + (i % 7) as f64 + add + offset));
        Self(vec![
            ("UTC time", stamps(times, Some("UTC"))),
            ("Open", column(0.0)),
            ("High", column(1.0)),
            ("Low", column(-1.0)),
            ("Close", column(0.5)),
            ("Volume", floats(times.iter().map(|_| 3.0))),
        ])
    }

    fn with(mut self, name: &'static str, column: ArrayRef) -> Self {
        match self.0.iter_mut().find(|(found, _)| *found == name) {
            Some((_, old)) => *old = column,
            None => self.0.push((name, column)),
        }
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.0.retain(|(found, _)| *found != name);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let batch =
            RecordBatch::try_from_iter_with_nullable(self.0.iter().map(|(n, c)| (*n, c.clone(), true))).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }
}

fn floats(values: impl IntoIterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn stamps(times: &[i64], zone: Option<&str>) -> ArrayRef {
    let array = TimestampNanosecondArray::from(times.to_vec());
    Arc::new(array.with_timezone_opt(zone.map(str::to_owned)))
}

fn every(timeframe: Timeframe, start: i64, count: usize) -> Vec<i64> {
    (0..count as i64).map(|i| start + i * timeframe.duration_ns()).collect()
}

/// A data root of its own with everything a load needs.
struct Root {
    folder: TempDir,
}

impl Root {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, timeframe: Timeframe, side: &str, columns: &Columns) -> PathBuf {
        let folder = self.folder.path().join("bars/EURUSD");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("EURUSD_{timeframe}_{side}.parquet"));
        std::fs::write(&path, columns.bytes()).unwrap();
        path
    }

    fn pair(self, timeframe: Timeframe, times: &[i64]) -> Self {
        self.write(timeframe, "BID", &Columns::candles(times, 0.0));
        self.write(timeframe, "ASK", &Columns::candles(times, SPREAD));
        self
    }

    fn sources(&self) -> Sources {
        Sources {
            parquet_root: self.folder.path().join("bars"),
            news_file: self.folder.path().join("news.parquet"),
            costs_file: self.folder.path().join("costs.yaml"),
            specs_file: self.folder.path().join("specs.yaml"),
            cache_dir: self.folder.path().join("cache"),
            env_overrides: Vec::new(),
            memory: Vec::new(),
        }
    }

    fn load(&self, request: &DataRequest) -> Result<LoadedData, Error> {
        load(request, &self.sources())
    }

    fn store_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path().join("cache/bars"));
        entries.map(|all| all.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
    }
}

fn request(primary: Timeframe) -> DataRequest {
    DataRequest {
        symbol: "EURUSD".to_owned(),
        primary,
        others: Vec::new(),
        start_ns: MONDAY,
        end_ns: MONDAY + 365 * DAY_NS,
        warmup_bars: 0,
        parity: false,
        sessions: Vec::new(),
        synthetic: None,
    }
}

/// What loading says when the bid file has `columns` and the ask file is good.
fn refusal(bid: &Columns) -> Error {
    let root = Root::new();
    root.write(Timeframe::M1, "BID", bid);
    root.write(Timeframe::M1, "ASK", &Columns::candles(&every(Timeframe::M1, MONDAY, 10), SPREAD));
    let error = root.load(&request(Timeframe::M1)).unwrap_err();
    assert!(root.store_files().is_empty(), "a refused series must not be kept");
    error
}

fn ten() -> Vec<i64> {
    every(Timeframe::M1, MONDAY, 10)
}

fn good() -> Columns {
    Columns::candles(&ten(), 0.0)
}

fn schema_kind(error: Error) -> (&'static str, String) {
    match error {
        Error::DataSchema { kind, column, .. } => (kind, column),
        other => panic!("{other:?}"),
    }
}

fn corrupt(error: Error) -> (&'static str, usize, String) {
    match error {
        Error::DataCorrupt { kind, row, rule, .. } => (kind, row, rule),
        other => panic!("{other:?}"),
    }
}

#[test]
fn missing_and_undecodable_files() {
    let root = Root::new();
    let error = root.load(&request(Timeframe::M1)).unwrap_err();
    assert!(
        matches!(&error, Error::DataFile { kind: "FileNotFound", path, .. } if path == Path::new("EURUSD/EURUSD_M1_BID.parquet"))
    );
    root.write(Timeframe::M1, "BID", &good());
    let error = root.load(&request(Timeframe::M1)).unwrap_err();
    assert!(matches!(&error, Error::DataFile { path, .. } if path.ends_with("EURUSD_M1_ASK.parquet")));
    let root = Root::new().pair(Timeframe::M1, &ten());
    let file = root.folder.path().join("bars/EURUSD/EURUSD_M1_ASK.parquet");
    std::fs::write(&file, b"PAR1 this is no Parquet PAR1").unwrap();
    assert!(matches!(root.load(&request(Timeframe::M1)), Err(Error::DataFile { kind: "ParseError", .. })));
    std::fs::write(&file, b"").unwrap();
    assert!(matches!(root.load(&request(Timeframe::M1)), Err(Error::DataFile { kind: "ParseError", .. })));
}

#[test]
fn damaged_parquet_never_panics() {
    let whole = good().bytes();
    let root = Root::new().pair(Timeframe::M1, &ten());
    let file = root.folder.path().join("bars/EURUSD/EURUSD_M1_BID.parquet");
    for i in 0..whole.len() {
        let mut bad = whole.clone();
        bad[i] ^= 0x5a;
        std::fs::write(&file, &bad).unwrap();
        // A flipped price bit may still be a legal price; only the process must survive.
        let _ = check_pair(&root.sources().parquet_root, "EURUSD", Timeframe::M1);
    }
    // The same for compressed pages.
    let root = tempfile::tempdir().unwrap();
    synthetic::write(root.path(), "USDJPY", Timeframe::D1, SyntheticSource { seed: 1, bars: 60 }).unwrap();
    let file = root.path().join("USDJPY/USDJPY_D1_ASK.parquet");
    let whole = std::fs::read(&file).unwrap();
    for i in 0..whole.len() {
        let mut bad = whole.clone();
        bad[i] = bad[i].wrapping_add(0x41);
        std::fs::write(&file, &bad).unwrap();
        let _ = check_pair(root.path(), "USDJPY", Timeframe::D1);
    }
}

#[test]
fn columns_types_and_zones() {
    for name in ["UTC time", "Open", "High", "Low", "Close", "Volume"] {
        assert_eq!(schema_kind(refusal(&good().without(name))), ("MissingColumn", name.to_owned()));
    }
    let integers = || Arc::new(Int64Array::from(vec![100; 10])) as ArrayRef;
    assert_eq!(schema_kind(refusal(&good().with("Open", integers()))), ("InvalidColumnType", "Open".to_owned()));
    let words = texts(&["1"; 10]);
    assert_eq!(schema_kind(refusal(&good().with("Volume", words))), ("InvalidColumnType", "Volume".to_owned()));
    let micro =
        TimestampMicrosecondArray::from(ten().iter().map(|t| t / 1000).collect::<Vec<_>>()).with_timezone("UTC");
    let kind = schema_kind(refusal(&good().with("UTC time", Arc::new(micro))));
    assert_eq!(kind, ("InvalidColumnType", "UTC time".to_owned()));
    for zone in [None, Some("Etc/UTC"), Some("+00:00"), Some("America/New_York")] {
        let error = refusal(&good().with("UTC time", stamps(&ten(), zone)));
        assert_eq!(schema_kind(error).0, "InvalidTimezone", "{zone:?}");
    }
    // Integer volumes, other orders and more columns are fine.
    let mut columns = good().with("Volume", integers()).with("Comment", texts(&["x"; 10]));
    columns.0.reverse();
    let root = Root::new();
    root.write(Timeframe::M1, "BID", &columns);
    root.write(Timeframe::M1, "ASK", &Columns::candles(&ten(), SPREAD));
    assert_eq!(root.load(&request(Timeframe::M1)).unwrap().market.bars.bid.volume[3], 100.0);
}

#[test]
fn nulls_in_any_column() {
    let mut values: Vec<Option<f64>> = vec![Some(103.0); 10];
    values[4] = None;
    let error = refusal(&good().with("High", Arc::new(Float64Array::from(values))));
    assert!(error.to_string().contains("null in row 4"), "{error}");
    assert_eq!(schema_kind(error), ("NullValue", "High".to_owned()));
    let mut times: Vec<Option<i64>> = ten().into_iter().map(Some).collect();
    times[0] = None;
    let column = TimestampNanosecondArray::from(times).with_timezone("UTC");
    assert_eq!(schema_kind(refusal(&good().with("UTC time", Arc::new(column)))).0, "NullValue");
}

#[test]
fn rows_that_break_a_rule_are_named() {
    assert_eq!(corrupt(refusal(&Columns::candles(&[], 0.0))).0, "EmptyData");
    let mut times = ten();
    times.swap(5, 6);
    assert_eq!(
        corrupt(refusal(&Columns::candles(&times, 0.0))),
        ("CorruptData", 6, "stamps must not decrease in file order".into())
    );
    let mut times = ten();
    times[7] = times[6];
    assert_eq!(corrupt(refusal(&Columns::candles(&times, 0.0))).2, "rows of one stamp must be equal");
    let spoilt = |name: &'static str, value: f64| {
        let original = good().0.into_iter().find(|(found, _)| *found == name).unwrap().1;
        let mut values = original.as_any().downcast_ref::<Float64Array>().unwrap().values().to_vec();
        values[2] = value;
        corrupt(refusal(&good().with(name, floats(values))))
    };
    for name in ["Open", "High", "Low", "Close", "Volume"] {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(spoilt(name, value), ("CorruptData", 2, "values must be finite".into()));
        }
    }
    assert_eq!(spoilt("Volume", -1.0).2, "Volume >= 0");
    for (name, value) in [("High", 102.2), ("Low", 102.2), ("High", 1.0), ("Open", 200.0), ("Close", 1.0)] {
        assert_eq!(spoilt(name, value), ("CorruptData", 2, "Low <= Open, Close <= High".into()), "{name} {value}");
    }
}

#[test]
fn harmless_duplicates_are_counted_and_reported() {
    let flat = |times: &[i64], price: f64| {
        let column = || floats(times.iter().map(|_| price));
        let base = Columns::candles(times, 0.0);
        base.with("Open", column()).with("High", column()).with("Low", column()).with("Close", column())
    };
    let mut times = ten();
    times.insert(4, times[4]);
    times.insert(4, times[4]);
    let root = Root::new();
    root.write(Timeframe::M1, "BID", &flat(&times, 100.0));
    root.write(Timeframe::M1, "ASK", &flat(&ten(), 101.0));
    let loaded = root.load(&request(Timeframe::M1)).unwrap();
    assert_eq!(loaded.market.bars.len(), 10);
    assert_eq!(loaded.governance.duplicates_dropped.by_timeframe["M1"], 2);
    assert_eq!(loaded.governance.alignment.by_timeframe["M1"].bid_count_before, 10);
    assert_eq!(loaded.inputs[0].rows, Some(12));
    assert_eq!(loaded.warnings, ["EURUSD M1: 2 exact duplicates removed"]);
}

#[test]
fn alignment_keeps_the_boundary_and_refuses_behind_it() {
    let load = |bid: &[i64], ask: &[i64]| {
        let root = Root::new();
        root.write(Timeframe::M1, "BID", &Columns::candles(bid, 0.0));
        root.write(Timeframe::M1, "ASK", &Columns::candles(ask, 50.0));
        root.load(&request(Timeframe::M1))
    };
    let all = every(Timeframe::M1, MONDAY, 101);
    let loaded = load(&all[..100], &all[1..]).unwrap();
    assert_eq!(loaded.governance.alignment.loss_max, 0.01);
    let stats = loaded.governance.alignment.by_timeframe["M1"];
    assert_eq!(
        (stats.bid_count_before, stats.ask_count_before, stats.aligned_count, stats.discarded_count),
        (100, 100, 99, 2)
    );
    assert!(loaded.warnings[0].contains("2 bars stand on one side only"), "{:?}", loaded.warnings);
    let without =
        |hole: usize| all.iter().copied().enumerate().filter(|(i, _)| *i != hole).map(|(_, t)| t).collect::<Vec<_>>();
    assert!(load(&all[..100], &without(5)[..99]).is_ok());
    assert!(matches!(
        load(&all[..100], &without(5)[1..99]),
        Err(Error::DataAlignment { bid: 100, ask: 98, common: 98, .. })
    ));
    assert!(matches!(load(&all[..50], &all[50..100]), Err(Error::DataAlignment { common: 0, .. })));
}

#[test]
fn crossed_opens_and_closes_fail_but_highs_and_lows_may_cross() {
    let root = Root::new().pair(Timeframe::M1, &ten());
    let ask = Columns::candles(&ten(), SPREAD);
    let spoilt = |name: &'static str, row: usize, value: f64| {
        let original = ask.0.iter().find(|(found, _)| *found == name).unwrap().1.clone();
        let mut values = original.as_any().downcast_ref::<Float64Array>().unwrap().values().to_vec();
        values[row] = value;
        root.write(Timeframe::M1, "ASK", &ask.clone().with(name, floats(values)));
        root.load(&request(Timeframe::M1))
    };
    let stamp = MONDAY + 3 * MINUTE_NS;
    for field in ["Open", "Close"] {
        let error = spoilt(field, 3, 102.9).unwrap_err();
        assert!(
            matches!(error, Error::DataSpread { field: found, timestamp_ns, .. } if found == field && timestamp_ns == stamp)
        );
    }
    assert!(spoilt("High", 3, 103.8).is_ok());
}

#[test]
fn windows_and_warm_up() {
    let load = |history: usize, window: usize, warmup: usize| {
        let times = every(Timeframe::M1, MONDAY - history as i64 * MINUTE_NS, history + window);
        Root::new().pair(Timeframe::M1, &times).load(&DataRequest { warmup_bars: warmup, ..request(Timeframe::M1) })
    };
    for (history, warmup, window, n, first) in [
        (10_000, 500, 2000, 2500, MONDAY),
        (120, 500, 2000, 2120, MONDAY + 380 * MINUTE_NS),
        (0, 10, 600, 600, MONDAY + 10 * MINUTE_NS),
    ] {
        let market = load(history, window, warmup).unwrap().market;
        assert_eq!((market.bars.len(), market.first_tradable), (n, warmup));
        assert_eq!(market.bars.open_time[market.first_tradable], first);
    }
    assert_eq!(
        load(0, 500, 500).unwrap_err(),
        Error::InsufficientData { timeframe: Timeframe::M1, required: 501, available: 500 }
    );
    assert_eq!(load(0, 3, 0).unwrap().market.first_tradable, 0);
    let empty = Root::new().pair(Timeframe::M1, &ten());
    let error = empty.load(&DataRequest { start_ns: MONDAY + DAY_NS, ..request(Timeframe::M1) }).unwrap_err();
    assert_eq!(corrupt(error).0, "DateRangeEmpty");
    let turned = DataRequest { end_ns: MONDAY - 1, ..request(Timeframe::M1) };
    assert!(matches!(empty.load(&turned), Err(Error::Config(_))));
    // Both ends belong to the window.
    let exact =
        DataRequest { start_ns: MONDAY + 2 * MINUTE_NS, end_ns: MONDAY + 4 * MINUTE_NS, ..request(Timeframe::M1) };
    assert_eq!(empty.load(&exact).unwrap().market.bars.len(), 3);
}

#[test]
fn parity_goes_back_by_the_calendar() {
    let m5 = every(Timeframe::M5, MONDAY - DAY_NS, 600);
    let h1 = every(Timeframe::H1, MONDAY - DAY_NS, 60);
    let root = Root::new().pair(Timeframe::M5, &m5).pair(Timeframe::H1, &h1);
    let request = DataRequest { others: vec![Timeframe::H1], warmup_bars: 3, parity: true, ..request(Timeframe::M5) };
    let market = root.load(&request).unwrap().market;
    // Three hours of the longest timeframe, for both series.
    assert_eq!(market.bars.open_time[0], MONDAY - 180 * MINUTE_NS);
    assert_eq!(market.others[0].open_time[0], MONDAY - 180 * MINUTE_NS);
    assert_eq!(market.bars.open_time[market.first_tradable], MONDAY);
    // Too little history is no error there.
    assert!(root.load(&DataRequest { warmup_bars: 5000, ..request }).is_ok());
}

#[test]
fn higher_timeframes_need_warm_up_and_a_bar_for_every_tradable_bar() {
    let m5 = every(Timeframe::M5, MONDAY, 288);
    let with_h1 = |h1: &[i64], warmup: usize| {
        let root = Root::new().pair(Timeframe::M5, &m5).pair(Timeframe::H1, h1);
        root.load(&DataRequest {
            others: vec![Timeframe::H1, Timeframe::M5, Timeframe::H1],
            warmup_bars: warmup,
            ..request(Timeframe::M5)
        })
    };
    let loaded = with_h1(&every(Timeframe::H1, MONDAY, 24), 0).unwrap();
    assert_eq!(loaded.market.others.len(), 1);
    assert_eq!(loaded.inputs.len(), 4);
    assert_eq!(loaded.governance.gaps.by_timeframe.keys().collect::<Vec<_>>(), ["H1", "M5"]);
    assert_eq!(
        with_h1(&every(Timeframe::H1, MONDAY, 2), 3).unwrap_err(),
        Error::InsufficientData { timeframe: Timeframe::H1, required: 3, available: 2 }
    );
    assert_eq!(
        with_h1(&every(Timeframe::H1, MONDAY + 60 * MINUTE_NS, 20), 0).unwrap_err(),
        Error::HtfUnmapped { timeframe: Timeframe::H1, timestamp_ns: MONDAY }
    );
    // With twelve bars of warm-up the first tradable bar opens at 01:00.
    let late = every(Timeframe::H1, MONDAY + 60 * MINUTE_NS, 20);
    assert_eq!(with_h1(&late, 12).unwrap().market.first_tradable, 12);
}

#[test]
fn complete_minutes_are_the_golden_governance() {
    let root = Root::new().pair(Timeframe::M1, &every(Timeframe::M1, MONDAY, 600));
    let loaded = root.load(&request(Timeframe::M1)).unwrap();
    let json = serde_json::to_value(&loaded.governance).unwrap();
    let expected = serde_json::json!({
        "alignment": {"loss_max": 0.0, "by_timeframe": {"M1": {
            "bid_count_before": 600, "ask_count_before": 600, "aligned_count": 600, "discarded_count": 0, "alignment_loss": 0.0}}},
        "gaps": {"loss_max": 0.0, "by_timeframe": {"M1": {"expected_bars": 600, "missing_bars": 0, "gap_loss": 0.0}}},
        "duplicates_dropped": {"by_timeframe": {"M1": 0}},
        "specs_found": false, "pip_size_defaulted": false, "env_overrides": []
    });
    assert_eq!(json, expected);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn a_second_load_maps_the_same_file_and_knows_the_same() {
    let root = Root::new().pair(Timeframe::M1, &every(Timeframe::M1, MONDAY, 600));
    let first = root.load(&request(Timeframe::M1)).unwrap();
    let files = root.store_files();
    let modified = |path: &PathBuf| std::fs::metadata(path).unwrap().modified().unwrap();
    let written = modified(&files[0]);
    let second = root.load(&request(Timeframe::M1)).unwrap();
    assert_eq!((root.store_files(), modified(&files[0])), (files.clone(), written));
    assert_eq!(first.governance, second.governance);
    assert_eq!(first.inputs, second.inputs);
    assert_eq!(first.market.bars.ask.close, second.market.bars.ask.close);
    // A damaged file is put aside by writing it anew; what is mapped stays readable.
    let mut bytes = std::fs::read(&files[0]).unwrap();
    let whole = bytes.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&files[0]).unwrap();
    std::fs::write(&files[0], &bytes).unwrap();
    let third = root.load(&request(Timeframe::M1)).unwrap();
    assert_eq!(std::fs::read(&files[0]).unwrap(), whole);
    assert_eq!(first.market.bars.ask.close, third.market.bars.ask.close);
}

#[test]
fn many_loads_at_once_are_safe() {
    let root = Root::new().pair(Timeframe::M1, &every(Timeframe::M1, MONDAY, 5000));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| root.load(&request(Timeframe::M1)).unwrap())).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap().market.bars.len(), 5000);
        }
    });
    assert_eq!(root.store_files().len(), 1);
}

#[test]
fn which_file_is_which_does_not_depend_on_the_order_of_writing() {
    let times = ten();
    let (a, b) = (Root::new(), Root::new());
    a.write(Timeframe::M1, "BID", &Columns::candles(&times, 0.0));
    a.write(Timeframe::M1, "ASK", &Columns::candles(&times, SPREAD));
    b.write(Timeframe::M1, "ASK", &Columns::candles(&times, SPREAD));
    b.write(Timeframe::M1, "BID", &Columns::candles(&times, 0.0));
    let (a, b) = (a.load(&request(Timeframe::M1)).unwrap(), b.load(&request(Timeframe::M1)).unwrap());
    assert_eq!(a.inputs, b.inputs);
    assert_eq!(a.market.bars.bid.close, b.market.bars.bid.close);
}

fn news() -> Columns {
    Columns(vec![
        ("UTC time", stamps(&[MONDAY, MONDAY + 1, MONDAY + 1, MONDAY + 2], Some("UTC"))),
        ("Id", texts(&["a", "b", "a", "c"])),
        ("Name", texts(&["x"; 4])),
        ("Impact", texts(&["low", "Medium", "HIGH", "HIGH"])),
        ("Currency", texts(&["usd", "EUR", "JPY", "All"])),
    ])
}

fn parse_news(columns: &Columns) -> Result<NewsCalendar, Error> {
    NewsCalendar::parse(columns.bytes().into(), Path::new("news.parquet"))
}

#[test]
fn news_rules() {
    let calendar = parse_news(&news()).unwrap();
    let currencies: Vec<&str> = calendar.events().iter().map(|event| event.currency.as_str()).collect();
    assert_eq!((currencies, calendar.rows()), (vec!["USD", "EUR", "ALL"], 4));
    let ids = Arc::new(Int64Array::from(vec![1, 2, 3, 3]));
    assert_eq!(parse_news(&news().with("Id", ids)).unwrap().events().len(), 3);
    let large = Arc::new(LargeStringArray::from_iter_values(["a", "b", "c", "d"]));
    assert_eq!(parse_news(&news().with("Id", large)).unwrap().events().len(), 4);

    let nullable = |at: usize| Arc::new(StringArray::from_iter((0..4).map(|i| (i != at).then_some("x")))) as ArrayRef;
    let cases = [
        (news().without("Impact"), 0, "MissingColumn: column `Impact`"),
        (news().with("UTC time", stamps(&[0; 4], None)), 0, "InvalidTimezone: column `UTC time`"),
        (news().with("Currency", floats([1.0; 4])), 0, "InvalidColumnType: column `Currency`"),
        (news().with("UTC time", stamps(&[1, 2, 1, 3], Some("UTC"))), 2, "event times must not decrease"),
        (news().with("Impact", texts(&["LOW", "NONE", "LOW", "LOW"])), 1, "Impact must be"),
        (news().with("Currency", texts(&["USD", "EUR", "EURO", "USD"])), 2, "Currency must be three letters"),
        (news().with("Currency", texts(&["USD", "EUR", "E1R", "USD"])), 2, "Currency must be three letters"),
        (news().with("Name", nullable(3)), 3, "column `Name` has a value in every row"),
        (news().with("Id", nullable(0)), 0, "column `Id` has a value in every row"),
        (
            Columns(news().0.into_iter().map(|(name, column)| (name, column.slice(0, 0))).collect()),
            0,
            "at least one event",
        ),
    ];
    for (columns, expected_row, expected_rule) in cases {
        match parse_news(&columns).unwrap_err() {
            Error::NewsInvalid { row, rule, .. } => {
                assert!(row == expected_row && rule.starts_with(expected_rule), "row {row}: {rule}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(Root::new().sources().news(), Err(Error::DataFile { kind: "FileNotFound", .. })));
    assert!(matches!(
        NewsCalendar::parse(b"no".as_slice().to_vec().into(), Path::new("n")),
        Err(Error::DataFile { kind: "ParseError", .. })
    ));
}

#[test]
fn yaml_inputs_have_an_identity_and_must_exist() {
    let root = Root::new();
    let sources = root.sources();
    assert!(matches!(sources.costs(), Err(Error::Config(_))));
    assert!(matches!(sources.specs(), Err(Error::Config(_))));
    std::fs::write(&sources.costs_file, "defaults: {per_lot: -1}").unwrap();
    let message = sources.costs().unwrap_err().to_string();
    assert_eq!(message, "costs.yaml: defaults.per_lot: must be a number >= 0, got -1");
    std::fs::write(&sources.costs_file, "").unwrap();
    let (_, input) = sources.costs().unwrap();
    assert_eq!((input.kind.as_str(), input.path.as_str()), ("execution_costs_yaml", "costs.yaml"));
    assert_eq!(input.sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert!(CostFile::parse(b"defaults: {schema: x}", "c").is_err());
    assert!(CostFile::parse(b"defaults: {side: x}", "c").is_err());
    assert!(SymbolSpecs::parse(b"EURUSD: {tick_size: -1}", "s").is_err());
}

#[test]
fn generated_bars_are_read_like_any_others() {
    let root = Root::new();
    let source = SyntheticSource { seed: 7, bars: 5000 };
    let (start_ns, end_ns) = synthetic::period(Timeframe::M5, source.bars);
    let request = DataRequest {
        others: vec![Timeframe::H1, Timeframe::H4, Timeframe::D1],
        start_ns,
        end_ns,
        synthetic: Some(source),
        ..request(Timeframe::M5)
    };
    let loaded = root.load(&request).unwrap();
    assert_eq!(loaded.market.bars.len(), 5000);
    assert_eq!(loaded.market.bars.open_time.last(), Some(&end_ns));
    assert_eq!(loaded.inputs[0].path, "EURUSD/EURUSD_M5_BID.parquet");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let other = Root::new().load(&request).unwrap();
    assert_eq!(loaded.inputs, other.inputs);
}

/// The shared data folder, or `None` with a line that says so.
fn shared_data() -> Option<PathBuf> {
    let (path, required) = match std::env::var_os("OMEGA_TEST_DATA").filter(|value| !value.is_empty()) {
        // A relative folder counts from the workspace, wherever the test runner stands.
        Some(path) => (Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path), true),
        None => (Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), false),
    };
    assert!(path.is_dir() || !required, "OMEGA_TEST_DATA names no folder: {}", path.display());
    if !path.is_dir() {
        println!("skipped: neither OMEGA_TEST_DATA nor ../shared/data is there");
        return None;
    }
    Some(path)
}

#[test]
fn genuine_bars_pass() {
    let Some(data) = shared_data() else { return };
    for (root, symbol, timeframe, rows) in [
        ("", "EURUSD", Timeframe::M5, None),
        ("", "USDJPY", Timeframe::M1, Some(27_417)),
        ("", "XAGUSD", Timeframe::M5, Some(141_078)),
        ("", "XAUUSD", Timeframe::H1, Some(76_499)),
        ("long", "EURUSD", Timeframe::H1, Some(68_271)),
        ("long", "BTCUSD", Timeframe::D1, Some(1331)),
    ] {
        let pair = check_pair(&data.join(root), symbol, timeframe).unwrap();
        assert_eq!(pair.filler.bars, 0, "{symbol} {timeframe}");
        if let Some(rows) = rows {
            assert_eq!(pair.bars.len(), rows);
        }
    }
}

#[test]
fn genuine_faults_are_refused_naming_the_first_bad_row() {
    let Some(data) = shared_data() else { return };
    let issues = data.join("known-issues");
    for (folder, symbol, timeframe) in [
        ("fxcm-crossed", "EURUSD", Timeframe::H1),
        ("fxcm-m1-raw", "GBPUSD", Timeframe::M1),
        ("fxcm-m1-raw", "USDJPY", Timeframe::M1),
    ] {
        let error = check_pair(&issues.join(folder), symbol, timeframe).unwrap_err();
        let Error::DataSpread { timestamp_ns, .. } = error else { panic!("{error:?}") };
        assert_eq!(Some(timestamp_ns), first_violation(&issues, folder, symbol), "{folder} {symbol}");
    }
    let flats = check_pair(&issues.join("dukascopy-weekend-flats"), "EURUSD", Timeframe::M1).unwrap();
    assert_eq!(flats.bars.len(), 43_200);
    assert!((11_000..=11_600).contains(&flats.filler.bars), "{}", flats.filler.bars);
    assert!(flats.warnings.iter().any(|warning| warning.contains("filler")), "{:?}", flats.warnings);
}

/// Stamp of the first listed row with ask below bid at open or close.
fn first_violation(issues: &Path, folder: &str, symbol: &str) -> Option<i64> {
    let list =
        [issues.join(folder).join(format!("{symbol}_violations.csv")), issues.join(format!("{symbol}_violations.csv"))];
    let path = list.iter().find(|path| path.is_file())?;
    let mut reader = csv::Reader::from_path(path).ok()?;
    let time = reader.headers().ok()?.iter().position(|name| name.to_ascii_lowercase().contains("time"))?;
    let record = reader.records().next()?.ok()?;
    let text = record.get(time)?.replace(' ', "T");
    let text = if text.ends_with('Z') || text.contains('+') { text } else { format!("{text}Z") };
    let stamp: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(stamp.as_nanosecond()).ok()
}

#[test]
fn genuine_calendars_are_read() {
    let Some(data) = shared_data() else { return };
    for (file, events) in [("high_impact_2020_2026.parquet", 4700), ("all_impacts_2019_2020.parquet", 4089)] {
        let bytes = std::fs::read(data.join("news").join(file)).unwrap();
        let calendar = NewsCalendar::parse(bytes.into(), Path::new(file)).unwrap();
        assert_eq!(calendar.events().len(), events);
    }
}
