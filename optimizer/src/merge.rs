//! Run folders of one run united: what each holds, that it is the same run, and that together they are all of it.
//!
//! Nothing is evaluated or ranked here. The chunks are put into the folder of the whole run, and the run itself is
//! opened there, finds every chunk finished and does what it always does at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;

use crate::atomic::{FileError, link_or_copy, sync_dir};
use crate::chunk::{ChunkError, ChunkPlan, index_of, inspect, read_header};
use crate::fingerprint::{Fingerprint, PartDifference, shorten};
use crate::run_folder::{RunFolder, lock_differences};
use crate::shard::Shard;

/// Keys of the lock file that may differ between the folders: those of the first count.
const MAY_DIFFER: [&str; 4] = ["objective", "gates", "output", "walk_forward"];

/// Part of the fingerprint that only walk-forwards have.
const WINDOWS: &str = "windows";

/// Most chunks named one by one.
const SHOWN: usize = 12;

/// Folders could not be united.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// Not what a run writes.
    #[error("{}: is no run folder: grid.lock.yaml is not there", .0.display())]
    NoRun(PathBuf),
    /// Folders of more than one run.
    #[error("{}", foreign_text(.first, .others))]
    Foreign {
        /// The first folder named.
        first: PathBuf,
        /// Those of another run than it.
        others: Vec<Other>,
    },
    /// Chunks that no folder holds.
    #[error("{}", missing_text(.chunks, *.of, *.shards))]
    Missing {
        /// Their indices, ascending.
        chunks: Vec<u64>,
        /// Chunks of the whole run.
        of: u64,
        /// Shards the run was cut into, if the folders agree on it.
        shards: Option<u64>,
        /// The command that supplies them.
        command: &'static str,
    },
    /// Chunks of which no sound copy is there.
    #[error("{}", damaged_text(.chunks))]
    Damaged {
        /// Index, file and what is wrong with it, ascending.
        chunks: Vec<(u64, PathBuf, String)>,
    },
    /// Two sound files of one chunk hold different rows.
    #[error("chunk {index} is not the same in {} and {}", .first.display(), .second.display())]
    Unequal {
        /// Index of the chunk.
        index: u64,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The run cannot be finished here: bars or program are not those the folders were made with.
    #[error("{}: cannot be finished here:{}", .folder.display(), lines(.differences.iter().map(|part| describe(part, "the folder has", "here it is"))))]
    Elsewhere {
        /// The first folder named.
        folder: PathBuf,
        /// Parts of the fingerprint that differ; `here` is the folder's.
        differences: Vec<PartDifference>,
    },
    /// A chunk of a newer format, or one the system does not give.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A folder of another run than the first one.
#[derive(Debug)]
pub struct Other {
    /// The folder.
    pub path: PathBuf,
    /// Parts of the fingerprint that differ; `here` is the first folder's.
    pub differences: Vec<PartDifference>,
    /// Lines of the lock files that differ.
    pub lock: Vec<String>,
}

impl MergeError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoRun(_) => Some(
                "a run folder is <output root>/<name>-<hash8>, with .shard-<i>-of-<n> behind it for a shard".into(),
            ),
            Self::Foreign { .. } => Some("merge the folders of one run; other runs have other rows".into()),
            Self::Missing { chunks, shards: Some(count), command, .. } => {
                let shard = Shard::of_chunk(chunks.first().copied().unwrap_or(0), *count);
                Some(format!("`omega-opt {command} GRID --shard {shard}` starts or continues one; then merge again"))
            }
            Self::Missing { command, .. } => {
                Some(format!("name the folders that hold them, or finish the run with `omega-opt {command} GRID`"))
            }
            Self::Damaged { .. } => Some(
                "start the sweep or shard of that folder again: it sets the chunk aside and evaluates it anew".into(),
            ),
            Self::Unequal { .. } => {
                Some("merge without one of the folders; `omega-opt verify` tells whose rows can be recomputed".into())
            }
            Self::Elsewhere { .. } => Some("merge where the same bars are, with the omega-opt of the shards".into()),
            Self::Chunk(_) => None,
            Self::File(error) => error.hint().map(str::to_owned),
        }
    }
}

