//! The plain f32 backend that the others are checked against; reads like the paper.
//!
//! Every weight is dequantized to f32 when the model is loaded, every vector and the KV cache are f32, every sum is
//! kept in f64, and one token goes through the network at a time on the calling thread: nothing depends on how
//! a prompt was chunked, on the batch or on a number of threads. Read `Network::forward` first.
//!
//! Taps have one row (one token) each: `embed`, then per layer `attn_norm` (what the mixer reads), `q_rope`, `k_rope`, `v`,
//! `attn_mix` (before Wo), `attn_out` (after Wo, before the post norm), `ffn_norm` (what the feed-forward part reads),
//! `ffn_act` (activation(gate) * up, or activation(up)) or, of experts, `moe_logits`, `moe_ids` (ascending) and `moe_weights`,
//! `ffn_out` (after Wdown, before the post norm), `resid` (the stream after the layer); `final_norm` and `logits` only where
//! logits are wanted.

use std::any::Any;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};

use super::{
    CacheRow, Chunk, Device, LoadControl, LoadOptions, LoadedModel, PAGE_TOKENS, PageImage, Plan, RunControl, Slot,
    TapEvent, Want,
};
use crate::error::{Error, Result};
use crate::model::{CacheClasses, Config, MAX_CLASSES, Weights};
use crate::sampler::{self, SampleRequest, Sampled};

mod attention;
mod ffn;
mod forward;
mod latent;
mod load;
mod math;
mod mixing;
mod per_layer;
mod recurrent;
mod routed;
mod states;

use forward::{Network, Part, SharedPage, State};
use routed::Routed;
use states::States;

/// The reference device. It has no state; there may be any number of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReferenceDevice {
    /// Keys and values are rounded to f16 before they are kept, as backends with an f16 cache do: what is left between
    /// such a backend and this one is its arithmetic.
    pub f16_cache: bool,
}

impl ReferenceDevice {
    /// All f32.
    pub const PLAIN: ReferenceDevice = ReferenceDevice { f16_cache: false };
    /// All f32 but the cache, which is f16.
    pub const F16_CACHE: ReferenceDevice = ReferenceDevice { f16_cache: true };
}

impl Device for ReferenceDevice {
    fn name(&self) -> String {
        if self.f16_cache { "reference with an f16 cache".into() } else { "reference".into() }
    }

    fn plan(&self, config: &Config, weights: &Weights<'_>) -> Plan {
        plan_of(config, weights)
    }

    fn cache_classes(&self, config: &Config) -> Result<CacheClasses> {
        CacheClasses::new(config)
    }

    /// Always strict; the engine counts what it takes.
    fn load(
        &self,
        config: &Config,
        weights: &Weights<'_>,
        _: &LoadOptions,
        control: &mut dyn LoadControl,
    ) -> Result<Arc<dyn LoadedModel>> {
        let network = Network::load(config, weights, self.f16_cache, control)?;
        let plan = self.plan(config, weights);
        Ok(Arc::new(ReferenceModel { network, plan, pool: RwLock::default(), states: States::default() }))
    }
}

/// A dequantized model with its cache.
struct ReferenceModel {
    network: Network,
    plan: Plan,
    pool: RwLock<Vec<SharedPage>>,
    states: States,
}

/// A sequence's current logits.
struct ReferenceSlot {
    logits: Option<Vec<f32>>, // [n_vocab]
    is_long: bool,
}

impl Slot for ReferenceSlot {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl ReferenceModel {
    /// The pages of a chunk, after a check of everything that would otherwise be an index out of range.
    fn pages(&self, chunk: &Chunk<'_>) -> Result<Vec<SharedPage>> {
        let broken = |message: String| Err(Error::Internal { message });
        let n_vocab = self.network.config.n_vocab;
        if chunk.tokens.is_empty() {
            return broken("a chunk without tokens".into());
        }
        if let Some((index, &token)) = chunk.tokens.iter().enumerate().find(|&(_, &t)| t as usize >= n_vocab) {
            return Err(Error::TokenOutOfRange { index, token, n_vocab });
        }
        let needed = (chunk.start + chunk.tokens.len()).div_ceil(PAGE_TOKENS);
        if chunk.pages.len() < needed {
            return broken(format!("a chunk has {} pages, {needed} needed", chunk.pages.len()));
        }
        let pool = self.pool.read().unwrap_or_else(PoisonError::into_inner);
        match chunk.pages[..needed].iter().find(|&&p| p as usize >= pool.len()) {
            Some(page) => broken(format!("page {page} of a pool of {}", pool.len())),
            None => Ok(chunk.pages[..needed].iter().map(|&p| pool[p as usize].clone()).collect()),
        }
    }

