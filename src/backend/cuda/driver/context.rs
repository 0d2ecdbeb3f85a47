//! The context that the host has on its thread: the device's own is made current there for the time of a call, and nobody
//! who uses CUDA beside this library expects that of one.

use std::ffi::c_int;

use super::sys::{self as ffi, CUcontext, Code};
use crate::process::{self, PerThread};

/// The thread's context as the driver names it; 0 where it has none, or there is no driver.
#[doc(hidden)]
pub fn current() -> usize {
    let mut context: CUcontext = std::ptr::null_mut();
    if ffi::open().is_ok() {
        // SAFETY: writes one pointer; a failure leaves it null.
        unsafe { ffi::cuCtxGetCurrent(&mut context) };
    }
    context as usize
}

/// Makes that the thread's context.
fn restore(context: usize) {
    if ffi::open().is_ok() {
        // SAFETY: one that was current on this thread in this call. Should the host have destroyed it in a callback, the
        // driver refuses.
        unsafe { ffi::cuCtxSetCurrent(context as CUcontext) };
    }
}

/// Makes the device's context the thread's; the host's comes back behind the call.
pub(super) fn make_current(context: usize) -> c_int {
    process::put_aside(PerThread { get: current, set: restore });
    // SAFETY: a device's primary context, which is never released.
    unsafe { ffi::cuCtxSetCurrent(context as CUcontext) }.code()
}

/// Runs what a driver refuses while any thread captures a stream in the mode that is the default: such a call of ours has no part in
/// the host's capture, which would be spoiled by it too.
pub(super) fn beside_captures<T>(call: impl FnOnce() -> T) -> T {
    let mut mode = ffi::CaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
    // SAFETY: the mode is exchanged with the thread's.
    unsafe { ffi::cuThreadExchangeStreamCaptureMode(&mut mode) };
    let result = call();
    // SAFETY: as above, back again.
    unsafe { ffi::cuThreadExchangeStreamCaptureMode(&mut mode) };
    result
}

/// The device's primary context, which the CUDA runtime of a host uses too. It is kept for good, as the runtime keeps it: the
/// next engine has it at once.
pub(super) fn primary(ordinal: c_int) -> Result<usize, c_int> {
    let (mut device, mut context): (c_int, CUcontext) = (0, std::ptr::null_mut());
    // SAFETY: writes one int, which the second call takes; that writes one pointer.
    let code = unsafe {
        match ffi::cuDeviceGet(&mut device, ordinal).code() {
            0 => ffi::cuDevicePrimaryCtxRetain(&mut context, device).code(),
            code => code,
        }
    };
    if code == 0 { Ok(context as usize) } else { Err(code) }
}
