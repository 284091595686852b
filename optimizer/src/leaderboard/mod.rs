//! The ranked union of all chunks, in Parquet and CSV: bounded in memory, the same bytes whatever the memory cap.
//!
//! Ranks come from a key per row ([`RankKey`], some tens of bytes). Where not even the keys of all rows fit the cap,
//! the next best rows are selected pass by pass. The rows themselves are gathered from the chunk files a few row groups
//! at a time; row groups have a fixed size, so a wider or narrower gathering writes the same file.

mod csv_file;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_select::interleave::interleave_record_batch;
use arrow_select::take::take_record_batch;
use engine::metrics::MetricValues;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;

use self::csv_file::CsvFile;
use crate::atomic::{AtomicFile, FileError};
use crate::chunk::{
    ChunkError, ChunkPlan, FORMAT_VERSION, KEY_FORMAT, KEY_PART, file_name, read_chunk, writer_properties,
};
use crate::fingerprint::{Fingerprint, unhex};
use crate::objective::{Gates, Judgement, Objective, RankKey, Verdict, judge};
use crate::plan::memory::{Ledger, Reservation};
use crate::row::{ChunkColumns, ParamValue, RowSchema};

/// Rows per row group: fixed, because it shows in the bytes.
const ROW_GROUP: usize = 65_536;

/// Copies of a gathered row alive at once: picked from its chunk, put in order, encoded.
const COPIES: usize = 3;

/// Keys held per key selected: candidates come in twice the number, and a part of a row group waits for the rest.
const KEY_BYTES: usize = 3 * size_of::<Entry>();

/// What a leaderboard is made of and how it is judged.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// Folder of the chunk files; every chunk of the plan must be there.
    pub chunks: &'a Path,
    /// How the run is cut.
    pub plan: ChunkPlan,
    /// Its columns.
    pub schema: &'a RowSchema,
    /// What decides its rows.
    pub fingerprint: &'a Fingerprint,
    /// What ranks them.
    pub objective: &'a Objective,
    /// What they must pass.
    pub gates: &'a Gates,
}

/// How much of it is written where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// The whole leaderboard.
    pub parquet: PathBuf,
    /// The best rows for people.
    pub csv: PathBuf,
    /// Rows of the CSV; `None` is all.
    pub csv_rows: Option<u64>,
    /// Best settings to return, one per `rules_hash`.
    pub top: usize,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Summary {
    /// Rows of the leaderboard.
    pub rows: u64,
    /// Rows per verdict, in the order of [`Verdict::ALL`].
    pub by_verdict: [u64; 4],
    /// Rows left out because an earlier trial has the same config hash, hence is the same trial.
    pub duplicates: u64,
    /// Distinct `rules_hash` among all rows: the number of trials for questions of luck.
    pub distinct_rules: u64,
    /// Rows of the CSV.
    pub csv_rows: u64,
    /// The best settings, failed ones left out, one per `rules_hash`.
    pub top: Vec<TopRow>,
}

impl Summary {
    /// Rows with this verdict.
    pub fn count(&self, verdict: Verdict) -> u64 {
        self.by_verdict[verdict as usize]
    }

    /// Rows the CSV leaves out.
    pub fn csv_left_out(&self) -> u64 {
        self.rows - self.csv_rows
    }
}

/// One of the best settings.
#[derive(Debug, Clone, PartialEq)]
pub struct TopRow {
    /// Position, from 1.
    pub rank: u64,
    /// Trial number.
    pub trial: u64,
    /// SHA-256 of its resolved config.
    pub config_hash: [u8; 32],
    /// What it resolves to.
    pub rules_hash: [u8; 8],
    /// How it ended.
    pub verdict: Verdict,
    /// Gate it fails, or why it has no score.
    pub reason: Option<String>,
    /// Objective, unrounded.
    pub objective: Option<f64>,
    /// Metrics, unrounded.
    pub values: MetricValues,
    /// Values of the axes, in order.
    pub params: Vec<ParamValue>,
    /// Seed of the slippage stream.
    pub rng_seed: u64,
    /// Rows with the same `rules_hash`, itself included.
    pub sharing: u64,
}

