//! Output held to grammars: what comes is what they allow, whatever the sampling; what is wrong is a status.

mod common;

use common::tiny::{ARCHS, Tiny};
use kigo::engine::{
    Engine, EngineOptions, GenerateOptions, Grammar, LogSink, Model, Session, SessionOptions, StopReason, sample_batch,
};
use kigo::error::Error;
use kigo::gguf::TensorType;
use kigo::sampler::SamplingParams;

fn engine() -> Engine {
    Engine::new(EngineOptions { device: "cpu", n_threads: 2, memory_cap: None, log: LogSink::silent() }).unwrap()
}

fn tiny(arch: &str) -> Model {
    engine().load_memory(&Tiny::new(arch, TensorType::Q8_0).bytes(), &mut |_, _| Ok(())).unwrap()
}

fn session(model: &Model, temperature: f32, seed: u64) -> Session {
    let sampling = SamplingParams { temperature, seed, ..SamplingParams::default() };
    Session::new(model, SessionOptions { sampling, ..SessionOptions::default() }).unwrap()
}

fn generate(session: &Session, max: usize) -> (String, StopReason) {
    let mut text = String::new();
    let options = GenerateOptions { max_tokens: Some(max), ..GenerateOptions::default() };
    let generated = session
        .generate(&options, &mut |_, piece| {
            text.push_str(piece);
            true
        })
        .unwrap();
    (text, generated.reason)
}

#[test]
fn random_models_keep_to_a_regular_expression() {
    for arch in ARCHS {
        let model = tiny(arch);
        for seed in 0..20 {
            let session = session(&model, if seed == 0 { 0.0 } else { 1.5 }, seed);
            session.prefill(&[1, 2, 3]).unwrap();
            session.set_constraint(Some(Grammar::Regex("[0-9]{4}-[0-9]{2}"))).unwrap();
            let (text, reason) = generate(&session, 40);
            assert!(matches!(reason, StopReason::EndToken(_)), "{text:?} {reason:?}");
            let bytes = text.as_bytes();
            let digits = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_digit);
            assert!(bytes.len() == 7 && bytes[4] == b'-' && digits(0..4) && digits(5..7), "{arch}: {text:?}");
        }
    }
}

#[test]
fn forks_batches_and_dropped_tokens_keep_to_it() {
    let model = tiny("qwen2");
    let first = session(&model, 1.0, 7);
    first.prefill(&[5, 6]).unwrap();
    first.set_constraint(Some(Grammar::Regex("(ab|cd){3}"))).unwrap();
    let token = first.sample().unwrap();
    first.prefill(&[token]).unwrap();
    let fork = first.fork().unwrap();
    let both = sample_batch(&[&first, &fork]);
    assert_eq!(both[0].as_ref().unwrap(), both[1].as_ref().unwrap());
    // Back to where it was set, and again: the same, since the draw is a function of the position.
    first.truncate(2).unwrap();
    first.truncate(1).unwrap();
    first.prefill(&[6]).unwrap();
    assert_eq!(first.sample().unwrap(), token);
    for s in [&first, &fork] {
        let (text, _) = generate(s, 30);
        assert!(text.chars().all(|c| "abcd".contains(c)), "{text}");
    }
    // Tokens that are not allowed: a status, and the session goes on without the constraint.
    let wrong = session(&model, 0.0, 0);
    wrong.prefill(&[5]).unwrap();
    wrong.set_constraint(Some(Grammar::Regex("x"))).unwrap();
    let y = model.tokenize("y", false, false).unwrap();
    wrong.prefill(&y).unwrap();
    assert!(matches!(wrong.sample(), Err(Error::Constraint { .. })));
    // Once they are dropped it goes on.
    wrong.truncate(1).unwrap();
    wrong.truncate(0).unwrap();
    wrong.prefill(&[5]).unwrap();
    assert_eq!(generate(&wrong, 9).0, "x");
    wrong.set_constraint(None).unwrap();
    wrong.sample().unwrap();
}

