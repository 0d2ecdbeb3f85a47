//! Batches: every session is what it would be alone, bit for bit, and what fails is one entry's.

use crate::common;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::probe::{Plot, Probe};
use crate::common::run::cpu;
use crate::common::shapes::Shape;
use crate::common::tiny::Tiny;
use kigo::backend::Device;
use kigo::engine::{
    Append, Engine, GenerateOptions, LoadOptions, LogSink, Model, Session, SessionOptions, append_batch, sample_batch,
};
use kigo::error::{Error, Result, Status};
use kigo::gguf::TensorType;
use kigo::sampler::SamplingParams;

/// A tiny model with a context of 1024 tokens.
pub fn load(device: Arc<dyn Device>, arch: &str, ty: TensorType, options: LoadOptions) -> Model {
    let mut tiny = Tiny::new(arch, ty);
    tiny.shape.n_ctx = 1024;
    let engine = Engine::with_device(device, 1, None, LogSink::silent());
    engine.load_memory_with(&tiny.bytes(), options, &mut |_, _| Ok(())).unwrap()
}

fn model() -> Model {
    load(cpu(2), "qwen2", TensorType::Q4_1, LoadOptions::default())
}

/// A session with the defaults.
pub fn session(model: &Model) -> Session {
    Session::new(model, SessionOptions::default()).unwrap()
}

/// Any tokens.
pub fn prompt(seed: usize, n: usize) -> Vec<u32> {
    (0..n).map(|i| ((seed * 101 + i * i * 31 + i * 7 + 3) % 500) as u32).collect()
}

/// All that a caller can see of a session, logits as bits.
pub fn seen(session: &Session) -> (Vec<u32>, Option<Vec<u32>>) {
    let tokens = session.with_tokens(|t| Ok(t.to_vec())).unwrap();
    let mut logits = vec![0.0_f32; session.n_vocab()];
    (tokens, session.logits(&mut logits).ok().map(|()| logits.iter().map(|l| l.to_bits()).collect()))
}

fn append(entries: &[(&Session, &[u32])]) -> Vec<Result<()>> {
    append_batch(&entries.iter().map(|(session, tokens)| Append { session, tokens }).collect::<Vec<_>>())
}

fn statuses<T>(outcomes: &[Result<T>]) -> Vec<Status> {
    outcomes.iter().map(|o| o.as_ref().map_or_else(|e| e.status(), |_| Status::Ok)).collect()
}

fn all_ok(outcomes: Vec<Result<()>>) {
    outcomes.into_iter().for_each(|o| o.unwrap());
}

/// `i` of `n`, in another order.
fn permuted(i: usize, n: usize) -> usize {
    // 7,919 is a prime, so no n here divides it.
    (i * 7919 + 5) % n
}

#[test]
fn sixty_four_sessions_are_the_same_alone_and_in_batches_of_every_size() {
    for (arch, ty, device) in
        [("qwen2", TensorType::Q4_1, cpu(2)), ("gemma3", TensorType::F16, cpu(3)), ("llama", TensorType::Q4_K, cpu(1))]
    {
        let model = load(device, arch, ty, LoadOptions::default());
        const STEPS: usize = 3;
        let sampling =
            |i: usize| SamplingParams { temperature: (i % 3) as f32, seed: i as u64, top_k: 40, ..Default::default() };
        let make =
            |i: usize| Session::new(&model, SessionOptions { sampling: sampling(i), ..Default::default() }).unwrap();
        // From one token to more than a pass.
        let prompts: Vec<Vec<u32>> = (0..64).map(|i| prompt(i, if i == 9 { 700 } else { 1 + i * 17 % 150 })).collect();
        // What each step shows, alone.
        let alone: Vec<Vec<_>> = prompts
            .iter()
            .enumerate()
            .map(|(i, prompt)| {
                let session = make(i);
                session.prefill(prompt).unwrap();
                let mut states = vec![seen(&session)];
                for _ in 0..STEPS {
                    session.prefill(&[session.sample().unwrap()]).unwrap();
                    states.push(seen(&session));
                }
                states
            })
            .collect();
        for size in [2, 3, 5, 8, 17, 64] {
            let all: Vec<usize> = (0..64).map(|i| permuted(i, 64)).collect();
            // Small sizes would repeat the same again and again.
            for members in all.chunks(size).take(if size < 17 { 4 } else { 64 }) {
                let sessions: Vec<Session> = members.iter().map(|i| make(*i)).collect();
                let entries: Vec<_> = sessions.iter().zip(members).map(|(s, i)| (s, &prompts[*i][..])).collect();
                all_ok(append(&entries));
                for step in 0..=STEPS {
                    for (session, i) in sessions.iter().zip(members) {
                        assert_eq!(seen(session), alone[*i][step], "{arch}: {i} of {members:?}, step {step}");
                    }
                    let refs: Vec<&Session> = sessions.iter().collect();
                    let tokens: Vec<u32> = sample_batch(&refs).into_iter().map(|t| t.unwrap()).collect();
                    // In another order each time.
                    let entries: Vec<_> = (0..sessions.len())
                        .map(|k| (k + step) % sessions.len())
                        .map(|k| (&sessions[k], std::slice::from_ref(&tokens[k])))
                        .collect();
                    if step < STEPS {
                        all_ok(append(&entries));
                    }
                }
            }
        }
    }
}

