//! Sixteen lanes behind one name: the instructions that the kernels are written in.
//!
//! A lane is a row of a weight panel, a key, or an element of a head; no kernel ever adds across lanes except
//! through [`Simd::sum`], whose tree is fixed. Every operation is exact in integers or one IEEE rounding in f32,
//! so that portable, AVX2 and AVX-512 give the same bits; `tests` below hold each of them to the portable one.
//!
//! Kernels are `#[inline(always)]` functions generic over [`Simd`]; [`dispatch!`] instantiates them inside
//! functions that enable an instruction set.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use portable::Portable;

/// Lanes of every vector.
pub const LANES: usize = 16;

/// Whether weights that meet one token are to be asked for before they are needed. A Sapphire Rapids sees too few cache misses past a
/// block's arithmetic; a Zen 5 sees far enough by itself, and instructions in front of the weights cost it: of 1.5B in Q4_K_M, asking
/// ahead and two panels at once took 42 tokens a second to 26.
pub fn asks_ahead() -> bool {
    // Kept, since a virtual machine traps when its processor's name is read.
    static ASKS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *ASKS.get_or_init(is_intel)
}

#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    #[allow(unused_unsafe)] // newer compilers need none
    // SAFETY: every x86-64 processor has the instruction.
    let id = unsafe { std::arch::x86_64::__cpuid(0) };
    [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes) == [*b"Genu", *b"ineI", *b"ntel"]
}

#[cfg(not(target_arch = "x86_64"))]
fn is_intel() -> bool {
    false
}

/// The instruction sets the kernels exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust; the only one on other processors.
    Portable,
    /// AVX2, FMA, F16C.
    Avx2,
    /// AVX-512 F, BW, VL, VNNI.
    Avx512,
}

impl Isa {
    /// Those that this machine runs, slowest first.
    pub fn available() -> Vec<Isa> {
        #[allow(unused_mut)]
        let mut all = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
                all.push(Isa::Avx2);
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
                {
                    all.push(Isa::Avx512);
                }
            }
        }
        all
    }

    /// Its name, as processors' makers write it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "any processor",
            Isa::Avx2 => "AVX2",
            Isa::Avx512 => "AVX-512",
        }
    }

    /// The fastest one this machine runs.
    pub fn best() -> Isa {
        *Isa::available().last().unwrap_or(&Isa::Portable)
    }
}

/// One block of 32 activations, quantized to 16 bits with a common scale.
///
/// `x[i] = d * q[i]`, `|q| <= 32512`: 127 * 256, so that `q = 256 * hi + lo` with both in i8.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub struct XBlock {
    /// The integers in the order that [`Simd::dot4`] of the same instruction set reads.
    pub q: [u8; 64],
    /// Scale.
    pub d: f32,
    /// Minus the sum of `q[0..32]`, `q[0..16]` and `q[16..32]`.
    pub neg_sum: [i32; 3],
    /// `d * sum` of the same three, rounded once.
    pub sum: [f32; 3],
    /// Rounds the size up.
    pub pad: u32,
}

impl XBlock {
    /// All zero.
    pub const ZERO: XBlock = XBlock { q: [0; 64], d: 0.0, neg_sum: [0; 3], sum: [0.0; 3], pad: 0 };
}

/// Largest magnitude of a quantized activation.
pub const X_MAX: f32 = 32512.0;

/// The operations.
///
/// # Safety
/// Every function needs the instruction set of its type; pointers must be valid for what the name says.
#[allow(clippy::missing_safety_doc)]
pub trait Simd: Copy {
    /// 16 f32.
    type F: Copy;
    /// 16 i32.
    type I: Copy;
    /// 16 lanes of 4 unsigned bytes.
    type W: Copy;
    /// An integer accumulator of [`Simd::dot4`].
    type Acc: Copy;

