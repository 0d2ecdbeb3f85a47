//! The choice itself; the steps are those of the module's head.

use super::exp::exp_neg;
use super::random::random_u64;
use super::{SampleRequest, Sampled, SamplingParams};
use crate::error::{Error, Result};

/// Memory that draws reuse.
#[derive(Default)]
pub struct Scratch {
    adjusted: Vec<f32>,
    candidates: Vec<(f32, u32)>,
    weights: Vec<(u64, u32)>,
    counts: Vec<(u32, u32)>,
}

/// 2^40: the weight of the most likely token. 2^40 times 2^24 tokens stays inside of 64 bits.
const ONE: f32 = 1_099_511_627_776.0;

/// [`sample_with`] with memory of its own.
pub fn sample(logits: &[f32], request: &SampleRequest<'_>) -> Result<Sampled> {
    sample_with(&mut Scratch::default(), logits, request)
}

/// Picks a token. Logits that are NaN count as -inf; an error if none is left.
pub fn sample_with(scratch: &mut Scratch, logits: &[f32], request: &SampleRequest<'_>) -> Result<Sampled> {
    let p = request.params;
    let Scratch { adjusted, candidates, weights, counts } = scratch;
    let logits = adjust(adjusted, counts, logits, request);
    let (top, top_logit) = largest(logits)?;
    if p.temperature == 0.0 {
        return Ok(Sampled { token: top });
    }

    // 3. The k largest, or all; tokens more than 87 temperatures below the top weigh nothing and are left out.
    candidates.clear();
    let floor = top_logit - 87.0 * p.temperature;
    candidates.extend(logits.iter().zip(0_u32..).filter(|&(&l, _)| l >= floor).map(|(&l, i)| (l, i)));
    let k = p.top_k as usize;
    if k > 0 && k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        candidates.truncate(k);
    }

    // 4. Integer weights.
    let inverse = 1.0 / p.temperature;
    weights.clear();
    weights.extend(candidates.iter().filter_map(|&(l, i)| {
        let w = (exp_neg((l - top_logit) * inverse) * ONE) as u64;
        (w > 0).then_some((w, i))
    }));

    // 5. The smallest set with the share.
    if p.top_p > 0.0 && p.top_p < 1.0 {
        weights.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let total: u64 = weights.iter().map(|w| w.0).sum();
        // p in units of 2^-32, so that the bound is one 128-bit product.
        let share = (f64::from(p.top_p) * 4_294_967_296.0) as u128;
        let bound = ((u128::from(total) * share) >> 32) as u64;
        let mut sum = 0;
        let n = weights.iter().position(|w| {
            sum += w.0;
            sum >= bound
        });
        weights.truncate(n.map_or(weights.len(), |n| n + 1));
    }

    // 6. Relative to the most likely, whose weight is ONE.
    if p.min_p > 0.0 {
        let least = (p.min_p.min(1.0) * ONE) as u64;
        weights.retain(|w| w.0 >= least);
    }

    // 7. In the order of the ids.
    weights.sort_unstable_by_key(|w| w.1);
    let total: u64 = weights.iter().map(|w| w.0).sum();
    let random = random_u64(p.seed, request.position);
    let aim = ((u128::from(random) * u128::from(total)) >> 64) as u64;
    let mut sum = 0;
    let chosen = weights.iter().find(|w| {
        sum += w.0;
        sum > aim
    });
    Ok(Sampled { token: chosen.map_or(top, |w| w.1) })
}

