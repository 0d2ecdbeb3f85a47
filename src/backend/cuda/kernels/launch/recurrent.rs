//! Mixers with a state, and the gate of attention. Their launchers, as C sees them, too.

use std::ffi::c_int;

use super::{Queue, ensure};
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::driver::sys::Handle;
use crate::backend::cuda::kernels::abi::{Convolve, DELTA_HEAD, Delta, GateMix, SCAN_STATE, Scan, Spans};
use crate::backend::cuda::kernels::kinds::Activation;
use crate::error::Result;

#[rustfmt::skip]
unsafe extern "C" {
    fn kgc_convolve(convolve: *const Convolve, stream: Handle) -> c_int;
    fn kgc_delta(delta: *const Delta, stream: Handle) -> c_int;
    fn kgc_scan(scan: *const Scan, stream: Handle) -> c_int;
    fn kgc_gate_mix(gate: *const GateMix, stream: Handle) -> c_int;
}

fn check_spans(kernel: &str, of: &Spans) -> Result<()> {
    let Spans { state, spans, n, n_rows, .. } = *of;
    ensure!(kernel, n > 0 && n <= n_rows && n_rows <= 65535, "{n_rows} rows of {n} sequences");
    ensure!(kernel, (state == 0) != (spans == 0), "sequences at {state:#x} and at {spans:#x}");
    ensure!(kernel, spans != 0 || n == n_rows, "{n_rows} rows of {n} sequences' steps");
    Ok(())
}

/// Where f32 or f16 go, and what the rounding of the latter leaves.
fn check_out(kernel: &str, (row, out, out_lo): (Address, Address, Address), stride: u32, n: u32) -> Result<()> {
    ensure!(kernel, out != 0 || out_lo == 0, "what rounding leaves of nothing");
    ensure!(kernel, (row == 0 && out == 0) || stride >= n, "{n} columns, rows {stride} apart");
    Ok(())
}

fn check_convolve(p: &Convolve) -> Result<()> {
    let Convolve { channels, len, x_stride, y_stride, n_gates, gates_stride, activation, .. } = *p;
    check_spans("convolve", &p.of)?;
    ensure!("convolve", channels > 0 && len >= 2, "{channels} channels over {len} tokens");
    let apart = x_stride >= channels && y_stride >= channels;
    ensure!("convolve", apart, "{channels} channels, rows {x_stride} and {y_stride} apart");
    ensure!("convolve", p.x != 0 && p.w != 0 && p.y != 0, "from {:#x} by {:#x} to {:#x}", p.x, p.w, p.y);
    ensure!("convolve", activation <= Activation::Relu2 as u32, "activation {activation}");
    check_out("convolve", (p.row, p.out, p.out_lo), p.out_stride, channels)?;
    let gated = p.decays != 0 && p.a != 0 && p.dt != 0 && n_gates > 0 && gates_stride >= n_gates;
    ensure!("convolve", p.betas == 0 || gated, "gates of {n_gates} heads, rows {gates_stride} apart");
    Ok(())
}

fn check_delta(p: &Delta) -> Result<()> {
    let Delta { k_heads, v_heads, k_dim, v_dim, y_stride, gates_stride, z_stride, out_stride, .. } = *p;
    check_spans("delta", &p.of)?;
    let heads = k_heads > 0 && v_heads > 0 && v_heads.is_multiple_of(k_heads);
    ensure!("delta", heads, "{v_heads} heads of values with {k_heads} of keys");
    let dims = (1..=DELTA_HEAD).contains(&k_dim) && (1..=DELTA_HEAD).contains(&v_dim);
    ensure!("delta", dims, "heads of {k_dim} and {v_dim} elements");
    let (keys, values) = (u64::from(k_heads) * u64::from(k_dim), u64::from(v_heads) * u64::from(v_dim));
    ensure!("delta", u64::from(y_stride) >= 2 * keys + values, "{keys} and {values} elements, rows {y_stride} apart");
    ensure!("delta", gates_stride >= v_heads, "gates of {v_heads} heads {gates_stride} apart");
    ensure!("delta", u64::from(z_stride) >= values, "{values} elements, rows {z_stride} apart");
    let there = [p.y, p.betas, p.decays, p.z, p.norm, p.o].iter().all(|at| *at != 0) && p.row | p.out != 0;
    ensure!("delta", there, "from {:#x}, {:#x}, {:#x} to {:#x}, {:#x}, {:#x}", p.y, p.betas, p.z, p.o, p.row, p.out);
    check_out("delta", (p.row, p.out, p.out_lo), out_stride, values.try_into().unwrap_or(u32::MAX))
}

fn check_scan(p: &Scan) -> Result<()> {
    let Scan { heads, head_dim, groups, d_state, y_stride, gates_stride, .. } = *p;
    check_spans("scan", &p.of)?;
    let whole = heads > 0 && groups > 0 && heads.is_multiple_of(groups);
    ensure!("scan", whole, "{heads} heads in {groups} groups");
    ensure!("scan", head_dim > 0 && (1..=SCAN_STATE).contains(&d_state), "heads of {head_dim} by {d_state}");
    let (width, of_groups) = (u64::from(heads) * u64::from(head_dim), u64::from(groups) * u64::from(d_state));
    ensure!("scan", u64::from(y_stride) >= width + 2 * of_groups, "{width} and {of_groups} elements {y_stride} apart");
    ensure!("scan", gates_stride >= heads, "steps of {heads} heads {gates_stride} apart");
    let there = [p.y, p.steps, p.decays, p.d, p.o].iter().all(|at| *at != 0);
    ensure!("scan", there, "from {:#x}, {:#x}, {:#x} to {:#x}", p.y, p.steps, p.d, p.o);
    Ok(())
}

