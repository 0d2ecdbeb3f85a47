//! Output held to JSON schemas: exactly what they say, or a refusal with the path; within two seconds and 256 MiB.
//!
//! `cargo test --release --test api constraint_schema:: -- --nocapture limits` prints what each schema near a limit takes.

use crate::common::apart::apart;
use crate::common::hold::hold;
use crate::common::tiny::Tiny;
use kigo::alloc::watch;
use kigo::engine::{By, Constraint, Engine, EngineOptions, Grammar, LogSink, Model, Session, SessionOptions};
use kigo::error::Error;
use kigo::gguf::TensorType;
use kigo::sampler::SamplingParams;
use serde_json::Value;

fn model() -> Model {
    let options = EngineOptions { device: "cpu", n_threads: 1, memory_cap: None, log: LogSink::silent() };
    let engine = Engine::new(options).unwrap();
    engine.load_memory(&Tiny::new("qwen2", TensorType::Q8_0).bytes(), &mut |_, _| Ok(())).unwrap()
}

fn compile(model: &Model, schema: &str, compact: bool) -> Result<Constraint, String> {
    match Constraint::new(model, Grammar::JsonSchema(schema), compact, &mut || true) {
        Ok(constraint) => Ok(constraint),
        Err(Error::Constraint { message }) => Err(message),
        Err(error) => panic!("{schema}: {error}"),
    }
}

/// Whether a session may write exactly this text: every token of it, and then an end.
fn accepts(model: &Model, constraint: &Constraint, text: &str) -> bool {
    let sampling = SamplingParams { temperature: 1.0, ..SamplingParams::default() };
    let session = Session::new(model, SessionOptions { sampling, ..SessionOptions::default() }).unwrap();
    session.prefill(&[1]).unwrap();
    session.set_constraint(Some(constraint)).unwrap();
    session.prefill(&model.tokenize(text, false, false).unwrap()).unwrap();
    let end = (0..session.n_vocab() as u32).find(|t| model.token_flags(*t).unwrap().end).unwrap();
    match session.token_logprobs(&[end], 0, By::After) {
        Ok(found) => found[0].after > f32::NEG_INFINITY,
        Err(Error::Constraint { .. }) => false,
        Err(error) => panic!("{text}: {error}"),
    }
}

