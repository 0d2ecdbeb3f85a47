//! Every fault that was ever reported: [`faults::FAULTS`] names the tests that hold each, which stand where their topic is, and
//! here.
//!
//! Those that machines found are here: the fuzz targets' bodies (`fuzz/src`) on every seed and every case, without a sanitizer. A case
//! that fails here is named with its file. Long cases, whose text is a pattern, are made here instead of being kept.
#![allow(unsafe_code)] // the targets call the C functions, and count what is allocated
#![allow(dead_code)] // mutations are for the fuzzer

#[path = "common/mod.rs"]
mod common;
#[path = "common/faults.rs"]
mod faults;
#[path = "fixtures/tokenizer.rs"]
mod fixtures;

#[path = "../fuzz/src/calls.rs"]
mod calls;
#[path = "../fuzz/src/calls_more.rs"]
mod calls_more;
#[path = "../fuzz/src/chat.rs"]
mod chat;
#[path = "../fuzz/src/gbnf.rs"]
mod gbnf;
#[path = "../fuzz/src/gguf_edit.rs"]
mod gguf_edit;
#[path = "../fuzz/src/grammar.rs"]
mod grammar;
#[path = "../fuzz/src/lark.rs"]
mod lark;
#[path = "../fuzz/src/parser.rs"]
mod parser;
#[path = "../fuzz/src/reader.rs"]
mod reader;
#[path = "../fuzz/src/regex.rs"]
mod regex;
#[path = "../fuzz/src/restore.rs"]
mod restore;
#[path = "../fuzz/src/schema.rs"]
mod schema;
#[path = "../fuzz/src/stream.rs"]
mod stream;
#[path = "../fuzz/src/support.rs"]
mod support;
#[path = "../fuzz/src/tokenize.rs"]
mod tokenize;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Time and memory are counted for the whole process: one case at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The files of a target, in order.
fn files(target: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut files: Vec<PathBuf> = ["seeds", "cases"]
        .iter()
        .filter_map(|kind| std::fs::read_dir(root.join(kind).join(target)).ok())
        .flat_map(|dir| dir.map(|entry| entry.unwrap().path()))
        .collect();
    files.sort();
    files
}

/// What of a fault's tests and cases is not there.
fn missing(fault: &faults::Fault) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let absent = |(name, words): &(&str, &str)| {
        let (file, test) = match name.rsplit_once("::") {
            Some((module, test)) => (format!("tests/{}.rs", module.replace("::", "/")), Some(test)),
            None => match name.strip_prefix("regression/") {
                Some(test) => ("tests/regression.rs".to_owned(), Some(test)),
                None => ((*name).to_owned(), None),
            },
        };
        let text = String::from_utf8_lossy(&std::fs::read(root.join(&file)).unwrap_or_default()).into_owned();
        let has_test = test.is_none_or(|test| text.contains(&format!("\nfn {test}()")));
        let there = !text.is_empty() && has_test && text.contains(words);
        (!there).then(|| format!("{}: {}: {name} with \"{words}\"", fault.reported, fault.what))
    };
    let nothing = fault.held.is_empty().then(|| format!("{}: {}: nothing holds it", fault.reported, fault.what));
    nothing.into_iter().chain(fault.held.iter().filter_map(absent)).collect()
}

#[test]
fn every_fault_that_was_reported_is_held_by_tests_that_are_there() {
    let found: Vec<String> = faults::FAULTS.iter().flat_map(missing).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    println!("{} faults", faults::FAULTS.len());
    let fault = |held| faults::Fault { reported: "0", what: "planted", held };
    assert_eq!(missing(&fault(&[])).len(), 1);
    assert_eq!(missing(&fault(&[("api/fork::no_such_test", "")])).len(), 1);
    assert_eq!(missing(&fault(&[("fuzz/cases/chat/no-such-case", "")])).len(), 1);
    assert_eq!(missing(&fault(&[("fuzz/cases/chat/divisibleby-0", "words that it has not")])).len(), 1);
}