    /// The page of this number.
    fn page(&self, page: u32) -> Result<SharedPage> {
        let pool = self.pool.read().unwrap_or_else(PoisonError::into_inner);
        let missing = || Error::Internal { message: format!("page {page} of a pool of {}", pool.len()) };
        pool.get(page as usize).cloned().ok_or_else(missing)
    }

    /// The page of a row, its part there, and where the row stands in the part's `k` and `v`.
    fn cache_row(&self, at: CacheRow, n: [usize; 2]) -> Result<(SharedPage, usize, [Range<usize>; 2])> {
        let network = &self.network;
        let pool = self.pool.read().unwrap_or_else(PoisonError::into_inner);
        let there = at.layer < network.config.n_layers() && at.row < PAGE_TOKENS;
        match pool.get(at.page as usize) {
            Some(page) if there && n == network.row_lens(at.layer) => {
                let from = network.row_offsets(at.layer, at.row);
                let ranges = [0, 1].map(|i| from[i]..from[i] + n[i]);
                Ok((page.clone(), network.classes.of(at.layer), ranges))
            }
            _ => Err(Error::Internal { message: format!("{at:?} of {n:?} elements") }),
        }
    }

    /// Runs one chunk; its last logits where they are wanted.
    fn run_chunk(&self, sequence: usize, chunk: &mut Chunk<'_>, run: &mut RunControl<'_>) -> Result<Option<Vec<f32>>> {
        let is_long = own(chunk.slot)?.is_long;
        let pages = self.pages(chunk)?;
        let config = &self.network.config;
        let mut state = State::new(config, is_long, chunk.start + chunk.tokens.len())?;
        state.keeps_cache = chunk.keeps_cache;
        self.states.load(chunk, &mut state.mixing.state)?;
        let mut logits = match chunk.want {
            Want::Last => Some(zeros(config.n_vocab)?),
            Want::Nothing => None,
        };
        for (i, &token) in chunk.tokens.iter().enumerate() {
            if run.cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let position = chunk.start + i;
            let wanted = logits.as_deref_mut().filter(|_| i + 1 == chunk.tokens.len());
            let mut tap = |name, layer, data: &[f32]| {
                run.show(&TapEvent { name, layer, sequence, position, rows: 1, cols: data.len(), data });
            };
            self.network.forward(token, position, &pages, wanted, &mut state, &mut tap)?;
        }
        self.states.store(chunk, state.mixing.state)?;
        Ok(logits)
    }
}

impl LoadedModel for ReferenceModel {
    fn config(&self) -> &Config {
        &self.network.config
    }

    fn plan(&self) -> Plan {
        self.plan
    }

    /// A page takes memory when it is first written.
    fn reserve_pages(&self, n: usize) -> Result<()> {
        let mut pool = self.pool.write().unwrap_or_else(PoisonError::into_inner);
        let missing = n.saturating_sub(pool.len());
        pool.try_reserve(missing).map_err(|_| out_of_memory::<SharedPage>(missing))?;
        pool.extend((0..missing).map(|_| SharedPage::default()));
        Ok(())
    }

    fn release_page(&self, page: u32) {
        let pool = self.pool.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = pool.get(page as usize) {
            *page.write().unwrap_or_else(PoisonError::into_inner) = Default::default();
        }
    }

    fn copy_page(&self, from: u32, to: u32) -> Result<()> {
        let pool = self.pool.read().unwrap_or_else(PoisonError::into_inner);
        let (Some(from), Some(to)) = (pool.get(from as usize), pool.get(to as usize)) else {
            return Err(Error::Internal { message: format!("page {from} or {to} of a pool of {}", pool.len()) });
        };
        let copy = from.read().unwrap_or_else(PoisonError::into_inner).copy()?;
        *to.write().unwrap_or_else(PoisonError::into_inner) = copy;
        Ok(())
    }

