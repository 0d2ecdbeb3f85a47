//! Many sessions in one call: their tokens appended, or their next tokens chosen, in passes that they share.
//!
//! Invariants: an entry's outcome, and the session it leaves, are those of the same call for it alone; how its tokens
//! are cut into passes does not depend on the others. Who waits for what another computes runs no pass, and a call blocks for one that
//! waits only where it runs none itself.

use std::collections::HashSet;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::append::{Appending, Begun};
use super::cache::Awaited;
use super::schedule::{Line, beside};
use super::session::{Session, State};
use crate::backend::{PAGE_TOKENS, Slot};
use crate::error::{Error, Result};
use crate::sampler::SampleRequest;

/// What a batch does to one session.
#[derive(Clone, Copy)]
pub struct Append<'a> {
    /// The session.
    pub session: &'a Session,
    /// Its new tokens.
    pub tokens: &'a [u32],
}

/// An entry on its way.
struct Entry<'a> {
    index: usize,
    session: &'a Session,
    tokens: &'a [u32],
    state: MutexGuard<'a, State>,
    appending: Appending,
    /// Tokens that need no pass any more.
    done: usize,
}

impl Entry<'_> {
    fn end(self, result: Result<()>, outcomes: &mut [Result<()>]) {
        let Entry { index, session, tokens, mut state, appending, .. } = self;
        outcomes[index] = state.run(|state| session.end(state, appending, tokens, result));
    }

    fn wanted(&self) -> Wanted {
        let (start, left) = (self.state.tokens.len() + self.done, self.tokens.len() - self.done);
        let most = self.appending.most(&self.state.pages, start);
        Wanted { is_step: self.tokens.len() == 1, start, left, most }
    }
}

/// An entry that begins with what another is computing: one of this call, or another call's.
struct Waiting<'a> {
    index: usize,
    session: &'a Session,
    tokens: &'a [u32],
    state: MutexGuard<'a, State>,
    awaited: Option<Awaited>,
}

/// The entries of a call.
#[derive(Default)]
struct Entries<'a> {
    /// They run passes, and others may wait for them.
    running: Vec<Entry<'a>>,
    waiting: Vec<Waiting<'a>>,
}

impl<'a> Entries<'a> {
    /// Begins an entry, or has it wait.
    fn begin(&mut self, mut entry: Waiting<'a>, outcomes: &mut [Result<()>]) {
        let Waiting { session, tokens, .. } = entry;
        match entry.state.run(|state| session.begin(state, tokens, entry.awaited.as_ref())) {
            Ok(Begun::Runs(appending)) => {
                let appending = appending.wanted_now();
                let Waiting { index, state, .. } = entry;
                self.running.push(Entry { index, session, tokens, state, done: appending.n_known, appending });
            }
            Ok(Begun::Waits(awaited)) => self.waiting.push(Waiting { awaited: Some(awaited), ..entry }),
            Err(error) => outcomes[entry.index] = Err(error),
        }
    }

    /// Looks after those that wait. Where none of this call runs, for which others may wait in their turn, it waits a moment with them.
    fn look(&mut self, outcomes: &mut [Result<()>]) {
        let Some(first) = self.waiting.first() else { return };
        let model = first.session.model().clone();
        if self.running.is_empty() {
            let _waiting = model.inner.totals.waiting(self.waiting.len());
            model.inner.pool.wait(Duration::MAX, self.waiting.iter_mut().filter_map(|entry| entry.awaited.as_mut()));
        }
        for mut entry in std::mem::take(&mut self.waiting) {
            if entry.session.take_cancel() {
                outcomes[entry.index] = Err(Error::Cancelled);
            } else if entry.awaited.as_mut().is_none_or(|awaited| model.inner.pool.is_settled(awaited)) {
                self.begin(entry, outcomes);
            } else {
                self.waiting.push(entry);
            }
        }
    }
}

