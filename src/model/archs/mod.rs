//! The architectures, one file each: from GGUF keys to a [`Config`] and the list of tensors that go with it.
//!
//! Invariant: a key that would change the computation is either in the `Config` or refused.

use super::config::{Attention, Block, Config, Ffn, Layer, LongContext, Mixer, Norm, QkNorm, Temperature};
use super::dense::{Activation, Dense};
use super::experts::{Experts, Groups, Route, Score, Shared};
use super::latent::Latent;
use super::per_layer::PerLayer;
use super::recurrent::{DeltaNet, KeyHeads, Mamba2, Recurrent, ShortConv};
use super::rope::{RopePairing, RopeTable, Yarn};
use crate::error::{Error, Result};
use crate::gguf::{Gguf, shorten};

mod arcee;
mod cohere2;
mod deepseek2;
mod ernie4_5;
mod ernie4_5_moe;
mod exaone4;
mod experts;
mod falcon_h1;
mod gemma;
mod gemma2;
mod gemma3;
mod gemma4;
mod glm4;
mod glm4moe;
mod gpt_oss;
mod gptneox;
mod granite;
mod granitehybrid;
mod granitemoe;
mod hunyuan_dense;
mod internlm2;
mod keys;
mod lfm2;
mod lfm2moe;
mod llama;
mod mistral3;
mod nemotron_h;
mod nemotron_h_moe;
mod olmo2;
mod olmoe;
mod phi2;
mod phi3;
mod qwen2;
mod qwen2moe;
mod qwen2vl;
mod qwen3;
mod qwen35;
mod qwen35moe;
mod qwen3moe;
mod qwen3next;
mod qwen3vl;
mod qwen3vlmoe;
mod recurrent;
mod ropes;
mod seed_oss;
mod smollm3;
mod stablelm;
mod starcoder2;
mod windows;

use keys::{Keys, unsupported, wrong};

/// An architecture that can be described.
#[derive(Debug)]
pub struct Architecture {
    /// Its `general.architecture`.
    pub name: &'static str,
    /// Models that have it.
    pub models: &'static str,
    norm: Norm,
    /// Keys that it reads, of those that others refuse.
    reads: &'static [&'static str],
    fill: fn(&Keys<'_>, &mut Config, &mut Extras) -> Result<()>,
}

/// All of them, by name.
pub static ARCHITECTURES: [Architecture; 44] = [
    arcee::ARCHITECTURE,
    cohere2::ARCHITECTURE,
    deepseek2::ARCHITECTURE,
    ernie4_5::ARCHITECTURE,
    ernie4_5_moe::ARCHITECTURE,
    exaone4::ARCHITECTURE,
    falcon_h1::ARCHITECTURE,
    gemma::ARCHITECTURE,
    gemma2::ARCHITECTURE,
    gemma3::ARCHITECTURE,
    gemma4::ARCHITECTURE,
    glm4::ARCHITECTURE,
    glm4moe::ARCHITECTURE,
    gpt_oss::ARCHITECTURE,
    gptneox::ARCHITECTURE,
    granite::ARCHITECTURE,
    granitehybrid::ARCHITECTURE,
    granitemoe::ARCHITECTURE,
    hunyuan_dense::ARCHITECTURE,
    internlm2::ARCHITECTURE,
    lfm2::ARCHITECTURE,
    lfm2moe::ARCHITECTURE,
    llama::ARCHITECTURE,
    mistral3::ARCHITECTURE,
    nemotron_h::ARCHITECTURE,
    nemotron_h_moe::ARCHITECTURE,
    olmo2::ARCHITECTURE,
    olmoe::ARCHITECTURE,
    phi2::ARCHITECTURE,
    phi3::ARCHITECTURE,
    qwen2::ARCHITECTURE,
    qwen2moe::ARCHITECTURE,
    qwen2vl::ARCHITECTURE,
    qwen3::ARCHITECTURE,
    qwen35::ARCHITECTURE,
    qwen35moe::ARCHITECTURE,
    qwen3moe::ARCHITECTURE,
    qwen3next::ARCHITECTURE,
    qwen3vl::ARCHITECTURE,
    qwen3vlmoe::ARCHITECTURE,
    seed_oss::ARCHITECTURE,
    smollm3::ARCHITECTURE,
    stablelm::ARCHITECTURE,
    starcoder2::ARCHITECTURE,
];

