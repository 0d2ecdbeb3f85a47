//! What a Mamba2 computes, of all rows of a round: see `model::Recurrent`.

use super::activation::activate;
use super::delta::{Scan, scan};
use super::forward::{CpuModel, Piece, Scratch, tap};
use super::mixing::Mixing;
use super::plan::RecurrentPlan;
use super::recurrent::state_at;
use super::threads::{Shares, Turn};
use super::vector;
use crate::backend::RunControl;
use crate::error::Result;
use crate::model::{Activation, Mamba2};

impl CpuModel {
    /// `mix = silu(z) * y`, normalized by group where there is a norm.
    pub(super) fn mamba2(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        m: &Mamba2,
        plan: &RecurrentPlan,
        (index, n, pieces): (usize, usize, &[Piece]),
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        let (tag, isa) = (index as i32, self.isa);
        let (width, of_groups) = (m.width(), m.group_width());
        let channels = width + 2 * of_groups;
        let Scratch { mix, mixing, .. } = &mut *s;
        let x = mixing.input[..n * channels].as_ptr();
        let conv = Shares(mixing.conv[..n * channels].as_mut_ptr());
        self.convolve(turn, (channels, m.len), plan, (x, channels), conv, (index, pieces))?;
        // SAFETY: row `row` of the convolution, sliced above; the bias is as wide.
        self.by_rows(turn, n, channels, &|row| unsafe {
            let row = conv.at(row * channels);
            if let Some(bias) = &plan.conv_bias {
                vector::add(isa, row, bias.as_ptr(), 1.0, channels);
            }
            activate(isa, Activation::Silu, row, None, channels);
        })?;
        self.steps(turn, mixing, m, plan, n)?;
        tap(run, pieces, "conv", tag, channels, &mixing.conv);
        tap(run, pieces, "gate", tag, width, &mixing.gate);
        tap(run, pieces, "beta", tag, m.heads, &mixing.beta);
        tap(run, pieces, "decay", tag, m.heads, &mixing.decay);
        let start = self.state_starts[index] + (m.len - 1) * channels;
        let (dt, decay) = (&mixing.beta[..n * m.heads], &mixing.decay[..n * m.heads]);
        let out = Shares(mix[..n * width].as_mut_ptr());
        turn.run(pieces.len() * m.heads, &|i| {
            let (piece, head) = (&pieces[i / m.heads], i % m.heads);
            let (from, to) = state_at(piece, start + head * m.d_state * m.head_dim);
            let (row, at) = (piece.row, head * m.head_dim);
            // SAFETY: the head's part of the piece's rows, and of its sequence's state, is this chunk's.
            unsafe {
                let x = conv.at(row * channels).cast_const();
                let group = x.add(width + m.group(head) * m.d_state);
                let head = Scan {
                    d_state: m.d_state,
                    head_dim: m.head_dim,
                    from,
                    to,
                    x: x.add(at),
                    b: group,
                    c: group.add(of_groups),
                    stride: channels,
                    dt: dt.as_ptr().add(row * m.heads + head),
                    decay: decay.as_ptr().add(row * m.heads + head),
                    heads: m.heads,
                    d: plan.d[head],
                    out: out.at(row * width + at),
                    out_stride: width,
                    n: piece.len(),
                };
                scan(isa, head);
            }
        })?;
        tap(run, pieces, "mix_state", tag, width, mix);
        self.gate_groups(turn, s, m, plan, n)
    }

    /// `mix = silu(z) * mix` of each row, and its norm.
    fn gate_groups(&self, turn: &Turn<'_>, s: &mut Scratch, m: &Mamba2, plan: &RecurrentPlan, n: usize) -> Result<()> {
        let (isa, eps, width) = (self.isa, self.config.norm_eps, m.width());
        let of_group = width / m.groups;
        let Scratch { mix, mixing, .. } = &mut *s;
        let (mix, gate) = (Shares(mix[..n * width].as_mut_ptr()), Shares(mixing.gate[..n * width].as_mut_ptr()));
        // SAFETY: row `row` of both, sliced above; the norm is as wide.
        self.by_rows(turn, n, 2 * width, &|row| unsafe {
            let (mix, gate) = (mix.at(row * width), gate.at(row * width));
            activate(isa, Activation::Silu, gate, Some(mix.cast_const()), width);
            if plan.norm.is_empty() {
                std::ptr::copy_nonoverlapping(gate, mix, width);
                return;
            }
            for at in (0..width).step_by(of_group) {
                vector::rms_norm(isa, gate.add(at), plan.norm[at..].as_ptr(), mix.add(at), of_group, eps);
            }
        })
    }

    /// The time steps, in `beta`, and decays of what the matrices have made of each row.
    fn steps(&self, turn: &Turn<'_>, mixing: &mut Mixing, m: &Mamba2, plan: &RecurrentPlan, n: usize) -> Result<()> {
        let heads = m.heads;
        let dt = Shares(mixing.beta[..n * heads].as_mut_ptr());
        let decay = Shares(mixing.decay[..n * heads].as_mut_ptr());
        self.by_rows(turn, n, 2 * heads, &|row| {
            // SAFETY: row `row` of both, sliced above.
            let (dt, decay) = unsafe {
                let dt = std::slice::from_raw_parts_mut(dt.at(row * heads), heads);
                (dt, std::slice::from_raw_parts_mut(decay.at(row * heads), heads))
            };
            for (((dt, decay), a), bias) in dt.iter_mut().zip(decay).zip(&plan.a).zip(&plan.dt) {
                let step = Mamba2::step(*a, f64::from(*dt) + f64::from(*bias));
                (*dt, *decay) = (step.0 as f32, step.1 as f32);
            }
        })
    }
}
