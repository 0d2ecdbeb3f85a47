//! Attention over latents: what it does before and behind the attention of one key head that it comes to, of all rows of a round.
//!
//! Heads have matrices of their own, so that between them a head's rows lie one behind the other.

use super::attention::to_f16;
use super::experts::of_slots;
use super::forward::{CpuModel, Piece, Scratch};
use super::linear::Matrix;
use super::plan::{LatentPlan, Task};
use super::threads::{Shares, Turn};
use super::vector;
use crate::backend::PAGE_TOKENS;
use crate::error::Result;
use crate::model::{Attention, Latent, MAX_LATENT_KEY};

/// A layer of latents.
#[derive(Clone, Copy)]
pub(super) struct OfLatents<'a> {
    pub a: &'a Attention,
    pub latent: &'a Latent,
    pub plan: &'a LatentPlan,
    pub layer: usize,
}

impl CpuModel {
    /// `q` is the queries as they meet latents; `k` is the latents, which are written to the cache.
    pub(super) fn to_latents(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        of: OfLatents<'_>,
        pieces: &[Piece],
        n: usize,
    ) -> Result<()> {
        let (layer, d) = (&self.layers[of.layer], self.config.n_embd);
        let q_width = of.a.n_heads * of.latent.q_dim(of.a.head_dim);
        let Scratch { h, quant, k, heads, ranks, .. } = &mut *s;
        let (heads, key) = ((Shares(heads.as_mut_ptr()), q_width), (Shares(k.as_mut_ptr()), of.a.head_dim));
        let input = self.input(turn, h, quant, n, d, layer.qkv.iter().any(Matrix::is_quantized))?;
        match (of.latent.q_rank, &of.plan.q) {
            (Some(rank), Some(second)) => {
                let first = (Shares(ranks.as_mut_ptr()), rank);
                self.multiply(turn, &layer.qkv, &layer.qkv_tasks, &input, &[first, key])?;
                self.rms_norm(turn, ranks, &of.plan.q_a_norm, n)?;
                let input = self.input(turn, ranks, quant, n, rank, second.is_quantized())?;
                self.multiply(turn, std::slice::from_ref(second), &of.plan.q_tasks, &input, &[heads])?;
            }
            _ => self.multiply(turn, &layer.qkv, &layer.qkv_tasks, &input, &[heads, key])?,
        }
        self.place_latents(turn, s, of, pieces, n)?;
        let nope = of.latent.nope;
        let Scratch { q, ranks, quant, .. } = &mut *s;
        let out = (Shares(q.as_mut_ptr()), of.a.head_dim, of.a.q_width());
        self.by_heads(turn, &of.plan.k_b, &of.plan.k_b_tasks, (ranks, quant), (n, nope), out)
    }

