//! Products of sorted slots on tensor cores: the bits of those that are not.

use kigo::backend::cuda::kernels::abi::{ExpertProducts, Mat};
use kigo::backend::cuda::kernels::kinds::Activation;
use kigo::backend::cuda::kernels::launch::{Tasks, expert_tile_blocks};
use kigo::backend::cuda::kernels::packed::Packed;
use kigo::gguf::TensorType;

use super::bench::{Bench, TYPES, numbers};

/// Experts, rows of each, columns, rows of x, experts of each.
const SHAPES: [(usize, usize, usize, usize, usize); 5] =
    [(5, 37, 256, 11, 3), (9, 16, 1280, 7, 4), (3, 33, 96, 21, 2), (40, 48, 512, 6, 8), (2, 5, 2304, 1, 1)];

/// Every quantized type, odd shapes, one matrix and gated units, by few blocks and many.
pub fn products(bench: &Bench) {
    for (which, ty) in TYPES.into_iter().filter(|ty| Packed::from(*ty).is_quantized()).enumerate() {
        for (at, (n_experts, rows, n, n_rows, k)) in SHAPES.into_iter().enumerate() {
            if n % ty.block_len() != 0 {
                continue;
            }
            let m = [1, 2].map(|_| bench.matrix(ty, n_experts * rows, n, false));
            let mats = m.each_ref().map(|m| match ty {
                // Each expert may have a scale of its own.
                TensorType::Nvfp4 if at % 2 == 0 => {
                    let each = (rows * n / 32) as u32;
                    Mat { d: bench.put(&numbers(9, n_experts)), each, ..m.mat }
                }
                _ => m.mat,
            });
            assert!(expert_tile_blocks(&bench.gpu, n as u32, mats[0].ty) > 0, "{} of {n}", ty.name());
            let (x, x_stride, _) = bench.vectors(5, n_rows, n);
            let biases = [6, 7].map(|seed| bench.vector(seed, n_experts * rows).0);
            let (slots, stride) = (n_rows * k, rows + 3);
            // Some experts have many slots, some none.
            let some = numbers(3 + at as u64, slots).into_iter();
            let ids: Vec<u32> = some.map(|x| ((x * x * 100.0) as u32 % n_experts as u32).min(7)).collect();
            let n_tasks = Tasks::most(slots as u32, n_experts as u32, 8);
            let (order, tasks) = (bench.zeros(4 * slots), bench.zeros(8 * n_tasks as usize));
            let (ids, n_experts, n_slots) = (bench.put(&ids), n_experts as u32, slots as u32);
            bench.queue().expert_tasks(Tasks { ids, order, tasks, n_slots, n_experts, at_once: 8, n_tasks }).unwrap();
            let of = ExpertProducts { x, m: mats, ids, order, tasks, ..ExpertProducts::default() };
            let of = ExpertProducts { rows: rows as u32, n: n as u32, share: k as u32, n_slots, n_tasks, ..of };
            let of = ExpertProducts { at_once: 8, x_stride, y_stride: stride as u32, tile: 16, ..of };
            let of = if at == 1 { of } else { ExpertProducts { bias: biases, ..of } };
            let activation = [Activation::Silu, Activation::ClampedSwiglu, Activation::Gelu][(which + at) % 3] as u32;
            for (n_m, activation) in [(1, 0), (2, activation)] {
                let run = |blocks: u32| {
                    let y = bench.put(&vec![7f32; slots * stride]);
                    let products = ExpertProducts { y: [y, 0], n_m, activation, ..of };
                    match blocks {
                        0 => bench.queue().expert_products(&products).unwrap(),
                        _ => bench.queue().expert_tiles(&products, blocks).unwrap(),
                    }
                    bench.floats(y, slots * stride).into_iter().map(f32::to_bits).collect::<Vec<u32>>()
                };
                let apart = run(0);
                for blocks in [1, 3, 200] {
                    assert!(run(blocks) == apart, "{} {rows} by {n}, {n_m} matrices, {blocks} blocks", ty.name());
                }
            }
        }
    }
}
