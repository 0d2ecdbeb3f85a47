//! Many tokens through the tensor cores as a list of launches: of one sequence, or of several that share the pass. A row's bits
//! are the same in any company: products and norms know rows only, attention goes by the sequence's own tiles.
//!
//! Weights that are not f16 are expanded into a slab before each product; activations between products are f16, sums, the
//! residual stream and the inputs of norms f32.

use super::op::{Attend, Half, Input, Op, Output, What};
use super::prefill_workspace::{PrefillWorkspace, quantized, slab_bytes};
use crate::backend::PAGE_TOKENS;
use crate::backend::cuda::driver::{Address, Gpu};
use crate::backend::cuda::kernels::abi::{Epilogue, Flash, Gemm, Mat, PrefillNorm, PrefillRope};
use crate::model::{Activation, Config, RopePairing};

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
    Norm(PrefillNorm),
    /// A matrix in f16, and what that rounding leaves unless `lo` is 0.
    Expand {
        mat: Mat,
        to: Address,
        lo: Address,
    },
    Gemm(Gemm),
    Rope(PrefillRope),
    Flash(Flash),
}

/// Rows of an activation that a launch has left somewhere.
#[derive(Clone, Copy, Debug)]
pub struct Show {
    /// One of `TAP_NAMES`.
    pub name: &'static str,
    /// The layer, or -1.
    pub layer: i32,
    /// How they lie.
    pub rows: Rows,
    /// Elements of a row.
    pub cols: usize,
}

/// How rows of an activation lie.
#[derive(Clone, Copy, Debug)]
pub enum Rows {
    /// f32, so many elements apart.
    Floats {
        /// The first.
        from: Address,
        /// Elements from one to the next.
        stride: usize,
    },
    /// f16 and what their rounding has left, where that is not null, one behind the other.
    Halves([Address; 2]),
}

/// A pass.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// The model.
    pub config: &'a Config,
    /// The buffers.
    pub work: &'a PrefillWorkspace,
    /// Rows.
    pub m: usize,
    /// Pages and start of the only sequence.
    pub one: (Address, usize),
    /// How many tiles several sequences have; the tables hold them and the sequences' places. 0: there is one sequence.
    pub n_tiles: usize,
    /// Two buffers of m rows of the widest vector, where somebody watches.
    pub taps: Option<[Address; 2]>,
}

/// The launches of these operations, which end in `Finish`, for the rows of a pass.
pub fn lower(pass: Pass<'_>, ops: &[Op]) -> Vec<Launch> {
    let mut lowering = Lowering { pass, layer: -1, pending: None, launches: Vec::with_capacity(4 * ops.len()) };
    for op in ops {
        lowering.layer = op.layer;
        lowering.op(op);
    }
    lowering.launches
}

