//! gpt-oss: experts with biases and a clamped gate, heads with a sink, a window on every other layer, YaRN.
//!
//! The models' YaRN has fractions where this rounds to whole pairs, as llama.cpp does: a file has no key for it.

use super::experts::Usual;
use super::{Activation, Architecture, Config, Extras, Ffn, Keys, Need, Norm, Score, wrong};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "gpt-oss",
    models: "gpt-oss 20B and 120B",
    norm: Norm::Rms,
    reads: &["attention.sliding_window", "expert_count"],
    fill,
};

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    extras.ffn_norm_name = "post_attention_norm.weight";
    (extras.qkv_bias, extras.o_bias, extras.experts_bias) = (Need::Yes, Need::Yes, Need::Yes);
    keys.experts(config, Usual { score: Score::SoftmaxOfChosen, renorm: false, ..Usual::SOFTMAX })?;
    for layer in &mut config.layers {
        layer.attention_mut().sinks = true;
        if let Ffn::Experts(experts) = &mut layer.ffn {
            experts.each.activation = Activation::ClampedSwiglu;
        }
    }
    keys.refuse_other_base()?;
    let missing = || wrong(&keys.key("attention.sliding_window"), "missing or 0", "the window of every other layer");
    let window = keys.window()?.ok_or_else(missing)?;
    keys.window_on_some(config, (window, 2), (Some(0), Some(0)))
}
