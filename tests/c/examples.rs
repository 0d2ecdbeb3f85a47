//! Runs every program of `examples-c/` with a tiny model of random weights, and with SmolLM2 where `models/` has it.

use crate::native;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::common::tiny::Tiny;
use crate::native::programs::{
    examples, folder, has, named, readme_program, real_model, refuse, run, succeed, valgrind,
};
use crate::native::root;
use kigo::engine::{Engine, EngineOptions, LogSink};
use kigo::gguf::TensorType;
use serde_json::Value;

const SMOLLM2: &str = "SmolLM2-135M-Instruct-Q4_1.gguf";

/// A tiny model with a context so long that no answer ends before it is stopped.
pub fn tiny() -> &'static str {
    static WRITTEN: OnceLock<PathBuf> = OnceLock::new();
    let path = WRITTEN.get_or_init(|| {
        let mut tiny = Tiny::new("llama", TensorType::Q8_0);
        tiny.shape.n_ctx = 65_536;
        let path = folder("examples-models").join("tiny.gguf");
        tiny.write(&path);
        path
    });
    path.to_str().expect("UTF-8")
}

fn command(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(examples().join(name));
    command.args(args);
    command
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().expect("an array").iter().map(|id| id.as_u64().expect("an id")).collect()
}

/// Greedy on any model: the object is whole, and agrees with itself.
fn check_generate_json(model: &str, args: &[&str], n: usize) -> Value {
    let text = succeed(command("generate", &["-m", model, "-t", "2", "--json", "-n", &n.to_string()]).args(args), "");
    let object = json(&text);
    let keys = ["prompt_ids", "ids", "text", "top_logits", "prefill_tokens_per_s", "decode_tokens_per_s"];
    let mut found: Vec<&str> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    found.sort_unstable();
    let mut wanted = keys;
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    assert!(ids(&object["ids"]).len() <= n);
    assert!(object["prefill_tokens_per_s"].as_f64().is_some_and(|speed| speed > 0.0), "{object}");

    let top: Vec<(u64, f64)> = object["top_logits"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|pair| (pair[0].as_u64().expect("an id"), pair[1].as_f64().expect("a logit")))
        .collect();
    assert_eq!(top.len(), 10);
    for pair in top.windows(2) {
        assert!(pair[0].1 > pair[1].1 || pair[0].1 == pair[1].1 && pair[0].0 < pair[1].0, "{top:?}");
    }
    if let Some(&first) = ids(&object["ids"]).first() {
        assert_eq!(first, top[0].0, "greedy takes the largest logit");
    }
    object
}

#[test]
fn generate_prints_one_json_object() {
    let object = check_generate_json(tiny(), &["-p", "a \"quoted\" line\n\tand \u{1f600}"], 24);
    assert_eq!(ids(&object["ids"]).len(), 24);
    assert!(object["decode_tokens_per_s"].as_f64().is_some_and(|speed| speed > 0.0), "{object}");
    let again = check_generate_json(tiny(), &["-p", "a \"quoted\" line\n\tand \u{1f600}"], 24);
    assert_eq!((&object["ids"], &object["top_logits"]), (&again["ids"], &again["top_logits"]));
    let none = check_generate_json(tiny(), &["-p", "x"], 0);
    assert_eq!((&none["ids"], &none["text"]), (&json("[]"), &json("\"\"")));
}

#[test]
fn generate_streams_the_text_that_json_has() {
    let args = ["-m", tiny(), "-p", "once upon", "-n", "40"];
    let object = json(&succeed(command("generate", &args).arg("--json"), ""));
    let streamed = succeed(&mut command("generate", &args), "");
    assert_eq!(streamed, format!("{}\n", object["text"].as_str().expect("a text")));
}

#[test]
fn strict_mode_changes_nothing_on_the_cpu() {
    let args = ["-m", tiny(), "-p", "once upon", "-n", "40", "--strict"];
    assert_eq!(succeed(&mut command("generate", &args), ""), succeed(&mut command("generate", &args[..6]), ""));
}

