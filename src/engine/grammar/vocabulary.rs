//! The grammars' view of a model's vocabulary: a trie of its tokens' bytes, made when its first constraint is.

use std::sync::{Arc, OnceLock};

use llguidance::ParserFactory;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::thread::{on_own_stack, refused};
use super::weight;
use crate::alloc::{require, reserve};
use crate::engine::model::Model;
use crate::error::{Error, Result};

/// A model's vocabulary, or why there is none.
pub(in crate::engine) type Grammars = OnceLock<std::result::Result<Vocabulary, String>>;

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
fn word(model: &Model, token: u32) -> Result<Vec<u8>> {
    let Ok(flags) = model.token_flags(token) else { return Ok(Vec::new()) };
    let bytes = model.token_bytes(token).unwrap_or_default();
    let name =
        if flags.control || flags.end { model.token_name(token).unwrap_or_default() } else { Default::default() };
    let mark: &[u8] = if flags.control || flags.end { &[TokTrie::SPECIAL_TOKEN_MARKER] } else { &[] };
    let text: &[u8] = if mark.is_empty() { &bytes } else { name.as_bytes() };
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

fn make(model: &Model) -> Result<Vocabulary> {
    let n = model.inner.facts.n_vocab;
    let Some(info) = u32::try_from(n).ok().filter(|_| n < MAX_TOKENS) else {
        return Err(refused(format_args!("{n} tokens; at most {MAX_TOKENS}")));
    };
    let mut ends = Vec::new();
    let mut words = Vec::new();
    reserve(&mut words, n)?;
    for token in 0..info {
        if model.token_flags(token).is_ok_and(|f| f.end) {
            reserve(&mut ends, 1)?;
            ends.push(token);
        }
        words.push(word(model, token)?);
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

impl Vocabulary {
    /// The model's, made now if this is its first. What may be otherwise the next time is not kept.
    pub(super) fn of(model: &Model) -> Result<Vocabulary> {
        if let Some(made) = model.inner.grammars.get() {
            return made.clone().map_err(refused);
        }
        let owned = model.clone();
        let made = match on_own_stack(STACK, &mut || true, &|| (), move || make(&owned)) {
            Ok(made) => Ok(made),
            Err(Error::Constraint { message }) => Err(message),
            Err(error) => return Err(error),
        };
        model.inner.grammars.get_or_init(|| made).clone().map_err(refused)
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
