//! What a model takes of its engine's memory: promises that are kept as long as they live, and how many cache pages they
//! leave room for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backend::{Budget, PAGE_TOKENS};
use crate::error::{Error, Result};

/// Bytes taken out of the cap.
pub(in crate::engine) struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Charge {
    /// Takes bytes out of the cap for as long as the charge lives.
    pub(in crate::engine) fn new(budget: &Arc<Budget>, bytes: u64) -> Result<Charge> {
        budget.promise(bytes)?;
        Ok(Charge { budget: Arc::clone(budget), bytes })
    }

    /// Bytes that the cap leaves; `None`: there is no cap.
    pub(super) fn left(&self) -> Option<u64> {
        self.budget.left()
    }

    /// Changes the charge; a failure changes nothing.
    pub(in crate::engine) fn set(&mut self, bytes: u64) -> Result<()> {
        if bytes > self.bytes {
            self.budget.promise(bytes - self.bytes)?;
        } else {
            self.budget.release(self.bytes - bytes);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

/// How full a model's cache is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheFacts {
    /// Tokens of a page.
    pub page_tokens: u64,
    /// Bytes of a whole page.
    pub page_bytes: u64,
    /// The most whole pages there may be in use; `None`: what the memory cap leaves.
    pub n_pages_limit: Option<u64>,
    /// Pages in use, some without the parts that windows have given back.
    pub n_pages_used: u64,
    /// Bytes of them.
    pub used_bytes: u64,
    /// Those of the bytes that are given back when memory is short.
    pub spare_bytes: u64,
    /// Whole pages that could be taken now; `None`: nothing limits them but the machine.
    pub n_pages_free: Option<u64>,
    /// Pages in use that no session holds, kept for those that begin with the same tokens.
    pub n_pages_retained: u64,
    /// Bytes of them, all of which are spare.
    pub retained_bytes: u64,
    /// Tokens that sessions have taken from others so far in place of computing them.
    pub n_tokens_saved: u64,
    /// Retained pages that have been given up so far for something else.
    pub n_pages_evicted: u64,
    /// States that sessions and calls hold.
    pub n_states: u64,
    /// Checkpoints.
    pub n_checkpoints: u64,
    /// The most bytes of them.
    pub checkpoint_limit_bytes: u64,
}

/// The bytes of pages in use, against the model's own limit and the engine's cap.
pub(super) struct PageBudget {
    page_bytes: u64,
    /// The most that may be in use, in whole pages.
    limit: Option<u64>,
    in_use: u64,
    /// Changes under the pool's lock alone; anybody may read it.
    n_pages: Arc<AtomicU64>,
    charge: Charge,
}

impl PageBudget {
    /// `charge` is zero and grows with the pages in use, which take `cache_bytes` at most.
    pub(super) fn new(page_bytes: u64, charge: Charge, cache_bytes: Option<u64>) -> PageBudget {
        let whole = page_bytes.max(1);
        let limit = cache_bytes.map(|bytes| bytes / whole * whole);
        PageBudget { page_bytes, limit, in_use: 0, n_pages: Arc::default(), charge }
    }

    /// The pages in use, for whoever reads them while they change.
    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.n_pages)
    }

    /// How many of these bytes exceed what is left.
    pub(super) fn lacks(&self, bytes: u64) -> u64 {
        let by_limit = self.limit.map_or(0, |limit| (self.in_use + bytes).saturating_sub(limit));
        by_limit.max(self.charge.left().map_or(0, |left| bytes.saturating_sub(left)))
    }

    /// Counts bytes and pages more, or fails and changes nothing; `spare` bytes in use would not have been in the way. Where these are enough
    /// for the limit and the cap is short, too, it fails for that, since what others have to spare may help.
    pub(super) fn take(&mut self, n_pages: usize, bytes: u64, spare: u64) -> Result<()> {
        let in_use = self.in_use.saturating_add(bytes);
        if let Some(limit) = self.limit.filter(|limit| in_use > *limit) {
            let whole = self.page_bytes.max(1);
            let free = (limit.saturating_sub(self.in_use) + spare) / whole;
            let (needed, total) = (bytes.div_ceil(whole) as usize, (limit / whole) as usize);
            if in_use.saturating_sub(spare) <= limit {
                self.charge.set(in_use)?;
                // A smaller charge cannot fail.
                let _ = self.charge.set(self.in_use);
            }
            return Err(Error::CacheFull { needed, free: free as usize, total });
        }
        self.charge.set(in_use)?;
        self.in_use = in_use;
        self.n_pages.fetch_add(n_pages as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Counts bytes and pages less.
    pub(super) fn give(&mut self, n_pages: usize, bytes: u64) {
        self.in_use = self.in_use.saturating_sub(bytes);
        let left = self.n_pages.load(Ordering::Relaxed).saturating_sub(n_pages as u64);
        self.n_pages.store(left, Ordering::Relaxed);
        // A smaller charge cannot fail.
        let _ = self.charge.set(self.in_use);
    }

    /// What it knows of them; `spare`: bytes in use that are given back when memory is short.
    pub(super) fn facts(&self, spare: u64) -> CacheFacts {
        let whole = self.page_bytes.max(1);
        let by_limit = self.limit.map(|limit| (limit.saturating_sub(self.in_use) + spare) / whole);
        let by_cap = self.charge.left().map(|bytes| (bytes + spare) / whole);
        CacheFacts {
            page_tokens: PAGE_TOKENS as u64,
            page_bytes: self.page_bytes,
            n_pages_limit: self.limit.map(|limit| limit / whole),
            n_pages_used: self.n_pages.load(Ordering::Relaxed),
            used_bytes: self.in_use,
            spare_bytes: spare,
            n_pages_free: by_limit.into_iter().chain(by_cap).min(),
            n_pages_retained: 0,
            retained_bytes: 0,
            n_tokens_saved: 0,
            n_pages_evicted: 0,
            n_states: 0,
            n_checkpoints: 0,
            checkpoint_limit_bytes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_add_up_to_the_cap_and_come_back() {
        let budget = Budget::new(Some(100));
        let mut a = Charge::new(&budget, 60).unwrap();
        let refused = Charge::new(&budget, 41).map(|_| ()).unwrap_err();
        assert_eq!(refused.to_string(), "memory cap: 41 bytes requested, 40 bytes free");
        let b = Charge::new(&budget, 40).unwrap();
        assert!(a.set(61).is_err());
        assert_eq!(budget.promised(), 100);
        drop(b);
        a.set(100).unwrap();
        a.set(10).unwrap();
        assert_eq!(budget.promised(), 10);
        drop(a);
        assert_eq!(budget.promised(), 0);
    }

    #[test]
    fn pages_stop_at_the_model_s_limit_and_at_the_engine_s_cap() {
        let budget = Budget::new(Some(100));
        let mut pages = PageBudget::new(10, Charge::new(&budget, 0).unwrap(), Some(75));
        pages.take(7, 70, 0).unwrap();
        assert_eq!(budget.promised(), 70);
        assert_eq!(
            pages.take(1, 10, 0).unwrap_err().to_string(),
            Error::CacheFull { needed: 1, free: 0, total: 7 }.to_string()
        );
        pages.give(3, 30);
        let other = Charge::new(&budget, 45).unwrap();
        assert_eq!(pages.take(2, 20, 0).unwrap_err().to_string(), "memory cap: 20 bytes requested, 15 bytes free");
        assert_eq!(
            (pages.facts(0).n_pages_used, pages.facts(0).n_pages_free, pages.facts(5).n_pages_free),
            (4, Some(1), Some(2))
        );
        assert_eq!((pages.lacks(15), pages.lacks(20)), (0, 5));
        // Both are short: what is spare is enough for the limit, and the cap is for others to help with.
        pages.take(3, 30, 0).unwrap_err();
        drop(other);
        pages.take(3, 30, 0).unwrap();
        let other = Charge::new(&budget, 30).unwrap();
        let said = |pages: &mut PageBudget, spare| pages.take(1, 10, spare).unwrap_err().to_string();
        assert_eq!(said(&mut pages, 10), "memory cap: 10 bytes requested, 0 bytes free");
        assert_eq!(said(&mut pages, 9), Error::CacheFull { needed: 1, free: 0, total: 7 }.to_string());
        assert_eq!((budget.promised(), pages.facts(0).n_pages_used), (100, 7));
        drop(other);
        assert_eq!(said(&mut pages, 10), Error::CacheFull { needed: 1, free: 1, total: 7 }.to_string());
        assert_eq!(budget.promised(), 70);
        drop(pages);
        assert_eq!(budget.promised(), 0);
    }
}