#[test]
fn generate_reads_the_prompt_from_a_file_and_from_standard_input() {
    let path = folder("examples-models").join("prompt.txt");
    std::fs::write(&path, "the same text").expect("writable");
    let given = check_generate_json(tiny(), &["-p", "the same text"], 4);
    let read = check_generate_json(tiny(), &["-f", path.to_str().expect("UTF-8")], 4);
    let piped = succeed(&mut command("generate", &["-m", tiny(), "-f", "-", "-n", "4", "--json"]), "the same text");
    assert_eq!(given["prompt_ids"], read["prompt_ids"]);
    assert_eq!(given["prompt_ids"], json(&piped)["prompt_ids"]);
}

#[test]
fn generate_makes_control_tokens_only_where_asked() {
    let plain = ids(&check_generate_json(tiny(), &["-p", "<|im_end|>"], 1)["prompt_ids"]);
    let special = ids(&check_generate_json(tiny(), &["-p", "<|im_end|>", "--special"], 1)["prompt_ids"]);
    assert_eq!(special, [511], "the last token of the tiny vocabulary");
    assert!(plain.len() > 1 && plain.iter().all(|&id| id < 509), "{plain:?}");
    let chat = ids(&check_generate_json(tiny(), &["-p", "<|im_end|>", "--chat"], 1)["prompt_ids"]);
    assert_eq!(chat.iter().filter(|&&id| id == 511).count(), 1, "the template's own alone: {chat:?}");
}

#[test]
fn generate_repeats_a_seed_and_changes_with_another() {
    let sampled = |seed: &str| {
        let args =
            ["-p", "a", "--temp", "1.5", "--top-k", "200", "--top-p", "0.99", "--min-p", "0.001", "--seed", seed];
        let text = succeed(command("generate", &["-m", tiny(), "-n", "32", "--json"]).args(args), "");
        ids(&json(&text)["ids"])
    };
    assert_eq!(sampled("7"), sampled("7"));
    assert_ne!(sampled("7"), sampled("8"));
}

