//! The page tables of a sequence on the device: one for each class of layers, of the addresses of its pages' parts.

use crate::backend::cuda::driver::Address;

/// Tables one behind the other.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// That of the first class.
    pub first: Address,
    /// Addresses from one to the next.
    pub stride: u32,
}

impl Tables {
    /// That of a class.
    pub fn of(self, class: usize) -> Address {
        self.first + 8 * class as u64 * u64::from(self.stride)
    }
}
