//! The vocabularies of llama-cpp-python's source distribution, with the ids that their reference tokenizers give
//! (`scripts/fetch_vocabularies.py` puts them into `models/vocabularies`).

use std::path::PathBuf;

use kigo::gguf::Gguf;
use kigo::tokenizer::{FimTokens, TokenKind, Tokenizer, Vocab};

use crate::fixtures::{fixture, strings};

/// Those of kinds that are known here, and how many texts each has.
const KNOWN: [(&str, usize); 15] = [
    ("bert-bge", 47),
    ("command-r", 47),
    ("deepseek-coder", 47),
    ("deepseek-llm", 47),
    ("falcon", 47),
    ("gemma-4", 46),
    ("gpt-2", 47),
    ("llama-bpe", 47),
    ("llama-spm", 47),
    ("mpt", 47),
    ("phi-3", 47),
    ("qwen2", 47),
    ("qwen35", 51),
    ("refact", 47),
    ("starcoder", 47),
];

fn path(name: &str, ending: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("models/vocabularies/ggml-vocab-{name}.gguf{ending}"))
}

fn tokenizer(name: &str) -> Option<Tokenizer> {
    if !path(name, "").exists() {
        println!("skipped: models/vocabularies has no {name} (scripts/fetch_vocabularies.py fetches it)");
        return None;
    }
    Some(Tokenizer::new(&Gguf::open(&path(name, "")).unwrap()).unwrap())
}

#[test]
fn published_vocabularies_give_their_ids() {
    let mut wrong = Vec::new();
    for (name, n) in KNOWN {
        let Some(tokenizer) = tokenizer(name) else { continue };
        let [texts, ids] = [".inp", ".out"].map(|ending| std::fs::read_to_string(path(name, ending)).unwrap());
        let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        let ids: Vec<&str> = ids.split('\n').collect();
        assert_eq!(texts.len(), n, "{name}");
        assert!(ids.len() >= n && ids[n..].iter().all(|line| line.is_empty()), "{name}: {} lines", ids.len());
        let before = wrong.len();
        for (text, ids) in texts.iter().zip(&ids) {
            let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
            let got = tokenizer.encode(text, false, true).unwrap();
            if got != ids {
                wrong.push(format!("{name}, {text:?}: {got:?}, expected {ids:?}"));
            }
        }
        println!("{name}: {} of {n} texts", n + before - wrong.len());
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong[..wrong.len().min(12)].join("\n"));
}

/// The tokens for filling in the middle, of files whose keys name none: prefix, suffix, middle, padding, repository, file.
#[test]
fn tokens_for_the_middle_are_known_by_their_texts() {
    let known = [
        ("deepseek-coder", [Some(32016), Some(32015), Some(32017), None, None, None]),
        ("refact", [Some(1), Some(3), Some(2), Some(4), Some(18), Some(5)]),
        ("starcoder", [Some(1), Some(3), Some(2), Some(4), Some(5), Some(6)]),
        ("llama-bpe", [None; 6]),
    ];
    for (name, expected) in known {
        let Some(tokenizer) = tokenizer(name) else { continue };
        let FimTokens { prefix, suffix, middle, pad, repository, file } = tokenizer.fim();
        assert_eq!([prefix, suffix, middle, pad, repository, file], expected, "{name}");
    }
    // Keys come first, the newer ones before the older; ordinary tokens of such a text are text.
    let kinds = [TokenKind::Control, TokenKind::Control, TokenKind::Normal, TokenKind::UserDefined];
    let vocab = Vocab {
        model: "gpt2",
        pre: Some("gpt-2"),
        tokens: vec!["<fim_prefix>", "<x>", "<fim_suffix>", "<|fim_middle|>"],
        kinds: kinds.to_vec(),
        fim: vec![("prefix_token_id", 2), ("fim_pre_token_id", 1)],
        ..Vocab::default()
    };
    let found = Tokenizer::from_vocab(&vocab).unwrap().fim();
    assert_eq!((found.prefix, found.suffix, found.middle), (Some(1), None, Some(3)));
    let wrong = Vocab { fim: vec![("fim_mid_token_id", 4)], ..vocab };
    let error = Tokenizer::from_vocab(&wrong).err().unwrap().to_string();
    assert!(error.contains("tokenizer.ggml.fim_mid_token_id") && error.contains("below 4"), "{error}");
}

/// Those of an older converter, which names no pre-tokenizer: they load, say so, and give every text back.
#[test]
fn vocabularies_without_a_name_load() {
    for name in ["aquila", "gpt-neox"] {
        let Some(tokenizer) = tokenizer(name) else { continue };
        assert!(tokenizer.assumes_pre(), "{name}");
        let texts = fixture("pre");
        for text in strings(&texts["texts"]) {
            let ids = tokenizer.encode(text, false, false).unwrap();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text.as_bytes(), "{name}: {text:?}");
        }
    }
}
