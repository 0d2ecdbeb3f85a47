//! The texts of tokens as a tree of bytes, in which the tokens that a text begins with lie on one way from the root.

use super::filled;
use super::merge::NONE;
use super::tokens::TokenTable;
use super::vocab::TokenKind;
use crate::alloc::reserve_exact;
use crate::error::{Error, Result};

/// The node of the empty text.
pub(super) const ROOT: u32 = 0;

/// Children up to this many are looked through; of more the half is halved.
const FEW: usize = 8;

/// Nodes stand level by level, so that a node's children stand side by side; 9 bytes a node.
pub(super) struct Trie {
    /// `first[n] .. first[n + 1]`: the children of node n, in the order of their bytes.
    first: Vec<u32>,
    /// The byte that leads to a node.
    bytes: Vec<u8>,
    /// The token that ends at a node, or [`NONE`].
    ids: Vec<u32>,
    /// The children of the root by their bytes, or [`NONE`].
    begins: Box<[u32; 256]>,
}

impl Trie {
    /// A tree of the tokens of the kinds that `include` names; of equal texts the lowest id.
    pub fn new(tokens: &TokenTable, include: impl Fn(TokenKind) -> bool) -> Result<Trie> {
        let included = || tokens.iter().filter(|&(_, text, kind)| !text.is_empty() && include(kind));
        let text = |id: u32| tokens.text(id).unwrap_or_default().as_bytes();
        let mut list = Vec::new();
        reserve_exact(&mut list, included().count())?;
        list.extend(included().map(|(id, ..)| id));
        list.sort_unstable_by(|&a, &b| text(a).cmp(text(b)).then(a.cmp(&b)));
        list.dedup_by(|b, a| text(*a) == text(*b));
        let common = |a: &[u8], b: &[u8]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let new = |i: usize| {
            let own = text(list[i]);
            own.len() - if i > 0 { common(text(list[i - 1]), own) } else { 0 }
        };
        let n: usize = 1 + (0..list.len()).map(new).sum::<usize>();
        if u32::try_from(n).is_err() {
            let found = format!("texts of {n} different beginnings");
            return Err(Error::Model { name: "tokenizer.ggml.tokens".into(), found, expected: "below 4 Gi".into() });
        }
        let mut trie =
            Trie { first: Vec::new(), bytes: Vec::new(), ids: filled(n, NONE)?, begins: Box::new([NONE; 256]) };
        reserve_exact(&mut trie.first, n + 1)?;
        reserve_exact(&mut trie.bytes, n)?;
        // Which of the list go through a node.
        let mut spans = Vec::new();
        reserve_exact(&mut spans, n)?;
        spans.push((0, list.len() as u32));
        trie.bytes.push(0);
        // Level by level.
        let (mut level, mut depth) = (0..1, 0);
        while !level.is_empty() {
            for at in level.clone() {
                trie.first.push(spans.len() as u32);
                let (mut from, to) = spans[at];
                let mut rest = &list[from as usize..to as usize];
                if let Some((&id, behind)) = rest.split_first().filter(|(id, _)| text(**id).len() == depth) {
                    trie.ids[at] = id;
                    (rest, from) = (behind, from + 1);
                }
                for same in rest.chunk_by(|&a, &b| text(a)[depth] == text(b)[depth]) {
                    trie.bytes.push(text(same[0])[depth]);
                    let to = from + same.len() as u32;
                    spans.push((from, to));
                    from = to;
                }
            }
            level = level.end..spans.len();
            depth += 1;
        }
        trie.first.push(spans.len() as u32);
        for child in trie.children(ROOT) {
            trie.begins[usize::from(trie.bytes[child])] = child as u32;
        }
        Ok(trie)
    }

    fn children(&self, node: u32) -> std::ops::Range<usize> {
        self.first[node as usize] as usize..self.first[node as usize + 1] as usize
    }

    /// Where a byte leads from a node.
    pub fn child(&self, node: u32, byte: u8) -> Option<u32> {
        if node == ROOT {
            return Some(self.begins[usize::from(byte)]).filter(|&child| child != NONE);
        }
        let children = self.children(node);
        let bytes = &self.bytes[children.clone()];
        let at = match bytes.len() {
            ..=FEW => bytes.iter().position(|&b| b == byte),
            _ => bytes.binary_search(&byte).ok(),
        };
        at.map(|at| (children.start + at) as u32)
    }

    /// Where a text leads from a node.
    pub fn walk(&self, node: u32, text: &[u8]) -> Option<u32> {
        text.iter().try_fold(node, |node, &byte| self.child(node, byte))
    }

    /// The token that ends at a node.
    pub fn id(&self, node: u32) -> Option<u32> {
        Some(self.ids[node as usize]).filter(|&id| id != NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::vocab::Vocab;

    #[test]
    fn finds_what_was_put_in_and_nothing_else() {
        let mut texts: Vec<String> =
            ["", "a", "ab", "abc", "b", "ab", "\u{e4}", "\u{4e2d}\u{6587}", "\u{4e2d}"].map(String::from).into();
        texts.extend(
            (0..600).map(|i| char::from_u32(0x4e00 + i * 7).map_or(String::new(), |c| format!("{c}{}", i % 3))),
        );
        let vocab = Vocab { tokens: texts.iter().map(String::as_str).collect(), ..Vocab::default() };
        let mut tokens = TokenTable::new(&vocab).unwrap();
        tokens.set_kind(4, TokenKind::Control);
        let trie = Trie::new(&tokens, |kind| kind == TokenKind::Normal).unwrap();
        let find = |text: &str| trie.walk(ROOT, text.as_bytes()).and_then(|node| trie.id(node));
        for (id, text) in texts.iter().enumerate() {
            let expected = match id {
                0 | 4 => None,
                5 => Some(2),
                _ => Some(id as u32),
            };
            assert_eq!(find(text), expected, "{text:?}");
        }
        for text in ["abcd", "ac", "\u{4e2d}\u{6588}", "c", "\u{4e01}0"] {
            assert_eq!(find(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_empty_one_finds_nothing() {
        let trie = Trie::new(&TokenTable::new(&Vocab::default()).unwrap(), |_| true).unwrap();
        assert!(trie.child(ROOT, b'a').is_none() && trie.id(ROOT).is_none());
    }
}
