//! Every call that can fail returns a `kigo_status`; 0 is success and the numbers are never reused. A caller
//! must be ready for a number that this header does not list. The call that fails also leaves one line of text
//! with the numbers behind, for its own thread: kigo_last_error().
//!
//! The condition of the handles after a failure is the one before the call, unless a function says otherwise.
//! Two statuses speak about the future: after KIGO_STATUS_POISONED and after KIGO_STATUS_INTERNAL on a session
//! only its destruction is useful; the model, the engine and all other sessions go on. KIGO_STATUS_INTERNAL is
//! a defect of this library; it is the one case in which the language's run time may write a line to stderr.

use super::last_error::last_error;
use crate::error::Status;
use std::ffi::c_char;

/// The result of a call: one of KIGO_STATUS_*.
pub type kigo_status = i32;

/// Success.
pub const KIGO_STATUS_OK: kigo_status = 0;
/// An argument is NULL, out of range, of the wrong size, or not one of the allowed values.
pub const KIGO_STATUS_INVALID_ARGUMENT: kigo_status = 1;
/// Memory of the host or the device is exhausted, or the engine's memory cap is reached.
pub const KIGO_STATUS_OUT_OF_MEMORY: kigo_status = 2;
/// A file cannot be opened or read.
pub const KIGO_STATUS_IO: kigo_status = 3;
/// The model file is malformed: it contradicts itself or its own size.
pub const KIGO_STATUS_INVALID_MODEL: kigo_status = 4;
/// The model file is well formed but needs something this library does not have.
pub const KIGO_STATUS_UNSUPPORTED: kigo_status = 5;
/// The named device does not exist on this machine, or this build has no code for it.
pub const KIGO_STATUS_DEVICE_UNAVAILABLE: kigo_status = 6;
/// The device failed while running; its engine is of no further use.
pub const KIGO_STATUS_DEVICE_LOST: kigo_status = 7;
/// A callback or kigo_session_cancel() stopped the call.
pub const KIGO_STATUS_CANCELLED: kigo_status = 8;
/// The session or stream is in use by another thread, or by the callback this call comes from.
pub const KIGO_STATUS_BUSY: kigo_status = 9;
/// The tokens do not fit into what is left of the session's context.
pub const KIGO_STATUS_CONTEXT_FULL: kigo_status = 10;
/// The model's pool of cache pages has too few free ones.
pub const KIGO_STATUS_CACHE_FULL: kigo_status = 11;
/// The call needs something that has not happened yet, such as logits before the first prefill.
pub const KIGO_STATUS_INVALID_STATE: kigo_status = 12;
/// The caller's buffer is too small; the needed size has been stored and nothing else.
pub const KIGO_STATUS_BUFFER_TOO_SMALL: kigo_status = 13;
/// An earlier internal failure left this handle unusable; destroy it.
pub const KIGO_STATUS_POISONED: kigo_status = 14;
/// A defect of the library, caught at its border. Please report the text.
pub const KIGO_STATUS_INTERNAL: kigo_status = 15;
/// There is nothing under that name, key or index.
pub const KIGO_STATUS_NOT_FOUND: kigo_status = 16;
/// A constraint cannot be compiled, or allows nothing of what there is.
pub const KIGO_STATUS_CONSTRAINT: kigo_status = 17;

/// The length of a text that comes in and ends at its NUL.
pub const KIGO_STRLEN: usize = usize::MAX;

