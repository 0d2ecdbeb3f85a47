//! Grammars made of tools: an answer's text until a call begins, and calls as the family writes them, with each tool's schema.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::parser::AnswerFormat;
use super::syntax::{Calls, Channels, Field, Item, Keys, Part, Syntax};
use super::tools;
use super::value::Wanted;
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

struct Writer<'w> {
    control: &'w ControlTexts,
    tokenizer: &'w Tokenizer,
    out: String,
    n_rules: usize,
    looks: tools::Looks,
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
        let control = tokenizer.control_texts()?;
        let (out, looks) = (TERMINALS.to_owned(), tools::Looks::default());
        let mut writer = Writer { control: &control, tokenizer, out, n_rules: 0, looks };
        writer.answer(&self.syntax, self.facts().opens_thinking, &known, choice)?;
        if writer.is_full() {
            let (found, expected) =
                ("too much for a grammar".to_owned(), format!("tools that come to at most {MOST_BYTES} bytes"));
            return Err(Error::Argument { name: "tools_json", found, expected });
        }
        Ok(writer.out)
    }
}

fn unsupported<T>(family: &str) -> Result<T> {
    Err(Error::Unsupported { what: "a grammar of tools for answers in the way of", name: family.to_owned() })
}

/// A text as a string of a Lark grammar.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A text as a regular expression of a Lark grammar.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c == '\n' {
            out.push_str("\\n");
            continue;
        }
        if "\\.+*?()|[]{}^$/".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

