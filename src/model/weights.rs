//! The tensors of a model by role, borrowed from the file.
//!
//! Invariant (checked by `model::bind`): every shape agrees with the [`Config`](super::Config), every
//! `data` holds exactly `rows * row_bytes(cols)` bytes, norms, biases and `rope_freqs` are F32, F16 or BF16.

use crate::alloc::reserve;
use crate::error::{Error, Result};
use crate::gguf::{Data, TensorType, dequantize_row};

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
    /// What every value is to be multiplied with: 1 but for a matrix that has a scale beside it.
    pub scale: f32,
    /// The stored bytes.
    pub data: Data<'a>,
}

impl Tensor<'_> {
    /// The elements of a vector.
    ///
    /// Fails with `Model` on another type than vectors have, with `Io` where they cannot be read.
    pub fn floats(&self) -> Result<Vec<f32>> {
        self.check_floats()?;
        let mut floats = Vec::new();
        reserve(&mut floats, self.rows * self.cols)?;
        floats.resize(self.rows * self.cols, 0.0);
        let mut buffer = Vec::new();
        dequantize_row(self.ty, self.data.piece(0..self.data.len(), &mut buffer)?, &mut floats)?;
        Ok(floats)
    }

    /// [`Self::floats`], each of them finite: scales of matrices. The file may have changed since they were checked.
    ///
    /// Fails like it, and with `Model` where one is not.
    pub fn finite_floats(&self) -> Result<Vec<f32>> {
        checked_floats(self, |x| x.is_finite(), "a finite number")
    }

    /// Fails with `Model` where the elements are not stored one by one.
    pub(super) fn check_floats(&self) -> Result<()> {
        if self.ty.block_len() == 1 {
            return Ok(());
        }
        let (found, expected) = (self.ty.name().into(), "F32, F16 or BF16".into());
        Err(Error::Model { name: format!("tensor \"{}\" type", self.name), found, expected })
    }
}

/// A dense feed-forward part, or as many of them as there are experts, one behind the other (`N`; else 1).
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct DenseWeights<'a> {
    pub gate: Option<Tensor<'a>>,      // [N F, D], where the part is gated
    pub up: Tensor<'a>,                // [N F, D]
    pub down: Tensor<'a>,              // [N D, F]
    pub gate_bias: Option<Tensor<'a>>, // [N, F]
    pub up_bias: Option<Tensor<'a>>,   // [N, F]
    pub down_bias: Option<Tensor<'a>>, // [N, D]
}

/// A feed-forward part of `N` experts.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct ExpertsWeights<'a> {
    pub router: Tensor<'a>,                   // [N, D]
    pub router_bias: Option<Tensor<'a>>,      // [N]
    pub select_bias: Option<Tensor<'a>>,      // [N], where `Route` says so
    pub each: DenseWeights<'a>,               // of all experts
    pub gate_scale: Option<Tensor<'a>>,       // [N], what the values of each expert's gate are to be multiplied with
    pub up_scale: Option<Tensor<'a>>,         // [N]
    pub down_scale: Option<Tensor<'a>>,       // [N]
    pub shared: Option<DenseWeights<'a>>,     // of another width
    pub shared_gate: Option<Tensor<'a>>,      // [D], where it is gated
    pub side_by_side: Option<SideBySide<'a>>, // where they are
}

/// The norms of experts and what all share, where they stand side by side.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct SideBySide<'a> {
    pub router_norm: Tensor<'a>,       // [D]
    pub experts_norm: Tensor<'a>,      // [D]
    pub experts_post_norm: Tensor<'a>, // [D]
    pub shared_post_norm: Tensor<'a>,  // [D]
}

