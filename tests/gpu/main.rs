//! The GPU backend, on a GPU and on the emulated device (`make emulate`); and the random schedules, on the device that
//! `KIGO_DEVICE` names (the CPU where it names none).
//!
//! Without a device every test prints `skipped: no CUDA device` and passes, and a build without nvcc has tests that say so;
//! with KIGO_REQUIRE_CUDA=1 both fail. KIGO_FEW leaves much out, for the emulated device and for checkers that take their time.

#[path = "../common/mod.rs"]
mod common;

mod schedules;
mod states;

#[cfg(kigo_cuda)]
mod batch;
#[cfg(kigo_cuda)]
mod choice;
#[cfg(kigo_cuda)]
mod devices;
#[cfg(kigo_cuda)]
mod engine;
#[cfg(kigo_cuda)]
mod failures;
#[cfg(kigo_cuda)]
mod features;
#[cfg(kigo_cuda)]
mod forward;
#[cfg(kigo_cuda)]
mod long;
#[cfg(kigo_cuda)]
mod measure;
#[cfg(kigo_cuda)]
mod operations;
#[cfg(kigo_cuda)]
mod windows;

/// One test for each of those modules, in a build without them.
#[cfg(not(kigo_cuda))]
macro_rules! skipped {
    ($($module:ident),*) => {$(
        mod $module {
            #[test]
            fn every_test() {
                let required = std::env::var("KIGO_REQUIRE_CUDA").is_ok_and(|v| v == "1");
                assert!(!required, "no nvcc: this build is for the CPU only");
                println!("skipped: no nvcc (this build is for the CPU only)");
            }
        }
    )*};
}
#[cfg(not(kigo_cuda))]
skipped!(batch, choice, devices, engine, failures, features, forward, long, operations, windows);
