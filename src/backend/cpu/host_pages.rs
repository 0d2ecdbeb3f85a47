//! Memory of the cache's pages where a host gives it: a block for each page that is there.
//!
//! Invariants: there is a block for each page that has been reserved and may be written, and none more once that has been
//! settled; giving blocks back takes no memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::host::{HostMemory, MemoryKind};
use super::memory::Block;
use crate::alloc::reserve;
use crate::error::Result;

/// Pages of one class.
pub struct HostPages {
    memory: Arc<dyn HostMemory>,
    page_bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The block of each page that exists, once it has been used.
    of_page: Vec<Option<Block>>,
    /// Those of pages that have not.
    spare: Vec<Block>,
    /// Blocks, of both.
    n: usize,
}

impl HostPages {
    /// No pages yet.
    pub fn new(memory: &Arc<dyn HostMemory>, page_bytes: usize) -> HostPages {
        HostPages { memory: Arc::clone(memory), page_bytes, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes pages `0 .. n` exist, without blocks.
    pub fn exist(&self, n: usize) -> Result<()> {
        let mut state = self.lock();
        let missing = n.saturating_sub(state.of_page.len());
        reserve(&mut state.of_page, missing)?;
        state.of_page.extend((0..missing).map(|_| None));
        Ok(())
    }

    /// Gives blocks back that are not needed for so many pages; whether there were any.
    pub fn settle(&self, n: usize) -> bool {
        let mut state = self.lock();
        let before = state.n;
        while state.n > n && state.spare.pop().is_some() {
            state.n -= 1;
        }
        state.n < before
    }

    /// Makes sure of blocks for so many pages, or fails and has none more than before.
    pub fn reserve(&self, n: usize) -> Result<()> {
        let mut state = self.lock();
        let before = state.n;
        // Room for all of them, since giving up takes no memory.
        let room = n.max(before).saturating_sub(state.spare.len());
        reserve(&mut state.spare, room)?;
        while state.n < n {
            match Block::new(&self.memory, self.page_bytes, MemoryKind::Pages) {
                Ok(block) => {
                    state.spare.push(block);
                    state.n += 1;
                }
                Err(error) => {
                    while state.n > before && state.spare.pop().is_some() {
                        state.n -= 1;
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Where a page is, in a block that it takes if it has none, zeroed unless it is going to be overwritten; `None`: it was not
    /// reserved.
    pub fn place(&self, page: u32, overwritten: bool) -> Option<*mut u8> {
        let mut state = self.lock();
        let State { of_page, spare, .. } = &mut *state;
        let place = of_page.get_mut(page as usize)?;
        if place.is_none() {
            let block = spare.pop()?;
            if !overwritten {
                // SAFETY: the block has so many bytes, which are nobody's.
                unsafe { block.at().write_bytes(0, self.page_bytes) };
            }
            *place = Some(block);
        }
        place.as_ref().map(Block::at)
    }

    /// Where a page is, if it has been used.
    pub fn find(&self, page: u32) -> Option<*mut u8> {
        self.lock().of_page.get(page as usize)?.as_ref().map(Block::at)
    }

    /// A page is not used any more.
    pub fn release(&self, page: u32) {
        let mut state = self.lock();
        if let Some(block) = state.of_page.get_mut(page as usize).and_then(Option::take) {
            state.spare.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::error::Error;

    /// Gives so many blocks at a time.
    struct Few(AtomicI64);

    impl HostMemory for Few {
        fn alloc(&self, bytes: usize, alignment: usize, _: MemoryKind) -> *mut u8 {
            if self.0.fetch_sub(1, Ordering::SeqCst) <= 0 {
                self.0.fetch_add(1, Ordering::SeqCst);
                return std::ptr::null_mut();
            }
            let layout = std::alloc::Layout::from_size_align(bytes, alignment).unwrap();
            // SAFETY: more than no bytes.
            let at = unsafe { std::alloc::alloc(layout) };
            // SAFETY: as many as were allocated.
            unsafe { at.write_bytes(0xa5, bytes) };
            at
        }

        fn free(&self, at: *mut u8, bytes: usize, alignment: usize, _: MemoryKind) {
            self.0.fetch_add(1, Ordering::SeqCst);
            // SAFETY: allocated above with this layout.
            unsafe { std::alloc::dealloc(at, std::alloc::Layout::from_size_align(bytes, alignment).unwrap()) };
        }
    }

    #[test]
    fn blocks_come_when_they_are_reserved_and_go_when_that_is_settled() {
        let few = Arc::new(Few(AtomicI64::new(3)));
        let memory: Arc<dyn HostMemory> = few.clone();
        let pages = HostPages::new(&memory, 4096);
        pages.exist(5).unwrap();
        assert!(pages.place(0, false).is_none() && pages.find(0).is_none());
        pages.reserve(2).unwrap();
        let at = pages.place(4, false).unwrap();
        // SAFETY: a page of this many bytes.
        assert!(unsafe { std::slice::from_raw_parts(at, 4096) }.iter().all(|byte| *byte == 0));
        assert_eq!((pages.find(4), few.0.load(Ordering::SeqCst)), (Some(at), 1));
        let refused = pages.reserve(4).unwrap_err();
        assert!(matches!(&refused, Error::OutOfMemory { place, requested: 4096, .. } if place == "alloc"), "{refused}");
        assert_eq!(few.0.load(Ordering::SeqCst), 1);
        pages.release(4);
        assert!(!pages.settle(2) && pages.settle(1) && pages.find(4).is_none());
        assert_eq!(few.0.load(Ordering::SeqCst), 2);
        drop(pages);
        assert_eq!(few.0.load(Ordering::SeqCst), 3);
    }
}