fn lines(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| format!("\n  {line}")).collect()
}

fn describe(part: &PartDifference, here: &str, there: &str) -> String {
    let show = |value: &Option<String>| value.as_deref().map_or_else(|| "nothing".to_owned(), shorten);
    format!("{}: {here} {}, {there} {}", part.part, show(&part.here), show(&part.there))
}

fn foreign_text(first: &Path, others: &[Other]) -> String {
    let of = |other: &Other| {
        let parts = other.differences.iter().map(|part| describe(part, "the one has", "the other"));
        let lock = other.lock.iter().cloned();
        format!("{} and {} are not of the same run:{}", first.display(), other.path.display(), lines(parts.chain(lock)))
    };
    others.iter().map(of).collect::<Vec<_>>().join("\n")
}

/// `3, 10, 17 and 40 more`.
fn named(chunks: &[u64]) -> String {
    let mut text = chunks.iter().take(SHOWN).map(u64::to_string).collect::<Vec<_>>().join(", ");
    if chunks.len() > SHOWN {
        let _ = write!(text, " and {} more", chunks.len() - SHOWN);
    }
    text
}

fn missing_text(chunks: &[u64], of: u64, shards: Option<u64>) -> String {
    let plural = |chunks: &[u64]| if chunks.len() == 1 { "chunk" } else { "chunks" };
    let head = format!("no folder holds {} of the {of} chunks:", chunks.len());
    let Some(count) = shards else { return format!("{head} {} {}", plural(chunks), named(chunks)) };
    let mut of_shard: BTreeMap<Shard, Vec<u64>> = BTreeMap::new();
    chunks.iter().for_each(|chunk| of_shard.entry(Shard::of_chunk(*chunk, count)).or_default().push(*chunk));
    let rows = of_shard.iter().map(|(shard, own)| format!("shard {shard}: {} {}", plural(own), named(own)));
    let rest = of_shard.len().saturating_sub(SHOWN);
    let rest = (rest > 0).then(|| format!("… and {rest} more shards"));
    format!("{head}{}", lines(rows.take(SHOWN).chain(rest)))
}

fn damaged_text(chunks: &[(u64, PathBuf, String)]) -> String {
    let rows = chunks.iter().map(|(index, path, reason)| format!("chunk {index}: {}: {reason}", path.display()));
    let rest = (chunks.len() > SHOWN).then(|| format!("… and {} more", chunks.len() - SHOWN));
    format!("damaged in every folder that holds them:{}", lines(rows.take(SHOWN).chain(rest)))
}

/// What a run folder says of itself.
struct Folder {
    path: PathBuf,
    lock: String,
    /// None before its first chunk.
    fingerprint: Option<Fingerprint>,
    shard: Option<Shard>,
    /// Chunk files, sound or not.
    chunks: BTreeMap<u64, PathBuf>,
}

impl Folder {
    fn look(path: &Path) -> Result<Self, MergeError> {
        let lock_path = path.join("grid.lock.yaml");
        if !lock_path.is_file() {
            return Err(MergeError::NoRun(path.to_owned()));
        }
        let lock = fs::read_to_string(&lock_path).map_err(|e| FileError::io(&lock_path, "read it", e))?;
        let dir = path.join("chunks");
        let mut chunks = BTreeMap::new();
        if dir.is_dir() {
            for entry in fs::read_dir(&dir).map_err(|e| FileError::io(&dir, "list it", e))? {
                let entry = entry.map_err(|e| FileError::io(&dir, "list it", e))?;
                if let Some(index) = entry.file_name().to_str().and_then(index_of) {
                    chunks.insert(index, entry.path());
                }
            }
        }
        let manifest = manifest_of(path);
        let of_chunks =
            || chunks.values().find_map(|chunk| read_header(chunk).ok()).map(|(header, _)| header.fingerprint);
        let shard = manifest["shard"].as_str().and_then(|text| text.parse().ok());
        Ok(Self {
            fingerprint: fingerprint_of(&manifest).or_else(of_chunks),
            shard,
            path: path.to_owned(),
            lock,
            chunks,
        })
    }
}

