//! Chunk files: the rows of a fixed range of trials, whole or absent, with everything needed to trust them again.
//!
//! The format is Parquet with the columns of [`RowSchema::chunk`] and, in the file's metadata, the format version, the
//! run's fingerprint, the range and a digest of all of these and of every value. Equal rows give equal bytes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{Fields, SchemaRef};
use arrow_select::concat::concat_batches;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::KeyValue;
use sha2::{Digest, Sha256};

use crate::atomic::FileError;
use crate::fingerprint::{Fingerprint, PartDifference, hex};
use crate::parquet_file::ParquetFile;
use crate::plan::memory::{Ledger, Reservation};
use crate::row::{ChunkColumns, Done, Outcome, ParamValue, Row, RowSchema, Way};
use crate::shard::Shard;

/// Version of the chunk format. Readers know every version up to this one.
pub const FORMAT_VERSION: u32 = 1;

/// Smallest chunk.
const SMALLEST: u64 = 256;
/// Largest chunk that is chosen by itself.
const LARGEST: u64 = 65_536;
/// Most chunks a run is cut into, as long as [`LARGEST`] allows.
const MOST_CHUNKS: u64 = 1024;

/// Trials per chunk: the smallest power of two from 256 that leaves at most 1,024 chunks, never above 65,536.
/// `chosen` (`limits.chunk`) sets another; 0 counts as 1.
pub fn chunk_size(total: u64, chosen: Option<u64>) -> u64 {
    if let Some(size) = chosen {
        return size.max(1);
    }
    let mut size = SMALLEST;
    while size < LARGEST && total.div_ceil(size) > MOST_CHUNKS {
        size *= 2;
    }
    size
}

/// How a run is cut into chunks: a fixed range of trials each; and which of them are this process's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlan {
    total: u64,
    size: u64,
    shard: Option<Shard>,
}

impl ChunkPlan {
    /// `total` trials in chunks of [`chunk_size`].
    pub fn new(total: u64, chosen: Option<u64>) -> Self {
        Self { total, size: chunk_size(total, chosen), shard: None }
    }

    /// The same, of which only one shard's chunks are to be worked on.
    #[must_use]
    pub fn of_shard(self, shard: Option<Shard>) -> Self {
        Self { shard, ..self }
    }

    /// The shard, if it is one.
    pub fn shard(&self) -> Option<Shard> {
        self.shard
    }

    /// Chunks to be worked on, ascending: those of the shard, else all.
    pub fn own(self) -> impl Iterator<Item = u64> {
        let (first, step) = self.shard.map_or((0, 1), |shard| (shard.first_chunk(), shard.count()));
        (first..self.count()).step_by(usize::try_from(step).unwrap_or(usize::MAX))
    }

    /// Trials in [`ChunkPlan::own`].
    pub fn own_trials(&self) -> u64 {
        self.own().map(|index| self.trials(index)).map(|range| range.end - range.start).sum()
    }

    /// Trials of the run.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Trials per chunk; the last may have fewer.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Number of chunks.
    pub fn count(&self) -> u64 {
        self.total.div_ceil(self.size)
    }

    /// Trials of a chunk; empty beyond the last.
    pub fn trials(&self, index: u64) -> Range<u64> {
        let start = index.saturating_mul(self.size).min(self.total);
        start..start.saturating_add(self.size).min(self.total)
    }

    /// Chunk that holds a trial.
    pub fn chunk_of(&self, trial: u64) -> u64 {
        trial / self.size
    }
}

/// `chunk-000017.parquet`.
pub fn file_name(index: u64) -> String {
    format!("chunk-{index:06}.parquet")
}

/// Index in a name made by [`file_name`]; `None` for any other name.
pub fn index_of(name: &str) -> Option<u64> {
    let index = name.strip_prefix("chunk-")?.strip_suffix(".parquet")?.parse().ok()?;
    (file_name(index) == name).then_some(index)
}

/// What a chunk is part of and what it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkHeader {
    /// What decides the rows of its run.
    pub fingerprint: Fingerprint,
    /// First trial.
    pub first_trial: u64,
    /// Number of rows.
    pub rows: u64,
    /// Rows by the way they are evaluated, as [`crate::row::Way::text`] names it.
    pub ways: BTreeMap<String, u64>,
}

