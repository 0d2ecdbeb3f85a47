//! The programs that show and check what is computed: `generate --trace`, `compare`, `doctor`, `haiku`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::tiny::Tiny;
use crate::native::programs::{examples, folder, real_model, refuse, run, succeed, valgrind};
use crate::native::root;
use kigo::gguf::{Gguf, TensorType};
use kigo::tokenizer::Tokenizer;
use serde_json::Value;

const QWEN: &str = "Qwen2.5-Coder-0.5B-Instruct-Q4_K_M.gguf";
const SMOLLM2: &str = "SmolLM2-135M-Instruct-Q4_1.gguf";

fn tiny() -> &'static str {
    static WRITTEN: OnceLock<PathBuf> = OnceLock::new();
    let path = WRITTEN.get_or_init(|| {
        let path = folder("trust").join("tiny.gguf");
        Tiny::new("qwen3", TensorType::Q8_0).write(&path);
        path
    });
    path.to_str().expect("UTF-8")
}

fn command(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(examples().join(name));
    command.args(args);
    command
}

fn scratch(name: &str) -> String {
    folder("trust").join(name).to_str().expect("UTF-8").to_owned()
}

/// A safetensors file: the whole of it, and of each tensor its shape and where its bytes begin.
struct Trace {
    bytes: Vec<u8>,
    tensors: HashMap<String, (Vec<usize>, usize)>,
    seed: String,
}

fn read(path: &str) -> Trace {
    let bytes = std::fs::read(path).expect("a trace was written");
    let n = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + n]).expect("a JSON header");
    let (mut tensors, mut end) = (HashMap::new(), 8 + n);
    let numbers = |v: &Value| -> Vec<usize> {
        v.as_array().expect("an array").iter().map(|x| x.as_u64().expect("a number") as usize).collect()
    };
    for (name, tensor) in header.as_object().expect("an object") {
        if name == "__metadata__" {
            continue;
        }
        let (shape, at) = (numbers(&tensor["shape"]), numbers(&tensor["data_offsets"]));
        let width = if tensor["dtype"] == "F32" { 4 } else { 8 };
        assert_eq!(shape.iter().product::<usize>() * width, at[1] - at[0], "{name}");
        end = end.max(8 + n + at[1]);
        tensors.insert(name.clone(), (shape, 8 + n + at[0]));
    }
    assert_eq!(end, bytes.len());
    Trace { bytes, tensors, seed: header["__metadata__"]["seed"].as_str().expect("a seed").to_owned() }
}

impl Trace {
    fn ints(&self, name: &str) -> Vec<u64> {
        let (shape, at) = &self.tensors[name];
        let bytes = &self.bytes[*at..at + 8 * shape[0]];
        bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("8 bytes"))).collect()
    }
}

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().expect("an array").iter().map(|id| id.as_u64().expect("an id")).collect()
}

/// A trace of the tiny model.
fn trace(device: &str, name: &str) -> String {
    let path = scratch(name);
    let args = ["-m", tiny(), "--device", device, "-t", "2", "-p", "once upon a time", "-n", "9", "--seed", "5"];
    succeed(command("generate", &args).args(["--temp", "0.7", "--trace", &path]), "");
    path
}

#[test]
fn a_trace_has_the_whole_run_and_changes_nothing() {
    let path = scratch("whole.safetensors");
    let args = ["-m", tiny(), "-p", "once upon", "-n", "12", "--temp", "0.9", "--seed", "3", "--json"];
    let plain: Value = serde_json::from_str(&succeed(&mut command("generate", &args), "")).expect("JSON");
    let text = succeed(command("generate", &args).args(["--trace", &path]), "");
    let traced: Value = serde_json::from_str(&text).expect("JSON");
    for key in ["prompt_ids", "ids", "text", "top_logits"] {
        assert_eq!(plain[key], traced[key]);
    }
    let (prompt, answer) = (ids(&plain["prompt_ids"]), ids(&plain["ids"]));
    let trace = read(&path);
    let all: Vec<u64> = prompt.iter().chain(&answer).copied().collect();
    assert_eq!(trace.ints("tokens"), all);
    assert_eq!(trace.ints("positions"), (0..all.len() as u64).collect::<Vec<_>>());
    assert_eq!(trace.ints("sampled")[..answer.len()], answer);
    let counters = trace.ints("random_counters");
    assert_eq!(counters, (prompt.len() as u64..).take(counters.len()).collect::<Vec<_>>());
    assert_eq!(trace.seed, "3");
    // 2 layers, width 64, 512 tokens.
    let n = all.len();
    assert_eq!(trace.tensors["embed"].0, [n, 64]);
    assert_eq!(trace.tensors["layers.1.resid"].0, [n, 64]);
    assert_eq!(trace.tensors["logits"].0, [1 + answer.len(), 512]);
    assert_eq!(trace.ints("logits.positions")[0], prompt.len() as u64 - 1);
    assert_eq!(trace.tensors.len(), 4 + 1 + 2 * 10 + 2 * 2);
}

