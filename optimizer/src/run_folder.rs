//! The folder of one run: its name, its places, and the lock that lets one process at a time own it.
//!
//! Leaves to others what the files hold.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::atomic::{FileError, remove_leftovers, write_atomic};
use crate::chunk;
use crate::shard::Shard;

/// A run folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The name is no folder name.
    #[error("`{name}` cannot name a run folder: {rule}")]
    Name {
        /// The name found.
        name: String,
        /// What it must be.
        rule: &'static str,
    },
    /// Another process is at work in it.
    #[error("{}: in use by another omega-opt ({owner})", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Who: `process 4711, since 2026-01-01T00:00:00Z`.
        owner: String,
    },
    /// What ran here before is not what is to run now, although the name says so.
    #[error("{}: made by another grid:\n{}", path.display(), differences.join("\n"))]
    LockFile {
        /// `grid.lock.yaml`.
        path: PathBuf,
        /// Lines that differ, `-` there, `+` now.
        differences: Vec<String>,
    },
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

impl FolderError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::InUse { .. } => Some("wait for it, stop it, or choose another folder with --out"),
            Self::LockFile { .. } => Some("--fresh drops its chunks and starts anew"),
            Self::Name { .. } => None,
            Self::File(error) => error.hint().or(Some("--out DIR names another output root")),
        }
    }
}

/// `<name>-<hash8>`, refusing a name that would leave the output root or cannot be a folder everywhere.
pub fn folder_name(name: &str, hash8: &str) -> Result<String, FolderError> {
    let refuse = |rule| Err(FolderError::Name { name: name.to_owned(), rule });
    if name.trim().is_empty() {
        return refuse("it must not be empty");
    }
    if name.starts_with(['.', ' ']) || name.ends_with([' ']) {
        return refuse("it must not begin with a dot or with a blank at either end");
    }
    if name.len() > 100 {
        return refuse("it must not be longer than 100 bytes");
    }
    if name.chars().any(|c| c.is_control() || "/\\:*?\"<>|".contains(c)) {
        return refuse("it must not hold any of / \\ : * ? \" < > | or control characters");
    }
    Ok(format!("{name}-{hash8}"))
}

/// A run folder owned by this process until dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Holds the kernel's lock; freed when the process dies, however it dies.
    _lock: File,
}

impl RunFolder {
    /// Opens or creates `<root>/<name>-<hash8>`, takes its lock, clears what a killed process left half-written, and
    /// makes sure that files can be written. `fresh` drops its chunks and its lock file.
    pub fn open(root: &Path, name: &str, hash8: &str, fresh: bool) -> Result<Self, FolderError> {
        Self::open_shard(root, name, hash8, None, fresh)
    }

    /// As [`RunFolder::open`]; a shard has a folder of its own beside it, so that shards of one run may share a root.
    pub fn open_shard(
        root: &Path,
        name: &str,
        hash8: &str,
        shard: Option<Shard>,
        fresh: bool,
    ) -> Result<Self, FolderError> {
        let name = folder_name(name, hash8)?;
        let path = root.join(shard.map_or_else(|| name.clone(), |shard| shard.folder_name(&name)));
        for dir in [path.join("chunks"), path.join("logs")] {
            fs::create_dir_all(&dir).map_err(|e| FileError::io(&dir, "create it", e))?;
        }
        let lock = take_lock(&path)?;
        let folder = Self { path, _lock: lock };
        remove_leftovers(&folder.path)?;
        remove_leftovers(&folder.chunks())?;
        folder.probe()?;
        if fresh {
            folder.drop_chunks()?;
        }
        Ok(folder)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Folder of chunk files.
    pub fn chunks(&self) -> PathBuf {
        self.path.join("chunks")
    }

    /// File of one chunk.
    pub fn chunk(&self, index: u64) -> PathBuf {
        self.chunks().join(chunk::file_name(index))
    }

    /// What really ran, fully resolved.
    pub fn grid_lock(&self) -> PathBuf {
        self.path.join("grid.lock.yaml")
    }

    /// Engine version, fingerprints, counts, seeds.
    pub fn manifest(&self) -> PathBuf {
        self.path.join("manifest.json")
    }

    /// Every row, ranked.
    pub fn leaderboard_parquet(&self) -> PathBuf {
        self.path.join("leaderboard.parquet")
    }

    /// The best rows, for people.
    pub fn leaderboard_csv(&self) -> PathBuf {
        self.path.join("leaderboard.csv")
    }

    /// The rows of the finished chunks, ranked, where a sweep ended before all of them were there.
    pub fn partial_parquet(&self) -> PathBuf {
        self.path.join("leaderboard.partial.parquet")
    }

    /// The best of them, for people.
    pub fn partial_csv(&self) -> PathBuf {
        self.path.join("leaderboard.partial.csv")
    }

    /// What they are part of, and how large a part.
    pub fn partial_manifest(&self) -> PathBuf {
        self.path.join("manifest.partial.json")
    }

    /// Removes the partial files: the whole is there.
    pub fn remove_partial(&self) -> Result<(), FileError> {
        [self.partial_parquet(), self.partial_csv(), self.partial_manifest()].into_iter().try_for_each(remove_if_there)
    }

    /// Folder of the artefacts of the best rows.
    pub fn top(&self) -> PathBuf {
        self.path.join("top")
    }

    /// Times, rates, retries.
    pub fn events(&self) -> PathBuf {
        self.path.join("events.jsonl")
    }

    /// Folder of logs.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Text of `grid.lock.yaml`, if there is one.
    pub fn read_grid_lock(&self) -> Result<Option<String>, FileError> {
        let path = self.grid_lock();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(FileError::io(path, "read it", e)),
        }
    }

