//! Weights that tokens are drawn with: the loop that a draw's time goes into.

use super::exp::exp_neg;

/// What makes weights of logits.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// The largest logit.
    pub top: f32,
    /// 1 / temperature.
    pub inverse: f32,
    /// What is below it weighs nothing.
    pub floor: f32,
}

/// Logits to weights, as many; a function of each alone.
pub type SoftmaxWeights = fn(&[f32], Scale, &mut [u64]);

/// [`SoftmaxWeights`] as it is defined. Inlined, so that a backend can compile it again with the instructions that its
/// processor has; each step is one IEEE operation or a fused multiply-add, hence the same bits.
#[inline(always)]
pub fn softmax_weights(logits: &[f32], scale: Scale, out: &mut [u64]) {
    let Scale { top, inverse, floor } = scale;
    for (out, &l) in out.iter_mut().zip(logits) {
        // NaN is not above any floor.
        let e = if l >= floor { exp_neg((l - top) * inverse) } else { 0.0 };
        *out = times_one(e);
    }
}

/// floor(e * 2^40) for e from 0 to 1, in integers: vector units have no conversion to 64 bits.
#[inline(always)]
fn times_one(e: f32) -> u64 {
    let bits = e.to_bits();
    let significand = u64::from(bits & 0x007f_ffff | 0x0080_0000);
    // e = significand * 2^(exponent - 150).
    (significand << 17) >> 127_u32.saturating_sub(bits >> 23).min(63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::rule::ONE;

    #[test]
    fn weights_are_the_floor_of_the_product() {
        assert_eq!((times_one(1.0), times_one(0.0)), (ONE as u64, 0));
        for i in 0..3_000_000_u32 {
            let e = exp_neg(-(i as f32) * 1e-5 - (i % 7) as f32 * 8.0);
            assert_eq!(times_one(e), (e * ONE) as u64, "{e:e}");
        }
    }
}
