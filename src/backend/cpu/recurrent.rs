//! What mixers with a state compute, of all rows of a round: see `model::Recurrent`.
//!
//! Matrices are multiplied with all rows at once, as everywhere; the state goes through a sequence's rows one after the other, its
//! heads and channels side by side. So its bits depend neither on how a prompt is cut nor on what is computed beside it.

use super::activation::activate;
use super::cache::PageAddress;
use super::delta::{Conv, Head, convolve, delta_rule, l2_norm};
use super::forward::{CpuModel, Piece, Scratch, tap};
use super::linear::Matrix;
use super::mixing::Mixing;
use super::plan::RecurrentPlan;
use super::threads::{Shares, Turn};
use super::vector;
use crate::backend::RunControl;
use crate::error::{Error, Result};
use crate::model::{Activation, DeltaNet, Recurrent, ShortConv, sigmoid};

/// Channels that one thread convolves at a time.
const CHANNELS: usize = 512;

/// The part of a sequence's state that begins at an element: before a piece, null where that is zeros, and behind it.
pub(super) fn state_at(piece: &Piece, start: usize) -> (*const f32, *mut f32) {
    let at = |PageAddress(state): PageAddress| {
        if state.is_null() { state.cast() } else { state.cast::<f32>().wrapping_add(start) }
    };
    (at(piece.state.0), at(piece.state.1).cast_mut())
}

impl CpuModel {
    /// `mixing.out = mixer(h)`, of all rows.
    pub(super) fn recurrent(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        mixer: &Recurrent,
        index: usize,
        pieces: &[Piece],
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        let Some(plan) = &self.layers[index].recurrent else {
            return Err(Error::Internal { message: format!("layer {index} has no weights of a mixer with a state") });
        };
        let n = pieces.iter().map(|p| p.len()).sum::<usize>();
        let (d, width) = (self.config.n_embd, mixer.out_width());
        let Scratch { h, quant, mixing, .. } = &mut *s;
        let needs = plan.inputs.iter().any(Matrix::is_quantized);
        let input = self.input(turn, h, quant, n, d, needs)?;
        let outs = [
            (Shares(mixing.input.as_mut_ptr()), mixer.in_width()),
            (Shares(mixing.gate.as_mut_ptr()), width),
            (Shares(mixing.beta.as_mut_ptr()), mixer.n_gates()),
            (Shares(mixing.decay.as_mut_ptr()), mixer.n_gates()),
        ];
        self.multiply(turn, &plan.inputs, &plan.input_tasks, &input, &outs)?;
        match mixer {
            Recurrent::ShortConv(conv) => self.short_conv(turn, s, conv, plan, (index, n, pieces), run)?,
            Recurrent::DeltaNet(net) => self.delta_net(turn, s, net, plan, (index, n, pieces), run)?,
            Recurrent::Mamba2(net) => self.mamba2(turn, s, net, plan, (index, n, pieces), run)?,
        }
        let Scratch { quant, mix, mixing, .. } = &mut *s;
        let input = self.input(turn, mix, quant, n, width, plan.output.is_quantized())?;
        let out = [(Shares(mixing.out.as_mut_ptr()), d)];
        self.multiply(turn, std::slice::from_ref(&plan.output), &plan.output_tasks, &input, &out)
    }

    /// `conv` is that of `x`, which stands in rows of `stride` elements; each sequence keeps its last columns.
    pub(super) fn convolve(
        &self,
        turn: &Turn<'_>,
        (channels, len): (usize, usize),
        plan: &RecurrentPlan,
        (x, stride): (*const f32, usize),
        out: Shares<f32>,
        (index, pieces): (usize, &[Piece]),
    ) -> Result<()> {
        let (blocks, start, isa) = (channels.div_ceil(CHANNELS), self.state_starts[index], self.isa);
        let x = Shares(x.cast_mut());
        turn.run(pieces.len() * blocks, &|i| {
            let (piece, first) = (&pieces[i / blocks], i % blocks * CHANNELS);
            let last = (first + CHANNELS).min(channels);
            let (columns, to) = state_at(piece, start);
            // SAFETY: the piece's rows of x and out, and these channels of its sequence's state, are this chunk's.
            unsafe {
                let (weights, x) = (plan.conv.as_ptr(), x.at(piece.row * stride).cast_const());
                let conv = Conv { channels, len, weights, columns, x, stride, n: piece.len() };
                convolve(isa, conv, first, last, out.at(piece.row * channels));
                conv.keep(to, first..last);
            }
        })
    }

