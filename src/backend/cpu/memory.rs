//! Memory that a host gives in the system's place, as blocks that go back to it.
//!
//! Invariant: what the host gave goes back to it once, with the numbers that it was asked with, before the last of an engine's
//! handles has gone.

use std::sync::Arc;

use super::host::{HostMemory, MemoryKind};
use crate::error::{Error, Result};
use crate::process;

/// What every block is a multiple of: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

/// Memory of a host's.
pub struct Block {
    memory: Arc<dyn HostMemory>,
    at: *mut u8,
    bytes: usize,
    kind: MemoryKind,
}

// SAFETY: plain memory; who may write where is up to those who hold the block. The host's functions are for any thread.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// `bytes` of whatever they hold, at least one. `OutOfMemory` with the bytes where the host gives none.
    pub fn new(memory: &Arc<dyn HostMemory>, bytes: usize, kind: MemoryKind) -> Result<Block> {
        let bytes = bytes.max(1);
        let at = process::enclosed("alloc", || memory.alloc(bytes, ALIGNMENT, kind));
        if at.is_null() {
            return Err(Error::OutOfMemory { place: PLACE.to_owned(), requested: bytes as u64, free: 0 });
        }
        // From here on it goes back whatever happens.
        let block = Block { memory: Arc::clone(memory), at, bytes, kind };
        if !(at as usize).is_multiple_of(ALIGNMENT) {
            let found = format!("gave {bytes} bytes at {at:p}, which is no multiple of {ALIGNMENT}");
            return Err(Error::Host { what: PLACE, found });
        }
        Ok(block)
    }

    /// Where it begins.
    pub fn at(&self) -> *mut u8 {
        self.at
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        process::enclosed("free", || self.memory.free(self.at, self.bytes, ALIGNMENT, self.kind));
    }
}

/// Where memory is short, as errors say it, when the host gives none.
pub const PLACE: &str = "alloc";
