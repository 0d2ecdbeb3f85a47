//! The calls of a model that wait for a pass: whose turn it is, and what goes together.
//!
//! Invariant: whoever leads a pass runs the parts of others too, which wait for it; whatever happens, they are told.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::order::{Place, Rules, next};
use super::pace::{Steppers, bound, mean, within};
use super::part::{Part, run, run_tapped};
use super::watch::{Ended, Watch};
use crate::backend::{LoadedModel, TapObserver};
use crate::engine::figures::{Counted, PassSize, Totals};
use crate::engine::log::ModelLog;
use crate::error::{Error, Result};

/// How a model's passes are made.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Passes {
    /// Calls of different threads share them.
    pub(in crate::engine) merge: bool,
    /// The most tokens of prompts; `None`: by what is measured.
    pub(in crate::engine) tokens: Option<usize>,
}

/// Where the calls that run a model's passes meet.
pub(in crate::engine) struct Line {
    rules: Rules,
    /// See [`LoadedModel::pass_alignment`].
    alignment: Option<usize>,
    /// The caller's bound.
    tokens: Option<usize>,
    steppers: Arc<Steppers>,
    watch: Watch,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Ticket>,
    done: HashMap<u64, Vec<Result<()>>>,
    next: u64,
    running: bool,
    /// Calls that were about when the last pass ended, and how long it took.
    expected: usize,
    took: Duration,
    /// Passes with tokens of prompts that have ended, and what such a token takes.
    ended: u64,
    token: Duration,
}

/// What one call wants run.
struct Ticket {
    number: u64,
    place: Place,
    parts: Vec<Part>,
    /// Among those who wait.
    _waiting: Counted,
}

/// What a pass of these has in it.
fn size(parts: &[Part]) -> PassSize {
    let n_tokens = parts.iter().map(|p| p.tokens.len()).sum();
    let n_prompt = parts.iter().filter(|p| !p.is_step).map(|p| p.tokens.len()).sum();
    PassSize { n_sessions: parts.len(), n_tokens, n_prompt }
}

/// The longest wait for calls that were in the pass before. A part of the pass's own length at most, see `lead`.
const LONGEST_WAIT: Duration = Duration::from_millis(2);

/// Passes with fewer tokens of prompts do not tell what one takes.
const SHORT: usize = 8;

/// A number of the calling thread, as long as it lives.
fn here() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

impl Line {
    /// A line that nobody stands in.
    pub(in crate::engine) fn new(
        loaded: &dyn LoadedModel,
        passes: Passes,
        steppers: &Arc<Steppers>,
        totals: &Arc<Totals>,
        log: ModelLog,
    ) -> Line {
        let (alignment, most) = (loaded.pass_alignment(), loaded.prefill_chunk());
        let rules = Rules { merges: passes.merge, is_bounded: alignment.is_some(), most };
        let tokens = passes.tokens.map(|n| n.clamp(1, most));
        let (steppers, watch) = (Arc::clone(steppers), Watch::new(totals, log));
        Line { rules, alignment, tokens, steppers, watch, queue: Mutex::default(), changed: Condvar::new() }
    }

    /// Whether calls of different threads share passes.
    pub(in crate::engine) fn merges(&self) -> bool {
        self.rules.merges
    }

    /// The most tokens of a pass.
    pub(in crate::engine) fn most(&self) -> usize {
        self.rules.most
    }

    /// The most tokens of prompts that a pass has whose activations are shown: the same whoever steps, as what is shown of a
    /// prompt comes in as many events as there are passes.
    pub(in crate::engine) fn steady_bound(&self) -> usize {
        self.tokens.filter(|_| self.rules.is_bounded).unwrap_or(self.rules.most)
    }

    /// The most tokens of prompts that a pass of this thread should have now.
    pub(in crate::engine) fn bound(&self) -> usize {
        match (self.alignment, self.tokens) {
            (None, _) => self.rules.most,
            (_, Some(tokens)) => tokens,
            _ => {
                let token = self.lock().token;
                bound(self.steppers.beside(here()), token, self.rules.most)
            }
        }
    }

    /// [`Self::bound`] where the call should come back about this time after it has begun, and may have steps of its own.
    pub(in crate::engine) fn bound_within(&self, steps: bool, time: Duration) -> usize {
        if self.alignment.is_none() || self.tokens.is_some() {
            return self.bound();
        }
        let token = self.lock().token;
        let beside = self.steppers.beside(here()).or_else(|| steps.then(|| self.steppers.step()));
        bound(beside, token, self.rules.most).min(within(time, token, self.rules.most))
    }

    /// How many of `left` tokens that begin at a position make a part of `most`, or more where they cannot be cut earlier.
    pub(in crate::engine) fn cut(&self, start: usize, left: usize, most: usize) -> usize {
        match self.alignment {
            Some(multiple) if left > most => {
                let end = (start + most) / multiple * multiple;
                if end > start { end - start } else { left.min(multiple - start % multiple) }
            }
            _ => left.min(most),
        }
    }

    /// Calls that wait for a pass; those in the one that runs do not.
    pub(in crate::engine) fn n_waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the parts as [`run`] does, when it is their turn, in a pass with what other threads want run if calls are merged.
    pub(in crate::engine) fn run(&self, loaded: &dyn LoadedModel, parts: Vec<Part>) -> Vec<Result<()>> {
        if self.rules.merges || self.rules.is_bounded { self.stand(loaded, parts) } else { self.pass(loaded, &parts).0 }
    }

