//! Experts' products of prompts, on tensor cores, and the rows that they read.

use kigo::backend::cuda::Address;
use kigo::backend::cuda::kernels::abi::ExpertGemm;
use kigo::backend::cuda::kernels::launch::{FragmentRows, Tasks, fragment_stride};
use kigo::gguf::TensorType;

use super::bench::{Bench, Matrix, TYPES, activation, close, numbers};

/// The column at a place of a row that tensor cores read: cuda/device/fragments.cuh.
fn column(place: usize) -> usize {
    place / 128 * 128 + place / 2 % 4 * 32 + place / 16 % 8 * 4 + place / 8 % 2 * 2 + place % 2
}

/// Rows of `n` columns that lie so, by their columns; what lies behind the last one is zero.
fn columns(rows: &[f64], n: usize) -> Vec<Vec<f64>> {
    let of = |row: &[f64]| {
        let mut columns = vec![0.0; row.len()];
        row.iter().enumerate().for_each(|(place, v)| columns[column(place)] = *v);
        assert!(columns[n..].iter().all(|v| *v == 0.0), "zeros behind {n} columns");
        columns.truncate(n);
        columns
    };
    rows.chunks(fragment_stride(n)).map(of).collect()
}

pub fn rows(bench: &Bench) {
    for (n_rows, n) in [(1, 1), (3, 40), (2, 128), (5, 301), (2, 2880)] {
        let (x_stride, stride) = (n + 5, fragment_stride(n));
        let mut x = numbers(n as u64, n_rows * x_stride);
        x[0] = 1e6;
        let y = bench.put(&vec![half::f16::from_f32(7.0); n_rows * stride]);
        let rows = FragmentRows {
            x: bench.put(&x),
            y,
            n_rows: n_rows as u32,
            n: n as u32,
            x_stride: x_stride as u32,
            y_stride: stride as u32,
        };
        bench.queue().expert_rows(rows).unwrap();
        for (row, seen) in columns(&bench.halves(y, 0, n_rows * stride), n).iter().enumerate() {
            for (seen, x) in seen.iter().zip(&x[row * x_stride..]) {
                assert_eq!(*seen, f64::from(half::f16::from_f32(x.clamp(-65504.0, 65504.0))), "row {row} of {n}");
            }
        }
    }
}

/// Slots of experts, sorted into tasks of at most so many.
struct Slots<'a> {
    bench: &'a Bench,
    ids: &'a [u32],
    n_experts: u32,
}

impl Slots<'_> {
    /// The order, and what every product has of it.
    fn sorted(&self, at_once: u32, wgmma: bool) -> (Vec<u32>, ExpertGemm) {
        let (bench, n_slots, n_experts) = (self.bench, self.ids.len() as u32, self.n_experts);
        let n_tasks = Tasks::most(n_slots, n_experts, at_once);
        let (order, tasks) = (bench.zeros(4 * self.ids.len()), bench.zeros(8 * n_tasks as usize));
        let sort = Tasks { ids: bench.put(self.ids), order, tasks, n_slots, n_experts, at_once, n_tasks };
        bench.queue().expert_tasks(sort).unwrap();
        let gemm = ExpertGemm { order, tasks, n_tasks, n_m: 1, wgmma: u32::from(wgmma), ..ExpertGemm::default() };
        (bench.get::<u32>(order, self.ids.len()), gemm)
    }
}

/// Experts of one type and size, and the slots that go through them.
struct Case<'a> {
    bench: &'a Bench,
    ty: TensorType,
    rows: usize,
    k: usize,
    /// Rows of x, and how many slots each has.
    n_rows: usize,
    share: usize,
    ids: Vec<u32>,
}

/// Every type against plain sums, with a gate and without, in tasks of many slots and of few to the bit.
pub fn products(bench: &Bench) {
    // Experts of 150 slots and of few and one of none; all slots in one; one slot.
    let uneven = |slots: usize| (0..slots).map(|i| if i % 16 == 3 { 1 + (i / 16 % 2) as u32 * 2 } else { 0 }).collect();
    for (i, ty) in TYPES.into_iter().filter(|ty| *ty != TensorType::F32).enumerate() {
        let cases = [
            (37, 256, 80, 2, uneven(160)),
            (130, 44, 21, 3, vec![3; 63]),
            (70, 160, 1, 1, vec![2]),
            (8, 512, 9, 1, uneven(9)),
        ];
        for (rows, k, n_rows, share, ids) in cases {
            if k % ty.block_len() == 0 {
                let case = Case { bench, ty, rows, k, n_rows, share, ids };
                case.plain();
                case.gated(1 + i as u32 % 5);
            }
        }
    }
}

