//! Takes the engine version at build time: the crate version plus a digest of everything that can change a result,
//! the sources of `engine` and `optimizer` and the lock file.

use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest, Sha256};

fn main() -> io::Result<()> {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let root = here.parent().map(Path::to_owned).unwrap_or_default();
    let mut files = Vec::new();
    for folder in ["engine/src", "optimizer/src"] {
        println!("cargo::rerun-if-changed={}", root.join(folder).display());
        collect(&root.join(folder), &mut files)?;
    }
    for file in ["Cargo.lock", "engine/Cargo.toml", "optimizer/Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
        files.push(root.join(file));
    }
    let mut named: Vec<(String, PathBuf)> = files.into_iter().map(|path| (name_of(&path, &root), path)).collect();
    named.sort();
    let mut digest = Sha256::new();
    for (name, path) in named {
        // A package built away from its workspace has no lock file beside it; its sources still count.
        let Ok(bytes) = fs::read(&path) else { continue };
        // Line endings are those of the checkout, not of the code.
        let bytes: Vec<u8> = bytes.into_iter().filter(|byte| *byte != b'\r').collect();
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(&name);
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(&bytes);
    }
    let hex: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    println!("cargo::rustc-env=OMEGA_SOURCE_DIGEST={hex}");
    Ok(())
}

fn name_of(path: &Path, root: &Path) -> String {
    let relative = path.strip_prefix(root).unwrap_or(path);
    relative.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
