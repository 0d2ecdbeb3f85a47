//! Layers with a window give back what lies behind it when memory is short, and what is needed of it later comes back with the
//! same bits: on a device that is given.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::tiny::Tiny;
use kigo::alloc::watch;
use kigo::backend::Device;
use kigo::engine::{Append, Engine, LoadOptions, LogSink, Model, Session, SessionOptions, Tap, append_batch};
use kigo::error::{Error, Result, Status};
use kigo::gguf::TensorType;

/// Architectures with windows: of all layers (llama is given one), of most, of half.
const WINDOWED: [&str; 6] = ["gemma3", "gpt-oss", "phi3", "cohere2", "gemma2", "llama"];

/// A device, and what is its own.
pub struct On {
    /// Where models are loaded.
    pub device: Arc<dyn Device>,
    /// Whether they are loaded in strict mode.
    pub strict: bool,
    /// Bytes of an element of keys and values.
    pub element: u64,
    /// Tokens of a pass.
    pub pass: u64,
    /// How many of the architectures and of the lengths are tried.
    pub few: bool,
}

/// A model with a window.
pub fn tiny(arch: &str, n_ctx: usize) -> Tiny {
    let mut tiny = Tiny::new(arch, TensorType::Q8_0);
    tiny.shape.n_ctx = n_ctx;
    if tiny.shape.window == 0 {
        tiny.shape.window = 40;
    }
    tiny
}

impl On {
    /// gemma3-tiny: 7 layers of 2 heads of 32, six of them with a window of 16.
    fn page(&self) -> u64 {
        64 * 7 * 2 * 2 * 32 * self.element
    }

    /// What a page of it has of the six.
    fn part(&self) -> u64 {
        64 * 6 * 2 * 2 * 32 * self.element
    }

    /// Whether it is kept which positions steps have computed.
    fn marks(&self) -> bool {
        self.device.name().starts_with("cuda") && !self.strict
    }

    fn archs(&self) -> &'static [&'static str] {
        &WINDOWED[..if self.few { 1 } else { WINDOWED.len() }]
    }

    /// An engine of the device.
    pub fn engine(&self, cap: Option<u64>) -> Engine {
        Engine::with_device(Arc::clone(&self.device), 2, cap, LogSink::silent())
    }

    /// How models are loaded.
    pub fn options(&self) -> LoadOptions {
        LoadOptions { strict: self.strict, ..Default::default() }
    }

    /// An engine, and a model in it, whose cap leaves room for so many pages beside what is `taken` and for the pages that come
    /// last, which loads take at times.
    pub fn load_under(&self, file: &[u8], taken: u64, page: u64, n_pages: u64) -> (Engine, Model, u64) {
        let mut n_more = 0;
        loop {
            let engine = self.engine(Some(taken + (n_pages + n_more) * page));
            match engine.load_memory_with(file, self.options(), &mut |_, _| Ok(())) {
                Ok(model) => return (engine, model, n_more),
                Err(Error::OutOfMemory { requested, free, .. }) => n_more += (requested - free).div_ceil(page),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A model whose cache has room for so many whole pages.
    pub fn load(&self, arch: &str, n_ctx: usize, n_pages: Option<u64>) -> Model {
        let file = tiny(arch, n_ctx).bytes();
        let load = |cache_bytes| {
            let options = LoadOptions { cache_bytes, ..self.options() };
            self.engine(None).load_memory_with(&file, options, &mut |_, _| Ok(())).unwrap()
        };
        let plain = load(None);
        let page = plain.cache_facts().page_bytes;
        n_pages.map_or(plain, |n| load(Some(n * page)))
    }
}

fn new_session(model: &Model, reuse_prefix: bool) -> Session {
    Session::new(model, SessionOptions { reuse_prefix, ..Default::default() }).unwrap()
}

/// A session of these tokens.
pub fn session(model: &Model, tokens: &[u32]) -> Session {
    try_session(model, tokens).unwrap()
}

/// The same, if there is memory.
pub fn try_session(model: &Model, tokens: &[u32]) -> Result<Session> {
    let session = new_session(model, false);
    session.prefill(tokens)?;
    Ok(session)
}

/// Any tokens.
pub fn prompt(n: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * i * 31 + i * 7 + 3) % 500) as u32).collect()
}

