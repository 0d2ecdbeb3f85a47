//! SentencePiece's byte-pair encoding: neighbours whose joined text is a token are merged, the best score first.
//!
//! Source: `bpe_model.cc` of google/sentencepiece. Ties go to the left; what remains and is no token becomes its
//! bytes (`<0xNN>`), or the unknown token where the vocabulary has no bytes. The merging is [`merge`](super::merge)'s.

use std::collections::HashMap;

use super::grow;
use super::merge::{self, NONE, Rules};
use super::symbols::{byte_tokens, check_complete};
use super::tokens::{TextIndex, TokenTable};
use super::vocab::{TokenKind, Vocab};
use crate::alloc::reserve;
use crate::error::{Error, Result};

/// SentencePiece's sign for a space.
pub(super) const SPACE: char = '\u{2581}';

/// The same as text.
pub(super) const ESCAPED: &str = "\u{2581}";

/// The text with [`SPACE`] for every space. Fails with `OutOfMemory`.
pub(super) fn escape(text: &str) -> Result<String> {
    let mut out = String::new();
    let spaces = text.bytes().filter(|b| *b == b' ').count();
    grow(&mut out, text.len() + (ESCAPED.len() - 1) * spaces)?;
    for (i, part) in text.split(' ').enumerate() {
        if i > 0 {
            out.push(SPACE);
        }
        out.push_str(part);
    }
    Ok(out)
}

pub(super) struct Spm {
    index: TextIndex,
    scores: Vec<f32>,
    /// The token of each byte; none of them where the vocabulary lacks one.
    bytes: Option<Box<[u32; 256]>>,
    unk: Option<u32>,
}

/// One text in the making. A symbol's value is where it begins.
struct Run<'a> {
    spm: &'a Spm,
    tokens: &'a TokenTable,
    text: Text<'a>,
    /// Lengths of the two parts that a token not to be used was merged from: the same wherever it stands, since until then
    /// its symbols were merged as if they were alone.
    unused_parts: HashMap<u32, [u32; 2]>,
    /// What was written last was unknown.
    after_unknown: bool,
}

/// A text, before which there may be a [`SPACE`] that is not in it.
struct Text<'a> {
    prefix: bool,
    text: &'a str,
    /// A piece that begins with the prefix.
    piece: Vec<u8>,
}

impl Text<'_> {
    fn prefix_len(&self) -> usize {
        if self.prefix { ESCAPED.len() } else { 0 }
    }

    /// Bytes of all.
    fn len(&self) -> usize {
        self.prefix_len() + self.text.len()
    }

    /// The bytes `start .. end`; both stand between characters. `None` if there is no memory for them.
    fn piece(&mut self, start: u32, end: u32) -> Option<&[u8]> {
        let (start, end, n) = (start as usize, end as usize, self.prefix_len());
        if start >= n {
            return Some(&self.text.as_bytes()[start - n..end - n]);
        }
        self.piece.clear();
        self.piece.try_reserve(end).ok()?;
        self.piece.extend_from_slice(ESCAPED.as_bytes());
        self.piece.extend_from_slice(&self.text.as_bytes()[..end - n]);
        Some(&self.piece)
    }
}

/// Where each character begins of a text with so many bytes of prefix.
fn starts(prefix: usize, text: &str) -> impl Iterator<Item = u32> + Clone {
    let first = (prefix > 0).then_some(0).into_iter();
    first.chain(text.char_indices().map(move |(at, _)| (prefix + at) as u32))
}

impl Run<'_> {
    /// The token of the text `start .. end`, or [`NONE`].
    fn find(&mut self, start: u32, end: u32) -> u32 {
        if (end - start) as usize > self.spm.index.max_len() {
            return NONE;
        }
        let piece = self.text.piece(start, end);
        piece.and_then(|piece| self.spm.index.find(self.tokens, piece)).unwrap_or(NONE)
    }
}

