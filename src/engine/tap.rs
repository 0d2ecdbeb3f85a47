//! A session's tap: who sees which of its activations.
//!
//! Invariant: while a tap is being called, its thread starts no call of any session and no load (they are
//! [`Error::Busy`]), since the pass that it looks into holds the device.

use std::cell::Cell;

use crate::backend::{TAP_NAMES, TapEvent};
use crate::error::{Error, Result};

/// Sees an activation; returns whether to go on.
pub type TapSink = Box<dyn FnMut(&TapEvent<'_>) -> bool + Send>;

/// Who sees which activations.
pub struct Tap {
    mask: u64,
    sink: TapSink,
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread may start a call: not from inside a tap.
pub(super) fn not_inside() -> Result<()> {
    if INSIDE.get() { Err(Error::Busy) } else { Ok(()) }
}

/// Whatever ends the sink's call, the thread has left it.
struct Inside;

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

impl Tap {
    /// Shows `sink` the activations whose bit, by index in [`TAP_NAMES`], is in `mask`.
    pub fn new(mask: u64, sink: TapSink) -> Tap {
        Tap { mask, sink }
    }

    /// Shows the event if it is meant; whether to go on.
    pub(super) fn show(&mut self, event: &TapEvent<'_>) -> bool {
        let bit = TAP_NAMES.iter().position(|name| *name == event.name);
        if bit.is_none_or(|bit| self.mask & 1 << bit == 0) {
            return true;
        }
        INSIDE.set(true);
        let _inside = Inside;
        (self.sink)(event)
    }
}
