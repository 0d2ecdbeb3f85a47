//! Reads a GBNF text, the format of llama.cpp's grammars, as its guide describes it. A mistake is told with its line and column.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use super::tree::{LAST, Node, NodeId, Rule, RuleId, SURROGATES, Set, Tree};
use super::{MAX_DEPTH, MAX_NODES, MAX_REPEATS, MAX_TIMES, Tokens, go_on};
use crate::engine::grammar::cost::at_most;

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    tokens: &'t dyn Tokens,
    stopped: &'t AtomicBool,
    tree: Tree,
    names: HashMap<&'t str, RuleId>,
    /// Where each rule is defined, and where it was first named.
    defined: Vec<Option<usize>>,
    named: Vec<usize>,
}

type Read<T> = Result<T, String>;

/// The rules of a text.
pub(super) fn parse(text: &str, tokens: &dyn Tokens, stopped: &AtomicBool) -> Read<Tree> {
    let (names, defined, named) = (HashMap::new(), Vec::new(), Vec::new());
    let mut parser = Parser { text, at: 0, depth: 0, tokens, stopped, tree: Tree::default(), names, defined, named };
    parser.space(true);
    while parser.peek().is_some() {
        parser.rule()?;
    }
    for (rule, defined) in parser.defined.iter().enumerate() {
        if defined.is_none() {
            let name = &parser.tree.rules[rule].name;
            return Err(parser.wrong(parser.named[rule], format_args!("there is no rule called {name:?}")));
        }
    }
    let Some(root) = parser.names.get("root") else { return Err("there is no rule called \"root\"".to_owned()) };
    parser.tree.root = *root;
    Ok(parser.tree)
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-'
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, mark: &str) -> bool {
        let is = self.rest().starts_with(mark);
        self.at += if is { mark.len() } else { 0 };
        is
    }

    fn take_while(&mut self, is: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let n = rest.find(|c| !is(c)).unwrap_or(rest.len());
        self.at += n;
        &rest[..n]
    }

    /// A mistake at a place.
    fn wrong(&self, at: usize, what: impl std::fmt::Display) -> String {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("line {line}, column {column}: {what}")
    }

    /// What was expected stands not there.
    fn expected<T>(&self, what: &str) -> Read<T> {
        let found = match self.peek() {
            None => "the text ends".to_owned(),
            Some(c) => format!("{c:?}"),
        };
        Err(self.wrong(self.at, format_args!("{found}; expected {what}")))
    }

    /// White space and comments, with or without the ends of lines.
    fn space(&mut self, lines: bool) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t') || lines && matches!(c, '\r' | '\n'));
            if self.peek() != Some('#') {
                return;
            }
            self.take_while(|c| !matches!(c, '\r' | '\n'));
        }
    }

    /// The number of the rule that is called so.
    fn named(&mut self, name: &'t str, at: usize) -> RuleId {
        let n = self.names.len();
        let rule = *self.names.entry(name).or_insert(n);
        if rule == n {
            self.tree.rules.push(Rule { name: name.to_owned(), body: 0 });
            self.defined.push(None);
            self.named.push(at);
        }
        rule
    }

    fn rule(&mut self) -> Read<()> {
        let at = self.at;
        let name = self.take_while(is_of_name);
        if name.is_empty() {
            return self.expected("the name of a rule");
        }
        let rule = self.named(name, at);
        if let Some(before) = self.defined[rule].replace(at) {
            let before = self.wrong(before, "");
            let before = before.trim_end_matches(": ");
            return Err(self.wrong(at, format_args!("the rule {name:?} is defined a second time, after {before}")));
        }
        self.space(false);
        if !self.take("::=") {
            return self.expected("::=");
        }
        self.space(true);
        self.tree.rules[rule].body = self.alternatives(false)?;
        if self.peek().is_some_and(|c| !matches!(c, '\r' | '\n')) {
            return self.expected("a part of the rule or the end of its line");
        }
        self.space(true);
        Ok(())
    }

    fn add(&mut self, node: Node) -> Read<NodeId> {
        go_on(self.stopped)?;
        at_most(self.tree.nodes.len() as u64 + 1, MAX_NODES, "parts of a GBNF text")?;
        Ok(self.tree.add(node))
    }

    fn char(&mut self, set: Set) -> Read<NodeId> {
        at_most(self.tree.nodes.len() as u64 + 1, MAX_NODES, "parts of a GBNF text")?;
        Ok(self.tree.char(set))
    }

    /// `nested`: within brackets, where lines may end.
    fn alternatives(&mut self, nested: bool) -> Read<NodeId> {
        let mut all = vec![self.sequence(nested)?];
        while self.take("|") {
            self.space(true);
            all.push(self.sequence(nested)?);
        }
        if let [one] = all[..] { Ok(one) } else { self.add(Node::Alt(all)) }
    }

    fn sequence(&mut self, nested: bool) -> Read<NodeId> {
        let mut all: Vec<NodeId> = Vec::new();
        let mut n_times = 0;
        while let Some(c) = self.peek() {
            let at = self.at;
            if matches!(c, '*' | '+' | '?' | '{') {
                let Some(last) = all.pop() else { return self.expected("a part before the repetition") };
                n_times += 1;
                if n_times > MAX_TIMES {
                    return Err(self.wrong(at, format_args!("more than {MAX_TIMES} repetitions of one part")));
                }
                let (least, most) = self.times(nested)?;
                all.push(self.add(Node::Repeat(last, least, most))?);
                continue;
            }
            let part = match c {
                '"' => self.literal()?,
                '[' => self.class()?,
                '.' => {
                    self.at += 1;
                    self.char(Set::new(vec![(0, LAST)]))?
                }
                '<' | '!' => self.token()?,
                '(' => self.group()?,
                _ if is_of_name(c) => {
                    let name = self.take_while(is_of_name);
                    let rule = self.named(name, at);
                    self.add(Node::Rule(rule))?
                }
                _ => break,
            };
            all.push(part);
            n_times = 0;
            self.space(nested);
        }
        if let [one] = all[..] { Ok(one) } else { self.add(Node::Seq(all)) }
    }

    fn group(&mut self) -> Read<NodeId> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.wrong(self.at, format_args!("brackets within each other: more than {MAX_DEPTH}")));
        }
        self.at += 1;
        self.space(true);
        let inner = self.alternatives(true)?;
        if !self.take(")") {
            return self.expected("a part of the group or )");
        }
        self.depth -= 1;
        Ok(inner)
    }

    /// How often the part in front may stand there.
    fn times(&mut self, nested: bool) -> Read<(u32, Option<u32>)> {
        let at = self.at;
        let times = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            _ => {
                self.at += 1;
                self.space(nested);
                let least = self.number()?;
                self.space(nested);
                let most = if self.take(",") {
                    self.space(nested);
                    if self.peek() == Some('}') { None } else { Some(self.number()?) }
                } else {
                    Some(least)
                };
                self.space(nested);
                if self.peek() != Some('}') {
                    return self.expected("}");
                }
                if let Some(most) = most.filter(|most| *most < least) {
                    return Err(self.wrong(at, format_args!("{least} times at least and {most} at most")));
                }
                (least, most)
            }
        };
        self.at += 1;
        self.space(nested);
        Ok(times)
    }

    fn number(&mut self) -> Read<u32> {
        let at = self.at;
        let digits = self.take_while(|c| c.is_ascii_digit());
        if digits.is_empty() {
            return self.expected("a number");
        }
        let number = digits.parse().ok().filter(|n| *n <= MAX_REPEATS);
        number.ok_or_else(|| self.wrong(at, format_args!("{digits} times; at most {MAX_REPEATS}")))
    }

    fn literal(&mut self) -> Read<NodeId> {
        self.at += 1;
        let mut all = Vec::new();
        loop {
            match self.peek() {
                None => return self.expected("\" at the end of the text"),
                Some('"') => break,
                Some(_) => {}
            }
            let at = self.at;
            let c = self.character()?;
            if c.1 {
                return Err(self.wrong(at, "half of a surrogate pair, which is no character"));
            }
            all.push(self.char(Set::new(vec![(c.0, c.0)]))?);
        }
        self.at += 1;
        if let [one] = all[..] { Ok(one) } else { self.add(Node::Seq(all)) }
    }

    fn class(&mut self) -> Read<NodeId> {
        let at = self.at;
        self.at += 1;
        let negated = self.take("^");
        let mut ranges = Vec::new();
        loop {
            match self.peek() {
                None => return self.expected("] at the end of the class"),
                Some(']') => break,
                Some(_) => {}
            }
            let place = self.at;
            let (from, _) = self.character()?;
            let is_range = self.rest().starts_with('-') && !self.rest().starts_with("-]");
            let to = if is_range {
                self.at += 1;
                self.character()?.0
            } else {
                from
            };
            if to < from {
                return Err(self.wrong(place, format_args!("a range from U+{from:04X} down to U+{to:04X}")));
            }
            ranges.push((from, to));
        }
        self.at += 1;
        // llama.cpp takes [^] for no text at all.
        let is_empty = ranges.is_empty();
        let set = Set::new(ranges);
        let set = if negated { set.negated() } else { set };
        if is_empty || set.ranges().is_empty() {
            return Err(self.wrong(at, "a class of no characters"));
        }
        self.char(set)
    }

    /// A character or an escape; whether it is a surrogate.
    fn character(&mut self) -> Read<(u32, bool)> {
        let at = self.at;
        let Some(first) = self.peek() else { return self.expected("a character") };
        self.at += first.len_utf8();
        if first != '\\' {
            return Ok((first.into(), false));
        }
        let Some(escape) = self.peek() else { return self.expected("an escape") };
        self.at += escape.len_utf8();
        let n = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            't' => return Ok(('\t'.into(), false)),
            'r' => return Ok(('\r'.into(), false)),
            'n' => return Ok(('\n'.into(), false)),
            '\\' | '"' | '[' | ']' | '-' => return Ok((escape.into(), false)),
            _ => {
                let what = format_args!(
                    "the escape \\{escape}; expected \\x, \\u, \\U, \\t, \\r, \\n, \\\\, \\\", \\[, \\] or \\-"
                )
                .to_string();
                return Err(self.wrong(at, what));
            }
        };
        let digits = self.rest().get(..n).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(digits) = digits else {
            return self.expected(&format!("{n} hexadecimal digits behind \\{escape}"));
        };
        self.at += n;
        let code = u32::from_str_radix(digits, 16).unwrap_or(u32::MAX);
        if code > LAST {
            return Err(self.wrong(at, format_args!("U+{code:X}; at most U+10FFFF")));
        }
        Ok((code, (SURROGATES.0..=SURROGATES.1).contains(&code)))
    }

    fn token(&mut self) -> Read<NodeId> {
        let negated = self.take("!");
        let at = self.at;
        if !self.take("<") {
            return self.expected("<, a token");
        }
        let inner = self.take_while(|c| !matches!(c, '>' | '\r' | '\n'));
        if !self.take(">") {
            return self.expected("> at the end of a token");
        }
        let id = match inner.strip_prefix('[') {
            Some(number) => {
                let digits = number.strip_suffix(']').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
                let Some(digits) = digits.filter(|digits| !digits.is_empty()) else {
                    return Err(self.wrong(at, format_args!("<{inner}>; expected a token's number, such as <[1000]>")));
                };
                let n = self.tokens.n_vocab();
                let id = digits.parse::<u32>().ok().filter(|id| (*id as usize) < n);
                id.ok_or_else(|| self.wrong(at, format_args!("token {digits}; the vocabulary has {n}")))?
            }
            None => {
                let text = format!("<{inner}>");
                let id = self.tokens.of_text(&text);
                id.ok_or_else(|| self.wrong(at, format_args!("{text} is not one token of the vocabulary")))?
            }
        };
        if self.tokens.is_end(id) {
            let what = format_args!("token {id} ends a text, which it may where the grammar may end").to_string();
            return Err(self.wrong(at, what));
        }
        self.add(Node::Token { id, negated })
    }
}
