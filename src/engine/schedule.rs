//! Passes over the weights that sequences share: with others of the same call, and with calls of other threads where
//! the model was loaded to merge them.
//!
//! Invariants: a part's result is the one it would have alone; what goes wrong with one is nobody else's, not even a
//! panic; whoever leads a pass runs the parts of others too, which wait for it.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::slot::{SharedSlot, lock_slot};
use crate::backend::{Chunk, LoadedModel, RunControl, TapObserver, Want};
use crate::error::{Error, Result};

/// Consecutive tokens of one sequence, with all that a pass on another thread needs of it.
pub(super) struct Part {
    pub(super) tokens: Vec<u32>,
    pub(super) start: usize,
    pub(super) pages: Vec<u32>,
    /// Not shared with a fork: a pass writes it.
    pub(super) slot: SharedSlot,
    pub(super) want: Want,
    /// See [`Chunk::by_steps`].
    pub(super) by_steps: bool,
    pub(super) cancel: Arc<AtomicBool>,
}

/// One pass over the weights for some of the parts; the results of all of them, in order.
fn forward<'a>(
    loaded: &dyn LoadedModel,
    parts: &[&Part],
    cancel: &'a AtomicBool,
    tap: Option<&'a mut dyn TapObserver>,
) -> Result<()> {
    let mut slots: Vec<_> = parts.iter().map(|p| lock_slot(&p.slot)).collect();
    let mut chunks: Vec<_> = parts
        .iter()
        .zip(&mut slots)
        .map(|(p, slot)| {
            let (tokens, start, pages, slot) = (&*p.tokens, p.start, &*p.pages, &mut ***slot);
            Chunk { tokens, start, pages, slot, want: p.want, by_steps: p.by_steps }
        })
        .collect();
    let mut run = RunControl { cancel, tap };
    // A panic in a backend is a defect of the library; it may be one part's alone.
    catch_unwind(AssertUnwindSafe(|| loaded.forward(&mut chunks, &mut run))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(|s| &**s));
        let message = text.unwrap_or("a panic in the backend").to_owned();
        // Its destructor is code we do not know.
        std::mem::forget(panic);
        Err(Error::Internal { message })
    })
}

/// Runs one part, alone and on this thread, and shows its activations.
pub(super) fn run_tapped(loaded: &dyn LoadedModel, part: &Part, tap: &mut dyn TapObserver) -> Result<()> {
    forward(loaded, &[part], &part.cancel, Some(tap))
}

/// Runs the parts in one pass. Where that fails each is run alone, so that only whose fault it is fails: a pass that
/// fails has written nothing that its repetition would see.
pub(super) fn run(loaded: &dyn LoadedModel, parts: &[Part]) -> Vec<Result<()>> {
    let alive = |p: &Part| !p.cancel.load(Ordering::Acquire);
    let together: Vec<&Part> = parts.iter().filter(|p| alive(p)).collect();
    let never = AtomicBool::new(false);
    let shared = together.len() > 1 && forward(loaded, &together, &never, None).is_ok();
    let mut ran = together.iter().map(|p| std::ptr::from_ref(*p)).collect::<Vec<_>>().into_iter().peekable();
    parts
        .iter()
        .map(|part| match ran.next_if_eq(&std::ptr::from_ref(part)) {
            None => Err(Error::Cancelled),
            Some(_) if shared => Ok(()),
            Some(_) if part.cancel.load(Ordering::Acquire) => Err(Error::Cancelled),
            Some(_) => forward(loaded, &[part], &part.cancel, None),
        })
        .collect()
}

/// Joins the parts of calls that run at the same time on different threads.
#[derive(Default)]
pub(super) struct Coalescer {
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
}

/// What one call wants run.
struct Ticket {
    number: u64,
    n_tokens: usize,
    parts: Vec<Part>,
}

/// The longest wait for calls that were in the pass before. A part of the pass's own length at most, see `lead`.
const LONGEST_WAIT: Duration = Duration::from_millis(2);

impl Coalescer {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the parts as [`run`] does, in a pass with whatever other threads want run now.
    pub(super) fn run(&self, loaded: &dyn LoadedModel, parts: Vec<Part>) -> Vec<Result<()>> {
        let mut queue = self.lock();
        let number = queue.next;
        queue.next += 1;
        let n_tokens = parts.iter().map(|p| p.tokens.len()).sum();
        queue.waiting.push_back(Ticket { number, n_tokens, parts });
        self.changed.notify_all();
        loop {
            if let Some(results) = queue.done.remove(&number) {
                return results;
            }
            queue = match queue.running {
                true => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                false => self.lead(loaded, queue),
            };
        }
    }

    /// Runs one pass for those who wait, perhaps without the caller's own part if there are many.
    fn lead<'a>(&'a self, loaded: &dyn LoadedModel, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        queue.running = true;
        // Those of the last pass are choosing their tokens and will be back: with them is better than after them.
        let wait = (queue.took / 4).min(LONGEST_WAIT);
        let begin = Instant::now();
        while queue.waiting.len() < queue.expected && begin.elapsed() < wait {
            let left = wait.saturating_sub(begin.elapsed());
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let most = loaded.prefill_chunk();
        let (mut tickets, mut n_tokens) = (Vec::new(), 0);
        while let Some(ticket) = queue.waiting.pop_front() {
            if !tickets.is_empty() && n_tokens + ticket.n_tokens > most {
                queue.waiting.push_front(ticket);
                break;
            }
            n_tokens += ticket.n_tokens;
            tickets.push(ticket);
        }
        drop(queue);
        let begin = Instant::now();
        let lens: Vec<(u64, usize)> = tickets.iter().map(|t| (t.number, t.parts.len())).collect();
        let parts: Vec<Part> = tickets.into_iter().flat_map(|t| t.parts).collect();
        // Whatever happens, those who wait are told.
        let results = catch_unwind(AssertUnwindSafe(|| run(loaded, &parts))).unwrap_or_else(|panic| {
            std::mem::forget(panic);
            let lost = || Error::Internal { message: "a panic between passes".to_owned() };
            parts.iter().map(|_| Err(lost())).collect()
        });
        let mut results = results.into_iter();
        drop(parts);
        let mut queue = self.lock();
        queue.took = begin.elapsed();
        queue.expected = lens.len() + queue.waiting.len();
        for (number, n) in lens {
            queue.done.insert(number, results.by_ref().take(n).collect());
        }
        queue.running = false;
        self.changed.notify_all();
        queue
    }
}
