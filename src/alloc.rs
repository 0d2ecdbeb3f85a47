//! Memory: asked for before it is needed, and kept for emergencies.
//!
//! Rust ends the process where an allocation fails that nobody asked about, in our code or a dependency's. So, in this
//! order: our own code reserves with [`reserve`] where a size comes from outside or grows with the call; before a
//! dependency runs, [`require`] asks for as much as was measured that it takes; and what is left, small allocations of
//! which no call makes many, comes out of `ARENA` where the system has nothing. Whatever a call would keep of that
//! it gives back and fails instead ([`enough`]), and where the arena runs low no call goes on ([`room`]).
//!
//! Invariant: an allocation is the arena's exactly if its address lies inside, and the arena is empty again when the
//! last of them has been given back.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::collections::TryReserveError;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Bytes kept for emergencies: address space of the library's, of which no page is touched before.
const ARENA_BYTES: usize = 4 << 20;
/// Where more of it is taken, no call goes on.
const LOW: u64 = ARENA_BYTES as u64 / 2;
/// What a call may need beside what it asks for.
const CALL_BYTES: usize = 1 << 20;
/// At least the library's thread-local data, which the system allocates at a thread's first call, and without which it
/// ends the process.
const THREAD_BYTES: usize = 8 << 10;

#[repr(align(4096))]
struct Arena {
    bytes: UnsafeCell<[u8; ARENA_BYTES]>,
    /// `bytes taken << 32 | allocations that live`.
    taken: AtomicU64,
}

// SAFETY: `taken` hands every byte to one owner at a time.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena { bytes: UnsafeCell::new([0; ARENA_BYTES]), taken: AtomicU64::new(0) };

thread_local! {
    /// This thread asks, and can take a refusal.
    static ASKS: Cell<bool> = const { Cell::new(false) };
    /// This thread has been given memory of the arena since its call began.
    static SHORT: Cell<bool> = const { Cell::new(false) };
}

impl Arena {
    fn start(&self) -> usize {
        self.bytes.get() as usize
    }

    fn has(&self, pointer: *mut u8) -> bool {
        (pointer as usize).wrapping_sub(self.start()) < ARENA_BYTES
    }

    /// NULL: there is not so much left.
    fn take(&self, layout: Layout) -> *mut u8 {
        let mut place = 0;
        let fits = |taken: u64| {
            let at = (self.start() + (taken >> 32) as usize).checked_next_multiple_of(layout.align())? - self.start();
            let end = at.checked_add(layout.size()).filter(|end| *end <= ARENA_BYTES)?;
            place = at;
            Some((end as u64) << 32 | ((taken & 0xffff_ffff) + 1))
        };
        match self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(_) => {
                SHORT.set(true);
                (self.start() + place) as *mut u8
            }
            Err(_) => std::ptr::null_mut(),
        }
    }

    fn give_back(&self) {
        let less = |taken: u64| Some(if taken & 0xffff_ffff == 1 { 0 } else { taken - 1 });
        let _ = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    fn used(&self) -> u64 {
        self.taken.load(Ordering::Relaxed) >> 32
    }
}

/// The system's allocator, and the arena behind it.
struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

impl Allocator {
    fn emergency(&self, layout: Layout) -> *mut u8 {
        if ASKS.get() { std::ptr::null_mut() } else { ARENA.take(layout) }
    }
}