#[test]
fn generate_and_chat_keep_to_grammars() {
    let lark = folder("examples-models").join("numbers.lark");
    std::fs::write(&lark, "start: /[0-9]{3}/ \"-\" /[xyz]{2}/\n").expect("writable");
    let file = format!("@{}", lark.to_str().expect("UTF-8"));
    let kept = |text: &str| {
        let b = text.trim_end().as_bytes();
        b.len() == 6
            && b[..3].iter().all(u8::is_ascii_digit)
            && b[3] == b'-'
            && b[4..].iter().all(|c| b"xyz".contains(c))
    };
    let gbnf = ["--gbnf", "root ::= [0-9]{3} \"-\" tail\ntail ::= [xyz]{2}"];
    for grammar in [["--regex", "[0-9]{3}-[xyz]{2}"], ["--grammar", &file], gbnf] {
        let text = succeed(command("generate", &["-m", tiny(), "-p", "a", "--temp", "1.5"]).args(grammar), "");
        assert!(kept(&text), "{text:?}");
        // Each answer of a conversation from its beginning.
        let talk = succeed(command("chat", &["-m", tiny(), "--temp", "1"]).args(grammar), "hello\nagain\n");
        assert!(talk.lines().count() == 2 && talk.lines().all(kept), "{talk:?}");
    }
    let schema = ["--json-schema", r#"{"enum": ["red", "green"]}"#];
    let text = succeed(command("generate", &["-m", tiny(), "-p", "a"]).args(schema), "");
    assert!(["\"red\"", "\"green\""].contains(&text.trim_end()), "{text:?}");
}

#[test]
fn generate_prints_log_probabilities() {
    let args = ["-m", tiny(), "-p", "once", "-n", "12", "--temp", "1.2", "--top-k", "5", "--seed", "3"];
    let object = json(&succeed(command("generate", &args).arg("--json"), ""));
    let lines: Vec<Value> =
        succeed(command("generate", &args).args(["--logprobs", "9"]), "").lines().map(json).collect();
    let tokens: Vec<u64> = lines.iter().map(|l| l["id"].as_u64().expect("an id")).collect();
    assert_eq!(tokens, ids(&object["ids"]));
    let text: String = lines.iter().map(|l| l["text"].as_str().expect("a text")).collect();
    assert!(object["text"].as_str().expect("a text").starts_with(&text));
    for line in &lines {
        let top = line["top"].as_array().expect("an array");
        let sum: f64 = top.iter().filter_map(|t| t["after"].as_f64()).map(f64::exp).sum();
        // The five that are kept are among the nine likeliest, without penalties.
        assert!(top.len() == 9 && (sum - 1.0).abs() < 1e-5, "{line}");
        assert_eq!(top.iter().filter(|t| t["after"].is_null()).count(), 4);
        assert!(top.iter().any(|t| t["id"] == line["id"] && t["before"] == line["before"]), "{line}");
    }
    assert_eq!(lines[0]["top"][0]["id"], object["top_logits"][0][0]);
}

#[test]
fn bad_arguments_end_with_2_and_the_usage() {
    let cases: [(&str, &[&str], &str); 25] = [
        ("generate", &["-p", "x"], "-m: is missing"),
        ("generate", &["-m", "x"], "-p or -f: is needed"),
        ("generate", &["-m", "x", "-p", "x", "-f", "x"], "only one of them"),
        ("generate", &["-m"], "-m: needs a value"),
        ("generate", &["--fast"], "--fast: is not an option"),
        ("generate", &["-n", "many"], "-n: needs a whole number"),
        ("generate", &["-n", "-1"], "-n: needs a whole number"),
        ("generate", &["-t", "1025"], "-t: needs a whole number"),
        ("generate", &["--temp", "nan"], "--temp: needs a number"),
        ("generate", &["-m", "x", "-p", "x", "--logprobs", "2", "--json"], "--logprobs: cannot be there together"),
        ("generate", &["--regex", "a", "--grammar", "b"], "--grammar: cannot be there together"),
        ("chat", &["--grammar", "a", "--gbnf", "b"], "--gbnf: cannot be there together"),
        ("chat", &["--json-schema"], "--json-schema: needs a value"),
        ("chat", &["--device"], "--device: needs a value"),
        ("chat", &["-p", "x"], "-p: is not an option"),
        ("bench", &["-p", "128,"], "-p: needs whole numbers"),
        ("bench", &["-r", "0"], "-r: needs a whole number from 1 to 100, not 0"),
        ("bench", &["--batch", "0"], "--batch: needs 1 to 4096"),
        ("batch", &["-n", "0"], "-n: needs a whole number from 1 to"),
        ("chat", &["--top-p", "1.5"], "--top-p: needs a number from 0 to 1, not 1.5"),
        ("batch", &["-m", "x"], "-f: is missing"),
        ("scheduler", &["-m", "x"], "-f: is missing"),
        ("scheduler", &["-m", "x", "-f", "-", "--piece", "0"], "--piece: needs a whole number from 1 to"),
        ("plugin", &[], "usage"),
        ("window", &["-m", "x", "-n", "300"], "-n: needs at least 1, and half the context at most"),
    ];
    for (name, args, wanted) in cases {
        let stderr = refuse(&mut command(name, args), 2);
        assert!(stderr.contains(wanted) && stderr.contains(&format!("usage: {name} ")), "{name} {args:?}: {stderr}");
    }
}

#[test]
fn every_program_tells_its_options_and_its_version() {
    let kigo = examples().join("kigo");
    let mut names = named(&kigo);
    assert!(!names.is_empty() && names.insert("plugin".into()), "{names:?}");
    // Where it was not built, tests/c/serve.rs says so.
    names.retain(|name| name != "serve" || examples().join(name).is_file());
    for name in &names {
        let usage = succeed(&mut command(name, &["--help"]), "");
        assert!(usage.starts_with(&format!("usage: {name} ")), "{usage}");
        let version = succeed(&mut command(name, &["--version"]), "");
        assert_eq!(version, format!("{name} (kigo) {}\n", env!("CARGO_PKG_VERSION")));
        assert!(name == "plugin" || succeed(Command::new(&kigo).args([name, "--help"]), "") == usage);
    }
    assert!(refuse(&mut command("kigo", &[]), 2).contains("usage: kigo PROGRAM"));
}

#[test]
fn chat_knows_commands_and_keeps_conversations() {
    let file = folder("examples-models").join("talk.json");
    let (path, args) = (file.to_str().expect("UTF-8"), ["-m", tiny(), "-n", "12"]);
    let talk = |input: &str| succeed(&mut command("chat", &args), input);
    let (first, second) = ("a \"quoted\" \\ line\n", "and again\n");
    let whole = talk(&format!("/system be brief\n{first}{second}"));
    // What is saved goes on as if it had never been put away, and /reset leaves nothing but the system's message.
    let saved = talk(&format!("/system be brief\n{first}/save {path}\n"));
    let messages = json(&std::fs::read_to_string(&file).expect("saved"));
    let roles: Vec<&str> = messages.as_array().expect("an array").iter().filter_map(|m| m["role"].as_str()).collect();
    assert_eq!((roles, messages[1]["content"].as_str()), (vec!["system", "user", "assistant"], Some(first.trim())));
    assert_eq!(messages[2]["content"], saved.trim_end_matches('\n'));
    assert_eq!(format!("{saved}{}", talk(&format!("/load {path}\n{second}"))), whole);
    assert_eq!(talk(&format!("/system be brief\n{second}/reset\n{first}")).lines().last(), saved.lines().last());
    assert_eq!(talk("/help\n/exit\nnobody answers\n"), "");
    // What is no command is said.
    assert!(!talk("/etc/passwd is a file\n").is_empty());
    for broken in ["", "[", "{}", "[{\"role\": \"user\"}]", "[{\"role\": \"user\", \"content\": \"\\ud800\"}]"] {
        std::fs::write(&file, broken).expect("writable");
        let out = run(&mut command("chat", &args), &format!("/load {path}\n"));
        assert!(out.status.success() && String::from_utf8_lossy(&out.stderr).contains("is no array of messages"));
    }
    // Nor does what can be opened and not read end the program.
    let out = run(&mut command("chat", &args), "/load /\nhello\n");
    let says = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && says.contains("/: Is a directory") && !out.stdout.is_empty(), "{out:?}");
}

