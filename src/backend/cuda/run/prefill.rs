//! A pass of prompts: tells the device of its rows, launches layer by layer.
//!
//! The host stays at most [`LAYERS_AHEAD`] layers ahead of the device, which bounds how late a cancel is seen.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::states::StateAt;
use super::tap::TapReader;
use crate::backend::RunControl;
use crate::backend::cuda::driver::{Address, Buffer, Event, Gpu, Stream};
use crate::backend::cuda::kernels::abi::{FlashTile, RowPlace, Span};
use crate::backend::cuda::kernels::launch::Queue;
use crate::backend::cuda::plan::limits::LAYERS_AHEAD;
use crate::backend::cuda::plan::lower_prefill::{Launch, Run, lower};
use crate::backend::cuda::plan::op::Op;
use crate::backend::cuda::plan::pass::Pass;
use crate::backend::cuda::plan::prefill_workspace::{PrefillWorkspace, most_tiles};
use crate::backend::cuda::plan::tables::Tables;
use crate::error::{Error, Result};
use crate::model::Config;

/// Consecutive tokens of one sequence in a pass.
pub struct Part<'a> {
    /// Addresses of the sequence's pages, on the device.
    pub tables: Tables,
    /// Index of the sequence in the batch.
    pub sequence: usize,
    /// See [`CudaSlot::is_long`].
    pub is_long: bool,
    /// Where its state is.
    pub state: StateAt,
    /// Position of the first token.
    pub start: usize,
    /// At least one; `LEAST_ROWS` where there are several parts.
    pub tokens: &'a [u32],
}

/// Where a pass runs.
#[derive(Clone, Copy)]
pub struct On<'a> {
    /// The device.
    pub gpu: &'a Arc<Gpu>,
    /// The model.
    pub config: &'a Config,
    /// Its body, and what ends it.
    pub ops: &'a [Op],
    /// The buffers.
    pub work: &'a PrefillWorkspace,
    /// The queue.
    pub stream: &'a Stream,
}

/// Puts the parts, one behind the other, through all layers; their keys and values are in the cache afterwards. Returns the
/// address of the first token's residual stream, [m, n_embd] f32. A tap sees one part only.
pub fn run(on: On<'_>, parts: &[Part<'_>], run: &mut RunControl<'_>) -> Result<Address> {
    let On { gpu, config, ops, work, stream } = on;
    let tokens: Vec<u32> = parts.iter().flat_map(|part| part.tokens).copied().collect();
    let m = tokens.len();
    if m > work.rows || m == 0 || (parts.len() > 1 && run.tap.is_some()) {
        return Err(Error::Internal { message: format!("{m} tokens in a pass of {}", work.rows) });
    }
    // SAFETY: there is room for `rows` tokens; the host's are staged before this returns.
    unsafe { stream.upload(work.tokens, tokens.as_ptr().cast(), m * 4)? };
    let n_tiles = if parts.len() > 1 { tell_parts(on, parts)? } else { 0 };
    if config.state_len() > 0 {
        tell_states(on, parts)?;
    }
    let Part { tables, sequence, is_long, start, .. } = parts[0];
    let widest = config.n_embd.max(config.widths().q);
    let taps = run.tap.is_some().then(|| Buffer::new(gpu, m * widest * 8)).transpose()?;
    let both = taps.as_ref().map(|b| [b.at(), b.at() + (m * widest * 4) as u64]);
    let pass = Pass { gpu, config, work, m, one: (tables, start, is_long), n_tiles, n_spans: parts.len(), taps: both };
    let launches = lower(pass, ops);
    let mut eye = TapReader { stream, sequence, position: start, rows: m, tap: run.tap.as_deref_mut() };
    let marks = (0..LAYERS_AHEAD).map(|_| Event::new(gpu, false)).collect::<Result<Vec<_>>>()?;
    for of_layer in launches.chunk_by(|a, b| a.layer == b.layer) {
        let layer = usize::try_from(of_layer[0].layer).ok();
        if let Some(i) = layer {
            if run.cancel.load(Ordering::Acquire) {
                return Err(Error::Cancelled);
            }
            if i >= LAYERS_AHEAD {
                marks[i % LAYERS_AHEAD].wait()?;
            }
        }
        for one in of_layer {
            launch(on, one)?;
            one.shows.iter().try_for_each(|show| eye.show(show))?;
        }
        if let Some(i) = layer {
            marks[i % LAYERS_AHEAD].record(stream)?;
        }
    }
    // The tap's buffer goes back only when nothing uses it any more.
    if taps.is_some() {
        stream.wait()?;
    }
    Ok(work.x)
}