/// The folder's manifest; null where there is none that can be read.
fn manifest_of(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("manifest.json")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

fn fingerprint_of(manifest: &Value) -> Option<Fingerprint> {
    let parts = manifest["fingerprint"].as_object()?.iter();
    Some(Fingerprint::new(parts.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))))
}

/// Folders of one and the same run.
pub struct Folders {
    folders: Vec<Folder>,
    fingerprint: Fingerprint,
    warnings: Vec<String>,
}

impl Folders {
    /// Looks at the folders and makes sure that they are of one run. A folder named twice counts once. Nothing in them
    /// is changed.
    ///
    /// # Errors
    /// No run folder, or folders of different runs.
    pub fn look(paths: &[PathBuf]) -> Result<Self, MergeError> {
        let mut seen = BTreeSet::new();
        let distinct = paths.iter().filter(|path| seen.insert(fs::canonicalize(path).unwrap_or((*path).clone())));
        let folders: Vec<Folder> = distinct.map(|path| Folder::look(path)).collect::<Result<_, _>>()?;
        let Some((first, rest)) = folders.split_first() else { return Err(MergeError::NoRun(PathBuf::new())) };
        let fingerprint = folders.iter().find_map(|folder| folder.fingerprint.clone()).unwrap_or_default();
        let compare = |folder: &Folder| {
            let differences = folder.fingerprint.as_ref().map(|own| fingerprint.differences(own)).unwrap_or_default();
            let lock = lock_differences(&first.lock, &folder.lock, &MAY_DIFFER);
            Other { path: folder.path.clone(), differences, lock }
        };
        let others: Vec<Other> =
            rest.iter().map(compare).filter(|other| !other.differences.is_empty() || !other.lock.is_empty()).collect();
        if !others.is_empty() {
            return Err(MergeError::Foreign { first: first.path.clone(), others });
        }
        let differs = rest.iter().filter(|folder| folder.lock != first.lock);
        let warnings = differs.map(|folder| {
            format!(
                "{} has another objective, gates or output than {}, whose count",
                folder.path.display(),
                first.path.display()
            )
        });
        Ok(Self { warnings: warnings.collect(), fingerprint, folders })
    }

    /// The grid as the first folder ran it.
    pub fn lock_path(&self) -> PathBuf {
        self.first().join("grid.lock.yaml")
    }

    /// Where the whole run goes unless `--out` says otherwise: beside the first folder.
    pub fn root(&self) -> PathBuf {
        let first = self.first();
        match (first.file_name(), first.parent()) {
            (Some(_), Some(parent)) => parent.to_owned(),
            // `.`, `..` and the like.
            _ => fs::canonicalize(first).ok().and_then(|path| Some(path.parent()?.to_owned())).unwrap_or_default(),
        }
    }

    /// Number of distinct folders.
    pub fn count(&self) -> usize {
        self.folders.len()
    }

    /// The run is a walk-forward.
    pub fn is_walk_forward(&self) -> bool {
        self.fingerprint.parts().any(|(name, _)| name == WINDOWS)
    }

    fn first(&self) -> &Path {
        self.folders.first().map_or(Path::new(""), |folder| &folder.path)
    }

    /// Number of shards, if every folder that is a shard is one of so many.
    fn shards(&self) -> Option<u64> {
        let mut counts = self.folders.iter().filter_map(|folder| folder.shard).map(Shard::count);
        let first = counts.next()?;
        counts.all(|count| count == first).then_some(first)
    }

