//! LongRoPE: a session's context length chooses its ropes, and no key of the one kind comes into a session of the other.

use std::path::PathBuf;
use std::sync::Arc;

use kigo::backend::Device;
use kigo::backend::cpu::{CpuDevice, CpuOptions};
use kigo::backend::reference::ReferenceDevice;
use kigo::engine::{Append, Engine, LogSink, Model, Session, SessionOptions, append_batch};

/// The file's context, and the original one, which the short factors are for.
const N_CTX: usize = 256;
const ORIGINAL: usize = 128;

fn load(device: Arc<dyn Device>) -> Model {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/phi3-longrope-f16.gguf");
    let engine = Engine::with_device(device, 2, None, LogSink::silent());
    engine.load_file(&path, &mut |_, _| Ok(())).expect("loads")
}

fn session(model: &Model, n_ctx: usize, reuse_prefix: bool) -> Session {
    let options = SessionOptions { n_ctx: Some(n_ctx), reuse_prefix, ..SessionOptions::default() };
    Session::new(model, options).expect("fits")
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i * 37 % 260).collect()
}

fn bits(session: &Session) -> Vec<u32> {
    let mut logits = vec![0.0f32; session.n_vocab()];
    session.logits(&mut logits).expect("has logits");
    logits.iter().map(|l| l.to_bits()).collect()
}

/// The logits behind the first tokens, and behind one more.
fn alone(device: &Arc<dyn Device>, n_ctx: usize) -> [Vec<u32>; 2] {
    let session = session(&load(Arc::clone(device)), n_ctx, false);
    [&tokens(100)[..], &[7]].map(|tokens| {
        session.prefill(tokens).expect("fits");
        bits(&session)
    })
}

#[test]
fn sessions_of_either_kind_stay_apart() {
    let cpu: Arc<dyn Device> = Arc::new(CpuDevice::new(CpuOptions { n_threads: 2, isa: None }).expect("has threads"));
    for device in [cpu, Arc::new(ReferenceDevice::PLAIN)] {
        let [short, long] = [ORIGINAL, N_CTX].map(|n_ctx| alone(&device, n_ctx));
        assert_ne!(short[0], long[0], "the factors differ");
        assert_eq!(alone(&device, ORIGINAL + 1), long, "by the session's limit, not by its tokens");

        // Prefixes are found among one's own kind only.
        let (model, mut kept) = (load(Arc::clone(&device)), Vec::new());
        for (n_ctx, expected, n_reused) in
            [(ORIGINAL, &short, 0), (N_CTX, &long, 0), (64 * 2, &short, 64), (200, &long, 64)]
        {
            let session = session(&model, n_ctx, true);
            session.prefill(&tokens(100)).expect("fits");
            assert_eq!(
                (bits(&session), session.facts().expect("free").n_reused),
                (expected[0].clone(), n_reused),
                "{n_ctx}"
            );
            // The next ones find the pages of those that are there.
            kept.push(session);
        }

        // In one batch.
        let both = [ORIGINAL, N_CTX].map(|n_ctx| session(&model, n_ctx, false));
        let tokens = tokens(100);
        let entries: Vec<Append<'_>> = both.iter().map(|session| Append { session, tokens: &tokens }).collect();
        for outcome in append_batch(&entries) {
            outcome.expect("fits");
        }
        assert_eq!(both.each_ref().map(bits), [short[0].clone(), long[0].clone()]);

        // Forks and restored sessions are of their parent's kind.
        for (parent, expected) in both.iter().zip([&short, &long]) {
            let fork = parent.fork().expect("forks");
            let mut blob = vec![0; parent.saved_bytes().expect("free")];
            parent.save(&mut blob).expect("fits");
            for session in [fork, Session::restore(&model, &blob).expect("is its own")] {
                session.prefill(&[7]).expect("fits");
                assert_eq!(bits(&session), expected[1]);
            }
        }
    }
}
