//! Qwen 3 VL with experts, and Qwen 3 Omni, text: a Qwen 3 with experts (see `qwen3vl.rs`).

use super::{Architecture, Config, Extras, Keys, Norm, qwen3moe};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "qwen3vlmoe",
    models: "Qwen 3 VL with experts, Qwen 3 Omni (text)",
    norm: Norm::Rms,
    reads: &["expert_count"],
    fill,
};

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    extras.text_only = true;
    qwen3moe::fill(keys, config, extras)
}
