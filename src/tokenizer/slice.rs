//! Python's slices and ranges, which the template engine computes with arithmetic that overflows.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use super::meter::{Meter, is_list};

/// Elements that a range may have.
const MAX_RANGE: i128 = 100_000;

fn invalid(reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

/// A bound, where there is one.
fn bound(value: &Value) -> Result<Option<i128>, Error> {
    match value.kind() {
        ValueKind::None | ValueKind::Undefined => Ok(None),
        ValueKind::Number | ValueKind::Bool if !value.is_number() || value.is_integer() => {
            i128::try_from(value.clone()).map(Some)
        }
        kind => Err(invalid(format!("a slice has a bound of type {kind}"))),
    }
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

/// A part of a text or list, as Python has it.
pub(super) fn slice(value: &Value, start: &Value, stop: &Value, step: &Value, meter: &Meter) -> Result<Value, Error> {
    let (start, stop, step) = (bound(start)?, bound(stop)?, bound(step)?.unwrap_or(1));
    if step == 0 {
        return Err(invalid("a slice has a step of 0"));
    }
    if let Some(text) = value.as_str() {
        meter.make(text.len())?;
        if step == 1 {
            // Without a list of the characters.
            let n = text.chars().count();
            let range: Vec<usize> = places(n, start, stop, 1).take(1).collect();
            let len = places(n, start, stop, 1).count();
            return Ok(Value::from(text.chars().skip(*range.first().unwrap_or(&0)).take(len).collect::<String>()));
        }
        meter.make(text.len().saturating_mul(size_of::<char>()))?;
        let chars: Vec<char> = text.chars().collect();
        return Ok(Value::from(
            places(chars.len(), start, stop, step).filter_map(|at| chars.get(at)).collect::<String>(),
        ));
    }
    if matches!(value.kind(), ValueKind::None | ValueKind::Undefined) {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    if !is_list(value) {
        return Err(invalid(format!("value of type {} cannot be sliced", value.kind())));
    }
    meter.make_elements(value.len().unwrap_or(0))?;
    let items: Vec<Value> = value.try_iter()?.collect();
    Ok(Value::from(places(items.len(), start, stop, step).filter_map(|at| items.get(at).cloned()).collect::<Vec<_>>()))
}

/// Python's `range`, as a list.
pub(super) fn range(from: i64, to: i64, step: i64, meter: &Meter) -> Result<Value, Error> {
    let (from, to, step) = (i128::from(from), i128::from(to), i128::from(step));
    if step == 0 {
        return Err(invalid("range() has a step of 0"));
    }
    let span = if step > 0 { to - from } else { from - to };
    let n = (span.max(0) + step.abs() - 1) / step.abs();
    if n > MAX_RANGE {
        return Err(invalid(format!("range() has {n} elements; the most are {MAX_RANGE}")));
    }
    meter.make_elements(n as usize)?;
    Ok(Value::from((0..n).map(|i| Value::from((from + i * step) as i64)).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
