//! The model's pool of cache pages: which are free, and how many lists hold each of the others.
//!
//! Invariants: a page is in `free`, or has a holder, or is retained; the bytes of pages in use, without the parts that are
//! gone, are charged to the engine's memory cap; the lowest free page is taken first, so that which pages a session gets
//! depends on the calls and nothing else. What is spare goes only where memory is short, and only if that is then enough. Under the
//! lock nothing takes longer than the pages that a call is about.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::budget::{CacheFacts, Charge, PageBudget};
use super::counts::{CacheCounts, Counts};
use super::leads::Leads;
use super::parts::{PageParts, WantedOf, wanted_behind};
use super::pools::{Pools, Spare};
use super::prefix::PrefixIndex;
use super::retained::Retained;
use super::states::States;
use crate::alloc::{reserve, reserve_by};
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
    /// Something that is waited for is there, or will not come.
    pub(super) settled: Condvar,
    pub(super) counts: Counts,
}

pub(super) struct State {
    free: BinaryHeap<Reverse<u32>>,
    /// Holders of each page that exists; 0: free or retained.
    pub(super) holders: Vec<u32>,
    pub(super) parts: PageParts,
    pub(super) budget: PageBudget,
    pub(super) index: PrefixIndex,
    pub(super) retained: Retained,
    pub(super) leads: Leads,
    pub(super) states: States,
    /// [`Counts::evicted`].
    n_evicted: Arc<AtomicU64>,
    /// The positions of each page that steps have computed, a bit for each, where [`PagePool::marks`].
    pub(super) by_steps: Vec<u64>,
}

/// What becomes of a page that one of its holders wants to write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    /// It is that holder's alone, and not to be found any more.
    Own,
    /// Others hold it.
    Shared,
    /// Nobody else holds it, but others may want to: better a copy, if there is memory.
    Found,
}

impl PagePool {
    /// `charge` is zero and grows with the pages in use, which take `cache_bytes` at most, those of them that are retained
    /// `retained_bytes`, checkpoints of states `checkpoint_bytes`; `pools` is the engine's.
    pub(in crate::engine) fn new(
        loaded: Arc<dyn LoadedModel>,
        charge: Charge,
        cache_bytes: Option<u64>,
        (retained_bytes, checkpoint_bytes): (u64, u64),
        pools: &Arc<Pools>,
    ) -> Result<Arc<PagePool>> {
        let page_bytes = loaded.plan().kv_bytes_per_token * PAGE_TOKENS as u64;
        let budget = PageBudget::new(page_bytes, charge, cache_bytes);
        let classes = loaded.cache_classes()?;
        let parts = PageParts::new(classes.clone(), page_bytes);
        let steps_below = loaded.steps_below();
        let is_computed_again =
            loaded.plan().state_bytes > 0 || (0..classes.n()).any(|class| classes.window(class).is_some());
        let marks = steps_below > 0 && is_computed_again;
        let retained = Retained::new(retained_bytes);
        let counts = Counts::new(budget.counter(), retained.counter());
        let state = State {
            free: BinaryHeap::new(),
            holders: Vec::new(),
            parts,
            budget,
            index: PrefixIndex::default(),
            retained,
            leads: Leads::default(),
            states: States::new(loaded.plan().state_bytes, checkpoint_bytes),
            n_evicted: Arc::clone(&counts.evicted),
            by_steps: Vec::new(),
        };
        let pool = Arc::new(PagePool {
            loaded,
            classes,
            steps_below,
            marks,
            pools: Arc::clone(pools),
            state: Mutex::new(state),
            settled: Condvar::new(),
            counts,
        });
        let as_spare: Arc<dyn Spare> = Arc::clone(&pool) as _;
        pools.add(Arc::downgrade(&as_spare))?;
        Ok(pool)
    }

