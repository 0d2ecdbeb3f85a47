//! What a model file says about its tokens, as borrowed values: the seam between the file and the tokenizer.

use super::fim_names;
use crate::alloc::reserve;
use crate::error::{Error, Result};
use crate::gguf::{Array, Gguf, ValueType};

/// The elements, in memory asked for at once.
fn gather<T>(n: usize, elements: impl Iterator<Item = T>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    reserve(&mut all, n)?;
    all.extend(elements.take(n));
    Ok(all)
}

fn texts(array: Array<'_>) -> Result<Vec<&str>> {
    gather(array.len(), array.strings())
}

/// The key of the chat template; those of templates with a name have it behind a dot.
pub(super) const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// Those that have names. `tokenizer.chat_templates` lists the names of the keys once more, and adds nothing.
fn chat_templates<'g>(gguf: &'g Gguf<'_>) -> Result<Vec<(&'g str, &'g str)>> {
    let mut all = Vec::new();
    for (key, _) in gguf.meta_iter() {
        let name = key.strip_prefix(CHAT_TEMPLATE).and_then(|name| name.strip_prefix('.'));
        if let (Some(name), Some(source)) = (name, name.and(Some(key)).map(|key| gguf.text(key)).transpose()?) {
            reserve(&mut all, 1)?;
            all.push((name, source));
        }
    }
    Ok(all)
}

/// What a token is for (`tokenizer.ggml.token_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TokenKind {
    /// Text.
    Normal,
    /// Stands for what the vocabulary lacks; found in a text only where special tokens are asked for.
    Unknown,
    /// Steers the model; found in a text only where special tokens are asked for.
    Control,
    /// Text that is always one token, before anything else is cut.
    UserDefined,
    /// Not to be used.
    Unused,
    /// One byte, written `<0xNN>`.
    Byte,
}

impl TokenKind {
    /// The kind with this number in the file; numbers that are not defined are [`TokenKind::Unused`].
    pub fn from_number(number: i128) -> TokenKind {
        match number {
            1 => TokenKind::Normal,
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            6 => TokenKind::Byte,
            _ => TokenKind::Unused,
        }
    }
}

