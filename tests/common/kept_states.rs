//! Models whose layers keep a state: it goes with its session wherever that goes, and what has to be computed again is little.

use kigo::engine::{
    Append, Engine, EngineOptions, LoadOptions, LogSink, Model, Session, SessionOptions, Tap, append_batch,
};
use kigo::error::{Error, Status};
use kigo::gguf::{TensorType, Value};

use super::tiny::Tiny;

/// A device, and whether it computes prompts as steps: bits are compared with those of whole prompts.
pub struct On {
    pub device: &'static str,
    pub strict: bool,
}

impl On {
    fn engine(&self) -> Engine {
        let log = LogSink::silent();
        Engine::new(EngineOptions { device: self.device, n_threads: 1, memory_cap: None, log }).unwrap()
    }
}

/// A convolution's state, that of a DeltaNet, and that of a Mamba2, also beside attention.
const ARCHS: [&str; 4] = ["lfm2", "qwen35", "nemotron_h_moe", "falcon-h1"];
/// More than the checkpoints of a long session of any of them.
const PLENTY: u64 = 0;

fn load(on: &On, arch: &str, options: LoadOptions) -> Model {
    let mut tiny = Tiny::new(arch, TensorType::Q8_0);
    (tiny.shape.n_vocab, tiny.shape.n_ctx) = (320, 4096);
    let options = LoadOptions { strict: on.strict, ..options };
    on.engine().load_memory_with(&tiny.bytes(), options, &mut |_, _| Ok(())).unwrap()
}

fn with_checkpoints(on: &On, arch: &str, checkpoint_bytes: u64) -> Model {
    load(on, arch, LoadOptions { checkpoint_bytes, ..LoadOptions::default() })
}

fn text(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * 37 + i / 5) % 300).collect()
}

fn session(model: &Model) -> Session {
    Session::new(model, SessionOptions::default()).unwrap()
}

fn sharing(model: &Model) -> Session {
    Session::new(model, SessionOptions { reuse_prefix: true, ..SessionOptions::default() }).unwrap()
}

fn bits(session: &Session) -> Vec<u32> {
    let mut logits = vec![0.0_f32; session.n_vocab()];
    session.logits(&mut logits).unwrap();
    logits.iter().map(|l| l.to_bits()).collect()
}

/// The logits of these tokens in a session of their own.
fn alone(model: &Model, tokens: &[u32]) -> Vec<u32> {
    let session = session(model);
    session.prefill(tokens).unwrap();
    bits(&session)
}

pub fn truncating_computes_at_most_as_much_again_as_it_takes_away(on: &On) {
    for arch in ARCHS {
        let state = with_checkpoints(on, arch, PLENTY).facts().state_bytes;
        // As many as distances that double want, and as many as there is room for.
        for checkpoint_bytes in [14 * state, PLENTY] {
            let model = with_checkpoints(on, arch, checkpoint_bytes);
            let tokens = text(2011);
            for taken in [1, 11, 40, 64, 65, 100, 200, 411, 900, 1500, 2000] {
                let session = session(&model);
                session.prefill(&tokens).unwrap();
                let before = model.figures().n_recomputed;
                session.truncate(tokens.len() - taken).unwrap();
                let again = model.figures().n_recomputed - before;
                assert!(again <= taken.max(64) as u64, "{arch}: {again} computed again of {taken} taken away");
                session.prefill(&[5, 6]).unwrap();
                let way = [&tokens[..tokens.len() - taken], &[5, 6]].concat();
                assert_eq!(bits(&session), alone(&model, &way), "{arch}: {taken} taken away");
            }
        }
    }
}

