//! Bounded reader of GGUF files, and the layouts of quantized blocks.

mod types;

pub use types::TensorType;
