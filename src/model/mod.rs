//! From a GGUF file to a [`Config`] and the tensors by role.

mod config;
mod weights;

pub use config::{Activation, Config, LayerConfig, RopePairing};
pub use weights::{LayerWeights, Tensor, Weights};