pub fn what_has_been_computed_again_has_checkpoints_of_its_own(on: &On) {
    let model = with_checkpoints(on, "qwen35", PLENTY);
    let (tokens, session) = (text(700), session(&model));
    session.prefill(&tokens).unwrap();
    for n in [630, 600, 500, 470, 192, 30] {
        session.truncate(n).unwrap();
        let before = model.figures().n_recomputed;
        session.truncate(n - 20).unwrap();
        assert!(model.figures().n_recomputed - before <= 64);
        session.prefill(&tokens[n - 20..n]).unwrap();
        assert_eq!(bits(&session), alone(&model, &tokens[..n]), "{n} tokens");
    }
}

pub fn a_budget_bounds_checkpoints_and_none_of_them_is_no_harm(on: &On) {
    for arch in ARCHS {
        let state = with_checkpoints(on, arch, PLENTY).facts().state_bytes;
        for most in [0, 1, 3] {
            let model = with_checkpoints(on, arch, most * state + 1);
            let sessions: Vec<Session> = (0..3).map(|_| session(&model)).collect();
            for (i, session) in sessions.iter().enumerate() {
                session.prefill(&text(500 + i)).unwrap();
                for token in text(70) {
                    session.prefill(&[token]).unwrap();
                }
            }
            let facts = model.cache_facts();
            assert_eq!((facts.n_checkpoints, facts.checkpoint_limit_bytes), (most, most * state), "{arch}");
            assert_eq!(sessions.iter().map(|s| s.facts().unwrap().n_checkpoints as u64).sum::<u64>(), most);
            for (i, session) in sessions.iter().enumerate() {
                session.truncate(333).unwrap();
                session.prefill(&[9]).unwrap();
                let way = [&text(500 + i)[..333], &[9]].concat();
                assert_eq!(bits(session), alone(&model, &way), "{arch}: {most} checkpoints");
            }
            drop(sessions);
            let facts = model.cache_facts();
            assert_eq!((facts.used_bytes, facts.n_states, facts.n_checkpoints), (0, 0, 0), "{arch}");
        }
    }
}

pub fn a_prompt_that_many_begin_with_is_computed_once(on: &On) {
    for arch in ARCHS {
        let model = with_checkpoints(on, arch, PLENTY);
        let prompt = |end: u32| [&text(1024)[..], &[end; 9]].concat();
        let first = sharing(&model);
        first.prefill(&prompt(0)).unwrap();
        let others: Vec<Session> = (0..7).map(|_| sharing(&model)).collect();
        let prompts: Vec<Vec<u32>> = (1..8).map(prompt).collect();
        let entries: Vec<_> = others.iter().zip(&prompts).map(|(session, tokens)| Append { session, tokens }).collect();
        append_batch(&entries).into_iter().for_each(|outcome| outcome.unwrap());
        for (session, tokens) in others.iter().zip(&prompts) {
            assert_eq!((session.facts().unwrap().n_reused, bits(session)), (1024, alone(&model, tokens)), "{arch}");
        }
        // In one batch the others wait for the first.
        let model = with_checkpoints(on, arch, PLENTY);
        let sessions: Vec<Session> = (0..4).map(|_| sharing(&model)).collect();
        let entries: Vec<_> =
            sessions.iter().zip(&prompts).map(|(session, tokens)| Append { session, tokens }).collect();
        append_batch(&entries).into_iter().for_each(|outcome| outcome.unwrap());
        let reused: Vec<usize> = sessions.iter().map(|session| session.facts().unwrap().n_reused).collect();
        assert_eq!((reused[0], reused[1..].iter().all(|n| *n == 1024)), (0, true), "{arch}: {reused:?}");
        assert_eq!(bits(&sessions[3]), alone(&model, &prompts[3]), "{arch}");
        // A prefix is shared up to a checkpoint: behind another text after 64 tokens there is one at the beginning of the page.
        let other = sharing(&model);
        let way = [&text(700)[..], &[7; 70]].concat();
        other.prefill(&way).unwrap();
        assert!(other.facts().unwrap().n_reused.is_multiple_of(64), "{arch}");
        assert_eq!(bits(&other), alone(&model, &way), "{arch}");
    }
}

