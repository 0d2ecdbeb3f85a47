//! A file's metadata, kept after the file is closed.
//!
//! Scalars are kept as the text that a caller asks for; arrays as their bytes, since a vocabulary is rarely asked for
//! and its text is long.

use std::fmt::{self, Write};

use crate::alloc::reserve;
use crate::error::{Error, Result};
use crate::gguf::{Array, Gguf, OwnedArray, Value, ValueType};

enum Stored {
    Text(ValueType, String),
    Array(OwnedArray),
}

/// Keys in the order of the file, and their values.
pub(super) struct Metadata {
    entries: Vec<(String, Stored)>,
    /// Indices of `entries`, by key.
    by_key: Vec<u32>,
}

impl Metadata {
    /// Fails with `OutOfMemory`.
    pub(super) fn of(gguf: &Gguf<'_>) -> Result<Metadata> {
        let (mut entries, mut by_key) = (Vec::new(), Vec::new());
        reserve(&mut entries, gguf.n_meta())?;
        reserve(&mut by_key, gguf.n_meta())?;
        for (i, (key, value)) in gguf.meta_iter().enumerate() {
            let stored = match value {
                Value::Array(array) => Stored::Array(OwnedArray::of(array)?),
                Value::String(text) => Stored::Text(ValueType::String, Text::of(format_args!("{text}"))?),
                scalar => Stored::Text(scalar.value_type(), Text::of(format_args!("{scalar}"))?),
            };
            entries.push((Text::of(format_args!("{key}"))?, stored));
            by_key.push(i as u32);
        }
        // No two keys are equal.
        by_key.sort_unstable_by(|&a, &b| entries[a as usize].0.cmp(&entries[b as usize].0));
        Ok(Metadata { entries, by_key })
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn key(&self, index: usize) -> Result<&str> {
        let found = self.entries.get(index);
        found.map(|(key, _)| key.as_str()).ok_or_else(|| not_found(&format!("number {index}")))
    }

    fn find(&self, key: &str) -> Result<&Stored> {
        let at = self.by_key.binary_search_by(|&i| self.entries[i as usize].0.as_str().cmp(key));
        at.map(|at| &self.entries[self.by_key[at] as usize].1).map_err(|_| not_found(key))
    }

    pub(super) fn value_type(&self, key: &str) -> Result<ValueType> {
        Ok(match self.find(key)? {
            Stored::Text(ty, _) => *ty,
            Stored::Array(_) => ValueType::Array,
        })
    }

    /// A string as it is, numbers in decimal, arrays as JSON. Fails with `NotFound` or `OutOfMemory`.
    pub(super) fn text(&self, key: &str) -> Result<String> {
        Ok(match self.find(key)? {
            Stored::Text(_, text) => Text::of(format_args!("{text}"))?,
            Stored::Array(array) => json(array.view())?,
        })
    }
}

fn not_found(name: &str) -> Error {
    Error::NotFound { what: "metadata key", name: name.to_owned() }
}

/// An array as JSON; numbers that JSON does not have (infinite, not a number) are null.
fn json(array: Array<'_>) -> Result<String> {
    Text::of(Json(array))
}

struct Json<'a>(Array<'a>);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        for (i, value) in self.0.values().enumerate() {
            if i > 0 {
                f.write_char(',')?;
            }
            match value {
                Value::String(text) => quote(text, f)?,
                Value::F32(v) if !v.is_finite() => f.write_str("null")?,
                Value::F64(v) if !v.is_finite() => f.write_str("null")?,
                scalar => write!(f, "{scalar}")?,
            }
        }
        f.write_char(']')
    }
}

fn quote(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            c if c < ' ' => write!(f, "\\u{:04x}", c as u32)?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// A text that grows while there is memory.
struct Text(String);

impl Text {
    /// What a value prints. Fails with `OutOfMemory`.
    fn of(value: impl fmt::Display) -> Result<String> {
        let mut text = Text(String::new());
        let failed = write!(text, "{value}").is_err();
        let requested = 2 * text.0.len() as u64;
        if failed { Err(Error::OutOfMemory { place: "host".into(), requested, free: 0 }) } else { Ok(text.0) }
    }
}

impl Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0.try_reserve(part.len()).map_err(|_| fmt::Error)?;
        self.0.push_str(part);
        Ok(())
    }
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
        let meta = Metadata::of(&Gguf::from_bytes(&bytes).unwrap()).unwrap();
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
