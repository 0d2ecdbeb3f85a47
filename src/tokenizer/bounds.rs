//! Bounds on what a chat template may take, whatever stands in it.
//!
//! The template engine counts instructions and nested calls, but a single instruction may double a string, nest a
//! list once more, or compare two structures that share their parts. So a compiled program has checks in front of and
//! behind such instructions ([`program`](super::program)), which charge a [`Meter`]. What the engine panics on, or
//! does not come back from, is computed here instead.
//!
//! A check in front of an instruction is a filter that gives the operands back as a list, which is unpacked again.

use std::sync::Arc;

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};
use minijinja_contrib::pycompat;

use super::meter::{Meter, is_list, is_namespace, refused};
use super::{json, order, print, slice};

/// Names of the checks; no template can write them.
pub(super) mod check {
    /// The operands of an addition.
    pub const GROWTH: &str = "\u{1}growth";
    /// The operands of a product.
    pub const PRODUCT: &str = "\u{1}product";
    /// Operands of what looks at all of them.
    pub const OPERANDS: &str = "\u{1}operands";
    /// What may be in something, and that.
    pub const CONTAINED: &str = "\u{1}contained";
    /// Operands that are turned into text.
    pub const PRINTED: &str = "\u{1}printed";
    /// Two operands that are turned into one text.
    pub const JOINED: &str = "\u{1}joined";
    /// Operands that are turned into text and then into another, of up to thrice the bytes.
    pub const CHANGED: &str = "\u{1}changed";
    /// Operands of what is done for each element of the first.
    pub const REPEATED: &str = "\u{1}repeated";
    /// Operands of what compares the elements of the first.
    pub const SORTED: &str = "\u{1}sorted";
    /// What something of one size is asked of.
    pub const SIZED: &str = "\u{1}sized";
    /// The container and the place or key in it.
    pub const ITEM: &str = "\u{1}item";
    /// A part of a text or list: in place of the engine's own.
    pub const SLICE: &str = "\u{1}slice";
    /// What an instruction made that shares its strings.
    pub const RESULT: &str = "\u{1}result";
    /// What an instruction made, strings and all.
    pub const MADE: &str = "\u{1}made";
    /// What is put into a namespace.
    pub const ATTRIBUTE: &str = "\u{1}attribute";
    /// What becomes a macro.
    pub const MACRO: &str = "\u{1}macro";
}

