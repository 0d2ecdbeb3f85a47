//! Operations as stages of a step: which buffers, which geometry; common to a token alone and to many sequences.

use super::geometry::{By, Shape, Tuning, share};
use super::op::{Attend, Gate, Half, Input, Kind, Output, Project};
use super::workspace::Workspace;
use crate::backend::cuda::driver::{Address, Gpu};
use crate::backend::cuda::kernels::abi::{self, Mat, Stage};
use crate::backend::cuda::kernels::launch::Glu;
use crate::model::{Activation, Config, RopePairing};

/// A stage with its geometry.
#[derive(Clone, Debug)]
pub struct Placed {
    /// What it is counted as.
    pub kind: Kind,
    /// The kernel's arguments.
    pub stage: Stage,
    /// The stage's matrices, as many as it has.
    pub mats: Vec<Mat>,
    /// Whether they are a gate and what it is on.
    pub pair: bool,
    /// The kernel.
    pub by: By,
    /// Its geometry.
    pub shape: Shape,
}

/// Makes stages one after another; knows where the residual stream is meanwhile.
pub struct Stages<'a> {
    gpu: &'a Gpu,
    config: &'a Config,
    tuning: &'a Tuning,
    work: &'a Workspace,
    /// The residual stream, and what is to be added to it with which post norm.
    current: Address,
    pending: Option<(Address, Address)>,
}

impl<'a> Stages<'a> {
    /// Stages that begin with the stream where the embedding puts it.
    pub fn new(gpu: &'a Gpu, config: &'a Config, tuning: &'a Tuning, work: &'a Workspace) -> Stages<'a> {
        Stages { gpu, config, tuning, work, current: work.x[0], pending: None }
    }

    /// Where the stream is, and what is still to be added to it with which post norm.
    pub fn stream(&self) -> (Address, Option<(Address, Address)>) {
        (self.current, self.pending)
    }

    /// A stage that reads this.
    fn reading(&mut self, input: Input, n: u32) -> Stage {
        let x = match input {
            Input::Normed { weight, .. } => return self.reading_stream(weight, n),
            Input::Mix => self.work.mix,
            Input::Gated => self.work.act,
        };
        Stage { x, n, ..Stage::default() }
    }

    /// A stage whose input is the normalized residual stream, which it sums first.
    fn reading_stream(&mut self, weight: Address, n: u32) -> Stage {
        let mut stage = Stage { x: self.current, norm_w: weight, n, eps: self.config.norm_eps, ..Stage::default() };
        if let Some((delta, post)) = self.pending.take() {
            let [a, b] = self.work.x;
            self.current = if self.current == a { b } else { a };
            (stage.delta, stage.post_w, stage.x_out) = (delta, post, self.current);
        }
        stage
    }

    fn placed(&self, kind: Kind, mut stage: Stage, mats: &[Mat], pair: bool) -> Placed {
        stage.m[..mats.len()].copy_from_slice(mats);
        let (by, shape) = By::choose(self.gpu, self.tuning.shapes[kind as usize], mats, pair);
        share(self.gpu.n_sm * shape.per_sm, shape, mats, pair, &mut stage);
        Placed { kind, stage, mats: mats.to_vec(), pair, by, shape }
    }

    /// See [`Project`].
    pub fn project(&mut self, p: &Project) -> Placed {
        let mut stage = self.reading(p.input, p.mats[0].cols);
        stage.bias = p.bias;
        match p.output {
            Output::Qkv => {
                let mut to = self.work.qkv;
                for (out, mat) in stage.out.iter_mut().zip(&p.mats) {
                    *out = to;
                    to += 4 * u64::from(mat.rows);
                }
            }
            Output::Stream { half, post_norm } => {
                stage.out[0] = self.added(half);
                self.pending = Some((stage.out[0], post_norm));
            }
            Output::Logits { softcap } => (stage.state, stage.softcap) = (self.work.state, softcap),
        }
        self.placed(p.kind, stage, &p.mats, false)
    }

    /// Where a half layer leaves what it adds.
    pub fn added(&self, half: Half) -> Address {
        match half {
            Half::Mixer => self.work.attn_out,
            Half::Ffn => self.work.ffn_out,
        }
    }

    /// One stage, or products of both matrices and what brings them together.
    pub fn gate(&mut self, g: &Gate) -> (Placed, Option<Glu>) {
        let mut stage = self.reading(g.input, g.gate.cols);
        let activation = match g.activation {
            Activation::Silu => abi::Activation::Silu as u32,
            Activation::GeluTanh => abi::Activation::Gelu as u32,
        };
        if g.gate.ty == g.up.ty {
            (stage.out[0], stage.activation) = (self.work.act, activation);
            return (self.placed(Kind::GateUp, stage, &[g.gate, g.up], true), None);
        }
        (stage.out[0], stage.out[1]) = (self.work.gate, self.work.up);
        let glu = Glu { gate: self.work.gate, up: self.work.up, out: self.work.act, n: g.gate.rows, activation };
        (self.placed(Kind::Up, stage, &[g.gate, g.up], false), Some(glu))
    }

    /// Attention of one row; where it is split by position is for the launch to say.
    pub fn attend(&self, op: &Attend) -> abi::Attend {
        let (a, work) = (&op.attention, self.work);
        abi::Attend {
            qkv: work.qkv,
            q_norm: op.q_norm,
            k_norm: op.k_norm,
            turns: op.turns,
            state: work.state,
            out: work.mix,
            part: work.part(),
            counters: work.counters,
            n_heads: a.n_heads as u32,
            n_kv: a.n_kv_heads as u32,
            head_dim: a.head_dim as u32,
            n_rot: op.n_rot as u32,
            halves: u32::from(op.pairing == RopePairing::Halves),
            window: a.window.unwrap_or(0),
            layer: op.cache_layer as u32,
            max_chunks: work.max_chunks(),
            scale: a.scale,
            softcap: a.softcap.unwrap_or(0.0),
            eps: self.config.norm_eps,
            magnitude: op.magnitude,
            ..abi::Attend::default()
        }
    }
}