impl ChunkHeader {
    /// Trials of the rows.
    pub fn trials(&self) -> Range<u64> {
        self.first_trial..self.first_trial.saturating_add(self.rows)
    }
}

/// A chunk could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// Not readable as what it should be: to be set aside and evaluated again.
    #[error("{}: damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Sound, but of another run.
    #[error("{}: belongs to another run; {}", path.display(), join(differences))]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is not the same.
        differences: Vec<PartDifference>,
    },
    /// Written by a newer version of the format.
    #[error("{}: chunk format {found}, this version reads up to {FORMAT_VERSION}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

fn join(differences: &[PartDifference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A chunk read back.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// What it covers.
    pub header: ChunkHeader,
    /// Its columns.
    pub batch: RecordBatch,
}

impl Chunk {
    /// Row `i` as it was written; `None` beyond the end.
    pub fn row(&self, schema: &RowSchema, i: usize) -> Option<Row> {
        if i >= self.batch.num_rows() {
            return None;
        }
        ChunkColumns::new(schema, &self.batch)?.row(i)
    }
}

/// Writes one chunk beside `path`, flushes and renames it; returns what reading it would give.
///
/// `rows` are those of consecutive trials, in order; `params` pushes the axis values of a trial (see
/// [`RowSchema::batch`]).
pub fn write_chunk(
    path: &Path,
    schema: &RowSchema,
    fingerprint: &Fingerprint,
    rows: &[Done<'_, Outcome>],
    params: &mut dyn FnMut(u64, &mut Vec<ParamValue>),
) -> Result<Chunk, FileError> {
    let format = |reason: String| FileError::Format { path: path.to_owned(), reason };
    let first_trial = rows.first().map_or(0, |row| row.trial);
    if rows.iter().zip(first_trial..).any(|(row, trial)| row.trial != trial) {
        return Err(format("rows of a chunk must be consecutive trials".to_owned()));
    }
    let batch = schema.batch(rows, params).map_err(|e| format(e.to_string()))?;
    let header = ChunkHeader {
        fingerprint: fingerprint.clone(),
        first_trial,
        rows: rows.len() as u64,
        ways: count_ways(rows.iter().map(|row| row.way)),
    };
    write_columns(path, &header, &batch)?;
    Ok(Chunk { header, batch })
}

/// Rows by the way they are evaluated.
fn count_ways(ways: impl Iterator<Item = Way>) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<Way, u64> = BTreeMap::new();
    ways.for_each(|way| *counts.entry(way).or_default() += 1);
    counts.into_iter().map(|(way, rows)| (way.text(), rows)).collect()
}

/// Writes the columns of a chunk, of whatever kind of run: one row per trial, the trial numbers in the first column.
pub(crate) fn write_batch(
    path: &Path,
    fingerprint: &Fingerprint,
    trials: Range<u64>,
    batch: &RecordBatch,
) -> Result<(), FileError> {
    let header = ChunkHeader {
        fingerprint: fingerprint.clone(),
        first_trial: trials.start,
        rows: batch.num_rows() as u64,
        ways: BTreeMap::new(),
    };
    write_columns(path, &header, batch)
}

fn write_columns(path: &Path, header: &ChunkHeader, batch: &RecordBatch) -> Result<(), FileError> {
    let metadata = metadata(header, batch);
    let mut file = ParquetFile::create(path, batch.schema_ref(), header.rows, false, metadata, None)?;
    file.write_group(batch)?;
    file.commit()
}

/// Chunks just written, kept for the ranking that follows as long as they are few and the ledger has room: a sweep of
/// ordinary size need not read back what it has.
#[derive(Debug)]
pub struct Kept {
    ledger: Ledger,
    most: usize,
    chunks: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    kept: BTreeMap<u64, (Chunk, Reservation)>,
    bytes: usize,
}

impl Kept {
    /// Keeps at most a sixteenth of the cap, and never more than 64 MiB.
    pub fn new(ledger: &Ledger) -> Self {
        Self { ledger: ledger.clone(), most: (ledger.cap() / 16).min(64 << 20), chunks: Mutex::default() }
    }

    /// Keeps a chunk if there is room.
    pub fn keep(&self, index: u64, chunk: Chunk) {
        let bytes = chunk.batch.get_array_memory_size();
        let mut held = self.lock();
        if held.bytes + bytes <= self.most
            && let Some(reservation) = self.ledger.try_reserve(bytes)
        {
            held.bytes += bytes;
            held.kept.insert(index, (chunk, reservation));
        }
    }

    /// The chunk, if it was kept.
    pub fn get(&self, index: u64) -> Option<Chunk> {
        self.lock().kept.get(&index).map(|(chunk, _)| chunk.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) const KEY_FORMAT: &str = "omega.format";
pub(crate) const KEY_PART: &str = "omega.run.";
const KEY_FIRST: &str = "omega.first_trial";
const KEY_ROWS: &str = "omega.rows";
/// One key per way of evaluation: rows.
const KEY_WAY: &str = "omega.way.";
const KEY_DIGEST: &str = "omega.sha256";

fn metadata(header: &ChunkHeader, batch: &RecordBatch) -> Vec<KeyValue> {
    let mut pairs = vec![KeyValue::new(KEY_FORMAT.to_owned(), FORMAT_VERSION.to_string())];
    pairs.extend(header.fingerprint.parts().map(|(name, value)| {
        let key = format!("{KEY_PART}{name}");
        KeyValue::new(key, value.to_owned())
    }));
    pairs.push(KeyValue::new(KEY_FIRST.to_owned(), header.first_trial.to_string()));
    pairs.push(KeyValue::new(KEY_ROWS.to_owned(), header.rows.to_string()));
    pairs.extend(header.ways.iter().map(|(way, rows)| KeyValue::new(format!("{KEY_WAY}{way}"), rows.to_string())));
    pairs.push(KeyValue::new(KEY_DIGEST.to_owned(), hex(&content_digest(header, batch))));
    pairs
}

/// SHA-256 over the header and, column by column, name, type, and every value with its validity. Independent of the
/// encoding, so it covers whatever a flipped bit anywhere in the file may have changed.
fn content_digest(header: &ChunkHeader, batch: &RecordBatch) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"omega-opt chunk\n");
    hash.update(header.fingerprint.digest());
    hash.update(header.first_trial.to_le_bytes());
    hash.update(header.rows.to_le_bytes());
    for (way, rows) in &header.ways {
        hash.update((way.len() as u64).to_le_bytes());
        hash.update(way);
        hash.update(rows.to_le_bytes());
    }
    let mut bytes = Vec::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        bytes.clear();
        bytes.extend_from_slice(field.name().as_bytes());
        bytes.extend_from_slice(field.data_type().to_string().as_bytes());
        bytes.push(b'\n');
        push_values(column, &mut bytes);
        hash.update(&bytes);
    }
    hash.finalize().into()
}

