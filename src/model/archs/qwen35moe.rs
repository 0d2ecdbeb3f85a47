//! Qwen 3.5 and 3.6 with experts, one of which all positions share, behind a gate.

use super::qwen3next::SHARED;
use super::{Architecture, Config, Extras, KeyHeads, Keys, Norm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "qwen35moe",
    models: "Qwen 3.5, 3.6 with experts",
    norm: Norm::Rms,
    reads: &["expert_count", "nextn_predict_layers"],
    fill,
};

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    keys.experts(config, SHARED)?;
    keys.delta_nets(config, extras, KeyHeads::Tiled)
}
