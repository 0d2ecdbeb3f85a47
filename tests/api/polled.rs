//! Polled batches: everything as it is alone, whatever else is in the batch and whenever it is cut off.

use std::sync::Arc;
use std::time::Duration;

use crate::batch::{self, prompt, seen};
use crate::common::probe::{Plot, Probe};
use crate::common::run;
use kigo::backend::Device;
use kigo::engine::{
    Batch, Constraint, GenerateOptions, Grammar, LoadOptions, Model, Session, SessionOptions, StopReason, Tap, What,
    Work,
};
use kigo::error::{Result, Status};
use kigo::gguf::TensorType;
use kigo::sampler::SamplingParams;

fn load(device: Arc<dyn Device>, options: LoadOptions) -> Model {
    batch::load(device, "qwen2", TensorType::Q4_1, options)
}

fn cpu(options: LoadOptions) -> Model {
    load(run::cpu(2), options)
}

fn session(model: &Model, seed: u64) -> Arc<Session> {
    let sampling = SamplingParams { temperature: 1.0, top_p: 0.95, seed, ..Default::default() };
    Arc::new(Session::new(model, SessionOptions { sampling, ..Default::default() }).unwrap())
}

/// What came of a session: its tokens, its text, and its end.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    tokens: Vec<u32>,
    text: String,
    end: Option<std::result::Result<Option<StopReason>, Status>>,
}

/// Takes the events there are.
fn take(batch: &mut Batch<Arc<Session>>, sessions: &[Arc<Session>], heard: &mut [Heard]) {
    while let Some(event) = batch.take_event() {
        let index = sessions.iter().position(|s| Arc::ptr_eq(s, &event.session)).unwrap();
        let heard = &mut heard[index];
        assert!(heard.end.is_none());
        heard.text += &event.text;
        match event.what {
            What::Token(token) => heard.tokens.push(token),
            What::End(outcome) => heard.end = Some(outcome.map_err(|error| error.status())),
        }
        assert_eq!(event.n_tokens, heard.tokens.len());
    }
}

/// The same by calls for the session alone.
fn alone(session: &Session, tokens: &[u32], options: Option<&GenerateOptions>) -> Heard {
    let mut heard = Heard::default();
    let ran = || -> Result<Option<StopReason>> {
        if !tokens.is_empty() {
            session.prefill(tokens)?;
        }
        let Some(options) = options else { return Ok(None) };
        let generated = session.generate(options, &mut |token, text| {
            heard.tokens.extend(token);
            heard.text += text;
            true
        })?;
        Ok(Some(generated.reason))
    };
    let mut ran = ran;
    let end = ran().map_err(|error| error.status());
    heard.end = Some(end);
    heard
}

fn how(max_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(max_tokens), ignore_end: true, ..GenerateOptions::default() }
}

#[test]
fn each_session_does_what_its_calls_alone_would_do() {
    let stop = GenerateOptions { stop: vec!["e".into(), "an".into()], ..how(60) };
    let works: [(usize, Option<GenerateOptions>); 7] = [
        (100, Some(how(20))),
        (1, Some(how(7))),
        (300, None),
        (5, Some(stop)),
        (64, Some(GenerateOptions { ignore_end: false, ..how(50) })),
        (129, Some(how(1))),
        (1020, Some(how(50))),
    ];
    for (merge, pass_tokens, ms) in [(false, None, 0), (true, None, 1), (false, Some(7), 0), (false, Some(512), 100)] {
        let model = cpu(LoadOptions { merge, pass_tokens, ..LoadOptions::default() });
        let sessions: Vec<_> = (0..works.len()).map(|i| session(&model, i as u64)).collect();
        let mut heard: Vec<Heard> = works.iter().map(|_| Heard::default()).collect();
        let mut batch = Batch::new(&model).unwrap();
        for (i, (n, generate)) in works.iter().enumerate() {
            let work = Work { tokens: &prompt(i, *n), generate: generate.as_ref() };
            batch.add(Arc::clone(&sessions[i]), work).unwrap();
            // They come one by one.
            batch.run(Duration::ZERO).unwrap();
        }
        while batch.run(Duration::from_millis(ms)).unwrap() > 0 {
            take(&mut batch, &sessions, &mut heard);
        }
        take(&mut batch, &sessions, &mut heard);
        for (i, (n, generate)) in works.iter().enumerate() {
            let other = session(&model, i as u64);
            let expected = alone(&other, &prompt(i, *n), generate.as_ref());
            assert_eq!(heard[i], expected, "{i}");
            assert_eq!(seen(&sessions[i]), seen(&other), "{i}");
        }
        let full = heard[6].end.as_ref().unwrap();
        assert_eq!(full, &Ok(Some(StopReason::ContextFull)));
    }
}

