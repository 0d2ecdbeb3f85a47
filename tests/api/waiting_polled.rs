//! Prompts of polled batches that begin as others do: they wait and are waited for, and nobody for ever, whenever a batch is run.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::common::kept::{bits, reused, reusing, text};
use crate::waiting::{expected, in_pass, prompt, slow, within};
use kigo::engine::{Batch, GenerateOptions, LoadOptions, Model, Session, What, Work};
use kigo::error::Status;

fn add(batch: &mut Batch<Arc<Session>>, session: &Arc<Session>, tokens: &[u32]) {
    batch.add(Arc::clone(session), Work { tokens, generate: None }).unwrap();
}

fn run_to_the_end(batch: &mut Batch<Arc<Session>>, time: Duration) {
    while batch.run(time).unwrap() > 0 {}
}

/// The ends there are, in their order: whose, and how.
fn ends(batch: &mut Batch<Arc<Session>>) -> Vec<(Arc<Session>, Result<(), Status>)> {
    let end = |what| match what {
        What::End(outcome) => outcome.map(|_| ()).map_err(|error| error.status()),
        What::Token(_) => panic!("nothing was to be generated"),
    };
    std::iter::from_fn(|| batch.take_event()).map(|event| (event.session, end(event.what))).collect()
}

fn sessions<const N: usize>(model: &Model) -> [Arc<Session>; N] {
    std::array::from_fn(|_| Arc::new(reusing(model)))
}

#[test]
fn equal_prompts_of_a_batch_are_computed_once() {
    for time in [Duration::ZERO, Duration::from_secs(5)] {
        let (model, plot) = slow(0, LoadOptions::default());
        let wanted: Vec<_> = (0..3).map(|end| expected(&model, &plot, &prompt(end))).collect();
        let all: [_; 3] = sessions(&model);
        let mut batch = Batch::new(&model).unwrap();
        for (session, end) in all.iter().zip(0..) {
            add(&mut batch, session, &prompt(end));
        }
        run_to_the_end(&mut batch, time);
        assert!(ends(&mut batch).iter().all(|(_, end)| end.is_ok()));
        assert_eq!(all.iter().map(|session| reused(session)).sum::<usize>(), 2 * 256, "{time:?}");
        for (session, wanted) in all.iter().zip(&wanted) {
            assert_eq!(bits(session), *wanted);
        }
        assert_eq!(model.cache_facts().n_pages_used, 4 + 3);
    }
}

#[test]
fn nobody_waits_long_for_a_batch_that_is_not_run() {
    let (model, plot) = slow(0, LoadOptions::default());
    let wanted = [1, 2, 3].map(|end| expected(&model, &plot, &prompt(end)));
    let [first, second] = sessions(&model);
    let mut batch = Batch::new(&model).unwrap();
    add(&mut batch, &first, &prompt(1));
    // It has not run yet, and may never: neither a call nor another batch needs it.
    let other = reusing(&model);
    other.prefill(&prompt(2)).unwrap();
    assert_eq!((reused(&other), bits(&other)), (0, wanted[1].clone()));
    drop(other);
    let (mut beside, begin) = (Batch::new(&model).unwrap(), Instant::now());
    add(&mut beside, &second, &prompt(3));
    // With no time it does not wait at all.
    while beside.run(Duration::ZERO).unwrap() > 0 {
        assert!(begin.elapsed() < Duration::from_secs(20), "it waits for ever");
    }
    assert_eq!((reused(&second), bits(&second)), (0, wanted[2].clone()));
    run_to_the_end(&mut batch, Duration::from_secs(1));
    assert_eq!(bits(&first), wanted[0]);
}

#[test]
fn a_batch_waits_for_a_call_and_a_call_for_a_batch() {
    for batch_leads in [false, true] {
        let (model, plot) = slow(60, LoadOptions::default());
        let wanted = [1, 2].map(|end| expected(&model, &plot, &prompt(end)));
        let (before, [polled, called]) = (model.figures().n_prefilled, sessions(&model));
        let mut batch = Batch::new(&model).unwrap();
        std::thread::scope(|scope| {
            if batch_leads {
                add(&mut batch, &polled, &prompt(1));
                let runs = scope.spawn(|| run_to_the_end(&mut batch, Duration::from_secs(60)));
                in_pass(&plot);
                called.prefill(&prompt(2)).unwrap();
                runs.join().unwrap();
            } else {
                let leads = scope.spawn(|| called.prefill(&prompt(2)).unwrap());
                in_pass(&plot);
                add(&mut batch, &polled, &prompt(1));
                // A run of no time does not wait; one of some waits no longer than that.
                let begin = Instant::now();
                assert_eq!((batch.run(Duration::ZERO).unwrap(), leads.is_finished()), (1, false));
                assert_eq!(batch.run(Duration::from_millis(2)).unwrap(), 1);
                assert!(begin.elapsed() < Duration::from_millis(60), "{:?}", begin.elapsed());
                assert_eq!(model.figures().n_prefilled, before);
                run_to_the_end(&mut batch, Duration::from_secs(60));
                assert!(polled.figures().waiting_ns > 50_000_000, "{:?}", polled.figures());
            }
        });
        let (waited, led) = if batch_leads { (&called, &polled) } else { (&polled, &called) };
        assert_eq!((reused(waited), reused(led)), (256, 0), "the batch leads: {batch_leads}");
        assert_eq!([bits(&polled), bits(&called)], wanted);
    }
}

