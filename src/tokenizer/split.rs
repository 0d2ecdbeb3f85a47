//! Pre-tokenizers: how a text is cut into words before the merges of a byte-level vocabulary apply.
//!
//! The rules are those of the models' own `tokenizer.json` (and for `default`, which no model has, those that
//! llama.cpp gives that name). All of them end in `\s+(?!\S)|\s+`: a run of white space leaves its last character
//! to the word that follows. Here the run is matched by `\s+` alone and shortened afterwards, so that the patterns
//! need no look-ahead and run in linear time on any text.

use regex::Regex;

use super::unsupported;
use crate::alloc::require;
use crate::error::{Error, Result};

/// Those that are known.
const NAMES: &str = "gpt-2, smollm, starcoder, qwen2, llama-bpe, llama3, llama-v3 or default";

/// GPT-2's rule.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";

/// Llama 3's rule; a run of digits is cut into threes.
const LLAMA3: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";

/// Qwen2's rule: Llama 3's with every digit alone.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";

/// What compiling a rule takes at its peak, and what a thread's first uses of one do: tests/api/tokenizer_cost.rs measures both.
const COMPILE_BYTES: usize = 1 << 20;
const CACHE_BYTES: usize = 3 << 20;

/// How a rule treats the end of a run of white space.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    /// No alternative matches white space that stands before a word.
    Whole,
    /// A match of white space gives its last character back, unless it is the only one or the text ends.
    GivesBack,
    /// The same, but a match that ends in a line break came from `[\r\n]` and stays whole.
    GivesBackButLines,
}

struct Rule {
    regex: Compiled,
    space: Space,
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

/// A pre-tokenizer: rules that cut one after the other, each into its matches and what lies between them.
pub(super) struct Splitter {
    rules: Vec<Rule>,
    /// Whether the model's tokenizer composes characters (NFC) first.
    pub nfc: bool,
    /// Whether a word that is a token is that token, whatever the merges would make of it.
    pub ignore_merges: bool,
    /// Whether a text begins with the begin token if the file does not say.
    pub add_bos: bool,
}

impl Splitter {
    /// The pre-tokenizer that `tokenizer.ggml.pre` names.
    ///
    /// Fails with `Unsupported` on a name whose rule is not known here.
    pub fn new(name: &str) -> Result<Splitter> {
        use Space::{GivesBack, GivesBackButLines, Whole};
        let rules: &[(&str, Space)] = match name {
            "gpt-2" => &[(GPT2, GivesBack)],
            "smollm" | "starcoder" => &[(r"\p{N}", Whole), (GPT2, GivesBack)],
            "qwen2" => &[(QWEN2, GivesBackButLines)],
            "llama-bpe" | "llama3" | "llama-v3" => &[(LLAMA3, GivesBackButLines)],
            "default" => {
                &[(r"[\p{P}$+<=>^~|]+", Whole), (GPT2, GivesBack), (r"\p{N}+", Whole), (r"[0-9][0-9][0-9]", Whole)]
            }
            _ => return Err(unsupported("pre", name, NAMES)),
        };
        require(rules.len() * COMPILE_BYTES)?;
        let rules = rules.iter().map(|&(pattern, space)| Ok(Rule { regex: compile(pattern)?, space }));
        let llama3 = matches!(name, "llama-bpe" | "llama3" | "llama-v3");
        Ok(Splitter {
            rules: rules.collect::<Result<_>>()?,
            nfc: name == "qwen2",
            ignore_merges: llama3,
            add_bos: llama3,
        })
    }

    /// Calls `word` with each word of the text, in order; together they are the text.
    pub fn split(&self, text: &str, word: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        require(self.rules.len() * CACHE_BYTES)?;
        apply(&self.rules, text, word)
    }
}

fn apply(rules: &[Rule], text: &str, word: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    let Some((rule, rest)) = rules.split_first() else {
        return if text.is_empty() { Ok(()) } else { word(text) };
    };
    let mut done = 0;
    while let Some(found) = rule.regex.find_at(text, done) {
        let end = rule.end(text, found.start(), found.end());
        if found.start() > done {
            apply(rest, &text[done..found.start()], word)?;
        }
        apply(rest, &text[found.start()..end], word)?;
        done = end;
    }
    apply(rest, &text[done..], word)
}

impl Rule {
    /// Where the match `start..end` ends once it has given back what it should; greater than `start`.
    fn end(&self, text: &str, start: usize, end: usize) -> usize {
        if self.space == Space::Whole || end == text.len() {
            return end;
        }
        // Only `\s+` and `[\r\n]` end in white space, and `\s+` took all there was: what follows is none.
        let Some(last) = text[start..end].chars().next_back().filter(|c| c.is_whitespace()) else { return end };
        if self.space == Space::GivesBackButLines && matches!(last, '\r' | '\n') {
            return end;
        }
        let shorter = end - last.len_utf8();
        if shorter > start { shorter } else { end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        let splitter = Splitter::new(name).unwrap();
        let mut push = |word: &str| {
            words.push(word.to_owned());
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
    fn unknown_name_is_refused() {
        let text = Splitter::new("tekken").err().map(|e| e.to_string()).unwrap_or_default();
        assert!(text.starts_with("key \"tokenizer.ggml.pre\" is \"tekken\"; expected gpt-2, "), "{text}");
        assert!(NAMES.split([',', ' ']).filter(|n| !["", "or"].contains(n)).all(|name| Splitter::new(name).is_ok()));
    }
}