/// The tokenizer's part of a model file (`tokenizer.ggml.*`). Token ids are indices into `tokens`.
#[derive(Clone, Debug, Default)]
pub struct Vocab<'a> {
    /// `model`: "gpt2" (byte-level merges), "llama" (SentencePiece merges by score), "gemma4" (merges of text by rank), "bert"
    /// (WordPiece) or "t5" (SentencePiece's unigram model).
    pub model: &'a str,
    /// `pre`: the pre-tokenizer's name; only for "gpt2", where "default" stands in for one that is missing.
    pub pre: Option<&'a str>,
    /// `tokens`.
    pub tokens: Vec<&'a str>,
    /// `scores`: one a token, or none at all.
    pub scores: Vec<f32>,
    /// `token_type`: one a token, or none at all.
    pub kinds: Vec<TokenKind>,
    /// `merges`: "left right", best first; only for "gpt2" and "gemma4".
    pub merges: Vec<&'a str>,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
    /// `unknown_token_id`.
    pub unk: Option<u32>,
    /// `padding_token_id`.
    pub pad: Option<u32>,
    /// `cls_token_id`: what "bert" begins a text with, where there is no `bos_token_id`.
    pub cls: Option<u32>,
    /// `seperator_token_id`, as the key is spelled: what "bert" ends a text with.
    pub sep: Option<u32>,
    /// Further tokens that end a generation, by their keys: `eot_token_id`, `eom_token_id`, `fim_pad_token_id`,
    /// `fim_rep_token_id`, `fim_sep_token_id`.
    pub ends: Vec<(&'static str, u32)>,
    /// Tokens of prompts for filling in the middle, by their keys, such as `fim_pre_token_id`.
    pub fim: Vec<(&'static str, u32)>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_eos_token`.
    pub add_eos: Option<bool>,
    /// `add_sep_token`; only for "bert".
    pub add_sep: Option<bool>,
    /// `add_space_prefix`; only for "llama" and "t5".
    pub add_space_prefix: Option<bool>,
    /// `remove_extra_whitespaces`; only for "t5".
    pub remove_extra_whitespaces: Option<bool>,
    /// `precompiled_charsmap`; only for "t5".
    pub charsmap: Vec<u8>,
    /// `normalizer.lowercase`; only for "bert".
    pub lowercase: Option<bool>,
    /// `normalizer.strip_accents`; only for "bert".
    pub strip_accents: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<&'a str>,
    /// `tokenizer.chat_template.NAME`, by their names.
    pub chat_templates: Vec<(&'a str, &'a str)>,
}

impl<'g> Vocab<'g> {
    /// Reads the keys of a model file.
    ///
    /// Fails with `Gguf` or `Model` where one has another type than it should, or the model or its tokens are missing.
    pub fn from_gguf(gguf: &'g Gguf<'_>) -> Result<Vocab<'g>> {
        const KEY: &str = "tokenizer.ggml.";
        let key = |name: &str| format!("{KEY}{name}");
        let id = |name: &str| -> Result<Option<u32>> {
            let key = key(name);
            let Some(id) = gguf.opt_uint(&key)? else { return Ok(None) };
            let wrong = |_| Error::Model { name: key, found: id.to_string(), expected: "a token id".into() };
            u32::try_from(id).map(Some).map_err(wrong)
        };
        let numbers = |name: &str, fits: &dyn Fn(ValueType) -> bool| match gguf.opt_array(&key(name))? {
            Some(array) if !fits(array.element_type()) => Err(Error::Model {
                name: key(name),
                found: format!("an array of {:?}", array.element_type()),
                expected: "an array of numbers".into(),
            }),
            array => Ok(array),
        };
        let is_float = |ty| matches!(ty, ValueType::F32 | ValueType::F64);
        let is_int = |ty| !is_float(ty) && !matches!(ty, ValueType::String | ValueType::Bool | ValueType::Array);

        let scores = numbers("scores", &|ty| is_float(ty) || is_int(ty))?;
        let kinds = numbers("token_type", &is_int)?;
        let charsmap = numbers("precompiled_charsmap", &|ty| matches!(ty, ValueType::U8 | ValueType::I8))?;
        let named = |name| id(name).transpose().map(|id| id.map(|id| (name, id)));
        let ends = ["eot_token_id", "eom_token_id"].into_iter().chain(fim_names::end_keys());
        let ends = ends.filter_map(named).collect::<Result<_>>()?;
        let fim = fim_names::keys().filter_map(named).collect::<Result<_>>()?;
        Ok(Vocab {
            model: gguf.text(&key("model"))?,
            pre: gguf.opt_text(&key("pre"))?,
            tokens: texts(gguf.strings(&key("tokens"))?)?,
            scores: match scores {
                Some(s) if is_float(s.element_type()) => gather(s.len(), s.floats())?,
                Some(s) => gather(s.len(), s.ints().map(|i| i as f32))?,
                None => Vec::new(),
            },
            kinds: match kinds {
                Some(k) => gather(k.len(), k.ints().map(TokenKind::from_number))?,
                None => Vec::new(),
            },
            merges: gguf.opt_strings(&key("merges"))?.map_or(Ok(Vec::new()), texts)?,
            bos: id("bos_token_id")?,
            eos: id("eos_token_id")?,
            unk: id("unknown_token_id")?,
            pad: id("padding_token_id")?,
            cls: id("cls_token_id")?,
            sep: id("seperator_token_id")?,
            ends,
            fim,
            add_bos: gguf.opt_bool(&key("add_bos_token"))?,
            add_eos: gguf.opt_bool(&key("add_eos_token"))?,
            add_sep: gguf.opt_bool(&key("add_sep_token"))?,
            add_space_prefix: gguf.opt_bool(&key("add_space_prefix"))?,
            remove_extra_whitespaces: gguf.opt_bool(&key("remove_extra_whitespaces"))?,
            charsmap: match charsmap {
                Some(bytes) => gather(bytes.len(), bytes.ints().map(|byte| byte as u8))?,
                None => Vec::new(),
            },
            lowercase: gguf.opt_bool(&key("normalizer.lowercase"))?,
            strip_accents: gguf.opt_bool(&key("normalizer.strip_accents"))?,
            chat_template: gguf.opt_text(CHAT_TEMPLATE)?,
            chat_templates: chat_templates(gguf)?,
        })
    }

    /// Checks that the parts agree in length and that the ids exist.
    pub(super) fn check(&self) -> Result<()> {
        let n = self.tokens.len();
        let wrong = |key: &str, found: String, expected: String| {
            Err(Error::Model { name: format!("tokenizer.ggml.{key}"), found, expected })
        };
        if n == 0 || u32::try_from(n).is_err() {
            return wrong("tokens", format!("{n} tokens"), "1 to 4294967295 tokens".into());
        }
        if !self.scores.is_empty() && self.scores.len() != n {
            return wrong("scores", format!("{} scores", self.scores.len()), format!("{n}, one a token"));
        }
        if let Some(at) = self.scores.iter().position(|s| s.is_nan()) {
            return wrong("scores", format!("NaN at {at}"), "a number".into());
        }
        if !self.kinds.is_empty() && self.kinds.len() != n {
            return wrong("token_type", format!("{} types", self.kinds.len()), format!("{n}, one a token"));
        }
        let ids = [
            ("bos_token_id", self.bos),
            ("eos_token_id", self.eos),
            ("unknown_token_id", self.unk),
            ("padding_token_id", self.pad),
            ("cls_token_id", self.cls),
            ("seperator_token_id", self.sep),
        ];
        let ends = self.ends.iter().chain(&self.fim).map(|&(key, id)| (key, Some(id)));
        for (key, id) in ids.into_iter().chain(ends) {
            if let Some(id) = id.filter(|&id| id as usize >= n) {
                return wrong(key, id.to_string(), format!("below {n}, the number of tokens"));
            }
        }
        Ok(())
    }
}
