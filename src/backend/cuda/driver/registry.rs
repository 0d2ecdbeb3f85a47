//! The part of the CUDA runtime that nvcc's objects and the launchers call, over the driver: it knows the kernels.
//!
//! When the library is loaded, each of nvcc's objects registers its image and, by the address of its stub, each kernel. This
//! only keeps addresses, in tables that are there already: the driver is looked for when a device is opened. An image goes to it
//! at the first use of one of its kernels, and stays: a library of the driver's is of no context.
//!
//! The names are the runtime's, since nvcc's objects have them; being hidden they are no matter to a host that has the runtime.
//! What nothing here needs is not there, and using it (`<<<>>>`, variables of a device) does not link.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::context::beside_captures;
use super::sys::{self as ffi, CUkernel, CUlaunchAttribute, CUlaunchConfig, CUlibrary, Code};
use super::sys::{DeviceAttribute, FunctionAttribute};

/// Kernels, and images, of which each file of cuda/ has one. A test holds that there are half as many at most.
const MOST_KERNELS: usize = 4096;
const MOST_IMAGES: usize = 128;
/// What an image's wrapper begins with.
const MAGIC: c_int = 0x466243b1;
const NOT_INITIALIZED: c_int = 3;
const NO_CONTEXT: c_int = 201;

/// What one object registers.
struct Image {
    /// The code for every target, as nvcc wrote it; null: the place is free.
    code: AtomicPtr<c_void>,
    /// The driver's, once it has the code.
    library: AtomicPtr<c_void>,
}

struct Kernel {
    /// The stub's address; null: the place is free.
    stub: AtomicPtr<c_void>,
    /// The name in the image.
    name: AtomicPtr<c_char>,
    image: AtomicPtr<Image>,
    /// The driver's, once it was asked for.
    found: AtomicPtr<c_void>,
}

static IMAGES: [Image; MOST_IMAGES] =
    [const { Image { code: AtomicPtr::new(null_mut()), library: AtomicPtr::new(null_mut()) } }; MOST_IMAGES];
/// Kernels lie by their stub's address; one whose place is taken lies in the next.
static KERNELS: [Kernel; MOST_KERNELS] = [const {
    Kernel {
        stub: AtomicPtr::new(null_mut()),
        name: AtomicPtr::new(null_mut()),
        image: AtomicPtr::new(null_mut()),
        found: AtomicPtr::new(null_mut()),
    }
}; MOST_KERNELS];
/// Something was registered that there was no place for.
static INCOMPLETE: AtomicBool = AtomicBool::new(false);
/// Held by who raises what a kernel may ask for.
static RAISING: Mutex<()> = Mutex::new(());
/// What a launch has of shared memory without asking, its kernel's own variables among it.
const UNASKED: c_int = 48 << 10;
/// Held by who writes to the tables.
static WRITING: Mutex<()> = Mutex::new(());

fn writing() -> MutexGuard<'static, ()> {
    WRITING.lock().unwrap_or_else(|e| e.into_inner())
}

/// Whether every kernel is known.
pub(super) fn complete() -> Result<(), String> {
    match INCOMPLETE.load(Ordering::Relaxed) {
        false => Ok(()),
        true => Err(format!("it was built with more than {MOST_KERNELS} kernels or {MOST_IMAGES} images of code")),
    }
}

/// The places where this stub may be, the likeliest first.
fn places(stub: *const c_void) -> impl Iterator<Item = &'static Kernel> {
    // Stubs lie at multiples of 16.
    let first = (stub as usize >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as usize) >> 20;
    (0..MOST_KERNELS).filter_map(move |i| KERNELS.get(first.wrapping_add(i) % MOST_KERNELS))
}

fn find(stub: *const c_void) -> Option<&'static Kernel> {
    for place in places(stub) {
        match place.stub.load(Ordering::Acquire).cast_const() {
            at if at == stub => return Some(place),
            at if at.is_null() => return None,
            _ => {}
        }
    }
    None
}

