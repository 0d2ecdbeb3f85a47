//! A host's threads in the place of the CPU's own, over every architecture and while a model is loaded; `tests/c/own.rs` has the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::tiny::{ARCHS, Tiny};
use kigo::backend::Host;
use kigo::backend::cpu::{ParallelFor, Stage};
use kigo::engine::{Engine, EngineOptions, LogSink, Model, Session, SessionOptions};
use kigo::error::Result;
use kigo::gguf::TensorType;

fn load(parallel_for: Option<Arc<ParallelFor>>, file: &[u8]) -> Result<Model> {
    let options = EngineOptions { device: "cpu", n_threads: 3, memory_cap: None, log: LogSink::silent() };
    let engine = Engine::of_host(options, Host { parallel_for, ..Host::default() })?;
    engine.load_memory(file, &mut |_, _| Ok(()))
}

fn bits(model: &Model) -> Vec<u32> {
    let session = Session::new(model, SessionOptions::default()).unwrap();
    let ids: Vec<u32> = (0..150).map(|i| i * i % 400).collect();
    session.prefill(&ids).unwrap();
    let mut logits = vec![0.0; session.n_vocab()];
    let mut bits = Vec::new();
    for token in [7, 8] {
        session.logits(&mut logits).unwrap();
        bits.extend(logits.iter().map(|x: &f32| x.to_bits()));
        session.prefill(&[token]).unwrap();
    }
    bits
}

/// From the last part to the first, each on its own thread if `apart`.
fn backwards(apart: bool, n_stages: Arc<AtomicUsize>) -> Arc<ParallelFor> {
    Arc::new(move |n: usize, stage: &'static Stage| {
        n_stages.fetch_add(1, Ordering::Relaxed);
        std::thread::scope(|scope| {
            for i in (0..n).rev() {
                if apart {
                    scope.spawn(move || stage.part(i));
                } else {
                    stage.part(i);
                }
            }
        });
        true
    })
}

#[test]
fn every_architecture_has_the_same_bits_on_a_host_s_threads() {
    for arch in ARCHS {
        let file = Tiny::new(arch, TensorType::Q8_0).bytes();
        let n_stages = Arc::new(AtomicUsize::new(0));
        let theirs = load(Some(backwards(arch == "qwen2", Arc::clone(&n_stages))), &file).unwrap();
        assert_eq!(bits(&theirs), bits(&load(None, &file).unwrap()), "{arch}");
        assert!(n_stages.load(Ordering::Relaxed) > 10, "{arch}");
    }
}

#[test]
fn a_load_on_a_host_s_threads_fails_as_its_function_does() {
    // Matrices of more than a piece.
    let mut tiny = Tiny::new("llama", TensorType::F32);
    tiny.shape.n_vocab = 4096;
    let file = tiny.bytes();
    let n_stages = Arc::new(AtomicUsize::new(0));
    let theirs = load(Some(backwards(false, Arc::clone(&n_stages))), &file).unwrap();
    assert!(n_stages.load(Ordering::Relaxed) > 0);
    assert_eq!(bits(&theirs), bits(&load(None, &file).unwrap()));
    let refused = |could: bool| {
        let host = move |n: usize, stage: &'static Stage| {
            (1..n).for_each(|i| stage.part(i));
            could
        };
        load(Some(Arc::new(host)), &file).err().map(|error| error.to_string()).unwrap()
    };
    assert_eq!(refused(false), "cancelled by parallel_for");
    let text = refused(true);
    assert!(text.starts_with("parallel_for returned after ") && text.ends_with(" bodies"), "{text}");
}
