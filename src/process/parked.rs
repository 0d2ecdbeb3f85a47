//! In a fuzzer alone: threads that are used again. Under a sanitizer a thread costs a millisecond, which is more than all
//! else that most cases take.
//!
//! Invariants: a thread runs one body at a time, with the stack that was asked for; a handle that was joined has nothing
//! of its body left; a thread that is sent away has ended before anything else goes on, so that who looks for leaks does not
//! see what it was giving back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::{begin_thread, masked, no_thread};
use crate::error::Result;

/// So many wait for a body; the oldest beyond that ends.
const MOST: usize = 8;

type Body = Box<dyn FnOnce() + Send>;

/// A thread that waits.
struct Idle {
    stack: usize,
    /// Where the next body goes; the thread ends without one.
    bodies: Sender<Body>,
    thread: thread::JoinHandle<()>,
}

static IDLE: Mutex<Vec<Idle>> = Mutex::new(Vec::new());

/// In the place of the standard library's.
pub struct JoinHandle<T>(Mutex<Receiver<thread::Result<T>>>);

impl<T> JoinHandle<T> {
    /// What the body returned, or its panic.
    pub fn join(self) -> thread::Result<T> {
        let outcome = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcome.recv().unwrap_or_else(|gone| Err(Box::new(gone)))
    }
}

fn idle() -> std::sync::MutexGuard<'static, Vec<Idle>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn begin(name: &str, stack: usize) -> Result<Idle> {
    let (bodies, next) = channel::<Body>();
    let serve = move || {
        while let Ok(body) = next.recv() {
            begin_thread();
            body();
        }
    };
    let builder = thread::Builder::new().name(name.to_owned()).stack_size(stack + super::thread_local_bytes());
    let thread = masked(|| builder.spawn(serve)).map_err(|_| no_thread(stack))?;
    Ok(Idle { stack, bodies, thread })
}

/// Runs it on a thread that waits, or on one more.
pub fn spawn<T: Send + 'static>(
    name: &str,
    stack: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    let waits = {
        let mut idle = idle();
        idle.iter().rposition(|thread| thread.stack == stack).map(|at| idle.remove(at))
    };
    let Idle { bodies, thread, .. } = match waits {
        Some(thread) => thread,
        None => begin(name, stack)?,
    };
    let (outcome, handle) = channel();
    let again = bodies.clone();
    let run = Box::new(move || {
        let done = catch_unwind(AssertUnwindSafe(body));
        let oldest = {
            let mut idle = idle();
            idle.push(Idle { stack, bodies: again, thread });
            (idle.len() > MOST).then(|| idle.remove(0))
        };
        if let Some(Idle { bodies, thread, .. }) = oldest {
            drop(bodies);
            let _ = thread.join();
        }
        let _ = outcome.send(done);
    });
    bodies.send(run).map_err(|_| no_thread(stack))?;
    Ok(JoinHandle(Mutex::new(handle)))
}
