//! A pass over the weights that parts of several sequences share.
//!
//! Invariants: a part's result is the one it would have alone; what goes wrong with one is nobody else's, not even a
//! panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::backend::{Chunk, LoadedModel, RunControl, StateUse, TapObserver, Want};
use crate::engine::figures::Clocks;
use crate::engine::slot::{SharedSlot, lock_slot};
use crate::error::{Error, Result};

/// Consecutive tokens of one sequence, with all that a pass on another thread needs of it.
pub(in crate::engine) struct Part {
    pub(in crate::engine) tokens: Vec<u32>,
    pub(in crate::engine) start: usize,
    pub(in crate::engine) pages: Vec<u32>,
    /// Not shared with a fork: a pass writes it.
    pub(in crate::engine) slot: SharedSlot,
    pub(in crate::engine) want: Want,
    /// The call's only token, as a generation appends them one by one.
    pub(in crate::engine) is_step: bool,
    /// See [`Chunk::by_steps`].
    pub(in crate::engine) by_steps: bool,
    /// See [`Chunk::state`]; the call that wants the pass holds them.
    pub(in crate::engine) state: Option<StateUse>,
    /// See [`Chunk::keeps_cache`].
    pub(in crate::engine) keeps_cache: bool,
    pub(in crate::engine) cancel: Arc<AtomicBool>,
    /// Its session's, and since when the pass has been wanted.
    pub(in crate::engine) clocks: Arc<Clocks>,
    pub(in crate::engine) since: Instant,
}

/// One pass over the weights for some of the parts; the results of all of them, in order.
fn forward<'a>(
    loaded: &dyn LoadedModel,
    parts: &[&Part],
    cancel: &'a AtomicBool,
    tap: Option<&'a mut dyn TapObserver>,
) -> Result<()> {
    let mut slots: Vec<_> = parts.iter().map(|p| lock_slot(&p.slot)).collect();
    let mut chunks: Vec<_> = parts
        .iter()
        .zip(&mut slots)
        .map(|(p, slot)| {
            let (tokens, start, pages, slot) = (&*p.tokens, p.start, &*p.pages, &mut ***slot);
            let (state, keeps_cache) = (p.state, p.keeps_cache);
            Chunk { tokens, start, pages, slot, want: p.want, by_steps: p.by_steps, state, keeps_cache }
        })
        .collect();
    let mut run = RunControl { cancel, tap };
    // A panic in a backend is a defect of the library; it may be one part's alone.
    catch_unwind(AssertUnwindSafe(|| loaded.forward(&mut chunks, &mut run))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(|s| &**s));
        let message = text.unwrap_or("a panic in the backend").to_owned();
        // Its destructor is code we do not know.
        std::mem::forget(panic);
        Err(Error::Internal { message })
    })
}

/// Runs one part, alone and on this thread, and shows its activations.
pub(super) fn run_tapped(loaded: &dyn LoadedModel, part: &Part, tap: &mut dyn TapObserver) -> Result<()> {
    forward(loaded, &[part], &part.cancel, Some(tap))
}

/// Runs the parts in one pass. Where that fails each is run alone, so that only whose fault it is fails: a pass that
/// fails has written nothing that its repetition would see. Why it has failed comes with the results.
pub(super) fn run(loaded: &dyn LoadedModel, parts: &[Part]) -> (Vec<Result<()>>, Option<Error>) {
    let alive = |p: &Part| !p.cancel.load(Ordering::Acquire);
    let together: Vec<&Part> = parts.iter().filter(|p| alive(p)).collect();
    let never = AtomicBool::new(false);
    let shared = (together.len() > 1).then(|| forward(loaded, &together, &never, None));
    let mut ran = together.iter().map(|p| std::ptr::from_ref(*p)).collect::<Vec<_>>().into_iter().peekable();
    let results = parts
        .iter()
        .map(|part| match ran.next_if_eq(&std::ptr::from_ref(part)) {
            None => Err(Error::Cancelled),
            Some(_) if matches!(shared, Some(Ok(()))) => Ok(()),
            Some(_) if part.cancel.load(Ordering::Acquire) => Err(Error::Cancelled),
            Some(_) => forward(loaded, &[part], &part.cancel, None),
        })
        .collect();
    (results, shared.and_then(Result::err))
}
