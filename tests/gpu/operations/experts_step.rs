//! The experts of one token in three launches, against the launches of many rows, to the bit.

use kigo::backend::cuda::kernels::abi::{ExpertProducts, Glu, Norm, Route};
use kigo::backend::cuda::kernels::kinds::{Activation, NormKind, Score};
use kigo::backend::cuda::kernels::launch::{Router, Sum, Tasks};
use kigo::gguf::TensorType;

use super::bench::{Bench, TYPES};

fn bits(values: Vec<f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

/// The norm, logits, choice and weights.
pub fn router(bench: &Bench) {
    if !bench.is_sm90() {
        return;
    }
    for ty in [TensorType::F32, TensorType::F16, TensorType::Bf16] {
        for (n, k, cols, score) in
            [(37, 4, 44, Score::Softmax), (16, 16, 256, Score::Sigmoid), (300, 8, 2100, Score::SoftmaxOfChosen)]
        {
            let m = bench.matrix(ty, n, cols, false);
            let (x, x_stride, _) = bench.vectors(5, 1, cols);
            let (bias, _) = bench.vector(6, n);
            let products = ExpertProducts { x, m: [m.mat; 2], bias: [bias, 0], n_m: 1, ..ExpertProducts::default() };
            let products = ExpertProducts { rows: n as u32, n: cols as u32, share: 1, n_slots: 1, ..products };
            let products = ExpertProducts { at_once: 1, x_stride, y_stride: n as u32, tile: 16, ..products };
            let (stream, delta) = (bench.vector(7, cols).0, bench.vector(8, cols).0);
            let weight = bench.vector(9, cols).0;
            let norm = Norm {
                x: stream,
                delta: [delta, 0],
                w: weight,
                row: x,
                n_rows: 1,
                dim: cols as u32,
                ..Norm::default()
            };
            let norm = Norm { x_stride: cols as u32, kind: NormKind::Rms as u32, eps: 1e-5, scale: 1.0, ..norm };
            bench.queue().norm(&norm).unwrap();
            let (summed, row_bits) = (bits(bench.floats(stream, cols)), bits(bench.floats(x, cols)));
            let seen = |together: bool| {
                let [logits, ids, weights] = [n, k, k].map(|n| bench.put(&vec![7f32; n + 1]));
                let products = ExpertProducts { y: [logits, 0], ..products };
                let route =
                    Route { logits, ids, weights, n_rows: 1, n: n as u32, n_used: k as u32, ..Route::default() };
                let route = Route { stride: n as u32, score: score as u32, renorm: 1, scale: 1.0, ..route };
                if together {
                    let [x, to, row] = [bench.vector(7, cols).0, bench.zeros(4 * cols), bench.zeros(4 * cols + 256)];
                    let norm = Norm { x, row, ..norm };
                    let products = ExpertProducts { x: row, ..products };
                    bench.queue().router(&Router { products, route, before: Some((norm, to)) }).unwrap();
                    assert!(bits(bench.floats(to, cols)) == summed && bits(bench.floats(row, cols)) == row_bits);
                } else {
                    bench.queue().expert_products(&products).unwrap();
                    bench.queue().route(&route).unwrap();
                }
                (bits(bench.floats(logits, n + 1)), bench.get::<u32>(ids, k), bits(bench.floats(weights, k + 1)))
            };
            assert!(seen(true) == seen(false), "{} {n} by {cols}", ty.name());
        }
        // Without a norm, of rows with which a kernel has to ask for memory because of its own.
        for cols in [7168, 8192] {
            let (n, k) = (5u32, 2);
            let m = bench.matrix(ty, n as usize, cols, false);
            let (x, x_stride, _) = bench.vectors(5, 1, cols);
            let of = ExpertProducts {
                x,
                m: [m.mat; 2],
                n_m: 1,
                rows: n,
                n: cols as u32,
                share: 1,
                ..ExpertProducts::default()
            };
            let of = ExpertProducts { n_slots: 1, at_once: 1, x_stride, y_stride: n, tile: 16, ..of };
            let [logits, apart, ids, weights] = [0; 4].map(|_| bench.zeros(64));
            let route =
                Route { logits, ids, weights, n_rows: 1, n, n_used: k, stride: n, scale: 1.0, ..Route::default() };
            bench.queue().expert_products(&ExpertProducts { y: [apart, 0], ..of }).unwrap();
            let products = ExpertProducts { y: [logits, 0], ..of };
            bench.queue().router(&Router { products, route, before: None }).unwrap();
            let n = n as usize;
            assert_eq!(bits(bench.floats(logits, n)), bits(bench.floats(apart, n)), "{} by {cols}", ty.name());
        }
    }
}

/// Shapes: experts, used, rows of gates, columns.
const SHAPES: [(usize, usize, usize, usize); 3] = [(5, 3, 37, 256), (9, 8, 16, 1280), (4, 4, 50, 44)];

/// Gates and ups, every type, with biases and without, and every activation.
pub fn gated(bench: &Bench) {
    for (which, ty) in TYPES.into_iter().enumerate() {
        for (at, (n_experts, k, rows, n)) in SHAPES.into_iter().enumerate() {
            if n % ty.block_len() != 0 {
                continue;
            }
            let m = [1, 2].map(|_| bench.matrix(ty, n_experts * rows, n, false));
            let (x, x_stride, _) = bench.vectors(5, 1, n);
            let biases = [6, 7].map(|seed| bench.vector(seed, n_experts * rows).0);
            let ids = bench.put(&(0..k).map(|i| (n_experts - k + i) as u32).collect::<Vec<_>>());
            let activation = [Activation::Silu, Activation::ClampedSwiglu, Activation::Gelu, Activation::GeluErf];
            let activation = activation[(which + at) % 4] as u32;
            let stride = (rows + 3) as u32;
            let of = ExpertProducts { x, m: m.each_ref().map(|m| m.mat), ids, n_m: 2, ..ExpertProducts::default() };
            let of = ExpertProducts { rows: rows as u32, n: n as u32, share: k as u32, n_slots: k as u32, ..of };
            let of = ExpertProducts { at_once: 1, x_stride, y_stride: stride, bias: biases, ..of };
            let of = if at == 0 { of } else { ExpertProducts { bias: [0; 2], ..of } };
            let [gate, up] = [(); 2].map(|_| bench.put(&vec![7f32; k * stride as usize]));
            bench.queue().expert_products(&ExpertProducts { y: [gate, up], tile: 32, ..of }).unwrap();
            let glu = Glu { gate, up, row: gate, n_rows: k as u32, n: rows as u32, activation, ..Glu::default() };
            bench.queue().glu(&Glu { in_stride: stride, out_stride: stride, ..glu }).unwrap();
            let apart = bits(bench.floats(gate, k * stride as usize));
            // Of several rows, in tasks: those of the same row have its bits.
            let of_rows = in_tasks(bench, &of, (n_experts, k), activation);
            assert!(of_rows.iter().all(|row| *row == apart), "{} {rows} by {n}, in tasks", ty.name());
            // Few blocks have many turns.
            for tile in [1, 132] {
                let y = bench.put(&vec![7f32; k * stride as usize]);
                bench.queue().expert_products(&ExpertProducts { y: [y, 0], tile, activation, ..of }).unwrap();
                let seen = bits(bench.floats(y, k * stride as usize));
                assert!(seen == apart, "{} {rows} by {n}, {k} of {n_experts}, {tile} blocks", ty.name());
            }
        }
    }
}

/// The gated units of eleven rows that are alike, whose slots are sorted; of each row.
fn in_tasks(bench: &Bench, one: &ExpertProducts, (n_experts, k): (usize, usize), activation: u32) -> Vec<Vec<u32>> {
    let (n_rows, at_once) = (11, 8);
    let x = bench.floats(one.x, one.x_stride as usize).repeat(n_rows);
    let ids = bench.get::<u32>(one.ids, k).repeat(n_rows);
    let n_slots = ids.len() as u32;
    let n_tasks = Tasks::most(n_slots, n_experts as u32, at_once);
    let (order, tasks) = (bench.zeros(4 * n_slots as usize), bench.zeros(8 * n_tasks as usize));
    let (x, ids) = (bench.put(&x), bench.put(&ids));
    bench
        .queue()
        .expert_tasks(Tasks { ids, order, tasks, n_slots, n_experts: n_experts as u32, at_once, n_tasks })
        .unwrap();
    let len = n_slots as usize * one.y_stride as usize;
    let y = bench.put(&vec![7f32; len]);
    let sorted = ExpertProducts { x, ids, order, tasks, n_tasks, at_once, n_slots, ..*one };
    bench.queue().expert_products(&ExpertProducts { y: [y, 0], activation, tile: 32, ..sorted }).unwrap();
    bits(bench.floats(y, len)).chunks(len / n_rows).map(<[u32]>::to_vec).collect()
}

/// Downs and their sum, every type, with what all share and without.
pub fn summed(bench: &Bench) {
    for ty in TYPES {
        for (at, (n_experts, k, rows, n)) in SHAPES.into_iter().enumerate() {
            if n % ty.block_len() != 0 {
                continue;
            }
            let m = bench.matrix(ty, n_experts * rows, n, false);
            let (x, x_stride, _) = bench.vectors(5, k, n);
            let (bias, _) = bench.vector(6, n_experts * rows);
            let (weights, _) = bench.vector(8, k);
            let gate = if at == 1 { bench.vector(9, 1).0 } else { 0 };
            let ids = bench.put(&(0..k).map(|i| (n_experts - k + i) as u32).collect::<Vec<_>>());
            let (before, _) = bench.vector(10, rows + 3);
            let before = bench.floats(before, rows + 3);
            let of = ExpertProducts { x, m: [m.mat; 2], ids, n_m: 1, at_once: 1, ..ExpertProducts::default() };
            let of = ExpertProducts { rows: rows as u32, n: n as u32, share: 1, n_slots: k as u32, ..of };
            let of = ExpertProducts { bias: [if at == 2 { 0 } else { bias }, 0], x_stride, ..of };
            let (made, shared) = (bench.zeros(4 * k * rows), at > 0);
            let products = ExpertProducts { y: [made, 0], y_stride: rows as u32, tile: 16, ..of };
            bench.queue().expert_products(&products).unwrap();
            let y = bench.put(&before);
            let sum = Sum {
                made,
                weights,
                gate,
                y,
                shared,
                n_rows: 1,
                n_used: k as u32,
                n: rows as u32,
                stride: rows as u32,
                y_stride: rows as u32,
            };
            bench.queue().expert_sum(sum).unwrap();
            let apart = bits(bench.floats(y, rows + 3));
            for tile in [4, 16, 64] {
                let y = bench.put(&before);
                let of = ExpertProducts { y: [y, 0], y_stride: rows as u32, tile, weights, gate, ..of };
                bench.queue().expert_products(&ExpertProducts { shared: u32::from(shared), ..of }).unwrap();
                let seen = bits(bench.floats(y, rows + 3));
                assert!(seen == apart, "{} {rows} by {n}, {k} of {n_experts}, {tile} rows a block", ty.name());
            }
        }
    }
}
