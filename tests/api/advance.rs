//! A session taken to other tokens: what is common stays, the rest is computed, and what fails changes nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::common::kept::{alone, bits, keeping, load, pages, reused, reusing, text, used};
use crate::common::probe::{Plot, Probe};
use crate::common::run::cpu;
use kigo::backend::{Device, TapEvent};
use kigo::engine::{Advanced, LoadOptions, Model, Session, SessionOptions, Tap};
use kigo::error::Status;

fn plain(arch: &str) -> Model {
    load(cpu(2), arch, None, LoadOptions::default()).1
}

fn session(model: &Model, tokens: &[u32]) -> Session {
    let session = Session::new(model, SessionOptions { n_ctx: Some(2048), ..Default::default() }).unwrap();
    if !tokens.is_empty() {
        session.prefill(tokens).unwrap();
    }
    session
}

fn held(session: &Session) -> Vec<u32> {
    session.with_tokens(|tokens| Ok(tokens.to_vec())).unwrap()
}

fn came(n_kept: usize, n_reused: usize, n_computed: usize) -> Advanced {
    Advanced { n_kept, n_reused, n_computed }
}

#[test]
fn what_is_common_is_kept_and_the_bits_are_those_of_a_new_session() {
    for arch in ["qwen2", "gemma3", "gpt-oss"] {
        let model = plain(arch);
        let a = session(&model, &[]);
        let steps: [(Vec<u32>, Advanced); 9] = [
            (text(1, 200), came(0, 0, 200)),
            (text(1, 200), came(200, 0, 0)),
            (text(1, 300), came(200, 0, 100)),
            (text(1, 128), came(127, 0, 1)),
            ([text(1, 100), text(2, 150)].concat(), came(100, 0, 150)),
            ([text(1, 100), text(3, 10)].concat(), came(100, 0, 10)),
            (text(4, 70), came(0, 0, 70)),
            (text(4, 1), came(0, 0, 1)),
            (text(4, 1300), came(1, 0, 1299)),
        ];
        for (i, (tokens, expected)) in steps.iter().enumerate() {
            assert_eq!(a.advance(tokens, None).unwrap(), *expected, "{arch}, step {i}");
            assert_eq!((held(&a), bits(&a)), (tokens.clone(), alone(&model, tokens)), "{arch}, step {i}");
        }
        // All of it is there, but no logits; and with a fork, which keeps its own.
        a.truncate(300).unwrap();
        let fork = a.fork().unwrap();
        assert_eq!(a.advance(&text(4, 300), None).unwrap(), came(299, 0, 1), "{arch}");
        fork.advance(&[text(4, 70), text(5, 70)].concat(), None).unwrap();
        assert_eq!(bits(&a), alone(&model, &text(4, 300)), "{arch}");
        assert_eq!(bits(&fork), alone(&model, &[text(4, 70), text(5, 70)].concat()), "{arch}");
        drop((a, fork));
        assert_eq!(model.cache_facts().n_pages_used, 0, "{arch}");
    }
}

#[test]
fn others_have_what_the_session_has_not() {
    let (_engine, model) = keeping("qwen2", 100, 0);
    let a = reusing(&model);
    a.advance(&text(1, 300), None).unwrap();
    a.advance(&[text(1, 100), text(2, 200)].concat(), None).unwrap();
    // Back to the first text, which is kept: the page in which both begin to differ comes from there, too.
    assert_eq!(a.advance(&text(1, 300), None).unwrap(), came(64, 192, 44));
    assert_eq!(bits(&a), alone(&model, &text(1, 300)));
    assert_eq!(a.advance(&[text(1, 100), text(2, 200)].concat(), None).unwrap(), came(64, 192, 44));
    assert_eq!(bits(&a), alone(&model, &[text(1, 100), text(2, 200)].concat()));
    // A third way has the two pages' beginning in common with nobody.
    assert_eq!(a.advance(&[text(1, 100), text(3, 200)].concat(), None).unwrap(), came(100, 0, 200));
    assert_eq!((reused(&a), model.cache_facts().n_tokens_saved), (2 * 192, 2 * 192));
    let used = used(&model);
    drop(a);
    assert_eq!((used.0 - 1, used.0 - 1), crate::common::kept::used(&model));
}

