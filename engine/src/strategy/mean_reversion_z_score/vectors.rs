//! Every signal of the reference on 1,700 bars, for 18 settings, and the first signal of each with its whole meta.
//!
//! Source: `mrz_signals.csv`, `mrz_signal_samples.jsonl` (V1 Python, see the README beside them). Index, label, side,
//! entry, stop, target, reason and tags must be equal; z, ATR and other computed numbers to 1e-10 (absolute), the tolerance
//! of the vectors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::data::{Bars, MarketData, Quotes};
use crate::indicators::{Column, ColumnCache, ColumnKey, HtfMethod, MtfOptions, StaleLimit, Unlimited, Visibility};
use crate::rules::{BoundRules, GuardCache};
use crate::strategy::{BuildContext, ColumnView, DataSlice, Strategy, Variant, find};
use crate::units::{Direction, Timeframe};

/// One line of `mrz_signals.csv`, or what the strategy says in the same form.
#[derive(Debug, Clone)]
struct Signal {
    idx: usize,
    label: String,
    direction: String,
    entry: f64,
    stop: f64,
    target: f64,
    reason: String,
    tags: String,
    z: f64,
    atr: f64,
    vol_label: String,
    meta: Value,
}

struct View(BTreeMap<ColumnKey, Column>);

impl ColumnView for View {
    fn column(&self, key: &ColumnKey) -> Option<&[f64]> {
        self.0.get(key).map(|column| &**column)
    }
}

/// The folder of the vectors, or the reason why there is none.
fn vectors() -> Option<PathBuf> {
    let data = match std::env::var_os("OMEGA_TEST_DATA") {
        Some(folder) => {
            // A relative folder counts from the workspace, wherever the test runner stands.
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
            assert!(folder.is_dir(), "OMEGA_TEST_DATA names no folder: {}", folder.display());
            folder
        }
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
    };
    let folder = data.join("../spec/vectors");
    if !folder.is_dir() {
        println!("skipped: no test vectors at {}", folder.display());
        return None;
    }
    Some(folder)
}

fn bars(folder: &Path, timeframe: Timeframe) -> Bars {
    let name = format!("mtf_bars_{}.csv", timeframe.as_str().to_lowercase());
    let mut reader = csv::Reader::from_path(folder.join(name)).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.unwrap()).collect();
    let number = |column: usize| rows.iter().map(|row| row[column].parse().unwrap()).collect::<Vec<f64>>();
    let quotes = |first: usize| Quotes {
        open: number(first).into(),
        high: number(first + 1).into(),
        low: number(first + 2).into(),
        close: number(first + 3).into(),
        volume: number(10).into(),
    };
    Bars {
        timeframe,
        open_time: rows.iter().map(|row| row[1].parse::<i64>().unwrap()).collect::<Vec<_>>().into(),
        bid: quotes(2),
        ask: quotes(6),
    }
}

fn market(folder: &Path) -> Arc<MarketData> {
    Arc::new(MarketData {
        symbol: "EURUSD".to_owned(),
        bars: bars(folder, Timeframe::M5),
        first_tradable: 0,
        others: [Timeframe::H1, Timeframe::H4, Timeframe::D1].map(|timeframe| bars(folder, timeframe)).to_vec(),
    })
}

/// Every signal of the setting, each bar evaluated, without gates of time and position.
fn signals(strategy: &dyn Strategy, market: &Arc<MarketData>) -> Vec<Signal> {
    let options = MtfOptions {
        visibility: Visibility::Close,
        close_stamped: Vec::new(),
        stale_limit: Some(StaleLimit::Automatic),
    };
    let cache = Arc::new(ColumnCache::new(Arc::clone(market), options, Arc::new(Unlimited)));
    let keys = strategy.columns().into_iter().chain(strategy.note_columns());
    let view = View(keys.map(|key| (key, cache.get(&key).unwrap())).collect());
    let guards = GuardCache::new(cache);
    let rules = BoundRules::bind(strategy.rules().unwrap(), &view, Some(&guards)).unwrap();
    let mut signals = Vec::new();
    for i in 0..market.bars.len() {
        let Some(hit) = rules.first(i) else { continue };
        let rule = rules.rule(hit.rule);
        let notes = strategy.signal_meta(hit.rule, &DataSlice::new(market, i, &view));
        let number = |key: &str| notes.meta.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
        signals.push(Signal {
            idx: i,
            label: rule.label.clone(),
            direction: rule.direction.to_string(),
            entry: match rule.direction {
                Direction::Long => market.bars.ask.close[i],
                Direction::Short => market.bars.bid.close[i],
            },
            stop: hit.stop.unwrap(),
            target: hit.target.unwrap(),
            reason: rule.reason.to_owned(),
            tags: notes.tags.join("|"),
            z: number("z"),
            atr: number("atr"),
            vol_label: notes.meta.get("vol_cluster").map_or("", |c| c["label"].as_str().unwrap_or("")).to_owned(),
            meta: notes.meta.into(),
        });
    }
    signals
}

