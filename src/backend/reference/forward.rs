//! One token through the network.
//!
//! Shapes: `D = n_embd`, `H = n_heads * head_dim`, `G = n_kv_heads * head_dim`, `F = n_ff`, `V = n_vocab`.

use std::sync::{Arc, RwLock};

use super::load::{Layer, Loader, NormWeights, PerLayerWeights};
use super::math::{Matrix, linear, norm, rms_norm_in_place, softcap};
use super::mixing::Mixing;
use super::routed::Routed;
use super::zeros;
use crate::backend::{LoadControl, PAGE_TOKENS};
use crate::error::Result;
use crate::model::{Block, CacheClasses, Config, MAX_CLASSES, Mixer, Weights};

/// Sees `(name, layer or -1, row)`.
pub(super) type Tap<'a> = &'a mut dyn FnMut(&'static str, i32, &[f32]);

/// Keys and values of `PAGE_TOKENS` positions in the layers of a class; without memory until the first write.
#[derive(Default)]
pub(super) struct Part {
    /// Turned keys.
    pub k: Vec<f32>, // [layers of the class, PAGE_TOKENS, G]
    /// Values.
    pub v: Vec<f32>, // [layers of the class, PAGE_TOKENS, G]
}

/// Keys and values of `PAGE_TOKENS` positions, a part for each class of layers.
#[derive(Default)]
pub(super) struct Page {
    pub parts: [Part; MAX_CLASSES],
}

impl Page {
    /// A class's part, with memory for so many elements of keys and of values.
    pub fn written(&mut self, class: usize, [k, v]: [usize; 2]) -> Result<&mut Part> {
        let part = &mut self.parts[class];
        if part.k.is_empty() {
            *part = Part { k: zeros(k)?, v: zeros(v)? };
        }
        Ok(part)
    }

    /// The same contents.
    pub fn copy(&self) -> Result<Page> {
        let copy = |from: &[f32]| {
            let mut to = zeros(from.len())?;
            to.copy_from_slice(from);
            Ok(to)
        };
        let mut page = Page::default();
        for (to, from) in page.parts.iter_mut().zip(&self.parts) {
            *to = Part { k: copy(&from.k)?, v: copy(&from.v)? };
        }
        Ok(page)
    }
}

/// Elements of the `k` and of the `v` of each class's part of a page.
pub(super) type PartLens = [[usize; 2]; MAX_CLASSES];

/// A page; read by every sequence that shares it, written by the one sequence whose tail it is.
pub(super) type SharedPage = Arc<RwLock<Page>>;

/// The whole network, dequantized.
pub(super) struct Network {
    pub config: Config,
    token_embd: Matrix, // [V, D]
    pub layers: Vec<Layer>,
    output_norm: NormWeights,
    output: Option<Matrix>,        // [V, D]; None: the embedding
    output_bias: Option<Vec<f32>>, // [V]
    pub classes: CacheClasses,     // of layers whose keys and values are kept together
    per_layer: Option<PerLayerWeights>,
    pub state_starts: Vec<usize>, // [n_layers] where a layer's part of a sequence's state begins
    pub kv_starts: Vec<[usize; 2]>, // [n_layers] where a layer's rows start in the `k` and `v` of its part of a page
    pub part_lens: PartLens,      // elements of these
    pub f16_cache: bool,          // round keys and values to f16 before they are kept
}

/// The activations of one token.
pub(super) struct State {
    pub x: Vec<f32>,    // [D] the residual stream
    pub h: Vec<f32>,    // [D] what a mixer or a feed-forward part reads
    pub q: Vec<f32>,    // [H]
    pub k: Vec<f32>,    // [G]
    pub v: Vec<f32>,    // [G]
    pub mix: Vec<f32>,  // [H]
    pub out: Vec<f32>,  // [D] what a half layer adds to the stream
    mixed: Vec<f32>,    // [D] what the mixer of a parallel block adds
    pub gate: Vec<f32>, // [F] of a dense part or of an expert
    pub up: Vec<f32>,   // [F]
    pub routed: Routed,
    pub heads: Vec<f32>,        // of latents: queries before they meet them, and mixes of values
    pub ranks: Vec<f32>,        // [Q] of latents
    pub by_layer: Vec<f32>,     // [n_layers P] embeddings by layer
    pub small: Vec<f32>,        // [P]
    pub scores: Vec<f64>,       // [positions attended to]
    pub sum: Vec<f64>,          // [head_dim]
    pub turns: Vec<(f64, f64)>, // [n_rot / 2] cos and sin
    pub is_long: bool,
    pub keeps_cache: bool,
    pub mixing: Mixing,
}

impl State {
    /// Room for one token at a position below `n_positions`, in a long session or another.
    pub fn new(c: &Config, is_long: bool, n_positions: usize) -> Result<State> {
        let most = c.widths();
        let (h, g) = (most.q, most.kv);
        Ok(State {
            x: zeros(c.n_embd)?,
            h: zeros(c.n_embd)?,
            q: zeros(h)?,
            k: zeros(g)?,
            v: zeros(g)?,
            mix: zeros(h.max(most.latent))?,
            out: zeros(c.n_embd)?,
            mixed: zeros(c.n_embd)?,
            gate: zeros(most.ffn.max(most.expert))?,
            up: zeros(most.ffn.max(most.expert))?,
            routed: Routed::new(c)?,
            heads: zeros(most.latent)?,
            ranks: zeros(most.latent)?,
            by_layer: zeros(most.per_layer)?,
            small: zeros(c.per_layer.map_or(0, |per_layer| per_layer.width))?,
            scores: zeros(n_positions)?,
            sum: zeros(most.head)?,
            turns: zeros(most.pairs)?,
            is_long,
            keeps_cache: false,
            mixing: Mixing::new(c)?,
        })
    }
}

impl Network {
    /// Dequantizes everything. Apart from its caller, whose stack it is not to be part of.
    #[inline(never)]
    pub fn load(config: &Config, w: &Weights<'_>, f16_cache: bool, control: &mut dyn LoadControl) -> Result<Network> {
        let total = w.iter().map(|t| t.data.len() as u64).sum();
        let mut load = Loader::new(total, control);
        let token_embd = load.matrix(&w.token_embd)?;
        let layers = w.layers.iter().map(|l| load.layer(l)).collect::<Result<Vec<_>>>()?;
        // They have been read with the description.
        let scales = w.layers.iter().filter_map(|l| l.out_scale.as_ref());
        load.skip(w.rope_freqs.iter().chain(&w.long_rope_freqs).chain(scales).map(|t| t.data.len() as u64).sum());
        let classes = CacheClasses::new(config)?;
        let (kv_starts, part_lens) = kv_starts(config, &classes)?;
        let mut state_starts = zeros(config.n_layers())?;
        state_starts.iter_mut().enumerate().for_each(|(i, start)| *start = config.state_start(i));
        Ok(Network {
            config: config.try_clone()?,
            token_embd,
            layers,
            output_norm: load.norm(&w.output_norm, &w.output_norm_bias)?,
            output: w.output.as_ref().map(|t| load.matrix(t)).transpose()?,
            output_bias: load.optional(&w.output_bias)?,
            per_layer: match &w.per_layer {
                None => None,
                Some(w) => Some(PerLayerWeights {
                    embd: load.matrix(&w.embd)?,
                    proj: load.matrix(&w.proj)?,
                    norm: load.vector(&w.norm)?,
                }),
            },
            classes,
            state_starts,
            kv_starts,
            part_lens,
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
        if let (Some(weights), Some(per_layer)) = (&self.per_layer, &c.per_layer) {
            self.begin_per_layer(token as usize, weights, per_layer, s);
        }

        for (i, layer) in self.layers.iter().enumerate() {
            let n = i as i32;
            let parallel = c.layers[i].block == Block::Parallel;
            if c.layers[i].has_mixer() {
                self.mix(i, position, pages, s, tap)?; // x -> out
                match parallel {
                    true => std::mem::swap(&mut s.mixed, &mut s.out),
                    false => add(&mut s.x, &s.out, c.residual_scale), // [D]
                }
            }
            if c.layers[i].has_ffn() {
                let shared = layer.attn_norm.as_ref().filter(|_| parallel);
                self.normalize(layer.ffn_norm.as_ref().or(shared), s); // x -> h
                tap("ffn_norm", n, &s.h);
                self.ffn(i, s, tap)?; // h -> out
                tap("ffn_out", n, &s.out);
                if let Some(weight) = &layer.post_ffn_norm {
                    rms_norm_in_place(&mut s.out, weight, c.norm_eps); // [D]
                }
                if parallel {
                    add(&mut s.out, &s.mixed, 1.0); // [D]
                }
                add(&mut s.x, &s.out, c.residual_scale); // [D]
            }
            if let (Some(weights), Some(per_layer)) = (&layer.per_layer, &c.per_layer) {
                self.add_per_layer(i, weights, per_layer, s);
            }
            if c.layers[i].out_scale != 1.0 {
                s.x.iter_mut().for_each(|x| *x *= c.layers[i].out_scale); // [D]
            }
            tap("resid", n, &s.x);
        }

        if let Some(logits) = logits {
            self.normalize(Some(&self.output_norm), s); // x -> h
            tap("final_norm", -1, &s.h);
            let output = self.output.as_ref().unwrap_or(&self.token_embd);
            linear(logits, output, &s.h, self.output_bias.as_deref()); // [V] = [V, D] [D]
            let scale = c.logit_scale as f64;
            logits.iter_mut().for_each(|l| *l = softcap(scale * *l as f64, c.logit_softcap) as f32); // [V]
            tap("logits", -1, logits);
        }
        Ok(())
    }

    /// `s.out` is what the layer's mixers make of `s.x`, normalized where it has a norm behind them.
    fn mix(&self, i: usize, position: usize, pages: &[SharedPage], s: &mut State, tap: Tap<'_>) -> Result<()> {
        let (c, n) = (&self.config, i as i32);
        self.normalize(self.layers[i].attn_norm.as_ref(), s); // x -> h
        tap("attn_norm", n, &s.h);
        match c.layers[i].mixer {
            Mixer::Attention(attention) if attention.is_there() => {
                self.attention(i, &attention, position, pages, s, tap)? // h -> out
            }
            Mixer::Attention(_) => s.out.fill(0.0),
        }
        if let Some(mixer) = &c.layers[i].recurrent {
            self.recurrent(i, mixer, s, tap)?; // h -> out, in addition
        }
        tap("attn_out", n, &s.out);
        if let Some(weight) = &self.layers[i].post_attn_norm {
            rms_norm_in_place(&mut s.out, weight, c.norm_eps); // [D]
        }
        Ok(())
    }

    /// `s.h = norm(s.x)`, or `s.x` where there is no norm.
    fn normalize(&self, weights: Option<&NormWeights>, s: &mut State) {
        match weights {
            Some(w) => norm(self.config.norm, &mut s.h, &s.x, &w.weight, w.bias.as_deref(), self.config.norm_eps),
            None => s.h.copy_from_slice(&s.x),
        }
    }
}

/// Where each layer's rows start in the `k` and `v` of its part of a page, and how many elements those of each class have.
fn kv_starts(config: &Config, classes: &CacheClasses) -> Result<(Vec<[usize; 2]>, PartLens)> {
    let (mut starts, mut lens) = (zeros(config.n_layers())?, [[0; 2]; MAX_CLASSES]);
    for (i, layer) in config.layers.iter().enumerate() {
        let (a, lens) = (layer.attention(), &mut lens[classes.of(i)]);
        if let Some(source) = a.kv_from {
            starts[i] = starts[source];
            continue;
        }
        starts[i] = *lens;
        *lens = [lens[0] + PAGE_TOKENS * a.kv_width(), lens[1] + PAGE_TOKENS * a.v_width()];
    }
    Ok((starts, lens))
}

/// `x += scale * y`.
pub(super) fn add(x: &mut [f32], y: &[f32], scale: f32) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x = (*x as f64 + scale as f64 * y as f64) as f32;
    }
}
