//! Output held to a grammar: only tokens that it allows are chosen.
//!
//! Invariants: what a constraint allows is a function of its grammar and of the session's tokens from the position on at
//! which it was set. It has consumed a prefix of these, and catches up, goes back or begins anew when a token is to be
//! chosen; so appending, forking, dropping and saving tokens need not know of it. What ends a text is allowed where the
//! grammar may end, and there only; a grammar can name a model's other control tokens, and else none.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};

use super::cost::{self, Cost};
use crate::engine::model::Model;
use crate::engine::session::{Session, State, lock_slot};
use crate::error::{Error, Result};
use crate::process;
use crate::sampler::{self, SampleRequest};

/// What output is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grammar<'a> {
    /// A JSON schema.
    JsonSchema(&'a str),
    /// A regular expression for the whole of it.
    Regex(&'a str),
    /// A grammar in the Lark format of llguidance.
    Lark(&'a str),
}

impl<'a> Grammar<'a> {
    /// Its kind, as the ABI and saved sessions number it, and its text.
    pub(in crate::engine) fn parts(self) -> (u64, &'a str) {
        match self {
            Grammar::JsonSchema(text) => (1, text),
            Grammar::Regex(text) => (2, text),
            Grammar::Lark(text) => (3, text),
        }
    }

    /// The grammar of [`Self::parts`].
    pub(in crate::engine) fn of(kind: u64, text: &'a str) -> Option<Grammar<'a>> {
        match kind {
            1 => Some(Grammar::JsonSchema(text)),
            2 => Some(Grammar::Regex(text)),
            3 => Some(Grammar::Lark(text)),
            _ => None,
        }
    }
}

/// The grammars' view of a vocabulary, made when the first constraint is set.
pub(in crate::engine) type Grammars = OnceLock<std::result::Result<Vocabulary, String>>;

/// What grammars are compiled with.
#[derive(Clone)]
pub(in crate::engine) struct Vocabulary {
    factory: Arc<ParserFactory>,
    /// Tokens that end a text.
    ends: Arc<[u32]>,
}

/// A grammar at work.
pub(in crate::engine) struct Constraint {
    vocabulary: Vocabulary,
    /// As [`Grammar::parts`].
    kind: u64,
    text: Arc<str>,
    /// Tokens the session had when it was set.
    from: usize,
    cost: Cost,
    matcher: Matcher,
    consumed: Vec<u32>,
}

fn refused(what: impl std::fmt::Display) -> Error {
    Error::Constraint { message: what.to_string() }
}

/// The parser catches its own panics where it knows of them; this is for the others.
fn calm<T>(call: impl FnOnce() -> std::result::Result<T, String>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(outcome) => outcome.map_err(refused),
        Err(_) => Err(refused("the grammar's parser failed")),
    }
}

/// Runs it on a thread with a stack of so many bytes: the parser recurses as deep as texts from anywhere make it. It owns
/// what it works on, since a scope would leave something on the caller's thread that keeps the library loaded.
fn apart<T: Send + 'static>(stack: usize, call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    process::spawn("kigo-grammar", stack, call)?.join().unwrap_or_else(|_| Err(refused("the grammar's parser failed")))
}

/// A token's bytes as the trie wants them: what is no text behind a mark, what is nothing empty.
fn word(model: &Model, token: u32) -> Vec<u8> {
    let Ok(flags) = model.token_flags(token) else { return Vec::new() };
    let bytes = model.token_bytes(token).map(|b| b.into_owned()).unwrap_or_default();
    if flags.control || flags.end {
        let name = model.token_name(token).unwrap_or_default();
        return [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat();
    }
    // The trie is made by recursion.
    if bytes.len() > MAX_WORD { Vec::new() } else { bytes }
}

/// The longest token that a grammar can allow, in bytes.
const MAX_WORD: usize = 4096;
const VOCABULARY_STACK: usize = 16 << 20;

fn vocabulary(model: &Model) -> std::result::Result<Vocabulary, String> {
    let n = model.inner.facts.n_vocab as u32;
    let ends: Arc<[u32]> = (0..n).filter(|&t| model.token_flags(t).is_ok_and(|f| f.end)).collect();
    let Some(&end) = ends.first() else { return Err("the model has no token that ends a text".to_owned()) };
    let words: Vec<Vec<u8>> = (0..n).map(|token| word(model, token)).collect();
    let trie = TokTrie::from(&TokRxInfo::new(n, end), &words);
    let env: llguidance::toktrie::TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&env).map_err(|e| e.to_string())?;
    factory.quiet();
    factory.limits_mut().verbose_errors = false;
    // A text that needs more symbols is refused, since the parser numbers what is left of them in 16 bits.
    factory.limits_mut().max_grammar_size = 250_000;
    Ok(Vocabulary { factory: Arc::new(factory), ends })
}

impl Vocabulary {
    fn compile(&self, kind: u64, text: &Arc<str>, cost: Cost) -> Result<Matcher> {
        let (vocabulary, text) = (self.clone(), Arc::clone(text));
        apart(cost.stack, move || {
            let grammar = Grammar::of(kind, &text).ok_or_else(|| refused("no such kind"))?;
            calm(|| vocabulary.matcher(grammar))
        })
    }

    fn matcher(&self, grammar: Grammar<'_>) -> std::result::Result<Matcher, String> {
        cost::check(grammar)?;
        let grammar = match grammar {
            Grammar::JsonSchema(text) => {
                TopLevelGrammar::from_json_schema(serde_json::from_str(text).map_err(|e| e.to_string())?)
            }
            Grammar::Regex(text) => TopLevelGrammar::from_regex(text),
            Grammar::Lark(text) => TopLevelGrammar::from_lark(text.to_owned()),
        };
        let matcher = Matcher::new(self.factory.create_parser(grammar));
        match matcher.get_error() {
            // A panic's text has its backtrace behind it.
            Some(error) => Err(error.split("\n<backtrace>").next().unwrap_or_default().to_owned()),
            None => Ok(matcher),
        }
    }
}

impl Constraint {
    /// For a session of `model` from its token `from` on.
    pub(in crate::engine) fn new(model: &Model, grammar: Grammar<'_>, from: usize) -> Result<Constraint> {
        let (kind, text) = grammar.parts();
        let cost = cost::cost(grammar).map_err(refused)?;
        let vocabulary = match model.inner.grammars.get() {
            Some(made) => made.clone().map_err(refused)?,
            None => {
                let model = model.clone();
                let make = move || calm(|| model.inner.grammars.get_or_init(|| vocabulary(&model)).clone());
                apart(VOCABULARY_STACK, make)?
            }
        };
        let text = text.into();
        let matcher = vocabulary.compile(kind, &text, cost)?;
        Ok(Constraint { vocabulary, kind, text, from, cost, matcher, consumed: Vec::new() })
    }

    /// For a fork of the session.
    pub(in crate::engine) fn fork(&self) -> Constraint {
        let (vocabulary, text, matcher) = (self.vocabulary.clone(), Arc::clone(&self.text), self.matcher.deep_clone());
        let (kind, from, cost) = (self.kind, self.from, self.cost);
        Constraint { vocabulary, kind, text, from, cost, matcher, consumed: self.consumed.clone() }
    }

    /// All that it depends on beside the session's tokens: [`Grammar::parts`] and the token it holds from.
    pub(in crate::engine) fn facts(&self) -> (u64, &str, usize) {
        (self.kind, &self.text, self.from)
    }

    /// Makes what was consumed what the session has.
    fn catch_up(&mut self, tokens: &[u32]) -> Result<()> {
        let Some(appended) = tokens.get(self.from..) else {
            let (n, from) = (tokens.len(), self.from);
            return Err(refused(format_args!("set at token {from}, of which {n} are left: set it again")));
        };
        let same = appended.iter().zip(&self.consumed).take_while(|(a, b)| a == b).count();
        let back = self.consumed.len() - same;
        let matcher = &mut self.matcher;
        let at_hand = !matcher.is_error() && calm(|| matcher.rollback(back).map_err(|e| e.to_string())).is_ok();
        if at_hand {
            self.consumed.truncate(same);
        } else {
            // A parser that has failed, at a token that was not allowed, or at a limit, takes nothing any more.
            self.matcher = self.vocabulary.compile(self.kind, &self.text, self.cost)?;
            self.consumed.clear();
        }
        for &token in &appended[self.consumed.len()..] {
            let matcher = &mut self.matcher;
            if matcher.is_stopped() || self.vocabulary.ends.contains(&token) {
                return Err(refused(format_args!("the grammar ends before token {token}")));
            }
            calm(|| {
                matcher.consume_token(token).map_err(|_| format!("the grammar does not allow token {token} here"))
            })?;
            self.consumed.push(token);
        }
        Ok(())
    }

    /// Whether the text may end here.
    fn may_end(&mut self) -> Result<bool> {
        calm(|| Ok(self.matcher.is_stopped() || self.matcher.is_accepting().map_err(|e| e.to_string())?))
    }

    fn allows(&mut self, token: u32) -> Result<bool> {
        if self.vocabulary.ends.contains(&token) {
            return self.may_end();
        }
        calm(|| {
            let stopped = self.matcher.is_stopped();
            Ok(!stopped && self.matcher.validate_tokens(&[token]).map_err(|e| e.to_string())? == 1)
        })
    }

    /// What the grammar allows next: bit `t % 32` of word `t / 32` for token `t`; ends where the text may end.
    fn mask(&mut self, n_vocab: usize) -> Result<Vec<u32>> {
        let may_end = self.may_end()?;
        let allowed = calm(|| self.matcher.compute_mask_or_eos().map_err(|e| e.to_string()))?;
        let mut words = allowed.as_slice().to_vec();
        words.resize(n_vocab.div_ceil(32), 0);
        for &token in self.vocabulary.ends.iter() {
            let (word, bit) = (&mut words[token as usize / 32], 1 << (token % 32));
            *word = if may_end { *word | bit } else { *word & !bit };
        }
        Ok(words)
    }
}

/// Asks the constraint, once it has consumed the session's tokens, on a stack that suffices for it; `None`: there is none.
fn ask<T: Send + 'static>(
    state: &mut State,
    question: impl FnOnce(&mut Constraint) -> Result<T> + Send + 'static,
) -> Result<Option<T>> {
    let Some(constraint) = &mut state.constraint else { return Ok(None) };
    let stack = constraint.cost.step_stack;
    if stack == 0 {
        constraint.catch_up(&state.tokens)?;
        return question(constraint).map(Some);
    }
    // Here it is found again even where no thread was.
    let place = Arc::new(Mutex::new(state.constraint.take()));
    let (there, tokens) = (Arc::clone(&place), Arc::clone(&state.tokens));
    let answer = apart(stack, move || {
        let mut constraint = there.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(constraint) = &mut *constraint else { return Ok(None) };
        constraint.catch_up(&tokens)?;
        question(constraint).map(Some)
    });
    state.constraint = place.lock().unwrap_or_else(PoisonError::into_inner).take();
    answer
}

