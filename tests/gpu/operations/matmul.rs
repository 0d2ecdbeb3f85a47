//! Products with the vectors of a step: alone, mixed, of several sequences, on tensor cores.

use kigo::backend::cuda::Address;
use kigo::backend::cuda::kernels::abi::Stage;
use kigo::backend::cuda::kernels::launch::{f16_mma_batch_most, f16_mma_split_most};
use kigo::backend::cuda::kernels::packed::Packed;
use kigo::gguf::TensorType;

use super::bench::{Bench, Matrix, TYPES, activation, near, rms_norm};

const EPS: f32 = 1e-3;
/// Of results that have a soft cap.
const SCALE: f32 = 0.75;

/// A stage with what it reads, and what it has to come to.
struct Built {
    st: Stage,
    truth: Vec<Vec<f64>>,
    h: Vec<f64>,
}

/// The matrices in a stage, `blocks` of each at most, results in memory of their own, `n_seq` rows of each.
fn matrices(bench: &Bench, mats: &[Matrix], kind: u32, blocks: u32, n_seq: usize) -> Stage {
    let mut st = Stage { n: mats[0].mat.cols, ks: 1, activation: kind, eps: EPS, ..Stage::default() };
    let results = if kind == 0 { mats.len() } else { 1 };
    st.n_seg = results as u32;
    st.out_stride = mats.iter().map(|m| m.mat.rows).max().unwrap_or(0).next_multiple_of(32);
    for (i, m) in mats.iter().enumerate() {
        st.m[i] = m.mat;
    }
    for i in 0..results {
        st.seg_block[i + 1] = st.seg_block[i] + blocks.min(mats[i].mat.rows.div_ceil(16));
        st.out[i] = bench.zeros(n_seq * st.out_stride as usize * 4);
    }
    st
}

/// W h, with biases where there is no gate; scaled where there is a soft cap.
fn products(mats: &[Matrix], kind: u32, h: &[f64], bias: &[Vec<f64>], softcap: f64) -> Vec<Vec<f64>> {
    let mut y: Vec<Vec<f64>> = mats.iter().map(|m| m.times(h)).collect();
    if kind == 0 {
        y.iter_mut().zip(bias).for_each(|(y, b)| y.iter_mut().zip(b).for_each(|(y, b)| *y += b));
    } else {
        let up = y.pop().unwrap_or_default();
        y[0].iter_mut().zip(up).for_each(|(g, u)| *g = activation(kind, *g) * u);
    }
    if softcap != 0.0 {
        y.iter_mut().flatten().for_each(|y| *y = softcap * (f64::from(SCALE) * *y / softcap).tanh());
    }
    y
}

/// A token's stage: residual, norms, biases, a soft cap, or the products alone.
fn build(bench: &Bench, mats: &[Matrix], kind: u32, full: bool) -> Built {
    let n = mats[0].mat.cols as usize;
    let mut st = matrices(bench, mats, kind, 2, 1);
    let (x, mut h) = bench.vector(1, n);
    st.x = x;
    let (mut softcap, mut biases) = (0.0, Vec::new());
    if full {
        let ((delta, ds), (post_w, ps), (norm_w, ns)) = (bench.vector(2, n), bench.vector(3, n), bench.vector(4, n));
        let add: Vec<f64> = rms_norm(&ds, EPS.into()).iter().zip(&ps).map(|(a, w)| a * w).collect();
        h.iter_mut().zip(&add).for_each(|(x, a)| *x += a);
        h = rms_norm(&h, EPS.into()).iter().zip(&ns).map(|(a, w)| a * w).collect();
        (st.delta, st.post_w, st.norm_w, st.softcap, st.scale) = (delta, post_w, norm_w, 3.0, SCALE);
        (st.x_out, st.tap) = (bench.zeros(n.next_multiple_of(32) * 4), bench.zeros(n.next_multiple_of(32) * 4));
        softcap = 3.0;
        for i in 0..st.n_seg as usize {
            let (at, values) = bench.vector(5 + i as u64, mats[i].mat.rows as usize);
            st.bias[i] = at;
            biases.push(values);
        }
    }
    Built { st, truth: products(mats, kind, &h, &biases, softcap), h }
}

fn results(bench: &Bench, st: &Stage, seq: usize) -> Vec<Vec<f32>> {
    let stride = st.out_stride as usize;
    let of = |i: usize| bench.floats(st.out[i] + (seq * stride * 4) as u64, st.m[i].rows as usize);
    (0..st.n_seg as usize).map(of).collect()
}

