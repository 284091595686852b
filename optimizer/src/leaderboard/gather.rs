//! Rows in the order of their rank, from chunks in the order of trials, each chunk read once.

use std::fs::{File, OpenOptions};
use std::io::{Cursor, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow_array::{RecordBatch, UInt32Array};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::ArrowError;
use arrow_select::interleave::interleave_record_batch;
use arrow_select::take::take_record_batch;
use rayon::ThreadPool;
use rayon::prelude::*;

use super::keys::Entry;
use super::{LeaderboardError, Reader, Room, Targets};
use crate::atomic::{FileError, UNFINISHED};
use crate::chunk::Chunk;

/// Brings rows into order, a row group at a time.
pub(super) struct Gatherer<'a> {
    reader: &'a Reader<'a>,
    room: &'a Room,
    /// Beside this file rows are put that do not fit in memory.
    spill: &'a Path,
}

/// Chunks read together.
struct Block {
    /// Their rows, as far as wanted; by chunk.
    parts: Vec<RecordBatch>,
    /// Position in `parts` by chunk.
    places: Places,
    /// For each part, the chunk's rows that it holds, ascending; none: all of them.
    rows: Vec<Option<Vec<u32>>>,
}

/// Positions of ascending chunk numbers in their list.
struct Places {
    first: u32,
    /// By distance from the first.
    at: Vec<u32>,
}

impl Places {
    fn new(chunks: &[u32]) -> Self {
        let (first, last) = (chunks.first().copied().unwrap_or(1), chunks.last().copied().unwrap_or(0));
        let mut at = vec![u32::MAX; (u64::from(last) + 1).saturating_sub(u64::from(first)) as usize];
        for (place, chunk) in (0..).zip(chunks) {
            at[(chunk - first) as usize] = place;
        }
        Self { first, at }
    }

    fn of(&self, chunk: u32) -> Option<usize> {
        let place = *self.at.get(chunk.checked_sub(self.first)? as usize)?;
        (place != u32::MAX).then_some(place as usize)
    }
}

impl Block {
    fn place(&self, entry: &Entry) -> Option<(usize, usize)> {
        let part = self.places.of(entry.chunk)?;
        let row = match &self.rows[part] {
            None => entry.row as usize,
            Some(rows) => rows.binary_search(&entry.row).ok()?,
        };
        Some((part, row))
    }
}

impl<'a> Gatherer<'a> {
    pub(super) fn new(reader: &'a Reader<'a>, room: &'a Room, targets: &'a Targets) -> Self {
        Self { reader, room, spill: &targets.parquet }
    }

    /// Calls `write` with the rows of each row group of `entries`, in order.
    pub(super) fn each_group(
        &self,
        entries: &[Entry],
        mut write: impl FnMut(&RecordBatch, &[Entry]) -> Result<(), LeaderboardError>,
    ) -> Result<(), LeaderboardError> {
        let mut chunks: Vec<u32> = entries.iter().map(|entry| entry.chunk).collect();
        chunks.sort_unstable();
        chunks.dedup();
        if entries.len() > self.room.span && entries.len() > self.room.group {
            return self.through_a_file(entries, &chunks, write);
        }
        let block = self.read(entries, &chunks)?;
        for group in entries.chunks(self.room.group) {
            write(&self.pick(&block, group)?, group)?;
        }
        Ok(())
    }

    /// The rows of some chunks that are among `entries`.
    fn read(&self, entries: &[Entry], chunks: &[u32]) -> Result<Block, LeaderboardError> {
        let places = Places::new(chunks);
        let mut wanted: Vec<Vec<u32>> = vec![Vec::new(); chunks.len()];
        for entry in entries {
            if let Some(at) = places.of(entry.chunk) {
                wanted[at].push(entry.row);
            }
        }
        wanted.iter_mut().for_each(|rows| rows.sort_unstable());
        let numbers: Vec<u64> = chunks.iter().map(|chunk| u64::from(*chunk)).collect();
        let parts = self.reader.read_all(&numbers, |index, Chunk { batch, .. }| {
            let rows = u32::try_from(index).ok().and_then(|index| places.of(index)).map(|at| &wanted[at]);
            match rows {
                Some(rows) if rows.len() < batch.num_rows() => {
                    let rows = rows.iter().copied().collect::<UInt32Array>();
                    let picked =
                        take_record_batch(&batch, &rows).map_err(|e| self.reader.damaged(index, &e.to_string()));
                    Ok((picked?, false))
                }
                _ => Ok((batch, true)),
            }
        })?;
        let (parts, whole): (Vec<RecordBatch>, Vec<bool>) = parts.into_iter().unzip();
        let rows = wanted.into_iter().zip(whole).map(|(rows, whole)| (!whole).then_some(rows)).collect();
        Ok(Block { parts, places, rows })
    }

