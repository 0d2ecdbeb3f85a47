//! Multi-head latent attention: what is kept of a position is one short row, the latent, that all heads read.
//!
//! ```text
//! latent attention(h), of heads of `nope` elements that no position turns and the rope's behind them:
//!     q = Wq h, or Wq rms_norm(Wqa h) * q_a_norm        # each head [nope, turned]
//!     c, k = Wkva h                                     # `rank` elements, and the one turned part of all heads' keys
//!     c = rms_norm(c) * kv_a_norm
//!     q, k = rope(q, p), rope(k, p) of the turned parts
//!     a = softmax(scale * [Wkb q_nope, q_turned] [c, k]^T, causal) c      # Wkb and Wvb: one a head
//!     Wo [Wvb a of each head]
//! ```
//!
//! So it is an attention of one key head whose keys are latents and whose values are their first `rank` elements: no more of
//! a position is kept. It is the same as that of keys `Wkb^T c` and values `Wvb c` of each head.

use super::range::{check, in_range};
use crate::error::Result;

/// The most elements of a key that is a latent.
pub const MAX_LATENT_KEY: usize = 640;

/// What an [`Attention`](super::Attention) over latents is beside its `head_dim`, which is that of a key: the latent and the
/// elements that are turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latent {
    /// Rows of the first of two matrices that make queries; `None`: one makes them.
    pub q_rank: Option<usize>,
    /// Elements of a latent; a multiple of 8, at most 512.
    pub rank: usize,
    /// Elements of a head of queries that are not turned.
    pub nope: usize,
    /// Elements of a head of values.
    pub v_dim: usize,
}

impl Latent {
    /// Elements of a head of queries, before they meet latents, of keys of so many elements.
    pub fn q_dim(&self, head_dim: usize) -> usize {
        self.nope + head_dim - self.rank
    }

    pub(super) fn validate(&self, layer: &str, head_dim: usize, n_rot: Option<usize>) -> Result<()> {
        let name = format!("{layer} length of latents (attention.kv_lora_rank)");
        let fits = self.rank.is_multiple_of(8) && (8..=512).contains(&self.rank);
        check(fits, &name, &self.rank, &|| "a multiple of 8, 8 to 512".into())?;
        let turned = head_dim.saturating_sub(self.rank);
        let name = format!("{layer} length of keys of latents (attention.key_length)");
        let fits = head_dim <= MAX_LATENT_KEY && n_rot.is_none_or(|n_rot| turned == n_rot) && head_dim > self.rank;
        check(fits, &name, &head_dim, &|| {
            let n_rot = n_rot.unwrap_or(turned);
            format!("{} and {n_rot} that are turned, at most {MAX_LATENT_KEY}", self.rank)
        })?;
        let name = format!("{layer} elements of a head that are not turned (attention.key_length_mla)");
        in_range(&name, self.nope, 1 << 12)?;
        in_range(&format!("{layer} length of values (attention.value_length_mla)"), self.v_dim, 1 << 12)?;
        let name = format!("{layer} rows of the first matrix of queries (attention.q_lora_rank)");
        in_range(&name, self.q_rank.unwrap_or(1), 1 << 20)
    }
}
