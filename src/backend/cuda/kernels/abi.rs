//! What crosses the border to the kernels: the structs and numbers of `cuda/abi.h`.
//!
//! Each struct is declared once here, with its name there; `check` compares sizes, offsets and numbers with those that
//! `cuda/abi.cu` reports of the compiled object. It runs before a device is opened.

mod encoder;
mod reported;

use std::mem::{offset_of, size_of};

pub use encoder::Encoder;
use reported::{compare, reported};

use crate::backend::cuda::driver::Address;
use crate::backend::cuda::kernels::kinds;
use crate::backend::cuda::kernels::packed::{self, Packed};
use crate::error::Result;

/// Tokens of a page of the cache.
pub const PAGE: u32 = 64;
/// Tokens that the ring of a sequence holds, on the host.
pub const RING: u32 = 256;
/// Most parts of a row's sums that a norm takes.
pub const MOST_PARTS: u32 = 16;
/// Most experts of a layer.
pub const MOST_EXPERTS: u32 = 1024;
/// Most slots of a task of experts on tensor cores.
pub const EXPERT_SLOTS: u32 = 128;
/// Columns in whose whole multiples the rows lie that those read.
pub const FRAGMENTS: u32 = 128;
/// Most elements of a row that [`Router`](super::launch::Router) norms.
pub const NORM_KEPT: u32 = 4096;
/// Positions of a chunk of the attention on tensor cores.
pub const TENSOR_CHUNK: u32 = 256;
/// Heads up to so many elements go there.
pub const TENSOR_HEAD: u32 = 128;
/// 16-byte words of a block of 32 elements of a staged input, for each sequence: two halves and a scale.
pub const INPUT_F16_WORDS: u32 = 66;
/// The same of integers with a scale and sums.
pub const INPUT_Q_WORDS: u32 = 38;
/// Most channels of a head of a DeltaNet.
pub const DELTA_HEAD: u32 = 128;
/// Most rows of the state of a head of a Mamba2.
pub const SCAN_STATE: u32 = 256;

