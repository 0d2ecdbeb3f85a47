//! What has happened, in figures: of a session and of a model, counted where it happens, for any thread to read.
//!
//! Invariants: each figure is an atomic, and nobody waits for it; tokens are counted once, when a session holds them, for the session
//! and for its model at the same place, so that a model's are the sums of its sessions'.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{Error, Status};

/// A number that grows, or goes up and down.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn at_least(&self, n: u64) {
        // Most often it is no news: reading is cheaper.
        if self.get() < n {
            self.0.fetch_max(n, Ordering::Relaxed);
        }
    }
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What a session has come to so far; times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionFigures {
    /// Tokens that calls of more than one have computed.
    pub n_prefilled: u64,
    /// Tokens that were taken from other sessions in place of computing them.
    pub n_reused: u64,
    /// Tokens of steps and generations.
    pub n_decoded: u64,
    /// Time of the calls with more than one token, and of computing again what windows have left.
    pub prefill_ns: u64,
    /// Time of steps and generations, but for the caller's code.
    pub decode_ns: u64,
    /// Those parts of both in which tokens waited for a pass of theirs to begin.
    pub waiting_ns: u64,
}

impl SessionFigures {
    /// Tokens that the session has got, however.
    pub(super) fn n_tokens(&self) -> u64 {
        self.n_prefilled + self.n_reused + self.n_decoded
    }
}

/// What the calls of a model's sessions have come to so far, and what is under way; times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ModelFigures {
    pub n_sessions: u64,
    /// Those with tokens in a pass that runs.
    pub n_running: u64,
    /// Those whose tokens wait for a pass, or for what another session computes.
    pub n_waiting: u64,
    pub n_prefilled: u64,
    pub n_decoded: u64,
    /// Tokens computed again, of which windows had left nothing.
    pub n_recomputed: u64,
    pub n_passes: u64,
    /// Those of them with tokens of calls of more than one.
    pub n_prefill_passes: u64,
    /// Tokens and sessions of all passes, added up.
    pub n_pass_tokens: u64,
    pub n_pass_sessions: u64,
    /// The most tokens that a pass had.
    pub most_pass_tokens: u64,
    pub pass_ns: u64,
    pub prefill_pass_ns: u64,
    pub longest_pass_ns: u64,
    pub failures: Failures,
}

/// Calls that have failed, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Failures {
    /// Stopped by a cancel; generations, too.
    pub n_cancelled: u64,
    pub n_busy: u64,
    pub n_context_full: u64,
    pub n_cache_full: u64,
    pub n_out_of_memory: u64,
    pub n_other: u64,
}

#[derive(Debug, Default)]
struct FailureCounts {
    cancelled: Count,
    busy: Count,
    context_full: Count,
    cache_full: Count,
    out_of_memory: Count,
    other: Count,
}

/// A model's figures as they grow.
#[derive(Debug, Default)]
pub(super) struct Totals {
    sessions: Count,
    running: Count,
    waiting: Count,
    prefilled: Count,
    decoded: Count,
    recomputed: Count,
    passes: Count,
    prefill_passes: Count,
    pass_tokens: Count,
    pass_sessions: Count,
    most_pass_tokens: Count,
    pass_ns: Count,
    prefill_pass_ns: Count,
    longest_pass_ns: Count,
    failures: FailureCounts,
}

/// What a pass had in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PassSize {
    pub(super) n_sessions: usize,
    pub(super) n_tokens: usize,
    /// Those of calls of more than one.
    pub(super) n_prompt: usize,
}

/// Counts some for as long as it lives.
pub(super) struct Counted {
    totals: Arc<Totals>,
    of: fn(&Totals) -> &Count,
    n: u64,
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.of)(&self.totals).sub(self.n);
    }
}

impl Totals {
    fn count(self: &Arc<Totals>, of: fn(&Totals) -> &Count, n: usize) -> Counted {
        let n = n as u64;
        of(self).add(n);
        Counted { totals: Arc::clone(self), of, n }
    }

    /// So many sessions have tokens in a pass that runs.
    pub(super) fn running(self: &Arc<Totals>, n: usize) -> Counted {
        self.count(|totals| &totals.running, n)
    }

    /// So many sessions wait.
    pub(super) fn waiting(self: &Arc<Totals>, n: usize) -> Counted {
        self.count(|totals| &totals.waiting, n)
    }

    /// A pass has ended, which took so long.
    pub(super) fn passed(&self, size: PassSize, took: Duration) {
        let ns = nanoseconds(took);
        self.passes.add(1);
        self.pass_sessions.add(size.n_sessions as u64);
        self.pass_tokens.add(size.n_tokens as u64);
        self.most_pass_tokens.at_least(size.n_tokens as u64);
        self.pass_ns.add(ns);
        self.longest_pass_ns.at_least(ns);
        if size.n_prompt > 0 {
            self.prefill_passes.add(1);
            self.prefill_pass_ns.add(ns);
        }
    }

