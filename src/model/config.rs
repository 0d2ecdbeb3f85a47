//! One description of a decoder-only transformer, as data.
//!
//! An architecture (`archs/*.rs`) fills this in from GGUF keys; a backend reads it and knows no architecture.
//! The computation it describes, for token `t` at position `p`, all vectors f32:
//!
//! ```text
//! x = embedding_scale * token_embd[t]
//! for each layer:
//!     h = rms_norm(x) * attn_norm
//!     q, k, v = Wq h + bq, Wk h + bk, Wv h + bv         # biases only where the tensors exist
//!     q, k = rms_norm(q per head) * q_norm, rms_norm(k per head) * k_norm   # where the tensors exist
//!     q, k = rope(q, p), rope(k, p)
//!     a = softmax(attn_scale * q k^T, causal, last `window` positions if the layer has a window) v
//!     o = Wo a + bo
//!     x += rms_norm(o) * post_attn_norm, or o where there is none
//!     h = rms_norm(x) * ffn_norm
//!     f = Wdown (activation(Wgate h) * (Wup h))
//!     x += rms_norm(f) * post_ffn_norm, or f where there is none
//! logits = softcap(Woutput (rms_norm(x) * output_norm))
//! ```

use crate::error::{Error, Result};

/// How pairs of a head's elements are turned by their position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairing {
    /// Elements `2i` and `2i + 1` (GGUF's `llama`).
    Adjacent,
    /// Elements `i` and `i + n_rot / 2` (GPT-NeoX; qwen2, qwen3, gemma3).
    Halves,
}

/// The function on the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
    GeluTanh,
}

/// What differs from layer to layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerConfig {
    /// Attend only to the last `n` positions, the current one included; `None`: all.
    pub window: Option<u32>,
    /// Base of the rotary frequencies: pair `i` turns by `p * rope_scale * base^(-2i / n_rot) / factor[i]`,
    /// `factor` being the `rope_freqs` tensor where there is one.
    pub rope_base: f32,
    /// Multiplies the position (1 / the linear scaling factor).
    pub rope_scale: f32,
}

/// A decoder-only transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `general.architecture`.
    pub architecture: String,
    /// Number of layers.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Rows of the embedding and of the output matrix.
    pub n_vocab: usize,
    /// Context length the model was trained for.
    pub n_ctx_train: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of one head; a multiple of 8, at most 512.
    pub head_dim: usize,
    /// Elements of a head that are turned, from its start; even, at most `head_dim`.
    pub n_rot: usize,
    /// Width of the feed-forward.
    pub n_ff: usize,
    /// Added to the mean square under the root of every norm.
    pub norm_eps: f32,
    /// Multiplies `q k^T`.
    pub attn_scale: f32,
    /// Multiplies the embedding row.
    pub embedding_scale: f32,
    /// `cap * tanh(logits / cap)`.
    pub logit_softcap: Option<f32>,
    /// The same on the attention scores before the mask.
    pub attn_softcap: Option<f32>,
    /// See [`RopePairing`].
    pub rope_pairing: RopePairing,
    /// See [`Activation`].
    pub activation: Activation,
    /// One entry a layer.
    pub layers: Vec<LayerConfig>,
}

impl Config {
    /// Bytes of K and V of one token over all layers, f16.
    pub fn kv_bytes_per_token(&self) -> usize {
        self.n_layers * 2 * self.n_kv_heads * self.head_dim * 2
    }

    /// Checks what the fields promise; a backend may rely on all of it.
    pub fn validate(&self) -> Result<()> {
        let check = |ok: bool, name: &str, found: &dyn ToString, expected: &dyn Fn() -> String| match ok {
            true => Ok(()),
            false => Err(Error::Model { name: name.into(), found: found.to_string(), expected: expected() }),
        };
        let sizes = [
            ("number of layers", self.n_layers, 1 << 20),
            ("embedding length", self.n_embd, 1 << 20),
            ("vocabulary size", self.n_vocab, 1 << 30),
            ("context length", self.n_ctx_train, 1 << 31),
            ("number of heads", self.n_heads, 1 << 20),
            ("number of key-value heads", self.n_kv_heads, 1 << 20),
            ("feed-forward length", self.n_ff, 1 << 20),
        ];
        for (name, size, limit) in sizes {
            check((1..=limit).contains(&size), name, &size, &|| format!("1 to {limit}"))?;
        }
        check(self.n_heads.is_multiple_of(self.n_kv_heads), "number of heads", &self.n_heads, &|| {
            format!("a multiple of {}, the number of key-value heads", self.n_kv_heads)
        })?;
        let head_dim_ok = self.head_dim.is_multiple_of(8) && (8..=512).contains(&self.head_dim);
        check(head_dim_ok, "head size", &self.head_dim, &|| "a multiple of 8, 8 to 512".into())?;
        let n_rot_ok = self.n_rot.is_multiple_of(2) && (2..=self.head_dim).contains(&self.n_rot);
        check(n_rot_ok, "rope dimension count", &self.n_rot, &|| format!("even, 2 to {}", self.head_dim))?;
        check(self.layers.len() == self.n_layers, "number of layer descriptions", &self.layers.len(), &|| {
            self.n_layers.to_string()
        })?;

        let positive = |name: &str, value: f32| {
            check(value.is_finite() && value > 0.0, name, &value, &|| "positive and finite".into())
        };
        positive("norm epsilon", self.norm_eps)?;
        positive("attention scale", self.attn_scale)?;
        positive("embedding scale", self.embedding_scale)?;
        positive("final logit softcap", self.logit_softcap.unwrap_or(1.0))?;
        positive("attention logit softcap", self.attn_softcap.unwrap_or(1.0))?;
        for (i, layer) in self.layers.iter().enumerate() {
            positive(&format!("layer {i} rope base"), layer.rope_base)?;
            positive(&format!("layer {i} rope scale"), layer.rope_scale)?;
            check(layer.window != Some(0), &format!("layer {i} window"), &0, &|| "at least 1".into())?;
        }
        Ok(())
    }
}
