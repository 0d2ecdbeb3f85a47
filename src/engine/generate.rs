//! The loop: sample, append, stream, stop.

use super::session::{Session, State};
use super::stream::TextStream;
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
        let mut stream = TextStream::new(self.model(), &options.stop, options.special)?;
        let mut text = String::new();
        let mut n_tokens = 0;
        let reason = loop {
            if self.take_cancel() {
                break StopReason::Cancelled;
            }
            if options.max_tokens.is_some_and(|max| n_tokens >= max) {
                break StopReason::MaxTokens;
            }
            if state.tokens.len() >= self.n_ctx() {
                break StopReason::ContextFull;
            }
            let token = self.choose(state)?;
            let ends = !options.ignore_end && self.model().token_flags(token)?.end;
            if ends && !options.keep_end {
                break StopReason::EndToken(token);
            }
            match self.append(state, &[token]) {
                Err(Error::Cancelled) => break StopReason::Cancelled,
                other => other?,
            }
            n_tokens += 1;
            text.clear();
            stream.push(token, &mut text)?;
            if !on_token(Some(token), &text) {
                break StopReason::Callback;
            }
            if let Some(index) = stream.stopped() {
                break StopReason::StopString(index);
            }
            if ends {
                break StopReason::EndToken(token);
            }
        };
        // Whoever has stopped it from outside is not called again.
        if !matches!(reason, StopReason::Callback | StopReason::Cancelled) {
            text.clear();
            stream.finish(&mut text)?;
            if !text.is_empty() {
                on_token(None, &text);
            }
        }
        Ok(Generated { n_tokens, reason })
    }
}