#[test]
fn progress_is_told_before_each_pass_and_may_stop_it() {
    let model = plain("gemma3");
    let a = session(&model, &text(1, 300));
    let before = bits(&a);
    let target = [text(1, 100), text(2, 1400)].concat();
    let mut told = Vec::new();
    for stop in 0..3 {
        told.clear();
        let mut progress = |done, total| {
            told.push((done, total));
            assert_eq!(a.facts().unwrap_err().status(), Status::Busy);
            let other = session(&model, &text(9, 3));
            drop(other);
            told.len() <= stop
        };
        assert_eq!(a.advance(&target, Some(&mut progress)).unwrap_err().status(), Status::Cancelled);
        assert_eq!(told.len(), stop + 1);
        assert_eq!((held(&a), bits(&a)), (text(1, 300), before.clone()), "stopped at {stop}");
    }
    assert!(told[0] == (100, 1500) && told.is_sorted() && told[2].0 < 1500, "{told:?}");
    // A cancel from inside, one before, and one that comes without a callback.
    let mut progress = |_, _| {
        a.cancel();
        true
    };
    assert_eq!(a.advance(&target, Some(&mut progress)).unwrap_err().status(), Status::Cancelled);
    a.cancel();
    assert_eq!(a.advance(&target, None).unwrap_err().status(), Status::Cancelled);
    assert_eq!((held(&a), bits(&a)), (text(1, 300), before));
    assert_eq!(model.cache_facts().n_pages_used, 5);
    a.advance(&target, Some(&mut |_, _| true)).unwrap();
    assert_eq!(bits(&a), alone(&model, &target));
    // What is held already needs no pass.
    a.advance(&target, Some(&mut |_, _| false)).unwrap();
}

#[test]
fn a_failure_changes_nothing() {
    let plot = Arc::new(Plot::default());
    let device: Arc<dyn Device> = Arc::new(Probe(Arc::clone(&plot)));
    let options = pages(&load(device.clone(), "qwen2", None, LoadOptions::default()).1, 1, 10);
    let (_engine, model) = load(device, "qwen2", None, options);
    let a = session(&model, &text(1, 300));
    let seen = |a: &Session| (held(a), bits(a), a.facts().unwrap().n_pages);
    let before = seen(&a);
    let status = |tokens: &[u32]| a.advance(tokens, None).unwrap_err().status();
    let target = [text(1, 100), text(2, 200)].concat();
    *plot.fail_in_pass.lock().unwrap() = Some(0);
    assert_eq!((status(&target), seen(&a)), (Status::DeviceLost, before.clone()));
    assert_eq!((status(&[]), status(&[1, 512])), (Status::InvalidArgument, Status::InvalidArgument));
    assert_eq!(status(&text(2, 2049)), Status::ContextFull);
    // The old ones stay until it has succeeded: of ten pages the four more are not there beside five, and two of another.
    let other = session(&model, &text(7, 100));
    let passes = plot.passes.load(Ordering::SeqCst);
    assert_eq!((status(&target), seen(&a)), (Status::CacheFull, before.clone()));
    assert_eq!(plot.passes.load(Ordering::SeqCst), passes, "found out before anything runs");
    assert_eq!(a.advance(&target[..200], None).unwrap(), came(100, 0, 100));
    assert_eq!(used(&model), (4 + 2 + 1, 1));
    drop(other);
    *plot.panic_at.lock().unwrap() = Some(511);
    assert_eq!((status(&[1, 511]), status(&[1])), (Status::Internal, Status::Poisoned));
}

#[test]
fn a_tap_sees_what_is_computed() {
    let model = plain("qwen2");
    let a = session(&model, &text(1, 300));
    let rows = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&rows);
    let sink = move |event: &TapEvent<'_>| {
        seen.lock().unwrap().push((event.position, event.data.len() / event.cols));
        true
    };
    a.set_tap(Some(Tap::new(1, Box::new(sink)))).unwrap();
    a.advance(&[text(1, 100), text(2, 50)].concat(), Some(&mut |_, _| true)).unwrap();
    a.advance(&[text(1, 100), text(2, 51)].concat(), None).unwrap();
    assert_eq!(*rows.lock().unwrap(), [(100, 50), (150, 1)]);
}
