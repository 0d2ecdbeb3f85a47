//! The choice itself; the steps are those of the module's head.
//!
//! What a token is drawn from, [`Survivors`], is made in one place: the draw and the probabilities that are shown
//! of it come from the same integers.

use super::random::random_u64;
use super::rule::{Adjustment, DEPTH, Draw, Penalties, Rule};
use super::softmax_weights::{Scale, SoftmaxWeights, softmax_weights};
use super::{SampleRequest, Sampled, SamplingParams};
use crate::alloc::reserve;
use crate::error::{Error, Result};

/// Memory that draws reuse, and what makes their weights.
pub struct Scratch {
    softmax_weights: SoftmaxWeights,
    adjusted: Vec<f32>,
    counts: Vec<(u32, u32)>,
    maxima: Vec<f32>,
    candidates: Vec<(f32, u32)>,
    ids: Vec<u32>,
    kept: Vec<f32>,
    weights: Vec<u64>,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::with_weights(softmax_weights)
    }
}

impl Scratch {
    /// `softmax_weights` is [`softmax_weights`], maybe compiled for more instructions than every machine has.
    pub fn with_weights(softmax_weights: SoftmaxWeights) -> Scratch {
        Scratch {
            softmax_weights,
            adjusted: Vec::new(),
            counts: Vec::new(),
            maxima: Vec::new(),
            candidates: Vec::new(),
            ids: Vec::new(),
            kept: Vec::new(),
            weights: Vec::new(),
        }
    }
}

/// What is drawn from: weights of tokens in the order of their ids; 0 is cut off.
struct Survivors<'a> {
    weights: &'a [u64],
    /// The tokens' ids; `None`: they are the weights' indices.
    ids: Option<&'a [u32]>,
    total: u64,
    /// Key of the random number; any where one weight is left.
    seed: u64,
}

impl Survivors<'_> {
    fn id(&self, index: usize) -> u32 {
        self.ids.map_or(index as u32, |ids| ids[index])
    }
}

/// [`sample_with`] with memory of its own.
pub fn sample(logits: &[f32], request: &SampleRequest<'_>) -> Result<Sampled> {
    sample_with(&mut Scratch::default(), logits, request)
}

/// Picks a token. Logits that are NaN count as -inf; an error if none is left.
pub fn sample_with(scratch: &mut Scratch, logits: &[f32], request: &SampleRequest<'_>) -> Result<Sampled> {
    // 7. The first token whose running sum exceeds a random share of the total.
    let survivors = survivors(scratch, logits, request)?;
    let random = random_u64(survivors.seed, request.position);
    let aim = ((u128::from(random) * u128::from(survivors.total)) >> 64) as u64;
    let mut sum = 0;
    for (b, block) in survivors.weights.chunks(BLOCK).enumerate() {
        let of_block: u64 = block.iter().sum();
        if sum + of_block > aim {
            let within = block.iter().position(|w| {
                sum += w;
                sum > aim
            });
            return Ok(Sampled { token: survivors.id(b * BLOCK + within.unwrap_or(0)) });
        }
        sum += of_block;
    }
    // Not with a total above 0, which the most likely token's weight alone makes.
    nothing_to_choose()
}

/// The natural logarithms of the probabilities that [`sample_with`] draws with; -inf for what it never draws. `out` has
/// an element for each logit.
pub fn log_distribution(logits: &[f32], request: &SampleRequest<'_>, out: &mut [f32]) -> Result<()> {
    let mut scratch = Scratch::default();
    let survivors = survivors(&mut scratch, logits, request)?;
    out.fill(f32::NEG_INFINITY);
    for (i, &w) in survivors.weights.iter().enumerate() {
        if let Some(o) = out.get_mut(survivors.id(i) as usize) {
            *o = if w > 0 { (w as f64 / survivors.total as f64).ln() as f32 } else { f32::NEG_INFINITY };
        }
    }
    Ok(())
}

