//! Python's comparisons.

use std::cmp::Ordering;

use super::context::Context;
use super::fault::{Done, Fault, raise, unsupported};
use super::value::{Object, Value};

/// The items of a list, tuple or group.
fn sequence(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::List(list) | Value::Tuple(list) => Some(list.items.clone()),
        Value::Object(object) => match &**object {
            Object::Group(key, list) => Some(vec![key.clone(), list.clone()]),
            _ => None,
        },
        _ => None,
    }
}

fn is_tuple(value: &Value) -> bool {
    matches!(value, Value::Tuple(_)) || matches!(value, Value::Object(o) if matches!(**o, Object::Group(..)))
}

/// An integer and a floating-point number, compared exactly.
fn mixed(int: i128, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    if float.abs() >= 1e38 {
        return Some(if float > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let whole = float.trunc();
    Some(int.cmp(&(whole as i128)).then(0.0_f64.partial_cmp(&(float - whole)).unwrap_or(Ordering::Equal)))
}

/// Two numbers compared; `None` where one is none, `Some(None)` where there is no order.
fn numbers(a: &Value, b: &Value) -> Option<Option<Ordering>> {
    Some(match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Float(a), b) => mixed(b.as_int()?, *a).map(Ordering::reverse),
        (a, Value::Float(b)) => mixed(a.as_int()?, *b),
        (a, b) => Some(a.as_int()?.cmp(&b.as_int()?)),
    })
}

