//! The header's "Sameness" on the CPU, through sessions: every way to the same tokens ends in the same bits.
//!
//! The backend alone is held to it in tests/api/cpu.rs, batches in tests/api/batch.rs, random schedules in tests/gpu/schedules.rs.

use crate::common;
use std::sync::{Arc, Barrier};

use crate::common::run::cpu;
use crate::common::tiny::{ARCHS, Tiny};
use kigo::backend::reference::ReferenceDevice;
use kigo::backend::{Device, TAP_NAMES};
use kigo::engine::{
    Append, Engine, GenerateOptions, LoadOptions, LogSink, Model, Session, SessionOptions, Tap, append_batch,
};
use kigo::error::{Error, Result};
use kigo::gguf::TensorType;
use kigo::sampler::SamplingParams;

fn load(device: Arc<dyn Device>, file: &[u8], strict: bool) -> Result<Model> {
    let engine = Engine::with_device(device, 1, None, LogSink::silent());
    engine.load_memory_with(file, LoadOptions { strict, ..Default::default() }, &mut |_, _| Ok(()))
}

fn session(model: &Model, reuse_prefix: bool) -> Session {
    let sampling = SamplingParams { temperature: 1.0, top_p: 0.95, seed: 11, ..Default::default() };
    Session::new(model, SessionOptions { sampling, reuse_prefix, ..Default::default() }).expect("a session")
}

fn prompt(n: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * i * 31 + i * 7 + 3) % 500) as u32).collect()
}

/// The logits' bits, then ten sampled tokens, then the logits' bits again.
fn ending(session: &Session) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let bits = || {
        let mut logits = vec![0.0; session.n_vocab()];
        session.logits(&mut logits).expect("logits");
        logits.into_iter().map(f32::to_bits).collect()
    };
    let (before, n) = (bits(), session.facts().expect("free").n_tokens);
    let options = GenerateOptions { max_tokens: Some(10), ignore_end: true, ..Default::default() };
    session.generate(&options, &mut |_, _| true).expect("generates");
    (before, session.with_tokens(|t| Ok(t[n..].to_vec())).expect("free"), bits())
}

fn in_pieces(session: &Session, tokens: &[u32], piece: usize) {
    tokens.chunks(piece).for_each(|piece| session.prefill(piece).expect("fits"));
}

#[test]
fn every_way_to_the_same_tokens_ends_in_the_same_bits() {
    let tokens = prompt(150);
    for arch in ARCHS {
        let file = Tiny::new(arch, TensorType::Q4_1).bytes();
        let model = load(cpu(2), &file, false).expect("loads");
        let alone = session(&model, false);
        alone.prefill(&tokens).expect("fits");
        let expected = ending(&alone);

        // Run to run, and any number of threads; asking for strictness changes nothing here.
        for (n_threads, strict) in [(1, false), (2, true), (3, false), (5, false)] {
            let model = load(cpu(n_threads), &file, strict).expect("loads");
            let session = session(&model, false);
            session.prefill(&tokens).expect("fits");
            assert_eq!(ending(&session), expected, "{arch}, {n_threads} threads");
        }
        // Any chunking.
        for piece in [1, 2, 3, 31, 32, 33, 63, 64, 65, 149] {
            let session = session(&model, false);
            in_pieces(&session, &tokens, piece);
            assert_eq!(ending(&session), expected, "{arch}, pieces of {piece}");
        }
        // A shared prefix: of a fork, of an earlier session, and truncated back to.
        let parent = session(&model, true);
        parent.prefill(&tokens[..100]).expect("fits");
        let fork = parent.fork().expect("forks");
        parent.prefill(&prompt(7)).expect("fits");
        fork.prefill(&tokens[100..]).expect("fits");
        assert_eq!(ending(&fork), expected, "{arch}, a fork");
        let heir = session(&model, true);
        heir.prefill(&tokens).expect("fits");
        assert!(heir.facts().expect("free").n_reused >= 64, "{arch}: nothing was shared");
        assert_eq!(ending(&heir), expected, "{arch}, a reused prefix");
        parent.truncate(100).expect("holds more");
        in_pieces(&parent, &tokens[100..], 20);
        assert_eq!(ending(&parent), expected, "{arch}, truncated");
        // Tapped.
        let tapped = session(&model, false);
        tapped.set_tap(Some(Tap::new((1 << TAP_NAMES.len()) - 1, Box::new(|_| true)))).expect("free");
        in_pieces(&tapped, &tokens, 40);
        assert_eq!(ending(&tapped), expected, "{arch}, tapped");
        // In a batch with others.
        let sessions: Vec<Session> = (0..5).map(|_| session(&model, false)).collect();
        let lists: Vec<Vec<u32>> = (0..5).map(|i| if i == 2 { tokens.clone() } else { prompt(20 + 30 * i) }).collect();
        let entries: Vec<Append<'_>> =
            sessions.iter().zip(&lists).map(|(session, tokens)| Append { session, tokens }).collect();
        append_batch(&entries).into_iter().for_each(|outcome| outcome.expect("fits"));
        assert_eq!(ending(&sessions[2]), expected, "{arch}, in a batch");
    }
}

#[test]
fn sessions_on_other_threads_change_nothing() {
    let file = Tiny::new("qwen3", TensorType::Q4_0).bytes();
    let model = load(cpu(2), &file, false).expect("loads");
    let run = |i: usize| {
        let session = session(&model, false);
        in_pieces(&session, &prompt(60 + i), 1 + i);
        ending(&session)
    };
    let expected: Vec<_> = (0..6).map(run).collect();
    let barrier = Barrier::new(6);
    let found: Vec<_> = std::thread::scope(|scope| {
        let start = |i| {
            let (barrier, run) = (&barrier, &run);
            scope.spawn(move || {
                barrier.wait();
                run(i)
            })
        };
        let threads: Vec<_> = (0..6).map(start).collect();
        threads.into_iter().map(|t| t.join().expect("no panic")).collect()
    });
    assert_eq!(found, expected);
}

/// A device that says of itself that it is not strict, and has no way to be.
#[test]
fn strictness_is_refused_where_a_device_has_none() {
    let file = Tiny::new("llama", TensorType::F16).bytes();
    load(Arc::new(ReferenceDevice::PLAIN), &file, true).expect("the reference is strict");
    let probe = Arc::new(common::probe::Probe(Arc::default()));
    let Err(error) = load(probe, &file, true) else { panic!("the probe was believed strict") };
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}
