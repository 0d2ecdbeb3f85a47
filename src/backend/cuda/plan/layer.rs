//! THE list of what a model computes, once: the lowerings turn it into launches of a token, of many sequences, of a prompt.

use super::experts::Experts;
use super::ffn::{self, Part};
use super::op::{Attend, Gate, Half, Input, Kind, Norm, Op, Output, Project, What};
use super::per_layer::ByLayer;
use super::recurrent::Mix;
use crate::backend::PAGE_TOKENS;
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::kernels::abi::Mat;
use crate::backend::cuda::kernels::kinds::{NormKind, Pairing};
use crate::backend::cuda::weights::layout::{DeviceWeights, Layer, PerLayer, PerLayerGate, Recurrent};
use crate::model::{self, Block, CacheClasses, Config, Dense, Ffn, MAX_CLASSES, QkNorm};

/// From tokens to the last layer's halves, the last of which is still to be added; the cache's pages are divided so.
pub fn body(config: &Config, classes: &CacheClasses, weights: &DeviceWeights) -> Vec<Op> {
    let mut ops = Vec::with_capacity(1 + 8 * weights.layers.len());
    ops.push(Op { layer: -1, what: What::Embed { table: weights.token_embd, scale: config.embedding_scale } });
    if let (Some(p), Some(w)) = (&config.per_layer, &weights.per_layer) {
        begin_per_layer(p, w, &mut |what| ops.push(Op { layer: -1, what }));
    }
    let (mut behind, mut places) = ([0; MAX_CLASSES], Vec::with_capacity(weights.layers.len()));
    for (i, w) in weights.layers.iter().enumerate() {
        let class = classes.of(i);
        let place = match config.layers[i].attention().kv_from.and_then(|from| places.get(from)) {
            Some(of_another) => *of_another,
            None => CachePlace { class: class as u32, at: behind[class] },
        };
        layer(config, w, i, place, &mut |what| ops.push(Op { layer: i as i32, what }));
        behind[class] += (config.layers[i].attention().kept() * PAGE_TOKENS) as u64;
        places.push(place);
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
        sum_scale: scale_before(config, n_layers),
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
    let n = config.n_layers();
    Op { layer: -1, what: What::Finish { layer: n as i32 - 1, sum_scale: scale_before(config, n) } }
}

/// How many things are to be added to the stream when a layer begins, or the head.
fn added_before(config: &Config, layer: usize) -> usize {
    match layer.checked_sub(1).map(|before| config.layers[before].block) {
        None => 0,
        _ if config.per_layer.is_some() => 1,
        Some(Block::Sequential) => 1,
        Some(Block::Parallel) => 2,
    }
}

/// What the stream is multiplied by when it is summed for a layer, or for the head; 0: nothing.
fn scale_before(config: &Config, layer: usize) -> f32 {
    let scale = layer.checked_sub(1).map_or(1.0, |before| config.layers[before].out_scale);
    if scale == 1.0 { 0.0 } else { scale }
}

/// Something that reads the stream.
struct Read {
    kind: Kind,
    weight: Address,
    bias: Address,
    taps: &'static [&'static str],
    ends: Option<i32>,
    sum_scale: f32,
    /// One launch reads it, with at most one thing to add.
    alone: bool,
}

impl Read {
    /// The norm as a part of the launch that reads, where its kernels have that one; else as an operation of its own.
    fn stream(&self, config: &Config, push: &mut dyn FnMut(What)) -> Input {
        let Read { kind, weight, bias, taps, ends, sum_scale, alone } = *self;
        let plain = config.norm == model::Norm::Rms && weight != 0 && bias == 0 && config.residual_scale == 1.0;
        let plain = plain && sum_scale == 0.0;
        if alone
            && plain
            && let [tap] = taps
        {
            return Input::Normed { weight, tap, ends };
        }
        let norm = if weight == 0 { NormKind::None } else { config.norm.into() };
        push(What::Norm(Norm { kind, norm, weight, bias, taps, ends, sum_scale }));
        Input::Row
    }
}

