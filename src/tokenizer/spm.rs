//! SentencePiece's byte-pair encoding: neighbours whose joined text is a token are merged, the best score first.
//!
//! Source: `bpe_model.cc` of google/sentencepiece. Ties go to the left; what remains and is no token becomes its
//! bytes (`<0xNN>`), or the unknown token where the vocabulary has no bytes. A merge costs a heap operation and two
//! look-ups, so a text of n characters takes O(n log n) however long its words are.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use super::tokens::{TextIndex, TokenTable};
use super::vocab::{TokenKind, Vocab};
use crate::error::{Error, Result};

/// SentencePiece's sign for a space.
pub(super) const SPACE: char = '\u{2581}';

/// The text with [`SPACE`] for every space.
pub(super) fn escape(text: &str) -> String {
    text.replace(' ', "\u{2581}")
}

/// No neighbour.
const NONE: u32 = u32::MAX;

pub(super) struct Spm {
    index: TextIndex,
    scores: Vec<f32>,
    /// The token of each byte; none of them where the vocabulary lacks one.
    bytes: Option<Box<[u32; 256]>>,
    unk: Option<u32>,
}

/// A stretch of the text that is or may become one token.
#[derive(Clone, Copy)]
struct Symbol {
    start: u32,
    /// 0 once it is part of its left neighbour.
    len: u32,
    prev: u32,
    next: u32,
}

/// Two neighbours that could be merged; out of date if their lengths no longer add up to `len`.
struct Pair {
    score: f32,
    left: u32,
    right: u32,
    len: u32,
    id: u32,
}

impl Ord for Pair {
    fn cmp(&self, other: &Pair) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Pair) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Pair) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

impl Spm {
    /// Takes the scores and bytes of a checked vocabulary.
    ///
    /// Fails with `Model` if a character the vocabulary lacks could not be written at all.
    pub fn new(vocab: &Vocab<'_>, unk: Option<u32>, tokens: &TokenTable) -> Result<Spm> {
        if vocab.scores.is_empty() {
            let name = "tokenizer.ggml.scores".into();
            return Err(Error::Model { name, found: "missing".into(), expected: "one score a token".into() });
        }
        let mut bytes = Box::new([NONE; 256]);
        for (id, text, kind) in tokens.iter() {
            if let (TokenKind::Byte, Some(byte)) = (kind, byte_of(text)) {
                bytes[usize::from(byte)] = id;
            }
        }
        let bytes = (!bytes.contains(&NONE)).then_some(bytes);
        if bytes.is_none() && unk.is_none() {
            let name = "tokenizer.ggml.tokens".into();
            let found = "neither all bytes nor an unknown token".into();
            return Err(Error::Model { name, found, expected: "<0x00> to <0xFF>, or an unknown token".into() });
        }
        use TokenKind::{Normal, Unused, UserDefined};
        let index = TextIndex::new(tokens, |kind| matches!(kind, Normal | UserDefined | Unused));
        // -0.0 and 0.0 are the same score, which `total_cmp` would tell apart.
        let scores = vocab.scores.iter().map(|s| s + 0.0).collect();
        Ok(Spm { index, scores, bytes, unk })
    }

    /// Appends the tokens of a text whose spaces are [`SPACE`].
    ///
    /// Fails with `Argument` on a text of 4 GiB or more.
    pub fn encode(&self, tokens: &TokenTable, text: &str, out: &mut Vec<u32>) -> Result<()> {
        if u32::try_from(text.len()).is_err() {
            let found = format!("{} bytes", text.len());
            return Err(Error::Argument { name: "text", found, expected: "below 4 GiB".into() });
        }
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(i, (start, c))| {
                let i = i as u32;
                Symbol { start: start as u32, len: c.len_utf8() as u32, prev: i.wrapping_sub(1), next: i + 1 }
            })
            .collect();
        let Some(last) = symbols.last_mut() else { return Ok(()) };
        last.next = NONE;

        let text = text.as_bytes();
        let first_pairs: Vec<Pair> =
            (1..symbols.len() as u32).filter_map(|i| self.pair(tokens, text, &symbols, i - 1, i)).collect();
        let mut queue = BinaryHeap::from(first_pairs);
        let mut unused_parts: HashMap<u32, (Symbol, Symbol)> = HashMap::new();
        while let Some(pair) = queue.pop() {
            let (left, right) = (symbols[pair.left as usize], symbols[pair.right as usize]);
            if left.len == 0 || right.len == 0 || left.len + right.len != pair.len {
                continue;
            }
            if tokens.kind(pair.id) == Some(TokenKind::Unused) {
                unused_parts.insert(pair.id, (left, right));
            }
            symbols[pair.left as usize].len = pair.len;
            symbols[pair.left as usize].next = right.next;
            symbols[pair.right as usize].len = 0;
            if let Some(after) = symbols.get_mut(right.next as usize) {
                after.prev = pair.left;
            }
            if left.prev != NONE {
                queue.extend(self.pair(tokens, text, &symbols, left.prev, pair.left));
            }
            if right.next != NONE {
                queue.extend(self.pair(tokens, text, &symbols, pair.left, right.next));
            }
        }
        self.write(tokens, text, &symbols, &unused_parts, out);
        Ok(())
    }

    /// The merge of two neighbours, if their joined text is a token.
    fn pair(&self, tokens: &TokenTable, text: &[u8], symbols: &[Symbol], left: u32, right: u32) -> Option<Pair> {
        let (start, len) = (symbols[left as usize].start, symbols[left as usize].len + symbols[right as usize].len);
        let id = self.index.find(tokens, &text[start as usize..(start + len) as usize])?;
        Some(Pair { score: self.scores[id as usize], left, right, len, id })
    }

    /// Appends what the symbols stand for. A token not to be used goes back into the two it was merged from.
    fn write(
        &self,
        tokens: &TokenTable,
        text: &[u8],
        symbols: &[Symbol],
        unused_parts: &HashMap<u32, (Symbol, Symbol)>,
        out: &mut Vec<u32>,
    ) {
        let mut after_unknown = false;
        let mut todo = Vec::new();
        for &symbol in symbols.iter().filter(|s| s.len > 0) {
            todo.push(symbol);
            while let Some(symbol) = todo.pop() {
                let piece = &text[symbol.start as usize..(symbol.start + symbol.len) as usize];
                let id = self.index.find(tokens, piece);
                // Both parts are shorter than the whole, so this ends.
                if let Some((left, right)) = id.and_then(|id| unused_parts.get(&id)) {
                    let start = symbol.start;
                    todo.push(Symbol { start: start + left.len, ..*right });
                    todo.push(Symbol { start, ..*left });
                    continue;
                }
                if let Some(id) = id {
                    out.push(id);
                } else if let Some(bytes) = &self.bytes {
                    out.extend(piece.iter().map(|&b| bytes[usize::from(b)]));
                } else if let Some(unk) = self.unk.filter(|_| !after_unknown) {
                    // Neighbours that are all unknown are one unknown token.
                    out.push(unk);
                }
                after_unknown = id.is_none();
            }
        }
    }
}

/// The byte that `<0xNN>` stands for.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let hex = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if hex { u8::from_str_radix(digits, 16).ok() } else { None }
}
