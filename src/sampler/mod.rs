//! Logits to a token, the same on every device.
//!
//! The choice is a function of `(logits, parameters, seed, position, history)` and of nothing else. After the
//! adjustments below, everything that could depend on an order of summation is done in integers, so that a CPU
//! and a GPU given the same logits choose the same token:
//!
//! 1. `l[i] += bias[i]`; for tokens of the history, repetition penalty (`l > 0 ? l / r : l * r`), then
//!    `l -= n * frequency + presence`.
//! 2. temperature 0: the largest, ties to the lowest id.
//! 3. top-k: the k largest by `(l, lowest id)`.
//! 4. weight `w[i] = floor(exp((l[i] - max) / temperature) * 2^40)` as u64, `exp` being [`exp_neg`].
//! 5. top-p: over the tokens by `(w descending, id ascending)`, the shortest prefix with sum >= p * total, p being
//!    rounded down to a multiple of 2^-32.
//! 6. min-p: `w[i] >= floor(min_p * 2^40)`, 2^40 being the largest weight.
//! 7. `r = random_u64(seed, position)`, scaled to the total of the survivors' weights by the high half of the
//!    128-bit product; the first token in id order whose running sum exceeds it.

mod choose;
mod exp;
mod params;
mod random;
mod rule;
mod softmax_weights;

#[cfg(kigo_cuda)]
pub(crate) use choose::nothing_to_choose;
pub use choose::{Scratch, ban, log_distribution, log_softmax, sample, sample_with};
pub use exp::{LN2, TERMS, exp_neg};
pub use params::{SampleRequest, Sampled, SamplingParams};
pub use random::random_u64;
pub use rule::{Adjustment, DEPTH, Draw, ONE, Penalties, Rule};
pub use softmax_weights::{Scale, SoftmaxWeights, softmax_weights};
