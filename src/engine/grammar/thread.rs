//! Where the grammars' parser runs: on a thread with a stack that suffices for it, its panics caught.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result};
use crate::process;

pub(in crate::engine) fn refused(what: impl std::fmt::Display) -> Error {
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

/// Runs it on a thread with a stack of so many bytes, since the parser recurses as deep as texts from anywhere make it; see
/// [`process::on_own_stack_while`]. A panic is a refusal.
pub(in crate::engine) fn on_own_stack<T: Send + 'static>(
    stack: usize,
    go_on: &mut dyn FnMut() -> bool,
    stop: &dyn Fn(),
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    process::on_own_stack_while("kigo-grammar", stack, go_on, stop, move || catch_panics(call))
}
