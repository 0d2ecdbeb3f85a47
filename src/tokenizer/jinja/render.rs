//! Runs a template's statements.

use std::sync::{Arc, Mutex};

use super::ast::{Body, Given, Kind, Program, Symbol, Target};
use super::context::Context;
use super::fault::{Done, Fault, raise};
use super::filters;
use super::functions;
use super::meter::costly;
use super::names;
use super::namespace;
use super::scopes::{ROOT, Scopes};
use super::value::{Loop, Object, Value};

/// Expressions, blocks and calls in one another. Each takes less than 2 KiB of the stack.
const MAX_LEVELS: usize = 700;
/// Calls of macros in one another.
const MAX_CALLS: usize = 100;

/// What comes behind a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    Break,
    Continue,
}

/// A rendering.
pub(crate) struct Renderer<'p, 'c> {
    pub(super) context: &'c Context<'c>,
    pub(super) program: &'p Program,
    pub(super) scopes: Scopes,
    pub(super) scope: usize,
    /// What is written, the innermost capture last.
    out: Vec<String>,
    line: u32,
    levels: usize,
    calls: usize,
}

impl<'p, 'c> Renderer<'p, 'c> {
    /// The text of a template with these variables, or what went wrong in which line.
    pub fn render(
        program: &'p Program,
        context: &'c Context<'c>,
        variables: &[(&str, Value)],
    ) -> Result<String, (Fault, u32)> {
        let (scopes, out) = (Scopes::new(), vec![String::new()]);
        let mut renderer = Renderer { context, program, scopes, scope: ROOT, out, line: 1, levels: 0, calls: 0 };
        let done = renderer.set_up(variables).and_then(|()| renderer.body(program.body));
        match done {
            Ok(_) => Ok(renderer.out.pop().unwrap_or_default()),
            Err(fault) => Err((fault, renderer.line)),
        }
    }

    fn set_up(&mut self, variables: &[(&str, Value)]) -> Done<()> {
        for (symbol, name) in self.program.names.iter().enumerate() {
            let given = variables.iter().find(|(known, _)| **known == **name).map(|(_, value)| value.clone());
            let own = || match &**name {
                "self" => Some(Value::object(Object::Itself)),
                name => functions::named(name),
            };
            if let Some(value) = given.or_else(own) {
                self.scopes.set(ROOT, symbol as Symbol, value, &self.context.meter)?;
            }
        }
        Ok(())
    }

