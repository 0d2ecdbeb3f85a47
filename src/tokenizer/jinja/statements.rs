//! Reads a template's statements.

use std::sync::Arc;

use super::ast::{Block, Expr, For, Given, Kind, Macro, Symbol, Target};
use super::fault::{Done, raise, unsupported};
use super::names;
use super::parser::Parser;
use super::shape::{Tuple, is_call, is_constant, to_target};
use super::token::Token;

/// Tags of statements.
const STATEMENTS: [&str; 12] =
    ["for", "if", "block", "extends", "print", "macro", "include", "from", "import", "set", "with", "autoescape"];

impl Parser<'_, '_> {
    /// A statement behind its tag's opening.
    pub(super) fn statement(&mut self) -> Done<Option<Kind>> {
        let Token::Name(tag) = &self.current else { return raise("tag name expected") };
        let tag = tag.clone();
        let extensions = ["call", "filter", "generation", "break", "continue"];
        if !STATEMENTS.contains(&&*tag) && !extensions.contains(&&*tag) {
            return self.fail(Some(&tag));
        }
        self.tags.push(tag.clone());
        self.advance()?;
        let kind = match &*tag {
            "for" => self.for_loop(),
            "if" => self.conditional(),
            "set" => self.set(),
            "with" => self.with(),
            "macro" => self.macro_definition(),
            "block" => self.block(),
            "call" => self.call_block(),
            "filter" => {
                let filters = self.filters_inline()?;
                Ok(Kind::Filter(filters, self.whole_body(&["endfilter"])?))
            }
            "generation" => {
                let n_loops = std::mem::replace(&mut self.n_loops, 0);
                let body = self.whole_body(&["endgeneration"])?;
                self.n_loops = n_loops;
                Ok(Kind::Scope(body))
            }
            "break" | "continue" if self.n_loops == 0 => {
                self.refusals.push(format!("'{tag}' outside loop"));
                Ok(Kind::Break)
            }
            "break" => Ok(Kind::Break),
            "continue" => Ok(Kind::Continue),
            "print" => Ok(Kind::Print(self.tuple(Tuple::default())?)),
            "autoescape" => return unsupported("autoescape"),
            _ => {
                while !matches!(self.current, Token::BlockEnd | Token::End) {
                    self.advance()?;
                }
                Ok(Kind::Load)
            }
        }?;
        self.tags.pop();
        Ok(Some(kind))
    }

