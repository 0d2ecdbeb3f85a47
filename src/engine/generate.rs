//! The loop: sample, append, stream, stop.

use std::sync::Arc;
use std::time::Instant;

use super::clock::Clock;
use super::generation::{Chosen, GenerateOptions, Generated, Generation, Step, StopReason};
use super::log::LogLevel;
use super::logprobs::{Logprob, Top, Weighing};
use super::session::{Session, State};
use super::slot::lock_slot;
use crate::backend::{Ahead, PAGE_TOKENS, Verdict};
use crate::error::{Error, Result};

impl Session {
    /// Generates from the current logits on. `on_token` gets each token after it has been appended, with the text that
    /// has become complete, and a last `None` with what was held back, unless it was stopped from outside; it returns
    /// whether to go on.
    pub fn generate(
        &self,
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(Option<u32>, &str) -> bool,
    ) -> Result<Generated> {
        self.generate_seen(options, None, &mut |step| on_token(step.token, step.text))
    }

    /// [`Self::generate`] with more of each token: `top` wants its log probabilities, and those of the likeliest beside it.
    pub fn generate_seen(
        &self,
        options: &GenerateOptions,
        top: Option<Top>,
        on_step: &mut dyn FnMut(&Step<'_>) -> bool,
    ) -> Result<Generated> {
        self.check_top(top.unwrap_or_default())?;
        let generated = self.call(|state| {
            state.logits_there()?;
            let generation = Generation::new(self.model(), options)?;
            let mut turns = Loop::new(self, Clock::begin(self, state), generation, top, on_step);
            let outcome = turns.run(state);
            let n_tokens = turns.generation.n_tokens;
            let times = turns.clock.end(self, state);
            let generated = Generated { n_tokens, reason: outcome?, times };
            if generated.reason == StopReason::Cancelled {
                self.model().inner.totals.failed(&Error::Cancelled);
            }
            Ok(generated)
        })?;
        self.model().inner.log.log(LogLevel::Debug, format_args!("{generated}"));
        Ok(generated)
    }
}

/// What is known of the device: whether it runs ahead with these parameters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Runs {
    Unknown,
    Ahead,
    Never,
}

/// Tokens that one call of the backend may run ahead for: bounds the pages taken for tokens that may not come.
const AHEAD: usize = 128;
// The parts of two pages that follow on one another come together, whatever the windows: see `Course::wanted`.
const _: () = assert!(AHEAD <= 2 * PAGE_TOKENS);

/// A generation as a call of its own: what a turn of it works with, and its clocks.
struct Loop<'a, 'b> {
    session: &'a Session,
    generation: Generation,
    text: String,
    on_step: &'a mut (dyn FnMut(&Step<'_>) -> bool + 'b),
    /// What is wanted of each token's log probabilities.
    top: Option<Top>,
    weighing: Weighing,
    likeliest: Vec<Logprob>,
    ahead: Runs,
    clock: Clock,
}

