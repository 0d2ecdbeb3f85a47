//! f32 rows to each stored type by plain rounding to the nearest, for tests and tools.
//!
//! Scales span the range of their group exactly; none of the searches that shrink the error of a real quantizer are
//! done. Layouts are described in `dequant.rs`. Inputs are finite.

mod grid;

use half::{bf16, f16};

use super::dequant::{e8m0_half, ue4m3_half};
use super::types::{E2M1_LEVELS, IQ4_LEVELS, TensorType};
use crate::error::{Error, Result};

/// Converts one row (or any whole number of blocks) from f32.
///
/// `dst` holds exactly `ty.row_bytes(src.len())` bytes and `src.len()` is a multiple of the block length; anything
/// else is an `Internal` error and leaves `dst` alone.
pub fn quantize_row(ty: TensorType, src: &[f32], dst: &mut [u8]) -> Result<()> {
    let (block_len, block_bytes) = (ty.block_len(), ty.block_bytes());
    if !src.len().is_multiple_of(block_len) || dst.len() != ty.row_bytes(src.len()) {
        let message = format!("{} bytes of {} for {} elements", dst.len(), ty.name(), src.len());
        return Err(Error::Internal { message });
    }
    let block: fn(&[f32], &mut [u8]) = match ty {
        TensorType::F32 => |x, b| b.copy_from_slice(&x[0].to_le_bytes()),
        TensorType::F16 => |x, b| b.copy_from_slice(&f16::from_f32(x[0]).to_le_bytes()),
        TensorType::Bf16 => |x, b| b.copy_from_slice(&bf16::from_f32(x[0]).to_le_bytes()),
        TensorType::Q4_0 => q4_0,
        TensorType::Q4_1 => q4_1,
        TensorType::Q5_0 => q5_0,
        TensorType::Q5_1 => q5_1,
        TensorType::Q8_0 => q8_0,
        TensorType::Q2_K => q2_k,
        TensorType::Q3_K => q3_k,
        TensorType::Q4_K => q4_k,
        TensorType::Q5_K => q5_k,
        TensorType::Q6_K => q6_k,
        TensorType::IQ4_NL => iq4_nl,
        TensorType::IQ4_XS => iq4_xs,
        TensorType::Mxfp4 => mxfp4,
        TensorType::Nvfp4 => nvfp4,
        TensorType::IQ3_S => grid::iq3_s,
        TensorType::IQ3_XXS => grid::iq3_xxs,
        TensorType::IQ2_S => grid::iq2_s,
        TensorType::IQ2_XS => grid::iq2_xs,
        TensorType::IQ2_XXS => grid::iq2_xxs,
        TensorType::IQ1_S => grid::iq1_s,
        TensorType::IQ1_M => grid::iq1_m,
        TensorType::TQ1_0 => tq1_0,
        TensorType::TQ2_0 => tq2_0,
        TensorType::Q2_0 => q2_0,
        TensorType::Q1_0 => q1_0,
    };
    for (x, b) in src.chunks_exact(block_len).zip(dst.chunks_exact_mut(block_bytes)) {
        block(x, b);
    }
    Ok(())
}

/// Stores `value` as f16 at byte `at` and returns what was stored.
fn put_half(b: &mut [u8], at: usize, value: f32) -> f32 {
    let half = f16::from_f32(value);
    b[at..at + 2].copy_from_slice(&half.to_le_bytes());
    half.to_f32()
}

/// The element that is largest without its sign.
fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |best: f32, &v| if v.abs() > best.abs() { v } else { best })
}

/// The least and the largest element.
fn range(x: &[f32]) -> (f32, f32) {
    x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)))
}

/// `x / d` to the nearest integer in `low ..= high`; 0 (or the nearest there is) where `d` is 0.
fn nearest(x: f32, d: f32, low: i32, high: i32) -> i32 {
    let q = if d == 0.0 { 0.0 } else { (x / d).round() };
    (q as i32).clamp(low, high)
}

/// The extreme element becomes the most negative number, which has no positive counterpart.
fn q4_0(x: &[f32], b: &mut [u8]) {
    let d = put_half(b, 0, extreme(x) / -8.0);
    for i in 0..16 {
        let q = |v: f32| (nearest(v, d, -8, 7) + 8) as u8;
        b[2 + i] = q(x[i]) | q(x[i + 16]) << 4;
    }
}

