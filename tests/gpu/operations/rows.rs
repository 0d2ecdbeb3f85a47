//! Weights into planes and back, embeddings, norms, the gated unit.

use half::f16;
use kigo::backend::cuda::kernels::abi::{Glu, Norm, Stage, State};
use kigo::backend::cuda::kernels::kinds::NormKind;
use kigo::backend::cuda::kernels::launch::Parts;

use super::bench::{Bench, TYPES, activation, close, near, numbers, rms_norm};

pub fn read(bench: &Bench) {
    let (from, out) = (bench.zeros(1 << 16), bench.put(&[7u32]));
    bench.queue().read(from, 1 << 16, out).unwrap();
    assert_eq!(bench.get::<u32>(out, 1), [7], "it reads only");
    let refused = bench.queue().read(from + 4, 64, out).unwrap_err().to_string();
    assert!(refused.contains("read: 64 bytes at"), "{refused}");
}

/// Every type's planes hold what the file's blocks hold.
pub fn weights(bench: &Bench) {
    for ty in TYPES {
        for (tiled, rows, cols) in [(false, 5, 512), (false, 3, 37), (true, 19, 72)] {
            if !cols_fit(ty, cols) || (tiled && ty != kigo::gguf::TensorType::F16) {
                continue;
            }
            let m = bench.matrix(ty, rows, cols, tiled);
            let stride = if m.mat.ty.is_quantized() { cols } else { m.mat.stride as usize };
            let n = (rows - 1) * stride;
            let (slab, lo) = (bench.zeros(n * 2), bench.zeros(n * 2));
            bench.queue().dequantize_f16(&m.mat, 1, rows as u32 - 1, slab, lo).unwrap();
            let (one, both) = (bench.halves(slab, 0, n), bench.halves(slab, lo, n));
            for row in 1..rows {
                let at = (row - 1) * stride;
                let what = format!("{} row {row} of {cols}", ty.name());
                close(&what, &one[at..at + cols], m.row(row), 2f64.powi(-22));
                close(&what, &both[at..at + cols], m.row(row), 2f64.powi(-40));
                assert!(both[at + cols..at + stride].iter().all(|x| *x == 0.0), "{what}: zeros behind it");
            }
            let beyond = bench.queue().dequantize_f16(&m.mat, 1, rows as u32, slab, lo).unwrap_err().to_string();
            assert!(beyond.contains(&format!("rows 1 and {rows} more of {rows}")), "{beyond}");
        }
    }
}

fn cols_fit(ty: kigo::gguf::TensorType, cols: usize) -> bool {
    cols.is_multiple_of(ty.block_len())
}

pub fn embed(bench: &Bench) {
    for ty in TYPES {
        for (tiled, cols) in [(false, 256), (false, 43), (true, 43)] {
            if !cols_fit(ty, cols) || (tiled && ty != kigo::gguf::TensorType::F16) {
                continue;
            }
            let m = bench.matrix(ty, 6, cols, tiled);
            let tokens = [4u32, 0, 5];
            let stride = cols.next_multiple_of(32);
            let x = [bench.zeros(3 * stride * 4), bench.zeros(3 * stride * 4)];
            let states = tokens.map(|token| State { token: token as i32, ..State::default() });
            let (states, list) = (bench.put(&states), bench.put(&tokens));
            bench.queue().embed(&m.mat, states, 3, 1.5, x[0], stride as u32).unwrap();
            bench.queue().embed_rows(&m.mat, list, 3, 1.5, x[1], stride as u32).unwrap();
            for x in x {
                let got = bench.floats(x, 3 * stride);
                for (row, token) in got.chunks(stride).zip(tokens) {
                    let truth: Vec<f64> = m.row(token as usize).iter().map(|v| 1.5 * v).collect();
                    near(ty.name(), &row[..cols], &truth, 1e-12);
                    assert!(row[cols..].iter().all(|v| *v == 0.0), "{}: nothing behind it", ty.name());
                }
            }
        }
    }
}

