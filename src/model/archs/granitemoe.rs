//! Granite 3 with experts: Granite's four factors, and perhaps an expert that all positions share.
//!
//! The models compute a softmax over the chosen; the softmax over all, divided by the sum of the chosen, is the same.

use super::experts::Usual;
use super::{Architecture, Config, Extras, Keys, Norm, granite};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "granitemoe",
    models: "Granite 3 with experts",
    norm: Norm::Rms,
    reads: &["expert_count", "logit_scale", "residual_scale"],
    fill,
};

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    granite::fill(keys, config, extras)?;
    keys.experts(config, Usual::SOFTMAX)
}
