//! Draws follow their distribution, greedy is the argmax, and a seed repeats itself.

use super::{Finding, Patient, Subject, argmax};
use crate::engine::{GenerateOptions, SessionOptions};
use crate::error::Result;
use crate::sampler::SamplingParams;

/// Draws of one distribution, each with a seed of its own.
const DRAWS: usize = 1000;

/// A bin has at least so many draws expected.
const LEAST: f64 = 5.0;

pub(super) fn sampling(p: &Patient<'_>) -> Result<Finding> {
    let prompt = p.tokens(6)?;
    let session = p.session(64)?;
    session.prefill(&prompt)?;
    let logits = p.logits(&session)?;
    let greedy = session.sample()?;
    if greedy != argmax(&logits) {
        let text = format!("greedy chose {greedy}, the largest logit is that of {}", argmax(&logits));
        return Ok(Finding::of(f64::INFINITY, 0.0, text).blame(Subject::Sampling));
    }

    // A temperature at which there is something to choose from.
    let (mut temperature, mut shares) = (1.0, probabilities(&logits, 1.0));
    while temperature < 64.0 && bins(&shares).len() < 8 {
        temperature *= 2.0;
        shares = probabilities(&logits, temperature);
    }
    let bins = bins(&shares);
    let mut counts = vec![0_u32; bins.len() + 1];
    for i in 0..DRAWS {
        let seed = p.seed.wrapping_add(i as u64);
        session.set_sampling(SamplingParams { temperature, seed, ..SamplingParams::default() })?;
        let token = session.sample()? as usize;
        counts[bins.iter().position(|b| *b == token).unwrap_or(bins.len())] += 1;
    }
    let mut expected: Vec<f64> = bins.iter().map(|b| shares[*b] * DRAWS as f64).collect();
    expected.push(DRAWS as f64 - expected.iter().sum::<f64>());
    // A rest that is hardly ever drawn says nothing, unless it is drawn.
    if expected[bins.len()] < LEAST && f64::from(counts[bins.len()]) < 4.0 * LEAST {
        expected.pop();
    }
    let chi: f64 = expected.iter().zip(&counts).map(|(e, n)| (f64::from(*n) - e).powi(2) / e.max(1e-9)).sum();
    let freedom = (expected.len() - 1).max(1) as f64;
    // Wilson and Hilferty: five standard deviations, once in 3.5 million where nothing is wrong.
    let bound = freedom * (1.0 - 2.0 / (9.0 * freedom) + 5.0 * (2.0 / (9.0 * freedom)).sqrt()).powi(3);
    if !(chi <= bound) {
        let text = format!("chi-squared of {DRAWS} draws at temperature {temperature} in {} bins", expected.len());
        return Ok(Finding::of(chi, bound, text).blame(Subject::Sampling));
    }

    let ids = |seed: u64| -> Result<Vec<u32>> {
        let sampling = SamplingParams { temperature, top_p: 0.95, seed, ..SamplingParams::default() };
        let n_ctx = Some(p.config.n_ctx_train.min(prompt.len() + 16));
        let session =
            crate::engine::Session::new(&p.model, SessionOptions { n_ctx, sampling, ..SessionOptions::default() })?;
        session.prefill(&prompt)?;
        let options = GenerateOptions { max_tokens: Some(16), ignore_end: true, ..GenerateOptions::default() };
        session.generate(&options, &mut |_, _| true)?;
        session.with_tokens(|tokens| Ok(tokens.to_vec()))
    };
    if ids(p.seed)? != ids(p.seed)? {
        let text = "the same seed gave other tokens";
        return Ok(Finding::of(f64::INFINITY, bound, text).blame(Subject::Sampling));
    }
    let text = format!(
        "chi-squared of {DRAWS} draws at temperature {temperature} in {} bins; greedy is the argmax, a seed repeats",
        expected.len()
    );
    Ok(Finding::of(chi, bound, text))
}

/// The probabilities, in f64.
fn probabilities(logits: &[f32], temperature: f32) -> Vec<f64> {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, l| m.max(*l));
    let weights: Vec<f64> =
        logits.iter().map(|l| ((f64::from(*l) - f64::from(max)) / f64::from(temperature)).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}

/// The tokens that are likely enough to be counted by themselves.
fn bins(shares: &[f64]) -> Vec<usize> {
    (0..shares.len()).filter(|i| shares[*i] * DRAWS as f64 >= LEAST).collect()
}
