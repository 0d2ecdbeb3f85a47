//! Working memory that grows.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::host::{HostMemory, MemoryKind};
use super::memory::Block;
use crate::alloc::reserve_exact;
use crate::error::{Error, Result};

/// Elements that are numbers or made of them: [`Plain::ZERO`] is one, none has a destructor or is aligned to more than a block is.
pub(super) trait Plain: Copy {
    /// What new elements are.
    const ZERO: Self;
}

impl Plain for f32 {
    const ZERO: f32 = 0.0;
}
impl Plain for f64 {
    const ZERO: f64 = 0.0;
}
impl Plain for i32 {
    const ZERO: i32 = 0;
}
impl Plain for u32 {
    const ZERO: u32 = 0;
}
impl Plain for usize {
    const ZERO: usize = 0;
}
impl Plain for (f32, f32) {
    const ZERO: (f32, f32) = (0.0, 0.0);
}
impl Plain for super::simd::XBlock {
    const ZERO: super::simd::XBlock = super::simd::XBlock::ZERO;
}

/// Elements in memory of the process, or of a host.
pub(super) struct Room<T> {
    own: Vec<T>,
    host: Option<(Arc<dyn HostMemory>, MemoryKind)>,
    /// A host's memory, and the elements that have been written there; `own` is empty then.
    block: Option<(Block, usize)>,
}

impl<T: Plain> Room<T> {
    /// No elements yet.
    pub(super) fn new(memory: Option<&Arc<dyn HostMemory>>, kind: MemoryKind) -> Room<T> {
        Room { own: Vec::new(), host: memory.map(|memory| (Arc::clone(memory), kind)), block: None }
    }

    /// The first `n` elements, grown where there are fewer; a failure leaves those that there are.
    pub(super) fn sized(&mut self, n: usize) -> Result<&mut [T]> {
        let len = self.len();
        if len < n {
            match &self.host {
                None => {
                    reserve_exact(&mut self.own, n - len)?;
                    self.own.resize(n, T::ZERO);
                }
                Some((memory, kind)) => {
                    let bytes = n.checked_mul(size_of::<T>());
                    let bytes = bytes.ok_or_else(|| Error::Internal { message: format!("{n} elements") })?;
                    let block = Block::new(memory, bytes, *kind)?;
                    let at = block.at().cast::<T>();
                    // SAFETY: the block holds `n` elements, is aligned for them, and is no part of those that there are.
                    unsafe {
                        at.copy_from_nonoverlapping(self.as_ptr(), len);
                        (len..n).for_each(|i| at.add(i).write(T::ZERO));
                    }
                    self.block = Some((block, n));
                }
            }
        }
        Ok(&mut self[..n])
    }
}

impl<T> Deref for Room<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.block {
            // SAFETY: so many elements have been written there.
            Some((block, n)) => unsafe { std::slice::from_raw_parts(block.at().cast(), *n) },
            None => &self.own,
        }
    }
}

impl<T> DerefMut for Room<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.block {
            // SAFETY: as above; the block is this room's alone.
            Some((block, n)) => unsafe { std::slice::from_raw_parts_mut(block.at().cast(), *n) },
            None => &mut self.own,
        }
    }
}
