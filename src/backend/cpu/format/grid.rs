//! Types of code books: a gather finds an entry's codes, a byte shuffle makes levels of these and of the signs.
//!
//! Weights stay the indices that they are in the file, for what they would be expanded to takes two to four times the memory. A book's
//! table here has 32 bits an entry, 1 to 4 KiB in all and 16 for IQ1, which stay in the first-level cache.

use super::{Format, or_plane, through_table};
use crate::backend::cpu::simd::Simd;
use crate::gguf::{IQ1_LEVELS, IQ2_LEVELS, IQ3_S_LEVELS, IQ3_XXS_LEVELS, TensorType, grids};

/// Entries of eight codes: byte j has the codes of the elements j and, above it, j + 4.
const fn eights<const N: usize>(book: &[u32]) -> [u32; N] {
    let mut out = [0; N];
    let mut i = 0;
    while i < N {
        let mut j = 0;
        while j < 4 {
            let codes = book[i] >> (4 * j);
            out[i] |= (codes & 15 | (codes >> 16 & 15) << 4) << (8 * j);
            j += 1;
        }
        i += 1;
    }
    out
}

/// Entries of four codes: byte j has that of the element j.
const fn fours<const N: usize>(book: &[u16]) -> [u32; N] {
    let mut out = [0; N];
    let mut i = 0;
    while i < N {
        let mut j = 0;
        while j < 4 {
            out[i] |= (book[i] as u32 >> (4 * j) & 15) << (8 * j);
            j += 1;
        }
        i += 1;
    }
    out
}

/// IQ1's entries twice: from 2048 on with bit 2 in each code, for the levels where 1/8 is taken off.
const fn both() -> [u32; 4096] {
    let once: [u32; 2048] = eights(&grids::IQ1_S);
    let mut out = [0; 4096];
    let mut i = 0;
    while i < 4096 {
        out[i] = once[i % 2048] | if i < 2048 { 0 } else { 0x4444_4444 };
        i += 1;
    }
    out
}

static IQ2_XXS_BOOK: [u32; 256] = eights(&grids::IQ2_XXS);
static IQ2_XS_BOOK: [u32; 512] = eights(&grids::IQ2_XS);
static IQ2_S_BOOK: [u32; 1024] = eights(&grids::IQ2_S);
static IQ3_XXS_BOOK: [u32; 256] = fours(&grids::IQ3_XXS);
static IQ3_S_BOOK: [u32; 512] = fours(&grids::IQ3_S);
static IQ1_BOOK: [u32; 4096] = both();

/// Levels plus `2^shift` by code, from the place `minus` on the negative ones.
const fn signed(plus: &[i8], negative: &[i8], minus: usize, shift: u32) -> [u8; 16] {
    let mut out = [0; 16];
    let mut i = 0;
    while i < plus.len() {
        out[i] = (plus[i] as i32 + (1 << shift)) as u8;
        out[minus + i] = (negative[i] as i32 + (1 << shift)) as u8;
        i += 1;
    }
    out
}

const fn negated<const N: usize>(levels: [i8; N]) -> [i8; N] {
    let mut out = levels;
    let mut i = 0;
    while i < N {
        out[i] = -out[i];
        i += 1;
    }
    out
}

const IQ2: [u8; 16] = signed(&IQ2_LEVELS, &negated(IQ2_LEVELS), 4, 7);
const IQ3_XXS_SIGNED: [u8; 16] = signed(&IQ3_XXS_LEVELS, &negated(IQ3_XXS_LEVELS), 8, 7);
const IQ3_S_SIGNED: [u8; 16] = signed(&IQ3_S_LEVELS, &negated(IQ3_S_LEVELS), 8, 4);
const IQ1: [u8; 16] = signed(&IQ1_LEVELS[0], &IQ1_LEVELS[1], 4, 4);

