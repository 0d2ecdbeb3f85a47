//! Tells a template's control tokens from text that looks like them.
//!
//! Every character of a control token in a template's own text and string literals is replaced by a mark: a private-use
//! character that occurs in no message and stands for this character of this token alone. Operations on strings take marks
//! for what they stand for, and keep them where they keep the character. Rendered, the marks of a token in a row are that
//! token, and all else is text. A message cannot contain a mark and no operation makes one, so nothing that stands in a
//! role or content can become a control token, whatever the template does to it: trim it, cut it, turn it into lower case,
//! or put it next to another message's half of a token.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::ControlTexts;
use crate::alloc;
use crate::error::{Error, Result};

/// Candidates for marks: the private-use characters of planes 15 and 16.
const CANDIDATES: [std::ops::RangeInclusive<char>; 2] = ['\u{f0000}'..='\u{ffffd}', '\u{100000}'..='\u{10fffd}'];

/// Adds to a set what stands in a text and might be chosen for a mark.
pub(super) fn note(text: &str, taken: &mut BTreeSet<char>) {
    if may_have_marks(text) {
        taken.extend(text.chars().filter(|c| CANDIDATES.iter().any(|range| range.contains(c))));
    }
}

/// Whether characters of these planes may be in a text: they begin with the bytes F3 and F4, and few texts have these.
fn may_have_marks(text: &str) -> bool {
    text.bytes().any(|b| b >= 0xf3)
}

/// What a mark stands for.
#[derive(Clone, Copy, Debug)]
struct Mark {
    plain: char,
    token: u32,
    /// Its place in the token, in characters.
    at: u32,
}

/// The marks that a compiled template has in place of control tokens.
#[derive(Debug, Default)]
pub(super) struct Marks {
    marks: BTreeMap<char, Mark>,
    texts: BTreeMap<u32, String>,
}

impl Marks {
    /// Marks for the characters of these tokens, none of which is taken.
    ///
    /// Fails with `Template` if the private-use planes are used up.
    pub fn new<'t>(tokens: impl Iterator<Item = (u32, &'t str)>, taken: &BTreeSet<char>) -> Result<Marks> {
        let mut free = CANDIDATES.into_iter().flatten().filter(|c| !taken.contains(c));
        let mut marks = Marks::default();
        for (token, text) in tokens {
            if marks.texts.contains_key(&token) {
                continue;
            }
            let mut marked = String::new();
            for (at, plain) in text.chars().enumerate() {
                let none = || Error::Template { message: "the messages use all private-use characters".into() };
                let mark = free.next().ok_or_else(none)?;
                marks.marks.insert(mark, Mark { plain, token, at: at as u32 });
                marked.push(mark);
            }
            marks.texts.insert(token, marked);
        }
        Ok(marks)
    }

    /// Whether one of them is among these characters.
    pub fn meet(&self, taken: &BTreeSet<char>) -> bool {
        taken.iter().any(|c| self.marks.contains_key(c))
    }

    /// The marks of a token.
    pub fn of(&self, token: u32) -> Option<&str> {
        self.texts.get(&token).map(String::as_str)
    }

    /// The text with marks in place of its control tokens, which all have theirs.
    pub fn mark(&self, text: &str, control: &ControlTexts) -> String {
        control.pieces(text).map(|(id, text)| id.and_then(|id| self.of(id)).unwrap_or(text)).collect()
    }

    /// The text that a text with marks stands for.
    pub fn plain<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.marks.is_empty() || !may_have_marks(text) {
            return Cow::Borrowed(text);
        }
        if !text.chars().any(|c| self.marks.contains_key(&c)) {
            return Cow::Borrowed(text);
        }
        Cow::Owned(text.chars().map(|c| self.marks.get(&c).map_or(c, |mark| mark.plain)).collect())
    }

    /// What was rendered, as tokens and the text between them. Fails with `OutOfMemory`.
    pub fn split(&self, rendered: &str) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        let mut text = String::new();
        alloc::reserve_text(&mut text, rendered.len())?;
        let mut rest = rendered.chars();
        while let Some(c) = rest.next() {
            let Some(mark) = self.marks.get(&c) else {
                text.push(c);
                continue;
            };
            let whole = self.of(mark.token).unwrap_or_default();
            let behind = whole.get(c.len_utf8()..).filter(|_| mark.at == 0);
            match behind.and_then(|behind| rest.as_str().strip_prefix(behind)) {
                Some(after) => {
                    rest = after.chars();
                    alloc::reserve(&mut parts, 2)?;
                    if !text.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut text)));
                    }
                    parts.push(Part::Token(mark.token));
                }
                // A part of one is text.
                None => text.push(mark.plain),
            }
        }
        if !text.is_empty() {
            alloc::reserve(&mut parts, 1)?;
            parts.push(Part::Text(text));
        }
        Ok(parts)
    }
}

/// A part of what was rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Token(u32),
}
