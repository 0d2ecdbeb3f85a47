//! The sampler: what each step does, that draws follow their distribution, and that they can be repeated.

use kigo::sampler::{SampleRequest, SamplingParams, exp_neg, log_softmax, random_u64, sample};
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

proptest! {
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
