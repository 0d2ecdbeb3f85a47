//! OLMo 2 and 3: norms behind both halves of a layer and none before them, and norms over whole rows of q and k.
//!
//! OLMo 3 has a window on three layers of four, whose rope is not scaled.

use super::{Architecture, Config, Extras, Keys, Need, Norm, QkNorm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "olmo2", models: "OLMo 2 and 3", norm: Norm::Rms, reads: &["attention.sliding_window"], fill };

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.layers.iter_mut().for_each(|layer| layer.attention_mut().qk_norm = Some(QkNorm::Row));
    (extras.attn_norm, extras.ffn_norm, extras.post_norms) = (Need::No, Need::No, Need::Yes);
    if let Some(window) = keys.window()? {
        let head_dim = config.layers.first().map_or(0, |l| l.attention().head_dim);
        config.ropes.push(keys.rope(keys.base("rope.freq_base_swa")?, head_dim)?);
        keys.window_on_some(config, (window, 4), (Some(1), Some(0)))?;
    }
    Ok(())
}
