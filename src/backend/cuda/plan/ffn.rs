//! Feed-forward parts in launches of their own: which there are. Steps, batches, prompts and their working memory go through this
//! file and know none of them.

use super::experts::{self, Call, Experts, Rows};
use crate::backend::cuda::driver::{Address, Gpu};
use crate::model::Config;

/// A feed-forward part of the row that the norm before has left, in launches of its own; what it makes is to be added
/// to the stream.
#[derive(Clone, Debug)]
pub struct Ffn {
    /// What it is.
    pub part: Part,
    /// [n_embd] f32 or 0: of a norm behind it.
    pub post_norm: Address,
}

/// The kinds of [`Ffn`].
#[derive(Clone, Debug)]
pub enum Part {
    /// The choice among experts, and what they make; shows "moe_logits", "moe_ids" and "moe_weights".
    Experts(Experts),
}

/// Working memory of all kinds, for a number of rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    experts: experts::Room,
}

impl Room {
    /// Bytes it takes; none where a model has no such part.
    pub fn bytes(c: &Config, rows: usize) -> u64 {
        experts::Room::bytes(c, rows)
    }

    /// From this address on.
    pub fn at(at: Address, c: &Config, rows: usize) -> Room {
        Room { experts: experts::Room::at(at, c, rows) }
    }
}

/// Whether a model has one, which reads rows of prompts as f32 and not rounded.
pub fn there(c: &Config) -> bool {
    c.widths().n_experts > 0
}

/// Whether its launches begin with the norm of one row, if they are told.
pub fn takes_norm(gpu: &Gpu, config: &Config, op: &Ffn) -> bool {
    match &op.part {
        Part::Experts(part) => experts::takes_norm(gpu, config, part),
    }
}

/// Whether passes of so many rows can have those of a model.
pub fn can(c: &Config, rows: usize) -> bool {
    rows * c.widths().n_used <= experts::MOST_SLOTS
}

/// Its launches, the same of one row, of those of a batch and of those of a prompt.
pub fn launches(gpu: &Gpu, config: &Config, op: &Ffn, rows: Rows, room: &Room) -> Vec<Call> {
    match &op.part {
        Part::Experts(part) => experts::launches(gpu, config, part, rows, &room.experts),
    }
}

/// Those of a pass of prompts outside strict mode; `wgmma`: whether the device has it.
pub fn prompt(gpu: &Gpu, config: &Config, op: &Ffn, rows: Rows, room: &Room, wgmma: bool) -> Vec<Call> {
    match &op.part {
        Part::Experts(part) => experts::prompt(gpu, config, part, rows, &room.experts, wgmma),
    }
}