    /// The rows of `entries` that `block` holds, in their order.
    fn pick(&self, block: &Block, entries: &[Entry]) -> Result<RecordBatch, LeaderboardError> {
        let places: Vec<(usize, usize)> = entries.iter().filter_map(|entry| block.place(entry)).collect();
        self.interleave(&block.parts, &places)
    }

    fn interleave(&self, parts: &[RecordBatch], places: &[(usize, usize)]) -> Result<RecordBatch, LeaderboardError> {
        if parts.is_empty() || places.is_empty() {
            return Ok(RecordBatch::new_empty(self.reader.sources.schema.chunk().clone()));
        }
        let parts: Vec<&RecordBatch> = parts.iter().collect();
        interleave_record_batch(&parts, places).map_err(|e| self.reader.damaged(0, &e.to_string()))
    }

    /// As many chunks at a time as there is room for: their rows are put aside, sorted by rank and cut by row group, those
    /// of the first groups in memory, the others in a file; then each row group is put together from its pieces.
    fn through_a_file(
        &self,
        entries: &[Entry],
        chunks: &[u32],
        mut write: impl FnMut(&RecordBatch, &[Entry]) -> Result<(), LeaderboardError>,
    ) -> Result<(), LeaderboardError> {
        let chunk_rows = usize::try_from(self.reader.sources.plan.size()).unwrap_or(usize::MAX).max(1);
        let at_once = (self.room.span / chunk_rows).max(1);
        let groups: Vec<&[Entry]> = entries.chunks(self.room.group).collect();
        let spill = Spill::create(self.spill, self.reader.pool.as_ref().map_or(1, ThreadPool::current_num_threads))?;
        let mut pieces: Vec<Vec<Piece>> = vec![Vec::new(); groups.len()];
        for some in chunks.chunks(at_once) {
            for (group, piece) in self.put_aside(&spill, entries, &groups, some)?.into_iter().enumerate() {
                pieces[group].extend(piece);
            }
        }
        let rows = groups.into_iter().zip(pieces);
        let rows = rows.map(|(group, pieces)| Ok((group, self.put_together(&spill, group, pieces)?)));
        in_turn(self.room.ahead, rows, |(group, rows)| write(&rows, group))
    }

    /// Puts aside the rows of `some` chunks; by row group.
    fn put_aside(
        &self,
        spill: &Spill,
        entries: &[Entry],
        groups: &[&[Entry]],
        some: &[u32],
    ) -> Result<Vec<Option<Piece>>, LeaderboardError> {
        let block = self.read(entries, some)?;
        let put = |(number, group): (usize, &&[Entry])| {
            let rows = self.pick(&block, group)?;
            let (Some(first_chunk), Some(last_chunk), 1..) = (some.first(), some.last(), rows.num_rows()) else {
                return Ok(None);
            };
            let place = if (number + 1).saturating_mul(self.room.group) <= self.room.held {
                Place::Memory(rows)
            } else {
                spill.append(&encode(&rows).map_err(|e| self.reader.damaged(0, &e.to_string()))?)?
            };
            Ok(Some(Piece { place, first_chunk: *first_chunk, last_chunk: *last_chunk }))
        };
        match &self.reader.pool {
            Some(pool) => pool.install(|| groups.par_iter().enumerate().map(put).collect()),
            None => groups.iter().enumerate().map(put).collect(),
        }
    }

    /// The rows of a group from its pieces.
    fn put_together(
        &self,
        spill: &Spill,
        group: &[Entry],
        pieces: Vec<Piece>,
    ) -> Result<RecordBatch, LeaderboardError> {
        // Within a piece rows stand in the order of rank, as they do in the group.
        let mut next = vec![0; pieces.len()];
        let places: Vec<(usize, usize)> = group
            .iter()
            .filter_map(|entry| {
                let at = pieces.iter().position(|piece| piece.holds(entry.chunk))?;
                next[at] += 1;
                Some((at, next[at] - 1))
            })
            .collect();
        let parts = pieces.into_iter().map(|Piece { place, .. }| match place {
            Place::Memory(rows) => Ok(rows),
            Place::File { number, offset, len } => spill.read(number, offset, len),
        });
        self.interleave(&parts.collect::<Result<Vec<_>, _>>()?, &places)
    }
}

