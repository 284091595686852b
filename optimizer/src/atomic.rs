//! Files that are whole or absent: written beside their target, flushed to disk, renamed.
//!
//! Leaves to others what the files hold, and when the folder itself is flushed ([`sync_dir`], once per wave).

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Ending of a file that is still being written. A killed process may leave one behind; [`remove_leftovers`]
/// clears them.
pub const UNFINISHED: &str = "tmp";

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// No room: the device is full or the quota is used up. Nothing half-written is left; what was finished before
    /// stays, and a later start continues.
    #[error("{}: no space left to write it", path.display())]
    Full {
        /// The file that did not fit.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else the system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// `create it`, `write it`, `rename it into place` …
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The contents cannot be encoded or decoded.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl FileError {
    /// Sorts a failure of the system into full and other.
    pub fn io(path: impl Into<PathBuf>, action: &'static str, source: io::Error) -> Self {
        let path = path.into();
        if is_full(&source) { Self::Full { path, source } } else { Self::Io { path, action, source } }
    }

    /// A failure of the Parquet encoder; one that stems from the system underneath is sorted as such.
    pub fn parquet(path: impl Into<PathBuf>, action: &'static str, error: parquet::errors::ParquetError) -> Self {
        use parquet::errors::ParquetError;
        match error {
            ParquetError::External(inner) => match inner.downcast::<io::Error>() {
                Ok(source) => Self::io(path, action, *source),
                Err(other) => Self::Format { path: path.into(), reason: other.to_string() },
            },
            other => Self::Format { path: path.into(), reason: other.to_string() },
        }
    }

    /// The disk is full: the run ends resumable (exit code 7).
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        self.is_full().then_some("free some space and start the same command again: finished chunks are kept")
    }
}

/// True when the device is full or the quota used up.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A file on its way. Dropped without [`AtomicFile::commit`], it vanishes and the target stays as it was.
#[derive(Debug)]
pub struct AtomicFile {
    target: PathBuf,
    unfinished: PathBuf,
    out: Option<BufWriter<File>>,
}

impl AtomicFile {
    /// Starts writing what will become `target`; its folder must exist. One writer per target at a time.
    pub fn create(target: impl Into<PathBuf>) -> Result<Self, FileError> {
        let target = target.into();
        let unfinished = unfinished_name(&target);
        let file = File::create(&unfinished).map_err(|e| FileError::io(&target, "create it", e))?;
        Ok(Self { target, unfinished, out: Some(BufWriter::with_capacity(1 << 16, file)) })
    }

    /// The file being replaced.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Flushes to disk and puts the file in its place, replacing what was there.
    pub fn commit(mut self) -> Result<(), FileError> {
        let Some(out) = self.out.take() else { return Ok(()) };
        let outcome = out
            .into_inner()
            .map_err(|e| FileError::io(&self.target, "write it", e.into_error()))
            .and_then(|file| {
                let flushed = waiting(|| file.sync_all());
                flushed.map_err(|e| FileError::io(&self.target, "flush it to disk", e))
            })
            .and_then(|()| {
                fs::rename(&self.unfinished, &self.target)
                    .map_err(|e| FileError::io(&self.target, "rename it into place", e))
            });
        if outcome.is_err() {
            // The first failure is the one worth telling; a leftover is cleared at the next start.
            let _ = fs::remove_file(&self.unfinished);
        }
        outcome
    }
}

impl Write for AtomicFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.out {
            Some(out) => out.write(buf),
            None => Err(io::Error::other("file already committed")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(out) = self.out.take() {
            // `into_parts` drops the buffer unwritten: what is about to be removed need not reach the disk.
            drop(out.into_parts());
            let _ = fs::remove_file(&self.unfinished);
        }
    }
}

/// Writes a whole file: temporary sibling, flush, rename. On failure nothing half-written is left and an earlier
/// file of that name is unchanged.
pub fn write_atomic(
    path: impl Into<PathBuf>,
    write: impl FnOnce(&mut AtomicFile) -> io::Result<()>,
) -> Result<(), FileError> {
    let mut file = AtomicFile::create(path)?;
    write(&mut file).map_err(|e| FileError::io(file.target(), "write it", e))?;
    file.commit()
}

