//! Whether the schemas of `oneOf` hold for different values: one of them is any of them then, which is what rules can say.

use std::collections::HashSet;

use serde_json::Value;

use super::place::Place;
use crate::error::Result;

/// Pairs of schemas that are compared; of what is more nothing is known.
const MOST_PAIRS: usize = 10_000;
/// Schemas inside of each other that are looked at.
const MAX_DEPTH: usize = 4;

/// Fails where two of a place's schemas may hold for the same value, or that cannot be told.
pub(super) fn check(place: &Place<'_>, ways: &[Place<'_>]) -> Result<()> {
    // Those that list their values are many at times.
    let (mut known, mut listed, mut open) = (HashSet::new(), Vec::new(), Vec::new());
    for way in ways {
        match way.values()? {
            None => open.push(way),
            Some(values) => {
                if let Some(again) = values.iter().find(|value| !known.insert(key(value))) {
                    return place.refuse(format_args!("\"oneOf\" has the value {} more than once", again));
                }
                listed.push(way);
            }
        }
    }
    let mut n_left = MOST_PAIRS;
    for (n, a) in open.iter().enumerate() {
        for b in listed.iter().chain(open.get(n + 1..).unwrap_or_default()) {
            if !differ(a, b, 0, &mut n_left)? {
                return place.refuse(format_args!(
                    "\"oneOf\" whose schemas may hold for the same value ({} and {}) is not supported in this model's notation \
                     of arguments",
                    a.path(),
                    b.path()
                ));
            }
        }
    }
    Ok(())
}

/// The same text for equal values.
fn key(value: &Value) -> String {
    match value.as_f64() {
        Some(number) => format!("{number:e}"),
        None => value.to_string(),
    }
}

/// Whether a value may be of a type.
fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "string" => value.is_string(),
        "integer" | "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        _ => value.is_object(),
    }
}

/// Whether no value is valid under both.
fn differ(a: &Place<'_>, b: &Place<'_>, depth: usize, n_left: &mut usize) -> Result<bool> {
    if depth > MAX_DEPTH || *n_left == 0 {
        return Ok(false);
    }
    *n_left -= 1;
    for (one, other) in [(a, b), (b, a)] {
        if let Some(ways) = one.ways(&[])? {
            for way in &ways {
                if !differ(way, other, depth + 1, n_left)? {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
    }
    let (types, other_types) = (types_of(a)?, types_of(b)?);
    match (a.values()?, b.values()?) {
        (Some(values), Some(others)) => {
            let known: HashSet<String> = values.into_iter().map(key).collect();
            return Ok(!others.into_iter().any(|value| known.contains(&key(value))));
        }
        (Some(values), None) | (None, Some(values)) => {
            let of_other = if a.values()?.is_some() { &other_types } else { &types };
            let differs = |names: &Vec<&str>| !values.iter().any(|value| names.iter().any(|name| is_of(value, name)));
            return Ok(of_other.as_ref().is_some_and(differs));
        }
        (None, None) => {}
    }
    match (types, other_types) {
        (Some(types), Some(others)) if !types.iter().any(|name| others.contains(name)) => Ok(true),
        (Some(types), Some(others)) if types == ["object"] && others == ["object"] => {
            members_differ(a, b, depth, n_left)
        }
        _ => Ok(false),
    }
}

/// What values may be of, an integer being a number; none: of any type.
fn types_of<'s>(place: &Place<'s>) -> Result<Option<Vec<&'s str>>> {
    let general = |name: &'s str| if name == "integer" { "number" } else { name };
    Ok(match place.types()? {
        Some(names) => Some(names.into_iter().map(general).collect()),
        None => place.schema.get("properties").map(|_| vec!["object"]),
    })
}

/// Whether a member that both need differs, or one needs what the other must not have.
fn members_differ(a: &Place<'_>, b: &Place<'_>, depth: usize, n_left: &mut usize) -> Result<bool> {
    for (one, other) in [(a, b), (b, a)] {
        let is_closed = other.schema.get("additionalProperties") == Some(&Value::Bool(false));
        let (members, others) = (one.properties()?, other.properties()?);
        for name in one.required()?.iter().filter_map(Value::as_str) {
            let Some(schema) = members.and_then(|members| members.get(name)) else { continue };
            let other_schema = others.and_then(|others| others.get(name));
            let Some(other_schema) = other_schema else {
                if is_closed {
                    return Ok(true);
                }
                continue;
            };
            // Where the other need not have it, it may be left out.
            if !other.required()?.iter().any(|required| required == name) {
                continue;
            }
            let (one, other) = (one.member(name, schema, false)?, other.member(name, other_schema, false)?);
            match (one, other) {
                (Some(one), Some(other)) if differ(&one, &other, depth + 1, n_left)? => return Ok(true),
                (None, _) | (_, None) => return Ok(true),
                _ => {}
            }
        }
    }
    Ok(false)
}