/// The bits of its logits, if it has some.
pub fn bits(session: &Session) -> Option<Vec<u32>> {
    let mut logits = vec![0.0_f32; session.n_vocab()];
    session.logits(&mut logits).ok().map(|()| logits.iter().map(|l| l.to_bits()).collect())
}

/// All that a caller can see of a session.
fn seen(session: &Session) -> (Vec<u32>, Option<Vec<u32>>, usize) {
    let tokens = session.with_tokens(|t| Ok(t.to_vec())).unwrap();
    (tokens, bits(session), session.facts().unwrap().n_free_from)
}

/// Takes all the memory there is, one page a session.
pub fn fill(model: &Model) -> Vec<Session> {
    let mut sessions = Vec::new();
    loop {
        let next = new_session(model, false);
        match next.prefill(&prompt(3)) {
            Ok(()) => sessions.push(next),
            Err(error) => {
                assert!(matches!(error.status(), Status::CacheFull | Status::OutOfMemory), "{error}");
                return sessions;
            }
        }
    }
}

/// The bits behind these tokens and, in a call of their own, `more`, in a session that has been given nothing else.
fn alone(model: &Model, tokens: &[u32], more: &[u32]) -> Option<Vec<u32>> {
    let session = session(model, tokens);
    if !more.is_empty() {
        session.prefill(more).unwrap();
    }
    bits(&session)
}

/// The same where the tokens are the first of a prompt of so many: too few by themselves may be computed as steps are.
fn alone_of(model: &Model, all: usize, n: usize, more: &[u32]) -> Option<Vec<u32>> {
    let session = session(model, &prompt(all));
    session.truncate(n).unwrap();
    session.prefill(more).unwrap();
    bits(&session)
}

fn nothing_left(model: &Model) {
    let f = model.cache_facts();
    assert_eq!((f.n_pages_used, f.used_bytes, f.spare_bytes), (0, 0, 0));
}

pub fn memory_goes_back_when_it_is_needed_and_no_earlier(on: &On) {
    let model = on.load("gemma3", 512, Some(8));
    let facts = || model.cache_facts();
    assert_eq!(facts().page_bytes, on.page());
    // 400 tokens on 7 pages: the windows reach back to position 385, on the last.
    let a = session(&model, &prompt(400));
    assert_eq!((facts().used_bytes, facts().spare_bytes), (7 * on.page(), 6 * on.part()));
    assert_eq!(facts().n_pages_free, Some(1 + 5), "the eighth, and six parts are five pages");
    let b = session(&model, &prompt(64));
    assert_eq!((facts().used_bytes, facts().n_pages_used), (8 * on.page(), 8));
    assert_eq!(a.facts().unwrap().n_free_from, 0, "nobody needed it");
    // A page is a little more than a part: two go.
    b.prefill(&prompt(64)).unwrap();
    assert_eq!((facts().used_bytes, facts().n_pages_used), (9 * on.page() - 2 * on.part(), 9));
    // The third page's first position is 128, which a window of 16 sees up to 143.
    assert_eq!(a.facts().unwrap().n_free_from, 128 + 15);
    assert_eq!(a.facts().unwrap().n_pages, 7);
    // Of the two pages of b the first is behind its window.
    assert_eq!(facts().spare_bytes, 5 * on.part());

    // What there is free is free: nothing is computed, nobody's memory is asked for.
    let used = facts().used_bytes;
    a.truncate(200).unwrap();
    assert_eq!(facts().used_bytes, used - 3 * on.page());
    a.prefill(&[5]).unwrap();
    let plain = on.load("gemma3", 512, None);
    assert_eq!(bits(&a), alone(&plain, &prompt(200), &[5]));
    drop((a, b));
    nothing_left(&model);
}