fn layer(config: &Config, w: &Layer, index: usize, place: CachePlace, push: &mut dyn FnMut(What)) {
    let layer = &config.layers[index];
    let parallel = layer.block == Block::Parallel;
    let shared = parallel && w.ffn_norm == 0;
    let ends = (index > 0).then_some(index as i32 - 1);
    let of_mixer = Read {
        kind: Kind::Qkv,
        weight: w.attn_norm,
        bias: w.attn_norm_bias,
        taps: if shared { &["attn_norm", "ffn_norm"] } else { &["attn_norm"] },
        ends,
        sum_scale: scale_before(config, index),
        alone: !parallel && added_before(config, index) < 2 && reads_once(layer, w),
    };
    let of_ffn = Read {
        kind: Kind::GateUp,
        weight: w.ffn_norm,
        bias: w.ffn_norm_bias,
        taps: &["ffn_norm"],
        ends: ends.filter(|_| !layer.has_mixer()),
        sum_scale: if layer.has_mixer() { 0.0 } else { of_mixer.sum_scale },
        // Several launches read what experts do.
        alone: !parallel && layer.experts().is_none() && (layer.has_mixer() || added_before(config, index) < 2),
    };
    let mut ffn_input = Input::Row;
    if layer.has_mixer() {
        let input = of_mixer.stream(config, push);
        ffn_input = input;
        // In parallel the stream is read before anything is added to it; what the mixer reads has been read then.
        let mut meanwhile = |push: &mut dyn FnMut(What)| {
            if parallel && !shared {
                ffn_input = of_ffn.stream(config, push);
            }
        };
        mixers(config, w, index, place, (input, &mut meanwhile), push);
    }
    if layer.has_ffn() {
        if !parallel {
            ffn_input = of_ffn.stream(config, push);
        }
        feed_forward(layer, w, ffn_input, push);
    }
    if let (Some(p), Some(w)) = (&config.per_layer, &w.per_layer) {
        end_per_layer(p, w, index, push);
    }
}

/// Whether one launch reads what a layer's mixers read.
fn reads_once(layer: &model::Layer, w: &Layer) -> bool {
    let of_state = w.recurrent.as_ref().is_none_or(|w| w.gates.is_empty() && !layer.attention().is_there());
    w.q_gate.is_none() && of_state
}

/// What reads the stream while a mixer has its input, if anything.
type Meanwhile<'a> = &'a mut dyn FnMut(&mut dyn FnMut(What));

