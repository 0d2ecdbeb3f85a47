//! Attributes, elements and slices, as Jinja's sandbox gives them.

use std::sync::Arc;

use super::context::{Context, shared};
use super::fault::{Done, Fault, raise, unsupported};
use super::value::{Loop, Missing, Object, Value, lock, range_length};

/// Methods of Python's strings.
const STRING: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];
/// Methods and attributes of numbers, which are not here.
const NUMBER: [&str; 13] = [
    "real",
    "imag",
    "numerator",
    "denominator",
    "conjugate",
    "bit_length",
    "bit_count",
    "to_bytes",
    "from_bytes",
    "as_integer_ratio",
    "is_integer",
    "hex",
    "fromhex",
];
const DICT: [&str; 6] = ["copy", "fromkeys", "get", "items", "keys", "values"];
/// What changes a map, which the sandbox refuses.
const DICT_CHANGES: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];
const LIST: [&str; 3] = ["copy", "count", "index"];
/// What changes a list, which the sandbox refuses.
const LIST_CHANGES: [&str; 8] = ["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"];
const TUPLE: [&str; 2] = ["count", "index"];

/// What Python's `getattr` finds.
fn found(context: &Context<'_>, value: &Value, name: &str) -> Done<Option<Value>> {
    let refused_attribute = || {
        let kind = short(value.kind());
        Ok(Some(Value::undefined(format!("access to attribute '{name}' of '{kind}' object is unsafe."))))
    };
    if let Value::Undefined(missing) = value {
        return raise(missing.words());
    }
    let method = || Ok(Some(Value::object(Object::Method(value.clone(), shared(name)))));
    let (methods, changes): (&[&str], &[&str]) = match value {
        Value::Str(_) | Value::Markup(_) => (&STRING, &[]),
        Value::Map(_) => (&DICT, &DICT_CHANGES),
        Value::List(_) => (&LIST, &LIST_CHANGES),
        Value::Tuple(_) => (&TUPLE, &[]),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) if NUMBER.contains(&name) => {
            return unsupported(format!("the attribute {name} of numbers"));
        }
        _ => (&[], &[]),
    };
    if methods.contains(&name) {
        return method();
    }
    if changes.contains(&name) {
        return refused_attribute();
    }
    if name.starts_with("__") && name.ends_with("__") && name.len() > 4 {
        return refused_attribute();
    }
    match value {
        Value::Object(object) => of_object(context, value, object, name),
        _ => Ok(None),
    }
}

/// An attribute of what is neither data nor text.
fn of_object(context: &Context<'_>, value: &Value, object: &Object, name: &str) -> Done<Option<Value>> {
    let method = || Ok(Some(Value::object(Object::Method(value.clone(), shared(name)))));
    match (object, name) {
        (Object::Namespace(entries), _) => {
            Ok(lock(entries).iter().find(|(n, _)| &**n == name).map(|(_, value)| value.clone()))
        }
        (Object::Loop(_), "cycle" | "changed") => method(),
        (Object::Loop(state), _) => Ok(of_loop(&lock(state), name)),
        (Object::Macro { name: own, .. }, "name") => Ok(Some(Value::Str(own.clone()))),
        (Object::Macro { parameters, .. }, "arguments") => {
            context.tuple(parameters.iter().cloned().map(Value::Str).collect()).map(Some)
        }
        (Object::Macro { .. }, "catch_kwargs" | "catch_varargs" | "caller" | "explicit_caller") => {
            unsupported(format!("the attribute {name} of macros"))
        }
        (Object::Cycler(..), "next" | "reset") | (Object::Function("dict"), "fromkeys") => method(),
        (Object::Cycler(_, state), "current") => {
            let state = lock(state);
            Ok(state.0.get(state.1).cloned())
        }
        (Object::Cycler(..), "items" | "pos") | (Object::Joiner(_), "sep" | "used") => {
            unsupported(format!("the attribute {name} of a {}", value.kind()))
        }
        (Object::Group(key, _), "grouper") => Ok(Some(key.clone())),
        (Object::Group(_, list), "list") => Ok(Some(list.clone())),
        (Object::Group(..), "index" | "count") => unsupported(format!("{name}() of a group")),
        (Object::Range { start, .. }, "start") => Ok(Some(Value::Int(*start))),
        (Object::Range { stop, .. }, "stop") => Ok(Some(Value::Int(*stop))),
        (Object::Range { step, .. }, "step") => Ok(Some(Value::Int(*step))),
        (Object::Range { .. }, "index" | "count") => unsupported(format!("{name}() of a range")),
        (Object::View(..), "mapping" | "isdisjoint") | (Object::Block(_), "super" | "name") => {
            unsupported(format!("the attribute {name} of a {}", value.kind()))
        }
        _ => Ok(None),
    }
}

