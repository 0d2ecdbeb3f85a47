//! Memory that is asked for before it is needed.
//!
//! Our own code reserves where a size comes from outside. What dependencies allocate cannot fail without ending the
//! process, so before one runs, [`require`] asks for as much as was measured that it takes.

use crate::error::{Error, Result};

/// Asks the system for `bytes` and gives them back at once: `OutOfMemory` where they are not to be had.
///
/// It stands in front of a dependency's work, whose allocations would end the process if they failed.
pub fn require(bytes: usize) -> Result<()> {
    reserve(&mut Vec::<u8>::new(), bytes)
}

/// Makes room for `n` more elements, or fails with the bytes that this would take.
pub fn reserve<T>(list: &mut Vec<T>, n: usize) -> Result<()> {
    list.try_reserve(n).map_err(|_| {
        let requested = (n as u64).saturating_mul(size_of::<T>() as u64);
        Error::OutOfMemory { place: "host".to_owned(), requested, free: 0 }
    })
}
