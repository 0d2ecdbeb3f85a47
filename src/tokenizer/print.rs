//! How Python prints values, which is what a template that prints a list, a map or a number shows.

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::meter::{MAX_DEPTH, Meter, Text, is_list, refused};

/// The text of `str(value)`: a string as it is, all else as `repr` has it.
pub(super) fn str(value: &Value, meter: &Meter) -> Result<String, Error> {
    let mut text = Text::new(meter);
    match value.as_str() {
        Some(string) => text.push(string)?,
        None if value.is_undefined() => {}
        None => repr(value, &mut text, meter, 0)?,
    }
    Ok(text.out)
}

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

/// A number's text.
pub(super) fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(number) if !value.is_integer() => float(number),
        _ => value.to_string(),
    }
}

fn repr(value: &Value, text: &mut Text<'_>, meter: &Meter, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(refused(format!("it prints more than {MAX_DEPTH} levels")));
    }
    meter.charge(8)?;
    match value.kind() {
        ValueKind::Undefined => text.push("Undefined"),
        ValueKind::None => text.push("None"),
        ValueKind::Bool => text.push(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => text.push(&number(value)),
        ValueKind::String => quoted(value.as_str().unwrap_or_default(), text),
        ValueKind::Map if !is_special(value) => {
            text.push("{")?;
            for (at, key) in value.try_iter()?.enumerate() {
                if at > 0 {
                    text.push(", ")?;
                }
                repr(&key, text, meter, depth + 1)?;
                text.push(": ")?;
                repr(&value.get_item(&key)?, text, meter, depth + 1)?;
            }
            text.push("}")
        }
        _ if is_list(value) => {
            text.push("[")?;
            for (at, item) in value.try_iter()?.enumerate() {
                if at > 0 {
                    text.push(", ")?;
                }
                repr(&item, text, meter, depth + 1)?;
            }
            text.push("]")
        }
        // Macros, loops and functions.
        _ => text.push(&value.to_string()),
    }
}

/// Whether a map is an object of the engine's with a text of its own.
fn is_special(value: &Value) -> bool {
    value.as_object().is_some_and(|o| o.type_name().ends_with("::Loop") || o.type_name().ends_with("::Macro"))
}

/// Python's `repr` of a string: in single quotes unless it has these and no double ones.
fn quoted(string: &str, text: &mut Text<'_>) -> Result<(), Error> {
    let quote = if string.contains('\'') && !string.contains('"') { '"' } else { '\'' };
    let mut buffer = [0; 4];
    text.push(quote.encode_utf8(&mut buffer))?;
    let mut plain = 0;
    for (at, c) in string.char_indices() {
        let escaped = match c {
            '\\' => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            c if c == quote => &format!("\\{quote}"),
            c if c < ' ' || ('\u{7f}'..='\u{a0}').contains(&c) || c == '\u{ad}' => &format!("\\x{:02x}", u32::from(c)),
            _ => continue,
        };
        text.push(string.get(plain..at).unwrap_or_default())?;
        text.push(escaped)?;
        plain = at + c.len_utf8();
    }
    text.push(string.get(plain..).unwrap_or_default())?;
    text.push(quote.encode_utf8(&mut buffer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::meter::Limits;

    #[test]
    fn values_are_printed_as_python_prints_them() {
        let meter = Meter::new(Limits::of(0, 0));
        let shown = |value: Value| str(&value, &meter).unwrap();
        assert_eq!(shown(Value::from("it's")), "it's");
        let list = ["it's", "\"", "'\"", "a\n\t\\\u{1}\u{a0}\u{e9}"].map(Value::from).to_vec();
        assert_eq!(shown(Value::from(list)), r#"["it's", '"', '\'"', 'a\n\t\\\x01\xa0é']"#);
        let map: Value = [("a", Value::from(1.0)), ("b", Value::from(vec![Value::from(())]))].into_iter().collect();
        assert_eq!(shown(map), "{'a': 1.0, 'b': [None]}");
        assert_eq!(shown(Value::from(true)), "True");
        assert_eq!(shown(Value::UNDEFINED), "");
    }

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
