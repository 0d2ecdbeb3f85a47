//! The account of an engine's memory against its cap.
//!
//! Counted are the large things: weights, cache pages in use, working memory. Invariant: `used` is the sum of the
//! living [`Charge`]s and never exceeds the cap.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Bytes in use, and the most that may be.
pub(super) struct Memory {
    cap: Option<u64>,
    used: AtomicU64,
}

impl Memory {
    pub(super) fn new(cap: Option<u64>) -> Arc<Memory> {
        Arc::new(Memory { cap, used: AtomicU64::new(0) })
    }

    pub(super) fn cap(&self) -> Option<u64> {
        self.cap
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: u64) -> Result<()> {
        let limit = self.cap.unwrap_or(u64::MAX);
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(()),
            Err(used) => {
                let free = limit.saturating_sub(used);
                Err(Error::OutOfMemory { place: "memory cap".to_owned(), requested: bytes, free })
            }
        }
    }

    /// Takes bytes out of the cap for as long as the charge lives.
    pub(super) fn charge(self: &Arc<Self>, bytes: u64) -> Result<Charge> {
        self.add(bytes)?;
        Ok(Charge { memory: Arc::clone(self), bytes })
    }
}

/// Bytes taken out of the cap.
pub(super) struct Charge {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Charge {
    /// Bytes that the cap leaves; `None`: there is no cap.
    pub(super) fn left(&self) -> Option<u64> {
        self.memory.cap.map(|cap| cap.saturating_sub(self.memory.used()))
    }

    /// Changes the charge; a failure changes nothing.
    pub(super) fn set(&mut self, bytes: u64) -> Result<()> {
        if bytes > self.bytes {
            self.memory.add(bytes - self.bytes)?;
        } else {
            self.memory.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_add_up_to_the_cap_and_come_back() {
        let memory = Memory::new(Some(100));
        let mut a = memory.charge(60).unwrap();
        let refused = memory.charge(41).map(|_| ()).unwrap_err();
        assert_eq!(refused.to_string(), "memory cap: 41 bytes requested, 40 bytes free");
        let b = memory.charge(40).unwrap();
        assert!(a.set(61).is_err());
        assert_eq!(memory.used(), 100);
        drop(b);
        a.set(100).unwrap();
        a.set(10).unwrap();
        assert_eq!(memory.used(), 10);
        drop(a);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn an_absurd_size_does_not_wrap() {
        let memory = Memory::new(None);
        let _a = memory.charge(u64::MAX).unwrap();
        assert!(memory.charge(1).is_err());
    }
}
