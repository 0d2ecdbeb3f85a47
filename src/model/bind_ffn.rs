//! The tensors of feed-forward parts.

use super::archs::{Extras, Need};
use super::bind::{Binder, Scaled, split, split_each};
use super::config::{Config, Ffn};
use super::dense::Dense;
use super::experts::Experts;
use super::weights::{DenseWeights, ExpertsWeights, FfnWeights, SideBySide, Tensor};
use crate::error::{Error, Result};

impl<'a> Binder<'a> {
    /// Those of a layer.
    pub(super) fn ffn(&mut self, config: &Config, extras: Extras, layer: usize) -> Result<FfnWeights<'a>> {
        let d = config.n_embd;
        match &config.layers[layer].ffn {
            Ffn::Dense(dense) => {
                let bias = self.decide(extras.ffn_bias, "ffn_up.bias", config, |layer| layer.dense().is_some());
                Ok(FfnWeights::Dense(self.dense(layer, "", dense, d, bias, extras.fused_gate_up)?))
            }
            Ffn::Experts(experts) => self.experts(layer, experts, d, extras.experts_bias).map(FfnWeights::Experts),
            Ffn::None => Ok(FfnWeights::None),
        }
    }

    /// A dense part; `kind` is what its names have behind those of gate, up and down.
    fn dense(
        &mut self,
        layer: usize,
        kind: &str,
        dense: &Dense,
        d: usize,
        bias: Need,
        fused: bool,
    ) -> Result<DenseWeights<'a>> {
        let ff = dense.width;
        let name = |part: &str, what: &str| format!("blk.{layer}.ffn_{part}{kind}.{what}");
        let (gate, up) = if dense.gated && fused {
            let [gate, up] = split(self.matrix(&name("up", "weight"), 2 * ff, d)?, [ff; 2])?;
            (Some(gate), up)
        } else {
            let gate = dense.gated.then(|| self.matrix(&name("gate", "weight"), ff, d)).transpose()?;
            (gate, self.matrix(&name("up", "weight"), ff, d)?)
        };
        let gate_bias = if dense.gated { bias } else { Need::No };
        Ok(DenseWeights {
            gate,
            up,
            down: self.matrix(&name("down", "weight"), d, ff)?,
            gate_bias: self.optional(gate_bias, &name("gate", "bias"), ff)?,
            up_bias: self.optional(bias, &name("up", "bias"), ff)?,
            down_bias: self.optional(bias, &name("down", "bias"), d)?,
        })
    }

    fn experts(&mut self, layer: usize, experts: &Experts, d: usize, bias: Need) -> Result<ExpertsWeights<'a>> {
        let (n, ff) = (experts.n, experts.each.width);
        let name = |role: &str| format!("blk.{layer}.{role}");
        let select_bias = if experts.route.select_bias { Need::Yes } else { Need::No };
        let shared = experts.shared.as_ref();
        let kind = if experts.side_by_side { "" } else { "_shexp" };
        let shared_gate = if shared.is_some_and(|shared| shared.gated) { Need::Yes } else { Need::No };
        let (gate, (up, up_scale)) = self.gate_up_of_each(layer, experts, d)?;
        let (gate, gate_scale) = gate.unzip();
        let (down, down_scale) = self.scaled_stack(&name("ffn_down_exps.weight"), n, d, ff)?;
        let gate_bias = if experts.each.gated { bias } else { Need::No };
        Ok(ExpertsWeights {
            // Beside the router of experts side by side stands their norm, and no scale of its values.
            router: match experts.side_by_side {
                true => self.stack(&name("ffn_gate_inp.weight"), 1, n, d)?,
                false => self.matrix(&name("ffn_gate_inp.weight"), n, d)?,
            },
            router_bias: self.optional(bias, &name("ffn_gate_inp.bias"), n)?,
            select_bias: self.optional(select_bias, &name("exp_probs_b.bias"), n)?,
            each: DenseWeights {
                gate,
                up,
                down,
                gate_bias: self.stacked_bias(gate_bias, &name("ffn_gate_exps.bias"), n, ff)?,
                up_bias: self.stacked_bias(bias, &name("ffn_up_exps.bias"), n, ff)?,
                down_bias: self.stacked_bias(bias, &name("ffn_down_exps.bias"), n, d)?,
            },
            gate_scale: gate_scale.flatten(),
            up_scale,
            down_scale,
            shared: shared.map(|s| self.dense(layer, kind, &s.ffn, d, Need::No, false)).transpose()?,
            shared_gate: self.optional(shared_gate, &name("ffn_gate_inp_shexp.weight"), d)?,
            side_by_side: match experts.side_by_side {
                false => None,
                true => Some(SideBySide {
                    router_norm: self.vector(&name("ffn_gate_inp.scale"), d)?,
                    experts_norm: self.vector(&name("pre_ffw_norm_2.weight"), d)?,
                    experts_post_norm: self.vector(&name("post_ffw_norm_2.weight"), d)?,
                    shared_post_norm: self.vector(&name("post_ffw_norm_1.weight"), d)?,
                }),
            },
        })
    }

    /// Gates, where experts have them, and ups: a tensor each, or one in which an expert has the rows of its gate and then those of its up.
    fn gate_up_of_each(
        &mut self,
        layer: usize,
        experts: &Experts,
        d: usize,
    ) -> Result<(Option<Scaled<'a>>, Scaled<'a>)> {
        let (n, ff, gated) = (experts.n, experts.each.width, experts.each.gated);
        let [gate, up, both] = ["gate", "up", "gate_up"].map(|part| format!("blk.{layer}.ffn_{part}_exps.weight"));
        if !gated || self.gguf.tensor(&both).is_none() {
            let gate = gated.then(|| self.scaled_stack(&gate, n, ff, d)).transpose()?;
            return Ok((gate, self.scaled_stack(&up, n, ff, d)?));
        }
        if let Some(twice) = [&gate, &up].into_iter().find(|name| self.gguf.tensor(name).is_some()) {
            return Err(Error::UnsupportedValue {
                name: format!("tensor \"{twice}\""),
                found: "there".into(),
                expected: format!("none beside \"{both}\", which has its rows"),
            });
        }
        // The format has no scales of both.
        let [gate, up] = split_each(self.stack(&both, n, 2 * ff, d)?, n)?;
        Ok((Some((gate, None)), (up, None)))
    }

    /// A bias of each expert, one a row.
    fn stacked_bias(&mut self, need: Need, name: &str, n: usize, width: usize) -> Result<Option<Tensor<'a>>> {
        if need == Need::No {
            return Ok(None);
        }
        let bias = self.stack(name, 1, n, width)?;
        bias.check_floats()?;
        Ok(Some(bias))
    }
}