/// A number that both sides know, and its name in `cuda/abi.h`.
pub type Number = (&'static str, u64);

/// Declares the structs, and `STRUCTS`, their sizes and their fields' offsets and sizes.
macro_rules! structs {
    ($($(#[$attribute:meta])* $name:ident is $there:ident {
        $($field:ident $(($field_there:ident))? : $type:ty,)*
    })*) => {
        $(
            $(#[$attribute])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Default)]
            pub struct $name {
                $(pub $field: $type,)*
            }
        )*
        pub(super) const STRUCTS: &[Number] = &[$(
            (concat!("sizeof(", stringify!($there), ")"), size_of::<$name>() as u64),
            $(
                (name_of_field!($there, $field $(, $field_there)?), offset_of!($name, $field) as u64),
                (concat!("sizeof(", name_of_field!($there, $field $(, $field_there)?), ")"), size_of::<$type>() as u64),
            )*
        )*];
    };
}

/// `KgMat.type`, say: the second name where a field has one.
macro_rules! name_of_field {
    ($there:ident, $field:ident) => {
        concat!(stringify!($there), ".", stringify!($field))
    };
    ($there:ident, $field:ident, $field_there:ident) => {
        concat!(stringify!($there), ".", stringify!($field_there))
    };
}

mod experts;
mod recurrent;
pub use experts::{ExpertGemm, ExpertProducts, Route};
pub use recurrent::{Convolve, Delta, GateMix, Scan, Span, Spans};

structs! {
    /// A matrix in planes.
    Mat is KgMat {
        a: Address,
        b: Address,
        c: Address,
        s: Address,
        d: Address,
        ty(type): Packed,
        rows: u32,
        cols: u32,
        stride: u32,
        scale: f32,
        each: u32,
    }

    /// The step in flight.
    #[derive(PartialEq)]
    State is KgState {
        pages: Address,
        logits: Address,
        token: i32,
        position: i32,
        produced: u32,
        top_k: u32,
        seed: u64,
        share: u64,
        least: u64,
        temperature: f32,
        inverse: f32,
        is_long: u32,
        table_stride: u32,
        kept: Address,
        keeps: Address,
    }

    /// One matrix-vector stage.
    Stage is KgStage {
        x: Address,
        delta: Address,
        post_w: Address,
        norm_w: Address,
        x_out: Address,
        tap: Address,
        state: Address,
        m: [Mat; 3],
        bias: [Address; 3],
        out: [Address; 3],
        seg_block: [u32; 4],
        n_seg: u32,
        n: u32,
        ks: u32,
        activation: u32,
        eps: f32,
        softcap: f32,
        scale: f32,
        n_seq: u32,
        x_stride: u32,
        out_stride: u32,
        n_part: u32,
        part: Address,
        part_bias: Address,
        split: Address,
        split_nt: u32,
        split_ints: u32,
    }

    /// Attention of one token.
    Attend is KgAttend {
        qkv: Address,
        q_norm: Address,
        k_norm: Address,
        sinks: Address,
        turns: [Address; 2],
        state: Address,
        out: Address,
        part: Address,
        counters: Address,
        tap_q: Address,
        tap_k: Address,
        layer_at: u64,
        n_heads: u32,
        n_kv: u32,
        head_dim: u32,
        n_rot: u32,
        pairing: u32,
        window: u32,
        chunk: u32,
        max_chunks: u32,
        norm_last: u32,
        scale: f32,
        softcap: f32,
        eps: f32,
        magnitude: [f32; 2],
        beta: f32,
        interval: u32,
        n_seq: u32,
        qkv_stride: u32,
        out_stride: u32,
        long_from: u32,
        long_chunk: u32,
        cache_class: u32,
        is_kept: u32,
    }

    /// A product of prefill.
    Gemm is KgGemm {
        x: Address,
        x_lo: Address,
        w: [Address; 3],
        w_lo: [Address; 3],
        bias: [Address; 3],
        y: Address,
        y_lo: Address,
        encode: Encoder,
        m: u32,
        k: u32,
        n: [u32; 3],
        n_w: u32,
        x_stride: u32,
        w_stride: u32,
        y_stride: u32,
        epilogue: u32,
        n_sms: u32,
        tile: u32,
    }

    /// Attention of prefill.
    Flash is KgFlash {
        q: Address,
        out: Address,
        out_lo: Address,
        sinks: Address,
        pages: Address,
        k_offset: u64,
        v_offset: u64,
        head_stride: u64,
        token_stride: u64,
        n_tokens: u32,
        start: u32,
        n_heads: u32,
        n_kv: u32,
        head_dim: u32,
        q_stride: u32,
        out_stride: u32,
        window: u32,
        wgmma: u32,
        n_sms: u32,
        scale: f32,
        softcap: f32,
        tiles: Address,
        n_tiles: u32,
    }

    /// Rows of one of several sequences.
    FlashTile is KgFlashTile {
        pages: Address,
        row0: u32,
        n_tokens: u32,
        start: u32,
        tile: u32,
    }

    /// A row of one of several sequences.
    RowPlace is KgRow {
        pages: Address,
        position: u32,
        is_long: u32,
    }

    /// Residual and norm of rows.
    Norm is KgNorm {
        x: Address,
        delta: [Address; 2],
        post_w: [Address; 2],
        w: Address,
        bias: Address,
        out: Address,
        out_lo: Address,
        row: Address,
        n_rows: u32,
        dim: u32,
        x_stride: u32,
        out_stride: u32,
        kind: u32,
        eps: f32,
        scale: f32,
        sum_scale: f32,
        h_scale: f32,
        heads: u32,
        w_stride: u32,
    }

    /// What stands between the products of a feed-forward part.
    Glu is KgGlu {
        gate: Address,
        up: Address,
        row: Address,
        out: Address,
        out_lo: Address,
        n_rows: u32,
        n: u32,
        in_stride: u32,
        out_stride: u32,
        activation: u32,
        up_stride: u32,
    }

    /// Head norms, rope and the cache's rows of prefill.
    PrefillRope is KgPrefillRope {
        qkv: Address,
        q_norm: Address,
        k_norm: Address,
        turns: [Address; 2],
        q: Address,
        pages: Address,
        tap_q: Address,
        tap_k: Address,
        k_offset: u64,
        v_offset: u64,
        head_stride: u64,
        token_stride: u64,
        n_tokens: u32,
        start: u32,
        n_heads: u32,
        n_kv: u32,
        head_dim: u32,
        n_rot: u32,
        pairing: u32,
        qkv_stride: u32,
        q_stride: u32,
        norm_last: u32,
        eps: f32,
        magnitude: [f32; 2],
        beta: f32,
        interval: u32,
        rows: Address,
        is_long: u32,
        unused: u32,
    }
}

/// The constants by name.
#[rustfmt::skip]
const NUMBERS: &[Number] = &[
    ("KG_PAGE", PAGE as u64),
    ("KG_RING", RING as u64),
    ("KG_MOST_PARTS", MOST_PARTS as u64),
    ("KG_MOST_EXPERTS", MOST_EXPERTS as u64),
    ("KG_EXPERT_SLOTS", EXPERT_SLOTS as u64),
    ("KG_FRAGMENTS", FRAGMENTS as u64),
    ("KG_NORM_KEPT", NORM_KEPT as u64),
    ("KG_TENSOR_CHUNK", TENSOR_CHUNK as u64),
    ("KG_TENSOR_HEAD", TENSOR_HEAD as u64),
    ("KG_INPUT_F16_WORDS", INPUT_F16_WORDS as u64),
    ("KG_INPUT_Q_WORDS", INPUT_Q_WORDS as u64),
    ("KG_DELTA_HEAD", DELTA_HEAD as u64),
    ("KG_SCAN_STATE", SCAN_STATE as u64),
];

/// All that both sides know: structs, then numbers.
const ALL: &[&[Number]] = &[STRUCTS, experts::STRUCTS, recurrent::STRUCTS, NUMBERS, kinds::NUMBERS, packed::NUMBERS];

/// That the compiled kernels have the structs and numbers that this library has.
pub fn check() -> Result<()> {
    compare(ALL, &reported())
}

#[cfg(test)]
mod tests;