    /// Writes `grid.lock.yaml`. One that is there must say the same, but for the top-level keys of `may_change`:
    /// what they hold (objective, gates, limits, output) decides no row of a chunk, so a second start may alter it. The
    /// chunk size may change only while there are no chunks.
    pub fn write_grid_lock(&self, text: &str, may_change: &[&str]) -> Result<(), FolderError> {
        let path = self.grid_lock();
        if let Some(before) = self.read_grid_lock()? {
            if before == text {
                return Ok(());
            }
            // Finished chunks are of one size: another one would make them worthless. `limits` holds nothing else.
            let keeps_chunks = self.has_chunks()?;
            let may_change: Vec<&str> =
                may_change.iter().copied().filter(|key| !(keeps_chunks && *key == "limits")).collect();
            let differences = lock_differences(&before, text, &may_change);
            if !differences.is_empty() {
                return Err(FolderError::LockFile { path, differences });
            }
        }
        Ok(write_atomic(path, |w| w.write_all(text.as_bytes()))?)
    }

    fn has_chunks(&self) -> Result<bool, FileError> {
        let chunks = self.chunks();
        let mut entries = fs::read_dir(&chunks).map_err(|e| FileError::io(&chunks, "read it", e))?;
        Ok(entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().and_then(chunk::index_of).is_some())))
    }

    /// Writes `manifest.json`.
    pub fn write_manifest(&self, text: &str) -> Result<(), FileError> {
        write_atomic(self.manifest(), |w| w.write_all(text.as_bytes()))
    }

    /// Fails now rather than after hours if the folder takes no files.
    fn probe(&self) -> Result<(), FileError> {
        let path = self.chunks().join("probe");
        write_atomic(&path, |w| w.write_all(b"writable?\n"))?;
        fs::remove_file(&path).map_err(|e| FileError::io(path, "remove it", e))
    }

    fn drop_chunks(&self) -> Result<(), FileError> {
        let chunks = self.chunks();
        fs::remove_dir_all(&chunks).map_err(|e| FileError::io(&chunks, "remove it", e))?;
        fs::create_dir_all(&chunks).map_err(|e| FileError::io(&chunks, "create it", e))?;
        self.remove_partial()?;
        remove_if_there(self.grid_lock())
    }
}

/// Removes a file; one that is not there is as good as removed.
pub(crate) fn remove_if_there(path: PathBuf) -> Result<(), FileError> {
    match fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(FileError::io(path, "remove it", e)),
        _ => Ok(()),
    }
}

/// Makes this process the owner of a folder until the file returned is dropped. The lock file stands under `logs/`,
/// which must be there: its contents may differ between two equal runs.
pub(crate) fn take_lock(folder: &Path) -> Result<File, FolderError> {
    let path = folder.join("logs").join("owner.lock");
    let failed = |e| FileError::io(&path, "lock it", e);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // The owner may be about to write its name; who it is matters less than that there is one.
            let owner = match file.read_to_string(&mut text) {
                Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
                _ => "its process is not known".to_owned(),
            };
            return Err(FolderError::InUse { path: folder.to_owned(), owner });
        }
        Err(TryLockError::Error(e)) => return Err(failed(e).into()),
    }
    let owner = format!("process {}, since {:.0}\n", std::process::id(), jiff::Timestamp::now());
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(owner.as_bytes())).map_err(failed)?;
    Ok(file)
}

/// Lines in which two lock files differ, outside the top-level keys of `may_change`.
pub(crate) fn lock_differences(before: &str, now: &str, may_change: &[&str]) -> Vec<String> {
    line_differences(&fixed_lines(before, may_change), &fixed_lines(now, may_change))
}

