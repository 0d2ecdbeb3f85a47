//! The families that are known, each with what its templates have in them.
//!
//! A file for each way to write calls: JSON objects, a name and JSON behind it, tags, notations of their own, channels.

mod channels;
mod named;
mod notations;
mod objects;
mod tags;

use super::syntax::{Calls, Field, Keys, Part, Syntax, mark};

/// A family, and how it is known.
pub(super) struct Row {
    /// What a template's calls, or else the template, all have in them.
    pub signs: &'static [&'static str],
    pub syntax: Syntax,
}

impl Row {
    fn new(family: &'static str, signs: &'static [&'static str], calls: Calls) -> Row {
        Row { signs, syntax: Syntax::with_calls(family, calls) }
    }

    /// A family whose calls are objects between two marks.
    fn of_objects(
        family: &'static str,
        signs: &'static [&'static str],
        open: &str,
        close: Option<&str>,
        keys: Keys,
    ) -> Row {
        Row::new(family, signs, Calls::objects(open, close, keys))
    }

    /// A family whose calls are parts between two marks.
    fn of_parts(
        family: &'static str,
        signs: &'static [&'static str],
        open: &str,
        close: Option<&str>,
        parts: Vec<Part>,
    ) -> Row {
        Row::new(family, signs, Calls::parts(open, close, parts))
    }

    /// The same, whose calls are changed.
    fn with(mut self, change: impl FnOnce(&mut Calls)) -> Row {
        if let Some(calls) = &mut self.syntax.calls {
            change(calls);
        }
        self
    }
}

/// The arguments one by one: what stands in front of a name, between that and the value, and behind it.
fn each(before: &str, between: &[&str], value: Part, behind: &str) -> Part {
    let mut parts = vec![mark(before), Part::Field(Field::Key)];
    parts.extend(between.iter().map(|text| mark(text)));
    parts.extend([value, mark(behind)]);
    Part::Each(parts)
}

/// A value that stands between two marks, and nothing else of it.
const VALUE: Part = Part::Value { lines: false, cdata: false };

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
