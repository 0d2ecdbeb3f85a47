//! Reads a template: its tokens and the bodies of its blocks. What stands in tags is in `statements`, `expressions` and
//! `links`.

use std::collections::HashMap;
use std::sync::Arc;

use super::ast::{Body, Kind, Program, Statement, Symbol};
use super::fault::{Done, Fault, raise};
use super::lexer::Lexer;
use super::meter::costly;
use super::shape::Tuple;
use super::token::{Token, described};
use super::value::Value;

/// Tokens of a source.
const MAX_TOKENS: u64 = 50_000;
/// Blocks in one another.
const MAX_BLOCKS: usize = 300;
/// Reads tokens into a program.
pub(super) struct Parser<'s, 'm> {
    lexer: Lexer<'s>,
    pub(super) current: Token,
    ahead: Result<Token, Fault>,
    pub(super) line: u32,
    line_ahead: u32,
    n_tokens: u64,
    pub(super) program: Program,
    symbols: HashMap<Arc<str>, Symbol>,
    /// Puts marks into the template's own text.
    mark: &'m dyn Fn(&str) -> Value,
    /// The tags that are open, and what ends each body that is read.
    pub(super) tags: Vec<String>,
    ends: Vec<&'static [&'static str]>,
    /// Loops around, for `break`.
    pub(super) n_loops: usize,
    /// For each macro around whether it reads `caller`, `kwargs` and `varargs`.
    pub(super) reads: Vec<[bool; 3]>,
    /// Whether a filter that is not there may stand here: Jinja asks only when it gets there.
    pub(super) soft: bool,
    /// What it refuses after it has read all.
    pub(super) refusals: Vec<String>,
    /// Expressions in one another.
    pub(super) depth: usize,
}

impl<'s, 'm> Parser<'s, 'm> {
    /// Reads a source whose line ends are normal.
    pub fn read(source: &'s str, mark: &'m dyn Fn(&str) -> Value) -> Result<Program, (Fault, u32)> {
        let mut parser = Parser {
            lexer: Lexer::new(source),
            current: Token::End,
            ahead: Ok(Token::End),
            line: 1,
            line_ahead: 1,
            n_tokens: 0,
            program: Program::default(),
            symbols: HashMap::new(),
            mark,
            tags: Vec::new(),
            ends: Vec::new(),
            n_loops: 0,
            reads: Vec::new(),
            soft: false,
            refusals: Vec::new(),
            depth: 0,
        };
        match parser.template() {
            Ok(body) => Ok(Program { body, ..parser.program }),
            Err(fault) => Err((fault, parser.line)),
        }
    }

    fn template(&mut self) -> Done<Body> {
        self.advance()?;
        self.advance()?;
        let body = self.body(&[])?;
        match self.refusals.first() {
            Some(words) => raise(words.clone()),
            None => Ok(body),
        }
    }

    /// Takes the current token.
    pub(super) fn advance(&mut self) -> Done<Token> {
        self.n_tokens += 1;
        if self.n_tokens > MAX_TOKENS {
            return costly(format!("more than {MAX_TOKENS} tokens"));
        }
        let ahead = std::mem::replace(&mut self.ahead, Ok(Token::End))?;
        self.line = self.line_ahead;
        // A fault further on is told when it is reached.
        self.ahead = self.lexer.token();
        self.line_ahead = self.lexer.line;
        Ok(std::mem::replace(&mut self.current, ahead))
    }

    pub(super) fn is(&self, operator: &str) -> bool {
        matches!(self.current, Token::Operator(current) if current == operator)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(&self.current, Token::Name(current) if current == name)
    }

    /// Whether the token behind the current one is this operator or name.
    pub(super) fn is_ahead(&self, what: &str) -> bool {
        match &self.ahead {
            Ok(Token::Operator(operator)) => *operator == what,
            Ok(Token::Name(name)) => name == what,
            _ => false,
        }
    }

