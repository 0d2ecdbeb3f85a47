//! A file's tensors by role, each checked against the description.

use super::archs::{self, Extras, Need};
use super::config::{Config, Layer, QkNorm};
use super::per_layer::PerLayer;
use super::weights::{LayerWeights, PerLayerGate, PerLayerWeights, Tensor, Weights};
use crate::alloc::reserve;
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorInfo};

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
    let mut binder = Binder { gguf, used: Vec::new() };
    reserve(&mut binder.used, gguf.n_tensors())?;
    let mut weights = binder.weights(&config, extras)?;
    weights.n_other_parts = binder.refuse_the_rest(weights.layers.len(), extras)?;
    let divisors = weights.divisors()?;
    let divided = if extras.rope_freqs_of_first { 1 } else { config.ropes.len() };
    config.ropes.iter_mut().take(divided).for_each(|rope| rope.divisors = divisors.clone());
    // Read also where no session is long: they are checked then.
    let divisors = weights.long_divisors()?;
    config.long.iter_mut().flat_map(|long| &mut long.ropes).for_each(|rope| rope.divisors = divisors.clone());
    for (layer, w) in config.layers.iter_mut().zip(&weights.layers) {
        let scale = w.out_scale.as_ref().map(Tensor::finite_floats).transpose()?;
        layer.out_scale = scale.and_then(|scale| scale.first().copied()).unwrap_or(1.0);
    }
    Ok((config, weights))
}

/// Matrices one behind the other, and what each of them is to be multiplied with.
pub(super) type Scaled<'a> = (Tensor<'a>, Option<Tensor<'a>>);

