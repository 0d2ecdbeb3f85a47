//! The engine layer: what a session promises about its tokens, its logits, its cache pages and its failures.
//!
//! The device is the reference backend behind [`Probe`], which counts pages and can fail, panic or be cancelled at a
//! chosen place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::probe::{Plot, Probe};
use crate::common::tiny::Tiny;
use kigo::backend::Device;
use kigo::backend::reference::ReferenceDevice;
use kigo::engine::{
    Engine, EngineOptions, GenerateOptions, LoadOptions, LogSink, Model, Session, SessionOptions, StopReason,
};
use kigo::error::{Error, Result, Status};
use kigo::gguf::{Gguf, TensorType};
use kigo::model::bind;
use kigo::sampler::SamplingParams;

fn file() -> Vec<u8> {
    let mut tiny = Tiny::new("qwen2", TensorType::F32);
    // Room for prompts of several passes.
    tiny.shape.n_ctx = 2048;
    tiny.bytes()
}

fn nothing(_: u64, _: u64) -> Result<()> {
    Ok(())
}

fn probe(cap: Option<u64>) -> (Engine, Arc<Plot>) {
    let plot = Arc::new(Plot::default());
    (Engine::with_device(Arc::new(Probe(Arc::clone(&plot))), 1, cap, LogSink::silent()), plot)
}

fn model() -> (Model, Arc<Plot>, Engine) {
    let (engine, plot) = probe(None);
    (engine.load_memory(&file(), &mut nothing).unwrap(), plot, engine)
}

fn session(model: &Model) -> Session {
    Session::new(model, SessionOptions::default()).unwrap()
}

fn prompt(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i * 37 % 500).collect()
}

/// All that a caller can see of a session.
fn seen(session: &Session) -> (Vec<u32>, Option<Vec<f32>>) {
    let tokens = session.with_tokens(|t| Ok(t.to_vec())).unwrap();
    let mut logits = vec![0.0; session.n_vocab()];
    (tokens, session.logits(&mut logits).ok().map(|()| logits))
}

#[test]
fn logits_do_not_depend_on_how_the_tokens_came() {
    let (model, ..) = model();
    let tokens = prompt(70);
    let whole = session(&model);
    whole.prefill(&tokens).unwrap();
    let parts = session(&model);
    for part in tokens.chunks(23) {
        parts.prefill(part).unwrap();
    }
    assert_eq!(seen(&whole), seen(&parts));
}

#[test]
fn a_prefill_that_is_cancelled_in_its_second_pass_leaves_the_session_as_it_was() {
    let (model, plot, engine) = model();
    let session = Arc::new(session(&model));
    session.prefill(&prompt(10)).unwrap();
    let (before, used) = (seen(&session), engine.memory_used());
    *plot.session.lock().unwrap() = Some(Arc::clone(&session));
    *plot.cancel_in_pass.lock().unwrap() = Some(1);
    assert!(matches!(session.prefill(&prompt(600)), Err(Error::Cancelled)));
    assert_eq!(seen(&session), before);
    assert_eq!(engine.memory_used(), used, "the pages came back");
    // The cancel is used up, and the same call gives what it would have given.
    session.prefill(&prompt(20)).unwrap();
    let fresh = self::session(&model);
    fresh.prefill(&[prompt(10), prompt(20)].concat()).unwrap();
    assert_eq!(seen(&session), seen(&fresh));
    plot.session.lock().unwrap().take();
}

#[test]
fn a_pass_that_fails_leaves_the_session_as_it_was() {
    let (model, plot, _engine) = model();
    let session = session(&model);
    for (held, pass) in [(0, 0), (0, 1), (10, 0)] {
        session.truncate(0).unwrap();
        if held > 0 {
            session.prefill(&prompt(held)).unwrap();
        }
        let before = seen(&session);
        *plot.fail_in_pass.lock().unwrap() = Some(pass);
        let error = session.prefill(&prompt(600)).unwrap_err();
        assert_eq!(error.to_string(), "device \"probe\" failed with 7 (injected)");
        assert_eq!(seen(&session), before);
    }
}

#[test]
fn a_cancel_stops_the_running_call_or_the_next_and_is_used_up() {
    let (model, ..) = model();
    let session = session(&model);
    session.cancel();
    session.cancel();
    assert!(matches!(session.prefill(&prompt(3)), Err(Error::Cancelled)));
    session.prefill(&prompt(3)).unwrap();
    session.cancel();
    let stopped = session.generate(&GenerateOptions::default(), &mut |_, _| true).unwrap();
    assert_eq!((stopped.n_tokens, stopped.reason), (0, StopReason::Cancelled));
    session.cancel();
    session.clear_cancel();
    session.prefill(&prompt(3)).unwrap();
    // From inside the callback, as another thread would.
    let options = GenerateOptions { ignore_end: true, ..Default::default() };
    let mut n = 0;
    let stopped = session.generate(&options, &mut |_, _| {
        n += 1;
        if n == 4 {
            session.cancel();
        }
        true
    });
    let stopped = stopped.unwrap();
    assert_eq!((stopped.n_tokens, stopped.reason), (4, StopReason::Cancelled));
    assert_eq!(seen(&session).0.len(), 10);
    assert!(seen(&session).1.is_some());
}

