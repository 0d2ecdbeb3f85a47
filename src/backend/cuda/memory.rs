//! The device and what it lends: memory, pinned memory, streams, events, graphs; each gives itself back.
//!
//! Invariants: every call first makes the device current on its thread (`Gpu::bind`), and puts aside what the host had
//! there; every failure becomes
//! `OutOfMemory` with the bytes asked and free, or `DeviceLost`, which stays: later calls fail with the same reason.

use std::ffi::{CStr, c_int, c_void};
use std::ops::Deref;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::context;
use super::ffi::{self, Address, Handle};
use crate::backend::Budget;
use crate::error::{Error, Result};

/// A GPU on somebody's budget, where what is allocated through it counts; what [`Self::on_budget`] gives is the same GPU.
pub struct Gpu {
    card: Arc<Card>,
    budget: Arc<Budget>,
}

impl Deref for Gpu {
    type Target = Card;

    fn deref(&self) -> &Card {
        &self.card
    }
}

/// One GPU.
pub struct Card {
    ordinal: i32,
    /// Multiprocessors.
    pub n_sm: u32,
    /// Compute capability that the code was compiled for, major: at most the device's.
    pub major: i32,
    /// Bytes of shared memory that a block may have.
    pub shared_most: usize,
    /// Whether it has the kernels of cuda/wide.cu.
    pub wide: bool,
    lost: Mutex<Option<(i64, String)>>,
    /// Counts down at each allocation; the one that finds 0 fails. Negative: off. For tests.
    fail_in: AtomicI64,
    /// The same for calls: the one that finds 0 is told that a kernel failed.
    lose_in: AtomicI64,
    allocated: AtomicU64,
}

fn name_of(code: c_int) -> String {
    // SAFETY: both return static strings for any code.
    let (name, text) =
        unsafe { (CStr::from_ptr(ffi::cudaGetErrorName(code)), CStr::from_ptr(ffi::cudaGetErrorString(code))) };
    format!("{}: {}", name.to_string_lossy(), text.to_string_lossy())
}

impl Gpu {
    /// Opens the device, or says why not.
    pub fn open(ordinal: usize, budget: Arc<Budget>) -> Result<Arc<Gpu>> {
        let device = format!("cuda:{ordinal}");
        let unavailable = |reason: String| Error::DeviceUnavailable { device: device.clone(), reason };
        let mut count: c_int = 0;
        // SAFETY: writes one int; without a driver it returns an error.
        let code = unsafe { ffi::cudaGetDeviceCount(&mut count) };
        if code != 0 {
            return Err(unavailable(name_of(code)));
        }
        if ordinal >= count as usize {
            return Err(unavailable(format!("this machine has {count} CUDA devices")));
        }
        let get = |attribute| {
            let mut value: c_int = 0;
            // SAFETY: writes one int; the ordinal was checked.
            let code = unsafe { ffi::cudaDeviceGetAttribute(&mut value, attribute, ordinal as c_int) };
            if code == 0 { Ok(value) } else { Err(unavailable(name_of(code))) }
        };
        let (n_sm, major, minor) =
            (get(ffi::ATTRIBUTE_SM_COUNT)?, get(ffi::ATTRIBUTE_MAJOR)?, get(ffi::ATTRIBUTE_MINOR)?);
        if major < 8 {
            return Err(unavailable(format!("compute capability {major}.{minor} is below 8.0")));
        }
        let mut gpu = Card {
            ordinal: ordinal as i32,
            n_sm: n_sm.max(1) as u32,
            major: 0,
            shared_most: get(ffi::ATTRIBUTE_SHARED_MOST)?.max(48 << 10) as usize,
            wide: false,
            lost: Mutex::new(None),
            fail_in: AtomicI64::new(-1),
            lose_in: AtomicI64::new(-1),
            allocated: AtomicU64::new(0),
        };
        let code = gpu.make_current();
        if code != 0 {
            return Err(unavailable(name_of(code)));
        }
        let mut version: c_int = 0;
        // SAFETY: asks about a kernel on the device that was just chosen; writes one int.
        let code = unsafe { ffi::kgc_code(&mut version) };
        if code != 0 {
            return Err(unavailable(format!("compute capability {major}.{minor}: {}", name_of(code))));
        }
        gpu.major = version / 10;
        // SAFETY: as above.
        gpu.wide = unsafe { ffi::kgc_wide_there() } != 0;
        let (_, total) = gpu.memory();
        if total == 0 {
            return Err(unavailable("it reports no memory".to_string()));
        }
        Ok(Arc::new(Gpu { card: Arc::new(gpu), budget }))
    }