    /// The chunks of the whole run, each read and found sound on up to `threads` threads, one in memory on each.
    ///
    /// # Errors
    /// Chunks that are missing, damaged in every folder that holds them, of another run, or not the same in two folders.
    pub fn pieces(mut self, plan: &ChunkPlan, threads: usize) -> Result<Pieces, MergeError> {
        let holders =
            |index: &u64| self.folders.iter().filter_map(|folder| folder.chunks.get(index)).collect::<Vec<_>>();
        let missing: Vec<u64> = (0..plan.count()).filter(|index| holders(index).is_empty()).collect();
        if !missing.is_empty() {
            let command = if self.is_walk_forward() { "walkforward" } else { "sweep" };
            return Err(MergeError::Missing { chunks: missing, of: plan.count(), shards: self.shards(), command });
        }
        let look = |index: u64| self.look_at(index, &holders(&index), plan);
        let found: Vec<Result<Found, MergeError>> = match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
            Ok(pool) => pool.install(|| (0..plan.count()).into_par_iter().map(look).collect()),
            // Without further threads everything is still done, only later.
            Err(_) => (0..plan.count()).map(look).collect(),
        };
        let (mut chunks, mut damaged, mut set_right) = (Vec::with_capacity(found.len()), Vec::new(), Vec::new());
        for (index, found) in (0..).zip(found) {
            let Found { sound, unsound } = found?;
            match sound {
                Some(piece) => {
                    set_right.extend(unsound.into_iter().map(|(path, reason)| {
                        let (path, used) = (path.display(), piece.path.display());
                        format!("{path} is damaged ({reason}): {used} is used")
                    }));
                    chunks.push(piece);
                }
                None => damaged.extend(unsound.into_iter().map(|(path, reason)| (index, path, reason))),
            }
        }
        if !damaged.is_empty() {
            return Err(MergeError::Damaged { chunks: damaged });
        }
        self.warnings.extend(set_right);
        let lock = self.folders.first().map(|folder| folder.lock.clone()).unwrap_or_default();
        let first = self.first().to_owned();
        Ok(Pieces { first, lock, fingerprint: self.fingerprint, chunks, warnings: self.warnings })
    }

    fn look_at(&self, index: u64, files: &[&PathBuf], plan: &ChunkPlan) -> Result<Found, MergeError> {
        let mut found = Found { sound: None, unsound: Vec::new() };
        for path in files.iter().copied() {
            let (header, digest) = match inspect(path) {
                Ok(read) => read,
                Err(ChunkError::Damaged { reason, .. }) => {
                    found.unsound.push((path.clone(), reason));
                    continue;
                }
                Err(other) => return Err(other.into()),
            };
            let differences = self.fingerprint.differences(&header.fingerprint);
            if !differences.is_empty() {
                let other = Other { path: path.clone(), differences, lock: Vec::new() };
                return Err(MergeError::Foreign { first: self.first().to_owned(), others: vec![other] });
            }
            let (held, expected) = (header.trials(), plan.trials(index));
            if held != expected {
                found.unsound.push((path.clone(), format!("holds trials {held:?}, expected {expected:?}")));
                continue;
            }
            match &found.sound {
                Some(sound) if sound.digest != digest => {
                    return Err(MergeError::Unequal { index, first: sound.path.clone(), second: path.clone() });
                }
                Some(_) => {}
                None => found.sound = Some(Piece { path: path.clone(), digest }),
            }
        }
        Ok(found)
    }
}

/// The files of one chunk.
struct Found {
    sound: Option<Piece>,
    unsound: Vec<(PathBuf, String)>,
}

/// A sound chunk.
struct Piece {
    path: PathBuf,
    digest: String,
}

/// Every chunk of a run, each found sound somewhere.
pub struct Pieces {
    first: PathBuf,
    lock: String,
    fingerprint: Fingerprint,
    /// By index.
    chunks: Vec<Piece>,
    warnings: Vec<String>,
}

impl Pieces {
    /// What is worth telling before the start.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The lock file of the first folder.
    pub(crate) fn lock(&self) -> &str {
        &self.lock
    }

