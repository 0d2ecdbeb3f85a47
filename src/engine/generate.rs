//! The loop: sample, append, stream, stop.

use super::session::Session;
use super::stream::TextStream;
use crate::error::{Error, Result};
use crate::sampler::SamplingParams;

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
    /// has become complete, and a last `None` with what was held back; it returns whether to go on.
    pub fn generate(
        &self,
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(Option<u32>, &str) -> bool,
    ) -> Result<Generated> {
        let mut state = self.lock()?;
        state.logits_there()?;
        let mut stream = TextStream::new(self.model(), options.stop.clone(), options.special)?;
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
            let token = self.choose(&mut state)?;
            let ends = !options.ignore_end && self.model().token_kind(token)?.end;
            if ends && !options.keep_end {
                break StopReason::EndToken(token);
            }
            match self.append(&mut state, &[token]) {
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
        text.clear();
        stream.finish(&mut text)?;
        // Whoever has had enough is not called again.
        if reason != StopReason::Callback && !text.is_empty() {
            on_token(None, &text);
        }
        Ok(Generated { n_tokens, reason })
    }
}

fn out_of_range(name: &'static str, found: f32, expected: &str) -> Error {
    Error::Argument { name, found: found.to_string(), expected: expected.to_owned() }
}

/// Checks the ranges of sampling parameters.
pub(super) fn check_sampling(p: &SamplingParams, n_vocab: usize) -> Result<()> {
    let finite = [
        ("temperature", p.temperature, 0.0, f32::MAX, "a finite number, 0 or more"),
        ("top_p", p.top_p, 0.0, 1.0, "0 to 1"),
        ("min_p", p.min_p, 0.0, 1.0, "0 to 1"),
        (
            "repetition_penalty",
            p.repetition_penalty,
            f32::MIN_POSITIVE,
            f32::MAX,
            "a finite number above 0, or 0 for off",
        ),
        ("frequency_penalty", p.frequency_penalty, f32::MIN, f32::MAX, "a finite number"),
        ("presence_penalty", p.presence_penalty, f32::MIN, f32::MAX, "a finite number"),
    ];
    for (name, value, min, max, expected) in finite {
        // Also false for NaN.
        if !(value >= min && value <= max) {
            return Err(out_of_range(name, value, expected));
        }
    }
    for (index, (token, bias)) in p.logit_bias.iter().enumerate() {
        if *token as usize >= n_vocab {
            return Err(Error::TokenOutOfRange { index, token: *token, n_vocab });
        }
        if bias.is_nan() || *bias == f32::INFINITY {
            return Err(out_of_range("logit_bias", *bias, "a finite number or -inf"));
        }
    }
    Ok(())
}
