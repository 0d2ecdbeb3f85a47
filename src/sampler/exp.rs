//! The exponential that weights are made of: the same bits on every machine.

/// ln2 in two parts; a whole number below 2^9 times the first is exact.
pub const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Coefficients of the Taylor polynomial of e^x, from the sixth degree down: 1/720, 1/120, ... 1, 1.
pub const TERMS: [f32; 7] = [1.388_888_9e-3, 8.333_334e-3, 4.166_666_6e-2, 1.666_666_7e-1, 0.5, 1.0, 1.0];

/// e^x for x <= 0, within 2 units in the last place; below -87, and for NaN, it is 0.
///
/// x = n ln2 + r with |r| <= ln2 / 2, a degree-6 Taylor polynomial of e^r, times 2^n. Every step is one IEEE
/// operation or an explicit fused multiply-add, so that a GPU that does the same steps gets the same bits.
#[inline(always)]
pub fn exp_neg(x: f32) -> f32 {
    if x.is_nan() || x < -87.0 {
        return 0.0;
    }
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = n.mul_add(-LN2[0], x);
    let r = n.mul_add(-LN2[1], r);
    let [mut p, rest @ ..] = TERMS;
    for c in rest {
        p = p.mul_add(r, c);
    }
    p * f32::from_bits(((n as i32 + 127) as u32) << 23)
}
