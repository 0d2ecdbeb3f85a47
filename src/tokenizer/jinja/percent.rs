//! Python's `%` over strings.

use super::context::Context;
use super::fault::{Done, raise, unsupported};
use super::meter::Text;
use super::spec::{Spec, number};
use super::value::{Map, Value};

/// What `%` fills in.
enum Filling<'v> {
    Items(std::slice::Iter<'v, Value>),
    Map(&'v Map),
    One(Option<&'v Value>),
}

impl<'v> Filling<'v> {
    fn next(&mut self) -> Done<&'v Value> {
        let next = match self {
            Filling::Items(items) => items.next(),
            Filling::One(value) => value.take(),
            Filling::Map(_) => None,
        };
        match next {
            Some(value) => Ok(value),
            None => raise("not enough arguments for format string"),
        }
    }
}

/// Python's `%` of a string.
pub(super) fn percent(context: &Context<'_>, text: &str, value: &Value) -> Done<Value> {
    context.meter.charge(text.len())?;
    let mut filling = match value {
        Value::Tuple(list) => Filling::Items(list.items.iter()),
        Value::Map(map) => Filling::Map(map),
        value => Filling::One(Some(value)),
    };
    let mut out = Text::new(&context.meter);
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push(rest.get(..at).unwrap_or_default())?;
        rest = rest.get(at + 1..).unwrap_or_default();
        let shown = conversion(context, text, value, &mut filling, &mut rest)?;
        out.push(&shown)?;
    }
    out.push(rest)?;
    let all = match &filling {
        Filling::Items(items) => items.len() == 0,
        Filling::One(value) => value.is_none() || matches!(value, Some(Value::List(_) | Value::Object(_))),
        Filling::Map(_) => true,
    };
    if all { Ok(Value::str(out.out)) } else { raise("not all arguments converted during string formatting") }
}

/// One conversion behind its `%`, which is taken off.
fn conversion<'v>(
    context: &Context<'_>,
    text: &str,
    whole: &'v Value,
    filling: &mut Filling<'v>,
    rest: &mut &str,
) -> Done<String> {
    let mut value = None;
    if let Some(named) = rest.strip_prefix('(') {
        let Some((name, behind)) = named.split_once(')') else { return raise("incomplete format key") };
        let Filling::Map(map) = filling else { return raise("format requires a mapping") };
        *rest = behind;
        let name = context.plain(name);
        match context.get(map, &Value::str(&*name))? {
            Some(found) => value = Some(found.clone()),
            None => return raise(format!("'{name}'")),
        }
    }
    let (mut spec, left, zero) = flags(rest)?;
    let Some(kind) = rest.chars().next() else { return raise("incomplete format") };
    let at = text.chars().count() - rest.chars().count();
    *rest = rest.get(kind.len_utf8()..).unwrap_or_default();
    if kind == '%' {
        return Ok("%".to_owned());
    }
    let value = match (value, &filling) {
        (Some(value), _) => value,
        (None, Filling::Map(_)) => whole.clone(),
        (None, _) => filling.next()?.clone(),
    };
    spec.kind = Some(kind);
    let zero = zero && !left && !matches!(kind, 's' | 'r' | 'a' | 'c');
    if zero {
        spec.fill = Some('0');
    }
    spec.align = Some(if left {
        '<'
    } else if zero {
        '='
    } else {
        '>'
    });
    match kind {
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => number_field(&spec, kind, &value),
        's' | 'r' => {
            let shown = if kind == 's' { context.str(&value)? } else { context.repr(&value)? };
            let cut: String = shown.chars().take(spec.precision.unwrap_or(usize::MAX)).collect();
            Ok(spec.field("", &cut, '>'))
        }
        'c' => match &value {
            Value::Str(text) if text.chars().count() == 1 => Ok(spec.field("", text, '>')),
            value => match value.as_int() {
                Some(int) => spec.int(int),
                None => raise("%c requires int or char"),
            },
        },
        'a' => unsupported("the conversion %a"),
        kind => {
            let code = u32::from(kind);
            raise(format!("unsupported format character '{kind}' (0x{code:x}) at index {at}"))
        }
    }
}

/// A conversion's flags, width and precision, which are taken off; whether it is left-aligned, and whether it asks for zeros.
fn flags(rest: &mut &str) -> Done<(Spec, bool, bool)> {
    let mut spec = Spec::default();
    let end = rest.find(|c| !"#0- +".contains(c)).unwrap_or(rest.len());
    let (flags, behind) = rest.split_at(end);
    *rest = behind;
    spec.alternate = flags.contains('#');
    spec.sign = if flags.contains('+') { Some('+') } else { flags.contains(' ').then_some(' ') };
    if rest.starts_with('*') {
        return unsupported("a width from the arguments of %");
    }
    spec.width = number(rest)?.unwrap_or(0);
    if let Some(behind) = rest.strip_prefix('.') {
        *rest = behind;
        spec.precision = Some(number(rest)?.unwrap_or(0));
    }
    *rest = rest.trim_start_matches(['h', 'l', 'L']);
    Ok((spec, flags.contains('-'), flags.contains('0')))
}

/// A number in its field.
fn number_field(spec: &Spec, kind: char, value: &Value) -> Done<String> {
    match kind {
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' => match (value, kind) {
            (Value::Float(number), 'd' | 'i' | 'u') if number.is_finite() && number.abs() < 1e38 => {
                spec.int(*number as i128)
            }
            (value, _) => match value.as_int() {
                Some(int) => spec.int(int),
                None if matches!(kind, 'd' | 'i' | 'u') => {
                    raise(format!("%{kind} format: a real number is required, not {}", value.kind()))
                }
                None => raise(format!("%{kind} format: an integer is required, not {}", value.kind())),
            },
        },
        _ => match value {
            Value::Float(number) => spec.float(*number),
            value => match value.as_int() {
                Some(int) => spec.float(int as f64),
                None => raise(format!("must be real number, not {}", value.kind())),
            },
        },
    }
}
