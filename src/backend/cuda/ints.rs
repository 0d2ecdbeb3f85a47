//! The geometry of the stages of quantized matrices of several sequences on tensor cores (cuda/ints.cuh); no bit depends on it.

use super::ffi::{self, Stage};
use super::memory::Gpu;
use super::program::Tuning;

/// From so many sequences on it is faster than rows of vectors.
const LEAST: u32 = 8;

/// Whether a batch of `n_seq` goes this way, where the stage is made for it. `tuned`: how many tiles of sequences a block takes then.
pub fn wanted(stage: &Stage, n_seq: u32, tuning: &Tuning, tuned: Option<u32>) -> bool {
    stage.split_ints != 0 && tuning.use_wide && (n_seq >= LEAST || tuned.is_some())
}

/// Tiles of eight sequences a block takes of a stage with matrices of so many rows: 1, 2 or 4. A turn takes two tiles of 16 rows, and about as
/// long as for its weights and its products.
pub fn tiles_of_block(gpu: &Gpu, stage: &Stage, rows: &[u32], n_seq: u32, tuned: Option<u32>) -> u32 {
    let most = n_seq.div_ceil(8).next_power_of_two().min(4);
    let tiles: u32 = rows.iter().map(|r| r.div_ceil(16)).sum();
    let at_once = if stage.activation == 0 { 2 } else { 1 };
    let time = |nt: u32| {
        // The same for all matrices that share the input, whatever their types.
        let blocks = (gpu.n_sm * if nt <= 2 { 2 } else { 1 } / n_seq.div_ceil(8 * nt)).clamp(1, tiles);
        tiles.div_ceil(blocks).div_ceil(at_once) * (2 + nt)
    };
    let fastest = [4, 2, 1].into_iter().filter(|nt| *nt <= most).min_by_key(|nt| time(*nt));
    tuned.map_or(fastest.unwrap_or(1), |nt| nt.min(most))
}

/// Blocks side by side for one group of sequences.
pub fn side_by_side(gpu: &Gpu, stage: &Stage, n_seq: u32, nt: u32) -> u32 {
    // SAFETY: numbers in and out.
    let per_sm = unsafe { ffi::kgc_ints_per_sm(stage.n, stage.m[0].ty, nt) }.max(1);
    (gpu.n_sm * per_sm / n_seq.div_ceil(8 * nt)).max(1)
}
