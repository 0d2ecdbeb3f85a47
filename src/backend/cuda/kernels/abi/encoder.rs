//! What `kgc_gemm_encoder` finds.

/// The driver's function that describes a tensor to the copy engine, as `kgc_gemm_encoder` found it; none by default.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoder(pub(in crate::backend::cuda::kernels) u64);

impl Encoder {
    /// Whether the device has the kernels that want it.
    pub fn exists(self) -> bool {
        self.0 != 0
    }
}
