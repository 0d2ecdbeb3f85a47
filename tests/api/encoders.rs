//! The vocabularies "gemma4", "bert" and "t5" against their references (`scripts/make_vocabulary_fixtures.py` makes the
//! fixtures), on small vocabularies and on published ones (`scripts/fetch_vocabularies.py` fetches them).

use std::path::Path;

use kigo::alloc::watch;
use kigo::error::{Error, Status};
use kigo::gguf::Gguf;
use kigo::tokenizer::{TokenKind, Tokenizer, Vocab};
use proptest::prelude::*;

use crate::common::apart::apart;
use crate::fixtures::{fixture, gguf, ids, strings, tiny, vocab};
use crate::tokenizer::check;

const TINY: [&str; 6] =
    ["tiny_gemma4", "tiny_gemma4_unk", "tiny_bert", "tiny_bert_cased", "tiny_unigram", "tiny_unigram_bytes"];

/// A published vocabulary, or a line that says it is not there.
pub fn published(name: &str) -> Option<Tokenizer> {
    let file = format!("models/vocabularies/ggml-vocab-{name}.gguf");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
    if !path.exists() {
        println!("skipped: {file} is not there (scripts/fetch_vocabularies.py fetches it)");
        return None;
    }
    Some(Tokenizer::new(&Gguf::open(&path).unwrap()).unwrap())
}

#[test]
fn small_vocabularies_equal_their_references() {
    for name in TINY {
        check("vocabulary_texts", name, &tiny(name));
    }
}

/// A file's keys say what the fixture says.
#[test]
fn files_of_every_kind_are_read() {
    let texts = fixture("vocabulary_texts");
    for name in TINY {
        let (fixture, same) = (fixture(name), tiny(name));
        let bytes = gguf(&vocab(&fixture));
        let tokenizer = Tokenizer::new(&Gguf::from_bytes(&bytes).unwrap()).unwrap();
        for text in strings(&texts["texts"]) {
            let (found, expected) = [&tokenizer, &same].map(|t| t.encode(text, true, true).unwrap()).into();
            assert_eq!(found, expected, "{name}, {text:?}");
        }
    }
}

#[test]
fn gemma_4_equals_its_reference() {
    if let Some(tokenizer) = published("gemma-4") {
        check("vocabulary_texts", "gemma4", &tokenizer);
        let id = |text: &str| tokenizer.encode(text, false, true).unwrap()[0];
        assert!(tokenizer.adds_bos() && !tokenizer.adds_eos());
        for end in ["<eos>", "<turn|>", "<|tool_response>"] {
            assert!(tokenizer.is_end_of_generation(id(end)), "{end}");
        }
        assert!(!tokenizer.is_control(id("<|tool_response>")) && !tokenizer.is_end_of_generation(id("</s>")));
    }
}

#[test]
fn a_published_unigram_vocabulary_equals_its_reference() {
    if let Some(tokenizer) = published("nomic-bert-moe") {
        check("vocabulary_texts", "nomic_bert_moe", &tokenizer);
        assert!(tokenizer.adds_bos() && tokenizer.adds_eos());
    }
}

