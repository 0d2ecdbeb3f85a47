//! Products of sorted slots with experts' quantized matrices, on tensor cores.

use std::ffi::c_int;

use super::{Queue, check_mat, ensure};
use crate::backend::cuda::driver::Gpu;
use crate::backend::cuda::driver::sys::Handle;
use crate::backend::cuda::kernels::abi::{ExpertProducts, MOST_EXPERTS};
use crate::backend::cuda::kernels::kinds::Activation;
use crate::backend::cuda::kernels::packed::Packed;
use crate::error::Result;

#[rustfmt::skip]
unsafe extern "C" {
    fn kgc_expert_tiles(p: *const ExpertProducts, blocks: u32, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_expert_tiles_per_sm(n: u32, ty: Packed) -> u32;
}

/// Most slots of a task of [`Queue::expert_tiles`]: a tile's columns.
pub const EXPERT_TILE_SLOTS: u32 = 8;

/// Blocks of [`Queue::expert_tiles`] that the device runs at once, with rows of `n`; 0: a block has no room, or no type that it takes.
pub fn expert_tile_blocks(gpu: &Gpu, n: u32, ty: Packed) -> u32 {
    if !ty.is_quantized() {
        return 0;
    }
    // SAFETY: asks for a number.
    gpu.n_sm * unsafe { kgc_expert_tiles_per_sm(n, ty) }
}

fn check(p: &ExpertProducts, blocks: u32) -> Result<()> {
    const NAME: &str = "expert_tiles";
    let ExpertProducts { n_m, rows, n, share, n_slots, n_tasks, at_once, x_stride, y_stride, activation, .. } = *p;
    let gated = activation != 0;
    ensure!(NAME, n_m == 1 + u32::from(gated), "{n_m} matrices and activation {activation}");
    ensure!(NAME, activation <= Activation::ClampedSwiglu as u32, "an activation {activation}");
    let mats = &p.m[..n_m as usize];
    for m in mats {
        check_mat(NAME, m)?;
        ensure!(NAME, m.ty == mats[0].ty && m.ty.is_quantized(), "matrices of {:?} and {:?}", mats[0].ty, m.ty);
        let whole = m.cols == n && rows > 0 && m.rows.is_multiple_of(rows);
        ensure!(NAME, whole, "{} rows of {}, {rows} each", m.rows, m.cols);
        ensure!(NAME, m.rows / rows <= MOST_EXPERTS, "{} experts", m.rows / rows);
        let units = u64::from(m.rows) * u64::from(n / 32);
        ensure!(NAME, units <= u64::from(u32::MAX), "{units} units of a matrix");
    }
    ensure!(NAME, share > 0 && n_slots > 0 && n_tasks > 0, "{n_slots} slots, {share} a row, in {n_tasks} tasks");
    ensure!(NAME, u64::from(n_tasks) * u64::from(rows) < 1 << 32, "{n_tasks} tasks of {rows} rows");
    ensure!(NAME, p.tasks != 0 && p.order != 0 && at_once <= EXPERT_TILE_SLOTS, "tasks of {at_once} at {:#x}", p.tasks);
    ensure!(NAME, x_stride >= n && x_stride.is_multiple_of(4), "{n} columns, rows {x_stride} apart");
    ensure!(NAME, p.x != 0 && p.x.is_multiple_of(16), "rows at {:#x}", p.x);
    ensure!(NAME, y_stride >= rows && p.y[0] != 0, "{rows} results, rows {y_stride} apart, to {:#x}", p.y[0]);
    ensure!(NAME, p.weights == 0 && blocks > 0, "{blocks} blocks");
    Ok(())
}

impl Queue<'_> {
    /// The products of slots that are sorted into tasks of at most [`EXPERT_TILE_SLOTS`], of one matrix or of gate and up, by so many blocks, with
    /// the bits of [`Queue::expert_products`].
    pub fn expert_tiles(&self, products: &ExpertProducts, blocks: u32) -> Result<()> {
        check(products, blocks)?;
        let fits = expert_tile_blocks(self.gpu, products.n, products.m[0].ty) > 0;
        ensure!("expert_tiles", fits, "no room for rows of {} of {:?}", products.n, products.m[0].ty);
        // SAFETY: the shapes were checked; the struct is read during the call.
        self.check(unsafe { kgc_expert_tiles(products, blocks, self.pdl(), self.raw()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::kernels::abi::Mat;

    #[test]
    fn tiles_that_cannot_be_are_refused_with_their_numbers() {
        let mat = Mat { a: 16, s: 16, ty: Packed::Q4_0, rows: 12, cols: 64, stride: 64, ..Mat::default() };
        let good =
            ExpertProducts { x: 16, m: [mat; 2], y: [16, 0], n_m: 1, rows: 4, n: 64, ..ExpertProducts::default() };
        let good = ExpertProducts { share: 1, n_slots: 3, n_tasks: 2, order: 16, tasks: 16, at_once: 8, ..good };
        let good = ExpertProducts { x_stride: 64, y_stride: 4, ..good };
        check(&good, 1).unwrap();
        for (products, says) in [
            (ExpertProducts { n_m: 2, ..good }, "2 matrices and activation 0"),
            (ExpertProducts { rows: 5, ..good }, "12 rows of 64, 5 each"),
            (ExpertProducts { m: [Mat { ty: Packed::F16, ..mat }; 2], ..good }, "matrices of F16 and F16"),
            (ExpertProducts { n_tasks: 0, ..good }, "3 slots, 1 a row, in 0 tasks"),
            (ExpertProducts { at_once: 9, ..good }, "tasks of 9 at 0x10"),
            (ExpertProducts { n_tasks: 1 << 30, ..good }, "1073741824 tasks of 4 rows"),
            (ExpertProducts { x: 20, ..good }, "rows at 0x14"),
            (ExpertProducts { y_stride: 3, ..good }, "4 results, rows 3 apart"),
        ] {
            let error = check(&products, 1).unwrap_err().to_string();
            assert!(error.contains(says), "{error}: {says}");
        }
        assert!(check(&good, 0).unwrap_err().to_string().contains("0 blocks"));
    }
}