#[test]
fn a_session_of_a_batch_is_in_use_until_it_ends_or_is_removed() {
    let model = cpu(LoadOptions { pass_tokens: Some(16), ..LoadOptions::default() });
    let (first, second) = (session(&model, 1), session(&model, 2));
    first.prefill(&prompt(3, 70)).unwrap();
    let before = seen(&first);
    let mut batch = Batch::new(&model).unwrap();
    let work = prompt(1, 100);
    let options = how(5);
    let busy = |session: &Session| session.prefill(&[1]).unwrap_err().status() == Status::Busy;
    batch.add(Arc::clone(&first), Work { tokens: &work, generate: Some(&options) }).unwrap();
    batch.add(Arc::clone(&second), Work { tokens: &work, generate: Some(&options) }).unwrap();
    let again = batch.add(Arc::clone(&first), Work { tokens: &work, generate: None });
    assert_eq!(again.unwrap_err().status(), Status::Busy);
    for _ in 0..4 {
        assert_eq!(batch.run(Duration::ZERO).unwrap(), 2);
        assert!(busy(&first) && busy(&second) && first.fork().is_err());
    }
    // In the midst of its prompt.
    batch.remove(&first).unwrap();
    assert_eq!(batch.remove(&first).unwrap_err().status(), Status::NotFound);
    assert_eq!(seen(&first), before);
    assert_eq!(first.facts().unwrap().n_pages, 2);
    // And another with the batch itself.
    drop(batch);
    assert_eq!(seen(&second), (Vec::new(), None));
    assert_eq!(alone(&second, &work, Some(&options)), alone(&session(&model, 2), &work, Some(&options)));
}

#[test]
fn a_cancel_ends_one_session_as_it_would_end_its_call() {
    let model = cpu(LoadOptions { pass_tokens: Some(16), ..LoadOptions::default() });
    let sessions = [session(&model, 1), session(&model, 2), session(&model, 3)];
    let mut heard = [Heard::default(), Heard::default(), Heard::default()];
    let mut batch = Batch::new(&model).unwrap();
    let (options, long) = (how(30), prompt(5, 200));
    sessions[1].prefill(&prompt(6, 10)).unwrap();
    batch.add(Arc::clone(&sessions[0]), Work { tokens: &long, generate: Some(&options) }).unwrap();
    batch.add(Arc::clone(&sessions[1]), Work { tokens: &[], generate: Some(&options) }).unwrap();
    batch.add(Arc::clone(&sessions[2]), Work { tokens: &prompt(7, 20), generate: Some(&options) }).unwrap();
    for _ in 0..3 {
        batch.run(Duration::ZERO).unwrap();
    }
    sessions[0].cancel();
    sessions[1].cancel();
    while batch.run(Duration::ZERO).unwrap() > 0 {}
    take(&mut batch, &sessions, &mut heard);
    assert_eq!(heard[0].end, Some(Err(Status::Cancelled)));
    assert_eq!(seen(&sessions[0]), (Vec::new(), None));
    assert_eq!((heard[1].end.as_ref(), heard[1].tokens.len()), (Some(&Ok(Some(StopReason::Cancelled))), 3));
    assert_eq!(sessions[1].facts().unwrap().n_tokens, 13);
    assert_eq!(heard[2], alone(&session(&model, 3), &prompt(7, 20), Some(&options)));
    // They have used the cancel up.
    sessions[0].prefill(&long).unwrap();
}

#[test]
fn steps_go_with_the_parts_of_a_prompt_and_a_run_of_no_time_is_one_pass() {
    let plot = Arc::new(Plot::default());
    let model = load(Arc::new(Probe(Arc::clone(&plot))), LoadOptions::default());
    let passes = || plot.passes.swap(0, std::sync::atomic::Ordering::Relaxed);
    let sessions = [session(&model, 1), session(&model, 2), session(&model, 3)];
    let mut batch = Batch::new(&model).unwrap();
    sessions[..2].iter().for_each(|session| session.prefill(&prompt(1, 9)).unwrap());
    passes();
    let options = how(4);
    for session in &sessions[..2] {
        batch.add(Arc::clone(session), Work { tokens: &[], generate: Some(&options) }).unwrap();
    }
    batch.add(Arc::clone(&sessions[2]), Work { tokens: &prompt(2, 30), generate: None }).unwrap();
    assert_eq!((batch.run(Duration::ZERO).unwrap(), passes()), (2, 1));
    assert_eq!((batch.run(Duration::MAX).unwrap(), passes()), (0, 3));
    assert_eq!((batch.run(Duration::MAX).unwrap(), passes()), (0, 0));
}