fn of_loop(state: &Loop, name: &str) -> Option<Value> {
    let (at, n) = (state.index0 as i128, state.items.len() as i128);
    let number = |n| Some(Value::Int(n));
    match name {
        "index" => number(at + 1),
        "index0" => number(at),
        "revindex" => number(n - at),
        "revindex0" => number(n - at - 1),
        "first" => Some(Value::Bool(at == 0)),
        "last" => Some(Value::Bool(at + 1 == n)),
        "length" => number(n),
        "depth" => number(state.depth0 as i128 + 1),
        "depth0" => number(state.depth0 as i128),
        "previtem" => {
            let before = state.index0.checked_sub(1).and_then(|at| state.items.get(at)).cloned();
            Some(before.unwrap_or_else(|| Value::undefined("there is no previous item")))
        }
        "nextitem" => {
            let next = state.items.get(state.index0 + 1).cloned();
            Some(next.unwrap_or_else(|| Value::undefined("there is no next item")))
        }
        _ => None,
    }
}

fn short(kind: &str) -> &str {
    kind.rsplit('.').next().unwrap_or(kind)
}

/// A type's name with its module, as Jinja names what lacks something.
fn full(value: &Value) -> &'static str {
    match value.kind() {
        "Macro" => "jinja2.runtime.Macro",
        "LoopContext" => "jinja2.runtime.LoopContext",
        "BlockReference" => "jinja2.runtime.BlockReference",
        "TemplateReference" => "jinja2.runtime.TemplateReference",
        "Cycler" => "jinja2.utils.Cycler",
        "Joiner" => "jinja2.utils.Joiner",
        "_GroupTuple" => "jinja2.filters._GroupTuple",
        "Markup" => "markupsafe.Markup",
        kind => kind,
    }
}

/// What a key gives; `None` where there is nothing.
fn element(context: &Context<'_>, value: &Value, key: &Value) -> Done<Option<Value>> {
    let place = |n: usize| {
        let place = key.as_int()?;
        usize::try_from(if place < 0 { place + n as i128 } else { place }).ok().filter(|&at| at < n)
    };
    Ok(match value {
        Value::Undefined(missing) => return raise(missing.words()),
        Value::Map(map) => match context.key_text(key) {
            Ok(_) => context.get(map, key)?.cloned(),
            Err(Fault::Raised(_)) => None,
            Err(fault) => return Err(fault),
        },
        Value::List(list) | Value::Tuple(list) => place(list.items.len()).and_then(|at| list.items.get(at)).cloned(),
        Value::Str(text) | Value::Markup(text) if key.as_int().is_some() => {
            context.meter.charge(text.len())?;
            let c = place(text.chars().count()).and_then(|at| text.chars().nth(at));
            c.map(|c| Value::str(String::from(c)))
        }
        Value::Object(object) => match &**object {
            Object::Range { start, stop, step } => {
                let n = usize::try_from(range_length(*start, *stop, *step)).unwrap_or(usize::MAX);
                place(n).map(|at| Value::Int(start + at as i128 * step))
            }
            Object::Group(key, list) => match place(2) {
                Some(0) => Some(key.clone()),
                Some(_) => Some(list.clone()),
                None => None,
            },
            _ => None,
        },
        _ => None,
    })
}

/// `value.name`: an attribute, or else an element.
pub(super) fn attribute(context: &Context<'_>, value: &Value, name: &str) -> Done<Value> {
    let named = |found: Option<Value>| found.unwrap_or_else(|| missing_attribute(value, name));
    match found(context, value, name)? {
        Some(found) => Ok(found),
        None => match value {
            Value::Map(map) => {
                context.meter.charge(name.len())?;
                Ok(named(map.get_plain(name).cloned().or(context.get(map, &Value::str(name))?.cloned())))
            }
            _ => Ok(named(None)),
        },
    }
}

fn missing_attribute(value: &Value, name: &str) -> Value {
    Value::Undefined(Arc::new(Missing::Attribute(full(value), shared(name))))
}

