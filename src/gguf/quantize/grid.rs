//! The types of code books: each number to its nearest level, and these to the nearest entry there is.

use std::sync::OnceLock;

use super::{extreme, nearest, put_half, ternary_scale};
use crate::gguf::dequant::{IQ1_LEVELS, IQ2_LEVELS, IQ3_S_LEVELS, IQ3_XXS_LEVELS};
use crate::gguf::grids;

/// For every string of codes the nearest entry of a book.
struct Nearest {
    levels: &'static [i8],
    width: usize,
    entries: Vec<u16>,
}

impl Nearest {
    fn new(levels: &'static [i8], width: usize, book: impl Iterator<Item = u32>) -> Nearest {
        let n = levels.len();
        let book: Vec<Vec<i32>> = book
            .map(|codes| (0..width).map(|j| i32::from(levels[(codes >> (4 * j) & 15) as usize])).collect())
            .collect();
        let off =
            |entry: &[i32], wanted: &[i32]| -> i32 { entry.iter().zip(wanted).map(|(a, b)| (a - b).pow(2)).sum() };
        let entries = (0..n.pow(width as u32)).map(|string| {
            let wanted: Vec<i32> = (0..width).map(|j| levels[string / n.pow(j as u32) % n].into()).collect();
            (0..book.len()).min_by_key(|&i| off(&book[i], &wanted)).unwrap_or(0) as u16
        });
        Nearest { levels, width, entries: entries.collect() }
    }

    /// The place of the entry nearest to `x / d`.
    fn entry(&self, x: impl Iterator<Item = f32>, d: f32) -> usize {
        let code = |x: f32| {
            let wanted = if d == 0.0 { 0.0 } else { x / d };
            let off = |&i: &usize| (f32::from(self.levels[i]) - wanted).abs();
            (0..self.levels.len()).min_by(|a, b| off(a).total_cmp(&off(b))).unwrap_or(0)
        };
        let (string, _) =
            x.take(self.width).fold((0, 1), |(string, place), x| (string + code(x) * place, place * self.levels.len()));
        self.entries[string].into()
    }
}

/// A book's table, made at its first use.
macro_rules! nearest {
    ($book:ident, $levels:expr, $width:expr) => {{
        static MADE: OnceLock<Nearest> = OnceLock::new();
        MADE.get_or_init(|| Nearest::new(&$levels, $width, grids::$book.iter().map(|&codes| codes.into())))
    }};
}

/// The scales that groups of `group` elements want where `top` is the largest magnitude, over the f16 scale that gives the largest of
/// them the number `most`: `(2 n + 1)`. `put` stores that f16.
fn numbers(x: &[f32], group: usize, top: f32, most: i32, put: impl FnOnce(f32) -> f32) -> (Vec<i32>, f32) {
    let wanted: Vec<f32> = x.chunks_exact(group).map(|x| extreme(x).abs() / top).collect();
    let d = put(wanted.iter().fold(0.0, |a: f32, &b| a.max(b)) / (2 * most + 1) as f32);
    let number = |&wanted: &f32| if d == 0.0 { 0 } else { nearest(wanted - d, 2.0 * d, 0, most) };
    (wanted.iter().map(number).collect(), d)
}

fn signs(x: &[f32]) -> u8 {
    x.iter().enumerate().fold(0, |signs, (j, x)| signs | u8::from(*x < 0.0) << j)
}

/// An even number of minus signs: the smallest element takes the wrong one.
fn even(x: &[f32]) -> u32 {
    let signs = signs(x);
    let least = (0..x.len()).min_by(|&a, &b| x[a].abs().total_cmp(&x[b].abs())).unwrap_or(0);
    u32::from(if signs.count_ones() % 2 == 1 { signs ^ 1 << least } else { signs }) & 127
}

fn magnitudes(x: &[f32]) -> impl Iterator<Item = f32> {
    x.iter().map(|x| x.abs())
}

pub fn iq2_xxs(x: &[f32], b: &mut [u8]) {
    let book = nearest!(IQ2_XXS, IQ2_LEVELS, 8);
    let (n, d) = numbers(x, 32, 43.0 / 8.0, 15, |d| put_half(b, 0, d));
    for (i, x) in x.chunks_exact(32).enumerate() {
        let mut a = (n[i] as u32) << 28;
        for (l, x) in x.chunks_exact(8).enumerate() {
            b[2 + 8 * i + l] = book.entry(magnitudes(x), d * (2 * n[i] + 1) as f32 / 8.0) as u8;
            a |= even(x) << (7 * l);
        }
        b[6 + 8 * i..10 + 8 * i].copy_from_slice(&a.to_le_bytes());
    }
}

pub fn iq2_xs(x: &[f32], b: &mut [u8]) {
    let book = nearest!(IQ2_XS, IQ2_LEVELS, 8);
    let (n, d) = numbers(x, 16, 43.0 / 8.0, 15, |d| put_half(b, 0, d));
    for (k, x) in x.chunks_exact(8).enumerate() {
        let entry = book.entry(magnitudes(x), d * (2 * n[k / 2] + 1) as f32 / 8.0) as u32;
        b[2 + 2 * k..4 + 2 * k].copy_from_slice(&((entry | even(x) << 9) as u16).to_le_bytes());
    }
    for i in 0..8 {
        b[66 + i] = (n[2 * i] | n[2 * i + 1] << 4) as u8;
    }
}

