//! The choice among experts, their slots in order, their products and the sum of what they make.

use kigo::backend::cuda::kernels::abi::{ExpertProducts, Route};
use kigo::backend::cuda::kernels::kinds;
use kigo::backend::cuda::kernels::launch::{Sum, Tasks};
use kigo::gguf::TensorType;
use kigo::model::{self, Activation, Dense, Experts, Groups, RouteRoom, Score};

use super::bench::{Bench, TYPES, near, numbers};
use super::matmul::bound;

/// Experts, of which so many are used; how they are chosen.
fn described(n: usize, n_used: usize, score: Score, groups: Option<Groups>) -> Experts {
    let each = Dense { width: 8, activation: Activation::Silu, gated: true };
    let route = model::Route { score, select_bias: false, groups, renorm: n_used.is_multiple_of(2), scale: 2.5 };
    Experts { n, n_used, each, route, shared: None, side_by_side: false }
}

/// Against the choice that the host makes, with ties, infinities and NaN among the logits.
pub fn route(bench: &Bench) {
    let groups = |n, n_used| Some(Groups { n, n_used });
    let cases = [
        described(5, 1, Score::Softmax, None),
        described(5, 4, Score::Sigmoid, None),
        described(7, 7, Score::SoftmaxOfChosen, None),
        described(33, 3, Score::SoftmaxOfChosen, groups(11, 2)),
        described(9, 4, Score::Sigmoid, groups(3, 2)),
        described(6, 2, Score::Softmax, groups(6, 2)),
        described(1024, 40, Score::Softmax, None),
        described(256, 8, Score::Sigmoid, groups(8, 4)),
    ];
    for experts in cases {
        for biased in [false, true] {
            one_route(bench, Experts { route: model::Route { select_bias: biased, ..experts.route }, ..experts });
        }
    }
}

fn one_route(bench: &Bench, experts: Experts) {
    let (n, k, rows, stride) = (experts.n, experts.n_used, 6, experts.n + 3);
    let mut logits = numbers(n as u64, rows * stride);
    logits[stride..2 * stride].fill(0.25); // all alike
    (0..stride).for_each(|i| logits[2 * stride + i] = (i % 3) as f32); // many alike
    logits[3 * stride + n / 2] = f32::NAN;
    logits[4 * stride] = f32::NEG_INFINITY;
    (logits[5 * stride], logits[5 * stride + 1]) = (0.0, -0.0);
    let bias = numbers(9, n);
    let biased = experts.route.select_bias;
    let scales = numbers(10, n);
    let [ids, weights, shown, scaled] = [0; 4].map(|_| bench.put(&vec![7u32; rows * k + 1]));
    let route = Route {
        logits: bench.put(&logits),
        select_bias: if biased { bench.put(&bias) } else { 0 },
        ids,
        weights,
        shown,
        n_rows: rows as u32,
        n: n as u32,
        n_used: k as u32,
        stride: stride as u32,
        score: kinds::Score::from(experts.route.score) as u32,
        n_groups: experts.route.groups.map_or(0, |g| g.n as u32),
        n_groups_used: experts.route.groups.map_or(0, |g| g.n_used as u32),
        renorm: u32::from(experts.route.renorm),
        scale: experts.route.scale,
        by_expert: bench.put(&scales),
        scaled,
    };
    bench.queue().route(&route).unwrap();
    let (seen, seen_weights) = (bench.get::<u32>(ids, rows * k + 1), bench.floats(weights, rows * k));
    let by_scales = bench.floats(scaled, rows * k);
    for (slot, id) in seen[..rows * k].iter().enumerate() {
        let expected = seen_weights[slot] * scales[*id as usize];
        assert!(by_scales[slot] == expected || expected.is_nan(), "{} of {expected}", by_scales[slot]);
    }
    let seen_shown = bench.floats(shown, rows * k);
    assert_eq!(seen[rows * k], 7, "nothing behind them");
    for row in 0..rows {
        let (mut scores, mut keys) = (vec![0.0; n], vec![0; n]);
        let (mut expected, mut weight) = (vec![0; k], vec![0.0; k]);
        let room = RouteRoom { scores: &mut scores, keys: &mut keys };
        experts.route(&logits[row * stride..][..n], biased.then_some(&bias[..]), room, &mut expected, &mut weight);
        assert_eq!(seen[row * k..][..k], expected, "{experts:?}, row {row}");
        assert!(seen_shown[row * k..][..k].iter().zip(&expected).all(|(a, b)| *a == *b as f32), "{experts:?}");
        for (a, b) in seen_weights[row * k..][..k].iter().zip(&weight) {
            let same = a.is_nan() == b.is_nan() && (b.is_nan() || (a - b).abs() <= 1e-6 * b.abs());
            assert!(same, "{experts:?}, row {row}: {a}, not {b}");
        }
    }
}

