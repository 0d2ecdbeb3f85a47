//! THE list of what a model computes, once: the lowerings turn it into launches of a token, of many sequences, of a prompt.

use super::experts::Experts;
use super::ffn::{self, Part};
use super::op::{Attend, Gate, Half, Input, Kind, Norm, Op, Output, Project, What};
use crate::backend::PAGE_TOKENS;
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::kernels::kinds::{NormKind, Pairing};
use crate::backend::cuda::weights::layout::{DeviceWeights, Layer};
use crate::model::{self, Block, CacheClasses, Config, Dense, Ffn, MAX_CLASSES, Mixer, QkNorm};

/// From tokens to the last layer's halves, the last of which is still to be added; the cache's pages are divided so.
pub fn body(config: &Config, classes: &CacheClasses, weights: &DeviceWeights) -> Vec<Op> {
    let mut ops = Vec::with_capacity(1 + 8 * weights.layers.len());
    ops.push(Op { layer: -1, what: What::Embed { table: weights.token_embd, scale: config.embedding_scale } });
    let mut behind = [0; MAX_CLASSES];
    for (i, w) in weights.layers.iter().enumerate() {
        let class = classes.of(i);
        let place = CachePlace { class: class as u32, at: behind[class] };
        layer(config, w, i, place, &mut |what| ops.push(Op { layer: i as i32, what }));
        behind[class] += (2 * config.layers[i].attention().kv_width() * PAGE_TOKENS) as u64;
    }
    ops
}

/// From the stream to the logits.
pub fn head(config: &Config, weights: &DeviceWeights) -> Vec<Op> {
    let mut ops = Vec::with_capacity(2);
    let mut push = |what| ops.push(Op { layer: -1, what });
    let n_layers = config.n_layers();
    let read = Read {
        kind: Kind::Logits,
        weight: weights.output_norm,
        bias: weights.output_norm_bias,
        taps: &["final_norm"],
        ends: Some(n_layers as i32 - 1),
        alone: added_before(config, n_layers) < 2,
    };
    let input = read.stream(config, &mut push);
    push(What::Project(Project {
        kind: Kind::Logits,
        input,
        mats: vec![weights.output],
        bias: [weights.output_bias, 0, 0],
        output: Output::Logits { softcap: config.logit_softcap.unwrap_or(0.0), scale: config.logit_scale },
    }));
    ops
}

/// In the place of [`head`] where no logits are wanted.
pub fn finish(config: &Config) -> Op {
    Op { layer: -1, what: What::Finish { layer: config.n_layers() as i32 - 1 } }
}

/// How many things are to be added to the stream when a layer begins, or the head.
fn added_before(config: &Config, layer: usize) -> usize {
    match layer.checked_sub(1).map(|before| config.layers[before].block) {
        None => 0,
        Some(Block::Sequential) => 1,
        Some(Block::Parallel) => 2,
    }
}

/// Something that reads the stream.
struct Read {
    kind: Kind,
    weight: Address,
    bias: Address,
    taps: &'static [&'static str],
    ends: Option<i32>,
    /// One launch reads it, with at most one thing to add.
    alone: bool,
}

impl Read {
    /// The norm as a part of the launch that reads, where its kernels have that one; else as an operation of its own.
    fn stream(&self, config: &Config, push: &mut dyn FnMut(What)) -> Input {
        let Read { kind, weight, bias, taps, ends, alone } = *self;
        let plain = config.norm == model::Norm::Rms && weight != 0 && bias == 0 && config.residual_scale == 1.0;
        if alone
            && plain
            && let [tap] = taps
        {
            return Input::Normed { weight, tap, ends };
        }
        let norm = if weight == 0 { NormKind::None } else { config.norm.into() };
        push(What::Norm(Norm { kind, norm, weight, bias, taps, ends }));
        Input::Row
    }
}

