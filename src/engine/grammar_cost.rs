//! What a grammar's text may cost its parser, told before the parser sees it.
//!
//! The parser recurses once a rule, a bracket or a reference of a schema, copies a schema into each place that narrows it,
//! and multiplies what expressions that must all match may do next. It bounds what comes of that, but not the way there:
//! neither the stack nor, for some texts of a few hundred bytes, the memory. Invariants: every number here is at least what
//! the parser does with a text that it takes (a text that it refuses may be weighed wrongly); all are bounded, so that the
//! stack of [`Cost::stack`] bytes suffices; a text within the limits is compiled in seconds and hundreds of megabytes.

use std::collections::HashMap;
use std::fmt::Display;

use serde_json::{Map, Value};

use super::constraint::Grammar;

/// The longest text of a grammar, in bytes.
pub const MAX_GRAMMAR_BYTES: usize = 4 << 20;
/// The longest Lark text, and the most bytes of regular expressions.
const MAX_LARK_BYTES: usize = 512 << 10;
/// Brackets, definitions and references that the parser may be inside of at a time.
const MAX_LEVELS: u64 = 16_384;
/// Levels of a schema: how many of its parts the parser visits before it gives up by itself.
const MAX_SCHEMA_LEVELS: u64 = 50_000;
/// Parts of a schema with all copies that are made of them; bytes of an expression with all that it names.
const MAX_PARTS: u64 = 200_000;
const MAX_EXPANSION: u64 = 1_000_000;
/// Tokens of a Lark text that name each other: what may follow a byte is as long as they are deep, at each byte.
const MAX_TOKEN_LEVELS: u64 = 256;
/// What expressions that must match at once may do at one byte: the product of what each may.
const MAX_BRANCHES: u64 = 100_000;
/// Properties of one object; where their number is bounded; patterns for their names.
const MAX_FIELDS: u64 = 5_000;
const MAX_COUNTED_FIELDS: u64 = 200;
const MAX_NAME_PATTERNS: u64 = 64;
/// Classes such as `\w`, each of which takes kilobytes.
const MAX_CLASSES: u64 = 20_000;
/// `and`, `or` and `not` of conditions, which are evaluated, copied and dropped by recursion on the caller's stack.
const MAX_CONDITIONS: u64 = 1_000;

/// Bytes of stack for a level of a schema (5 KiB were measured) and one of a Lark text (3 KiB).
const SCHEMA_LEVEL: u64 = 8 << 10;
const LARK_LEVEL: u64 = 8 << 10;
const FIELD: u64 = 1 << 10;
const BASE_STACK: u64 = 2 << 20;

/// Brackets whose expressions the parser may be inside of later, at a token, without minding the caller's stack.
const SHALLOW: u64 = 64;

/// What a grammar takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    /// Bytes of stack with which it is compiled.
    pub(super) stack: usize,
    /// Bytes of stack for a token; 0: no more than a caller has.
    pub(super) step_stack: usize,
}

fn at_most(found: u64, most: u64, what: impl Display) -> Result<(), String> {
    match found {
        _ if found <= most => Ok(()),
        u64::MAX => Err(format!("{what}: more than can be counted; at most {most}")),
        _ => Err(format!("{what}: {found}; at most {most}")),
    }
}

/// What a text takes, or the limit that it exceeds. Recurses as deep as the text's brackets at most.
pub(super) fn cost(grammar: Grammar<'_>) -> Result<Cost, String> {
    let (_, text) = grammar.parts();
    match grammar {
        Grammar::JsonSchema(_) => {
            at_most(text.len() as u64, MAX_GRAMMAR_BYTES as u64, "bytes of a schema")?;
            let schema: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
            let mut found = Found::default();
            found.look(&schema);
            found.cost()
        }
        Grammar::Regex(_) => {
            at_most(text.len() as u64, MAX_LARK_BYTES as u64, "bytes of a regular expression")?;
            at_most(classes(text), MAX_CLASSES, "classes of characters")?;
            // Its parser bounds the nesting, and nothing in it excludes or narrows anything else.
            Ok(Cost { stack: BASE_STACK as usize, step_stack: 0 })
        }
        Grammar::Lark(_) => {
            at_most(text.len() as u64, MAX_LARK_BYTES as u64, "bytes of a Lark text")?;
            at_most(classes(text), MAX_CLASSES, "classes of characters")?;
            let levels = text.bytes().filter(|b| b":([{".contains(b)).count() as u64;
            at_most(levels, MAX_LEVELS, "rules and brackets")?;
            if text.contains("%if") {
                let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let n = words.filter(|word| ["and", "or", "not"].contains(word)).count() as u64;
                at_most(n, MAX_CONDITIONS, "and, or and not of conditions")?;
            }
            let mut found = Found::default();
            embedded(text).for_each(|schema| found.look(&schema));
            let schemas = found.cost()?;
            let deep = text.contains(['&', '~']) && levels > SHALLOW || schemas.step_stack > 0;
            let stack = BASE_STACK + levels * LARK_LEVEL;
            let step_stack = if deep { stack as usize } else { 0 };
            Ok(Cost { stack: stack as usize + schemas.stack, step_stack: step_stack.max(schemas.step_stack) })
        }
    }
}

