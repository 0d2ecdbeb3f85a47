//! The CPU backend's model behind the trait: pages, slots, and rounds of a batch.

use std::sync::{PoisonError, TryLockError};

use half::f16;

use super::cache::PageAddress;
use super::forward::{CpuModel, MAX_ROWS, Piece};
use super::host::MemoryKind;
use super::memory;
use super::room::Room;
use super::slot::{CpuSlot, slot};
use super::softmax_weights::softmax_weights_by;
use crate::alloc::reserve;
use crate::backend::{CacheRow, Chunk, LoadedModel, PAGE_TOKENS, PageImage, Plan, RunControl, Slot};
use crate::error::{Error, Result};
use crate::model::{CacheClasses, Config, Layer, MAX_CLASSES};
use crate::sampler::{SampleRequest, Sampled, Scratch as Drawing, sample_with};

fn not_reserved() -> Error {
    Error::Internal { message: "a page that was not reserved".into() }
}

impl CpuModel {
    /// The page of a row that is there.
    fn cache_page(&self, at: CacheRow, n_keys: usize, n_values: usize) -> Result<PageAddress> {
        let widths = |l: &Layer| (l.attention().kv_width(), l.attention().v_width());
        let of_layer = self.config.layers.get(at.layer).map(widths);
        let mut page = Vec::new();
        let there = self.pages[self.layout.classes.of(at.layer)].addresses(&[at.page], &mut page).is_some();
        match page.first() {
            Some(page) if there && at.row < PAGE_TOKENS && of_layer == Some((n_keys, n_values)) => Ok(*page),
            _ => Err(Error::Internal { message: format!("{at:?} of {n_keys} and {n_values} elements") }),
        }
    }

    /// Appends the addresses of a chunk's pages, class by class, of each those that it reads: where they begin, how many a
    /// class has.
    fn addresses(&self, chunk: &Chunk<'_>, out: &mut Vec<PageAddress>) -> Result<(usize, usize)> {
        let (first, n) = (out.len(), chunk.pages.len());
        let end = (chunk.start + chunk.tokens.len()).div_ceil(PAGE_TOKENS).min(n);
        reserve(out, n * self.pages.len())?;
        for (class, pages) in self.pages.iter().enumerate() {
            let from = (self.layout.classes.first(class, chunk.start) / PAGE_TOKENS).min(end);
            out.extend((0..from).map(|_| PageAddress::NONE));
            pages.addresses(&chunk.pages[from..end], out).ok_or_else(not_reserved)?;
            out.extend((end..n).map(|_| PageAddress::NONE));
        }
        Ok((first, n))
    }

    /// Where a chunk's states are; none where the model has none.
    fn states(&self, chunk: &Chunk<'_>) -> Result<(PageAddress, PageAddress)> {
        let Some(used) = chunk.state.filter(|_| self.plan.state_bytes > 0) else {
            return Ok((PageAddress::NONE, PageAddress::NONE));
        };
        let find = |state: u32, overwritten| self.states.address(state, overwritten).ok_or_else(not_reserved);
        // It is read where it is before it is written elsewhere, or there.
        let from = used.from.map_or(Ok(PageAddress::NONE), |from| find(from, false))?;
        Ok((from, find(used.to, true)?))
    }

    fn check(&self, chunks: &[Chunk<'_>]) -> Result<()> {
        for c in chunks {
            let bad = c.tokens.iter().position(|&t| t as usize >= self.config.n_vocab);
            if let Some(index) = bad {
                let n_vocab = self.config.n_vocab;
                return Err(Error::TokenOutOfRange { index, token: c.tokens[index], n_vocab });
            }
            let begun = c.state.is_some_and(|used| c.start == 0 || used.from.is_some());
            if self.plan.state_bytes > 0 && !begun {
                return Err(Error::Internal { message: format!("no state in front of position {}", c.start) });
            }
            if c.tokens.is_empty() || c.pages.len() * PAGE_TOKENS < c.start + c.tokens.len() {
                return Err(Error::Internal {
                    message: format!("{} pages for {} + {} tokens", c.pages.len(), c.start, c.tokens.len()),
                });
            }
        }
        Ok(())
    }
}

impl LoadedModel for CpuModel {
    fn config(&self) -> &Config {
        &self.config
    }

