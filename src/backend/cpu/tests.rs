//! The kernels against plain arithmetic, and against each other bit for bit.

use super::activation::activate;
use super::arena::Arena;
use super::linear::{Input, Matrix};
use super::pack::{pack_panel, panel_bytes};
use super::simd::{Isa, LANES, XBlock};
use super::threads::Pool;
use super::vector;
use crate::gguf::{TensorType, dequantize_row};
use crate::model::{Activation, Norm};
use crate::process::Placement;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A small generator: xorshift64*.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// Uniform in -1 .. 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Rows of random bits with sane scales.
fn random_rows(ty: TensorType, rows: usize, cols: usize, rng: &mut Rng) -> Vec<u8> {
    let mut out = vec![0_u8; rows * ty.row_bytes(cols)];
    for block in out.chunks_exact_mut(ty.block_bytes()) {
        if ty.block_len() == 1 {
            let v = rng.unit();
            match ty {
                TensorType::F32 => block.copy_from_slice(&v.to_le_bytes()),
                TensorType::F16 => block.copy_from_slice(&half::f16::from_f32(v).to_le_bytes()),
                _ => block.copy_from_slice(&half::bf16::from_f32(v).to_le_bytes()),
            }
            continue;
        }
        block.iter_mut().for_each(|b| *b = rng.next() as u8);
        let scales: &[usize] = match ty {
            TensorType::Q4_0 | TensorType::Q5_0 | TensorType::Q8_0 => &[0],
            TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => &[0, 2],
            TensorType::Q2_K => &[80, 82],
            TensorType::Q3_K => &[108],
            TensorType::Q6_K => &[208],
            TensorType::IQ4_NL | TensorType::IQ4_XS => &[0],
            TensorType::IQ3_S | TensorType::IQ3_XXS | TensorType::IQ2_S | TensorType::IQ2_XS | TensorType::IQ2_XXS => {
                &[0]
            }
            TensorType::IQ1_S | TensorType::Q2_0 | TensorType::Q1_0 => &[0],
            TensorType::TQ1_0 => &[52],
            TensorType::TQ2_0 => &[64],
            TensorType::Nvfp4 => continue,
            TensorType::IQ1_M => {
                // An f16 between 2^-8 and 2^-7, four bits of it at the top of each of four numbers.
                let half = 0x1c00 | (rng.next() & 0x3ff) as u16;
                for (i, at) in [49, 51, 53, 55].into_iter().enumerate() {
                    block[at] = block[at] & 15 | ((half >> (4 * i) & 15) as u8) << 4;
                }
                continue;
            }
            TensorType::Mxfp4 => {
                block[0] = 118 + block[0] % 8;
                continue;
            }
            _ => {
                let row: Vec<f32> = (0..ty.block_len()).map(|_| rng.unit() * 0.1 - 0.05).collect();
                crate::gguf::quantize_row(ty, &row, block).unwrap();
                continue;
            }
        };
        for &at in scales {
            block[at..at + 2].copy_from_slice(&half::f16::from_f32(rng.unit() * 0.01).to_le_bytes());
        }
    }
    out
}

fn packed(ty: TensorType, rows: usize, cols: usize, src: &[u8]) -> (Arena, Matrix) {
    let arena = Arena::new(Matrix::bytes(ty, rows, cols)).unwrap();
    let panel = panel_bytes(ty, cols);
    for p in 0..rows.div_ceil(LANES) {
        // SAFETY: panel p of the arena.
        let out = unsafe { std::slice::from_raw_parts_mut(arena.base().add(p * panel), panel) };
        pack_panel(ty, cols, &src[p * LANES * ty.row_bytes(cols)..], out);
    }
    // SAFETY: the arena goes with the matrix.
    let m = unsafe { Matrix::new(ty, rows, cols, arena.base()) };
    (arena, m)
}

