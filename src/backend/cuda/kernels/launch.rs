//! This library's kernel launchers, as C sees them.

use std::ffi::{c_int, c_void};

use super::abi::{Attend, Flash, Gemm, Mat, PrefillNorm, PrefillRope, Stage, State};
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::driver::sys::Handle;
use crate::backend::cuda::kernels::packed::Packed;

unsafe extern "C" {
    pub fn kgc_stage_float(
        stage: *const Stage,
        ty: Packed,
        ns: u32,
        threads: u32,
        deep: c_int,
        pdl: c_int,
        stream: Handle,
    ) -> c_int;
    pub fn kgc_stage_q32(
        stage: *const Stage,
        ty: Packed,
        ns: u32,
        threads: u32,
        deep: c_int,
        pdl: c_int,
        stream: Handle,
    ) -> c_int;
    pub fn kgc_stage_k256(
        stage: *const Stage,
        ty: Packed,
        ns: u32,
        threads: u32,
        deep: c_int,
        pdl: c_int,
        stream: Handle,
    ) -> c_int;
    pub fn kgc_stage_mixed(stage: *const Stage, ns: u32, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_tile(stage: *const Stage, deep: c_int, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_tile_batch(stage: *const Stage, nt: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_tile_batch_most(n: u32, pair: c_int, parts: u32) -> u32;
    pub fn kgc_tile_split(stage: *const Stage, nt: u32, warps: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_tile_split_most(n: u32, parts: u32) -> u32;
    pub fn kgc_mask(logits: Address, allowed: Address, out: Address, n: u32, stream: Handle) -> c_int;
    pub fn kgc_code(version: *mut c_int) -> c_int;
    pub fn kgc_wide_there() -> c_int;
    pub fn kgc_wide_slots(n: u32, parts: u32, nt: u32, ks: u32, groups: u32, two: c_int) -> u32;
    pub fn kgc_wide(
        stage: *const Stage,
        nt: u32,
        ks: u32,
        groups: u32,
        two: c_int,
        pdl: c_int,
        stream: Handle,
    ) -> c_int;
    pub fn kgc_read(from: Address, bytes: u64, out: Address, n_sm: u32, stream: Handle) -> c_int;
    pub fn kgc_draw_most() -> u32;
    pub fn kgc_draw(state: Address, n_seq: u32, n: u32, ring: *mut u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_glu(gate: Address, up: Address, out: Address, n: u32, activation: u32, stream: Handle) -> c_int;
    pub fn kgc_attend(attend: *const Attend, chunks: u32, rep: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_repack(mat: *const Mat, src: Address, first: u64, n: u64, stream: Handle) -> c_int;
    pub fn kgc_embed(
        mat: *const Mat,
        state: Address,
        n_seq: u32,
        scale: f32,
        x: Address,
        x_stride: u32,
        pdl: c_int,
        stream: Handle,
    ) -> c_int;
    pub fn kgc_batch_float(stage: *const Stage, ty: Packed, nb: u32, threads: u32, pdl: c_int, stream: Handle)
    -> c_int;
    pub fn kgc_batch_q32(stage: *const Stage, ty: Packed, nb: u32, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_batch_k256(stage: *const Stage, ty: Packed, nb: u32, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_ints_split(stage: *const Stage, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_ints_per_sm(n: u32, ty: Packed, nt: u32) -> u32;
    pub fn kgc_ints(stage: *const Stage, ty: Packed, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_batch_norm(stage: *const Stage, out: Address, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_batch_most(n: u32, quant: c_int) -> u32;
    pub fn kgc_batch_shared(n: u32, quant: c_int, nb: u32) -> u64;
    pub fn kgc_embed_rows(
        mat: *const Mat,
        tokens: Address,
        n: u32,
        scale: f32,
        x: Address,
        stride: u32,
        stream: Handle,
    ) -> c_int;
    pub fn kgc_expand(mat: *const Mat, row0: u32, n: u32, slab: Address, lo: Address, stream: Handle) -> c_int;
    pub fn kgc_gemm_encoder(encode: *mut *mut c_void) -> c_int;
    pub fn kgc_gemm(gemm: *const Gemm, stream: Handle) -> c_int;
    pub fn kgc_flash_prefill(flash: *const Flash, stream: Handle) -> c_int;
    pub fn kgc_prefill_norm(norm: *const PrefillNorm, stream: Handle) -> c_int;
    pub fn kgc_prefill_rope(rope: *const PrefillRope, stream: Handle) -> c_int;
    pub fn kgc_set_state(state: Address, value: *const State, stream: Handle) -> c_int;
    pub fn kgc_argmax(
        state: Address,
        n_seq: u32,
        n: u32,
        best: Address,
        counter: Address,
        ring: *mut u32,
        pdl: c_int,
        stream: Handle,
    ) -> c_int;
}
