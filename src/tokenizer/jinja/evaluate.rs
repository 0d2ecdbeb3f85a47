//! What a template's expressions come to.

use std::sync::Arc;

use super::arguments::Arguments;
use super::arithmetic;
use super::ast::{Conditional, Expr, Given, Link, Symbol};
use super::fault::{Done, raise};
use super::lookup;
use super::names;
use super::render::Renderer;
use super::tests;
use super::value::{Missing, Object, Value};

impl<'p> Renderer<'p, '_> {
    /// The value of an expression.
    pub(super) fn eval(&mut self, expr: &'p Expr) -> Done<Value> {
        self.context.meter.step()?;
        match expr {
            Expr::Const(value) => Ok(value.clone()),
            Expr::Name(symbol) => Ok(self.lookup(*symbol)),
            expr => self.deeper(|renderer| renderer.compound(expr)),
        }
    }

    fn lookup(&self, symbol: Symbol) -> Value {
        let missing = || {
            let name = self.program.names.get(symbol as usize).cloned().unwrap_or_default();
            Value::Undefined(Arc::new(Missing::Name(name)))
        };
        self.scopes.get(self.scope, symbol).cloned().unwrap_or_else(missing)
    }

    fn all(&mut self, exprs: &'p [Expr]) -> Done<Vec<Value>> {
        exprs.iter().map(|expr| self.eval(expr)).collect()
    }

    fn compound(&mut self, expr: &'p Expr) -> Done<Value> {
        match expr {
            Expr::Chain(base, links) => self.chain(base, links),
            Expr::Binary(first, rest) => {
                let mut value = self.eval(first)?;
                for (operator, expr) in rest {
                    let other = self.eval(expr)?;
                    value = arithmetic::binary(self.context, operator, &value, &other)?;
                }
                Ok(value)
            }
            Expr::Concat(items) => self.concatenated(items),
            Expr::Compare(first, rest) => self.compared(first, rest),
            Expr::And(items) | Expr::Or(items) => {
                let wanted = matches!(expr, Expr::Or(_));
                let mut value = Value::None;
                for item in items {
                    value = self.eval(item)?;
                    if value.is_true() == wanted {
                        break;
                    }
                }
                Ok(value)
            }
            Expr::Not(inner) => Ok(Value::Bool(!self.eval(inner)?.is_true())),
            Expr::Unary(operator, inner) => arithmetic::unary(operator, &self.eval(inner)?),
            Expr::If(value, tests) => self.conditional(value, tests),
            Expr::Tuple(items) => {
                let items = self.all(items)?;
                self.context.tuple(items)
            }
            Expr::List(items) => {
                let items = self.all(items)?;
                self.context.list(items)
            }
            Expr::Map(entries) => {
                let entry = |(key, value): &'p (Expr, Expr)| Ok((self.eval(key)?, self.eval(value)?));
                let entries = entries.iter().map(entry).collect::<Done<Vec<_>>>()?;
                self.context.map(entries)
            }
            Expr::Const(value) => Ok(value.clone()),
            Expr::Name(symbol) => Ok(self.lookup(*symbol)),
        }
    }

    fn concatenated(&mut self, items: &'p [Expr]) -> Done<Value> {
        let mut text = String::new();
        for item in items {
            let item = self.eval(item)?;
            let shown = match item.as_str() {
                Some(shown) => shown.to_owned(),
                None => self.context.str(&item)?,
            };
            self.context.meter.make(shown.len().saturating_mul(3))?;
            text.push_str(&shown);
        }
        self.context.text(text)
    }

    fn compared(&mut self, first: &'p Expr, rest: &'p [(&'static str, Expr)]) -> Done<Value> {
        let mut left = self.eval(first)?;
        for (operator, expr) in rest {
            let right = self.eval(expr)?;
            if !self.context.compare(operator, &left, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    fn conditional(&mut self, value: &'p Expr, tests: &'p [Conditional]) -> Done<Value> {
        for conditional in tests.iter().rev() {
            if !self.eval(&conditional.test)?.is_true() {
                return match &conditional.otherwise {
                    Some(otherwise) => self.eval(otherwise),
                    None => Ok(Value::undefined(format!(
                        "the inline if-expression on line {} evaluated to false and no else section was defined.",
                        conditional.line
                    ))),
                };
            }
        }
        self.eval(value)
    }

    pub(super) fn chain(&mut self, base: &'p Expr, links: &'p [Link]) -> Done<Value> {
        let mut value = self.eval(base)?;
        for link in links {
            self.context.meter.step()?;
            value = self.link(&value, link)?;
        }
        Ok(value)
    }

    fn link(&mut self, value: &Value, link: &'p Link) -> Done<Value> {
        match link {
            Link::Attribute(name) => self.attribute(value, name),
            Link::Item(key) => {
                let key = self.eval(key)?;
                lookup::item(self.context, value, &key)
            }
            Link::Slice(bounds) => {
                let mut read = [Value::None, Value::None, Value::None];
                for (slot, bound) in read.iter_mut().zip(bounds.iter()) {
                    if let Some(bound) = bound {
                        *slot = self.eval(bound)?;
                    }
                }
                lookup::slice(self.context, value, &read)
            }
            Link::Call(given) => {
                let arguments = self.arguments(given)?;
                self.call(value, arguments)
            }
            Link::Filter(name, given) => self.filter(name, value, given),
            Link::Test(name, given, negated) => {
                let arguments = self.arguments(given)?;
                if !names::is_test(name) {
                    return raise(format!("No test named '{name}' found."));
                }
                Ok(Value::Bool(tests::call(self.context, name, value, arguments)? != *negated))
            }
        }
    }

    fn attribute(&mut self, value: &Value, name: &str) -> Done<Value> {
        if let Value::Object(object) = value
            && matches!(**object, Object::Itself)
            && let Some(place) = self.program.blocks.iter().position(|block| &*block.name == name)
        {
            return Ok(Value::object(Object::Block(place)));
        }
        lookup::attribute(self.context, value, name)
    }

    /// The arguments of a call.
    pub(super) fn arguments(&mut self, given: &'p Given) -> Done<Arguments> {
        let mut arguments = Arguments::of(self.all(&given.positional)?);
        for (name, expr) in &given.named {
            let value = self.eval(expr)?;
            if arguments.named.iter().any(|(n, _)| n == name) {
                return raise(format!("keyword argument repeated: {name}"));
            }
            arguments.named.push((name.clone(), value));
        }
        if let Some(list) = &given.list {
            let list = self.eval(list)?;
            if matches!(list, Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_)) {
                return raise(format!("Value after * must be an iterable, not {}", list.kind()));
            }
            arguments.positional.extend(self.context.items(&list)?);
        }
        if let Some(map) = &given.map {
            let map = self.eval(map)?;
            let Value::Map(map) = &map else {
                return raise(format!("argument after ** must be a mapping, not {}", map.kind()));
            };
            for (key, value) in map.entries() {
                let Some(name) = key.as_str() else { return raise("keywords must be strings") };
                let name: Arc<str> = self.context.plain(name).into();
                if arguments.named.iter().any(|(n, _)| *n == name) {
                    return raise(format!("got multiple values for keyword argument '{name}'"));
                }
                self.context.meter.make_elements(2)?;
                arguments.named.push((name, value.clone()));
            }
        }
        Ok(arguments)
    }
}