/// Every slot is in one task of its expert.
pub fn tasks(bench: &Bench) {
    for (n_slots, n_experts, at_once) in [(1, 1, 8), (40, 5, 8), (40, 5, 4), (40, 5, 1), (3000, 1024, 8), (2500, 2, 4)]
    {
        let ids: Vec<u32> = numbers(3, n_slots).iter().map(|x| (x.abs() * 1000.0) as u32 % n_experts).collect();
        let n_tasks = Tasks::most(n_slots as u32, n_experts, at_once);
        let (order, tasks) = (bench.zeros(4 * n_slots), bench.put(&vec![u32::MAX; 2 * n_tasks as usize]));
        let n = n_slots as u32;
        let sort = Tasks { ids: bench.put(&ids), order, tasks, n_slots: n, n_experts, at_once, n_tasks };
        bench.queue().expert_tasks(sort).unwrap();
        let (order, tasks) = (bench.get::<u32>(order, n_slots), bench.get::<u32>(tasks, 2 * n_tasks as usize));
        let mut found = vec![0; n_slots];
        for task in tasks.chunks(2) {
            let (expert, count) = (task[1] >> 8, task[1] & 255);
            assert!(count <= at_once, "{count} slots of {at_once}");
            for slot in &order[task[0] as usize..][..count as usize] {
                assert_eq!(ids[*slot as usize], expert, "slot {slot}");
                found[*slot as usize] += 1;
            }
        }
        assert!(found.iter().all(|n| *n == 1), "{n_slots} slots of {n_experts}, {at_once} at once: {found:?}");
    }
    let none = Tasks { ids: 16, order: 16, tasks: 16, n_slots: 40, n_experts: 5, at_once: 8, n_tasks: 9 };
    let refused = bench.queue().expert_tasks(none).unwrap_err().to_string();
    assert!(refused.contains("expert_tasks: 9 tasks of 10"), "{refused}");
}

/// Every type, against plain sums (of few rows, whose terms may cancel: a unit has 16 bits), and slots in tasks of eight, of four and alone to the bit.
pub fn products(bench: &Bench) {
    for ty in TYPES {
        for (n_experts, rows, n, n_rows, k) in [(5, 37, 256, 11, 3), (3, 16, 44, 6, 1), (2, 5, 512, 9, 2)] {
            if n % ty.block_len() != 0 {
                continue;
            }
            let m = [1, 2].map(|_| bench.matrix(ty, n_experts * rows, n, false));
            let (x, x_stride, xs) = bench.vectors(5, n_rows, n);
            let (bias, bs) = bench.vector(6, n_experts * rows);
            let slots = n_rows * k;
            // Some experts have many slots, some none.
            let ids: Vec<u32> = (0..slots).map(|i| if i % 5 == 4 { 0 } else { n_experts as u32 - 1 }).collect();
            let (at, y_stride) = (bench.put(&ids), rows + 3);
            let run = |at_once: u32, sorted: bool| {
                let y = [0; 2].map(|_| bench.put(&vec![7f32; slots * y_stride]));
                let n_tasks = Tasks::most(slots as u32, n_experts as u32, at_once);
                let (order, tasks) = (bench.zeros(4 * slots), bench.zeros(8 * n_tasks as usize));
                let sort = Tasks {
                    ids: at,
                    order,
                    tasks,
                    n_slots: slots as u32,
                    n_experts: n_experts as u32,
                    at_once,
                    n_tasks,
                };
                let products = ExpertProducts {
                    x,
                    m: [m[0].mat, m[1].mat],
                    bias: [bias, 0],
                    y,
                    ids: at,
                    ..ExpertProducts::default()
                };
                let products =
                    ExpertProducts { n_m: 2, rows: rows as u32, n: n as u32, share: k as u32, at_once, ..products };
                let mut products =
                    ExpertProducts { n_slots: slots as u32, n_tasks, x_stride, y_stride: y_stride as u32, ..products };
                products.tile = if sorted { 16 } else { 32 };
                if sorted {
                    bench.queue().expert_tasks(sort).unwrap();
                    (products.order, products.tasks) = (order, tasks);
                }
                bench.queue().expert_products(&products).unwrap();
                y.map(|y| bench.floats(y, slots * y_stride))
            };
            let alone = run(1, false);
            for (which, seen) in alone.iter().enumerate() {
                let (mut truths, mut results) = (Vec::new(), Vec::<f32>::new());
                for slot in 0..slots {
                    let first = ids[slot] as usize * rows;
                    let dot = |row: usize| {
                        m[which].row(first + row).iter().zip(&xs[slot / k]).map(|(w, x)| w * x).sum::<f64>()
                    };
                    let truth: Vec<f64> =
                        (0..rows).map(|row| dot(row) + if which == 0 { bs[first + row] } else { 0.0 }).collect();
                    truths.extend(truth);
                    results.extend(&seen[slot * y_stride..][..rows]);
                    assert!(seen[slot * y_stride + rows..][..3].iter().all(|x| *x == 7.0), "only its rows");
                }
                near(&format!("{} {rows} by {n}, {slots} slots", ty.name()), &results, &truths, bound(ty.into(), 0));
            }
            let bits = |all: [Vec<f32>; 2]| all.map(|y| y.into_iter().map(f32::to_bits).collect::<Vec<u32>>());
            let alone = bits(alone);
            for at_once in [1, 4, 8] {
                assert!(
                    bits(run(at_once, true)) == alone,
                    "{} {rows} by {n}: other bits in tasks of {at_once}",
                    ty.name()
                );
            }
            one_matrix(bench, &m[0], n_rows, (x, x_stride, &xs));
        }
    }
}

