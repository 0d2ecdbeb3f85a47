//! The kernels' launchers: safe functions that check shapes and say the numbers that they refuse.
//!
//! Invariant: what reaches the FFI has dimensions above 0, strides at least as wide as rows, types that the kernel knows and
//! geometry inside the device's limits. An address is a number to the host; a wrong one costs the device, not the process.

mod attention;
mod expert_gemm;
mod expert_tiles;
mod experts;
mod matmul;
mod norm;
mod prefill;
mod recurrent;
mod rows;
mod sample;

use std::ffi::c_int;

pub use expert_gemm::{FragmentRows, fragment_stride};
pub use expert_tiles::{EXPERT_TILE_SLOTS, expert_tile_blocks};
pub use experts::{Router, Sum, Tasks, expert_shared, router_fits};
pub use matmul::{
    f16_batch_slots, f16_mma_batch_most, f16_mma_split_most, gemv_batch_most, gemv_batch_shared, q_batch_fits,
};
pub use prefill::gemm_encoder;
pub use rows::{Between, Parts};
pub use sample::sample_most;

use super::abi::Mat;
use super::ffi;
use super::packed::Packed;
use crate::backend::cuda::driver::sys::Handle;
use crate::backend::cuda::driver::{Address, Gpu, Stream};
use crate::error::Result;

/// Where launches go, and how.
#[derive(Clone, Copy)]
pub struct Queue<'a> {
    gpu: &'a Gpu,
    stream: &'a Stream,
    dependent: bool,
}

impl<'a> Queue<'a> {
    /// Launches in the stream's order.
    pub fn new(gpu: &'a Gpu, stream: &'a Stream) -> Queue<'a> {
        Queue { gpu, stream, dependent: false }
    }

    /// The same, where `pdl`, with launches that begin before those before them have ended, if the device's code can that.
    pub fn dependent(self, pdl: bool) -> Queue<'a> {
        Queue { dependent: pdl && self.gpu.major >= 9, ..self }
    }

    fn raw(&self) -> Handle {
        self.stream.raw()
    }

    fn pdl(&self) -> c_int {
        c_int::from(self.dependent)
    }

    fn check(&self, code: c_int) -> Result<()> {
        self.gpu.check(code)
    }
}

/// Refuses what a kernel cannot take, unless `ok`.
macro_rules! ensure {
    ($kernel:expr, $ok:expr, $($text:tt)+) => {
        if !$ok {
            return Err($crate::error::Error::Internal { message: format!("{}: {}", $kernel, format_args!($($text)+)) });
        }
    };
}
use ensure;

/// The version of the code that this library has for the device that is current (80, 90, ..), or CUDA's reason why none.
pub fn code_version() -> std::result::Result<i32, c_int> {
    let mut version = 0;
    // SAFETY: asks about a kernel on the device that is current; writes one int.
    let failed = unsafe { ffi::kgc_code(&mut version) };
    if failed == 0 { Ok(version) } else { Err(failed) }
}

impl Queue<'_> {
    /// Reads `bytes` from there as fast as it goes; `out` has room for a number.
    pub fn read(&self, from: Address, bytes: u64, out: Address) -> Result<()> {
        ensure!("read", from.is_multiple_of(16) && bytes.is_multiple_of(16), "{bytes} bytes at {from:#x}");
        ensure!("read", from != 0 && bytes > 0 && out != 0, "{bytes} bytes at {from:#x} to {out:#x}");
        // SAFETY: the shape was checked.
        self.check(unsafe { ffi::kgc_read(from, bytes, out, self.gpu.n_sm, self.raw()) })
    }
}

/// That a matrix has rows and columns that its type can have, and planes where its type has some.
fn check_mat(kernel: &str, mat: &Mat) -> Result<()> {
    let Mat { rows, cols, stride, ty, .. } = *mat;
    ensure!(kernel, rows > 0 && cols > 0, "a matrix of {rows} by {cols}");
    let block = ty.row_block();
    ensure!(kernel, cols.is_multiple_of(block), "{cols} columns in blocks of {block}");
    let pad = match ty {
        Packed::F16Tiles => 32,
        _ if ty.is_float() => 8,
        _ => 1,
    };
    ensure!(
        kernel,
        block > 1 || (stride >= cols && stride.is_multiple_of(pad)),
        "{cols} columns of {ty:?}, {stride} apart"
    );
    ensure!(kernel, mat.each == 0 || mat.d != 0, "scales of {} blocks each are nowhere", mat.each);
    let planes = [mat.a, mat.b, mat.c, mat.s, mat.d];
    for (plane, bytes) in planes.into_iter().zip(ty.plane_bytes(u64::from(rows), u64::from(cols))) {
        ensure!(kernel, bytes == 0 || plane != 0, "a plane of {bytes} bytes of {ty:?} is nowhere");
    }
    Ok(())
}

/// `n` rounded up to whole blocks of 32, as the inputs of stages are.
fn padded(n: u32) -> u64 {
    u64::from(n).next_multiple_of(32)
}

/// Whether `many` rows of `width` elements lie `stride` apart without touching.
fn strided(many: u32, stride: u32, width: u64) -> bool {
    many > 0 && (many == 1 || u64::from(stride) >= width)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(result: Result<()>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn matrices_that_cannot_be_are_refused_with_their_numbers() {
        let mat = Mat { a: 16, s: 16, ty: Packed::Q4_0, rows: 3, cols: 64, stride: 64, ..Mat::default() };
        check_mat("x", &mat).unwrap();
        assert!(refused(check_mat("x", &Mat { rows: 0, ..mat })).contains("x: a matrix of 0 by 64"));
        assert!(refused(check_mat("x", &Mat { cols: 40, ..mat })).contains("40 columns in blocks of 32"));
        assert!(
            refused(check_mat("x", &Mat { ty: Packed::Q4_K, d: 16, ..mat })).contains("64 columns in blocks of 256")
        );
        assert!(refused(check_mat("x", &Mat { s: 0, ..mat })).contains("a plane of 12 bytes of Q4_0 is nowhere"));
        let float = Mat { ty: Packed::F16, cols: 5, stride: 8, ..mat };
        check_mat("x", &float).unwrap();
        assert!(refused(check_mat("x", &Mat { stride: 4, ..float })).contains("5 columns of F16, 4 apart"));
        assert!(refused(check_mat("x", &Mat { stride: 12, ..float })).contains("5 columns of F16, 12 apart"));
    }
}
