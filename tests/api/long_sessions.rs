//! LongRoPE on the CPU and the reference: see `common::long`.

use std::sync::Arc;

use kigo::backend::cpu::{CpuDevice, CpuOptions};
use kigo::backend::reference::ReferenceDevice;

use crate::common::long;

#[test]
fn sessions_of_either_kind_stay_apart() {
    let cpu = CpuDevice::new(CpuOptions { n_threads: 2, isa: None }).expect("has threads");
    long::sessions_of_either_kind_stay_apart(Arc::new(cpu), true);
    long::sessions_of_either_kind_stay_apart(Arc::new(ReferenceDevice::PLAIN), true);
}
