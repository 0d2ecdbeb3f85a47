//! Memory on the device, and memory of the host that the device can use; each gives itself back.

use std::ffi::c_void;
use std::sync::Arc;

use super::context::beside_captures;
use super::gpu::Gpu;
use super::stream::Stream;
use super::sys::{self as ffi, Address, Code};
use crate::error::{Error, Result};

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
        let code = beside_captures(|| unsafe { ffi::cuMemAlloc_v2(&mut address, bytes.max(256)) }.code());
        let got = match code {
            ffi::ERROR_MEMORY_ALLOCATION => {
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
        if bytes > 0 {
            // SAFETY: the range was just allocated.
            gpu.check(unsafe { ffi::cuMemsetD8Async(buffer.address, 0, bytes, stream.raw().cast()) })?;
        }
        Ok(buffer)
    }

    /// Queues a copy of these bytes to its start, and waits.
    pub fn write(&self, bytes: &[u8], stream: &Stream) -> Result<()> {
        if bytes.len() > self.bytes {
            return Err(Error::Internal { message: format!("{} bytes to a buffer of {}", bytes.len(), self.bytes) });
        }
        // SAFETY: the buffer has so many bytes.
        unsafe { stream.upload(self.address, bytes.as_ptr(), bytes.len())? };
        stream.wait()
    }

    /// Copies its bytes from `first` on, and waits.
    pub fn read(&self, first: usize, out: &mut [u8], stream: &Stream) -> Result<()> {
        if first.checked_add(out.len()).is_none_or(|end| end > self.bytes) {
            let message = format!("{} bytes from {first} on of a buffer of {}", out.len(), self.bytes);
            return Err(Error::Internal { message });
        }
        // SAFETY: they are inside the buffer, and any bits are a byte.
        unsafe { stream.download(self.address + first as u64, out) }
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
        // SAFETY: allocated by cuMemAlloc on this device and freed once; a lost device's error changes nothing here.
        beside_captures(|| unsafe { ffi::cuMemFree_v2(self.address) });
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
        let flags = ffi::HOST_PORTABLE_AND_MAPPED;
        // SAFETY: writes one pointer.
        let code = beside_captures(|| unsafe { ffi::cuMemHostAlloc(&mut address, bytes.max(256), flags) }.code());
        if code == ffi::ERROR_MEMORY_ALLOCATION {
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
        // SAFETY: allocated by cuMemHostAlloc and freed once.
        beside_captures(|| unsafe { ffi::cuMemFreeHost(self.as_ptr().cast()) });
    }
}
