//! The four files of one run: `meta.json`, `trades.json`, `equity.csv`, `metrics.json`
//! (metrics-and-outputs specification §7).
//!
//! Whole or absent: written into a temporary sibling folder that is flushed and renamed at the end. What goes in is
//! the caller's business; so is the clock.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::backtest::canonical::{Layout, float_text, write_json};
use crate::backtest::walk::EquityPoint;
use crate::metrics::{CATALOGUE, Counters, Summary};
use crate::portfolio::Trade;
use crate::strategy::Variant;
use crate::units::{DAY_NS, EpochNs, Timeframe};

/// Everything the files hold.
#[derive(Debug, Clone, Copy)]
pub struct RunDocuments<'a> {
    /// `meta.json`.
    pub meta: &'a RunMeta,
    /// `trades.json`; sorted here.
    pub trades: &'a [TradeRecord],
    /// `equity.csv`, one point per tradable bar, in order.
    pub equity: &'a [EquityPoint],
    /// `metrics` of `metrics.json`, rounded by unit: [`Summary::artefact`].
    pub metrics: &'a Map<String, Value>,
}

/// What a run was and on what it rests.
#[derive(Debug, Clone, PartialEq)]
pub struct RunMeta {
    /// [`crate::backtest::canonical::run_id`].
    pub run_id: String,
    /// Wall clock; the only thing that differs between two equal runs.
    pub generated_at_ns: EpochNs,
    /// Package version.
    pub engine_version: String,
    /// Commit of the build and whether it had uncommitted changes, if known.
    pub git: Option<(String, bool)>,
    /// SHA-256 of the canonical config, hex.
    pub config_hash: String,
    /// File name of the config, without folders.
    pub config_source: Option<String>,
    /// Normalised config with all defaults.
    pub config_snapshot: Value,
    /// Instrument.
    pub symbol: String,
    /// Primary timeframe.
    pub timeframe: Timeframe,
    /// Open time of the first tradable bar.
    pub start_time_ns: EpochNs,
    /// Open time of the last bar.
    pub end_time_ns: EpochNs,
    /// Hash of the dataset manifest.
    pub manifest_sha256: String,
    /// Place of the manifest inside the cache folder.
    pub manifest_ref: String,
    /// Block of the data contract §14.
    pub governance: Value,
    /// Account currency.
    pub account_currency: String,
    /// Money at the start.
    pub initial_balance: f64,
    /// Account currency per lot and unit of price.
    pub unit_value: f64,
    /// `rates`, `same_currency`, `tick_value` or `contract_size`.
    pub fx_source: String,
    /// Pairs taken 1:1.
    pub fx_unresolved: Vec<String>,
    /// Semantics.
    pub variant: Variant,
    /// Counts of the loop.
    pub counters: Counters,
    /// Effective seed of the slippage stream.
    pub rng_seed: u64,
}

/// A trade with what only the artefact tells of it.
#[derive(Debug, Clone, PartialEq)]
pub struct TradeRecord {
    /// The round trip.
    pub trade: Trade,
    /// At least `stop_loss_kind` and `in_entry_candle`; the signal's meta.
    pub meta: Map<String, Value>,
}

/// The files could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ArtefactError {
    /// The system refused; a full disk shows in the kind of `source`.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// `create it`, `write it` …
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A number that is not finite never reaches a file.
    #[error("{file}: `{field}` is not finite")]
    NotFinite {
        /// The file it was meant for.
        file: &'static str,
        /// Its field.
        field: String,
    },
    /// The document to write from is not the one of a successful run.
    #[error("a result's `{field}` must be {rule}, got {found}")]
    Result {
        /// Its field.
        field: String,
        /// What it must be.
        rule: &'static str,
        /// What it is.
        found: String,
    },
    /// The metrics are not those of the catalogue.
    #[error("metrics.json: `{key}` is {found}")]
    Metrics {
        /// The key.
        key: String,
        /// `missing` or `not in the catalogue`.
        found: &'static str,
    },
}

/// Writes `<parent>/<run_id>/` and returns it. An earlier folder of that name is replaced as a whole.
pub fn write_run(parent: &Path, documents: &RunDocuments<'_>) -> Result<PathBuf, ArtefactError> {
    let folder = parent.join(&documents.meta.run_id);
    write_folder(&folder, documents)?;
    Ok(folder)
}

