//! Experts from a file's keys: how many there are, how they are chosen, and on which layers.

use super::keys::{Keys, MAX_SIZE, unsupported, wrong};
use super::{Activation, Config, Dense, Experts, Ffn, Groups, Route, Score, Shared};
use crate::error::Result;
use crate::model::MAX_EXPERTS;

/// What an architecture does where the file does not say.
#[derive(Clone, Copy)]
pub(super) struct Usual {
    pub score: Score,
    /// Whether weights are divided by their sum.
    pub renorm: bool,
    /// An expert's width from `feed_forward_length` and the number of experts used.
    pub width: fn(usize, usize) -> usize,
    /// The shared expert's from `feed_forward_length`.
    pub shared: Option<fn(usize) -> usize>,
    /// Whether the shared expert is multiplied by a gate.
    pub shared_gate: bool,
}

impl Usual {
    /// A softmax, of which the weights of the chosen are divided by their sum, experts of the width of `feed_forward_length`
    /// and a shared one only where the file has it.
    pub const SOFTMAX: Usual =
        Usual { score: Score::Softmax, renorm: true, width: |n_ff, _| n_ff, shared: None, shared_gate: false };
}

impl Keys<'_> {
    /// Makes the feed-forward parts of layers experts: all but some leading ones, or one of each so many, as the file says.
    pub fn experts(&self, config: &mut Config, usual: Usual) -> Result<()> {
        let n = self.size("expert_count", MAX_EXPERTS as u64)?;
        let n_used = self.size("expert_used_count", n as u64)?;
        let route = self.route(&usual)?;
        let widths = self.opt_sizes("expert_feed_forward_length", config.n_layers())?;
        let dense_layers = self.gguf.opt_uint(&self.key("leading_dense_block_count"))?.unwrap_or(0);
        let step = self.opt_size("interleave_moe_layer_step", MAX_SIZE)?.unwrap_or(1);
        for (i, layer) in config.layers.iter_mut().enumerate() {
            let Ffn::Dense(Dense { width: n_ff, .. }) = layer.ffn else { continue };
            if (i as u64) < dense_layers || !(i + 1).is_multiple_of(step) {
                continue;
            }
            let width = widths.as_ref().map_or_else(|| (usual.width)(n_ff, n_used), |widths| widths.get(i));
            let gated = |width| Dense { width, activation: Activation::Silu, gated: true };
            let shared = match self.shared_width(width)? {
                None => usual.shared.map(|shared| shared(n_ff)),
                given => given,
            };
            let shared = shared.map(|width| Shared { ffn: gated(width), gated: usual.shared_gate });
            let select_bias = self.gguf.tensor(&format!("blk.{i}.exp_probs_b.bias")).is_some();
            let route = Route { select_bias, ..route };
            layer.ffn = Ffn::Experts(Experts { n, n_used, each: gated(width), route, shared, side_by_side: false });
        }
        Ok(())
    }

    /// The width that the file gives the shared expert, or as many of them side by side.
    fn shared_width(&self, width: usize) -> Result<Option<usize>> {
        if let Some(width) = self.opt_size_or_none("expert_shared_feed_forward_length")? {
            return Ok(Some(width));
        }
        let count = self.opt_size_or_none("expert_shared_count")?;
        // Both are at most `MAX_SIZE`; the description's own bound holds for the product.
        Ok(count.map(|count| count * width))
    }

    /// A size, of which 0 means that there is none.
    fn opt_size_or_none(&self, suffix: &str) -> Result<Option<usize>> {
        match self.gguf.opt_uint(&self.key(suffix))? {
            Some(0) => Ok(None),
            _ => self.opt_size(suffix, MAX_SIZE),
        }
    }

    fn route(&self, usual: &Usual) -> Result<Route> {
        let key = self.key("expert_gating_func");
        let score = match self.gguf.opt_uint(&key)?.unwrap_or(0) {
            0 => usual.score,
            1 => Score::Softmax,
            2 => Score::Sigmoid,
            3 => Score::SoftmaxOfChosen,
            other => return Err(unsupported(&key, other, "1 (softmax), 2 (sigmoid) or 3 (softmax of the chosen)")),
        };
        let groups = match self.opt_size_or_none("expert_group_count")?.filter(|&n| n > 1) {
            None => None,
            Some(n) => {
                let suffix = "expert_group_used_count";
                let missing = || wrong(&self.key(suffix), "missing", format!("1 to {n}"));
                Some(Groups { n, n_used: self.opt_size(suffix, n as u64)?.ok_or_else(missing)? })
            }
        };
        // Converters write 0 for "not scaled".
        let scale = self.float("expert_weights_scale")?.filter(|&scale| scale != 0.0).unwrap_or(1.0);
        let renorm = self.gguf.opt_bool(&self.key("expert_weights_norm"))?.unwrap_or(usual.renorm);
        Ok(Route { score, select_bias: false, groups, renorm, scale })
    }
}
