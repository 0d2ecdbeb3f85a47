//! A place in a constraint: what it has consumed of a sequence of tokens, and what it allows there.
//!
//! Invariants: what a constraint allows is a function of its grammar and of the sequence's tokens from the position on at
//! which it was set. It has consumed a prefix of these, and catches up, goes back or begins anew when a token is to be
//! chosen; so appending, forking, dropping and saving tokens need not know of it. What ends a text is allowed where the
//! grammar may end, and there only; a grammar can name a model's other control tokens, and else none. What the parser does
//! at one token is bounded by its limits, which are set anew for each; what it keeps is thrown away before it is too much.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::StopReason;
use llguidance::earley::{BiasComputer, ParserRecognizer};
use llguidance::toktrie::{Recognizer, SimpleVob, TokEnv, TokTrie};
use llguidance::{CancellationHandle, TokenParser};

use super::constraint::{Constraint, parser_error};
use super::thread::{catch_panics, refused};
use super::weight::MAX_ITEMS;
use crate::error::{Error, Result};

/// What a parser may have taken beyond what it began with before it is made anew: bytes of tables, and fuel, which stands
/// for what the tables do not count.
const KEPT_BYTES: usize = 64 << 20;
const KEPT_FUEL: usize = 8_000_000;

/// What stops a mask that is being made.
#[derive(Clone, Default)]
pub(in crate::engine) struct MaskCancel(Arc<Mutex<Option<CancellationHandle>>>);

impl MaskCancel {
    /// Stops it. A signal handler may do so: nothing waits here. Where the lock is held, by who begins or ends a mask, the
    /// flag that the caller has set beforehand is seen by that.
    pub(in crate::engine) fn cancel(&self) {
        if let Ok(handle) = self.0.try_lock() {
            handle.iter().for_each(CancellationHandle::cancel);
        }
    }

    /// [`Self::cancel`] by a thread, which waits where the lock is held.
    fn cancel_surely(&self) {
        let handle = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        handle.iter().for_each(CancellationHandle::cancel);
    }

    fn set(&self, handle: Option<CancellationHandle>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = handle;
    }
}

/// What stops a parser at work: a cancel of the session, or its watch.
#[derive(Default)]
pub(in crate::engine) struct Stop {
    mask: MaskCancel,
    flag: Arc<AtomicBool>,
    /// Tokens that have been begun.
    n_done: AtomicUsize,
}

impl Stop {
    /// A stop by `mask`, if it is cancelled or if `flag` was set before.
    pub(in crate::engine) fn new((mask, flag): (MaskCancel, Arc<AtomicBool>)) -> Stop {
        Stop { mask, flag, n_done: AtomicUsize::new(0) }
    }

    /// Stops it now.
    pub(in crate::engine) fn stop(&self) {
        self.mask.cancel_surely();
    }

    /// Tokens that have been begun.
    pub(in crate::engine) fn n_done(&self) -> usize {
        self.n_done.load(Ordering::Relaxed)
    }
}

/// Items that the last token made, from which on the next one is watched.
const WATCHED_ITEMS: u64 = 300;
/// The least stack on which one is.
const WATCHED_STACK: usize = 1 << 20;

/// A constraint at work.
pub(in crate::engine) struct Held {
    constraint: Constraint,
    /// Tokens the session had when it was set.
    from: usize,
    /// `None`: to be made anew.
    parser: Option<Box<TokenParser>>,
    consumed: Vec<u32>,
    /// Items that the parser has made up to each of them.
    items: Vec<u64>,
}

/// Pushes one token's bytes, within the limits of a step, or none, to set the limits.
struct Probe<'a> {
    env: TokEnv,
    bytes: &'a [u8],
    fits: AtomicBool,
}

impl BiasComputer for Probe<'_> {
    fn compute_bias(&self, parser: &mut ParserRecognizer<'_>, _: &[u8]) -> SimpleVob {
        if !self.bytes.is_empty() {
            parser.trie_started("probe");
            let n = self.bytes.iter().take_while(|byte| parser.try_push_byte(**byte)).count();
            parser.pop_bytes(n);
            parser.trie_finished();
            self.fits.store(n == self.bytes.len(), Ordering::Relaxed);
        }
        self.env.tok_trie().alloc_token_set()
    }

    fn trie(&self) -> &TokTrie {
        self.env.tok_trie()
    }
}

/// Whether the bytes may come next. The limits of a step hold for it, and for what the parser does next.
fn probe(parser: &mut TokenParser, bytes: &[u8]) -> Result<bool> {
    let probe = Probe { env: parser.token_env.clone(), bytes, fits: AtomicBool::new(false) };
    // A prefix keeps the result out of the parser's cache of masks.
    parser.parser.compute_bias(&probe, b"-");
    limits_kept(parser)?;
    Ok(probe.fits.into_inner())
}

