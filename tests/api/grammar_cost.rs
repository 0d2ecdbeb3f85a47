//! What grammars cost: no text takes more than 2 seconds and 256 MiB to compile, nor does a token, else it is refused with
//! the number. Hostile families are swept by size up to the longest text; what is usual is taken.
//!
//! `KIGO_GRAMMAR_COST=all cargo test --release --test api grammar_cost:: -- --nocapture` sweeps everything and prints it;
//! without the variable the sizes are few and the time may be three times as long, since machines that test are slow.

#![allow(unsafe_code)] // a clock

use std::time::Duration;

use crate::common::apart::apart;
use crate::common::hostile::{LARKS, REGEXES, SQL, USUAL};
use crate::common::tiny::Tiny;
use kigo::alloc::watch;
use kigo::engine::{Constraint, Engine, EngineOptions, Grammar, LogSink, Model, Session, SessionOptions};
use kigo::error::Error;
use kigo::gguf::TensorType;
use kigo::sampler::SamplingParams;

const MOST_BYTES: usize = 256 << 20;
const MOST_TIME: Duration = Duration::from_secs(2);

fn everything() -> bool {
    std::env::var_os("KIGO_GRAMMAR_COST").is_some()
}

fn most_time() -> Duration {
    if everything() { MOST_TIME } else { MOST_TIME * 3 }
}

/// The longest text of each kind is beyond this.
const SIZES: usize = 1 << 18;

fn sizes() -> impl Iterator<Item = usize> {
    let few = [3, 60, 900, 14_000];
    let all: Vec<usize> = (1..).map(|i| 1usize << i).flat_map(|n| [n, n + n / 2]).take_while(|n| *n <= SIZES).collect();
    if everything() { all } else { Vec::from(few) }.into_iter()
}

/// Which families: all, or those that `KIGO_GRAMMAR_COST` names.
fn wanted(name: &str) -> bool {
    let chosen = std::env::var("KIGO_GRAMMAR_COST").unwrap_or_default();
    chosen.is_empty() || chosen == "all" || name.contains(&chosen)
}

/// What the process has taken of the processors, which other processes take too.
fn cpu_time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes the struct.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Runs it, and the time and the most bytes that it took.
fn measured<T>(run: impl FnOnce() -> T) -> (T, Duration, usize) {
    let start = cpu_time();
    let (outcome, bytes) = watch::peak(run);
    (outcome, cpu_time() - start, bytes)
}

#[derive(Default)]
struct Worst {
    time: (Duration, String),
    bytes: (usize, String),
    n: usize,
    n_refused: usize,
    wrong: Vec<String>,
}

impl Worst {
    fn take(&mut self, what: String, time: Duration, bytes: usize, error: Option<&Error>) {
        if everything() {
            let text = error.map(|e| e.to_string().chars().take(150).collect::<String>()).unwrap_or_default();
            println!("{:8.1} ms {:7.1} MiB  {what}  {text}", time.as_secs_f64() * 1e3, bytes as f64 / 1048576.0);
        }
        self.n += 1;
        self.n_refused += usize::from(error.is_some());
        if time > most_time() || bytes > MOST_BYTES {
            self.wrong.push(format!("{what}: {time:?}, {bytes} bytes"));
        }
        match error {
            None | Some(Error::Constraint { .. }) => {}
            Some(other) => self.wrong.push(format!("{what}: {other}")),
        }
        if error.is_some_and(|e| e.to_string().contains("parser failed") || e.to_string().contains("panic")) {
            self.wrong.push(format!("{what}: {}", error.map(ToString::to_string).unwrap_or_default()));
        }
        if time > self.time.0 {
            self.time = (time, what.clone());
        }
        if bytes > self.bytes.0 {
            self.bytes = (bytes, what);
        }
    }

    fn end(self, of: &str) {
        let Worst { time, bytes, n, n_refused, wrong } = self;
        println!(
            "{of}: {n} texts, {n_refused} refused; at most {:?} ({}) and {:.1} MiB ({})",
            time.0,
            time.1,
            bytes.0 as f64 / 1048576.0,
            bytes.1
        );
        assert!(wrong.is_empty(), "{} too many:\n{}", wrong.len(), wrong.join("\n"));
    }
}

fn engine() -> Engine {
    Engine::new(EngineOptions { device: "cpu", n_threads: 2, memory_cap: None, log: LogSink::silent() }).unwrap()
}

fn tiny() -> Model {
    engine().load_memory(&Tiny::new("llama", TensorType::Q8_0).bytes(), &mut |_, _| Ok(())).unwrap()
}

fn compile(worst: &mut Worst, model: &Model, name: &str, n: usize, grammar: Grammar<'_>) -> Option<Constraint> {
    let (made, time, bytes) = measured(|| Constraint::compile(model, grammar));
    worst.take(format!("{name} {n}"), time, bytes, made.as_ref().err());
    made.ok()
}