/// Every character between two letters: dropped, white space, a word of its own, an accent, or a part of a word.
#[test]
fn every_character_is_what_berts_tokenizer_takes_it_for() {
    let (fixture, tokenizer) = (fixture("bert_chars"), tiny("tiny_bert"));
    let runs = fixture["runs"].as_array().unwrap();
    let (mut n, mut wrong) = (0, Vec::new());
    for run in runs {
        let (first, last, expected) = (run[0].as_u64().unwrap(), run[1].as_u64().unwrap(), ids(&run[2]));
        for c in (first as u32..=last as u32).filter_map(char::from_u32) {
            n += 1;
            let found = tokenizer.encode(&format!("a{c}b"), false, false).unwrap();
            if found != expected {
                wrong.push(format!("U+{:04X}: {found:?}, reference {expected:?}", u32::from(c)));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {n}: {}", wrong.len(), wrong[..wrong.len().min(12)].join("\n"));
    assert_eq!(n, 0x110000 - 0x800);
}

#[test]
fn begin_and_end_tokens_follow_the_flags() {
    let fixture = fixture("tiny_bert");
    let bert = vocab(&fixture);
    let (cls, sep) = (bert.cls.unwrap(), bert.sep.unwrap());
    let encode = |vocab: &Vocab<'_>| Tokenizer::from_vocab(vocab).unwrap().encode("", true, false).unwrap();
    assert_eq!(encode(&bert), [cls, sep]);
    assert_eq!(encode(&Vocab { add_sep: Some(false), ..bert.clone() }), [cls]);
    assert_eq!(encode(&Vocab { add_eos: Some(false), add_bos: Some(false), ..bert.clone() }), [0_u32; 0]);
    // The names of the tokens, where no key has their ids.
    let unnamed = Vocab { cls: None, sep: None, unk: None, ..bert.clone() };
    assert_eq!(encode(&unnamed), [cls, sep]);
    let unknown = Tokenizer::from_vocab(&unnamed).unwrap().encode("\u{2f00}", false, false).unwrap();
    assert_eq!(unknown, [bert.unk.unwrap()]);
    // A text that has them already; without `parse_special` they are ordinary.
    let tokenizer = Tokenizer::from_vocab(&bert).unwrap();
    assert_eq!(tokenizer.encode("[CLS][SEP]", true, true).unwrap(), [cls, sep]);
    assert!(tokenizer.encode("[CLS] [SEP]", false, false).unwrap().iter().all(|&id| id != cls && id != sep));
    assert!(tokenizer.is_control(cls) && tokenizer.is_control(sep));
}

#[test]
fn a_text_reads_as_words_again() {
    let tokenizer = tiny("tiny_bert");
    let ids = tokenizer.encode("  The  class\u{301}es, and objects! ", true, false).unwrap();
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), b"the classes , and objects !");
    let tokenizer = tiny("tiny_unigram");
    let ids = tokenizer.encode("  The \u{a0}objects\u{200b},\u{3000}\u{ff21}1 ", true, false).unwrap();
    assert_eq!(String::from_utf8(tokenizer.decode(&ids, true).unwrap()).unwrap(), "The objects, A1");
}

/// A double array of a map that gives one text for another, by the definition of its units.
pub fn map(from: &[u8], to: &str) -> Vec<u8> {
    // Node k stands at 256 k; its only child's unit lies at its number with the child's byte flipped in.
    let mut units = vec![0u32; 256 * (from.len() + 2)];
    let offset = |from: usize, to: usize| ((from ^ to) as u32) << 10;
    units[0] = offset(0, 256);
    let mut base = 256;
    for (k, &byte) in from.iter().enumerate() {
        let (at, next) = (base ^ usize::from(byte), 256 * (k + 2));
        let is_last = k + 1 == from.len();
        let target = if next < units.len() { next } else { 0 };
        units[at] = u32::from(byte) | u32::from(is_last) << 8 | offset(at, target);
        base = target;
    }
    units[base] = 1 << 31;
    let mut bytes = (units.len() as u32 * 4).to_le_bytes().to_vec();
    bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
    bytes.extend(to.as_bytes());
    bytes.push(0);
    bytes
}

pub fn with_map(charsmap: Vec<u8>) -> Result<Tokenizer, Error> {
    let tokens = vec!["<unk>", "\u{2581}", "a", "b", "\u{2581}b"];
    let kinds = [vec![TokenKind::Unknown], vec![TokenKind::Normal; 4]].concat();
    let scores = vec![0.0, -3.0, -2.0, -2.5, -4.0];
    Tokenizer::from_vocab(&Vocab {
        model: "t5",
        tokens,
        kinds,
        scores,
        unk: Some(0),
        add_eos: Some(false),
        charsmap,
        ..Vocab::default()
    })
}

#[test]
fn maps_of_characters_are_checked() {
    let encode = |map, text: &str| with_map(map).unwrap().encode(text, false, false);
    assert_eq!(encode(Vec::new(), "xyb").unwrap(), [1, 0, 3]);
    assert_eq!(encode(map(b"xy", "a"), "xyb").unwrap(), [1, 2, 3]);
    assert_eq!(encode(map("\u{e4}".as_bytes(), ""), "\u{e4}b\u{e4}").unwrap(), [4]);
    assert_eq!(encode(map(b"x", "aaaaaaaaaaaaaaaa"), "x").unwrap().len(), 17);
    // Half a character, in and behind what is replaced.
    assert_eq!(encode(map(b"\xc3", "a"), "\u{e4}").unwrap(), [1, 0]);
    let long = encode(map(b"x", "aaaaaaaaaaaaaaaaa"), "bx").unwrap_err();
    assert_eq!(long.status(), Status::InvalidModel);
    assert!(long.to_string().contains("is more than 16 bytes for 1; expected replacements of at most 16"), "{long}");

    let good = map(b"x", "a");
    let cut = |n: usize| good[..n].to_vec();
    let mut far = good.clone();
    far[4 + 256 * 3 * 4 - 4..][..4].copy_from_slice(&(1u32 << 31 | 2).to_le_bytes());
    let mut half = map(b"x", "\u{e4}");
    half[4 + 4 * 512..][..4].copy_from_slice(&(1u32 << 31 | 1).to_le_bytes());
    for (what, map) in [
        ("3 bytes; expected at least the 4 bytes of a size", cut(3)),
        ("a trie of 3072 bytes; expected a multiple of 4 below 3068", cut(3072)),
        ("a trie of 3072 bytes; expected a multiple of 4 below 3072", cut(3076)),
        ("a trie of 5 bytes; expected a multiple of 4 below 7", vec![5, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0]),
        ("a trie of 4294967295 bytes", [&[0xff; 4][..], &good[4..]].concat()),
        ("a text without end; expected a NUL", [&good[..], b"b"].concat()),
        ("texts with invalid utf-8", [&good[..], b"\xff\0"].concat()),
        ("a value of 2; expected where a character of 2 bytes of texts begins", far),
        ("a value of 1; expected where a character of 3 bytes of texts begins", half),
    ] {
        let Err(error) = with_map(map) else { panic!("{what}") };
        assert_eq!(error.status(), Status::InvalidModel, "{what}: {error}");
        let text = error.to_string();
        assert!(text.contains("tokenizer.ggml.precompiled_charsmap is ") && text.contains(what), "{what}: {text}");
    }
}

/// Units of any bits: every text comes to an end, with ids or a status.
#[test]
fn any_map_of_characters_ends() {
    let mut seed = 5_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as u32
    };
    let (mut n_made, mut n_replaced) = (0, 0);
    for round in 0..400 {
        let n = 1 + random() % 600;
        let mut bytes = (4 * n).to_le_bytes().to_vec();
        for i in 0..n {
            let unit = match (round % 4, random() % 8) {
                // Values that are there, and units that lead on to their neighbours.
                (_, 0 | 1) => (1 << 31) | (random() % 3),
                (0, _) => random() >> 1,
                (_, 2..=5) => (i & 0xff) | 1 << 8 | (random() % 3 * 256) << 10,
                _ => (i & 0xff) | (random() % 3 * 256) << 10,
            };
            bytes.extend(unit.to_le_bytes());
        }
        bytes.extend(b"ab\0");
        let Ok(tokenizer) = with_map(bytes) else { continue };
        n_made += 1;
        for text in ["", "ab", "\0\u{1}\u{2}", &"abc".repeat(3000), "\u{e4}\u{4e2d}\u{1f600}", &"\u{7f}".repeat(5000)] {
            if let Ok(ids) = tokenizer.encode(text, false, false) {
                n_replaced += usize::from(ids != with_map(Vec::new()).unwrap().encode(text, false, false).unwrap());
            }
        }
    }
    assert!(n_made > 200 && n_replaced > 10, "{n_made} made, {n_replaced} texts changed");
}

