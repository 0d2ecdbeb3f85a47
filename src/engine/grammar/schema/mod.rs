//! JSON schemas: what a text says, exactly, as rules that llguidance compiles, or a refusal with the path.
//!
//! llguidance has a compiler of schemas of its own, which reads numbers as `f64` and `i64`; here they are the text's digits.
//! The way is: `reader` reads the text into a `json` document, `expand`, `keyword` and `choices` take what a value is held to
//! apart into branches, in each of which nothing is left to choose, `rules` makes a rule of each, with `scalars`, `arrays` and
//! `members`, and `emit` writes them.
//!
//! Invariants: every text that is valid JSON under the schema in the form that is written here is allowed, and nothing else
//! is; what cannot be had so is refused. A refusal begins with the path of the schema that is refused. Nothing recurses
//! with the text; each way to much work has a limit, and the text says which.
//!
//! The form: members in the order in which the schema lists them (of several schemas, in their order), then those that
//! are only required, then others; strings without escapes that JSON does not need; integers as digits, numbers with a
//! bound, a multiple or an exclusion without an exponent; a `const` or `enum` number as the schema writes it, but as digits
//! where the type is "integer". Names that are not listed may come twice.

mod arguments;
mod arrays;
mod branch;
mod choices;
mod dead;
mod decimal;
mod emit;
mod expand;
mod json;
mod keyword;
mod members;
mod number;
mod pattern;
mod reader;
mod reference;
mod rules;
mod rx;
mod scalars;
#[cfg(test)]
mod tests;

use json::MAX_BYTES;

/// Bytes of stack with which a schema is prepared and compiled.
pub(super) const STACK: usize = 24 << 20;

/// What llguidance compiles for a schema: a Lark text, or `%lark { ... }` for the place of `%json` in one.
///
/// `compact`: no white space but in strings. Otherwise a space or a line's end with an indentation may stand between tokens.
/// The error begins with the path of the schema that is refused: `#/properties/x: ...`.
pub(super) fn prepare(text: &str, compact: bool, embedded: bool) -> Result<String, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("#: bytes of a schema: {}; at most {MAX_BYTES}", text.len()));
    }
    let (document, n) = reader::read(text)?;
    if let Some(c) = text[n..].trim_start_matches([' ', '\t', '\n', '\r']).chars().next() {
        return Err(format!("#: {c:?} where the end of the schema was expected"));
    }
    let compiler = rules::Compiler::compile(&document)?;
    emit::write(&compiler, compact, embedded)
}

/// Bytes of the JSON value that a text begins with.
pub(super) fn extent(text: &str) -> Result<usize, String> {
    reader::read(text).map(|(_, n)| n)
}

/// A refusal of the compiler's, or one that has a path.
pub(super) fn refusal(error: &str) -> String {
    if error.starts_with('#') {
        return error.to_owned();
    }
    // It comes with a piece of the text that was made of the schema.
    let line = error.lines().next().unwrap_or_default();
    let line = line.split_once("): ").filter(|(at, _)| at.starts_with("at ")).map_or(line, |(_, rest)| rest);
    format!("#: {line}")
}
