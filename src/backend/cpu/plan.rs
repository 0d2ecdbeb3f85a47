//! What a model's layers are packed into, and what their work is cut into.

use super::linear::Matrix;

/// Panels `first .. last` of matrix `which` of a stage.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub which: usize,
    pub first: usize,
    pub last: usize,
}

/// What a norm multiplies and adds.
pub struct NormWeights {
    /// `[D]`.
    pub weight: Vec<f32>,
    /// `[D]`.
    pub bias: Option<Vec<f32>>,
}

/// A dense feed-forward part, packed.
#[allow(missing_docs)]
pub struct DensePlan {
    pub gate: Option<Matrix>,
    pub up: Matrix,
    pub down: Matrix,
    pub gate_bias: Option<Vec<f32>>,
    pub up_bias: Option<Vec<f32>>,
    pub down_bias: Option<Vec<f32>>,
    pub up_tasks: Vec<Task>,
    pub down_tasks: Vec<Task>,
}

/// A feed-forward part of `N` experts, packed.
#[allow(missing_docs)]
pub struct ExpertsPlan {
    pub router: Matrix,
    pub router_tasks: Vec<Task>,
    pub router_bias: Option<Vec<f32>>, // [N]
    pub select_bias: Option<Vec<f32>>, // [N]
    pub gate: Vec<Matrix>,             // [N], none where experts have no gate
    pub up: Vec<Matrix>,               // [N]
    pub down: Vec<Matrix>,             // [N]
    pub gate_bias: Option<Vec<f32>>,   // [N, F]
    pub up_bias: Option<Vec<f32>>,     // [N, F]
    pub down_bias: Option<Vec<f32>>,   // [N, D]
    pub shared: Option<DensePlan>,
    pub shared_gate: Option<Vec<f32>>, // [D]
}

/// A feed-forward part, packed.
#[allow(clippy::large_enum_variant)]
pub enum FfnPlan {
    Dense(DensePlan),
    Experts(ExpertsPlan),
}

/// One layer, packed.
#[allow(missing_docs)]
pub struct LayerPlan {
    pub attn_norm: Option<NormWeights>,
    pub qkv: [Matrix; 3],
    pub biases: [Option<Vec<f32>>; 3],
    pub q_norm: Option<Vec<f32>>,
    pub k_norm: Option<Vec<f32>>,
    pub sinks: Option<Vec<f32>>,
    pub o: Matrix,
    pub o_bias: Option<Vec<f32>>,
    pub post_attn_norm: Option<Vec<f32>>,
    pub ffn_norm: Option<NormWeights>,
    pub ffn: FfnPlan,
    pub post_ffn_norm: Option<Vec<f32>>,
    pub qkv_tasks: Vec<Task>,
    pub o_tasks: Vec<Task>,
}
