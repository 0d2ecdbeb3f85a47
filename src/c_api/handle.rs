//! Handles: counted references that C holds as opaque pointers.
//!
//! `create` gives one reference to the caller; `destroy` takes it back; a call clones one for its own length, so that a
//! handle destroyed from inside one of its callbacks stays alive until the call returns.

use std::sync::Arc;

use super::args::not_null;
use crate::error::Result;

/// The reference that a call works with.
///
/// # Safety
/// `handle` is NULL, misaligned, or came from [`put`] for the same `T` and has not been given to [`destroy`].
pub(super) unsafe fn borrow<T>(handle: *const T, name: &'static str) -> Result<Arc<T>> {
    not_null(handle, name)?;
    // SAFETY: not NULL (checked above), so by this function's contract it is `Arc::into_raw`'s, with a reference held
    // by the caller, who keeps it for the length of the call.
    unsafe {
        Arc::increment_strong_count(handle);
        Ok(Arc::from_raw(handle))
    }
}

/// Gives a reference to the caller.
///
/// # Safety
/// `out` is valid for a write.
pub(super) unsafe fn put<T>(out: *mut *mut T, value: T) {
    // SAFETY: by this function's contract; `args::null_out` has checked it for NULL and alignment.
    unsafe { out.write(Arc::into_raw(Arc::new(value)).cast_mut()) };
}

/// Takes the caller's reference back; NULL is nothing, and so is what cannot be a handle.
///
/// # Safety
/// As for [`borrow`]; the handle is not used afterwards.
pub(super) unsafe fn destroy<T>(handle: *mut T) {
    if not_null(handle, "handle").is_ok() {
        // SAFETY: by this function's contract it is `Arc::into_raw`'s, and its reference is given up here, once.
        drop(unsafe { Arc::from_raw(handle.cast_const()) });
    }
}
