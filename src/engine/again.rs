//! What a session that is truncated has to compute again: what windows have left nothing of, and states behind the nearest checkpoint.
//!
//! Invariant: what fails or is cancelled leaves the session as it was.

use std::sync::Arc;
use std::time::Instant;

use super::cache::{HeldState, Pages, StateRun};
use super::schedule::Part;
use super::session::{Session, State, copied};
use super::slot::SharedSlot;
use crate::alloc::room;
use crate::backend::{PAGE_TOKENS, Want};
use crate::error::{Error, Result};

/// Passes over tokens that the session holds.
struct Again {
    pages: Pages,
    slot: SharedSlot,
    states: Option<StateRun>,
    /// The first token, and how many the session is to keep.
    from: usize,
    n: usize,
    /// Keys and values are all there.
    keeps_cache: bool,
}

impl Session {
    /// Takes a session's pages to its first `n` tokens, with the state behind them.
    pub(super) fn cut_pages(&self, state: &mut State, n: usize) -> Result<()> {
        let pool = &self.model().inner.pool;
        if !pool.has_states() || n == 0 {
            if !state.pages.cut(n)? {
                state.pages = self.computed_again(state, n)?.0;
            }
            state.behind = None;
            return Ok(());
        }
        let newest = state.pages.newest_state(n / PAGE_TOKENS);
        let there = newest.filter(|(_, at)| at * PAGE_TOKENS == n).map(|(state, _)| state);
        let behind = match there {
            Some(behind) if state.pages.cut(n)? => Some(behind),
            _ => {
                let (pages, behind) = self.computed_again(state, n)?;
                if pool.has_windows() {
                    state.pages = pages;
                } else {
                    drop(pages);
                    state.pages.cut(n)?;
                }
                behind
            }
        };
        state.behind = behind;
        Ok(())
    }

    /// Pages that have what the token behind the first `n` of the session's reads, and the state behind them, by passes over those in
    /// front of it. The session's own are as they were, whatever comes of it; no tap sees the passes.
    fn computed_again(&self, state: &mut State, n: usize) -> Result<(Pages, Option<HeldState>)> {
        // Truncating is for when there is no memory, this is not.
        room()?;
        let begun = Instant::now();
        let pool = &self.model().inner.pool;
        let slot = state.own_slot(&*self.model().inner.loaded, self.n_ctx())?;
        let keeps_cache = !pool.has_windows();
        let (pages, from) =
            if keeps_cache { (state.pages.fork(), None) } else { state.pages.again(n).map(|(p, n)| (p, Some(n)))? };
        let newest = pages.newest_state(from.map_or(n, |from| from) / PAGE_TOKENS);
        let (base, at) = newest.map_or((None, 0), |(base, at)| (Some(base), at * PAGE_TOKENS));
        let states = StateRun::new(pool, base, n, false)?;
        let mut again = Again { pages, slot, states, from: from.unwrap_or(at), n, keeps_cache };
        let outcome = self.run_again(state, &mut again);
        self.clocks.took(false, begun.elapsed());
        let Again { pages, states, .. } = again;
        match outcome {
            Ok(()) => {
                let behind = states.and_then(|states| states.end(&pages));
                Ok((pages, behind))
            }
            Err(error) => {
                drop(pages);
                state.pages.publish(&state.tokens);
                if matches!(error, Error::Cancelled) {
                    self.take_cancel();
                }
                Err(error)
            }
        }
    }

    fn run_again(&self, state: &State, again: &mut Again) -> Result<()> {
        let line = &self.model().inner.line;
        let (mut start, n) = (again.from, again.n);
        while start < n {
            if self.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let bound = again.states.as_ref().map_or(usize::MAX, |states| states.most(start)).min(line.bound());
            let most = line.cut(start, n - start, again.pages.pass_tokens().min(bound));
            // Steps one by one, of which others do not wait for more than a page's.
            let (by_steps, to) = again.pages.run_of(start, start + most);
            let to = if by_steps { to.min(start + PAGE_TOKENS) } else { to };
            again.pages.advance(start)?;
            let part = Part {
                tokens: copied(&state.tokens[start..to], 0)?,
                start,
                pages: copied(&again.pages.as_slice()[..to.div_ceil(PAGE_TOKENS)], 0)?,
                slot: Arc::clone(&again.slot),
                want: Want::Nothing,
                by_steps,
                state: again.states.as_mut().map(|states| states.begin(&again.pages, to)).transpose()?,
                keeps_cache: again.keeps_cache,
                is_step: false,
                cancel: Arc::clone(&self.cancel),
                clocks: Arc::clone(&self.clocks),
                since: Instant::now(),
            };
            self.model().inner.run(vec![part]).pop().unwrap_or(Ok(()))?;
            self.clocks.totals().recomputed(to - start);
            start = to;
        }
        if again.keeps_cache { Ok(()) } else { again.pages.finish(n) }
    }
}