    /// The same GPU on another budget.
    pub fn on_budget(&self, budget: &Arc<Budget>) -> Arc<Gpu> {
        Arc::new(Gpu { card: Arc::clone(&self.card), budget: Arc::clone(budget) })
    }

    /// Bytes that may still be lent: what is free, and what the cap leaves.
    pub fn room(&self) -> u64 {
        self.memory().0.min(self.budget.left_to_lend().unwrap_or(u64::MAX))
    }

    /// Counts bytes that are going to be lent, or says that the cap leaves no room for them.
    fn lend(&self, bytes: u64) -> Result<()> {
        self.budget.lend(bytes)?;
        self.allocated.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Counts bytes that have come back.
    fn give_back(&self, bytes: u64) {
        self.allocated.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.give_back(bytes);
    }
}

impl Card {
    /// "cuda:0".
    pub fn name(&self) -> String {
        format!("cuda:{}", self.ordinal)
    }

    /// Bytes free and in all.
    pub fn memory(&self) -> (u64, u64) {
        self.make_current();
        let (mut free, mut total) = (0usize, 0usize);
        // SAFETY: writes two sizes.
        let code = unsafe { ffi::cudaMemGetInfo(&mut free, &mut total) };
        if code == 0 { (free as u64, total as u64) } else { (0, 0) }
    }

    /// Bytes this device has lent through [`Buffer`] and not got back.
    pub fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::Relaxed)
    }

    /// Lets the allocation after `n` more fail, once; negative: none. For tests.
    pub fn fail_allocation_in(&self, n: i64) {
        self.fail_in.store(n, Ordering::SeqCst);
    }

    /// Lets the call after `n` more find the device lost; negative: none. For tests.
    pub fn lose_in(&self, n: i64) {
        self.lose_in.store(n, Ordering::SeqCst);
    }

    /// Makes this the thread's device; fails once the device is lost.
    pub fn bind(&self) -> Result<()> {
        let lost = self.lost.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((code, reason)) = &*lost {
            return Err(Error::DeviceLost { device: self.name(), code: *code, reason: reason.clone() });
        }
        drop(lost);
        self.check(self.make_current())
    }

    /// Makes this the thread's device, lost or not. The context that the host has there comes back behind its call.
    fn make_current(&self) -> c_int {
        context::put_aside();
        // SAFETY: the ordinal was checked when the device was opened; the first time this creates the context.
        unsafe { ffi::cudaSetDevice(self.ordinal) }
    }

    /// Turns a code into a result; what a call was refused for leaves the device as it was, anything else loses it.
    pub fn check(&self, code: c_int) -> Result<()> {
        let lose = self.lose_in.load(Ordering::Relaxed) >= 0 && self.lose_in.fetch_sub(1, Ordering::SeqCst) == 0;
        let code = if lose { ffi::ERROR_LAUNCH_FAILURE } else { code };
        if code == 0 {
            return Ok(());
        }
        // SAFETY: no arguments; clears an error that does not stick.
        unsafe { ffi::cudaGetLastError() };
        if code == ffi::ERROR_MEMORY_ALLOCATION {
            return Err(Error::OutOfMemory { place: self.name(), requested: 0, free: self.memory().0 });
        }
        let reason = name_of(code);
        if ffi::REFUSED.contains(&code) {
            return Err(Error::Internal { message: format!("{}: {reason} ({code})", self.name()) });
        }
        let mut lost = self.lost.lock().unwrap_or_else(|e| e.into_inner());
        let (code, reason) = lost.get_or_insert((i64::from(code), reason)).clone();
        Err(Error::DeviceLost { device: self.name(), code, reason })
    }

    fn injected(&self, bytes: usize) -> Result<()> {
        if self.fail_in.load(Ordering::SeqCst) >= 0 && self.fail_in.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(Error::OutOfMemory { place: self.name(), requested: bytes as u64, free: self.memory().0 });
        }
        Ok(())
    }
}

/// Device memory.
pub struct Buffer {
    gpu: Arc<Gpu>,
    address: Address,
    bytes: usize,
}