    fn cache_classes(&self) -> Result<CacheClasses> {
        Ok(self.network.classes.clone())
    }

    fn drop_part(&self, page: u32, class: usize) {
        if let (Ok(page), true) = (self.page(page), class < MAX_CLASSES) {
            page.write().unwrap_or_else(PoisonError::into_inner).parts[class] = Part::default();
        }
    }

    fn page_image(&self) -> Option<PageImage> {
        let layout = "reference, f32, keys then values, [layer, token, kv head, element]";
        let parts = self.network.part_lens.map(|[k, v]| (k + v) * size_of::<f32>());
        Some(PageImage { bytes: parts.iter().sum(), parts, layout, sums: 1 })
    }

    fn read_part(&self, page: u32, class: usize, rows: usize, out: &mut [u8]) -> Result<()> {
        let page = self.page(page)?;
        let page = page.read().unwrap_or_else(PoisonError::into_inner);
        out.fill(0);
        let network = &self.network;
        let (Some(part), Some(&[n, _])) = (page.parts.get(class), network.part_lens.get(class)) else { return Ok(()) };
        let out = out.as_chunks_mut::<4>().0;
        let (keys, values) = out.split_at_mut(n.min(out.len()));
        // A part that nobody has written has no memory, and zeros are its rows.
        for (i, (out, from)) in [(keys, &part.k), (values, &part.v)].into_iter().enumerate() {
            for layer in (0..network.config.n_layers()).filter(|layer| network.classes.of(*layer) == class) {
                let (at, len) = (network.row_offsets(layer, 0)[i], rows.min(PAGE_TOKENS) * network.row_lens(layer)[i]);
                let (Some(out), Some(from)) = (out.get_mut(at..at + len), from.get(at..at + len)) else { continue };
                out.iter_mut().zip(from).for_each(|(out, x)| *out = x.to_le_bytes());
            }
        }
        Ok(())
    }

    fn write_part(&self, page: u32, class: usize, from: &[u8]) -> Result<()> {
        let page = self.page(page)?;
        let mut page = page.write().unwrap_or_else(PoisonError::into_inner);
        let Some(&lens) = self.network.part_lens.get(class).filter(|lens| lens[0] > 0) else { return Ok(()) };
        let Part { k, v } = page.written(class, lens)?;
        for (x, bytes) in k.iter_mut().chain(v).zip(from.as_chunks::<4>().0) {
            *x = f32::from_le_bytes(*bytes);
        }
        Ok(())
    }

    fn reserve_states(&self, n: usize, _: usize) -> Result<()> {
        self.states.reserve(n)
    }

    fn release_state(&self, state: u32, _: usize) {
        self.states.release(state);
    }

    fn read_state(&self, state: u32, out: &mut [u8]) -> Result<()> {
        self.states.read(state, out)
    }

    fn write_state(&self, state: u32, from: &[u8]) -> Result<()> {
        self.states.write(state, self.network.config.state_len(), from)
    }

    fn set_logits(&self, slot: &mut dyn Slot, logits: &[f32]) -> Result<()> {
        let mut copy = zeros(self.network.config.n_vocab)?;
        if logits.len() != copy.len() {
            return Err(Error::BufferTooSmall { needed: copy.len(), capacity: logits.len() });
        }
        copy.copy_from_slice(logits);
        own(slot)?.logits = Some(copy);
        Ok(())
    }

    fn pass_alignment(&self) -> Option<usize> {
        Some(1)
    }

    fn is_exact_in_chunks(&self) -> bool {
        true
    }

    fn read_cache(&self, at: CacheRow, keys: &mut [f32], values: &mut [f32]) -> Result<()> {
        let (page, class, ranges) = self.cache_row(at, [keys.len(), values.len()])?;
        let page = page.read().unwrap_or_else(PoisonError::into_inner);
        let part = &page.parts[class];
        // Not there before the first write.
        for ((to, from), range) in [(keys, &part.k), (values, &part.v)].into_iter().zip(ranges) {
            match from.get(range) {
                Some(from) => to.copy_from_slice(from),
                None => to.fill(0.0),
            }
        }
        Ok(())
    }

