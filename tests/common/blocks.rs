//! Random numbers in the types' own blocks: their bits are drawn, so that nothing has to be quantized.
//!
//! Of every type almost any bits mean something. What is left is the scale of a block, and that the mean is 0: where it is not by
//! itself, half of the scales are negative, or the minimum is made to fit.

use half::f16;
use kigo::gguf::TensorType::{self, *};
use kigo::gguf::dequantize_row;

use super::random::mix;

/// How a block has its scale.
#[derive(Clone, Copy)]
enum Scale {
    /// An f16 at this byte.
    Half(usize),
    /// An f16 there, and at the second byte the f16 of the minimum, which is the first one times this number.
    HalfAndMin(usize, usize, f32),
    /// An f16 whose nibbles are the upper ones of every second byte from this one on.
    Nibbles(usize),
    /// So many bytes at the start of the block, each the scale of its part of it; the last byte in their order.
    Bytes(usize, u8),
}

impl Scale {
    /// That of a type with blocks which is known here: others are quantized.
    fn of(ty: TensorType) -> Option<Scale> {
        Some(match ty {
            Q4_0 | Q5_0 | Q8_0 | Q2_0 | Q1_0 | IQ4_NL | IQ4_XS => Scale::Half(0),
            IQ3_S | IQ3_XXS | IQ2_S | IQ2_XS | IQ2_XXS | IQ1_S => Scale::Half(0),
            Q3_K => Scale::Half(108),
            Q6_K => Scale::Half(208),
            TQ1_0 => Scale::Half(52),
            TQ2_0 => Scale::Half(64),
            // Half of the largest number: the mean of the numbers.
            Q4_1 => Scale::HalfAndMin(0, 2, -7.5),
            Q5_1 => Scale::HalfAndMin(0, 2, -15.5),
            Q4_K => Scale::HalfAndMin(0, 2, 7.5),
            Q5_K => Scale::HalfAndMin(0, 2, 15.5),
            Q2_K => Scale::HalfAndMin(80, 82, 1.5),
            IQ1_M => Scale::Nibbles(49),
            Mxfp4 => Scale::Bytes(1, 254),
            Nvfp4 => Scale::Bytes(4, 0x7e),
            _ => return None,
        })
    }

    /// Its bytes in place of random ones, which choose among `scales`.
    fn put(self, scales: &[[u8; 4]; N_SCALES], b: &mut [u8]) {
        let chosen = |random: u8| scales[usize::from(random) % N_SCALES];
        match self {
            Scale::Half(d) => {
                let [low, high, ..] = chosen(b[d]);
                b[d..d + 2].copy_from_slice(&[low, high]);
            }
            Scale::HalfAndMin(d, m, _) => {
                let [low, high, min_low, min_high] = chosen(b[d]);
                b[d..d + 2].copy_from_slice(&[low, high]);
                b[m..m + 2].copy_from_slice(&[min_low, min_high]);
            }
            Scale::Nibbles(d) => {
                let [low, high, ..] = chosen(b[d] >> 4 | b[d + 2] & 0xf0);
                for (i, nibble) in [low & 15, low >> 4, high & 15, high >> 4].into_iter().enumerate() {
                    b[d + 2 * i] = b[d + 2 * i] & 15 | nibble << 4;
                }
            }
            Scale::Bytes(n, _) => b[..n].iter_mut().for_each(|b| *b = chosen(*b)[0]),
        }
    }
}

/// Makes bits mean what they do in real files: a group's minimum goes with its scale, and only ternary numbers are in ternary blocks.
fn settle(ty: TensorType, b: &mut [u8]) {
    match ty {
        Q2_K => b[..16].iter_mut().for_each(|b| *b = *b & 15 | *b << 4),
        Q4_K | Q5_K => {
            b.copy_within(4..8, 8);
            b[12..16].iter_mut().for_each(|b| *b = *b & 15 | *b << 4);
        }
        // Five digits, rounded up so that they come out of the top again.
        TQ1_0 => b[..52].iter_mut().for_each(|b| *b = (((u32::from(*b) * 243) >> 8) * 256).div_ceil(243) as u8),
        // 3 becomes 1.
        TQ2_0 => b[..64].iter_mut().for_each(|b| *b &= !(*b << 1 & 0xaa)),
        _ => {}
    }
}

