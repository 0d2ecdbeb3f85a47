//! What crosses to the kernels of mixers with a state, and of gated attention.

use std::mem::{offset_of, size_of};

use super::Number;
use crate::backend::cuda::driver::Address;

structs! {
    /// Rows of a sequence in a pass of prompts.
    Span is KgSpan {
        kept: Address,
        keeps: Address,
        row0: u32,
        n_rows: u32,
    }

    /// Whose rows they are in layers that keep a state.
    Spans is KgSpans {
        state: Address,
        spans: Address,
        n: u32,
        n_rows: u32,
        at: u64,
    }

    /// A convolution over the tokens of sequences.
    Convolve is KgConvolve {
        of: Spans,
        x: Address,
        times: Address,
        gate: Address,
        w: Address,
        bias: Address,
        y: Address,
        row: Address,
        out: Address,
        out_lo: Address,
        betas: Address,
        decays: Address,
        a: Address,
        dt: Address,
        channels: u32,
        len: u32,
        x_stride: u32,
        y_stride: u32,
        out_stride: u32,
        n_gates: u32,
        gates_stride: u32,
        activation: u32,
        by_steps: u32,
    }

    /// A gated delta rule over the tokens of sequences.
    Delta is KgDelta {
        of: Spans,
        y: Address,
        betas: Address,
        decays: Address,
        z: Address,
        norm: Address,
        o: Address,
        row: Address,
        out: Address,
        out_lo: Address,
        k_heads: u32,
        v_heads: u32,
        k_dim: u32,
        v_dim: u32,
        y_stride: u32,
        gates_stride: u32,
        z_stride: u32,
        out_stride: u32,
        tiled: u32,
        eps: f32,
    }

    /// A Mamba2 over the tokens of sequences.
    Scan is KgScan {
        of: Spans,
        y: Address,
        steps: Address,
        decays: Address,
        d: Address,
        o: Address,
        heads: u32,
        head_dim: u32,
        groups: u32,
        d_state: u32,
        y_stride: u32,
        gates_stride: u32,
    }

    /// What attention has mixed, times a gate.
    GateMix is KgGateMix {
        gate: Address,
        row: Address,
        out: Address,
        out_lo: Address,
        n_rows: u32,
        n: u32,
        gate_stride: u32,
        stride: u32,
    }
}
