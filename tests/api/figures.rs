//! Figures: what is counted adds up, clocks tell waiting from computing, and the log tells what is out of the ordinary.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::hold::hold;
use crate::common::hooked::{Hook, Hooked};
use crate::common::tiny::Tiny;
use kigo::backend::cpu::{CpuDevice, CpuOptions};
use kigo::engine::{
    Append, Batch, By, Engine, EngineOptions, GenerateOptions, Grammar, LoadOptions, LogLevel, LogSink, Model,
    ModelFigures, Session, SessionFigures, SessionOptions, Top, Work, append_batch,
};
use kigo::error::Error;
use kigo::gguf::TensorType;
use kigo::sampler::SamplingParams;

/// What a log has got.
type Lines = Arc<Mutex<Vec<(LogLevel, String)>>>;

fn log(level: LogLevel) -> (LogSink, Lines) {
    let lines = Lines::default();
    let kept = Arc::clone(&lines);
    let sink = LogSink::new(level, move |level, text| {
        kept.lock().unwrap().push((level, text.to_owned()));
        true
    });
    (sink, lines)
}

fn load(before: Arc<dyn Hook>, sink: LogSink, options: LoadOptions) -> Model {
    let cpu = CpuDevice::new(CpuOptions { n_threads: 2, isa: None }).unwrap();
    let device = Hooked::new(Arc::new(cpu), before);
    let mut tiny = Tiny::new("qwen2", TensorType::Q8_0);
    tiny.shape.n_ctx = 1024;
    let engine = Engine::with_device(Arc::new(device), 2, None, sink);
    engine.load_memory_with(&tiny.bytes(), options, &mut |_, _| Ok(())).unwrap()
}

fn plain(options: LoadOptions) -> Model {
    load(Arc::new(|_: &[usize]| Ok(())), LogSink::silent(), options)
}

fn session(model: &Model) -> Session {
    Session::new(model, SessionOptions::default()).unwrap()
}

fn reusing(model: &Model) -> Session {
    Session::new(model, SessionOptions { reuse_prefix: true, ..SessionOptions::default() }).unwrap()
}

fn prompt(seed: usize, n: usize) -> Vec<u32> {
    (0..n).map(|i| ((seed * 101 + i * i * 31 + i * 7 + 3) % 500) as u32).collect()
}

fn most(max_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(max_tokens), ignore_end: true, ..GenerateOptions::default() }
}

fn sum(sessions: &[&Session]) -> SessionFigures {
    sessions.iter().map(|session| session.figures()).fold(SessionFigures::default(), |a, b| SessionFigures {
        n_prefilled: a.n_prefilled + b.n_prefilled,
        n_reused: a.n_reused + b.n_reused,
        n_decoded: a.n_decoded + b.n_decoded,
        prefill_ns: a.prefill_ns + b.prefill_ns,
        decode_ns: a.decode_ns + b.decode_ns,
        waiting_ns: a.waiting_ns + b.waiting_ns,
    })
}

