//! What a real model takes: time to open, memory at its peak.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::apart::apart;
use kigo::engine::{Engine, EngineOptions, GenerateOptions, LogSink, Session, SessionOptions};

/// Peak resident bytes of this process.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// One test, so that nothing else is in the process: the peak is this model's, opened once.
#[test]
fn smollm2_opens_at_once_and_stays_small() {
    if apart(|| ()) {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct-Q4_1.gguf");
    let Ok(file) = std::fs::metadata(&path) else {
        println!("skipped: {} is not there", path.display());
        return;
    };
    let options = || EngineOptions { device: "cpu", n_threads: 2, memory_cap: None, log: LogSink::silent() };
    let engine = Engine::new(options()).unwrap();
    let model = engine.load_file(&path, &mut |_, _| Ok(())).unwrap();
    let session = Session::new(&model, SessionOptions::default()).unwrap();
    let n_prompt = 600;
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(100);
    session.prefill(&model.tokenize(&text, true, false).unwrap()[..n_prompt]).unwrap();
    let generate = GenerateOptions { max_tokens: Some(32), ignore_end: true, ..GenerateOptions::default() };
    session.generate(&generate, &mut |_, _| true).unwrap();
    let kv = (n_prompt as u64 + 32).next_multiple_of(64) * model.facts().kv_bytes_per_token;
    let limit = file.len() + kv + (64 << 20);
    let peak = peak_bytes();
    println!("peak {peak} bytes: the file's {}, the cache's {kv}, and {} more", file.len(), peak - file.len() - kv);
    assert!(peak <= limit, "{peak} bytes, {limit} allowed");
    drop((session, model, engine));

    // The fastest of a few: what else the machine does is not the library's time.
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        let engine = Engine::new(options()).unwrap();
        let model = engine.load_file(&path, &mut |_, _| Ok(())).unwrap();
        fastest = fastest.min(start.elapsed());
        drop(model);
    }
    println!("opened in {fastest:?}");
    if cfg!(debug_assertions) {
        println!("skipped: the time to open, which is an optimized build's");
    } else {
        assert!(fastest < Duration::from_millis(300), "{fastest:?}");
    }
}
