//! The types whose numbers are places in code books (`grids.rs`): four or eight magnitudes each, and signs beside them.
//!
//! All have 256 elements a block, `d: f16`, and blocks of 32 with one or two small scales `n`.

use super::half_at;
use crate::gguf::grids;

/// The magnitudes of IQ2_XXS, IQ2_XS and IQ2_S by their codes.
pub const IQ2_LEVELS: [i8; 3] = [8, 25, 43];
/// Those of IQ3_XXS.
pub const IQ3_XXS_LEVELS: [i8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
/// Those of IQ3_S.
pub const IQ3_S_LEVELS: [i8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];
/// Eight times what the codes of IQ1_S and IQ1_M stand for where 1/8 is added, and where it is taken off.
pub const IQ1_LEVELS: [[i8; 3]; 2] = [[-7, 1, 9], [-9, -1, 7]];

/// Signs of which seven are stored: the eighth makes the number of minus signs even.
pub fn even_signs(seven: u32) -> u8 {
    let seven = seven & 127;
    (seven | (seven.count_ones() & 1) << 7) as u8
}

/// `y = d level(code)`, negative where its bit in `signs` says so.
fn entry(codes: u32, levels: &[i8], signs: u8, d: f32, y: &mut [f32]) {
    for (j, y) in y.iter_mut().enumerate() {
        let value = d * f32::from(levels[(codes >> (4 * j) & 15) as usize]);
        *y = if signs >> j & 1 == 1 { -value } else { value };
    }
}

/// The little-endian number of the four bytes from `at` on.
fn word(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

/// That of two.
fn short(b: &[u8], at: usize) -> u32 {
    u16::from_le_bytes([b[at], b[at + 1]]).into()
}

/// `d, 8 x {indices: [u8; 4], a: u32}`: of a block of 32, `n` is `a >> 28`, the signs of eight are seven bits of `a`;
/// `y = d (2 n + 1) / 8 level`.
pub fn iq2_xxs(b: &[u8], y: &mut [f32]) {
    for (i, y) in y.chunks_exact_mut(32).enumerate() {
        let a = word(b, 6 + 8 * i);
        let d = half_at(b, 0) * (2 * (a >> 28) + 1) as f32 * 0.125;
        for (l, y) in y.chunks_exact_mut(8).enumerate() {
            let codes = grids::IQ2_XXS[usize::from(b[2 + 8 * i + l])];
            entry(codes, &IQ2_LEVELS, even_signs(a >> (7 * l)), d, y);
        }
    }
}

/// The scale of eight elements of IQ2_XS and IQ2_S: a nibble of a block's byte for the first 16 of it, one for the others.
fn iq2_scale(b: &[u8], scales: u8, l: usize) -> f32 {
    half_at(b, 0) * f32::from(2 * (scales >> (4 * (l / 2)) & 15) + 1) * 0.125
}

/// `d, q: [u16; 32], scales: [u8; 8]`: an index of nine bits and seven bits of signs for eight elements; scales as in IQ2_XXS, of 16.
pub fn iq2_xs(b: &[u8], y: &mut [f32]) {
    for (k, y) in y.chunks_exact_mut(8).enumerate() {
        let q = short(b, 2 + 2 * k);
        let d = iq2_scale(b, b[66 + k / 4], k % 4);
        entry(grids::IQ2_XS[(q & 511) as usize], &IQ2_LEVELS, even_signs(q >> 9), d, y);
    }
}

/// `d, low: [u8; 32], signs: [u8; 32], high: [u8; 8], scales: [u8; 8]`: two more bits of an index in `high`; else as IQ2_XS.
pub fn iq2_s(b: &[u8], y: &mut [f32]) {
    for (k, y) in y.chunks_exact_mut(8).enumerate() {
        let (i, l) = (k / 4, k % 4);
        let index = usize::from(b[2 + k]) | usize::from(b[66 + i] >> (2 * l) & 3) << 8;
        entry(grids::IQ2_S[index], &IQ2_LEVELS, b[34 + k], iq2_scale(b, b[74 + i], l), y);
    }
}

/// `d, indices: [u8; 64], a: [u32; 8]`: four elements an index, signs and scale as in IQ2_XXS; `y = d (2 n + 1) / 4 level`.
pub fn iq3_xxs(b: &[u8], y: &mut [f32]) {
    for (k, y) in y.chunks_exact_mut(4).enumerate() {
        let a = word(b, 66 + 4 * (k / 8));
        let d = half_at(b, 0) * (2 * (a >> 28) + 1) as f32 * 0.25;
        let signs = even_signs(a >> (7 * (k % 8 / 2))) >> (4 * (k % 2));
        entry(grids::IQ3_XXS[usize::from(b[2 + k])].into(), &IQ3_XXS_LEVELS, signs, d, y);
    }
}

/// `d, low: [u8; 64], high: [u8; 8], signs: [u8; 32], scales: [u8; 4]`: a ninth bit of an index in `high`; `n` is a nibble of
/// `scales`; `y = d (2 n + 1) level`.
pub fn iq3_s(b: &[u8], y: &mut [f32]) {
    for (k, y) in y.chunks_exact_mut(4).enumerate() {
        let i = k / 8;
        let index = usize::from(b[2 + k]) | usize::from(b[66 + i] >> (k % 8) & 1) << 8;
        let d = half_at(b, 0) * f32::from(2 * (b[106 + i / 2] >> (4 * (i % 2)) & 15) + 1);
        entry(grids::IQ3_S[index].into(), &IQ3_S_LEVELS, b[74 + k / 2] >> (4 * (k % 2)), d, y);
    }
}

/// `d, low: [u8; 32], high: [u16; 8]`: three more bits of each index, `n` in bits 12 to 14, in bit 15 whether 1/8 is taken off instead
/// of added; `y = d (2 n + 1) (code - 1 +- 1/8)`.
pub fn iq1_s(b: &[u8], y: &mut [f32]) {
    for (k, y) in y.chunks_exact_mut(8).enumerate() {
        let high = short(b, 34 + 2 * (k / 4));
        let index = usize::from(b[2 + k]) | (high as usize >> (3 * (k % 4)) & 7) << 8;
        let d = half_at(b, 0) * (2 * (high >> 12 & 7) + 1) as f32 * 0.125;
        entry(grids::IQ1_S[index], &IQ1_LEVELS[(high >> 15) as usize], 0, d, y);
    }
}

/// The f16 of an IQ1_M block: the top four bits of its four scales.
pub fn iq1_m_half(b: &[u8]) -> [u8; 2] {
    [b[49] >> 4 | b[51] & 0xf0, b[53] >> 4 | b[55] & 0xf0]
}

/// The scale `n` of 16 elements, `half` of block `i` of 32: three bits.
pub fn iq1_m_scale(b: &[u8], i: usize, half: usize) -> u8 {
    (short(b, 48 + 2 * (i / 2)) >> (6 * (i % 2) + 3 * half) & 7) as u8
}

/// `low: [u8; 32], high: [u8; 16], scales: [u16; 4]`: of eight elements a nibble of `high` has three more bits of the index, and above
/// them whether 1/8 is taken off; else as IQ1_S.
pub fn iq1_m(b: &[u8], y: &mut [f32]) {
    let half = half_at(&iq1_m_half(b), 0);
    for (k, y) in y.chunks_exact_mut(8).enumerate() {
        let high = b[32 + k / 2] >> (4 * (k % 2)) & 15;
        let index = usize::from(b[k]) | usize::from(high & 7) << 8;
        let d = half * f32::from(2 * iq1_m_scale(b, k / 4, k % 4 / 2) + 1) * 0.125;
        entry(grids::IQ1_S[index], &IQ1_LEVELS[usize::from(high >> 3)], 0, d, y);
    }
}
