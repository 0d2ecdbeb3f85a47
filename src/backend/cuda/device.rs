//! A GPU as a place to load models.

use std::sync::Arc;

use super::ffi;
use super::memory::{Buffer, Event, Gpu, Stream};
use super::model::{self, CudaModel};
use crate::backend::{Device, LoadControl, LoadedModel, Plan};
use crate::error::Result;
use crate::model::{Config, Weights};

/// One NVIDIA GPU.
pub struct CudaDevice {
    gpu: Arc<Gpu>,
}

impl CudaDevice {
    /// Opens GPU `ordinal`; `DeviceUnavailable` with the reason where there is none.
    pub fn new(ordinal: usize) -> Result<CudaDevice> {
        Ok(CudaDevice { gpu: Gpu::open(ordinal)? })
    }

    /// Bytes free and in all.
    pub fn memory(&self) -> (u64, u64) {
        self.gpu.memory()
    }

    /// Bytes lent to models and slots at present.
    pub fn allocated(&self) -> u64 {
        self.gpu.allocated()
    }

    /// Lets the allocation after `n` more fail, once; negative: none.
    #[doc(hidden)]
    pub fn fail_allocation_in(&self, n: i64) {
        self.gpu.fail_allocation_in(n);
    }

    /// Lets the call after `n` more find the device lost; negative: none.
    #[doc(hidden)]
    pub fn lose_in(&self, n: i64) {
        self.gpu.lose_in(n);
    }

    /// [`Device::load`], as its own type.
    #[doc(hidden)]
    pub fn load_model(
        &self,
        config: &Config,
        weights: &Weights<'_>,
        control: &mut dyn LoadControl,
    ) -> Result<Arc<CudaModel>> {
        Ok(Arc::new(CudaModel::load(&self.gpu, config, weights, control)?))
    }
}

impl Device for CudaDevice {
    fn name(&self) -> String {
        self.gpu.name()
    }

    fn set_memory_cap(&self, bytes: u64) {
        self.gpu.set_cap(bytes);
    }

    fn read_bandwidth(&self) -> Result<f64> {
        self.gpu.bind()?;
        // More than the cache holds, less than what anybody else needs.
        let bytes = (self.gpu.room() as usize / 4).clamp(1 << 20, 1 << 30) & !255;
        let stream = Stream::new(&self.gpu)?;
        let buffer = Buffer::zeroed(&self.gpu, bytes, &stream)?;
        let (start, end) = (Event::new(&self.gpu, true)?, Event::new(&self.gpu, true)?);
        let mut least = f32::INFINITY;
        for _ in 0..8 {
            start.record(&stream)?;
            // SAFETY: the buffer has so many bytes, of which the kernel would write one element if any.
            let code = unsafe { ffi::kgc_read(buffer.at(), bytes as u64, buffer.at(), self.gpu.n_sm, stream.raw()) };
            self.gpu.check(code)?;
            end.record(&stream)?;
            end.wait()?;
            least = least.min(end.milliseconds_since(&start)?);
        }
        Ok(bytes as f64 / (f64::from(least) * 1e-3))
    }

    fn plan(&self, config: &Config, weights: &Weights<'_>) -> Plan {
        model::plan(config, weights)
    }

    fn load(
        &self,
        config: &Config,
        weights: &Weights<'_>,
        control: &mut dyn LoadControl,
    ) -> Result<Arc<dyn LoadedModel>> {
        Ok(self.load_model(config, weights, control)?)
    }
}
