//! InternLM 2 and 2.5: a llama; the converter takes its rows of q, k and v apart.

use super::{Architecture, Config, Extras, Keys, Need, Norm, RopePairing};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "internlm2", models: "InternLM 2 and 2.5", norm: Norm::Rms, reads: &[], fill };

fn fill(_: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.ropes[0].pairing = RopePairing::Adjacent;
    extras.qkv_bias = Need::Maybe;
    extras.o_bias = Need::Maybe;
    Ok(())
}
