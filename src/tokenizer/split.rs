//! How a text is cut into words before the merges of a byte-level vocabulary apply, by the pre-tokenizer's expressions.
//!
//! Regular expressions without look-ahead, which run in linear time on any text; what they cannot say is added here: a run
//! of white space gives its last character back, and numbers are cut from their ends.

use regex::Regex;

use super::bert_chars;
use super::bytes;
use super::cut::{Cut, Rest, Space};
use super::pre;
use super::unsupported;
use crate::alloc::require;
use crate::error::{Error, Result};

/// What compiling a rule takes at its peak, and what a thread's first uses of one do: tests/api/tokenizer_cost.rs and
/// tests/api/pretokenizers.rs measure both.
const COMPILE_BYTES: usize = 2 << 20;
const CACHE_BYTES: usize = 3 << 20;

enum Rule {
    Matches(Compiled, Space),
    /// The expression of a number.
    Thousands(Compiled, Rest),
    Punctuation,
    ByteDigits,
}

impl Rule {
    fn new(cut: Cut) -> Result<Rule> {
        Ok(match cut {
            Cut::Matches(pattern, space) => Rule::Matches(compile(pattern)?, space),
            Cut::Thousands(number, rest) => Rule::Thousands(compile(number)?, rest),
            Cut::Punctuation => Rule::Punctuation,
            Cut::ByteDigits => Rule::ByteDigits,
        })
    }
}

#[cfg(not(fuzzing))]
type Compiled = Regex;

#[cfg(not(fuzzing))]
fn compile(pattern: &'static str) -> Result<Compiled> {
    Regex::new(pattern).map_err(|e| Error::Internal { message: e.to_string() })
}

/// A fuzzer loads a model a millisecond, and the rules are no input of its: compiled once a process, and left warm.
#[cfg(fuzzing)]
type Compiled = &'static Regex;

#[cfg(fuzzing)]
fn compile(pattern: &'static str) -> Result<Compiled> {
    static DONE: std::sync::Mutex<Vec<(&str, Compiled)>> = std::sync::Mutex::new(Vec::new());
    let mut done = DONE.lock().map_err(|e| Error::Internal { message: e.to_string() })?;
    if let Some((_, regex)) = done.iter().find(|(known, _)| *known == pattern) {
        return Ok(regex);
    }
    let regex = Regex::new(pattern).map_err(|e| Error::Internal { message: e.to_string() })?;
    let regex: Compiled = Box::leak(Box::new(regex));
    done.push((pattern, regex));
    Ok(regex)
}

/// A pre-tokenizer: rules that cut one after the other.
pub(super) struct Splitter {
    rules: Vec<Rule>,
    /// Whether the model's tokenizer composes characters (NFC) first.
    pub nfc: bool,
    /// Whether a word that is a token is that token, whatever the merges would make of it.
    pub ignore_merges: bool,
    /// Whether a text begins with the begin token if the file does not say.
    pub add_bos: bool,
    /// Whether words are text in which a mark stands for each space, and no bytes.
    pub is_text: bool,
}

impl Splitter {
    /// The pre-tokenizer that `tokenizer.ggml.pre` names.
    ///
    /// Fails with `Unsupported` on a name whose rule is not known here.
    pub fn new(name: &str) -> Result<Splitter> {
        let known = pre::ALL.iter().find(|pre| pre.names.contains(&name));
        let found = known.ok_or_else(|| unsupported("pre", name, &names()))?;
        require(found.cuts.len() * COMPILE_BYTES)?;
        let rules = found.cuts.iter().map(|&cut| Rule::new(cut));
        Ok(Splitter {
            rules: rules.collect::<Result<_>>()?,
            nfc: found.nfc,
            ignore_merges: found.ignore_merges,
            add_bos: found.add_bos,
            is_text: found.is_text,
        })
    }

    /// Calls `word` with each word of the text, in order; together they are the text.
    pub fn split(&self, text: &str, word: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        require(self.rules.len() * CACHE_BYTES)?;
        apply(&self.rules, text, word)
    }
}

/// The names that are known.
fn names() -> String {
    let all: Vec<&str> = pre::ALL.iter().flat_map(|pre| pre.names).copied().collect();
    all.split_last().map_or(String::new(), |(last, rest)| format!("{} or {last}", rest.join(", ")))
}

