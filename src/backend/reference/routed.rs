//! What a token's way through experts needs: `N` experts of which a position goes through `K`, `D = n_embd`.

use super::zeros;
use crate::error::Result;
use crate::model::Config;

/// What a router makes of a token, and what experts make of it.
pub(super) struct Routed {
    pub logits: Vec<f32>,  // [N]
    pub scores: Vec<f64>,  // [N] room for the choice
    pub keys: Vec<i32>,    // [N] the same
    pub ids: Vec<u32>,     // [K] ascending
    pub shown: Vec<f32>,   // [K] the same, for a tap
    pub weights: Vec<f32>, // [K]
    pub sum: Vec<f64>,     // [D]
    pub input: Vec<f32>,   // [D] of experts side by side: what the router reads, and then what all share
}

impl Routed {
    /// Elements of `input`.
    pub fn input_len(c: &Config) -> usize {
        let side_by_side = c.layers.iter().any(|layer| layer.experts().is_some_and(|experts| experts.side_by_side));
        if side_by_side { c.n_embd } else { 0 }
    }

    /// Room for one token.
    pub fn new(c: &Config) -> Result<Routed> {
        let most = c.widths();
        let (n, k) = (most.n_experts, most.n_used);
        Ok(Routed {
            logits: zeros(n)?,
            scores: zeros(n)?,
            keys: zeros(n)?,
            ids: zeros(k)?,
            shown: zeros(k)?,
            weights: zeros(k)?,
            sum: zeros(if n == 0 { 0 } else { c.n_embd })?,
            input: zeros(Routed::input_len(c))?,
        })
    }
}
