//! The CUDA runtime and this library's kernel launchers, as C sees them.
//!
//! The runtime is linked statically and opens the driver by itself: without one, its first call returns an error. Structs
//! mirror `cuda/common.cuh`, `matvec.cuh` and `attend.cu` field for field.

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
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    pub pages: Address,
    pub logits: Address,
    pub token: i32,
    pub position: i32,
    pub produced: u32,
    pub halted: u32,
    pub seed: u64,
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
}

pub const HOST_TO_DEVICE: c_int = 1;
pub const DEVICE_TO_HOST: c_int = 2;
pub const DEVICE_TO_DEVICE: c_int = 3;
pub const STREAM_NON_BLOCKING: u32 = 1;
pub const EVENT_DISABLE_TIMING: u32 = 2;
pub const CAPTURE_THREAD_LOCAL: c_int = 1;
pub const ERROR_MEMORY_ALLOCATION: c_int = 2;
pub const ERROR_NOT_READY: c_int = 600;
pub const ATTRIBUTE_SM_COUNT: c_int = 16;
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
    pub fn cudaEventQuery(event: Handle) -> c_int;
    pub fn cudaEventElapsedTime(ms: *mut f32, start: Handle, end: Handle) -> c_int;

    pub fn kgc_stage_float(stage: *const Stage, ty: u32, ns: u32, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_stage_q32(stage: *const Stage, ty: u32, ns: u32, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_stage_k256(stage: *const Stage, ty: u32, ns: u32, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_stage_mixed(stage: *const Stage, ns: u32, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_glu(gate: Address, up: Address, out: Address, n: u32, activation: u32, stream: Handle) -> c_int;
    pub fn kgc_attend(attend: *const Attend, chunks: u32, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_repack(mat: *const Mat, src: Address, first: u64, n: u64, stream: Handle) -> c_int;
    pub fn kgc_embed(mat: *const Mat, state: Address, scale: f32, x: Address, pdl: c_int, stream: Handle) -> c_int;
    pub fn kgc_set_state(state: Address, value: *const State, stream: Handle) -> c_int;
    pub fn kgc_argmax(state: Address, n: u32, best: Address, counter: Address, ring: *mut u32, pdl: c_int, stream: Handle) -> c_int;
}
