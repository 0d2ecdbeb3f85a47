//! A session of a batch: its prompt, which may wait for what others compute, and its generation.

use std::sync::Arc;
use std::time::Instant;

use super::{Event, What};
use crate::engine::append::{Appending, Begun};
use crate::engine::batch::{Wanted, lost};
use crate::engine::cache::Awaited;
use crate::engine::clock::Clock;
use crate::engine::generation::{Chosen, Generation, StopReason, Times};
use crate::engine::model::Model;
use crate::engine::schedule::Part;
use crate::engine::session::{Session, State};
use crate::error::{Error, Result};

/// How a session's way has ended.
pub(super) type End = Result<Option<StopReason>>;

/// A session that is on its way.
pub(super) struct Entry<H> {
    pub(super) session: H,
    /// Those that are being appended: the prompt, or the last token that was chosen.
    pub(super) tokens: Vec<u32>,
    /// The passes for those tokens, if there are any.
    pub(super) appending: Option<Appending>,
    /// What the prompt waits for in place of passes, since others compute it.
    pub(super) awaited: Option<Awaited>,
    /// Those that need no pass any more.
    done: usize,
    pub(super) generation: Option<Generation>,
    /// The generation's, once it has begun.
    clock: Option<Clock>,
    /// The prompt is through.
    pub(super) generates: bool,
    /// The token that was chosen is one that ends a generation.
    ends: bool,
    pub(super) end: Option<End>,
}

impl<H: AsRef<Session> + Clone> Entry<H> {
    pub(super) fn new(session: H, tokens: Vec<u32>, generation: Option<Generation>) -> Entry<H> {
        let (generates, ends, end) = (tokens.is_empty(), false, None);
        let (appending, awaited, done, clock) = (None, None, 0, None);
        Entry { session, tokens, appending, awaited, done, generation, clock, generates, ends, end }
    }

    /// Begins to append its tokens, or to wait; without tokens, to generate.
    pub(super) fn begin(&mut self, state: &mut State) -> Result<()> {
        let session = self.session.as_ref();
        if self.tokens.is_empty() {
            state.logits_there()?;
            self.clock = Some(Clock::begin(session, state));
            return Ok(());
        }
        match session.begin(state, &self.tokens, self.awaited.as_ref())? {
            Begun::Waits(awaited) => self.awaited = Some(awaited),
            Begun::Runs(appending) => {
                (self.done, self.awaited) = (appending.n_known, None);
                self.appending = Some(appending.wanted_now());
            }
        }
        Ok(())
    }

    /// [`Self::begin`] in the batch: what it waited for is there, or will not come.
    pub(super) fn begin_again(&mut self, mark: &Arc<()>) {
        let session = self.session.clone();
        let begun = session.as_ref().lock_for(Some(mark)).and_then(|mut state| state.run(|state| self.begin(state)));
        if let Err(error) = begun {
            (self.awaited, self.end) = (None, Some(Err(error)));
        }
    }

    /// Whether the time is the caller's.
    pub(super) fn pause(&mut self, is_paused: bool) {
        if let Some(appending) = &self.appending {
            appending.pause(is_paused);
        }
        if let Some(clock) = &mut self.clock {
            if is_paused { clock.leave() } else { clock.enter() }
        }
    }

    pub(super) fn n_tokens(&self) -> usize {
        self.generation.as_ref().map_or(0, |generation| generation.n_tokens)
    }

    /// Whether another token is wanted; if not, it has ended.
    pub(super) fn goes_on(&mut self, mark: &Arc<()>) -> bool {
        let session = self.session.as_ref();
        let left = |generation: &Generation| -> std::result::Result<(), End> {
            let n_held = session.lock_for(Some(mark)).map_err(Err)?.tokens.len();
            generation.left(session, n_held).map(|_| ()).map_err(|reason| Ok(Some(reason)))
        };
        self.end = self.generation.as_ref().map_or(Ok(()), left).err();
        self.end.is_none()
    }

    /// The next token is this; or why there is none.
    pub(super) fn step(&mut self, model: &Model, mark: &Arc<()>, token: Result<u32>) -> std::result::Result<(), End> {
        let handle = self.session.clone();
        let session = handle.as_ref();
        let stopped = |error| match error {
            Error::Cancelled => {
                session.take_cancel();
                Ok(Some(StopReason::Cancelled))
            }
            error => Err(error),
        };
        let token = token.map_err(stopped)?;
        let chosen = self.generation.as_ref().map(|generation| generation.chosen(model, token));
        self.ends = match chosen.transpose().map_err(Err)? {
            Some(Chosen::Append { ends }) => ends,
            Some(Chosen::Stop(reason)) => return Err(Ok(Some(reason))),
            None => return Err(Ok(None)),
        };
        let mut state = session.lock_for(Some(mark)).map_err(Err)?;
        self.tokens.clear();
        self.tokens.push(token);
        state.run(|state| self.begin(state)).map_err(Err)
    }