#[test]
fn what_fails_is_one_session_s() {
    let plot = Arc::new(Plot::default());
    let model = load(Arc::new(Probe(Arc::clone(&plot))), LoadOptions::default());
    let sessions = [session(&model, 1), session(&model, 2)];
    let mut heard = [Heard::default(), Heard::default()];
    let options = how(6);
    *plot.panic_at.lock().unwrap() = Some(77);
    let mut batch = Batch::new(&model).unwrap();
    batch.add(Arc::clone(&sessions[0]), Work { tokens: &[5, 77, 6], generate: Some(&options) }).unwrap();
    batch.add(Arc::clone(&sessions[1]), Work { tokens: &[5, 6], generate: Some(&options) }).unwrap();
    while batch.run(Duration::ZERO).unwrap() > 0 {}
    take(&mut batch, &sessions, &mut heard);
    assert_eq!(heard[0].end, Some(Err(Status::Internal)));
    assert_eq!(sessions[0].prefill(&[1]).unwrap_err().status(), Status::Poisoned);
    *plot.panic_at.lock().unwrap() = None;
    assert_eq!(heard[1], alone(&session(&model, 2), &[5, 6], Some(&options)));
}

#[test]
fn a_constraint_and_a_full_cache_are_as_alone() {
    let page = cpu(LoadOptions::default()).cache_facts().page_bytes;
    let model = cpu(LoadOptions { cache_bytes: Some(3 * page), ..LoadOptions::default() });
    let sessions = [session(&model, 1), session(&model, 2)];
    let mut heard = [Heard::default(), Heard::default()];
    let held = Constraint::compile(&model, Grammar::Regex("[a-z]{3}")).unwrap();
    sessions[0].prefill(&prompt(1, 60)).unwrap();
    sessions[0].set_constraint(Some(&held)).unwrap();
    let options = GenerateOptions { max_tokens: Some(100), ..GenerateOptions::default() };
    let mut batch = Batch::new(&model).unwrap();
    batch.add(Arc::clone(&sessions[0]), Work { tokens: &[], generate: Some(&options) }).unwrap();
    let too_long = Work { tokens: &prompt(2, 130), generate: None };
    assert_eq!(batch.add(Arc::clone(&sessions[1]), too_long).unwrap_err().status(), Status::CacheFull);
    sessions[1].clear_cancel();
    batch.add(Arc::clone(&sessions[1]), Work { tokens: &prompt(2, 60), generate: Some(&how(500)) }).unwrap();
    while batch.run(Duration::ZERO).unwrap() > 0 {}
    take(&mut batch, &sessions, &mut heard);
    let text = &heard[0].text;
    assert!(text.len() == 3 && text.bytes().all(|c| c.is_ascii_lowercase()), "{:?}", heard[0]);
    assert_eq!(heard[1].end, Some(Err(Status::CacheFull)));
    assert!(heard[1].tokens.len() >= 64, "{}", heard[1].tokens.len());
    assert_eq!(sessions[1].facts().unwrap().n_tokens, 60 + heard[1].tokens.len());
}

#[test]
fn a_session_with_a_tap_or_without_anything_to_do_is_refused() {
    let model = cpu(LoadOptions::default());
    let session = session(&model, 1);
    let mut batch = Batch::new(&model).unwrap();
    let nothing = batch.add(Arc::clone(&session), Work::default());
    assert_eq!(nothing.unwrap_err().status(), Status::InvalidArgument);
    let options = how(1);
    let no_logits = batch.add(Arc::clone(&session), Work { tokens: &[], generate: Some(&options) });
    assert_eq!(no_logits.unwrap_err().status(), Status::InvalidState);
    session.set_tap(Some(Tap::new(1, Box::new(|_| true)))).unwrap();
    let tapped = batch.add(Arc::clone(&session), Work { tokens: &[1], generate: None });
    assert_eq!(tapped.unwrap_err().status(), Status::InvalidState);
    session.set_tap(None).unwrap();
    let foreign = self::session(&cpu(LoadOptions::default()), 1);
    let foreign = batch.add(foreign, Work { tokens: &[1], generate: None });
    assert_eq!(foreign.unwrap_err().status(), Status::InvalidArgument);
    assert_eq!((batch.n_sessions(), batch.run(Duration::ZERO).unwrap()), (0, 0));
    session.prefill(&[1]).unwrap();
}

