//! Memory of the cache's pages: taken from the system in slabs, given back page by page; or a host's (`host_pages`).
//!
//! Invariant: a page that is taken into use, other than to be overwritten, reads as zeros.
//!
//! Where pages are large the system's large pages back them, of which one may hold parts of several. It goes back as a
//! whole, when the last page in it is given up: the system splits one that is given back in part, and taking 4 KiB at a
//! time afterwards is seven times slower. So up to 2 MiB beside a page in use may stay, to be zeroed when they are used.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::arena::Arena;
use super::host::HostMemory;
use super::host_pages::HostPages;
use crate::alloc::reserve;
use crate::error::Result;

/// Pages taken from the system at once; untouched ones take address space only.
const SLAB: usize = 32;

/// From this size on a page is worth large pages of the system.
const LARGE: usize = 1 << 19;

/// A large page of the system.
const REGION: usize = 2 << 20;

/// What a page's memory holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    Zeros,
    /// What a session has left there.
    Remains,
    InUse,
}

/// Memory of some pages.
struct Slab {
    arena: Arena,
    /// Where the first page begins: at a large page of the system, if they are used.
    skipped: usize,
    pages: [Memory; SLAB],
}

/// Where a page's memory is.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct PageAddress(pub *const u16);

// SAFETY: an address; who may touch the page follows from which sequence owns it.
unsafe impl Send for PageAddress {}
// SAFETY: as above.
unsafe impl Sync for PageAddress {}

impl PageAddress {
    /// That of a page that is not read.
    pub const NONE: PageAddress = PageAddress(std::ptr::null());
}

/// All pages of one class of a model's.
pub struct Pages {
    page_bytes: usize,
    slabs: Mutex<Vec<Slab>>,
    /// In the place of slabs.
    host: Option<HostPages>,
}

impl Slab {
    /// Memory for pages of so many bytes.
    fn new(page_bytes: usize) -> Result<Slab> {
        let bytes = SLAB * page_bytes;
        let (arena, skipped) = if page_bytes >= LARGE {
            // Whole large pages from the first to the last, so that none is shared with a neighbour in memory.
            let arena = Arena::new(bytes.next_multiple_of(REGION) + REGION)?;
            let skipped = (arena.base() as usize).next_multiple_of(REGION) - arena.base() as usize;
            (arena, skipped)
        } else {
            (Arena::small_pages(bytes)?, 0)
        };
        Ok(Slab { arena, skipped, pages: [Memory::Zeros; SLAB] })
    }

    /// The large pages of the system that have a part of page `index`, as bytes of the slab.
    fn regions(index: usize, page_bytes: usize) -> impl Iterator<Item = Range<usize>> {
        let (first, last) = (index * page_bytes, (index + 1) * page_bytes - 1);
        (first / REGION..=last / REGION).map(|r| r * REGION..(r + 1) * REGION)
    }

    /// The pages that have a part of these bytes.
    fn pages_in(bytes: &Range<usize>, page_bytes: usize) -> Range<usize> {
        bytes.start / page_bytes..bytes.end.div_ceil(page_bytes).min(SLAB)
    }

    /// Whether one of them is in use.
    fn holds_any(&self, bytes: &Range<usize>, page_bytes: usize) -> bool {
        self.pages[Slab::pages_in(bytes, page_bytes)].contains(&Memory::InUse)
    }

    fn release(&mut self, index: usize, page_bytes: usize) {
        if self.pages[index] != Memory::InUse {
            return;
        }
        self.pages[index] = Memory::Remains;
        for region in Slab::regions(index, page_bytes) {
            if self.holds_any(&region, page_bytes) {
                continue;
            }
            self.arena.discard(self.skipped + region.start, region.len());
            // A region without a page in use has been given back when the last of them went.
            for page in Slab::pages_in(&region, page_bytes) {
                if Slab::regions(page, page_bytes).all(|r| !self.holds_any(&r, page_bytes)) {
                    self.pages[page] = Memory::Zeros;
                }
            }
        }
    }
}

impl Pages {
    /// No pages yet; each will hold `page_len` f16, in memory of a host if there is one.
    pub fn new(page_len: usize, memory: Option<&Arc<dyn HostMemory>>) -> Pages {
        let page_bytes = (2 * page_len).next_multiple_of(4096);
        Pages { page_bytes, slabs: Mutex::default(), host: memory.map(|memory| HostPages::new(memory, page_bytes)) }
    }

