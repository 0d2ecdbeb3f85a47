//! Stored rows to f32, one block at a time, written to be read: the oracle of every faster path.
//!
//! Source of the layouts: ggml's block structs. `d`, `m` and the like are f16 scales; `q` are the packed integers.
//! In a K-quant a block has 256 elements in groups of 16 or 32, each with a small integer scale of its own.

mod grid;

pub use grid::{IQ1_LEVELS, IQ2_LEVELS, IQ3_S_LEVELS, IQ3_XXS_LEVELS, even_signs, iq1_m_half, iq1_m_scale};

use half::{bf16, f16};

use super::types::{E2M1_LEVELS, IQ4_LEVELS, TensorType};
use crate::error::{Error, Result};

/// Converts one row (or any whole number of blocks) of type `ty` to f32.
///
/// `src` holds exactly `ty.row_bytes(dst.len())` bytes and `dst.len()` is a multiple of the block length;
/// anything else is an `Internal` error and leaves `dst` alone.
pub fn dequantize_row(ty: TensorType, src: &[u8], dst: &mut [f32]) -> Result<()> {
    let (block_len, block_bytes) = (ty.block_len(), ty.block_bytes());
    if !dst.len().is_multiple_of(block_len) || src.len() != ty.row_bytes(dst.len()) {
        let message = format!("{} bytes of {} for {} elements", src.len(), ty.name(), dst.len());
        return Err(Error::Internal { message });
    }
    let block: fn(&[u8], &mut [f32]) = match ty {
        TensorType::F32 => |b, y| y[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        TensorType::F16 => |b, y| y[0] = half_at(b, 0),
        TensorType::Bf16 => |b, y| y[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32(),
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
    for (b, y) in src.chunks_exact(block_bytes).zip(dst.chunks_exact_mut(block_len)) {
        block(b, y);
    }
    Ok(())
}

/// The f16 at byte `at`.
fn half_at(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

/// `d: f16, q: [u8; 16]`; element `i` is the low nibble of `q[i]`, `i + 16` the high one; `y = d (q - 8)`.
fn q4_0(b: &[u8], y: &mut [f32]) {
    let d = half_at(b, 0);
    for (i, &q) in b[2..18].iter().enumerate() {
        y[i] = d * (f32::from(q & 15) - 8.0);
        y[i + 16] = d * (f32::from(q >> 4) - 8.0);
    }
}

/// `d, m: f16, q: [u8; 16]`, nibbles as in Q4_0; `y = d q + m`.
fn q4_1(b: &[u8], y: &mut [f32]) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    for (i, &q) in b[4..20].iter().enumerate() {
        y[i] = d * f32::from(q & 15) + m;
        y[i + 16] = d * f32::from(q >> 4) + m;
    }
}

/// The five-bit numbers of Q5_0 and Q5_1: nibbles as in Q4_0, bit `i` of `high` is the fifth bit of element `i`.
fn five_bits(high: &[u8], q: &[u8], i: usize) -> (f32, f32) {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    let low = u32::from(q[i] & 15) | (high >> i & 1) << 4;
    let upper = u32::from(q[i] >> 4) | (high >> (i + 16) & 1) << 4;
    (low as f32, upper as f32)
}

/// `d: f16, high: u32, q: [u8; 16]`; `y = d (q - 16)`.
fn q5_0(b: &[u8], y: &mut [f32]) {
    let d = half_at(b, 0);
    for i in 0..16 {
        let (low, upper) = five_bits(&b[2..6], &b[6..22], i);
        y[i] = d * (low - 16.0);
        y[i + 16] = d * (upper - 16.0);
    }
}

/// `d, m: f16, high: u32, q: [u8; 16]`; `y = d q + m`.
fn q5_1(b: &[u8], y: &mut [f32]) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    for i in 0..16 {
        let (low, upper) = five_bits(&b[4..8], &b[8..24], i);
        y[i] = d * low + m;
        y[i + 16] = d * upper + m;
    }
}

/// `d: f16, q: [i8; 32]`; `y = d q`.
fn q8_0(b: &[u8], y: &mut [f32]) {
    let d = half_at(b, 0);
    for (y, &q) in y.iter_mut().zip(&b[2..34]) {
        *y = d * f32::from(q as i8);
    }
}

/// `scales: [u8; 16], q: [u8; 64], d, m: f16`. Group `g` of 16 elements has the scale `s = scales[g] & 15` and the
/// minimum `t = scales[g] >> 4`; `y = d s q - m t`. Element `i` of the 128-element half `h` is in bits
/// `2 (i / 32)` and up of `q[32 h + i % 32]`.
fn q2_k(b: &[u8], y: &mut [f32]) {
    let (scales, q) = (&b[..16], &b[16..80]);
    let (d, m) = (half_at(b, 80), half_at(b, 82));
    for (i, y) in y.iter_mut().enumerate() {
        let (half, within) = (i / 128, i % 128);
        let bits = q[32 * half + within % 32] >> (2 * (within / 32)) & 3;
        let scale = scales[i / 16];
        *y = d * f32::from(scale & 15) * f32::from(bits) - m * f32::from(scale >> 4);
    }
}

/// `high: [u8; 32], q: [u8; 64], scales: [u8; 12], d: f16`. The low two bits are laid out as in Q2_K; bit `i / 32`
/// of `high[i % 32]` is the third one of element `i`. Scales have six bits: the low four of scale `g` are a nibble
/// of `scales[g % 8]`, the upper two are bits `2 (g / 4)` and up of `scales[8 + g % 4]`; `y = d (s - 32) (q - 4)`.
fn q3_k(b: &[u8], y: &mut [f32]) {
    let (high, q, scales, d) = (&b[..32], &b[32..96], &b[96..108], half_at(b, 108));
    for (i, y) in y.iter_mut().enumerate() {
        let (half, within, g) = (i / 128, i % 128, i / 16);
        let bits = q[32 * half + within % 32] >> (2 * (within / 32)) & 3;
        let third = high[i % 32] >> (i / 32) & 1;
        let low = scales[g % 8] >> (4 * (g / 8)) & 15;
        let upper = scales[8 + g % 4] >> (2 * (g / 4)) & 3;
        let scale = f32::from(low | upper << 4) - 32.0;
        *y = d * scale * (f32::from(bits | third << 2) - 4.0);
    }
}

/// The six-bit scale and minimum of group `g` (of 8) in the twelve bytes of Q4_K and Q5_K. The first four of each
/// are the low six bits of `s[g]` and `s[g + 4]`; of the others the low four bits are the nibbles of `s[g + 4]`
/// and the upper two are the top bits of `s[g - 4]` and `s[g]`.
fn scale_and_min(s: &[u8], g: usize) -> (f32, f32) {
    let (scale, min) = if g < 4 {
        (s[g] & 63, s[g + 4] & 63)
    } else {
        (s[g + 4] & 15 | (s[g - 4] >> 6) << 4, s[g + 4] >> 4 | (s[g] >> 6) << 4)
    };
    (f32::from(scale), f32::from(min))
}

/// `d, m: f16, scales: [u8; 12], q: [u8; 128]`. Group `g` has 32 elements, in the low (even `g`) or high (odd `g`)
/// nibbles of the 32 bytes at `32 (g / 2)`; `y = d s q - m t`.
fn q4_k(b: &[u8], y: &mut [f32]) {
    let (d, m, scales, q) = (half_at(b, 0), half_at(b, 2), &b[4..16], &b[16..144]);
    for (g, y) in y.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(scales, g);
        for (i, y) in y.iter_mut().enumerate() {
            let bits = q[32 * (g / 2) + i] >> (4 * (g % 2)) & 15;
            *y = d * scale * f32::from(bits) - m * min;
        }
    }
}

/// `d, m: f16, scales: [u8; 12], high: [u8; 32], q: [u8; 128]`. As Q4_K, and bit `g` of `high[i]` is the fifth bit
/// of element `i` of group `g`.
fn q5_k(b: &[u8], y: &mut [f32]) {
    let (d, m, scales) = (half_at(b, 0), half_at(b, 2), &b[4..16]);
    let (high, q) = (&b[16..48], &b[48..176]);
    for (g, y) in y.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(scales, g);
        for (i, y) in y.iter_mut().enumerate() {
            let bits = q[32 * (g / 2) + i] >> (4 * (g % 2)) & 15 | (high[i] >> g & 1) << 4;
            *y = d * scale * f32::from(bits) - m * min;
        }
    }
}

