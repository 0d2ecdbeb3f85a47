//! Ministral 3 and Mistral Small 3.1 and 3.2, text: a llama whose rope YaRN may scale and whose queries grow with their position.

use super::{Architecture, Config, Extras, Keys, Need, Norm, RopePairing, Temperature};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "mistral3",
    models: "Ministral 3, Mistral Small 3.1 and 3.2 (text)",
    norm: Norm::Rms,
    reads: &["attention.sliding_window", "attention.temperature_scale"],
    fill,
};

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.ropes[0].pairing = RopePairing::Adjacent;
    extras.qkv_bias = Need::Maybe;
    extras.o_bias = Need::Maybe;
    extras.ffn_bias = Need::Maybe;
    extras.rope_freqs = Need::Maybe;
    keys.window_on_all(config)?;
    if let Some(beta) = keys.float("attention.temperature_scale")?.filter(|&beta| beta != 0.0) {
        let temperature = Temperature { beta, interval: keys.original_context(config.n_ctx_train)? };
        config.layers.iter_mut().for_each(|layer| layer.attention_mut().temperature = Some(temperature));
    }
    Ok(())
}
