//! What a prompt's pass launches: products, rope, attention, and weights made f16 for them.

use std::ffi::c_void;

use super::{Queue, check_mat, ensure, ffi};
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::kernels::abi::{Encoder, Flash, Gemm, Mat, PrefillRope};
use crate::backend::cuda::kernels::kinds::{Epilogue, Pairing};
use crate::error::Result;

/// The driver's function that the kernels on wgmma want; none where the device's code has not got these.
pub fn gemm_encoder() -> Encoder {
    let mut encode: *mut c_void = std::ptr::null_mut();
    // SAFETY: writes one pointer: the driver's function, or null.
    let code = unsafe { ffi::kgc_gemm_encoder(&mut encode) };
    if code == 0 { Encoder(encode as u64) } else { Encoder::default() }
}

fn check_gemm(g: &Gemm) -> Result<()> {
    let Gemm { m, k, n_w, x_stride, w_stride, y_stride, epilogue, .. } = *g;
    ensure!("gemm", m > 0 && k > 0 && m < 1 << 30 && k < 1 << 30 && k.is_multiple_of(8), "{m} rows of {k}");
    ensure!("gemm", (1..=3).contains(&n_w), "{n_w} matrices");
    ensure!("gemm", g.n_sms > 0, "a device of {} multiprocessors", g.n_sms);
    ensure!("gemm", epilogue <= Epilogue::Gelu as u32, "epilogue {epilogue}");
    ensure!("gemm", x_stride >= k && x_stride.is_multiple_of(8), "{k} columns, rows of x {x_stride} apart");
    ensure!("gemm", w_stride >= k && w_stride.is_multiple_of(8), "{k} columns, rows of w {w_stride} apart");
    ensure!("gemm", g.x != 0 && g.y != 0, "x at {:#x}, y at {:#x}", g.x, g.y);
    let all = g.x | g.x_lo | g.y | g.y_lo | g.w.iter().chain(&g.w_lo).fold(0, |a, b| a | b);
    ensure!("gemm", all.is_multiple_of(16), "addresses of {all:#x} together");
    for i in 0..n_w as usize {
        ensure!("gemm", g.n[i] > 0 && g.n[i].is_multiple_of(2) && g.w[i] != 0, "matrix {i} of {} rows", g.n[i]);
        ensure!("gemm", (g.w_lo[i] == 0) == (g.w_lo[0] == 0), "matrix {i} and what its rounding leaves");
        ensure!("gemm", g.bias[i].is_multiple_of(8), "a bias at {:#x}", g.bias[i]);
    }
    let glu = epilogue >= Epilogue::Silu as u32;
    ensure!("gemm", !glu || (n_w == 2 && g.n[0] == g.n[1]), "a gate of {:?} rows of {n_w}", g.n);
    let n: u64 = if glu { u64::from(g.n[0]) } else { g.n[..n_w as usize].iter().map(|n| u64::from(*n)).sum() };
    let ok = n <= u64::from(y_stride) && n < 1 << 30 && y_stride.is_multiple_of(2);
    ensure!("gemm", ok, "{n} columns, rows of y {y_stride} apart");
    Ok(())
}

