//! Arguments in notations of their own, Python's and Gemma's, as rules made of a tool's schema.

use serde_json::{Map, Value};

use super::{Tool, Writer, quoted};
use crate::chat::syntax::Notation;
use crate::chat::tools;
use crate::error::{Error, Result};

/// Schemas inside of each other, and references in a row.
const MAX_DEPTH: usize = 16;

fn refused<T>(found: String, expected: &str) -> Result<T> {
    Err(Error::Argument { name: "tools_json", found, expected: expected.to_owned() })
}

/// A text as Python writes one.
fn python(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ => out.push(c),
        }
    }
    out.push('\'');
    out
}

impl Writer<'_> {
    /// The arguments behind the bracket that begins them, and the one that ends them.
    pub(super) fn pairs(&mut self, notation: Notation, tool: &Tool<'_>) -> Result<String> {
        let (root, close) = (&tool.schema, if notation == Notation::Python { ")" } else { "}" });
        let members = self.members(notation, root, root, true, 0)?;
        Ok(format!("WS? {members} WS? {}", quoted(close)))
    }

    /// An object's members in their order, Gemma's by their names; `named`: as a call's arguments are.
    fn members(
        &mut self,
        notation: Notation,
        root: &Value,
        schema: &Value,
        named: bool,
        depth: usize,
    ) -> Result<String> {
        let properties = schema.get("properties").and_then(Value::as_object);
        let mut all: Vec<(&String, &Value)> = properties.into_iter().flatten().collect();
        if notation == Notation::Gemma {
            all.sort_by_key(|(name, _)| name.to_lowercase());
        }
        let required = schema.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        // From the last one on: what may come behind a member, and what may come where there has been none.
        let (mut behind, mut first) = (String::new(), "\"\"".to_owned());
        for (name, schema) in all.into_iter().rev() {
            if self.is_full() {
                break;
            }
            let value = self.value(notation, root, schema, depth + 1)?;
            let key = self.key(notation, name, named)?;
            let pair = self.rule("", &format!("{key} WS? {value}"));
            let is_required = required.iter().any(|required| required == name);
            let alone = self.rule("", &format!("{pair} {behind}"));
            first = if is_required { alone } else { self.rule("", &format!("({alone} | {first})")) };
            let more = format!("WS? \",\" WS? {pair}");
            let more = if is_required { more } else { format!("({more})?") };
            behind = self.rule("", &format!("{more} {behind}"));
        }
        Ok(first)
    }

    /// A member's name with what stands behind it.
    fn key(&self, notation: Notation, name: &str, named: bool) -> Result<String> {
        let is_plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-' && notation == Notation::Gemma;
        let python_text = notation == Notation::Python && !named;
        if !python_text && (name.is_empty() || !name.chars().all(is_plain)) {
            return refused(format!("with an argument called {name:?}"), "names of letters, digits and _");
        }
        Ok(match (notation, named) {
            (Notation::Python, true) => format!("{} WS? \"=\"", quoted(name)),
            (Notation::Python, false) => {
                format!("({} | {}) WS? \":\"", quoted(&python(name)), quoted(&Value::from(name).to_string()))
            }
            (Notation::Gemma, _) => format!("{} WS? \":\"", quoted(name)),
        })
    }

    fn value(&mut self, notation: Notation, root: &Value, schema: &Value, depth: usize) -> Result<String> {
        if depth > MAX_DEPTH {
            return refused(format!("with a schema of more than {MAX_DEPTH} inside of each other"), "fewer");
        }
        if let Some(path) = schema.get("$ref").and_then(Value::as_str) {
            return match path.strip_prefix('#').and_then(|path| root.pointer(path)) {
                Some(schema) => self.value(notation, root, schema, depth + 1),
                None => refused(format!("with a reference to {path:?}"), "references into the tool's own schema"),
            };
        }
        let fixed = schema.get("const").map(std::slice::from_ref);
        if let Some(values) = schema.get("enum").and_then(Value::as_array).map(Vec::as_slice).or(fixed) {
            let all: Vec<String> = values.iter().map(|value| self.fixed(notation, value)).collect::<Result<_>>()?;
            return Ok(self.rule("", &all.join(" | ")));
        }
        if let Some(any) = ["anyOf", "oneOf"].into_iter().find_map(|key| schema.get(key)?.as_array()) {
            return self.one_of(any, |writer, schema| writer.value(notation, root, schema, depth + 1));
        }
        let types = match schema.get("type") {
            Some(Value::Array(types)) => types.clone(),
            Some(one) => vec![one.clone()],
            None if schema.get("properties").is_some() => vec![Value::from("object")],
            None => return Ok(self.any(notation)),
        };
        self.one_of(&types, |writer, name| {
            writer.of_type(notation, root, schema, name.as_str().unwrap_or_default(), depth)
        })
    }

    fn one_of(&mut self, all: &[Value], mut write: impl FnMut(&mut Self, &Value) -> Result<String>) -> Result<String> {
        let mut rules = Vec::new();
        for one in all {
            if self.is_full() {
                break;
            }
            rules.push(write(self, one)?);
        }
        Ok(self.rule("", &rules.join(" | ")))
    }

    fn of_type(
        &mut self,
        notation: Notation,
        root: &Value,
        schema: &Value,
        name: &str,
        depth: usize,
    ) -> Result<String> {
        Ok(match name {
            "string" => self.text(notation),
            // Their notation is that of JSON.
            "integer" | "number" => {
                let mut own = schema.as_object().cloned().unwrap_or_else(Map::new);
                own.insert("type".to_owned(), Value::from(name));
                self.schema(&Value::from(own))
            }
            "boolean" => {
                format!("({} | {})", self.fixed(notation, &true.into())?, self.fixed(notation, &false.into())?)
            }
            "null" => self.fixed(notation, &Value::Null)?,
            "array" => {
                let value = match schema.get("items") {
                    Some(items) => self.value(notation, root, items, depth + 1)?,
                    None => self.any(notation),
                };
                let count = |key: &str| schema.get(key).and_then(Value::as_u64);
                let (least, most) = (count("minItems").unwrap_or(0), count("maxItems"));
                let list = match most {
                    Some(0) => "\"\"".to_owned(),
                    Some(most) => {
                        format!("{value} (WS? \",\" WS? {value}){{{},{}}}", least.max(1) - 1, most.max(2) - 1)
                    }
                    None => format!("{value} (WS? \",\" WS? {value}){{{},}}", least.max(1) - 1),
                };
                let list = if least == 0 { format!("({list})?") } else { list };
                self.rule("", &format!("\"[\" WS? {list} WS? \"]\""))
            }
            "object" if schema.get("properties").is_some() => {
                let members = self.members(notation, root, schema, false, depth)?;
                self.rule("", &format!("\"{{\" WS? {members} WS? \"}}\""))
            }
            "object" => {
                let members = self.any_members(notation);
                self.rule("", &format!("\"{{\" WS? {members} WS? \"}}\""))
            }
            _ => return refused(format!("with the type {name:?}"), "a type of JSON"),
        })
    }

    /// A value that is given.
    fn fixed(&self, notation: Notation, value: &Value) -> Result<String> {
        let word = |python: &str, gemma: &str| quoted(if notation == Notation::Python { python } else { gemma });
        Ok(match value {
            Value::String(text) if notation == Notation::Python => quoted(&python(text)),
            Value::String(text) => {
                let quote = self.mark(tools::QUOTE);
                format!("{quote} {} {quote}", quoted(text))
            }
            Value::Bool(true) => word("True", "true"),
            Value::Bool(false) => word("False", "false"),
            Value::Null => word("None", "null"),
            Value::Number(number) => quoted(&number.to_string()),
            Value::Array(_) | Value::Object(_) => {
                return refused("with an array or an object in an enum".to_owned(), "texts, numbers and words");
            }
        })
    }

    /// Any text.
    fn text(&mut self, notation: Notation) -> String {
        match notation {
            Notation::Python => {
                self.rule("", "/'([^'\\\\\\n]|\\\\['\"\\\\nrt])*'/ | /\"([^\"\\\\\\n]|\\\\['\"\\\\nrt])*\"/")
            }
            Notation::Gemma => {
                let quote = self.mark(tools::QUOTE);
                let rest = self.up_to(tools::QUOTE);
                self.rule("", &format!("{quote} {rest}"))
            }
        }
    }

    /// Any value: the rule of it, which is written once.
    fn any(&mut self, notation: Notation) -> String {
        if let Some(rule) = &self.any {
            return rule.clone();
        }
        self.n_rules += 1;
        let name = format!("r{}", self.n_rules);
        self.any = Some(name.clone());
        let text = self.text(notation);
        let number = self.schema(&serde_json::json!({"type": "number"}));
        let words = ["True", "False", "None", "true", "false", "null"].map(quoted);
        let (python, gemma) = words.split_at(3);
        let words = if notation == Notation::Python { python } else { gemma }.join(" | ");
        let members = self.any_members(notation);
        let list = format!("\"[\" WS? ({name} (WS? \",\" WS? {name})*)? WS? \"]\"");
        self.named_rule(&name, &format!("{text} | {number} | {words} | {list} | \"{{\" WS? {members} WS? \"}}\""));
        name
    }

    fn any_members(&mut self, notation: Notation) -> String {
        let value = self.any(notation);
        let key = match notation {
            Notation::Python => self.text(notation),
            Notation::Gemma => "/[A-Za-z0-9_-]+/".to_owned(),
        };
        let pair = self.rule("", &format!("{key} WS? \":\" WS? {value}"));
        self.rule("", &format!("({pair} (WS? \",\" WS? {pair})*)?"))
    }
}
