//! One description of a decoder-only transformer, as data.
//!
//! An architecture (`archs/*.rs`) fills this in from GGUF keys; a backend reads it and knows no architecture. What a layer
//! mixes positions with and what it computes at each of them are values ([`Mixer`], [`Ffn`]): a backend that meets one that it
//! has no code for does not compile. The computation, for token `t` at position `p`, all vectors f32:
//!
//! ```text
//! x = embedding_scale * token_embd[t]
//! for each layer, in sequence:
//!     o = mixer(norm(x; attn_norm)), of x itself where the layer has no attn_norm
//!     x += residual_scale * (rms_norm(o) * post_attn_norm, or o where there is none)
//!     f = ffn(norm(x; ffn_norm)), of x itself where the layer has no ffn_norm
//!     x += residual_scale * (rms_norm(f) * post_ffn_norm, or f where there is none)
//!     # a layer may have either alone: then these two lines are all of its
//!     x += what embeddings by layer add, where there are some: see `per_layer.rs`
//!     x *= out_scale
//! or in parallel, with norms of o and f as above:
//!     o = mixer(norm(x; attn_norm))
//!     f = ffn(norm(x; ffn_norm, or attn_norm where there is none))
//!     x += residual_scale * (o + f)
//! logits = softcap(logit_scale * (Woutput norm(x; output_norm) + boutput))
//!
//! norm(x; w, b): see `Norm`; a bias only where the tensor exists
//! attention(h):
//!     q, k, v = Wq h + bq, Wk h + bk, Wv h + bv         # biases only where the tensors exist
//!     # or v = Wk h, where there is no Wv; or k and v as another layer has them, which has none of its own then
//!     v = rms_norm(v) of each head, where values are normalized
//!     q, k = qk_norm(q), qk_norm(k)                     # by head or by row, before the rope or behind it
//!     q, k = rope(q, p), rope(k, p)                     # but for layers without a rope
//!     q = temperature(p) * q
//!     a = softmax(softcap(scale * q k^T), causal, last `window` positions if it has a window) v
//!         # with a sink its exponential is a term of the softmax's sum too
//!     Wo (sigmoid(Wgate h) * a) + bo                  # the gate only where there is one
//!     # over latents: see `latent.rs`
//! dense(h):
//!     Wdown (activation(Wgate h + bgate) * (Wup h + bup)) + bdown, gated
//!     Wdown activation(Wup h + bup) + bdown, not gated
//! experts(h): see `experts.rs`
//! a mixer with a state of fixed size: see `recurrent.rs`; of a layer with both o is the sum of theirs
//! ```

use super::dense::Dense;
use super::experts::Experts;
use super::latent::Latent;
use super::per_layer::PerLayer;
use super::range::{check, in_range, positive};
use super::recurrent::Recurrent;
use super::rope::RopeTable;
use crate::alloc::require;
use crate::error::Result;

/// The most elements of a head that a rope turns.
const MAX_ROTATED: usize = 8192;

/// How the stream is normalized where a mixer, a feed-forward part or the head reads it; a weight and, where the tensor
/// exists, a bias follow. Norms of heads and those behind a half layer are always [`Norm::Rms`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Norm {
    /// `x / sqrt(mean(x^2) + eps) * w`.
    #[default]
    Rms,
    /// `(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * w`.
    Layer,
}

impl Norm {
    /// The key of what is added under the root, behind the architecture's name.
    pub fn epsilon_key(self) -> &'static str {
        match self {
            Norm::Rms => "attention.layer_norm_rms_epsilon",
            Norm::Layer => "attention.layer_norm_epsilon",
        }
    }
}

/// What a norm of queries and keys goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// The elements of each head by themselves; weights `[head_dim]`.
    Head,
    /// The norms of [`QkNorm::Head`], behind the rope instead of before it.
    HeadAfterRope,
    /// All heads of a position together, before the rope; weights `[n_heads * head_dim]` and `[n_kv_heads * head_dim]`.
    Row,
}

/// Queries at position `p` are multiplied by `1 + beta * ln(1 + floor(p / interval))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    /// Not negative.
    pub beta: f32,
    /// Positions; at least 1.
    pub interval: u32,
}

impl Temperature {
    /// What queries at this position are multiplied by.
    pub fn at(&self, position: usize) -> f64 {
        let n = position / self.interval as usize;
        1.0 + f64::from(self.beta) * (1.0 + n as f64).ln()
    }
}

/// Grouped-query attention over the cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of one head; a multiple of 8, at most 512, or of a key of [`Latent`]s.
    pub head_dim: usize,
    /// Attend only to the last `n` positions, the current one included; `None`: all.
    pub window: Option<u32>,
    /// Which of [`Config::ropes`]; `None`: positions turn nothing in this layer.
    pub rope: Option<usize>,
    /// See [`QkNorm`]; the tensors exist where it is there.
    pub qk_norm: Option<QkNorm>,
    /// See [`Temperature`].
    pub temperature: Option<Temperature>,
    /// Multiplies `q k^T`.
    pub scale: f32,
    /// `cap * tanh(score / cap)` before the mask.
    pub softcap: Option<f32>,
    /// Whether each head has a sink: a score that every position has besides, with no value behind it.
    pub sinks: bool,
    /// Whether what the heads make is multiplied by a sigmoid of a product with what they read.
    pub gated: bool,
    /// Whether values are what the keys' matrix makes, before any norm: there is none of their own.
    pub k_as_v: bool,
    /// Whether each head of the values is normalized (RMS), without a weight.
    pub v_norm: bool,
    /// The earlier layer whose keys and values it reads; it has none of its own then.
    pub kv_from: Option<usize>,
    /// What its keys and values are made of; there is one head of them then.
    pub latent: Option<Latent>,
}