/// What nvcc's objects begin with: `__cudaRegisterFatBinary(&wrapper)`, whose result is the object's name from then on.
#[repr(C)]
struct Wrapper {
    magic: c_int,
    version: c_int,
    code: *mut c_void,
    unused: *mut c_void,
}

unsafe extern "C" fn register_image(wrapper: *const Wrapper) -> *const Image {
    let _writing = writing();
    // SAFETY: nvcc's objects pass their own, which is constant.
    let code = unsafe { wrapper.as_ref() }.filter(|w| w.magic == MAGIC).map_or(null_mut(), |w| w.code);
    let free = IMAGES.iter().find(|i| i.code.load(Ordering::Relaxed).is_null());
    if let (Some(image), false) = (free, code.is_null()) {
        image.code.store(code, Ordering::Release);
        return image;
    }
    INCOMPLETE.store(true, Ordering::Relaxed);
    std::ptr::null()
}

/// The driver keeps its code until the process ends, as this does.
extern "C" fn keep_image() {}

/// `deviceFun` and what follows `name` of the runtime's function say nothing that the driver does not know.
unsafe extern "C" fn register_kernel(
    image: *mut Image,
    stub: *mut c_void,
    _device: *const c_char,
    name: *mut c_char,
    _threads: c_int,
) {
    let _writing = writing();
    if find(stub).is_some() {
        return;
    }
    match places(stub).find(|p| p.stub.load(Ordering::Relaxed).is_null()) {
        Some(place) if !image.is_null() && !stub.is_null() && !name.is_null() => {
            place.name.store(name, Ordering::Relaxed);
            place.image.store(image, Ordering::Relaxed);
            place.stub.store(stub, Ordering::Release);
        }
        _ => INCOMPLETE.store(true, Ordering::Relaxed),
    }
}

/// The driver's kernel behind a stub; the first time its image goes to the driver.
fn kernel(stub: *const c_void) -> Result<CUkernel, c_int> {
    let place = find(stub).ok_or(ffi::ERROR_INVALID_FUNCTION)?;
    let found = place.found.load(Ordering::Acquire);
    if !found.is_null() {
        return Ok(found.cast());
    }
    ffi::open().map_err(|_| NOT_INITIALIZED)?;
    let _writing = writing();
    // SAFETY: registered with an image, which is one of the table's.
    let image = unsafe { place.image.load(Ordering::Relaxed).as_ref() }.ok_or(ffi::ERROR_INVALID_FUNCTION)?;
    // Nothing of what loads code belongs to a graph that this thread captures.
    let got: Result<CUkernel, c_int> = beside_captures(|| {
        let library = library(image)?;
        let mut got: CUkernel = null_mut();
        // SAFETY: the name is a constant of the object that the library was made of; writes one handle.
        passed(unsafe { ffi::cuLibraryGetKernel(&mut got, library, place.name.load(Ordering::Relaxed)) })?;
        Ok(got)
    });
    place.found.store(got?.cast(), Ordering::Release);
    Ok(place.found.load(Ordering::Relaxed).cast())
}

/// The driver's library of an image; under the lock.
fn library(image: &Image) -> Result<CUlibrary, c_int> {
    let mut library: CUlibrary = image.library.load(Ordering::Relaxed).cast();
    if library.is_null() {
        let (none, no_options) = (null_mut(), null_mut());
        let code = image.code.load(Ordering::Relaxed);
        // SAFETY: the code is nvcc's and constant; no options; writes one handle.
        passed(unsafe { ffi::cuLibraryLoadData(&mut library, code, no_options, none, 0, null_mut(), null_mut(), 0) })?;
        image.library.store(library.cast(), Ordering::Relaxed);
    }
    Ok(library)
}

fn passed(code: impl Code) -> Result<(), c_int> {
    match code.code() {
        0 => Ok(()),
        code => Err(code),
    }
}

fn number(done: Result<(), c_int>) -> c_int {
    done.err().unwrap_or(0)
}

