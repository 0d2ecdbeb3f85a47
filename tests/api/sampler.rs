//! The sampler: what each step does, that draws follow their distribution, and that they can be repeated.

use crate::plain_sampler;
use kigo::backend::cpu::{Isa, softmax_weights_by};
use kigo::sampler::{
    SampleRequest, SamplingParams, Scale, Scratch, exp_neg, log_distribution, log_softmax, random_u64, sample,
    sample_with, softmax_weights,
};
use proptest::prelude::*;

fn draw(logits: &[f32], params: &SamplingParams, history: &[u32], position: u64) -> u32 {
    sample(logits, &SampleRequest { params, history, position }).unwrap().token
}

fn seen(logits: &[f32], params: &SamplingParams, n: u64) -> Vec<u32> {
    let mut all: Vec<u32> = (0..n).map(|i| draw(logits, params, &[], i)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn hot() -> SamplingParams {
    SamplingParams { temperature: 1.0, ..SamplingParams::default() }
}

#[test]
fn philox_gives_the_published_numbers() {
    // Random123's known answer for philox4x32-10, counter 0, key 0: 6627e8d5 e169c58d bc57ac4c 9b00dbd8.
    assert_eq!(random_u64(0, 0), 0xe169_c58d_6627_e8d5);
    assert_ne!(random_u64(0, 1), random_u64(1, 0));
}

#[test]
fn exp_is_within_two_units_of_the_last_place() {
    let mut x = 0.0_f32;
    while x > -86.9 {
        let exact = f64::from(x).exp();
        let error = (f64::from(exp_neg(x)) - exact).abs() / exact;
        assert!(error <= 2.0 * f64::from(f32::EPSILON), "{x}: {error:e}");
        x -= 0.00731;
    }
    assert_eq!(exp_neg(0.0), 1.0);
    for x in [-88.0, f32::NEG_INFINITY, f32::NAN] {
        assert_eq!(exp_neg(x), 0.0);
    }
}

#[test]
fn greedy_takes_the_largest_and_the_lowest_id_of_equals() {
    let greedy = SamplingParams::default();
    let mut logits = vec![0.0; 1000];
    for at in [0, 15, 16, 255, 256, 700, 999] {
        logits[at] = 3.0;
        assert_eq!(draw(&logits, &greedy, &[], 0), at as u32);
        logits[999] = 3.0;
        assert_eq!(draw(&logits, &greedy, &[], 0), at as u32, "a tie goes to the lower id");
        logits.fill(0.0);
    }
    logits[5] = f32::NAN;
    logits[6] = 1.0;
    assert_eq!(draw(&logits, &greedy, &[], 0), 6);
    assert_eq!(draw(&[-1.0, f32::NEG_INFINITY, -0.5], &greedy, &[], 0), 2);
}

#[test]
fn logits_without_a_choice_are_an_error() {
    for params in [SamplingParams::default(), hot()] {
        for logits in [[f32::NAN; 3], [f32::NEG_INFINITY; 3], [0.0, f32::INFINITY, 1.0]] {
            assert!(sample(&logits, &SampleRequest { params: &params, history: &[], position: 0 }).is_err());
        }
    }
}

#[test]
fn draws_follow_the_softmax() {
    let logits: Vec<f32> = (0..40).map(|i| ((i * 37) % 11) as f32 * 0.4).collect();
    for temperature in [0.5, 1.0, 1.7] {
        let params = SamplingParams { temperature, seed: 9, ..hot() };
        let n = 40_000_u64;
        let mut counts = [0_f64; 40];
        (0..n).for_each(|i| counts[draw(&logits, &params, &[], i) as usize] += 1.0);
        let e: Vec<f64> = logits.iter().map(|&l| f64::from(l / temperature).exp()).collect();
        let total: f64 = e.iter().sum();
        let chi: f64 =
            counts.iter().zip(&e).map(|(c, e)| (c - n as f64 * e / total).powi(2) / (n as f64 * e / total)).sum();
        // 39 degrees of freedom: above 80 with probability 0.0001. The seed is fixed.
        assert!(chi < 80.0, "{temperature}: {chi}");
    }
}

#[test]
fn each_limit_keeps_what_it_says() {
    let logits: Vec<f32> = [0.4_f32, 0.3, 0.15, 0.1, 0.05].map(f32::ln).to_vec();
    let n = 4000;
    assert_eq!(seen(&logits, &hot(), n), [0, 1, 2, 3, 4]);
    assert_eq!(seen(&logits, &SamplingParams { top_k: 2, ..hot() }, n), [0, 1]);
    assert_eq!(seen(&logits, &SamplingParams { top_p: 0.69, ..hot() }, n), [0, 1]);
    assert_eq!(seen(&logits, &SamplingParams { top_p: 0.71, ..hot() }, n), [0, 1, 2]);
    assert_eq!(seen(&logits, &SamplingParams { top_p: 0.01, ..hot() }, n), [0]);
    assert_eq!(seen(&logits, &SamplingParams { min_p: 0.3, ..hot() }, n), [0, 1, 2]);
    assert_eq!(seen(&logits, &SamplingParams { top_k: 4, top_p: 0.9, min_p: 0.3, ..hot() }, n), [0, 1, 2]);
    assert_eq!(seen(&logits, &SamplingParams { temperature: 0.01, ..hot() }, n), [0]);
    // Ties at the edge of top-k go to the lowest ids.
    assert_eq!(seen(&[1.0; 6], &SamplingParams { top_k: 3, ..hot() }, n), [0, 1, 2]);
    assert_eq!(seen(&[1.0; 6], &SamplingParams { top_p: 0.5, ..hot() }, n), [0, 1, 2]);
}

#[test]
fn biases_and_penalties_change_the_order() {
    let logits = [2.0, 1.9, -1.0, 0.0];
    let with = |p: SamplingParams, history: &[u32]| draw(&logits, &p, history, 0);
    let greedy = SamplingParams::default;
    assert_eq!(with(SamplingParams { logit_bias: vec![(3, 5.0)], ..greedy() }, &[]), 3);
    assert_eq!(with(SamplingParams { logit_bias: vec![(0, f32::NEG_INFINITY)], ..greedy() }, &[]), 1);
    assert_eq!(with(SamplingParams { repetition_penalty: 1.2, ..greedy() }, &[0]), 1);
    assert_eq!(with(SamplingParams { presence_penalty: 0.2, ..greedy() }, &[0, 0]), 1);
    assert_eq!(with(SamplingParams { frequency_penalty: 0.06, ..greedy() }, &[0]), 0);
    assert_eq!(with(SamplingParams { frequency_penalty: 0.06, ..greedy() }, &[0, 0]), 1);
    // Only the last tokens count.
    let window = SamplingParams { presence_penalty: 0.2, penalty_window: 2, ..greedy() };
    assert_eq!(with(window.clone(), &[0, 3, 3]), 0);
    assert_eq!(with(window, &[3, 0, 3]), 1);
    // A negative logit is pushed down as well.
    assert_eq!(draw(&[-1.0, -1.05], &SamplingParams { repetition_penalty: 1.2, ..greedy() }, &[0], 0), 1);
}

#[test]
fn parameters_without_meaning_are_refused_by_name() {
    let ok = SamplingParams::default();
    assert!(ok.validate(10).is_ok());
    let bad: [(&str, SamplingParams); 9] = [
        ("temperature", SamplingParams { temperature: -1.0, ..ok.clone() }),
        ("temperature", SamplingParams { temperature: f32::NAN, ..ok.clone() }),
        ("top_p", SamplingParams { top_p: 1.5, ..ok.clone() }),
        ("min_p", SamplingParams { min_p: f32::INFINITY, ..ok.clone() }),
        ("repetition_penalty", SamplingParams { repetition_penalty: 0.0, ..ok.clone() }),
        ("frequency_penalty", SamplingParams { frequency_penalty: f32::NAN, ..ok.clone() }),
        ("presence_penalty", SamplingParams { presence_penalty: f32::INFINITY, ..ok.clone() }),
        ("logit_bias", SamplingParams { logit_bias: vec![(1, f32::NAN)], ..ok.clone() }),
        ("token 10", SamplingParams { logit_bias: vec![(10, 1.0)], ..ok.clone() }),
    ];
    for (name, params) in bad {
        let text = params.validate(10).unwrap_err().to_string();
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn log_softmax_sums_to_one() {
    let logits = [1.0, 2.0, f32::NAN, -3.0, 80.0];
    let mut out = [0.0; 5];
    log_softmax(&logits, &mut out).unwrap();
    let sum: f64 = out.iter().map(|&l| f64::from(l).exp()).sum();
    // Five roundings to f32.
    assert!((sum - 1.0).abs() < 1e-6 && out[2] == f32::NEG_INFINITY);
}

#[test]
fn shown_probabilities_are_those_of_the_draws() {
    let logits: Vec<f32> = (0..300).map(|i| ((i * 37) % 31) as f32 * 0.3 - (i % 7) as f32).collect();
    let history = [3, 3, 10, 44, 45];
    let biased = SamplingParams { logit_bias: vec![(5, 2.0), (6, f32::NEG_INFINITY)], ..hot() };
    let cases = [
        hot(),
        SamplingParams { temperature: 1.7, top_k: 40, ..hot() },
        SamplingParams { top_p: 0.7, repetition_penalty: 1.3, ..hot() },
        SamplingParams { min_p: 0.05, presence_penalty: 0.5, frequency_penalty: 0.2, ..hot() },
        SamplingParams { temperature: 0.8, top_k: 60, top_p: 0.9, min_p: 0.02, ..biased },
    ];
    for params in cases {
        let mut shown = vec![f32::NAN; 300];
        log_distribution(&logits, &SampleRequest { params: &params, history: &history, position: 0 }, &mut shown)
            .unwrap();
        let n = 60_000_u64;
        let mut counts = [0_f64; 300];
        (0..n).for_each(|i| counts[draw(&logits, &params, &history, i) as usize] += 1.0);
        let (mut chi, mut freedom, mut sum) = (0.0_f64, -1.0_f64, 0.0_f64);
        for (count, log) in counts.iter().zip(&shown) {
            let p = f64::from(*log).exp();
            sum += p;
            if p == 0.0 {
                assert_eq!(*count, 0.0, "a token that is cut off was drawn");
            } else {
                chi += (count - n as f64 * p).powi(2) / (n as f64 * p);
                freedom += 1.0;
            }
        }
        // 300 roundings to f32 of logarithms of up to 20.
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        // Wilson and Hilferty: above this with probability 0.0001 (3.72 sigmas). The seed is fixed.
        let edge = freedom * (1.0 - 2.0 / (9.0 * freedom) + 3.72 * (2.0 / (9.0 * freedom)).sqrt()).powi(3);
        assert!(freedom > 5.0 && chi < edge, "{params:?}: {chi} of {freedom}, {edge}");
    }
}

#[test]
fn greedy_is_shown_as_certain() {
    let logits = [1.0, f32::NAN, 3.0, 3.0, -1.0];
    let mut shown = [f32::NAN; 5];
    let params = SamplingParams::default();
    let request = SampleRequest { params: &params, history: &[], position: 0 };
    log_distribution(&logits, &request, &mut shown).unwrap();
    let no = f32::NEG_INFINITY;
    assert_eq!(shown, [no, no, 0.0, no, no], "the lower id of a tie");
    assert!(log_distribution(&[f32::NAN; 2], &request, &mut [0.0; 2]).is_err());
}

/// Logits of a real model's kind: few large, most of them far below, with ties, bans, and zeros of both signs.
fn many_logits(n: usize, seed: u64) -> Vec<f32> {
    let one = |i: u64| match random_u64(seed, i) {
        r if r % 50 == 0 => f32::NEG_INFINITY,
        r if r % 51 == 0 => [0.0, -0.0, f32::NAN][(r >> 40) as usize % 3],
        r if r % 4 == 0 => ((r >> 20) % 40) as f32 * 0.25,
        r => (r >> 40) as f32 * (1.0 / 16_777_216.0) * 30.0 - 20.0,
    };
    (0..n as u64).map(one).collect()
}

#[test]
fn large_vocabularies_are_drawn_from_as_defined() {
    let mut all: Vec<Scratch> =
        Isa::available().into_iter().map(|isa| Scratch::with_weights(softmax_weights_by(isa))).collect();
    all.push(Scratch::default());
    for (seed, n) in [(1, 49_152), (2, 151_936), (3, 5_000), (4, 257)] {
        let logits = many_logits(n, seed);
        for (temperature, top_k, top_p, min_p) in [
            (1.0, 0, 0.0, 0.0),
            (0.7, 40, 0.95, 0.05),
            (1.5, 0, 0.9, 0.0),
            (1e4, 0, 0.999, 0.0),
            (1e4, 4000, 0.0, 0.5),
            (0.01, 0, 0.5, 1.0),
        ] {
            let params = SamplingParams { temperature, top_k, top_p, min_p, seed, ..SamplingParams::default() };
            for position in 0..3 {
                let request = SampleRequest { params: &params, history: &[], position };
                let defined = plain_sampler::draw(&logits, &request);
                for scratch in &mut all {
                    let drawn = sample_with(scratch, &logits, &request).unwrap().token;
                    assert_eq!(Some(drawn), defined, "{n} {params:?}");
                }
            }
        }
    }
}

#[test]
fn weights_are_the_same_with_all_instructions() {
    for (n, seed) in [(100_003, 1), (17, 2), (1, 3)] {
        let logits = many_logits(n, seed);
        for (inverse, floor) in [(1.0, -77.0), (0.01, -9e3), (30.0, 7.0)] {
            let scale = Scale { top: 10.0, inverse, floor };
            let mut defined = vec![1; n];
            softmax_weights(&logits, scale, &mut defined);
            assert!(n < 100 || defined.iter().filter(|w| **w > 0).count() > 100);
            for isa in Isa::available() {
                let mut weights = vec![2; n];
                softmax_weights_by(isa)(&logits, scale, &mut weights);
                assert!(weights == defined, "{isa:?} of {n}");
            }
        }
    }
}

#[test]
fn a_draw_takes_less_than_its_definition() {
    let logits: Vec<f32> = (0..49_152).map(|i| (0..4).map(|k| (random_u64(k, i) >> 40) as f32 * 3e-7).sum()).collect();
    for (top_k, top_p) in [(0, 0.0), (0, 0.95), (40, 0.95)] {
        let params = SamplingParams { top_k, top_p, ..hot() };
        let request = |position| SampleRequest { params: &params, history: &[], position };
        let begin = std::time::Instant::now();
        plain_sampler::draw(&logits, &request(0)).unwrap();
        let plain = begin.elapsed().as_secs_f64() * 1e6;
        for isa in Isa::available() {
            let mut scratch = Scratch::with_weights(softmax_weights_by(isa));
            let time = |position| {
                let begin = std::time::Instant::now();
                sample_with(&mut scratch, &logits, &request(position)).unwrap();
                begin.elapsed().as_secs_f64() * 1e6
            };
            let best = (0..50).map(time).fold(f64::MAX, f64::min);
            println!("49,152 tokens, temperature 1, top-k {top_k}, top-p {top_p}, {isa:?}: {best:.0} microseconds");
            assert!(best < plain, "{best} microseconds, its definition {plain}");
        }
    }
}

proptest! {
    #[test]
    fn draws_are_those_of_the_definition(
        seed: u64,
        n in 1_usize..700,
        temperature in prop_oneof![Just(0.0_f32), 0.01_f32..3.0, Just(1e4)],
        top_k in prop_oneof![Just(0_u32), 1_u32..60, 60_u32..800],
        top_p in prop_oneof![Just(0.0_f32), 1e-12_f32..1.0, Just(1.0)],
        min_p in prop_oneof![Just(0.0_f32), 0.0_f32..1.0],
        history in prop::collection::vec(0_u32..700, 0..20),
        penalty in prop_oneof![Just(1.0_f32), 0.5_f32..2.0],
    ) {
        let logits = many_logits(n, seed);
        let params = SamplingParams {
            temperature, top_k, top_p, min_p, seed, repetition_penalty: penalty,
            logit_bias: vec![(0, 1.0)], ..SamplingParams::default()
        };
        let request = SampleRequest { params: &params, history: &history, position: 5 };
        prop_assert_eq!(sample(&logits, &request).ok().map(|s| s.token), plain_sampler::draw(&logits, &request));
        let mut shown = vec![f32::NAN; n];
        let outcome = log_distribution(&logits, &request, &mut shown);
        let Some(weights) = plain_sampler::survivors(&logits, &request) else {
            prop_assert!(outcome.is_err());
            return Ok(());
        };
        let total: u64 = weights.iter().map(|w| w.0).sum();
        let mut expected = vec![f32::NEG_INFINITY; n];
        weights.iter().for_each(|&(w, id)| expected[id as usize] = (w as f64 / total as f64).ln() as f32);
        prop_assert_eq!(shown, expected);
    }

    #[test]
    fn a_draw_can_be_repeated_and_is_a_token(
        logits in prop::collection::vec(-30.0_f32..30.0, 1..300),
        temperature in prop_oneof![Just(0.0_f32), 0.01_f32..3.0],
        top_k in 0_u32..20,
        top_p in 0.0_f32..1.0,
        min_p in 0.0_f32..1.0,
        seed: u64,
        position: u64,
    ) {
        let params = SamplingParams { temperature, top_k, top_p, min_p, seed, ..SamplingParams::default() };
        let a = draw(&logits, &params, &[], position);
        prop_assert_eq!(a, draw(&logits, &params, &[], position));
        prop_assert!((a as usize) < logits.len());
        // With top-k, nothing that k others are above.
        if temperature > 0.0 && top_k > 0 {
            let above = logits.iter().filter(|&&l| l > logits[a as usize]).count();
            prop_assert!(above < top_k as usize);
        }
    }
}
