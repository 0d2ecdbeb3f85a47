//! A last message that is to be gone on with: a mark behind its text shows where in the rendering it ends.
//!
//! What comes out is what `continue_final_message` of transformers gives.

use std::collections::BTreeSet;

use super::jinja::{Map, Value, is_space};
use super::marks::{self, Marks};
use crate::error::{Error, Result};

/// The mark, and the text that it stands behind, without white space around.
pub(super) struct Continued {
    mark: char,
    text: String,
}

fn unlike(found: &str, expected: &str) -> Error {
    Error::Argument { name: "messages_json", found: found.to_owned(), expected: expected.to_owned() }
}

/// A member of an object.
fn member(map: &Map, name: &str) -> Option<usize> {
    map.entries().iter().position(|(key, _)| key.as_str() == Some(name))
}

/// An object with another value for one of its members.
fn with(map: &Map, at: usize, value: Value) -> Result<Value> {
    let entry = |(n, (key, old)): (usize, &(Value, Value))| {
        let value = if n == at { value.clone() } else { old.clone() };
        (format!("s{}", key.as_str().unwrap_or_default()), key.clone(), value)
    };
    Map::new(map.entries().iter().enumerate().map(entry).collect()).map(Value::Map).map_err(too_deep)
}

/// What was read is no deeper for a text that is longer.
fn too_deep(fault: super::jinja::Fault) -> Error {
    Error::Internal { message: format!("{fault:?}") }
}

impl Continued {
    /// Puts a mark that is none of the taken ones behind the text of the last message.
    pub(super) fn put(messages: &Value, taken: &mut BTreeSet<char>) -> Result<(Value, Continued)> {
        let none = || unlike("without a message to go on with", "a last message with a content");
        let Value::List(list) = messages else { return Err(none()) };
        let Some((Value::Map(last), before)) = list.items.split_last() else { return Err(none()) };
        let mark = marks::spare(taken).ok_or_else(none)?;
        let content = member(last, "content").ok_or_else(none)?;
        let (value, text) = match last.entries().get(content).map(|(_, value)| value) {
            Some(Value::Str(_)) => marked(&last.entries()[content].1, mark).ok_or_else(none)?,
            Some(Value::List(parts)) => {
                let is_text = |part: &Value| matches!(part, Value::Map(part) if member(part, "text").is_some());
                let at = parts.items.iter().rposition(is_text).ok_or_else(none)?;
                let Some(Value::Map(part)) = parts.items.get(at) else { return Err(none()) };
                let place = member(part, "text").ok_or_else(none)?;
                let (value, text) = marked(&part.entries()[place].1, mark).ok_or_else(none)?;
                let mut items = parts.items.to_vec();
                items[at] = with(part, place, value)?;
                (Value::list(items).map_err(too_deep)?, text)
            }
            _ => return Err(none()),
        };
        let items = before.iter().cloned().chain([with(last, content, value)?]).collect();
        taken.insert(mark);
        Ok((Value::list(items).map_err(too_deep)?, Continued { mark, text }))
    }

    /// What was rendered, up to the mark. Where the template has taken the white space behind the mark away, it would have done
    /// so with the message's.
    pub(super) fn cut(&self, marks: &Marks, mut rendered: String) -> Result<String> {
        let missing = || Error::Template { message: "the last message, to go on with, is not as it was".to_owned() };
        let at = rendered.rfind(self.mark).ok_or_else(missing)?;
        if !marks.plain(&rendered).contains(&self.text) {
            return Err(missing());
        }
        let (before, behind) = rendered.split_at(at);
        let is_whole = behind.get(self.mark.len_utf8()..).is_some_and(|behind| behind.starts_with(' '));
        let n = if is_whole { at } else { before.trim_end_matches(is_space).len() };
        rendered.truncate(n);
        Ok(rendered)
    }
}

/// A text with the mark and a space behind it, and the text itself.
fn marked(value: &Value, mark: char) -> Option<(Value, String)> {
    let text = value.as_str()?;
    Some((Value::str(format!("{text}{mark} ")), text.trim_matches(is_space).to_owned()))
}
