//! What the documents say is there: the tests that a quoted `cargo test` runs, the files that are named, make's targets.

use std::path::Path;

use crate::sources::files;

/// Documents, scripts, and sources, whose comments are documents too. Not CHANGELOG, which tells what was.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for file in ["README.md", "ARCHITECTURE.md", "BENCHMARKS.md", "CONTRIBUTING.md", "Makefile", ".ci/run"] {
        all.push((file.to_owned(), std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))));
    }
    for dir in ["docs", "scripts", "fuzz/src", "src", "cuda", "examples", "examples-c", "tests", "packaging"] {
        all.extend(files(dir, &["md", "sh", "py", "rs", "cu", "cuh", "h", "cpp", "c", "in"]));
    }
    for file in ["fuzz/README.md", "fuzz/run.sh"] {
        all.push((file.to_owned(), std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))));
    }
    all.retain(|(path, _)| !path.contains("/fixtures/") && path != "tests/repo/documents.rs");
    all
}

/// Every test of `tests/`, as `program/module::name`.
fn tests() -> Vec<String> {
    let mut all = Vec::new();
    for (path, text) in files("tests", &["rs"]) {
        let inner = path.trim_start_matches("tests/").trim_end_matches(".rs").trim_end_matches("/mod");
        let (program, module) = inner.split_once('/').unwrap_or((inner, ""));
        let lines: Vec<&str> = text.lines().collect();
        for (i, _) in lines.iter().enumerate().filter(|(_, line)| line.trim() == "#[test]") {
            let name = lines[i + 1..].iter().find_map(|line| line.trim_start().strip_prefix("fn ")?.split('(').next());
            let module = if module.is_empty() { String::new() } else { format!("{}::", module.replace('/', "::")) };
            all.extend(name.map(|name| format!("{program}/{module}{name}")));
        }
    }
    assert!(all.len() > 300, "{} tests", all.len());
    all
}

/// The words of each command that begins with `start`, up to a remark or the end of its quotation or line; lines that end with a
/// backslash go on.
fn commands(text: &str, start: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let ends = |c: char| c == '\n' || c == '`' || c == ')' || c == ';' || c == '|';
    text.match_indices(start)
        .map(|(at, _)| {
            let rest = &text[at + start.len()..];
            let command = &rest[..rest.find(ends).unwrap_or(rest.len())];
            let words = command.split_whitespace().take_while(|word| !word.starts_with('#'));
            words.map(|w| w.trim_matches(['"', '\'', ',', '.']).to_owned()).collect()
        })
        .collect()
}

/// What a command for `cargo test` names that is not there.
fn missing_tests(words: &[String], tests: &[String]) -> Vec<String> {
    let (mut programs, mut filters) = (Vec::new(), Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--test" => programs.extend(words.next()),
            "--test-threads" | "--features" | "--target" | "--target-dir" | "--profile" | "-p" => drop(words.next()),
            _ if word.starts_with(['-', '#', '$', '&', '>']) || word.contains("$(") => {}
            _ => filters.push(word),
        }
    }
    // Without a program the words may be prose, and the tests those inside `src`.
    let of = |program: &str| tests.iter().filter(move |t| t.split('/').next() == Some(program)).collect::<Vec<_>>();
    let gone = programs.iter().filter(|p| of(p).is_empty()).map(|p| format!("--test {p}"));
    let named = |filter: &str| {
        programs.iter().any(|p| of(p).iter().any(|t| t.split_once('/').is_some_and(|t| t.1.contains(filter))))
    };
    let nameless = filters.iter().filter(|f| !programs.is_empty() && !named(f)).map(|f| (*f).clone());
    gone.chain(nameless).collect()
}