// SAFETY: each allocation is the system's or the arena's; which of them its address tells.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let refused = watch::refuses(layout.size());
        // SAFETY: passed on from this function's contract.
        let pointer = if refused { std::ptr::null_mut() } else { unsafe { System.alloc(layout) } };
        if pointer.is_null() { self.emergency(layout) } else { watch::took(pointer, layout.size()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let refused = watch::refuses(layout.size());
        // SAFETY: passed on from this function's contract.
        let pointer = if refused { std::ptr::null_mut() } else { unsafe { System.alloc_zeroed(layout) } };
        if !pointer.is_null() {
            return watch::took(pointer, layout.size());
        }
        let pointer = self.emergency(layout);
        if !pointer.is_null() {
            // SAFETY: the arena has just given so many bytes there, which may have been used before.
            unsafe { pointer.write_bytes(0, layout.size()) };
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if ARENA.has(pointer) {
            ARENA.give_back();
        } else {
            watch::gave_back(layout.size());
            // SAFETY: not the arena's, so the system's; the rest is passed on from this function's contract.
            unsafe { System.dealloc(pointer, layout) };
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !ARENA.has(pointer) && !watch::refuses(new_size) {
            // SAFETY: not the arena's, so the system's; the rest is passed on from this function's contract.
            let moved = unsafe { System.realloc(pointer, layout, new_size) };
            if !moved.is_null() {
                // Both may have been there for a moment.
                let moved = watch::took(moved, new_size);
                watch::gave_back(layout.size());
                return moved;
            }
        }
        // SAFETY: the caller's contract is that the new size makes a layout; both blocks are at least as long as what is
        // copied, and the old one is this allocator's.
        unsafe {
            let new = Layout::from_size_align_unchecked(new_size, layout.align());
            let moved = self.alloc(new);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(pointer, layout.size().min(new_size));
                self.dealloc(pointer, layout);
            }
            moved
        }
    }
}

/// Whether the system can still make what a thread needs at its first call. Touches nothing thread-local.
pub fn thread_can_begin() -> bool {
    // SAFETY: freed where it was given; black_box keeps the pair from being optimized away.
    unsafe {
        let probe = std::hint::black_box(libc::malloc(THREAD_BYTES));
        libc::free(probe);
        !probe.is_null()
    }
}

/// A call begins on this thread.
pub fn begin() {
    SHORT.set(false);
}

/// `OutOfMemory` where the system has nothing and too little is kept for a call.
pub fn room() -> Result<()> {
    if ARENA.used() > LOW { require(CALL_BYTES) } else { Ok(()) }
}

/// `OutOfMemory` where this thread was given memory of the arena since its call began: nothing made of it is kept.
pub fn enough() -> Result<()> {
    if SHORT.get() {
        return Err(Error::OutOfMemory { place: "host".to_owned(), requested: ARENA.used(), free: 0 });
    }
    Ok(())
}

/// Asks the system for `bytes` and gives them back at once: `OutOfMemory` where they are not to be had.
///
/// It stands in front of a dependency's work, whose allocations would end the process if they failed.
pub fn require(bytes: usize) -> Result<()> {
    // Under a sanitizer a large block costs an eighth of its bytes in page faults: there it is counted, and that is all.
    #[cfg(fuzzing)]
    if (64 << 10..1 << 30).contains(&bytes) {
        return if watch::has(bytes) { Ok(()) } else { Err(refused::<u8>(bytes)) };
    }
    reserve(&mut Vec::<u8>::new(), bytes)
}

/// Makes room for `n` more elements, or fails with the bytes that this would take.
pub fn reserve<T>(list: &mut Vec<T>, n: usize) -> Result<()> {
    reserve_by::<T>(n, || list.try_reserve(n))
}

/// [`reserve`] for other lists, with their own `try_reserve`.
pub fn reserve_by<T>(n: usize, try_reserve: impl FnOnce() -> std::result::Result<(), TryReserveError>) -> Result<()> {
    asking(try_reserve).map_err(|_| refused::<T>(n))
}

/// [`reserve`] without room for more than `n`.
pub fn reserve_exact<T>(list: &mut Vec<T>, n: usize) -> Result<()> {
    asking(|| list.try_reserve_exact(n)).map_err(|_| refused::<T>(n))
}

/// Makes room for `n` more bytes of text.
pub fn reserve_text(text: &mut String, n: usize) -> Result<()> {
    asking(|| text.try_reserve(n)).map_err(|_| refused::<u8>(n))
}

/// `n` zeros, or a failure with the bytes that they would take.
pub fn zeros(n: usize) -> Result<Vec<f32>> {
    let mut zeros = Vec::new();
    reserve(&mut zeros, n)?;
    zeros.resize(n, 0.0);
    Ok(zeros)
}

/// Runs an allocation whose caller can take a refusal: the arena is not for it.
pub fn asking<T>(allocation: impl FnOnce() -> T) -> T {
    let before = ASKS.replace(true);
    let done = allocation();
    ASKS.set(before);
    done
}

fn refused<T>(n: usize) -> Error {
    let requested = (n as u64).saturating_mul(size_of::<T>() as u64);
    Error::OutOfMemory { place: "host".to_owned(), requested, free: 0 }
}

/// For tests: what is allocated, counted, and allocations that fail. Off, it costs one load an allocation. It stands here
/// since a program has one allocator, and this library brings it.
#[doc(hidden)]
pub mod watch {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicI64, AtomicIsize, AtomicUsize, Ordering};

    /// Those who watch.
    static ON: AtomicUsize = AtomicUsize::new(0);
    static LIVE: AtomicIsize = AtomicIsize::new(0);
    static PEAK: AtomicIsize = AtomicIsize::new(0);
    /// Allocations of at least so many bytes count down.
    static LEAST: AtomicUsize = AtomicUsize::new(usize::MAX);
    /// That many more succeed, then one fails; negative: none.
    static LEFT: AtomicI64 = AtomicI64::new(-1);

    thread_local! {
        static OWN_LIVE: Cell<isize> = const { Cell::new(0) };
        static OWN_PEAK: Cell<isize> = const { Cell::new(0) };
    }

    #[inline]
    pub(super) fn refuses(bytes: usize) -> bool {
        ON.load(Ordering::Relaxed) > 0
            && bytes >= LEAST.load(Ordering::Relaxed)
            && LEFT.load(Ordering::Relaxed) >= 0
            && LEFT.fetch_sub(1, Ordering::Relaxed) == 0
    }

    #[inline]
    pub(super) fn took(pointer: *mut u8, bytes: usize) -> *mut u8 {
        if ON.load(Ordering::Relaxed) > 0 {
            let bytes = bytes as isize;
            PEAK.fetch_max(LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes, Ordering::Relaxed);
            OWN_LIVE.set(OWN_LIVE.get() + bytes);
            OWN_PEAK.set(OWN_PEAK.get().max(OWN_LIVE.get()));
        }
        pointer
    }

    #[inline]
    pub(super) fn gave_back(bytes: usize) {
        if ON.load(Ordering::Relaxed) > 0 {
            LIVE.fetch_sub(bytes as isize, Ordering::Relaxed);
            OWN_LIVE.set(OWN_LIVE.get() - bytes as isize);
        }
    }

    /// [`require`](super::require) by the numbers that are kept here.
    #[cfg(fuzzing)]
    pub(super) fn has(bytes: usize) -> bool {
        let has = !refuses(bytes);
        if has {
            took(std::ptr::null_mut(), bytes);
            gave_back(bytes);
        }
        has
    }

    struct Watching;
    impl Watching {
        fn new() -> Watching {
            ON.fetch_add(1, Ordering::SeqCst);
            Watching
        }
    }
    impl Drop for Watching {
        fn drop(&mut self) {
            ON.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Runs `work` and gives the most bytes that the whole process held at a time meanwhile, more than at its beginning.
    /// One at a time.
    pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
        LIVE.store(0, Ordering::SeqCst);
        PEAK.store(0, Ordering::SeqCst);
        let watching = Watching::new();
        let done = work();
        drop(watching);
        (done, PEAK.load(Ordering::SeqCst) as usize)
    }

    /// [`peak`] of what this thread allocates; others may watch theirs meanwhile.
    pub fn thread_peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
        OWN_LIVE.set(0);
        OWN_PEAK.set(0);
        let watching = Watching::new();
        let done = work();
        drop(watching);
        (done, OWN_PEAK.get() as usize)
    }

    /// Runs `work` with the allocation after `n` others of at least `least` bytes failing, once, on whichever thread;
    /// whether there were so many. One at a time.
    pub fn failing<T>(n: usize, least: usize, work: impl FnOnce() -> T) -> (T, bool) {
        LEAST.store(least, Ordering::SeqCst);
        LEFT.store(i64::try_from(n).unwrap_or(i64::MAX), Ordering::SeqCst);
        let watching = Watching::new();
        let done = work();
        drop(watching);
        LEAST.store(usize::MAX, Ordering::SeqCst);
        (done, LEFT.swap(-1, Ordering::SeqCst) < 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static EMPTY: Arena = Arena { bytes: UnsafeCell::new([0; ARENA_BYTES]), taken: AtomicU64::new(0) };

    #[test]
    fn the_arena_is_empty_again_when_all_is_given_back() {
        let arena = &EMPTY;
        let layout = |bytes, align| Layout::from_size_align(bytes, align).unwrap();
        let a = arena.take(layout(3, 1));
        let b = arena.take(layout(100, 64));
        assert!(arena.has(a) && arena.has(b) && (b as usize).is_multiple_of(64) && b as usize >= a as usize + 3);
        assert!(arena.take(layout(ARENA_BYTES, 1)).is_null());
        arena.give_back();
        assert_eq!(arena.used(), 164);
        arena.give_back();
        assert_eq!(arena.used(), 0);
        let whole = arena.take(layout(ARENA_BYTES, 4096));
        assert!(whole as usize == arena.start() && arena.take(layout(1, 1)).is_null());
        SHORT.set(false);
    }

    #[test]
    fn who_asks_is_refused_with_the_bytes() {
        let error = reserve(&mut Vec::<u32>::new(), usize::MAX / 8).unwrap_err();
        assert_eq!(error.to_string(), format!("host: {} bytes requested", usize::MAX / 8 * 4));
        assert!(reserve_text(&mut String::new(), isize::MAX as usize).is_err());
        assert!(enough().is_ok());
    }

    #[test]
    fn what_a_thread_holds_at_most_is_counted() {
        let (_, peak) = watch::thread_peak(|| {
            let a = vec![1_u8; 100_000];
            drop(std::hint::black_box(a));
            std::hint::black_box(vec![2_u8; 300_000])
        });
        assert!((300_000..310_000).contains(&peak), "{peak}");
    }
}