#[test]
fn where_the_first_of_a_batch_ends_early_the_next_computes() {
    for removed in [false, true] {
        let (model, plot) = slow(0, LoadOptions::default());
        // Of two passes: the device cuts prompts at 512.
        let prompt = |end| [text(1, 600), vec![end]].concat();
        let wanted: Vec<_> = (0..4).map(|end| expected(&model, &plot, &prompt(end))).collect();
        let all: [_; 4] = sessions(&model);
        let mut batch = Batch::new(&model).unwrap();
        for (session, end) in all.iter().zip(0..) {
            add(&mut batch, session, &prompt(end));
        }
        assert_eq!(batch.run(Duration::ZERO).unwrap(), 4);
        // The first computes, the others wait; one that waits is stopped at once, too.
        if removed {
            batch.remove(&all[0]).unwrap();
            batch.remove(&all[2]).unwrap();
        } else {
            plot.fail_in_pass.lock().unwrap().replace(0);
            all[2].cancel();
        }
        run_to_the_end(&mut batch, Duration::ZERO);
        for (session, end) in ends(&mut batch) {
            let expected = match all.iter().position(|one| Arc::ptr_eq(one, &session)) {
                Some(0) => Err(Status::DeviceLost),
                Some(2) => Err(Status::Cancelled),
                _ => Ok(()),
            };
            assert_eq!(end, expected);
        }
        for index in [0, 2] {
            assert_eq!((all[index].facts().unwrap().n_tokens, all[index].facts().unwrap().n_pages), (0, 0));
        }
        for index in [1, 3] {
            assert_eq!(bits(&all[index]), wanted[index]);
        }
        // What the first had computed is there, or is computed once more, by one of them.
        assert!(reused(&all[1]) + reused(&all[3]) >= 576);
    }
}

#[test]
fn batches_on_threads_that_wait_for_each_other_s_prompts_come_to_their_ends() {
    let (model, plot) = slow(3, LoadOptions::default());
    let ways = [0, 1].map(|way| [text(7 + way, 300), vec![1]].concat());
    let wanted = ways.clone().map(|tokens| expected(&model, &plot, &tokens));
    let all = within(60, move || {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|thread| {
                    let (model, ways) = (&model, &ways);
                    scope.spawn(move || {
                        let mut batch = Batch::new(model).unwrap();
                        let all: [_; 2] = sessions(model);
                        // Each leads the one and waits for the other, or has it there.
                        for i in 0..2 {
                            add(&mut batch, &all[(thread + i) % 2], &ways[(thread + i) % 2]);
                        }
                        while batch.run(Duration::from_millis(1)).unwrap() > 0 {}
                        all
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        })
    });
    for sessions in &all {
        assert_eq!([bits(&sessions[0]), bits(&sessions[1])], wanted);
    }
}

#[test]
fn an_end_tells_what_its_generation_took_as_a_call_does() {
    let (model, plot) = slow(3, LoadOptions::default());
    let how = GenerateOptions { max_tokens: Some(5), ignore_end: true, ..GenerateOptions::default() };
    let [first, second, third] = sessions(&model);
    first.prefill(&prompt(1)).unwrap();
    third.prefill(&prompt(3)[..20]).unwrap();
    plot.passes.store(0, Ordering::SeqCst);
    let mut batch = Batch::new(&model).unwrap();
    batch.add(Arc::clone(&second), Work { tokens: &prompt(2), generate: Some(&how) }).unwrap();
    batch.add(Arc::clone(&third), Work { tokens: &[], generate: Some(&how) }).unwrap();
    let (begin, mut between, mut told) = (Instant::now(), Duration::ZERO, Vec::new());
    while batch.run(Duration::ZERO).unwrap() > 0 {
        let pause = Instant::now();
        std::thread::sleep(Duration::from_millis(2));
        between += pause.elapsed();
    }
    let took = begin.elapsed();
    while let Some(event) = batch.take_event() {
        match event.what {
            What::Token(_) => assert_eq!(event.times.decode, Duration::ZERO),
            What::End(_) => told.push((event.session, event.n_tokens, event.times)),
        }
    }
    for (session, n_tokens, times) in &told {
        let (is_second, after) = (Arc::ptr_eq(session, &second), session.figures());
        let expected = if is_second { (301, 256) } else { (20, 0) };
        assert_eq!((*n_tokens, times.n_before, times.n_reused_before), (5, expected.0, expected.1));
        // Five steps of 3 ms at least; what is between the runs is not in it.
        assert!(
            times.decode >= Duration::from_millis(15) && times.decode <= took - between,
            "{times:?} {took:?} {between:?}"
        );
        assert!(
            times.callbacks >= Duration::from_millis(8) && times.decode + times.callbacks <= took,
            "{times:?} {between:?}"
        );
        assert!(times.first_token >= Duration::from_millis(3) && times.first_token < times.decode, "{times:?}");
        assert!(times.before > Duration::ZERO && times.waiting <= times.decode, "{times:?}");
        assert!(after.decode_ns >= u64::try_from(times.decode.as_nanos()).unwrap(), "{times:?} {after:?}");
        // The next one begins from here.
        let again = session.generate(&how, &mut |_, _| true).unwrap();
        assert_eq!((again.times.n_before, again.times.before), (0, Duration::ZERO));
    }
    assert_eq!(told.len(), 2);
}
