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
    /// Its place in the list.
    at: usize,
    arguments: HashMap<String, Wanted>,
    /// What holds for arguments that it does not name.
    others: Option<Wanted>,
}

/// The tools of a conversation.
#[derive(Debug, Default)]
pub(super) struct Tools {
    named: HashMap<String, Tool>,
    /// All of them, for who asks for what is inside of arguments.
    all: Value,
}

/// Schemas that are looked at for one value inside of an argument.
const FEW_SCHEMAS: usize = 64;

/// What is known of a value inside of a tool's arguments, or of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'t> {
    /// What references are looked for in, and the value's schema.
    known: Option<(&'t Value, &'t Value)>,
}

impl<'t> Place<'t> {
    /// The first that a schema, or one that it names or lists, has of what is looked for.
    fn find<T>(self, look: &dyn Fn(&'t Value) -> Option<T>) -> Option<T> {
        let (root, schema) = self.known?;
        let (mut left, mut next) = (vec![schema], 0);
        while let Some(schema) = left.get(next).copied() {
            if let Some(found) = look(schema) {
                return Some(found);
            }
            let path = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
            let lists = ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|key| schema.get(key)?.as_array()).flatten();
            left.extend(path.and_then(|path| root.pointer(path)).into_iter().chain(lists).take(FEW_SCHEMAS));
            left.truncate(FEW_SCHEMAS);
            next += 1;
        }
        None
    }

    fn inside(self, look: &dyn Fn(&'t Value) -> Option<&'t Value>) -> Place<'t> {
        let schema = self.find(look);
        Place { known: self.known.and_then(|(root, _)| Some((root, schema?))) }
    }

    /// A member.
    pub fn member(self, name: &str) -> Place<'t> {
        let others = |schema: &'t Value| schema.get("additionalProperties").filter(|schema| schema.is_object());
        let named = self.inside(&|schema| schema.get("properties")?.get(name));
        if named.known.is_some() { named } else { self.inside(&others) }
    }

    /// An array's items.
    pub fn item(self) -> Place<'t> {
        self.inside(&|schema| schema.get("items").filter(|schema| schema.is_object()))
    }

    /// Whether it says that the value may be of this type.
    pub fn may_be(self, name: &str) -> bool {
        let of_type = |schema: &Value| match schema.get("type") {
            Some(Value::Array(names)) => names.iter().any(|one| one == name),
            Some(one) => one == name,
            None => {
                let key = if name == "array" { "items" } else { "properties" };
                schema.get(key).is_some()
            }
        };
        self.find(&|schema| of_type(schema).then_some(())).is_some()
    }

    /// Whether it is a text.
    pub fn wanted(self) -> Wanted {
        self.known.map_or(Wanted::ANY, |(root, schema)| wanted(root, schema, &mut Looks(FEW_SCHEMAS), 0))
    }
}

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
    /// The tools of a JSON array; what is no tool in it is passed over. `keeps`: there is also to be known what is inside of
    /// arguments.
    pub fn new(tools: Value, keeps: bool) -> Tools {
        let entries = tools.as_array().map(Vec::as_slice).unwrap_or_default();
        let mut looks = Looks::default();
        let tool =
            |(at, entry)| parts(entry).map(|(name, schema)| (name.to_owned(), Tool::new(at, schema, &mut looks)));
        let named = entries.iter().enumerate().filter_map(tool).collect();
        Tools { named, all: if keeps { tools } else { Value::Null } }
    }

    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    pub fn has(&self, name: &str) -> bool {
        self.named.contains_key(name)
    }

    /// The arguments of a tool, if it is known and they are kept.
    pub fn place(&self, tool: &str) -> Place<'_> {
        let schema = self.named.get(tool).and_then(|tool| parts(self.all.get(tool.at)?)?.1);
        Place { known: schema.map(|schema| (schema, schema)) }
    }

    /// What an argument may be.
    pub fn wanted(&self, tool: &str, argument: &str) -> Wanted {
        let Some(tool) = self.named.get(tool) else { return Wanted::ANY };
        tool.arguments.get(argument).copied().or(tool.others).unwrap_or(Wanted::ANY)
    }
}

impl Tool {
    fn new(at: usize, schema: Option<&Value>, looks: &mut Looks) -> Tool {
        let Some(root) = schema else { return Tool { at, ..Tool::default() } };
        let properties = root.get("properties").and_then(Value::as_object);
        let arguments = properties.into_iter().flatten();
        let arguments = arguments.map(|(name, schema)| (name.clone(), wanted(root, schema, looks, 0))).collect();
        let others =
            root.get("additionalProperties").filter(|o| o.is_object()).map(|schema| wanted(root, schema, looks, 0));
        Tool { at, arguments, others }
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
