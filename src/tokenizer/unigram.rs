//! SentencePiece's unigram model ("t5"): of all ways to cut a text into tokens the one whose scores add up to the most.
//!
//! Source: `unigram_model.cc` and `normalizer.cc` of google/sentencepiece; sums are f64, as in Hugging Face's `tokenizers`.
//! A character that is no token costs ten more than the worst token, and neighbours that are unknown are one unknown token.
//!
//! A text is read once, front to back: where no token reaches across a place, what lies before is settled and written. Of the
//! rest two bytes are kept for each byte of the normalized text: itself, and how long the last token of the best way up to
//! it is. Sums are of the last [`MAX_BYTES`] places only, since no token is longer.

use super::charsmap::CharsMap;
use super::filled;
use super::merge;
use super::spm::{ESCAPED, SPACE};
use super::symbols::{byte_tokens, check_complete};
use super::tokens::TokenTable;
use super::trie::{ROOT, Trie};
use super::vocab::{TokenKind, Vocab};
use crate::alloc::reserve;
use crate::error::{Error, Result};

/// Bytes of the longest token: what a place costs at most.
const MAX_BYTES: usize = u8::MAX as usize;
/// What an unknown character costs more than the worst token.
const UNKNOWN_PENALTY: f64 = 10.0;
/// Bytes of memory for each byte of a text, and how many more a short one may take.
const MEMORY_A_BYTE: usize = 32;
const MEMORY_LEAST: usize = 1 << 20;
/// Bytes that are settled before they are moved out of the way.
const SETTLED: usize = 1 << 16;

pub(super) struct Unigram {
    trie: Trie,
    scores: Vec<f32>,
    /// That of an unknown character.
    unknown_score: f64,
    /// The token of each byte; none of them where the vocabulary lacks one.
    bytes: Option<Box<[u32; 256]>>,
    unk: Option<u32>,
    map: CharsMap,
    /// Whether a text has a space before it.
    prefix: bool,
    /// Whether spaces at the ends are left out, and of those within a text all but one.
    squeeze: bool,
}

impl Unigram {
    /// Takes the scores, bytes and the map of characters of a checked vocabulary.
    ///
    /// Fails with `Model` where scores are missing, a token is too long, the map contradicts itself, or a character the
    /// vocabulary lacks could not be written at all.
    pub fn new(vocab: &Vocab<'_>, unk: Option<u32>, tokens: &TokenTable) -> Result<Unigram> {
        let wrong =
            |name: String, found: String, expected: &str| Error::Model { name, found, expected: expected.into() };
        if vocab.scores.is_empty() {
            return Err(wrong("tokenizer.ggml.scores".into(), "missing".into(), "one score a token"));
        }
        let bytes = byte_tokens(tokens);
        check_complete(bytes.is_some(), unk)?;
        let normal = || tokens.iter().filter(|token| token.2 == TokenKind::Normal);
        if let Some((id, text, _)) = normal().find(|token| token.1.len() > MAX_BYTES) {
            let expected = format!("at most {MAX_BYTES}");
            return Err(wrong(format!("tokenizer.ggml.tokens[{id}]"), format!("{} bytes", text.len()), &expected));
        }
        let least = normal().map(|(id, ..)| vocab.scores[id as usize]).min_by(f32::total_cmp).unwrap_or(0.0);
        let mut scores = Vec::new();
        reserve(&mut scores, vocab.scores.len())?;
        scores.extend_from_slice(&vocab.scores);
        Ok(Unigram {
            trie: Trie::new(tokens, |kind| kind == TokenKind::Normal)?,
            scores,
            unknown_score: f64::from(least) - UNKNOWN_PENALTY,
            bytes,
            unk,
            map: CharsMap::new(&vocab.charsmap)?,
            prefix: vocab.add_space_prefix.unwrap_or(true),
            squeeze: vocab.remove_extra_whitespaces.unwrap_or(true),
        })
    }

    /// Appends the tokens of a text.
    ///
    /// Fails with `Model` where the map of characters makes a text far longer, or so many tokens that they take more than 32 bytes
    /// for each of its bytes.
    pub fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        let before = out.len();
        let mut run = Run::new(self, out)?;
        // As if a space had been written already: that at the beginning are left out.
        let (mut after_space, mut begun) = (self.squeeze, !self.prefix);
        // Marks that are left out where the text ends.
        let mut held = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let (mut piece, n) = self.map.next(rest)?;
            rest = &rest[n..];
            if self.squeeze && !begun && piece == " " {
                continue;
            }
            if !std::mem::replace(&mut begun, true) {
                held += 1;
            }
            if after_space {
                piece = piece.trim_start_matches(' ');
            }
            if !piece.is_empty() {
                after_space = self.squeeze && piece.ends_with(' ');
            }
            for c in piece.chars() {
                if c == ' ' || c == SPACE {
                    held += 1;
                } else {
                    run.push_marks(std::mem::take(&mut held))?;
                    run.push(c.encode_utf8(&mut [0; 4]))?;
                }
                if !self.squeeze {
                    run.push_marks(std::mem::take(&mut held))?;
                }
            }
            run.check(text, before)?;
        }
        if !self.squeeze {
            run.push_marks(held)?;
        }
        run.advance(true)
    }
}