    /// Makes sure that the run as it would be here is that of the folders.
    pub(crate) fn check(&self, fingerprint: &Fingerprint) -> Result<(), MergeError> {
        let differences = self.fingerprint.differences(fingerprint);
        if differences.is_empty() {
            return Ok(());
        }
        Err(MergeError::Elsewhere { folder: self.first.clone(), differences })
    }

    /// Puts the chunks into a run folder, by a second name for the same file where the file system can. One that is
    /// there already and sound stays.
    pub(crate) fn put_into(&self, folder: &RunFolder) -> Result<(), FileError> {
        for (index, piece) in (0..).zip(&self.chunks) {
            let target = folder.chunk(index);
            let there = target.exists() && inspect(&target).is_ok_and(|(_, digest)| digest == piece.digest);
            if !there {
                link_or_copy(&piece.path, &target)?;
            }
        }
        sync_dir(&folder.chunks())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::write_chunk;
    use crate::row::Row;
    use crate::row::tests::{params, row, schema};

    fn folder(root: &Path, name: &str, chunks: &[u64], change: impl Fn(&mut Row)) -> PathBuf {
        let plan = ChunkPlan::new(60, Some(20));
        let path = root.join(name);
        fs::create_dir_all(path.join("chunks")).unwrap();
        fs::write(path.join("grid.lock.yaml"), "name: grid\n").unwrap();
        for index in chunks {
            let mut rows: Vec<Row> = plan.trials(*index).map(row).collect();
            rows.iter_mut().for_each(&change);
            let done: Vec<_> = rows.iter().map(Row::done).collect();
            let file = path.join("chunks").join(crate::chunk::file_name(*index));
            write_chunk(&file, &schema(), &Fingerprint::new([("data", "d")]), &done, &mut params).unwrap();
        }
        path
    }

    fn pieces(paths: &[&PathBuf]) -> Result<Pieces, MergeError> {
        let paths: Vec<PathBuf> = paths.iter().map(|path| (*path).clone()).collect();
        Folders::look(&paths)?.pieces(&ChunkPlan::new(60, Some(20)), 2)
    }

    #[test]
    fn equal_chunks_of_two_folders_are_one_and_unequal_ones_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let a = folder(root.path(), "a", &[0, 2], |_| ());
        let b = folder(root.path(), "b", &[1, 2], |_| ());
        let other = folder(root.path(), "other", &[1, 2], |row| row.rng_seed += 1);
        let united = pieces(&[&a, &b, &a]).unwrap();
        assert_eq!((united.chunks.len(), united.warnings().len()), (3, 0));
        let MergeError::Unequal { index, first, second } = pieces(&[&a, &other]).map(drop).unwrap_err() else {
            panic!("unequal chunks were accepted")
        };
        assert_eq!((index, first.starts_with(&a), second.starts_with(&other)), (2, true, true));
    }

    /// A chunk under the name of another is no sound chunk of either.
    #[test]
    fn a_chunk_under_a_wrong_name_is_damage() {
        let root = tempfile::tempdir().unwrap();
        let a = folder(root.path(), "a", &[0, 1], |_| ());
        fs::copy(a.join("chunks/chunk-000001.parquet"), a.join("chunks/chunk-000002.parquet")).unwrap();
        let error = pieces(&[&a]).map(drop).unwrap_err();
        assert!(error.to_string().ends_with("chunk-000002.parquet: holds trials 20..40, expected 40..60"), "{error}");
    }

    #[test]
    fn long_lists_are_cut() {
        let chunks: Vec<u64> = (0..40).collect();
        assert_eq!(
            missing_text(&chunks, 50, None),
            "no folder holds 40 of the 50 chunks: chunks 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 28 more"
        );
        let text = missing_text(&chunks, 50, Some(20));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[1], lines[13]), (14, "  shard 1/20: chunks 0, 20", "  … and 8 more shards"));
        assert_eq!(missing_text(&[3], 4, Some(4)), "no folder holds 1 of the 4 chunks:\n  shard 4/4: chunk 3");
    }
}
