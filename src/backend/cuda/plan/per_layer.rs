//! Embeddings by layer (`model::PerLayer`): what all layers add of a token is made once, from its row and from the stream as it begins; each
//! layer takes its part of it through a gate.

use super::limits::stride;
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::kernels::abi::{Glu, Mat, Norm};
use crate::backend::cuda::kernels::kinds::{Activation, NormKind};
use crate::model::Config;

/// What all layers add of a token.
#[derive(Clone, Copy, Debug)]
pub struct ByLayer {
    /// [n_vocab, n_layers P]
    pub table: Mat,
    /// See `PerLayer::embd_scale`.
    pub scale: f32,
    /// [P] f32
    pub norm: Address,
}

/// Elements of a layer's part, and of all.
fn widths(c: &Config) -> (usize, usize) {
    let width = c.per_layer.map_or(0, |per_layer| per_layer.width);
    (width, width * c.n_layers())
}

/// Elements of a layer's part; 0: there are none.
pub fn width(c: &Config) -> usize {
    widths(c).0
}

/// Working memory, for a number of rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    /// [rows, n_layers P] f32: what layers add.
    pub rows: Address,
    /// [rows, n_layers P] f32: embeddings.
    pub embd: Address,
    /// [rows, P] f32: what a layer's gate has made.
    pub gate: Address,
}

fn sizes(c: &Config, rows: usize) -> [u64; 3] {
    let (width, all) = widths(c);
    [all, all, width].map(|n| ((rows * stride(n) * 4) as u64).next_multiple_of(256))
}

impl Room {
    /// Bytes it takes; none where a model has none.
    pub fn bytes(c: &Config, rows: usize) -> u64 {
        sizes(c, rows).iter().sum()
    }

    /// From this address on.
    pub fn at(mut at: Address, c: &Config, rows: usize) -> Room {
        let [rows, embd, gate] = sizes(c, rows).map(|bytes| {
            at += bytes;
            at - bytes
        });
        Room { rows, embd, gate }
    }
}

/// Rows, and how far they lie apart by how long they are.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// How many.
    pub n: u32,
    /// Elements from one row of so many to the next.
    pub stride: fn(usize) -> u32,
}

/// The norms of the products, in their places, and their sum with the embeddings, which are scaled.
pub fn sums(c: &Config, op: &ByLayer, rows: Rows, room: &Room) -> [Norm; 2] {
    let (width, all) = widths(c);
    let x_stride = (rows.stride)(all);
    let norm = Norm { x: room.rows, n_rows: rows.n, x_stride, ..Norm::default() };
    // What is normed would be divided by the root of n_embd before.
    let eps = c.norm_eps * c.n_embd as f32;
    let heads = c.n_layers() as u32;
    let first = Norm { row: room.rows, w: op.norm, dim: width as u32, heads, kind: NormKind::Rms as u32, eps, ..norm };
    let sum_scale = std::f32::consts::FRAC_1_SQRT_2;
    let (delta, kind) = ([room.embd, 0], NormKind::None as u32);
    [first, Norm { delta, dim: all as u32, kind, eps: c.norm_eps, scale: 1.0, sum_scale, ..norm }]
}

/// A layer's gate on what it adds, to `to`: as f32, or as f16 and what rounding leaves.
pub fn gate(c: &Config, (layer, activation): (usize, Activation), rows: Rows, room: &Room, to: [Address; 3]) -> Glu {
    let (width, all) = widths(c);
    let ([row, out, out_lo], stride) = (to, (rows.stride)(width));
    Glu {
        gate: room.gate,
        up: room.rows + 4 * (layer * width) as u64,
        row,
        out,
        out_lo,
        n_rows: rows.n,
        n: width as u32,
        in_stride: stride,
        out_stride: stride,
        activation: activation as u32,
        up_stride: (rows.stride)(all),
    }
}
