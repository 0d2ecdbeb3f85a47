//! A generation as such: when it ends, its text, and what it tells of itself. Who runs it is `generate`, or a batch.

use std::fmt;
use std::time::Duration;

use super::logprobs::Logprob;
use super::model::Model;
use super::session::Session;
use super::stream::TextStream;
use crate::error::Result;

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
#[derive(Clone, Copy, Debug)]
pub struct Generated {
    /// Tokens appended.
    pub n_tokens: usize,
    /// Why it ended.
    pub reason: StopReason,
    /// What it took.
    pub times: Times,
}

/// What a generation took, and what the session had got before it since its last one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Tokens that the session got before, in whatever calls,
    pub n_before: u64,
    /// those of them that were other sessions',
    pub n_reused_before: u64,
    /// and the time of those calls, with computing again what windows have left.
    pub before: Duration,
    /// From the call to the first token, which is appended; zero without one.
    pub first_token: Duration,
    /// The whole call, but for the caller's code.
    pub decode: Duration,
    /// The caller's code.
    pub callbacks: Duration,
    /// The part of `decode` in which tokens waited for a pass of theirs to begin.
    pub waiting: Duration,
}

/// A token that has been generated and appended.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The token; `None`: there is none more, but text that was held back.
    pub token: Option<u32>,
    /// What has become complete by it.
    pub text: &'a str,
    /// Where it stands; without a token, how many the session holds.
    pub position: usize,
    /// Its log probabilities, where they are wanted.
    pub logprob: Option<Logprob>,
    /// The likeliest in its place, as many as are wanted.
    pub top: &'a [Logprob],
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
    pub(super) fn finish(&mut self, reason: StopReason, text: &mut String) -> Result<()> {
        text.clear();
        match reason {
            StopReason::Callback | StopReason::Cancelled => Ok(()),
            _ => self.stream.finish(text),
        }
    }
}

impl fmt::Display for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Generated { n_tokens, reason, times } = self;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let (n_before, before, decode) = (times.n_before, ms(times.before), ms(times.decode));
        let (first, waiting) = (ms(times.first_token), ms(times.waiting));
        write!(
            f,
            "{n_tokens} tokens generated in {decode:.1} ms, the first after {first:.1}, {waiting:.1} of them waiting; {n_before} before \
             it in {before:.1} ms; ended by {reason:?}"
        )
    }
}