/// Writes the four files as `folder`, whose name is the caller's (`top/1`); its parent is created.
pub fn write_folder(folder: &Path, documents: &RunDocuments<'_>) -> Result<(), ArtefactError> {
    check(documents)?;
    write_whole(folder, |unfinished| write_files(unfinished, documents))
}

/// Makes `folder` whole or not at all: `write` fills a sibling that is renamed.
pub(super) fn write_whole(
    folder: &Path,
    write: impl FnOnce(&Path) -> Result<(), ArtefactError>,
) -> Result<(), ArtefactError> {
    let parent = folder.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(failed(parent, "create it"))?;
    let sibling = |ending: &str| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        parent.join(format!(".{name}.{}.{ending}", std::process::id()))
    };
    let (unfinished, outdated) = (sibling("tmp"), sibling("old"));
    let outcome =
        clear(&unfinished).and_then(|()| write(&unfinished)).and_then(|()| replace(folder, &unfinished, &outdated));
    if outcome.is_err() {
        // The first failure is the one worth telling.
        let _ = fs::remove_dir_all(&unfinished);
    }
    outcome
}

fn failed<'a>(path: &'a Path, action: &'static str) -> impl Fn(io::Error) -> ArtefactError + 'a {
    move |source| ArtefactError::Io { path: path.to_owned(), action, source }
}

/// A new, empty folder.
fn clear(folder: &Path) -> Result<(), ArtefactError> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(failed(folder, "clear it"))?;
    }
    fs::create_dir(folder).map_err(failed(folder, "create it"))
}

fn write_files(folder: &Path, documents: &RunDocuments<'_>) -> Result<(), ArtefactError> {
    write_file(&folder.join("meta.json"), |out| json_document(out, &meta_json(documents.meta)))?;
    write_file(&folder.join("trades.json"), |out| write_trades(out, documents))?;
    write_file(&folder.join("equity.csv"), |out| write_equity(out, documents.equity))?;
    write_file(&folder.join("metrics.json"), |out| json_document(out, &metrics_json(documents.metrics)))
}

pub(super) fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), ArtefactError> {
    let mut out = BufWriter::new(File::create(path).map_err(failed(path, "create it"))?);
    write(&mut out).and_then(|()| out.flush()).map_err(failed(path, "write it"))?;
    out.get_ref().sync_all().map_err(failed(path, "flush it to disk"))
}

/// A folder cannot be renamed over one that holds files, so an earlier one steps aside first.
fn replace(folder: &Path, finished: &Path, outdated: &Path) -> Result<(), ArtefactError> {
    let earlier = folder.exists();
    if earlier {
        fs::rename(folder, outdated).map_err(failed(folder, "move the earlier one aside"))?;
    }
    if let Err(source) = fs::rename(finished, folder) {
        if earlier {
            let _ = fs::rename(outdated, folder);
        }
        return Err(ArtefactError::Io { path: folder.to_owned(), action: "rename it into place", source });
    }
    if earlier {
        fs::remove_dir_all(outdated).map_err(failed(outdated, "remove it"))?;
    }
    Ok(())
}

/// Refuses what may not be written, before the first file.
pub(super) fn check(documents: &RunDocuments<'_>) -> Result<(), ArtefactError> {
    let finite = |file, fields: &[(&str, f64)]| match fields.iter().find(|(_, value)| !value.is_finite()) {
        Some((field, _)) => Err(ArtefactError::NotFinite { file, field: (*field).to_owned() }),
        None => Ok(()),
    };
    let meta = documents.meta;
    finite("meta.json", &[("initial_balance", meta.initial_balance), ("unit_value", meta.unit_value)])?;
    for TradeRecord { trade, .. } in documents.trades {
        let level = |value: Option<f64>| value.unwrap_or(0.0);
        let fields = [
            ("entry_price", trade.entry_price),
            ("exit_price", trade.exit_price),
            ("initial_stop_loss", level(trade.initial_stop_loss)),
            ("stop_loss", level(trade.stop_loss)),
            ("take_profit", level(trade.take_profit)),
            ("size", trade.lots),
            ("result", trade.result),
            ("entry_fee", trade.entry_fee),
            ("exit_fee", trade.exit_fee),
            ("r_multiple", level(trade.r_multiple)),
        ];
        finite("trades.json", &fields)?;
    }
    for point in documents.equity {
        let fields = [
            ("equity", point.equity),
            ("balance", point.balance),
            ("drawdown", point.drawdown),
            ("high_water", point.high_water),
        ];
        finite("equity.csv", &fields)?;
    }
    check_metrics(documents.metrics)
}

