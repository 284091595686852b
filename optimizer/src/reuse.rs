//! Finished rows of earlier runs that a run need not evaluate again: which chunk file holds the row of a setting.
//!
//! A row depends on data, resolved config and engine version only. So the row of another grid is that of this one if
//! the parts of its chunk's fingerprint that are no part of the setting are the same, and its config hash and seed are
//! those of the setting. Earlier folders are read and never changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::chunk::{Chunk, ChunkError, Hashes, index_of, read_chunk, read_hashes, read_header};
use crate::error::CommandError;
use crate::fingerprint::{Fingerprint, PartDifference, unhex};
use crate::plan::memory::Ledger;
use crate::plan::places::Places;
use crate::row::RowSchema;
use crate::shard::Shard;
use crate::sweep::usage;

/// Parts of a fingerprint that say which settings a run has, not what their rows are.
const SETTINGS: [&str; 4] = ["config", "space", "search", "seed"];

/// `rules_hash` of a setting that does not resolve: its row costs nothing.
const UNRESOLVED: &str = "0000000000000000";

/// What differs between two runs beside their settings; if nothing does, they have the same rows for the same settings.
pub(crate) fn differences(own: &Fingerprint, earlier: &Fingerprint) -> Vec<PartDifference> {
    let mut differences = own.differences(earlier);
    differences.retain(|difference| !SETTINGS.contains(&difference.part.as_str()));
    differences
}

/// A setting looked for in a row of an earlier chunk.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Row of the chunk.
    pub row: usize,
    /// SHA-256 of the setting's config.
    pub config_hash: &'a [u8; 32],
    /// Seed of its slippage stream.
    pub rng_seed: u64,
}

impl Wanted<'_> {
    /// True of the setting's own row.
    pub(crate) fn is(&self, config_hash: &[u8; 32], rng_seed: u64) -> bool {
        self.config_hash == config_hash && self.rng_seed == rng_seed
    }
}

/// Where earlier runs are looked for, and what for.
pub(crate) struct Search<'a> {
    /// Folders named by the user.
    pub(crate) named: &'a [PathBuf],
    /// Folder of the run itself; its neighbours are looked at.
    pub(crate) own: &'a Path,
    /// What decides the rows of the run.
    pub(crate) fingerprint: &'a Fingerprint,
    /// Threads to read with.
    pub(crate) threads: usize,
}

/// Rows of earlier runs, by the config hash of their setting.
pub struct Earlier {
    files: Vec<PathBuf>,
    places: Places,
    read_bytes: usize,
    notes: Vec<String>,
    warnings: Vec<String>,
    reused: AtomicU64,
}

impl Earlier {
    /// No rows.
    pub(crate) fn none(ledger: &Ledger) -> Self {
        Self {
            files: Vec::new(),
            places: Places::new(ledger.clone(), 0),
            read_bytes: 0,
            notes: Vec::new(),
            warnings: Vec::new(),
            reused: AtomicU64::new(0),
        }
    }

    /// Finds the rows that may be reused, as many as fit into `most` bytes of the ledger. What cannot serve is left
    /// out: damaged, of other data, of another engine version.
    pub(crate) fn find(search: &Search<'_>, ledger: &Ledger, most: usize) -> Self {
        let mut found = Self { places: Places::new(ledger.clone(), most), ..Self::none(ledger) };
        let mut files = Vec::new();
        for (folder, named) in search.folders() {
            match chunks_of(&folder, search.fingerprint) {
                Ok(chunks) if chunks.is_empty() && named => {
                    found.warnings.push(format!("{} is not reused: it has no finished chunk", folder.display()));
                }
                Ok(chunks) => files.extend(chunks),
                Err(reason) => {
                    let note = format!("{} is not reused: {reason}", folder.display());
                    if named { found.warnings.push(note) } else { found.notes.push(note) }
                }
            }
        }
        // Without further threads everything is still done, only later.
        let pool =
            rayon::ThreadPoolBuilder::new().num_threads(search.threads).build().ok().filter(|_| !files.is_empty());
        for some in files.chunks(4 * search.threads.max(1)) {
            let read = |path: &PathBuf| read_hashes(path);
            let hashes: Vec<Result<Hashes, ChunkError>> = match &pool {
                Some(pool) => pool.install(|| some.par_iter().map(read).collect()),
                None => some.iter().map(read).collect(),
            };
            for (path, hashes) in some.iter().zip(hashes) {
                match hashes {
                    Ok(hashes) => found.add(path, &hashes, search.fingerprint),
                    Err(error) => found.notes.push(format!("not reused: {error}")),
                }
            }
        }
        found
    }

    fn add(&mut self, path: &Path, hashes: &Hashes, fingerprint: &Fingerprint) {
        if !differences(fingerprint, &hashes.header.fingerprint).is_empty() {
            return;
        }
        let file = self.files.len() as u64;
        let mut full = false;
        for (row, (config_hash, rules_hash)) in hashes.rows().enumerate() {
            let Some(hash) = unhex::<32>(config_hash).filter(|_| rules_hash != UNRESOLVED) else { continue };
            let key = key_of(&hash);
            if self.places.get(&key).is_none() && !self.places.insert(key, file, row) {
                full = true;
                break;
            }
        }
        if full {
            self.notes.push(format!("{}: no memory to reuse all of it", path.display()));
        }
        self.read_bytes = self.read_bytes.max(hashes.bytes);
        self.files.push(path.to_owned());
    }

