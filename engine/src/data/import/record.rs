//! `import.json` beside the candle files of a symbol: where imported bars come from, and which side nobody quoted.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::units::{PriceSide, Timeframe};

/// Name of the file.
pub(crate) const FILE: &str = "import.json";
/// Version of its form.
const FORMAT_VERSION: u32 = 1;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportRecord {
    /// Version of this form.
    pub format_version: u32,
    /// Instrument.
    pub symbol: String,
    /// Per timeframe.
    pub series: BTreeMap<String, SeriesRecord>,
}

impl ImportRecord {
    pub(crate) fn new(symbol: &str) -> Self {
        Self { format_version: FORMAT_VERSION, symbol: symbol.to_owned(), series: BTreeMap::new() }
    }

    /// The record in the folder of `symbol`; `None` where there is none or it cannot be read.
    pub fn read(root: &Path, symbol: &str) -> Option<Self> {
        let bytes = std::fs::read(root.join(symbol).join(FILE)).ok()?;
        let record: Self = serde_json::from_slice(&bytes).ok()?;
        (record.format_version == FORMAT_VERSION).then_some(record)
    }

    /// What it says of a pair of files with these hashes; nothing if the files are others by now.
    pub fn of(&self, timeframe: Timeframe, bid_sha256: &str, ask_sha256: &str) -> Option<&SeriesRecord> {
        let series = self.series.get(timeframe.as_str())?;
        (series.bid_sha256 == bid_sha256 && series.ask_sha256 == ask_sha256).then_some(series)
    }
}

/// Origin of one pair of candle files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesRecord {
    /// SHA-256 of the bid file, lower-case hex.
    pub bid_sha256: String,
    /// SHA-256 of the ask file.
    pub ask_sha256: String,
    /// Bars of the bid file.
    pub bid_rows: usize,
    /// Bars of the ask file.
    pub ask_rows: usize,
    /// The text files, as they were given.
    pub sources: Vec<SourceRecord>,
    /// Sides that were made instead of quoted: `ask`, `bid`, `bid and ask`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub made_side: Option<String>,
    /// How: `bid + 0.00008 (0.8 pips of 0.0001)`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub made_how: Option<String>,
    /// Timeframe it was aggregated from, as `M1` or `M10`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub aggregated_from: Option<String>,
    /// Where its days begin: `utc` or `new-york-17`; only where it was aggregated.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub day: Option<String>,
    /// Exact duplicates left out.
    pub duplicates_dropped: usize,
    /// Source bars left out because the ask lay below the bid (`--drop-crossed`).
    pub crossed_dropped: usize,
    /// Source bars whose high or low was moved to hold open and close, both sides together (`--widen-range`).
    pub ranges_widened: usize,
}

impl SeriesRecord {
    /// How `side` was made, if it was not quoted.
    pub fn made(&self, side: PriceSide) -> Option<&str> {
        let names = self.made_side.as_ref()?;
        names.split(' ').any(|name| name == side.as_str()).then_some(self.made_how.as_deref().unwrap_or("made"))
    }
}

/// One text file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// File name without folder.
    pub file: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Format it was read as.
    pub format: String,
    /// `bid`, `ask`, `mid`, `last`, or `bid and ask`.
    pub side: String,
    /// What states the side: `the format`, `the file name`, `the user`.
    pub side_stated_by: String,
    /// Zone of its stamps and who states it.
    pub zone: String,
    /// Size of a point where prices or spreads were counted in points.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub point: Option<f64>,
    /// Length of its bars.
    pub timeframe: String,
    /// Its rows.
    pub rows: usize,
}
