//! A file from anywhere: read, bound to an architecture, its vocabulary built, its weights loaded, a prompt run.

use std::time::Duration;

use kigo::engine::{LoadOptions, Session, SessionOptions};

use crate::support;

/// Texts that reach each part of a vocabulary.
const TEXTS: [&str; 4] = ["hello abc", " a\n\u{e9}\u{4e2d} 123  ", "<x><|im_end|></s><0x0A>", "\u{2581}\u{120}aaaa"];

/// What a file of `n` bytes may take: its own weights a few times over, and what is asked for ahead of a vocabulary.
fn most_bytes(n: usize) -> usize {
    (96 << 20) + 256 * n
}

/// One case.
pub fn run(file: &[u8]) {
    // Another target's model may be on the same engine.
    let before = support::engine().memory_used();
    support::bounded(Duration::from_secs(2), most_bytes(file.len()), || load(file));
    assert_eq!(support::engine().memory_used(), before, "a load leaves memory charged");
}

fn load(file: &[u8]) {
    let engine = support::engine();
    let loaded = engine.load_memory(file, &mut |_, _| Ok(()));
    // What has no weights may have a vocabulary; where it has both the second is seldom of interest.
    if loaded.is_err() || file.len().is_multiple_of(16) {
        let vocabulary = LoadOptions { vocabulary: true, ..LoadOptions::default() };
        if let Ok(model) = engine.load_memory_with(file, vocabulary, &mut |_, _| Ok(())) {
            assert!(Session::new(&model, SessionOptions::default()).is_err(), "without weights there are no sessions");
            let _ = model.tokenize(TEXTS[1], true, true).map(|ids| model.detokenize(&ids, false));
        }
    }
    let Ok(model) = loaded else { return };
    for index in 0..model.facts().n_meta {
        let key = model.meta_key(index).expect("as many keys as the facts say").to_owned();
        model.meta_text(&key).expect("a key that is there has a text");
        model.meta_type(&key).expect("and a type");
    }
    let mut prompt = Vec::new();
    for (i, text) in TEXTS.iter().enumerate() {
        let Ok(ids) = model.tokenize(text, i % 2 == 0, i < 3) else { continue };
        model.detokenize(&ids, true).expect("its own ids");
        prompt.extend(ids);
    }
    let _ = model.render_chat(&[("system", "a"), ("user", "<|im_end|>hello")], true);
    prompt.truncate(12);
    let options = SessionOptions { n_ctx: Some(model.facts().n_ctx_train.min(64)), ..Default::default() };
    let Ok(session) = Session::new(&model, options) else { return };
    for ids in prompt.chunks(8) {
        if session.prefill(ids).is_err() {
            return;
        }
        // Weights of any bits give logits of any bits; a choice may be refused.
        let _ = session.sample();
    }
}
