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

/// A mixer with a state, packed.
#[allow(missing_docs)]
pub struct RecurrentPlan {
    /// The first matrix, and those that read what it reads: of a DeltaNet gate, beta and alpha.
    pub inputs: Vec<Matrix>,
    pub input_tasks: Vec<Task>,
    pub output: Matrix,
    pub output_tasks: Vec<Task>,
    pub conv: Vec<f32>, // [len, channels]
    pub a: Vec<f32>,    // [v_heads], of a DeltaNet like those that follow
    pub dt: Vec<f32>,   // [v_heads]
    pub norm: Vec<f32>, // [v_dim]
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
    /// The gate of attention that has one.
    pub q_gate: Option<(Matrix, Vec<Task>)>,
    pub recurrent: Option<RecurrentPlan>,
    pub post_attn_norm: Option<Vec<f32>>,
    pub ffn_norm: Option<NormWeights>,
    pub ffn: FfnPlan,
    pub post_ffn_norm: Option<Vec<f32>>,
    pub qkv_tasks: Vec<Task>,
    pub o_tasks: Vec<Task>,
}
