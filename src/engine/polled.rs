//! A batch that is run a while at a time: sessions are added, a call runs them, what has happened is taken as events.
//!
//! Invariants: a session is in use from its adding until it ends or is removed; it goes through what the calls for it alone
//! would do, with the same bits; a prompt that does not come to its end leaves its session as it was. Between two runs the time is the
//! caller's: nobody waits long for what a prompt of the batch computes, and no clock of a generation runs.

mod entry;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use entry::Entry;

use super::batch::{Wanted, lost, sample_batch_of, shares};
use super::generation::{GenerateOptions, Generated, Generation, StopReason, Times};
use super::log::LogLevel;
use super::model::Model;
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
    /// What the generation took, of an end: the caller's code is what ran between the batch's runs.
    pub times: Times,
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
        let mut entry = Entry::new(handle.clone(), tokens, generation);
        session.call(|state| {
            if state.tap.is_some() {
                return Err(Error::State { needs: "a session without a tap" });
            }
            entry.begin(state)?;
            state.taken_by = Some(Arc::clone(&self.mark));
            Ok(())
        })?;
        entry.pause(true);
        self.entries.push(entry);
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

    /// Runs passes until all sessions are through or the time is over, and at least one if one can be run; how many sessions are
    /// still on their way. Fails with `OutOfMemory` where there is no room for events, having run whole passes or none.
    pub fn run(&mut self, time: Duration) -> Result<usize> {
        tap::not_inside()?;
        let begin = Instant::now();
        let inside = Inside::of(self);
        let batch = &mut *inside.0;
        while !batch.entries.is_empty() {
            // A token and an end of each.
            let n = 2 * batch.entries.len();
            reserve_by::<Event<H>>(n, || batch.events.try_reserve(n))?;
            batch.choose();
            batch.sweep();
            batch.look(time.saturating_sub(begin.elapsed()));
            batch.pass(time);
            batch.sweep();
            if begin.elapsed() >= time {
                break;
            }
        }
        drop(inside);
        self.model.inner.tell();
        Ok(self.entries.len())
    }

    /// Looks after prompts that wait for what others compute; where there is nothing to be run meanwhile, it waits with them, no
    /// longer than a while.
    fn look(&mut self, most: Duration) {
        let pool = &self.model.inner.pool;
        let n_waiting = self.entries.iter().filter(|entry| entry.awaited.is_some()).count();
        if n_waiting > 0 && n_waiting == self.entries.len() && !most.is_zero() {
            let _waiting = self.model.inner.totals.waiting(n_waiting);
            pool.wait(most, self.entries.iter_mut().filter_map(|entry| entry.awaited.as_mut()));
        }
        for entry in &mut self.entries {
            if entry.awaited.as_mut().is_some_and(|awaited| pool.is_settled(awaited)) {
                entry.begin_again(&self.mark);
            }
        }
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
        let n_entries = self.entries.len();
        let running = || self.entries.iter().filter(|entry| entry.appending.is_some());
        let wanted: Vec<Wanted> = running().map(|entry| entry.wanted(mark)).collect();
        let bound = line.bound_within(wanted.iter().any(|wanted| wanted.is_step), time);
        let shares = shares(&wanted, line, bound);
        let n_late = wanted.iter().zip(&shares).filter(|(wanted, n)| wanted.is_step && **n == 0).count();
        let mut parts = Vec::new();
        let mut going = Vec::new();
        let running = self.entries.iter_mut().filter(|entry| entry.appending.is_some());
        for (entry, n) in running.zip(shares).filter(|(_, n)| *n > 0) {
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
                    if entry.passed(mark, n, now) {
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
            let times = entry.let_go(mark);
            if let Ok(Some(reason)) = end {
                let generated = Generated { n_tokens, reason, times };
                self.model.inner.log.log(LogLevel::Debug, format_args!("{generated}"));
            }
            self.events.push_back(Event { session, n_tokens, text, times, what: What::End(end) });
        }
    }
}

impl<H: AsRef<Session> + Clone> Drop for Batch<H> {
    fn drop(&mut self) {
        self.entries.drain(..).for_each(|entry| {
            entry.let_go(&self.mark);
        });
    }
}

/// A batch that runs: what is not the caller's time.
struct Inside<'a, H: AsRef<Session> + Clone>(&'a mut Batch<H>);

impl<H: AsRef<Session> + Clone> Inside<'_, H> {
    fn of(batch: &mut Batch<H>) -> Inside<'_, H> {
        batch.entries.iter_mut().for_each(|entry| entry.pause(false));
        Inside(batch)
    }
}

impl<H: AsRef<Session> + Clone> Drop for Inside<'_, H> {
    fn drop(&mut self) {
        self.0.entries.iter_mut().for_each(|entry| entry.pause(true));
    }
}
