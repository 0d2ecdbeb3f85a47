//! The model's pool of cache pages: which are free, and how many lists hold each of the others.
//!
//! Invariants: a page is either in `free` or has at least one holder; the bytes of pages in use, without the parts that are
//! gone, are charged to the engine's memory cap; the lowest free page is taken first, so that which pages a session gets
//! depends on the calls and nothing else. Spare parts go only where memory is short, and only if that is then enough.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::budget::{CacheFacts, Charge, PageBudget};
use super::parts::{PageParts, WantedOf};
use super::prefix::PrefixIndex;
use crate::alloc::{asking, reserve};
use crate::backend::{LoadedModel, PAGE_TOKENS};
use crate::error::{Error, Result};
use crate::model::CacheClasses;

/// A model's pages.
pub(in crate::engine) struct PagePool {
    pub(super) loaded: Arc<dyn LoadedModel>,
    state: Mutex<State>,
}

pub(super) struct State {
    free: BinaryHeap<Reverse<u32>>,
    /// Holders of each page that exists; 0: free.
    pub(super) holders: Vec<u32>,
    pub(super) parts: PageParts,
    pub(super) budget: PageBudget,
    pub(super) index: PrefixIndex,
}

impl PagePool {
    /// `charge` is zero and grows with the pages in use, which take `cache_bytes` at most.
    pub(in crate::engine) fn new(
        loaded: Arc<dyn LoadedModel>,
        charge: Charge,
        cache_bytes: Option<u64>,
    ) -> Result<PagePool> {
        let page_bytes = loaded.plan().kv_bytes_per_token * PAGE_TOKENS as u64;
        let budget = PageBudget::new(page_bytes, charge, cache_bytes);
        // What is computed again has to be what it was.
        let classes =
            if loaded.is_exact_in_chunks() { loaded.cache_classes()? } else { CacheClasses::one(loaded.config())? };
        let parts = PageParts::new(classes, page_bytes);
        let state = State { free: BinaryHeap::new(), holders: Vec::new(), parts, budget, index: PrefixIndex::default() };
        Ok(PagePool { loaded, state: Mutex::new(state) })
    }

    pub(in crate::engine) fn facts(&self) -> CacheFacts {
        let state = self.lock();
        state.budget.facts(state.parts.spare_bytes())
    }

    /// A panic while the lock is held cannot leave the state half changed (nothing between its writes can panic), so
    /// one session's panic does not take the model with it.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `n` pages to the end of `pages`, which has room for them, or fails and changes nothing but what is spare.
    pub(super) fn take(&self, n: usize, pages: &mut Vec<u32>) -> Result<()> {
        if n == 0 {
            return Ok(());
        }
        let mut state = self.lock();
        let state = &mut *state;
        let bytes = state.budget.page_bytes().saturating_mul(n as u64);
        state.charge(&*self.loaded, n, bytes)?;
        let missing = n.saturating_sub(state.free.len());
        let exist = state.holders.len();
        // Giving back takes no memory: there is room in the heap for all.
        let all = (exist + missing).saturating_sub(state.free.len());
        let room = reserve(&mut state.holders, missing).and_then(|()| reserve_heap(&mut state.free, all));
        let room = room.and_then(|()| state.parts.reserve(missing));
        let room = room.and_then(|()| match missing {
            0 => Ok(()),
            _ => self.loaded.reserve_pages(exist + missing),
        });
        if let Err(error) = room {
            state.budget.give(n, bytes);
            return Err(error);
        }
        for page in exist..exist + missing {
            state.holders.push(0);
            state.parts.push();
            state.free.push(Reverse(page as u32));
        }
        for Reverse(page) in std::iter::from_fn(|| state.free.pop()).take(n) {
            state.holders[page as usize] = 1;
            state.parts.take(page);
            pages.push(page);
        }
        Ok(())
    }

