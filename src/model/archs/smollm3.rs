//! SmolLM 3: a llama each fourth layer of which has no rope.

use super::{Architecture, Config, Extras, Keys, Need, Norm, RopePairing};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "smollm3", models: "SmolLM 3", norm: Norm::Rms, reads: &[], fill };

/// Not a key of the file.
const PERIOD: usize = 4;

fn fill(_: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.ropes[0].pairing = RopePairing::Adjacent;
    for layer in config.layers.iter_mut().skip(PERIOD - 1).step_by(PERIOD) {
        layer.attention_mut().rope = None;
    }
    extras.qkv_bias = Need::Maybe;
    extras.o_bias = Need::Maybe;
    Ok(())
}