/// What else there is to a text that [`cost`] has passed, on a stack of that size.
pub(super) fn check(grammar: Grammar<'_>) -> Result<(), String> {
    match grammar {
        Grammar::JsonSchema(text) => schema(&serde_json::from_str(text).map_err(|e| e.to_string())?),
        Grammar::Regex(_) => Ok(()),
        Grammar::Lark(text) => {
            embedded(text).try_for_each(|value| schema(&value))?;
            lark(text)
        }
    }
}

/// Classes in an expression; what stands in a string counts too.
fn classes(text: &str) -> u64 {
    text.as_bytes().windows(2).filter(|w| w[0] == b'\\' && b"wWdDsSpP".contains(&w[1])).count() as u64
}

/// What an expression may do at one byte: a branch for each alternative and for each part that may be left out.
fn branches(text: &str) -> u64 {
    2 + text.bytes().filter(|b| b"|*?{".contains(b)).count() as u64
}

/// The JSON values in a Lark text, and what looks like one in its strings and comments.
fn embedded(text: &str) -> impl Iterator<Item = Value> {
    text.match_indices("%json").filter_map(|(at, word)| json_prefix(&text[at + word.len()..]).map(|(value, _)| value))
}

fn json_prefix(text: &str) -> Option<(Value, usize)> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = stream.next()?.ok()?;
    Some((value, stream.byte_offset()))
}

/// What is counted in a schema wherever it stands.
#[derive(Default)]
struct Found {
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

