//! One or two bits that stand for -1, 0, 1 and 2, or for -1 and 1, times an f16 scale of 256, 128 or 64 columns.
//!
//! The bits are unpacked where a shift less leaves them, four or eight times as large, and the scale is a quarter of the stored one.

use super::Format;
use super::grid::plane_at_3;
use crate::backend::cpu::simd::Simd;
use crate::gguf::TensorType;

/// Two bits of each group, times four.
#[inline(always)]
unsafe fn pairs_at_2<S: Simd>(p: *const u8) -> [S::W; 8] {
    // SAFETY: the caller's block holds 2 vectors at `p`.
    unsafe {
        let (a, b) = (S::w_load(p), S::w_load(p.add(64)));
        [
            S::w_and(S::w_shl::<2>(a), 12),
            S::w_and(a, 12),
            S::w_and(S::w_shr::<2>(a), 12),
            S::w_and(S::w_shr::<4>(a), 12),
            S::w_and(S::w_shl::<2>(b), 12),
            S::w_and(b, 12),
            S::w_and(S::w_shr::<2>(b), 12),
            S::w_and(S::w_shr::<4>(b), 12),
        ]
    }
}

/// A format of a head `[d: 16 f16]` and `$blocks` blocks of `$block` bytes.
macro_rules! ternary {
    ($name:ident, $blocks:expr, $block:expr, $unpack:ident) => {
        #[doc = concat!(stringify!($name), ": a head `[d: 16 f16]`, blocks of bits.")]
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy)]
        pub struct $name;
        impl Format for $name {
            const TYPE: TensorType = TensorType::$name;
            const HEAD: usize = 32;
            const BLOCK: usize = $block;
            const BLOCKS: usize = $blocks;
            const SUBS: usize = 1;
            const OFFSET_SHIFT: u32 = 2;
            const MIN: bool = false;
            #[inline(always)]
            unsafe fn unpack<S: Simd>(block: *const u8) -> [S::W; 8] {
                // SAFETY: the block is as many vectors.
                unsafe { $unpack::<S>(block) }
            }
            #[inline(always)]
            unsafe fn scale<S: Simd>(head: *const u8, _: *const u8, _: usize) -> S::F {
                // SAFETY: the head holds 16 f16.
                unsafe { S::mul(S::load_f16(head.cast()), S::splat(0.25)) }
            }
        }
    };
}

// TQ1_0's digits to the base of 3 take two bits each here, a fifth more than in the file.
ternary!(TQ1_0, 8, 128, pairs_at_2);
ternary!(TQ2_0, 8, 128, pairs_at_2);
ternary!(Q2_0, 2, 128, pairs_at_2);
ternary!(Q1_0, 4, 64, plane_at_3);