/// Per value a byte for its validity, then, if it is valid, its content; fixed widths little-endian, texts after their
/// length.
fn push_values(column: &ArrayRef, bytes: &mut Vec<u8>) {
    fn each<const N: usize>(column: &ArrayRef, bytes: &mut Vec<u8>, content: impl Fn(usize) -> [u8; N]) {
        bytes.reserve(column.len() * (N + 1));
        for i in 0..column.len() {
            if column.is_null(i) {
                bytes.push(0);
            } else {
                bytes.push(1);
                bytes.extend_from_slice(&content(i));
            }
        }
    }
    if let Some(numbers) = column.as_primitive_opt::<Float64Type>() {
        each(column, bytes, |i| numbers.value(i).to_le_bytes());
    } else if let Some(numbers) = column.as_primitive_opt::<Int64Type>() {
        each(column, bytes, |i| numbers.value(i).to_le_bytes());
    } else if let Some(numbers) = column.as_primitive_opt::<UInt64Type>() {
        each(column, bytes, |i| numbers.value(i).to_le_bytes());
    } else if let Some(flags) = column.as_boolean_opt() {
        each(column, bytes, |i| [u8::from(flags.value(i))]);
    } else if let Some(texts) = column.as_string_opt::<i32>() {
        for text in texts {
            let Some(text) = text else {
                bytes.push(0);
                continue;
            };
            bytes.push(1);
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    // A chunk has no other columns. A damaged file may claim some; their type alone makes another digest.
}

/// Reads a chunk and checks everything: format, metadata, columns, number of rows, and the digest of all of it.
///
/// A file that is not what was written is [`ChunkError::Damaged`]; a sound one of another run is
/// [`ChunkError::Foreign`].
pub fn read_chunk(
    path: &Path,
    schema: &RowSchema,
    fingerprint: &Fingerprint,
    trials: Range<u64>,
) -> Result<Chunk, ChunkError> {
    let chunk = read_batch(path, schema.chunk().fields(), fingerprint, trials)?;
    if ChunkColumns::new(schema, &chunk.batch).is_none() {
        return Err(ChunkError::Damaged { path: path.to_owned(), reason: "has other columns than the run".to_owned() });
    }
    Ok(chunk)
}

/// Reads and checks a chunk of whatever kind of run, whose columns are `fields`.
pub(crate) fn read_batch(
    path: &Path,
    fields: &Fields,
    fingerprint: &Fingerprint,
    trials: Range<u64>,
) -> Result<Chunk, ChunkError> {
    let (chunk, _) = decode(path)?;
    let damaged = |reason: String| ChunkError::Damaged { path: path.to_owned(), reason };
    let differences = fingerprint.differences(&chunk.header.fingerprint);
    if !differences.is_empty() {
        return Err(ChunkError::Foreign { path: path.to_owned(), differences });
    }
    let found = chunk.header.trials();
    if found != trials {
        return Err(damaged(format!("holds trials {found:?}, expected {trials:?}")));
    }
    if chunk.batch.schema_ref().fields() != fields {
        return Err(damaged("has other columns than the run".to_owned()));
    }
    let numbers = chunk.batch.columns().first().and_then(|column| column.as_primitive_opt::<UInt64Type>());
    if !numbers.is_some_and(|numbers| numbers.values().iter().copied().eq(trials)) {
        return Err(damaged("rows are not in the order of trials".to_owned()));
    }
    Ok(chunk)
}

/// What a chunk of whatever run and kind covers, and its digest, which its contents agree with.
pub(crate) fn inspect(path: &Path) -> Result<(ChunkHeader, String), ChunkError> {
    decode(path).map(|(chunk, digest)| (chunk.header, digest))
}

/// What a chunk of whatever run and kind says of itself, and its columns; its contents are not read.
pub(crate) fn read_header(path: &Path) -> Result<(ChunkHeader, SchemaRef), ChunkError> {
    let file = File::open(path).map_err(|e| FileError::io(path, "open it", e))?;
    guard_decoder(path, || {
        let metadata = load_metadata(path, &file)?;
        Ok((header_of(path, &metadata)?.0, metadata.schema().clone()))
    })
}

/// Whose rows a chunk of whatever run and kind holds. The rest of its contents is neither read nor checked.
pub(crate) struct Hashes {
    pub(crate) header: ChunkHeader,
    columns: RecordBatch,
    /// Memory that reading the whole file takes: decoded, joined, and as it stands in the file.
    pub(crate) bytes: usize,
}

impl Hashes {
    /// `config_hash` and `rules_hash`, row by row.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&str, &str)> {
        let column = |at: usize| self.columns.columns().get(at).and_then(|column| column.as_string_opt::<i32>());
        let pairs = column(0).zip(column(1)).into_iter();
        pairs.flat_map(|(config, rules)| config.iter().zip(rules).filter_map(|(config, rules)| config.zip(rules)))
    }
}

/// Reads the hashes of a chunk.
pub(crate) fn read_hashes(path: &Path) -> Result<Hashes, ChunkError> {
    let file = File::open(path).map_err(|e| FileError::io(path, "open it", e))?;
    guard_decoder(path, || {
        let metadata = load_metadata(path, &file)?;
        let (header, _) = header_of(path, &metadata)?;
        let groups = metadata.metadata().row_groups().iter();
        let bytes = groups.map(|group| usize::try_from(group.total_byte_size()).unwrap_or(0)).sum::<usize>();
        let schema = metadata.metadata().file_metadata().schema_descr();
        let mask = ProjectionMask::columns(schema, ["config_hash", "rules_hash"]);
        let columns = read_columns(path, file, metadata, mask)?;
        Ok(Hashes { header, columns, bytes: bytes.saturating_mul(3) })
    })
}

/// The decoder is not proof against every flipped bit; a panic in it is one more way to be damaged.
fn guard_decoder<T>(path: &Path, decode: impl FnOnce() -> Result<T, ChunkError>) -> Result<T, ChunkError> {
    let gave_up = |_| ChunkError::Damaged { path: path.to_owned(), reason: "the Parquet decoder gave up".to_owned() };
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|payload| Err(gave_up(payload)))
}

