//! What is done with the rows of a round between the matrices, and the matrices themselves, shared among the threads.

use super::forward::{CpuModel, Scratch};
use super::linear::{Input, Matrix};
use super::plan::{NormWeights, Task};
use super::simd::XBlock;
use super::threads::{Shares, Turn};
use super::vector;
use crate::error::Result;
use crate::model::Block;

/// So many elements are work for more than one thread: what one does in the microseconds that it takes to start a job.
const SHARED_ELEMENTS: usize = 1 << 15;

impl CpuModel {
    /// Blocks of rows of `cols` for work that is cheap an element: one chunk where it is not worth sharing.
    pub(super) fn by_rows(&self, turn: &Turn<'_>, n: usize, cols: usize, body: &(dyn Fn(usize) + Sync)) -> Result<()> {
        if n * cols < SHARED_ELEMENTS {
            (0..n).for_each(body);
            return Ok(());
        }
        let step = n.div_ceil(4 * turn.n_threads());
        turn.run(n.div_ceil(step), &|i| (i * step..((i + 1) * step).min(n)).for_each(body))
    }

    /// `out = norm(x)` of `n` rows, or `x` where there is no norm.
    pub(super) fn norm(
        &self,
        turn: &Turn<'_>,
        x: &[f32],
        norm: Option<&NormWeights>,
        out: &mut [f32],
        n: usize,
    ) -> Result<()> {
        let (d, isa, eps, kind) = (self.config.n_embd, self.isa, self.config.norm_eps, self.config.norm);
        let (x, out) = (&x[..n * d], &mut out[..n * d]);
        let Some(NormWeights { weight, bias }) = norm else {
            out.copy_from_slice(x);
            return Ok(());
        };
        debug_assert!(weight.len() == d && bias.as_ref().is_none_or(|b| b.len() == d));
        let out = Shares(out.as_mut_ptr());
        // SAFETY: row r of both, sliced above; rows are disjoint.
        self.by_rows(turn, n, d, &|r| unsafe {
            vector::norm(isa, kind, x.as_ptr().add(r * d), weight.as_ptr(), out.at(r * d), d, eps);
            if let Some(bias) = bias {
                vector::add(isa, out.at(r * d), bias.as_ptr(), 1.0, d);
            }
        })
    }

    /// `x = rms_norm(x) * weight` of `n` rows as long as the weight.
    pub(super) fn rms_norm(&self, turn: &Turn<'_>, x: &mut [f32], weight: &[f32], n: usize) -> Result<()> {
        let (d, isa, eps) = (weight.len(), self.isa, self.config.norm_eps);
        let x = Shares(x[..n * d].as_mut_ptr());
        // SAFETY: row r, sliced above; rows are disjoint.
        self.by_rows(turn, n, d, &|r| unsafe {
            vector::rms_norm(isa, x.at(r * d), weight.as_ptr(), x.at(r * d), d, eps);
        })
    }

    /// `h += bias` of `n` rows.
    pub(super) fn bias(&self, turn: &Turn<'_>, h: &mut [f32], bias: Option<&[f32]>, n: usize) -> Result<()> {
        let Some(bias) = bias else { return Ok(()) };
        let (d, isa) = (bias.len(), self.isa);
        let h = Shares(h[..n * d].as_mut_ptr());
        // SAFETY: row r, sliced above; rows are disjoint.
        self.by_rows(turn, n, d, &|r| unsafe { vector::add(isa, h.at(r * d), bias.as_ptr(), 1.0, d) })
    }

