//! Many tokens through the tensor cores as a list of launches: of one sequence, or of several that share the pass. A row's bits
//! are the same in any company: products and norms know rows only, attention goes by the sequence's own tiles.
//!
//! Weights that are not f16 are expanded into a slab before each product; activations between products are f16, sums, the
//! residual stream and the inputs of norms f32.

use super::experts::Rows as PartRows;
use super::ffn::{self, Ffn};
use super::op::{Attend, Gate, Half, Input, Op, Output, What};
use super::pass::Pass;
use super::per_layer;
use super::prefill_attention;
use super::prefill_workspace::{ends_with, quantized, slab_bytes};
use super::recurrent::{self, Mix, To};
use super::show::{Rows, Show};
use super::stage::value_norm;
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::kernels::abi::{self, Flash, Gemm, Glu, Mat, PrefillRope, Spans};
use crate::backend::cuda::kernels::kinds::{Epilogue, NormKind};
use crate::backend::cuda::kernels::launch::Between;

/// One launch.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Its layer, or -1.
    pub layer: i32,
    /// How to run it.
    pub run: Run,
    /// What may be shown when it has run; empty where nobody can watch.
    pub shows: Vec<Show>,
}

/// A launch's arguments.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, missing_docs)] // there is one list of a few hundred
pub enum Run {
    Embed {
        mat: Mat,
        n: u32,
        scale: f32,
        x: Address,
        stride: u32,
    },
    /// A matrix in f16, and what that rounding leaves unless `lo` is 0.
    Expand {
        mat: Mat,
        to: Address,
        lo: Address,
    },
    Gemm(Gemm),
    Rope(PrefillRope),
    Flash(Flash),
    Between(Between),
}

/// Rows lie one behind the other.
const EXACT: fn(usize) -> u32 = |n| n as u32;

/// The launches of these operations, which end in `Finish`, for the rows of a pass.
pub fn lower(pass: Pass<'_>, ops: &[Op]) -> Vec<Launch> {
    let mut lowering = Lowering { pass, layer: -1, pending: Vec::new(), launches: Vec::with_capacity(4 * ops.len()) };
    for op in ops {
        lowering.layer = op.layer;
        lowering.op(op);
    }
    lowering.launches
}

struct Lowering<'a> {
    pass: Pass<'a>,
    layer: i32,
    /// Post norms (or 0) of what the deltas have for the stream.
    pending: Vec<Address>,
    launches: Vec<Launch>,
}

