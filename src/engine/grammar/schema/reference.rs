//! `$ref`: JSON Pointers with their escapes, anchors, and the ids of schemas in the same text.

use std::cell::OnceCell;
use std::collections::HashMap;

use super::json::{Document, Id, Kind};

/// What references name, looked up once for all of them. A value's parts follow it, so that they are a range of numbers.
#[derive(Debug)]
struct Names {
    /// Behind the last part of each value.
    ends: Vec<Id>,
    /// The nearest schema with an id of its own that each value is part of or is, or the root.
    owners: Vec<Id>,
    /// Schemas by their anchors, in order.
    anchors: HashMap<Box<str>, Vec<Id>>,
    /// The first schema with an id, and with one beside the root's.
    ids: HashMap<Box<str>, Id>,
    beside: HashMap<Box<str>, Id>,
}

impl Names {
    fn of(document: &Document) -> Names {
        let n = document.len() as Id;
        let mut ends: Vec<Id> = (1..=n).collect();
        for at in (1..n).rev() {
            let parent = document.parent(at) as usize;
            ends[parent] = ends[parent].max(ends[at as usize]);
        }
        let (mut owners, mut anchors) = (Vec::new(), HashMap::<Box<str>, Vec<Id>>::new());
        let (mut ids, mut beside) = (HashMap::new(), HashMap::new());
        let folder = folder(document);
        for at in 0..n {
            let id = id_of(document, at);
            let own = at == 0 || id.is_some_and(|id| !id.starts_with('#')) && document.get(at, "$id").is_some();
            owners.push(if own { at } else { owners[document.parent(at) as usize] });
            let named = |key| document.get(at, key).and_then(|v| document.text(v));
            let old = id.and_then(|id| id.strip_prefix('#'));
            for name in [named("$anchor"), named("$dynamicAnchor"), old].into_iter().flatten() {
                anchors.entry(name.into()).or_default().push(at);
            }
            if let Some(id) = id.map(|id| id.trim_end_matches('#')) {
                ids.entry(id.into()).or_insert(at);
                if let Some(rest) = id.strip_prefix(folder) {
                    beside.entry(rest.into()).or_insert(at);
                }
            }
        }
        Names { ends, owners, anchors, ids, beside }
    }
}

/// What the root's id begins with.
fn folder(document: &Document) -> &str {
    id_of(document, 0).and_then(|id| id.rfind('/').map(|n| &id[..=n])).unwrap_or("")
}

/// The references of a document.
pub(super) struct References<'a> {
    document: &'a Document,
    /// Found out at the first reference.
    names: OnceCell<Names>,
}

impl<'a> References<'a> {
    pub(super) fn new(document: &'a Document) -> References<'a> {
        References { document, names: OnceCell::new() }
    }

    fn names(&self) -> &Names {
        self.names.get_or_init(|| Names::of(self.document))
    }

    /// The schema that the value of a `$ref` names.
    pub(super) fn resolve(&self, at: Id) -> Result<Id, String> {
        let document = self.document;
        let wrong =
            |what: &str| format!("{}: \"$ref\": {} {what}", document.path(document.parent(at)), document.shown(at));
        let text = document.text(at).ok_or_else(|| wrong("is no text"))?;
        let (base, fragment) = text.split_once('#').unwrap_or((text, ""));
        let root = match base {
            "" => self.resource(at),
            _ => self.identified(base).ok_or_else(|| wrong("is not in this text, and nothing is fetched"))?,
        };
        let fragment = unescaped(fragment).ok_or_else(|| wrong("has \"%\" without two hexadecimal digits of UTF-8"))?;
        if fragment.is_empty() {
            return Ok(root);
        }
        let found = match fragment.strip_prefix('/') {
            Some(pointer) => follow(document, root, pointer),
            None => self.anchored(root, &fragment),
        };
        found.ok_or_else(|| wrong("is not in this text"))
    }

    /// The nearest schema around it that has an id of its own, or the root.
    fn resource(&self, at: Id) -> Id {
        self.names().owners[self.document.parent(at) as usize]
    }

    /// The schema with an id, as it is written or beside the root's.
    fn identified(&self, base: &str) -> Option<Id> {
        let Names { ids, beside, .. } = self.names();
        let written =
            [ids.get(base), beside.get(base), base.strip_prefix(folder(self.document)).and_then(|rest| ids.get(rest))];
        written.into_iter().flatten().min().copied()
    }

    /// The first schema in the schema `root` with that anchor.
    fn anchored(&self, root: Id, name: &str) -> Option<Id> {
        let Names { ends, anchors, .. } = self.names();
        let all = anchors.get(name)?;
        let first = all.partition_point(|at| *at < root);
        all.get(first).copied().filter(|at| *at < ends[root as usize])
    }
}

fn id_of(document: &Document, at: Id) -> Option<&str> {
    document.get(at, "$id").or_else(|| document.get(at, "id")).and_then(|id| document.text(id))
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
