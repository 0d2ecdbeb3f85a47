//! Prompts that begin alike and are computed at the same time: one computes, the others wait for it, and nobody for ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::common::kept::{alone, bits, load, pages, reused, reusing, text};
use crate::common::probe::{Plot, Probe};
use crate::common::random::mix;
use kigo::backend::cpu::{CpuDevice, CpuOptions};
use kigo::engine::{Append, LoadOptions, Model, Session, SessionOptions, append_batch};
use kigo::error::Status;

/// A model whose passes take so many milliseconds, and what says so.
pub fn slow(delay_ms: usize, options: LoadOptions) -> (Model, Arc<Plot>) {
    let plot = Arc::new(Plot::default());
    let (_, model) = load(Arc::new(Probe(Arc::clone(&plot))), "qwen2", None, options);
    plot.delay_ms.store(delay_ms, Ordering::SeqCst);
    (model, plot)
}

pub fn prompt(end: u32) -> Vec<u32> {
    [text(1, 300), vec![end]].concat()
}

/// Waits until a pass has begun.
pub fn in_pass(plot: &Plot) {
    while plot.passes.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
}

/// What the logits are with all tokens computed, without delay.
pub fn expected(model: &Model, plot: &Plot, tokens: &[u32]) -> Vec<u32> {
    let delay_ms = plot.delay_ms.swap(0, Ordering::SeqCst);
    let expected = alone(model, tokens);
    plot.delay_ms.store(delay_ms, Ordering::SeqCst);
    plot.passes.store(0, Ordering::SeqCst);
    expected
}

/// Fails where `work` takes too long, such as for ever.
pub fn within<T: Send + 'static>(seconds: u64, work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(work);
    let begin = Instant::now();
    while !thread.is_finished() {
        assert!(begin.elapsed() < Duration::from_secs(seconds), "somebody waits for ever");
        std::thread::sleep(Duration::from_millis(1));
    }
    thread.join().unwrap()
}

#[test]
fn threads_with_the_same_beginning_compute_it_once() {
    for merge in [false, true] {
        let (model, plot) = slow(40, LoadOptions { merge, ..Default::default() });
        let wanted: Vec<_> = (0..4).map(|end| expected(&model, &plot, &prompt(end))).collect();
        let barrier = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..4)
            .map(|end| {
                let (model, barrier) = (model.clone(), Arc::clone(&barrier));
                std::thread::spawn(move || {
                    let session = reusing(&model);
                    barrier.wait();
                    session.prefill(&prompt(end)).unwrap();
                    session
                })
            })
            .collect();
        let sessions: Vec<_> = within(20, move || threads.into_iter().map(|t| t.join().unwrap()).collect());
        let sum: usize = sessions.iter().map(reused).sum();
        assert_eq!((sum, model.cache_facts().n_tokens_saved), (3 * 256, 3 * 256));
        for (session, wanted) in sessions.iter().zip(&wanted) {
            assert_eq!(bits(session), *wanted);
        }
        assert_eq!(model.cache_facts().n_pages_used, 4 + 4);
    }
}

#[test]
fn what_is_waited_for_comes_pass_by_pass() {
    let (model, plot) = slow(150, LoadOptions::default());
    let long = text(1, 512 * 4);
    let first = reusing(&model);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let leads = scope.spawn(|| first.prefill(&long).unwrap());
        in_pass(&plot);
        let second = reusing(&model);
        second.prefill(&[&long[..512], &[1]].concat()).unwrap();
        assert!(!leads.is_finished() && reused(&second) == 512, "{:?}", begin.elapsed());
        // A session that takes nothing over waits for nobody, and computes no slower for it.
        let third = Session::new(&model, SessionOptions::default()).unwrap();
        third.prefill(&long[..70]).unwrap();
        assert!(!leads.is_finished() && reused(&third) == 0);
    });
}

