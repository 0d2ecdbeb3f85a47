//! What a layer computes: its mixer and its feed-forward part, of all rows of a round.

use super::attention;
use super::forward::{CpuModel, LayerPlan, Piece, Scratch, Task, tap};
use super::linear::Matrix;
use super::threads::{Shares, Turn};
use super::vector;
use crate::backend::{PAGE_TOKENS, RunControl};
use crate::error::Result;
use crate::model::{Activation, Attention, Dense, RopePairing};

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
        let Scratch { h: hidden, quant, q, k, v, .. } = &mut *s;
        let needs = layer.qkv.iter().any(Matrix::is_quantized);
        let input = self.input(turn, hidden, quant, n, d, needs)?;
        let outs = [(Shares(q.as_mut_ptr()), h), (Shares(k.as_mut_ptr()), g), (Shares(v.as_mut_ptr()), g)];
        self.multiply(turn, &layer.qkv, &layer.qkv_tasks, &input, &outs)?;
        self.position(turn, s, a, index, pieces, n)?;
        tap(run, pieces, "q_rope", tag, h, &s.q);
        tap(run, pieces, "k_rope", tag, g, &s.k);
        tap(run, pieces, "v", tag, g, &s.v);
        self.attend(turn, s, a, index, pieces)?;
        tap(run, pieces, "attn_mix", tag, h, &s.mix);
        let Scratch { h: hidden, quant, mix, .. } = &mut *s;
        let input = self.input(turn, mix, quant, n, h, layer.o.is_quantized())?;
        let out = [(Shares(hidden.as_mut_ptr()), d)];
        self.multiply(turn, std::slice::from_ref(&layer.o), &layer.o_tasks, &input, &out)?;
        if let Some(bias) = &layer.o_bias {
            s.h[..n * d].chunks_exact_mut(d).for_each(|h| h.iter_mut().zip(bias).for_each(|(h, b)| *h += b));
        }
        Ok(())
    }

    /// `h = Wdown (activation(Wgate h) * (Wup h))`, of all rows.
    pub(super) fn dense(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        dense: &Dense,
        index: usize,
        pieces: &[Piece],
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        let (layer, d, f) = (&self.layers[index], self.config.n_embd, dense.width);
        let n = pieces.iter().map(|p| p.len()).sum::<usize>();
        self.gate_up(turn, s, layer, dense, n)?;
        tap(run, pieces, "ffn_act", index as i32, f, &s.gate);
        let Scratch { h: hidden, quant, gate, .. } = &mut *s;
        let input = self.input(turn, gate, quant, n, f, layer.down.is_quantized())?;
        let out = [(Shares(hidden.as_mut_ptr()), d)];
        self.multiply(turn, std::slice::from_ref(&layer.down), &layer.down_tasks, &input, &out)
    }
    /// Biases, per-head norms, rotation, and the cache's new rows.
    fn position(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        a: &Attention,
        index: usize,
        pieces: &[Piece],
        n: usize,
    ) -> Result<()> {
        let (layer, eps, rope) = (&self.layers[index], self.config.norm_eps, a.rope.map(|i| (i, &self.ropes[i])));
        let (dim, half) = (a.head_dim, self.config.widths().pairs);
        let (h, g) = (a.q_width(), a.kv_width());
        let (q, k, v) =
            (Shares(s.q[..n * h].as_mut_ptr()), Shares(s.k[..n * g].as_mut_ptr()), Shares(s.v[..n * g].as_mut_ptr()));
        let angles = &s.angles[rope.map_or(0, |(i, _)| i) * n * half..];
        let pages = &s.pages;
        let n_pairs = rope.map_or(0, |(_, rope)| rope.inverse.len());
        let adjacent = rope.is_some_and(|(_, rope)| rope.pairing == RopePairing::Adjacent);
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
            let angles = &angles[row * half..][..n_pairs];
            for (x, norm) in [(&mut *q, &layer.q_norm), (&mut *k, &layer.k_norm)] {
                for head in x.chunks_exact_mut(dim) {
                    if let Some(w) = norm {
                        let p = head.as_mut_ptr();
                        // SAFETY: the head and the weight hold `dim` elements.
                        unsafe { vector::rms_norm(self.isa, p, w.as_ptr(), p, dim, eps) };
                    }
                    vector::rope(head, angles, adjacent);
                }
            }
            let Some(p) = pieces.iter().rfind(|p| p.row <= row) else { return };
            let position = p.start + row - p.row;
            #[cfg(any(test, feature = "faults"))]
            let position = self.fault.cache_index(position);
            let page = pages[p.pages.0 + position / PAGE_TOKENS].0.cast_mut();
            let mut half_k = [0_u16; 512];
            let mut half_v = [0_u16; 512];
            for head in 0..a.n_kv_heads {
                // SAFETY: `head_dim` is at most 512 (checked at load); this position's rows of the page belong to
                // this sequence alone.
                unsafe {
                    attention::to_f16(self.isa, k.as_ptr().add(head * dim), half_k.as_mut_ptr(), dim);
                    attention::to_f16(self.isa, v.as_ptr().add(head * dim), half_v.as_mut_ptr(), dim);
                    let (k, v) = (&half_k[..dim], &half_v[..dim]);
                    self.layout.write(page, index, head, position % PAGE_TOKENS, k, v);
                }
            }
        })
    }

    /// `gate = activation(Wgate h) * (Wup h)`.
    fn gate_up(&self, turn: &Turn<'_>, s: &mut Scratch, layer: &LayerPlan, dense: &Dense, n: usize) -> Result<()> {
        let (d, f, isa) = (self.config.n_embd, dense.width, self.isa);
        let Scratch { h, quant, gate, up, .. } = &mut *s;
        let input = self.input(turn, h, quant, n, d, layer.gate.is_quantized() || layer.up.is_quantized())?;
        let (gate, up) = (Shares(gate.as_mut_ptr()), Shares(up.as_mut_ptr()));
        let tasks = &layer.gate_tasks;
        turn.run(tasks.len(), &|i| {
            let Task { first, last, .. } = tasks[i];
            let (a, b) = (first * super::simd::LANES, (last * super::simd::LANES).min(f));
            // SAFETY: columns a .. b of gate and up belong to this task.
            unsafe {
                layer.gate.mul(isa, first, last, &input, gate.at(0), f);
                layer.up.mul(isa, first, last, &input, up.at(0), f);
                for row in 0..n {
                    let (gate, up) = (gate.at(row * f + a), up.at(row * f + a));
                    match dense.activation {
                        Activation::Silu => vector::silu_mul(isa, gate, up, b - a),
                        Activation::GeluTanh => vector::gelu_mul(isa, gate, up, b - a),
                        Activation::Gelu | Activation::Relu2 => {}
                    }
                }
            }
        })
    }
}
