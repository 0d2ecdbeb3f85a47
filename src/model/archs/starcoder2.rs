//! StarCoder 2: LayerNorm, biases everywhere, and `Wdown gelu(Wup h)` with GELU in its tanh form.
//!
//! The models were trained with a window of 4,096 positions, which no converter writes: a file that has it is followed.

use super::{Activation, Architecture, Config, Extras, Keys, Norm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "starcoder2",
    models: "StarCoder 2",
    norm: Norm::Layer,
    reads: &["attention.sliding_window"],
    fill,
};

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    extras.all_biases();
    config.dense_mut().for_each(|dense| (dense.activation, dense.gated) = (Activation::GeluTanh, false));
    keys.window_on_all(config)?;
    Ok(())
}
