//! What a JSON schema may cost its parser: its parts, with the copies that are made where something narrows what `$ref`
//! stands for.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::cost::*;

/// What is counted in a schema wherever it stands.
#[derive(Default)]
pub(super) struct Found {
    references: u64,
    fields: u64,
    regex_bytes: u64,
    brackets: u64,
    classes: u64,
}

impl Found {
    fn regex(&mut self, text: &str) {
        self.regex_bytes += text.len() as u64;
        self.brackets += text.bytes().filter(|b| *b == b'(').count() as u64;
        self.classes += classes(text);
    }

    pub(super) fn look(&mut self, value: &Value) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.look(value)),
            Value::Object(map) => {
                self.fields = self.fields.max(map.len() as u64);
                for (key, value) in map {
                    match (key.as_str(), value) {
                        ("$ref", Value::String(_)) => self.references += 1,
                        ("patternProperties", Value::Object(map)) => map.keys().for_each(|key| self.regex(key)),
                        (
                            "pattern" | "whitespace_pattern" | "item_separator" | "key_separator",
                            Value::String(text),
                        ) => self.regex(text),
                        _ => {}
                    }
                    self.look(value);
                }
            }
            _ => {}
        }
    }

    pub(super) fn cost(&self) -> Result<Cost, String> {
        at_most(self.regex_bytes, MAX_LARK_BYTES as u64, "bytes of regular expressions")?;
        at_most(self.classes, MAX_CLASSES, "classes of characters")?;
        at_most(self.fields, MAX_PARTS, "members of an object")?;
        // JSON nests 128 deep, and from each reference on again.
        let levels = (129 * (self.references + 1)).min(MAX_SCHEMA_LEVELS);
        // Objects that narrow each other have the fields of all: no more than these in the end.
        let stack = BASE_STACK + levels * SCHEMA_LEVEL + MAX_FIELDS * FIELD;
        let step_stack =
            if self.brackets > SHALLOW { (BASE_STACK + self.brackets.min(4096) * 2048) as usize } else { 0 };
        Ok(Cost { stack: stack as usize, step_stack })
    }
}

/// A schema's part with all that belongs to it.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// Parts, with those of references where these are copied; with those of all references.
    kept: u64,
    whole: u64,
    /// Alternatives.
    options: u64,
    /// Of a string in it.
    branches: u64,
    /// Of an object in it.
    fields: u64,
    /// Of one whose properties are counted.
    counted: u64,
    name_patterns: u64,
    /// It refers to itself.
    recurs: bool,
}

const NOTHING: Part =
    Part { kept: 0, whole: 0, options: 1, branches: 1, fields: 0, counted: 0, name_patterns: 0, recurs: false };

impl Part {
    /// Both are there, in different places.
    fn beside(self, b: Part) -> Part {
        Part {
            kept: self.kept.saturating_add(b.kept),
            whole: self.whole.saturating_add(b.whole),
            options: self.options.max(b.options),
            branches: self.branches.max(b.branches),
            fields: self.fields.max(b.fields),
            counted: self.counted.max(b.counted),
            name_patterns: self.name_patterns.max(b.name_patterns),
            recurs: self.recurs || b.recurs,
        }
    }

    /// Both hold in the same place, where each alternative of one meets each of the other.
    fn narrowed(self, b: Part) -> Part {
        let whole = if self.recurs || b.recurs {
            self.whole.saturating_mul(b.whole.max(1))
        } else {
            self.whole.saturating_mul(b.options).saturating_add(b.whole.saturating_mul(self.options))
        };
        let fields = self.fields.saturating_add(b.fields);
        Part {
            kept: whole,
            whole,
            options: self.options.saturating_mul(b.options),
            branches: self.branches.saturating_mul(b.branches),
            fields,
            counted: if self.counted.max(b.counted) > 0 { fields } else { 0 },
            name_patterns: self.name_patterns.saturating_add(b.name_patterns),
            recurs: self.recurs || b.recurs,
        }
    }
}

/// A schema's parts as they are weighed; `None`: the reference is being followed.
struct Schema<'a> {
    root: &'a Value,
    references: HashMap<&'a str, Option<Part>>,
    /// Parts of all that was referred to.
    kept: u64,
    /// Parts that the one that is looked at stands in, and the most there were.
    level: u64,
    deepest: u64,
}

pub(super) fn check(root: &Value) -> Result<(), String> {
    let mut schema = Schema { root, references: HashMap::new(), kept: 0, level: 0, deepest: 0 };
    let part = schema.part(root);
    at_most(schema.deepest, MAX_LEVELS, "parts of a schema inside of each other")?;
    at_most(
        schema.kept.saturating_add(part.kept),
        MAX_PARTS,
        "parts of a schema, with the copies of what is referred to",
    )?;
    at_most(part.branches, MAX_BRANCHES, "branches of patterns that a string has to match at once")?;
    at_most(part.name_patterns, MAX_NAME_PATTERNS, "patterns for the names of an object's properties")?;
    at_most(part.fields, MAX_FIELDS, "properties of an object")?;
    at_most(part.counted, MAX_COUNTED_FIELDS, "properties of an object with minProperties or maxProperties")
}