#[test]
fn numbers_are_those_of_the_text() {
    let model = model();
    for (schema, allowed, others) in [
        (r#"{"const":-9223372036854775808}"#, "-9223372036854775808", ["-9223372036854775807", "9223372036854775808"]),
        (r#"{"const":-9223372036854775809}"#, "-9223372036854775809", ["-9223372036854775808", "-9223372036854775810"]),
        (r#"{"enum":[9007199254740993]}"#, "9007199254740993", ["9007199254740992", "9007199254740994"]),
        (r#"{"const":18446744073709551615}"#, "18446744073709551615", ["18446744073709552000", "18446744073709551616"]),
        (
            r#"{"type":"integer","minimum":0,"maximum":18446744073709551615}"#,
            "18446744073709551615",
            ["18446744073709551616", "-1"],
        ),
        (
            r#"{"type":"integer","minimum":-9223372036854775808}"#,
            "-9223372036854775808",
            ["-9223372036854775809", "-99999999999999999999"],
        ),
        (r#"{"type":"integer","maximum":-9223372036854775808}"#, "-9223372036854775809", ["-9223372036854775807", "0"]),
        (
            r#"{"type":"integer","exclusiveMinimum":9007199254740993}"#,
            "9007199254740994",
            ["9007199254740993", "9007199254740992"],
        ),
        (
            r#"{"type":"number","minimum":-1.7976931348623157e308,"maximum":1.7976931348623157e308}"#,
            "-3.5",
            ["1e5", "x"],
        ),
        (
            r#"{"format":"int64","type":"integer","maximum":9223372036854775807}"#,
            "9223372036854775807",
            ["9223372036854775808", "1.5"],
        ),
    ] {
        let constraint = compile(&model, schema, true).unwrap();
        assert!(accepts(&model, &constraint, allowed), "{schema}");
        for other in others {
            assert!(!accepts(&model, &constraint, other), "{schema} {other}");
        }
        // In a Lark text, and in a save that is restored.
        let text = format!("start: \"=\" %json {schema}\n");
        let constraint = Constraint::compile(&model, Grammar::Lark(&text)).unwrap();
        assert!(
            accepts(&model, &constraint, &format!("={allowed}"))
                && !accepts(&model, &constraint, &format!("={}", others[0]))
        );
        let session = Session::new(&model, SessionOptions::default()).unwrap();
        session.prefill(&[1]).unwrap();
        hold(&session, Grammar::JsonSchema(schema)).unwrap();
        let mut blob = vec![0; session.saved_bytes().unwrap()];
        session.save(&mut blob).unwrap();
        let restored = Session::restore(&model, &blob).unwrap();
        assert_eq!(restored.sample().unwrap(), session.sample().unwrap());
    }
}

#[test]
fn what_is_not_exact_is_refused_with_its_path() {
    let model = model();
    for (schema, message) in [
        (r#"{"properties":{"x":{"contains":{"type":"null"}}}}"#, "#/properties/x: \"contains\" is not supported"),
        (r#"{"items":{"uniqueItems":true}}"#, "#/items: \"uniqueItems\" is not supported"),
        (
            r#"{"properties":{"a/b":{"properties":{"~":{"type":"nonsense"}}}}}"#,
            "#/properties/a~1b/properties/~0: \"type\" is \"nonsense\" where the name of a type is expected",
        ),
        (r#"{"type":"array","not":{"items":{"type":"null"}}}"#, "#/not: \"items\" is not supported"),
        (
            r#"{"type":"number","multipleOf":2147483648}"#,
            "#: \"multipleOf\" of 2147483648 is counted in 2147483648 steps; at most 20000",
        ),
        (
            r#"{"type":"integer","multipleOf":999983}"#,
            "#: \"multipleOf\" of 999983 is counted in 999983 steps; at most 20000",
        ),
        (r#"{"type":"integer","minimum":1e400}"#, "#: \"minimum\": 1e400 has more than 400 digits without an exponent"),
        (
            r#"{"properties":{"a":{"minLength":3000000000}},"required":["a"]}"#,
            "#: \"minLength\" is 3000000000; at most 2000000000",
        ),
        (r##"{"items":{"$ref":"#/nowhere"}}"##, "#/items: \"$ref\": \"#/nowhere\" is not in this text"),
        (
            r##"{"anyOf":[{"$ref":"#"},{"type":"null"}]}"##,
            "#: the schema stands for itself by \"$ref\", so that nothing tells its values",
        ),
        (
            r#"{"x-guidance":{"whitespace_flexible":false}}"#,
            "#: \"x-guidance\" is not supported; output without white space has a flag",
        ),
        (
            r#"{"allOf":[{"type":"string","pattern":"a(?=b)"}]}"#,
            "#/allOf/0: \"pattern\": look-around, including look-ahead and look-behind, is not supported",
        ),
        (r#"{"type":"string","minLength":2,"maxLength":1}"#, "#: no value is valid"),
        (r#"{"type":"object","required":["a"],"properties":{"a":false}}"#, "#: no value is valid"),
        ("{", "#: byte 1 (line 1) is the end of the text where a name was expected"),
    ] {
        assert_eq!(compile(&model, schema, false).err().as_deref(), Some(message), "{schema}");
    }
}

#[test]
fn two_hundred_arrays_need_no_stack_of_the_caller() {
    let run = || {
        let model = model();
        for n in [200, 999] {
            let schema = format!("{}true{}", "{\"type\":\"array\",\"items\":".repeat(n), "}".repeat(n));
            let constraint = compile(&model, &schema, false).unwrap();
            let text = format!("{}{}", "[".repeat(n + 1), "]".repeat(n + 1));
            assert!(n > 200 || accepts(&model, &constraint, &text));
        }
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap().join().unwrap();
}

/// Some of the fixture's cases token by token; byte by byte all of them are compared in `src/engine/grammar/schema`.
#[test]
fn sessions_write_what_jsonschema_finds_valid() {
    let model = model();
    let text = std::fs::read_to_string("tests/fixtures/schemas.json").unwrap();
    let fixture: Value = serde_json::from_str(&text).unwrap();
    let mut n = 0;
    for case in fixture["cases"].as_array().unwrap().iter().step_by(23) {
        let schema = case["schema"].as_str().unwrap();
        let Ok(constraint) = compile(&model, schema, true) else { continue };
        for (key, valid) in [("valid", true), ("invalid", false)] {
            for same in case[key].as_array().unwrap().iter().take(4) {
                let mut texts = same.as_array().unwrap().iter().map(|text| text.as_str().unwrap());
                // No token stands for nothing.
                assert_eq!(texts.any(|text| accepts(&model, &constraint, text)), valid, "{schema} {same}");
                n += 1;
            }
        }
    }
    assert!(n > 200, "{n}");
}

fn list(n: usize, item: impl Fn(usize) -> String) -> String {
    (0..n).map(item).collect::<Vec<_>>().join(",")
}

#[test]
fn limits_hold_what_a_schema_takes() {
    if apart(|| ()) {
        return;
    }
    let model = model();
    compile(&model, "{}", false).unwrap();
    let digits =
        |n: usize, seed: usize| (0..n).map(|i| char::from(b'1' + ((i * i + seed) % 9) as u8)).collect::<String>();
    let refer = |n: usize, link: &str| {
        let links = list(n, |i| format!(r#""d{i}":{}"#, link.replace("NEXT", &format!("#/$defs/d{}", i + 1))));
        format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{links},"d{n}":true}}}}"##)
    };
    let fields = |n: usize| list(n, |i| format!(r#""name{i}":{{"type":"string"}}"#));
    let names = |n: usize| list(n, |i| format!(r#""name{i}""#));
    for (what, schema) in [
        ("multipleOf 19997", r#"{"type":"integer","multipleOf":19997}"#.to_owned()),
        ("multipleOf 1.9997", r#"{"type":"number","multipleOf":1.9997}"#.to_owned()),
        (
            "multipleOf, 2000 listed",
            r#"{"type":"integer","multipleOf":7,"minimum":9007199254740993,"maximum":9007199254754992}"#.to_owned(),
        ),
        (
            "bounds of 400 digits",
            format!(r#"{{"type":"integer","minimum":-{},"maximum":{}}}"#, digits(400, 1), digits(399, 5)),
        ),
        ("minLength 2000000000", r#"{"type":"string","minLength":2000000000}"#.to_owned()),
        ("maxLength 2000000000", r#"{"type":"string","maxLength":2000000000}"#.to_owned()),
        ("minItems 2000000000", r#"{"type":"array","minItems":2000000000,"maxItems":2000000000}"#.to_owned()),
        (
            "maxProperties 2000000000",
            r#"{"type":"object","minProperties":1000000000,"maxProperties":2000000000}"#.to_owned(),
        ),
        (
            "8000 required properties",
            format!(r#"{{"type":"object","properties":{{{}}},"required":[{}]}}"#, fields(8000), names(8000)),
        ),
        ("4000 properties", format!(r#"{{"type":"object","properties":{{{}}}}}"#, fields(4000))),
        ("140 of 140 counted", format!(r#"{{"type":"object","properties":{{{}}},"minProperties":140}}"#, fields(140))),
        (
            "50000 words of an enum",
            format!(r#"{{"enum":[{}]}}"#, list(50_000, |i| format!("\"word number {}\"", i * 7919))),
        ),
        ("10000 references", refer(10_000, r#"{"$ref":"NEXT"}"#)),
        (
            "8000 objects in each other",
            refer(8000, r#"{"type":"object","properties":{"a":{"$ref":"NEXT"}},"required":["a"]}"#),
        ),
        ("999 arrays in each other", format!("{}true{}", "{\"items\":".repeat(998), "}".repeat(998))),
        (
            "60 patterns for names",
            format!(r#"{{"patternProperties":{{{}}}}}"#, list(60, |i| format!(r#""^a{i}x.*b":true"#))),
        ),
        (
            "oneOf 100 discriminated",
            format!(
                r#"{{"oneOf":[{}]}}"#,
                list(100, |i| format!(
                    r#"{{"type":"object","properties":{{"kind":{{"const":"k{i}"}},{}}},"required":["kind"]}}"#,
                    fields(8)
                ))
            ),
        ),
        (
            "oneOf 30 open",
            format!(
                r#"{{"type":"object","oneOf":[{}]}}"#,
                list(30, |i| format!(r#"{{"properties":{{"p{i}":{{"type":"integer"}}}},"required":["p{i}"]}}"#))
            ),
        ),
        (
            "10 dependentRequired",
            format!(r#"{{"type":"object","dependentRequired":{{{}}}}}"#, list(10, |i| format!(r#""a{i}":["b{i}"]"#))),
        ),
        (
            "2^13 ways",
            format!(
                r#"{{"type":"object","allOf":[{}]}}"#,
                list(13, |i| format!(r#"{{"anyOf":[{{"required":["a{i}"]}},{{"required":["b{i}"]}}]}}"#))
            ),
        ),
        (
            "9 searches at once",
            format!(r#"{{"type":"string","allOf":[{}]}}"#, list(9, |i| format!(r#"{{"pattern":"a{i}"}}"#))),
        ),
        ("a* 9000 times", format!(r#"{{"type":"string","pattern":"^{}$"}}"#, "a*".repeat(9000))),
        ("counted 1000 in 1000", r#"{"type":"string","pattern":"^(a{1,1000}){1,1000}$"}"#.to_owned()),
        (
            "words of letters",
            format!(r#"{{"type":"string","pattern":"^{}$"}}"#, "\\\\p{L}[\\\\p{L}\\\\p{N}_]*".repeat(8)),
        ),
        ("a and 25 letters back", r#"{"type":"string","pattern":"^(a|b)*a(a|b){25}$"}"#.to_owned()),
    ] {
        let start = std::time::Instant::now();
        let (outcome, peak) = watch::peak(|| compile(&model, &schema, false));
        let (seconds, mib) = (start.elapsed().as_secs_f64(), peak >> 20);
        let told = match &outcome {
            Ok(_) => "compiled".to_owned(),
            Err(error) => {
                assert!(error.starts_with('#'), "{what}: {error}");
                error.chars().take(120).collect()
            }
        };
        println!("{what}: {seconds:.2} s, {mib} MiB: {told}");
        assert!(mib < 256, "{what}: {mib} MiB");
        // Other tests run beside it, and a test is no release.
        assert!(seconds < 30.0, "{what}: {seconds} s");
    }
}

/// Each is small beside the limits and took many seconds once: a look at every value for every reference, a look back at every
/// member for a name that comes again.
#[test]
fn references_and_names_that_come_again_take_no_longer() {
    let model = model();
    let filler = |n: usize| vec!["{}"; n].join(",");
    let anchors = format!(
        r##"{{"type":"array","items":{{"anyOf":[{}]}},"$defs":{{"a":[{}],"z":{{"$anchor":"zz","type":"integer"}}}}}}"##,
        vec![r##"{"$ref":"#zz"}"##; 2000].join(","),
        filler(150_000)
    );
    let names: Vec<String> =
        (0..100_000).map(|i| format!(r#""a{i}":1"#)).chain(vec![r#""a0":1"#.into(); 99_000]).collect();
    let again = format!(r#"{{"default":{{{}}},"type":"integer"}}"#, names[..199_000 - 2].join(","));
    for (what, schema) in [("anchors", anchors), ("names", again)] {
        let start = std::time::Instant::now();
        let outcome = compile(&model, &schema, true);
        let seconds = start.elapsed().as_secs_f64();
        println!("{what}: {seconds:.2} s, {:?}", outcome.as_ref().map(drop));
        assert!(outcome.is_ok(), "{what}");
        // Other tests run beside it; it was 6 s and more in a release build.
        assert!(seconds < 5.0, "{what}: {seconds} s");
    }
}