#[test]
fn what_is_allowed_depends_on_the_tokens_and_not_on_the_way_to_them() {
    let model = tiny("qwen3");
    let grammar = Grammar::Lark("start: (\"ab\" | \"a\" /[0-9]{1,3}/ \"-\")+");
    for seed in 0..6 {
        let session = session(&model, 1.5, seed);
        session.prefill(&[5, 6]).unwrap();
        session.set_constraint(Some(grammar)).unwrap();
        let long = generate(&session, 12);
        let tokens = session.with_tokens(|t| Ok(t.to_vec())).unwrap();
        let mut forks = Vec::new();
        // Back and forth, with other tokens between, some of them not allowed; then what was there again.
        for n in [tokens.len(), 9, 4, 3, 2] {
            session.truncate(n.min(tokens.len())).unwrap();
            forks.push(session.fork().unwrap());
            session.prefill(&[7, 8]).unwrap();
            let _ = session.sample();
        }
        for other in forks.iter().chain([&session]) {
            let n = other.with_tokens(|t| Ok(t.iter().zip(&tokens).take_while(|(a, b)| a == b).count())).unwrap();
            other.truncate(n).unwrap();
            for &token in &tokens[n..] {
                if other.with_tokens(|t| Ok(t.len())).unwrap() > 2 && other.has_logits().is_ok() {
                    assert_eq!(other.sample().unwrap(), token, "{seed}: {long:?}");
                }
                other.prefill(&[token]).unwrap();
            }
        }
    }
    // Before where it was set: a status with the numbers, until as many tokens are there again.
    let session = session(&model, 0.0, 0);
    session.prefill(&[5, 6, 7]).unwrap();
    session.set_constraint(Some(grammar)).unwrap();
    session.truncate(1).unwrap();
    session.prefill(&[6]).unwrap();
    let error = session.sample().unwrap_err();
    assert_eq!(error.to_string(), "constraint: set at token 3, of which 2 are left: set it again");
    session.prefill(&[9]).unwrap();
    assert!(generate(&session, 3).0.starts_with('a'));
    let long = "x".repeat((4 << 20) + 1);
    let error = session.set_constraint(Some(Grammar::Regex(&long))).unwrap_err();
    assert_eq!(error.to_string(), "constraint: a text of 4194305 bytes; at most 4194304");
}

#[test]
fn wrong_grammars_are_refused_with_the_parser_s_text() {
    let model = tiny("llama");
    let session = session(&model, 0.0, 0);
    session.prefill(&[1]).unwrap();
    let deep = "(".repeat(10_000) + &")".repeat(10_000);
    let huge = "x{1,1000}".repeat(1000);
    let nested = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    for grammar in [
        Grammar::Regex("("),
        Grammar::Regex("a(?=b)"),
        Grammar::Regex(&deep),
        Grammar::JsonSchema("{"),
        Grammar::JsonSchema(r#"{"type": "nonsense"}"#),
        Grammar::JsonSchema(r##"{"$ref": "#/nowhere"}"##),
        Grammar::JsonSchema(&nested),
        Grammar::Lark("start: nothing"),
        Grammar::Lark("start: \"a"),
        Grammar::Lark(""),
    ] {
        match session.set_constraint(Some(grammar)) {
            Err(Error::Constraint { message }) => assert!(!message.is_empty()),
            other => panic!("{grammar:?}: {other:?}"),
        }
    }
    // One that is only large may be refused, now or later, and takes no more than its share.
    let outcome = session.set_constraint(Some(Grammar::Regex(&huge))).and_then(|()| session.sample());
    assert!(matches!(outcome, Ok(_) | Err(Error::Constraint { .. })), "{outcome:?}");
    session.set_constraint(None).unwrap();
    session.sample().unwrap();
}

#[test]
fn a_real_model_writes_what_a_schema_asks_for() {
    let path = std::path::Path::new("models/SmolLM2-135M-Instruct-Q4_1.gguf");
    if !path.is_file() {
        println!("skipped: {} is not there", path.display());
        return;
    }
    let model = engine().load_file(path, &mut |_, _| Ok(())).unwrap();
    let schema = r#"{"type": "object", "properties": {"name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 150}, "color": {"enum": ["red", "green", "blue"]}},
        "required": ["name", "age", "color"], "additionalProperties": false}"#;
    let n: u64 = std::env::var("KIGO_SAMPLES").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let prompt = model.render_chat(&[("user", "Describe a person in JSON: name, age, favorite color.")], true).unwrap();
    let mut free = (0, 0.0);
    let mut held = (0, 0.0);
    for seed in 0..n {
        let session = session(&model, if seed == 0 { 0.0 } else { 1.0 }, seed);
        session.prefill(&prompt.ids).unwrap();
        let before = session.fork().unwrap();
        session.set_constraint(Some(Grammar::JsonSchema(schema))).unwrap();
        session.sample().unwrap(); // the vocabulary's index, once
        let start = std::time::Instant::now();
        let (text, reason) = generate(&session, 120);
        held.1 += start.elapsed().as_secs_f64();
        held.0 += session.with_tokens(|t| Ok(t.len())).unwrap() - prompt.ids.len();
        assert!(matches!(reason, StopReason::EndToken(_)), "{seed}: {text} {reason:?}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{seed}: {text}: {e}"));
        let object = value.as_object().unwrap();
        assert_eq!(object.len(), 3, "{text}");
        assert!(object["name"].as_str().unwrap().chars().count() <= 20, "{text}");
        assert!((0..=150).contains(&object["age"].as_i64().unwrap()), "{text}");
        assert!(["red", "green", "blue"].contains(&object["color"].as_str().unwrap()), "{text}");
        let start = std::time::Instant::now();
        let options = GenerateOptions { max_tokens: Some(40), ignore_end: true, ..GenerateOptions::default() };
        before.generate(&options, &mut |_, _| true).unwrap();
        free.1 += start.elapsed().as_secs_f64();
        free.0 += 40;
    }
    let rate = |(n, s): (usize, f64)| n as f64 / s;
    println!("{n} valid; held to the schema {:.0} tok/s, free {:.0} tok/s", rate(held), rate(free));
}
