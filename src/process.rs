//! What a library keeps apart from its host inside one process: the floating-point state, a device's context, signals,
//! panics' messages, and children of fork().
//!
//! Invariants: code of ours that computes runs with the default floating-point state, and the host's own is back
//! whenever the host's code runs, as is its device's context; no thread of ours takes a signal that is not its own fault; a panic inside a call
//! prints nothing.
#![allow(unsafe_code)]

#[cfg(fuzzing)]
mod parked;
mod placement;
mod stack;
mod thread_exit;
mod threads;

pub use placement::{MOST_CPUS, Placement, Policy};
pub use stack::{not_to_go_on, on_own_stack, on_own_stack_while};
pub use threads::{ThreadEvent, ThreadHook, ThreadKind, enclosed, enclosure, exchange_hook, hook, told};

use std::cell::Cell;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(fuzzing)]
pub use parked::JoinHandle;
#[cfg(not(fuzzing))]
pub use std::thread::JoinHandle;

use crate::alloc;
use crate::error::{Error, Result};

/// What a thread takes beside its stack, more than was seen: what it cannot get it does not live without.
const THREAD_BYTES: usize = 64 << 10;

thread_local! {
    /// The host's floating-point state, while this thread is inside a call.
    static HOST: Cell<Option<float::State>> = const { Cell::new(None) };
    /// What else of the host's this thread's call has put aside.
    static ASIDE: Cell<Option<Aside>> = const { Cell::new(None) };
    /// Whether panics of this thread are ours to report.
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// A value that a thread has one of, such as the context of a device, and how it is read and written.
#[derive(Clone, Copy)]
pub struct PerThread {
    /// What it is now.
    pub get: fn() -> usize,
    /// Makes it that.
    pub set: fn(usize),
}

#[derive(Clone, Copy)]
struct Aside {
    what: PerThread,
    host: usize,
}

/// To be called before the value is changed: the host's comes back when its call returns, and while a callback of its
/// runs. Of one call the first counts; on a thread of ours it is nobody else's.
pub fn put_aside(what: PerThread) {
    if HOST.get().is_some() && ASIDE.get().is_none() {
        ASIDE.set(Some(Aside { what, host: (what.get)() }));
    }
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
    aside: Option<Aside>,
    ours: bool,
}

/// Begins a call on the host's thread.
pub fn enter() -> Inside {
    quiet();
    let host = float::read();
    float::write(float::DEFAULT);
    Inside { host, outer: HOST.replace(Some(host)), aside: ASIDE.replace(None), ours: OURS.replace(true) }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some(Aside { what, host }) = ASIDE.replace(self.aside) {
            (what.set)(host);
        }
        HOST.set(self.outer);
        OURS.set(self.ours);
        float::write(self.host);
    }
}

/// Runs code of the host's, a callback, with the host's floating-point state and what else is put aside of its.
pub fn outside<T>(callback: impl FnOnce() -> T) -> T {
    /// What is ours.
    struct Back(Option<Aside>);
    impl Drop for Back {
        fn drop(&mut self) {
            float::write(float::DEFAULT);
            if let Some(Aside { what, host }) = self.0 {
                (what.set)(host);
            }
        }
    }
    let Some(host) = HOST.get() else { return callback() };
    let aside = ASIDE.get();
    let _back = Back(aside.map(|a| Aside { host: (a.what.get)(), ..a }));
    if let Some(Aside { what, host }) = aside {
        (what.set)(host);
    }
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

/// Bytes of every thread's stack that the thread-local variables of the host and its libraries take: glibc puts them there.
pub fn thread_local_bytes() -> usize {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        type Least = unsafe extern "C" fn(*const libc::pthread_attr_t) -> usize;
        // SAFETY: reads a name; of a C library without the function there is none.
        let least = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__pthread_get_minstack".as_ptr()) };
        if !least.is_null() {
            // SAFETY: glibc's function of this name has this type, and does not read its argument: it names what a thread
            // takes of its stack before it begins.
            return unsafe { std::mem::transmute::<*mut libc::c_void, Least>(least)(std::ptr::null()) };
        }
    }
    0
}

/// Starts a thread of ours for one thing that a call waits for, of which the host is told; it gives `None` where the host does not
/// let it go on ([`ThreadHook`]). As [`spawn`].
pub fn spawn_task<T: Send + 'static>(
    name: &str,
    stack: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<Option<T>>> {
    let (hook, own_name) = (hook(), name.to_owned());
    spawn(name, stack, move || told(hook.as_deref(), (&own_name, ThreadKind::Task, 0), body))
}

/// Starts a thread of ours with a stack of so many bytes. `OutOfMemory` where the system gives none.
pub fn spawn<T: Send + 'static>(
    name: &str,
    stack: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    alloc::require(THREAD_BYTES).map_err(|_| no_thread(stack))?;
    #[cfg(fuzzing)]
    return parked::spawn(name, stack, body);
    #[cfg(not(fuzzing))]
    {
        let bytes = stack.saturating_add(thread_local_bytes());
        let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(bytes);
        let start = move || {
            begin_thread();
            body()
        };
        masked(|| builder.spawn(start)).map_err(|_| no_thread(stack))
    }
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
    fn what_is_put_aside_is_the_host_s_again_in_callbacks_and_behind_the_call() {
        thread_local!(static VALUE: Cell<usize> = const { Cell::new(7) });
        let what = PerThread { get: || VALUE.get(), set: |v| VALUE.set(v) };
        let take = |ours: usize| {
            put_aside(what);
            VALUE.set(ours);
        };
        {
            let _call = enter();
            take(1);
            take(2);
            outside(|| {
                assert_eq!(VALUE.get(), 7);
                // The host's code changes it, and calls again.
                VALUE.set(8);
                {
                    let _again = enter();
                    take(3);
                    assert_eq!(VALUE.get(), 3);
                }
                assert_eq!(VALUE.get(), 8);
                drop(enter());
                assert_eq!(VALUE.get(), 8);
            });
            assert_eq!(VALUE.get(), 2);
        }
        assert_eq!(VALUE.get(), 7);
        {
            let _call = enter();
            // A call that does not touch it.
            outside(|| VALUE.set(9));
        }
        assert_eq!(VALUE.get(), 9);
        take(4);
        assert_eq!(VALUE.get(), 4, "on a thread of ours it stays");
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
