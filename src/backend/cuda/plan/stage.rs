//! Operations as stages of a step: which buffers, which geometry; common to a token alone and to many sequences.

use super::experts::{Call, Rows};
use super::ffn::{self, Ffn};
use super::geometry::{By, Shape, Tuning, share};
use super::limits::stride;
use super::op::{Attend, Gate, Half, Input, Kind, Norm, Output, Project, What};
use super::per_layer::{self, ByLayer};
use super::recurrent::{self, To};
use super::workspace::Workspace;
use crate::backend::cuda::driver::{Address, Gpu};
use crate::backend::cuda::kernels::abi::{self, Glu, Mat, Spans, Stage};
use crate::backend::cuda::kernels::kinds::{Activation, NormKind};
use crate::backend::cuda::kernels::launch::Between;
use crate::backend::cuda::kernels::packed::Packed;
use crate::model::Config;

/// Norms without weights of `n` rows' heads, so many of so many elements.
pub fn value_norm((x, x_stride): (Address, u32), n: u32, (heads, dim): (usize, usize), eps: f32) -> abi::Norm {
    let (heads, dim) = (heads as u32, dim as u32);
    abi::Norm { x, row: x, n_rows: n, dim, heads, x_stride, kind: NormKind::Rms as u32, eps, ..abi::Norm::default() }
}

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
    /// Rows: of sequences.
    n: u32,
    /// The residual stream, and what is to be added to it with which post norm.
    current: Address,
    pending: Vec<(Address, Address)>,
    /// What the norm before has left.
    row: Address,
}

