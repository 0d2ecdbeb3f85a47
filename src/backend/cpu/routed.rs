//! What the ways of a round's rows through experts need.

use std::sync::Arc;

use super::host::{HostMemory, MemoryKind};
use super::linear::Matrix;
use super::plan::Task;
use super::room::{Plain, Room};
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
pub struct Routed {
    pub(super) logits: Room<f32>,    // [n, N]
    pub(super) scores: Room<f64>,    // [n, N] room for the choice
    pub(super) keys: Room<i32>,      // [n, N] the same
    pub(super) ids: Room<u32>,       // [n, K] ascending in each row
    pub(super) shown: Room<f32>,     // [n, K] the same, for a tap
    pub(super) weights: Room<f32>,   // [n, K]
    pub(super) shared: Room<f32>,    // [n] what the shared expert is multiplied by
    pub(super) slots: Room<usize>,   // [n, K] the slot of a row's expert
    pub(super) starts: Room<usize>,  // [N + 1] the first slot of each expert
    pub(super) rows: Room<f32>,      // [n K, D] what the experts read, and then what they make
    pub(super) gate: Room<f32>,      // [n K, F]
    pub(super) up: Room<f32>,        // [n K, F]
    pub(super) quant: Room<XBlock>,  // [n K, max(D, F) / 32]
    pub(super) tasks: Vec<SlotTask>, // of gate and up, and then of down
}

impl Routed {
    /// Nothing yet; what grows is a host's, if there is one.
    pub fn new(memory: Option<&Arc<dyn HostMemory>>) -> Routed {
        fn room<T: Plain>(memory: Option<&Arc<dyn HostMemory>>) -> Room<T> {
            Room::new(memory, MemoryKind::Work)
        }
        Routed {
            logits: room(memory),
            scores: room(memory),
            keys: room(memory),
            ids: room(memory),
            shown: room(memory),
            weights: room(memory),
            shared: room(memory),
            slots: room(memory),
            starts: room(memory),
            rows: room(memory),
            gate: room(memory),
            up: room(memory),
            quant: room(memory),
            tasks: Vec::new(),
        }
    }

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
            v.sized(len)?;
        }
        self.scores.sized(n * all)?;
        self.keys.sized(n * all)?;
        self.ids.sized(slots)?;
        self.slots.sized(slots)?;
        self.starts.sized(all + 1)?;
        self.quant.sized(slots * d.max(f).div_ceil(32))?;
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
