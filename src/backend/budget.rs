//! The account of an engine's memory against its cap, in two columns: what has been promised (weights, cache pages in use
//! and working memory by plan, entered before they are made) and what a device has lent that counts its own allocations.
//!
//! Invariant: neither column exceeds the cap. On a device that does not count, the second stays 0.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Bytes in use, and the most that may be.
#[derive(Debug, Default)]
pub struct Budget {
    cap: Option<u64>,
    promised: AtomicU64,
    lent: AtomicU64,
}

impl Budget {
    /// Where memory is short, as errors say it, when the cap refuses.
    pub const CAP: &'static str = "memory cap";

    /// An account that nothing has been taken from.
    pub fn new(cap: Option<u64>) -> Arc<Budget> {
        Arc::new(Budget { cap, promised: AtomicU64::new(0), lent: AtomicU64::new(0) })
    }

    /// The most bytes that may be in use; `None`: the machine's limits alone.
    pub fn cap(&self) -> Option<u64> {
        self.cap
    }

    /// Bytes that have been promised.
    pub fn promised(&self) -> u64 {
        self.promised.load(Ordering::Relaxed)
    }

    /// Bytes that the device has lent.
    pub fn lent(&self) -> u64 {
        self.lent.load(Ordering::Relaxed)
    }

    /// Bytes that the cap leaves for promises; `None`: there is no cap.
    pub fn left(&self) -> Option<u64> {
        self.cap.map(|cap| cap.saturating_sub(self.promised()))
    }

    /// Bytes that the cap leaves for the device to lend; `None`: there is no cap.
    pub fn left_to_lend(&self) -> Option<u64> {
        self.cap.map(|cap| cap.saturating_sub(self.lent()))
    }

    fn add(&self, column: &AtomicU64, bytes: u64) -> Result<()> {
        let limit = self.cap.unwrap_or(u64::MAX);
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit);
        match column.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(()),
            Err(used) => {
                let free = limit.saturating_sub(used);
                Err(Error::OutOfMemory { place: Budget::CAP.to_owned(), requested: bytes, free })
            }
        }
    }

    /// Enters a promise, or fails with what the cap leaves.
    pub fn promise(&self, bytes: u64) -> Result<()> {
        self.add(&self.promised, bytes)
    }

    /// Takes a promise back that [`Self::promise`] has entered.
    pub fn release(&self, bytes: u64) {
        self.promised.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Enters what the device is about to allocate, or fails with what the cap leaves.
    pub fn lend(&self, bytes: u64) -> Result<()> {
        self.add(&self.lent, bytes)
    }

    /// Takes out what the device has got back of [`Self::lend`].
    pub fn give_back(&self, bytes: u64) {
        self.lent.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_share_the_cap_and_not_each_other_s_bytes() {
        let budget = Budget::new(Some(100));
        budget.promise(60).unwrap();
        budget.lend(100).unwrap();
        let refused = |outcome: Result<()>| outcome.unwrap_err().to_string();
        assert_eq!(refused(budget.promise(41)), "memory cap: 41 bytes requested, 40 bytes free");
        assert_eq!(refused(budget.lend(1)), "memory cap: 1 bytes requested, 0 bytes free");
        assert_eq!((budget.left(), budget.left_to_lend()), (Some(40), Some(0)));
        budget.release(60);
        budget.give_back(70);
        assert_eq!((budget.promised(), budget.lent()), (0, 30));
        budget.promise(100).unwrap();
    }

    #[test]
    fn an_absurd_size_does_not_wrap() {
        let budget = Budget::new(None);
        budget.promise(u64::MAX).unwrap();
        assert!(budget.promise(1).is_err());
        budget.lend(u64::MAX - 1).unwrap();
        assert!(budget.lend(2).is_err());
        assert_eq!((budget.left(), budget.left_to_lend()), (None, None));
    }
}