impl Lowering<'_> {
    fn push(&mut self, run: Run) {
        self.launches.push(Launch { layer: self.layer, run, shows: Vec::new() });
    }

    /// Adds to what the last launch shows, if somebody watches.
    fn show(&mut self, name: &'static str, layer: i32, rows: Rows, cols: usize) {
        if let (Some(last), Some(_)) = (self.launches.last_mut(), self.pass.taps) {
            last.shows.push(Show { name, layer, rows, cols });
        }
    }

    fn show_floats(&mut self, name: &'static str, layer: i32, from: Address, cols: usize) {
        self.show(name, layer, Rows::Floats { from, stride: cols }, cols);
    }

    fn op(&mut self, op: &Op) {
        let Pass { config, work, m, .. } = self.pass;
        let (d, layer) = (config.n_embd, op.layer);
        match &op.what {
            What::Embed { table, scale } => {
                self.push(Run::Embed { mat: *table, n: m as u32, scale: *scale, x: work.x, stride: d as u32 });
                self.show_floats("embed", layer, work.x, d);
            }
            What::Project(p) => {
                let x = self.input(p.input);
                match p.output {
                    Output::Qkv => self.gemm(x, &p.mats, p.bias, work.qkv, Epilogue::F32),
                    Output::Stream { half, post_norm } => self.add(x, p.mats[0], p.bias, half, post_norm),
                    Output::Gates => self.gemm(x, &p.mats, p.bias, work.recurrent.gates, Epilogue::F32),
                    Output::Aside => self.gemm(x, &p.mats, p.bias, work.delta[1], Epilogue::F32),
                    Output::ByLayer => self.gemm(x, &p.mats, p.bias, work.per_layer.rows, Epilogue::F32),
                    Output::LayerGate => self.gemm(x, &p.mats, p.bias, work.per_layer.gate, Epilogue::F32),
                    Output::MixGate => {
                        self.gemm(x, &p.mats, p.bias, work.recurrent.gate, Epilogue::F32);
                        self.show_floats("gate", layer, work.recurrent.gate, p.mats[0].rows as usize);
                    }
                    Output::Shared => self.gemm(x, &p.mats, p.bias, self.next_delta(), Epilogue::F32),
                    // The last stage of a step takes a prompt's last row.
                    Output::Logits { .. } => {}
                }
            }
            What::Attend(a) => self.attend(a),
            What::Norm(n) => self.read(n.norm, [n.weight, n.bias], (n.ends, n.sum_scale), n.taps),
            What::ValueNorm { at, heads } => {
                let row = (work.qkv + 4 * *at as u64, (at + heads.0 * heads.1) as u32);
                let norm = value_norm(row, m as u32, *heads, config.norm_eps);
                self.push(Run::Between(Between::Norm(norm)));
            }
            What::QkNorm(parts) => {
                let [(_, h), (_, g)] = *parts;
                for (i, (w, dim)) in parts.iter().enumerate() {
                    let x = work.qkv + (4 * i * h) as u64;
                    let norm = abi::Norm { x, row: x, w: *w, kind: NormKind::Rms as u32, ..abi::Norm::default() };
                    let norm = abi::Norm { n_rows: m as u32, dim: *dim as u32, eps: config.norm_eps, ..norm };
                    self.push(Run::Between(Between::Norm(abi::Norm { x_stride: (h + 2 * g) as u32, ..norm })));
                }
            }
            What::Beside => {
                let norm = abi::Norm { x: work.delta[0], delta: [work.delta[1], 0], ..abi::Norm::default() };
                let norm = abi::Norm { n_rows: m as u32, dim: d as u32, x_stride: d as u32, scale: 1.0, ..norm };
                self.push(Run::Between(Between::Norm(norm)));
                self.show_floats("attn_out", layer, work.delta[0], d);
            }
            What::ByLayer(by_layer) => {
                let (mat, scale, x) = (by_layer.table, by_layer.scale, work.per_layer.embd);
                self.push(Run::Embed { mat, n: m as u32, scale, x, stride: mat.cols });
                for norm in per_layer::sums(config, by_layer, self.rows(), &work.per_layer) {
                    self.push(Run::Between(Between::Norm(norm)));
                }
            }
            What::LayerGlu { layer, activation } => {
                let to = [0, work.act, work.left(work.act)];
                let glu = per_layer::gate(config, (*layer, *activation), self.rows(), &work.per_layer, to);
                self.push(Run::Between(Between::Glu(glu)));
            }
            What::Mix(mix) => self.mix(mix),
            What::GateMix { width } => {
                let run = recurrent::gate_mix(*width, m as u32, EXACT, self.mixed(), &work.recurrent);
                self.push(Run::Between(run));
            }
            What::Gate(g) => self.gate(g),
            What::Ffn(part) => self.ffn(part),
            What::Finish { layer, sum_scale } => {
                if !self.pending.is_empty() {
                    let norm = abi::Norm { sum_scale: *sum_scale, ..self.summing() };
                    self.push(Run::Between(Between::Norm(norm)));
                }
                self.show_floats("resid", *layer, work.x, d);
            }
        }
    }

    /// What a product reads; the stream is summed and normalized first.
    fn input(&mut self, input: Input) -> Address {
        let work = self.pass.work;
        match input {
            Input::Mix => work.mix,
            Input::Gated => work.act,
            Input::Row => work.h,
            Input::Normed { weight, tap, ends } => {
                self.read(NormKind::Rms, [weight, 0], (ends, 0.0), &[tap]);
                work.h
            }
        }
    }

    /// Sums the stream and leaves its norm in `h`.
    fn read(
        &mut self,
        norm: NormKind,
        [w, bias]: [Address; 2],
        (ends, sum_scale): (Option<i32>, f32),
        shows: &[&'static str],
    ) {
        let Pass { config, work, taps, .. } = self.pass;
        // What `ffn` names reads what is not rounded.
        let (first, d) = (if work.normed != 0 { work.normed } else { taps.map_or(0, |t| t[0]) }, config.n_embd);
        let norm = abi::Norm { w, bias, kind: norm as u32, row: first, sum_scale, ..self.summing() };
        let norm = abi::Norm { out: work.h, out_lo: work.left(work.h), out_stride: d as u32, ..norm };
        self.push(Run::Between(Between::Norm(norm)));
        if let Some(ended) = ends {
            self.show_floats("resid", ended, work.x, d);
        }
        shows.iter().for_each(|tap| self.show_floats(tap, self.layer, first, d));
    }

    /// The stream with what is to be added to it, in its place.
    fn summing(&mut self) -> abi::Norm {
        let Pass { config, work, m, .. } = self.pass;
        let (mut delta, mut post_w, dim) = ([0; 2], [0; 2], config.n_embd as u32);
        for (i, post) in self.pending.drain(..).enumerate() {
            (delta[i], post_w[i]) = (work.delta[i], post);
        }
        let (eps, scale) = (config.norm_eps, config.residual_scale);
        abi::Norm { x: work.x, delta, post_w, n_rows: m as u32, dim, x_stride: dim, eps, scale, ..abi::Norm::default() }
    }

    /// The products of a feed-forward part that down reads, with what stands behind them.
    fn gate(&mut self, g: &Gate) {
        let Pass { work, m, .. } = self.pass;
        let x = self.input(g.input);
        let (mats, bias) = g.mats();
        let n = g.up.rows;
        if let Some(end) = ends_with(g) {
            self.gemm(x, &mats, bias, work.act, end);
        } else {
            self.gemm(x, &mats, bias, work.wide, Epilogue::F32);
            let glu = Glu { gate: work.wide, out: work.act, out_lo: work.left(work.act), n, ..Glu::default() };
            let glu = Glu { n_rows: m as u32, in_stride: mats.iter().map(|m| m.rows).sum(), out_stride: n, ..glu };
            let up = if g.gate.is_some() { work.wide + 4 * u64::from(n) } else { 0 };
            self.push(Run::Between(Between::Glu(Glu { up, activation: g.activation as u32, ..glu })));
        }
        if g.shown {
            self.show("ffn_act", self.layer, Rows::Halves([work.act, work.left(work.act)]), n as usize);
        }
    }

    /// See [`Ffn`]; what it makes waits for the next norm.
    fn ffn(&mut self, op: &Ffn) {
        let Pass { gpu, config, work, m, .. } = self.pass;
        let (d, y) = (config.n_embd as u32, self.next_delta());
        let rows = PartRows { n: m as u32, x: work.normed, stream: work.x, x_stride: d, y, y_stride: d, before: None };
        for call in ffn::prompt(gpu, config, op, rows, &work.ffn, work.encode.exists()) {
            self.push(Run::Between(call.run));
            for (name, from, stride, cols) in call.shows {
                self.show(name, self.layer, Rows::Floats { from, stride }, cols);
            }
        }
        self.pending.push(op.post_norm);
    }

    fn rows(&self) -> per_layer::Rows {
        per_layer::Rows { n: self.pass.m as u32, stride: EXACT }
    }

    /// Where what a mixer makes goes.
    fn mixed(&self) -> To {
        To::Halves(self.pass.work.mix, self.pass.work.left(self.pass.work.mix))
    }

    /// See [`Mix`].
    fn mix(&mut self, op: &Mix) {
        let Pass { config, work, m, n_spans, .. } = self.pass;
        let of = Spans { spans: work.spans, n: n_spans as u32, n_rows: m as u32, ..Spans::default() };
        let rows = recurrent::Rows { of, x: work.qkv, stride: EXACT, to: self.mixed() };
        for call in recurrent::launches(config, op, rows, &work.recurrent) {
            self.push(Run::Between(call.run));
            for (name, from, stride, cols) in call.shows {
                self.show(name, self.layer, Rows::Floats { from, stride }, cols);
            }
        }
    }

    /// Where the next thing to be added to the stream goes.
    fn next_delta(&self) -> Address {
        self.pass.work.delta[self.pending.len().min(1)]
    }

    fn gemm(&mut self, x: Address, mats: &[Mat], bias: [Address; 3], y: Address, epilogue: Epilogue) {
        let Pass { gpu, work, m, .. } = self.pass;
        let (mut w, mut w_lo, mut n) = ([0; 3], [0; 3], [0; 3]);
        let two = work.halves && quantized(mats);
        let mut slab = work.slab;
        for (i, mat) in mats.iter().enumerate() {
            n[i] = mat.rows;
            w[i] = mat.a;
            if slab_bytes(mat) != 0 {
                w[i] = slab;
                slab += slab_bytes(mat);
                if two {
                    w_lo[i] = slab;
                    slab += slab_bytes(mat);
                }
                self.push(Run::Expand { mat: *mat, to: w[i], lo: w_lo[i] });
            }
        }
        self.push(Run::Gemm(Gemm {
            x,
            x_lo: work.left(x),
            w,
            w_lo,
            bias,
            y,
            y_lo: work.left(y),
            encode: work.encode,
            m: m as u32,
            k: mats[0].cols,
            n,
            n_w: mats.len() as u32,
            x_stride: mats[0].cols,
            w_stride: mats[0].stride,
            y_stride: if epilogue.is_gated() { n[0] } else { n.iter().sum() },
            epilogue: epilogue as u32,
            n_sms: gpu.n_sm,
            tile: 0,
        }));
    }

    /// What a half layer adds: straight into the stream, or, where a post norm, a scale or an eye waits for it, into a delta;
    /// x + (s + b) has the same bits either way. Of two things the second does not come first.
    fn add(&mut self, x: Address, mat: Mat, bias: [Address; 3], half: Half, post: Address) {
        let Pass { config, work, taps, .. } = self.pass;
        let scaled = config.layers.get(self.layer as usize).is_some_and(|layer| layer.out_scale != 1.0);
        let apart = taps.is_some()
            || scaled
            || half == Half::Beside
            || post != 0
            || config.residual_scale != 1.0
            || !self.pending.is_empty();
        let delta = self.next_delta();
        let (to, epilogue) = if apart { (delta, Epilogue::F32) } else { (work.x, Epilogue::Add) };
        self.gemm(x, &[mat], bias, to, epilogue);
        if apart {
            self.pending.push(post);
        }
        if let Some(tap) = half.tap() {
            self.show_floats(tap, self.layer, delta, config.n_embd);
        }
    }

    fn attend(&mut self, op: &Attend) {
        let (a, work) = (&op.attention, self.pass.work);
        let (h, g) = (a.q_width(), a.kv_width());
        let [tap_q, tap_k] = self.pass.taps.unwrap_or_default();
        let (rope, flash) = prefill_attention::launches(&self.pass, op);
        self.push(Run::Rope(rope));
        self.push(Run::Flash(flash));
        self.show_floats("q_rope", self.layer, tap_q, h);
        // What another layer has made that one has shown.
        if a.kv_from.is_none() {
            self.show_floats("k_rope", self.layer, tap_k, g);
            let v = Rows::Floats { from: work.qkv + 4 * (h + g) as u64, stride: h + 2 * g };
            self.show("v", self.layer, v, g);
        }
        self.show("attn_mix", self.layer, Rows::Halves([work.mix, work.left(work.mix)]), h);
    }
}
