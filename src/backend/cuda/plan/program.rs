//! A decode step as a list of launches: what runs, on what, with which geometry.
//!
//! Five launches a layer: (norm, QKV, bias), (head norms, rope, cache row, attention), (output matrix), (residual, norm,
//! gate, up, activation), (down matrix); the residual of one stage is added in the next. Around them the embedding, (norm,
//! output matrix, soft cap) and the choice of the token. The list depends on the model and the device alone.

use crate::backend::cuda::driver::Address;
use crate::backend::cuda::driver::{Gpu, Stream};
use crate::backend::cuda::kernels::abi::{Attend, Mat, Stage};
use crate::backend::cuda::kernels::launch as ffi;
use crate::backend::cuda::kernels::packed::Packed;
use crate::backend::cuda::plan::f16_batch::Wide;
use crate::backend::cuda::plan::workspace::Workspace;
use crate::backend::cuda::weights::layout::DeviceWeights;
use crate::error::Result;
use crate::model::{Activation, Config, RopePairing};

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
    /// Of the stages of a kind; `None`: by the matrices.
    pub shapes: [Option<Shape>; Kind::N],
    /// Query heads a block of attention; `None`: by the position.
    pub rep: Option<u32>,
    /// Of the stages of tiles of many sequences; `None`: by the matrices.
    pub wide: [Option<Wide>; Kind::N],
    /// Whether wide.cu's kernels may be used.
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

/// What is seen of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Embed,
    Qkv,
    Attend,
    Output,
    GateUp,
    Up,
    Glu,
    Down,
    Logits,
}

impl Kind {
    /// How many there are.
    pub const N: usize = Kind::Logits as usize + 1;
}

/// One launch.
#[derive(Clone, Debug)]
pub struct Op {
    /// What it is.
    pub kind: Kind,
    /// Its layer, or -1.
    pub layer: i32,
    /// How to run it.
    pub run: Run,
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

/// A launch's arguments.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // there is one list of a hundred or two
pub enum Run {
    Embed { mat: Mat, scale: f32, x: Address },
    Stage { stage: Stage, by: By, shape: Shape },
    Attend(Attend),
    Glu { gate: Address, up: Address, out: Address, n: u32, activation: u32 },
}

/// Positions of the smallest chunk of the attention.
pub const ATTEND_CHUNK: u32 = 128;
/// And of the chunks from position [`LONG_FROM`] on.
pub const LONG_CHUNK: u32 = 2 * ATTEND_CHUNK;
/// Short contexts wait for latencies, long ones for bandwidth.
pub const LONG_FROM: u32 = 2048;
/// Heads up to so many elements go to attend_tensor.cu, in chunks of so many positions.
const TENSOR_HEAD: usize = 128;
const TENSOR_CHUNK: u32 = 256;

/// How the attention at a position is cut: a function of the model and the position alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cut {
    /// Positions of a chunk.
    pub chunk: u32,
    /// Chunks that may be active, a power of two.
    pub chunks: u32,
    /// Query heads a block; no bit depends on it.
    pub rep: u32,
}

impl Cut {
    /// Of a step of `n` sequences that are cut so each: many of them share the keys of a block among more heads.
    pub fn among(n: usize, tuning: &Tuning, each: impl Iterator<Item = Cut>) -> Cut {
        let one = Cut { chunk: 0, chunks: 1, rep: [1, 2, 8][usize::from(n >= 24) + usize::from(n >= 48)] };
        let all = each.fold(one, |a, b| Cut { chunks: a.chunks.max(b.chunks), rep: a.rep.max(b.rep), ..a });
        Cut { rep: tuning.rep.unwrap_or(all.rep), ..all }
    }

