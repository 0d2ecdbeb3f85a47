//! What crosses to the kernels of experts.

use std::mem::{offset_of, size_of};

use super::{Mat, Number};
use crate::backend::cuda::driver::Address;

structs! {
    /// The experts of each row.
    Route is KgRoute {
        logits: Address,
        select_bias: Address,
        ids: Address,
        weights: Address,
        shown: Address,
        n_rows: u32,
        n: u32,
        n_used: u32,
        stride: u32,
        score: u32,
        n_groups: u32,
        n_groups_used: u32,
        renorm: u32,
        scale: f32,
        by_expert: Address,
        scaled: Address,
    }

    /// Products with experts' matrices.
    ExpertProducts is KgExpertProducts {
        x: Address,
        m: [Mat; 2],
        bias: [Address; 2],
        y: [Address; 2],
        ids: Address,
        order: Address,
        tasks: Address,
        n_m: u32,
        rows: u32,
        n: u32,
        share: u32,
        n_slots: u32,
        n_tasks: u32,
        at_once: u32,
        x_stride: u32,
        y_stride: u32,
        tile: u32,
        activation: u32,
        shared: u32,
        weights: Address,
        gate: Address,
    }

    /// Products with experts' matrices on tensor cores.
    ExpertGemm is KgExpertGemm {
        x: Address,
        m: [Mat; 2],
        bias: [Address; 2],
        y: Address,
        order: Address,
        tasks: Address,
        n_m: u32,
        rows: u32,
        k: u32,
        n_tasks: u32,
        share: u32,
        by_slot: u32,
        x_stride: u32,
        y_stride: u32,
        activation: u32,
        wgmma: u32,
    }
}
