//! Many sessions in one call: their tokens appended, or their next tokens chosen, in passes that they share.
//!
//! Invariants: an entry's outcome, and the session it leaves, are those of the same call for it alone; how its tokens
//! are cut into passes does not depend on the others. Who waits for what another computes runs no pass, and a call blocks for one that
//! waits only where it runs none itself.

use std::collections::HashSet;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::append::{Appending, Begun};
use super::cache::Awaited;
use super::session::{Session, State};
use crate::backend::Slot;
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
            model.inner.pool.wait(self.waiting.iter_mut().filter_map(|entry| entry.awaited.as_mut()));
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
fn lock_all<'a>(sessions: &[&'a Session]) -> Vec<Result<MutexGuard<'a, State>>> {
    let mut named = HashSet::with_capacity(sessions.len());
    let lock = |session: &&'a Session| {
        let first = named.insert(std::ptr::from_ref::<Session>(session));
        let (found, expected) = if !session.model().is(sessions[0].model()) {
            ("one of another model than the first".to_owned(), "sessions of one model")
        } else if !first {
            ("that of an earlier entry".to_owned(), "each session once")
        } else {
            return session.lock();
        };
        Err(Error::Argument { name: "session", found, expected: expected.to_owned() })
    };
    sessions.iter().map(lock).collect()
}

/// Appends to each session its tokens; afterwards the logits of its last are current. One outcome for each entry.
pub fn append_batch(entries: &[Append<'_>]) -> Vec<Result<()>> {
    let sessions: Vec<&Session> = entries.iter().map(|e| e.session).collect();
    let mut outcomes: Vec<Result<()>> = entries.iter().map(|_| Ok(())).collect();
    let mut all = Entries::default();
    for (index, (state, entry)) in lock_all(&sessions).into_iter().zip(entries).enumerate() {
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
        all.running = pass(std::mem::take(&mut all.running), &mut outcomes);
    }
    outcomes
}

/// Runs one pass of as many of the entries as fit into it; those that are not at their end.
fn pass<'a>(mut running: Vec<Entry<'a>>, outcomes: &mut [Result<()>]) -> Vec<Entry<'a>> {
    let Some(first) = running.first() else { return running };
    let model = first.session.model().clone();
    let most = model.inner.loaded.prefill_chunk();
    // A call alone runs as many tokens at a time, so that there are not more of one session in a shared pass.
    let next = |e: &Entry<'_>| (e.tokens.len() - e.done).min(e.state.pages.pass_tokens());
    let mut sum = 0;
    let fit = running.iter().take_while(|e| {
        sum += next(e);
        sum <= most
    });
    let n = fit.count().max(1);
    let waiting = running.split_off(n);
    let part = |e: &mut Entry<'_>| {
        let most = e.state.pages.pass_tokens();
        e.session.part(&mut e.state, &e.appending, e.tokens, e.done, most)
    };
    // Those for which there is no memory run no pass.
    let (parts, refusals): (Vec<_>, Vec<_>) = running
        .iter_mut()
        .map(|entry| part(entry).map_or_else(|error| (None, Some(error)), |part| (Some(part), None)))
        .unzip();
    let mut ran = model.inner.run(parts.into_iter().flatten().collect()).into_iter();
    let mut unfinished = waiting;
    for (mut entry, refusal) in running.into_iter().zip(refusals) {
        let result = refusal.map_or_else(|| ran.next().unwrap_or_else(|| Err(lost())), Err);
        entry.done += next(&entry);
        if result.is_ok() && entry.done < entry.tokens.len() {
            entry.session.passed(&entry.state, &entry.appending, entry.tokens, entry.done);
            unfinished.push(entry);
        } else {
            let Entry { index, session, tokens, mut state, appending, .. } = entry;
            outcomes[index] = state.run(|state| session.end(state, appending, tokens, result));
        }
    }
    unfinished
}

fn lost() -> Error {
    Error::Internal { message: "a pass without a result".to_owned() }
}

/// Picks the next token of each session; appends nothing.
pub fn sample_batch(sessions: &[&Session]) -> Vec<Result<u32>> {
    let mut outcomes: Vec<Result<u32>> = sessions.iter().map(|_| Ok(0)).collect();
    let mut together = Vec::new();
    for (index, state) in lock_all(sessions).into_iter().enumerate() {
        match state {
            Err(error) => outcomes[index] = Err(error),
            // One that a fork has too may be locked by another thread's batch, which may wait for one of these.
            Ok(mut state) if !state.has_logits || state.constraint.is_some() || Arc::strong_count(&state.slot) > 1 => {
                outcomes[index] = state.run(|state| sessions[index].choose(state, false));
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