#[test]
fn who_waits_is_cancelled_at_once() {
    let (model, plot) = slow(1000, LoadOptions::default());
    let (first, second) = (reusing(&model), reusing(&model));
    std::thread::scope(|scope| {
        let leads = scope.spawn(|| first.prefill(&prompt(1)));
        in_pass(&plot);
        let waits = scope.spawn(|| {
            let outcome = second.prefill(&prompt(2)).map_err(|error| error.status());
            (outcome, Instant::now())
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waits.is_finished());
        let cancelled = Instant::now();
        second.cancel();
        let (outcome, ended) = waits.join().unwrap();
        assert_eq!(outcome, Err(Status::Cancelled));
        let took = ended - cancelled;
        println!("a waiting call was cancelled in {took:?}");
        assert!(took < Duration::from_millis(100) && !leads.is_finished(), "{took:?}");
        assert_eq!((second.facts().unwrap().n_tokens, second.facts().unwrap().n_pages), (0, 0));
        // The entry of a batch beside one that waits for nothing; the cancel before it is used up.
        let (third, fourth) = (reusing(&model), reusing(&model));
        let batch = [prompt(3), prompt(4)];
        third.cancel();
        let entries: Vec<_> =
            [&third, &fourth].into_iter().zip(&batch).map(|(session, tokens)| Append { session, tokens }).collect();
        let outcomes: Vec<_> = append_batch(&entries).into_iter().map(|o| o.map_err(|e| e.status())).collect();
        assert_eq!(outcomes, [Err(Status::Cancelled), Ok(())]);
        assert_eq!(reused(&fourth), 256);
        leads.join().unwrap().unwrap();
    });
    plot.delay_ms.store(0, Ordering::SeqCst);
    second.prefill(&prompt(2)).unwrap();
    assert_eq!((reused(&second), bits(&second)), (256, alone(&model, &prompt(2))));
}

#[test]
fn where_the_first_fails_or_is_cancelled_the_others_go_on() {
    for fails in [true, false] {
        let (model, plot) = slow(60, LoadOptions::default());
        let wanted = expected(&model, &plot, &prompt(2));
        let first = reusing(&model);
        if fails {
            *plot.fail_in_pass.lock().unwrap() = Some(0);
        }
        std::thread::scope(|scope| {
            let leads = scope.spawn(|| first.prefill(&prompt(1)).map_err(|error| error.status()));
            in_pass(&plot);
            let others: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let session = reusing(&model);
                        session.prefill(&prompt(2)).unwrap();
                        (reused(&session), bits(&session), session)
                    })
                })
                .collect();
            if !fails {
                std::thread::sleep(Duration::from_millis(10));
                first.cancel();
            }
            let status = if fails { Status::DeviceLost } else { Status::Cancelled };
            assert_eq!(leads.join().unwrap(), Err(status));
            let others: Vec<_> = others.into_iter().map(|other| other.join().unwrap()).collect();
            // One of them became the first.
            assert_eq!(others.iter().map(|other| other.0).sum::<usize>(), 2 * 256);
            others.iter().for_each(|other| assert_eq!(other.1, wanted));
        });
        first.prefill(&prompt(1)).unwrap();
    }
}

#[test]
fn entries_of_a_batch_wait_for_one_another() {
    let (model, plot) = slow(0, LoadOptions::default());
    let long = |end: u32| [text(1, 1100), vec![end]].concat();
    let wanted: Vec<_> = (0..5).map(|end| expected(&model, &plot, &long(end))).collect();
    let run = |stopped: Option<usize>| {
        let sessions: Vec<_> = (0..5).map(|_| reusing(&model)).collect();
        let texts: Vec<_> = (0..5).map(long).collect();
        if let Some(stopped) = stopped {
            sessions[stopped].cancel();
        }
        let entries: Vec<_> = sessions.iter().zip(&texts).map(|(session, tokens)| Append { session, tokens }).collect();
        plot.passes.store(0, Ordering::SeqCst);
        let outcomes: Vec<_> = append_batch(&entries).into_iter().map(|o| o.map_err(|e| e.status())).collect();
        for (i, outcome) in outcomes.iter().enumerate() {
            if stopped == Some(i) {
                assert_eq!(*outcome, Err(Status::Cancelled));
            } else {
                assert_eq!((*outcome, &bits(&sessions[i])), (Ok(()), &wanted[i]));
            }
        }
        sessions.iter().map(reused).collect::<Vec<_>>()
    };
    assert_eq!(run(None), [0, 1088, 1088, 1088, 1088]);
    assert_eq!(plot.passes.load(Ordering::SeqCst), 3 + 1, "three for the first, one for the rest of all others");
    assert_eq!(run(Some(0)), [0, 0, 1088, 1088, 1088]);
    assert_eq!(run(Some(2)), [0, 1088, 0, 1088, 1088]);
}

