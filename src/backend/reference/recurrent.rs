//! Mixers with a state, of one token: see `model::Recurrent` for what they compute.
//!
//! Shapes: `D = n_embd`, `C` channels of a convolution, `N` heads with a state of `K` by `V` elements, `G` groups of such heads.

use super::forward::{Network, State, Tap};
use super::load::Recurrent as Weights;
use super::math::{activation, dot, linear, rms_norm_in_place};
use super::mixing::Mixing;
use crate::error::{Error, Result};
use crate::model::{Activation, DeltaNet, Mamba2, Recurrent, ShortConv, sigmoid};

/// `out = conv(input)` of one token, whose column becomes the last of those that are kept.
fn convolve(out: &mut [f32], columns: &mut [f32], weights: &Weights, input: &[f32]) {
    let (channels, len) = (out.len(), weights.conv.cols);
    for (c, out) in out.iter_mut().enumerate() {
        let row = weights.conv.row(c); // [len]
        let kept = (0..len - 1).map(|j| row[j] as f64 * columns[j * channels + c] as f64).sum::<f64>();
        *out = (kept + row[len - 1] as f64 * input[c] as f64) as f32;
    }
    columns.copy_within(channels.min(columns.len()).., 0);
    let last = columns.len() - channels;
    columns[last..].copy_from_slice(input);
}

impl Network {
    /// `s.out += mixer(s.h)`.
    pub fn recurrent(&self, layer: usize, mixer: &Recurrent, s: &mut State, tap: Tap<'_>) -> Result<()> {
        let Some(weights) = &self.layers[layer].recurrent else {
            return Err(Error::Internal { message: format!("layer {layer} has no weights of a mixer with a state") });
        };
        match mixer {
            Recurrent::ShortConv(conv) => self.short_conv(layer, conv, weights, s, tap),
            Recurrent::DeltaNet(net) => self.delta_net(layer, net, weights, s, tap)?,
            Recurrent::Mamba2(net) => self.mamba2(layer, net, weights, s, tap)?,
        }
        let Mixing { mix, out, .. } = &mut s.mixing;
        let mix = &mix[..mixer.out_width()];
        linear(out, &weights.output, mix, None); // [D] = [D, W] [W]
        s.out.iter_mut().zip(&*out).for_each(|(sum, &out)| *sum += out); // [D]
        Ok(())
    }

