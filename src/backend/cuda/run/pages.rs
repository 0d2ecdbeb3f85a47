//! The pool of cache pages on the device: slabs of whole pages, `[n_layers][k, v][n_kv_heads][64][head_dim]` f16 each, of which a layer
//! has its own number of heads and their size.

use std::sync::{Arc, Mutex, PoisonError};

use super::internal;
use super::slot::CudaSlot;
use crate::alloc::reserve_exact;
use crate::backend::cuda::driver::{Address, Buffer, Gpu, Stream};
use crate::backend::{CacheRow, PAGE_TOKENS};
use crate::error::{Error, Result};
use crate::model::Config;

/// Bytes of cache pages that nobody has asked for yet.
const MOST_SPARE: usize = 64 << 20;

#[derive(Default)]
struct Pool {
    addresses: Vec<Address>,
    _slabs: Vec<Buffer>,
}

/// What a page has of a layer.
struct Heads {
    /// Elements before its keys.
    at: usize,
    n: usize,
    dim: usize,
}

/// Every page of a model.
pub struct Pages {
    gpu: Arc<Gpu>,
    pool: Mutex<Pool>,
    layers: Vec<Heads>,
    /// The size of one page.
    pub bytes: usize,
}

impl Pages {
    /// Without a page.
    pub fn new(gpu: &Arc<Gpu>, config: &Config) -> Result<Pages> {
        let (mut layers, mut at) = (Vec::new(), 0);
        reserve_exact(&mut layers, config.n_layers())?;
        for layer in &config.layers {
            let a = layer.attention();
            layers.push(Heads { at, n: a.n_kv_heads, dim: a.head_dim });
            at += 2 * a.kv_width() * PAGE_TOKENS;
        }
        Ok(Pages { gpu: gpu.clone(), pool: Mutex::default(), layers, bytes: 2 * at })
    }

    /// Elements of a head in a layer; 0 where there is none.
    pub fn head_dim(&self, layer: usize) -> usize {
        self.layers.get(layer).map_or(0, |heads| heads.dim)
    }

    /// Makes pages `0 .. n` exist.
    pub fn reserve(&self, n: usize) -> Result<()> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let have = pool.addresses.len();
        if n <= have {
            return Ok(());
        }
        // Some more, for the sessions that will ask next: each of these calls may wait for the device.
        let more = (have / 4).min(MOST_SPARE / self.bytes.max(1));
        let slab = |n: usize| Buffer::new(&self.gpu, self.bytes * n);
        let slab = match slab(n - have + more) {
            Err(Error::OutOfMemory { .. }) if more > 0 => slab(n - have)?,
            slab => slab?,
        };
        pool.addresses.extend((0..slab.bytes() / self.bytes).map(|i| slab.at() + (i * self.bytes) as u64));
        pool._slabs.push(slab);
        Ok(())
    }

    /// Where a page is that somebody wants `bytes` of.
    pub fn at(&self, page: u32, bytes: usize) -> Result<Address> {
        self.gpu.bind()?;
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        match pool.addresses.get(page as usize) {
            Some(at) if bytes == self.bytes => Ok(*at),
            _ => internal("a page that was not reserved, or not the whole of one"),
        }
    }

    /// Addresses of the heads' rows of keys (`which` 0) or values (1), `n` elements in all.
    pub fn rows(&self, at: CacheRow, which: usize, n: usize) -> Result<Vec<Address>> {
        let page = self.at(at.page, self.bytes)?;
        match self.layers.get(at.layer) {
            Some(heads) if at.row < PAGE_TOKENS && n == heads.n * heads.dim => {
                let row = |head| heads.at + ((which * heads.n + head) * PAGE_TOKENS + at.row) * heads.dim;
                Ok((0..heads.n).map(|head| page + 2 * row(head) as u64).collect())
            }
            _ => internal("a row that the cache does not have"),
        }
    }

    /// Zeroes what belongs to positions from `rows` on, in a copy of a page.
    pub fn clear_from(&self, rows: usize, page: &mut [u8]) {
        for heads in &self.layers {
            let (row, from) = (2 * heads.dim, 2 * heads.at);
            let layer = page.get_mut(from..from + 2 * heads.n * PAGE_TOKENS * row).unwrap_or_default();
            for tile in layer.chunks_exact_mut(PAGE_TOKENS * row) {
                tile[rows.min(PAGE_TOKENS) * row..].fill(0);
            }
        }
    }

    /// Makes the slot's table name these pages.
    pub fn bind(&self, stream: &Stream, slot: &mut CudaSlot, pages: &[u32]) -> Result<()> {
        let common = slot.pages.iter().zip(pages).take_while(|(a, b)| a == b).count();
        if common == pages.len() {
            return Ok(());
        }
        if pages.len() * 8 > slot.table.bytes() {
            stream.wait()?;
            slot.table = Buffer::new(&self.gpu, pages.len().next_power_of_two() * 8)?;
            slot.pages.clear();
        }
        let common = common.min(slot.pages.len());
        slot.pages.truncate(common);
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = Vec::with_capacity(pages.len() - common);
        for page in &pages[common..] {
            match pool.addresses.get(*page as usize) {
                Some(address) => rows.push(*address),
                None => return internal("a page that was not reserved"),
            }
        }
        // SAFETY: the table holds pages.len() addresses; pageable memory is staged before this returns.
        unsafe { stream.upload(slot.table.at() + 8 * common as u64, rows.as_ptr().cast(), rows.len() * 8)? };
        slot.pages.extend_from_slice(&pages[common..]);
        Ok(())
    }
}
