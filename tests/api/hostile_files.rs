//! Files whose weights and numbers are anything at all: what loads is used in every way, and each call ends in a result or
//! a status. KIGO_DEVICE="cuda:0" does so on a GPU (best under a memory checker); KIGO_HOSTILE says how many files.

use crate::common::random::mix;
use crate::common::tiny::{ARCHS, Tiny};
use kigo::engine::{
    Append, EmbedOptions, Engine, EngineOptions, GenerateOptions, LogSink, Model, Session, SessionOptions,
};
use kigo::engine::{append_batch, sample_batch};
use kigo::error::{Error, Status};
use kigo::gguf::{Gguf, TensorType, Value};
use kigo::sampler::SamplingParams;

/// What a file may be refused with, and a call on what was made of it.
fn is_fair(error: &Error) -> bool {
    !matches!(error.status(), Status::Internal | Status::Poisoned | Status::DeviceLost | Status::Io)
}

/// Uses a model in every way; how many calls succeeded.
fn use_all(name: &str, model: &Model, seed: u64) -> usize {
    let mut n_done = 0;
    let mut note = |what: &str, outcome: Result<(), Error>| match outcome {
        Ok(()) => n_done += 1,
        Err(e) => assert!(is_fair(&e), "{name}: {what}: {e}"),
    };
    let n_vocab = model.facts().n_vocab as u64;
    let tokens = |n: u64| (0..n).map(|i| (mix(seed ^ i) % n_vocab) as u32).collect::<Vec<_>>();
    let sampling = SamplingParams {
        temperature: 0.8,
        top_k: 40,
        top_p: 0.9,
        min_p: 0.01,
        repetition_penalty: 1.1,
        penalty_window: 32,
        seed,
        ..SamplingParams::default()
    };
    let made = [SamplingParams::default(), sampling].map(|sampling| {
        Session::new(model, SessionOptions { sampling, ..SessionOptions::default() })
            .map_err(|e| note("create", Err(e)))
    });
    let [Ok(greedy), Ok(drawn)] = made else { return n_done };
    for (session, n) in [(&greedy, 1), (&drawn, 37)] {
        note("prefill", session.prefill(&tokens(n)));
        for _ in 0..2 {
            let token = session.sample();
            note("step", token.and_then(|token| session.prefill(&[token])));
        }
        let mut logits = vec![0.0; session.n_vocab()];
        note("logprobs", session.logprobs(&mut logits));
        let options = GenerateOptions { max_tokens: Some(4), ignore_end: true, ..GenerateOptions::default() };
        note("generate", session.generate(&options, &mut |_, _| true).map(drop));
    }
    let both = [&greedy, &drawn];
    for outcome in append_batch(&both.map(|session| Append { session, tokens: &[1] })) {
        note("batch", outcome);
    }
    for outcome in sample_batch(&both) {
        note("sample_batch", outcome.map(drop));
    }
    note("fork", drawn.fork().and_then(|fork| fork.truncate(1)));
    let saved = drawn.saved_bytes().and_then(|n| {
        let mut blob = vec![0; n];
        drawn.save(&mut blob)?;
        Session::restore(model, &blob)
    });
    note("save", saved.map(drop));
    let mut embedding = vec![0.0; model.facts().n_embd];
    note("embed", model.embed(&tokens(3), EmbedOptions::default(), &mut embedding));
    n_done
}

/// Files that are wrong somewhere, number by number; the base is a correct one.
fn wrong(base: &[u8], i: u64) -> (String, Vec<u8>) {
    let mut bytes = base.to_vec();
    let gguf = Gguf::from_bytes(base).unwrap();
    let tensors: Vec<_> = gguf.tensors().map(|t| (t.name.to_owned(), t.offset as usize, t.data.len())).collect();
    let data_at = tensors.iter().map(|t| t.1).min().unwrap();
    let draw = |n: u64| mix(i.wrapping_mul(7919) ^ n << 40);
    match i % 4 {
        // One matrix or norm of one kind of nonsense: NaN, infinity, the largest, zeros, anything.
        0 | 1 => {
            let (name, at, len) = &tensors[draw(0) as usize % tensors.len()];
            let kinds: [&[u8]; 6] =
                [&[0xff], &[0, 0x7e], &[0, 0x7c, 0, 0xfc], &[0xff, 0x7b], &[0, 0, 0x80, 0x7f], &[0]];
            let pattern = kinds[draw(1) as usize % kinds.len()];
            for (n, byte) in bytes[*at..at + len].iter_mut().enumerate() {
                *byte = if draw(2) % 3 == 0 { mix(draw(3) ^ n as u64) as u8 } else { pattern[n % pattern.len()] };
            }
            (format!("{i}: {name} of {pattern:x?}"), bytes)
        }
        // Some bits of the head, most of them where the counts and sizes are.
        2 => {
            for n in 0..1 + draw(0) % 4 {
                let place = (draw(n + 1) % 1000) as f64 / 1000.0;
                bytes[(place * place * data_at as f64) as usize] = draw(n + 9) as u8;
            }
            (format!("{i}: head"), bytes)
        }
        // Some bits of the weights.
        _ => {
            for n in 0..1 + draw(0) % 64 {
                let len = bytes.len();
                bytes[data_at + draw(n + 1) as usize % (len - data_at)] = draw(n + 99) as u8;
            }
            (format!("{i}: weights"), bytes)
        }
    }
}