impl Case<'_> {
    const EXPERTS: usize = 4;

    /// Rows of x as f16 on the device, and their values.
    fn x(&self) -> (Address, Vec<Vec<f64>>) {
        let (bench, stride) = (self.bench, fragment_stride(self.k));
        let (x, x_stride, _) = bench.vectors(5, self.n_rows, self.k);
        let y = bench.zeros(2 * self.n_rows * stride);
        let [n_rows, n, y_stride] = [self.n_rows, self.k, stride].map(|n| n as u32);
        bench.queue().expert_rows(FragmentRows { x, y, n_rows, n, x_stride, y_stride }).unwrap();
        (y, columns(&bench.halves(y, 0, self.n_rows * stride), self.k))
    }

    fn says(&self, way: &str) -> String {
        format!("{} {} by {}, {} slots, {way}", self.ty.name(), self.rows, self.k, self.ids.len())
    }

    /// W x + bias of a slot.
    fn truth(&self, m: &Matrix, bias: &[f64], slot: usize, x: &[f64]) -> Vec<f64> {
        let first = self.ids[slot] as usize * self.rows;
        let dot = |row: usize| m.row(first + row).iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        (0..self.rows).map(|row| dot(row) + bias.get(first + row).unwrap_or(&0.0)).collect()
    }

    fn gemm(&self, of: ExpertGemm) -> ExpertGemm {
        ExpertGemm { rows: self.rows as u32, k: self.k as u32, x_stride: fragment_stride(self.k) as u32, ..of }
    }

    fn plain(&self) {
        let bench = self.bench;
        let m = bench.matrix(self.ty, Self::EXPERTS * self.rows, self.k, false);
        let (bias, bs) = bench.vector(6, Self::EXPERTS * self.rows);
        let (x, xs) = self.x();
        let (n_slots, stride) = (self.ids.len(), self.rows.next_multiple_of(2) + 4);
        let slots = Slots { bench, ids: &self.ids, n_experts: Self::EXPERTS as u32 };
        for wgmma in [true, false] {
            let run = |at_once: u32| {
                let (_, every) = slots.sorted(at_once, wgmma);
                let y = bench.put(&vec![7f32; n_slots * stride]);
                let (m, bias, y_stride) = ([m.mat; 2], [bias, 0], stride as u32);
                let gemm = ExpertGemm { x, m, bias, y, share: self.share as u32, by_slot: 1, y_stride, ..every };
                bench.queue().expert_gemm(&self.gemm(gemm)).unwrap();
                bench.floats(y, n_slots * stride)
            };
            let seen = run(128);
            let (mut truths, mut results) = (Vec::new(), Vec::new());
            for (slot, y) in seen.chunks(stride).enumerate() {
                truths.extend(self.truth(&m, &bs, slot, &xs[slot / self.share]));
                results.extend(y[..self.rows].iter().map(|y| f64::from(*y)));
                assert!(y[self.rows..].iter().all(|y| *y == 7.0), "{}: only its rows", self.says("plain"));
            }
            // A weight's rounding to f16 is an NMSE of 2^-22 / 3 at most.
            close(&self.says("plain"), &results, &truths, 2f64.powi(-23));
            for at_once in [5, 40] {
                let same = run(at_once).iter().zip(&seen).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{}: other bits in tasks of {at_once}", self.says("plain"));
            }
        }
    }

    fn gated(&self, kind: u32) {
        let bench = self.bench;
        let m = [0; 2].map(|_| bench.matrix(self.ty, Self::EXPERTS * self.rows, self.k, false));
        let (bias, bs) = bench.vector(7, Self::EXPERTS * self.rows);
        let (x, xs) = self.x();
        let (n_slots, stride) = (self.ids.len(), fragment_stride(self.rows));
        let slots = Slots { bench, ids: &self.ids, n_experts: Self::EXPERTS as u32 };
        for wgmma in [true, false] {
            let run = |at_once: u32| {
                let (order, every) = slots.sorted(at_once, wgmma);
                let y = bench.put(&vec![half::f16::from_f32(7.0); n_slots * stride]);
                let gemm =
                    ExpertGemm { x, m: [m[0].mat, m[1].mat], bias: [bias, 0], y, n_m: 2, activation: kind, ..every };
                let gemm = ExpertGemm { share: self.share as u32, y_stride: stride as u32, ..gemm };
                bench.queue().expert_gemm(&self.gemm(gemm)).unwrap();
                // By slot.
                let mut by_slot = vec![Vec::new(); n_slots];
                let seen = columns(&bench.halves(y, 0, n_slots * stride), self.rows);
                seen.into_iter().zip(order).for_each(|(row, slot)| by_slot[slot as usize] = row);
                by_slot.concat()
            };
            let seen = run(128);
            let truth = |slot: usize| {
                let x = &xs[slot / self.share];
                let (gate, up) = (self.truth(&m[0], &bs, slot, x), self.truth(&m[1], &[], slot, x));
                let up = up.into_iter().map(|up| if kind == 5 { up.clamp(-7.0, 7.0) + 1.0 } else { up });
                gate.into_iter().zip(up).map(|(gate, up)| activation(kind, gate) * up).collect::<Vec<f64>>()
            };
            let truths: Vec<f64> = (0..n_slots).flat_map(truth).collect();
            let says = self.says(&format!("gate {kind}"));
            close(&says, &seen, &truths, 2f64.powi(-20));
            for at_once in [5, 40] {
                assert!(run(at_once) == seen, "{says}: other bits in tasks of {at_once}");
            }
        }
    }
}
