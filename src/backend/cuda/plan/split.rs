//! How the attention of a step is split among blocks.

use super::geometry::Tuning;
use super::limits::{ATTEND_CHUNK, LONG_CHUNK, LONG_FROM, TENSOR_CHUNK, TENSOR_HEAD};

/// How the attention at a position is cut: a function of the model and the position alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionSplit {
    /// Positions of a chunk.
    pub chunk: u32,
    /// Chunks that may be active, a power of two.
    pub chunks: u32,
    /// Query heads a block; no bit depends on it.
    pub rep: u32,
}

impl AttentionSplit {
    /// One chunk of nothing, for launches without attention.
    pub const NONE: AttentionSplit = AttentionSplit { chunk: 0, chunks: 1, rep: 1 };

    /// The split of a step of `n` sequences that are cut so each: many of them share the keys of a block among more heads.
    pub fn among(n: usize, tuning: &Tuning, each: impl Iterator<Item = AttentionSplit>) -> AttentionSplit {
        let rep = [1, 2, 8][usize::from(n >= 24) + usize::from(n >= 48)];
        let one = AttentionSplit { rep, ..AttentionSplit::NONE };
        let all = each.fold(one, |a, b| AttentionSplit { chunks: a.chunks.max(b.chunks), rep: a.rep.max(b.rep), ..a });
        AttentionSplit { rep: tuning.rep.unwrap_or(all.rep), ..all }
    }

    /// At `position`, for heads of up to `head_dim` elements; narrow ones know their chunks, of which these are enough.
    pub fn at(position: usize, head_dim: usize, tuning: &Tuning) -> AttentionSplit {
        let (chunk, rep) = match position as u32 {
            _ if head_dim <= TENSOR_HEAD => (TENSOR_CHUNK, 1),
            0..LONG_FROM => (ATTEND_CHUNK, 1),
            LONG_FROM..8192 => (LONG_CHUNK, 1),
            _ => (LONG_CHUNK, 4),
        };
        let chunks = (position as u32 / chunk + 1).next_power_of_two();
        AttentionSplit { chunk, chunks, rep: tuning.rep.unwrap_or(rep) }
    }
}
