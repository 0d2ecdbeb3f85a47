//! A sequence's slot on its backend, which forks share until one of them runs a pass.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::Slot;

/// A slot that forks may share, which then only read it.
pub(super) type SharedSlot = Arc<Mutex<Box<dyn Slot>>>;

/// The slot, once forks that read it are done. A panic in another session's read has not written it.
pub(super) fn lock_slot(slot: &SharedSlot) -> MutexGuard<'_, Box<dyn Slot>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