fn check_metrics(metrics: &Map<String, Value>) -> Result<(), ArtefactError> {
    let expected = || CATALOGUE.iter().filter(|def| def.in_artefact);
    if let Some(key) = metrics.keys().find(|key| expected().all(|def| def.key != key.as_str())) {
        return Err(ArtefactError::Metrics { key: key.clone(), found: "not in the catalogue" });
    }
    for def in expected() {
        match metrics.get(def.key) {
            None => return Err(ArtefactError::Metrics { key: def.key.to_owned(), found: "missing" }),
            // serde_json turns a float that is not finite into null.
            Some(Value::Null) => {
                return Err(ArtefactError::NotFinite { file: "metrics.json", field: def.key.to_owned() });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

pub(super) fn json_document(out: &mut impl Write, value: &Value) -> io::Result<()> {
    write_json(out, value, Layout::Indented(0))?;
    out.write_all(b"\n")
}

pub(super) fn meta_json(meta: &RunMeta) -> Value {
    let mut config = json!({ "hash": meta.config_hash, "snapshot": meta.config_snapshot });
    if let Some(source) = &meta.config_source {
        config["source"] = source.as_str().into();
    }
    let counters = &meta.counters;
    let mut document = json!({
        "run_id": meta.run_id,
        "generated_at": iso_time(meta.generated_at_ns),
        "generated_at_ns": meta.generated_at_ns,
        "engine": { "name": "omega-opt", "version": meta.engine_version },
        "config": config,
        "dataset": {
            "symbol": meta.symbol,
            "timeframe": meta.timeframe.as_str(),
            "start_time": iso_time(meta.start_time_ns),
            "start_time_ns": meta.start_time_ns,
            "end_time": iso_time(meta.end_time_ns),
            "end_time_ns": meta.end_time_ns,
            "manifest_sha256": meta.manifest_sha256,
            "manifest_ref": meta.manifest_ref,
            "governance": meta.governance,
        },
        "account": {
            "account_currency": meta.account_currency,
            "initial_balance": meta.initial_balance,
            "unit_value": meta.unit_value,
            "fx_source": meta.fx_source,
            "fx_unresolved": meta.fx_unresolved,
        },
        "execution": {
            "variant": match meta.variant { Variant::V2 => "v2", Variant::V1Parity => "v1_parity" },
            "counters": {
                "signals": counters.signals,
                "orders_rejected": counters.orders_rejected,
                "orders_dropped_no_slot": counters.orders_dropped_no_slot,
                "pending_orders_at_end": counters.pending_orders_at_end,
                "open_positions_at_end": counters.open_positions_at_end,
                "fills": counters.fills,
            },
        },
        "rng": { "seed": meta.rng_seed, "algorithm": "chacha8/seed+fill" },
    });
    if let Some((commit, dirty)) = &meta.git {
        document["git"] = json!({ "commit": commit, "dirty": dirty });
    }
    document
}

fn write_trades(out: &mut impl Write, documents: &RunDocuments<'_>) -> io::Result<()> {
    list_document(out, trades_json(documents))
}

/// The trades in their order, each as it stands in `trades.json`.
pub(super) fn trades_json<'a>(documents: &RunDocuments<'a>) -> impl Iterator<Item = Value> + 'a {
    let mut sorted: Vec<&TradeRecord> = documents.trades.iter().collect();
    sorted.sort_by_key(|r| (r.trade.exit_time_ns, r.trade.entry_time_ns, r.trade.position_id));
    let symbol = documents.meta.symbol.as_str();
    sorted.into_iter().map(move |record| trade_json(record, symbol))
}

/// A list of objects, one after the other: never all of them in memory as JSON values.
pub(super) fn list_document(out: &mut impl Write, items: impl Iterator<Item = Value>) -> io::Result<()> {
    let mut open = false;
    for item in items {
        out.write_all(if open { b",\n  " } else { b"[\n  " })?;
        open = true;
        write_json(out, &item, Layout::Indented(1))?;
    }
    out.write_all(if open { b"\n]\n" } else { b"[]\n" })
}

fn trade_json(record: &TradeRecord, symbol: &str) -> Value {
    let trade = &record.trade;
    json!({
        "entry_time": iso_time(trade.entry_time_ns),
        "entry_time_ns": trade.entry_time_ns,
        "exit_time": iso_time(trade.exit_time_ns),
        "exit_time_ns": trade.exit_time_ns,
        "direction": trade.direction.as_str(),
        "symbol": symbol,
        "order_type": trade.order_type.as_str(),
        "entry_price": trade.entry_price,
        "exit_price": trade.exit_price,
        "initial_stop_loss": trade.initial_stop_loss,
        "stop_loss": trade.stop_loss,
        "take_profit": trade.take_profit,
        "size": trade.lots,
        "result": trade.result,
        "entry_fee": trade.entry_fee,
        "exit_fee": trade.exit_fee,
        "r_multiple": trade.r_multiple,
        "reason": trade.reason.as_str(),
        "scenario_id": trade.scenario_id,
        "meta": record.meta,
    })
}

pub(super) fn write_equity<'a>(
    out: &mut impl Write,
    points: impl IntoIterator<Item = &'a EquityPoint>,
) -> io::Result<()> {
    out.write_all(b"timestamp,timestamp_ns,equity,balance,drawdown,high_water\n")?;
    for point in points {
        let numbers = [point.equity, point.balance, point.drawdown, point.high_water].map(float_text);
        let [equity, balance, drawdown, high_water] = numbers;
        let time = iso_time(point.time_ns);
        writeln!(out, "{time},{},{equity},{balance},{drawdown},{high_water}", point.time_ns)?;
    }
    Ok(())
}

fn metrics_json(metrics: &Map<String, Value>) -> Value {
    json!({ "definitions": Summary::definitions(), "metrics": metrics })
}

/// `YYYY-MM-DDTHH:MM:SS+00:00`, nine digits of nanoseconds before the offset where they are not zero. Integer
/// arithmetic throughout; proleptic Gregorian calendar.
pub fn iso_time(ns: EpochNs) -> String {
    const SECOND_NS: i64 = 1_000_000_000;
    let (days, in_day) = (ns.div_euclid(DAY_NS), ns.rem_euclid(DAY_NS));
    let (year, month, day) = civil_date(days);
    let (seconds, fraction) = (in_day / SECOND_NS, in_day % SECOND_NS);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:09}") };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}+00:00")
}

