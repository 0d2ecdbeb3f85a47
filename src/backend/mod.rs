//! The one trait a device implements, at the height of a forward pass.
//!
//! Inside it each backend is free. Invariants every implementation keeps:
//! - run to run, the same calls give the same bits; a sequence's results do not depend on which other
//!   sequences share its batch;
//! - a call that fails or is cancelled may have written cache rows at positions from its own `start` on, and the state that it is
//!   to leave ([`StateUse::to`]), and nothing else: repeating it with the same arguments gives what it would have given;
//! - `forward` may be called from several threads at once with different slots; a backend that cannot
//!   overlap them serializes inside.

use std::any::Any;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::{CacheClasses, Config, MAX_CLASSES, Weights};
use crate::sampler::{self, SampleRequest, Sampled, SamplingParams};

mod budget;
mod control;
pub mod cpu;
#[cfg(kigo_cuda)]
pub mod cuda;
#[cfg(not(kigo_cuda))]
#[path = "without_cuda.rs"]
pub mod cuda;
mod devices;
#[cfg(any(test, feature = "faults"))]
pub mod faults;
mod image;
mod info;
mod open;
pub mod reference;
mod state;
mod tap;

pub use budget::Budget;
pub use control::{LoadControl, RunControl, Verdict};
pub use cpu::{Host, HostMemory, MemoryKind};
pub use devices::{DeviceInfo, DeviceKind, device_count, device_info};
pub use image::PageImage;
pub use open::{open, open_for};
pub use state::StateUse;
pub use tap::{TAP_NAMES, TapEvent, TapObserver, tap_order};

/// The most threads that can be asked for.
pub const MAX_THREADS: usize = 1024;
/// Tokens in one page of the KV cache, on every backend.
pub const PAGE_TOKENS: usize = 64;

/// What a load takes on its device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Bytes of the weights as the backend holds them.
    pub weights_bytes: u64,
    /// Bytes of K and V for one token.
    pub kv_bytes_per_token: u64,
    /// Bytes of activations and other working memory at the largest batch.
    pub scratch_bytes: u64,
    /// Bytes of a sequence's state; 0: the model has none.
    pub state_bytes: u64,
}

/// How a model is loaded, for its life.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// A prompt gives the same bits however it is cut into calls: see [`LoadedModel::is_exact_in_chunks`].
    pub strict: bool,
    /// Where a device that counts its allocations enters them.
    pub budget: Arc<Budget>,
}

/// A device with its threads: where models are loaded.
pub trait Device: Send + Sync {
    /// "cpu", "cuda:0", "reference".
    fn name(&self) -> String;
    /// The host's threads that compute.
    fn n_threads(&self) -> usize {
        1
    }
    /// What its kernels are made for, in words, such as an instruction set.
    fn kernels(&self) -> String {
        "plain kernels".to_owned()
    }
    /// Bytes a second that its memory can be read with, measured now, in memory within the budget.
    fn read_bandwidth(&self, _: &Arc<Budget>) -> Result<f64> {
        Err(Error::Unsupported { what: "device operation", name: "measure the bandwidth of the memory".into() })
    }
    /// Fails with `Unsupported` or `UnsupportedValue` where `load` would, of this description.
    fn check(&self, config: &Config) -> Result<()> {
        let _ = config;
        Ok(())
    }
    /// What `load` would take.
    fn plan(&self, config: &Config, weights: &Weights<'_>) -> Plan;
    /// How a page of a model's cache is divided: see [`LoadedModel::drop_part`].
    fn cache_classes(&self, config: &Config) -> Result<CacheClasses> {
        CacheClasses::one(config)
    }
    /// Copies or repacks the weights; nothing borrowed from `weights` is kept. Fails with `Unsupported` where an option
    /// cannot be kept.
    fn load(
        &self,
        config: &Config,
        weights: &Weights<'_>,
        options: &LoadOptions,
        control: &mut dyn LoadControl,
    ) -> Result<Arc<dyn LoadedModel>>;
}

/// One sequence's place on the device: its current logits and whatever its sampling needs there.
pub trait Slot: Send {
    /// For the backend to find its own type again.
    fn as_any(&mut self) -> &mut dyn Any;
}

/// Whether a chunk's last token should leave logits in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Only the cache is wanted.
    Nothing,
    /// The logits of the last token.
    Last,
}

