//! Pages that sessions find by their tokens in place of computing them, those included that another is computing now.
//!
//! Invariant: who waits holds nothing that it did not hold before, and computes nothing that others could wait for.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::checkpoints::HeldState;
use super::leads::Awaited;
use super::pages::Pages;
use super::parts::wanted_behind;
use super::pool::{PagePool, State};
use super::prefix::PrefixKey;
use crate::alloc::reserve;
use crate::backend::PAGE_TOKENS;
use crate::error::Result;
use crate::model::MAX_CLASSES;

/// How often somebody who waits looks whether its own call has been cancelled, which no lock may tell it.
const LOOK: Duration = Duration::from_millis(4);

/// What becomes of a prompt whose beginning has been looked for.
pub(in crate::engine) enum Found {
    /// Somebody is computing more of it: to be looked for again when that is settled.
    Waits(Awaited),
    /// So many of its tokens were found, with the state behind them where the model has some; the rest is the session's to compute, and
    /// others may wait for it.
    Is { n_tokens: usize, lead: Option<Lead>, state: Option<HeldState> },
}

/// Pages that a call computes and others wait for.
pub(in crate::engine) struct Lead {
    pool: Arc<PagePool>,
    number: u64,
    /// The index of the first.
    first: usize,
    /// Their tokens, and what comes behind them.
    tokens: Vec<u32>,
}

impl Lead {
    /// Positions in front of `n_total` are in the cache now, on the pages of the session.
    pub(in crate::engine) fn passed(&self, pages: &Pages, n_total: usize) {
        // Of pages that move along nobody is to want what falls behind: it is what the next ones get.
        if pages.list.course.is_some() {
            return;
        }
        let n = (n_total / PAGE_TOKENS).saturating_sub(self.first).min(self.tokens.len() / PAGE_TOKENS);
        let Some(key) = &pages.list.key else { return };
        let mut state = self.pool.lock();
        state.publish(&self.pool, key, &pages.list.pages, self.first, &self.tokens[..n * PAGE_TOKENS]);
        let State { index, leads, .. } = &mut *state;
        index.leave_pending(self.number, leads.done(self.number, n));
        self.pool.settled.notify_all();
    }

    /// Whether the call is in its caller's code, for which nobody waits long.
    pub(in crate::engine) fn set_paused(&self, is_paused: bool) {
        self.pool.lock().leads.pause(self.number, is_paused);
    }

    /// The call runs code of its caller's, which might wait for those who wait for the call.
    pub(in crate::engine) fn pause<T>(&self, code: impl FnOnce() -> T) -> T {
        struct Paused<'a>(&'a Lead);
        impl Drop for Paused<'_> {
            fn drop(&mut self) {
                self.0.set_paused(false);
            }
        }
        self.set_paused(true);
        let _paused = Paused(self);
        code()
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        let nodes = state.leads.end(self.number);
        state.index.leave_pending(self.number, &nodes);
        self.pool.settled.notify_all();
    }
}

