//! Reads conversations in JSON into the template engine's values.
//!
//! Objects keep their order, and of a key that stands twice the last value counts, as in Python. Integers are exact up
//! to 128 bits; what would lose something, or goes beyond the bounds, is refused with the place.

use std::collections::BTreeSet;

use super::jinja::{Map, Value};
use crate::error::{Error, Result};

/// Levels of arrays and objects in one another.
const MAX_DEPTH: usize = 48;
/// Bytes of a text.
const MAX_BYTES: usize = 16 << 20;
/// Values in a text, names of members included.
const MAX_VALUES: usize = 200_000;

/// The most bytes that reading a text of so many takes, measured.
pub(super) fn memory(len: usize) -> usize {
    len.saturating_mul(2).saturating_add((len / 2).min(MAX_VALUES) * 256)
}

/// Where a reader is: a place in an array, or the beginning of a member's name.
enum Step {
    Place(usize),
    Member(usize, usize),
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    path: Vec<Step>,
    n_values: usize,
    /// What the marks must not be.
    taken: &'t mut BTreeSet<char>,
}

/// What is wrong where the reader is.
struct Fault(String);

type Read<T> = std::result::Result<T, Fault>;

fn fault<T>(what: impl Into<String>) -> Read<T> {
    Err(Fault(what.into()))
}

fn too_deep<T>() -> Read<T> {
    fault(format!("nested more than {MAX_DEPTH} deep"))
}

fn list(items: Vec<Value>) -> Read<Value> {
    Value::list(items).or_else(|_| too_deep())
}

/// The value that a text is; `name` is the argument's. Characters that might be taken for marks go into `taken`.
pub(super) fn read(text: &str, name: &'static str, taken: &mut BTreeSet<char>) -> Result<Value> {
    if text.len() > MAX_BYTES {
        let (found, expected) = (format!("{} bytes long", text.len()), format!("at most {MAX_BYTES}"));
        return Err(Error::Argument { name, found, expected });
    }
    let mut reader = Reader { text, at: 0, path: Vec::new(), n_values: 0, taken };
    let read = reader.value().and_then(|value| {
        reader.space();
        if reader.at < text.len() { fault("more text behind its end") } else { Ok(value) }
    });
    read.map_err(|Fault(what)| {
        let found = format!("{what} at byte {} ({})", reader.at, reader.place());
        Error::Argument { name, found, expected: "JSON".to_owned() }
    })
}

impl<'t> Reader<'t> {
    /// The place as a JSON Pointer, names cut short.
    fn place(&self) -> String {
        let mut place = "#".to_owned();
        for step in &self.path {
            place.push('/');
            match step {
                Step::Place(index) => place.push_str(&index.to_string()),
                Step::Member(begin, end) => {
                    place.extend(self.text.get(*begin..*end).unwrap_or_default().chars().take(40));
                }
            }
        }
        place
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte that is no white space, which stays.
    fn next(&mut self) -> Option<u8> {
        self.space();
        self.peek()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.next() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self) -> Read<Value> {
        self.n_values += 1;
        if self.n_values > MAX_VALUES {
            return fault(format!("holding more than {MAX_VALUES} values"));
        }
        if self.path.len() > MAX_DEPTH {
            return too_deep();
        }
        match self.next() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => self.string().map(Value::str),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::None),
            Some(_) => fault("no JSON value"),
            None => fault("cut short"),
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Read<Value> {
        if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            return Ok(value);
        }
        fault("no JSON value")
    }

    fn array(&mut self) -> Read<Value> {
        self.at += 1;
        let mut items = Vec::new();
        if self.take(b']') {
            return list(items);
        }
        loop {
            self.path.push(Step::Place(items.len()));
            items.push(self.value()?);
            self.path.pop();
            if self.take(b']') {
                return list(items);
            }
            if !self.take(b',') {
                return fault("lacking a comma or ]");
            }
        }
    }