pub fn a_prompt_needs_all_of_it_only_in_layers_without_a_window(on: &On) {
    let plain = on.load("gemma3", 4096, None);
    let tokens = prompt(3000);
    let expected = bits(&session(&plain, &tokens));
    // Whole it would take 47 pages; so it takes 47 of a layer, and of six layers the pages of a window and a pass, whose length is
    // the device's, or 64 where there is no memory for that.
    let least = |pass: u64| {
        let bytes = 47 * (on.page() - on.part()) + ((16 + pass).div_ceil(64) + 1) * on.part();
        bytes.div_ceil(on.page())
    };
    assert_eq!((least(512), least(64)), (16, 10));
    for n_pages in [least(on.pass), 10] {
        let model = on.load("gemma3", 4096, Some(n_pages));
        let a = session(&model, &tokens);
        assert_eq!((a.facts().unwrap().n_pages, bits(&a)), (47, expected.clone()));
        assert!(model.cache_facts().used_bytes <= n_pages * on.page());
        drop(a);
        nothing_left(&model);
    }
    let none = on.load("gemma3", 4096, Some(9));
    assert_eq!(
        new_session(&none, false).prefill(&tokens).unwrap_err().to_string(),
        "10 cache pages needed, 9 of 9 free"
    );
    nothing_left(&none);
    // One of a batch may have such passes, and so may what is computed again.
    let model = on.load("gemma3", 4096, Some(12));
    let (a, b) = (new_session(&model, false), new_session(&model, false));
    let entries = [Append { session: &a, tokens: &tokens }, Append { session: &b, tokens: &prompt(100) }];
    let outcomes = append_batch(&entries);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!((bits(&a), bits(&b)), (expected.clone(), alone(&plain, &prompt(100), &[])));
    drop(b);
    a.truncate(1000).unwrap();
    a.prefill(&prompt(9)).unwrap();
    assert_eq!(bits(&a), alone(&plain, &tokens[..1000], &prompt(9)));
    drop(a);
    nothing_left(&model);
    let n_pages = 16;
    let model = on.load("gemma3", 4096, Some(n_pages + 2));
    let a = session(&model, &tokens);
    assert_eq!(
        model.cache_facts().used_bytes - model.cache_facts().spare_bytes,
        46 * (on.page() - on.part()) + on.page()
    );
    // Back and on, where everything has to be computed again within the same memory.
    a.truncate(1500).unwrap();
    a.prefill(&prompt(700)).unwrap();
    assert_eq!(bits(&a), alone(&plain, &tokens[..1500], &prompt(700)));
    drop(a);
    nothing_left(&model);

    // In a batch, tapped, and token by token.
    let (b, c) = (new_session(&model, false), new_session(&model, false));
    let entries = [Append { session: &b, tokens: &tokens }, Append { session: &c, tokens: &prompt(20) }];
    append_batch(&entries).into_iter().for_each(|outcome| outcome.unwrap());
    assert_eq!((bits(&b), bits(&c)), (expected.clone(), alone(&plain, &prompt(20), &[])));
    drop((b, c));
    let tapped = new_session(&model, false);
    tapped.set_tap(Some(Tap::new(1 << 10, Box::new(|_| true)))).unwrap();
    tapped.prefill(&tokens).unwrap();
    assert_eq!(bits(&tapped), expected);
    tapped.set_tap(None).unwrap();
    let stepped = session(&plain, &tokens);
    for session in [&tapped, &stepped] {
        (0..100).for_each(|i| session.prefill(&[i]).unwrap());
    }
    assert_eq!(bits(&tapped), bits(&stepped));
    drop((tapped, stepped));
    nothing_left(&model);

    // One that is stopped in its fourth pass, and one that does not fit, change nothing.
    let d = session(&model, &tokens[..100]);
    let (before, used) = (seen(&d), model.cache_facts());
    let mut n_events = 0;
    let stop = move |_: &kigo::backend::TapEvent<'_>| {
        n_events += 1;
        n_events < 7 * 3 + 2
    };
    d.set_tap(Some(Tap::new(1 << 10, Box::new(stop)))).unwrap();
    assert_eq!(d.prefill(&tokens[100..]).unwrap_err().status(), Status::Cancelled);
    d.set_tap(None).unwrap();
    assert_eq!((seen(&d), model.cache_facts().used_bytes), (before.clone(), used.used_bytes));
    let others = fill(&model);
    assert_eq!(d.prefill(&tokens[100..]).unwrap_err().status(), Status::CacheFull);
    drop(others);
    assert_eq!((&seen(&d).0, &seen(&d).1), (&before.0, &before.1));
    d.prefill(&tokens[100..]).unwrap();
    assert_eq!(bits(&d), expected);
}