    /// At `position`, for heads of `head_dim` elements.
    pub fn at(position: usize, head_dim: usize, tuning: &Tuning) -> Cut {
        let (chunk, rep) = match position as u32 {
            _ if head_dim <= TENSOR_HEAD => (TENSOR_CHUNK, 1),
            0..LONG_FROM => (ATTEND_CHUNK, 1),
            LONG_FROM..8192 => (LONG_CHUNK, 1),
            _ => (LONG_CHUNK, 4),
        };
        let chunks = (position as u32 / chunk + 1).next_power_of_two();
        Cut { chunk, chunks, rep: tuning.rep.unwrap_or(rep) }
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

struct Maker<'a> {
    gpu: &'a Gpu,
    config: &'a Config,
    tuning: &'a Tuning,
    work: &'a Workspace,
    ops: Vec<Op>,
    /// The residual stream, and what is to be added to it with which post norm.
    current: Address,
    pending: Option<(Address, Address)>,
}

impl Maker<'_> {
    /// A stage whose input is the normalized residual stream.
    fn residual_stage(&mut self, norm: Address) -> Stage {
        let mut stage = Stage {
            x: self.current,
            norm_w: norm,
            n: self.config.n_embd as u32,
            eps: self.config.norm_eps,
            ..Stage::default()
        };
        if let Some((delta, post)) = self.pending.take() {
            stage.delta = delta;
            stage.post_w = post;
            let (a, b) = (self.work.x[0], self.work.x[1]);
            self.current = if self.current == a { b } else { a };
            stage.x_out = self.current;
        }
        stage
    }

    fn push(&mut self, kind: Kind, layer: i32, mut stage: Stage, mats: &[Mat], pair: bool) {
        for (to, from) in stage.m.iter_mut().zip(mats) {
            *to = *from;
        }
        let tuned = self.tuning.shapes[kind as usize];
        let (by, shape) = match mats[0].ty {
            Packed::F16Tiles => (By::Tiles, tile_shape(tuned, mats, pair)),
            ty if mats.iter().all(|m| m.ty == ty) => (By::Rows(ty), shape_of(self.gpu, tuned, mats, pair)),
            _ => (By::Mixed, shape_of(self.gpu, tuned, mats, pair)),
        };
        share(self.gpu.n_sm * shape.per_sm, shape, mats, pair, &mut stage);
        self.ops.push(Op { kind, layer, run: Run::Stage { stage, by, shape } });
    }

    fn layer(&mut self, index: usize, w: &crate::backend::cuda::weights::layout::Layer) {
        let (c, work, layer) = (self.config, self.work, index as i32);
        let (a, dense) = (c.layers[index].attention(), c.layers[index].dense());
        let (heads, kv, rope) = (a.q_width() as u64, a.kv_width() as u64, c.rope_of(a));
        let mut stage = self.residual_stage(w.attn_norm);
        stage.bias = [w.q_bias, w.k_bias, w.v_bias];
        stage.out = [work.qkv, work.qkv + 4 * heads, work.qkv + 4 * (heads + kv)];
        self.push(Kind::Qkv, layer, stage, &[w.q, w.k, w.v], false);

        let run = Run::Attend(Attend {
            qkv: work.qkv,
            q_norm: w.q_norm,
            k_norm: w.k_norm,
            turns: w.turns,
            state: work.state,
            out: work.mix,
            part: work.part(),
            counters: work.counters,
            n_heads: a.n_heads as u32,
            n_kv: a.n_kv_heads as u32,
            head_dim: a.head_dim as u32,
            n_rot: rope.n_rot() as u32,
            halves: u32::from(rope.pairing == RopePairing::Halves),
            window: a.window.unwrap_or(0),
            layer: index as u32,
            chunk: ATTEND_CHUNK,
            max_chunks: work.max_chunks(),
            scale: a.scale,
            softcap: a.softcap.unwrap_or(0.0),
            eps: c.norm_eps,
            magnitude: rope.magnitude,
            ..Attend::default()
        });
        self.ops.push(Op { kind: Kind::Attend, layer, run });

        let mut stage = Stage { x: work.mix, n: heads as u32, ..Stage::default() };
        stage.bias[0] = w.o_bias;
        stage.out[0] = work.attn_out;
        self.push(Kind::Output, layer, stage, &[w.o], false);
        self.pending = Some((work.attn_out, w.post_attn_norm));

        let activation = match dense.activation {
            Activation::Silu => 1,
            Activation::GeluTanh => 2,
        };
        let mut stage = self.residual_stage(w.ffn_norm);
        if w.gate.ty == w.up.ty {
            stage.out[0] = work.act;
            stage.activation = activation;
            self.push(Kind::GateUp, layer, stage, &[w.gate, w.up], true);
        } else {
            stage.out[0] = work.gate;
            stage.out[1] = work.up;
            self.push(Kind::Up, layer, stage, &[w.gate, w.up], false);
            let run = Run::Glu { gate: work.gate, up: work.up, out: work.act, n: dense.width as u32, activation };
            self.ops.push(Op { kind: Kind::Glu, layer, run });
        }
        let mut stage = Stage { x: work.act, n: dense.width as u32, ..Stage::default() };
        stage.out[0] = work.ffn_out;
        self.push(Kind::Down, layer, stage, &[w.down], false);
        self.pending = Some((work.ffn_out, w.post_ffn_norm));
    }
}

