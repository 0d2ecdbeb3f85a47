//! Tokens appended to a session: room is made, passes are run, and only then does the session hold them.
//!
//! Invariant: what fails or is cancelled leaves the session's tokens and logits as they were.

use std::sync::{Arc, Mutex};

use super::cache::Pages;
use super::schedule::{self, Part};
use super::session::{Session, State, copied};
use super::slot::SharedSlot;
use super::tap::Tap;
use crate::alloc::room;
use crate::backend::{PAGE_TOKENS, TapEvent, TapObserver, Want};
use crate::error::{Error, Result};

/// A call's passes that are under way.
pub(super) struct Appending {
    /// Receives the logits, and becomes the session's.
    slot: SharedSlot,
    /// So many of the tokens are in the cache already.
    pub(super) n_known: usize,
}

/// A pass as a session's tap sees it.
struct Watch<'a> {
    session: &'a Session,
    tap: &'a mut Tap,
    /// Whether the tap has not stopped the pass.
    goes_on: bool,
}

impl TapObserver for Watch<'_> {
    fn wants(&self, name: &str, layer: i32) -> bool {
        self.tap.wants(name, layer)
    }

    fn show(&mut self, event: &TapEvent<'_>) {
        if self.goes_on && !self.tap.show(event) {
            self.goes_on = false;
            // The backend looks at nothing else.
            self.session.cancel();
        }
    }
}

impl Session {
    /// [`Self::prefill`] for a caller that has the lock.
    pub(super) fn append(&self, state: &mut State, tokens: &[u32]) -> Result<()> {
        let mut appending = self.begin(state, tokens)?;
        let outcome = match state.tap.take() {
            None => self.forward(state, &appending, tokens),
            Some(mut tap) => {
                let outcome = self.forward_tapped(state, &mut appending, tokens, &mut tap);
                state.tap = Some(tap);
                outcome
            }
        };
        self.end(state, appending, tokens, outcome)
    }

    /// Checks the tokens and makes room for them; fails and changes nothing.
    pub(super) fn begin(&self, state: &mut State, tokens: &[u32]) -> Result<Appending> {
        let n_tokens = state.tokens.len();
        if tokens.is_empty() {
            return Err(Error::Argument { name: "n_ids", found: "0".to_owned(), expected: "at least 1".to_owned() });
        }
        let n_vocab = self.n_vocab();
        if let Some((index, token)) = tokens.iter().enumerate().find(|(_, t)| **t as usize >= n_vocab) {
            return Err(Error::TokenOutOfRange { index, token: *token, n_vocab });
        }
        if tokens.len() > self.n_ctx() - n_tokens {
            return Err(Error::ContextFull { n_tokens, n_new: tokens.len(), n_ctx: self.n_ctx() });
        }
        state.tokens_for(tokens.len())?;
        let slot = state.own_slot(&*self.model().inner.loaded, self.n_ctx())?;
        let whole = n_tokens.is_multiple_of(PAGE_TOKENS);
        // A tap wants to see every token.
        let reuse = state.reuse_prefix && whole && state.tap.is_none();
        let n_known = if reuse { state.pages.adopt(tokens)? } else { 0 };
        if let Err(error) = state.pages.prepare(n_tokens + n_known, n_tokens + tokens.len()) {
            state.pages.shrink(n_tokens)?;
            return Err(error);
        }
        Ok(Appending { slot, n_known })
    }

    /// What comes of the passes for the tokens of [`Self::begin`].
    pub(super) fn end(&self, state: &mut State, run: Appending, tokens: &[u32], outcome: Result<()>) -> Result<()> {
        match outcome {
            Ok(()) => {
                state.slot = run.slot;
                let n_tokens = state.tokens.len();
                state.tokens_for(tokens.len())?.extend_from_slice(tokens);
                state.has_logits = true;
                state.n_reused += run.n_known;
                state.pages.mark(n_tokens + run.n_known..state.tokens.len(), self.by_steps(tokens.len()));
                state.pages.settle(state.tokens.len())?;
                if n_tokens / PAGE_TOKENS != state.tokens.len() / PAGE_TOKENS {
                    state.pages.publish(&state.tokens);
                }
                Ok(())
            }
            Err(error) => {
                state.pages.shrink(state.tokens.len())?;
                if matches!(error, Error::Cancelled) {
                    self.take_cancel();
                }
                Err(error)
            }
        }
    }

