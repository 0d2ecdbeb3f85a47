//! Dequantizes everything, tensor after tensor.

use super::math::Matrix;
use super::zeros;
use crate::backend::LoadControl;
use crate::error::Result;
use crate::gguf::dequantize_row;
use crate::model::{self, DenseWeights, FfnWeights, LatentWeights, LayerWeights, RecurrentWeights, Tensor};

/// What a norm multiplies and adds.
pub(super) struct NormWeights {
    pub weight: Vec<f32>,       // [D]
    pub bias: Option<Vec<f32>>, // [D]
}

/// A dense feed-forward part, or those of `N` experts one behind the other.
pub(super) struct Dense {
    pub gate: Option<Matrix>,        // [N F, D]
    pub up: Matrix,                  // [N F, D]
    pub down: Matrix,                // [N D, F]
    pub gate_bias: Option<Vec<f32>>, // [N, F]
    pub up_bias: Option<Vec<f32>>,   // [N, F]
    pub down_bias: Option<Vec<f32>>, // [N, D]
}

/// A feed-forward part of `N` experts.
pub(super) struct Experts {
    pub router: Matrix,                // [N, D]
    pub router_bias: Option<Vec<f32>>, // [N]
    pub select_bias: Option<Vec<f32>>, // [N]
    pub each: Dense,
    pub shared: Option<Dense>,
    pub shared_gate: Option<Vec<f32>>, // [D]
    pub side_by_side: Option<SideBySide>,
}

/// The norms of experts and what all share, side by side.
pub(super) struct SideBySide {
    pub router_norm: Vec<f32>,       // [D]
    pub experts_norm: Vec<f32>,      // [D]
    pub experts_post_norm: Vec<f32>, // [D]
    pub shared_post_norm: Vec<f32>,  // [D]
}

/// What makes latents, and what reads them; shapes as in `LatentWeights`.
pub(super) struct Latent {
    pub q_a: Option<Matrix>,        // [Q, D]
    pub q_a_norm: Option<Vec<f32>>, // [Q]
    pub kv_a: Matrix,               // [R + turned, D]
    pub kv_a_norm: Vec<f32>,        // [R]
    pub k_b: Matrix,                // [n_heads R, N]
    pub v_b: Matrix,                // [n_heads V, R]
}

/// The tensors of embeddings by layer.
pub(super) struct PerLayerWeights {
    pub embd: Matrix,   // [V, L P]
    pub proj: Matrix,   // [L P, D]
    pub norm: Vec<f32>, // [P]
}

/// What embeddings by layer meet behind a layer.
pub(super) struct PerLayerGate {
    pub gate: Matrix,        // [P, D]
    pub proj: Matrix,        // [D, P]
    pub post_norm: Vec<f32>, // [D]
}

/// A feed-forward part.
pub(super) enum Ffn {
    Dense(Dense),
    Experts(Box<Experts>),
    None,
}

/// A mixer with a state, of `W` elements where the last matrix reads it, `C` channels and `N` gates.
pub(super) struct Recurrent {
    pub input: Matrix,               // [in_width, D]
    pub conv: Matrix,                // [C, len]
    pub conv_bias: Option<Vec<f32>>, // [C]
    pub output: Matrix,              // [D, W]
    pub gate: Option<Matrix>,        // [W, D]
    pub beta: Option<Matrix>,        // [N, D]
    pub alpha: Option<Matrix>,       // [N, D]
    pub a: Option<Vec<f32>>,         // [N]
    pub dt: Option<Vec<f32>>,        // [N]
    pub d: Option<Vec<f32>>,         // [N]
    pub norm: Option<Vec<f32>>,      // [v_dim], or [W] of a Mamba2
}

/// One layer, dequantized.
pub(super) struct Layer {
    pub attn_norm: Option<NormWeights>, // None: the mixer reads the stream
    pub q: Matrix,                      // [H, D]
    pub k: Option<Matrix>,              // [G, D]
    pub v: Option<Matrix>,              // [G, D]; None where there are keys: these are the values
    pub latent: Option<Latent>,
    pub q_bias: Option<Vec<f32>>, // [H]
    pub k_bias: Option<Vec<f32>>, // [G]
    pub v_bias: Option<Vec<f32>>, // [G]
    pub q_norm: Option<Vec<f32>>, // [head_dim] or [H]
    pub k_norm: Option<Vec<f32>>, // [head_dim] or [G]
    pub sinks: Option<Vec<f32>>,  // [n_heads]
    pub o: Matrix,                // [D, H]
    pub o_bias: Option<Vec<f32>>, // [D]
    pub q_gate: Option<Matrix>,   // [H, D]
    pub recurrent: Option<Recurrent>,
    pub post_attn_norm: Option<Vec<f32>>, // [D]
    pub ffn_norm: Option<NormWeights>,
    pub ffn: Ffn,
    pub post_ffn_norm: Option<Vec<f32>>, // [D]
    pub per_layer: Option<PerLayerGate>,
}