pub fn truncating_behind_the_window_gives_the_bits_of_a_new_session(on: &On) {
    let (all, lens) =
        if on.few { (200, &[190, 64][..]) } else { (500, &[499, 490, 450, 449, 448, 256, 255, 129, 64, 63, 1][..]) };
    for &arch in on.archs() {
        let (plain, model) = (on.load(arch, 1024, None), on.load(arch, 1024, Some(16)));
        for &n in lens {
            let a = session(&model, &prompt(all));
            drop(fill(&model));
            let from = a.facts().unwrap().n_free_from;
            assert!((all * 3 / 5..=all).contains(&from), "{arch}: free from {from}");
            let b = a.fork().unwrap();
            a.truncate(n).unwrap();
            assert_eq!((seen(&a).0, seen(&a).1), (prompt(n), None));
            a.prefill(&[7; 70]).unwrap();
            assert_eq!(bits(&a), alone_of(&plain, all, n, &[7; 70]), "{arch}, {n} tokens");
            if n >= 8 {
                assert_eq!(bits(&a), alone(&plain, &prompt(n), &[7; 70]), "{arch}, {n} tokens");
            }
            // The fork has the old ones, and goes another way back.
            drop(a);
            assert_eq!(bits(&b), alone(&plain, &prompt(all), &[]), "{arch}");
            drop(fill(&model));
            b.truncate(n / 2).unwrap();
            b.prefill(&[8; 3]).unwrap();
            assert_eq!(bits(&b), alone_of(&plain, all, n / 2, &[8; 3]), "{arch}, {} tokens of a fork", n / 2);
            b.truncate(0).unwrap();
            b.prefill(&[9]).unwrap();
            assert_eq!(bits(&b), alone(&plain, &[9], &[]), "{arch}");
        }
        nothing_left(&model);
    }
}

/// What a truncation has computed again on its first pages, in one pass, is no part of what comes then: a prompt of several passes, to its
/// end or stopped in the second.
pub fn a_truncation_that_computes_again_leaves_nothing_to_the_next_prompt(on: &On) {
    let (model, plain) = (on.load("gemma3", 4096, Some(40)), on.load("gemma3", 4096, None));
    let tokens = prompt(40 + on.pass as usize + 600);
    let again = || {
        let a = session(&model, &tokens[..600]);
        drop(fill(&model));
        assert!(a.facts().unwrap().n_free_from > 40);
        a.truncate(40).unwrap();
        a
    };
    let a = again();
    a.prefill(&tokens[40..1140]).unwrap();
    assert!(bits(&a) == alone(&plain, &tokens[..40], &tokens[40..1140]));
    drop(a);
    nothing_left(&model);
    // Embeddings are shown once a pass.
    let a = again();
    let n_passes = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&n_passes);
    a.set_tap(Some(Tap::new(1, Box::new(move |_| seen.fetch_add(1, Ordering::Relaxed) == 0)))).unwrap();
    assert_eq!(a.prefill(&tokens[40..]).unwrap_err().status(), Status::Cancelled);
    assert_eq!((n_passes.load(Ordering::Relaxed), a.facts().unwrap().n_tokens), (2, 40));
    a.set_tap(None).unwrap();
    drop(fill(&model));
    for end in [43, 743] {
        a.truncate(40).unwrap();
        a.prefill(&tokens[40..end]).unwrap();
        assert!(bits(&a) == alone(&plain, &tokens[..40], &tokens[40..end]), "{end} tokens");
    }
    drop(a);
    nothing_left(&model);
}