/// `q: [u8; 128], high: [u8; 64], scales: [i8; 16], d: f16`. Element `i` of the 128-element half `h`: the low four
/// bits are the low (`i < 64`) or high nibble of `q[64 h + i % 64]`, the upper two are bits `2 (i / 32)` and up of
/// `high[32 h + i % 32]`; `y = d s (q - 32)`, one scale for 16 elements.
fn q6_k(b: &[u8], y: &mut [f32]) {
    let (q, high, scales, d) = (&b[..128], &b[128..192], &b[192..208], half_at(b, 208));
    for (i, y) in y.iter_mut().enumerate() {
        let (half, within) = (i / 128, i % 128);
        let low = q[64 * half + within % 64] >> (4 * (within / 64)) & 15;
        let upper = high[32 * half + within % 32] >> (2 * (within / 32)) & 3;
        let scale = f32::from(scales[i / 16] as i8);
        *y = d * scale * (f32::from(low | upper << 4) - 32.0);
    }
}

/// The elements of a block of 32 or 16 whose nibbles stand for `levels`, times `d`: the low ones first.
fn levels(q: &[u8], levels: &[i8; 16], d: f32, y: &mut [f32]) {
    let (low, high) = y.split_at_mut(q.len());
    for ((&q, low), high) in q.iter().zip(low).zip(high) {
        *low = d * f32::from(levels[usize::from(q & 15)]);
        *high = d * f32::from(levels[usize::from(q >> 4)]);
    }
}

