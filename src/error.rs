//! Every failure of the library as one enum of values; the sentence is made from them in one place.
//!
//! Invariant: each variant maps to exactly one [`Status`] (`Error::status` has no `_` arm), and carries
//! the numbers that explain it.

use std::fmt;

/// The result of every fallible call inside the library.
pub type Result<T> = std::result::Result<T, Error>;

/// What a failure is to the caller. Numbers are part of the ABI and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Status {
    /// Success.
    Ok = 0,
    /// An argument is NULL, out of range, of the wrong size, or not one of the allowed values.
    InvalidArgument = 1,
    /// Memory (host or device) or the engine's memory cap is exhausted.
    OutOfMemory = 2,
    /// A file cannot be opened or read.
    Io = 3,
    /// The model file is malformed: it contradicts itself or its own size.
    InvalidModel = 4,
    /// The model file is well formed but needs something this library does not have.
    Unsupported = 5,
    /// The named device does not exist on this machine, or this build has no code for it.
    DeviceUnavailable = 6,
    /// The device failed while running; the engine is poisoned.
    DeviceLost = 7,
    /// A callback or `kigo_session_cancel` stopped the call.
    Cancelled = 8,
    /// The session is in use by another thread, or by the callback this call came from.
    Busy = 9,
    /// The tokens do not fit into what is left of the session's context.
    ContextFull = 10,
    /// The cache's pool has too few free pages.
    CacheFull = 11,
    /// The call needs something that has not happened yet, such as logits before the first prefill.
    InvalidState = 12,
    /// The caller's buffer is too small; the needed size has been stored.
    BufferTooSmall = 13,
    /// An earlier internal failure left this handle unusable; destroy it.
    Poisoned = 14,
    /// A defect of the library, caught at its border.
    Internal = 15,
    /// There is nothing under that name or key.
    NotFound = 16,
    /// A constraint cannot be compiled, or allows nothing of what there is.
    Constraint = 17,
}

/// What is wrong with a number or a place in a GGUF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GgufFault {
    /// `found` exceeds `limit`.
    TooLarge,
    /// `found` is below `limit`.
    TooSmall,
    /// `found` should equal `limit`.
    Mismatch,
    /// `found` is not a multiple of `limit`.
    Misaligned,
    /// The value is not one of those the format defines.
    Unknown,
    /// Needed, and not there.
    Missing,
    /// The bytes are not valid UTF-8.
    NotUtf8,
    /// Stands twice.
    Duplicate,
    /// The value is of another metadata type than the one needed.
    WrongType,
    /// Two byte ranges share bytes.
    Overlap,
}