    /// What it would have of a pass.
    pub(super) fn wanted(&self, mark: &Arc<()>) -> Wanted {
        let (start, most) = match self.session.as_ref().lock_for(Some(mark)) {
            Ok(state) => {
                let start = state.tokens.len() + self.done;
                let most = self.appending.as_ref().map_or(0, |appending| appending.most(&state.pages, start));
                (start, most)
            }
            // It fails when its part is made.
            Err(_) => (0, 1),
        };
        Wanted { is_step: self.generates, start, left: self.tokens.len() - self.done, most }
    }

    pub(super) fn part(&mut self, mark: &Arc<()>, n: usize) -> Result<Part> {
        let session = self.session.as_ref();
        let appending = self.appending.as_mut().ok_or_else(lost)?;
        session.lock_for(Some(mark))?.run(|state| session.part(state, appending, &self.tokens, self.done, n))
    }

    /// Its tokens cannot be appended.
    pub(super) fn failed(&mut self, mark: &Arc<()>, error: Error) {
        let error = self.settle(mark, Err(error)).err().unwrap_or_else(lost);
        let stopped = self.generates && matches!(error, Error::Cancelled);
        self.end = Some(if stopped { Ok(Some(StopReason::Cancelled)) } else { Err(error) });
    }

    /// So many of its tokens more need no pass any more; whether none does.
    pub(super) fn passed(&mut self, mark: &Arc<()>, n: usize, now: Instant) -> bool {
        self.done += n;
        if let Some(appending) = &mut self.appending {
            appending.since = Some(now);
            let session = self.session.as_ref();
            if let Ok(state) = session.lock_for(Some(mark)) {
                session.passed(&state, appending, &self.tokens, self.done);
            }
        }
        self.done >= self.tokens.len()
    }

    /// The session gets its tokens, or not.
    fn settle(&mut self, mark: &Arc<()>, outcome: Result<()>) -> Result<()> {
        let session = self.session.as_ref();
        if self.awaited.take().is_some() {
            session.take_cancel();
            return outcome;
        }
        let appending = self.appending.take().ok_or_else(lost)?;
        session.lock_for(Some(mark))?.run(|state| session.end(state, appending, &self.tokens, outcome))
    }

    /// Its tokens are through the passes: what has happened by it.
    pub(super) fn appended(&mut self, mark: &Arc<()>) -> Option<Event<H>> {
        if let Err(error) = self.settle(mark, Ok(())) {
            self.end = Some(Err(error));
            return None;
        }
        let (was_step, token) = (self.generates, self.tokens.last().copied());
        self.tokens.clear();
        self.generates = true;
        let (Some(generation), Some(token)) = (&mut self.generation, token) else {
            self.end = Some(Ok(None));
            return None;
        };
        let session = self.session.as_ref();
        if !was_step {
            match session.lock_for(Some(mark)) {
                Ok(state) => self.clock = Some(Clock::begin(session, &state)),
                Err(error) => self.end = Some(Err(error)),
            }
            return None;
        }
        let mut text = String::new();
        let appended = generation.appended(token, &mut text);
        if let Some(clock) = self.clock.as_mut().filter(|_| generation.n_tokens == 1) {
            clock.first_token();
        }
        self.end = match appended {
            Err(error) => Some(Err(error)),
            Ok(()) => generation.ended(token, self.ends).map(|reason| Ok(Some(reason))),
        };
        let session = self.session.clone();
        Some(Event { session, n_tokens: self.n_tokens(), text, times: Times::default(), what: What::Token(token) })
    }

    /// The session is not in use any more; what was not finished is undone. What its generation took.
    pub(super) fn let_go(self, mark: &Arc<()>) -> Times {
        let session = self.session.as_ref();
        // One that has panicked is nobody's.
        let Ok(mut state) = session.lock_for(Some(mark)) else { return Times::default() };
        let n_tokens = state.tokens.len();
        // Without memory the pages of a list that forks share stay until the next call.
        let _ = state.pages.shrink(n_tokens);
        state.taken_by = None;
        self.clock.map_or_else(Times::default, |clock| clock.end(session, &mut state))
    }
}
