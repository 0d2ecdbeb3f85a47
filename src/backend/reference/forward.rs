//! One token through the network.
//!
//! Shapes: `D = n_embd`, `H = n_heads * head_dim`, `G = n_kv_heads * head_dim`, `F = n_ff`, `V = n_vocab`.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use half::f16;

use super::math::{Matrix, activation, dot, linear, rms_norm, rms_norm_in_place, rope_turns, rotate, softcap, softmax};
use super::zeros;
use crate::backend::{LoadControl, PAGE_TOKENS};
use crate::error::Result;
use crate::gguf::dequantize_row;
use crate::model::{Attention, Config, Dense, Ffn, LayerWeights, Mixer, Tensor, Weights};

/// Sees `(name, layer or -1, row)`.
pub(super) type Tap<'a> = &'a mut dyn FnMut(&'static str, i32, &[f32]);

/// Keys and values of `PAGE_TOKENS` positions over all layers; without memory until the first write.
#[derive(Default)]
pub(super) struct Page {
    /// Turned keys.
    pub k: Vec<f32>, // [n_layers, PAGE_TOKENS, G]
    /// Values.
    pub v: Vec<f32>, // [n_layers, PAGE_TOKENS, G]
}

impl Page {
    /// The same contents.
    pub fn copy(&self) -> Result<Page> {
        let copy = |from: &[f32]| {
            let mut to = zeros(from.len())?;
            to.copy_from_slice(from);
            Ok(to)
        };
        Ok(Page { k: copy(&self.k)?, v: copy(&self.v)? })
    }
}

/// A page; read by every sequence that shares it, written by the one sequence whose tail it is.
pub(super) type SharedPage = Arc<RwLock<Page>>;

/// One layer, dequantized.
pub(super) struct Layer {
    attn_norm: Vec<f32>,              // [D]
    q: Matrix,                        // [H, D]
    k: Matrix,                        // [G, D]
    v: Matrix,                        // [G, D]
    q_bias: Option<Vec<f32>>,         // [H]
    k_bias: Option<Vec<f32>>,         // [G]
    v_bias: Option<Vec<f32>>,         // [G]
    q_norm: Option<Vec<f32>>,         // [head_dim]
    k_norm: Option<Vec<f32>>,         // [head_dim]
    o: Matrix,                        // [D, H]
    o_bias: Option<Vec<f32>>,         // [D]
    post_attn_norm: Option<Vec<f32>>, // [D]
    ffn_norm: Vec<f32>,               // [D]
    gate: Matrix,                     // [F, D]
    up: Matrix,                       // [F, D]
    down: Matrix,                     // [D, F]
    post_ffn_norm: Option<Vec<f32>>,  // [D]
}

/// The whole network, dequantized.
pub(super) struct Network {
    pub config: Config,
    token_embd: Matrix, // [V, D]
    layers: Vec<Layer>,
    output_norm: Vec<f32>,  // [D]
    output: Option<Matrix>, // [V, D]; None: the embedding
    kv_starts: Vec<usize>,  // [n_layers + 1] where a layer's rows start in a page's `k` and `v`
    f16_cache: bool,        // round keys and values to f16 before they are kept
}

/// The activations of one token.
pub(super) struct State {
    x: Vec<f32>,            // [D] the residual stream
    h: Vec<f32>,            // [D] normalized
    q: Vec<f32>,            // [H]
    k: Vec<f32>,            // [G]
    v: Vec<f32>,            // [G]
    mix: Vec<f32>,          // [H]
    out: Vec<f32>,          // [D] what a half layer adds to the stream
    gate: Vec<f32>,         // [F]
    up: Vec<f32>,           // [F]
    scores: Vec<f64>,       // [positions attended to]
    sum: Vec<f64>,          // [head_dim]
    turns: Vec<(f64, f64)>, // [n_rot / 2] cos and sin
}

impl State {
    /// Room for one token at a position below `n_positions`.
    pub fn new(c: &Config, n_positions: usize) -> Result<State> {
        let most = c.widths();
        let (h, g) = (most.q, most.kv);
        Ok(State {
            x: zeros(c.n_embd)?,
            h: zeros(c.n_embd)?,
            q: zeros(h)?,
            k: zeros(g)?,
            v: zeros(g)?,
            mix: zeros(h)?,
            out: zeros(c.n_embd)?,
            gate: zeros(most.ffn)?,
            up: zeros(most.ffn)?,
            scores: zeros(n_positions)?,
            sum: zeros(most.head)?,
            turns: zeros(most.pairs)?,
        })
    }
}

impl Network {
    /// Dequantizes everything.
    pub fn load(config: &Config, w: &Weights<'_>, f16_cache: bool, control: &mut dyn LoadControl) -> Result<Network> {
        let total = w.iter().map(|t| t.data.len() as u64).sum();
        let mut load = Loader { buffer: Vec::new(), control, done: 0, total };
        let token_embd = load.matrix(&w.token_embd)?;
        let layers = w.layers.iter().map(|l| load.layer(l)).collect::<Result<Vec<_>>>()?;
        // It has been read with the description.
        load.done += w.rope_freqs.map_or(0, |t| t.data.len() as u64);
        Ok(Network {
            config: config.try_clone()?,
            token_embd,
            layers,
            output_norm: load.vector(&w.output_norm)?,
            output: w.output.as_ref().map(|t| load.matrix(t)).transpose()?,
            kv_starts: kv_starts(config)?,
            f16_cache,
        })
    }

    /// Appends `token` at `position`: writes its keys and values into `pages`, and its logits where they are wanted.
    pub fn forward(
        &self,
        token: u32,
        position: usize,
        pages: &[SharedPage],       // covers 0 ..= position
        logits: Option<&mut [f32]>, // [V]
        s: &mut State,
        tap: Tap<'_>,
    ) -> Result<()> {
        let c = &self.config;
        let scale = c.embedding_scale as f64;
        for (x, &e) in s.x.iter_mut().zip(self.token_embd.row(token as usize)) {
            *x = (scale * e as f64) as f32; // [D]
        }
        tap("embed", -1, &s.x);

        for (i, layer) in self.layers.iter().enumerate() {
            let n = i as i32;
            rms_norm(&mut s.h, &s.x, &layer.attn_norm, c.norm_eps); // [D]
            tap("attn_norm", n, &s.h);
            match c.layers[i].mixer {
                Mixer::Attention(attention) => self.attention(i, &attention, position, pages, s, tap)?, // h -> out
            }
            if let Some(weight) = &layer.post_attn_norm {
                rms_norm_in_place(&mut s.out, weight, c.norm_eps); // [D]
            }
            add(&mut s.x, &s.out); // [D]

            rms_norm(&mut s.h, &s.x, &layer.ffn_norm, c.norm_eps); // [D]
            tap("ffn_norm", n, &s.h);
            match c.layers[i].ffn {
                Ffn::Dense(dense) => self.dense(layer, &dense, n, s, tap), // h -> out
            }
            tap("ffn_out", n, &s.out);
            if let Some(weight) = &layer.post_ffn_norm {
                rms_norm_in_place(&mut s.out, weight, c.norm_eps); // [D]
            }
            add(&mut s.x, &s.out); // [D]
            tap("resid", n, &s.x);
        }

        if let Some(logits) = logits {
            rms_norm(&mut s.h, &s.x, &self.output_norm, c.norm_eps); // [D]
            tap("final_norm", -1, &s.h);
            linear(logits, self.output.as_ref().unwrap_or(&self.token_embd), &s.h, None); // [V] = [V, D] [D]
            if c.logit_softcap.is_some() {
                logits.iter_mut().for_each(|l| *l = softcap(*l as f64, c.logit_softcap) as f32); // [V]
            }
            tap("logits", -1, logits);
        }
        Ok(())
    }

    /// `s.out = Wdown (activation(Wgate s.h) * (Wup s.h))`.
    fn dense(&self, layer: &Layer, dense: &Dense, n: i32, s: &mut State, tap: Tap<'_>) {
        let State { h, gate, up, out, .. } = s;
        let (gate, up) = (&mut gate[..dense.width], &mut up[..dense.width]);
        linear(gate, &layer.gate, h, None); // [F] = [F, D] [D]
        linear(up, &layer.up, h, None); // [F] = [F, D] [D]
        for (gate, &up) in gate.iter_mut().zip(&*up) {
            *gate = (activation(*gate, dense.activation) * up as f64) as f32; // [F]
        }
        tap("ffn_act", n, gate);
        linear(out, &layer.down, gate, None); // [D] = [D, F] [F]
    }

    /// `s.out = Wo attention(s.h) + bo`.
    fn attention(
        &self,
        layer_index: usize,
        a: &Attention,
        position: usize,
        pages: &[SharedPage],
        s: &mut State,
        tap: Tap<'_>,
    ) -> Result<()> {
        let (layer, n, eps) = (&self.layers[layer_index], layer_index as i32, self.config.norm_eps);
        let rope = self.config.rope_of(a);
        let (h, g) = (a.q_width(), a.kv_width());
        linear(&mut s.q[..h], &layer.q, &s.h, layer.q_bias.as_deref()); // [H] = [H, D] [D]
        linear(&mut s.k[..g], &layer.k, &s.h, layer.k_bias.as_deref()); // [G] = [G, D] [D]
        linear(&mut s.v[..g], &layer.v, &s.h, layer.v_bias.as_deref()); // [G] = [G, D] [D]

        let turns = &mut s.turns[..rope.inv_freq.len()];
        rope_turns(turns, position, rope);
        for (rows, norm) in [(&mut s.q[..h], &layer.q_norm), (&mut s.k[..g], &layer.k_norm)] {
            for head in rows.chunks_exact_mut(a.head_dim) {
                if let Some(weight) = norm {
                    rms_norm_in_place(head, weight, eps); // [head_dim]
                }
                rotate(head, turns, rope.pairing); // [head_dim]
            }
        }
        tap("q_rope", n, &s.q[..h]);
        tap("k_rope", n, &s.k[..g]);
        tap("v", n, &s.v[..g]);
        self.store(layer_index, position, pages, s)?;

        let first = a.window.map_or(0, |w| (position + 1).saturating_sub(w as usize));
        self.attend(layer_index, a, first..position + 1, pages, s);
        tap("attn_mix", n, &s.mix[..h]);
        linear(&mut s.out, &layer.o, &s.mix[..h], layer.o_bias.as_deref()); // [D] = [D, H] [H]
        tap("attn_out", n, &s.out);
        Ok(())
    }

    /// Elements of a position's keys, or values, in one layer.
    pub fn row_len(&self, layer: usize) -> usize {
        self.config.layers[layer].attention().kv_width()
    }

    /// Elements of a page's `k`, or `v`.
    pub fn page_len(&self) -> usize {
        self.kv_starts[self.layers.len()]
    }

    /// Where the row of `position` starts in a page's `k` and `v`.
    pub fn row_offset(&self, layer: usize, position: usize) -> usize {
        self.kv_starts[layer] + position % PAGE_TOKENS * self.row_len(layer)
    }

    /// Keeps `s.k` and `s.v` as those of `position`.
    fn store(&self, layer: usize, position: usize, pages: &[SharedPage], s: &State) -> Result<()> {
        let mut page = pages[position / PAGE_TOKENS].write().unwrap_or_else(PoisonError::into_inner);
        if page.v.is_empty() {
            page.k = zeros(self.page_len())?;
            page.v = zeros(self.page_len())?;
        }
        let (at, g) = (self.row_offset(layer, position), self.row_len(layer));
        page.k[at..at + g].copy_from_slice(&s.k[..g]); // [G]
        page.v[at..at + g].copy_from_slice(&s.v[..g]); // [G]
        if self.f16_cache {
            let Page { k, v } = &mut *page;
            let rows = [&mut k[at..at + g], &mut v[at..at + g]];
            rows.into_iter().flatten().for_each(|x| *x = f16::from_f32(*x).to_f32());
        }
        Ok(())
    }

    /// `s.mix = softmax(scale * q k^T) v` over `positions`, head by head.
    fn attend(&self, layer: usize, a: &Attention, positions: Range<usize>, pages: &[SharedPage], s: &mut State) {
        let heads_per_kv = a.n_heads / a.n_kv_heads;
        let pages: Vec<_> = pages[..positions.end.div_ceil(PAGE_TOKENS)]
            .iter()
            .map(|p| p.read().unwrap_or_else(PoisonError::into_inner))
            .collect();
        let scores = &mut s.scores[..positions.len()];
        let sum = &mut s.sum[..a.head_dim];
        let heads = s.q[..a.q_width()].chunks_exact(a.head_dim).zip(s.mix.chunks_exact_mut(a.head_dim));
        for (head, (q, mix)) in heads.enumerate() {
            let head_offset = head / heads_per_kv * a.head_dim;
            for (score, p) in scores.iter_mut().zip(positions.clone()) {
                let at = self.row_offset(layer, p) + head_offset;
                let k = &pages[p / PAGE_TOKENS].k[at..at + a.head_dim]; // [head_dim]
                *score = softcap(a.scale as f64 * dot(q, k), a.softcap);
            }
            softmax(scores);
            sum.fill(0.0); // [head_dim]
            for (&score, p) in scores.iter().zip(positions.clone()) {
                let at = self.row_offset(layer, p) + head_offset;
                let v = &pages[p / PAGE_TOKENS].v[at..at + a.head_dim]; // [head_dim]
                for (sum, &v) in sum.iter_mut().zip(v) {
                    *sum += score * v as f64;
                }
            }
            for (mix, &sum) in mix.iter_mut().zip(&*sum) {
                *mix = sum as f32; // [head_dim]
            }
        }
    }
}

/// Where each layer's rows start in a page's `k` and `v`, and behind them how many elements there are.
fn kv_starts(config: &Config) -> Result<Vec<usize>> {
    let mut starts = zeros(config.n_layers() + 1)?;
    for (i, layer) in config.layers.iter().enumerate() {
        starts[i + 1] = starts[i] + PAGE_TOKENS * layer.attention().kv_width();
    }
    Ok(starts)
}

/// `x += y`.
fn add(x: &mut [f32], y: &[f32]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// Bytes of a file read at once, if a row is not longer.
const PIECE_BYTES: usize = 1 << 20;

/// Dequantizes tensor after tensor and reports it.
struct Loader<'a> {
    /// What is read of a file.
    buffer: Vec<u8>,
    control: &'a mut dyn LoadControl,
    done: u64,
    total: u64,
}

impl Loader<'_> {
    fn matrix(&mut self, t: &Tensor<'_>) -> Result<Matrix> {
        let mut data = zeros(t.rows * t.cols)?;
        let row_bytes = t.ty.row_bytes(t.cols);
        let step = (PIECE_BYTES / row_bytes).max(1);
        for (first, rows) in (0..t.rows).step_by(step).zip(data.chunks_mut(step * t.cols)) {
            let last = (first + step).min(t.rows);
            let src = t.data.piece(first * row_bytes..last * row_bytes, &mut self.buffer)?;
            for (src, dst) in src.chunks_exact(row_bytes).zip(rows.chunks_exact_mut(t.cols)) {
                dequantize_row(t.ty, src, dst)?;
                if t.scale != 1.0 {
                    dst.iter_mut().for_each(|w| *w *= t.scale);
                }
            }
        }
        self.done += t.data.len() as u64;
        self.control.progress(self.done, self.total)?;
        Ok(Matrix { rows: t.rows, cols: t.cols, data })
    }

    fn vector(&mut self, t: &Tensor<'_>) -> Result<Vec<f32>> {
        Ok(self.matrix(t)?.data)
    }

    fn optional(&mut self, t: &Option<Tensor<'_>>) -> Result<Option<Vec<f32>>> {
        t.as_ref().map(|t| self.vector(t)).transpose()
    }

    fn layer(&mut self, l: &LayerWeights<'_>) -> Result<Layer> {
        Ok(Layer {
            attn_norm: self.vector(&l.attn_norm)?,
            q: self.matrix(&l.q)?,
            k: self.matrix(&l.k)?,
            v: self.matrix(&l.v)?,
            q_bias: self.optional(&l.q_bias)?,
            k_bias: self.optional(&l.k_bias)?,
            v_bias: self.optional(&l.v_bias)?,
            q_norm: self.optional(&l.q_norm)?,
            k_norm: self.optional(&l.k_norm)?,
            o: self.matrix(&l.o)?,
            o_bias: self.optional(&l.o_bias)?,
            post_attn_norm: self.optional(&l.post_attn_norm)?,
            ffn_norm: self.vector(&l.ffn_norm)?,
            gate: self.matrix(&l.gate)?,
            up: self.matrix(&l.up)?,
            down: self.matrix(&l.down)?,
            post_ffn_norm: self.optional(&l.post_ffn_norm)?,
        })
    }
}
