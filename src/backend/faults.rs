//! The four faults that this library was born from, to be planted in the CPU backend and named by doctor.
//!
//! Only there in the library's own tests and with the cargo feature `faults`: never in a library that is in use. A model
//! that is loaded while a fault is planted on its thread has it for life.

use std::cell::Cell;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// A step leaves the logits of an earlier pass in the buffer.
    StaleLogits,
    /// A step embeds the loop's counter in the place of the token.
    CounterAsToken,
    /// Behind position 1 keys and values are written one row too early.
    CacheOffByOne,
    /// A step turns queries and keys as if it were always at the same position.
    PositionStops,
}

thread_local! {
    static PLANTED: Cell<Fault> = const { Cell::new(Fault::None) };
}

/// Models that this thread loads from now on have `fault`.
pub fn plant(fault: Fault) {
    PLANTED.set(fault);
}

/// What [`plant`] has planted.
pub fn planted() -> Fault {
    PLANTED.get()
}

impl Fault {
    /// The token to embed.
    pub fn token(self, token: usize, position: usize, n_tokens: usize, n_vocab: usize) -> usize {
        if self == Fault::CounterAsToken && n_tokens == 1 { position % n_vocab } else { token }
    }

    /// The position to turn by.
    pub fn position(self, position: usize, n_tokens: usize) -> usize {
        if self == Fault::PositionStops && n_tokens == 1 { position.min(1) } else { position }
    }

    /// The position to write keys and values to.
    pub fn cache_index(self, position: usize) -> usize {
        if self == Fault::CacheOffByOne && position > 1 { position - 1 } else { position }
    }

    /// Whether a pass that begins here leaves the buffer of the logits alone.
    pub fn keeps_logits(self, start: usize) -> bool {
        self == Fault::StaleLogits && start > 0
    }
}
