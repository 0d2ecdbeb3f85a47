//! Sessions as bytes: what is restored goes on as the saved one would have, and no bytes do harm.

use std::sync::Arc;
use std::time::Instant;

use crate::common::hold::hold;
use crate::common::random::mix;
use crate::common::run::cpu;
use crate::common::tiny::Tiny;
use kigo::backend::Device;
use kigo::backend::reference::ReferenceDevice;
use kigo::engine::{
    Engine, GenerateOptions, Grammar, LoadOptions, LogSink, Model, Session, SessionOptions, StopReason,
};
use kigo::error::{Error, Status};
use kigo::gguf::TensorType;
use kigo::sampler::SamplingParams;

fn load(device: Arc<dyn Device>, tiny: &Tiny, options: LoadOptions) -> Model {
    let engine = Engine::with_device(device, 1, None, LogSink::silent());
    engine.load_memory_with(&tiny.bytes(), options, &mut |_, _| Ok(())).unwrap()
}

fn model(device: Arc<dyn Device>) -> Model {
    load(device, &Tiny::new("qwen3", TensorType::Q8_0), LoadOptions::default())
}

fn prompt(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i * 37 % 500).collect()
}

fn sampling() -> SamplingParams {
    SamplingParams {
        temperature: 1.5,
        top_k: 50,
        top_p: 0.95,
        repetition_penalty: 1.1,
        penalty_window: 20,
        logit_bias: vec![(3, -2.0), (8, f32::NEG_INFINITY), (9, 1.0)],
        seed: 77,
        ..Default::default()
    }
}

fn saved(session: &Session) -> Vec<u8> {
    let mut blob = vec![0xa5; session.saved_bytes().unwrap()];
    assert_eq!(session.save(&mut blob).unwrap(), blob.len());
    blob
}

/// Tokens, logits as bits, and the next ten tokens.
fn future(session: &Session) -> (Vec<u32>, Option<Vec<u32>>, Vec<u32>) {
    let tokens = session.with_tokens(|t| Ok(t.to_vec())).unwrap();
    let mut logits = vec![0.0_f32; session.n_vocab()];
    let logits = session.logits(&mut logits).ok().map(|()| logits.iter().map(|l| l.to_bits()).collect());
    let mut next = Vec::new();
    for _ in 0..10 {
        match session.sample() {
            Ok(token) => next.push(token),
            Err(_) => next.push(1),
        }
        session.prefill(&next[next.len() - 1..]).unwrap();
    }
    (tokens, logits, next)
}

#[test]
fn a_restored_session_goes_on_as_the_saved_one() {
    for device in [cpu(2), Arc::new(ReferenceDevice::PLAIN) as Arc<dyn Device>] {
        // Another load of the same file, as in another process.
        let (one, two) = (model(Arc::clone(&device)), model(device));
        for n in [0, 1, 17, 63, 64, 65, 200] {
            let options = SessionOptions { n_ctx: Some(300), sampling: sampling(), ..Default::default() };
            let session = Session::new(&one, options).unwrap();
            if n > 0 {
                session.prefill(&prompt(n)).unwrap();
            }
            let blob = saved(&session);
            assert_eq!(saved(&session), blob, "saving again gives the same");
            let restored = Session::restore(&two, &blob).unwrap();
            assert_eq!(restored.n_ctx(), 300);
            assert_eq!(saved(&restored), blob);
            assert_eq!(future(&restored), future(&session), "{n} tokens");
            session.truncate(n / 2).unwrap();
            let without_logits = saved(&session);
            assert_eq!(future(&Session::restore(&two, &without_logits).unwrap()), future(&session));
        }
        assert_eq!((one.cache_facts().n_pages_used, two.cache_facts().n_pages_used), (0, 0));
    }
}

#[test]
fn a_fork_is_saved_like_its_parent() {
    let model = model(cpu(2));
    let session = Session::new(&model, SessionOptions::default()).unwrap();
    session.prefill(&prompt(100)).unwrap();
    let fork = session.fork().unwrap();
    assert_eq!(saved(&fork), saved(&session));
    fork.prefill(&[5]).unwrap();
    let restored = Session::restore(&model, &saved(&fork)).unwrap();
    let again = restored.fork().unwrap();
    assert_eq!(future(&again), future(&fork));
}

