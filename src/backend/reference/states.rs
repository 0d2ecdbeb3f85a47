//! The states of sequences, by number.

use std::sync::{PoisonError, RwLock};

use super::zeros;
use crate::backend::Chunk;
use crate::error::{Error, Result};

/// Those that exist; one that nobody has written is empty, and takes no memory.
#[derive(Default)]
pub(super) struct States(RwLock<Vec<Vec<f32>>>);

fn missing(state: u32) -> Error {
    Error::Internal { message: format!("state {state} was not reserved") }
}

impl States {
    pub fn reserve(&self, n: usize) -> Result<()> {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let more = n.saturating_sub(all.len());
        crate::alloc::reserve(&mut all, more)?;
        all.extend((0..more).map(|_| Vec::new()));
        Ok(())
    }

    pub fn release(&self, state: u32) {
        self.set(state, Vec::new()).unwrap_or_default();
    }

    fn set(&self, state: u32, to: Vec<f32>) -> Result<()> {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *all.get_mut(state as usize).ok_or_else(|| missing(state))? = to;
        Ok(())
    }

    /// Reads one that has been written.
    fn with<T>(&self, state: u32, read: impl FnOnce(&[f32]) -> T) -> Result<T> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let there = all.get(state as usize).filter(|state| !state.is_empty());
        there.map(|state| read(state)).ok_or_else(|| missing(state))
    }

    /// Fills `state`, which is of no tokens, with what a chunk begins with.
    pub fn load(&self, chunk: &Chunk<'_>, state: &mut [f32]) -> Result<()> {
        match chunk.state.and_then(|used| used.from) {
            _ if state.is_empty() => Ok(()),
            Some(from) => self.with(from, |from| state.copy_from_slice(from)),
            None if chunk.start > 0 => {
                Err(Error::Internal { message: format!("no state in front of position {}", chunk.start) })
            }
            None => Ok(()),
        }
    }

    /// Keeps what a chunk has ended with.
    pub fn store(&self, chunk: &Chunk<'_>, state: Vec<f32>) -> Result<()> {
        match chunk.state {
            _ if state.is_empty() => Ok(()),
            Some(used) => self.set(used.to, state),
            None => Err(Error::Internal { message: "a chunk without a state".into() }),
        }
    }

    pub fn read(&self, state: u32, out: &mut [u8]) -> Result<()> {
        let cells = out.as_chunks_mut::<4>().0;
        self.with(state, |from| cells.iter_mut().zip(from).for_each(|(cell, x)| *cell = x.to_le_bytes()))
    }

    pub fn write(&self, state: u32, len: usize, from: &[u8]) -> Result<()> {
        let mut to = zeros(len)?;
        to.iter_mut().zip(from.as_chunks::<4>().0).for_each(|(x, cell)| *x = f32::from_le_bytes(*cell));
        self.set(state, to)
    }
}