    /// Norms and turns of latents and queries, and the cache's new rows; what no position turns goes to `ranks`, head by head.
    fn place_latents(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        of: OfLatents<'_>,
        pieces: &[Piece],
        n: usize,
    ) -> Result<()> {
        let OfLatents { a, latent, plan, layer } = of;
        let (layout, isa, eps) = (self.layout.layer(layer), self.isa, self.config.norm_eps);
        let rope = a.rope.map(|i| (i, &self.ropes[i]));
        let (half, dim, rank, nope) = (self.config.widths().pairs, a.head_dim, latent.rank, latent.nope);
        let (q_dim, q_width, n_heads) = (latent.q_dim(dim), a.q_width(), a.n_heads);
        let (k, q) = (Shares(s.k[..n * dim].as_mut_ptr()), Shares(s.q[..n * q_width].as_mut_ptr()));
        let (heads, by_head) = (&s.heads[..n * n_heads * q_dim], Shares(s.ranks[..n * n_heads * nope].as_mut_ptr()));
        let angles = &s.angles[rope.map_or(0, |(i, _)| i) * n * half..];
        let pages = &s.pages;
        self.by_rows(turn, n, dim + n_heads * q_dim, &|row| {
            // SAFETY: row `row` of k and q, which no other call touches.
            let (key, q) = unsafe {
                (
                    std::slice::from_raw_parts_mut(k.at(row * dim), dim),
                    std::slice::from_raw_parts_mut(q.at(row * q_width), q_width),
                )
            };
            let rotate = |x: &mut [f32]| {
                if let Some((_, rope)) = rope {
                    vector::rope(x, &angles[row * half..][..rope.inverse.len()], rope.pairing);
                }
            };
            // SAFETY: latent and weight hold `rank` elements.
            unsafe { vector::rms_norm(isa, key.as_ptr(), plan.kv_a_norm.as_ptr(), key.as_mut_ptr(), rank, eps) };
            rotate(&mut key[rank..]);
            for (head, own) in heads[row * n_heads * q_dim..][..n_heads * q_dim].chunks_exact(q_dim).enumerate() {
                let turned = &mut q[head * dim + rank..][..dim - rank];
                turned.copy_from_slice(&own[nope..]);
                rotate(turned);
                // SAFETY: there is a row of `nope` for each head and row, sliced above, and this is one of them.
                let to = unsafe { std::slice::from_raw_parts_mut(by_head.at((head * n + row) * nope), nope) };
                to.copy_from_slice(&own[..nope]);
            }
            let Some(p) = pieces.iter().rfind(|p| p.row <= row) else { return };
            let position = p.start + row - p.row;
            #[cfg(any(test, feature = "faults"))]
            let position = self.fault.cache_index(position);
            let page = pages[p.pages_of(layout.class)][position / PAGE_TOKENS].0.cast_mut();
            let mut halves = [0_u16; MAX_LATENT_KEY];
            // SAFETY: a key is at most so long (checked at load); this position's rows of the page belong to this sequence alone.
            unsafe {
                to_f16(isa, key.as_ptr(), halves.as_mut_ptr(), dim);
                layout.write(page, 0, position % PAGE_TOKENS, &halves[..dim], &[]);
            }
        })
    }

    /// `mix`, of latents, becomes that of each head's values.
    pub(super) fn values_of_latents(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        of: OfLatents<'_>,
        n: usize,
    ) -> Result<()> {
        let (n_heads, rank, v_dim) = (of.a.n_heads, of.latent.rank, of.latent.v_dim);
        let Scratch { mix, heads, quant, .. } = &mut *s;
        let (from, to) = (&mix[..n * n_heads * rank], Shares(heads[..n * n_heads * rank].as_mut_ptr()));
        self.by_rows(turn, n, n_heads * rank, &|row| {
            for (head, from) in from[row * n_heads * rank..][..n_heads * rank].chunks_exact(rank).enumerate() {
                // SAFETY: there is a row of `rank` for each head and row, sliced above, and this is one of them.
                let to = unsafe { std::slice::from_raw_parts_mut(to.at((head * n + row) * rank), rank) };
                to.copy_from_slice(from);
            }
        })?;
        let out = (Shares(mix.as_mut_ptr()), v_dim, n_heads * v_dim);
        self.by_heads(turn, &of.plan.v_b, &of.plan.v_b_tasks, (heads, quant), (n, rank), out)
    }

    /// Each head's matrix times its rows, `n` of `cols` one behind the other; a head's results stand `step` behind those of the head
    /// before, a row's `stride` behind those of the row before.
    fn by_heads(
        &self,
        turn: &Turn<'_>,
        matrices: &[Matrix],
        tasks: &[Task],
        (rows, quant): (&[f32], &mut [super::simd::XBlock]),
        (n, cols): (usize, usize),
        (out, step, stride): (Shares<f32>, usize, usize),
    ) -> Result<()> {
        let isa = self.isa;
        let is_quantized = matrices.iter().any(Matrix::is_quantized);
        let input = self.input(turn, rows, quant, n * matrices.len(), cols, is_quantized)?;
        turn.run(tasks.len(), &|i| {
            let Task { which: head, first, last } = tasks[i];
            let input = of_slots(&input, cols, head * n, n);
            // SAFETY: `out` holds `n` rows of `stride`; a head has a place of its own in each, and tasks cover disjoint rows.
            unsafe { matrices[head].mul(isa, first, last, &input, out.at(head * step), stride) };
        })
    }
}
