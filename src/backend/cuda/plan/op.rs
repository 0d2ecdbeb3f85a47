//! What a pass computes, as logical operations: matrices and what is done with them, no buffer and no geometry.
//!
//! An operation names its taps: what it shows of itself to whoever watches, in the order in which it is made.

pub use super::kind::Kind;

use super::ffn::Ffn;
use super::per_layer::ByLayer;
use super::recurrent::Mix;
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::kernels::abi::Mat;
use crate::backend::cuda::kernels::kinds::{Activation, NormKind, Pairing};
use crate::model::Attention;

/// One operation, of a layer or (-1) outside of one.
#[derive(Clone, Debug)]
pub struct Op {
    /// The layer, or -1.
    pub layer: i32,
    /// What is done.
    pub what: What,
}

/// What an operation does; `stream` is the residual stream.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // there is one list of a few hundred
pub enum What {
    /// stream = scale * table[token]; shows "embed".
    Embed {
        /// [n_vocab, n_embd]
        table: Mat,
        /// See `Config::embedding_scale`.
        scale: f32,
    },
    /// A token's embeddings by layer, scaled, and what the products before them have made, normed: both become what layers add.
    ByLayer(ByLayer),
    /// activation(gate) * what the layer adds by the token's embeddings.
    LayerGlu {
        /// The layer.
        layer: usize,
        /// On the gate.
        activation: Activation,
    },
    /// The stream, summed and normalized apart from the products that read it.
    Norm(Norm),
    /// Products of one input.
    Project(Project),
    /// Norms of all queries of a position together, and of all its keys: weights, and how many elements.
    QkNorm([(Address, usize); 2]),
    /// Norms of a position's values, head by head.
    ValueNorm {
        /// Elements of a row in front of them.
        at: usize,
        /// Heads, and elements of one.
        heads: (usize, usize),
    },
    /// Norms of the heads, rope, the cache's new row, attention; shows "q_rope", "k_rope", "v" and "attn_mix".
    Attend(Attend),
    /// activation(gate x) * (up x), or activation(up x); shows "ffn_act".
    Gate(Gate),
    /// What a mixer with a state makes of the row that its products have left; shows what is its own.
    Mix(Mix),
    /// What two mixers have made, added; shows "attn_out".
    Beside,
    /// What attention has mixed, times the sigmoid of its gate; shows "gate".
    GateMix {
        /// Elements of a row.
        width: usize,
    },
    /// A feed-forward part that is no gate between products; shows "ffn_out" and what is its own.
    Ffn(Ffn),
    /// The stream with what was to be added to it, where nothing else follows that adds it; shows "resid".
    Finish {
        /// The layer that ends.
        layer: i32,
        /// See [`Norm::sum_scale`].
        sum_scale: f32,
    },
}

/// stream += what is to be added to it; then its norm, for products that read [`Input::Row`]. What a launch of products cannot do for
/// itself: two things to add, a scale of these, means, biases, one norm for several launches, or none.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// What the launch is counted as: what follows.
    pub kind: Kind,
    /// The formula.
    pub norm: NormKind,
    /// [n_embd] f32, or 0
    pub weight: Address,
    /// [n_embd] f32, or 0
    pub bias: Address,
    /// Shows the result as these.
    pub taps: &'static [&'static str],
    /// See [`Input::Normed`].
    pub ends: Option<i32>,
    /// What the sum is multiplied by; 0: nothing.
    pub sum_scale: f32,
}

/// What a product reads.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    /// What the [`Norm`] before has left.
    Row,
    /// rms_norm(stream + what is to be added to it) * weight.
    Normed {
        /// [n_embd] f32
        weight: Address,
        /// Shows the result as this.
        tap: &'static str,
        /// The layer that has ended once the stream is summed, shown as "resid".
        ends: Option<i32>,
    },
    /// What attention has mixed.
    Mix,
    /// What the gate has left.
    Gated,
}