#[test]
fn compare_says_where_two_runs_part() {
    let (cpu, reference) = (trace("cpu", "cpu.safetensors"), trace("reference", "reference.safetensors"));
    let same = succeed(&mut command("compare", &[&cpu, &cpu, "--tolerance", "0"]), "");
    assert!(same.contains("they agree in 23 stages within 0"), "{same}");
    let close = succeed(&mut command("compare", &[&cpu, &reference]), "");
    assert!(close.contains("they agree in 23 stages") && close.contains("layers.1.ffn_act"), "{close}");
    let strict = run(&mut command("compare", &[&cpu, &reference, "--tolerance", "0", "--quiet"]), "");
    assert_eq!(strict.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&strict.stdout).starts_with("they part at "));

    // One number of one stage.
    let mut changed = read(&cpu);
    let (shape, at) = changed.tensors["layers.1.ffn_act"].clone();
    let place = at + 4 * (3 * shape[1] + 7);
    changed.bytes[place..place + 4].copy_from_slice(&1000.0_f32.to_le_bytes());
    let path = scratch("changed.safetensors");
    std::fs::write(&path, &changed.bytes).expect("writable");
    let out = run(&mut command("compare", &[&path, &cpu]), "");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.contains("they part at layers.1.ffn_act, position 3, element 7: 1000 against "), "{text}");

    // Another token: only what stands before it is compared.
    let mut other = read(&cpu);
    let at = other.tensors["tokens"].1 + 8 * 4;
    other.bytes[at] ^= 1;
    std::fs::write(&path, &other.bytes).expect("writable");
    let out = run(&mut command("compare", &[&path, &cpu]), "");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(1));
    assert!(text.contains("the first 4 the same") && text.contains("     4 rows"), "{text}");
}

#[test]
fn compare_refuses_what_is_no_trace() {
    let good = trace("cpu", "good.safetensors");
    let bytes = std::fs::read(&good).expect("there");
    let bad = scratch("bad.safetensors");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let mut endless = bytes.clone();
    endless[..8].fill(0xff);
    let mut text = String::from_utf8(bytes[8..8 + header].to_vec()).expect("UTF-8");
    text = text.replace("\"data_offsets\":[0,", "\"data_offsets\":[9,");
    let mut shifted = bytes.clone();
    shifted[8..8 + header].copy_from_slice(text.as_bytes());
    let cases: [(&[u8], &str); 6] = [
        (b"", "the header exceeds"),
        (&bytes[..5], "the header exceeds"),
        (&bytes[..bytes.len() / 2], "does not fit its place"),
        (&endless, "the header exceeds"),
        (&shifted, "does not fit its place"),
        (b"\x02\0\0\0\0\0\0\0{}", "it has no tokens"),
    ];
    for (content, wanted) in cases {
        std::fs::write(&bad, content).expect("writable");
        let stderr = refuse(&mut command("compare", &[&good, &bad]), 2);
        assert!(stderr.contains(wanted), "{stderr}");
    }
    assert!(refuse(&mut command("compare", &[&good]), 2).contains("usage: compare"));
    assert!(refuse(&mut command("compare", &[&good, "/no/such.st"]), 1).contains("No such file"));
    assert!(
        refuse(&mut command("generate", &["-m", tiny(), "-p", "a", "--trace", "/no/such/dir"]), 1)
            .contains("/no/such/dir")
    );
    if Path::new("/dev/full").exists() {
        refuse(&mut command("generate", &["-m", tiny(), "-p", "a", "-n", "2", "--trace", "/dev/full"]), 1);
    }
}

#[test]
fn doctor_finds_a_real_model_healthy() {
    let Some(model) = real_model(SMOLLM2) else { return };
    let args = ["-m", model.to_str().expect("UTF-8"), "--device", "cpu", "-t", "2"];
    let text = succeed(command("doctor", &args).arg("--json"), "");
    let object: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!((&object["healthy"], &object["at_fault"]), (&Value::Bool(true), &Value::from("")));
    let checks = object["checks"].as_array().expect("an array");
    assert_eq!(checks.len(), 9);
    for check in checks {
        assert_eq!(check["outcome"], "ok", "{check}");
        let number = |key: &str| check[key].as_f64().expect("a number");
        assert!(number("figure") <= number("bound") && number("seconds") >= 0.0, "{check}");
    }
}

#[test]
fn doctor_says_what_it_cannot_do() {
    assert!(refuse(&mut command("doctor", &[]), 2).contains("usage: doctor"));
    assert!(refuse(&mut command("doctor", &["-m", "/no/such.gguf"]), 1).contains("KIGO_STATUS_IO"));
    assert!(
        refuse(&mut command("doctor", &["-m", "Cargo.toml", "--device", "abacus"]), 1).contains("INVALID_ARGUMENT")
    );
    let out = run(command("doctor", &["-m", "Cargo.toml", "--device", "cpu", "--json"]).current_dir(root()), "");
    assert!(out.status.code() == Some(1) && out.stdout.is_empty(), "{out:?}");
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(stderr.contains("KIGO_STATUS_INVALID_MODEL"), "{stderr}");
}