#[test]
fn new_prompts_join_sessions_that_step() {
    let model = model();
    let (a, b, c) = (session(&model), session(&model), session(&model));
    all_ok(append(&[(&a, &prompt(1, 600))]));
    all_ok(append(&[(&b, &prompt(2, 70)), (&a, &[5])]));
    all_ok(append(&[(&a, &[6]), (&c, &prompt(3, 900)), (&b, &[7])]));
    let alone = |tokens: &[u32]| {
        let session = session(&model);
        session.prefill(tokens).unwrap();
        seen(&session)
    };
    assert_eq!(seen(&a), alone(&[&prompt(1, 600)[..], &[5, 6]].concat()));
    assert_eq!(seen(&b), alone(&[&prompt(2, 70)[..], &[7]].concat()));
    assert_eq!(seen(&c), alone(&prompt(3, 900)));
}

#[test]
fn steps_of_many_sessions_are_one_pass() {
    let plot = Arc::new(Plot::default());
    let model = load(Arc::new(Probe(Arc::clone(&plot))), "qwen2", TensorType::F32, LoadOptions::default());
    let sessions: Vec<Session> = (0..64).map(|_| session(&model)).collect();
    for _ in 0..2 {
        all_ok(append(&sessions.iter().map(|s| (s, &[3][..])).collect::<Vec<_>>()));
    }
    assert_eq!(plot.passes.load(Ordering::SeqCst), 2);
    // Prompts of 128 go four to a pass of 512.
    all_ok(append(&sessions[..8].iter().map(|s| (s, &[3; 128][..])).collect::<Vec<_>>()));
    assert_eq!(plot.passes.load(Ordering::SeqCst), 4);
}

#[test]
fn each_entry_fails_for_itself() {
    let model = model();
    let other = self::model();
    let sessions: Vec<Session> = (0..6).map(|_| session(&model)).collect();
    let foreign = session(&other);
    let full = Session::new(&model, SessionOptions { n_ctx: Some(3), ..Default::default() }).unwrap();
    let outcomes = append(&[
        (&sessions[0], &[1, 2]),
        (&foreign, &[1]),
        (&sessions[1], &[1, 500_000]),
        (&sessions[0], &[3]),
        (&full, &[1, 2, 3, 4]),
        (&sessions[2], &[]),
        (&sessions[3], &[9; 40]),
    ]);
    let texts: Vec<String> =
        outcomes.iter().map(|o| o.as_ref().map_or_else(|e| e.to_string(), |()| "ok".into())).collect();
    let expected = [
        "ok",
        "session is one of another model than the first; expected sessions of one model",
        "token 500000 at index 1 is not below the vocabulary's 512",
        "session is that of an earlier entry; expected each session once",
        "0 tokens held and 4 to add exceed the context of 3",
        "n_ids is 0; expected at least 1",
        "ok",
    ];
    assert_eq!(texts, expected);
    assert_eq!(seen(&sessions[0]).0, [1, 2]);
    assert_eq!(seen(&sessions[3]).0.len(), 40);
    for untouched in [&foreign, &sessions[1], &full, &sessions[2]] {
        assert_eq!(seen(untouched), (vec![], None));
    }
    let sampled = sample_batch(&[&sessions[0], &sessions[1], &sessions[3], &sessions[0], &foreign]);
    use Status::{InvalidArgument, InvalidState, Ok};
    assert_eq!(statuses(&sampled), [Ok, InvalidState, Ok, InvalidArgument, InvalidArgument]);
    assert_eq!(sampled[2].as_ref().unwrap(), &sessions[3].sample().unwrap());
    assert!(append(&[]).is_empty() && sample_batch(&[]).is_empty());
}