/// Inputs of 12-bit integers for quantized types, f32 for the others. A gate multiplies two products, of which the larger have the errors of
/// both.
pub fn bound(ty: Packed, kind: u32) -> f64 {
    match (ty.is_quantized(), kind) {
        (true, 0) => 1e-6,
        (true, _) => 4e-6,
        (false, _) => 1e-11,
    }
}

#[track_caller]
fn compare(bench: &Bench, what: &str, st: &Stage, truth: &[Vec<f64>], bound: f64) {
    for (i, (got, truth)) in results(bench, st, 0).iter().zip(truth).enumerate() {
        near(&format!("{what}, result {i}"), got, truth, bound);
    }
}

pub fn gemv(bench: &Bench) {
    for ty in TYPES {
        for (rows, cols, ks, threads, ns, deep) in
            [(33, 512, 1, 64, 4, false), (7, 768, 2, 128, 1, true), (9, 256, 4, 128, 2, true), (5, 75, 1, 32, 2, false)]
        {
            if !usize::is_multiple_of(cols, ty.block_len()) {
                continue;
            }
            for (kind, full) in [(0, true), (0, false), (1, true), (2, false)] {
                let count = if kind == 0 { 3 } else { 2 };
                let rows = |i: usize| if kind == 0 { rows + 2 * i } else { rows };
                let mats: Vec<Matrix> = (0..count).map(|i| bench.matrix(ty, rows(i), cols, false)).collect();
                let mut built = build(bench, &mats, kind, full);
                built.st.ks = ks;
                let ns = if kind == 0 { ns } else { ns.max(2) };
                let packed = Packed::from(ty);
                let what = format!("gemv of {} {cols}, {ns} rows, activation {kind}", ty.name());
                bench.queue().gemv(&built.st, packed, ns, threads, deep && ns != 4).unwrap();
                compare(bench, &what, &built.st, &built.truth, bound(packed, kind));
                if full {
                    near(&what, &bench.floats(built.st.tap, cols), &built.h, 1e-11);
                }
            }
        }
    }
    let mat = bench.matrix(TensorType::F32, 4, 16, false);
    let st = build(bench, &[mat], 0, false).st;
    let refuse = |st: &Stage, ty, ns, threads| bench.queue().gemv(st, ty, ns, threads, false).unwrap_err().to_string();
    assert!(refuse(&st, Packed::Q8_0, 1, 32).contains("matrix 0 is F32"));
    assert!(refuse(&st, Packed::F32, 3, 32).contains("3 rows a warp"));
    assert!(refuse(&st, Packed::F32, 1, 48).contains("48 threads, 1 warps a row"));
    assert!(refuse(&Stage { n: 17, ..st }, Packed::F32, 1, 32).contains("matrix 0 has 16 columns, the input 17"));
    assert!(refuse(&Stage { seg_block: [0; 4], ..st }, Packed::F32, 1, 32).contains("blocks 0 to 0 of matrix 0"));
}

pub fn gemv_mixed(bench: &Bench) {
    use TensorType::{F16, Q2_K, Q4_0, Q4_K, Q5_0, Q5_K, Q6_K, Q8_0};
    for types in [[Q4_K, Q4_K, Q6_K], [Q5_K, Q5_K, Q6_K], [Q5_0, Q5_0, Q8_0], [F16, Q2_K, Q4_0]] {
        for (ns, ks, threads) in [(1, 2, 128), (4, 1, 64)] {
            let mats: Vec<Matrix> = types.iter().map(|ty| bench.matrix(*ty, 11, 512, false)).collect();
            let mut built = build(bench, &mats, 0, true);
            built.st.ks = ks;
            bench.queue().gemv_mixed(&built.st, ns, threads).unwrap();
            compare(bench, &format!("gemv of {types:?}"), &built.st, &built.truth, bound(Packed::Q8_0, 0));
        }
    }
}

/// A stage of `n_seq` sequences, their inputs normalized already, and those inputs.
fn several(bench: &Bench, mats: &[Matrix], kind: u32, blocks: u32, n_seq: usize) -> (Stage, Vec<Vec<f64>>) {
    let mut st = matrices(bench, mats, kind, blocks, n_seq);
    let (x, stride, values) = bench.vectors(40, n_seq, mats[0].mat.cols as usize);
    (st.x, st.x_stride, st.n_seq) = (x, stride, n_seq as u32);
    (st, values)
}

