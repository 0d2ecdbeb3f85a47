//! The GPU backend: fused stages over weights as they are quantized, one captured graph a step.
//!
//! `driver` is the device, `kernels` what its code takes, `weights` where a model lies, `plan` what runs, `run` who runs it.
//! Of CUDA there is the driver alone, which is looked for when a device is opened. Without nvcc at build time
//! `without_cuda.rs` stands here.
#![allow(unsafe_code)]

use std::sync::Arc;

use super::Device;
use super::info::{DeviceInfo, find_uuid};
use crate::error::{Error, Result};

mod device;
mod driver;
#[doc(hidden)]
pub mod kernels;
mod missing;
mod plan;
mod run;
mod weights;

pub use device::CudaDevice;
#[doc(hidden)]
pub use {
    driver::context::current as current_context,
    driver::{Address, Buffer, Gpu, Pinned, Stream},
    plan::f16_batch::Wide,
    plan::geometry::{Shape, Tuning},
    plan::op::Kind,
    run::model::CudaModel,
};

/// Opens GPU `ordinal`, or says why that cannot be.
pub fn open(ordinal: usize) -> Result<Arc<dyn Device>> {
    Ok(Arc::new(CudaDevice::new(ordinal)?))
}

/// Opens the GPU whose UUID is, or begins with, "GPU-..." or "MIG-...".
pub fn open_by_uuid(uuid: &str) -> Result<Arc<dyn Device>> {
    // What is no UUID is none on any machine.
    if let Err(error @ Error::Argument { .. }) = find_uuid(&[], uuid) {
        return Err(error);
    }
    let uuids = driver::list::uuids().map_err(|error| match error {
        Error::DeviceUnavailable { reason, .. } => Error::DeviceUnavailable { device: format!("cuda:{uuid}"), reason },
        other => other,
    })?;
    open(find_uuid(&uuids, uuid)?)
}

/// How many GPUs there are, or why that cannot be said.
pub fn count() -> std::result::Result<usize, String> {
    driver::list::count()
}

/// What GPU `ordinal` is.
pub fn info(ordinal: usize) -> Result<DeviceInfo> {
    driver::list::info(ordinal)
}
