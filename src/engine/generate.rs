//! The loop: sample, append, stream, stop.

use std::sync::Arc;

use super::model::Model;
use super::session::{Session, State};
use super::slot::lock_slot;
use super::stream::TextStream;
use crate::backend::{Ahead, PAGE_TOKENS, Verdict};
use crate::error::{Error, Result};

/// When to stop and what to show.
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    /// Stop after this many; `None`: when the context is full.
    pub max_tokens: Option<usize>,
    /// Stop where the text reaches one of these.
    pub stop: Vec<String>,
    /// Control tokens are part of the text.
    pub special: bool,
    /// The end token is appended and counted.
    pub keep_end: bool,
    /// End tokens are tokens like any other.
    pub ignore_end: bool,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum StopReason {
    MaxTokens,
    EndToken(u32),
    /// The index of the stop string.
    StopString(usize),
    ContextFull,
    Callback,
    Cancelled,
}

/// What a generation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Tokens appended.
    pub n_tokens: usize,
    /// Why it ended.
    pub reason: StopReason,
}

/// A generation that is under way: when it ends, and its text.
pub(super) struct Generation {
    max_tokens: Option<usize>,
    keep_end: bool,
    ignore_end: bool,
    stream: TextStream,
    pub(super) n_tokens: usize,
}

/// What becomes of a token that has been chosen.
pub(super) enum Chosen {
    /// It is appended; and then the generation has ended by it, or not.
    Append { ends: bool },
    /// It is not appended, and the generation has ended.
    Stop(StopReason),
}

impl Generation {
    pub(super) fn new(model: &Model, options: &GenerateOptions) -> Result<Generation> {
        let GenerateOptions { max_tokens, keep_end, ignore_end, .. } = *options;
        let stream = TextStream::new(model, &options.stop, options.special)?;
        Ok(Generation { max_tokens, keep_end, ignore_end, stream, n_tokens: 0 })
    }

    /// The most tokens that are still to come for a session that holds so many; or why none is.
    pub(super) fn left(&self, session: &Session, n_held: usize) -> std::result::Result<usize, StopReason> {
        if session.take_cancel() {
            return Err(StopReason::Cancelled);
        }
        let wanted = self.max_tokens.map_or(usize::MAX, |max| max.saturating_sub(self.n_tokens));
        let room = session.n_ctx().saturating_sub(n_held);
        match (wanted, room) {
            (0, _) => Err(StopReason::MaxTokens),
            (_, 0) => Err(StopReason::ContextFull),
            _ => Ok(wanted.min(room)),
        }
    }

    /// A token has been chosen.
    pub(super) fn chosen(&self, model: &Model, token: u32) -> Result<Chosen> {
        let ends = !self.ignore_end && model.token_flags(token)?.end;
        let stops = ends && !self.keep_end;
        Ok(if stops { Chosen::Stop(StopReason::EndToken(token)) } else { Chosen::Append { ends } })
    }

    /// The token has been appended: `text` becomes what is complete by it.
    pub(super) fn appended(&mut self, token: u32, text: &mut String) -> Result<()> {
        self.n_tokens += 1;
        text.clear();
        self.stream.push(token, text)
    }

    /// Why it ends behind the token that has been appended, if it does.
    pub(super) fn ended(&self, token: u32, ends: bool) -> Option<StopReason> {
        match self.stream.stopped() {
            Some(index) => Some(StopReason::StopString(index)),
            None => ends.then_some(StopReason::EndToken(token)),
        }
    }

    /// It has ended: `text` becomes what was held back, unless it was stopped from outside, which hears nothing more.
    pub(super) fn finish(&mut self, reason: StopReason, text: &mut String) -> Result<Generated> {
        text.clear();
        if !matches!(reason, StopReason::Callback | StopReason::Cancelled) {
            self.stream.finish(text)?;
        }
        Ok(Generated { n_tokens: self.n_tokens, reason })
    }
}

impl Session {
    /// Generates from the current logits on. `on_token` gets each token after it has been appended, with the text that
    /// has become complete, and a last `None` with what was held back, unless it was stopped from outside; it returns
    /// whether to go on.
    pub fn generate(
        &self,
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(Option<u32>, &str) -> bool,
    ) -> Result<Generated> {
        self.call(|state| self.run(state, options, on_token))
    }

