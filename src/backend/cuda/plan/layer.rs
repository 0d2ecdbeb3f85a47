//! THE list of what a model computes, once: the lowerings turn it into launches of a token, of many sequences, of a prompt.

use super::op::{Attend, Gate, Half, Input, Kind, Op, Output, Project, What};
use crate::backend::cuda::weights::layout::{DeviceWeights, Layer};
use crate::model::{Config, Ffn, Mixer};

/// From tokens to the last layer's halves, the last of which is still to be added.
pub fn body(config: &Config, weights: &DeviceWeights) -> Vec<Op> {
    let mut ops = Vec::with_capacity(1 + 5 * weights.layers.len());
    ops.push(Op { layer: -1, what: What::Embed { table: weights.token_embd, scale: config.embedding_scale } });
    for (i, w) in weights.layers.iter().enumerate() {
        layer(config, w, i, |what| ops.push(Op { layer: i as i32, what }));
    }
    ops
}

/// From the stream to the logits.
pub fn head(config: &Config, weights: &DeviceWeights) -> Op {
    let ends = Some(config.n_layers() as i32 - 1);
    let project = Project {
        kind: Kind::Logits,
        input: Input::Normed { weight: weights.output_norm, tap: "final_norm", ends },
        mats: vec![weights.output],
        bias: [0; 3],
        output: Output::Logits { softcap: config.logit_softcap.unwrap_or(0.0) },
    };
    Op { layer: -1, what: What::Project(project) }
}

/// In the place of [`head`] where no logits are wanted.
pub fn finish(config: &Config, weights: &DeviceWeights) -> Op {
    Op { layer: -1, what: What::Finish { norm: weights.output_norm, layer: config.n_layers() as i32 - 1 } }
}

fn layer(config: &Config, w: &Layer, index: usize, mut push: impl FnMut(What)) {
    let ends = (index > 0).then_some(index as i32 - 1);
    let layer = &config.layers[index];
    match &layer.mixer {
        Mixer::Attention(attention) => {
            let rope = config.rope_of(attention);
            push(What::Project(Project {
                kind: Kind::Qkv,
                input: Input::Normed { weight: w.attn_norm, tap: "attn_norm", ends },
                mats: vec![w.q, w.k, w.v],
                bias: [w.q_bias, w.k_bias, w.v_bias],
                output: Output::Qkv,
            }));
            push(What::Attend(Attend {
                attention: *attention,
                q_norm: w.q_norm,
                k_norm: w.k_norm,
                turns: w.turns,
                n_rot: rope.n_rot(),
                magnitude: rope.magnitude,
                pairing: rope.pairing,
                cache_layer: index,
            }));
            push(What::Project(Project {
                kind: Kind::Output,
                input: Input::Mix,
                mats: vec![w.o],
                bias: [w.o_bias, 0, 0],
                output: Output::Stream { half: Half::Mixer, post_norm: w.post_attn_norm },
            }));
        }
    }
    match &layer.ffn {
        Ffn::Dense(dense) => {
            push(What::Gate(Gate {
                input: Input::Normed { weight: w.ffn_norm, tap: "ffn_norm", ends: None },
                gate: w.gate,
                up: w.up,
                activation: dense.activation,
            }));
            push(What::Project(Project {
                kind: Kind::Down,
                input: Input::Gated,
                mats: vec![w.down],
                bias: [0; 3],
                output: Output::Stream { half: Half::Ffn, post_norm: w.post_ffn_norm },
            }));
        }
    }
}
