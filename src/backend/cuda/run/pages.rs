//! The cache's pages on the device: of each a part for every class of layers, `[layers of the class][k, v][n_kv_heads][64][head_dim]`
//! f16, of which a layer has its own number of heads and their size; and tables of where the parts of a sequence lie.
//!
//! Invariant: a table is right from the page on that its class reads next; kernels read no entry in front of it.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::internal;
use super::parts::{MOST_SPARE, Parts};
use super::slot::CudaSlot;
use crate::alloc::reserve_exact;
use crate::backend::cuda::driver::{Address, Buffer, Gpu, Stream};
use crate::backend::{CacheRow, PAGE_TOKENS};
use crate::error::{Error, Result};
use crate::model::{CacheClasses, Config, MAX_CLASSES};

struct Pool {
    of_class: Vec<Parts>,
    /// Whether a class has a window: parts go while their pages stay. Where none has, a page keeps its memory for good, so that
    /// one that is taken again changes no table.
    windowed: bool,
    /// Changes whenever a part loses its place: what tables say of it is wrong from then on.
    epoch: u64,
}

/// What a page has of a layer.
struct Heads {
    class: usize,
    /// Elements before its keys in the part of its class.
    at: usize,
    n: usize,
    dim: usize,
}

/// Every page of a model.
pub struct Pages {
    gpu: Arc<Gpu>,
    pool: Mutex<Pool>,
    layers: Vec<Heads>,
    /// How pages are divided.
    pub classes: CacheClasses,
    /// Bytes of each class's part.
    pub part_bytes: [usize; MAX_CLASSES],
    /// The size of one page.
    pub bytes: usize,
}