#[test]
fn chat_survives_a_full_cache() {
    let cache = (3 * page_bytes()).to_string();
    let question = "once upon a time there was a question\n".repeat(6);
    let out = run(&mut command("chat", &["-m", tiny(), "-n", "60", "--cache", &cache]), &question);
    let says = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && says.contains("the cache is full"), "{says}");
    // An answer that fills all there is, is cut off, and /reset begins anew.
    let out = run(&mut command("chat", &["-m", tiny(), "--cache", &cache]), "once\n/reset\nagain\n");
    let says = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && says.matches("the answer cut off").count() == 2, "{says}");
}

#[test]
fn chat_edits_lines_in_a_terminal() {
    if !has("script") {
        println!("skipped: no script (util-linux) to make a terminal");
        return;
    }
    let file = folder("examples-models").join("edited.json");
    let line = format!("{} -m {} -n 4", examples().join("chat").display(), tiny());
    // Left twice, delete, a letter of two bytes, backspace, Home and End; then up and down, and a line that is dropped.
    let keys = format!(
        "wxrd\x1b[D\x1b[D\x1b[D\x1b[3~o\x1b[H\u{e9}\x7f\x1b[Fs\r\x1b[A\x1b[B/nothing\x15/save {}\r\x04",
        file.display()
    );
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().expect("script starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut shown = Vec::new();
    while !shown.ends_with(b"> ") {
        assert_ne!(stdout.read_until(b' ', &mut shown).expect("readable"), 0, "{}", String::from_utf8_lossy(&shown));
    }
    child.stdin.take().expect("piped").write_all(keys.as_bytes()).expect("chat reads");
    let _ = stdout.read_to_end(&mut shown);
    assert!(child.wait().expect("it ends").success());
    let messages = json(&std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{e}: {shown:?}")));
    assert_eq!(messages[0]["content"], "words", "{}", String::from_utf8_lossy(&shown));
}

#[test]
fn failures_end_with_1_and_the_library_s_text() {
    let cases: [(&str, &[&str], &[&str]); 10] = [
        ("generate", &["-m", "/no/such.gguf", "-p", "x"], &["kigo_model_load_file", "KIGO_STATUS_IO", "/no/such.gguf"]),
        (
            "generate",
            &["-m", tiny(), "-p", "x", "--device", "abacus"],
            &["kigo_engine_create", "KIGO_STATUS_INVALID_ARGUMENT"],
        ),
        ("generate", &["-m", tiny(), "-f", "/no/such.txt"], &["/no/such.txt", "No such file"]),
        (
            "generate",
            &["-m", tiny(), "-p", "x", "--temp", "0.00001"],
            &["kigo_session_create", "KIGO_STATUS_INVALID_ARGUMENT"],
        ),
        ("generate", &["-m", "Cargo.toml", "-p", "x"], &["KIGO_STATUS_INVALID_MODEL"]),
        ("generate", &["-m", tiny(), "-p", "x", "--regex", "("], &["kigo_constraint_create", "KIGO_STATUS_CONSTRAINT"]),
        (
            "generate",
            &["-m", tiny(), "-p", "x", "--gbnf", "root ::= a"],
            &["kigo_constraint_create", "KIGO_STATUS_CONSTRAINT"],
        ),
        ("generate", &["-m", tiny(), "-p", "x", "--grammar", "@/no/such.lark"], &["/no/such.lark", "No such file"]),
        ("plugin", &["/no/such.so", "-m", tiny()], &["dlopen: ", "/no/such.so"]),
        ("bench", &["-m", tiny(), "-p", "70000", "-n", "0"], &["exceed the model's context"]),
    ];
    for (name, args, wanted) in cases {
        let stderr = refuse(command(name, args).current_dir(root()), 1);
        for text in wanted {
            assert!(stderr.contains(text), "{name} {args:?}: {stderr}");
        }
    }
}

#[test]
fn chat_answers_each_line_of_its_input() {
    let input = "hello\n\nand again\n";
    let stdout = succeed(&mut command("chat", &["-m", tiny(), "-n", "12", "--system", "be brief"]), input);
    assert!(stdout.ends_with('\n') && stdout.lines().count() >= 2, "two answers: {stdout:?}");
    let again = succeed(&mut command("chat", &["-m", tiny(), "-n", "12", "--system", "be brief"]), input);
    assert_eq!(stdout, again);
    // What was said before counts.
    let alone = succeed(&mut command("chat", &["-m", tiny(), "-n", "12", "--system", "be brief"]), "and again\n");
    assert_ne!(stdout, alone);
}

#[test]
fn interrupt_stops_the_answer_and_not_the_program() {
    let mut command = command("chat", &["-m", tiny()]);
    let mut chat = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("chat starts");
    let mut stdin = chat.stdin.take().expect("piped");
    let mut stdout = BufReader::new(chat.stdout.take().expect("piped"));
    for question in ["first\n", "second\n"] {
        stdin.write_all(question.as_bytes()).expect("chat reads");
        let mut begun = [0];
        stdout.read_exact(&mut begun).expect("the answer begins");
        let sent = Command::new("kill").args(["-INT", &chat.id().to_string()]).status().expect("kill is there");
        assert!(sent.success());
        let mut answer = Vec::new();
        while !answer.ends_with(b" (stopped)\n") {
            assert_ne!(stdout.read_until(b'\n', &mut answer).expect("more of the answer"), 0, "the program ended");
        }
    }
    drop(stdin);
    assert!(chat.wait().expect("chat ends").success());
}

#[test]
fn chat_shows_a_bar_while_loading_in_a_terminal() {
    if !has("script") {
        println!("skipped: no script (util-linux) to make a terminal");
        return;
    }
    let line = format!("{} -m {} -n 4", examples().join("chat").display(), tiny());
    let out = run(Command::new("script").args(["-qec", &line, "/dev/null"]), "hello\n\u{4}");
    let shown = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && shown.contains("loading [") && shown.contains("] 100%"), "{shown:?}");
    assert!(shown.contains("> "), "the prompt: {shown:?}");
}

#[test]
fn bench_prints_an_array_of_measurements() {
    let args = ["-m", tiny(), "-t", "2", "-p", "16,32", "-n", "8", "--depth", "0,64", "-r", "1", "--json"];
    let array = json(&succeed(&mut command("bench", &args), ""));
    let named: Vec<(&str, u64)> = array
        .as_array()
        .expect("an array")
        .iter()
        .map(|o| {
            for key in ["tokens_per_s", "gb_per_s", "share_of_bandwidth", "bandwidth_gb_per_s"] {
                assert!(o[key].as_f64().is_some_and(|x| x > 0.0), "{key}: {o}");
            }
            assert_eq!((&o["batch"], &o["device"], &o["threads"]), (&json("1"), &json("\"cpu\""), &json("2")));
            (o["test"].as_str().expect("a name"), o["depth"].as_u64().expect("a depth"))
        })
        .collect();
    assert_eq!(named, [("pp16", 0), ("pp32", 0), ("tg8", 0), ("pp16", 64), ("pp32", 64), ("tg8", 64)]);
    let table = succeed(&mut command("bench", &["-m", tiny(), "-p", "0", "-n", "8", "-r", "1"]), "");
    assert!(table.lines().count() == 3 && table.contains("\ntg8 "), "{table}");
}

#[test]
fn bench_runs_sequences_together() {
    let args = ["-m", tiny(), "-t", "2", "-p", "16", "-n", "8", "--batch", "1,5", "-r", "1", "--json"];
    let array = json(&succeed(&mut command("bench", &args), ""));
    let named: Vec<(&str, u64)> = array
        .as_array()
        .expect("an array")
        .iter()
        .map(|o| (o["test"].as_str().expect("a name"), o["batch"].as_u64().expect("a batch")))
        .collect();
    assert_eq!(named, [("pp16", 1), ("tg8", 1), ("pp16", 5), ("tg8", 5)]);
}

/// The answers of `batch`, by index.
fn answers(args: &[&str], prompts: &str) -> Vec<Value> {
    let out = succeed(command("batch", &["-m", tiny(), "-t", "2", "-f", "-"]).args(args), prompts);
    let mut lines: Vec<Value> = out.lines().map(json).collect();
    lines.sort_by_key(|o| o["index"].as_u64().expect("an index"));
    lines
}

#[test]
fn batch_answers_every_prompt_as_it_would_be_answered_alone() {
    let prompts: Vec<String> = (0..9).map(|i| format!("{} tells \"{i}\"", "once upon a time ".repeat(i))).collect();
    let file = prompts.join("\n\n") + "\r\n";
    let alone: Vec<Value> = prompts
        .iter()
        .map(|p| json(&succeed(&mut command("generate", &["-m", tiny(), "-p", p, "-n", "12", "--json"]), "")))
        .collect();
    // All at once; new ones as others end; one by one; and in a cache that has too little room for four.
    let runs: [&[&str]; 4] =
        [&[], &["--batch", "4"], &["--batch", "1"], &["--batch", "4", "--cache", &(6 * page_bytes()).to_string()]];
    for args in runs {
        let lines = answers(&[&["-n", "12"], args].concat(), &file);
        assert_eq!(lines.len(), prompts.len());
        for (i, line) in lines.iter().enumerate() {
            assert_eq!((line["index"].as_u64(), line["prompt"].as_str()), (Some(i as u64), Some(&*prompts[i])));
            assert_eq!((&line["text"], &line["stop"]), (&alone[i]["text"], &json("\"max_tokens\"")), "{args:?}");
            assert_eq!(line["tokens"].as_u64(), Some(12));
        }
    }
    // One that can never fit fails alone.
    let lines = answers(&["-n", "12", "--cache", &page_bytes().to_string()], &file);
    let stops: Vec<&str> = lines.iter().map(|o| o["stop"].as_str().expect("a text")).collect();
    assert_eq!((stops[0], stops[8]), ("max_tokens", "KIGO_STATUS_CACHE_FULL"), "{stops:?}");
    assert!(answers(&["--chat", "-n", "2"], "a\nb")[1]["stop"].is_string());
    assert!(answers(&[], "").is_empty());
}

#[test]
fn scheduler_answers_every_prompt_as_it_would_be_answered_alone() {
    let prompts: Vec<String> = (0..7).map(|i| format!("{} tells", "once upon a time ".repeat(i * 3))).collect();
    let alone: Vec<Value> = prompts
        .iter()
        .map(|p| json(&succeed(&mut command("generate", &["-m", tiny(), "-p", p, "-n", "9", "--json"]), "")))
        .collect();
    let runs: [&[&str]; 3] = [&[], &["--batch", "2", "--piece", "5"], &["--piece", "1"]];
    for args in runs {
        let mut command = command("scheduler", &["-m", tiny(), "-t", "2", "-f", "-", "-n", "9"]);
        let out = succeed(command.args(args), &(prompts.join("\n\n") + "\r\n"));
        let mut lines: Vec<Value> = out.lines().map(json).collect();
        lines.sort_by_key(|o| o["index"].as_u64().expect("an index"));
        assert_eq!(lines.len(), prompts.len());
        for (line, alone) in lines.iter().zip(&alone) {
            assert_eq!((&line["text"], &line["tokens"]), (&alone["text"], &json("9")), "{args:?}");
            assert!(line["longest_wait_ms"].as_f64().is_some_and(|wait| wait > 0.0), "{line}");
        }
    }
}

#[test]
fn batch_shows_a_bar_in_a_terminal_and_its_end_elsewhere() {
    let (done, all) = (
        "[##############################] 3 of 3, 0 running, 12 tokens at ",
        "[                              ] 0 of 3, ",
    );
    let args = ["-m", tiny(), "-t", "2", "-f", "-", "-n", "4", "--batch", "2"];
    let out = run(&mut command("batch", &args), "a\nb\nc\n");
    let errors = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(errors.contains(done) && !errors.contains('\r') && errors.ends_with("/s\n"), "{errors:?}");
    assert_eq!(errors.lines().filter(|line| line.starts_with('[')).count(), 1, "{errors:?}");
    if !has("script") {
        println!("skipped: no script (util-linux) to make a terminal");
        return;
    }
    let file = folder("batch-bar").join("prompts");
    std::fs::write(&file, "a\nb\nc\n").expect("writable");
    let program = examples().join("batch");
    let line = format!("{} -m {} -t 2 -f {} -n 4 --batch 2 > /dev/null", program.display(), tiny(), file.display());
    let out = run(Command::new("script").args(["-qec", &line, "/dev/null"]), "");
    let shown = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && shown.contains(&format!("\r{done}")), "{shown:?}");
    assert!(shown.contains(&format!("\r{all}")) || shown.contains("2 running"), "it moves: {shown:?}");
}

