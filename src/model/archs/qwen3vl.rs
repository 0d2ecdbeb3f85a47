//! Qwen 3 VL, text: a Qwen 3. Where text stands alone, all sections of the rope have the same position, and nothing is added
//! behind the first layers (DeepStack).

use super::{Architecture, Config, Extras, Keys, Norm, qwen3};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "qwen3vl", models: "Qwen 3 VL (text)", norm: Norm::Rms, reads: &[], fill };

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    extras.text_only = true;
    qwen3::fill(keys, config, extras)
}
