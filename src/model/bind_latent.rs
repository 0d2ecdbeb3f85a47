//! The tensors of queries, keys and values: three matrices, one, fewer, or those of latents.

use super::bind::{Binder, split};
use super::config::Attention;
use super::latent::Latent;
use super::weights::{LatentWeights, Tensor};
use crate::error::Result;

/// Queries, and keys and values where a layer has some.
pub(super) type Qkv<'a> = (Tensor<'a>, Option<Tensor<'a>>, Option<Tensor<'a>>);

impl<'a> Binder<'a> {
    /// Queries, keys and values: three matrices, or one with the rows of all; fewer where a layer reads another's, or has its values
    /// of its keys.
    pub(super) fn qkv(&mut self, layer: usize, a: &Attention, cols: usize) -> Result<Qkv<'a>> {
        // Those of a gate stand between the queries'.
        let (h, g) = (if a.gated { 2 * a.q_width() } else { a.q_width() }, a.kv_width());
        let name = |part: &str| format!("blk.{layer}.attn_{part}.weight");
        let [fused, q, k, v] = ["qkv", "q", "k", "v"].map(name);
        if a.kv_from.is_some() {
            let q = self.matrix(&q, h, cols)?;
            // Some files have what nobody reads.
            ["k", "v", "k_norm"].into_iter().for_each(|part| self.leave_out(&name(part)));
            return Ok((q, None, None));
        }
        if !a.k_as_v && self.gguf.tensor(&fused).is_some() {
            let [q, k, v] = split(self.matrix(&fused, h + 2 * g, cols)?, [h, g, g])?;
            return Ok((q, Some(k), Some(v)));
        }
        let (q, k) = (self.matrix(&q, h, cols)?, self.matrix(&k, g, cols)?);
        let v = if a.k_as_v { None } else { Some(self.matrix(&v, g, cols)?) };
        Ok((q, Some(k), v))
    }

    /// Queries, and what else attention over latents has.
    pub(super) fn latent(
        &mut self,
        layer: usize,
        a: &Attention,
        latent: &Latent,
        d: usize,
    ) -> Result<(Tensor<'a>, LatentWeights<'a>)> {
        let name = |part: &str| format!("blk.{layer}.attn_{part}.weight");
        let (n, Latent { q_rank, rank, nope, v_dim }) = (a.n_heads, *latent);
        let rows = n * latent.q_dim(a.head_dim);
        let (q, q_a, q_a_norm) = match q_rank {
            None => (self.matrix(&name("q"), rows, d)?, None, None),
            Some(r) => {
                let (q_a, norm) = (self.matrix(&name("q_a"), r, d)?, self.vector(&name("q_a_norm"), r)?);
                (self.matrix(&name("q_b"), rows, r)?, Some(q_a), Some(norm))
            }
        };
        let kv_a = self.matrix(&name("kv_a_mqa"), a.head_dim, d)?;
        let kv_a_norm = self.vector(&name("kv_a_norm"), rank)?;
        let (k_b, v_b, transposed) = if self.gguf.tensor(&name("k_b")).is_some() {
            (self.stack(&name("k_b"), n, rank, nope)?, self.stack(&name("v_b"), n, v_dim, rank)?, None)
        } else {
            // Head by head the rows of keys and then those of values.
            let both = self.matrix(&name("kv_b"), n * (nope + v_dim), rank)?;
            let row = both.ty.row_bytes(rank);
            let part = |rows: usize, first: usize| -> Result<Tensor<'a>> {
                let data = both.data.part_of_each((nope + v_dim) * row, first * row..(first + rows) * row)?;
                Ok(Tensor { rows: n * rows, data, ..both })
            };
            (part(nope, 0)?, part(v_dim, nope)?, Some(n))
        };
        Ok((q, LatentWeights { q_a, q_a_norm, kv_a, kv_a_norm, k_b, transposed, v_b }))
    }
}
