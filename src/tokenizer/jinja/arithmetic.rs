//! Python's operators of numbers, strings, lists and tuples.

use super::context::Context;
use super::fault::{Done, raise, unsupported};
use super::markup;
use super::percent;
use super::value::Value;

/// Integers up to here are the same as floating-point numbers.
const EXACT: u128 = 1 << 53;

/// A number.
#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    fn of(value: &Value) -> Option<Number> {
        match value {
            Value::Float(float) => Some(Number::Float(*float)),
            value => value.as_int().map(Number::Int),
        }
    }

    fn float(self) -> f64 {
        match self {
            Number::Int(int) => int as f64,
            Number::Float(float) => float,
        }
    }
}

fn whole(int: Option<i128>) -> Done<Value> {
    match int {
        Some(int) => Ok(Value::Int(int)),
        None => unsupported("integers beyond 128 bits"),
    }
}

fn mismatch<T>(operator: &str, a: &Value, b: &Value) -> Done<T> {
    raise(format!("unsupported operand type(s) for {operator}: '{}' and '{}'", a.kind(), b.kind()))
}

/// `a operator b`.
pub(super) fn binary(context: &Context<'_>, operator: &str, a: &Value, b: &Value) -> Done<Value> {
    if let (Value::Str(text) | Value::Markup(text), "%") = (a, operator) {
        return match a {
            Value::Markup(_) => unsupported("% of a safe string"),
            _ => percent::percent(context, text, b),
        };
    }
    for value in [a, b] {
        if let Value::Undefined(missing) = value {
            return raise(missing.words());
        }
    }
    if let (Some(x), Some(y)) = (Number::of(a), Number::of(b)) {
        return numbers(operator, x, y);
    }
    match operator {
        "+" => add(context, a, b),
        "*" => multiply(context, a, b),
        "**" => mismatch("** or pow()", a, b),
        _ => mismatch(operator, a, b),
    }
}

fn add(context: &Context<'_>, a: &Value, b: &Value) -> Done<Value> {
    match (a, b) {
        (Value::Str(x), Value::Str(y)) => {
            context.meter.make(x.len() + y.len() + 32)?;
            Ok(Value::str([&**x, &**y].concat()))
        }
        (Value::Markup(_), _) | (Value::Str(_), Value::Markup(_)) if b.as_str().is_some() => {
            let (x, y) = (markup::escaped(context, a)?, markup::escaped(context, b)?);
            Ok(Value::Markup([x, y].concat().into()))
        }
        (Value::List(x), Value::List(y)) => context.list([&x.items[..], &y.items[..]].concat()),
        (Value::Tuple(x), Value::Tuple(y)) => context.tuple([&x.items[..], &y.items[..]].concat()),
        (Value::Str(_) | Value::List(_) | Value::Tuple(_), _) => {
            let (kind, other) = (a.kind(), b.kind());
            raise(format!("can only concatenate {kind} (not \"{other}\") to {kind}"))
        }
        _ => mismatch("+", a, b),
    }
}

fn multiply(context: &Context<'_>, a: &Value, b: &Value) -> Done<Value> {
    let is_many = |v: &Value| matches!(v, Value::Str(_) | Value::Markup(_) | Value::List(_) | Value::Tuple(_));
    let (many, n) = match (is_many(a), is_many(b)) {
        (true, _) => (a, b),
        (_, true) => (b, a),
        _ => return mismatch("*", a, b),
    };
    let Some(n) = n.as_int() else {
        return raise(format!("can't multiply sequence by non-int of type '{}'", n.kind()));
    };
    let n = usize::try_from(n.max(0)).unwrap_or(usize::MAX);
    let repeated = |items: &[Value]| {
        context.meter.make_elements(items.len().saturating_mul(n).saturating_add(1))?;
        let n = if items.is_empty() { 0 } else { n };
        Ok(std::iter::repeat_n(items, n).flatten().cloned().collect::<Vec<Value>>())
    };
    match many {
        Value::List(list) => Value::list(repeated(&list.items)?),
        Value::Tuple(list) => Value::tuple(repeated(&list.items)?),
        Value::Str(text) | Value::Markup(text) => {
            context.meter.make(text.len().saturating_mul(n).saturating_add(32))?;
            let repeated = if text.is_empty() { String::new() } else { text.repeat(n) };
            Ok(if matches!(many, Value::Markup(_)) { Value::Markup(repeated.into()) } else { Value::str(repeated) })
        }
        _ => mismatch("*", a, b),
    }
}

