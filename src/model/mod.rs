//! From a GGUF file to a [`Config`] and the tensors by role.

mod archs;
mod attention;
mod bind;
mod bind_ffn;
mod bind_latent;
mod bind_recurrent;
mod classes;
mod config;
mod dense;
mod experts;
mod info;
mod latent;
mod per_layer;
mod range;
mod recurrent;
mod rope;
mod route;
mod states;
mod weights;
mod widths;

pub use archs::{ARCHITECTURES, Architecture};
pub use bind::bind;
pub use classes::{CacheClasses, MAX_CLASSES};
pub use config::{Attention, Block, Config, Ffn, Layer, LongContext, Mixer, Norm, QkNorm, Temperature};
pub use dense::{Activation, Dense};
pub use experts::{Experts, Groups, MAX_EXPERTS, Route, Score, Shared};
pub use info::ModelInfo;
pub use latent::{Latent, MAX_LATENT_KEY};
pub use per_layer::PerLayer;
pub use recurrent::{DeltaNet, KeyHeads, MAX_CONV, Mamba2, Recurrent, ShortConv};
pub use rope::{RopePairing, RopeTable, Yarn};
pub use route::{RouteRoom, sigmoid};
pub use weights::{
    DenseWeights, ExpertsWeights, FfnWeights, LatentWeights, LayerWeights, PerLayerGate, PerLayerWeights,
    RecurrentWeights, SideBySide, Tensor, Weights,
};
pub use widths::Widths;
