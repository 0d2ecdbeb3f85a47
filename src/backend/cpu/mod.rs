//! The CPU backend: quantized rows through integer dot products, on its own threads.
//!
//! Weights are repacked at load into panels of 16 rows ([`format`]), so the file is not needed afterwards.
//! Activations that meet quantized weights are quantized to 16 bits a block of 32, 256 times finer than the usual 8,
//! which leaves the weights' own error as the only one that shows. Results are the same bits on every instruction
//! set, for any number of threads, any chunking of a prompt and any company in a batch: each of the orders of
//! summation (in `linear`, `attention`, `vector`) is fixed by the weights' shapes and by positions.

#![allow(unsafe_code)] // memory, threads and instructions are this backend's trade

mod activation;
mod arena;
mod attend;
mod attention;
mod cache;
mod delta;
mod element;
mod experts;
mod ffn;
mod format;
mod forward;
mod head;
mod host;
mod host_pages;
mod latent;
mod layer;
mod layout;
mod linear;
mod load;
mod load_parts;
mod load_recurrent;
mod loaded;
mod mamba2;
mod memory;
mod mixing;
mod pack;
mod parallel;
mod per_layer;
mod plan;
mod recurrent;
mod room;
mod routed;
mod rows;
mod simd;
mod slot;
mod softmax_weights;
mod threads;
mod vector;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use host::{Host, HostMemory, MemoryKind};
pub use parallel::{ParallelFor, Stage};
pub use simd::Isa;
pub use softmax_weights::softmax_weights_by;
pub use threads::{head, physical_cores};

use super::{Device, LoadControl, LoadOptions, LoadedModel, MAX_THREADS, Plan};
use crate::error::{Error, Result};
use crate::model::{CacheClasses, Config, Weights};
use threads::Pool;

/// How to make a [`CpuDevice`].
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuOptions {
    /// Threads, the caller's included; 0: one a physical core.
    pub n_threads: usize,
    /// Instruction set; `None`: the fastest this machine has.
    pub isa: Option<Isa>,
}

/// The processor with a set of threads.
pub struct CpuDevice {
    pool: Arc<Pool>,
    isa: Isa,
    memory: Option<Arc<dyn HostMemory>>,
}

impl CpuDevice {
    /// Starts the threads.
    pub fn new(options: CpuOptions) -> Result<CpuDevice> {
        CpuDevice::of_host(options, Host::default())
    }

    /// The processor as [`Self::new`] has it, but for what a host does in its place.
    pub fn of_host(options: CpuOptions, host: Host) -> Result<CpuDevice> {
        let all = || physical_cores().min(host.placement.n_cpus().unwrap_or(usize::MAX));
        let n = if options.n_threads == 0 { all() } else { options.n_threads };
        if n > MAX_THREADS {
            let expected = format!("at most {MAX_THREADS}");
            return Err(Error::Argument { name: "n_threads", found: n.to_string(), expected });
        }
        let isa = options.isa.unwrap_or_else(Isa::best);
        if !Isa::available().contains(&isa) {
            return Err(Error::DeviceUnavailable {
                device: "cpu".into(),
                reason: format!("this processor lacks {isa:?}"),
            });
        }
        let pool = match host.parallel_for {
            Some(parallel_for) => Pool::of_host(n, parallel_for),
            None => Pool::new(n, &host.placement)?,
        };
        Ok(CpuDevice { pool: Arc::new(pool), isa, memory: host.memory })
    }

    /// Threads, the caller's included.
    pub fn n_threads(&self) -> usize {
        self.pool.n_threads()
    }
}

impl Device for CpuDevice {
    fn name(&self) -> String {
        "cpu".into()
    }

    fn n_threads(&self) -> usize {
        CpuDevice::n_threads(self)
    }

    fn kernels(&self) -> String {
        format!("kernels for {}", self.isa.name())
    }

    fn plan(&self, config: &Config, weights: &Weights<'_>) -> Plan {
        load::plan(config, weights)
    }

    fn cache_classes(&self, config: &Config) -> Result<CacheClasses> {
        CacheClasses::new(config)
    }

    /// Always strict; the engine counts what it takes.
    fn load(
        &self,
        config: &Config,
        weights: &Weights<'_>,
        _: &LoadOptions,
        control: &mut dyn LoadControl,
    ) -> Result<Arc<dyn LoadedModel>> {
        Ok(Arc::new(load::load(config, weights, self.pool.clone(), self.isa, self.memory.clone(), control)?))
    }
}