/// Steps 1 to 6.
fn survivors<'a>(scratch: &'a mut Scratch, logits: &[f32], request: &SampleRequest<'_>) -> Result<Survivors<'a>> {
    let Rule { adjustment, draw } = request.params.rule();
    let Scratch { softmax_weights, adjusted, counts, maxima, candidates, ids, kept, weights } = scratch;
    let logits = match adjustment {
        Some(adjustment) => adjust(adjusted, counts, logits, adjustment, request.history)?,
        None => logits,
    };
    let (top, top_logit) = largest(logits)?;
    weights.clear();
    ids.clear();
    reserve(weights, 1)?;
    reserve(ids, 1)?;
    let Some(Draw { seed, temperature, inverse, top_k, share, least }) = draw else {
        weights.push(1);
        ids.push(top);
        return Ok(Survivors { weights, ids: Some(ids), total: 1, seed: 0 });
    };

    // 3. The k largest, or all.
    let floor = top_logit - DEPTH * temperature;
    let k = top_k as usize;
    let few = k > 0 && k < logits.len();
    let considered = if few {
        keep_largest(logits, k, floor, maxima, candidates)?;
        kept.clear();
        reserve(kept, candidates.len())?;
        reserve(ids, candidates.len())?;
        kept.extend(candidates.iter().map(|c| c.0));
        ids.extend(candidates.iter().map(|c| c.1));
        &kept[..]
    } else {
        logits
    };

    // 4. Integer weights.
    reserve(weights, considered.len())?;
    weights.resize(considered.len(), 0);
    softmax_weights(considered, Scale { top: top_logit, inverse, floor }, weights);

    // 5. The smallest set with the share.
    if share > 0 {
        cut_to_share(weights, share)?;
    }

    // 6. Relative to the most likely, whose weight is ONE.
    if least > 0 {
        weights.iter_mut().for_each(|w| *w = if *w >= least { *w } else { 0 });
    }
    let total = weights.iter().sum();
    Ok(Survivors { weights, ids: few.then_some(&ids[..]), total, seed })
}

/// The `k` largest of what is not below `floor`, by `(logit, lowest id)`, in the order of their ids.
fn keep_largest(
    logits: &[f32],
    k: usize,
    floor: f32,
    maxima: &mut Vec<f32>,
    candidates: &mut Vec<(f32, u32)>,
) -> Result<()> {
    // At least k tokens reach the k-th largest of the maxima of groups: what is below it needs no look.
    maxima.clear();
    reserve(maxima, 16 * logits.len().div_ceil(BLOCK))?;
    for block in logits.chunks(BLOCK) {
        maxima.extend(lane_maxima(block));
    }
    let mut least = floor;
    if k <= maxima.len() {
        let (_, kth, _) = maxima.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        least = if *kth > floor { *kth } else { floor };
    }
    candidates.clear();
    reserve(candidates, logits.iter().filter(|l| **l >= least).count())?;
    candidates.extend(logits.iter().zip(0_u32..).filter(|&(&l, _)| l >= least).map(|(&l, i)| (l, i)));
    if k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        candidates.truncate(k);
        candidates.sort_unstable_by_key(|c| c.1);
    }
    Ok(())
}

/// Zeroes all but the shortest prefix, by `(weight descending, index ascending)`, that has the share of their sum, which is
/// counted in units of 2^-32.
fn cut_to_share(weights: &mut [u64], share: u64) -> Result<()> {
    let total: u64 = weights.iter().sum();
    // One token is always kept.
    let bound = (((u128::from(total) * u128::from(share)) >> 32) as u64).max(1);

    // Sums of weights by their leading bits: which of these intervals has the last that is kept?
    const BITS: u32 = 4;
    const N: usize = 41 << BITS;
    // The exponent and the first bits behind it; exact, weights being below 2^53.
    let interval = |w: u64| ((w as f64).to_bits() >> (52 - BITS)) as usize - (1023 << BITS);
    let mut sums = [0_u64; N];
    weights.iter().filter(|w| **w > 0).for_each(|&w| sums[interval(w)] += w);
    let mut sum = 0;
    let last = (0..N).rev().find(|&i| {
        let reached = sum + sums[i] >= bound;
        sum += if reached { 0 } else { sums[i] };
        reached
    });
    let Some(last) = last else { return Ok(()) };

    // Of that one alone the order matters.
    let inside = |w: u64| w > 0 && interval(w) == last;
    let mut order: Vec<(u64, usize)> = Vec::new();
    reserve(&mut order, weights.iter().filter(|w| inside(**w)).count())?;
    order.extend(weights.iter().enumerate().filter(|(_, w)| inside(**w)).map(|(i, w)| (*w, i)));
    order.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let edge = order.into_iter().find(|(w, _)| {
        sum += w;
        sum >= bound
    });
    let Some((least, to)) = edge else { return Ok(()) };
    let (before, behind) = weights.split_at_mut(to + 1);
    before.iter_mut().for_each(|w| *w = if *w >= least { *w } else { 0 });
    behind.iter_mut().for_each(|w| *w = if *w > least { *w } else { 0 });
    Ok(())
}