fn product(isa: Isa, m: &Matrix, x: &[f32], n: usize) -> Vec<f32> {
    let mut quant = vec![XBlock::ZERO; x.len() / 32];
    let mut y = vec![f32::NAN; n * m.rows];
    // SAFETY: shapes as allocated here.
    unsafe {
        if m.is_quantized() {
            vector::quantize(isa, x.as_ptr(), quant.as_mut_ptr(), x.len());
        } else {
            quant.clear();
        }
        let input = Input { n, float: x, quant: &quant };
        m.mul(isa, 0, m.n_panels(), &input, y.as_mut_ptr(), m.rows);
    }
    y
}

#[test]
fn products_equal_plain_arithmetic_in_every_type() {
    let (rows, cols, n) = (83, 512, 13);
    for ty in TensorType::ALL {
        let mut rng = Rng(ty.number() as u64 + 1);
        let src = random_rows(ty, rows, cols, &mut rng);
        let (_arena, m) = packed(ty, rows, cols, &src);
        let x: Vec<f32> = (0..n * cols).map(|_| rng.unit()).collect();
        let y = product(Isa::best(), &m, &x, n);
        let mut w = vec![0.0; cols];
        let (mut error, mut power) = (0.0_f64, 0.0_f64);
        for row in 0..rows {
            let bytes = &src[row * ty.row_bytes(cols)..(row + 1) * ty.row_bytes(cols)];
            dequantize_row(ty, bytes, &mut w).unwrap();
            let mut own = vec![0.0; cols];
            m.row(row, &mut own);
            for (a, b) in w.iter().zip(&own) {
                // Two roundings of products of a few factors.
                assert!((a - b).abs() <= 4.0 * f32::EPSILON * (a.abs() + 1.0), "{} row {row}: {a} {b}", ty.name());
            }
            for t in 0..n {
                let exact: f64 = (0..cols).map(|c| f64::from(w[c]) * f64::from(x[t * cols + c])).sum();
                error += (exact - f64::from(y[t * rows + row])).powi(2);
                power += exact * exact;
            }
        }
        // 16-bit activations: relative rounding of at most 2^-16 an element, f32 sums of 512 terms far below that.
        let nmse = error / power;
        assert!(nmse < 2.0_f64.powi(-30), "{}: {nmse:e}", ty.name());
    }
}

#[test]
fn products_are_the_same_bits_everywhere() {
    let (rows, cols) = (83, 512);
    for ty in TensorType::ALL {
        let mut rng = Rng(ty.number() as u64 + 77);
        let src = random_rows(ty, rows, cols, &mut rng);
        let (_arena, m) = packed(ty, rows, cols, &src);
        let x: Vec<f32> = (0..13 * cols).map(|_| rng.unit()).collect();
        let all = product(Isa::Portable, &m, &x, 13);
        for isa in Isa::available() {
            assert_eq!(bits(&product(isa, &m, &x, 13)), bits(&all), "{} {isa:?}", ty.name());
            for n in [1, 2, 5, 12] {
                let some = product(isa, &m, &x[..n * cols], n);
                assert_eq!(bits(&some), bits(&all[..n * rows]), "{} {isa:?} {n} tokens", ty.name());
            }
        }
    }
}

fn bits(v: &[f32]) -> Vec<u32> {
    v.iter().map(|x| x.to_bits()).collect()
}

/// The bits, and one pattern for all that is no number.
fn comparable(v: &[f32]) -> Vec<u32> {
    v.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
}

/// Rows that no quantizer makes: all bytes alike, each value once, so that all codes are the largest or the smallest and scales end
/// where an f16 or a byte does; then rows of any bytes.
fn hostile_rows(ty: TensorType, n_random: usize, cols: usize) -> Vec<u8> {
    let (row, mut rng) = (ty.row_bytes(cols), Rng(ty.number() as u64 + 5));
    let alike = (0..=255_u8).flat_map(|b| std::iter::repeat_n(b, row));
    alike.chain((0..n_random * row).map(|_| rng.next() as u8)).collect()
}

