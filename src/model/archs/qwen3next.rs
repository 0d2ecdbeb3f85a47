//! Qwen3-Next: as Qwen 3.5 with experts, but that its value heads stand in groups of those of one key head.

use super::experts::Usual;
use super::{Architecture, Config, Extras, KeyHeads, Keys, Norm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "qwen3next",
    models: "Qwen3-Next",
    norm: Norm::Rms,
    reads: &["expert_count", "nextn_predict_layers"],
    fill,
};

/// A softmax over the experts, whose weights are divided by their sum, and a gated one that all positions share.
pub(super) const SHARED: Usual =
    Usual { width: |n_ff, n_used| n_ff / n_used, shared: Some(|n_ff| n_ff), shared_gate: true, ..Usual::SOFTMAX };

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    keys.experts(config, SHARED)?;
    keys.delta_nets(config, extras, KeyHeads::Grouped)
}