/// What keys, queries and values of latents are made with; see `latent.rs`. `R` elements of a latent, `N` of a head of queries
/// are not turned, `V` of a head of values, `Q` rows of the first matrix of queries.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct LatentWeights<'a> {
    pub q_a: Option<Tensor<'a>>,      // [Q, D]
    pub q_a_norm: Option<Tensor<'a>>, // [Q]
    pub kv_a: Tensor<'a>,             // [R + turned, D]
    pub kv_a_norm: Tensor<'a>,        // [R]
    pub k_b: Tensor<'a>,              // [n_heads R, N], or, of older files, [n_heads N, R]: each head's transposed
    /// The heads, where each one's `k_b` is transposed.
    pub transposed: Option<usize>,
    pub v_b: Tensor<'a>, // [n_heads V, R]
}

/// Embeddings by layer; see `per_layer.rs`. `P` their width.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct PerLayerWeights<'a> {
    pub embd: Tensor<'a>, // [n_vocab, n_layers P]: backends keep it in the host's memory and read a row a token
    pub proj: Tensor<'a>, // [n_layers P, D]
    pub norm: Tensor<'a>, // [P]
}

/// What embeddings by layer meet behind a layer.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct PerLayerGate<'a> {
    pub gate: Tensor<'a>,      // [P, D]
    pub proj: Tensor<'a>,      // [D, P]
    pub post_norm: Tensor<'a>, // [D]
}

/// A feed-forward part, as `Ffn` says.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum FfnWeights<'a> {
    Dense(DenseWeights<'a>),
    Experts(ExpertsWeights<'a>),
    None,
}

/// A mixer with a state, `W` wide where its last matrix reads it, with `C` channels and `N` gates: see `Recurrent`. Of a DeltaNet
/// gate, beta, alpha, a, dt and norm; of a Mamba2 gate is z, input m and beta t, the rows of one tensor.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct RecurrentWeights<'a> {
    pub input: Tensor<'a>,             // [in_width, D]
    pub conv: Tensor<'a>,              // [C, len], the weight of the oldest token first
    pub conv_bias: Option<Tensor<'a>>, // [C]
    pub output: Tensor<'a>,            // [D, W]
    pub gate: Option<Tensor<'a>>,      // [W, D]
    pub beta: Option<Tensor<'a>>,      // [N, D]
    pub alpha: Option<Tensor<'a>>,     // [N, D]
    pub a: Option<Tensor<'a>>,         // [N]
    pub dt: Option<Tensor<'a>>,        // [N]
    pub d: Option<Tensor<'a>>,         // [N]
    pub norm: Option<Tensor<'a>>,      // [v_dim]; of a Mamba2 [groups, W / groups]
}

/// One layer. `D = n_embd`, `H = n_heads * head_dim`, `G = n_kv_heads * head_dim`, `F` the width of a feed-forward part.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct LayerWeights<'a> {
    pub attn_norm: Option<Tensor<'a>>,      // [D]
    pub attn_norm_bias: Option<Tensor<'a>>, // [D]
    pub q: Tensor<'a>, // [H, D]; of latents [n_heads (N + turned), D or Q]; no rows without attention
    pub k: Option<Tensor<'a>>, // [G, D], where the layer has keys of its own
    pub v: Option<Tensor<'a>>, // [G, D], where it has values of its own that keys are not
    pub latent: Option<LatentWeights<'a>>,
    pub q_bias: Option<Tensor<'a>>, // [H]
    pub k_bias: Option<Tensor<'a>>, // [G]
    pub v_bias: Option<Tensor<'a>>, // [G]
    pub q_norm: Option<Tensor<'a>>, // [head_dim] or [H], as `QkNorm` says
    pub k_norm: Option<Tensor<'a>>, // [head_dim] or [G]
    pub sinks: Option<Tensor<'a>>,  // [n_heads], where the attention has some
    pub o: Tensor<'a>,              // [D, H]; of latents [D, n_heads V]
    pub o_bias: Option<Tensor<'a>>, // [D]
    pub q_gate: Option<Tensor<'a>>, // [H, D], where the attention is gated
    pub recurrent: Option<RecurrentWeights<'a>>,
    pub post_attn_norm: Option<Tensor<'a>>, // [D]
    pub ffn_norm: Option<Tensor<'a>>,       // [D]
    pub ffn_norm_bias: Option<Tensor<'a>>,  // [D]
    pub ffn: FfnWeights<'a>,
    pub post_ffn_norm: Option<Tensor<'a>>, // [D]
    pub per_layer: Option<PerLayerGate<'a>>,
    pub out_scale: Option<Tensor<'a>>, // [1], what the description says
}