/// The launches of one step.
pub fn make(gpu: &Gpu, config: &Config, tuning: &Tuning, weights: &DeviceWeights, work: &Workspace) -> Vec<Op> {
    let mut m = Maker { gpu, config, tuning, work, ops: Vec::new(), current: work.x[0], pending: None };
    let run = Run::Embed { mat: weights.token_embd, scale: config.embedding_scale, x: work.x[0] };
    m.ops.push(Op { kind: Kind::Embed, layer: -1, run });
    for (index, layer) in weights.layers.iter().enumerate() {
        m.layer(index, layer);
    }
    let mut stage = m.residual_stage(weights.output_norm);
    stage.state = work.state;
    stage.softcap = config.logit_softcap.unwrap_or(0.0);
    m.push(Kind::Logits, -1, stage, &[weights.output], false);
    m.ops
}

impl Op {
    /// Queues it; `cut`: how the attention is cut; `pdl`: as a dependent of the launch before.
    pub fn launch(&self, gpu: &Gpu, work: &Workspace, cut: Cut, pdl: bool, stream: &Stream) -> Result<()> {
        let (pdl, raw) = (i32::from(pdl && gpu.major >= 9), stream.raw());
        // SAFETY: the addresses are the model's weights and workspace, which outlive the stream's work; the shapes are
        // those the layout and the workspace were made for.
        let code = unsafe {
            match &self.run {
                // Never a dependent launch: the attention reads the state and the cache before it waits, which is right only
                // because nothing of this step starts before the choice of its token is complete.
                Run::Embed { mat, scale, x } => ffi::kgc_embed(mat, work.state, 1, *scale, *x, 0, 0, raw),
                Run::Stage { stage, by, shape: Shape { threads, streams, deep, .. } } => {
                    let (n, t, deep) = (*streams, *threads, i32::from(*deep));
                    match by {
                        By::Tiles => ffi::kgc_tile(stage, deep, pdl, raw),
                        By::Rows(ty) if ty.is_float() => ffi::kgc_stage_float(stage, *ty, n, t, deep, pdl, raw),
                        By::Rows(ty) if ty.is_q32() => ffi::kgc_stage_q32(stage, *ty, n, t, deep, pdl, raw),
                        By::Rows(ty) => ffi::kgc_stage_k256(stage, *ty, n, t, deep, pdl, raw),
                        By::Mixed => ffi::kgc_stage_mixed(stage, n, t, pdl, raw),
                    }
                }
                Run::Attend(attend) => {
                    ffi::kgc_attend(&Attend { chunk: cut.chunk, ..*attend }, cut.chunks, cut.rep, pdl, raw)
                }
                Run::Glu { gate, up, out, n, activation } => ffi::kgc_glu(*gate, *up, *out, *n, *activation, raw),
            }
        };
        gpu.check(code)
    }
}
