//! Qwen 1.5 and 2 with experts: 60 of them and one, with a gate, that all positions share. Weights are not divided by their sum.

use super::experts::Usual;
use super::{Architecture, Config, Extras, Keys, Need, Norm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "qwen2moe",
    models: "Qwen 1.5 and 2 with experts",
    norm: Norm::Rms,
    reads: &["expert_count"],
    fill,
};

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    extras.qkv_bias = Need::Yes;
    let usual = Usual {
        renorm: false,
        width: |n_ff, n_used| n_ff / n_used,
        shared: Some(|n_ff| n_ff),
        shared_gate: true,
        ..Usual::SOFTMAX
    };
    keys.experts(config, usual)
}
