//! Expressions for one token of the grammar, and what can be said of them beforehand.

use std::fmt::Write;

use llguidance::derivre::{ExprRef, Regex, RegexAst, RegexBuilder};

use super::json::{escape, put_char};

/// What a token matches. Texts in it are JSON's, with quotes and escapes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rx {
    /// A regular expression without a slash, matched as a whole.
    Pattern(String),
    Literal(String),
    Sequence(Vec<Rx>),
    Any(Vec<Rx>),
    All(Vec<Rx>),
    Not(Box<Rx>),
    /// So many times, or at least so many.
    Repeat(Box<Rx>, u32, Option<u32>),
}

/// One character of a string.
pub(super) const CHAR: &str = r#"([^\x22\x5c\x00-\x1f]|\x5c([\x22\x5cbfnrt]|u00(0[0-7be-f]|1[0-9a-f])))"#;

/// The most that a text may do at one byte where several expressions have to match at once.
const MAX_BRANCHES: u64 = 20_000;

/// Steps of the search for a text that matches.
const MAX_STEPS: u64 = 50_000;

impl Rx {
    pub(super) fn any_string() -> Rx {
        Rx::Pattern(format!("\\x22{CHAR}*\\x22"))
    }

    pub(super) fn string_of(content: Rx) -> Rx {
        Rx::Sequence(vec![Rx::Literal("\"".to_owned()), content, Rx::Literal("\"".to_owned())])
    }

    pub(super) fn any(mut parts: Vec<Rx>) -> Rx {
        if parts.len() == 1 { parts.remove(0) } else { Rx::Any(parts) }
    }

    /// All of them; what is excluded is excluded at once.
    pub(super) fn all(parts: Vec<Rx>) -> Rx {
        let (not, mut held): (Vec<Rx>, Vec<Rx>) = parts.into_iter().partition(|part| matches!(part, Rx::Not(_)));
        let mut excluded = Vec::new();
        for part in not {
            match part {
                Rx::Not(part) => match *part {
                    Rx::Any(parts) => excluded.extend(parts),
                    part => excluded.push(part),
                },
                part => held.push(part),
            }
        }
        if !excluded.is_empty() {
            held.push(Rx::any(excluded).not());
        }
        if held.len() == 1 { held.remove(0) } else { Rx::All(held) }
    }

    pub(super) fn not(self) -> Rx {
        Rx::Not(Box::new(self))
    }

    /// Bytes of text that it takes.
    pub(super) fn size(&self) -> usize {
        match self {
            Rx::Pattern(text) | Rx::Literal(text) => text.len() + 4,
            Rx::Sequence(parts) | Rx::Any(parts) | Rx::All(parts) => parts.iter().map(Rx::size).sum::<usize>() + 4,
            Rx::Not(part) | Rx::Repeat(part, ..) => part.size() + 8,
        }
    }

    /// What it may do at one byte, at most: a branch for each alternative and each part that may be left out. What has to
    /// match at once multiplies.
    fn branches(&self) -> u64 {
        let sum = |parts: &[Rx]| parts.iter().map(Rx::branches).fold(0, u64::saturating_add).max(1);
        match self {
            Rx::Pattern(text) => {
                let counted = text.replace(CHAR, ".").replace("\\x{", "");
                1 + counted.bytes().filter(|b| b"|*?{".contains(b)).count() as u64
            }
            Rx::Literal(_) => 1,
            Rx::Sequence(parts) | Rx::Any(parts) => sum(parts),
            Rx::All(parts) => parts.iter().map(Rx::branches).fold(1, u64::saturating_mul),
            Rx::Not(part) => part.branches(),
            Rx::Repeat(part, ..) => part.branches().saturating_add(1),
        }
    }

    /// Refuses what would take more to look at than is known beforehand.
    fn check(&self) -> Result<(), String> {
        match self.branches() {
            n if n > MAX_BRANCHES => {
                let n = if n == u64::MAX { "more than can be counted".to_owned() } else { n.to_string() };
                Err(format!("branches of what a text has to match at once: {n}; at most {MAX_BRANCHES}"))
            }
            _ => Ok(()),
        }
    }

