//! JSON as a schema's text has it: numbers keep their digits, members their order, values know where they stand.
//!
//! Invariant: the values lie in one list and name each other by index, so that walking and dropping them takes no stack
//! however deep the text nests.

use std::collections::HashMap;
use std::fmt::Write;

use crate::schema::Shown;

/// The longest text of a schema, in bytes.
pub(in crate::engine) const MAX_BYTES: usize = 4 << 20;

/// A value's index in its [`Document`].
pub(super) type Id = u32;

#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    /// The digits as the text writes them.
    Number(Box<str>),
    String(Box<str>),
    Array(Vec<Id>),
    Object(Vec<(Box<str>, Id)>),
}

#[derive(Debug)]
pub(super) struct Value {
    pub(super) kind: Kind,
    /// What it stands in; the root stands in itself.
    pub(super) parent: Id,
}

/// A text's values; the first is the root.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) values: Vec<Value>,
    /// Where each member stands, for objects with many.
    pub(super) places: HashMap<Id, HashMap<Box<str>, usize>>,
}

/// Members up to which they are looked through one by one.
pub(super) const FEW: usize = 16;

impl Document {
    pub(super) fn kind(&self, id: Id) -> &Kind {
        &self.values[id as usize].kind
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn parent(&self, id: Id) -> Id {
        self.values[id as usize].parent
    }

    /// The member of an object; none of anything else.
    pub(super) fn get(&self, id: Id, name: &str) -> Option<Id> {
        let members = self.members(id);
        if members.len() <= FEW {
            return members.iter().find(|(key, _)| &**key == name).map(|(_, value)| *value);
        }
        let place = self.places.get(&id)?.get(name)?;
        members.get(*place).map(|(_, value)| *value)
    }

    /// An object's members; none of anything else.
    pub(super) fn members(&self, id: Id) -> &[(Box<str>, Id)] {
        if let Kind::Object(members) = self.kind(id) { members } else { &[] }
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        if let Kind::String(text) = self.kind(id) { Some(text) } else { None }
    }

    /// Where it stands: `#`, or `#/properties/x` with the escapes of a JSON Pointer.
    pub(super) fn path(&self, id: Id) -> String {
        let mut steps = Vec::new();
        let mut at = id;
        while at != 0 {
            let parent = self.parent(at);
            steps.push(match self.kind(parent) {
                Kind::Array(values) => values.iter().position(|v| *v == at).unwrap_or(0).to_string(),
                _ => {
                    let members = self.members(parent);
                    let name = members.iter().find(|(_, v)| *v == at).map_or("", |(key, _)| key);
                    name.replace('~', "~0").replace('/', "~1")
                }
            });
            at = parent;
        }
        // A name may be as long as the text.
        let step = |step: &String| {
            if step.len() > 200 { step.chars().take(60).collect::<String>() + "..." } else { step.clone() }
        };
        steps.iter().rev().fold("#".to_owned(), |path, s| path + "/" + &step(s))
    }

    /// The value as JSON in one line, cut where it is long.
    pub(super) fn shown(&self, id: Id) -> Shown<'_> {
        match self.kind(id) {
            Kind::Null => Shown::Plain("null"),
            Kind::Bool(true) => Shown::Plain("true"),
            Kind::Bool(false) => Shown::Plain("false"),
            Kind::Number(text) => Shown::Plain(text),
            Kind::String(text) => Shown::String(text),
            Kind::Array(values) => Shown::Array(values.len()),
            Kind::Object(members) => Shown::Object(members.len()),
        }
    }
}

/// The one way in which a string is written: short escapes where there are any, `\u00xx` for other control characters,
/// all else as it is.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match escape(c) {
            Some(escape) => out.push_str(&escape),
            None => out.push(c),
        }
    }
    out.push('"');
    out
}

/// How a character that cannot stand in a string as it is is written.
pub(super) fn escape(c: char) -> Option<String> {
    Some(match c {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\u{8}' => "\\b".to_owned(),
        '\u{c}' => "\\f".to_owned(),
        c if c < ' ' => format!("\\u{:04x}", c as u32),
        _ => return None,
    })
}

/// Writes a character as a regular expression has it, in ASCII.
pub(super) fn put_char(out: &mut String, c: char) {
    if c.is_ascii_alphanumeric() {
        out.push(c);
    } else {
        let _ = write!(out, "\\x{{{:x}}}", c as u32);
    }
}
