//! The ranked union of all chunks, in Parquet and CSV: bounded in memory, the same bytes whatever the memory cap.
//!
//! Ranks come from a key per row ([`crate::objective::RankKey`], some tens of bytes). Where not even the keys of all rows fit the cap,
//! the next best rows are selected pass by pass. The rows themselves are gathered from the chunk files, each read once:
//! into memory, and those that do not fit there into files from which they are taken row group by row group. Row groups
//! have a fixed size, so how they were gathered does not show.

mod csv_file;
mod gather;
mod keys;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};
use engine::metrics::{Metric, MetricValues};
use parquet::file::metadata::KeyValue;
use rayon::ThreadPool;
use rayon::prelude::*;

use self::csv_file::CsvFile;
use self::gather::Gatherer;
use self::keys::{Entry, Keys};
use crate::atomic::FileError;
use crate::chunk::{Chunk, ChunkError, ChunkPlan, FORMAT_VERSION, KEY_FORMAT, KEY_PART, Kept, file_name, read_chunk};
use crate::fingerprint::Fingerprint;
use crate::objective::{Gates, Judgement, Objective, Verdict, judge};
use crate::parquet_file::ParquetFile;
use crate::plan::memory::{Ledger, Reservation};
use crate::row::{ChunkColumns, ParamValue, RowSchema};

/// Rows per row group: fixed, because it shows in the bytes.
const ROW_GROUP: usize = 65_536;

/// Copies of a gathered row alive at once: picked from its chunk, put in order, encoded.
const COPIES: usize = 3;

/// Memory per key selected where not all rows are: candidates come in twice the number, and a part of a row group waits
/// for the rest.
const KEY_BYTES: usize = 3 * size_of::<Entry>();

/// Memory per key where all rows are selected at once: the key, and the rules hash to be counted.
const ALL_KEYS_BYTES: usize = size_of::<Entry>() + size_of::<u64>();

/// Rows from which on several threads pay.
const PARALLEL_ROWS: u64 = 32_768;

/// What a leaderboard is made of and how it is judged.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// Chunks that need not be read.
    pub kept: &'a Kept,
    /// Threads to rank with, ≥ 1.
    pub threads: usize,
    /// Folder of the chunk files.
    pub chunks: &'a Path,
    /// Chunks to rank, ascending; none: every chunk of the plan, and all of them must be there.
    pub only: Option<&'a [u64]>,
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

impl Sources<'_> {
    /// Chunks to rank, ascending.
    fn indices(&self) -> Vec<u64> {
        self.only.map_or_else(|| (0..self.plan.count()).collect(), <[u64]>::to_vec)
    }
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
    /// Rows that pass each gate, in the order of the gates.
    pub gates: Vec<u64>,
    /// Rows by the way they are evaluated.
    pub ways: BTreeMap<String, u64>,
    /// Failed rows by code.
    pub failures: BTreeMap<String, u64>,
    /// Code and reason of the failed row with the smallest config hash.
    pub first_failure: Option<(String, String)>,
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
    write_within(&Reader::new(sources), targets, &room)
}

fn write_within(reader: &Reader<'_>, targets: &Targets, room: &Room) -> Result<Summary, LeaderboardError> {
    let Sources { schema, plan, .. } = *reader.sources;
    let mut keys = Keys::new(reader, room);
    let mut output = Output {
        reader,
        targets,
        csv: CsvFile::create(schema, targets)?,
        parquet: ParquetFile::create(
            &targets.parquet,
            schema.leaderboard(),
            plan.total(),
            true,
            metadata(reader.sources),
            reader.pool.as_ref(),
        )?,
        summary: Summary::default(),
    };
    let mut pending: Vec<Entry> = Vec::new();
    loop {
        let selected = keys.select_next()?;
        pending = if pending.is_empty() { selected.entries } else { [pending, selected.entries].concat() };
        // Only whole row groups are written until the end, wherever one selection stops and the next goes on.
        let ready = if selected.more { pending.len() - pending.len() % room.group } else { pending.len() };
        Gatherer::new(reader, room, targets)
            .each_group(&pending[..ready], |stored, entries| output.write(stored, entries))?;
        pending.drain(..ready);
        if !selected.more {
            break;
        }
    }
    let Output { csv, parquet, mut summary, .. } = output;
    keys.tell(&mut summary)?;
    summary.csv_rows = csv.written;
    parquet.commit()?;
    csv.commit()?;
    Ok(summary)
}

