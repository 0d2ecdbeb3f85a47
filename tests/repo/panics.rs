//! How much of the library could panic: counted by module, and the counts only fall.
//!
//! A panic behind a C entry becomes a status and poisons one session, but each place that can panic is a place where an
//! input may still do it. [`TABLE`] is committed: a higher count fails, and so does a lower one until the table says so.

use crate::sources::{files, library_code};

/// What is counted in a module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// `.unwrap()`, `.expect(`, `panic!`, `unreachable!`, `assert!` and its kin (not `debug_assert!`).
    panics: usize,
    /// `a[i]`: an index or a range of a slice, which panics where it is out of bounds.
    indexing: usize,
    /// `+`, `-`, `*`, `<<` between numbers, which overflow.
    arithmetic: usize,
}

/// The modules and what they have. Of all but `c_api`, which is where input arrives, only panics count.
const TABLE: &[(&str, Counts)] = &[
    ("backend/cpu", Counts { panics: 1, indexing: 0, arithmetic: 0 }),
    ("c_api", Counts { panics: 1, indexing: 6, arithmetic: 18 }),
    ("tokenizer", Counts { panics: 1, indexing: 0, arithmetic: 0 }),
];

/// The module that a file belongs to: a folder of `src`, of `src/backend` and of `src/engine`, or a file beside them.
fn module(path: &str) -> String {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
    let parts: Vec<&str> = inner.split('/').collect();
    match parts[..] {
        ["backend" | "engine", folder, _, ..] => format!("{}/{folder}", parts[0]),
        [folder, ..] => folder.to_owned(),
        [] => String::new(),
    }
}

/// A line without its texts and characters, which may hold anything.
fn without_texts(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let literal = match c {
            '"' => text_len(rest),
            // 'x', '\n', '\u{1f}'; not the lifetime in &'a.
            '\'' if rest[1..].starts_with('\\') => rest[2..].find('\'').map(|n| n + 3),
            '\'' if rest.chars().nth(2) == Some('\'') => Some(2 + rest.chars().nth(1).map_or(0, char::len_utf8)),
            _ => None,
        };
        let n = literal.unwrap_or(c.len_utf8()).min(rest.len());
        if literal.is_none() {
            out.push(c);
        }
        rest = &rest[n..];
    }
    out
}

/// Bytes of a text from its quote to the next that is not escaped.
fn text_len(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return Some(i + 1),
            _ => escaped = c == '\\' && !escaped,
        }
    }
    None
}

fn count(line: &str) -> Counts {
    let line = without_texts(line);
    let trimmed = line.trim_start();
    let skipped = ["//", "#[", "#![", "use "].iter().any(|start| trimmed.starts_with(start));
    if skipped {
        return Counts::default();
    }
    let before = |at: usize| line[..at].chars().next_back();
    let word = |what: &str| {
        let starts = |at: &usize| !before(*at).is_some_and(|c| c.is_alphanumeric() || c == '_');
        line.match_indices(what).filter(|(at, _)| what.starts_with('.') || starts(at)).count()
    };
    let panics = [
        ".unwrap()",
        ".unwrap_err()",
        ".expect(",
        "panic!(",
        "unreachable!(",
        "assert!(",
        "assert_eq!(",
        "assert_ne!(",
    ];
    // Behind a name, a call or another index; a type, an attribute and an array begin otherwise.
    let is_value = |c: char| c.is_alphanumeric() || matches!(c, '_' | ')' | ']' | '?');
    let keyword = |at: usize| {
        let name = line[..at].trim_end_matches(|c: char| c.is_alphanumeric() || c == '_').len();
        ["mut", "dyn", "in", "return", "as", "impl", "const", "let"].contains(&&line[name..at])
    };
    let indexing = line.match_indices('[').filter(|(at, _)| before(*at).is_some_and(is_value) && !keyword(*at)).count();
    let operators = [" + ", " - ", " * ", " << ", " += ", " -= ", " *= "];
    // Bounds of types and of lifetimes are no sums.
    let bounds =
        trimmed.starts_with("where ") || line.contains("dyn ") || line.contains("impl ") || line.contains("<T:");
    let arithmetic = if bounds { 0 } else { operators.iter().map(|o| line.matches(o).count()).sum() };
    Counts { panics: panics.iter().map(|p| word(p)).sum(), indexing, arithmetic }
}