impl State {
    /// How many of the first of pages that follow on `n_held` whole ones can be shared: every class has what it reads behind
    /// them, and the sequence its state.
    pub(super) fn n_whole(&self, n_held: usize, found: &[u32]) -> usize {
        let n_classes = self.parts.classes.n();
        let mut runs = [0; MAX_CLASSES];
        let mut best = 0;
        for (i, &page) in found.iter().enumerate() {
            let n = n_held + i + 1;
            let mut whole = !self.states.are_there() || self.states.checkpoint(page).is_some();
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

    fn same_marks(&self, page: u32, other: u32) -> bool {
        self.by_steps[page as usize] == self.by_steps[other as usize]
    }

    /// Lets others find the pages of a list from this index on by their tokens, as far as these are whole.
    fn publish(&mut self, pool: &PagePool, key: &PrefixKey, pages: &[u32], first: usize, tokens: &[u32]) {
        let whole = tokens.as_chunks::<PAGE_TOKENS>().0;
        let n = pages.len().min(first + whole.len());
        // From the end, since most often only the last is new.
        let known = (0..n).rev().find(|i| self.index.node_of(pages[*i]).is_some()).map_or(0, |i| i + 1);
        if known < first || known == n {
            return;
        }
        let Some(mut parent) = self.index.behind_or_root(key, &pages[..known]) else { return };
        for (page, tokens) in pages[known..n].iter().zip(&whole[known - first..]) {
            // Nor as far as others that were computed in another way are found in its place: a beginning is of one or of the other, so that
            // what is computed again on it is what it was.
            if pool.marks && self.index.known(parent, tokens).is_some_and(|known| !self.same_marks(known, *page)) {
                return;
            }
            let Some(node) = self.index.enter(parent, tokens, *page) else { return };
            // Where somebody holds what one has that nobody holds, that one is not needed any more.
            if let Some(twin) = self.index.pages(node).iter().copied().find(|page| self.retained.has(*page)) {
                self.move_checkpoint(twin, *page);
                self.free_page(&*pool.loaded, twin);
            }
            parent = node;
        }
    }

    /// Enters what a session is going to compute behind `pages`, as far as that is whole pages of these tokens. `None`: there is nothing to be waited
    /// for, or no memory to say so.
    fn lead(&mut self, pool: &Arc<PagePool>, key: &PrefixKey, pages: &[u32], tokens: Vec<u32>) -> Option<Lead> {
        let whole = tokens.as_chunks::<PAGE_TOKENS>().0;
        let mut nodes = Vec::new();
        reserve(&mut nodes, whole.len()).ok()?;
        let number = self.leads.next()?;
        let parent = self.index.behind_or_root(key, pages)?;
        if self.index.enter_pending(number, parent, whole, &mut nodes) == 0 {
            return None;
        }
        self.leads.begin(number, nodes);
        Some(Lead { pool: Arc::clone(pool), number, first: pages.len(), tokens })
    }
}

impl Pages {
    /// Looks for the beginning of `tokens`, which are to follow on the session's `held` ones. With `takes`, pages of others that hold
    /// it become this session's, too: whole ones, and not all of `tokens`, where the session holds whole pages; behind the last of
    /// them every layer has its window, and the sequence its state. `shares`: it waits for what others compute, but not for what it has given up of `awaited`, and others for it.
    pub(in crate::engine) fn look_for(
        &mut self,
        held: &[u32],
        tokens: &[u32],
        (takes, shares): (bool, bool),
        awaited: Option<&Awaited>,
    ) -> Result<Found> {
        let (begun, behind) = (held.len() / PAGE_TOKENS, &held[held.len() / PAGE_TOKENS * PAGE_TOKENS..]);
        let most = if takes && behind.is_empty() { tokens.len().saturating_sub(1) / PAGE_TOKENS } else { 0 };
        // One token alone is there before anybody could have waited for it.
        let leads = shares && tokens.len() > 1 && behind.len() + tokens.len() >= PAGE_TOKENS;
        let Some(key) = self.list.key.as_ref().filter(|_| most > 0 || leads).cloned() else {
            return Ok(Found::Is { n_tokens: 0, lead: None, state: None });
        };
        let mut ahead = Vec::new();
        if leads {
            reserve(&mut ahead, behind.len() + tokens.len())?;
            ahead.extend_from_slice(behind);
            ahead.extend_from_slice(tokens);
        }
        let list = self.own(self.list.pages.len(), most)?;
        let pool = Arc::clone(&list.pool);
        let mut state = pool.lock();
        let mut n = 0;
        if most > 0 {
            let begins = &tokens[..most * PAGE_TOKENS];
            let given_up = awaited.and_then(Awaited::given_up);
            let is_waited_for = |lead| shares && Some(lead) != given_up;
            if let Some(pending) = state.index.find_pending(&key, &list.pages, begins, &is_waited_for) {
                return Ok(Found::Waits(Awaited::new(pending, awaited)));
            }
            let whole = |page| state.parts.is_whole(page);
            let mut found = state.index.find(&key, &list.pages, begins, &whole);
            n = state.n_whole(begun, &found);
            found.truncate(n);
            let behind = wanted_behind(&pool.classes, (begun + n) * PAGE_TOKENS);
            for (wanted, behind) in list.wanted.iter_mut().zip(behind) {
                wanted.gap = if behind.from > begun { (begun, behind.from) } else { (0, 0) };
            }
            for (i, page) in found.iter().enumerate() {
                state.hold(*page);
                state.parts.want(*page, begun + i, &list.wanted);
            }
            list.pages.extend_from_slice(&found);
        }
        ahead.drain(..if leads { n * PAGE_TOKENS } else { 0 });
        let pages = &list.pages[..begun + n];
        let lead = if ahead.len() < PAGE_TOKENS { None } else { state.lead(&pool, &key, pages, ahead) };
        let behind = if n > 0 { pages.last().and_then(|page| state.states.checkpoint(*page)) } else { None };
        let state = behind.map(|number| HeldState::of(&pool, &mut state, number));
        Ok(Found::Is { n_tokens: n * PAGE_TOKENS, lead, state })
    }

    /// Whether somebody has, or computes, the first page of `tokens` behind this session's first `begun` ones.
    pub(in crate::engine) fn is_known(&self, begun: usize, tokens: &[u32]) -> bool {
        let (Some(key), Some(pages)) = (&self.list.key, self.list.pages.get(..begun)) else { return false };
        let tokens = &tokens[..PAGE_TOKENS.min(tokens.len())];
        let state = self.list.pool.lock();
        !state.index.find(key, pages, tokens, &|_| true).is_empty()
            || state.index.find_pending(key, pages, tokens, &|_| true).is_some()
    }

    /// Lets others find the pages by their tokens, which are all that the session holds.
    pub(in crate::engine) fn publish(&self, tokens: &[u32]) {
        if let Some(key) = &self.list.key {
            let pool = &self.list.pool;
            pool.lock().publish(pool, key, &self.list.pages, 0, tokens);
        }
    }

    /// Counts tokens that were taken from others and have been of use.
    pub(in crate::engine) fn saved(&self, n_tokens: usize) {
        self.list.pool.counts.saved.fetch_add(n_tokens as u64, Ordering::Relaxed);
    }
}

impl PagePool {
    /// Whether nobody needs to wait for it any more.
    pub(in crate::engine) fn is_settled(&self, awaited: &mut Awaited) -> bool {
        self.lock().leads.is_settled(awaited)
    }

    /// Waits until one of them is settled, and no longer than `most` and than a caller may leave its own cancel unseen. Whoever calls it
    /// leads nothing.
    pub(in crate::engine) fn wait<'a>(&self, most: Duration, mut awaited: impl Iterator<Item = &'a mut Awaited>) {
        let state = self.lock();
        if !awaited.any(|awaited| state.leads.is_settled(awaited)) {
            drop(self.settled.wait_timeout(state, LOOK.min(most)).unwrap_or_else(PoisonError::into_inner));
        }
    }
}
