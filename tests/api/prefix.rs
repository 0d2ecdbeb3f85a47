//! Pages of sessions that are gone: found by their tokens, bounded, given up in order, never in anybody's way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::common::kept::{alone, bits, keeping, load, reused, reusing, salted, text, used};
use crate::common::probe::{Plot, Probe};
use crate::common::run::cpu;
use crate::common::windows::fill;
use kigo::engine::{EmbedOptions, Engine, LoadOptions, Model, Session, SessionOptions};
use kigo::error::{Error, Status};

/// A session that is gone at once; how many of its tokens it had from others.
fn visit(model: &Model, tokens: &[u32]) -> usize {
    let session = reusing(model);
    session.prefill(tokens).unwrap();
    reused(&session)
}

#[test]
fn what_a_session_leaves_is_found_with_the_same_bits() {
    for arch in ["qwen2", "gemma3", "gpt-oss", "phi3"] {
        let (engine, model) = keeping(arch, 10, 0);
        let (_, plain) = load(cpu(2), arch, None, LoadOptions::default());
        let weights = engine.memory_used();
        let first = Session::new(&model, SessionOptions::default()).unwrap();
        first.prefill(&text(1, 270)).unwrap();
        drop(first);
        let facts = model.cache_facts();
        assert_eq!(
            (used(&model), facts.retained_bytes),
            ((4, 4), 4 * facts.page_bytes),
            "{arch}: what is not whole goes"
        );
        assert_eq!(
            (facts.used_bytes, facts.spare_bytes, facts.n_tokens_saved),
            (facts.retained_bytes, facts.retained_bytes, 0)
        );
        assert_eq!(engine.memory_used(), weights + facts.retained_bytes);
        for n in [270, 257, 256, 65, 64] {
            let tokens = [&text(1, n)[..], &[7, 8, 9][..n % 2 + 1]].concat();
            let session = reusing(&model);
            session.prefill(&tokens).unwrap();
            assert_eq!(reused(&session), n / 64 * 64, "{arch}, {n} tokens");
            assert_eq!(bits(&session), alone(&plain, &tokens), "{arch}, {n} tokens");
            session.prefill(&text(3, 70)).unwrap();
            assert_eq!(bits(&session), alone(&plain, &[tokens, text(3, 70)].concat()), "{arch}, {n} tokens");
        }
        assert_eq!(model.cache_facts().n_tokens_saved, 256 + 256 + 256 + 64 + 64, "{arch}");
        // Without the flag nothing is taken, and what is computed twice is held once.
        let other = Session::new(&model, SessionOptions::default()).unwrap();
        let before = used(&model);
        other.prefill(&text(1, 270)).unwrap();
        assert_eq!((reused(&other), used(&model)), (0, (before.0 + 1, before.1 - 4)), "{arch}");
        drop(other);
        assert_eq!(used(&model), before, "{arch}");
        drop(model);
        assert_eq!(engine.memory_used(), 0, "{arch}");
    }
}

#[test]
fn the_least_recently_used_go_first_and_ends_before_beginnings() {
    let (_engine, model) = keeping("qwen2", 9, 0);
    for n in [1, 2, 3] {
        assert_eq!(visit(&model, &text(n, 200)), 0);
    }
    assert_eq!(used(&model), (9, 9));
    assert_eq!(visit(&model, &text(1, 200)), 192);
    // Two pages more than there is room for: the last two of the second text.
    assert_eq!(visit(&model, &text(4, 130)), 0);
    assert_eq!(used(&model), (9, 9));
    let found = |n: u32| visit(&model, &text(n, 193));
    assert_eq!([found(3), found(1)], [192, 192]);
    assert_eq!(found(2), 64);
    // What has been looked for stays, the fourth text does not.
    assert_eq!([found(2), found(1), found(4), found(3)], [192, 192, 0, 0]);
    // More than there is room for: of one text its beginning.
    assert_eq!(visit(&model, &text(5, 64 * 20)), 0);
    assert_eq!((used(&model), visit(&model, &text(5, 64 * 20))), ((9, 9), 9 * 64));
    // A common beginning is held once, and goes behind both of its ends.
    let both = |end: u32| [text(6, 128), text(end, 128)].concat();
    assert_eq!((visit(&model, &both(7)), visit(&model, &both(8))), (0, 128));
    assert_eq!(visit(&model, &text(9, 64 * 5)), 0);
    assert_eq!(visit(&model, &[both(7), vec![1]].concat()), 128, "its own end has gone");
}