impl Buffer {
    /// `bytes` of uninitialized device memory.
    pub fn new(gpu: &Arc<Gpu>, bytes: usize) -> Result<Buffer> {
        gpu.bind()?;
        gpu.injected(bytes)?;
        gpu.lend(bytes as u64)?;
        let mut address: Address = 0;
        // SAFETY: writes one pointer.
        let code = unsafe { ffi::cudaMalloc(&mut address, bytes.max(256)) };
        let got = match code {
            ffi::ERROR_MEMORY_ALLOCATION => {
                // SAFETY: clears the error, which does not stick.
                unsafe { ffi::cudaGetLastError() };
                Err(Error::OutOfMemory { place: gpu.name(), requested: bytes as u64, free: gpu.memory().0 })
            }
            code => gpu.check(code),
        };
        if let Err(error) = got {
            gpu.give_back(bytes as u64);
            return Err(error);
        }
        Ok(Buffer { gpu: gpu.clone(), address, bytes })
    }

    /// `bytes` of device memory, zero.
    pub fn zeroed(gpu: &Arc<Gpu>, bytes: usize, stream: &Stream) -> Result<Buffer> {
        let buffer = Buffer::new(gpu, bytes)?;
        // SAFETY: the range was just allocated.
        gpu.check(unsafe { ffi::cudaMemsetAsync(buffer.address, 0, bytes, stream.raw()) })?;
        Ok(buffer)
    }

    /// Its first byte.
    pub fn at(&self) -> Address {
        self.address
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.gpu.make_current();
        // SAFETY: allocated by cudaMalloc on this device and freed once; a lost device's error changes nothing here.
        unsafe {
            ffi::cudaFree(self.address);
        }
        self.gpu.give_back(self.bytes as u64);
    }
}

/// Host memory that the device can read and write.
pub struct Pinned {
    gpu: Arc<Gpu>,
    address: usize,
}

impl Pinned {
    /// `bytes` of pinned memory, zero.
    pub fn new(gpu: &Arc<Gpu>, bytes: usize) -> Result<Pinned> {
        gpu.bind()?;
        let oom = || Error::OutOfMemory { place: "host".to_string(), requested: bytes as u64, free: 0 };
        gpu.injected(bytes)?;
        let mut address: *mut c_void = std::ptr::null_mut();
        // SAFETY: writes one pointer.
        let code = unsafe { ffi::cudaHostAlloc(&mut address, bytes.max(256), 0) };
        if code == ffi::ERROR_MEMORY_ALLOCATION {
            // SAFETY: clears the error, which does not stick.
            unsafe { ffi::cudaGetLastError() };
            return Err(oom());
        }
        gpu.check(code)?;
        // SAFETY: the range was just allocated.
        unsafe { std::ptr::write_bytes(address.cast::<u8>(), 0, bytes.max(256)) };
        Ok(Pinned { gpu: gpu.clone(), address: address as usize })
    }

    /// Its first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.address as *mut u8
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.gpu.make_current();
        // SAFETY: allocated by cudaHostAlloc and freed once.
        unsafe {
            ffi::cudaFreeHost(self.as_ptr().cast());
        }
    }
}

/// A queue of work.
pub struct Stream {
    gpu: Arc<Gpu>,
    raw: usize,
}

impl Stream {
    /// A new one.
    pub fn new(gpu: &Arc<Gpu>) -> Result<Stream> {
        gpu.bind()?;
        let mut raw: Handle = std::ptr::null_mut();
        // SAFETY: writes one handle.
        gpu.check(unsafe { ffi::cudaStreamCreateWithFlags(&mut raw, ffi::STREAM_NON_BLOCKING) })?;
        Ok(Stream { gpu: gpu.clone(), raw: raw as usize })
    }

    /// For launchers.
    pub fn raw(&self) -> Handle {
        self.raw as Handle
    }

