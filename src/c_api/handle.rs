//! Handles: counted references that C holds as opaque pointers.
//!
//! `create` gives one reference to the caller; `destroy` takes it back; a call clones one for its own length, so that a
//! handle destroyed from inside one of its callbacks stays alive until the call returns. A child of fork() has copies of
//! its parent's handles, but not the threads behind them: in it they are refused, and nothing of them is freed.

use std::ffi::c_char;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use super::args::{Buffer, not_null};
use super::guard::{about, room};
use super::last_error::LastError;
use crate::alloc;
use crate::error::{Error, Result};
use crate::process::{self, ThreadHook};

/// What a handle points at. A pointer to it is also one to the value.
#[repr(C)]
pub(super) struct Owned<T> {
    value: T,
    /// The process that made it.
    made_by: u32,
    /// What the last call with it that failed says.
    last_error: Arc<LastError>,
    /// Who is told of the threads of calls with it: its engine's host.
    hook: Option<Arc<ThreadHook>>,
}

impl<T> Owned<T> {
    /// A failure that concerns this handle, of a call that is about several.
    pub(super) fn failed(&self, error: &Error) {
        self.last_error.set(error);
    }
}

impl<T> Deref for Owned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// A handle that a call works with.
pub(super) type Held<T> = Arc<Owned<T>>;

/// What a handle of one thread at a time holds; `what` names it.
pub(super) fn try_lock<'a, T>(state: &'a Mutex<T>, what: &'static str) -> Result<MutexGuard<'a, T>> {
    state.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => Error::Busy,
        // A panic inside an earlier call.
        TryLockError::Poisoned(_) => Error::Poisoned { what },
    })
}

/// The pointer that the caller has, for comparing.
pub(super) fn name_of<T>(held: &Held<T>) -> *mut T {
    Arc::as_ptr(held).cast_mut().cast::<T>()
}

/// Refuses NULL, what cannot be a handle, and what another process made.
///
/// # Safety
/// As for [`borrow`].
unsafe fn check<T>(handle: *const T, name: &'static str) -> Result<*const Owned<T>> {
    let owned = handle.cast::<Owned<T>>();
    not_null(owned, name)?;
    // SAFETY: by this function's contract a handle that is not NULL is one of `put`'s, alive.
    let made_by = unsafe { (*owned).made_by };
    let here = process::id();
    if made_by == here { Ok(owned) } else { Err(Error::Forked { made_by, here }) }
}

/// The reference that a call works with; a failure of the call becomes the handle's last error.
///
/// # Safety
/// `handle` is NULL, misaligned, or came from [`put`] for the same `T` and has not been given to [`destroy`].
pub(super) unsafe fn borrow<T>(handle: *const T, name: &'static str) -> Result<Held<T>> {
    // First: a handle that is being destroyed is not touched where its memory is taken back.
    match process::enclosure() {
        Some(by) => Err(Error::Enclosed { by }),
        // SAFETY: passed on from this function's contract.
        None => unsafe { borrow_anywhere(handle, name) },
    }
}

/// [`borrow`] for what may come from inside a host's function in the middle of another call.
///
/// # Safety
/// As for [`borrow`].
pub(super) unsafe fn borrow_anywhere<T>(handle: *const T, name: &'static str) -> Result<Held<T>> {
    // SAFETY: passed on from this function's contract.
    let held = unsafe { hold(handle, name)? };
    about(&held.last_error);
    process::exchange_hook(held.hook.clone());
    room()?;
    Ok(held)
}

/// Copies the handle's last error out.
///
/// # Safety
/// As for [`borrow`].
pub(super) unsafe fn last_error<T>(handle: *const T, name: &'static str, out: &Buffer<c_char>) -> Result<()> {
    // SAFETY: passed on from this function's contract. Not `borrow`: a buffer that is too small is no news of the handle.
    unsafe { hold(handle, name)? }.last_error.read(|text| out.store_text(text))
}

/// [`borrow`] for what leaves the handle's last error alone.
///
/// # Safety
/// As for [`borrow`].
unsafe fn hold<T>(handle: *const T, name: &'static str) -> Result<Held<T>> {
    // SAFETY: passed on from this function's contract; what `check` lets through is `Arc::into_raw`'s, with a reference
    // held by the caller, who keeps it for the length of the call.
    unsafe {
        let owned = check(handle, name)?;
        Arc::increment_strong_count(owned);
        Ok(Arc::from_raw(owned))
    }
}

/// Gives a reference to the caller; `OutOfMemory` where the value was made of memory that is kept for emergencies.
///
/// # Safety
/// `out` is valid for a write.
pub(super) unsafe fn put<T>(out: *mut *mut T, value: T) -> Result<()> {
    let (last_error, hook) = (LastError::new(), process::hook());
    let owned = Arc::new(Owned { value, made_by: process::id(), last_error, hook });
    alloc::enough()?;
    // SAFETY: by this function's contract; `args::null_out` has checked it for NULL and alignment.
    unsafe { out.write(Arc::into_raw(owned).cast_mut().cast::<T>()) };
    Ok(())
}

/// Takes the caller's reference back; NULL is nothing, and so is what cannot be a handle, or is another process's; and what
/// comes from inside a host's function in the middle of another call.
///
/// # Safety
/// As for [`borrow`]; the handle is not used afterwards.
pub(super) unsafe fn destroy<T>(handle: *mut T) {
    // SAFETY: passed on from this function's contract; what `check` lets through is `Arc::into_raw`'s, and its reference
    // is given up here, once.
    unsafe {
        if process::enclosure().is_none()
            && let Ok(owned) = check(handle.cast_const(), "handle")
        {
            drop(Arc::from_raw(owned));
        }
    }
}
