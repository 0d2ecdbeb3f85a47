//! A batch that is run a while at a time: sessions are added, a call runs them, what has happened is taken as events.
//!
//! Invariants: a session is in use from its adding until it ends or is removed; it goes through what the calls for it alone
//! would do, with the same bits; a prompt that does not come to its end leaves its session as it was.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::append::Appending;
use super::batch::{Wanted, lost, sample_batch_of, shares};
use super::generation::{Chosen, GenerateOptions, Generation, StopReason};
use super::model::Model;
use super::schedule::Part;
use super::session::{Session, copied};
use super::tap;
use crate::alloc::{reserve, reserve_by};
use crate::error::{Error, Result};

/// What a batch does with a session.
#[derive(Clone, Copy, Default)]
pub struct Work<'a> {
    /// Tokens to append.
    pub tokens: &'a [u32],
    /// What to generate then.
    pub generate: Option<&'a GenerateOptions>,
}

/// What has happened to a session of a batch.
pub struct Event<H> {
    /// The session as it was added.
    pub session: H,
    /// Tokens that were generated until then.
    pub n_tokens: usize,
    /// The text that has become complete, or was held back in the end.
    pub text: String,
    /// What it is.
    pub what: What,
}

/// See [`Event`].
pub enum What {
    /// A token was chosen and appended.
    Token(u32),
    /// It is through, or has failed, and is no more in use; without a reason where nothing was to be generated.
    End(Result<Option<StopReason>>),
}

/// How a session's way has ended.
type End = Result<Option<StopReason>>;

/// A session that is on its way.
struct Entry<H> {
    session: H,
    /// Those that are being appended: the prompt, or the last token that was chosen.
    tokens: Vec<u32>,
    /// The passes for those tokens, if there are any.
    appending: Option<Appending>,
    /// Those that need no pass any more.
    done: usize,
    generation: Option<Generation>,
    /// The prompt is through.
    generates: bool,
    /// The token that was chosen is one that ends a generation.
    ends: bool,
    end: Option<End>,
}

/// Sessions of one model, each known by an `H`.
pub struct Batch<H: AsRef<Session> + Clone> {
    model: Model,
    /// Whose the sessions are.
    mark: Arc<()>,
    entries: Vec<Entry<H>>,
    events: VecDeque<Event<H>>,
}

impl<H: AsRef<Session> + Clone> Batch<H> {
    /// A batch without sessions.
    pub fn new(model: &Model) -> Result<Batch<H>> {
        model.computes()?;
        Ok(Batch { model: model.clone(), mark: Arc::new(()), entries: Vec::new(), events: VecDeque::new() })
    }

    /// Sessions that are on their way.
    pub fn n_sessions(&self) -> usize {
        self.entries.len()
    }

    /// Adds a session that nobody uses. What a call of its own would find out before it runs anything fails here.
    pub fn add(&mut self, handle: H, work: Work<'_>) -> Result<()> {
        let session = handle.as_ref();
        if !session.model().is(&self.model) {
            let (found, expected) = ("one of another model".to_owned(), "a session of the batch's model".to_owned());
            return Err(Error::Argument { name: "session", found, expected });
        }
        if work.tokens.is_empty() && work.generate.is_none() {
            let expected = "at least 1, or something to generate".to_owned();
            return Err(Error::Argument { name: "n_ids", found: "0".to_owned(), expected });
        }
        reserve(&mut self.entries, 1)?;
        // With room for a token that is chosen later.
        let tokens = copied(work.tokens, 1)?;
        let generation = work.generate.map(|options| Generation::new(&self.model, options)).transpose()?;
        let appending = session.call(|state| {
            if state.tap.is_some() {
                return Err(Error::State { needs: "a session without a tap" });
            }
            let appending = match &*tokens {
                [] => state.logits_there().map(|()| None)?,
                tokens => Some(session.begin_apart(state, tokens)?.wanted_now()),
            };
            state.taken_by = Some(Arc::clone(&self.mark));
            Ok(appending)
        })?;
        let (done, generates) = (appending.as_ref().map_or(0, |appending| appending.n_known), tokens.is_empty());
        let (ends, end) = (false, None);
        self.entries.push(Entry { session: handle, tokens, appending, done, generation, generates, ends, end });
        Ok(())
    }

