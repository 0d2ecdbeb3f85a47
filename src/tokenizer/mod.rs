//! Text to token ids and back, from a model file's own vocabulary.
//!
//! Five kinds: byte-level merges ("gpt2"), SentencePiece merges by score ("llama"), merges of text by rank ("gemma4"),
//! WordPiece ("bert") and SentencePiece's unigram model ("t5").
//! Ids equal those of the models' reference tokenizers. Invariants:
//! - a control token is atomic, and comes out of a text only where the caller asks for it (`parse_special`) or the
//!   chat template puts it: neither merges nor messages make one;
//! - a user-defined token is atomic everywhere, as in the references;
//! - `encode` takes O(n log n) for a text of n bytes, whatever stands in it, and at most 32 bytes of memory a byte; where a map
//!   of characters ("t5") makes so many tokens that they would take more, it fails with the numbers. Where there is no memory, it
//!   fails.

mod bert_chars;
mod bpe;
mod bytes;
mod charsmap;
mod chat;
mod compose;
mod continued;
mod conversation;
mod cut;
mod date;
mod ends;
mod fim;
mod fim_names;
mod jinja;
mod json_reader;
mod kind;
mod marks;
mod merge;
mod pre;
mod sources;
mod special;
mod split;
mod spm;
mod stream;
mod symbols;
mod tokens;
mod trie;
mod unigram;
mod vocab;
mod wordpiece;

use std::borrow::Cow;
use std::sync::Arc;

use once_cell::sync::OnceCell;

use crate::alloc::reserve;
use crate::error::{Error, Result};
use crate::gguf::{Gguf, shorten};
use kind::{Kind, Tasks};
use special::{Matcher, Piece};
use tokens::TokenTable;

pub use chat::{ChatTemplate, Rendered};
pub use conversation::ChatJson;
pub use fim::FimTokens;
pub use stream::{StreamOutput, Utf8Stream};
pub use vocab::{TokenKind, Vocab};

/// The tokenizer of one model; immutable, and safe to use from many threads at once.
pub struct Tokenizer {
    tokens: TokenTable,
    kind: Kind,
    /// User-defined tokens.
    user: Matcher,
    /// User-defined, control and unknown tokens.
    all: Matcher,
    /// Control and unknown tokens, by their texts as they stand in the file; once they have been asked for.
    control: OnceCell<Arc<ControlTexts>>,
    bos: Option<u32>,
    eos: Option<u32>,
    unk: Option<u32>,
    pad: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    /// Whether the space that a text begins with is none of its own.
    adds_space: bool,
    assumes_pre: bool,
    /// Ids that end a generation, in order.
    ends: Vec<u32>,
    fim: FimTokens,
    /// The file's, the one without a name first.
    chat_templates: Vec<sources::Source<chat::Compiled>>,
}

impl Tokenizer {
    /// Builds the tokenizer of a model file, and keeps nothing of the file.
    ///
    /// Fails like [`Vocab::from_gguf`] and [`Tokenizer::from_vocab`].
    pub fn new(gguf: &Gguf<'_>) -> Result<Tokenizer> {
        Tokenizer::from_vocab(&Vocab::from_gguf(gguf)?)
    }

    /// Builds the tokenizer of a vocabulary.
    ///
    /// Fails with `Model` where the vocabulary contradicts itself, with `Unsupported` on a model or pre-tokenizer
    /// that is not known here.
    pub fn from_vocab(vocab: &Vocab<'_>) -> Result<Tokenizer> {
        vocab.check()?;
        let tasks = Tasks::new(vocab);
        let Tasks { bos, eos, unk } = tasks;
        let mut tokens = TokenTable::new(vocab)?;
        if vocab.kinds.is_empty() {
            for id in [bos, eos].into_iter().flatten().chain(vocab.ends.iter().map(|end| end.1)) {
                tokens.set_kind(id, TokenKind::Control);
            }
        }
        let ends = ends::find(vocab, eos, &mut tokens);
        let fim = fim::find(vocab, &tokens);

        let kind = Kind::new(vocab, &tasks, &tokens)?;
        let user = Matcher::new(&tokens, |k| k == TokenKind::UserDefined, |text| kind.pattern(text))?;
        let all = Matcher::new(&tokens, is_atomic, |text| kind.pattern(text))?;

        let (add_bos, add_eos) = kind.adds(vocab);
        for (add, id, name) in [(add_bos, bos, "bos"), (add_eos, eos, "eos")] {
            if add && id.is_none() {
                let (name, found) = (format!("tokenizer.ggml.{name}_token_id"), "missing".into());
                return Err(Error::Model { name, found, expected: "a token id, because it is to be added".into() });
            }
        }
        Ok(Tokenizer {
            adds_space: kind.adds_space(vocab),
            assumes_pre: vocab.model == "gpt2" && vocab.pre.is_none(),
            tokens,
            kind,
            user,
            all,
            control: OnceCell::new(),
            bos,
            eos,
            unk,
            pad: vocab.pad,
            add_bos,
            add_eos,
            ends,
            fim,
            chat_templates: sources::Source::all(vocab)?,
        })
    }

