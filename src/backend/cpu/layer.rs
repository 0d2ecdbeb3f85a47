//! What a layer's mixer computes, of all rows of a round.

use super::attention;
use super::forward::{CpuModel, Piece, Scratch, tap};
use super::latent::OfLatents;
use super::layout::LayerLayout;
use super::linear::Matrix;
use super::threads::{Shares, Turn};
use super::vector;
use crate::backend::{PAGE_TOKENS, RunControl};
use crate::error::Result;
use crate::model::{Attention, QkNorm, RopePairing};

impl CpuModel {
    /// `h = Wo attention(h) + bo`, of all rows.
    pub(super) fn attention(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        a: &Attention,
        index: usize,
        pieces: &[Piece],
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        let (layer, tag) = (&self.layers[index], index as i32);
        let (d, h, g) = (self.config.n_embd, a.q_width(), a.kv_width());
        let n = pieces.iter().map(|p| p.len()).sum::<usize>();
        let of_latents = match (&a.latent, &layer.latent) {
            (Some(latent), Some(plan)) => Some(OfLatents { a, latent, plan, layer: index }),
            _ => None,
        };
        match of_latents {
            Some(of) => self.to_latents(turn, s, of, pieces, n)?,
            None => {
                let Scratch { h: hidden, quant, q, k, v, .. } = &mut *s;
                let needs = layer.qkv.iter().any(Matrix::is_quantized);
                let input = self.input(turn, hidden, quant, n, d, needs)?;
                let outs = [(Shares(q.as_mut_ptr()), h), (Shares(k.as_mut_ptr()), g), (Shares(v.as_mut_ptr()), g)];
                self.multiply(turn, &layer.qkv, &layer.qkv_tasks, &input, &outs)?;
                self.position(turn, s, a, index, pieces, n)?;
            }
        }
        tap(run, pieces, "q_rope", tag, h, &s.q);
        if a.kv_from.is_none() {
            tap(run, pieces, "k_rope", tag, g, &s.k);
        }
        if a.kv_from.is_none() && a.latent.is_none() {
            tap(run, pieces, "v", tag, g, &s.v);
        }
        self.attention_gate(turn, s, index, h, pieces, run)?;
        self.attend(turn, s, a, index, pieces)?;
        if let Some(of) = of_latents {
            self.values_of_latents(turn, s, of, n)?;
        }
        let h = a.mix_width();
        tap(run, pieces, "attn_mix", tag, h, &s.mix);
        self.gate_mix(turn, s, index, h, n)?;
        let Scratch { h: hidden, quant, mix, .. } = &mut *s;
        let input = self.input(turn, mix, quant, n, h, layer.o.is_quantized())?;
        let out = [(Shares(hidden.as_mut_ptr()), d)];
        self.multiply(turn, std::slice::from_ref(&layer.o), &layer.o_tasks, &input, &out)?;
        self.bias(turn, &mut s.h, layer.o_bias.as_deref(), n)
    }

    /// Biases, norms, rotation, temperature, and the cache's new rows.
    fn position(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        a: &Attention,
        index: usize,
        pieces: &[Piece],
        n: usize,
    ) -> Result<()> {
        let (layer, layout, rope) =
            (&self.layers[index], self.layout.layer(index), a.rope.map(|i| (i, &self.ropes[i])));
        let (dim, half) = (a.head_dim, self.config.widths().pairs);
        let (h, g) = (a.q_width(), a.kv_width());
        let (q, k, v) =
            (Shares(s.q[..n * h].as_mut_ptr()), Shares(s.k[..n * g].as_mut_ptr()), Shares(s.v[..n * g].as_mut_ptr()));
        let angles = &s.angles[rope.map_or(0, |(i, _)| i) * n * half..];
        let pages = &s.pages;
        self.by_rows(turn, n, h + 2 * g, &|row| {
            // SAFETY: row `row` of q, k and v, which no other call touches.
            let (q, k, v) = unsafe {
                (
                    std::slice::from_raw_parts_mut(q.at(row * h), h),
                    std::slice::from_raw_parts_mut(k.at(row * g), g),
                    std::slice::from_raw_parts_mut(v.at(row * g), g),
                )
            };
            for (x, bias) in [&mut *q, &mut *k, &mut *v].into_iter().zip(&layer.biases) {
                if let Some(bias) = bias {
                    x.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
                }
            }
            let rope = rope.map(|(_, rope)| (&angles[row * half..][..rope.inverse.len()], rope.pairing));
            self.place(a, q, layer.q_norm.as_deref(), rope);
            let Some(p) = pieces.iter().rfind(|p| p.row <= row) else { return };
            let position = p.start + row - p.row;
            if let Some(temperature) = a.temperature {
                let temperature = temperature.at(position) as f32;
                q.iter_mut().for_each(|q| *q *= temperature);
            }
            if a.kv_from.is_some() {
                return;
            }
            if a.k_as_v {
                v.copy_from_slice(k);
            }
            self.place(a, k, layer.k_norm.as_deref(), rope);
            if let Some(ones) = &layer.v_norm {
                for head in v.chunks_exact_mut(dim) {
                    let p = head.as_mut_ptr();
                    // SAFETY: both hold `dim` elements.
                    unsafe { vector::rms_norm(self.isa, p, ones.as_ptr(), p, dim, self.config.norm_eps) };
                }
            }
            if p.keeps_cache {
                return;
            }
            #[cfg(any(test, feature = "faults"))]
            let position = self.fault.cache_index(position);
            let page = pages[p.pages_of(layout.class)][position / PAGE_TOKENS].0.cast_mut();
            self.write_rows(layout, page, position % PAGE_TOKENS, k, v);
        })
    }

    /// A position's keys and values, as wide as the layer's, into a page that is its sequence's alone.
    fn write_rows(&self, layout: LayerLayout, page: *mut u16, slot: usize, k: &[f32], v: &[f32]) {
        let dim = layout.head_dim;
        let mut half_k = [0_u16; 512];
        let mut half_v = [0_u16; 512];
        for (head, (k, v)) in k.chunks_exact(dim).zip(v.chunks_exact(dim)).enumerate() {
            // SAFETY: `head_dim` is at most 512 (checked at load); this position's rows of the page belong to this sequence alone.
            unsafe {
                attention::to_f16(self.isa, k.as_ptr(), half_k.as_mut_ptr(), dim);
                attention::to_f16(self.isa, v.as_ptr(), half_v.as_mut_ptr(), dim);
                layout.write(page, head, slot, &half_k[..dim], &half_v[..dim]);
            }
        }
    }

    /// Norms and rotation of a position's queries or keys; `rope` is the angles and how they pair elements.
    fn place(&self, a: &Attention, x: &mut [f32], weight: Option<&[f32]>, rope: Option<(&[(f32, f32)], RopePairing)>) {
        let norm = |kind: QkNorm, x: &mut [f32]| match weight {
            Some(weight) if a.qk_norm == Some(kind) => {
                debug_assert_eq!(weight.len(), x.len());
                let p = x.as_mut_ptr();
                // SAFETY: both hold as many elements.
                unsafe { vector::rms_norm(self.isa, p, weight.as_ptr(), p, x.len(), self.config.norm_eps) };
            }
            _ => {}
        };
        norm(QkNorm::Row, x);
        for head in x.chunks_exact_mut(a.head_dim) {
            norm(QkNorm::Head, head);
            if let Some((angles, pairing)) = rope {
                vector::rope(head, angles, pairing);
            }
            norm(QkNorm::HeadAfterRope, head);
        }
    }
}
