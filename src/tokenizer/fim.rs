//! Tokens of prompts for filling in the middle: named by the file, or else known by their texts.

use super::fim_names::ALL;
use super::is_atomic;
use super::tokens::TokenTable;
use super::vocab::Vocab;

/// What surrounds the parts of such a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FimTokens {
    /// Stands before what is in front of the gap.
    pub prefix: Option<u32>,
    /// Stands before what is behind it.
    pub suffix: Option<u32>,
    /// Stands before what fills it.
    pub middle: Option<u32>,
    /// Fills a training example up; none of its tokens is to be generated.
    pub pad: Option<u32>,
    /// Stands before a repository's name.
    pub repository: Option<u32>,
    /// Stands before a file's name, or between files.
    pub file: Option<u32>,
}

/// The file's, or, where no key names one, the first of the texts that is an atomic token.
pub(super) fn find(vocab: &Vocab<'_>, tokens: &TokenTable) -> FimTokens {
    // The place of its text among those that it may have, and its id.
    let mut by_text: [Option<(usize, u32)>; 6] = [None; 6];
    for (id, text, _) in tokens.iter().filter(|&(_, _, kind)| is_atomic(kind)) {
        for (names, best) in ALL.iter().zip(&mut by_text) {
            let at = names.texts.iter().position(|known| *known == text);
            if let Some(at) = at.filter(|at| best.is_none_or(|(best, _)| *at < best)) {
                *best = Some((at, id));
            }
        }
    }
    let named = |key: &&str| vocab.fim.iter().find(|found| found.0 == *key).map(|(_, id)| *id);
    let found = |i: usize| ALL[i].keys.iter().find_map(named).or(by_text[i].map(|(_, id)| id));
    let [prefix, suffix, middle, pad, repository, file] = std::array::from_fn(found);
    FimTokens { prefix, suffix, middle, pad, repository, file }
}
