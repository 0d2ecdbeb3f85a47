//! A long prompt beside steps of other sessions: who goes when, how long passes are, and that no bit depends on it.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::batch::{prompt, session};
use crate::common::hooked::{Hook, Hooked};
use crate::common::kept::bits;
use crate::common::tiny::Tiny;
use kigo::backend::cpu::{CpuDevice, CpuOptions};
use kigo::engine::{Append, Engine, GenerateOptions, LoadOptions, LogSink, Model, Session, append_batch};
use kigo::error::{Error, Result, Status};
use kigo::gguf::TensorType;

/// The passes that a device has run, and the one that it stays in until it is let go on.
#[derive(Default)]
struct Seen {
    /// The tokens of each part.
    passes: Mutex<Vec<Vec<usize>>>,
    /// The pass that is held, and whether it has begun.
    held: Mutex<Option<(usize, bool)>>,
    changed: Condvar,
}

impl Seen {
    /// Holds this pass, and the one before it no more.
    fn hold(&self, pass: usize) {
        *self.held.lock().unwrap() = Some((pass, false));
        self.changed.notify_all();
    }

    /// Waits until the pass is held.
    fn arrived(&self) {
        drop(self.changed.wait_while(self.held.lock().unwrap(), |held| held.is_some_and(|held| !held.1)));
    }

    fn let_go(&self) {
        *self.held.lock().unwrap() = None;
        self.changed.notify_all();
    }

    fn pass(&self, parts: Vec<usize>) {
        let mut passes = self.passes.lock().unwrap();
        let number = passes.len();
        passes.push(parts);
        drop(passes);
        let mut held = self.held.lock().unwrap();
        if held.is_some_and(|(pass, _)| pass == number) {
            *held = Some((number, true));
            self.changed.notify_all();
            drop(self.changed.wait_while(held, |held| held.is_some_and(|(pass, _)| pass == number)));
        }
    }

    fn taken(&self) -> Vec<Vec<usize>> {
        std::mem::take(&mut self.passes.lock().unwrap())
    }
}

impl Hook for Seen {
    fn before(&self, parts: &[usize]) -> Result<()> {
        self.pass(parts.to_vec());
        Ok(())
    }
}

/// A model of the CPU whose prompts may be cut at multiples of a number.
fn watched(alignment: Option<usize>, merge: bool, pass_tokens: Option<usize>) -> (Model, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let cpu = CpuDevice::new(CpuOptions { n_threads: 2, isa: None }).unwrap();
    let hook = Arc::<Seen>::clone(&seen);
    let device = Arc::new(Hooked { device: Arc::new(cpu), hook, alignment: Some(alignment) });
    let mut tiny = Tiny::new("qwen2", TensorType::Q4_1);
    tiny.shape.n_ctx = 2048;
    let engine = Engine::with_device(device, 2, None, LogSink::silent());
    let options = LoadOptions { merge, pass_tokens, ..LoadOptions::default() };
    (engine.load_memory_with(&tiny.bytes(), options, &mut |_, _| Ok(())).unwrap(), seen)
}