impl<'a> Schema<'a> {
    fn reference(&mut self, name: &'a str) -> Part {
        match self.references.get(name) {
            Some(Some(part)) => return *part,
            Some(None) => return Part { whole: 1, recurs: true, ..NOTHING },
            None => {}
        }
        let mut at = Some(self.root);
        if let Some(path) = name.strip_prefix("#/").filter(|path| !path.is_empty()) {
            for step in path.split('/') {
                at = at.and_then(|value| match value {
                    Value::Array(values) => values.get(step.parse::<usize>().ok()?),
                    value => value.get(step),
                });
            }
        }
        self.references.insert(name, None);
        let part = at.map_or(NOTHING, |value| self.part(value));
        self.references.insert(name, Some(part));
        self.kept = self.kept.saturating_add(part.kept);
        part
    }

    fn all(&mut self, values: &'a [Value], join: fn(Part, Part) -> Part) -> Part {
        values.iter().map(|value| self.part(value)).reduce(join).unwrap_or(NOTHING)
    }

    fn members(&mut self, map: &'a Map<String, Value>, key: &str) -> Part {
        let Some(Value::Object(members)) = map.get(key) else { return NOTHING };
        members.values().map(|value| self.part(value)).fold(NOTHING, Part::beside)
    }

    fn part(&mut self, value: &'a Value) -> Part {
        let one = Part { kept: 1, whole: 1, ..NOTHING };
        let Value::Object(map) = value else { return one };
        self.deepest = self.deepest.max(self.level);
        if self.level > MAX_LEVELS {
            return one;
        }
        self.level += 1;
        let part = self.object(map);
        self.level -= 1;
        part.beside(one)
    }

    fn object(&mut self, map: &'a Map<String, Value>) -> Part {
        let mut parts = Vec::new();
        if let Some(own) = self.own(map) {
            parts.push(own);
        }
        for (key, value) in map {
            match (key.as_str(), value) {
                ("allOf", Value::Array(values)) => parts.push(self.all(values, Part::narrowed)),
                ("anyOf" | "oneOf", Value::Array(values)) => {
                    let part = self.all(values, Part::beside);
                    parts.push(Part { options: values.len() as u64 * part.options, ..part });
                }
                ("enum", Value::Array(values)) => {
                    let n = values.iter().map(size).sum();
                    parts.push(Part { kept: n, whole: n, options: values.len() as u64, ..NOTHING });
                }
                ("const", value) => parts.push(Part { kept: size(value), whole: size(value), ..NOTHING }),
                ("$ref", Value::String(name)) => {
                    let part = self.reference(name);
                    // Alone it stays a reference.
                    parts.push(Part { kept: 0, whole: part.whole.saturating_add(1), ..part });
                }
                _ => {}
            }
        }
        parts.into_iter().reduce(Part::narrowed).unwrap_or(NOTHING)
    }

    /// What stands in an object itself.
    fn own(&mut self, map: &'a Map<String, Value>) -> Option<Part> {
        let known = |key: &str| {
            let first = ["type", "properties", "patternProperties", "additionalProperties", "required", "items"];
            let second = ["prefixItems", "additionalItems", "pattern", "format", "minLength", "maxLength"];
            first.contains(&key) || second.contains(&key)
        };
        let counts = map.contains_key("minProperties") || map.contains_key("maxProperties");
        if !counts && !map.keys().any(|key| known(key)) {
            return None;
        }
        let count = |key: &str| match map.get(key) {
            Some(Value::Object(members)) => members.len() as u64,
            Some(Value::Array(members)) => members.len() as u64,
            _ => 0,
        };
        let fields = self.members(map, "properties");
        let named = self.members(map, "patternProperties");
        // A property whose name a pattern matches too is narrowed by it.
        let both = count("properties") > 0 && count("patternProperties") > 0;
        let mut part = if both { fields.narrowed(named) } else { fields.beside(named) };
        for key in ["additionalProperties", "items", "prefixItems", "additionalItems"] {
            match map.get(key) {
                Some(Value::Array(values)) => part = part.beside(self.all(values, Part::beside)),
                Some(value) => part = part.beside(self.part(value)),
                None => {}
            }
        }
        let n = count("properties") + count("required");
        let mut of_string = 1u64;
        if let Some(Value::String(pattern)) = map.get("pattern") {
            of_string = of_string.saturating_mul(branches(pattern));
        }
        if map.contains_key("format") {
            of_string = of_string.saturating_mul(64);
        }
        if map.contains_key("minLength") || map.contains_key("maxLength") {
            of_string = of_string.saturating_mul(2);
        }
        if let Some(Value::Object(members)) = map.get("patternProperties") {
            // No two of them may match the same name.
            let most = members.keys().map(|key| branches(key)).max().unwrap_or(0);
            of_string = of_string.max(most.saturating_mul(most));
        }
        // Each of `type` gets what is there, and the sequences of n properties are looked up n times.
        let types = if let Some(Value::Array(types)) = map.get("type") { types.len().max(1) as u64 } else { 1 };
        let own = n.saturating_mul(n) / 128;
        Some(Part {
            kept: part.kept.saturating_add(own).saturating_mul(types),
            whole: part.whole.saturating_add(own).saturating_mul(types),
            options: types,
            branches: part.branches.max(of_string),
            fields: part.fields.max(n),
            // One at least, so that it is counted with what narrows it.
            counted: part.counted.max(if counts { n.max(1) } else { 0 }),
            name_patterns: part.name_patterns.max(count("patternProperties")),
            recurs: part.recurs,
        })
    }
}

/// Values in a value.
fn size(value: &Value) -> u64 {
    match value {
        Value::Array(values) => 1 + values.iter().map(size).sum::<u64>(),
        Value::Object(map) => 1 + map.values().map(size).sum::<u64>(),
        _ => 1,
    }
}
