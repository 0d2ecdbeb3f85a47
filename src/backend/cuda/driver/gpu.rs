//! The device, its memory's budget, and what its calls come to.
//!
//! Invariants: every pass and allocation first makes the device current on its thread (`Gpu::bind`), and puts aside what the
//! host had there; every failure becomes `OutOfMemory` with the bytes asked and free, or `DeviceLost`, which stays: later calls fail
//! with the same reason.

use std::ffi::c_int;
use std::ops::Deref;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::context;
use super::registry;
use super::sys::{self as ffi, Code as _, DeviceAttribute, name_of};
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
    /// Its primary context.
    context: usize,
    /// Multiprocessors.
    pub n_sm: u32,
    /// Compute capability that the code was compiled for, major: at most the device's.
    pub major: i32,
    /// Bytes of shared memory that a block may have.
    pub shared_most: usize,
    /// Whether it has the kernels of code of version 9.0: f16_batch, q_batch, the draw.
    pub wide: bool,
    lost: Mutex<Option<(i64, String)>>,
    /// Counts down at each allocation; the one that finds 0 fails. Negative: off. For tests.
    fail_in: AtomicI64,
    /// The same for calls: the one that finds 0 is told that a kernel failed.
    lose_in: AtomicI64,
    allocated: AtomicU64,
}

/// The code that the library has for a GPU.
pub struct Code {
    /// Compute capability that it was compiled for, major.
    pub major: i32,
    /// Whether there are the kernels of code of version 9.0: f16_batch, q_batch, the draw.
    pub wide: bool,
}

impl Gpu {
    /// Opens the device, or says why not; `find_code` asks what code there is for it, once it is current.
    pub fn open(
        ordinal: usize,
        budget: Arc<Budget>,
        find_code: impl FnOnce() -> std::result::Result<Code, c_int>,
    ) -> Result<Arc<Gpu>> {
        let device = format!("cuda:{ordinal}");
        let unavailable = |reason: String| Error::DeviceUnavailable { device: device.clone(), reason };
        ffi::open().map_err(unavailable)?;
        registry::complete().map_err(unavailable)?;
        let refused = |code: c_int| unavailable(name_of(code));
        let mut count: c_int = 0;
        // SAFETY: writes one int.
        match unsafe { ffi::cuDeviceGetCount(&mut count) }.code() {
            0 if ordinal < count.max(0) as usize => {}
            0 => return Err(unavailable(format!("this machine has {count} CUDA devices"))),
            code => return Err(refused(code)),
        }
        let get = |attribute: DeviceAttribute| {
            let mut value: c_int = 0;
            // SAFETY: writes one int; a device is its ordinal, which was checked.
            let code = unsafe { ffi::cuDeviceGetAttribute(&mut value, attribute, ordinal as c_int) }.code();
            if code == 0 { Ok(value) } else { Err(refused(code)) }
        };
        let n_sm = get(DeviceAttribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let major = get(DeviceAttribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = get(DeviceAttribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let shared = get(DeviceAttribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        if let Some(reason) = super::list::lacks(major, minor) {
            return Err(unavailable(reason));
        }
        let mut gpu = Card {
            ordinal: ordinal as i32,
            context: context::primary(ordinal as c_int).map_err(refused)?,
            n_sm: n_sm.max(1) as u32,
            major: 0,
            shared_most: shared.max(48 << 10) as usize,
            wide: false,
            lost: Mutex::new(None),
            fail_in: AtomicI64::new(-1),
            lose_in: AtomicI64::new(-1),
            allocated: AtomicU64::new(0),
        };
        let current = gpu.make_current();
        if current != 0 {
            return Err(refused(current));
        }
        let code =
            find_code().map_err(|e| unavailable(format!("compute capability {major}.{minor}: {}", name_of(e))))?;
        (gpu.major, gpu.wide) = (code.major, code.wide);
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
    pub(super) fn lend(&self, bytes: u64) -> Result<()> {
        self.budget.lend(bytes)?;
        self.allocated.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Counts bytes that have come back.
    pub(super) fn give_back(&self, bytes: u64) {
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
        let code = unsafe { ffi::cuMemGetInfo_v2(&mut free, &mut total) }.code();
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
    pub(super) fn make_current(&self) -> c_int {
        context::make_current(self.context)
    }

    /// Turns a code into a result; what a call was refused for leaves the device as it was, anything else loses it.
    pub fn check(&self, code: impl ffi::Code) -> Result<()> {
        let code = code.code();
        let lose = self.lose_in.load(Ordering::Relaxed) >= 0 && self.lose_in.fetch_sub(1, Ordering::SeqCst) == 0;
        let code = if lose { ffi::ERROR_LAUNCH_FAILURE } else { code };
        if code == 0 {
            return Ok(());
        }
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

    pub(super) fn injected(&self, bytes: usize) -> Result<()> {
        if self.fail_in.load(Ordering::SeqCst) >= 0 && self.fail_in.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(Error::OutOfMemory { place: self.name(), requested: bytes as u64, free: self.memory().0 });
        }
        Ok(())
    }
}
