//! Python's `json.dumps`, which chat templates mean by `tojson`: there it escapes nothing beyond ASCII unless asked to.

use super::arguments::Arguments;
use super::context::Context;
use super::fault::{Done, raise, unsupported};
use super::meter::Text;
use super::print;
use super::value::{List, Map, Object, Value};

/// The widest indent and the longest separator, in bytes.
const MAX_INDENT: usize = 64;

/// What Python's function takes beside the value.
struct Style {
    indent: Option<String>,
    ensure_ascii: bool,
    sort_keys: bool,
    /// Between elements, and behind a name.
    separators: (String, String),
}

impl Style {
    fn new(arguments: Arguments) -> Done<Style> {
        let name = "_cached_compile_jinja_template.<locals>.tojson()";
        let [ascii, indent, separators, sort] =
            arguments.bind(name, ["ensure_ascii", "indent", "separators", "sort_keys"])?;
        let indent = match indent {
            None | Some(Value::None) => None,
            Some(Value::Str(text)) => Some(text.to_string()),
            Some(value) => match value.as_int() {
                Some(n) => Some(" ".repeat(usize::try_from(n.max(0)).unwrap_or(usize::MAX).min(MAX_INDENT + 1))),
                None => return raise(format!("can't multiply sequence by non-int of type '{}'", value.kind())),
            },
        };
        if indent.as_ref().is_some_and(|indent| indent.len() > MAX_INDENT) {
            return unsupported(format!("an indent of more than {MAX_INDENT} bytes in tojson"));
        }
        let separators = match separators {
            None | Some(Value::None) => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
            Some(Value::List(list) | Value::Tuple(list)) => match &list.items[..] {
                [Value::Str(item), Value::Str(name)] if item.len().max(name.len()) <= MAX_INDENT => {
                    (item.to_string(), name.to_string())
                }
                _ => return unsupported(format!("separators in tojson other than two of at most {MAX_INDENT} bytes")),
            },
            Some(value) => return raise(format!("cannot unpack non-iterable {} object", value.kind())),
        };
        let flag = |value: Option<Value>| value.is_some_and(|value| value.is_true());
        Ok(Style { indent, ensure_ascii: flag(ascii), sort_keys: flag(sort), separators })
    }
}

/// The value as JSON; with an indent, one element a line.
pub(super) fn tojson(context: &Context<'_>, value: &Value, arguments: Arguments) -> Done<Value> {
    let mut writer = Writer { out: Text::new(&context.meter), context, style: Style::new(arguments)? };
    writer.value(value, 0)?;
    Ok(Value::str(writer.out.out))
}

struct Writer<'m> {
    out: Text<'m>,
    context: &'m Context<'m>,
    style: Style,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Done<()> {
        self.context.meter.charge(8)?;
        match value {
            Value::None => self.out.push("null"),
            Value::Bool(bool) => self.out.push(if *bool { "true" } else { "false" }),
            Value::Int(int) => self.out.push(&int.to_string()),
            Value::Float(number) => self.out.push(&number_text(*number)),
            Value::Str(text) | Value::Markup(text) => self.string(text),
            Value::List(list) | Value::Tuple(list) => self.list(list, depth),
            Value::Map(map) => self.map(map, depth),
            Value::Object(object) => match &**object {
                Object::Group(key, list) => {
                    let pair = List::new(vec![key.clone(), list.clone()])?;
                    self.list(&pair, depth)
                }
                _ => raise(format!("Object of type {} is not JSON serializable", short(value.kind()))),
            },
            Value::Undefined(_) => raise("Object of type Undefined is not JSON serializable"),
        }
    }

    fn list(&mut self, list: &List, depth: usize) -> Done<()> {
        self.out.push("[")?;
        for (at, item) in list.items.iter().enumerate() {
            self.begin_item(at, depth)?;
            self.value(item, depth + 1)?;
        }
        self.end_items(list.items.len(), depth)?;
        self.out.push("]")
    }

    fn map(&mut self, map: &Map, depth: usize) -> Done<()> {
        self.out.push("{")?;
        let mut entries: Vec<(Value, &(Value, Value))> = Vec::new();
        self.context.meter.make_elements(map.entries().len())?;
        entries.extend(map.entries().iter().map(|entry| (entry.0.clone(), entry)));
        let entries: Vec<&(Value, Value)> = if self.style.sort_keys {
            self.context.sorted(entries, false)?
        } else {
            entries.into_iter().map(|(_, entry)| entry).collect()
        };
        for (at, (key, value)) in entries.into_iter().enumerate() {
            self.begin_item(at, depth)?;
            match key {
                Value::Str(text) | Value::Markup(text) => self.string(text)?,
                Value::None => self.out.push("\"null\"")?,
                Value::Bool(bool) => self.out.push(if *bool { "\"true\"" } else { "\"false\"" })?,
                Value::Int(int) => self.out.push(&format!("\"{int}\""))?,
                Value::Float(number) => self.out.push(&format!("\"{}\"", number_text(*number)))?,
                key => {
                    let kind = key.kind();
                    return raise(format!("keys must be str, int, float, bool or None, not {kind}"));
                }
            }
            let separator = self.style.separators.1.clone();
            self.out.push(&separator)?;
            self.value(value, depth + 1)?;
        }
        self.end_items(map.entries().len(), depth)?;
        self.out.push("}")
    }

    fn begin_item(&mut self, at: usize, depth: usize) -> Done<()> {
        if at > 0 {
            self.out.push(&self.style.separators.0)?;
        }
        self.line(depth + 1)
    }

    fn end_items(&mut self, n: usize, depth: usize) -> Done<()> {
        if n > 0 { self.line(depth) } else { Ok(()) }
    }

    fn line(&mut self, depth: usize) -> Done<()> {
        let Some(indent) = &self.style.indent else { return Ok(()) };
        self.out.push("\n")?;
        (0..depth).try_for_each(|_| self.out.push(indent))
    }

    /// A string, whose marks stay.
    fn string(&mut self, text: &str) -> Done<()> {
        self.out.push("\"")?;
        let plain = self.context.plain(text);
        let mut units = [0; 2];
        for (marked, c) in text.chars().zip(plain.chars()) {
            match c {
                '"' => self.out.push("\\\"")?,
                '\\' => self.out.push("\\\\")?,
                '\n' => self.out.push("\\n")?,
                '\r' => self.out.push("\\r")?,
                '\t' => self.out.push("\\t")?,
                '\u{8}' => self.out.push("\\b")?,
                '\u{c}' => self.out.push("\\f")?,
                c if c < ' ' => self.out.push(&format!("\\u{:04x}", u32::from(c)))?,
                c if self.style.ensure_ascii && c > '~' => {
                    let units = c.encode_utf16(&mut units).iter();
                    self.out.push(&units.map(|unit| format!("\\u{unit:04x}")).collect::<String>())?;
                }
                _ => self.out.push_char(marked)?,
            }
        }
        self.out.push("\"")
    }
}

/// A type's name without its module.
fn short(kind: &str) -> &str {
    kind.rsplit('.').next().unwrap_or(kind)
}

fn number_text(number: f64) -> String {
    match number {
        number if number.is_nan() => "NaN".to_owned(),
        number if number.is_infinite() => if number < 0.0 { "-Infinity" } else { "Infinity" }.to_owned(),
        number => print::float(number),
    }
}
