//! GPUs as the driver lists them, without a context of ours: what they are, and how much of their memory is free.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use super::sys::{self as ffi, Code as _, DeviceAttribute, name_of};
use crate::backend::info::{DeviceInfo, DeviceKind, lacks_code, uuid_text};
use crate::error::{Error, Result};

/// What the kernels were compiled for.
const TARGETS: &str = env!("KIGO_CUDA_TARGETS");

/// Why there are no kernels for a device of this compute capability; `None`: there are.
pub fn lacks(major: c_int, minor: c_int) -> Option<String> {
    lacks_code(TARGETS, (major.max(0) as u32, minor.max(0) as u32))
}

/// How many there are, or why that cannot be said.
pub fn count() -> std::result::Result<usize, String> {
    ffi::open()?;
    let mut n: c_int = 0;
    // SAFETY: writes one int.
    match unsafe { ffi::cuDeviceGetCount(&mut n) }.code() {
        0 => Ok(n.max(0) as usize),
        code => Err(name_of(code)),
    }
}

fn refused(ordinal: usize, code: c_int) -> Error {
    Error::DeviceUnavailable { device: format!("cuda:{ordinal}"), reason: name_of(code) }
}

/// A device by its number.
fn device(ordinal: usize) -> Result<c_int> {
    ffi::open().map_err(|reason| Error::DeviceUnavailable { device: format!("cuda:{ordinal}"), reason })?;
    let mut device: c_int = 0;
    // SAFETY: writes one int.
    match unsafe { ffi::cuDeviceGet(&mut device, c_int::try_from(ordinal).unwrap_or(c_int::MAX)) }.code() {
        0 => Ok(device),
        code => Err(refused(ordinal, code)),
    }
}

fn name(ordinal: usize, device: c_int) -> Result<String> {
    let mut text = [0 as c_char; 256];
    // SAFETY: writes at most so many bytes, of which the last stays 0.
    match unsafe { ffi::cuDeviceGetName(text.as_mut_ptr(), text.len() as c_int - 1, device) }.code() {
        // SAFETY: a NUL ends it.
        0 => Ok(unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned()),
        code => Err(refused(ordinal, code)),
    }
}

/// Its UUID, in bytes and as text; a part of a GPU has its own.
fn uuid(ordinal: usize, device: c_int, name: &str) -> Result<([u8; 16], String)> {
    let mut uuid = ffi::CUuuid { bytes: [0; 16] };
    // SAFETY: writes 16 bytes.
    match unsafe { ffi::cuDeviceGetUuid_v2(&mut uuid, device) }.code() {
        0 => {
            let bytes = uuid.bytes.map(|byte| byte as u8);
            // The driver's names of parts have their profile behind: "NVIDIA H200 MIG 1g.18gb".
            Ok((bytes, uuid_text(&bytes, name.contains(" MIG "))))
        }
        code => Err(refused(ordinal, code)),
    }
}

/// The text of every device's UUID.
pub fn uuids() -> Result<Vec<String>> {
    let n = count().map_err(|reason| Error::DeviceUnavailable { device: "cuda".to_owned(), reason })?;
    let text = |ordinal| {
        let device = device(ordinal)?;
        Ok(uuid(ordinal, device, &name(ordinal, device)?)?.1)
    };
    (0..n).map(text).collect()
}

/// What GPU `ordinal` is.
pub fn info(ordinal: usize) -> Result<DeviceInfo> {
    let device = device(ordinal)?;
    let get = |attribute: DeviceAttribute| {
        let mut value: c_int = 0;
        // SAFETY: writes one int.
        match unsafe { ffi::cuDeviceGetAttribute(&mut value, attribute, device) }.code() {
            0 => Ok(value.max(0) as u32),
            code => Err(refused(ordinal, code)),
        }
    };
    let compute = (
        get(DeviceAttribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        get(DeviceAttribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    let mut total: usize = 0;
    // SAFETY: writes one size.
    match unsafe { ffi::cuDeviceTotalMem_v2(&mut total, device) }.code() {
        0 => {}
        code => return Err(refused(ordinal, code)),
    }
    let name = name(ordinal, device)?;
    let (bytes, uuid_text) = uuid(ordinal, device, &name)?;
    let reason = lacks_code(TARGETS, compute);
    Ok(DeviceInfo {
        kind: DeviceKind::Cuda,
        device: format!("cuda:{ordinal}"),
        name,
        uuid: Some(bytes),
        free_bytes: free_by_management(&uuid_text).or_else(|| free_by_context(device)).unwrap_or(0),
        uuid_text,
        total_bytes: total as u64,
        compute,
        n_cores: get(DeviceAttribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
        usable: reason.is_none(),
        reason: reason.unwrap_or_default(),
    })
}

/// Bytes free as the driver's management library has them (NVML), which needs no context on the device; `None` without it.
fn free_by_management(uuid: &str) -> Option<u64> {
    /// `nvmlMemory_t`.
    #[repr(C)]
    #[derive(Default)]
    struct Memory {
        total: u64,
        free: u64,
        used: u64,
    }
    type Plain = unsafe extern "C" fn() -> c_int;
    type ByUuid = unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> c_int;
    type Ask = unsafe extern "C" fn(*mut c_void, *mut Memory) -> c_int;
    let uuid = CString::new(uuid).ok()?;
    // SAFETY: reads names. The library is not closed: it stays for the next time.
    let find = unsafe {
        let library = libc::dlopen(c"libnvidia-ml.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        if library.is_null() {
            return None;
        }
        move |name: &CStr| Some(libc::dlsym(library, name.as_ptr())).filter(|at| !at.is_null())
    };
    // SAFETY: the functions of these names have had these types since NVML 5; each writes what its type says, and a device is
    // used between the first call and the last.
    unsafe {
        let start = std::mem::transmute::<*mut c_void, Plain>(find(c"nvmlInit_v2")?);
        let stop = std::mem::transmute::<*mut c_void, Plain>(find(c"nvmlShutdown")?);
        let by_uuid = std::mem::transmute::<*mut c_void, ByUuid>(find(c"nvmlDeviceGetHandleByUUID")?);
        let ask = std::mem::transmute::<*mut c_void, Ask>(find(c"nvmlDeviceGetMemoryInfo")?);
        if start() != 0 {
            return None;
        }
        let (mut device, mut memory) = (std::ptr::null_mut(), Memory::default());
        let asked = by_uuid(uuid.as_ptr(), &mut device) == 0 && ask(device, &mut memory) == 0;
        stop();
        asked.then_some(memory.free)
    }
}

/// Bytes free as the device's primary context has them, which is made for the question if nobody has it.
fn free_by_context(device: c_int) -> Option<u64> {
    let (mut before, mut context): (ffi::CUcontext, ffi::CUcontext) = (std::ptr::null_mut(), std::ptr::null_mut());
    let (mut free, mut total) = (0_usize, 0_usize);
    // SAFETY: each writes one value of its type; the thread's context is put back, and the reference given up that was taken.
    unsafe {
        if ffi::cuCtxGetCurrent(&mut before).code() != 0
            || ffi::cuDevicePrimaryCtxRetain(&mut context, device).code() != 0
        {
            return None;
        }
        let asked =
            ffi::cuCtxSetCurrent(context).code() == 0 && ffi::cuMemGetInfo_v2(&mut free, &mut total).code() == 0;
        ffi::cuCtxSetCurrent(before);
        ffi::cuDevicePrimaryCtxRelease_v2(device);
        asked.then_some(free as u64)
    }
}
