//! Forks: constant time, no cache memory until they write, and nothing that one does shows in another.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::common::probe::{Plot, Probe};
use crate::common::run::cpu;
use crate::common::tiny::Tiny;
use kigo::backend::Device;
use kigo::backend::reference::ReferenceDevice;
use kigo::engine::{Engine, GenerateOptions, LogSink, Model, Session, SessionOptions};
use kigo::error::Status;
use kigo::gguf::TensorType;
use kigo::sampler::SamplingParams;

fn load(device: Arc<dyn Device>, n_ctx: usize) -> (Engine, Model) {
    let mut tiny = Tiny::new("qwen2", TensorType::Q8_0);
    tiny.shape.n_ctx = n_ctx;
    let engine = Engine::with_device(device, 1, None, LogSink::silent());
    let model = engine.load_memory(&tiny.bytes(), &mut |_, _| Ok(())).unwrap();
    (engine, model)
}

fn session(model: &Model) -> Session {
    Session::new(model, SessionOptions::default()).unwrap()
}

fn prompt(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i * 37 % 500).collect()
}

/// All that a caller can see of a session.
fn seen(session: &Session) -> (Vec<u32>, Option<Vec<u32>>) {
    let tokens = session.with_tokens(|t| Ok(t.to_vec())).unwrap();
    let mut logits = vec![0.0; session.n_vocab()];
    (tokens, session.logits(&mut logits).ok().map(|()| logits.iter().map(|l: &f32| l.to_bits()).collect()))
}

/// What a session of these tokens shows that was made of them alone.
fn alone(model: &Model, tokens: &[u32]) -> (Vec<u32>, Option<Vec<u32>>) {
    let session = session(model);
    session.prefill(tokens).unwrap();
    seen(&session)
}

#[test]
fn each_of_a_family_goes_its_own_way() {
    for device in [cpu(2), Arc::new(ReferenceDevice::PLAIN) as Arc<dyn Device>] {
        let (engine, model) = load(device, 512);
        let empty = engine.memory_used();
        for n in [1, 63, 64, 65, 128, 150] {
            let root = session(&model);
            root.prefill(&prompt(n)).unwrap();
            let before = seen(&root);
            let (a, b) = (root.fork().unwrap(), root.fork().unwrap());
            let c = a.fork().unwrap();
            assert_eq!(seen(&c), before, "a fork has the tokens and the logits");
            a.prefill(&[7, 8]).unwrap();
            b.prefill(&prompt(70)).unwrap();
            assert_eq!(seen(&root), before);
            assert_eq!(seen(&c), before);
            root.prefill(&[9]).unwrap();
            c.truncate(n / 2).unwrap();
            assert_eq!(seen(&c), (prompt(n)[..n / 2].to_vec(), None));
            c.prefill(&[10; 5]).unwrap();
            assert_eq!(seen(&a), alone(&model, &[&prompt(n)[..], &[7, 8]].concat()));
            assert_eq!(seen(&b), alone(&model, &[prompt(n), prompt(70)].concat()));
            assert_eq!(seen(&root), alone(&model, &[&prompt(n)[..], &[9]].concat()));
            assert_eq!(seen(&c), alone(&model, &[&prompt(n)[..n / 2], &[10; 5]].concat()));
            drop(root);
            a.prefill(&[1]).unwrap();
            assert_eq!(seen(&a), alone(&model, &[&prompt(n)[..], &[7, 8, 1]].concat()));
        }
        assert_eq!(engine.memory_used(), empty);
    }
}

