//! Loading of what not every layer has: latents, embeddings by layer, and the norms of experts side by side.

use super::linear::Matrix;
use super::load::{Filler, tasks};
use super::pack::{pack_panel, panel_bytes};
use super::plan::{LatentPlan, PerLayerGatePlan, PerLayerPlan, SideBySidePlan, Task};
use super::simd::LANES;
use crate::alloc::reserve;
use crate::error::Result;
use crate::gguf::{TensorType, dequantize_row};
use crate::model::{Config, LatentWeights, PerLayerGate, PerLayerWeights, SideBySide, Tensor};

/// Each head's matrix cut into tasks, of which `which` is the head.
fn tasks_of_each(matrices: &[Matrix], n_threads: usize) -> Result<Vec<Task>> {
    let mut all = Vec::new();
    // As if every thread had a part of each: there are as many matrices as heads.
    let n_threads = n_threads.div_ceil(matrices.len().max(1));
    for (head, matrix) in matrices.iter().enumerate() {
        let of_head = tasks(&[matrix], n_threads);
        reserve(&mut all, of_head.len())?;
        all.extend(of_head.into_iter().map(|task| Task { which: head, ..task }));
    }
    Ok(all)
}

impl Filler<'_> {
    /// The matrices that read what the mixer reads, and the rest; `q` is the layer's matrix of queries.
    pub(super) fn latent(
        &mut self,
        w: &LatentWeights<'_>,
        q: &Tensor<'_>,
        n_heads: usize,
    ) -> Result<(Vec<Matrix>, LatentPlan)> {
        let n_threads = self.n_threads();
        let (first, second) = match &w.q_a {
            Some(q_a) => (self.next(q_a)?, Some(self.next(q)?)),
            None => (self.next(q)?, None),
        };
        let first = vec![first, self.next(&w.kv_a)?];
        let k_b = match w.transposed {
            None => self.stack(&w.k_b, n_heads, &None)?,
            Some(n_heads) => self.transposed(&w.k_b, n_heads)?,
        };
        let v_b = self.stack(&w.v_b, n_heads, &None)?;
        let plan = LatentPlan {
            q_a_norm: w.q_a_norm.as_ref().map(Tensor::floats).transpose()?.unwrap_or_default(),
            q_tasks: second.iter().flat_map(|q| tasks(&[q], n_threads)).collect(),
            q: second,
            kv_a_norm: w.kv_a_norm.floats()?,
            k_b_tasks: tasks_of_each(&k_b, n_threads)?,
            v_b_tasks: tasks_of_each(&v_b, n_threads)?,
            k_b,
            v_b,
        };
        Ok((first, plan))
    }

    /// `n` matrices one behind the other, each transposed, and so with values of their own: no type has them in both orders.
    fn transposed(&mut self, t: &Tensor<'_>, n: usize) -> Result<Vec<Matrix>> {
        let (rows, cols, ty) = (t.rows / n, t.cols, TensorType::F32);
        let (row_bytes, panel) = (t.ty.row_bytes(cols), panel_bytes(ty, rows));
        let (mut all, mut buffer, mut row, mut turned) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        reserve(&mut all, n)?;
        reserve(&mut row, cols)?;
        row.resize(cols, 0.0);
        reserve(&mut turned, 4 * rows * cols)?;
        turned.resize(4 * rows * cols, 0_u8);
        for matrix in 0..n {
            for i in 0..rows {
                let at = (matrix * rows + i) * row_bytes;
                dequantize_row(t.ty, t.data.piece(at..at + row_bytes, &mut buffer)?, &mut row)?;
                for (j, x) in row.iter().enumerate() {
                    turned[4 * (j * rows + i)..][..4].copy_from_slice(&(x * t.scale).to_le_bytes());
                }
            }
            let place = self.place(Matrix::bytes(ty, cols, rows).next_multiple_of(64));
            for (p, src) in turned.chunks(LANES * 4 * rows).enumerate() {
                // SAFETY: panel p of the matrix's own place in the arena, which was sized for it.
                let dst = unsafe {
                    place.add(p * panel).write_bytes(0, panel);
                    std::slice::from_raw_parts_mut(place.add(p * panel), panel)
                };
                pack_panel(ty, rows, src, dst);
            }
            // SAFETY: packed above and never written again; the model owns the arena too.
            all.push(unsafe { Matrix::new(ty, cols, rows, place) });
        }
        self.read(t.data.len() as u64)?;
        Ok(all)
    }

    pub(super) fn per_layer(&mut self, w: &PerLayerWeights<'_>) -> Result<PerLayerPlan> {
        let (embd, proj) = (self.next(&w.embd)?, self.next(&w.proj)?);
        Ok(PerLayerPlan { proj_tasks: tasks(&[&proj], self.n_threads()), embd, proj, norm: w.norm.floats()? })
    }

    pub(super) fn per_layer_gate(&mut self, w: &PerLayerGate<'_>) -> Result<PerLayerGatePlan> {
        let (gate, proj, n_threads) = (self.next(&w.gate)?, self.next(&w.proj)?, self.n_threads());
        Ok(PerLayerGatePlan {
            gate_tasks: tasks(&[&gate], n_threads),
            proj_tasks: tasks(&[&proj], n_threads),
            gate,
            proj,
            post_norm: w.post_norm.floats()?,
        })
    }

    /// The norms of experts side by side; that of the router has the division by the root of the width in it.
    pub(super) fn side_by_side(&self, config: &Config, w: &SideBySide<'_>) -> Result<SideBySidePlan> {
        let mut router_norm = w.router_norm.floats()?;
        let root = (config.n_embd as f64).sqrt();
        router_norm.iter_mut().for_each(|w| *w = (f64::from(*w) / root) as f32);
        Ok(SideBySidePlan {
            router_norm,
            experts_norm: w.experts_norm.floats()?,
            experts_post_norm: w.experts_post_norm.floats()?,
            shared_post_norm: w.shared_post_norm.floats()?,
        })
    }
}
