//! This library's kernel launchers, as C sees them; `launch` checks what goes to them. Those of rows are in `launch/rows.rs`.

use std::ffi::{c_int, c_void};

use super::abi::{Attend, Flash, Gemm, Mat, PrefillRope, Stage, State};
use super::packed::Packed;
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::driver::sys::Handle;

/// `kgc_gemv_float` and its kin.
pub type Gemv = unsafe extern "C" fn(*const Stage, Packed, u32, u32, c_int, c_int, Handle) -> c_int;
/// `kgc_gemv_batch_float` and its kin.
pub type GemvBatch = unsafe extern "C" fn(*const Stage, Packed, u32, u32, c_int, Handle) -> c_int;

#[rustfmt::skip]
unsafe extern "C" {
    pub fn kgc_code(version: *mut c_int) -> c_int;
    pub fn kgc_read(from: Address, bytes: u64, out: Address, n_sm: u32, stream: Handle) -> c_int;

    pub fn kgc_repack(mat: *const Mat, src: Address, first: u64, n: u64, stream: Handle) -> c_int;

    pub fn kgc_gemv_float(st: *const Stage, ty: Packed, ns: u32, threads: u32, deep: c_int, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_gemv_q32(st: *const Stage, ty: Packed, ns: u32, threads: u32, deep: c_int, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_gemv_k256(st: *const Stage, ty: Packed, ns: u32, threads: u32, deep: c_int, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_gemv_table(st: *const Stage, ty: Packed, ns: u32, threads: u32, deep: c_int, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_gemv_grid(st: *const Stage, ty: Packed, ns: u32, threads: u32, deep: c_int, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_gemv_ternary(st: *const Stage, ty: Packed, ns: u32, threads: u32, deep: c_int, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_gemv_mixed(st: *const Stage, ns: u32, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_gemv_batch_float(st: *const Stage, ty: Packed, nb: u32, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_gemv_batch_q32(st: *const Stage, ty: Packed, nb: u32, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_gemv_batch_k256(st: *const Stage, ty: Packed, nb: u32, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_gemv_batch_table(st: *const Stage, ty: Packed, nb: u32, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_gemv_batch_grid(st: *const Stage, ty: Packed, nb: u32, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_gemv_batch_ternary(st: *const Stage, ty: Packed, nb: u32, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_gemv_batch_most(n: u32, quant: c_int) -> u32;
    pub fn kgc_gemv_batch_shared(n: u32, quant: c_int, nb: u32) -> u64;
    pub fn kgc_f16_mma(st: *const Stage, deep: c_int, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_f16_mma_batch(st: *const Stage, nt: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_f16_mma_batch_most(n: u32, pair: c_int, parts: u32) -> u32;
    pub fn kgc_f16_mma_split(st: *const Stage, nt: u32, warps: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_f16_mma_split_most(n: u32, parts: u32) -> u32;
    pub fn kgc_f16_batch(st: *const Stage, nt: u32, ks: u32, groups: u32, two: c_int, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_f16_batch_slots(n: u32, parts: u32, nt: u32, ks: u32, groups: u32, two: c_int) -> u32;
    pub fn kgc_q_batch(st: *const Stage, ty: Packed, groups: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_q_batch_fits(ty: Packed, nt: u32, groups: u32) -> c_int;

    pub fn kgc_gemm_encoder(encode: *mut *mut c_void) -> c_int;
    pub fn kgc_gemm(gemm: *const Gemm, stream: Handle) -> c_int;
    pub fn kgc_dequantize_f16(mat: *const Mat, row0: u32, n: u32, slab: Address, lo: Address, stream: Handle) -> c_int;

    pub fn kgc_decode_attention(attend: *const Attend, chunks: u32, rep: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_flash_prefill(flash: *const Flash, stream: Handle) -> c_int;

    pub fn kgc_prefill_rope(rope: *const PrefillRope, stream: Handle) -> c_int;

    pub fn kgc_set_state(state: Address, value: *const State, stream: Handle) -> c_int;
    pub fn kgc_mask(logits: Address, allowed: Address, out: Address, n: u32, stream: Handle) -> c_int;
    pub fn kgc_argmax(state: Address, n_seq: u32, n: u32, best: Address, counter: Address, ring: Address, stream: Handle) -> c_int;
    pub fn kgc_sample(state: Address, n_seq: u32, n: u32, ring: Address, stream: Handle) -> c_int;
    pub fn kgc_sample_most() -> u32;
}
