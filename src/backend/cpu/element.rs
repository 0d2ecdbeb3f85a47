//! The float types of files, 16 elements at a time as f32.

use super::simd::Simd;

/// A float type of the file.
#[allow(clippy::missing_safety_doc)]
pub trait Element: Copy {
    /// Bytes of an element.
    const BYTES: usize;
    /// 16 of them as f32.
    unsafe fn load<S: Simd>(p: *const u8) -> S::F;
}

/// 32-bit IEEE.
#[derive(Clone, Copy)]
pub struct F32;
/// 16-bit IEEE.
#[derive(Clone, Copy)]
pub struct F16;
/// The upper half of an F32.
#[derive(Clone, Copy)]
pub struct Bf16;

impl Element for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::F {
        // SAFETY: the caller's pointer holds 16 elements; so below.
        unsafe { S::load(p.cast()) }
    }
}
impl Element for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::F {
        // SAFETY: as above.
        unsafe { S::load_f16(p.cast()) }
    }
}
impl Element for Bf16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::F {
        // SAFETY: as above.
        unsafe { S::load_bf16(p.cast()) }
    }
}
