//! Constraints as objects, and what bounds and stops them: shared by sessions and threads, cancelled while they compile and
//! while they choose, thrown away and made anew when they have taken much, with every message that says what to do.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::hold::hold;
use crate::common::hostile::SQL;
use crate::common::tiny::Tiny;
use kigo::engine::{
    Constraint, Engine, EngineOptions, GenerateOptions, Grammar, LogSink, Model, Session, SessionOptions, StopReason,
};
use kigo::error::{Error, Status};
use kigo::gguf::TensorType;
use kigo::sampler::SamplingParams;

fn load(tiny: &Tiny) -> Model {
    let engine = EngineOptions { device: "cpu", n_threads: 2, memory_cap: None, log: LogSink::silent() };
    Engine::new(engine).unwrap().load_memory(&tiny.bytes(), &mut |_, _| Ok(())).unwrap()
}

fn tiny(arch: &str) -> Model {
    load(&Tiny::new(arch, TensorType::Q8_0))
}

fn session(model: &Model, temperature: f32, seed: u64) -> Session {
    let sampling = SamplingParams { temperature, seed, ..SamplingParams::default() };
    Session::new(model, SessionOptions { sampling, ..SessionOptions::default() }).unwrap()
}

fn generate(session: &Session, most: usize) -> (String, StopReason) {
    let mut text = String::new();
    let options = GenerateOptions { max_tokens: Some(most), ..GenerateOptions::default() };
    let generated = session.generate(&options, &mut |_, piece| {
        text.push_str(piece);
        true
    });
    (text, generated.unwrap().reason)
}

