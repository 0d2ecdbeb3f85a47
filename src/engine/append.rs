//! Tokens appended to a session: room is made, passes are run, and only then does the session hold them.
//!
//! Invariant: what fails or is cancelled leaves the session's tokens and logits as they were.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::cache::{Awaited, Found, Lead, Pages, StateRun};
use super::schedule::Part;
use super::session::{Session, State, copied};
use super::slot::SharedSlot;
use super::tap::Tap;
use crate::backend::{PAGE_TOKENS, TapEvent, TapObserver, Want};
use crate::error::{Error, Result};

/// A call's passes that are under way.
pub(super) struct Appending {
    /// Receives the logits, and becomes the session's.
    slot: SharedSlot,
    /// So many of the tokens are in the cache already.
    pub(super) n_known: usize,
    /// Others wait for these pages.
    lead: Option<Lead>,
    /// Where the model has states.
    states: Option<StateRun>,
    /// When the call began.
    begun: Instant,
    /// Since when its next pass has been wanted; `None`: since its part is made.
    pub(super) since: Option<Instant>,
}

impl Appending {
    /// The most tokens of a pass over these pages that begins at this position.
    pub(super) fn most(&self, pages: &Pages, start: usize) -> usize {
        self.states.as_ref().map_or(usize::MAX, |states| states.most(start)).min(pages.pass_tokens())
    }

    /// Its next pass is wanted from now on, whenever its part is made.
    pub(super) fn wanted_now(self) -> Appending {
        Appending { since: Some(Instant::now()), ..self }
    }

    /// Whether the call is in its caller's code, for which nobody waits long.
    pub(super) fn pause(&self, is_paused: bool) {
        if let Some(lead) = &self.lead {
            lead.set_paused(is_paused);
        }
    }
}

/// What a call begins with.
pub(super) enum Begun {
    /// Another call is computing what these tokens begin with.
    Waits(Awaited),
    Runs(Appending),
}

