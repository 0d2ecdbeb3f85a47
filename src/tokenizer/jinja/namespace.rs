//! Namespaces, the only values that change.

use std::sync::Arc;

use super::context::Context;
use super::fault::{Done, raise, unsupported};
use super::value::{Object, Value, lock};

/// Sets an attribute of a namespace.
pub(super) fn set_attribute(context: &Context<'_>, target: &Value, name: &Arc<str>, value: Value) -> Done<()> {
    let Value::Object(object) = target else { return raise("cannot assign attribute on non-namespace object") };
    let Object::Namespace(entries) = &**object else {
        return raise("cannot assign attribute on non-namespace object");
    };
    check_name(name)?;
    check_settable(context, &value)?;
    context.meter.make(64)?;
    let mut entries = lock(entries);
    match entries.iter_mut().find(|(n, _)| n == name) {
        Some(entry) => entry.1 = value,
        None => entries.push((name.clone(), value)),
    }
    Ok(())
}

/// Fails on a name that transformers' namespace refuses.
pub(super) fn check_name(name: &str) -> Done<()> {
    if name.starts_with('_') {
        return raise(format!(
            "Chat templates cannot store underscore-prefixed attributes on a namespace, but got '{name}'. Please rename \
             the attribute."
        ));
    }
    Ok(())
}

/// Fails on what would let a value contain itself.
pub(super) fn check_settable(context: &Context<'_>, value: &Value) -> Done<()> {
    context.meter.charge(8)?;
    match value {
        Value::List(list) | Value::Tuple(list) => list.items.iter().try_for_each(|item| check_settable(context, item)),
        Value::Map(map) => map.entries().iter().try_for_each(|(key, value)| {
            check_settable(context, key)?;
            check_settable(context, value)
        }),
        Value::Object(object) => match &**object {
            Object::Namespace(_) => unsupported("a namespace in a namespace"),
            Object::Loop(_) => unsupported("a loop in a namespace"),
            Object::Cycler(..) | Object::Joiner(_) | Object::Method(..) => {
                unsupported(format!("a {} in a namespace", value.kind()))
            }
            Object::View(_, map) => check_settable(context, &Value::Map(map.clone())),
            Object::Group(key, list) => {
                check_settable(context, key)?;
                check_settable(context, list)
            }
            Object::Generator(_, _, items) => {
                lock(items).iter().flatten().try_for_each(|item| check_settable(context, item))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}
