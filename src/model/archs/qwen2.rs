//! Qwen 2 and 2.5: biases on q, k and v; the output matrix is the embedding unless the file has one.
//!
//! Qwen's configurations name a window that only some layers of some models use; no converter writes it, and a file
//! that has it does not say which layers are meant, so it is refused, of Qwen 3 too.

use super::{Architecture, Config, Extras, Keys, Need, Norm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "qwen2", models: "Qwen 2 and 2.5, QwQ", norm: Norm::Rms, reads: &[], fill };

fn fill(_: &Keys<'_>, _: &mut Config, extras: &mut Extras) -> Result<()> {
    extras.qkv_bias = Need::Yes;
    Ok(())
}
