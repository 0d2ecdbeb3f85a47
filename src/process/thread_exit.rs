//! Destructors of thread-local values, without the C library's list of them.
//!
//! Rust's standard library registers each through `__cxa_thread_atexit_impl` if there is one. That of glibc ends the
//! process where it finds no memory for its list. So here is another, which the linker prefers and shows to nobody else:
//! where there is no memory the value is left alone, a few bytes that a thread's end would have freed.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

type Destroy = unsafe extern "C" fn(*mut c_void);

/// One value of a thread's.
struct Entry {
    destroy: Destroy,
    value: *mut c_void,
    next: *mut Entry,
}

thread_local! {
    /// The newest first.
    static ENTRIES: Cell<*mut Entry> = const { Cell::new(std::ptr::null_mut()) };
}

/// A key whose destructor runs at a thread's end; 0: none yet, else the key and one.
static KEY: AtomicUsize = AtomicUsize::new(0);

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".globl __cxa_thread_atexit_impl",
    ".hidden __cxa_thread_atexit_impl",
    ".type __cxa_thread_atexit_impl,@function",
    "__cxa_thread_atexit_impl:",
    "jmp {register}",
    register = sym register,
);
#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".globl __cxa_thread_atexit_impl",
    ".hidden __cxa_thread_atexit_impl",
    ".type __cxa_thread_atexit_impl,%function",
    "__cxa_thread_atexit_impl:",
    "b {register}",
    register = sym register,
);

/// The key, made by the first who needs it; `None`: there is none to be had.
fn key() -> Option<libc::pthread_key_t> {
    let known = KEY.load(Ordering::Acquire);
    if known != 0 {
        return Some((known - 1) as libc::pthread_key_t);
    }
    let mut made: libc::pthread_key_t = 0;
    // SAFETY: `made` is a local, `run` a function of this library, which is never unloaded.
    if unsafe { libc::pthread_key_create(&raw mut made, Some(run)) } != 0 {
        return None;
    }
    match KEY.compare_exchange(0, made as usize + 1, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(made),
        Err(other) => {
            // SAFETY: made above, and nobody else knows it.
            unsafe { libc::pthread_key_delete(made) };
            Some((other - 1) as libc::pthread_key_t)
        }
    }
}

unsafe extern "C" fn register(destroy: Destroy, value: *mut c_void, _library: *mut c_void) -> c_int {
    let Some(key) = key() else { return 0 };
    // SAFETY: an Entry's bytes, written before anybody sees them; the key exists.
    unsafe {
        let entry = libc::malloc(size_of::<Entry>()).cast::<Entry>();
        // Any value but NULL: the destructor then runs.
        if entry.is_null() || libc::pthread_setspecific(key, entry.cast()) != 0 {
            libc::free(entry.cast());
            return 0;
        }
        entry.write(Entry { destroy, value, next: ENTRIES.get() });
        ENTRIES.set(entry);
    }
    0
}

/// A thread ends: its values go, the newest first.
unsafe extern "C" fn run(_: *mut c_void) {
    loop {
        let entry = ENTRIES.get();
        if entry.is_null() {
            return;
        }
        // SAFETY: `register` has made the entry, for this thread alone; the value is as its owner registered it.
        unsafe {
            let Entry { destroy, value, next } = entry.read();
            ENTRIES.set(next);
            libc::free(entry.cast());
            destroy(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn count(value: *mut c_void) {
        // SAFETY: the test's own counter.
        unsafe { (*value.cast::<AtomicUsize>()).fetch_add(1, Ordering::SeqCst) };
    }

    /// Registers another value while the first goes.
    unsafe extern "C" fn again(value: *mut c_void) {
        // SAFETY: as in `count`.
        unsafe {
            count(value);
            register(count, value, std::ptr::null_mut());
        }
    }

    #[test]
    fn values_go_when_their_thread_ends() {
        let seen = AtomicUsize::new(0);
        let at = &raw const seen as usize;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for destroy in [count as Destroy, again, count] {
                    // SAFETY: the counter outlives the thread.
                    unsafe { register(destroy, at as *mut c_void, std::ptr::null_mut()) };
                }
            });
        });
        // The scope may end before its thread's last values are gone.
        while seen.load(Ordering::SeqCst) < 4 {
            std::thread::yield_now();
        }
        assert_eq!(seen.load(Ordering::SeqCst), 4);
    }
}
