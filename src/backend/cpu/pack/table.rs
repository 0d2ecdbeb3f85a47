//! The types whose nibbles stand for values of a table.

use super::{put_nibbles, put2};
use crate::backend::cpu::format::{Format, IQ4_NL, IQ4_XS, Mxfp4, Nvfp4};
use crate::gguf::{e8m0_half, iq4_xs_scale, ue4m3_half};
use half::f16;

/// The nibbles of 32 elements: the low ones of 16 bytes, then the high ones.
fn split(qs: &[u8]) -> [u8; 32] {
    let mut u = [0_u8; 32];
    for (j, &q) in qs[..16].iter().enumerate() {
        (u[j], u[j + 16]) = (q & 15, q >> 4);
    }
    u
}

/// `d, qs[16]`.
pub fn iq4_nl(row: &[u8], lane: usize, out: &mut [u8]) {
    for (b, o) in row.chunks_exact(18).zip(out.chunks_exact_mut(IQ4_NL::SUPER)) {
        put2(o, lane, b);
        put_nibbles(&mut o[32..], lane, &split(&b[2..]));
    }
}

/// `e, qs[16]`: the scale is 2^(e - 128), as the upper half of its f32.
pub fn mxfp4(row: &[u8], lane: usize, out: &mut [u8]) {
    for (b, o) in row.chunks_exact(17).zip(out.chunks_exact_mut(Mxfp4::SUPER)) {
        put2(o, lane, &((e8m0_half(b[0]).to_bits() >> 16) as u16).to_le_bytes());
        put_nibbles(&mut o[32..], lane, &split(&b[1..]));
    }
}

/// `d, scales_h: u16, scales_l[4], qs[128]`.
pub fn iq4_xs(row: &[u8], lane: usize, out: &mut [u8]) {
    for (b, o) in row.chunks_exact(136).zip(out.chunks_exact_mut(IQ4_XS::SUPER)) {
        put2(o, lane, b);
        for j in 0..8 {
            let o = &mut o[IQ4_XS::HEAD + j * IQ4_XS::BLOCK..][..IQ4_XS::BLOCK];
            o[lane] = iq4_xs_scale(b, j) as u8;
            put_nibbles(&mut o[16..], lane, &split(&b[8 + 16 * j..]));
        }
    }
}

/// `scales[4], qs[32]`: two blocks of 32, of two scales each.
pub fn nvfp4(row: &[u8], lane: usize, out: &mut [u8]) {
    for (k, o) in out.chunks_exact_mut(Nvfp4::SUPER).enumerate() {
        let b = &row[k / 2 * 36..][..36];
        let mut u = [0; 32];
        for (s, u) in u.chunks_exact_mut(16).enumerate() {
            let s = 2 * (k % 2) + s;
            put2(&mut o[32 * (s % 2)..], lane, &f16::from_f32(ue4m3_half(b[s])).to_le_bytes());
            for (j, &q) in b[4 + 8 * s..12 + 8 * s].iter().enumerate() {
                (u[j], u[j + 8]) = (q & 15, q >> 4);
            }
        }
        put_nibbles(&mut o[64..], lane, &u);
    }
}