#[test]
fn a_restored_session_neither_takes_nor_gives_a_prefix() {
    let model = model(cpu(2));
    let options = || SessionOptions { reuse_prefix: true, ..Default::default() };
    let other = Session::new(&model, options()).unwrap();
    other.prefill(&prompt(130)).unwrap();
    let session = Session::new(&model, options()).unwrap();
    session.prefill(&prompt(130)).unwrap();
    assert_eq!(session.facts().unwrap().n_reused, 128);
    let restored = Session::restore(&model, &saved(&session)).unwrap();
    assert_eq!(restored.facts().unwrap().n_reused, 0);
    restored.truncate(0).unwrap();
    restored.prefill(&prompt(130)).unwrap();
    assert_eq!(restored.facts().unwrap().n_reused, 0);
    let again = Session::restore(&model, &saved(&session)).unwrap();
    drop((other, session, restored));
    let heir = Session::new(&model, options()).unwrap();
    heir.prefill(&prompt(130)).unwrap();
    assert_eq!((heir.facts().unwrap().n_reused, again.facts().unwrap().n_tokens), (0, 130));
}

#[test]
fn a_constraint_goes_on_from_where_it_was() {
    let (one, two) = (model(cpu(2)), model(cpu(2)));
    let schema = r#"{"type": "object", "properties": {"a": {"enum": ["xy", "z"]}, "b": {"type": "integer"}},
        "required": ["a", "b"], "additionalProperties": false}"#;
    let grammars =
        [Grammar::JsonSchema(schema), Grammar::Regex("(ab|c[0-9]){6}"), Grammar::Lark(r#"start: ("p" | "qr") "s"~4"#)];
    // Up to `most` more tokens and why it ended.
    let text = |session: &Session, most| {
        let mut text = String::new();
        let options = GenerateOptions { max_tokens: Some(most), ..Default::default() };
        let generated = session
            .generate(&options, &mut |_, piece| {
                text.push_str(piece);
                true
            })
            .unwrap();
        (text, generated.reason)
    };
    for grammar in grammars {
        for n in 0..6 {
            let options = SessionOptions {
                sampling: SamplingParams { temperature: 1.5, seed: n as u64, ..Default::default() },
                ..Default::default()
            };
            let session = Session::new(&one, options).unwrap();
            session.prefill(&prompt(10)).unwrap();
            hold(&session, grammar).unwrap();
            text(&session, n);
            let blob = saved(&session);
            let restored = Session::restore(&two, &blob).unwrap();
            assert_eq!(saved(&restored), blob);
            // Saved before it has looked at its constraint, and forked: the same again.
            let again = Session::restore(&one, &saved(&restored)).unwrap();
            let fork = restored.fork().unwrap();
            let expected = text(&session, 60);
            // A schema allows spaces, of which random weights may write as many as they can.
            let ends = matches!(expected.1, StopReason::EndToken(_));
            assert!(ends || matches!(grammar, Grammar::JsonSchema(_)) && expected.0.len() > 9, "{expected:?}");
            for other in [&restored, &again, &fork] {
                assert_eq!(text(other, 60), expected, "{grammar:?} after {n}");
            }
            // It knows from where on it holds: back to there, and the whole text is held to it.
            restored.truncate(9).unwrap();
            assert!(matches!(restored.sample(), Err(Error::State { .. })));
            restored.prefill(&prompt(10)[9..]).unwrap();
            let (whole, _) = text(&restored, 60);
            session.truncate(9).unwrap();
            session.prefill(&prompt(10)[9..]).unwrap();
            assert_eq!(text(&session, 60).0, whole);
            session.set_constraint(None).unwrap();
            assert!(saved(&session).len() <= saved(&restored).len() - 64, "none is saved");
        }
    }
}

fn refusal(model: &Model, blob: &[u8]) -> String {
    let used = model.cache_facts().n_pages_used;
    let error = Session::restore(model, blob).err().expect("a refusal");
    assert_eq!(error.status(), Status::InvalidArgument, "{error}");
    assert_eq!(model.cache_facts().n_pages_used, used);
    error.to_string()
}

#[test]
fn what_is_not_this_models_is_refused_with_the_reason() {
    let this = model(cpu(2));
    let session = Session::new(&this, SessionOptions::default()).unwrap();
    session.prefill(&prompt(70)).unwrap();
    let blob = saved(&session);
    let mut other_weights = Tiny::new("qwen3", TensorType::Q8_0);
    other_weights.seed = 2;
    let starts = |text: String, start: &str| assert!(text.starts_with(start), "{text}");
    for other in [other_weights, Tiny::new("qwen3", TensorType::Q4_0), Tiny::new("llama", TensorType::Q8_0)] {
        starts(refusal(&load(cpu(2), &other, LoadOptions::default()), &blob), "blob is of the model ");
    }
    let reference = refusal(&model(Arc::new(ReferenceDevice::PLAIN)), &blob);
    starts(reference, "blob is of another device's cache layout, ");
    starts(refusal(&this, b""), "blob is no saved session, 0 bytes; expected what kigo_session_save() wrote");
    starts(refusal(&this, &[7; 500]), "blob is no saved session, 500 bytes");
    starts(refusal(&this, &blob[..100]), "blob is cut off, 100 bytes");
    let mut longer = blob.clone();
    longer.push(0);
    starts(refusal(&this, &longer), &format!("blob is {} bytes; expected {}, as it", blob.len() + 1, blob.len()));
    let mut version = blob.clone();
    version[8] = 1;
    assert_eq!(refusal(&this, &version), "blob is of version 1; expected version 2");
    let mut damaged = blob.clone();
    let at = blob.len() - 1000;
    damaged[at] ^= 4;
    starts(refusal(&this, &damaged), "blob is damaged: its checksum is ");

    let mut small = vec![0; blob.len() - 1];
    let error = session.save(&mut small).unwrap_err();
    assert!(matches!(error, Error::BufferTooSmall { needed, .. } if needed == blob.len()));
    let page = this.cache_facts().page_bytes;
    let options = LoadOptions { cache_bytes: Some(page), ..Default::default() };
    let full = load(cpu(2), &Tiny::new("qwen3", TensorType::Q8_0), options);
    let error = Session::restore(&full, &blob).err().unwrap();
    assert_eq!(error.to_string(), "2 cache pages needed, 0 of 1 free".replace("0 of", "1 of"));
}

#[test]
fn every_cut_and_thousands_of_flipped_bits_are_refused() {
    let this = model(cpu(2));
    let session = Session::new(&this, SessionOptions { sampling: sampling(), ..Default::default() }).unwrap();
    session.prefill(&prompt(66)).unwrap();
    let blob = saved(&session);
    for n in (0..blob.len()).step_by(97).chain(0..300) {
        refusal(&this, &blob[..n]);
    }
    // The whole head, and any others.
    let some = (0..2000).map(|i| mix(i) as usize % (8 * blob.len()));
    for bit in (0..8 * 192).chain(some) {
        let mut flipped = blob.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        refusal(&this, &flipped);
    }
}

/// The checksum of a blob, as `src/engine/hash.rs` has it, to forge one.
fn checksum(blob: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let step = |lane: u64, word: u64| (lane ^ word).wrapping_mul(K).rotate_left(29);
    let mut lanes: [u64; 8] = std::array::from_fn(|i| step(0, i as u64 + 1));
    // The 160 bytes of the head make three blocks, the last half filled.
    let mut padded = blob[32..192].to_vec();
    padded.resize(192, 0);
    padded.extend_from_slice(&blob[192..]);
    for block in padded.as_chunks::<64>().0 {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane = step(*lane, u64::from_le_bytes(*word));
        }
    }
    let mut hash = lanes.iter().fold(step(K, blob.len() as u64 - 32), |hash, lane| step(hash, *lane));
    for _ in 0..2 {
        hash = (hash ^ hash >> 32).wrapping_mul(K);
    }
    hash ^ hash >> 32
}

