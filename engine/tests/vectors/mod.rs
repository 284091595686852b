//! Reading the specification's vectors, and small market data made of them.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests: fail loudly, say what is skipped")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use engine::data::{Bars, MarketData, Quotes};
use engine::units::Timeframe;

/// The folder of the vectors; none (and a line saying so) if neither the variable is set nor the default there.
pub(crate) fn vectors(test: &str) -> Option<PathBuf> {
    // A relative folder counts from the workspace, wherever the test runner stands.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let given = std::env::var_os("OMEGA_TEST_DATA").map(|folder| workspace.join(folder));
    let data = given.clone().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"));
    let folder = data.join("../spec/vectors");
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(given.is_none(), "OMEGA_TEST_DATA is set, but {} is missing", folder.display());
    println!("{test}: skipped, no vectors at {} and OMEGA_TEST_DATA is not set", folder.display());
    None
}

/// A CSV file by columns, as text.
pub(crate) struct Table {
    columns: BTreeMap<String, Vec<String>>,
}

impl Table {
    pub(crate) fn read(path: &Path) -> Self {
        let mut reader = csv::Reader::from_path(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let names: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
        let mut columns: BTreeMap<String, Vec<String>> = names.iter().map(|n| (n.clone(), Vec::new())).collect();
        for record in reader.records() {
            for (name, field) in names.iter().zip(record.unwrap().iter()) {
                columns.get_mut(name).unwrap().push(field.to_owned());
            }
        }
        Self { columns }
    }

    pub(crate) fn text(&self, column: &str) -> &[String] {
        self.columns.get(column).unwrap_or_else(|| panic!("no column {column}"))
    }

    pub(crate) fn floats(&self, column: &str) -> Vec<f64> {
        self.text(column).iter().map(|text| text.parse().unwrap()).collect()
    }

    pub(crate) fn ints(&self, column: &str) -> Vec<i64> {
        self.text(column).iter().map(|text| text.parse().unwrap()).collect()
    }

    pub(crate) fn rows(&self) -> usize {
        self.columns.values().next().map_or(0, Vec::len)
    }
}

/// Bars of one of the `*_bars_*.csv` files.
pub(crate) fn bars(path: &Path, timeframe: Timeframe) -> Bars {
    let table = Table::read(path);
    let side = |side: &str| Quotes {
        open: table.floats(&format!("{side}_open")).into(),
        high: table.floats(&format!("{side}_high")).into(),
        low: table.floats(&format!("{side}_low")).into(),
        close: table.floats(&format!("{side}_close")).into(),
        volume: table.floats("volume").into(),
    };
    Bars { timeframe, open_time: table.ints("open_time_ns").into(), bid: side("bid"), ask: side("ask") }
}

pub(crate) fn market(primary: Bars, others: Vec<Bars>) -> MarketData {
    MarketData { symbol: "EURUSD".to_owned(), bars: primary, first_tradable: 0, others }
}

/// NaN in the same places, finite values within `tolerance` (absolute), infinities equal.
pub(crate) fn assert_close(name: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{name}: length");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert_eq!(f.is_nan(), e.is_nan(), "{name}[{i}]: found {f}, expected {e}");
        if f.is_nan() || f == e {
            continue;
        }
        let difference = (f - e).abs();
        assert!(difference <= tolerance, "{name}[{i}]: found {f}, expected {e}, difference {difference:e}");
    }
}
