//! Where a file's bytes are: a mapping of our own, or a buffer of the caller's.
//!
//! Invariant: the bytes never move while the `Source` lives.
#![allow(unsafe_code)] // one of the places the house allows: see SAFETY lines

use std::fs::File;
use std::path::Path;

use memmap2::{Mmap, UncheckedAdvice};

use crate::error::{Error, Result};

/// The bytes of one file.
#[derive(Debug)]
pub(super) enum Source<'a> {
    Map(Mmap),
    Borrowed(&'a [u8]),
}

impl Source<'_> {
    /// Maps a regular file for reading.
    pub(super) fn map(path: &Path) -> Result<Source<'static>> {
        let fail = |what, source| Error::Io { path: path.display().to_string(), what, source };
        // Asked before opening: opening a FIFO would wait for its writer.
        let kind = std::fs::metadata(path).map_err(|e| fail("open", e))?;
        if !kind.is_file() {
            let reason = std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file");
            return Err(fail("open", reason));
        }
        if kind.len() == 0 {
            return Ok(Source::Borrowed(&[]));
        }
        let file = File::open(path).map_err(|e| fail("open", e))?;
        // SAFETY: the mapping is private and read-only, and no reference into it outlives the `Mmap`. The
        // contents are never trusted to stay as they were checked: every later read is bounds-checked again.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| fail("map", e))?;
        Ok(Source::Map(map))
    }

    /// All bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Source::Map(map) => map,
            Source::Borrowed(bytes) => bytes,
        }
    }

    /// Gives the memory of the pages that hold `bytes` back, if they lie in this mapping; whether they do.
    pub(super) fn release(&self, bytes: &[u8]) -> bool {
        let Source::Map(map) = self else { return false };
        let (base, len) = (map.as_ptr() as usize, map.len());
        let Some(at) = (bytes.as_ptr() as usize).checked_sub(base) else { return false };
        if at > len || bytes.len() > len - at {
            return false;
        }
        if !bytes.is_empty() {
            // SAFETY: the range lies inside the mapping (checked above). Its pages are clean and backed by the
            // file, so dropping them, and the neighbours' bytes on the first and last page, loses nothing: the
            // next read faults the same bytes in again. A failure of the advice changes nothing.
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, at, bytes.len()) };
        }
        true
    }
}
