//! The page pools of an engine's models: what is spare in one of them goes where another needs memory.
//!
//! Invariant: no pool's lock is held while another's is waited for.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::budget::Charge;
use crate::alloc::reserve;
use crate::backend::Budget;
use crate::error::{Error, Result};

/// How often memory is asked for that other models of the engine give back.
const MAX_ATTEMPTS: usize = 4;

/// A pool as the others see it.
pub(super) trait Spare: Send + Sync {
    /// Bytes that are given back when memory is short.
    fn spare_bytes(&self) -> u64;

    /// Gives back what is spare, `bytes` of it if there is so much; how much that is.
    fn give_spare(&self, bytes: u64) -> u64;

    /// Has the device give back what it holds for nobody; whether there was any.
    fn trim(&self) -> bool {
        false
    }

    /// Whether what is spare was taken from where an error says that memory is short.
    fn gives_back_to(&self, place: &str) -> bool {
        let _ = place;
        false
    }
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
        let charge = self.with_room(|| Charge::new(budget, bytes))?;
        // A device counts by itself what it lends: what it holds for nobody is not in the way of what comes now.
        self.trim();
        Ok(charge)
    }

    /// Runs what takes memory, and again where the cap refuses it, or a device that gets parts' memory back, and what is spare in all
    /// models is enough: others may take first what these give back. Fails as the last run does. No pool is locked.
    pub(in crate::engine) fn with_room<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        for n in 0..MAX_ATTEMPTS {
            match attempt() {
                // What devices hold for nobody goes first, which costs nobody anything; and only once, since an attempt that fails may leave
                // some of it behind each time.
                Err(Error::OutOfMemory { .. }) if n == 0 && self.trim() => {}
                Err(Error::OutOfMemory { place, requested, free }) if self.makes_room(&place, requested, free) => {}
                outcome => return outcome,
            }
        }
        attempt()
    }

    /// Whether what was refused may be there now: what is spare has gone.
    fn makes_room(&self, place: &str, requested: u64, free: u64) -> bool {
        match place {
            Budget::CAP => self.reclaim(requested.saturating_sub(free)),
            // Of what the host or any other device refuses nothing would come back. What is free there may be in pieces.
            _ => self.alive().iter().any(|pool| pool.gives_back_to(place)) && self.reclaim(requested),
        }
    }

    /// Has devices give back what they hold for nobody; whether there was any.
    fn trim(&self) -> bool {
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
    fn reclaim(&self, bytes: u64) -> bool {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A pool of spare bytes, of which others take some each time that it has given them back.
    struct Robbed {
        budget: Arc<Budget>,
        thefts: AtomicU64,
        /// Whether there is something for nobody each time that it is asked for.
        trims: bool,
    }

    impl Spare for Robbed {
        fn spare_bytes(&self) -> u64 {
            100
        }

        fn give_spare(&self, bytes: u64) -> u64 {
            let left = self.thefts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
            if left.is_err() {
                self.budget.release(bytes);
            }
            bytes
        }

        fn trim(&self) -> bool {
            self.trims
        }

        fn gives_back_to(&self, place: &str) -> bool {
            place == "CUDA device 1"
        }
    }

    fn pools(thefts: u64, trims: bool) -> (Pools, Arc<Robbed>) {
        let budget = Budget::new(Some(100));
        budget.promise(100).unwrap();
        let (pools, robbed) = (Pools::default(), Arc::new(Robbed { budget, thefts: thefts.into(), trims }));
        let as_spare: Arc<dyn Spare> = Arc::clone(&robbed) as _;
        pools.add(Arc::downgrade(&as_spare)).unwrap();
        (pools, robbed)
    }

    #[test]
    fn what_others_take_first_is_asked_for_again_some_times() {
        for (thefts, enough) in [(0, true), (3, true), (4, false)] {
            let (pools, robbed) = pools(thefts, false);
            let charge = pools.charge(&robbed.budget, 40);
            assert_eq!(charge.is_ok(), enough, "{thefts}");
            assert_eq!(robbed.budget.promised(), 100);
        }
    }

    #[test]
    fn what_devices_hold_for_nobody_is_not_all_that_goes() {
        let (pools, robbed) = pools(0, true);
        let charge = pools.charge(&robbed.budget, 40).unwrap();
        assert_eq!(robbed.budget.promised(), 100);
        drop(charge);
        assert_eq!(robbed.budget.promised(), 60);
    }

    #[test]
    fn only_what_can_come_back_is_asked_for_again() {
        for (place, runs) in [(Budget::CAP, 5), ("host", 1), ("CUDA device 0", 1), ("CUDA device 1", 5)] {
            let ((pools, robbed), mut n) = (pools(9, false), 0);
            let outcome = pools.with_room(|| -> Result<()> {
                n += 1;
                Err(Error::OutOfMemory { place: place.to_owned(), requested: 10, free: 0 })
            });
            assert!(matches!(outcome, Err(Error::OutOfMemory { .. })), "{place}");
            assert_eq!((n, robbed.thefts.load(Ordering::Relaxed)), (runs, 10 - n), "{place}");
        }
    }
}
