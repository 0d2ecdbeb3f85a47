//! The types of code books: indices and signs in the order of the lanes.

use super::{put_word, put2};
use crate::backend::cpu::format::{Format, IQ1_M, IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
use crate::gguf::{even_signs, iq1_m_half, iq1_m_scale};

/// Block `j` of 32 of a superblock: its numbers, and what follows them.
fn block<Q: Format>(o: &mut [u8], j: usize) -> (&mut [u8], &mut [u8]) {
    o[Q::HEAD + j * Q::BLOCK..][..Q::BLOCK].split_at_mut(16)
}

/// Bit i of the eight signs of elements 8 l and up, as a plane has them: bit g of byte c is of element 4 g + c.
fn plane(signs: [u8; 4]) -> u32 {
    let bit = |e: usize| u32::from(signs[e / 8] >> (e % 8) & 1) << (8 * (e % 4) + e / 4);
    (0..32).fold(0, |plane, e| plane | bit(e))
}

fn bytes(b: &[u8]) -> u32 {
    u32::from_le_bytes([b[0], b[1], b[2], b[3]])
}

/// The four signs of eight in a word of seven bits each.
fn four_signs(a: u32) -> [u8; 4] {
    [even_signs(a), even_signs(a >> 7), even_signs(a >> 14), even_signs(a >> 21)]
}

/// `d, 8 x {indices[4], a: u32}`.
pub fn iq2_xxs(row: &[u8], lane: usize, out: &mut [u8]) {
    for (b, o) in row.chunks_exact(66).zip(out.chunks_exact_mut(IQ2_XXS::SUPER)) {
        put2(o, lane, b);
        for j in 0..8 {
            let (numbers, o) = block::<IQ2_XXS>(o, j);
            let a = bytes(&b[6 + 8 * j..]);
            numbers[lane] = (a >> 28) as u8;
            put_word(o, lane, bytes(&b[2 + 8 * j..]));
            put_word(&mut o[64..], lane, plane(four_signs(a)));
        }
    }
}

/// `d, q: u16[32], scales[8]`.
pub fn iq2_xs(row: &[u8], lane: usize, out: &mut [u8]) {
    for (b, o) in row.chunks_exact(74).zip(out.chunks_exact_mut(IQ2_XS::SUPER)) {
        put2(o, lane, b);
        for j in 0..8 {
            let (numbers, o) = block::<IQ2_XS>(o, j);
            numbers[lane] = b[66 + j];
            let q: [u16; 4] = std::array::from_fn(|l| u16::from_le_bytes([b[2 + 8 * j + 2 * l], b[3 + 8 * j + 2 * l]]));
            put_word(o, lane, u32::from_le_bytes(q.map(|q| q as u8)));
            put_word(&mut o[64..], lane, plane(q.map(|q| even_signs(u32::from(q) >> 9))));
            o[128 + lane] = (0..4).fold(0, |high, l| high | ((q[l] >> 8 & 1) as u8) << (2 * l));
        }
    }
}

/// `d, low[32], signs[32], high[8], scales[8]`.
pub fn iq2_s(row: &[u8], lane: usize, out: &mut [u8]) {
    for (b, o) in row.chunks_exact(82).zip(out.chunks_exact_mut(IQ2_S::SUPER)) {
        put2(o, lane, b);
        for j in 0..8 {
            let (numbers, o) = block::<IQ2_S>(o, j);
            numbers[lane] = b[74 + j];
            put_word(o, lane, bytes(&b[2 + 4 * j..]));
            put_word(&mut o[64..], lane, plane(bytes(&b[34 + 4 * j..]).to_le_bytes()));
            o[128 + lane] = b[66 + j];
        }
    }
}

/// `d, indices[64], a: u32[8]`.
pub fn iq3_xxs(row: &[u8], lane: usize, out: &mut [u8]) {
    for (b, o) in row.chunks_exact(98).zip(out.chunks_exact_mut(IQ3_XXS::SUPER)) {
        put2(o, lane, b);
        for j in 0..8 {
            let (numbers, o) = block::<IQ3_XXS>(o, j);
            let a = bytes(&b[66 + 4 * j..]);
            numbers[lane] = (a >> 28) as u8;
            put_word(o, lane, bytes(&b[2 + 8 * j..]));
            put_word(&mut o[64..], lane, bytes(&b[6 + 8 * j..]));
            put_word(&mut o[128..], lane, plane(four_signs(a)));
        }
    }
}

/// `d, low[64], high[8], signs[32], scales[4]`.
pub fn iq3_s(row: &[u8], lane: usize, out: &mut [u8]) {
    for (b, o) in row.chunks_exact(110).zip(out.chunks_exact_mut(IQ3_S::SUPER)) {
        put2(o, lane, b);
        for j in 0..8 {
            let (numbers, o) = block::<IQ3_S>(o, j);
            numbers[lane] = b[106 + j / 2] >> (4 * (j % 2)) & 15;
            put_word(o, lane, bytes(&b[2 + 8 * j..]));
            put_word(&mut o[64..], lane, bytes(&b[6 + 8 * j..]));
            put_word(&mut o[128..], lane, plane(bytes(&b[74 + 4 * j..]).to_le_bytes()));
            o[192 + lane] = b[66 + j];
        }
    }
}

/// `d, low[32], high: u16[8]`.
pub fn iq1_s(row: &[u8], lane: usize, out: &mut [u8]) {
    for (b, o) in row.chunks_exact(50).zip(out.chunks_exact_mut(IQ1_S::SUPER)) {
        put2(o, lane, b);
        for j in 0..8 {
            let (numbers, o) = block::<IQ1_S>(o, j);
            let high = u16::from_le_bytes([b[34 + 2 * j], b[35 + 2 * j]]);
            numbers[lane] = (high >> 12 & 7) as u8;
            put_word(o, lane, bytes(&b[2 + 4 * j..]));
            let index = |l: u32| (high >> (3 * l) & 7 | high >> 12 & 8) << (4 * l);
            put2(&mut o[64..], lane, &(index(0) | index(1) | index(2) | index(3)).to_le_bytes());
        }
    }
}

/// `low[32], high[16], scales: u16[4]`, the f16 in these.
pub fn iq1_m(row: &[u8], lane: usize, out: &mut [u8]) {
    for (b, o) in row.chunks_exact(56).zip(out.chunks_exact_mut(IQ1_M::SUPER)) {
        put2(o, lane, &iq1_m_half(b));
        for j in 0..8 {
            let (numbers, o) = block::<IQ1_M>(o, j);
            numbers[lane] = iq1_m_scale(b, j, 0) | iq1_m_scale(b, j, 1) << 4;
            put_word(o, lane, bytes(&b[4 * j..]));
            put2(&mut o[64..], lane, &b[32 + 2 * j..]);
        }
    }
}
