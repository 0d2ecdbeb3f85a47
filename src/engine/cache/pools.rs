//! The page pools of an engine's models: what is spare in one of them goes where another needs memory.
//!
//! Invariant: no pool's lock is held while another's is waited for.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::budget::Charge;
use crate::alloc::reserve;
use crate::backend::Budget;
use crate::error::{Error, Result};

/// A pool as the others see it.
pub(super) trait Spare: Send + Sync {
    /// Bytes that are given back when memory is short.
    fn spare_bytes(&self) -> u64;

    /// Gives back what is spare, `bytes` of it if there is so much; how much that is.
    fn give_spare(&self, bytes: u64) -> u64;

    /// Has the device give back what it holds for nobody; whether there was any.
    fn trim(&self) -> bool;
}

/// The pools of an engine.
#[derive(Default)]
pub(in crate::engine) struct Pools(Mutex<Vec<Weak<dyn Spare>>>);

impl Pools {
    /// Counts a pool among them for as long as it lives.
    pub(super) fn add(&self, pool: Weak<dyn Spare>) -> Result<()> {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|pool| pool.strong_count() > 0);
        reserve(&mut pools, 1)?;
        pools.push(pool);
        Ok(())
    }

    /// Takes bytes out of the cap as [`Charge::new`] does, after what is spare has been given back if that is enough.
    pub(in crate::engine) fn charge(&self, budget: &Arc<Budget>, bytes: u64) -> Result<Charge> {
        let charge = match Charge::new(budget, bytes) {
            Err(Error::OutOfMemory { requested, free, .. }) if self.reclaim(requested.saturating_sub(free)) => {
                Charge::new(budget, bytes)
            }
            charge => charge,
        };
        if charge.is_ok() {
            self.trim();
        }
        charge
    }

    /// Has devices give back what they hold for nobody; whether there was any.
    pub(super) fn trim(&self) -> bool {
        self.alive().iter().fold(false, |any, pool| pool.trim() | any)
    }

    /// The pools that there are; none where there is no memory to say. Whoever holds a pool last takes a model down with it: not
    /// under the lock.
    fn alive(&self) -> Vec<Arc<dyn Spare>> {
        let mut alive: Vec<Arc<dyn Spare>> = Vec::new();
        let pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reserve(&mut alive, pools.len()).is_ok() {
            alive.extend(pools.iter().filter_map(Weak::upgrade));
        }
        alive
    }

    /// Gives so many bytes of what is spare back, if there are so many.
    pub(super) fn reclaim(&self, bytes: u64) -> bool {
        let alive = self.alive();
        if bytes == 0 || alive.iter().map(|pool| pool.spare_bytes()).sum::<u64>() < bytes {
            return false;
        }
        let mut gone = 0;
        for pool in &alive {
            if gone < bytes {
                gone += pool.give_spare(bytes - gone);
            }
        }
        gone >= bytes
    }
}
