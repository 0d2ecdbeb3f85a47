//! OLMoE: experts whose weights are not divided by their sum, and norms over whole rows of q and k.

use super::experts::Usual;
use super::{Architecture, Config, Extras, Keys, Norm, QkNorm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "olmoe", models: "OLMoE", norm: Norm::Rms, reads: &["expert_count"], fill };

fn fill(keys: &Keys<'_>, config: &mut Config, _: &mut Extras) -> Result<()> {
    config.layers.iter_mut().for_each(|layer| layer.attention_mut().qk_norm = Some(QkNorm::Row));
    keys.experts(config, Usual { renorm: false, ..Usual::SOFTMAX })
}
