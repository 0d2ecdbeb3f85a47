//! What a layer's feed-forward part computes, of all rows of a round.

use super::activation::activate;
use super::forward::{CpuModel, DensePlan, FfnPlan, Piece, Scratch, Task, tap};
use super::linear::{Input, Matrix};
use super::simd::LANES;
use super::threads::{Shares, Turn};
use super::vector;
use crate::backend::RunControl;
use crate::error::{Error, Result};
use crate::model::{Activation, Dense, Ffn};

/// The matrix whose rows are activated with its bias, and, where there is a gate, the one that they are multiplied by.
#[derive(Clone, Copy)]
pub(super) struct GateUp<'a> {
    pub first: (&'a Matrix, Option<&'a [f32]>),
    pub second: Option<(&'a Matrix, Option<&'a [f32]>)>,
    pub activation: Activation,
}

impl<'a> GateUp<'a> {
    /// Of gate, where there is one, and up.
    pub fn new(
        gate: Option<(&'a Matrix, Option<&'a [f32]>)>,
        up: (&'a Matrix, Option<&'a [f32]>),
        activation: Activation,
    ) -> GateUp<'a> {
        match gate {
            Some(gate) => GateUp { first: gate, second: Some(up), activation },
            None => GateUp { first: up, second: None, activation },
        }
    }

    /// Whether it reads a quantized input.
    pub fn is_quantized(&self) -> bool {
        self.first.0.is_quantized() || self.second.is_some_and(|(up, _)| up.is_quantized())
    }
}

impl CpuModel {
    /// `h = ffn(h)` of all rows.
    pub(super) fn ffn(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        index: usize,
        pieces: &[Piece],
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        let n = pieces.iter().map(|p| p.len()).sum::<usize>();
        match (&self.config.layers[index].ffn, &self.layers[index].ffn) {
            (Ffn::Dense(dense), FfnPlan::Dense(plan)) => {
                self.gate_up(turn, s, plan, dense, n)?;
                tap(run, pieces, "ffn_act", index as i32, dense.width, &s.gate);
                self.down(turn, s, plan, dense, n)
            }
            (Ffn::Experts(experts), FfnPlan::Experts(plan)) => {
                self.experts(turn, s, experts, plan, (index as i32, n, pieces), run)
            }
            _ => {
                Err(Error::Internal { message: format!("layer {index} has the weights of another feed-forward part") })
            }
        }
    }

    /// `gate = activation(Wgate h + bgate) * (Wup h + bup)`, or `activation(Wup h + bup)` where there is no gate.
    pub(super) fn gate_up(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        plan: &DensePlan,
        dense: &Dense,
        n: usize,
    ) -> Result<()> {
        let Scratch { h, quant, gate, up, .. } = &mut *s;
        let parts = GateUp::new(
            plan.gate.as_ref().map(|matrix| (matrix, plan.gate_bias.as_deref())),
            (&plan.up, plan.up_bias.as_deref()),
            dense.activation,
        );
        let input = self.input(turn, h, quant, n, self.config.n_embd, parts.is_quantized())?;
        let (gate, up) = (Shares(gate.as_mut_ptr()), Shares(up.as_mut_ptr()));
        let tasks = &plan.up_tasks;
        // SAFETY: gate and up hold n rows of the part's width; each task has panels of its own.
        turn.run(tasks.len(), &|i| unsafe { self.gate_up_panels(&parts, tasks[i], &input, dense.width, gate, up) })
    }

    /// The rows of some panels of gate and up, activated.
    ///
    /// # Safety
    /// `gate` and `up` may be written at these rows for each of the input's tokens, `f` elements apart, by nobody else
    /// meanwhile.
    pub(super) unsafe fn gate_up_panels(
        &self,
        parts: &GateUp<'_>,
        task: Task,
        input: &Input<'_>,
        f: usize,
        gate: Shares<f32>,
        up: Shares<f32>,
    ) {
        let (isa, Task { first, last, .. }) = (self.isa, task);
        let (a, b) = (first * LANES, (last * LANES).min(f));
        // SAFETY: columns a .. b of gate and up are the caller's to give.
        unsafe {
            let add = |x: *mut f32, bias: Option<&[f32]>| {
                if let Some(bias) = bias {
                    vector::add(isa, x, bias[a..b].as_ptr(), 1.0, b - a);
                }
            };
            parts.first.0.mul(isa, first, last, input, gate.at(0), f);
            if let Some((matrix, _)) = parts.second {
                matrix.mul(isa, first, last, input, up.at(0), f);
            }
            for row in 0..input.n {
                let gate = gate.at(row * f + a);
                add(gate, parts.first.1);
                let up = parts.second.map(|(_, bias)| {
                    let up = up.at(row * f + a);
                    add(up, bias);
                    up.cast_const()
                });
                activate(isa, parts.activation, gate, up, b - a);
            }
        }
    }

    /// `h = Wdown gate + bdown`.
    pub(super) fn down(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        plan: &DensePlan,
        dense: &Dense,
        n: usize,
    ) -> Result<()> {
        let Scratch { h: hidden, quant, gate, .. } = &mut *s;
        let input = self.input(turn, gate, quant, n, dense.width, plan.down.is_quantized())?;
        let out = [(Shares(hidden.as_mut_ptr()), self.config.n_embd)];
        self.multiply(turn, std::slice::from_ref(&plan.down), &plan.down_tasks, &input, &out)?;
        self.bias(turn, &mut s.h, plan.down_bias.as_deref(), n)
    }
}