/// What mixes positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mixer {
    /// See [`Attention`].
    Attention(Attention),
}

/// What is computed at each position by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ffn {
    /// See [`Dense`].
    Dense(Dense),
    /// See [`Experts`].
    Experts(Experts),
    /// Nothing: the layer is its mixer.
    None,
}

/// What the feed-forward part of a layer reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Block {
    /// The stream with what the mixer has added to it.
    #[default]
    Sequential,
    /// What the mixer reads too: the stream as it was before the layer.
    Parallel,
}

/// One layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layer {
    /// See [`Mixer`]; [`Attention::NONE`] where another mixes, or none.
    pub mixer: Mixer,
    /// What mixes in its place, or beside it: see [`Recurrent`].
    pub recurrent: Option<Recurrent>,
    /// See [`Ffn`].
    pub ffn: Ffn,
    /// See [`Block`].
    pub block: Block,
    /// Multiplies the stream behind the layer.
    pub out_scale: f32,
}

impl Layer {
    /// Whether it mixes positions.
    pub fn has_mixer(&self) -> bool {
        self.attention().is_there() || self.recurrent.is_some()
    }

    /// Whether it has a feed-forward part.
    pub fn has_ffn(&self) -> bool {
        self.ffn != Ffn::None
    }

    /// Its attention; [`Attention::NONE`] where it has none.
    pub fn attention(&self) -> &Attention {
        let Mixer::Attention(attention) = &self.mixer;
        attention
    }

    /// Its dense feed-forward, if it is one.
    pub fn dense(&self) -> Option<&Dense> {
        match &self.ffn {
            Ffn::Dense(dense) => Some(dense),
            Ffn::Experts(_) | Ffn::None => None,
        }
    }

    /// Its experts, if it has some.
    pub fn experts(&self) -> Option<&Experts> {
        match &self.ffn {
            Ffn::Experts(experts) => Some(experts),
            Ffn::Dense(_) | Ffn::None => None,
        }
    }

    /// What every position goes through of its feed-forward part: a dense one, or the expert that all share.
    pub fn common_ffn(&self) -> Option<&Dense> {
        match &self.ffn {
            Ffn::Dense(dense) => Some(dense),
            Ffn::Experts(experts) => experts.shared.as_ref().map(|shared| &shared.ffn),
            Ffn::None => None,
        }
    }

    /// [`Self::attention`], to change it.
    pub fn attention_mut(&mut self) -> &mut Attention {
        let Mixer::Attention(attention) = &mut self.mixer;
        attention
    }

    /// [`Self::dense`], to change it.
    pub fn dense_mut(&mut self) -> Option<&mut Dense> {
        match &mut self.ffn {
            Ffn::Dense(dense) => Some(dense),
            Ffn::Experts(_) | Ffn::None => None,
        }
    }
}

/// Ropes of longer sessions (LongRoPE). They change every key from the first, so a session has its ropes from its creation on,
/// and nothing that is in its cache is another's of the other kind.
#[derive(Clone, Debug, PartialEq)]
pub struct LongContext {
    /// Sessions that may hold more tokens than so many have these.
    pub above: u32,
    /// One in place of each of [`Config::ropes`], with as many pairs and the same pairing.
    pub ropes: Vec<RopeTable>,
}

/// A decoder-only transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `general.architecture`.
    pub architecture: String,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Rows of the embedding and of the output matrix.
    pub n_vocab: usize,
    /// Context length the model was trained for.
    pub n_ctx_train: usize,
    /// See [`Norm`].
    pub norm: Norm,
    /// Added to the mean square under the root of every norm.
    pub norm_eps: f32,
    /// Multiplies the embedding row.
    pub embedding_scale: f32,
    /// Multiplies what a half layer adds to the stream.
    pub residual_scale: f32,
    /// Multiplies the logits, before their softcap.
    pub logit_scale: f32,
    /// `cap * tanh(logits / cap)`.
    pub logit_softcap: Option<f32>,
    /// Those that the layers choose from.
    pub ropes: Vec<RopeTable>,
    /// See [`LongContext`].
    pub long: Option<LongContext>,
    /// See [`PerLayer`].
    pub per_layer: Option<PerLayer>,
    /// One entry a layer.
    pub layers: Vec<Layer>,
}