/// Plain sums and sums in parts, with and without a post norm.
pub fn batch_norm(bench: &Bench) {
    for (n, parts, post, threads) in [(96, 0, true, 64), (72, 0, false, 32), (160, 5, true, 96), (64, 16, false, 512)] {
        let n_seq = 3;
        let (x, stride, xs) = bench.vectors(1, n_seq, n);
        let (delta, _, ds) = bench.vectors(11, n_seq, n);
        let (part, _, ps) = bench.vectors(21, parts * n_seq, n);
        let ((post_w, pw), (norm_w, nw), (bias, bs)) = (bench.vector(31, n), bench.vector(32, n), bench.vector(33, n));
        let bytes = n_seq * stride as usize * 4;
        let (x_out, out) = (bench.zeros(bytes), bench.zeros(bytes));
        let st = Stage { x, delta, norm_w, x_out, eps: 1e-3, n: n as u32, n_seq: n_seq as u32, ..Stage::default() };
        let st = Stage { post_w: if post { post_w } else { 0 }, x_stride: stride, n_part: parts as u32, ..st };
        let st = if parts > 0 { Stage { part, part_bias: bias, ..st } } else { st };
        bench.queue().batch_norm(&st, out, threads).unwrap();
        let (seen_x, seen) = (bench.floats(x_out, bytes / 4), bench.floats(out, bytes / 4));
        for seq in 0..n_seq {
            let mut add = ds[seq].clone();
            if parts > 0 {
                add = (0..n).map(|i| (0..parts).map(|p| ps[p * n_seq + seq][i]).sum::<f64>() + bs[i]).collect();
            }
            if post {
                add = rms_norm(&add, 1e-3).iter().zip(&pw).map(|(a, w)| a * w).collect();
            }
            let v: Vec<f64> = xs[seq].iter().zip(&add).map(|(a, b)| a + b).collect();
            let h: Vec<f64> = rms_norm(&v, 1e-3).iter().zip(&nw).map(|(a, w)| a * w).collect();
            let at = seq * stride as usize;
            near("the stream", &seen_x[at..at + n], &v, 1e-12);
            near("its norm", &seen[at..at + n], &h, 1e-12);
        }
    }
}

/// Gated and not, of one row and of several, to f32 and to two halves.
pub fn glu(bench: &Bench) {
    for kind in [1, 2, 3, 4, 5] {
        for (rows, n, gated) in [(1, 301, true), (3, 40, true), (3, 37, false), (2, 264, false)] {
            if kind == 5 && !gated {
                continue;
            }
            let (in_stride, out_stride) = (n + 12, n + 4);
            // Beyond 7 too, where that is the bound.
            let by = if kind == 5 { 4.0 } else { 1.0 };
            let spread = |seed: u64| numbers(seed, rows * in_stride).into_iter().map(|x| by * x).collect::<Vec<f32>>();
            let (gs, us) = (spread(1), spread(2));
            let (row, lo) = (bench.zeros(rows * out_stride * 4), bench.zeros(rows * out_stride * 2));
            let out = bench.put(&vec![f16::NAN; rows * out_stride]);
            let glu = Glu { gate: bench.put(&gs), row, out, out_lo: lo, activation: kind, ..Glu::default() };
            let glu = Glu { n_rows: rows as u32, n: n as u32, in_stride: in_stride as u32, ..glu };
            let up = if gated { bench.put(&us) } else { 0 };
            bench.queue().glu(&Glu { up, out_stride: out_stride as u32, ..glu }).unwrap();
            let (seen, halves) = (bench.floats(row, rows * out_stride), bench.halves(out, lo, rows * out_stride));
            for r in 0..rows {
                let of = |i: usize| {
                    let up = if gated { f64::from(us[r * in_stride + i]) } else { 1.0 };
                    let up = if kind == 5 { up.clamp(-7.0, 7.0) + 1.0 } else { up };
                    activation(kind, f64::from(gs[r * in_stride + i])) * up
                };
                let truth: Vec<f64> = (0..n).map(of).collect();
                let what = format!("activation {kind}, row {r} of {n}");
                near(&what, &seen[r * out_stride..][..n], &truth, 1e-12);
                close(&what, &halves[r * out_stride..][..n], &truth, 1e-12);
                assert!(halves[r * out_stride + n..][..4].iter().all(|x| x.is_nan()), "{what}: nothing behind it");
            }
        }
    }
    let glu = Glu { gate: 16, up: 16, row: 16, n_rows: 1, n: 4, in_stride: 4, out_stride: 4, ..Glu::default() };
    let refused = bench.queue().glu(&glu).unwrap_err().to_string();
    assert!(refused.contains("glu: activation 0 of 4 elements"), "{refused}");
}