#[test]
fn one_is_shared_by_sessions_and_threads() {
    let model = tiny("qwen2");
    let constraint = Constraint::compile(&model, Grammar::Regex("[ab]{3}(-[0-9]{2}){1,5}")).unwrap();
    let texts: Vec<String> = std::thread::scope(|scope| {
        let run = |seed: u64| {
            let (model, constraint) = (&model, &constraint);
            scope.spawn(move || {
                let session = session(model, 1.5, seed);
                session.prefill(&[1, 2]).unwrap();
                session.set_constraint(Some(constraint)).unwrap();
                generate(&session, 40).0
            })
        };
        let threads: Vec<_> = (0..6).map(|i| run(i / 2)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let kept = session(&model, 1.5, 2);
    kept.prefill(&[1, 2]).unwrap();
    kept.set_constraint(Some(&constraint)).unwrap();
    // The session keeps what it needs.
    drop(constraint);
    assert_eq!(generate(&kept, 40).0, texts[4]);
    for (i, text) in texts.iter().enumerate() {
        assert!(text.len() >= 6 && text.is_char_boundary(3) && text[..3].chars().all(|c| "ab".contains(c)), "{text}");
        assert_eq!(text, &texts[i / 2 * 2], "the same seed");
    }
    let other = tiny("qwen2");
    let error = session(&model, 0.0, 0)
        .set_constraint(Some(&Constraint::compile(&other, Grammar::Regex("a")).unwrap()))
        .unwrap_err();
    assert_eq!(error.to_string(), "constraint is another model's; expected one made for the session's model");
    assert_eq!(error.status(), Status::InvalidArgument);
}

#[test]
fn compiling_is_cancelled() {
    let model = tiny("llama");
    Constraint::compile(&model, Grammar::Regex("a")).unwrap();
    let large = (0..4000).map(|i| format!("\"word{i}\" | ")).collect::<String>();
    let large = format!("start: ({large} \"end\")*\n");
    for after in 0..4 {
        let mut asked = 0;
        let start = Instant::now();
        let outcome = Constraint::new(&model, Grammar::Lark(&large), false, &mut || {
            asked += 1;
            asked <= after
        });
        match outcome {
            Err(error) => assert_eq!(error.status(), Status::Cancelled, "{error}"),
            Ok(_) => assert!(asked <= after, "asked {asked} times"),
        }
        assert!(after > 0 || asked == 1);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    // It has left nothing behind that the next one minds.
    Constraint::compile(&model, Grammar::Lark(&large)).unwrap();
}

#[test]
fn choosing_is_cancelled_and_goes_on() {
    let model = tiny("qwen3");
    let grammar = Grammar::Lark("start: (\"ab\" | /[a-y]{1,300}z/ | /[0-9]{1,40}\\./)*\n");
    let constraint = Constraint::compile(&model, grammar).unwrap();
    let fresh = || {
        let session = session(&model, 1.5, 3);
        session.prefill(&[1, 2, 3]).unwrap();
        session.set_constraint(Some(&constraint)).unwrap();
        session
    };
    let whole = fresh();
    generate(&whole, 120);
    let expected = whole.with_tokens(|t| Ok(t.to_vec())).unwrap();
    let mut n_cancelled = 0;
    // On a busy machine the other thread may come too late for some rounds.
    for round in (0..12u64).cycle().take(600) {
        if round == 0 && n_cancelled > 0 {
            break;
        }
        let session = fresh();
        std::thread::scope(|scope| {
            let cancelling = scope.spawn(|| {
                for _ in 0..round {
                    std::thread::sleep(Duration::from_micros(700 * round));
                    session.cancel();
                }
            });
            while session.with_tokens(|t| Ok(t.len())).unwrap() < expected.len() {
                let held = session.with_tokens(|t| Ok(t.len())).unwrap();
                match generate(&session, expected.len() - held).1 {
                    StopReason::Cancelled => n_cancelled += 1,
                    _ => break,
                }
            }
            cancelling.join().unwrap();
        });
        let tokens = session.with_tokens(|t| Ok(t.to_vec())).unwrap();
        assert_eq!(tokens, expected, "round {round}");
    }
    assert!(n_cancelled > 0);
    // A cancel beforehand stops the next generation before it chooses anything.
    let session = fresh();
    session.cancel();
    assert_eq!(generate(&session, 5), (String::new(), StopReason::Cancelled));
    assert_ne!(generate(&session, 5).1, StopReason::Cancelled);
}

/// The parser's fuel is for one token: a long text takes no more of it than a short one, and when its tables are large it is
/// made anew and allows the same.
#[test]
fn long_texts_go_on_for_ever() {
    let model = tiny("qwen2");
    // Each byte makes states that were not there before.
    let regex = "((.*q[a-m]{30})|(.*[a-c]x.{25})|(.*y.{20}[n-z]))*[a-z ]*";
    for (temperature, grammar) in
        [(1.5, Grammar::Regex(regex)), (0.0, Grammar::Regex(regex)), (1.5, Grammar::Lark(SQL))]
    {
        let constraint = Constraint::compile(&model, grammar).unwrap();
        let held = session(&model, temperature, 5);
        held.prefill(&[1]).unwrap();
        held.set_constraint(Some(&constraint)).unwrap();
        let anew = session(&model, temperature, 5);
        anew.prefill(&[1]).unwrap();
        for i in 0..300 {
            let token = held.sample().unwrap_or_else(|e| panic!("token {i}: {e}"));
            if i % 40 == 39 {
                // From its beginning, by a parser that has seen nothing else.
                let tokens = held.with_tokens(|t| Ok(t.to_vec())).unwrap();
                anew.truncate(1).unwrap();
                anew.set_constraint(Some(&constraint)).unwrap();
                anew.prefill(&tokens[1..]).unwrap();
                assert_eq!(anew.sample().unwrap(), token, "token {i}");
            }
            if model.token_flags(token).unwrap().end {
                break;
            }
            held.prefill(&[token]).unwrap();
        }
    }
}

#[test]
fn messages_say_what_to_do() {
    let model = tiny("llama");
    let y = model.tokenize("y", false, false).unwrap()[0];
    let early = session(&model, 0.0, 0);
    hold(&early, Grammar::Regex("x+")).unwrap();
    early.prefill(&[y]).unwrap();
    assert_eq!(
        early.sample().unwrap_err().to_string(),
        format!(
            "constraint: the grammar, which holds from token 0 on, does not allow token {y} at 0: set it after what it is \
             not to hold, such as the prompt"
        )
    );
    let x = model.tokenize("x", false, false).unwrap()[0];
    let late = session(&model, 0.0, 0);
    late.prefill(&[1, 2]).unwrap();
    hold(&late, Grammar::Regex("x+")).unwrap();
    late.prefill(&[x, y]).unwrap();
    let error = late.sample().unwrap_err().to_string();
    assert_eq!(error, format!("constraint: the grammar, which holds from token 2 on, does not allow token {y} at 3"));
    // The parser is not the worse for it.
    late.truncate(3).unwrap();
    late.prefill(&[x]).unwrap();
    late.sample().unwrap();
    hold(&late, Grammar::Regex("x")).unwrap();
    late.prefill(&[x, x]).unwrap();
    let error = late.sample().unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("constraint: the grammar, which holds from token 4 on, ends before token {x} at 5")),
        "{error}"
    );
}

/// A grammar whose rows grow with each token: a mask lets a token through that leads to too many items.
#[test]
fn a_limit_at_a_token_is_named() {
    let model = tiny("llama");
    let held = session(&model, 0.0, 0);
    held.prefill(&[1]).unwrap();
    let ways: String = (2..14).map(|n| format!("{} | ", "s ".repeat(n))).collect();
    hold(&held, Grammar::Lark(&format!("start: s\ns: {ways} \"a\"\n"))).unwrap();
    let a = model.tokenize("a", false, false).unwrap()[0];
    let error = loop {
        match held.prefill(&[a]).and_then(|()| held.sample()) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let text = error.to_string();
    assert_eq!(error.status(), Status::Constraint, "{text}");
    assert!(!text.contains("does not allow"), "{text}");
    // Which of the limits comes first depends on the machine.
    let limits = ["max is 2000", "limit 50000", "more than 2000 ms at one token"];
    assert!(limits.iter().any(|limit| text.contains(limit)), "{text}");
    // Going back to where it was not too much yet goes on.
    held.truncate(4).unwrap();
    held.prefill(&[a]).unwrap();
    held.sample().unwrap();
}

#[test]
fn compact_json_has_no_white_space() {
    let model = tiny("qwen2");
    let schema = r#"{"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 999}, "minItems": 2, "maxItems": 4},
        "b": {"type": "boolean"}}, "required": ["a", "b"], "additionalProperties": false}"#;
    for (n, schema) in
        [schema, "true", r##"{"$ref": "#/$defs/x", "$defs": {"x": {"enum": [[1, 2]]}}}"##].iter().enumerate()
    {
        let constraint = Constraint::new(&model, Grammar::JsonSchema(schema), true, &mut || true).unwrap();
        for seed in 0..6 {
            let held = session(&model, 1.5, seed);
            held.prefill(&[1]).unwrap();
            held.set_constraint(Some(&constraint)).unwrap();
            let (text, reason) = generate(&held, 300);
            if n != 1 {
                let value: serde_json::Value =
                    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text} {reason:?}: {e}"));
                assert_eq!(value.to_string(), text);
            }
            assert!(!text.starts_with(char::is_whitespace), "{text:?}");
        }
    }
}

/// Words that the trie has no room for are never allowed, and nothing is printed over them.
#[test]
fn long_words_are_left_out_in_silence() {
    if std::env::var_os("KIGO_LONG_WORDS").is_some() {
        for n in [1023, 1024, 1025, 1026, 5000] {
            let mut tiny = Tiny::new("gemma3", TensorType::Q8_0);
            tiny.words = vec![(500, "a".repeat(n)), (501, "ab".repeat(n)), (1, "e".repeat(n))];
            let model = load(&tiny);
            let held = session(&model, 0.0, 0);
            held.prefill(&[2]).unwrap();
            hold(&held, Grammar::Regex("a*")).unwrap();
            held.sample().unwrap();
            held.prefill(&[500]).unwrap();
            let outcome = held.sample();
            assert_eq!(outcome.is_ok(), n <= 1024, "{n}: {outcome:?}");
        }
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "held::long_words_are_left_out_in_silence", "--nocapture"])
        .env("KIGO_LONG_WORDS", "1")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && stderr.is_empty(), "{stderr}{}", String::from_utf8_lossy(&child.stdout));
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"));
}

/// A trie has 22 bits for what is below a node.
#[test]
fn a_vocabulary_of_too_many_nodes_is_refused_with_the_number() {
    let mut tiny = Tiny::new("gemma3", TensorType::Q8_0);
    tiny.shape.n_vocab = 5000;
    let word = |i: usize| format!("{i:05}{}", "x".repeat(1019));
    tiny.words = (600..5000).map(|i| (i, word(i))).collect();
    let model = load(&tiny);
    let error = Constraint::compile(&model, Grammar::Regex("a")).map(|_| ()).unwrap_err();
    assert_eq!(error.status(), Status::Constraint);
    let text = error.to_string();
    assert!(
        text.starts_with("constraint: a trie of the vocabulary's words: 44") && text.ends_with("; at most 4194303"),
        "{text}"
    );
    assert!(matches!(Constraint::compile(&model, Grammar::Regex("a")), Err(Error::Constraint { .. })));
}
