//! Schemas against the package jsonschema, byte by byte; random schemas against their limits.

use std::sync::OnceLock;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::ApproximateTokEnv;
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;

use super::super::lark::embed;
use super::prepare;

fn factory() -> &'static ParserFactory {
    static MADE: OnceLock<ParserFactory> = OnceLock::new();
    MADE.get_or_init(|| {
        let mut factory = ParserFactory::new_simple(&ApproximateTokEnv::single_byte_env()).unwrap();
        factory.quiet();
        factory
    })
}

/// What allows the texts of a Lark text.
fn matcher(lark: String) -> Matcher {
    let matcher = Matcher::new(factory().create_parser(TopLevelGrammar::from_lark(lark)));
    assert!(matcher.get_error().is_none(), "{:?}", matcher.get_error());
    matcher
}

fn accepts(matcher: &Matcher, text: &str) -> bool {
    let mut matcher = matcher.deep_clone();
    let taken = text.bytes().all(|b| !matcher.is_stopped() && matcher.consume_token(u32::from(b)).is_ok());
    taken && (matcher.is_stopped() || matcher.is_accepting().unwrap())
}

/// Runs it with the stack that schemas have.
fn with_stack(run: fn()) {
    std::thread::Builder::new().stack_size(super::STACK).spawn(run).unwrap().join().unwrap();
}