/// Consecutive tokens of one sequence.
pub struct Chunk<'a> {
    /// The tokens, at least one, each below `n_vocab`.
    pub tokens: &'a [u32],
    /// Position of the first of them; positions below it are in the cache.
    pub start: usize,
    /// The sequence's pages in order; covers positions `0 .. start + tokens.len()`. Parts may be gone of those that the class
    /// reads nothing of any more from `start` on ([`CacheClasses::first`]).
    pub pages: &'a [u32],
    /// Receives the logits.
    pub slot: &'a mut dyn Slot,
    /// See [`Want`].
    pub want: Want,
    /// They are computed one by one, as a step computes its token, where that gives other bits than a prompt's
    /// ([`LoadedModel::steps_below`]); otherwise as a prompt's, however few they are.
    pub by_steps: bool,
    /// See [`StateUse`]; `None` where the model has no state.
    pub state: Option<StateUse>,
    /// Their keys and values are in the cache already, and stay: only what the layers with a state make of them is wanted.
    pub keeps_cache: bool,
}

/// A run of tokens chosen and appended one after another.
pub struct Ahead<'a> {
    /// Receives the logits; holds those of the sequence now.
    pub slot: &'a mut dyn Slot,
    /// The sequence's pages in order; covers positions `0 .. position + n`.
    pub pages: &'a [u32],
    /// How tokens are chosen.
    pub params: &'a SamplingParams,
    /// The sequence's last token.
    pub last_token: u32,
    /// Position of the first chosen token, at least 1.
    pub position: usize,
    /// The most tokens to choose.
    pub n: usize,
}

/// Keys and values of one position in one layer.
#[derive(Clone, Copy, Debug)]
pub struct CacheRow {
    /// A reserved page.
    pub page: u32,
    /// Position in the page, below [`PAGE_TOKENS`].
    pub row: usize,
    /// The layer.
    pub layer: usize,
}

/// A model on a device, with its pool of cache pages. Its methods are grouped by who calls them.
pub trait LoadedModel: Send + Sync {
    // Of a model as such: whoever loads it, and all that follow.

    /// The description it was loaded with.
    fn config(&self) -> &Config;

    /// What it takes now.
    fn plan(&self) -> Plan;

    /// Tokens that a pass should have at most.
    fn prefill_chunk(&self) -> usize {
        512
    }

    /// Calls of fewer tokens than this are computed as steps are ([`Chunk::by_steps`]), whose bits are others than a prompt's;
    /// 0: there is no difference. Into which passes a call is cut makes none on any device.
    fn steps_below(&self) -> usize {
        0
    }

    /// A prompt's passes may end at positions that are multiples of this, a divisor of [`PAGE_TOKENS`], whatever their number of
    /// tokens, and change no bit; one pass runs at a time. `None`: they are of [`Self::prefill_chunk`] tokens.
    fn pass_alignment(&self) -> Option<usize> {
        None
    }

    /// Whether a prompt gives the same bits however it is cut into calls; otherwise the same within rounding.
    fn is_exact_in_chunks(&self) -> bool {
        false
    }

    // Of cache pages: the engine's `cache`, which counts who holds them.

    /// Makes pages `0 .. n` exist; never shrinks. Fails with the numbers, changing nothing.
    fn reserve_pages(&self, n: usize) -> Result<()>;

    /// Gives the memory of a page that no sequence uses back, where the device can; its number stays valid.
    fn release_page(&self, page: u32);

    /// How a page is divided: the parts that [`Self::drop_part`] takes away. With one class it is not.
    fn cache_classes(&self) -> Result<CacheClasses> {
        CacheClasses::one(self.config())
    }

    /// Gives the memory of a class's part of a page back; the other parts stay. It is there again when it is next written.
    fn drop_part(&self, page: u32, class: usize) {
        let _ = (page, class);
    }

