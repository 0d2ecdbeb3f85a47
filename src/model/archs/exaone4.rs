//! EXAONE 4: norms behind both halves of a layer and none before them, and norms on the heads of q and k.
//!
//! The 32B model has a window on three layers of four; the others have neither window nor rope. The 1.2B model has the rope on all.

use super::{Architecture, Config, Extras, Keys, Need, Norm, QkNorm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "exaone4", models: "EXAONE 4", norm: Norm::Rms, reads: &["attention.sliding_window"], fill };

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.layers.iter_mut().for_each(|layer| layer.attention_mut().qk_norm = Some(QkNorm::Head));
    (extras.attn_norm, extras.ffn_norm, extras.post_norms) = (Need::No, Need::No, Need::Yes);
    extras.rope_freqs = Need::Maybe;
    if let Some(window) = keys.window()? {
        keys.refuse_other_base()?;
        keys.window_on_some(config, (window, 4), (Some(0), None))?;
    }
    Ok(())
}
