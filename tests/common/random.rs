//! Random numbers that are a function of their place: any row of any tensor can be made alone, on any thread.

use super::shapes::{Kind, TensorSpec};

/// A well mixed function of a counter (the finalizer of splitmix64).
pub fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// The key of a name.
pub fn key(seed: u64, name: &str) -> u64 {
    name.bytes().fold(mix(seed), |key, byte| mix(key ^ u64::from(byte)))
}

/// Approximately normal numbers of mean 0 and standard deviation 1: each is the sum of four bytes, scaled. `first` is
/// the index of `out[0]` among all numbers of the key, and is even.
pub fn normal(key: u64, first: u64, out: &mut [f32]) {
    /// Four times the variance of a byte, `(256^2 - 1) / 12`, under the root.
    const STD: f32 = 147.799_41;
    let sum = |bits: u32| bits.to_le_bytes().iter().map(|&b| i32::from(b)).sum::<i32>();
    for (i, pair) in out.chunks_mut(2).enumerate() {
        let bits = mix(key ^ (first / 2 + i as u64).wrapping_mul(0xd134_2543_de82_ef95));
        for (x, bits) in pair.iter_mut().zip([bits as u32, (bits >> 32) as u32]) {
            *x = (sum(bits) - 510) as f32 / STD;
        }
    }
}

/// The values of one row of a tensor.
pub fn fill_row(spec: &TensorSpec, seed: u64, row: u64, out: &mut [f32]) {
    // Rows of odd length leave one number unused, so that each starts at an even index.
    let stride = (out.len() as u64).next_multiple_of(2);
    normal(key(seed, &spec.name), row * stride, out);
    let (mean, std) = match &spec.kind {
        Kind::Matrix { std, .. } => (0.0, *std),
        Kind::Norm => (1.0, 0.1),
        Kind::NormOf { head_dim } => (1.0 / (*head_dim as f32).sqrt(), 0.1 / (*head_dim as f32).sqrt()),
        Kind::Bias => (0.0, 0.1),
        Kind::Decay => (-0.5, 0.1),
        Kind::RopeFreqs(factors) => {
            out.copy_from_slice(factors);
            return;
        }
    };
    out.iter_mut().for_each(|x| *x = mean + std * *x);
}
