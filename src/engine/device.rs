//! An engine: a device, its log and its memory cap.

use std::path::Path;
use std::sync::Arc;

use super::facts::LoadPlan;
use super::log::{LogLevel, LogSink};
use super::model::{LoadOptions, Model};
use crate::backend::{self, Budget, Device, Plan};
use crate::error::Result;
use crate::gguf::Gguf;

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
    pub(super) log: LogSink,
}

impl Engine {
    /// Opens the device.
    pub fn new(options: EngineOptions<'_>) -> Result<Engine> {
        let device = backend::open(options.device, options.n_threads)?;
        let n_threads = device.n_threads();
        Ok(Engine::with_device(device, n_threads, options.memory_cap, options.log))
    }

    /// An engine on a device of the caller's own making, which computes with `n_threads`.
    pub fn with_device(device: Arc<dyn Device>, n_threads: usize, memory_cap: Option<u64>, log: LogSink) -> Engine {
        let inner = Inner { device, n_threads, budget: Budget::new(memory_cap), log };
        inner.log.log(LogLevel::Info, format_args!("device {}, {n_threads} threads", inner.device.name()));
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

    /// What loading a file would take.
    pub fn plan_file(&self, path: &Path) -> Result<Plan> {
        Ok(Model::plan(self, &Gguf::open(path)?)?.0)
    }

    /// What loading a file and a session of so many tokens (`None`: as many as the model was trained for) would take.
    pub fn plan_file_for(&self, path: &Path, n_tokens: Option<usize>, vocabulary: bool) -> Result<LoadPlan> {
        LoadPlan::of(self, &Gguf::open(path)?, n_tokens, vocabulary)
    }

    /// Loads a file; `progress` gets done and total bytes, and an error of its stops the load.
    pub fn load_file(&self, path: &Path, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Model> {
        self.load_file_with(path, LoadOptions::default(), progress)
    }

    /// [`Self::load_file`] with options.
    pub fn load_file_with(
        &self,
        path: &Path,
        options: LoadOptions,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<Model> {
        Model::load(self, &Gguf::open(path)?, options, progress)
    }

    /// Loads a file that lies in memory.
    pub fn load_memory(&self, bytes: &[u8], progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Model> {
        self.load_memory_with(bytes, LoadOptions::default(), progress)
    }

    /// [`Self::load_memory`] with options.
    pub fn load_memory_with(
        &self,
        bytes: &[u8],
        options: LoadOptions,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<Model> {
        Model::load(self, &Gguf::from_bytes(bytes)?, options, progress)
    }
}