    /// Lets go of these, the first of which stands at index `first` of a list that wants parts of them.
    pub(super) fn give(&self, pages: &[u32], first: usize, wanted: &WantedOf) {
        if pages.is_empty() {
            return;
        }
        let mut state = self.lock();
        let state = &mut *state;
        let (mut n_free, mut bytes) = (0, 0);
        for (i, &page) in pages.iter().enumerate() {
            state.parts.unwant(page, first + i, wanted);
            let holders = &mut state.holders[page as usize];
            *holders -= 1;
            if *holders == 0 {
                state.index.forget(page);
                self.loaded.release_page(page);
                state.free.push(Reverse(page));
                bytes += state.parts.free(page);
                n_free += 1;
            }
        }
        state.budget.give(n_free, bytes);
    }

    /// One more holder for each of these, the first of a list, which wants parts of them.
    pub(super) fn hold(&self, pages: &[u32], wanted: &WantedOf) {
        let mut state = self.lock();
        let state = &mut *state;
        for (index, &page) in pages.iter().enumerate() {
            state.holders[page as usize] += 1;
            state.parts.want(page, index, wanted);
        }
    }

    /// How many of these nobody else holds.
    pub(super) fn n_own(&self, pages: &[u32]) -> usize {
        let state = self.lock();
        pages.iter().filter(|page| state.holders[**page as usize] == 1).count()
    }

    /// Whether others hold the page too. If not, it may be written from now on.
    pub(super) fn is_shared(&self, page: u32) -> bool {
        let mut state = self.lock();
        let shared = state.holders[page as usize] > 1;
        if !shared {
            state.index.forget(page);
        }
        shared
    }
}

impl State {
    /// Counts bytes of so many pages more; what is spare goes for them if that is enough. Fails and changes nothing.
    pub(super) fn charge(&mut self, loaded: &dyn LoadedModel, n_pages: usize, bytes: u64) -> Result<()> {
        loop {
            let (lacks, spare) = (self.budget.lacks(bytes), self.parts.spare_bytes());
            let taken = self.budget.take(n_pages, bytes, spare);
            if taken.is_ok() || spare < lacks.max(1) {
                return taken;
            }
            let mut gone = 0;
            while gone < lacks.max(1)
                && let Some((page, class, bytes)) = self.parts.drop_spare()
            {
                loaded.drop_part(page, class);
                self.budget.give(0, bytes);
                gone += bytes;
            }
        }
    }

    /// Takes a part away that nobody wants.
    pub(super) fn lose(&mut self, loaded: &dyn LoadedModel, page: u32, class: usize) {
        if let Some(bytes) = self.parts.lose(page, class) {
            loaded.drop_part(page, class);
            self.budget.give(0, bytes);
        }
    }

    /// Of pages that follow on `n_held` whole ones, how many of the first can be shared: every class has what it reads
    /// behind them.
    pub(super) fn n_whole(&self, n_held: usize, found: &[u32]) -> usize {
        let n_classes = self.parts.classes.n();
        let mut runs = [0; crate::model::MAX_CLASSES];
        let mut best = 0;
        for (i, &page) in found.iter().enumerate() {
            let n = n_held + i + 1;
            let mut whole = true;
            for (class, run) in runs.iter_mut().enumerate().take(n_classes) {
                *run = if self.parts.is_there(page, class) { *run + 1 } else { 0 };
                let first = self.parts.classes.first(class, n * PAGE_TOKENS) / PAGE_TOKENS;
                whole &= *run >= n - first.max(n_held);
            }
            if whole {
                best = i + 1;
            }
        }
        best
    }
}

/// [`reserve`] for a heap.
fn reserve_heap<T: Ord>(heap: &mut BinaryHeap<T>, n: usize) -> Result<()> {
    let refused = |_| {
        let requested = n.saturating_mul(size_of::<T>()) as u64;
        Error::OutOfMemory { place: "host".to_owned(), requested, free: 0 }
    };
    asking(|| heap.try_reserve(n)).map_err(refused)
}
