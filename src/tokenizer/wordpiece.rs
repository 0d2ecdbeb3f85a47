//! WordPiece ("bert"): words of plain letters, each the longest tokens that it begins with.
//!
//! As Hugging Face's `BertNormalizer`, `BertPreTokenizer` and `WordPiece`: control characters are dropped, accents and
//! capitals may be, white space is cut away, punctuation and ideographs are words of their own, and a word that the tokens do
//! not make up, or of more than 100 characters, is unknown. A file has a mark before the tokens that begin words; those
//! without one go on with them. Of a word no more is kept than these 100 characters.

use unicode_normalization_alignments::char::{canonical_combining_class, decompose_canonical};

use super::bert_chars;
use super::merge;
use super::spm::ESCAPED;
use super::tokens::TokenTable;
use super::trie::{ROOT, Trie};
use super::vocab::{TokenKind, Vocab};
use crate::alloc::reserve;
use crate::error::{Error, Result};

/// Characters of the longest word that is looked up.
const MAX_CHARS: usize = 100;

pub(super) struct WordPiece {
    trie: Trie,
    /// Behind the mark of a word's beginning.
    begin: Option<u32>,
    unk: u32,
    lowercase: bool,
    strip_accents: bool,
}

impl WordPiece {
    /// Takes the tokens of a checked vocabulary.
    ///
    /// Fails with `Model` where it has no unknown token.
    pub fn new(vocab: &Vocab<'_>, unk: Option<u32>, tokens: &TokenTable) -> Result<WordPiece> {
        let missing = || Error::Model {
            name: "tokenizer.ggml.unknown_token_id".into(),
            found: "missing".into(),
            expected: "a token id, or a token [UNK]".into(),
        };
        let trie = Trie::new(tokens, |kind| matches!(kind, TokenKind::Normal | TokenKind::UserDefined))?;
        let lowercase = vocab.lowercase.unwrap_or(true);
        Ok(WordPiece {
            begin: trie.walk(ROOT, ESCAPED.as_bytes()),
            trie,
            unk: unk.ok_or_else(missing)?,
            lowercase,
            strip_accents: vocab.strip_accents.unwrap_or(lowercase),
        })
    }

    /// Appends the tokens of a text.
    pub fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        // The room that a word can take, so that nothing fails while one is made.
        let mut words = Words { pieces: self, word: String::new(), n_chars: 0, marks: Vec::new(), out };
        crate::alloc::reserve_text(&mut words.word, 4 * MAX_CHARS)?;
        reserve(&mut words.marks, MAX_CHARS)?;
        for c in text.chars() {
            words.take(c)?;
        }
        words.end()
    }

    /// The longest token that a word goes on with, and its bytes.
    fn longest(&self, word: &[u8], at: usize) -> Option<(u32, usize)> {
        let rest = &word[at..];
        let mut node = if at == 0 { self.begin? } else { ROOT };
        if at > 0 && rest.starts_with(ESCAPED.as_bytes()) {
            // Here the mark is a character, and what has more behind it begins words.
            let id = self.trie.id(self.begin?)?;
            return Some((id, ESCAPED.len()));
        }
        let mut longest = None;
        for (i, &byte) in rest.iter().enumerate() {
            let Some(child) = self.trie.child(node, byte) else { break };
            node = child;
            longest = self.trie.id(node).map(|id| (id, i + 1)).or(longest);
        }
        longest
    }

    fn encode_word(&self, word: &str, out: &mut Vec<u32>) -> Result<()> {
        let (mut ids, mut n, mut at) = ([0; MAX_CHARS], 0, 0);
        while at < word.len() {
            let Some((id, bytes)) = self.longest(word.as_bytes(), at) else {
                return merge::extend(out, 1, std::iter::once(self.unk));
            };
            ids[n] = id;
            n += 1;
            at += bytes;
        }
        merge::extend(out, n, ids.into_iter())
    }
}

/// A text on its way to words.
struct Words<'a> {
    pieces: &'a WordPiece,
    word: String,
    /// Characters of the word, of which `word` has the first ones only.
    n_chars: usize,
    /// Marks behind the last character that are not yet in order, with their classes.
    marks: Vec<(u8, char)>,
    out: &'a mut Vec<u32>,
}

impl Words<'_> {
    /// The next character of the text.
    fn take(&mut self, c: char) -> Result<()> {
        if bert_chars::is_dropped(c) {
            return Ok(());
        }
        if c.is_whitespace() {
            return self.end();
        }
        let alone = bert_chars::is_ideograph(c);
        if alone {
            self.end()?;
        }
        if !self.pieces.strip_accents || c.is_ascii() {
            self.end_marks()?;
            self.plain(c)?;
        } else {
            let mut result = Ok(());
            decompose_canonical(c, |c| {
                if result.is_ok() {
                    result = self.decomposed(c);
                }
            });
            result?;
        }
        if alone { self.end() } else { Ok(()) }
    }

    /// A character of the decomposed text.
    fn decomposed(&mut self, c: char) -> Result<()> {
        let class = canonical_combining_class(c);
        if class == 0 {
            self.end_marks()?;
        }
        if bert_chars::is_accent(c) {
            return Ok(());
        }
        if class == 0 {
            return self.plain(c);
        }
        // A word of more is unknown, whatever their order.
        if self.marks.len() < MAX_CHARS {
            self.marks.push((class, c));
        } else {
            self.n_chars += 1;
        }
        Ok(())
    }

    /// Puts the marks in order: those of one class in that of the text.
    fn end_marks(&mut self) -> Result<()> {
        let mut last = 0;
        while let Some(class) = self.marks.iter().map(|m| m.0).filter(|&class| class > last).min() {
            for i in 0..self.marks.len() {
                if self.marks[i].0 == class {
                    self.plain(self.marks[i].1)?;
                }
            }
            last = class;
        }
        self.marks.clear();
        Ok(())
    }

    /// A character in its place.
    fn plain(&mut self, c: char) -> Result<()> {
        match self.pieces.lowercase {
            true => c.to_lowercase().try_for_each(|c| self.push(c)),
            false => self.push(c),
        }
    }

    fn push(&mut self, c: char) -> Result<()> {
        let alone = bert_chars::is_punctuation(c);
        if alone {
            self.end_word()?;
        }
        if self.n_chars < MAX_CHARS {
            self.word.push(c);
        }
        self.n_chars += 1;
        if alone { self.end_word() } else { Ok(()) }
    }

    /// White space, or the end.
    fn end(&mut self) -> Result<()> {
        self.end_marks()?;
        self.end_word()
    }

    fn end_word(&mut self) -> Result<()> {
        match self.n_chars {
            0 => {}
            1..=MAX_CHARS => self.pieces.encode_word(&self.word, self.out)?,
            _ => merge::extend(self.out, 1, std::iter::once(self.pieces.unk))?,
        }
        self.word.clear();
        self.n_chars = 0;
        Ok(())
    }
}
