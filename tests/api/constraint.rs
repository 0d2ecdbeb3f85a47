//! Output held to grammars: what comes is what they allow, whatever the sampling; what is wrong is a status.

use crate::common::hold::hold;
use crate::common::tiny::{ARCHS, Tiny};
use kigo::engine::{
    Constraint, Engine, EngineOptions, GenerateOptions, Grammar, LogSink, Model, Session, SessionOptions, StopReason,
    sample_batch,
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

/// A limit is told with what was found, and both are numbers.
#[test]
fn a_large_enum_is_refused_with_its_number() {
    let model = tiny("llama");
    for n in [150_000, 250_000] {
        let words: Vec<String> = (0..n).map(|i| format!("\"word number {}\"", i * 7919)).collect();
        let schema = format!("{{\"enum\":[{}]}}", words.join(","));
        let refused = Constraint::new(&model, Grammar::JsonSchema(&schema), false, &mut || true);
        let text = refused.err().expect("too large").to_string();
        println!("{n}: {text}");
        let (found, most) = text.rsplit_once("; at most ").expect("the limit");
        let found = found.trim_end_matches(" and more").rsplit([' ', ':']).next().unwrap_or_default();
        let numbers = [found, most].map(|n| n.parse::<u64>().expect("a number"));
        assert!(numbers[0] > numbers[1], "{text}");
    }
}

/// Places are those of the caller's own text.
#[test]
fn a_mistake_in_a_regular_expression_is_told_by_its_place() {
    let model = tiny("llama");
    let refusal = |text: &str| match Constraint::new(&model, Grammar::Regex(text), false, &mut || true) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{text:?} is taken"),
    };
    for (text, expected) in [
        ("a(b", "byte 1 of the regular expression, at \"(b\": unclosed group"),
        ("ab{3,1}c", "byte 2 of the regular expression, at \"{3,1}c\": invalid repetition count range"),
        ("x/[z-a]", "byte 3 of the regular expression, at \"z-a]\": invalid character class range"),
        ("a\nb\\", "byte 3 of the regular expression, at \"\\\\\": incomplete escape sequence"),
        ("\u{e4}\\p{Nope}", "byte 2 of the regular expression, at \"\\\\p{Nope}\": Unicode property not found"),
        ("ab(?=c)", "byte 2 of the regular expression, at \"(?=c)\": look-around"),
        ("a/\\bc", "byte 2 of the regular expression, at \"\\\\bc\": assertions are not supported"),
        ("^a$b", "byte 2 of the regular expression, at \"$b\": assertions are not supported"),
    ] {
        let text_of = refusal(text);
        assert!(text_of.contains(expected), "{text:?}: {text_of}");
        assert!(!text_of.contains("start:"), "{text:?}: {text_of}");
    }
}

