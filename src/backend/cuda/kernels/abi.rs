//! The arguments of kernels, as `cuda/*.cuh` has them.
//!
//! Structs mirror `common.cuh`, `matvec.cuh`, `attend.cuh`, `gemm_args.cuh` and `flash_prefill.cuh` field for field.

use crate::backend::cuda::driver::Address;
use crate::backend::cuda::kernels::packed::Packed;

/// `KgMat`: a matrix in planes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Mat {
    pub a: Address,
    pub b: Address,
    pub c: Address,
    pub s: Address,
    pub d: Address,
    pub ty: Packed,
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