#[test]
fn a_session_in_use_is_busy_and_the_others_go_on() {
    let model = model();
    let (busy, free) = (session(&model), session(&model));
    busy.prefill(&[1]).unwrap();
    let options = GenerateOptions { max_tokens: Some(2), ignore_end: true, ..Default::default() };
    busy.generate(&options, &mut |_, _| {
        assert_eq!(statuses(&append(&[(&busy, &[1]), (&free, &[2])])), [Status::Busy, Status::Ok]);
        assert_eq!(statuses(&sample_batch(&[&free, &busy])), [Status::Ok, Status::Busy]);
        true
    })
    .unwrap();
    assert_eq!((seen(&busy).0.len(), seen(&free).0.len()), (3, 2));
}

#[test]
fn a_panic_a_failure_or_a_cancel_in_a_shared_pass_is_one_entrys() {
    let plot = Arc::new(Plot::default());
    let model = load(Arc::new(Probe(Arc::clone(&plot))), "qwen2", TensorType::F32, LoadOptions::default());
    let make = || {
        let sessions: Vec<Session> = (0..3).map(|_| session(&model)).collect();
        all_ok(append(&[(&sessions[0], &[1]), (&sessions[1], &[2]), (&sessions[2], &[3])]));
        sessions
    };
    let step = |sessions: &[Session]| {
        statuses(&append(&[(&sessions[0], &[10]), (&sessions[1], &[499]), (&sessions[2], &[11])]))
    };
    let good = make();
    assert_eq!(step(&good), [Status::Ok; 3]);

    *plot.panic_at.lock().unwrap() = Some(499);
    let sessions = make();
    assert_eq!(step(&sessions), [Status::Ok, Status::Internal, Status::Ok]);
    *plot.panic_at.lock().unwrap() = None;
    assert_eq!((seen(&sessions[0]), seen(&sessions[2])), (seen(&good[0]), seen(&good[2])));
    assert_eq!(sessions[1].prefill(&[1]).unwrap_err().status(), Status::Poisoned);

    // The shared pass fails, and then that of the second alone.
    let sessions = make();
    let before = seen(&sessions[1]);
    *plot.fail_in_pass.lock().unwrap() = Some(0);
    *plot.fail_again_in_pass.lock().unwrap() = Some(2);
    assert_eq!(step(&sessions), [Status::Ok, Status::DeviceLost, Status::Ok]);
    assert_eq!((seen(&sessions[0]), seen(&sessions[2])), (seen(&good[0]), seen(&good[2])));
    assert_eq!(seen(&sessions[1]), before);

    let sessions = make();
    let before = seen(&sessions[1]);
    sessions[1].cancel();
    assert_eq!(step(&sessions), [Status::Ok, Status::Cancelled, Status::Ok]);
    assert_eq!(seen(&sessions[1]), before);
    assert_eq!(statuses(&append(&[(&sessions[1], &[499])])), [Status::Ok], "the cancel is used up");
    assert_eq!(seen(&sessions[1]), seen(&good[1]));
}

