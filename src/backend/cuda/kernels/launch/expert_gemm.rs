//! Experts' products of prompts on tensor cores, and the rows that they read. Their launchers, as C sees them, too.

use std::ffi::c_int;

use super::{Queue, check_mat, ensure};
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::driver::sys::Handle;
use crate::backend::cuda::kernels::abi::{ExpertGemm, FRAGMENTS, MOST_EXPERTS};
use crate::backend::cuda::kernels::kinds::Activation;
use crate::backend::cuda::kernels::packed::{Family, Packed};
use crate::error::Result;

#[rustfmt::skip]
unsafe extern "C" {
    fn kgc_expert_rows(x: Address, y: Address, n_rows: u32, n: u32, x_stride: u32, y_stride: u32, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_expert_gemm_float(p: *const ExpertGemm, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_expert_gemm_q32(p: *const ExpertGemm, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_expert_gemm_table(p: *const ExpertGemm, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_expert_gemm_grid(p: *const ExpertGemm, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_expert_gemm_ternary(p: *const ExpertGemm, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_expert_gemm_k256(p: *const ExpertGemm, pdl: c_int, stream: Handle) -> c_int;
}

/// Elements from one row of `n` columns to the next, as [`Queue::expert_gemm`] reads them.
pub fn fragment_stride(n: usize) -> usize {
    n.next_multiple_of(FRAGMENTS as usize)
}

/// Rows of f32 as [`Queue::expert_gemm`] reads them: y \[`n_rows`, `y_stride`\] f16 of x \[`n_rows`, n\].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct FragmentRows {
    pub x: Address,
    pub y: Address,
    pub n_rows: u32,
    pub n: u32,
    pub x_stride: u32,
    pub y_stride: u32,
}

fn check_rows(rows: &FragmentRows) -> Result<()> {
    const NAME: &str = "expert_rows";
    let FragmentRows { x, y, n_rows, n, x_stride, y_stride } = *rows;
    ensure!(NAME, (1..=65535).contains(&n_rows) && (1..1 << 30).contains(&n), "{n_rows} rows of {n}");
    let whole = fragment_stride(n as usize) as u32;
    ensure!(NAME, x_stride >= n, "{n} columns, rows {x_stride} apart");
    ensure!(NAME, y_stride >= whole && y_stride.is_multiple_of(8), "{whole} columns, rows {y_stride} apart");
    ensure!(NAME, x != 0 && y != 0 && y.is_multiple_of(16), "from {x:#x} to {y:#x}");
    Ok(())
}

fn check_gemm(p: &ExpertGemm) -> Result<()> {
    const NAME: &str = "expert_gemm";
    let ExpertGemm { n_m, rows, k, n_tasks, x_stride, y_stride, activation, .. } = *p;
    let sizes = [rows, k].iter().all(|n| (1..1 << 30).contains(n));
    ensure!(NAME, (1..=2).contains(&n_m) && sizes, "{n_m} matrices of {rows} by {k}");
    let mats = &p.m[..n_m as usize];
    for m in mats {
        check_mat(NAME, m)?;
        let known = !matches!(m.ty, Packed::F32 | Packed::F16Tiles) && m.ty == mats[0].ty;
        ensure!(NAME, known, "matrices of {:?} and {:?}", mats[0].ty, m.ty);
        let experts = m.rows / rows;
        let whole = m.cols == k && m.rows.is_multiple_of(rows) && experts <= MOST_EXPERTS;
        ensure!(NAME, whole, "{} rows of {}, {rows} each", m.rows, m.cols);
        let units = u64::from(m.rows) * u64::from(if m.ty.is_quantized() { k / 32 } else { m.stride / 8 });
        ensure!(NAME, units <= u64::from(u32::MAX), "{units} units of a matrix");
    }
    let whole = |n: u32| fragment_stride(n as usize) as u32;
    ensure!(NAME, x_stride >= whole(k) && x_stride.is_multiple_of(8), "{k} columns, rows {x_stride} apart");
    let (least, gated) = if n_m == 2 { (whole(rows), 1..=Activation::ClampedSwiglu as u32) } else { (rows, 0..=0) };
    ensure!(NAME, y_stride >= least && y_stride.is_multiple_of(2), "{rows} results, rows {y_stride} apart");
    ensure!(NAME, gated.contains(&activation), "activation {activation} of {n_m} matrices");
    let aligned = (p.x | p.y).is_multiple_of(16) && p.x != 0 && p.y != 0;
    ensure!(NAME, aligned, "from {:#x} to {:#x}", p.x, p.y);
    let sorted = p.order != 0 && p.tasks != 0 && (1..=65535).contains(&n_tasks);
    ensure!(NAME, sorted, "{n_tasks} tasks at {:#x}", p.tasks);
    Ok(())
}

impl Queue<'_> {
    /// See [`FragmentRows`].
    pub fn expert_rows(&self, rows: FragmentRows) -> Result<()> {
        check_rows(&rows)?;
        let FragmentRows { x, y, n_rows, n, x_stride, y_stride } = rows;
        // SAFETY: the shapes were checked.
        self.check(unsafe { kgc_expert_rows(x, y, n_rows, n, x_stride, y_stride, self.pdl(), self.raw()) })
    }

    /// The products of sorted slots with their experts' matrices, on tensor cores.
    pub fn expert_gemm(&self, gemm: &ExpertGemm) -> Result<()> {
        check_gemm(gemm)?;
        let launch = match gemm.m[0].ty.family() {
            Family::Float => kgc_expert_gemm_float,
            Family::Q32 => kgc_expert_gemm_q32,
            Family::K256 => kgc_expert_gemm_k256,
            Family::Table => kgc_expert_gemm_table,
            Family::Grid => kgc_expert_gemm_grid,
            Family::Ternary => kgc_expert_gemm_ternary,
        };
        // SAFETY: as above; the struct is read during the call.
        self.check(unsafe { launch(gemm, self.pdl(), self.raw()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::kernels::abi::Mat;

    #[test]
    fn products_that_cannot_be_are_refused_with_their_numbers() {
        let mat = Mat { a: 16, s: 16, ty: Packed::Q4_0, rows: 12, cols: 64, stride: 64, ..Mat::default() };
        let good =
            ExpertGemm { x: 16, m: [mat; 2], y: 16, order: 16, tasks: 16, n_m: 2, rows: 4, ..Default::default() };
        let good = ExpertGemm { k: 64, n_tasks: 3, x_stride: 128, y_stride: 128, activation: 1, ..good };
        check_gemm(&good).unwrap();
        check_gemm(&ExpertGemm { n_m: 1, y_stride: 4, activation: 0, ..good }).unwrap();
        for (gemm, says) in [
            (ExpertGemm { rows: 5, ..good }, "12 rows of 64, 5 each"),
            (ExpertGemm { m: [mat, Mat { ty: Packed::F16, ..mat }], ..good }, "matrices of Q4_0 and F16"),
            (ExpertGemm { m: [Mat { ty: Packed::F32, ..mat }; 2], ..good }, "matrices of F32 and F32"),
            (ExpertGemm { x_stride: 64, ..good }, "64 columns, rows 64 apart"),
            (ExpertGemm { y_stride: 64, ..good }, "4 results, rows 64 apart"),
            (ExpertGemm { activation: 0, ..good }, "activation 0 of 2 matrices"),
            (ExpertGemm { n_m: 1, ..good }, "activation 1 of 1 matrices"),
            (ExpertGemm { x: 20, ..good }, "from 0x14 to 0x10"),
            (ExpertGemm { n_tasks: 0, ..good }, "0 tasks at 0x10"),
        ] {
            let error = check_gemm(&gemm).unwrap_err().to_string();
            assert!(error.contains(says), "{error}: {says}");
        }
        let good = FragmentRows { x: 16, y: 16, n_rows: 2, n: 130, x_stride: 130, y_stride: 256 };
        check_rows(&good).unwrap();
        let error = check_rows(&FragmentRows { y_stride: 130, ..good }).unwrap_err().to_string();
        assert!(error.contains("256 columns, rows 130 apart"), "{error}");
    }
}
