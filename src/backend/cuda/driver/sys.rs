//! The CUDA runtime, as C sees it: linked statically, it opens the driver by itself; without one, its first call fails.

use std::ffi::{c_char, c_int, c_void};

/// A device address.
pub type Address = u64;
/// `cudaStream_t` and its kin.
pub type Handle = *mut c_void;

pub const HOST_TO_DEVICE: c_int = 1;
pub const DEVICE_TO_HOST: c_int = 2;
pub const DEVICE_TO_DEVICE: c_int = 3;
pub const STREAM_NON_BLOCKING: u32 = 1;
pub const EVENT_DISABLE_TIMING: u32 = 2;
pub const CAPTURE_THREAD_LOCAL: c_int = 1;
pub const ERROR_MEMORY_ALLOCATION: c_int = 2;
/// Errors of calls that did nothing: invalid value, configuration, symbol, function, texture and the like; no kernel image, out of launch
/// resources, not supported; capture.
pub const REFUSED: [c_int; 17] = [1, 9, 13, 21, 98, 209, 401, 701, 801, 900, 901, 902, 903, 904, 905, 906, 907];
pub const ERROR_LAUNCH_FAILURE: c_int = 719;
pub const ATTRIBUTE_SM_COUNT: c_int = 16;
pub const ATTRIBUTE_SHARED_MOST: c_int = 97;
pub const ATTRIBUTE_MAJOR: c_int = 75;
pub const ATTRIBUTE_MINOR: c_int = 76;

unsafe extern "C" {
    pub fn cudaGetDeviceCount(count: *mut c_int) -> c_int;
    pub fn cudaSetDevice(device: c_int) -> c_int;
    pub fn cudaDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int) -> c_int;
    pub fn cudaGetLastError() -> c_int;
    pub fn cudaGetErrorName(code: c_int) -> *const c_char;
    pub fn cudaGetErrorString(code: c_int) -> *const c_char;
    pub fn cudaMemGetInfo(free: *mut usize, total: *mut usize) -> c_int;
    pub fn cudaMalloc(address: *mut Address, bytes: usize) -> c_int;
    pub fn cudaFree(address: Address) -> c_int;
    pub fn cudaHostAlloc(address: *mut *mut c_void, bytes: usize, flags: u32) -> c_int;
    pub fn cudaFreeHost(address: *mut c_void) -> c_int;
    pub fn cudaMemcpyAsync(to: *mut c_void, from: *const c_void, bytes: usize, kind: c_int, stream: Handle) -> c_int;
    pub fn cudaMemsetAsync(to: Address, value: c_int, bytes: usize, stream: Handle) -> c_int;
    pub fn cudaStreamCreateWithFlags(stream: *mut Handle, flags: u32) -> c_int;
    pub fn cudaStreamDestroy(stream: Handle) -> c_int;
    pub fn cudaStreamSynchronize(stream: Handle) -> c_int;
    pub fn cudaStreamBeginCapture(stream: Handle, mode: c_int) -> c_int;
    pub fn cudaStreamEndCapture(stream: Handle, graph: *mut Handle) -> c_int;
    pub fn cudaGraphInstantiate(exec: *mut Handle, graph: Handle, flags: u64) -> c_int;
    pub fn cudaGraphLaunch(exec: Handle, stream: Handle) -> c_int;
    pub fn cudaGraphExecDestroy(exec: Handle) -> c_int;
    pub fn cudaGraphDestroy(graph: Handle) -> c_int;
    pub fn cudaEventCreateWithFlags(event: *mut Handle, flags: u32) -> c_int;
    pub fn cudaEventDestroy(event: Handle) -> c_int;
    pub fn cudaEventRecord(event: Handle, stream: Handle) -> c_int;
    pub fn cudaEventSynchronize(event: Handle) -> c_int;
    pub fn cudaEventElapsedTime(ms: *mut f32, start: Handle, end: Handle) -> c_int;

    pub fn cudaGetDriverEntryPointByVersion(
        name: *const c_char,
        entry: *mut *mut c_void,
        version: u32,
        flags: u64,
        found: *mut c_int,
    ) -> c_int;
}
