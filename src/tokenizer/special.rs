//! Finds tokens that are atomic: the leftmost, and of those that begin at one place the longest.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::tokens::TokenTable;
use super::vocab::TokenKind;
use crate::error::{Error, Result};

pub(super) struct Matcher {
    /// None if there is nothing to find.
    automaton: Option<AhoCorasick>,
    /// The id of each pattern.
    ids: Vec<u32>,
}

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// Text without such tokens, not empty.
    Text(&'t str),
    /// A token, and the text that stands for it.
    Token(u32, &'t str),
}

impl Matcher {
    /// Finds the tokens of the kinds that `include` names, by what `pattern` makes of their texts.
    pub fn new(
        tokens: &TokenTable,
        include: impl Fn(TokenKind) -> bool,
        pattern: impl Fn(&str) -> String,
    ) -> Result<Matcher> {
        let found = tokens.iter().filter(|&(_, text, kind)| !text.is_empty() && include(kind));
        let (ids, patterns): (Vec<u32>, Vec<String>) = found.map(|(id, text, _)| (id, pattern(text))).unzip();
        if ids.is_empty() {
            return Ok(Matcher { automaton: None, ids });
        }
        // The contiguous automaton is the one whose size stays near that of its patterns.
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(patterns)
            .map_err(|e| Error::Internal { message: e.to_string() })?;
        Ok(Matcher { automaton: Some(automaton), ids })
    }

    /// The pieces of a text, in order.
    pub fn pieces<'s, 't: 's>(&'s self, text: &'t str) -> impl Iterator<Item = Piece<'t>> + 's {
        let tokens = self.automaton.iter().flat_map(move |a| a.find_iter(text));
        let tokens = tokens.map(|found| (found.start(), found.end(), Some(self.ids[found.pattern().as_usize()])));
        let mut done = 0;
        tokens.chain([(text.len(), text.len(), None)]).flat_map(move |(start, end, id)| {
            let before = (start > done).then(|| Piece::Text(&text[done..start]));
            done = end;
            [before, id.map(|id| Piece::Token(id, &text[start..end]))].into_iter().flatten()
        })
    }
}
