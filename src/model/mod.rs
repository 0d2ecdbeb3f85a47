//! From a GGUF file to a [`Config`] and the tensors by role.

mod archs;
mod bind;
mod config;
mod info;
mod range;
mod rope;
mod weights;

pub use archs::{ARCHITECTURES, Architecture};
pub use bind::bind;
pub use config::{
    Activation, Attention, Block, Config, Dense, Ffn, Layer, LongContext, Mixer, Norm, QkNorm, Temperature, Widths,
};
pub use info::ModelInfo;
pub use rope::{RopePairing, RopeTable, Yarn};
pub use weights::{LayerWeights, Tensor, Weights};