    fn object(&mut self) -> Read<Value> {
        self.at += 1;
        let mut members: Vec<(String, Value, Value)> = Vec::new();
        if !self.take(b'}') {
            loop {
                if self.next() != Some(b'"') {
                    return fault("lacking a name in quotes");
                }
                let begin = self.at + 1;
                self.n_values += 1;
                let name = self.string()?;
                self.path.push(Step::Member(begin, self.at - 1));
                if !self.take(b':') {
                    return fault("lacking a colon");
                }
                let value = self.value()?;
                members.push((format!("s{name}"), Value::str(name), value));
                self.path.pop();
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return fault("lacking a comma or }");
                }
            }
        }
        match Map::new(members) {
            Ok(map) => Ok(Value::Map(map)),
            Err(_) => too_deep(),
        }
    }

    fn string(&mut self) -> Read<String> {
        self.at += 1;
        let mut out = String::new();
        let mut plain = self.at;
        loop {
            let Some(byte) = self.peek() else { return fault("cut short in a string") };
            match byte {
                b'"' | b'\\' => {
                    out.push_str(self.text.get(plain..self.at).unwrap_or_default());
                    if byte == b'"' {
                        break;
                    }
                    let c = self.escape()?;
                    out.push(c);
                    plain = self.at;
                    continue;
                }
                0..0x20 => return fault("holding a control character in a string"),
                _ => {}
            }
            self.at += 1;
        }
        self.at += 1;
        super::marks::note(&out, self.taken);
        Ok(out)
    }

    /// The character that an escape stands for.
    fn escape(&mut self) -> Read<char> {
        let byte = self.text.as_bytes().get(self.at + 1).copied();
        self.at += 2;
        Ok(match byte {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let first = self.unit()?;
                let is_first = (0xd800..0xdc00).contains(&first);
                let second = if is_first && self.text.get(self.at..).is_some_and(|rest| rest.starts_with("\\u")) {
                    self.at += 2;
                    Some(self.unit()?)
                } else {
                    None
                };
                let units = [first, second.unwrap_or(0)];
                let units = units.get(..1 + usize::from(second.is_some())).unwrap_or(&units);
                match char::decode_utf16(units.iter().copied()).next() {
                    Some(Ok(c)) => c,
                    _ => return fault("holding half of a surrogate pair"),
                }
            }
            _ => return fault("holding an unknown escape"),
        })
    }

    /// The four hexadecimal digits of an escape.
    fn unit(&mut self) -> Read<u16> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(unit) = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()) else {
            return fault("holding an unknown escape");
        };
        self.at += 4;
        Ok(unit)
    }

    fn digits(&mut self) -> usize {
        let begin = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - begin
    }

    fn number(&mut self) -> Read<Value> {
        let begin = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        let leads_with_zero = self.peek() == Some(b'0');
        let n_digits = self.digits();
        let mut is_float = false;
        let mut well_formed = n_digits > 0 && !(leads_with_zero && n_digits > 1);
        if self.peek() == Some(b'.') {
            self.at += 1;
            is_float = true;
            well_formed &= self.digits() > 0;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            is_float = true;
            well_formed &= self.digits() > 0;
        }
        let number = self.text.get(begin..self.at).unwrap_or_default();
        if !well_formed {
            return fault("no JSON number");
        }
        if is_float {
            return match number.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Value::Float(number)),
                _ => fault("a number beyond 64-bit floating point"),
            };
        }
        match number.parse::<i128>() {
            Ok(number) => Ok(Value::Int(number)),
            Err(_) => fault(format!("an integer of {n_digits} digits, where 128 bits are the most,")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::jinja::{Context, Limits, Meter};
    use crate::tokenizer::marks::Marks;

    fn read(text: &str) -> std::result::Result<String, String> {
        let value = super::read(text, "j", &mut BTreeSet::new()).map_err(|e| e.to_string())?;
        let (limits, marks) = (Limits::of(text.len(), 0), Marks::default());
        Ok(Context::new(Meter::new(limits), &marks, 0).repr(&value).unwrap())
    }

    #[test]
    fn values_are_read_exactly() {
        let text = r#" {"b": [1, -0, 2.5, 1e3, 18446744073709551615, true, null, "\u00e9\ud83d\ude00\n\/"], "a": {}, "b2": []} "#;
        let value = read(text).unwrap();
        let expected = "{'b': [1, 0, 2.5, 1000.0, 18446744073709551615, True, None, 'é😀\\n/'], 'a': {}, 'b2': []}";
        assert_eq!(value, expected);
        assert_eq!(read(r#"{"a": 1, "b": 2, "a": 3}"#).unwrap(), "{'a': 3, 'b': 2}");
    }

    #[test]
    fn refusals_name_the_place() {
        for (text, expected) in [
            ("", "j is cut short at byte 0 (#); expected JSON"),
            ("[1, 2", "j is lacking a comma or ] at byte 5 (#); expected JSON"),
            ("[{\"role\": \"x\", \"y\": [1, 01]}]", "j is no JSON number at byte 26 (#/0/y/1); expected JSON"),
            ("{\"a\": \"\\ud800x\"}", "j is holding half of a surrogate pair at byte 13 (#/a); expected JSON"),
            ("[nul]", "j is no JSON value at byte 1 (#/0); expected JSON"),
            ("[1] 2", "j is more text behind its end at byte 4 (#); expected JSON"),
            ("[1e999]", "j is a number beyond 64-bit floating point at byte 6 (#/0); expected JSON"),
        ] {
            assert_eq!(read(text).unwrap_err(), expected, "{text}");
        }
        let deep = format!("{}{}", "[".repeat(60), "]".repeat(60));
        assert!(read(&deep).unwrap_err().starts_with("j is nested more than 48 deep at byte 49"));
        let many = format!("[{}1]", "1,".repeat(300_000));
        assert!(read(&many).unwrap_err().starts_with("j is holding more than 200000 values at byte 3"));
        let long = format!("[{}]", "1".repeat(60));
        assert!(read(&long).unwrap_err().contains("an integer of 60 digits"), "{}", read(&long).unwrap_err());
    }

    #[test]
    fn every_cut_is_refused() {
        let text = r#"[{"role": "user", "content": [{"type": "text", "text": "a\u00e9"}], "n": -1.5e3, "t": true}]"#;
        for end in 0..text.len() {
            assert!(read(&text[..end]).is_err(), "{end}");
        }
        assert!(read(text).is_ok());
    }
}