    /// Waits until everything queued is done.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the stream lives as long as self.
        self.gpu.check(unsafe { ffi::cudaStreamSynchronize(self.raw()) })
    }

    /// Queues a copy to the device. Pageable memory is staged before this returns; pinned memory must stay as it is.
    ///
    /// # Safety
    /// `to .. to + bytes` is device memory, `from` readable for `bytes`.
    pub unsafe fn upload(&self, to: Address, from: *const u8, bytes: usize) -> Result<()> {
        // SAFETY: the caller's.
        self.gpu.check(unsafe {
            ffi::cudaMemcpyAsync(to as *mut c_void, from.cast(), bytes, ffi::HOST_TO_DEVICE, self.raw())
        })
    }

    /// Queues a copy on the device.
    ///
    /// # Safety
    /// Both ranges are device memory.
    pub unsafe fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<()> {
        // SAFETY: the caller's.
        let code = unsafe {
            ffi::cudaMemcpyAsync(to as *mut c_void, from as *const c_void, bytes, ffi::DEVICE_TO_DEVICE, self.raw())
        };
        self.gpu.check(code)
    }

    /// Copies from the device and waits.
    ///
    /// # Safety
    /// `from` holds `out.len()` elements, any bits of which are a `T`.
    pub unsafe fn download<T: Copy>(&self, from: Address, out: &mut [T]) -> Result<()> {
        let bytes = std::mem::size_of_val(out);
        // SAFETY: `out` is writable for its size; the source is the caller's.
        let code = unsafe {
            ffi::cudaMemcpyAsync(out.as_mut_ptr().cast(), from as *const c_void, bytes, ffi::DEVICE_TO_HOST, self.raw())
        };
        self.gpu.check(code)?;
        self.wait()
    }

    /// Records what `work` queues as a graph.
    pub fn capture(&self, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        // SAFETY: the stream lives as long as self; nothing else uses it, the caller holds its lock.
        self.gpu.check(unsafe { ffi::cudaStreamBeginCapture(self.raw(), ffi::CAPTURE_THREAD_LOCAL) })?;
        let done = work();
        let mut graph: Handle = std::ptr::null_mut();
        // SAFETY: ends the capture begun above, also after a failure.
        let code = unsafe { ffi::cudaStreamEndCapture(self.raw(), &mut graph) };
        if let Err(error) = done.and_then(|()| self.gpu.check(code)) {
            if !graph.is_null() {
                // SAFETY: captured above, destroyed once.
                unsafe { ffi::cudaGraphDestroy(graph) };
            }
            return Err(error);
        }
        let mut exec: Handle = std::ptr::null_mut();
        // SAFETY: `graph` was just captured; it is destroyed once.
        let code = unsafe {
            let code = ffi::cudaGraphInstantiate(&mut exec, graph, 0);
            ffi::cudaGraphDestroy(graph);
            code
        };
        self.gpu.check(code)?;
        Ok(Graph { gpu: self.gpu.clone(), raw: exec as usize })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.gpu.make_current();
        // SAFETY: created once and destroyed once; work still queued is waited for first, since it uses memory freed later.
        unsafe {
            ffi::cudaStreamSynchronize(self.raw());
            ffi::cudaStreamDestroy(self.raw());
        }
    }
}

/// A captured sequence of launches.
pub struct Graph {
    gpu: Arc<Gpu>,
    raw: usize,
}

impl Graph {
    /// Queues it.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both live; the memory it uses belongs to the model that owns it.
        self.gpu.check(unsafe { ffi::cudaGraphLaunch(self.raw as Handle, stream.raw()) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.gpu.make_current();
        // SAFETY: created once and destroyed once.
        unsafe {
            ffi::cudaGraphExecDestroy(self.raw as Handle);
        }
    }
}

/// A point in a stream.
pub struct Event {
    gpu: Arc<Gpu>,
    raw: usize,
}

impl Event {
    /// A new one; `timing`: for [`Event::milliseconds_since`].
    pub fn new(gpu: &Arc<Gpu>, timing: bool) -> Result<Event> {
        gpu.bind()?;
        let mut raw: Handle = std::ptr::null_mut();
        let flags = if timing { 0 } else { ffi::EVENT_DISABLE_TIMING };
        // SAFETY: writes one handle.
        gpu.check(unsafe { ffi::cudaEventCreateWithFlags(&mut raw, flags) })?;
        Ok(Event { gpu: gpu.clone(), raw: raw as usize })
    }

    /// Marks the stream's present end.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both live.
        self.gpu.check(unsafe { ffi::cudaEventRecord(self.raw as Handle, stream.raw()) })
    }

    /// Waits for it.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: lives.
        self.gpu.check(unsafe { ffi::cudaEventSynchronize(self.raw as Handle) })
    }

    /// Time from `start` to this one, both reached and made for timing.
    pub fn milliseconds_since(&self, start: &Event) -> Result<f32> {
        let mut ms = 0f32;
        // SAFETY: both live; writes one float.
        self.gpu.check(unsafe { ffi::cudaEventElapsedTime(&mut ms, start.raw as Handle, self.raw as Handle) })?;
        Ok(ms)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.gpu.make_current();
        // SAFETY: created once and destroyed once.
        unsafe {
            ffi::cudaEventDestroy(self.raw as Handle);
        }
    }
}
