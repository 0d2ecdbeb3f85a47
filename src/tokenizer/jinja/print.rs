//! How Python prints values, which is what a template that prints a list, a map or a number shows.

use super::context::{Class, Context};
use super::fault::{Done, unsupported};
use super::meter::Text;
use super::value::{Object, Value, View, lock};

/// Python's `repr` of a floating-point number.
pub(super) fn float(number: f64) -> String {
    if !number.is_finite() {
        let sign = if number < 0.0 { "-" } else { "" };
        return if number.is_nan() { "nan".to_owned() } else { format!("{sign}inf") };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if number != 0.0 && !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        // In the range that is left it writes no exponent.
        _ => {
            let plain = number.to_string();
            if plain.contains('.') { plain } else { format!("{plain}.0") }
        }
    }
}

impl Context<'_> {
    /// Python's `str` of a value.
    pub fn str(&self, value: &Value) -> Done<String> {
        let mut text = Text::new(&self.meter);
        match value {
            Value::Str(string) | Value::Markup(string) => text.push(string)?,
            Value::Undefined(_) => {}
            _ => self.write(value, &mut text)?,
        }
        Ok(text.out)
    }

    /// Python's `repr` of a value.
    pub fn repr(&self, value: &Value) -> Done<String> {
        let mut text = Text::new(&self.meter);
        self.write(value, &mut text)?;
        Ok(text.out)
    }

    /// Recursion as deep as values are: at most 64 levels of data (`value::MAX_LEVELS`, which whatever makes a list, a map or a view of one
    /// holds) around a namespace, and 64 in it, which has none inside (`namespace::check_settable`).
    fn write(&self, value: &Value, text: &mut Text<'_>) -> Done<()> {
        self.meter.charge(8)?;
        match value {
            Value::Undefined(_) => text.push("Undefined"),
            Value::None => text.push("None"),
            Value::Bool(bool) => text.push(if *bool { "True" } else { "False" }),
            Value::Int(int) => text.push(&int.to_string()),
            Value::Float(number) => text.push(&float(*number)),
            Value::Str(string) => self.write_quoted(string, text),
            Value::Markup(string) => {
                text.push("Markup(")?;
                self.write_quoted(string, text)?;
                text.push(")")
            }
            Value::List(list) => self.write_items("[", list.items.iter(), "]", text),
            Value::Tuple(list) => self.write_tuple(&list.items, text),
            Value::Map(map) => self.write_entries(map.entries(), text),
            Value::Object(object) => self.write_object(value, object, text),
        }
    }

    fn write_items<'v>(
        &self,
        open: &str,
        items: impl Iterator<Item = &'v Value>,
        close: &str,
        text: &mut Text<'_>,
    ) -> Done<()> {
        text.push(open)?;
        for (at, item) in items.enumerate() {
            if at > 0 {
                text.push(", ")?;
            }
            self.write(item, text)?;
        }
        text.push(close)
    }

    fn write_tuple(&self, items: &[Value], text: &mut Text<'_>) -> Done<()> {
        self.write_items("(", items.iter(), if items.len() == 1 { ",)" } else { ")" }, text)
    }

    fn write_entries(&self, entries: &[(Value, Value)], text: &mut Text<'_>) -> Done<()> {
        text.push("{")?;
        for (at, (key, value)) in entries.iter().enumerate() {
            if at > 0 {
                text.push(", ")?;
            }
            self.write(key, text)?;
            text.push(": ")?;
            self.write(value, text)?;
        }
        text.push("}")
    }

    fn write_object(&self, value: &Value, object: &Object, text: &mut Text<'_>) -> Done<()> {
        match object {
            Object::Namespace(entries) => {
                let entries: Vec<_> =
                    lock(entries).iter().map(|(name, value)| (Value::Str(name.clone()), value.clone())).collect();
                text.push("<Namespace ")?;
                self.write_entries(&entries, text)?;
                text.push(">")
            }
            Object::Macro { name, .. } => {
                text.push("<Macro ")?;
                self.write_quoted(name, text)?;
                text.push(">")
            }
            Object::Loop(state) => {
                let shown = {
                    let state = lock(state);
                    format!("<LoopContext {}/{}>", state.index0 + 1, state.items.len())
                };
                text.push(&shown)
            }
            Object::Range { start, stop, step: 1 } => text.push(&format!("range({start}, {stop})")),
            Object::Range { start, stop, step } => text.push(&format!("range({start}, {stop}, {step})")),
            Object::View(View::Keys, map) => {
                self.write_items("dict_keys([", map.entries().iter().map(|(key, _)| key), "])", text)
            }
            Object::View(View::Values, map) => {
                self.write_items("dict_values([", map.entries().iter().map(|(_, value)| value), "])", text)
            }
            Object::View(View::Items, map) => {
                text.push("dict_items([")?;
                for (at, (key, value)) in map.entries().iter().enumerate() {
                    if at > 0 {
                        text.push(", ")?;
                    }
                    self.write_items("(", [key, value].into_iter(), ")", text)?;
                }
                text.push("])")
            }
            Object::Group(key, list) => self.write_items("(", [key, list].into_iter(), ")", text),
            // Python shows where it lies in memory.
            _ => unsupported(format!("printing a {}", value.kind())),
        }
    }

    /// Python's `repr` of a string: in single quotes unless it has these and no double ones. Marks stay.
    fn write_quoted(&self, string: &str, text: &mut Text<'_>) -> Done<()> {
        let plain = self.plain(string);
        let quote = if plain.contains('\'') && !plain.contains('"') { '"' } else { '\'' };
        text.push_char(quote)?;
        for (marked, c) in string.chars().zip(plain.chars()) {
            match c {
                '\\' => text.push("\\\\"),
                '\n' => text.push("\\n"),
                '\r' => text.push("\\r"),
                '\t' => text.push("\\t"),
                c if c == quote => text.push(&format!("\\{quote}")),
                c if c == ' ' || !self.is(Class::Hidden, c) => text.push_char(marked),
                c => {
                    let number = u32::from(c);
                    text.push(&match number {
                        0..0x100 => format!("\\x{number:02x}"),
                        0x100..0x1_0000 => format!("\\u{number:04x}"),
                        _ => format!("\\U{number:08x}"),
                    })
                }
            }?;
        }
        text.push_char(quote)
    }
}

#[cfg(test)]
mod tests {
    use super::float;

    #[test]
    fn numbers_are_python_s() {
        for (number, text) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-0.0, "-0.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e22, "1.5e+22"),
            (0.0001, "0.0001"),
            (0.00001234, "1.234e-05"),
            (5e-324, "5e-324"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(float(number), text);
        }
    }
}