struct Lowering<'a> {
    pass: Pass<'a>,
    layer: i32,
    /// Post norm (or 0) of what `delta` has for the stream.
    pending: Option<Address>,
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
                    // The last stage of a step takes a prompt's last row.
                    Output::Logits { .. } => {}
                }
            }
            What::Attend(a) => self.attend(a),
            What::Gate(g) => {
                let x = self.input(g.input);
                let gate = if g.activation == Activation::Silu { Epilogue::Silu } else { Epilogue::Gelu };
                self.gemm(x, &[g.gate, g.up], [0; 3], work.act, gate);
                let rows = Rows::Halves([work.act, work.left(work.act)]);
                self.show("ffn_act", layer, rows, g.gate.rows as usize);
            }
            What::Finish { norm, layer } => {
                if self.pending.is_some() {
                    // For the stream alone; h is not read.
                    self.norm(*norm, 0);
                }
                self.show_floats("resid", *layer, work.x, d);
            }
        }
    }

    /// What a product reads; the stream is summed and normalized first.
    fn input(&mut self, input: Input) -> Address {
        let Pass { config, work, taps, .. } = self.pass;
        match input {
            Input::Mix => work.mix,
            Input::Gated => work.act,
            Input::Normed { weight, tap, ends } => {
                let first = taps.map_or(0, |t| t[0]);
                self.norm(weight, first);
                if let Some(ended) = ends {
                    self.show_floats("resid", ended, work.x, config.n_embd);
                }
                self.show_floats(tap, self.layer, first, config.n_embd);
                work.h
            }
        }
    }

    fn norm(&mut self, weight: Address, tap: Address) {
        let Pass { config, work, m, .. } = self.pass;
        let (d, add) = (config.n_embd as u32, self.pending.take());
        self.push(Run::Norm(PrefillNorm {
            x: work.x,
            delta: if add.is_some() { work.delta } else { 0 },
            post_w: add.unwrap_or(0),
            w: weight,
            out: work.h,
            out_lo: work.left(work.h),
            tap,
            n_tokens: m as u32,
            dim: d,
            out_stride: d,
            eps: config.norm_eps,
        }));
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

    /// What a half layer adds: straight into the stream, or, where a post norm or an eye waits for it, into `delta`; x + (s + b)
    /// has the same bits either way.
    fn add(&mut self, x: Address, mat: Mat, bias: [Address; 3], half: Half, post: Address) {
        let Pass { config, work, taps, .. } = self.pass;
        let apart = taps.is_some() || post != 0;
        let (to, epilogue) = if apart { (work.delta, Epilogue::F32) } else { (work.x, Epilogue::Add) };
        self.gemm(x, &[mat], bias, to, epilogue);
        self.pending = apart.then_some(post);
        self.show_floats(half.tap(), self.layer, work.delta, config.n_embd);
    }

    fn attend(&mut self, op: &Attend) {
        let Pass { gpu, config, work, m, one: (pages, start), n_tiles, taps } = self.pass;
        let (places, tiles) = if n_tiles > 0 { (work.places, work.tiles) } else { (0, 0) };
        let a = &op.attention;
        let (h, g) = (a.q_width(), a.kv_width());
        let tile = (PAGE_TOKENS * a.head_dim) as u64;
        let k_offset = (2 * op.cache_layer * a.n_kv_heads) as u64 * tile;
        let v_offset = k_offset + a.n_kv_heads as u64 * tile;
        let [tap_q, tap_k] = taps.unwrap_or_default();
        self.push(Run::Rope(PrefillRope {
            qkv: work.qkv,
            q_norm: op.q_norm,
            k_norm: op.k_norm,
            turns: op.turns,
            q: work.q,
            pages,
            tap_q,
            tap_k,
            k_offset,
            v_offset,
            head_stride: tile,
            token_stride: a.head_dim as u64,
            n_tokens: m as u32,
            start: start as u32,
            n_heads: a.n_heads as u32,
            n_kv: a.n_kv_heads as u32,
            head_dim: a.head_dim as u32,
            n_rot: op.n_rot as u32,
            halves: u32::from(op.pairing == RopePairing::Halves),
            qkv_stride: (h + 2 * g) as u32,
            q_stride: h as u32,
            eps: config.norm_eps,
            magnitude: op.magnitude,
            rows: places,
        }));
        self.push(Run::Flash(Flash {
            q: work.q,
            out: work.mix,
            out_lo: work.left(work.mix),
            pages,
            k_offset,
            v_offset,
            head_stride: tile,
            token_stride: a.head_dim as u64,
            n_tokens: m as u32,
            start: start as u32,
            n_heads: a.n_heads as u32,
            n_kv: a.n_kv_heads as u32,
            head_dim: a.head_dim as u32,
            q_stride: h as u32,
            out_stride: h as u32,
            window: a.window.unwrap_or(0),
            wgmma: u32::from(work.encode.exists()),
            n_sms: gpu.n_sm,
            scale: a.scale,
            softcap: a.softcap.unwrap_or(0.0),
            tiles,
            n_tiles: n_tiles as u32,
        }));
        self.show_floats("q_rope", self.layer, tap_q, h);
        self.show_floats("k_rope", self.layer, tap_k, g);
        let v = Rows::Floats { from: work.qkv + 4 * (h + g) as u64, stride: h + 2 * g };
        self.show("v", self.layer, v, g);
        self.show("attn_mix", self.layer, Rows::Halves([work.mix, work.left(work.mix)]), h);
    }
}
