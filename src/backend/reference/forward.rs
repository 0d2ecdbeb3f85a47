//! One token through the network.
//!
//! Shapes: `D = n_embd`, `H = n_heads * head_dim`, `G = n_kv_heads * head_dim`, `F = n_ff`, `V = n_vocab`.

use std::sync::{Arc, PoisonError, RwLock};

use half::f16;

use super::math::{Matrix, activation, dot, linear, rms_norm, rms_norm_in_place, rope, rope_turns, softcap, softmax};
use super::zeros;
use crate::backend::{LoadControl, PAGE_TOKENS};
use crate::error::Result;
use crate::gguf::dequantize_row;
use crate::model::{Config, LayerWeights, Tensor, Weights};

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
    output_norm: Vec<f32>,        // [D]
    output: Option<Matrix>,       // [V, D]; None: the embedding
    rope_freqs: Option<Vec<f32>>, // [n_rot / 2]
    f16_cache: bool,              // round keys and values to f16 before they are kept
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
        let (h, g) = (c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim);
        Ok(State {
            x: zeros(c.n_embd)?,
            h: zeros(c.n_embd)?,
            q: zeros(h)?,
            k: zeros(g)?,
            v: zeros(g)?,
            mix: zeros(h)?,
            out: zeros(c.n_embd)?,
            gate: zeros(c.n_ff)?,
            up: zeros(c.n_ff)?,
            scores: zeros(n_positions)?,
            sum: zeros(c.head_dim)?,
            turns: zeros(c.n_rot / 2)?,
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
        Ok(Network {
            config: config.clone(),
            token_embd,
            layers,
            output_norm: load.vector(&w.output_norm)?,
            output: w.output.as_ref().map(|t| load.matrix(t)).transpose()?,
            rope_freqs: load.divisors(w)?,
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
            self.attention(i, position, pages, s, tap)?; // h -> out
            if let Some(weight) = &layer.post_attn_norm {
                rms_norm_in_place(&mut s.out, weight, c.norm_eps); // [D]
            }
            add(&mut s.x, &s.out); // [D]

            rms_norm(&mut s.h, &s.x, &layer.ffn_norm, c.norm_eps); // [D]
            tap("ffn_norm", n, &s.h);
            linear(&mut s.gate, &layer.gate, &s.h, None); // [F] = [F, D] [D]
            linear(&mut s.up, &layer.up, &s.h, None); // [F] = [F, D] [D]
            for (gate, &up) in s.gate.iter_mut().zip(&s.up) {
                *gate = (activation(*gate, c.activation) * up as f64) as f32; // [F]
            }
            tap("ffn_act", n, &s.gate);
            linear(&mut s.out, &layer.down, &s.gate, None); // [D] = [D, F] [F]
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

    /// `s.out = Wo attention(s.h) + bo`.
    fn attention(
        &self,
        layer_index: usize,
        position: usize,
        pages: &[SharedPage],
        s: &mut State,
        tap: Tap<'_>,
    ) -> Result<()> {
        let c = &self.config;
        let (layer, here) = (&self.layers[layer_index], &c.layers[layer_index]);
        let n = layer_index as i32;
        linear(&mut s.q, &layer.q, &s.h, layer.q_bias.as_deref()); // [H] = [H, D] [D]
        linear(&mut s.k, &layer.k, &s.h, layer.k_bias.as_deref()); // [G] = [G, D] [D]
        linear(&mut s.v, &layer.v, &s.h, layer.v_bias.as_deref()); // [G] = [G, D] [D]

        rope_turns(&mut s.turns, position, here.rope_base, here.rope_scale, self.rope_freqs.as_deref());
        for (rows, norm) in [(&mut s.q, &layer.q_norm), (&mut s.k, &layer.k_norm)] {
            for head in rows.chunks_exact_mut(c.head_dim) {
                if let Some(weight) = norm {
                    rms_norm_in_place(head, weight, c.norm_eps); // [head_dim]
                }
                rope(head, &s.turns, c.rope_pairing); // [head_dim]
            }
        }
        tap("q_rope", n, &s.q);
        tap("k_rope", n, &s.k);
        tap("v", n, &s.v);
        self.store(layer_index, position, pages, s)?;

        let first = here.window.map_or(0, |w| (position + 1).saturating_sub(w as usize));
        self.attend(layer_index, first..position + 1, pages, s);
        tap("attn_mix", n, &s.mix);
        linear(&mut s.out, &layer.o, &s.mix, layer.o_bias.as_deref()); // [D] = [D, H] [H]
        tap("attn_out", n, &s.out);
        Ok(())
    }

    /// Elements of a position's keys, or values, in one layer.
    pub fn row_len(&self) -> usize {
        self.config.n_kv_heads * self.config.head_dim
    }

    /// Elements of a page's `k`, or `v`.
    pub fn page_len(&self) -> usize {
        self.layers.len() * PAGE_TOKENS * self.row_len()
    }

    /// Where the row of `position` starts in a page's `k` and `v`.
    fn row_offset(&self, layer: usize, position: usize) -> usize {
        (layer * PAGE_TOKENS + position % PAGE_TOKENS) * self.config.n_kv_heads * self.config.head_dim
    }

    /// Keeps `s.k` and `s.v` as those of `position`.
    fn store(&self, layer: usize, position: usize, pages: &[SharedPage], s: &State) -> Result<()> {
        let mut page = pages[position / PAGE_TOKENS].write().unwrap_or_else(PoisonError::into_inner);
        if page.v.is_empty() {
            let len = self.layers.len() * PAGE_TOKENS * s.k.len();
            page.k = zeros(len)?;
            page.v = zeros(len)?;
        }
        let at = self.row_offset(layer, position);
        page.k[at..at + s.k.len()].copy_from_slice(&s.k); // [G]
        page.v[at..at + s.v.len()].copy_from_slice(&s.v); // [G]
        if self.f16_cache {
            let Page { k, v } = &mut *page;
            let rows = [&mut k[at..at + s.k.len()], &mut v[at..at + s.v.len()]];
            rows.into_iter().flatten().for_each(|x| *x = f16::from_f32(*x).to_f32());
        }
        Ok(())
    }

    /// `s.mix = softmax(attn_scale * q k^T) v` over `positions`, head by head.
    fn attend(&self, layer: usize, positions: std::ops::Range<usize>, pages: &[SharedPage], s: &mut State) {
        let c = &self.config;
        let heads_per_kv = c.n_heads / c.n_kv_heads;
        let pages: Vec<_> = pages[..positions.end.div_ceil(PAGE_TOKENS)]
            .iter()
            .map(|p| p.read().unwrap_or_else(PoisonError::into_inner))
            .collect();
        let scores = &mut s.scores[..positions.len()];
        for (head, (q, mix)) in s.q.chunks_exact(c.head_dim).zip(s.mix.chunks_exact_mut(c.head_dim)).enumerate() {
            let head_offset = head / heads_per_kv * c.head_dim;
            for (score, p) in scores.iter_mut().zip(positions.clone()) {
                let at = self.row_offset(layer, p) + head_offset;
                let k = &pages[p / PAGE_TOKENS].k[at..at + c.head_dim]; // [head_dim]
                *score = softcap(c.attn_scale as f64 * dot(q, k), c.attn_softcap);
            }
            softmax(scores);
            s.sum.fill(0.0); // [head_dim]
            for (&score, p) in scores.iter().zip(positions.clone()) {
                let at = self.row_offset(layer, p) + head_offset;
                let v = &pages[p / PAGE_TOKENS].v[at..at + c.head_dim]; // [head_dim]
                for (sum, &v) in s.sum.iter_mut().zip(v) {
                    *sum += score * v as f64;
                }
            }
            for (mix, &sum) in mix.iter_mut().zip(&s.sum) {
                *mix = sum as f32; // [head_dim]
            }
        }
    }
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

    fn divisors(&mut self, w: &Weights<'_>) -> Result<Option<Vec<f32>>> {
        let divisors = w.divisors()?;
        self.done += w.rope_freqs.map_or(0, |t| t.data.len() as u64);
        self.control.progress(self.done, self.total)?;
        Ok(divisors)
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
