//! Gemma 4, text: layers of two kinds, with heads, key heads and ropes of their own; values that are normalized without a weight
//! and may be what makes the keys; last layers that read the keys and values of earlier ones; embeddings by layer (E2B, E4B);
//! experts beside a dense part (26B-A4B); and a scale behind each layer.

use super::experts::Usual;
use super::keys::MAX_SIZE;
use super::{
    Activation, Architecture, Config, Extras, Keys, Need, Norm, PerLayer, QkNorm, RopePairing, RopeTable, unsupported,
    wrong,
};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "gemma4",
    models: "Gemma 4: E2B, E4B, 12B, 31B and 26B-A4B (text)",
    norm: Norm::Rms,
    reads: &[
        "attention.key_length_swa",
        "attention.shared_kv_layers",
        "attention.sliding_window",
        "attention.value_length_swa",
        "expert_count",
        "rope.dimension_count_swa",
    ],
    fill,
};

/// Layers from one without a window to the next, where the file does not say.
const PATTERN: u64 = 6;
/// Rope base of the windowed layers, where the file does not say.
const LOCAL_BASE: f32 = 10_000.0;

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.embedding_scale = (config.n_embd as f32).sqrt();
    config.dense_mut().for_each(|dense| dense.activation = Activation::GeluTanh);
    (extras.post_norms, extras.text_only) = (Need::Yes, true);
    // What is not turned on layers without a window has divisors that leave nothing of its frequency.
    (extras.rope_freqs, extras.rope_freqs_of_first) = (Need::Yes, true);
    extras.out_scale = Need::Maybe;
    for layer in &mut config.layers {
        let attention = layer.attention_mut();
        (attention.qk_norm, attention.v_norm, attention.scale) = (Some(QkNorm::Head), true, 1.0);
    }
    windows(keys, config)?;
    let fused = |i: usize| keys.gguf.tensor(&format!("blk.{i}.attn_qkv.weight")).is_some();
    for (i, layer) in config.layers.iter_mut().enumerate().filter(|(_, l)| l.attention().window.is_none()) {
        layer.attention_mut().k_as_v = !fused(i) && keys.gguf.tensor(&format!("blk.{i}.attn_v.weight")).is_none();
    }
    share(keys, config)?;
    if keys.gguf.meta(&keys.key("expert_count")).is_some() {
        experts(keys, config)?;
    }
    let width = "embedding_length_per_layer_input";
    if keys.gguf.opt_uint(&keys.key(width))?.is_some_and(|width| width != 0) {
        let width = keys.size(width, MAX_SIZE)?;
        let (embd_scale, activation) = ((width as f32).sqrt(), Activation::GeluTanh);
        config.per_layer = Some(PerLayer { width, embd_scale, activation });
    }
    Ok(())
}

/// Windows, and what layers with one have otherwise than those without.
fn windows(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    let head_dim = keys.size("attention.key_length_swa", MAX_SIZE)?;
    let suffix = "attention.value_length_swa";
    if let Some(other) = keys.opt_size(suffix, MAX_SIZE)?.filter(|&length| length != head_dim) {
        return Err(wrong(&keys.key(suffix), other, format!("{head_dim}, the length of a key")));
    }
    let suffix = "rope.dimension_count_swa";
    let n_rot = keys.opt_size(suffix, MAX_SIZE)?.unwrap_or(head_dim);
    if n_rot % 2 != 0 || n_rot > head_dim {
        return Err(wrong(&keys.key(suffix), n_rot, format!("even, 2 to {head_dim}")));
    }
    let Some(window) = keys.window()? else {
        return Err(wrong(&keys.key("attention.sliding_window"), "missing", "a window"));
    };
    let base = keys.positive("rope.freq_base_swa")?.unwrap_or(LOCAL_BASE);
    config.ropes.push(RopeTable::of_base(base, n_rot, RopePairing::Halves)?);
    keys.window_on_some(config, (window, PATTERN), (Some(1), Some(0)))?;
    let windowed = config.layers.iter_mut().filter(|layer| layer.attention().window.is_some());
    windowed.for_each(|layer| layer.attention_mut().head_dim = head_dim);
    Ok(())
}

/// The last layers read the keys and values of the last layer before them that has a window as they do, or has none.
fn share(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    let (suffix, n_layers) = ("attention.shared_kv_layers", config.n_layers());
    let shared = keys.gguf.opt_uint(&keys.key(suffix))?.unwrap_or(0);
    let own = usize::try_from(shared).ok().and_then(|shared| n_layers.checked_sub(shared));
    let Some(own) = own.filter(|&own| own > 0) else {
        return Err(wrong(&keys.key(suffix), shared, format!("below {n_layers}, the number of layers")));
    };
    for i in own..n_layers {
        let window = config.layers[i].attention().window;
        let Some(from) = config.layers[..own].iter().rposition(|layer| layer.attention().window == window) else {
            let expected = format!("so many that layer {i} finds one like it before them");
            return Err(unsupported(&keys.key(suffix), shared, expected));
        };
        let attention = config.layers[i].attention_mut();
        (attention.kv_from, attention.k_as_v) = (Some(from), false);
    }
    Ok(())
}

/// Experts beside the dense part, which all positions go through.
fn experts(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    keys.experts(config, Usual { shared: Some(|n_ff| n_ff), ..Usual::SOFTMAX })?;
    for experts in config.experts_mut() {
        experts.side_by_side = true;
        experts.each.activation = Activation::GeluTanh;
        experts.shared.iter_mut().for_each(|shared| shared.ffn.activation = Activation::GeluTanh);
    }
    Ok(())
}