pub fn forks_of_which_one_computes_again_share_what_they_had(on: &On) {
    let (plain, model) = (on.load("gemma3", 512, None), on.load("gemma3", 512, Some(12)));
    let a = session(&model, &prompt(300));
    drop(fill(&model));
    let b = a.fork().unwrap();
    // Into pages of its own: the parent's are the fork's too.
    a.truncate(100).unwrap();
    assert_eq!((a.facts().unwrap().n_pages, a.facts().unwrap().n_pages_own), (2, 2));
    a.prefill(&[1]).unwrap();
    assert_eq!(bits(&a), alone(&plain, &prompt(100), &[1]));
    assert_eq!(bits(&b), alone(&plain, &prompt(300), &[]));
    b.prefill(&[2]).unwrap();
    assert_eq!(bits(&b), alone(&plain, &prompt(300), &[2]));
    // Alone it writes them once more in place.
    let used = model.cache_facts().n_pages_used;
    drop(fill(&model));
    b.truncate(100).unwrap();
    assert_eq!(model.cache_facts().n_pages_used, used - 3);
    b.prefill(&[3]).unwrap();
    assert_eq!(bits(&b), alone(&plain, &prompt(100), &[3]));
    drop((a, b));
    nothing_left(&model);
}

/// What steps have computed is computed again by steps, what prompts have as a prompt, wherever a run of either begins and ends: of a
/// session, of its fork, of one that has its first pages from it, and of one that was saved.
pub fn what_steps_and_prompts_have_made_is_computed_again_as_it_was(on: &On) {
    let lens = if on.few { &[107, 190][..] } else { &[190, 184, 183, 181, 150, 128, 107, 103, 100, 70, 64, 20] };
    for &arch in on.archs() {
        let (plain, model) = (on.load(arch, 512, None), on.load(arch, 512, Some(14)));
        let calls = |session: &Session| {
            session.prefill(&prompt(100)).unwrap();
            (0..7).for_each(|i| session.prefill(&[i]).unwrap());
            session.prefill(&prompt(76)).unwrap();
            session.prefill(&[9; 4]).unwrap();
            (10..14).for_each(|i| session.prefill(&[i]).unwrap());
            session.prefill(&prompt(90)).unwrap();
        };
        for &n in lens {
            let (whole, a) = (new_session(&plain, true), new_session(&model, true));
            calls(&whole);
            calls(&a);
            assert_eq!(bits(&a), bits(&whole), "{arch}");
            let (fork, heir) = (a.fork().unwrap(), new_session(&model, true));
            let held = a.with_tokens(|tokens| Ok(tokens.to_vec())).unwrap();
            heir.prefill(&held).unwrap();
            assert_eq!(heir.facts().unwrap().n_reused, 256, "{arch}");
            let mut blob = vec![0; a.saved_bytes().unwrap()];
            a.save(&mut blob).unwrap();
            whole.truncate(n).unwrap();
            whole.prefill(&[3; 30]).unwrap();
            let again = |session: Session, which: &str| {
                drop(fill(&model));
                session.truncate(n).unwrap();
                session.prefill(&[3; 30]).unwrap();
                assert_eq!(bits(&session), bits(&whole), "{arch}, {n} tokens of {which}");
            };
            again(a, "the first");
            again(heir, "one that shares its pages");
            again(fork, "a fork");
            again(Session::restore(&model, &blob).unwrap(), "a saved one");
        }
        nothing_left(&model);
    }
}

pub fn without_memory_to_compute_again_nothing_changes(on: &On) {
    for &arch in on.archs() {
        let (plain, model) = (on.load(arch, 512, None), on.load(arch, 512, Some(10)));
        let a = session(&model, &prompt(500));
        let others = fill(&model);
        let (before, used) = (seen(&a), model.cache_facts());
        assert_eq!(a.truncate(200).unwrap_err().status(), Status::CacheFull, "{arch}");
        assert_eq!((seen(&a), model.cache_facts()), (before.clone(), used), "{arch}");
        // A cancel is another reason, and is used up.
        drop(others);
        a.cancel();
        assert_eq!(a.truncate(200).unwrap_err().status(), Status::Cancelled, "{arch}");
        assert_eq!(seen(&a), before, "{arch}");
        a.truncate(200).unwrap();
        a.prefill(&[3]).unwrap();
        assert_eq!(bits(&a), alone(&plain, &prompt(200), &[3]), "{arch}");
    }
}