/// A leaderboard could not be written.
#[derive(Debug, thiserror::Error)]
pub enum LeaderboardError {
    /// A chunk is missing, damaged or foreign.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The cap leaves no room for the least that ranking needs.
    #[error("ranking needs {needed} bytes, {free} are free under the memory cap")]
    Memory {
        /// Bytes for the least amount of work.
        needed: usize,
        /// Bytes not taken by others.
        free: usize,
    },
}

impl LeaderboardError {
    /// The disk is full (exit code 7).
    pub fn is_full(&self) -> bool {
        match self {
            Self::File(error) | Self::Chunk(ChunkError::File(error)) => error.is_full(),
            _ => false,
        }
    }
}

/// Bytes below which no leaderboard of this run can be written: a row group and one chunk being read.
pub fn least_memory(schema: &RowSchema, plan: &ChunkPlan) -> usize {
    let rows = usize::try_from(plan.total()).unwrap_or(usize::MAX);
    let group = ROW_GROUP.min(rows).saturating_mul(COPIES * schema.row_bytes());
    group.saturating_add(chunk_bytes(schema, plan)).saturating_add(ROW_GROUP.min(rows) * KEY_BYTES)
}

fn chunk_bytes(schema: &RowSchema, plan: &ChunkPlan) -> usize {
    let rows = usize::try_from(plan.size().min(plan.total())).unwrap_or(usize::MAX);
    // A chunk is decoded batch-wise and joined.
    rows.saturating_mul(2 * schema.row_bytes())
}

/// Ranks all rows and writes both files, each whole or not at all. Memory is asked of `ledger`.
pub fn write(sources: &Sources<'_>, targets: &Targets, ledger: &Ledger) -> Result<Summary, LeaderboardError> {
    let (room, _granted) = Room::ask(sources, ledger)?;
    write_within(&Reader::new(sources, ledger), targets, &room)
}

fn write_within(reader: &Reader<'_>, targets: &Targets, room: &Room) -> Result<Summary, LeaderboardError> {
    let schema = reader.sources.schema;
    let mut summary = Summary { distinct_rules: distinct_rules(reader, room)?, ..Summary::default() };
    let mut csv = CsvFile::create(schema, targets)?;
    let mut parquet = AtomicFile::create(&targets.parquet)?;
    let failed = |e| FileError::parquet(&targets.parquet, "write it", e);
    let properties = writer_properties()
        .set_max_row_group_row_count(Some(room.group))
        .set_key_value_metadata(Some(metadata(reader.sources.fingerprint)))
        .build();
    let mut writer =
        ArrowWriter::try_new(&mut parquet, schema.leaderboard().clone(), Some(properties)).map_err(failed)?;

    let mut last = None;
    let mut pending: Vec<Entry> = Vec::new();
    loop {
        let selected = select(reader, room.keys, last.as_ref())?;
        summary.duplicates += selected.duplicates;
        pending.extend(selected.entries);
        // Only whole row groups are written until the end, wherever one selection stops and the next goes on.
        let ready = if selected.more { pending.len() - pending.len() % room.group } else { pending.len() };
        for span in pending[..ready].chunks(room.span) {
            let gathered = Gathered::new(reader, span, summary.rows)?;
            let rows = gathered.ranked.num_rows();
            for start in (0..rows).step_by(room.group) {
                let group = gathered.ranked.slice(start, room.group.min(rows - start));
                writer.write(&group).and_then(|()| writer.flush()).map_err(failed)?;
            }
            csv.write(&gathered.ranked)?;
            gathered.note(reader, targets.top, &mut summary)?;
        }
        pending.drain(..ready);
        last = selected.last.or(last);
        if !selected.more {
            break;
        }
    }
    writer.close().map_err(failed)?;
    summary.csv_rows = csv.written;
    parquet.commit()?;
    csv.commit()?;
    Ok(summary)
}

fn metadata(fingerprint: &Fingerprint) -> Vec<KeyValue> {
    let format = KeyValue::new(KEY_FORMAT.to_owned(), FORMAT_VERSION.to_string());
    let parts = fingerprint.parts().map(|(name, value)| KeyValue::new(format!("{KEY_PART}{name}"), value.to_owned()));
    std::iter::once(format).chain(parts).collect()
}