/// The results of a stage of several sequences are those of each alone, to the bit.
#[track_caller]
fn same_alone(bench: &Bench, what: &str, st: &Stage, n_seq: usize, alone: impl Fn(&Stage)) {
    let mut one = Stage { n_seq: 0, split: 0, split_nt: 0, split_ints: 0, ..*st };
    for i in 0..st.n_seg as usize {
        one.out[i] = bench.zeros(st.out_stride as usize * 4);
    }
    for seq in 0..n_seq {
        one.x = st.x + u64::from(st.x_stride) * 4 * seq as u64;
        alone(&one);
        for (i, (a, b)) in results(bench, &one, 0).iter().zip(results(bench, st, seq)).enumerate() {
            let same = a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{what}: result {i} of sequence {seq} is {b:?}, alone {a:?}");
        }
    }
}

pub fn gemv_batch(bench: &Bench) {
    for ty in TYPES {
        let packed = Packed::from(ty);
        for (kind, cols, ks, threads, at_once) in [(0, 512, 2, 128, 2), (1, 256, 1, 64, 4)] {
            let mats: Vec<Matrix> = (0..2).map(|_| bench.matrix(ty, 13, cols, false)).collect();
            let (mut st, xs) = several(bench, &mats, kind, 2, 3);
            st.ks = ks;
            bench.queue().gemv_batch(&st, packed, at_once, threads).unwrap();
            let what = format!("gemv_batch of {}", ty.name());
            compare(bench, &what, &st, &products(&mats, kind, &xs[0], &[], 0.0), bound(packed, kind));
            same_alone(bench, &what, &st, 3, |one| bench.queue().gemv(one, packed, 4, threads, false).unwrap());
        }
    }
}

pub fn f16_mma(bench: &Bench) {
    for (rows, cols, ks, deep) in [(33, 512, 8, false), (16, 330, 8, true), (21, 1056, 16, false), (5, 64, 16, true)] {
        for (kind, full) in [(0, true), (0, false), (2, true)] {
            let count = if kind == 0 { 3 } else { 2 };
            let mats: Vec<Matrix> = (0..count).map(|_| bench.matrix(TensorType::F16, rows, cols, true)).collect();
            let mut built = build(bench, &mats, kind, full);
            built.st.ks = ks;
            bench.queue().f16_mma(&built.st, deep).unwrap();
            let what = format!("f16_mma of {rows} by {cols}, activation {kind}");
            compare(bench, &what, &built.st, &built.truth, 1e-11);
        }
    }
}

/// Room for an input of `n_seq` sequences in groups of `nt` tiles, `words` of 16 bytes for a block of 32 of a sequence's tile.
fn staged(bench: &Bench, n: u32, n_seq: usize, nt: u32, words: u32) -> Address {
    let groups = n_seq.div_ceil(8 * nt as usize);
    bench.zeros(groups * (nt * n.div_ceil(32) * words * 16) as usize)
}

/// Behind a norm that stages the input: both kernels of F16 matrices of several sequences.
pub fn f16_of_several(bench: &Bench) {
    for (kind, rows, cols, ks, nt, n_seq) in
        [(0, 37, 320, 8, 1, 5), (1, 32, 256, 8, 2, 11), (0, 70, 520, 8, 4, 19), (0, 20, 512, 16, 1, 3)]
    {
        let count = if kind == 0 { 1 } else { 2 };
        let mats: Vec<Matrix> = (0..count).map(|_| bench.matrix(TensorType::F16, rows, cols, true)).collect();
        let (mut st, _) = several(bench, &mats, kind, 2, n_seq);
        // Small devices have less room.
        let nt = nt.min(f16_mma_batch_most(st.n, kind != 0, ks));
        (st.ks, st.split_nt) = (ks, nt);
        st.split = staged(bench, st.n, n_seq, nt, 66);
        let (norm_w, _) = bench.vector(4, cols);
        bench.queue().batch_norm(&Stage { norm_w, ..st }, 0, 32 * ks).unwrap();
        let what = format!("f16_mma_batch of {rows} by {cols}, {nt} tiles");
        bench.queue().f16_mma_batch(&st, nt).unwrap();
        let alone = |one: &Stage| bench.queue().f16_mma(&Stage { norm_w, ..*one }, false).unwrap();
        same_alone(bench, &what, &st, n_seq, alone);
        let ways = [(1, 4, false), (2, 2, false), (4, 1, false), (1, 2, true)];
        for (warps, groups, two) in ways.into_iter().filter(|(.., two)| bench.is_sm90() && !(*two && kind != 0)) {
            st.out[0] = bench.zeros(n_seq * st.out_stride as usize * 4);
            bench.queue().f16_batch(&st, nt, warps, groups, two).unwrap();
            let what = format!("f16_batch of {rows} by {cols}, {nt} tiles, {warps} warps, {two}");
            same_alone(bench, &what, &st, n_seq, alone);
        }
    }
}