pub fn sum_parts(bench: &Bench) {
    for (n_part, n_rows, n, biased) in [(8, 3, 301, true), (16, 1, 64, false), (1, 2, 37, true)] {
        let stride = n + 3;
        let parts = numbers(1, n_part * n_rows * stride);
        let ((bias, bs), before) = (bench.vector(2, n), numbers(3, n_rows * stride));
        let y = bench.put(&before);
        let sum =
            Parts { part: bench.put(&parts), bias: if biased { bias } else { 0 }, y, n_part: n_part as u32, ..NONE };
        bench.queue().sum_parts(Parts { n_rows: n_rows as u32, n: n as u32, stride: stride as u32, ..sum }).unwrap();
        let got = bench.floats(y, n_rows * stride);
        for row in 0..n_rows {
            let of = |i: usize| {
                let parts = (0..n_part).map(|p| f64::from(parts[(p * n_rows + row) * stride + i])).sum::<f64>();
                parts + if biased { bs[i] } else { 0.0 }
            };
            let truth: Vec<f64> = (0..n).map(of).collect();
            near(&format!("{n_part} parts of {n}"), &got[row * stride..][..n], &truth, 1e-12);
            assert_eq!(got[row * stride + n..][..3], before[row * stride + n..][..3], "only its columns");
        }
    }
    let refused = bench.queue().sum_parts(Parts { n_part: 17, ..NONE }).unwrap_err().to_string();
    assert!(refused.contains("sum_parts: 17 parts of a sum"), "{refused}");
}

/// Nothing yet.
const NONE: Parts = Parts { part: 0, bias: 0, y: 0, n_part: 0, n_rows: 0, n: 0, stride: 0 };

struct NormCase {
    rows: usize,
    dim: usize,
    /// From row to row of f32, and of f16, which is not wanted where it is 0.
    strides: [usize; 2],
    /// Things to add, and which of them have norms.
    adds: usize,
    post: [bool; 2],
    scale: f32,
    kind: NormKind,
    bias: bool,
    /// The f32 result goes where the stream is.
    in_place: bool,
}