pub fn iq2_s(x: &[f32], b: &mut [u8]) {
    let book = nearest!(IQ2_S, IQ2_LEVELS, 8);
    let (n, d) = numbers(x, 16, 43.0 / 8.0, 15, |d| put_half(b, 0, d));
    b[66..74].fill(0);
    for (k, x) in x.chunks_exact(8).enumerate() {
        let entry = book.entry(magnitudes(x), d * (2 * n[k / 2] + 1) as f32 / 8.0);
        b[2 + k] = entry as u8;
        b[34 + k] = signs(x);
        b[66 + k / 4] |= (entry >> 8 << (2 * (k % 4))) as u8;
    }
    for i in 0..8 {
        b[74 + i] = (n[2 * i] | n[2 * i + 1] << 4) as u8;
    }
}

pub fn iq3_xxs(x: &[f32], b: &mut [u8]) {
    let book = nearest!(IQ3_XXS, IQ3_XXS_LEVELS, 4);
    let (n, d) = numbers(x, 32, 62.0 / 4.0, 15, |d| put_half(b, 0, d));
    for (i, x) in x.chunks_exact(32).enumerate() {
        let mut a = (n[i] as u32) << 28;
        for (l, x) in x.chunks_exact(8).enumerate() {
            a |= even(x) << (7 * l);
            for (h, x) in x.chunks_exact(4).enumerate() {
                b[2 + 8 * i + 2 * l + h] = book.entry(magnitudes(x), d * (2 * n[i] + 1) as f32 / 4.0) as u8;
            }
        }
        b[66 + 4 * i..70 + 4 * i].copy_from_slice(&a.to_le_bytes());
    }
}

pub fn iq3_s(x: &[f32], b: &mut [u8]) {
    let book = nearest!(IQ3_S, IQ3_S_LEVELS, 4);
    let (n, d) = numbers(x, 32, 15.0, 15, |d| put_half(b, 0, d));
    b[66..].fill(0);
    for (k, x) in x.chunks_exact(4).enumerate() {
        let i = k / 8;
        let entry = book.entry(magnitudes(x), d * (2 * n[i] + 1) as f32);
        b[2 + k] = entry as u8;
        b[66 + i] |= (entry >> 8 << (k % 8)) as u8;
        b[74 + k / 2] |= signs(x) << (4 * (k % 2));
    }
    for (i, n) in n.iter().enumerate() {
        b[106 + i / 2] |= (n << (4 * (i % 2))) as u8;
    }
}

/// IQ1's book where 1/8 is added (0) and where it is taken off (1).
fn iq1_book(which: usize) -> &'static Nearest {
    if which == 0 { nearest!(IQ1_S, IQ1_LEVELS[0], 8) } else { nearest!(IQ1_S, IQ1_LEVELS[1], 8) }
}

/// The entry of IQ1's book for eight elements, and whether 1/8 is taken off: whichever leaves less.
fn iq1_entry(x: &[f32], d: f32) -> (usize, usize) {
    let error = |which: usize| -> (f32, usize) {
        let entry = iq1_book(which).entry(x.iter().copied(), d / 8.0);
        let level = |j: usize| f32::from(IQ1_LEVELS[which][(grids::IQ1_S[entry] >> (4 * j) & 15) as usize]);
        (x.iter().enumerate().map(|(j, x)| (x - d / 8.0 * level(j)).powi(2)).sum(), entry)
    };
    let (plus, minus) = (error(0), error(1));
    if minus.0 < plus.0 { (minus.1, 1) } else { (plus.1, 0) }
}

/// Numbers `n` of `(2 n + 1)` up to 7 for groups, and their f16.
fn iq1_numbers(x: &[f32], group: usize, put: impl FnOnce(f32) -> f32) -> (Vec<i32>, f32) {
    let wanted: Vec<f32> = x.chunks_exact(group).map(ternary_scale).collect();
    numbers(&wanted, 1, 1.0, 7, put)
}

pub fn iq1_s(x: &[f32], b: &mut [u8]) {
    let (n, d) = iq1_numbers(x, 32, |d| put_half(b, 0, d));
    for (i, x) in x.chunks_exact(32).enumerate() {
        let d = d * (2 * n[i] + 1) as f32;
        // One sign of the eighth for all 32: that of most.
        let votes = x.chunks_exact(8).filter(|x| iq1_entry(x, d).1 == 1).count();
        let which = usize::from(votes > 2);
        let mut high = (n[i] as usize | which << 3) << 12;
        for (l, x) in x.chunks_exact(8).enumerate() {
            let entry = iq1_book(which).entry(x.iter().copied(), d / 8.0);
            b[2 + 4 * i + l] = entry as u8;
            high |= entry >> 8 << (3 * l);
        }
        b[34 + 2 * i..36 + 2 * i].copy_from_slice(&(high as u16).to_le_bytes());
    }
}

pub fn iq1_m(x: &[f32], b: &mut [u8]) {
    let mut half = [0; 2];
    let (n, d) = iq1_numbers(x, 16, |d| put_half(&mut half, 0, d));
    b.fill(0);
    for (k, x) in x.chunks_exact(8).enumerate() {
        let (entry, which) = iq1_entry(x, d * (2 * n[k / 2] + 1) as f32);
        b[k] = entry as u8;
        b[32 + k / 2] |= ((entry >> 8 | which << 3) << (4 * (k % 2))) as u8;
    }
    for (k, n) in n.iter().enumerate() {
        let scales = u16::from_le_bytes([b[48 + k / 4 * 2], b[49 + k / 4 * 2]]) | (*n as u16) << (3 * (k % 4));
        b[48 + k / 4 * 2..50 + k / 4 * 2].copy_from_slice(&scales.to_le_bytes());
    }
    // The f16, four bits of it at the top of each number of 16.
    for (at, bits) in [(49, half[0] << 4), (51, half[0] & 0xf0), (53, half[1] << 4), (55, half[1] & 0xf0)] {
        b[at] |= bits;
    }
}
