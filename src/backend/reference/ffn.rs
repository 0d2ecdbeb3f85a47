//! The feed-forward part of one token: dense, or experts.
//!
//! Shapes: `D = n_embd`, `F` the width of a part, `N` experts of which a position goes through `K`.

use super::forward::{Network, State, Tap, add};
use super::load::{Dense as DenseLayer, Experts as ExpertsLayer, Ffn as FfnLayer};
use super::math::{activation, dot, linear, linear_from, norm, rms_norm_in_place};
use super::routed::Routed;
use crate::error::{Error, Result};
use crate::model::{Dense, Experts, Ffn, Norm, RouteRoom, sigmoid};

impl Network {
    /// `s.out = ffn(s.h)`.
    pub fn ffn(&self, layer: usize, s: &mut State, tap: Tap<'_>) -> Result<()> {
        let n = layer as i32;
        match (&self.config.layers[layer].ffn, &self.layers[layer].ffn) {
            (Ffn::Dense(dense), FfnLayer::Dense(weights)) => {
                self.dense(weights, 0, dense, s);
                tap("ffn_act", n, &s.gate[..dense.width]);
                Ok(())
            }
            (Ffn::Experts(experts), FfnLayer::Experts(weights)) => {
                self.experts(weights, experts, n, s, tap);
                Ok(())
            }
            (Ffn::None, FfnLayer::None) => Ok(()),
            _ => {
                Err(Error::Internal { message: format!("layer {layer} has the weights of another feed-forward part") })
            }
        }
    }

    /// `s.out = Wdown (activation(Wgate s.h + bgate) * (Wup s.h + bup)) + bdown`, or without a gate, of the dense part, or
    /// expert, of this index.
    fn dense(&self, w: &DenseLayer, index: usize, dense: &Dense, s: &mut State) {
        let State { h, gate, up, out, .. } = s;
        let (d, f) = (out.len(), dense.width);
        let (gate, up) = (&mut gate[..f], &mut up[..f]);
        linear_from(up, &w.up, index * f, h, w.up_bias.as_deref()); // [F] = [F, D] [D]
        match &w.gate {
            Some(matrix) => {
                linear_from(gate, matrix, index * f, h, w.gate_bias.as_deref()); // [F] = [F, D] [D]
                for (gate, &up) in gate.iter_mut().zip(&*up) {
                    *gate = activation(*gate, Some(up), dense.activation) as f32; // [F]
                }
            }
            None => {
                gate.iter_mut().zip(&*up).for_each(|(gate, &up)| *gate = activation(up, None, dense.activation) as f32);
            }
        }
        linear_from(out, &w.down, index * d, gate, w.down_bias.as_deref()); // [D] = [D, F] [F]
    }

    /// `s.out` is what the shared expert adds and then the chosen ones, in ascending order of their ids.
    fn experts(&self, w: &ExpertsLayer, experts: &Experts, n: i32, s: &mut State, tap: Tap<'_>) {
        let (all, k) = (experts.n, experts.n_used);
        let eps = self.config.norm_eps;
        let Routed { logits, scores, keys, ids, shown, weights, sum, input } = &mut s.routed;
        let read = match &w.side_by_side {
            None => &s.h,
            Some(side) => {
                norm(Norm::Rms, input, &s.x, &side.router_norm, None, eps); // [D]
                let root = (s.x.len() as f64).sqrt();
                input.iter_mut().for_each(|x| *x = (*x as f64 / root) as f32);
                &*input
            }
        };
        linear(&mut logits[..all], &w.router, read, w.router_bias.as_deref()); // [N] = [N, D] [D]
        let room = RouteRoom { scores: &mut scores[..all], keys: &mut keys[..all] };
        experts.route(&logits[..all], w.select_bias.as_deref(), room, &mut ids[..k], &mut weights[..k]);
        shown.iter_mut().zip(&*ids).for_each(|(shown, id)| *shown = *id as f32); // [K]
        tap("moe_logits", n, &logits[..all]);
        tap("moe_ids", n, &shown[..k]);
        tap("moe_weights", n, &weights[..k]);
        sum.fill(0.0); // [D]
        if let (Some(shared), Some(weights)) = (&experts.shared, &w.shared) {
            self.dense(weights, 0, &shared.ffn, s);
            match &w.side_by_side {
                None => accumulate(s, w.shared_gate.as_ref().map_or(1.0, |gate| sigmoid(dot(gate, &s.h)))),
                Some(side) => {
                    rms_norm_in_place(&mut s.out, &side.shared_post_norm, eps); // [D]
                    s.routed.input.copy_from_slice(&s.out);
                    norm(Norm::Rms, &mut s.h, &s.x, &side.experts_norm, None, eps); // [D]
                }
            }
        }
        for i in 0..k {
            self.dense(&w.each, s.routed.ids[i] as usize, &experts.each, s);
            accumulate(s, s.routed.weights[i] as f64);
        }
        for (out, &sum) in s.out.iter_mut().zip(&s.routed.sum) {
            *out = sum as f32; // [D]
        }
        if let Some(side) = &w.side_by_side {
            rms_norm_in_place(&mut s.out, &side.experts_post_norm, eps); // [D]
            add(&mut s.out, &s.routed.input, 1.0);
        }
    }
}

/// `sum += weight * out`.
fn accumulate(s: &mut State, weight: f64) {
    for (sum, &out) in s.routed.sum.iter_mut().zip(&s.out) {
        *sum += weight * out as f64; // [D]
    }
}
