//! What all operations of a rendering share: its meter, the marks of its control tokens, and what both are needed for.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;

use super::super::marks::Marks;
use super::fault::{Done, raise};
use super::meter::{Meter, costly};
use super::value::{List, Map, Object, Value, View, key_text, lock, range_length};

/// Numbers that a range may have.
const MAX_RANGE: i128 = 100_000;

/// What operations work with.
pub(crate) struct Context<'r> {
    pub meter: Meter,
    pub marks: &'r Marks,
    /// Seconds since 1970.
    pub now: i64,
    classes: [OnceCell<Vec<(char, char)>>; 3],
}

/// Characters that Python tells apart, by Unicode's general categories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// What `repr` escapes, spaces included.
    Hidden,
    Letter,
    Decimal,
}

/// A text and what its marks stand for, with the places of one in the other.
pub(super) struct Plain<'t> {
    text: &'t str,
    pub plain: Cow<'t, str>,
    /// For each byte of `plain` and its end the place in `text`, where they differ.
    places: Vec<u32>,
}

impl<'t> Plain<'t> {
    /// The part of the text from one place of `plain` to another.
    pub fn piece(&self, start: usize, end: usize) -> &'t str {
        let place =
            |at: usize| if self.places.is_empty() { at } else { self.places.get(at).map_or(0, |&p| p as usize) };
        self.text.get(place(start)..place(end)).unwrap_or_default()
    }

    /// The part that is a slice of `plain`.
    pub fn piece_of(&self, part: &str) -> &'t str {
        let start = (part.as_ptr() as usize).wrapping_sub(self.plain.as_ptr() as usize);
        if start > self.plain.len() { "" } else { self.piece(start, start + part.len()) }
    }

    /// The whole text.
    pub fn text(&self) -> &'t str {
        self.text
    }

    /// The text with another in place of `plain`: where a character stays, its mark does.
    pub fn changed(&self, new: String) -> String {
        if self.places.is_empty() || new.chars().count() != self.plain.chars().count() {
            return new;
        }
        let kept = self.text.chars().zip(self.plain.chars().zip(new.chars()));
        kept.map(|(marked, (plain, new))| if plain == new { marked } else { new }).collect()
    }
}

impl<'r> Context<'r> {
    pub fn new(meter: Meter, marks: &'r Marks, now: i64) -> Context<'r> {
        Context { meter, marks, now, classes: [OnceCell::new(), OnceCell::new(), OnceCell::new()] }
    }

    /// The text that a text with marks stands for.
    pub fn plain<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.marks.plain(text)
    }