impl Session {
    /// Holds what is chosen from now on to a grammar, or no longer.
    pub fn set_constraint(&self, grammar: Option<Grammar<'_>>) -> Result<()> {
        self.call(|state| {
            let make = |g| Constraint::new(self.model(), g, state.tokens.len()).map(Box::new);
            state.constraint = grammar.map(make).transpose()?;
            Ok(())
        })
    }

    /// The next token among those that the constraint allows; `None`: there is no constraint.
    pub(in crate::engine) fn choose_allowed(&self, state: &mut State) -> Result<Option<u32>> {
        if state.constraint.is_none() {
            return Ok(None);
        }
        let loaded = &self.model().inner.loaded;
        let position = state.tokens.len() as u64;
        if state.sampling.temperature == 0.0 {
            // The likeliest of all is the likeliest of the allowed if it is allowed: most often no mask is needed.
            let request = SampleRequest { params: &state.sampling, history: &state.tokens, position };
            let token = loaded.sample(&mut **lock_slot(&state.slot), &request)?.token;
            if ask(state, move |c| c.allows(token))? == Some(true) {
                return Ok(Some(token));
            }
        }
        let n_vocab = self.n_vocab();
        let Some(allowed) = ask(state, move |c| c.mask(n_vocab))? else { return Ok(None) };
        let request = SampleRequest { params: &state.sampling, history: &state.tokens, position };
        let chosen = loaded.sample_among(&mut **lock_slot(&state.slot), &request, &allowed);
        match chosen {
            Err(Error::State { .. }) => Err(nothing_left()),
            chosen => Ok(Some(chosen?.token)),
        }
    }

    /// Bans what the session's constraint, if there is one, does not allow next.
    pub(in crate::engine) fn mask(&self, state: &mut State, logits: &mut [f32]) -> Result<()> {
        let n_vocab = self.n_vocab();
        if let Some(allowed) = ask(state, move |c| c.mask(n_vocab))? {
            sampler::ban(logits, &allowed);
        }
        Ok(())
    }
}

/// The mask has banned all that there was.
pub(in crate::engine) fn nothing_left() -> Error {
    refused("nothing that the grammar allows is left")
}
