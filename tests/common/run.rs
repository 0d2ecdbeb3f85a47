//! A file on a device, and the logits of a list of tokens.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kigo::backend::cpu::{CpuDevice, CpuOptions};
use kigo::backend::{
    Chunk, Device, LoadControl, LoadOptions, LoadedModel, PAGE_TOKENS, RunControl, Slot, StateUse, TapEvent,
    TapObserver, Want,
};
use kigo::error::Result;
use kigo::gguf::Gguf;
use kigo::model::bind;

/// The CPU with so many threads.
pub fn cpu(n_threads: usize) -> Arc<dyn Device> {
    Arc::new(CpuDevice::new(CpuOptions { n_threads, isa: None }).expect("this CPU has kernels"))
}

/// Neither watches nor stops a load.
pub struct NoControl;

impl LoadControl for NoControl {
    fn progress(&mut self, _done: u64, _total: u64) -> Result<()> {
        Ok(())
    }
}

pub fn load(device: &dyn Device, path: &Path) -> Arc<dyn LoadedModel> {
    let gguf = Gguf::open(path).expect("opens");
    let (config, weights) = bind(&gguf).expect("binds");
    device.load(&config, &weights, &LoadOptions::default(), &mut NoControl).expect("loads")
}

/// Tokens as a call of a session appends them, for the logits of the last.
pub fn chunk<'a>(
    model: &dyn LoadedModel,
    slot: &'a mut dyn Slot,
    tokens: &'a [u32],
    start: usize,
    pages: &'a [u32],
) -> Chunk<'a> {
    let by_steps = tokens.len() < model.steps_below();
    Chunk { tokens, start, pages, slot, want: Want::Last, by_steps, state: state_of(start, pages), keeps_cache: false }
}

/// The state of a sequence by itself, in place: that of the number of its first page ([`reserve`]).
pub fn state_of(start: usize, pages: &[u32]) -> Option<StateUse> {
    let to = *pages.first()?;
    Some(StateUse { from: (start > 0).then_some(to), to })
}

/// Pages `0 .. n`, and as many states.
pub fn reserve(model: &dyn LoadedModel, n: usize) {
    model.reserve_pages(n).expect("reserves");
    model.reserve_states(n, n).expect("reserves");
}

/// The logits after each chunk, `[chunk_lens.len()][n_vocab]`; the chunks are a prefix of `tokens`.
pub fn logits_after(model: &dyn LoadedModel, tokens: &[u32], chunk_lens: &[usize]) -> Vec<Vec<f32>> {
    tapped(model, tokens, chunk_lens, None)
}

/// [`logits_after`] with a tap.
pub fn tapped(
    model: &dyn LoadedModel,
    tokens: &[u32],
    chunk_lens: &[usize],
    mut tap: Option<&mut dyn FnMut(&TapEvent<'_>)>,
) -> Vec<Vec<f32>> {
    let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE_TOKENS) as u32).collect();
    reserve(model, pages.len());
    let mut slot = model.create_slot_for(tokens.len()).expect("makes a slot");
    let mut start = 0;
    let mut out = Vec::new();
    for &n in chunk_lens {
        let tokens = &tokens[start..start + n];
        let mut chunks = [chunk(model, &mut *slot, tokens, start, &pages)];
        let cancel = AtomicBool::new(false);
        let tap = tap.as_mut().map(|t| t as &mut dyn TapObserver);
        model.forward(&mut chunks, &mut RunControl { cancel: &cancel, tap }).expect("runs");
        let mut logits = vec![f32::NAN; model.config().n_vocab];
        model.logits(&mut *slot, &mut logits).expect("has logits");
        out.push(logits);
        start += n;
    }
    out
}

/// Whether two rows are the same bits.
pub fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}
