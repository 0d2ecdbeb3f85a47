//! A last message that is to be gone on with: a tag behind its text shows where in the rendering it ends.
//!
//! What comes out is what `continue_final_message` of transformers gives. The tag is the one that it has, since there are templates
//! that look for it. The last one in a rendering counts, so that messages in front may hold it. What a template may write behind
//! the text may not: other texts of the last message, its calls above all, and variables.

use super::jinja::{Map, Value, is_space};
use super::marks::Marks;
use crate::error::{Error, Result};

/// The tag, and what is behind it unless a template takes white space away.
const TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG";
const BEHIND: &str = " ";

/// The text that the tag stands behind, without white space around.
pub(super) struct Continued(String);

fn unlike(found: &str, expected: &str) -> Error {
    Error::Argument { name: "messages_json", found: found.to_owned(), expected: expected.to_owned() }
}

/// A member of an object.
fn member(map: &Map, name: &str) -> Option<usize> {
    map.entries().iter().position(|(key, _)| key.as_str() == Some(name))
}

fn holds_tag(value: &Value) -> bool {
    match value {
        Value::Str(_) => value.as_str().is_some_and(|text| text.contains(TAG)),
        Value::List(list) => list.items.iter().any(holds_tag),
        Value::Map(map) => map.entries().iter().any(|(key, value)| holds_tag(key) || holds_tag(value)),
        _ => false,
    }
}

/// Whether the tag is anywhere in an object but in one of its members.
fn holds_tag_beside(map: &Map, at: usize) -> bool {
    map.entries().iter().enumerate().any(|(n, (key, value))| holds_tag(key) || n != at && holds_tag(value))
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
    /// Puts the tag behind the text of the last message. Fails with `Argument` where a template could write another behind it.
    pub(super) fn put(messages: &Value, variables: &[(String, Value)]) -> Result<(Value, Continued)> {
        let none = || unlike("without a message to go on with", "a last message with a content");
        let Value::List(list) = messages else { return Err(none()) };
        let Some((Value::Map(last), before)) = list.items.split_last() else { return Err(none()) };
        let content = member(last, "content").ok_or_else(none)?;
        let mut is_tagged = holds_tag_beside(last, content);
        let (value, text) = match last.entries().get(content).map(|(_, value)| value) {
            Some(Value::Str(_)) => tagged(&last.entries()[content].1).ok_or_else(none)?,
            Some(Value::List(parts)) => {
                let is_text = |part: &Value| matches!(part, Value::Map(part) if member(part, "text").is_some());
                let at = parts.items.iter().rposition(is_text).ok_or_else(none)?;
                let Some(Value::Map(part)) = parts.items.get(at) else { return Err(none()) };
                let place = member(part, "text").ok_or_else(none)?;
                let (value, text) = tagged(&part.entries()[place].1).ok_or_else(none)?;
                is_tagged |= parts.items.iter().enumerate().any(|(n, part)| n != at && holds_tag(part));
                is_tagged |= holds_tag_beside(part, place);
                let mut items = parts.items.to_vec();
                items[at] = with(part, place, value)?;
                (Value::list(items).map_err(too_deep)?, text)
            }
            _ => return Err(none()),
        };
        if is_tagged {
            let found = format!("with {TAG} in the last message, beside the text that is gone on with");
            return Err(unlike(&found, "another text there"));
        }
        if let Some((name, _)) = variables.iter().find(|(name, value)| name.contains(TAG) || holds_tag(value)) {
            let name: String = name.chars().take(40).collect();
            let found = format!("with {TAG} in {name}, where a message is gone on with");
            return Err(Error::Argument { name: "variables_json", found, expected: "another text there".to_owned() });
        }
        let items = before.iter().cloned().chain([with(last, content, value)?]).collect();
        Ok((Value::list(items).map_err(too_deep)?, Continued(text)))
    }

    /// What was rendered, up to the tag. Where the template has taken the white space behind the tag away, it would have done
    /// so with the message's.
    pub(super) fn cut(&self, marks: &Marks, mut rendered: String) -> Result<String> {
        let missing = || Error::Template { message: "the last message, to go on with, is not as it was".to_owned() };
        let at = rendered.rfind(TAG).ok_or_else(missing)?;
        if !marks.plain(&rendered).contains(&self.0) {
            return Err(missing());
        }
        let (before, behind) = rendered.split_at(at);
        let is_whole = behind.get(TAG.len()..).is_some_and(|behind| behind.starts_with(BEHIND));
        let n = if is_whole { at } else { before.trim_end_matches(is_space).len() };
        rendered.truncate(n);
        Ok(rendered)
    }
}

/// A text with the tag behind it, and the text itself.
fn tagged(value: &Value) -> Option<(Value, String)> {
    let text = value.as_str()?;
    Some((Value::str(format!("{text}{TAG}{BEHIND}")), text.trim_matches(is_space).to_owned()))
}