/// The sessions' states; or, of each by itself, why not: in use, of another model than the first, named before.
fn lock_all<'a>(sessions: &[&'a Session], batch: Option<&Arc<()>>) -> Vec<Result<MutexGuard<'a, State>>> {
    let mut named = HashSet::with_capacity(sessions.len());
    let lock = |session: &&'a Session| {
        let first = named.insert(std::ptr::from_ref::<Session>(session));
        let (found, expected) = if !session.model().is(sessions[0].model()) {
            ("one of another model than the first".to_owned(), "sessions of one model")
        } else if !first {
            ("that of an earlier entry".to_owned(), "each session once")
        } else {
            return session.lock_for(batch);
        };
        Err(Error::Argument { name: "session", found, expected: expected.to_owned() })
    };
    sessions.iter().map(lock).collect()
}

/// Appends to each session its tokens; afterwards the logits of its last are current. One outcome for each entry.
pub fn append_batch<'a>(entries: &[Append<'a>]) -> Vec<Result<()>> {
    let sessions: Vec<&Session> = entries.iter().map(|e| e.session).collect();
    let mut outcomes: Vec<Result<()>> = entries.iter().map(|_| Ok(())).collect();
    let mut all = Entries::default();
    for (index, (state, entry)) in lock_all(&sessions, None).into_iter().zip(entries).enumerate() {
        let Append { session, tokens } = *entry;
        match state {
            // What it shows is shown on this thread, pass by pass.
            Ok(mut state) if state.tap.is_some() => {
                outcomes[index] = state.run(|state| session.append(state, tokens, None).map(drop));
            }
            Ok(state) => all.begin(Waiting { index, session, tokens, state, awaited: None }, &mut outcomes),
            Err(error) => outcomes[index] = Err(error),
        }
    }
    while !all.running.is_empty() || !all.waiting.is_empty() {
        all.look(&mut outcomes);
        all.running = pass(std::mem::take(&mut all.running), all.waiting.len(), &mut outcomes);
    }
    if let Some(first) = sessions.first() {
        first.model().inner.tell();
    }
    count_failures(&sessions, &outcomes);
    outcomes
}

/// Runs one pass of as many of the entries as fit into it, while `n_waiting` others wait for what somebody computes; those that are
/// not at their end.
fn pass<'a>(running: Vec<Entry<'a>>, n_waiting: usize, outcomes: &mut [Result<()>]) -> Vec<Entry<'a>> {
    let Some(first) = running.first() else { return running };
    let model = first.session.model().clone();
    let line = &model.inner.line;
    let wanted: Vec<Wanted> = running.iter().map(Entry::wanted).collect();
    let shares = shares(&wanted, line, line.bound());
    let (going, waiting): (Vec<_>, Vec<_>) = running.into_iter().zip(shares).partition(|(_, n)| *n > 0);
    let mut unfinished = Vec::new();
    for (entry, _) in waiting {
        match entry.session.is_cancelled() {
            true => entry.end(Err(Error::Cancelled), outcomes),
            false => unfinished.push(entry),
        }
    }
    let mut parts = Vec::new();
    // Those for which there is no memory run no pass.
    let refused = |(mut entry, n): (Entry<'a>, usize)| {
        let part = entry.session.part(&mut entry.state, &mut entry.appending, entry.tokens, entry.done, n);
        (entry, n, part.map(|part| parts.push(part)).err())
    };
    let going: Vec<_> = going.into_iter().map(refused).collect();
    let mut ran = {
        let _waiting = model.inner.totals.waiting(n_waiting + unfinished.len());
        model.inner.run(parts).into_iter()
    };
    let now = Instant::now();
    for (mut entry, n, refusal) in going {
        let result = refusal.map_or_else(|| ran.next().unwrap_or_else(|| Err(lost())), Err);
        entry.done += n;
        if result.is_ok() && entry.done < entry.tokens.len() {
            entry.session.passed(&entry.state, &mut entry.appending, entry.tokens, entry.done);
            entry.appending.since = Some(now);
            unfinished.push(entry);
        } else {
            entry.end(result, outcomes);
        }
    }
    unfinished
}

