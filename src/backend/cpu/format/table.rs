//! Four bits that stand for one of sixteen values: a byte shuffle makes these of the nibbles.
//!
//! A value is stored in the table with an offset that makes it positive, which the integer dot products take off again.

use super::{Format, nibbles, through_table};
use crate::backend::cpu::simd::Simd;
use crate::gguf::{E2M1_LEVELS, IQ4_LEVELS, TensorType};

/// The levels plus `2^shift`.
const fn shifted(levels: [i8; 16], shift: u32) -> [u8; 16] {
    let mut out = [0; 16];
    let mut i = 0;
    while i < 16 {
        out[i] = (levels[i] as i32 + (1 << shift)) as u8;
        i += 1;
    }
    out
}

/// Those of IQ4_NL and IQ4_XS, from -127 to 113.
const IQ4_SHIFT: u32 = 7;
const IQ4: [u8; 16] = shifted(IQ4_LEVELS, IQ4_SHIFT);
/// Those of MXFP4 and NVFP4, twice an E2M1, from -12 to 12.
const E2M1_SHIFT: u32 = 4;
const E2M1: [u8; 16] = shifted(E2M1_LEVELS, E2M1_SHIFT);

#[inline(always)]
unsafe fn levels<S: Simd>(p: *const u8, table: &[u8; 16]) -> [S::W; 8] {
    // SAFETY: the caller's block holds 4 vectors from `p` on.
    unsafe { through_table::<S>(nibbles::<S>(p), table) }
}

/// A format of blocks of 32: `[scales: 16 of two bytes][nibbles]`.
macro_rules! simple {
    ($name:ident, $load:ident, $table:expr, $shift:expr) => {
        #[doc = concat!(stringify!($name), ": `[scales: 16 of two bytes][nibbles]`.")]
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy)]
        pub struct $name;
        impl Format for $name {
            const TYPE: TensorType = TensorType::$name;
            const HEAD: usize = 0;
            const BLOCK: usize = 32 + 256;
            const BLOCKS: usize = 1;
            const SUBS: usize = 1;
            const OFFSET_SHIFT: u32 = $shift;
            const MIN: bool = false;
            #[inline(always)]
            unsafe fn unpack<S: Simd>(block: *const u8) -> [S::W; 8] {
                // SAFETY: 4 vectors follow the scales.
                unsafe { levels::<S>(block.add(32), &$table) }
            }
            #[inline(always)]
            unsafe fn scale<S: Simd>(_: *const u8, block: *const u8, _: usize) -> S::F {
                // SAFETY: the block begins with 16 scales.
                unsafe { S::$load(block.cast()) }
            }
        }
    };
}

simple!(IQ4_NL, load_f16, IQ4, IQ4_SHIFT);
// The file's byte is an exponent; bfloat16 has every power of two that it can say.
simple!(Mxfp4, load_bf16, E2M1, E2M1_SHIFT);

/// Head `[d: 16 f16]`, block `[scales: 16 i8][nibbles]`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct IQ4_XS;
impl Format for IQ4_XS {
    const TYPE: TensorType = TensorType::IQ4_XS;
    const HEAD: usize = 32;
    const BLOCK: usize = 16 + 256;
    const BLOCKS: usize = 8;
    const SUBS: usize = 1;
    const OFFSET_SHIFT: u32 = IQ4_SHIFT;
    const MIN: bool = false;
    #[inline(always)]
    unsafe fn unpack<S: Simd>(block: *const u8) -> [S::W; 8] {
        // SAFETY: 4 vectors follow the scales.
        unsafe { levels::<S>(block.add(16), &IQ4) }
    }
    #[inline(always)]
    unsafe fn scale<S: Simd>(head: *const u8, block: *const u8, _: usize) -> S::F {
        // SAFETY: offsets inside head and block.
        unsafe { S::mul(S::load_f16(head.cast()), S::load_i8(block)) }
    }
}

/// `[scales: 2 x 16 f16][nibbles]`: the file's UE4M3 has no number that an f16 lacks.
#[derive(Clone, Copy)]
pub struct Nvfp4;
impl Format for Nvfp4 {
    const TYPE: TensorType = TensorType::Nvfp4;
    const HEAD: usize = 0;
    const BLOCK: usize = 64 + 256;
    const BLOCKS: usize = 1;
    const SUBS: usize = 2;
    const OFFSET_SHIFT: u32 = E2M1_SHIFT;
    const MIN: bool = false;
    #[inline(always)]
    unsafe fn unpack<S: Simd>(block: *const u8) -> [S::W; 8] {
        // SAFETY: 4 vectors follow the scales.
        unsafe { levels::<S>(block.add(64), &E2M1) }
    }
    #[inline(always)]
    unsafe fn scale<S: Simd>(_: *const u8, block: *const u8, sub: usize) -> S::F {
        // SAFETY: the block begins with 2 x 16 scales.
        unsafe { S::load_f16(block.add(32 * sub).cast()) }
    }
}
