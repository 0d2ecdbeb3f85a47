//! The architectures, one file each: from GGUF keys to a [`Config`] and the list of tensors that go with it.
//!
//! Here is what they share. Invariant: a key that would change the computation is either in the `Config` or refused.

use super::config::{Activation, Attention, Block, Config, Dense, Ffn, Layer, Mixer, Norm, RopePairing, RopeTable};
use crate::alloc::reserve_exact;
use crate::error::{Error, Result};
use crate::gguf::{Gguf, Value, shorten};

mod gemma3;
mod llama;
mod qwen2;
mod qwen3;

/// Whether an architecture has a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It has none; a file with one is refused.
    No,
    /// All layers or none.
    Maybe,
    /// A file without it is refused.
    Yes,
}

/// The tensors beyond those that every architecture has. Norms of queries and keys, and a gate, follow from the [`Config`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Extras {
    /// Norms of what the mixer and the feed-forward part read.
    pub attn_norm: Need,
    pub ffn_norm: Need,
    /// What the file calls the norm of what the feed-forward part reads.
    pub ffn_norm_name: &'static str,
    /// Biases of both, and of the output's norm.
    pub norm_bias: Need,
    pub qkv_bias: Need,
    pub o_bias: Need,
    /// Biases of up and down, and of the gate where there is one.
    pub ffn_bias: Need,
    pub post_norms: Need,
    pub rope_freqs: Need,
    pub output_bias: Need,
    /// Whether `ffn_up` holds the gate's rows and then those of up.
    pub fused_gate_up: bool,
}

impl Extras {
    /// No tensor that not every architecture has.
    const NONE: Extras = Extras {
        attn_norm: Need::Yes,
        ffn_norm: Need::Yes,
        ffn_norm_name: "ffn_norm",
        norm_bias: Need::No,
        qkv_bias: Need::No,
        o_bias: Need::No,
        ffn_bias: Need::No,
        post_norms: Need::No,
        rope_freqs: Need::No,
        output_bias: Need::No,
        fused_gate_up: false,
    };
}

/// The description of a file's model, by its `general.architecture`. `n_vocab` is the embedding's number of rows.
pub(super) fn describe(gguf: &Gguf<'_>, n_vocab: usize) -> Result<(Config, Extras)> {
    let name = gguf.text("general.architecture")?;
    let fill = match name {
        "gemma3" => gemma3::fill,
        "llama" => llama::fill,
        "qwen2" => qwen2::fill,
        "qwen3" => qwen3::fill,
        _ => {
            let found = format!("{:?}", shorten(name));
            return Err(unsupported("general.architecture", found, "gemma3, llama, qwen2 or qwen3"));
        }
    };
    let keys = Keys { gguf, name };
    let (mut config, mut extras) = (keys.common(n_vocab)?, Extras::NONE);
    fill(&keys, &mut config, &mut extras)?;
    config.validate()?;
    Ok((config, extras))
}

/// The keys `NAME.suffix` of one architecture.
struct Keys<'g> {
    gguf: &'g Gguf<'g>,
    name: &'g str,
}

/// Upper bound of every width and count, far above any model, that keeps their products inside 64 bits.
const MAX_SIZE: u64 = 1 << 20;