/// Memory granted, as numbers of things.
#[derive(Debug)]
struct Room {
    /// Keys one selection may return.
    keys: usize,
    /// Rows gathered at once, a multiple of `group`.
    span: usize,
    /// Rows per row group.
    group: usize,
}

impl Room {
    fn ask(sources: &Sources<'_>, ledger: &Ledger) -> Result<(Self, [Reservation; 3]), LeaderboardError> {
        let refused = || LeaderboardError::Memory {
            needed: least_memory(sources.schema, &sources.plan),
            free: ledger.cap().saturating_sub(ledger.used()),
        };
        let rows = usize::try_from(sources.plan.total()).unwrap_or(usize::MAX);
        let row = COPIES * sources.schema.row_bytes();
        let chunk = ledger.try_reserve(chunk_bytes(sources.schema, &sources.plan)).ok_or_else(refused)?;
        let mut spans = ledger.try_reserve(ROW_GROUP.min(rows).saturating_mul(row)).ok_or_else(refused)?;
        // Keys before spans: a second selection reads every chunk again, a second span only those it needs.
        let keys = ledger.reserve_between(ROW_GROUP.min(rows) * KEY_BYTES, rows.saturating_mul(KEY_BYTES));
        let keys = keys.ok_or_else(refused)?;
        let mut span = ROW_GROUP;
        while span < rows && spans.resize(span.saturating_mul(2).saturating_mul(row)) {
            span *= 2;
        }
        let room = Self { keys: (keys.bytes() / KEY_BYTES).max(1), span, group: ROW_GROUP };
        Ok((room, [chunk, spans, keys]))
    }
}

/// Reads chunks, keeping those that fit the cap: a leaderboard of ordinary size reads each file once.
struct Reader<'a> {
    sources: &'a Sources<'a>,
    ledger: &'a Ledger,
    kept: RefCell<BTreeMap<u64, (RecordBatch, Reservation)>>,
}

impl<'a> Reader<'a> {
    fn new(sources: &'a Sources<'a>, ledger: &'a Ledger) -> Self {
        Self { sources, ledger, kept: RefCell::default() }
    }

    fn read(&self, index: u64) -> Result<RecordBatch, LeaderboardError> {
        if let Some((batch, _)) = self.kept.borrow().get(&index) {
            return Ok(batch.clone());
        }
        let Sources { chunks, plan, schema, fingerprint, .. } = *self.sources;
        let batch = read_chunk(&chunks.join(file_name(index)), schema, fingerprint, plan.trials(index))?.batch;
        if let Some(granted) = self.ledger.try_reserve(batch.get_array_memory_size()) {
            self.kept.borrow_mut().insert(index, (batch.clone(), granted));
        }
        Ok(batch)
    }

    fn columns<'b>(&self, batch: &'b RecordBatch, index: u64) -> Result<ChunkColumns<'b>, LeaderboardError> {
        ChunkColumns::new(self.sources.schema, batch).ok_or_else(|| self.damaged(index, "has unexpected columns"))
    }

    fn damaged(&self, index: u64, reason: &str) -> LeaderboardError {
        let path = self.sources.chunks.join(file_name(index));
        ChunkError::Damaged { path, reason: reason.to_owned() }.into()
    }

    fn judge(&self, values: Option<&MetricValues>) -> Judgement<'a> {
        judge(self.sources.objective, self.sources.gates, values)
    }
}

/// Key and place of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    key: RankKey,
    chunk: u32,
    row: u32,
}

/// The next rows in order.
struct Selected {
    entries: Vec<Entry>,
    /// The last one, duplicates included.
    last: Option<Entry>,
    /// There are further ones.
    more: bool,
    duplicates: u64,
}

