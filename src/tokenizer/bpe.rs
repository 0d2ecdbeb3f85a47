//! Byte-pair encoding: words of bytes, or of characters, merged by rank.
//!
//! The ids are those of Hugging Face's `tokenizers` (the fixtures of tests/api/tokenizer.rs are made with it). Its own tables and its
//! memory are not used: an allocation of a dependency that fails ends the process, and it takes 113 bytes a byte of a
//! word. Here one of n bytes takes at most 25 n, nearly always only its ids (see [`merge`](super::merge)).

use std::hash::{BuildHasher, RandomState};

use super::bytes;
use super::compose;
use super::merge::{self, NONE, Rules};
use super::split::Splitter;
use super::symbols::{Chars, Symbols};
use super::tokens::{TextIndex, TokenTable};
use super::vocab::{TokenKind, Vocab};
use super::{filled, grow};
use crate::error::{Error, Result};

/// Words of at most so many bytes are merged by looking through all pairs, on the stack.
const SHORT: usize = 48;

pub(super) struct Bpe {
    index: TextIndex,
    symbols: Symbols,
    merges: Merges,
    splitter: Splitter,
}

/// Two neighbours and what they become.
#[derive(Clone, Copy)]
struct Merge {
    left: u32,
    right: u32,
    rank: u32,
    /// [`NONE`] in a free slot.
    id: u32,
}

/// An open-addressed table of merges, at most three quarters full.
struct Merges {
    slots: Vec<Merge>,
    /// What each rank makes.
    made: Vec<u32>,
    /// Nobody who writes a file knows them, so that no file can make its merges collide.
    keys: [u64; 2],
}

impl Merges {
    fn new(n: usize) -> Result<Merges> {
        let free = Merge { left: 0, right: 0, rank: 0, id: NONE };
        let state = RandomState::new();
        let keys = [state.hash_one(0), state.hash_one(1) | 1];
        let size = (n + n / 3).saturating_add(1).next_power_of_two();
        Ok(Merges { slots: filled(size, free)?, made: filled(n, NONE)?, keys })
    }

