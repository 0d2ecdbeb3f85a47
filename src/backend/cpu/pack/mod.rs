//! From the file's rows to the kernels' panels (see [`format`](super::format)).
//!
//! Source of the stored layouts: ggml-common.h's block structs, as described in the GGUF specification.

mod grid;
mod table;
mod ternary;

use super::format::{Format, with_format};
use super::simd::LANES;
use crate::gguf::TensorType;

/// Bytes of one panel of 16 rows.
pub fn panel_bytes(ty: TensorType, cols: usize) -> usize {
    with_format!(ty, Q => Q::panel_bytes(cols), ty.row_bytes(cols) * LANES)
}

/// Packs up to 16 rows of `src` (whole rows, contiguous) into `out`, which is all zero and of
/// [`panel_bytes`] bytes; missing rows stay zero, which every format reads as finite.
pub fn pack_panel(ty: TensorType, cols: usize, src: &[u8], out: &mut [u8]) {
    let row_bytes = ty.row_bytes(cols);
    for (lane, row) in src.chunks_exact(row_bytes).take(LANES).enumerate() {
        match ty {
            TensorType::F32 => interleave::<4>(row, lane, out),
            TensorType::F16 | TensorType::Bf16 => interleave::<2>(row, lane, out),
            TensorType::Q4_0 => rows_32::<super::format::Q4_0>(row, lane, out),
            TensorType::Q4_1 => rows_32::<super::format::Q4_1>(row, lane, out),
            TensorType::Q5_0 => rows_32::<super::format::Q5_0>(row, lane, out),
            TensorType::Q5_1 => rows_32::<super::format::Q5_1>(row, lane, out),
            TensorType::Q8_0 => rows_32::<super::format::Q8_0>(row, lane, out),
            TensorType::Q2_K => q2_k(row, lane, out),
            TensorType::Q3_K => q3_k(row, lane, out),
            TensorType::Q4_K => q45_k::<super::format::Q4_K>(row, lane, out),
            TensorType::Q5_K => q45_k::<super::format::Q5_K>(row, lane, out),
            TensorType::Q6_K => q6_k(row, lane, out),
            TensorType::IQ4_NL => table::iq4_nl(row, lane, out),
            TensorType::IQ4_XS => table::iq4_xs(row, lane, out),
            TensorType::Mxfp4 => table::mxfp4(row, lane, out),
            TensorType::Nvfp4 => table::nvfp4(row, lane, out),
            TensorType::IQ1_M => grid::iq1_m(row, lane, out),
            TensorType::IQ1_S => grid::iq1_s(row, lane, out),
            TensorType::IQ2_S => grid::iq2_s(row, lane, out),
            TensorType::IQ2_XS => grid::iq2_xs(row, lane, out),
            TensorType::IQ2_XXS => grid::iq2_xxs(row, lane, out),
            TensorType::IQ3_S => grid::iq3_s(row, lane, out),
            TensorType::IQ3_XXS => grid::iq3_xxs(row, lane, out),
            TensorType::Q1_0 => ternary::q1_0(row, lane, out),
            TensorType::Q2_0 => ternary::q2_0(row, lane, out),
            TensorType::TQ1_0 => ternary::tq1_0(row, lane, out),
            TensorType::TQ2_0 => ternary::tq2_0(row, lane, out),
        }
    }
}

/// Float types: column after column, 16 rows each.
fn interleave<const BYTES: usize>(row: &[u8], lane: usize, out: &mut [u8]) {
    for (v, o) in row.chunks_exact(BYTES).zip(out.chunks_exact_mut(BYTES * LANES)) {
        o[lane * BYTES..(lane + 1) * BYTES].copy_from_slice(v);
    }
}

fn put2(out: &mut [u8], lane: usize, v: &[u8]) {
    out[2 * lane..2 * lane + 2].copy_from_slice(&v[..2]);
}

fn put_word(vector: &mut [u8], lane: usize, word: u32) {
    vector[4 * lane..4 * lane + 4].copy_from_slice(&word.to_le_bytes());
}