/// A failure, as values.
#[derive(Debug)]
pub enum Error {
    /// A pointer argument is NULL.
    Null {
        /// The argument's name.
        name: &'static str,
    },
    /// An argument is outside of what is allowed.
    Argument {
        /// The argument's name.
        name: &'static str,
        /// What was given.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// A token id that the vocabulary does not have.
    TokenOutOfRange {
        /// Index into the caller's array.
        index: usize,
        /// The id.
        token: u32,
        /// Ids are below this.
        n_vocab: usize,
    },
    /// An allocation failed or would exceed the cap.
    OutOfMemory {
        /// Where: "host", "thread" (its stack), "alloc" (the host's function), "cuda:0", or "memory cap".
        place: String,
        /// Bytes asked for.
        requested: u64,
        /// Bytes that were free; on the host, for a thread and from `alloc` 0 where nothing says how many.
        free: u64,
    },
    /// An operation on a file failed.
    Io {
        /// The path.
        path: String,
        /// The operation: "open", "read".
        what: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is malformed.
    Gguf {
        /// The field, such as `tensor "blk.0.attn_q.weight" offset`.
        field: String,
        /// Byte offset in the file of the field.
        offset: u64,
        /// What is wrong.
        fault: GgufFault,
        /// The number found.
        found: u64,
        /// The number it was checked against.
        limit: u64,
    },
    /// The file is consistent, but its contents do not make a model.
    Model {
        /// The key or tensor.
        name: String,
        /// What was found.
        found: String,
        /// What is needed.
        expected: String,
    },
    /// The file asks for something this library does not have.
    Unsupported {
        /// What: "architecture", "tensor type", "pre-tokenizer".
        what: &'static str,
        /// Its name in the file.
        name: String,
    },
    /// A key or tensor of the file has a value that this library does not know what to do with.
    UnsupportedValue {
        /// The key or tensor.
        name: String,
        /// What it is.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// The chat template or the messages cannot be rendered.
    Template {
        /// The template engine's message.
        message: String,
    },
    /// No such device.
    DeviceUnavailable {
        /// The device string.
        device: String,
        /// Why.
        reason: String,
    },
    /// The device failed.
    DeviceLost {
        /// The device string.
        device: String,
        /// The driver's code.
        code: i64,
        /// The driver's name for it.
        reason: String,
    },
    /// Stopped by the caller.
    Cancelled,
    /// Stopped by a function of the host's that could not do what it was to do, and by no cancel.
    Refused {
        /// The function: "parallel_for", "on_thread".
        what: &'static str,
    },
    /// In use.
    Busy,
    /// Too many tokens for the context.
    ContextFull {
        /// Tokens the session holds.
        n_tokens: usize,
        /// Tokens to be added.
        n_new: usize,
        /// The session's context length.
        n_ctx: usize,
    },
    /// Too few free pages.
    CacheFull {
        /// Pages needed.
        needed: usize,
        /// Pages free.
        free: usize,
        /// Pages in the pool.
        total: usize,
    },
    /// Called too early or too late.
    State {
        /// What is missing.
        needs: &'static str,
    },
    /// The buffer is too small.
    BufferTooSmall {
        /// Elements needed.
        needed: usize,
        /// Elements there are.
        capacity: usize,
    },
    /// A function of the host's did what it must not do.
    Host {
        /// The function: "parallel_for".
        what: &'static str,
        /// What it did.
        found: String,
    },
    /// A call from inside a function of the host's that no call may come from.
    Enclosed {
        /// The function: "alloc".
        by: &'static str,
    },
    /// The handle is unusable after an earlier failure.
    Poisoned {
        /// The handle: "session", "engine".
        what: &'static str,
    },
    /// A defect; the text is a panic's message or a broken invariant.
    Internal {
        /// What happened.
        message: String,
    },
    /// What failed is one entry of a call's array.
    Entry {
        /// Its index.
        index: usize,
        /// Its failure.
        error: Box<Error>,
    },
    /// A grammar is wrong, or allows nothing more.
    Constraint {
        /// The parser's text.
        message: String,
    },
    /// The handle was made by a process of which this one is a child by fork().
    Forked {
        /// The process that made it.
        made_by: u32,
        /// This process.
        here: u32,
    },
    /// No such key.
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Its name.
        name: String,
    },
}

impl Error {
    /// The ABI's status of this failure.
    pub fn status(&self) -> Status {
        match self {
            Error::Null { .. } | Error::Argument { .. } | Error::TokenOutOfRange { .. } | Error::Template { .. } => {
                Status::InvalidArgument
            }
            Error::OutOfMemory { .. } => Status::OutOfMemory,
            Error::Io { .. } => Status::Io,
            Error::Gguf { .. } | Error::Model { .. } => Status::InvalidModel,
            Error::Unsupported { .. } | Error::UnsupportedValue { .. } => Status::Unsupported,
            Error::DeviceUnavailable { .. } => Status::DeviceUnavailable,
            Error::DeviceLost { .. } => Status::DeviceLost,
            Error::Cancelled | Error::Refused { .. } => Status::Cancelled,
            Error::Busy | Error::Enclosed { .. } => Status::Busy,
            Error::ContextFull { .. } => Status::ContextFull,
            Error::CacheFull { .. } => Status::CacheFull,
            Error::State { .. } | Error::Forked { .. } | Error::Host { .. } => Status::InvalidState,
            Error::BufferTooSmall { .. } => Status::BufferTooSmall,
            Error::Poisoned { .. } => Status::Poisoned,
            Error::Internal { .. } => Status::Internal,
            Error::Entry { error, .. } => error.status(),
            Error::Constraint { .. } => Status::Constraint,
            Error::NotFound { .. } => Status::NotFound,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Null { name } => write!(f, "{name} is NULL"),
            Error::Argument { name, found, expected } => write!(f, "{name} is {found}; expected {expected}"),
            Error::TokenOutOfRange { index, token, n_vocab } => {
                write!(f, "token {token} at index {index} is not below the vocabulary's {n_vocab}")
            }
            Error::OutOfMemory { place, requested, free: 0 } if matches!(&**place, "host" | "thread" | "alloc") => {
                write!(f, "{place}: {requested} bytes requested")
            }
            Error::OutOfMemory { place, requested, free } => {
                write!(f, "{place}: {requested} bytes requested, {free} bytes free")
            }
            Error::Io { path, what, source } => write!(f, "{path}: cannot {what}: {source}"),
            Error::Gguf { field, offset, fault, found, limit } => {
                write!(f, "{field} at byte {offset}: ")?;
                match fault {
                    GgufFault::TooLarge => write!(f, "{found} is more than {limit}"),
                    GgufFault::TooSmall => write!(f, "{found} is less than {limit}"),
                    GgufFault::Mismatch => write!(f, "{found} where {limit} was expected"),
                    GgufFault::Misaligned => write!(f, "{found} is not a multiple of {limit}"),
                    GgufFault::Unknown => write!(f, "unknown value {found}; known are values below {limit}"),
                    GgufFault::Missing => write!(f, "missing; found {found} of {limit}"),
                    GgufFault::NotUtf8 => write!(f, "not UTF-8 after {found} of {limit} bytes"),
                    GgufFault::Duplicate => write!(f, "stands twice: entry {found} repeats entry {limit}"),
                    GgufFault::WrongType => write!(f, "metadata type {found} where type {limit} was expected"),
                    GgufFault::Overlap => write!(f, "starts at {found} before {limit}, the end of another"),
                }
            }
            Error::Model { name, found, expected } | Error::UnsupportedValue { name, found, expected } => {
                write!(f, "{name} is {found}; expected {expected}")
            }
            Error::Unsupported { what, name } => write!(f, "{what} \"{name}\" is not supported"),
            Error::Template { message } => write!(f, "chat template: {message}"),
            Error::DeviceUnavailable { device, reason } => write!(f, "device \"{device}\" is unavailable: {reason}"),
            Error::DeviceLost { device, code, reason } => {
                write!(f, "device \"{device}\" failed with {code} ({reason})")
            }
            Error::Cancelled => write!(f, "cancelled"),
            Error::Refused { what } => write!(f, "cancelled by {what}"),
            Error::Busy => write!(f, "the session is in use by another call"),
            Error::ContextFull { n_tokens, n_new, n_ctx } => {
                write!(f, "{n_tokens} tokens held and {n_new} to add exceed the context of {n_ctx}")
            }
            Error::CacheFull { needed, free, total } => {
                write!(f, "{needed} cache pages needed, {free} of {total} free")
            }
            Error::State { needs } => write!(f, "needs {needs}"),
            Error::BufferTooSmall { needed, capacity } => {
                write!(f, "buffer holds {capacity}, {needed} needed")
            }
            Error::Host { what, found } => write!(f, "{what} {found}"),
            Error::Enclosed { by } => write!(f, "a call from inside of the engine's {by}"),
            Error::Poisoned { what } => write!(f, "the {what} is unusable after an earlier failure"),
            Error::Internal { message } => write!(f, "internal: {message}"),
            Error::Entry { index, error } => write!(f, "entry {index}: {error}"),
            Error::Constraint { message } => write!(f, "constraint: {message}"),
            Error::Forked { made_by, here } => {
                write!(f, "after fork(): process {made_by} made the handle, this is process {here}")
            }
            Error::NotFound { what, name } => write!(f, "{what} \"{name}\" not found"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_free_bytes_is_said_where_it_is_known() {
        let text = |place: &str, free| Error::OutOfMemory { place: place.into(), requested: 8, free }.to_string();
        assert_eq!(text("host", 0), "host: 8 bytes requested");
        assert_eq!(text("host", 5), "host: 8 bytes requested, 5 bytes free");
        assert_eq!(text("cuda:0", 0), "cuda:0: 8 bytes requested, 0 bytes free");
        assert_eq!(text("memory cap", 0), "memory cap: 8 bytes requested, 0 bytes free");
    }
}
