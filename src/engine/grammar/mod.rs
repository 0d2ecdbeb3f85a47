//! Output held to a grammar: what its text may cost, what it compiles to, and what it allows next.
//!
//! The parser is llguidance's. Invariants: nothing reaches it that has not been weighed ([`cost`] its text, [`weight`] what
//! its expressions come to); it runs where the stack is known; what it does at a token is bounded ([`held`]).

mod constraint;
mod cost;
mod gbnf;
mod held;
mod lark;
mod regex;
mod schema;
mod thread;
mod vocabulary;
mod weight;

pub use constraint::Constraint;
pub(in crate::engine) use cost::MAX_GRAMMAR_BYTES;
pub(in crate::engine) use held::{Held, MaskCancel, Stop, nothing_left};
pub(in crate::engine) use thread::{on_own_stack, refused};
pub(in crate::engine) use vocabulary::Grammars;

/// What output is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grammar<'a> {
    /// A JSON schema.
    JsonSchema(&'a str),
    /// A regular expression for the whole of it.
    Regex(&'a str),
    /// A grammar in the Lark format of llguidance.
    Lark(&'a str),
    /// A grammar of llama.cpp.
    Gbnf(&'a str),
}

impl<'a> Grammar<'a> {
    /// Its kind, as the ABI and saved sessions number it, and its text.
    pub(in crate::engine) fn parts(self) -> (u64, &'a str) {
        match self {
            Grammar::JsonSchema(text) => (1, text),
            Grammar::Regex(text) => (2, text),
            Grammar::Lark(text) => (3, text),
            Grammar::Gbnf(text) => (4, text),
        }
    }

    /// The grammar of [`Self::parts`].
    pub(in crate::engine) fn of(kind: u64, text: &'a str) -> Option<Grammar<'a>> {
        match kind {
            1 => Some(Grammar::JsonSchema(text)),
            2 => Some(Grammar::Regex(text)),
            3 => Some(Grammar::Lark(text)),
            4 => Some(Grammar::Gbnf(text)),
            _ => None,
        }
    }
}
