//! Calls of methods.

use super::arguments::Arguments;
use super::context::Context;
use super::fault::{Done, raise, unsupported};
use super::format;
use super::functions;
use super::markup;
use super::strings;
use super::value::{Object, Value, View, lock};

/// What a method of a value gives.
pub(super) fn call(context: &Context<'_>, value: &Value, method: &str, arguments: Arguments) -> Done<Value> {
    match value {
        Value::Str(text) => of_string(context, text, method, arguments),
        Value::Markup(text) => of_markup(context, text, method, arguments),
        Value::Map(map) => match method {
            "keys" | "values" | "items" => {
                arguments.none(&format!("dict.{method}"))?;
                let view = match method {
                    "keys" => View::Keys,
                    "values" => View::Values,
                    _ => View::Items,
                };
                Ok(Value::object(Object::View(view, map.clone())))
            }
            "get" => {
                let arguments = arguments.plain("get", 1, 2)?;
                let found = context.get(map, &arguments[0])?.cloned();
                Ok(found.or_else(|| arguments.get(1).cloned()).unwrap_or(Value::None))
            }
            "copy" => {
                arguments.none("dict.copy")?;
                Ok(value.clone())
            }
            _ => functions::from_keys(context, arguments),
        },
        Value::List(list) | Value::Tuple(list) => of_list(context, value, &list.items, method, arguments),
        Value::Object(object) => match &**object {
            Object::Function("dict") => functions::from_keys(context, arguments),
            object => of_object(context, object, method, arguments),
        },
        _ => unsupported(format!("the method {method} of a {}", value.kind())),
    }
}

fn of_string(context: &Context<'_>, text: &str, method: &str, arguments: Arguments) -> Done<Value> {
    match method {
        "format" => format::format(context, text, &arguments),
        "format_map" => unsupported("str.format_map()"),
        _ => match strings::call(context, text, method, arguments)? {
            Some(value) => Ok(value),
            None => unsupported(format!("str.{method}()")),
        },
    }
}

/// A safe string's: what is put into it is escaped, what comes of it is safe.
fn of_markup(context: &Context<'_>, text: &str, method: &str, mut arguments: Arguments) -> Done<Value> {
    if matches!(method, "format" | "format_map" | "join") {
        return unsupported(format!("{method}() of a safe string"));
    }
    let escapes = !matches!(
        method,
        "startswith"
            | "endswith"
            | "find"
            | "rfind"
            | "index"
            | "rindex"
            | "count"
            | "split"
            | "rsplit"
            | "partition"
            | "rpartition"
            | "splitlines"
    );
    if escapes {
        for argument in &mut arguments.positional {
            if let Value::Str(text) = argument {
                *argument = Value::str(markup::escape(context, text)?);
            }
        }
    }
    let safe = |value: &Value| match value {
        Value::Str(text) => Value::Markup(text.clone()),
        value => value.clone(),
    };
    match of_string(context, text, method, arguments)? {
        Value::List(list) => Value::list(list.items.iter().map(safe).collect()),
        Value::Tuple(list) => Value::tuple(list.items.iter().map(safe).collect()),
        value => Ok(safe(&value)),
    }
}

fn of_list(context: &Context<'_>, value: &Value, items: &[Value], method: &str, arguments: Arguments) -> Done<Value> {
    if method == "copy" {
        arguments.none("list.copy")?;
        return Ok(value.clone());
    }
    let arguments = arguments.plain(method, 1, if method == "index" { 3 } else { 1 })?;
    if arguments.len() > 1 {
        return unsupported("index() with a start");
    }
    let (mut n, mut first) = (0, None);
    for (at, item) in items.iter().enumerate() {
        if context.equal(item, &arguments[0])? {
            n += 1;
            first.get_or_insert(at);
        }
    }
    match (method, first) {
        ("count", _) => Ok(Value::Int(n)),
        (_, Some(at)) => Ok(Value::Int(at as i128)),
        (_, None) if matches!(value, Value::Tuple(_)) => raise("tuple.index(x): x not in tuple"),
        _ => raise(format!("{} is not in list", context.repr(&arguments[0])?)),
    }
}

fn of_object(context: &Context<'_>, object: &Object, method: &str, arguments: Arguments) -> Done<Value> {
    match (object, method) {
        (Object::Loop(state), "cycle") => {
            let at = lock(state).index0;
            match arguments.positional.len() {
                0 => raise("no items for cycling given"),
                n => Ok(arguments.positional.get(at % n).cloned().unwrap_or(Value::None)),
            }
        }
        (Object::Loop(state), "changed") => {
            let last = lock(state).last_changed.clone();
            let (new, old) = (Value::tuple(arguments.positional.clone())?, last.map(Value::tuple).transpose()?);
            let changed = match &old {
                Some(old) => !context.equal(old, &new)?,
                None => true,
            };
            if changed {
                arguments.positional.iter().try_for_each(|value| super::namespace::check_settable(context, value))?;
                lock(state).last_changed = Some(arguments.positional);
            }
            Ok(Value::Bool(changed))
        }
        (Object::Cycler(_, state), "next") => {
            let mut state = lock(state);
            let (at, n) = (state.1, state.0.len());
            state.1 = (at + 1) % n.max(1);
            Ok(state.0.get(at).cloned().unwrap_or(Value::None))
        }
        (Object::Cycler(_, state), _) => {
            lock(state).1 = 0;
            Ok(Value::None)
        }
        _ => unsupported(format!("the method {method}")),
    }
}
