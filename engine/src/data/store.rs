//! The bar store: checked and aligned bars as one uncompressed Arrow IPC file per symbol and timeframe, named by the
//! content it was made of, mapped by every thread and process that needs it.
//!
//! Columns `open_time` (Int64, epoch nanoseconds) and `bid_open` … `ask_volume` (Float64) in one record batch, buffers
//! on 64-byte boundaries. The schema metadata keeps what the checks found out, so that a hit knows it too. The
//! footer keeps a SHA-256 over the whole file (its own digits taken as zeros): a damaged file is noticed and built
//! anew. A file is written under another name, flushed and renamed, so it is whole or absent, also with two
//! processes at work. No failure of the cache fails a load: bars then live in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow_buffer::{Buffer, ScalarBuffer};
use arrow_ipc::convert::fb_to_schema;
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_ipc::root_as_footer;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::data::align::Alignment;
use crate::data::manifest::{hex, sha256_hex};
use crate::data::map;
use crate::data::read::Candles;
use crate::data::validate::Filler;
use crate::data::{Bars, Quotes};
use crate::units::{EpochNs, Timeframe};

/// Part of every key: a changed layout or a changed check makes other files.
const FORMAT: &str = "omega-bars-1";
const FACTS: &str = "omega";
const CHECKSUM: &str = "checksum";
const CHECKSUM_TAG: &[u8] = b"omega-sha256:";
const DIGITS: usize = 64;
const COLUMNS: [&str; 11] = [
    "open_time",
    "bid_open",
    "bid_high",
    "bid_low",
    "bid_close",
    "bid_volume",
    "ask_open",
    "ask_high",
    "ask_low",
    "ask_close",
    "ask_volume",
];

/// What is known of one source file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileFacts {
    pub(crate) rows: u64,
    pub(crate) start_time_ns: EpochNs,
    pub(crate) end_time_ns: EpochNs,
    pub(crate) duplicates_dropped: usize,
}

/// What the checks found out about a pair of files.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) bid: FileFacts,
    pub(crate) ask: FileFacts,
    pub(crate) alignment: Alignment,
    pub(crate) filler: Filler,
}

/// A series as the store hands it out.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) bars: Bars,
    pub(crate) facts: Facts,
}

/// Where a series is kept, and under which name.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) path: PathBuf,
    key: String,
    timeframe: Timeframe,
}

impl Slot {
    /// The place of the series made of two source files with these hashes.
    pub(crate) fn new(cache_dir: &Path, symbol: &str, timeframe: Timeframe, bid_sha: &str, ask_sha: &str) -> Self {
        let key = sha256_hex(format!("{FORMAT}\n{symbol}\n{timeframe}\n{bid_sha}\n{ask_sha}\n").as_bytes());
        Self { path: cache_dir.join("bars").join(format!("{symbol}_{timeframe}_{key}.arrow")), key, timeframe }
    }

    /// The series, mapped; `None` if there is no file, or none that can be trusted (which is logged).
    pub(crate) fn open(&self) -> Option<Stored> {
        // Some file systems cannot map; reading gives the same bytes.
        let opened = File::open(&self.path).and_then(|file| map::map(&file).or_else(|_| map::read(&file)));
        let read = opened.map_err(ArrowError::from).and_then(|buffer| decode(&buffer, &self.key, self.timeframe));
        match read {
            Ok(stored) => Some(stored),
            Err(ArrowError::IoError(_, error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "damaged file in the bar store, building it anew");
                None
            }
        }
    }

    /// Keeps the series and hands out the mapped form; from memory if the cache folder cannot be written.
    pub(crate) fn keep(&self, bid: Candles, ask: Candles, facts: Facts) -> Stored {
        match encode(&bid, &ask, &facts, &self.key).and_then(|bytes| Ok(self.write(&bytes)?)) {
            Ok(()) => {
                if let Some(stored) = self.open() {
                    return stored;
                }
            }
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "the bar store cannot be written, bars stay in memory");
            }
        }
        Stored { bars: in_memory(bid, ask, self.timeframe), facts }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|error| error.error)?;
        // Not every platform can flush a folder; the rename is then as durable as that platform makes it.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

/// Bars without a file behind them.
pub(crate) fn in_memory(bid: Candles, ask: Candles, timeframe: Timeframe) -> Bars {
    let quotes = |c: Candles| Quotes {
        open: c.open.into(),
        high: c.high.into(),
        low: c.low.into(),
        close: c.close.into(),
        volume: c.volume.into(),
    };
    Bars { timeframe, open_time: bid.time.clone().into(), bid: quotes(bid), ask: quotes(ask) }
}

