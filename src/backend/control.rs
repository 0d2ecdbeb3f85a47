//! Who is asked while a backend works: how far a load is, whether a pass goes on and who sees it, what becomes of a token.

use std::sync::atomic::AtomicBool;

use super::{TapEvent, TapObserver};
use crate::error::Result;

/// Called by a backend while it loads.
pub trait LoadControl {
    /// `done` of `total` bytes are loaded; an error stops the load and is passed on.
    fn progress(&mut self, done: u64, total: u64) -> Result<()>;
}

/// What a running pass listens to.
pub struct RunControl<'a> {
    /// Checked between chunks of work; set, the call returns [`crate::error::Error::Cancelled`].
    pub cancel: &'a AtomicBool,
    /// Sees the activations that it wants. A tapped run's logits equal an untapped run's bit for bit.
    pub tap: Option<&'a mut dyn TapObserver>,
}

impl RunControl<'_> {
    /// Whether somebody wants to see this activation of this layer (-1: outside of one).
    pub fn wants(&self, name: &str, layer: i32) -> bool {
        self.tap.as_ref().is_some_and(|tap| tap.wants(name, layer))
    }

    /// Shows an activation to whoever [`Self::wants`] it.
    pub fn show(&mut self, event: &TapEvent<'_>) {
        if let Some(tap) = self.tap.as_mut().filter(|tap| tap.wants(event.name, event.layer)) {
            tap.show(event);
        }
    }
}

/// What becomes of a token chosen by [`super::LoadedModel::decode_ahead`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is appended, and the next is chosen. Where the call fails later, the last such token may not be in the cache.
    GoOn,
    /// It is appended, and that was the last.
    Last,
    /// It is not appended, and nothing more is chosen.
    Refused,
}
