//! Python's `json.dumps(value, ensure_ascii=False)`, which chat templates mean by `tojson`.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::meter::{MAX_DEPTH, Meter, Text};
use super::print;

/// The widest indent.
const MAX_INDENT: usize = 16;

/// What Python's function takes beside the value.
pub(super) struct Style {
    indent: Option<usize>,
    ensure_ascii: bool,
    sort_keys: bool,
    /// Between elements, and behind a name.
    separators: (String, String),
}

impl Style {
    /// From a filter's arguments, of which the first may be the indent.
    pub fn new(indent: Option<usize>, kwargs: &Kwargs) -> Result<Style, Error> {
        let invalid = |reason: String| Error::new(ErrorKind::InvalidOperation, reason);
        let indent = kwargs.get::<Option<usize>>("indent")?.or(indent);
        if indent.is_some_and(|n| n > MAX_INDENT) {
            return Err(invalid(format!("tojson: indent above {MAX_INDENT}")));
        }
        let separators = match kwargs.get::<Option<Vec<String>>>("separators")?.as_deref() {
            None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
            Some([item, name]) if item.len() <= MAX_INDENT && name.len() <= MAX_INDENT => (item.clone(), name.clone()),
            Some(_) => return Err(invalid(format!("tojson: separators are two of at most {MAX_INDENT} bytes"))),
        };
        let flag = |name: &'static str| Ok::<_, Error>(kwargs.get::<Option<bool>>(name)?.unwrap_or(false));
        let style = Style { indent, ensure_ascii: flag("ensure_ascii")?, sort_keys: flag("sort_keys")?, separators };
        kwargs.assert_all_used()?;
        Ok(style)
    }
}

/// The value as JSON; with an indent, one element a line.
pub(super) fn write(value: &Value, style: Style, meter: &Meter) -> Result<String, Error> {
    let mut writer = Writer { out: Text::new(meter), meter, style };
    writer.value(value, 0)?;
    Ok(writer.out.out)
}

struct Writer<'m> {
    out: Text<'m>,
    meter: &'m Meter,
    style: Style,
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
            ValueKind::Map => self.list("{", "}", self.keys(value)?.into_iter(), depth, |writer, key| {
                match key.kind() {
                    ValueKind::None => writer.out.push("\"null\""),
                    ValueKind::Bool => writer.out.push(if key.is_true() { "\"true\"" } else { "\"false\"" }),
                    _ => writer.string(&print::str(&key, writer.meter)?),
                }?;
                writer.out.push(&writer.style.separators.1)?;
                writer.value(&value.get_item(&key)?, depth + 1)
            }),
            kind => Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: {kind} has no JSON"))),
        }
    }

    fn keys(&self, map: &Value) -> Result<Vec<Value>, Error> {
        self.meter.make_elements(map.len().unwrap_or(0))?;
        let mut keys: Vec<Value> = map.try_iter()?.collect();
        if self.style.sort_keys {
            keys.sort_by_cached_key(|key| key.to_string());
        }
        Ok(keys)
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
                self.out.push(&self.style.separators.0)?;
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
        let Some(indent) = self.style.indent else { return Ok(()) };
        self.out.push("\n")?;
        (0..depth).try_for_each(|_| self.out.push(&" ".repeat(indent)))
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        self.out.push("\"")?;
        let (mut plain, mut units) = (0, [0; 2]);
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
                c if self.style.ensure_ascii && c > '~' => {
                    let units = c.encode_utf16(&mut units).iter();
                    &units.map(|unit| format!("\\u{unit:04x}")).collect::<String>()
                }
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