#[test]
fn a_fork_takes_pages_only_as_it_writes() {
    let plot = Arc::new(Plot::default());
    let (engine, model) = load(Arc::new(Probe(Arc::clone(&plot))), 512);
    let page = model.facts().kv_bytes_per_token * 64;
    let empty = engine.memory_used();
    let pages = || (engine.memory_used() - empty) / page;
    let root = session(&model);
    root.prefill(&prompt(130)).unwrap();
    assert_eq!(pages(), 3);
    let forks: Vec<_> = (0..5).map(|_| root.fork().unwrap()).collect();
    assert_eq!(pages(), 3);
    forks[0].prefill(&[1]).unwrap();
    assert_eq!((pages(), plot.copied.load(Ordering::SeqCst)), (4, 1), "the page it writes to is copied");
    forks[0].prefill(&[1; 61]).unwrap();
    assert_eq!((pages(), plot.copied.load(Ordering::SeqCst)), (4, 1), "once");
    forks[1].truncate(128).unwrap();
    forks[1].prefill(&[1]).unwrap();
    assert_eq!((pages(), plot.copied.load(Ordering::SeqCst)), (5, 1), "a whole page is not");
    drop(root);
    assert_eq!(pages(), 5);
    let mut forks = forks.into_iter();
    let (a, b) = (forks.next(), forks.next());
    for fork in forks {
        fork.prefill(&[2]).unwrap();
    }
    assert_eq!(pages(), 4, "those that were not kept are free again, the last copy was none");
    drop((a, b));
    assert_eq!(pages(), 0);
}

#[test]
fn a_pass_that_fails_after_a_fork_leaves_both_as_they_were() {
    let plot = Arc::new(Plot::default());
    let (engine, model) = load(Arc::new(Probe(Arc::clone(&plot))), 512);
    let root = session(&model);
    root.prefill(&prompt(70)).unwrap();
    let before = seen(&root);
    let fork = root.fork().unwrap();
    *plot.fail_in_pass.lock().unwrap() = Some(0);
    assert_eq!(fork.prefill(&prompt(100)).unwrap_err().status(), Status::DeviceLost);
    assert_eq!((seen(&fork), seen(&root)), (before.clone(), before));
    fork.prefill(&[4]).unwrap();
    assert_eq!(seen(&fork), alone(&model, &[&prompt(70)[..], &[4]].concat()));
    drop((root, fork));
    let used = engine.memory_used();
    drop(session(&model));
    assert_eq!(engine.memory_used(), used);
}

#[test]
fn a_fork_draws_what_its_parent_draws_until_it_gets_another_seed() {
    let (_engine, model) = load(cpu(2), 512);
    let sampling = SamplingParams { temperature: 2.0, seed: 3, ..Default::default() };
    let root =
        Session::new(&model, SessionOptions { n_ctx: Some(200), sampling: sampling.clone(), ..Default::default() })
            .unwrap();
    root.prefill(&prompt(20)).unwrap();
    let (same, other) = (root.fork().unwrap(), root.fork().unwrap());
    assert_eq!(same.n_ctx(), 200);
    other.set_sampling(SamplingParams { seed: 4, ..sampling }).unwrap();
    let options = GenerateOptions { max_tokens: Some(30), ignore_end: true, ..Default::default() };
    for session in [&root, &same, &other] {
        session.generate(&options, &mut |_, _| true).unwrap();
    }
    assert_eq!(seen(&root), seen(&same));
    assert_ne!(seen(&root).0, seen(&other).0);
}

#[test]
fn a_thousand_forks_of_a_long_prefix_are_made_in_a_moment() {
    let (engine, model) = load(cpu(2), 8192);
    let root = session(&model);
    root.prefill(&prompt(4096)).unwrap();
    let used = engine.memory_used();
    // The least of three: the machine may be busy with other things.
    let took = (0..3).map(|_| {
        let begin = Instant::now();
        let forks: Vec<_> = (0..1000).map(|_| root.fork().unwrap()).collect();
        let took = begin.elapsed();
        assert_eq!(engine.memory_used(), used);
        drop(forks);
        took
    });
    let took = took.min().unwrap();
    println!("1,000 forks of 4,096 tokens: {took:?}");
    assert!(took < Duration::from_millis(10), "{took:?}");
}