    /// Asks for the cache line at `p`, which need not be readable.
    #[inline(always)]
    unsafe fn prefetch(p: *const u16) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch never faults.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = p;
    }
    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn store(p: *mut f32, v: Self::F);
    /// 16 f16.
    unsafe fn load_f16(p: *const u16) -> Self::F;
    unsafe fn store_f16(p: *mut u16, v: Self::F);
    unsafe fn load_bf16(p: *const u16) -> Self::F;
    /// 16 u8 as f32.
    unsafe fn load_u8(p: *const u8) -> Self::F;
    /// 16 i8 as f32.
    unsafe fn load_i8(p: *const u8) -> Self::F;
    /// The low (`HIGH` false) or high nibbles of 16 bytes as f32.
    unsafe fn load_nibble<const HIGH: bool>(p: *const u8) -> Self::F;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a > b ? a : b` (b where either is NaN).
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn abs(a: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Nearest integer, ties to even.
    unsafe fn round(a: Self::F) -> Self::I;
    unsafe fn to_f(a: Self::I) -> Self::F;
    /// `2^n` for n in -126..=127.
    unsafe fn pow2(n: Self::I) -> Self::F;
    /// Keeps lanes `first .. last`, others become `fill`.
    unsafe fn keep(a: Self::F, first: usize, last: usize, fill: f32) -> Self::F;

    unsafe fn w_load(p: *const u8) -> Self::W;
    unsafe fn w_and(a: Self::W, mask: u8) -> Self::W;
    unsafe fn w_or(a: Self::W, b: Self::W) -> Self::W;
    /// Shifts of 32-bit lanes; callers mask what crosses bytes.
    unsafe fn w_shr<const N: u32>(a: Self::W) -> Self::W;
    unsafe fn w_shl<const N: u32>(a: Self::W) -> Self::W;
    /// Each byte, which is below 16, as that one of the table.
    unsafe fn w_table(a: Self::W, table: &[u8; 16]) -> Self::W;
    /// 16 bytes, each in a lane of 32 bits.
    unsafe fn w_load_u8(p: *const u8) -> Self::W;
    /// 16 numbers of 16 bits, each in a lane of 32 bits.
    unsafe fn w_load_u16(p: *const u8) -> Self::W;
    /// What the mask leaves of each lane of 32 bits.
    unsafe fn w_mask(a: Self::W, mask: u32) -> Self::W;
    /// The elements of a table at the places that the lanes say, all of which it has.
    unsafe fn w_gather(table: &[u32], at: Self::W) -> Self::W;

    /// An accumulator that starts at `n << SHIFT`.
    unsafe fn acc<const SHIFT: u32>(n: i32) -> Self::Acc;
    /// Adds to each lane the dot product of its 4 bytes and activations `4g .. 4g + 4`.
    unsafe fn dot4(acc: Self::Acc, w: Self::W, x: &XBlock, g: usize) -> Self::Acc;
    /// The exact sum.
    unsafe fn total(acc: Self::Acc) -> Self::I;
    /// Stores 32 quantized activations, 16 in each argument, in the order of `dot4`.
    unsafe fn encode(a: Self::I, b: Self::I, out: &mut [u8; 64]);
    /// The sum of the lanes.
    unsafe fn sum_i(a: Self::I) -> i32;

    /// All lanes to memory.
    #[inline(always)]
    unsafe fn to_array(a: Self::F) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        // SAFETY: `out` has 16 elements.
        unsafe { Self::store(out.as_mut_ptr(), a) };
        out
    }

    /// Sum of the lanes: pairs at distance 8, 4, 2, 1.
    #[inline(always)]
    unsafe fn sum(a: Self::F) -> f32 {
        // SAFETY: as the caller's.
        let mut v = unsafe { Self::to_array(a) };
        for step in [8, 4, 2, 1] {
            for i in 0..step {
                v[i] += v[i + step];
            }
        }
        v[0]
    }

    /// Largest lane, where none is NaN.
    unsafe fn largest(a: Self::F) -> f32;
    /// Whether a lane is not zero; NaN is not.
    unsafe fn any(a: Self::F) -> bool;

    /// e^x for x <= 88, within 2 units in the last place; below -87 it is 0.
    ///
    /// x = n ln2 + r, |r| <= ln2/2; a degree-6 polynomial for e^r, scaled by 2^n. -inf gives 0, NaN gives 0.
    #[inline(always)]
    unsafe fn exp(x: Self::F) -> Self::F {
        // SAFETY: as the caller's.
        unsafe {
            let low = Self::splat(-87.0);
            let c = Self::max(x, low);
            let n = Self::round(Self::mul(c, Self::splat(std::f32::consts::LOG2_E)));
            let nf = Self::to_f(n);
            let r = Self::fma(nf, Self::splat(-0.693_359_4), c);
            let r = Self::fma(nf, Self::splat(2.121_944_4e-4), r);
            let mut p = Self::splat(1.388_888_9e-3);
            p = Self::fma(p, r, Self::splat(8.333_334e-3));
            p = Self::fma(p, r, Self::splat(4.166_666_6e-2));
            p = Self::fma(p, r, Self::splat(1.666_666_7e-1));
            p = Self::fma(p, r, Self::splat(0.5));
            p = Self::fma(p, r, Self::splat(1.0));
            p = Self::fma(p, r, Self::splat(1.0));
            let e = Self::mul(p, Self::pow2(n));
            // Zero where x was below the range.
            Self::select_gt(x, low, e)
        }
    }

    /// `a > b ? v : 0`.
    unsafe fn select_gt(a: Self::F, b: Self::F, v: Self::F) -> Self::F;
}

/// Defines `fn name(isa, args...)` that runs the generic kernel `$kernel` with the instructions of `isa`.
///
/// The generic kernel takes the `Simd` type as its first type parameter and is `#[inline(always)] unsafe fn`.
macro_rules! dispatch {
    ($(#[$doc:meta])* pub fn $name:ident $(<$($g:ident : $b:path),*>)? ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? = $kernel:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        pub unsafe fn $name $(<$($g: $b),*>)? (isa: $crate::backend::cpu::simd::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx2 $(<$($g: $b),*>)? ($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the function enables what `Avx2` needs; the rest is the caller's.
                unsafe { $kernel::<$crate::backend::cpu::simd::Avx2 $(, $($g),*)?>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx512 $(<$($g: $b),*>)? ($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the function enables what `Avx512` needs; the rest is the caller's.
                unsafe { $kernel::<$crate::backend::cpu::simd::Avx512 $(, $($g),*)?>($($arg),*) }
            }
            // SAFETY: `Isa` values other than Portable come from `Isa::available`; the rest is the caller's.
            unsafe {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    $crate::backend::cpu::simd::Isa::Avx2 => avx2 $(::<$($g),*>)? ($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::backend::cpu::simd::Isa::Avx512 => avx512 $(::<$($g),*>)? ($($arg),*),
                    _ => $kernel::<$crate::backend::cpu::simd::Portable $(, $($g),*)?>($($arg),*),
                }
            }
        }
    };
}
pub(super) use dispatch;