/// The device whose context is current.
fn device() -> Result<c_int, c_int> {
    ffi::open().map_err(|_| NOT_INITIALIZED)?;
    let mut device = 0;
    // SAFETY: writes one int.
    passed(unsafe { ffi::cuCtxGetDevice(&mut device) })?;
    Ok(device)
}

/// `dim3`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Size {
    x: c_uint,
    y: c_uint,
    z: c_uint,
}

/// `cudaLaunchConfig_t`.
#[repr(C)]
struct LaunchConfig {
    grid: Size,
    block: Size,
    shared_bytes: usize,
    stream: *mut c_void,
    attributes: *mut CUlaunchAttribute,
    n_attributes: c_uint,
}

/// `cudaLaunchKernelExC`. The attributes are the driver's, by another name.
unsafe extern "C" fn launch(config: *const LaunchConfig, stub: *const c_void, arguments: *mut *mut c_void) -> c_int {
    let launched = || {
        // SAFETY: the launcher's, for the time of the call.
        let config = unsafe { config.as_ref() }.ok_or(ffi::ERROR_INVALID_VALUE)?;
        let kernel = kernel(stub)?;
        let config = CUlaunchConfig {
            gridDimX: config.grid.x,
            gridDimY: config.grid.y,
            gridDimZ: config.grid.z,
            blockDimX: config.block.x,
            blockDimY: config.block.y,
            blockDimZ: config.block.z,
            sharedMemBytes: config.shared_bytes.try_into().map_err(|_| ffi::ERROR_INVALID_VALUE)?,
            hStream: config.stream.cast(),
            attrs: config.attributes,
            numAttrs: config.n_attributes,
        };
        // SAFETY: the arguments are those of the stub, which are the kernel's; a kernel stands for its function in every context.
        passed(unsafe { ffi::cuLaunchKernelEx(&config, kernel.cast(), arguments, null_mut()) })
    };
    number(launched())
}

/// `cudaFuncSetAttribute`, of the attribute that the launchers set: the most shared memory that a launch may ask for. It is only
/// raised: another thread may be about to launch the same kernel with more than this one wants. What the driver says of a kernel that was never
/// raised need not leave out what its own variables take of that.
unsafe extern "C" fn set_attribute(stub: *const c_void, attribute: c_int, value: c_int) -> c_int {
    let shared = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    let set = || {
        let (kernel, device) = (kernel(stub)?, device()?);
        let mut granted = 0;
        let _alone = RAISING.lock().unwrap_or_else(|e| e.into_inner());
        // SAFETY: writes one int.
        passed(unsafe { ffi::cuKernelGetAttribute(&mut granted, shared, kernel, device) })?;
        if granted > UNASKED && granted >= value {
            return Ok(());
        }
        // SAFETY: no memory is passed.
        passed(unsafe { ffi::cuKernelSetAttribute(shared, value.max(UNASKED), kernel, device) })
    };
    if attribute == shared as c_int { number(set()) } else { ffi::ERROR_NOT_SUPPORTED }
}

/// The beginning of `cudaFuncAttributes`.
#[repr(C)]
struct Attributes {
    bytes: [usize; 3],
    numbers: [c_int; 6],
}

/// `cudaFuncGetAttributes`.
unsafe extern "C" fn attributes(out: *mut Attributes, stub: *const c_void) -> c_int {
    use FunctionAttribute as A;
    const BYTES: [A; 3] = [
        A::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
        A::CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES,
        A::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES,
    ];
    const NUMBERS: [A; 6] = [
        A::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK,
        A::CU_FUNC_ATTRIBUTE_NUM_REGS,
        A::CU_FUNC_ATTRIBUTE_PTX_VERSION,
        A::CU_FUNC_ATTRIBUTE_BINARY_VERSION,
        A::CU_FUNC_ATTRIBUTE_CACHE_MODE_CA,
        A::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
    ];
    let asked = || {
        let (kernel, device) = (kernel(stub)?, device()?);
        let get = |attribute| {
            let mut value = 0;
            // SAFETY: writes one int.
            passed(unsafe { ffi::cuKernelGetAttribute(&mut value, attribute, kernel, device) })?;
            Ok::<c_int, c_int>(value)
        };
        let mut got = Attributes { bytes: [0; 3], numbers: [0; 6] };
        for (to, attribute) in got.bytes.iter_mut().zip(BYTES) {
            *to = get(attribute)?.max(0) as usize;
        }
        for (to, attribute) in got.numbers.iter_mut().zip(NUMBERS) {
            *to = get(attribute)?;
        }
        // SAFETY: the launcher's, which is larger.
        unsafe { out.write(got) };
        Ok(())
    };
    number(asked())
}