pub fn f16_mma_split(bench: &Bench) {
    for (rows, cols, ks, nt, warps, n_seq) in [(37, 320, 8, 1, 2, 5), (48, 544, 16, 2, 1, 12), (16, 96, 8, 4, 3, 30)] {
        let mats = [bench.matrix(TensorType::F16, rows, cols, true)];
        let (mut st, _) = several(bench, &mats, 0, 1, n_seq);
        let stride = st.out_stride as usize;
        let nt = nt.min(f16_mma_split_most(st.n, ks));
        (st.ks, st.out[0]) = (ks, bench.zeros(ks as usize * n_seq * stride * 4));
        bench.queue().f16_mma_split(&st, nt, warps).unwrap();
        let parts = bench.floats(st.out[0], ks as usize * n_seq * stride);
        let mut sums = vec![0f32; n_seq * stride];
        for part in parts.chunks(n_seq * stride) {
            sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        st.out[0] = bench.put(&sums);
        let what = format!("f16_mma_split of {rows} by {cols}");
        same_alone(bench, &what, &st, n_seq, |one| bench.queue().f16_mma(one, false).unwrap());
    }
}

/// F16 matrices of several sequences whose input no norm stands before.
pub fn staged_halves(bench: &Bench) {
    for (rows, cols, ks, nt, n_seq) in [(37, 320, 8, 1, 5), (33, 250, 8, 2, 11), (20, 512, 16, 1, 3)] {
        let mats = [bench.matrix(TensorType::F16, rows, cols, true)];
        let (mut st, xs) = several(bench, &mats, 0, 2, n_seq);
        let nt = nt.min(f16_mma_batch_most(st.n, false, ks));
        (st.ks, st.split_nt, st.scale, st.softcap) = (ks, nt, SCALE, f32::INFINITY);
        st.split = staged(bench, st.n, n_seq, nt, 66);
        bench.queue().stage_input(&st).unwrap();
        bench.queue().f16_mma_batch(&st, nt).unwrap();
        let what = format!("f16_mma_batch of {rows} by {cols}, {nt} tiles, without a norm");
        let truth = mats[0].times(&xs[0]).into_iter().map(|y| y * f64::from(SCALE)).collect();
        compare(bench, &what, &st, &[truth], 1e-11);
        same_alone(bench, &what, &st, n_seq, |one| bench.queue().f16_mma(one, false).unwrap());
    }
    let st = Stage { n: 40, n_seq: 1, x: 16, x_stride: 64, split: 16, split_nt: 1, split_ints: 1, ..Stage::default() };
    let refused = bench.queue().stage_input(&st).unwrap_err().to_string();
    assert!(refused.contains("stage_input: 1 sequences of 40 columns"), "{refused}");
}

/// Quantized matrices of several sequences, their input staged by itself and behind a norm.
pub fn q_batch(bench: &Bench) {
    if !bench.is_sm90() {
        return;
    }
    let cases = [
        (0, 37, 512, 1, 1, 5, 1),
        (1, 32, 768, 2, 2, 11, 2),
        (2, 21, 256, 1, 4, 20, 1),
        (0, 18, 96, 1, 1, 9, 2),
        (0, 150, 2304, 2, 4, 61, 2),
        (0, 70, 1280, 1, 2, 13, 1),
    ];
    for ty in TYPES.into_iter().filter(|ty| Packed::from(*ty).is_quantized()) {
        for (kind, rows, cols, ks, nt, n_seq, groups) in cases {
            if !usize::is_multiple_of(cols, ty.block_len()) {
                continue;
            }
            let packed = Packed::from(ty);
            let mats: Vec<Matrix> = (0..2).map(|_| bench.matrix(ty, rows, cols, false)).collect();
            let (mut st, _) = several(bench, &mats, kind, 2, n_seq);
            (st.ks, st.split_nt, st.split_ints) = (ks, nt, 1);
            st.split = staged(bench, st.n, n_seq, nt, 38);
            bench.queue().stage_input(&st).unwrap();
            bench.queue().q_batch(&st, packed, groups).unwrap();
            let what = format!("q_batch of {} {rows} by {cols}, {nt} tiles, {groups} groups", ty.name());
            let threads = 64 * ks;
            same_alone(bench, &what, &st, n_seq, |one| bench.queue().gemv(one, packed, 4, threads, false).unwrap());
            let (norm_w, _) = bench.vector(4, cols);
            bench.queue().batch_norm(&Stage { norm_w, ..st }, 0, threads).unwrap();
            bench.queue().q_batch(&st, packed, groups).unwrap();
            let alone = |one: &Stage| bench.queue().gemv(&Stage { norm_w, ..*one }, packed, 4, threads, false).unwrap();
            same_alone(bench, &format!("{what} behind a norm"), &st, n_seq, alone);
        }
    }
}