/// A layer's mixers, whose input has been normalized.
fn mixers(
    config: &Config,
    w: &Layer,
    index: usize,
    place: CachePlace,
    (input, meanwhile): (Input, Meanwhile<'_>),
    push: &mut dyn FnMut(What),
) {
    let layer = &config.layers[index];
    let attention = layer.attention();
    let whole = |half| Output::Stream { half, post_norm: w.post_attn_norm };
    let state = layer.recurrent.as_ref().zip(w.recurrent.as_ref());
    if attention.is_there() {
        let output = if state.is_some() { Output::Aside } else { whole(Half::Mixer) };
        push(What::Project(Project {
            kind: Kind::Qkv,
            input,
            mats: if attention.kv_from.is_some() { vec![w.q] } else { vec![w.q, w.k, w.v] },
            bias: [w.q_bias, w.k_bias, w.v_bias],
            output: Output::Qkv,
        }));
        if let Some(gate) = w.q_gate {
            let (mats, output) = (vec![gate], Output::MixGate);
            push(What::Project(Project { kind: Kind::Qkv, input, mats, bias: [0; 3], output }));
        }
        meanwhile(push);
        attend(config, attention, w, place, push);
        if w.q_gate.is_some() {
            push(What::GateMix { width: attention.q_width() });
        }
        let (input, mats, bias) = (Input::Mix, vec![w.o], [w.o_bias, 0, 0]);
        push(What::Project(Project { kind: Kind::Output, input, mats, bias, output }));
    }
    if let Some((mixer, w)) = state {
        let half = if attention.is_there() { Half::Beside } else { Half::Mixer };
        recurrent(mixer, w, (input, whole(half)), config.state_start(index) as u64, push);
        if half == Half::Beside {
            push(What::Beside);
        }
    }
}

/// A layer's feed-forward part.
fn feed_forward(layer: &model::Layer, w: &Layer, input: Input, push: &mut dyn FnMut(What)) {
    match (&layer.ffn, &w.experts) {
        (Ffn::Experts(experts), Some(weights)) => {
            if let Some(shared) = &experts.shared {
                dense(&shared.ffn, w, input, Output::Shared, push);
            }
            let part = Part::Experts(Experts { experts: *experts, weights: weights.clone() });
            push(What::Ffn(ffn::Ffn { part, post_norm: w.post_ffn_norm }));
        }
        (Ffn::Dense(ffn), _) => {
            dense(ffn, w, input, Output::Stream { half: Half::Ffn, post_norm: w.post_ffn_norm }, push);
        }
        // The layout has the weights that the description says.
        (Ffn::Experts(_), None) | (Ffn::None, _) => {}
    }
}

/// The stream as it is, in the place of a norm.
fn plain_stream(kind: Kind) -> What {
    let norm = Norm { kind, norm: NormKind::None, weight: 0, bias: 0, taps: &[], ends: None, sum_scale: 0.0 };
    What::Norm(norm)
}

/// What all layers add by a token's embeddings, of the stream as it begins.
fn begin_per_layer(p: &model::PerLayer, w: &PerLayer, push: &mut dyn FnMut(What)) {
    push(plain_stream(Kind::Embed));
    let (input, mats, output) = (Input::Row, vec![w.proj], Output::ByLayer);
    push(What::Project(Project { kind: Kind::Embed, input, mats, bias: [0; 3], output }));
    push(What::ByLayer(ByLayer { table: w.embd, scale: p.embd_scale, norm: w.norm }));
}

/// What a layer adds by them, of the stream behind its halves.
fn end_per_layer(p: &model::PerLayer, w: &PerLayerGate, layer: usize, push: &mut dyn FnMut(What)) {
    push(plain_stream(Kind::Up));
    let (input, mats, output) = (Input::Row, vec![w.gate], Output::LayerGate);
    push(What::Project(Project { kind: Kind::Up, input, mats, bias: [0; 3], output }));
    push(What::LayerGlu { layer, activation: p.activation.into() });
    let output = Output::Stream { half: Half::ByLayer, post_norm: w.post_norm };
    push(What::Project(Project { kind: Kind::Down, input: Input::Gated, mats: vec![w.proj], bias: [0; 3], output }));
}

/// A mixer with a state, whose input has been normalized, and where what it makes goes.
fn recurrent(
    mixer: &model::Recurrent,
    w: &Recurrent,
    (input, output): (Input, Output),
    at: u64,
    push: &mut dyn FnMut(What),
) {
    let mut project = |mats: Vec<Mat>, output| {
        push(What::Project(Project { kind: Kind::Qkv, input, mats, bias: [0; 3], output }));
    };
    project(std::iter::once(w.input).chain(w.gate).collect(), Output::Qkv);
    if !w.gates.is_empty() {
        project(w.gates.clone(), Output::Gates);
    }
    let Recurrent { conv, conv_bias, a, dt, d, norm, .. } = *w;
    push(What::Mix(Mix { mixer: *mixer, conv, conv_bias, a, dt, d, norm, at }));
    let (input, mats) = (Input::Mix, vec![w.output]);
    push(What::Project(Project { kind: Kind::Output, input, mats, bias: [0; 3], output }));
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
    if attention.v_norm && attention.kv_from.is_none() {
        let heads = (attention.n_kv_heads, attention.head_dim);
        push(What::ValueNorm { at: attention.q_width() + attention.kv_width(), heads });
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
