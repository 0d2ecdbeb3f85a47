//! The CUDA runtime and this library's kernel launchers, as C sees them.
//!
//! The runtime is linked statically and opens the driver by itself: without one, its first call returns an error. Structs
//! mirror `cuda/common.cuh`, `matvec.cuh` and `attend.cuh` field for field.

use std::ffi::{c_char, c_int, c_void};

/// A device address.
pub type Address = u64;
/// `cudaStream_t` and its kin.
pub type Handle = *mut c_void;

/// `KgMat`: a matrix in planes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Mat {
    pub a: Address,
    pub b: Address,
    pub c: Address,
    pub s: Address,
    pub d: Address,
    pub ty: u32,
    pub rows: u32,
    pub cols: u32,
    pub stride: u32,
}

/// `KgState`: the step in flight.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct State {
    pub pages: Address,
    pub logits: Address,
    pub token: i32,
    pub position: i32,
    pub produced: u32,
    pub top_k: u32,
    pub seed: u64,
    pub share: u64,
    pub least: u64,
    pub temperature: f32,
    pub inverse: f32,
}

/// `KgStage`: one matrix-vector stage.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Stage {
    pub x: Address,
    pub delta: Address,
    pub post_w: Address,
    pub norm_w: Address,
    pub x_out: Address,
    pub tap: Address,
    pub state: Address,
    pub m: [Mat; 3],
    pub bias: [Address; 3],
    pub out: [Address; 3],
    pub seg_block: [u32; 4],
    pub n_seg: u32,
    pub n: u32,
    pub ks: u32,
    pub activation: u32,
    pub eps: f32,
    pub softcap: f32,
    pub n_seq: u32,
    pub x_stride: u32,
    pub out_stride: u32,
    pub n_part: u32,
    pub part: Address,
    pub part_bias: Address,
    pub split: Address,
    pub split_nt: u32,
    pub split_ints: u32,
}

/// `KgAttend`: attention of one token.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Attend {
    pub qkv: Address,
    pub q_norm: Address,
    pub k_norm: Address,
    pub turns: Address,
    pub state: Address,
    pub out: Address,
    pub part: Address,
    pub counters: Address,
    pub tap_q: Address,
    pub tap_k: Address,
    pub n_heads: u32,
    pub n_kv: u32,
    pub head_dim: u32,
    pub n_rot: u32,
    pub halves: u32,
    pub window: u32,
    pub layer: u32,
    pub chunk: u32,
    pub max_chunks: u32,
    pub scale: f32,
    pub softcap: f32,
    pub eps: f32,
    pub magnitude: f32,
    pub n_seq: u32,
    pub qkv_stride: u32,
    pub out_stride: u32,
    pub long_from: u32,
    pub long_chunk: u32,
}

/// `KgGemm`: a product of prefill.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Gemm {
    pub x: Address,
    pub x_lo: Address,
    pub w: [Address; 3],
    pub w_lo: [Address; 3],
    pub bias: [Address; 3],
    pub y: Address,
    pub y_lo: Address,
    pub encode: Address,
    pub m: u32,
    pub k: u32,
    pub n: [u32; 3],
    pub n_w: u32,
    pub x_stride: u32,
    pub w_stride: u32,
    pub y_stride: u32,
    pub epilogue: u32,
    pub n_sms: u32,
    pub tile: u32,
    pub pdl: u32,
    pub alpha: f32,
    pub out_scale: f32,
}

/// `KgFlash`: attention of prefill.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Flash {
    pub q: Address,
    pub out: Address,
    pub out_lo: Address,
    pub pages: Address,
    pub k_offset: u64,
    pub v_offset: u64,
    pub head_stride: u64,
    pub token_stride: u64,
    pub n_tokens: u32,
    pub start: u32,
    pub n_heads: u32,
    pub n_kv: u32,
    pub head_dim: u32,
    pub q_stride: u32,
    pub out_stride: u32,
    pub window: u32,
    pub out_f32: u32,
    pub pdl: u32,
    pub wgmma: u32,
    pub n_sms: u32,
    pub scale: f32,
    pub softcap: f32,
    pub tiles: Address,
    pub n_tiles: u32,
}

/// `KgFlashTile`: rows of one of several sequences.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FlashTile {
    pub pages: Address,
    pub row0: u32,
    pub n_tokens: u32,
    pub start: u32,
    pub tile: u32,
}

/// `KgRow`: a row of one of several sequences.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RowPlace {
    pub pages: Address,
    pub position: u32,
    pub unused: u32,
}

/// `KgPrefillNorm`: residual and norm of prefill.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PrefillNorm {
    pub x: Address,
    pub delta: Address,
    pub post_w: Address,
    pub w: Address,
    pub out: Address,
    pub out_lo: Address,
    pub tap: Address,
    pub n_tokens: u32,
    pub dim: u32,
    pub out_stride: u32,
    pub pdl: u32,
    pub eps: f32,
}

