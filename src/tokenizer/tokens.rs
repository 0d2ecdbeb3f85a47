//! The texts and kinds of all tokens, and the way from a text to its id.

use std::hash::{BuildHasher, RandomState};

use super::vocab::{TokenKind, Vocab};
use super::{filled, grow};
use crate::alloc::reserve;
use crate::error::{Error, Result};

/// All tokens; their texts lie in one string.
pub(super) struct TokenTable {
    text: String,
    /// `ends[id]`: where the id's text ends and that of `id + 1` begins.
    ends: Vec<u32>,
    kinds: Vec<TokenKind>,
}

impl TokenTable {
    /// Copies the vocabulary's texts.
    pub fn new(vocab: &Vocab<'_>) -> Result<TokenTable> {
        let total = vocab.tokens.iter().map(|t| t.len()).sum();
        if u32::try_from(total).is_err() {
            let found = format!("{total} bytes");
            return Err(Error::Model { name: "tokenizer.ggml.tokens".into(), found, expected: "below 4 GiB".into() });
        }
        let (mut text, mut ends) = (String::new(), Vec::new());
        grow(&mut text, total)?;
        reserve(&mut ends, vocab.tokens.len())?;
        for token in &vocab.tokens {
            text.push_str(token);
            ends.push(text.len() as u32);
        }
        let mut kinds = filled(vocab.tokens.len(), TokenKind::Normal)?;
        if !vocab.kinds.is_empty() {
            kinds.copy_from_slice(&vocab.kinds);
        }
        Ok(TokenTable { text, ends, kinds })
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text of an id as it stands in the file.
    pub fn text(&self, id: u32) -> Option<&str> {
        let end = *self.ends.get(id as usize)?;
        let start = if id == 0 { 0 } else { self.ends[id as usize - 1] };
        self.text.get(start as usize..end as usize)
    }

    /// What an id is for.
    pub fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied()
    }

    /// Changes what an id is for.
    pub fn set_kind(&mut self, id: u32, kind: TokenKind) {
        if let Some(slot) = self.kinds.get_mut(id as usize) {
            *slot = kind;
        }
    }

    /// All tokens in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str, TokenKind)> {
        (0..self.len() as u32).filter_map(|id| Some((id, self.text(id)?, self.kind(id)?)))
    }
}

/// An open-addressed table of ids by their texts, which stay in the [`TokenTable`].
pub(super) struct TextIndex {
    /// Id + 1, or 0 for a free slot; a power of two of them, at most half full.
    slots: Vec<u32>,
    hasher: RandomState,
    /// Bytes of the longest text.
    max_len: usize,
}

impl TextIndex {
    /// An index of the ids that `include` names; of equal texts the lowest id.
    pub fn new(tokens: &TokenTable, include: impl Fn(TokenKind) -> bool) -> Result<TextIndex> {
        let included = || tokens.iter().filter(|&(_, text, kind)| !text.is_empty() && include(kind));
        let size = (included().count() * 2).next_power_of_two().max(2);
        let mut index = TextIndex { slots: filled(size, 0)?, hasher: RandomState::new(), max_len: 0 };
        for (id, text, _) in included() {
            let (slot, found) = index.probe(tokens, text.as_bytes());
            if found.is_none() {
                index.slots[slot] = id + 1;
                index.max_len = index.max_len.max(text.len());
            }
        }
        Ok(index)
    }

    /// Bytes of the longest text.
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// The slot where a text is or would be, and its id.
    fn probe(&self, tokens: &TokenTable, text: &[u8]) -> (usize, Option<u32>) {
        let mask = self.slots.len() - 1;
        let mut slot = self.hasher.hash_one(text) as usize & mask;
        loop {
            let Some(id) = self.slots[slot].checked_sub(1) else { return (slot, None) };
            if tokens.text(id).is_some_and(|t| t.as_bytes() == text) {
                return (slot, Some(id));
            }
            slot = (slot + 1) & mask;
        }
    }

    /// The id of a text.
    pub fn find(&self, tokens: &TokenTable, text: &[u8]) -> Option<u32> {
        if text.len() > self.max_len { None } else { self.probe(tokens, text).1 }
    }
}