    /// Takes a session out; it is as after its last whole call, and no event says so. Fails with `NotFound`.
    pub fn remove(&mut self, session: &Session) -> Result<()> {
        tap::not_inside()?;
        let found = self.entries.iter().position(|entry| std::ptr::eq(entry.session.as_ref(), session));
        let not_found = || Error::NotFound { what: "session", name: "in this batch".to_owned() };
        self.entries.remove(found.ok_or_else(not_found)?).let_go(&self.mark);
        Ok(())
    }

    /// The oldest event that has not been taken.
    pub fn take_event(&mut self) -> Option<Event<H>> {
        self.events.pop_front()
    }

    /// Runs passes until all sessions are through or the time is over, and at least one; how many sessions are still on
    /// their way. Fails with `OutOfMemory` where there is no room for events, having run whole passes or none.
    pub fn run(&mut self, time: Duration) -> Result<usize> {
        tap::not_inside()?;
        let begin = Instant::now();
        while !self.entries.is_empty() {
            // A token and an end of each.
            let n = 2 * self.entries.len();
            reserve_by::<Event<H>>(n, || self.events.try_reserve(n))?;
            self.choose();
            self.sweep();
            self.pass(time);
            self.sweep();
            if begin.elapsed() >= time {
                break;
            }
        }
        self.model.inner.tell();
        Ok(self.entries.len())
    }

    /// Chooses the next token of each session that generates; prompts that are cancelled end.
    fn choose(&mut self) {
        let mark = &self.mark;
        // A prompt that gets no part of the next pass, too.
        for entry in self.entries.iter_mut().filter(|entry| !entry.generates && entry.session.as_ref().is_cancelled()) {
            entry.failed(mark, Error::Cancelled);
        }
        // One whose token had no room in the last pass has it still.
        let is_due = |entry: &mut Entry<H>| entry.generates && entry.appending.is_none() && entry.goes_on(mark);
        let due = self.entries.iter_mut().filter_map(|entry| is_due(entry).then_some(entry));
        let mut due: Vec<&mut Entry<H>> = due.collect();
        let sessions: Vec<&Session> = due.iter().map(|entry| entry.session.as_ref()).collect();
        let tokens = sample_batch_of(&sessions, Some(mark));
        for (entry, token) in due.iter_mut().zip(tokens) {
            entry.end = entry.step(&self.model, mark, token).err();
        }
    }

    /// Runs a pass for the tokens that are to be appended.
    fn pass(&mut self, time: Duration) {
        let (mark, line) = (&self.mark, &self.model.inner.line);
        let wanted: Vec<Wanted> = self.entries.iter().map(|entry| entry.wanted(mark)).collect();
        let bound = line.bound_within(wanted.iter().any(|wanted| wanted.is_step), time);
        let shares = shares(&wanted, line, bound);
        let n_late = wanted.iter().zip(&shares).filter(|(wanted, n)| wanted.is_step && **n == 0).count();
        let n_entries = self.entries.len();
        let mut parts = Vec::new();
        let mut going = Vec::new();
        for (entry, n) in self.entries.iter_mut().zip(shares).filter(|(_, n)| *n > 0) {
            match entry.part(mark, n) {
                Err(error) => entry.failed(mark, error),
                Ok(part) => {
                    parts.push(part);
                    going.push((entry, n));
                }
            }
        }
        if parts.is_empty() {
            return;
        }
        let mut ran = {
            let _waiting = self.model.inner.totals.waiting(n_entries - going.len());
            self.model.inner.run(parts).into_iter()
        };
        let now = Instant::now();
        for (entry, n) in going {
            match ran.next().unwrap_or_else(|| Err(lost())) {
                Err(error) => entry.failed(mark, error),
                Ok(()) => {
                    entry.done += n;
                    if let Some(appending) = &mut entry.appending {
                        appending.since = Some(now);
                    }
                    if entry.done >= entry.tokens.len() {
                        self.events.extend(entry.appended(mark));
                    }
                }
            }
        }
        // Those behind the last that had room are the first of the next pass.
        self.entries.rotate_right(n_late);
    }