    fn plan(&self) -> Plan {
        self.plan
    }

    fn reserve_pages(&self, n: usize) -> Result<()> {
        self.pages.iter().try_for_each(|pages| pages.reserve(n))
    }

    fn release_page(&self, page: u32) {
        self.pages.iter().for_each(|pages| pages.release(page));
    }

    fn drop_part(&self, page: u32, class: usize) {
        if let Some(pages) = self.pages.get(class) {
            pages.release(page);
        }
    }

    fn reserve_parts(&self, n: &[usize; MAX_CLASSES]) -> Result<()> {
        // Of one class may go what another needs.
        self.settle_parts(n);
        self.pages.iter().zip(n).try_for_each(|(pages, n)| pages.reserve_parts(*n))
    }

    fn has_parts_in(&self, place: &str) -> bool {
        self.memory.is_some() && place == memory::PLACE
    }

    fn trim_parts(&self, n: &[usize; MAX_CLASSES]) -> bool {
        self.pages.iter().zip(n).fold(false, |any, (pages, n)| pages.settle(*n) | any)
    }

    fn settle_parts(&self, n: &[usize; MAX_CLASSES]) {
        self.trim_parts(n);
    }

    fn copy_page(&self, from: u32, to: u32) -> Result<()> {
        let copied = self.pages.iter().try_for_each(|pages| pages.copy(from, to));
        copied.ok_or_else(not_reserved)
    }

    fn page_image(&self) -> Option<PageImage> {
        let mut parts = [0; MAX_CLASSES];
        parts.iter_mut().enumerate().for_each(|(class, part)| *part = 2 * self.layout.part_len(class));
        let layout = "cpu, f16, keys 16 a block, values a row";
        Some(PageImage { bytes: parts.iter().sum(), parts, layout, sums: 1 })
    }

    fn read_part(&self, page: u32, class: usize, rows: usize, out: &mut [u8]) -> Result<()> {
        let read = self.pages.get(class).and_then(|pages| pages.read(page, out));
        read.ok_or_else(not_reserved)?;
        self.layout.clear_from(class, rows, out);
        Ok(())
    }

    fn write_part(&self, page: u32, class: usize, from: &[u8]) -> Result<()> {
        self.pages.get(class).and_then(|pages| pages.write(page, from)).ok_or_else(not_reserved)
    }

    fn cache_classes(&self) -> Result<CacheClasses> {
        Ok(self.layout.classes.clone())
    }

    fn reserve_states(&self, n: usize, in_use: usize) -> Result<()> {
        self.states.reserve(n)?;
        self.states.reserve_parts(in_use)
    }

    fn release_state(&self, state: u32, in_use: usize) {
        self.states.release(state);
        self.states.settle(in_use);
    }

    fn read_state(&self, state: u32, out: &mut [u8]) -> Result<()> {
        self.states.read(state, out).ok_or_else(not_reserved)
    }

    fn write_state(&self, state: u32, from: &[u8]) -> Result<()> {
        self.states.write(state, from).ok_or_else(not_reserved)
    }

    fn set_logits(&self, s: &mut dyn Slot, logits: &[f32]) -> Result<()> {
        let own = &mut slot(s)?.logits;
        if own.len() != logits.len() {
            return Err(Error::BufferTooSmall { needed: own.len(), capacity: logits.len() });
        }
        own.copy_from_slice(logits);
        Ok(())
    }

    fn pass_alignment(&self) -> Option<usize> {
        Some(1)
    }

    fn is_exact_in_chunks(&self) -> bool {
        true
    }