/// Each module's counts, in the order of their names; those without any are left out.
fn counted(files: &[(String, String)]) -> Vec<(String, Counts)> {
    let mut modules = std::collections::BTreeMap::<String, Counts>::new();
    for (path, text) in files {
        let of = modules.entry(module(path)).or_default();
        // What the compiler evaluates cannot panic later.
        let mut in_constant = false;
        for line in library_code(path, text).lines() {
            in_constant |= line.trim_start().starts_with("const _: () =");
            let n = if in_constant { Counts::default() } else { count(line) };
            in_constant &=
                !line.trim_end().ends_with(';') || !matches!(line.trim(), "};" | ");") && !line.contains("= assert");
            of.panics += n.panics;
            if path.starts_with("src/c_api/") {
                of.indexing += n.indexing;
                of.arithmetic += n.arithmetic;
            }
        }
    }
    modules.into_iter().filter(|(_, n)| *n != Counts::default()).collect()
}

/// What is higher or lower than the table says, and the table as it would be right.
fn differences(found: &[(String, Counts)], table: &[(&str, Counts)]) -> Vec<String> {
    let of = |name: &str| table.iter().find(|(module, _)| *module == name).map_or(Counts::default(), |(_, n)| *n);
    let gone = table.iter().filter(|(name, _)| !found.iter().any(|(module, _)| module == name));
    let all = found.iter().map(|(name, n)| (&**name, *n)).chain(gone.map(|(name, _)| (*name, Counts::default())));
    let mut lines = Vec::new();
    for (name, n) in all {
        let was = of(name);
        for (what, now, was) in [
            ("panics", n.panics, was.panics),
            ("indexing", n.indexing, was.indexing),
            ("arithmetic", n.arithmetic, was.arithmetic),
        ] {
            match now.cmp(&was) {
                std::cmp::Ordering::Greater => {
                    lines.push(format!("{name}: {now} {what} where {was} are allowed: mend it"))
                }
                std::cmp::Ordering::Less => {
                    lines.push(format!("{name}: {now} {what}, fewer than {was}: lower the table"))
                }
                std::cmp::Ordering::Equal => {}
            }
        }
    }
    lines
}

#[test]
fn what_can_panic_only_becomes_less() {
    let found = counted(&files("src", &["rs"]));
    let differences = differences(&found, TABLE);
    let table: Vec<String> = found
        .iter()
        .map(|(name, Counts { panics, indexing, arithmetic })| {
            format!("    (\"{name}\", Counts {{ panics: {panics}, indexing: {indexing}, arithmetic: {arithmetic} }}),")
        })
        .collect();
    assert!(differences.is_empty(), "\n{}\n\n{}", differences.join("\n"), table.join("\n"));
}

#[test]
fn planted_panics_are_counted() {
    for (line, panics, indexing, arithmetic) in [
        ("let a = b.unwrap();", 1, 0, 0),
        ("let a = b.unwrap_or(0).expect(\"x[0] + 1\");", 1, 0, 0),
        ("assert!(x); debug_assert!(y); panic!(\"{}\", z);", 2, 0, 0),
        ("let a = list[i] + matrix[r][c];", 0, 3, 1),
        ("let a: [u8; 4] = [0; 4]; f(&[1], &mut [2]);", 0, 0, 0),
        ("for x in [1, 2] { total += x - 1; }", 0, 0, 2),
        ("let c = '['; let d = b'+'; let e = \"a[i] - \\\" b[j]\";", 0, 0, 0),
        ("// a[i] + 1; b.unwrap()", 0, 0, 0),
        ("fn f(x: &(dyn Any + Send), y: &'a [u8]) {}", 0, 0, 0),
        ("self.rows()[..n]?[1]", 0, 2, 0),
    ] {
        assert_eq!(count(line), Counts { panics, indexing, arithmetic }, "{line}");
    }
    let file = |text: &str| vec![("src/c_api/a.rs".to_owned(), text.to_owned())];
    let table = [("c_api", Counts { panics: 0, indexing: 1, arithmetic: 0 })];
    assert_eq!(differences(&counted(&file("a[i];\n")), &table), [] as [String; 0]);
    assert_eq!(
        differences(&counted(&file("a[i] + b[i];\n")), &table),
        [
            "c_api: 2 indexing where 1 are allowed: mend it".to_owned(),
            "c_api: 1 arithmetic where 0 are allowed: mend it".to_owned(),
        ]
    );
    assert_eq!(differences(&counted(&file("a;\n")), &table), ["c_api: 0 indexing, fewer than 1: lower the table"]);
    let constant = "const _: () = {\n  assert!(a[0] + 1 == 2);\n  i += 1;\n};\nconst _: () = assert!(X == 1);\nb[i];\n";
    assert_eq!(differences(&counted(&file(constant)), &table), [] as [String; 0]);
    // Tests may panic.
    let text = "fn f() {}\n#[cfg(test)]\nmod tests {\n  a.unwrap();\n}\n";
    assert_eq!(counted(&file(text)), []);
    assert_eq!(module("src/backend/cpu/simd/avx2.rs"), "backend/cpu");
    assert_eq!(module("src/engine/save.rs"), "engine");
    assert_eq!(module("src/alloc.rs"), "alloc");
}