/// Takes what `source` gives, in order, up to the first error; `ahead`: while one is taken the next one is made.
fn in_turn<T: Send>(
    ahead: bool,
    mut source: impl Iterator<Item = Result<T, LeaderboardError>> + Send,
    mut take: impl FnMut(T) -> Result<(), LeaderboardError>,
) -> Result<(), LeaderboardError> {
    if !ahead {
        return source.try_for_each(|made| take(made?));
    }
    std::thread::scope(|scope| {
        // Without room: whoever has made one waits until it is wanted.
        let (give, made) = sync_channel(0);
        scope.spawn(move || {
            // The other side has gone only after an error.
            let _ = source.try_for_each(|made| give.send(made));
        });
        made.iter().try_for_each(|made| take(made?))
    })
}

fn encode(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let bytes = batch.get_array_memory_size();
    let mut writer = StreamWriter::try_new(Vec::with_capacity(bytes + bytes / 8), batch.schema_ref())?;
    writer.write(batch)?;
    writer.into_inner()
}

/// Rows of one group from some chunks, in the order of rank.
#[derive(Debug, Clone)]
struct Piece {
    place: Place,
    first_chunk: u32,
    last_chunk: u32,
}

/// Where rows are put aside.
#[derive(Debug, Clone)]
enum Place {
    Memory(RecordBatch),
    /// In the spill file of this number.
    File {
        number: usize,
        offset: u64,
        len: usize,
    },
}

impl Piece {
    fn holds(&self, chunk: u32) -> bool {
        (self.first_chunk..=self.last_chunk).contains(&chunk)
    }
}

/// Files for rows that do not fit in memory, one per thread.
struct Spill(Vec<Mutex<SpillFile>>);

/// Removed when dropped.
struct SpillFile {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Spill {
    fn create(path: &Path, threads: usize) -> Result<Self, FileError> {
        let create = |number: usize| {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".rows-{number}.{UNFINISHED}"));
            let path = path.with_file_name(name);
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
            let file = file.map_err(|e| FileError::io(&path, "create it", e))?;
            Ok(Mutex::new(SpillFile { path, file, len: 0 }))
        };
        (0..threads.max(1)).map(create).collect::<Result<_, _>>().map(Self)
    }

    /// Appends to the file of this thread.
    fn append(&self, bytes: &[u8]) -> Result<Place, FileError> {
        let number = rayon::current_thread_index().unwrap_or(0) % self.0.len();
        let mut file = self.file(number);
        let SpillFile { path, file, len } = &mut *file;
        file.write_all(bytes).map_err(|e| FileError::io(&*path, "write it", e))?;
        let offset = *len;
        *len += bytes.len() as u64;
        Ok(Place::File { number, offset, len: bytes.len() })
    }

    fn read(&self, number: usize, offset: u64, len: usize) -> Result<RecordBatch, LeaderboardError> {
        let mut file = self.file(number);
        let SpillFile { path, file, .. } = &mut *file;
        let refused = |e| FileError::io(&*path, "read it", e);
        file.seek(SeekFrom::Start(offset)).map_err(refused)?;
        let mut bytes = vec![0; len];
        file.read_exact(&mut bytes).map_err(refused)?;
        let decode = || StreamReader::try_new(Cursor::new(bytes), None)?.next().transpose();
        let format = |reason: String| FileError::Format { path: path.clone(), reason };
        let batch = decode().map_err(|e| format(e.to_string()))?;
        Ok(batch.ok_or_else(|| format("a piece holds no rows".to_owned()))?)
    }

    fn file(&self, number: usize) -> MutexGuard<'_, SpillFile> {
        self.0[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        // A leftover is cleared at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_ahead_is_taken_in_order_up_to_the_first_error() {
        let refused = || LeaderboardError::Memory { needed: 1, free: 0 };
        for (broken, unwanted, expected) in [(9, 9, 9), (4, 9, 4), (9, 4, 4), (0, 9, 0), (9, 0, 0)] {
            for ahead in [false, true] {
                let mut taken = Vec::new();
                let source = (0..9).map(|k| if k == broken { Err(refused()) } else { Ok(k) });
                let result = in_turn(ahead, source, |k| {
                    if k == unwanted {
                        return Err(refused());
                    }
                    taken.push(k);
                    Ok(())
                });
                assert_eq!(taken, (0..expected).collect::<Vec<_>>());
                assert_eq!(result.is_err(), expected < 9);
            }
        }
    }
}