/// Bytes of a cache page of the tiny model.
pub fn page_bytes() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let (device, log) = ("cpu", LogSink::silent());
        let engine = Engine::new(EngineOptions { device, n_threads: 1, memory_cap: None, log }).expect("an engine");
        let model = engine.load_file(Path::new(tiny()), &mut |_, _| Ok(())).expect("loads");
        model.cache_facts().page_bytes as usize
    })
}

#[test]
fn plugin_loads_the_library_twice() {
    let library = examples().join(native::soname());
    let stdout = succeed(command("plugin", &[]).arg(&library).args(["-m", tiny()]), "");
    assert!(
        stdout.contains(concat!("1: kigo ", env!("CARGO_PKG_VERSION"), ": Once upon a time"))
            && stdout.contains("2: kigo"),
        "{stdout}"
    );
}

#[test]
fn window_goes_on_when_its_context_is_full() {
    let out = run(
        &mut command("window", &["-m", tiny(), "-n", "8", "--context", "120", "--system", "s"]),
        &"a question\n".repeat(12),
    );
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(0), "{stderr}");
    assert!(stdout.lines().count() >= 12, "{stdout}");
    let number = |line: &str, behind: &str| -> u64 {
        let text = line.split(behind).next().expect("split gives one");
        text.rsplit(['(', ' ']).next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    let (mut n_full, mut n_turns) = (0, 0);
    for line in stderr.lines() {
        if line.contains("turns are forgotten") {
            n_full += 1;
            assert!(number(line, " turns") >= 1);
        } else {
            n_turns += 1;
            let (all, kept, computed) = (number(line, " tokens"), number(line, " kept"), number(line, " computed"));
            assert!(all == kept + computed && all <= 112 && (kept > 0 || n_turns == 1), "{line}");
        }
    }
    assert!(n_turns == 12 && (2..8).contains(&n_full), "{stderr}");
}