#[test]
fn the_bound_is_kept_and_sessions_have_all_the_memory_that_they_would_have_without() {
    let (_engine, model) = keeping("qwen2", 4, 8);
    let page = model.cache_facts().page_bytes;
    let held = reusing(&model);
    held.prefill(&text(9, 64)).unwrap();
    let expected = bits(&held);
    for n in 1..20 {
        visit(&model, &text(n, 64 * (n as usize % 6 + 1)));
        let facts = model.cache_facts();
        assert!(facts.n_pages_retained <= 4 && facts.retained_bytes <= 4 * page && facts.n_pages_used <= 8);
        assert_eq!(facts.n_pages_free, Some(7), "what is retained is free");
    }
    assert_eq!(used(&model), (5, 4));
    // All of it is given up for a session, and nothing that another holds.
    let large = reusing(&model);
    let refused = large.prefill(&text(50, 64 * 8)).unwrap_err();
    assert!(matches!(refused, Error::CacheFull { needed: 8, free: 7, total: 8 }), "{refused}");
    assert_eq!(used(&model), (5, 4), "it would not have been enough");
    large.prefill(&text(50, 64 * 7)).unwrap();
    assert_eq!((used(&model), bits(&held)), ((8, 0), expected));
    assert_eq!(held.prefill(&[1]).unwrap_err().status(), Status::CacheFull);
    large.truncate(64).unwrap();
    assert_eq!(used(&model), (6, 4));
    held.prefill(&[1]).unwrap();
    assert_eq!(visit(&model, &text(50, 64 * 5 + 1)), 64 * 5);
    // Generating takes them, too.
    let three = Session::new(&model, SessionOptions::default()).unwrap();
    three.prefill(&text(51, 63)).unwrap();
    (0..130).for_each(|i| three.prefill(&[i]).unwrap());
    assert!(used(&model).0 <= 8);
    // Less than a page is none.
    let options = LoadOptions { prefix_cache_bytes: page - 1, ..Default::default() };
    let tiny = crate::common::tiny::Tiny::new("qwen2", kigo::gguf::TensorType::Q8_0).bytes();
    let engine = Engine::with_device(cpu(2), 1, None, kigo::engine::LogSink::silent());
    let Err(error) = engine.load_memory_with(&tiny, options, &mut |_, _| Ok(())) else { panic!("less than a page") };
    assert_eq!(
        error.to_string(),
        format!("prefix_cache_bytes is {}; expected at least the {page} bytes of a page", page - 1)
    );
}

#[test]
fn another_model_and_a_load_take_what_is_retained() {
    let options = LoadOptions { prefix_cache_bytes: u64::MAX, ..Default::default() };
    let (free, one) = load(cpu(2), "qwen2", None, options);
    let weights = free.memory_used();
    let page = one.cache_facts().page_bytes;
    drop(one);
    let (engine, a) = load(cpu(2), "qwen2", Some(2 * weights + 10 * page), options);
    let mut file = crate::common::tiny::Tiny::new("qwen2", kigo::gguf::TensorType::Q8_0);
    (file.shape.n_ctx, file.shape.n_vocab) = (4096, 512);
    let file = file.bytes();
    visit(&a, &text(1, 64 * 10));
    let n_more = (weights / page).min(40) as usize;
    visit(&a, &text(2, 64 * n_more));
    assert!(n_more > 0 && used(&a).1 == 10 + n_more as u64, "{n_more}");
    let b = engine.load_memory_with(&file, options, &mut |_, _| Ok(())).unwrap();
    assert!(used(&a).1 <= 10);
    visit(&a, &text(3, 64 * 10));
    assert_eq!(used(&a), (10, 10));
    let session = reusing(&b);
    session.prefill(&text(4, 64 * 6)).unwrap();
    assert_eq!((used(&a), used(&b)), ((4, 4), (6, 0)));
    assert_eq!(session.prefill(&text(4, 64 * 5)).unwrap_err().status(), Status::OutOfMemory);
    assert_eq!((used(&a), used(&b)), ((4, 4), (6, 0)), "it would not have been enough");
    drop(session);
    assert_eq!(visit(&a, &text(3, 64 * 10)), 64 * 4);
    assert_eq!(used(&a).1 + used(&b).1, 10);
    drop((a, b));
    assert_eq!(engine.memory_used(), 0);
}

