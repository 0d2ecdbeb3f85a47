//! Chat templates against jinja2 in transformers' settings: the published ones of llama-cpp-python's source distribution, which
//! `scripts/fetch_vocabularies.py` puts into `models/templates`, and one for each thing that engines do differently.
//! `scripts/make_template_fixtures.py` makes what is expected, prints single texts, and shows where a text differs.

use std::path::{Path, PathBuf};

use kigo::error::{Error, Status};
use kigo::tokenizer::{ChatJson, ChatTemplate, Rendered, TokenKind, Tokenizer, Vocab};
use serde_json::Value;

use crate::fixtures::{fixture, strings};

/// Published templates that put control tokens together from parts, a role's name most often, and are refused where the
/// vocabulary has these tokens.
const ASSEMBLING: [&str; 0] = [];

/// A vocabulary of bytes and these control tokens.
pub fn tokenizer(control: &[&str]) -> Tokenizer {
    let bytes: Vec<String> = (0..=255_u8).map(|b| format!("<0x{b:02X}>")).collect();
    let place = |name: &str| control.iter().position(|token| *token == name).map(|at| 256 + at as u32);
    let vocab = Vocab {
        model: "llama",
        tokens: bytes.iter().map(String::as_str).chain(control.iter().copied()).chain(["\u{2581}"]).collect(),
        scores: vec![0.0; 257 + control.len()],
        kinds: [vec![TokenKind::Byte; 256], vec![TokenKind::Control; control.len()], vec![TokenKind::Normal]].concat(),
        bos: place("<|begin_of_text|>"),
        eos: place("<|eot_id|>"),
        unk: Some(0),
        add_space_prefix: Some(false),
        ..Vocab::default()
    };
    Tokenizer::from_vocab(&vocab).unwrap()
}

fn chat(conversation: &Value, add_generation_prompt: bool) -> ChatJson<'_> {
    ChatJson {
        messages: conversation["messages"].as_str().unwrap(),
        tools: conversation["tools"].as_str(),
        variables: conversation["variables"].as_str(),
        add_generation_prompt,
        ..ChatJson::default()
    }
}

