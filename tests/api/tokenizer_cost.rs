//! What tokenizing takes: time near n log n and at most 32 bytes of memory a byte of text, whatever the text, with the
//! ids that merging slowly gives.
//!
//! `KIGO_COST_MB=10 cargo test --release --test api tokenizer_cost:: -- --nocapture` prints the figures for texts of 10 MB.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::common::apart::apart;
use kigo::alloc::watch;
use kigo::tokenizer::{Tokenizer, Utf8Stream, Vocab};

use crate::encoders::{map, published, with_map};
use crate::fixtures::{fixture, model, tiny, vocab};

/// What `work` gives, the time and the most bytes it held beyond what there was before.
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, Duration, usize) {
    let start = Instant::now();
    let (result, peak) = watch::peak(work);
    (result, start.elapsed(), peak)
}

/// Bytes of a long text: 1 MB, or as many as asked for.
fn long() -> usize {
    std::env::var("KIGO_COST_MB").map_or(1, |mb| mb.parse().expect("a number of megabytes")) * 1_000_000
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

fn repeated(part: &str, n: usize) -> String {
    part.repeat(n / part.len())
}

/// Texts of `n` bytes, each of one kind.
pub fn texts(n: usize) -> Vec<(&'static str, String)> {
    let mut random = Random(7);
    let mut of = |chars: &dyn Fn(&mut Random) -> char| {
        let mut text = String::new();
        while text.len() < n {
            text.push(chars(&mut random));
        }
        text
    };
    let between = |a: u32, b: u32| {
        move |r: &mut Random| char::from_u32(a + r.below(u64::from(b - a)) as u32).unwrap_or('\u{fffd}')
    };
    vec![
        ("a", repeated("a", n)),
        ("spaces", repeated(" ", n)),
        ("spaces, then a word", repeated(" ", n) + "word"),
        ("lines", repeated("\n", n)),
        ("spaces and lines", repeated(" \n  \t", n)),
        ("digits", repeated("1234567890", n)),
        ("emoji", repeated("\u{1f600}", n)),
        ("emoji with joiners", repeated("\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{1f3fd}", n)),
        ("one CJK character", repeated("\u{4e2d}", n)),
        ("CJK", of(&between(0x4e00, 0x9fff))),
        ("letters", of(&between(0x61, 0x7b))),
        ("two letters", of(&between(0x61, 0x63))),
        ("any character", of(&between(0x20, 0xd7ff))),
        ("any byte as Latin-1", of(&between(0, 0x100))),
        ("punctuation", of(&|r| char::from(b"!?.,:;-+*/()[]{}#@%&"[r.below(20) as usize]))),
        ("marks", repeated("\u{301}\u{323}\u{5b0}", n)),
        ("letters with marks", repeated("e\u{301}\u{323}", n)),
        ("Hangul parts", repeated("\u{1112}\u{1161}\u{11ab}", n)),
        ("half a control token", repeated("<|im_end", n)),
        ("control tokens", repeated("<|im_end|>", n)),
        ("prose", repeated("It was a bright cold day in April, and the clocks were striking 13. 'Tis so.\n", n)),
    ]
}

#[test]
fn long_texts_cost_little_time_and_memory() {
    if apart(|| ()) {
        return;
    }
    let n = long();
    let names = [
        "tiny_gpt_2",
        "tiny_smollm",
        "tiny_qwen2",
        "tiny_llama_bpe",
        "tiny_default",
        "tiny_spm",
        "tiny_spm_unk",
        "tiny_gemma4",
        "tiny_gemma4_unk",
        "tiny_bert",
        "tiny_bert_cased",
        "tiny_unigram",
        "tiny_unigram_bytes",
    ];
    let mut all: Vec<(&str, Tokenizer)> = names.iter().map(|&name| (name, tiny(name))).collect();
    all.extend(["gemma-4", "bert-bge", "nomic-bert-moe"].into_iter().filter_map(|name| Some((name, published(name)?))));
    all.extend(["smollm2", "qwen2", "gemma3"].into_iter().filter_map(|name| Some((name, model(name)?))));
    let mut wrong = Vec::new();
    for (name, tokenizer) in &all {
        for (what, text) in texts(n) {
            let halves = [text.len() / 2, text.len()].map(|mut end| {
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                let (ids, time, peak) = measure(|| tokenizer.encode(&text[..end], true, true).expect("encodes"));
                (ids.len(), time, peak as f64 / end as f64)
            });
            let [(_, half, _), (n_ids, time, per_byte)] = halves;
            println!("{name}, {what}: {n_ids} ids, {time:.1?} (half of it: {half:.1?}), {per_byte:.1} bytes a byte");
            // What does not grow with the text: the caches of the pre-tokenizer's automata.
            let allowed = 14.0 + 16e6 / text.len() as f64;
            if per_byte > allowed {
                wrong.push(format!("{name}, {what}: {per_byte:.1} bytes a byte"));
            }
            // Twice the text in 2.2 times the time, were it not for what else the machine does.
            if time > half * 6 + Duration::from_millis(200) || time > Duration::from_secs(20) * (n / 1_000_000) as u32 {
                wrong.push(format!("{name}, {what}: {time:?}, half of it {half:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A map of characters can make a text 16 times as long: 64 bytes of ids alone for each byte of it, which is refused, with the numbers.
#[test]
fn a_map_that_makes_a_text_longer_costs_32_bytes_a_byte_or_is_refused() {
    if apart(|| ()) {
        return;
    }
    let n = long() / 10;
    let tokenizer = with_map(map(b"x", &"a".repeat(16))).expect("made");
    let text = "x".repeat(n);
    let (refused, time, peak) = measure(|| tokenizer.encode(&text, false, false).expect_err("refused").to_string());
    println!("all replaced: {time:.1?}, {:.1} bytes a byte", peak as f64 / n as f64);
    assert!(refused.contains(&format!("bytes of memory or more for a text of {n}")), "{refused}");
    assert!(refused.contains(&format!("takes at most {}", 32 * n)), "{refused}");
    assert!(peak <= 32 * n + (1 << 20), "{peak}");
    for (what, text, n_ids) in [
        ("a short one, all replaced", "x".repeat(4000), 64_001),
        ("some replaced", "xbbbbbbb".repeat(n / 8), 23 * (n / 8) + 1),
        ("none replaced", "b".repeat(n), n),
        ("unknown ones", "\u{4e2d}".repeat(n / 3), 2),
    ] {
        let (ids, time, peak) = measure(|| tokenizer.encode(&text, false, false).expect("encodes"));
        let each = peak as f64 / text.len() as f64;
        println!("{what}: {} ids of {} bytes, {time:.1?}, {each:.1} bytes a byte", ids.len(), text.len());
        assert_eq!(ids.len(), n_ids, "{what}");
        assert!(peak <= 32 * text.len() + (1 << 20), "{what}: {peak}");
    }
}

/// Byte-level merging by looking through all pairs for each merge, as the paper has it.
fn slowly(vocab: &Vocab<'_>, word: &str) -> Vec<u32> {
    let id = |text: &str| vocab.tokens.iter().position(|t| *t == text).map(|at| at as u32);
    let ranks: HashMap<&str, usize> = vocab.merges.iter().enumerate().map(|(rank, m)| (*m, rank)).collect();
    let mut parts: Vec<String> = word.chars().map(String::from).filter(|c| id(c).is_some()).collect();
    loop {
        let rank = |i: usize| ranks.get(format!("{} {}", parts[i - 1], parts[i]).as_str()).copied();
        let Some((_, at)) = (1..parts.len()).filter_map(|i| Some((rank(i)?, i))).min() else { break };
        let right = parts.remove(at);
        parts[at - 1].push_str(&right);
    }
    parts.iter().map(|part| id(part).expect("a token")).collect()
}

/// Words around the length at which another way of merging takes over, long ones, and those of several windows.
#[test]
fn long_words_have_the_ids_of_slow_merging() {
    if apart(|| ()) {
        return;
    }
    let fixture = fixture("tiny_llama_bpe");
    let vocab = vocab(&fixture);
    let tokenizer = Tokenizer::from_vocab(&vocab).expect("made");
    // The letters of the vocabulary's own merges, so that there is much to merge.
    let common: Vec<char> =
        vocab.merges.iter().take(60).flat_map(|m| m.chars()).filter(|c| c.is_ascii_lowercase()).collect();
    assert!(common.len() > 40);
    let mut random = Random(3);
    let mut merged = 0;
    for n in (1..70).chain([100, 200, 500, 1030, 2200]) {
        for _ in 0..if n > 1000 { 2 } else { 6 } {
            let word: String = (0..n).map(|_| common[random.below(common.len() as u64) as usize]).collect();
            let expected = match vocab.tokens.iter().position(|t| *t == word) {
                // Such a word is its token, whatever the merges would make of it.
                Some(at) => vec![at as u32],
                None => slowly(&vocab, &word),
            };
            assert_eq!(tokenizer.encode(&word, false, false).expect("encodes"), expected, "{word}");
            merged += n - expected.len();
        }
    }
    assert!(merged > 2000, "{merged}");
}

#[test]
fn ten_million_ids_cost_little_time_and_memory_to_decode() {
    if apart(|| ()) {
        return;
    }
    for name in ["tiny_qwen2", "tiny_spm"] {
        let tokenizer = tiny(name);
        let ids: Vec<u32> = (0..long() as u32).map(|i| i * 31 % tokenizer.n_vocab() as u32).collect();
        let (bytes, time, peak) = measure(|| tokenizer.decode(&ids, false).expect("decodes"));
        let per_byte = peak as f64 / bytes.len() as f64;
        println!("{name}: {} ids, {} bytes, {time:.1?}, {per_byte:.1} bytes a byte", ids.len(), bytes.len());
        // A list that grows is held twice while it is copied, and is up to twice as long as what is in it.
        assert!(per_byte < 3.1 && time < Duration::from_secs(20), "{name}: {per_byte}, {time:?}");
    }
}

/// A stop string that nearly all of the text begins holds much back; each push costs its own bytes only.
#[test]
fn a_long_stop_string_costs_no_more_a_push() {
    if apart(|| ()) {
        return;
    }
    let n = long() / 4;
    let stop = "a".repeat(n) + "b";
    let mut stream = Utf8Stream::new(&[&stop]).expect("made");
    let (given, time, peak) =
        measure(|| (0..4 * n).map(|_| stream.push(b"a").expect("pushed").text.len()).sum::<usize>());
    println!("{} pushes: {time:.1?}, {peak} bytes", 4 * n);
    assert_eq!((given, stream.finish().expect("ends").text.len()), (3 * n, n));
    assert!(time < Duration::from_secs(10), "{time:?}");
    assert!(peak < 10 * n, "{peak}");
}

/// What the pre-tokenizers and the automata of control tokens take stays within what is asked for before they are made and
/// used: a peak beyond it is theirs.
#[test]
fn dependencies_take_no_more_than_was_asked_for() {
    if apart(|| ()) {
        return;
    }
    for (name, rules) in
        [("tiny_gpt_2", 1), ("tiny_smollm", 2), ("tiny_qwen2", 1), ("tiny_llama_bpe", 1), ("tiny_default", 4)]
    {
        let fixture = fixture(name);
        let vocab = vocab(&fixture);
        let (tokenizer, time, peak) = measure(|| Tokenizer::from_vocab(&vocab).expect("made"));
        println!("{name}: made in {time:.1?}, {peak} bytes");
        assert!(peak <= rules * (2 << 20) + (256 << 10), "{name}: {peak}");
        for (what, text) in texts(20_000) {
            let (_, _, peak) = measure(|| tokenizer.encode(&text, true, true).expect("encodes"));
            assert!(peak <= rules * (3 << 20) + 32 * text.len(), "{name}, {what}: {peak}");
        }
    }
    for (n, len) in [(10, 5), (1000, 8), (6000, 12), (6000, 200), (1, 1_000_000), (2, 300_000)] {
        let mut random = Random(n as u64);
        let mut word = || -> String { (0..len).map(|_| (b'a' + random.below(26) as u8) as char).collect() };
        let words: Vec<String> = (0..n).map(|_| word()).collect();
        let vocab = Vocab {
            model: "llama",
            tokens: words.iter().map(String::as_str).chain(["<unk>"]).collect(),
            scores: vec![0.0; n + 1],
            kinds: vec![kigo::tokenizer::TokenKind::Control; n + 1],
            unk: Some(n as u32),
            ..Vocab::default()
        };
        let (_tokenizer, time, peak) = measure(|| Tokenizer::from_vocab(&vocab).expect("made"));
        println!("{n} control tokens of {len} bytes: made in {time:.1?}, {peak} bytes");
        let (asked, tables) = ((64 << 10) + (n + 1) * 400 + n * len * 80, n * len + n * 32 + (64 << 10));
        assert!(peak <= asked + tables, "{n} of {len}: {peak}, asked for {asked}");
    }
}
