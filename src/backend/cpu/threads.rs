//! The backend's own threads: one job at a time, cut into chunks.
//!
//! Each thread has a range of consecutive chunks, which it takes in order (a processor reads ahead, and what it reads
//! ahead should be its own: dealing chunks out in turn costs a third of the memory's bandwidth), then helps with the
//! others'. Which thread runs a chunk never changes its result; a job ends when its chunks are done, not when all
//! threads have come by, so a thread that the system has put aside delays nobody but by the chunk it is at. Idle
//! threads look for work for a moment and then sleep until they are woken.

use std::io::{ErrorKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::parallel::{Body, HostTeam, ParallelFor};
use crate::error::{Error, Result};
use crate::process::{self, JoinHandle, Placement, ThreadKind, told};

/// How long an idle thread looks for work before it sleeps: longer than what stands between two jobs of a decode
/// step, shorter than what a host would notice on its processor.
const LOOK: Duration = Duration::from_micros(150);

/// Parts of a stage for each thread of a host's: they even out what else its machine does.
const PARTS: usize = 8;

/// Bytes of a thread's stack.
const STACK: usize = 1 << 20;

/// `job number << 32 | chunks not yet taken` of one thread's range: one word, so that a chunk is taken from the job
/// it was seen in. Alone in its cache line.
#[repr(align(64))]
struct Ticket(AtomicU64);

struct Shared {
    /// One a thread.
    tickets: Vec<Ticket>,
    /// Number of the newest job.
    job: AtomicU64,
    /// Chunks of the job.
    n_chunks: AtomicUsize,
    /// The job's closure, on the stack of the thread in `run`: a pointer to a `&Body`.
    body: AtomicPtr<&'static Body>,
    done: AtomicUsize,
    panicked: AtomicBool,
    sleepers: AtomicUsize,
    stop: AtomicBool,
    gate: Mutex<()>,
    wake: Condvar,
    begun: Mutex<Begun>,
    /// Another thread has begun.
    begins: Condvar,
    /// Fewer processors than threads, of which the caller may have one that the others have not: looking for work would take the
    /// processor from those that have some.
    crowded: bool,
}

/// What is known of the threads' beginnings.
#[derive(Default)]
struct Begun {
    /// Threads that have begun, also those that may not go on.
    n: usize,
    /// Why one of them may not.
    refused: Option<Error>,
}

/// First chunk of the range of thread `i` of `n`; that of `n` is the end.
fn range_start(n_chunks: usize, i: usize, n: usize) -> usize {
    n_chunks * i / n
}

/// A fixed set of threads, of which the caller of [`Turn::run`] is one; or a host's own.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    host: Option<HostTeam>,
    n_threads: usize,
    /// Whose turn it is for a whole forward pass. A mutex alone would give it to whoever has just had it.
    turns: Mutex<Turns>,
    ended: Condvar,
}

/// Numbers of turns: that of the one who comes next, and that of the one whose turn it is.
#[derive(Default)]
struct Turns {
    next: u64,
    now: u64,
}

/// The right to run jobs.
pub struct Turn<'a> {
    pool: &'a Pool,
}

impl Pool {
    /// `n_threads` threads, the caller's included, placed like that.
    pub fn new(n_threads: usize, placement: &Placement) -> Result<Pool> {
        let mut pool = Pool::without_threads(n_threads, placement.n_cpus());
        let hook = process::hook();
        for i in 1..n_threads {
            let (shared, placement, hook, name) =
                (pool.shared.clone(), placement.clone(), hook.clone(), format!("kigo-{i}"));
            let body = move || {
                // Placed before the host is told, which may see it or place it otherwise.
                let placed = placement.apply(i);
                let life = || told(hook.as_deref(), (&name, ThreadKind::Worker, i), || shared.serve(i));
                if let Err(error) = placed.and_then(|()| life().ok_or_else(process::not_to_go_on)) {
                    shared.begin(Some(error));
                }
            };
            pool.threads.push(process::spawn(&format!("kigo-{i}"), STACK, body)?);
        }
        // What a thread takes of the system's memory it takes at its beginning: before a host that is told it has its
        // threads may have used the memory up.
        let refused = {
            let mut begun = pool.shared.begun();
            while begun.n < pool.threads.len() {
                begun = pool.shared.begins.wait(begun).unwrap_or_else(PoisonError::into_inner);
            }
            begun.refused.take()
        };
        refused.map_or(Ok(pool), Err)
    }

