//! A file's tensors by role, each checked against the description.

use super::archs::{self, Extras, Need};
use super::config::Config;
use super::weights::{LayerWeights, Tensor, Weights};
use crate::alloc::reserve;
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorInfo, TensorType};

/// Reads the description of the model and finds its tensors.
///
/// Fails with `Unsupported` for an architecture, key or tensor that this library does not compute, with `Model` or
/// `Gguf` for a key or tensor that is missing or disagrees with the others.
pub fn bind<'a>(gguf: &'a Gguf<'_>) -> Result<(Config, Weights<'a>)> {
    // The architecture first: what else is wrong with a file of another one does not matter. A missing embedding is
    // refused by name below, when the tensors are looked up.
    let embedding = gguf.tensor("token_embd.weight");
    let n_vocab = embedding.map_or(1, |t| t.rows());
    let (mut config, extras) = archs::describe(gguf, n_vocab)?;
    if let Some(tokens) = gguf.opt_strings("tokenizer.ggml.tokens")?
        && embedding.is_some()
        && tokens.len() != n_vocab
    {
        return Err(Error::Model {
            name: "tensor \"token_embd.weight\" rows".into(),
            found: n_vocab.to_string(),
            expected: format!("{}, the length of tokenizer.ggml.tokens", tokens.len()),
        });
    }
    let mut binder = Binder { gguf, n_used: 0 };
    let weights = binder.weights(&config, extras)?;
    binder.refuse_the_rest(&weights)?;
    let divisors = weights.divisors()?;
    config.ropes.iter_mut().for_each(|rope| rope.divisors = divisors.clone());
    Ok((config, weights))
}

struct Binder<'a> {
    gguf: &'a Gguf<'a>,
    n_used: usize,
}

