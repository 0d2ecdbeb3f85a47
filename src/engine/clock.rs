//! A generation's clock: what it takes, with the caller's code apart, and what its session got before it.

use std::time::{Duration, Instant};

use super::figures::SessionFigures;
use super::generation::Times;
use super::session::{Session, State};

/// See the module.
pub(super) struct Clock {
    begun: Instant,
    /// What the session had come to before.
    before: SessionFigures,
    times: Times,
    /// Since when the caller's code has been running.
    left: Option<Instant>,
}

impl Clock {
    /// The clock of a session's generation that begins now.
    pub(super) fn begin(session: &Session, state: &State) -> Clock {
        let (before, since) = (session.figures(), state.generated_at);
        let ns = (before.prefill_ns + before.decode_ns).saturating_sub(since.prefill_ns + since.decode_ns);
        let times = Times {
            n_before: before.n_tokens() - since.n_tokens(),
            n_reused_before: before.n_reused - since.n_reused,
            before: Duration::from_nanos(ns),
            ..Times::default()
        };
        Clock { begun: Instant::now(), before, times, left: None }
    }

    /// The caller's code runs from now on, if it did not.
    pub(super) fn leave(&mut self) {
        self.left.get_or_insert_with(Instant::now);
    }

    /// The caller's code is over, if it ran.
    pub(super) fn enter(&mut self) {
        self.times.callbacks += self.left.take().map_or(Duration::ZERO, |left| left.elapsed());
    }

    /// The time of the caller's code so far.
    pub(super) fn callbacks(&self) -> Duration {
        self.times.callbacks
    }

    /// The first token has been appended.
    pub(super) fn first_token(&mut self) {
        self.times.first_token = self.own();
    }

    /// The time without the caller's code.
    fn own(&self) -> Duration {
        self.begun.elapsed().saturating_sub(self.times.callbacks)
    }

    /// The generation has ended: what it has taken, which becomes part of the session's figures.
    pub(super) fn end(mut self, session: &Session, state: &mut State) -> Times {
        self.enter();
        let (decode, now) = (self.own(), session.figures());
        // Its passes have counted themselves.
        let in_steps = Duration::from_nanos(now.decode_ns - self.before.decode_ns);
        session.clocks.generated(decode.saturating_sub(in_steps));
        state.generated_at = session.figures();
        Times { decode, waiting: Duration::from_nanos(now.waiting_ns - self.before.waiting_ns), ..self.times }
    }
}