    /// A host's threads, about so many.
    pub fn of_host(n_threads: usize, parallel_for: Arc<ParallelFor>) -> Pool {
        let mut pool = Pool::without_threads(n_threads, None);
        pool.host = Some(HostTeam::new(parallel_for));
        pool
    }

    fn without_threads(n_threads: usize, n_cpus: Option<usize>) -> Pool {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        let shared = Arc::new(Shared {
            tickets: (0..n_threads.max(1)).map(|_| Ticket(AtomicU64::new(0))).collect(),
            job: AtomicU64::new(0),
            n_chunks: AtomicUsize::new(0),
            body: AtomicPtr::new(std::ptr::null_mut()),
            done: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            gate: Mutex::new(()),
            wake: Condvar::new(),
            begun: Mutex::default(),
            begins: Condvar::new(),
            crowded: n_threads > processors.max(n_cpus.unwrap_or(0)) || n_cpus.is_some_and(|n| n_threads > n + 1),
        });
        let n_threads = n_threads.max(1);
        Pool { shared, threads: Vec::new(), host: None, n_threads, turns: Mutex::default(), ended: Condvar::new() }
    }

    /// Threads, the caller's included.
    pub fn n_threads(&self) -> usize {
        self.n_threads
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the passes of all who came before have ended.
    pub fn turn(&self) -> Turn<'_> {
        let mut turns = self.turns();
        let mine = turns.next;
        turns.next += 1;
        while turns.now != mine {
            turns = self.ended.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        Turn { pool: self }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.pool.turns().now += 1;
        self.pool.ended.notify_all();
    }
}

impl Turn<'_> {
    /// Threads, the caller's included.
    pub fn n_threads(&self) -> usize {
        self.pool.n_threads()
    }