#[test]
fn products_of_hostile_blocks_are_right_and_the_same_bits_everywhere() {
    let (rows, cols) = (256 + 35, 512);
    let turns = |c: usize| if c.is_multiple_of(2) { 1.0 } else { -1.0 };
    let tokens: [&dyn Fn(usize) -> f32; 9] = [
        &|_| 1.0,
        &|_| -1.0,
        &turns,
        &|c| if c == 37 { 1.0 } else { 0.0 },
        &|_| 0.0,
        &|c| (c % 32) as f32 - 15.5,
        &|c| if c == 511 { -1e6 } else { 1e-6 },
        &|c| 1e20 * turns(c),
        &|c| 1e-29 * turns(c / 16),
    ];
    let x: Vec<f32> = tokens.iter().flat_map(|token| (0..cols).map(token)).collect();
    for ty in TensorType::ALL.into_iter().filter(|ty| ty.block_len() > 1) {
        let src = hostile_rows(ty, rows - 256, cols);
        let (_arena, m) = packed(ty, rows, cols, &src);
        let y = product(Isa::Portable, &m, &x, tokens.len());
        for isa in Isa::available() {
            assert!(comparable(&product(isa, &m, &x, tokens.len())) == comparable(&y), "{} {isa:?}", ty.name());
        }
        let mut seen = 0;
        let (mut w, mut own) = (vec![0.0; cols], vec![0.0; cols]);
        for row in 0..rows {
            let bytes = &src[row * ty.row_bytes(cols)..(row + 1) * ty.row_bytes(cols)];
            dequantize_row(ty, bytes, &mut w).unwrap();
            m.row(row, &mut own);
            // Where there are minima, what cancels is as large as a block's f16 times its small integers.
            let blocks = bytes.chunks_exact(ty.block_bytes());
            let half = |b: &[u8], at: usize| half::f16::from_le_bytes([b[at], b[at + 1]]).to_f64().abs();
            let of_halves =
                |at: usize| 63.0 * 32.0 * blocks.fold(0.0, |most: f64, b| most.max(half(b, at)).max(half(b, at + 2)));
            let cancels = match ty {
                TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => of_halves(0),
                TensorType::Q2_K => of_halves(80),
                _ => w.iter().fold(0.0, |most: f64, w| most.max(f64::from(w.abs()))),
            };
            if w.iter().any(|w| !w.is_finite()) {
                continue;
            }
            for (a, b) in w.iter().zip(&own) {
                let error = f64::from(a - b).abs();
                assert!(error <= f64::from(f32::EPSILON) * cancels, "{} row {row}: {a} {b}", ty.name());
            }
            for (t, x) in x.chunks_exact(cols).enumerate() {
                let exact: f64 = w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
                // An activation is half a 32512th of its block's largest off at most.
                let most = |x: &[f32]| f64::from(x.iter().fold(0.0, |most: f32, x| most.max(x.abs())));
                let all: f64 = x.chunks_exact(32).map(|x| 32.0 * most(x) * cancels).sum();
                if all > 1e37 {
                    continue;
                }
                let got = f64::from(y[t * rows + row]);
                let bound = all * 2f64.powi(-15) + 1e-36;
                assert!((got - exact).abs() <= bound, "{} row {row} token {t}: {got} for {exact}", ty.name());
                seen += 1;
            }
        }
        assert!(seen > 500, "{}: {seen} products compared", ty.name());
    }
}