/// A file whose contents agree with themselves, of whatever run, and their digest.
fn decode(path: &Path) -> Result<(Chunk, String), ChunkError> {
    let damaged = |reason: String| ChunkError::Damaged { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|e| FileError::io(path, "open it", e))?;
    let (header, digest, batch) = guard_decoder(path, || decode_parquet(path, file))?;
    if batch.num_rows() as u64 != header.rows {
        return Err(damaged(format!("{} rows found, {} announced", batch.num_rows(), header.rows)));
    }
    if hex(&content_digest(&header, &batch)) != digest {
        return Err(damaged("contents do not match their digest".to_owned()));
    }
    Ok((Chunk { header, batch }, digest))
}

fn decode_failed(path: &Path, error: parquet::errors::ParquetError) -> ChunkError {
    match FileError::parquet(path, "read it", error) {
        // Running into the end of the file is damage, not a refusal of the system.
        FileError::Io { source, .. } if source.kind() != std::io::ErrorKind::UnexpectedEof => {
            ChunkError::File(FileError::io(path, "read it", source))
        }
        FileError::Io { source, .. } => ChunkError::Damaged { path: path.to_owned(), reason: source.to_string() },
        other => ChunkError::Damaged { path: path.to_owned(), reason: reason_of(other) },
    }
}

