//! What a description says that GPUs do not compute: such a model is refused before anything of it is on the device.

use crate::backend::cuda::plan::recurrent;
use crate::error::{Error, Result};
use crate::model::{Attention, Block, Config, Layer};

/// What it is called, and whether a part has it.
type Feature<T> = (&'static str, fn(&T) -> bool);

/// What has no kernels, and whether a layer has it.
const OF_ATTENTION: [Feature<Attention>; 1] = [("attention over latents", |a| a.latent.is_some())];
const OF_LAYER: [Feature<Layer>; 3] = [
    ("a scale of 0 behind a layer", |l| l.out_scale == 0.0),
    ("a state in a block whose halves read the same", |l| l.recurrent.is_some() && l.block == Block::Parallel),
    ("a DeltaNet of heads wider than 128, or a Mamba2 with a state of more than 256 rows", |l| {
        l.recurrent.as_ref().is_some_and(|mixer| !recurrent::can(mixer))
    }),
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
        let odd = config.per_layer.is_some_and(|p| p.width % 32 != 0);
        odd.then(|| (format!("architecture {:?}", config.architecture), "embeddings by layer of no whole blocks of 32"))
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