#[test]
fn row_kernels_are_the_same_bits_everywhere_and_right() {
    let mut rng = Rng(5);
    for n in [1, 15, 16, 17, 96, 333] {
        let x: Vec<f32> = (0..n).map(|_| rng.unit() * 12.0).collect();
        let w: Vec<f32> = (0..n).map(|_| rng.unit()).collect();
        let run = |isa: Isa| {
            let activated = |activation, up: bool| {
                let mut y = x.clone();
                // SAFETY: n elements each.
                unsafe { activate(isa, activation, y.as_mut_ptr(), up.then_some(w.as_ptr()), n) };
                y
            };
            let normalized = |kind| {
                let mut y = vec![0.0; n];
                // SAFETY: n elements each.
                unsafe { vector::norm(isa, kind, x.as_ptr(), w.as_ptr(), y.as_mut_ptr(), n, 1e-5) };
                y
            };
            let (mut cap, mut sum) = (x.clone(), x.clone());
            // SAFETY: n elements each.
            unsafe {
                vector::softcap(isa, cap.as_mut_ptr(), n, 5.0);
                vector::add(isa, sum.as_mut_ptr(), w.as_ptr(), 0.75, n);
            }
            let [silu, tanh] = [Activation::Silu, Activation::GeluTanh].map(|a| activated(a, true));
            let [gelu, relu2] = [Activation::Gelu, Activation::Relu2].map(|a| activated(a, false));
            [normalized(Norm::Rms), silu, tanh, cap, normalized(Norm::Layer), sum, gelu, relu2]
        };
        let plain = run(Isa::Portable);
        for isa in Isa::available() {
            for (a, b) in run(isa).iter().zip(&plain) {
                assert_eq!(bits(a), bits(b), "{isa:?} {n}");
            }
        }
        let moment = |f: &dyn Fn(f64) -> f64| x.iter().map(|&v| f(f64::from(v))).sum::<f64>() / n as f64;
        let (square, mean) = (moment(&|v| v * v), moment(&|v| v));
        let variance = moment(&|v| (v - mean).powi(2));
        for i in 0..n {
            let (g, u) = (f64::from(x[i]), f64::from(w[i]));
            let expected = [
                g / (square + 1e-5).sqrt() * u,
                g / (1.0 + (-g).exp()) * u,
                0.5 * g * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g.powi(3))).tanh()) * u,
                5.0 * (g / 5.0).tanh(),
                (g - mean) / (variance + 1e-5).sqrt() * u,
                g + 0.75 * u,
                0.5 * g * (1.0 + libm::erf(g / 2.0_f64.sqrt())),
                g.max(0.0).powi(2),
            ];
            for (k, e) in expected.into_iter().enumerate() {
                let got = f64::from(plain[k][i]);
                // A dozen roundings, and 1 + tanh cancels for negative arguments.
                assert!((got - e).abs() <= 2e-6 * (1.0 + g.abs().max(e.abs())), "kernel {k}, {n}, {i}: {got} {e}");
            }
        }
    }
}

#[test]
fn a_block_that_is_not_finite_shows() {
    for isa in Isa::available() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [0.5_f32; 64];
            x[40] = bad;
            let mut q = [XBlock::ZERO; 2];
            // SAFETY: two blocks.
            unsafe { vector::quantize(isa, x.as_ptr(), q.as_mut_ptr(), 64) };
            assert!(q[0].d.is_finite() && q[1].d.is_nan(), "{isa:?} {bad}");
        }
    }
}

#[test]
fn every_chunk_runs_once_on_any_number_of_threads() {
    for n_threads in [1, 2, 3, 8] {
        let pool = Pool::new(n_threads, &Placement::default()).unwrap();
        let turn = pool.turn();
        for n in [0, 1, 2, 7, 100, 1000] {
            let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..50 {
                turn.run(n, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                })
                .unwrap();
            }
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 50), "{n_threads} threads, {n} chunks");
        }
    }
}

#[test]
fn a_panic_on_a_worker_is_an_error_and_the_pool_goes_on() {
    let pool = Pool::new(3, &Placement::default()).unwrap();
    let turn = pool.turn();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = turn.run(10, &|i| assert!(i != 4));
    std::panic::set_hook(hook);
    assert!(result.is_err());
    turn.run(10, &|_| {}).unwrap();
}