fn word(u: &[u8; 32], group: usize) -> u32 {
    u32::from_le_bytes([u[4 * group], u[4 * group + 1], u[4 * group + 2], u[4 * group + 3]])
}

fn put_nibbles(out: &mut [u8], lane: usize, u: &[u8; 32]) {
    for j in 0..4 {
        put_word(&mut out[64 * j..], lane, (word(u, j) & 0x0f0f_0f0f) | ((word(u, j + 4) & 0x0f0f_0f0f) << 4));
    }
}

fn put_plane(out: &mut [u8], lane: usize, u: &[u8; 32], bit: u32) {
    let plane = (0..8).fold(0, |a, g| a | (((word(u, g) >> bit) & 0x0101_0101) << g));
    put_word(out, lane, plane);
}

fn put_pairs(out: &mut [u8], lane: usize, u: &[u8; 32], bit: u32) {
    for h in 0..2 {
        let v = (0..4).fold(0, |a, f| a | (((word(u, 4 * h + f) >> bit) & 0x0303_0303) << (2 * f)));
        put_word(&mut out[64 * h..], lane, v);
    }
}

/// The types with blocks of 32: `d`, then `m` if any, `qh` if any, then the integers.
fn rows_32<Q: Format>(row: &[u8], lane: usize, out: &mut [u8]) {
    let plane = matches!(Q::TYPE, TensorType::Q5_0 | TensorType::Q5_1);
    let scales = if Q::MIN { 4 } else { 2 };
    for (b, o) in row.chunks_exact(Q::TYPE.block_bytes()).zip(out.chunks_exact_mut(Q::SUPER)) {
        put2(o, lane, b);
        if Q::MIN {
            put2(&mut o[32..], lane, &b[2..]);
        }
        let mut u = [0_u8; 32];
        if Q::TYPE == TensorType::Q8_0 {
            for (u, q) in u.iter_mut().zip(&b[2..]) {
                *u = q ^ 0x80;
            }
            for g in 0..8 {
                put_word(&mut o[32 + 64 * g..], lane, word(&u, g));
            }
            continue;
        }
        let qs = &b[b.len() - 16..];
        for j in 0..16 {
            u[j] = qs[j] & 15;
            u[j + 16] = qs[j] >> 4;
        }
        if plane {
            let qh = u32::from_le_bytes([b[scales], b[scales + 1], b[scales + 2], b[scales + 3]]);
            for (j, u) in u.iter_mut().enumerate() {
                *u |= ((qh >> j) as u8 & 1) << 4;
            }
            put_plane(&mut o[Q::BLOCK - 320..], lane, &u, 4);
        }
        put_nibbles(&mut o[Q::BLOCK - 256..], lane, &u);
    }
}

/// Scale and minimum of block `j` from the 12 bytes of Q4_K and Q5_K.
fn scale_min(s: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (s[j] & 63, s[j + 4] & 63)
    } else {
        ((s[j + 4] & 15) | (s[j - 4] >> 6) << 4, (s[j + 4] >> 4) | (s[j] >> 6) << 4)
    }
}

/// `d, dmin, scales[12], qh[32] (Q5_K), qs[128]`.
fn q45_k<Q: Format>(row: &[u8], lane: usize, out: &mut [u8]) {
    let five = Q::TYPE == TensorType::Q5_K;
    for (b, o) in row.chunks_exact(Q::TYPE.block_bytes()).zip(out.chunks_exact_mut(Q::SUPER)) {
        put2(o, lane, b);
        put2(&mut o[32..], lane, &b[2..]);
        let (scales, qh, qs) = (&b[4..16], &b[16..48], &b[b.len() - 128..]);
        for j in 0..8 {
            let o = &mut o[Q::HEAD + j * Q::BLOCK..][..Q::BLOCK];
            (o[lane], o[16 + lane]) = scale_min(scales, j);
            let mut u = [0_u8; 32];
            for (l, u) in u.iter_mut().enumerate() {
                *u = (qs[32 * (j / 2) + l] >> (4 * (j % 2))) & 15;
                if five {
                    *u |= ((qh[l] >> j) & 1) << 4;
                }
            }
            if five {
                put_plane(&mut o[32..], lane, &u, 4);
            }
            put_nibbles(&mut o[Q::BLOCK - 256..], lane, &u);
        }
    }
}