fn apply(rules: &[Rule], text: &str, word: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    match rules.split_first() {
        None => word(text.as_bytes()),
        Some((Rule::Matches(regex, space), rest)) => {
            matches(regex, *space, text, &mut |piece| apply(rest, piece, word))
        }
        Some((Rule::Thousands(number, left), rest)) => {
            thousands(number, *left, text, &mut |piece| apply(rest, piece, word))
        }
        Some((Rule::Punctuation, rest)) => punctuation(text, &mut |piece| apply(rest, piece, word)),
        Some((Rule::ByteDigits, _)) => byte_digits(text.as_bytes(), word),
    }
}

/// The matches of an expression and what lies between them; a piece may be empty.
fn matches(regex: &Regex, space: Space, text: &str, piece: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    let mut done = 0;
    while let Some(found) = regex.find_at(text, done) {
        piece(&text[done..found.start()])?;
        if space == Space::Halves {
            done = halves(text, found.start(), found.end(), piece)?;
            continue;
        }
        let end = end(space, text, found.start(), found.end());
        piece(&text[found.start()..end])?;
        done = end;
    }
    piece(&text[done..])
}

/// The pieces of the match `start..end` as [`Space::Halves`] has them, and where they end.
fn halves(text: &str, start: usize, end: usize, piece: &mut dyn FnMut(&str) -> Result<()>) -> Result<usize> {
    let mut rest = &text[start..end];
    if !rest.ends_with(|c: char| c.is_whitespace() && !matches!(c, '\r' | '\n')) {
        piece(rest)?;
        return Ok(end);
    }
    let is_end = end == text.len();
    let mut n = rest.chars().count();
    loop {
        let most = (0..=9).rev().map(|power| 1 << power).find(|&most| most < n || is_end && most == n).unwrap_or(1);
        let (first, behind) = rest.split_at(rest.char_indices().nth(most).map_or(rest.len(), |(at, _)| at));
        piece(first)?;
        (rest, n) = (behind, n - most);
        // The last one may go with a word.
        if n == 0 || n == 1 && !is_end {
            return Ok(end - rest.len());
        }
    }
}

/// Where the match `start..end` ends once it has given back what it should; greater than `start`.
fn end(space: Space, text: &str, start: usize, end: usize) -> usize {
    if space == Space::Whole || end == text.len() {
        return end;
    }
    // Only `\s+` and `[\r\n]` end in white space, and `\s+` took all there was: what follows is none.
    let Some(last) = text[start..end].chars().next_back().filter(|c| c.is_whitespace()) else { return end };
    if space == Space::GivesBackButLines && matches!(last, '\r' | '\n') {
        return end;
    }
    let shorter = end - last.len_utf8();
    if shorter > start { shorter } else { end }
}

/// Runs of punctuation and what lies between them.
fn punctuation(text: &str, piece: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is = bert_chars::is_punctuation(first);
        let end = rest.find(|c| bert_chars::is_punctuation(c) != is).unwrap_or(rest.len());
        piece(&rest[..end])?;
        rest = &rest[end..];
    }
    Ok(())
}

/// Cuts before each three digits, counted from a number's end.
fn thousands(number: &Regex, left: Rest, text: &str, piece: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    let mut done = 0;
    for found in number.find_iter(text) {
        let digits = found.as_str();
        // A character that may follow is no number itself.
        let last = digits.char_indices().next_back().map_or(0, |(at, _)| at);
        if left == Rest::AloneUnlessWord && !number.is_match(&digits[last..]) {
            continue;
        }
        let n = digits.chars().count();
        if left != Rest::Joined {
            piece(&text[done..found.start()])?;
            done = found.start();
        }
        for (i, (at, _)) in digits.char_indices().enumerate() {
            if (n - i) % 3 == 0 {
                piece(&text[done..found.start() + at])?;
                done = found.start() + at;
            }
        }
        if left != Rest::Joined {
            piece(&text[done..found.end()])?;
            done = found.end();
        }
    }
    piece(&text[done..])
}

