//! Chat templates of random expressions and blocks, over all operators, filters, tests, functions and methods with
//! values at the edges: each is rendered or refused, and none makes the template engine panic, whose messages would
//! stand in the host's standard error.
//!
//! `KIGO_CASES=200000 cargo test --release --test api chat_fuzz::` runs more of them; `KIGO_SEED` others.

use crate::fixtures;
use kigo::error::{Error, Status};
use kigo::tokenizer::{ChatJson, ChatTemplate};

/// Splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

const VALUES: [&str; 65] = [
    "0",
    "1",
    "-1",
    "2",
    "7",
    "-3",
    "100001",
    "2147483648",
    "4294967295",
    "9007199254740993",
    "9223372036854775807",
    "(-9223372036854775807 - 1)",
    "18446744073709551615",
    "170141183460469231731687303715884105727",
    "(-170141183460469231731687303715884105727 - 1)",
    "340282366920938463463374607431768211455",
    "0.0",
    "-0.0",
    "1.5",
    "1e308",
    "5e-324",
    "(1e308 * 10)",
    "(1e308 * 10 - 1e308 * 10)",
    "18446744073709551616.0",
    "''",
    "'a'",
    "'B'",
    "'\u{e9}\u{df}'",
    "'\u{65e5}\u{672c}'",
    "' a  b\\n'",
    "'a,b'",
    "'a.b'",
    "'0'",
    "'-5'",
    "'1e400'",
    "'nan'",
    "'%s %d %'",
    "'{} {:>9}'",
    "'{0:+08.3f}{1!r}{a}{{}}{:,}{:<3}{:%}{:x}{'",
    "'\\u0000\\x1f'",
    "('x' * 999)",
    "'\u{f0000}'",
    "true",
    "false",
    "none",
    "undefined_name",
    "[]",
    "[1]",
    "[3, 'b', none, 1.5, [2], {}]",
    "[[1, 2], [0, 'a']]",
    "['b', 'A', 'c', 'B']",
    "[2, 9007199254740993, 1.5, 18446744073709551615, 1e308 * 10 - 1e308 * 10]",
    "{}",
    "{'a': 1}",
    "{1: 2, 'b': [3], none: 4, true: 5, 1.5: 6}",
    "messages",
    "messages[0]",
    "messages[-1].content",
    "tools",
    "tools[0].function",
    "range(3)",
    "(range(30) | list)",
    "namespace(a=1)",
    "dict(a=[1], b='x')",
    "bos_token",
];

const OPERATORS: [&str; 18] =
    ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"];

const FILTERS: [&str; 46] = [
    "safe",
    "escape",
    "e",
    "lower",
    "upper",
    "title",
    "capitalize",
    "length",
    "count",
    "dictsort",
    "items",
    "reverse",
    "trim",
    "split",
    "lines",
    "default",
    "d",
    "abs",
    "int",
    "float",
    "attr",
    "first",
    "last",
    "min",
    "max",
    "sort",
    "list",
    "string",
    "bool",
    "sum",
    "select",
    "reject",
    "selectattr",
    "rejectattr",
    "map",
    "groupby",
    "unique",
    "chain",
    "zip",
    "join",
    "replace",
    "tojson",
    "indent",
    "round",
    "batch",
    "slice",
];

const TESTS: [&str; 40] = [
    "undefined",
    "defined",
    "none",
    "safe",
    "escaped",
    "boolean",
    "odd",
    "even",
    "divisibleby",
    "number",
    "integer",
    "int",
    "float",
    "string",
    "sequence",
    "iterable",
    "mapping",
    "startingwith",
    "endingwith",
    "lower",
    "upper",
    "sameas",
    "eq",
    "equalto",
    "ne",
    "lt",
    "lessthan",
    "le",
    "gt",
    "greaterthan",
    "ge",
    "in",
    "true",
    "false",
    "filter",
    "test",
    "callable",
    "==",
    "<",
    ">=",
];

