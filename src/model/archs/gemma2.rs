//! Gemma 2: Gemma with norms behind both halves of a layer, softcaps of scores and logits, and a window on every other layer.

use super::{Activation, Architecture, Config, Extras, Keys, Need, Norm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "gemma2", models: "Gemma 2", norm: Norm::Rms, reads: &["attention.sliding_window"], fill };

/// Where the file does not say, as in llama.cpp: its first files did not.
const WINDOW: u32 = 4096;
const SCORE_SOFTCAP: f32 = 50.0;
const LOGIT_SOFTCAP: f32 = 30.0;
/// The 27B model scales by `n_embd / n_heads` in place of the head's size; its number of layers tells it.
const LAYERS_27B: usize = 46;

/// A softcap, of which 0 means none.
fn softcap(keys: &Keys<'_>, key: &str, default: f32) -> Result<Option<f32>> {
    Ok(Some(keys.float(key)?.unwrap_or(default)).filter(|&cap| cap != 0.0))
}

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.embedding_scale = (config.n_embd as f32).sqrt();
    config.logit_softcap = softcap(keys, "final_logit_softcapping", LOGIT_SOFTCAP)?;
    let score_softcap = softcap(keys, "attn_logit_softcapping", SCORE_SOFTCAP)?;
    let (n_embd, n_layers) = (config.n_embd, config.n_layers());
    config.dense_mut().for_each(|dense| dense.activation = Activation::GeluTanh);
    for layer in &mut config.layers {
        let attention = layer.attention_mut();
        attention.softcap = score_softcap;
        if n_layers == LAYERS_27B {
            attention.scale = 1.0 / ((n_embd / attention.n_heads) as f32).sqrt();
        }
    }
    extras.post_norms = Need::Yes;
    keys.refuse_other_base()?;
    // A key of 0 says that there is none.
    let has_key = keys.gguf.meta(&keys.key("attention.sliding_window")).is_some();
    match keys.window()?.or((!has_key).then_some(WINDOW)) {
        Some(window) => keys.window_on_some(config, (window, 2), (Some(0), Some(0))),
        None => Ok(()),
    }
}
