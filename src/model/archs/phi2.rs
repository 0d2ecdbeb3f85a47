//! Phi-1, 1.5 and 2: LayerNorm, biases everywhere, and halves of a layer that read one norm side by side.

use super::{Activation, Architecture, Block, Config, Extras, Keys, Need, Norm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "phi2", models: "Phi-1, 1.5 and 2", norm: Norm::Layer, reads: &[], fill };

fn fill(_: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    extras.all_biases();
    extras.output_bias = Need::Yes;
    extras.ffn_norm = Need::No;
    for layer in &mut config.layers {
        layer.block = Block::Parallel;
    }
    config.dense_mut().for_each(|dense| (dense.activation, dense.gated) = (Activation::GeluTanh, false));
    Ok(())
}
