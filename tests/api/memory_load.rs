//! Load, tokenize, detokenize and streams where memory runs out at many places: a status each time, and no process ends.
//!
//! A child of this very program takes a limit on its address space and does the work; the parent looks at how it ended.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)] // setrlimit

use std::path::{Path, PathBuf};
use std::process::Command;

use kigo::engine::{Engine, EngineOptions, LogSink, TextStream};
use kigo::error::{Result, Status};
use kigo::gguf::{TensorType, Value, Writer};

use crate::common::tiny::Tiny;

/// The child's job: a model file, bytes more than it has, and the length of a text.
const JOB: &str = "KIGO_MEMORY_LOAD_JOB";
/// Allocations up to this are for the library's reserve of small ones; larger ones must not fail by ending the process.
const SMALL: usize = 64 << 10;

/// Bytes of address space in use.
fn address_space() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("there");
    statm.split(' ').next().and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}

fn limit(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: reads one struct.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
}

fn work(engine: &Engine, path: &Path, n: usize) -> Result<usize> {
    let model = engine.load_file(path, &mut |_, _| Ok(()))?;
    // A prose of short words, and one word.
    let mut text = String::new();
    text.try_reserve_exact(n + 64).map_err(|_| kigo::error::Error::OutOfMemory {
        place: "test".into(),
        requested: n as u64,
        free: 0,
    })?;
    while text.len() < n / 2 {
        text.push_str("It was cold. ");
    }
    while text.len() < n {
        text.push('x');
    }
    let ids = model.tokenize(&text, true, true)?;
    let back = model.detokenize(&ids, true)?;
    let mut stream = TextStream::new(&model, &["nowhere to be found".to_owned()], true)?;
    let mut out = String::new();
    for &id in ids.iter().take(2000) {
        stream.push(id, &mut out)?;
    }
    stream.finish(&mut out)?;
    model.meta_text("tokenizer.ggml.tokens")?;
    Ok(back.len())
}

#[test]
fn child() {
    let Ok(job) = std::env::var(JOB) else { return };
    let mut job = job.split(',');
    let path = PathBuf::from(job.next().expect("a path"));
    let mut number = || job.next().and_then(|n| n.parse::<u64>().ok()).expect("a number");
    let (extra, n) = (number(), number() as usize);
    let device = EngineOptions { device: "cpu", n_threads: 2, memory_cap: None, log: LogSink::silent() };
    let engine = Engine::new(device).expect("opens");
    limit(address_space() + extra);
    let worked = work(&engine, &path, n);
    limit(libc::RLIM_INFINITY);
    let code = match worked {
        Ok(_) => 10,
        Err(e) if e.status() == Status::OutOfMemory => 11,
        // Of a file that is no model, which has no text.
        Err(e) if e.status() == Status::InvalidModel && n == 0 => 10,
        Err(e) => {
            eprintln!("unexpected: {e}");
            12
        }
    };
    assert_eq!(engine.memory_used(), 0, "all is given back");
    std::process::exit(code);
}

/// Runs a child with so much more memory; whether its work was done, or the bytes of a small allocation that ended it.
fn run(path: &Path, extra: u64, n: usize) -> std::result::Result<bool, usize> {
    let mut child = Command::new(std::env::current_exe().expect("known"));
    child.args(["memory_load::child", "--exact", "--nocapture", "--test-threads=1"]);
    child.env(JOB, format!("{},{extra},{n}", path.display()));
    if n == 0 {
        // No address space of the C library's that a description could lie in without more of it.
        child.env("MALLOC_ARENA_MAX", "1");
    }
    let output = child.output().expect("runs");
    let text = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(10) => Ok(true),
        Some(11) => Ok(false),
        _ => {
            let failed = text.lines().find_map(|line| line.strip_prefix("memory allocation of "));
            let bytes = failed.and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
            match bytes {
                Some(bytes) if bytes <= SMALL => Err(bytes),
                _ => panic!("with {extra} bytes more: {:?}\n{text}", output.status),
            }
        }
    }
}

/// So many limits, or as many as asked for, below `most`.
fn limits(n: u64, most: u64) -> impl Iterator<Item = u64> {
    let n = std::env::var("KIGO_MEMORY_LIMITS").map_or(n, |n| n.parse().expect("a number"));
    (0..n).map(move |i| i * (most / n))
}

/// Tries limits from nothing to enough.
fn sweep(path: &Path, limits: impl Iterator<Item = u64>, n: usize) {
    let (mut done, mut refused, mut small) = (0, 0, Vec::new());
    for extra in limits {
        match run(path, extra, n) {
            Ok(true) => done += 1,
            Ok(false) => refused += 1,
            Err(bytes) => small.push((extra, bytes)),
        }
    }
    println!("{}: {done} done, {refused} refused, ended by small allocations: {small:?}", path.display());
    assert!(done > 0 && refused > 0, "{done} done, {refused} refused");
}

#[test]
fn tiny_models_at_many_limits() {
    if std::env::var(JOB).is_ok() {
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("memory_load");
    std::fs::create_dir_all(&folder).expect("made");
    for arch in ["qwen2", "gemma3"] {
        let path = folder.join(format!("{arch}.gguf"));
        Tiny::new(arch, TensorType::Q8_0).write(&path);
        sweep(&path, limits(40, 64 << 20), 2_000_000);
    }
}

/// A description whose length is the file's to say: 65,536 layers, and a head of a million elements.
#[test]
fn a_file_of_many_layers_at_many_limits() {
    if std::env::var(JOB).is_ok() {
        return;
    }
    let mut writer = Writer::new(3);
    writer.meta("general.architecture", Value::String("llama"));
    let numbers = [
        ("block_count", 65_536),
        ("context_length", 64),
        ("embedding_length", 32),
        ("feed_forward_length", 32),
        ("attention.head_count", 1),
        ("attention.key_length", 1 << 20),
        ("attention.value_length", 1 << 20),
        ("vocab_size", 32),
    ];
    for (key, n) in numbers {
        writer.meta(&format!("llama.{key}"), Value::U32(n));
    }
    writer.meta("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    writer.tensor("token_embd.weight", TensorType::F32, &[32, 32]);
    for i in 1..65_536 {
        writer.tensor(&i.to_string(), TensorType::F32, &[1]);
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("memory_load");
    std::fs::create_dir_all(&folder).expect("made");
    let path = folder.join("many-layers.gguf");
    std::fs::write(&path, writer.to_bytes(|_, bytes| bytes.fill(0))).expect("written");
    sweep(&path, limits(40, 40 << 20), 0);
}

#[test]
fn a_real_model_at_many_limits() {
    if std::env::var(JOB).is_ok() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct-Q4_1.gguf");
    if !path.exists() {
        println!("skipped: no models/SmolLM2-135M-Instruct-Q4_1.gguf");
        return;
    }
    sweep(&path, limits(24, 192 << 20).chain([1 << 30]), 1_000_000);
}