    /// Makes room for so many parts of each class at once, of whichever pages: a part takes of it when it is first written.
    /// Fails with the numbers, and changes nothing that shows.
    fn reserve_parts(&self, _: &[usize; MAX_CLASSES]) -> Result<()> {
        Ok(())
    }

    /// Whether parts take their memory from where an error says that it is short, and give it back there.
    fn has_parts_in(&self, _: &str) -> bool {
        false
    }

    /// Gives memory back to the device that so many parts of each class do not need; whether there was any.
    fn trim_parts(&self, n: &[usize; MAX_CLASSES]) -> bool {
        let _ = n;
        false
    }

    /// So many parts of each class are there: memory beyond that goes back at once where that costs nothing.
    fn settle_parts(&self, _: &[usize; MAX_CLASSES]) {}

    /// Makes page `to` hold what page `from` holds. Both are reserved; nobody else uses `to`, and nobody writes `from`.
    fn copy_page(&self, from: u32, to: u32) -> Result<()> {
        let _ = (from, to);
        Err(Error::Unsupported { what: "device operation", name: "copy a cache page".into() })
    }

    // Of states, which are numbered as pages are: the engine's `cache`, too.

    /// Makes states `0 .. n` exist, and room for `in_use` of them at once. Fails with the numbers, and changes nothing that shows.
    fn reserve_states(&self, n: usize, in_use: usize) -> Result<()> {
        let _ = (n, in_use);
        Ok(())
    }

    /// Gives the memory of a state that nobody uses back; its number stays valid, and so many are in use.
    fn release_state(&self, state: u32, in_use: usize) {
        let _ = (state, in_use);
    }

    /// Writes a state down, in as many bytes as [`Plan::state_bytes`] says: f32 in the order of `model::Recurrent`, little-endian.
    fn read_state(&self, state: u32, out: &mut [u8]) -> Result<()> {
        let _ = (state, out);
        Err(Error::Unsupported { what: "device operation", name: "read a sequence's state".into() })
    }

    /// Makes a state that nobody else uses hold what [`Self::read_state`] has written down. The bytes may be anybody's.
    fn write_state(&self, state: u32, from: &[u8]) -> Result<()> {
        let _ = (state, from);
        Err(Error::Unsupported { what: "device operation", name: "write a sequence's state".into() })
    }

    // Of passes: `schedule`, with the parts of many sessions.

    /// A place for one sequence of a session of so many tokens: [`Config::is_long`] says which ropes turn its keys.
    fn create_slot_for(&self, n_ctx: usize) -> Result<Box<dyn Slot>>;

    /// A place for one sequence of a session that is not long.
    fn create_slot(&self) -> Result<Box<dyn Slot>> {
        self.create_slot_for(0)
    }

