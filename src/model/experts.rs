//! Feed-forward parts of experts: which of them a position goes through, and how what they make is added up.
//!
//! ```text
//! experts(h):
//!     l = Wrouter h + brouter                           # a bias only where the tensor exists
//!     p = softmax(l), sigmoid(l), or l itself, as the score says
//!     s = p + select_bias
//!     of groups of experts side by side, those with the largest sums of their two largest s stay
//!     the n_used experts with the largest s are chosen, of equal ones those with the lowest ids
//!     w_e = p_e, or softmax(l over the chosen)
//!     w_e /= max(sum of w, 1e-20), where they are renormalized
//!     w_e *= scale
//!     shared(h) * sigmoid(wshared h), or * 1 where it is not gated
//!     + w_e * expert_e(h) of each chosen expert, in ascending order of e
//! or side by side, of the stream x that h is the norm of:
//!     l = Wrouter (rms_norm(x) * router_norm) / sqrt(n_embd)
//!     rms_norm(shared(h)) * shared_post_norm
//!     + rms_norm(w_e * expert_e(rms_norm(x) * experts_norm), added up) * experts_post_norm
//! ```
//!
//! An expert is a dense feed-forward part. Softmax and sigmoid keep the order of what they are given: where there is neither
//! a bias nor groups, `s` is `l`, and no rounding makes two experts equal that were not. The order of the sum is that of the
//! ids, not of the weights, which may change places by a rounding.

use super::dense::Dense;
use super::range::{check, in_range, positive};
use crate::error::Result;

/// The most experts of a layer; no model has more than half of it.
pub const MAX_EXPERTS: usize = 1024;

/// The least that renormalized weights are divided by, so that a sum of zero is none.
pub const LEAST_SUM: f64 = 1e-20;

/// What becomes of the router's logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// A softmax over all experts.
    Softmax,
    /// `1 / (1 + e^-l)` of each.
    Sigmoid,
    /// Experts are chosen by their logits; the weights are a softmax over the chosen.
    SoftmaxOfChosen,
}

/// Experts are chosen from some of equally large groups of them alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Groups; divides the number of experts.
    pub n: usize,
    /// Those that stay.
    pub n_used: usize,
}

/// How experts are chosen and weighed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Route {
    /// See [`Score`].
    pub score: Score,
    /// Whether a bias is added for the choice, and not to the weights; the tensor exists where it is.
    pub select_bias: bool,
    /// See [`Groups`].
    pub groups: Option<Groups>,
    /// Whether weights are divided by their sum.
    pub renorm: bool,
    /// Multiplies the weights.
    pub scale: f32,
}

/// What every position goes through besides its experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// What it computes.
    pub ffn: Dense,
    /// Whether it is multiplied by a sigmoid of a product with what it reads.
    pub gated: bool,
}

/// `n` experts, of which each position goes through `n_used`; see the module's formula.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    /// Experts; at most [`MAX_EXPERTS`].
    pub n: usize,
    /// Those that a position goes through.
    pub n_used: usize,
    /// What each computes.
    pub each: Dense,
    /// See [`Route`].
    pub route: Route,
    /// See [`Shared`].
    pub shared: Option<Shared>,
    /// Whether what all share and the experts have norms of their own, before them and behind; there is a shared one without
    /// a gate then, and the block is sequential.
    pub side_by_side: bool,
}

impl Experts {
    pub(super) fn validate(&self, layer: &str, is_sequential: bool) -> Result<()> {
        let fits = self.shared.is_some_and(|shared| !shared.gated) && is_sequential;
        check(fits || !self.side_by_side, &format!("{layer} experts side by side"), &"another", &|| {
            "with a shared part without a gate, in a sequential block".into()
        })?;
        in_range(&format!("{layer} number of experts (expert_count)"), self.n, MAX_EXPERTS)?;
        in_range(&format!("{layer} number of experts used (expert_used_count)"), self.n_used, self.n)?;
        in_range(&format!("{layer} width of an expert (expert_feed_forward_length)"), self.each.width, 1 << 20)?;
        if let Some(shared) = &self.shared {
            let name = format!("{layer} width of the shared expert (expert_shared_feed_forward_length)");
            in_range(&name, shared.ffn.width, 1 << 20)?;
        }
        positive(&format!("{layer} scale of experts' weights (expert_weights_scale)"), self.route.scale)?;
        let Some(groups) = self.route.groups else { return Ok(()) };
        let name = format!("{layer} number of groups of experts (expert_group_count)");
        in_range(&name, groups.n, self.n)?;
        check(self.n.is_multiple_of(groups.n), &name, &groups.n, &|| format!("a divisor of {} experts", self.n))?;
        let name = format!("{layer} number of groups used (expert_group_used_count)");
        in_range(&name, groups.n_used, groups.n)?;
        let left = self.n / groups.n * groups.n_used;
        check(left >= self.n_used, &name, &groups.n_used, &|| {
            format!("enough for {} experts; {left} are in those groups", self.n_used)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Activation;

    fn experts(n: usize, n_used: usize, groups: Option<Groups>) -> Experts {
        let each = Dense { width: 8, activation: Activation::Silu, gated: true };
        let route = Route { score: Score::Sigmoid, select_bias: false, groups, renorm: true, scale: 1.0 };
        Experts { n, n_used, each, route, shared: None, side_by_side: false }
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let refused = |experts: Experts, part: &str| {
            let text = experts.validate("layer 0", true).expect_err("is refused").to_string();
            assert!(text.contains(part), "{text}");
        };
        refused(experts(0, 1, None), "expert_count");
        refused(experts(MAX_EXPERTS + 1, 1, None), "expert_count");
        refused(experts(4, 0, None), "expert_used_count");
        refused(experts(4, 5, None), "expert_used_count");
        refused(experts(6, 2, Some(Groups { n: 4, n_used: 1 })), "a divisor of 6");
        refused(experts(6, 2, Some(Groups { n: 0, n_used: 1 })), "expert_group_count");
        refused(experts(6, 2, Some(Groups { n: 3, n_used: 4 })), "expert_group_used_count");
        refused(experts(6, 3, Some(Groups { n: 3, n_used: 1 })), "enough for 3 experts");
    }
}