/// Gives the file `from` a second name, `to`, or copies it where the file system cannot; what was there gives way. Files
/// that are only ever replaced as a whole, as those of this module are, may share their bytes.
pub fn link_or_copy(from: &Path, to: &Path) -> Result<(), FileError> {
    let unfinished = unfinished_name(to);
    // Left by a killed process, if it is there at all.
    let _ = fs::remove_file(&unfinished);
    if fs::hard_link(from, &unfinished).is_ok() {
        let renamed = fs::rename(&unfinished, to);
        // Where both were names of one file, renaming leaves both.
        let _ = fs::remove_file(&unfinished);
        return renamed.map_err(|e| FileError::io(to, "rename it into place", e));
    }
    let mut source = File::open(from).map_err(|e| FileError::io(from, "open it", e))?;
    write_atomic(to, |out| io::copy(&mut source, out).map(drop))
}

fn unfinished_name(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(UNFINISHED);
    target.with_file_name(name)
}

/// Nanoseconds this process has waited for flushes.
static WAITED_NS: AtomicU64 = AtomicU64::new(0);

/// How long threads of this process have waited, one after another or at once, for the disk to flush. It says more about
/// the disk than about the program.
pub fn waited_for_disk() -> Duration {
    Duration::from_nanos(WAITED_NS.load(Ordering::Relaxed))
}

fn waiting<T>(flush: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let flushed = flush();
    let waited = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    WAITED_NS.fetch_add(waited, Ordering::Relaxed);
    flushed
}

/// Flushes a folder, so that renames inside it survive a power cut.
pub fn sync_dir(dir: &Path) -> Result<(), FileError> {
    // Only Unix can open a folder for this; elsewhere the rename is as durable as the system makes it.
    if cfg!(unix) {
        File::open(dir)
            .and_then(|file| waiting(|| file.sync_all()))
            .map_err(|e| FileError::io(dir, "flush the folder", e))?;
    }
    Ok(())
}

/// Removes what a killed process left half-written directly in `dir`.
pub fn remove_leftovers(dir: &Path) -> Result<(), FileError> {
    let listing = fs::read_dir(dir).map_err(|e| FileError::io(dir, "list it", e))?;
    for entry in listing {
        let path = entry.map_err(|e| FileError::io(dir, "list it", e))?.path();
        if path.extension().is_some_and(|ending| ending == UNFINISHED) && path.is_file() {
            fs::remove_file(&path).map_err(|e| FileError::io(&path, "remove it", e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failed_write_leaves_the_earlier_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_atomic(&path, |w| w.write_all(b"first")).unwrap();
        let failed = write_atomic(&path, |w| {
            w.write_all(b"second")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert!(failed.unwrap_err().is_full());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(names(dir.path()), ["a.txt"]);
        write_atomic(&path, |w| w.write_all(b"third")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures_through_the_encoder_too() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert!(FileError::io("x", "write it", full()).is_full());
        assert!(FileError::io("x", "write it", io::Error::from_raw_os_error(28)).is_full());
        assert!(FileError::io("x", "write it", io::ErrorKind::QuotaExceeded.into()).is_full());
        assert!(!FileError::io("x", "write it", io::ErrorKind::PermissionDenied.into()).is_full());
        assert!(FileError::parquet("x", "write it", full().into()).is_full());
        let other = parquet::errors::ParquetError::General("odd".into());
        assert!(!FileError::parquet("x", "write it", other).is_full());
    }

    /// `/dev/full` refuses every write with ENOSPC: the real thing without a small disk.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernels_own_enospc_is_recognised() {
        let mut file = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = file.write_all(b"x").unwrap_err();
        assert!(is_full(&error), "{error:?}");
    }

    #[test]
    fn a_linked_file_outlives_the_first_name_and_gives_way_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, b"rows").unwrap();
        fs::write(dir.path().join("b.tmp"), b"left behind").unwrap();
        fs::write(&b, b"before").unwrap();
        link_or_copy(&a, &b).unwrap();
        link_or_copy(&a, &b).unwrap();
        assert_eq!(names(dir.path()), ["a", "b"]);
        write_atomic(&a, |w| w.write_all(b"other rows")).unwrap();
        assert_eq!(fs::read(&b).unwrap(), b"rows");
        assert!(link_or_copy(&dir.path().join("none"), &b).unwrap_err().to_string().contains("cannot open it"));
    }

    #[test]
    fn leftovers_of_a_killed_process_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("chunk-000001.parquet.tmp"), b"half").unwrap();
        fs::write(dir.path().join("chunk-000000.parquet"), b"whole").unwrap();
        remove_leftovers(dir.path()).unwrap();
        assert_eq!(names(dir.path()), ["chunk-000000.parquet"]);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = write_atomic("/nonexistent-folder/a.txt", |_| Ok(())).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent-folder/a.txt: cannot create it"), "{error}");
    }
}
