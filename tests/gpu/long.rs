//! LongRoPE on the GPU: see `common::long`; in strict mode, where prompts go token by token, and through the tensor cores.
//!
//! Without a device the test prints `skipped: no CUDA device` and passes, unless KIGO_REQUIRE_CUDA=1.

use std::sync::Arc;

use kigo::backend::cuda::CudaDevice;

use crate::common::{gpu, long};

#[test]
fn sessions_of_either_kind_stay_apart() {
    let Some(_turn) = gpu::device() else { return };
    let device = Arc::new(CudaDevice::new(0).expect("is there"));
    for strict in [true, false] {
        long::sessions_of_either_kind_stay_apart(device.clone(), strict);
    }
}