/// Told before each pass how many of a call's tokens are in the cache; returns whether to go on.
pub(super) type Progress<'a> = &'a mut dyn FnMut(usize) -> bool;

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
    /// [`Self::prefill`] for a caller that has the lock; how many of the tokens were another session's. A `progress` that stops it is
    /// [`Error::Cancelled`].
    pub(super) fn append(&self, state: &mut State, tokens: &[u32], progress: Option<Progress<'_>>) -> Result<usize> {
        let mut awaited = None;
        let mut appending = loop {
            match self.begin(state, tokens, awaited.as_ref())? {
                Begun::Runs(appending) => break appending,
                Begun::Waits(found) => awaited = Some(self.wait(found)?),
            }
        };
        let n_known = appending.n_known;
        let outcome = match state.tap.take() {
            None => self.forward(state, &mut appending, tokens, progress),
            Some(mut tap) => {
                let outcome = self.forward_tapped(state, &mut appending, tokens, progress, &mut tap);
                state.tap = Some(tap);
                outcome
            }
        };
        self.end(state, appending, tokens, outcome)?;
        Ok(n_known)
    }

    /// Waits until what is awaited is settled, or the session is cancelled.
    fn wait(&self, mut awaited: Awaited) -> Result<Awaited> {
        let pool = &self.model().inner.pool;
        let _waiting = self.clocks.totals().waiting(1);
        while !pool.is_settled(&mut awaited) {
            if self.take_cancel() {
                return Err(Error::Cancelled);
            }
            pool.wait(Duration::MAX, std::iter::once(&mut awaited));
        }
        Ok(awaited)
    }

    /// Checks the tokens, finds what others have of them and makes room for the rest; fails and changes nothing. `awaited`: what has
    /// been waited for.
    pub(super) fn begin(&self, state: &mut State, tokens: &[u32], awaited: Option<&Awaited>) -> Result<Begun> {
        let begun = awaited.map_or_else(Instant::now, Awaited::since);
        let n_tokens = state.tokens.len();
        if tokens.is_empty() {
            return Err(Error::Argument { name: "n_ids", found: "0".to_owned(), expected: "at least 1".to_owned() });
        }
        self.check(tokens)?;
        if tokens.len() > self.n_ctx() - n_tokens {
            return Err(Error::ContextFull { n_tokens, n_new: tokens.len(), n_ctx: self.n_ctx() });
        }
        state.tokens_for(tokens.len())?;
        // A tap wants to see every token, and takes as long as its callback does.
        let shares = state.tap.is_none();
        let found = state.pages.look_for(&state.tokens, tokens, (state.reuse_prefix && shares, shares), awaited)?;
        let (n_known, lead, found) = match found {
            Found::Waits(awaited) => return Ok(Begun::Waits(awaited)),
            Found::Is { n_tokens, lead, state } => (n_tokens, lead, state),
        };
        if awaited.is_some() {
            self.clocks.waited(begun.elapsed());
        }
        let slot = state.own_slot(&*self.model().inner.loaded, self.n_ctx());
        let ready = slot.and_then(|slot| {
            let (pool, n_total) = (&self.model().inner.pool, n_tokens + tokens.len());
            let states = StateRun::new(pool, found.or_else(|| state.behind.clone()), n_total, tokens.len() == 1)?;
            state.pages.prepare(n_tokens + n_known, n_total)?;
            Ok((slot, states))
        });
        match ready {
            Ok((slot, states)) => Ok(Begun::Runs(Appending { slot, n_known, lead, states, begun, since: None })),
            Err(error) => {
                state.pages.shrink(n_tokens)?;
                Err(error)
            }
        }
    }

    /// Fails where one is no token of the vocabulary.
    pub(super) fn check(&self, tokens: &[u32]) -> Result<()> {
        let n_vocab = self.n_vocab();
        match tokens.iter().enumerate().find(|(_, token)| **token as usize >= n_vocab) {
            Some((index, token)) => Err(Error::TokenOutOfRange { index, token: *token, n_vocab }),
            None => Ok(()),
        }
    }

    /// What comes of the passes for the tokens of [`Self::begin`].
    pub(super) fn end(&self, state: &mut State, run: Appending, tokens: &[u32], outcome: Result<()>) -> Result<()> {
        self.clocks.took(tokens.len() == 1, run.begun.elapsed());
        match outcome {
            Ok(()) => {
                state.slot = run.slot;
                state.behind = run.states.and_then(|states| states.end(&state.pages));
                let n_tokens = state.tokens.len();
                state.tokens_for(tokens.len())?.extend_from_slice(tokens);
                state.has_logits = true;
                state.n_reused += run.n_known;
                self.clocks.appended(tokens.len(), run.n_known);
                state.pages.saved(run.n_known);
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

    fn forward(
        &self,
        state: &mut State,
        run: &mut Appending,
        tokens: &[u32],
        mut progress: Option<Progress<'_>>,
    ) -> Result<()> {
        let mut done = run.n_known;
        while done < tokens.len() {
            self.goes_on(run, done, &mut progress)?;
            let (start, left) = (state.tokens.len() + done, tokens.len() - done);
            let most = run.most(&state.pages, start).min(self.model().inner.line.bound());
            let n = self.model().inner.line.cut(start, left, most);
            let part = self.part(state, run, tokens, done, n)?;
            self.model().inner.run(vec![part]).pop().unwrap_or(Ok(()))?;
            done += n;
            self.passed(state, run, tokens, done);
        }
        Ok(())
    }

    /// Whether there is to be another pass.
    fn goes_on(&self, run: &Appending, done: usize, progress: &mut Option<Progress<'_>>) -> Result<()> {
        let stopped = progress.as_mut().is_some_and(|progress| match &run.lead {
            Some(lead) => !lead.pause(|| progress(done)),
            None => !progress(done),
        });
        if stopped || self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// [`Self::forward`] with the activations shown. The logits come into a new slot: the tap may stop the pass when
    /// they are made already.
    fn forward_tapped(
        &self,
        state: &mut State,
        run: &mut Appending,
        tokens: &[u32],
        mut progress: Option<Progress<'_>>,
        tap: &mut Tap,
    ) -> Result<()> {
        let loaded = &*self.model().inner.loaded;
        run.slot = Arc::new(Mutex::new(loaded.create_slot_for(self.n_ctx())?));
        let line = &self.model().inner.line;
        let mut done = run.n_known;
        while done < tokens.len() {
            self.goes_on(run, done, &mut progress)?;
            let (start, left) = (state.tokens.len() + done, tokens.len() - done);
            let n = line.cut(start, left, run.most(&state.pages, start).min(line.steady_bound()));
            let part = self.part(state, run, tokens, done, n)?;
            done += n;
            let mut watch = Watch { session: self, tap, goes_on: true };
            line.run_tapped(loaded, &part, &mut watch)?;
            // A cancel from inside the last event, or from another thread meanwhile: nothing of the pass is kept yet.
            if !watch.goes_on || self.is_cancelled() {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }

    /// So many of a call's tokens are in the cache; what ends with the last of them is [`Self::end`]'s to say.
    pub(super) fn passed(&self, state: &State, run: &mut Appending, tokens: &[u32], done: usize) {
        if let Some(states) = &mut run.states {
            states.ended(&state.pages);
        }
        if let Some(lead) = run.lead.as_ref().filter(|_| done < tokens.len()) {
            let n_tokens = state.tokens.len();
            state.pages.mark(n_tokens + run.n_known..n_tokens + done, self.by_steps(tokens.len()));
            lead.passed(&state.pages, n_tokens + done);
        }
    }

    /// The next `n` of `tokens`, where `done` need no pass any more.
    pub(super) fn part(
        &self,
        state: &mut State,
        run: &mut Appending,
        tokens: &[u32],
        done: usize,
        n: usize,
    ) -> Result<Part> {
        let to = tokens.len().min(done + n);
        let start = state.tokens.len() + done;
        state.pages.advance(start)?;
        let n_total = start + to - done;
        let n_pages = n_total.div_ceil(PAGE_TOKENS);
        Ok(Part {
            tokens: copied(&tokens[done..to], 0)?,
            start,
            pages: copied(&state.pages.as_slice()[..n_pages], 0)?,
            slot: Arc::clone(&run.slot),
            // Only the last pass writes logits, so that a cancelled one leaves the old ones.
            want: if to == tokens.len() { Want::Last } else { Want::Nothing },
            by_steps: self.by_steps(tokens.len()),
            state: run.states.as_mut().map(|states| states.begin(&state.pages, n_total)).transpose()?,
            keeps_cache: false,
            is_step: tokens.len() == 1,
            cancel: Arc::clone(&self.cancel),
            clocks: Arc::clone(&self.clocks),
            since: run.since.unwrap_or_else(Instant::now),
        })
    }

    /// Whether a call of so many tokens computes them as steps do. How many of them are in the cache already is no matter: what a
    /// session finds there would have been computed with the others.
    pub(super) fn by_steps(&self, n_tokens: usize) -> bool {
        n_tokens < self.model().inner.pool.steps_below
    }
}
