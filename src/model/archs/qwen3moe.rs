//! Qwen 3 with experts: 30B-A3B, 235B-A22B and Coder.

use super::experts::Usual;
use super::{Architecture, Config, Extras, Keys, Norm, QkNorm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "qwen3moe", models: "Qwen 3 with experts", norm: Norm::Rms, reads: &["expert_count"], fill };

pub(super) fn fill(keys: &Keys<'_>, config: &mut Config, _: &mut Extras) -> Result<()> {
    config.layers.iter_mut().for_each(|layer| layer.attention_mut().qk_norm = Some(QkNorm::Head));
    keys.experts(config, Usual { width: |n_ff, n_used| n_ff / n_used, ..Usual::SOFTMAX })
}
