//! The sampler's definition (the head of `src/sampler/mod.rs`), step by step and without regard to time.

use kigo::sampler::{SampleRequest, exp_neg, random_u64};

const ONE: f32 = 1_099_511_627_776.0;

/// `(weight, id)` of what a token is drawn from, in the order of the ids; `None`: there is nothing to choose from.
pub fn survivors(logits: &[f32], request: &SampleRequest<'_>) -> Option<Vec<(u64, u32)>> {
    let p = request.params;
    let mut l = logits.to_vec();
    p.logit_bias.iter().for_each(|&(token, bias)| l[token as usize] += bias);
    let n = if p.penalty_window == 0 { usize::MAX } else { p.penalty_window as usize };
    let window = &request.history[request.history.len().saturating_sub(n)..];
    for (token, logit) in l.iter_mut().enumerate() {
        let n = window.iter().filter(|&&t| t as usize == token).count();
        if n > 0 {
            *logit = if *logit > 0.0 { *logit / p.repetition_penalty } else { *logit * p.repetition_penalty };
            *logit -= (n as f32).mul_add(p.frequency_penalty, p.presence_penalty);
        }
    }
    let top = l.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if !top.is_finite() {
        return None;
    }
    if p.temperature == 0.0 {
        return Some(vec![(1, l.iter().position(|x| *x == top)? as u32)]);
    }
    let floor = top - 87.0 * p.temperature;
    let mut by_logit: Vec<(f32, u32)> = l.iter().copied().zip(0..).filter(|c| c.0 >= floor).collect();
    by_logit.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    if p.top_k > 0 {
        by_logit.truncate(p.top_k as usize);
    }
    let inverse = 1.0 / p.temperature;
    let weight = |&(l, id): &(f32, u32)| ((exp_neg((l - top) * inverse) * ONE) as u64, id);
    let mut weights: Vec<(u64, u32)> = by_logit.iter().map(weight).filter(|w| w.0 > 0).collect();
    weights.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    if p.top_p > 0.0 && p.top_p < 1.0 {
        let total: u128 = weights.iter().map(|w| u128::from(w.0)).sum();
        let bound = (total * (f64::from(p.top_p) * 2.0_f64.powi(32)) as u128) >> 32;
        let mut sum = 0;
        let n = weights.iter().position(|w| {
            sum += u128::from(w.0);
            sum >= bound
        });
        weights.truncate(n? + 1);
    }
    weights.retain(|w| p.min_p == 0.0 || w.0 >= (p.min_p.min(1.0) * ONE) as u64);
    weights.sort_by_key(|w| w.1);
    Some(weights)
}

/// The token that is drawn.
pub fn draw(logits: &[f32], request: &SampleRequest<'_>) -> Option<u32> {
    let weights = survivors(logits, request)?;
    let total: u128 = weights.iter().map(|w| u128::from(w.0)).sum();
    let aim = (u128::from(random_u64(request.params.seed, request.position)) * total) >> 64;
    let mut sum = 0;
    let drawn = weights.iter().find(|w| {
        sum += u128::from(w.0);
        sum > aim
    });
    drawn.map(|w| w.1)
}