/// Different scales that a tensor's blocks have.
const N_SCALES: usize = 64;

/// Draws rows of one type and standard deviation.
pub struct Blocks {
    ty: TensorType,
    scale: Scale,
    scales: [[u8; 4]; N_SCALES],
}

impl Blocks {
    /// `None` for the types without blocks and for those that are not known here.
    pub fn new(ty: TensorType, std: f32) -> Option<Blocks> {
        let unit = Blocks::of_scale(ty, Scale::of(ty)?, 1.0);
        let mut bytes = vec![0; ty.row_bytes(256 * 128)];
        unit.fill_row(0, 0, &mut bytes);
        let mut y = vec![0.0; 256 * 128];
        dequantize_row(ty, &bytes, &mut y).expect("sizes agree");
        let rms = (y.iter().map(|y| y * y).sum::<f32>() / y.len() as f32).sqrt();
        Some(Blocks::of_scale(ty, unit.scale, std / rms))
    }

    /// Scales whose mean square is about that of `wanted`.
    fn of_scale(ty: TensorType, scale: Scale, wanted: f32) -> Blocks {
        let mut scales = [[0; 4]; N_SCALES];
        let (below, share) = match scale {
            Scale::Bytes(n, last) => neighbours(ty, n, last, wanted),
            _ => (0, 0.0),
        };
        for (i, bytes) in scales.iter_mut().enumerate() {
            // Evenly from 0 to 1.
            let place = (i as f32 + 0.5) / N_SCALES as f32;
            let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
            let d = f16::from_f32(sign * wanted * (0.75 + 0.5 * place));
            let m = match scale {
                Scale::HalfAndMin(_, _, factor) => f16::from_f32(d.to_f32() * factor),
                _ => f16::ZERO,
            };
            let ([low, high], [min_low, min_high]) = (d.to_le_bytes(), m.to_le_bytes());
            *bytes = match scale {
                Scale::Bytes(..) => [below + u8::from(place < share), 0, 0, 0],
                _ => [low, high, min_low, min_high],
            };
        }
        Blocks { ty, scale, scales }
    }

    /// The blocks of one row, which are a function of the key (of a tensor's name) and the row.
    pub fn fill_row(&self, key: u64, row: u64, out: &mut [u8]) {
        let key = mix(key ^ row.wrapping_mul(0xd134_2543_de82_ef95));
        let word = |i: usize| mix(key.wrapping_add((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))).to_le_bytes();
        let (words, rest) = out.as_chunks_mut();
        for (i, bytes) in words.iter_mut().enumerate() {
            *bytes = word(i);
        }
        rest.copy_from_slice(&word(words.len())[..rest.len()]);
        for block in out.chunks_exact_mut(self.ty.block_bytes()) {
            self.scale.put(&self.scales, block);
            settle(self.ty, block);
        }
    }
}

/// The largest byte whose scale is not above `wanted`, and the share of the next one with which the mean square is that of `wanted`.
/// A block of `ty` starts with `n` scales, which rise up to `last`.
fn neighbours(ty: TensorType, n: usize, last: u8, wanted: f32) -> (u8, f32) {
    let meaning = |byte: u8| {
        // Codes of 1.
        let (mut block, mut y) = ([0x11; 64], [0.0; 64]);
        block[..n].fill(byte);
        dequantize_row(ty, &block[..ty.block_bytes()], &mut y[..ty.block_len()]).expect("sizes agree");
        y[0]
    };
    let below = (0..last).rev().find(|&byte| meaning(byte) <= wanted).unwrap_or(0);
    let (low, high) = (meaning(below).powi(2), meaning(below + 1).powi(2));
    (below, ((wanted * wanted - low) / (high - low)).clamp(0.0, 1.0))
}
