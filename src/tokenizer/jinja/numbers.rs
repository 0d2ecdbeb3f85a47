//! Jinja's filters of numbers.

use super::arguments::Arguments;
use super::arithmetic;
use super::context::{Context, is_space};
use super::fault::{Done, raise, unsupported};
use super::strings::integer;
use super::value::Value;

/// What a filter makes of a value.
pub(super) fn call(context: &Context<'_>, name: &str, value: &Value, arguments: Arguments) -> Done<Value> {
    match name {
        "abs" => match value {
            Value::Float(float) => Ok(Value::Float(float.abs())),
            Value::Undefined(missing) => raise(missing.words()),
            value => match value.as_int() {
                Some(int) if int < 0 => arithmetic::unary("-", &Value::Int(int)),
                Some(int) => Ok(Value::Int(int)),
                None => raise(format!("bad operand type for abs(): '{}'", value.kind())),
            },
        },
        "int" => to_int(context, value, arguments),
        "float" => {
            let [default] = arguments.bind("do_float()", ["default"])?;
            Ok(match float(context, value)? {
                Some(float) => Value::Float(float),
                None => default.unwrap_or(Value::Float(0.0)),
            })
        }
        "round" => round(context, value, arguments),
        name => unsupported(format!("the filter {name}")),
    }
}

/// The digits of a number, with underscores between them taken out; `None` where these stand elsewhere.
fn digits(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
    let misplaced = |(at, _): (usize, &str)| at == 0 || !is_digit(at - 1) || !is_digit(at + 1);
    if text.match_indices('_').any(misplaced) { None } else { Some(text.replace('_', "")) }
}

/// Python's `int` of a text.
fn int(text: &str, base: u32) -> Done<Option<i128>> {
    let text = text.trim_matches(is_space);
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !text.is_ascii() {
        return if text.chars().any(char::is_numeric) { unsupported("digits beyond ASCII") } else { Ok(None) };
    }
    let lower = text.to_ascii_lowercase();
    let prefix = match base {
        16 => "0x",
        8 => "0o",
        2 => "0b",
        _ => "",
    };
    let rest = lower.strip_prefix(prefix).unwrap_or(&lower);
    let rest = if prefix.is_empty() { rest } else { rest.strip_prefix('_').unwrap_or(rest) };
    let Some(digits) = digits(rest).filter(|d| !d.is_empty() && d.chars().all(|c| c.is_digit(base))) else {
        return Ok(None);
    };
    match i128::from_str_radix(&digits, base) {
        Ok(int) => Ok(Some(if negative { -int } else { int })),
        Err(_) => unsupported("integers beyond 128 bits"),
    }
}

/// Python's `float` of a value; `None` where it is none.
fn float(context: &Context<'_>, value: &Value) -> Done<Option<f64>> {
    match value {
        Value::Undefined(missing) => raise(missing.words()),
        Value::Float(float) => Ok(Some(*float)),
        Value::Str(text) | Value::Markup(text) => {
            context.meter.charge(text.len())?;
            let plain = context.plain(text);
            let plain = plain.trim_matches(is_space);
            if !plain.is_ascii() && plain.chars().any(char::is_numeric) {
                return unsupported("digits beyond ASCII");
            }
            Ok(digits(plain).and_then(|digits| digits.parse().ok()))
        }
        value => Ok(value.as_int().map(|int| int as f64)),
    }
}

fn to_int(context: &Context<'_>, value: &Value, arguments: Arguments) -> Done<Value> {
    let [default, base] = arguments.bind("do_int()", ["default", "base"])?;
    let base = base.as_ref().map_or(Ok(10), integer)?;
    let Some(base) = u32::try_from(base).ok().filter(|base| (2..=36).contains(base)) else {
        return unsupported(format!("the base {base} of the filter int"));
    };
    if let Some(int) = value.as_int() {
        return Ok(Value::Int(int));
    }
    if let Some(text) = value.as_str() {
        context.meter.charge(text.len())?;
        if let Some(int) = int(&context.plain(text), base)? {
            return Ok(Value::Int(int));
        }
    }
    match float(context, value)? {
        Some(float) if float.is_finite() && float.abs() < 1e38 => Ok(Value::Int(float as i128)),
        Some(float) if float.is_finite() => unsupported("integers beyond 128 bits"),
        // Of infinity Python's error is one of those that the default stands for, but for a number itself.
        Some(_) if matches!(value, Value::Float(f) if f.is_infinite()) => {
            raise("cannot convert float infinity to integer")
        }
        _ => Ok(default.unwrap_or(Value::Int(0))),
    }
}

/// A number rounded to so many digits behind the point, halves to even.
fn rounded(number: f64, precision: i128) -> f64 {
    if !number.is_finite() || precision > 330 {
        return number;
    }
    if precision >= 0 {
        return format!("{number:.*}", precision as usize).parse().unwrap_or(number);
    }
    let precision = precision.max(-400);
    let scientific = format!("{number:e}");
    let exponent = scientific.split_once('e').and_then(|(_, e)| e.parse::<i128>().ok()).unwrap_or(0);
    let digits = exponent + precision;
    if digits >= 0 {
        return format!("{number:.*e}", digits as usize).parse().unwrap_or(number);
    }
    let unit = 10.0_f64.powi(i32::try_from(-precision).unwrap_or(i32::MAX));
    if number.abs() > unit / 2.0 { unit.copysign(number) } else { 0.0_f64.copysign(number) }
}

fn round(context: &Context<'_>, value: &Value, arguments: Arguments) -> Done<Value> {
    let [precision, method] = arguments.bind("do_round()", ["precision", "method"])?;
    let precision = precision.as_ref().map_or(Ok(0), integer)?;
    let method = match method.as_ref().map(|method| method.as_str().map(|method| context.plain(method))) {
        None => "common".into(),
        Some(Some(method)) if ["common", "ceil", "floor"].contains(&&*method) => method,
        Some(_) => return raise("method must be common, ceil or floor"),
    };
    if let Value::Undefined(missing) = value {
        return raise(missing.words());
    }
    let is_number = matches!(value, Value::Float(_)) || value.as_int().is_some();
    if !is_number && method == "common" {
        return raise(format!("type {} doesn't define __round__ method", value.kind()));
    }
    if method == "common" {
        return match (value, value.as_int()) {
            (Value::Float(float), _) => Ok(Value::Float(rounded(*float, precision))),
            (_, Some(int)) if precision >= 0 => Ok(Value::Int(int)),
            _ => unsupported("rounding an integer to tens"),
        };
    }
    let Ok(power) = i32::try_from(precision) else { return unsupported(format!("rounding to {precision} digits")) };
    let scale = Value::Int(10_i128.checked_pow(power.unsigned_abs()).unwrap_or(i128::MAX));
    let scale = if power < 0 { arithmetic::binary(context, "/", &Value::Int(1), &scale)? } else { scale };
    let scaled = match arithmetic::binary(context, "*", value, &scale)? {
        Value::Float(float) if !float.is_finite() || float.abs() > 1e38 => {
            return unsupported("rounding so large a number");
        }
        Value::Float(float) => Value::Int(if method == "ceil" { float.ceil() } else { float.floor() } as i128),
        Value::Int(int) => Value::Int(int),
        value => return raise(format!("must be real number, not {}", value.kind())),
    };
    arithmetic::binary(context, "/", &scaled, &scale)
}
