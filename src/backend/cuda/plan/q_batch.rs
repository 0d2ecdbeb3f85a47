//! The geometry of the stages of quantized matrices of several sequences on tensor cores (cuda/matmul/q_batch_sm90.cuh); no bit depends on it.

use crate::backend::cuda::driver::Gpu;
use crate::backend::cuda::kernels::abi::{Mat, Stage};
use crate::backend::cuda::kernels::launch;
use crate::backend::cuda::kernels::packed::Packed;
use crate::backend::cuda::plan::geometry::Tuning;

/// From so many sequences on it is faster than rows of vectors.
const LEAST: u32 = 5;

/// Whether a batch of `n_seq` goes this way, where its stages can. `tuned`: how many tiles of sequences a block takes then.
pub fn wanted(n_seq: u32, tuning: &Tuning, tuned: Option<u32>) -> bool {
    tuning.use_wide && (n_seq >= LEAST || tuned.is_some())
}

/// What the matrices that share an input have in common: the same cut of the input is for all of them.
#[derive(Clone, Copy)]
pub struct Input {
    columns: u32,
    /// Tiles of 16 rows, and how many of them a turn takes: two, or one of each of a pair.
    tiles: u32,
    at_once: u32,
    /// The type that has the most to do for a block, or needs the most room.
    ty: Packed,
    /// Tiles of sequences that a block has room for, with any of them: 4, 2, 1, or 0.
    room: u32,
}

impl Input {
    /// `rows`: of the matrices, of a pair those of one.
    pub fn of(stage: &Stage, mats: &[Mat], rows: &[u32]) -> Input {
        let ty = mats.iter().map(|m| m.ty).min_by_key(|ty| (per_sm(stage.n, *ty, 2), ty.row_block() < 256));
        let fits = |nt: &u32| mats.iter().all(|m| per_sm(stage.n, m.ty, *nt) > 0);
        Input {
            room: [4, 2, 1].into_iter().find(fits).unwrap_or(0),
            columns: stage.n,
            tiles: rows.iter().map(|r| r.div_ceil(16)).sum(),
            at_once: if stage.activation == 0 { 2 } else { 1 },
            ty: ty.unwrap_or_default(),
        }
    }

    /// Whether a block has room for them, which small devices may lack.
    pub fn fits(self) -> bool {
        self.room > 0
    }

    /// Tiles of eight sequences a block takes, 1, 2 or 4. The times of a turn are from one H200: scales of K-quants take longer, so that more
    /// sequences are to share them.
    pub fn tiles_of_block(self, gpu: &Gpu, n_seq: u32, tuned: Option<u32>) -> u32 {
        let most = n_seq.div_ceil(8).next_power_of_two().min(self.room.max(1));
        let time = |nt: u32| {
            let turn = match nt {
                1 => [30, 11],
                2 => [40, 17],
                _ => [43, 14],
            };
            let blocks = side_by_side(gpu, self.columns, self.ty, n_seq, nt).min(self.tiles);
            self.tiles.div_ceil(blocks).div_ceil(self.at_once) * turn[usize::from(self.ty.row_block() == 256)]
        };
        let fastest = [4, 2, 1].into_iter().filter(|nt| *nt <= most).min_by_key(|nt| time(*nt));
        tuned.map_or(fastest.unwrap_or(1), |nt| nt.min(most))
    }
}

fn per_sm(n: u32, ty: Packed, nt: u32) -> u32 {
    launch::q_batch_per_sm(n, ty, nt)
}

/// Blocks side by side for one group of sequences.
pub fn side_by_side(gpu: &Gpu, n: u32, ty: Packed, n_seq: u32, nt: u32) -> u32 {
    (gpu.n_sm * per_sm(n, ty, nt) / n_seq.div_ceil(8 * nt)).max(1)
}