#[test]
fn a_panic_poisons_its_session_and_no_other() {
    let (model, plot, engine) = model();
    let (one, two) = (session(&model), session(&model));
    one.prefill(&prompt(5)).unwrap();
    two.prefill(&prompt(5)).unwrap();
    *plot.panic_at.lock().unwrap() = Some(499);
    assert_eq!(one.prefill(&[1, 499]).unwrap_err().to_string(), "internal: a panic injected by a test");
    assert_eq!(one.prefill(&[1]).unwrap_err().status(), Status::Poisoned);
    assert_eq!(one.sample().unwrap_err().to_string(), "the session is unusable after an earlier failure");
    two.prefill(&[1]).unwrap();
    drop(one);
    *plot.panic_at.lock().unwrap() = None;
    two.prefill(&[499]).unwrap();
    drop(two);
    let empty = engine.memory_used();
    session(&model).prefill(&prompt(100)).unwrap();
    assert_eq!(engine.memory_used(), empty, "the panicked session's pages came back");
}

#[test]
fn a_session_is_for_one_call_at_a_time() {
    let (model, ..) = model();
    let (session, other) = (session(&model), session(&model));
    session.prefill(&prompt(5)).unwrap();
    let options = GenerateOptions { max_tokens: Some(2), ignore_end: true, ..Default::default() };
    let mut statuses = Vec::new();
    session
        .generate(&options, &mut |_, _| {
            statuses.push(session.prefill(&[1]).map_err(|e| e.status()));
            std::thread::scope(|s| {
                s.spawn(|| statuses.push(session.sample().map(|_| ()).map_err(|e| e.status()))).join().unwrap();
            });
            other.prefill(&[1]).unwrap();
            true
        })
        .unwrap();
    assert_eq!(statuses, [Err(Status::Busy); 4]);
}

#[test]
fn the_context_is_checked_before_anything_runs() {
    let (model, plot, _engine) = model();
    let session = Session::new(&model, SessionOptions { n_ctx: Some(8), ..Default::default() }).unwrap();
    let error = session.prefill(&prompt(9)).unwrap_err();
    assert_eq!(error.to_string(), "0 tokens held and 9 to add exceed the context of 8");
    assert_eq!(plot.passes.load(Ordering::SeqCst), 0);
    session.prefill(&prompt(6)).unwrap();
    let options = GenerateOptions { ignore_end: true, ..Default::default() };
    let full = session.generate(&options, &mut |_, _| true).unwrap();
    assert_eq!((full.n_tokens, full.reason), (2, StopReason::ContextFull));
    assert_eq!(session.prefill(&[0]).unwrap_err().status(), Status::ContextFull);
    for n_ctx in [2049, usize::MAX] {
        let error = Session::new(&model, SessionOptions { n_ctx: Some(n_ctx), ..Default::default() }).err().unwrap();
        assert_eq!(error.to_string(), format!("n_ctx is {n_ctx}; expected 1 to the model's 2048"));
    }
}

#[test]
fn pages_come_as_tokens_do_and_go_back() {
    let (model, plot, engine) = model();
    let page = model.facts().kv_bytes_per_token * 64;
    let empty = engine.memory_used();
    let pages = |e: &Engine| (e.memory_used() - empty) / page;
    let one = session(&model);
    assert_eq!(pages(&engine), 0);
    one.prefill(&prompt(64)).unwrap();
    assert_eq!(pages(&engine), 1);
    one.prefill(&prompt(1)).unwrap();
    let two = session(&model);
    two.prefill(&prompt(130)).unwrap();
    assert_eq!(pages(&engine), 5);
    one.truncate(64).unwrap();
    assert_eq!(pages(&engine), 4);
    one.truncate(0).unwrap();
    drop(two);
    assert_eq!(pages(&engine), 0);
    assert_eq!(plot.released.load(Ordering::SeqCst), 5);
    one.prefill(&prompt(64 * 5)).unwrap();
    assert_eq!(plot.reserved.load(Ordering::SeqCst), 5, "pages are used again");
}

