//! The one guard that every entry runs in.
//!
//! Invariants: no panic leaves [`guard`]; a status other than OK is never returned without its text being written on
//! the same thread.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::last_error::{LastError, set_last_error};
use super::status::{KIGO_STATUS_OK, kigo_status, status_number};
use crate::alloc;
use crate::error::{Error, Result, Status};
use crate::process;

#[cfg(panic = "abort")]
compile_error!("kigo turns panics into statuses at its border; build it with panic = \"unwind\"");

thread_local! {
    /// The handle that this thread's running call is about, as `Arc::into_raw` gives it.
    static SUBJECT: Cell<*const LastError> = const { Cell::new(std::ptr::null()) };
    /// Whether the running call is one that allocates.
    static NEEDS_MEMORY: Cell<bool> = const { Cell::new(false) };
}

fn give_up(subject: *const LastError) {
    if !subject.is_null() {
        // SAFETY: only `Arc::into_raw`'s pointers are put into SUBJECT, and each is taken out of it once.
        drop(unsafe { Arc::from_raw(subject) });
    }
}

/// The running call is about this handle: its failure becomes the handle's last error. Of several, the last.
pub(super) fn about(handle: &Arc<LastError>) {
    give_up(SUBJECT.replace(Arc::into_raw(Arc::clone(handle))));
}

/// The running call is about several handles, and has told each.
pub(super) fn about_several() {
    give_up(SUBJECT.replace(std::ptr::null()));
}

/// Runs an entry: its failure, or its panic, becomes a status and the thread's text. Inside, the floating-point state is
/// the default one, and panics print nothing.
pub(super) fn guard(entry: impl FnOnce() -> Result<()>) -> kigo_status {
    if !alloc::thread_can_begin() {
        // The thread's text is memory that the system would first have to make.
        return status_number(Status::OutOfMemory);
    }
    let _inside = process::enter();
    run(true, || {
        alloc::begin();
        entry()
    })
}

/// [`guard`] for what frees memory and so must work where there is none.
pub(super) fn guard_free(entry: impl FnOnce() -> Result<()>) -> kigo_status {
    let _inside = process::enter();
    run(false, entry)
}

/// [`guard`] for a signal handler: it neither computes nor allocates.
pub(super) fn signal_safe(entry: impl FnOnce() -> Result<()>) -> kigo_status {
    run(false, entry)
}

/// `OutOfMemory` where the running call needs memory and there is none. Asked once its outputs are nulled.
pub(super) fn room() -> Result<()> {
    if NEEDS_MEMORY.get() { alloc::room() } else { Ok(()) }
}

fn run(needs_memory: bool, entry: impl FnOnce() -> Result<()>) -> kigo_status {
    // The call may come from inside a callback of another's, or a signal's handler.
    let outer = SUBJECT.replace(std::ptr::null());
    let needed = NEEDS_MEMORY.replace(needs_memory);
    let hook = process::exchange_hook(None);
    let status = match catch_unwind(AssertUnwindSafe(entry)) {
        Ok(Ok(())) => KIGO_STATUS_OK,
        Ok(Err(error)) => {
            failed(&error);
            status_of(&error)
        }
        Err(payload) => {
            failed(&Error::Internal { message: panic_text(&*payload) });
            // A payload's destructor is code we do not know; leaking it is better than a second panic here.
            std::mem::forget(payload);
            status_number(Status::Internal)
        }
    };
    give_up(SUBJECT.replace(outer));
    NEEDS_MEMORY.set(needed);
    process::exchange_hook(hook);
    status
}

/// The text goes to the thread, and to the handle that the call was about.
fn failed(error: &Error) {
    set_last_error(error);
    let subject = SUBJECT.get();
    if !subject.is_null() {
        // SAFETY: SUBJECT holds a reference to it until `give_up`.
        unsafe { &*subject }.set(error);
    }
}

/// The number of a failure. `Error::status` has no `_` arm, nor has the table behind `status_number`.
pub(super) fn status_of(error: &Error) -> kigo_status {
    status_number(error.status())
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let known = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(|s| &**s));
    known.unwrap_or("panic").to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::last_error::{TEXT_BYTES, last_error};
    use super::*;
    use std::ffi::CStr;

    fn text() -> String {
        // SAFETY: the buffer is NUL-terminated and nothing writes it while it is copied.
        unsafe { CStr::from_ptr(last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_failure_leaves_its_text_and_success_leaves_it_alone() {
        assert_eq!(guard(|| Err(Error::Null { name: "engine" })), 1);
        assert_eq!(text(), "engine is NULL");
        assert_eq!(guard(|| Ok(())), 0);
        assert_eq!(text(), "engine is NULL");
        std::thread::spawn(|| assert_eq!(text(), "")).join().unwrap();
    }

    #[test]
    fn a_long_text_is_cut_at_a_character_and_stays_one_line() {
        guard(|| Err(Error::Internal { message: "a\nb".to_owned() + &"ü".repeat(2000) }));
        let text = text();
        assert!(text.starts_with("internal: a bü") && text.ends_with('ü'), "{text}");
        assert!(text.len() >= TEXT_BYTES - 2 && text.len() < TEXT_BYTES, "{}", text.len());
    }

    #[test]
    fn a_panic_becomes_internal() {
        assert_eq!(guard(|| std::panic::resume_unwind(Box::new("boom"))), 15);
        assert_eq!(text(), "internal: boom");
    }
}