/// Bytes of a file read at once, if a row is not longer.
const PIECE_BYTES: usize = 1 << 20;

/// Dequantizes tensor after tensor and reports it.
pub(super) struct Loader<'a> {
    /// What is read of a file.
    buffer: Vec<u8>,
    control: &'a mut dyn LoadControl,
    done: u64,
    total: u64,
}

impl<'a> Loader<'a> {
    /// Nothing yet, of tensors of `total` bytes.
    pub fn new(total: u64, control: &'a mut dyn LoadControl) -> Loader<'a> {
        Loader { buffer: Vec::new(), control, done: 0, total }
    }

    /// Counts bytes that were read elsewhere.
    pub fn skip(&mut self, bytes: u64) {
        self.done += bytes;
    }

    pub fn matrix(&mut self, t: &Tensor<'_>) -> Result<Matrix> {
        let mut data = zeros(t.rows * t.cols)?;
        let row_bytes = t.ty.row_bytes(t.cols);
        let step = (PIECE_BYTES / row_bytes).max(1);
        for (first, rows) in (0..t.rows).step_by(step).zip(data.chunks_mut(step * t.cols)) {
            let last = (first + step).min(t.rows);
            let src = t.data.piece(first * row_bytes..last * row_bytes, &mut self.buffer)?;
            for (src, dst) in src.chunks_exact(row_bytes).zip(rows.chunks_exact_mut(t.cols)) {
                dequantize_row(t.ty, src, dst)?;
                if t.scale != 1.0 {
                    dst.iter_mut().for_each(|w| *w *= t.scale);
                }
            }
        }
        self.done += t.data.len() as u64;
        self.control.progress(self.done, self.total)?;
        Ok(Matrix { rows: t.rows, cols: t.cols, data })
    }

    /// The matrices of experts, each times its own scale.
    fn scale_each(&mut self, matrix: &mut Matrix, scale: &Option<Tensor<'_>>) -> Result<()> {
        let Some(scale) = scale else { return Ok(()) };
        let scales = scale.finite_floats()?;
        let of_one = matrix.data.len() / scales.len();
        for (one, scale) in matrix.data.chunks_exact_mut(of_one).zip(scales) {
            one.iter_mut().for_each(|w| *w *= scale);
        }
        self.skip(scale.data.len() as u64);
        Ok(())
    }

    pub fn vector(&mut self, t: &Tensor<'_>) -> Result<Vec<f32>> {
        Ok(self.matrix(t)?.data)
    }

    pub fn optional(&mut self, t: &Option<Tensor<'_>>) -> Result<Option<Vec<f32>>> {
        t.as_ref().map(|t| self.vector(t)).transpose()
    }

    pub fn norm(&mut self, weight: &Tensor<'_>, bias: &Option<Tensor<'_>>) -> Result<NormWeights> {
        Ok(NormWeights { weight: self.vector(weight)?, bias: self.optional(bias)? })
    }

    fn dense(&mut self, w: &DenseWeights<'_>) -> Result<Dense> {
        Ok(Dense {
            gate: w.gate.as_ref().map(|t| self.matrix(t)).transpose()?,
            up: self.matrix(&w.up)?,
            down: self.matrix(&w.down)?,
            gate_bias: self.optional(&w.gate_bias)?,
            up_bias: self.optional(&w.up_bias)?,
            down_bias: self.optional(&w.down_bias)?,
        })
    }

    fn ffn(&mut self, w: &FfnWeights<'_>) -> Result<Ffn> {
        let w = match w {
            FfnWeights::Dense(w) => return Ok(Ffn::Dense(self.dense(w)?)),
            FfnWeights::Experts(w) => w,
            FfnWeights::None => return Ok(Ffn::None),
        };
        let mut each = self.dense(&w.each)?;
        let matrices = [each.gate.as_mut(), Some(&mut each.up), Some(&mut each.down)];
        for (matrix, scale) in matrices.into_iter().zip(w.scales()) {
            matrix.map(|matrix| self.scale_each(matrix, &scale)).transpose()?;
        }
        Ok(Ffn::Experts(Box::new(Experts {
            router: self.matrix(&w.router)?,
            router_bias: self.optional(&w.router_bias)?,
            select_bias: self.optional(&w.select_bias)?,
            each,
            shared: w.shared.as_ref().map(|w| self.dense(w)).transpose()?,
            shared_gate: self.optional(&w.shared_gate)?,
            side_by_side: w.side_by_side.as_ref().map(|w| self.side_by_side(w)).transpose()?,
        })))
    }

    fn maybe(&mut self, t: &Option<Tensor<'_>>) -> Result<Option<Matrix>> {
        t.as_ref().map(|t| self.matrix(t)).transpose()
    }

    fn recurrent(&mut self, w: &RecurrentWeights<'_>) -> Result<Recurrent> {
        Ok(Recurrent {
            input: self.matrix(&w.input)?,
            conv: self.matrix(&w.conv)?,
            conv_bias: self.optional(&w.conv_bias)?,
            output: self.matrix(&w.output)?,
            gate: self.maybe(&w.gate)?,
            beta: self.maybe(&w.beta)?,
            alpha: self.maybe(&w.alpha)?,
            a: self.optional(&w.a)?,
            dt: self.optional(&w.dt)?,
            d: self.optional(&w.d)?,
            norm: self.optional(&w.norm)?,
        })
    }

    fn side_by_side(&mut self, w: &model::SideBySide<'_>) -> Result<SideBySide> {
        Ok(SideBySide {
            router_norm: self.vector(&w.router_norm)?,
            experts_norm: self.vector(&w.experts_norm)?,
            experts_post_norm: self.vector(&w.experts_post_norm)?,
            shared_post_norm: self.vector(&w.shared_post_norm)?,
        })
    }

    fn latent(&mut self, w: &LatentWeights<'_>) -> Result<Latent> {
        let mut k_b = self.matrix(&w.k_b)?;
        if let Some(n_heads) = w.transposed {
            k_b = k_b.transposed_each(n_heads)?;
        }
        Ok(Latent {
            q_a: w.q_a.as_ref().map(|t| self.matrix(t)).transpose()?,
            q_a_norm: self.optional(&w.q_a_norm)?,
            kv_a: self.matrix(&w.kv_a)?,
            kv_a_norm: self.vector(&w.kv_a_norm)?,
            k_b,
            v_b: self.matrix(&w.v_b)?,
        })
    }

    pub fn layer(&mut self, l: &LayerWeights<'_>) -> Result<Layer> {
        Ok(Layer {
            attn_norm: l.attn_norm.as_ref().map(|t| self.norm(t, &l.attn_norm_bias)).transpose()?,
            q: self.matrix(&l.q)?,
            k: l.k.as_ref().map(|t| self.matrix(t)).transpose()?,
            v: l.v.as_ref().map(|t| self.matrix(t)).transpose()?,
            latent: l.latent.as_ref().map(|w| self.latent(w)).transpose()?,
            q_bias: self.optional(&l.q_bias)?,
            k_bias: self.optional(&l.k_bias)?,
            v_bias: self.optional(&l.v_bias)?,
            q_norm: self.optional(&l.q_norm)?,
            k_norm: self.optional(&l.k_norm)?,
            sinks: self.optional(&l.sinks)?,
            o: self.matrix(&l.o)?,
            o_bias: self.optional(&l.o_bias)?,
            q_gate: self.maybe(&l.q_gate)?,
            recurrent: l.recurrent.as_ref().map(|w| self.recurrent(w)).transpose()?,
            post_attn_norm: self.optional(&l.post_attn_norm)?,
            ffn_norm: l.ffn_norm.as_ref().map(|t| self.norm(t, &l.ffn_norm_bias)).transpose()?,
            ffn: self.ffn(&l.ffn)?,
            post_ffn_norm: self.optional(&l.post_ffn_norm)?,
            per_layer: match &l.per_layer {
                None => None,
                Some(w) => Some(PerLayerGate {
                    gate: self.matrix(&w.gate)?,
                    proj: self.matrix(&w.proj)?,
                    post_norm: self.vector(&w.post_norm)?,
                }),
            },
        })
    }
}