pub(super) struct Binder<'a> {
    pub(super) gguf: &'a Gguf<'a>,
    /// The names of the tensors that have a role.
    used: Vec<&'a str>,
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
        let output_norm = self.vector(extras.output_norm_name, n_embd)?;
        let output_norm_bias = self.optional(extras.norm_bias, "output_norm.bias", n_embd)?;
        let output = match self.gguf.tensor("output.weight") {
            Some(_) => Some(self.matrix("output.weight", n_vocab, n_embd)?),
            None => None,
        };
        let output_bias = self.optional(extras.output_bias, "output.bias", n_vocab)?;
        let first = if extras.rope_freqs_of_first { config.ropes.first() } else { None };
        let n_pairs = first.map_or(config.widths().pairs, |rope| rope.inv_freq.len());
        let per_layer = match &config.per_layer {
            None => None,
            Some(PerLayer { width, .. }) => Some(PerLayerWeights {
                embd: self.matrix("per_layer_token_embd.weight", n_vocab, width * config.n_layers())?,
                proj: self.matrix("per_layer_model_proj.weight", width * config.n_layers(), n_embd)?,
                norm: self.vector("per_layer_proj_norm.weight", *width)?,
            }),
        };
        let (rope_freqs, long_rope_freqs) = match extras.long_rope {
            true => {
                let [short, long] = ["rope_factors_short.weight", "rope_factors_long.weight"];
                (Some(self.vector(short, n_pairs)?), Some(self.vector(long, n_pairs)?))
            }
            false => (self.optional(extras.rope_freqs, "rope_freqs.weight", n_pairs)?, None),
        };
        Ok(Weights {
            token_embd,
            per_layer,
            layers,
            output_norm,
            output_norm_bias,
            output,
            output_bias,
            rope_freqs,
            long_rope_freqs,
            n_other_parts: 0,
        })
    }

    fn layer(&mut self, config: &Config, extras: Extras, i: usize) -> Result<LayerWeights<'a>> {
        let (layer, attention) = (&config.layers[i], config.layers[i].attention());
        let (d, h, g) = (config.n_embd, attention.q_width(), attention.kv_width());
        let name = |role: &str| format!("blk.{i}.{role}");
        let decide = |need: Need, role: &str| self.decide(need, role, config, |layer| layer.attention().is_there());
        let qkv_bias = [extras.qkv_bias; 2].into_iter().zip(["attn_q.bias", "attn_qkv.bias"]);
        let qkv_bias = qkv_bias.map(|(need, role)| decide(need, role)).find(|need| *need != Need::No);
        let o_bias = decide(extras.o_bias, "attn_output.bias");
        let if_attended = |need: Need| if attention.is_there() { need } else { Need::No };
        let (q_norm, k_norm) = match attention.qk_norm {
            None => (0, 0),
            Some(QkNorm::Head | QkNorm::HeadAfterRope) => (attention.head_dim, attention.head_dim),
            Some(QkNorm::Row) => (h, g),
        };
        let qk_norm = if attention.qk_norm.is_some() { Need::Yes } else { Need::No };
        let (q, k, v, latent) = match &attention.latent {
            _ if !attention.is_there() => (self.nothing(d)?, None, None, None),
            Some(latent) => {
                let (q, latent) = self.latent(i, attention, latent, d)?;
                (q, None, None, Some(latent))
            }
            None => {
                let (q, k, v) = self.qkv(i, attention, d)?;
                (q, k, v, None)
            }
        };
        let (q, q_gate) = self.gate_of(attention, q)?;
        let [q_bias, k_bias, v_bias] = self.qkv_bias(i, [h, g, g], if_attended(qkv_bias.unwrap_or(Need::No)))?;
        let sinks = if attention.sinks { Need::Yes } else { Need::No };
        let [attn_norm, ffn_norm] = norms(extras, layer);
        let norm_bias = |norm: (Need, &str)| if norm.0 == Need::No { Need::No } else { extras.norm_bias };
        Ok(LayerWeights {
            attn_norm: self.optional(attn_norm.0, &name(attn_norm.1), d)?,
            attn_norm_bias: self.optional(norm_bias(attn_norm), &name(&beside(attn_norm.1, ".bias")), d)?,
            q,
            k,
            v,
            latent,
            q_bias,
            k_bias,
            v_bias,
            q_norm: self.optional(qk_norm, &name("attn_q_norm.weight"), q_norm)?,
            k_norm: match attention.kv_from {
                Some(_) => None,
                None => self.optional(qk_norm, &name("attn_k_norm.weight"), k_norm)?,
            },
            sinks: self.optional(sinks, &name("attn_sinks.weight"), attention.n_heads)?,
            o: self.output(attention, i, d)?,
            o_bias: self.optional(if_attended(o_bias), &name("attn_output.bias"), d)?,
            q_gate,
            recurrent: layer.recurrent.as_ref().map(|mixer| self.recurrent(mixer, i, d)).transpose()?,
            post_attn_norm: self.optional(extras.post_norms, &name("post_attention_norm.weight"), d)?,
            ffn_norm: self.optional(ffn_norm.0, &name(ffn_norm.1), d)?,
            ffn_norm_bias: self.optional(norm_bias(ffn_norm), &name(&beside(ffn_norm.1, ".bias")), d)?,
            ffn: self.ffn(config, extras, i)?,
            post_ffn_norm: self.optional(extras.post_norms, &name("post_ffw_norm.weight"), d)?,
            out_scale: self.optional(extras.out_scale, &name("layer_output_scale.weight"), 1)?,
            per_layer: match &config.per_layer {
                None => None,
                Some(PerLayer { width, .. }) => Some(PerLayerGate {
                    gate: self.matrix(&name("inp_gate.weight"), *width, d)?,
                    proj: self.matrix(&name("proj.weight"), d, *width)?,
                    post_norm: self.vector(&name("post_norm.weight"), d)?,
                }),
            },
        })
    }

    /// Their biases.
    fn qkv_bias(&mut self, layer: usize, n: [usize; 3], need: Need) -> Result<[Option<Tensor<'a>>; 3]> {
        let fused = format!("blk.{layer}.attn_qkv.bias");
        if need != Need::No && self.gguf.tensor(&fused).is_some() {
            let bias = self.vector(&fused, n.iter().sum())?;
            // Its elements as rows of one.
            return Ok(split(Tensor { rows: bias.cols, cols: 1, ..bias }, n)?
                .map(|part| Some(Tensor { rows: 1, cols: part.rows, ..part })));
        }
        let [q, k, v] = ["q", "k", "v"].map(|part| format!("blk.{layer}.attn_{part}.bias"));
        Ok([self.optional(need, &q, n[0])?, self.optional(need, &k, n[1])?, self.optional(need, &v, n[2])?])
    }

    /// A model that has an optional bias has it in all layers with such a part: the first one tells.
    pub(super) fn decide(&self, need: Need, role: &str, config: &Config, has: impl Fn(&Layer) -> bool) -> Need {
        let first = config.layers.iter().position(has).unwrap_or(0);
        match need {
            Need::Maybe if self.gguf.tensor(&format!("blk.{first}.{role}")).is_some() => Need::Yes,
            Need::Maybe => Need::No,
            need => need,
        }
    }

    /// `n` matrices of `rows`, one behind the other: the rows of all.
    pub(super) fn stack(&mut self, name: &str, n: usize, rows: usize, cols: usize) -> Result<Tensor<'a>> {
        self.find(name, [cols, rows, n])
    }

    /// [`Self::stack`], and the scales of its matrices.
    pub(super) fn scaled_stack(&mut self, name: &str, n: usize, rows: usize, cols: usize) -> Result<Scaled<'a>> {
        Ok((self.stack(name, n, rows, cols)?, self.scales(name, n)?))
    }

    /// The scales of `n` matrices in a tensor, where there are some.
    fn scales(&mut self, name: &str, n: usize) -> Result<Option<Tensor<'a>>> {
        let [scale, input] = [".scale", ".input_scale"].map(|role| beside(name, role));
        // That of activations of four bits, which no backend makes of them.
        self.optional(Need::Maybe, &input, n)?;
        let scale = self.optional(Need::Maybe, &scale, n)?;
        scale.as_ref().map(Tensor::finite_floats).transpose()?;
        Ok(scale)
    }

    /// A tensor of these dimensions, the contiguous one first; its rows are those of all outer dimensions.
    fn find(&mut self, name: &str, expected: [usize; 3]) -> Result<Tensor<'a>> {
        let expected = expected.map(|d| d as u64);
        let Some(info) = self.gguf.tensor(name) else {
            return Err(wrong(name, "", "missing", shape(&expected)));
        };
        let TensorInfo { name, ty, dims, data, .. } = info;
        let dim = |i: usize| dims.get(i).copied().unwrap_or(1);
        if (0..3).any(|i| dim(i) != expected[i]) || dims.iter().skip(3).any(|&d| d != 1) {
            return Err(wrong(name, " shape", shape(dims), shape(&expected)));
        }
        self.used.push(name);
        let [cols, rows, n] = expected.map(|d| d as usize);
        Ok(Tensor { name, ty, rows: rows * n, cols, scale: 1.0, data })
    }

    /// `[rows, cols]` of any type.
    pub(super) fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Tensor<'a>> {
        let tensor = self.find(name, [cols, rows, 1])?;
        let scale = self.scales(name, 1)?.map(|scale| scale.finite_floats()).transpose()?;
        Ok(Tensor { scale: scale.and_then(|scale| scale.first().copied()).unwrap_or(1.0), ..tensor })
    }

    /// A matrix of any number of rows, which the file has.
    pub(super) fn matrix_of(&mut self, name: &str, cols: usize) -> Result<Tensor<'a>> {
        let rows = self.gguf.tensor(name).map_or(0, |tensor| tensor.rows());
        self.matrix(name, rows, cols)
    }

    /// `[n]` of a type whose elements are stored one by one.
    pub(super) fn vector(&mut self, name: &str, n: usize) -> Result<Tensor<'a>> {
        let tensor = self.find(name, [n, 1, 1])?;
        tensor.check_floats()?;
        Ok(tensor)
    }

    /// A vector that not every architecture has.
    pub(super) fn optional(&mut self, need: Need, name: &str, n: usize) -> Result<Option<Tensor<'a>>> {
        match need {
            Need::No => Ok(None),
            Need::Maybe if self.gguf.tensor(name).is_none() => Ok(None),
            Need::Maybe | Need::Yes => self.vector(name, n).map(Some),
        }
    }

    /// Says that a tensor has no role here, whether or not it is there.
    pub(super) fn leave_out(&mut self, name: &str) {
        self.used.extend(self.gguf.tensor(name).map(|t| t.name));
    }

    /// Refuses a tensor that has no role: leaving it out would compute something else than the file means.
    /// The tensors of `n_left_out` layers behind the last are the exception, and where text is all that is computed those of
    /// parts that see or hear, whose number comes back.
    fn refuse_the_rest(&mut self, n_layers: usize, extras: Extras) -> Result<usize> {
        self.used.sort_unstable();
        let used = |name: &str| self.used.binary_search(&name).is_ok();
        let is_left_out = |name: &str| {
            let layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')?.0.parse::<usize>().ok());
            layer.is_some_and(|layer| (n_layers..n_layers + extras.n_left_out).contains(&layer))
        };
        // Of pictures, of sound, and between these and the text.
        let is_other = |name: &str| extras.text_only && ["v.", "a.", "mm."].iter().any(|part| name.starts_with(part));
        let rest = self.gguf.tensors().filter(|t| !used(t.name) && !is_left_out(t.name));
        let mut n_other = 0;
        for extra in rest {
            if !is_other(extra.name) {
                return Err(Error::UnsupportedValue {
                    name: format!("tensor \"{}\"", extra.name),
                    found: "there".into(),
                    expected: "only tensors that this architecture has a role for".into(),
                });
            }
            n_other += 1;
        }
        Ok(n_other)
    }
}

