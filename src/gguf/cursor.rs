//! A place in a file that can only be read forward and never past the end.

use std::cell::Cell;
use std::fmt::Display;

use super::MAX_HEAD_BYTES;
use crate::error::{Error, GgufFault, Result};

/// Reads little-endian numbers and byte ranges; every step is checked against what remains.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'s> {
    bytes: &'s [u8],
    at: usize,
    /// Where reading ends; beyond `bytes` where they are only the beginning of a file.
    end: u64,
    /// Set to how much is needed when a read fails because `bytes` end before `end`.
    wants: Option<&'s Cell<u64>>,
}

impl<'s> Cursor<'s> {
    pub(super) fn new(bytes: &'s [u8], at: usize) -> Cursor<'s> {
        Cursor { bytes, at: at.min(bytes.len()), end: bytes.len() as u64, wants: None }
    }

    /// A cursor at the beginning of a file of `file_bytes`, of which `bytes` are the first. A read of more fails and sets
    /// `wants` to the number of bytes that it needs.
    pub(super) fn of_head(bytes: &'s [u8], file_bytes: u64, wants: &'s Cell<u64>) -> Cursor<'s> {
        Cursor { bytes, at: 0, end: file_bytes.min(MAX_HEAD_BYTES), wants: Some(wants) }
    }

    /// Byte offset of what is read next.
    pub(super) fn at(&self) -> u64 {
        self.at as u64
    }

    /// Bytes left.
    pub(super) fn left(&self) -> u64 {
        self.end.saturating_sub(self.at as u64)
    }

    /// The next `n` bytes of the field that `name` prints.
    pub(super) fn take(&mut self, n: u64, name: &dyn Display) -> Result<&'s [u8]> {
        if n > self.left() {
            return Err(refuse(name, self.at(), GgufFault::TooLarge, n, self.left()));
        }
        let end = self.at + n as usize;
        let Some(part) = self.bytes.get(self.at..end) else {
            if let Some(wants) = self.wants {
                wants.set(end as u64);
            }
            return Err(refuse(name, self.at(), GgufFault::TooLarge, end as u64, self.bytes.len() as u64));
        };
        self.at = end;
        Ok(part)
    }

    fn array<const N: usize>(&mut self, name: &dyn Display) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, name)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, name: &dyn Display) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(name)?))
    }

    pub(super) fn u64(&mut self, name: &dyn Display) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(name)?))
    }

    /// A length and that many bytes of UTF-8; the length is at most `limit`.
    pub(super) fn text(&mut self, limit: u64, name: &dyn Display) -> Result<&'s str> {
        let at = self.at();
        let n = self.u64(&format_args!("{name} length"))?;
        let limit = limit.min(self.left());
        if n > limit {
            return Err(refuse(&format_args!("{name} length"), at, GgufFault::TooLarge, n, limit));
        }
        let start = self.at();
        let bytes = self.take(n, name)?;
        std::str::from_utf8(bytes)
            .map_err(|e| refuse(name, start, GgufFault::NotUtf8, e.valid_up_to() as u64, bytes.len() as u64))
    }
}

/// A refusal of the field that `name` prints.
pub(super) fn refuse(name: &dyn Display, offset: u64, fault: GgufFault, found: u64, limit: u64) -> Error {
    Error::Gguf { field: name.to_string(), offset, fault, found, limit }
}

/// The first bytes of a name, for a message: a hostile key may be 64 KiB long.
pub(crate) fn shorten(name: &str) -> &str {
    let mut end = name.len().min(120);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}
