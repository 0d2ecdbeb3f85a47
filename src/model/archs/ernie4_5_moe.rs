//! ERNIE 4.5 with experts: leading layers without, a bias for the choice, and an expert that all positions share.

use super::experts::Usual;
use super::{Architecture, Config, Extras, Keys, Need, Norm, RopePairing};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "ernie4_5-moe",
    models: "ERNIE 4.5 with experts",
    norm: Norm::Rms,
    reads: &["expert_count"],
    fill,
};

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.ropes[0].pairing = RopePairing::Adjacent;
    extras.qkv_bias = Need::Maybe;
    extras.o_bias = Need::Maybe;
    keys.experts(config, Usual::SOFTMAX)
}