    /// It as a token of a Lark text.
    pub(super) fn write(&self, out: &mut String) {
        let list = |out: &mut String, parts: &[Rx], between: &str, none: &str| {
            out.push('(');
            for (i, part) in parts.iter().enumerate() {
                if i > 0 {
                    out.push_str(between);
                }
                part.write(out);
            }
            out.push_str(if parts.is_empty() { none } else { "" });
            out.push(')');
        };
        match self {
            Rx::Pattern(text) if text.is_empty() => out.push_str("\"\""),
            Rx::Pattern(text) => {
                let _ = write!(out, "/{text}/");
            }
            Rx::Literal(text) => write_literal(out, text),
            Rx::Sequence(parts) => list(out, parts, " ", "\"\""),
            // Nothing matches both.
            Rx::Any(parts) => list(out, parts, "|", "\"a\" & \"b\""),
            Rx::All(parts) => list(out, parts, "&", "/(?s:.)*/"),
            Rx::Not(part) => {
                out.push('~');
                list(out, std::slice::from_ref(part), "", "");
            }
            Rx::Repeat(_, _, Some(0)) => out.push_str("\"\""),
            Rx::Repeat(part, least, most) => {
                list(out, std::slice::from_ref(part), "", "");
                let _ = match most {
                    Some(most) => write!(out, "{{{least},{most}}}"),
                    None if *least == 0 => write!(out, "*"),
                    None => write!(out, "{{{least},}}"),
                };
            }
        }
    }

    fn ast(&self) -> RegexAst {
        let list = |parts: &[Rx]| parts.iter().map(Rx::ast).collect();
        match self {
            Rx::Pattern(text) => RegexAst::Regex(text.clone()),
            Rx::Literal(text) => RegexAst::Literal(text.clone()),
            Rx::Sequence(parts) => RegexAst::Concat(list(parts)),
            Rx::Any(parts) => RegexAst::Or(list(parts)),
            Rx::All(parts) => RegexAst::And(list(parts)),
            Rx::Not(part) => RegexAst::Not(Box::new(part.ast())),
            Rx::Repeat(part, least, most) => RegexAst::Repeat(Box::new(part.ast()), *least, most.unwrap_or(u32::MAX)),
        }
    }

    /// Whether no text matches; `Err`: that took more than was given for it.
    pub(super) fn is_empty(&self) -> Result<bool, String> {
        self.check()?;
        let mut builder = RegexBuilder::new();
        let expression = builder.mk(&self.ast()).map_err(|e| e.to_string())?;
        if expression == ExprRef::NO_MATCH {
            return Ok(true);
        }
        if builder.exprset().is_positive(expression) {
            return Ok(false);
        }
        let searched = builder.to_regex_limited(expression, MAX_STEPS).map(|mut regex| regex.always_empty());
        searched.map_err(|_| format!("whether any string matches takes more than {MAX_STEPS} steps to tell"))
    }

    /// It as a matcher of whole texts.
    pub(super) fn matcher(&self) -> Result<Regex, String> {
        self.check()?;
        let mut builder = RegexBuilder::new();
        let expression = builder.mk(&self.ast()).map_err(|e| e.to_string())?;
        let matcher = builder.into_regex_limited(expression, MAX_STEPS);
        matcher.map_err(|_| format!("takes more than {MAX_STEPS} steps to prepare"))
    }
}

/// A string of a Lark text.
fn write_literal(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match escape(c) {
            Some(escape) => out.push_str(&escape),
            None if c == '\u{7f}' => out.push_str("\\u007f"),
            None => out.push(c),
        }
    }
    out.push('"');
}

/// A class of characters as a JSON string writes each of them; `None`: it has none.
pub(super) fn write_class(out: &mut String, ranges: impl Iterator<Item = (char, char)>) -> bool {
    let mut plain = String::new();
    let mut others = Vec::new();
    for (from, to) in ranges {
        // What has an escape lies below ']'.
        let mut start = None;
        for c in from..=to.min(']') {
            match escape(c) {
                Some(escape) => {
                    others.push(escape);
                    if let Some(first) = start.take() {
                        put_range(&mut plain, first, char::from_u32(c as u32 - 1).unwrap_or(first));
                    }
                }
                None => start = start.or(Some(c)),
            }
        }
        if to > ']' {
            put_range(&mut plain, start.unwrap_or(from.max('^')), to);
        } else if let Some(first) = start {
            put_range(&mut plain, first, to);
        }
    }
    if plain.is_empty() && others.is_empty() {
        return false;
    }
    out.push('(');
    if !plain.is_empty() {
        let _ = write!(out, "[{plain}]");
    }
    for (i, escape) in others.iter().enumerate() {
        if i > 0 || !plain.is_empty() {
            out.push('|');
        }
        escape.chars().for_each(|c| put_char(out, c));
    }
    out.push(')');
    true
}

fn put_range(out: &mut String, from: char, to: char) {
    put_char(out, from);
    if to > from {
        out.push('-');
        put_char(out, to);
    }
}
