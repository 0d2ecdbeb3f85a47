//! An engine: a device, its log and its memory cap.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::cache::Pools;
use super::log::{LogLevel, LogSink};
use super::schedule::Steppers;
use crate::backend::{self, Budget, Device, Host};
use crate::error::Result;

/// How an engine is made.
pub struct EngineOptions<'a> {
    /// "auto", "cpu", "cuda:N", "reference".
    pub device: &'a str,
    /// Threads that compute; 0: one for each physical core.
    pub n_threads: usize,
    /// Bytes for all its models together.
    pub memory_cap: Option<u64>,
    /// Its messages.
    pub log: LogSink,
}

/// A device; clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) device: Arc<dyn Device>,
    pub(super) n_threads: usize,
    pub(super) budget: Arc<Budget>,
    /// The pages of its models.
    pub(super) pools: Arc<Pools>,
    /// The threads that step sessions of its models.
    pub(super) steppers: Arc<Steppers>,
    pub(super) log: Arc<LogSink>,
    /// Loads that were begun: the number of each names its model in the log.
    pub(super) n_loads: AtomicU64,
}

impl Engine {
    /// Opens the device.
    pub fn new(options: EngineOptions<'_>) -> Result<Engine> {
        Engine::of_host(options, Host::default())
    }

    /// Opens the device for a host that does some of its work.
    pub fn of_host(options: EngineOptions<'_>, host: Host) -> Result<Engine> {
        let log = options.log;
        let device = backend::open_for(options.device, options.n_threads, host, &mut |name, error| {
            log.log(LogLevel::Info, format_args!("auto: not {name}: {error}"));
        })?;
        let n_threads = device.n_threads();
        Ok(Engine::with_device(device, n_threads, options.memory_cap, log))
    }

    /// An engine on a device of the caller's own making, which computes with `n_threads`.
    pub fn with_device(device: Arc<dyn Device>, n_threads: usize, memory_cap: Option<u64>, log: LogSink) -> Engine {
        let (budget, pools, steppers) = (Budget::new(memory_cap), Arc::default(), Arc::default());
        let log = Arc::new(log);
        let inner = Inner { device, n_threads, budget, pools, steppers, log, n_loads: AtomicU64::new(0) };
        let (name, kernels) = (inner.device.name(), inner.device.kernels());
        inner.log.log(LogLevel::Info, format_args!("device {name}, {n_threads} threads, {kernels}"));
        Engine { inner: Arc::new(inner) }
    }

    /// "cpu", "cuda:0", "reference".
    pub fn device_name(&self) -> String {
        self.inner.device.name()
    }

    /// Threads that compute.
    pub fn n_threads(&self) -> usize {
        self.inner.n_threads
    }

    /// Bytes a second that the device's memory can be read with, measured now.
    pub fn read_bandwidth(&self) -> Result<f64> {
        self.inner.device.read_bandwidth(&self.inner.budget)
    }

    /// The cap in bytes.
    pub fn memory_cap(&self) -> Option<u64> {
        self.inner.budget.cap()
    }

    /// Bytes that count against the cap.
    pub fn memory_used(&self) -> u64 {
        self.inner.budget.promised()
    }
}
