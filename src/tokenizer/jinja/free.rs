//! The names that a template reads without having given them a value: what it wants of its caller.
//!
//! As jinja2 reads a template: a loop, a macro and other blocks with names of their own see all that the blocks around them ever
//! name; of an `if` with an `else` what each branch names is named behind it, of another nothing. Statements in one another are walked by a
//! recursion whose depth the parser has bounded.

use std::sync::Arc;

use super::ast::{Body, Expr, For, Given, Kind, Link, Macro, Program, Statement, Symbol, Target};
use super::functions;

/// What has names of its own, which are walked when those around it are known.
#[derive(Clone, Copy)]
enum Inner<'p> {
    Loop(&'p For),
    Macro(&'p Macro),
    With(&'p [(Target, Expr)], Body),
    Body(Body),
}

struct Walk<'p> {
    program: &'p Program,
    /// In how many of the blocks around this one each name gets a value.
    outer: Vec<u32>,
    /// Whether it has one here so far; those in the order in which they got it.
    named: Vec<bool>,
    log: Vec<Symbol>,
    /// All that get one here, wherever.
    all: Vec<Symbol>,
    inner: Vec<Inner<'p>>,
    seen: Vec<bool>,
    found: Vec<Arc<str>>,
}

/// These names, in the order of their first reading; not the functions that every template has.
pub(crate) fn free_names(program: &Program) -> Vec<Arc<str>> {
    let n = program.names.len();
    let mut walk = Walk {
        program,
        outer: vec![0; n],
        named: vec![false; n],
        log: Vec::new(),
        all: Vec::new(),
        inner: Vec::new(),
        seen: vec![false; n],
        found: Vec::new(),
    };
    walk.frame(|walk| walk.body(program.body));
    walk.found
}

impl<'p> Walk<'p> {
    /// What is walked has names of its own; then what is in it.
    fn frame(&mut self, walk: impl FnOnce(&mut Self)) {
        let n = self.program.names.len();
        let named = std::mem::replace(&mut self.named, vec![false; n]);
        let (log, all) = (std::mem::take(&mut self.log), std::mem::take(&mut self.all));
        let inner = std::mem::take(&mut self.inner);
        walk(self);
        (self.named, self.log) = (named, log);
        let (all, inner) = (std::mem::replace(&mut self.all, all), std::mem::replace(&mut self.inner, inner));
        let named_in = |outer: &mut [u32], by: fn(&mut u32)| {
            all.iter().for_each(|name| outer.get_mut(*name as usize).into_iter().for_each(by));
        };
        named_in(&mut self.outer, |n| *n += 1);
        inner.into_iter().for_each(|inner| self.enter(inner));
        named_in(&mut self.outer, |n| *n -= 1);
    }

    fn enter(&mut self, inner: Inner<'p>) {
        match inner {
            Inner::Body(body) => self.frame(|walk| walk.body(body)),
            Inner::Loop(of) => {
                self.frame(|walk| {
                    walk.name_of("loop");
                    walk.target(&of.target);
                    of.test.iter().for_each(|test| walk.expr(test));
                    walk.body(of.body);
                });
                of.otherwise.into_iter().for_each(|body| self.frame(|walk| walk.body(body)));
            }
            Inner::Macro(of) => self.frame(|walk| {
                ["caller", "kwargs", "varargs"].into_iter().for_each(|name| walk.name_of(name));
                for (name, default) in &of.parameters {
                    default.iter().for_each(|default| walk.expr(default));
                    walk.name(*name);
                }
                walk.body(of.body);
            }),
            Inner::With(names, body) => self.frame(|walk| {
                names.iter().for_each(|(target, _)| walk.target(target));
                walk.body(body);
            }),
        }
    }

    fn read(&mut self, name: Symbol) {
        let at = name as usize;
        let known = self.named.get(at) == Some(&true) || self.outer.get(at).is_some_and(|n| *n > 0);
        let (Some(text), Some(seen)) = (self.program.names.get(at), self.seen.get_mut(at)) else { return };
        if !known && !std::mem::replace(seen, true) && functions::named(text).is_none() {
            self.found.push(Arc::clone(text));
        }
    }

    fn name(&mut self, name: Symbol) {
        self.all.push(name);
        if let Some(named) = self.named.get_mut(name as usize).filter(|named| !**named) {
            *named = true;
            self.log.push(name);
        }
    }

    fn name_of(&mut self, text: &str) {
        if let Some(at) = self.program.names.iter().position(|name| &**name == text) {
            self.name(at as Symbol);
        }
    }

    fn target(&mut self, target: &Target) {
        match target {
            Target::Name(name) => self.name(*name),
            Target::Tuple(targets) => targets.iter().for_each(|target| self.target(target)),
            // An attribute of what has a value already.
            Target::Attribute(name, _) => self.read(*name),
        }
    }

    fn body(&mut self, body: Body) {
        let program = self.program;
        program.bodies.get(body).into_iter().flatten().for_each(|statement| self.statement(statement));
    }

    fn statement(&mut self, statement: &'p Statement) {
        let program = self.program;
        match &statement.kind {
            Kind::Text(_) | Kind::Break | Kind::Continue | Kind::Load => {}
            Kind::Print(expr) => self.expr(expr),
            Kind::If(branches, otherwise) => self.branches(branches, *otherwise),
            Kind::For(at) => {
                let of = program.loops.get(*at);
                of.into_iter().for_each(|of| self.expr(&of.items));
                self.inner.extend(of.map(Inner::Loop));
            }
            Kind::Set(target, value) => {
                self.expr(value);
                self.target(target);
            }
            Kind::SetBlock(target, filters, body) => {
                filters.iter().for_each(|(_, given)| self.given(given));
                self.inner.push(Inner::Body(*body));
                self.target(target);
            }
            Kind::With(names, body) => {
                names.iter().for_each(|(_, value)| self.expr(value));
                self.inner.push(Inner::With(names, *body));
            }
            Kind::Macro(at) => {
                let of = program.macros.get(*at);
                of.into_iter().for_each(|of| self.name(of.symbol));
                self.inner.extend(of.map(Inner::Macro));
            }
            Kind::Call(at, call) => {
                self.expr(call);
                self.inner.extend(program.macros.get(*at).map(Inner::Macro));
            }
            Kind::Filter(filters, body) => {
                filters.iter().for_each(|(_, given)| self.given(given));
                self.inner.push(Inner::Body(*body));
            }
            Kind::Block(at) => self.inner.extend(program.blocks.get(*at).map(|block| Inner::Body(block.body))),
            Kind::Scope(body) => self.inner.push(Inner::Body(*body)),
        }
    }

    fn branches(&mut self, branches: &'p [(Expr, Body)], otherwise: Option<Body>) {
        let begin = self.log.len();
        let mut common: Option<Vec<Symbol>> = None;
        let bodies = branches.iter().map(|(test, body)| (Some(test), *body)).chain(otherwise.map(|body| (None, body)));
        for (test, body) in bodies {
            test.into_iter().for_each(|test| self.expr(test));
            self.body(body);
            let mut names = self.log.split_off(begin);
            for name in &names {
                self.named.get_mut(*name as usize).into_iter().for_each(|named| *named = false);
            }
            names.sort_unstable();
            match &mut common {
                Some(common) => common.retain(|name| names.binary_search(name).is_ok()),
                None => common = Some(names),
            }
        }
        if otherwise.is_some() {
            common.into_iter().flatten().for_each(|name| self.name(name));
        }
    }

    fn given(&mut self, given: &Given) {
        let named = given.named.iter().map(|(_, value)| value);
        let spread = given.list.iter().chain(&given.map).map(|value| &**value);
        given.positional.iter().chain(named).chain(spread).for_each(|value| self.expr(value));
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Const(_) => {}
            Expr::Name(name) => self.read(*name),
            Expr::Tuple(all) | Expr::List(all) | Expr::Concat(all) | Expr::And(all) | Expr::Or(all) => {
                all.iter().for_each(|expr| self.expr(expr));
            }
            Expr::Map(entries) => entries.iter().for_each(|(key, value)| {
                self.expr(key);
                self.expr(value);
            }),
            Expr::Chain(first, links) => {
                self.expr(first);
                links.iter().for_each(|link| self.link(link));
            }
            Expr::Binary(first, others) | Expr::Compare(first, others) => {
                self.expr(first);
                others.iter().for_each(|(_, other)| self.expr(other));
            }
            Expr::Unary(_, of) | Expr::Not(of) => self.expr(of),
            Expr::If(value, conditions) => {
                self.expr(value);
                for condition in conditions {
                    self.expr(&condition.test);
                    condition.otherwise.iter().for_each(|otherwise| self.expr(otherwise));
                }
            }
        }
    }

    fn link(&mut self, link: &Link) {
        match link {
            Link::Attribute(_) => {}
            Link::Item(item) => self.expr(item),
            Link::Slice(bounds) => bounds.iter().flatten().for_each(|bound| self.expr(bound)),
            Link::Call(given) | Link::Filter(_, given) | Link::Test(_, given, _) => self.given(given),
        }
    }
}
