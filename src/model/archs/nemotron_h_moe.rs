//! Nemotron 3: Nemotron-H whose feed-forward parts are experts, chosen by sigmoids and a bias, and one that all positions share, none of
//! them with a gate. A last layer may be for drafts. Experts of another width than the model's (Super) are refused.

use super::experts::Usual;
use super::keys::unsupported;
use super::{Activation, Architecture, Config, Extras, Keys, Norm, Score, nemotron_h};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "nemotron_h_moe",
    models: "Nemotron 3 Nano",
    norm: Norm::Rms,
    reads: &["attention.layer_norm_epsilon", "expert_count", "nextn_predict_layers"],
    fill,
};

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    let latent = keys.key("moe_latent_size");
    if let Some(width) = keys.gguf.opt_uint(&latent)?.filter(|&width| width != 0) {
        return Err(unsupported(&latent, width, "no such key: experts that read the stream itself"));
    }
    nemotron_h::fill(keys, config, extras)?;
    keys.experts(config, Usual { score: Score::Sigmoid, width: |n_ff, n_used| n_ff / n_used, ..Usual::SOFTMAX })?;
    for experts in config.experts_mut() {
        let shared = experts.shared.iter_mut().map(|shared| &mut shared.ffn);
        for part in shared.chain([&mut experts.each]) {
            (part.activation, part.gated) = (Activation::Relu2, false);
        }
    }
    keys.leave_out_drafts(config, extras)
}
