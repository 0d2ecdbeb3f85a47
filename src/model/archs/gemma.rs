//! Gemma 1: scaled embedding and a gate of GELU in its tanh form.
//!
//! The file's norm weights already include the 1 that Gemma adds to them.

use super::{Activation, Architecture, Config, Extras, Keys, Norm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "gemma", models: "Gemma 1, CodeGemma", norm: Norm::Rms, reads: &[], fill };

fn fill(_: &Keys<'_>, config: &mut Config, _: &mut Extras) -> Result<()> {
    config.embedding_scale = (config.n_embd as f32).sqrt();
    config.dense_mut().for_each(|dense| dense.activation = Activation::GeluTanh);
    Ok(())
}
