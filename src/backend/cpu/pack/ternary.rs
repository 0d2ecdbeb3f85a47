//! The types of one or two bits without a code book.

use super::{put_pairs, put_plane, put2};
use crate::backend::cpu::format::{Format, Q1_0, Q2_0, TQ2_0};
use crate::gguf::tq1_digit;

/// Superblocks of `q[52]` in base 3 and `d`, or of `q[64]` and `d`: `element` is number i of those of a block.
fn pairs_256(row: &[u8], bytes: usize, lane: usize, out: &mut [u8], element: impl Fn(&[u8], usize) -> u8) {
    for (b, o) in row.chunks_exact(bytes).zip(out.chunks_exact_mut(TQ2_0::SUPER)) {
        put2(o, lane, &b[bytes - 2..]);
        for j in 0..8 {
            let u: [u8; 32] = std::array::from_fn(|l| element(b, 32 * j + l));
            put_pairs(&mut o[TQ2_0::HEAD + j * TQ2_0::BLOCK..], lane, &u, 0);
        }
    }
}

/// `q[52], d`.
pub fn tq1_0(row: &[u8], lane: usize, out: &mut [u8]) {
    pairs_256(row, 54, lane, out, tq1_digit);
}

/// `q[64], d`.
pub fn tq2_0(row: &[u8], lane: usize, out: &mut [u8]) {
    pairs_256(row, 66, lane, out, |b, i| b[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32)) & 3);
}

/// `d, q[16]`, 64 elements of two bits.
pub fn q2_0(row: &[u8], lane: usize, out: &mut [u8]) {
    for (b, o) in row.chunks_exact(18).zip(out.chunks_exact_mut(Q2_0::SUPER)) {
        put2(o, lane, b);
        for j in 0..2 {
            let u: [u8; 32] = std::array::from_fn(|l| b[2 + 8 * j + l / 4] >> (2 * (l % 4)) & 3);
            put_pairs(&mut o[Q2_0::HEAD + j * Q2_0::BLOCK..], lane, &u, 0);
        }
    }
}

/// `d, q[16]`, 128 elements of one bit.
pub fn q1_0(row: &[u8], lane: usize, out: &mut [u8]) {
    for (b, o) in row.chunks_exact(18).zip(out.chunks_exact_mut(Q1_0::SUPER)) {
        put2(o, lane, b);
        for j in 0..4 {
            let u: [u8; 32] = std::array::from_fn(|l| b[2 + 4 * j + l / 8] >> (l % 8) & 1);
            put_plane(&mut o[Q1_0::HEAD + j * Q1_0::BLOCK..], lane, &u, 0);
        }
    }
}