#[test]
fn contradictory_vocabularies_are_refused() {
    let all = ["tiny_gemma4", "tiny_bert", "tiny_unigram", "tiny_unigram_bytes"].map(fixture);
    let [gemma4, bert, unigram, bytes] = all.each_ref().map(vocab);
    let long = "x".repeat(256);
    let mut longer = unigram.tokens.clone();
    longer[100] = &long;
    let without_bytes = |vocab: &Vocab<'_>| -> Vec<TokenKind> {
        vocab.kinds.iter().map(|&k| if k == TokenKind::Byte { TokenKind::Unused } else { k }).collect()
    };
    let n = bert.tokens.len() as u32;
    let nameless: Vec<&str> = bert.tokens.iter().map(|t| if *t == "[UNK]" { "[unk]" } else { t }).collect();
    for (what, vocab) in [
        ("tokenizer.ggml.merges[0]", Vocab { merges: vec!["ab"], ..gemma4.clone() }),
        ("tokenizer.ggml.tokens is neither all", Vocab { kinds: without_bytes(&gemma4), unk: None, ..gemma4.clone() }),
        ("tokenizer.ggml.cls_token_id", Vocab { cls: Some(n), ..bert.clone() }),
        ("tokenizer.ggml.seperator_token_id", Vocab { sep: Some(u32::MAX), ..bert.clone() }),
        ("tokenizer.ggml.unknown_token_id is missing", Vocab { unk: None, tokens: nameless, ..bert.clone() }),
        ("tokenizer.ggml.scores is missing", Vocab { scores: Vec::new(), ..unigram.clone() }),
        ("tokenizer.ggml.tokens[100] is 256 bytes; expected at most 255", Vocab { tokens: longer, ..unigram.clone() }),
    ] {
        let Err(error) = Tokenizer::from_vocab(&vocab) else { panic!("{what}") };
        assert_eq!(error.status(), Status::InvalidModel, "{what}: {error}");
        assert!(error.to_string().contains(what), "{what}: {error}");
    }
    // The unknown token stands in for bytes, and T5 has one by habit.
    let vocab = Vocab { kinds: without_bytes(&bytes), unk: None, ..bytes };
    let tokenizer = Tokenizer::from_vocab(&vocab).unwrap();
    assert_eq!(tokenizer.encode("\u{1f600}\u{1f601}", false, false).unwrap(), [2]);
}