fn q4_1(x: &[f32], b: &mut [u8]) {
    let (low, high) = range(x);
    let d = put_half(b, 0, (high - low) / 15.0);
    let m = put_half(b, 2, low);
    for i in 0..16 {
        let q = |v: f32| nearest(v - m, d, 0, 15) as u8;
        b[4 + i] = q(x[i]) | q(x[i + 16]) << 4;
    }
}

/// Packs 32 five-bit numbers: four bytes of fifth bits at `at`, then sixteen of nibbles.
fn put_five_bits(b: &mut [u8], at: usize, q: impl Fn(usize) -> u32) {
    let mut high = 0u32;
    for i in 0..16 {
        let (low, upper) = (q(i), q(i + 16));
        b[at + 4 + i] = (low & 15 | (upper & 15) << 4) as u8;
        high |= low >> 4 << i | upper >> 4 << (i + 16);
    }
    b[at..at + 4].copy_from_slice(&high.to_le_bytes());
}

fn q5_0(x: &[f32], b: &mut [u8]) {
    let d = put_half(b, 0, extreme(x) / -16.0);
    put_five_bits(b, 2, |i| (nearest(x[i], d, -16, 15) + 16) as u32);
}

fn q5_1(x: &[f32], b: &mut [u8]) {
    let (low, high) = range(x);
    let d = put_half(b, 0, (high - low) / 31.0);
    let m = put_half(b, 2, low);
    put_five_bits(b, 4, |i| nearest(x[i] - m, d, 0, 31) as u32);
}

fn q8_0(x: &[f32], b: &mut [u8]) {
    let d = put_half(b, 0, extreme(x).abs() / 127.0);
    for (b, &v) in b[2..].iter_mut().zip(x) {
        *b = nearest(v, d, -127, 127) as i8 as u8;
    }
}

/// Scales and minima of the groups of a K-quant with minima, as integers up to `top`, and the two f16 that turn them
/// into `(scale, minimum)`; `levels` is the largest quantized value. Minima are stored negated and are never negative.
fn scales_and_mins(
    x: &[f32],
    group: usize,
    levels: f32,
    top: i32,
    mut put: impl FnMut(usize, f32) -> f32,
) -> Vec<Group> {
    let ranges: Vec<(f32, f32)> = x
        .chunks_exact(group)
        .map(|x| {
            let (low, high) = range(x);
            let low = low.min(0.0);
            ((high - low).max(0.0) / levels, -low)
        })
        .collect();
    let most = |pick: fn(&(f32, f32)) -> f32| ranges.iter().map(pick).fold(0.0, f32::max) / top as f32;
    let (d, m) = (put(0, most(|r| r.0)), put(1, most(|r| r.1)));
    let group = |&(scale, min): &(f32, f32)| {
        let (s, t) = (nearest(scale, d, 0, top), nearest(min, m, 0, top));
        Group { s: s as u8, t: t as u8, scale: d * s as f32, min: m * t as f32 }
    };
    ranges.iter().map(group).collect()
}

/// One group's stored scale and minimum, and what they come to.
struct Group {
    s: u8,
    t: u8,
    scale: f32,
    min: f32,
}

fn q2_k(x: &[f32], b: &mut [u8]) {
    let groups = scales_and_mins(x, 16, 3.0, 15, |i, v| put_half(b, 80 + 2 * i, v));
    b[..80].fill(0);
    for (g, group) in groups.iter().enumerate() {
        b[g] = group.s | group.t << 4;
    }
    for (i, &v) in x.iter().enumerate() {
        let group = &groups[i / 16];
        let (half, within) = (i / 128, i % 128);
        let q = nearest(v + group.min, group.scale, 0, 3) as u8;
        b[16 + 32 * half + within % 32] |= q << (2 * (within / 32));
    }
}

/// Scales of the groups of 16 of a K-quant without minima: each group's extreme divided by `-levels`, as integers
/// from `-top` to `top - 1`; returns them and the f16 they are multiples of.
fn signed_scales(x: &[f32], levels: f32, top: i32, put: impl FnOnce(f32) -> f32) -> (Vec<i32>, f32) {
    let scales: Vec<f32> = x.chunks_exact(16).map(|x| extreme(x) / -levels).collect();
    let d = put(extreme(&scales) / -top as f32);
    (scales.iter().map(|&s| nearest(s, d, -top, top - 1)).collect(), d)
}