#[test]
fn a_blob_of_another_order_of_sums_is_refused() {
    let this = model(cpu(2));
    let session = Session::new(&this, SessionOptions { sampling: sampling(), ..Default::default() }).unwrap();
    session.prefill(&prompt(66)).unwrap();
    let of_order = |n: u64| {
        let mut blob = saved(&session);
        assert_eq!(blob[152..160], 1_u64.to_le_bytes());
        blob[152..160].copy_from_slice(&n.to_le_bytes());
        let sum = checksum(&blob);
        blob[24..32].copy_from_slice(&sum.to_le_bytes());
        Session::restore(&this, &blob)
    };
    let error = of_order(2).err().unwrap();
    assert_eq!(error.status(), Status::Unsupported);
    assert_eq!(error.to_string(), "blob is of the order of sums 2; expected this device's, 1");
    // Written before the orders had numbers.
    assert_eq!(future(&of_order(0).unwrap()), future(&session));
}

#[test]
fn a_forged_blob_gives_a_status_or_a_session_and_nothing_worse() {
    let this = model(cpu(2));
    let session = Session::new(&this, SessionOptions { sampling: sampling(), ..Default::default() }).unwrap();
    session.prefill(&prompt(66)).unwrap();
    hold(&session, Grammar::Regex("[a-z]{2,9}x|[0-9]+")).unwrap();
    let blob = saved(&session);
    assert_eq!(checksum(&blob), u64::from_le_bytes(*blob[24..].first_chunk().unwrap()), "the test forges rightly");
    let (mut made, mut refused) = (0, 0);
    let mut attempt = |mut forged: Vec<u8>| {
        let sum = checksum(&forged);
        forged[24..32].copy_from_slice(&sum.to_le_bytes());
        match Session::restore(&this, &forged) {
            Ok(session) => {
                made += 1;
                // Numbers that are none may come out; the calls go on.
                let _ = session.sample();
                let _ = session.prefill(&[1, 2, 3]);
                let _ = session.sample();
            }
            Err(error) => {
                assert!(matches!(error.status(), Status::InvalidArgument | Status::Unsupported), "{error}");
                refused += 1;
            }
        }
    };
    for i in 0..600 {
        let random = |k: u64| mix(i * 16 + k);
        let mut forged = blob.clone();
        for k in 0..1 + i % 3 {
            // In the numbers of the head, in the tokens, or anywhere.
            let at = match i % 3 {
                0 => 56 + random(k) as usize % 96,
                1 => 192 + random(k) as usize % 600,
                _ => 56 + random(k) as usize % (blob.len() - 56),
            };
            forged[at] = match i % 5 {
                0 => 0xff,
                1 => 0,
                _ => random(k + 8) as u8,
            };
        }
        attempt(forged);
    }
    // The constraint's kind, first token and length, and each byte of its text.
    let n_vocab = session.n_vocab();
    let text = 192 + (66 * 4_usize).next_multiple_of(64) + 64 + (n_vocab * 4).next_multiple_of(64);
    assert_eq!(&blob[text..text + 6], b"[a-z]{");
    for (at, numbers) in [(128, [0_u64, 1, 3, 4]), (136, [0, 65, 67, u64::MAX]), (144, [0, 5, 64, 1 << 40])] {
        for number in numbers {
            let mut forged = blob.clone();
            forged[at..at + 8].copy_from_slice(&number.to_le_bytes());
            attempt(forged);
        }
    }
    for i in 0..200 {
        let mut forged = blob.clone();
        forged[text + i % 18] = mix(i as u64) as u8;
        attempt(forged);
    }
    // Keys and values that are all infinite, and all no numbers.
    for half in [[0x00, 0x7c], [0xff, 0xff]] {
        let mut forged = blob.clone();
        let pages = forged.len() - 2 * this.cache_facts().page_bytes as usize;
        forged[pages..].as_chunks_mut::<2>().0.fill(half);
        attempt(forged);
    }
    assert!(made > 100 && refused > 100, "{made} made, {refused} refused");
    drop(session);
    assert_eq!(this.cache_facts().n_pages_used, 0);
}

