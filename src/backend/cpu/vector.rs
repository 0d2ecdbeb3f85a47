//! Row kernels between the matrices: norms, sums, rotation, quantization of activations.
//!
//! Rows are `n` contiguous f32; the last `n % 16` elements go through the same arithmetic in a padded vector.

use super::simd::{Isa, LANES, Simd, X_MAX, XBlock, dispatch};
use crate::model::{Norm, RopePairing};

/// The vector of the up to 16 elements at `p` of which there are `n`, and behind them `fill`.
#[inline(always)]
pub unsafe fn load_n<S: Simd>(p: *const f32, n: usize, fill: f32) -> S::F {
    // SAFETY: reads n elements.
    unsafe {
        if n >= LANES {
            S::load(p)
        } else {
            let mut v = [fill; LANES];
            std::ptr::copy_nonoverlapping(p, v.as_mut_ptr(), n);
            S::load(v.as_ptr())
        }
    }
}

/// Stores those of its elements of which there are `n`.
#[inline(always)]
pub unsafe fn store_n<S: Simd>(p: *mut f32, n: usize, v: S::F) {
    // SAFETY: writes n elements.
    unsafe {
        if n >= LANES {
            S::store(p, v);
        } else {
            std::ptr::copy_nonoverlapping(S::to_array(v).as_ptr(), p, n);
        }
    }
}

/// `y` is `x` normalized so, times `weight`; `y` may be `x`.
///
/// # Safety
/// `isa` is available; x, weight and y hold n elements.
pub unsafe fn norm(isa: Isa, kind: Norm, x: *const f32, weight: *const f32, y: *mut f32, n: usize, eps: f32) {
    // SAFETY: the caller's promise.
    unsafe {
        match kind {
            Norm::Rms => rms_norm(isa, x, weight, y, n, eps),
            Norm::Layer => layer_norm(isa, x, weight, y, n, eps),
        }
    }
}

dispatch! {
    /// `y = x / sqrt(mean(x^2) + eps) * weight`; `y` may be `x`.
    pub fn rms_norm(x: *const f32, weight: *const f32, y: *mut f32, n: usize, eps: f32) = rms_norm_row
}

#[inline(always)]
unsafe fn rms_norm_row<S: Simd>(x: *const f32, weight: *const f32, y: *mut f32, n: usize, eps: f32) {
    // SAFETY: x, weight and y hold n elements.
    unsafe {
        let mut squares = S::splat(0.0);
        for i in (0..n).step_by(LANES) {
            let v = load_n::<S>(x.add(i), n - i, 0.0);
            squares = S::fma(v, v, squares);
        }
        let scale = S::splat(1.0 / (S::sum(squares) / n as f32 + eps).sqrt());
        for i in (0..n).step_by(LANES) {
            let v = S::mul(load_n::<S>(x.add(i), n - i, 0.0), scale);
            store_n::<S>(y.add(i), n - i, S::mul(v, load_n::<S>(weight.add(i), n - i, 0.0)));
        }
    }
}

dispatch! {
    /// `y = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight`; `y` may be `x`.
    pub fn layer_norm(x: *const f32, weight: *const f32, y: *mut f32, n: usize, eps: f32) = layer_norm_row
}

#[inline(always)]
unsafe fn layer_norm_row<S: Simd>(x: *const f32, weight: *const f32, y: *mut f32, n: usize, eps: f32) {
    // SAFETY: x, weight and y hold n elements.
    unsafe {
        let mut sum = S::splat(0.0);
        for i in (0..n).step_by(LANES) {
            sum = S::add(sum, load_n::<S>(x.add(i), n - i, 0.0));
        }
        let mean = S::sum(sum) / n as f32;
        let mut squares = S::splat(0.0);
        for i in (0..n).step_by(LANES) {
            // What is behind the end is the mean, and adds nothing.
            let v = S::sub(load_n::<S>(x.add(i), n - i, mean), S::splat(mean));
            squares = S::fma(v, v, squares);
        }
        let scale = S::splat(1.0 / (S::sum(squares) / n as f32 + eps).sqrt());
        for i in (0..n).step_by(LANES) {
            let v = S::mul(S::sub(load_n::<S>(x.add(i), n - i, 0.0), S::splat(mean)), scale);
            store_n::<S>(y.add(i), n - i, S::mul(v, load_n::<S>(weight.add(i), n - i, 0.0)));
        }
    }
}

