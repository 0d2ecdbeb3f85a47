//! Modules use only those below them: `c_api -> doctor -> engine -> chat -> {tokenizer, backend} -> {sampler, model, schema} -> gguf ->
//! process -> alloc -> error`.
//!
//! What stands in one pair of braces does not use its neighbours; of `backend`, neither do `cpu`, `reference` and
//! `cuda`, but for `backend::open`, which opens them by name; of `engine`, the rooms `grammar` and `cache` use nothing of
//! it but each themselves. Test modules may use what they like.

use crate::sources;

/// From the ground up.
const LAYERS: [&[&str]; 10] = [
    &["error"],
    &["alloc"],
    &["process"],
    &["gguf"],
    &["sampler", "model", "schema"],
    &["tokenizer", "backend"],
    &["chat"],
    &["engine"],
    &["doctor"],
    &["c_api"],
];
const BACKENDS: [&str; 3] = ["cpu", "reference", "cuda"];
/// Folders of `engine` that know nothing of it.
const ROOMS: [&str; 2] = ["grammar", "cache"];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The paths below the crate's root that a text names, each as its first two names: `crate::a::b`, `crate::{a::b, c}`
/// and `super::super::a` where that is the root. With the number of the line, from 1.
fn uses(text: &str, depth: usize) -> Vec<(usize, Vec<String>)> {
    let up = "super::".repeat(depth);
    let mut found = Vec::new();
    for prefix in ["crate::", up.as_str()] {
        if prefix.is_empty() {
            continue;
        }
        for (at, _) in text.match_indices(prefix) {
            // `super::super::super::` holds `super::super::`, from another place; `$crate::` is this crate as well.
            if text[..at].ends_with("super::") || text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let line = text[..at].matches('\n').count() + 1;
            // `super::` of an inner module leads to a neighbour, which is named as no layer is.
            let below =
                paths(&text[at + prefix.len()..]).into_iter().filter(|p| prefix == "crate::" || layer(&p[0]).is_some());
            found.extend(below.map(|path| (line, path.into_iter().take(2).collect())));
        }
    }
    found
}

