//! The operators of a transformer, one line of the paper each.
//!
//! Invariants: vectors are f32; every sum is kept in f64 and rounded to f32 once, so that an operator's
//! error is half a unit in the last place of its result, whatever the length of its reduction; the order of
//! every sum depends on its length alone.

use super::zeros;
use crate::error::Result;
use crate::model::{Activation, Norm, RopePairing, RopeTable, sigmoid};

/// A matrix; a vector has one row.
pub(super) struct Matrix {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// The elements.
    pub data: Vec<f32>, // [rows, cols]
}

impl Matrix {
    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.cols..(i + 1) * self.cols] // [cols]
    }

    /// Each of `n` matrices one behind the other, transposed.
    pub fn transposed_each(&self, n: usize) -> Result<Matrix> {
        let (rows, cols) = (self.rows / n, self.cols);
        let mut data = zeros(self.data.len())?;
        for (from, to) in self.data.chunks_exact(rows * cols).zip(data.chunks_exact_mut(rows * cols)) {
            for (i, x) in from.iter().enumerate() {
                to[i % cols * rows + i / cols] = *x;
            }
        }
        Ok(Matrix { rows: n * cols, cols: rows, data })
    }
}

/// Partial sums of a dot product; more than one, so that an addition need not wait for the one before it.
const LANES: usize = 8;

/// `sum_i a[i] * b[i]`. The product of two f32 is exact in f64.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0f64; LANES];
    let (a_blocks, b_blocks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f64 = a_blocks.remainder().iter().zip(b_blocks.remainder()).map(|(&a, &b)| a as f64 * b as f64).sum();
    for (a, b) in a_blocks.zip(b_blocks) {
        for i in 0..LANES {
            sums[i] += a[i] as f64 * b[i] as f64;
        }
    }
    sums.iter().sum::<f64>() + tail
}

/// `out = w x + bias`.
pub(super) fn linear(out: &mut [f32], w: &Matrix, x: &[f32], bias: Option<&[f32]>) {
    debug_assert_eq!(out.len(), w.rows);
    linear_from(out, w, 0, x, bias);
}

/// [`linear`] with as many rows of `w`, and of the bias, as `out` has, from row `first` on.
pub(super) fn linear_from(out: &mut [f32], w: &Matrix, first: usize, x: &[f32], bias: Option<&[f32]>) {
    debug_assert_eq!(x.len(), w.cols);
    for (i, out) in (first..).zip(out) {
        *out = (dot(w.row(i), x) + bias.map_or(0.0, |b| b[i] as f64)) as f32;
    }
}

/// The formula of this kind of norm, and `+ bias`.
pub(super) fn norm(kind: Norm, out: &mut [f32], x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32) {
    let (mean, scale) = match kind {
        Norm::Rms => (0.0, inverse_rms(x, eps)),
        Norm::Layer => layer_moments(x, eps),
    };
    for (i, out) in out.iter_mut().enumerate() {
        let y = (x[i] as f64 - mean) * scale * weight[i] as f64;
        *out = bias.map_or(y, |b| y + b[i] as f64) as f32;
    }
}

/// `x = x / sqrt(mean(x^2) + eps)`.
pub(super) fn rms_norm_without_weight(x: &mut [f32], eps: f32) {
    let scale = inverse_rms(x, eps);
    x.iter_mut().for_each(|x| *x = (*x as f64 * scale) as f32);
}

/// `x = x / sqrt(mean(x^2) + eps) * weight`.
pub(super) fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
    let scale = inverse_rms(x, eps);
    for (x, &w) in x.iter_mut().zip(weight) {
        *x = (*x as f64 * scale * w as f64) as f32;
    }
}

fn inverse_rms(x: &[f32], eps: f32) -> f64 {
    1.0 / (dot(x, x) / x.len() as f64 + eps as f64).sqrt()
}

/// The mean, and `1 / sqrt(mean((x - mean)^2) + eps)`.
fn layer_moments(x: &[f32], eps: f32) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().map(|&x| x as f64).sum::<f64>() / n;
    let variance = x.iter().map(|&x| (x as f64 - mean).powi(2)).sum::<f64>() / n;
    (mean, 1.0 / (variance + eps as f64).sqrt())
}

/// `(cos, sin)` of each pair's angle at `position`, times the magnitude.
pub(super) fn rope_turns(
    turns: &mut [(f64, f64)], // [n_rot / 2]
    position: usize,
    rope: &RopeTable,
) {
    let at = position as f64 * rope.position_scale as f64;
    for (i, (turn, inv_freq)) in turns.iter_mut().zip(&rope.inv_freq).enumerate() {
        let (sin, cos) = (at * (inv_freq / rope.divisor(i) as f64)).sin_cos();
        *turn = (cos * rope.magnitude as f64, sin * rope.magnitude as f64);
    }
}

/// Turns the first `2 * turns.len()` elements of one head.
pub(super) fn rotate(head: &mut [f32], turns: &[(f64, f64)], pairing: RopePairing) {
    for (i, &(cos, sin)) in turns.iter().enumerate() {
        let (a, b) = pairing.pair(i, turns.len());
        let (x, y) = (head[a] as f64, head[b] as f64);
        head[a] = (x * cos - y * sin) as f32;
        head[b] = (x * sin + y * cos) as f32;
    }
}

/// `x = exp(x - max) / sum(exp(x - max))`; a sink is one term more of the sum, and of the maximum.
pub(super) fn softmax(x: &mut [f64], sink: Option<f32>) {
    let sink = sink.map_or(f64::NEG_INFINITY, f64::from);
    let max = x.iter().fold(sink, |m, &x| m.max(x));
    x.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum: f64 = x.iter().sum::<f64>() + if sink == f64::NEG_INFINITY { 0.0 } else { (sink - max).exp() };
    x.iter_mut().for_each(|x| *x /= sum);
}

/// `cap * tanh(x / cap)`.
pub(super) fn softcap(x: f64, cap: Option<f32>) -> f64 {
    cap.map_or(x, |cap| cap as f64 * (x / cap as f64).tanh())
}

/// The function on the gate, times up; on up itself where there is no gate.
pub(super) fn activation(x: f32, up: Option<f32>, kind: Activation) -> f64 {
    let up = up.map_or(1.0, |up| up as f64);
    match kind {
        Activation::ClampedSwiglu => {
            // A NaN stays one.
            let x = if x > 7.0 { 7.0 } else { x as f64 };
            x * sigmoid(1.702 * x) * (up.clamp(-7.0, 7.0) + 1.0)
        }
        kind => curve(x, kind) * up,
    }
}

fn curve(x: f32, kind: Activation) -> f64 {
    let x = x as f64;
    match kind {
        // Clamped above.
        Activation::Silu | Activation::ClampedSwiglu => x * sigmoid(x),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Gelu => 0.5 * x * libm::erfc(-x / std::f64::consts::SQRT_2),
        // A NaN stays one.
        Activation::Relu2 => x.max(0.0) * x,
    }
}