fn encode(bid: &Candles, ask: &Candles, facts: &Facts, key: &str) -> Result<Vec<u8>, ArrowError> {
    #[derive(Serialize)]
    struct Metadata<'a> {
        key: &'a str,
        facts: &'a Facts,
    }
    let metadata =
        serde_json::to_string(&Metadata { key, facts }).map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
    let fields: Vec<Field> = COLUMNS
        .iter()
        .enumerate()
        .map(|(i, name)| Field::new(*name, if i == 0 { DataType::Int64 } else { DataType::Float64 }, false))
        .collect();
    let schema = Schema::new_with_metadata(fields, HashMap::from([(FACTS.to_owned(), metadata)]));
    let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(bid.time.clone()))];
    for side in [bid, ask] {
        for column in [&side.open, &side.high, &side.low, &side.close, &side.volume] {
            columns.push(Arc::new(Float64Array::from(column.clone())));
        }
    }
    let batch = RecordBatch::try_new(Arc::new(schema.clone()), columns)?;
    let options = IpcWriteOptions::try_new(64, false, arrow_ipc::MetadataVersion::V5)?;
    let mut writer = FileWriter::try_new_with_options(Vec::new(), &schema, options)?;
    writer.write(&batch)?;
    let placeholder = [CHECKSUM_TAG, &[b'0'; DIGITS]].concat();
    writer.write_metadata(CHECKSUM, String::from_utf8_lossy(&placeholder));
    writer.finish()?;
    let mut bytes = writer.into_inner()?;
    let at = checksum_at(&bytes).ok_or_else(|| damaged("the checksum has no place"))?;
    let sum = checksum(&bytes, at);
    bytes[at..at + DIGITS].copy_from_slice(sum.as_bytes());
    Ok(bytes)
}

/// Where the digits of the checksum stand: behind the last tag.
fn checksum_at(bytes: &[u8]) -> Option<usize> {
    let tail = bytes.len().saturating_sub(65_536);
    let found = bytes[tail..].windows(CHECKSUM_TAG.len()).rposition(|window| window == CHECKSUM_TAG)?;
    let at = tail + found + CHECKSUM_TAG.len();
    (at + DIGITS <= bytes.len()).then_some(at)
}

fn checksum(bytes: &[u8], at: usize) -> String {
    let mut hash = Sha256::new();
    hash.update(&bytes[..at]);
    hash.update([b'0'; DIGITS]);
    hash.update(&bytes[at + DIGITS..]);
    hex(&hash.finalize())
}

/// Bars over the memory of `file`, without a copy. The checksum comes first: behind it, the file is our own writing.
fn decode(file: &Buffer, key: &str, timeframe: Timeframe) -> Result<Stored, ArrowError> {
    #[derive(Deserialize)]
    struct Metadata {
        key: String,
        facts: Facts,
    }
    let at = checksum_at(file).ok_or_else(|| damaged("no checksum"))?;
    if checksum(file, at).as_bytes() != &file[at..at + DIGITS] {
        return Err(damaged("the checksum does not match"));
    }
    let trailer_at = file.len().checked_sub(10).ok_or_else(|| damaged("too short"))?;
    let trailer = file[trailer_at..].try_into().map_err(|_| damaged("too short"))?;
    let footer_at = trailer_at.checked_sub(read_footer_length(trailer)?).ok_or_else(|| damaged("too short"))?;
    let footer = root_as_footer(&file[footer_at..trailer_at]).map_err(|_| damaged("no footer"))?;
    let schema = fb_to_schema(footer.schema().ok_or_else(|| damaged("no schema"))?);
    let metadata: Metadata = schema
        .metadata()
        .get(FACTS)
        .and_then(|text| serde_json::from_str(text).ok())
        .ok_or_else(|| damaged("no metadata"))?;
    if metadata.key != key || schema.fields().iter().map(|field| field.name().as_str()).ne(COLUMNS) {
        return Err(damaged("another series"));
    }
    let block = footer.recordBatches().filter(|blocks| blocks.len() == 1).map(|blocks| *blocks.get(0));
    let block = block.ok_or_else(|| damaged("not one record batch"))?;
    let (start, head, body) = (block.offset(), i64::from(block.metaDataLength()), block.bodyLength());
    let range = usize::try_from(start).ok().zip(usize::try_from(head + body).ok());
    let (start, len) = range.filter(|(start, len)| start + len <= file.len()).ok_or_else(|| damaged("cut off"))?;
    let decoder = FileDecoder::new(Arc::new(schema), footer.version()).with_require_alignment(true);
    let batch = decoder.read_record_batch(&block, &file.slice_with_length(start, len))?;
    let batch = batch.ok_or_else(|| damaged("no record batch"))?;
    bars_of(&batch, timeframe)
        .map(|bars| Stored { bars, facts: metadata.facts })
        .ok_or_else(|| damaged("a column of another type"))
}