/// More answers than a pass has room for: a prompt among them gets on, and so does each of them.
#[test]
fn neither_a_prompt_nor_an_answer_starves_among_many() {
    let model = cpu(LoadOptions::default());
    let mut batch = Batch::new(&model).unwrap();
    let options = GenerateOptions { ignore_end: true, ..GenerateOptions::default() };
    let answers: Vec<_> = (0..600).map(|i| session(&model, i)).collect();
    for (i, answer) in answers.iter().enumerate() {
        let tokens = prompt(i, 3);
        batch.add(Arc::clone(answer), Work { tokens: &tokens, generate: Some(&options) }).unwrap();
    }
    let late = session(&model, 7);
    batch.add(Arc::clone(&late), Work { tokens: &prompt(1, 200), generate: None }).unwrap();
    let (mut n_of, mut n_runs, mut ended) = (vec![0; 600], 0, false);
    while !ended || n_of.iter().any(|n| *n < 3) {
        batch.run(Duration::ZERO).unwrap();
        n_runs += 1;
        while let Some(event) = batch.take_event() {
            match event.what {
                What::Token(_) => n_of[answers.iter().position(|a| Arc::ptr_eq(a, &event.session)).unwrap()] += 1,
                What::End(outcome) => {
                    assert!(Arc::ptr_eq(&event.session, &late) && outcome.unwrap().is_none());
                    ended = true;
                }
            }
        }
        assert!(n_runs < 400, "the prompt has ended: {ended}; the fewest tokens of an answer: {:?}", n_of.iter().min());
    }
    drop(batch);
    assert_eq!(seen(&late), {
        let alone = session(&model, 7);
        alone.prefill(&prompt(1, 200)).unwrap();
        seen(&alone)
    });
    let last = &answers[599];
    let alone = session(&model, 599);
    alone.prefill(&prompt(599, 3)).unwrap();
    alone.generate(&GenerateOptions { max_tokens: Some(n_of[599]), ..options.clone() }, &mut |_, _| true).unwrap();
    assert_eq!(seen(last), seen(&alone));
}

/// From inside another session's tap nothing of a batch is changed, and no session of it is lost.
#[test]
fn inside_of_a_tap_a_batch_answers_busy() {
    let model = cpu(LoadOptions::default());
    let member = session(&model, 1);
    let batch = Arc::new(std::sync::Mutex::new(Batch::new(&model).unwrap()));
    batch.lock().unwrap().add(Arc::clone(&member), Work { tokens: &prompt(1, 20), generate: None }).unwrap();
    let tapped = session(&model, 2);
    let (inside, own) = (Arc::clone(&batch), Arc::clone(&member));
    let see = move |_: &kigo::backend::TapEvent<'_>| {
        let mut batch = inside.lock().unwrap();
        assert_eq!(batch.remove(&own).unwrap_err().status(), Status::Busy);
        assert_eq!(batch.run(Duration::ZERO).unwrap_err().status(), Status::Busy);
        true
    };
    tapped.set_tap(Some(Tap::new(1, Box::new(see)))).unwrap();
    tapped.prefill(&[1, 2, 3]).unwrap();
    let mut batch = batch.lock().unwrap();
    batch.run(Duration::from_secs(10)).unwrap();
    assert!(matches!(batch.take_event().unwrap().what, What::End(Ok(None))));
    assert_eq!(member.facts().unwrap().n_tokens, 20);
}

/// Another thread that asks of sessions meanwhile gets BUSY, and disturbs nothing.
#[test]
fn who_asks_meanwhile_disturbs_nothing() {
    let model = cpu(LoadOptions::default());
    let options = GenerateOptions { max_tokens: Some(150), ignore_end: true, ..GenerateOptions::default() };
    let sessions: Vec<_> = (0..4).map(|i| session(&model, i)).collect();
    let mut batch = Batch::new(&model).unwrap();
    for session in &sessions {
        batch.add(Arc::clone(session), Work { tokens: &prompt(3, 30), generate: Some(&options) }).unwrap();
    }
    let ends = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(std::sync::atomic::Ordering::Relaxed) {
                sessions.iter().for_each(|session| drop(session.facts()));
            }
        });
        while batch.run(Duration::from_millis(5)).unwrap() > 0 {}
        ends.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let mut n_ended = 0;
    while let Some(event) = batch.take_event() {
        if let What::End(outcome) = event.what {
            assert!(matches!(outcome, Ok(Some(StopReason::MaxTokens))), "{:?}", outcome.map_err(|e| e.status()));
            n_ended += 1;
        }
    }
    assert_eq!(n_ended, 4);
    assert!(sessions.iter().all(|session| session.facts().unwrap().n_tokens == 180));
}