#[test]
fn a_full_cache_says_so_with_the_numbers_and_a_freed_session_makes_room() {
    let page = self::model().facts().kv_bytes_per_token * 64;
    let engine = Engine::with_device(cpu(1), 1, None, LogSink::silent());
    let options = LoadOptions { cache_bytes: Some(page - 1), ..Default::default() };
    let bytes = Tiny::new("qwen2", TensorType::Q4_1).bytes();
    let error = engine.load_memory_with(&bytes, options, &mut |_, _| Ok(())).err().unwrap();
    assert_eq!(error.to_string(), format!("cache_bytes is {}; expected at least the {page} bytes of a page", page - 1));
    let options = LoadOptions { cache_bytes: Some(5 * page + page / 2), ..Default::default() };
    let model = load(cpu(2), "qwen2", TensorType::Q4_1, options);
    let facts = |used, free| {
        let f = model.cache_facts();
        assert_eq!((f.page_tokens, f.page_bytes, f.n_pages_limit), (64, page, Some(5)));
        assert_eq!((f.n_pages_used, f.n_pages_free), (used, Some(free)));
    };
    facts(0, 5);
    let (a, b, c) = (session(&model), session(&model), session(&model));
    a.prefill(&prompt(1, 129)).unwrap();
    facts(3, 2);
    let before = (seen(&a), seen(&c));
    // The first of the entries gets what is left.
    let outcomes = append(&[(&b, &prompt(2, 100)), (&c, &[4]), (&a, &[5])]);
    assert_eq!(statuses(&outcomes), [Status::Ok, Status::CacheFull, Status::Ok]);
    assert_eq!(outcomes[1].as_ref().unwrap_err().to_string(), "1 cache pages needed, 0 of 5 free");
    assert_eq!(seen(&c), before.1);
    let error = b.prefill(&prompt(2, 200)).unwrap_err();
    assert_eq!(error.to_string(), "3 cache pages needed, 0 of 5 free");
    let fork = a.fork().unwrap();
    assert_eq!(fork.facts().unwrap().n_pages_own, 0);
    assert_eq!(
        statuses(&append(&[(&fork, &[6])])),
        [Status::CacheFull],
        "the page that it would write to is not its own"
    );
    facts(5, 0);
    let facts_of_a = a.facts().unwrap();
    assert_eq!((facts_of_a.n_tokens, facts_of_a.n_pages, facts_of_a.has_logits), (130, 3, true));
    drop(b);
    fork.prefill(&[6]).unwrap();
    facts(4, 1);
    assert_eq!((a.facts().unwrap().n_pages_own, fork.facts().unwrap().n_pages_own), (1, 1));
    c.prefill(&prompt(3, 64)).unwrap();
    drop((a, fork, c));
    facts(0, 5);
}

#[test]
fn threads_meet_in_passes_and_each_gets_what_it_gets_alone() {
    let n_threads = 12;
    let sampling = |i: usize| SamplingParams { temperature: 1.0, seed: i as u64, ..Default::default() };
    let work = |model: &Model, i: usize| {
        let session = Session::new(model, SessionOptions { sampling: sampling(i), ..Default::default() }).unwrap();
        session.prefill(&prompt(i, 30 + 60 * i)).unwrap();
        let options = GenerateOptions { max_tokens: Some(20), ignore_end: true, ..Default::default() };
        session.generate(&options, &mut |_, _| true).unwrap();
        for _ in 0..5 {
            session.prefill(&[session.sample().unwrap()]).unwrap();
        }
        let fork = session.fork().unwrap();
        all_ok(append(&[(&session, &[1]), (&fork, &[2, 3])]));
        (seen(&session), seen(&fork))
    };
    let plain = model();
    let alone: Vec<_> = (0..n_threads).map(|i| work(&plain, i)).collect();
    for merge in [false, true] {
        let model = load(cpu(2), "qwen2", TensorType::Q4_1, LoadOptions { merge, ..Default::default() });
        let right = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for (i, expected) in alone.iter().enumerate() {
                let (model, right) = (&model, &right);
                scope.spawn(move || right.fetch_add(usize::from(work(model, i) == *expected), Ordering::SeqCst));
            }
        });
        assert_eq!(right.load(Ordering::SeqCst), n_threads, "merge: {merge}");
        assert_eq!(model.cache_facts().n_pages_used, 0);
    }
}

#[test]
fn merged_steps_of_threads_are_fewer_passes() {
    let plot = Arc::new(Plot::default());
    let options = LoadOptions { merge: true, ..Default::default() };
    let model = load(Arc::new(Probe(Arc::clone(&plot))), "qwen2", TensorType::F32, options);
    // Longer than it takes threads to come back, also on a busy machine.
    plot.delay_ms.store(4, Ordering::SeqCst);
    let (n_threads, n_steps) = (8, 40);
    let sessions: Vec<Session> = (0..n_threads).map(|_| session(&model)).collect();
    std::thread::scope(|scope| {
        for session in &sessions {
            scope.spawn(move || (0..n_steps).for_each(|i| session.prefill(&[i]).unwrap()));
        }
    });
    let passes = plot.passes.load(Ordering::SeqCst);
    // At best one in eight; the machine may be busy.
    assert!(passes < n_threads * n_steps as usize / 2, "{passes} passes for {} steps", n_threads * n_steps as usize);
    let panicked = {
        *plot.panic_at.lock().unwrap() = Some(499);
        std::thread::scope(|scope| {
            let calls: Vec<_> = sessions
                .iter()
                .enumerate()
                .map(|(i, s)| scope.spawn(move || s.prefill(&[if i == 3 { 499 } else { 7 }])))
                .collect();
            calls.into_iter().map(|c| c.join().unwrap()).collect::<Vec<Result<()>>>()
        })
    };
    let internal = |o: &Result<()>| matches!(o, Err(Error::Internal { .. }));
    assert!(panicked.iter().enumerate().all(|(i, o)| if i == 3 { internal(o) } else { o.is_ok() }), "{panicked:?}");
}