pub fn forks_go_their_own_ways_and_a_failed_call_leaves_the_state_as_it_was(on: &On) {
    for arch in ARCHS {
        let model = with_checkpoints(on, arch, PLENTY);
        let (tokens, trunk) = (text(300), session(&model));
        trunk.prefill(&tokens).unwrap();
        let fork = trunk.fork().unwrap();
        assert_eq!((trunk.facts().unwrap().state_bytes, model.cache_facts().n_states), (model.facts().state_bytes, 1));
        fork.prefill(&[1, 2, 3]).unwrap();
        trunk.prefill(&[4]).unwrap();
        assert_eq!(bits(&fork), alone(&model, &[&tokens[..], &[1, 2, 3]].concat()), "{arch}");
        assert_eq!(bits(&trunk), alone(&model, &[&tokens[..], &[4]].concat()), "{arch}");
        // Stopped between passes, and inside of one when its logits are there already.
        let before = bits(&trunk);
        let longer = [&tokens[..], &[4], &text(900)[100..]].concat();
        let mut passes = 0;
        let outcome = trunk.advance(
            &longer,
            Some(&mut |_, _| {
                passes += 1;
                passes < 3
            }),
        );
        assert!(matches!(outcome, Err(Error::Cancelled)) && passes == 3, "{arch}");
        trunk.set_tap(Some(Tap::new(u64::MAX, Box::new(|event| event.name != "logits")))).unwrap();
        assert!(matches!(trunk.prefill(&[8]), Err(Error::Cancelled)), "{arch}");
        trunk.set_tap(None).unwrap();
        assert_eq!(bits(&trunk), before, "{arch}");
        trunk.prefill(&longer[301..]).unwrap();
        assert_eq!(bits(&trunk), alone(&model, &longer), "{arch}");
        // A truncation that is cancelled, too.
        trunk.cancel();
        assert!(matches!(trunk.truncate(777), Err(Error::Cancelled)), "{arch}");
        trunk.prefill(&[6]).unwrap();
        assert_eq!(bits(&trunk), alone(&model, &[&longer[..], &[6]].concat()), "{arch}");
    }
}

pub fn a_saved_session_is_its_bytes_again_and_goes_on_with_the_same_bits(on: &On) {
    for arch in ARCHS {
        let model = with_checkpoints(on, arch, PLENTY);
        let other = with_checkpoints(on, if arch == "lfm2" { "qwen35" } else { "lfm2" }, PLENTY);
        let (tokens, origin) = (text(200), session(&model));
        origin.prefill(&tokens).unwrap();
        let blob = |session: &Session| {
            let mut blob = vec![0; session.saved_bytes().unwrap()];
            session.save(&mut blob).unwrap();
            blob
        };
        let saved = blob(&origin);
        assert_eq!(saved[168..176], model.facts().state_bytes.to_le_bytes(), "{arch}");
        let restored = Session::restore(&model, &saved).unwrap();
        assert!(blob(&restored) == saved, "{arch}");
        restored.prefill(&[3, 1, 4]).unwrap();
        assert_eq!(bits(&restored), alone(&model, &[&tokens[..], &[3, 1, 4]].concat()), "{arch}");
        restored.truncate(100).unwrap();
        restored.prefill(&[2]).unwrap();
        assert_eq!(bits(&restored), alone(&model, &[&tokens[..100], &[2]].concat()), "{arch}");
        let refused = |bytes: &[u8], model: &Model| Session::restore(model, bytes).err().map(|error| error.status());
        assert_eq!(refused(&saved, &other), Some(Status::InvalidArgument), "{arch}");
        let mut forged = saved.clone();
        forged[168] ^= 64;
        assert_eq!(refused(&forged, &model), Some(Status::InvalidArgument), "{arch}");
        let empty = session(&model);
        let nothing = blob(&empty);
        assert_eq!(nothing[168..176], [0; 8], "{arch}");
        Session::restore(&model, &nothing).unwrap().prefill(&tokens).unwrap();
    }
}

