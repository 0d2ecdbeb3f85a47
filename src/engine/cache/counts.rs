//! A pool's counts, which are read while its lock is held: a host's memory may be long in coming under it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a pool has come to, as far as it is known without waiting for anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheCounts {
    /// Pages in use, with those that are just being taken.
    pub n_pages_used: u64,
    /// Those of them that no session holds.
    pub n_pages_retained: u64,
    /// Retained pages that have been given up so far.
    pub n_pages_evicted: u64,
    /// Tokens that sessions have taken from others so far.
    pub n_tokens_saved: u64,
}

/// [`CacheCounts`] as they change.
pub(super) struct Counts {
    /// The budget's.
    pub(super) used: Arc<AtomicU64>,
    /// Those of the retained pages.
    pub(super) retained: Arc<AtomicU64>,
    /// Tokens that were taken from other sessions.
    pub(super) saved: AtomicU64,
    /// Retained pages that have been given up, and those of them that somebody has been told of.
    pub(super) evicted: Arc<AtomicU64>,
    pub(super) told: AtomicU64,
}

impl Counts {
    /// Those of a new pool, whose budget and retained pages have these.
    pub(super) fn new(used: Arc<AtomicU64>, retained: Arc<AtomicU64>) -> Counts {
        Counts { used, retained, saved: AtomicU64::new(0), evicted: Arc::default(), told: AtomicU64::new(0) }
    }

    pub(super) fn now(&self) -> CacheCounts {
        let n_pages_retained = self.retained.load(Ordering::Relaxed);
        CacheCounts {
            // Read one after the other: a page may have been given up in between.
            n_pages_used: self.used.load(Ordering::Relaxed).max(n_pages_retained),
            n_pages_retained,
            n_pages_evicted: self.evicted.load(Ordering::Relaxed),
            n_tokens_saved: self.saved.load(Ordering::Relaxed),
        }
    }

    /// How many retained pages have been given up since the last time that this was asked.
    pub(super) fn newly_evicted(&self) -> u64 {
        let n = self.evicted.load(Ordering::Relaxed);
        if self.told.load(Ordering::Relaxed) == n { 0 } else { n - self.told.fetch_max(n, Ordering::Relaxed).min(n) }
    }
}