#[test]
fn batches_that_wait_for_each_other_s_entries_come_to_their_ends() {
    for merge in [false, true] {
        let (model, _) = slow(1, LoadOptions { merge, ..Default::default() });
        let run = |first: u32, model: Model, barrier: Arc<Barrier>| {
            move || {
                let mut n = 0;
                for round in 0..20 {
                    let sessions = [reusing(&model), reusing(&model), reusing(&model)];
                    let of = |which: u32, own: u32| [text(10 * round + which, 130), vec![own; 5]].concat();
                    let texts = [of(first, 1), of(3, first), of(1 - first, 2)];
                    let entries: Vec<_> =
                        sessions.iter().zip(&texts).map(|(session, tokens)| Append { session, tokens }).collect();
                    barrier.wait();
                    append_batch(&entries).into_iter().for_each(|outcome| outcome.unwrap());
                    n += sessions.iter().map(reused).sum::<usize>();
                    for (session, tokens) in sessions.iter().zip(&texts) {
                        assert_eq!(bits(session), alone(&model, tokens));
                    }
                }
                n
            }
        };
        let barrier = Arc::new(Barrier::new(2));
        let threads = [0, 1].map(|first| std::thread::spawn(run(first, model.clone(), Arc::clone(&barrier))));
        let n: usize = within(60, move || threads.into_iter().map(|t| t.join().unwrap()).sum());
        assert!(n >= 128 * 20, "{n} tokens were shared");
        assert_eq!(model.cache_facts().n_pages_used, 0);
    }
}

#[test]
fn nobody_waits_for_a_call_that_is_in_its_callback() {
    let (model, plot) = slow(0, LoadOptions::default());
    let wanted = expected(&model, &plot, &prompt(2));
    for other_thread in [false, true] {
        let (first, inside) = (reusing(&model), Arc::new(AtomicBool::new(false)));
        let (model, wanted, was_inside) = (model.clone(), wanted.clone(), Arc::clone(&inside));
        let took = within(20, move || {
            let mut took = Duration::ZERO;
            let work = |model: &Model| {
                let session = reusing(model);
                session.prefill(&prompt(2)).unwrap();
                assert_eq!((reused(&session), bits(&session)), (0, wanted.clone()));
            };
            let mut progress = |_, _| {
                inside.store(true, Ordering::SeqCst);
                let begin = Instant::now();
                if other_thread {
                    std::thread::scope(|scope| scope.spawn(|| work(&model)).join().unwrap());
                } else {
                    work(&model);
                }
                took = begin.elapsed();
                true
            };
            first.advance(&prompt(1), Some(&mut progress)).unwrap();
            took
        });
        println!("a prompt from inside a callback took {took:?}");
        assert!(was_inside.load(Ordering::SeqCst));
    }
}