/// The ABI's number of a status, and its name. A new status does not compile before it has both.
const fn row(status: Status) -> (kigo_status, &'static std::ffi::CStr) {
    match status {
        Status::Ok => (KIGO_STATUS_OK, c"KIGO_STATUS_OK"),
        Status::InvalidArgument => (KIGO_STATUS_INVALID_ARGUMENT, c"KIGO_STATUS_INVALID_ARGUMENT"),
        Status::OutOfMemory => (KIGO_STATUS_OUT_OF_MEMORY, c"KIGO_STATUS_OUT_OF_MEMORY"),
        Status::Io => (KIGO_STATUS_IO, c"KIGO_STATUS_IO"),
        Status::InvalidModel => (KIGO_STATUS_INVALID_MODEL, c"KIGO_STATUS_INVALID_MODEL"),
        Status::Unsupported => (KIGO_STATUS_UNSUPPORTED, c"KIGO_STATUS_UNSUPPORTED"),
        Status::DeviceUnavailable => (KIGO_STATUS_DEVICE_UNAVAILABLE, c"KIGO_STATUS_DEVICE_UNAVAILABLE"),
        Status::DeviceLost => (KIGO_STATUS_DEVICE_LOST, c"KIGO_STATUS_DEVICE_LOST"),
        Status::Cancelled => (KIGO_STATUS_CANCELLED, c"KIGO_STATUS_CANCELLED"),
        Status::Busy => (KIGO_STATUS_BUSY, c"KIGO_STATUS_BUSY"),
        Status::ContextFull => (KIGO_STATUS_CONTEXT_FULL, c"KIGO_STATUS_CONTEXT_FULL"),
        Status::CacheFull => (KIGO_STATUS_CACHE_FULL, c"KIGO_STATUS_CACHE_FULL"),
        Status::InvalidState => (KIGO_STATUS_INVALID_STATE, c"KIGO_STATUS_INVALID_STATE"),
        Status::BufferTooSmall => (KIGO_STATUS_BUFFER_TOO_SMALL, c"KIGO_STATUS_BUFFER_TOO_SMALL"),
        Status::Poisoned => (KIGO_STATUS_POISONED, c"KIGO_STATUS_POISONED"),
        Status::Internal => (KIGO_STATUS_INTERNAL, c"KIGO_STATUS_INTERNAL"),
        Status::NotFound => (KIGO_STATUS_NOT_FOUND, c"KIGO_STATUS_NOT_FOUND"),
        Status::Constraint => (KIGO_STATUS_CONSTRAINT, c"KIGO_STATUS_CONSTRAINT"),
    }
}

/// Every status, in the order of the numbers.
const ALL: [Status; 18] = [
    Status::Ok,
    Status::InvalidArgument,
    Status::OutOfMemory,
    Status::Io,
    Status::InvalidModel,
    Status::Unsupported,
    Status::DeviceUnavailable,
    Status::DeviceLost,
    Status::Cancelled,
    Status::Busy,
    Status::ContextFull,
    Status::CacheFull,
    Status::InvalidState,
    Status::BufferTooSmall,
    Status::Poisoned,
    Status::Internal,
    Status::NotFound,
    Status::Constraint,
];

const _: () = {
    let mut i = 0;
    while i < ALL.len() {
        assert!(row(ALL[i]).0 == i as kigo_status && ALL[i] as kigo_status == i as kigo_status);
        i += 1;
    }
};

/// The ABI's number of a status.
pub(super) const fn status_number(status: Status) -> kigo_status {
    row(status).0
}

/// The name of a status, such as "KIGO_STATUS_BUSY"; "KIGO_STATUS_UNKNOWN" for a number that this library does not
/// give. A constant: never NULL, never freed. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn kigo_status_name(status: kigo_status) -> *const c_char {
    let known = usize::try_from(status).ok().and_then(|i| ALL.get(i));
    known.map_or(c"KIGO_STATUS_UNKNOWN", |s| row(*s).1).as_ptr()
}

/// The text of the last call that failed on this thread: one line with the fact and the numbers, UTF-8 with a
/// terminating NUL, at most 1,023 bytes, empty if none has failed. Never NULL and never freed; valid until the
/// thread ends, and rewritten by the thread's next failing call. Calls that succeed leave it alone.
#[unsafe(no_mangle)]
pub extern "C" fn kigo_last_error() -> *const c_char {
    last_error()
}