/// Counted down to by all allocations of the process, which nobody else may use.
pub fn whatever_allocation_fails_a_truncation_changes_nothing(on: &On) {
    let (plain, model) = (on.load("gemma3", 512, None), on.load("gemma3", 512, Some(12)));
    let expected = alone(&plain, &prompt(200), &[3]);
    let (mut n, mut n_failed) = (0, 0);
    loop {
        let a = session(&model, &prompt(400));
        drop(fill(&model));
        let parent = (n % 2 == 1).then(|| a.fork().unwrap());
        let (before, used) = (seen(&a), model.cache_facts().used_bytes);
        let (outcome, there_was_one) = watch::failing(n / 2, 1, || a.truncate(200));
        if let Err(error) = outcome {
            assert_eq!(error.status(), Status::OutOfMemory, "allocation {n}: {error}");
            assert_eq!(seen(&a), before, "allocation {n}");
            assert_eq!(model.cache_facts().used_bytes, used, "allocation {n}");
            n_failed += 1;
            a.truncate(200).unwrap();
        }
        a.prefill(&[3]).unwrap();
        assert_eq!(bits(&a), expected, "allocation {n}");
        drop((a, parent));
        nothing_left(&model);
        if !there_was_one && n % 2 == 1 {
            break;
        }
        n += 1;
    }
    assert!(n_failed >= 8, "{n_failed} of {n}");
}

pub fn a_prefix_is_shared_as_far_as_the_windows_in_front_are_there(on: &On) {
    let (plain, model) = (on.load("gemma3", 512, None), on.load("gemma3", 512, Some(12)));
    let a = session(&model, &prompt(400));
    let reused = |n: usize, expected: usize| {
        let b = new_session(&model, true);
        b.prefill(&[&prompt(n)[..], &[4; 10]].concat()).unwrap();
        assert_eq!(b.facts().unwrap().n_reused, expected, "{n} tokens");
        assert_eq!(bits(&b), alone(&plain, &prompt(n), &[4; 10]), "{n} tokens");
        b
    };
    // Neither of the two reads any more of what they share.
    let b = reused(400, 384);
    assert_eq!(model.cache_facts().spare_bytes, 6 * on.part());
    drop(b);
    // 12 pages: with 7 and 5 others two parts less are there than the next needs.
    let others: Vec<Session> = (0..6).map(|_| session(&model, &prompt(3))).collect();
    assert_eq!(a.facts().unwrap().n_free_from, 128 + 15);
    drop(others);
    let b = reused(400, 384);
    // Its first pages' windows have gone, and are the other session's, too: they are replaced.
    b.truncate(80).unwrap();
    b.prefill(&[6; 5]).unwrap();
    assert_eq!(bits(&b), alone(&plain, &prompt(80), &[6; 5]));
    drop(b);
    drop(reused(200, 192));
    // Behind the first page there is no window any more, so that its tokens are computed.
    drop(reused(70, 0));
    drop(fill(&model));
    drop(reused(390, 0));
    assert_eq!(bits(&a), alone(&plain, &prompt(400), &[]));
    drop(a);
    nothing_left(&model);
}

pub fn a_long_prompt_behind_a_shared_prefix_takes_what_is_left(on: &On) {
    let (plain, model) = (on.load("gemma3", 4096, None), on.load("gemma3", 4096, Some(16)));
    let tokens = prompt(3000);
    let a = session(&model, &tokens[..700]);
    let b = new_session(&model, true);
    let used = model.cache_facts().used_bytes;
    b.cancel();
    assert_eq!(b.prefill(&tokens).unwrap_err().status(), Status::Cancelled);
    assert!(model.cache_facts().used_bytes <= used);
    assert_eq!((seen(&b).0, b.facts().unwrap().n_pages), (vec![], 0));
    b.prefill(&tokens).unwrap();
    assert_eq!(b.facts().unwrap().n_reused, 640);
    assert_eq!(bits(&b), alone(&plain, &tokens, &[]));
    // What it shares is the other's, which goes on as if there were no other.
    a.prefill(&[5]).unwrap();
    assert_eq!(bits(&a), alone(&plain, &tokens[..700], &[5]));
    b.truncate(300).unwrap();
    b.prefill(&[6]).unwrap();
    assert_eq!(bits(&b), alone(&plain, &tokens[..300], &[6]));
    a.truncate(650).unwrap();
    a.prefill(&[7]).unwrap();
    assert_eq!(bits(&a), alone(&plain, &tokens[..650], &[7]));
    drop((a, b));
    nothing_left(&model);
}

