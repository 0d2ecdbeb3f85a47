//! JSON as a schema's text has it: numbers keep their digits, members their order, values know where they stand.
//!
//! Invariants: the values lie in one list and name each other by index, so that reading, walking and dropping them takes
//! no stack however deep the text nests; all bounds ([`MAX_BYTES`], [`MAX_VALUES`], [`MAX_NESTING`]) are checked while it
//! is read. Of members with the same name the last counts, in the place of the first.

use std::cell::OnceCell;
use std::collections::HashMap;

use super::reference::Names;
use std::fmt::Write;

/// The longest text of a schema, in bytes.
pub(in crate::engine) const MAX_BYTES: usize = 4 << 20;
/// The most values of a schema's text, of all kinds.
const MAX_VALUES: usize = 200_000;
/// The deepest nesting of arrays and objects of a schema's text.
const MAX_NESTING: usize = 1000;

/// A value's index in its [`Document`].
pub(super) type Id = u32;

#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    /// As the text writes it.
    Number(Box<str>),
    String(Box<str>),
    Array(Vec<Id>),
    Object(Vec<(Box<str>, Id)>),
}

#[derive(Debug)]
struct Value {
    kind: Kind,
    /// What it stands in; the root stands in itself.
    parent: Id,
}

/// A text's values; the first is the root.
#[derive(Debug)]
pub(super) struct Document {
    values: Vec<Value>,
    /// Of objects with many members, where each stands.
    places: HashMap<Id, HashMap<Box<str>, usize>>,
    /// What references name, found out at the first.
    names: OnceCell<Names>,
}

/// Members up to which they are looked through one by one.
const FEW: usize = 16;

impl Document {
    /// What references name.
    pub(super) fn names(&self) -> &Names {
        self.names.get_or_init(|| Names::of(self))
    }

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
    pub(super) fn shown(&self, id: Id) -> String {
        match self.kind(id) {
            Kind::Null => "null".to_owned(),
            Kind::Bool(value) => value.to_string(),
            Kind::Number(text) => shortened(text),
            Kind::String(text) => quoted(&shortened(text)),
            Kind::Array(values) => format!("an array of {} values", values.len()),
            Kind::Object(members) => format!("an object of {} members", members.len()),
        }
    }
}

