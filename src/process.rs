//! What a library keeps apart from its host inside one process: the floating-point state, signals, panics' messages,
//! and children of fork().
//!
//! Invariants: code of ours that computes runs with the default floating-point state, and the host's own is back
//! whenever the host's code runs; no thread of ours takes a signal that is not its own fault; a panic inside a call
//! prints nothing.
#![allow(unsafe_code)]

mod thread_exit;

use std::cell::Cell;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::alloc;
use crate::error::{Error, Result};

/// What a thread takes beside its stack, more than was seen: what it cannot get it does not live without.
const THREAD_BYTES: usize = 64 << 10;

thread_local! {
    /// The host's floating-point state, while this thread is inside a call.
    static HOST: Cell<Option<float::State>> = const { Cell::new(None) };
    /// Whether panics of this thread are ours to report.
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// The processor's rounding mode and treatment of subnormal numbers.
#[cfg(target_arch = "x86_64")]
mod float {
    use std::arch::asm;

    /// MXCSR.
    pub type State = u32;
    /// Rounding to nearest, subnormal numbers kept, no exception traps.
    pub const DEFAULT: State = 0x1f80;

    pub fn read() -> State {
        let mut state: State = 0;
        // SAFETY: stores MXCSR, four bytes, at the address of `state`.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut state, options(nostack, preserves_flags)) };
        state
    }

    pub fn write(state: State) {
        // SAFETY: loads a value that came from MXCSR or is the default, so no reserved bit is set. The compiler takes
        // the default state for granted, which is what stands here wherever our code computes.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const state, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod float {
    use std::arch::asm;

    /// FPCR.
    pub type State = u64;
    /// Rounding to nearest, subnormal numbers kept, no exception traps.
    pub const DEFAULT: State = 0;

    pub fn read() -> State {
        let state: State;
        // SAFETY: reads a register that any program may read.
        unsafe { asm!("mrs {}, fpcr", out(reg) state, options(nostack, preserves_flags)) };
        state
    }

    pub fn write(state: State) {
        // SAFETY: a value that came from FPCR or is the default.
        unsafe { asm!("msr fpcr, {}", in(reg) state, options(nostack, preserves_flags)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod float {
    /// Nothing is known of this processor.
    pub type State = ();
    pub const DEFAULT: State = ();

    pub fn read() -> State {}
    pub fn write(_: State) {}
}

/// A thread inside a call, until this is dropped.
pub struct Inside {
    host: float::State,
    outer: Option<float::State>,
    ours: bool,
}

/// Begins a call on the host's thread.
pub fn enter() -> Inside {
    quiet();
    let host = float::read();
    float::write(float::DEFAULT);
    Inside { host, outer: HOST.replace(Some(host)), ours: OURS.replace(true) }
}

impl Drop for Inside {
    fn drop(&mut self) {
        HOST.set(self.outer);
        OURS.set(self.ours);
        float::write(self.host);
    }
}

/// Runs code of the host's, a callback, with the host's floating-point state.
pub fn outside<T>(callback: impl FnOnce() -> T) -> T {
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            float::write(float::DEFAULT);
        }
    }
    let Some(host) = HOST.get() else { return callback() };
    let _back = Back;
    float::write(host);
    callback()
}

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

/// What reported panics before us.
static BEFORE: OnceLock<Hook> = OnceLock::new();

fn report(info: &PanicHookInfo<'_>) {
    if !OURS.get()
        && let Some(before) = BEFORE.get()
    {
        before(info);
    }
}

/// Sees to it that panics inside of calls print nothing; others are reported as before. The shared library has a
/// standard library of its own, whose hook nobody else uses.
fn quiet() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.load(Ordering::Relaxed) || std::thread::panicking() || DONE.swap(true, Ordering::AcqRel) {
        return;
    }
    let _ = BEFORE.set(std::panic::take_hook());
    std::panic::set_hook(Box::new(report));
}

/// Runs `work` with all signals blocked on this thread but those that its own faults raise. Threads that start inside
/// inherit that, so that the host's signals go to the host's threads.
pub fn masked<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(unix)]
    {
        /// The host's mask, which comes back.
        struct Mask(libc::sigset_t);
        impl Drop for Mask {
            fn drop(&mut self) {
                // SAFETY: the mask is this thread's own, as it was read.
                unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
            }
        }
        // SAFETY: the sets are plain memory, which sigfillset and pthread_sigmask fill.
        let _mask = unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP] {
                libc::sigdelset(&raw mut all, fault);
            }
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Mask(before)
        };
        work()
    }
    #[cfg(not(unix))]
    work()
}

/// What every thread of ours begins with.
pub fn begin_thread() {
    quiet();
    OURS.set(true);
    float::write(float::DEFAULT);
}

/// Starts a thread of ours with a stack of so many bytes. `OutOfMemory` where the system gives none.
pub fn spawn<T: Send + 'static>(
    name: &str,
    stack: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(stack);
    let start = move || {
        begin_thread();
        body()
    };
    alloc::require(THREAD_BYTES).map_err(|_| no_thread(stack))?;
    masked(|| builder.spawn(start)).map_err(|_| no_thread(stack))
}

/// The failure where the system gives no thread with a stack of so many bytes.
pub fn no_thread(stack: usize) -> Error {
    Error::OutOfMemory { place: "thread".to_owned(), requested: stack as u64, free: 0 }
}

/// This process.
pub fn id() -> u32 {
    std::process::id()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn calls_compute_by_default_and_callbacks_as_their_host() {
        // Toward zero, flush to zero, subnormal inputs as zeros.
        let host = 0x1f80 | 0x6000 | 0x8000 | 0x40;
        let control = |state: u32| state & !0x3f;
        float::write(host);
        {
            let _call = enter();
            assert_eq!(control(float::read()), 0x1f80);
            outside(|| {
                assert_eq!(control(float::read()), host);
                let _again = enter();
                assert_eq!(control(float::read()), 0x1f80);
            });
            assert_eq!(control(float::read()), 0x1f80);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    begin_thread();
                    assert_eq!(control(float::read()), 0x1f80);
                });
            });
        }
        assert_eq!(control(float::read()), host);
        float::write(float::DEFAULT);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn threads_block_what_is_the_host_s() {
        let blocked = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status.lines().find_map(|l| l.strip_prefix("SigBlk:\t")).unwrap().to_owned();
            u64::from_str_radix(&line, 16).unwrap()
        };
        let before = blocked();
        let inside = spawn("kigo-test", 128 << 10, blocked).unwrap().join().unwrap();
        assert_eq!(blocked(), before);
        let has = |signal: i32| inside >> (signal - 1) & 1 == 1;
        assert!([libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGALRM, libc::SIGCHLD].into_iter().all(has));
        assert!(![libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP].into_iter().any(has));
    }
}
