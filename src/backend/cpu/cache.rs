//! Memory of the cache's pages: taken from the system in slabs, given back page by page.

use std::sync::{Mutex, PoisonError};

use super::arena::Arena;
use crate::error::Result;

/// Pages taken from the system at once; untouched ones take address space only.
const SLAB: usize = 32;

/// From this size on a page is worth large pages of the system.
const LARGE: usize = 1 << 19;

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
            let bytes = self.page_bytes * SLAB;
            // Where a page of the cache is large, the system's large pages cost little that is not used, and taking
            // them is several times as fast.
            let large = self.page_bytes >= LARGE;
            slabs.push(if large { Arena::new(bytes)? } else { Arena::small_pages(bytes)? });
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

    /// Copies the first bytes of a page out. A page that was not reserved is `None`.
    pub fn read(&self, page: u32, out: &mut [u8]) -> Option<()> {
        let mut at = Vec::with_capacity(1);
        self.addresses(&[page], &mut at)?;
        let n = out.len().min(self.page_bytes);
        // SAFETY: the page holds `page_bytes`, which only sessions that hold it touch; none of them is writing.
        unsafe { std::ptr::copy_nonoverlapping(at[0].0.cast::<u8>(), out.as_mut_ptr(), n) };
        Some(())
    }

    /// Copies into the first bytes of a page, which nobody else uses. A page that was not reserved is `None`.
    pub fn write(&self, page: u32, from: &[u8]) -> Option<()> {
        let mut at = Vec::with_capacity(1);
        self.addresses(&[page], &mut at)?;
        let n = from.len().min(self.page_bytes);
        #[cfg(target_os = "linux")]
        // SAFETY: a page is a part of a slab's mapping and begins at a page of the system. Advice only: all of it is
        // given at once instead of with a fault for every 4 KiB.
        unsafe {
            libc::madvise(at[0].0.cast_mut().cast(), self.page_bytes, libc::MADV_POPULATE_WRITE);
        }
        // SAFETY: the page holds `page_bytes`; nobody else uses it (`LoadedModel::write_page`).
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), at[0].0.cast_mut().cast::<u8>(), n) };
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