fn load_metadata(path: &Path, file: &File) -> Result<ArrowReaderMetadata, ChunkError> {
    ArrowReaderMetadata::load(file, Default::default()).map_err(|e| decode_failed(path, e))
}

/// Header and digest, as the file's metadata has them.
fn header_of(path: &Path, metadata: &ArrowReaderMetadata) -> Result<(ChunkHeader, String), ChunkError> {
    let damaged = |reason: String| ChunkError::Damaged { path: path.to_owned(), reason };
    let pairs = metadata.metadata().file_metadata().key_value_metadata().map_or(&[][..], Vec::as_slice);
    let value = |key: &str| {
        let found = pairs.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.as_deref());
        found.ok_or_else(|| damaged(format!("metadata `{key}` is missing")))
    };
    let number = |key: &str| {
        let text = value(key)?;
        text.parse::<u64>().map_err(|_| damaged(format!("metadata `{key}` is `{text}`")))
    };
    let version = number(KEY_FORMAT)?;
    if version != u64::from(FORMAT_VERSION) {
        let found = u32::try_from(version).unwrap_or(u32::MAX);
        return Err(ChunkError::Newer { path: path.to_owned(), found });
    }
    let parts = pairs.iter().filter_map(|pair| {
        let name = pair.key.strip_prefix(KEY_PART)?;
        Some((name, pair.value.as_deref().unwrap_or_default()))
    });
    let ways = pairs.iter().filter_map(|pair| {
        let way = pair.key.strip_prefix(KEY_WAY)?;
        Some(number(&pair.key).map(|rows| (way.to_owned(), rows)))
    });
    let header = ChunkHeader {
        fingerprint: Fingerprint::new(parts),
        first_trial: number(KEY_FIRST)?,
        rows: number(KEY_ROWS)?,
        ways: ways.collect::<Result<_, _>>()?,
    };
    Ok((header, value(KEY_DIGEST)?.to_owned()))
}