    /// The ids of a text.
    ///
    /// The texts of control tokens stand for these tokens with `parse_special`; without it they are ordinary text.
    /// With `add_special` the begin and end tokens are added where the file says so
    /// (`add_bos_token`, `add_eos_token`), except where `parse_special` has found them there already.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        // For the tokens around the text.
        reserve(&mut ids, 2)?;
        let matcher = if parse_special { &self.all } else { &self.user };
        // -1: no token. Of options the compiler compares the ids before it asks whether there are any, which memcheck reports.
        let (mut first, mut last) = (None, -1);
        let mut after_special = true;
        if let Some(bos) = self.bos.filter(|_| add_special && self.add_bos) {
            ids.push(bos);
        }
        let text = self.kind.escape(text)?;
        for piece in matcher.pieces(&text) {
            last = if let Piece::Token(id, _) = piece { i64::from(id) } else { -1 };
            first.get_or_insert(last);
            self.encode_piece(piece, &mut after_special, &mut ids)?;
        }
        if let Some(eos) = self.eos.filter(|eos| add_special && self.add_eos && last != i64::from(*eos)) {
            merge::extend(&mut ids, 1, std::iter::once(eos))?;
        }
        if let Some(bos) = self.bos
            && add_special
            && self.add_bos
            && first.unwrap_or(-1) == i64::from(bos)
        {
            ids.remove(0);
        }
        Ok(ids)
    }

    /// The ids of a text that stands behind another, control tokens where it has theirs: see [`Self::encode`].
    pub fn encode_behind(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.encode_pieces(&self.all, text, &mut false, &mut ids)?;
        Ok(ids)
    }

    /// What finds the texts of control tokens; made at its first use, and kept.
    pub(crate) fn control_texts(&self) -> Result<&Arc<ControlTexts>> {
        let make = || Matcher::new(&self.tokens, is_special, str::to_owned).map(|all| Arc::new(ControlTexts(all)));
        // What failed is tried again the next time.
        self.control.get_or_try_init(make)
    }

    /// The ids of a text in which only user-defined tokens are atomic.
    fn encode_plain(&self, text: &str, after_special: &mut bool, ids: &mut Vec<u32>) -> Result<()> {
        self.encode_pieces(&self.user, text, after_special, ids)
    }

    /// The ids of a text in which the matcher's tokens are atomic.
    fn encode_pieces(&self, matcher: &Matcher, text: &str, after_special: &mut bool, ids: &mut Vec<u32>) -> Result<()> {
        matcher.pieces(&self.kind.escape(text)?).try_for_each(|piece| self.encode_piece(piece, after_special, ids))
    }

    fn encode_piece(&self, piece: Piece<'_>, after_special: &mut bool, ids: &mut Vec<u32>) -> Result<()> {
        let after_special = std::mem::replace(after_special, matches!(piece, Piece::Token(..)));
        self.kind.encode(&self.tokens, piece, self.adds_space && after_special, ids)
    }

    /// The bytes that a token adds to a text; a control token's are its own text. Bytes of one character may be
    /// spread over several tokens.
    ///
    /// Fails with `TokenOutOfRange`.
    pub fn token_bytes(&self, id: u32) -> Result<Cow<'_, [u8]>> {
        let (text, kind) = self.token(id)?;
        Ok(self.kind.bytes(text, kind))
    }

    /// A token's text as it stands in the file.
    ///
    /// Fails with `TokenOutOfRange`.
    pub fn token_text(&self, id: u32) -> Result<&str> {
        Ok(self.token(id)?.0)
    }

    fn token(&self, id: u32) -> Result<(&str, TokenKind)> {
        let found = self.tokens.text(id).zip(self.tokens.kind(id));
        found.ok_or(Error::TokenOutOfRange { index: 0, token: id, n_vocab: self.tokens.len() })
    }

    /// The bytes of a whole text, with the texts of its control tokens unless `skip_special`. The space that
    /// SentencePiece puts before a text is taken away; to decode a text's middle, join its [`Self::token_bytes`].
    ///
    /// Fails with `TokenOutOfRange`.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for (index, &id) in ids.iter().enumerate() {
            let n_vocab = self.tokens.len();
            let kind = self.tokens.kind(id).ok_or(Error::TokenOutOfRange { index, token: id, n_vocab })?;
            if !(skip_special && is_special(kind)) {
                let bytes = self.token_bytes(id)?;
                reserve(&mut out, bytes.len())?;
                out.extend_from_slice(&bytes);
            }
        }
        if self.adds_space && out.first() == Some(&b' ') {
            out.remove(0);
        }
        Ok(out)
    }

    /// Whether an id is a control token (or the unknown token); false for ids that do not exist.
    pub fn is_control(&self, id: u32) -> bool {
        self.tokens.kind(id).is_some_and(is_special)
    }

    /// Whether an id ends a generation: the end token, the end of a turn, and what else the model ends with.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// The ids that end a generation, in order.
    pub fn end_of_generation(&self) -> &[u32] {
        &self.ends
    }

    /// The tokens of prompts for filling in the middle.
    pub fn fim(&self) -> FimTokens {
        self.fim
    }

    /// The begin token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The end token.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether `add_special` adds the begin token.
    pub fn adds_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether `add_special` adds the end token.
    pub fn adds_eos(&self) -> bool {
        self.add_eos
    }

    /// Whether the file names no pre-tokenizer, so that `default` stands in for the model's own and ids may differ from it.
    pub fn assumes_pre(&self) -> bool {
        self.assumes_pre
    }

    /// Number of tokens.
    pub fn n_vocab(&self) -> usize {
        self.tokens.len()
    }

    /// Renders messages, given as (role, content), with the model's chat template: see [`ChatTemplate::render`].
    ///
    /// Fails with `NotFound` if the model has none.
    pub fn render_chat(&self, messages: &[(&str, &str)], add_generation_prompt: bool) -> Result<Rendered> {
        ChatTemplate::new(self)?.render(messages, add_generation_prompt)
    }

    /// The model's chat template as it stands in the file, the one without a name.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_templates.iter().find(|source| source.name.is_none()).map(|source| &*source.text)
    }

    /// The names of the model's further chat templates, such as `tool_use`, in the order of the file.
    pub fn chat_template_names(&self) -> impl Iterator<Item = &str> {
        self.chat_templates.iter().filter_map(|source| source.name.as_deref())
    }
}