impl<'a> Binder<'a> {
    fn weights(&mut self, config: &Config, extras: Extras) -> Result<Weights<'a>> {
        let (n_embd, n_vocab) = (config.n_embd, config.n_vocab);
        let token_embd = self.matrix("token_embd.weight", n_vocab, n_embd)?;
        let mut layers = Vec::new();
        reserve(&mut layers, config.n_layers())?;
        for i in 0..config.n_layers() {
            layers.push(self.layer(config, extras, i)?);
        }
        let output_norm = self.vector("output_norm.weight", n_embd)?;
        let output = match self.gguf.tensor("output.weight") {
            Some(_) => Some(self.matrix("output.weight", n_vocab, n_embd)?),
            None => None,
        };
        let rope_freqs = self.optional(extras.rope_freqs, "rope_freqs.weight", config.widths().pairs)?;
        Ok(Weights { token_embd, layers, output_norm, output, rope_freqs })
    }

    fn layer(&mut self, config: &Config, extras: Extras, i: usize) -> Result<LayerWeights<'a>> {
        let (attention, ff) = (config.layers[i].attention(), config.layers[i].dense().width);
        let (d, head, h, g) = (config.n_embd, attention.head_dim, attention.q_width(), attention.kv_width());
        let name = |role: &str| format!("blk.{i}.{role}");
        // A model that has an optional bias has it in all layers: the first one tells.
        let decide = |need: Need, role: &str| match need {
            Need::Maybe if self.gguf.tensor(&format!("blk.0.{role}")).is_some() => Need::Yes,
            Need::Maybe => Need::No,
            need => need,
        };
        let qkv_bias = decide(extras.qkv_bias, "attn_q.bias");
        let o_bias = decide(extras.o_bias, "attn_output.bias");
        Ok(LayerWeights {
            attn_norm: self.vector(&name("attn_norm.weight"), d)?,
            q: self.matrix(&name("attn_q.weight"), h, d)?,
            k: self.matrix(&name("attn_k.weight"), g, d)?,
            v: self.matrix(&name("attn_v.weight"), g, d)?,
            q_bias: self.optional(qkv_bias, &name("attn_q.bias"), h)?,
            k_bias: self.optional(qkv_bias, &name("attn_k.bias"), g)?,
            v_bias: self.optional(qkv_bias, &name("attn_v.bias"), g)?,
            q_norm: self.optional(extras.qk_norm, &name("attn_q_norm.weight"), head)?,
            k_norm: self.optional(extras.qk_norm, &name("attn_k_norm.weight"), head)?,
            o: self.matrix(&name("attn_output.weight"), d, h)?,
            o_bias: self.optional(o_bias, &name("attn_output.bias"), d)?,
            post_attn_norm: self.optional(extras.post_norms, &name("post_attention_norm.weight"), d)?,
            ffn_norm: self.vector(&name("ffn_norm.weight"), d)?,
            gate: self.matrix(&name("ffn_gate.weight"), ff, d)?,
            up: self.matrix(&name("ffn_up.weight"), ff, d)?,
            down: self.matrix(&name("ffn_down.weight"), d, ff)?,
            post_ffn_norm: self.optional(extras.post_norms, &name("post_ffw_norm.weight"), d)?,
        })
    }

    fn find(&mut self, name: &str, rows: usize, cols: usize) -> Result<Tensor<'a>> {
        let Some(info) = self.gguf.tensor(name) else {
            return Err(wrong(name, "", "missing", shape(&[cols as u64, rows as u64])));
        };
        let TensorInfo { name, ty, dims, data, .. } = info;
        let outer = dims.get(1).copied().unwrap_or(1);
        if dims[0] != cols as u64 || outer != rows as u64 || dims.iter().skip(2).any(|&d| d != 1) {
            return Err(wrong(name, " shape", shape(dims), shape(&[cols as u64, rows as u64])));
        }
        self.n_used += 1;
        Ok(Tensor { name, ty, rows, cols, scale: 1.0, data })
    }

    /// `[rows, cols]` of any type.
    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Tensor<'a>> {
        let mut tensor = self.find(name, rows, cols)?;
        if tensor.ty == TensorType::Nvfp4 {
            tensor.scale = self.scale(name)?;
        }
        Ok(tensor)
    }

    /// What a matrix of NVFP4 has beside it: the scale of all its values, 1 where there is none, and that of activations of four bits,
    /// which no backend makes of them.
    fn scale(&mut self, name: &str) -> Result<f32> {
        let [scale, input] = [".scale", ".input_scale"].map(|role| beside(name, role));
        if self.gguf.tensor(&input).is_some() {
            self.vector(&input, 1)?;
        }
        if self.gguf.tensor(&scale).is_none() {
            return Ok(1.0);
        }
        let value = self.vector(&scale, 1)?.floats()?.first().copied().unwrap_or(f32::NAN);
        if value.is_finite() { Ok(value) } else { Err(wrong(&scale, "", value.to_string(), "a finite number")) }
    }

    /// `[n]` of F32.
    fn vector(&mut self, name: &str, n: usize) -> Result<Tensor<'a>> {
        let tensor = self.find(name, 1, n)?;
        if tensor.ty != TensorType::F32 {
            return Err(wrong(name, " type", tensor.ty.name(), TensorType::F32.name()));
        }
        Ok(tensor)
    }

    /// A vector that not every architecture has.
    fn optional(&mut self, need: Need, name: &str, n: usize) -> Result<Option<Tensor<'a>>> {
        match need {
            Need::No => Ok(None),
            Need::Maybe if self.gguf.tensor(name).is_none() => Ok(None),
            Need::Maybe | Need::Yes => self.vector(name, n).map(Some),
        }
    }

    /// Refuses a tensor that has no role: leaving it out would compute something else than the file means.
    fn refuse_the_rest(&self, weights: &Weights<'_>) -> Result<()> {
        if self.n_used == self.gguf.n_tensors() {
            return Ok(());
        }
        let mut names: Vec<&str> = weights.iter().map(|t| t.name).collect();
        names.sort_unstable();
        let used = |name: &str| names.binary_search(&name).is_ok();
        let scales = weights.iter().filter(|t| t.ty == TensorType::Nvfp4).map(|t| t.name);
        let mut scales: Vec<String> =
            scales.flat_map(|name| [".scale", ".input_scale"].map(|s| beside(name, s))).collect();
        scales.sort_unstable();
        let scales = |name: &str| scales.binary_search_by(|scale| scale.as_str().cmp(name)).is_ok();
        match self.gguf.tensors().find(|t| !used(t.name) && !scales(t.name)) {
            Some(extra) => Err(Error::UnsupportedValue {
                name: format!("tensor \"{}\"", extra.name),
                found: "there".into(),
                expected: "only tensors that this architecture has a role for".into(),
            }),
            None => Ok(()),
        }
    }
}

/// The name of what belongs to a matrix: "blk.0.attn_q.weight" has "blk.0.attn_q.scale".
fn beside(name: &str, role: &str) -> String {
    format!("{}{role}", name.strip_suffix(".weight").unwrap_or(name))
}

fn wrong(tensor: &str, part: &str, found: impl Into<String>, expected: impl Into<String>) -> Error {
    Error::Model { name: format!("tensor \"{tensor}\"{part}"), found: found.into(), expected: expected.into() }
}

/// "[576, 1536]", the contiguous dimension first as in the file; trailing ones are left out.
fn shape(dims: &[u64]) -> String {
    let n = dims.iter().rposition(|&d| d != 1).map_or(1, |i| i + 1);
    format!("{:?}", &dims[..n])
}