#[test]
fn windows_that_a_session_ended_with_are_the_last_to_go() {
    let (_, plain) = load(cpu(2), "gemma3", None, LoadOptions::default());
    let (_engine, model) = keeping("gemma3", 8, 16);
    let prompt = |n: usize| text(1, n);
    visit(&model, &prompt(420));
    assert_eq!(used(&model), (6, 6));
    let facts = model.cache_facts();
    assert_eq!((facts.used_bytes, facts.spare_bytes), (6 * facts.page_bytes, 6 * facts.page_bytes));
    // A long session, whose windows leave more behind than there is memory for.
    let long = Session::new(&model, SessionOptions::default()).unwrap();
    long.prefill(&text(2, 64 * 12)).unwrap();
    let facts = model.cache_facts();
    assert!(facts.n_pages_retained == 6 && facts.retained_bytes < 6 * facts.page_bytes, "{facts:?}");
    assert!(long.facts().unwrap().n_free_from > 0 || facts.retained_bytes < 6 * facts.page_bytes);
    // All of it can still be gone on with, and none of its beginnings alone.
    let session = reusing(&model);
    session.prefill(&[prompt(384), vec![5; 3]].concat()).unwrap();
    assert_eq!((reused(&session), bits(&session)), (384, alone(&plain, &[prompt(384), vec![5; 3]].concat())));
    session.truncate(100).unwrap();
    session.prefill(&[6]).unwrap();
    assert_eq!(bits(&session), alone(&plain, &[prompt(100), vec![6]].concat()));
    drop(session);
    assert_eq!(bits(&long), alone(&plain, &text(2, 64 * 12)));
    // Where even that is needed, it goes.
    let others = fill(&model);
    assert_eq!(used(&model).1, 0);
    assert_eq!(long.facts().unwrap().n_pages, 12);
    drop(others);
    long.truncate(300).unwrap();
    long.prefill(&[7]).unwrap();
    assert_eq!(bits(&long), alone(&plain, &[text(2, 300), vec![7]].concat()));
    drop(long);
    let facts = model.cache_facts();
    assert_eq!((facts.used_bytes, facts.spare_bytes), (facts.retained_bytes, facts.retained_bytes));
}

#[test]
fn salts_keep_prefixes_apart() {
    let (_engine, model) = keeping("qwen2", 100, 0);
    let visit = |salt: &str| {
        let session = salted(&model, salt);
        session.prefill(&text(1, 200)).unwrap();
        (reused(&session), bits(&session))
    };
    let (n, expected) = visit("a");
    assert_eq!(n, 0);
    for (salt, n) in [("b", 0), ("", 0), ("a", 192), ("b", 192), ("", 192), ("ab", 0), ("a\0", 0)] {
        assert_eq!(visit(salt), (n, expected.clone()), "{salt:?}");
    }
    // A fork has its origin's.
    let origin = salted(&model, "c");
    origin.prefill(&text(2, 70)).unwrap();
    let fork = origin.fork().unwrap();
    drop(origin);
    fork.truncate(0).unwrap();
    fork.prefill(&text(1, 200)).unwrap();
    assert_eq!(reused(&fork), 0);
    fork.truncate(0).unwrap();
    fork.prefill(&text(2, 70)).unwrap();
    assert_eq!(reused(&fork), 64);
    let long = |n| SessionOptions { prefix_salt: vec![0; n], ..Default::default() };
    Session::new(&model, long(1024)).unwrap();
    let Err(error) = Session::new(&model, long(1025)) else { panic!("a salt without end") };
    assert_eq!(error.to_string(), "prefix_salt_len is 1025; expected at most 1024");
}