fn numbers(operator: &str, a: Number, b: Number) -> Done<Value> {
    if let (Number::Int(a), Number::Int(b)) = (a, b) {
        return integers(operator, a, b);
    }
    let (a, b) = (a.float(), b.float());
    let zero = |what: &str| raise(format!("float {what}"));
    Ok(Value::Float(match operator {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" if b == 0.0 => return zero("division by zero"),
        "/" => a / b,
        "//" if b == 0.0 => return zero("floor division by zero"),
        "%" if b == 0.0 => return zero("modulo"),
        "//" => divided(a, b).0,
        "%" => divided(a, b).1,
        _ => return power(a, b),
    }))
}

/// Python's quotient and remainder.
fn divided(a: f64, b: f64) -> (f64, f64) {
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest != 0.0 {
        if (b < 0.0) != (rest < 0.0) {
            rest += b;
            quotient -= 1.0;
        }
    } else {
        rest = 0.0_f64.copysign(b);
    }
    if quotient == 0.0 {
        return (0.0_f64.copysign(a / b), rest);
    }
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, rest)
}

fn power(a: f64, b: f64) -> Done<Value> {
    if a == 0.0 && b < 0.0 {
        return raise("0.0 cannot be raised to a negative power");
    }
    if a < 0.0 && b.is_finite() && b.fract() != 0.0 {
        return unsupported("complex numbers");
    }
    let power = a.powf(b);
    if power.is_infinite() && a.is_finite() && b.is_finite() {
        return raise("(34, 'Numerical result out of range')");
    }
    Ok(Value::Float(power))
}

fn integers(operator: &str, a: i128, b: i128) -> Done<Value> {
    match operator {
        "+" => whole(a.checked_add(b)),
        "-" => whole(a.checked_sub(b)),
        "*" => whole(a.checked_mul(b)),
        "/" if b == 0 => raise("division by zero"),
        "/" if a.unsigned_abs().max(b.unsigned_abs()) > EXACT => unsupported("a quotient of integers beyond 2^53"),
        "/" => Ok(Value::Float(a as f64 / b as f64)),
        "//" if b == 0 => raise("integer division or modulo by zero"),
        "%" if b == 0 => raise("integer modulo by zero"),
        "//" => {
            let exact = a.checked_rem(b) == Some(0);
            let towards_zero = a.checked_div(b);
            whole(towards_zero.map(|q| if !exact && (a < 0) != (b < 0) { q - 1 } else { q }))
        }
        "%" => whole(a.checked_rem(b).or(Some(0)).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r })),
        _ if b < 0 => power(a as f64, b as f64),
        _ => match u32::try_from(b) {
            Ok(n) => whole(a.checked_pow(n)),
            Err(_) if (-1..=1).contains(&a) => whole(a.checked_pow((b % 2) as u32 + 2)),
            Err(_) => whole(None),
        },
    }
}

/// `-a` or `+a`.
pub(super) fn unary(operator: &str, value: &Value) -> Done<Value> {
    if let Value::Undefined(missing) = value {
        return raise(missing.words());
    }
    match (Number::of(value), operator) {
        (Some(Number::Int(int)), "-") => whole(int.checked_neg()),
        (Some(Number::Int(int)), _) => Ok(Value::Int(int)),
        (Some(Number::Float(float)), "-") => Ok(Value::Float(-float)),
        (Some(Number::Float(float)), _) => Ok(Value::Float(float)),
        (None, _) => raise(format!("bad operand type for unary {operator}: '{}'", value.kind())),
    }
}
