//! The K-quants: superblocks of 256 columns, whose blocks have integer scales.

use super::{Format, nibbles, or_pairs, or_plane, pairs};
use crate::backend::cpu::simd::Simd;
use crate::gguf::TensorType;

/// Minus the f16 vector at `p` times `f`.
#[inline(always)]
unsafe fn neg_product<S: Simd>(p: *const u8, f: S::F) -> S::F {
    // SAFETY: the caller's head holds 16 f16 at `p`.
    unsafe { S::mul(S::sub(S::splat(0.0), S::load_f16(p.cast())), f) }
}

/// Q4_K and Q5_K: head `[d: 16 f16][dmin: 16 f16]`, block `[scale: 16 u8][min: 16 u8][plane, if any][nibbles]`.
macro_rules! k_min {
    ($name:ident, $plane:expr) => {
        #[doc = concat!(stringify!($name), ": head `[d][dmin]`, block `[scales][mins][plane, if any][nibbles]`.")]
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy)]
        pub struct $name;
        impl Format for $name {
            const TYPE: TensorType = TensorType::$name;
            const HEAD: usize = 64;
            const BLOCK: usize = 32 + if $plane { 64 } else { 0 } + 256;
            const BLOCKS: usize = 8;
            const SUBS: usize = 1;
            const OFFSET_SHIFT: u32 = 0;
            const MIN: bool = true;
            #[inline(always)]
            unsafe fn unpack<S: Simd>(block: *const u8) -> [S::W; 8] {
                // SAFETY: offsets inside a block of BLOCK bytes; so below, and inside the head of 64.
                unsafe {
                    let u = nibbles::<S>(block.add(Self::BLOCK - 256));
                    if $plane { or_plane::<S, true>(u, block.add(32)) } else { u }
                }
            }
            #[inline(always)]
            unsafe fn scale<S: Simd>(head: *const u8, block: *const u8, _: usize) -> S::F {
                // SAFETY: see `unpack`.
                unsafe { S::mul(S::load_f16(head.cast()), S::load_u8(block)) }
            }
            #[inline(always)]
            unsafe fn min<S: Simd>(head: *const u8, block: *const u8, _: usize) -> S::F {
                // SAFETY: see `unpack`.
                unsafe { neg_product::<S>(head.add(32), S::load_u8(block.add(16))) }
            }
        }
    };
}

k_min!(Q4_K, false);
k_min!(Q5_K, true);

/// Head `[d: 16 f16]`, block `[scales: 2 x 16 i8][pairs: bits 4 and 5][nibbles]`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct Q6_K;
impl Format for Q6_K {
    const TYPE: TensorType = TensorType::Q6_K;
    const HEAD: usize = 32;
    const BLOCK: usize = 32 + 128 + 256;
    const BLOCKS: usize = 8;
    const SUBS: usize = 2;
    const OFFSET_SHIFT: u32 = 5;
    const MIN: bool = false;
    #[inline(always)]
    unsafe fn unpack<S: Simd>(block: *const u8) -> [S::W; 8] {
        // SAFETY: offsets inside the block.
        unsafe { or_pairs::<S>(nibbles::<S>(block.add(160)), block.add(32)) }
    }
    #[inline(always)]
    unsafe fn scale<S: Simd>(head: *const u8, block: *const u8, sub: usize) -> S::F {
        // SAFETY: offsets inside head and block.
        unsafe { S::mul(S::load_f16(head.cast()), S::load_i8(block.add(16 * sub))) }
    }
}

/// Head `[d: 16 f16]`, block `[scales: 2 x 16 i8][plane: bit 2][pairs]`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct Q3_K;
impl Format for Q3_K {
    const TYPE: TensorType = TensorType::Q3_K;
    const HEAD: usize = 32;
    const BLOCK: usize = 32 + 64 + 128;
    const BLOCKS: usize = 8;
    const SUBS: usize = 2;
    const OFFSET_SHIFT: u32 = 2;
    const MIN: bool = false;
    #[inline(always)]
    unsafe fn unpack<S: Simd>(block: *const u8) -> [S::W; 8] {
        // SAFETY: offsets inside the block.
        unsafe { or_plane::<S, false>(pairs::<S>(block.add(96)), block.add(32)) }
    }
    #[inline(always)]
    unsafe fn scale<S: Simd>(head: *const u8, block: *const u8, sub: usize) -> S::F {
        // SAFETY: offsets inside head and block.
        unsafe { S::mul(S::load_f16(head.cast()), S::load_i8(block.add(16 * sub))) }
    }
}

/// Head `[d: 16 f16][dmin: 16 f16]`, block `[2 x 16 bytes: scale | min << 4][pairs]`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct Q2_K;
impl Format for Q2_K {
    const TYPE: TensorType = TensorType::Q2_K;
    const HEAD: usize = 64;
    const BLOCK: usize = 32 + 128;
    const BLOCKS: usize = 8;
    const SUBS: usize = 2;
    const OFFSET_SHIFT: u32 = 0;
    const MIN: bool = true;
    #[inline(always)]
    unsafe fn unpack<S: Simd>(block: *const u8) -> [S::W; 8] {
        // SAFETY: offsets inside the block.
        unsafe { pairs::<S>(block.add(32)) }
    }
    #[inline(always)]
    unsafe fn scale<S: Simd>(head: *const u8, block: *const u8, sub: usize) -> S::F {
        // SAFETY: offsets inside head and block.
        unsafe { S::mul(S::load_f16(head.cast()), S::load_nibble::<false>(block.add(16 * sub))) }
    }
    #[inline(always)]
    unsafe fn min<S: Simd>(head: *const u8, block: *const u8, sub: usize) -> S::F {
        // SAFETY: offsets inside head and block.
        unsafe { neg_product::<S>(head.add(32), S::load_nibble::<true>(block.add(16 * sub))) }
    }
}