/// A whole model.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Weights<'a> {
    pub token_embd: Tensor<'a>, // [n_vocab, D]
    pub per_layer: Option<PerLayerWeights<'a>>,
    pub layers: Vec<LayerWeights<'a>>,        // n_layers
    pub output_norm: Tensor<'a>,              // [D]
    pub output_norm_bias: Option<Tensor<'a>>, // [D]
    pub output: Option<Tensor<'a>>,           // [n_vocab, D]; None: the embedding is used
    pub output_bias: Option<Tensor<'a>>,      // [n_vocab]
    pub rope_freqs: Option<Tensor<'a>>,       // [n_rot / 2], divides each pair's frequency
    pub long_rope_freqs: Option<Tensor<'a>>,  // the same for long sessions
    pub n_other_parts: usize,                 // tensors of parts that see or hear, which are left out
}

impl<'a> DenseWeights<'a> {
    /// All of its tensors. These iterators, and those of what has them, hold references: tensors themselves would take a host's stack.
    pub fn iter(&self) -> impl Iterator<Item = Tensor<'a>> {
        let DenseWeights { gate, up, down, gate_bias, up_bias, down_bias } = self;
        let all = [gate.as_ref(), Some(up), Some(down), gate_bias.as_ref(), up_bias.as_ref(), down_bias.as_ref()];
        all.into_iter().flatten().copied()
    }
}

impl<'a> ExpertsWeights<'a> {
    /// The scales of gates, ups and downs.
    pub fn scales(&self) -> [Option<Tensor<'a>>; 3] {
        [self.gate_scale, self.up_scale, self.down_scale]
    }
}

impl<'a> FfnWeights<'a> {
    /// Those of a dense part, or of the expert that all share.
    pub fn common(&self) -> Option<&DenseWeights<'a>> {
        match self {
            FfnWeights::Dense(dense) => Some(dense),
            FfnWeights::Experts(experts) => experts.shared.as_ref(),
            FfnWeights::None => None,
        }
    }

    /// Its experts, if it has some.
    pub fn experts(&self) -> Option<&ExpertsWeights<'a>> {
        match self {
            FfnWeights::Experts(experts) => Some(experts),
            FfnWeights::Dense(_) | FfnWeights::None => None,
        }
    }

    /// All of its tensors.
    pub fn iter(&self) -> impl Iterator<Item = Tensor<'a>> {
        let of_experts = self.experts().map(|e| {
            let router = [Some(&e.router), e.router_bias.as_ref(), e.select_bias.as_ref(), e.shared_gate.as_ref()];
            let scales = [e.gate_scale.as_ref(), e.up_scale.as_ref(), e.down_scale.as_ref()];
            let s = e.side_by_side.as_ref();
            let norms = [
                s.map(|s| &s.router_norm),
                s.map(|s| &s.experts_norm),
                s.map(|s| &s.experts_post_norm),
                s.map(|s| &s.shared_post_norm),
            ];
            router.into_iter().chain(scales).chain(norms).flatten().copied().chain(e.each.iter())
        });
        self.common().map(DenseWeights::iter).into_iter().flatten().chain(of_experts.into_iter().flatten())
    }
}

impl<'a> RecurrentWeights<'a> {
    /// The matrices that read what the mixer reads: the first one, and those beside it.
    pub fn inputs(&self) -> impl Iterator<Item = Tensor<'a>> {
        [Some(&self.input), self.gate.as_ref(), self.beta.as_ref(), self.alpha.as_ref()].into_iter().flatten().copied()
    }

    /// Those, and the last one.
    pub fn matrices(&self) -> impl Iterator<Item = &Tensor<'a>> {
        let inputs = [Some(&self.input), self.gate.as_ref(), self.beta.as_ref(), self.alpha.as_ref()];
        inputs.into_iter().flatten().chain([&self.output])
    }

    /// All of its tensors.
    pub fn iter(&self) -> impl Iterator<Item = Tensor<'a>> {
        let RecurrentWeights { conv, conv_bias, output, a, dt, d, norm, .. } = self;
        let others = [conv_bias, a, dt, d, norm].into_iter().flatten();
        self.inputs().chain([conv, output].into_iter().chain(others).copied())
    }
}