/// `ql[128], qh[64], scales[16], d`.
fn q6_k(row: &[u8], lane: usize, out: &mut [u8]) {
    use super::format::Q6_K as Q;
    for (b, o) in row.chunks_exact(210).zip(out.chunks_exact_mut(Q::SUPER)) {
        let (ql, qh, scales) = (&b[..128], &b[128..192], &b[192..208]);
        put2(o, lane, &b[208..]);
        for j in 0..8 {
            let o = &mut o[Q::HEAD + j * Q::BLOCK..][..Q::BLOCK];
            (o[lane], o[16 + lane]) = (scales[2 * j], scales[2 * j + 1]);
            let (n, part) = (j / 4, j % 4);
            let low = &ql[64 * n + 32 * (part % 2)..][..32];
            let high = &qh[32 * n..][..32];
            let mut u = [0_u8; 32];
            for (l, u) in u.iter_mut().enumerate() {
                *u = ((low[l] >> (4 * (part / 2))) & 15) | ((high[l] >> (2 * part)) & 3) << 4;
            }
            put_pairs(&mut o[32..], lane, &u, 4);
            put_nibbles(&mut o[160..], lane, &u);
        }
    }
}

/// `hmask[32], qs[64], scales[12], d`.
fn q3_k(row: &[u8], lane: usize, out: &mut [u8]) {
    use super::format::Q3_K as Q;
    for (b, o) in row.chunks_exact(110).zip(out.chunks_exact_mut(Q::SUPER)) {
        let (hmask, qs, s) = (&b[..32], &b[32..96], &b[96..108]);
        put2(o, lane, &b[108..]);
        // Six bits: four in the nibbles of bytes 0..8, two in bytes 8..12; stored plus 32.
        let scale = |i: usize| {
            let low = if i < 8 { s[i] & 15 } else { s[i - 8] >> 4 };
            (low | ((s[8 + i % 4] >> (2 * (i / 4))) & 3) << 4).wrapping_sub(32)
        };
        for j in 0..8 {
            let o = &mut o[Q::HEAD + j * Q::BLOCK..][..Q::BLOCK];
            (o[lane], o[16 + lane]) = (scale(2 * j), scale(2 * j + 1));
            let mut u = [0_u8; 32];
            for (l, u) in u.iter_mut().enumerate() {
                *u = ((qs[32 * (j / 4) + l] >> (2 * (j % 4))) & 3) | ((hmask[l] >> j) & 1) << 2;
            }
            put_plane(&mut o[32..], lane, &u, 2);
            put_pairs(&mut o[96..], lane, &u, 0);
        }
    }
}

/// `scales[16], qs[64], d, dmin`.
fn q2_k(row: &[u8], lane: usize, out: &mut [u8]) {
    use super::format::Q2_K as Q;
    for (b, o) in row.chunks_exact(84).zip(out.chunks_exact_mut(Q::SUPER)) {
        let (scales, qs) = (&b[..16], &b[16..80]);
        put2(o, lane, &b[80..]);
        put2(&mut o[32..], lane, &b[82..]);
        for j in 0..8 {
            let o = &mut o[Q::HEAD + j * Q::BLOCK..][..Q::BLOCK];
            (o[lane], o[16 + lane]) = (scales[2 * j], scales[2 * j + 1]);
            let mut u = [0_u8; 32];
            for (l, u) in u.iter_mut().enumerate() {
                *u = (qs[32 * (j / 4) + l] >> (2 * (j % 4))) & 3;
            }
            put_pairs(&mut o[32..], lane, &u, 0);
        }
    }
}