fn check_flash(p: &Flash) -> Result<()> {
    let Flash { n_tokens, start, n_heads, n_kv, head_dim, q_stride, out_stride, n_tiles, .. } = *p;
    ensure!("flash_prefill", n_tokens > 0 && n_tokens <= 64 * 65535, "{n_tokens} tokens");
    ensure!("flash_prefill", u64::from(start) + u64::from(n_tokens) < 1 << 31, "{n_tokens} tokens from {start} on");
    ensure!("flash_prefill", n_kv > 0 && n_heads > 0 && n_heads.is_multiple_of(n_kv), "{n_heads} of {n_kv} heads");
    let whole = (8..=512).contains(&head_dim) && head_dim.is_multiple_of(8);
    ensure!("flash_prefill", whole, "heads of {head_dim}");
    let width = u64::from(n_heads) * u64::from(head_dim);
    let wide = u64::from(q_stride) >= width && u64::from(out_stride) >= width && out_stride.is_multiple_of(8);
    ensure!("flash_prefill", wide, "{width} columns, rows {q_stride} and {out_stride} apart");
    let cache = p.k_offset | p.v_offset | p.head_stride | p.token_stride | u64::from(q_stride);
    let kept = cache.is_multiple_of(8) && p.token_stride >= u64::from(head_dim);
    ensure!("flash_prefill", kept, "heads of {head_dim}, positions {} apart in the cache", p.token_stride);
    let tiles = if p.tiles == 0 { p.pages != 0 } else { (1..=65535).contains(&n_tiles) };
    ensure!("flash_prefill", tiles, "{n_tiles} tiles, pages at {:#x}", p.pages);
    let there = p.q != 0 && p.out != 0 && (p.q | p.out | p.out_lo).is_multiple_of(16);
    ensure!("flash_prefill", there, "q at {:#x}, out at {:#x}", p.q, p.out);
    ensure!("flash_prefill", p.scale > 0.0, "scale {}", p.scale);
    ensure!("flash_prefill", p.n_sms > 0, "a device of {} multiprocessors", p.n_sms);
    Ok(())
}

fn check_rope(p: &PrefillRope) -> Result<()> {
    let PrefillRope { n_tokens, start, n_heads, n_kv, head_dim, n_rot, qkv_stride, q_stride, .. } = *p;
    ensure!("prefill_rope", n_tokens > 0 && n_heads > 0, "{n_tokens} tokens, {n_heads} and {n_kv} heads");
    ensure!("prefill_rope", u64::from(start) + u64::from(n_tokens) < 1 << 31, "{n_tokens} tokens from {start} on");
    let whole = (2..=512).contains(&head_dim) && head_dim.is_multiple_of(2);
    ensure!("prefill_rope", whole, "heads of {head_dim}");
    ensure!("prefill_rope", n_rot <= head_dim && n_rot.is_multiple_of(2), "{n_rot} of {head_dim} turned");
    ensure!("prefill_rope", p.pairing <= Pairing::LAST as u32, "pairs of kind {}", p.pairing);
    let (all, own) =
        ((u64::from(n_heads) + 2 * u64::from(n_kv)) * u64::from(head_dim), n_heads as u64 * head_dim as u64);
    let wide = u64::from(qkv_stride) >= all && u64::from(q_stride) >= own;
    ensure!("prefill_rope", wide, "{all} and {own} columns, rows {qkv_stride} and {q_stride} apart");
    let cache = p.k_offset | p.v_offset | p.head_stride | p.token_stride | u64::from(q_stride);
    let kept = cache.is_multiple_of(2) && p.token_stride >= u64::from(head_dim);
    ensure!("prefill_rope", kept, "heads of {head_dim}, positions {} apart in the cache", p.token_stride);
    let there = p.qkv != 0 && (!p.turns.contains(&0) || n_rot == 0) && p.q != 0 && (p.pages != 0 || p.rows != 0);
    ensure!("prefill_rope", there, "qkv at {:#x}, q at {:#x}, pages at {:#x}", p.qkv, p.q, p.pages);
    Ok(())
}

