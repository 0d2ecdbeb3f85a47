//! Memory for the parts that pages have of one class of layers, or for states, by number: slabs of places, of which a part takes one when it is first
//! written and gives it back when it goes.
//!
//! Invariants: a place belongs to one page at most; a slab goes back to the device only while none of its places is taken.

use std::sync::Arc;

use super::internal;
use crate::alloc::{reserve, reserve_exact};
use crate::backend::cuda::driver::{Address, Buffer, Gpu};
use crate::error::{Error, Result};

/// Bytes of places of pages that nobody has asked for yet.
pub const MOST_SPARE: usize = 64 << 20;

/// Places in one allocation.
struct Slab {
    buffer: Buffer,
    n: usize,
    free: Vec<u32>,
}

/// Where a part lies.
#[derive(Clone, Copy)]
struct Place {
    slab: u32,
    index: u32,
}

/// The parts of a class.
pub struct Parts {
    /// Bytes of one.
    pub bytes: usize,
    /// Most bytes of places beyond those that are asked for.
    most_spare: usize,
    /// Holes are those that went back.
    slabs: Vec<Option<Slab>>,
    n_places: usize,
    /// Where the part of every page that exists lies.
    of_page: Vec<Option<Place>>,
}

impl Parts {
    /// Without a page.
    pub fn new(bytes: usize, most_spare: usize) -> Parts {
        Parts { bytes, most_spare, slabs: Vec::new(), n_places: 0, of_page: Vec::new() }
    }

    /// Makes pages `0 .. n` exist, without a place.
    pub fn exist(&mut self, n: usize) -> Result<()> {
        let missing = n.saturating_sub(self.of_page.len());
        reserve(&mut self.of_page, missing)?;
        self.of_page.extend((0..missing).map(|_| None));
        Ok(())
    }

    /// Makes room for so many parts at once.
    pub fn reserve(&mut self, gpu: &Arc<Gpu>, n: usize) -> Result<()> {
        let have = self.n_places;
        if n <= have || self.bytes == 0 {
            return Ok(());
        }
        // Some more, for the sessions that will ask next: each of these calls may wait for the device.
        let more = (have / 4).min(self.most_spare / self.bytes);
        match self.grow(gpu, n - have + more) {
            Err(Error::OutOfMemory { .. }) if more > 0 => self.grow(gpu, n - have),
            grown => grown,
        }
    }

    fn grow(&mut self, gpu: &Arc<Gpu>, n: usize) -> Result<()> {
        let mut free = Vec::new();
        reserve_exact(&mut free, n)?;
        free.extend((0..n as u32).rev());
        let hole = self.slabs.iter().position(Option::is_none);
        reserve(&mut self.slabs, 1)?;
        let slab = Some(Slab { buffer: Buffer::new(gpu, self.bytes * n)?, n, free });
        match hole {
            Some(hole) => self.slabs[hole] = slab,
            None => self.slabs.push(slab),
        }
        self.n_places += n;
        Ok(())
    }

    /// Gives slabs back that nobody needs where there is room for so many parts without them; whether there were any.
    pub fn trim(&mut self, n: usize) -> bool {
        let before = self.n_places;
        for slab in self.slabs.iter_mut().rev() {
            if let Some(gone) = slab.take_if(|slab| slab.free.len() == slab.n && self.n_places - slab.n >= n) {
                self.n_places -= gone.n;
            }
        }
        self.n_places < before
    }

    /// Where a page's part lies; `None`: it has no place. Fails where there is no such page.
    pub fn find(&self, page: u32) -> Result<Option<Address>> {
        match self.of_page.get(page as usize) {
            Some(place) => Ok(place.and_then(|place| self.address(place))),
            None => internal("a number that was not reserved"),
        }
    }

    fn address(&self, place: Place) -> Option<Address> {
        let slab = self.slabs.get(place.slab as usize)?.as_ref()?;
        Some(slab.buffer.at() + (place.index as usize * self.bytes) as u64)
    }

    /// Where a page's part lies, in a place that it takes if it has none: in the first slab that has one, so that the last
    /// ones become free.
    pub fn place(&mut self, gpu: &Arc<Gpu>, page: u32) -> Result<Address> {
        if let Some(at) = self.find(page)? {
            return Ok(at);
        }
        // Of layers that keep nothing of a position.
        if self.bytes == 0 {
            return Ok(0);
        }
        for attempt in 0..2 {
            let free = self.slabs.iter_mut().enumerate().find_map(|(i, slab)| Some((i, slab.as_mut()?.free.pop()?)));
            if let (Some((slab, index)), Some(of_page)) = (free, self.of_page.get_mut(page as usize)) {
                let place = Place { slab: slab as u32, index };
                *of_page = Some(place);
                return self.address(place).map_or_else(|| internal("a place without memory"), Ok);
            }
            if attempt == 0 {
                self.reserve(gpu, self.n_places + 1)?;
            }
        }
        internal("parts without memory")
    }

    /// Takes a page's place back; whether it had one.
    pub fn free(&mut self, page: u32) -> bool {
        let Some(place) = self.of_page.get_mut(page as usize).and_then(Option::take) else { return false };
        if let Some(Some(slab)) = self.slabs.get_mut(place.slab as usize) {
            // There is room for all of its places.
            slab.free.push(place.index);
        }
        true
    }
}