/// Year, month, day of a number of days since 1970-01-01.
///
/// Years are counted from March, so that the leap day ends one; 400 of them are an era of 146,097 days. Hinnant
/// (2013), "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil_date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, in_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::ExitReason;
    use crate::strategy::OrderType;
    use crate::units::Direction;

    fn meta() -> RunMeta {
        RunMeta {
            run_id: "05a6594204b91658".into(),
            generated_at_ns: 1_700_000_000_123_456_789,
            engine_version: "0.1.0".into(),
            git: None,
            config_hash: "0".repeat(64),
            config_source: Some("a.json".into()),
            config_snapshot: json!({"symbol": "EURUSD", "costs": {"fee_multiplier": 1.0}}),
            symbol: "EURUSD".into(),
            timeframe: Timeframe::M5,
            start_time_ns: 0,
            end_time_ns: 300_000_000_000,
            manifest_sha256: "1".repeat(64),
            manifest_ref: "manifests/1.json".into(),
            governance: json!({"specs_found": true}),
            account_currency: "EUR".into(),
            initial_balance: 10000.0,
            unit_value: 1e5,
            fx_source: "rates".into(),
            fx_unresolved: vec![],
            variant: Variant::V2,
            counters: Counters::default(),
            rng_seed: 42,
        }
    }

    fn trade(position_id: u64, exit_time_ns: i64) -> TradeRecord {
        let trade = Trade {
            position_id,
            direction: Direction::Short,
            order_type: OrderType::Market,
            scenario_id: 2,
            rule: 0,
            entry_bar: 0,
            exit_bar: 1,
            entry_time_ns: 0,
            exit_time_ns,
            entry_price: 1.1,
            exit_price: 1.0995,
            initial_stop_loss: None,
            stop_loss: None,
            take_profit: Some(1.09),
            lots: 0.3,
            result: 0.1 + 0.2,
            entry_fee: 0.0,
            exit_fee: 0.00001,
            r_multiple: None,
            reason: ExitReason::TakeProfit,
        };
        let meta = json!({"stop_loss_kind": "none", "in_entry_candle": false});
        TradeRecord { trade, meta: meta.as_object().cloned().unwrap() }
    }

    fn point(time_ns: i64) -> EquityPoint {
        EquityPoint { time_ns, equity: 10000.0, balance: 9999.5, drawdown: 0.00001, high_water: 10000.0 }
    }

    fn metrics() -> Map<String, Value> {
        CATALOGUE
            .iter()
            .filter(|def| def.in_artefact)
            .map(|def| {
                let value = match (def.text_when_undefined, def.unit.is_integer()) {
                    (true, _) => json!("n/a"),
                    (_, true) => json!(5),
                    _ => json!(0.4),
                };
                (def.key.to_owned(), value)
            })
            .collect()
    }

    #[test]
    fn writes_four_files_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let (meta, metrics) = (meta(), metrics());
        let trades = [trade(2, 600), trade(1, 600), trade(3, 300)];
        let documents = RunDocuments { meta: &meta, trades: &trades, equity: &[point(0)], metrics: &metrics };
        let folder = write_run(root.path(), &documents).unwrap();
        assert_eq!(folder, root.path().join("05a6594204b91658"));
        let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        let names = |dir: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&folder), ["equity.csv", "meta.json", "metrics.json", "trades.json"]);
        assert_eq!(
            text("equity.csv"),
            "timestamp,timestamp_ns,equity,balance,drawdown,high_water\n\
             1970-01-01T00:00:00+00:00,0,10000.0,9999.5,1e-05,10000.0\n"
        );
        let read: Value = serde_json::from_str(&text("trades.json")).unwrap();
        let order: Vec<_> = read.as_array().unwrap().iter().map(|t| t["exit_time_ns"].as_i64().unwrap()).collect();
        assert_eq!(order, [300, 600, 600]);
        assert!(text("trades.json").starts_with("[\n  {\n    \"direction\": \"short\",\n    \"entry_fee\": 0.0,\n"));
        assert!(text("trades.json").contains("\"exit_fee\": 1e-05,\n"));
        assert!(text("trades.json").contains("\"result\": 0.30000000000000004,\n"));
        assert!(text("trades.json").ends_with("\n  }\n]\n"));
        assert!(text("meta.json").contains("\"generated_at\": \"2023-11-14T22:13:20.123456789+00:00\""));
        assert!(text("meta.json").contains("\"initial_balance\": 10000.0,\n"));
        assert!(text("metrics.json").contains("\"sharpe_trade_r\": \"n/a\",\n"));
        let read: Value = serde_json::from_str(&text("metrics.json")).unwrap();
        assert_eq!(read["definitions"].as_object().unwrap().len(), read["metrics"].as_object().unwrap().len());

        let empty = RunDocuments { trades: &[], ..documents };
        write_run(root.path(), &empty).unwrap();
        assert_eq!(text("trades.json"), "[]\n");
        assert_eq!(names(root.path()), ["05a6594204b91658"]);
    }

    #[test]
    fn what_is_not_finite_or_not_in_the_catalogue_is_refused_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (meta, metrics) = (meta(), metrics());
        let mut bad = trade(1, 600);
        bad.trade.result = f64::NAN;
        let documents = RunDocuments { meta: &meta, trades: &[bad], equity: &[point(0)], metrics: &metrics };
        let error = write_run(root.path(), &documents).unwrap_err();
        assert_eq!(error.to_string(), "trades.json: `result` is not finite");

        let mut incomplete = metrics.clone();
        incomplete.remove("wins");
        let documents = RunDocuments { trades: &[], metrics: &incomplete, ..documents };
        assert_eq!(write_run(root.path(), &documents).unwrap_err().to_string(), "metrics.json: `wins` is missing");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn times_by_integer_arithmetic() {
        for (ns, text) in [
            (0, "1970-01-01T00:00:00+00:00"),
            (-1, "1969-12-31T23:59:59.999999999+00:00"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00+00:00"),
            (1_400_000_000_000_000_001, "2014-05-13T16:53:20.000000001+00:00"),
            (i64::MAX, "2262-04-11T23:47:16.854775807+00:00"),
            (i64::MIN, "1677-09-21T00:12:43.145224192+00:00"),
        ] {
            assert_eq!(iso_time(ns), text);
        }
    }
}
