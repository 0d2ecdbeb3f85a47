//! Which positions steps have computed, and which a prompt's passes, where their bits differ: what windows have given back is computed
//! again as it was.
//!
//! A page has a bit for each position, set where a step has computed it; pages that hold the same have the same. They are kept only
//! where something can go ([`PagePool::marks`]); elsewhere everything counts as a prompt's.

use std::ops::Range;

use super::pages::Pages;
use super::pool::PagePool;
use crate::backend::PAGE_TOKENS;

/// The bits of a page's positions.
fn bits(positions: Range<usize>) -> u64 {
    positions.fold(0, |bits, position| bits | 1 << (position % PAGE_TOKENS))
}

const _: () = assert!(PAGE_TOKENS == u64::BITS as usize);

impl PagePool {
    /// A page has been made to hold what another holds.
    pub(super) fn copied(&self, from: u32, to: u32) {
        if self.marks {
            let mut state = self.lock();
            state.by_steps[to as usize] = state.by_steps[from as usize];
        }
    }
}

impl Pages {
    /// These positions have been computed, by steps or as a prompt's. Their pages are this list's own.
    pub(in crate::engine) fn mark(&self, positions: Range<usize>, by_steps: bool) {
        if !self.list.pool.marks || positions.is_empty() {
            return;
        }
        let mut state = self.list.pool.lock();
        for index in positions.start / PAGE_TOKENS..positions.end.div_ceil(PAGE_TOKENS) {
            let first = index * PAGE_TOKENS;
            let those = bits(positions.start.max(first)..positions.end.min(first + PAGE_TOKENS));
            let of_page = &mut state.by_steps[self.list.pages[index] as usize];
            *of_page = if by_steps { *of_page | those } else { *of_page & !those };
        }
    }

    /// Whether steps have computed this position, and the first behind it, `end` at most, that was computed the other way.
    pub(in crate::engine) fn run_of(&self, start: usize, end: usize) -> (bool, usize) {
        if !self.list.pool.marks {
            return (false, end);
        }
        let state = self.list.pool.lock();
        let by_steps = |position: usize| {
            let page = self.list.pages[position / PAGE_TOKENS];
            state.by_steps[page as usize] >> (position % PAGE_TOKENS) & 1 == 1
        };
        let first = by_steps(start);
        (first, (start + 1..end).find(|position| by_steps(*position) != first).unwrap_or(end))
    }

    /// The bits of each page of the first `n_tokens`, in order; none where they are not kept.
    pub(in crate::engine) fn marks(&self, n_tokens: usize) -> impl Iterator<Item = u64> {
        let pages = if self.list.pool.marks { &*self.list.pages } else { &[] };
        pages.iter().enumerate().map(move |(index, page)| {
            let first = index * PAGE_TOKENS;
            self.list.pool.lock().by_steps[*page as usize] & bits(first..n_tokens.min(first + PAGE_TOKENS))
        })
    }

    /// The pages' bits become these, one for each. Nobody else holds them.
    pub(in crate::engine) fn set_marks(&self, marks: impl Iterator<Item = u64>) {
        let mut state = self.list.pool.lock();
        for (page, bits) in self.list.pages.iter().zip(marks) {
            state.by_steps[*page as usize] = bits;
        }
    }
}
