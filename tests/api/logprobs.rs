//! Log probabilities of single tokens: by the model they are the softmax, by the sampler what sessions really draw.

use crate::common::hold::hold;
use crate::common::tiny::Tiny;
use kigo::engine::{
    By, Engine, EngineOptions, Grammar, LogSink, Logprob, Model, Session, SessionOptions, sample_batch,
};
use kigo::error::{Error, Status};
use kigo::gguf::TensorType;
use kigo::sampler::SamplingParams;

fn load(device: &str) -> Model {
    let engine = Engine::new(EngineOptions { device, n_threads: 2, memory_cap: None, log: LogSink::silent() }).unwrap();
    engine.load_memory(&Tiny::new("qwen2", TensorType::Q8_0).bytes(), &mut |_, _| Ok(())).unwrap()
}

fn session(model: &Model, sampling: SamplingParams) -> Session {
    let session = Session::new(model, SessionOptions { sampling, ..SessionOptions::default() }).unwrap();
    session.prefill(&[5, 6, 5, 9]).unwrap();
    session
}

fn hot() -> SamplingParams {
    SamplingParams { temperature: 1.3, top_k: 30, top_p: 0.9, repetition_penalty: 1.2, ..SamplingParams::default() }
}

#[test]
fn before_is_the_softmax_and_after_what_is_drawn() {
    let grammars = [None, Some(Grammar::Regex("[a-e]{1,4}"))];
    for (device, grammar) in ["cpu", "reference"].into_iter().flat_map(|d| grammars.map(|g| (d, g))) {
        let model = load(device);
        let session = session(&model, hot());
        if let Some(grammar) = grammar {
            hold(&session, grammar).unwrap();
        }
        let n_vocab = session.n_vocab();
        let all: Vec<u32> = (0..n_vocab as u32).collect();
        let found = session.token_logprobs(&all, 0, By::Before).unwrap();
        let mut plain = vec![0.0; n_vocab];
        session.logprobs(&mut plain).unwrap();
        assert!(
            found.iter().zip(0..).all(|(p, id)| p.token == id && p.before.to_bits() == plain[id as usize].to_bits())
        );

        let n = 3000_u64;
        let mut counts = vec![0_f64; n_vocab];
        for seed in 0..n {
            session.set_sampling(SamplingParams { seed, ..hot() }).unwrap();
            counts[session.sample().unwrap() as usize] += 1.0;
        }
        let (mut chi, mut n_possible, mut sum) = (0.0_f64, 0.0_f64, 0.0_f64);
        for (count, shown) in counts.iter().zip(&found) {
            let p = f64::from(shown.after).exp();
            sum += p;
            if p == 0.0 {
                assert_eq!((*count, shown.after), (0.0, f32::NEG_INFINITY));
            } else {
                chi += (count - n as f64 * p).powi(2) / (n as f64 * p);
                n_possible += 1.0;
            }
        }
        assert!((sum - 1.0).abs() < 1e-5 && n_possible > 2.0 && n_possible <= 30.0, "{sum} of {n_possible}");
        // Wilson and Hilferty: above this with probability 0.0001. The seeds are fixed.
        let f = n_possible - 1.0;
        let edge = f * (1.0 - 2.0 / (9.0 * f) + 3.72 * (2.0 / (9.0 * f)).sqrt()).powi(3);
        assert!(chi < edge, "{device} {grammar:?}: {chi} of {f}, {edge}");
    }
}

#[test]
fn the_likeliest_come_in_order() {
    let session = session(&load("cpu"), hot());
    let n_vocab = session.n_vocab();
    for by in [By::Before, By::After] {
        let all = session.token_logprobs(&[], n_vocab, by).unwrap();
        let keys = |p: &Logprob| if by == By::Before { (p.before, p.after) } else { (p.after, p.before) };
        for pair in all.windows(2) {
            let (a, b) = (keys(&pair[0]), keys(&pair[1]));
            assert!(a > b || a == b && pair[0].token < pair[1].token, "{pair:?}");
        }
        let mut ids: Vec<u32> = all.iter().map(|p| p.token).collect();
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..n_vocab as u32));
        for n in [0, 1, 7, n_vocab - 1] {
            assert_eq!(session.token_logprobs(&[], n, by).unwrap(), all[..n]);
        }
        // Those asked for stand before, in their order.
        let found = session.token_logprobs(&[9, 3, 9], 2, by).unwrap();
        assert_eq!(found.iter().map(|p| p.token).collect::<Vec<_>>()[..3], [9, 3, 9]);
        assert_eq!((found[0], &found[3..]), (found[2], &all[..2]));
    }
}

#[test]
fn greedy_is_certain_with_a_constraint_too() {
    let session = session(&load("cpu"), SamplingParams::default());
    for grammar in [None, Some(Grammar::Regex("[0-9]{2}")), Some(Grammar::Regex("zebra"))] {
        if let Some(grammar) = grammar {
            hold(&session, grammar).unwrap();
        }
        let token = session.sample().unwrap();
        let found = session.token_logprobs(&[token], 2, By::After).unwrap();
        assert_eq!((found[0].after, found[1].token, found[2].after), (0.0, token, f32::NEG_INFINITY));
        assert!(found[0].before < 0.0);
        // To look changes nothing, and what is drawn in a batch is the same.
        assert_eq!(*sample_batch(&[&session])[0].as_ref().unwrap(), token);
    }
}

#[test]
fn what_cannot_be_shown_is_refused() {
    let model = load("cpu");
    let session = session(&model, hot());
    let n_vocab = session.n_vocab();
    let error = session.token_logprobs(&[0, n_vocab as u32], 0, By::Before).unwrap_err();
    assert_eq!(error.to_string(), format!("token {n_vocab} at index 1 is not below the vocabulary's {n_vocab}"));
    let error = session.token_logprobs(&[], n_vocab + 1, By::Before).unwrap_err();
    assert_eq!(error.to_string(), format!("n_top is {}; expected at most the vocabulary's {n_vocab}", n_vocab + 1));
    hold(&session, Grammar::Regex("q")).unwrap();
    let q = model.tokenize("q", false, false).unwrap()[0];
    session.set_sampling(SamplingParams { logit_bias: vec![(q, f32::NEG_INFINITY)], ..hot() }).unwrap();
    assert_eq!(session.token_logprobs(&[1], 1, By::After).unwrap_err().status(), Status::Constraint);
    let empty = Session::new(&model, SessionOptions::default()).unwrap();
    assert!(matches!(empty.token_logprobs(&[], 1, By::Before), Err(Error::State { .. })));
}
