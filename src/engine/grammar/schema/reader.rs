//! Reads JSON into a [`Document`].
//!
//! Invariants: reading takes no stack however deep the text nests; all bounds ([`MAX_VALUES`], [`MAX_NESTING`]) are checked
//! while it is read. Of members with the same name the last counts, in the place of the first.

use std::collections::HashMap;

use super::json::{Document, FEW, Id, Kind, Value};

/// The most values of a schema's text, of all kinds.
const MAX_VALUES: usize = 200_000;
/// The deepest nesting of arrays and objects of a schema's text.
const MAX_NESTING: usize = 1000;

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
    let mut reader = Reader { text, at: 0, document: Document::default(), open: Vec::new() };
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
            return Err(format!("#: values of a schema: {} and more; at most {MAX_VALUES}", n + 1));
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