/// Known architectures that cannot be described, and what is missing for that.
const MISSING: [(&str, &str); 7] = [
    ("apertus", "the activation xIELU with numbers of each layer"),
    ("bitnet", "norms inside the attention and the feed-forward part"),
    ("falcon", "a description only: backends have all that it computes"),
    ("gemma3n", "AltUp, Laurel, embeddings by layer and sparse activations"),
    ("llama4", "windows in chunks, weights before experts and a norm of queries without weights"),
    ("minimax-m2", "a description only: backends have all that it computes"),
    ("phimoe", "experts between norms with biases"),
];

/// Whether an architecture has a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It has none; a file with one is refused.
    No,
    /// All layers or none.
    Maybe,
    /// A file without it is refused.
    Yes,
}

/// The tensors beyond those that every architecture has. Norms of queries and keys, and a gate, follow from the [`Config`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Extras {
    /// Norms of what the mixer and the feed-forward part read.
    pub attn_norm: Need,
    pub ffn_norm: Need,
    /// What the file calls the norm of what the feed-forward part reads.
    pub ffn_norm_name: &'static str,
    /// What it calls the output's norm.
    pub output_norm_name: &'static str,
    /// Biases of both, and of the output's norm.
    pub norm_bias: Need,
    pub qkv_bias: Need,
    pub o_bias: Need,
    /// Biases of up and down, and of the gate where there is one.
    pub ffn_bias: Need,
    /// Biases of a router and of each expert.
    pub experts_bias: Need,
    pub post_norms: Need,
    pub rope_freqs: Need,
    /// Whether the divisors are those of the first rope alone.
    pub rope_freqs_of_first: bool,
    /// Whether the divisors of the frequencies are two: of sessions within the original context, and of longer ones.
    pub long_rope: bool,
    pub output_bias: Need,
    /// A number that each layer is multiplied by.
    pub out_scale: Need,
    /// Layers behind the last, whose tensors are left out.
    pub n_left_out: usize,
    /// Whether tensors of parts that see or hear are left out: the text's are all that is computed.
    pub text_only: bool,
    /// Whether `ffn_up` holds the gate's rows and then those of up.
    pub fused_gate_up: bool,
}

impl Extras {
    /// No tensor that not every architecture has.
    const NONE: Extras = Extras {
        attn_norm: Need::Yes,
        ffn_norm: Need::Yes,
        ffn_norm_name: "ffn_norm.weight",
        output_norm_name: "output_norm.weight",
        norm_bias: Need::No,
        qkv_bias: Need::No,
        o_bias: Need::No,
        ffn_bias: Need::No,
        experts_bias: Need::No,
        post_norms: Need::No,
        rope_freqs: Need::No,
        rope_freqs_of_first: false,
        out_scale: Need::No,
        long_rope: false,
        output_bias: Need::No,
        n_left_out: 0,
        text_only: false,
        fused_gate_up: false,
    };

    /// Biases on every matrix but that of the logits, and on every norm.
    fn all_biases(&mut self) {
        (self.norm_bias, self.qkv_bias, self.o_bias, self.ffn_bias) = (Need::Yes, Need::Yes, Need::Yes, Need::Yes);
    }
}

/// The description of a file's model, by its `general.architecture`. `n_vocab` is the embedding's number of rows.
pub(super) fn describe(gguf: &Gguf<'_>, n_vocab: usize) -> Result<(Config, Extras)> {
    let name = gguf.text("general.architecture")?;
    let architecture = ARCHITECTURES.iter().find(|a| a.name == name).ok_or_else(|| not_here(name))?;
    let keys = Keys { gguf, name, reads: architecture.reads };
    keys.refuse_other_computations()?;
    let (mut config, mut extras) = (keys.common(architecture.norm, n_vocab)?, Extras::NONE);
    (architecture.fill)(&keys, &mut config, &mut extras)?;
    config.validate()?;
    Ok((config, extras))
}

/// The refusal of an architecture, with what it would need where that is known.
fn not_here(name: &str) -> Error {
    let known = MISSING.iter().find(|(missing, _)| *missing == name);
    let found = match known {
        Some((name, needs)) => format!("\"{name}\", which needs {needs}"),
        None => format!("{:?}", shorten(name)),
    };
    let names: Vec<&str> = ARCHITECTURES.iter().map(|a| a.name).collect();
    unsupported("general.architecture", found, format!("one of {}", names.join(", ")))
}
