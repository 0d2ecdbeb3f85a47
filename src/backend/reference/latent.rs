//! Attention over latents of one token: what it does before and behind the attention of one key head that it comes to.
//!
//! Shapes: `R` elements of a latent, `T` of a key that are turned, `N` of a head of queries that are not, `V` of a head of values.

use super::forward::{Network, State};
use super::load::{Latent as Weights, Layer};
use super::math::{linear, linear_from, rms_norm_in_place, rotate};
use crate::model::{Attention, Latent};

impl Network {
    /// `s.k` is the position's latent and the turned key of all heads, `s.q` the queries that meet them.
    pub(super) fn to_latents(
        &self,
        layer: &Layer,
        w: &Weights,
        a: &Attention,
        latent: &Latent,
        position: usize,
        s: &mut State,
    ) {
        let (eps, rank, nope) = (self.config.norm_eps, latent.rank, latent.nope);
        let rope = self.turn(a, position, s);
        let turns = &s.turns[..rope.map_or(0, |(n, _)| n)];
        let q_dim = latent.q_dim(a.head_dim);
        let heads = &mut s.heads[..a.n_heads * q_dim];
        match (&w.q_a, &w.q_a_norm) {
            (Some(first), Some(norm)) => {
                let ranks = &mut s.ranks[..first.rows];
                linear(ranks, first, &s.h, None); // [Q] = [Q, D] [D]
                rms_norm_in_place(ranks, norm, eps); // [Q]
                linear(heads, &layer.q, ranks, None); // [n_heads (N + T)]
            }
            _ => linear(heads, &layer.q, &s.h, None), // [n_heads (N + T)]
        }
        let key = &mut s.k[..a.head_dim];
        linear(key, &w.kv_a, &s.h, None); // [R + T] = [R + T, D] [D]
        rms_norm_in_place(&mut key[..rank], &w.kv_a_norm, eps); // [R]
        if let Some((_, pairing)) = rope {
            rotate(&mut key[rank..], turns, pairing); // [T]
        }
        for (head, q) in s.q[..a.q_width()].chunks_exact_mut(a.head_dim).enumerate() {
            let own = &mut heads[head * q_dim..][..q_dim];
            let (met, turned) = q.split_at_mut(rank);
            linear_from(met, &w.k_b, head * rank, &own[..nope], None); // [R] = [R, N] [N]
            turned.copy_from_slice(&own[nope..]); // [T]
            if let Some((_, pairing)) = rope {
                rotate(turned, turns, pairing);
            }
        }
    }

    /// `s.mix`, the mix of latents of each head, becomes that of its values.
    pub(super) fn values_of_latents(&self, w: &Weights, a: &Attention, latent: &Latent, s: &mut State) {
        let (rank, v_dim) = (latent.rank, latent.v_dim);
        let values = &mut s.heads[..a.mix_width()];
        for (head, (mix, values)) in s.mix.chunks_exact(rank).zip(values.chunks_exact_mut(v_dim)).enumerate() {
            linear_from(values, &w.v_b, head * v_dim, mix, None); // [V] = [V, R] [R]
        }
        s.mix[..values.len()].copy_from_slice(values);
    }
}
