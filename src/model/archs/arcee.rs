//! Arcee (AFM-4.5B): a llama whose feed-forward part is `Wdown max(Wup h, 0)^2`, without a gate.

use super::{Activation, Architecture, Config, Extras, Keys, Need, Norm, RopePairing};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "arcee", models: "AFM 4.5B", norm: Norm::Rms, reads: &[], fill };

fn fill(_: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.ropes[0].pairing = RopePairing::Adjacent;
    config.dense_mut().for_each(|dense| (dense.activation, dense.gated) = (Activation::Relu2, false));
    extras.qkv_bias = Need::Maybe;
    extras.o_bias = Need::Maybe;
    extras.rope_freqs = Need::Maybe;
    Ok(())
}
