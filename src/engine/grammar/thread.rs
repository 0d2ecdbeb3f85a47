//! Where the grammars' parser runs: on a thread with a stack that suffices for it, its panics caught.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::process;

pub(super) fn refused(what: impl std::fmt::Display) -> Error {
    Error::Constraint { message: what.to_string() }
}

/// Turns a panic into a refusal. The parser's own guard catches it first: while that is in place nothing is printed.
pub(super) fn catch_panics<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut outcome = None;
    let guarded = AssertUnwindSafe(|| {
        outcome = Some(call());
        Ok(())
    });
    let caught = catch_unwind(AssertUnwindSafe(|| llguidance::panic_utils::catch_unwind(guarded)));
    match (caught, outcome) {
        (Ok(Ok(())), Some(outcome)) => outcome,
        _ => Err(refused("the grammar's parser failed")),
    }
}

/// How long the caller's `go_on` waits to be asked again.
const POLL: Duration = Duration::from_millis(5);

/// Runs it on a thread with a stack of so many bytes, since the parser recurses as deep as texts from anywhere make it.
/// Meanwhile `go_on` is asked on the caller's thread; `stop` is called once it says no. The thread owns what it works on, and
/// has ended when this returns.
pub(super) fn on_own_stack<T: Send + 'static>(
    stack: usize,
    go_on: &mut dyn FnMut() -> bool,
    stop: &dyn Fn(),
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (done, waits) = sync_channel::<()>(1);
    let run = move || {
        // The receiver is told by this being dropped, also by a panic.
        let _done = done;
        catch_panics(call)
    };
    let thread = process::spawn("kigo-grammar", stack, run)?;
    let mut stopped = false;
    while !stopped && waits.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
        stopped = !go_on();
    }
    if stopped {
        stop();
    }
    let outcome = thread.join().unwrap_or_else(|_| Err(refused("the grammar's parser failed")));
    if stopped { Err(Error::Cancelled) } else { outcome }
}
