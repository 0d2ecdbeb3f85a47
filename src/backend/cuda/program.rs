//! A decode step as a list of launches: what runs, on what, with which geometry.
//!
//! Five launches a layer: (norm, QKV, bias), (head norms, rope, cache row, attention), (output matrix), (residual, norm,
//! gate, up, activation), (down matrix); the residual of one stage is added in the next. Around them the embedding, (norm,
//! output matrix, soft cap) and the choice of the token. The list depends on the model and the device alone.

use super::ffi::{self, Address, Attend, Mat, Stage};
use super::layout::DeviceWeights;
use super::memory::{Gpu, Stream};
use super::workspace::Workspace;
use crate::error::Result;
use crate::model::{Activation, Config, RopePairing};

/// Geometry of the matrix-vector stages; for measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Threads of a block, most blocks a multiprocessor, most rows a warp works on at once; `None`: by the stage.
    pub shape: Option<(u32, u32, u32)>,
    /// Rows are not split over warps unless there are fewer blocks than this share (percent) of the multiprocessors.
    pub fill: u32,
    /// Query heads a block of attention; `None`: by the position.
    pub rep: Option<u32>,
    /// Programmatic dependent launch.
    pub pdl: bool,
    /// Prompts go through the tensor cores.
    pub prefill: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning { shape: None, fill: 100, rep: None, pdl: true, prefill: true }
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
    Choose,
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

/// A launch's arguments.
#[derive(Clone, Debug)]
pub enum Run {
    Embed { mat: Mat, scale: f32, x: Address },
    Stage { stage: Stage, ty: Option<u32>, ns: u32, threads: u32 },
    Attend(Attend),
    Glu { gate: Address, up: Address, out: Address, n: u32, activation: u32 },
    Choose,
}

/// Positions of the smallest chunk of the attention.
pub const ATTEND_CHUNK: u32 = 128;

/// How the attention at a position is cut: a function of the position alone.
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
    /// At `position`.
    pub fn at(position: usize, tuning: &Tuning) -> Cut {
        // Short contexts wait for latencies, long ones for bandwidth.
        let chunk = if position < 2048 { ATTEND_CHUNK } else { 2 * ATTEND_CHUNK };
        let rep = if position < 8192 { 1 } else { 4 };
        let chunks = (position as u32 / chunk + 1).next_power_of_two();
        Cut { chunk, chunks, rep: tuning.rep.unwrap_or(rep) }
    }
}

/// Threads of a block, most blocks a multiprocessor, most rows a warp works on at once; from sweeps on one H200.
fn shape_of(tuning: &Tuning, mats: &[Mat], pair: bool) -> (u32, u32, u32) {
    let float = mats[0].ty < 3;
    let elements: u64 = mats.iter().map(|m| u64::from(m.rows) * u64::from(m.cols)).sum();
    match tuning.shape {
        Some(shape) => shape,
        None if elements >= 32 << 20 => (512, 2, 2),
        None if float && pair => (128, 8, 4),
        None if !pair && mats.len() == 1 && mats[0].cols >= 4096 && mats[0].rows < 32_768 => (512, 1, 4),
        None => (256, 2, 4),
    }
}

