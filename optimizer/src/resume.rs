//! What a run folder already holds: which chunks are finished and sound, and which had to be set aside.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::atomic::sync_dir;
use crate::chunk::{ChunkError, ChunkPlan, file_name, read_chunk, set_aside};
use crate::fingerprint::Fingerprint;
use crate::row::RowSchema;
use crate::run_folder::RunFolder;

/// A chunk that was not what had been written, and where it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Index of the chunk; it is to be evaluated again.
    pub index: u64,
    /// What was wrong with the file.
    pub reason: String,
    /// Where it was moved.
    pub moved_to: PathBuf,
}

/// State of a run folder at the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Finished {
    /// Sound chunks, ascending.
    pub chunks: Vec<u64>,
    /// Chunks set aside, ascending by index.
    pub damaged: Vec<SetAside>,
}

impl Finished {
    /// True if chunk `index` needs no work.
    pub fn contains(&self, index: u64) -> bool {
        self.chunks.binary_search(&index).is_ok()
    }

    /// Chunks of the plan that are this process's work and still to be evaluated, ascending.
    pub fn missing(&self, plan: &ChunkPlan) -> impl Iterator<Item = u64> {
        plan.own().filter(|index| !self.contains(*index))
    }

    /// Trials in finished chunks.
    pub fn trials(&self, plan: &ChunkPlan) -> u64 {
        self.chunks.iter().map(|index| plan.trials(*index)).map(|range| range.end - range.start).sum()
    }
}

/// Own chunks of the plan whose files are in `folder`, ascending; a chunk file is whole or absent.
pub fn present(folder: &Path, plan: &ChunkPlan) -> Vec<u64> {
    plan.own().filter(|index| folder.join(file_name(*index)).exists()).collect()
}

/// Reads and checks every own chunk of the plan that is there, on up to `threads` threads, each holding one chunk in
/// memory. Damaged ones are moved to `chunks/damaged/`; one of another run, or of a newer format, is an error and
/// nothing is moved for it.
pub fn scan(
    folder: &RunFolder,
    plan: &ChunkPlan,
    schema: &RowSchema,
    fingerprint: &Fingerprint,
    threads: usize,
) -> Result<Finished, ChunkError> {
    let check = |index: u64| read_chunk(&folder.chunk(index), schema, fingerprint, plan.trials(index)).map(|_| ());
    scan_with(folder, plan, threads, &check)
}

/// [`scan`] for chunks of any kind; `check` reads one and finds it sound.
pub(crate) fn scan_with(
    folder: &RunFolder,
    plan: &ChunkPlan,
    threads: usize,
    check: &(dyn Fn(u64) -> Result<(), ChunkError> + Sync),
) -> Result<Finished, ChunkError> {
    let present = present(&folder.chunks(), plan);
    let next = AtomicU64::new(0);
    let verdicts = Mutex::new(Vec::with_capacity(present.len()));
    let work = || {
        while let Some(index) = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).ok().and_then(|i| present.get(i))
        {
            let verdict = check(*index);
            // A thread that panicked has pushed nothing; what the others found stands.
            verdicts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((*index, verdict));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(present.len()) {
            scope.spawn(work);
        }
        work();
    });
    let mut verdicts = verdicts.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    verdicts.sort_by_key(|(index, _)| *index);
    sort_out(folder, verdicts)
}

/// Errors first: nothing is moved in a folder that turns out to be another run's.
fn sort_out(folder: &RunFolder, verdicts: Vec<(u64, Result<(), ChunkError>)>) -> Result<Finished, ChunkError> {
    let mut finished = Finished::default();
    let mut damaged = Vec::new();
    for (index, verdict) in verdicts {
        match verdict {
            Ok(()) => finished.chunks.push(index),
            Err(ChunkError::Damaged { reason, .. }) => damaged.push((index, reason)),
            Err(other) => return Err(other),
        }
    }
    for (index, reason) in damaged {
        let moved_to = set_aside(&folder.chunk(index))?;
        finished.damaged.push(SetAside { index, reason, moved_to });
    }
    if !finished.damaged.is_empty() {
        sync_dir(&folder.chunks())?;
    }
    Ok(finished)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::chunk::write_chunk;
    use crate::row::Row;
    use crate::row::tests::{params, row, schema};

    fn write(folder: &RunFolder, plan: &ChunkPlan, index: u64, fingerprint: &Fingerprint) {
        let rows: Vec<Row> = plan.trials(index).map(row).collect();
        write_chunk(
            &folder.chunk(index),
            &schema(),
            fingerprint,
            &rows.iter().map(Row::done).collect::<Vec<_>>(),
            &mut params,
        )
        .unwrap();
    }

    #[test]
    fn finished_chunks_are_found_and_damaged_ones_set_aside() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(root.path(), "grid", "0123abcd", false).unwrap();
        let (plan, fingerprint) = (ChunkPlan::new(90, Some(20)), Fingerprint::new([("data", "d")]));
        for index in [0, 2, 3, 4] {
            write(&folder, &plan, index, &fingerprint);
        }
        let whole = fs::read(folder.chunk(2)).unwrap();
        fs::write(folder.chunk(2), &whole[..whole.len() / 2]).unwrap();
        let found = scan(&folder, &plan, &schema(), &fingerprint, 3).unwrap();
        assert_eq!(found.chunks, [0, 3, 4]);
        assert_eq!(found.missing(&plan).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(found.trials(&plan), 50);
        assert_eq!(found.damaged.len(), 1);
        assert_eq!(found.damaged[0].index, 2);
        assert!(found.damaged[0].moved_to.ends_with("chunks/damaged/chunk-000002.parquet"));
        assert!(found.damaged[0].moved_to.exists() && !folder.chunk(2).exists());
        assert!(scan(&folder, &plan, &schema(), &fingerprint, 1).unwrap().damaged.is_empty());
    }

    #[test]
    fn a_folder_with_a_foreign_chunk_is_left_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(root.path(), "grid", "0123abcd", false).unwrap();
        let plan = ChunkPlan::new(60, Some(20));
        write(&folder, &plan, 1, &Fingerprint::new([("data", "other")]));
        fs::write(folder.chunk(0), b"damaged").unwrap();
        let error = scan(&folder, &plan, &schema(), &Fingerprint::new([("data", "d")]), 2).unwrap_err();
        assert!(matches!(error, ChunkError::Foreign { .. }), "{error}");
        assert!(folder.chunk(0).exists() && folder.chunk(1).exists());
    }
}