#[test]
fn no_program_leaks_or_touches_what_is_not_its_own() {
    let library = examples().join(native::soname());
    let library = library.to_str().expect("UTF-8");
    let runs: [(&str, &[&str], i32); 12] = [
        ("generate", &["-m", tiny(), "-p", "a b c", "-n", "8", "-t", "2", "--json"], 0),
        (
            "generate",
            &["-m", tiny(), "-p", "a b c", "-n", "8", "--chat", "--temp", "1", "--top-k", "40", "--top-p", "0.9"],
            0,
        ),
        ("generate", &["-m", tiny(), "-p", "a", "-n", "6", "--temp", "1", "--logprobs", "3", "--regex", "[a-c]+"], 0),
        ("generate", &["-m", "/no/such.gguf", "-p", "x"], 1),
        ("generate", &["-m", "Cargo.toml", "-p", "x"], 1),
        ("chat", &["-m", tiny(), "-n", "4"], 0),
        ("bench", &["-m", tiny(), "-t", "2", "-p", "16", "-n", "4", "-r", "1"], 0),
        ("batch", &["-m", tiny(), "-t", "2", "-f", "-", "-n", "4", "--batch", "2"], 0),
        ("scheduler", &["-m", tiny(), "-t", "2", "-f", "-", "-n", "4", "--piece", "3"], 0),
        ("plugin", &[library, "-m", tiny()], 0),
        ("window", &["-m", tiny(), "-n", "4", "--context", "60"], 0),
        ("devices", &["--json"], 0),
    ];
    for (name, args, code) in runs {
        // A program that ends in the middle of things has them still.
        let Some(mut command) = valgrind(&examples().join(name), code == 0) else { return };
        let out = run(command.args(args).current_dir(root()), "hello\nagain\n");
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{name} {args:?}:\n{stderr}");
        assert!(!stderr.contains("=="), "{name} {args:?}:\n{stderr}");
    }
}