    pub(in crate::engine) fn facts(&self) -> CacheFacts {
        let state = self.lock();
        CacheFacts {
            n_pages_retained: state.retained.n(),
            retained_bytes: state.retained.bytes(),
            n_tokens_saved: self.counts.saved.load(Ordering::Relaxed),
            n_pages_evicted: self.counts.evicted.load(Ordering::Relaxed),
            n_states: state.states.n_held() as u64,
            n_checkpoints: state.states.n_checkpoints() as u64,
            checkpoint_limit_bytes: state.states.limit_bytes(),
            ..state.budget.facts(state.spare_bytes())
        }
    }

    /// How many retained pages have been given up since the last time that this was asked.
    pub(in crate::engine) fn newly_evicted(&self) -> u64 {
        self.counts.newly_evicted()
    }

    /// Its counts; waits for nobody.
    pub(in crate::engine) fn counts(&self) -> CacheCounts {
        self.counts.now()
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
        let mut end = None;
        // From the last one on: of those that are retained it is to go first.
        for (i, &page) in pages.iter().enumerate().rev() {
            state.parts.unwant(page, first + i, wanted);
            let holders = &mut state.holders[page as usize];
            *holders -= 1;
            if *holders == 0 {
                state.leave(&*self.loaded, page, first + i, &mut end);
            }
        }
        state.parts.settle(&*self.loaded);
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

    /// What becomes of a page that one of its holders wants to write; `copies`: it would rather write a copy than one that others
    /// may want to find.
    pub(super) fn writes(&self, page: u32, copies: bool) -> Writes {
        let mut state = self.lock();
        if state.holders[page as usize] > 1 {
            return Writes::Shared;
        }
        if copies && state.retained.may_have(state.bytes_of(page)) && state.index.is_only(page) {
            return Writes::Found;
        }
        state.index.forget(page);
        state.drop_checkpoint(&*self.loaded, page);
        Writes::Own
    }
}

impl Spare for PagePool {
    fn spare_bytes(&self) -> u64 {
        self.lock().spare_bytes()
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
        let exist = self.holders.len();
        let mut missing = n.saturating_sub(self.free.len());
        while let Err(error) = self.make_room(loaded, missing, indices.clone(), wanted) {
            // Pages that there are already, and nobody holds, do as well where the machine gives no more.
            let is_short = matches!(error, Error::OutOfMemory { .. });
            if !is_short || (0..missing).filter(|_| self.evict(loaded).is_some()).count() == 0 {
                self.budget.give(n, bytes);
                // Of one class there may be what another was refused.
                self.parts.settle(loaded);
                return Err(error);
            }
            missing = n.saturating_sub(self.free.len());
        }
        for page in exist..exist + missing {
            self.holders.push(0);
            self.by_steps.push(0);
            self.parts.push();
            self.states.push_page();
            self.retained.push();
            self.free.push(Reverse(page as u32));
        }
        for (index, Reverse(page)) in indices.zip(std::iter::from_fn(|| self.free.pop())) {
            self.holders[page as usize] = 1;
            self.parts.take(page, index, wanted);
            pages.push(page);
        }
        Ok(())
    }

    /// Makes room for so many pages more than exist, and for the parts of those that are taken for these indices.
    fn make_room(
        &mut self,
        loaded: &dyn LoadedModel,
        missing: usize,
        indices: impl Iterator<Item = usize> + Clone,
        wanted: &WantedOf,
    ) -> Result<()> {
        let exist = self.holders.len();
        // Giving back takes no memory: there is room in the heap for all.
        let all = (exist + missing).saturating_sub(self.free.len());
        reserve(&mut self.holders, missing)?;
        reserve_by::<Reverse<u32>>(all, || self.free.try_reserve(all))?;
        self.parts.reserve(missing)?;
        self.states.reserve_pages(missing)?;
        reserve(&mut self.by_steps, missing)?;
        self.retained.reserve(missing)?;
        if missing > 0 {
            loaded.reserve_pages(exist + missing)?;
        }
        loaded.reserve_parts(&self.parts.n_with(indices, wanted))
    }