#[test]
fn what_is_allowed_is_what_jsonschema_finds_valid() {
    with_stack(|| {
        let text = std::fs::read_to_string("tests/fixtures/schemas.json").unwrap();
        let fixture: Value = serde_json::from_str(&text).unwrap();
        let (mut n, mut refused, mut wrong) = (0, 0, Vec::new());
        for case in fixture["cases"].as_array().unwrap() {
            let schema = case["schema"].as_str().unwrap();
            let texts = |key: &str| case[key].as_array().unwrap().clone();
            let lark = match prepare(schema, true, false) {
                Ok(lark) => lark,
                Err(error) => {
                    assert!(error.starts_with('#'), "{schema}: {error}");
                    assert!(error != "#: no value is valid" || texts("valid").is_empty(), "{schema}");
                    refused += 1;
                    continue;
                }
            };
            let matcher = matcher(lark);
            for (valid, key) in [(true, "valid"), (false, "invalid")] {
                for same in texts(key) {
                    n += 1;
                    let allowed = same.as_array().unwrap().iter().any(|text| accepts(&matcher, text.as_str().unwrap()));
                    if allowed != valid {
                        wrong.push(format!("{schema} {same} {key}"));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{} of {n}:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
        // What is refused is counted, so that it does not become more unseen.
        assert!(n > 21_000 && refused <= 240, "{n} instances, {refused} schemas refused");
    });
}

/// A name that the schema lists comes once; another may come twice, and counts each time, as the header says.
#[test]
fn members_are_counted_as_they_are_written() {
    let open = r#"{"type":"object","properties":{"a":true,"b":true},"minProperties":2,"maxProperties":3}"#;
    let closed = open.replace("\"minProperties\"", "\"additionalProperties\":false,\"minProperties\"");
    let (open, closed) = [open, closed.as_str()].map(|text| matcher(prepare(text, true, false).unwrap())).into();
    for (text, by_open, by_closed) in [
        (r#"{"a":1,"b":2}"#, true, true),
        (r#"{"a":1,"a":2}"#, false, false),
        (r#"{"a":1}"#, false, false),
        (r#"{"a":1,"c":2}"#, true, false),
        (r#"{"c":1}"#, false, false),
        (r#"{"c":1,"c":2}"#, true, false),
        (r#"{"c":1,"c":2,"c":3,"c":4}"#, false, false),
        (r#"{"a":1,"b":2,"c":3,"d":4}"#, false, false),
    ] {
        assert_eq!((accepts(&open, text), accepts(&closed, text)), (by_open, by_closed), "{text}");
    }
}

#[test]
fn white_space_is_bounded_or_not_there() {
    let schema = r#"{"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}}"#;
    let loose = matcher(prepare(schema, false, false).unwrap());
    let compact = matcher(prepare(schema, true, false).unwrap());
    for (text, by_loose, by_compact) in [
        (r#"{"a":[1,2]}"#, true, true),
        (r#"{"a": [1, 2]}"#, true, false),
        ("{\n  \"a\": [\n    1,\n    2\n  ]\n}", true, false),
        ("{\r\n\t\"a\": []\r\n}", true, false),
        (r#"{ "a" : [ 1 , 2 ] }"#, true, false),
        // It has ended.
        (r#"{"a":[1,2]} "#, false, false),
        (r#"{"a":  [1]}"#, false, false),
        ("{\n\n\"a\":[1]}", false, false),
        (" {}", false, false),
        ("{}\n\n", false, false),
        (r#"{"a b":" \n  "}"#, true, true),
    ] {
        assert_eq!((accepts(&loose, text), accepts(&compact, text)), (by_loose, by_compact), "{text:?}");
    }
    // An indentation has an end.
    for (n, allowed) in [(80, true), (81, false)] {
        assert_eq!(accepts(&loose, &format!("{{\n{}}}", " ".repeat(n))), allowed, "{n}");
    }
}

#[test]
fn a_schema_in_a_lark_text_is_the_same() {
    let schema = r#"{"anyOf": [{"const": -9223372036854775808}, {"type": "array", "items": {"multipleOf": 7, "type": "integer"}}]}"#;
    for compact in [false, true] {
        let text = format!(
            "// %json {{\nstart: \"%json\" value \"!\" | /%json a/ other\nvalue: %json {schema}\nother: %json{{}}\n"
        );
        let matcher = matcher(embed(&text, compact).unwrap());
        for (text, allowed) in [
            ("%json-9223372036854775808!", true),
            ("%json-9223372036854775807!", false),
            ("%json[14,-21]!", true),
            ("%json[14, 0]!", !compact),
            ("%json[14 ,0]!", !compact),
            ("%json[14,  0]!", false),
            ("%json[15]!", false),
            ("%json a{\"x\":[null]}", true),
        ] {
            assert_eq!(accepts(&matcher, text), allowed, "{text} {compact}");
        }
    }
    let error = embed("start: %json {\"properties\": {\"a\": {\"contains\": {}}}}\n", false).unwrap_err();
    assert_eq!(error, "#/properties/a: \"contains\" is not supported");
}

// What random schemas are made of, right and wrong.
const NAMES: [&str; 5] = ["\"a\"", "\"b\"", "\"a/b\"", "\"kind\"", "\"ä\""];
const NUMBERS: [&str; 12] = [
    "0",
    "1",
    "-1",
    "7",
    "9007199254740993",
    "-9223372036854775808",
    "18446744073709551615",
    "1e308",
    "0.1",
    "1e-9",
    "999983",
    "1e999",
];
const PATTERNS: [&str; 8] =
    ["\"^a\"", "\"b$\"", "\"[^a]\"", "\"(\"", "\"^(a|b)*c{2,90}\"", "\"\\\\d+\"", "\"a*a*a*a*b\"", "\"\\\\bx\""];

/// Numbers of a seed, each from 0 to below `n`.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }

    fn list(&mut self, most: usize, mut item: impl FnMut(&mut Random) -> String) -> String {
        let n = self.below(most + 1);
        (0..n).map(|_| item(self)).collect::<Vec<_>>().join(",")
    }

    fn schema(&mut self, depth: usize) -> String {
        if depth == 0 || self.below(12) == 0 {
            return self
                .of(&[
                    "true",
                    "false",
                    "{}",
                    "{\"type\":\"integer\"}",
                    "{\"type\":\"string\"}",
                    "{\"const\":[1]}",
                    "{\"$ref\":\"#/$defs/d\"}",
                    "3",
                ])
                .to_owned();
        }
        let keywords = 1 + self.below(4);
        let parts = (0..keywords).map(|_| match self.below(20) {
            0 | 1 => format!(
                "\"type\":\"{}\"",
                self.of(&["null", "boolean", "integer", "number", "string", "array", "object"])
            ),
            2 => format!("\"const\":{}", self.of(&NUMBERS)),
            3 => format!(
                "\"enum\":[{}]",
                self.list(4, |r| if r.below(2) == 0 { r.of(&NUMBERS).to_owned() } else { r.of(&NAMES).to_owned() })
            ),
            4 | 5 => {
                format!("\"properties\":{{{}}}", self.list(4, |r| format!("{}:{}", r.of(&NAMES), r.schema(depth - 1))))
            }
            6 => format!("\"required\":[{}]", self.list(3, |r| r.of(&NAMES).to_owned())),
            7 => format!(
                "\"patternProperties\":{{{}}}",
                self.list(3, |r| format!("{}:{}", r.of(&PATTERNS), r.schema(depth - 1)))
            ),
            8 => format!(
                "\"{}\":{}",
                self.of(&["additionalProperties", "items", "propertyNames", "not", "contains"]),
                self.schema(depth - 1)
            ),
            9 => format!("\"prefixItems\":[{}]", self.list(3, |r| r.schema(depth - 1))),
            10 => format!(
                "\"{}\":{}",
                self.of(&["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]),
                self.of(&NUMBERS)
            ),
            11 => format!("\"multipleOf\":{}", self.of(&NUMBERS)),
            12 => format!(
                "\"{}\":{}",
                self.of(&["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"]),
                self.of(&["0", "1", "3", "1000", "1000000000", "1e30", "-1"])
            ),
            13 => format!("\"pattern\":{}", self.of(&PATTERNS)),
            14 => format!("\"format\":\"{}\"", self.of(&["date-time", "uri", "ipv6", "email", "hostname", "mine"])),
            15..=17 => {
                format!("\"{}\":[{}]", self.of(&["anyOf", "oneOf", "allOf"]), self.list(4, |r| r.schema(depth - 1)))
            }
            18 => format!("\"if\":{},\"then\":{}", self.schema(depth - 1), self.schema(depth - 1)),
            _ => format!("\"dependentSchemas\":{{{}:{}}}", self.of(&NAMES), self.schema(depth - 1)),
        });
        let parts: Vec<String> = parts.collect();
        format!("{{{}}}", parts.join(","))
    }
}

#[test]
fn random_schemas_are_rules_or_refused_with_a_path() {
    with_stack(|| {
        let n: u64 = std::env::var("KIGO_SCHEMAS").ok().and_then(|n| n.parse().ok()).unwrap_or(1500);
        let mut compiled = 0;
        for seed in 1..=n {
            let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let depth = 1 + random.below(5);
            let (schema, named) = (random.schema(depth), random.schema(2));
            let text = format!("{{\"allOf\":[{schema}],\"$defs\":{{\"d\":{named}}}}}");
            let start = std::time::Instant::now();
            match prepare(&text, seed % 2 == 0, false) {
                Ok(lark) => {
                    drop(matcher(lark));
                    compiled += 1;
                }
                Err(error) => assert!(error.starts_with('#'), "{text}: {error}"),
            }
            assert!(start.elapsed().as_secs() < 10, "{text}: {:?}", start.elapsed());
        }
        assert!(compiled * 4 > n, "{compiled} of {n}");
    });
}

#[test]
fn texts_that_are_no_json_are_refused_with_the_place() {
    for (text, error) in [
        ("", "#: byte 0 (line 1) is the end of the text where a value was expected"),
        ("{\n\"a\":}", "#: byte 6 (line 2) is '}' where a value was expected"),
        ("{\"a\" 1}", "#: byte 5 (line 1) is '1' where \":\" was expected"),
        ("[1,]", "#: byte 3 (line 1) is ']' where a value was expected"),
        ("{\"a\":1", "#: byte 6 (line 1) is the end of the text where \",\" or \"}\" was expected"),
        ("\"\\ud800\"", "#: byte 7 (line 1) is '\"' where an escape that is a character was expected"),
        ("01", "#: '1' where the end of the schema was expected"),
        ("{} x", "#: 'x' where the end of the schema was expected"),
        ("1.", "#: byte 2 (line 1) is the end of the text where a digit was expected"),
    ] {
        assert_eq!(prepare(text, false, false).unwrap_err(), error, "{text}");
    }
    let deep = |n| format!("{}1{}", "[".repeat(n), "]".repeat(n));
    let error = prepare(&deep(1001), false, false).unwrap_err();
    assert_eq!(error, "#: arrays and objects of a schema's text inside of each other: more than 1000");
    assert_eq!(
        prepare(&deep(1000), false, false).unwrap_err(),
        "#: a schema is an object, true or false, not an array of 1 values"
    );
}