#[test]
fn a_model_s_figures_are_the_sums_of_its_sessions_and_are_read_while_these_run() {
    for merge in [false, true] {
        let model = plain(LoadOptions { merge, prefix_cache_bytes: u64::MAX, ..LoadOptions::default() });
        let [one, two, three, fourth] = [session(&model), reusing(&model), session(&model), session(&model)];
        let (ended, n_read) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut last, mut n_between) = (ModelFigures::default(), 0);
                while !ended.load(Ordering::Acquire) {
                    let now = model.figures();
                    assert!(now.n_decoded >= last.n_decoded && now.pass_ns >= last.pass_ns && now.n_running <= 4);
                    n_between += usize::from(now.n_decoded > last.n_decoded);
                    last = now;
                    n_read.fetch_add(1, Ordering::Release);
                }
                n_between
            });
            one.prefill(&prompt(1, 200)).unwrap();
            let others = [(&two, 30), (&three, 40)].map(|(session, n)| {
                scope.spawn(move || {
                    session.prefill(&prompt(1, 200)).unwrap();
                    session.generate(&most(n), &mut |_, _| true).unwrap();
                })
            });
            let mut n = 0;
            one.generate(&most(200), &mut |_, _| {
                n += 1;
                if n % 50 == 0 {
                    let before = n_read.load(Ordering::Acquire);
                    until(|| n_read.load(Ordering::Acquire) > before + 1);
                }
                true
            })
            .unwrap();
            others.into_iter().for_each(|other| other.join().unwrap());
            let (many, step) = (prompt(2, 70), [5]);
            append_batch(&[Append { session: &fourth, tokens: &many }, Append { session: &one, tokens: &step }])
                .into_iter()
                .for_each(|outcome| outcome.unwrap());
            ended.store(true, Ordering::Release);
            assert!(reader.join().unwrap() > 2, "nothing was read while the generation ran");
        });
        let mut batch = Batch::new(&model).unwrap();
        let polled = Arc::new(session(&model));
        batch.add(Arc::clone(&polled), Work { tokens: &prompt(3, 33), generate: Some(&most(7)) }).unwrap();
        while batch.run(Duration::ZERO).unwrap() > 0 {}

        let (all, figures) = (sum(&[&one, &two, &three, &fourth, &polled]), model.figures());
        assert_eq!((all.n_prefilled, all.n_reused), (200 + 8 + 200 + 70 + 33, 192), "merged: {merge}");
        assert_eq!(all.n_decoded, 200 + 30 + 40 + 1 + 7);
        assert_eq!((figures.n_prefilled, figures.n_decoded), (all.n_prefilled, all.n_decoded));
        assert_eq!(model.cache_facts().n_tokens_saved, all.n_reused);
        assert_eq!(figures.n_pass_tokens, all.n_prefilled + all.n_decoded);
        assert!(figures.n_pass_sessions >= figures.n_passes && figures.n_passes > figures.n_prefill_passes);
        assert!((64..=512).contains(&figures.most_pass_tokens), "{figures:?}");
        assert!(figures.longest_pass_ns <= figures.pass_ns && figures.prefill_pass_ns < figures.pass_ns);
        assert!(all.waiting_ns <= all.prefill_ns + all.decode_ns);
        assert_eq!((figures.n_sessions, figures.n_running, figures.n_waiting), (5, 0, 0));
        assert_eq!(figures.failures, Default::default());
        let fork = one.fork().unwrap();
        assert_eq!((fork.figures(), model.figures().n_sessions), (SessionFigures::default(), 6));
        drop((fork, one, two, three, fourth));
        assert_eq!(model.figures().n_sessions, 1);
    }
}

/// Waits until something holds.
fn until(holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(20), "it never holds");
        std::thread::sleep(Duration::from_millis(1));
    }
}

const HELD: Duration = Duration::from_millis(60);

fn ns(time: Duration) -> u64 {
    time.as_nanos() as u64
}

/// A model whose passes of at least so many tokens are held while the flag is set.
fn gated(least: usize, options: LoadOptions) -> (Model, Arc<AtomicBool>) {
    let closed = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&closed);
    let before = Arc::new(move |pass: &[usize]| {
        let begin = Instant::now();
        while pass[0] >= least && gate.load(Ordering::Acquire) && begin.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    (load(before, LogSink::silent(), options), closed)
}

#[test]
fn a_step_behind_a_prompt_s_pass_waits_and_the_prompt_does_not() {
    let (model, closed) = gated(16, LoadOptions { pass_tokens: Some(16), ..LoadOptions::default() });
    let (long, answer) = (session(&model), session(&model));
    answer.prefill(&prompt(1, 5)).unwrap();
    let before = answer.figures();
    closed.store(true, Ordering::Release);
    std::thread::scope(|scope| {
        scope.spawn(|| long.prefill(&prompt(2, 40)).unwrap());
        until(|| model.figures().n_running == 1);
        scope.spawn(|| answer.prefill(&[7]).unwrap());
        until(|| model.figures().n_waiting == 1);
        assert_eq!((model.figures().n_running, model.figures().n_prefilled), (1, 5));
        std::thread::sleep(HELD);
        closed.store(false, Ordering::Release);
    });
    let (waited, prompt) = (answer.figures(), long.figures());
    assert!(waited.waiting_ns - before.waiting_ns >= ns(HELD), "{waited:?}");
    assert!(waited.decode_ns >= waited.waiting_ns - before.waiting_ns && waited.prefill_ns == before.prefill_ns);
    assert!(prompt.prefill_ns >= ns(HELD) && prompt.waiting_ns < prompt.prefill_ns - ns(HELD), "{prompt:?}");
}

#[test]
fn who_waits_for_a_prefix_waits_and_has_not_computed_it() {
    let (model, closed) = gated(2, LoadOptions { pass_tokens: Some(512), ..LoadOptions::default() });
    let (first, second) = (reusing(&model), reusing(&model));
    closed.store(true, Ordering::Release);
    std::thread::scope(|scope| {
        scope.spawn(|| first.prefill(&prompt(2, 130)).unwrap());
        until(|| model.figures().n_running == 1);
        scope.spawn(|| second.prefill(&prompt(2, 140)).unwrap());
        until(|| model.figures().n_waiting == 1);
        std::thread::sleep(HELD);
        closed.store(false, Ordering::Release);
    });
    let waited = second.figures();
    assert_eq!((waited.n_reused, waited.n_prefilled, first.figures().n_prefilled), (128, 12, 130));
    assert!(waited.waiting_ns >= ns(HELD) && waited.prefill_ns >= waited.waiting_ns, "{waited:?}");
    assert_eq!(model.figures().n_waiting, 0);
}

#[test]
fn in_a_batch_those_without_a_part_of_the_pass_wait() {
    let (model, closed) = gated(16, LoadOptions { pass_tokens: Some(16), ..LoadOptions::default() });
    let (one, two) = (session(&model), session(&model));
    closed.store(true, Ordering::Release);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (a, b) = (prompt(1, 16), prompt(2, 16));
            append_batch(&[Append { session: &one, tokens: &a }, Append { session: &two, tokens: &b }])
                .into_iter()
                .for_each(|outcome| outcome.unwrap());
        });
        until(|| (model.figures().n_running, model.figures().n_waiting) == (1, 1));
        std::thread::sleep(HELD);
        closed.store(false, Ordering::Release);
    });
    let (one, two) = (one.figures(), two.figures());
    assert!(one.waiting_ns < ns(HELD) && one.prefill_ns >= ns(HELD), "{one:?}");
    assert!(two.waiting_ns >= ns(HELD) && two.prefill_ns >= two.waiting_ns, "{two:?}");
}