pub fn what_a_session_takes_is_said_beforehand_and_goes_back(on: &On) {
    for arch in ARCHS {
        let model = with_checkpoints(on, arch, PLENTY);
        let (state, page) = (model.facts().state_bytes, model.cache_facts().page_bytes);
        assert!(state > 0 && model.layer_facts(0).unwrap().state_bytes > 0, "{arch}");
        // Less than a page and what a prompt's passes need is refused, and with just that there are no checkpoints to be had.
        let least = page + 3 * state;
        let limited = |bytes| LoadOptions { cache_bytes: Some(bytes), ..LoadOptions::default() };
        let mut tiny = Tiny::new(arch, TensorType::Q8_0);
        (tiny.shape.n_vocab, tiny.shape.n_ctx) = (320, 4096);
        let refused = on.engine().load_memory_with(&tiny.bytes(), limited(least - 1), &mut |_, _| Ok(()));
        assert_eq!(refused.err().map(|error| error.status()), Some(Status::InvalidArgument), "{arch}");
        let tight = load(on, arch, limited((3 * page + 3 * state).next_multiple_of(page)));
        let session = session(&tight);
        session.prefill(&text(190)).unwrap();
        assert_eq!(bits(&session), alone(&model, &text(190)), "{arch}");
        session.truncate(100).unwrap();
        let facts = tight.cache_facts();
        assert!(facts.used_bytes <= facts.n_pages_limit.unwrap() * page, "{arch}");
        drop(session);
        assert_eq!((tight.cache_facts().used_bytes, tight.cache_facts().n_states), (0, 0), "{arch}");
    }
}

pub fn layers_for_drafts_are_left_out_and_there_need_be_no_attention(on: &On) {
    let key = ("qwen35.nextn_predict_layers".to_owned(), Value::U32(1));
    // Every other layer has attention; of two it is the one for drafts.
    for (n_layers, has_cache) in [(5, true), (2, false)] {
        let mut tiny = Tiny::new("qwen35", TensorType::Q8_0);
        (tiny.shape.n_layers, tiny.with) = (n_layers, vec![key.clone()]);
        let options = LoadOptions { strict: on.strict, ..LoadOptions::default() };
        let model = on.engine().load_memory_with(&tiny.bytes(), options, &mut |_, _| Ok(())).unwrap();
        assert_eq!((model.facts().n_layers, model.cache_facts().page_bytes > 0), (n_layers - 1, has_cache));
        let session = session(&model);
        session.prefill(&text(200)).unwrap();
        session.truncate(150).unwrap();
        session.prefill(&[3]).unwrap();
        assert_eq!(bits(&session), alone(&model, &[&text(150)[..], &[3]].concat()));
    }
}

/// Prompts and steps in turn, truncated to places inside of both: the bits of a session that has been called as far as there.
pub fn what_calls_have_made_is_computed_again_as_it_was(on: &On) {
    const CALLS: [usize; 9] = [70, 1, 1, 1, 40, 3, 90, 1, 1];
    let tokens = text(400);
    for arch in ARCHS {
        let model = with_checkpoints(on, arch, PLENTY);
        let called = |n: usize| {
            let (session, mut at) = (session(&model), 0);
            for call in CALLS {
                let end = (at + call).min(n);
                if end > at {
                    // What is cut off is of the same kind, or the model's own rule for short calls would differ.
                    session.prefill(&tokens[at..end]).unwrap();
                }
                at = end;
            }
            session
        };
        let whole: usize = CALLS.iter().sum();
        for n in [207, 206, 150, 116, 115, 114, 90, 73, 72, 71, 70, 64, 30] {
            let truncated = called(whole);
            truncated.truncate(n).unwrap();
            let fresh = called(n);
            for session in [&truncated, &fresh] {
                session.prefill(&tokens[300..320]).unwrap();
            }
            assert_eq!(bits(&truncated), bits(&fresh), "{arch}: {n} of {whole} tokens");
        }
    }
}
