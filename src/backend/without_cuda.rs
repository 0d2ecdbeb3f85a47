//! What stands in the place of `cuda/` where the library was built without nvcc.

use std::sync::Arc;

use super::Device;
use crate::error::Result;

/// Says that there is no code for GPUs in this build.
pub fn open(ordinal: usize) -> Result<Arc<dyn Device>> {
    Err(crate::error::Error::DeviceUnavailable {
        device: format!("cuda:{ordinal}"),
        reason: "built without CUDA: no nvcc was found".to_string(),
    })
}
