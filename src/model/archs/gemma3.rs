//! Gemma 3, text: scaled embedding, norms on q and k and after both halves of a layer, and five windowed layers with a
//! rope base of their own to each global one.
//!
//! The file's norm weights already include the 1 that Gemma adds to them.

use super::{Activation, Architecture, Config, Extras, Keys, Need, Norm, QkNorm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "gemma3",
    models: "Gemma 3 (text)",
    norm: Norm::Rms,
    reads: &["attention.sliding_window"],
    fill,
};

/// Layers from one global layer to the next, where the file does not say.
const PATTERN: u64 = 6;
/// Rope base of the windowed layers, where the file does not say.
const LOCAL_BASE: f32 = 10_000.0;
/// The 27B model scales by `n_embd / n_heads` in place of the head's size; its number of layers tells it.
const LAYERS_27B: usize = 62;

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.embedding_scale = (config.n_embd as f32).sqrt();
    let (n_embd, n_layers) = (config.n_embd, config.n_layers());
    config.dense_mut().for_each(|dense| dense.activation = Activation::GeluTanh);
    for layer in &mut config.layers {
        let attention = layer.attention_mut();
        attention.qk_norm = Some(QkNorm::Head);
        if n_layers == LAYERS_27B {
            attention.scale = 1.0 / ((n_embd / attention.n_heads) as f32).sqrt();
        }
    }
    extras.post_norms = Need::Yes;
    // Without this key the common default of 10,000 would be the local base, not the global one.
    keys.gguf.float(&keys.key("rope.freq_base"))?;

    let Some(window) = keys.window()? else { return Ok(()) };
    // The windowed layers' own, which the scaling is not for.
    let head_dim = config.layers.first().map_or(0, |l| l.attention().head_dim);
    let base = keys.positive("rope.freq_base_swa")?.unwrap_or(LOCAL_BASE);
    config.ropes.push(keys.rope(base, head_dim)?);
    keys.window_on_some(config, (window, PATTERN), (Some(1), Some(0)))
}
