//! The geometry of the stages of tiles of many sequences (cuda/wide.cuh); no bit depends on it.

use super::ffi::{self, Stage};
use super::memory::Gpu;

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

/// Warps of a block at most.
const MOST_WARPS: u32 = 12;

/// Blocks of each matrix of a stage, by its rows; in the order of the matrices, where each begins, and how many there are.
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

    /// About how many cycles a stage takes; `None` where it does not fit. The figures are those of one H200.
    fn cost(&self, gpu: &Gpu, stage: &Stage, rows: &[u32], n_seq: u32) -> Option<u64> {
        let pair = stage.activation != 0;
        let at_once = u64::from(1 + u32::from(pair || self.two)); // rows of tiles
        let Wide { nt, ks, groups, two } = *self;
        // SAFETY: numbers in and out.
        let slots = unsafe { ffi::kgc_wide_slots(stage.n, stage.ks, nt, ks, groups, i32::from(pair || two)) };
        if slots == 0 {
            return None;
        }
        let mut cut = Stage::default();
        blocks_of(&mut cut, rows, self.blocks(gpu, n_seq));
        let tiles_of = |i: usize| rows[i].div_ceil(16).div_ceil(cut.seg_block[i + 1] - cut.seg_block[i]);
        let tiles = (0..rows.len()).map(tiles_of).max().unwrap_or(1);
        let turns = u64::from(tiles.div_ceil(groups * if two { 2 } else { 1 }));
        let columns = u64::from(stage.n.div_ceil(32));
        // Four tensor cores, a product of 16 columns each 6.4 cycles.
        let products = at_once * u64::from(nt) * 4 * columns / u64::from(ks);
        let core = turns * u64::from((groups * ks).div_ceil(4)) * products * 32 / 5;
        // What the second-level cache gives one of all multiprocessors: 23 bytes a cycle.
        let whole = slots >= stage.ks / ks * columns.div_ceil(u64::from(stage.ks)).div_ceil(4) as u32;
        let input = columns * 1056 * u64::from(nt) * if whole { 1 } else { turns } / 23;
        let weights = u64::from(tiles) * if pair { 2 } else { 1 } * columns * 1024 / 23;
        let meet = turns * u64::from(stage.ks - stage.ks / ks) * at_once * u64::from(nt) * 24;
        Some(input + core.max(weights) + meet)
    }

    /// For a stage behind a norm with matrices of so many rows; `None` where another kernel has to do it.
    pub fn choose(gpu: &Gpu, stage: &Stage, rows: &[u32], n_seq: u32, tuned: Option<Wide>) -> Option<Wide> {
        if !gpu.wide {
            return None;
        }
        // The workspace has no room for more tiles than there are.
        let most = n_seq.div_ceil(8).next_power_of_two().min(4);
        let one = rows.len() == 1 && stage.activation == 0;
        let fits = |w: &Wide| w.cost(gpu, stage, rows, n_seq).map(|cost| (cost, *w));
        if let Some(wide) = tuned.filter(|w| w.nt <= most).and_then(|w| fits(&Wide { two: w.two && one, ..w })) {
            return Some(wide.1);
        }
        let mut all = Vec::new();
        for nt in [4, 2, 1].into_iter().filter(|nt| *nt <= most) {
            for ks in [1, 2, 4] {
                for groups in 1..=MOST_WARPS / ks {
                    for two in
                        [false, true].into_iter().filter(|two| !two || (rows.len() == 1 && stage.activation == 0))
                    {
                        all.extend(fits(&Wide { nt, ks, groups, two }));
                    }
                }
            }
        }
        all.into_iter().min_by_key(|(cost, w)| (*cost, w.ks, w.groups)).map(|(_, w)| w)
    }
}
