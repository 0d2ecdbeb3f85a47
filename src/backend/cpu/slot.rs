//! A sequence's slot on the CPU: where its logits lie.

use std::any::Any;

use super::room::Room;
use crate::backend::Slot;
use crate::error::{Error, Result};

/// Logits of one sequence.
pub(super) struct CpuSlot {
    pub(super) logits: Room<f32>,
    /// Its session is one of `LongContext`.
    pub(super) is_long: bool,
}

impl Slot for CpuSlot {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// The slot as this backend made it.
pub(super) fn slot(slot: &mut dyn Slot) -> Result<&mut CpuSlot> {
    slot.as_any()
        .downcast_mut::<CpuSlot>()
        .ok_or_else(|| Error::Internal { message: "a slot of another backend".into() })
}