#[test]
fn random_models_keep_to_a_regular_expression() {
    for arch in ARCHS {
        let model = tiny(arch);
        for seed in 0..20 {
            let session = session(&model, if seed == 0 { 0.0 } else { 1.5 }, seed);
            session.prefill(&[1, 2, 3]).unwrap();
            hold(&session, Grammar::Regex("[0-9]{4}-[0-9]{2}")).unwrap();
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
    hold(&first, Grammar::Regex("(ab|cd){3}")).unwrap();
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
    hold(&wrong, Grammar::Regex("x")).unwrap();
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
        hold(&session, grammar).unwrap();
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
    hold(&session, grammar).unwrap();
    session.truncate(1).unwrap();
    session.prefill(&[6]).unwrap();
    let error = session.sample().unwrap_err();
    assert_eq!(error.to_string(), "constraint: set at token 3, of which 2 are left: set it again");
    session.prefill(&[9]).unwrap();
    assert!(generate(&session, 3).0.starts_with('a'));
    let long = "x".repeat((64 << 10) + 1);
    let error = hold(&session, Grammar::Regex(&long)).unwrap_err();
    assert_eq!(error.to_string(), "constraint: bytes of a regular expression: 65537; at most 65536");
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
        match hold(&session, grammar) {
            Err(Error::Constraint { message }) => assert!(!message.is_empty()),
            other => panic!("{grammar:?}: {other:?}"),
        }
    }
    // One that is only large may be refused, now or later, and takes no more than its share.
    let outcome = hold(&session, Grammar::Regex(&huge)).and_then(|()| session.sample());
    assert!(matches!(outcome, Ok(_) | Err(Error::Constraint { .. })), "{outcome:?}");
    session.set_constraint(None).unwrap();
    session.sample().unwrap();
}

/// `n` definitions, each made of its number and the next.
fn chain(n: usize, link: impl Fn(usize) -> String) -> String {
    (0..n).map(link).collect()
}

/// A schema whose definitions `d0` to `d<n>` are each made of the name of the next; the last is `last`.
fn schema(n: usize, last: &str, link: impl Fn(String) -> String) -> String {
    let links = chain(n, |i| format!(r##""d{i}": {},"##, link(format!("#/$defs/d{}", i + 1))));
    format!(r##"{{"$ref": "#/$defs/d0", "$defs": {{{links} "d{n}": {last}}}}}"##)
}

/// Sets the grammar, chooses tokens by it, forks and drops on a thread with a small stack.
fn on_a_small_stack(model: &Model, grammar: Grammar<'_>) -> Result<String, String> {
    let run = || {
        let session = session(model, 0.5, 3);
        session.prefill(&[1]).unwrap();
        hold(&session, grammar).map_err(|e| e.to_string())?;
        let fork = session.fork().unwrap();
        let mut logits = vec![0.0; session.n_vocab()];
        for _ in 0..4 {
            let Ok(token) = session.sample() else { break };
            fork.logprobs(&mut logits).unwrap();
            session.prefill(&[token]).unwrap();
        }
        drop(session);
        let options = GenerateOptions { max_tokens: Some(6), ..GenerateOptions::default() };
        let mut text = String::new();
        let _ = fork.generate(&options, &mut |_, piece| {
            text.push_str(piece);
            true
        });
        Ok(text)
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, run).unwrap().join().unwrap()
    })
}

#[test]
fn deep_grammars_need_no_stack_of_the_caller() {
    let model = tiny("qwen2");
    let reference = |next| format!(r##"{{"$ref": "{next}"}}"##);
    let object = |next| format!(r##"{{"type": "object", "properties": {{"a": {{"$ref": "{next}"}}}}}}"##);
    // Each is copied into the one before.
    let narrowed = |next| format!(r##"{{"type": "array", "items": {{"type": "array", "$ref": "{next}"}}}}"##);
    let pattern = format!(r##"{{"pattern": "^{}a{}$"}}"##, "(".repeat(120), "){1,2}".repeat(120));
    let text = schema(10_000, r#"{"const": 7}"#, reference);
    assert_eq!(on_a_small_stack(&model, Grammar::JsonSchema(&text)).unwrap(), "7");
    for (text, begins) in [
        (schema(5000, r#"{"type": "null"}"#, object), "{"),
        (schema(200, r#"{"type": "array"}"#, narrowed), "["),
        (format!(r#"{{"allOf": [{pattern}, {pattern}], "type": "string"}}"#), "\"aa"),
    ] {
        let chosen = on_a_small_stack(&model, Grammar::JsonSchema(&text)).unwrap();
        assert!(chosen.starts_with(begins), "{chosen}");
    }
    for (n, link, last) in [
        (5000, "r{i}: [\"a\" (r{j} | \"b\")]\n", "r{i}: \"b\"\n"),
        (250, "r{i}: R{i}\nR{i}: (((((\"a\" | \"b\" R{j})))))\n", "R{i}: \"b\"\n"),
        (250, "r{i}: T{i}\nT{i}: /[a-z]*/ & ~R{j}\nR{i}: \"a\" | (\"b\" | \"c\" R{j})\n", "R{i}: \"b\"\n"),
        (250, "r{i}: R{i}\nR{i}: R{j}{2,3}\n", "R{i}: /[ab]*/ & /[bc]*/\n"),
        (250, "r{i}: R{i}\nR{i}: ~R{j}\n", "R{i}: /[ab]*/ & /[bc]*/\n"),
    ] {
        let fill = |text: &str, i: usize| text.replace("{i}", &i.to_string()).replace("{j}", &(i + 1).to_string());
        let links = chain(n, |i| fill(link, i));
        let text = format!("start: r0\n{links}{}", fill(last, n));
        on_a_small_stack(&model, Grammar::Lark(&text)).unwrap_or_else(|e| panic!("{link:?}: {e}"));
    }
    let rules = chain(5000, |i| format!("r{i}: \"a\" r{}\n", i + 1));
    let text = format!("start: r0\n{rules}r5000: \"b\"\n");
    assert_eq!(on_a_small_stack(&model, Grammar::Lark(&text)).unwrap(), "aaaaaa");
    let rules = chain(20_000, |_| "r:r\n".to_owned());
    let error = on_a_small_stack(&model, Grammar::Lark(&format!("start: r0\n{rules}r20000: \"b\"\n"))).unwrap_err();
    assert_eq!(error, "constraint: rules and brackets: 20002; at most 16384");
    // Schemas name each other as deep as their text is long.
    let links = schema(20_000, r#"{"const": 7}"#, |next| format!(r##"{{"$ref": "{next}"}}"##));
    assert_eq!(on_a_small_stack(&model, Grammar::JsonSchema(&links)).unwrap(), "7");
    let links = schema(8000, "true", |next| {
        format!(r##"{{"type": "object", "properties": {{"a": {{"$ref": "{next}"}}}}, "required": ["a"]}}"##)
    });
    assert!(on_a_small_stack(&model, Grammar::JsonSchema(&links)).unwrap().starts_with('{'));
    for n in [900, 1100, 100_000] {
        let condition = format!("{}bit_set(1){}", "not(".repeat(n), ")".repeat(n));
        let text = format!("start: r::1\nr::_: \"a\" %if {condition}\n  | \"b\" r::incr(_)\n");
        let outcome = on_a_small_stack(&model, Grammar::Lark(&text));
        assert_eq!(outcome.is_ok(), n == 900, "{n}: {outcome:?}");
    }
}

#[test]
fn small_grammars_that_take_much_are_refused() {
    let model = tiny("llama");
    let twice = |next| {
        let narrowed = format!(r##"{{"type": "object", "$ref": "{next}"}}"##);
        format!(r##"{{"type": "object", "properties": {{"a": {narrowed}, "b": {narrowed}}}}}"##)
    };
    let patterns = |n| {
        format!(r##"{{"allOf": [{} {{"type": "string"}}]}}"##, chain(n, |i| format!(r##"{{"pattern": "a{i}"}},"##)))
    };
    let names =
        |n| format!(r##"{{"patternProperties": {{{} "z": true}}}}"##, chain(n, |i| format!(r##""^a{i}x.*b": true,"##)));
    let counted = |n, least| {
        let fields = chain(n, |i| format!(r##""a{i}": true,"##));
        let fields = format!(r##""additionalProperties": false, "properties": {{{fields} "z": true}}"##);
        format!(r##"{{"minProperties": {least}, {fields}}}"##)
    };
    for (text, what) in [
        (patterns(40), "#/allOf/0: branches of what a text has to match at once: "),
        (names(1000), "#: \"patternProperties\": more than 64 patterns"),
        (counted(1000, 600), "#: 1001 \"properties\" of which 600 are counted: 600600; at most 20000"),
    ] {
        let error = on_a_small_stack(&model, Grammar::JsonSchema(&text)).unwrap_err();
        assert!(error.starts_with(&format!("constraint: {what}")), "{error}");
        // In another text too.
        let error = on_a_small_stack(&model, Grammar::Lark(&format!("start: %json {text}\n"))).unwrap_err();
        assert!(error.starts_with(&format!("constraint: {what}")), "{error}");
    }
    on_a_small_stack(&model, Grammar::JsonSchema(&schema(30, "true", twice))).unwrap();
    let product = format!("T0: {}\nT1: {}\nT2: {}\n", "/[ab]/ ".repeat(500), "T0 ".repeat(100), "T1 ".repeat(5000));
    let both = chain(40, |i| format!("& /.*a{i}/ "));
    let class = "\\w".repeat(100_000);
    for (text, what) in [
        (format!("start: T2\n{product}"), "bytes of T2, with all that it names"),
        (format!("start: %lark {{ start: T2\n{product} }}\n"), "bytes of T2, with all that it names"),
        (
            format!("start: T0\n{}T999: /a/\n", chain(999, |i| format!("T{i}: T{}{{2,3}}\n", i + 1))),
            "tokens inside of each other in T742",
        ),
        (format!("start: T\nT: /a/ {both}\n"), "branches of what T has to match at once"),
        (format!("start: /{class}/\n"), "classes of characters"),
    ] {
        let error = on_a_small_stack(&model, Grammar::Lark(&text)).unwrap_err();
        assert!(error.starts_with(&format!("constraint: {what}: ")), "{error}");
    }
    let error = on_a_small_stack(&model, Grammar::Regex(&class)).unwrap_err();
    assert_eq!(error, "constraint: bytes of a regular expression: 200000; at most 65536");
    // What is large only, or uses the same in a usual way, is not.
    let fine = |next| {
        format!(r##"{{"type": "object", "properties": {{"a": {{"$ref": "{next}"}}, "b": {{"$ref": "{next}"}}}}}}"##)
    };
    on_a_small_stack(&model, Grammar::JsonSchema(&schema(60, "true", fine))).unwrap();
    on_a_small_stack(&model, Grammar::JsonSchema(&patterns(3))).unwrap();
    on_a_small_stack(&model, Grammar::JsonSchema(&counted(20, 1))).unwrap();
    let tree = r##"{"allOf": [{"type": "object", "properties": {"name": {"type": "string"}}}],
        "properties": {"left": {"$ref": "#"}, "right": {"anyOf": [{"type": "null"}, {"$ref": "#/"}]}}}"##;
    on_a_small_stack(&model, Grammar::JsonSchema(tree)).unwrap();
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
        hold(&session, Grammar::JsonSchema(schema)).unwrap();
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
