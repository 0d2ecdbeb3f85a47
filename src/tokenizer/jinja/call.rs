//! Calls: of macros, blocks, loops, methods and functions.

use std::sync::Arc;

use super::arguments::Arguments;
use super::ast::{Expr, Link, Macro, Symbol};
use super::fault::{Done, raise, unsupported};
use super::functions;
use super::methods;
use super::render::{Flow, Renderer};
use super::scopes::ROOT;
use super::value::{Missing, Object, Value, lock};

impl<'p> Renderer<'p, '_> {
    /// A macro as a value, which keeps the names around it.
    pub(super) fn macro_value(&mut self, place: usize) -> Done<Value> {
        let Some(definition) = self.program.macros.get(place) else { return Ok(Value::None) };
        self.context.meter.make(256)?;
        self.scopes.capture(self.scope);
        let (name, parameters) = (definition.name.clone(), definition.names.clone());
        Ok(Value::object(Object::Macro { place, scope: self.scope, name, parameters }))
    }

    /// Calls a value.
    pub(super) fn call(&mut self, value: &Value, arguments: Arguments) -> Done<Value> {
        let object = match value {
            Value::Undefined(missing) => return raise(missing.words()),
            Value::Object(object) => object,
            value => return raise(format!("'{}' object is not callable", value.kind())),
        };
        match &**object {
            Object::Function(name) => functions::call(self.context, name, arguments),
            Object::Method(value, method) => methods::call(self.context, value, method, arguments),
            Object::Macro { place, scope, .. } => self.call_macro(*place, *scope, arguments),
            Object::Block(place) => {
                arguments.none("BlockReference.__call__")?;
                let text = self.block(*place, ROOT)?;
                self.context.text(text)
            }
            Object::Loop(state) => {
                let (recursion, depth) = {
                    let state = lock(state);
                    (state.recursion, state.depth0 + 1)
                };
                let Some((place, scope)) = recursion else {
                    return raise("The loop must have the 'recursive' marker to be called recursively.");
                };
                let mut arguments = arguments.plain("loop", 1, 1)?;
                let items = arguments.pop().unwrap_or(Value::None);
                let (text, _) = self.calling(|renderer| {
                    renderer.captured(|renderer| renderer.iterate(place, &items, depth, scope).map(|()| Flow::On))
                })?;
                self.context.text(text)
            }
            Object::Joiner(state) => {
                arguments.none("Joiner.__call__")?;
                let mut state = lock(state);
                let used = std::mem::replace(&mut state.1, true);
                Ok(Value::Str(if used { state.0.clone() } else { "".into() }))
            }
            _ => raise(format!("'{}' object is not callable", value.kind())),
        }
    }

    /// A call with what a call block gives it.
    pub(super) fn eval_call_block(&mut self, call: &'p Expr, caller: Value) -> Done<Value> {
        let Expr::Chain(base, links) = call else { return raise("expected call") };
        let Some((Link::Call(given), before)) = links.split_last() else { return raise("expected call") };
        let callee = self.chain(base, before)?;
        let mut arguments = self.arguments(given)?;
        arguments.named.push(("caller".into(), caller));
        self.call(&callee, arguments)
    }

    fn call_macro(&mut self, place: usize, scope: usize, arguments: Arguments) -> Done<Value> {
        let Some(definition) = self.program.macros.get(place) else { return Ok(Value::None) };
        let (text, _) = self.calling(|renderer| {
            renderer.captured(|renderer| {
                renderer.scoped(scope, |renderer| {
                    renderer.bind(definition, arguments)?;
                    renderer.body(definition.body)
                })
            })
        })?;
        self.context.text(text)
    }

    fn set_special(&mut self, name: &str, value: Value) -> Done<()> {
        match self.program.names.iter().position(|known| &**known == name) {
            Some(symbol) => self.scopes.set(self.scope, symbol as Symbol, value, &self.context.meter),
            None => Ok(()),
        }
    }

    /// Gives a macro's parameters their values.
    fn bind(&mut self, definition: &'p Macro, mut arguments: Arguments) -> Done<()> {
        let n = definition.parameters.len();
        let name = &definition.name;
        let [reads_caller, reads_kwargs, reads_varargs] = definition.reads;
        let explicit = definition.names.iter().any(|name| &**name == "caller");
        if explicit {
            return unsupported("a macro's parameter called caller");
        }
        let extra = arguments.positional.split_off(n.min(arguments.positional.len()));
        let mut given: Vec<Option<Value>> = arguments.positional.drain(..).map(Some).collect();
        for name in definition.names.iter().skip(given.len()) {
            let value = arguments.take(name);
            given.push(value);
        }
        if reads_caller {
            let none = || Value::Undefined(Arc::new(Missing::Words("No caller defined".to_owned())));
            let caller = arguments.take("caller").unwrap_or_else(none);
            self.set_special("caller", caller)?;
        }
        if reads_kwargs {
            let named = std::mem::take(&mut arguments.named);
            let entries = named.into_iter().map(|(name, value)| (Value::Str(name), value)).collect();
            let map = self.context.map(entries)?;
            self.set_special("kwargs", map)?;
        } else if let Some((unknown, _)) = arguments.named.first() {
            if arguments.named.iter().any(|(name, _)| &**name == "caller") {
                return raise(format!(
                    "macro '{name}' was invoked with two values for the special caller argument. This is most likely a bug."
                ));
            }
            return raise(format!("macro '{name}' takes no keyword argument '{unknown}'"));
        }
        if reads_varargs {
            let list = self.context.tuple(extra)?;
            self.set_special("varargs", list)?;
        } else if !extra.is_empty() {
            return raise(format!("macro '{name}' takes not more than {n} argument(s)"));
        }
        for ((symbol, default), value) in definition.parameters.iter().zip(given) {
            let value = match (value, default) {
                (Some(value), _) => value,
                (None, Some(default)) => self.eval(default)?,
                (None, None) => {
                    let name = self.program.names.get(*symbol as usize).cloned().unwrap_or_default();
                    Value::undefined(format!("parameter '{name}' was not provided"))
                }
            };
            self.scopes.set(self.scope, *symbol, value, &self.context.meter)?;
        }
        Ok(())
    }
}
