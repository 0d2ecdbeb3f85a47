//! What stands in the place of `cuda/` where the library was built without nvcc.

use std::sync::Arc;

use super::Device;
use super::info::{DeviceInfo, find_uuid};
use crate::error::{Error, Result};

const REASON: &str = "built without CUDA: no nvcc was found";

fn unavailable(device: String) -> Error {
    Error::DeviceUnavailable { device, reason: REASON.to_owned() }
}

/// Says that there is no code for GPUs in this build.
pub fn open(ordinal: usize) -> Result<Arc<dyn Device>> {
    Err(unavailable(format!("cuda:{ordinal}")))
}

/// The same, of what is a UUID.
pub fn open_by_uuid(uuid: &str) -> Result<Arc<dyn Device>> {
    match find_uuid(&[], uuid) {
        Err(error @ Error::Argument { .. }) => Err(error),
        _ => Err(unavailable(format!("cuda:{uuid}"))),
    }
}

/// The same.
pub fn count() -> std::result::Result<usize, String> {
    Err(REASON.to_owned())
}

/// The same.
pub fn info(ordinal: usize) -> Result<DeviceInfo> {
    Err(unavailable(format!("cuda:{ordinal}")))
}
