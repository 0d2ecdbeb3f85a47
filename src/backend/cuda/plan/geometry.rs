//! The geometry of a step's stages: threads, blocks, parts of a row. The order of sums follows from it, alone and in a batch.

use super::f16_batch::Wide;
use super::op::Kind;
use crate::backend::cuda::driver::Gpu;
use crate::backend::cuda::kernels::abi::{Mat, Stage};
use crate::backend::cuda::kernels::packed::Packed;

/// Geometry of one matrix-vector stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Threads of a block, at most 512.
    pub threads: u32,
    /// Most blocks a multiprocessor.
    pub per_sm: u32,
    /// Rows a warp works on at once: 1, 2, 4, or 8 where it is deep.
    pub streams: u32,
    /// Warps a row, a power of two.
    pub split: u32,
    /// Eight units of 32 in flight a lane instead of four; with 1, 2 or 8 streams.
    pub deep: bool,
}

/// Choices that are made by the stage; for measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// The shape of the stages of each kind; `None`: the matrices decide.
    pub shapes: [Option<Shape>; Kind::N],
    /// Query heads a block of attention; `None`: by the position.
    pub rep: Option<u32>,
    /// The geometry of each kind's stages of tiles of many sequences; `None`: the matrices decide.
    pub wide: [Option<Wide>; Kind::N],
    /// Whether the kernels of code of version 9.0 may be used.
    pub use_wide: bool,
    /// Programmatic dependent launch.
    pub pdl: bool,
    /// Prompts go through the tensor cores.
    pub prefill: bool,
    /// Their activations are two halves; `None`: by the model.
    pub halves: Option<bool>,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            shapes: [None; Kind::N],
            rep: None,
            wide: [None; Kind::N],
            use_wide: true,
            pdl: true,
            prefill: true,
            halves: None,
        }
    }
}

/// The kernel of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Rows of one type.
    Rows(Packed),
    /// Rows of several types.
    Mixed,
    /// Tiles of 16 rows of F16, for the tensor cores: a warp each part of `split`, 16 rows (of each of a pair) at once.
    Tiles,
}

impl By {
    /// The kernel and the geometry for these matrices of one input; a pair is a gate and what it is on.
    pub fn choose(gpu: &Gpu, tuned: Option<Shape>, mats: &[Mat], pair: bool) -> (By, Shape) {
        match mats[0].ty {
            Packed::F16Tiles => (By::Tiles, tile_shape(tuned, mats, pair)),
            ty if mats.iter().all(|m| m.ty == ty) => (By::Rows(ty), shape_of(gpu, tuned, mats, pair)),
            _ => (By::Mixed, shape_of(gpu, tuned, mats, pair)),
        }
    }
}

/// The geometry of a stage over these matrices; from sweeps on one H200.
fn shape_of(gpu: &Gpu, tuned: Option<Shape>, mats: &[Mat], pair: bool) -> Shape {
    let mixed = mats.iter().any(|m| m.ty != mats[0].ty);
    let least = if pair { 2 } else { 1 };
    if let Some(shape) = tuned {
        let split = shape.split.min(shape.threads / 32);
        let most = if mats[0].ty.is_float() || split > 1 { 4 } else { 8 };
        let streams = match shape.streams {
            0..4 if mixed => 1,
            _ if mixed => 4,
            n => n.clamp(least, most),
        };
        return Shape { streams, split, deep: shape.deep && streams != 4, ..shape };
    }
    let elements: u64 = mats.iter().map(|m| u64::from(m.rows) * u64::from(m.cols)).sum();
    let float = mats[0].ty.is_float();
    let units = if float { mats[0].stride / 8 } else { mats[0].cols / 32 };
    let (threads, per_sm, streams, deep) = match () {
        () if mixed && !float && units <= 32 => (256, 2, 1, false),
        () if mixed => (512, 1, 1, false),
        () if float && elements >= 12 << 20 => (512, 1, if mats.len() == 3 { 1 } else { 2 }, false),
        () if float && (units >= 512 || mats.len() == 3) => (256, 2, 1, false),
        () if float => (256, 2, 2, false),
        () if units <= 64 => (256, 2, 4, false),
        () if elements < 8 << 20 => (512, 1, 1, false),
        // 34 bytes a unit: four of them in flight are enough.
        () if mats[0].ty == Packed::Q8_0 => (512, 1, 1, pair),
        () => (512, 1, 2, true),
    };
    let streams = if streams < least { least } else { streams };
    let at_once = if pair { streams / 2 } else { streams };
    let rows: u32 = mats[..if pair { 1 } else { mats.len() }].iter().map(|m| m.rows).sum();
    let per_block = rows.div_ceil(gpu.n_sm * per_sm);
    // Rows are split while a block still takes all of its rows in one turn and every lane has some of its part.
    let least_units = if float { 128 } else { 32 };
    let mut split = 1;
    while split * 2 <= threads / 32 && per_block <= threads / 32 / (split * 2) * at_once && units > least_units * split
    {
        split *= 2;
    }
    Shape { threads, per_sm, streams, split, deep }
}

/// The geometry of a stage of tiles; from sweeps on one H200. Long rows are cut into more parts.
fn tile_shape(tuned: Option<Shape>, mats: &[Mat], pair: bool) -> Shape {
    let split = tuned.map_or(if mats[0].cols >= 4096 { 16 } else { 8 }, |t| if t.split > 8 { 16 } else { 8 });
    let deep = mats[0].stride / 32 > if pair { 2 } else { 4 } * split;
    let (per_sm, deep) = tuned.map_or((if split == 16 { 1 } else { 2 }, deep), |t| (t.per_sm, t.deep));
    Shape { threads: 32 * split, per_sm, streams: if pair { 32 } else { 16 }, split, deep }
}

/// Which of at most `most` blocks work on which matrix: in proportion to the rows, each with some.
pub fn share(most: u32, shape: Shape, mats: &[Mat], pair: bool, stage: &mut Stage) {
    let groups = shape.threads / 32 / shape.split;
    let at_once = groups * if pair { shape.streams / 2 } else { shape.streams };
    let most = u64::from(most);
    let mats = &mats[..if pair { 1 } else { mats.len() }];
    let total: u64 = mats.iter().map(|m| u64::from(m.rows)).sum();
    let mut at = 0;
    for (i, m) in mats.iter().enumerate() {
        stage.seg_block[i] = at;
        at += ((u64::from(m.rows) * most / total) as u32).clamp(1, m.rows.div_ceil(at_once).max(1));
        stage.seg_block[i + 1] = at;
    }
    stage.n_seg = mats.len() as u32;
    stage.ks = shape.split;
}
