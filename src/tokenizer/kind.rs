//! The kinds of vocabularies: what each takes where a file is silent, makes of a text and means by a token.

use std::borrow::Cow;

use super::bpe::Bpe;
use super::bytes;
use super::merge;
use super::pre;
use super::special::Piece;
use super::spm::{self, Spm};
use super::tokens::TokenTable;
use super::unigram::Unigram;
use super::unsupported;
use super::vocab::{TokenKind, Vocab};
use super::wordpiece::WordPiece;
use crate::error::Result;

pub(super) enum Kind {
    Bpe(Box<Bpe>),
    Spm(Spm),
    WordPiece(Box<WordPiece>),
    Unigram(Box<Unigram>),
}

/// The tokens with a task, by the file or by what its kind of vocabulary usually has.
pub(super) struct Tasks {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unk: Option<u32>,
}

impl Tasks {
    pub fn new(vocab: &Vocab<'_>) -> Tasks {
        let usual = |id: u32| Some(id).filter(|&id| (id as usize) < vocab.tokens.len());
        let named = |text: &str| vocab.tokens.iter().position(|token| *token == text).map(|at| at as u32);
        let (bos, eos, unk) = (vocab.bos, vocab.eos, vocab.unk);
        match vocab.model {
            // What SentencePiece itself takes.
            "llama" => Tasks { bos: bos.or(usual(1)), eos: eos.or(usual(2)), unk: unk.or(usual(0)) },
            // What T5 has.
            "t5" => Tasks { bos, eos: eos.or(usual(1)), unk: unk.or(usual(2)) },
            "bert" => Tasks {
                bos: bos.or(vocab.cls).or_else(|| named("[CLS]")),
                eos: vocab.sep.or(eos).or_else(|| named("[SEP]")),
                unk: unk.or_else(|| named("[UNK]")),
            },
            _ => Tasks { bos, eos, unk },
        }
    }
}

impl Kind {
    /// The kind that the file names.
    ///
    /// Fails with `Unsupported` on a model or pre-tokenizer that is not known here, with `Model` where the vocabulary lacks
    /// what its kind needs.
    pub fn new(vocab: &Vocab<'_>, tasks: &Tasks, tokens: &TokenTable) -> Result<Kind> {
        Ok(match vocab.model {
            "gpt2" => Kind::Bpe(Box::new(Bpe::new(vocab, vocab.pre.unwrap_or(pre::DEFAULT), tokens)?)),
            "gemma4" => Kind::Bpe(Box::new(Bpe::new(vocab, pre::GEMMA4, tokens)?)),
            "llama" => Kind::Spm(Spm::new(vocab, tasks.unk, tokens)?),
            "bert" => Kind::WordPiece(Box::new(WordPiece::new(vocab, tasks.unk, tokens)?)),
            "t5" => Kind::Unigram(Box::new(Unigram::new(vocab, tasks.unk, tokens)?)),
            name => return Err(unsupported("model", name, "gpt2, gemma4, llama, bert or t5")),
        })
    }

    /// Whether a text begins with the begin token and ends with the end token, by the file or as is usual.
    pub fn adds(&self, vocab: &Vocab<'_>) -> (bool, bool) {
        let (bos, eos) = match self {
            Kind::Bpe(bpe) => (bpe.add_bos(), false),
            Kind::Spm(_) => (true, false),
            Kind::WordPiece(_) => (true, vocab.add_sep.unwrap_or(true)),
            Kind::Unigram(_) => (false, true),
        };
        (vocab.add_bos.unwrap_or(bos), vocab.add_eos.unwrap_or(eos))
    }

    /// Whether tokens have SentencePiece's mark for each space, and a text before anything is looked for in it.
    fn marks_spaces(&self) -> bool {
        match self {
            Kind::Bpe(bpe) => bpe.is_text(),
            Kind::Spm(_) => true,
            Kind::WordPiece(_) | Kind::Unigram(_) => false,
        }
    }

    /// Whether the space that a text then begins with is none of its own.
    pub fn adds_space(&self, vocab: &Vocab<'_>) -> bool {
        match self {
            Kind::Bpe(_) => false,
            Kind::Spm(_) | Kind::Unigram(_) => vocab.add_space_prefix.unwrap_or(true),
            Kind::WordPiece(_) => true,
        }
    }

    /// What a token is looked for as.
    pub fn pattern(&self, text: &str) -> String {
        if self.marks_spaces() { text.replace(' ', spm::ESCAPED) } else { text.to_owned() }
    }

    /// The text as the tokens are looked up in it.
    pub fn escape<'t>(&self, text: &'t str) -> Result<Cow<'t, str>> {
        match self.marks_spaces() && text.contains(' ') {
            true => spm::escape(text).map(Cow::Owned),
            false => Ok(Cow::Borrowed(text)),
        }
    }

    /// Appends the ids of a piece; `space` says whether one comes before a text where the kind has it only there.
    pub fn encode(&self, tokens: &TokenTable, piece: Piece<'_>, space: bool, ids: &mut Vec<u32>) -> Result<()> {
        match (piece, self) {
            (Piece::Token(id, _), _) => merge::extend(ids, 1, std::iter::once(id)),
            (Piece::Text(text), Kind::Bpe(bpe)) => bpe.encode(tokens, text, ids),
            (Piece::Text(text), Kind::Spm(spm)) => spm.encode(tokens, text, space, ids),
            (Piece::Text(text), Kind::WordPiece(pieces)) => pieces.encode(text, ids),
            (Piece::Text(text), Kind::Unigram(unigram)) => unigram.encode(text, ids),
        }
    }

    /// The bytes that a token of this text and kind adds to a text.
    pub fn bytes<'t>(&self, text: &'t str, kind: TokenKind) -> Cow<'t, [u8]> {
        use TokenKind::{Byte, Normal, Unused, UserDefined};
        let plain = || Cow::Borrowed(text.as_bytes());
        let spaced = || match text.contains(spm::SPACE) {
            true => Cow::Owned(text.replace(spm::SPACE, " ").into_bytes()),
            false => plain(),
        };
        match (self, kind) {
            (Kind::Bpe(bpe), Normal | Byte | Unused) if !bpe.is_text() => {
                bytes::bytes_of(text).map_or(plain(), Cow::Owned)
            }
            (_, Byte) => bytes::named(text).map_or(plain(), |byte| Cow::Owned(vec![byte])),
            (_, Normal | Unused) => spaced(),
            (_, UserDefined) if self.marks_spaces() => spaced(),
            _ => plain(),
        }
    }
}