/// Finds the texts of control tokens.
pub(crate) struct ControlTexts(Matcher);

impl ControlTexts {
    /// The pieces of a text, and of those that are control tokens the id.
    pub fn pieces<'s, 't: 's>(&'s self, text: &'t str) -> impl Iterator<Item = (Option<u32>, &'t str)> + 's {
        self.0.pieces(text).map(|piece| match piece {
            Piece::Token(id, text) => (Some(id), text),
            Piece::Text(text) => (None, text),
        })
    }
}

/// The failure of a key whose value means something which is not here.
fn unsupported(key: &str, found: &str, expected: &str) -> Error {
    let (name, found) = (format!("key \"tokenizer.ggml.{key}\""), format!("{:?}", shorten(found)));
    Error::UnsupportedValue { name, found, expected: expected.into() }
}

/// Makes room for `n` more bytes of text, or fails.
fn grow(text: &mut String, n: usize) -> Result<()> {
    text.try_reserve(n).map_err(|_| Error::OutOfMemory { place: "host".into(), requested: n as u64, free: 0 })
}

fn owned(text: &str) -> Result<String> {
    let mut copy = String::new();
    grow(&mut copy, text.len())?;
    copy.push_str(text);
    Ok(copy)
}

/// A list of `n` equal elements, or a failure.
fn filled<T: Clone>(n: usize, element: T) -> Result<Vec<T>> {
    let mut list = Vec::new();
    reserve(&mut list, n)?;
    list.resize(n, element);
    Ok(list)
}

/// Whether a text that stands for this kind of token is never cut, where special tokens are asked for.
fn is_atomic(kind: TokenKind) -> bool {
    kind == TokenKind::UserDefined || is_special(kind)
}

/// Whether a text gives this kind of token only where special tokens are asked for.
fn is_special(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Control | TokenKind::Unknown)
}