/// 0.07 has no double whose product with a power of ten is exact: the refusal says so, and not that the places are too many.
#[test]
fn a_multiple_without_an_exact_double_is_told() {
    use kigo::engine::{Constraint, Engine, EngineOptions, Grammar, LogSink};
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let engine = Engine::new(EngineOptions { device: "cpu", n_threads: 1, memory_cap: None, log: LogSink::silent() });
    let tiny = common::tiny::Tiny::new("qwen2", kigo::gguf::TensorType::Q8_0).bytes();
    let model = engine.unwrap().load_memory(&tiny, &mut |_, _| Ok(())).unwrap();
    let outcome = |schema: &str| {
        Constraint::new(&model, Grammar::JsonSchema(schema), false, &mut || true).map(drop).map_err(|e| e.to_string())
    };
    for (multiple, told) in [("0.07", true), ("0.25", false), ("0.01", false)] {
        let error = outcome(&format!(r#"{{"type":"number","multipleOf":{multiple}}}"#)).err().unwrap_or_default();
        assert_eq!(error.contains("no exact product with a power of ten"), told, "{multiple}: {error}");
    }
}

/// Runs all files of a target and names those that fail.
fn replay(target: &str, run: fn(&[u8])) {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let files = files(target);
    assert!(!files.is_empty(), "no seeds for {target}");
    let mut failed = Vec::new();
    for file in &files {
        let data = std::fs::read(file).unwrap();
        if std::panic::catch_unwind(|| run(&data)).is_err() {
            failed.push(file.display().to_string());
        }
    }
    assert!(failed.is_empty(), "{} of {} fail:\n{}", failed.len(), files.len(), failed.join("\n"));
    println!("{target}: {} files", files.len());
}

/// Cases whose text is one pattern over and over, too long to be kept as files: `(target, name, text)`.
fn long_cases() -> Vec<(&'static str, &'static str, String)> {
    let user = "\0user\0hello";
    let chat = |name, begin: &str, middle: &str, n, end: &str| {
        ("chat", name, format!("{begin}{}{end}{user}", middle.repeat(n)))
    };
    vec![
        chat("22 KB of unary minus", "{{ ", "-", 22_000, "1 }}"),
        chat("4000 elif", "{% if a %}", "{% elif a %}", 4000, "{% endif %}"),
        chat("6000 not", "{{ ", "not ", 6000, "1 }}"),
        chat("20000 plus", "{{ 1", "+1", 20_000, " }}"),
        chat("20000 attributes", "{{ a", ".a", 20_000, " }}"),
        chat("20000 and", "{{ x", " and x", 20_000, " }}"),
        chat("20000 or of attributes", "{{ x", " or x.y", 20_000, " }}"),
        chat("5000 filters", "{{ x", "|trim", 5000, " }}"),
        chat("9000 brackets", "{{ ", "[", 9000, "{{ }}"),
        chat("5000 nested ifs", "", "{% if x %}", 5000, &"{% endif %}".repeat(5000)),
        ("regex", "a* over 64 KB", "a*".repeat(32_768)),
        ("regex", "a? over 64 KB", "a?".repeat(32_768)),
        ("regex", "(a|b)* over 60 KB", "(a|b)*".repeat(10_000)),
        ("regex", "nested stars", format!("{}a{}", "(".repeat(3000), ")*".repeat(3000))),
        ("regex", "nested counts", format!("{}a{}", "(".repeat(9), "{9}){9}".repeat(9).trim_end_matches("{9}"))),
        ("lark", "a terminal of a* over 64 KB", format!("start: T\nT: /{}/", "a*".repeat(32_700))),
        ("lark", "one string of 60 KB", format!("start: \"{}\"", "ab".repeat(30_000))),
        ("lark", "a chain of 9000 rules", {
            let rule = |i| format!("r{i}: \"a\" r{}\n", i + 1);
            format!("start: r0\n{}r9000: \"b\"\n", (0..9000).map(rule).collect::<String>())
        }),
        ("gbnf", "20000 parts that may be left out", format!("root ::= {}", "\"a\"? ".repeat(20_000))),
        ("gbnf", "1000 large terminals", {
            let part = |i| format!("\"{i}\" [a-z]{{4000}} root?");
            format!("root ::= {}", (0..1000).map(part).collect::<Vec<_>>().join(" | "))
        }),
        (
            "gbnf",
            "nothing, often",
            "e ::= \"\"\nroot ::= \"a\" (((e{1000000}){1000000}){0,1000000} | \"b\")".to_owned(),
        ),
        ("gbnf", "a chain of 5000 rules", {
            let rule = |i| format!("r{i} ::= r{}? \"a\"\n", i + 1);
            format!("root ::= r0\n{}r5000 ::= \"b\"\n", (0..5000).map(rule).collect::<String>())
        }),
        ("schema", "3000 arrays in each other", format!("{}true{}", "{\"items\":".repeat(3000), "}".repeat(3000))),
        ("schema", "enum of 20000 texts", {
            let text = |i| format!("\"text {i}\"");
            format!("{{\"enum\":[{}]}}", (0..20_000).map(text).collect::<Vec<_>>().join(","))
        }),
        ("schema", "a pattern of a* over 60 KB", format!("{{\"pattern\":\"{}\"}}", "a*".repeat(30_000))),
    ]
}

#[test]
fn long_texts_are_bounded() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let mut failed = Vec::new();
    for (target, name, text) in long_cases() {
        let run = match target {
            "chat" => chat::run,
            "regex" => regex::run,
            "gbnf" => gbnf::run,
            "lark" => lark::run,
            _ => schema::run,
        };
        let begin = std::time::Instant::now();
        if std::panic::catch_unwind(|| run(text.as_bytes())).is_err() {
            failed.push(format!("{target}: {name}"));
        }
        println!("{target}: {name}: {:.2} s", begin.elapsed().as_secs_f64());
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// Writes the seeds that are made and not written by hand: `KIGO_WRITE_SEEDS=1 cargo test --test regression seeds`.
#[test]
fn seeds_of_files_are_those_that_the_helpers_make() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    use kigo::gguf::TensorType::*;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/reader");
    let kinds = [("llama", Q4_0), ("llama", F16), ("qwen2", Q8_0), ("qwen2", Bf16), ("qwen3", Q5_1), ("qwen3", F32)];
    let mut made: Vec<(String, Vec<u8>)> = kinds
        .into_iter()
        .chain([("gemma3", Q4_1), ("gemma3", Q5_0), ("gptneox", F16), ("mistral3", Q4_0)])
        .map(|(arch, ty)| (format!("{arch}-{}", ty.name().to_lowercase()), support::mini_file(arch, ty)))
        .collect();
    made.push(("whole-gemma3".to_owned(), support::whole("gemma3").bytes()));
    for (name, bytes) in made {
        let path = dir.join(name);
        if std::env::var_os("KIGO_WRITE_SEEDS").is_some() {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(std::fs::read(&path).is_ok_and(|b| b == bytes), "{} is another", path.display());
    }
}

macro_rules! replays {
    ($($target:ident),*) => {$(
        mod $target {
            #[test]
            fn every_seed_and_every_case() {
                super::replay(stringify!($target), crate::$target::run);
            }
        }
    )*};
}

mod replays {
    use super::replay;
    replays!(calls, chat, gbnf, lark, parser, reader, regex, restore, schema, stream, tokenize);
}