const METHODS: [&str; 40] = [
    "upper",
    "lower",
    "islower",
    "isupper",
    "isspace",
    "isdigit",
    "isnumeric",
    "isalnum",
    "isalpha",
    "isascii",
    "strip",
    "lstrip",
    "rstrip",
    "replace",
    "title",
    "split",
    "splitlines",
    "capitalize",
    "count",
    "find",
    "format",
    "rfind",
    "startswith",
    "endswith",
    "join",
    "keys",
    "values",
    "items",
    "get",
    "cycle",
    "changed",
    "append",
    "zfill",
    "rsplit",
    "removeprefix",
    "index",
    "pop",
    "update",
    "center",
    "encode",
];

const KEYWORDS: [&str; 8] = [
    "attribute='a'",
    "attribute='a.0,b'",
    "reverse=true",
    "by='value'",
    "case_sensitive=true",
    "default=1",
    "indent=2",
    "a=1",
];

const FUNCTIONS: [&str; 10] =
    ["range", "dict", "namespace", "strftime_now", "raise_exception", "f", "g", "loop", "caller", "super"];

/// One expression.
fn expression(r: &mut Random, depth: usize) -> String {
    if depth == 0 {
        return r.of(&VALUES).to_owned();
    }
    let a = expression(r, depth - 1);
    match r.below(14) {
        0..4 => {
            let b = expression(r, depth - 1);
            format!("({a} {} {b})", r.of(&OPERATORS))
        }
        4..7 => format!("({a} | {}{})", r.of(&FILTERS), arguments(r, depth - 1)),
        7 => {
            format!("({a} is {}{}{})", if r.below(4) == 0 { "not " } else { "" }, r.of(&TESTS), arguments(r, depth - 1))
        }
        8 | 9 => format!("{a}.{}{}", r.of(&METHODS), arguments(r, depth - 1)),
        10 => {
            let mut part = || if r.below(2) == 0 { String::new() } else { expression(r, depth - 1) };
            let (start, stop, step) = (part(), part(), part());
            format!("{a}[{start}:{stop}:{step}]")
        }
        11 => format!("{a}[{}]", expression(r, depth - 1)),
        12 => format!("{}{}", r.of(&FUNCTIONS), arguments(r, depth - 1)),
        _ => match r.below(5) {
            0 => format!("(not {a})"),
            1 => format!("(-{a})"),
            2 => format!("({a} if {} else {a})", expression(r, depth - 1)),
            3 => format!("[{a}, {a}]"),
            _ => format!("{{{a}: {a}}}"),
        },
    }
}

fn arguments(r: &mut Random, depth: usize) -> String {
    let names = ["'upper'", "'in'", "'eq'", "'divisibleby'", "'sort'", "'length'", "'a'", "'role'", "'content'"];
    let mut all: Vec<String> = (0..r.below(4))
        .map(|_| if r.below(3) == 0 { r.of(&names).to_owned() } else { expression(r, depth.min(1)) })
        .collect();
    if r.below(4) == 0 {
        all.push(r.of(&KEYWORDS).to_owned());
    }
    if all.is_empty() && r.below(3) > 0 { String::new() } else { format!("({})", all.join(", ")) }
}

