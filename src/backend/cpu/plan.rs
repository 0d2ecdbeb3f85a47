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
    pub side_by_side: Option<SideBySidePlan>,
}

/// The norms of experts and what all share, side by side.
#[allow(missing_docs)]
pub struct SideBySidePlan {
    pub router_norm: Vec<f32>,       // [D]
    pub experts_norm: Vec<f32>,      // [D]
    pub experts_post_norm: Vec<f32>, // [D]
    pub shared_post_norm: Vec<f32>,  // [D]
}

/// What attention over latents has beside the matrices that read what the mixer reads.
#[allow(missing_docs)]
pub struct LatentPlan {
    /// The second matrix of queries, where there are two.
    pub q: Option<Matrix>,
    pub q_tasks: Vec<Task>,
    pub q_a_norm: Vec<f32>,
    pub kv_a_norm: Vec<f32>,
    /// One a head.
    pub k_b: Vec<Matrix>,
    pub k_b_tasks: Vec<Task>,
    pub v_b: Vec<Matrix>,
    pub v_b_tasks: Vec<Task>,
}

/// Embeddings by layer.
#[allow(missing_docs)]
pub struct PerLayerPlan {
    pub embd: Matrix,
    pub proj: Matrix,
    pub proj_tasks: Vec<Task>,
    pub norm: Vec<f32>,
}

/// What they meet behind a layer.
#[allow(missing_docs)]
pub struct PerLayerGatePlan {
    pub gate: Matrix,
    pub gate_tasks: Vec<Task>,
    pub proj: Matrix,
    pub proj_tasks: Vec<Task>,
    pub post_norm: Vec<f32>,
}

/// A feed-forward part, packed.
#[allow(clippy::large_enum_variant)]
pub enum FfnPlan {
    Dense(DensePlan),
    Experts(ExpertsPlan),
    None,
}

/// A mixer with a state, packed.
#[allow(missing_docs)]
pub struct RecurrentPlan {
    /// The first matrix, and those that read what it reads: gate, beta and alpha, as far as the mixer has them.
    pub inputs: Vec<Matrix>,
    pub input_tasks: Vec<Task>,
    pub output: Matrix,
    pub output_tasks: Vec<Task>,
    pub conv: Vec<f32>,              // [len, channels]
    pub conv_bias: Option<Vec<f32>>, // [channels]
    pub a: Vec<f32>,                 // [heads with gates], empty where there are none, as those that follow
    pub dt: Vec<f32>,                // [heads with gates]
    pub d: Vec<f32>,                 // [heads with gates] of a Mamba2
    pub norm: Vec<f32>,              // [v_dim] of a DeltaNet, [width] of a Mamba2
}

/// One layer, packed.
#[allow(missing_docs)]
pub struct LayerPlan {
    pub attn_norm: Option<NormWeights>,
    /// The matrices of queries, keys and values, as far as there are such; of latents the first of queries, and theirs.
    pub qkv: Vec<Matrix>,
    pub latent: Option<LatentPlan>,
    /// Ones, where each head of the values is normalized.
    pub v_norm: Option<Vec<f32>>,
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
    pub per_layer: Option<PerLayerGatePlan>,
    pub qkv_tasks: Vec<Task>,
    pub o_tasks: Vec<Task>,
}
