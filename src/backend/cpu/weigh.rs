//! The sampler's weights with this processor's instructions: `sampler::weigh_each`, compiled once for each set.
//!
//! Its steps are IEEE operations and fused multiply-adds, which a plain build calls a function for, one at a time; the bits
//! are the same.

use super::simd::Isa;
use crate::sampler::{Scale, Weigh, weigh_each};

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(logits: &[f32], scale: Scale, out: &mut [u64]) {
    weigh_each(logits, scale, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")]
fn avx512(logits: &[f32], scale: Scale, out: &mut [u64]) {
    weigh_each(logits, scale, out);
}

/// The weights by the instructions of `isa`.
pub fn weigher(isa: Isa) -> Weigh {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa` values other than Portable come from `Isa::available`.
        Isa::Avx2 => |logits, scale, out| unsafe { avx2(logits, scale, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512 => |logits, scale, out| unsafe { avx512(logits, scale, out) },
        _ => weigh_each,
    }
}