impl Keys<'_> {
    fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.name)
    }

    fn float(&self, suffix: &str) -> Result<Option<f32>> {
        self.gguf.opt_float(&self.key(suffix))
    }

    /// A width or a count from 1 to `limit`. An array of one number for each layer is taken if they are all equal.
    fn opt_size(&self, suffix: &str, limit: u64) -> Result<Option<usize>> {
        let key = self.key(suffix);
        let size = match self.gguf.meta(&key).and_then(|v| v.as_array()) {
            None => self.gguf.opt_uint(&key)?,
            Some(array) => {
                let first = array.ints().next();
                if array.ints().count() != array.len() || array.ints().any(|n| Some(n) != first) {
                    return Err(unsupported(&key, "an array of different values", "one value for all layers"));
                }
                Some(first.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
            }
        };
        match size {
            Some(n) if n == 0 || n > limit => Err(wrong(&key, n, format!("1 to {limit}"))),
            size => Ok(size.map(|n| n as usize)),
        }
    }

    fn size(&self, suffix: &str, limit: u64) -> Result<usize> {
        let missing = || wrong(&self.key(suffix), "missing", "an unsigned integer");
        self.opt_size(suffix, limit)?.ok_or_else(missing)
    }

    /// What all four architectures read alike: layers of the same attention, which the one rope of halves turns, and of the same
    /// feed-forward part. The rest is for the others to set.
    fn common(&self, n_vocab: usize) -> Result<Config> {
        self.refuse_other_computations()?;
        // No more layers than the file has tensors: the number is about to be allocated.
        let n_layers = self.size("block_count", self.gguf.n_tensors() as u64)?;
        let n_embd = self.size("embedding_length", MAX_SIZE)?;
        let attention = self.attention(n_embd)?;
        let dense =
            Dense { width: self.size("feed_forward_length", MAX_SIZE)?, activation: Activation::Silu, gated: true };
        let mut rope = self.rope("rope.freq_base", 10_000.0, attention.head_dim)?;
        rope.position_scale = self.rope_scale()?;
        let mut layers = Vec::new();
        reserve_exact(&mut layers, n_layers)?;
        layers.resize(
            n_layers,
            Layer { mixer: Mixer::Attention(attention), ffn: Ffn::Dense(dense), block: Block::Sequential },
        );
        Ok(Config {
            architecture: self.name.into(),
            n_embd,
            n_vocab,
            n_ctx_train: self.size("context_length", 1 << 31)?,
            norm: Norm::Rms,
            norm_eps: self.gguf.float(&self.key("attention.layer_norm_rms_epsilon"))?,
            embedding_scale: self.float("embedding_scale")?.unwrap_or(1.0),
            residual_scale: 1.0,
            logit_scale: 1.0,
            logit_softcap: self.float("final_logit_softcapping")?.filter(|&cap| cap != 0.0),
            ropes: vec![rope],
            layers,
        })
    }

    fn attention(&self, n_embd: usize) -> Result<Attention> {
        let n_heads = self.size("attention.head_count", MAX_SIZE)?;
        let n_kv_heads = self.opt_size("attention.head_count_kv", MAX_SIZE)?.unwrap_or(n_heads);
        let head_dim = match self.opt_size("attention.key_length", MAX_SIZE)? {
            Some(head_dim) => head_dim,
            None if !n_embd.is_multiple_of(n_heads) => {
                let expected = format!("a multiple of {n_heads}, the number of heads");
                return Err(wrong(&self.key("embedding_length"), n_embd, expected));
            }
            None => n_embd / n_heads,
        };
        if let Some(value_dim) = self.opt_size("attention.value_length", MAX_SIZE)?
            && value_dim != head_dim
        {
            return Err(wrong(
                &self.key("attention.value_length"),
                value_dim,
                format!("{head_dim}, the length of a key"),
            ));
        }
        Ok(Attention {
            n_heads,
            n_kv_heads,
            head_dim,
            window: None,
            rope: Some(0),
            qk_norm: None,
            temperature: None,
            scale: self.float("attention.scale")?.unwrap_or(1.0 / (head_dim as f32).sqrt()),
            softcap: self.float("attn_logit_softcapping")?.filter(|&cap| cap != 0.0),
        })
    }

    /// An unscaled rope of halves for heads of so many elements; `key` has its base.
    fn rope(&self, key: &str, default: f32, head_dim: usize) -> Result<RopeTable> {
        let base = self.float(key)?.unwrap_or(default);
        if !(base.is_finite() && base > 0.0) {
            return Err(wrong(&self.key(key), base, "positive and finite"));
        }
        let n_rot = self.opt_size("rope.dimension_count", MAX_SIZE)?.unwrap_or(head_dim);
        if n_rot % 2 != 0 || n_rot > head_dim {
            return Err(wrong(&self.key("rope.dimension_count"), n_rot, format!("even, 2 to {head_dim}")));
        }
        RopeTable::of_base(base, n_rot, RopePairing::Halves)
    }

    /// `1 / factor` of linear scaling, 1 without scaling.
    fn rope_scale(&self) -> Result<f32> {
        let kind = self.gguf.opt_text(&self.key("rope.scaling.type"))?.unwrap_or("linear");
        let factor = match kind {
            "none" => None,
            "linear" => self.float("rope.scaling.factor")?.or(self.float("rope.scale_linear")?),
            _ => {
                let found = format!("{:?}", shorten(kind));
                return Err(unsupported(&self.key("rope.scaling.type"), found, "none or linear"));
            }
        };
        // Converters write 0 for "not scaled".
        Ok(factor.filter(|&f| f != 0.0).map_or(1.0, |f| 1.0 / f))
    }

    /// Refuses keys that ask for something that a `Config` cannot say, unless they ask for nothing.
    fn refuse_other_computations(&self) -> Result<()> {
        // `(key, the value that changes nothing)`.
        const KEYS: [(&str, f64); 9] = [
            ("expert_count", 0.0),
            ("attention.causal", 1.0),
            ("attention.clamp_kqv", 0.0),
            ("attention.max_alibi_bias", 0.0),
            ("attention.temperature_length", 0.0),
            ("rope.scaling.attn_factor", 1.0),
            ("logit_scale", 1.0),
            ("residual_scale", 1.0),
            ("nextn_predict_layers", 0.0),
        ];
        for (suffix, neutral) in KEYS {
            let key = self.key(suffix);
            let Some(value) = self.gguf.meta(&key) else { continue };
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

/// A key's value that makes no model.
fn wrong(key: &str, found: impl ToString, expected: impl ToString) -> Error {
    Error::Model { name: format!("key \"{key}\""), found: found.to_string(), expected: expected.to_string() }
}

/// The failure of a value that means something which is not here.
fn unsupported(key: &str, found: impl ToString, expected: impl ToString) -> Error {
    let (found, expected) = (found.to_string(), expected.to_string());
    Error::UnsupportedValue { name: format!("key \"{key}\""), found, expected }
}