/// No check has failed, and yet not all hold.
#[test]
fn doctor_tells_skipped_from_healthy() {
    let path = folder("trust").join("short.gguf");
    let mut tiny = Tiny::new("qwen3", TensorType::Q8_0);
    tiny.shape.n_ctx = 12;
    tiny.write(&path);
    let path = path.to_str().expect("UTF-8");
    let out = run(&mut command("doctor", &["-m", path, "--device", "cpu", "-t", "2", "--json"]), "");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let object: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(out.status.code(), Some(3), "{text}");
    assert_eq!((&object["healthy"], &object["at_fault"]), (&Value::Bool(false), &Value::from("")));
}

/// The minute in words, as `haiku` says it.
fn minute_word(minute: u64) -> String {
    const SMALL: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 4] = ["twenty", "thirty", "forty", "fifty"];
    match (minute as usize / 10, minute as usize % 10) {
        (0 | 1, _) => SMALL[minute as usize].to_owned(),
        (tens, 0) => TENS[tens - 2].to_owned(),
        (tens, ones) => format!("{}-{}", TENS[tens - 2], SMALL[ones]),
    }
}

/// How often the word stands in a text, by itself.
fn occurrences(text: &str, word: &str) -> usize {
    let text = text.to_lowercase();
    let free = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphabetic());
    text.match_indices(word)
        .filter(|(at, _)| free(text[..*at].chars().last()) && free(text[at + word.len()..].chars().next()))
        .count()
}

/// What is printed now was not written before: the word is the minute's, and a nonce stands in the prompt.
#[test]
fn haiku_writes_the_minute_and_its_trace_is_its_text() {
    let Some(model) = real_model(QWEN) else { return };
    let model = model.to_str().expect("UTF-8");
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let nonce = format!("Number {}.", now().as_nanos());
    let path = scratch("haiku.safetensors");
    let before = now().as_secs() / 60 % 60;
    let mut haiku = command("haiku", &["-m", model, "--device", "cpu", "-t", "2", "--note", &nonce, "--trace", &path]);
    let printed = succeed(haiku.env("TZ", "UTC"), "");
    let after = now().as_secs() / 60 % 60;
    let word = (before..).map(|m| m % 60).take_while(|m| *m != (after + 1) % 60).map(minute_word);
    let words: Vec<String> = word.collect();

    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 3, "{printed}");
    assert!(words.iter().any(|word| occurrences(&printed, word) == 1), "{words:?} in {printed}");

    let trace = read(&path);
    let tokens: Vec<u32> = trace.ints("tokens").iter().map(|t| *t as u32).collect();
    let gguf = Gguf::open(Path::new(model)).expect("opens");
    let tokenizer = Tokenizer::new(&gguf).expect("a tokenizer");
    let text = String::from_utf8(tokenizer.decode(&tokens, false).expect("ids of the vocabulary")).expect("UTF-8");
    assert!(text.contains(&nonce), "{text}");
    // Everything that was kept was sampled, at the position that it has.
    let (sampled, counters) = (trace.ints("sampled"), trace.ints("random_counters"));
    let n_prompt = counters[0] as usize;
    assert!(tokens.len() > n_prompt + 8, "{} tokens behind {n_prompt}", tokens.len());
    for (position, token) in tokens.iter().enumerate().skip(n_prompt) {
        let drawn = sampled.iter().zip(&counters).any(|(id, at)| (*id, *at) == (u64::from(*token), position as u64));
        assert!(drawn, "token {token} at {position}");
    }
    let answer = String::from_utf8(tokenizer.decode(&tokens[n_prompt..], false).expect("ids")).expect("UTF-8");
    assert_eq!(answer, printed.trim_end());
}

#[test]
fn haiku_says_when_it_found_none() {
    let out = run(&mut command("haiku", &["-m", tiny(), "--word", "incomprehensibilities", "--seconds", "1"]), "");
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!((out.status.code(), out.stdout.len()), (Some(1), 0), "{stderr}");
    assert!(stderr.contains("no haiku found with \"incomprehensibilities\""), "{stderr}");
    for bad in ["", "two words", "7", "-x"] {
        assert!(refuse(&mut command("haiku", &["-m", tiny(), "--word", bad]), 2).contains("usage: haiku"));
    }
}

#[test]
fn no_program_leaks_or_touches_what_is_not_its_own() {
    let (a, b) = (scratch("leaks.safetensors"), trace("cpu", "leaks_too.safetensors"));
    let runs: [(&str, &[&str], i32); 4] = [
        ("generate", &["-m", tiny(), "-p", "a b c", "-n", "4", "-t", "2", "--trace", &a], 0),
        ("compare", &[&b, &b], 0),
        ("haiku", &["-m", tiny(), "--device", "cpu", "-t", "2", "--word", "two", "--seconds", "3", "--trace", &a], 1),
        ("doctor", &["-m", "/no/such.gguf"], 1),
    ];
    for (name, args, code) in runs {
        let Some(mut command) = valgrind(&examples().join(name), name != "doctor") else { return };
        let out = run(command.args(args), "");
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.code() == Some(code) || name == "haiku" && out.status.code() == Some(0),
            "{name}:\n{stderr}"
        );
        assert!(!stderr.contains("=="), "{name} {args:?}:\n{stderr}");
    }
}
