//! What the tools are called and which of their arguments are texts.

use std::collections::HashMap;

use serde_json::Value;

use super::value::Wanted;
use crate::alloc::require;
use crate::error::{Error, Result};

/// Bytes that reading a byte of the tools' JSON takes at most, beside its text.
const BYTES_A_BYTE: usize = 48;

/// What quotes texts in Gemma's notation.
pub(super) const QUOTE: &str = "<|\"|>";

/// References that a schema may follow.
const MAX_REFERENCES: usize = 16;
/// Schemas that are looked at for what arguments may be; of what is more nothing is known.
const MOST_SCHEMAS: usize = 20_000;

/// How many schemas may still be looked at: they may name each other.
#[derive(Debug)]
pub(super) struct Looks(usize);

impl Default for Looks {
    fn default() -> Looks {
        Looks(MOST_SCHEMAS)
    }
}

/// A tool.
#[derive(Debug, Default)]
struct Tool {
    arguments: HashMap<String, Wanted>,
    /// What holds for arguments that it does not name.
    others: Option<Wanted>,
}

/// The tools of a conversation.
#[derive(Debug, Default)]
pub(super) struct Tools(HashMap<String, Tool>);

/// What is a tool's name and what is its schema, of an entry of a list of tools.
pub(super) fn parts(entry: &Value) -> Option<(&str, Option<&Value>)> {
    let function = entry.get("function").filter(|f| f.is_object()).unwrap_or(entry);
    let name = function.get("name")?.as_str()?;
    let schema = ["parameters", "input_schema", "parameter_definitions"].into_iter().find_map(|key| function.get(key));
    Some((name, schema))
}

/// The tools' JSON; null where there is none.
pub(super) fn read(json: Option<&str>) -> Result<Value> {
    let Some(text) = json else { return Ok(Value::Null) };
    require(text.len().saturating_mul(BYTES_A_BYTE))?;
    serde_json::from_str(text).map_err(|error| Error::Argument {
        name: "tools_json",
        found: error.to_string(),
        expected: "JSON".to_owned(),
    })
}

/// Whether a byte may stand in a function's name, in which no notation of calls could end.
pub(super) fn is_of_name(byte: u8) -> bool {
    !byte.is_ascii_control() && !byte.is_ascii_whitespace() && !b"\"'`<>{}[](),;=".contains(&byte)
}

impl Tools {
    /// The tools of a JSON array; what is no tool in it is passed over.
    pub fn new(tools: &Value) -> Tools {
        let entries = tools.as_array().map(Vec::as_slice).unwrap_or_default();
        let mut looks = Looks::default();
        let tools = entries.iter().filter_map(parts);
        Tools(tools.map(|(name, schema)| (name.to_owned(), Tool::new(schema, &mut looks))).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// What an argument may be.
    pub fn wanted(&self, tool: &str, argument: &str) -> Wanted {
        let Some(tool) = self.0.get(tool) else { return Wanted::ANY };
        tool.arguments.get(argument).copied().or(tool.others).unwrap_or(Wanted::ANY)
    }
}

impl Tool {
    fn new(schema: Option<&Value>, looks: &mut Looks) -> Tool {
        let Some(root) = schema else { return Tool::default() };
        let properties = root.get("properties").and_then(Value::as_object);
        let arguments = properties.into_iter().flatten();
        let arguments = arguments.map(|(name, schema)| (name.clone(), wanted(root, schema, looks, 0))).collect();
        let others =
            root.get("additionalProperties").filter(|o| o.is_object()).map(|schema| wanted(root, schema, looks, 0));
        Tool { arguments, others }
    }
}

fn either(all: impl Iterator<Item = Wanted>) -> Option<Wanted> {
    all.reduce(|a, b| Wanted { text: a.text || b.text, other: a.other || b.other })
}

fn of_value(value: &Value) -> Wanted {
    if value.is_string() { Wanted::TEXT } else { Wanted::OTHER }
}

/// What a schema allows; `root` is what its references are looked for in.
pub(super) fn wanted(root: &Value, schema: &Value, looks: &mut Looks, depth: usize) -> Wanted {
    let of_type = |name: &Value| if name == "string" { Wanted::TEXT } else { Wanted::OTHER };
    if depth > MAX_REFERENCES || looks.0 == 0 {
        return Wanted::ANY;
    }
    looks.0 -= 1;
    let found = match schema.get("type") {
        Some(Value::Array(names)) => either(names.iter().map(of_type)),
        Some(name @ Value::String(_)) => Some(of_type(name)),
        _ => None,
    };
    let listed = || either(schema.get("enum")?.as_array()?.iter().map(of_value));
    let fixed = || schema.get("const").map(of_value);
    if let Some(found) = found.or_else(listed).or_else(fixed) {
        return found;
    }
    if let Some(any) = ["anyOf", "oneOf", "allOf"].into_iter().find_map(|key| schema.get(key)?.as_array()) {
        return either(any.iter().map(|schema| wanted(root, schema, looks, depth + 1))).unwrap_or(Wanted::ANY);
    }
    let path = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
    path.and_then(|path| root.pointer(path)).map_or(Wanted::ANY, |schema| wanted(root, schema, looks, depth + 1))
}
