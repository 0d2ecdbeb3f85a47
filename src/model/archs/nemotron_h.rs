//! Nemotron-H: a layer is a Mamba2, attention without a rope, or a feed-forward part without a gate, and nothing else; which of them
//! is what the numbers of its key heads and its feed-forward length leave.

use super::recurrent::replace;
use super::{Activation, Architecture, Attention, Config, Extras, Ffn, Keys, Mixer, Need, Norm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "nemotron_h",
    models: "Nemotron-H, Nemotron Nano 2",
    norm: Norm::Rms,
    reads: &["attention.layer_norm_epsilon"],
    fill,
};

/// Also what a file with experts has.
pub(super) fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    let mixer = keys.mamba2(true)?;
    for layer in &mut config.layers {
        layer.attention_mut().rope = None;
        let n_kv_heads = layer.attention().n_kv_heads;
        match layer.dense_mut().filter(|dense| dense.width > 0) {
            Some(dense) => {
                (dense.activation, dense.gated) = (Activation::Relu2, false);
                layer.mixer = Mixer::Attention(Attention::NONE);
            }
            None => {
                layer.ffn = Ffn::None;
                if n_kv_heads == 0 {
                    replace(layer, mixer);
                }
            }
        }
    }
    (extras.qkv_bias, extras.o_bias, extras.ffn_bias) = (Need::Maybe, Need::Maybe, Need::Maybe);
    Ok(())
}