#[rustfmt::skip]
const NORMS: &[NormCase] = &[
    // A prompt's plain ones.
    NormCase { rows: 3, dim: 96, strides: [96, 104], adds: 1, post: [true, false], scale: 1.0, kind: NormKind::Rms, bias: false, in_place: false },
    NormCase { rows: 2, dim: 4100, strides: [4100, 4100], adds: 1, post: [false; 2], scale: 1.0, kind: NormKind::Rms, bias: false, in_place: false },
    NormCase { rows: 3, dim: 37, strides: [37, 40], adds: 0, post: [false; 2], scale: 1.0, kind: NormKind::Rms, bias: false, in_place: false },
    NormCase { rows: 2, dim: 1031, strides: [1031, 1031], adds: 1, post: [true, false], scale: 1.0, kind: NormKind::Rms, bias: false, in_place: false },
    // And the others.
    NormCase { rows: 1, dim: 96, strides: [96, 0], adds: 2, post: [false; 2], scale: 1.0, kind: NormKind::Layer, bias: true, in_place: false },
    NormCase { rows: 3, dim: 72, strides: [128, 0], adds: 2, post: [true; 2], scale: 0.25, kind: NormKind::Layer, bias: true, in_place: false },
    NormCase { rows: 2, dim: 4200, strides: [4224, 4200], adds: 2, post: [false, true], scale: 2.5, kind: NormKind::Layer, bias: false, in_place: false },
    NormCase { rows: 2, dim: 1031, strides: [1088, 1032], adds: 1, post: [true, false], scale: 0.5, kind: NormKind::Rms, bias: true, in_place: false },
    NormCase { rows: 4, dim: 40, strides: [200, 0], adds: 0, post: [false; 2], scale: 1.0, kind: NormKind::Rms, bias: false, in_place: true },
    NormCase { rows: 2, dim: 5000, strides: [5000, 0], adds: 0, post: [false; 2], scale: 1.0, kind: NormKind::Layer, bias: true, in_place: true },
    NormCase { rows: 2, dim: 136, strides: [136, 136], adds: 1, post: [true, false], scale: 1.0, kind: NormKind::None, bias: false, in_place: false },
    NormCase { rows: 2, dim: 136, strides: [136, 136], adds: 0, post: [false; 2], scale: 1.0, kind: NormKind::None, bias: false, in_place: false },
];

fn layer_norm(x: &[f64], eps: f64) -> Vec<f64> {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    rms_norm(&x.iter().map(|v| v - mean).collect::<Vec<f64>>(), eps)
}

pub fn norm(bench: &Bench) {
    NORMS.iter().for_each(|case| one_norm(bench, case));
    // The stream alone.
    let (x, delta) = (bench.put(&[1f32, 2.0, 3.0]), bench.put(&[4f32, 4.0, 4.0]));
    let sum = Norm { x, delta: [delta, 0], scale: 1.0, n_rows: 1, dim: 3, x_stride: 3, ..Norm::default() };
    bench.queue().norm(&sum).unwrap();
    assert_eq!(bench.floats(x, 3), [5.0, 6.0, 7.0]);
    // The same, times something.
    bench.queue().norm(&Norm { sum_scale: -0.5, ..sum }).unwrap();
    assert_eq!(bench.floats(x, 3), [-4.5, -5.0, -5.5]);
    // Parts of rows, each by itself; what is in front and behind stays.
    for (heads, dim) in [(3, 40), (2, 5)] {
        let (at, stride) = (8, 8 + heads * dim + 4);
        let before = numbers(1, 2 * stride);
        let x = bench.put(&before);
        let norm = Norm { x: x + 4 * at as u64, row: x + 4 * at as u64, n_rows: 2, dim: dim as u32, ..Norm::default() };
        let norm = Norm { heads: heads as u32, x_stride: stride as u32, kind: NormKind::Rms as u32, eps: 1e-3, ..norm };
        bench.queue().norm(&norm).unwrap();
        let seen = bench.floats(x, before.len());
        for (row, of) in before.chunks(stride).enumerate() {
            let mut truth: Vec<f64> = of.iter().map(|x| f64::from(*x)).collect();
            truth[at..at + heads * dim].chunks_mut(dim).for_each(|head| head.copy_from_slice(&rms_norm(head, 1e-3)));
            near(&format!("{heads} heads of {dim}"), &seen[row * stride..][..stride], &truth, 1e-12);
        }
    }
}

