//! The lanes as one AVX-512 register; bytes meet both halves of the activations in `vpdpbusd`.

use super::{LANES, Simd, XBlock};
use std::arch::x86_64::*;

/// See the module.
#[derive(Clone, Copy)]
pub struct Avx512;

/// Sums with the high and the low bytes of the activations.
#[derive(Clone, Copy)]
pub struct Acc {
    hi: __m512i,
    lo: __m512i,
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type W = __m512i;
    type Acc = Acc;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        // SAFETY: AVX-512 as the caller promises; so for every block below, which also relies on the caller's
        // pointers being valid for 16 elements of their type.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        // SAFETY: see `splat`.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: __m512) {
        // SAFETY: see `splat`.
        unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())))) }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_nibble<const HIGH: bool>(p: *const u8) -> __m512 {
        // SAFETY: see `splat`.
        unsafe {
            let b = _mm_loadu_si128(p.cast());
            let b = _mm_and_si128(if HIGH { _mm_srli_epi16::<4>(b) } else { b }, _mm_set1_epi8(15));
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(b))
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(a: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_abs_ps(a) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn round(a: __m512) -> __m512i {
        // SAFETY: see `splat`.
        unsafe { _mm512_cvtps_epi32(a) }
    }
    #[inline(always)]
    unsafe fn to_f(a: __m512i) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn pow2(n: __m512i) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(n, _mm512_set1_epi32(127)))) }
    }
    #[inline(always)]
    unsafe fn keep(a: __m512, first: usize, last: usize, fill: f32) -> __m512 {
        let below = |n: usize| if n >= LANES { 0xffff_u32 } else { (1 << n) - 1 };
        let mask = (below(last) & !below(first)) as u16;
        // SAFETY: see `splat`.
        unsafe { _mm512_mask_mov_ps(_mm512_set1_ps(fill), mask, a) }
    }
    #[inline(always)]
    unsafe fn largest(a: __m512) -> f32 {
        // SAFETY: see `splat`.
        unsafe { _mm512_reduce_max_ps(a) }
    }
    #[inline(always)]
    unsafe fn any(a: __m512) -> bool {
        // SAFETY: see `splat`.
        unsafe { _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(a, _mm512_setzero_ps()) != 0 }
    }
    #[inline(always)]
    unsafe fn select_gt(a: __m512, b: __m512, v: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), v) }
    }

    #[inline(always)]
    unsafe fn w_load(p: *const u8) -> __m512i {
        // SAFETY: the caller's pointer holds 64 bytes.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn w_and(a: __m512i, mask: u8) -> __m512i {
        // SAFETY: see `splat`.
        unsafe { _mm512_and_si512(a, _mm512_set1_epi8(mask as i8)) }
    }
    #[inline(always)]
    unsafe fn w_or(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see `splat`.
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn w_shr<const N: u32>(a: __m512i) -> __m512i {
        // SAFETY: see `splat`.
        unsafe { _mm512_srli_epi32::<N>(a) }
    }
    #[inline(always)]
    unsafe fn w_shl<const N: u32>(a: __m512i) -> __m512i {
        // SAFETY: see `splat`.
        unsafe { _mm512_slli_epi32::<N>(a) }
    }
    #[inline(always)]
    unsafe fn w_table(a: __m512i, table: &[u8; 16]) -> __m512i {
        // SAFETY: see `splat`.
        unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), a) }
    }
    #[inline(always)]
    unsafe fn w_load_u8(p: *const u8) -> __m512i {
        // SAFETY: the caller's pointer holds 16 bytes.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn w_load_u16(p: *const u8) -> __m512i {
        // SAFETY: the caller's pointer holds 32 bytes.
        unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn w_mask(a: __m512i, mask: u32) -> __m512i {
        // SAFETY: see `splat`.
        unsafe { _mm512_and_si512(a, _mm512_set1_epi32(mask as i32)) }
    }
    #[inline(always)]
    unsafe fn w_gather(table: &[u32], at: __m512i) -> __m512i {
        // SAFETY: the caller's places are inside the table.
        unsafe { _mm512_i32gather_epi32::<4>(at, table.as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn acc<const SHIFT: u32>(n: i32) -> Acc {
        // SAFETY: see `splat`.
        unsafe { Acc { hi: _mm512_setzero_si512(), lo: _mm512_slli_epi32::<SHIFT>(_mm512_set1_epi32(n)) } }
    }
    #[inline(always)]
    unsafe fn dot4(acc: Acc, w: __m512i, x: &XBlock, g: usize) -> Acc {
        // SAFETY: g is below 8, so both reads are inside `q`.
        unsafe {
            let p = x.q.as_ptr().cast::<i32>();
            let hi = _mm512_set1_epi32(p.add(g).read());
            let lo = _mm512_set1_epi32(p.add(8 + g).read());
            Acc { hi: _mm512_dpbusd_epi32(acc.hi, w, hi), lo: _mm512_dpbusd_epi32(acc.lo, w, lo) }
        }
    }
    #[inline(always)]
    unsafe fn total(acc: Acc) -> __m512i {
        // SAFETY: see `splat`.
        unsafe { _mm512_add_epi32(_mm512_slli_epi32::<8>(acc.hi), acc.lo) }
    }
    /// The high bytes of all 32, then the low bytes, `q = 256 * hi + lo`.
    #[inline(always)]
    unsafe fn encode(a: __m512i, b: __m512i, out: &mut [u8; 64]) {
        // SAFETY: the four stores fill `out`.
        unsafe {
            let p = out.as_mut_ptr();
            for (i, v) in [a, b].into_iter().enumerate() {
                let lo = _mm512_cvtepi32_epi8(v);
                let rest = _mm512_sub_epi32(v, _mm512_cvtepi8_epi32(lo));
                let hi = _mm512_cvtepi32_epi8(_mm512_srai_epi32::<8>(rest));
                _mm_storeu_si128(p.add(16 * i).cast(), hi);
                _mm_storeu_si128(p.add(32 + 16 * i).cast(), lo);
            }
        }
    }
    #[inline(always)]
    unsafe fn sum_i(a: __m512i) -> i32 {
        // SAFETY: see `splat`.
        unsafe { _mm512_reduce_add_epi32(a) }
    }
}
