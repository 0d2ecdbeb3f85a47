//! The numbers that what runs is cut by.

use crate::backend::cuda::kernels::abi;

/// The number of the order in which these kernels add (ARCHITECTURE.md, "The order of sums").
pub const SUMS: u32 = 2;

/// Sequences of one step.
pub const MOST_SEQUENCES: usize = 64;
/// Most tokens of one pass of prompts.
pub const MOST_ROWS: usize = 2048;
/// Prompts of fewer tokens than this go one by one.
pub const LEAST_ROWS: usize = 8;
/// Layers of a prompt that may be queued before the host waits.
pub const LAYERS_AHEAD: usize = 4;
/// Steps queued before the host looks whether it should stop.
pub const AHEAD: usize = 8;
/// Tokens that the device may be ahead of the host's reading.
pub const RING: usize = abi::RING as usize;
/// Most parts that a row of a matrix is cut into.
pub const MOST_PARTS: usize = abi::MOST_PARTS as usize;

/// Positions of the smallest chunk of the attention.
pub const ATTEND_CHUNK: u32 = 128;
/// And of the chunks from position [`LONG_FROM`] on.
pub const LONG_CHUNK: u32 = 2 * ATTEND_CHUNK;
/// Short contexts wait for latencies, long ones for bandwidth.
pub const LONG_FROM: u32 = 2048;
/// Heads up to so many elements go to the attention on tensor cores, in chunks of so many positions.
pub const TENSOR_HEAD: usize = abi::TENSOR_HEAD as usize;
/// See [`TENSOR_HEAD`].
pub const TENSOR_CHUNK: u32 = abi::TENSOR_CHUNK;

/// Floats from one row of a vector of `n` to the next.
pub fn stride(n: usize) -> usize {
    n.next_multiple_of(64)
}
