//! Modules of one folder stand in an order: none uses another that uses it, be it through third ones.
//!
//! A name that a folder's `mod.rs` re-exports counts as its child's that has it. What `mod.rs` has of its own is the ground
//! that its children stand on, and may use them. Test modules may use what they like.

use std::collections::{BTreeMap, BTreeSet};

use super::layering::paths;
use crate::sources;

/// A file of `src/`: its module's names from the crate's root, whether it is a folder's `mod.rs`, its code.
struct Module {
    path: String,
    names: Vec<String>,
    is_folder: bool,
    code: String,
}

impl Module {
    fn new(path: &str, text: &str) -> Option<Module> {
        let code = sources::library_code(path, text);
        let inner = path.strip_prefix("src/")?.strip_suffix(".rs")?;
        let mut names: Vec<String> = inner.split('/').map(str::to_owned).collect();
        let is_folder = names.last().is_some_and(|n| n == "mod" || n == "lib");
        if is_folder {
            names.pop();
        }
        (!code.is_empty()).then_some(Module { path: path.to_owned(), names, is_folder, code })
    }
}

/// The crate's modules, and which child of a folder has a name that the folder re-exports.
struct Tree {
    modules: Vec<Module>,
    all: BTreeSet<Vec<String>>,
    exports: BTreeMap<(Vec<String>, String), String>,
}

impl Tree {
    fn new(files: &[(String, String)]) -> Tree {
        let modules: Vec<Module> = files.iter().filter_map(|(path, text)| Module::new(path, text)).collect();
        let all: BTreeSet<Vec<String>> = modules.iter().map(|m| m.names.clone()).collect();
        let mut exports = BTreeMap::new();
        for folder in modules.iter().filter(|m| m.is_folder) {
            for (at, _) in folder.code.match_indices("use ") {
                for path in paths(folder.code[at + 4..].trim_start_matches("self::")) {
                    let child = [&folder.names[..], &path[..1]].concat();
                    if let (true, Some(name)) = (all.contains(&child), path.last()) {
                        exports.insert((folder.names.clone(), name.clone()), path[0].clone());
                    }
                }
            }
        }
        Tree { modules, all, exports }
    }

    /// The module that a path from the root leads to.
    fn module_of(&self, path: &[String]) -> Vec<String> {
        let mut at = Vec::new();
        for name in path {
            let child = [&at[..], std::slice::from_ref(name)].concat();
            if self.all.contains(&child) {
                at = child;
                continue;
            }
            if let Some(child) = self.exports.get(&(at.clone(), name.clone())) {
                at.push(child.clone());
            }
            break;
        }
        at
    }

    /// The modules that a module names, with the line.
    fn uses(&self, module: &Module) -> Vec<(usize, Vec<String>)> {
        let mut found = Vec::new();
        let code = &module.code;
        for prefix in ["crate::", "super::"] {
            for (at, _) in code.match_indices(prefix) {
                if code[..at].ends_with("super::") || code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                    continue;
                }
                let (mut base, mut rest) = (module.names.clone(), &code[at..]);
                if let Some(from_root) = rest.strip_prefix("crate::") {
                    (base, rest) = (Vec::new(), from_root);
                }
                while let Some(above) = rest.strip_prefix("super::") {
                    base.pop();
                    rest = above;
                }
                let line = code[..at].matches('\n').count() + 1;
                let paths = paths(rest).into_iter().map(|path| [base.clone(), path].concat());
                found.extend(paths.map(|path| (line, self.module_of(&path))));
            }
        }
        found
    }

    /// For each folder: which of its modules uses which, and one place where it does.
    fn edges(&self) -> BTreeMap<String, BTreeMap<(String, String), String>> {
        let mut folders: BTreeMap<String, BTreeMap<(String, String), String>> = BTreeMap::new();
        for module in &self.modules {
            for (line, used) in self.uses(module) {
                let common = module.names.iter().zip(&used).take_while(|(a, b)| a == b).count();
                if let (Some(from), Some(to)) = (module.names.get(common), used.get(common)) {
                    let folder = folders.entry(module.names[..common].join("/")).or_default();
                    folder.entry((from.clone(), to.clone())).or_insert(format!("{}:{line}", module.path));
                }
            }
        }
        folders
    }
}

/// The modules that can be reached from one.
fn reached(edges: &BTreeMap<(String, String), String>, from: &str) -> BTreeSet<String> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(at) = open.pop() {
        for (_, to) in edges.keys().filter(|(a, _)| *a == at) {
            if seen.insert(to.clone()) {
                open.push(to.clone());
            }
        }
    }
    seen
}

/// Each circle with its folder, its modules, and the places where one of them uses another.
fn circles(files: &[(String, String)]) -> Vec<(String, BTreeSet<String>, String)> {
    let mut found = Vec::new();
    for (folder, edges) in Tree::new(files).edges() {
        let names: BTreeSet<&String> = edges.keys().map(|(from, _)| from).collect();
        let reach: BTreeMap<&String, BTreeSet<String>> = names.iter().map(|n| (*n, reached(&edges, n))).collect();
        let mut done = BTreeSet::new();
        for name in &names {
            let back = |other: &&String| reach[name].contains(*other) && reach[*other].contains(*name);
            let circle: BTreeSet<String> = names.iter().filter(|o| back(o)).map(|o| (*o).clone()).collect();
            if circle.is_empty() || !done.insert(circle.clone()) {
                continue;
            }
            let inside = edges.iter().filter(|((a, b), _)| circle.contains(a) && circle.contains(b));
            let places: String = inside.map(|((a, b), at)| format!("\n    {a} -> {b} ({at})")).collect();
            found.push((folder.clone(), circle, places));
        }
    }
    found
}

#[test]
fn no_modules_of_a_folder_use_each_other_in_a_circle() {
    let found = circles(&sources::files("src", &["rs"]));
    let wrong: Vec<String> =
        found.iter().map(|(folder, circle, places)| format!("src/{folder}: {circle:?}{places}")).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn planted_circles_are_found() {
    let file = |path: &str, text: &str| (format!("src/{path}"), text.to_owned());
    let tree = |b: &str, c: &str| {
        vec![
            file("lib.rs", "pub mod a;"),
            file("a/mod.rs", "mod b;\nmod c;\nmod d;\npub use self::b::{B, Bee};\npub use c::C;\npub struct Own;"),
            file("a/b.rs", b),
            file("a/c.rs", c),
            file("a/d.rs", "use super::{B, C, Own};"),
        ]
    };
    let cases = [
        ("use super::c::C;", "use super::b::B;"),
        ("use crate::a::c;", "use crate::a::{Own, b::B};"),
        // Through what the folder re-exports, and through a third module.
        ("fn f(_: super::C) {}", "//! x\nuse super::Bee;"),
        ("use super::C;", "use super::d;"),
    ];
    for (b, c) in cases {
        let found = circles(&tree(b, c));
        assert!(found.iter().any(|(of, circle, _)| of == "a" && circle.len() >= 2), "{b} {c}: {found:?}");
    }
    // One way only; the folder's own; a comment; a test.
    let fine = [
        ("use super::C;", "use super::Own;"),
        ("// use super::C;", "use super::B;"),
        ("#[cfg(test)]\nmod tests {\n    use super::super::c::C;\n}", "use super::B;"),
    ];
    for (b, c) in fine {
        assert!(circles(&tree(b, c)).is_empty(), "{b} {c}: {:?}", circles(&tree(b, c)));
    }
}