pub fn a_session_without_its_old_parts_is_saved_and_restored(on: &On) {
    for &arch in on.archs() {
        let (plain, model) = (on.load(arch, 512, None), on.load(arch, 512, Some(10)));
        let (whole, a) = (session(&plain, &prompt(500)), session(&model, &prompt(500)));
        drop(fill(&model));
        let saved = |session: &Session| {
            let mut blob = vec![0xa5; session.saved_bytes().unwrap()];
            assert_eq!(session.save(&mut blob).unwrap(), blob.len());
            blob
        };
        let blob = saved(&a);
        assert!(saved(&whole) == blob, "{arch}: a blob depends on nobody else");
        if arch == "gemma3" {
            // Head, tokens, logits; eight pages of a layer, of six the last: the window is on it.
            let marks = if on.marks() { 8 * 8 } else { 0 };
            let pages = 8 * (on.page() - on.part()) + on.part() + marks;
            assert_eq!(blob.len() as u64, 192 + 2000_u64.next_multiple_of(64) + 512 * 4 + pages);
        }
        drop(a);
        let restored = Session::restore(&model, &blob).unwrap();
        assert_eq!(model.cache_facts().spare_bytes, 0, "{arch}");
        restored.prefill(&[1, 2]).unwrap();
        assert_eq!(bits(&restored), alone(&plain, &prompt(500), &[1, 2]), "{arch}");
        assert!(restored.facts().unwrap().n_free_from > 300, "{arch}");
        let fork = restored.fork().unwrap();
        restored.truncate(150).unwrap();
        restored.prefill(&[3]).unwrap();
        assert_eq!(bits(&restored), alone(&plain, &prompt(150), &[3]), "{arch}");
        drop(restored);
        assert_eq!(bits(&fork), alone(&plain, &prompt(500), &[1, 2]), "{arch}");
        drop(fork);
        nothing_left(&model);
    }
}

pub fn one_model_s_spare_memory_is_another_s_under_the_engine_s_cap(on: &On) {
    let (gemma, gpt) = (tiny("gemma3", 512).bytes(), tiny("gpt-oss", 512).bytes());
    let load = |engine: &Engine, file: &[u8]| engine.load_memory_with(file, on.options(), &mut |_, _| Ok(()));
    let free = on.engine(None);
    let (one, both) = {
        let one = load(&free, &gemma).unwrap();
        let n = free.memory_used();
        let other = load(&free, &gpt).unwrap();
        let both = free.memory_used();
        drop((one, other));
        (n, both)
    };
    // Both, what a load takes at times beyond what it takes at last, in pages, and eight pages of the first: a prompt that takes all
    // of these leaves six parts to take from.
    let mut n_more = 0;
    let (engine, a, b) = loop {
        let engine = on.engine(Some(both + (8 + n_more) * on.page()));
        let loaded = load(&engine, &gemma).and_then(|a| Ok((a, load(&engine, &gpt)?)));
        match loaded {
            Ok((a, b)) => break (engine, a, b),
            Err(Error::OutOfMemory { requested, free, .. }) => n_more += (requested - free).div_ceil(on.page()),
            Err(error) => panic!("{error}"),
        }
    };
    let others: Vec<Session> = (0..n_more).map(|_| session(&a, &prompt(3))).collect();
    let first = session(&a, &prompt(500));
    assert_eq!((engine.memory_used(), a.cache_facts().spare_bytes), (engine.memory_cap().unwrap(), 7 * on.part()));
    let second = session(&b, &prompt(300));
    assert_eq!(b.cache_facts().n_pages_used, 5);
    assert_eq!(a.cache_facts().spare_bytes, 6 * on.part(), "a part is more than the five pages of the other");
    let plain = load(&free, &gpt).unwrap();
    assert_eq!(bits(&second), alone(&plain, &prompt(300), &[]));
    // It was the first page's.
    first.truncate(60).unwrap();
    first.prefill(&[1]).unwrap();
    assert_eq!(bits(&first), alone(&load(&free, &gemma).unwrap(), &prompt(60), &[1]));

    // A load takes it, too.
    drop((second, b));
    if n_more > 0 {
        return;
    }
    drop(others);
    first.truncate(0).unwrap();
    first.prefill(&prompt(500)).unwrap();
    let third = session(&a, &prompt(3));
    let left = engine.memory_cap().unwrap() - engine.memory_used();
    assert!(left < both - one, "{left} bytes are enough for the other model's {}", both - one);
    let b = load(&engine, &gpt).unwrap();
    assert!(first.facts().unwrap().n_free_from > 0);
    drop((first, third));
    assert_eq!(engine.memory_used(), both);
    drop((a, b));
    assert_eq!(engine.memory_used(), 0);
}

