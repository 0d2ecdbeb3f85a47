//! The model's pool of cache pages: which are free, and how many hold each of the others.
//!
//! Invariants: a page is either in `free` or has at least one holder; pages in use are charged to the engine's memory
//! cap; the lowest free page is taken first, so that which pages a session gets depends on the calls and nothing else.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::Charge;
use crate::backend::{LoadedModel, PAGE_TOKENS};
use crate::error::Result;

/// A model's pages.
pub(super) struct PagePool {
    loaded: Arc<dyn LoadedModel>,
    page_bytes: u64,
    state: Mutex<State>,
}

struct State {
    free: BinaryHeap<Reverse<u32>>,
    /// Holders of each page that exists; 0: free.
    holders: Vec<u32>,
    in_use: u64,
    charge: Charge,
}

impl PagePool {
    /// `charge` is zero and grows with the pages in use.
    pub(super) fn new(loaded: Arc<dyn LoadedModel>, charge: Charge) -> PagePool {
        let page_bytes = loaded.plan().kv_bytes_per_token * PAGE_TOKENS as u64;
        let state = State { free: BinaryHeap::new(), holders: Vec::new(), in_use: 0, charge };
        PagePool { loaded, page_bytes, state: Mutex::new(state) }
    }

    /// A panic while the lock is held cannot leave the state half changed (nothing between its writes can panic), so
    /// one session's panic does not take the model with it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `n` pages to the end of `pages`, or fails and changes nothing.
    pub(super) fn take(&self, n: usize, pages: &mut Pages) -> Result<()> {
        if n == 0 {
            return Ok(());
        }
        let mut state = self.lock();
        let state = &mut *state;
        let in_use = state.in_use + n as u64;
        state.charge.set(in_use.saturating_mul(self.page_bytes))?;
        let missing = n.saturating_sub(state.free.len());
        let exist = state.holders.len();
        if missing > 0
            && let Err(error) = self.loaded.reserve_pages(exist + missing)
        {
            // Back to a smaller charge, which cannot fail.
            let _ = state.charge.set(state.in_use * self.page_bytes);
            return Err(error);
        }
        for page in exist..exist + missing {
            state.holders.push(0);
            state.free.push(Reverse(page as u32));
        }
        for Reverse(page) in std::iter::from_fn(|| state.free.pop()).take(n) {
            state.holders[page as usize] = 1;
            pages.list.push(page);
        }
        state.in_use = in_use;
        Ok(())
    }

    /// Lets go of all but the first `keep` of `pages`.
    fn give(&self, pages: &mut Vec<u32>, keep: usize) {
        if keep >= pages.len() {
            return;
        }
        let mut state = self.lock();
        for page in pages.drain(keep..) {
            let holders = &mut state.holders[page as usize];
            *holders -= 1;
            if *holders == 0 {
                self.loaded.release_page(page);
                state.free.push(Reverse(page));
                state.in_use -= 1;
            }
        }
        let bytes = state.in_use * self.page_bytes;
        // A smaller charge cannot fail.
        let _ = state.charge.set(bytes);
    }
}

/// The pages that hold one session's tokens, in order; given back when dropped.
pub(super) struct Pages {
    pool: Arc<PagePool>,
    list: Vec<u32>,
}

impl Pages {
    pub(super) fn new(pool: &Arc<PagePool>) -> Pages {
        Pages { pool: Arc::clone(pool), list: Vec::new() }
    }

    /// Their numbers.
    pub(super) fn as_slice(&self) -> &[u32] {
        &self.list
    }

    /// Makes room for `n_tokens` in all, or fails and changes nothing.
    pub(super) fn cover(&mut self, n_tokens: usize) -> Result<()> {
        let missing = n_tokens.div_ceil(PAGE_TOKENS).saturating_sub(self.list.len());
        let pool = Arc::clone(&self.pool);
        pool.take(missing, self)
    }

    /// Gives back what the first `n_tokens` do not need.
    pub(super) fn shrink(&mut self, n_tokens: usize) {
        self.pool.give(&mut self.list, n_tokens.div_ceil(PAGE_TOKENS));
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.pool.give(&mut self.list, 0);
    }
}
