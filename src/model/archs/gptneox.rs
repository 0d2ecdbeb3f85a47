//! GPT-NeoX and Pythia: LayerNorm, biases everywhere, rows of q, k and v in one tensor, halves of a layer side by side with a norm
//! for each, or one behind the other.
//!
//! The models compute GELU with erf, and so does this; llama.cpp takes its tanh form.

use super::{Activation, Architecture, Block, Config, Extras, Keys, Norm, wrong};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "gptneox",
    models: "GPT-NeoX, Pythia, Dolly 2",
    norm: Norm::Layer,
    reads: &["use_parallel_residual"],
    fill,
};

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    extras.all_biases();
    let key = keys.key("use_parallel_residual");
    let is_parallel = keys.gguf.opt_bool(&key)?.ok_or_else(|| wrong(&key, "missing", "a bool"))?;
    for layer in &mut config.layers {
        layer.block = if is_parallel { Block::Parallel } else { Block::Sequential };
    }
    config.dense_mut().for_each(|dense| (dense.activation, dense.gated) = (Activation::Gelu, false));
    Ok(())
}
