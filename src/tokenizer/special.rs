//! Finds tokens that are atomic: the leftmost, and of those that begin at one place the longest.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::tokens::TokenTable;
use super::vocab::TokenKind;
use crate::alloc::{require, reserve};
use crate::error::{Error, Result};

/// What making an automaton takes at its peak: for itself, for each pattern, and for each byte of one.
/// tests/api/tokenizer_cost.rs measures it.
const BASE_BYTES: usize = 64 << 10;
const PATTERN_BYTES: usize = 400;
const TEXT_BYTES: usize = 80;

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
        let found = || tokens.iter().filter(|&(_, text, kind)| !text.is_empty() && include(kind));
        let (n, bytes) = found().fold((0, 0), |(n, bytes), (_, text, _)| (n + 1, bytes + text.len()));
        // For the patterns below and the automaton.
        if n > 0 {
            require(BASE_BYTES.saturating_add(n * PATTERN_BYTES).saturating_add(bytes * TEXT_BYTES))?;
        }
        let (mut ids, mut patterns) = (Vec::new(), Vec::new());
        reserve(&mut ids, n)?;
        reserve(&mut patterns, n)?;
        for (id, text, _) in found() {
            ids.push(id);
            patterns.push(pattern(text));
        }
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
