//! Sampling parameters as the steps of a choice take them: the one place that reads and rounds them.
//!
//! Invariant: neither [`SamplingParams::rule`] nor who follows a rule (the host's sampler, a device that chooses by itself)
//! takes a struct of parameters apart with `..`, so that a new parameter does not compile before each of them uses or
//! refuses it.

use super::SamplingParams;

/// 2^40: the weight of the most likely token. 2^40 times 2^24 tokens stays inside of 64 bits.
pub const ONE: f32 = 1_099_511_627_776.0;
/// 2^32: what shares of the total weight are counted in.
const SHARES: f64 = 4_294_967_296.0;
/// Temperatures below the largest logit from which on a token weighs nothing: there [`exp_neg`](super::exp_neg) is 0.
pub const DEPTH: f32 = 87.0;

/// How a token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule<'a> {
    /// What is done to the logits first; `None`: they are taken as they are.
    pub adjustment: Option<Adjustment<'a>>,
    /// How it is drawn; `None`: the largest logit, of equal ones that of the lowest id.
    pub draw: Option<Draw>,
}

/// What is added to logits, and taken from those of tokens that the history has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adjustment<'a> {
    /// `(token, bias)`.
    pub logit_bias: &'a [(u32, f32)],
    /// `None`: the history does not matter.
    pub penalties: Option<Penalties>,
}

/// What the tokens at the history's end cost: the parameters of the same names.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Penalties {
    pub repetition: f32,
    pub frequency: f32,
    pub presence: f32,
    /// Tokens that are looked at; 0: all.
    pub window: u32,
}

/// A draw, rounded as every device takes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Key of the random numbers.
    pub seed: u64,
    /// Above 0.
    pub temperature: f32,
    /// 1 / temperature.
    pub inverse: f32,
    /// The k largest logits; 0: all.
    pub top_k: u32,
    /// Top-p in units of 2^-32, rounded down, and at least 1, which keeps one token as every smaller share does; 0: all.
    pub share: u64,
    /// The least weight that min-p keeps; 0: each.
    pub least: u64,
}

impl SamplingParams {
    /// What the parameters come to.
    pub fn rule(&self) -> Rule<'_> {
        let &SamplingParams {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty: repetition,
            frequency_penalty: frequency,
            presence_penalty: presence,
            penalty_window: window,
            ref logit_bias,
            seed,
        } = self;
        let penalizes = repetition != 1.0 || frequency != 0.0 || presence != 0.0;
        let penalties = penalizes.then_some(Penalties { repetition, frequency, presence, window });
        let adjusts = penalizes || !logit_bias.is_empty();
        let share = if top_p > 0.0 && top_p < 1.0 { ((f64::from(top_p) * SHARES) as u64).max(1) } else { 0 };
        let least = if min_p > 0.0 { (min_p.min(1.0) * ONE) as u64 } else { 0 };
        let inverse = 1.0 / temperature;
        Rule {
            adjustment: adjusts.then_some(Adjustment { logit_bias, penalties }),
            draw: (temperature != 0.0).then_some(Draw { seed, temperature, inverse, top_k, share, least }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(params: SamplingParams) -> Draw {
        SamplingParams { temperature: 0.5, ..params }.rule().draw.unwrap()
    }

    #[test]
    fn parameters_that_do_nothing_are_no_part_of_a_rule() {
        let greedy =
            SamplingParams { top_k: 5, top_p: 0.5, min_p: 0.5, seed: 3, penalty_window: 9, ..Default::default() };
        assert_eq!(greedy.rule(), Rule { adjustment: None, draw: None });
        let adjusts = |params: SamplingParams| params.rule().adjustment.is_some();
        assert!(adjusts(SamplingParams { repetition_penalty: 1.5, ..Default::default() }));
        assert!(adjusts(SamplingParams { frequency_penalty: -1.0, ..Default::default() }));
        assert!(adjusts(SamplingParams { presence_penalty: 1.0, ..Default::default() }));
        let biased = SamplingParams { logit_bias: vec![(1, 0.5)], ..Default::default() };
        assert_eq!(biased.rule().adjustment, Some(Adjustment { logit_bias: &[(1, 0.5)], penalties: None }));
    }

    #[test]
    fn shares_and_weights_are_rounded_down_and_a_share_keeps_one_token() {
        let share = |top_p| draw(SamplingParams { top_p, ..Default::default() }).share;
        let kept = [0.0, 1e-12, 2.0_f32.powi(-32), 0.25, 1.0 - f32::EPSILON / 2.0, 1.0].map(share);
        assert_eq!(kept, [0, 1, 1, 1 << 30, (1 << 32) - 256, 0]);
        let least = |min_p| draw(SamplingParams { min_p, ..Default::default() }).least;
        assert_eq!([0.0, 1e-13, 2.0_f32.powi(-40), 0.5, 1.0].map(least), [0, 0, 1, 1 << 39, 1 << 40]);
        let Draw { seed, temperature, inverse, top_k, .. } =
            draw(SamplingParams { seed: 7, top_k: 3, ..Default::default() });
        assert_eq!((seed, temperature, inverse, top_k), (7, 0.5, 2.0, 3));
    }
}