#[test]
fn windows_are_there_behind_what_was_waited_for() {
    let device = Arc::new(CpuDevice::new(CpuOptions { n_threads: 1, isa: None }).unwrap());
    for arch in ["gemma3", "gpt-oss"] {
        let (_, model) = load(device.clone(), arch, None, LoadOptions::default());
        let long = text(1, 1300);
        let ends = [1300, 1290, 700, 130];
        let barrier = Barrier::new(ends.len());
        let sessions: Vec<Session> = std::thread::scope(|scope| {
            let threads: Vec<_> = ends
                .iter()
                .map(|end| {
                    scope.spawn(|| {
                        let session = reusing(&model);
                        barrier.wait();
                        session.prefill(&[&long[..*end], &[3; 3]].concat()).unwrap();
                        session
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        for (session, end) in sessions.iter().zip(ends) {
            assert_eq!(bits(session), alone(&model, &[&long[..end], &[3; 3]].concat()), "{arch}, {end}");
        }
        // Whoever is first computes at least what the second has in common with it.
        assert!(sessions.iter().map(reused).sum::<usize>() >= 128 * 3, "{arch}");
    }
}

#[test]
fn threads_that_share_keep_cancel_and_run_out_of_memory_stay_right() {
    let device = Arc::new(CpuDevice::new(CpuOptions { n_threads: 1, isa: None }).unwrap());
    for arch in ["qwen2", "gemma3"] {
        let (_, plain) = load(device.clone(), arch, None, LoadOptions::default());
        let ends = [70, 130, 200, 300];
        let of = |which: usize, end: usize| [text(which as u32, end), vec![7]].concat();
        let known: Vec<Vec<Vec<u32>>> =
            (0..3).map(|which| ends.map(|end| alone(&plain, &of(which, end))).to_vec()).collect();
        let options = LoadOptions { merge: arch == "qwen2", ..pages(&plain, 8, 16) };
        let (_, model) = load(device.clone(), arch, None, options);
        let run = |thread: u64| {
            let (mut n_ok, mut n_full, mut counter) = (0, 0, 0);
            let mut random = |below: usize| {
                counter += 1;
                (mix(thread * 1000 + counter) % below as u64) as usize
            };
            for _ in 0..60 {
                let [a, b] = [(random(3), random(4)), (random(3), random(4))];
                let texts = [a, b].map(|(which, end)| of(which, ends[end]));
                let sessions = [reusing(&model), reusing(&model)];
                let cancelled = random(6) == 0;
                if cancelled {
                    sessions[0].cancel();
                }
                let outcomes = if random(2) == 0 {
                    let entries = [0, 1].map(|i| Append { session: &sessions[i], tokens: &texts[i] });
                    append_batch(&entries)
                } else {
                    let advanced = sessions[0].advance(&texts[0], Some(&mut |_, _| true)).map(drop);
                    if let Err(error) = &advanced
                        && !matches!(error.status(), Status::CacheFull | Status::Cancelled)
                    {
                        panic!("{arch}: {error}");
                    }
                    // On from there, where that has succeeded, by another session of the same pages.
                    let fork = sessions[0].fork().unwrap();
                    let other = fork.advance(&texts[1], None).map(drop);
                    if other.is_ok() {
                        assert_eq!(bits(&fork), known[b.0][b.1], "{arch}");
                    }
                    vec![advanced]
                };
                for (i, outcome) in outcomes.into_iter().enumerate() {
                    match outcome.map_err(|error| error.status()) {
                        Ok(()) => {
                            assert!(!cancelled || i == 1, "{arch}");
                            let (which, end) = [a, b][i];
                            assert_eq!(bits(&sessions[i]), known[which][end], "{arch}");
                            n_ok += 1;
                        }
                        Err(Status::CacheFull) => n_full += 1,
                        Err(status) => {
                            assert!(status == Status::Cancelled && cancelled && i == 0, "{arch}: {status:?}")
                        }
                    }
                }
            }
            (n_ok, n_full)
        };
        let counts: Vec<(usize, usize)> = std::thread::scope(|scope| {
            let run = &run;
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || run(thread))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        println!("{arch}: (right, without memory) {counts:?}, {} tokens saved", model.cache_facts().n_tokens_saved);
        assert!(counts.iter().map(|count| count.0).sum::<usize>() > 20, "{arch}: {counts:?}");
        let facts = model.cache_facts();
        assert_eq!((facts.n_pages_used, facts.used_bytes), (facts.n_pages_retained, facts.spare_bytes), "{arch}");
    }
}
