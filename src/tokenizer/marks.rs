//! Tells a template's control tokens from text that looks like them.
//!
//! Before a chat template is rendered, every control token in its own text and string literals is replaced by a
//! mark: one private-use character that occurs in no message. Rendered, only marks are control tokens. A message
//! cannot contain a mark and no operation on strings makes one, so nothing that stands in a role or content can
//! become a control token, whatever the template does to it: trim it, cut it, turn it into lower case, or put it
//! next to another message's half of a token.

use std::collections::{BTreeMap, BTreeSet};

use super::special::{Matcher, Piece};
use crate::alloc;
use crate::error::{Error, Result};

/// Candidates for marks: the private-use characters of plane 15.
const CANDIDATES: std::ops::RangeInclusive<char> = '\u{f0000}'..='\u{ffffd}';

/// A variable that is 1. `a * b` is rendered as `a * 1 * b`, so that the compiler, which would multiply constants on
/// its own without bounds, leaves every product to the program.
pub(super) const ONE: &str = "__one";

/// A part of a template's source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Source as it is.
    Text(String),
    /// A control token that stands in text or a string literal.
    Token(u32),
}

/// Cuts a template's source at the control tokens in its text and string literals. Code outside of literals is left
/// as it is, except that Hugging Face's `{% generation %}`, which renders its body, becomes `{% if true %}`.
pub(super) fn cut(source: &str, control: &Matcher) -> Vec<Part> {
    let mut cutter = Cutter { parts: Vec::new(), control };
    let mut rest = source;
    while let Some(open) = next_tag(rest) {
        cutter.literal(&rest[..open]);
        rest = &rest[open..];
        let end = if rest.starts_with("{#") {
            let end = rest.find("#}").map_or(rest.len(), |at| at + 2);
            cutter.verbatim(&rest[..end]);
            end
        } else {
            cutter.code(rest)
        };
        let is_raw = rest[..end].strip_prefix("{%").is_some_and(|tag| tag.trim_matches(TRIMS).trim() == "raw");
        rest = &rest[end..];
        if is_raw {
            // What looks like tags in it is text.
            let end = raw_end(rest);
            cutter.literal(&rest[..end]);
            rest = &rest[end..];
        }
    }
    cutter.literal(rest);
    cutter.parts
}

/// What stands around a tag's words.
const TRIMS: [char; 4] = ['-', '+', '%', '}'];

/// Where the tag that ends raw text is.
fn raw_end(source: &str) -> usize {
    let is_end = |tag: &str| tag[2..].trim_start_matches(['-', '+']).trim_start().starts_with("endraw");
    source.match_indices("{%").find(|&(at, _)| is_end(&source[at..])).map_or(source.len(), |(at, _)| at)
}

/// Where the next `{{`, `{%` or `{#` is.
fn next_tag(source: &str) -> Option<usize> {
    source.as_bytes().windows(2).position(|pair| pair[0] == b'{' && matches!(pair[1], b'{' | b'%' | b'#'))
}

struct Cutter<'m> {
    parts: Vec<Part>,
    control: &'m Matcher,
}