pub fn threads_of_two_models_take_from_one_another_and_change_nothing(on: &On) {
    let files = ["gemma3", "gpt-oss"].map(|arch| tiny(arch, 1024).bytes());
    // The calls of one model's threads share passes.
    let load = |engine: &Engine, i: usize| {
        let options = LoadOptions { merge: i == 1, ..on.options() };
        engine.load_memory_with(&files[i], options, &mut |_, _| Ok(()))
    };
    let both = |engine: &Engine| Ok::<_, Error>([load(engine, 0)?, load(engine, 1)?]);
    let free = on.engine(None);
    let plain = both(&free).unwrap();
    // Room for two long sessions of six, and for what a load takes at times beyond what it takes at last: pages that others hold then.
    let pages = [0, 1].map(|i| plain[i].cache_facts().page_bytes);
    let (cap, mut n_more) = (free.memory_used() + 16 * pages.iter().sum::<u64>(), 0);
    let (_engine, models) = loop {
        let engine = on.engine(Some(cap + n_more * pages[0]));
        match both(&engine) {
            Ok(models) => break (engine, models),
            Err(Error::OutOfMemory { requested, free, .. }) => n_more += (requested - free).div_ceil(pages[0]),
            Err(error) => panic!("{error}"),
        }
    };
    let others: Vec<Session> = (0..n_more).map(|_| session(&models[0], &prompt(3))).collect();
    let work = |i: usize| {
        let (model, plain) = (&models[i % 2], &plain[i % 2]);
        let text = prompt(400 + 30 * i);
        let mut n_done = 0;
        for round in 0..8 {
            let (a, n) = (new_session(model, i.is_multiple_of(3)), 40 + 50 * round);
            // Nobody waits while holding something.
            let (mut tokens, mut more) = (Vec::new(), Vec::new());
            if a.prefill(&text).is_ok() {
                tokens.extend_from_slice(&text);
                if a.truncate(n).is_ok() {
                    tokens.truncate(n);
                }
                if a.prefill(&[i as u32]).is_ok() {
                    more.push(i as u32);
                }
                n_done += 1;
            }
            assert!(
                a.with_tokens(|held| Ok(*held == [&tokens[..], &more].concat())).unwrap(),
                "thread {i}, round {round}"
            );
            if let Some(found) = bits(&a) {
                assert_eq!(Some(found), alone(plain, &tokens, &more), "thread {i}, round {round}");
            }
        }
        n_done
    };
    let n_done: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|i| {
                let work = &work;
                scope.spawn(move || work(i))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(n_done > 6, "{n_done} of 48 prompts had memory");
    drop(others);
    models.iter().for_each(nothing_left);
}

pub fn a_plan_says_what_windows_save(on: &On) {
    let name = on.device.name().replace([':', ' '], "-");
    let path = std::env::temp_dir().join(format!("kigo-windows-{}-{name}.gguf", std::process::id()));
    tiny("gemma3", 512).write(&path);
    let plan = |n: usize| on.engine(None).plan_file_for(&path, Some(n), &on.options()).unwrap();
    let of = |n: usize| (plan(n).cache_bytes, plan(n).spare_bytes);
    let found = [of(400), of(79), of(78), of(1), of(512)];
    std::fs::remove_file(&path).unwrap();
    // 400 tokens: the window begins at position 385, on the seventh page. 79 tokens: at 64, on the second; 78: on the first.
    assert_eq!(found[0], (7 * on.page(), 6 * on.part()));
    assert_eq!(found[1..3], [(2 * on.page(), on.part()), (2 * on.page(), 0)]);
    assert_eq!(found[3..], [(on.page(), 0), (8 * on.page(), 7 * on.part())]);
}
