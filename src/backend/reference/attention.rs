//! Attention of one token over the cache's pages.

use std::ops::Range;
use std::sync::PoisonError;

use half::f16;

use super::forward::{Network, Part, SharedPage, State, Tap};
use super::load::Layer;
use super::math::{dot, linear, rms_norm_in_place, rope_turns, rotate, softcap, softmax};
use crate::backend::PAGE_TOKENS;
use crate::error::Result;
use crate::model::{Attention, QkNorm, sigmoid};

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
        let (h, g) = (a.q_width(), a.kv_width());
        linear(&mut s.q[..h], &layer.q, &s.h, layer.q_bias.as_deref()); // [H] = [H, D] [D]
        linear(&mut s.k[..g], &layer.k, &s.h, layer.k_bias.as_deref()); // [G] = [G, D] [D]
        linear(&mut s.v[..g], &layer.v, &s.h, layer.v_bias.as_deref()); // [G] = [G, D] [D]

        self.place(layer, a, position, s);
        tap("q_rope", n, &s.q[..h]);
        tap("k_rope", n, &s.k[..g]);
        tap("v", n, &s.v[..g]);
        if let Some(gate) = &layer.q_gate {
            linear(&mut s.mixing.gate[..h], gate, &s.h, None); // [H] = [H, D] [D]
            tap("gate", n, &s.mixing.gate[..h]);
        }
        if !s.keeps_cache {
            self.store(layer_index, position, pages, s)?;
        }

        let first = a.window.map_or(0, |w| (position + 1).saturating_sub(w as usize));
        self.attend(layer_index, a, first..position + 1, pages, s);
        tap("attn_mix", n, &s.mix[..h]);
        if layer.q_gate.is_some() {
            for (mix, &gate) in s.mix[..h].iter_mut().zip(&s.mixing.gate) {
                *mix = (*mix as f64 * sigmoid(gate as f64)) as f32; // [H]
            }
        }
        linear(&mut s.out, &layer.o, &s.mix[..h], layer.o_bias.as_deref()); // [D] = [D, H] [H]
        tap("attn_out", n, &s.out);
        Ok(())
    }

    /// Norms, rope and temperature of `s.q` and `s.k`.
    fn place(&self, layer: &Layer, a: &Attention, position: usize, s: &mut State) {
        let (ropes, eps) = (self.config.ropes_of(s.is_long), self.config.norm_eps);
        let rope = a.rope.map(|rope| &ropes[rope]);
        let turns = &mut s.turns[..rope.map_or(0, |rope| rope.inv_freq.len())];
        if let Some(rope) = rope {
            rope_turns(turns, position, rope);
        }
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
                    rotate(head, turns, rope.pairing); // [head_dim]
                }
                norm(QkNorm::HeadAfterRope, head); // [head_dim]
            }
        }
        if let Some(temperature) = a.temperature {
            let temperature = temperature.at(position);
            q.iter_mut().for_each(|q| *q = (*q as f64 * temperature) as f32); // [H]
        }
    }

    /// Elements of a position's keys, or values, in one layer.
    pub fn row_len(&self, layer: usize) -> usize {
        self.config.layers[layer].attention().kv_width()
    }

    /// Where the row of `position` starts in the `k` and `v` of its page's part.
    pub fn row_offset(&self, layer: usize, position: usize) -> usize {
        self.kv_starts[layer] + position % PAGE_TOKENS * self.row_len(layer)
    }

    /// Keeps `s.k` and `s.v` as those of `position`.
    fn store(&self, layer: usize, position: usize, pages: &[SharedPage], s: &State) -> Result<()> {
        let mut page = pages[position / PAGE_TOKENS].write().unwrap_or_else(PoisonError::into_inner);
        let (class, at, g) = (self.classes.of(layer), self.row_offset(layer, position), self.row_len(layer));
        let Part { k, v } = page.written(class, self.part_lens[class])?;
        k[at..at + g].copy_from_slice(&s.k[..g]); // [G]
        v[at..at + g].copy_from_slice(&s.v[..g]); // [G]
        if self.f16_cache {
            let rows = [&mut k[at..at + g], &mut v[at..at + g]];
            rows.into_iter().flatten().for_each(|x| *x = f16::from_f32(*x).to_f32());
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
        let sum = &mut s.sum[..a.head_dim];
        let heads = s.q[..a.q_width()].chunks_exact(a.head_dim).zip(s.mix.chunks_exact_mut(a.head_dim));
        for (head, (q, mix)) in heads.enumerate() {
            let head_offset = head / heads_per_kv * a.head_dim;
            for (score, p) in scores.iter_mut().zip(positions.clone()) {
                let at = self.row_offset(layer, p) + head_offset;
                let k = &pages[p / PAGE_TOKENS].parts[class].k[at..at + a.head_dim]; // [head_dim]
                *score = softcap(a.scale as f64 * dot(q, k), a.softcap);
            }
            softmax(scores, self.layers[layer].sinks.as_ref().map(|sinks| sinks[head]));
            sum.fill(0.0); // [head_dim]
            for (&score, p) in scores.iter().zip(positions.clone()) {
                let at = self.row_offset(layer, p) + head_offset;
                let v = &pages[p / PAGE_TOKENS].parts[class].v[at..at + a.head_dim]; // [head_dim]
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
