//! A text from anywhere to tokens and back, in each kind of vocabulary.

use std::sync::OnceLock;

use kigo::tokenizer::Tokenizer;

use crate::fixtures;
use crate::support;

/// The vocabularies of `tests/fixtures/tokenizer`, which stand for their pre-tokenizers, and two of made-up words.
fn all() -> &'static [(&'static str, Tokenizer, bool)] {
    static ALL: OnceLock<Vec<(&str, Tokenizer, bool)>> = OnceLock::new();
    ALL.get_or_init(|| {
        let read = |name, json: &str| {
            let fixture = serde_json::from_str(json).expect("JSON");
            (name, Tokenizer::from_vocab(&fixtures::vocab(&fixture)).expect("a vocabulary"))
        };
        let tiny = |name, arch: &str| {
            let bytes = support::whole(arch).bytes();
            let gguf = kigo::gguf::Gguf::from_bytes(&bytes).expect("a file");
            (name, Tokenizer::new(&gguf).expect("a vocabulary"))
        };
        let list = vec![
            read("gpt2", include_str!("../../tests/fixtures/tokenizer/tiny_gpt_2.json")),
            read("smollm", include_str!("../../tests/fixtures/tokenizer/tiny_smollm.json")),
            read("qwen2", include_str!("../../tests/fixtures/tokenizer/tiny_qwen2.json")),
            read("llama", include_str!("../../tests/fixtures/tokenizer/tiny_llama_bpe.json")),
            read("default", include_str!("../../tests/fixtures/tokenizer/tiny_default.json")),
            read("spm", include_str!("../../tests/fixtures/tokenizer/tiny_spm.json")),
            read("spm_unk", include_str!("../../tests/fixtures/tokenizer/tiny_spm_unk.json")),
            tiny("llama", "llama"),
            tiny("spm_plain", "gemma3"),
            read("spm_gemma4", include_str!("../../tests/fixtures/tokenizer/tiny_gemma4.json")),
            read("gemma4_unk", include_str!("../../tests/fixtures/tokenizer/tiny_gemma4_unk.json")),
            read("bert", include_str!("../../tests/fixtures/tokenizer/tiny_bert.json")),
            read("unigram", include_str!("../../tests/fixtures/tokenizer/tiny_unigram.json")),
            read("spm_unigram", include_str!("../../tests/fixtures/tokenizer/tiny_unigram_bytes.json")),
        ];
        list.into_iter()
            .map(|(name, tokenizer)| (name, has_all_bytes(&tokenizer), tokenizer))
            .map(|(n, all, t)| (n, t, all))
            .collect()
    })
}

/// Whether every byte has a token, so that no text is lost.
fn has_all_bytes(tokenizer: &Tokenizer) -> bool {
    let mut seen = [false; 256];
    for id in 0..tokenizer.n_vocab() as u32 {
        if let Ok([byte]) = tokenizer.token_bytes(id).as_deref() {
            seen[usize::from(*byte)] = true;
        }
    }
    seen.iter().all(|s| *s)
}

/// One case: which vocabulary, how, and the text; with the highest bit the text's bytes are ids.
pub fn run(data: &[u8]) {
    let [which, how, rest @ ..] = data else { return };
    let all = all();
    let (name, tokenizer, complete) = &all[usize::from(*which) % all.len()];
    if how & 0x80 != 0 {
        return decode(tokenizer, rest);
    }
    let text = String::from_utf8_lossy(rest);
    let (add_special, parse_special) = (how & 1 != 0, how & 2 != 0);
    let ids = support::bounded(support::TEXT_TIME, (32 << 20) + 512 * text.len(), || {
        tokenizer.encode(&text, add_special, parse_special)
    });
    let ids = match ids {
        Ok(ids) => ids,
        Err(error) => panic!("{name} does not take {text:?}: {error}"),
    };
    assert!(ids.iter().all(|id| (*id as usize) < tokenizer.n_vocab()));
    // A map of characters makes a text longer, but not without end.
    let most = if *name == "unigram" { 16 } else { 3 };
    assert!(ids.len() <= most * text.len() + 8, "{} ids of {} bytes", ids.len(), text.len());
    if !parse_special {
        let control = ids.iter().filter(|id| tokenizer.is_control(**id)).count();
        let added = [tokenizer.adds_bos(), tokenizer.adds_eos()].iter().filter(|adds| add_special && **adds).count();
        // What has no token is the unknown one.
        assert!(control <= added || !complete, "{name}: {text:?} became control tokens: {ids:?}");
    }
    let back = tokenizer.decode(&ids, add_special && !parse_special).expect("its own ids");
    if *complete && may_come_back(name, &text) && !(add_special && parse_special) {
        // SentencePiece cannot tell its own sign for a space from a space.
        let expected = if name.starts_with("spm") { text.replace('\u{2581}', " ") } else { text.to_string() };
        assert_eq!(String::from_utf8_lossy(&back), expected, "{name}");
    }
    let streamed: usize = ids.iter().map(|id| tokenizer.token_bytes(*id).expect("its own id").len()).sum();
    assert!(streamed <= 16 * text.len() + 1024);
}

/// As in `tests/api/tokenizer.rs`: Qwen composes characters, and behind a special token SentencePiece's prefix comes again.
fn may_come_back(name: &str, text: &str) -> bool {
    match name {
        "qwen2" => text.chars().all(|c| c < '\u{300}'),
        "spm" => !text.contains(['\n', '\t', '<']),
        _ => true,
    }
}

fn decode(tokenizer: &Tokenizer, ids: &[u8]) {
    let ids: Vec<u32> =
        ids.chunks(2).map(|c| u32::from(c[0]) | u32::from(c.get(1).copied().unwrap_or(0) & 3) << 8).collect();
    let all = ids.iter().all(|id| (*id as usize) < tokenizer.n_vocab());
    for skip_special in [false, true] {
        assert_eq!(tokenizer.decode(&ids, skip_special).is_ok(), all);
    }
}