    /// The layer's part of the sequence's state.
    fn kept<'a>(&self, layer: usize, len: usize, state: &'a mut [f32]) -> &'a mut [f32] {
        let start = self.state_starts[layer];
        &mut state[start..start + len]
    }

    fn short_conv(&self, layer: usize, c: &ShortConv, weights: &Weights, s: &mut State, tap: Tap<'_>) {
        let (n, width) = (layer as i32, c.width);
        let Mixing { state, input, conv, mix, .. } = &mut s.mixing;
        linear(&mut input[..3 * width], &weights.input, &s.h, None); // [3 C] = [3 C, D] [D]
        let (b, rest) = input.split_at_mut(width);
        let (gate, x) = rest.split_at_mut(width);
        tap("gate", n, gate);
        x[..width].iter_mut().zip(&*b).for_each(|(x, &b)| *x = (*x as f64 * b as f64) as f32); // [C]
        let columns = self.kept(layer, (c.len - 1) * width, state);
        convolve(&mut conv[..width], columns, weights, &x[..width]);
        tap("conv", n, &conv[..width]);
        for ((mix, &gate), &conv) in mix.iter_mut().zip(&*gate).zip(&conv[..width]) {
            *mix = (gate as f64 * conv as f64) as f32; // [C]
        }
    }

    fn delta_net(&self, layer: usize, d: &DeltaNet, weights: &Weights, s: &mut State, tap: Tap<'_>) -> Result<()> {
        let n = layer as i32;
        let Weights { gate: Some(w_gate), beta: Some(w_beta), alpha: Some(w_alpha), .. } = weights else {
            return Err(Error::Internal { message: format!("layer {layer} lacks matrices of a DeltaNet") });
        };
        let (Some(a), Some(dt), Some(norm)) = (&weights.a, &weights.dt, &weights.norm) else {
            return Err(Error::Internal { message: format!("layer {layer} lacks vectors of a DeltaNet") });
        };
        let (channels, keys) = (2 * d.k_width() + d.v_width(), d.k_width());
        let Mixing { state, input, conv, mix, gate, beta, decay, delta, .. } = &mut s.mixing;
        let (input, conv) = (&mut input[..channels], &mut conv[..channels]);
        let (mix, gate) = (&mut mix[..d.v_width()], &mut gate[..d.v_width()]);
        let (beta, decay) = (&mut beta[..d.v_heads], &mut decay[..d.v_heads]);
        linear(input, &weights.input, &s.h, None); // [C] = [C, D] [D]
        linear(gate, w_gate, &s.h, None); // [N V] = [N V, D] [D]
        linear(beta, w_beta, &s.h, None); // [N] = [N, D] [D]
        linear(decay, w_alpha, &s.h, None); // [N] = [N, D] [D]
        beta.iter_mut().for_each(|beta| *beta = sigmoid(*beta as f64) as f32); // [N]
        for ((decay, &a), &dt) in decay.iter_mut().zip(a).zip(dt) {
            *decay = DeltaNet::decay(a, *decay as f64 + dt as f64) as f32; // [N]
        }
        let kept = self.kept(layer, (d.len - 1) * channels + d.v_width() * d.k_dim, state);
        let (columns, matrices) = kept.split_at_mut((d.len - 1) * channels);
        convolve(conv, columns, weights, input);
        conv.iter_mut().for_each(|x| *x = activation(*x, None, Activation::Silu) as f32); // [C]
        tap("conv", n, conv);
        tap("gate", n, gate);
        tap("beta", n, beta);
        tap("decay", n, decay);
        let eps = self.config.norm_eps as f64;
        let (q, k) = conv[..2 * keys].split_at_mut(keys);
        for (heads, scale) in [(q, (d.k_dim as f64).sqrt()), (k, 1.0)] {
            for head in heads.chunks_exact_mut(d.k_dim) {
                let size = (dot(head, head) + eps).sqrt() * scale;
                head.iter_mut().for_each(|x| *x = (*x as f64 / size) as f32); // [K]
            }
        }
        for (head, matrix) in matrices.chunks_exact_mut(d.k_dim * d.v_dim).enumerate() {
            let at = d.key_head(head) * d.k_dim;
            let (q, k) = (&conv[at..at + d.k_dim], &conv[keys + at..keys + at + d.k_dim]); // [K]
            let v = &conv[2 * keys + head * d.v_dim..][..d.v_dim]; // [V]
            let out = &mut mix[head * d.v_dim..][..d.v_dim]; // [V]
            step(matrix, q, k, v, (beta[head], decay[head]), &mut delta[..d.v_dim], out);
        }
        tap("mix_state", n, mix);
        for (head, gate) in mix.chunks_exact_mut(d.v_dim).zip(gate.chunks_exact(d.v_dim)) {
            rms_norm_in_place(head, norm, self.config.norm_eps); // [V]
            for (x, &gate) in head.iter_mut().zip(gate) {
                *x = (*x as f64 * activation(gate, None, Activation::Silu)) as f32; // [V]
            }
        }
        Ok(())
    }

    fn mamba2(&self, layer: usize, m: &Mamba2, weights: &Weights, s: &mut State, tap: Tap<'_>) -> Result<()> {
        let n = layer as i32;
        let Weights { gate: Some(w_gate), beta: Some(w_step), a: Some(a), dt: Some(bias), d: Some(d), .. } = weights
        else {
            return Err(Error::Internal { message: format!("layer {layer} lacks tensors of a Mamba2") });
        };
        let (width, of_groups) = (m.width(), m.group_width());
        let channels = width + 2 * of_groups;
        let Mixing { state, input, conv, mix, gate, beta, decay, .. } = &mut s.mixing;
        let (input, conv) = (&mut input[..channels], &mut conv[..channels]);
        let (mix, gate) = (&mut mix[..width], &mut gate[..width]);
        let (dt, decay) = (&mut beta[..m.heads], &mut decay[..m.heads]);
        linear(gate, w_gate, &s.h, None); // [N V] = [N V, D] [D]
        linear(input, &weights.input, &s.h, None); // [C] = [C, D] [D]
        linear(dt, w_step, &s.h, None); // [N] = [N, D] [D]
        for (head, (dt, decay)) in dt.iter_mut().zip(&mut *decay).enumerate() {
            let step = Mamba2::step(a[head], *dt as f64 + bias[head] as f64);
            (*dt, *decay) = (step.0 as f32, step.1 as f32); // [N]
        }
        let kept = self.kept(layer, (m.len - 1) * channels + width * m.d_state, state);
        let (columns, matrices) = kept.split_at_mut((m.len - 1) * channels);
        convolve(conv, columns, weights, input);
        for (c, x) in conv.iter_mut().enumerate() {
            let biased = (*x as f64 + weights.conv_bias.as_ref().map_or(0.0, |bias| bias[c] as f64)) as f32;
            *x = activation(biased, None, Activation::Silu) as f32; // [C]
        }
        tap("conv", n, conv);
        tap("gate", n, gate);
        tap("beta", n, dt);
        tap("decay", n, decay);
        for (head, matrix) in matrices.chunks_exact_mut(m.d_state * m.head_dim).enumerate() {
            let at = width + m.group(head) * m.d_state;
            let (b, c) = (&conv[at..at + m.d_state], &conv[at + of_groups..at + of_groups + m.d_state]); // [K]
            let x = &conv[head * m.head_dim..][..m.head_dim]; // [V]
            let out = &mut mix[head * m.head_dim..][..m.head_dim]; // [V]
            scan(matrix, (b, c), x, (dt[head], decay[head], d[head]), out);
        }
        tap("mix_state", n, mix);
        for (x, &gate) in mix.iter_mut().zip(&*gate) {
            *x = (*x as f64 * activation(gate, None, Activation::Silu)) as f32; // [N V]
        }
        if let Some(norm) = &weights.norm {
            let of_group = width / m.groups;
            for (group, norm) in mix.chunks_exact_mut(of_group).zip(norm.chunks_exact(of_group)) {
                rms_norm_in_place(group, norm, self.config.norm_eps); // [N V / G]
            }
        }
        Ok(())
    }
}