/// Statements, which may be in one another.
fn block(r: &mut Random, depth: usize) -> String {
    let inside = 1 + r.below(2);
    let e = expression(r, inside);
    if depth == 0 {
        return format!("{{{{ {e} }}}}");
    }
    let inner = |r: &mut Random| (0..1 + r.below(2)).map(|_| block(r, depth - 1)).collect::<String>();
    let a = inner(r);
    match r.below(16) {
        0 | 1 => format!("{{% for i in {e} %}}{a}{{% endfor %}}"),
        2 => format!("{{% for i in {e} recursive %}}{a}{{{{ loop(i) }}}}{{% endfor %}}"),
        3 => format!("{{% for i, j in {e} if i %}}{a}{{% else %}}{}{{% endfor %}}", inner(r)),
        4 => format!(
            "{{% for i in {e} %}}{{% if {} %}}{{% {} %}}{{% endif %}}{a}{{% endfor %}}",
            r.of(&VALUES),
            r.of(&["break", "continue"])
        ),
        5 => format!("{{% if {e} %}}{a}{{% elif {e} %}}{}{{% else %}}{{% endif %}}", inner(r)),
        6 => format!("{{% set x = {e} %}}{a}{{{{ x }}}}"),
        7 => format!("{{% set x %}}{a}{{% endset %}}{{{{ x }}}}"),
        8 => format!("{{% set x | {} %}}{a}{{% endset %}}", r.of(&FILTERS)),
        9 => format!("{{% with x = {e}, y = 1 %}}{a}{{% endwith %}}"),
        10 => format!("{{% filter {} %}}{a}{{% endfilter %}}", r.of(&FILTERS)),
        11 => format!("{{% macro f(a, b={e}) %}}{a}{{{{ a }}}}{{{{ caller() }}}}{{% endmacro %}}{{{{ f({e}) }}}}"),
        12 => format!(
            "{{% macro g(a) %}}{{{{ caller({e}) }}}}{{% endmacro %}}{{% call(c) g(1) %}}{a}{{{{ c }}}}{{% endcall %}}"
        ),
        13 => format!("{{% set n = namespace(a={e}) %}}{{% set n.b = {} %}}{{{{ n }}}}{{{{ n.a }}}}{a}", r.of(&VALUES)),
        14 => format!(
            "{{% for i in {e} %}}{}{{% endfor %}}",
            r.of(&[
                "{{ loop.cycle() }}",
                "{{ loop.cycle(1, 2) }}",
                "{{ loop.changed(i) }}",
                "{{ loop.previtem }}{{ loop.nextitem }}{{ loop }}",
                "{% with %}{% break %}{% endwith %}",
                "{% set x %}{% continue %}{% endset %}",
                "{% do dict() %}",
                "{{ loop.revindex0 }}{{ loop.last }}{{ loop['cycle'](1) }}"
            ])
        ),
        _ => format!(
            "{{% {} %}}{a}",
            r.of(&[
                "set a, b = (1, 2)",
                "set a, b = 1",
                "do range(2)",
                "set messages = []",
                "if 1 %}{% endif",
                "set a = a, b"
            ])
        ),
    }
}

#[test]
fn no_template_makes_the_engine_panic() {
    let number = |name: &str, usual: u64| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (n, seed) = (number("KIGO_CASES", 3_000), number("KIGO_SEED", 1));
    let tokenizer = fixtures::tiny("tiny_llama_bpe");
    let messages = r#"[{"role": "user", "content": "a \u0001\u00e9", "a": [1, {"b": null}]},
        {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "content": [{"type": "text", "text": "<|im_end|>"}], "n": -1.5}]"#;
    let tools = r#"[{"type": "function", "function": {"name": "f", "parameters": {"a": {"type": "integer"}}}}]"#;
    let chat = ChatJson {
        messages,
        tools: Some(tools),
        variables: Some(r#"{"x": 1}"#),
        add_generation_prompt: true,
        ..ChatJson::default()
    };
    let (mut n_rendered, mut n_too_much) = (0_u64, 0_u64);
    for case in 0..n {
        let mut r = Random(seed.wrapping_mul(0x1_0000_0000).wrapping_add(case));
        let source = if r.below(3) == 0 {
            let depth = 1 + r.below(3);
            block(&mut r, depth)
        } else {
            let depth = [1, 1, 1, 2, 2, 3][r.below(6)];
            format!("{{{{ {} }}}}", expression(&mut r, depth))
        };
        let done = ChatTemplate::with_source(&tokenizer, &source).and_then(|template| template.render_json(&chat));
        match done {
            Ok(_) => n_rendered += 1,
            Err(Error::Argument { found, .. }) if found.contains("too costly") => n_too_much += 1,
            Err(error) => {
                let expected = matches!(error.status(), Status::InvalidArgument | Status::Unsupported);
                assert!(expected, "seed {seed}, case {case}: {source}\n{error}");
            }
        }
    }
    println!("{n} templates, {n_rendered} rendered, {n_too_much} too costly");
    // The generator is worth something only if much of what it makes is valid.
    assert!(n_rendered * 8 > n, "{n_rendered} of {n} rendered");
}
