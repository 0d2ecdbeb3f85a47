//! Tokens of prompts for filling in the middle: named by the file, or else known by their texts.

use super::is_special;
use super::tokens::TokenTable;
use super::vocab::{TokenKind, Vocab};

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

/// A token's keys in the file, newest first, and its texts. Source: llama.cpp's `llama-vocab.cpp` and the models' tokenizers.
struct Names {
    keys: &'static [&'static str],
    texts: &'static [&'static str],
}

const PREFIX: Names = Names {
    keys: &["fim_pre_token_id", "prefix_token_id"],
    texts: &[
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
        "[PREFIX]",
    ],
};
const SUFFIX: Names = Names {
    keys: &["fim_suf_token_id", "suffix_token_id"],
    texts: &[
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
        "[SUFFIX]",
    ],
};
const MIDDLE: Names = Names {
    keys: &["fim_mid_token_id", "middle_token_id"],
    texts: &[
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
        "<|middle|>",
        "[MIDDLE]",
    ],
};
const PAD: Names = Names { keys: &["fim_pad_token_id"], texts: &["<|fim_pad|>", "<fim-pad>", "<fim_pad>"] };
const REPOSITORY: Names = Names {
    keys: &["fim_rep_token_id"],
    texts: &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<repo_name>", "<reponame>"],
};
const FILE: Names = Names { keys: &["fim_sep_token_id"], texts: &["<|file_sep|>", "<file_sep>", "<filename>"] };

/// Texts that one of them may have.
const MOST_TEXTS: usize = 9;

impl Names {
    fn find(&self, vocab: &Vocab<'_>, by_text: &[Option<u32>]) -> Option<u32> {
        let named = |key: &&str| vocab.fim.iter().find(|found| found.0 == *key).map(|(_, id)| *id);
        self.keys.iter().find_map(named).or_else(|| by_text.iter().flatten().next().copied())
    }
}

/// The file's, or, where no key names one, the first of the texts that is an atomic token.
pub(super) fn find(vocab: &Vocab<'_>, tokens: &TokenTable) -> FimTokens {
    let all = [PREFIX, SUFFIX, MIDDLE, PAD, REPOSITORY, FILE];
    let mut by_text = [[None; MOST_TEXTS]; 6];
    for (id, text, kind) in tokens.iter() {
        // A quick look first: there are hundreds of thousands.
        if !matches!(text.as_bytes().first(), Some(b'<' | b'[' | 0xe2)) || !atomic(kind) {
            continue;
        }
        for (names, found) in all.iter().zip(&mut by_text) {
            if let Some(at) = names.texts.iter().position(|known| *known == text) {
                found[at].get_or_insert(id);
            }
        }
    }
    let [prefix, suffix, middle, pad, repository, file] = std::array::from_fn(|i| all[i].find(vocab, &by_text[i]));
    FimTokens { prefix, suffix, middle, pad, repository, file }
}

fn atomic(kind: TokenKind) -> bool {
    kind == TokenKind::UserDefined || is_special(kind)
}
