//! The working memory of one token's step, or of one step of several sequences, a row of each vector for each.
//!
//! Vectors are padded with zeros to a multiple of 64 floats, and no kernel writes the padding.

use std::sync::Arc;

use super::ffn::Room;
use super::limits::{ATTEND_CHUNK, MOST_PARTS, RING, stride};
use super::{per_layer, recurrent};
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::driver::{Buffer, Gpu, Pinned, Stream};
use crate::backend::cuda::kernels::abi::State;
use crate::error::Result;
use crate::model::Config;

/// Addresses inside one allocation, and what grows with the context.
#[allow(missing_docs)]
pub struct Workspace {
    _fixed: Buffer,
    part: Buffer, // [n_heads, max_chunks, head_dim + 2] f32
    ring: Pinned, // [RING] u32, written by the device
    max_chunks: u32,
    part_row: usize,
    pub rows: u32,
    pub bytes: u64,
    pub n_vocab: u32,
    pub x: [Address; 2],   // [D]
    pub qkv: Address,      // [H + 2 G], or what a mixer with a state begins with
    pub mix: Address,      // [H], or what that ends with
    pub attn_out: Address, // [D]
    pub act: Address,      // [F]
    pub gate: Address,     // [F]
    pub up: Address,       // [F]
    pub ffn_out: Address,  // [D]
    pub tap: [Address; 3], // [max(D, H, F)]; of a token alone
    pub normed: Address,   // [D]
    pub parts: Address,    // [MOST_PARTS, rows, D]; of several sequences
    pub split: Address,    // [rows / 8] groups of stage_input.cuh; of several sequences
    pub counters: Address, // [n_heads] u32
    pub state: Address,    // State
    pub best: Address,     // u64
    pub counter: Address,  // u32
    pub ffn: Room,
    pub recurrent: recurrent::Room,
    pub per_layer: per_layer::Room,
}

/// Bytes of the fixed part and where each piece starts in it.
fn pieces(c: &Config, rows: usize) -> ([u64; 19], u64) {
    let most = c.widths();
    let (d, h, f, qkv) = (c.n_embd, recurrent::most_out(c), most.ffn.max(per_layer::width(c)), recurrent::most_in(c));
    let widest = if rows == 1 { d.max(h).max(f) } else { 0 };
    let parts = if rows == 1 { 0 } else { MOST_PARTS * stride(d) };
    // Whole groups of eight; words a block of 32: 33 of halves, or 19 of integers.
    let words = d.max(h).max(f).div_ceil(32) * 33;
    let split = if rows == 1 { 0 } else { words * 8usize.div_ceil(rows) };
    let floats = [d, d, qkv, h, d, f, f, f, d, widest, widest, widest, d, parts, split];
    let mut offsets = [0u64; 19];
    let mut at = 0u64;
    for (i, n) in floats.into_iter().enumerate() {
        offsets[i] = at;
        at += (rows * stride(n) * 4) as u64;
    }
    for (i, bytes) in [most.n_heads * 4, size_of::<State>(), 8, 4].into_iter().enumerate() {
        offsets[15 + i] = at;
        at += ((rows * bytes) as u64).next_multiple_of(256);
    }
    (offsets, at)
}

fn part_bytes(c: &Config, chunks: usize) -> usize {
    let most = c.widths();
    most.n_heads * chunks * (most.head + 2) * 4
}

fn chunks_of(n_ctx: usize) -> usize {
    n_ctx.div_ceil(ATTEND_CHUNK as usize).next_power_of_two()
}

/// Bytes a workspace for `n_ctx` positions takes.
pub fn planned_bytes(c: &Config, n_ctx: usize) -> [u64; 2] {
    let rooms = Room::bytes(c, 1) + recurrent::Room::bytes(c, 1) + per_layer::Room::bytes(c, 1);
    [pieces(c, 1).1 + rooms, part_bytes(c, chunks_of(n_ctx)) as u64]
}

impl Workspace {
    /// For positions below `n_ctx` of `rows` sequences.
    pub fn new(gpu: &Arc<Gpu>, c: &Config, n_ctx: usize, rows: usize, stream: &Stream) -> Result<Workspace> {
        let (o, own) = pieces(c, rows);
        let (of_ffn, of_mixers) = (Room::bytes(c, rows), recurrent::Room::bytes(c, rows));
        let bytes = own + of_ffn + of_mixers + per_layer::Room::bytes(c, rows);
        let fixed = Buffer::zeroed(gpu, bytes as usize, stream)?;
        let part = Buffer::new(gpu, rows * part_bytes(c, chunks_of(n_ctx)))?;
        let ring = Pinned::new(gpu, RING * 4)?;
        let at = |i: usize| fixed.at() + o[i];
        Ok(Workspace {
            max_chunks: chunks_of(n_ctx) as u32,
            part_row: rows * part_bytes(c, 1),
            rows: rows as u32,
            bytes: bytes + part.bytes() as u64,
            n_vocab: c.n_vocab as u32,
            x: [at(0), at(1)],
            qkv: at(2),
            mix: at(3),
            attn_out: at(4),
            act: at(5),
            gate: at(6),
            up: at(7),
            ffn_out: at(8),
            tap: [at(9), at(10), at(11)],
            normed: at(12),
            parts: at(13),
            split: at(14),
            counters: at(15),
            state: at(16),
            best: at(17),
            counter: at(18),
            ffn: Room::at(fixed.at() + own, c, rows),
            recurrent: recurrent::Room::at(fixed.at() + own + of_ffn, c, rows),
            per_layer: per_layer::Room::at(fixed.at() + own + of_ffn + of_mixers, c, rows),
            _fixed: fixed,
            part,
            ring,
        })
    }

    /// Whether there is room for positions below `n_ctx`.
    pub fn holds(&self, n_ctx: usize) -> bool {
        chunks_of(n_ctx) as u32 <= self.max_chunks
    }

    /// Makes room for positions below `n_ctx`; true when addresses have changed.
    pub fn grow(&mut self, gpu: &Arc<Gpu>, n_ctx: usize) -> Result<bool> {
        if self.holds(n_ctx) {
            return Ok(false);
        }
        let chunks = chunks_of(n_ctx);
        let part = Buffer::new(gpu, self.part_row * chunks)?;
        self.bytes += (part.bytes() - self.part.bytes()) as u64;
        self.part = part;
        self.max_chunks = chunks as u32;
        Ok(true)
    }

    /// Partial results of the chunks of attention.
    pub fn part(&self) -> Address {
        self.part.at()
    }

    /// Chunks there is room for.
    pub fn max_chunks(&self) -> u32 {
        self.max_chunks
    }

    /// Where the device leaves the tokens it chose.
    pub fn ring(&self) -> *mut u32 {
        self.ring.as_ptr().cast()
    }

    /// The token at a place of the ring, as the device has left it.
    pub fn ring_token(&self, at: usize) -> u32 {
        // SAFETY: inside the ring; the caller has waited for the event behind the write.
        unsafe { self.ring().add(at % RING).read_volatile() }
    }
}
