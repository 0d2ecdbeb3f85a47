//! How sixteen rows of a quantized matrix lie in memory for the kernels, one type a stored format.
//!
//! A *panel* is 16 consecutive rows. Along its columns it is a sequence of superblocks (32 or 256 columns): a head
//! with the superblock's f16 scales, then its blocks of 32 columns. In a block, quantized values are unsigned and
//! stand in *vectors* of 64 bytes: 16 rows times the 4 columns of one *group* (8 groups in a block):
//!
//! - `nibbles`: 4 vectors; the low nibbles of vector j are group j, the high ones group j + 4;
//! - `plane`: 1 vector; bit g of each byte belongs to group g;
//! - `pairs`: 2 vectors; bits 2f, 2f + 1 of vector h belong to group 4h + f;
//! - `bytes`: 8 vectors, one a group.
//!
//! The value is `scale * (u - OFFSET) + min`. Nothing is lost against the file: the same integers and the same f16
//! scales stand in another order, and a superblock takes the file's bytes, or a little more where scales (K-quants: up
//! to 4%) or signs (IQ2_XXS, IQ2_XS: 12%) are unpacked to whole bits and bytes; TQ1_0, whose digits are not bits, 22%.

mod grid;
mod k;
mod table;
mod ternary;

pub use grid::{IQ1_M, IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
pub use k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
pub use table::{IQ4_NL, IQ4_XS, Mxfp4, Nvfp4};
pub use ternary::{Q1_0, Q2_0, TQ1_0, TQ2_0};

use super::simd::Simd;
use crate::gguf::TensorType;

/// The layout and arithmetic of one stored format.
#[allow(clippy::missing_safety_doc)]
pub trait Format: Copy {
    /// The file's type.
    const TYPE: TensorType;
    /// Bytes before a superblock's blocks.
    const HEAD: usize;
    /// Bytes of a block.
    const BLOCK: usize;
    /// Blocks in a superblock.
    const BLOCKS: usize;
    /// Scales in a block: one for 32 columns or two for 16.
    const SUBS: usize;
    /// log2 of what is subtracted from the stored integer; 0: nothing is.
    const OFFSET_SHIFT: u32;
    /// Whether there is a minimum.
    const MIN: bool;
    /// The 8 groups of a block, as unsigned bytes.
    unsafe fn unpack<S: Simd>(block: *const u8) -> [S::W; 8];
    /// Scale of sub-block `sub`.
    unsafe fn scale<S: Simd>(head: *const u8, block: *const u8, sub: usize) -> S::F;
    /// What is added to each value of the sub-block; only called if `MIN`.
    #[inline(always)]
    unsafe fn min<S: Simd>(_head: *const u8, _block: *const u8, _sub: usize) -> S::F {
        // SAFETY: no memory is touched.
        unsafe { S::splat(0.0) }
    }

    /// Bytes of a superblock of 16 rows.
    const SUPER: usize = Self::HEAD + Self::BLOCKS * Self::BLOCK;
    /// Bytes of a panel with `cols` columns.
    fn panel_bytes(cols: usize) -> usize {
        cols / (32 * Self::BLOCKS) * Self::SUPER
    }
}

/// The low 4 bits of each group.
#[inline(always)]
unsafe fn nibbles<S: Simd>(p: *const u8) -> [S::W; 8] {
    // SAFETY: the caller's block holds 4 vectors from `p` on.
    unsafe {
        let v = [S::w_load(p), S::w_load(p.add(64)), S::w_load(p.add(128)), S::w_load(p.add(192))];
        [
            S::w_and(v[0], 15),
            S::w_and(v[1], 15),
            S::w_and(v[2], 15),
            S::w_and(v[3], 15),
            S::w_and(S::w_shr::<4>(v[0]), 15),
            S::w_and(S::w_shr::<4>(v[1]), 15),
            S::w_and(S::w_shr::<4>(v[2]), 15),
            S::w_and(S::w_shr::<4>(v[3]), 15),
        ]
    }
}

/// Each byte, which is below 16, as that one of the table.
#[inline(always)]
unsafe fn through_table<S: Simd>(mut u: [S::W; 8], table: &[u8; 16]) -> [S::W; 8] {
    for u in &mut u {
        // SAFETY: no memory but the table is touched.
        *u = unsafe { S::w_table(*u, table) };
    }
    u
}

/// Bit 0 of the plane's group g moved to bit `TO` (4 or 2) of group g, or-ed into `u`.
#[inline(always)]
unsafe fn or_plane<S: Simd, const TO4: bool>(u: [S::W; 8], p: *const u8) -> [S::W; 8] {
    // SAFETY: the caller's block holds a vector at `p`.
    unsafe {
        let v = S::w_load(p);
        if TO4 {
            [
                S::w_or(u[0], S::w_and(S::w_shl::<4>(v), 16)),
                S::w_or(u[1], S::w_and(S::w_shl::<3>(v), 16)),
                S::w_or(u[2], S::w_and(S::w_shl::<2>(v), 16)),
                S::w_or(u[3], S::w_and(S::w_shl::<1>(v), 16)),
                S::w_or(u[4], S::w_and(v, 16)),
                S::w_or(u[5], S::w_and(S::w_shr::<1>(v), 16)),
                S::w_or(u[6], S::w_and(S::w_shr::<2>(v), 16)),
                S::w_or(u[7], S::w_and(S::w_shr::<3>(v), 16)),
            ]
        } else {
            [
                S::w_or(u[0], S::w_and(S::w_shl::<2>(v), 4)),
                S::w_or(u[1], S::w_and(S::w_shl::<1>(v), 4)),
                S::w_or(u[2], S::w_and(v, 4)),
                S::w_or(u[3], S::w_and(S::w_shr::<1>(v), 4)),
                S::w_or(u[4], S::w_and(S::w_shr::<2>(v), 4)),
                S::w_or(u[5], S::w_and(S::w_shr::<3>(v), 4)),
                S::w_or(u[6], S::w_and(S::w_shr::<4>(v), 4)),
                S::w_or(u[7], S::w_and(S::w_shr::<5>(v), 4)),
            ]
        }
    }
}

/// The 2-bit fields of each group.
#[inline(always)]
unsafe fn pairs<S: Simd>(p: *const u8) -> [S::W; 8] {
    // SAFETY: the caller's block holds 2 vectors at `p`.
    unsafe {
        let (a, b) = (S::w_load(p), S::w_load(p.add(64)));
        [
            S::w_and(a, 3),
            S::w_and(S::w_shr::<2>(a), 3),
            S::w_and(S::w_shr::<4>(a), 3),
            S::w_and(S::w_shr::<6>(a), 3),
            S::w_and(b, 3),
            S::w_and(S::w_shr::<2>(b), 3),
            S::w_and(S::w_shr::<4>(b), 3),
            S::w_and(S::w_shr::<6>(b), 3),
        ]
    }
}

/// The 2-bit fields of each group as bits 4 and 5, or-ed into `u`.
#[inline(always)]
unsafe fn or_pairs<S: Simd>(u: [S::W; 8], p: *const u8) -> [S::W; 8] {
    // SAFETY: the caller's block holds 2 vectors at `p`.
    unsafe {
        let (a, b) = (S::w_load(p), S::w_load(p.add(64)));
        [
            S::w_or(u[0], S::w_and(S::w_shl::<4>(a), 0x30)),
            S::w_or(u[1], S::w_and(S::w_shl::<2>(a), 0x30)),
            S::w_or(u[2], S::w_and(a, 0x30)),
            S::w_or(u[3], S::w_and(S::w_shr::<2>(a), 0x30)),
            S::w_or(u[4], S::w_and(S::w_shl::<4>(b), 0x30)),
            S::w_or(u[5], S::w_and(S::w_shl::<2>(b), 0x30)),
            S::w_or(u[6], S::w_and(b, 0x30)),
            S::w_or(u[7], S::w_and(S::w_shr::<2>(b), 0x30)),
        ]
    }
}

/// A format whose block has an f16 scale, an f16 minimum if `$min`, a plane if `$plane`, and nibbles.
macro_rules! simple {
    ($name:ident, $min:expr, $plane:expr, $shift:expr) => {
        #[doc = concat!(stringify!($name), ": `[d: 16 f16][m: 16 f16, if any][plane, if any][nibbles]`.")]
        #[derive(Clone, Copy)]
        pub struct $name;
        impl Format for $name {
            const TYPE: TensorType = TensorType::$name;
            const HEAD: usize = 0;
            const BLOCK: usize = 32 + if $min { 32 } else { 0 } + if $plane { 64 } else { 0 } + 256;
            const BLOCKS: usize = 1;
            const SUBS: usize = 1;
            const OFFSET_SHIFT: u32 = $shift;
            const MIN: bool = $min;
            #[inline(always)]
            unsafe fn unpack<S: Simd>(block: *const u8) -> [S::W; 8] {
                // SAFETY: offsets inside a block of BLOCK bytes; so below.
                unsafe {
                    let u = nibbles::<S>(block.add(Self::BLOCK - 256));
                    if $plane { or_plane::<S, true>(u, block.add(Self::BLOCK - 320)) } else { u }
                }
            }
            #[inline(always)]
            unsafe fn scale<S: Simd>(_: *const u8, block: *const u8, _: usize) -> S::F {
                // SAFETY: see `unpack`.
                unsafe { S::load_f16(block.cast()) }
            }
            #[inline(always)]
            unsafe fn min<S: Simd>(_: *const u8, block: *const u8, _: usize) -> S::F {
                // SAFETY: see `unpack`.
                unsafe { S::load_f16(block.add(32).cast()) }
            }
        }
    };
}

simple!(Q4_0, false, false, 3);
simple!(Q4_1, true, false, 0);
simple!(Q5_0, false, true, 4);
simple!(Q5_1, true, true, 0);

/// `[d: 16 f16][bytes]`, stored as the file's i8 plus 128.
#[derive(Clone, Copy)]
pub struct Q8_0;
impl Format for Q8_0 {
    const TYPE: TensorType = TensorType::Q8_0;
    const HEAD: usize = 0;
    const BLOCK: usize = 32 + 512;
    const BLOCKS: usize = 1;
    const SUBS: usize = 1;
    const OFFSET_SHIFT: u32 = 7;
    const MIN: bool = false;
    #[inline(always)]
    unsafe fn unpack<S: Simd>(block: *const u8) -> [S::W; 8] {
        // SAFETY: 8 vectors follow the scales.
        unsafe {
            let p = block.add(32);
            [
                S::w_load(p),
                S::w_load(p.add(64)),
                S::w_load(p.add(128)),
                S::w_load(p.add(192)),
                S::w_load(p.add(256)),
                S::w_load(p.add(320)),
                S::w_load(p.add(384)),
                S::w_load(p.add(448)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn scale<S: Simd>(_: *const u8, block: *const u8, _: usize) -> S::F {
        // SAFETY: the block begins with 16 f16.
        unsafe { S::load_f16(block.cast()) }
    }
}

/// Runs `$body` with `$f` naming the [`Format`] of a quantized type; `$other` for the float types.
macro_rules! with_format {
    ($ty:expr, $f:ident => $body:expr, $other:expr) => {{
        use $crate::backend::cpu::format as formats;
        use $crate::gguf::TensorType;
        macro_rules! arm {
            ($t:ident) => {{
                type $f = formats::$t;
                $body
            }};
        }
        match $ty {
            TensorType::Q4_0 => arm!(Q4_0),
            TensorType::Q4_1 => arm!(Q4_1),
            TensorType::Q5_0 => arm!(Q5_0),
            TensorType::Q5_1 => arm!(Q5_1),
            TensorType::Q8_0 => arm!(Q8_0),
            TensorType::Q2_K => arm!(Q2_K),
            TensorType::Q3_K => arm!(Q3_K),
            TensorType::Q4_K => arm!(Q4_K),
            TensorType::Q5_K => arm!(Q5_K),
            TensorType::Q6_K => arm!(Q6_K),
            TensorType::IQ4_NL => arm!(IQ4_NL),
            TensorType::IQ4_XS => arm!(IQ4_XS),
            TensorType::Mxfp4 => arm!(Mxfp4),
            TensorType::Nvfp4 => arm!(Nvfp4),
            TensorType::IQ1_M => arm!(IQ1_M),
            TensorType::IQ1_S => arm!(IQ1_S),
            TensorType::IQ2_S => arm!(IQ2_S),
            TensorType::IQ2_XS => arm!(IQ2_XS),
            TensorType::IQ2_XXS => arm!(IQ2_XXS),
            TensorType::IQ3_S => arm!(IQ3_S),
            TensorType::IQ3_XXS => arm!(IQ3_XXS),
            TensorType::Q1_0 => arm!(Q1_0),
            TensorType::Q2_0 => arm!(Q2_0),
            TensorType::TQ1_0 => arm!(TQ1_0),
            TensorType::TQ2_0 => arm!(TQ2_0),
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 => $other,
        }
    }};
}
pub(super) use with_format;
