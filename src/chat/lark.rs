//! Grammars made of tools: an answer's text until a call begins, and calls as the family writes them, with each tool's schema.

mod arguments;
mod exclusive;
mod messages;
mod nested;
mod pairs;
mod place;

use std::fmt::Write;

use serde_json::{Map, Value};

use super::parser::AnswerFormat;
use super::syntax::{Calls, Item, Part};
use super::tools;
use crate::error::{Error, Result};
use crate::tokenizer::{ControlTexts, Tokenizer};

/// What calls there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToolChoice<'a> {
    /// There is one at least, and no text beside calls.
    pub required: bool,
    /// All are of the tool that is called so.
    pub name: Option<&'a str>,
    /// There is one at most.
    pub one: bool,
}

/// Text of any length, and some white space.
const TERMINALS: &str = "FREE: /(.|\\n)+/\nWS: /[ \\n\\r\\t]{1,8}/\nID: /[A-Za-z0-9_-]{1,40}/\nNUMBER: /[0-9]{1,9}/\n";

/// Bytes of such a grammar, as of any: what would have more is not written to its end.
const MOST_BYTES: usize = 4 << 20;

/// Schemas that it is made of: what they refer to counts each time.
const MOST_SCHEMAS: usize = 500_000;

struct Writer<'w> {
    control: &'w ControlTexts,
    tokenizer: &'w Tokenizer,
    out: String,
    n_rules: usize,
    /// Schemas that arguments in notations of their own were made of, and what is listed in them.
    n_schemas: usize,
    looks: tools::Looks,
    /// The rule of any value in the family's notation, once there is one.
    any: Option<String>,
}

/// A tool's name and its schema.
struct Tool<'t> {
    name: &'t str,
    schema: Value,
}

impl AnswerFormat {
    /// The Lark text that holds an answer to the tools, a JSON array.
    ///
    /// Fails with `Argument` where there is no such tool, with `Unsupported` where the family has no grammar.
    pub fn grammar(&self, tokenizer: &Tokenizer, tools: Option<&str>, choice: &ToolChoice<'_>) -> Result<String> {
        let read = tools::read(tools)?;
        let entries = read.as_array().map(Vec::as_slice).unwrap_or_default();
        let all = entries.iter().filter_map(tools::parts);
        let chosen = all.filter(|(name, _)| choice.name.is_none_or(|wanted| wanted == *name));
        let mut known: Vec<Tool<'_>> = Vec::new();
        for (name, schema) in chosen {
            if name.is_empty() || !name.bytes().all(tools::is_of_name) {
                let expected = "names without white space, quotes, brackets, commas, semicolons and =".to_owned();
                return Err(Error::Argument {
                    name: "tools_json",
                    found: format!("with a tool called {name:?}"),
                    expected,
                });
            }
            let empty = || Value::Object(Map::from_iter([("type".to_owned(), Value::from("object"))]));
            known.push(Tool { name, schema: schema.cloned().unwrap_or_else(empty) });
        }
        if known.is_empty() {
            let found =
                choice.name.map_or("without tools".to_owned(), |name| format!("without a tool called {name:?}"));
            return Err(Error::Argument { name: "tools_json", found, expected: "tools to call".to_owned() });
        }
        let (control, out, looks) = (tokenizer.control_texts()?, TERMINALS.to_owned(), tools::Looks::default());
        let mut writer = Writer { control, tokenizer, out, n_rules: 0, n_schemas: 0, looks, any: None };
        writer.answer(self, &known, choice)?;
        if writer.is_full() {
            let (found, expected) = (
                "too much for a grammar".to_owned(),
                format!("tools that come to at most {MOST_BYTES} bytes of {MOST_SCHEMAS} schemas"),
            );
            return Err(Error::Argument { name: "tools_json", found, expected });
        }
        Ok(writer.out)
    }
}

fn unsupported<T>(family: &str) -> Result<T> {
    Err(Error::Unsupported { what: "a grammar of tools for answers in the way of", name: family.to_owned() })
}

/// A text as a string of a Lark grammar, whose strings are those of JSON, without DEL as it is.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A text as a regular expression of a Lark grammar, in which a line does not end and `/` ends it.
fn escaped(text: &str) -> String {
    regex_syntax::escape(text).replace('/', "\\/").replace('\n', "\\n")
}