/// Key of the metadata of a leaderboard that does not hold all rows of its run: `3 of 105 chunks`.
pub const KEY_PARTIAL: &str = "omega.partial";

fn metadata(sources: &Sources<'_>) -> Vec<KeyValue> {
    let format = KeyValue::new(KEY_FORMAT.to_owned(), FORMAT_VERSION.to_string());
    let parts = sources.fingerprint.parts();
    let parts = parts.map(|(name, value)| KeyValue::new(format!("{KEY_PART}{name}"), value.to_owned()));
    let partial = sources.only.map(|chunks| {
        KeyValue::new(KEY_PARTIAL.to_owned(), format!("{} of {} chunks", chunks.len(), sources.plan.count()))
    });
    std::iter::once(format).chain(parts).chain(partial).collect()
}

/// Memory granted, as numbers of things.
#[derive(Debug)]
struct Room {
    /// Keys one selection may return.
    keys: usize,
    /// Rows gathered at once.
    span: usize,
    /// Rows that may stay in memory beside them until they are written.
    held: usize,
    /// Rows per row group.
    group: usize,
    /// There is room for one more copy of `span` rows: what comes next is prepared meanwhile.
    ahead: bool,
}

impl Room {
    fn ask(sources: &Sources<'_>, ledger: &Ledger) -> Result<(Self, [Reservation; 4]), LeaderboardError> {
        let refused = || LeaderboardError::Memory {
            needed: least_memory(sources.schema, &sources.plan),
            free: ledger.cap().saturating_sub(ledger.used()),
        };
        let rows = usize::try_from(sources.plan.total()).unwrap_or(usize::MAX);
        let copy = sources.schema.row_bytes();
        let row = COPIES * copy;
        let chunk = ledger.try_reserve(chunk_bytes(sources.schema, &sources.plan)).ok_or_else(refused)?;
        let mut spans = ledger.try_reserve(ROW_GROUP.min(rows).saturating_mul(row)).ok_or_else(refused)?;
        // Keys before spans: a second selection reads every chunk again.
        let all = ledger.try_reserve(rows.saturating_mul(ALL_KEYS_BYTES));
        let most_keys = if all.is_some() { Some(rows) } else { None };
        let keys = match all {
            Some(all) => all,
            None => {
                let (least, most) = (ROW_GROUP.min(rows) * KEY_BYTES, rows.saturating_mul(KEY_BYTES));
                let free = ledger.cap().saturating_sub(ledger.used());
                ledger.try_reserve(free.clamp(least, most)).ok_or_else(refused)?
            }
        };
        let mut span = ROW_GROUP.min(rows);
        let mut ahead = false;
        if span < rows && spans.resize(rows.saturating_mul(row)) {
            span = rows;
        } else if sources.threads > 1 {
            ahead = spans.resize(span.saturating_mul((COPIES + 1) * copy));
        }
        let free = ledger.cap().saturating_sub(ledger.used());
        let held = if span < rows { rows.min(free / copy.max(1)) } else { 0 };
        let stay = ledger.try_reserve(held * copy).ok_or_else(refused)?;
        // While keys are selected, no rows are gathered: what those need serves for twice the candidates. Afterwards there
        // are the keys selected and those that wait for the rest of their row group.
        let candidates = (keys.bytes() + spans.bytes()) / (2 * size_of::<Entry>());
        let selected = (keys.bytes() / size_of::<Entry>()).saturating_sub(ROW_GROUP.min(rows));
        let shared = candidates.min(selected).max(keys.bytes() / KEY_BYTES);
        let keys_held = most_keys.unwrap_or(shared).max(1);
        let room = Self { keys: keys_held, span: span.max(1), held, group: ROW_GROUP, ahead };
        Ok((room, [chunk, spans, keys, stay]))
    }
}

/// Reads and judges the rows of chunks.
struct Reader<'a> {
    sources: &'a Sources<'a>,
    /// None: on this thread.
    pool: Option<ThreadPool>,
    /// Metrics that judging and ranking read.
    metrics: Vec<Metric>,
}

impl<'a> Reader<'a> {
    fn new(sources: &'a Sources<'a>) -> Self {
        let parallel = sources.threads > 1 && sources.plan.total() >= PARALLEL_ROWS;
        // Without further threads everything is still done, only later.
        let pool =
            parallel.then(|| rayon::ThreadPoolBuilder::new().num_threads(sources.threads).build().ok()).flatten();
        let read = sources.objective.metrics().chain(sources.gates.metrics());
        let mut metrics: Vec<Metric> = read.chain([Metric::ProfitNet, Metric::MaxDrawdown]).collect();
        metrics.sort_unstable();
        metrics.dedup();
        Self { sources, pool, metrics }
    }

