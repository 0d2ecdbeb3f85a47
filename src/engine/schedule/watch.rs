//! Passes as they end: counted, and those that the log is to tell of kept until it may.
//!
//! Invariant: the log is the host's code, which may wait for other calls: it is told where nobody waits for the one that tells.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::pace::mean;
use crate::engine::figures::{PassSize, Totals};
use crate::engine::log::{LogLevel, ModelLog};
use crate::error::Error;

/// A pass is slow that takes so many times as long as those of its size do, after so many of these,
const TIMES: u32 = 8;
const LEAST_KNOWN: u32 = 8;
/// and so much longer.
const LONGER: Duration = Duration::from_millis(50);
/// Slow passes are told of no more often than this.
const PAUSE: Duration = Duration::from_secs(10);
/// Sizes are powers of two, the last all that are larger.
const N_SIZES: usize = 13;

/// How long passes of a size take.
#[derive(Clone, Copy, Default)]
struct Usual {
    n: u32,
    time: Duration,
}

/// How a pass has ended.
pub(super) enum Ended {
    Well,
    Failed,
    /// It failed for all, for this reason, so that each session has had one of its own.
    Apart(Error),
}

/// A pass that the log is to tell of.
enum Note {
    Slow { size: PassSize, took: Duration, usual: Duration, n_more: u64 },
    Apart { n_sessions: usize, error: Error },
}

#[derive(Default)]
struct State {
    /// Passes of steps alone, and with tokens of prompts.
    usual: [[Usual; N_SIZES]; 2],
    /// When a slow one was told of, and how many there have been since.
    told: Option<Instant>,
    n_more: u64,
    notes: Vec<Note>,
}

/// The passes of a model.
pub(super) struct Watch {
    totals: Arc<Totals>,
    log: ModelLog,
    state: Mutex<State>,
    /// Whether there are notes.
    has_notes: AtomicBool,
}

impl State {
    /// Whether a pass is slow that has taken so long, and how long others take.
    fn is_slow(&mut self, size: PassSize, took: Duration) -> Option<Duration> {
        let of_size = (size.n_tokens.max(1).ilog2() as usize).min(N_SIZES - 1);
        let usual = &mut self.usual[usize::from(size.n_prompt > 0)][of_size];
        let known = (usual.n >= LEAST_KNOWN).then_some(usual.time);
        *usual = Usual { n: usual.n.saturating_add(1), time: mean(usual.time, took) };
        known.filter(|usual| took > *usual * TIMES && took > *usual + LONGER)
    }

    /// What to tell of a pass that has taken so long, if anything.
    fn note(&mut self, size: PassSize, took: Duration, now: Instant) -> Option<Note> {
        let usual = self.is_slow(size, took)?;
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < PAUSE) {
            self.n_more += 1;
            return None;
        }
        self.told = Some(now);
        Some(Note::Slow { size, took, usual, n_more: std::mem::take(&mut self.n_more) })
    }
}

impl Watch {
    pub(super) fn new(totals: &Arc<Totals>, log: ModelLog) -> Watch {
        Watch { totals: Arc::clone(totals), log, state: Mutex::default(), has_notes: AtomicBool::new(false) }
    }

    pub(super) fn totals(&self) -> &Arc<Totals> {
        &self.totals
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, note: Note) {
        let mut state = self.lock();
        // One that there is no memory for is not told of.
        if crate::alloc::reserve(&mut state.notes, 1).is_ok() {
            state.notes.push(note);
            self.has_notes.store(true, Ordering::Release);
        }
    }

    /// A pass has ended. One that failed, or was stopped, does not tell how long its like take.
    pub(super) fn passed(&self, size: PassSize, took: Duration, ended: Ended) {
        self.totals.passed(size, took);
        if !self.log.wants(LogLevel::Error) {
            return;
        }
        let note = match ended {
            Ended::Failed => None,
            Ended::Apart(error) => Some(Note::Apart { n_sessions: size.n_sessions, error }),
            Ended::Well => self.lock().note(size, took, Instant::now()),
        };
        if let Some(note) = note {
            self.keep(note);
        }
    }

    /// Tells the log what there is to tell; nobody waits for the caller.
    pub(super) fn tell(&self) {
        if !self.has_notes.load(Ordering::Acquire) {
            return;
        }
        let notes = {
            let mut state = self.lock();
            self.has_notes.store(false, Ordering::Release);
            std::mem::take(&mut state.notes)
        };
        for note in notes {
            match note {
                Note::Slow { size, took, usual, n_more } => self.tell_slow(size, took, usual, n_more),
                Note::Apart { n_sessions, error } => {
                    let level =
                        if matches!(error, Error::OutOfMemory { .. }) { LogLevel::Warn } else { LogLevel::Error };
                    let text =
                        format_args!("a pass of {n_sessions} sessions failed, each gets one of its own: {error}");
                    self.log.log(level, text);
                }
            }
        }
    }

    fn tell_slow(&self, size: PassSize, took: Duration, usual: Duration, n_more: u64) {
        let PassSize { n_sessions, n_tokens, .. } = size;
        let (took, usual) = (took.as_secs_f64() * 1e3, usual.as_secs_f64() * 1e3);
        self.log.log(
            LogLevel::Warn,
            format_args!(
                "a pass of {n_tokens} tokens of {n_sessions} sessions took {took:.0} ms, of that size they take {usual:.1}; \
                 {n_more} more were as slow since the last such message"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn step(n: usize) -> PassSize {
        PassSize { n_sessions: n, n_tokens: n, n_prompt: 0 }
    }

    #[test]
    fn a_pass_is_slow_beside_those_of_its_size_and_is_told_of_now_and_then() {
        let (mut state, now) = (State::default(), Instant::now());
        let mut note = |size, took, at| match state.note(size, took, at) {
            Some(Note::Slow { usual, n_more, .. }) => Some((usual, n_more)),
            _ => None,
        };
        // The first of all may take as long as they like, and each size has its own.
        for _ in 0..LEAST_KNOWN {
            assert_eq!(note(step(1), 10 * MS, now), None);
            assert_eq!(note(PassSize { n_prompt: 1, ..step(1) }, 900 * MS, now), None);
        }
        assert_eq!(note(step(4), 900 * MS, now), None);
        assert_eq!(note(step(1), 80 * MS, now), None);
        let usual = (10 * MS * 7 + 20 * MS) / 8;
        assert_eq!(note(step(1), 100 * MS, now), Some((usual, 0)));
        assert_eq!(note(step(1), 200 * MS, now + PAUSE / 2), None);
        assert_eq!(note(step(1), 200 * MS, now + PAUSE / 2), None);
        assert!(note(step(1), 900 * MS, now + PAUSE).is_some_and(|(_, n_more)| n_more == 2));
    }

    #[test]
    fn short_passes_are_never_slow() {
        let (mut state, now) = (State::default(), Instant::now());
        (0..20).for_each(|_| assert!(state.note(step(1), MS / 100, now).is_none()));
        assert!(state.note(step(1), 40 * MS, now).is_none());
        assert!(state.note(step(1), 60 * MS, now).is_some());
        assert!(state.note(step(100_000), MS, now).is_none());
    }
}
