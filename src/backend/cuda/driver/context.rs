//! The context that the host has on its thread: the runtime makes this library's current, and nobody who uses CUDA
//! beside it expects that of a call.
//!
//! Invariant: where the driver's functions are not to be had, contexts stay as the runtime leaves them.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use super::sys as ffi;
use crate::process::{self, PerThread};

/// `cuCtxGetCurrent` and `cuCtxSetCurrent`.
struct Driver {
    get: unsafe extern "C" fn(*mut *mut c_void) -> c_int,
    set: unsafe extern "C" fn(*mut c_void) -> c_int,
}

/// What both are like since: CUDA 4.0.
const VERSION: u32 = 4000;

fn driver() -> Option<&'static Driver> {
    static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();
    let find = |name: &std::ffi::CStr| {
        let (mut entry, mut found) = (std::ptr::null_mut(), -1);
        // SAFETY: reads the name, writes a pointer and a number.
        let code = unsafe { ffi::cudaGetDriverEntryPointByVersion(name.as_ptr(), &mut entry, VERSION, 0, &mut found) };
        (code == 0 && found == 0 && !entry.is_null()).then_some(entry)
    };
    let both = || {
        let (get, set) = (find(c"cuCtxGetCurrent")?, find(c"cuCtxSetCurrent")?);
        // SAFETY: the driver's functions of these names have these types.
        let get = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut *mut c_void) -> c_int>(get) };
        // SAFETY: as above.
        let set = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> c_int>(set) };
        Some(Driver { get, set })
    };
    DRIVER.get_or_init(both).as_ref()
}

/// The thread's context as the driver names it; 0 where it has none.
#[doc(hidden)]
pub fn current() -> usize {
    let mut context = std::ptr::null_mut();
    // SAFETY: writes one pointer; a failure leaves it null.
    driver().map(|driver| unsafe { (driver.get)(&mut context) });
    context as usize
}

/// Makes that the thread's context.
fn make_current(context: usize) {
    // SAFETY: one that was current on this thread in this call. Should the host have destroyed it in a callback, the
    // driver refuses.
    driver().map(|driver| unsafe { (driver.set)(context as *mut c_void) });
}

/// To be called before the runtime changes it.
pub(super) fn put_aside() {
    if driver().is_some() {
        process::put_aside(PerThread { get: current, set: make_current });
    }
}