/// Where a product goes.
#[derive(Clone, Copy, Debug)]
pub enum Output {
    /// Queries, keys, values, or what a mixer with a state begins with, one behind the other.
    Qkv,
    /// What attention makes beside another mixer.
    Aside,
    /// What all layers add by a token's embeddings.
    ByLayer,
    /// What a layer's gate on them makes.
    LayerGate,
    /// What a mixer with a state makes betas and decays of.
    Gates,
    /// The gate of attention.
    MixGate,
    /// To be added to the stream, through a norm where there is one (else 0), by whatever reads the stream next.
    Stream {
        /// Which half of a layer it is.
        half: Half,
        /// [n_embd] f32 or 0
        post_norm: Address,
    },
    /// What the expert that all share makes: to where [`Experts`](super::experts::Experts) add the others.
    Shared,
    /// The sequence's logits, scaled, `cap * tanh(x / cap)` where the cap is not 0; shows "logits".
    Logits {
        /// See `Config::logit_softcap`.
        softcap: f32,
        /// See `Config::logit_scale`.
        scale: f32,
    },
}

/// The halves of a layer, each of which adds to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Shows "attn_out".
    Mixer,
    /// Shows "ffn_out".
    Ffn,
    /// What embeddings by layer add behind both; shows nothing.
    ByLayer,
    /// One of two mixers, to which the other's is added; shows nothing.
    Beside,
}

impl Half {
    /// What it shows of what it adds.
    pub fn tap(self) -> Option<&'static str> {
        match self {
            Half::Mixer => Some("attn_out"),
            Half::Ffn => Some("ffn_out"),
            Half::ByLayer | Half::Beside => None,
        }
    }
}

/// One to three products of the same input.
#[derive(Clone, Debug)]
pub struct Project {
    /// What the launch is counted as.
    pub kind: Kind,
    /// See [`Input`].
    pub input: Input,
    /// [rows, cols] each
    pub mats: Vec<Mat>,
    /// [rows] f32 each, or 0
    pub bias: [Address; 3],
    /// See [`Output`].
    pub output: Output,
}

/// The attention of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Attend {
    /// Heads, window, scale.
    pub attention: Attention,
    /// [head_dim] f32 or 0
    pub q_norm: Address,
    /// [head_dim] f32 or 0
    pub k_norm: Address,
    /// Whether these stand behind the rope.
    pub norm_last: bool,
    /// [n_heads] f32 or 0: a score of each head with no value behind it.
    pub sinks: Address,
    /// [n_rot / 2] f64 each: turns of a pair per position, in sessions that are not long and in those that are.
    pub turns: [Address; 2],
    /// Elements of a head that are turned; 0: none.
    pub n_rot: usize,
    /// What sines and cosines are multiplied by, likewise.
    pub magnitude: [f32; 2],
    /// Which elements make a pair.
    pub pairing: Pairing,
    /// The class of layers whose part of a page has its keys and values.
    pub cache_class: u32,
    /// Where its keys begin in that part, in elements; its values follow.
    pub layer_at: u64,
}

/// What stands between the products of a feed-forward part, with those before it.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// See [`Input`].
    pub input: Input,
    /// [F, n_embd], where there is one
    pub gate: Option<Mat>,
    /// [F, n_embd]
    pub up: Mat,
    /// [F] f32 each, or 0
    pub bias: [Address; 2],
    /// What the gate's outputs go through, or up's.
    pub activation: Activation,
    /// Whether it is of a whole feed-forward part, which is shown.
    pub shown: bool,
}

impl Gate {
    /// The matrices, and their biases.
    pub fn mats(&self) -> (Vec<Mat>, [Address; 3]) {
        match self.gate {
            Some(gate) => (vec![gate, self.up], [self.bias[0], self.bias[1], 0]),
            None => (vec![self.up], [self.bias[1], 0, 0]),
        }
    }
}