impl<'a> Stages<'a> {
    /// Stages for `n` sequences that begin with the stream where the embedding puts it.
    pub fn new(gpu: &'a Gpu, config: &'a Config, tuning: &'a Tuning, work: &'a Workspace, n: u32) -> Stages<'a> {
        Stages { gpu, config, tuning, work, n, current: work.x[0], pending: Vec::new(), row: work.x[0] }
    }

    /// Elements from one row of so many to the next.
    fn stride(&self, n: usize) -> u32 {
        self.row_stride()(n)
    }

    /// The stream with what is to be added to it, in its place; nothing where there is nothing.
    pub fn sum(&mut self, sum_scale: f32) -> Option<abi::Norm> {
        if self.pending.is_empty() {
            return None;
        }
        Some(abi::Norm { sum_scale, ..self.summing() })
    }

    fn summing(&mut self) -> abi::Norm {
        let (mut delta, mut post_w) = ([0; 2], [0; 2]);
        for (i, (from, post)) in self.pending.drain(..).enumerate() {
            (delta[i], post_w[i]) = (from, post);
        }
        abi::Norm {
            x: self.current,
            delta,
            post_w,
            n_rows: self.n,
            dim: self.config.n_embd as u32,
            x_stride: self.stride(self.config.n_embd),
            eps: self.config.norm_eps,
            scale: self.config.residual_scale,
            ..abi::Norm::default()
        }
    }

    /// See [`Norm`]; nothing where the stream is read as it is.
    pub fn norm(&mut self, op: &Norm) -> Option<abi::Norm> {
        if op.norm == NormKind::None {
            self.row = self.current;
            return self.sum(op.sum_scale);
        }
        self.row = self.work.normed;
        let norm = self.summing();
        let Norm { weight: w, bias, .. } = *op;
        // A prompt's stream comes to the head summed and scaled.
        let sum_scale = if norm.delta[0] != 0 { op.sum_scale } else { 0.0 };
        Some(abi::Norm { w, bias, row: self.row, kind: op.norm as u32, sum_scale, ..norm })
    }

    /// The same where the launches of `op`, which is next, begin with it, and where they leave the stream; nothing where they do not.
    pub fn norm_before(&mut self, op: &Norm, next: &Ffn) -> Option<(abi::Norm, Address)> {
        let plain = op.norm != NormKind::None && self.pending.len() == 1 && self.n == 1;
        if !plain || !ffn::takes_norm(self.gpu, self.config, next) {
            return None;
        }
        let norm = self.norm(op)?;
        self.other_stream();
        Some((norm, self.current))
    }

    /// The other place of the stream.
    fn other_stream(&mut self) {
        let [a, b] = self.work.x;
        self.current = if self.current == a { b } else { a };
    }

    /// Where the stream is, and where the norm before has left what it made of it.
    pub fn stream(&self) -> (Address, Address) {
        (self.current, self.row)
    }

    /// Norms of a position's queries and keys, in their places.
    fn qk_norm(&self, parts: &[(Address, usize); 2]) -> [abi::Norm; 2] {
        let [(_, h), (_, g)] = *parts;
        let norm = |(i, (w, dim)): (usize, &(Address, usize))| {
            let x = self.work.qkv + (4 * i * h) as u64;
            abi::Norm {
                x,
                row: x,
                w: *w,
                n_rows: self.n,
                dim: *dim as u32,
                x_stride: self.stride(h + 2 * g),
                kind: NormKind::Rms as u32,
                eps: self.config.norm_eps,
                ..abi::Norm::default()
            }
        };
        [norm((0, &parts[0])), norm((1, &parts[1]))]
    }

    /// Norms of a position's values, in their places, of so many heads of so many elements.
    fn value_norm(&self, at: usize, (heads, dim): (usize, usize)) -> abi::Norm {
        let (x, x_stride) = (self.work.qkv + 4 * at as u64, self.stride(at + heads * dim));
        value_norm((x, x_stride), self.n, (heads, dim), self.config.norm_eps)
    }

    /// The launches of an operation that stands between products, and is the same for one row and for several.
    pub fn between(&self, what: &What) -> Vec<Call> {
        let call = |kind, run| Call { kind, run, shows: Vec::new() };
        let norm = |kind, norm| call(kind, Between::Norm(norm));
        match what {
            What::QkNorm(parts) => self.qk_norm(parts).map(|n| norm(Kind::Attend, n)).into(),
            What::ValueNorm { at, heads } => vec![norm(Kind::Attend, self.value_norm(*at, *heads))],
            What::ByLayer(op) => {
                let sums = per_layer::sums(self.config, op, self.rows(), &self.work.per_layer);
                sums.map(|n| norm(Kind::Embed, n)).into()
            }
            What::LayerGlu { layer, activation } => {
                vec![call(Kind::Glu, Between::Glu(self.layer_glu(*layer, *activation)))]
            }
            What::Mix(op) => self.mix(op),
            What::GateMix { width } => vec![call(Kind::Attend, self.gate_mix(*width))],
            What::Beside => {
                let (sum, dim) = (self.beside(), self.config.n_embd);
                let shows = vec![("attn_out", sum.x, dim, dim)];
                vec![Call { shows, ..norm(Kind::Output, sum) }]
            }
            _ => Vec::new(),
        }
    }

    /// A stage that reads this.
    fn reading(&mut self, input: Input, n: u32) -> Stage {
        let x = match input {
            Input::Normed { weight, .. } => return self.reading_stream(weight, n),
            Input::Row => self.row,
            Input::Mix => self.work.mix,
            Input::Gated => self.work.act,
        };
        Stage { x, n, ..Stage::default() }
    }

    /// A stage whose input is the normalized residual stream, which it sums first.
    fn reading_stream(&mut self, weight: Address, n: u32) -> Stage {
        let mut stage = Stage { x: self.current, norm_w: weight, n, eps: self.config.norm_eps, ..Stage::default() };
        if let Some((delta, post)) = self.pending.pop() {
            self.other_stream();
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
                self.pending.push((stage.out[0], post_norm));
            }
            Output::Gates => {
                stage.out[0] = self.work.recurrent.gates;
                stage.out[1] = stage.out[0] + 4 * u64::from(p.mats[0].rows);
            }
            Output::Aside => stage.out[0] = self.work.ffn_out,
            Output::ByLayer => stage.out[0] = self.work.per_layer.rows,
            Output::LayerGate => stage.out[0] = self.work.per_layer.gate,
            Output::MixGate => stage.out[0] = self.work.recurrent.gate,
            Output::Shared => stage.out[0] = self.added(Half::Ffn),
            Output::Logits { softcap, scale } => {
                (stage.state, stage.softcap, stage.scale) = (self.work.state, softcap, scale);
                // One test of the kernels for both: every product of a step goes through it.
                if softcap == 0.0 && scale != 1.0 {
                    stage.softcap = f32::INFINITY;
                }
            }
        }
        self.placed(p.kind, stage, &p.mats, false)
    }

    /// See [`Ffn`]; `before`: the norm of one row that it begins with, from [`Stages::norm_before`].
    pub fn ffn(&mut self, op: &Ffn, before: Option<(abi::Norm, Address)>) -> Vec<Call> {
        let (d, y) = (stride(self.config.n_embd) as u32, self.added(Half::Ffn));
        let rows = Rows { n: self.n, x: self.row, stream: self.current, x_stride: d, y, y_stride: d, before };
        self.pending.push((y, op.post_norm));
        ffn::launches(self.gpu, self.config, op, rows, &self.work.ffn)
    }

    /// See [`Mix`](recurrent::Mix).
    fn mix(&self, op: &recurrent::Mix) -> Vec<Call> {
        let Workspace { qkv, mix, state, recurrent: room, .. } = self.work;
        let of = Spans { state: *state, n: self.n, n_rows: self.n, ..Spans::default() };
        let rows = recurrent::Rows { of, x: *qkv, stride: self.row_stride(), to: To::Row(*mix) };
        recurrent::launches(self.config, op, rows, room)
    }

    /// Where a token's embeddings by layer go, and how far apart.
    pub fn embeddings(&self, op: &ByLayer) -> (Address, u32) {
        (self.work.per_layer.embd, self.stride(op.table.cols as usize))
    }

    /// A layer's gate on what it adds.
    fn layer_glu(&self, layer: usize, activation: Activation) -> Glu {
        let to = [self.work.act, 0, 0];
        per_layer::gate(self.config, (layer, activation), self.rows(), &self.work.per_layer, to)
    }

    fn rows(&self) -> per_layer::Rows {
        per_layer::Rows { n: self.n, stride: self.row_stride() }
    }

    /// What two mixers have made, in the place of the first.
    fn beside(&self) -> abi::Norm {
        let (dim, x_stride) = (self.config.n_embd as u32, self.stride(self.config.n_embd));
        let norm = abi::Norm { x: self.work.attn_out, n_rows: self.n, dim, x_stride, ..abi::Norm::default() };
        abi::Norm { delta: [self.work.ffn_out, 0], scale: 1.0, ..norm }
    }

    /// The gate of attention.
    fn gate_mix(&self, width: usize) -> Between {
        recurrent::gate_mix(width, self.n, self.row_stride(), To::Row(self.work.mix), &self.work.recurrent)
    }

    fn row_stride(&self) -> fn(usize) -> u32 {
        if self.n == 1 { |n| n as u32 } else { |n| stride(n) as u32 }
    }

    /// Where a half layer leaves what it adds.
    pub fn added(&self, half: Half) -> Address {
        match half {
            Half::Mixer | Half::Beside => self.work.attn_out,
            Half::Ffn | Half::ByLayer => self.work.ffn_out,
        }
    }

    /// One stage, or products of the matrices and what follows them.
    pub fn gate(&mut self, g: &Gate) -> (Placed, Option<Glu>) {
        let mut stage = self.reading(g.input, g.up.cols);
        let (mats, bias) = g.mats();
        // The kernel of a lone token's pair of tiles has its norm in it.
        let apart = mats.iter().any(|m| m.ty != mats[0].ty) || (mats[0].ty == Packed::F16Tiles && stage.norm_w == 0);
        if g.gate.is_some() && !apart && g.activation.ends_products() && bias == [0; 3] {
            (stage.out[0], stage.activation) = (self.work.act, g.activation as u32);
            return (self.placed(Kind::GateUp, stage, &mats, true), None);
        }
        let (first, second) = if g.gate.is_some() { (self.work.gate, self.work.up) } else { (self.work.up, 0) };
        (stage.out[0], stage.out[1], stage.bias) = (first, second, bias);
        let between = self.stride(g.up.rows as usize);
        let glu = Glu {
            gate: first,
            up: second,
            row: self.work.act,
            n_rows: self.n,
            n: g.up.rows,
            in_stride: between,
            out_stride: between,
            activation: g.activation as u32,
            ..Glu::default()
        };
        (self.placed(Kind::Up, stage, &mats, false), Some(glu))
    }

    /// Attention of one row; where it is split by position is for the launch to say.
    pub fn attend(&self, op: &Attend) -> abi::Attend {
        let (a, work) = (&op.attention, self.work);
        abi::Attend {
            qkv: work.qkv,
            q_norm: op.q_norm,
            k_norm: op.k_norm,
            sinks: op.sinks,
            turns: op.turns,
            state: work.state,
            out: work.mix,
            part: work.part(),
            counters: work.counters,
            n_heads: a.n_heads as u32,
            n_kv: a.n_kv_heads as u32,
            head_dim: a.head_dim as u32,
            n_rot: op.n_rot as u32,
            pairing: op.pairing as u32,
            norm_last: u32::from(op.norm_last),
            beta: a.temperature.map_or(0.0, |t| t.beta),
            interval: a.temperature.map_or(0, |t| t.interval),
            window: a.window.unwrap_or(0),
            cache_class: op.cache_class,
            layer_at: op.layer_at,
            is_kept: u32::from(a.kv_from.is_some()),
            max_chunks: work.max_chunks(),
            scale: a.scale,
            softcap: a.softcap.unwrap_or(0.0),
            eps: self.config.norm_eps,
            magnitude: op.magnitude,
            ..abi::Attend::default()
        }
    }
}
