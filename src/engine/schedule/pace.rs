//! How long passes take and who steps meanwhile, and so how many tokens of a prompt a pass has.
//!
//! Invariant: what is measured here decides how long a pass is, and never what comes of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Beside steps a pass with a prompt's tokens is to take so many quarters of the time of one with steps alone.
const QUARTERS: u32 = 17;
/// Where nobody steps, a pass is to take this long at most: whoever begins to step waits for it, and whoever cancels.
const ALONE: Duration = Duration::from_millis(150);
/// The fewest tokens of such a pass, which are as many as read the weights well.
const LEAST_ALONE: usize = 64;
/// The fewest beside steps, and as many as there are before anything is measured.
const LEAST: usize = 12;
const UNMEASURED: usize = 16;
/// A thread is taken to go on stepping for so many passes of prompts after its last step.
const MEMORY: u64 = 8;

/// The threads that have stepped of late, in models of one engine.
#[derive(Default)]
pub(in crate::engine) struct Steppers(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    /// Passes with tokens of prompts that have ended.
    ended: u64,
    /// The two that stepped last, the latest first, and how many of those passes had ended then.
    last: [Option<(usize, u64)>; 2],
    /// What passes of steps alone take; zero before the first.
    step: Duration,
}

impl Steppers {
    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This thread takes a step.
    pub(super) fn steps(&self, thread: usize) {
        let mut recent = self.lock();
        let (latest, now) = (recent.last[0], Some((thread, recent.ended)));
        if latest.is_some_and(|latest| latest.0 != thread) {
            recent.last[1] = latest;
        }
        recent.last[0] = now;
    }

    /// A pass with so many tokens of prompts has ended.
    pub(super) fn passed(&self, n_prompt: usize, took: Duration) {
        let mut recent = self.lock();
        match n_prompt {
            0 => recent.step = mean(recent.step, took),
            _ => recent.ended += 1,
        }
    }

    /// The time of a pass with steps alone, if another thread than this takes them; zero where it is not known.
    pub(super) fn beside(&self, thread: usize) -> Option<Duration> {
        let recent = self.lock();
        let goes_on = |(other, ended): (usize, u64)| other != thread && recent.ended - ended <= MEMORY;
        recent.last.iter().flatten().any(|last| goes_on(*last)).then_some(recent.step)
    }

    /// The time of a pass with steps alone; zero where it is not known.
    pub(super) fn step(&self) -> Duration {
        self.lock().step
    }
}

/// A mean that forgets, and believes little of what is much longer: on a busy machine many a pass is interrupted.
pub(super) fn mean(old: Duration, new: Duration) -> Duration {
    match old {
        Duration::ZERO => new,
        _ if new < old => (old + new) / 2,
        _ => (old * 7 + new.min(old * 2)) / 8,
    }
}

/// How many tokens of prompts a pass has at most, with what one of them takes (zero: not known) and [`Steppers::beside`].
pub(super) fn bound(beside: Option<Duration>, token: Duration, most: usize) -> usize {
    let fit = |time: Duration| usize::try_from(time.as_nanos() / token.as_nanos().max(1)).unwrap_or(most);
    let bound = match beside {
        Some(step) if step.is_zero() || token.is_zero() => UNMEASURED,
        Some(step) => fit(step * QUARTERS / 4).max(LEAST),
        None if token.is_zero() => most,
        None => fit(ALONE).max(LEAST_ALONE),
    };
    bound.min(most)
}

/// How many tokens of prompts a pass of about this time has, with what one of them takes; few are cheap enough at any time.
pub(super) fn within(time: Duration, token: Duration, most: usize) -> usize {
    let fit = || usize::try_from(time.as_nanos() / token.as_nanos()).unwrap_or(most).max(LEAST);
    (if token.is_zero() { UNMEASURED } else { fit() }).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_pass_is_as_long_as_steps_beside_it_allow() {
        assert_eq!(bound(Some(12 * MS), 3 * MS, 512), 17);
        assert_eq!(bound(Some(MS), 3 * MS, 512), LEAST);
        assert_eq!(bound(Some(1000 * MS), MS, 512), 512);
        assert_eq!(bound(Some(Duration::ZERO), MS, 512), UNMEASURED);
        assert_eq!(bound(Some(MS), Duration::ZERO, 512), UNMEASURED);
        assert_eq!(bound(Some(MS), Duration::ZERO, 5), 5);
        assert_eq!(bound(None, Duration::ZERO, 512), 512);
        assert_eq!(bound(None, MS, 512), 150);
        assert_eq!(bound(None, 100 * MS, 512), LEAST_ALONE);
        assert_eq!(bound(None, MS / 1000, 512), 512);
        assert_eq!(within(10 * MS, MS / 10, 512), 100);
        assert_eq!(within(Duration::ZERO, MS, 512), LEAST);
        assert_eq!(within(Duration::MAX, MS, 512), 512);
        assert_eq!(within(MS, Duration::ZERO, 512), UNMEASURED);
    }

    #[test]
    fn only_another_thread_steps_beside_one_and_only_for_a_while() {
        let steppers = Steppers::default();
        assert_eq!(steppers.beside(1), None);
        steppers.steps(1);
        steppers.passed(0, 5 * MS);
        assert_eq!((steppers.beside(1), steppers.beside(2)), (None, Some(5 * MS)));
        for _ in 0..3 {
            steppers.steps(2);
        }
        assert_eq!((steppers.beside(1), steppers.beside(2)), (Some(5 * MS), Some(5 * MS)));
        (0..MEMORY).for_each(|_| steppers.passed(16, MS));
        assert_eq!(steppers.beside(1), Some(5 * MS));
        steppers.passed(16, MS);
        assert_eq!((steppers.beside(1), steppers.beside(2), steppers.beside(3)), (None, None, None));
    }
}