dispatch! {
    /// `x += scale * y`, rounded once; with a scale of 1 a sum.
    pub fn add(x: *mut f32, y: *const f32, scale: f32, n: usize) = add_row
}

#[inline(always)]
unsafe fn add_row<S: Simd>(x: *mut f32, y: *const f32, scale: f32, n: usize) {
    // SAFETY: both hold n elements.
    unsafe {
        for i in (0..n).step_by(LANES) {
            let y = load_n::<S>(y.add(i), n - i, 0.0);
            store_n::<S>(x.add(i), n - i, S::fma(y, S::splat(scale), load_n::<S>(x.add(i), n - i, 0.0)));
        }
    }
}

/// `1 - 2 / (e^2x + 1)`, which saturates at both ends.
#[inline(always)]
pub unsafe fn tanh<S: Simd>(x: S::F) -> S::F {
    // SAFETY: as the caller's.
    unsafe {
        // Beyond +-20 the result is +-1 in f32; the bound keeps e^2x finite.
        let x = S::max(x, S::splat(-20.0));
        let x = S::sub(S::splat(0.0), S::max(S::sub(S::splat(0.0), x), S::splat(-20.0)));
        let e = S::exp(S::add(x, x));
        S::sub(S::splat(1.0), S::div(S::splat(2.0), S::add(e, S::splat(1.0))))
    }
}

dispatch! {
    /// `x = cap * tanh(x / cap)`.
    pub fn softcap(x: *mut f32, n: usize, cap: f32) = softcap_row
}

#[inline(always)]
unsafe fn softcap_row<S: Simd>(x: *mut f32, n: usize, cap: f32) {
    // SAFETY: x holds n elements.
    unsafe {
        for i in (0..n).step_by(LANES) {
            let v = S::div(load_n::<S>(x.add(i), n - i, 0.0), S::splat(cap));
            store_n::<S>(x.add(i), n - i, S::mul(S::splat(cap), tanh::<S>(v)));
        }
    }
}

/// `cap * tanh(x / cap)` for attention scores.
#[inline(always)]
pub unsafe fn softcap_lanes<S: Simd>(x: S::F, cap: f32) -> S::F {
    // SAFETY: as the caller's.
    unsafe { S::mul(S::splat(cap), tanh::<S>(S::div(x, S::splat(cap)))) }
}

dispatch! {
    /// Quantizes `n / 32` blocks; a block with a value that is not finite gets a NaN scale.
    pub fn quantize(x: *const f32, out: *mut XBlock, n: usize) = quantize_row
}

#[inline(always)]
unsafe fn quantize_row<S: Simd>(x: *const f32, out: *mut XBlock, n: usize) {
    for k in 0..n / 32 {
        // SAFETY: block k is inside x and out.
        unsafe {
            let (a, b) = (S::load(x.add(32 * k)), S::load(x.add(32 * k + LANES)));
            let largest = S::largest(S::max(S::abs(a), S::abs(b)));
            // x - x is zero exactly where x is finite.
            let finite = !S::any(S::add(S::sub(a, a), S::sub(b, b)));
            let block = &mut *out.add(k);
            if !finite || largest < 1e-30 {
                *block = XBlock::ZERO;
                if !finite {
                    block.d = f32::NAN;
                    block.sum = [f32::NAN; 3];
                }
                continue;
            }
            let inverse = S::splat(X_MAX / largest);
            let d = largest / X_MAX;
            let (qa, qb) = (S::round(S::mul(a, inverse)), S::round(S::mul(b, inverse)));
            S::encode(qa, qb, &mut block.q);
            let (first, second) = (S::sum_i(qa), S::sum_i(qb));
            block.d = d;
            block.neg_sum = [-(first + second), -first, -second];
            block.sum = [d * (first + second) as f32, d * first as f32, d * second as f32];
        }
    }
}

/// Turns pairs of a head; `table` is `[n_rot / 2]` of (cos, sin).
pub fn rope(head: &mut [f32], table: &[(f32, f32)], pairing: RopePairing) {
    for (i, &(cos, sin)) in table.iter().enumerate() {
        let (a, b) = pairing.pair(i, table.len());
        let (x, y) = (head[a], head[b]);
        head[a] = x * cos - y * sin;
        head[b] = x * sin + y * cos;
    }
}