/// A text in the making.
struct Run<'a> {
    unigram: &'a Unigram,
    out: &'a mut Vec<u32>,
    /// The normalized text that is not written yet, and some before it.
    text: Vec<u8>,
    /// For each place in it the bytes of the last token on the best way there; 0 where there is none yet.
    back: Vec<u8>,
    /// The sum of the best way to each place, those that are near the last one.
    sums: [f64; MAX_BYTES + 1],
    /// What is written ends here.
    start: usize,
    /// The place whose tokens are looked up next.
    at: usize,
    /// How far the tokens reach that have been looked up.
    reach: usize,
    /// What was written last was unknown.
    after_unknown: bool,
}

impl<'a> Run<'a> {
    fn new(unigram: &'a Unigram, out: &'a mut Vec<u32>) -> Result<Run<'a>> {
        let (text, back, sums) = (Vec::new(), filled(1, 0)?, [0.0; MAX_BYTES + 1]);
        Ok(Run { unigram, out, text, back, sums, start: 0, at: 0, reach: 0, after_unknown: false })
    }

    /// That what this takes so far, of which the first `before` tokens are not, is no more than `text` may take.
    fn check(&self, text: &str, before: usize) -> Result<()> {
        // The tokens' vector doubles.
        let bytes = 2 * size_of::<u32>() * (self.out.len() - before) + self.text.len() + self.back.len();
        let most = MEMORY_A_BYTE.saturating_mul(text.len()).max(MEMORY_LEAST);
        if bytes <= most {
            return Ok(());
        }
        let found = format!("{bytes} bytes of memory or more for a text of {}", text.len());
        let expected = format!("a map of characters with which it takes at most {most}");
        Err(Error::Model { name: "tokenizer.ggml.precompiled_charsmap".into(), found, expected })
    }

    fn push_marks(&mut self, n: usize) -> Result<()> {
        (0..n).try_for_each(|_| self.push(ESCAPED))
    }

    /// The next character of the normalized text.
    fn push(&mut self, c: &str) -> Result<()> {
        reserve(&mut self.text, c.len())?;
        reserve(&mut self.back, c.len())?;
        self.text.extend_from_slice(c.as_bytes());
        self.back.resize(self.back.len() + c.len(), 0);
        // In one go, so that the tree stays in the processor's caches.
        if self.text.len() - self.at >= 16 * MAX_BYTES { self.advance(false) } else { Ok(()) }
    }

    /// Looks up the tokens at all places that all their text is there for; the rest, too, at the end.
    fn advance(&mut self, is_end: bool) -> Result<()> {
        while self.at < self.text.len() && (is_end || self.text.len() - self.at >= MAX_BYTES) {
            if self.at == self.reach {
                self.settle()?;
            }
            self.step();
        }
        if is_end {
            self.settle()?;
        }
        Ok(())
    }

    /// Goes on from a place by each token that begins there.
    fn step(&mut self) {
        let (at, unigram) = (self.at, self.unigram);
        let sum = if at == self.start { 0.0 } else { self.sums[at % self.sums.len()] };
        let n = match self.text[at] {
            ..0x80 => 1,
            0x80..0xe0 => 2,
            0xe0..0xf0 => 3,
            _ => 4,
        };
        let (mut node, mut is_known) = (ROOT, false);
        for end in at + 1..=self.text.len() {
            let Some(child) = unigram.trie.child(node, self.text[end - 1]) else { break };
            node = child;
            if let Some(id) = unigram.trie.id(node) {
                self.offer(at, end, sum + f64::from(unigram.scores[id as usize]));
                is_known |= end == at + n;
            }
        }
        if !is_known {
            self.offer(at, at + n, sum + unigram.unknown_score);
        }
        self.at += n;
    }

    /// A way to `end` whose last token begins at `at`; of equals the first counts.
    fn offer(&mut self, at: usize, end: usize, sum: f64) {
        let place = end % self.sums.len();
        if self.back[end] == 0 || sum > self.sums[place] {
            self.back[end] = (end - at) as u8;
            self.sums[place] = sum;
        }
        self.reach = self.reach.max(end);
    }

    /// Writes the best way to here, which no token reaches across.
    fn settle(&mut self) -> Result<()> {
        // Turned round: how long the token is that begins at a place.
        let mut end = self.at;
        let mut n = self.back[end];
        while end > self.start {
            let begin = end - usize::from(n);
            n = std::mem::replace(&mut self.back[begin], n);
            end = begin;
        }
        while self.start < self.at {
            let end = self.start + usize::from(self.back[self.start]);
            self.write(self.start, end)?;
            self.start = end;
        }
        if self.start >= SETTLED {
            self.text.drain(..self.start);
            self.back.drain(..self.start);
            self.at -= self.start;
            self.reach -= self.start;
            self.start = 0;
        }
        Ok(())
    }

    /// Appends the token of a part, or what stands for one that is none.
    fn write(&mut self, begin: usize, end: usize) -> Result<()> {
        let (unigram, part) = (self.unigram, &self.text[begin..end]);
        let id = unigram.trie.walk(ROOT, part).and_then(|node| unigram.trie.id(node));
        if let Some(id) = id {
            merge::extend(self.out, 1, std::iter::once(id))?;
        } else if let Some(bytes) = &unigram.bytes {
            merge::extend(self.out, part.len(), part.iter().map(|&b| bytes[usize::from(b)]))?;
        } else if let Some(unk) = unigram.unk.filter(|_| !self.after_unknown) {
            merge::extend(self.out, 1, std::iter::once(unk))?;
        }
        self.after_unknown = id.is_none();
        Ok(())
    }
}