    /// So many passes of one token have followed on one another, which took so long together.
    pub(super) fn ran_ahead(&self, n: usize, took: Duration) {
        let n = n as u64;
        for count in [&self.passes, &self.pass_sessions, &self.pass_tokens] {
            count.add(n);
        }
        self.most_pass_tokens.at_least(n.min(1));
        self.pass_ns.add(nanoseconds(took));
    }

    /// So many tokens have been computed again.
    pub(super) fn recomputed(&self, n: usize) {
        self.recomputed.add(n as u64);
    }

    /// A call, or an entry of one, has failed.
    pub(super) fn failed(&self, error: &Error) {
        let failures = &self.failures;
        let of = match error.status() {
            Status::Cancelled => &failures.cancelled,
            Status::Busy => &failures.busy,
            Status::ContextFull => &failures.context_full,
            Status::CacheFull => &failures.cache_full,
            Status::OutOfMemory => &failures.out_of_memory,
            _ => &failures.other,
        };
        of.add(1);
    }

    /// What it has come to. Of figures that change together some may be older than others.
    pub(super) fn figures(&self) -> ModelFigures {
        let failures = &self.failures;
        ModelFigures {
            n_sessions: self.sessions.get(),
            n_running: self.running.get(),
            n_waiting: self.waiting.get(),
            n_prefilled: self.prefilled.get(),
            n_decoded: self.decoded.get(),
            n_recomputed: self.recomputed.get(),
            n_passes: self.passes.get(),
            n_prefill_passes: self.prefill_passes.get(),
            n_pass_tokens: self.pass_tokens.get(),
            n_pass_sessions: self.pass_sessions.get(),
            most_pass_tokens: self.most_pass_tokens.get(),
            pass_ns: self.pass_ns.get(),
            prefill_pass_ns: self.prefill_pass_ns.get(),
            longest_pass_ns: self.longest_pass_ns.get(),
            failures: Failures {
                n_cancelled: failures.cancelled.get(),
                n_busy: failures.busy.get(),
                n_context_full: failures.context_full.get(),
                n_cache_full: failures.cache_full.get(),
                n_out_of_memory: failures.out_of_memory.get(),
                n_other: failures.other.get(),
            },
        }
    }
}

/// A session's figures as they grow; one call at a time adds to them.
pub(super) struct Clocks {
    totals: Arc<Totals>,
    prefilled: Count,
    reused: Count,
    decoded: Count,
    prefill_ns: Count,
    decode_ns: Count,
    waiting_ns: Count,
    _alive: Counted,
}

impl Clocks {
    /// Those of a session that begins, which counts among its model's until they are gone.
    pub(super) fn new(totals: &Arc<Totals>) -> Arc<Clocks> {
        Arc::new(Clocks {
            totals: Arc::clone(totals),
            prefilled: Count::default(),
            reused: Count::default(),
            decoded: Count::default(),
            prefill_ns: Count::default(),
            decode_ns: Count::default(),
            waiting_ns: Count::default(),
            _alive: totals.count(|totals| &totals.sessions, 1),
        })
    }

    /// The model's.
    pub(super) fn totals(&self) -> &Arc<Totals> {
        &self.totals
    }

    /// The session holds the tokens of a call, `n_reused` of them others'.
    pub(super) fn appended(&self, n: usize, n_reused: usize) {
        self.reused.add(n_reused as u64);
        match n {
            1 => self.decoded(1),
            _ => {
                let n = (n - n_reused) as u64;
                self.prefilled.add(n);
                self.totals.prefilled.add(n);
            }
        }
    }

    /// The session holds so many tokens of steps more.
    pub(super) fn decoded(&self, n: usize) {
        self.decoded.add(n as u64);
        self.totals.decoded.add(n as u64);
    }

    /// A call, which was a step or not, has taken so long.
    pub(super) fn took(&self, is_step: bool, time: Duration) {
        let clock = if is_step { &self.decode_ns } else { &self.prefill_ns };
        clock.add(nanoseconds(time));
    }

    /// A generation has taken so long without its steps, which have been counted.
    pub(super) fn generated(&self, time: Duration) {
        self.decode_ns.add(nanoseconds(time));
    }

    /// Tokens have waited so long for a pass of theirs to begin.
    pub(super) fn waited(&self, time: Duration) {
        self.waiting_ns.add(nanoseconds(time));
    }

    pub(super) fn figures(&self) -> SessionFigures {
        SessionFigures {
            n_prefilled: self.prefilled.get(),
            n_reused: self.reused.get(),
            n_decoded: self.decoded.get(),
            prefill_ns: self.prefill_ns.get(),
            decode_ns: self.decode_ns.get(),
            waiting_ns: self.waiting_ns.get(),
        }
    }
}