impl Queue<'_> {
    /// A product of rows, on wgmma where the device has it.
    pub fn gemm(&self, gemm: &Gemm) -> Result<()> {
        check_gemm(gemm)?;
        // SAFETY: the shapes were checked, and `encode` is the driver's function or null; the struct is read during the call.
        self.check(unsafe { ffi::kgc_gemm(gemm, self.raw()) })
    }

    /// Rows `row0` .. `row0 + n` of a matrix as f16, `lo`: and what rounding leaves, or 0.
    pub fn dequantize_f16(&self, mat: &Mat, row0: u32, n: u32, slab: Address, lo: Address) -> Result<()> {
        check_mat("dequantize_f16", mat)?;
        let inside = n > 0 && u64::from(row0) + u64::from(n) <= u64::from(mat.rows);
        ensure!("dequantize_f16", inside, "rows {row0} and {n} more of {}", mat.rows);
        ensure!("dequantize_f16", slab != 0 && (slab | lo).is_multiple_of(16), "to {slab:#x} and {lo:#x}");
        // SAFETY: the shapes were checked.
        self.check(unsafe { ffi::kgc_dequantize_f16(mat, row0, n, slab, lo, self.raw()) })
    }

    /// A prompt's attention over the cache, which has its keys and values already.
    pub fn flash_prefill(&self, flash: &Flash) -> Result<()> {
        check_flash(flash)?;
        // SAFETY: as above.
        self.check(unsafe { ffi::kgc_flash_prefill(flash, self.raw()) })
    }

    /// Norm and rope of rows' heads, and the cache's new rows.
    pub fn prefill_rope(&self, rope: &PrefillRope) -> Result<()> {
        check_rope(rope)?;
        // SAFETY: as above.
        self.check(unsafe { ffi::kgc_prefill_rope(rope, self.raw()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_that_cannot_be_are_refused_with_their_numbers() {
        let good = Gemm { x: 16, y: 32, w: [48, 0, 0], m: 5, k: 64, n: [6, 0, 0], n_w: 1, n_sms: 1, ..Gemm::default() };
        let good = Gemm { x_stride: 64, w_stride: 64, y_stride: 6, ..good };
        check_gemm(&good).unwrap();
        let cases = [
            (Gemm { k: 60, ..good }, "gemm: 5 rows of 60"),
            (Gemm { m: 0, ..good }, "gemm: 0 rows of 64"),
            (Gemm { x_stride: 56, ..good }, "64 columns, rows of x 56 apart"),
            (Gemm { w_stride: 68, ..good }, "64 columns, rows of w 68 apart"),
            (Gemm { y_stride: 4, ..good }, "6 columns, rows of y 4 apart"),
            (Gemm { n: [7, 0, 0], ..good }, "matrix 0 of 7 rows"),
            (Gemm { n_w: 4, ..good }, "4 matrices"),
            (Gemm { epilogue: 5, ..good }, "epilogue 5"),
            (Gemm { epilogue: Epilogue::Silu as u32, ..good }, "a gate of [6, 0, 0] rows of 1"),
            (Gemm { x: 8, ..good }, "addresses of 0x38 together"),
        ];
        for (gemm, says) in cases {
            let error = check_gemm(&gemm).unwrap_err().to_string();
            assert!(error.contains(says), "{error}: {says}");
        }
    }

    #[test]
    fn rows_that_cannot_be_are_refused_with_their_numbers() {
        let rope = PrefillRope {
            qkv: 16,
            turns: [16; 2],
            q: 16,
            pages: 16,
            n_tokens: 1,
            n_heads: 2,
            ..PrefillRope::default()
        };
        let rope =
            PrefillRope { n_kv: 1, head_dim: 8, n_rot: 8, qkv_stride: 32, q_stride: 16, token_stride: 8, ..rope };
        check_rope(&rope).unwrap();
        for (rope, says) in [
            (PrefillRope { n_rot: 10, ..rope }, "10 of 8 turned"),
            (PrefillRope { qkv_stride: 30, ..rope }, "32 and 16 columns, rows 30 and 16 apart"),
            (PrefillRope { token_stride: 6, ..rope }, "heads of 8, positions 6 apart in the cache"),
        ] {
            let error = check_rope(&rope).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let flash = Flash { q: 16, out: 16, pages: 16, n_tokens: 3, n_heads: 2, n_kv: 2, ..Flash::default() };
        let flash = Flash { head_dim: 8, q_stride: 16, out_stride: 16, token_stride: 8, scale: 1.0, n_sms: 1, ..flash };
        check_flash(&flash).unwrap();
        let error = check_flash(&Flash { n_kv: 3, ..flash }).unwrap_err().to_string();
        assert!(error.contains("2 of 3 heads"), "{error}");
        let error = check_flash(&Flash { head_dim: 12, ..flash }).unwrap_err().to_string();
        assert!(error.contains("heads of 12"), "{error}");
    }
}