/// Tells the device of the sequences' states.
fn tell_states(on: On<'_>, parts: &[Part<'_>]) -> Result<()> {
    let mut spans = Vec::with_capacity(parts.len());
    let mut row0 = 0;
    for Part { state: StateAt { kept, keeps }, tokens, .. } in parts {
        let n_rows = tokens.len() as u32;
        spans.push(Span { kept: *kept, keeps: *keeps, row0, n_rows });
        row0 += n_rows;
    }
    if spans.len() > most_tiles(on.work.rows) {
        return Err(Error::Internal { message: format!("{} states in a pass of {} rows", spans.len(), on.work.rows) });
    }
    // SAFETY: there is room for so many spans; the host's are staged before this returns.
    unsafe { on.stream.upload(on.work.spans, spans.as_ptr().cast(), size_of_val(&spans[..])) }
}

/// Tells the device of several sequences; how many tiles they have.
fn tell_parts(on: On<'_>, parts: &[Part<'_>]) -> Result<usize> {
    let On { work, stream, .. } = on;
    let mut n_tiles = 0;
    for class in 0..work.n_classes {
        let (mut places, mut tiles) = (Vec::new(), Vec::new());
        for part in parts {
            let Part { tables, is_long, start, tokens, .. } = *part;
            let (pages, row0, n_tokens) = (tables.of(class), places.len() as u32, tokens.len() as u32);
            let is_long = u32::from(is_long);
            places.extend((start..start + tokens.len()).map(|i| RowPlace { pages, position: i as u32, is_long }));
            let tile = |i: usize| FlashTile { pages, row0, n_tokens, start: start as u32, tile: 64 * i as u32 };
            tiles.extend((0..tokens.len().div_ceil(64)).map(tile));
        }
        // Longest rows start first.
        tiles.sort_by_key(|t| std::cmp::Reverse(t.start + t.tile));
        n_tiles = tiles.len();
        if n_tiles > most_tiles(work.rows) {
            return Err(Error::Internal { message: format!("{n_tiles} tiles in a pass of {} rows", work.rows) });
        }
        // SAFETY: each class has room for a place of each row and for so many tiles; the host's are staged before this returns.
        unsafe {
            stream.upload(work.places(class), places.as_ptr().cast(), size_of_val(&places[..]))?;
            stream.upload(work.tiles(class), tiles.as_ptr().cast(), size_of_val(&tiles[..]))?;
        }
    }
    Ok(n_tiles)
}

fn launch(on: On<'_>, launch: &Launch) -> Result<()> {
    let On { gpu, work, stream, .. } = on;
    let queue = Queue::new(gpu, stream);
    match &launch.run {
        Run::Embed { mat, n, scale, x, stride } => queue.embed_rows(mat, work.tokens, *n, *scale, *x, *stride),
        Run::Expand { mat, to, lo } => queue.dequantize_f16(mat, 0, mat.rows, *to, *lo),
        Run::Gemm(gemm) => queue.gemm(gemm),
        Run::Rope(rope) => queue.prefill_rope(rope),
        Run::Flash(flash) => queue.flash_prefill(flash),
        Run::Between(call) => call.launch(&queue),
    }
}
