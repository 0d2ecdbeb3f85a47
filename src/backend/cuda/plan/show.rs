//! What a launch of a prompt leaves to be seen.

use crate::backend::cuda::driver::Address;

/// Rows of an activation that a launch has left somewhere.
#[derive(Clone, Copy, Debug)]
pub struct Show {
    /// One of `TAP_NAMES`.
    pub name: &'static str,
    /// The layer, or -1.
    pub layer: i32,
    /// How they lie.
    pub rows: Rows,
    /// Elements of a row.
    pub cols: usize,
}

/// How rows of an activation lie.
#[derive(Clone, Copy, Debug)]
pub enum Rows {
    /// f32, so many elements apart.
    Floats {
        /// The first.
        from: Address,
        /// Elements from one to the next.
        stride: usize,
    },
    /// f16 and what their rounding has left, where that is not null, one behind the other.
    Halves([Address; 2]),
}