/// The best `most` rows that come after `last`, in order, one per config hash.
fn select(reader: &Reader<'_>, most: usize, last: Option<&Entry>) -> Result<Selected, LeaderboardError> {
    let mut best: Vec<Entry> = Vec::new();
    let mut more = false;
    for index in 0..reader.sources.plan.count() {
        let batch = reader.read(index)?;
        let columns = reader.columns(&batch, index)?;
        for row in 0..batch.num_rows() {
            let entry = Entry::new(reader, &columns, index, row)?;
            if last.is_some_and(|last| entry <= *last) {
                continue;
            }
            if best.len() == 2 * most {
                keep_smallest(&mut best, most);
                more = true;
            }
            best.push(entry);
        }
    }
    more |= best.len() > most;
    keep_smallest(&mut best, most);
    best.sort_unstable();
    let (found, end) = (best.len(), best.last().copied());
    let mut previous = last.map(|last| last.key);
    // Equal keys are the same trial (metrics-and-outputs §10: keep one); the first place comes first and stays.
    best.retain(|entry| previous.replace(entry.key) != Some(entry.key));
    let duplicates = (found - best.len()) as u64;
    Ok(Selected { entries: best, last: end, more, duplicates })
}

fn keep_smallest(entries: &mut Vec<Entry>, most: usize) {
    if entries.len() > most {
        entries.select_nth_unstable(most);
        entries.truncate(most);
    }
}

impl Entry {
    fn new(reader: &Reader<'_>, columns: &ChunkColumns<'_>, index: u64, row: usize) -> Result<Self, LeaderboardError> {
        let values = values_of(columns, row);
        let hash = unhex(columns.config_hash.value(row))
            .ok_or_else(|| reader.damaged(index, "a config hash is not 64 hex digits"))?;
        let judgement = reader.judge(values.as_ref());
        let key = RankKey::of(reader.sources.objective.goal, &judgement, values.as_ref(), hash);
        match (u32::try_from(index), u32::try_from(row)) {
            (Ok(chunk), Ok(row)) => Ok(Self { key, chunk, row }),
            _ => Err(reader.damaged(index, "more than 2^32 rows or chunks")),
        }
    }
}

fn values_of(columns: &ChunkColumns<'_>, row: usize) -> Option<MetricValues> {
    (!columns.failed(row)).then(|| columns.metrics(row))
}

/// Counts distinct rules hashes, as many of the possible ones at a time as the keys have room for.
fn distinct_rules(reader: &Reader<'_>, room: &Room) -> Result<u64, LeaderboardError> {
    let at_once = (room.keys * KEY_BYTES / size_of::<u64>() / 2).max(1) as u64;
    let parts = reader.sources.plan.total().div_ceil(at_once).max(1);
    let mut distinct = 0;
    for part in 0..parts {
        let mut hashes: Vec<u64> = Vec::new();
        for index in 0..reader.sources.plan.count() {
            let batch = reader.read(index)?;
            let columns = reader.columns(&batch, index)?;
            for row in 0..batch.num_rows() {
                let hash = rules_hash(reader, &columns, index, row)?;
                if u64::from_be_bytes(hash) % parts == part {
                    hashes.push(u64::from_be_bytes(hash));
                }
            }
        }
        hashes.sort_unstable();
        hashes.dedup();
        distinct += hashes.len() as u64;
    }
    Ok(distinct)
}

fn rules_hash(
    reader: &Reader<'_>,
    columns: &ChunkColumns<'_>,
    index: u64,
    row: usize,
) -> Result<[u8; 8], LeaderboardError> {
    unhex(columns.rules_hash.value(row)).ok_or_else(|| reader.damaged(index, "a rules hash is not 16 hex digits"))
}

/// Rows next to each other in the ranking.
struct Gathered {
    /// As in their chunks.
    stored: RecordBatch,
    /// With rank, verdict and objective.
    ranked: RecordBatch,
    first_rank: u64,
    chunks: Vec<u32>,
}

impl Gathered {
    /// The rows of `span`, in its order; `before` rows rank ahead of them.
    fn new(reader: &Reader<'_>, span: &[Entry], before: u64) -> Result<Self, LeaderboardError> {
        let stored = collect(reader, span)?;
        let ranked = rank(reader, &stored, before)?;
        Ok(Self { stored, ranked, first_rank: before + 1, chunks: span.iter().map(|entry| entry.chunk).collect() })
    }

