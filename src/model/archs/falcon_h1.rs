//! Falcon-H1: attention and a Mamba2 side by side on each layer, which read the same and are added. Its multipliers are in the file's
//! weights.

use super::{Architecture, Config, Extras, Keys, Need, Norm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "falcon-h1", models: "Falcon-H1", norm: Norm::Rms, reads: &[], fill };

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    let mixer = keys.mamba2(keys.gguf.tensor("blk.0.ssm_norm.weight").is_some())?;
    config.layers.iter_mut().for_each(|layer| layer.recurrent = Some(mixer));
    // The only one whose name has no kind.
    extras.ffn_norm_name = "ffn_norm";
    extras.qkv_bias = Need::Maybe;
    extras.ffn_bias = Need::Maybe;
    Ok(())
}
