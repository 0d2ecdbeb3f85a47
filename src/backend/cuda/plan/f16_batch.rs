//! The geometry of the stages of tiles of many sequences (cuda/matmul/f16_batch_sm90.cuh); no bit depends on it.

use crate::backend::cuda::driver::Gpu;
use crate::backend::cuda::kernels::abi::Stage;
use crate::backend::cuda::kernels::launch;

/// How a stage is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wide {
    /// Tiles of eight sequences a block: 1, 2 or 4.
    pub nt: u32,
    /// Warps that share a row of tiles: 1, 2 or 4.
    pub ks: u32,
    /// Groups of so many warps in a block.
    pub groups: u32,
    /// Two rows of tiles at a time, of one matrix.
    pub two: bool,
}

/// Blocks of each matrix of a stage, by its rows; in the order of the matrices, where each begins.
pub fn blocks_of(stage: &mut Stage, rows: &[u32], blocks: u32) {
    let all: u64 = rows.iter().map(|r| u64::from(*r)).sum();
    let mut at = 0;
    for (i, rows) in rows.iter().enumerate() {
        stage.seg_block[i] = at;
        at += ((u64::from(*rows) * u64::from(blocks) / all) as u32).clamp(1, rows.div_ceil(16));
        stage.seg_block[i + 1] = at;
    }
}

impl Wide {
    /// Blocks side by side for one group of sequences.
    pub fn blocks(&self, gpu: &Gpu, n_seq: u32) -> u32 {
        (gpu.n_sm / n_seq.div_ceil(8 * self.nt)).max(1)
    }

    fn fits(self, stage: &Stage) -> Option<Wide> {
        let two = self.two || stage.activation != 0;
        let slots = launch::f16_batch_slots(stage.n, stage.ks, self.nt, self.ks, self.groups, two);
        (slots > 0).then_some(self)
    }

    /// For a stage behind a norm with matrices of so many rows; `None` where another kernel has to do it, or does it as fast.
    /// From sweeps on one H200: 16 sequences a block, since more leave too few warps to wait for weights and fewer read these too
    /// often from the cache; rows enough for all warps of a block, or half of it with two a row. `other`: tiles of 8 sequences that a
    /// block of the other kernel takes.
    pub fn choose(gpu: &Gpu, stage: &Stage, rows: &[u32], n_seq: u32, other: u32, tuned: Option<Wide>) -> Option<Wide> {
        let pair = stage.activation != 0;
        let one = rows.len() == 1 && !pair;
        if !gpu.wide {
            return None;
        }
        if let Some(wide) = tuned {
            // The workspace has no room for more tiles than there are.
            let there = wide.nt <= n_seq.div_ceil(8).next_power_of_two();
            return Wide { two: wide.two && one, ..wide }.fits(stage).filter(|_| there);
        }
        if n_seq <= 8 || (pair && n_seq <= 16 && other >= 2) {
            return None;
        }
        let wide = Wide { nt: 2, ks: 1, groups: 12, two: one };
        let mut cut = Stage::default();
        blocks_of(&mut cut, rows, wide.blocks(gpu, n_seq));
        let each =
            rows.iter().zip(cut.seg_block.windows(2)).map(|(rows, at)| rows.div_ceil(16).div_ceil(at[1] - at[0]));
        let tiles = each.max().unwrap_or(0);
        let groups = |most: u32| {
            let turns = tiles.div_ceil(most * if one { 2 } else { 1 });
            tiles.div_ceil(turns * if one { 2 } else { 1 })
        };
        match tiles {
            0..4 => None,
            4..8 => Wide { ks: 2, groups: groups(6), ..wide }.fits(stage),
            _ => Wide { groups: groups(12), ..wide }.fits(stage),
        }
    }
}
