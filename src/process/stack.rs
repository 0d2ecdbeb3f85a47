//! A thread with a stack that is known, for what recurses as deep as texts from anywhere make it: a host's thread may be small.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::spawn_task;
use crate::error::{Error, Result};

/// How long the caller's `go_on` waits to be asked again.
const POLL: Duration = Duration::from_millis(5);

/// Runs `call` on a thread of this name with a stack of so many bytes. The thread owns what it works on, and has ended when
/// this returns. Fails with `OutOfMemory` where there is no such thread to be had, with `Refused` where the host does not let it
/// go on, and with `panicked` if the call panics.
pub fn on_own_stack<T: Send + 'static>(
    name: &str,
    stack: usize,
    panicked: Error,
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_task(name, stack, call)?.join().map_or(Err(panicked), |ran| ran.unwrap_or_else(|| Err(not_to_go_on())))
}

/// [`on_own_stack`] while `go_on` is asked on the caller's thread, every few milliseconds; `stop` is called once it says no,
/// and the outcome is [`Error::Cancelled`] then. Fails with `Refused` where the host does not let the thread go on, and with
/// `Internal` if the call panics.
pub fn on_own_stack_while<T: Send + 'static>(
    name: &str,
    stack: usize,
    go_on: &mut dyn FnMut() -> bool,
    stop: &dyn Fn(),
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (done, waits) = sync_channel::<()>(1);
    let run = move || {
        // The receiver is told by this being dropped, also by a panic.
        let _done = done;
        call()
    };
    let thread = spawn_task(name, stack, run)?;
    let mut stopped = false;
    while !stopped && waits.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
        stopped = !go_on();
    }
    if stopped {
        stop();
    }
    match thread.join() {
        Ok(Some(outcome)) if !stopped => outcome,
        Ok(None) if !stopped => Err(not_to_go_on()),
        Err(_) if !stopped => Err(failed(name)),
        _ => Err(Error::Cancelled),
    }
}

/// The failure of what a thread was for that the host does not let go on.
pub fn not_to_go_on() -> Error {
    Error::Refused { what: "on_thread" }
}

fn failed(name: &str) -> Error {
    Error::Internal { message: format!("a panic on the thread {name}") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const STACK: usize = 256 << 10;

    #[test]
    fn results_and_panics_come_back() {
        let refused = || Error::NotFound { what: "test", name: "refused".into() };
        assert_eq!(on_own_stack("kigo-test", STACK, refused(), || Ok(7)).unwrap(), 7);
        let name = || std::thread::current().name().map(str::to_owned);
        let named = on_own_stack("kigo-test", STACK, refused(), move || Ok(name())).unwrap();
        assert_eq!(named.as_deref(), Some("kigo-test"));
        // As in a dependency: a text cut inside of a character.
        let at = std::hint::black_box(1);
        let outcome = on_own_stack("kigo-test", STACK, refused(), move || Ok("é"[..at].to_owned()));
        assert!(matches!(&outcome, Err(Error::NotFound { .. })), "{outcome:?}");
        let panicked = || -> Result<()> { panic!("injected") };
        let outcome = on_own_stack_while("kigo-test", STACK, &mut || true, &|| (), panicked);
        assert!(outcome.unwrap_err().to_string().contains("kigo-test"));
        let outcome = on_own_stack("kigo-test", usize::MAX / 2, refused(), || Ok(()));
        assert!(matches!(outcome, Err(Error::OutOfMemory { .. })));
    }

    #[test]
    fn a_caller_that_says_no_stops_the_call_and_waits_for_it() {
        let (stopped, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (asked, at_end) = (Arc::clone(&stopped), Arc::clone(&ended));
        let call = move || {
            while !asked.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(1));
            }
            at_end.store(true, Ordering::Release);
            Ok(())
        };
        let mut n = 0;
        let mut go_on = || {
            n += 1;
            n < 4
        };
        let stop = || stopped.store(true, Ordering::Release);
        let outcome = on_own_stack_while("kigo-test", STACK, &mut go_on, &stop, call);
        assert!(matches!(outcome, Err(Error::Cancelled)));
        assert!(ended.load(Ordering::Acquire) && n == 4);
    }
}
