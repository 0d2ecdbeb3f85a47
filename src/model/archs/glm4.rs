//! GLM-4 (9B and 32B of 0414): norms before and behind both halves of a layer, half of each head turned, the rows of gate and up in
//! one tensor.
//!
//! A file of a model that sees (`rope.dimension_sections`) has its rows in another order, and is refused.

use super::{Architecture, Config, Extras, Keys, Need, Norm, RopePairing};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "glm4", models: "GLM-4 0414", norm: Norm::Rms, reads: &[], fill };

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.ropes[0].pairing = RopePairing::Adjacent;
    keys.refuse_sections()?;
    extras.post_norms = Need::Yes;
    extras.qkv_bias = Need::Maybe;
    extras.fused_gate_up = true;
    Ok(())
}