    /// `mix = c * conv(b * x)`.
    fn short_conv(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        c: &ShortConv,
        plan: &RecurrentPlan,
        (index, n, pieces): (usize, usize, &[Piece]),
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        let (width, tag) = (c.width, index as i32);
        let Scratch { mix, mixing, .. } = &mut *s;
        let input = Shares(mixing.input[..3 * n * width].as_mut_ptr());
        let gate = Shares(mixing.gate[..n * width].as_mut_ptr());
        self.by_rows(turn, n, 3 * width, &|row| {
            // SAFETY: row `row` of both, sliced above.
            let (b, rest, gate) = unsafe {
                let b = std::slice::from_raw_parts(input.at(3 * row * width), width);
                let rest = std::slice::from_raw_parts_mut(input.at((3 * row + 1) * width), 2 * width);
                (b, rest, std::slice::from_raw_parts_mut(gate.at(row * width), width))
            };
            let (c, x) = rest.split_at_mut(width);
            gate.copy_from_slice(c);
            x.iter_mut().zip(b).for_each(|(x, b)| *x *= b);
        })?;
        tap(run, pieces, "gate", tag, width, &mixing.gate);
        let out = Shares(mixing.conv[..n * width].as_mut_ptr());
        // SAFETY: inside of the rows.
        let x = unsafe { input.at(2 * width) }.cast_const();
        self.convolve(turn, (width, c.len), plan, (x, 3 * width), out, (index, pieces))?;
        tap(run, pieces, "conv", tag, width, &mixing.conv);
        let (mix, gate, conv) =
            (Shares(mix[..n * width].as_mut_ptr()), &mixing.gate[..n * width], &mixing.conv[..n * width]);
        self.by_rows(turn, n, width, &|row| {
            // SAFETY: row `row`, sliced above.
            let mix = unsafe { std::slice::from_raw_parts_mut(mix.at(row * width), width) };
            let parts = gate[row * width..].iter().zip(&conv[row * width..]);
            mix.iter_mut().zip(parts).for_each(|(mix, (gate, conv))| *mix = gate * conv);
        })
    }

    /// `mix = rms_norm(o) * silu(z)`.
    fn delta_net(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        d: &DeltaNet,
        plan: &RecurrentPlan,
        (index, n, pieces): (usize, usize, &[Piece]),
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        let (tag, isa, eps) = (index as i32, self.isa, self.config.norm_eps);
        let (channels, keys, values) = (2 * d.k_width() + d.v_width(), d.k_width(), d.v_width());
        let Scratch { mix, mixing, .. } = &mut *s;
        let x = mixing.input[..n * channels].as_ptr();
        let conv = Shares(mixing.conv[..n * channels].as_mut_ptr());
        self.convolve(turn, (channels, d.len), plan, (x, channels), conv, (index, pieces))?;
        self.gates(turn, mixing, d, plan, n)?;
        // SAFETY: row `row` of the convolution, sliced above.
        self.by_rows(turn, n, channels, &|row| unsafe {
            activate(isa, Activation::Silu, conv.at(row * channels), None, channels);
        })?;
        tap(run, pieces, "conv", tag, channels, &mixing.conv);
        tap(run, pieces, "gate", tag, values, &mixing.gate);
        tap(run, pieces, "beta", tag, d.v_heads, &mixing.beta);
        tap(run, pieces, "decay", tag, d.v_heads, &mixing.decay);
        // SAFETY: the heads of queries and keys of row `row`.
        self.by_rows(turn, n, 2 * keys, &|row| unsafe {
            for head in 0..2 * d.k_heads {
                let divisor = if head < d.k_heads { (d.k_dim as f32).sqrt() } else { 1.0 };
                l2_norm(isa, conv.at(row * channels + head * d.k_dim), d.k_dim, eps, divisor);
            }
        })?;
        let (conv, start) = (conv, self.state_starts[index] + (d.len - 1) * channels);
        let (beta, decay) = (&mixing.beta[..n * d.v_heads], &mixing.decay[..n * d.v_heads]);
        let out = Shares(mix[..n * values].as_mut_ptr());
        turn.run(pieces.len() * d.v_heads, &|i| {
            let (piece, head) = (&pieces[i / d.v_heads], i % d.v_heads);
            let (from, to) = state_at(piece, start + head * d.k_dim * d.v_dim);
            let (row, at) = (piece.row, d.key_head(head) * d.k_dim);
            // SAFETY: the head's part of the piece's rows, and of its sequence's state, is this chunk's.
            unsafe {
                let rows = conv.at(row * channels).cast_const();
                let head = Head {
                    k_dim: d.k_dim,
                    v_dim: d.v_dim,
                    from,
                    to,
                    q: rows.add(at),
                    k: rows.add(keys + at),
                    v: rows.add(2 * keys + head * d.v_dim),
                    stride: channels,
                    beta: beta.as_ptr().add(row * d.v_heads + head),
                    decay: decay.as_ptr().add(row * d.v_heads + head),
                    gates: d.v_heads,
                    out: out.at(row * values + head * d.v_dim),
                    out_stride: values,
                    n: piece.len(),
                };
                delta_rule(isa, head);
            }
        })?;
        tap(run, pieces, "mix_state", tag, values, mix);
        let gate = Shares(mixing.gate[..n * values].as_mut_ptr());
        // SAFETY: the heads of row `row` of both; the norm is as wide as a head.
        self.by_rows(turn, n, 2 * values, &|row| unsafe {
            for head in 0..d.v_heads {
                let at = row * values + head * d.v_dim;
                vector::rms_norm(isa, out.at(at), plan.norm.as_ptr(), out.at(at), d.v_dim, eps);
                activate(isa, Activation::Silu, gate.at(at), Some(out.at(at).cast_const()), d.v_dim);
                std::ptr::copy_nonoverlapping(gate.at(at), out.at(at), d.v_dim);
            }
        })
    }