/// Seconds of the fastest of several: a copy of the blob, saving into it, restoring it.
fn times(model: &Model, session: &Session, n: usize) -> (usize, [f64; 3]) {
    let mut blob = saved(session);
    let mut best = [f64::MAX; 3];
    let mut other = vec![1_u8; blob.len()];
    for _ in 0..n {
        let begin = Instant::now();
        other.copy_from_slice(&blob);
        best[0] = best[0].min(begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        session.save(&mut blob).unwrap();
        best[1] = best[1].min(begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        let restored = Session::restore(model, &blob).unwrap();
        best[2] = best[2].min(begin.elapsed().as_secs_f64());
        drop(restored);
    }
    let [copy, save, restore] = best.map(|seconds| blob.len() as f64 / seconds / 1e9);
    println!("{} MB: save {save:.1} GB/s, restore {restore:.1}, copy {copy:.1}", blob.len() / 1_000_000);
    (blob.len(), best)
}

#[test]
fn a_long_session_is_saved_and_restored_at_the_speed_of_memory() {
    // The cache of a small real model: 15 KB a token.
    let mut tiny = Tiny::new("llama", TensorType::Q4_0);
    (tiny.shape.n_layers, tiny.shape.n_ctx, tiny.shape.head_dim, tiny.shape.n_kv_heads) = (15, 4608, 64, 4);
    tiny.shape.n_heads = 4;
    let model = load(cpu(2), &tiny, LoadOptions::default());
    let session = Session::new(&model, SessionOptions::default()).unwrap();
    session.prefill(&prompt(4096)).unwrap();
    let (_, [copy, save, restore]) = times(&model, &session, 5);
    // A copy and a checksum; restoring also takes fresh pages from the system. The machine may be busy.
    assert!(save < 8.0 * copy && restore < 20.0 * copy, "save {save}, restore {restore}, copy {copy}");
}

#[test]
fn a_long_session_of_a_real_model_too() {
    let path = std::path::Path::new("models/SmolLM2-135M-Instruct-Q4_1.gguf");
    if std::env::var_os("KIGO_MEASURE").is_none() || !path.is_file() {
        println!("skipped: KIGO_MEASURE is not set, or {} is not there", path.display());
        return;
    }
    let engine = Engine::with_device(cpu(2), 2, None, LogSink::silent());
    let model = engine.load_file(path, &mut |_, _| Ok(())).unwrap();
    let session = Session::new(&model, SessionOptions::default()).unwrap();
    session.prefill(&prompt(4096)).unwrap();
    let (n_bytes, [copy, save, restore]) = times(&model, &session, 15);
    assert!(n_bytes > 90_000_000 && save < 8.0 * copy && restore < 20.0 * copy);
}
