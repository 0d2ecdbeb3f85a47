//! Attention of one token over the cache's pages.

use std::ops::Range;
use std::sync::PoisonError;

use half::f16;

use super::forward::{Network, Part, SharedPage, State, Tap};
use super::load::Layer;
use super::math::{dot, linear, rms_norm_in_place, rms_norm_without_weight, rope_turns, rotate, softcap, softmax};
use crate::backend::PAGE_TOKENS;
use crate::error::Result;
use crate::model::{Attention, QkNorm, RopePairing, sigmoid};

impl Network {
    /// `s.out = Wo attention(s.h) + bo`.
    pub fn attention(
        &self,
        layer_index: usize,
        a: &Attention,
        position: usize,
        pages: &[SharedPage],
        s: &mut State,
        tap: Tap<'_>,
    ) -> Result<()> {
        let (layer, n) = (&self.layers[layer_index], layer_index as i32);
        let (h, g, mix) = (a.q_width(), a.kv_width(), a.mix_width());
        match (&a.latent, &layer.latent) {
            (Some(latent), Some(weights)) => self.to_latents(layer, weights, a, latent, position, s),
            _ => self.project(layer, a, position, s),
        }
        tap("q_rope", n, &s.q[..h]);
        if a.kv_from.is_none() {
            tap("k_rope", n, &s.k[..g]);
            if a.latent.is_none() {
                tap("v", n, &s.v[..g]);
            }
        }
        if let Some(gate) = &layer.q_gate {
            linear(&mut s.mixing.gate[..h], gate, &s.h, None); // [H] = [H, D] [D]
            tap("gate", n, &s.mixing.gate[..h]);
        }
        if a.kv_from.is_none() && !s.keeps_cache {
            self.store(layer_index, position, pages, s)?;
        }
        let first = a.window.map_or(0, |w| (position + 1).saturating_sub(w as usize));
        self.attend(layer_index, a, first..position + 1, pages, s);
        if let (Some(latent), Some(weights)) = (&a.latent, &layer.latent) {
            self.values_of_latents(weights, a, latent, s);
        }
        tap("attn_mix", n, &s.mix[..mix]);
        if layer.q_gate.is_some() {
            for (mix, &gate) in s.mix[..mix].iter_mut().zip(&s.mixing.gate) {
                *mix = (*mix as f64 * sigmoid(gate as f64)) as f32; // [H]
            }
        }
        linear(&mut s.out, &layer.o, &s.mix[..mix], layer.o_bias.as_deref()); // [D] = [D, H] [H]
        Ok(())
    }

    /// Queries, keys and values; the latter only where the layer has some of its own.
    fn project(&self, layer: &Layer, a: &Attention, position: usize, s: &mut State) {
        let (h, g, eps) = (a.q_width(), a.kv_width(), self.config.norm_eps);
        linear(&mut s.q[..h], &layer.q, &s.h, layer.q_bias.as_deref()); // [H] = [H, D] [D]
        if let Some(k) = &layer.k {
            linear(&mut s.k[..g], k, &s.h, layer.k_bias.as_deref()); // [G] = [G, D] [D]
            match &layer.v {
                Some(v) => linear(&mut s.v[..g], v, &s.h, layer.v_bias.as_deref()), // [G] = [G, D] [D]
                None => s.v[..g].copy_from_slice(&s.k[..g]),
            }
            if a.v_norm {
                s.v[..g].chunks_exact_mut(a.head_dim).for_each(|head| rms_norm_without_weight(head, eps));
            }
        }
        self.place(layer, a, position, s);
    }

    /// The turns of a position in `s.turns`, as many as the layer's rope has, and how they pair elements.
    pub(super) fn turn(&self, a: &Attention, position: usize, s: &mut State) -> Option<(usize, RopePairing)> {
        let rope = &self.config.ropes_of(s.is_long)[a.rope?];
        let n = rope.inv_freq.len();
        rope_turns(&mut s.turns[..n], position, rope);
        Some((n, rope.pairing))
    }

