//! Lark texts: what their definitions come to, with all that they name, and the schemas in them made rules.

use std::collections::HashMap;

use super::cost::*;
use super::schema;

/// What a name of a Lark text stands for.
#[derive(Default)]
struct Definition<'a> {
    /// Bytes of its own.
    bytes: u64,
    /// Operands of `&`, wherever in it: their branches and the tokens that they name.
    operands: Vec<(u64, Vec<&'a str>)>,
}

/// What else there is to a text that [`cost`] has passed, on a stack of that size: the limit that it exceeds.
pub(super) fn check(text: &str) -> Result<(), String> {
    at_most(brackets(text), MAX_DEPTHS, "brackets around each byte, all together")?;
    let definitions = definitions(text);
    let mut known = HashMap::new();
    let both = text.contains('&');
    definitions.keys().try_for_each(|name| expansion(&definitions, &mut known, name, both).map(drop))
}

/// How deep in brackets the bytes of the text's expressions stand, all together. Those around its terminals do not count: the
/// parser looks at its fuel at each.
fn brackets(text: &str) -> u64 {
    let mut sum = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let n = lexeme(rest);
        if rest.starts_with('/') {
            sum += depths(&rest[..n]);
        }
        rest = &rest[n..];
    }
    sum
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
                let read = schema::extent(rest).unwrap_or(0);
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

/// The text with each of its `%json` as what [`schema::prepare`] makes of it.
pub(super) fn embed(text: &str, compact: bool) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (word, behind) = rest.split_at(lexeme(rest).max(1));
        rest = behind;
        if word == "%json" {
            let n = schema::extent(rest)?;
            out.push_str(&schema::prepare(&rest[..n], compact, true)?);
            rest = &rest[n..];
        } else {
            out.push_str(word);
        }
    }
    Ok(out)
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
