//! Runs the template engine where the stack is known: it recurses, and a host's thread may be small.

use crate::error::{Error, Result};
use crate::process;

/// Bytes of stack. The deepest source that [`weigh`](super::weigh) lets pass, and the deepest calls and structures
/// that a rendering may have, take less than a quarter of it: `tests/api/chat_cost.rs` passes with 512 KiB.
const STACK: usize = 2 << 20;

/// Runs it on a thread of its own, which owns what it works on, and waits.
///
/// Fails with `OutOfMemory` where there is no such thread to be had, and with `Internal` if it panics.
pub(super) fn apart<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let failed = |_| Err(Error::Internal { message: "the template engine failed".to_owned() });
    process::spawn("kigo-chat", STACK, call)?.join().unwrap_or_else(failed)
}
