//! What a description says that GPUs do not compute: such a model is refused before anything of it is on the device.

use crate::error::{Error, Result};
use crate::model::{Attention, Config, Layer, Recurrent};

/// What has no kernels, and whether a layer has it.
const OF_ATTENTION: [(&str, fn(&Attention) -> bool); 1] = [("gated attention", |a| a.gated)];
const OF_LAYER: [(&str, fn(&Layer) -> bool); 2] = [
    ("a short convolution", |l| matches!(l.recurrent, Some(Recurrent::ShortConv(_)))),
    ("a DeltaNet", |l| matches!(l.recurrent, Some(Recurrent::DeltaNet(_)))),
];

/// Fails with `UnsupportedValue`, and what it is, where a GPU lacks something.
pub fn check(config: &Config) -> Result<()> {
    let attention = |layer: &Layer| OF_ATTENTION.iter().find(|(_, has)| has(layer.attention())).map(|(what, _)| *what);
    let other = |layer: &Layer| OF_LAYER.iter().find(|(_, has)| has(layer)).map(|(what, _)| *what);
    let of_layers = config.layers.iter().enumerate().find_map(|(i, layer)| {
        let what = attention(layer).or_else(|| other(layer))?;
        Some((format!("layer {i} of architecture {:?}", config.architecture), what))
    });
    match of_layers {
        None => Ok(()),
        Some((name, found)) => Err(Error::UnsupportedValue {
            name,
            found: format!("one with {found}"),
            expected: "what a GPU has kernels for; the CPU computes this".into(),
        }),
    }
}
