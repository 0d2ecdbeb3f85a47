//! Large memory, freed as a whole and able to fail: zeroed and straight from the system, or a host's.

use std::sync::Arc;

use super::host::{HostMemory, MemoryKind};
use super::memory::Block;
use crate::error::{Error, Result};

/// One anonymous mapping, of which pages that nobody has touched take no memory; or a host's block.
pub struct Arena {
    base: *mut u8,
    bytes: usize,
    block: Option<Block>,
}

// SAFETY: the arena is plain memory; who may write where is up to those who hold pointers into it.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// `bytes` for weights: of zeros, or from a host, of anything ([`Self::is_zeroed`]).
    pub fn for_weights(bytes: usize, memory: Option<&Arc<dyn HostMemory>>) -> Result<Arena> {
        let Some(memory) = memory else { return Arena::new(bytes) };
        let block = Block::new(memory, bytes, MemoryKind::Weights)?;
        Ok(Arena { base: block.at(), bytes, block: Some(block) })
    }

    /// Whether it was all zeros.
    pub fn is_zeroed(&self) -> bool {
        self.block.is_none()
    }

    /// `bytes` of zeros that will all be used.
    pub fn new(bytes: usize) -> Result<Arena> {
        let arena = Arena::small_pages(bytes)?;
        #[cfg(target_os = "linux")]
        if bytes >= 4 << 20 {
            // SAFETY: the range is mapped. Advice only: fewer page faults and TLB misses where it is taken.
            unsafe { libc::madvise(arena.base.cast(), arena.bytes, libc::MADV_HUGEPAGE) };
        }
        Ok(arena)
    }

    /// `bytes` of zeros of which only what is touched should take memory.
    pub fn small_pages(bytes: usize) -> Result<Arena> {
        let bytes = bytes.max(1);
        // SAFETY: a private anonymous mapping at an address of the system's choice touches nothing that exists.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(Error::OutOfMemory { place: "host".into(), requested: bytes as u64, free: free_bytes() });
        }
        Ok(Arena { base: base.cast(), bytes, block: None })
    }

    /// Start of the memory.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// Gives memory back to the system; it reads as zeros afterwards. `at` is a multiple of the system's page.
    pub fn discard(&self, at: usize, bytes: usize) {
        debug_assert!(at + bytes <= self.bytes);
        // SAFETY: inside the mapping, which stays; the owner has no use for the contents.
        unsafe { libc::madvise(self.base.add(at).cast(), bytes, libc::MADV_DONTNEED) };
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.block.is_some() {
            return;
        }
        // SAFETY: mapped in `new`, and nothing outlives the arena's owner.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}

/// Bytes of memory the system could still hand out, for error texts; 0 where it does not say.
fn free_bytes() -> u64 {
    // SAFETY: sysconf has no preconditions.
    let (pages, size) = unsafe { (libc::sysconf(libc::_SC_AVPHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    u64::try_from(pages).unwrap_or(0) * u64::try_from(size).unwrap_or(0)
}
