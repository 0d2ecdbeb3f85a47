//! LFM2 and LFM2.5: short convolutions on most layers, grouped-query attention with norms of its heads on the others.

use super::{Architecture, Config, Extras, Keys, Norm, QkNorm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "lfm2", models: "LFM2, LFM2.5", norm: Norm::Rms, reads: &[], fill };

/// Also what a file with experts has.
pub(super) fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    // The name that converters gave it by mistake, and kept.
    extras.output_norm_name = "token_embd_norm.weight";
    config.layers.iter_mut().for_each(|layer| layer.attention_mut().qk_norm = Some(QkNorm::Head));
    keys.short_convs(config)
}