/// `d: f16, q: [u8; 16]`, nibbles as in Q4_0; `y = d level(q)`.
fn iq4_nl(b: &[u8], y: &mut [f32]) {
    levels(&b[2..18], &IQ4_LEVELS, half_at(b, 0), y);
}

/// The scale of block `j` of 32, from -32 to 31: four bits of it are a nibble of `b[4..8]`, two are in the u16 of `b[2..4]`.
pub(crate) fn iq4_xs_scale(b: &[u8], j: usize) -> i8 {
    let low = b[4 + j / 2] >> (4 * (j % 2)) & 15;
    let high = (u16::from_le_bytes([b[2], b[3]]) >> (2 * j) & 3) as u8;
    (low | high << 4) as i8 - 32
}

/// `d: f16, scales_high: u16, scales_low: [u8; 4], q: [u8; 128]`; blocks of 32 as in IQ4_NL; `y = d s level(q)`.
fn iq4_xs(b: &[u8], y: &mut [f32]) {
    for (j, y) in y.chunks_exact_mut(32).enumerate() {
        let d = half_at(b, 0) * f32::from(iq4_xs_scale(b, j));
        levels(&b[8 + 16 * j..24 + 16 * j], &IQ4_LEVELS, d, y);
    }
}

/// 2^(e - 128): half of what the byte is as E8M0, for levels that are doubled.
pub(crate) fn e8m0_half(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { u32::from(e - 1) << 23 })
}

/// `e: u8, q: [u8; 16]`, nibbles as in Q4_0; `y = 2^(e - 128) level(q)`.
fn mxfp4(b: &[u8], y: &mut [f32]) {
    levels(&b[1..17], &E2M1_LEVELS, e8m0_half(b[0]), y);
}

/// Half of what the byte is as UE4M3, for levels that are doubled; 0x7f, which would be no number, is 0, and bit 7 is not read.
pub(crate) fn ue4m3_half(x: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(x >> 3 & 15), f32::from(x & 7));
    match exponent {
        _ if x == 0x7f => 0.0,
        0 => mantissa * 2f32.powi(-10),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 8),
    }
}

/// `scales: [u8; 4], q: [u8; 32]`, each scale for 16 elements: the low nibbles of eight bytes, then the high ones; `y = s level(q)`.
fn nvfp4(b: &[u8], y: &mut [f32]) {
    for (s, y) in y.chunks_exact_mut(16).enumerate() {
        levels(&b[4 + 8 * s..12 + 8 * s], &E2M1_LEVELS, ue4m3_half(b[s]), y);
    }
}

/// Element `i` of a TQ1_0 block, from 0 to 2: five of them are a byte's number to the base of 3, scaled up to all of the byte's range.
/// The bytes 0..32 have the elements 0..160, each next 32 of them a digit further down, 32..48 likewise 160..240 and 48..52 the last.
pub(crate) fn tq1_digit(b: &[u8], i: usize) -> u8 {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let (byte, digit) = match i {
        0..160 => (i % 32, i / 32),
        160..240 => (32 + (i - 160) % 16, (i - 160) / 16),
        _ => (48 + (i - 240) % 4, (i - 240) / 4),
    };
    ((u16::from(b[byte].wrapping_mul(POWERS[digit])) * 3) >> 8) as u8
}

/// `q: [u8; 52]` in base 3, `d: f16`; `y = d (q - 1)`.
fn tq1_0(b: &[u8], y: &mut [f32]) {
    let d = half_at(b, 52);
    for (i, y) in y.iter_mut().enumerate() {
        *y = d * (f32::from(tq1_digit(b, i)) - 1.0);
    }
}

/// `q: [u8; 64], d: f16`, two bits an element laid out as in Q2_K; `y = d (q - 1)`.
fn tq2_0(b: &[u8], y: &mut [f32]) {
    let d = half_at(b, 64);
    for (i, y) in y.iter_mut().enumerate() {
        let (half, within) = (i / 128, i % 128);
        let bits = b[32 * half + within % 32] >> (2 * (within / 32)) & 3;
        *y = d * (f32::from(bits) - 1.0);
    }
}

/// `d: f16, q: [u8; 16]`, two bits an element in order; `y = d (q - 1)`.
fn q2_0(b: &[u8], y: &mut [f32]) {
    let d = half_at(b, 0);
    for (i, y) in y.iter_mut().enumerate() {
        *y = d * (f32::from(b[2 + i / 4] >> (2 * (i % 4)) & 3) - 1.0);
    }
}

/// `d: f16, q: [u8; 16]`, a bit an element in order: `y = d` where it is set, else `-d`.
fn q1_0(b: &[u8], y: &mut [f32]) {
    let d = half_at(b, 0);
    for (i, y) in y.iter_mut().enumerate() {
        *y = if b[2 + i / 8] >> (i % 8) & 1 == 1 { d } else { -d };
    }
}
