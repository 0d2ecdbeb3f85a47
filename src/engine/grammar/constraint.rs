//! A constraint: a grammar compiled for a vocabulary, made once and shared by sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use llguidance::TokenParser;
use llguidance::api::{GrammarInit, TopLevelGrammar};

use super::cost::{self, Cost};
use super::thread::{on_own_stack, refused};
use super::vocabulary::{Grammars, Vocabulary};
use super::{Grammar, gbnf, lark, schema, weight};
use crate::alloc::require;
use crate::error::{Error, Result};

/// A compiled grammar; clones are the same.
#[derive(Clone)]
pub struct Constraint(pub(super) Arc<Compiled>);

pub(super) struct Compiled {
    pub(super) vocabulary: Vocabulary,
    /// The number that [`Grammar::parts`] gives its kind.
    kind: u64,
    compact: bool,
    text: Arc<str>,
    pub(super) cost: Cost,
    /// Its rules are so many that a token may take long.
    pub(super) wide: bool,
    /// Before the first token: what sessions get copies of.
    pub(super) parser: TokenParser,
}

/// The stack on which texts are weighed.
const COST_STACK: usize = 2 << 20;
/// Bytes that a compile takes for its text's length, and at least, as measured; asked for beforehand.
const COMPILE_BYTES: usize = 16 << 20;
const COMPILE_BYTES_A_BYTE: usize = 256;
/// The same for a schema that is read, and for the rules that it becomes.
const SCHEMA_BYTES_A_BYTE: usize = 32;
const RULES_BYTES_A_BYTE: usize = 96;
/// The same for a GBNF text that is translated.
const GBNF_BYTES_A_BYTE: usize = 512;

/// An error of the parser; a panic's has its backtrace behind it.
pub(super) fn parser_error(error: impl std::fmt::Display) -> Error {
    let text = error.to_string();
    let end = ["\n<backtrace>", "\n<non-verbose/>"].iter().filter_map(|mark| text.find(mark)).min();
    refused(&text[..end.unwrap_or(text.len())])
}

/// The Lark text that llguidance is given, or the regular expression.
fn prepared(grammar: Grammar<'_>, compact: bool) -> std::result::Result<String, String> {
    match grammar {
        Grammar::JsonSchema(text) => schema::prepare(text, compact, false),
        Grammar::Regex(text) => super::regex::check(text).map(|()| text.to_owned()),
        Grammar::Lark(text) => lark::embed(text, compact),
        // What it comes to is compiled in its place.
        Grammar::Gbnf(_) => Err("a GBNF text is none that is compiled".to_owned()),
    }
}

fn compile(
    vocabulary: &Vocabulary,
    grammar: Grammar<'_>,
    compact: bool,
    stopped: &AtomicBool,
) -> Result<(TokenParser, bool)> {
    let compiled = compile_text(vocabulary, grammar, compact, stopped);
    compiled.map_err(|error| match (grammar, error) {
        (Grammar::JsonSchema(_), Error::Constraint { message }) => refused(schema::refusal(&message)),
        (Grammar::Regex(text), Error::Constraint { message }) => refused(super::regex::refusal(text, &message)),
        (_, error) => error,
    })
}

