//! Residual and norm of rows. Its launcher, as C sees it, too.

use std::ffi::c_int;

use super::{Queue, ensure};
use crate::backend::cuda::driver::sys::Handle;
use crate::backend::cuda::kernels::abi::Norm;
use crate::backend::cuda::kernels::kinds::NormKind;
use crate::error::Result;

#[rustfmt::skip]
unsafe extern "C" {
    fn kgc_norm(norm: *const Norm, pdl: c_int, stream: Handle) -> c_int;
}

/// The shape of a norm.
pub(super) fn check_norm(p: &Norm) -> Result<()> {
    let Norm { n_rows, dim, x_stride, out_stride, kind, scale, sum_scale, heads, delta, post_w, .. } = *p;
    ensure!("norm", n_rows > 0 && dim > 0 && p.x != 0, "{n_rows} rows of {dim}");
    ensure!("norm", x_stride >= dim, "{dim} columns, rows {x_stride} apart");
    ensure!("norm", kind <= NormKind::LAST as u32, "a norm of kind {kind}");
    ensure!("norm", delta[0] != 0 || delta[1] == 0, "a second thing to add without a first");
    let normed = delta.iter().zip(&post_w).all(|(delta, post)| *delta != 0 || *post == 0);
    ensure!("norm", normed, "a norm of what is not added");
    ensure!("norm", delta[0] == 0 || (scale.is_finite() && scale > 0.0), "what is added, times {scale}");
    ensure!("norm", sum_scale.is_finite() && (sum_scale == 0.0 || delta[0] != 0), "a sum, times {sum_scale}");
    let parts = heads < 2 || (p.out | delta[0] == 0 && u64::from(x_stride) >= u64::from(heads) * u64::from(dim));
    ensure!("norm", parts, "{heads} heads of {dim}, rows {x_stride} apart");
    let of_heads = p.w_stride == 0 || (p.w != 0 && heads > 1 && p.w_stride >= dim);
    ensure!("norm", p.h_scale.is_finite(), "a norm, times {}", p.h_scale);
    ensure!("norm", of_heads, "weights of {heads} heads of {dim}, {} apart", p.w_stride);
    ensure!("norm", p.out == 0 || out_stride >= dim, "{dim} columns, rows {out_stride} apart");
    ensure!("norm", p.out != 0 || p.out_lo == 0, "what rounding leaves of nothing");
    ensure!("norm", p.out | p.row | delta[0] != 0, "nothing to do with {n_rows} rows");
    Ok(())
}

impl Queue<'_> {
    /// Residual and norm of rows.
    pub fn norm(&self, norm: &Norm) -> Result<()> {
        check_norm(norm)?;
        // SAFETY: the shape was checked; the struct is read during the call.
        self.check(unsafe { kgc_norm(norm, self.pdl(), self.raw()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_that_cannot_be_are_refused_with_their_numbers() {
        let good = Norm { x: 16, w: 16, out: 16, n_rows: 2, dim: 5, x_stride: 5, out_stride: 8, ..Norm::default() };
        check_norm(&good).unwrap();
        for (norm, says) in [
            (Norm { out_stride: 4, ..good }, "5 columns, rows 4 apart"),
            (Norm { x_stride: 4, ..good }, "5 columns, rows 4 apart"),
            (Norm { dim: 0, ..good }, "2 rows of 0"),
            (Norm { kind: NormKind::LAST as u32 + 1, ..good }, "a norm of kind "),
            (Norm { delta: [0, 16], scale: 1.0, ..good }, "a second thing"),
            (Norm { delta: [16, 0], ..good }, "what is added, times 0"),
            (Norm { post_w: [16, 0], ..good }, "a norm of what is not added"),
            (Norm { out: 0, ..good }, "nothing to do with 2 rows"),
        ] {
            let error = check_norm(&norm).unwrap_err().to_string();
            assert!(error.contains(says), "{error}: {says}");
        }
    }
}