    /// Reads chunks and passes each on, several at a time; results in their order.
    fn read_all<T: Send>(
        &self,
        chunks: &[u64],
        pass: impl Fn(u64, Chunk) -> Result<T, LeaderboardError> + Sync,
    ) -> Result<Vec<T>, LeaderboardError> {
        let one = |index: &u64| pass(*index, self.read(*index)?);
        match &self.pool {
            Some(pool) => pool.install(|| chunks.par_iter().map(one).collect()),
            None => chunks.iter().map(one).collect(),
        }
    }

    fn read(&self, index: u64) -> Result<Chunk, LeaderboardError> {
        let Sources { chunks, plan, schema, fingerprint, kept, .. } = *self.sources;
        match kept.get(index) {
            Some(chunk) => Ok(chunk),
            None => Ok(read_chunk(&chunks.join(file_name(index)), schema, fingerprint, plan.trials(index))?),
        }
    }

    fn columns<'b>(&self, batch: &'b RecordBatch, index: u64) -> Result<ChunkColumns<'b>, LeaderboardError> {
        ChunkColumns::new(self.sources.schema, batch).ok_or_else(|| self.damaged(index, "has unexpected columns"))
    }

    fn damaged(&self, index: u64, reason: &str) -> LeaderboardError {
        let path = self.sources.chunks.join(file_name(index));
        ChunkError::Damaged { path, reason: reason.to_owned() }.into()
    }

    /// Judges a row; `values` is a place for its metrics, of which only those needed are set.
    fn judge<'v>(
        &self,
        columns: &ChunkColumns<'_>,
        row: usize,
        values: &'v mut MetricValues,
    ) -> (Judgement<'a>, Option<&'v MetricValues>) {
        let values = if columns.failed(row) {
            None
        } else {
            columns.read_metrics(row, &self.metrics, values);
            Some(&*values)
        };
        (judge(self.sources.objective, self.sources.gates, values), values)
    }
}

/// The files and what is told of them.
struct Output<'a> {
    reader: &'a Reader<'a>,
    targets: &'a Targets,
    csv: CsvFile,
    parquet: ParquetFile<'a>,
    summary: Summary,
}

impl Output<'_> {
    /// Writes the next rows, in order, as one row group.
    fn write(&mut self, stored: &RecordBatch, entries: &[Entry]) -> Result<(), LeaderboardError> {
        let ranked = self.rank(stored)?;
        let Self { parquet, csv, .. } = self;
        if self.reader.pool.is_some() && csv.wants_more() {
            std::thread::scope(|scope| {
                let text = scope.spawn(|| csv.write(&ranked));
                parquet.write_group(&ranked)?;
                text.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })?;
        } else {
            parquet.write_group(&ranked)?;
            csv.write(&ranked)?;
        }
        self.note(stored, entries)
    }

    /// Adds what ranking adds: rank, verdict, reason of a gated row, objective.
    fn rank(&self, stored: &RecordBatch) -> Result<RecordBatch, LeaderboardError> {
        let (reader, before) = (self.reader, self.summary.rows);
        let columns = reader.columns(stored, 0)?;
        let mut values = MetricValues::UNDEFINED;
        let judgements: Vec<Judgement<'_>> =
            (0..stored.num_rows()).map(|row| reader.judge(&columns, row, &mut values).0).collect();
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

    /// Counts the rows and keeps the best of them.
    fn note(&mut self, stored: &RecordBatch, entries: &[Entry]) -> Result<(), LeaderboardError> {
        let (reader, summary) = (self.reader, &mut self.summary);
        let columns = reader.columns(stored, 0)?;
        for (row, entry) in entries.iter().enumerate() {
            summary.rows += 1;
            summary.by_verdict[entry.key.verdict() as usize] += 1;
            if let Some(same) = summary.top.iter_mut().find(|top| top.rules_hash == entry.rules_hash) {
                same.sharing += 1;
                continue;
            }
            if summary.top.len() >= self.targets.top || columns.failed(row) {
                continue;
            }
            let values = columns.metrics(row);
            let judgement = judge(reader.sources.objective, reader.sources.gates, Some(&values));
            summary.top.push(TopRow {
                rank: summary.rows,
                trial: columns.trial.value(row),
                config_hash: *entry.key.config_hash(),
                rules_hash: entry.rules_hash,
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