    /// The same, with the places of one in the other.
    pub(super) fn view<'t>(&self, text: &'t str) -> Done<Plain<'t>> {
        self.meter.charge(text.len())?;
        let plain = self.plain(text);
        let mut places = Vec::new();
        if matches!(plain, Cow::Owned(_)) {
            self.meter.make(plain.len().saturating_mul(5))?;
            places.reserve(plain.len() + 1);
            for ((at, _), c) in text.char_indices().zip(plain.chars()) {
                places.extend(std::iter::repeat_n(at as u32, c.len_utf8()));
            }
            places.push(text.len() as u32);
        }
        Ok(Plain { text, plain, places })
    }

    /// A string, which is charged.
    pub fn text(&self, text: impl Into<String>) -> Done<Value> {
        let text = text.into();
        self.meter.make(text.len() + 32)?;
        Ok(Value::str(text))
    }

    /// A list, which is charged.
    pub fn list(&self, items: Vec<Value>) -> Done<Value> {
        self.meter.make_elements(items.len() + 1)?;
        Value::list(items)
    }

    /// A tuple, which is charged.
    pub fn tuple(&self, items: Vec<Value>) -> Done<Value> {
        self.meter.make_elements(items.len() + 1)?;
        Value::tuple(items)
    }

    /// A map, which is charged; fails on keys that Python cannot hash.
    pub fn map(&self, entries: Vec<(Value, Value)>) -> Done<Value> {
        self.meter.make_elements(4 * entries.len() + 1)?;
        let mut keyed = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let text = self.key_text(&key)?;
            self.meter.make(2 * text.len())?;
            keyed.push((text, key, value));
        }
        Map::new(keyed).map(Value::Map)
    }

    /// What tells a key from others; fails on what Python cannot hash.
    pub fn key_text(&self, key: &Value) -> Done<String> {
        key_text(key, &|text| self.plain(text))
    }

    /// The value of a key in a map; fails on what Python cannot hash.
    pub fn get<'m>(&self, map: &'m Map, key: &Value) -> Done<Option<&'m Value>> {
        if let Some(text) = key.as_str() {
            self.meter.charge(text.len())?;
        }
        let text = self.key_text(key)?;
        if map.is_large() {
            return Ok(map.get_by_text(&text));
        }
        for (other, value) in map.entries() {
            let same = match (key, other) {
                (Value::Str(a), Value::Str(b)) => a == b || self.plain(a) == self.plain(b),
                _ => self.key_text(other)? == text,
            };
            if same {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// What Python iterates over in a value.
    pub fn items(&self, value: &Value) -> Done<Vec<Value>> {
        let listed = |items: &[Value]| {
            self.meter.make_elements(items.len())?;
            Ok(items.to_vec())
        };
        match value {
            Value::Undefined(_) => Ok(Vec::new()),
            Value::List(list) | Value::Tuple(list) => listed(&list.items),
            Value::Str(text) | Value::Markup(text) => {
                self.meter.make_elements(text.len())?;
                Ok(text.chars().map(|c| Value::str(String::from(c))).collect())
            }
            Value::Map(map) => self.viewed(View::Keys, map),
            Value::Object(object) => match &**object {
                Object::Range { start, stop, step } => {
                    let n = range_length(*start, *stop, *step);
                    if n > MAX_RANGE {
                        return costly(format!("it counts through {n} numbers; the most are {MAX_RANGE}"));
                    }
                    self.meter.make_elements(n as usize)?;
                    Ok((0..n).map(|i| Value::Int(start + i * step)).collect())
                }
                Object::View(view, map) => self.viewed(*view, map),
                Object::Group(key, list) => Ok(vec![key.clone(), list.clone()]),
                Object::Generator(_, _, items) => std::mem::replace(&mut *lock(items), Ok(Vec::new())),
                _ => raise(format!("'{}' object is not iterable", value.kind())),
            },
            _ => raise(format!("'{}' object is not iterable", value.kind())),
        }
    }

    /// What a view of a map gives.
    fn viewed(&self, view: View, map: &Map) -> Done<Vec<Value>> {
        self.meter.make_elements(map.entries().len() * if view == View::Items { 4 } else { 1 })?;
        let of = |(key, value): &(Value, Value)| match view {
            View::Keys => Ok(key.clone()),
            View::Values => Ok(value.clone()),
            View::Items => List::new(vec![key.clone(), value.clone()]).map(Value::Tuple),
        };
        map.entries().iter().map(of).collect()
    }

    /// Python's `len`, or `None` where a value has none.
    pub fn length(&self, value: &Value) -> Done<Option<usize>> {
        Ok(match value {
            Value::Undefined(_) => Some(0),
            Value::Str(text) | Value::Markup(text) => {
                self.meter.charge(text.len())?;
                Some(text.chars().count())
            }
            Value::List(list) | Value::Tuple(list) => Some(list.items.len()),
            Value::Map(map) => Some(map.entries().len()),
            Value::Object(object) => match &**object {
                Object::Range { start, stop, step } => Some(range_length(*start, *stop, *step) as usize),
                Object::View(_, map) => Some(map.entries().len()),
                Object::Group(..) => Some(2),
                Object::Loop(state) => Some(lock(state).items.len()),
                _ => None,
            },
            _ => None,
        })
    }

    /// Whether a character is of a class.
    pub(super) fn is(&self, class: Class, c: char) -> bool {
        if c.is_ascii() {
            return match class {
                Class::Hidden => c.is_ascii_control() || c == ' ',
                Class::Letter => c.is_ascii_alphabetic(),
                Class::Decimal => c.is_ascii_digit(),
            };
        }
        let ranges = self.classes[class as usize].get_or_init(|| {
            let pattern = match class {
                Class::Hidden => r"[\p{C}\p{Z}]",
                Class::Letter => r"\p{L}",
                Class::Decimal => r"\p{Nd}",
            };
            match regex_syntax::parse(pattern).map(regex_syntax::hir::Hir::into_kind) {
                Ok(regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class))) => {
                    class.iter().map(|range| (range.start(), range.end())).collect()
                }
                _ => Vec::new(),
            }
        });
        let at = ranges.partition_point(|&(_, end)| end < c);
        ranges.get(at).is_some_and(|&(start, _)| start <= c)
    }
}

/// White space, as Python's strings and Jinja's tags have it.
pub(in crate::tokenizer) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// A shared text.
pub(super) fn shared(text: &str) -> Arc<str> {
    Arc::from(text)
}