    /// Makes pages `0 .. n` exist, whose memory is taken as they are used; a host's by [`Self::reserve_parts`].
    pub fn reserve(&self, n: usize) -> Result<()> {
        if let Some(host) = &self.host {
            return host.exist(n);
        }
        let mut slabs = self.slabs.lock().unwrap_or_else(PoisonError::into_inner);
        while slabs.len() * SLAB < n {
            // Where a page of the cache is large, the system's large pages cost little that is not used, and taking
            // them is several times as fast.
            reserve(&mut slabs, 1)?;
            slabs.push(Slab::new(self.page_bytes)?);
        }
        Ok(())
    }

    /// Has a host give memory for so many pages at once.
    pub fn reserve_parts(&self, n: usize) -> Result<()> {
        self.host.as_ref().map_or(Ok(()), |host| host.reserve(n))
    }

    /// Gives a host back what so many pages do not need; whether there was any.
    pub fn settle(&self, n: usize) -> bool {
        self.host.as_ref().is_some_and(|host| host.settle(n))
    }

    fn is_large(&self) -> bool {
        self.page_bytes >= LARGE
    }

    /// Takes a page into use; `None`: it was not reserved.
    fn place(&self, slabs: &mut [Slab], page: u32, overwritten: bool) -> Option<PageAddress> {
        let slab = slabs.get_mut(page as usize / SLAB)?;
        let index = page as usize % SLAB;
        // SAFETY: the slab holds SLAB pages.
        let at = unsafe { slab.arena.base().add(slab.skipped + index * self.page_bytes) };
        if slab.pages[index] == Memory::Remains && !overwritten {
            // SAFETY: a page in the slab that nobody has used since it was given up.
            unsafe { at.write_bytes(0, self.page_bytes) };
        }
        slab.pages[index] = Memory::InUse;
        Some(PageAddress(at.cast_const().cast()))
    }

    /// Addresses of pages, appended to `out`, which has room for them. A page that was not reserved is `None`.
    pub fn addresses(&self, pages: &[u32], out: &mut Vec<PageAddress>) -> Option<()> {
        if let Some(host) = &self.host {
            for &page in pages {
                out.push(PageAddress(host.place(page, false)?.cast_const().cast()));
            }
            return Some(());
        }
        let mut slabs = self.slabs.lock().unwrap_or_else(PoisonError::into_inner);
        for &page in pages {
            out.push(self.place(&mut slabs, page, false)?);
        }
        Some(())
    }

    /// Where a page is, which reads as zeros unless it is to be `overwritten`, or has been. A page that was not reserved is `None`.
    pub fn address(&self, page: u32, overwritten: bool) -> Option<PageAddress> {
        if let Some(host) = &self.host {
            return Some(PageAddress(host.place(page, overwritten)?.cast_const().cast()));
        }
        self.place(&mut self.slabs.lock().unwrap_or_else(PoisonError::into_inner), page, overwritten)
    }

    /// Makes page `to` hold what `from` holds. A page that was not reserved is `None`.
    pub fn copy(&self, from: u32, to: u32) -> Option<()> {
        // A host's page that has not been written holds nothing, and takes no memory for that.
        if from != to && self.host.as_ref().is_none_or(|host| host.find(from).is_some()) {
            let (from, to) = (self.address(from, false)?, self.address(to, true)?);
            // SAFETY: two different pages of `page_bytes` each; nobody writes `from` or uses `to` meanwhile
            // (`LoadedModel::copy_page`).
            unsafe { std::ptr::copy_nonoverlapping(from.0.cast::<u8>(), to.0.cast_mut().cast(), self.page_bytes) };
        }
        Some(())
    }

    /// Copies the first bytes of a page out. A page that was not reserved is `None`.
    pub fn read(&self, page: u32, out: &mut [u8]) -> Option<()> {
        if self.host.as_ref().is_some_and(|host| host.find(page).is_none()) {
            out.fill(0);
            return Some(());
        }
        let at = self.address(page, false)?;
        let n = out.len().min(self.page_bytes);
        // SAFETY: the page holds `page_bytes`, which only sessions that hold it touch; none of them is writing.
        unsafe { std::ptr::copy_nonoverlapping(at.0.cast::<u8>(), out.as_mut_ptr(), n) };
        Some(())
    }