    fn look(&mut self, value: &Value) {
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

    fn cost(&self) -> Result<Cost, String> {
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

fn schema(root: &Value) -> Result<(), String> {
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

/// What a name of a Lark text stands for.
#[derive(Default)]
struct Definition<'a> {
    /// Bytes of its own.
    bytes: u64,
    /// Operands of `&`, wherever in it: their branches and the tokens that they name.
    operands: Vec<(u64, Vec<&'a str>)>,
}

fn lark(text: &str) -> Result<(), String> {
    let definitions = definitions(text);
    let mut known = HashMap::new();
    let both = text.contains('&');
    definitions.keys().try_for_each(|name| expansion(&definitions, &mut known, name, both).map(drop))
}

/// What a definition comes to with all that it names.
#[derive(Clone, Copy)]
struct Expansion {
    bytes: u64,
    branches: u64,
    /// Tokens inside of each other.
    level: u64,
}

/// What names itself is refused by the parser. `both`: there are expressions that must match at once.
fn expansion<'a>(
    definitions: &HashMap<&'a str, Definition<'a>>,
    known: &mut HashMap<&'a str, Expansion>,
    name: &'a str,
    both: bool,
) -> Result<Expansion, String> {
    let one = Expansion { bytes: 1, branches: 1, level: 0 };
    let Some(definition) = definitions.get(name) else { return Ok(one) };
    if let Some(found) = known.get(name) {
        return Ok(*found);
    }
    known.insert(name, one);
    let mut all = Expansion { bytes: definition.bytes, ..one };
    for (branches, names) in &definition.operands {
        let mut sum = *branches;
        for name in names {
            let found = expansion(definitions, known, name, both)?;
            all.bytes = all.bytes.saturating_add(found.bytes);
            all.level = all.level.max(found.level + 1);
            sum = sum.saturating_add(found.branches);
        }
        all.branches = all.branches.saturating_mul(sum.max(1));
    }
    at_most(all.bytes, MAX_EXPANSION, format_args!("bytes of {name}, with all that it names"))?;
    at_most(all.level, MAX_TOKEN_LEVELS, format_args!("tokens inside of each other in {name}"))?;
    if both {
        at_most(all.branches, MAX_BRANCHES, format_args!("branches of what {name} has to match at once"))?;
    }
    known.insert(name, all);
    Ok(all)
}

/// The definitions of a Lark text, those of texts in it too. One begins with the first name of a line.
fn definitions(text: &str) -> HashMap<&str, Definition<'_>> {
    let mut all: HashMap<&str, Definition<'_>> = HashMap::new();
    let mut current = "";
    // Braces that are open, and which of them hold a text: what was defined around it.
    let mut outer: Vec<Option<&str>> = Vec::new();
    let (mut first, mut text_next) = (true, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let n = lexeme(rest);
        let (word, behind) = rest.split_at(n);
        rest = behind;
        let name = word.trim_start_matches(['!', '?']);
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.len() > 1
            || name.starts_with(|c: char| c.is_ascii_alphabetic());
        if is_name && first {
            // After %import several may follow, the last of which is defined.
            current = name;
            all.entry(current).or_default();
        }
        let definition = all.entry(current).or_default();
        if definition.operands.is_empty() {
            definition.operands.push((1, Vec::new()));
        }
        definition.bytes += n as u64;
        let Some((branches, names)) = definition.operands.last_mut() else { continue };
        match c {
            '\n' => first = true,
            ':' => first = false,
            '%' if word == "%ignore" => (current, first) = (word, false),
            '&' => definition.operands.push((1, Vec::new())),
            '|' | '*' | '?' | '+' | '~' | '[' => *branches += 1,
            '{' => {
                *branches += 1;
                outer.push(text_next.then_some(current));
                first |= text_next;
            }
            '}' => {
                if let Some(Some(name)) = outer.pop() {
                    current = name;
                    first = false;
                }
            }
            '/' if n > 1 => *branches += self::branches(word),
            '"' => *branches += 1,
            '%' if word == "%llguidance" || word == "%json" || word == "%regex" => {
                let read = json_prefix(rest).map_or(0, |(_, n)| n);
                definition.bytes += read as u64;
                *branches += 1;
                rest = &rest[read..];
                first |= word == "%llguidance";
            }
            _ if is_name && !first && name.trim_start_matches('_').starts_with(|c: char| c.is_ascii_uppercase()) => {
                names.push(name);
            }
            _ => {}
        }
        if !matches!(c, ' ' | '\t' | '#') {
            text_next = word == "%lark";
        }
    }
    all
}

/// The length of what a Lark text begins with, as its parser cuts it.
fn lexeme(text: &str) -> usize {
    let bytes = text.as_bytes();
    let until = |from: usize, end: fn(&u8) -> bool| {
        bytes[from..].iter().position(|b| !end(b)).map_or(bytes.len(), |n| from + n)
    };
    let name = |from: usize, rest: fn(&u8) -> bool| until(from, rest);
    let quoted = |quote: u8| {
        let mut at = 1;
        while at < bytes.len() && bytes[at] != quote {
            at += if bytes[at] == b'\\' { 2 } else { 1 };
        }
        let mut end = (at + 1).min(bytes.len());
        // It may end inside a character only where the text is none.
        while !text.is_char_boundary(end) {
            end += 1;
        }
        end
    };
    let lower = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(b);
    let upper = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b"_-".contains(b);
    let mark = until(0, |b| b"!?".contains(b)).min(2);
    let start = until(mark, |b| *b == b'_').min(mark + 1);
    match (bytes.first(), bytes.get(1)) {
        (Some(b'#'), _) | (Some(b'/'), Some(b'/')) => until(0, |b| *b != b'\n'),
        (Some(b'"'), _) => quoted(b'"'),
        (Some(b'/'), _) => quoted(b'/'),
        (Some(b'<'), _) => until(1, |b| *b != b'>').min(bytes.len() - 1) + 1,
        (Some(b'%' | b'@'), _) => name(1, |b| b.is_ascii_alphanumeric() || b"_-".contains(b)),
        (Some(b' ' | b'\t'), _) => until(0, |b| b" \t".contains(b)),
        _ if bytes.get(start).is_some_and(u8::is_ascii_lowercase) => name(start, lower),
        _ if mark == 0 && bytes.get(start).is_some_and(u8::is_ascii_uppercase) => name(start, upper),
        _ => text.chars().next().map_or(0, char::len_utf8),
    }
}
