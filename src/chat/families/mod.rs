//! The families that are known, each with what its templates have in them.
//!
//! A file for each way to write calls: JSON objects, a name and JSON behind it, tags, notations of their own, channels.

mod channels;
mod named;
mod notations;
mod objects;
mod tags;

use super::syntax::Syntax;

/// A family, and how it is known.
pub(super) struct Row {
    /// What a template's calls, or else the template, all have in them.
    pub signs: &'static [&'static str],
    pub syntax: Syntax,
}

/// The families, those with the rarer signs first.
pub(super) fn rows() -> Vec<Row> {
    [channels::rows(), named::rows(), tags::rows(), notations::rows(), objects::rows()].into_iter().flatten().collect()
}

/// Marks of thinking that templates of any family have.
pub(super) const THINKING: [(&str, &str); 10] = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<mm:think>", "</mm:think>"),
    ("<|channel>thought", "<channel|>"),
    ("<think:opensource>", "</think:opensource>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    ("Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]"),
];

/// Marks around answers that templates of any family have.
pub(super) const AROUND: [&str; 8] = [
    "<|START_RESPONSE|>",
    "<|END_RESPONSE|>",
    "<|START_TEXT|>",
    "<|END_TEXT|>",
    "<|open|>response<|sep|>",
    "<|close|>response<|sep|>",
    "<|close|>message<|sep|>",
    "[END FINAL RESPONSE]",
];