/// The norms of what a layer's mixer and its feed-forward part read, as far as it has them; the file calls the only one of a layer
/// that is a feed-forward part as it does the first of others.
fn norms(extras: Extras, layer: &Layer) -> [(Need, &'static str); 2] {
    let first = "attn_norm.weight";
    match (layer.has_mixer(), layer.has_ffn()) {
        (true, true) => [(extras.attn_norm, first), (extras.ffn_norm, extras.ffn_norm_name)],
        (true, false) => [(extras.attn_norm, first), (Need::No, extras.ffn_norm_name)],
        (false, _) => [(Need::No, first), (extras.attn_norm, first)],
    }
}

/// A tensor's rows, in parts of so many, which are all of them.
pub(super) fn split<const N: usize>(tensor: Tensor<'_>, rows: [usize; N]) -> Result<[Tensor<'_>; N]> {
    let (row, mut from, mut parts) = (tensor.ty.row_bytes(tensor.cols), 0, [tensor; N]);
    for (part, rows) in parts.iter_mut().zip(rows) {
        (part.rows, part.data) = (rows, tensor.data.part(from..from + rows * row)?);
        from += rows * row;
    }
    Ok(parts)
}

/// The rows of the first and of the second half of each of `n` matrices that lie one behind the other.
pub(super) fn split_each(tensor: Tensor<'_>, n: usize) -> Result<[Tensor<'_>; 2]> {
    let all = tensor.data.len() / n;
    let half = |bytes| Ok(Tensor { rows: tensor.rows / 2, data: tensor.data.part_of_each(all, bytes)?, ..tensor });
    Ok([half(0..all / 2)?, half(all / 2..all)?])
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
