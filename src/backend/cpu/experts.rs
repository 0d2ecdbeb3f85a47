//! Experts, of all rows of a round.
//!
//! Each row has a slot for each of its experts. Slots are sorted by expert, so that an expert's panels are read once for all
//! rows that go through it, and no other expert's at all. A row's results depend on the row alone: those of a slot do
//! (`linear`), and they are added up by row, the shared expert's first and then in ascending order of the ids.

use super::ffn::GateUp;
use super::forward::{CpuModel, DensePlan, Piece, Scratch, Task, sized, tap};
use super::linear::{Input, Matrix};
use super::simd::{LANES, XBlock};
use super::threads::{Shares, Turn};
use super::vector;
use crate::alloc::reserve;
use crate::backend::RunControl;
use crate::error::Result;
use crate::model::{Experts, RouteRoom, Widths, sigmoid};

/// A feed-forward part of `N` experts, packed.
#[allow(missing_docs)]
pub struct ExpertsPlan {
    pub router: Matrix,
    pub router_tasks: Vec<Task>,
    pub router_bias: Option<Vec<f32>>, // [N]
    pub select_bias: Option<Vec<f32>>, // [N]
    pub gate: Vec<Matrix>,             // [N], none where experts have no gate
    pub up: Vec<Matrix>,               // [N]
    pub down: Vec<Matrix>,             // [N]
    pub gate_bias: Option<Vec<f32>>,   // [N, F]
    pub up_bias: Option<Vec<f32>>,     // [N, F]
    pub down_bias: Option<Vec<f32>>,   // [N, D]
    pub shared: Option<DensePlan>,
    pub shared_gate: Option<Vec<f32>>, // [D]
}

/// Panels of one expert for the slots `first .. first + n`.
#[derive(Clone, Copy)]
struct SlotTask {
    expert: usize,
    first: usize,
    n: usize,
    panels: Task,
}

/// Experts of a round's `n` rows: `N` at most, of which a row goes through `K`, so that there are `n K` slots.
#[derive(Default)]
pub struct Routed {
    logits: Vec<f32>,     // [n, N]
    scores: Vec<f64>,     // [n, N] room for the choice
    keys: Vec<i32>,       // [n, N] the same
    ids: Vec<u32>,        // [n, K] ascending in each row
    shown: Vec<f32>,      // [n, K] the same, for a tap
    weights: Vec<f32>,    // [n, K]
    shared: Vec<f32>,     // [n] what the shared expert is multiplied by
    slots: Vec<usize>,    // [n, K] the slot of a row's expert
    starts: Vec<usize>,   // [N + 1] the first slot of each expert
    rows: Vec<f32>,       // [n K, D] what the experts read, and then what they make
    gate: Vec<f32>,       // [n K, F]
    up: Vec<f32>,         // [n K, F]
    quant: Vec<XBlock>,   // [n K, max(D, F) / 32]
    tasks: Vec<SlotTask>, // of gate and up, and then of down
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