/// Bit g of the plane's bytes as bit 3 of group g.
#[inline(always)]
pub(super) unsafe fn plane_at_3<S: Simd>(p: *const u8) -> [S::W; 8] {
    // SAFETY: the caller's block holds a vector at `p`.
    unsafe {
        let v = S::w_load(p);
        [
            S::w_and(S::w_shl::<3>(v), 8),
            S::w_and(S::w_shl::<2>(v), 8),
            S::w_and(S::w_shl::<1>(v), 8),
            S::w_and(v, 8),
            S::w_and(S::w_shr::<1>(v), 8),
            S::w_and(S::w_shr::<2>(v), 8),
            S::w_and(S::w_shr::<3>(v), 8),
            S::w_and(S::w_shr::<4>(v), 8),
        ]
    }
}

/// An index: a byte of `low`, from bit `LOW` on, and above it what `mask` leaves of `high` from bit `HIGH` on.
#[inline(always)]
unsafe fn index<S: Simd, const LOW: u32, const HIGH: u32>(low: S::W, high: S::W, mask: u32) -> S::W {
    // SAFETY: no memory is touched.
    unsafe {
        let low = S::w_mask(S::w_shr::<LOW>(low), 255);
        if mask == 0 { low } else { S::w_or(low, S::w_shl::<8>(S::w_mask(S::w_shr::<HIGH>(high), mask))) }
    }
}

/// The codes of eight groups, of which an index has two: four indices.
#[inline(always)]
unsafe fn codes<S: Simd>(book: &[u32], at: [S::W; 4]) -> [S::W; 8] {
    // SAFETY: the caller's indices are places of the book.
    unsafe {
        let e =
            [S::w_gather(book, at[0]), S::w_gather(book, at[1]), S::w_gather(book, at[2]), S::w_gather(book, at[3])];
        [
            S::w_and(e[0], 15),
            S::w_and(S::w_shr::<4>(e[0]), 15),
            S::w_and(e[1], 15),
            S::w_and(S::w_shr::<4>(e[1]), 15),
            S::w_and(e[2], 15),
            S::w_and(S::w_shr::<4>(e[2]), 15),
            S::w_and(e[3], 15),
            S::w_and(S::w_shr::<4>(e[3]), 15),
        ]
    }
}

/// `d (2 n + 1) / 2^k` for numbers of a nibble: `2 n + 1` over `2^k` is `step n + first`, exactly.
#[inline(always)]
unsafe fn odd_scale<S: Simd, const HIGH: bool>(head: *const u8, numbers: *const u8, first: f32) -> S::F {
    // SAFETY: the caller's head holds 16 f16, its block 16 bytes of numbers.
    unsafe {
        let number = S::load_nibble::<HIGH>(numbers);
        S::mul(S::load_f16(head.cast()), S::fma(number, S::splat(2.0 * first), S::splat(first)))
    }
}

/// A format of a head `[d: 16 f16]` and blocks `[numbers: 16 bytes, n of the first half, of the second above it]`, then as `$unpack` says.
macro_rules! grid {
    ($name:ident, $subs:expr, $block:expr, $shift:expr, $first:expr, |$p:ident| $unpack:expr) => {
        #[doc = concat!(stringify!($name), ": a head `[d: 16 f16]`, blocks of numbers, indices and signs.")]
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy)]
        pub struct $name;
        impl Format for $name {
            const TYPE: TensorType = TensorType::$name;
            const HEAD: usize = 32;
            const BLOCK: usize = 16 + $block;
            const BLOCKS: usize = 8;
            const SUBS: usize = $subs;
            const OFFSET_SHIFT: u32 = $shift;
            const MIN: bool = false;
            #[inline(always)]
            unsafe fn unpack<S: Simd>(block: *const u8) -> [S::W; 8] {
                // SAFETY: offsets inside a block of BLOCK bytes.
                unsafe {
                    let $p = block.add(16);
                    $unpack
                }
            }
            #[inline(always)]
            unsafe fn scale<S: Simd>(head: *const u8, block: *const u8, sub: usize) -> S::F {
                // SAFETY: the head, and the block's numbers.
                unsafe {
                    if sub == 0 {
                        odd_scale::<S, false>(head, block, $first)
                    } else {
                        odd_scale::<S, true>(head, block, $first)
                    }
                }
            }
        }
    };
}