    fn forward(&self, state: &mut State, run: &Appending, tokens: &[u32]) -> Result<()> {
        let mut done = run.n_known;
        while done < tokens.len() {
            if self.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let n = self.pass_len(state, done, tokens.len(), self.model().inner.line.bound());
            let part = self.part(state, run, tokens, done, n)?;
            self.model().inner.run(vec![part]).pop().unwrap_or(Ok(()))?;
            done += n;
        }
        Ok(())
    }

    /// [`Self::forward`] with the activations shown. The logits come into a new slot: the tap may stop the pass when
    /// they are made already.
    fn forward_tapped(&self, state: &mut State, run: &mut Appending, tokens: &[u32], tap: &mut Tap) -> Result<()> {
        let loaded = &*self.model().inner.loaded;
        run.slot = Arc::new(Mutex::new(loaded.create_slot_for(self.n_ctx())?));
        let line = &self.model().inner.line;
        let mut done = run.n_known;
        while done < tokens.len() {
            if self.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let n = self.pass_len(state, done, tokens.len(), line.steady_bound());
            let part = self.part(state, run, tokens, done, n)?;
            done += n;
            let mut watch = Watch { session: self, tap, goes_on: true };
            schedule::run_tapped(loaded, &part, &mut watch)?;
            // A cancel from inside the last event, or from another thread meanwhile: nothing of the pass is kept yet.
            if !watch.goes_on || self.is_cancelled() {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }

    /// How many of `n` new tokens the next pass takes, where `done` need none any more.
    fn pass_len(&self, state: &State, done: usize, n: usize, bound: usize) -> usize {
        let most = state.pages.pass_tokens().min(bound);
        self.model().inner.line.cut(state.tokens.len() + done, n - done, most)
    }

    /// The next `n` of `tokens`, where `done` need no pass any more.
    pub(super) fn part(
        &self,
        state: &mut State,
        run: &Appending,
        tokens: &[u32],
        done: usize,
        n: usize,
    ) -> Result<Part> {
        let to = tokens.len().min(done + n);
        let start = state.tokens.len() + done;
        state.pages.advance(start)?;
        let n_pages = (start + to - done).div_ceil(PAGE_TOKENS);
        Ok(Part {
            tokens: copied(&tokens[done..to], 0)?,
            start,
            pages: copied(&state.pages.as_slice()[..n_pages], 0)?,
            slot: Arc::clone(&run.slot),
            // Only the last pass writes logits, so that a cancelled one leaves the old ones.
            want: if to == tokens.len() { Want::Last } else { Want::Nothing },
            is_step: tokens.len() == 1,
            by_steps: self.by_steps(tokens.len()),
            cancel: Arc::clone(&self.cancel),
        })
    }

    /// Whether a call of so many tokens computes them as steps do. How many of them are in the cache already is no matter: what a
    /// session finds there would have been computed with the others.
    pub(super) fn by_steps(&self, n_tokens: usize) -> bool {
        n_tokens < self.model().inner.pool.steps_below
    }

    /// Pages that have what the token behind the first `n` of the session's reads, by passes over those in front of it. The
    /// session's own are as they were, whatever comes of it; no tap sees the passes.
    pub(super) fn computed_again(&self, state: &mut State, n: usize) -> Result<Pages> {
        // Truncating is for when there is no memory, this is not.
        room()?;
        let slot = state.own_slot(&*self.model().inner.loaded, self.n_ctx())?;
        let (mut pages, from) = state.pages.again(n)?;
        let line = &self.model().inner.line;
        let mut run = || {
            let mut start = from;
            while start < n {
                if self.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                let most = pages.pass_tokens().min(line.bound());
                let (by_steps, to) = pages.run_of(start, start + line.cut(start, n - start, most));
                pages.advance(start)?;
                let part = Part {
                    tokens: copied(&state.tokens[start..to], 0)?,
                    start,
                    pages: copied(&pages.as_slice()[..to.div_ceil(PAGE_TOKENS)], 0)?,
                    slot: Arc::clone(&slot),
                    want: Want::Nothing,
                    is_step: false,
                    by_steps,
                    cancel: Arc::clone(&self.cancel),
                };
                self.model().inner.run(vec![part]).pop().unwrap_or(Ok(()))?;
                start = to;
            }
            pages.finish(n)
        };
        match run() {
            Ok(()) => Ok(pages),
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
}
