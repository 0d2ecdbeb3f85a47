//! The lanes as two AVX2 registers; bytes are widened and multiplied with `vpmaddwd`, which cannot saturate.

use super::{LANES, Simd, XBlock};
use std::arch::x86_64::*;

/// See the module.
#[derive(Clone, Copy)]
pub struct Avx2;

type F = [__m256; 2];
type I = [__m256i; 2];

/// Lanes whose index is at least `from` (for both halves).
#[inline(always)]
unsafe fn at_least(from: usize) -> I {
    // SAFETY: AVX2, as the caller promises; so for every block below, which also relies on the caller's pointers
    // being valid for 16 elements of their type.
    unsafe {
        let limit = _mm256_set1_epi32(from as i32 - 1);
        [
            _mm256_cmpgt_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), limit),
            _mm256_cmpgt_epi32(_mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15), limit),
        ]
    }
}

/// Writes one function over both halves.
macro_rules! halves {
    ($f:ident, $($a:expr),*) => {
        // SAFETY: see `at_least`.
        unsafe { [$f($($a[0]),*), $f($($a[1]),*)] }
    };
}

impl Simd for Avx2 {
    type F = F;
    type I = I;
    type W = I;
    type Acc = I;

    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        // SAFETY: see `at_least`.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F {
        // SAFETY: see `at_least`.
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: F) {
        // SAFETY: see `at_least`.
        unsafe {
            _mm256_storeu_ps(p, v[0]);
            _mm256_storeu_ps(p.add(8), v[1]);
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> F {
        // SAFETY: see `at_least`.
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast()))] }
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: F) {
        // SAFETY: see `at_least`.
        unsafe {
            _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[0]));
            _mm_storeu_si128(p.add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[1]));
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> F {
        // SAFETY: see `at_least`.
        unsafe {
            let a = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            let b = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(8).cast()));
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(a)), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(b))]
        }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> F {
        // SAFETY: see `at_least`.
        unsafe {
            let b = _mm_loadu_si128(p.cast());
            Self::to_f([_mm256_cvtepu8_epi32(b), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(b))])
        }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> F {
        // SAFETY: see `at_least`.
        unsafe {
            let b = _mm_loadu_si128(p.cast());
            Self::to_f([_mm256_cvtepi8_epi32(b), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(b))])
        }
    }
    #[inline(always)]
    unsafe fn load_nibble<const HIGH: bool>(p: *const u8) -> F {
        // SAFETY: see `at_least`.
        unsafe {
            let b = _mm_loadu_si128(p.cast());
            let b = _mm_and_si128(if HIGH { _mm_srli_epi16::<4>(b) } else { b }, _mm_set1_epi8(15));
            Self::to_f([_mm256_cvtepu8_epi32(b), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(b))])
        }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        halves!(_mm256_add_ps, a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        halves!(_mm256_sub_ps, a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        halves!(_mm256_mul_ps, a, b)
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        halves!(_mm256_div_ps, a, b)
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        halves!(_mm256_max_ps, a, b)
    }
    #[inline(always)]
    unsafe fn abs(a: F) -> F {
        // SAFETY: see `at_least`.
        let sign = unsafe { [_mm256_set1_ps(-0.0); 2] };
        halves!(_mm256_andnot_ps, sign, a)
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        halves!(_mm256_fmadd_ps, a, b, c)
    }
    #[inline(always)]
    unsafe fn round(a: F) -> I {
        halves!(_mm256_cvtps_epi32, a)
    }
    #[inline(always)]
    unsafe fn to_f(a: I) -> F {
        halves!(_mm256_cvtepi32_ps, a)
    }
    #[inline(always)]
    unsafe fn pow2(n: I) -> F {
        // SAFETY: see `at_least`.
        unsafe { n.map(|n| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))))) }
    }
    #[inline(always)]
    unsafe fn keep(a: F, first: usize, last: usize, fill: f32) -> F {
        // SAFETY: see `at_least`.
        unsafe {
            let (from, past, fill) = (at_least(first), at_least(last), _mm256_set1_ps(fill));
            let one = |i: usize| {
                let inside = _mm256_castsi256_ps(_mm256_andnot_si256(past[i], from[i]));
                _mm256_blendv_ps(fill, a[i], inside)
            };
            [one(0), one(1)]
        }
    }
    #[inline(always)]
    unsafe fn largest(a: F) -> f32 {
        // SAFETY: see `at_least`.
        unsafe {
            let v = _mm256_max_ps(a[0], a[1]);
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
    }
    #[inline(always)]
    unsafe fn any(a: F) -> bool {
        // SAFETY: see `at_least`.
        unsafe {
            let zero = _mm256_setzero_ps();
            let (x, y) = (_mm256_cmp_ps::<_CMP_NEQ_UQ>(a[0], zero), _mm256_cmp_ps::<_CMP_NEQ_UQ>(a[1], zero));
            _mm256_movemask_ps(_mm256_or_ps(x, y)) != 0
        }
    }
    #[inline(always)]
    unsafe fn select_gt(a: F, b: F, v: F) -> F {
        // SAFETY: see `at_least`.
        unsafe {
            [
                _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(a[0], b[0]), v[0]),
                _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(a[1], b[1]), v[1]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn w_load(p: *const u8) -> I {
        // SAFETY: the caller's pointer holds 64 bytes.
        unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())] }
    }
    #[inline(always)]
    unsafe fn w_and(a: I, mask: u8) -> I {
        // SAFETY: see `at_least`.
        let mask = unsafe { [_mm256_set1_epi8(mask as i8); 2] };
        halves!(_mm256_and_si256, a, mask)
    }
    #[inline(always)]
    unsafe fn w_or(a: I, b: I) -> I {
        halves!(_mm256_or_si256, a, b)
    }
    #[inline(always)]
    unsafe fn w_shr<const N: u32>(a: I) -> I {
        // SAFETY: see `at_least`.
        let n = unsafe { _mm_cvtsi32_si128(N as i32) };
        // SAFETY: as above.
        unsafe { [_mm256_srl_epi32(a[0], n), _mm256_srl_epi32(a[1], n)] }
    }
    #[inline(always)]
    unsafe fn w_shl<const N: u32>(a: I) -> I {
        // SAFETY: see `at_least`.
        let n = unsafe { _mm_cvtsi32_si128(N as i32) };
        // SAFETY: as above.
        unsafe { [_mm256_sll_epi32(a[0], n), _mm256_sll_epi32(a[1], n)] }
    }
    #[inline(always)]
    unsafe fn w_table(a: I, table: &[u8; 16]) -> I {
        // SAFETY: see `at_least`.
        let table = unsafe { [_mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())); 2] };
        halves!(_mm256_shuffle_epi8, table, a)
    }
    #[inline(always)]
    unsafe fn w_load_u8(p: *const u8) -> I {
        // SAFETY: the caller's pointer holds 16 bytes.
        unsafe {
            let b = _mm_loadu_si128(p.cast());
            [_mm256_cvtepu8_epi32(b), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(b))]
        }
    }
    #[inline(always)]
    unsafe fn w_load_u16(p: *const u8) -> I {
        // SAFETY: the caller's pointer holds 32 bytes.
        unsafe {
            let (a, b) = (_mm_loadu_si128(p.cast()), _mm_loadu_si128(p.add(16).cast()));
            [_mm256_cvtepu16_epi32(a), _mm256_cvtepu16_epi32(b)]
        }
    }
    #[inline(always)]
    unsafe fn w_mask(a: I, mask: u32) -> I {
        // SAFETY: see `at_least`.
        let mask = unsafe { [_mm256_set1_epi32(mask as i32); 2] };
        halves!(_mm256_and_si256, a, mask)
    }
    #[inline(always)]
    unsafe fn w_gather(table: &[u32], at: I) -> I {
        let p = table.as_ptr().cast();
        // SAFETY: the caller's places are inside the table.
        unsafe { [_mm256_i32gather_epi32::<4>(p, at[0]), _mm256_i32gather_epi32::<4>(p, at[1])] }
    }

    #[inline(always)]
    unsafe fn acc<const SHIFT: u32>(n: i32) -> I {
        // SAFETY: see `at_least`.
        unsafe { [_mm256_set1_epi32(n << SHIFT); 2] }
    }
    #[inline(always)]
    unsafe fn dot4(acc: I, w: I, x: &XBlock, g: usize) -> I {
        // SAFETY: g is below 8, so both reads are inside `q`.
        unsafe {
            let p = x.q.as_ptr().add(8 * g).cast::<i32>();
            let (even, odd) = (_mm256_set1_epi32(p.read_unaligned()), _mm256_set1_epi32(p.add(1).read_unaligned()));
            let low = _mm256_set1_epi16(0xff);
            let one = |i: usize| {
                let a = _mm256_madd_epi16(_mm256_and_si256(w[i], low), even);
                let b = _mm256_madd_epi16(_mm256_srli_epi16::<8>(w[i]), odd);
                _mm256_add_epi32(acc[i], _mm256_add_epi32(a, b))
            };
            [one(0), one(1)]
        }
    }
    #[inline(always)]
    unsafe fn total(acc: I) -> I {
        acc
    }
    /// Per group of four: elements 0, 2 and then 1, 3.
    #[inline(always)]
    unsafe fn encode(a: I, b: I, out: &mut [u8; 64]) {
        // SAFETY: the two stores fill `out`.
        unsafe {
            let order = _mm256_setr_epi8(
                0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, //
                0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15,
            );
            for (i, v) in [a, b].into_iter().enumerate() {
                // Packing works in halves of 128 bits: quarters 0 2 1 3 put them in order.
                let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(v[0], v[1]));
                let p = out.as_mut_ptr().add(32 * i);
                _mm256_storeu_si256(p.cast(), _mm256_shuffle_epi8(packed, order));
            }
        }
    }
    #[inline(always)]
    unsafe fn sum_i(a: I) -> i32 {
        // SAFETY: see `at_least`.
        unsafe {
            let v = _mm256_add_epi32(a[0], a[1]);
            let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
            _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v)))
        }
    }
}

const _: () = assert!(LANES == 16);