    /// Runs `body(0) .. body(n_chunks - 1)`, each once, on all threads; returns when all have ended.
    pub fn run(&self, n_chunks: usize, body: &(dyn Fn(usize) + Sync)) -> Result<()> {
        let shared = &*self.pool.shared;
        if n_chunks <= 1 || (self.pool.threads.is_empty() && self.pool.host.is_none()) {
            for i in 0..n_chunks {
                body(i);
            }
            return Ok(());
        }
        if let Some(host) = &self.pool.host {
            return host.run(PARTS * self.n_threads(), n_chunks, body);
        }
        let number = (shared.job.load(Ordering::Relaxed) + 1) & 0xffff_ffff;
        shared.done.store(0, Ordering::Relaxed);
        shared.n_chunks.store(n_chunks, Ordering::Relaxed);
        // SAFETY: only the lifetime changes. Threads use the pointer only for chunks that they took, and this call
        // does not return before all chunks are done.
        let body: &'static Body = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static Body>(body) };
        shared.body.store(std::ptr::from_ref(&body).cast_mut(), Ordering::Relaxed);
        let n = shared.tickets.len();
        for (i, ticket) in shared.tickets.iter().enumerate() {
            let chunks = range_start(n_chunks, i + 1, n) - range_start(n_chunks, i, n);
            ticket.0.store(number << 32 | chunks as u64, Ordering::Release);
        }
        shared.job.store(number, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            drop(shared.gate.lock().unwrap_or_else(PoisonError::into_inner));
            shared.wake.notify_all();
        }
        shared.work(0);
        let mut looks = 0_u32;
        while shared.done.load(Ordering::Acquire) < n_chunks {
            looks += 1;
            if looks > 2000 || shared.crowded {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        if shared.panicked.swap(false, Ordering::Relaxed) {
            return Err(Error::Internal { message: "a worker thread panicked".into() });
        }
        Ok(())
    }
}

impl Shared {
    /// Runs chunks until none is left: thread `me`'s own, then the next threads'.
    fn work(&self, me: usize) {
        let n = self.tickets.len();
        for i in 0..n {
            let who = (me + i) % n;
            while self.take(who) {}
        }
    }

    /// Takes one chunk of the range of thread `who` and runs it; false if there was none.
    fn take(&self, who: usize) -> bool {
        let ticket = &self.tickets[who].0;
        let seen = ticket.load(Ordering::Acquire);
        let left = (seen & 0xffff_ffff) as usize;
        if left == 0 {
            return false;
        }
        let body = self.body.load(Ordering::Relaxed);
        let n_chunks = self.n_chunks.load(Ordering::Relaxed);
        if ticket.compare_exchange_weak(seen, seen - 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return true;
        }
        // SAFETY: the exchange succeeded, so the job seen is still the current one and `body` is its closure;
        // `run` waits for `done` before the closure goes away.
        let body = unsafe { *body };
        let chunk = range_start(n_chunks, who + 1, self.tickets.len()) - left;
        if catch_unwind(AssertUnwindSafe(|| body(chunk))).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
        self.done.fetch_add(1, Ordering::Release);
        true
    }

    fn begun(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread has begun; `refused`: it may not go on, so that there is no pool.
    fn begin(&self, refused: Option<Error>) {
        let mut begun = self.begun();
        begun.n += 1;
        begun.refused = begun.refused.take().or(refused);
        self.begins.notify_one();
    }

    /// The life of thread `me`.
    fn serve(&self, me: usize) {
        self.begin(None);
        let mut last = 0;
        loop {
            let start = Instant::now();
            let mut looks = 0_u32;
            // Waits for a job newer than the last one.
            while self.job.load(Ordering::Acquire) == last {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                looks += 1;
                if self.crowded || looks.is_multiple_of(4096) {
                    std::thread::yield_now();
                } else {
                    std::hint::spin_loop();
                }
                if looks.is_multiple_of(64) && start.elapsed() > LOOK {
                    self.sleep(last);
                    break;
                }
            }
            last = self.job.load(Ordering::Acquire);
            self.work(me);
        }
    }

    /// Sleeps until there is a job other than `last` or the pool ends.
    fn sleep(&self, last: u64) {
        let mut guard = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.job.load(Ordering::SeqCst) == last && !self.stop.load(Ordering::SeqCst) {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(self.shared.gate.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has been reported through `run`.
            let _ = thread.join();
        }
    }
}

/// A pointer that closures may share; who writes where is stated where it is used.
pub struct Shares<T>(pub *mut T);
// SAFETY: a promise of the users: chunks write disjoint elements.
unsafe impl<T> Send for Shares<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shares<T> {}
impl<T> Clone for Shares<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Shares<T> {}
impl<T> Shares<T> {
    /// The pointer `i` elements on.
    ///
    /// # Safety
    /// `i` is inside of the allocation.
    pub unsafe fn at(&self, i: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(i) }
    }
}

/// The first line or lines of a file of the system's, as many as fit: without memory of its own, so that none is short of it.
pub fn head<'a>(path: &str, buffer: &'a mut [u8]) -> Option<&'a str> {
    let mut file = std::fs::File::open(path).ok()?;
    let mut n = 0;
    while n < buffer.len() {
        match file.read(&mut buffer[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    let text = &buffer[..n];
    // What the end of the buffer has cut is no text.
    std::str::from_utf8(text).or_else(|error| std::str::from_utf8(&text[..error.valid_up_to()])).ok()
}

/// Physical cores this process may use: the default number of threads.
pub fn physical_cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut cores = std::collections::HashSet::new();
    for cpu in 0..4096 {
        let read = |name: &str| {
            head(&format!("/sys/devices/system/cpu/cpu{cpu}/topology/{name}"), &mut [0; 32])?.trim().parse::<i64>().ok()
        };
        let (Some(core), Some(package)) = (read("core_id"), read("physical_package_id")) else {
            if cpu >= allowed {
                break;
            }
            continue;
        };
        cores.insert((package, core));
    }
    if cores.is_empty() { allowed } else { cores.len().min(allowed) }
}