    /// `x += residual_scale * h`, `h` normalized first where the layer has a norm there; behind a parallel block's
    /// feed-forward part `aside` is a part of `h`.
    pub(super) fn residual(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        post: Option<&[f32]>,
        block: Block,
        n: usize,
    ) -> Result<()> {
        let (d, isa, eps, scale) = (self.config.n_embd, self.isa, self.config.norm_eps, self.config.residual_scale);
        let (x, h) = (Shares(s.x[..n * d].as_mut_ptr()), Shares(s.h[..n * d].as_mut_ptr()));
        let aside = &s.aside[..n * d];
        // SAFETY: row r of x, h and aside; rows are disjoint.
        self.by_rows(turn, n, d, &|r| unsafe {
            if let Some(w) = post {
                vector::rms_norm(isa, h.at(r * d), w.as_ptr(), h.at(r * d), d, eps);
            }
            if block == Block::Parallel {
                vector::add(isa, h.at(r * d), aside.as_ptr().add(r * d), 1.0, d);
            }
            vector::add(isa, x.at(r * d), h.at(r * d), scale, d);
        })
    }

    /// `h` becomes what all mixers of a layer have made: that of attention, if there is one, and of one with a state.
    pub(super) fn add_mixers(&self, turn: &Turn<'_>, s: &mut Scratch, index: usize, n: usize) -> Result<()> {
        let layer = &self.config.layers[index];
        if layer.recurrent.is_none() {
            return Ok(());
        }
        if !layer.attention().is_there() {
            std::mem::swap(&mut s.h, &mut s.mixing.out);
            return Ok(());
        }
        let (d, isa) = (self.config.n_embd, self.isa);
        let (h, out) = (Shares(s.h[..n * d].as_mut_ptr()), &s.mixing.out[..n * d]);
        // SAFETY: row r of both, sliced above; rows are disjoint.
        self.by_rows(turn, n, d, &|r| unsafe { vector::add(isa, h.at(r * d), out.as_ptr().add(r * d), 1.0, d) })
    }

    /// Keeps `h`, what the mixer of a parallel block adds, until the feed-forward part has read the stream too.
    pub(super) fn set_aside(&self, turn: &Turn<'_>, s: &mut Scratch, post: Option<&[f32]>, n: usize) -> Result<()> {
        let (d, isa, eps) = (self.config.n_embd, self.isa, self.config.norm_eps);
        if let Some(w) = post {
            let h = Shares(s.h[..n * d].as_mut_ptr());
            // SAFETY: row r of h; rows are disjoint.
            self.by_rows(turn, n, d, &|r| unsafe {
                vector::rms_norm(isa, h.at(r * d), w.as_ptr(), h.at(r * d), d, eps);
            })?;
        }
        std::mem::swap(&mut s.h, &mut s.aside);
        Ok(())
    }

    /// `n` rows as a matrix input, quantized if need be.
    pub(super) fn input<'a>(
        &self,
        turn: &Turn<'_>,
        float: &'a [f32],
        quant: &'a mut [XBlock],
        n: usize,
        cols: usize,
        needs_quant: bool,
    ) -> Result<Input<'a>> {
        let (float, blocks) = (&float[..n * cols], cols / 32);
        if !needs_quant {
            return Ok(Input { n, float, quant: &[] });
        }
        let quant = &mut quant[..n * blocks];
        let isa = self.isa;
        let out = Shares(quant.as_mut_ptr());
        // SAFETY: row r of both; rows are disjoint.
        self.by_rows(turn, n, cols, &|r| unsafe {
            vector::quantize(isa, float.as_ptr().add(r * cols), out.at(r * blocks), cols);
        })?;
        Ok(Input { n, float, quant })
    }

    /// Runs the tasks of a stage; `outs` are the destinations and their strides.
    pub(super) fn multiply(
        &self,
        turn: &Turn<'_>,
        matrices: &[Matrix],
        tasks: &[Task],
        input: &Input<'_>,
        outs: &[(Shares<f32>, usize)],
    ) -> Result<()> {
        let isa = self.isa;
        turn.run(tasks.len(), &|i| {
            let t = tasks[i];
            let (out, stride) = outs[t.which];
            // SAFETY: the destinations hold `input.n` rows of `stride`; tasks cover disjoint rows of the matrices.
            unsafe { matrices[t.which].mul(isa, t.first, t.last, input, out.at(0), stride) };
        })
    }
}