impl Context<'_> {
    /// Python's `==`.
    pub fn equal(&self, a: &Value, b: &Value) -> Done<bool> {
        self.meter.charge(8)?;
        if let Some(order) = numbers(a, b) {
            return Ok(order == Some(Ordering::Equal));
        }
        if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
            self.meter.charge(a.len().min(b.len()))?;
            return Ok(a == b || self.plain(a) == self.plain(b));
        }
        match (a, b) {
            (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => Ok(true),
            (Value::Map(a), Value::Map(b)) => {
                if a.entries().len() != b.entries().len() {
                    return Ok(false);
                }
                for (key, value) in a.entries() {
                    let same = match self.get(b, key)? {
                        Some(other) => self.equal(value, other)?,
                        None => false,
                    };
                    if !same {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::List(_), Value::List(_)) => self.equal_items(a, b),
            (a, b) if is_tuple(a) && is_tuple(b) => self.equal_items(a, b),
            (Value::Object(a), Value::Object(b)) => Ok(std::sync::Arc::ptr_eq(a, b)),
            _ => Ok(false),
        }
    }

    fn equal_items(&self, a: &Value, b: &Value) -> Done<bool> {
        let (Some(a), Some(b)) = (sequence(a), sequence(b)) else { return Ok(false) };
        self.meter.charge(8 * (a.len() + b.len()))?;
        if a.len() != b.len() {
            return Ok(false);
        }
        for (a, b) in a.iter().zip(&b) {
            if !self.equal(a, b)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The order of two values for one of Python's operators, which fails where there is none; `None`: numbers that are none.
    pub fn order(&self, operator: &str, a: &Value, b: &Value) -> Done<Option<Ordering>> {
        self.meter.charge(8)?;
        if let Value::Undefined(missing) = a {
            return raise(missing.words());
        }
        if let Value::Undefined(missing) = b {
            return raise(missing.words());
        }
        if let Some(order) = numbers(a, b) {
            return Ok(order);
        }
        if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
            self.meter.charge(a.len() + b.len())?;
            return Ok(Some(self.plain(a).chars().cmp(self.plain(b).chars())));
        }
        let alike = matches!((a, b), (Value::List(_), Value::List(_))) || (is_tuple(a) && is_tuple(b));
        if let (true, Some(x), Some(y)) = (alike, sequence(a), sequence(b)) {
            self.meter.charge(8 * (x.len() + y.len()))?;
            for (x, y) in x.iter().zip(&y) {
                if !self.equal(x, y)? {
                    return self.order(operator, x, y);
                }
            }
            return Ok(Some(x.len().cmp(&y.len())));
        }
        let (a, b) = (a.kind(), b.kind());
        raise(format!("'{operator}' not supported between instances of '{a}' and '{b}'"))
    }

    /// One of Python's comparisons.
    pub fn compare(&self, operator: &str, a: &Value, b: &Value) -> Done<bool> {
        Ok(match operator {
            "==" => self.equal(a, b)?,
            "!=" => !self.equal(a, b)?,
            "in" => self.contains(b, a)?,
            "not in" => !self.contains(b, a)?,
            "<" => self.order(operator, a, b)? == Some(Ordering::Less),
            "<=" => matches!(self.order(operator, a, b)?, Some(Ordering::Less | Ordering::Equal)),
            ">" => self.order(operator, a, b)? == Some(Ordering::Greater),
            _ => matches!(self.order(operator, a, b)?, Some(Ordering::Greater | Ordering::Equal)),
        })
    }

    /// Python's `item in container`.
    pub fn contains(&self, container: &Value, item: &Value) -> Done<bool> {
        if let Some(whole) = container.as_str() {
            let Some(part) = item.as_str() else {
                let kind = item.kind();
                return raise(format!("'in <string>' requires string as left operand, not {kind}"));
            };
            self.meter.charge(whole.len() + part.len())?;
            return Ok(self.plain(whole).contains(&*self.plain(part)));
        }
        match container {
            Value::Map(map) => return Ok(self.get(map, item)?.is_some()),
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                return raise(format!("argument of type '{}' is not iterable", container.kind()));
            }
            Value::List(list) | Value::Tuple(list) => {
                for other in &list.items {
                    if self.equal(other, item)? {
                        return Ok(true);
                    }
                }
                return Ok(false);
            }
            _ => {}
        }
        for other in self.items(container)? {
            if self.equal(&other, item)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sorts items by keys as Python does, those of one key in their order.
    pub fn sorted<T>(&self, keyed: Vec<(Value, T)>, reverse: bool) -> Done<Vec<T>> {
        for (key, _) in &keyed {
            self.check_ordered(key)?;
        }
        let mut less = |a: usize, b: usize| match (keyed.get(a), keyed.get(b)) {
            (Some((a, _)), Some((b, _))) => Ok(self.order("<", a, b)? == Some(Ordering::Less)),
            _ => Ok(false),
        };
        // As Python does, which keeps the order of those of one key so.
        let mut places: Vec<usize> = (0..keyed.len()).collect();
        if reverse {
            places.reverse();
        }
        let mut places = sort_places(places, &mut less)?;
        if reverse {
            places.reverse();
        }
        let mut items: Vec<Option<T>> = keyed.into_iter().map(|(_, item)| Some(item)).collect();
        Ok(places.into_iter().filter_map(|place| items.get_mut(place)?.take()).collect())
    }

    /// Fails on numbers that are none, whose place depends on how one sorts.
    fn check_ordered(&self, key: &Value) -> Done<()> {
        match key {
            Value::Float(float) if float.is_nan() => unsupported("sorting what is not a number"),
            Value::List(list) | Value::Tuple(list) => list.items.iter().try_for_each(|item| {
                self.meter.charge(8)?;
                self.check_ordered(item)
            }),
            _ => Ok::<(), Fault>(()),
        }
    }
}

/// What compares two places: fails where there is no order between their values.
type Less<'a> = &'a mut dyn FnMut(usize, usize) -> Done<bool>;

/// Sorts places; those of which neither is less stay in their order. Ends at the first failure: `slice::sort_by` would go on, and panic at
/// an order that is none. Fewer than 64 are compared in the pairs that Python compares, so that the same one fails.
fn sort_places(mut places: Vec<usize>, less: Less<'_>) -> Done<Vec<usize>> {
    let mut width = if places.len() < 64 { places.len().max(1) } else { 32 };
    places.chunks_mut(width).try_for_each(|run| insert_each(run, less))?;
    while width < places.len() {
        let mut merged = Vec::with_capacity(places.len());
        for pair in places.chunks(2 * width) {
            let (mut left, mut right) = pair.split_at(width.min(pair.len()));
            while let ([a, behind_a @ ..], [b, behind_b @ ..]) = (left, right) {
                if less(*b, *a)? {
                    merged.push(*b);
                    right = behind_b;
                } else {
                    merged.push(*a);
                    left = behind_a;
                }
            }
            merged.extend(left.iter().chain(right));
        }
        places = merged;
        width *= 2;
    }
    Ok(places)
}

/// Sorts a few: the run that they begin with is found, and turned round where it falls, then the others are put into it one by one.
fn insert_each(places: &mut [usize], less: Less<'_>) -> Done<()> {
    let [first, second, rest @ ..] = &*places else { return Ok(()) };
    let falls = less(*second, *first)?;
    let (mut last, mut sorted) = (*second, 2);
    for place in rest {
        if less(*place, last)? != falls {
            break;
        }
        (last, sorted) = (*place, sorted + 1);
    }
    if falls {
        places[..sorted].reverse();
    }
    for at in sorted..places.len() {
        let (mut low, mut high) = (0, at);
        while low < high {
            let middle = low.midpoint(high);
            if less(places[at], places[middle])? { high = middle } else { low = middle + 1 }
        }
        places[low..=at].rotate_right(1);
    }
    Ok(())
}
