//! Every name of a pre-tokenizer against Hugging Face's `tokenizers` with the same expressions
//! (`scripts/make_pretokenizer_fixtures.py` makes the fixture), and what the expressions cost.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kigo::engine::{Engine, EngineOptions, LoadOptions, LogLevel, LogSink};
use kigo::gguf::{Gguf, Value, ValueType, Writer};
use kigo::tokenizer::{TokenKind, Tokenizer, Vocab};

use crate::common::apart::apart;
use crate::fixtures::{fixture, ids, strings, vocab};
use crate::tokenizer_cost::{measure, texts};

/// Names of Gemma 4's kind of vocabulary.
pub const TEXT: [&str; 4] = ["gemma4", "granite-embed-multi-311m", "sarvam-moe", "domyn-small"];

/// GPT-2's alphabet.
fn alphabet() -> Vec<char> {
    let mut others = (0x100..).filter_map(char::from_u32);
    let printable = |b: &u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..);
    (0..=255u8).map(|b| if printable(&b) { char::from(b) } else { others.next().unwrap() }).collect()
}

/// The fixture's vocabulary, as tokens and merges: the bytes, then every pair of them.
fn pairs() -> (Vec<String>, Vec<String>) {
    let alphabet = alphabet();
    let pairs = || (0..65_536).map(|rank| rank * 40_503 % 65_536).map(|p| (alphabet[p >> 8], alphabet[p & 255]));
    let tokens = alphabet.iter().map(char::to_string).chain(pairs().map(|(a, b)| format!("{a}{b}")));
    (tokens.collect(), pairs().map(|(a, b)| format!("{a} {b}")).collect())
}

/// The names that the library knows, out of its refusal of another.
fn names() -> BTreeSet<String> {
    let vocab = Vocab { model: "gpt2", pre: Some("no such name"), tokens: vec!["a"], ..Vocab::default() };
    let text = Tokenizer::from_vocab(&vocab).err().unwrap().to_string();
    let (_, list) = text.split_once("expected ").unwrap();
    list.replace(" or ", ", ").split(", ").map(String::from).collect()
}

