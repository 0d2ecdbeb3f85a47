//! Embeddings by layer, and what else ends a layer, of all rows of a round.

use super::activation::activate;
use super::forward::{CpuModel, Scratch};
use super::plan::PerLayerPlan;
use super::threads::{Shares, Turn};
use super::vector;
use crate::error::Result;
use crate::model::PerLayer;

impl CpuModel {
    /// `by_layer`: what each layer adds of, from each row's token, of which `embd_by_layer` has the embeddings, and the stream as
    /// it begins.
    pub(super) fn begin_per_layer(&self, turn: &Turn<'_>, s: &mut Scratch, n: usize) -> Result<()> {
        let (Some(plan), Some(per_layer)) = (&self.per_layer, &self.config.per_layer) else { return Ok(()) };
        let (d, width) = (self.config.n_embd, per_layer.width * self.config.n_layers());
        let Scratch { x, quant, by_layer, embd_by_layer, .. } = &mut *s;
        let input = self.input(turn, x, quant, n, d, plan.proj.is_quantized())?;
        let out = [(Shares(by_layer.as_mut_ptr()), width)];
        self.multiply(turn, std::slice::from_ref(&plan.proj), &plan.proj_tasks, &input, &out)?;
        let (rows, embd) = (Shares(by_layer[..n * width].as_mut_ptr()), &embd_by_layer[..n * width]);
        self.by_rows(turn, n, 2 * width, &|row| {
            // SAFETY: row `row`, sliced above; rows are disjoint.
            let out = unsafe { std::slice::from_raw_parts_mut(rows.at(row * width), width) };
            self.add_embedding(plan, per_layer, out, &embd[row * width..][..width]);
        })
    }

    /// One row of [`Self::begin_per_layer`].
    fn add_embedding(&self, plan: &PerLayerPlan, p: &PerLayer, out: &mut [f32], embd: &[f32]) {
        let (isa, eps, scale) = (self.isa, self.config.norm_eps, 1.0 / (self.config.n_embd as f32).sqrt());
        out.iter_mut().for_each(|m| *m *= scale);
        for (out, embd) in out.chunks_exact_mut(p.width).zip(embd.chunks_exact(p.width)) {
            let m = out.as_mut_ptr();
            // SAFETY: all hold `width` elements.
            unsafe { vector::rms_norm(isa, m, plan.norm.as_ptr(), m, p.width, eps) };
            let both = out.iter_mut().zip(embd);
            both.for_each(|(m, e)| *m = (*m + p.embd_scale * e) * std::f32::consts::FRAC_1_SQRT_2);
        }
    }

    /// Behind the halves of a layer: what embeddings by layer add, and the layer's scale.
    pub(super) fn end_layer(&self, turn: &Turn<'_>, s: &mut Scratch, index: usize, n: usize) -> Result<()> {
        let (d, isa, eps) = (self.config.n_embd, self.isa, self.config.norm_eps);
        if let (Some(plan), Some(p)) = (&self.layers[index].per_layer, &self.config.per_layer) {
            let width = p.width * self.config.n_layers();
            let Scratch { x, h, quant, gate, by_layer, .. } = &mut *s;
            let input = self.input(turn, x, quant, n, d, plan.gate.is_quantized())?;
            let out = [(Shares(gate.as_mut_ptr()), p.width)];
            self.multiply(turn, std::slice::from_ref(&plan.gate), &plan.gate_tasks, &input, &out)?;
            let (rows, by_layer) = (Shares(gate[..n * p.width].as_mut_ptr()), &by_layer[..n * width]);
            self.by_rows(turn, n, p.width, &|row| {
                let own = &by_layer[row * width + index * p.width..][..p.width];
                // SAFETY: row `row` of `gate`, sliced above; both hold `width` elements.
                unsafe { activate(isa, p.activation, rows.at(row * p.width), Some(own.as_ptr()), p.width) };
            })?;
            let input = self.input(turn, gate, quant, n, p.width, plan.proj.is_quantized())?;
            let out = [(Shares(h.as_mut_ptr()), d)];
            self.multiply(turn, std::slice::from_ref(&plan.proj), &plan.proj_tasks, &input, &out)?;
            let (x, h) = (Shares(x[..n * d].as_mut_ptr()), Shares(h[..n * d].as_mut_ptr()));
            // SAFETY: row r of x and h; rows are disjoint.
            self.by_rows(turn, n, d, &|r| unsafe {
                vector::rms_norm(isa, h.at(r * d), plan.post_norm.as_ptr(), h.at(r * d), d, eps);
                vector::add(isa, x.at(r * d), h.at(r * d), 1.0, d);
            })?;
        }
        let scale = self.config.layers[index].out_scale;
        if scale != 1.0 {
            s.x[..n * d].iter_mut().for_each(|x| *x *= scale);
        }
        Ok(())
    }
}
