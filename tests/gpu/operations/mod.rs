//! Every kernel by itself: each type, odd shapes, against plain formulas in f64 and, where it has to have another kernel's bits,
//! against that one.

mod attention;
mod bench;
mod expert_gemm;
mod expert_tiles;
mod experts;
mod experts_step;
mod matmul;
mod prefill;
mod recurrent;
mod rows;
mod sample;

use bench::Bench;

use crate::common::gpu::device;

/// A launcher's name, and what compares it with its formula.
type Operation = (&'static str, fn(&Bench));

/// Every launcher.
const OPERATIONS: &[Operation] = &[
    ("read", rows::read),
    ("repack", rows::weights),
    ("dequantize_f16", rows::weights),
    ("embed", rows::embed),
    ("embed_rows", rows::embed),
    ("batch_norm", rows::batch_norm),
    ("glu", rows::glu),
    ("norm", rows::norm),
    ("sum_parts", rows::sum_parts),
    ("stage_input", matmul::staged_halves),
    ("gemv", matmul::gemv),
    ("gemv_mixed", matmul::gemv_mixed),
    ("gemv_batch", matmul::gemv_batch),
    ("f16_mma", matmul::f16_mma),
    ("f16_mma_batch", matmul::f16_of_several),
    ("f16_mma_split", matmul::f16_mma_split),
    ("f16_batch", matmul::f16_of_several),
    ("q_batch", matmul::q_batch),
    ("route", experts::route),
    ("router", experts_step::router),
    ("expert_tasks", experts::tasks),
    ("expert_products", experts::products_of_wide_rows),
    ("expert_products", experts::products),
    ("expert_tiles", expert_tiles::products),
    ("expert_products", experts_step::gated),
    ("expert_products", experts_step::summed),
    ("expert_sum", experts::sum),
    ("expert_rows", expert_gemm::rows),
    ("expert_gemm", expert_gemm::products),
    ("gemm", prefill::gemm),
    ("prefill_rope", prefill::rope_heads),
    ("flash_prefill", prefill::flash),
    ("decode_attention", attention::decode),
    ("convolve", recurrent::convolve),
    ("delta", recurrent::delta),
    ("gate_mix", recurrent::gate_mix),
    ("scan", recurrent::scan),
    ("set_state", sample::set_state),
    ("mask", sample::mask),
    ("argmax", sample::choices),
    ("sample", sample::choices),
];

#[test]
fn each_computes_its_formula() {
    let Some(device) = device() else { return };
    let bench = Bench::new(&device);
    let mut done: Vec<usize> = Vec::new();
    for (name, run) in OPERATIONS {
        if !done.contains(&(*run as usize)) {
            println!("{name}");
            run(&bench);
            done.push(*run as usize);
        }
    }
}

#[test]
fn no_launcher_is_missing() {
    let sources = [
        include_str!("../../../src/backend/cuda/kernels/launch/mod.rs"),
        include_str!("../../../src/backend/cuda/kernels/launch/attention.rs"),
        include_str!("../../../src/backend/cuda/kernels/launch/expert_gemm.rs"),
        include_str!("../../../src/backend/cuda/kernels/launch/expert_tiles.rs"),
        include_str!("../../../src/backend/cuda/kernels/launch/experts.rs"),
        include_str!("../../../src/backend/cuda/kernels/launch/matmul.rs"),
        include_str!("../../../src/backend/cuda/kernels/launch/norm.rs"),
        include_str!("../../../src/backend/cuda/kernels/launch/prefill.rs"),
        include_str!("../../../src/backend/cuda/kernels/launch/recurrent.rs"),
        include_str!("../../../src/backend/cuda/kernels/launch/rows.rs"),
        include_str!("../../../src/backend/cuda/kernels/launch/sample.rs"),
    ];
    let mut names = Vec::new();
    for source in sources {
        for block in source.split("impl Queue<'_> {").skip(1) {
            let inside = block.split("\n}\n").next().unwrap_or_default();
            names.extend(inside.split("pub fn ").skip(1).filter_map(|f| f.split('(').next()));
        }
    }
    let mut here: Vec<&str> = OPERATIONS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    here.sort_unstable();
    here.dedup();
    assert_eq!(names, here);
}
