//! The grammars' view of a vocabulary: a trie of its tokens' bytes, made of the tokenizer when the first constraint is.

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use once_cell::sync::OnceCell;

use super::thread::{on_own_stack, refused};
use super::weight;
use crate::alloc::{require, reserve};
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// What makes constraints for a tokenizer's vocabulary.
pub(in crate::engine) struct Grammars {
    tokenizer: Arc<Tokenizer>,
    /// Empty until the first constraint has been made: what fails, for want of memory too, is tried again by the next.
    vocabulary: OnceCell<Vocabulary>,
}

/// What grammars are compiled with.
#[derive(Clone)]
pub(in crate::engine) struct Vocabulary {
    pub(super) factory: Arc<ParserFactory>,
    /// Tokens that end a text.
    pub(super) ends: Arc<[u32]>,
}

/// The longest token that a grammar can allow, in bytes: a node of the trie says in 10 bits how many levels up the next
/// one is. Control tokens have a mark before their name.
pub(super) const MAX_WORD: usize = 1024;
/// Nodes of the trie: one says in 22 bits how many are below it.
const MAX_NODES: usize = (1 << 22) - 1;
/// Ids: a node has 24 bits for one, and the last of them stands for none.
const MAX_TOKENS: usize = (1 << 24) - 1;
/// The trie is made by recursion, a level a byte.
const STACK: usize = 16 << 20;
/// Bytes that a node takes while the trie and its slices are made (49 were measured).
const NODE_BYTES: usize = 96;

/// A token's bytes as the trie wants them: what is no text behind a mark; nothing for what can never be allowed.
fn word(tokenizer: &Tokenizer, token: u32) -> Result<Vec<u8>> {
    let Ok(name) = tokenizer.token_text(token) else { return Ok(Vec::new()) };
    let bytes = tokenizer.token_bytes(token).unwrap_or_default();
    let is_marked = tokenizer.is_control(token) || tokenizer.is_end_of_generation(token);
    let (mark, text): (&[u8], &[u8]) =
        if is_marked { (&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()) } else { (&[], &bytes) };
    let mut word = Vec::new();
    if mark.len() + text.len() <= MAX_WORD {
        reserve(&mut word, mark.len() + text.len())?;
        word.extend_from_slice(mark);
        word.extend_from_slice(text);
    }
    Ok(word)
}

/// Nodes of the words' trie: what each does not have in common with the one before it in order.
fn nodes(words: &[Vec<u8>]) -> usize {
    let mut sorted: Vec<&[u8]> = words.iter().map(|w| &**w).collect();
    sorted.sort_unstable();
    let common = |a: &[u8], b: &[u8]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    // One that stands twice has a node of its own.
    let own = |pair: &[&[u8]]| (pair[1].len() - common(pair[0], pair[1])).max(1);
    1 + sorted.first().map_or(0, |w| w.len()) + sorted.windows(2).map(own).sum::<usize>()
}

fn make(tokenizer: &Tokenizer) -> Result<Vocabulary> {
    let n = tokenizer.n_vocab();
    let Some(info) = u32::try_from(n).ok().filter(|_| n < MAX_TOKENS) else {
        return Err(refused(format_args!("{n} tokens; at most {MAX_TOKENS}")));
    };
    let mut ends = Vec::new();
    let mut words = Vec::new();
    reserve(&mut words, n)?;
    for token in 0..info {
        if tokenizer.is_end_of_generation(token) {
            reserve(&mut ends, 1)?;
            ends.push(token);
        }
        words.push(word(tokenizer, token)?);
    }
    let Some(&end) = ends.first() else { return Err(refused("the model has no token that ends a text")) };
    require(n * 16)?;
    let n_nodes = nodes(&words);
    if n_nodes > MAX_NODES {
        return Err(refused(format_args!("a trie of the vocabulary's words: {n_nodes} nodes; at most {MAX_NODES}")));
    }
    require(n_nodes * NODE_BYTES + n * 64)?;
    let trie = TokTrie::from(&TokRxInfo::new(info, end), &words);
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&env).map_err(refused)?;
    factory.quiet();
    *factory.limits_mut() = weight::limits();
    Ok(Vocabulary { factory: Arc::new(factory), ends: ends.into() })
}

impl Grammars {
    pub(in crate::engine) fn new(tokenizer: &Arc<Tokenizer>) -> Grammars {
        Grammars { tokenizer: Arc::clone(tokenizer), vocabulary: OnceCell::new() }
    }

    /// The tokenizer that it is of.
    pub(super) fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The vocabulary, made now if nobody has asked yet.
    pub(super) fn vocabulary(&self) -> Result<&Vocabulary> {
        self.vocabulary.get_or_try_init(|| {
            let tokenizer = Arc::clone(&self.tokenizer);
            on_own_stack(STACK, &mut || true, &|| (), move || make(&tokenizer))
        })
    }

    /// The vocabulary, if it has been made.
    pub(super) fn made(&self) -> Option<&Vocabulary> {
        self.vocabulary.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_those_of_the_trie() {
        let all: Vec<Vec<u8>> =
            ["a", "ab", "abc", "abd", "b", "b", "", "cde", "abc"].iter().map(|w| w.as_bytes().to_vec()).collect();
        let trie = TokTrie::from(&TokRxInfo::new(all.len() as u32, 0), &all);
        assert_eq!(nodes(&all), trie.root().subtree_size());
    }
}