/// The limit that the parser has come to, if any.
fn limits_kept(parser: &TokenParser) -> Result<()> {
    match parser.parser.get_error() {
        Some(error) if error.stop_reason() == StopReason::Cancelled => Err(Error::Cancelled),
        Some(error) => Err(refused(format_args!("too much at one token: {}", error.message()))),
        None => Ok(()),
    }
}

/// An error of a step: the limit, if there is one behind it.
fn step_error(parser: &TokenParser, error: impl std::fmt::Display) -> Error {
    match limits_kept(parser) {
        Err(error) => error,
        Ok(()) => parser_error(error),
    }
}

impl Held {
    /// From the session's token `from` on.
    pub(in crate::engine) fn new(constraint: &Constraint, from: usize) -> Held {
        Held { constraint: constraint.clone(), from, parser: None, consumed: Vec::new(), items: Vec::new() }
    }

    /// For a fork of the session. It comes to the same place by its tokens where there is no memory for a copy.
    pub(in crate::engine) fn fork(&self) -> Held {
        let mut fork = Held::new(&self.constraint, self.from);
        if let Some(parser) = &self.parser {
            let room = crate::alloc::reserve(&mut fork.consumed, self.consumed.len())
                .and_then(|()| crate::alloc::reserve(&mut fork.items, self.items.len()))
                .and_then(|()| crate::alloc::require(parser.parser.lexer_stats().num_bytes.saturating_mul(2)));
            if room.is_ok() {
                fork.consumed.extend_from_slice(&self.consumed);
                fork.items.extend_from_slice(&self.items);
                fork.parser = Some(Box::new(parser.deep_clone()));
            }
        }
        fork
    }

    /// The constraint and the token that it holds from.
    pub(in crate::engine) fn facts(&self) -> (&Constraint, usize) {
        (&self.constraint, self.from)
    }

    /// The stack that the parser needs at a token; `None`: any will do, and no watch either.
    pub(in crate::engine) fn own_stack(&self) -> Option<usize> {
        let stack = self.constraint.0.cost.step_stack;
        (stack > 0 || self.is_watched()).then_some(stack.max(WATCHED_STACK))
    }

    /// Whether a token may take long though it is within the limits: the parser looks through a row for each item of it.
    fn is_watched(&self) -> bool {
        let n = self.items.len();
        let rows = self.items.last().copied().unwrap_or(0) - n.checked_sub(2).map_or(0, |i| self.items[i]);
        self.constraint.0.wide || rows > WATCHED_ITEMS
    }

    fn ends(&self) -> &[u32] {
        &self.constraint.0.vocabulary.ends
    }

    /// Whether the parser has taken much beyond what it began with.
    fn is_full(&self, parser: &TokenParser) -> bool {
        let (began, now) = (self.constraint.0.parser.parser.lexer_stats(), parser.parser.lexer_stats());
        now.num_bytes > began.num_bytes + KEPT_BYTES
            || now.total_fuel_spent > began.total_fuel_spent + KEPT_FUEL
            || now.num_states > began.num_states + parser.limits.max_lexer_states / 2
    }

    /// The parser, which has consumed the first of `tokens`, as many as it can have in common with what it was.
    fn take_parser(&mut self, tokens: &[u32]) -> Result<Box<TokenParser>> {
        let same = tokens.iter().zip(&self.consumed).take_while(|(a, b)| a == b).count();
        if let Some(mut parser) = self.parser.take().filter(|parser| !self.is_full(parser)) {
            let back = self.consumed.len() - same;
            if catch_panics(|| parser.rollback(back).map_err(parser_error)).is_ok() {
                self.consumed.truncate(same);
                self.items.truncate(same);
                return Ok(parser);
            }
        }
        self.consumed.clear();
        self.items.clear();
        // What it takes, so that a copy that fails is a status.
        let bytes = self.constraint.0.parser.parser.lexer_stats().num_bytes;
        crate::alloc::require(bytes.saturating_mul(2))?;
        let mut parser = Box::new(self.constraint.0.parser.deep_clone());
        parser.enable_cancellation();
        Ok(parser)
    }

    /// Consumes what the session has, and asks. A parser that has failed is not kept.
    pub(in crate::engine) fn ask<T>(
        &mut self,
        tokens: &[u32],
        stop: &Stop,
        question: impl FnOnce(&mut Held, &mut TokenParser) -> Result<T>,
    ) -> Result<T> {
        let Some(appended) = tokens.get(self.from..) else {
            let (n, from) = (tokens.len(), self.from);
            return Err(refused(format_args!("set at token {from}, of which {n} are left: set it again")));
        };
        let mut parser = self.take_parser(appended)?;
        stop.mask.set(parser.cancellation_handle());
        if stop.flag.load(Ordering::Acquire) {
            stop.mask.cancel_surely();
        }
        let handle = parser.cancellation_handle();
        // After a panic the parser is not looked at any more.
        let asked = catch_panics(|| {
            let missing = &appended[self.consumed.len()..];
            let consumed = missing.iter().try_for_each(|&token| {
                stop.n_done.fetch_add(1, Ordering::Relaxed);
                self.consume(&mut parser, token)
            });
            let answer = consumed.and_then(|()| question(self, &mut parser));
            let reason = parser.stop_reason();
            let failed =
                !reason.is_ok() || reason == StopReason::NoExtensionBias || parser.parser.get_error().is_some();
            Ok((answer, (!failed).then_some(parser)))
        });
        stop.mask.set(None);
        let cancelled = handle.is_some_and(|handle| handle.is_cancelled());
        let (answer, parser) = match asked {
            Ok((answer, parser)) => (answer, parser.filter(|_| !cancelled)),
            Err(error) => (Err(error), None),
        };
        if parser.is_none() {
            self.consumed.clear();
            self.items.clear();
        }
        self.parser = parser;
        if cancelled { Err(Error::Cancelled) } else { answer }
    }

