//! A schema where it stands in a tool's, and what is refused in it: with the path, as the compiler of schemas refuses.

use std::fmt::Display;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::schema::{MAX_COUNT, Shown, shortened};

/// Schemas inside of each other, and references in a row.
const MAX_DEPTH: usize = 16;

/// What no notation but JSON holds, of values of any type.
const OF_ANY: [&str; 5] = ["allOf", "not", "if", "$dynamicRef", "$recursiveRef"];
/// The same of arrays and of objects.
const OF_ARRAYS: [&str; 5] = ["prefixItems", "additionalItems", "contains", "uniqueItems", "unevaluatedItems"];
const OF_OBJECTS: [&str; 8] = [
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedProperties",
];
/// What is held, not all of it at the same time.
const HELD: [&str; 17] = [
    "type",
    "const",
    "enum",
    "anyOf",
    "oneOf",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "$ref",
];

/// A schema that is no reference, and its place in the tool's.
pub(super) struct Place<'s> {
    root: &'s Value,
    pub(super) schema: &'s Value,
    path: String,
    depth: usize,
}

fn shown(value: &Value) -> String {
    match value {
        Value::Array(values) => Shown::Array(values.len()).to_string(),
        Value::Object(members) => Shown::Object(members.len()).to_string(),
        Value::String(text) => Shown::String(text).to_string(),
        other => Shown::Plain(&other.to_string()).to_string(),
    }
}