#[test]
fn smollm2_answers_sensibly() {
    let Some(model) = real_model(SMOLLM2) else { return };
    let model = model.to_str().expect("UTF-8");
    let object = check_generate_json(model, &["-p", "The capital of France is"], 8);
    assert!(object["text"].as_str().is_some_and(|text| text.starts_with(" Paris")), "{object}");
    let chat = check_generate_json(model, &["--chat", "-p", "What is gravity?"], 64);
    assert!(chat["text"].as_str().is_some_and(|text| text.contains("force") || text.contains("mass")), "{chat}");
    let talk = succeed(&mut command("chat", &["-m", model, "-n", "48"]), "What is the capital of France?\n");
    assert!(talk.contains("Paris"), "{talk}");
    let stdout = succeed(command("plugin", &[]).arg(examples().join(native::soname())).args(["-m", model]), "");
    assert!(stdout.contains("Once upon a time,"), "{stdout}");
}

#[test]
fn the_readme_s_program_compiles_and_runs() {
    let dir = folder("readme");
    std::fs::write(dir.join("hello.c"), readme_program()).expect("writable");
    let mut compile = Command::new("cc");
    compile.args(native::sanitizers());
    compile.args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o"]).arg(dir.join("hello"));
    compile.arg(dir.join("hello.c")).arg("-I").arg(root().join("include")).arg("-L").arg(examples()).arg("-lkigo");
    succeed(&mut compile, "");
    let hello = |args: &[&str]| {
        let mut command = Command::new(dir.join("hello"));
        command.args(args).env("LD_LIBRARY_PATH", examples());
        command
    };
    let text = succeed(&mut hello(&[tiny()]), "");
    let same = ["-m", tiny(), "--chat", "-p", "What is gravity?", "-n", "64"];
    assert_eq!(format!("{text}\n"), succeed(&mut command("generate", &same), ""));
    assert!(refuse(&mut hello(&["/no/such.gguf"]), 1).contains("/no/such.gguf"));
}