impl Writer<'_> {
    fn is_full(&self) -> bool {
        self.out.len() > MOST_BYTES
    }

    /// A rule of its own, and its name.
    fn rule(&mut self, attributes: &str, body: &str) -> String {
        self.n_rules += 1;
        let name = format!("r{}", self.n_rules);
        if !self.is_full() {
            // A String takes what is written to it.
            let _ = writeln!(self.out, "{name}{attributes}: {body}");
        }
        name
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

    /// The text that a mark begins with, if it does, and the rest.
    fn first(&self, text: &str) -> (Option<String>, String) {
        match self.control.pieces(text).next() {
            Some((None, first)) => (Some(first.to_owned()), self.mark(text.get(first.len()..).unwrap_or_default())),
            _ => (None, self.mark(text)),
        }
    }

    fn answer(&mut self, syntax: &Syntax, opened: bool, tools: &[Tool<'_>], choice: &ToolChoice<'_>) -> Result<()> {
        if let Some(channels) = &syntax.channels {
            let Some(to) = channels.call else { return unsupported(syntax.family) };
            return self.channels(channels, to, tools, choice);
        }
        let Some(calls) = &syntax.calls else { return unsupported(syntax.family) };
        let (Some(open), thinking) = (calls.open.first(), syntax.thinking.first()) else {
            return unsupported(syntax.family);
        };
        let many = self.calls(syntax.family, calls, tools, choice.one)?;
        let before = match thinking {
            Some((_, close)) if opened => format!("{} WS?", self.up_to(close)),
            Some((begin, close)) => {
                let thought = format!("{} {}", self.mark(begin), self.up_to(close));
                format!("(WS? {thought} WS?)?")
            }
            None => String::new(),
        };
        let before = self.rule("", if before.is_empty() { "\"\"" } else { &before });
        let all = if calls.bare {
            let plain = self.rule("", "/[^{ \\n\\r\\t](.|\\n)*/");
            if choice.required { many } else { format!("({many} | {plain})?") }
        } else if choice.required {
            format!("WS? {} {many}", self.mark(open))
        } else {
            let (first, _) = self.first(open);
            let begun = self.up_to(open);
            // Text that does not begin a call.
            let plain = match first {
                None => "FREE".to_owned(),
                Some(first) => {
                    let first = escaped(&first);
                    self.n_rules += 1;
                    let name = format!("PLAIN{}", self.n_rules);
                    let _ = writeln!(self.out, "{name}: /(.|\\n)+/ & ~/(.|\\n)*{first}(.|\\n)*/");
                    name
                }
            };
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

    fn object(&mut self, keys: &Keys, tool: &Tool<'_>) -> String {
        let schema = self.schema(&tool.schema);
        let key = |text: &str| format!("{} WS? \":\" WS?", quoted(&Value::from(text).to_string()));
        let name = quoted(&Value::from(tool.name).to_string());
        if keys.named {
            return format!("\"{{\" WS? {name} WS? \":\" WS? {schema} WS? \"}}\"");
        }
        let of = |names: &'static [&'static str]| names.first().copied().unwrap_or("name");
        // Where a family numbers its calls it does so first, Mistral gives an id last.
        let id = of(keys.id);
        let before = if id == "tool_call_id" {
            format!("{} \"\\\"\" NUMBER \"\\\"\" WS? \",\" WS?", key(id))
        } else {
            String::new()
        };
        let (name_key, arguments_key) = (key(of(keys.name)), key(of(keys.arguments)));
        let behind =
            if id == "id" { format!("(WS? \",\" WS? {} \"\\\"\" ID \"\\\"\")?", key(id)) } else { String::new() };
        format!("\"{{\" WS? {before} {name_key} {name} WS? \",\" WS? {arguments_key} {schema} {behind} WS? \"}}\"")
    }

    fn parts(&mut self, family: &str, parts: &[Part], close: &Option<String>, tool: &Tool<'_>) -> Result<String> {
        let mut out = Vec::new();
        for (n, part) in parts.iter().enumerate() {
            let piece = match part {
                Part::Mark(text) if n + 1 == parts.len() && close.is_none() => self.end_mark(text),
                Part::Mark(text) => self.mark(text),
                Part::Field(Field::Name) => quoted(tool.name),
                Part::Field(Field::IdWithName) => format!("{} NUMBER", quoted(&format!("functions.{}:", tool.name))),
                Part::Field(Field::Id) => "ID".to_owned(),
                // What stands there in DeepSeek's, and Kimi's numbers.
                Part::Field(_) if family.starts_with("deepseek") => quoted("function"),
                Part::Field(_) => "NUMBER".to_owned(),
                Part::Json => self.schema(&tool.schema),
                Part::Each(inner) => self.each(inner, tool)?,
                Part::Value { .. } | Part::Pairs(_) => return unsupported(family),
            };
            // The line that a tag ends, and white space between marks.
            out.push(if n == 0 || piece.is_empty() || self.is_tight(parts, n) {
                piece
            } else {
                format!("WS? {piece}")
            });
        }
        Ok(out.join(" "))
    }

    /// Whether a part stands right behind the one before it: a name within a tag.
    fn is_tight(&self, parts: &[Part], n: usize) -> bool {
        let before = n.checked_sub(1).and_then(|n| parts.get(n));
        matches!(before, Some(Part::Mark(text)) if text.ends_with(['"', '=']))
            || matches!(
                (before, parts.get(n)),
                (Some(Part::Field(_)), Some(Part::Mark(text))) if text.starts_with(['"', '>'])
            )
    }

    /// The arguments one by one, in the order of the schema.
    fn each(&mut self, parts: &[Part], tool: &Tool<'_>) -> Result<String> {
        let root = &tool.schema;
        let properties = root.get("properties").and_then(Value::as_object);
        let required = |name: &str| {
            let names = root.get("required").and_then(Value::as_array);
            names.is_some_and(|names| names.iter().any(|n| n == name))
        };
        let mut out = Vec::new();
        for (name, schema) in properties.into_iter().flatten() {
            if self.is_full() {
                break;
            }
            // What would end a tag in its place.
            if name.contains(['<', '>', '"', '\n']) {
                let (found, expected) =
                    (format!("with an argument called {name:?}"), "names without tags, quotes and lines".to_owned());
                return Err(Error::Argument { name: "tools_json", found, expected });
            }
            let body = self.argument(parts, root, name, schema);
            let rule = self.rule("", &format!("WS? {body}"));
            out.push(if required(name) { rule } else { format!("{rule}?") });
        }
        Ok(out.join(" "))
    }

    fn argument(&mut self, parts: &[Part], root: &Value, name: &str, schema: &Value) -> String {
        let wanted = tools::wanted(root, schema, &mut self.looks, 0);
        let text = wanted == Wanted::TEXT || wanted == Wanted::ANY;
        let mut out = Vec::new();
        let mut parts_left = parts.iter().enumerate();
        while let Some((n, part)) = parts_left.next() {
            let piece = match part {
                Part::Mark(text) => self.mark(text),
                Part::Field(Field::Key) => quoted(name),
                Part::Field(_) => quoted(of_type(schema, text, parts)),
                Part::Value { lines, .. } => {
                    let behind = match parts_left.next() {
                        Some((_, Part::Mark(behind))) => behind.as_str(),
                        _ => "",
                    };
                    let line = if *lines { "\n" } else { "" };
                    let before = if *lines { "\"\\n\"" } else { "" };
                    match schema.get("enum").and_then(Value::as_array).filter(|_| text) {
                        Some(values) => {
                            let each: Vec<String> =
                                values.iter().map(|v| quoted(v.as_str().unwrap_or(&v.to_string()))).collect();
                            let end = self.mark(&format!("{line}{behind}"));
                            format!("{before} ({}) {end}", each.join(" | "))
                        }
                        None if text => format!("{before} {}", self.up_to(&format!("{line}{behind}"))),
                        None => {
                            let end = self.mark(&format!("{line}{behind}"));
                            format!("{before} {} {end}", self.schema(&with_definitions(root, schema)))
                        }
                    }
                }
                _ => String::new(),
            };
            let value = matches!(part, Part::Value { .. });
            out.push(if n == 0 || value || self.is_tight(parts, n) { piece } else { format!("WS? {piece}") });
        }
        out.join(" ")
    }

    /// gpt-oss's messages: thinking, what is said meanwhile, then an answer or calls.
    fn channels(&mut self, channels: &Channels, to: &str, tools: &[Tool<'_>], choice: &ToolChoice<'_>) -> Result<()> {
        let [start, channel] = [0, 1].map(|n| channels.open.get(n).map(|open| self.mark(open)).unwrap_or_default());
        let message = self.mark(channels.message);
        let end = channels.ends.first().map(|end| self.mark(end)).unwrap_or_default();
        let next = format!("{end} {start} \"assistant\"");
        let thought = self.rule("", &format!("{channel} \"analysis\" {message} FREE? {next}"));
        let said = self.rule("", &format!("{channel} \"commentary\" {message} FREE? {next}"));
        let constrain = self.mark("<|constrain|>");
        let mut each = Vec::new();
        for tool in tools {
            if self.is_full() {
                break;
            }
            let schema = self.schema(&tool.schema);
            let to = quoted(&format!("{to}functions.{}", tool.name));
            let head = format!(
                "(\" \" {to} {channel} \"commentary\" \" \"? ({constrain}? \"json\")? | {channel} \"commentary \" {to} \" \"? ({constrain}? \"json\")?)"
            );
            each.push(self.rule("", &format!("{head} {message} {schema}")));
        }
        // A call's message ends with the turn.
        let call = self.rule("", &each.join(" | "));
        let last = if choice.required { call } else { format!("({call} | {channel} \"final\" {message} FREE?)") };
        let _ = writeln!(self.out, "start: {thought}* {said}? {last}");
        Ok(())
    }
}

/// What a tag says of an argument's type.
fn of_type(schema: &Value, text: bool, parts: &[Part]) -> &'static str {
    // DeepSeek's tags only tell texts from others.
    let boolean = parts.iter().any(|part| matches!(part, Part::Mark(mark) if mark.contains("string=")));
    match (boolean, schema.get("type").and_then(Value::as_str)) {
        (true, _) => {
            if text {
                "true"
            } else {
                "false"
            }
        }
        (false, Some("integer" | "number")) => "number",
        (false, Some("boolean")) => "boolean",
        (false, Some("array")) => "array",
        (false, Some("object")) => "object",
        (false, Some("null")) => "null",
        _ => "string",
    }
}

/// Whether there is a reference anywhere in it.
fn refers(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => members.iter().any(|(key, member)| key == "$ref" || refers(member)),
        Value::Array(all) => all.iter().any(refers),
        _ => false,
    }
}

/// A schema with the definitions that its references name.
fn with_definitions(root: &Value, schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Value::Object(members) = &mut schema
        && members.values().any(refers) | members.contains_key("$ref")
    {
        for key in ["$defs", "definitions"] {
            if let Some(definitions) = root.get(key).filter(|_| !members.contains_key(key)) {
                members.insert(key.to_owned(), definitions.clone());
            }
        }
    }
    schema
}
