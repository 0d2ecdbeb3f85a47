//! What the words of byte-pair encoding are made of before anything is merged: bytes, or characters.

use super::bytes;
use super::merge::NONE;
use super::tokens::{TextIndex, TokenTable};
use super::vocab::{TokenKind, Vocab};
use crate::error::{Error, Result};

pub(super) enum Symbols {
    /// The token of each byte, or [`NONE`].
    Bytes(Box<[u32; 256]>),
    Chars(Chars),
}

impl Symbols {
    /// Those of a byte-level vocabulary.
    pub fn bytes(tokens: &TokenTable, index: &TextIndex) -> Symbols {
        let mut all = Box::new([NONE; 256]);
        for (byte, id) in all.iter_mut().enumerate() {
            let mut utf8 = [0; 4];
            let text = bytes::char_of(byte as u8).encode_utf8(&mut utf8);
            *id = index.find(tokens, text.as_bytes()).unwrap_or(NONE);
        }
        Symbols::Bytes(all)
    }
}

/// The symbols of text: its characters, and for one that is no token its bytes (`<0xNN>`) or the unknown token.
pub(super) struct Chars {
    /// The token of each character of ASCII, or [`NONE`].
    ascii: Box<[u32; 128]>,
    /// The token of each byte; none of them where the vocabulary lacks one.
    bytes: Option<Box<[u32; 256]>>,
    unk: Option<u32>,
}

impl Chars {
    /// Fails with `Model` if a character the vocabulary lacks could not be written at all.
    pub fn new(vocab: &Vocab<'_>, tokens: &TokenTable, index: &TextIndex) -> Result<Chars> {
        let bytes = byte_tokens(tokens);
        check_complete(bytes.is_some(), vocab.unk)?;
        let mut ascii = Box::new([NONE; 128]);
        for (byte, id) in ascii.iter_mut().enumerate() {
            *id = index.find(tokens, &[byte as u8]).unwrap_or(NONE);
        }
        Ok(Chars { ascii, bytes, unk: vocab.unk })
    }

    /// Those of a word: at most one a byte.
    pub fn of<'a>(
        &'a self,
        tokens: &'a TokenTable,
        index: &'a TextIndex,
        word: &'a str,
    ) -> impl Iterator<Item = u32> + Clone + 'a {
        let find = move |c: char| match self.ascii.get(c as usize) {
            Some(&id) => id,
            None => index.find(tokens, c.encode_utf8(&mut [0; 4]).as_bytes()).unwrap_or(NONE),
        };
        let mut after_unknown = false;
        word.chars().flat_map(move |c| {
            let (mut ids, id) = ([NONE; 4], find(c));
            if id != NONE {
                ids[0] = id;
            } else if let Some(bytes) = &self.bytes {
                let mut utf8 = [0; 4];
                let n = c.encode_utf8(&mut utf8).len();
                ids.iter_mut().zip(&utf8[..n]).for_each(|(id, byte)| *id = bytes[usize::from(*byte)]);
            } else if !after_unknown {
                // Neighbours that are all unknown are one unknown token.
                ids[0] = self.unk.unwrap_or(NONE);
            }
            after_unknown = id == NONE;
            ids.into_iter().filter(|&id| id != NONE)
        })
    }
}

/// The token of each byte; none of them where the vocabulary lacks one.
pub(super) fn byte_tokens(tokens: &TokenTable) -> Option<Box<[u32; 256]>> {
    let mut bytes = Box::new([NONE; 256]);
    for (id, text, kind) in tokens.iter() {
        if let (TokenKind::Byte, Some(byte)) = (kind, bytes::named(text)) {
            bytes[usize::from(byte)] = id;
        }
    }
    (!bytes.contains(&NONE)).then_some(bytes)
}

/// Fails with `Model` on a vocabulary with neither all bytes nor an unknown token.
pub(super) fn check_complete(has_bytes: bool, unk: Option<u32>) -> Result<()> {
    if has_bytes || unk.is_some() {
        return Ok(());
    }
    let name = "tokenizer.ggml.tokens".into();
    let found = "neither all bytes nor an unknown token".into();
    Err(Error::Model { name, found, expected: "<0x00> to <0xFF>, or an unknown token".into() })
}