#[test]
fn what_a_session_goes_back_from_is_kept_too() {
    let (_engine, model) = keeping("qwen2", 100, 0);
    let session = reusing(&model);
    session.prefill(&text(1, 200)).unwrap();
    // Into the middle of a page, which is written then.
    session.truncate(100).unwrap();
    assert_eq!(used(&model), (3, 1));
    session.prefill(&text(2, 100)).unwrap();
    assert_eq!(bits(&session), alone(&model, &[text(1, 100), text(2, 100)].concat()));
    let other = reusing(&model);
    other.prefill(&text(1, 200)).unwrap();
    assert_eq!((reused(&other), bits(&other)), (192, alone(&model, &text(1, 200))));
    drop((session, other));
    assert_eq!(visit(&model, &[text(1, 100), text(2, 100)].concat()), 192);
    // Where there is no memory for a copy it is written in place.
    let (_engine, model) = keeping("qwen2", 100, 3);
    let session = reusing(&model);
    session.prefill(&text(1, 130)).unwrap();
    session.truncate(100).unwrap();
    let others = fill(&model);
    assert_eq!(others.len(), 1);
    session.prefill(&[5; 20]).unwrap();
    assert_eq!((visit(&keeping("qwen2", 1, 0).1, &[1]), used(&model)), (0, (3, 0)));
    drop(others);
    assert_eq!(bits(&session), alone(&keeping("qwen2", 1, 0).1, &[text(1, 100), vec![5; 20]].concat()));
}

#[test]
fn restored_sessions_and_embeddings_leave_nothing() {
    let (_engine, model) = keeping("qwen2", 100, 0);
    let session = salted(&model, "a");
    session.prefill(&text(1, 200)).unwrap();
    let mut blob = vec![0; session.saved_bytes().unwrap()];
    session.save(&mut blob).unwrap();
    drop(session);
    assert_eq!(used(&model), (3, 3));
    let restored = Session::restore(&model, &blob).unwrap();
    assert_eq!((reused(&restored), used(&model)), (0, (7, 3)));
    restored.truncate(0).unwrap();
    restored.prefill(&text(2, 200)).unwrap();
    restored.advance(&text(1, 200), None).unwrap();
    assert_eq!((reused(&restored), bits(&restored)), (0, alone(&model, &text(1, 200))));
    drop(restored);
    assert_eq!((visit(&model, &text(2, 200)), used(&model).1), (0, 3 + 3 + 3));
    let mut out = vec![0.0; model.facts().n_embd];
    let before = used(&model);
    model.embed(&text(5, 200), EmbedOptions::default(), &mut out).unwrap();
    assert_eq!((used(&model), visit(&model, &text(5, 200))), (before, 0));
}

#[test]
fn where_the_device_has_no_more_memory_retained_pages_are_taken() {
    let plot = Arc::new(Plot::default());
    let options = LoadOptions { prefix_cache_bytes: u64::MAX, ..Default::default() };
    let (_engine, model) = load(Arc::new(Probe(Arc::clone(&plot))), "qwen2", None, options);
    plot.most_pages.store(6, Ordering::SeqCst);
    visit(&model, &text(1, 64 * 2));
    visit(&model, &text(2, 64 * 2));
    assert_eq!(used(&model), (4, 4));
    let session = reusing(&model);
    session.prefill(&text(3, 64 * 3)).unwrap();
    assert_eq!((used(&model), plot.reserved.load(Ordering::SeqCst)), ((4, 1), 4), "three of the four");
    session.prefill(&text(4, 64 * 3)).unwrap();
    assert_eq!(used(&model), (6, 0));
    assert_eq!(session.prefill(&[1]).unwrap_err().status(), Status::OutOfMemory);
    drop(session);
    assert_eq!((used(&model), visit(&model, &text(3, 64 * 3))), ((6, 6), 128));
}