impl<'a> LayerWeights<'a> {
    /// All tensors of the layer.
    pub fn iter(&self) -> impl Iterator<Item = Tensor<'a>> {
        let norms = [&self.attn_norm, &self.attn_norm_bias, &self.q_norm, &self.k_norm, &self.post_attn_norm];
        let norms = norms.into_iter().chain([&self.ffn_norm, &self.ffn_norm_bias, &self.post_ffn_norm]);
        let others = [&self.k, &self.v, &self.q_bias, &self.k_bias, &self.v_bias, &self.o_bias, &self.sinks];
        let others = others.into_iter().chain([&self.out_scale, &self.q_gate]).map(Option::as_ref);
        let latent = self.latent.as_ref().map_or([None; 6], |l| {
            [l.q_a.as_ref(), l.q_a_norm.as_ref(), Some(&l.kv_a), Some(&l.kv_a_norm), Some(&l.k_b), Some(&l.v_b)]
        });
        let per_layer = self.per_layer.as_ref().map_or([None; 3], |p| [&p.gate, &p.proj, &p.post_norm].map(Some));
        let optional = norms.map(Option::as_ref).chain(others).chain(latent).chain(per_layer).flatten();
        let recurrent = self.recurrent.as_ref().map(RecurrentWeights::iter).into_iter().flatten();
        let matrices = [&self.q, &self.o].into_iter().filter(|matrix| matrix.rows > 0);
        matrices.chain(optional).copied().chain(recurrent).chain(self.ffn.iter())
    }
}

impl<'a> Weights<'a> {
    /// All tensors of the model.
    pub fn iter(&self) -> impl Iterator<Item = Tensor<'a>> {
        let optional = [&self.output, &self.output_bias, &self.rope_freqs, &self.long_rope_freqs].map(Option::as_ref);
        let norms = [Some(&self.output_norm), self.output_norm_bias.as_ref()];
        let per_layer = self.per_layer.as_ref().map_or([None; 3], |p| [&p.embd, &p.proj, &p.norm].map(Some));
        let outer =
            [Some(&self.token_embd)].into_iter().chain(optional).chain(norms).chain(per_layer).flatten().copied();
        outer.chain(self.layers.iter().flat_map(|layer| layer.iter()))
    }

    /// The elements of `rope_freqs`, each positive and finite; the file may have changed since it was opened.
    ///
    /// Fails with `Model` where one is not, with `Io` where they cannot be read.
    pub fn divisors(&self) -> Result<Option<Vec<f32>>> {
        self.rope_freqs.as_ref().map(positive_floats).transpose()
    }

    /// [`Self::divisors`] of long sessions.
    pub fn long_divisors(&self) -> Result<Option<Vec<f32>>> {
        self.long_rope_freqs.as_ref().map(positive_floats).transpose()
    }

    /// The matrix of the logits: `output`, or the embedding where there is none.
    pub fn head(&self) -> Tensor<'a> {
        self.output.unwrap_or(self.token_embd)
    }
}

fn positive_floats(tensor: &Tensor<'_>) -> Result<Vec<f32>> {
    checked_floats(tensor, |d| d.is_finite() && d > 0.0, "positive and finite")
}

fn checked_floats(tensor: &Tensor<'_>, fits: impl Fn(f32) -> bool, expected: &str) -> Result<Vec<f32>> {
    let floats = tensor.floats()?;
    match floats.iter().enumerate().find(|(_, x)| !fits(**x)) {
        None => Ok(floats),
        Some((i, x)) => Err(Error::Model {
            name: format!("tensor \"{}\" element {i}", tensor.name),
            found: x.to_string(),
            expected: expected.into(),
        }),
    }
}
