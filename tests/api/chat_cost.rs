//! What chat templates cost, from the first look at their source to the ids: stack, time and memory, over families of
//! hostile ones. Each is rendered or refused with a number, within a second and 64 MiB, from a thread with a stack of
//! 128 KiB.

use crate::fixtures;
use std::time::{Duration, Instant};

use crate::common::apart::apart;
use kigo::alloc::watch;
use kigo::error::{Error, Status};
use kigo::tokenizer::{ChatJson, ChatTemplate, Rendered, Tokenizer};

use crate::fixtures::tiny;

const MIB: usize = 1 << 20;
/// The most that a rendering may take.
const MOST: usize = 64 * MIB;

/// Runs on a small stack; what it gave, how long it took, and the most memory meanwhile. Of that, what a rendering asks
/// for beforehand and gives back at once is a part, so smaller figures are not seen.
fn measured<T: Send>(run: impl FnOnce() -> T + Send) -> (T, Duration, usize) {
    let ((result, time), peak) = watch::peak(|| {
        std::thread::scope(|scope| {
            let work = move || {
                let begin = Instant::now();
                let result = run();
                (result, begin.elapsed())
            };
            let thread = std::thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, work);
            thread.unwrap().join().unwrap()
        })
    });
    (result, time, peak)
}

fn render(tokenizer: &Tokenizer, source: &str, messages: &[(&str, &str)]) -> Result<Rendered, Error> {
    ChatTemplate::with_source(tokenizer, source)?.render(messages, true)
}

/// A second; more where the code is not optimized, or others use the machine.
fn most_time() -> Duration {
    Duration::from_millis(if cfg!(debug_assertions) { 20_000 } else { 3_000 })
}

