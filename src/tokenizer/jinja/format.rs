//! Python's `str.format`.

use super::arguments::Arguments;
use super::context::Context;
use super::fault::{Done, raise, unsupported};
use super::lookup;
use super::meter::Text;
use super::spec::Spec;
use super::value::Value;

/// Fields in a field's notation, in fields: as many levels as Python has.
const LEVELS: usize = 2;

/// What fields take their values from.
struct Fields<'a, 'r> {
    context: &'a Context<'r>,
    arguments: &'a Arguments,
    /// The next field without a name; `None` once one had a number.
    next: Option<usize>,
    numbered: bool,
}

/// `str.format`, in which marks stay but in what a field's notation cuts.
pub(super) fn format(context: &Context<'_>, text: &str, arguments: &Arguments) -> Done<Value> {
    context.meter.charge(text.len())?;
    let mut fields = Fields { context, arguments, next: Some(0), numbered: false };
    let mut out = Text::new(&context.meter);
    fields.write(text, &mut out, LEVELS)?;
    Ok(Value::str(out.out))
}

impl Fields<'_, '_> {
    fn write(&mut self, text: &str, out: &mut Text<'_>, levels: usize) -> Done<()> {
        if levels == 0 {
            return raise("Max string recursion exceeded");
        }
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            out.push(rest.get(..at).unwrap_or_default())?;
            let found = rest.get(at..=at).unwrap_or_default();
            rest = rest.get(at + 1..).unwrap_or_default();
            if let Some(behind) = rest.strip_prefix(found) {
                out.push(found)?;
                rest = behind;
                continue;
            }
            if found == "}" {
                return raise("Single '}' encountered in format string");
            }
            let end = field_end(rest)?;
            let (field, behind) = rest.split_at(end);
            rest = behind.get(1..).unwrap_or_default();
            let shown = self.field(field, levels)?;
            out.push(&shown)?;
        }
        out.push(rest)
    }

    fn field(&mut self, field: &str, levels: usize) -> Done<String> {
        let name_end = name_end(field);
        let (name, rest) = field.split_at(name_end);
        let (conversion, spec) = match rest.strip_prefix('!') {
            Some(rest) => {
                let (conversion, spec) = rest.split_once(':').unwrap_or((rest, ""));
                (Some(conversion), spec)
            }
            None => (None, rest.strip_prefix(':').unwrap_or_default()),
        };
        let mut value = self.value(name)?;
        match conversion {
            None => {}
            Some("s") => value = Value::str(self.context.str(&value)?),
            Some("r") => value = Value::str(self.context.repr(&value)?),
            Some("a") => return unsupported("the conversion !a of str.format()"),
            Some("") => return raise("end of string while looking for conversion specifier"),
            Some(other) => return raise(format!("Unknown conversion specifier {other}")),
        }
        let spec = if spec.contains(['{', '}']) {
            let mut text = Text::new(&self.context.meter);
            self.write(spec, &mut text, levels - 1)?;
            text.out
        } else {
            spec.to_owned()
        };
        formatted(self.context, &value, &self.context.plain(&spec))
    }

    /// The value that a field names, such as `0`, `a.b` or `a[0]`.
    fn value(&mut self, name: &str) -> Done<Value> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let mut value = if first.is_empty() || first.bytes().all(|b| b.is_ascii_digit()) {
            let at = self.place(first)?;
            match self.arguments.positional.get(at) {
                Some(value) => value.clone(),
                None => return raise("tuple index out of range"),
            }
        } else {
            match self.arguments.named.iter().find(|(name, _)| **name == *self.context.plain(first)) {
                Some((_, value)) => value.clone(),
                None => return raise(format!("'{first}'")),
            }
        };
        while !rest.is_empty() {
            if let Some(attribute) = rest.strip_prefix('.') {
                let end = attribute.find(['.', '[']).unwrap_or(attribute.len());
                let (attribute, behind) = attribute.split_at(end);
                value = lookup::attribute(self.context, &value, &self.context.plain(attribute))?;
                rest = behind;
            } else {
                let Some((key, behind)) = rest.get(1..).and_then(|rest| rest.split_once(']')) else {
                    return raise("Missing ']' in format string");
                };
                let key = match key.parse::<i128>() {
                    Ok(place) if key.bytes().all(|b| b.is_ascii_digit()) => Value::Int(place),
                    _ => Value::str(&*self.context.plain(key)),
                };
                value = lookup::item(self.context, &value, &key)?;
                rest = behind;
            }
        }
        Ok(value)
    }

    fn place(&mut self, digits: &str) -> Done<usize> {
        if digits.is_empty() {
            if self.numbered {
                return raise("cannot switch from manual field specification to automatic field numbering");
            }
            let at = self.next.unwrap_or(0);
            self.next = Some(at + 1);
            return Ok(at);
        }
        if self.next.is_some_and(|n| n > 0) {
            return raise("cannot switch from manual field specification to automatic field numbering");
        }
        self.numbered = true;
        Ok(digits.parse().unwrap_or(usize::MAX))
    }
}

/// Where a field's name ends.
fn name_end(field: &str) -> usize {
    let mut in_key = false;
    for (at, c) in field.char_indices() {
        match c {
            '[' => in_key = true,
            ']' => in_key = false,
            '!' | ':' if !in_key => return at,
            _ => {}
        }
    }
    field.len()
}

/// Where the bracket that closes a field is.
fn field_end(text: &str) -> Done<usize> {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Ok(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    if text.is_empty() {
        raise("Single '{' encountered in format string")
    } else {
        raise("expected '}' before end of string")
    }
}

/// A value in a notation.
fn formatted(context: &Context<'_>, value: &Value, spec: &str) -> Done<String> {
    if spec.is_empty() {
        return context.str(value);
    }
    match value {
        Value::Bool(_) | Value::Int(_) => {
            let spec = Spec::read(spec, value.kind())?;
            if matches!(value, Value::Bool(_)) && spec.kind.is_none() {
                return Ok(spec.field("", &context.str(value)?, '>'));
            }
            spec.int(value.as_int().unwrap_or(0))
        }
        Value::Float(number) => Spec::read(spec, "float")?.float(*number),
        Value::Str(text) | Value::Markup(text) => {
            let spec = Spec::read(spec, "str")?;
            match spec.kind {
                None | Some('s') => {}
                Some(kind) => return raise(format!("Unknown format code '{kind}' for object of type 'str'")),
            }
            if spec.align == Some('=') && spec.fill != Some('0') {
                return raise("'=' alignment not allowed in string format specifier");
            }
            let cut: String = text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect();
            let align = if spec.align == Some('=') { '<' } else { spec.align.unwrap_or('<') };
            Ok(Spec { align: Some(align), ..spec }.field("", &cut, '<'))
        }
        value => raise(format!("unsupported format string passed to {}.__format__", value.kind())),
    }
}