/// `value[key]`: an element, or else an attribute.
pub(super) fn item(context: &Context<'_>, value: &Value, key: &Value) -> Done<Value> {
    if let Some(found) = element(context, value, key)? {
        return Ok(found);
    }
    if let Some(name) = key.as_str() {
        let name = context.plain(name);
        return Ok(found(context, value, &name)?.unwrap_or_else(|| missing_attribute(value, &name)));
    }
    Ok(Value::Undefined(Arc::new(Missing::Element(full(value), context.repr(key)?))))
}

/// An attribute alone, as the filter `attr` has it.
pub(super) fn attribute_only(context: &Context<'_>, value: &Value, name: &str) -> Done<Value> {
    Ok(found(context, value, name)?.unwrap_or_else(|| missing_attribute(value, name)))
}

/// The places that `[start:stop:step]` means in a sequence of n.
fn places(n: usize, start: Option<i128>, stop: Option<i128>, step: i128) -> impl Iterator<Item = usize> {
    let n = n as i128;
    // The first and the last place there may be; one before the first, going down.
    let (least, most) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let place = |bound: i128| (if bound < 0 { bound.saturating_add(n) } else { bound }).clamp(least, most);
    let (first, end) = if step > 0 { (0, n) } else { (n - 1, -1) };
    let (mut at, end) = (start.map_or(first, place), stop.map_or(end, place));
    std::iter::from_fn(move || {
        let here = usize::try_from(at).ok().filter(|_| if step > 0 { at < end } else { at > end })?;
        at = at.saturating_add(step);
        Some(here)
    })
}

/// `value[start:stop:step]`.
pub(super) fn slice(context: &Context<'_>, value: &Value, bounds: &[Value; 3]) -> Done<Value> {
    if let Value::Undefined(missing) = value {
        return raise(missing.words());
    }
    let none = || {
        let shown = bounds.iter().map(|bound| context.repr(bound)).collect::<Done<Vec<_>>>()?.join(", ");
        Ok(Value::Undefined(Arc::new(Missing::Element(full(value), format!("slice({shown})")))))
    };
    let mut read = [None; 3];
    for (slot, bound) in read.iter_mut().zip(bounds) {
        *slot = match bound {
            Value::None => None,
            bound => match bound.as_int() {
                Some(int) => Some(int),
                None => return none(),
            },
        };
    }
    let [start, stop, step] = read;
    let step = step.unwrap_or(1);
    let sliced = |items: &[Value]| {
        let taken: Vec<Value> =
            places(items.len(), start, stop, step).filter_map(|at| items.get(at).cloned()).collect();
        context.meter.make_elements(taken.len() + 1).map(|()| taken)
    };
    let is_sliced = matches!(value, Value::Str(_) | Value::Markup(_) | Value::List(_) | Value::Tuple(_));
    if is_sliced && step == 0 {
        return raise("slice step cannot be zero");
    }
    match value {
        Value::List(list) => Value::list(sliced(&list.items)?),
        Value::Tuple(list) => Value::tuple(sliced(&list.items)?),
        Value::Str(text) | Value::Markup(text) => {
            context.meter.make(text.len().saturating_mul(5))?;
            let chars: Vec<char> = text.chars().collect();
            let taken = places(chars.len(), start, stop, step).filter_map(|at| chars.get(at));
            Ok(Value::str(taken.collect::<String>()))
        }
        Value::Object(object) if matches!(**object, Object::Range { .. } | Object::Group(..)) => {
            unsupported(format!("a slice of a {}", value.kind()))
        }
        _ => none(),
    }
}

#[cfg(test)]
mod tests {
    use super::places;

    #[test]
    fn places_are_python_s() {
        let at = |start, stop, step| places(5, start, stop, step).collect::<Vec<_>>();
        assert_eq!(at(None, None, 1), [0, 1, 2, 3, 4]);
        assert_eq!(at(None, None, -1), [4, 3, 2, 1, 0]);
        assert_eq!(at(Some(2), Some(0), -1), [2, 1]);
        assert_eq!(at(Some(-2), None, 1), [3, 4]);
        assert_eq!(at(Some(-9), Some(99), 2), [0, 2, 4]);
        assert_eq!(at(Some(9), Some(-9), -2), [4, 2, 0]);
        assert!(at(Some(1), Some(3), -1).is_empty());
        assert!(at(Some(3), Some(1), 1).is_empty());
        assert_eq!(at(None, None, i128::MIN), [4]);
        assert_eq!(at(Some(i128::MIN), Some(i128::MAX), i128::MAX), [0]);
        assert_eq!(places(0, None, None, -1).count(), 0);
    }
}