    /// Norms, rope and temperature of `s.q` and `s.k`.
    fn place(&self, layer: &Layer, a: &Attention, position: usize, s: &mut State) {
        let (eps, rope) = (self.config.norm_eps, self.turn(a, position, s));
        let turns = &s.turns[..rope.map_or(0, |(n, _)| n)];
        let (q, k) = (&mut s.q[..a.q_width()], &mut s.k[..a.kv_width()]);
        for (row, weight) in [(&mut *q, &layer.q_norm), (&mut *k, &layer.k_norm)] {
            let norm = |kind, x: &mut [f32]| match weight {
                Some(weight) if a.qk_norm == Some(kind) => rms_norm_in_place(x, weight, eps),
                _ => {}
            };
            norm(QkNorm::Row, row); // [H] or [G]
            for head in row.chunks_exact_mut(a.head_dim) {
                norm(QkNorm::Head, head); // [head_dim]
                if let Some(rope) = rope {
                    rotate(head, turns, rope.1); // [head_dim]
                }
                norm(QkNorm::HeadAfterRope, head); // [head_dim]
            }
        }
        if let Some(temperature) = a.temperature {
            let temperature = temperature.at(position);
            q.iter_mut().for_each(|q| *q = (*q as f64 * temperature) as f32); // [H]
        }
    }

    /// Elements of a position's keys, and of its values, in one layer.
    pub fn row_lens(&self, layer: usize) -> [usize; 2] {
        let a = self.config.layers[layer].attention();
        [a.kv_width(), a.v_width()]
    }

    /// Where the rows of `position` start in the `k` and in the `v` of its page's part.
    pub fn row_offsets(&self, layer: usize, position: usize) -> [usize; 2] {
        let (starts, lens) = (self.kv_starts[layer], self.row_lens(layer));
        [0, 1].map(|i| starts[i] + position % PAGE_TOKENS * lens[i])
    }

    /// Keeps `s.k` and `s.v` as those of `position`.
    fn store(&self, layer: usize, position: usize, pages: &[SharedPage], s: &State) -> Result<()> {
        let mut page = pages[position / PAGE_TOKENS].write().unwrap_or_else(PoisonError::into_inner);
        let (class, at, lens) = (self.classes.of(layer), self.row_offsets(layer, position), self.row_lens(layer));
        let Part { k, v } = page.written(class, self.part_lens[class])?;
        let rows = [&mut k[at[0]..][..lens[0]], &mut v[at[1]..][..lens[1]]];
        for (row, from) in rows.into_iter().zip([&s.k, &s.v]) {
            row.copy_from_slice(&from[..row.len()]); // [G]
            if self.f16_cache {
                row.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
            }
        }
        Ok(())
    }

    /// `s.mix = softmax(scale * q k^T) v` over `positions`, head by head.
    fn attend(&self, layer: usize, a: &Attention, positions: Range<usize>, pages: &[SharedPage], s: &mut State) {
        let (heads_per_kv, class) = (a.n_heads / a.n_kv_heads, self.classes.of(layer));
        // What is in front of the first position's page may have no memory any more.
        let pages: Vec<_> = pages[..positions.end.div_ceil(PAGE_TOKENS)]
            .iter()
            .map(|p| p.read().unwrap_or_else(PoisonError::into_inner))
            .collect();
        let scores = &mut s.scores[..positions.len()];
        let (source, v_dim) = (a.kv_from.unwrap_or(layer), a.value_dim());
        let sum = &mut s.sum[..v_dim];
        let heads = s.q[..a.q_width()].chunks_exact(a.head_dim).zip(s.mix.chunks_exact_mut(v_dim));
        for (head, (q, mix)) in heads.enumerate() {
            let head_offset = head / heads_per_kv * a.head_dim;
            for (score, p) in scores.iter_mut().zip(positions.clone()) {
                let at = self.row_offsets(source, p)[0] + head_offset;
                let k = &pages[p / PAGE_TOKENS].parts[class].k[at..at + a.head_dim]; // [head_dim]
                *score = softcap(a.scale as f64 * dot(q, k), a.softcap);
            }
            softmax(scores, self.layers[layer].sinks.as_ref().map(|sinks| sinks[head]));
            sum.fill(0.0); // [head_dim]
            for (&score, p) in scores.iter().zip(positions.clone()) {
                let (part, at) = (&pages[p / PAGE_TOKENS].parts[class], self.row_offsets(source, p));
                let v = match a.latent {
                    None => &part.v[at[1] + head_offset..][..v_dim], // [head_dim]
                    Some(_) => &part.k[at[0]..][..v_dim],            // [R]
                };
                for (sum, &v) in sum.iter_mut().zip(v) {
                    *sum += score * v as f64;
                }
            }
            for (mix, &sum) in mix.iter_mut().zip(&*sum) {
                *mix = sum as f32; // [head_dim]
            }
        }
    }
}