/// Paths of this repository that a text names, as far as they have no pattern in them.
fn paths(text: &str) -> Vec<String> {
    let folders =
        ["src/", "tests/", "cuda/", "scripts/", "examples/", "examples-c/", "fuzz/", "docs/", "abi/", "packaging/"];
    let is_part = |c: char| c.is_alphanumeric() || "_-./".contains(c);
    let mut found = Vec::new();
    for word in text.split(|c: char| !(is_part(c) || "*{}$<>%\"".contains(c))) {
        let word = word.trim_end_matches(['.', '/', '-']);
        let has_pattern = word.contains(['*', '{', '}', '$', '<', '>', '%', '"']) || word.contains("..");
        let file = word
            .rsplit_once('.')
            .is_some_and(|(_, e)| ["rs", "cu", "cuh", "h", "c", "py", "sh", "md", "cpp"].contains(&e));
        if folders.iter().any(|f| word.starts_with(f)) && !has_pattern && file {
            found.push(word.to_owned());
        }
    }
    found
}

#[test]
fn quoted_tests_are_there() {
    let tests = tests();
    let mut wrong = Vec::new();
    for (path, text) in documents() {
        for start in ["cargo test", "$(CARGO) test", "$(EMULATED)"] {
            for words in commands(&text, start) {
                wrong.extend(
                    missing_tests(&words, &tests).iter().map(|what| format!("{path}: no test {what}: {words:?}")),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn named_files_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for (document, text) in documents() {
        for path in paths(&text) {
            // From the root, or from the first folder that the document is in: `tests/` of cuda, `src/` of fuzz.
            let own = document.split('/').next().unwrap_or_default();
            if !root.join(&path).exists() && !root.join(own).join(&path).exists() {
                wrong.push(format!("{document}: {path} is not there"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn quoted_targets_and_examples_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let makefile = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Makefile")).expect("Makefile");
    let mut wrong = Vec::new();
    for (document, text) in documents() {
        for words in commands(&text, "--example ") {
            let name = words.first().map(String::as_str).unwrap_or_default();
            let is_there = root.join("examples").join(name).with_extension("rs").exists();
            wrong.extend((!is_there).then(|| format!("{document}: --example {name}")));
        }
        for words in commands(&text, "`make ") {
            let target = words.iter().find(|w| !w.contains('=') && !w.starts_with('-'));
            let rule = |t: &String| {
                makefile.lines().any(|l| l.split(':').next().is_some_and(|names| names.split(' ').any(|n| n == t)))
            };
            wrong.extend(target.filter(|t| !rule(t)).map(|t| format!("{document}: make {t}")));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn planted_claims_are_found() {
    let tests = ["api/fork::forks_are_cheap".to_owned(), "regression/replay".to_owned()];
    let missing = |text: &str| -> Vec<String> {
        commands(text, "cargo test").iter().flat_map(|words| missing_tests(words, &tests)).collect()
    };
    let right = [
        "`cargo test --release --test api fork:: -- --nocapture`",
        "X=1 cargo test --test api --test regression -- cheap repl --test-threads 1\n",
        "cargo test \\\n  --test api",
        "cargo test --test api cheap   # a remark\n",
        "inside `cargo test`.",
    ];
    for text in right {
        assert_eq!(missing(text), [""; 0], "{text}");
    }
    assert_eq!(missing("`cargo test --test fork`"), ["--test fork"]);
    assert_eq!(missing("`cargo test --test api knife::`"), ["knife::"]);
    assert_eq!(missing("cargo test --test api -- fork:: spoon"), ["spoon"]);
    assert_eq!(
        paths("see `src/lib.rs`, (tests/a.rs): src/{a,b}.rs, examples/x.rs. cuda/*.cu"),
        ["src/lib.rs", "tests/a.rs", "examples/x.rs"]
    );
}

/// Rows of README's table of architectures, and its line of tensor types, as the code has them.
#[test]
fn readme_has_all_architectures_and_types() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let rows = kigo::model::ARCHITECTURES.iter().map(|a| format!("| `{}` | {} |\n", a.name, a.models));
    let table = format!("| architecture | models |\n|---|---|\n{}\n", rows.collect::<String>());
    assert!(readme.contains(&table), "README.md needs this table, and no other rows:\n{table}");
    let types: Vec<String> = kigo::gguf::TensorType::ALL.iter().map(|ty| format!("`{}`", ty.name())).collect();
    // Wrapped or not.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = format!("Types of tensors: {} Architectures", types.join(" "));
    assert!(words(&readme).contains(&line), "README.md needs this line: {line}");
}