/// At most some 80 characters of it.
pub(super) fn shortened(text: &str) -> String {
    if text.chars().count() <= 80 { text.to_owned() } else { text.chars().take(60).collect::<String>() + "..." }
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

/// An array or object whose end has not come.
struct Open {
    id: Id,
    /// Where each name stands among the members.
    names: HashMap<Box<str>, usize>,
    /// Where the member stands whose value comes next: a name that is there already keeps its place.
    next: usize,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    document: Document,
    open: Vec<Open>,
}

/// The value that the text begins with, and how many bytes of it are that value's.
pub(super) fn read(text: &str) -> Result<(Document, usize), String> {
    let mut reader = Reader {
        text,
        at: 0,
        document: Document { values: Vec::new(), places: HashMap::new(), names: OnceCell::new() },
        open: Vec::new(),
    };
    loop {
        reader.value()?;
        // What may follow a value, until another is due.
        loop {
            let Some(open) = reader.open.last() else { return Ok((reader.document, reader.at)) };
            let object = matches!(reader.document.kind(open.id), Kind::Object(_));
            match (reader.after_space(), object) {
                (Some(b','), true) => {
                    reader.at += 1;
                    reader.member()?;
                    break;
                }
                (Some(b','), false) => {
                    reader.at += 1;
                    break;
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    reader.at += 1;
                    reader.close();
                }
                _ => return Err(reader.wrong(if object { "\",\" or \"}\"" } else { "\",\" or \"]\"" })),
            }
        }
    }
}

impl Reader<'_> {
    fn close(&mut self) {
        if let Some(open) = self.open.pop()
            && open.names.len() > FEW
        {
            self.document.places.insert(open.id, open.names);
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn after_space(&mut self) -> Option<u8> {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.byte()
    }

    fn wrong(&self, expected: &str) -> String {
        let at = self.at.min(self.text.len());
        let line = self.text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
        let found = match self.text.get(at..).and_then(|rest| rest.chars().next()) {
            Some(c) => format!("{c:?}"),
            None => "the end of the text".to_owned(),
        };
        format!("#: byte {at} (line {line}) is {found} where {expected} was expected")
    }

    fn add(&mut self, kind: Kind) -> Result<Id, String> {
        let n = self.document.values.len();
        if n == MAX_VALUES {
            return Err(format!("#: values of a schema: more than {MAX_VALUES}"));
        }
        let id = n as Id;
        let parent = self.open.last().map_or(0, |open| open.id);
        self.document.values.push(Value { kind, parent });
        if id != 0 {
            match &mut self.document.values[parent as usize].kind {
                Kind::Array(values) => values.push(id),
                // The name is there; the value is this one.
                Kind::Object(members) => {
                    let next = self.open.last().map_or(0, |open| open.next);
                    if let Some(member) = members.get_mut(next) {
                        member.1 = id;
                    }
                }
                _ => {}
            }
        }
        Ok(id)
    }

    /// Reads one that is whole, or opens an array or object and reads up to its first value.
    fn value(&mut self) -> Result<(), String> {
        loop {
            let bracket = match self.after_space() {
                Some(b @ (b'{' | b'[')) => b,
                Some(b'"') => {
                    let text = self.string()?;
                    return self.add(Kind::String(text)).map(drop);
                }
                Some(b'-' | b'0'..=b'9') => {
                    let text = self.number()?;
                    return self.add(Kind::Number(text)).map(drop);
                }
                _ => {
                    for (word, kind) in [("null", Kind::Null), ("true", Kind::Bool(true)), ("false", Kind::Bool(false))]
                    {
                        if self.text[self.at..].starts_with(word) {
                            self.at += word.len();
                            return self.add(kind).map(drop);
                        }
                    }
                    return Err(self.wrong("a value"));
                }
            };
            self.at += 1;
            if self.open.len() == MAX_NESTING {
                return Err(format!(
                    "#: arrays and objects of a schema's text inside of each other: more than {MAX_NESTING}"
                ));
            }
            let object = bracket == b'{';
            let id = self.add(if object { Kind::Object(Vec::new()) } else { Kind::Array(Vec::new()) })?;
            self.open.push(Open { id, names: HashMap::new(), next: 0 });
            if self.after_space() == Some(if object { b'}' } else { b']' }) {
                self.at += 1;
                self.open.pop();
                return Ok(());
            }
            if object {
                self.member()?;
            }
        }
    }

    /// Reads a member's name and colon.
    fn member(&mut self) -> Result<(), String> {
        if self.after_space() != Some(b'"') {
            return Err(self.wrong("a name"));
        }
        let name = self.string()?;
        if self.after_space() != Some(b':') {
            return Err(self.wrong("\":\""));
        }
        self.at += 1;
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        if let Kind::Object(members) = &mut self.document.values[open.id as usize].kind {
            match open.names.get(&name) {
                Some(&at) => open.next = at,
                None => {
                    open.next = members.len();
                    open.names.insert(name.clone(), open.next);
                    members.push((name, Id::MAX));
                }
            }
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Box<str>, String> {
        let from = self.at;
        let digits = |reader: &mut Self| {
            let n = reader.text.as_bytes()[reader.at..].iter().take_while(|b| b.is_ascii_digit()).count();
            reader.at += n;
            if n == 0 { Err(reader.wrong("a digit")) } else { Ok(()) }
        };
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1
        } else {
            digits(self)?
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            digits(self)?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            digits(self)?;
        }
        Ok(self.text[from..self.at].into())
    }

    fn string(&mut self) -> Result<Box<str>, String> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let n = rest.bytes().position(|b| b == b'"' || b == b'\\' || b < b' ').unwrap_or(rest.len());
            out.push_str(&rest[..n]);
            self.at += n;
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out.into());
                }
                Some(b'\\') => {
                    self.at += 1;
                    let c = self.escaped()?;
                    out.push(c);
                }
                _ => return Err(self.wrong("'\"'")),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, String> {
        let c = match self.byte() {
            Some(b @ (b'"' | b'\\' | b'/')) => char::from(b),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                let first = self.hex()?;
                let code = if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with("\\u") {
                    self.at += 2;
                    let second = self.hex()?;
                    let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400);
                    low.map_or(u32::MAX, |low| 0x10000 + ((first - 0xd800) << 10) + low)
                } else {
                    first
                };
                return char::from_u32(code).ok_or_else(|| self.wrong("an escape that is a character"));
            }
            _ => return Err(self.wrong("an escape")),
        };
        self.at += 1;
        Ok(c)
    }

    fn hex(&mut self) -> Result<u32, String> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let Some(digits) = digits else { return Err(self.wrong("four hexadecimal digits")) };
        let value = digits.iter().fold(0, |n, d| n * 16 + char::from(*d).to_digit(16).unwrap_or(0));
        self.at += 4;
        Ok(value)
    }
}

/// Writes a character as a regular expression has it, in ASCII.
pub(super) fn put_char(out: &mut String, c: char) {
    if c.is_ascii_alphanumeric() {
        out.push(c);
    } else {
        let _ = write!(out, "\\x{{{:x}}}", c as u32);
    }
}