fn bars_of(batch: &RecordBatch, timeframe: Timeframe) -> Option<Bars> {
    let time = batch.column(0).as_primitive_opt::<Int64Type>()?.values().clone();
    let price = |i: usize| -> Option<ScalarBuffer<f64>> {
        Some(batch.column(i).as_primitive_opt::<Float64Type>()?.values().clone())
    };
    let quotes = |first: usize| -> Option<Quotes> {
        Some(Quotes {
            open: price(first)?,
            high: price(first + 1)?,
            low: price(first + 2)?,
            close: price(first + 3)?,
            volume: price(first + 4)?,
        })
    };
    Some(Bars { timeframe, open_time: time, bid: quotes(1)?, ask: quotes(6)? })
}

fn damaged(what: &str) -> ArrowError {
    ArrowError::IpcError(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(n: usize) -> (Candles, Candles, Facts) {
        let column = |add: f64| (0..n).map(|i| 1.0 + i as f64 / 1024.0 + add).collect::<Vec<_>>();
        let candles = |add: f64| Candles {
            time: (0..n as i64).map(|i| i * 60).collect(),
            open: column(add),
            high: column(add + 0.5),
            low: column(add - 0.5),
            close: column(add + 0.25),
            volume: column(0.0),
        };
        let file =
            FileFacts { rows: n as u64, start_time_ns: 0, end_time_ns: 60 * n as i64 - 60, duplicates_dropped: 0 };
        let alignment = Alignment {
            bid_count_before: n,
            ask_count_before: n,
            aligned_count: n,
            discarded_count: 0,
            alignment_loss: 0.0,
        };
        (candles(0.0), candles(0.125), Facts { bid: file, ask: file, alignment, filler: Filler::default() })
    }

    fn slot(folder: &Path) -> Slot {
        Slot::new(folder, "TEST", Timeframe::M1, "b", "a")
    }

    fn columns(bars: &Bars) -> Vec<&[u8]> {
        let mut all = vec![bars.open_time.inner().as_slice()];
        for side in [&bars.bid, &bars.ask] {
            all.extend([&side.open, &side.high, &side.low, &side.close, &side.volume].map(|c| c.inner().as_slice()));
        }
        all
    }

    #[test]
    fn columns_lie_in_the_map_and_are_aligned() {
        let folder = tempfile::tempdir().unwrap();
        let (bid, ask, facts) = series(1000);
        let slot = slot(folder.path());
        slot.keep(bid.clone(), ask.clone(), facts);
        let map = map::map(&File::open(&slot.path).unwrap()).unwrap();
        let stored = decode(&map, &slot.key, Timeframe::M1).unwrap();
        let pages = map.as_slice().as_ptr_range();
        for column in columns(&stored.bars) {
            let range = column.as_ptr_range();
            assert!(pages.start <= range.start && range.end <= pages.end, "a column was copied");
            assert_eq!(range.start as usize % 64, 0);
        }
        assert_eq!(stored.facts, facts);
        let memory = in_memory(bid, ask, Timeframe::M1);
        assert_eq!(columns(&stored.bars), columns(&memory));
    }

    #[test]
    fn the_safe_twin_reads_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (bid, ask, facts) = series(100);
        let slot = slot(folder.path());
        slot.keep(bid, ask, facts);
        let file = File::open(&slot.path).unwrap();
        let mapped = decode(&map::map(&file).unwrap(), &slot.key, Timeframe::M1).unwrap();
        let read = decode(&map::read(&file).unwrap(), &slot.key, Timeframe::M1).unwrap();
        assert_eq!(columns(&mapped.bars), columns(&read.bars));
        assert_eq!(mapped.facts, read.facts);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let (bid, ask, facts) = series(3);
        let bytes = encode(&bid, &ask, &facts, "k").unwrap();
        assert!(decode(&map::copy(&bytes), "k", Timeframe::M1).is_ok());
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 0x10;
            assert!(decode(&map::copy(&bad), "k", Timeframe::M1).is_err(), "byte {i}");
            assert!(decode(&map::copy(&bytes[..i]), "k", Timeframe::M1).is_err(), "cut at {i}");
        }
        assert!(decode(&map::copy(&bytes), "other", Timeframe::M1).is_err());
    }

    #[test]
    fn a_damaged_file_is_rebuilt_and_an_old_map_stays_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (bid, ask, facts) = series(500);
        let slot = slot(folder.path());
        let old = slot.keep(bid.clone(), ask.clone(), facts);
        let whole = std::fs::read(&slot.path).unwrap();
        // Replaced, as everything in the store is: the old map keeps its pages.
        std::fs::remove_file(&slot.path).unwrap();
        std::fs::write(&slot.path, &whole[..whole.len() / 2]).unwrap();
        assert!(slot.open().is_none());
        let new = slot.keep(bid, ask, facts);
        assert_eq!(columns(&old.bars), columns(&new.bars));
        assert_eq!(std::fs::read(&slot.path).unwrap(), whole);
        assert!(slot.open().is_some());
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bars"), b"a file where the folder should be").unwrap();
        let (bid, ask, facts) = series(5);
        let stored = slot(folder.path()).keep(bid.clone(), ask, facts);
        assert_eq!(stored.bars.bid.close.as_ref(), bid.close.as_slice());
    }
}