    fn run(
        &self,
        state: &mut State,
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(Option<u32>, &str) -> bool,
    ) -> Result<Generated> {
        state.logits_there()?;
        let mut generation = Generation::new(self.model(), options)?;
        let mut text = String::new();
        let mut ahead = Runs::Unknown;
        let reason = loop {
            let left = match generation.left(self, state.tokens.len()) {
                Err(reason) => break reason,
                Ok(left) => left,
            };
            let mut loops = Loop { generation: &mut generation, text: &mut text, on_token };
            match self.run_ahead(state, left.min(AHEAD), &mut ahead, &mut loops)? {
                Some(Some(reason)) => break reason,
                Some(None) => continue,
                None => {}
            }
            let token = match self.choose(state, true) {
                Err(Error::Cancelled) => {
                    self.take_cancel();
                    break StopReason::Cancelled;
                }
                chosen => chosen?,
            };
            let ends = match generation.chosen(self.model(), token)? {
                Chosen::Stop(reason) => break reason,
                Chosen::Append { ends } => ends,
            };
            match self.append(state, &[token], None) {
                Err(Error::Cancelled) => break StopReason::Cancelled,
                other => other.map(drop)?,
            }
            generation.appended(token, &mut text)?;
            if !on_token(Some(token), &text) {
                break StopReason::Callback;
            }
            if let Some(reason) = generation.ended(token, ends) {
                break reason;
            }
        };
        let generated = generation.finish(reason, &mut text)?;
        if !text.is_empty() {
            on_token(None, &text);
        }
        Ok(generated)
    }

    /// Up to `n` tokens with the device ahead of the host; `None`: step by step instead, else the reason to stop, if any.
    /// Until the device has shown that it can, no page is taken that a step would not take, and none later that is not
    /// free: what fits into the cache is generated.
    fn run_ahead(
        &self,
        state: &mut State,
        mut n: usize,
        runs: &mut Runs,
        loops: &mut Loop<'_, '_>,
    ) -> Result<Option<Option<StopReason>>> {
        let Some(&last_token) = state.tokens.last() else { return Ok(None) };
        let position = state.tokens.len();
        // The first step after a fork makes the slot the session's own. Calls that are merged meet at
        // each step, and a tap sees each.
        let apart = state.tap.is_some() || state.constraint.is_some() || self.model().inner.line.merges();
        if apart || *runs == Runs::Never || Arc::get_mut(&mut state.slot).is_none() {
            return Ok(None);
        }
        state.tokens_for(n)?;
        if *runs == Runs::Unknown || state.pages.prepare(position, position + n).is_err() {
            // Where not even this is free, a step says so if the next token needs it.
            if state.pages.prepare(position, position + 1).is_err() {
                return Ok(None);
            }
            n = n.min(state.pages.as_slice().len() * PAGE_TOKENS - position);
        }
        let mut reason = None;
        let State { tokens, pages, slot, sampling, .. } = state;
        let tokens = Arc::make_mut(tokens);
        let mut slot = lock_slot(slot);
        let ahead = Ahead { slot: &mut **slot, pages: pages.as_slice(), params: sampling, last_token, position, n };
        let outcome = self.model().inner.loaded.decode_ahead(ahead, &mut |token| {
            let (verdict, why) = self.take(token, tokens, loops)?;
            reason = why;
            Ok(verdict)
        });
        drop(slot);
        if outcome.is_err() && state.tokens.len() > position {
            // The device may not have got to writing the last one's keys and values.
            Arc::make_mut(&mut state.tokens).pop();
        }
        state.pages.mark(position..state.tokens.len(), self.by_steps(1));
        state.pages.shrink(state.tokens.len())?;
        state.pages.settle(state.tokens.len())?;
        state.pages.publish(&state.tokens);
        state.has_logits &= outcome.is_ok();
        let outcome = outcome?;
        *runs = if outcome.is_some() { Runs::Ahead } else { Runs::Never };
        Ok(outcome.map(|()| reason))
    }

    /// One token of [`Self::run_ahead`], as one turn of the loop does it.
    fn take(&self, token: u32, tokens: &mut Vec<u32>, l: &mut Loop<'_, '_>) -> Result<(Verdict, Option<StopReason>)> {
        if self.take_cancel() {
            return Ok((Verdict::Refused, Some(StopReason::Cancelled)));
        }
        let ends = match l.generation.chosen(self.model(), token)? {
            Chosen::Stop(reason) => return Ok((Verdict::Refused, Some(reason))),
            Chosen::Append { ends } => ends,
        };
        l.generation.appended(token, l.text)?;
        tokens.push(token);
        let goes_on = (l.on_token)(Some(token), l.text);
        let reason = if goes_on { l.generation.ended(token, ends) } else { Some(StopReason::Callback) };
        Ok((if reason.is_some() { Verdict::Last } else { Verdict::GoOn }, reason))
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

/// What a turn of the loop works with.
struct Loop<'a, 'b> {
    generation: &'a mut Generation,
    text: &'a mut String,
    on_token: &'a mut (dyn FnMut(Option<u32>, &str) -> bool + 'b),
}
