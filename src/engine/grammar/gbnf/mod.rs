//! llama.cpp's grammars (GBNF), made Lark texts that allow exactly the same.
//!
//! A text is read ([`parser`]) into a tree ([`tree`]), of which the rules' facts are told ([`facts`]). Then it is decided what of
//! it the lexer may take as one ([`cut`]), and the rest is written as rules ([`write`]), unless tokens and characters stand where
//! the parser could not tell them apart ([`places`]). Whatever the text, all of it is bounded:
//! steps, memory and recursion.

mod alphabet;
mod automaton;
mod cut;
mod facts;
mod parser;
mod places;
#[cfg(test)]
mod tests;
mod tree;
mod write;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::tokenizer::Tokenizer;

/// Brackets within each other.
const MAX_DEPTH: usize = 100;
/// Parts of a text: characters, classes, names, groups and repetitions.
const MAX_NODES: u64 = 100_000;
/// Repetitions of one part, which are within each other too.
const MAX_TIMES: usize = 8;
/// How often a part may be repeated.
const MAX_REPEATS: u32 = 1_000_000;
/// Characters of a terminal, its nodes, each as often as it may be repeated, and nodes within each other.
const MAX_CHARS: u64 = 4096;
const MAX_EXPANDED: u64 = 32_768;
const MAX_HEIGHT: u64 = 50;
/// Pairs of characters of a terminal that follow each other.
const MAX_LINKS: usize = 1 << 18;
/// Steps with which terminals are chosen; what would take more has only single characters.
const MAX_STEPS: u64 = 16_000_000;
/// Words of the sets that are held meanwhile.
const MAX_WORDS: usize = 1 << 20;

/// What a text may say of a vocabulary.
pub(super) trait Tokens {
    fn n_vocab(&self) -> usize;
    /// The token that a text is, if it is one.
    fn of_text(&self, text: &str) -> Option<u32>;
    /// Whether a token ends a text.
    fn is_end(&self, id: u32) -> bool;
    /// The bytes of a token of text; a control token has none.
    fn text(&self, id: u32) -> Option<Vec<u8>>;
}

impl Tokens for Tokenizer {
    fn n_vocab(&self) -> usize {
        Tokenizer::n_vocab(self)
    }

    fn of_text(&self, text: &str) -> Option<u32> {
        let ids = self.encode(text, false, true).ok()?;
        if let [id] = ids[..] { Some(id) } else { None }
    }

    fn is_end(&self, id: u32) -> bool {
        self.is_end_of_generation(id)
    }

    fn text(&self, id: u32) -> Option<Vec<u8>> {
        let is_marked = self.is_control(id) || self.is_end_of_generation(id);
        if is_marked { None } else { self.token_bytes(id).ok().map(|bytes| bytes.to_vec()) }
    }
}

/// Refuses to go on once it has been stopped. Whoever stops it knows why, and says so.
fn go_on(stopped: &AtomicBool) -> Result<(), String> {
    if stopped.load(Ordering::Acquire) { Err("stopped".to_owned()) } else { Ok(()) }
}

/// The Lark text of a GBNF text, or what is wrong with it. `stopped` is looked at all the while.
pub(super) fn translate(text: &str, tokens: &dyn Tokens, stopped: &AtomicBool) -> Result<String, String> {
    let mut tree = parser::parse(text, tokens, stopped)?;
    let facts = facts::Facts::new(&mut tree, stopped)?;
    let cut = cut::Cut::new(&tree, &facts, stopped);
    go_on(stopped)?;
    places::check(&tree, &facts, &cut, tokens, stopped)?;
    write::write(&tree, &facts, &cut, tokens, stopped)
}

/// A message of llguidance on the Lark text, of which nothing is shown: its place ("LINE(COLUMN): ", with "at " before it or
/// not), what stands there (" (at ...") and the lines behind are none of the caller's.
pub(super) fn refusal(message: &str) -> &str {
    let line = message.lines().next().unwrap_or_default();
    let rest = line.strip_prefix("at ").unwrap_or(line);
    let is_place = |place: &str| place == "EOF" || place.bytes().all(|b| b.is_ascii_digit() || b"()".contains(&b));
    let what = rest.split_once(": ").filter(|(place, _)| is_place(place)).map_or(line, |(_, what)| what);
    what.split_once(" (at ").map_or(what, |(what, _)| what)
}