/// Of ways with the same score the first that is found counts, as in the references: the one whose last token is the longest.
#[test]
fn equal_scores_go_by_the_references_order() {
    let tokens = vec!["<unk>", "a", "aa", "aaa", "\u{2581}"];
    let kinds = [vec![TokenKind::Unknown], vec![TokenKind::Normal; 4]].concat();
    let scores = vec![0.0, -1.0, -2.0, -3.0, -1.0];
    let vocab = Vocab { model: "t5", tokens, kinds, scores, unk: Some(0), add_eos: Some(false), ..Vocab::default() };
    let tokenizer = Tokenizer::from_vocab(&Vocab { add_space_prefix: Some(false), ..vocab }).unwrap();
    assert_eq!(tokenizer.encode("aaa", false, false).unwrap(), [3]);
    assert_eq!(tokenizer.encode("aaaaa", false, false).unwrap(), [2, 3]);
}

/// All ways to cut a text, as numbers that are exact: the best is what the tokenizer gives, however long the text.
fn slowly(vocab: &Vocab<'_>, text: &str) -> f64 {
    let least = vocab.scores.iter().zip(&vocab.kinds).filter(|(_, k)| **k == TokenKind::Normal).map(|(s, _)| *s);
    let unknown = f64::from(least.min_by(f32::total_cmp).unwrap()) - 10.0;
    let mut best = vec![f64::NEG_INFINITY; text.len() + 1];
    best[0] = 0.0;
    for (at, c) in text.char_indices() {
        let mut single = false;
        for (i, token) in vocab.tokens.iter().enumerate() {
            if vocab.kinds[i] == TokenKind::Normal && text[at..].starts_with(token) {
                let end = at + token.len();
                best[end] = best[end].max(best[at] + f64::from(vocab.scores[i]));
                single |= token.len() == c.len_utf8();
            }
        }
        if !single {
            best[at + c.len_utf8()] = best[at + c.len_utf8()].max(best[at] + unknown);
        }
    }
    best[text.len()]
}

#[test]
fn long_texts_without_a_joint_are_cut_at_the_best_places() {
    // Two letters in tokens of every length, so that some token reaches across nearly every place.
    let words: Vec<String> = (1..9u32)
        .flat_map(|n| (0..1 << n).map(move |bits| (0..n).map(|i| if bits >> i & 1 == 1 { 'a' } else { 'b' }).collect()))
        .collect();
    let mut seed = 3_u32;
    let mut random = || {
        seed = seed.wrapping_mul(1664525).wrapping_add(1013904223);
        seed >> 8
    };
    let scores: Vec<f32> = words.iter().map(|w| -(w.len() as f32) * 4.0 - (random() % 1024) as f32 / 128.0).collect();
    let vocab = Vocab {
        model: "t5",
        tokens: words.iter().map(String::as_str).chain(["<unk>"]).collect(),
        kinds: [vec![TokenKind::Normal; words.len()], vec![TokenKind::Unknown]].concat(),
        scores: scores.iter().copied().chain([0.0]).collect(),
        unk: Some(words.len() as u32),
        add_eos: Some(false),
        add_space_prefix: Some(false),
        ..Vocab::default()
    };
    let tokenizer = Tokenizer::from_vocab(&vocab).unwrap();
    for n in [1, 7, 254, 255, 256, 257, 600, 5000, 20_000, 80_000] {
        let text: String = (0..n).map(|_| if random() % 2 == 0 { 'a' } else { 'b' }).collect();
        let ids = tokenizer.encode(&text, false, false).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text.as_bytes());
        let sum: f64 = ids.iter().map(|&id| f64::from(vocab.scores[id as usize])).sum();
        if n <= 20_000 {
            assert_eq!(sum, slowly(&vocab, &text), "{n}");
        }
    }
}