#[test]
fn every_name_cuts_as_its_reference() {
    let fixture = fixture("pre");
    let (tokens, merges) = pairs();
    let texts = strings(&fixture["texts"]);
    let known: Vec<Vec<Vec<u32>>> = fixture["ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lists| lists.as_array().unwrap().iter().map(ids).collect())
        .collect();
    assert!(texts.len() == known.len() && texts.len() > 580, "{}", texts.len());
    let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
    for group in fixture["groups"].as_array().unwrap() {
        let which = ids(&group["which"]);
        assert_eq!(which.len(), texts.len());
        for name in strings(&group["names"]) {
            assert!(seen.insert(name.to_string()), "{name} twice");
            let vocab = Vocab {
                model: "gpt2",
                pre: Some(name),
                tokens: tokens.iter().map(String::as_str).collect(),
                kinds: vec![TokenKind::Normal; tokens.len()],
                merges: merges.iter().map(String::as_str).collect(),
                ..Vocab::default()
            };
            let tokenizer = Tokenizer::from_vocab(&Vocab { add_bos: Some(false), ..vocab }).unwrap();
            let mut n_wrong = 0;
            for ((text, known), which) in texts.iter().zip(&known).zip(&which) {
                let (got, expected) = (tokenizer.encode(text, true, false).unwrap(), &known[*which as usize]);
                if got != *expected {
                    n_wrong += 1;
                    wrong.push(format!("{name}, {text:?}: {got:?}, reference {expected:?}"));
                }
            }
            println!("{name}: {} of {} texts", texts.len() - n_wrong, texts.len());
        }
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong[..wrong.len().min(12)].join("\n"));
    // What these cut is text and no bytes: encoders.rs has them.
    seen.extend(TEXT.map(String::from));
    assert_eq!(seen, names());
}

#[test]
fn the_readme_lists_every_name() {
    let readme = include_str!("../../README.md");
    let missing: Vec<String> = names().into_iter().filter(|name| !readme.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// What a name says of the begin token and of words that are tokens already.
#[test]
fn names_bring_their_habits() {
    let habits = |pre| {
        let tokens = vec!["a", "b", "c", "ab", "abc", "bc", "<s>"];
        let kinds = [vec![TokenKind::Normal; 6], vec![TokenKind::Control]].concat();
        let vocab = Vocab { model: "gpt2", pre, tokens, kinds, merges: vec!["b c"], bos: Some(6), ..Vocab::default() };
        let tokenizer = Tokenizer::from_vocab(&vocab).unwrap();
        (tokenizer.encode("abc", true, false).unwrap(), tokenizer.assumes_pre())
    };
    let (whole, merged) = (vec![4], vec![0, 5]);
    for name in ["llama-bpe", "falcon3", "falcon-h1", "lfm2", "tekken", "pixtral", "tekken-num3", "midm-2.0"] {
        assert_eq!(habits(Some(name)), ([&[6][..], &whole].concat(), false), "{name}");
    }
    for name in ["glm4", "glm5", "minicpm5", "youtu"] {
        assert_eq!(habits(Some(name)), (whole.clone(), false), "{name}");
    }
    for name in ["qwen2", "gpt-4o", "deepseek-v3", "dbrx", "chatglm-bpe", "falcon", "default"] {
        assert_eq!(habits(Some(name)), (merged.clone(), false), "{name}");
    }
    assert_eq!(habits(None), (merged, true));
}

/// A file without a name loads with `default`, and the log says so; one with a name says nothing.
#[test]
fn a_missing_name_is_a_warning() {
    let (tokens, merges) = pairs();
    let load = |pre: Option<&str>| {
        let mut writer = Writer::new(3);
        writer.meta("general.architecture", Value::String("qwen2"));
        writer.meta("tokenizer.ggml.model", Value::String("gpt2"));
        if let Some(pre) = pre {
            writer.meta("tokenizer.ggml.pre", Value::String(pre));
        }
        writer.array("tokenizer.ggml.tokens", ValueType::String, tokens.iter().map(|t| Value::String(t)));
        writer.array("tokenizer.ggml.merges", ValueType::String, merges.iter().map(|m| Value::String(m)));
        let said = Arc::new(Mutex::new(Vec::new()));
        let saying = Arc::clone(&said);
        let log = LogSink::new(LogLevel::Warn, move |level, text| {
            saying.lock().unwrap().push((level, text.to_string()));
            true
        });
        let engine = Engine::new(EngineOptions { device: "cpu", n_threads: 1, memory_cap: None, log }).unwrap();
        let options = LoadOptions { vocabulary: true, ..LoadOptions::default() };
        let bytes = writer.to_bytes(|_, _| ());
        Gguf::from_bytes(&bytes).unwrap();
        let model = engine.load_memory_with(&bytes, options, &mut |_, _| Ok(())).unwrap();
        let ids = model.tokenizer().encode("(a) 1234.5", false, false).unwrap();
        let said = said.lock().unwrap().clone();
        (ids, said)
    };
    let (ids, said) = load(None);
    let (named, silent) = load(Some("default"));
    assert_eq!(ids, named);
    assert!(silent.is_empty(), "{silent:?}");
    let [(LogLevel::Warn, text)] = &said[..] else { panic!("{said:?}") };
    assert!(text.starts_with("model 1: tokenizer.ggml.pre is missing; the pre-tokenizer \"default\" "), "{text}");
    assert_ne!(load(Some("qwen2")).0, named);
}

/// Time that grows with the text and no faster, and memory within what is asked for before the expressions are made and used.
#[test]
fn expressions_cost_little() {
    if apart(|| ()) {
        return;
    }
    let fixture = fixture("tiny_qwen2");
    let (n, mut wrong) = (200_000, Vec::new());
    for (pre, rules) in [
        ("tekken", 1),
        ("gpt-4o", 1),
        ("kimi-k2", 1),
        ("youtu", 2),
        ("qwen35", 1),
        ("seed-coder", 1),
        ("minicpm5", 2),
        ("deepseek-v3", 3),
        ("spark2_5", 3),
        ("deepseek-coder", 5),
        ("deepseek-llm", 6),
        ("falcon", 3),
        ("viking", 2),
        ("superbpe", 2),
        ("laguna", 2),
        ("tekken-num3", 2),
        ("tiny_aya", 2),
        ("jais-2", 1),
        ("exaone-moe", 1),
        ("k2-horizon", 1),
        ("flint", 3),
        ("chameleon", 6),
        ("afmoe", 3),
    ] {
        let vocab = Vocab { pre: Some(pre), add_bos: Some(false), ..vocab(&fixture) };
        let (tokenizer, time, peak) = measure(|| Tokenizer::from_vocab(&vocab).unwrap());
        println!("{pre}: made in {time:.1?}, {peak} bytes");
        if peak > rules * (2 << 20) + (256 << 10) {
            wrong.push(format!("{pre}: {peak} bytes to make"));
        }
        for (what, text) in texts(n) {
            let mut half = text.len() / 2;
            while !text.is_char_boundary(half) {
                half -= 1;
            }
            let (_, first, _) = measure(|| tokenizer.encode(&text[..half], true, true).unwrap());
            let whole = || measure(|| tokenizer.encode(&text, true, true).unwrap());
            let limit = first * 6 + Duration::from_millis(100);
            let (_, mut time, peak) = whole();
            // Again where something else had the processor; what grows too fast stays too slow.
            for _ in 0..5 {
                time = if time > limit { whole().1 } else { time };
            }
            if peak > rules * (3 << 20) + 32 * text.len() {
                wrong.push(format!("{pre}, {what}: {peak} bytes"));
            }
            if time > limit {
                wrong.push(format!("{pre}, {what}: {time:?}, half of it {first:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