fn layer(config: &Config, w: &Layer, index: usize, place: CachePlace, push: &mut dyn FnMut(What)) {
    let layer = &config.layers[index];
    let parallel = layer.block == Block::Parallel;
    let shared = parallel && w.ffn_norm == 0;
    let read = Read {
        kind: Kind::Qkv,
        weight: w.attn_norm,
        bias: w.attn_norm_bias,
        taps: if shared { &["attn_norm", "ffn_norm"] } else { &["attn_norm"] },
        ends: (index > 0).then_some(index as i32 - 1),
        alone: !parallel && added_before(config, index) < 2,
    };
    let input = read.stream(config, push);
    let of_ffn = Read {
        kind: Kind::GateUp,
        weight: w.ffn_norm,
        bias: w.ffn_norm_bias,
        taps: &["ffn_norm"],
        ends: None,
        // Several launches read what experts do.
        alone: !parallel && layer.experts().is_none(),
    };
    // In parallel the stream is read before anything is added to it; what the mixer reads has been read then.
    let mut ffn_input = input;
    let mut read_ffn = |push: &mut dyn FnMut(What)| {
        if !shared {
            ffn_input = of_ffn.stream(config, push);
        }
    };
    match &layer.mixer {
        Mixer::Attention(attention) => {
            push(What::Project(Project {
                kind: Kind::Qkv,
                input,
                mats: vec![w.q, w.k, w.v],
                bias: [w.q_bias, w.k_bias, w.v_bias],
                output: Output::Qkv,
            }));
            if parallel {
                read_ffn(push);
            }
            attend(config, attention, w, place, push);
            push(What::Project(Project {
                kind: Kind::Output,
                input: Input::Mix,
                mats: vec![w.o],
                bias: [w.o_bias, 0, 0],
                output: Output::Stream { half: Half::Mixer, post_norm: w.post_attn_norm },
            }));
        }
    }
    if !parallel {
        read_ffn(push);
    }
    match (&layer.ffn, &w.experts) {
        (Ffn::Experts(experts), Some(weights)) => {
            if let Some(shared) = &experts.shared {
                dense(&shared.ffn, w, ffn_input, Output::Shared, push);
            }
            let part = Part::Experts(Experts { experts: *experts, weights: weights.clone() });
            push(What::Ffn(ffn::Ffn { part, post_norm: w.post_ffn_norm }));
        }
        (Ffn::Dense(ffn), _) => {
            dense(ffn, w, ffn_input, Output::Stream { half: Half::Ffn, post_norm: w.post_ffn_norm }, push);
        }
        // The layout has the weights that the description says.
        (Ffn::Experts(_), None) | (Ffn::None, _) => {}
    }
}

/// A dense feed-forward part, or the expert that all share.
fn dense(ffn: &Dense, w: &Layer, input: Input, output: Output, push: &mut dyn FnMut(What)) {
    push(What::Gate(Gate {
        input,
        gate: w.gate,
        up: w.up,
        bias: [w.gate_bias, w.up_bias],
        activation: ffn.activation.into(),
        shown: !matches!(output, Output::Shared),
    }));
    let (mats, bias) = (vec![w.down], [w.down_bias, 0, 0]);
    push(What::Project(Project { kind: Kind::Down, input: Input::Gated, mats, bias, output }));
}

/// Where a layer's keys and values lie: the class of its part of a page, and elements before them there.
#[derive(Clone, Copy)]
struct CachePlace {
    class: u32,
    at: u64,
}

fn attend(config: &Config, attention: &model::Attention, w: &Layer, place: CachePlace, push: &mut dyn FnMut(What)) {
    let rope = config.rope_of(attention);
    let by_row = attention.qk_norm == Some(QkNorm::Row);
    if by_row {
        push(What::QkNorm([(w.q_norm, attention.q_width()), (w.k_norm, attention.kv_width())]));
    }
    push(What::Attend(Attend {
        attention: *attention,
        q_norm: if by_row { 0 } else { w.q_norm },
        k_norm: if by_row { 0 } else { w.k_norm },
        norm_last: attention.qk_norm == Some(QkNorm::HeadAfterRope),
        sinks: w.sinks,
        turns: w.turns,
        n_rot: rope.map_or(0, |rope| rope.n_rot()),
        magnitude: [false, true].map(|long| attention.rope.map_or(1.0, |i| config.ropes_of(long)[i].magnitude)),
        pairing: rope.map_or(Pairing::Adjacent, |rope| rope.pairing.into()),
        cache_class: place.class,
        layer_at: place.at,
    }));
}
