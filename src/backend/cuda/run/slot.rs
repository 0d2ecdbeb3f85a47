//! One sequence's place on the device: its logits, its page tables, and the token chosen from the logits.
//!
//! Invariant: a slot's choice is of the logits in the slot; whatever writes these forgets it.

use std::any::Any;

use super::states::StateAt;
use crate::backend::Slot;
use crate::backend::cuda::driver::Buffer;
use crate::backend::cuda::kernels::abi::State;
use crate::backend::cuda::plan::tables::Tables;
use crate::backend::cuda::plan::workspace::Workspace;
use crate::error::{Error, Result};
use crate::model::MAX_CLASSES;

/// A choice from a slot's logits.
pub struct Choice {
    /// The parameters that it is made by.
    pub drawn: State,
    /// The position of the token that the logits follow.
    pub position: usize,
    /// Where in the ring the device leaves it.
    pub place: usize,
    /// Once it is made.
    pub token: Option<u32>,
    /// Whether somebody wanted it.
    pub asked: bool,
}

/// One sequence's logits and page tables on the device.
pub struct CudaSlot {
    /// [n_vocab] f32
    pub logits: Buffer,
    /// [classes of layers, capacity] addresses
    pub table: Buffer,
    /// Pages that there is room for.
    pub capacity: usize,
    /// The entries of each class that are right, from and to,
    pub bound: [(usize, usize); MAX_CLASSES],
    /// while the pool's epoch is this.
    pub epoch: u64,
    /// Whether its keys are turned by the ropes of long sessions.
    pub is_long: bool,
    /// Where its state is, before and behind the step that comes next.
    pub state: StateAt,
    /// Those that the tables name.
    pub pages: Vec<u32>,
    /// The choice of a token from these logits.
    pub choice: Option<Choice>,
    /// The parameters by which a step chooses a token at its end.
    pub wish: Option<State>,
}

impl Slot for CudaSlot {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl CudaSlot {
    /// Its page tables.
    pub fn tables(&self) -> Tables {
        Tables { first: self.table.at(), stride: self.capacity as u32 }
    }

    /// The logits change: the choice is forgotten, and if it was asked for the next is made likewise.
    pub fn start_choice(&mut self) {
        self.wish = self.choice.take().filter(|c| c.asked).map(|c| c.drawn);
    }

    /// What was queued has run, if `ran`.
    pub fn end_choice(&mut self, work: &Workspace, ran: bool) {
        match &mut self.choice {
            Some(choice) if ran => choice.token = Some(work.ring_token(choice.place)),
            choice => *choice = None,
        }
    }

    /// The choice by these parameters, if it was made.
    pub fn chosen(&mut self, drawn: &State, position: usize) -> Option<u32> {
        let choice = self.choice.as_mut().filter(|c| c.position == position && c.drawn == *drawn)?;
        choice.asked = true;
        choice.token
    }

    /// Keeps a choice that was made.
    pub fn chose(&mut self, drawn: State, position: usize, token: u32) {
        self.choice = Some(Choice { drawn, position, place: 0, token: Some(token), asked: true });
    }
}

/// This backend's slot.
pub fn slot_of(slot: &mut dyn Slot) -> Result<&mut CudaSlot> {
    slot.as_any().downcast_mut().ok_or_else(|| Error::Internal { message: "a slot of another backend".to_string() })
}
