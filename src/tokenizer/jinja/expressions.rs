//! Reads a template's expressions, by the ranks that Jinja's operators have.

use super::ast::{Conditional, Expr, Link};
use super::fault::{Done, raise};
use super::meter::costly;
use super::parser::Parser;
use super::shape::{Tuple, is_constant};
use super::token::{Token, described};
use super::value::Value;

/// Brackets and operators in front of values in one another.
const MAX_DEPTH: usize = 200;

const COMPARISONS: [&str; 6] = ["==", "!=", "<", "<=", ">", ">="];

impl Parser<'_, '_> {
    /// One deeper, which is bounded.
    pub(super) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Done<T>) -> Done<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return costly(format!("more than {MAX_DEPTH} brackets and operators in one another"));
        }
        let done = read(self)?;
        self.depth -= 1;
        Ok(done)
    }

    fn is_tuple_end(&self) -> bool {
        matches!(self.current, Token::PrintEnd | Token::BlockEnd) || self.is(")")
    }

    /// Expressions with commas between them.
    pub(super) fn tuple(&mut self, shape: Tuple) -> Done<Expr> {
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            if !items.is_empty() {
                self.require(",")?;
            }
            if self.is_tuple_end() {
                break;
            }
            items.push(if shape.simple {
                self.deeper(|p| p.primary(shape.with_attributes))?
            } else if shape.without_if {
                self.or()?
            } else {
                self.expression()?
            });
            if !self.is(",") {
                break;
            }
            is_tuple = true;
        }
        if !is_tuple {
            match items.pop() {
                Some(only) => return Ok(only),
                None if !shape.in_brackets => {
                    return raise(format!("Expected an expression, got '{}'", described(&self.current)));
                }
                None => {}
            }
        }
        Ok(Expr::Tuple(items))
    }

    /// An expression.
    pub(super) fn expression(&mut self) -> Done<Expr> {
        self.deeper(|parser| {
            let n_refusals = parser.refusals.len();
            let line = parser.line;
            let expr = parser.or()?;
            let mut tests = Vec::new();
            while parser.skip_name("if")? {
                let test = parser.or()?;
                let otherwise = if parser.skip_name("else")? { Some(parser.expression()?) } else { None };
                tests.push(Conditional { test, otherwise, line });
                // What may never be reached is refused only where it is.
                parser.refusals.truncate(n_refusals);
            }
            Ok(if tests.is_empty() { expr } else { Expr::If(Box::new(expr), tests) })
        })
    }

    pub(super) fn or(&mut self) -> Done<Expr> {
        let mut items = vec![self.and()?];
        while self.skip_name("or")? {
            items.push(self.and()?);
        }
        Ok(single(items, Expr::Or))
    }

    fn and(&mut self) -> Done<Expr> {
        let mut items = vec![self.not()?];
        while self.skip_name("and")? {
            items.push(self.not()?);
        }
        Ok(single(items, Expr::And))
    }

    fn not(&mut self) -> Done<Expr> {
        if self.skip_name("not")? {
            return self.deeper(|parser| parser.not().map(|expr| Expr::Not(Box::new(expr))));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Done<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let operator = match &self.current {
                Token::Operator(operator) if COMPARISONS.contains(operator) => *operator,
                Token::Name(name) if name == "in" => "in",
                Token::Name(name) if name == "not" && self.is_ahead("in") => {
                    self.advance()?;
                    "not in"
                }
                _ => break,
            };
            self.advance()?;
            rest.push((operator, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    /// Operators of one rank.
    fn binary(&mut self, operators: &[&'static str], inner: fn(&mut Self) -> Done<Expr>) -> Done<Expr> {
        let first = inner(self)?;
        let mut rest = Vec::new();
        while let Token::Operator(operator) = self.current
            && operators.contains(&operator)
        {
            self.advance()?;
            rest.push((operator, inner(self)?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Binary(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Done<Expr> {
        self.binary(&["+", "-"], Self::concatenation)
    }

    fn concatenation(&mut self) -> Done<Expr> {
        let mut items = vec![self.product()?];
        while self.skip("~")? {
            items.push(self.product()?);
        }
        Ok(single(items, Expr::Concat))
    }

    fn product(&mut self) -> Done<Expr> {
        self.binary(&["*", "/", "//", "%"], Self::power)
    }

    fn power(&mut self) -> Done<Expr> {
        self.binary(&["**"], |parser| parser.unary(true))
    }

    fn unary(&mut self, with_filters: bool) -> Done<Expr> {
        let sign = match self.current {
            Token::Operator(sign @ ("-" | "+")) => Some(sign),
            _ => None,
        };
        let base = match sign {
            Some(sign) => {
                self.advance()?;
                Expr::Unary(sign, Box::new(self.deeper(|parser| parser.unary(false))?))
            }
            None => self.primary(false)?,
        };
        let mut links = Vec::new();
        self.postfix(&mut links)?;
        if with_filters {
            self.filtered(&mut links)?;
        }
        Ok(if links.is_empty() { base } else { Expr::Chain(Box::new(base), links) })
    }

    /// Filters, tests and calls.
    fn filtered(&mut self, links: &mut Vec<Link>) -> Done<()> {
        loop {
            if self.skip("|")? {
                let (name, given) = self.filter_call()?;
                links.push(Link::Filter(name, given));
            } else if self.is_name("is") {
                let test = self.test()?;
                links.push(test);
            } else if self.is("(") {
                links.push(Link::Call(self.given()?));
            } else {
                return Ok(());
            }
        }
    }

    pub(super) fn primary(&mut self, with_attributes: bool) -> Done<Expr> {
        let line = self.line;
        match &self.current {
            Token::Name(_) => {
                let name = self.name()?;
                if is_constant(&name) {
                    return Ok(Expr::Const(match &*name {
                        "true" | "True" => Value::Bool(true),
                        "false" | "False" => Value::Bool(false),
                        _ => Value::None,
                    }));
                }
                let symbol = self.read_symbol(&name);
                if with_attributes && self.skip(".")? {
                    let attribute = self.name()?;
                    return Ok(Expr::Chain(Box::new(Expr::Name(symbol)), vec![Link::Attribute(attribute)]));
                }
                Ok(Expr::Name(symbol))
            }
            Token::Str(_) => {
                let mut text = String::new();
                while let Token::Str(part) = &self.current {
                    text.push_str(part);
                    self.advance()?;
                }
                Ok(Expr::Const(self.marked(&text)))
            }
            Token::Int(int) => {
                let value = Value::Int(*int);
                self.advance()?;
                Ok(Expr::Const(value))
            }
            Token::Float(float) => {
                let value = Value::Float(*float);
                self.advance()?;
                Ok(Expr::Const(value))
            }
            Token::Operator("(") => {
                self.advance()?;
                let inner = self.deeper(|p| p.tuple(Tuple { in_brackets: true, ..Tuple::default() }))?;
                self.require(")")?;
                Ok(inner)
            }
            Token::Operator("[") => self.list(),
            Token::Operator("{") => self.map(),
            other => {
                self.line = line;
                raise(format!("unexpected '{}'", described(other)))
            }
        }
    }

    fn list(&mut self) -> Done<Expr> {
        self.require("[")?;
        let mut items = Vec::new();
        while !self.is("]") {
            if !items.is_empty() {
                self.require(",")?;
            }
            if self.is("]") {
                break;
            }
            items.push(self.expression()?);
        }
        self.require("]")?;
        Ok(Expr::List(items))
    }

    fn map(&mut self) -> Done<Expr> {
        self.require("{")?;
        let mut entries = Vec::new();
        while !self.is("}") {
            if !entries.is_empty() {
                self.require(",")?;
            }
            if self.is("}") {
                break;
            }
            let key = self.expression()?;
            self.require(":")?;
            entries.push((key, self.expression()?));
        }
        self.require("}")?;
        Ok(Expr::Map(entries))
    }
}

/// One expression as it is, several as one.
fn single(mut items: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    match (items.len(), items.pop()) {
        (1, Some(only)) => only,
        (_, Some(last)) => {
            items.push(last);
            many(items)
        }
        _ => many(items),
    }
}
