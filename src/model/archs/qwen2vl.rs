//! Qwen 2 and 2.5 VL, text: a Qwen 2. Where text stands alone, all sections of the rope have the same position.

use super::{Architecture, Config, Extras, Keys, Need, Norm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "qwen2vl", models: "Qwen 2 and 2.5 VL (text)", norm: Norm::Rms, reads: &[], fill };

fn fill(_: &Keys<'_>, _: &mut Config, extras: &mut Extras) -> Result<()> {
    extras.qkv_bias = Need::Yes;
    extras.output_bias = Need::Maybe;
    extras.text_only = true;
    Ok(())
}
