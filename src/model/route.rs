//! Which experts a position goes through, and with what weights, from its router's logits: one computation for all that compute
//! on the host, and what those that do not are compared with.
//!
//! Invariant: whatever the numbers are, as many different experts are chosen as the description says.

use super::experts::{Experts, Groups, LEAST_SUM, Score};

/// What is chosen no more: an expert that is taken, or of a group that does not stay.
const OUT: i32 = i32::MIN;

/// The place of a number in the order of experts: a NaN below all others, zeros of both signs equal.
fn key(s: f32) -> i32 {
    if s.is_nan() {
        return OUT + 1;
    }
    flip((s + 0.0).to_bits() as i32)
}

/// The number of a key.
fn number(key: i32) -> f32 {
    if key <= OUT + 1 { f32::NAN } else { f32::from_bits(flip(key) as u32) }
}

/// Negative numbers in the order of integers, and back.
fn flip(bits: i32) -> i32 {
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

/// The first of the largest.
fn largest(keys: &[i32]) -> usize {
    let mut best = 0;
    for (i, k) in keys.iter().enumerate() {
        if *k > keys[best] {
            best = i;
        }
    }
    best
}

/// The key of the sum of the two largest; of a group of one, of that one.
fn sum_of_two(keys: &[i32]) -> i32 {
    let at = largest(keys);
    let others = keys.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, k)| *k);
    others.max().map_or(keys[at], |second| key(number(keys[at]) + number(second)))
}

/// `1 / (1 + e^-x)`.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `x = exp(x - max) / sum(exp(x - max))`.
fn softmax(x: &mut [f64]) {
    let max = x.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(x));
    x.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum: f64 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= sum);
}

/// Room for the routing of one position, of `n` experts.
pub struct RouteRoom<'a> {
    /// `[n]`.
    pub scores: &'a mut [f64],
    /// `[n]`.
    pub keys: &'a mut [i32],
}

impl Experts {
    /// The experts of a position from its router's `logits` (`[n]`), biased already: `ids` (`[n_used]`), ascending, and their
    /// `weights` (`[n_used]`). `select_bias` is there where the description says so.
    pub fn route(
        &self,
        logits: &[f32],
        select_bias: Option<&[f32]>,
        room: RouteRoom<'_>,
        ids: &mut [u32],
        weights: &mut [f32],
    ) {
        let RouteRoom { scores, keys } = room;
        scores.iter_mut().zip(logits).for_each(|(score, l)| *score = f64::from(*l));
        match self.route.score {
            Score::Softmax => softmax(scores),
            Score::Sigmoid => scores.iter_mut().for_each(|score| *score = sigmoid(*score)),
            Score::SoftmaxOfChosen => {}
        }
        if self.route.select_bias || self.route.groups.is_some() {
            for (i, key_of) in keys.iter_mut().enumerate() {
                *key_of = key((scores[i] + select_bias.map_or(0.0, |bias| f64::from(bias[i]))) as f32);
            }
        } else {
            keys.iter_mut().zip(logits).for_each(|(key_of, l)| *key_of = key(*l));
        }
        self.choose(keys, ids);
        let mut chosen = 0;
        for &id in &*ids {
            // In place: ids ascend, so that none is read behind its writing.
            scores[chosen] = scores[id as usize];
            chosen += 1;
        }
        self.weigh(&mut scores[..chosen]);
        weights.iter_mut().zip(&*scores).for_each(|(weight, score)| *weight = *score as f32);
    }

    /// The ids of the experts with the largest keys, ascending.
    fn choose(&self, keys: &mut [i32], ids: &mut [u32]) {
        if let Some(groups) = self.route.groups {
            self.leave_groups(groups, keys);
        }
        for id in ids.iter_mut() {
            let best = largest(keys);
            keys[best] = OUT;
            *id = best as u32;
        }
        ids.sort_unstable();
    }

    /// Strikes out the experts of groups that do not stay.
    fn leave_groups(&self, groups: Groups, keys: &mut [i32]) {
        let len = self.n / groups.n;
        // Of those that remain the worst goes, of equal ones the last: no room for their sums is needed.
        for _ in groups.n_used..groups.n {
            let remaining = (0..groups.n).filter(|group| keys[group * len] != OUT);
            let worst = remaining.min_by_key(|&group| (sum_of_two(&keys[group * len..][..len]), usize::MAX - group));
            if let Some(worst) = worst {
                keys[worst * len..][..len].fill(OUT);
            }
        }
    }

    /// The weights of the chosen experts from their scores.
    fn weigh(&self, scores: &mut [f64]) {
        if self.route.score == Score::SoftmaxOfChosen {
            softmax(scores);
        }
        let sum = if self.route.renorm { scores.iter().sum::<f64>() } else { 1.0 };
        // A sum that is no number stays none: all weights are none then, rather than some of them immense.
        let sum = if sum < LEAST_SUM { LEAST_SUM } else { sum };
        scores.iter_mut().for_each(|score| *score *= f64::from(self.route.scale) / sum);
    }
}

#[cfg(test)]
mod tests {
    use super::super::experts::Route;
    use super::*;
    use crate::model::{Activation, Dense};

    fn experts(n: usize, n_used: usize, groups: Option<Groups>) -> Experts {
        let each = Dense { width: 8, activation: Activation::Silu, gated: true };
        let route = Route { score: Score::Sigmoid, select_bias: false, groups, renorm: true, scale: 1.0 };
        Experts { n, n_used, each, route, shared: None, side_by_side: false }
    }