    /// Counts the rows and keeps the best of them.
    fn note(&self, reader: &Reader<'_>, top: usize, summary: &mut Summary) -> Result<(), LeaderboardError> {
        let columns = reader.columns(&self.stored, 0)?;
        for (row, chunk) in self.chunks.iter().enumerate() {
            let index = u64::from(*chunk);
            let values = values_of(&columns, row);
            let judgement = reader.judge(values.as_ref());
            summary.rows += 1;
            summary.by_verdict[judgement.verdict as usize] += 1;
            let rules_hash = rules_hash(reader, &columns, index, row)?;
            if let Some(same) = summary.top.iter_mut().find(|top| top.rules_hash == rules_hash) {
                same.sharing += 1;
                continue;
            }
            let Some(values) = values.filter(|_| summary.top.len() < top) else { continue };
            summary.top.push(TopRow {
                rank: self.first_rank + row as u64,
                trial: columns.trial.value(row),
                config_hash: unhex(columns.config_hash.value(row))
                    .ok_or_else(|| reader.damaged(index, "a config hash is not 64 hex digits"))?,
                rules_hash,
                verdict: judgement.verdict,
                reason: reason(&judgement, columns.reason(row)).map(str::to_owned),
                objective: judgement.score,
                values,
                params: columns.params(row),
                rng_seed: columns.rng_seed.value(row),
                sharing: 1,
            });
        }
        Ok(())
    }
}

/// Picks the rows of `span` out of their chunks, each chunk read once, and puts them in order.
fn collect(reader: &Reader<'_>, span: &[Entry]) -> Result<RecordBatch, LeaderboardError> {
    let mut by_place: Vec<usize> = (0..span.len()).collect();
    by_place.sort_unstable_by_key(|i| (span[*i].chunk, span[*i].row));
    let mut parts = Vec::new();
    let mut places = vec![(0, 0); span.len()];
    for of_chunk in by_place.chunk_by(|a, b| span[*a].chunk == span[*b].chunk) {
        let index = u64::from(span[of_chunk[0]].chunk);
        for (place, i) in of_chunk.iter().enumerate() {
            places[*i] = (parts.len(), place);
        }
        let rows = of_chunk.iter().map(|i| span[*i].row).collect::<UInt32Array>();
        let picked = take_record_batch(&reader.read(index)?, &rows);
        parts.push(picked.map_err(|e| reader.damaged(index, &e.to_string()))?);
    }
    if parts.is_empty() {
        return Ok(RecordBatch::new_empty(reader.sources.schema.chunk().clone()));
    }
    interleave_record_batch(&parts.iter().collect::<Vec<_>>(), &places).map_err(|e| reader.damaged(0, &e.to_string()))
}

/// Adds what ranking adds: rank, verdict, reason of a gated row, objective.
fn rank(reader: &Reader<'_>, stored: &RecordBatch, before: u64) -> Result<RecordBatch, LeaderboardError> {
    let columns = reader.columns(stored, 0)?;
    let judgements: Vec<Judgement<'_>> =
        (0..stored.num_rows()).map(|row| reader.judge(values_of(&columns, row).as_ref())).collect();
    let ranks = UInt64Array::from_iter_values(before + 1..=before + stored.num_rows() as u64);
    let status = StringArray::from_iter_values(judgements.iter().map(|judgement| judgement.verdict.as_str()));
    let reasons = judgements.iter().enumerate().map(|(row, judgement)| reason(judgement, columns.reason(row)));
    let reasons = reasons.collect::<StringArray>();
    let objective = judgements.iter().map(|judgement| judgement.score).collect::<Float64Array>();
    let mut ranked: Vec<ArrayRef> = vec![Arc::new(ranks)];
    ranked.extend(stored.columns()[..3].iter().cloned());
    ranked.extend([Arc::new(status) as ArrayRef, Arc::new(reasons), Arc::new(objective)]);
    ranked.extend(stored.columns()[5..].iter().cloned());
    RecordBatch::try_new(reader.sources.schema.leaderboard().clone(), ranked)
        .map_err(|e| reader.damaged(0, &e.to_string()))
}

/// Reason of a row that traded and still has no score.
const UNDEFINED: &str = "objective_undefined";

fn reason<'a>(judgement: &Judgement<'a>, noted: Option<&'a str>) -> Option<&'a str> {
    match judgement.verdict {
        Verdict::Ok => None,
        Verdict::Gated => judgement.failed_gate,
        Verdict::NoScore => noted.or(Some(UNDEFINED)),
        Verdict::Failed => noted,
    }
}
