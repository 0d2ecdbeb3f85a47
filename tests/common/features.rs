//! What a description can say, feature by feature, for every backend's tests.

use super::described::Described;
use kigo::model::{
    Activation, Block, Dense, Experts, Ffn, Groups, Latent, LongContext, Norm, PerLayer, QkNorm, RopePairing,
    RopeTable, Route, Score, Shared, Temperature,
};

/// A name, and what it changes of a plain description.
pub type Feature = (&'static str, fn(&mut Described));

/// Norms of queries and keys in every layer.
pub fn qk_norm(d: &mut Described, kind: QkNorm) {
    d.layers(|l| l.attention_mut().qk_norm = Some(kind));
}

/// Every layer's feed-forward part.
pub fn dense(d: &mut Described, activation: Activation, gated: bool) {
    d.config.dense_mut().for_each(|dense| (dense.activation, dense.gated) = (activation, gated));
}

const HEATED: Temperature = Temperature { beta: 0.5, interval: 16 };

/// Layers of other heads and widths, the second with a padded head, a rope of part of it, and none at all.
fn uneven(d: &mut Described) {
    d.config.ropes.push(RopeTable::of_base(1e4, 8, RopePairing::Adjacent).expect("has memory"));
    let last = d.config.layers[1];
    d.config.layers.push(last);
    let [_, second, third] = &mut d.config.layers[..] else { panic!("three layers") };
    let a = second.attention_mut();
    (a.n_heads, a.n_kv_heads, a.head_dim, a.rope, a.window) = (4, 1, 24, Some(1), Some(20));
    second.dense_mut().expect("is dense").width = 160;
    let a = third.attention_mut();
    (a.n_heads, a.n_kv_heads, a.head_dim, a.rope) = (2, 2, 32, None);
}

/// What the description can say, one by one, and much of it together.
pub const FEATURES: [Feature; 32] = [
    ("layer norm", |d| d.config.norm = Norm::Layer),
    ("layer norm with biases", |d| (d.config.norm, d.norm_bias) = (Norm::Layer, true)),
    ("rms norm with biases", |d| d.norm_bias = true),
    ("norms behind only", |d| (d.attn_norm, d.ffn_norm, d.post_norms) = (false, false, true)),
    ("parallel, one norm", |d| {
        d.layers(|l| l.block = Block::Parallel);
        (d.config.norm, d.ffn_norm) = (Norm::Layer, false);
    }),
    ("parallel, two norms", |d| {
        d.layers(|l| l.block = Block::Parallel);
        (d.config.residual_scale, d.norm_bias) = (0.7, true);
    }),
    ("parallel, norms behind only", |d| {
        d.layers(|l| l.block = Block::Parallel);
        (d.attn_norm, d.ffn_norm, d.post_norms) = (false, false, true);
    }),
    ("residual scale", |d| d.config.residual_scale = 0.22),
    ("logit scale", |d| d.config.logit_scale = 0.3),
    ("output bias", |d| d.output_bias = true),
    ("output bias, scale and softcap", |d| {
        (d.output_bias, d.config.logit_scale, d.config.logit_softcap) = (true, 2.0, Some(3.0));
    }),
    ("head norms", |d| qk_norm(d, QkNorm::Head)),
    ("head norms behind the rope", |d| qk_norm(d, QkNorm::HeadAfterRope)),
    ("row norms", |d| qk_norm(d, QkNorm::Row)),
    ("no rope in a layer", |d| d.config.layers[0].attention_mut().rope = None),
    ("no rope at all", |d| {
        d.layers(|l| l.attention_mut().rope = None);
        d.config.ropes.clear();
    }),
    ("ropes of long sessions", |d| {
        let mut ropes = d.config.ropes.clone();
        ropes.iter_mut().for_each(|rope| rope.magnitude = 1.25);
        ropes.iter_mut().flat_map(|rope| &mut rope.inv_freq).for_each(|f| *f *= 0.5);
        d.config.long = Some(LongContext { above: 1, ropes });
    }),
    ("temperature", |d| d.layers(|l| l.attention_mut().temperature = Some(HEATED))),
    ("gelu without a gate", |d| dense(d, Activation::Gelu, false)),
    ("relu2 without a gate", |d| dense(d, Activation::Relu2, false)),
    ("gelu with a gate", |d| dense(d, Activation::Gelu, true)),
    ("relu2 with a gate", |d| dense(d, Activation::Relu2, true)),
    ("biases", |d| (d.qkv_bias, d.o_bias, d.ffn_bias) = (true, true, true)),
    ("biases without a gate", |d| {
        dense(d, Activation::GeluTanh, false);
        (d.qkv_bias, d.o_bias, d.ffn_bias) = (true, true, true);
    }),
    ("uneven layers", uneven),
    ("much at once", |d| {
        uneven(d);
        qk_norm(d, QkNorm::HeadAfterRope);
        dense(d, Activation::Gelu, false);
        d.layers(|l| (l.block, l.attention_mut().temperature) = (Block::Parallel, Some(HEATED)));
        (d.config.norm, d.config.residual_scale, d.config.logit_scale) = (Norm::Layer, 0.5, 0.5);
        (d.norm_bias, d.qkv_bias, d.o_bias, d.ffn_bias, d.output_bias) = (true, true, true, true, true);
    }),
    ("keys as values", |d| d.layers(|l| l.attention_mut().k_as_v = true)),
    ("a norm of values", |d| d.layers(|l| l.attention_mut().v_norm = true)),
    ("another layer's keys and values", of_another),
    ("scales behind layers", |d| {
        (d.config.layers[0].out_scale, d.config.layers[1].out_scale) = (0.5, -1.5);
    }),
    ("embeddings by layer", |d| by_layer(d, Activation::GeluTanh)),
    ("much at once of layers that share", |d| {
        uneven(d);
        shared_and_scaled(d);
    }),
];

/// Seven experts of which two are used, in every layer, with these changes.
fn experts(d: &mut Described, change: fn(&mut Experts)) {
    let each = Dense { width: 32, activation: Activation::Silu, gated: true };
    let route = Route { score: Score::Softmax, select_bias: false, groups: None, renorm: true, scale: 1.0 };
    let mut experts = Experts { n: 7, n_used: 2, each, route, shared: None, side_by_side: false };
    change(&mut experts);
    d.layers(|l| l.ffn = Ffn::Experts(experts));
}

fn shared(gated: bool) -> Option<Shared> {
    Some(Shared { ffn: Dense { width: 96, activation: Activation::Silu, gated: true }, gated })
}

/// What experts can be, and sinks.
pub const EXPERTS: [Feature; 14] = [
    ("sinks", |d| d.layers(|l| l.attention_mut().sinks = true)),
    ("experts", |d| experts(d, |_| ())),
    ("one expert", |d| experts(d, |e| (e.n_used, e.route.renorm) = (1, false))),
    ("all experts", |d| experts(d, |e| e.n_used = 7)),
    ("sigmoids and a scale", |d| experts(d, |e| (e.route.score, e.route.scale) = (Score::Sigmoid, 2.5))),
    ("a softmax of the chosen", |d| experts(d, |e| (e.route.score, e.n_used) = (Score::SoftmaxOfChosen, 3))),
    ("a bias for the choice", |d| experts(d, |e| (e.route.score, e.route.select_bias) = (Score::Sigmoid, true))),
    ("groups", |d| {
        experts(d, |e| (e.n, e.n_used, e.route.groups) = (9, 4, Some(Groups { n: 3, n_used: 2 })));
    }),
    ("a shared expert", |d| experts(d, |e| e.shared = shared(false))),
    ("a shared expert with a gate", |d| experts(d, |e| (e.n_used, e.shared) = (4, shared(true)))),
    ("experts without a gate", |d| experts(d, |e| (e.each.activation, e.each.gated) = (Activation::Relu2, false))),
    ("much at once with experts", |d| {
        experts(d, |e| {
            (e.n, e.n_used, e.each.width, e.each.activation) = (10, 3, 64, Activation::ClampedSwiglu);
            (e.route.select_bias, e.route.groups) = (true, Some(Groups { n: 5, n_used: 3 }));
            (e.route.score, e.route.renorm, e.route.scale, e.shared) = (Score::Sigmoid, true, 1.8, shared(true));
        });
        (d.ffn_bias, d.qkv_bias, d.o_bias, d.post_norms, d.norm_bias) = (true, true, true, true, true);
        d.config.layers[0].ffn = Ffn::Dense(Dense { width: 96, activation: Activation::Silu, gated: true });
        d.layers(|l| (l.block, l.attention_mut().sinks, l.attention_mut().window) = (Block::Parallel, true, Some(20)));
    }),
    ("experts side by side", side_by_side),
    ("much at once beside experts", |d| {
        uneven(d);
        side_by_side(d);
        shared_and_scaled(d);
    }),
];

/// Latents in every layer, of keys of 24 elements of which 8 are turned.
fn latents(d: &mut Described, q_rank: Option<usize>) {
    d.config.ropes = vec![RopeTable::of_base(1e4, 8, RopePairing::Adjacent).expect("has memory")];
    d.layers(|l| {
        let a = l.attention_mut();
        (a.n_kv_heads, a.head_dim, a.scale) = (1, 40, 0.2);
        a.latent = Some(Latent { q_rank, rank: 32, nope: 32, v_dim: 24 });
    });
}

/// Experts beside what all share, in every layer.
fn side_by_side(d: &mut Described) {
    experts(d, |e| (e.shared, e.side_by_side) = (shared(false), true));
}

/// A third layer, that reads the first one's keys and values.
fn of_another(d: &mut Described) {
    let mut last = d.config.layers[0];
    last.attention_mut().kv_from = Some(0);
    d.config.layers.push(last);
}

/// Most of what Gemma 4 has, of layers of two kinds.
fn shared_and_scaled(d: &mut Described) {
    by_layer(d, Activation::Silu);
    of_another(d);
    d.layers(|l| {
        let a = l.attention_mut();
        (a.qk_norm, a.v_norm, a.scale, l.out_scale) = (Some(QkNorm::Head), true, 0.2, 0.75);
    });
    d.config.layers[1].attention_mut().k_as_v = true;
    let mut windowed = d.config.layers[1];
    windowed.attention_mut().kv_from = Some(1);
    d.config.layers.push(windowed);
    (d.post_norms, d.config.logit_softcap) = (true, Some(3.0));
}

fn by_layer(d: &mut Described, activation: Activation) {
    d.config.per_layer = Some(PerLayer { width: 32, embd_scale: 3.0, activation });
}

/// What only hosts compute.
pub const ON_HOSTS: [Feature; 5] = [
    ("latents", |d| latents(d, None)),
    ("latents of queries of two matrices", |d| latents(d, Some(64))),
    ("latents of transposed matrices", |d| {
        latents(d, Some(32));
        d.transposed = true;
    }),
    ("latents with a window", |d| {
        latents(d, None);
        d.layers(|l| (l.attention_mut().window, l.attention_mut().rope) = (Some(20), None));
        d.config.ropes.clear();
    }),
    ("latents and others", |d| {
        let others = d.config.layers[1];
        latents(d, None);
        d.config.ropes.push(RopeTable::of_base(1e4, 16, RopePairing::Halves).expect("has memory"));
        d.config.layers.push(others);
        d.config.layers[2].attention_mut().rope = Some(1);
    }),
];