    /// A page's last holder has let go of it, at this index of a list: it is retained if others may find it, and free if not. `end` is
    /// what those read who go on behind the last page of the list that is retained.
    fn leave(&mut self, loaded: &dyn LoadedModel, page: u32, index: usize, end: &mut Option<WantedOf>) {
        let bytes = self.bytes_of(page);
        if !self.retained.may_have(bytes) || !self.index.is_only(page) {
            self.free_page(loaded, page);
            return;
        }
        while !self.retained.has_room(bytes) && self.evict(loaded).is_some() {}
        self.retained.add(page, bytes);
        let end = end.get_or_insert_with(|| wanted_behind(&self.parts.classes, (index + 1) * PAGE_TOKENS));
        self.parts.keep(page, index, end);
    }

    /// One more holder for a page that is held or retained.
    pub(super) fn hold(&mut self, page: u32) {
        self.retained.remove(page, self.bytes_of(page));
        self.holders[page as usize] += 1;
    }

    /// A page that nobody holds becomes free; its bytes.
    pub(super) fn free_page(&mut self, loaded: &dyn LoadedModel, page: u32) -> u64 {
        self.retained.remove(page, self.bytes_of(page));
        let of_state = self.drop_checkpoint(loaded, page);
        self.index.forget(page);
        loaded.release_page(page);
        self.free.push(Reverse(page));
        let bytes = self.parts.free(page);
        self.budget.give(1, bytes);
        bytes + of_state
    }

    /// Bytes of a page's parts, and of its checkpoint.
    fn bytes_of(&self, page: u32) -> u64 {
        self.parts.bytes_of(page) + self.states.bytes_of(page)
    }

    /// Frees the retained page that goes first; its bytes.
    fn evict(&mut self, loaded: &dyn LoadedModel) -> Option<u64> {
        let page = self.retained.oldest()?;
        self.n_evicted.fetch_add(1, Ordering::Relaxed);
        Some(self.free_page(loaded, page))
    }

    /// Bytes that are given back when memory is short.
    fn spare_bytes(&self) -> u64 {
        // Nobody wants the other parts of retained pages, so that they have been counted.
        self.parts.spare_bytes() + self.retained.n() * self.parts.fixed_bytes() + self.states.spare_bytes()
    }

    /// Counts bytes of so many pages more; what is spare goes for them if that is enough. Fails and changes nothing.
    pub(super) fn charge(&mut self, loaded: &dyn LoadedModel, n_pages: usize, bytes: u64) -> Result<()> {
        loop {
            let (lacks, spare) = (self.budget.lacks(bytes), self.spare_bytes());
            let taken = self.budget.take(n_pages, bytes, spare);
            // Other models may have taken what has just been given back.
            if taken.is_ok() || spare < lacks.max(1) || self.give_spare(loaded, lacks.max(1)) == 0 {
                return taken;
            }
        }
    }

    fn give_spare(&mut self, loaded: &dyn LoadedModel, bytes: u64) -> u64 {
        let mut gone = 0;
        while gone < bytes {
            let spare = self.drop_idle(loaded).or_else(|| self.drop_part(loaded, false));
            let spare = spare.or_else(|| self.evict(loaded)).or_else(|| self.drop_least(loaded));
            let Some(bytes) = spare.or_else(|| self.drop_part(loaded, true)) else {
                break;
            };
            gone += bytes;
        }
        self.parts.settle(loaded);
        gone
    }

    /// Takes the spare part away that goes first, or of those that go last; its bytes.
    fn drop_part(&mut self, loaded: &dyn LoadedModel, last: bool) -> Option<u64> {
        let (page, class, bytes) = self.parts.drop_spare(last)?;
        loaded.drop_part(page, class);
        self.retained.lose(page, bytes);
        self.budget.give(0, bytes);
        Some(bytes)
    }

    /// Takes a part away that nobody wants.
    pub(super) fn lose(&mut self, loaded: &dyn LoadedModel, page: u32, class: usize) {
        if let Some(bytes) = self.parts.lose(page, class) {
            loaded.drop_part(page, class);
            self.budget.give(0, bytes);
        }
    }
}