/// What an entry wants of the next pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// The only token of its call.
    pub(super) is_step: bool,
    /// The position of the next token, and how many there are.
    pub(super) start: usize,
    pub(super) left: usize,
    /// The most that its pages allow.
    pub(super) most: usize,
}

/// How many tokens of each entry the next pass has, of some none: steps first, then `bound` of prompts, as many as others that share
/// the device can wait for; the first prompt gets some, however many steps there are.
pub(super) fn shares(wanted: &[Wanted], line: &Line, bound: usize) -> Vec<usize> {
    let mut shares = vec![0; wanted.len()];
    let kept = if wanted.iter().all(|entry| entry.is_step) { 0 } else { PAGE_TOKENS };
    let steps = wanted.iter().zip(&mut shares).filter(|(entry, _)| entry.is_step).take(line.most() - kept);
    let n_steps = steps.map(|(_, share)| *share = 1).count();
    let most = bound.max(beside(n_steps)).min(line.most() - n_steps);
    let mut n_prompt = 0;
    for (entry, share) in wanted.iter().zip(&mut shares).filter(|(entry, _)| !entry.is_step) {
        let room = most.saturating_sub(n_prompt).max(1);
        let n = line.cut(entry.start, entry.left, room.min(entry.most));
        if n_prompt + n > most && n_prompt > 0 {
            break;
        }
        n_prompt += n;
        *share = n;
    }
    shares
}

pub(super) fn lost() -> Error {
    Error::Internal { message: "a pass without a result".to_owned() }
}

/// Those of the entries that have failed, among the failures of their models.
fn count_failures<T>(sessions: &[&Session], outcomes: &[Result<T>]) {
    for (session, outcome) in sessions.iter().zip(outcomes) {
        if let Err(error) = outcome {
            session.model().inner.totals.failed(error);
        }
    }
}

/// Picks the next token of each session; appends nothing.
pub fn sample_batch(sessions: &[&Session]) -> Vec<Result<u32>> {
    let outcomes = sample_batch_of(sessions, None);
    count_failures(sessions, &outcomes);
    outcomes
}

/// [`sample_batch`] for the batch that has the sessions, in which a cancel stops the making of a mask.
pub(super) fn sample_batch_of(sessions: &[&Session], batch: Option<&Arc<()>>) -> Vec<Result<u32>> {
    let mut outcomes: Vec<Result<u32>> = sessions.iter().map(|_| Ok(0)).collect();
    let mut together = Vec::new();
    for (index, state) in lock_all(sessions, batch).into_iter().enumerate() {
        match state {
            Err(error) => outcomes[index] = Err(error),
            // One that a fork has too may be locked by another thread's batch, which may wait for one of these.
            Ok(mut state) if !state.has_logits || state.constraint.is_some() || Arc::strong_count(&state.slot) > 1 => {
                outcomes[index] = state.run(|state| sessions[index].choose(state, batch.is_some()));
            }
            Ok(state) => together.push((index, state)),
        }
    }
    let Some(first) = together.first().map(|entry| entry.0) else { return outcomes };
    let loaded = &sessions[first].model().inner.loaded;
    let results = {
        let mut slots: Vec<&mut dyn Slot> = Vec::new();
        let mut requests = Vec::new();
        for (_, state) in &mut together {
            let State { tokens, slot, sampling, .. } = &mut **state;
            if let Some(slot) = Arc::get_mut(slot) {
                slots.push(&mut **slot.get_mut().unwrap_or_else(PoisonError::into_inner));
                requests.push(SampleRequest { params: sampling, history: tokens, position: tokens.len() as u64 });
            }
        }
        loaded.sample_batch(&mut slots, &requests)
    };
    for ((index, mut state), result) in together.into_iter().zip(results) {
        outcomes[index] = state.run(|_| result.map(|sampled| sampled.token));
    }
    outcomes
}