/// A key of a correct file and the number in its place.
type WrongNumber = (String, f32);

/// What the numbers of a file's metadata may be instead.
fn wrong_numbers(base: &Tiny) -> Vec<WrongNumber> {
    let bytes = base.bytes();
    let gguf = Gguf::from_bytes(&bytes).unwrap();
    let floats = gguf.meta_iter().filter(|(_, value)| matches!(value, Value::F32(_))).map(|(key, _)| key.to_owned());
    let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -1.0, f32::MAX, f32::MIN_POSITIVE / 4.0];
    floats.flat_map(|key| values.map(|value| (key.clone(), value))).collect()
}

#[test]
fn whatever_loads_can_be_used() {
    let device = std::env::var("KIGO_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    let n: u64 = std::env::var("KIGO_HOSTILE").ok().and_then(|n| n.parse().ok()).unwrap_or(240);
    let options = EngineOptions { device: &device, n_threads: 2, memory_cap: Some(1 << 30), log: LogSink::silent() };
    let engine = match Engine::new(options) {
        Ok(engine) => engine,
        Err(e) if device.starts_with("cuda") && std::env::var("KIGO_REQUIRE_CUDA").is_err() => {
            println!("skipped: no CUDA device ({e})");
            return;
        }
        Err(e) => panic!("{e}"),
    };
    let types =
        [TensorType::F16, TensorType::Q8_0, TensorType::Q4_0, TensorType::Q6_K, TensorType::Q4_K, TensorType::F32];
    let bases: Vec<Tiny> =
        ARCHS.iter().enumerate().map(|(i, arch)| Tiny::new(arch, types[(i + i / 3) % types.len()])).collect();
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for i in 0..n {
        let arch = ARCHS[i as usize % ARCHS.len()];
        let tiny = Tiny::new(arch, types[(i / 4) as usize % types.len()]);
        let (name, bytes) = wrong(&tiny.bytes(), i / 4);
        files.push((format!("{arch}, {:?}, {name}", tiny.ty), bytes));
        if files.len() == 64 || i + 1 == n {
            run(&engine, &mut files, i);
        }
    }
    let all: Vec<_> = bases.iter().flat_map(|base| wrong_numbers(base).into_iter().map(move |n| (base, n))).collect();
    let step = all.len().div_ceil(n as usize).max(1);
    for (base, (key, value)) in all.into_iter().step_by(step) {
        let tiny = Tiny { with: vec![(key.clone(), Value::F32(value))], ..base.clone() };
        files.push((format!("{key} = {value}"), tiny.bytes()));
        if files.len() == 64 {
            run(&engine, &mut files, 0);
        }
    }
    run(&engine, &mut files, 0);
}

/// Loads and uses each of the files, and forgets them.
fn run(engine: &Engine, files: &mut Vec<(String, Vec<u8>)>, seed: u64) {
    let (mut n_loaded, mut n_done) = (0, 0);
    let n = files.len();
    for (name, bytes) in files.drain(..) {
        match engine.load_memory(&bytes, &mut |_, _| Ok(())) {
            Ok(model) => {
                n_loaded += 1;
                n_done += use_all(&name, &model, seed);
            }
            Err(e) => assert!(is_fair(&e), "{name}: {e}"),
        }
    }
    println!("{n} files, {n_loaded} of them load, {n_done} calls succeed");
    assert_eq!(engine.memory_used(), 0);
}
