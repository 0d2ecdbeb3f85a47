//! The last error of a thread and of a handle: one line of text.
//!
//! Invariant: writing the text allocates nothing, so that it works when memory is exhausted.

use std::cell::UnsafeCell;
use std::ffi::c_char;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

/// Bytes of the text, its NUL included. `kigo_last_error`'s docs state it.
pub(super) const TEXT_BYTES: usize = 1024;

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

/// Makes this the thread's text.
pub(super) fn set_last_error(text: &dyn fmt::Display) {
    TEXT.with(|buffer| {
        let mut line = Line { bytes: buffer.get(), len: 0, full: false };
        // `Line` never fails; a Display that does leaves a shorter text.
        let _ = write!(line, "{text}");
        // SAFETY: len < TEXT_BYTES is `Line`'s invariant. The buffer belongs to this thread and no Rust reference to
        // its contents is ever made; a C caller reads it between calls only, as the header says.
        unsafe { line.bytes.cast::<u8>().add(line.len).write(0) };
    });
}
