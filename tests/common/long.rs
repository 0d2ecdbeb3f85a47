//! LongRoPE: a session's context length chooses its ropes, and no key of the one kind comes into a session of the other.

use std::path::PathBuf;
use std::sync::Arc;

use kigo::backend::Device;
use kigo::engine::{
    Append, Engine, GenerateOptions, LoadOptions, LogSink, Model, Session, SessionOptions, append_batch,
};

/// The file's context, and the original one, which the short factors are for.
const N_CTX: usize = 256;
const ORIGINAL: usize = 128;

/// The parity fixture.
pub fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/phi3-longrope-f16.gguf")
}

fn load(device: &Arc<dyn Device>, strict: bool) -> Model {
    let engine = Engine::with_device(Arc::clone(device), 2, None, LogSink::silent());
    let options = LoadOptions { strict, ..LoadOptions::default() };
    engine.load_file_with(&fixture(), options, &mut |_, _| Ok(())).expect("loads")
}

fn session(model: &Model, n_ctx: usize, reuse_prefix: bool) -> Session {
    let options = SessionOptions { n_ctx: Some(n_ctx), reuse_prefix, ..SessionOptions::default() };
    let session = Session::new(model, options).expect("fits");
    assert_eq!(session.facts().expect("free").is_long, n_ctx > ORIGINAL, "{n_ctx}");
    session
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i * 37 % 260).collect()
}

fn bits(session: &Session) -> Vec<u32> {
    let mut logits = vec![0.0f32; session.n_vocab()];
    session.logits(&mut logits).expect("has logits");
    logits.iter().map(|l| l.to_bits()).collect()
}

/// What a session comes to: the logits behind the first tokens, behind one more, and what it generates then.
#[derive(Clone, Debug, PartialEq)]
struct Course {
    prompt: Vec<u32>,
    step: Vec<u32>,
    generated: Vec<u32>,
}

/// What follows the first tokens.
fn go_on(session: &Session, prompt: Vec<u32>) -> Course {
    session.prefill(&[7]).expect("fits");
    let (step, mut generated) = (bits(session), Vec::new());
    let options = GenerateOptions { max_tokens: Some(6), ignore_end: true, ..GenerateOptions::default() };
    let on_token = &mut |token: Option<u32>, _: &str| {
        generated.extend(token);
        true
    };
    session.generate(&options, on_token).expect("fits");
    Course { prompt, step, generated }
}

/// On a model of its own.
fn alone(device: &Arc<dyn Device>, strict: bool, n_ctx: usize) -> Course {
    let session = session(&load(device, strict), n_ctx, false);
    session.prefill(&tokens(100)).expect("fits");
    go_on(&session, bits(&session))
}

/// Sessions of either kind on one model, one after another and side by side, have what they have on models of their own.
pub fn sessions_of_either_kind_stay_apart(device: Arc<dyn Device>, strict: bool) {
    let [short, long] = [ORIGINAL, N_CTX].map(|n_ctx| alone(&device, strict, n_ctx));
    assert_ne!(short.prompt, long.prompt, "the factors differ");
    assert_ne!(short.step, long.step, "the factors differ");
    assert_eq!(alone(&device, strict, ORIGINAL + 1), long, "by the session's limit, not by its tokens");

    // Prefixes are found among one's own kind only.
    let (model, mut kept) = (load(&device, strict), Vec::new());
    let default = Session::new(&model, SessionOptions::default()).expect("fits");
    assert!(default.facts().expect("free").is_long, "a session of all that the model was trained for");
    for (n_ctx, expected, n_reused) in
        [(ORIGINAL, &short, 0), (N_CTX, &long, 0), (64 * 2, &short, 64), (200, &long, 64)]
    {
        let session = session(&model, n_ctx, true);
        session.prefill(&tokens(100)).expect("fits");
        assert_eq!(session.facts().expect("free").n_reused, n_reused, "{n_ctx}");
        // A device that rounds a prompt by how it is cut has other bits where a part was there.
        if strict || n_reused == 0 {
            assert_eq!(go_on(&session, bits(&session)), *expected, "{n_ctx}");
        }
        // The next ones find the pages of those that are there.
        kept.push(session);
    }
    let both = side_by_side(&model, [&short, &long]);

    // Forks and restored sessions are of their parent's kind.
    for (parent, expected) in both.iter().zip([&short, &long]) {
        let fork = parent.fork().expect("forks");
        let mut blob = vec![0; parent.saved_bytes().expect("free")];
        parent.save(&mut blob).expect("fits");
        let is_long = parent.facts().expect("free").is_long;
        // On a model that has had neither kind, too.
        let restored =
            [&model, &load(&device, strict)].map(|model| Session::restore(model, &blob).expect("is its own"));
        for session in [fork].into_iter().chain(restored) {
            assert_eq!(session.facts().expect("free").is_long, is_long);
            assert_eq!(go_on(&session, bits(&session)), *expected);
        }
    }
}

/// Two of each kind, in one call: their prompts, then a token of each. Returns one of each, behind the prompt.
fn side_by_side(model: &Model, expected: [&Course; 2]) -> [Session; 2] {
    let all = [ORIGINAL, N_CTX, N_CTX, ORIGINAL].map(|n_ctx| session(model, n_ctx, false));
    let expected = [expected[0], expected[1], expected[1], expected[0]];
    let append = |tokens: &[u32]| {
        let entries: Vec<Append<'_>> = all.iter().map(|session| Append { session, tokens }).collect();
        append_batch(&entries).into_iter().for_each(|outcome| outcome.expect("fits"));
    };
    append(&tokens(100));
    for (session, expected) in all.iter().zip(expected) {
        assert_eq!(bits(session), expected.prompt);
    }
    let parents = [0, 1].map(|i| all[i].fork().expect("forks"));
    append(&[7]);
    for (session, expected) in all.iter().zip(expected) {
        assert_eq!(bits(session), expected.step);
    }
    parents
}
