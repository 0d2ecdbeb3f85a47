//! Command R7B and A: LayerNorm without a bias, halves of a layer that read it side by side, and a window and a rope on three layers
//! of four. The file's `logit_scale` multiplies the logits.

use super::{Architecture, Block, Config, Extras, Keys, Need, Norm, RopePairing, wrong};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "cohere2",
    models: "Command R7B, Command A, Aya",
    norm: Norm::Layer,
    reads: &["attention.sliding_window", "logit_scale"],
    fill,
};

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.ropes[0].pairing = RopePairing::Adjacent;
    config.logit_scale = keys.positive("logit_scale")?.unwrap_or(1.0);
    config.layers.iter_mut().for_each(|layer| layer.block = Block::Parallel);
    extras.ffn_norm = Need::No;
    let missing = || wrong(&keys.key("attention.sliding_window"), "missing or 0", "the window of three layers in four");
    let window = keys.window()?.ok_or_else(missing)?;
    keys.refuse_other_base()?;
    keys.window_on_some(config, (window, 4), (Some(0), None))?;
    Ok(())
}
