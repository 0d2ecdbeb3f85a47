//! The states of a call's passes: each reads one and makes another, and some of those that are made become checkpoints.
//!
//! Invariants: what passes need is taken before the first, and none of them fails for want of a state; the session's own state is
//! read and never written, so that a call that fails leaves it as it was.

use std::sync::Arc;

use super::checkpoints::HeldState;
use super::pages::Pages;
use super::pool::PagePool;
use crate::backend::{PAGE_TOKENS, StateUse};
use crate::error::Result;

/// See the module.
pub(in crate::engine) struct StateRun {
    pool: Arc<PagePool>,
    /// That behind the last pass that has ended; `None`: of no tokens.
    now: Option<HeldState>,
    /// What the pass under way makes, and the tokens in front of which that is.
    next: Option<(HeldState, usize)>,
    spare: Vec<HeldState>,
    /// Tokens that the sequence has in the end.
    n_tokens: usize,
    /// See [`is_wanted`].
    reach: usize,
}

/// Whether there is to be a checkpoint behind `at` pages of a sequence of `end`: at distances from the end that double, two to a doubling
/// with a reach of 3. With the least at each distance d at a multiple of the largest power of two that is not above d, truncating d pages computes
/// no more than as many again.
fn is_wanted(at: usize, end: usize, reach: usize) -> bool {
    at > 0 && at <= end && (end - at) >> at.trailing_zeros() < reach
}

/// The largest reach with which a sequence of `end` pages has no more checkpoints than these, but for the least.
fn reach(end: usize, most: usize) -> usize {
    if end <= most {
        return usize::MAX;
    }
    let fits = |reach: &usize| (1..=end).filter(|at| is_wanted(*at, end, *reach)).take(most + 1).count() <= most;
    // With the least there are as many as `end` has ones in base two: more may come than stay.
    [64, 32, 16, 8, 6, 4, 3, 2].into_iter().find(fits).unwrap_or(usize::from(most > 0))
}

impl StateRun {
    /// The states for passes from a state on to where the sequence has so many tokens; `None` where the model has no states.
    /// `is_step`: there is one pass, of one token. Fails and changes nothing.
    pub(in crate::engine) fn new(
        pool: &Arc<PagePool>,
        from: Option<HeldState>,
        n_tokens: usize,
        is_step: bool,
    ) -> Result<Option<StateRun>> {
        let most = {
            let states = &pool.lock().states;
            states.are_there().then(|| states.most())
        };
        let Some(most) = most else { return Ok(None) };
        let mut spare = Vec::new();
        crate::alloc::reserve(&mut spare, 4)?;
        for _ in 0..if is_step { 1 } else { 2 } {
            spare.push(pool.take_state()?);
        }
        let reach = reach(n_tokens / PAGE_TOKENS, most);
        Ok(Some(StateRun { pool: Arc::clone(pool), now: from, next: None, spare, n_tokens, reach }))
    }

    /// The most tokens of a pass that begins at this position.
    pub(in crate::engine) fn most(&self, start: usize) -> usize {
        let end = self.n_tokens / PAGE_TOKENS;
        let next = (start / PAGE_TOKENS + 1..=end).find(|at| is_wanted(*at, end, self.reach));
        next.map_or(usize::MAX, |at| at * PAGE_TOKENS - start)
    }

    /// The states of the next pass, behind which the sequence has so many tokens; what came before has ended well.
    pub(in crate::engine) fn begin(&mut self, pages: &Pages, n_tokens: usize) -> Result<StateUse> {
        self.ended(pages);
        let to = match self.spare.pop() {
            Some(spare) => spare,
            None => self.pool.take_state()?,
        };
        let used = StateUse { from: self.now.as_ref().map(HeldState::number), to: to.number() };
        self.next = Some((to, n_tokens));
        Ok(used)
    }

    /// The pass under way, if there is one, has ended well: others may find what it has made.
    pub(in crate::engine) fn ended(&mut self, pages: &Pages) {
        let Some((made, n_tokens)) = self.next.take() else { return };
        if let Some(old) = self.now.take().filter(HeldState::is_own) {
            self.spare.push(old);
        }
        let (at, end) = (n_tokens / PAGE_TOKENS, self.n_tokens / PAGE_TOKENS);
        if n_tokens.is_multiple_of(PAGE_TOKENS) && is_wanted(at, end, self.reach) {
            let is_last = n_tokens == self.n_tokens;
            let extra = if is_last { None } else { self.pool.take_state().ok() };
            // One that is refused stays the call's own, so that no other is wanted.
            if (is_last || extra.is_some()) && pages.keep_state(at, end, &made) {
                self.spare.extend(extra);
            }
        }
        self.now = Some(made);
    }

    /// All passes have ended well: the state behind the last.
    pub(in crate::engine) fn end(mut self, pages: &Pages) -> Option<HeldState> {
        self.ended(pages);
        self.now.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncating_computes_no_more_again_than_it_takes_away() {
        for end in [1, 2, 7, 64, 100, 128, 129, 1000] {
            let kept: Vec<usize> = (0..=end).filter(|at| *at == 0 || is_wanted(*at, end, 3)).collect();
            for to in 0..end {
                let from = kept.iter().rev().find(|at| **at <= to).unwrap();
                assert!(to - from <= end - to, "from {end} to {to} from {from}");
            }
            let doublings = end.ilog2() as usize + 1;
            assert!(kept.len() <= 2 * doublings + 2, "{} of {end} pages", kept.len());
        }
    }

    #[test]
    fn as_many_are_wanted_as_there_may_be() {
        for end in [1, 10, 128, 1000] {
            for most in [0, 1, 3, 8, 20, 5000] {
                let reach = reach(end, most);
                let n = (1..=end).filter(|at| is_wanted(*at, end, reach)).count();
                let ones = end.count_ones() as usize;
                assert!((n <= most || n == ones) && (n > 0 || most == 0), "{n} of {most}, {end} pages");
                assert!(most < end || n == end);
            }
        }
    }
}