/// The names of each path at the beginning of `text`, which may be a list in braces.
pub(super) fn paths(text: &str) -> Vec<Vec<String>> {
    let text = text.trim_start();
    if let Some(list) = text.strip_prefix('{') {
        let mut found = Vec::new();
        let (mut depth, mut start) = (0, 0);
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                ',' | '}' if depth == 0 => {
                    found.extend(paths(&list[start..i]));
                    start = i + 1;
                    if c == '}' {
                        return found;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
        return found;
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    if end == 0 {
        return Vec::new();
    }
    let first = text[..end].to_owned();
    let rest = text[end..].strip_prefix("::").map(paths).filter(|rest| !rest.is_empty());
    match rest {
        None => vec![vec![first]],
        Some(rest) => rest.into_iter().map(|path| [vec![first.clone()], path].concat()).collect(),
    }
}

/// What is wrong with a file of `src/`.
fn violations(path: &str, text: &str) -> Vec<String> {
    let names: Vec<&str> =
        path.strip_suffix(".rs").unwrap_or(path).split('/').skip(1).filter(|n| *n != "mod").collect();
    let own = names[0];
    if own == "lib" {
        return Vec::new();
    }
    let Some(own_layer) = layer(own) else {
        return vec![format!("{path}: {own} has no layer in tests/repo/layering.rs")];
    };
    let mut found = Vec::new();
    for (line, used) in uses(&sources::library_code(path, text), names.len()) {
        let module = used[0].as_str();
        let allowed = match layer(module) {
            None => false,
            Some(_) if module == own => {
                let other = |name: &str| {
                    BACKENDS.contains(&name) && names.get(1).is_some_and(|own| *own != name && BACKENDS.contains(own))
                };
                // A room's own folder, by its whole path.
                let room = names.get(1).filter(|name| own == "engine" && ROOMS.contains(name));
                let leaves = room.is_some_and(|room| used.get(1).is_some_and(|name| name != room));
                let other_device = own == "backend" && used.get(1).is_some_and(|name| other(name));
                !leaves && !other_device
            }
            Some(layer) => layer < own_layer,
        };
        if !allowed {
            found.push(format!("{path}:{line}: {own} must not use {}", used.join("::")));
        }
    }
    found.extend(out_of_the_room(path, &names, text));
    found
}

/// What a room of the engine takes from beside it by `super::`, counted from the file's own module.
fn out_of_the_room(path: &str, names: &[&str], text: &str) -> Vec<String> {
    if names[0] != "engine" || !names.get(1).is_some_and(|room| ROOMS.contains(room)) {
        return Vec::new();
    }
    let up = "super::".repeat(names.len() - 1);
    let code = sources::library_code(path, text);
    let places = code.match_indices(&up).filter(|(at, _)| {
        let before = &code[..*at];
        !before.ends_with("super::") && !code[at + up.len()..].starts_with("super::")
    });
    places
        .flat_map(|(at, _)| {
            let line = code[..at].matches('\n').count() + 1;
            let used = paths(&code[at + up.len()..]);
            used.into_iter().map(move |used| format!("{path}:{line}: engine must not use its neighbour {}", used[0]))
        })
        .collect()
}

#[test]
fn modules_use_only_those_below_them() {
    let found: Vec<String> =
        sources::files("src", &["rs"]).iter().flat_map(|(path, text)| violations(path, text)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// Its functions panic where the driver lacks them: `sys.rs` looks for each one that it lets others call.
#[test]
fn one_file_names_cudarc() {
    let named: Vec<String> = sources::files("src", &["rs"])
        .into_iter()
        .filter(|(path, text)| sources::library_code(path, text).contains("cudarc"))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(named, ["src/backend/cuda/driver/sys.rs"]);
}

#[test]
fn every_module_of_the_crate_has_its_layer() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).expect("src/lib.rs");
    let modules: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(modules.len() >= 8, "{modules:?}");
    for module in modules {
        assert!(layer(module).is_some(), "{module}");
    }
}

#[test]
fn planted_violations_are_found() {
    let cases = [
        (
            "src/engine/session.rs",
            "use crate::c_api::status_of;",
            "src/engine/session.rs:1: engine must not use c_api::status_of",
        ),
        (
            "src/model/bind.rs",
            "//! x\nuse crate::{error::Error, backend::{self, Backend}};",
            "src/model/bind.rs:2: model must not use backend",
        ),
        (
            "src/sampler/mod.rs",
            "fn f() { crate::model::bind() }",
            "src/sampler/mod.rs:1: sampler must not use model::bind",
        ),
        (
            "src/tokenizer/mod.rs",
            "use crate::backend::Backend;",
            "src/tokenizer/mod.rs:1: tokenizer must not use backend::Backend",
        ),
        ("src/error.rs", "use crate::gguf;", "src/error.rs:1: error must not use gguf"),
        (
            "src/backend/reference/mod.rs",
            "use crate::backend::cpu::Cpu;",
            "src/backend/reference/mod.rs:1: backend must not use backend::cpu",
        ),
        (
            "src/gguf/parse.rs",
            "use super::super::model::Config;",
            "src/gguf/parse.rs:1: gguf must not use model::Config",
        ),
        ("src/gguf/parse.rs", "use crate::nowhere::X;", "src/gguf/parse.rs:1: gguf must not use nowhere::X"),
        (
            "src/engine/mod.rs",
            "use crate::doctor::diagnose;",
            "src/engine/mod.rs:1: engine must not use doctor::diagnose",
        ),
        (
            "src/engine/grammar/held.rs",
            "use crate::engine::session::Session;",
            "src/engine/grammar/held.rs:1: engine must not use engine::session",
        ),
        (
            "src/engine/grammar/schema/mod.rs",
            "use super::super::model::Model;",
            "src/engine/grammar/schema/mod.rs:1: engine must not use its neighbour model",
        ),
        (
            "src/engine/cache/pages.rs",
            "use super::super::log::LogSink;",
            "src/engine/cache/pages.rs:1: engine must not use its neighbour log",
        ),
        ("src/extra/mod.rs", "", "src/extra/mod.rs: extra has no layer in tests/repo/layering.rs"),
    ];
    for (path, text, wanted) in cases {
        assert!(
            violations(path, text).iter().any(|v| v.starts_with(wanted)),
            "{path}: {text}: {:?}",
            violations(path, text)
        );
    }
    let allowed = [
        (
            "src/engine/session.rs",
            "use crate::backend::{Backend, cpu::Cpu};\nuse crate::error::{Error, Result};\nuse super::model::Model;",
        ),
        (
            "src/engine/grammar/schema/mod.rs",
            "use super::cost;\nuse self::rules::Rules;\nuse crate::engine::grammar::weight;\nuse crate::alloc::reserve;",
        ),
        ("src/engine/session.rs", "use super::cache::Pages;\nuse super::grammar::Held;"),
        ("src/gguf/parse.rs", "// crate::c_api in a comment\npub(crate) use super::cursor::Cursor;"),
        (
            "src/backend/cpu/mod.rs",
            "use crate::backend::Backend;\n#[cfg(test)]\nmod tests {\n    use crate::backend::reference::X;\n}",
        ),
    ];
    for (path, text) in allowed {
        assert_eq!(violations(path, text), [] as [String; 0], "{path}");
    }
}
