//! States taken, held, kept as checkpoints and given back.
//!
//! Invariants: a state that somebody holds or could go on from is never written; a checkpoint is the state behind the 64 tokens of its
//! page, and goes when the page is written or freed; states that nobody holds are spare, checkpoints among them, of which there are
//! never more than their budget has.

use std::sync::Arc;

use super::pages::Pages;
use super::pool::{PagePool, State};
use super::states::{Known, NONE};
use crate::alloc::reserve;
use crate::backend::LoadedModel;
use crate::error::Result;

impl State {
    /// Takes a state that nobody uses, with one holder. Fails and changes nothing but what is spare.
    fn take_state(&mut self, loaded: &dyn LoadedModel) -> Result<u32> {
        if let Some(state) = self.states.idle.pop() {
            return Ok(self.begin_state(state));
        }
        let bytes = self.states.bytes;
        self.charge(loaded, 0, bytes)?;
        let added = self.add_state(loaded);
        if added.is_err() {
            self.budget.give(0, bytes);
        }
        added.map(|state| self.begin_state(state))
    }

    /// A number with memory, which has been counted.
    fn add_state(&mut self, loaded: &dyn LoadedModel) -> Result<u32> {
        let states = &mut self.states;
        if states.free.is_empty() {
            // Giving back takes no memory: there is room for all.
            let all = states.all.len() + 1;
            reserve(&mut states.all, 1)?;
            reserve(&mut states.free, all)?;
            reserve(&mut states.idle, all)?;
            loaded.reserve_states(all, states.in_use() + 1)?;
            states.all.push(Known { holders: 0, page: NONE, at: 0, end: 0, used: 0 });
            return Ok(all as u32 - 1);
        }
        loaded.reserve_states(states.all.len(), states.in_use() + 1)?;
        Ok(states.free.pop().unwrap_or(0))
    }

    fn begin_state(&mut self, state: u32) -> u32 {
        if let Some(known) = self.states.known(state) {
            *known = Known { holders: 1, page: NONE, at: 0, end: 0, used: 0 };
            self.states.n_held += 1;
        }
        state
    }

    /// A holder lets go of a state. As many as are held may stay idle: a step writes one and lets go of another.
    fn let_go_state(&mut self, loaded: &dyn LoadedModel, state: u32) {
        let Some(known) = self.states.known(state) else { return };
        known.holders -= 1;
        if known.holders > 0 {
            return;
        }
        let is_checkpoint = known.page != NONE;
        self.states.n_held -= 1;
        if is_checkpoint {
            self.states.n_unheld += 1;
        } else {
            self.states.idle.push(state);
        }
        while self.states.idle.len() > self.states.n_held && self.drop_idle(loaded).is_some() {}
    }

    /// Gives the memory of an idle state back; its bytes.
    pub(super) fn drop_idle(&mut self, loaded: &dyn LoadedModel) -> Option<u64> {
        let state = self.states.idle.pop()?;
        Some(self.free_state(loaded, state))
    }

    fn free_state(&mut self, loaded: &dyn LoadedModel, state: u32) -> u64 {
        self.states.free.push(state);
        loaded.release_state(state, self.states.in_use());
        self.budget.give(0, self.states.bytes);
        self.states.bytes
    }

    /// A page has no checkpoint any more; the bytes that are free then.
    pub(super) fn drop_checkpoint(&mut self, loaded: &dyn LoadedModel, page: u32) -> u64 {
        let Some(state) = self.states.checkpoint(page) else { return 0 };
        self.states.of_page[page as usize] = NONE;
        self.states.n_checkpoints -= 1;
        self.retained.lose(page, self.states.bytes);
        let Some(known) = self.states.known(state) else { return 0 };
        known.page = NONE;
        if known.holders > 0 {
            return 0;
        }
        self.states.n_unheld -= 1;
        self.free_state(loaded, state)
    }

    /// Gives up the checkpoint that is worth least; its bytes. `None`: there is none.
    pub(super) fn drop_least(&mut self, loaded: &dyn LoadedModel) -> Option<u64> {
        if self.states.n_unheld == 0 {
            return None;
        }
        let page = self.states.least_useful(0, true)?;
        Some(self.drop_checkpoint(loaded, page))
    }