fn q3_k(x: &[f32], b: &mut [u8]) {
    let (scales, d) = signed_scales(x, 4.0, 32, |v| put_half(b, 108, v));
    b[..108].fill(0);
    for (g, &s) in scales.iter().enumerate() {
        let s = (s + 32) as u8;
        b[96 + g % 8] |= (s & 15) << (4 * (g / 8));
        b[96 + 8 + g % 4] |= (s >> 4) << (2 * (g / 4));
    }
    for (i, &v) in x.iter().enumerate() {
        let (half, within) = (i / 128, i % 128);
        let q = (nearest(v, d * scales[i / 16] as f32, -4, 3) + 4) as u8;
        b[32 + 32 * half + within % 32] |= (q & 3) << (2 * (within / 32));
        b[i % 32] |= (q >> 2) << (i / 32);
    }
}

/// Packs eight six-bit scales and minima into twelve bytes.
fn put_scales(b: &mut [u8], groups: &[Group]) {
    b.fill(0);
    for (g, group) in groups.iter().enumerate() {
        if g < 4 {
            b[g] |= group.s;
            b[g + 4] |= group.t;
        } else {
            b[g + 4] |= group.s & 15 | (group.t & 15) << 4;
            b[g - 4] |= group.s >> 4 << 6;
            b[g] |= group.t >> 4 << 6;
        }
    }
}

fn q4_k(x: &[f32], b: &mut [u8]) {
    let groups = scales_and_mins(x, 32, 15.0, 63, |i, v| put_half(b, 2 * i, v));
    put_scales(&mut b[4..16], &groups);
    b[16..].fill(0);
    for (i, &v) in x.iter().enumerate() {
        let (g, within) = (i / 32, i % 32);
        let q = nearest(v + groups[g].min, groups[g].scale, 0, 15) as u8;
        b[16 + 32 * (g / 2) + within] |= q << (4 * (g % 2));
    }
}

fn q5_k(x: &[f32], b: &mut [u8]) {
    let groups = scales_and_mins(x, 32, 31.0, 63, |i, v| put_half(b, 2 * i, v));
    put_scales(&mut b[4..16], &groups);
    b[16..].fill(0);
    for (i, &v) in x.iter().enumerate() {
        let (g, within) = (i / 32, i % 32);
        let q = nearest(v + groups[g].min, groups[g].scale, 0, 31) as u8;
        b[48 + 32 * (g / 2) + within] |= (q & 15) << (4 * (g % 2));
        b[16 + within] |= (q >> 4) << g;
    }
}

fn q6_k(x: &[f32], b: &mut [u8]) {
    let (scales, d) = signed_scales(x, 32.0, 128, |v| put_half(b, 208, v));
    b[..192].fill(0);
    for (b, &s) in b[192..208].iter_mut().zip(&scales) {
        *b = s as i8 as u8;
    }
    for (i, &v) in x.iter().enumerate() {
        let (half, within) = (i / 128, i % 128);
        let q = (nearest(v, d * scales[i / 16] as f32, -32, 31) + 32) as u8;
        b[64 * half + within % 64] |= (q & 15) << (4 * (within / 64));
        b[128 + 32 * half + within % 32] |= (q >> 4) << (2 * (within / 32));
    }
}

/// The level nearest to `x / d`, by its number; that of 0 or the one nearest to it where `d` is 0.
fn level(levels: &[i8; 16], x: f32, d: f32) -> u8 {
    let wanted = if d == 0.0 { 0.0 } else { x / d };
    let off = |i: u8| (f32::from(levels[usize::from(i)]) - wanted).abs();
    (0..16).min_by(|&a, &b| off(a).total_cmp(&off(b))).unwrap_or(0)
}

/// The nibbles of 32 or 16 elements, and the sum of the squares of what they miss.
fn put_levels(levels: &[i8; 16], x: &[f32], d: f32, b: &mut [u8]) -> f32 {
    let (low, high) = x.split_at(x.len() / 2);
    let mut error = 0.0;
    let mut put = |v: f32| {
        let q = level(levels, v, d);
        error += (d * f32::from(levels[usize::from(q)]) - v).powi(2);
        q
    };
    for ((b, &low), &high) in b.iter_mut().zip(low).zip(high) {
        *b = put(low) | put(high) << 4;
    }
    error
}

/// The extreme element becomes the largest level, which is negative.
fn iq4_nl(x: &[f32], b: &mut [u8]) {
    let d = put_half(b, 0, extreme(x) / f32::from(IQ4_LEVELS[0]));
    put_levels(&IQ4_LEVELS, x, d, &mut b[2..]);
}