/// FNV-1a of 64 bits.
pub fn fnv(text: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

fn control(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<u32> {
    ids.iter().copied().filter(|&id| tokenizer.is_control(id)).collect()
}

/// What a rendering is, in the words of the fixture: a hash or an error.
fn told(rendered: &Result<Rendered, Error>) -> String {
    match rendered {
        Ok(rendered) => fnv(&rendered.text),
        Err(Error::Template { message }) => message.rsplit_once(" (in line ").map_or("", |(words, _)| words).to_owned(),
        Err(Error::Argument { found, .. }) => {
            let words = found.strip_prefix("malformed (").and_then(|words| words.rsplit_once(" in line "));
            words.map_or(found.clone(), |(words, _)| words.to_owned())
        }
        Err(other) => other.to_string(),
    }
}

#[test]
fn published_templates_render_as_in_transformers() {
    let fixture = fixture("templates");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/templates");
    let (errors, names) = (strings(&fixture["errors"]), strings(&fixture["control"]));
    let (all, few) = (tokenizer(&names), tokenizer(&["<|begin_of_text|>", "<|eot_id|>"]));
    let conversations = fixture["conversations"].as_array().unwrap();
    let now = fixture["now"].as_i64().unwrap();
    let out = std::env::var_os("KIGO_TEMPLATES_OUT").map(PathBuf::from);
    let (mut n_same, mut n_missing, mut assembling, mut wrong) = (0, 0, Vec::new(), Vec::new());
    for (name, row) in fixture["templates"].as_object().unwrap() {
        let Ok(source) = std::fs::read_to_string(folder.join(name)) else {
            n_missing += 1;
            continue;
        };
        let (tokenizer, template) = match ChatTemplate::with_source(&all, &source) {
            Err(error) if error.status() == Status::Unsupported => {
                assembling.push(name.as_str());
                (&few, ChatTemplate::with_source(&few, &source))
            }
            template => (&all, template),
        };
        for (at, cell) in row.as_array().unwrap().iter().enumerate() {
            let conversation = &conversations[at / 2];
            let rendered = match &template {
                Ok(template) => template.render_json_at(&chat(conversation, at % 2 == 1), now),
                Err(_) => ChatTemplate::with_source(tokenizer, &source).map(|_| unreachable!()),
            };
            let expected = cell.as_u64().map_or_else(|| cell.as_str().unwrap(), |at| errors[at as usize]);
            let found = told(&rendered);
            let case = format!("{name}+{}+{}", conversation["name"].as_str().unwrap(), at % 2);
            if found == expected {
                n_same += 1;
            } else {
                wrong.push(format!("{case}: {found}, expected {expected}"));
            }
            let Ok(rendered) = rendered else { continue };
            if let Some(out) = out.as_ref().filter(|_| found != expected) {
                std::fs::write(out.join(&case), &rendered.text).unwrap();
            }
            // Where no message has the text of a control token, all such texts are the template's, and tokens.
            if !names.iter().any(|name| conversation["messages"].as_str().unwrap().contains(name)) {
                let read = tokenizer.encode(&rendered.text, false, true).unwrap();
                assert_eq!(control(tokenizer, &rendered.ids), control(tokenizer, &read), "{case}");
            }
        }
    }
    if n_missing > 0 {
        println!("skipped: models/templates lacks {n_missing} templates (scripts/fetch_vocabularies.py fetches them)");
    }
    println!("{n_same} renderings are the same, {} differ; refused with these tokens: {assembling:?}", wrong.len());
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    assert!(n_missing > 0 || assembling == ASSEMBLING, "{assembling:?}");
}

#[test]
fn each_difference_found_has_its_right_value() {
    let fixture = fixture("templates");
    let tokenizer = tokenizer(&strings(&fixture["control"]));
    let conversation = fixture["conversations"].as_array().unwrap().iter().find(|c| c["name"] == "two calls").unwrap();
    let mut variables: Value = serde_json::from_str(conversation["variables"].as_str().unwrap()).unwrap();
    variables["x"] = serde_json::json!([1, "a", null]);
    let variables = variables.to_string();
    let chat = ChatJson { variables: Some(&variables), ..chat(conversation, true) };
    let now = fixture["now"].as_i64().unwrap();
    let render = |source: &str| ChatTemplate::with_source(&tokenizer, source)?.render_json_at(&chat, now);
    let mut wrong = String::new();
    for snippet in fixture["snippets"].as_array().unwrap() {
        let source = snippet[0].as_str().unwrap();
        let rendered = render(source);
        let (found, expected) = match (&rendered, snippet[1].as_str()) {
            (Ok(rendered), Some(expected)) => (rendered.text.clone(), expected),
            (rendered, Some(expected)) => (told(rendered), expected),
            (rendered, None) => (told(rendered), snippet[2].as_str().unwrap()),
        };
        if found != expected {
            wrong.push_str(&format!("{source:?}\n  jinja {expected:?}\n  kigo  {found:?}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    for source in strings(&fixture["refused"]) {
        let error = render(source).unwrap_err();
        assert_eq!(error.status(), Status::Unsupported, "{source}: {error}");
        assert!(error.to_string().starts_with("chat template with \""), "{source}: {error}");
    }
}

/// A control token of the template's is text to the template, and a token in what is rendered, if all of it is there.
#[test]
fn control_tokens_are_text_to_the_template() {
    let tokenizer = tokenizer(&["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<|eot_id|>"]);
    let id = |name: &str| tokenizer.encode(name, false, true).unwrap()[0];
    let [start, end, think] = ["<|im_start|>", "<|im_end|>", "<think>"].map(id);
    for (source, text, ids) in [
        (
            "{{ '<|im_end|>' | length }}{{ '<|im_end|>'.startswith('<|im') }}{{ 'im' in '<|im_end|>' }}",
            "10TrueTrue",
            vec![],
        ),
        ("{{ '<|im_start|>x<|im_end|>'.split('x')[1] }}", "<|im_end|>", vec![end]),
        ("{{ ('a' ~ '<think>').upper().lower()[1:] | length }}{{ ' <think> '.strip() }}", "7<think>", vec![think]),
        ("{{ '<think>'.replace('think', 'x') }}{{ '<think>'[:3] }}{{ '<think>' | title }}", "<x><th<Think>", vec![]),
        ("{{ ['<|im_end|>'] | tojson }}{{ ['<|im_end|>'] }}", "[\"<|im_end|>\"]['<|im_end|>']", vec![end, end]),
        ("{{ '%s|{}' % '<think>' }}{{ '{}'.format('<think>') }}", "<think>|{}<think>", vec![think, think]),
        ("{{ {'<think>': 1}['<think>'] }}{{ '<think>' == messages[1].content[:7] }}", "1True", vec![]),
        ("{{ '\\u003c|im_start|>' }}{{ '<|im_' '_end|>' }}", "<|im_start|><|im__end|>", vec![start]),
        // A message's own are text, whatever they were compared with.
        (
            "{{ messages[1].content.split('</think>')[0] }}{{ messages[1].content | replace('a', '') }}",
            "<think>a<think></think>b",
            vec![],
        ),
        ("{{ messages[1].content.split('</think>')[-1] }}<|im_end|>", "b<|im_end|>", vec![end]),
        ("{{ '<|im_end|>' if '</think>' in messages[1].content else 'no' }}", "<|im_end|>", vec![end]),
        (
            "{{ messages[0].content }}{{ '<|im_end|>'[5:] }}|{{ '<|im_end|>'[:5] }}{{ messages[2].content }}",
            "<|im_end|>|<|im_end|>",
            vec![],
        ),
    ] {
        let messages = [("user", "<|im_"), ("assistant", "<think>a</think>b"), ("user", "end|>")];
        let rendered = ChatTemplate::with_source(&tokenizer, source).unwrap().render(&messages, false).unwrap();
        assert_eq!(rendered.text, text, "{source}");
        assert_eq!(control(&tokenizer, &rendered.ids), ids, "{source}");
    }
}

/// What a template reads of its caller is among what `jinja2.meta` finds (scripts/make_template_variables.py), which are also functions, and
/// names that a template makes itself, in one branch of an `if` alone.
#[test]
fn variables_of_published_templates_are_among_those_that_jinja_finds() {
    let fixture = fixture("template_variables");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/templates");
    let few = tokenizer(&["<|begin_of_text|>", "<|eot_id|>"]);
    let (mut n, mut of_caller) = (0, 0);
    for (name, expected) in fixture.as_object().unwrap() {
        let Ok(source) = std::fs::read_to_string(folder.join(name)) else { continue };
        let template = ChatTemplate::with_source(&few, &source).unwrap();
        let found: Vec<&str> = template.variables().collect();
        let expected = strings(expected);
        assert!(found.iter().all(|name| expected.contains(name)), "{name}: {found:?}, expected {expected:?}");
        assert!(found.contains(&"messages"), "{name}: {found:?}");
        // What callers are to give: all of it is there.
        for known in [
            "tools",
            "add_generation_prompt",
            "enable_thinking",
            "thinking",
            "reasoning_effort",
            "documents",
            "bos_token",
        ] {
            assert_eq!(found.contains(&known), expected.contains(&known), "{name}: {known}");
            of_caller += usize::from(found.contains(&known));
        }
        n += 1;
    }
    println!("{n} templates, {of_caller} variables that callers are to give");
    assert!(n == 0 || n == 70 && of_caller > 150, "{n} templates, {of_caller}");
}

/// As a template's blocks have their names.
#[test]
fn variables_that_a_template_makes_are_its_own() {
    let few = tokenizer(&["<|begin_of_text|>", "<|eot_id|>"]);
    let cases: [(&str, &[&str]); 12] = [
        ("{{ a }}{{ a.b }}{{ c['d'] }}", &["a", "c"]),
        ("{% set a = b %}{{ a }}", &["b"]),
        ("{% if a is not defined %}{% set a = 1 %}{% endif %}{{ a }}", &["a"]),
        ("{% if x %}{% set a = 1 %}{% else %}{% set a = 2 %}{% endif %}{{ a }}", &["x"]),
        (
            "{% if x %}{% set a = 1 %}{% elif y %}{% set b = 1 %}{% else %}{% set a = 2 %}{% endif %}{{ a }}",
            &["x", "y", "a"],
        ),
        (
            "{% for m in messages if m.x == y %}{{ loop.index }}{{ m }}{% set z = 1 %}{% else %}{{ w }}{% endfor %}{{ z }}",
            &["messages", "z", "y", "w"],
        ),
        ("{% for m in messages %}{{ late }}{% endfor %}{% set late = 1 %}", &["messages"]),
        (
            "{% macro f(a, b=c) %}{{ a }}{{ b }}{% if d %}{{ f(1) }}{% endif %}{{ varargs }}{% endmacro %}{{ f(e) }}",
            &["e", "c", "d"],
        ),
        ("{% set ns = namespace(x=q) %}{% set ns.x = r %}{{ raise_exception(s) }}", &["q", "r", "s"]),
        ("{% set a %}{{ b }}{% endset %}{{ a }}{% filter replace(c, 'd') %}{{ e }}{% endfilter %}", &["c", "b", "e"]),
        (
            "{{ x|default(y) }}{{ z if u is none else v }}{{ [p, {q: r}][s:t] }}{{ not o and n or m in l }}",
            &["x", "y", "z", "u", "v", "p", "q", "r", "s", "t", "o", "n", "m", "l"],
        ),
        ("{% call(a) f(b) %}{{ a }}{{ caller }}{{ c }}{% endcall %}", &["f", "b", "c"]),
    ];
    for (source, expected) in cases {
        let template = ChatTemplate::with_source(&few, source).unwrap();
        assert_eq!(template.variables().collect::<Vec<_>>(), expected, "{source}");
    }
}
