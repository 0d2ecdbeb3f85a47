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
}