    fn read_cache(&self, at: CacheRow, keys: &mut [f32], values: &mut [f32]) -> Result<()> {
        let page = self.cache_page(at, keys.len(), values.len())?;
        let layout = self.layout.layer(at.layer);
        let (dim, heads) = (layout.head_dim, layout.n_kv_heads);
        let v_dim = values.len() / heads.max(1);
        let (mut k, mut v) = (vec![0; dim], vec![0; v_dim]);
        for head in 0..heads {
            // SAFETY: `cache_page` has checked page, layer and row; no pass of its sequence is under way.
            unsafe { layout.read(page.0, head, at.row, &mut k, &mut v) };
            for (to, from) in [(&mut *keys, &k), (&mut *values, &v)] {
                let to = &mut to[head * from.len()..][..from.len()];
                to.iter_mut().zip(from).for_each(|(to, from)| *to = f16::from_bits(*from).to_f32());
            }
        }
        Ok(())
    }

    fn write_cache(&self, at: CacheRow, keys: &[f32], values: &[f32]) -> Result<()> {
        let page = self.cache_page(at, keys.len(), values.len())?;
        let layout = self.layout.layer(at.layer);
        let (dim, heads) = (layout.head_dim, layout.n_kv_heads);
        let v_dim = values.len() / heads.max(1);
        let halves = |from: &[f32]| from.iter().map(|x| f16::from_f32(*x).to_bits()).collect::<Vec<u16>>();
        for head in 0..heads {
            let (k, v) = (halves(&keys[head * dim..][..dim]), halves(&values[head * v_dim..][..v_dim]));
            // SAFETY: `cache_page` has checked page, layer and row; the page is one sequence's, which runs no pass.
            unsafe { layout.write(page.0.cast_mut(), head, at.row, &k, &v) };
        }
        Ok(())
    }

    fn create_slot_for(&self, n_ctx: usize) -> Result<Box<dyn Slot>> {
        let mut logits = Room::new(self.memory.as_ref(), MemoryKind::State);
        logits.sized(self.config.n_vocab)?;
        Ok(Box::new(CpuSlot { logits, is_long: self.config.is_long(n_ctx) }))
    }

    fn forward(&self, chunks: &mut [Chunk<'_>], run: &mut RunControl<'_>) -> Result<()> {
        self.check(chunks)?;
        let turn = self.pool.turn();
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pieces: Vec<Piece> = Vec::new();
        let mut rows = 0;
        scratch.pages.clear();
        for chunk in 0..chunks.len() {
            let (n, start) = (chunks[chunk].tokens.len(), chunks[chunk].start);
            let pages = self.addresses(&chunks[chunk], &mut scratch.pages)?;
            let is_long = slot(chunks[chunk].slot)?.is_long;
            let (mut state, keeps_cache) = (self.states(&chunks[chunk])?, chunks[chunk].keeps_cache);
            let mut from = 0;
            while from < n {
                let to = n.min(from + MAX_ROWS - rows);
                reserve(&mut pieces, 1)?;
                let start = start + from;
                pieces.push(Piece { chunk, from, to, row: rows, start, pages, is_long, state, keeps_cache });
                state.0 = state.1;
                rows += to - from;
                from = to;
                if rows == MAX_ROWS {
                    self.round(&turn, &mut scratch, chunks, &pieces, run)?;
                    pieces.clear();
                    rows = 0;
                }
            }
        }
        if rows > 0 { self.round(&turn, &mut scratch, chunks, &pieces, run) } else { Ok(()) }
    }

    fn logits(&self, s: &mut dyn Slot, out: &mut [f32]) -> Result<()> {
        let logits = &slot(s)?.logits;
        if out.len() != logits.len() {
            return Err(Error::BufferTooSmall { needed: logits.len(), capacity: out.len() });
        }
        out.copy_from_slice(logits);
        Ok(())
    }

    fn sample(&self, s: &mut dyn Slot, request: &SampleRequest<'_>) -> Result<Sampled> {
        self.draw(&slot(s)?.logits, request)
    }

    fn draw(&self, logits: &[f32], request: &SampleRequest<'_>) -> Result<Sampled> {
        let drawing = match self.drawing.try_lock() {
            // Nothing of it outlives a draw, so one that has panicked has left nothing.
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            other => other,
        };
        match drawing {
            Ok(mut drawing) => sample_with(&mut drawing, logits, request),
            // Another thread draws right now.
            Err(_) => sample_with(&mut Drawing::with_weights(softmax_weights_by(self.isa)), logits, request),
        }
    }
}