#[test]
fn truncating_and_going_on_gives_the_same_as_starting_anew() {
    let (model, ..) = model();
    let session = session(&model);
    session.prefill(&prompt(100)).unwrap();
    let whole = seen(&session);
    session.truncate(100).unwrap();
    assert_eq!(seen(&session), whole, "nothing dropped, nothing changed");
    session.truncate(63).unwrap();
    assert_eq!(session.sample().unwrap_err().status(), Status::InvalidState);
    session.prefill(&prompt(100)[63..]).unwrap();
    assert_eq!(seen(&session), whole);
    let error = session.truncate(101).unwrap_err();
    assert_eq!(error.to_string(), "n_tokens is 101; expected at most the 100 held");
}

#[test]
fn the_memory_cap_holds_for_weights_and_pages_and_a_refusal_changes_nothing() {
    let bytes = file();
    let gguf = Gguf::from_bytes(&bytes).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    let plan = ReferenceDevice::PLAIN.plan(&config, &weights);
    let load = plan.weights_bytes + plan.scratch_bytes;

    let (small, _) = probe(Some(load - 1));
    let error = small.load_memory(&bytes, &mut nothing).err().unwrap();
    assert_eq!(error.to_string(), format!("memory cap: {load} bytes requested, {} bytes free", load - 1));
    assert_eq!(small.memory_used(), 0);

    let page = plan.kv_bytes_per_token * 64;
    let (engine, _) = probe(Some(load + 2 * page));
    let model = engine.load_memory(&bytes, &mut nothing).unwrap();
    let session = session(&model);
    session.prefill(&prompt(64)).unwrap();
    let before = seen(&session);
    let error = session.prefill(&prompt(65)).unwrap_err();
    assert_eq!(error.to_string(), format!("memory cap: {} bytes requested, {page} bytes free", 2 * page));
    assert_eq!(seen(&session), before);
    session.prefill(&prompt(64)).unwrap();
    assert_eq!(engine.memory_used(), load + 2 * page);
    drop((session, model));
    assert_eq!(engine.memory_used(), 0);
}

#[test]
fn a_load_is_stopped_by_its_progress_callback() {
    let (engine, _) = probe(None);
    let stopped = engine.load_memory(&file(), &mut |_, _| Err(Error::Cancelled));
    assert!(matches!(stopped.err(), Some(Error::Cancelled)));
    assert_eq!(engine.memory_used(), 0);
    let mut last = (0, 0);
    engine
        .load_memory(&file(), &mut |done, total| {
            assert!(done >= last.0 && done <= total && total > 0);
            last = (done, total);
            Ok(())
        })
        .unwrap();
    assert_eq!(last.0, last.1, "the last call says that all is loaded");
}

#[test]
fn generating_is_sampling_and_stepping() {
    let (model, ..) = model();
    let sampling = SamplingParams { temperature: 1.0, seed: 5, repetition_penalty: 1.1, ..Default::default() };
    let make = || Session::new(&model, SessionOptions { sampling: sampling.clone(), ..Default::default() }).unwrap();
    let (by_hand, by_loop) = (make(), make());
    by_hand.prefill(&prompt(5)).unwrap();
    for _ in 0..20 {
        let token = by_hand.sample().unwrap();
        assert_eq!(by_hand.sample().unwrap(), token, "sampling again gives the same");
        by_hand.prefill(&[token]).unwrap();
    }
    by_loop.prefill(&prompt(5)).unwrap();
    let options = GenerateOptions { max_tokens: Some(20), ignore_end: true, ..Default::default() };
    let mut tokens = Vec::new();
    let mut text = String::new();
    let done = by_loop.generate(&options, &mut |token, piece| {
        tokens.extend(token);
        text += piece;
        true
    });
    assert_eq!(done.unwrap().reason, StopReason::MaxTokens);
    assert_eq!(seen(&by_hand), seen(&by_loop));
    assert_eq!(tokens, seen(&by_loop).0[5..]);
    assert_eq!(text, model.detokenize(&tokens, false).unwrap());
}

#[test]
fn all_that_fits_into_the_cache_is_generated_and_no_page_is_taken_early() {
    let (engine, plot) = probe(None);
    let page = engine.load_memory(&file(), &mut nothing).unwrap().facts().kv_bytes_per_token * 64;
    let mut expected = Vec::new();
    for (ahead, n_pages) in [(false, 1), (true, 1), (false, 3), (true, 2), (true, 3)] {
        plot.runs_ahead.store(ahead, Ordering::SeqCst);
        let options = LoadOptions { cache_bytes: Some(n_pages * page), ..Default::default() };
        let model = engine.load_memory_with(&file(), options, &mut nothing).unwrap();
        let session = session(&model);
        session.prefill(&prompt(3)).unwrap();
        let options = GenerateOptions { max_tokens: Some(300), ignore_end: true, ..Default::default() };
        let mut n_tokens = 3;
        let result = session.generate(&options, &mut |token, _| {
            n_tokens += token.iter().len();
            let used = model.cache_facts().n_pages_used;
            // A device that runs ahead has pages for what may come, of those that nobody else has.
            assert!(used == (n_tokens as u64).div_ceil(64) || ahead && used <= n_pages, "{n_tokens}: {used}");
            true
        });
        assert_eq!(result.unwrap_err().status(), Status::CacheFull, "{ahead}, {n_pages} pages");
        let tokens = seen(&session).0;
        assert_eq!((tokens.len(), n_tokens), (n_pages as usize * 64, n_pages as usize * 64), "{ahead}");
        let both = tokens.len().min(expected.len());
        assert_eq!(tokens[..both], expected[..both]);
        if tokens.len() > expected.len() {
            expected = tokens;
        }
        // With fewer it ends as it would in a larger cache, and what is full to the last token is no failure.
        session.truncate(60).unwrap();
        session.prefill(&[7]).unwrap();
        let options = GenerateOptions { max_tokens: Some(3), ignore_end: true, ..Default::default() };
        let generated = session.generate(&options, &mut |_, _| true).unwrap();
        assert_eq!((generated.n_tokens, generated.reason), (3, StopReason::MaxTokens));
    }
}