impl Cutter<'_> {
    fn verbatim(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(Part::Text(last)) => last.push_str(text),
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
    }

    /// Text or the inside of a string literal.
    fn literal(&mut self, text: &str) {
        let control = self.control;
        for piece in control.pieces(text) {
            match piece {
                Piece::Token(id, _) => self.parts.push(Part::Token(id)),
                Piece::Text(text) => self.verbatim(text),
            }
        }
    }

    /// A tag from its opening to its end, where the returned index is.
    fn code(&mut self, tag: &str) -> usize {
        let close: &[u8] = if tag.starts_with("{{") { b"}}" } else { b"%}" };
        let bytes = tag.as_bytes();
        let (mut done, mut at) = (0, 2);
        let end = loop {
            let Some(&byte) = bytes.get(at) else { break bytes.len() };
            if bytes[at..].starts_with(close) {
                break at + 2;
            }
            at += 1;
            if byte == b'*' && bytes[at - 2] != b'*' && bytes.get(at) != Some(&b'*') {
                self.verbatim(&tag[done..at]);
                self.verbatim(ONE);
                done = at - 1;
            }
            if matches!(byte, b'\'' | b'"') {
                self.verbatim(&tag[done..at]);
                let len = literal_len(&bytes[at..], byte);
                self.literal(&tag[at..at + len]);
                at += len;
                done = at;
                at += usize::from(at < bytes.len()); // the closing quote
            }
        };
        let last = &tag[done..end];
        let statement = if close == b"%}" && done == 0 { last.get(2..last.len() - 2) } else { None };
        match statement.map(|s| s.trim_matches(['-', '+']).trim()) {
            Some("generation") => self.verbatim(&last.replace("generation", "if true")),
            Some("endgeneration") => self.verbatim(&last.replace("endgeneration", "endif")),
            _ => self.verbatim(last),
        }
        end
    }
}

/// Bytes of a string literal up to its closing quote; a backslash keeps what follows it inside.
fn literal_len(bytes: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at).filter(|&&b| b != quote) {
        at += if byte == b'\\' { 2 } else { 1 };
    }
    at.min(bytes.len())
}

/// Adds to a set what stands in a text and might be chosen for a mark.
pub(super) fn note(text: &str, taken: &mut BTreeSet<char>) {
    // Every character of the plane begins with the byte F3, and few texts have it.
    if text.bytes().any(|b| b == 0xf3) {
        taken.extend(text.chars().filter(|c| CANDIDATES.contains(c)));
    }
}

/// The marks that a compiled template has in place of control tokens.
pub(super) struct Marks(BTreeMap<u32, char>);

impl Marks {
    /// A mark for each of the tokens, none of which is taken.
    ///
    /// Fails with `Template` if the private-use plane is used up.
    pub fn new(tokens: impl Iterator<Item = u32>, taken: &BTreeSet<char>) -> Result<Marks> {
        let mut free = CANDIDATES.filter(|c| !taken.contains(c));
        let mut marks = BTreeMap::new();
        for token in tokens {
            if let std::collections::btree_map::Entry::Vacant(entry) = marks.entry(token) {
                let none = || Error::Template { message: "the messages use all private-use characters".into() };
                entry.insert(free.next().ok_or_else(none)?);
            }
        }
        Ok(Marks(marks))
    }

    /// Whether one of them is among these characters.
    pub fn meet(&self, taken: &BTreeSet<char>) -> bool {
        !taken.is_empty() && self.0.values().any(|mark| taken.contains(mark))
    }

    /// The mark of a token.
    pub fn of(&self, token: u32) -> Option<char> {
        self.0.get(&token).copied()
    }

    /// The source that the parts stand for, with marks in place of the tokens.
    pub fn join(&self, parts: &[Part]) -> String {
        let mut source = String::new();
        for part in parts {
            match part {
                Part::Text(text) => source.push_str(text),
                Part::Token(id) => source.extend(self.of(*id)),
            }
        }
        source
    }

    /// What was rendered, cut at its marks. Fails with `OutOfMemory`.
    pub fn split<'t>(&self, rendered: &'t str) -> Result<Vec<Piece<'t>>> {
        let by_mark: BTreeMap<char, u32> = self.0.iter().map(|(&id, &mark)| (mark, id)).collect();
        let mut pieces = Vec::new();
        let mut done = 0;
        for (at, c) in rendered.char_indices() {
            let Some(&id) = by_mark.get(&c) else { continue };
            alloc::reserve(&mut pieces, 3)?;
            if at > done {
                pieces.push(Piece::Text(&rendered[done..at]));
            }
            done = at + c.len_utf8();
            pieces.push(Piece::Token(id, &rendered[at..done]));
        }
        if done < rendered.len() {
            alloc::reserve(&mut pieces, 1)?;
            pieces.push(Piece::Text(&rendered[done..]));
        }
        Ok(pieces)
    }
}
