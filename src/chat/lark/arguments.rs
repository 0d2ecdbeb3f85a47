//! Calls and their arguments as rules.

use std::collections::HashSet;

use serde_json::Value;

use super::place::Place;
use super::{Tool, Writer, quoted, unsupported};
use crate::chat::syntax::{Field, Keys, Part};
use crate::chat::tools;
use crate::chat::value::Wanted;
use crate::error::{Error, Result};

/// What is wrong with an argument's name that would end a tag in its place.
pub(super) fn tag_name(name: &str) -> Error {
    let (found, expected) =
        (format!("with an argument called {name:?}"), "names without tags, quotes and lines".to_owned());
    Error::Argument { name: "tools_json", found, expected }
}

impl Writer<'_> {
    pub(super) fn object(&mut self, keys: &Keys, tool: &Tool<'_>) -> String {
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

    pub(super) fn parts(
        &mut self,
        family: &str,
        parts: &[Part],
        close: &Option<String>,
        tool: &Tool<'_>,
    ) -> Result<String> {
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
                Part::Pairs(notation) => self.pairs(*notation, tool)?,
                Part::Nested(before, tag) => self.nested(before, tag, tool)?,
                Part::Value { .. } => return unsupported(family),
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
        matches!(before, Some(Part::Mark(text)) if text.ends_with(['"', '=', ':']))
            || matches!(
                (before, parts.get(n)),
                (Some(Part::Field(_)), Some(Part::Mark(text))) if text.starts_with(['"', '>', '(', '{'])
            )
    }

    /// The arguments one by one, in the order of the schema.
    fn each(&mut self, parts: &[Part], tool: &Tool<'_>) -> Result<String> {
        let root = &tool.schema;
        let place = Place::of_arguments(root)?;
        self.n_schemas += place.weight();
        let required: HashSet<&str> = place.required()?.iter().filter_map(Value::as_str).collect();
        let mut out = Vec::new();
        for (name, schema) in place.properties()?.into_iter().flatten() {
            if self.is_full() {
                break;
            }
            // What would end a tag in its place.
            if name.contains(['<', '>', '"', '\n']) {
                return Err(tag_name(name));
            }
            let is_required = required.contains(name.as_str());
            let wanted = tools::wanted(root, schema, &mut self.looks, 0);
            let is_text = wanted == Wanted::TEXT || wanted == Wanted::ANY;
            let listed = if is_text {
                let Some(member) = place.member(name, schema, is_required)? else { continue };
                self.listed(&member)?
            } else {
                None
            };
            let body = self.argument(parts, root, (name, schema), is_text, listed);
            let rule = self.rule("", &format!("WS? {body}"));
            out.push(if is_required { rule } else { format!("{rule}?") });
        }
        Ok(out.join(" "))
    }

    /// The values that are listed for a text, where they are.
    fn listed<'v>(&mut self, place: &Place<'v>) -> Result<Option<Vec<&'v Value>>> {
        self.n_schemas += place.weight();
        if let Some(values) = place.values()? {
            return Ok(Some(values));
        }
        let Some(ways) = place.ways(&["type"])? else {
            let is_null = place.types()?.is_some_and(|types| types == ["null"]);
            return Ok(is_null.then(|| vec![&Value::Null]));
        };
        let mut all = Some(Vec::new());
        for way in ways {
            if self.is_full() {
                break;
            }
            match (&mut all, self.listed(&way)?) {
                (Some(all), Some(values)) => all.extend(values),
                _ => all = None,
            }
        }
        Ok(all)
    }

    /// An argument; a text is one of those listed, or any.
    fn argument(
        &mut self,
        parts: &[Part],
        root: &Value,
        (name, schema): (&str, &Value),
        text: bool,
        listed: Option<Vec<&Value>>,
    ) -> String {
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
                    match &listed {
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
