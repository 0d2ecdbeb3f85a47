//! The sampler's weights with this processor's instructions: `sampler::softmax_weights`, compiled once for each set.
//!
//! Its steps are IEEE operations and fused multiply-adds, which a plain build calls a function for, one at a time; the bits
//! are the same.

use super::simd::Isa;
use crate::sampler::{Scale, SoftmaxWeights, softmax_weights};

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(logits: &[f32], scale: Scale, out: &mut [u64]) {
    softmax_weights(logits, scale, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")]
fn avx512(logits: &[f32], scale: Scale, out: &mut [u64]) {
    softmax_weights(logits, scale, out);
}

/// The weights by the instructions of `isa`.
pub fn softmax_weights_by(isa: Isa) -> SoftmaxWeights {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa` values other than Portable come from `Isa::available`.
        Isa::Avx2 => |logits, scale, out| unsafe { avx2(logits, scale, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512 => |logits, scale, out| unsafe { avx512(logits, scale, out) },
        _ => softmax_weights,
    }
}
