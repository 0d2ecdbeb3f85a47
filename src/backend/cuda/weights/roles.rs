//! Addresses of weights that few models have, by role; an address of 0: the tensor does not exist.

use crate::backend::cuda::driver::Address;
use crate::backend::cuda::kernels::abi::Mat;

/// What embeddings by layer meet behind a layer.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct PerLayerGate {
    pub gate: Mat, // [P, D]
    pub proj: Mat, // [D, P]
    pub post_norm: Address,
}

/// Embeddings by layer.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct PerLayer {
    pub embd: Mat,     // [n_vocab, n_layers P]
    pub proj: Mat,     // [n_layers P, D]
    pub norm: Address, // [P]
}

/// A mixer with a state.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Recurrent {
    pub input: Mat,         // [in_width, D]
    pub gate: Option<Mat>,  // [out_width, D]
    pub gates: Vec<Mat>,    // [heads, D] each: of betas and of decays, or of time steps
    pub conv: Address,      // [channels, len]
    pub conv_bias: Address, // [channels]
    pub a: Address,         // [heads]
    pub dt: Address,        // [heads]
    pub d: Address,         // [heads]
    pub norm: Address,      // [v_dim], or [out_width]
    pub output: Mat,        // [D, out_width]
}

/// The norms of experts and what all share, where they stand side by side.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct SideBySide {
    pub router_norm: Address,       // [D]
    pub experts_norm: Address,      // [D]
    pub experts_post_norm: Address, // [D]
    pub shared_post_norm: Address,  // [D]
}
