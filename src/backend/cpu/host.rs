//! What a host does in an engine's place: it runs the work on threads of its own, or says where the engine's run, and gives the
//! large memory.

use std::sync::Arc;

use super::parallel::ParallelFor;
use crate::error::{Error, Result};
use crate::process::Placement;

/// What large memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Weights, as the device holds them.
    Weights,
    /// Pages of the cache.
    Pages,
    /// What a session has beside its pages.
    State,
    /// What a pass works in.
    Work,
}

/// Where an engine's large memory comes from, in the place of the system. Its functions are called on threads that are inside a
/// call, and when the last handle goes.
pub trait HostMemory: Send + Sync {
    /// So many bytes, at a multiple of `alignment`; NULL: there are none.
    fn alloc(&self, bytes: usize, alignment: usize, kind: MemoryKind) -> *mut u8;

    /// Takes them back.
    fn free(&self, at: *mut u8, bytes: usize, alignment: usize, kind: MemoryKind);
}

/// What a host does; nothing by default.
#[derive(Clone, Default)]
pub struct Host {
    /// Runs stages in the place of threads of the device's own.
    pub parallel_for: Option<Arc<ParallelFor>>,
    /// Where the device's own threads run and how urgently.
    pub placement: Placement,
    /// Gives memory in the system's place.
    pub memory: Option<Arc<dyn HostMemory>>,
}

impl Host {
    /// Refuses what contradicts itself, and what no system has.
    pub fn check(&self) -> Result<()> {
        if self.parallel_for.is_some() && !self.placement.is_default() {
            let (name, found) = match self.placement.cpus.len() {
                0 => ("thread_policy", format!("{:?}", self.placement.policy)),
                n => ("cpus", format!("{n} of them")),
            };
            let expected = "none with parallel_for, whose threads are the host's".to_owned();
            return Err(Error::Argument { name, found, expected });
        }
        self.placement.check()
    }
}