/// Waits until so many calls wait for their pass, beside the one that is held.
fn in_line(model: &Model, n: usize) {
    while model.n_waiting() != n {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_step_that_waits_goes_before_the_next_pass_of_a_prompt_and_only_one() {
    for merge in [false, true] {
        let (model, seen) = watched(Some(1), merge, Some(16));
        let (long, answer) = (session(&model), session(&model));
        answer.prefill(&prompt(1, 5)).unwrap();
        seen.taken();
        seen.hold(1);
        std::thread::scope(|scope| {
            scope.spawn(|| long.prefill(&prompt(2, 60)).unwrap());
            seen.arrived();
            scope.spawn(|| answer.prefill(&[7]).unwrap());
            in_line(&model, 1);
            seen.let_go();
        });
        assert_eq!(seen.taken(), [vec![16], vec![16], vec![1], vec![16], vec![12]], "merged: {merge}");
    }
}

#[test]
fn prompts_take_turns_and_steps_of_several_threads_each_go_once() {
    let (model, seen) = watched(Some(1), false, Some(16));
    let (first, second, answers) = (session(&model), session(&model), [session(&model), session(&model)]);
    answers.iter().for_each(|answer| answer.prefill(&prompt(1, 5)).unwrap());
    seen.taken();
    seen.hold(0);
    std::thread::scope(|scope| {
        scope.spawn(|| first.prefill(&prompt(2, 32)).unwrap());
        seen.arrived();
        scope.spawn(|| second.prefill(&prompt(3, 30)).unwrap());
        for answer in &answers {
            scope.spawn(|| answer.prefill(&[7]).unwrap());
        }
        in_line(&model, 3);
        // Whose thread is slow to come back has lost its turn: the first prompt's next part is there before any other pass ends.
        seen.hold(1);
        seen.arrived();
        in_line(&model, 3);
        seen.let_go();
    });
    // The other prompt's first pass comes before the first one's second.
    assert_eq!(seen.taken(), [[16], [1], [1], [16], [16], [14]]);
}

#[test]
fn in_a_batch_steps_ride_in_the_first_pass_of_prompts() {
    for merge in [false, true] {
        let (model, seen) = watched(Some(1), merge, Some(16));
        let sessions: Vec<Session> = (0..4).map(|_| session(&model)).collect();
        let tokens = [prompt(1, 20), vec![1], prompt(2, 9), vec![2]];
        let entries: Vec<_> =
            sessions.iter().zip(&tokens).map(|(session, tokens)| Append { session, tokens }).collect();
        append_batch(&entries).into_iter().for_each(|outcome| outcome.unwrap());
        assert_eq!(seen.taken(), [vec![16, 1, 1], vec![9, 4]]);
        for (session, tokens) in sessions.iter().zip(&tokens) {
            let alone = self::session(&model);
            alone.prefill(tokens).unwrap();
            assert_eq!(bits(session), bits(&alone));
        }
    }
}

#[test]
fn a_cancel_is_seen_between_the_passes_of_a_batch() {
    let (model, seen) = watched(Some(1), false, Some(16));
    let (long, other) = (session(&model), session(&model));
    seen.hold(0);
    std::thread::scope(|scope| {
        let batch = scope.spawn(|| {
            let (many, one) = (prompt(1, 100), [3]);
            append_batch(&[Append { session: &long, tokens: &many }, Append { session: &other, tokens: &one }])
        });
        seen.arrived();
        long.cancel();
        seen.let_go();
        let outcomes = batch.join().unwrap();
        assert!(matches!(outcomes[0], Err(Error::Cancelled)) && outcomes[1].is_ok());
    });
    assert_eq!(seen.taken(), [[16, 1]]);
    assert_eq!(long.facts().unwrap().n_tokens, 0);
}

#[test]
fn a_device_says_where_a_prompt_may_be_cut() {
    for (alignment, expected) in [(Some(64), vec![54, 64, 64, 18]), (Some(1), vec![16; 12]), (None, vec![200])] {
        let (model, seen) = watched(alignment, false, Some(16));
        let session = session(&model);
        session.prefill(&prompt(1, 10)).unwrap();
        seen.taken();
        session.prefill(&prompt(2, 200)).unwrap();
        let expected: Vec<_> = if alignment == Some(1) { [expected, vec![8]].concat() } else { expected };
        assert_eq!(seen.taken().concat(), expected, "{alignment:?}");
        // And the same in a batch, beside another.
        let (long, other) = (self::session(&model), self::session(&model));
        long.prefill(&prompt(1, 10)).unwrap();
        seen.taken();
        let (many, few) = (prompt(2, 200), prompt(3, 3));
        append_batch(&[Append { session: &long, tokens: &many }, Append { session: &other, tokens: &few }])
            .into_iter()
            .for_each(|outcome| outcome.unwrap());
        assert_eq!(bits(&long), bits(&session), "{alignment:?}");
        if alignment == Some(64) {
            assert_eq!(seen.taken(), [[54], [3], [64], [64], [18]]);
        }
    }
}

#[test]
fn where_nobody_else_steps_passes_are_long() {
    let (model, seen) = watched(Some(1), false, None);
    let (long, answer) = (session(&model), session(&model));
    for token in 0..5 {
        answer.prefill(&[token]).unwrap();
    }
    seen.taken();
    long.prefill(&prompt(1, 600)).unwrap();
    assert_eq!(seen.taken()[0], [512]);
}

/// The bits of a prompt's logits beside sessions that step all the while, and of each of these in the end.
fn beside(model: &Model, n_answers: usize, alone: bool) -> Vec<Vec<u32>> {
    let options = GenerateOptions { max_tokens: Some(40), ignore_end: true, ..GenerateOptions::default() };
    let (long, answers) = (session(model), (0..n_answers).map(|_| session(model)).collect::<Vec<_>>());
    let answer = &|seed: usize, session: &Session| {
        session.prefill(&prompt(seed, 5 + seed)).unwrap();
        session.generate(&options, &mut |_, _| true).unwrap();
    };
    if alone {
        answers.iter().enumerate().for_each(|(seed, session)| answer(seed, session));
        long.prefill(&prompt(99, 700)).unwrap();
    } else {
        std::thread::scope(|scope| {
            for (seed, session) in answers.iter().enumerate() {
                scope.spawn(move || answer(seed, session));
            }
            long.prefill(&prompt(99, 700)).unwrap();
        });
    }
    answers.iter().chain([&long]).map(bits).collect()
}

#[test]
fn a_prompt_beside_32_stepping_sessions_has_the_bits_that_it_has_alone() {
    let (model, _) = watched(Some(1), false, Some(512));
    let expected = beside(&model, 32, true);
    for (merge, pass_tokens) in [(false, None), (true, None), (true, Some(16)), (false, Some(7))] {
        let (model, seen) = watched(Some(1), merge, pass_tokens);
        assert_eq!(beside(&model, 32, false), expected, "merged: {merge}, {pass_tokens:?}");
        let shared = seen.taken().iter().filter(|pass| pass.len() > 1).count();
        assert_eq!(shared > 0, merge, "{shared} passes were shared");
    }
}

#[test]
fn a_part_that_fails_is_nobody_else_s_and_the_line_goes_on() {
    let (model, _) = watched(Some(1), true, Some(16));
    let (wrong, right) = (session(&model), session(&model));
    let bad = [u32::MAX];
    let good = prompt(1, 40);
    let outcomes = append_batch(&[Append { session: &wrong, tokens: &bad }, Append { session: &right, tokens: &good }]);
    assert_eq!(outcomes[0].as_ref().unwrap_err().status(), Status::InvalidArgument);
    assert!(outcomes[1].is_ok());
    wrong.prefill(&good).unwrap();
    assert_eq!(bits(&wrong), bits(&right));
}
