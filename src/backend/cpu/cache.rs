//! Memory of the cache's pages: taken from the system in slabs, given back page by page.

use std::sync::{Mutex, PoisonError};

use super::arena::Arena;
use crate::error::Result;

/// Pages taken from the system at once; untouched ones take address space only.
const SLAB: usize = 32;

/// Where a page's memory is.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct PageAddress(pub *const u16);

// SAFETY: an address; who may touch the page follows from which sequence owns it.
unsafe impl Send for PageAddress {}
// SAFETY: as above.
unsafe impl Sync for PageAddress {}

/// All pages of one model.
pub struct Pages {
    page_bytes: usize,
    slabs: Mutex<Vec<Arena>>,
}

impl Pages {
    /// No pages yet; each will hold `page_len` f16.
    pub fn new(page_len: usize) -> Pages {
        Pages { page_bytes: (2 * page_len).next_multiple_of(4096), slabs: Mutex::new(Vec::new()) }
    }

    /// Makes pages `0 .. n` exist.
    pub fn reserve(&self, n: usize) -> Result<()> {
        let mut slabs = self.slabs.lock().unwrap_or_else(PoisonError::into_inner);
        while slabs.len() * SLAB < n {
            slabs.push(Arena::small_pages(self.page_bytes * SLAB)?);
        }
        Ok(())
    }

    /// Addresses of pages, appended to `out`. A page that was not reserved is `None`.
    pub fn addresses(&self, pages: &[u32], out: &mut Vec<PageAddress>) -> Option<()> {
        let slabs = self.slabs.lock().unwrap_or_else(PoisonError::into_inner);
        for &page in pages {
            let slab = slabs.get(page as usize / SLAB)?;
            // SAFETY: the slab holds SLAB pages.
            let page = unsafe { slab.base().add(page as usize % SLAB * self.page_bytes) };
            out.push(PageAddress(page.cast_const().cast()));
        }
        Some(())
    }

    /// Makes page `to` hold what `from` holds. A page that was not reserved is `None`.
    pub fn copy(&self, from: u32, to: u32) -> Option<()> {
        let mut at = Vec::with_capacity(2);
        self.addresses(&[from, to], &mut at)?;
        if from != to {
            // SAFETY: two different pages of `page_bytes` each; nobody writes `from` or uses `to` meanwhile
            // (`LoadedModel::copy_page`).
            unsafe { std::ptr::copy_nonoverlapping(at[0].0.cast::<u8>(), at[1].0.cast_mut().cast(), self.page_bytes) };
        }
        Some(())
    }

    /// Gives the memory of a page back; it reads as zeros until written again.
    pub fn release(&self, page: u32) {
        let slabs = self.slabs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slab) = slabs.get(page as usize / SLAB) {
            slab.discard(page as usize % SLAB * self.page_bytes, self.page_bytes);
        }
    }
}
