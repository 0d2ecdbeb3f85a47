//! Jinja's tests.

use std::sync::Arc;

use super::arguments::Arguments;
use super::arithmetic;
use super::classes;
use super::context::Context;
use super::fault::{Done, raise, unsupported};
use super::names;
use super::value::{Object, Value};

/// What a test says of a value.
pub(super) fn call(context: &Context<'_>, name: &str, value: &Value, arguments: Arguments) -> Done<bool> {
    context.meter.charge(8)?;
    let operator = match name {
        "==" | "eq" | "equalto" => "==",
        "!=" | "ne" => "!=",
        ">" | "gt" | "greaterthan" => ">",
        ">=" | "ge" => ">=",
        "<" | "lt" | "lessthan" => "<",
        "<=" | "le" => "<=",
        "in" => "in",
        _ => "",
    };
    if !operator.is_empty() || matches!(name, "divisibleby" | "sameas") {
        let function = if operator.is_empty() { format!("test_{name}()") } else { operator.to_owned() };
        let mut arguments = arguments.positional.into_iter();
        let (Some(other), None) = (arguments.next(), arguments.next()) else {
            return raise(format!("{function} expected 2 arguments"));
        };
        return match name {
            "divisibleby" => {
                let rest = arithmetic::binary(context, "%", value, &other)?;
                context.equal(&rest, &Value::Int(0))
            }
            "sameas" => same(context, value, &other),
            _ => context.compare(operator, value, &other),
        };
    }
    if let Some(extra) = arguments.positional.len().checked_sub(1) {
        return raise(format!("test_{name}() takes 1 positional argument but {} were given", extra + 2));
    }
    match name {
        "odd" | "even" => {
            let rest = arithmetic::binary(context, "%", value, &Value::Int(2))?;
            context.equal(&rest, &Value::Int(i128::from(name == "odd")))
        }
        "lower" | "upper" => {
            let text = context.str(value)?;
            let text = context.plain(&text);
            Ok(classes::is(context, &text, if name == "lower" { "islower" } else { "isupper" })?.unwrap_or(false))
        }
        "filter" => Ok(value.as_str().is_some_and(|name| names::is_filter(&context.plain(name)))),
        "test" => Ok(value.as_str().is_some_and(|name| names::is_test(&context.plain(name)))),
        name => Ok(kind(name, value)),
    }
}

/// Tests of what kind a value is.
fn kind(name: &str, value: &Value) -> bool {
    let object = match value {
        Value::Object(object) => Some(&**object),
        _ => None,
    };
    match name {
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_)),
        "string" => value.as_str().is_some(),
        "escaped" => matches!(value, Value::Markup(_)),
        "mapping" => matches!(value, Value::Map(_)),
        "sequence" => match object {
            Some(object) => matches!(object, Object::Range { .. } | Object::Group(..)),
            None => !matches!(value, Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_)),
        },
        "iterable" => match object {
            Some(object) => matches!(
                object,
                Object::Range { .. } | Object::Group(..) | Object::View(..) | Object::Generator(..) | Object::Loop(_)
            ),
            None => !matches!(value, Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_)),
        },
        "callable" => match object {
            Some(object) => matches!(
                object,
                Object::Macro { .. }
                    | Object::Loop(_)
                    | Object::Function(_)
                    | Object::Method(..)
                    | Object::Block(_)
                    | Object::Joiner(_)
            ),
            None => value.is_undefined(),
        },
        _ => false,
    }
}

/// Python's `is`, where it can be told here.
fn same(context: &Context<'_>, a: &Value, b: &Value) -> Done<bool> {
    match (a, b) {
        (Value::None, Value::None) => Ok(true),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Object(a), Value::Object(b)) => Ok(Arc::ptr_eq(a, b)),
        // Python keeps one of each small integer.
        (Value::Int(a), Value::Int(b)) if a != b || (-5..=256).contains(a) => Ok(a == b),
        _ if a.kind() != b.kind() || !context.equal(a, b)? => Ok(false),
        _ => unsupported(format!("sameas between equal values of type {}", a.kind())),
    }
}