/// All rows with one matrix, some at once and alone.
fn one_matrix(bench: &Bench, m: &super::bench::Matrix, n_rows: usize, (x, x_stride, xs): (u64, u32, &[Vec<f64>])) {
    let rows = m.mat.rows as usize;
    let run = |at_once: u32| {
        let y = bench.zeros(n_rows * rows * 4);
        let products =
            ExpertProducts { x, m: [m.mat; 2], y: [y, 0], n_m: 1, rows: m.mat.rows, ..ExpertProducts::default() };
        let products =
            ExpertProducts { n: m.mat.cols, share: 1, n_slots: n_rows as u32, at_once, x_stride, ..products };
        bench.queue().expert_products(&ExpertProducts { y_stride: m.mat.rows, tile: 48, ..products }).unwrap();
        bench.floats(y, n_rows * rows)
    };
    let alone = run(1);
    for (row, x) in xs.iter().enumerate() {
        // A few outputs of one row, which may be small by chance.
        near(&format!("{:?} of all", m.mat.ty), &alone[row * rows..][..rows], &m.times(x), 10.0 * bound(m.mat.ty, 0));
    }
    for at_once in [2, 4, 8] {
        assert!(run(at_once).iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits()), "{:?}: other bits", m.mat.ty);
    }
}

/// Rows with which a block asks for exactly what it has unasked, of which the kernel's own variables are a part.
pub fn products_of_wide_rows(bench: &Bench) {
    let m = bench.matrix(TensorType::F32, 3, 6144, false);
    let (x, x_stride, xs) = bench.vectors(5, 2, 6144);
    one_matrix(bench, &m, 2, (x, x_stride, &xs));
}

pub fn sum(bench: &Bench) {
    for (n_rows, k, n, shared, gated) in [(1, 1, 301, false, false), (3, 4, 40, true, false), (2, 9, 37, true, true)] {
        let (stride, y_stride) = (n + 3, n + 1);
        let (made, weights) = (numbers(1, n_rows * k * stride), numbers(2, n_rows * k));
        let (before, gate) = (numbers(3, n_rows * y_stride), numbers(4, n_rows));
        let y = bench.put(&before);
        let sum = Sum {
            made: bench.put(&made),
            weights: bench.put(&weights),
            gate: if gated { bench.put(&gate) } else { 0 },
            y,
            shared,
            n_rows: n_rows as u32,
            n_used: k as u32,
            n: n as u32,
            stride: stride as u32,
            y_stride: y_stride as u32,
        };
        bench.queue().expert_sum(sum).unwrap();
        let got = bench.floats(y, n_rows * y_stride);
        for row in 0..n_rows {
            let open = if gated { 1.0 / (1.0 + f64::from(-gate[row]).exp()) } else { 1.0 };
            let of = |i: usize| {
                let first = if shared { open * f64::from(before[row * y_stride + i]) } else { 0.0 };
                let each = |e: usize| f64::from(weights[row * k + e]) * f64::from(made[(row * k + e) * stride + i]);
                first + (0..k).map(each).sum::<f64>()
            };
            let truth: Vec<f64> = (0..n).map(of).collect();
            near(&format!("{k} experts, row {row}"), &got[row * y_stride..][..n], &truth, 1e-12);
            assert_eq!(got[row * y_stride + n], before[row * y_stride + n], "only its columns");
        }
    }
}