    /// `beta` and `decay` of what the matrices have made of each row.
    fn gates(&self, turn: &Turn<'_>, mixing: &mut Mixing, d: &DeltaNet, plan: &RecurrentPlan, n: usize) -> Result<()> {
        let heads = d.v_heads;
        let beta = Shares(mixing.beta[..n * heads].as_mut_ptr());
        let decay = Shares(mixing.decay[..n * heads].as_mut_ptr());
        self.by_rows(turn, n, 2 * heads, &|row| {
            // SAFETY: row `row` of both, sliced above.
            let (beta, decay) = unsafe {
                let beta = std::slice::from_raw_parts_mut(beta.at(row * heads), heads);
                (beta, std::slice::from_raw_parts_mut(decay.at(row * heads), heads))
            };
            beta.iter_mut().for_each(|beta| *beta = sigmoid(f64::from(*beta)) as f32);
            for ((decay, a), dt) in decay.iter_mut().zip(&plan.a).zip(&plan.dt) {
                *decay = DeltaNet::decay(*a, f64::from(*decay) + f64::from(*dt)) as f32;
            }
        })
    }

    /// `gate = Wgate h`, of all rows, where the attention is gated.
    pub(super) fn attention_gate(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        index: usize,
        width: usize,
        pieces: &[Piece],
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        let Some((matrix, tasks)) = &self.layers[index].q_gate else { return Ok(()) };
        let n = pieces.iter().map(|p| p.len()).sum::<usize>();
        let Scratch { h, quant, mixing, .. } = &mut *s;
        let input = self.input(turn, h, quant, n, self.config.n_embd, matrix.is_quantized())?;
        let out = [(Shares(mixing.gate.as_mut_ptr()), width)];
        self.multiply(turn, std::slice::from_ref(matrix), tasks, &input, &out)?;
        tap(run, pieces, "gate", index as i32, width, &mixing.gate);
        Ok(())
    }

    /// `mix *= sigmoid(gate)`, of all rows, where the attention is gated.
    pub(super) fn gate_mix(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        index: usize,
        width: usize,
        n: usize,
    ) -> Result<()> {
        if self.layers[index].q_gate.is_none() {
            return Ok(());
        }
        let Scratch { mix, mixing, .. } = &mut *s;
        let (mix, gate) = (Shares(mix[..n * width].as_mut_ptr()), &mixing.gate[..n * width]);
        self.by_rows(turn, n, width, &|row| {
            // SAFETY: row `row`, sliced above.
            let mix = unsafe { std::slice::from_raw_parts_mut(mix.at(row * width), width) };
            for (mix, gate) in mix.iter_mut().zip(&gate[row * width..]) {
                *mix *= sigmoid(f64::from(*gate)) as f32;
            }
        })
    }
}