/// Where memory is not to be had, making a tokenizer and using it end with a status, and the next time gives what it should.
#[test]
fn what_finds_no_memory_is_a_status() {
    if apart(|| ()) {
        return;
    }
    let text = "The quick, na\u{ef}ve \u{4e2d}\u{6587} fox  \u{ff21}\u{2460}\n\nab ".repeat(300);
    // Where an automaton is made, smaller allocations than 600 bytes are a dependency's own.
    for name in TINY {
        let (fixture, tokenizer) = (fixture(name), tiny(name));
        let vocab = vocab(&fixture);
        let expected = tokenizer.encode(&text, true, false).unwrap();
        let mut failed = [0; 2];
        for (step, n_failed) in failed.iter_mut().enumerate() {
            for n in 0.. {
                let (result, there_was_one) = match step {
                    0 => watch::failing(n, 600, || Tokenizer::from_vocab(&vocab).map(|_| Vec::new())),
                    _ => watch::failing(n, 1, || tokenizer.encode(&text, true, false)),
                };
                match result {
                    Ok(ids) => assert!(step == 0 || ids == expected, "{name}"),
                    Err(Error::OutOfMemory { .. }) => *n_failed += 1,
                    Err(other) => panic!("{name}, allocation {n}: {other}"),
                }
                if !there_was_one {
                    break;
                }
            }
        }
        assert!(failed[0] > 3 && failed[1] > 0, "{name}: {failed:?}");
        assert_eq!(tokenizer.encode(&text, true, false).unwrap(), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_has_ids(text in "\\PC*|(\\s|[a-z0-9'.<|>\u{301}\u{2581}]|[\u{4e00}-\u{4eff}]){0,40}", which in 0..6usize) {
        thread_local! {
            static ALL: [Tokenizer; 6] = TINY.map(tiny);
        }
        ALL.with(|all| {
            let tokenizer = &all[which];
            for parse in [false, true] {
                let ids = tokenizer.encode(&text, false, parse).unwrap();
                let back = tokenizer.decode(&ids, false).unwrap();
                let unknown = !matches!(TINY[which], "tiny_gemma4" | "tiny_unigram_bytes");
                if !unknown {
                    let back = String::from_utf8(back).unwrap();
                    prop_assert_eq!(back, text.replace('\u{2581}', " "));
                }
                prop_assert!(parse || unknown || !ids.iter().any(|&id| tokenizer.is_control(id)));
            }
            Ok(())
        })?;
    }
}

/// Names of `tokenizer.ggml.pre` under which converters write Gemma 4's kind of vocabulary as "gpt2".
#[test]
fn names_of_gemma_4s_kind_mean_it() {
    let (fixture, texts) = (fixture("tiny_gemma4"), fixture("vocabulary_texts"));
    let gemma4 = tiny("tiny_gemma4");
    for (name, adds) in
        [("gemma4", true), ("granite-embed-multi-311m", true), ("sarvam-moe", false), ("domyn-small", false)]
    {
        let vocab = Vocab { model: "gpt2", pre: Some(name), add_bos: None, ..vocab(&fixture) };
        let tokenizer = Tokenizer::from_vocab(&vocab).unwrap();
        assert_eq!(tokenizer.adds_bos(), adds, "{name}");
        for text in strings(&texts["texts"]) {
            let ids = tokenizer.encode(text, false, true).unwrap();
            assert_eq!(ids, gemma4.encode(text, false, true).unwrap(), "{name}, {text:?}");
        }
    }
}
