//! Matrix times activations: the kernels that read the weights, and the only place where their order matters.
//!
//! For one row and one token the sum runs over the columns in order: per block of 32 (or sub-block of 16) an exact
//! integer dot product, then one fused multiply-add into an f32; float types: one fused multiply-add a column.
//! Rows are lanes, tokens are unrolled, so neither the number of tokens nor of threads touches that order.

#![allow(clippy::needless_range_loop)] // an index runs through several register arrays at once

use super::element::{Bf16, Element, F16, F32};
use super::format::{Format, with_format};
use super::pack::panel_bytes;
use super::simd::{Isa, LANES, Portable, Simd, XBlock, asks_ahead, dispatch};
use crate::gguf::TensorType;

/// Bytes of weights to ask for before they are needed, where each meets several tokens or [`asks_ahead`] says so: the processor's own
/// foresight does not look past the arithmetic of a block then.
const AHEAD: usize = 6144;

/// A packed matrix inside of an arena that outlives it.
pub struct Matrix {
    /// The file's type.
    pub ty: TensorType,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    scale: f32,      // of every value
    data: *const u8, // [ceil(rows / 16)] panels
    panel_bytes: usize,
}

// SAFETY: immutable memory, see `new`.
unsafe impl Send for Matrix {}
// SAFETY: as above.
unsafe impl Sync for Matrix {}

/// Activations of `n` tokens.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Tokens.
    pub n: usize,
    /// `[n, cols]`.
    pub float: &'a [f32],
    /// `[n, cols / 32]`; empty if no quantized matrix reads them.
    pub quant: &'a [XBlock],
}

impl Matrix {
    /// Bytes of a packed matrix.
    pub fn bytes(ty: TensorType, rows: usize, cols: usize) -> usize {
        rows.div_ceil(LANES) * panel_bytes(ty, cols)
    }

    /// # Safety
    /// `data` holds `Matrix::bytes` bytes of packed panels, aligned to 64, that live and stay the same for as long as
    /// the matrix is used.
    pub unsafe fn new(ty: TensorType, rows: usize, cols: usize, data: *const u8) -> Matrix {
        Matrix { ty, rows, cols, scale: 1.0, data, panel_bytes: panel_bytes(ty, cols) }
    }

    /// The same matrix with all values times `scale`.
    pub fn scaled(self, scale: f32) -> Matrix {
        Matrix { scale, ..self }
    }

    /// Panels of 16 rows.
    pub fn n_panels(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Whether it reads `Input::quant` (else `Input::float`).
    pub fn is_quantized(&self) -> bool {
        self.ty.block_len() > 1
    }

    /// `y[t * stride + row] = sum over cols of w[row, col] * x[t, col]` for the rows of panels `first .. last`.
    ///
    /// # Safety
    /// `isa` is available; `x` has the shapes of [`Input`] with this matrix's `cols`; `y` may be written at the rows
    /// of these panels that exist, for each of the `x.n` tokens, by nobody else meanwhile.
    pub unsafe fn mul(&self, isa: Isa, first: usize, last: usize, x: &Input<'_>, y: *mut f32, stride: usize) {
        debug_assert!(last <= self.n_panels());
        // SAFETY: panels `first .. last` are inside `data`; shapes are the caller's promise.
        unsafe {
            let w = self.data.add(first * self.panel_bytes);
            let out = Out { y: y.add(first * LANES), stride, rows: self.rows - first * LANES, scale: self.scale };
            with_format!(
                self.ty,
                Q => {
                    debug_assert_eq!(x.quant.len(), x.n * self.cols / 32);
                    mul_quant::<Q>(isa, w, last - first, self.cols / 32, x.quant.as_ptr(), x.n, out)
                },
                {
                    debug_assert_eq!(x.float.len(), x.n * self.cols);
                    match self.ty {
                        TensorType::F32 => mul_float::<F32>(isa, w, last - first, self.cols, x.float.as_ptr(), x.n, out),
                        TensorType::F16 => mul_float::<F16>(isa, w, last - first, self.cols, x.float.as_ptr(), x.n, out),
                        _ => mul_float::<Bf16>(isa, w, last - first, self.cols, x.float.as_ptr(), x.n, out),
                    }
                }
            )
        }
    }

    /// One row as f32: the embedding of a token. `out` has `cols` elements.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols);
        let lane = row % LANES;
        // SAFETY: the panel exists, and each function reads inside of it.
        unsafe {
            let panel = self.data.add(row / LANES * self.panel_bytes);
            with_format!(self.ty, Q => row_quant::<Q>(panel, lane, out), {
                for (col, o) in out.iter_mut().enumerate() {
                    let at = col * LANES + lane;
                    *o = match self.ty {
                        TensorType::F32 => panel.cast::<f32>().add(at).read(),
                        TensorType::F16 => half::f16::from_bits(panel.cast::<u16>().add(at).read()).to_f32(),
                        _ => half::bf16::from_bits(panel.cast::<u16>().add(at).read()).to_f32(),
                    };
                }
            })
        }
        if self.scale != 1.0 {
            out.iter_mut().for_each(|o| *o *= self.scale);
        }
    }
}