    /// A state that is held becomes the checkpoint of the page `at - 1` of a list that is going to have `end` pages; whether it did.
    fn set_checkpoint(&mut self, loaded: &dyn LoadedModel, pages: &[u32], at: usize, end: usize, state: u32) -> bool {
        let (Some(&page), Ok(at), Ok(end)) = (pages.get(at.wrapping_sub(1)), u32::try_from(at), u32::try_from(end))
        else {
            return false;
        };
        self.states.clock += 1;
        let used = self.states.clock;
        for page in &pages[..at as usize - 1] {
            if let Some(known) = self.states.checkpoint(*page).and_then(|state| self.states.known(state)) {
                (known.end, known.used) = (end, used);
            }
        }
        if self.states.checkpoint(page).is_some() || self.states.most == 0 {
            return false;
        }
        while self.states.n_checkpoints >= self.states.most {
            let Some(least) = self.states.least_useful(Known::uselessness(at, end), false) else { return false };
            self.drop_checkpoint(loaded, least);
        }
        let Some(known) = self.states.known(state).filter(|known| known.page == NONE) else { return false };
        (known.page, known.at, known.end, known.used) = (page, at, end, used);
        self.states.of_page[page as usize] = state;
        self.states.n_checkpoints += 1;
        true
    }

    /// Another page holds what a page holds that is going to be freed: it gets its checkpoint.
    pub(super) fn move_checkpoint(&mut self, from: u32, to: u32) {
        let Some(state) = self.states.checkpoint(from).filter(|_| self.states.checkpoint(to).is_none()) else { return };
        self.retained.lose(from, self.states.bytes);
        (self.states.of_page[from as usize], self.states.of_page[to as usize]) = (NONE, state);
        if let Some(known) = self.states.known(state) {
            known.page = to;
        }
    }
}

/// A state that somebody holds.
pub(in crate::engine) struct HeldState {
    pool: Arc<PagePool>,
    number: u32,
}

impl HeldState {
    /// One more holder of a state that the pool's lock keeps there.
    pub(super) fn of(pool: &Arc<PagePool>, state: &mut State, number: u32) -> HeldState {
        state.states.hold(number);
        HeldState { pool: Arc::clone(pool), number }
    }

    /// Its number on the device.
    pub(in crate::engine) fn number(&self) -> u32 {
        self.number
    }

    /// Whether nobody else holds it, and it is no checkpoint.
    pub(super) fn is_own(&self) -> bool {
        let state = self.pool.lock();
        state.states.all.get(self.number as usize).is_some_and(|known| known.holders == 1 && known.page == NONE)
    }
}

impl Clone for HeldState {
    fn clone(&self) -> HeldState {
        HeldState::of(&self.pool, &mut self.pool.lock(), self.number)
    }
}

impl Drop for HeldState {
    fn drop(&mut self) {
        self.pool.lock().let_go_state(&*self.pool.loaded, self.number);
    }
}

impl PagePool {
    /// Whether the model's sequences have states.
    pub(in crate::engine) fn has_states(&self) -> bool {
        self.lock().states.are_there()
    }

    /// Whether parts of pages go when windows have passed them.
    pub(in crate::engine) fn has_windows(&self) -> bool {
        (0..self.classes.n()).any(|class| self.classes.window(class).is_some())
    }

    /// A state that nobody else uses. Fails and changes nothing but what is spare.
    pub(in crate::engine) fn take_state(self: &Arc<PagePool>) -> Result<HeldState> {
        let number = self.with_room(|state| state.take_state(&*self.loaded))?;
        Ok(HeldState { pool: Arc::clone(self), number })
    }
}

impl Pages {
    /// Makes a state the checkpoint behind the first `at` pages, of a list that is going to have `end`; whether it became one.
    pub(super) fn keep_state(&self, at: usize, end: usize, state: &HeldState) -> bool {
        let pool = &self.list.pool;
        pool.lock().set_checkpoint(&*pool.loaded, &self.list.pages, at, end, state.number)
    }

    /// The newest checkpoint behind at most so many of the pages, and how many those are; `None`: there is none.
    pub(in crate::engine) fn newest_state(&self, n_pages: usize) -> Option<(HeldState, usize)> {
        let pool = &self.list.pool;
        let mut state = pool.lock();
        let pages = self.list.pages.get(..n_pages)?;
        let at = pages.iter().rposition(|page| state.states.checkpoint(*page).is_some())?;
        let number = state.states.checkpoint(pages[at])?;
        Some((HeldState::of(pool, &mut state, number), at + 1))
    }

    /// Checkpoints on the list's pages.
    pub(in crate::engine) fn n_checkpoints(&self) -> usize {
        let state = self.list.pool.lock();
        self.list.pages.iter().filter(|page| state.states.checkpoint(**page).is_some()).count()
    }
}
