//! The tensors of a model by role, borrowed from the file.
//!
//! Invariant (checked by `model::bind`): every shape agrees with the [`Config`](super::Config), every
//! `data` holds exactly `rows * row_bytes(cols)` bytes, norms, biases and `rope_freqs` are F32.

use crate::alloc::reserve;
use crate::error::{Error, Result};
use crate::gguf::{Data, TensorType};

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
    /// What every value is to be multiplied with: 1 but for a matrix of NVFP4.
    pub scale: f32,
    /// The stored bytes.
    pub data: Data<'a>,
}

impl Tensor<'_> {
    /// The elements of an F32 tensor.
    ///
    /// Fails with `Model` on another type, with `Io` where they cannot be read.
    pub fn floats(&self) -> Result<Vec<f32>> {
        if self.ty != TensorType::F32 {
            let (found, expected) = (self.ty.name().into(), TensorType::F32.name().into());
            return Err(Error::Model { name: format!("tensor \"{}\" type", self.name), found, expected });
        }
        let mut floats = Vec::new();
        reserve(&mut floats, self.data.len() / 4)?;
        let mut buffer = Vec::new();
        let bytes = self.data.piece(0..self.data.len(), &mut buffer)?;
        floats.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)));
        Ok(floats)
    }
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

impl<'a> LayerWeights<'a> {
    /// All tensors of the layer.
    pub fn iter(&self) -> impl Iterator<Item = Tensor<'a>> + use<'a> {
        let LayerWeights { attn_norm, q, k, v, o, ffn_norm, gate, up, down, .. } = *self;
        let LayerWeights { q_bias, k_bias, v_bias, q_norm, k_norm, o_bias, post_attn_norm, post_ffn_norm, .. } = *self;
        let extras = [q_bias, k_bias, v_bias, q_norm, k_norm, o_bias, post_attn_norm, post_ffn_norm];
        [attn_norm, q, k, v, o, ffn_norm, gate, up, down].into_iter().chain(extras.into_iter().flatten())
    }
}

impl<'a> Weights<'a> {
    /// All tensors of the model.
    pub fn iter(&self) -> impl Iterator<Item = Tensor<'a>> {
        let outer = [Some(self.token_embd), Some(self.output_norm), self.output, self.rope_freqs];
        outer.into_iter().flatten().chain(self.layers.iter().flat_map(|layer| layer.iter()))
    }

    /// The elements of `rope_freqs`, each positive and finite; the file may have changed since it was opened.
    ///
    /// Fails with `Model` where one is not, with `Io` where they cannot be read.
    pub fn divisors(&self) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = &self.rope_freqs else { return Ok(None) };
        let divisors = tensor.floats()?;
        match divisors.iter().position(|d| !(d.is_finite() && *d > 0.0)) {
            None => Ok(Some(divisors)),
            Some(i) => Err(Error::Model {
                name: format!("tensor \"{}\" element {i}", tensor.name),
                found: divisors[i].to_string(),
                expected: "positive and finite".into(),
            }),
        }
    }

    /// The matrix of the logits: `output`, or the embedding where there is none.
    pub fn head(&self) -> Tensor<'a> {
        self.output.unwrap_or(self.token_embd)
    }
}
