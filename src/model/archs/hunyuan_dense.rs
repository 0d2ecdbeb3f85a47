//! Hunyuan (dense): norms on the heads of q and k behind the rope. Its scaling is in the base that the file has.

use super::{Architecture, Config, Extras, Keys, Need, Norm, QkNorm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "hunyuan-dense", models: "Hunyuan 0.5B, 1.8B, 4B and 7B", norm: Norm::Rms, reads: &[], fill };

fn fill(_: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.layers.iter_mut().for_each(|layer| layer.attention_mut().qk_norm = Some(QkNorm::HeadAfterRope));
    extras.qkv_bias = Need::Maybe;
    extras.o_bias = Need::Maybe;
    extras.rope_freqs = Need::Maybe;
    Ok(())
}