    /// One level deeper, which is bounded.
    pub(super) fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Done<T>) -> Done<T> {
        self.levels += 1;
        if self.levels > MAX_LEVELS {
            return costly(format!("its scopes and calls nest more than {MAX_LEVELS} deep"));
        }
        let done = run(self);
        self.levels -= 1;
        done
    }

    /// One call of a macro deeper.
    pub(super) fn calling<T>(&mut self, run: impl FnOnce(&mut Self) -> Done<T>) -> Done<T> {
        self.calls += 1;
        if self.calls > MAX_CALLS {
            return costly(format!("its scopes and calls nest more than {MAX_CALLS} deep"));
        }
        let done = self.deeper(run);
        self.calls -= 1;
        done
    }

    /// Runs in a scope of its own.
    pub(super) fn scoped<T>(&mut self, parent: usize, run: impl FnOnce(&mut Self) -> Done<T>) -> Done<T> {
        let outer = self.scope;
        self.scope = self.scopes.open(parent, &self.context.meter)?;
        let inner = self.scope;
        let done = run(self);
        self.scope = outer;
        self.scopes.close(inner, &self.context.meter)?;
        done
    }

    /// What running writes.
    pub(super) fn captured(&mut self, run: impl FnOnce(&mut Self) -> Done<Flow>) -> Done<(String, Flow)> {
        self.out.push(String::new());
        let done = run(self);
        let text = self.out.pop().unwrap_or_default();
        Ok((text, done?))
    }

    fn write(&mut self, text: &str) -> Done<()> {
        // It doubles as it grows, and both halves are there meanwhile.
        self.context.meter.make(text.len().saturating_mul(3))?;
        if let Some(out) = self.out.last_mut() {
            out.push_str(text);
        }
        Ok(())
    }

    pub(super) fn body(&mut self, body: Body) -> Done<Flow> {
        for statement in self.program.bodies.get(body).into_iter().flatten() {
            self.line = statement.line;
            self.context.meter.step()?;
            let flow = match &statement.kind {
                Kind::Text(text) => self.write(text).map(|()| Flow::On),
                Kind::Print(expr) => {
                    let value = self.eval(expr)?;
                    self.print(&value).map(|()| Flow::On)
                }
                kind => self.deeper(|renderer| renderer.statement(kind)),
            }?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn print(&mut self, value: &Value) -> Done<()> {
        match value.as_str() {
            Some(text) => self.write(text),
            None => {
                let text = self.context.str(value)?;
                self.write(&text)
            }
        }
    }

    fn statement(&mut self, kind: &'p Kind) -> Done<Flow> {
        match kind {
            Kind::If(branches, otherwise) => {
                for (test, body) in branches {
                    if self.eval(test)?.is_true() {
                        return self.body(*body);
                    }
                }
                otherwise.map_or(Ok(Flow::On), |body| self.body(body))
            }
            Kind::For(place) => self.for_loop(*place),
            Kind::Set(target, expr) => {
                let value = self.eval(expr)?;
                self.assign(target, value).map(|()| Flow::On)
            }
            Kind::SetBlock(target, filters, body) => self.set_block(target, filters, *body),
            Kind::With(values, body) => self.with(values, *body),
            Kind::Macro(place) => {
                let value = self.macro_value(*place)?;
                let symbol = self.program.macros.get(*place).map_or(0, |definition| definition.symbol);
                self.scopes.set(self.scope, symbol, value, &self.context.meter)?;
                Ok(Flow::On)
            }
            Kind::Call(place, call) => {
                let caller = self.macro_value(*place)?;
                let value = self.eval_call_block(call, caller)?;
                self.print(&value).map(|()| Flow::On)
            }
            Kind::Filter(filters, body) => {
                let (text, flow) = self.captured(|renderer| renderer.scoped(renderer.scope, |r| r.body(*body)))?;
                if flow == Flow::On {
                    let value = self.filtered(filters, Value::str(text))?;
                    self.print(&value)?;
                }
                Ok(flow)
            }
            Kind::Block(place) => {
                let scoped = self.program.blocks.get(*place).is_some_and(|block| block.scoped);
                let text = self.block(*place, if scoped { self.scope } else { ROOT })?;
                self.write(&text).map(|()| Flow::On)
            }
            Kind::Scope(body) => self.scoped(self.scope, |renderer| renderer.body(*body)),
            Kind::Break => Ok(Flow::Break),
            Kind::Continue => Ok(Flow::Continue),
            Kind::Load => raise("no loader for this environment specified"),
            // Those that nothing is nested in.
            Kind::Text(_) | Kind::Print(_) => Ok(Flow::On),
        }
    }

    fn set_block(&mut self, target: &'p Target, filters: &'p [(Arc<str>, Given)], body: Body) -> Done<Flow> {
        let (text, flow) = self.captured(|renderer| renderer.scoped(renderer.scope, |r| r.body(body)))?;
        if flow == Flow::On {
            self.context.meter.make(text.len())?;
            let value = self.filtered(filters, Value::str(text))?;
            self.assign(target, value)?;
        }
        Ok(flow)
    }

    fn filtered(&mut self, filters: &'p [(Arc<str>, Given)], value: Value) -> Done<Value> {
        let mut value = value;
        for (name, given) in filters {
            value = self.filter(name, &value, given)?;
        }
        Ok(value)
    }

    /// A filter's value.
    pub(super) fn filter(&mut self, name: &str, value: &Value, given: &'p Given) -> Done<Value> {
        let arguments = self.arguments(given)?;
        if !names::is_filter(name) {
            return raise(format!("No filter named '{name}' found."));
        }
        filters::call(self.context, name, value, arguments)
    }

    fn with(&mut self, values: &'p [(Target, super::ast::Expr)], body: Body) -> Done<Flow> {
        // All of them are what they are outside.
        let values = values.iter().map(|(target, expr)| Ok((target, self.eval(expr)?))).collect::<Done<Vec<_>>>()?;
        self.scoped(self.scope, |renderer| {
            for (target, value) in values {
                renderer.assign(target, value)?;
            }
            renderer.body(body)
        })
    }

    /// The text of a block.
    pub(super) fn block(&mut self, place: usize, parent: usize) -> Done<String> {
        let Some(block) = self.program.blocks.get(place) else { return Ok(String::new()) };
        let (text, _) = self.calling(|renderer| {
            renderer.captured(|renderer| renderer.scoped(parent, |renderer| renderer.body(block.body)))
        })?;
        Ok(text)
    }

    pub(super) fn assign(&mut self, target: &'p Target, value: Value) -> Done<()> {
        match target {
            Target::Name(symbol) => self.scopes.set(self.scope, *symbol, value, &self.context.meter),
            Target::Tuple(targets) => {
                if matches!(value, Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_)) {
                    return raise(format!("cannot unpack non-iterable {} object", value.kind()));
                }
                let items = self.context.items(&value)?;
                let (n, wanted) = (items.len(), targets.len());
                if n > wanted {
                    return raise(format!("too many values to unpack (expected {wanted})"));
                }
                if n < wanted {
                    return raise(format!("not enough values to unpack (expected {wanted}, got {n})"));
                }
                targets.iter().zip(items).try_for_each(|(target, item)| self.assign(target, item))
            }
            Target::Attribute(symbol, name) => {
                let found = self.scopes.get(self.scope, *symbol).cloned().unwrap_or(Value::None);
                namespace::set_attribute(self.context, &found, name, value)
            }
        }
    }

    fn for_loop(&mut self, place: usize) -> Done<Flow> {
        let Some(definition) = self.program.loops.get(place) else { return Ok(Flow::On) };
        let items = self.eval(&definition.items)?;
        self.iterate(place, &items, 0, self.scope)?;
        Ok(Flow::On)
    }

    /// Runs a loop over items.
    pub(super) fn iterate(&mut self, place: usize, items: &Value, depth0: usize, parent: usize) -> Done<()> {
        let Some(definition) = self.program.loops.get(place) else { return Ok(()) };
        let mut items = self.context.items(items)?;
        if let Some(test) = &definition.test {
            items = self.scoped(parent, |renderer| renderer.selected(&definition.target, test, items))?;
        }
        if items.is_empty() {
            return match definition.otherwise {
                Some(body) => self.scoped(parent, |renderer| renderer.body(body)).map(|_| ()),
                None => Ok(()),
            };
        }
        let recursion = definition.recursive.then_some((place, parent));
        let items = Arc::new(items);
        let state = Arc::new(Object::Loop(Mutex::new(Loop {
            items: items.clone(),
            index0: 0,
            depth0,
            last_changed: None,
            recursion,
        })));
        let symbol = self.program.names.iter().position(|name| &**name == "loop");
        self.scoped(parent, |renderer| {
            for (at, item) in items.iter().enumerate() {
                renderer.scopes.clear(renderer.scope);
                if let Object::Loop(state) = &*state {
                    super::value::lock(state).index0 = at;
                }
                renderer.context.meter.step()?;
                if let Some(symbol) = symbol {
                    let value = Value::Object(state.clone());
                    renderer.scopes.set(renderer.scope, symbol as Symbol, value, &renderer.context.meter)?;
                }
                renderer.assign(&definition.target, item.clone())?;
                if renderer.body(definition.body)? == Flow::Break {
                    break;
                }
            }
            Ok(())
        })
    }

    /// The items that a loop's test lets through.
    fn selected(&mut self, target: &'p Target, test: &'p super::ast::Expr, items: Vec<Value>) -> Done<Vec<Value>> {
        let mut kept = Vec::new();
        for item in items {
            self.scopes.clear(self.scope);
            self.assign(target, item.clone())?;
            if self.eval(test)?.is_true() {
                kept.push(item);
            }
        }
        Ok(kept)
    }
}
