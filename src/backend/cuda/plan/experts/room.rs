//! Working memory of experts.

use crate::backend::cuda::driver::Address;
use crate::backend::cuda::kernels::launch::fragment_stride;
use crate::backend::cuda::plan::limits::stride;
use crate::model::Config;

/// Working memory of experts, for a number of rows.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Room {
    pub logits: Address,  // [rows, N] f32
    pub ids: Address,     // [rows, K] u32
    pub shown: Address,   // [rows, K] f32
    pub weights: Address, // [rows, K] f32
    pub order: Address,   // [rows K] u32
    pub tasks: Address,   // [rows K] two words each
    pub x: Address,       // [rows, D] f16, as tensor cores read it
    pub gate: Address,    // [rows K, F] f32, or f16 as tensor cores read it
    pub up: Address,      // the same
    pub made: Address,    // [rows K, D] f32
    pub shared: Address,  // [rows] f32: logits of what the shared expert is multiplied by
    pub scaled: Address,  // [rows, K] f32: weights by what each expert's results are multiplied by
    pub aside: Address,   // [rows, D] f32: what experts beside a dense part read,
    pub beside: Address,  // and what they make
}

/// Bytes of each part of a room.
fn sizes(c: &Config, rows: usize) -> [u64; 14] {
    let most = c.widths();
    if most.n_experts == 0 {
        return [0; 14];
    }
    let slots = rows * most.n_used;
    let side = c.layers.iter().any(|layer| layer.experts().is_some_and(|experts| experts.side_by_side));
    let aside = if side { rows * stride(c.n_embd) } else { 0 };
    let wide = slots * stride(most.expert);
    let words = [
        rows * stride(most.n_experts),
        slots,
        slots,
        slots,
        slots,
        2 * slots,
        rows * fragment_stride(c.n_embd) / 2,
        wide,
        wide,
        slots * stride(c.n_embd),
        rows,
        slots,
        aside,
        aside,
    ];
    words.map(|n| (4 * n as u64).next_multiple_of(256))
}

impl Room {
    /// Bytes it takes; none where a model has no experts.
    pub fn bytes(c: &Config, rows: usize) -> u64 {
        sizes(c, rows).iter().sum()
    }

    /// From this address on.
    pub fn at(mut at: Address, c: &Config, rows: usize) -> Room {
        let [logits, ids, shown, weights, order, tasks, x, gate, up, made, shared, scaled, aside, beside] =
            sizes(c, rows).map(|bytes| {
                at += bytes;
                at - bytes
            });
        Room { logits, ids, shown, weights, order, tasks, x, gate, up, made, shared, scaled, aside, beside }
    }
}