fn decode_parquet(path: &Path, file: File) -> Result<(ChunkHeader, String, RecordBatch), ChunkError> {
    let metadata = load_metadata(path, &file)?;
    let (header, digest) = header_of(path, &metadata)?;
    Ok((header, digest, read_columns(path, file, metadata, ProjectionMask::all())?))
}

fn read_columns(
    path: &Path,
    file: File,
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
) -> Result<RecordBatch, ChunkError> {
    let damaged = |reason: String| ChunkError::Damaged { path: path.to_owned(), reason };
    let rows = usize::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or(0);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
        .with_projection(mask)
        .with_batch_size(rows.max(1))
        .build()
        .map_err(|e| decode_failed(path, e))?;
    let schema = arrow_array::RecordBatchReader::schema(&reader);
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(|e| damaged(e.to_string()))?;
    concat_batches(&schema, &batches).map_err(|e| damaged(e.to_string()))
}

fn reason_of(error: FileError) -> String {
    match error {
        FileError::Format { reason, .. } => reason,
        other => other.to_string(),
    }
}

/// Moves a damaged chunk into `damaged/` beside it, under a name not taken yet, and returns the new place.
pub fn set_aside(path: &Path) -> Result<PathBuf, FileError> {
    let dir = path.with_file_name("damaged");
    fs::create_dir_all(&dir).map_err(|e| FileError::io(&dir, "create it", e))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut place = dir.join(&name);
    let mut next = 1_u64;
    while place.exists() {
        place = dir.join(format!("{name}.{next}"));
        next += 1;
    }
    fs::rename(path, &place).map_err(|e| FileError::io(path, "set it aside", e))?;
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::{params, row, schema};

    fn fingerprint() -> Fingerprint {
        Fingerprint::new([("engine", "0.1.0+abc"), ("data", "d1")])
    }

    fn write(path: &Path, trials: Range<u64>) {
        let rows: Vec<Row> = trials.map(row).collect();
        write_chunk(path, &schema(), &fingerprint(), &rows.iter().map(Row::done).collect::<Vec<_>>(), &mut params)
            .unwrap();
    }

    fn read(path: &Path, trials: Range<u64>) -> Result<Chunk, ChunkError> {
        read_chunk(path, &schema(), &fingerprint(), trials)
    }

    /// design §4.2.
    #[test]
    fn chunk_sizes() {
        for (total, size) in [
            (0, 256),
            (1, 256),
            (262_144, 256),
            (262_145, 512),
            (524_288, 512),
            (524_289, 1024),
            (67_108_864, 65_536),
            (67_108_865, 65_536),
            (1_000_000_000, 65_536),
        ] {
            assert_eq!(chunk_size(total, None), size, "{total}");
        }
        assert_eq!(chunk_size(1_000_000, Some(100)), 100);
        assert_eq!(chunk_size(1_000_000, Some(0)), 1);
    }

    #[test]
    fn a_plan_covers_every_trial_once() {
        let plan = ChunkPlan::new(1000, Some(300));
        assert_eq!(plan.count(), 4);
        assert_eq!(
            (0..5).map(|i| plan.trials(i)).collect::<Vec<_>>(),
            [0..300, 300..600, 600..900, 900..1000, 1000..1000]
        );
        assert!((0..1000).all(|trial| plan.trials(plan.chunk_of(trial)).contains(&trial)));
        assert_eq!(ChunkPlan::new(0, None).count(), 0);
    }

    #[test]
    fn shards_share_the_chunks_out() {
        let plan = ChunkPlan::new(1000, Some(300));
        let own = |text: &str| {
            let plan = plan.of_shard(Some(text.parse().unwrap()));
            (plan.own().collect::<Vec<_>>(), plan.own_trials())
        };
        assert_eq!((plan.own().collect::<Vec<_>>(), plan.own_trials()), (vec![0, 1, 2, 3], 1000));
        assert_eq!(own("1/1"), (vec![0, 1, 2, 3], 1000));
        assert_eq!(own("1/3"), (vec![0, 3], 400));
        assert_eq!(own("3/3"), (vec![2], 300));
        assert_eq!(own("5/7"), (vec![], 0));
        assert_eq!(own("18446744073709551615/18446744073709551615"), (vec![], 0));
    }

    #[test]
    fn names_and_back() {
        assert_eq!(file_name(17), "chunk-000017.parquet");
        assert_eq!(index_of("chunk-000017.parquet"), Some(17));
        assert_eq!(index_of("chunk-1234567.parquet"), Some(1_234_567));
        for name in ["chunk-17.parquet", "chunk-000017.parquet.tmp", "chunk-+00017.parquet", "other"] {
            assert_eq!(index_of(name), None, "{name}");
        }
    }

    #[test]
    fn rows_come_back_and_equal_rows_give_equal_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a.parquet"), dir.path().join("b.parquet"));
        write(&a, 512..768);
        write(&b, 512..768);
        assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
        let chunk = read(&a, 512..768).unwrap();
        let rows: Vec<Row> = (0..256).filter_map(|i| chunk.row(&schema(), i)).collect();
        assert_eq!(rows, (512..768).map(row).collect::<Vec<_>>());
        assert_eq!(chunk.row(&schema(), 256), None);
    }

    #[test]
    fn a_foreign_chunk_is_refused_with_the_difference() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        write(&path, 0..10);
        let other = Fingerprint::new([("engine", "0.2.0+def"), ("data", "d1")]);
        let error = read_chunk(&path, &schema(), &other, 0..10).unwrap_err();
        assert!(matches!(error, ChunkError::Foreign { .. }));
        let expected = "a.parquet: belongs to another run; \
                        engine: this run has `0.2.0+def`, the file has `0.1.0+abc`";
        assert!(error.to_string().ends_with(expected), "{error}");
    }

    #[test]
    fn other_trials_or_columns_than_expected_are_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        write(&path, 0..10);
        let error = read(&path, 0..11).unwrap_err();
        assert!(error.to_string().ends_with("damaged: holds trials 0..10, expected 0..11"), "{error}");
        let error = read_chunk(&path, &RowSchema::new(vec![]), &fingerprint(), 0..10).unwrap_err();
        assert!(error.to_string().ends_with("damaged: has other columns than the run"), "{error}");
    }

    #[test]
    fn rows_out_of_order_are_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let error =
            write_chunk(&path, &schema(), &fingerprint(), &[row(1).done(), row(3).done()], &mut params).unwrap_err();
        assert!(error.to_string().ends_with("rows of a chunk must be consecutive trials"), "{error}");
        assert!(!path.exists());
    }

    /// Every byte matters: no flipped bit and no cut gives other rows without being noticed. (A flipped bit that
    /// changes nothing that is read, as in a statistic nobody looks at, may pass.)
    #[test]
    fn flipped_bits_and_cuts_are_noticed_or_harmless() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        write(&path, 0..64);
        let sound = fs::read(&path).unwrap();
        let expected = read(&path, 0..64).unwrap().batch;
        let (mut noticed, mut harmless) = (0, 0);
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        for position in (0..sound.len()).step_by(37) {
            let mut bytes = sound.clone();
            bytes[position] ^= 1 << (position % 8);
            fs::write(&path, &bytes).unwrap();
            match read(&path, 0..64) {
                Ok(chunk) => {
                    assert_eq!(chunk.batch, expected, "bit flipped at {position}");
                    harmless += 1;
                }
                Err(_) => noticed += 1,
            }
        }
        std::panic::set_hook(hook);
        assert!(noticed > harmless, "{noticed} noticed, {harmless} harmless");
        for length in [0, 3, 4, 100, sound.len() / 2, sound.len() - 1] {
            fs::write(&path, &sound[..length]).unwrap();
            assert!(matches!(read(&path, 0..64), Err(ChunkError::Damaged { .. })), "cut to {length}");
        }
    }

    #[test]
    fn damaged_chunks_are_set_aside_without_overwriting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file_name(3));
        for expected in ["chunk-000003.parquet", "chunk-000003.parquet.1"] {
            fs::write(&path, expected).unwrap();
            let place = set_aside(&path).unwrap();
            assert_eq!(place, dir.path().join("damaged").join(expected));
            assert_eq!(fs::read_to_string(place).unwrap(), expected);
        }
        assert!(!path.exists());
    }
}