#[test]
fn a_generation_tells_what_came_before_it_and_what_it_took() {
    let model = plain(LoadOptions { prefix_cache_bytes: u64::MAX, ..LoadOptions::default() });
    session(&model).prefill(&prompt(1, 130)).unwrap();
    let session = reusing(&model);
    session.prefill(&prompt(1, 140)).unwrap();
    session.prefill(&[4]).unwrap();
    let before = session.figures();
    let pause = Duration::from_millis(4);
    let generated = session
        .generate(&most(5), &mut |_, _| {
            std::thread::sleep(pause);
            true
        })
        .unwrap();
    let (times, after) = (generated.times, session.figures());
    assert_eq!((times.n_before, times.n_reused_before, generated.n_tokens), (141, 128, 5));
    assert_eq!(ns(times.before), before.prefill_ns + before.decode_ns);
    assert!(times.callbacks >= pause * 5 && times.first_token > Duration::ZERO && times.first_token <= times.decode);
    assert!(times.waiting <= times.decode);
    // The session's clock has the generation once: its steps, and what is between them.
    let decoded = Duration::from_nanos(after.decode_ns - before.decode_ns);
    assert!(decoded <= times.decode && decoded + Duration::from_millis(1) >= times.decode, "{decoded:?} {times:?}");
    assert_eq!((after.n_decoded, after.prefill_ns), (1 + 5, before.prefill_ns));

    let again = session.generate(&most(3), &mut |_, _| true).unwrap();
    assert_eq!((again.times.n_before, again.times.before, again.n_tokens), (0, Duration::ZERO, 3));
    session.prefill(&prompt(3, 10)).unwrap();
    let none = session.generate(&most(0), &mut |_, _| true).unwrap();
    assert_eq!((none.times.n_before, none.times.n_reused_before, none.times.first_token), (10, 0, Duration::ZERO));
}

#[test]
fn failures_are_counted_by_kind() {
    let page = plain(LoadOptions::default()).cache_facts().page_bytes;
    let model = plain(LoadOptions { cache_bytes: Some(2 * page), ..LoadOptions::default() });
    let session = Session::new(&model, SessionOptions { n_ctx: Some(200), ..SessionOptions::default() }).unwrap();
    assert!(matches!(session.sample(), Err(Error::State { .. })));
    assert!(matches!(session.prefill(&prompt(1, 201)), Err(Error::ContextFull { .. })));
    assert!(matches!(session.prefill(&prompt(1, 200)), Err(Error::CacheFull { .. })));
    session.prefill(&prompt(1, 5)).unwrap();
    session
        .generate(&most(2), &mut |_, _| {
            assert!(matches!(session.prefill(&[1]), Err(Error::Busy)));
            session.cancel();
            true
        })
        .unwrap();
    session.cancel();
    assert!(matches!(session.prefill(&[1]), Err(Error::Cancelled)));
    let bad = [u32::MAX];
    assert!(append_batch(&[Append { session: &session, tokens: &bad }])[0].is_err());
    let failures = model.figures().failures;
    assert_eq!((failures.n_context_full, failures.n_cache_full, failures.n_busy), (1, 1, 1));
    // The generation's, and the call's; the sample without logits, and the token that is none.
    assert_eq!((failures.n_cancelled, failures.n_other, failures.n_out_of_memory), (2, 2, 0));
    let figures = session.figures();
    assert_eq!((figures.n_prefilled, figures.n_decoded), (5, 1));
}

