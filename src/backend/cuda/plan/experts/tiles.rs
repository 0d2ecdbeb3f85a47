//! Products of sorted slots: on tensor cores where that is faster, and their type and the device let them be (cuda/matmul/expert_tiles.cuh).

use super::Making;
use crate::backend::cuda::kernels::abi::ExpertProducts;
use crate::backend::cuda::kernels::launch::{Between, EXPERT_TILE_SLOTS, expert_tile_blocks};
use crate::backend::cuda::plan::kind::Kind;

/// From so many slots an expert on a tile is faster than a row at a time, whatever its columns are used for; from one H200, where with 2 it is as
/// fast in Q4_K and a quarter faster with 4.
const LEAST_SLOTS: u32 = 3;

impl Making<'_> {
    /// The launch of these products. No bit depends on which it is, so that one row's and several rows' may differ.
    pub(super) fn products(&mut self, products: ExpertProducts) {
        let blocks = self.blocks(&products);
        let run = if blocks > 0 { Between::ExpertTiles(products, blocks) } else { Between::Experts(products) };
        self.push(Kind::Experts, run, Vec::new());
    }

    /// Blocks that share the tasks on tensor cores; 0: they do not go there.
    fn blocks(&self, products: &ExpertProducts) -> u32 {
        let ExpertProducts { n_m, activation, tasks, at_once, n_slots, n_tasks, rows, .. } = *products;
        let many = u64::from(n_slots) >= u64::from(LEAST_SLOTS) * self.op.experts.n as u64;
        if tasks == 0 || !many || at_once != EXPERT_TILE_SLOTS || (n_m == 2 && activation == 0) {
            return 0;
        }
        let pairs = u64::from(n_tasks) * u64::from(rows.div_ceil(if activation != 0 { 16 } else { 32 }));
        let most = expert_tile_blocks(self.gpu, products.n, products.m[0].ty);
        most.min(u32::try_from(pairs).unwrap_or(u32::MAX))
    }
}
