//! The geometry of the stages of quantized matrices of several sequences on tensor cores (cuda/matmul/q_batch_sm90.cuh); no bit depends on it.

use crate::backend::cuda::driver::Gpu;
use crate::backend::cuda::kernels::abi::Stage;
use crate::backend::cuda::kernels::launch;
use crate::backend::cuda::kernels::packed::Packed;
use crate::backend::cuda::plan::geometry::Tuning;

/// From so many sequences on it is faster than rows of vectors; of large matrices from one fewer on.
const LEAST: u32 = 5;
const LARGE: u64 = 1 << 23;

/// Whether a batch of `n_seq` goes this way with so many weights, where its stages can. `tuned`: how many tiles of sequences a block takes then.
pub fn wanted(n_seq: u32, weights: u64, tuning: &Tuning, tuned: Option<u32>) -> bool {
    let least = if weights >= LARGE { LEAST - 1 } else { LEAST };
    tuning.use_wide && (n_seq >= least || tuned.is_some())
}

/// What the matrices that share an input have in common: the same cut of the input is for all of them.
pub struct Input<'a> {
    /// Tiles of rows: of 16, of a pair of eight of each.
    tiles: u32,
    types: &'a [Packed],
}

impl<'a> Input<'a> {
    /// `rows`: of the matrices, of a pair those of one.
    pub fn of(stage: &Stage, types: &'a [Packed], rows: &[u32]) -> Input<'a> {
        let of_tile = if stage.activation == 0 { 16 } else { 8 };
        Input { tiles: rows.iter().map(|r| r.div_ceil(of_tile)).sum(), types }
    }

    /// Whether a block has room for `nt` tiles of sequences and `groups` of 32 rows, of any of the types.
    fn has_room(&self, nt: u32, groups: u32) -> bool {
        self.types.iter().all(|ty| launch::q_batch_fits(*ty, nt, groups))
    }

    /// Whether a block has room for some, which small devices may lack.
    pub fn fits(&self) -> bool {
        self.has_room(1, 1)
    }

    /// Time of a block of 32 columns of all rows, and the blocks that share them for a group of sequences; `None`: no room.
    fn time(&self, gpu: &Gpu, n_seq: u32, nt: u32, groups: u32) -> Option<(u32, u32)> {
        if !self.has_room(nt, groups) {
            return None;
        }
        // Of a turn, in nanoseconds, on one H200; a turn of half its tiles takes as long as one of half its groups.
        let turn = |groups: u32| match (groups, nt) {
            (1, 1) => 500,
            (1, 2) => 550,
            (1, _) => 730,
            (_, 1) => 570,
            (_, 2) => 690,
            _ => 1000,
        };
        let blocks = (gpu.n_sm / n_seq.div_ceil(8 * nt)).clamp(1, self.tiles);
        let tiles = self.tiles.div_ceil(blocks);
        let left = tiles % (2 * groups);
        let last = if left == 0 { 0 } else { turn(left.div_ceil(2)) };
        let rounds = (blocks * n_seq.div_ceil(8 * nt)).div_ceil(gpu.n_sm);
        Some(((tiles / (2 * groups) * turn(groups) + last) * rounds, blocks))
    }

    /// Tiles of eight sequences a block takes: 1, 2 or 4.
    pub fn tiles_of_block(&self, gpu: &Gpu, n_seq: u32, tuned: Option<u32>) -> u32 {
        let most = n_seq.div_ceil(8).next_power_of_two().min(4);
        let time = |nt: u32| [2, 1].into_iter().filter_map(|groups| self.time(gpu, n_seq, nt, groups)).min();
        let fits = [4, 2, 1].into_iter().filter(|nt| *nt <= most && time(*nt).is_some());
        let fastest = fits.clone().min_by_key(|nt| time(*nt)).unwrap_or(1);
        tuned.map_or(fastest, |tuned| fits.into_iter().find(|nt| *nt <= tuned).unwrap_or(1))
    }

    /// Groups of 32 rows that a block takes at once, and how many blocks share the rows.
    pub fn cut(&self, gpu: &Gpu, n_seq: u32, nt: u32) -> (u32, u32) {
        let of = |groups: u32| self.time(gpu, n_seq, nt, groups).map(|(time, blocks)| (time, groups, blocks));
        [2, 1].into_iter().filter_map(of).min().map_or((1, 1), |(_, groups, blocks)| (groups, blocks))
    }
}
