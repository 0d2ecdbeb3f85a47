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
use super::pools::{Pools, Spare};
use super::prefix::PrefixIndex;
use crate::alloc::{asking, reserve};
use crate::backend::{LoadedModel, PAGE_TOKENS};
use crate::error::{Error, Result};
use crate::model::CacheClasses;

/// A model's pages.
pub(in crate::engine) struct PagePool {
    pub(super) loaded: Arc<dyn LoadedModel>,
    /// How pages are divided.
    pub(in crate::engine) classes: CacheClasses,
    /// [`LoadedModel::steps_below`], which never changes.
    pub(in crate::engine) steps_below: usize,
    /// Whether it is kept which positions steps have computed: what is computed again has to be what it was.
    pub(in crate::engine) marks: bool,
    /// Those that share the engine's memory cap.
    pools: Arc<Pools>,
    state: Mutex<State>,
}

pub(super) struct State {
    free: BinaryHeap<Reverse<u32>>,
    /// Holders of each page that exists; 0: free.
    pub(super) holders: Vec<u32>,
    pub(super) parts: PageParts,
    pub(super) budget: PageBudget,
    pub(super) index: PrefixIndex,
    /// The positions of each page that steps have computed, a bit for each, where [`PagePool::marks`].
    pub(super) by_steps: Vec<u64>,
}

impl PagePool {
    /// `charge` is zero and grows with the pages in use, which take `cache_bytes` at most; `pools` is the engine's.
    pub(in crate::engine) fn new(
        loaded: Arc<dyn LoadedModel>,
        charge: Charge,
        cache_bytes: Option<u64>,
        pools: &Arc<Pools>,
    ) -> Result<Arc<PagePool>> {
        let page_bytes = loaded.plan().kv_bytes_per_token * PAGE_TOKENS as u64;
        let budget = PageBudget::new(page_bytes, charge, cache_bytes);
        let classes = loaded.cache_classes()?;
        let parts = PageParts::new(classes.clone(), page_bytes);
        let steps_below = loaded.steps_below();
        let marks = steps_below > 0 && (0..classes.n()).any(|class| classes.window(class).is_some());
        let state = State {
            free: BinaryHeap::new(),
            holders: Vec::new(),
            parts,
            budget,
            index: PrefixIndex::default(),
            by_steps: Vec::new(),
        };
        let pool = Arc::new(PagePool {
            loaded,
            classes,
            steps_below,
            marks,
            pools: Arc::clone(pools),
            state: Mutex::new(state),
        });
        let as_spare: Arc<dyn Spare> = Arc::clone(&pool) as _;
        pools.add(Arc::downgrade(&as_spare))?;
        Ok(pool)
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

    /// Runs what takes memory as [`Pools::with_room`] does. Fails as the last run does, which has changed nothing but what is spare.
    pub(super) fn with_room<T>(&self, mut attempt: impl FnMut(&mut State) -> Result<T>) -> Result<T> {
        // The other models' locks are taken while this one's is free: two models may want each other's.
        self.pools.with_room(|| attempt(&mut self.lock()))
    }

    /// Adds pages for these indices of a list to the end of `pages`, which has room for them, each with the parts that the list
    /// wants. Fails and changes nothing but what is spare.
    pub(super) fn take(
        &self,
        indices: impl Iterator<Item = usize> + Clone,
        wanted: &WantedOf,
        pages: &mut Vec<u32>,
    ) -> Result<()> {
        if indices.clone().next().is_none() {
            return Ok(());
        }
        self.with_room(|state| state.take(&*self.loaded, indices.clone(), wanted, 0, pages))
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

impl Spare for PagePool {
    fn spare_bytes(&self) -> u64 {
        self.lock().parts.spare_bytes()
    }

    fn give_spare(&self, bytes: u64) -> u64 {
        self.lock().give_spare(&*self.loaded, bytes)
    }

    fn trim(&self) -> bool {
        let state = self.lock();
        self.loaded.trim_parts(&state.parts.n_there())
    }

    fn gives_back_to(&self, place: &str) -> bool {
        self.loaded.has_parts_in(place)
    }
}

impl State {
    /// Takes pages as [`PagePool::take`] does, and counts `more` bytes for other parts.
    pub(super) fn take(
        &mut self,
        loaded: &dyn LoadedModel,
        indices: impl Iterator<Item = usize> + Clone,
        wanted: &WantedOf,
        more: u64,
        pages: &mut Vec<u32>,
    ) -> Result<()> {
        let n = indices.clone().count();
        let bytes = indices.clone().map(|index| self.parts.taken(index, wanted)).sum::<u64>().saturating_add(more);
        self.charge(loaded, n, bytes)?;
        let missing = n.saturating_sub(self.free.len());
        let exist = self.holders.len();
        // Giving back takes no memory: there is room in the heap for all.
        let all = (exist + missing).saturating_sub(self.free.len());
        let room = reserve(&mut self.holders, missing).and_then(|()| reserve_heap(&mut self.free, all));
        let room = room.and_then(|()| self.parts.reserve(missing)).and_then(|()| reserve(&mut self.by_steps, missing));
        let room = room.and_then(|()| match missing {
            0 => Ok(()),
            _ => loaded.reserve_pages(exist + missing),
        });
        let room = room.and_then(|()| loaded.reserve_parts(&self.parts.n_with(indices.clone(), wanted)));
        if let Err(error) = room {
            self.budget.give(n, bytes);
            return Err(error);
        }
        for page in exist..exist + missing {
            self.holders.push(0);
            self.by_steps.push(0);
            self.parts.push();
            self.free.push(Reverse(page as u32));
        }
        for (index, Reverse(page)) in indices.zip(std::iter::from_fn(|| self.free.pop())) {
            self.holders[page as usize] = 1;
            self.parts.take(page, index, wanted);
            pages.push(page);
        }
        Ok(())
    }

    /// Counts bytes of so many pages more; what is spare goes for them if that is enough. Fails and changes nothing.
    fn charge(&mut self, loaded: &dyn LoadedModel, n_pages: usize, bytes: u64) -> Result<()> {
        loop {
            let (lacks, spare) = (self.budget.lacks(bytes), self.parts.spare_bytes());
            let taken = self.budget.take(n_pages, bytes, spare);
            // Other models may have taken what has just been given back.
            if taken.is_ok() || spare < lacks.max(1) || self.give_spare(loaded, lacks.max(1)) == 0 {
                return taken;
            }
        }
    }

    fn give_spare(&mut self, loaded: &dyn LoadedModel, bytes: u64) -> u64 {
        let mut gone = 0;
        while gone < bytes
            && let Some((page, class, bytes)) = self.parts.drop_spare()
        {
            loaded.drop_part(page, class);
            self.budget.give(0, bytes);
            gone += bytes;
        }
        gone
    }

    /// Takes a part away that nobody wants.
    pub(super) fn lose(&mut self, loaded: &dyn LoadedModel, page: u32, class: usize) {
        if let Some(bytes) = self.parts.lose(page, class) {
            loaded.drop_part(page, class);
            self.budget.give(0, bytes);
        }
    }

    /// How many of the first of pages that follow on `n_held` whole ones can be shared: every class has what it reads behind
    /// them.
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
