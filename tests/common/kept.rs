//! Pages that stay when their sessions are gone: on a device that is given.

use std::sync::Arc;

use super::run::cpu;
use super::tiny::Tiny;
use kigo::backend::Device;
use kigo::engine::{CacheFacts, Engine, LoadOptions, LogSink, Model, Session, SessionOptions};
use kigo::gguf::TensorType;

/// An engine and a model in it.
pub fn load(device: Arc<dyn Device>, arch: &str, cap: Option<u64>, options: LoadOptions) -> (Engine, Model) {
    let mut tiny = Tiny::new(arch, TensorType::Q8_0);
    (tiny.shape.n_ctx, tiny.shape.n_vocab) = (4096, 512);
    let engine = Engine::with_device(device, 2, cap, LogSink::silent());
    let model = engine.load_memory_with(&tiny.bytes(), options, &mut |_, _| Ok(())).unwrap();
    (engine, model)
}

/// Options with so many pages for prefixes, and, if that is not 0, so many in all: of the pages that this model has.
pub fn pages(model: &Model, n_kept: u64, n_all: u64) -> LoadOptions {
    let page = model.cache_facts().page_bytes;
    let cache_bytes = (n_all > 0).then_some(n_all * page);
    LoadOptions { prefix_cache_bytes: n_kept * page, cache_bytes, ..Default::default() }
}

/// A model on the CPU that keeps so many pages for prefixes, of so many in all.
pub fn keeping(arch: &str, n_kept: u64, n_all: u64) -> (Engine, Model) {
    let (_, plain) = load(cpu(2), arch, None, LoadOptions::default());
    load(cpu(2), arch, None, pages(&plain, n_kept, n_all))
}

/// A session that takes prefixes over.
pub fn reusing(model: &Model) -> Session {
    salted(model, "")
}

/// The same with a salt.
pub fn salted(model: &Model, salt: &str) -> Session {
    let options = SessionOptions { reuse_prefix: true, prefix_salt: salt.into(), ..Default::default() };
    Session::new(model, options).unwrap()
}

/// `n` tokens of text number `text`, no two of which begin alike.
pub fn text(text: u32, n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| if i == 0 { text } else { (i * i * 31 + i * 7 + text) % 300 }).collect()
}

/// The bits of a session's logits.
pub fn bits(session: &Session) -> Vec<u32> {
    let mut logits = vec![0.0_f32; session.n_vocab()];
    session.logits(&mut logits).unwrap();
    logits.into_iter().map(f32::to_bits).collect()
}

/// Those of a session that nobody has anything in common with.
pub fn alone(model: &Model, tokens: &[u32]) -> Vec<u32> {
    let options = SessionOptions { prefix_salt: b"alone".to_vec(), ..Default::default() };
    let session = Session::new(model, options).unwrap();
    session.prefill(tokens).unwrap();
    bits(&session)
}

/// How many tokens a session has from others.
pub fn reused(session: &Session) -> usize {
    session.facts().unwrap().n_reused
}

/// Pages in use, and those of them that are retained.
pub fn used(model: &Model) -> (u64, u64) {
    let CacheFacts { n_pages_used, n_pages_retained, .. } = model.cache_facts();
    (n_pages_used, n_pages_retained)
}