    fn size(&mut self, experts: &Experts, d: usize, n: usize) -> Result<()> {
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
    fn sort(&mut self, n_experts: usize, n_slots: usize) {
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
    fn cut(&mut self, matrices: &[Matrix], n_threads: usize) -> Result<()> {
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

/// Slots `first .. first + n` of an input of all.
fn of_slots<'a>(all: &Input<'a>, cols: usize, first: usize, n: usize) -> Input<'a> {
    let blocks = if all.quant.is_empty() { 0 } else { cols / 32 };
    Input { n, float: &all.float[first * cols..][..n * cols], quant: &all.quant[first * blocks..][..n * blocks] }
}

/// The part of a bias that is this expert's.
fn own(bias: &Option<Vec<f32>>, expert: usize, width: usize) -> Option<&[f32]> {
    bias.as_ref().map(|bias| &bias[expert * width..][..width])
}

impl CpuModel {
    /// `h = experts(h)` of all rows; `at` is the layer, and the round's rows.
    pub(super) fn experts(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        experts: &Experts,
        plan: &ExpertsPlan,
        at: (i32, usize, &[Piece]),
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        let (layer, n, pieces) = at;
        s.routed.size(experts, self.config.n_embd, n)?;
        self.route(turn, s, experts, plan, n)?;
        tap(run, pieces, "moe_logits", layer, experts.n, &s.routed.logits);
        tap(run, pieces, "moe_ids", layer, experts.n_used, &s.routed.shown);
        tap(run, pieces, "moe_weights", layer, experts.n_used, &s.routed.weights);
        s.routed.sort(experts.n, n * experts.n_used);
        self.expert_gate_up(turn, s, experts, plan, n)?;
        self.expert_down(turn, s, experts, plan, n)?;
        if let (Some(shared), Some(dense)) = (&experts.shared, &plan.shared) {
            self.gate_up(turn, s, dense, &shared.ffn, n)?;
            self.down(turn, s, dense, &shared.ffn, n)?;
        }
        self.add_up(turn, s, experts, n)
    }

    /// The router's logits, and each row's experts and weights.
    fn route(&self, turn: &Turn<'_>, s: &mut Scratch, experts: &Experts, plan: &ExpertsPlan, n: usize) -> Result<()> {
        let (d, all, k) = (self.config.n_embd, experts.n, experts.n_used);
        let Scratch { h, quant, routed, .. } = &mut *s;
        let input = self.input(turn, h, quant, n, d, plan.router.is_quantized())?;
        let out = [(Shares(routed.logits.as_mut_ptr()), all)];
        self.multiply(turn, std::slice::from_ref(&plan.router), &plan.router_tasks, &input, &out)?;
        self.bias(turn, &mut routed.logits, plan.router_bias.as_deref(), n)?;
        let logits = &routed.logits[..n * all];
        let (scores, keys) = (Shares(routed.scores.as_mut_ptr()), Shares(routed.keys.as_mut_ptr()));
        let (ids, weights) = (Shares(routed.ids.as_mut_ptr()), Shares(routed.weights.as_mut_ptr()));
        let (shown, shared) = (Shares(routed.shown.as_mut_ptr()), Shares(routed.shared.as_mut_ptr()));
        let h = &h[..n * d];
        // An exponential costs as much as some tens of additions.
        self.by_rows(turn, n, 32 * all, &|row| {
            // SAFETY: row `row` of each, sized by `Routed::size`; rows are disjoint.
            let (scores, keys, ids, weights, shown, shared) = unsafe {
                (
                    std::slice::from_raw_parts_mut(scores.at(row * all), all),
                    std::slice::from_raw_parts_mut(keys.at(row * all), all),
                    std::slice::from_raw_parts_mut(ids.at(row * k), k),
                    std::slice::from_raw_parts_mut(weights.at(row * k), k),
                    std::slice::from_raw_parts_mut(shown.at(row * k), k),
                    &mut *shared.at(row),
                )
            };
            let room = RouteRoom { scores, keys };
            experts.route(&logits[row * all..][..all], plan.select_bias.as_deref(), room, ids, weights);
            shown.iter_mut().zip(&*ids).for_each(|(shown, id)| *shown = *id as f32);
            *shared = plan.shared_gate.as_ref().map_or(1.0, |gate| {
                let products = gate.iter().zip(&h[row * d..][..d]).map(|(g, x)| f64::from(*g) * f64::from(*x));
                sigmoid(products.sum()) as f32
            });
        })
    }

    /// `gate = activation(Wgate h + bgate) * (Wup h + bup)` of each slot, by its expert's matrices.
    fn expert_gate_up(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        experts: &Experts,
        plan: &ExpertsPlan,
        n: usize,
    ) -> Result<()> {
        let (d, f, k) = (self.config.n_embd, experts.each.width, experts.n_used);
        let Scratch { h, routed, .. } = &mut *s;
        routed.cut(&plan.up, turn.n_threads())?;
        let Routed { rows, slots, quant, gate, up, tasks, .. } = &mut *routed;
        let (h, slots, to) = (&h[..n * d], &slots[..n * k], Shares(rows[..n * k * d].as_mut_ptr()));
        self.by_rows(turn, n, k * d, &|row| {
            for slot in &slots[row * k..][..k] {
                // SAFETY: there is a row of `d` for each slot, sliced above, and a slot is one row's.
                let to = unsafe { std::slice::from_raw_parts_mut(to.at(slot * d), d) };
                to.copy_from_slice(&h[row * d..][..d]);
            }
        })?;
        let is_quantized = [&plan.gate, &plan.up].into_iter().flatten().any(Matrix::is_quantized);
        let input = self.input(turn, rows, quant, n * k, d, is_quantized)?;
        let (gate, up, tasks) = (Shares(gate.as_mut_ptr()), Shares(up.as_mut_ptr()), &*tasks);
        turn.run(tasks.len(), &|i| {
            let SlotTask { expert, first, n, panels } = tasks[i];
            let parts = GateUp::new(
                plan.gate.get(expert).map(|matrix| (matrix, own(&plan.gate_bias, expert, f))),
                (&plan.up[expert], own(&plan.up_bias, expert, f)),
                experts.each.activation,
            );
            // SAFETY: gate and up hold a row of `f` for each slot; each task has slots and panels of its own.
            unsafe {
                let (gate, up) = (Shares(gate.at(first * f)), Shares(up.at(first * f)));
                self.gate_up_panels(&parts, panels, &of_slots(&input, d, first, n), f, gate, up);
            }
        })
    }

    /// `rows = Wdown gate + bdown` of each slot, by its expert's matrix.
    fn expert_down(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        experts: &Experts,
        plan: &ExpertsPlan,
        n: usize,
    ) -> Result<()> {
        let (d, f, k, isa) = (self.config.n_embd, experts.each.width, experts.n_used, self.isa);
        let routed = &mut s.routed;
        routed.cut(&plan.down, turn.n_threads())?;
        let Routed { rows, quant, gate, tasks, .. } = &mut *routed;
        let input = self.input(turn, gate, quant, n * k, f, plan.down.iter().any(Matrix::is_quantized))?;
        let (rows, tasks) = (Shares(rows.as_mut_ptr()), &*tasks);
        turn.run(tasks.len(), &|i| {
            let SlotTask { expert, first, n, panels } = tasks[i];
            let (a, b) = (panels.first * LANES, (panels.last * LANES).min(d));
            // SAFETY: there is a row of `d` for each slot; each task has slots and panels of its own.
            unsafe {
                let input = of_slots(&input, f, first, n);
                plan.down[expert].mul(isa, panels.first, panels.last, &input, rows.at(first * d), d);
                if let Some(bias) = own(&plan.down_bias, expert, d) {
                    for slot in first..first + n {
                        vector::add(isa, rows.at(slot * d + a), bias[a..b].as_ptr(), 1.0, b - a);
                    }
                }
            }
        })
    }

    /// `h` is what the shared expert has made of it, if there is one, and what the row's experts have, by their weights.
    fn add_up(&self, turn: &Turn<'_>, s: &mut Scratch, experts: &Experts, n: usize) -> Result<()> {
        let (d, k, isa) = (self.config.n_embd, experts.n_used, self.isa);
        let Routed { rows, slots, weights, shared, .. } = &s.routed;
        let h = Shares(s.h[..n * d].as_mut_ptr());
        self.by_rows(turn, n, (k + 1) * d, &|row| {
            // SAFETY: row `row` of h, sliced above; rows are disjoint. Each slot has a row of `d`.
            unsafe {
                let out = std::slice::from_raw_parts_mut(h.at(row * d), d);
                match experts.shared {
                    Some(own) if own.gated => out.iter_mut().for_each(|x| *x *= shared[row]),
                    Some(_) => {}
                    None => out.fill(0.0),
                }
                for (slot, weight) in slots[row * k..][..k].iter().zip(&weights[row * k..][..k]) {
                    let made = &rows[slot * d..][..d];
                    vector::add(isa, out.as_mut_ptr(), made.as_ptr(), *weight, d);
                }
            }
        })
    }
}