/// Renders or refuses within the bounds, and a refusal has a number.
fn check_cost(name: &str, tokenizer: &Tokenizer, source: &str, messages: &[(&str, &str)]) -> Result<(), String> {
    let (result, time, peak) = measured(|| render(tokenizer, source, messages));
    let outcome = match &result {
        Ok(rendered) => format!("{} bytes", rendered.text.len()),
        Err(error) => error.to_string(),
    };
    if std::env::var("KIGO_PRINT").is_ok() {
        println!(
            "{name:<44} {:>7.1} ms {:>6.1} MiB  {outcome:.120}",
            time.as_secs_f64() * 1e3,
            peak as f64 / MIB as f64
        );
    }
    let mut wrong = String::new();
    if time > most_time() {
        wrong.push_str(&format!("{name}: {time:?}: {outcome:.200}\n"));
    }
    let said: usize = messages.iter().map(|(role, content)| role.len() + content.len()).sum();
    // Beside a rendering there is its conversation, and the compiled template, which stays.
    if peak > MOST + 20 * said + 4096 * messages.len() + 64 * source.len() {
        wrong.push_str(&format!("{name}: {peak} bytes: {outcome:.200}\n"));
    }
    if let Err(error) = &result
        && !matches!(error.status(), Status::InvalidArgument | Status::Unsupported)
    {
        wrong.push_str(&format!("{name}: {outcome}\n"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn check_all<'a>(cases: impl IntoIterator<Item = (String, String)>, messages: &[(&'a str, &'a str)]) {
    let tokenizer = tiny("tiny_llama_bpe");
    let wrong: Vec<String> =
        cases.into_iter().filter_map(|(name, source)| check_cost(&name, &tokenizer, &source, messages).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

/// Sources that grow with n.
fn families(n: usize) -> Vec<(&'static str, String)> {
    let chain = |link: &str| format!("{{{{ x{} }}}}", link.repeat(n));
    let before = |link: &str| format!("{{{{ {}1 }}}}", link.repeat(n));
    let around =
        |open: &str, inside: &str, close: &str| format!("{{{{ {}{inside}{} }}}}", open.repeat(n), close.repeat(n));
    let blocks = |open: &str, close: &str| format!("{}x{}", open.repeat(n), close.repeat(n));
    let list = |item: &str| format!("{{{{ [{}] | length }}}}", item.repeat(n));
    vec![
        ("unary minus", before("-")),
        ("unary minus, spaced", before("- ")),
        ("not", before("not ")),
        ("and", chain(" and x")),
        ("or", chain(" or x")),
        ("plus", chain(" + x")),
        ("minus", chain(" - x")),
        ("times", chain(" * x")),
        ("power", chain(" ** x")),
        ("modulo", chain(" % x")),
        ("floor division", chain(" // x")),
        ("tilde", chain(" ~ x")),
        ("tilde of constants", format!("{{{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'{} }}}}", " ~ 'bbbbbbbb'".repeat(n))),
        ("plus of constants", format!("{{{{ 1{} }}}}", " + 1".repeat(n))),
        ("plus of constant lists", format!("{{{{ [1]{} }}}}", " + [1]".repeat(n))),
        ("equality of constants", format!("{{{{ 1{} }}}}", " == 1".repeat(n))),
        ("and of constants", format!("{{{{ 1{} }}}}", " and 1".repeat(n))),
        ("in of constants", format!("{{{{ 1{} }}}}", " in [1]".repeat(n))),
        ("attributes", chain(".a")),
        ("numbered attributes", chain(".0")),
        ("items", chain("[0]")),
        ("slices", chain("[:]")),
        ("calls", chain("()")),
        ("methods", chain(".a()")),
        ("filters", chain("|f")),
        ("known filters", format!("{{{{ 'x'{} }}}}", "|upper".repeat(n))),
        ("tests", chain(" is a")),
        ("negated tests", chain(" is not a")),
        ("comparisons", chain(" < x")),
        ("inline if", chain(" if x")),
        ("inline if else", chain(" if x else x")),
        ("strings in a row", before("'a' ")),
        ("parentheses", around("(", "1", ")")),
        ("brackets", around("[", "1", "]")),
        ("braces", around("{1:", "1", "}")),
        ("calls in calls", around("f(", "1", ")")),
        ("items in items", around("a[", "1", "]")),
        ("tests in tests", before("a is a ")),
        ("open parentheses", format!("{{{{ {}", "(".repeat(n))),
        ("open brackets of minus", format!("{{{{ {}", "[-".repeat(n))),
        ("list of names", list("a,")),
        ("list of numbers", list("1,")),
        ("list of lists", list("[1],")),
        ("list of strings", list("'abcdefgh',")),
        ("map", format!("{{{{ {{{}}} }}}}", "'a':1,".repeat(n))),
        ("map of lists", format!("{{{{ {{{}}} }}}}", "a:[1],".repeat(n))),
        ("arguments", format!("{{{{ dict({}) }}}}", "a=x,".repeat(n))),
        ("if", blocks("{% if 1 %}", "{% endif %}")),
        ("for", blocks("{% for a in [1] %}", "{% endfor %}")),
        ("set", blocks("{% set a %}", "{% endset %}")),
        ("with", blocks("{% with a=1 %}", "{% endwith %}")),
        ("filter", blocks("{% filter upper %}", "{% endfilter %}")),
        ("macro", blocks("{% macro a() %}", "{% endmacro %}")),
        ("macro with names", blocks("{% macro a() %}{{ b }}{{ c }}", "{% endmacro %}")),
        ("call", blocks("{% call a() %}", "{% endcall %}")),
        ("block", (0..n).map(|i| format!("{{% block b{i} %}}")).collect::<String>() + &"{% endblock %}".repeat(n)),
        ("autoescape", blocks("{% autoescape true %}", "{% endautoescape %}")),
        ("elif", format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(n))),
        ("elif with text", format!("{{% if 0 %}}{}{{% endif %}}", "{% elif x == 'a' %}b".repeat(n))),
        ("else if", blocks("{% if 0 %}{% else %}", "{% endif %}")),
        ("for else", blocks("{% for a in [] %}{% else %}", "{% endfor %}")),
        ("open if", "{% if 1 %}".repeat(n)),
        ("targets", format!("{{% set {}a{} = 1 %}}", "(".repeat(n), ")".repeat(n))),
        ("targets in for", format!("{{% for {}a{} in x %}}{{% endfor %}}", "(".repeat(n), ")".repeat(n))),
        ("tuple of targets", format!("{{% set {}b = x %}}", "a,".repeat(n))),
        ("namespace targets", format!("{{% set a{} = 1 %}}", ".a".repeat(n))),
        ("set filters", format!("{{% set a{} %}}{{% endset %}}", "|f".repeat(n))),
        ("filter block filters", format!("{{% filter f{} %}}{{% endfilter %}}", "|f".repeat(n))),
        ("sets in sequence", "{% set a = 1 %}".repeat(n)),
        ("set blocks in sequence", "{% set a %}{% endset %}".repeat(n)),
        ("sets of other names", (0..n).map(|i| format!("{{% set a{i} = 1 %}}")).collect()),
        ("macros in sequence", (0..n).map(|i| format!("{{% macro a{i}() %}}{{% endmacro %}}")).collect()),
        ("macros that call the last", {
            let macros = (1..n).map(|i| format!("{{% macro a{i}() %}}{{{{ a{}() }}}}{{% endmacro %}}", i - 1));
            format!("{{% macro a0() %}}x{{% endmacro %}}{}{{{{ a{}() }}}}", macros.collect::<String>(), n - 1)
        }),
        ("if in sequence", "{% if a %}b{% endif %}".repeat(n)),
        ("prints", "{{ a }}".repeat(n)),
        ("prints of constants", "{{ 'a' }}".repeat(n)),
        ("text", "abcdefgh".repeat(n)),
        ("comments", "{# a #}".repeat(n)),
        ("raw", "{% raw %}{{ a }}{% endraw %}".repeat(n)),
        ("newlines", "{{ 1 }}\n".repeat(n)),
        ("spaces before tags", format!("\n{}{{% if 1 %}}{{% endif %}}", " ".repeat(50)).repeat(n)),
        ("tokens", "<|im_end|>".repeat(n)),
        ("number", format!("{{{{ {} }}}}", "1".repeat(n))),
        ("name", format!("{{{{ {} }}}}", "a".repeat(n))),
        ("escapes", format!("{{{{ '{}' }}}}", "\\n".repeat(n))),
    ]
}

/// The sizes of the issue (22 KB, 1.3 KB, 120 KB) are between these.
#[test]
fn every_chain_is_compiled_or_refused() {
    if apart(|| ()) {
        return;
    }
    let sizes = [20, 90, 140, 190, 260, 380, 700, 1_400, 6_000, 25_000, 120_000];
    for n in sizes {
        check_all(families(n).into_iter().map(|(name, source)| (format!("{name} x {n}"), source)), &[("user", "x")]);
    }
}

#[test]
fn usual_depths_pass() {
    if apart(|| ()) {
        return;
    }
    let tokenizer = tiny("tiny_llama_bpe");
    for (source, expected) in [
        (format!("{{{{ {}1 }}}}", "not ".repeat(100)), "True".to_owned()),
        (format!("{{{{ 1{} }}}}", " + 1".repeat(150)), "151".to_owned()),
        (format!("{{{{ 'a'{} }}}}", " ~ 'b'".repeat(150)), format!("a{}", "b".repeat(150))),
        (format!("{{% if 0 %}}{}{{% else %}}e{{% endif %}}", "{% elif 0 %}".repeat(200)), "e".to_owned()),
        (format!("{{{{ [{}][1999] }}}}", "7,".repeat(2000)), "7".to_owned()),
        (format!("{}x{}", "{% if 1 %}".repeat(100), "{% endif %}".repeat(100)), "x".to_owned()),
        (format!("{{{{ '{}' | length }}}}", "a".repeat(50_000)), "50000".to_owned()),
        ("{{ 'a' }}".repeat(5_000), "a".repeat(5_000)),
    ] {
        let (rendered, ..) = measured(|| render(&tokenizer, &source, &[("user", "x")]));
        assert_eq!(rendered.unwrap_or_else(|e| panic!("{source:.60}: {e}")).text, expected, "{source:.60}");
    }
}

/// Programs that are short and do much.
const PROGRAMS: [&str; 65] = [
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{% for i in range(100000) %}{% set x = i %}{% endfor %}",
    "{% for i in range(100000) %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}",
    "{% set n = namespace(s='xx') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "{% set n = namespace(s='xx') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "{% set n = namespace(s='xx') %}{% for i in range(99) %}{% set n.s = n.s * 2 %}{% endfor %}",
    "{% set n = namespace(s='xx') %}{% for i in range(99999) %}{% set n.s = n.s ~ 'xxxxxxxxxxxxxxxxx' %}{% endfor %}",
    "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "{% set n = namespace(s=[1]) %}{% for i in range(99999) %}{% set n.s = n.s + [i] %}{% endfor %}",
    "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
    "{% set n = namespace(s={}) %}{% for i in range(99) %}{% set n.s = {'a': n.s, 'b': n.s} %}{% endfor %}",
    "{% set n = namespace(s='\u{1}') %}{% for i in range(20) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ [n.s, n.s, n.s] }}",
    "{% set s = 'x' * 9999999 %}{% for i in range(99999) %}{{ s | length }}{% endfor %}",
    "{% set s = 'x' * 9999999 %}{% for i in range(99999) %}{% for c in s %}{% break %}{% endfor %}{% endfor %}",
    "{% set s = 'x' * 9999999 %}{% for i in range(99999) %}{% if s[9999998] %}{% endif %}{% endfor %}",
    "{% set s = 'x' * 9999999 %}{% for i in range(99999) %}{% if s[-1] %}{% endif %}{% endfor %}",
    "{% set s = 'x' * 9999999 %}{% for i in range(99999) %}{% if s[1:3] %}{% endif %}{% endfor %}",
    "{% set s = 'x' * 9999999 %}{% for i in range(99999) %}{% if s[::-1] %}{% endif %}{% endfor %}",
    "{% set s = 'x' * 9999999 %}{% for i in range(99999) %}{% if {}[s] %}{% endif %}{% endfor %}",
    "{% set s = 'x' * 9999999 %}{% for i in range(99999) %}{% if {s: 1}.get(s) %}{% endif %}{% endfor %}",
    "{% set s = 'x' * 9999999 %}{% for i in range(99999) %}{% if s | first %}{% endif %}{% endfor %}",
    "{% set s = 'x' * 9999999 %}{% for i in range(99999) %}{% if s | last %}{% endif %}{% endfor %}",
    "{% set s = 'x' * 9999999 %}{% for i in range(99999) %}{% if s == s ~ '' %}{% endif %}{% endfor %}",
    "{% set s = 'x' * 9999999 %}{% for i in range(99999) %}{% if 'y' in s %}{% endif %}{% endfor %}",
    "{% set s = 'x' * 9999999 %}{{ s | list | length }}",
    "{% set s = 'x' * 9999999 %}{{ s | map('upper') | length }}",
    "{% set s = 'x' * 9999999 %}{{ s | sort | length }}",
    "{% set s = 'x' * 9999999 %}{{ s | unique | length }}",
    "{% set s = 'x' * 9999999 %}{{ s | zip(s) | length }}",
    "{% set s = 'x' * 9999999 %}{{ s | select | length }}",
    "{% set s = 'x' * 9999999 %}{{ s.split('x') | length }}",
    "{% set s = 'x ' * 4999999 %}{{ s.split() | length }}",
    "{% set s = 'x\n' * 4999999 %}{{ s.splitlines() | length }}",
    "{% set s = '<' * 9999999 %}{{ (s | escape) | length }}",
    "{% set s = '<' * 9999999 %}{{ (s | e) | length }}",
    "{% set s = '\u{390}' * 4999999 %}{{ (s | upper) | length }}",
    "{% set s = '\u{390}' * 4999999 %}{{ s.upper() | length }}",
    "{% set s = '\u{1}' * 9999999 %}{{ (s | tojson) | length }}",
    "{% set s = '\u{1}' * 2999999 %}{{ [s] in 'x' }}{{ [s] is in 'x' }}{{ [s] ~ [s] }}{{ [s] | string | length }}",
    "{% set s = '%B' * 4999999 %}{{ strftime_now(s) | length }}",
    "{% set s = 'x' * 999999 %}{{ s.replace('x', s) }}",
    "{% set s = 'x' * 999999 %}{{ (s | replace('', s)) | length }}",
    "{% set l = range(99999) %}{{ l | select('in', l) | list | length }}",
    "{% set l = range(9999) %}{{ l | reject('in', l) | list | length }}",
    "{% set l = [range(99)] * 999 %}{{ l | map('select', 'in', range(9999)) | list | length }}",
    "{% set l = [range(99)] * 999 %}{{ l | map('map', 'default', 1) | list | length }}",
    "{% set l = [range(999)] * 999 %}{{ l | map('sort') | list | length }}",
    "{% set l = [range(999)] * 99 %}{{ l | sort | length }}{{ l | unique | list | length }}{{ l | min }}",
    "{% set l = ['x' * 9999] * 999 %}{{ l | sort | length }}{{ l | join(',') | length }}{{ l | map('upper') | join }}",
    "{% set l = range(99999) %}{% for i in l %}{% if i in l %}{% endif %}{% endfor %}",
    "{% set l = range(99999) %}{% for i in l %}{% if l == l[:] %}{% endif %}{% endfor %}",
    "{% set l = range(99999) %}{% for i in l %}{% if loop.changed(l) %}{% endif %}{% endfor %}",
    "{% set l = range(99999) %}{% for i in l %}{% if l | last %}{% endif %}{% endfor %}",
    "{% set l = [1e300] * 99999 %}{{ l | string | length }}{{ l | tojson(indent=16) | length }}",
    "{{ ([[]] * 99999) | map('tojson', indent=16) | join | length }}{{ [] * 99999999999999999 }}{{ '' * 99999999999 }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(20) }}",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(s, n) %}{% if n %}{{ s }}{{ f(s ~ s, n - 1) }}{% endif %}{% endmacro %}{{ f('x', 24) }}",
    "{% for i in range(99999) %}{% with a=1 %}{% macro f() %}{{ a }}{{ i }}{% endmacro %}{% endwith %}{% endfor %}",
    "{% for i in range(19999) %}{% macro f() %}{% endmacro %}{% endfor %}{% macro g() %}{% macro h() %}{% endmacro %}{% endmacro %}{% for i in range(99999) %}{{ g() }}{% endfor %}",
    "{% for a in [[1]] recursive %}{{ loop([a]) }}{% endfor %}",
    // As deep as a rendering may be, by what takes much of the stack.
    "{% macro f(n) %}{% for a in [1] %}{% with b = 1 %}{% set c %}{% filter upper %}{{ [{'a': [f(n)]}] }}{% endfilter %}{% endset %}{{ c }}{% endwith %}{% endfor %}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{{ [[[[[[[[[[[[f(n) ~ 1]]]]]]]]]]]] | map('string') | first | upper }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% call(x) g(n) %}{{ 1 + (2 * (3 + f(x) | length)) }}{% endcall %}{% endmacro %}{% macro g(n) %}{{ caller(n) if n else '' }}{% endmacro %}{{ f(1) }}",
    "{% for i in range(99999) %}{% do dict(a=1) %}{% set x = dict(a=i, b=[i], c={i: i}) %}{% endfor %}",
];

#[test]
fn short_programs_that_do_much_end() {
    if apart(|| ()) {
        return;
    }
    let cases = || PROGRAMS.iter().map(|source| (source.chars().take(120).collect(), (*source).to_owned()));
    check_all(cases(), &[("user", "x")]);
    let many: Vec<(&str, &str)> = (0..2000).map(|_| ("user", "some words")).collect();
    check_all(cases(), &many);
}

/// The same, of a conversation's own contents.
#[test]
fn long_messages_are_held_too() {
    if apart(|| ()) {
        return;
    }
    let long = "some words <b> \u{1}".repeat(30_000);
    let said = [("user", &*long), ("assistant", "x")];
    check_all(
        [
            "{% for i in range(999) %}{{ messages }}{% endfor %}",
            "{% for i in range(999) %}{{ messages | tojson }}{% endfor %}",
            "{{ messages | map(attribute='content') | join }}",
            "{% set n = namespace(s='') %}{% for m in messages %}{% set n.s = n.s ~ m.content %}{% endfor %}{{ n.s }}",
            "{% for m in messages %}{{ m.content.split() | join(' ') }}{% endfor %}",
            "{% for m in messages %}{{ m.content | escape }}{% endfor %}",
            "{% for m in messages %}{% for c in m.content %}{{ c }}{% endfor %}{% endfor %}",
        ]
        .map(|source| (source.to_owned(), source.to_owned())),
        &said,
    );
}

/// What the limits are for: a template of the usual kind is far below them.
#[test]
fn usual_conversations_are_cheap() {
    if apart(|| ()) {
        return;
    }
    let tokenizer = tiny("tiny_qwen2");
    let fixture = fixtures::fixture("chat");
    let source = fixture["templates"]["qwen3"].as_str().unwrap();
    let (template, time, peak) = measured(|| ChatTemplate::with_source(&tokenizer, source).unwrap());
    println!("compiled: {time:?}, {peak} bytes");
    assert!(time < most_time());
    let messages = r#"[{"role": "user", "content": "How is the weather in Paris?"}]"#;
    let chat = ChatJson { messages, add_generation_prompt: true, ..ChatJson::default() };
    let mut times = Vec::new();
    for _ in 0..20 {
        let (rendered, time, _) = measured(|| template.render_json(&chat).unwrap());
        assert!(rendered.text.contains("Paris"));
        times.push(time);
    }
    times.sort_unstable();
    println!("rendered: {:?} at the median", times[10]);
    assert!(times[10] < most_time() / 10);
}
