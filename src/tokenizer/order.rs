//! Jinja's filters that sort, and its test of divisibility: the template engine's own panic where an order is none
//! (numbers that are not equal and not in order, items without the attribute) and on a division by zero. And its test
//! of what can be iterated over, which is Python's here.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value, filters};

use super::meter::is_list;

/// Integers up to here are the same as floating-point numbers.
const EXACT: f64 = 9_007_199_254_740_992.0;

fn invalid(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

/// How often an element is compared, about, where n are sorted.
pub(super) fn comparisons(n: usize) -> usize {
    n.checked_ilog2().unwrap_or(0) as usize + 1
}

/// Fails unless the engine's order is one for all that is in the value.
fn check_ordered(value: &Value) -> Result<(), Error> {
    if value.is_number() {
        let number = f64::try_from(value.clone()).unwrap_or(f64::NAN);
        let kept = if value.is_integer() { number.abs() < EXACT } else { !number.is_nan() };
        return if kept { Ok(()) } else { Err(invalid("numbers beyond 2^53, or that are none, have no order")) };
    }
    let is_map = value.kind() == ValueKind::Map;
    if !is_map && !is_list(value) {
        return Ok(());
    }
    for item in value.try_iter()? {
        check_ordered(&item)?;
        if is_map {
            check_ordered(&value.get_item(&item)?)?;
        }
    }
    Ok(())
}

/// What is compared of a value.
fn key(value: Value, case_sensitive: bool) -> Result<Value, Error> {
    check_ordered(&value)?;
    match value.as_str() {
        Some(text) if !case_sensitive => Ok(Value::from(text.to_lowercase())),
        _ => Ok(value),
    }
}

/// The attribute at a path such as `a.0.b`.
fn attribute(value: &Value, path: &str) -> Result<Value, Error> {
    path.split('.').try_fold(value.clone(), |value, part| {
        let found = match part.parse::<usize>() {
            Ok(place) => value.get_item(&Value::from(place))?,
            Err(_) => value.get_attr(part)?,
        };
        if found.is_undefined() { Err(invalid("an item to be sorted lacks the attribute")) } else { Ok(found) }
    })
}

fn sorted<T>(mut items: Vec<(Value, T)>, reverse: bool) -> impl Iterator<Item = T> {
    items.sort_by(|(a, _), (b, _)| if reverse { b.cmp(a) } else { a.cmp(b) });
    items.into_iter().map(|(_, item)| item)
}

fn flag(kwargs: &Kwargs, name: &'static str) -> Result<bool, Error> {
    Ok(kwargs.get::<Option<bool>>(name)?.unwrap_or(false))
}

fn sort(value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    let (case_sensitive, reverse) = (flag(&kwargs, "case_sensitive")?, flag(&kwargs, "reverse")?);
    let paths: Option<&str> = kwargs.get("attribute")?;
    kwargs.assert_all_used()?;
    let of = |item: &Value| match paths {
        None => key(item.clone(), case_sensitive),
        Some(paths) => {
            let parts = paths.split(',').map(str::trim).filter(|path| !path.is_empty());
            let parts = parts.map(|path| key(attribute(item, path)?, case_sensitive));
            parts.collect::<Result<Vec<_>, Error>>().map(Value::from)
        }
    };
    let items = value.try_iter()?.map(|item| Ok((of(&item)?, item))).collect::<Result<Vec<_>, Error>>()?;
    Ok(Value::from(sorted(items, reverse).collect::<Vec<_>>()))
}

fn dictsort(value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    if value.kind() != ValueKind::Map {
        return Err(invalid("only a map has pairs to sort"));
    }
    let by_value = kwargs.get::<Option<&str>>("by")? == Some("value");
    let (case_sensitive, reverse) = (flag(&kwargs, "case_sensitive")?, flag(&kwargs, "reverse")?);
    kwargs.assert_all_used()?;
    let pair = |name: Value| {
        let item = value.get_item(&name)?;
        let by = key(if by_value { item.clone() } else { name.clone() }, case_sensitive)?;
        Ok((by, Value::from(vec![name, item])))
    };
    let pairs = value.try_iter()?.map(pair).collect::<Result<Vec<_>, Error>>()?;
    Ok(Value::from(sorted(pairs, reverse).collect::<Vec<_>>()))
}

fn groupby(value: Value, attribute: Option<&str>, kwargs: Kwargs) -> Result<Value, Error> {
    check_ordered(&value)?;
    filters::groupby(value, attribute, kwargs)
}

/// Whether a number is a multiple of another; nothing is one of 0.
fn is_divisibleby(value: Value, by: Value) -> bool {
    if let (true, true) = (value.is_integer(), by.is_integer()) {
        let numbers = i128::try_from(value).ok().zip(i128::try_from(by).ok());
        return numbers.and_then(|(a, b)| a.checked_rem(b)) == Some(0);
    }
    if !value.is_number() || !by.is_number() {
        return false;
    }
    let numbers = f64::try_from(value).ok().zip(f64::try_from(by).ok());
    numbers.is_some_and(|(a, b)| a % b == 0.0)
}

/// What Python iterates over, which nothing at all is not.
fn is_iterable(value: Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// Adds them to an environment.
pub(super) fn install(environment: &mut Environment<'_>) {
    environment.add_filter("sort", sort);
    environment.add_filter("dictsort", dictsort);
    environment.add_filter("groupby", groupby);
    environment.add_test("divisibleby", is_divisibleby);
    environment.add_test("iterable", is_iterable);
}
