//! Streams, captured graphs and events; each gives itself back.

use std::sync::Arc;

use super::gpu::Gpu;
use super::sys::{self as ffi, Address, CaptureMode, Code, Handle};
use crate::error::Result;

/// A queue of work.
pub struct Stream {
    gpu: Arc<Gpu>,
    raw: usize,
}

impl Stream {
    /// A new one.
    pub fn new(gpu: &Arc<Gpu>) -> Result<Stream> {
        gpu.bind()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one handle.
        gpu.check(unsafe { ffi::cuStreamCreate(&mut raw, ffi::STREAM_NON_BLOCKING) })?;
        Ok(Stream { gpu: gpu.clone(), raw: raw as usize })
    }

    /// For launchers.
    pub fn raw(&self) -> Handle {
        self.raw as Handle
    }

    /// Waits until everything queued is done.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the stream lives as long as self.
        self.gpu.check(unsafe { ffi::cuStreamSynchronize(self.raw().cast()) })
    }

    /// Queues a copy to the device. Pageable memory is staged before this returns; pinned memory must stay as it is.
    ///
    /// # Safety
    /// `to .. to + bytes` is device memory, `from` readable for `bytes`.
    pub unsafe fn upload(&self, to: Address, from: *const u8, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's.
        self.gpu.check(unsafe { ffi::cuMemcpyHtoDAsync_v2(to, from.cast(), bytes, self.raw().cast()) })
    }

    /// Queues a copy on the device.
    ///
    /// # Safety
    /// Both ranges are device memory.
    pub unsafe fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's.
        self.gpu.check(unsafe { ffi::cuMemcpyDtoDAsync_v2(to, from, bytes, self.raw().cast()) })
    }

    /// Copies from the device and waits.
    ///
    /// # Safety
    /// `from` holds `out.len()` elements, any bits of which are a `T`.
    pub unsafe fn download<T: Copy>(&self, from: Address, out: &mut [T]) -> Result<()> {
        let bytes = std::mem::size_of_val(out);
        if bytes > 0 {
            let to = out.as_mut_ptr().cast();
            // SAFETY: `out` is writable for its size; the source is the caller's.
            self.gpu.check(unsafe { ffi::cuMemcpyDtoHAsync_v2(to, from, bytes, self.raw().cast()) })?;
        }
        self.wait()
    }

    /// Records what `work` queues as a graph.
    pub fn capture(&self, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        // SAFETY: the stream lives as long as self; nothing else uses it, the caller holds its lock.
        self.gpu.check(unsafe {
            ffi::cuStreamBeginCapture_v2(self.raw().cast(), CaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        })?;
        let done = work();
        let mut graph = std::ptr::null_mut();
        // SAFETY: ends the capture begun above, also after a failure.
        let code = unsafe { ffi::cuStreamEndCapture(self.raw().cast(), &mut graph) }.code();
        if let Err(error) = done.and_then(|()| self.gpu.check(code)) {
            if !graph.is_null() {
                // SAFETY: captured above, destroyed once.
                unsafe { ffi::cuGraphDestroy(graph) };
            }
            return Err(error);
        }
        let mut exec = std::ptr::null_mut();
        // SAFETY: `graph` was just captured; it is destroyed once.
        let code = unsafe {
            let code = ffi::cuGraphInstantiateWithFlags(&mut exec, graph, 0);
            ffi::cuGraphDestroy(graph);
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
            ffi::cuStreamSynchronize(self.raw().cast());
            ffi::cuStreamDestroy_v2(self.raw().cast());
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
        self.gpu.check(unsafe { ffi::cuGraphLaunch(self.raw as _, stream.raw().cast()) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.gpu.make_current();
        // SAFETY: created once and destroyed once.
        unsafe {
            ffi::cuGraphExecDestroy(self.raw as _);
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
        let mut raw = std::ptr::null_mut();
        let flags = if timing { 0 } else { ffi::EVENT_DISABLE_TIMING };
        // SAFETY: writes one handle.
        gpu.check(unsafe { ffi::cuEventCreate(&mut raw, flags) })?;
        Ok(Event { gpu: gpu.clone(), raw: raw as usize })
    }

    /// Marks the stream's present end.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both live.
        self.gpu.check(unsafe { ffi::cuEventRecord(self.raw as _, stream.raw().cast()) })
    }

    /// Waits for it.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: lives.
        self.gpu.check(unsafe { ffi::cuEventSynchronize(self.raw as _) })
    }

    /// Time from `start` to this one, both reached and made for timing.
    pub fn milliseconds_since(&self, start: &Event) -> Result<f32> {
        let mut ms = 0f32;
        // SAFETY: both live; writes one float.
        self.gpu.check(unsafe { ffi::cuEventElapsedTime(&mut ms, start.raw as _, self.raw as _) })?;
        Ok(ms)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.gpu.make_current();
        // SAFETY: created once and destroyed once.
        unsafe {
            ffi::cuEventDestroy_v2(self.raw as _);
        }
    }
}
