//! The model's pool of cache pages: which are free, and how many lists hold each of the others.
//!
//! Invariants: a page is either in `free` or has at least one holder; pages in use are charged to the engine's memory
//! cap; the lowest free page is taken first, so that which pages a session gets depends on the calls and nothing else.
//! A page with several holders is never written: a list that wants to write one takes a copy first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::budget::{CacheFacts, Charge, PageBudget};
use super::prefix::PrefixIndex;
use crate::alloc::{asking, reserve};
use crate::backend::{LoadedModel, PAGE_TOKENS};
use crate::error::{Error, Result};

/// A model's pages.
pub(in crate::engine) struct PagePool {
    loaded: Arc<dyn LoadedModel>,
    state: Mutex<State>,
}

struct State {
    free: BinaryHeap<Reverse<u32>>,
    /// Holders of each page that exists; 0: free.
    holders: Vec<u32>,
    budget: PageBudget,
    index: PrefixIndex,
}

impl PagePool {
    /// `charge` is zero and grows with the pages in use, which take `cache_bytes` at most.
    pub(in crate::engine) fn new(loaded: Arc<dyn LoadedModel>, charge: Charge, cache_bytes: Option<u64>) -> PagePool {
        let page_bytes = loaded.plan().kv_bytes_per_token * PAGE_TOKENS as u64;
        let budget = PageBudget::new(page_bytes, charge, cache_bytes);
        let state = State { free: BinaryHeap::new(), holders: Vec::new(), budget, index: PrefixIndex::default() };
        PagePool { loaded, state: Mutex::new(state) }
    }

    pub(in crate::engine) fn facts(&self) -> CacheFacts {
        self.lock().budget.facts()
    }

    /// A panic while the lock is held cannot leave the state half changed (nothing between its writes can panic), so
    /// one session's panic does not take the model with it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `n` pages to the end of `pages`, which has room for them, or fails and changes nothing.
    fn take(&self, n: usize, pages: &mut Vec<u32>) -> Result<()> {
        if n == 0 {
            return Ok(());
        }
        let mut state = self.lock();
        let state = &mut *state;
        state.budget.take(n)?;
        let missing = n.saturating_sub(state.free.len());
        let exist = state.holders.len();
        // Giving back takes no memory: there is room in the heap for all.
        let all = (exist + missing).saturating_sub(state.free.len());
        let room = reserve(&mut state.holders, missing).and_then(|()| reserve_heap(&mut state.free, all));
        let room = room.and_then(|()| match missing {
            0 => Ok(()),
            _ => self.loaded.reserve_pages(exist + missing),
        });
        if let Err(error) = room {
            state.budget.give(n);
            return Err(error);
        }
        for page in exist..exist + missing {
            state.holders.push(0);
            state.free.push(Reverse(page as u32));
        }
        for Reverse(page) in std::iter::from_fn(|| state.free.pop()).take(n) {
            state.holders[page as usize] = 1;
            pages.push(page);
        }
        Ok(())
    }

    /// Lets go of these.
    fn give(&self, pages: &[u32]) {
        if pages.is_empty() {
            return;
        }
        let mut state = self.lock();
        let state = &mut *state;
        let mut n_free = 0;
        for &page in pages {
            let holders = &mut state.holders[page as usize];
            *holders -= 1;
            if *holders == 0 {
                state.index.forget(page);
                self.loaded.release_page(page);
                state.free.push(Reverse(page));
                n_free += 1;
            }
        }
        state.budget.give(n_free);
    }

    /// One more holder for each of these.
    fn hold(&self, pages: &[u32]) {
        let mut state = self.lock();
        for &page in pages {
            state.holders[page as usize] += 1;
        }
    }

    /// How many of these nobody else holds.
    fn n_own(&self, pages: &[u32]) -> usize {
        let state = self.lock();
        pages.iter().filter(|page| state.holders[**page as usize] == 1).count()
    }