pub(super) fn invalid(reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

/// The operands for `UnpackList`, which puts the first of a list on top.
fn again(operands: &[Value]) -> Value {
    operands.iter().rev().cloned().collect::<Vec<_>>().into()
}

impl Meter {
    fn length(&self, value: &Value) -> Option<usize> {
        value.as_str().map(str::len).or_else(|| value.len().filter(|_| is_list(value)))
    }

    /// Charges what adding two values makes.
    fn growth(&self, left: &Value, right: &Value) -> Result<(), Error> {
        match (self.length(left), self.length(right)) {
            (Some(a), Some(b)) if is_list(left) => self.make_elements(a.saturating_add(b)),
            (Some(a), Some(b)) => self.make(a.saturating_add(b)),
            _ => Ok(()),
        }
    }

    /// Charges what a product makes; its factors, with a number that makes sense to the engine.
    fn product(&self, left: &Value, right: &Value) -> Result<[Value; 2], Error> {
        let (many, n, left_is_many) = match (self.length(left), self.length(right)) {
            (Some(_), None) => (left, right, true),
            (None, Some(_)) => (right, left, false),
            _ => return Ok([left.clone(), right.clone()]),
        };
        let len = self.length(many).unwrap_or(0);
        let n = match i128::try_from(n.clone()) {
            // As Python has it; the engine would count through an empty list n times.
            Ok(n) if n <= 0 || len == 0 => Value::from(0),
            // No number of elements.
            Err(_) if len == 0 => Value::from(()),
            _ => n.clone(),
        };
        let bytes = len.saturating_mul(n.as_usize().unwrap_or(1));
        if is_list(many) {
            self.make_elements(bytes)?
        } else {
            self.make(bytes)?
        }
        Ok(if left_is_many { [many.clone(), n] } else { [n, many.clone()] })
    }

    /// Operands that the engine would print, printed as Python would: lists and maps, and the first few if numbers.
    fn printed(&self, operands: &[Value], numbers: usize) -> Result<Vec<Value>, Error> {
        let print = |(at, operand): (usize, &Value)| {
            self.charge(operand.as_str().map_or(0, str::len))?;
            let is_long = is_list(operand) || operand.kind() == ValueKind::Map;
            let is_printed = is_long || (operand.is_number() && at < numbers);
            if !is_printed || operand.is_kwargs() {
                return Ok(operand.clone());
            }
            self.look(operand)?;
            print::str(operand, self).map(Value::from)
        };
        operands.iter().enumerate().map(print).collect()
    }

    /// Charges what a replacement makes.
    fn replacement(&self, text: &str, from: &str, to: &str) -> Result<(), Error> {
        let n = if from.is_empty() { text.len() + 1 } else { text.len() / from.len() };
        self.make(text.len().saturating_add(n.saturating_mul(to.len())))
    }

    /// Charges the pieces that a text is cut into; `None`: at white space.
    fn pieces(&self, text: &str, separator: Option<&str>) -> Result<(), Error> {
        let n = match separator {
            Some("") => text.len() + 2,
            Some(separator) => text.matches(separator).count() + 1,
            None => text.split_whitespace().count(),
        };
        self.charge(text.len())?;
        self.make_elements(n)
    }

    /// The items' texts with a separator between them.
    fn join(&self, items: &Value, separator: &str) -> Result<String, Error> {
        let mut text = super::meter::Text::new(self);
        for (at, item) in items.try_iter()?.enumerate() {
            self.look(&item)?;
            if at > 0 {
                text.push(separator)?;
            }
            match item.as_str() {
                Some(item) => text.push(item)?,
                None => {
                    let item = print::str(&item, self)?;
                    text.push(&item)?;
                }
            }
        }
        Ok(text.out)
    }
}

/// Gives an environment the checks, and what needs a check of its own.
pub(super) fn install(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    install_checks(environment, meter);
    let m = meter.clone();
    environment.set_formatter(move |out, _, value| match value.as_str() {
        Some(text) => {
            m.make(text.len().saturating_mul(3))?;
            out.write_str(text).map_err(Error::from)
        }
        None if value.is_undefined() => Ok(()),
        None => {
            m.look(value)?;
            let shown = print::str(value, &m)?;
            m.make(shown.len().saturating_mul(3))?;
            out.write_str(&shown).map_err(Error::from)
        }
    });
    let m = meter.clone();
    environment.add_filter("replace", move |text: &str, from: &str, to: &str| {
        m.replacement(text, from, to).map(|()| text.replace(from, to))
    });
    let m = meter.clone();
    environment
        .add_filter("join", move |items: Value, separator: Option<&str>| m.join(&items, separator.unwrap_or_default()));
    let m = meter.clone();
    environment.add_filter("string", move |value: Value| match value.as_str() {
        Some(_) => Ok(value),
        None => print::str(&value, &m).map(Value::from),
    });
    let m = meter.clone();
    environment.add_filter("escape", move |state: &State, value: Value| escape(&m, state, &value));
    let m = meter.clone();
    environment.add_filter("e", move |state: &State, value: Value| escape(&m, state, &value));
    let m = meter.clone();
    environment.add_filter("split", move |text: Value, separator: Option<Arc<str>>, most: Option<i64>| {
        m.pieces(text.as_str().unwrap_or_default(), separator.as_deref())?;
        filters::split(&text, separator, most)
    });
    let m = meter.clone();
    environment.add_filter("lines", move |text: Value| {
        m.pieces(text.as_str().unwrap_or_default(), Some("\n"))?;
        filters::lines(&text)
    });
    let m = meter.clone();
    environment.add_filter("list", move |state: &State, value: Value| {
        m.make_elements(value.as_str().map_or(0, str::len))?;
        filters::list(state, value)
    });
    let m = meter.clone();
    environment.add_filter("tojson", move |value: Value, indent: Option<usize>, kwargs: Kwargs| {
        json::write(&value, json::Style::new(indent, &kwargs)?, &m)
    });
    let m = meter.clone();
    environment.add_function("range", move |lower: i64, upper: Option<i64>, step: Option<i64>| {
        let (from, to) = upper.map_or((0, lower), |upper| (lower, upper));
        slice::range(from, to, step.unwrap_or(1), &m)
    });
    let m = meter.clone();
    environment
        .set_unknown_method_callback(move |state, value, method, args| call_method(&m, state, value, method, args));
}

/// The checks of operands.
fn install_checks(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    let m = meter.clone();
    environment.add_filter(check::GROWTH, move |operands: Rest<Value>| -> Result<Value, Error> {
        if let [left, right] = &operands[..] {
            m.growth(left, right)?;
        }
        Ok(again(&operands))
    });
    let m = meter.clone();
    environment.add_filter(check::PRODUCT, move |operands: Rest<Value>| -> Result<Value, Error> {
        match &operands[..] {
            [left, right] => Ok(again(&m.product(left, right)?)),
            operands => Ok(again(operands)),
        }
    });
    let m = meter.clone();
    environment.add_filter(check::OPERANDS, move |operands: Rest<Value>| -> Result<Value, Error> {
        operands.iter().try_for_each(|operand| m.look(operand).map(|_| ()))?;
        Ok(again(&operands))
    });
    let m = meter.clone();
    environment.add_filter(check::CONTAINED, move |operands: Rest<Value>| -> Result<Value, Error> {
        operands.iter().try_for_each(|operand| m.look(operand).map(|_| ()))?;
        match &operands[..] {
            // In a text, the engine looks for what the value is printed as.
            [part, whole] if whole.as_str().is_some() && part.as_str().is_none() => {
                Ok(again(&[Value::from(print::str(part, &m)?), whole.clone()]))
            }
            operands => Ok(again(operands)),
        }
    });
    let m = meter.clone();
    environment.add_filter(check::PRINTED, move |operands: Rest<Value>| -> Result<Value, Error> {
        Ok(again(&m.printed(&operands, 1)?))
    });
    let m = meter.clone();
    environment.add_filter(check::JOINED, move |operands: Rest<Value>| -> Result<Value, Error> {
        Ok(again(&m.printed(&operands, 2)?))
    });
    let m = meter.clone();
    environment.add_filter(check::CHANGED, move |operands: Rest<Value>| -> Result<Value, Error> {
        let printed = m.printed(&operands, 1)?;
        m.make(printed.first().and_then(Value::as_str).map_or(0, str::len).saturating_mul(3))?;
        Ok(again(&printed))
    });
    let m = meter.clone();
    environment.add_filter(check::REPEATED, move |operands: Rest<Value>| -> Result<Value, Error> {
        let Some((first, rest)) = operands.split_first() else { return Ok(again(&operands)) };
        m.make_elements(first.as_str().map_or(0, str::len))?;
        let nodes = m.look(first)?.nodes;
        for operand in rest {
            let size = m.look(operand)?;
            // A name of something that compares: for each of the lists in the list.
            let factor = if operand.as_str().is_some() { order::comparisons(nodes) } else { 1 };
            m.charge(nodes.saturating_mul(size.bytes.saturating_add(size.nodes)).saturating_mul(factor))?;
        }
        Ok(again(&operands))
    });
    let m = meter.clone();
    environment.add_filter(check::SORTED, move |operands: Rest<Value>| -> Result<Value, Error> {
        if let Some(first) = operands.first() {
            m.make_elements(first.as_str().map_or(0, str::len))?;
            let size = m.look(first)?;
            m.charge(size.bytes.saturating_add(size.nodes * 32).saturating_mul(order::comparisons(size.nodes)))?;
        }
        Ok(again(&operands))
    });
    install_value_checks(environment, meter);
}

/// The checks of one value, and of a container with its key.
fn install_value_checks(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    let m = meter.clone();
    environment.add_filter(check::SIZED, move |value: Value| -> Result<Value, Error> {
        m.charge(m.length(&value).unwrap_or(0))?;
        Ok(value)
    });
    let m = meter.clone();
    environment.add_filter(check::ITEM, move |operands: Rest<Value>| -> Result<Value, Error> {
        if let [container, key] = &operands[..] {
            if is_list(key) || key.kind() == ValueKind::Map {
                return Err(invalid("a list or map is no key"));
            }
            let len = |value: &Value| value.as_str().map_or(0, str::len);
            m.charge(len(container).saturating_add(len(key)))?;
        }
        Ok(again(&operands))
    });
    let m = meter.clone();
    environment.add_filter(check::SLICE, move |value: Value, start: Value, stop: Value, step: Value| {
        slice::slice(&value, &start, &stop, &step, &m)
    });
    let m = meter.clone();
    environment.add_filter(check::RESULT, move |value: Value| m.result(value, false));
    let m = meter.clone();
    environment.add_filter(check::MADE, move |value: Value| m.result(value, true));
    let m = meter.clone();
    environment.add_filter(check::MACRO, move |value: Value| m.add_macro().map(|()| value));
    let m = meter.clone();
    environment.add_filter(check::ATTRIBUTE, move |value: Value| {
        if is_namespace(&value) {
            return Err(refused("it puts a namespace into a structure".to_owned()));
        }
        m.result(value, false)
    });
}

fn escape(meter: &Meter, state: &State, value: &Value) -> Result<Value, Error> {
    // One character becomes at most six.
    meter.make(value.as_str().map_or(0, str::len).saturating_mul(12))?;
    filters::escape(state, value)
}

/// Python's methods of strings, lists and maps.
fn call_method(meter: &Meter, state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.as_str() {
        Some(text) => meter.charge(text.len())?,
        // A map looks a key up, or gives what is charged when it is there.
        None if method == "get" => {}
        None => {
            meter.look(value)?;
        }
    }
    args.iter().try_for_each(|arg| meter.look(arg).map(|_| ()))?;
    let text = |at: usize| args.get(at).and_then(|v| v.as_str());
    match (method, value.as_str()) {
        ("get", None) if args.first().is_some_and(|key| is_list(key) || key.kind() == ValueKind::Map) => {
            return Err(invalid("a list or map is no key"));
        }
        ("replace", Some(whole)) => {
            meter.replacement(whole, text(0).unwrap_or_default(), text(1).unwrap_or_default())?;
        }
        ("join", Some(separator)) => match args {
            [items] => return meter.join(items, separator).map(Value::from),
            _ => return Err(invalid("join takes one list")),
        },
        ("split", Some(whole)) => meter.pieces(whole, text(0))?,
        ("splitlines", Some(whole)) => meter.pieces(whole, Some("\n"))?,
        ("upper" | "lower" | "title" | "capitalize", Some(whole)) => meter.make(whole.len().saturating_mul(3))?,
        // Here the engine would not come back.
        ("count", Some(whole)) if text(0) == Some("") => return Ok((whole.chars().count() + 1).into()),
        ("format", Some(whole)) => meter.formatted(whole, args)?,
        // Counted in characters, as Python does.
        ("find" | "rfind", Some(whole)) => {
            let Some(part) = text(0).filter(|_| args.len() == 1) else {
                return Err(invalid("find takes one string"));
            };
            let at = if method == "find" { whole.find(part) } else { whole.rfind(part) };
            let chars = at.and_then(|at| whole.get(..at)).map(|before| before.chars().count() as i64);
            return Ok(Value::from(chars.unwrap_or(-1)));
        }
        _ => {}
    }
    pycompat::unknown_method_callback(state, value, method, args)
}
