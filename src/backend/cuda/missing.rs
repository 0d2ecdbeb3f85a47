//! What a description says that GPUs do not compute: such a model is refused before anything of it is on the device.

use crate::error::{Error, Result};
use crate::model::{Attention, Config, Layer, Recurrent};

/// What it is called, and whether a part has it.
type Feature<T> = (&'static str, fn(&T) -> bool);

/// What has no kernels, and whether a layer has it.
const OF_ATTENTION: [Feature<Attention>; 5] = [
    ("attention over latents", |a| a.latent.is_some()),
    ("keys and values of another layer", |a| a.kv_from.is_some()),
    ("values of the keys' matrix", |a| a.k_as_v),
    ("a norm of values", |a| a.v_norm),
    ("gated attention", |a| a.gated),
];
const OF_LAYER: [Feature<Layer>; 7] = [
    ("experts beside a dense part, each with norms of its own", |l| l.experts().is_some_and(|e| e.side_by_side)),
    ("a scale behind a layer", |l| l.out_scale != 1.0),
    ("a short convolution", |l| matches!(l.recurrent, Some(Recurrent::ShortConv(_)))),
    ("a DeltaNet", |l| matches!(l.recurrent, Some(Recurrent::DeltaNet(_)))),
    ("a Mamba2", |l| matches!(l.recurrent, Some(Recurrent::Mamba2(_)))),
    ("nothing but a feed-forward part", |l| !l.has_mixer()),
    ("no feed-forward part", |l| !l.has_ffn()),
];

/// Fails with `UnsupportedValue`, and what it is, where a GPU lacks something.
pub fn check(config: &Config) -> Result<()> {
    let attention = |layer: &Layer| OF_ATTENTION.iter().find(|(_, has)| has(layer.attention())).map(|(what, _)| *what);
    let other = |layer: &Layer| OF_LAYER.iter().find(|(_, has)| has(layer)).map(|(what, _)| *what);
    let of_layers = config.layers.iter().enumerate().find_map(|(i, layer)| {
        let what = attention(layer).or_else(|| other(layer))?;
        Some((format!("layer {i} of architecture {:?}", config.architecture), what))
    });
    let of_model = || {
        let by_layer = config.per_layer.is_some();
        by_layer.then(|| (format!("architecture {:?}", config.architecture), "embeddings by layer"))
    };
    match of_layers.or_else(of_model) {
        None => Ok(()),
        Some((name, found)) => Err(Error::UnsupportedValue {
            name,
            found: format!("one with {found}"),
            expected: "what a GPU has kernels for; the CPU computes this".into(),
        }),
    }
}
