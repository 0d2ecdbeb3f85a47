//! Embeddings by layer of one token.
//!
//! Shapes: `D = n_embd`, `L` layers, `P` elements of a token's row for one of them.

use super::forward::{Network, State, add};
use super::load::{PerLayerGate, PerLayerWeights};
use super::math::{activation, linear, rms_norm_in_place};
use crate::model::PerLayer;

impl Network {
    /// `s.by_layer`: what each layer adds of, from the token and the stream as it begins.
    pub(super) fn begin_per_layer(&self, token: usize, w: &PerLayerWeights, p: &PerLayer, s: &mut State) {
        let State { x, by_layer, .. } = s;
        linear(by_layer, &w.proj, x, None); // [L P] = [L P, D] [D]
        let scale = (x.len() as f64).sqrt();
        by_layer.iter_mut().for_each(|m| *m = (*m as f64 / scale) as f32);
        by_layer.chunks_exact_mut(p.width).for_each(|row| rms_norm_in_place(row, &w.norm, self.config.norm_eps));
        for (row, &e) in by_layer.iter_mut().zip(w.embd.row(token)) {
            *row = ((*row as f64 + p.embd_scale as f64 * e as f64) * std::f64::consts::FRAC_1_SQRT_2) as f32;
        }
    }

    /// `x += rms_norm(Wproj (activation(Wgate x) * row)) * post_norm`, behind a layer.
    pub(super) fn add_per_layer(&self, layer: usize, w: &PerLayerGate, p: &PerLayer, s: &mut State) {
        let State { x, out, small, by_layer, .. } = s;
        linear(small, &w.gate, x, None); // [P] = [P, D] [D]
        for (gate, &row) in small.iter_mut().zip(&by_layer[layer * p.width..]) {
            *gate = activation(*gate, Some(row), p.activation) as f32; // [P]
        }
        linear(out, &w.proj, small, None); // [D] = [D, P] [P]
        rms_norm_in_place(out, &w.post_norm, self.config.norm_eps);
        add(x, out, 1.0);
    }
}