fn iq4_xs(x: &[f32], b: &mut [u8]) {
    let wanted: Vec<f32> = x.chunks_exact(32).map(|x| extreme(x) / f32::from(IQ4_LEVELS[0])).collect();
    let d = put_half(b, 0, extreme(&wanted) / -32.0);
    b[2..8].fill(0);
    for (j, x) in x.chunks_exact(32).enumerate() {
        let s = nearest(wanted[j], d, -32, 31);
        let stored = (s + 32) as u8;
        b[4 + j / 2] |= (stored & 15) << (4 * (j % 2));
        b[2 + j / 4] |= stored >> 4 << (2 * (j % 4));
        put_levels(&IQ4_LEVELS, x, d * s as f32, &mut b[8 + 16 * j..24 + 16 * j]);
    }
}

/// The power of two with which the extreme element is the largest level or less, or half of it, which cuts that element off.
fn mxfp4(x: &[f32], b: &mut [u8]) {
    let most = extreme(x).abs() / 12.0;
    let above = (((most.to_bits() + 0x007f_ffff) >> 23) + 1).min(255) as u8;
    let error = |e: u8| put_levels(&E2M1_LEVELS, x, e8m0_half(e), &mut [0; 16]);
    let below = above.saturating_sub(1);
    b[0] = if error(below) < error(above) { below } else { above };
    let d = e8m0_half(b[0]);
    put_levels(&E2M1_LEVELS, x, d, &mut b[1..]);
}

/// The byte whose UE4M3 is nearest to twice `x`.
fn ue4m3_of_half(x: f32) -> u8 {
    (0..0x7f).min_by(|&a, &b| (ue4m3_half(a) - x).abs().total_cmp(&(ue4m3_half(b) - x).abs())).unwrap_or(0)
}

fn nvfp4(x: &[f32], b: &mut [u8]) {
    for (s, x) in x.chunks_exact(16).enumerate() {
        b[s] = ue4m3_of_half(extreme(x).abs() / 12.0);
        let d = ue4m3_half(b[s]);
        put_levels(&E2M1_LEVELS, x, d, &mut b[4 + 8 * s..12 + 8 * s]);
    }
}

/// What levels at -s, 0 and s want of their s where numbers are normal.
fn ternary_scale(x: &[f32]) -> f32 {
    1.22 * (x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32).sqrt()
}

fn tq1_0(x: &[f32], b: &mut [u8]) {
    let d = put_half(b, 52, ternary_scale(x));
    let digit = |i: usize| (nearest(x[i], d, -1, 1) + 1) as u32;
    // Bytes, digits of each, where its first element is, and how far the next one is from it.
    for (bytes, digits, first, step) in [(0..32, 5, 0, 32), (32..48, 5, 160, 16), (48..52, 4, 240, 4)] {
        for (j, b) in b[bytes].iter_mut().enumerate() {
            let number = (0..5).fold(0, |n, k| 3 * n + if k < digits { digit(first + k * step + j) } else { 0 });
            // Rounded up, so that the digits come out of the top again.
            *b = (number * 256).div_ceil(243) as u8;
        }
    }
}

fn tq2_0(x: &[f32], b: &mut [u8]) {
    let d = put_half(b, 64, ternary_scale(x));
    b[..64].fill(0);
    for (i, &v) in x.iter().enumerate() {
        let (half, within) = (i / 128, i % 128);
        b[32 * half + within % 32] |= ((nearest(v, d, -1, 1) + 1) as u8) << (2 * (within / 32));
    }
}

/// The fourth level, at 2 s, is for what is above.
fn q2_0(x: &[f32], b: &mut [u8]) {
    let d = put_half(b, 0, ternary_scale(x));
    b[2..].fill(0);
    for (i, &v) in x.iter().enumerate() {
        b[2 + i / 4] |= ((nearest(v, d, -1, 2) + 1) as u8) << (2 * (i % 4));
    }
}

fn q1_0(x: &[f32], b: &mut [u8]) {
    put_half(b, 0, x.iter().map(|v| v.abs()).sum::<f32>() / x.len() as f32);
    b[2..].fill(0);
    for (i, &v) in x.iter().enumerate() {
        b[2 + i / 8] |= u8::from(v >= 0.0) << (i % 8);
    }
}