impl Rules for Run<'_> {
    fn pair(&mut self, left: u32, _: u32, behind: Option<u32>) -> u32 {
        let end = behind.unwrap_or(self.text.len() as u32);
        self.find(left, end)
    }

    /// The best score first: the bits of floats, as numbers in descending order.
    fn key(&self, pair: u32) -> u32 {
        let bits = self.spm.scores[pair as usize].to_bits();
        if bits >> 31 == 1 { bits } else { !(bits | 1 << 31) }
    }

    fn merged(&mut self, pair: u32, left: u32, right: u32, behind: Option<u32>) -> Result<u32> {
        if self.tokens.kind(pair) == Some(TokenKind::Unused) {
            let end = behind.unwrap_or(self.text.len() as u32);
            let bytes = size_of::<(u32, [u32; 2])>() as u64 * (self.unused_parts.len() as u64 + 1);
            let failed = |_| Error::OutOfMemory { place: "host".into(), requested: bytes, free: 0 };
            self.unused_parts.try_reserve(1).map_err(failed)?;
            self.unused_parts.insert(pair, [right - left, end - right]);
        }
        Ok(left)
    }

    /// A token not to be used goes back into the two it was merged from.
    fn write(&mut self, start: u32, behind: Option<u32>, out: &mut Vec<u32>) -> Result<()> {
        let end = behind.unwrap_or(self.text.len() as u32);
        let mut todo: Vec<[u32; 2]> = Vec::new();
        let mut next = Some([start, end]);
        while let Some([start, end]) = next {
            let id = self.find(start, end);
            // Both parts are shorter than the whole, so this ends.
            if let Some(&[left, right]) = self.unused_parts.get(&id) {
                reserve(&mut todo, 1)?;
                todo.push([start + left, start + left + right]);
                next = Some([start, start + left]);
                continue;
            }
            if id != NONE {
                merge::extend(out, 1, std::iter::once(id))?;
            } else if let Some(bytes) = &self.spm.bytes {
                let piece = self.text.piece(start, end).unwrap_or_default();
                merge::extend(out, piece.len(), piece.iter().map(|&b| bytes[usize::from(b)]))?;
            } else if let Some(unk) = self.spm.unk.filter(|_| !self.after_unknown) {
                // Neighbours that are all unknown are one unknown token.
                merge::extend(out, 1, std::iter::once(unk))?;
            }
            self.after_unknown = id == NONE;
            next = todo.pop();
        }
        Ok(())
    }

    fn restart(&mut self) {
        self.after_unknown = false;
    }
}

impl Spm {
    /// Takes the scores and bytes of a checked vocabulary.
    ///
    /// Fails with `Model` if a character the vocabulary lacks could not be written at all.
    pub fn new(vocab: &Vocab<'_>, unk: Option<u32>, tokens: &TokenTable) -> Result<Spm> {
        if vocab.scores.is_empty() {
            let name = "tokenizer.ggml.scores".into();
            return Err(Error::Model { name, found: "missing".into(), expected: "one score a token".into() });
        }
        let bytes = byte_tokens(tokens);
        check_complete(bytes.is_some(), unk)?;
        use TokenKind::{Normal, Unused, UserDefined};
        let index = TextIndex::new(tokens, |kind| matches!(kind, Normal | UserDefined | Unused))?;
        // -0.0 and 0.0 are the same score, which `total_cmp` would tell apart.
        let mut scores = Vec::new();
        reserve(&mut scores, vocab.scores.len())?;
        scores.extend(vocab.scores.iter().map(|s| s + 0.0));
        Ok(Spm { index, scores, bytes, unk })
    }

    /// Appends the tokens of a text whose spaces are [`SPACE`], with one before it if there is to be a `prefix`.
    ///
    /// Fails with `Argument` on a text of 4 GiB or more.
    pub fn encode(&self, tokens: &TokenTable, text: &str, prefix: bool, out: &mut Vec<u32>) -> Result<()> {
        let mut text = Text { prefix, text, piece: Vec::new() };
        merge::check_len(text.len())?;
        // As long as a piece that is looked up can be.
        let longest = self.index.max_len().min(text.len()).max(ESCAPED.len());
        reserve(&mut text.piece, longest)?;
        let starts = starts(text.prefix_len(), text.text);
        let n_chars = starts.clone().count();
        let mut run = Run { spm: self, tokens, text, unused_parts: HashMap::new(), after_unknown: false };
        merge::encode(n_chars, starts, &mut run, out)
    }
}
