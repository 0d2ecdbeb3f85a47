//! What the ways of a round's rows through experts need.

use super::linear::Matrix;
use super::plan::Task;
use super::room::sized;
use super::simd::XBlock;
use crate::alloc::reserve;
use crate::error::Result;
use crate::model::{Experts, Widths};

/// Panels of one expert for the slots `first .. first + n`.
#[derive(Clone, Copy)]
pub struct SlotTask {
    pub expert: usize,
    pub first: usize,
    pub n: usize,
    pub panels: Task,
}

/// Experts of a round's `n` rows: `N` at most, of which a row goes through `K`, so that there are `n K` slots.
#[derive(Default)]
pub struct Routed {
    pub logits: Vec<f32>,     // [n, N]
    pub scores: Vec<f64>,     // [n, N] room for the choice
    pub keys: Vec<i32>,       // [n, N] the same
    pub ids: Vec<u32>,        // [n, K] ascending in each row
    pub shown: Vec<f32>,      // [n, K] the same, for a tap
    pub weights: Vec<f32>,    // [n, K]
    pub shared: Vec<f32>,     // [n] what the shared expert is multiplied by
    pub slots: Vec<usize>,    // [n, K] the slot of a row's expert
    pub starts: Vec<usize>,   // [N + 1] the first slot of each expert
    pub rows: Vec<f32>,       // [n K, D] what the experts read, and then what they make
    pub gate: Vec<f32>,       // [n K, F]
    pub up: Vec<f32>,         // [n K, F]
    pub quant: Vec<XBlock>,   // [n K, max(D, F) / 32]
    pub tasks: Vec<SlotTask>, // of gate and up, and then of down
}

impl Routed {
    /// Bytes of `n` rows, but for tasks.
    pub fn bytes(most: &Widths, d: usize, n: usize) -> usize {
        if most.n_experts == 0 {
            return 0;
        }
        let of_experts = most.n_experts * (size_of::<f32>() + size_of::<f64>() + size_of::<i32>());
        let slot = 4 * size_of::<f32>() + size_of::<usize>();
        let blocks = d.max(most.expert).div_ceil(32) * size_of::<XBlock>();
        let of_slots = most.n_used * (slot + size_of::<f32>() * (d + 2 * most.expert) + blocks);
        n * (of_experts + of_slots + size_of::<f32>()) + (most.n_experts + 1) * size_of::<usize>()
    }

    pub fn size(&mut self, experts: &Experts, d: usize, n: usize) -> Result<()> {
        let (all, slots, f) = (experts.n, n * experts.n_used, experts.each.width);
        for (v, len) in [
            (&mut self.logits, n * all),
            (&mut self.shown, slots),
            (&mut self.weights, slots),
            (&mut self.shared, n),
            (&mut self.rows, slots * d),
            (&mut self.gate, slots * f),
            (&mut self.up, slots * f),
        ] {
            sized(v, len, 0.0)?;
        }
        sized(&mut self.scores, n * all, 0.0)?;
        sized(&mut self.keys, n * all, 0)?;
        sized(&mut self.ids, slots, 0)?;
        sized(&mut self.slots, slots, 0)?;
        sized(&mut self.starts, all + 1, 0)?;
        sized(&mut self.quant, slots * d.max(f).div_ceil(32), XBlock::ZERO)?;
        Ok(())
    }

    /// Slots of `n_slots` chosen experts, sorted by expert and then by row.
    pub fn sort(&mut self, n_experts: usize, n_slots: usize) {
        let starts = &mut self.starts[..n_experts + 1];
        starts.fill(0);
        for &id in &self.ids[..n_slots] {
            starts[id as usize + 1] += 1;
        }
        for expert in 0..n_experts {
            starts[expert + 1] += starts[expert];
        }
        for (slot, &id) in self.slots.iter_mut().zip(&self.ids[..n_slots]) {
            *slot = starts[id as usize];
            starts[id as usize] += 1;
        }
        // Each start has moved to the next one's place.
        starts.copy_within(..n_experts, 1);
        starts[0] = 0;
    }

    /// Cuts the matrices of all experts that have slots into tasks of similar work.
    pub fn cut(&mut self, matrices: &[Matrix], n_threads: usize) -> Result<()> {
        let slots_of = |expert: usize| self.starts[expert + 1] - self.starts[expert];
        let work: usize = matrices.iter().enumerate().map(|(expert, m)| m.n_panels() * slots_of(expert)).sum();
        self.tasks.clear();
        for (which, m) in matrices.iter().enumerate() {
            let n = slots_of(which);
            if n == 0 {
                continue;
            }
            // Float kernels take 4 panels at once; about 8 pieces a thread even out what else the machine does.
            let least = if m.is_quantized() { 2 } else { 4 };
            let step = (work / (8 * n_threads * n)).next_multiple_of(least).max(least);
            reserve(&mut self.tasks, m.n_panels().div_ceil(step))?;
            for first in (0..m.n_panels()).step_by(step) {
                let panels = Task { which, first, last: (first + step).min(m.n_panels()) };
                self.tasks.push(SlotTask { expert: which, first: self.starts[which], n, panels });
            }
        }
        Ok(())
    }
}
