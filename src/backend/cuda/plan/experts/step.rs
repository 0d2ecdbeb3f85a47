//! Products with what follows them: gated units, and the sums of one row (cuda/matmul/experts_step.cuh).

use super::{Making, tile};
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::kernels::abi::{ExpertProducts, Mat};
use crate::backend::cuda::kernels::kinds::Activation;
use crate::backend::cuda::kernels::launch::{self, Between};
use crate::backend::cuda::plan::kind::Kind;

/// Warps of a block that sums (cuda/matmul/experts_step.cuh).
const STEP_WARPS: u32 = 24;

/// Rows that a warp sums at once, and the most of a block.
const ROWS_OF_SUMS: u32 = 4;
const MOST_SUMS: u32 = 64;

/// Rows a block sums, each of `k` products: such that blocks that run at the same time have as few turns as can be. No bit depends on it.
fn rows_of_sums(n_sm: u32, rows: u32, k: u32) -> u32 {
    // A block's beginning takes about as long as a turn.
    let time = |tile: u32| rows.div_ceil(tile).div_ceil(n_sm) * (1 + (tile / ROWS_OF_SUMS * k).div_ceil(STEP_WARPS));
    let tiles = (1..=MOST_SUMS / ROWS_OF_SUMS).map(|n| n * ROWS_OF_SUMS);
    tiles.min_by_key(|tile| (time(*tile), *tile)).unwrap_or(ROWS_OF_SUMS)
}

impl Making<'_> {
    /// Whether these are the slots of one row whose launches have room for `inputs` of their inputs, and for sums of a tile of rows.
    pub(super) fn alone(&self, slots: ExpertProducts, inputs: u32) -> bool {
        let (w, n, k) = (&self.op.weights, self.d.max(self.op.experts.each.width as u32), slots.n_slots);
        let quantized = [w.up, w.down].iter().all(|mat| mat.ty.is_quantized());
        let bytes = launch::expert_shared(n, quantized, inputs) + u64::from(4 * MOST_SUMS * k);
        self.rows.n == 1 && bytes + 1024 <= self.gpu.shared_most as u64
    }

    /// Gates and ups, and what is made of both: matrix, bias and result of each.
    pub(super) fn gated(&mut self, products: ExpertProducts, mats: [(Mat, Address, Address); 2]) {
        let [(gate, gate_bias, y), (up, up_bias, _)] = mats;
        let activation = Activation::from(self.op.experts.each.activation) as u32;
        let mats = ExpertProducts { m: [gate, up], bias: [gate_bias, up_bias], y: [y, 0], n_m: 2, ..products };
        // Blocks for one row are as many as can run.
        let tile = if self.rows.n == 1 { self.gpu.n_sm } else { tile(self.gpu, mats.rows, mats.n_tasks) };
        let gated = ExpertProducts { tile, activation, ..mats };
        self.products(gated);
    }

    /// Downs and sum in one launch, if it has room.
    pub(super) fn summed(&mut self, slots: ExpertProducts) -> bool {
        if !self.alone(slots, slots.n_slots) {
            return false;
        }
        let (y, shared) = self.made();
        let sums = ExpertProducts { y: [y, 0], y_stride: self.rows.y_stride, ..self.downs(slots) };
        let products = ExpertProducts {
            tile: rows_of_sums(self.gpu.n_sm, self.d, slots.n_slots),
            weights: self.weights(),
            shared: u32::from(shared),
            gate: self.shared_gate(),
            ..sums
        };
        let shows = self.shown_if_last();
        self.push(Kind::Experts, Between::Experts(products), shows);
        true
    }
}
