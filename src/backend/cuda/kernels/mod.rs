//! What the kernels take and how they are launched.

/// cbindgen:ignore
#[allow(missing_docs)]
pub mod abi;
/// cbindgen:ignore
mod ffi;
#[allow(missing_docs)]
pub mod kinds;
pub mod launch;
pub mod packed;