fn check_gate_mix(p: &GateMix) -> Result<()> {
    let GateMix { n_rows, n, gate_stride, stride, .. } = *p;
    ensure!("gate_mix", n > 0 && (1..=65535).contains(&n_rows), "{n_rows} rows of {n}");
    ensure!("gate_mix", gate_stride >= n, "{n} columns, rows {gate_stride} apart");
    let one = (p.row == 0) != (p.out == 0);
    ensure!("gate_mix", p.gate != 0 && one, "{:#x} at {:#x} or {:#x}", p.gate, p.row, p.out);
    check_out("gate_mix", (p.row, p.out, p.out_lo), stride, n)
}

impl Queue<'_> {
    /// A convolution over the tokens of sequences. Never a dependent launch.
    pub fn convolve(&self, convolve: &Convolve) -> Result<()> {
        check_convolve(convolve)?;
        // SAFETY: the shapes were checked; the struct is read during the call.
        self.check(unsafe { kgc_convolve(convolve, self.raw()) })
    }

    /// A gated delta rule over the tokens of sequences. Never a dependent launch.
    pub fn delta(&self, delta: &Delta) -> Result<()> {
        check_delta(delta)?;
        // SAFETY: as above.
        self.check(unsafe { kgc_delta(delta, self.raw()) })
    }

    /// A Mamba2 over the tokens of sequences. Never a dependent launch.
    pub fn scan(&self, scan: &Scan) -> Result<()> {
        check_scan(scan)?;
        // SAFETY: as above.
        self.check(unsafe { kgc_scan(scan, self.raw()) })
    }

    /// What attention has mixed, times the sigmoid of a gate. Never a dependent launch.
    pub fn gate_mix(&self, gate: &GateMix) -> Result<()> {
        check_gate_mix(gate)?;
        // SAFETY: as above.
        self.check(unsafe { kgc_gate_mix(gate, self.raw()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(checked: Result<()>) -> String {
        checked.expect_err("is refused").to_string()
    }

    #[test]
    fn mixers_that_cannot_be_are_refused_with_their_numbers() {
        let of = Spans { state: 16, n: 2, n_rows: 2, ..Spans::default() };
        check_spans("x", &of).unwrap();
        assert!(refused(check_spans("x", &Spans { n_rows: 3, ..of })).contains("3 rows of 2 sequences' steps"));
        assert!(refused(check_spans("x", &Spans { spans: 16, ..of })).contains("sequences at 0x10 and at 0x10"));
        assert!(refused(check_spans("x", &Spans { n: 3, ..of })).contains("2 rows of 3 sequences"));
        let good = Convolve { of, x: 16, w: 16, y: 16, channels: 5, len: 3, ..Convolve::default() };
        let good = Convolve { x_stride: 5, y_stride: 5, row: 16, out_stride: 5, ..good };
        check_convolve(&good).unwrap();
        for (wrong, says) in [
            (Convolve { len: 1, ..good }, "5 channels over 1 tokens"),
            (Convolve { x_stride: 4, ..good }, "5 channels, rows 4 and 5 apart"),
            (Convolve { out_stride: 4, ..good }, "5 columns, rows 4 apart"),
            (Convolve { betas: 16, n_gates: 3, ..good }, "gates of 3 heads, rows 0 apart"),
            (Convolve { activation: 5, ..good }, "activation 5"),
        ] {
            assert!(refused(check_convolve(&wrong)).contains(says), "{says}");
        }
        let good = Delta {
            of,
            y: 16,
            betas: 16,
            decays: 16,
            z: 16,
            norm: 16,
            o: 16,
            row: 16,
            k_heads: 2,
            v_heads: 4,
            ..Delta::default()
        };
        let good = Delta { k_dim: 8, v_dim: 4, y_stride: 48, gates_stride: 4, z_stride: 16, out_stride: 16, ..good };
        check_delta(&good).unwrap();
        for (wrong, says) in [
            (Delta { v_heads: 5, ..good }, "5 heads of values with 2 of keys"),
            (Delta { k_dim: 129, ..good }, "heads of 129 and 4 elements"),
            (Delta { y_stride: 47, ..good }, "16 and 16 elements, rows 47 apart"),
            (Delta { gates_stride: 3, ..good }, "gates of 4 heads 3 apart"),
            (Delta { row: 0, ..good }, "from 0x10"),
        ] {
            assert!(refused(check_delta(&wrong)).contains(says), "{says}");
        }
        let good = Scan { of, y: 16, steps: 16, decays: 16, d: 16, o: 16, heads: 4, groups: 2, ..Scan::default() };
        let good = Scan { head_dim: 8, d_state: 16, y_stride: 96, gates_stride: 4, ..good };
        check_scan(&good).unwrap();
        for (wrong, says) in [
            (Scan { groups: 3, ..good }, "4 heads in 3 groups"),
            (Scan { d_state: 257, ..good }, "heads of 8 by 257"),
            (Scan { y_stride: 95, ..good }, "32 and 32 elements 95 apart"),
            (Scan { gates_stride: 3, ..good }, "steps of 4 heads 3 apart"),
        ] {
            assert!(refused(check_scan(&wrong)).contains(says), "{says}");
        }
        let good = GateMix { gate: 16, row: 16, n_rows: 1, n: 4, gate_stride: 4, stride: 4, ..GateMix::default() };
        check_gate_mix(&good).unwrap();
        assert!(refused(check_gate_mix(&GateMix { out: 16, ..good })).contains("0x10 at 0x10 or 0x10"));
        assert!(refused(check_gate_mix(&GateMix { gate_stride: 3, ..good })).contains("4 columns, rows 3 apart"));
    }
}
