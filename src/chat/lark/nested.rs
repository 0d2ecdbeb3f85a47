//! Arguments in tags inside of each other, as rules made of a tool's schema.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::arguments::tag_name;
use super::place::Place;
use super::{Tool, Writer, quoted};
use crate::error::Result;

/// A tag's name, where none is known.
const NAME: &str = "/[^<>\\/\"\\n]{1,100}/";

impl Writer<'_> {
    /// The arguments in tags behind this text, and what ends `tag`.
    pub(super) fn nested(&mut self, before: &str, tag: &str, tool: &Tool<'_>) -> Result<String> {
        let members = self.tags(before, &Place::of_arguments(&tool.schema)?)?;
        Ok(format!("{members} WS? {}", self.mark(&format!("{before}</{tag}>"))))
    }

    /// An object's members in the order of the schema.
    fn tags(&mut self, before: &str, place: &Place<'_>) -> Result<String> {
        self.n_schemas += place.weight();
        let required: HashSet<&str> = place.required()?.iter().filter_map(Value::as_str).collect();
        let mut out = Vec::new();
        for (name, schema) in place.properties()?.into_iter().flatten() {
            if self.is_full() {
                break;
            }
            if name.is_empty() || name.contains(['<', '>', '/', '"', '\n']) {
                return Err(tag_name(name));
            }
            let is_required = required.contains(name.as_str());
            let Some(member) = place.member(name, schema, is_required)? else { continue };
            let rule = self.tag(before, name, Some(&member))?;
            out.push(if is_required { rule } else { format!("{rule}?") });
        }
        Ok(out.join(" "))
    }

    /// A tag around a value, or around any.
    fn tag(&mut self, before: &str, name: &str, place: Option<&Place<'_>>) -> Result<String> {
        let close = format!("{before}</{name}>");
        let inner = match place {
            Some(place) => self.tagged(before, &close, place)?,
            None => self.any_tagged(before, &close),
        };
        let open = self.mark(&format!("{before}<{name}>"));
        Ok(self.rule("", &format!("WS? {open} {inner}")))
    }

    /// A value and the tag that ends it.
    fn tagged(&mut self, before: &str, close: &str, place: &Place<'_>) -> Result<String> {
        if let Some(ways) = self.ways(place)? {
            return self.one_of(&ways, |writer, way| writer.tagged(before, close, way));
        }
        let end = self.mark(close);
        if let Some(values) = place.values()? {
            let mut all = Vec::new();
            for value in values {
                all.push(match value {
                    Value::Array(_) | Value::Object(_) => {
                        return place.refuse(
                            "an array or an object among fixed values is not supported in this model's notation",
                        );
                    }
                    Value::String(text) => quoted(text),
                    other => quoted(&other.to_string()),
                });
            }
            return Ok(self.rule("", &format!("({}) {end}", all.join(" | "))));
        }
        let types = match place.types()? {
            Some(types) => types,
            None if place.schema.get("properties").is_some() => vec!["object"],
            // What is no text reads as one that is any.
            None => return Ok(self.any_tagged(before, close)),
        };
        self.one_of(&types, |writer, name| {
            Ok(match *name {
                "string" => writer.up_to(close),
                "integer" | "number" => {
                    let mut own = place.schema.as_object().cloned().unwrap_or_else(Map::new);
                    own.insert("type".to_owned(), Value::from(*name));
                    format!("{} {end}", writer.schema(&Value::from(own)))
                }
                "boolean" => format!("(\"true\" | \"false\") {end}"),
                "null" => format!("\"null\" {end}"),
                "array" => writer.items(before, place)? + " WS? " + &end,
                _ if place.properties()?.is_some() => writer.tags(before, place)? + " WS? " + &end,
                _ if place.schema.get("additionalProperties") == Some(&Value::Bool(false)) => end.clone(),
                _ => format!("{}* WS? {end}", writer.any_tag(before)),
            })
        })
    }

    fn items(&mut self, before: &str, place: &Place<'_>) -> Result<String> {
        let (items, least, most) = place.items()?;
        if most == Some(0) {
            return Ok(String::new());
        }
        let item = self.tag(before, "item", items.as_ref())?;
        Ok(match most {
            Some(most) => format!("{item}{{{least},{most}}}"),
            None => format!("{item}{{{least},}}"),
        })
    }

    /// A value of which nothing is known, and the tag that ends it.
    fn any_tagged(&mut self, before: &str, close: &str) -> String {
        let (text, tag, end) = (self.up_to(close), self.any_tag(before), self.mark(close));
        self.rule("", &format!("{text} | {tag}+ WS? {end}"))
    }

    /// Any tag: the rule of it, which is written once.
    fn any_tag(&mut self, before: &str) -> String {
        if let Some(rule) = &self.any {
            return rule.clone();
        }
        self.n_rules += 1;
        let name = format!("r{}", self.n_rules);
        self.any = Some(name.clone());
        let (open, close) = (self.mark(&format!("{before}<")), self.mark(&format!("{before}</")));
        let text = self.up_to(&format!("{before}</"));
        self.named_rule(&name, &format!("WS? {open} {NAME} \">\" ({text} | {name}+ WS? {close}) {NAME} \">\""));
        name
    }
}
