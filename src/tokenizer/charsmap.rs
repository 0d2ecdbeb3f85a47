//! SentencePiece's map of characters: which beginning of a text is replaced by what (`precompiled_charsmap`).
//!
//! Source: `normalizer.cc` of google/sentencepiece and the units of the double array of darts-clone. The map is a number of
//! bytes, that many bytes of units of 32 bits, and texts that end in NUL, where what is replaced finds its replacement. All
//! of it comes from a file: a unit may lead anywhere, and what it leads to is looked at before it is used.

use super::owned;
use crate::alloc::reserve_exact;
use crate::error::{Error, Result};

/// A replacement has at most this many bytes for each byte that it replaces. NFKC's longest has 11.
const MAX_GROWTH: usize = 16;

/// Bytes of the longest beginning that is looked for: a map could lead in a circle.
const MAX_KEY: usize = 128;

#[derive(Default)]
pub(super) struct CharsMap {
    units: Vec<u32>,
    texts: String,
}

/// What a unit says.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    /// Its own byte, and whether it is a value: no byte is equal to that of a value.
    fn label(self) -> u32 {
        self.0 & (1 << 31 | 0xff)
    }

    fn has_value(self) -> bool {
        self.0 >> 8 & 1 == 1
    }

    /// How far its children are away, before their bytes are told apart.
    fn offset(self) -> u32 {
        self.0 >> 10 << ((self.0 & 1 << 9) >> 6)
    }

    fn value(self) -> u32 {
        self.0 & !(1 << 31)
    }
}

impl CharsMap {
    /// The map with these bytes; where there are none, one that replaces nothing.
    ///
    /// Fails with `Model` where sizes contradict each other, texts are not UTF-8 or a value leads to none.
    pub fn new(bytes: &[u8]) -> Result<CharsMap> {
        if bytes.is_empty() {
            return Ok(CharsMap::default());
        }
        let Some((size, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(wrong(format!("{} bytes", bytes.len()), "at least the 4 bytes of a size"));
        };
        let size = u32::from_le_bytes(*size) as usize;
        if !size.is_multiple_of(4) || size >= rest.len() {
            let found = format!("a trie of {size} bytes");
            return Err(wrong(found, &format!("a multiple of 4 below {}, the bytes there are", rest.len())));
        }
        let (trie, texts) = rest.split_at(size);
        let texts =
            std::str::from_utf8(texts).map_err(|e| wrong(format!("texts with {e}"), "UTF-8")).and_then(|texts| {
                if texts.ends_with('\0') { Ok(texts) } else { Err(wrong("a text without end".into(), "a NUL")) }
            })?;
        let mut units = Vec::new();
        reserve_exact(&mut units, size / 4)?;
        units.extend(trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)));
        let values = units.iter().filter(|unit| **unit >> 31 == 1).map(|unit| Unit(*unit).value());
        for value in values {
            if value as usize >= texts.len() || !texts.is_char_boundary(value as usize) {
                let expected = format!("where a character of {} bytes of texts begins", texts.len());
                return Err(wrong(format!("a value of {value}"), &expected));
            }
        }
        Ok(CharsMap { units, texts: owned(texts)? })
    }

    /// What the longest beginning of a text that is replaced becomes, and its bytes; where none is, the first character and
    /// its own.
    ///
    /// Fails with `Model` on a replacement that is more than 16 times as long.
    pub fn next<'a>(&'a self, text: &'a str) -> Result<(&'a str, usize)> {
        let Some((n, value)) = self.longest(text) else {
            let n = text.chars().next().map_or(0, char::len_utf8);
            return Ok((&text[..n], n));
        };
        let found = self.texts.get(value as usize..).unwrap_or_default();
        let end = found.bytes().take(MAX_GROWTH * n + 1).position(|b| b == 0);
        let Some(end) = end else {
            let found = format!("more than {} bytes for {n}", MAX_GROWTH * n);
            return Err(wrong(found, &format!("replacements of at most {MAX_GROWTH} times what they replace")));
        };
        Ok((&found[..end], n))
    }

    /// The bytes and the value of the longest beginning that has one.
    fn longest(&self, text: &str) -> Option<(usize, u32)> {
        let unit = |at: u32| self.units.get(at as usize).copied().map(Unit);
        let mut at = unit(0)?.offset();
        let mut longest = None;
        for (i, &byte) in text.as_bytes().iter().take(MAX_KEY).enumerate() {
            at ^= u32::from(byte);
            let Some(found) = unit(at).filter(|found| found.label() == u32::from(byte)) else { break };
            at ^= found.offset();
            // A map could give half a character a value.
            if found.has_value() && text.is_char_boundary(i + 1) {
                longest = unit(at).filter(|value| value.0 >> 31 == 1).map(|value| (i + 1, value.value())).or(longest);
            }
        }
        longest
    }
}

fn wrong(found: String, expected: &str) -> Error {
    Error::Model { name: "tokenizer.ggml.precompiled_charsmap".into(), found, expected: expected.into() }
}