/// 1. Biases and penalties; borrows the logits where there is nothing to adjust.
fn adjust<'a>(
    adjusted: &'a mut Vec<f32>,
    counts: &mut Vec<(u32, u32)>,
    logits: &'a [f32],
    request: &SampleRequest<'_>,
) -> &'a [f32] {
    let p = request.params;
    let penalized = p.penalizes();
    if p.logit_bias.is_empty() && !penalized {
        return logits;
    }
    adjusted.clear();
    adjusted.extend_from_slice(logits);
    for &(token, bias) in &p.logit_bias {
        if let Some(l) = adjusted.get_mut(token as usize) {
            *l += bias;
        }
    }
    if penalized {
        let history = request.history;
        let n = if p.penalty_window == 0 { history.len() } else { history.len().min(p.penalty_window as usize) };
        let mut window: Vec<u32> = history[history.len() - n..].to_vec();
        window.sort_unstable();
        counts.clear();
        counts.extend(window.chunk_by(|a, b| a == b).map(|same| (same[0], same.len() as u32)));
        for &(token, n) in counts.iter() {
            if let Some(l) = adjusted.get_mut(token as usize) {
                *l = if *l > 0.0 { *l / p.repetition_penalty } else { *l * p.repetition_penalty };
                *l -= (n as f32).mul_add(p.frequency_penalty, p.presence_penalty);
            }
        }
    }
    adjusted
}

/// The error of logits that no token can be chosen from.
pub(crate) fn nothing_to_choose<T>() -> Result<T> {
    Err(Error::State { needs: "at least one finite logit, and none that is +inf" })
}

/// The largest logit and the lowest id that has it.
pub(super) fn largest(logits: &[f32]) -> Result<(u32, f32)> {
    // Blocks keep the search for the maximum branchless; the id is looked up in the first block that has it.
    const BLOCK: usize = 256;
    let mut most = f32::NEG_INFINITY;
    let mut at = 0;
    for (b, block) in logits.chunks(BLOCK).enumerate() {
        let mut lanes = [f32::NEG_INFINITY; 16];
        for part in block.chunks(16) {
            for (m, &l) in lanes.iter_mut().zip(part) {
                *m = if l > *m { l } else { *m };
            }
        }
        let top = lanes.into_iter().fold(f32::NEG_INFINITY, |m, l| if l > m { l } else { m });
        if top > most {
            (most, at) = (top, b * BLOCK);
        }
    }
    let index = logits.iter().skip(at).position(|&l| l == most);
    match index {
        Some(i) if most.is_finite() => Ok(((at + i) as u32, most)),
        _ => nothing_to_choose(),
    }
}

impl SamplingParams {
    /// Refuses what has no meaning, naming the parameter and its value.
    pub fn validate(&self, n_vocab: usize) -> Result<()> {
        let check = |name, value: f32, ok: bool, expected: &str| {
            if ok {
                return Ok(());
            }
            Err(Error::Argument { name, found: value.to_string(), expected: expected.into() })
        };
        let t = self.temperature;
        check("temperature", t, t == 0.0 || (1e-4..=1e4).contains(&t), "0, or from 0.0001 to 10000")?;
        check("top_p", self.top_p, (0.0..=1.0).contains(&self.top_p), "from 0 to 1")?;
        check("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1")?;
        let r = self.repetition_penalty;
        check("repetition_penalty", r, (1e-2..=1e2).contains(&r), "from 0.01 to 100")?;
        let (f, p) = (self.frequency_penalty, self.presence_penalty);
        check("frequency_penalty", f, f.abs() <= 1e4, "from -10000 to 10000")?;
        check("presence_penalty", p, p.abs() <= 1e4, "from -10000 to 10000")?;
        for (index, &(token, bias)) in self.logit_bias.iter().enumerate() {
            if token as usize >= n_vocab {
                return Err(Error::TokenOutOfRange { index, token, n_vocab });
            }
            check("logit_bias", bias, !bias.is_nan() && bias < f32::INFINITY, "a number or -inf")?;
        }
        Ok(())
    }
}

/// The logarithms of the softmax of `logits`, in f64 inside; NaN counts as -inf.
pub fn log_softmax(logits: &[f32], out: &mut [f32]) -> Result<()> {
    let (_, top) = largest(logits)?;
    let sum: f64 = logits.iter().filter(|l| !l.is_nan()).map(|&l| f64::from(l - top).exp()).sum();
    let log_sum = sum.ln();
    for (o, &l) in out.iter_mut().zip(logits) {
        *o = if l.is_nan() { f32::NEG_INFINITY } else { (f64::from(l - top) - log_sum) as f32 };
    }
    Ok(())
}
