//! Reads what is done to a template's values: attributes, elements, calls and tests.

use super::ast::{Expr, Given, Link};
use super::fault::{Done, raise};
use super::names;
use super::parser::Parser;
use super::token::Token;
use super::value::Value;

impl Parser<'_, '_> {
    /// Attributes, elements and calls.
    pub(super) fn postfix(&mut self, links: &mut Vec<Link>) -> Done<()> {
        loop {
            if self.is("(") {
                links.push(Link::Call(self.given()?));
            } else if self.is("[") {
                let link = self.subscript()?;
                links.push(link);
            } else if self.skip(".")? {
                match &self.current {
                    Token::Name(_) => links.push(Link::Attribute(self.name()?)),
                    Token::Int(place) => {
                        let place = Value::Int(*place);
                        self.advance()?;
                        links.push(Link::Item(Expr::Const(place)));
                    }
                    _ => return raise("expected name or number"),
                }
            } else {
                return Ok(());
            }
        }
    }

    fn subscript(&mut self) -> Done<Link> {
        self.require("[")?;
        let mut links = Vec::new();
        while !self.is("]") {
            if !links.is_empty() {
                self.require(",")?;
            }
            links.push(self.subscribed()?);
        }
        self.require("]")?;
        if links.len() == 1
            && let Some(link) = links.pop()
        {
            return Ok(link);
        }
        let item = |link| match link {
            Link::Item(expr) => Ok(expr),
            _ => raise("slices in a tuple are not supported"),
        };
        links.into_iter().map(item).collect::<Done<_>>().map(|items| Link::Item(Expr::Tuple(items)))
    }

    fn subscribed(&mut self) -> Done<Link> {
        let mut bounds = [None, None, None];
        if !self.is(":") {
            let first = self.expression()?;
            if !self.is(":") {
                return Ok(Link::Item(first));
            }
            bounds[0] = Some(first);
        }
        self.require(":")?;
        let ends = |parser: &Self| parser.is("]") || parser.is(",");
        if !self.is(":") && !ends(self) {
            bounds[1] = Some(self.expression()?);
        }
        if self.skip(":")? && !ends(self) {
            bounds[2] = Some(self.expression()?);
        }
        Ok(Link::Slice(Box::new(bounds)))
    }

    /// The arguments of a call.
    pub(super) fn given(&mut self) -> Done<Given> {
        self.require("(")?;
        let mut given = Given::default();
        let mut first = true;
        let ensure = |ok| if ok { Ok(()) } else { raise("invalid syntax for function call expression") };
        while !self.is(")") {
            if !first {
                self.require(",")?;
                if self.is(")") {
                    break;
                }
            }
            first = false;
            if self.skip("*")? {
                ensure(given.list.is_none() && given.map.is_none())?;
                given.list = Some(Box::new(self.expression()?));
            } else if self.skip("**")? {
                ensure(given.map.is_none())?;
                given.map = Some(Box::new(self.expression()?));
            } else if matches!(self.current, Token::Name(_)) && self.is_ahead("=") {
                ensure(given.map.is_none())?;
                let name = self.name()?;
                self.require("=")?;
                given.named.push((name, self.expression()?));
            } else {
                ensure(given.list.is_none() && given.map.is_none() && given.named.is_empty())?;
                given.positional.push(self.expression()?);
            }
        }
        self.require(")")?;
        Ok(given)
    }

    pub(super) fn test(&mut self) -> Done<Link> {
        self.advance()?;
        let negated = self.skip_name("not")?;
        let mut name = self.name()?;
        while self.skip(".")? {
            name = format!("{name}.{}", self.name()?).into();
        }
        let takes_one = match &self.current {
            Token::Name(name) => !["else", "or", "and"].contains(&&**name),
            Token::Str(_) | Token::Int(_) | Token::Float(_) | Token::Operator("[" | "{") => true,
            _ => false,
        };
        let mut given = Given::default();
        if self.is("(") {
            given = self.given()?;
        } else if takes_one {
            if self.is_name("is") {
                return raise("You cannot chain multiple tests with is");
            }
            let base = self.deeper(|parser| parser.primary(false))?;
            let mut links = Vec::new();
            self.postfix(&mut links)?;
            given.positional.push(if links.is_empty() { base } else { Expr::Chain(Box::new(base), links) });
        }
        self.refuse_unknown("test", &name, names::is_test(&name));
        Ok(Link::Test(name, given, negated))
    }
}