    /// Tells the log of passes, where the host's code may run.
    pub(in crate::engine) fn tell(&self) {
        self.watch.tell();
    }

    /// Runs one part, alone and on this thread, and shows its activations.
    pub(in crate::engine) fn run_tapped(
        &self,
        loaded: &dyn LoadedModel,
        part: &Part,
        tap: &mut dyn TapObserver,
    ) -> Result<()> {
        let _running = self.watch.totals().running(1);
        let begin = Instant::now();
        part.clocks.waited(begin.saturating_duration_since(part.since));
        let outcome = run_tapped(loaded, part, tap);
        let ended = if outcome.is_ok() { Ended::Well } else { Ended::Failed };
        self.watch.passed(size(std::slice::from_ref(part)), begin.elapsed(), ended);
        outcome
    }

    /// Runs the parts in a pass; how long it has taken.
    fn pass(&self, loaded: &dyn LoadedModel, parts: &[Part]) -> (Vec<Result<()>>, Duration) {
        let _running = self.watch.totals().running(parts.len());
        let begin = Instant::now();
        for part in parts {
            part.clocks.waited(begin.saturating_duration_since(part.since));
        }
        // Whatever happens, those who wait are told.
        let (results, apart) = catch_unwind(AssertUnwindSafe(|| run(loaded, parts))).unwrap_or_else(|panic| {
            std::mem::forget(panic);
            let lost = || Error::Internal { message: "a panic between passes".to_owned() };
            (parts.iter().map(|_| Err(lost())).collect(), None)
        });
        let took = begin.elapsed();
        let ended = match apart {
            Some(error) => Ended::Apart(error),
            None if results.iter().all(Result::is_ok) => Ended::Well,
            None => Ended::Failed,
        };
        self.watch.passed(size(parts), took, ended);
        (results, took)
    }

    /// Stands in the line until the parts have been run.
    fn stand(&self, loaded: &dyn LoadedModel, parts: Vec<Part>) -> Vec<Result<()>> {
        let PassSize { n_sessions, n_tokens, n_prompt } = size(&parts);
        if n_prompt < n_tokens {
            self.steppers.steps(here());
        }
        let bound = if n_prompt > 0 { self.bound() } else { 0 };
        let _waiting = self.watch.totals().waiting(n_sessions);
        let mut queue = self.lock();
        let number = queue.next;
        queue.next += 1;
        let place = Place { n_tokens, n_prompt, bound, came: queue.ended };
        queue.waiting.push_back(Ticket { number, place, parts, _waiting });
        self.changed.notify_all();
        loop {
            if let Some(results) = queue.done.remove(&number) {
                return results;
            }
            queue = if queue.running || !self.may_lead(&queue, number) {
                self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.lead(loaded, queue)
            };
        }
    }

    fn chosen(&self, queue: &Queue) -> Vec<usize> {
        let places: Vec<Place> = queue.waiting.iter().map(|ticket| ticket.place).collect();
        next(&places, queue.ended, self.rules)
    }

    /// Whether the call with this number may run the next pass: everyone where it is for others too, else whose turn it is.
    fn may_lead(&self, queue: &Queue, number: u64) -> bool {
        let first = || self.chosen(queue).first().and_then(|index| queue.waiting.get(*index));
        self.rules.merges || first().is_some_and(|ticket| ticket.number == number)
    }

    /// Waits for those of the last pass, who are choosing their tokens and will be back: with them is better than after them.
    fn gather<'a>(&self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        let wait = (queue.took / 4).min(LONGEST_WAIT);
        let begin = Instant::now();
        while self.rules.merges && queue.waiting.len() < queue.expected && begin.elapsed() < wait {
            let left = wait.saturating_sub(begin.elapsed());
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue
    }

    /// Runs one pass for those who wait, perhaps without the caller's own part if there are many.
    fn lead<'a>(&'a self, loaded: &dyn LoadedModel, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        queue.running = true;
        queue = self.gather(queue);
        let chosen = self.chosen(&queue);
        let mut tickets: Vec<Ticket> = chosen.iter().rev().filter_map(|index| queue.waiting.remove(*index)).collect();
        tickets.reverse();
        drop(queue);
        let n_prompt = tickets.iter().map(|t| t.place.n_prompt).sum();
        let lens: Vec<(u64, usize)> = tickets.iter().map(|t| (t.number, t.parts.len())).collect();
        let parts: Vec<Part> = tickets.into_iter().flat_map(|ticket| ticket.parts).collect();
        let (results, took) = self.pass(loaded, &parts);
        drop(parts);
        if results.iter().all(Result::is_ok) {
            self.steppers.passed(n_prompt, took);
        }
        let mut queue = self.lock();
        queue.took = took;
        queue.expected = lens.len() + queue.waiting.len();
        if n_prompt > 0 {
            queue.ended += 1;
            // Of a short one the time is mostly that of reading the weights.
            if n_prompt >= SHORT && results.iter().all(Result::is_ok) {
                queue.token = mean(queue.token, took / u32::try_from(n_prompt).unwrap_or(u32::MAX));
            }
        }
        let mut results = results.into_iter();
        for (number, n) in lens {
            queue.done.insert(number, results.by_ref().take(n).collect());
        }
        queue.running = false;
        self.changed.notify_all();
        queue
    }
}
