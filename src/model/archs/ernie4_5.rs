//! ERNIE 4.5 (dense): a llama whose pairs were adjacent from the start.

use super::{Architecture, Config, Extras, Keys, Need, Norm, RopePairing};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "ernie4_5", models: "ERNIE 4.5 (dense)", norm: Norm::Rms, reads: &[], fill };

fn fill(_: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.ropes[0].pairing = RopePairing::Adjacent;
    extras.qkv_bias = Need::Maybe;
    extras.o_bias = Need::Maybe;
    Ok(())
}
