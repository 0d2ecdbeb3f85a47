//! What tokens for filling in the middle are called: their keys in a file, and their texts.

/// A token's keys in the file, newest first, and its texts. Source: llama.cpp's `llama-vocab.cpp` and the models' tokenizers.
pub(super) struct Names {
    pub keys: &'static [&'static str],
    pub texts: &'static [&'static str],
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
const PAD: Names = Names { keys: &["fim_pad_token_id"], texts: &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>"] };
const REPOSITORY: Names = Names {
    keys: &["fim_rep_token_id"],
    texts: &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<repo_name>", "<reponame>"],
};
const FILE: Names = Names { keys: &["fim_sep_token_id"], texts: &["<|file_sep|>", "<file_sep>", "<filename>"] };

/// All: prefix, suffix, middle, padding, repository, file.
pub(super) const ALL: [Names; 6] = [PREFIX, SUFFIX, MIDDLE, PAD, REPOSITORY, FILE];
/// Those that a generation ends with: what they stand before is another example's.
const ENDS: [Names; 3] = [PAD, REPOSITORY, FILE];

/// The keys that name one of them.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    ALL.into_iter().flat_map(|names| names.keys).copied()
}

/// The keys of those that a generation ends with.
pub(super) fn end_keys() -> impl Iterator<Item = &'static str> {
    ENDS.into_iter().flat_map(|names| names.keys).copied()
}

/// Texts of these that a generation goes past, as in llama.cpp: StarCoder's successors write them.
const PASSED: [&str; 3] = ["<repo_name>", "<file_sep>", "<filename>"];

/// Whether a text is of one that a generation ends with.
pub(super) fn is_end(text: &str) -> bool {
    ENDS.iter().any(|names| names.texts.contains(&text)) && !PASSED.contains(&text)
}
