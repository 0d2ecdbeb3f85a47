//! The tensors of mixers with a state, and those of attention, which is not in every layer.

use super::archs::Need;
use super::bind::{Binder, split, split_each};
use super::config::Attention;
use super::recurrent::{DeltaNet, Mamba2, Recurrent};
use super::weights::{RecurrentWeights, Tensor};
use crate::error::Result;

impl<'a> Binder<'a> {
    /// A matrix without rows: of a layer that has no attention. As wide as what it would read, so that nothing is divided by it.
    pub(super) fn nothing(&mut self, d: usize) -> Result<Tensor<'a>> {
        let any = self.matrix_of("token_embd.weight", d)?;
        Ok(Tensor { rows: 0, data: any.data.part(0..0)?, ..any })
    }

    /// Queries, and the gate where there is one: head by head its rows stand behind those of the queries.
    pub(super) fn gate_of(&self, a: &Attention, q: Tensor<'a>) -> Result<(Tensor<'a>, Option<Tensor<'a>>)> {
        if !a.gated {
            return Ok((q, None));
        }
        let [q, gate] = split_each(q, a.n_heads)?;
        Ok((q, Some(gate)))
    }

    /// What reads what the heads have made.
    pub(super) fn output(&mut self, a: &Attention, layer: usize, d: usize) -> Result<Tensor<'a>> {
        match a.is_there() {
            true => self.matrix(&format!("blk.{layer}.attn_output.weight"), d, a.mix_width()),
            false => self.nothing(d),
        }
    }

    /// Those of a mixer with a state.
    pub(super) fn recurrent(&mut self, mixer: &Recurrent, layer: usize, d: usize) -> Result<RecurrentWeights<'a>> {
        let name = |role: &str| format!("blk.{layer}.{role}");
        match mixer {
            Recurrent::ShortConv(conv) => Ok(RecurrentWeights {
                input: self.matrix(&name("shortconv.in_proj.weight"), 3 * conv.width, d)?,
                conv: self.conv(&name("shortconv.conv.weight"), mixer)?,
                conv_bias: None,
                output: self.matrix(&name("shortconv.out_proj.weight"), d, conv.width)?,
                gate: None,
                beta: None,
                alpha: None,
                a: None,
                dt: None,
                d: None,
                norm: None,
            }),
            Recurrent::Mamba2(net) => self.mamba2(mixer, net, layer, d),
            Recurrent::DeltaNet(net) => {
                let [beta, alpha] = self.beta_alpha(net, layer, d)?;
                Ok(RecurrentWeights {
                    input: self.matrix(&name("attn_qkv.weight"), mixer.in_width(), d)?,
                    conv: self.conv(&name("ssm_conv1d.weight"), mixer)?,
                    conv_bias: None,
                    output: self.matrix(&name("ssm_out.weight"), d, net.v_width())?,
                    gate: Some(self.matrix(&name("attn_gate.weight"), net.v_width(), d)?),
                    beta: Some(beta),
                    alpha: Some(alpha),
                    a: self.optional(Need::Yes, &name("ssm_a"), net.v_heads)?,
                    dt: self.optional(Need::Yes, &name("ssm_dt.bias"), net.v_heads)?,
                    d: None,
                    norm: self.optional(Need::Yes, &name("ssm_norm.weight"), net.v_dim)?,
                })
            }
        }
    }

    /// The tensors of a Mamba2: what its first one makes of a token is the gate, then what is convolved, then a step a head.
    fn mamba2(&mut self, mixer: &Recurrent, m: &Mamba2, layer: usize, d: usize) -> Result<RecurrentWeights<'a>> {
        let name = |role: &str| format!("blk.{layer}.{role}");
        let (rows, channels) = (m.width(), mixer.in_width());
        let all = self.matrix(&name("ssm_in.weight"), rows + channels + m.heads, d)?;
        let [gate, input, step] = split(all, [rows, channels, m.heads])?;
        Ok(RecurrentWeights {
            input,
            conv: self.conv(&name("ssm_conv1d.weight"), mixer)?,
            conv_bias: self.optional(Need::Maybe, &name("ssm_conv1d.bias"), channels)?,
            output: self.matrix(&name("ssm_out.weight"), d, rows)?,
            gate: Some(gate),
            beta: Some(step),
            alpha: None,
            a: Some(self.floats(&name("ssm_a"), m.heads, 1)?),
            dt: self.optional(Need::Yes, &name("ssm_dt.bias"), m.heads)?,
            d: Some(self.floats(&name("ssm_d"), m.heads, 1)?),
            norm: match m.norm {
                true => Some(self.floats(&name("ssm_norm.weight"), m.groups, rows / m.groups)?),
                false => None,
            },
        })
    }

    /// The weights of a convolution: `[channels, len]`.
    fn conv(&mut self, name: &str, mixer: &Recurrent) -> Result<Tensor<'a>> {
        let (channels, len) = mixer.conv();
        self.floats(name, channels, len)
    }

    /// `[rows, cols]` of a type whose elements are stored one by one.
    fn floats(&mut self, name: &str, rows: usize, cols: usize) -> Result<Tensor<'a>> {
        let tensor = self.stack(name, 1, rows, cols)?;
        tensor.check_floats()?;
        Ok(tensor)
    }

    /// A matrix each, or one in which each key head has the rows of its value heads' beta and then those of their alpha.
    fn beta_alpha(&mut self, net: &DeltaNet, layer: usize, d: usize) -> Result<[Tensor<'a>; 2]> {
        let both = format!("blk.{layer}.ssm_ba.weight");
        if self.gguf.tensor(&both).is_some() {
            return split_each(self.matrix(&both, 2 * net.v_heads, d)?, net.k_heads);
        }
        let [beta, alpha] = ["beta", "alpha"].map(|part| format!("blk.{layer}.ssm_{part}.weight"));
        Ok([self.matrix(&beta, net.v_heads, d)?, self.matrix(&alpha, net.v_heads, d)?])
    }
}
