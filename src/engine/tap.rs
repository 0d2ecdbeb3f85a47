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
    /// `None`: each of them, and what is outside of one.
    layer: Option<i32>,
    sink: TapSink,
}

/// The bit of a name: none where there is no such activation.
pub(super) fn bit(name: &str) -> u64 {
    TAP_NAMES.iter().position(|known| *known == name).map_or(0, |bit| 1 << bit)
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
        Tap { mask, layer: None, sink }
    }

    /// Shows `sink` one activation of one layer.
    pub fn of(name: &str, layer: i32, sink: TapSink) -> Tap {
        Tap { mask: bit(name), layer: Some(layer), sink }
    }

    /// Whether an activation is meant.
    pub(super) fn wants(&self, name: &str, layer: i32) -> bool {
        self.mask & bit(name) != 0 && self.layer.is_none_or(|wanted| wanted == layer)
    }

    /// Shows the event if it is meant, whatever the backend asked; whether to go on.
    pub(super) fn show(&mut self, event: &TapEvent<'_>) -> bool {
        if !self.wants(event.name, event.layer) {
            return true;
        }
        INSIDE.set(true);
        let _inside = Inside;
        (self.sink)(event)
    }
}