fn compile_text(
    vocabulary: &Vocabulary,
    grammar: Grammar<'_>,
    compact: bool,
    stopped: &AtomicBool,
) -> Result<(TokenParser, bool)> {
    let go_on = || if stopped.load(Ordering::Acquire) { Err(Error::Cancelled) } else { Ok(()) };
    if let Grammar::Lark(text) = grammar {
        lark::check(text).map_err(refused)?;
    }
    go_on()?;
    let (_, text) = grammar.parts();
    let (of_text, of_prepared) = match grammar {
        Grammar::JsonSchema(_) => (SCHEMA_BYTES_A_BYTE, RULES_BYTES_A_BYTE),
        _ => (COMPILE_BYTES_A_BYTE, COMPILE_BYTES_A_BYTE),
    };
    require(COMPILE_BYTES + text.len() * of_text)?;
    let prepared = prepared(grammar, compact).map_err(refused)?;
    go_on()?;
    require(COMPILE_BYTES + prepared.len() * of_prepared)?;
    // What it has in its expressions as escapes, it has from the text.
    let bytes = format!("{text}{prepared}");
    let init = GrammarInit::Serialized(match grammar {
        Grammar::Regex(_) => TopLevelGrammar::from_regex(&prepared),
        _ => TopLevelGrammar::from_lark(prepared),
    });
    let env = vocabulary.factory.tok_env().clone();
    let (symbols, lexer) = init.to_internal(Some(env), vocabulary.factory.limits().clone()).map_err(parser_error)?;
    go_on()?;
    let max_lexer_states =
        weight::check(lexer.regex_builder.exprset(), lexer.lexemes.len(), &bytes).map_err(refused)?;
    go_on()?;
    let symbols = symbols.optimize();
    let wide = weight::rows(&symbols, matches!(grammar, Grammar::JsonSchema(_))).map_err(refused)?;
    go_on()?;
    let limits = llguidance::api::ParserLimits { max_lexer_states, ..vocabulary.factory.limits().clone() };
    let mut parser = vocabulary
        .factory
        .create_parser_from_init_ext(
            GrammarInit::Internal(symbols, lexer),
            llguidance::Logger::new(0, 0),
            Default::default(),
            limits,
        )
        .map_err(parser_error)?;
    parser.start_without_prompt();
    Ok((parser, wide))
}

impl Constraint {
    /// Compiles the grammar for a vocabulary, on a thread of its own; `go_on` is asked meanwhile on the caller's, and stops it by saying no.
    /// `compact`: JSON without white space between its parts.
    pub(in crate::engine) fn of(
        grammars: &Grammars,
        grammar: Grammar<'_>,
        compact: bool,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Constraint> {
        let (kind, text) = grammar.parts();
        cost::length(grammar).map_err(refused)?;
        if !go_on() {
            return Err(Error::Cancelled);
        }
        require(text.len())?;
        let text: Arc<str> = text.into();
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = || stopped.store(true, Ordering::Release);
        let (tokenizer, weighed, asked) = (Arc::clone(grammars.tokenizer()), Arc::clone(&text), Arc::clone(&stopped));
        // What is compiled: of a GBNF text the Lark text that it comes to.
        let (cost, read_as, compiled) = on_own_stack(COST_STACK, go_on, &stop, move || {
            let grammar = Grammar::of(kind, &weighed).ok_or_else(|| refused("no such kind"))?;
            if !matches!(grammar, Grammar::Gbnf(_)) {
                return Ok((cost::cost(grammar).map_err(refused)?, kind, weighed));
            }
            require(weighed.len() * GBNF_BYTES_A_BYTE)?;
            let lark = gbnf::translate(&weighed, &*tokenizer, &asked);
            let lark = lark.map_err(|e| if asked.load(Ordering::Acquire) { Error::Cancelled } else { refused(e) })?;
            let grammar = Grammar::Lark(&lark);
            Ok((cost::cost(grammar).map_err(refused)?, grammar.parts().0, Arc::from(lark)))
        })?;
        let vocabulary = grammars.vocabulary()?.clone();
        let (words, asked) = (vocabulary.clone(), Arc::clone(&stopped));
        let made = on_own_stack(cost.stack, go_on, &stop, move || {
            let grammar = Grammar::of(read_as, &compiled).ok_or_else(|| refused("no such kind"))?;
            compile(&words, grammar, compact, &asked)
        });
        // A Lark text's lines are none of the caller's.
        let (parser, wide) = made.map_err(|error| match error {
            Error::Constraint { message } if read_as != kind => refused(gbnf::refusal(&message)),
            error => error,
        })?;
        Ok(Constraint(Arc::new(Compiled { vocabulary, kind, compact, text, cost, wide, parser })))
    }

    /// Whether it was made for this vocabulary.
    pub(in crate::engine) fn is_for(&self, grammars: &Grammars) -> bool {
        grammars.made().is_some_and(|own| Arc::ptr_eq(&own.factory, &self.0.vocabulary.factory))
    }

    /// What it was made of: [`Grammar::parts`] and whether it is compact.
    pub(in crate::engine) fn facts(&self) -> (u64, &str, bool) {
        (self.0.kind, &self.0.text, self.0.compact)
    }
}
