//! `$ref`: JSON Pointers with their escapes, anchors, and the ids of schemas in the same text.

use super::json::{Document, Id, Kind};

/// The schema that the value of a `$ref` names.
pub(super) fn resolve(document: &Document, at: Id) -> Result<Id, String> {
    let wrong = |what: &str| format!("{}: \"$ref\": {} {what}", document.path(document.parent(at)), document.shown(at));
    let text = document.text(at).ok_or_else(|| wrong("is no text"))?;
    let (base, fragment) = text.split_once('#').unwrap_or((text, ""));
    let root = match base {
        "" => resource(document, at),
        _ => identified(document, base).ok_or_else(|| wrong("is not in this text, and nothing is fetched"))?,
    };
    let fragment = unescaped(fragment).ok_or_else(|| wrong("has \"%\" without two hexadecimal digits of UTF-8"))?;
    if fragment.is_empty() {
        return Ok(root);
    }
    let found = match fragment.strip_prefix('/') {
        Some(pointer) => follow(document, root, pointer),
        None => anchored(document, root, &fragment),
    };
    found.ok_or_else(|| wrong("is not in this text"))
}

fn id_of(document: &Document, at: Id) -> Option<&str> {
    document.get(at, "$id").or_else(|| document.get(at, "id")).and_then(|id| document.text(id))
}

/// The nearest schema around it that has an id of its own, or the root.
fn resource(document: &Document, at: Id) -> Id {
    let mut at = document.parent(at);
    while at != 0 && id_of(document, at).is_none_or(|id| id.starts_with('#') || document.get(at, "$id").is_none()) {
        at = document.parent(at);
    }
    at
}

/// The schema with an id, as it is written or beside the root's.
fn identified(document: &Document, base: &str) -> Option<Id> {
    let folder = id_of(document, 0).and_then(|id| id.rfind('/').map(|n| &id[..=n])).unwrap_or("");
    let all = 0..document.len() as Id;
    let mut with_id = all.filter_map(|at| id_of(document, at).map(|id| (at, id.trim_end_matches('#'))));
    with_id
        .find(|(_, id)| *id == base || id.strip_prefix(folder) == Some(base) || base.strip_prefix(folder) == Some(id))
        .map(|(at, _)| at)
}

fn anchored(document: &Document, root: Id, name: &str) -> Option<Id> {
    let is = |at: Id, key: &str| document.get(at, key).and_then(|v| document.text(v)) == Some(name);
    let old = |at: Id| id_of(document, at).and_then(|id| id.strip_prefix('#')) == Some(name);
    let here = |at: Id| (is(at, "$anchor") || is(at, "$dynamicAnchor") || old(at)) && within(document, root, at);
    (0..document.len() as Id).find(|at| here(*at))
}

/// Whether it stands in the schema `root`.
fn within(document: &Document, root: Id, mut at: Id) -> bool {
    while at != root && at != 0 {
        at = document.parent(at);
    }
    at == root
}

fn follow(document: &Document, root: Id, pointer: &str) -> Option<Id> {
    let step = |at: Id, step: &str| match document.kind(at) {
        Kind::Array(values) => values.get(step.parse::<usize>().ok()?).copied(),
        _ => document.get(at, &step.replace("~1", "/").replace("~0", "~")),
    };
    // "#/" is the member without a name; where there is none it is taken as the root, as many write it.
    let found = pointer.split('/').try_fold(root, step);
    found.or_else(|| pointer.is_empty().then_some(root))
}

/// A fragment with its `%xx` decoded.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&b, behind)) = rest.split_first() {
        rest = behind;
        if b != b'%' {
            bytes.push(b);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|d| d.is_ascii_hexdigit()))?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}