/// Cuts bytes as [`Cut::ByteDigits`] says.
fn byte_digits(text: &[u8], word: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let is_digit = |byte: u8| bytes::char_of(byte).is_numeric();
    for run in text.chunk_by(|&a, &b| is_digit(a) == is_digit(b)) {
        if !run.first().is_some_and(|&byte| is_digit(byte)) {
            word(run)?;
            continue;
        }
        let mut rest = run;
        while let Some(at) = rest.windows(3).position(|three| three.iter().all(u8::is_ascii_digit)) {
            let (before, from) = rest.split_at(at);
            let (three, after) = from.split_at(3);
            if !before.is_empty() {
                word(before)?;
            }
            word(three)?;
            rest = after;
        }
        if !rest.is_empty() {
            word(rest)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        let splitter = Splitter::new(name).unwrap();
        let mut push = |word: &[u8]| {
            words.push(String::from_utf8_lossy(word).into_owned());
            Ok(())
        };
        splitter.split(text, &mut push).unwrap();
        assert_eq!(words.concat(), text);
        words
    }

    #[test]
    fn white_space_leaves_its_last_character() {
        assert_eq!(words("gpt-2", "a   b"), ["a", "  ", " b"]);
        assert_eq!(words("gpt-2", "a \n\n b  "), ["a", " \n\n", " b", "  "]);
        assert_eq!(words("gpt-2", "a\nb \tc"), ["a", "\n", "b", " ", "\t", "c"]);
        assert_eq!(words("qwen2", "a  \n\n  b"), ["a", "  \n\n", " ", " b"]);
        assert_eq!(words("qwen2", "a\t\tb !\n\nc"), ["a", "\t", "\tb", " !\n\n", "c"]);
        assert_eq!(words("llama-bpe", "\u{3000}\u{3000}x"), ["\u{3000}", "\u{3000}x"]);
    }

    #[test]
    fn digits_and_contractions() {
        assert_eq!(words("llama-bpe", "12345 I'LL"), ["123", "45", " I", "'LL"]);
        assert_eq!(words("qwen2", "12 it's"), ["1", "2", " it", "'s"]);
        assert_eq!(words("smollm", "x 12'S"), ["x", " ", "1", "2", "'", "S"]);
        assert_eq!(words("default", "(a) 1234.5"), ["(", "a", ")", " ", "123", "4", ".", "5"]);
    }

    #[test]
    fn numbers_from_their_ends() {
        assert_eq!(words("superbpe", "a 1234567 b 123 12"), ["a ", "1", "234", "567", " b ", "123", " ", "12"]);
        assert_eq!(words("superbpe", "\u{bd}1234\u{bd}12"), ["\u{bd}1", "234\u{bd}12"]);
        assert_eq!(words("deepseek-v3", "1234567"), ["123", "456", "7"]);
    }

    #[test]
    fn capitals_begin_words() {
        assert_eq!(words("tekken", "HelloWorld fooBAR HTTPServer"), ["Hello", "World", " foo", "BAR", " HTTPServer"]);
        assert_eq!(words("gpt-4o", "It'S we'reX"), ["It'S", " we're", "X"]);
        assert_eq!(words("kimi-k2", "\u{4e2d}\u{6587}abc"), ["\u{4e2d}\u{6587}", "abc"]);
    }

    /// The bytes of `\u{43c}` are D0 BC, and BC stands for itself, which is a number.
    #[test]
    fn bytes_that_stand_for_digits() {
        let mut found = Vec::new();
        let mut push = |word: &[u8]| {
            found.push(word.to_vec());
            Ok(())
        };
        Splitter::new("falcon").unwrap().split("\u{43c} 12345", &mut push).unwrap();
        assert_eq!(found, [&b"\xd0"[..], b"\xbc", b" ", b"123", b"45"]);
    }

    #[test]
    fn unknown_name_is_refused() {
        let text = Splitter::new("tekken-7").err().map(|e| e.to_string()).unwrap_or_default();
        assert!(text.starts_with("key \"tokenizer.ggml.pre\" is \"tekken-7\"; expected gpt-2, "), "{text}");
        assert!(text.ends_with(" or default"), "{text}");
    }

    #[test]
    fn every_name_is_there_once_and_compiles() {
        let mut all: Vec<&str> = pre::ALL.iter().flat_map(|pre| pre.names).copied().collect();
        assert!(all.iter().all(|name| Splitter::new(name).is_ok()));
        let n = all.len();
        all.sort_unstable();
        all.dedup();
        assert!(all.len() == n && n > 70, "{n} names");
    }
}
