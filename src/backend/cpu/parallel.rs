//! The work of a pass on a host's own threads: each stage, whose parts depend on no other, is one call of the host's function.
//!
//! Invariants: whatever the host calls, when and how often, each part of a stage runs at most once, and none of them after the
//! stage has ended; a stage ends when nobody is inside of a part any more, and has succeeded only if each part has run. What a host
//! was handed is never freed, since it may call that whenever it likes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::alloc;
use crate::error::{Error, Result};
use crate::process;

/// What runs a chunk.
pub type Body = dyn Fn(usize) + Sync + 'static;

/// The most parts of a stage.
const MOST: usize = 1024;

/// Runs `part(0) .. part(n - 1)` of a stage, each once and before it returns, in any order, on any threads, also at the same time;
/// whether it could.
pub type ParallelFor = dyn Fn(usize, &'static Stage) -> bool + Send + Sync;

/// A stage as its host sees it. There is one an engine, so that what is called too late finds it closed; the next engine has that of
/// one that is gone.
pub struct Stage {
    /// An engine has it.
    taken: AtomicBool,
    /// Another, which was made later.
    next: OnceLock<Box<Stage>>,
    /// Its parts may run.
    open: AtomicBool,
    /// Threads that are inside of [`Self::part`].
    inside: AtomicUsize,
    n: AtomicUsize,
    /// The chunks that the parts are made of.
    n_chunks: AtomicUsize,
    /// A pointer to a `&Body` on the stack of the thread in [`HostTeam::run`].
    body: AtomicPtr<&'static Body>,
    /// A bit for each part that somebody has begun.
    begun: [AtomicU64; MOST / 64],
    ended: AtomicUsize,
    panicked: AtomicBool,
    /// A thread had no memory for its first call.
    no_memory: AtomicBool,
    /// A part was begun twice, or is none, and its number.
    strayed: AtomicBool,
    stray: AtomicUsize,
}

/// All stages, behind one another: as many as engines have been alive at once.
static STAGES: OnceLock<Box<Stage>> = OnceLock::new();

impl Stage {
    /// One that no other engine has; [`HostTeam`] lets go of it.
    fn take() -> &'static Stage {
        let mut at = &STAGES;
        loop {
            match at.get() {
                Some(stage) if !stage.taken.swap(true, Ordering::SeqCst) => return stage,
                Some(stage) => at = &stage.next,
                // Whether it is this one or another thread's is seen where it is taken.
                None => drop(at.set(Box::new(Stage::new()))),
            }
        }
    }

    fn new() -> Stage {
        Stage {
            taken: AtomicBool::new(false),
            next: OnceLock::new(),
            open: AtomicBool::new(false),
            inside: AtomicUsize::new(0),
            n: AtomicUsize::new(0),
            n_chunks: AtomicUsize::new(0),
            body: AtomicPtr::new(std::ptr::null_mut()),
            begun: [const { AtomicU64::new(0) }; MOST / 64],
            ended: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            no_memory: AtomicBool::new(false),
            strayed: AtomicBool::new(false),
            stray: AtomicUsize::new(0),
        }
    }

    /// Runs a part. On any thread, at any time; what is not to run does not.
    pub fn part(&self, index: usize) {
        // Whoever closes the stage waits for none of those that come later, however many they are.
        if !self.open.load(Ordering::SeqCst) {
            return;
        }
        self.inside.fetch_add(1, Ordering::SeqCst);
        // Whoever closes the stage sees this thread inside, or this thread sees it closed.
        if self.open.load(Ordering::SeqCst) {
            if alloc::thread_can_begin() {
                self.run(index);
            } else {
                self.no_memory.store(true, Ordering::SeqCst);
            }
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    fn run(&self, index: usize) {
        let (n, n_chunks) = (self.n.load(Ordering::Relaxed), self.n_chunks.load(Ordering::Relaxed));
        let bit = 1 << (index % 64);
        let first = index < n && self.begun[index / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0;
        if !first {
            self.stray.store(index, Ordering::Relaxed);
            self.strayed.store(true, Ordering::Relaxed);
            return;
        }
        // SAFETY: the stage is open and this thread inside, so that `HostTeam::run` has set the body and has not returned.
        let body = unsafe { *self.body.load(Ordering::Relaxed) };
        let _inside = process::enter();
        let chunks = n_chunks * index / n..n_chunks * (index + 1) / n;
        if catch_unwind(AssertUnwindSafe(|| chunks.for_each(body))).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
        self.ended.fetch_add(1, Ordering::Release);
    }
}

/// A host's threads.
pub struct HostTeam {
    parallel_for: Arc<ParallelFor>,
    stage: &'static Stage,
}

impl HostTeam {
    /// Those behind that function.
    pub fn new(parallel_for: Arc<ParallelFor>) -> HostTeam {
        HostTeam { parallel_for, stage: Stage::take() }
    }

    /// Runs `body(0) .. body(n_chunks - 1)`, each once, as `n_parts` parts at most; returns when all have ended. One at a time.
    pub fn run(&self, n_parts: usize, n_chunks: usize, body: &(dyn Fn(usize) + Sync)) -> Result<()> {
        let (stage, n) = (self.stage, n_chunks.min(n_parts).clamp(1, MOST));
        for word in &stage.begun[..n.div_ceil(64)] {
            word.store(0, Ordering::Relaxed);
        }
        stage.n.store(n, Ordering::Relaxed);
        stage.n_chunks.store(n_chunks, Ordering::Relaxed);
        stage.ended.store(0, Ordering::Relaxed);
        stage.strayed.store(false, Ordering::Relaxed);
        // SAFETY: only the lifetime changes. The pointer is used while the stage is open or somebody inside, and this call does
        // not return before neither is so.
        let body: &'static Body = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static Body>(body) };
        stage.body.store(std::ptr::from_ref(&body).cast_mut(), Ordering::Relaxed);
        let could = {
            /// Closes the stage whatever happens, and waits for those inside.
            struct Close<'a>(&'a Stage);
            impl Drop for Close<'_> {
                fn drop(&mut self) {
                    self.0.open.store(false, Ordering::SeqCst);
                    while self.0.inside.load(Ordering::SeqCst) > 0 {
                        std::thread::yield_now();
                    }
                }
            }
            stage.open.store(true, Ordering::SeqCst);
            let _close = Close(stage);
            process::enclosed("parallel_for", || (self.parallel_for)(n, stage))
        };
        self.outcome(could, n)
    }

    /// What a stage has come to.
    fn outcome(&self, could: bool, n: usize) -> Result<()> {
        let (stage, ended) = (self.stage, self.stage.ended.load(Ordering::Acquire));
        let strayed = stage.strayed.load(Ordering::Relaxed);
        if stage.panicked.swap(false, Ordering::Relaxed) {
            return Err(Error::Internal { message: "a part of a stage panicked on a host's thread".into() });
        }
        if stage.no_memory.swap(false, Ordering::SeqCst) {
            return Err(process::no_thread(0));
        }
        if !could {
            return Err(Error::Refused { what: "parallel_for" });
        }
        let host = |found: String| Err(Error::Host { what: "parallel_for", found });
        if strayed {
            let index = stage.stray.load(Ordering::Relaxed);
            return host(format!("called body({index}) of {n} bodies once too often"));
        }
        if ended < n { host(format!("returned after {ended} of {n} bodies")) } else { Ok(()) }
    }
}

impl Drop for HostTeam {
    fn drop(&mut self) {
        // Closed, and nobody runs a part of it.
        self.stage.taken.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn ran(
        n_chunks: usize,
        host: impl Fn(usize, &'static Stage) -> bool + Send + Sync + 'static,
    ) -> (Result<()>, Vec<usize>) {
        let (team, seen) = (HostTeam::new(Arc::new(host)), Mutex::new(Vec::new()));
        let result = team.run(8, n_chunks, &|chunk| seen.lock().unwrap().push(chunk));
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        (result, seen)
    }

    fn text(result: Result<()>) -> String {
        let error = result.unwrap_err();
        format!("{:?}: {error}", error.status())
    }

    #[test]
    fn each_chunk_runs_once_in_any_order_and_on_any_threads() {
        for n in [1, 2, 7, 8, 9, 100, 5000] {
            let all: Vec<usize> = (0..n).collect();
            let (result, seen) = ran(n, |n, stage| {
                (0..n).rev().for_each(|i| stage.part(i));
                true
            });
            assert!(result.is_ok() && seen == all, "{n}");
            let (result, seen) = ran(n, |n, stage| {
                std::thread::scope(|scope| (0..n).for_each(|i| drop(scope.spawn(move || stage.part(i)))));
                true
            });
            assert!(result.is_ok() && seen == all, "{n}");
        }
    }

    #[test]
    fn what_a_host_must_not_do_is_an_error_with_the_numbers() {
        let (result, seen) = ran(8, |n, stage| {
            (0..n - 3).for_each(|i| stage.part(i));
            true
        });
        assert_eq!((text(result).as_str(), seen.len()), ("InvalidState: parallel_for returned after 5 of 8 bodies", 5));
        for (stray, part) in [(2, "body(2)"), (8, "body(8)"), (usize::MAX, "body(18446744073709551615)")] {
            let (result, seen) = ran(8, move |n, stage| {
                (0..n).chain([stray]).for_each(|i| stage.part(i));
                true
            });
            let expected = format!("InvalidState: parallel_for called {part} of 8 bodies once too often");
            assert_eq!((text(result), seen.len()), (expected, 8));
        }
        let (result, _) = ran(8, |_, stage| {
            stage.part(0);
            false
        });
        assert_eq!(text(result), "Cancelled: cancelled by parallel_for");
    }

    #[test]
    fn what_is_called_late_finds_the_stage_closed() {
        for first in [0, 1] {
            let kept = Arc::new(OnceLock::new());
            let keep = Arc::clone(&kept);
            let host = move |n: usize, stage: &'static Stage| {
                (first..n).for_each(|i| stage.part(i));
                keep.set(stage).is_ok()
            };
            let (result, seen) = ran(4, host);
            assert_eq!((result.is_ok(), seen), (first == 0, (first..4).collect()));
            // The team is gone. Whoever has no memory for a thread is none that a later stage fails for.
            let late: &Stage = kept.get().unwrap();
            (0..5).for_each(|i| late.part(i));
            assert_eq!((late.inside.load(Ordering::SeqCst), late.no_memory.load(Ordering::SeqCst)), (0, false));
        }
    }

    #[test]
    fn stages_are_as_many_as_teams_at_once() {
        let n_stages = || std::iter::successors(STAGES.get(), |stage| stage.next.get()).count();
        let team = || HostTeam::new(Arc::new(|_, _| true));
        let teams: Vec<HostTeam> = (0..100).map(|_| team()).collect();
        let mut at: Vec<_> = teams.iter().map(|team| std::ptr::from_ref(team.stage)).collect();
        at.sort_unstable();
        at.dedup();
        assert_eq!(at.len(), 100, "no two teams share one");
        drop(teams);
        (0..1000).for_each(|_| drop(team()));
        // Other tests have some at the same time.
        assert!((100..500).contains(&n_stages()), "{}", n_stages());
    }

    #[test]
    fn a_stage_s_end_waits_for_nobody_who_calls_on_and_on() {
        let (team, stops) =
            (HostTeam::new(Arc::new(|n, stage| (0..n).all(|i| (stage.part(i), true).1))), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    while !stops.load(Ordering::Relaxed) {
                        team.stage.part(usize::MAX);
                    }
                });
            }
            for _ in 0..100 {
                let n_done = AtomicUsize::new(0);
                let result = team.run(4, 4, &|_| _ = n_done.fetch_add(1, Ordering::SeqCst));
                // Whether any of them came while it was open.
                assert!(result.is_ok() || text(result).starts_with("InvalidState: parallel_for called body("));
                assert_eq!(n_done.load(Ordering::SeqCst), 4);
            }
            stops.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_part_that_goes_on_when_the_host_has_returned_is_waited_for() {
        let (team, done) = (
            HostTeam::new(Arc::new(|n, stage: &'static Stage| {
                let begun = Arc::new(AtomicUsize::new(0));
                for i in 0..n {
                    let begun = Arc::clone(&begun);
                    std::thread::spawn(move || {
                        begun.fetch_add(1, Ordering::SeqCst);
                        stage.part(i);
                    });
                }
                while begun.load(Ordering::SeqCst) < n {
                    std::thread::yield_now();
                }
                true
            })),
            AtomicUsize::new(0),
        );
        for _ in 0..20 {
            done.store(0, Ordering::SeqCst);
            // Whether the parts had begun or not, none runs once this has returned.
            let result = team.run(4, 4, &|_| {
                std::thread::sleep(std::time::Duration::from_millis(1));
                done.fetch_add(1, Ordering::SeqCst);
            });
            let n = done.load(Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(3));
            assert_eq!(done.load(Ordering::SeqCst), n);
            assert_eq!(result.is_ok(), n == 4);
        }
    }
}