    /// Chunk file and row that hold a setting, as far as the first bytes of its hash tell.
    pub(crate) fn place(&self, config_hash: &[u8; 32]) -> Option<(u32, u32)> {
        self.places.get(&key_of(config_hash))
    }

    /// A chunk file by the number [`Earlier::place`] gives.
    pub(crate) fn file(&self, number: u32) -> Option<&Path> {
        self.files.get(number as usize).map(PathBuf::as_path)
    }

    /// There is nothing to reuse.
    pub fn is_empty(&self) -> bool {
        self.places.len() == 0
    }

    /// Memory that reading the largest of the files takes.
    pub(crate) fn read_bytes(&self) -> usize {
        self.read_bytes
    }

    /// Folders and files found that cannot serve, and why: for the log.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Folders named by the user that cannot serve, and why.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Counts trials whose rows were reused.
    pub(crate) fn count(&self, trials: u64) {
        self.reused.fetch_add(trials, Ordering::Relaxed);
    }

    /// Trials whose rows were reused.
    pub fn reused(&self) -> u64 {
        self.reused.load(Ordering::Relaxed)
    }

    /// Gives the memory back; what was counted stays.
    pub(crate) fn release(&mut self) {
        self.places.clear();
    }
}

fn key_of(config_hash: &[u8; 32]) -> [u8; 8] {
    let mut key = [0; 8];
    key.copy_from_slice(&config_hash[..8]);
    key
}

impl Search<'_> {
    /// Folders to look at, and whether they were named: those first, then the neighbours by name. The other shards of the
    /// same cut have other chunks and are left out.
    fn folders(&self) -> Vec<(PathBuf, bool)> {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut seen = vec![real(self.own)];
        let mut folders = Vec::new();
        let named = self.named.iter().map(|path| (path.clone(), true));
        let cut = |path: &Path| {
            let (run, shard) = Shard::of_folder_name(path.file_name()?.to_str()?)?;
            Some((run.to_owned(), shard.count()))
        };
        let own_cut = cut(self.own);
        let root = self.own.parent().map(Path::to_owned).unwrap_or_default();
        // A relative root of one part has the empty path for a parent.
        let root = if root.as_os_str().is_empty() { PathBuf::from(".") } else { root };
        let mut found: Vec<PathBuf> =
            fs::read_dir(&root).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
        found.retain(|path| path.join("chunks").is_dir() && (own_cut.is_none() || cut(path) != own_cut));
        found.sort();
        for (path, named) in named.chain(found.into_iter().map(|path| (path, false))) {
            let real = real(&path);
            if !seen.contains(&real) {
                seen.push(real);
                folders.push((path, named));
            }
        }
        folders
    }
}

/// Chunk files of a folder, by index, if its rows may serve; none in a folder without any.
fn chunks_of(folder: &Path, fingerprint: &Fingerprint) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder.join("chunks")).map_err(|error| error.to_string())?;
    let indexed = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        Some((index_of(entry.file_name().to_str()?)?, entry.path()))
    });
    let mut chunks: Vec<(u64, PathBuf)> = indexed.collect();
    chunks.sort();
    let Some((_, first)) = chunks.first() else { return Ok(Vec::new()) };
    // A damaged file says nothing of the others.
    let header = chunks.iter().find_map(|(_, path)| read_header(path).ok());
    let Some((header, _)) = header else {
        return Err(read_header(first).err().map_or_else(|| "damaged".to_owned(), |error| error.to_string()));
    };
    let differences = differences(fingerprint, &header.fingerprint);
    if !differences.is_empty() {
        return Err(differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
    }
    Ok(chunks.into_iter().map(|(_, path)| path).collect())
}

/// Refuses folders named for reuse that are none.
///
/// # Errors
/// The first of them.
pub(crate) fn refuse_unless_runs(named: &[PathBuf]) -> Result<(), CommandError> {
    match named.iter().find(|path| !path.join("grid.lock.yaml").is_file()) {
        None => Ok(()),
        Some(path) => Err(usage(
            "--reuse",
            format!("{} is no run folder: grid.lock.yaml is not there", path.display()),
            "a run folder is <output root>/<name>-<hash8>, as a sweep names it at its end",
        )),
    }
}

/// A chunk of an earlier sweep, whole and checked, and its columns; none if it cannot serve.
pub(crate) fn read_rows(path: &Path, fingerprint: &Fingerprint) -> Option<(RowSchema, Chunk)> {
    let (header, schema) = read_header(path).ok()?;
    if !differences(fingerprint, &header.fingerprint).is_empty() {
        return None;
    }
    let schema = RowSchema::of_chunk(&schema)?;
    let chunk = read_chunk(path, &schema, &header.fingerprint, header.trials()).ok()?;
    Some((schema, chunk))
}