/// `KgPrefillRope`: head norms, rope and the cache's rows of prefill.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PrefillRope {
    pub qkv: Address,
    pub bias: Address,
    pub q_norm: Address,
    pub k_norm: Address,
    pub turns: Address,
    pub q: Address,
    pub pages: Address,
    pub tap_q: Address,
    pub tap_k: Address,
    pub k_offset: u64,
    pub v_offset: u64,
    pub head_stride: u64,
    pub token_stride: u64,
    pub n_tokens: u32,
    pub start: u32,
    pub n_heads: u32,
    pub n_kv: u32,
    pub head_dim: u32,
    pub n_rot: u32,
    pub halves: u32,
    pub qkv_stride: u32,
    pub q_stride: u32,
    pub pdl: u32,
    pub eps: f32,
    pub magnitude: f32,
    pub rows: Address,
}

pub const HOST_TO_DEVICE: c_int = 1;
pub const DEVICE_TO_HOST: c_int = 2;
pub const DEVICE_TO_DEVICE: c_int = 3;
pub const STREAM_NON_BLOCKING: u32 = 1;
pub const EVENT_DISABLE_TIMING: u32 = 2;
pub const CAPTURE_THREAD_LOCAL: c_int = 1;
pub const ERROR_MEMORY_ALLOCATION: c_int = 2;
/// Of calls that did nothing: invalid value, configuration, symbol, function, texture and the like; no kernel image, out of launch
/// resources, not supported; capture.
pub const REFUSED: [c_int; 17] = [1, 9, 13, 21, 98, 209, 401, 701, 801, 900, 901, 902, 903, 904, 905, 906, 907];
pub const ERROR_LAUNCH_FAILURE: c_int = 719;
pub const ATTRIBUTE_SM_COUNT: c_int = 16;
pub const ATTRIBUTE_SHARED_MOST: c_int = 97;
pub const ATTRIBUTE_MAJOR: c_int = 75;
pub const ATTRIBUTE_MINOR: c_int = 76;

unsafe extern "C" {
    pub fn cudaGetDeviceCount(count: *mut c_int) -> c_int;
    pub fn cudaSetDevice(device: c_int) -> c_int;
    pub fn cudaDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int) -> c_int;
    pub fn cudaGetLastError() -> c_int;
    pub fn cudaGetErrorName(code: c_int) -> *const c_char;
    pub fn cudaGetErrorString(code: c_int) -> *const c_char;
    pub fn cudaMemGetInfo(free: *mut usize, total: *mut usize) -> c_int;
    pub fn cudaMalloc(address: *mut Address, bytes: usize) -> c_int;
    pub fn cudaFree(address: Address) -> c_int;
    pub fn cudaHostAlloc(address: *mut *mut c_void, bytes: usize, flags: u32) -> c_int;
    pub fn cudaFreeHost(address: *mut c_void) -> c_int;
    pub fn cudaMemcpyAsync(to: *mut c_void, from: *const c_void, bytes: usize, kind: c_int, stream: Handle) -> c_int;
    pub fn cudaMemsetAsync(to: Address, value: c_int, bytes: usize, stream: Handle) -> c_int;
    pub fn cudaStreamCreateWithFlags(stream: *mut Handle, flags: u32) -> c_int;
    pub fn cudaStreamDestroy(stream: Handle) -> c_int;
    pub fn cudaStreamSynchronize(stream: Handle) -> c_int;
    pub fn cudaStreamBeginCapture(stream: Handle, mode: c_int) -> c_int;
    pub fn cudaStreamEndCapture(stream: Handle, graph: *mut Handle) -> c_int;
    pub fn cudaGraphInstantiate(exec: *mut Handle, graph: Handle, flags: u64) -> c_int;
    pub fn cudaGraphLaunch(exec: Handle, stream: Handle) -> c_int;
    pub fn cudaGraphExecDestroy(exec: Handle) -> c_int;
    pub fn cudaGraphDestroy(graph: Handle) -> c_int;
    pub fn cudaEventCreateWithFlags(event: *mut Handle, flags: u32) -> c_int;
    pub fn cudaEventDestroy(event: Handle) -> c_int;
    pub fn cudaEventRecord(event: Handle, stream: Handle) -> c_int;
    pub fn cudaEventSynchronize(event: Handle) -> c_int;
    pub fn cudaEventElapsedTime(ms: *mut f32, start: Handle, end: Handle) -> c_int;

    pub fn cudaGetDriverEntryPointByVersion(
        name: *const c_char,
        entry: *mut *mut c_void,
        version: u32,
        flags: u64,
        found: *mut c_int,
    ) -> c_int;

    pub fn kgc_stage_float(
        stage: *const Stage,
        ty: u32,
        ns: u32,
        threads: u32,
        deep: c_int,
        pdl: c_int,
        stream: Handle,
    ) -> c_int;
    pub fn kgc_stage_q32(
        stage: *const Stage,
        ty: u32,
        ns: u32,
        threads: u32,
        deep: c_int,
        pdl: c_int,
        stream: Handle,
    ) -> c_int;
    pub fn kgc_stage_k256(
        stage: *const Stage,
        ty: u32,
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
    pub fn kgc_batch_float(stage: *const Stage, ty: u32, nb: u32, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_batch_q32(stage: *const Stage, ty: u32, nb: u32, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_batch_k256(stage: *const Stage, ty: u32, nb: u32, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_ints_split(stage: *const Stage, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_ints_per_sm(n: u32, ty: u32, nt: u32) -> u32;
    pub fn kgc_ints(stage: *const Stage, ty: u32, pdl: c_int, stream: Handle) -> c_int;
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