    fn for_loop(&mut self) -> Done<Kind> {
        let target = self.target(false)?;
        if !self.skip_name("in")? {
            return self.expected("in");
        }
        let items = self.tuple(Tuple { without_if: true, ..Tuple::default() })?;
        let test = if self.skip_name("if")? { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive")?;
        self.n_loops += 1;
        let body = self.inner_body(&["endfor", "else"])?;
        self.n_loops -= 1;
        let otherwise = match self.advance()? {
            Token::Name(name) if name == "else" => Some(self.whole_body(&["endfor"])?),
            _ => None,
        };
        self.program.loops.push(For { target, items, test, recursive, body, otherwise });
        Ok(Kind::For(self.program.loops.len() - 1))
    }

    fn conditional(&mut self) -> Done<Kind> {
        let soft = std::mem::replace(&mut self.soft, true);
        let mut branches = Vec::new();
        let mut otherwise = None;
        loop {
            let test = self.tuple(Tuple { without_if: true, ..Tuple::default() })?;
            branches.push((test, self.body(&["elif", "else", "endif"])?));
            match self.advance()? {
                Token::Name(name) if name == "elif" => {}
                Token::Name(name) if name == "else" => {
                    otherwise = Some(self.body(&["endif"])?);
                    self.advance()?;
                    break;
                }
                _ => break,
            }
        }
        self.soft = soft;
        Ok(Kind::If(branches, otherwise))
    }

    fn set(&mut self) -> Done<Kind> {
        let target = self.target(true)?;
        if self.skip("=")? {
            return Ok(Kind::Set(target, self.tuple(Tuple::default())?));
        }
        let filters = self.filters()?;
        Ok(Kind::SetBlock(target, filters, self.whole_body(&["endset"])?))
    }

    fn with(&mut self) -> Done<Kind> {
        let mut values = Vec::new();
        while self.current != Token::BlockEnd {
            if !values.is_empty() {
                self.require(",")?;
            }
            let target = self.target(false)?;
            self.require("=")?;
            values.push((target, self.expression()?));
        }
        Ok(Kind::With(values, self.whole_body(&["endwith"])?))
    }

    fn block(&mut self) -> Done<Kind> {
        let name = self.name()?;
        let scoped = self.skip_name("scoped")?;
        if self.skip_name("required")? {
            return unsupported("a required block");
        }
        if self.is("-") {
            return raise(
                "Block names in Jinja have to be valid Python identifiers and may not contain hyphens, use an underscore \
                 instead.",
            );
        }
        if self.program.blocks.iter().any(|block| block.name == name) {
            self.refusals.push(format!("block '{name}' defined twice"));
        }
        // It has its place before those in it.
        let place = self.program.blocks.len();
        self.program.blocks.push(Block { name: name.clone(), scoped, body: 0 });
        let n_loops = std::mem::replace(&mut self.n_loops, 0);
        let body = self.whole_body(&["endblock"])?;
        self.n_loops = n_loops;
        self.skip_name(&name)?;
        if let Some(block) = self.program.blocks.get_mut(place) {
            block.body = body;
        }
        Ok(Kind::Block(place))
    }

    fn macro_definition(&mut self) -> Done<Kind> {
        let name = self.target_name()?;
        let parameters = self.signature()?;
        self.macro_with(name, parameters, &["endmacro"]).map(Kind::Macro)
    }

    fn call_block(&mut self) -> Done<Kind> {
        let parameters = if self.is("(") { self.signature()? } else { Vec::new() };
        let call = self.expression()?;
        if !is_call(&call) {
            return raise("expected call");
        }
        let place = self.macro_with("caller".into(), parameters, &["endcall"])?;
        Ok(Kind::Call(place, call))
    }

    fn macro_with(
        &mut self,
        name: Arc<str>,
        parameters: Vec<(Symbol, Option<Expr>)>,
        ends: &'static [&'static str],
    ) -> Done<usize> {
        self.reads.push([false; 3]);
        let n_loops = std::mem::replace(&mut self.n_loops, 0);
        let body = self.whole_body(ends)?;
        self.n_loops = n_loops;
        let reads = self.reads.pop().unwrap_or_default();
        let name_of = |&(symbol, _): &(Symbol, _)| self.program.names.get(symbol as usize).cloned().unwrap_or_default();
        let names = parameters.iter().map(name_of).collect();
        let symbol = self.symbol(&name);
        self.program.macros.push(Macro { name, symbol, parameters, names, reads, body });
        Ok(self.program.macros.len() - 1)
    }

    fn signature(&mut self) -> Done<Vec<(Symbol, Option<Expr>)>> {
        self.require("(")?;
        let mut parameters = Vec::new();
        let mut defaults = false;
        while !self.is(")") {
            if !parameters.is_empty() {
                self.require(",")?;
            }
            let name = self.target_name()?;
            let symbol = self.symbol(&name);
            let default = if self.skip("=")? { Some(self.expression()?) } else { None };
            if default.is_none() && defaults {
                return raise("non-default argument follows default argument");
            }
            defaults |= default.is_some();
            parameters.push((symbol, default));
        }
        self.require(")")?;
        Ok(parameters)
    }

    /// A name that is assigned to.
    fn target_name(&mut self) -> Done<Arc<str>> {
        let name = self.name()?;
        if is_constant(&name) {
            return raise("can't assign to 'const'");
        }
        Ok(name)
    }

    /// What is assigned to.
    fn target(&mut self, with_attributes: bool) -> Done<Target> {
        let shape = Tuple { simple: true, with_attributes, ..Tuple::default() };
        let target = self.tuple(shape)?;
        to_target(target)
    }

    /// The filters of a block.
    fn filters(&mut self) -> Done<Vec<(Arc<str>, Given)>> {
        let mut filters = Vec::new();
        while self.skip("|")? {
            filters.push(self.filter_call()?);
        }
        Ok(filters)
    }

    fn filters_inline(&mut self) -> Done<Vec<(Arc<str>, Given)>> {
        let mut filters = vec![self.filter_call()?];
        filters.extend(self.filters()?);
        Ok(filters)
    }

    /// A filter's name and arguments.
    pub(super) fn filter_call(&mut self) -> Done<(Arc<str>, Given)> {
        let mut name = self.name()?;
        while self.skip(".")? {
            name = format!("{name}.{}", self.name()?).into();
        }
        let given = if self.is("(") { self.given()? } else { Given::default() };
        self.refuse_unknown("filter", &name, names::is_filter(&name));
        Ok((name, given))
    }
}
