//! The tensors of mixers with a state, and those of attention, which is not in every layer.

use super::archs::Need;
use super::bind::{Binder, split_each};
use super::config::Attention;
use super::recurrent::{DeltaNet, Recurrent};
use super::weights::{RecurrentWeights, Tensor};
use crate::error::Result;

/// Queries, keys and values; the gate, if there is one; and what is made of the heads.
type AttentionTensors<'a> = ([Tensor<'a>; 3], Option<Tensor<'a>>, Tensor<'a>);

impl<'a> Binder<'a> {
    /// The matrices of a layer's attention: without rows where it has none.
    pub(super) fn attention(&mut self, a: &Attention, layer: usize, d: usize) -> Result<AttentionTensors<'a>> {
        let (h, g) = (a.q_width(), a.kv_width());
        if !a.is_there() {
            // As wide as what it would read, so that nothing is divided by it.
            let any = self.matrix_of("token_embd.weight", d)?;
            let none = Tensor { rows: 0, data: any.data.part(0..0)?, ..any };
            return Ok(([none; 3], None, none));
        }
        let o = format!("blk.{layer}.attn_output.weight");
        if !a.gated {
            return Ok((self.qkv(layer, [h, g, g], d)?, None, self.matrix(&o, d, h)?));
        }
        // Head by head the rows of the queries and then those of the gate.
        let [both, k, v] = self.qkv(layer, [2 * h, g, g], d)?;
        let [q, gate] = split_each(both, a.n_heads)?;
        Ok(([q, k, v], Some(gate), self.matrix(&o, d, h)?))
    }

    /// Those of a mixer with a state.
    pub(super) fn recurrent(&mut self, mixer: &Recurrent, layer: usize, d: usize) -> Result<RecurrentWeights<'a>> {
        let name = |role: &str| format!("blk.{layer}.{role}");
        match mixer {
            Recurrent::ShortConv(conv) => Ok(RecurrentWeights {
                input: self.matrix(&name("shortconv.in_proj.weight"), 3 * conv.width, d)?,
                conv: self.conv(&name("shortconv.conv.weight"), mixer)?,
                output: self.matrix(&name("shortconv.out_proj.weight"), d, conv.width)?,
                gate: None,
                beta: None,
                alpha: None,
                a: None,
                dt: None,
                norm: None,
            }),
            Recurrent::DeltaNet(net) => {
                let [beta, alpha] = self.beta_alpha(net, layer, d)?;
                Ok(RecurrentWeights {
                    input: self.matrix(&name("attn_qkv.weight"), mixer.in_width(), d)?,
                    conv: self.conv(&name("ssm_conv1d.weight"), mixer)?,
                    output: self.matrix(&name("ssm_out.weight"), d, net.v_width())?,
                    gate: Some(self.matrix(&name("attn_gate.weight"), net.v_width(), d)?),
                    beta: Some(beta),
                    alpha: Some(alpha),
                    a: self.optional(Need::Yes, &name("ssm_a"), net.v_heads)?,
                    dt: self.optional(Need::Yes, &name("ssm_dt.bias"), net.v_heads)?,
                    norm: self.optional(Need::Yes, &name("ssm_norm.weight"), net.v_dim)?,
                })
            }
        }
    }

    /// The weights of a convolution: `[channels, len]` of a type whose elements are stored one by one.
    fn conv(&mut self, name: &str, mixer: &Recurrent) -> Result<Tensor<'a>> {
        let (channels, len) = mixer.conv();
        let conv = self.stack(name, 1, channels, len)?;
        conv.check_floats()?;
        Ok(conv)
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
