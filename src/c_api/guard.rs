//! The one guard that every entry runs in, and the last error of a thread and of a handle.
//!
//! Invariants: no panic leaves [`guard`]; a status other than OK is never returned without its text being written on
//! the same thread; writing the text allocates nothing, so that it works when memory is exhausted.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ffi::c_char;
use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use super::status::{KIGO_STATUS_OK, kigo_status, status_number};
use crate::alloc;
use crate::error::{Error, Result, Status};
use crate::process;

#[cfg(panic = "abort")]
compile_error!("kigo turns panics into statuses at its border; build it with panic = \"unwind\"");

/// Bytes of the text, its NUL included. `kigo_last_error`'s docs state it.
const TEXT_BYTES: usize = 1024;

thread_local! {
    static TEXT: UnsafeCell<[u8; TEXT_BYTES]> = const { UnsafeCell::new([0; TEXT_BYTES]) };
}

/// The thread's text, NUL-terminated.
pub(super) fn last_error() -> *const c_char {
    TEXT.with(|text| text.get().cast::<c_char>().cast_const())
}

/// The text of the last call with a handle that failed, on whichever thread.
pub(super) struct LastError(Mutex<(usize, [u8; TEXT_BYTES])>);

impl LastError {
    pub(super) fn new() -> Arc<LastError> {
        Arc::new(LastError(Mutex::new((0, [0; TEXT_BYTES]))))
    }

    /// Whoever has it copies a kilobyte: unless that thread is gone (a child of fork()) or interrupted (a signal handler),
    /// a moment's patience is enough.
    fn lock(&self) -> Option<MutexGuard<'_, (usize, [u8; TEXT_BYTES])>> {
        for _ in 0..1000 {
            match self.0.try_lock() {
                Ok(text) => return Some(text),
                Err(TryLockError::Poisoned(text)) => return Some(text.into_inner()),
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        }
        None
    }

    pub(super) fn set(&self, text: &dyn fmt::Display) {
        let Some(mut held) = self.lock() else { return };
        let mut line = Line { bytes: &raw mut held.1, len: 0, full: false };
        let _ = write!(line, "{text}");
        held.0 = line.len;
    }

    /// Hands the text to `read`; nothing where no call has failed.
    pub(super) fn read<T>(&self, read: impl FnOnce(&[u8]) -> T) -> T {
        // Copied, so that nobody waits for what `read` does.
        let (len, text) = self.lock().map_or((0, [0; TEXT_BYTES]), |held| *held);
        read(&text[..len])
    }
}

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

/// Writes as much as fits, cut at a character, and a NUL.
struct Line {
    bytes: *mut [u8; TEXT_BYTES],
    len: usize,
    full: bool,
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            // One line: what the text quotes may hold line breaks.
            let c = if c.is_control() { ' ' } else { c };
            let mut utf8 = [0u8; 4];
            let part = c.encode_utf8(&mut utf8).as_bytes();
            if self.full || self.len + part.len() >= TEXT_BYTES {
                self.full = true;
                break;
            }
            // SAFETY: `bytes` is this thread's buffer (see `set_last_error`) or a locked one, and len + part.len() <
            // TEXT_BYTES was just checked.
            unsafe {
                self.bytes.cast::<u8>().add(self.len).copy_from_nonoverlapping(part.as_ptr(), part.len());
            }
            self.len += part.len();
        }
        Ok(())
    }
}

fn set_last_error(text: &dyn fmt::Display) {
    TEXT.with(|buffer| {
        let mut line = Line { bytes: buffer.get(), len: 0, full: false };
        // `Line` never fails; a Display that does leaves a shorter text.
        let _ = write!(line, "{text}");
        // SAFETY: len < TEXT_BYTES is `Line`'s invariant. The buffer belongs to this thread and no Rust reference to
        // its contents is ever made; a C caller reads it between calls only, as the header says.
        unsafe { line.bytes.cast::<u8>().add(line.len).write(0) };
    });
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

/// As [`guard`], for what frees memory and so must work where there is none.
pub(super) fn guard_free(entry: impl FnOnce() -> Result<()>) -> kigo_status {
    let _inside = process::enter();
    run(false, entry)
}

/// As [`guard`], for a signal handler: it neither computes nor allocates.
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
