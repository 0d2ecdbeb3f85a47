//! The functions of Jinja's and transformers' environments.

use std::sync::{Arc, Mutex};

use super::super::date;
use super::arguments::Arguments;
use super::context::{Context, shared};
use super::fault::{Done, raise, unsupported};
use super::namespace::{check_name, check_settable};
use super::strings::integer;
use super::value::{Object, Value, levels_above, range_length};

/// Their names.
const NAMES: [&str; 8] =
    ["range", "dict", "lipsum", "cycler", "joiner", "namespace", "raise_exception", "strftime_now"];

/// The function of a name.
pub(super) fn named(name: &str) -> Option<Value> {
    NAMES.iter().find(|known| **known == name).map(|known| Value::object(Object::Function(known)))
}

/// Calls one.
pub(super) fn call(context: &Context<'_>, name: &str, mut arguments: Arguments) -> Done<Value> {
    match name {
        "range" => range(arguments),
        "dict" => dict(context, arguments).and_then(|entries| context.map(entries)),
        "namespace" => {
            let mut entries = Vec::new();
            for (name, value) in dict(context, arguments)? {
                let Some(name) = name.as_str() else { return unsupported("a namespace with keys other than names") };
                let name = shared(&context.plain(name));
                check_name(&name)?;
                check_settable(context, &value)?;
                entries.retain(|(n, _): &(Arc<str>, Value)| *n != name);
                entries.push((name, value));
            }
            context.meter.make_elements(entries.len() + 2)?;
            Ok(Value::object(Object::Namespace(Mutex::new(entries))))
        }
        "cycler" if arguments.positional.is_empty() => raise("at least one item has to be provided"),
        "cycler" => {
            context.meter.make_elements(arguments.positional.len() + 2)?;
            let levels = levels_above(&arguments.positional)?;
            Ok(Value::object(Object::Cycler(levels, Mutex::new((arguments.positional, 0)))))
        }
        "joiner" => {
            let [separator] = arguments.bind("Joiner.__init__()", ["sep"])?;
            let separator = separator.map_or(Ok(", ".to_owned()), |separator| context.str(&separator))?;
            Ok(Value::object(Object::Joiner(Mutex::new((separator.into(), false)))))
        }
        "raise_exception" => {
            let named = arguments.take("message");
            let function = "_cached_compile_jinja_template.<locals>.raise_exception()";
            match arguments.positional.into_iter().next().or(named) {
                Some(message) => raise(context.plain(&context.str(&message)?)),
                None => raise(format!("{function} missing 1 required positional argument: 'message'")),
            }
        }
        "strftime_now" => {
            let named = arguments.take("format");
            match arguments.positional.into_iter().next().or(named) {
                Some(Value::Str(format)) => {
                    // The longest name that two bytes stand for is September.
                    context.meter.make(format.len().saturating_mul(5))?;
                    match date::strftime(&context.plain(&format), context.now) {
                        Some(text) => context.text(text),
                        None => unsupported(format!("the notation {format:?} of strftime_now")),
                    }
                }
                Some(value) => raise(format!("strftime() argument 1 must be str, not {}", value.kind())),
                None => raise(
                    "_cached_compile_jinja_template.<locals>.strftime_now() missing 1 required positional argument: 'format'",
                ),
            }
        }
        name => unsupported(format!("the function {name}")),
    }
}

fn range(arguments: Arguments) -> Done<Value> {
    let arguments = arguments.plain("range", 1, 3)?;
    let numbers = arguments.iter().map(integer).collect::<Done<Vec<_>>>()?;
    let (start, stop, step) = match numbers[..] {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [start, stop, step, ..] => (start, stop, step),
        [] => (0, 0, 1),
    };
    if step == 0 {
        return raise("range() arg 3 must not be zero");
    }
    if range_length(start, stop, step) > 100_000 {
        return raise("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
    }
    Ok(Value::object(Object::Range { start, stop, step }))
}

/// The entries that Python's `dict` makes of its arguments.
fn dict(context: &Context<'_>, arguments: Arguments) -> Done<Vec<(Value, Value)>> {
    let mut entries = Vec::new();
    if arguments.positional.len() > 1 {
        return raise(format!("dict expected at most 1 argument, got {}", arguments.positional.len()));
    }
    match arguments.positional.first() {
        None => {}
        Some(Value::Map(map)) => {
            context.meter.make_elements(map.entries().len())?;
            entries.extend_from_slice(map.entries());
        }
        Some(pairs) => {
            for (at, pair) in context.items(pairs)?.iter().enumerate() {
                match &context.items(pair)?[..] {
                    [key, value] => entries.push((key.clone(), value.clone())),
                    items => {
                        let n = items.len();
                        return raise(format!(
                            "dictionary update sequence element #{at} has length {n}; 2 is required"
                        ));
                    }
                }
            }
        }
    }
    entries.extend(arguments.named.into_iter().map(|(name, value)| (Value::Str(name), value)));
    Ok(entries)
}

/// `dict.fromkeys`.
pub(super) fn from_keys(context: &Context<'_>, arguments: Arguments) -> Done<Value> {
    let arguments = arguments.plain("fromkeys", 1, 2)?;
    let value = arguments.get(1).cloned().unwrap_or(Value::None);
    context.map(context.items(&arguments[0])?.into_iter().map(|key| (key, value.clone())).collect())
}