/// One token through the state `[K, V]` of one head of a Mamba2; `out` is what is read of it, and `d x`.
fn scan(matrix: &mut [f32], (b, c): (&[f32], &[f32]), x: &[f32], (dt, decay, d): (f32, f32, f32), out: &mut [f32]) {
    let n = x.len();
    for (row, &b) in matrix.chunks_exact_mut(n).zip(b) {
        for (s, &x) in row.iter_mut().zip(x) {
            *s = (*s as f64 * decay as f64 + b as f64 * dt as f64 * x as f64) as f32;
        }
    }
    for (i, out) in out.iter_mut().enumerate() {
        let read = matrix.chunks_exact(n).zip(c).map(|(row, &c)| row[i] as f64 * c as f64).sum::<f64>();
        *out = (read + d as f64 * x[i] as f64) as f32; // [V]
    }
}

/// One token through the state `[K, V]` of one head; `out` is what is read of it.
fn step(
    matrix: &mut [f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    (beta, decay): (f32, f32),
    delta: &mut [f64],
    out: &mut [f32],
) {
    let n = v.len();
    delta.fill(0.0);
    for (row, &k) in matrix.chunks_exact_mut(n).zip(k) {
        for (delta, x) in delta.iter_mut().zip(row) {
            *x = (*x as f64 * decay as f64) as f32;
            *delta += *x as f64 * k as f64; // [V]
        }
    }
    for (delta, &v) in delta.iter_mut().zip(v) {
        *delta = beta as f64 * (v as f64 - *delta); // [V]
    }
    for (row, &k) in matrix.chunks_exact_mut(n).zip(k) {
        row.iter_mut().zip(&*delta).for_each(|(x, delta)| *x = (*x as f64 + k as f64 * delta) as f32);
    }
    for (i, out) in out.iter_mut().enumerate() {
        *out = matrix.chunks_exact(n).zip(q).map(|(row, &q)| row[i] as f64 * q as f64).sum::<f64>() as f32; // [V]
    }
}
