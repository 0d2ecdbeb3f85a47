//! Experts, of all rows of a round.
//!
//! Each row has a slot for each of its experts. Slots are sorted by expert, so that an expert's panels are read once for all
//! rows that go through it, and no other expert's at all. A row's results depend on the row alone: those of a slot do
//! (`linear`), and they are added up by row, the shared expert's first and then in ascending order of the ids.

use super::ffn::GateUp;
use super::forward::{CpuModel, Piece, Scratch, tap};
use super::linear::{Input, Matrix};
use super::plan::{ExpertsPlan, SideBySidePlan};
use super::routed::{Routed, SlotTask};
use super::simd::LANES;
use super::threads::{Shares, Turn};
use super::vector;
use crate::backend::RunControl;
use crate::error::Result;
use crate::model::{Experts, RouteRoom, sigmoid};

/// Slots `first .. first + n` of an input of all.
pub(super) fn of_slots<'a>(all: &Input<'a>, cols: usize, first: usize, n: usize) -> Input<'a> {
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
        let side = plan.side_by_side.as_ref();
        self.read_aside(turn, s, side.map(|side| &side.router_norm), n)?;
        self.route(turn, s, experts, plan, n)?;
        self.read_again(s, side.is_some());
        tap(run, pieces, "moe_logits", layer, experts.n, &s.routed.logits);
        tap(run, pieces, "moe_ids", layer, experts.n_used, &s.routed.shown);
        tap(run, pieces, "moe_weights", layer, experts.n_used, &s.routed.weights);
        s.routed.sort(experts.n, n * experts.n_used);
        self.read_aside(turn, s, side.map(|side| &side.experts_norm), n)?;
        self.expert_gate_up(turn, s, experts, plan, n)?;
        self.read_again(s, side.is_some());
        self.expert_down(turn, s, experts, plan, n)?;
        if let (Some(shared), Some(dense)) = (&experts.shared, &plan.shared) {
            self.gate_up(turn, s, dense, &shared.ffn, n)?;
            self.down(turn, s, dense, &shared.ffn, n)?;
        }
        match side {
            None => self.add_up(turn, s, experts, n),
            Some(side) => self.add_up_side(turn, s, experts, side, n),
        }
    }

    /// In the place of `h` the stream by another norm, where there is one: until [`Self::read_again`] it is what is read.
    fn read_aside(&self, turn: &Turn<'_>, s: &mut Scratch, norm: Option<&Vec<f32>>, n: usize) -> Result<()> {
        let Some(norm) = norm else { return Ok(()) };
        let (d, isa, eps) = (self.config.n_embd, self.isa, self.config.norm_eps);
        let (x, aside) = (&s.x[..n * d], Shares(s.aside[..n * d].as_mut_ptr()));
        // SAFETY: row r of both, sliced above; rows are disjoint.
        self.by_rows(turn, n, d, &|r| unsafe {
            vector::rms_norm(isa, x.as_ptr().add(r * d), norm.as_ptr(), aside.at(r * d), d, eps);
        })?;
        std::mem::swap(&mut s.h, &mut s.aside);
        Ok(())
    }

    /// What was read before [`Self::read_aside`].
    fn read_again(&self, s: &mut Scratch, aside: bool) {
        if aside {
            std::mem::swap(&mut s.h, &mut s.aside);
        }
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

    /// `h` is the sum of what all share has made of it and of what the row's experts have, each by a norm of its own.
    fn add_up_side(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        experts: &Experts,
        side: &SideBySidePlan,
        n: usize,
    ) -> Result<()> {
        let (d, k, isa, eps) = (self.config.n_embd, experts.n_used, self.isa, self.config.norm_eps);
        let Routed { rows, slots, weights, .. } = &s.routed;
        let (h, aside) = (Shares(s.h[..n * d].as_mut_ptr()), Shares(s.aside[..n * d].as_mut_ptr()));
        self.by_rows(turn, n, (k + 3) * d, &|row| {
            // SAFETY: row `row` of h and aside, sliced above; rows are disjoint. Each slot has a row of `d`.
            unsafe {
                let (out, sum) = (h.at(row * d), aside.at(row * d));
                std::slice::from_raw_parts_mut(sum, d).fill(0.0);
                for (slot, weight) in slots[row * k..][..k].iter().zip(&weights[row * k..][..k]) {
                    vector::add(isa, sum, rows[slot * d..][..d].as_ptr(), *weight, d);
                }
                vector::rms_norm(isa, sum, side.experts_post_norm.as_ptr(), sum, d, eps);
                vector::rms_norm(isa, out, side.shared_post_norm.as_ptr(), out, d, eps);
                vector::add(isa, out, sum, 1.0, d);
            }
        })
    }
}
