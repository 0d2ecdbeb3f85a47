//! The tensors of a model by role, borrowed from the file.
//!
//! Invariant (checked by `model::bind`): every shape agrees with the [`Config`](super::Config), every
//! `data` holds exactly `rows * row_bytes(cols)` bytes, norms, biases and `rope_freqs` are F32.

use crate::gguf::TensorType;

/// A matrix `[rows, cols]` (cols contiguous) as stored; a vector has one row.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Its stored type.
    pub ty: TensorType,
    /// Output features.
    pub rows: usize,
    /// Input features; a multiple of the type's block length.
    pub cols: usize,
    /// The stored bytes.
    pub data: &'a [u8],
}

/// One layer. `D = n_embd`, `H = n_heads * head_dim`, `G = n_kv_heads * head_dim`, `F = n_ff`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct LayerWeights<'a> {
    pub attn_norm: Tensor<'a>,              // [D] f32
    pub q: Tensor<'a>,                      // [H, D]
    pub k: Tensor<'a>,                      // [G, D]
    pub v: Tensor<'a>,                      // [G, D]
    pub q_bias: Option<Tensor<'a>>,         // [H] f32
    pub k_bias: Option<Tensor<'a>>,         // [G] f32
    pub v_bias: Option<Tensor<'a>>,         // [G] f32
    pub q_norm: Option<Tensor<'a>>,         // [head_dim] f32
    pub k_norm: Option<Tensor<'a>>,         // [head_dim] f32
    pub o: Tensor<'a>,                      // [D, H]
    pub o_bias: Option<Tensor<'a>>,         // [D] f32
    pub post_attn_norm: Option<Tensor<'a>>, // [D] f32
    pub ffn_norm: Tensor<'a>,               // [D] f32
    pub gate: Tensor<'a>,                   // [F, D]
    pub up: Tensor<'a>,                     // [F, D]
    pub down: Tensor<'a>,                   // [D, F]
    pub post_ffn_norm: Option<Tensor<'a>>,  // [D] f32
}

/// A whole model.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Weights<'a> {
    pub token_embd: Tensor<'a>,         // [n_vocab, D]
    pub layers: Vec<LayerWeights<'a>>,  // n_layers
    pub output_norm: Tensor<'a>,        // [D] f32
    pub output: Option<Tensor<'a>>,     // [n_vocab, D]; None: the embedding is used
    pub rope_freqs: Option<Tensor<'a>>, // [n_rot / 2] f32, divides each pair's frequency
}
