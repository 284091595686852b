//! Which data a result rests on: every input file hashed, and one hash over all (`data-contract.md` §13).

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::units::EpochNs;

/// One file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InputFile {
    /// `market_parquet_bid`, `market_parquet_ask`, `news_parquet`, `execution_costs_yaml`, `symbol_specs_yaml`.
    pub kind: String,
    /// Location relative to its root, `/` between the parts.
    pub path: String,
    /// SHA-256 of the raw bytes, lower-case hex.
    pub sha256: String,
    /// Rows of the file, where it has rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// First stamp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time_ns: Option<EpochNs>,
    /// Last stamp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time_ns: Option<EpochNs>,
    /// How this side of the market was made when its bars were imported, if nobody quoted it. Told, not hashed: the
    /// bytes are in the hash of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made: Option<String>,
}

impl InputFile {
    /// A file without rows, hashed from its bytes.
    pub fn of_bytes(kind: &str, path: impl Into<String>, bytes: &[u8]) -> Self {
        Self {
            kind: kind.to_owned(),
            path: path.into(),
            sha256: sha256_hex(bytes),
            rows: None,
            start_time_ns: None,
            end_time_ns: None,
            made: None,
        }
    }
}

/// Lower-case hex SHA-256.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where `path` is, told without naming the machine: relative to `root` if inside, else the bare file name.
pub(crate) fn portable(path: &Path, root: &Path) -> String {
    let absolute = |p: &Path| std::path::absolute(p).unwrap_or_else(|_| p.to_owned());
    let (path, root) = (absolute(path), absolute(root));
    let inside = path.strip_prefix(&root).ok().filter(|rest| !rest.components().any(|c| c.as_os_str() == ".."));
    let told = inside.unwrap_or_else(|| Path::new(path.file_name().unwrap_or_default()));
    told.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Version of the canonical form.
const MANIFEST_VERSION: u32 = 1;

/// The identity of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    inputs: Vec<InputFile>,
}

impl Manifest {
    /// A manifest of `inputs`, in any order.
    pub fn new(mut inputs: Vec<InputFile>) -> Self {
        inputs.sort_by(|a, b| (&a.path, &a.kind, &a.sha256).cmp(&(&b.path, &b.kind, &b.sha256)));
        inputs.dedup_by(|a, b| (&a.path, &a.kind, &a.sha256) == (&b.path, &b.kind, &b.sha256));
        Self { inputs }
    }

    /// The inputs, by path and kind.
    pub fn inputs(&self) -> &[InputFile] {
        &self.inputs
    }

    /// SHA-256 of `{"inputs":[{"kind":…,"path":…,"sha256":…},…],"manifest_version":1}`, lower-case hex. Counts,
    /// ranges and times are not part of it.
    pub fn sha256(&self) -> String {
        #[derive(Serialize)]
        struct Identity<'a> {
            kind: &'a str,
            path: &'a str,
            sha256: &'a str,
        }
        #[derive(Serialize)]
        struct Canonical<'a> {
            inputs: Vec<Identity<'a>>,
            manifest_version: u32,
        }
        let inputs = self.inputs.iter().map(|i| Identity { kind: &i.kind, path: &i.path, sha256: &i.sha256 }).collect();
        let canonical = Canonical { inputs, manifest_version: MANIFEST_VERSION };
        // Texts and an integer always have a JSON form.
        sha256_hex(&serde_json::to_vec(&canonical).unwrap_or_default())
    }

    /// Path inside the cache folder, `manifests/<sha256>.json`.
    pub fn reference(&self) -> String {
        format!("manifests/{}.json", self.sha256())
    }

    /// Writes the manifest below `cache_dir`; a file that exists stays as it is. `created_at_ns` is the caller's
    /// clock. Returns where it stands.
    pub fn write(&self, cache_dir: &Path, created_at_ns: EpochNs) -> io::Result<PathBuf> {
        #[derive(Serialize)]
        struct Document<'a> {
            created_at: String,
            created_at_ns: EpochNs,
            inputs: &'a [InputFile],
            manifest_version: u32,
        }
        let path = cache_dir.join(self.reference());
        if path.exists() {
            return Ok(path);
        }
        let folder = cache_dir.join("manifests");
        std::fs::create_dir_all(&folder)?;
        let created_at = jiff::Timestamp::from_nanosecond(i128::from(created_at_ns)).map_err(io::Error::other)?;
        let document = Document {
            created_at: created_at.to_string(),
            created_at_ns,
            inputs: &self.inputs,
            manifest_version: MANIFEST_VERSION,
        };
        let mut file = tempfile::NamedTempFile::new_in(&folder)?;
        serde_json::to_writer_pretty(&mut file, &document)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(&path) {
            Ok(_) => Ok(path),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(path),
            Err(error) => Err(error.error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Manifest {
        let input = |kind: &str, path: &str, digit: &str| InputFile {
            sha256: digit.repeat(64),
            rows: Some(7),
            ..InputFile::of_bytes(kind, path, b"")
        };
        Manifest::new(vec![
            input("market_parquet_bid", "EURUSD/EURUSD_M5_BID.parquet", "1"),
            input("market_parquet_ask", "EURUSD/EURUSD_M5_ASK.parquet", "0"),
        ])
    }

    /// The worked example of `data-contract.md` §13.
    #[test]
    fn golden_hash() {
        assert_eq!(example().sha256(), "461c6b7ffc1f164b72347e4a6bba76883a71c03f5751b8e6284f488b7bcc42da");
    }

    #[test]
    fn a_manifest_is_never_overwritten() {
        let cache = tempfile::tempdir().unwrap();
        let path = example().write(cache.path(), 1_700_000_000_000_000_000).unwrap();
        let first = std::fs::read_to_string(&path).unwrap();
        assert!(first.contains("\"created_at\": \"2023-11-14T22:13:20Z\"") && first.contains("\"rows\": 7"));
        assert_eq!(example().write(cache.path(), 0).unwrap(), path);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
    }

    #[test]
    fn paths_do_not_name_the_machine() {
        let root = Path::new("some/root");
        assert_eq!(portable(&root.join("configs").join("a.yaml"), root), "configs/a.yaml");
        assert_eq!(portable(Path::new("elsewhere/deep/a.yaml"), root), "a.yaml");
    }
}
