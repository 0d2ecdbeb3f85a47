//! What a grammar's text may cost its parser, told before the parser sees it.
//!
//! The parser recurses once a rule or a bracket, and multiplies what expressions that must all match may do next. What a
//! schema takes is told by [`schema::prepare`], of which the parser sees the outcome only. It bounds what comes of that, but not the way there:
//! neither the stack nor, for some texts of a few hundred bytes, the memory. Invariants: every number here is at least what
//! the parser does with a text that it takes (a text that it refuses may be weighed wrongly); all are bounded, so that the
//! stack of [`Cost::stack`] bytes suffices; a text within the limits is compiled in seconds and hundreds of megabytes.

use std::fmt::Display;

use super::Grammar;
use super::schema;

/// The longest text of a grammar, in bytes.
pub const MAX_GRAMMAR_BYTES: usize = 4 << 20;
/// The longest Lark text, and the most bytes of regular expressions.
pub(super) const MAX_LARK_BYTES: usize = 256 << 10;
/// The longest regular expression.
pub(super) const MAX_REGEX_BYTES: usize = 64 << 10;
/// Brackets, definitions and references that the parser may be inside of at a time.
pub(super) const MAX_LEVELS: u64 = 16_384;
/// Bytes of an expression with all that it names.
pub(super) const MAX_EXPANSION: u64 = 1_000_000;
/// Tokens of a Lark text that name each other: what may follow a byte is as long as they are deep, at each byte.
pub(super) const MAX_TOKEN_LEVELS: u64 = 256;
/// What expressions that must match at once may do at one byte: the product of what each may.
pub(super) const MAX_BRANCHES: u64 = 100_000;
/// Classes such as `\w`, each of which takes up to 50 KiB and 0.3 ms.
pub(super) const MAX_CLASSES: u64 = 1500;
/// Ranges of a class that may hold all characters, where case does not matter: each is gone through (4 ms).
pub(super) const MAX_WIDE_RANGES: u64 = 100;
/// Brackets that each byte of an expression stands in, all together: what a bracket holds is copied into what is around it.
pub(super) const MAX_DEPTHS: u64 = 1_000_000;
/// `and`, `or` and `not` of conditions, which are evaluated, copied and dropped by recursion on the caller's stack.
pub(super) const MAX_CONDITIONS: u64 = 1_000;

/// Bytes of stack for a level of a Lark text (3 KiB were measured).
pub(super) const LARK_LEVEL: u64 = 8 << 10;
pub(super) const BASE_STACK: u64 = 2 << 20;

/// Brackets whose expressions the parser may be inside of later, at a token, without minding the caller's stack.
pub(super) const SHALLOW: u64 = 64;

/// What a grammar takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    /// Bytes of stack with which it is compiled.
    pub(super) stack: usize,
    /// Bytes of stack for a token; 0: no more than a caller has.
    pub(super) step_stack: usize,
}

pub(super) fn at_most(found: u64, most: u64, what: impl Display) -> Result<(), String> {
    match found {
        _ if found <= most => Ok(()),
        u64::MAX => Err(format!("{what}: more than can be counted; at most {most}")),
        _ => Err(format!("{what}: {found}; at most {most}")),
    }
}

/// The limit that a text's length exceeds.
pub(super) fn length(grammar: Grammar<'_>) -> Result<(), String> {
    let (most, what) = match grammar {
        Grammar::JsonSchema(_) => (MAX_GRAMMAR_BYTES, "bytes of a schema"),
        Grammar::Regex(_) => (MAX_REGEX_BYTES, "bytes of a regular expression"),
        Grammar::Lark(_) => (MAX_LARK_BYTES, "bytes of a Lark text"),
        Grammar::Gbnf(_) => (MAX_LARK_BYTES, "bytes of a GBNF text"),
    };
    at_most(grammar.parts().1.len() as u64, most as u64, what)
}

/// What a text takes, or the limit that it exceeds. Recurses as deep as the text's brackets at most.
pub(super) fn cost(grammar: Grammar<'_>) -> Result<Cost, String> {
    let (_, text) = grammar.parts();
    match grammar {
        // What else it takes is told where it is prepared.
        Grammar::JsonSchema(_) => Ok(Cost { stack: schema::STACK, step_stack: step_stack(text) }),
        Grammar::Regex(_) => {
            expressions(text)?;
            at_most(depths(text), MAX_DEPTHS, "brackets around each byte, all together")?;
            // Its parser bounds the nesting, and nothing in it excludes or narrows anything else.
            Ok(Cost { stack: BASE_STACK as usize, step_stack: 0 })
        }
        // Of a GBNF text the Lark text that it comes to is weighed.
        Grammar::Lark(_) | Grammar::Gbnf(_) => {
            expressions(text)?;
            let levels = text.bytes().filter(|b| b":([{".contains(b)).count() as u64;
            at_most(levels, MAX_LEVELS, "rules and brackets")?;
            if text.contains("%if") {
                let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let n = words.filter(|word| ["and", "or", "not"].contains(word)).count() as u64;
                at_most(n, MAX_CONDITIONS, "and, or and not of conditions")?;
            }
            let of_schemas = if text.contains("%json") { schema::STACK } else { 0 };
            let deep = text.contains(['&', '~']) && levels > SHALLOW;
            let stack = (BASE_STACK + levels * LARK_LEVEL) as usize;
            let of_step = if deep { stack } else { 0 };
            let of_schema_step = if of_schemas > 0 { step_stack(text) } else { 0 };
            Ok(Cost { stack: stack + of_schemas, step_stack: of_step.max(of_schema_step) })
        }
    }
}

/// Bytes of stack for a token under a schema whose patterns have so many brackets.
fn step_stack(text: &str) -> usize {
    let brackets = text.bytes().filter(|b| *b == b'(').count() as u64;
    if brackets > SHALLOW { (BASE_STACK + brackets.min(4096) * 2048) as usize } else { 0 }
}

/// Classes in an expression; what stands in a string counts too.
pub(super) fn classes(text: &str) -> u64 {
    text.as_bytes().windows(2).filter(|w| w[0] == b'\\' && b"wWdDsSpP".contains(&w[1])).count() as u64
}

/// Ranges in an expression whose end is an escape or beyond ASCII, if it has the flag for any case.
fn wide_ranges(text: &str) -> u64 {
    let any_case = text.contains("(?") || text.contains("/i") || text.contains("\"i");
    let wide = |w: &&[u8]| w[0] == b'-' && (w[1] == b'\\' || w[1] >= 0x80);
    if any_case { text.as_bytes().windows(2).filter(wide).count() as u64 } else { 0 }
}

/// How deep in brackets the bytes stand, all together; escaped ones and those of classes count too.
pub(super) fn depths(text: &str) -> u64 {
    let (mut depth, mut sum) = (0u64, 0u64);
    for b in text.bytes() {
        match b {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        sum += depth;
    }
    sum
}

/// The limit that expressions in a text exceed, wherever they stand in it.
pub(super) fn expressions(text: &str) -> Result<(), String> {
    at_most(classes(text), MAX_CLASSES, "classes of characters")?;
    at_most(wide_ranges(text), MAX_WIDE_RANGES, "ranges of characters of any case")
}

/// What an expression may do at one byte: a branch for each alternative and for each part that may be left out.
pub(super) fn branches(text: &str) -> u64 {
    2 + text.bytes().filter(|b| b"|*?{".contains(b)).count() as u64
}