/// `cudaGetDevice`.
unsafe extern "C" fn current_device(out: *mut c_int) -> c_int {
    // SAFETY: the launcher's variable.
    number(device().map(|device| unsafe { out.write(device) }))
}

/// `cudaDeviceGetAttribute`, of the attribute that the launchers ask for: the shared memory that a block may have.
unsafe extern "C" fn device_attribute(out: *mut c_int, attribute: c_int, device: c_int) -> c_int {
    let shared = DeviceAttribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    if attribute != shared as c_int {
        return ffi::ERROR_NOT_SUPPORTED;
    }
    match ffi::open() {
        // SAFETY: the launcher's variable.
        Ok(()) => unsafe { ffi::cuDeviceGetAttribute(out, shared, device) }.code(),
        Err(_) => NOT_INITIALIZED,
    }
}

/// `cudaGetDriverEntryPointByVersion`: by the name alone.
unsafe extern "C" fn entry_point(
    name: *const c_char,
    out: *mut *mut c_void,
    _version: c_uint,
    _flags: u64,
    found: *mut c_int,
) -> c_int {
    // SAFETY: the launcher's constant and its variables.
    unsafe {
        let entry = ffi::entry(CStr::from_ptr(name));
        out.write(entry);
        found.write(c_int::from(entry.is_null()));
    }
    0
}

/// `cudaGetLastError`: each failure is returned where it happens, and none is kept.
extern "C" fn last_error() -> c_int {
    0
}

/// What a stub calls that is called itself, behind a `<<<>>>`: of which there is none.
extern "C" fn refuse() -> c_int {
    NO_CONTEXT
}

#[cfg(target_arch = "x86_64")]
macro_rules! jump {
    () => {
        "jmp {}"
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! jump {
    () => {
        "b {}"
    };
}

/// Gives functions the names that nvcc's objects call, for this library's own objects alone.
macro_rules! hidden {
    ($($name:literal = $function:path;)*) => { $(std::arch::global_asm!(
        concat!(".pushsection .text.", $name, ",\"ax\",@progbits"),
        concat!(".globl ", $name),
        concat!(".hidden ", $name),
        concat!(".type ", $name, ", @function"),
        concat!($name, ":"),
        jump!(),
        concat!(".size ", $name, ", . - ", $name),
        ".popsection",
        sym $function,
    );)* };
}

hidden! {
    "__cudaRegisterFatBinary" = register_image;
    "__cudaRegisterFatBinaryEnd" = keep_image;
    "__cudaUnregisterFatBinary" = keep_image;
    "__cudaRegisterFunction" = register_kernel;
    "__cudaGetKernel" = refuse;
    "__cudaLaunchKernel" = refuse;
    "__cudaPopCallConfiguration" = refuse;
    "cudaLaunchKernel" = refuse;
    "cudaLaunchKernelExC" = launch;
    "cudaFuncSetAttribute" = set_attribute;
    "cudaFuncGetAttributes" = attributes;
    "cudaGetDevice" = current_device;
    "cudaDeviceGetAttribute" = device_attribute;
    "cudaGetDriverEntryPointByVersion" = entry_point;
    "cudaGetLastError" = last_error;
}

#[cfg(test)]
mod tests;
