//! The CUDA driver: its functions as cudarc declares them, by the names that every driver since CUDA 12.0 gives them.
//!
//! cudarc finds a function at its first call and panics where there is none. So nothing here is called before [`open`] has
//! found the library and each of these names; nobody beside this file names cudarc.

use std::ffi::{CStr, c_char, c_int, c_void};

use once_cell::sync::OnceCell;

/// A device address.
pub type Address = u64;
/// A stream, a graph or an event.
pub type Handle = *mut c_void;

/// Brings functions in and keeps their names, for [`open`] to look for.
macro_rules! functions {
    ($($name:ident),* $(,)?) => {
        pub use cudarc::driver::sys::{$($name),*};
        /// The name of each function here.
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

functions! {
    cuCtxGetCurrent, cuCtxGetDevice, cuCtxSetCurrent, cuDeviceGet, cuDeviceGetAttribute, cuDeviceGetCount,
    cuDeviceGetName, cuDeviceGetUuid_v2, cuDevicePrimaryCtxRelease_v2, cuDevicePrimaryCtxRetain,
    cuDeviceTotalMem_v2, cuEventCreate, cuEventDestroy_v2, cuEventElapsedTime, cuEventRecord,
    cuEventSynchronize, cuGraphDestroy, cuGraphExecDestroy, cuGraphInstantiateWithFlags, cuGraphLaunch, cuInit,
    cuKernelGetAttribute, cuKernelSetAttribute, cuLaunchKernelEx, cuLibraryGetKernel, cuLibraryLoadData,
    cuMemAlloc_v2, cuMemFreeHost, cuMemFree_v2, cuMemGetInfo_v2, cuMemHostAlloc, cuMemcpyDtoDAsync_v2,
    cuMemcpyDtoHAsync_v2, cuMemcpyHtoDAsync_v2, cuMemsetD8Async, cuStreamBeginCapture_v2, cuStreamCreate,
    cuStreamDestroy_v2, cuStreamEndCapture, cuStreamSynchronize, cuThreadExchangeStreamCaptureMode,
}

pub use cudarc::driver::sys::{
    CUcontext, CUdevice_attribute as DeviceAttribute, CUfunction_attribute as FunctionAttribute, CUkernel,
    CUlaunchAttribute, CUlaunchConfig, CUlibrary, CUresult, CUstreamCaptureMode as CaptureMode, CUuuid,
};

pub const STREAM_NON_BLOCKING: u32 = 1;
pub const EVENT_DISABLE_TIMING: u32 = 2;
/// The memory is for every context to use, at one address on both sides.
pub const HOST_PORTABLE_AND_MAPPED: u32 = 3;
pub const ERROR_INVALID_VALUE: c_int = 1;
pub const ERROR_MEMORY_ALLOCATION: c_int = 2;
/// The runtime's: a kernel that nobody has registered.
pub const ERROR_INVALID_FUNCTION: c_int = 98;
pub const ERROR_NOT_SUPPORTED: c_int = 801;
pub const ERROR_LAUNCH_FAILURE: c_int = 719;
/// Errors of calls that did nothing: invalid value, function or image, no context, no image for the device, PTX that it cannot take,
/// not found, out of launch resources, not supported; capture.
pub const REFUSED: [c_int; 22] =
    [1, 98, 200, 201, 209, 218, 221, 222, 223, 401, 500, 701, 801, 900, 901, 902, 903, 904, 905, 906, 907, 908];

/// What a function of the driver or a launcher returns: 0, or why not.
pub trait Code {
    /// The number.
    fn code(self) -> c_int;
}

impl Code for c_int {
    fn code(self) -> c_int {
        self
    }
}

/// A newer driver has codes that this enum does not: it is made a number at once and never matched on.
impl Code for CUresult {
    fn code(self) -> c_int {
        self as c_int
    }
}

/// Finds the driver and everything of it that is used, and starts it; or says why that cannot be. What was once found stays.
pub fn open() -> Result<(), String> {
    static OPENED: OnceCell<()> = OnceCell::new();
    let opened = OPENED.get_or_try_init(|| {
        find()?;
        // SAFETY: no memory is passed.
        match unsafe { cuInit(0) }.code() {
            0 => Ok(()),
            code => Err(name_of(code)),
        }
    });
    opened.copied()
}

/// The library is opened here first and never closed: cudarc, which tries other names before this one, then cannot end
/// without any.
fn find() -> Result<(), String> {
    // SAFETY: reads a name.
    if unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) }.is_null() {
        // SAFETY: reads what the loader keeps for this thread until its next call.
        let why = unsafe { text(libc::dlerror()) };
        return Err(format!("no CUDA driver: {why}"));
    }
    match NAMES.iter().find(|name| address(name).is_none()) {
        None => Ok(()),
        Some(name) => Err(format!("the CUDA driver has no {name}; drivers of CUDA 12.0 and later have it")),
    }
}

/// Where the driver's function of this name is. Only once the library is known to be there.
fn address(name: &str) -> Option<*mut c_void> {
    // SAFETY: the symbol is read as an address and not called.
    unsafe { cudarc::driver::sys::culib().get::<*mut c_void>(name.as_bytes()) }.ok().map(|found| *found)
}

/// The same for a launcher, which knows the type; null where there is none.
pub fn entry(name: &CStr) -> *mut c_void {
    let found = name.to_str().ok().filter(|_| open().is_ok()).and_then(address);
    found.unwrap_or(std::ptr::null_mut())
}

/// # Safety
/// Null, or a C string.
unsafe fn text(at: *const c_char) -> String {
    if at.is_null() {
        return "no reason given".to_string();
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(at) }.to_string_lossy().into_owned()
}

/// The code's name and what it means, as the driver has them.
pub fn name_of(code: c_int) -> String {
    type Get = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;
    let ask = |name: &str| {
        let at = address(name)?;
        // SAFETY: the driver's functions of these names have this type, its enums being ints; taken as one here, since the code
        // may be none of those that cudarc's enum has.
        let get = unsafe { std::mem::transmute::<*mut c_void, Get>(at) };
        let mut said = std::ptr::null();
        // SAFETY: writes one pointer, to a constant or null.
        unsafe { (get(code, &mut said) == 0 && !said.is_null()).then(|| text(said)) }
    };
    match (ask("cuGetErrorName"), ask("cuGetErrorString")) {
        (Some(name), Some(meaning)) => format!("{name}: {meaning}"),
        _ => format!("error {code}, which the driver has no name for"),
    }
}
