//! Working memory that grows.

use crate::alloc::reserve_exact;
use crate::error::Result;

/// The first `n` elements, grown where there are fewer.
pub(super) fn sized<T: Clone>(v: &mut Vec<T>, n: usize, zero: T) -> Result<&mut [T]> {
    if v.len() < n {
        reserve_exact(v, n - v.len())?;
        v.resize(n, zero);
    }
    Ok(&mut v[..n])
}