/// Levels of IQ2: `[low: 64 bytes, an index's in a lane's byte][signs: a plane][high: 16 bytes, two bits an index, if MASK is not 0]`.
#[inline(always)]
unsafe fn iq2<S: Simd, const MASK: u32>(book: &[u32], p: *const u8) -> [S::W; 8] {
    // SAFETY: the caller's block holds these.
    unsafe {
        let low = S::w_load(p);
        let high = if MASK == 0 { low } else { S::w_load_u8(p.add(128)) };
        let at = [
            index::<S, 0, 0>(low, high, MASK),
            index::<S, 8, 2>(low, high, MASK),
            index::<S, 16, 4>(low, high, MASK),
            index::<S, 24, 6>(low, high, MASK),
        ];
        through_table::<S>(or_plane::<S, false>(codes::<S>(book, at), p.add(64)), &IQ2)
    }
}

grid!(IQ2_XXS, 1, 128, 7, 0.125, |p| iq2::<S, 0>(&IQ2_XXS_BOOK, p));
grid!(IQ2_XS, 2, 144, 7, 0.125, |p| iq2::<S, 1>(&IQ2_XS_BOOK, p));
grid!(IQ2_S, 2, 144, 7, 0.125, |p| iq2::<S, 3>(&IQ2_S_BOOK, p));

/// Levels of IQ3: `[low: 2 x 64 bytes, of the groups' indices][signs: a plane][high: 16 bytes, a bit an index, if MASK is not 0]`.
#[inline(always)]
unsafe fn iq3<S: Simd, const MASK: u32>(book: &[u32], table: &[u8; 16], p: *const u8) -> [S::W; 8] {
    // SAFETY: the caller's block holds these; indices are places of the book.
    unsafe {
        let (a, b) = (S::w_load(p), S::w_load(p.add(64)));
        let high = if MASK == 0 { a } else { S::w_load_u8(p.add(192)) };
        let at = [
            index::<S, 0, 0>(a, high, MASK),
            index::<S, 8, 1>(a, high, MASK),
            index::<S, 16, 2>(a, high, MASK),
            index::<S, 24, 3>(a, high, MASK),
            index::<S, 0, 4>(b, high, MASK),
            index::<S, 8, 5>(b, high, MASK),
            index::<S, 16, 6>(b, high, MASK),
            index::<S, 24, 7>(b, high, MASK),
        ];
        let mut u = plane_at_3::<S>(p.add(128));
        for (u, at) in u.iter_mut().zip(at) {
            *u = S::w_or(*u, S::w_gather(book, at));
        }
        through_table::<S>(u, table)
    }
}

grid!(IQ3_XXS, 1, 192, 7, 0.25, |p| iq3::<S, 0>(&IQ3_XXS_BOOK, &IQ3_XXS_SIGNED, p));
grid!(IQ3_S, 1, 208, 4, 1.0, |p| iq3::<S, 1>(&IQ3_S_BOOK, &IQ3_S_SIGNED, p));

/// Levels of IQ1: `[low: 64 bytes][high: 16 numbers of 16 bits, four an index, of which the uppermost picks the levels]`.
#[inline(always)]
unsafe fn iq1<S: Simd>(p: *const u8) -> [S::W; 8] {
    // SAFETY: the caller's block holds these.
    unsafe {
        let (low, high) = (S::w_load(p), S::w_load_u16(p.add(64)));
        let at = [
            index::<S, 0, 0>(low, high, 15),
            index::<S, 8, 4>(low, high, 15),
            index::<S, 16, 8>(low, high, 15),
            index::<S, 24, 12>(low, high, 15),
        ];
        through_table::<S>(codes::<S>(&IQ1_BOOK, at), &IQ1)
    }
}

grid!(IQ1_S, 1, 96, 4, 0.125, |p| iq1::<S>(p));
grid!(IQ1_M, 2, 96, 4, 0.125, |p| iq1::<S>(p));