    /// Takes those out that have ended, each with an event.
    fn sweep(&mut self) {
        let mark = &self.mark;
        for mut entry in self.entries.extract_if(.., |entry| entry.end.is_some()) {
            let (mut end, mut text) = (entry.end.take().unwrap_or(Ok(None)), String::new());
            if let (Some(generation), Ok(Some(reason))) = (&mut entry.generation, &end)
                && let Err(error) = generation.finish(*reason, &mut text)
            {
                end = Err(error);
            }
            let (session, n_tokens) = (entry.session.clone(), entry.n_tokens());
            match &end {
                Err(error) => self.model.inner.totals.failed(error),
                Ok(Some(StopReason::Cancelled)) => self.model.inner.totals.failed(&Error::Cancelled),
                Ok(_) => {}
            }
            entry.let_go(mark);
            self.events.push_back(Event { session, n_tokens, text, what: What::End(end) });
        }
    }
}

impl<H: AsRef<Session> + Clone> Entry<H> {
    fn n_tokens(&self) -> usize {
        self.generation.as_ref().map_or(0, |generation| generation.n_tokens)
    }

    /// Whether another token is wanted; if not, it has ended.
    fn goes_on(&mut self, mark: &Arc<()>) -> bool {
        let session = self.session.as_ref();
        let left = |generation: &Generation| -> std::result::Result<(), End> {
            let n_held = session.lock_for(Some(mark)).map_err(Err)?.tokens.len();
            generation.left(session, n_held).map(|_| ()).map_err(|reason| Ok(Some(reason)))
        };
        self.end = self.generation.as_ref().map_or(Ok(()), left).err();
        self.end.is_none()
    }

    /// The next token is this; or why there is none.
    fn step(&mut self, model: &Model, mark: &Arc<()>, token: Result<u32>) -> std::result::Result<(), End> {
        let session = self.session.as_ref();
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
        let appending = state.run(|state| session.begin_apart(state, &[token])).map_err(Err)?.wanted_now();
        (self.done, self.appending) = (appending.n_known, Some(appending));
        self.tokens.clear();
        self.tokens.push(token);
        Ok(())
    }

    /// What it would have of a pass.
    fn wanted(&self, mark: &Arc<()>) -> Wanted {
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

    fn part(&mut self, mark: &Arc<()>, n: usize) -> Result<Part> {
        let session = self.session.as_ref();
        let appending = self.appending.as_mut().ok_or_else(lost)?;
        session.lock_for(Some(mark))?.run(|state| session.part(state, appending, &self.tokens, self.done, n))
    }

    /// Its tokens cannot be appended.
    fn failed(&mut self, mark: &Arc<()>, error: Error) {
        let error = self.settle(mark, Err(error)).err().unwrap_or_else(lost);
        let stopped = self.generates && matches!(error, Error::Cancelled);
        self.end = Some(if stopped { Ok(Some(StopReason::Cancelled)) } else { Err(error) });
    }

    /// The session gets its tokens, or not.
    fn settle(&mut self, mark: &Arc<()>, outcome: Result<()>) -> Result<()> {
        let session = self.session.as_ref();
        let appending = self.appending.take().ok_or_else(lost)?;
        session.lock_for(Some(mark))?.run(|state| session.end(state, appending, &self.tokens, outcome))
    }

    /// Its tokens are through the passes: what has happened by it.
    fn appended(&mut self, mark: &Arc<()>) -> Option<Event<H>> {
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
        if !was_step {
            return None;
        }
        let mut text = String::new();
        let appended = generation.appended(token, &mut text);
        self.end = match appended {
            Err(error) => Some(Err(error)),
            Ok(()) => generation.ended(token, self.ends).map(|reason| Ok(Some(reason))),
        };
        let session = self.session.clone();
        Some(Event { session, n_tokens: self.n_tokens(), text, what: What::Token(token) })
    }

    /// The session is not in use any more; what was not finished is undone.
    fn let_go(self, mark: &Arc<()>) {
        // One that has panicked is nobody's.
        if let Ok(mut state) = self.session.as_ref().lock_for(Some(mark)) {
            let n_tokens = state.tokens.len();
            // Without memory the pages of a list that forks share stay until the next call.
            let _ = state.pages.shrink(n_tokens);
            state.taken_by = None;
            if self.generation.is_some() {
                state.generated_at = self.session.as_ref().figures();
            }
        }
    }
}

impl<H: AsRef<Session> + Clone> Drop for Batch<H> {
    fn drop(&mut self) {
        self.entries.drain(..).for_each(|entry| entry.let_go(&self.mark));
    }
}
