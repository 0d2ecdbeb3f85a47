//! The states of sequences, where a model's layers keep some.

/// The states of a chunk: what its sequence has been through, in numbers of a fixed size (`Config::state_len`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateUse {
    /// The sequence's state before the chunk, which is only read; `None`: that of no tokens, zeros.
    pub from: Option<u32>,
    /// Becomes the state behind the chunk's last token. Another than `from` where the chunk may be run again.
    pub to: u32,
}
