//! Qwen 3 (dense): norms on the heads of q and k, no biases, a head size that is not `n_embd / n_heads`.

use super::{Architecture, Config, Extras, Keys, Norm, QkNorm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "qwen3", models: "Qwen 3 (dense)", norm: Norm::Rms, reads: &[], fill };

pub(super) fn fill(_: &Keys<'_>, config: &mut Config, _: &mut Extras) -> Result<()> {
    config.layers.iter_mut().for_each(|layer| layer.attention_mut().qk_norm = Some(QkNorm::Head));
    Ok(())
}