    pub(super) fn skip(&mut self, operator: &str) -> Done<bool> {
        let found = self.is(operator);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(super) fn skip_name(&mut self, name: &str) -> Done<bool> {
        let found = self.is_name(name);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(super) fn expected<T>(&self, what: &str) -> Done<T> {
        if self.current == Token::End {
            return raise(format!("unexpected end of template, expected '{what}'."));
        }
        raise(format!("expected token '{what}', got '{}'", described(&self.current)))
    }

    pub(super) fn require(&mut self, operator: &'static str) -> Done<()> {
        if self.skip(operator)? { Ok(()) } else { self.expected(operator) }
    }

    pub(super) fn require_end(&mut self, end: Token) -> Done<()> {
        if self.current != end {
            return self.expected(&described(&end));
        }
        self.advance().map(|_| ())
    }

    pub(super) fn name(&mut self) -> Done<Arc<str>> {
        if !matches!(self.current, Token::Name(_)) {
            return self.expected("name");
        }
        match self.advance()? {
            Token::Name(name) => Ok(name.into()),
            _ => self.expected("name"),
        }
    }

    pub(super) fn symbol(&mut self, name: &str) -> Symbol {
        if let Some(&symbol) = self.symbols.get(name) {
            return symbol;
        }
        let (name, symbol): (Arc<str>, _) = (name.into(), self.program.names.len() as Symbol);
        self.program.names.push(name.clone());
        self.symbols.insert(name, symbol);
        symbol
    }

    /// The symbol of a name that is read.
    pub(super) fn read_symbol(&mut self, name: &str) -> Symbol {
        if let Some(at) = ["caller", "kwargs", "varargs"].iter().position(|special| *special == name) {
            for reads in &mut self.reads {
                if let Some(read) = reads.get_mut(at) {
                    *read = true;
                }
            }
        }
        self.symbol(name)
    }

    /// A constant text of the template.
    pub(super) fn marked(&self, text: &str) -> Value {
        (self.mark)(text)
    }

    /// Notes a filter or test that is not there.
    pub(super) fn refuse_unknown(&mut self, what: &str, name: &str, known: bool) {
        if !known && !self.soft {
            self.refusals.push(format!("No {what} named '{name}'."));
        }
    }

    /// Statements up to one of the ends, whose tag is begun then; none: up to the end of all.
    pub(super) fn body(&mut self, ends: &'static [&'static str]) -> Done<Body> {
        if self.ends.len() >= MAX_BLOCKS {
            return costly(format!("more than {MAX_BLOCKS} blocks in one another"));
        }
        let is_inner = !ends.is_empty();
        if is_inner {
            self.skip(":")?;
            self.require_end(Token::BlockEnd)?;
            self.ends.push(ends);
        }
        let mut body = Vec::new();
        loop {
            let line = self.line;
            match &self.current {
                Token::Data(_) => {
                    if let Token::Data(text) = self.advance()?
                        && let Value::Str(text) = self.marked(&text)
                    {
                        body.push(Statement { line, kind: Kind::Text(text) });
                    }
                }
                Token::PrintBegin => {
                    self.advance()?;
                    let kind = Kind::Print(self.tuple(Tuple::default())?);
                    self.require_end(Token::PrintEnd)?;
                    body.push(Statement { line, kind });
                }
                Token::BlockBegin => {
                    self.advance()?;
                    if matches!(&self.current, Token::Name(name) if is_inner && ends.contains(&name.as_str())) {
                        self.ends.pop();
                        return Ok(self.keep(body));
                    }
                    let kind = self.statement()?;
                    self.require_end(Token::BlockEnd)?;
                    body.extend(kind.map(|kind| Statement { line, kind }));
                }
                _ if is_inner => return self.fail(None),
                _ => return Ok(self.keep(body)),
            }
        }
    }

    fn keep(&mut self, body: Vec<Statement>) -> Body {
        self.program.bodies.push(body);
        self.program.bodies.len() - 1
    }

    /// The body of a block with names of its own, where a filter that is not there is refused at once.
    pub(super) fn inner_body(&mut self, ends: &'static [&'static str]) -> Done<Body> {
        let soft = std::mem::replace(&mut self.soft, false);
        let body = self.body(ends)?;
        self.soft = soft;
        Ok(body)
    }

    /// The same to its one end, which is taken.
    pub(super) fn whole_body(&mut self, ends: &'static [&'static str]) -> Done<Body> {
        let body = self.inner_body(ends)?;
        self.advance()?;
        Ok(body)
    }

    /// A tag that does not belong here, or the end of all.
    pub(super) fn fail<T>(&self, tag: Option<&str>) -> Done<T> {
        let mut message = match tag {
            Some(tag) => format!("Encountered unknown tag '{tag}'."),
            None => "Unexpected end of template.".to_owned(),
        };
        if let Some(wanted) = self.ends.last() {
            let looking = wanted.iter().map(|end| format!("'{end}'")).collect::<Vec<_>>().join(" or ");
            if tag.is_some_and(|tag| self.ends.iter().any(|ends| ends.contains(&tag))) {
                let probably =
                    "You probably made a nesting mistake. Jinja is expecting this tag, but currently looking for";
                message.push_str(&format!(" {probably} {looking}."));
            } else {
                message.push_str(&format!(" Jinja was looking for the following tags: {looking}."));
            }
        }
        if let Some(tag) = self.tags.last() {
            message.push_str(&format!(" The innermost block that needs to be closed is '{tag}'."));
        }
        raise(message)
    }
}