/// Lines outside the blocks of the top-level keys named.
fn fixed_lines<'a>(text: &'a str, may_change: &[&str]) -> Vec<&'a str> {
    let mut skipping = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        let at_top = line.starts_with(|c: char| !c.is_whitespace() && c != '-' && c != '#' && c != '}' && c != ']');
        if at_top {
            let key = line.split(':').next().unwrap_or_default().trim_matches(['"', '\'', ' ']);
            skipping = may_change.contains(&key);
        }
        if !skipping {
            lines.push(line);
        }
    }
    lines
}

/// Most differing lines told.
const SHOWN: usize = 12;

/// Lines between the common beginning and the common end, `-` of the one and `+` of the other.
fn line_differences(before: &[&str], now: &[&str]) -> Vec<String> {
    let head = before.iter().zip(now).take_while(|(a, b)| a == b).count();
    let (before, now) = (&before[head..], &now[head..]);
    let tail = before.iter().rev().zip(now.iter().rev()).take_while(|(a, b)| a == b).count();
    let (before, now) = (&before[..before.len() - tail], &now[..now.len() - tail]);
    let removed = before.iter().map(|line| format!("- {line}"));
    let added = now.iter().map(|line| format!("+ {line}"));
    let mut lines: Vec<String> = removed.take(SHOWN).chain(added.take(SHOWN)).collect();
    let left_out = before.len().saturating_sub(SHOWN) + now.len().saturating_sub(SHOWN);
    if left_out > 0 {
        lines.push(format!("  … and {left_out} more lines"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_told_who_the_first_is() {
        let root = tempfile::tempdir().unwrap();
        let first = RunFolder::open(root.path(), "grid", "0123abcd", false).unwrap();
        let error = RunFolder::open(root.path(), "grid", "0123abcd", false).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, FolderError::InUse { .. }));
        assert!(text.contains(&format!("process {}, since 20", std::process::id())), "{text}");
        drop(first);
        RunFolder::open(root.path(), "grid", "0123abcd", false).unwrap();
    }

    #[test]
    fn names_that_leave_the_root_are_refused() {
        assert_eq!(folder_name("xagusd z-score", "0123abcd").unwrap(), "xagusd z-score-0123abcd");
        for name in ["", " ", "../up", "a/b", "a\\b", ".hidden", "line\nbreak", &"x".repeat(101)] {
            assert!(matches!(folder_name(name, "0"), Err(FolderError::Name { .. })), "{name:?}");
        }
    }

    #[test]
    fn a_root_that_takes_no_files_is_refused_before_work_starts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("not-a-folder");
        fs::write(&file, b"x").unwrap();
        let error = RunFolder::open(&file, "grid", "0123abcd", false).unwrap_err();
        assert!(error.to_string().contains("not-a-folder"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"x");
    }

    #[test]
    fn a_lock_file_may_change_its_objective_but_not_its_axes() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(root.path(), "grid", "0123abcd", false).unwrap();
        let before = "name: a\nparameters:\n  x: [1, 2]\nobjective:\n  maximize: p\ngates: []\n";
        folder.write_grid_lock(before, &["objective", "gates"]).unwrap();
        let other_objective = before.replace("maximize: p", "minimize: q\n  and: more").replace("[]", "[\"a > 1\"]");
        folder.write_grid_lock(&other_objective, &["objective", "gates"]).unwrap();
        assert_eq!(folder.read_grid_lock().unwrap().as_deref(), Some(other_objective.as_str()));
        let error = folder.write_grid_lock(&before.replace("[1, 2]", "[1, 3]"), &["objective", "gates"]).unwrap_err();
        let FolderError::LockFile { differences, .. } = &error else { panic!("{error}") };
        assert_eq!(differences[..], ["-   x: [1, 2]", "+   x: [1, 3]"]);
        assert_eq!(folder.read_grid_lock().unwrap().as_deref(), Some(other_objective.as_str()));
    }

    #[test]
    fn fresh_drops_chunks_and_an_ordinary_start_keeps_them() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(root.path(), "grid", "0123abcd", false).unwrap();
        let (chunk, half) = (folder.chunk(3), folder.chunks().join("chunk-000004.parquet.tmp"));
        fs::write(&chunk, b"x").unwrap();
        fs::write(&half, b"x").unwrap();
        folder.write_grid_lock("name: a\n", &[]).unwrap();
        drop(folder);
        let folder = RunFolder::open(root.path(), "grid", "0123abcd", false).unwrap();
        assert!(chunk.exists() && !half.exists() && folder.grid_lock().exists());
        drop(folder);
        let folder = RunFolder::open(root.path(), "grid", "0123abcd", true).unwrap();
        assert!(!chunk.exists() && !folder.grid_lock().exists() && folder.chunks().exists());
    }
}
