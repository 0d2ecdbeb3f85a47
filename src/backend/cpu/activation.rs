//! The functions between the matrices of a feed-forward part.

use super::simd::{LANES, Simd, dispatch};
use super::vector::{load_n, store_n, tanh};
use crate::model::Activation;

dispatch! {
    /// `x = activation(x) * up`, or `activation(x)` where there is no `up`.
    pub fn activate(activation: Activation, x: *mut f32, up: Option<*const f32>, n: usize) = activate_row
}

#[inline(always)]
unsafe fn activate_row<S: Simd>(activation: Activation, x: *mut f32, up: Option<*const f32>, n: usize) {
    // SAFETY: x and up hold n elements.
    unsafe {
        match activation {
            Activation::Silu => row::<S, Silu>(x, up, n),
            Activation::GeluTanh => row::<S, GeluTanh>(x, up, n),
            Activation::Gelu => row::<S, Gelu>(x, up, n),
            Activation::Relu2 => row::<S, Relu2>(x, up, n),
            Activation::ClampedSwiglu => clamped_swiglu::<S>(x, up, n),
        }
    }
}

#[inline(always)]
unsafe fn row<S: Simd, A: Curve>(x: *mut f32, up: Option<*const f32>, n: usize) {
    // SAFETY: as `activate_row`.
    unsafe {
        for i in (0..n).step_by(LANES) {
            let mut v = A::at::<S>(load_n::<S>(x.add(i), n - i, 0.0));
            if let Some(up) = up {
                v = S::mul(v, load_n::<S>(up.add(i), n - i, 0.0));
            }
            store_n::<S>(x.add(i), n - i, v);
        }
    }
}

/// `x = g sigmoid(1.702 g) (clamp(up, -7, 7) + 1)` with `g = min(x, 7)`; `up` is 1 where there is none.
#[inline(always)]
unsafe fn clamped_swiglu<S: Simd>(x: *mut f32, up: Option<*const f32>, n: usize) {
    // SAFETY: as `activate_row`.
    unsafe {
        let minus = |v: S::F| S::sub(S::splat(0.0), v);
        // A NaN stays one: a maximum is its second argument then.
        let at_least = |v: S::F, least: f32| S::max(S::splat(least), v);
        let at_most = |v: S::F, most: f32| minus(at_least(minus(v), -most));
        for i in (0..n).step_by(LANES) {
            let g = at_most(load_n::<S>(x.add(i), n - i, 0.0), 7.0);
            // e^(-1.702 g) is bounded so that it stays finite.
            let exponent = minus(S::max(S::mul(S::splat(1.702), g), S::splat(-88.0)));
            let glu = S::div(g, S::add(S::splat(1.0), S::exp(exponent)));
            let u = up.map_or(S::splat(1.0), |up| load_n::<S>(up.add(i), n - i, 0.0));
            let u = S::add(at_least(at_most(u, 7.0), -7.0), S::splat(1.0));
            store_n::<S>(x.add(i), n - i, S::mul(glu, u));
        }
    }
}

/// A function of 16 elements.
trait Curve {
    /// # Safety
    /// The instructions of `S` are available.
    unsafe fn at<S: Simd>(x: S::F) -> S::F;
}

struct Silu;
struct GeluTanh;
struct Gelu;
struct Relu2;

impl Curve for Silu {
    #[inline(always)]
    unsafe fn at<S: Simd>(x: S::F) -> S::F {
        // SAFETY: as the caller's.
        unsafe {
            // e^-x is bounded so that it stays finite; at -88 the result is -0 in all but name.
            let minus = S::sub(S::splat(0.0), S::max(x, S::splat(-88.0)));
            let sigmoid = S::div(S::splat(1.0), S::add(S::splat(1.0), S::exp(minus)));
            S::mul(x, sigmoid)
        }
    }
}

impl Curve for GeluTanh {
    #[inline(always)]
    unsafe fn at<S: Simd>(x: S::F) -> S::F {
        // SAFETY: as the caller's.
        unsafe {
            let cube = S::mul(S::mul(x, x), x);
            let inner = S::mul(S::splat(0.797_884_6), S::fma(cube, S::splat(0.044_715), x));
            let half = S::mul(S::splat(0.5), x);
            S::fma(half, tanh::<S>(inner), half)
        }
    }
}

impl Curve for Gelu {
    #[inline(always)]
    unsafe fn at<S: Simd>(x: S::F) -> S::F {
        // SAFETY: as the caller's.
        unsafe {
            // One by one, in f64: where the error function is close to -1 its complement is not.
            let one = |x: f32| {
                let x = f64::from(x);
                (0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)) as f32
            };
            S::load(S::to_array(x).map(one).as_ptr())
        }
    }
}

impl Curve for Relu2 {
    #[inline(always)]
    unsafe fn at<S: Simd>(x: S::F) -> S::F {
        // SAFETY: as the caller's. A NaN stays one.
        unsafe { S::mul(S::max(x, S::splat(0.0)), x) }
    }
}