    fn consume(&mut self, parser: &mut TokenParser, token: u32) -> Result<()> {
        let at = self.from + self.consumed.len();
        let from = self.from;
        let prompt = if at == from && from == 0 || self.consumed.is_empty() {
            ": set it after what it is not to hold, such as the prompt"
        } else {
            ""
        };
        let is_end = self.ends().contains(&token);
        if parser.stopped() || is_end {
            let begins = format!("the grammar, which holds from token {from} on, ends before token {token} at {at}");
            return Err(refused(format_args!("{begins}{prompt}")));
        }
        if !Held::fits(parser, token)? {
            return Err(refused(format_args!(
                "the grammar, which holds from token {from} on, does not allow token {token} at {at}{prompt}"
            )));
        }
        let before = parser.parser_stats().all_items;
        let stops =
            |error: String| refused(format_args!("allowed token {token} at {at}, where the parser stops: {error}"));
        let text = |error: Error| match error {
            Error::Constraint { message } => message,
            other => other.to_string(),
        };
        let consumed = parser.consume_token(token);
        let n_back = consumed.map_err(|e| stops(text(step_error(parser, e))))?;
        if n_back != 0 {
            return Err(stops(format!("it would take back {n_back} tokens")));
        }
        parser.check_stop().map_err(|e| stops(text(step_error(parser, e))))?;
        let made = parser.parser_stats().all_items.saturating_sub(before);
        let held = self.items.last().copied().unwrap_or(0) + made as u64;
        if held > MAX_ITEMS {
            return Err(stops(format!("{held} items; at most {MAX_ITEMS}")));
        }
        crate::alloc::reserve(&mut self.consumed, 1)?;
        crate::alloc::reserve(&mut self.items, 1)?;
        self.consumed.push(token);
        self.items.push(held);
        Ok(())
    }

    /// Whether a token that ends nothing may come next.
    fn fits(parser: &mut TokenParser, token: u32) -> Result<bool> {
        if parser.stopped() {
            return Ok(false);
        }
        let env = parser.token_env.clone();
        let bytes = env.tok_trie().token(token);
        if bytes.is_empty() {
            return Ok(false);
        }
        let marked = bytes[0] == TokTrie::SPECIAL_TOKEN_MARKER;
        if probe(parser, if marked { &[] } else { bytes })? {
            return Ok(true);
        }
        if parser.parser.grammar().lexer_spec().special_token_rx.is_none() {
            return Ok(false);
        }
        // It may be named by its id.
        let n = parser.validate_tokens_raw(&[token]);
        let n = n.map_err(|e| step_error(parser, e))?;
        limits_kept(parser)?;
        Ok(n == 1)
    }

    /// Whether the text may end here.
    fn may_end(parser: &mut TokenParser) -> bool {
        parser.stopped() || parser.is_accepting()
    }

    pub(in crate::engine) fn allows(&mut self, parser: &mut TokenParser, token: u32) -> Result<bool> {
        if self.ends().contains(&token) {
            return Ok(Held::may_end(parser));
        }
        Held::fits(parser, token)
    }

    /// What the grammar allows next: bit `t % 32` of word `t / 32` for token `t`; ends where the text may end.
    pub(in crate::engine) fn mask(&mut self, parser: &mut TokenParser, n_vocab: usize) -> Result<Vec<u32>> {
        let may_end = Held::may_end(parser);
        let mut words = Vec::new();
        crate::alloc::reserve(&mut words, n_vocab.div_ceil(32))?;
        if !parser.stopped() {
            match parser.compute_mask() {
                Ok(allowed) => words.extend(allowed.as_slice().iter().take(n_vocab.div_ceil(32))),
                Err(_) if parser.stop_reason() == StopReason::NoExtensionBias => return Err(nothing_left()),
                Err(error) => return Err(step_error(parser, error)),
            }
        }
        words.resize(n_vocab.div_ceil(32), 0);
        for &token in self.ends() {
            let (word, bit) = (&mut words[token as usize / 32], 1 << (token % 32));
            *word = if may_end { *word | bit } else { *word & !bit };
        }
        Ok(words)
    }
}

/// The mask has banned all that there was.
pub(in crate::engine) fn nothing_left() -> Error {
    refused("nothing that the grammar allows is left")
}