fn one_norm(bench: &Bench, case: &NormCase) {
    let &NormCase { rows, dim, strides: [stride, out_stride], adds, post, scale, kind, in_place, .. } = case;
    // Far from 0, so that a mean matters.
    let spread = |seed: u64| numbers(seed, rows * stride).into_iter().map(|x| 2.0 * x + 1.0).collect::<Vec<f32>>();
    let (x0, ds) = (spread(1), [spread(2), spread(3)]);
    let ((w, ws), (bias, bs)) = (bench.vector(4, dim), bench.vector(5, dim));
    let posts = [bench.vector(6, dim), bench.vector(7, dim)];
    let x = bench.put(&x0);
    let before = spread(8);
    let row = if in_place { x } else { bench.put(&before) };
    let halves = [0, 1].map(|_| if out_stride == 0 { 0 } else { bench.put(&vec![f16::NAN; rows * out_stride]) });
    let mut norm = Norm { x, row, out: halves[0], out_lo: halves[1], eps: 1e-3, scale, ..Norm::default() };
    norm = Norm { n_rows: rows as u32, dim: dim as u32, x_stride: stride as u32, kind: kind as u32, ..norm };
    norm = Norm { w: if kind == NormKind::None { 0 } else { w }, out_stride: out_stride as u32, ..norm };
    norm.bias = if case.bias { bias } else { 0 };
    for i in 0..adds {
        norm.delta[i] = bench.put(&ds[i]);
        norm.post_w[i] = if post[i] { posts[i].0 } else { 0 };
    }
    bench.queue().norm(&norm).unwrap();
    let got = if out_stride == 0 { Vec::new() } else { bench.halves(halves[0], halves[1], rows * out_stride) };
    let (stream, seen) = (bench.floats(x, rows * stride), bench.floats(row, rows * stride));
    for r in 0..rows {
        let of = |all: &[f32]| -> Vec<f64> { all[r * stride..][..dim].iter().map(|v| f64::from(*v)).collect() };
        let mut v = of(&x0);
        for i in 0..adds {
            let mut add = of(&ds[i]);
            if post[i] {
                add = rms_norm(&add, 1e-3).iter().zip(&posts[i].1).map(|(a, w)| a * w).collect();
            }
            v.iter_mut().zip(add).for_each(|(v, a)| *v += f64::from(scale) * a);
        }
        let h = match kind {
            NormKind::None => v.clone(),
            NormKind::Rms => rms_norm(&v, 1e-3),
            NormKind::Layer => layer_norm(&v, 1e-3),
        };
        let weighed = |(i, h): (usize, &f64)| {
            (if kind == NormKind::None { *h } else { h * ws[i] }) + if case.bias { bs[i] } else { 0.0 }
        };
        let h: Vec<f64> = h.iter().enumerate().map(weighed).collect();
        let what = format!("row {r} of {dim}, {kind:?}, {adds} added");
        if !in_place {
            near(&what, &stream[r * stride..][..dim], &v, 1e-12);
        }
        near(&what, &seen[r * stride..][..dim], &h, 1e-12);
        let behind = if in_place { &x0 } else { &before };
        let behind = &behind[r * stride + dim..(r + 1) * stride];
        assert_eq!(&seen[r * stride + dim..(r + 1) * stride], behind, "{what}: nothing behind it");
        if out_stride > 0 {
            close(&what, &got[r * out_stride..][..dim], &h, 1e-11);
            let behind = &got[r * out_stride + dim..(r + 1) * out_stride];
            assert!(behind.iter().all(|x| *x == 0.0), "{what}: zeros behind it");
        }
    }
    // A row by itself has the same bits.
    let alone = |at: u64| at + ((rows - 1) * stride * 4) as u64;
    let (x, row) = (bench.put(&x0), bench.zeros(rows * stride * 4));
    let mut one = Norm { x: alone(x), row: alone(row), n_rows: 1, out: 0, out_lo: 0, x_stride: stride as u32, ..norm };
    if out_stride == 0 {
        for i in 0..adds {
            one.delta[i] = alone(bench.put(&ds[i]));
        }
        bench.queue().norm(&one).unwrap();
        let bits = |all: &[f32]| all[(rows - 1) * stride..][..dim].iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        assert_eq!(bits(&bench.floats(row, rows * stride)), bits(&seen), "alone and among others");
    }
}