    fn write_cache(&self, at: CacheRow, keys: &[f32], values: &[f32]) -> Result<()> {
        let (page, class, [of_keys, of_values]) = self.cache_row(at, [keys.len(), values.len()])?;
        let mut page = page.write().unwrap_or_else(PoisonError::into_inner);
        let part = page.written(class, self.network.part_lens[class])?;
        part.k[of_keys].copy_from_slice(keys);
        part.v[of_values].copy_from_slice(values);
        Ok(())
    }

    fn create_slot_for(&self, n_ctx: usize) -> Result<Box<dyn Slot>> {
        Ok(Box::new(ReferenceSlot { logits: None, is_long: self.network.config.is_long(n_ctx) }))
    }

    fn forward(&self, chunks: &mut [Chunk<'_>], run: &mut RunControl<'_>) -> Result<()> {
        let outcomes = chunks
            .iter_mut()
            .enumerate()
            .map(|(i, chunk)| self.run_chunk(i, chunk, run))
            .collect::<Result<Vec<_>>>()?;
        // Only now, so that a failure changes no slot.
        for (chunk, logits) in chunks.iter_mut().zip(outcomes) {
            if logits.is_some() {
                own(chunk.slot)?.logits = logits;
            }
        }
        Ok(())
    }

    fn logits(&self, slot: &mut dyn Slot, out: &mut [f32]) -> Result<()> {
        let logits = current(slot)?;
        if out.len() < logits.len() {
            return Err(Error::BufferTooSmall { needed: logits.len(), capacity: out.len() });
        }
        out[..logits.len()].copy_from_slice(logits);
        Ok(())
    }

    fn sample(&self, slot: &mut dyn Slot, request: &SampleRequest<'_>) -> Result<Sampled> {
        sampler::sample(current(slot)?, request)
    }
}

/// This backend's slot behind the trait.
fn own(slot: &mut dyn Slot) -> Result<&mut ReferenceSlot> {
    slot.as_any().downcast_mut().ok_or_else(|| Error::Internal { message: "a slot of another backend".into() })
}

/// The logits a slot holds.
fn current(slot: &mut dyn Slot) -> Result<&[f32]> {
    own(slot)?.logits.as_deref().ok_or(Error::State { needs: "logits: prefill first" })
}

/// `n` zeros, or [`Error::OutOfMemory`].
fn zeros<T: Clone + Default>(n: usize) -> Result<Vec<T>> {
    let mut v = Vec::new();
    v.try_reserve_exact(n).map_err(|_| out_of_memory::<T>(n))?;
    v.resize(n, T::default());
    Ok(v)
}

fn out_of_memory<T>(n: usize) -> Error {
    // The allocator does not say what is free.
    Error::OutOfMemory { place: "host".into(), requested: (n * size_of::<T>()) as u64, free: 0 }
}

fn plan_of(c: &Config, w: &Weights<'_>) -> Plan {
    let most = c.widths();
    let (routed, sum) = (2 * most.n_experts + 3 * most.n_used, if most.n_experts == 0 { 0 } else { c.n_embd });
    let by_layer = most.per_layer + c.per_layer.map_or(0, |per_layer| per_layer.width);
    let mixed = most.q + most.q.max(most.latent) + 2 * most.latent + by_layer + Routed::input_len(c);
    let row = 4 * c.n_embd + mixed + 2 * most.kv + 2 * most.ffn.max(most.expert) + routed + c.n_vocab; // f32
    let mixing = most.mix_in + most.conv + 4 * most.mix_out + most.gated_q + 2 * most.gates + c.n_embd;
    let wide = c.n_ctx_train + most.head + 2 * most.pairs + most.n_experts + sum; // f64
    Plan {
        weights_bytes: w.iter().map(|t| (t.rows * t.cols * size_of::<f32>()) as u64).sum(),
        kv_bytes_per_token: (c.kv_bytes_per_token() * 2) as u64, // f32,
        scratch_bytes: ((row + mixing) * size_of::<f32>() + wide * size_of::<f64>()) as u64,
        state_bytes: (c.state_len() * size_of::<f32>()) as u64,
    }
}
