//! LFM2 with experts, chosen by sigmoids and a bias, on all layers but some leading ones.

use super::experts::Usual;
use super::{Architecture, Config, Extras, Keys, Norm, Score, lfm2};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "lfm2moe", models: "LFM2 with experts", norm: Norm::Rms, reads: &["expert_count"], fill };

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    lfm2::fill(keys, config, extras)?;
    keys.experts(config, Usual { score: Score::Sigmoid, ..Usual::SOFTMAX })
}
