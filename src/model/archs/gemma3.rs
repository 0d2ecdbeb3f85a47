//! Gemma 3, text: scaled embedding, norms on q and k and after both halves of a layer, and five windowed layers with a
//! rope base of their own to each global one.
//!
//! The file's norm weights already include the 1 that Gemma adds to them.

use super::{Extras, Keys, Need, wrong};
use crate::error::{Error, Result};
use crate::gguf::Value;
use crate::model::{Activation, Config, QkNorm};

/// Layers from one global layer to the next, where the file does not say.
const PATTERN: u64 = 6;
/// Rope base of the windowed layers, where the file does not say.
const LOCAL_BASE: f32 = 10_000.0;
/// The 27B model scales by `n_embd / n_heads` in place of the head's size; its number of layers tells it.
const LAYERS_27B: usize = 62;

pub(super) fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.embedding_scale = (config.n_embd as f32).sqrt();
    let (n_embd, n_layers) = (config.n_embd, config.n_layers());
    for layer in &mut config.layers {
        layer.dense_mut().activation = Activation::GeluTanh;
        if n_layers == LAYERS_27B {
            let attention = layer.attention_mut();
            attention.scale = 1.0 / ((n_embd / attention.n_heads) as f32).sqrt();
        }
    }
    config.layers.iter_mut().for_each(|layer| layer.attention_mut().qk_norm = Some(QkNorm::Head));
    extras.post_norms = Need::Yes;
    // Without this key the common default of 10,000 would be the local base, not the global one.
    keys.gguf.float(&keys.key("rope.freq_base"))?;

    let key = keys.key("attention.sliding_window");
    let Some(window) = keys.gguf.opt_uint(&key)?.filter(|&n| n != 0) else { return Ok(()) };
    let window = u32::try_from(window).map_err(|_| wrong(&key, window, format!("at most {}", u32::MAX)))?;
    // The windowed layers' own, which the linear scaling is not for.
    let head_dim = config.layers.first().map_or(0, |l| l.attention().head_dim);
    config.ropes.push(keys.rope("rope.freq_base_swa", LOCAL_BASE, head_dim)?);
    for (layer, windowed) in config.layers.iter_mut().zip(windowed_layers(keys, n_layers)?) {
        if windowed {
            let attention = layer.attention_mut();
            (attention.window, attention.rope) = (Some(window), Some(1));
        }
    }
    Ok(())
}

/// Which layers have the window: the key is a period, or one bool a layer, or absent.
fn windowed_layers(keys: &Keys<'_>, n_layers: usize) -> Result<Vec<bool>> {
    let key = keys.key("attention.sliding_window_pattern");
    if let Some(array) = keys.gguf.meta(&key).and_then(|v| v.as_array()) {
        let flags = array.values().map_while(|v| match v {
            Value::Bool(flag) => Some(flag),
            v => v.as_int().map(|n| n != 0),
        });
        let flags: Vec<bool> = flags.take(n_layers + 1).collect();
        if flags.len() != n_layers || array.len() != n_layers {
            let expected = format!("{n_layers} bools, one a layer");
            return Err(Error::Model {
                name: format!("key \"{key}\""),
                found: format!("an array of {}", array.len()),
                expected,
            });
        }
        return Ok(flags);
    }
    let period = keys.gguf.opt_uint(&key)?.unwrap_or(PATTERN);
    // A period of 0 means that no layer is global.
    Ok((0..n_layers as u64).map(|i| period == 0 || i % period < period - 1).collect())
}