#[test]
fn compiling_is_bounded() {
    if apart(|| ()) {
        return;
    }
    let model = tiny();
    Constraint::compile(&model, Grammar::Regex("a")).unwrap();
    let mut worst = Worst::default();
    for (name, text) in REGEXES.iter().filter(|f| wanted(f.0)) {
        for n in sizes() {
            let text = text(n);
            compile(&mut worst, &model, &format!("regex: {name}"), n, Grammar::Regex(&text));
            let lark = format!("start: \"begin\" T \"end\"\nT: /{}/\n", text.replace('/', "\\/"));
            compile(&mut worst, &model, &format!("terminal: {name}"), n, Grammar::Lark(&lark));
            if text.len() > SIZES * 2 {
                break;
            }
        }
    }
    for (name, text) in LARKS.iter().filter(|f| wanted(f.0)) {
        for n in sizes() {
            let text = text(n);
            compile(&mut worst, &model, &format!("lark: {name}"), n, Grammar::Lark(&text));
            if text.len() > SIZES * 4 {
                break;
            }
        }
    }
    worst.end("compiling");
}

#[test]
fn what_is_usual_is_taken() {
    if apart(|| ()) {
        return;
    }
    let model = tiny();
    let mut worst = Worst::default();
    for (name, text) in USUAL {
        let n = 5000;
        let text = text(n);
        assert!(compile(&mut worst, &model, name, n, Grammar::Regex(&text)).is_some(), "{name}");
    }
    let words: Vec<String> = (0..5000).map(|i| format!("\"word number {i} of a list\"")).collect();
    let list = format!("{{\"enum\": [{}]}}", words.join(","));
    assert!(compile(&mut worst, &model, "a list", 5000, Grammar::JsonSchema(&list)).is_some());
    assert!(compile(&mut worst, &model, "SQL", 1, Grammar::Lark(SQL)).is_some());
    worst.end("usual");
}

/// Tokens of a session that is held to the grammar, each chosen with a mask; the longest that one took.
fn generate(worst: &mut Worst, model: &Model, name: &str, constraint: &Constraint, n_tokens: usize) {
    let sampling = SamplingParams { temperature: 1.5, seed: 7, ..SamplingParams::default() };
    let session = Session::new(model, SessionOptions { sampling, ..SessionOptions::default() }).unwrap();
    session.prefill(&[1]).unwrap();
    session.set_constraint(Some(constraint)).unwrap();
    let mut times = Vec::new();
    // All that is taken meanwhile, and kept.
    let (_, bytes) = watch::peak(|| {
        for _ in 0..n_tokens {
            let start = cpu_time();
            let token = session.sample();
            times.push((cpu_time() - start, token.as_ref().err().map(ToString::to_string)));
            let Ok(token) = token else { break };
            if model.token_flags(token).unwrap().end || session.prefill(&[token]).is_err() {
                break;
            }
        }
    });
    for (i, (time, error)) in times.into_iter().enumerate() {
        let error = error.map(|text| Error::Constraint { message: text });
        worst.take(format!("{name} token {i}"), time, bytes, error.as_ref());
    }
}

#[test]
fn choosing_is_bounded() {
    if apart(|| ()) {
        return;
    }
    let paths = ["models/Qwen2.5-Coder-0.5B-Instruct-Q4_K_M.gguf", "models/SmolLM2-135M-Instruct-Q4_1.gguf"];
    let path = std::path::Path::new(if everything() { paths[0] } else { paths[1] });
    let model = if path.is_file() {
        engine().load_file(path, &mut |_, _| Ok(())).unwrap()
    } else {
        println!("{} is not there: a vocabulary of 512 tokens instead", path.display());
        tiny()
    };
    let (n_tokens, most) = if everything() { (50, usize::MAX) } else { (2, 900) };
    let mut worst = Worst::default();
    let mut compiled = Worst::default();
    Constraint::compile(&model, Grammar::Regex("a")).unwrap();
    for (name, text) in REGEXES.iter().filter(|f| wanted(f.0)) {
        // The largest that is taken, and a small one.
        let mut largest = None;
        for n in sizes().filter(|n| *n <= most) {
            let text = text(n);
            let made = compile(&mut compiled, &model, name, n, Grammar::Regex(&text));
            if n == 3 || n == 60 || n == 64 {
                made.iter().for_each(|c| generate(&mut worst, &model, &format!("{name} {n}"), c, n_tokens));
            }
            match made {
                Some(constraint) => largest = Some((n, constraint)),
                None if n > 3 => break,
                None => {}
            }
        }
        if let Some((n, constraint)) = largest {
            generate(&mut worst, &model, &format!("{name} {n}"), &constraint, n_tokens);
        }
    }
    for (name, text) in LARKS.iter().filter(|f| wanted(f.0)) {
        let mut largest = None;
        for n in sizes().filter(|n| *n <= most) {
            match compile(&mut compiled, &model, name, n, Grammar::Lark(&text(n))) {
                Some(constraint) => largest = Some((n, constraint)),
                None if n > 3 => break,
                None => {}
            }
        }
        if let Some((n, constraint)) = largest {
            generate(&mut worst, &model, &format!("lark {name} {n}"), &constraint, n_tokens);
        }
    }
    worst.end("choosing");
}
