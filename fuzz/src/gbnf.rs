//! A grammar of llama.cpp from anywhere.

use kigo::engine::Grammar;

use crate::grammar;

/// One case.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    grammar::write(Grammar::Gbnf(&text), grammar::seed(&text));
}