    /// Whether others hold the page too. If not, it may be written from now on.
    fn is_shared(&self, page: u32) -> bool {
        let mut state = self.lock();
        let shared = state.holders[page as usize] > 1;
        if !shared {
            state.index.forget(page);
        }
        shared
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

fn internal(message: &str) -> Error {
    Error::Internal { message: message.to_owned() }
}

/// One holder of each of its pages.
struct PageList {
    pool: Arc<PagePool>,
    pages: Vec<u32>,
    /// They came from outside, as did what follows from them: nobody else is given them.
    foreign: bool,
    /// They are of a long session, whose keys are others than those of another with the same tokens.
    is_long: bool,
}

impl PageList {
    fn keep(&mut self, n: usize) {
        if n < self.pages.len() {
            self.pool.give(&self.pages[n..]);
            self.pages.truncate(n);
        }
    }
}

impl Drop for PageList {
    fn drop(&mut self) {
        self.pool.give(&self.pages);
    }
}

/// The pages that hold one session's tokens, in order. Forks share one list until one of them changes it.
pub(in crate::engine) struct Pages {
    list: Arc<PageList>,
}

impl Pages {
    pub(in crate::engine) fn new(pool: &Arc<PagePool>, is_long: bool) -> Pages {
        Pages { list: Arc::new(PageList { pool: Arc::clone(pool), pages: Vec::new(), foreign: false, is_long }) }
    }

    /// The same pages, in constant time; whoever writes first takes copies.
    pub(in crate::engine) fn fork(&self) -> Pages {
        Pages { list: Arc::clone(&self.list) }
    }

    /// Their numbers.
    pub(in crate::engine) fn as_slice(&self) -> &[u32] {
        &self.list.pages
    }

    /// How many become free when these are given back.
    pub(in crate::engine) fn n_own(&self) -> usize {
        if Arc::strong_count(&self.list) > 1 { 0 } else { self.list.pool.n_own(&self.list.pages) }
    }

    /// A list of its own, with the first `keep` pages and room for `n_new` more. Fails and changes nothing.
    fn own(&mut self, keep: usize, n_new: usize) -> Result<&mut PageList> {
        if Arc::get_mut(&mut self.list).is_none() {
            let old = &self.list;
            let keep = keep.min(old.pages.len());
            let mut pages = Vec::new();
            reserve(&mut pages, keep + n_new)?;
            pages.extend_from_slice(&old.pages[..keep]);
            old.pool.hold(&pages);
            let (pool, foreign, is_long) = (Arc::clone(&old.pool), old.foreign, old.is_long);
            self.list = Arc::new(PageList { pool, pages, foreign, is_long });
        }
        let list = Arc::get_mut(&mut self.list).ok_or_else(|| internal("a new list of pages is shared"))?;
        reserve(&mut list.pages, n_new)?;
        Ok(list)
    }

    /// Makes positions `n_held .. n_total` writable for this session alone: takes the missing pages, and a copy of the
    /// page that `n_held` stands in if others hold it too. Fails and changes nothing that shows.
    pub(in crate::engine) fn prepare(&mut self, n_held: usize, n_total: usize) -> Result<()> {
        let (begun, all) = (n_held / PAGE_TOKENS, n_total.div_ceil(PAGE_TOKENS));
        let missing = all.saturating_sub(self.list.pages.len());
        let list = self.own(self.list.pages.len(), missing + 1)?;
        let pool = Arc::clone(&list.pool);
        list.foreign &= n_held > 0;
        let copied = !n_held.is_multiple_of(PAGE_TOKENS) && pool.is_shared(list.pages[begun]);
        let n = list.pages.len();
        pool.take(missing + usize::from(copied), &mut list.pages)?;
        if copied {
            let copy = list.pages.pop().ok_or_else(|| internal("no page was taken"))?;
            if let Err(error) = pool.loaded.copy_page(list.pages[begun], copy) {
                pool.give(&[copy]);
                list.keep(n);
                return Err(error);
            }
            let old = std::mem::replace(&mut list.pages[begun], copy);
            pool.give(&[old]);
        }
        Ok(())
    }

    /// Adds pages of others that hold the next of `tokens`, whole pages of them and not all of `tokens`: how many tokens
    /// that are. The session holds whole pages.
    pub(in crate::engine) fn adopt(&mut self, tokens: &[u32]) -> Result<usize> {
        let most = tokens.len().saturating_sub(1) / PAGE_TOKENS;
        if most == 0 || self.list.foreign && !self.list.pages.is_empty() {
            return Ok(0);
        }
        let list = self.own(self.list.pages.len(), most)?;
        let mut state = list.pool.lock();
        let found = state.index.find(list.is_long, &list.pages, &tokens[..most * PAGE_TOKENS]);
        found.iter().for_each(|page| state.holders[*page as usize] += 1);
        drop(state);
        list.pages.extend_from_slice(&found);
        Ok(found.len() * PAGE_TOKENS)
    }

    /// Lets others find the pages by their tokens, which are all that the session holds.
    pub(in crate::engine) fn publish(&self, tokens: &[u32]) {
        if !self.list.foreign {
            self.list.pool.lock().index.enter(self.list.is_long, &self.list.pages, tokens);
        }
    }

    /// The pages are going to be filled from outside.
    pub(in crate::engine) fn mark_foreign(&mut self) -> Result<()> {
        self.own(self.list.pages.len(), 0)?.foreign = true;
        Ok(())
    }

    /// Gives back what the first `n_tokens` do not need. Fails, and changes nothing, only while forks share the list.
    pub(in crate::engine) fn shrink(&mut self, n_tokens: usize) -> Result<()> {
        let keep = n_tokens.div_ceil(PAGE_TOKENS);
        if keep < self.list.pages.len() {
            self.own(keep, 0)?.keep(keep);
        }
        Ok(())
    }
}