/// Where results go: token t's row r at `y[t * stride + r]`; only rows below `rows` exist.
#[derive(Clone, Copy)]
pub struct Out {
    y: *mut f32,
    stride: usize,
    rows: usize,
    scale: f32,
}

impl Out {
    #[inline(always)]
    unsafe fn store<S: Simd>(&self, panel: usize, token: usize, v: S::F) {
        let row = panel * LANES;
        // SAFETY: no memory is touched.
        let v = if self.scale == 1.0 { v } else { unsafe { S::mul(v, S::splat(self.scale)) } };
        // SAFETY: rows below `self.rows` may be written, by the promise of `Matrix::mul`.
        unsafe {
            let p = self.y.add(token * self.stride + row);
            if row + LANES <= self.rows {
                S::store(p, v);
            } else {
                let all = S::to_array(v);
                std::ptr::copy_nonoverlapping(all.as_ptr(), p, self.rows - row);
            }
        }
    }
}

dispatch! {
    /// All tokens against `n_panels` quantized panels.
    pub fn mul_quant<Q: Format>(w: *const u8, n_panels: usize, n_blocks: usize, x: *const XBlock, n: usize, out: Out) = quant_panels
}

#[inline(always)]
unsafe fn quant_panels<S: Simd, Q: Format>(
    w: *const u8,
    n_panels: usize,
    n_blocks: usize,
    x: *const XBlock,
    n: usize,
    out: Out,
) {
    // A tile of tokens meets all panels before the next one: its activations stay in the first-level cache.
    // SAFETY: `w` holds `n_panels` panels, `x` holds `n` rows of `n_blocks` blocks.
    unsafe {
        let mut t = 0;
        while t + 8 <= n {
            quant_tiles::<S, Q, 8, true>(w, n_panels, n_blocks, x, t, out);
            t += 8;
        }
        if t + 4 <= n {
            quant_tiles::<S, Q, 4, true>(w, n_panels, n_blocks, x, t, out);
            t += 4;
        }
        if t + 2 <= n {
            quant_tiles::<S, Q, 2, true>(w, n_panels, n_blocks, x, t, out);
            t += 2;
        }
        if t < n && asks_ahead() {
            quant_tiles::<S, Q, 1, true>(w, n_panels, n_blocks, x, t, out);
        } else if t < n {
            quant_tiles::<S, Q, 1, false>(w, n_panels, n_blocks, x, t, out);
        }
    }
}

#[inline(always)]
unsafe fn quant_tiles<S: Simd, Q: Format, const T: usize, const ASKS: bool>(
    w: *const u8,
    n_panels: usize,
    n_blocks: usize,
    x: *const XBlock,
    token: usize,
    out: Out,
) {
    for p in 0..n_panels {
        // SAFETY: as `quant_panels`.
        unsafe {
            let panel = w.add(p * (n_blocks / Q::BLOCKS) * Q::SUPER);
            quant_tile::<S, Q, T, ASKS>(panel, n_blocks, x.add(token * n_blocks), p, token, out);
        }
    }
}

#[inline(always)]
unsafe fn quant_tile<S: Simd, Q: Format, const T: usize, const ASKS: bool>(
    panel: *const u8,
    n_blocks: usize,
    x: *const XBlock,
    p: usize,
    token: usize,
    out: Out,
) {
    // SAFETY: blocks are read inside the panel and inside T rows of x; results are stored as `Out` allows.
    unsafe {
        let mut acc = [S::splat(0.0); T];
        for s in 0..n_blocks / Q::BLOCKS {
            let head = panel.add(s * Q::SUPER);
            for b in 0..Q::BLOCKS {
                let block = head.add(Q::HEAD + b * Q::BLOCK);
                if ASKS {
                    for line in 0..Q::BLOCK.div_ceil(64) {
                        S::prefetch(block.wrapping_add(AHEAD + line * 64).cast());
                    }
                }
                let u = Q::unpack::<S>(block);
                let xb = x.add(s * Q::BLOCKS + b);
                for sub in 0..Q::SUBS {
                    let which = if Q::SUBS == 1 { 0 } else { 1 + sub };
                    let scale = Q::scale::<S>(head, block, sub);
                    let min = if Q::MIN { Q::min::<S>(head, block, sub) } else { scale };
                    for t in 0..T {
                        let xt = &*xb.add(t * n_blocks);
                        let mut a = if Q::OFFSET_SHIFT == 0 {
                            S::acc::<0>(0)
                        } else if Q::OFFSET_SHIFT == 2 {
                            S::acc::<2>(xt.neg_sum[which])
                        } else if Q::OFFSET_SHIFT == 3 {
                            S::acc::<3>(xt.neg_sum[which])
                        } else if Q::OFFSET_SHIFT == 4 {
                            S::acc::<4>(xt.neg_sum[which])
                        } else if Q::OFFSET_SHIFT == 5 {
                            S::acc::<5>(xt.neg_sum[which])
                        } else {
                            S::acc::<7>(xt.neg_sum[which])
                        };
                        let groups = 8 / Q::SUBS;
                        for g in 0..groups {
                            a = S::dot4(a, u[sub * groups + g], xt, sub * groups + g);
                        }
                        let dot = S::to_f(S::total(a));
                        acc[t] = S::fma(S::mul(scale, S::splat(xt.d)), dot, acc[t]);
                        if Q::MIN {
                            acc[t] = S::fma(min, S::splat(xt.sum[which]), acc[t]);
                        }
                    }
                }
            }
        }
        for (t, a) in acc.into_iter().enumerate() {
            out.store::<S>(p, token + t, a);
        }
    }
}

