//! The states of sequences on the device, for layers that keep one: blocks of f32 in the order of `model::Recurrent`, by number.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::internal;
use super::parts::Parts;
use crate::backend::StateUse;
use crate::backend::cuda::driver::{Address, Gpu};
use crate::error::Result;
use crate::model::Config;

/// Every state of a model.
pub struct States {
    gpu: Arc<Gpu>,
    blocks: Mutex<Parts>,
    /// Bytes of one; 0: the model has none.
    pub bytes: usize,
}

/// Where a sequence's state is: in front of a pass, 0 where it is zeros, and behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateAt {
    /// Read.
    pub kept: Address,
    /// Written.
    pub keeps: Address,
}

impl StateAt {
    /// Where the next pass goes on from.
    pub fn behind(self) -> StateAt {
        StateAt { kept: self.keeps, ..self }
    }
}

impl States {
    /// None yet.
    pub fn new(gpu: &Arc<Gpu>, config: &Config) -> States {
        let bytes = 4 * config.state_len();
        States { gpu: gpu.clone(), blocks: Mutex::new(Parts::new(bytes, 0)), bytes }
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes states `0 .. n` exist, with memory for `in_use` of them at once.
    pub fn reserve(&self, n: usize, in_use: usize) -> Result<()> {
        self.gpu.bind()?;
        let mut blocks = self.lock();
        blocks.reserve(&self.gpu, in_use)?;
        blocks.exist(n)
    }

    /// Takes a state's block back; so many are in use.
    pub fn release(&self, state: u32, in_use: usize) {
        let mut blocks = self.lock();
        blocks.free(state);
        blocks.trim(in_use);
    }

    /// Fails where a state has not so many bytes.
    pub fn check(&self, bytes: usize) -> Result<()> {
        if bytes == self.bytes { Ok(()) } else { internal("not the whole of a state") }
    }

    /// Where a state is that somebody has written.
    pub fn find(&self, state: u32) -> Result<Address> {
        match self.lock().find(state)? {
            Some(at) => Ok(at),
            None => internal("a state that nobody has written"),
        }
    }

    /// Where a state is that somebody writes.
    pub fn place(&self, state: u32) -> Result<Address> {
        self.gpu.bind()?;
        self.lock().place(&self.gpu, state)
    }

    /// Where those of a pass are; nowhere where the model has none.
    pub fn of(&self, state: Option<StateUse>) -> Result<StateAt> {
        match state {
            _ if self.bytes == 0 => Ok(StateAt::default()),
            None => internal("a chunk without its state"),
            Some(StateUse { from, to }) => {
                Ok(StateAt { kept: from.map_or(Ok(0), |from| self.find(from))?, keeps: self.place(to)? })
            }
        }
    }
}