impl Pages {
    /// Without a page.
    pub fn new(gpu: &Arc<Gpu>, config: &Config, classes: CacheClasses) -> Result<Pages> {
        let (mut layers, mut at) = (Vec::new(), [0; MAX_CLASSES]);
        reserve_exact(&mut layers, config.n_layers())?;
        for (i, layer) in config.layers.iter().enumerate() {
            let (a, class) = (layer.attention(), classes.of(i));
            let own = at[class];
            at[class] += a.kept() * PAGE_TOKENS;
            let at = a.kv_from.and_then(|from| layers.get(from)).map_or(own, |of: &Heads| of.at);
            layers.push(Heads { class, at, n: a.n_kv_heads, dim: a.head_dim });
        }
        let part_bytes = at.map(|elements| 2 * elements);
        let mut of_class = Vec::new();
        reserve_exact(&mut of_class, classes.n())?;
        of_class.extend(part_bytes.iter().take(classes.n()).map(|bytes| Parts::new(*bytes, MOST_SPARE)));
        let windowed = (0..classes.n()).any(|class| classes.window(class).is_some());
        let (gpu, pool) = (gpu.clone(), Mutex::new(Pool { of_class, windowed, epoch: 1 }));
        Ok(Pages { gpu, pool, layers, classes, part_bytes, bytes: part_bytes.iter().sum() })
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Elements of a head in a layer; 0 where there is none.
    pub fn head_dim(&self, layer: usize) -> usize {
        self.layers.get(layer).map_or(0, |heads| heads.dim)
    }

    /// Makes pages `0 .. n` exist; without windows, with memory for all of them.
    pub fn reserve(&self, n: usize) -> Result<()> {
        let mut pool = self.lock();
        let memory = if pool.windowed { 0 } else { n };
        pool.of_class.iter_mut().try_for_each(|parts| parts.reserve(&self.gpu, memory).and_then(|()| parts.exist(n)))
    }

    /// Makes room for so many parts of each class; without windows they have theirs since there are so many pages.
    pub fn reserve_parts(&self, n: &[usize; MAX_CLASSES]) -> Result<()> {
        let mut pool = self.lock();
        if !pool.windowed {
            return Ok(());
        }
        let all =
            |pool: &mut Pool| pool.of_class.iter_mut().zip(n).try_for_each(|(parts, n)| parts.reserve(&self.gpu, *n));
        match all(&mut pool) {
            Err(Error::OutOfMemory { .. }) if pool.trim(n) => all(&mut pool),
            done => done,
        }
    }

    /// Gives memory back that so many parts of each class do not need; whether there was any.
    pub fn trim(&self, n: &[usize; MAX_CLASSES]) -> bool {
        self.lock().trim(n)
    }

    /// Takes the places of a page's parts of these classes back.
    pub fn free(&self, page: u32, of: Range<usize>) {
        let mut pool = self.lock();
        let Pool { of_class, windowed, epoch } = &mut *pool;
        if *windowed {
            let parts = of_class.get_mut(of).unwrap_or_default().iter_mut();
            *epoch += parts.map(|parts| u64::from(parts.free(page))).sum::<u64>();
        }
    }

    /// Where a page's part of a class is that somebody reads; `None`: nobody has written it.
    pub fn find(&self, page: u32, class: usize) -> Result<Option<Address>> {
        self.gpu.bind()?;
        self.lock().of_class.get(class).map_or(Ok(None), |parts| parts.find(page))
    }

    /// Where a page's part of a class is that somebody writes.
    pub fn place(&self, page: u32, class: usize) -> Result<Address> {
        self.gpu.bind()?;
        match self.lock().of_class.get_mut(class) {
            Some(parts) => parts.place(&self.gpu, page),
            None => internal("a class that there is not"),
        }
    }

    /// Fails where a class's part has not so many bytes.
    pub fn check_part(&self, class: usize, bytes: usize) -> Result<()> {
        match self.part_bytes.get(class) {
            Some(all) if bytes == *all => Ok(()),
            _ => internal("not the whole of a page's part"),
        }
    }

    /// Addresses of the heads' rows of keys (`which` 0) or values (1), `n` elements in all.
    pub fn rows(&self, at: CacheRow, which: usize, n: usize) -> Result<Vec<Address>> {
        match self.layers.get(at.layer) {
            Some(heads) if at.row < PAGE_TOKENS && n == heads.n * heads.dim => {
                let part = self.place(at.page, heads.class)?;
                let row = |head| heads.at + ((which * heads.n + head) * PAGE_TOKENS + at.row) * heads.dim;
                Ok((0..heads.n).map(|head| part + 2 * row(head) as u64).collect())
            }
            _ => internal("a row that the cache does not have"),
        }
    }

    /// Zeroes what belongs to positions from `rows` on, in a copy of a class's part of a page.
    pub fn clear_from(&self, class: usize, rows: usize, part: &mut [u8]) {
        for heads in self.layers.iter().filter(|heads| heads.class == class && heads.dim > 0) {
            let (row, from) = (2 * heads.dim, 2 * heads.at);
            let layer = part.get_mut(from..from + 2 * heads.n * PAGE_TOKENS * row).unwrap_or_default();
            for tile in layer.chunks_exact_mut(PAGE_TOKENS * row) {
                tile[rows.min(PAGE_TOKENS) * row..].fill(0);
            }
        }
    }

    /// Makes the slot's tables name what passes over these positions of its pages read and write.
    pub fn bind(&self, stream: &Stream, slot: &mut CudaSlot, pages: &[u32], positions: Range<usize>) -> Result<()> {
        let common = slot.pages.iter().zip(pages).take_while(|(a, b)| a == b).count();
        if pages.len() > slot.capacity {
            stream.wait()?;
            let capacity = pages.len().next_power_of_two();
            slot.table = Buffer::new(&self.gpu, capacity * 8 * self.classes.n())?;
            slot.capacity = capacity;
            slot.bound = Default::default();
        }
        let mut pool = self.lock();
        if slot.epoch != pool.epoch {
            slot.bound = Default::default();
        }
        // Until that has succeeded, no more is known of the tables.
        slot.bound.iter_mut().for_each(|bound| bound.1 = bound.1.min(common));
        slot.pages.truncate(common);
        slot.pages.extend_from_slice(&pages[common..]);
        slot.epoch = pool.epoch;
        let end = positions.end.div_ceil(PAGE_TOKENS).min(pages.len());
        let mut addresses = Vec::new();
        for (class, parts) in pool.of_class.iter_mut().enumerate() {
            let first = (self.classes.first(class, positions.start) / PAGE_TOKENS).min(end);
            let (from, to) = slot.bound[class];
            let kept = from <= first && first <= to;
            let missing = if kept { to.min(end)..end } else { first..end };
            slot.bound[class] = if kept { (from, to) } else { (first, first) };
            if missing.is_empty() {
                continue;
            }
            addresses.clear();
            reserve_exact(&mut addresses, missing.len())?;
            for page in &pages[missing.clone()] {
                addresses.push(parts.place(&self.gpu, *page)?);
            }
            let at = slot.table.at() + 8 * (class * slot.capacity + missing.start) as u64;
            // SAFETY: the table has `capacity` addresses for each class; pageable memory is staged before this returns.
            unsafe { stream.upload(at, addresses.as_ptr().cast(), addresses.len() * 8)? };
            slot.bound[class].1 = end;
        }
        Ok(())
    }
}

impl Pool {
    fn trim(&mut self, n: &[usize; MAX_CLASSES]) -> bool {
        self.windowed && self.of_class.iter_mut().zip(n).fold(false, |any, (parts, n)| parts.trim(*n) | any)
    }
}