    /// Runs the chunks as one batch.
    fn forward(&self, chunks: &mut [Chunk<'_>], run: &mut RunControl<'_>) -> Result<()>;

    /// Copies a slot's logits out; `out` has `n_vocab` elements.
    fn logits(&self, slot: &mut dyn Slot, out: &mut [f32]) -> Result<()>;

    // Of choices: sessions, batches and generation. All but the first follow from it, and may be faster.

    /// Picks a token from a slot's logits.
    fn sample(&self, slot: &mut dyn Slot, request: &SampleRequest<'_>) -> Result<Sampled>;

    /// Picks a token from logits that are at hand, such as those that something has been banned from: what [`Self::sample`]
    /// picks from the same.
    fn draw(&self, logits: &[f32], request: &SampleRequest<'_>) -> Result<Sampled> {
        sampler::sample(logits, request)
    }

    /// Picks a token from a slot's logits as [`Self::sample`] does, were those of the tokens not in `allowed` minus infinity
    /// ([`sampler::ban`]).
    fn sample_among(&self, slot: &mut dyn Slot, request: &SampleRequest<'_>, allowed: &[u32]) -> Result<Sampled> {
        let n_vocab = self.config().n_vocab;
        let mut logits = Vec::new();
        crate::alloc::reserve(&mut logits, n_vocab)?;
        logits.resize(n_vocab, 0.0);
        self.logits(slot, &mut logits)?;
        sampler::ban(&mut logits, allowed);
        self.draw(&logits, request)
    }

    /// Picks a token from each slot's logits, what [`Self::sample`] picks; `slots` and `requests` go together.
    fn sample_batch(&self, slots: &mut [&mut dyn Slot], requests: &[SampleRequest<'_>]) -> Vec<Result<Sampled>> {
        slots.iter_mut().zip(requests).map(|(slot, request)| self.sample(&mut **slot, request)).collect()
    }

    /// Chooses tokens and appends each before the next is chosen, the device ahead of the host; `emit` sees each in turn, while
    /// nothing is locked. Afterwards the slot has the logits after the last appended token; after an error it has none.
    /// `None`: this backend or these parameters cannot, nothing has happened, sample and forward instead. The tokens
    /// are those that sampling and forwarding one by one gives.
    fn decode_ahead(&self, ahead: Ahead<'_>, emit: &mut dyn FnMut(u32) -> Result<Verdict>) -> Result<Option<()>> {
        let _ = (ahead, emit);
        Ok(None)
    }

    // Of sessions as bytes: `save`.

    /// How pages are written down; `None`: this backend cannot.
    fn page_image(&self) -> Option<PageImage> {
        None
    }

    /// Writes down the first `rows` positions of a page, part by part; `out` has [`PageImage::bytes`], of which what belongs to
    /// other positions is zeroed.
    fn read_page(&self, page: u32, rows: usize, out: &mut [u8]) -> Result<()> {
        let (parts, mut rest) = (self.page_image().map_or([0; MAX_CLASSES], |image| image.parts), out);
        for (class, bytes) in parts.into_iter().enumerate().take(self.cache_classes()?.n()) {
            let (part, behind) = rest.split_at_mut(bytes.min(rest.len()));
            self.read_part(page, class, rows, part)?;
            rest = behind;
        }
        Ok(())
    }

    /// Makes a page that nobody else uses hold what [`Self::read_page`] has written down. The bytes may be anybody's:
    /// any of them give a page, if not a useful one.
    fn write_page(&self, page: u32, from: &[u8]) -> Result<()> {
        let (parts, mut rest) = (self.page_image().map_or([0; MAX_CLASSES], |image| image.parts), from);
        for (class, bytes) in parts.into_iter().enumerate().take(self.cache_classes()?.n()) {
            let (part, behind) = rest.split_at(bytes.min(rest.len()));
            self.write_part(page, class, part)?;
            rest = behind;
        }
        Ok(())
    }

    /// [`Self::read_page`] for a class's part.
    fn read_part(&self, page: u32, class: usize, rows: usize, out: &mut [u8]) -> Result<()> {
        let _ = (page, class, rows, out);
        Err(Error::Unsupported { what: "device operation", name: "read a cache page".into() })
    }

    /// [`Self::write_page`] for a class's part.
    fn write_part(&self, page: u32, class: usize, from: &[u8]) -> Result<()> {
        let _ = (page, class, from);
        Err(Error::Unsupported { what: "device operation", name: "write a cache page".into() })
    }

    /// Makes `logits`, `n_vocab` of them, a slot's.
    fn set_logits(&self, slot: &mut dyn Slot, logits: &[f32]) -> Result<()> {
        let _ = (slot, logits);
        Err(Error::Unsupported { what: "device operation", name: "set logits".into() })
    }

    // Of checks: `doctor`, through the engine's `inspect`.

    /// What the cache holds, as the device would read it; keys of [`Attention::kv_width`](crate::model::Attention::kv_width)
    /// elements, values of [`Attention::v_width`](crate::model::Attention::v_width). No pass of the page's sequence is under way.
    fn read_cache(&self, at: CacheRow, keys: &mut [f32], values: &mut [f32]) -> Result<()> {
        let _ = (at, keys, values);
        Err(Error::Unsupported { what: "device operation", name: "read the cache".into() })
    }

    /// Replaces what the cache holds, rounded as the device rounds; NaN is allowed. The page belongs to
    /// one sequence, of which no pass is under way.
    fn write_cache(&self, at: CacheRow, keys: &[f32], values: &[f32]) -> Result<()> {
        let _ = (at, keys, values);
        Err(Error::Unsupported { what: "device operation", name: "write the cache".into() })
    }
}