/// One lane of a panel as f32.
unsafe fn row_quant<Q: Format>(panel: *const u8, lane: usize, out: &mut [f32]) {
    for (k, o) in out.chunks_exact_mut(32).enumerate() {
        // SAFETY: block k is inside the panel.
        unsafe {
            let head = panel.add(k / Q::BLOCKS * Q::SUPER);
            let block = head.add(Q::HEAD + k % Q::BLOCKS * Q::BLOCK);
            let u = Q::unpack::<Portable>(block);
            for (i, o) in o.iter_mut().enumerate() {
                let sub = i * Q::SUBS / 32;
                let value = i32::from(u[i / 4][lane].to_le_bytes()[i % 4]);
                let offset = if Q::OFFSET_SHIFT == 0 { 0 } else { 1 << Q::OFFSET_SHIFT };
                let min = if Q::MIN { Q::min::<Portable>(head, block, sub)[lane] } else { 0.0 };
                *o = Q::scale::<Portable>(head, block, sub)[lane] * (value - offset) as f32 + min;
            }
        }
    }
}

dispatch! {
    /// All tokens against `n_panels` float panels.
    pub fn mul_float<E: Element>(w: *const u8, n_panels: usize, cols: usize, x: *const f32, n: usize, out: Out) = float_panels
}

#[inline(always)]
unsafe fn float_panels<S: Simd, E: Element>(
    w: *const u8,
    n_panels: usize,
    cols: usize,
    x: *const f32,
    n: usize,
    out: Out,
) {
    let mut p = 0;
    // SAFETY: `w` holds `n_panels` panels, `x` holds `n` rows of `cols`.
    unsafe {
        while p + 4 <= n_panels {
            float_tokens::<S, E, 4>(w, p, cols, x, n, out);
            p += 4;
        }
        while p < n_panels {
            float_tokens::<S, E, 1>(w, p, cols, x, n, out);
            p += 1;
        }
    }
}

#[inline(always)]
unsafe fn float_tokens<S: Simd, E: Element, const P: usize>(
    w: *const u8,
    p: usize,
    cols: usize,
    x: *const f32,
    n: usize,
    out: Out,
) {
    let mut t = 0;
    // SAFETY: as `float_panels`.
    unsafe {
        while t + 4 <= n {
            float_tile::<S, E, P, 4>(w, p, cols, x, t, out);
            t += 4;
        }
        while t < n {
            float_tile::<S, E, P, 1>(w, p, cols, x, t, out);
            t += 1;
        }
    }
}

#[inline(always)]
unsafe fn float_tile<S: Simd, E: Element, const P: usize, const T: usize>(
    w: *const u8,
    p: usize,
    cols: usize,
    x: *const f32,
    token: usize,
    out: Out,
) {
    let column = LANES * E::BYTES;
    // SAFETY: as `float_panels`.
    unsafe {
        let w = w.add(p * cols * column);
        let x = x.add(token * cols);
        let mut acc = [[S::splat(0.0); T]; P];
        for c in 0..cols {
            let mut v = [S::splat(0.0); P];
            for i in 0..P {
                v[i] = E::load::<S>(w.add((i * cols + c) * column));
            }
            for t in 0..T {
                let xt = S::splat(*x.add(t * cols + c));
                for i in 0..P {
                    acc[i][t] = S::fma(v[i], xt, acc[i][t]);
                }
            }
        }
        for (i, acc) in acc.into_iter().enumerate() {
            for (t, a) in acc.into_iter().enumerate() {
                out.store::<S>(p + i, token + t, a);
            }
        }
    }
}
