//! How a backend writes down what it keeps.

use crate::model::MAX_CLASSES;

/// How a backend writes pages down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageImage {
    /// Bytes of a page.
    pub bytes: usize,
    /// Those of its parts, by class; they stand one behind the other.
    pub parts: [usize; MAX_CLASSES],
    /// What they mean: backends of the same text and model understand each other's pages.
    pub layout: &'static str,
    /// The number of the order in which the device adds (ARCHITECTURE.md, "The order of sums"): with another, a session goes on
    /// with other bits.
    pub sums: u32,
}