impl<'a, 'b> Loop<'a, 'b> {
    fn new(
        session: &'a Session,
        clock: Clock,
        generation: Generation,
        top: Option<Top>,
        on_step: &'a mut (dyn FnMut(&Step<'_>) -> bool + 'b),
    ) -> Loop<'a, 'b> {
        Loop {
            session,
            generation,
            text: String::new(),
            on_step,
            top,
            weighing: Weighing::default(),
            likeliest: Vec::new(),
            ahead: Runs::Unknown,
            clock,
        }
    }

    /// Generates until it ends, and why it does.
    fn run(&mut self, state: &mut State) -> Result<StopReason> {
        let reason = loop {
            let left = match self.generation.left(self.session, state.tokens.len()) {
                Err(reason) => break reason,
                Ok(left) => left,
            };
            let ended = match self.run_ahead(state, left.min(AHEAD))? {
                Some(ended) => ended,
                None => self.step(state)?,
            };
            // Nobody waits for a call of one token.
            self.session.model().inner.tell();
            if let Some(reason) = ended {
                break reason;
            }
        };
        self.generation.finish(reason, &mut self.text)?;
        if !self.text.is_empty() {
            self.show(None, state.tokens.len(), None);
        }
        Ok(reason)
    }

    /// One token; why it ends with it, if it does.
    fn step(&mut self, state: &mut State) -> Result<Option<StopReason>> {
        let session = self.session;
        let stopped = |outcome: Error| match outcome {
            Error::Cancelled => {
                session.take_cancel();
                Ok(Some(StopReason::Cancelled))
            }
            error => Err(error),
        };
        let token = match session.choose(state, true) {
            Err(error) => return stopped(error),
            Ok(token) => token,
        };
        let ends = match self.generation.chosen(session.model(), token)? {
            Chosen::Stop(reason) => return Ok(Some(reason)),
            Chosen::Append { ends } => ends,
        };
        // Of the logits that it was chosen from: the step replaces them.
        let weighed = self.top.map(|top| self.weighing.chosen(session, state, token, top, &mut self.likeliest));
        let logprob = match weighed.transpose() {
            Err(error) => return stopped(error),
            Ok(logprob) => logprob,
        };
        if let Err(error) = session.append(state, &[token], None) {
            return stopped(error);
        }
        self.generation.appended(token, &mut self.text)?;
        if !self.show(Some(token), state.tokens.len() - 1, logprob) {
            return Ok(Some(StopReason::Callback));
        }
        Ok(self.generation.ended(token, ends))
    }

    /// Has the caller see a token, or the last text; whether to go on.
    fn show(&mut self, token: Option<u32>, position: usize, logprob: Option<Logprob>) -> bool {
        if token.is_some() && self.generation.n_tokens == 1 {
            self.clock.first_token();
        }
        self.clock.leave();
        let top: &[Logprob] = if logprob.is_some() { &self.likeliest } else { &[] };
        let goes_on = (self.on_step)(&Step { token, text: &self.text, position, logprob, top });
        self.clock.enter();
        goes_on
    }

    /// Up to `n` tokens with the device ahead of the host; `None`: step by step instead, else the reason to stop, if any.
    /// Until the device has shown that it can, no page is taken that a step would not take, and none later that is not
    /// free: what fits into the cache is generated.
    fn run_ahead(&mut self, state: &mut State, mut n: usize) -> Result<Option<Option<StopReason>>> {
        let session = self.session;
        let Some(&last_token) = state.tokens.last() else { return Ok(None) };
        let position = state.tokens.len();
        // The first step after a fork makes the slot the session's own. Calls that are merged meet at
        // each step, and a tap sees each.
        let inner = &session.model().inner;
        let watched = state.tap.is_some() || state.constraint.is_some() || self.top.is_some();
        if watched || inner.line.merges() || self.ahead == Runs::Never || Arc::get_mut(&mut state.slot).is_none() {
            return Ok(None);
        }
        state.tokens_for(n)?;
        if self.ahead == Runs::Unknown || state.pages.prepare(position, position + n).is_err() {
            // Where not even this is free, a step says so if the next token needs it.
            if state.pages.prepare(position, position + 1).is_err() {
                return Ok(None);
            }
            n = n.min(state.pages.as_slice().len() * PAGE_TOKENS - position);
        }
        let (begun, in_callbacks) = (Instant::now(), self.clock.callbacks());
        let mut reason = None;
        let State { tokens, pages, slot, sampling, .. } = state;
        let tokens = Arc::make_mut(tokens);
        let mut slot = lock_slot(slot);
        let ahead = Ahead { slot: &mut **slot, pages: pages.as_slice(), params: sampling, last_token, position, n };
        let running = inner.totals.running(1);
        let outcome = inner.loaded.decode_ahead(ahead, &mut |token| {
            let (verdict, why) = self.take(token, tokens)?;
            reason = why;
            Ok(verdict)
        });
        drop((slot, running));
        if outcome.is_err() && state.tokens.len() > position {
            // The device may not have got to writing the last one's keys and values.
            Arc::make_mut(&mut state.tokens).pop();
        }
        let n_done = state.tokens.len() - position;
        if n_done > 0 {
            let took = begun.elapsed().saturating_sub(self.clock.callbacks() - in_callbacks);
            session.clocks.decoded(n_done);
            session.clocks.generated(took);
            inner.totals.ran_ahead(n_done, took);
        }
        state.pages.mark(position..state.tokens.len(), session.by_steps(1));
        state.pages.shrink(state.tokens.len())?;
        state.pages.settle(state.tokens.len())?;
        state.pages.publish(&state.tokens);
        state.has_logits &= outcome.is_ok();
        let outcome = outcome?;
        self.ahead = if outcome.is_some() { Runs::Ahead } else { Runs::Never };
        Ok(outcome.map(|()| reason))
    }

    /// One token of [`Self::run_ahead`], as one turn of the loop does it.
    fn take(&mut self, token: u32, tokens: &mut Vec<u32>) -> Result<(Verdict, Option<StopReason>)> {
        if self.session.take_cancel() {
            return Ok((Verdict::Refused, Some(StopReason::Cancelled)));
        }
        let ends = match self.generation.chosen(self.session.model(), token)? {
            Chosen::Stop(reason) => return Ok((Verdict::Refused, Some(reason))),
            Chosen::Append { ends } => ends,
        };
        self.generation.appended(token, &mut self.text)?;
        tokens.push(token);
        let goes_on = self.show(Some(token), tokens.len() - 1, None);
        let reason = if goes_on { self.generation.ended(token, ends) } else { Some(StopReason::Callback) };
        Ok((if reason.is_some() { Verdict::Last } else { Verdict::GoOn }, reason))
    }
}