    fn routed(experts: Experts, logits: &[f32], bias: Option<&[f32]>) -> (Vec<u32>, Vec<f32>) {
        experts.validate("layer 0", true).expect("is valid");
        let (mut keys, mut scores) = (vec![0; experts.n], vec![0.0; experts.n]);
        let (mut ids, mut weights) = (vec![u32::MAX; experts.n_used], vec![f32::NAN; experts.n_used]);
        let room = RouteRoom { scores: &mut scores, keys: &mut keys };
        experts.route(logits, bias, room, &mut ids, &mut weights);
        (ids, weights)
    }

    /// The choice among keys alone.
    fn chosen(experts: Experts, s: &[f32]) -> Vec<u32> {
        let mut keys: Vec<i32> = s.iter().map(|s| key(*s)).collect();
        let mut ids = vec![u32::MAX; experts.n_used];
        experts.choose(&mut keys, &mut ids);
        ids
    }

    #[test]
    fn weights_are_no_numbers_where_one_is_none() {
        let (ids, weights) = routed(experts(4, 2, None), &[f32::NAN, f32::NAN, f32::NAN, 1.0], None);
        assert_eq!(ids, [0, 3]);
        assert!(weights.iter().all(|weight| weight.is_nan()), "{weights:?}");
    }

    #[test]
    fn the_largest_are_chosen_and_of_equal_ones_the_first() {
        assert_eq!(chosen(experts(5, 2, None), &[0.1, -3.0, 7.0, 0.2, 7.5]), [2, 4]);
        assert_eq!(chosen(experts(5, 2, None), &[1.0, 2.0, 1.0, 2.0, 2.0]), [1, 3]);
        assert_eq!(chosen(experts(5, 3, None), &[-1.0; 5]), [0, 1, 2]);
        assert_eq!(chosen(experts(3, 1, None), &[-0.0, 0.0, -1.0]), [0]);
        assert_eq!(chosen(experts(3, 1, None), &[-1e-30, -0.0, f32::NEG_INFINITY]), [1]);
        assert_eq!(chosen(experts(4, 4, None), &[3.0, 1.0, 2.0, 0.0]), [0, 1, 2, 3]);
    }

    #[test]
    fn a_nan_is_below_all_others() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        assert_eq!(chosen(experts(4, 2, None), &[nan, -inf, nan, inf]), [1, 3]);
        assert_eq!(chosen(experts(4, 3, None), &[nan, -nan, nan, -inf]), [0, 1, 3]);
        assert_eq!(chosen(experts(4, 2, None), &[nan; 4]), [0, 1]);
        // Never one of a group that does not stay.
        let groups = Some(Groups { n: 2, n_used: 1 });
        assert_eq!(chosen(experts(6, 3, groups), &[nan, nan, nan, -inf, -inf, -inf]), [3, 4, 5]);
        assert_eq!(chosen(experts(4, 2, groups), &[nan; 4]), [0, 1]);
    }

    #[test]
    fn groups_stay_by_the_sum_of_their_two_largest() {
        let groups = |n, n_used| Some(Groups { n, n_used });
        // 5 + 0, 3 + 3, 4 + 1.
        let s = [5.0, -9.0, 0.0, 3.0, 3.0, 2.0, 1.0, 4.0, 0.5];
        assert_eq!(chosen(experts(9, 2, groups(3, 1)), &s), [3, 4]);
        assert_eq!(chosen(experts(9, 2, groups(3, 2)), &s), [0, 3]);
        assert_eq!(chosen(experts(9, 2, groups(3, 3)), &s), [0, 7]);
        // A group of one has no second.
        assert_eq!(chosen(experts(3, 2, groups(3, 2)), &[1.0, 3.0, 2.0]), [1, 2]);
    }

    #[test]
    fn a_key_is_the_order_of_numbers_and_gives_them_back() {
        let ascending = [f32::NEG_INFINITY, f32::MIN, -1.0, -1e-45, 0.0, 1e-45, 1.0, f32::MAX, f32::INFINITY];
        assert!(ascending.windows(2).all(|pair| key(pair[0]) < key(pair[1])));
        assert!(ascending.iter().all(|x| number(key(*x)) == *x && key(*x) > key(f32::NAN)));
        assert!(key(f32::NAN) > OUT && number(key(f32::NAN)).is_nan());
    }

    #[test]
    fn weights_are_those_of_the_scores() {
        let logits = [2.0_f32.ln(), 0.0, 4.0_f32.ln(), 1.0_f32.ln()];
        let close = |found: Vec<f32>, expected: &[f32]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {expected:?}");
        };
        let mut two = experts(4, 2, None);
        let with = |route: Route, bias| routed(Experts { route, ..two }, &logits, bias);
        let plain = two.route;
        // Sigmoids of 2/3 and 4/5.
        let (ids, weights) = with(Route { renorm: false, scale: 3.0, ..plain }, None);
        assert_eq!(ids, [0, 2]);
        close(weights, &[2.0, 2.4]);
        close(with(Route { score: Score::Softmax, renorm: false, ..plain }, None).1, &[0.25, 0.5]);
        close(with(Route { score: Score::Softmax, ..plain }, None).1, &[1.0 / 3.0, 2.0 / 3.0]);
        close(with(Route { score: Score::SoftmaxOfChosen, renorm: false, ..plain }, None).1, &[1.0 / 3.0, 2.0 / 3.0]);
        // The bias moves the choice and not the weights.
        let biased = Route { select_bias: true, renorm: false, ..plain };
        let (ids, weights) = with(biased, Some(&[-9.0, 0.0, 0.0, 0.25]));
        assert_eq!(ids, [2, 3]);
        close(weights, &[0.8, 0.5]);
        // Nothing is divided by nothing.
        two.route.renorm = true;
        assert_eq!(routed(two, &[f32::NEG_INFINITY; 4], None).1, [0.0, 0.0]);
        assert!(routed(two, &[f32::NAN; 4], None).1.iter().all(|w| w.is_nan()));
    }
}
