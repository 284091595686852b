//! The one place that needs `unsafe`: a file's pages as memory. Its safe twin reads the same bytes into memory.
#![allow(unsafe_code, reason = "mapping a file cannot be expressed safely; the argument stands at the call")]

use std::fs::File;
use std::io::{self, Read as _};

use arrow_buffer::{Buffer, MutableBuffer};
use bytes::Bytes;

/// The whole file as shared read-only memory; nothing is copied, and every process maps the same pages.
pub(crate) fn map(file: &File) -> io::Result<Buffer> {
    // SAFETY: the bytes must not change while they are mapped. A file of the store never does: it is written under
    // another name, flushed, renamed into place and not opened for writing again; replacing it makes a new inode
    // and leaves the mapped one alone. Only a foreign program that edits the cache folder in place could break
    // this, as it could with any other memory-mapped format. The map is read-only and lives as long as the buffer.
    let pages = unsafe { memmap2::Mmap::map(file)? };
    Ok(Buffer::from(Bytes::from_owner(pages)))
}

/// The same bytes in memory of its own, aligned to 64 bytes like the pages.
pub(crate) fn read(mut file: &File) -> io::Result<Buffer> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(copy(&bytes))
}

/// A copy aligned to 64 bytes.
pub(crate) fn copy(bytes: &[u8]) -> Buffer {
    let mut aligned = MutableBuffer::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    aligned.into()
}
