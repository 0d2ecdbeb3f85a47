//! Llama 1 to 3, SmolLM2, Mistral, and Mixtral: a llama with experts.
//!
//! The converter reorders the rows of Wq and Wk so that pairs of a head that turn together are adjacent. Llama 3's
//! rope scaling arrives as the tensor `rope_freqs.weight`, one divisor for each pair.

use super::experts::Usual;
use super::{Architecture, Config, Extras, Keys, Need, Norm, RopePairing};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "llama",
    models: "Llama 1 to 3, SmolLM 1 and 2, Mistral 7B and Nemo, Mixtral, and many others",
    norm: Norm::Rms,
    reads: &["attention.sliding_window", "expert_count"],
    fill,
};

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.ropes[0].pairing = RopePairing::Adjacent;
    extras.qkv_bias = Need::Maybe;
    extras.o_bias = Need::Maybe;
    extras.rope_freqs = Need::Maybe;
    if keys.gguf.opt_uint(&keys.key("expert_count"))?.is_some_and(|n| n != 0) {
        keys.experts(config, Usual::SOFTMAX)?;
    }
    // Mistral 7B v0.1: a window on every layer.
    keys.window_on_all(config)
}
