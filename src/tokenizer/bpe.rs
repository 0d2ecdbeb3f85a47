//! Byte-level byte-pair encoding: words of bytes, merged by rank; the merges are Hugging Face's `tokenizers`.

use tokenizers::models::bpe::{BPE, Vocab as Ids};
use tokenizers::{Model, NormalizedString};

use super::bytes;
use super::split::Splitter;
use super::tokens::TokenTable;
use super::vocab::{TokenKind, Vocab};
use crate::error::{Error, Result};

/// Words whose tokens are kept for when they come again.
const CACHED_WORDS: usize = 2048;

pub(super) struct ByteBpe {
    bpe: BPE,
    splitter: Splitter,
}

impl ByteBpe {
    /// Takes the merges of a checked vocabulary.
    ///
    /// Fails with `Unsupported` on an unknown pre-tokenizer, with `Model` where none is named and where a merge
    /// does not make one token of two. Control tokens are left out: no merge and no word can make one.
    pub fn new(vocab: &Vocab<'_>, tokens: &TokenTable) -> Result<ByteBpe> {
        let wrong = |key: &str, found: String, expected: &str| Error::Model {
            name: format!("tokenizer.ggml.{key}"),
            found,
            expected: expected.into(),
        };
        // An older converter left the name out; which rule its model needs cannot be told from the file.
        let name = vocab.pre.ok_or_else(|| wrong("pre", "missing".into(), "the name of a pre-tokenizer"))?;
        let splitter = Splitter::new(name)?;
        let mut ids = Ids::default();
        for (id, text, kind) in tokens.iter() {
            if matches!(kind, TokenKind::Normal | TokenKind::UserDefined) && !text.is_empty() {
                ids.entry(text.to_owned()).or_insert(id);
            }
        }
        let mut merges = Vec::with_capacity(vocab.merges.len());
        for (i, merge) in vocab.merges.iter().enumerate() {
            // A token may begin with a space, so the first byte is no separator.
            let space = merge.bytes().skip(1).position(|b| b == b' ').map(|at| at + 1);
            let Some((left, right)) = space.map(|at| (&merge[..at], &merge[at + 1..])) else {
                return Err(wrong(&format!("merges[{i}]"), format!("{merge:?}"), "two tokens and a space"));
            };
            merges.push((left.to_owned(), right.to_owned()));
        }
        let bpe = BPE::builder()
            .vocab_and_merges(ids, merges)
            .ignore_merges(splitter.ignore_merges)
            .cache_capacity(CACHED_WORDS)
            .build()
            .map_err(|e| wrong("merges", e.to_string(), "merges that make one token of two"))?;
        Ok(ByteBpe { bpe, splitter })
    }

    /// Whether a text begins with the begin token if the file does not say.
    pub fn add_bos(&self) -> bool {
        self.splitter.add_bos
    }

    /// Appends the tokens of a text. Bytes that the vocabulary lacks are left out, as the reference does.
    pub fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        // Below U+0300 nothing combines.
        if self.splitter.nfc && text.chars().any(|c| c >= '\u{300}') {
            let mut composed = NormalizedString::from(text);
            composed.nfc();
            return self.encode_words(composed.get(), out);
        }
        self.encode_words(text, out)
    }

    fn encode_words(&self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        let mut chars = String::new();
        self.splitter.split(text, &mut |word| {
            chars.clear();
            bytes::push_chars(word.as_bytes(), &mut chars);
            let tokens = self.bpe.tokenize(&chars).map_err(|e| Error::Internal { message: e.to_string() })?;
            out.extend(tokens.iter().map(|t| t.id));
            Ok(())
        })
    }
}