/// Geometry of a stage over these matrices.
fn geometry(gpu: &Gpu, tuning: &Tuning, mats: &[Mat], pair: bool, stage: &mut Stage) -> (Option<u32>, u32, u32) {
    let ty = mats.iter().all(|m| m.ty == mats[0].ty).then_some(mats[0].ty);
    let per_row = if mats[0].ty < 3 { mats[0].stride / 8 } else { mats[0].cols / 32 };
    let rows: u32 = if pair { 2 * mats[0].rows } else { mats.iter().map(|m| m.rows).sum() };
    let (threads, per_sm, streams) = shape_of(tuning, mats, pair);
    let warps = threads / 32;
    let least = if pair { 2 } else { 1 };
    let want = (gpu.n_sm * tuning.fill).div_ceil(100);
    let mut ns = if ty.is_none() { 1 } else { streams.max(least) };
    while ns > least && rows.div_ceil(ns * warps) < 2 * want {
        ns /= 2;
    }
    // Rows are split only while every lane has two units or more of its part.
    let mut ks = 1;
    while ks * 2 <= warps && rows.div_ceil(ns * warps / ks) < want && per_row >= 64 * ks {
        ks *= 2;
    }
    let per_tile = warps / ks * if pair { ns / 2 } else { ns };
    let tiles: Vec<u32> = if pair {
        vec![mats[0].rows.div_ceil(per_tile)]
    } else {
        mats.iter().map(|m| m.rows.div_ceil(per_tile)).collect()
    };
    let total: u32 = tiles.iter().sum();
    let most = gpu.n_sm * per_sm;
    let mut at = 0;
    for (i, t) in tiles.iter().enumerate() {
        stage.seg_block[i] = at;
        at += if total <= most { *t } else { ((u64::from(*t) * u64::from(most) / u64::from(total)) as u32).max(1) };
        stage.seg_block[i + 1] = at;
    }
    stage.n_seg = tiles.len() as u32;
    stage.ks = ks;
    (ty, ns, threads)
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
        let (ty, ns, threads) = geometry(self.gpu, self.tuning, mats, pair, &mut stage);
        self.ops.push(Op { kind, layer, run: Run::Stage { stage, ty, ns, threads } });
    }

    fn layer(&mut self, index: usize, w: &super::layout::Layer) {
        let (c, work, layer) = (self.config, self.work, index as i32);
        let (heads, kv) = ((c.n_heads * c.head_dim) as u64, (c.n_kv_heads * c.head_dim) as u64);
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
            n_heads: c.n_heads as u32,
            n_kv: c.n_kv_heads as u32,
            head_dim: c.head_dim as u32,
            n_rot: c.n_rot as u32,
            halves: u32::from(c.rope_pairing == RopePairing::Halves),
            window: c.layers[index].window.unwrap_or(0),
            layer: index as u32,
            chunk: ATTEND_CHUNK,
            max_chunks: work.max_chunks(),
            scale: c.attn_scale,
            softcap: c.attn_softcap.unwrap_or(0.0),
            eps: c.norm_eps,
            ..Attend::default()
        });
        self.ops.push(Op { kind: Kind::Attend, layer, run });

        let mut stage = Stage { x: work.mix, n: heads as u32, ..Stage::default() };
        stage.bias[0] = w.o_bias;
        stage.out[0] = work.attn_out;
        self.push(Kind::Output, layer, stage, &[w.o], false);
        self.pending = Some((work.attn_out, w.post_attn_norm));

        let activation = match c.activation {
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
            let run = Run::Glu { gate: work.gate, up: work.up, out: work.act, n: c.n_ff as u32, activation };
            self.ops.push(Op { kind: Kind::Glu, layer, run });
        }
        let mut stage = Stage { x: work.act, n: c.n_ff as u32, ..Stage::default() };
        stage.out[0] = work.ffn_out;
        self.push(Kind::Down, layer, stage, &[w.down], false);
        self.pending = Some((work.ffn_out, w.post_ffn_norm));
    }
}

/// The launches of one step, the choice of a token included.
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
    m.ops.push(Op { kind: Kind::Choose, layer: -1, run: Run::Choose });
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
                Run::Embed { mat, scale, x } => ffi::kgc_embed(mat, work.state, *scale, *x, 0, raw),
                Run::Stage { stage, ty: Some(ty), ns, threads } => match ty {
                    0..=2 => ffi::kgc_stage_float(stage, *ty, *ns, *threads, pdl, raw),
                    3..=7 => ffi::kgc_stage_q32(stage, *ty, *ns, *threads, pdl, raw),
                    _ => ffi::kgc_stage_k256(stage, *ty, *ns, *threads, pdl, raw),
                },
                Run::Stage { stage, ty: None, ns, threads } => ffi::kgc_stage_mixed(stage, *ns, *threads, pdl, raw),
                Run::Attend(attend) => {
                    ffi::kgc_attend(&Attend { chunk: cut.chunk, ..*attend }, cut.chunks, cut.rep, pdl, raw)
                }
                Run::Glu { gate, up, out, n, activation } => ffi::kgc_glu(*gate, *up, *out, *n, *activation, raw),
                Run::Choose => {
                    ffi::kgc_argmax(work.state, work.n_vocab, work.best, work.counter, work.ring(), pdl, raw)
                }
            }
        };
        gpu.check(code)
    }
}
