//! The GPU backend: fused stages over weights as they are quantized, one captured graph a step.
//!
//! The CUDA runtime is linked statically and called through a thin list of imports (`ffi`): it opens the driver by itself,
//! returns an error where there is none, and is all that the kernels' launchers need anyway. Without nvcc at build time
//! this module has one function, which says so.

use std::sync::Arc;

use super::Device;
use crate::error::Result;

#[cfg(kigo_cuda)]
#[allow(unsafe_code)]
mod ahead;
#[cfg(kigo_cuda)]
#[allow(unsafe_code)]
mod batch;
#[cfg(kigo_cuda)]
#[allow(unsafe_code)]
mod choice;
#[cfg(kigo_cuda)]
#[allow(unsafe_code)]
mod context;
#[cfg(kigo_cuda)]
#[allow(unsafe_code)]
mod device;
#[cfg(kigo_cuda)]
#[allow(missing_docs, unsafe_code)]
/// cbindgen:ignore
mod ffi;
#[cfg(kigo_cuda)]
#[allow(unsafe_code)]
mod ints;
#[cfg(kigo_cuda)]
mod layout;
#[cfg(kigo_cuda)]
#[allow(unsafe_code)]
mod load;
#[cfg(kigo_cuda)]
mod measure;
#[cfg(kigo_cuda)]
#[allow(unsafe_code)]
mod memory;
#[cfg(kigo_cuda)]
#[allow(unsafe_code)]
mod model;
#[cfg(kigo_cuda)]
#[allow(unsafe_code, missing_docs)]
mod prefill;
#[cfg(kigo_cuda)]
#[allow(unsafe_code, missing_docs)]
mod program;
#[cfg(kigo_cuda)]
#[allow(unsafe_code)]
mod prompts;
#[cfg(kigo_cuda)]
#[allow(unsafe_code)]
mod tap;
#[cfg(kigo_cuda)]
#[allow(unsafe_code)]
mod wide;
#[cfg(kigo_cuda)]
#[allow(unsafe_code)]
mod workspace;

#[cfg(kigo_cuda)]
pub use device::CudaDevice;
#[cfg(kigo_cuda)]
#[doc(hidden)]
pub use {
    context::current as current_context,
    model::CudaModel,
    program::{Kind, Shape, Tuning},
    wide::Wide,
};

/// Opens GPU `ordinal`, or says why that cannot be.
#[cfg(kigo_cuda)]
pub fn open(ordinal: usize) -> Result<Arc<dyn Device>> {
    Ok(Arc::new(CudaDevice::new(ordinal)?))
}

/// Says that there is no code for GPUs in this build.
#[cfg(not(kigo_cuda))]
pub fn open(ordinal: usize) -> Result<Arc<dyn Device>> {
    Err(crate::error::Error::DeviceUnavailable {
        device: format!("cuda:{ordinal}"),
        reason: "built without CUDA: no nvcc was found".to_string(),
    })
}
