//! Python's `json.dumps(value, ensure_ascii=False)`, which chat templates mean by `tojson`.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use super::meter::{MAX_DEPTH, Meter, Text};
use super::print;

/// The widest indent.
const MAX_INDENT: usize = 16;

/// The value as JSON; with `indent`, one element a line.
pub(super) fn write(value: &Value, indent: Option<usize>, meter: &Meter) -> Result<String, Error> {
    if indent.is_some_and(|n| n > MAX_INDENT) {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: indent above {MAX_INDENT}")));
    }
    let mut writer = Writer { out: Text::new(meter), meter, indent };
    writer.value(value, 0)?;
    Ok(writer.out.out)
}

struct Writer<'m> {
    out: Text<'m>,
    meter: &'m Meter,
    indent: Option<usize>,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            let reason = format!("tojson: more than {MAX_DEPTH} levels");
            return Err(Error::new(ErrorKind::InvalidOperation, reason));
        }
        self.meter.charge(8)?;
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => self.out.push("null"),
            ValueKind::Bool => self.out.push(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                self.list("[", "]", value.try_iter()?, depth, |writer, item| writer.value(&item, depth + 1))
            }
            ValueKind::Map => self.list("{", "}", value.try_iter()?, depth, |writer, key| {
                match key.kind() {
                    ValueKind::None => writer.out.push("\"null\""),
                    ValueKind::Bool => writer.out.push(if key.is_true() { "\"true\"" } else { "\"false\"" }),
                    _ => writer.string(&print::str(&key, writer.meter)?),
                }?;
                writer.out.push(": ")?;
                writer.value(&value.get_item(&key)?, depth + 1)
            }),
            kind => Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: {kind} has no JSON"))),
        }
    }

    fn number(&mut self, value: &Value) -> Result<(), Error> {
        match f64::try_from(value.clone()) {
            Ok(number) if !number.is_finite() && !value.is_integer() => {
                let sign = if number < 0.0 { "-" } else { "" };
                self.out.push(&if number.is_nan() { "NaN".to_owned() } else { format!("{sign}Infinity") })
            }
            _ => self.out.push(&print::number(value)),
        }
    }

    fn list(
        &mut self,
        open: &str,
        close: &str,
        items: impl Iterator<Item = Value>,
        depth: usize,
        mut write: impl FnMut(&mut Self, Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open)?;
        let mut empty = true;
        for item in items {
            if !empty {
                self.out.push(if self.indent.is_some() { "," } else { ", " })?;
            }
            empty = false;
            self.line(depth + 1)?;
            write(self, item)?;
        }
        if !empty {
            self.line(depth)?;
        }
        self.out.push(close)
    }

    fn line(&mut self, depth: usize) -> Result<(), Error> {
        let Some(indent) = self.indent else { return Ok(()) };
        self.out.push("\n")?;
        (0..depth).try_for_each(|_| self.out.push(&" ".repeat(indent)))
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        self.out.push("\"")?;
        let mut plain = 0;
        for (at, c) in text.char_indices() {
            let escaped = match c {
                '"' => "\\\"",
                '\\' => "\\\\",
                '\n' => "\\n",
                '\r' => "\\r",
                '\t' => "\\t",
                '\u{8}' => "\\b",
                '\u{c}' => "\\f",
                c if c < ' ' => &format!("\\u{:04x}", u32::from(c)),
                _ => continue,
            };
            self.out.push(text.get(plain..at).unwrap_or_default())?;
            self.out.push(escaped)?;
            plain = at + c.len_utf8();
        }
        self.out.push(text.get(plain..).unwrap_or_default())?;
        self.out.push("\"")
    }
}
