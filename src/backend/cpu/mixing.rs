//! What the ways of a round's rows through mixers with a state need.

use std::sync::Arc;

use super::host::{HostMemory, MemoryKind};
use super::room::Room;
use crate::error::Result;
use crate::model::Widths;

/// Activations of a round's `n` rows.
pub struct Mixing {
    pub(super) input: Room<f32>, // [n, in_width]
    pub(super) conv: Room<f32>,  // [n, C]
    pub(super) gate: Room<f32>,  // [n, W], or as wide as queries
    pub(super) beta: Room<f32>,  // [n, N]
    pub(super) decay: Room<f32>, // [n, N]
    pub(super) out: Room<f32>,   // [n, D]
}

impl Mixing {
    /// Nothing yet; what grows is a host's, if there is one.
    pub fn new(memory: Option<&Arc<dyn HostMemory>>) -> Mixing {
        let room = || Room::new(memory, MemoryKind::Work);
        Mixing { input: room(), conv: room(), gate: room(), beta: room(), decay: room(), out: room() }
    }

    /// Elements of a row.
    pub fn row(most: &Widths, d: usize) -> usize {
        let out = if most.mix_in > 0 { d } else { 0 };
        most.mix_in + most.conv + most.mix_out.max(most.gated_q) + 2 * most.gates + out
    }

    /// Room for `n` rows.
    pub fn size(&mut self, most: &Widths, d: usize, n: usize) -> Result<()> {
        let out = if most.mix_in > 0 { d } else { 0 };
        for (room, len) in [
            (&mut self.input, most.mix_in),
            (&mut self.conv, most.conv),
            (&mut self.gate, most.mix_out.max(most.gated_q)),
            (&mut self.beta, most.gates),
            (&mut self.decay, most.gates),
            (&mut self.out, out),
        ] {
            room.sized(n * len)?;
        }
        Ok(())
    }
}
