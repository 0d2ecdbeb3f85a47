//! A file's metadata, kept after the file is closed.
//!
//! Scalars are kept as the text that a caller asks for; arrays as their bytes, since a vocabulary is rarely asked for
//! and its text is long.

use std::collections::HashMap;
use std::fmt::Write;

use crate::error::{Error, Result};
use crate::gguf::{Array, Gguf, OwnedArray, Value, ValueType};

enum Stored {
    Text(ValueType, Box<str>),
    Array(OwnedArray),
}

/// Keys in the order of the file, and their values.
pub(super) struct Metadata {
    entries: Vec<(Box<str>, Stored)>,
    by_key: HashMap<Box<str>, usize>,
}

impl Metadata {
    pub(super) fn of(gguf: &Gguf<'_>) -> Metadata {
        let mut entries = Vec::with_capacity(gguf.n_meta());
        let mut by_key = HashMap::with_capacity(gguf.n_meta());
        for (key, value) in gguf.meta_iter() {
            let stored = match value {
                Value::Array(array) => Stored::Array(array.into()),
                scalar => Stored::Text(scalar.value_type(), scalar.to_string().into()),
            };
            by_key.insert(key.into(), entries.len());
            entries.push((key.into(), stored));
        }
        Metadata { entries, by_key }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn key(&self, index: usize) -> Result<&str> {
        let found = self.entries.get(index);
        found.map(|(key, _)| &**key).ok_or_else(|| not_found(&format!("number {index}")))
    }

    fn find(&self, key: &str) -> Result<&Stored> {
        self.by_key.get(key).map(|i| &self.entries[*i].1).ok_or_else(|| not_found(key))
    }

    pub(super) fn value_type(&self, key: &str) -> Result<ValueType> {
        Ok(match self.find(key)? {
            Stored::Text(ty, _) => *ty,
            Stored::Array(_) => ValueType::Array,
        })
    }

    /// A string as it is, numbers in decimal, arrays as JSON.
    pub(super) fn text(&self, key: &str) -> Result<String> {
        Ok(match self.find(key)? {
            Stored::Text(_, text) => text.to_string(),
            Stored::Array(array) => json(array.view()),
        })
    }
}

fn not_found(name: &str) -> Error {
    Error::NotFound { what: "metadata key", name: name.to_owned() }
}

/// An array as JSON; numbers that JSON does not have (infinite, not a number) are null.
fn json(array: Array<'_>) -> String {
    let mut out = String::from("[");
    for (i, value) in array.values().enumerate() {
        if i > 0 {
            out.push(',');
        }
        match value {
            Value::String(text) => quote(text, &mut out),
            Value::F32(v) if !v.is_finite() => out.push_str("null"),
            Value::F64(v) if !v.is_finite() => out.push_str("null"),
            // A String takes everything.
            scalar => drop(write!(out, "{scalar}")),
        }
    }
    out.push(']');
    out
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // A String takes everything.
            c if c < ' ' => drop(write!(out, "\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Writer;

    #[test]
    fn values_read_back_as_text_and_json() {
        let mut writer = Writer::new(3);
        writer.meta("n", Value::U32(7));
        writer.meta("f", Value::F32(1e-6));
        writer.meta("b", Value::Bool(true));
        writer.meta("s", Value::String("a \"b\""));
        let floats = [Value::F32(0.1), Value::F32(f32::NAN)];
        writer.array("floats", ValueType::F32, floats);
        let texts = [Value::String("\"\\\n"), Value::String("ü")];
        writer.array("texts", ValueType::String, texts);
        let bytes = writer.to_bytes(|_, _| {});
        let meta = Metadata::of(&Gguf::from_bytes(&bytes).unwrap());
        let text = |key| meta.text(key).unwrap();
        assert_eq!([text("n"), text("f"), text("b"), text("s")], ["7", "0.000001", "true", "a \"b\""]);
        assert_eq!(text("floats"), "[0.1,null]");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text("texts")).unwrap(), ["\"\\\n", "ü"]);
        assert_eq!(meta.key(0).unwrap(), "n");
        assert_eq!(meta.key(meta.len()).unwrap_err().to_string(), "metadata key \"number 6\" not found");
        assert_eq!(meta.value_type("f").unwrap(), ValueType::F32);
        assert_eq!(meta.value_type("texts").unwrap(), ValueType::Array);
    }
}
