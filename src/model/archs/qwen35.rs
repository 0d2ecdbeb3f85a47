//! Qwen 3.5 and 3.6, dense: gated DeltaNets on three of four layers, gated attention on the fourth. Text only, for which the rope's sections
//! are one rope of halves.

use super::{Architecture, Config, Extras, KeyHeads, Keys, Norm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "qwen35", models: "Qwen 3.5, 3.6", norm: Norm::Rms, reads: &["nextn_predict_layers"], fill };

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    keys.delta_nets(config, extras, KeyHeads::Tiled)
}