impl Config {
    /// A copy, or a failure with the bytes that it would take: how many layers there are is the file's to say.
    pub fn try_clone(&self) -> Result<Config> {
        let long = self.long.iter().flat_map(|long| &long.ropes);
        let pairs: usize = self.ropes.iter().chain(long).map(|rope| rope.inv_freq.len()).sum();
        require(self.layers.len() * size_of::<Layer>() + pairs * size_of::<(f64, f32)>())?;
        Ok(self.clone())
    }

    /// Number of layers.
    pub fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// The dense feed-forward parts, to change them.
    pub fn dense_mut(&mut self) -> impl Iterator<Item = &mut Dense> {
        self.layers.iter_mut().filter_map(Layer::dense_mut)
    }

    /// The experts, to change them.
    pub fn experts_mut(&mut self) -> impl Iterator<Item = &mut Experts> {
        self.layers.iter_mut().filter_map(|layer| match &mut layer.ffn {
            Ffn::Experts(experts) => Some(experts),
            Ffn::Dense(_) | Ffn::None => None,
        })
    }

    /// The rope of a layer's attention, in sessions that are not long.
    pub fn rope_of(&self, attention: &Attention) -> Option<&RopeTable> {
        attention.rope.map(|rope| &self.ropes[rope])
    }

    /// Whether a session of so many tokens is one of [`LongContext`].
    pub fn is_long(&self, n_ctx: usize) -> bool {
        self.long.as_ref().is_some_and(|long| n_ctx as u64 > u64::from(long.above))
    }

    /// The ropes of long sessions, or of others.
    pub fn ropes_of(&self, is_long: bool) -> &[RopeTable] {
        self.long.as_ref().filter(|_| is_long).map_or(&self.ropes, |long| &long.ropes)
    }

    /// Bytes of K and V of one token in one layer, f16.
    pub fn layer_kv_bytes(&self, layer: usize) -> usize {
        self.layers[layer].attention().kept() * 2
    }

    /// Bytes of K and V of one token over all layers, f16.
    pub fn kv_bytes_per_token(&self) -> usize {
        (0..self.n_layers()).map(|i| self.layer_kv_bytes(i)).sum()
    }

    /// Checks what the fields promise; a backend may rely on all of it.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("number of layers (block_count)", self.n_layers(), 1 << 20),
            ("embedding length (embedding_length)", self.n_embd, 1 << 20),
            ("vocabulary size (rows of token_embd.weight)", self.n_vocab, 1 << 30),
            ("context length (context_length)", self.n_ctx_train, 1 << 31),
        ];
        for (name, size, limit) in sizes {
            in_range(name, size, limit)?;
        }
        positive("norm epsilon (attention.layer_norm_rms_epsilon)", self.norm_eps)?;
        positive("embedding scale (embedding_scale)", self.embedding_scale)?;
        positive("residual scale (residual_scale)", self.residual_scale)?;
        positive("logit scale (logit_scale)", self.logit_scale)?;
        positive("final logit softcap (final_logit_softcapping)", self.logit_softcap.unwrap_or(1.0))?;
        for (i, rope) in self.ropes.iter().enumerate() {
            rope.validate(&format!("rope {i}"))?;
            // A layer's heads bound those that it has; one that no layer has would cost a pass all the same.
            in_range(&format!("rope {i} (rope.dimension_count)"), rope.n_rot(), MAX_ROTATED)?;
        }
        if let Some(long) = &self.long {
            let shape = |ropes: &[RopeTable]| ropes.iter().map(|r| (r.n_rot(), r.pairing)).collect::<Vec<_>>();
            for rope in &long.ropes {
                rope.validate("rope of long sessions")?;
            }
            let same = shape(&long.ropes) == shape(&self.ropes) && long.above > 0;
            check(same, "ropes of long sessions", &long.ropes.len(), &|| {
                format!("as the {} of others", self.ropes.len())
            })?;
        }
        for (i, layer) in self.layers.iter().enumerate() {
            let name = format!("layer {i}");
            match &layer.mixer {
                Mixer::Attention(attention) if attention.is_there() => {
                    attention.validate(&name, &self.ropes)?;
                    self.validate_source(attention, &name, i)?;
                }
                Mixer::Attention(_) => {
                    let there = layer.recurrent.is_some() || layer.has_ffn();
                    check(there, &format!("{name} number of heads (attention.head_count)"), &0, &|| {
                        "at least 1".into()
                    })?;
                }
            }
            layer.recurrent.as_ref().map_or(Ok(()), |recurrent| recurrent.validate(&name))?;
            match &layer.ffn {
                Ffn::Dense(dense) => {
                    in_range(&format!("{name} feed-forward length (feed_forward_length)"), dense.width, 1 << 20)?
                }
                Ffn::Experts(experts) => experts.validate(&name, layer.block == Block::Sequential)?,
                Ffn::None => {}
            }
            let whole = layer.block == Block::Sequential || layer.has_mixer() && layer.has_ffn();
            check(whole, &format!("{name} parts side by side"), &1, &|| "2".into())?;
            let scale = layer.out_scale;
            check(scale.is_finite(), &format!("{name} scale (layer_output_scale)"), &scale, &|| "finite".into())?;
        }
        self.per_layer.map_or(Ok(()), |per_layer| per_layer.validate())
    }
}
