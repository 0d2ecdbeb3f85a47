//! The lanes in plain Rust: what the others must equal, and all there is on other processors.

use super::{LANES, Simd, XBlock};
use half::{bf16, f16};

/// See the module.
#[derive(Clone, Copy)]
pub struct Portable;

type F = [f32; LANES];
type I = [i32; LANES];

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> F {
    std::array::from_fn(f)
}

impl Simd for Portable {
    type F = F;
    type I = I;
    type W = [u32; LANES];
    type Acc = I;

    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F {
        // SAFETY: the caller's pointer holds 16 f32; so below for each load's and store's type.
        unsafe { p.cast::<F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: F) {
        // SAFETY: see `load`.
        unsafe { p.cast::<F>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> F {
        // SAFETY: see `load`.
        let h = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        each(|i| f16::from_bits(h[i]).to_f32())
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: F) {
        let h: [u16; LANES] = std::array::from_fn(|i| f16::from_f32(v[i]).to_bits());
        // SAFETY: see `load`.
        unsafe { p.cast::<[u16; LANES]>().write_unaligned(h) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> F {
        // SAFETY: see `load`.
        let h = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        each(|i| bf16::from_bits(h[i]).to_f32())
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> F {
        // SAFETY: see `load`.
        let b = unsafe { p.cast::<[u8; LANES]>().read_unaligned() };
        each(|i| f32::from(b[i]))
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> F {
        // SAFETY: see `load`.
        let b = unsafe { p.cast::<[i8; LANES]>().read_unaligned() };
        each(|i| f32::from(b[i]))
    }
    #[inline(always)]
    unsafe fn load_nibble<const HIGH: bool>(p: *const u8) -> F {
        // SAFETY: see `load`.
        let b = unsafe { p.cast::<[u8; LANES]>().read_unaligned() };
        each(|i| f32::from(if HIGH { b[i] >> 4 } else { b[i] & 15 }))
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn abs(a: F) -> F {
        each(|i| a[i].abs())
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        each(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn round(a: F) -> I {
        std::array::from_fn(|i| a[i].round_ties_even() as i32)
    }
    #[inline(always)]
    unsafe fn to_f(a: I) -> F {
        each(|i| a[i] as f32)
    }
    #[inline(always)]
    unsafe fn pow2(n: I) -> F {
        each(|i| f32::from_bits(((n[i] + 127) << 23) as u32))
    }
    #[inline(always)]
    unsafe fn keep(a: F, first: usize, last: usize, fill: f32) -> F {
        each(|i| if i >= first && i < last { a[i] } else { fill })
    }
    #[inline(always)]
    unsafe fn largest(a: F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, |m, x| if x > m { x } else { m })
    }
    #[inline(always)]
    unsafe fn any(a: F) -> bool {
        a.into_iter().any(|x| x != 0.0)
    }
    #[inline(always)]
    unsafe fn select_gt(a: F, b: F, v: F) -> F {
        each(|i| if a[i] > b[i] { v[i] } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn w_load(p: *const u8) -> Self::W {
        // SAFETY: the caller's pointer holds 64 bytes.
        let b = unsafe { p.cast::<[[u8; 4]; LANES]>().read_unaligned() };
        b.map(u32::from_le_bytes)
    }
    #[inline(always)]
    unsafe fn w_and(a: Self::W, mask: u8) -> Self::W {
        a.map(|x| x & (u32::from(mask) * 0x0101_0101))
    }
    #[inline(always)]
    unsafe fn w_or(a: Self::W, b: Self::W) -> Self::W {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn w_shr<const N: u32>(a: Self::W) -> Self::W {
        a.map(|x| x >> N)
    }
    #[inline(always)]
    unsafe fn w_shl<const N: u32>(a: Self::W) -> Self::W {
        a.map(|x| x << N)
    }
    #[inline(always)]
    unsafe fn w_table(a: Self::W, table: &[u8; 16]) -> Self::W {
        a.map(|x| u32::from_le_bytes(x.to_le_bytes().map(|i| table[usize::from(i & 15)])))
    }
    #[inline(always)]
    unsafe fn w_load_u8(p: *const u8) -> Self::W {
        // SAFETY: the caller's pointer holds 16 bytes.
        unsafe { p.cast::<[u8; LANES]>().read_unaligned() }.map(u32::from)
    }
    #[inline(always)]
    unsafe fn w_load_u16(p: *const u8) -> Self::W {
        // SAFETY: the caller's pointer holds 32 bytes.
        unsafe { p.cast::<[[u8; 2]; LANES]>().read_unaligned() }.map(|b| u16::from_le_bytes(b).into())
    }
    #[inline(always)]
    unsafe fn w_mask(a: Self::W, mask: u32) -> Self::W {
        a.map(|x| x & mask)
    }
    #[inline(always)]
    unsafe fn w_gather(table: &[u32], at: Self::W) -> Self::W {
        at.map(|i| table[i as usize])
    }

    #[inline(always)]
    unsafe fn acc<const SHIFT: u32>(n: i32) -> I {
        [n << SHIFT; LANES]
    }
    #[inline(always)]
    unsafe fn dot4(acc: I, w: Self::W, x: &XBlock, g: usize) -> I {
        let q: [i32; 4] =
            std::array::from_fn(|c| i32::from(i16::from_le_bytes([x.q[8 * g + 2 * c], x.q[8 * g + 2 * c + 1]])));
        std::array::from_fn(|i| {
            let b = w[i].to_le_bytes();
            acc[i] + (0..4).map(|c| i32::from(b[c]) * q[c]).sum::<i32>()
        })
    }
    #[inline(always)]
    unsafe fn total(acc: I) -> I {
        acc
    }
    #[inline(always)]
    unsafe fn encode(a: I, b: I, out: &mut [u8; 64]) {
        for (o, v) in out.chunks_exact_mut(2).zip(a.into_iter().chain(b)) {
            o.copy_from_slice(&(v as i16).to_le_bytes());
        }
    }
    #[inline(always)]
    unsafe fn sum_i(a: I) -> i32 {
        a.into_iter().sum()
    }
}
