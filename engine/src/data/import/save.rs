//! Candle files into their place: written beside it, checked like any others, then renamed; all or none.

use std::io;
use std::path::{Path, PathBuf};

use crate::data::import::record::{FILE, ImportRecord, SeriesRecord};
use crate::data::load::{CheckedPair, check_pair};
use crate::data::manifest::sha256_hex;
use crate::data::read::Candles;
use crate::data::write::{parquet_bytes, write_flushed};
use crate::error::{Error, Result};
use crate::units::Timeframe;

/// A pair of series about to be written; the hashes of its record are filled in here.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) timeframe: Timeframe,
    pub(crate) bid: Candles,
    pub(crate) ask: Candles,
    pub(crate) record: SeriesRecord,
}

/// A series as it now lies on disk.
#[derive(Debug, Clone)]
pub struct ImportedSeries {
    /// Bar length.
    pub timeframe: Timeframe,
    /// Where it comes from.
    pub record: SeriesRecord,
    /// What `data check` says of it.
    pub checked: CheckedPair,
}

/// Name of a candle file.
fn file_name(symbol: &str, timeframe: Timeframe, side: &str) -> String {
    format!("{symbol}_{timeframe}_{side}.parquet")
}

/// Fails if a file of these timeframes is there already.
pub(crate) fn refuse_overwriting(root: &Path, symbol: &str, timeframes: impl Iterator<Item = Timeframe>) -> Result<()> {
    for timeframe in timeframes {
        for side in ["BID", "ASK"] {
            let path = root.join(symbol).join(file_name(symbol, timeframe, side));
            if path.symlink_metadata().is_ok() {
                return Err(Error::DataImport {
                    path,
                    line: None,
                    rule: "a candle file must not be overwritten".to_owned(),
                    found: "one of this name".to_owned(),
                    remedy: Some("--force replaces it; --out may name another folder".to_owned()),
                });
            }
        }
    }
    Ok(())
}

/// Writes every series and the record, checks the pairs as a run would, and renames them into `{root}/{symbol}`.
///
/// A new symbol appears as a whole folder, in one step. Beside existing files each file is renamed by itself; if one
/// fails, those before it are taken back. What was replaced is kept until all stand.
pub(crate) fn save(root: &Path, symbol: &str, finished: Vec<Finished>) -> Result<Vec<ImportedSeries>> {
    let unwritable = |error: io::Error| Error::DataFile {
        kind: "Unwritable",
        path: root.to_owned(),
        reason: format!("imported bars cannot be written: {error}"),
    };
    std::fs::create_dir_all(root).map_err(unwritable)?;
    let staging = tempfile::Builder::new().prefix(".import-").tempdir_in(root).map_err(unwritable)?;
    let folder = staging.path().join(symbol);
    std::fs::create_dir(&folder).map_err(unwritable)?;

    let mut record = ImportRecord::read(root, symbol).unwrap_or_else(|| ImportRecord::new(symbol));
    let mut names = Vec::new();
    let mut series = Vec::new();
    for Finished { timeframe, bid, ask, record: mut own } in finished {
        let mut write = |side: &str, candles: &Candles| -> Result<String> {
            let bytes = parquet_bytes(candles).map_err(|error| unwritable(io::Error::other(error)))?;
            let name = file_name(symbol, timeframe, side);
            write_flushed(&folder.join(&name), &bytes).map_err(unwritable)?;
            names.push(name);
            Ok(sha256_hex(&bytes))
        };
        own.bid_sha256 = write("BID", &bid)?;
        own.ask_sha256 = write("ASK", &ask)?;
        let checked = check_pair(staging.path(), symbol, timeframe)?;
        record.series.insert(timeframe.to_string(), own.clone());
        series.push(ImportedSeries { timeframe, record: own, checked });
    }
    let json = serde_json::to_vec_pretty(&record).map_err(|error| unwritable(io::Error::other(error)))?;
    write_flushed(&folder.join(FILE), &json).map_err(unwritable)?;
    // The record last: it counts only for files of the hashes it names.
    names.push(FILE.to_owned());

    let target = root.join(symbol);
    if target.exists() {
        let replaced = staging.path().join("replaced");
        std::fs::create_dir(&replaced).map_err(unwritable)?;
        replace(&folder, &target, &replaced, &names).map_err(unwritable)?;
    } else {
        std::fs::rename(&folder, &target).map_err(unwritable)?;
    }
    // A folder that cannot be flushed still holds whole files.
    let _ = std::fs::File::open(&target).and_then(|folder| folder.sync_all());
    Ok(series)
}

fn replace(from: &Path, to: &Path, replaced: &Path, names: &[String]) -> io::Result<()> {
    let mut done: Vec<(PathBuf, Option<PathBuf>)> = Vec::new();
    let result = names.iter().try_for_each(|name| {
        let (new, old) = (to.join(name), replaced.join(name));
        let had = new.symlink_metadata().is_ok();
        if had {
            std::fs::rename(&new, &old)?;
        }
        done.push((new.clone(), had.then_some(old)));
        std::fs::rename(from.join(name), &new)
    });
    if result.is_err() {
        for (new, old) in done.into_iter().rev() {
            let _ = match old {
                Some(old) => std::fs::rename(old, new),
                None => std::fs::remove_file(new),
            };
        }
    }
    result
}