/// Parameters of every kind.
fn sampling() -> SamplingParams {
    SamplingParams { temperature: 0.9, top_k: 40, top_p: 0.9, seed: 7, repetition_penalty: 1.2, ..Default::default() }
}

#[test]
fn step_events_have_the_log_probabilities_of_the_tokens_that_come_without_them() {
    let model = plain(LoadOptions::default());
    for (params, grammar) in [
        (SamplingParams::default(), None),
        (sampling(), None),
        (sampling(), Some(Grammar::Regex("[a-z ]{3,}"))),
        (SamplingParams::default(), Some(Grammar::Regex("[a-z ]{3,}"))),
    ] {
        for by in [By::Before, By::After] {
            let open = || {
                let options = SessionOptions { sampling: params.clone(), ..SessionOptions::default() };
                let session = Session::new(&model, options).unwrap();
                session.prefill(&prompt(1, 9)).unwrap();
                grammar.iter().for_each(|grammar| hold(&session, *grammar).unwrap());
                session
            };
            let (plainly, seen, by_hand) = (open(), open(), open());
            let (mut expected, mut told, mut tokens) = (String::new(), String::new(), Vec::new());
            let end = plainly.generate(&most(20), &mut |token, text| {
                tokens.extend(token);
                expected.push_str(text);
                true
            });
            let mut n = 0;
            let with = seen.generate_seen(&most(20), Some(Top { n: 3, by }), &mut |step| {
                told.push_str(step.text);
                let Some(token) = step.token else {
                    assert!(step.logprob.is_none() && step.top.is_empty() && step.position == 9 + n);
                    return true;
                };
                assert_eq!((token, step.position), (tokens[n], 9 + n));
                let all = by_hand.token_logprobs(&[token], 3, by).unwrap();
                assert_eq!((step.logprob.unwrap(), step.top), (all[0], &all[1..]));
                assert!(step.logprob.unwrap().after > f32::NEG_INFINITY);
                by_hand.prefill(&[token]).unwrap();
                n += 1;
                true
            });
            assert_eq!((told, n), (expected, tokens.len()));
            let reasons = (end.map(|end| end.reason), with.map(|with| with.reason));
            assert_eq!(format!("{:?}", reasons.0), format!("{:?}", reasons.1));
            let held = seen.with_tokens(|held| Ok(held[9..].to_vec())).unwrap();
            assert_eq!(held, tokens);
        }
    }
    // It stops, and what may not be asked for is refused before anything runs.
    let session = session(&model);
    session.prefill(&prompt(1, 9)).unwrap();
    let too_many = Top { n: 513, by: By::Before };
    let refused = session.generate_seen(&most(5), Some(too_many), &mut |_| true).unwrap_err();
    assert_eq!(refused.to_string(), "n_top is 513; expected at most the vocabulary's 512");
    let mut n = 0;
    let stop = session.generate_seen(&most(5), Some(Top { n: 0, by: By::Before }), &mut |step| {
        n += usize::from(step.logprob.is_some());
        n < 2
    });
    assert_eq!(format!("{:?}", stop.unwrap().reason), "Callback");
    assert_eq!(session.facts().unwrap().n_tokens, 9 + 2);
}

#[test]
fn a_slow_pass_is_told_of_once_in_a_while() {
    let slow = Arc::new(AtomicBool::new(false));
    let sleeps = Arc::clone(&slow);
    let before = Arc::new(move |_: &[usize]| {
        if sleeps.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    });
    let (sink, lines) = log(LogLevel::Warn);
    let model = load(before, sink, LoadOptions::default());
    let session = session(&model);
    session.prefill(&prompt(1, 5)).unwrap();
    (0..20).for_each(|token| session.prefill(&[token]).unwrap());
    slow.store(true, Ordering::Release);
    session.generate(&most(3), &mut |_, _| true).unwrap();
    // On a busy machine it may be an earlier one, but one alone.
    let told = lines.lock().unwrap().clone();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, LogLevel::Warn);
    assert!(told[0].1.starts_with("model 1: a pass of 1 tokens of 1 sessions took "), "{told:?}");
}

