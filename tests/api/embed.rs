//! Embeddings against states that the reference shows, and against themselves.

use crate::common;
use std::sync::{Arc, Mutex};

use crate::common::tiny::{ARCHS, Tiny};
use kigo::engine::{EmbedOptions, Engine, EngineOptions, LogSink, Model, Pooling, Session, SessionOptions, Tap};
use kigo::error::{Error, Status};
use kigo::gguf::TensorType;

fn load(arch: &str, device: &str, n_threads: usize) -> Model {
    let engine = Engine::new(EngineOptions { device, n_threads, memory_cap: None, log: LogSink::silent() }).unwrap();
    let bytes = Tiny::new(arch, TensorType::Q8_0).bytes();
    engine.load_memory(&bytes, &mut |_, _| Ok(())).unwrap()
}

fn tokens(n: usize, model: &Model) -> Vec<u32> {
    (0..n as u64).map(|i| (common::random::mix(i + 3) % model.facts().n_vocab as u64) as u32).collect()
}

/// `final_norm` of each position, as the device computes it: fed one by one.
fn states(model: &Model, tokens: &[u32]) -> Vec<Vec<f32>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let session = Session::new(model, SessionOptions::default()).unwrap();
    let sink = Arc::clone(&seen);
    let bit = kigo::backend::TAP_NAMES.iter().position(|n| *n == "final_norm").unwrap();
    let see = Box::new(move |e: &kigo::backend::TapEvent<'_>| {
        sink.lock().unwrap().push(e.data.to_vec());
        true
    });
    session.set_tap(Some(Tap::new(1 << bit, see))).unwrap();
    tokens.iter().for_each(|t| session.prefill(&[*t]).unwrap());
    session.set_tap(None).unwrap();
    let states = seen.lock().unwrap().clone();
    assert_eq!(states.len(), tokens.len());
    states
}

fn embed(model: &Model, tokens: &[u32], pooling: Pooling, normalize: bool) -> Vec<f32> {
    let mut out = vec![f32::NAN; model.facts().n_embd];
    model.embed(tokens, EmbedOptions { pooling, normalize }, &mut out).unwrap();
    out
}

fn close(a: &[f32], b: &[f32], bound: f64) {
    let error: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let truth: f64 = b.iter().map(|b| f64::from(*b).powi(2)).sum();
    assert!(error <= bound * truth && truth > 0.0, "{error} of {truth}");
}

#[test]
fn embeddings_are_the_reference_s_states() {
    for arch in ARCHS {
        let (cpu, reference) = (load(arch, "cpu", 2), load(arch, "reference", 1));
        let ids = tokens(70, &cpu);
        let states = states(&reference, &ids);
        let n = states.len() as f32;
        let mean: Vec<f32> = (0..states[0].len()).map(|i| states.iter().map(|s| s[i]).sum::<f32>() / n).collect();
        for model in [&cpu, &reference] {
            close(&embed(model, &ids, Pooling::Last, false), &states[69], 1e-6);
            close(&embed(model, &ids, Pooling::Mean, false), &mean, 1e-6);
            let unit = embed(model, &ids, Pooling::Mean, true);
            let length: f64 = unit.iter().map(|x| f64::from(*x).powi(2)).sum();
            assert!((length - 1.0).abs() < 1e-5, "{length}");
            let scale = mean.iter().map(|x| x * x).sum::<f32>().sqrt();
            close(&unit, &mean.iter().map(|x| x / scale).collect::<Vec<_>>(), 1e-6);
        }
    }
}

#[test]
fn threads_and_company_change_no_bit() {
    let ids = tokens(100, &load("qwen3", "cpu", 1));
    let expected = embed(&load("qwen3", "cpu", 1), &ids, Pooling::Mean, true);
    let model = load("qwen3", "cpu", 3);
    std::thread::scope(|scope| {
        let work = || assert_eq!(embed(&model, &ids, Pooling::Mean, true), expected);
        (0..4).for_each(|_| drop(scope.spawn(work)));
    });
    assert_eq!(model.cache_facts().n_pages_used, 0);
}

#[test]
fn what_cannot_be_embedded_is_refused() {
    let model = load("llama", "cpu", 1);
    let mut out = vec![0.0; model.facts().n_embd];
    let options = EmbedOptions::default();
    assert!(matches!(model.embed(&[], options, &mut out), Err(Error::Argument { name: "n_tokens", .. })));
    assert!(matches!(model.embed(&[1], options, &mut out[1..]), Err(Error::BufferTooSmall { .. })));
    let too_long = vec![1; model.facts().n_ctx_train + 1];
    let error = model.embed(&too_long, options, &mut out).unwrap_err();
    assert_eq!(error.status(), Status::ContextFull, "{error}");
    assert!(matches!(model.embed(&[u32::MAX], options, &mut out), Err(Error::TokenOutOfRange { .. })));
    model.embed(&[1, 2], options, &mut out).unwrap();
}
