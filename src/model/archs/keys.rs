//! The keys of an architecture, each number checked where it is read, and what all architectures read alike.

use super::{Activation, Attention, Block, Config, Dense, Extras, Ffn, Layer, Mixer, Norm};
use crate::alloc::reserve_exact;
use crate::error::{Error, Result};
use crate::gguf::{Gguf, Value};

/// The keys `NAME.suffix` of one architecture.
pub(super) struct Keys<'g> {
    pub gguf: &'g Gguf<'g>,
    pub name: &'g str,
    /// What the architecture reads, of those that others refuse.
    pub reads: &'static [&'static str],
}

/// Upper bound of every width and count, far above any model, that keeps their products inside 64 bits.
pub(super) const MAX_SIZE: u64 = 1 << 20;

/// A number for all layers, or one for each.
pub(super) enum PerLayer {
    Same(usize),
    Each(Vec<usize>),
}

impl PerLayer {
    pub fn get(&self, layer: usize) -> usize {
        match self {
            PerLayer::Same(n) => *n,
            PerLayer::Each(all) => all[layer],
        }
    }
}

impl Keys<'_> {
    pub fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.name)
    }

    pub fn float(&self, suffix: &str) -> Result<Option<f32>> {
        self.gguf.opt_float(&self.key(suffix))
    }

    /// A number that multiplies or divides.
    pub fn positive(&self, suffix: &str) -> Result<Option<f32>> {
        match self.float(suffix)? {
            Some(x) if !(x.is_finite() && x > 0.0) => Err(wrong(&self.key(suffix), x, "positive and finite")),
            x => Ok(x),
        }
    }

    /// A width or a count from 1 to `limit`.
    pub fn opt_size(&self, suffix: &str, limit: u64) -> Result<Option<usize>> {
        let key = self.key(suffix);
        match self.gguf.opt_uint(&key)? {
            None => Ok(None),
            Some(n) => checked(&key, n, limit).map(Some),
        }
    }

    pub fn size(&self, suffix: &str, limit: u64) -> Result<usize> {
        let missing = || wrong(&self.key(suffix), "missing", "an unsigned integer");
        self.opt_size(suffix, limit)?.ok_or_else(missing)
    }

    /// A width or a count, or an array of one for each layer.
    pub fn opt_sizes(&self, suffix: &str, n_layers: usize) -> Result<Option<PerLayer>> {
        self.opt_counts(suffix, n_layers, false)
    }

    /// [`Self::opt_sizes`], of which some in an array may be 0 if there may be `none`.
    fn opt_counts(&self, suffix: &str, n_layers: usize, none: bool) -> Result<Option<PerLayer>> {
        let key = self.key(suffix);
        let Some(array) = self.gguf.meta(&key).and_then(|v| v.as_array()) else {
            return Ok(self.opt_size(suffix, MAX_SIZE)?.map(PerLayer::Same));
        };
        if array.len() != n_layers || array.ints().count() != n_layers {
            let found = format!("an array of {}, {} of them integers", array.len(), array.ints().count());
            return Err(wrong(&key, found, format!("{n_layers} integers, one a layer")));
        }
        let mut all = Vec::new();
        reserve_exact(&mut all, n_layers)?;
        for n in array.ints() {
            all.push(match n {
                0 if none => 0,
                n => checked(&key, u64::try_from(n).unwrap_or(0), MAX_SIZE)?,
            });
        }
        Ok(Some(PerLayer::Each(all)))
    }

    fn sizes(&self, suffix: &str, n_layers: usize) -> Result<PerLayer> {
        let missing = || wrong(&self.key(suffix), "missing", "an unsigned integer, or one for each layer");
        self.opt_sizes(suffix, n_layers)?.ok_or_else(missing)
    }

    /// What all architectures read alike: layers of attention that the one rope of halves turns, and gated feed-forward parts.
    /// The rest is for each to set.
    pub fn common(&self, norm: Norm, n_vocab: usize) -> Result<Config> {
        // No more layers than the file has tensors: the number is about to be allocated.
        let n_layers = self.size("block_count", self.gguf.n_tensors() as u64)?;
        let n_embd = self.size("embedding_length", MAX_SIZE)?;
        let n_ctx_train = self.size("context_length", 1 << 31)?;
        // Where all layers have experts there need not be another width.
        let has = |suffix: &str| self.gguf.meta(&self.key(suffix)).is_some();
        let of_experts = has("expert_feed_forward_length") && !has("feed_forward_length");
        let width = if of_experts { "expert_feed_forward_length" } else { "feed_forward_length" };
        // Layers may be a mixer alone, or have one with a state where there are no heads of keys.
        let with_states = has("shortconv.l_cache") || has("ssm.conv_kernel");
        let widths = self.opt_counts(width, n_layers, with_states)?.map_or_else(|| self.sizes(width, n_layers), Ok)?;
        let n_heads = self.sizes("attention.head_count", n_layers)?;
        let n_kv_heads = self.opt_counts("attention.head_count_kv", n_layers, with_states)?;
        let first = self.attention(n_embd, n_heads.get(0))?;
        let mut layers = Vec::new();
        reserve_exact(&mut layers, n_layers)?;
        for i in 0..n_layers {
            let n_heads = n_heads.get(i);
            let n_kv_heads = n_kv_heads.as_ref().map_or(n_heads, |n| n.get(i));
            layers.push(Layer {
                mixer: Mixer::Attention(Attention { n_heads, n_kv_heads, ..first }),
                recurrent: None,
                ffn: Ffn::Dense(Dense { width: widths.get(i), activation: Activation::Silu, gated: true }),
                block: Block::Sequential,
                out_scale: 1.0,
            });
        }
        Ok(Config {
            architecture: self.name.into(),
            n_embd,
            n_vocab,
            n_ctx_train,
            norm,
            norm_eps: self.epsilon(norm)?,
            embedding_scale: self.float("embedding_scale")?.unwrap_or(1.0),
            residual_scale: 1.0,
            logit_scale: 1.0,
            logit_softcap: self.float("final_logit_softcapping")?.filter(|&cap| cap != 0.0),
            ropes: vec![self.scaled_rope("rope.freq_base", first.head_dim, n_ctx_train)?],
            long: None,
            per_layer: None,
            layers,
        })
    }

    /// What is added under the root: of an architecture that reads the other norm's key by that, where its own is missing.
    fn epsilon(&self, norm: Norm) -> Result<f32> {
        let other = Norm::Layer.epsilon_key();
        let own = match self.gguf.meta(&self.key(norm.epsilon_key())) {
            None if self.reads.contains(&other) => other,
            _ => norm.epsilon_key(),
        };
        self.gguf.float(&self.key(own))
    }

    /// The attention of a layer with so many heads, the same ones for keys.
    fn attention(&self, n_embd: usize, n_heads: usize) -> Result<Attention> {
        let head_dim = match self.opt_size("attention.key_length", MAX_SIZE)? {
            Some(head_dim) => head_dim,
            None if !n_embd.is_multiple_of(n_heads) => {
                let expected = format!("a multiple of {n_heads}, the number of heads");
                return Err(wrong(&self.key("embedding_length"), n_embd, expected));
            }
            None => n_embd / n_heads,
        };
        for suffix in ["attention.value_length", "attention.key_length_swa", "attention.value_length_swa"] {
            if self.reads.contains(&suffix) {
                continue;
            }
            if let Some(length) = self.opt_size(suffix, MAX_SIZE)?.filter(|&length| length != head_dim) {
                return Err(wrong(&self.key(suffix), length, format!("{head_dim}, the length of a key")));
            }
        }
        Ok(Attention {
            n_heads,
            n_kv_heads: n_heads,
            head_dim,
            rope: Some(0),
            scale: self.float("attention.scale")?.unwrap_or(1.0 / (head_dim as f32).sqrt()),
            softcap: self.float("attn_logit_softcapping")?.filter(|&cap| cap != 0.0),
            ..Attention::NONE
        })
    }

    /// Leaves out the last layers where the file says that they are for drafts.
    pub fn leave_out_drafts(&self, config: &mut Config, extras: &mut Extras) -> Result<()> {
        let (suffix, n_layers) = ("nextn_predict_layers", config.n_layers() as u64);
        let n_drafts = self.gguf.opt_uint(&self.key(suffix))?.unwrap_or(0);
        if n_drafts >= n_layers {
            return Err(wrong(&self.key(suffix), n_drafts, format!("below {n_layers}, the number of layers")));
        }
        config.layers.truncate((n_layers - n_drafts) as usize);
        extras.n_left_out = n_drafts as usize;
        Ok(())
    }

    /// Refuses keys that ask for something that a `Config` cannot say, or that the architecture does not read, unless they
    /// ask for nothing.
    pub fn refuse_other_computations(&self) -> Result<()> {
        // `(key, the value that changes nothing)`.
        const KEYS: [(&str, f64); 15] = [
            ("expert_count", 0.0),
            ("attention.causal", 1.0),
            ("attention.clamp_kqv", 0.0),
            ("attention.max_alibi_bias", 0.0),
            ("attention.output_scale", 0.0),
            ("attention.rope_pattern", 1.0),
            ("attention.shared_kv_layers", 0.0),
            ("attention.sliding_window", 0.0),
            ("attention.temperature_length", 0.0),
            ("attention.temperature_scale", 0.0),
            ("logit_scale", 1.0),
            ("residual_scale", 1.0),
            ("nextn_predict_layers", 0.0),
            ("rope.scaling.alpha", 0.0),
            ("use_parallel_residual", 0.0),
        ];
        for (suffix, neutral) in KEYS {
            let key = self.key(suffix);
            let Some(value) = self.gguf.meta(&key).filter(|_| !self.reads.contains(&suffix)) else { continue };
            let number = match value {
                Value::Bool(b) => f64::from(u8::from(b)),
                value => value.as_int().map(|n| n as f64).or(value.as_float()).unwrap_or(f64::NAN),
            };
            if number != neutral {
                return Err(unsupported(&key, value, format!("{neutral}, or no such key")));
            }
        }
        Ok(())
    }
}

fn checked(key: &str, n: u64, limit: u64) -> Result<usize> {
    match (1..=limit).contains(&n) {
        true => Ok(n as usize),
        false => Err(wrong(key, n, format!("1 to {limit}"))),
    }
}

/// A key's value that makes no model.
pub(super) fn wrong(key: &str, found: impl ToString, expected: impl ToString) -> Error {
    Error::Model { name: format!("key \"{key}\""), found: found.to_string(), expected: expected.to_string() }
}

/// The failure of a value that means something which is not here.
pub(super) fn unsupported(key: &str, found: impl ToString, expected: impl ToString) -> Error {
    let (found, expected) = (found.to_string(), expected.to_string());
    Error::UnsupportedValue { name: format!("key \"{key}\""), found, expected }
}
