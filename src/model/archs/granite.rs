//! Granite 3 and 4 (dense): a llama with four factors. The file's `logit_scale` divides the logits.
//!
//! Granite 4 may have no rope at all, which `rope.scaling.finetuned` says.

use super::{Architecture, Config, Extras, Keys, Need, Norm, RopePairing};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "granite",
    models: "Granite 3 and 4 (dense)",
    norm: Norm::Rms,
    reads: &["logit_scale", "residual_scale"],
    fill,
};

pub(super) fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.ropes[0].pairing = RopePairing::Adjacent;
    config.residual_scale = keys.positive("residual_scale")?.unwrap_or(1.0);
    config.logit_scale = 1.0 / keys.positive("logit_scale")?.unwrap_or(1.0);
    if keys.gguf.opt_bool(&keys.key("rope.scaling.finetuned"))? == Some(false) {
        config.layers.iter_mut().for_each(|layer| layer.attention_mut().rope = None);
    }
    extras.qkv_bias = Need::Maybe;
    extras.o_bias = Need::Maybe;
    extras.ffn_bias = Need::Maybe;
    extras.rope_freqs = Need::Maybe;
    Ok(())
}
