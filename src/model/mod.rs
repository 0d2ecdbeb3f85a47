//! From a GGUF file to a [`Config`] and the tensors by role.

mod archs;
mod bind;
mod config;
mod info;
mod weights;

pub use bind::bind;
pub use config::{
    Activation, Attention, Block, Config, Dense, Ffn, Layer, Mixer, Norm, QkNorm, RopePairing, RopeTable, Temperature,
    Widths,
};
pub use info::ModelInfo;
pub use weights::{LayerWeights, Tensor, Weights};