#[test]
fn threads_that_share_sessions_are_busy_or_right() {
    for merge in [false, true] {
        let model = load(cpu(2), "qwen2", TensorType::Q4_1, LoadOptions { merge, ..Default::default() });
        let roots: Vec<Session> = (0..4).map(|_| session(&model)).collect();
        roots.iter().zip(0..).for_each(|(root, i)| root.prefill(&prompt(i, 81)).unwrap());
        // Forks, so that slots and pages are shared while all run.
        let sessions: Vec<Session> = (0..12).map(|i| roots[i % 4].fork().unwrap()).collect();
        let calls = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (sessions, calls) = (&sessions, &calls);
                scope.spawn(move || {
                    for round in 0..30_u64 {
                        let random = |k: u64| common::random::mix(thread * 10_000 + round * 16 + k) as usize;
                        let mut chosen: Vec<&Session> = (0..4).map(|k| &sessions[random(k) % 12]).collect();
                        chosen.dedup_by(|a, b| std::ptr::eq(*a, *b));
                        let tokens: Vec<u32> = (4..8).map(|k| (random(k) % 500) as u32).collect();
                        let outcomes = match random(8) % 4 {
                            0 => statuses(&sample_batch(&chosen)),
                            1 => statuses(&[chosen[0].fork().and_then(|fork| fork.prefill(&tokens))]),
                            2 => statuses(&[chosen[0].truncate(81).and_then(|()| chosen[0].prefill(&tokens))]),
                            _ => statuses(&append(&chosen.iter().map(|s| (*s, &tokens[..])).collect::<Vec<_>>())),
                        };
                        for status in outcomes {
                            use Status::{Busy, InvalidArgument, InvalidState, Ok};
                            // A session chosen twice, and one that another thread has truncated in between.
                            assert!(matches!(status, Ok | Busy | InvalidArgument | InvalidState), "{status:?}");
                            calls.fetch_add(usize::from(status == Ok), Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!(calls.load(Ordering::SeqCst) > 100);
        for session in &sessions {
            let (tokens, logits) = seen(session);
            let alone = self::session(&model);
            alone.prefill(&tokens).unwrap();
            assert!(logits.is_none() || logits == seen(&alone).1);
        }
        drop((roots, sessions));
        assert_eq!(model.cache_facts().n_pages_used, 0);
    }
}

#[test]
fn eight_sequences_together_are_at_least_two_and_a_half_times_as_fast_as_one() {
    if std::env::var_os("KIGO_MEASURE").is_none() {
        println!("skipped: KIGO_MEASURE is not set; other work on the machine decides it");
        return;
    }
    // 80 MB of weights, more than a processor's cache holds.
    let mut tiny = Tiny::new("llama", TensorType::Q4_1);
    tiny.shape = Shape { arch: tiny.shape.arch, pre: tiny.shape.pre, ..Shape::named("smollm2-135m").unwrap() };
    let n_threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let engine = Engine::with_device(cpu(n_threads), n_threads, None, LogSink::silent());
    let model = engine.load_memory(&tiny.bytes(), &mut |_, _| Ok(())).unwrap();
    let sessions: Vec<Session> = (0..8).map(|_| session(&model)).collect();
    all_ok(append(&sessions.iter().map(|s| (s, &[1, 2, 3][..])).collect::<Vec<_>>()));
    // The fastest of several steps each, in turns: a pause of the machine is in neither.
    let mut best = [f64::INFINITY; 2];
    for _ in 0..200 {
        for (best, n) in best.iter_mut().zip([1, 8]) {
            let entries: Vec<(&Session, &[u32])> = sessions[..n].iter().map(|s| (s, &[5][..])).collect();
            let start = std::time::Instant::now();
            all_ok(append(&entries));
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    let times = 8.0 * best[0] / best[1];
    println!("one {:.1} tok/s, eight together {:.1}: {times:.2} times", 1.0 / best[0], 8.0 / best[1]);
    assert!(times >= 2.5, "{times}");
}
