//! A GPU as a place to load models.

use std::sync::Arc;

use crate::backend::cuda::driver::{Buffer, Code, Event, Gpu, Stream};
use crate::backend::cuda::kernels::abi;
use crate::backend::cuda::kernels::launch::{self, Queue};
use crate::backend::cuda::missing;
use crate::backend::cuda::run::model::{self, CudaModel};
use crate::backend::{Budget, Device, LoadControl, LoadOptions, LoadedModel, Plan};
use crate::error::Result;
use crate::model::{CacheClasses, Config, Weights};

/// One NVIDIA GPU.
pub struct CudaDevice {
    gpu: Arc<Gpu>,
}

impl CudaDevice {
    /// Opens GPU `ordinal`; `DeviceUnavailable` with the reason where there is none, `Internal` where the
    /// kernels were compiled for other structs.
    pub fn new(ordinal: usize) -> Result<CudaDevice> {
        abi::check()?;
        let code = || launch::code_version().map(|version| Code { major: version / 10, wide: version >= 90 });
        Ok(CudaDevice { gpu: Gpu::open(ordinal, Arc::<Budget>::default(), code)? })
    }

    /// The device itself, for what launches kernels one by one.
    #[doc(hidden)]
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
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
        options: &LoadOptions,
        control: &mut dyn LoadControl,
    ) -> Result<Arc<CudaModel>> {
        let gpu = self.gpu.on_budget(&options.budget);
        Ok(Arc::new(CudaModel::load(&gpu, config, weights, options.strict, control)?))
    }
}

impl Device for CudaDevice {
    fn name(&self) -> String {
        self.gpu.name()
    }

    fn kernels(&self) -> String {
        format!("kernels for compute capability {}.x", self.gpu.major)
    }

    fn read_bandwidth(&self, budget: &Arc<Budget>) -> Result<f64> {
        let gpu = &self.gpu.on_budget(budget);
        gpu.bind()?;
        // More than the cache holds, less than what anybody else needs.
        let bytes = (gpu.room() as usize / 4).clamp(1 << 20, 1 << 30) & !255;
        let stream = Stream::new(&self.gpu)?;
        let buffer = Buffer::zeroed(gpu, bytes, &stream)?;
        let (start, end) = (Event::new(gpu, true)?, Event::new(gpu, true)?);
        let mut least = f32::INFINITY;
        for _ in 0..8 {
            start.record(&stream)?;
            Queue::new(gpu, &stream).read(buffer.at(), bytes as u64, buffer.at())?;
            end.record(&stream)?;
            end.wait()?;
            least = least.min(end.milliseconds_since(&start)?);
        }
        Ok(bytes as f64 / (f64::from(least) * 1e-3))
    }

    fn check(&self, config: &Config) -> Result<()> {
        missing::check(config)
    }

    fn plan(&self, config: &Config, weights: &Weights<'_>) -> Plan {
        model::plan(config, weights)
    }

    fn cache_classes(&self, config: &Config) -> Result<CacheClasses> {
        CacheClasses::new(config)
    }

    fn load(
        &self,
        config: &Config,
        weights: &Weights<'_>,
        options: &LoadOptions,
        control: &mut dyn LoadControl,
    ) -> Result<Arc<dyn LoadedModel>> {
        Ok(self.load_model(config, weights, options, control)?)
    }
}