    fn slot(&self, left: u32, right: u32) -> usize {
        let mask = self.slots.len() - 1;
        let product = u128::from((u64::from(left) << 32 | u64::from(right)) ^ self.keys[0]) * u128::from(self.keys[1]);
        let mut slot = (product ^ product >> 64) as usize & mask;
        loop {
            let found = &self.slots[slot];
            if found.id == NONE || (found.left, found.right) == (left, right) {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Enters a merge; of two of the same pair the later counts, as in the reference.
    fn insert(&mut self, merge: Merge) {
        let slot = self.slot(merge.left, merge.right);
        self.slots[slot] = merge;
        self.made[merge.rank as usize] = merge.id;
    }

    /// The rank of a pair, or [`NONE`].
    fn rank(&self, left: u32, right: u32) -> u32 {
        let found = &self.slots[self.slot(left, right)];
        if found.id == NONE { NONE } else { found.rank }
    }
}

impl Rules for &Merges {
    fn pair(&mut self, left: u32, right: u32, _: Option<u32>) -> u32 {
        self.rank(left, right)
    }

    fn key(&self, pair: u32) -> u32 {
        pair
    }

    fn merged(&mut self, pair: u32, _: u32, _: u32, _: Option<u32>) -> Result<u32> {
        Ok(self.made[pair as usize])
    }

    fn write(&mut self, value: u32, _: Option<u32>, out: &mut Vec<u32>) -> Result<()> {
        merge::extend(out, 1, std::iter::once(value))
    }
}

impl Bpe {
    /// Takes the merges of a checked vocabulary, with the pre-tokenizer of this name.
    ///
    /// Fails with `Unsupported` on an unknown pre-tokenizer, with `Model` where a merge does not make one token of two.
    /// Control tokens are left out: no merge and no word can make one.
    pub fn new(vocab: &Vocab<'_>, pre: &str, tokens: &TokenTable) -> Result<Bpe> {
        let wrong = |key: &str, found: String, expected: &str| Error::Model {
            name: format!("tokenizer.ggml.{key}"),
            found,
            expected: expected.into(),
        };
        let splitter = Splitter::new(pre)?;
        let index = TextIndex::new(tokens, |kind| matches!(kind, TokenKind::Normal | TokenKind::UserDefined))?;
        let mut merges = Merges::new(vocab.merges.len())?;
        let mut joined = String::new();
        for (rank, merge) in vocab.merges.iter().enumerate() {
            // A token may begin with a space, so the first byte is no separator.
            let space = merge.bytes().skip(1).position(|b| b == b' ').map(|at| at + 1);
            let Some((left, right)) = space.map(|at| (&merge[..at], &merge[at + 1..])) else {
                return Err(wrong(&format!("merges[{rank}]"), quoted(merge), "two tokens and a space"));
            };
            joined.clear();
            grow(&mut joined, left.len() + right.len())?;
            joined.push_str(left);
            joined.push_str(right);
            let find = |text: &str| {
                let missing = || {
                    let expected = format!("two tokens that make a third; {} is none", quoted(text));
                    wrong(&format!("merges[{rank}]"), quoted(merge), &expected)
                };
                index.find(tokens, text.as_bytes()).ok_or_else(missing)
            };
            let (left, right, id) = (find(left)?, find(right)?, find(&joined)?);
            merges.insert(Merge { left, right, rank: rank as u32, id });
        }
        let symbols = match splitter.is_text {
            true => Symbols::Chars(Chars::new(vocab, tokens, &index)?),
            false => Symbols::bytes(tokens, &index),
        };
        Ok(Bpe { index, symbols, merges, splitter })
    }

    /// Whether its words are text in which a mark stands for each space, and no bytes.
    pub fn is_text(&self) -> bool {
        self.splitter.is_text
    }

    /// Whether a text begins with the begin token if the file does not say.
    pub fn add_bos(&self) -> bool {
        self.splitter.add_bos
    }

    /// Appends the tokens of a text. Bytes that the vocabulary lacks are left out, as the reference does.
    pub fn encode(&self, tokens: &TokenTable, text: &str, out: &mut Vec<u32>) -> Result<()> {
        // Below U+0300 nothing combines.
        if self.splitter.nfc && text.chars().any(|c| c >= '\u{300}') {
            return self.encode_words(tokens, &compose::nfc(text)?, out);
        }
        self.encode_words(tokens, text, out)
    }

    fn encode_words(&self, tokens: &TokenTable, text: &str, out: &mut Vec<u32>) -> Result<()> {
        let mut chars = String::new();
        self.splitter.split(text, &mut |word| {
            if self.splitter.ignore_merges
                && word.len() <= self.index.max_len()
                && let Some(id) = self.whole(tokens, word, &mut chars)?
            {
                return merge::extend(out, 1, std::iter::once(id));
            }
            // What the vocabulary lacks is gone before anything is merged, so that its neighbours may be.
            match &self.symbols {
                Symbols::Bytes(bytes) => {
                    let ids = word.iter().map(|&b| bytes[usize::from(b)]).filter(|&id| id != NONE);
                    self.merge(word.len(), ids, out)
                }
                Symbols::Chars(chars) => {
                    let word = std::str::from_utf8(word).map_err(|e| Error::Internal { message: e.to_string() })?;
                    self.merge(word.len(), chars.of(tokens, &self.index, word), out)
                }
            }
        })
    }

    /// The token of a whole word, where it is one.
    fn whole(&self, tokens: &TokenTable, word: &[u8], chars: &mut String) -> Result<Option<u32>> {
        if self.splitter.is_text {
            return Ok(self.index.find(tokens, word));
        }
        chars.clear();
        grow(chars, 2 * word.len())?;
        bytes::push_chars(word, chars);
        Ok(self.index.find(tokens, chars.as_bytes()))
    }

    /// Appends what the symbols of a word of `n` bytes come to.
    fn merge(&self, n: usize, ids: impl Iterator<Item = u32> + Clone, out: &mut Vec<u32>) -> Result<()> {
        if n <= SHORT {
            return self.merge_short(ids, out);
        }
        merge::check_len(n)?;
        merge::encode(n, ids, &mut &self.merges, out)
    }

    /// Merges the best pair, the leftmost of equals, as long as there is one.
    fn merge_short(&self, ids: impl Iterator<Item = u32>, out: &mut Vec<u32>) -> Result<()> {
        let (mut word, mut ranks) = ([0; SHORT], [NONE; SHORT]);
        let mut n = 0;
        for (place, id) in word.iter_mut().zip(ids) {
            *place = id;
            n += 1;
        }
        for i in 1..n {
            ranks[i - 1] = self.merges.rank(word[i - 1], word[i]);
        }
        loop {
            let best = ranks[..n].iter().enumerate().min_by_key(|(_, rank)| **rank);
            let Some((at, &rank)) = best.filter(|(_, rank)| **rank != NONE) else { break };
            word[at] = self.merges.made[rank as usize];
            word.copy_within(at + 2..n, at + 1);
            ranks.copy_within(at + 1..n, at);
            n -= 1;
            ranks[n] = NONE;
            if at + 1 < n {
                ranks[at] = self.merges.rank(word[at], word[at + 1]);
            }
            if at > 0 {
                ranks[at - 1] = self.merges.rank(word[at - 1], word[at]);
            }
        }
        merge::extend(out, n, word.into_iter())
    }
}

/// The beginning of a text, for a message.
fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(60).collect();
    format!("{shown:?}{}", if shown.len() < text.len() { "..." } else { "" })
}