#[test]
fn a_shared_pass_that_fails_is_told_of_and_its_sessions_go_on() {
    for (error, level) in [
        (Error::Internal { message: "broken".into() }, LogLevel::Error),
        (Error::OutOfMemory { place: "host".into(), requested: 9, free: 1 }, LogLevel::Warn),
    ] {
        let text = error.to_string();
        let before = Arc::new(move |pass: &[usize]| match (pass.len(), &error) {
            (1, _) => Ok(()),
            (_, Error::Internal { message }) => Err(Error::Internal { message: message.clone() }),
            _ => Err(Error::OutOfMemory { place: "host".into(), requested: 9, free: 1 }),
        });
        let (sink, lines) = log(LogLevel::Debug);
        let model = load(before, sink, LoadOptions::default());
        let (one, two) = (session(&model), session(&model));
        let tokens = prompt(1, 4);
        lines.lock().unwrap().clear();
        append_batch(&[Append { session: &one, tokens: &tokens }, Append { session: &two, tokens: &tokens }])
            .into_iter()
            .for_each(|outcome| outcome.unwrap());
        let expected = format!("model 1: a pass of 2 sessions failed, each gets one of its own: {text}");
        assert_eq!(*lines.lock().unwrap(), [(level, expected)]);
    }
}

#[test]
fn prefixes_that_go_are_told_of_at_the_level_of_details_alone() {
    let page = plain(LoadOptions::default()).cache_facts().page_bytes;
    for level in [LogLevel::Debug, LogLevel::Info] {
        let (sink, lines) = log(level);
        let model = load(
            Arc::new(|_: &[usize]| Ok(())),
            sink,
            LoadOptions { prefix_cache_bytes: 3 * page, ..LoadOptions::default() },
        );
        lines.lock().unwrap().clear();
        for text in 0..3 {
            session(&model).prefill(&prompt(text, 130)).unwrap();
        }
        // Of the last two sessions, whose last pages had no room, one is told of with the next call.
        session(&model).prefill(&[1]).unwrap();
        let n_told: Vec<String> = lines.lock().unwrap().iter().map(|line| line.1.clone()).collect();
        assert_eq!(model.cache_facts().n_pages_evicted, 3);
        let line = |n: u64| format!("model 1: {n} pages of kept prefixes were given up, 3 are kept");
        assert_eq!(n_told, if level == LogLevel::Debug { vec![line(1), line(2)] } else { vec![] });
    }
}

#[test]
fn a_load_and_a_generation_say_what_was_chosen_and_done() {
    let (sink, lines) = log(LogLevel::Debug);
    let engine = Engine::new(EngineOptions { device: "auto", n_threads: 2, memory_cap: Some(1 << 30), log: sink });
    let engine = engine.unwrap();
    let options = LoadOptions { merge: true, strict: true, prefix_cache_bytes: 1 << 20, ..LoadOptions::default() };
    let model = engine.load_memory_with(&Tiny::new("qwen2", TensorType::Q8_0).bytes(), options, &mut |_, _| Ok(()));
    let session = session(&model.unwrap());
    session.prefill(&prompt(1, 5)).unwrap();
    session.generate(&most(3), &mut |_, _| true).unwrap();
    let lines = lines.lock().unwrap().clone();
    let (device, rest) = if engine.device_name() == "cpu" {
        let (level, why) = &lines[0];
        assert!(*level == LogLevel::Info && why.starts_with("auto: not cuda:0: device \"cuda:0\" is unavailable: "));
        (&lines[1], &lines[2..])
    } else {
        (&lines[0], &lines[1..])
    };
    let n_threads = engine.n_threads();
    assert!(device.1.starts_with(&format!("device {}, {n_threads} threads, kernels for ", engine.device_name())));
    assert!(rest.len() == 2 && rest[0].0 == LogLevel::Info && rest[1].0 == LogLevel::Debug, "{rest:?}");
    let has = |text: &str, parts: &[&str]| parts.iter().for_each(|part| assert!(text.contains(part), "{part}: {text}"));
    has(&rest[0].1, &["model 1: loaded qwen2 Q8_0, ", " threads, kernels for ", "; working memory ", "; context "]);
    has(
        &rest[0].1,
        &["at most 1024.0 MiB, of which 1.0 MiB is kept for prefixes", "as measured, shared by calls, strict"],
    );
    has(&rest[1].1, &["model 1: 3 tokens generated in ", "; 5 before it in ", "; ended by MaxTokens"]);
}