    /// Fills a page, which nobody else uses, with bytes and zeros behind them. A page that was not reserved is `None`.
    pub fn write(&self, page: u32, from: &[u8]) -> Option<()> {
        let at = self.address(page, true)?;
        let n = from.len().min(self.page_bytes);
        #[cfg(target_os = "linux")]
        if self.host.is_none() {
            // SAFETY: a page is a part of a slab's mapping and begins at a page of the system. Advice only: all of it is
            // given at once instead of with a fault for every 4 KiB.
            unsafe { libc::madvise(at.0.cast_mut().cast(), self.page_bytes, libc::MADV_POPULATE_WRITE) };
        }
        // SAFETY: the page holds `page_bytes`; nobody else uses it (`LoadedModel::write_page`).
        unsafe {
            let to = at.0.cast_mut().cast::<u8>();
            std::ptr::copy_nonoverlapping(from.as_ptr(), to, n);
            to.add(n).write_bytes(0, self.page_bytes - n);
        }
        Some(())
    }

    /// Gives the memory of a page back; it reads as zeros until written again.
    pub fn release(&self, page: u32) {
        if let Some(host) = &self.host {
            return host.release(page);
        }
        let mut slabs = self.slabs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slab) = slabs.get_mut(page as usize / SLAB) else { return };
        let index = page as usize % SLAB;
        if self.is_large() {
            slab.release(index, self.page_bytes);
        } else {
            slab.arena.discard(slab.skipped + index * self.page_bytes, self.page_bytes);
            slab.pages[index] = Memory::Zeros;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(pages: &Pages, page: u32) -> Vec<u8> {
        let mut out = vec![7; pages.page_bytes];
        pages.read(page, &mut out).unwrap();
        out
    }

    /// Bytes of the machine's memory that the pages' slabs take.
    #[cfg(target_os = "linux")]
    fn resident(pages: &Pages) -> usize {
        let slabs = pages.slabs.lock().unwrap();
        let count = |slab: &Slab| {
            let n = (slab.skipped + SLAB * pages.page_bytes).next_multiple_of(4096);
            let mut flags = vec![0_u8; n / 4096];
            // SAFETY: the slab's mapping, and a byte for each of its pages.
            let status = unsafe { libc::mincore(slab.arena.base().cast(), n, flags.as_mut_ptr()) };
            assert_eq!(status, 0);
            4096 * flags.iter().filter(|f| **f & 1 == 1).count()
        };
        slabs.iter().map(count).sum()
    }

    #[test]
    fn given_up_pages_read_as_zeros_and_those_in_use_stay() {
        // Small, large with several in a large page of the system, and larger than one.
        for kib in [4, 520, 1440, 3000] {
            let pages = Pages::new(kib * 512, None);
            pages.reserve(40).unwrap();
            let mut held: Vec<Option<u8>> = vec![None; 40];
            let mut random = 1_u64;
            for step in 0..400_u32 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let page = (random >> 33) % 40;
                let value = (step % 250 + 1) as u8;
                match held[page as usize] {
                    Some(old) => {
                        let first = bytes(&pages, page as u32);
                        assert!(first[0] == old && first[first.len() - 1] == old, "{kib} KiB, step {step}");
                        pages.release(page as u32);
                        held[page as usize] = None;
                    }
                    None => {
                        if step % 3 > 0 {
                            assert!(bytes(&pages, page as u32).iter().all(|b| *b == 0), "{kib} KiB, step {step}");
                        }
                        pages.write(page as u32, &vec![value; pages.page_bytes]).unwrap();
                        held[page as usize] = Some(value);
                    }
                }
            }
            #[cfg(target_os = "linux")]
            {
                let in_use = held.iter().flatten().count();
                let most = in_use * (pages.page_bytes + if pages.is_large() { 2 * REGION } else { 0 });
                assert!(resident(&pages) <= most, "{kib} KiB: {} of {most}", resident(&pages));
            }
            (0..40).filter(|page| held[*page].is_some()).for_each(|page| pages.release(page as u32));
            #[cfg(target_os = "linux")]
            assert_eq!(resident(&pages), 0, "{kib} KiB");
        }
    }
}
