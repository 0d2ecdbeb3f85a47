//! The ways to cut a text that pre-tokenizers are made of.

/// How an expression treats the end of a run of white space.
///
/// Nearly all end in `\s+(?!\S)|\s+`: a run of white space leaves its last character to the word that follows. Here the
/// run is matched by `\s+` alone and shortened afterwards, so that no expression needs look-ahead.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// No alternative matches white space that stands before a word, or it stays whole.
    Whole,
    /// A match of white space gives its last character back, unless it is the only one or the text ends.
    GivesBack,
    /// The same, but a match that ends in a line break came from `[\r\n]` and stays whole.
    GivesBackButLines,
    /// White space without line breaks is cut where it has 512 characters, 256, 128, and so on to 1, always the most that leaves
    /// one over unless the text ends: `\s{512}(?!\S)|\s{256}(?!\S)|...|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}`.
    Halves,
}

/// What becomes of the digits of a number that three do not go into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// They stay with what stands before: `(?=(\d{3})+(?!\d))`.
    Joined,
    /// They are a piece: `\d{1,3}(?=(\d{3})*(?!\d))`.
    Alone,
    /// The same, but a number before a letter stays as it is: `\d{1,3}(?=(?:\d{3})*\b)`. The number's expression takes one
    /// character of a word (`\w`) that may follow.
    AloneUnlessWord,
}

/// One way to cut a text.
#[derive(Clone, Copy)]
pub(super) enum Cut {
    /// Into the matches of an expression and what lies between them.
    Matches(&'static str, Space),
    /// Into runs of punctuation and what lies between them, as `tokenizers` knows punctuation: by Unicode 8.
    Punctuation,
    /// Before each three digits, counted from the end of what the expression finds.
    Thousands(&'static str, Rest),
    /// Into threes of ASCII digits, other digits and the rest, of the characters that stand for bytes: those of 0xB2, 0xB3,
    /// 0xB9 and 0xBC to 0xBE (`²`, `³`, `¹`, `¼` to `¾`) count as digits. Comes last: pieces need not be UTF-8.
    ByteDigits,
}
