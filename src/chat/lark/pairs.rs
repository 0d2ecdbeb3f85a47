//! Arguments in notations of their own, Python's and Gemma's, as rules made of a tool's schema.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::place::Place;
use super::{Tool, Writer, exclusive, quoted};
use crate::chat::syntax::Notation;
use crate::chat::tools;
use crate::error::{Error, Result};

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
        let close = if notation == Notation::Python { ")" } else { "}" };
        let members = self.members(notation, &Place::of_arguments(&tool.schema)?, true)?;
        Ok(format!("WS? {members} WS? {}", quoted(close)))
    }

    /// An object's members in their order, Gemma's by their names; `named`: as a call's arguments are.
    fn members(&mut self, notation: Notation, place: &Place<'_>, named: bool) -> Result<String> {
        self.n_schemas += place.weight();
        let mut all: Vec<(&String, &Value)> = place.properties()?.into_iter().flatten().collect();
        if notation == Notation::Gemma {
            all.sort_by_key(|(name, _)| name.to_lowercase());
        }
        let required: HashSet<&str> = place.required()?.iter().filter_map(Value::as_str).collect();
        // From the last one on: what may come behind a member, and what may come where there has been none.
        let (mut behind, mut first) = (String::new(), "\"\"".to_owned());
        for (name, schema) in all.into_iter().rev() {
            if self.is_full() {
                break;
            }
            let is_required = required.contains(name.as_str());
            let Some(member) = place.member(name, schema, is_required)? else { continue };
            let value = self.value(notation, &member)?;
            let key = self.key(notation, name, named)?;
            let pair = self.rule("", &format!("{key} WS? {value}"));
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

    fn value(&mut self, notation: Notation, place: &Place<'_>) -> Result<String> {
        if let Some(ways) = self.ways(place)? {
            return self.one_of(&ways, |writer, way| writer.value(notation, way));
        }
        if let Some(values) = place.values()? {
            let all: Vec<String> =
                values.into_iter().map(|value| self.fixed(notation, place, value)).collect::<Result<_>>()?;
            return Ok(self.rule("", &all.join(" | ")));
        }
        let types = match place.types()? {
            Some(types) => types,
            None if place.schema.get("properties").is_some() => vec!["object"],
            None if place.is_held() => vec!["string", "number", "boolean", "null", "array", "object"],
            None => return Ok(self.any(notation)),
        };
        self.one_of(&types, |writer, name| writer.of_type(notation, place, name))
    }

    /// The schemas of which a value has to fit one, counted and checked; `None`: it is of the place's own.
    pub(super) fn ways<'s>(&mut self, place: &Place<'s>) -> Result<Option<Vec<Place<'s>>>> {
        self.n_schemas += place.weight();
        if place.is_never() {
            return place.refuse("no value is valid");
        }
        let ways = place.ways(&[])?;
        if let Some(ways) = ways.as_ref().filter(|_| place.schema.get("oneOf").is_some()) {
            exclusive::check(place, ways)?;
        }
        Ok(ways)
    }

    pub(super) fn one_of<T>(
        &mut self,
        all: &[T],
        mut write: impl FnMut(&mut Self, &T) -> Result<String>,
    ) -> Result<String> {
        let mut rules = Vec::new();
        for one in all {
            if self.is_full() {
                break;
            }
            rules.push(write(self, one)?);
        }
        Ok(self.rule("", &rules.join(" | ")))
    }

    fn of_type(&mut self, notation: Notation, place: &Place<'_>, name: &str) -> Result<String> {
        Ok(match name {
            "string" => self.text(notation),
            // Their notation is that of JSON.
            "integer" | "number" => {
                let mut own = place.schema.as_object().cloned().unwrap_or_else(Map::new);
                own.insert("type".to_owned(), Value::from(name));
                self.schema(&Value::from(own))
            }
            "boolean" => {
                let [yes, no] = [true, false].map(|value| self.fixed(notation, place, &value.into()));
                format!("({} | {})", yes?, no?)
            }
            "null" => self.fixed(notation, place, &Value::Null)?,
            "array" => self.array(notation, place)?,
            _ => {
                let members = match place.properties()? {
                    Some(_) => self.members(notation, place, false)?,
                    None if place.schema.get("additionalProperties") == Some(&Value::Bool(false)) => "\"\"".to_owned(),
                    None => self.any_members(notation),
                };
                self.rule("", &format!("\"{{\" WS? {members} WS? \"}}\""))
            }
        })
    }

    fn array(&mut self, notation: Notation, place: &Place<'_>) -> Result<String> {
        let (items, least, most) = place.items()?;
        if most == Some(0) {
            return Ok(self.rule("", "\"[\" WS? \"]\""));
        }
        let value = match items {
            Some(items) => self.value(notation, &items)?,
            None => self.any(notation),
        };
        // Behind the first one.
        let (low, high) = (least.max(1) - 1, most.map(|most| most.max(1) - 1));
        let list = match high {
            Some(0) => value,
            Some(high) => format!("{value} (WS? \",\" WS? {value}){{{low},{high}}}"),
            None => format!("{value} (WS? \",\" WS? {value}){{{low},}}"),
        };
        let list = if least == 0 { format!("({list})?") } else { list };
        Ok(self.rule("", &format!("\"[\" WS? {list} WS? \"]\"")))
    }

    /// A value that is given.
    fn fixed(&self, notation: Notation, place: &Place<'_>, value: &Value) -> Result<String> {
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
                return place
                    .refuse("an array or an object among fixed values is not supported in this model's notation");
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