#[test]
fn a_generation_stops_at_a_stop_string_an_end_token_and_the_callback() {
    let (model, ..) = model();
    let end = model.facts().end_token.unwrap();
    // A bias decides the tokens: first what spells the stop string, then the end token.
    let stop_token = model.tokenize("Z", false, false).unwrap()[0];
    let run = |bias: u32, options: &GenerateOptions, stop_after: usize| {
        let sampling = SamplingParams { logit_bias: vec![(bias, 1e4)], ..Default::default() };
        let session = Session::new(&model, SessionOptions { sampling, ..Default::default() }).unwrap();
        session.prefill(&prompt(3)).unwrap();
        let (mut text, mut n) = (String::new(), 0);
        let done = session.generate(options, &mut |_, piece| {
            text += piece;
            n += 1;
            n != stop_after
        });
        let done = done.unwrap();
        (done.n_tokens, done.reason, text, seen(&session).0.len() - 3)
    };
    let stop = GenerateOptions { stop: vec!["nothing".into(), "ZZZ".into()], ..Default::default() };
    assert_eq!(run(stop_token, &stop, 0), (3, StopReason::StopString(1), String::new(), 3));
    let four = GenerateOptions { max_tokens: Some(4), stop: vec!["ZZZZZ".into()], ..Default::default() };
    assert_eq!(
        run(stop_token, &four, 0),
        (4, StopReason::MaxTokens, "ZZZZ".into(), 4),
        "what was held back comes last"
    );
    assert_eq!(run(stop_token, &GenerateOptions::default(), 2), (2, StopReason::Callback, "ZZ".into(), 2));
    let none = GenerateOptions::default();
    assert_eq!(run(end, &none, 0), (0, StopReason::EndToken(end), String::new(), 0));
    let keep = GenerateOptions { keep_end: true, special: true, ..Default::default() };
    assert_eq!(run(end, &keep, 0), (1, StopReason::EndToken(end), "<|im_end|>".into(), 1));
    let ignore = GenerateOptions { ignore_end: true, max_tokens: Some(3), ..Default::default() };
    assert_eq!(run(end, &ignore, 0), (3, StopReason::MaxTokens, String::new(), 3));
}

#[test]
fn devices_are_opened_by_name() {
    let open = |device| {
        Engine::new(EngineOptions { device, n_threads: 1, memory_cap: None, log: LogSink::silent() })
            .map(|e| e.device_name())
            .map_err(|e| e.to_string())
    };
    assert_eq!(open("reference").unwrap(), "reference");
    assert_eq!(open("cpu").unwrap(), "cpu");
    assert!(open("auto").is_ok());
    let expected =
        "device is \"gpu\"; expected \"auto\", \"cpu\", \"cuda:N\" or \"reference\", N being a number or a UUID";
    assert_eq!(open("gpu").unwrap_err(), expected);
    assert!(open("cuda:x").is_err());
    assert!(open("cuda:65535").unwrap_err().starts_with("device \"cuda:65535\" is unavailable: "));
}

#[test]
fn sessions_of_one_model_run_on_many_threads_and_give_what_they_give_alone() {
    let (model, ..) = model();
    let alone: Vec<_> = (1..5)
        .map(|n| {
            let session = session(&model);
            session.prefill(&prompt(n * 30)).unwrap();
            seen(&session)
        })
        .collect();
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (i, expected) in alone.iter().enumerate() {
            let (model, failed) = (&model, &failed);
            scope.spawn(move || {
                for _ in 0..5 {
                    let session = session(model);
                    session.prefill(&prompt((i + 1) * 30)).unwrap();
                    failed.fetch_or(seen(&session) != *expected, Ordering::SeqCst);
                }
            });
        }
    });
    assert!(!failed.load(Ordering::SeqCst));
}