/// Step 1: a copy of the logits with biases and penalties.
fn adjust<'a>(
    adjusted: &'a mut Vec<f32>,
    counts: &mut Vec<(u32, u32)>,
    logits: &[f32],
    Adjustment { logit_bias, penalties }: Adjustment<'_>,
    history: &[u32],
) -> Result<&'a [f32]> {
    adjusted.clear();
    reserve(adjusted, logits.len())?;
    adjusted.extend_from_slice(logits);
    for &(token, bias) in logit_bias {
        if let Some(l) = adjusted.get_mut(token as usize) {
            *l += bias;
        }
    }
    if let Some(Penalties { repetition, frequency, presence, window }) = penalties {
        let n = if window == 0 { history.len() } else { history.len().min(window as usize) };
        let mut sorted: Vec<u32> = Vec::new();
        reserve(&mut sorted, n)?;
        sorted.extend_from_slice(&history[history.len() - n..]);
        sorted.sort_unstable();
        counts.clear();
        reserve(counts, n)?;
        counts.extend(sorted.chunk_by(|a, b| a == b).map(|same| (same[0], same.len() as u32)));
        for &(token, n) in counts.iter() {
            if let Some(l) = adjusted.get_mut(token as usize) {
                *l = if *l > 0.0 { *l / repetition } else { *l * repetition };
                *l -= (n as f32).mul_add(frequency, presence);
            }
        }
    }
    Ok(adjusted)
}

/// Sets the logits of the tokens that are not in `allowed` to minus infinity: token `t` is bit `t % 32` of word `t / 32`, and not
/// in it where there is no such word.
pub fn ban(logits: &mut [f32], allowed: &[u32]) {
    for (i, part) in logits.chunks_mut(32).enumerate() {
        match allowed.get(i).copied().unwrap_or(0) {
            u32::MAX => {}
            0 => part.fill(f32::NEG_INFINITY),
            bits => part.iter_mut().enumerate().filter(|(k, _)| bits >> k & 1 == 0).for_each(|(_, l)| {
                *l = f32::NEG_INFINITY;
            }),
        }
    }
}

/// The error of logits that no token can be chosen from.
pub(crate) fn nothing_to_choose<T>() -> Result<T> {
    Err(Error::State { needs: "at least one finite logit, and none that is +inf" })
}

/// Logits of which the maximum is searched without branches.
const BLOCK: usize = 256;

/// The maxima of every 16th logit of a block; NaN is none of them.
fn lane_maxima(block: &[f32]) -> [f32; 16] {
    let mut lanes = [f32::NEG_INFINITY; 16];
    for part in block.chunks(16) {
        for (m, &l) in lanes.iter_mut().zip(part) {
            *m = if l > *m { l } else { *m };
        }
    }
    lanes
}

/// The largest logit and the lowest id that has it.
pub(super) fn largest(logits: &[f32]) -> Result<(u32, f32)> {
    let mut most = f32::NEG_INFINITY;
    let mut at = 0;
    for (b, block) in logits.chunks(BLOCK).enumerate() {
        let top = lane_maxima(block).into_iter().fold(f32::NEG_INFINITY, |m, l| if l > m { l } else { m });
        if top > most {
            (most, at) = (top, b * BLOCK);
        }
    }
    // The first block that has it.
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
        // Without `..`: a new parameter is checked here, or said to need none.
        let &SamplingParams {
            temperature: t,
            top_k: _,
            top_p,
            min_p,
            repetition_penalty: r,
            frequency_penalty: f,
            presence_penalty: p,
            penalty_window: _,
            ref logit_bias,
            seed: _,
        } = self;
        check("temperature", t, t == 0.0 || (1e-4..=1e4).contains(&t), "0, or from 0.0001 to 10000")?;
        check("top_p", top_p, (0.0..=1.0).contains(&top_p), "from 0 to 1")?;
        check("min_p", min_p, (0.0..=1.0).contains(&min_p), "from 0 to 1")?;
        check("repetition_penalty", r, (1e-2..=1e2).contains(&r), "from 0.01 to 100")?;
        check("frequency_penalty", f, f.abs() <= 1e4, "from -10000 to 10000")?;
        check("presence_penalty", p, p.abs() <= 1e4, "from -10000 to 10000")?;
        for (index, &(token, bias)) in logit_bias.iter().enumerate() {
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