impl Writer<'_> {
    fn is_full(&self) -> bool {
        self.out.len() > MOST_BYTES || self.n_schemas > MOST_SCHEMAS
    }

    /// A rule of its own, and its name.
    fn rule(&mut self, attributes: &str, body: &str) -> String {
        self.n_rules += 1;
        let name = format!("r{}", self.n_rules);
        self.named_rule(&format!("{name}{attributes}"), body);
        name
    }

    fn named_rule(&mut self, name: &str, body: &str) {
        if !self.is_full() {
            // A String takes what is written to it.
            let _ = writeln!(self.out, "{name}: {body}");
        }
    }

    /// A mark, of control tokens and text in a row.
    fn mark(&self, text: &str) -> String {
        let piece = |(id, text): (Option<u32>, &str)| id.map_or_else(|| quoted(text), |id| format!("<[{id}]>"));
        self.control.pieces(text).map(piece).collect::<Vec<_>>().join(" ")
    }

    /// A mark that a generation may end with in place of it: nothing then.
    fn end_mark(&self, text: &str) -> String {
        let ends = |(id, _): (Option<u32>, &str)| id.is_some_and(|id| self.tokenizer.is_end_of_generation(id));
        if self.control.pieces(text).any(ends) { String::new() } else { self.mark(text) }
    }

    /// Any text up to a mark, and the mark.
    fn up_to(&mut self, text: &str) -> String {
        let (first, rest) = self.first(text);
        match first {
            None => format!("FREE? {rest}"),
            Some(first) => {
                let head = self.rule("[lazy]", &format!("/(.|\\n)*{}/", escaped(&first)));
                format!("{head} {rest}")
            }
        }
    }

    /// Text in which the mark does not begin.
    fn without(&mut self, text: &str) -> String {
        let (Some(first), _) = self.first(text) else { return "FREE".to_owned() };
        self.n_rules += 1;
        let name = format!("PLAIN{}", self.n_rules);
        let _ = writeln!(self.out, "{name}: /(.|\\n)+/ & ~/(.|\\n)*{}(.|\\n)*/", escaped(&first));
        name
    }

    /// The text that a mark begins with, if it does, and the rest.
    fn first(&self, text: &str) -> (Option<String>, String) {
        match self.control.pieces(text).next() {
            Some((None, first)) => (Some(first.to_owned()), self.mark(text.get(first.len()..).unwrap_or_default())),
            _ => (None, self.mark(text)),
        }
    }

    fn answer(&mut self, format: &AnswerFormat, tools: &[Tool<'_>], choice: &ToolChoice<'_>) -> Result<()> {
        let syntax = &*format.syntax;
        if let Some(channels) = &syntax.channels {
            // A message that is gone on with has its head behind it.
            let all = match (channels.call, &syntax.calls) {
                _ if format.is_continued => return unsupported(syntax.family),
                (Some(""), _) => self.named(channels, tools, choice),
                (Some(to), _) => self.channels(channels, to, tools, choice),
                (None, Some(calls)) => self.addressed(syntax.family, channels, calls, tools, choice)?,
                (None, None) => return unsupported(syntax.family),
            };
            let _ = writeln!(self.out, "start: {all}");
            return Ok(());
        }
        let Some(calls) = &syntax.calls else { return unsupported(syntax.family) };
        let Some(open) = calls.open.first() else { return unsupported(syntax.family) };
        let many = self.calls(syntax.family, calls, tools, choice.one)?;
        let before = match format.opened.and_then(|pair| syntax.thinking.get(pair)) {
            Some((_, close)) => format!("{} WS?", self.up_to(close)),
            None if syntax.thinking.is_empty() || format.is_continued => "\"\"".to_owned(),
            None => {
                let thought = |(begin, close): &(String, String)| format!("{} {}", self.mark(begin), self.up_to(close));
                let thoughts: Vec<String> = syntax.thinking.iter().map(thought).collect();
                format!("(WS? ({}) WS?)?", thoughts.join(" | "))
            }
        };
        let before = self.rule("", &before);
        let all = if calls.bare {
            let plain = self.rule("", "/[^{ \\n\\r\\t](.|\\n)*/");
            if choice.required { many } else { format!("({many} | {plain})?") }
        } else if choice.required {
            format!("WS? {} {many}", self.mark(open))
        } else {
            let (begun, plain) = (self.up_to(open), self.without(open));
            format!("({begun} {many} | {plain})?")
        };
        let _ = writeln!(self.out, "start: {before} {all}");
        Ok(())
    }

    /// Calls from behind what opens the first.
    fn calls(&mut self, family: &str, calls: &Calls, tools: &[Tool<'_>], one: bool) -> Result<String> {
        let mut each = Vec::new();
        for tool in tools {
            if self.is_full() {
                break;
            }
            let body = match &calls.item {
                Item::Object(keys) => self.object(keys, tool),
                Item::Parts(parts) => self.parts(family, parts, &calls.close, tool)?,
            };
            each.push(self.rule("", &body));
        }
        let item = self.rule("", &each.join(" | "));
        let open = calls.open.first().map(|open| self.mark(open)).unwrap_or_default();
        let close = calls.close.as_deref().map(|close| self.end_mark(close)).unwrap_or_default();
        let inner = if calls.brackets {
            let more = if one { String::new() } else { format!("(WS? \",\" WS? {item})*") };
            format!("WS? \"[\" WS? {item} {more} WS? \"]\" WS? {close}")
        } else {
            format!("WS? {item} WS? {close}")
        };
        let section_of_many = matches!(&calls.item, Item::Parts(parts) if matches!(parts.first(), Some(Part::Mark(_))));
        let again = match () {
            () if one || calls.bare || calls.brackets => String::new(),
            // Parts that begin with a mark of their own stand in a row within one opening; both are in use.
            () if (section_of_many || calls.row) && calls.close.is_some() => {
                let items = format!("(WS? {item})+ WS? {close}");
                return Ok(self.rule("", &format!("{items} (WS? {open} {items})* WS?")));
            }
            () => format!("(WS? {open} {inner})*"),
        };
        Ok(self.rule("", &format!("{inner} {again}")))
    }

    fn schema(&mut self, schema: &Value) -> String {
        self.rule("", &format!("%json {schema}"))
    }
}