/// Whether a keyword's value leaves all values valid.
fn is_open(value: &Value) -> bool {
    match value {
        Value::Bool(open) => *open,
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

impl<'s> Place<'s> {
    /// The schema of a tool's arguments, which must be one of objects.
    pub(super) fn of_arguments(root: &'s Value) -> Result<Place<'s>> {
        let place = Place { root, schema: root, path: "#".to_owned(), depth: 0 }.resolved()?;
        if place.is_never() {
            return place.refuse("no value is valid");
        }
        place.alone("properties", &["type", "required", "additionalProperties"])?;
        if place.types()?.is_some_and(|types| !types.contains(&"object")) {
            return place.refuse("\"type\" is not that of arguments; \"object\" is expected");
        }
        Ok(place)
    }

    /// A schema in this one, behind these steps.
    pub(super) fn inside(&self, steps: [&str; 2], schema: &'s Value) -> Result<Place<'s>> {
        let mut path = self.path.clone();
        for step in steps.into_iter().filter(|step| !step.is_empty()) {
            path.push('/');
            path.push_str(&shortened(step).replace('~', "~0").replace('/', "~1"));
        }
        Place { root: self.root, schema, path, depth: self.depth + 1 }.resolved()
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn refuse<T>(&self, what: impl Display) -> Result<T> {
        Err(Error::Constraint { message: format!("{}: {what}", self.path) })
    }

    fn wrong<T>(&self, keyword: &str, value: &Value, expected: &str) -> Result<T> {
        self.refuse(format_args!("\"{keyword}\" is {} where {expected}", shown(value)))
    }

    /// The schema that it refers to, if it does, looked at for what is refused.
    fn resolved(mut self) -> Result<Place<'s>> {
        loop {
            if self.depth > MAX_DEPTH {
                return self.refuse(format_args!("more than {MAX_DEPTH} schemas inside of each other"));
            }
            let members = match self.schema {
                Value::Bool(_) => return Ok(self),
                Value::Object(members) => members,
                other => return self.refuse(format_args!("{} where a schema is expected", shown(other))),
            };
            if let Some(keyword) = OF_ANY.into_iter().find(|keyword| members.contains_key(*keyword)) {
                return self.unheld(keyword);
            }
            let Some(reference) = members.get("$ref") else { break };
            self.alone("$ref", &[])?;
            let path = reference.as_str().and_then(|path| path.strip_prefix('#'));
            let Some((path, schema)) = path.and_then(|path| Some((path, self.root.pointer(path)?))) else {
                return self.wrong("$ref", reference, "a reference into the tool's own schema is expected");
            };
            let path = format!("#{}", shortened(path));
            self = Place { root: self.root, schema, path, depth: self.depth + 1 };
        }
        for keyword in ["enum", "anyOf", "oneOf"] {
            self.list(keyword)?;
        }
        self.types()?;
        Ok(self)
    }

    fn unheld<T>(&self, keyword: &str) -> Result<T> {
        self.refuse(format_args!("\"{keyword}\" is not supported in this model's notation of arguments"))
    }

    /// Refuses what would have to hold at the same time as a keyword.
    pub(super) fn alone(&self, keyword: &str, with: &[&str]) -> Result<()> {
        let is_other =
            |other: &&&str| self.schema.get(**other).is_some() && **other != keyword && !with.contains(*other);
        match HELD.iter().find(is_other) {
            Some(other) => self.refuse(format_args!(
                "\"{other}\" beside \"{keyword}\" is not supported in this model's notation of arguments"
            )),
            None => Ok(()),
        }
    }

    /// How much there is to look at in it, itself and what its lists have.
    pub(super) fn weight(&self) -> usize {
        let n = |value: &Value| match value {
            Value::Array(values) => values.len(),
            Value::Object(members) => members.len(),
            _ => 0,
        };
        1 + self.schema.as_object().map_or(0, |members| members.values().map(n).sum())
    }

    /// Whether no value is valid.
    pub(super) fn is_never(&self) -> bool {
        *self.schema == Value::Bool(false)
    }

    /// Whether it says anything of arrays, numbers or objects.
    pub(super) fn is_held(&self) -> bool {
        HELD.iter().chain(&OF_ARRAYS).chain(&OF_OBJECTS).any(|keyword| self.schema.get(keyword).is_some())
    }

    /// A keyword's list, which has something in it.
    pub(super) fn list(&self, keyword: &str) -> Result<Option<&'s [Value]>> {
        match self.schema.get(keyword) {
            None => Ok(None),
            Some(Value::Array(values)) if !values.is_empty() => Ok(Some(values)),
            Some(other) => self.wrong(keyword, other, "a list of at least one is expected"),
        }
    }

    /// The schemas of `anyOf` or `oneOf` under which there are valid values; beside it there may be these keywords.
    pub(super) fn ways(&self, with: &[&str]) -> Result<Option<Vec<Place<'s>>>> {
        for keyword in ["anyOf", "oneOf"] {
            let Some(schemas) = self.list(keyword)? else { continue };
            self.alone(keyword, with)?;
            let mut ways = Vec::new();
            for (n, schema) in schemas.iter().enumerate() {
                let way = self.inside([keyword, &n.to_string()], schema)?;
                if !way.is_never() {
                    ways.push(way);
                }
            }
            if ways.is_empty() {
                return self.refuse(format_args!("\"{keyword}\" has no schema under which a value is valid"));
            }
            return Ok(Some(ways));
        }
        Ok(None)
    }

    /// The names of the types.
    pub(super) fn types(&self) -> Result<Option<Vec<&'s str>>> {
        const TYPES: [&str; 7] = ["string", "integer", "number", "boolean", "null", "array", "object"];
        let names = match self.schema.get("type") {
            None => return Ok(None),
            Some(one @ Value::String(_)) => std::slice::from_ref(one),
            Some(_) => self.list("type")?.unwrap_or_default(),
        };
        let known = |name: &Value| TYPES.into_iter().find(|known| name == known);
        match names.iter().find(|name| known(name).is_none()) {
            Some(wrong) => self.wrong("type", wrong, "a type of JSON is expected"),
            None => Ok(Some(names.iter().filter_map(known).collect())),
        }
    }

    /// The values of `enum` and `const` that are of the types.
    pub(super) fn values(&self) -> Result<Option<Vec<&'s Value>>> {
        let (listed, fixed) = (self.list("enum")?, self.schema.get("const"));
        let values: Vec<&Value> = match (listed, fixed) {
            (None, None) => return Ok(None),
            (None, Some(value)) => vec![value],
            (Some(values), fixed) => values.iter().filter(|value| fixed.is_none_or(|fixed| fixed == *value)).collect(),
        };
        let types = self.types()?;
        let is_of = |value: &&Value| {
            types.as_ref().is_none_or(|types| {
                types.iter().any(|name| match *name {
                    "string" => value.is_string(),
                    "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
                    "number" => value.is_number(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    "array" => value.is_array(),
                    _ => value.is_object(),
                })
            })
        };
        let left: Vec<&Value> = values.into_iter().filter(is_of).collect();
        let keyword = if listed.is_some() { "enum" } else { "const" };
        if left.is_empty() {
            return self.refuse(format_args!("\"{keyword}\" has no value that is valid beside the other keywords"));
        }
        Ok(Some(left))
    }

    /// The members that there may be; none: of any name.
    pub(super) fn properties(&self) -> Result<Option<&'s Map<String, Value>>> {
        self.without(&OF_OBJECTS)?;
        let found = match self.schema.get("properties") {
            None => None,
            Some(Value::Object(properties)) => Some(properties),
            Some(other) => return self.wrong("properties", other, "an object is expected"),
        };
        let others = self.schema.get("additionalProperties");
        if found.is_none() && others.is_some_and(|others| *others != Value::Bool(false) && !is_open(others)) {
            return self.refuse(
                "\"additionalProperties\" without \"properties\" is not supported in this model's notation of arguments",
            );
        }
        for name in self.required()? {
            match name.as_str() {
                Some(name) if found.is_some_and(|found| found.contains_key(name)) => {}
                _ => return self.wrong("required", name, "the name of a property is expected"),
            }
        }
        Ok(found)
    }

    /// The names of the members that must be there.
    pub(super) fn required(&self) -> Result<&'s [Value]> {
        match self.schema.get("required") {
            None => Ok(&[]),
            Some(Value::Array(names)) => Ok(names),
            Some(other) => self.wrong("required", other, "a list is expected"),
        }
    }

    /// A member's schema; none: the member is not written, since no value is valid.
    pub(super) fn member(&self, name: &str, schema: &'s Value, is_required: bool) -> Result<Option<Place<'s>>> {
        let place = self.inside(["properties", name], schema)?;
        match place.is_never() {
            true if is_required => place.refuse("no value is valid, and one is required"),
            true => Ok(None),
            false => Ok(Some(place)),
        }
    }

    /// The schema of an array's items, and how many there may be; none: any number.
    pub(super) fn items(&self) -> Result<(Option<Place<'s>>, u64, Option<u64>)> {
        self.without(&OF_ARRAYS)?;
        let least = self.count("minItems")?.unwrap_or(0);
        let items = self.schema.get("items").map(|items| self.inside(["items", ""], items)).transpose()?;
        let (items, most) = match items {
            Some(items) if items.is_never() => (None, Some(0)),
            items => (items, self.count("maxItems")?),
        };
        match most.filter(|most| least > *most) {
            Some(most) => self.refuse(format_args!("\"minItems\" is {least}; at most {most}")),
            None => Ok((items, least, most)),
        }
    }

    fn count(&self, keyword: &str) -> Result<Option<u64>> {
        let Some(value) = self.schema.get(keyword) else { return Ok(None) };
        let whole = |number: &f64| *number >= 0.0 && number.fract() == 0.0;
        // Above the limit it need not be exact.
        match value.as_u64().or_else(|| value.as_f64().filter(whole).map(|number| number as u64)) {
            Some(count) if count <= MAX_COUNT => Ok(Some(count)),
            Some(count) => self.refuse(format_args!("\"{keyword}\" is {count}; at most {MAX_COUNT}")),
            None => self.wrong(keyword, value, "a count is expected"),
        }
    }

    /// Refuses keywords that are not held, unless they leave all valid.
    fn without(&self, keywords: &[&str]) -> Result<()> {
        for keyword in keywords {
            let is_open = |value: &Value| match *keyword {
                "uniqueItems" => *value == Value::Bool(false),
                "minProperties" => value.as_u64() == Some(0),
                "contains" => false,
                _ => is_open(value),
            };
            if self.schema.get(keyword).is_some_and(|value| !is_open(value)) {
                return self.unheld(keyword);
            }
        }
        Ok(())
    }
}
