//! What a pass computes, as logical operations: matrices and what is done with them, no buffer and no geometry.
//!
//! An operation names its taps: what it shows of itself to whoever watches, in the order in which it is made.

use crate::backend::cuda::driver::Address;
use crate::backend::cuda::kernels::abi::Mat;
use crate::model::{Activation, Attention, RopePairing};

/// What is seen of a launch; measurements go by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Embed,
    Qkv,
    Attend,
    Output,
    GateUp,
    Up,
    Glu,
    Down,
    Logits,
}

impl Kind {
    /// How many there are.
    pub const N: usize = Kind::Logits as usize + 1;
}

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
pub enum What {
    /// stream = scale * table[token]; shows "embed".
    Embed {
        /// [n_vocab, n_embd]
        table: Mat,
        /// See `Config::embedding_scale`.
        scale: f32,
    },
    /// Products of one input.
    Project(Project),
    /// Norms of the heads, rope, the cache's new row, attention; shows "q_rope", "k_rope", "v" and "attn_mix".
    Attend(Attend),
    /// activation(gate x) * (up x); shows "ffn_act".
    Gate(Gate),
    /// The stream with what was to be added to it, where nothing else follows that adds it; shows "resid".
    Finish {
        /// Weights of the norm that would follow, whose result goes nowhere.
        norm: Address,
        /// The layer that ends.
        layer: i32,
    },
}

/// What a product reads.
#[derive(Clone, Copy, Debug)]
pub enum Input {
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
    /// Queries, keys, values, one behind the other.
    Qkv,
    /// To be added to the stream, through a norm where there is one (else 0), by whatever reads the stream next.
    Stream {
        /// Which half of a layer it is.
        half: Half,
        /// [n_embd] f32 or 0
        post_norm: Address,
    },
    /// The sequence's logits, `cap * tanh(x / cap)` where the cap is not 0; shows "logits".
    Logits {
        /// See `Config::logit_softcap`.
        softcap: f32,
    },
}

/// The halves of a layer, each of which adds to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Shows "attn_out".
    Mixer,
    /// Shows "ffn_out".
    Ffn,
}

impl Half {
    /// What it shows of what it adds.
    pub fn tap(self) -> &'static str {
        match self {
            Half::Mixer => "attn_out",
            Half::Ffn => "ffn_out",
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
    /// [n_rot / 2] f64: turns of a pair per position.
    pub turns: Address,
    /// Elements of a head that are turned.
    pub n_rot: usize,
    /// What sines and cosines are multiplied by.
    pub magnitude: f32,
    /// Which elements make a pair.
    pub pairing: RopePairing,
    /// Which of the cache's layers.
    pub cache_layer: usize,
}

/// A gated unit.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// See [`Input`].
    pub input: Input,
    /// [F, n_embd]
    pub gate: Mat,
    /// [F, n_embd]
    pub up: Mat,
    /// What the gate's outputs go through.
    pub activation: Activation,
}