fn cases(folder: &Path) -> Vec<(String, Map<String, Value>)> {
    let text = std::fs::read_to_string(folder.join("mrz_cases.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let cases = document["cases"].as_object().unwrap();
    cases
        .iter()
        .map(|(name, case)| {
            assert_eq!(case["entry_timestamp_mode"], "close");
            let mut parameters = case["parameters"].as_object().unwrap().clone();
            // Constructor arguments of the reference that are no parameters.
            parameters.remove("symbol");
            parameters.remove("timeframe");
            (name.clone(), parameters)
        })
        .collect()
}

fn context(variant: Variant) -> BuildContext {
    BuildContext {
        symbol: "EURUSD".to_owned(),
        primary: Timeframe::M5,
        additional: vec![Timeframe::H1, Timeframe::H4, Timeframe::D1],
        variant,
        sessions_given: false,
    }
}

fn build(parameters: &Map<String, Value>, variant: Variant) -> Box<dyn Strategy> {
    find("mean_reversion_z_score").unwrap().build(parameters, &context(variant)).unwrap()
}

fn expected(folder: &Path) -> BTreeMap<String, Vec<Signal>> {
    let mut reader = csv::Reader::from_path(folder.join("mrz_signals.csv")).unwrap();
    let mut by_case: BTreeMap<String, Vec<Signal>> = BTreeMap::new();
    for row in reader.records() {
        let row = row.unwrap();
        let number = |column: usize| row[column].parse::<f64>().unwrap();
        by_case.entry(row[0].to_owned()).or_default().push(Signal {
            idx: row[1].parse().unwrap(),
            label: row[2].to_owned(),
            direction: row[3].to_owned(),
            entry: number(4),
            stop: number(5),
            target: number(6),
            reason: row[7].to_owned(),
            tags: row[8].to_owned(),
            z: number(9),
            atr: number(10),
            vol_label: row[11].to_owned(),
            meta: Value::Null,
        });
    }
    by_case
}

fn close(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-10
}

#[test]
fn every_signal_of_the_reference_is_given_and_no_other() {
    let Some(folder) = vectors() else { return };
    let (market, mut expected) = (market(&folder), expected(&folder));
    let mut checked = 0;
    let cases = cases(&folder);
    assert_eq!(cases.len(), 18);
    for (name, parameters) in cases {
        let found = signals(&*build(&parameters, Variant::V1Parity), &market);
        let wanted = expected.remove(&name).unwrap_or_default();
        let indices = |signals: &[Signal]| signals.iter().map(|signal| signal.idx).collect::<Vec<_>>();
        assert_eq!(indices(&found), indices(&wanted), "{name}");
        for (found, wanted) in found.iter().zip(&wanted) {
            let exact = |signal: &Signal| {
                (
                    [signal.label.clone(), signal.direction.clone(), signal.reason.clone(), signal.tags.clone()],
                    [signal.entry, signal.stop, signal.target],
                    signal.vol_label.clone(),
                )
            };
            assert_eq!(exact(found), exact(wanted), "{name} at {}", wanted.idx);
            assert!(close(found.z, wanted.z) && close(found.atr, wanted.atr), "{name}: {found:?} {wanted:?}");
            checked += 1;
        }
    }
    assert!(expected.is_empty(), "cases without parameters: {:?}", expected.keys());
    assert_eq!(checked, 1774);
}

/// Equal structure, numbers to 1e-10.
fn assert_same(found: &Value, wanted: &Value, path: &str) {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            let keys = |map: &Map<String, Value>| map.keys().cloned().collect::<std::collections::BTreeSet<_>>();
            assert_eq!(keys(found), keys(wanted), "{path}");
            for (key, value) in wanted {
                assert_same(&found[key], value, &format!("{path}.{key}"));
            }
        }
        (Value::Array(found), Value::Array(wanted)) => {
            assert_eq!(found.len(), wanted.len(), "{path}");
            for (index, (found, wanted)) in found.iter().zip(wanted).enumerate() {
                assert_same(found, wanted, &format!("{path}[{index}]"));
            }
        }
        (Value::Number(found), Value::Number(wanted)) => {
            assert!(close(found.as_f64().unwrap(), wanted.as_f64().unwrap()), "{path}: {found} {wanted}");
        }
        _ => assert_eq!(found, wanted, "{path}"),
    }
}

#[test]
fn the_meta_of_each_first_signal_is_that_of_the_reference() {
    let Some(folder) = vectors() else { return };
    let market = market(&folder);
    let cases: BTreeMap<_, _> = cases(&folder).into_iter().collect();
    let samples = std::fs::read_to_string(folder.join("mrz_signal_samples.jsonl")).unwrap();
    for line in samples.lines() {
        let sample: Value = serde_json::from_str(line).unwrap();
        let name = sample["case"].as_str().unwrap();
        let found = signals(&*build(&cases[name], Variant::V1Parity), &market);
        assert_eq!(Value::from(found[0].idx), sample["idx"], "{name}");
        assert_same(&found[0].meta, &sample["signal"]["meta"], name);
    }
    assert_eq!(samples.lines().count(), 16);
}

/// Variant `v2` names the overlays `chain`, always writes the threshold and does not round levels.
#[test]
fn v2_differs_from_the_reference_where_it_is_meant_to() {
    let Some(folder) = vectors() else { return };
    let market = market(&folder);
    let cases: BTreeMap<_, _> = cases(&folder).into_iter().collect();
    let strategy = build(&cases["s6_any_flat"], Variant::V2);
    assert!(strategy.columns().iter().all(|key| key.method == HtfMethod::Native));
    let found = signals(&*strategy, &market);
    let chain = found[0].meta["scenario6"]["chain"].as_array().unwrap();
    assert!(chain.iter().all(|link| link["threshold"].is_f64()), "{chain:?}");
    assert!(found.iter().any(|signal| crate::units::round_decimal(signal.stop, 5) != signal.stop));
    // Scenario 1 reads no other timeframe, so both variants see the same bars.
    let (v1, v2) = (
        signals(&*build(&cases["s1"], Variant::V1Parity), &market),
        signals(&*build(&cases["s1"], Variant::V2), &market),
    );
    assert_eq!(v1.len(), v2.len());
}
