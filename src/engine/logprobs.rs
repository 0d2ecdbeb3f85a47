//! Log probabilities of single tokens: as the model gives them, and as the sampler draws.
//!
//! Invariant: "after" comes from the sampler's own weights over the logits that it would get, so that a token's
//! probability is that of the next draw over all seeds.

use super::session::Session;
use crate::alloc::{reserve, zeros};
use crate::error::{Error, Result};
use crate::sampler::{SampleRequest, log_distribution, log_softmax};

/// A token with its natural log probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logprob {
    /// The token.
    pub token: u32,
    /// What the softmax of the logits gives it.
    pub before: f32,
    /// What the sampler draws it with; -inf where it never does.
    pub after: f32,
}

/// What is the largest of log probabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// [`Logprob::before`], then [`Logprob::after`], then the lower id.
    #[default]
    Before,
    /// [`Logprob::after`], then [`Logprob::before`], then the lower id.
    After,
}

impl Session {
    /// The log probabilities of `tokens` in their order, and behind them those of the `n_top` largest, largest first.
    pub fn token_logprobs(&self, tokens: &[u32], n_top: usize, by: By) -> Result<Vec<Logprob>> {
        let n_vocab = self.n_vocab();
        if let Some((index, token)) = tokens.iter().enumerate().find(|(_, t)| **t as usize >= n_vocab) {
            return Err(Error::TokenOutOfRange { index, token: *token, n_vocab });
        }
        if n_top > n_vocab {
            let expected = format!("at most the vocabulary's {n_vocab}");
            return Err(Error::Argument { name: "n_top", found: n_top.to_string(), expected });
        }
        let (mut before, mut after) = (zeros(n_vocab)?, zeros(n_vocab)?);
        self.call(|state| {
            let mut logits = self.logits_of(state)?;
            log_softmax(&logits, &mut before)?;
            self.mask(state, &mut logits)?;
            let position = state.tokens.len() as u64;
            let request = SampleRequest { params: &state.sampling, history: &state.tokens, position };
            let made = log_distribution(&logits, &request, &mut after);
            if state.constraint.is_some() { made.map_err(|_| super::grammar::nothing_left()) } else { made }
        })?;
        let of = |token: u32| Logprob { token, before: before[token as usize], after: after[token as usize] };
        let mut found = Vec::new();
        reserve(&mut found, tokens.len().saturating_add(n_top))?;
        found.extend(tokens.iter().map(|&token| of(token)));
        if n_top > 0 {
            let mut all = Vec::new();
            reserve(&mut all, n_vocab)?;
            all.extend((0..n_vocab as u32).map(of));
            let keys = |p: &Logprob| if by == By::Before { [p.before, p.after] } else { [p.after, p.before] };
            let order = |a: &Logprob, b: &Logprob| {
                let ([a0, a1], [b0, b1]) = (keys(a), keys(b));
                b0.total_cmp(&a0).then(b1.total_cmp(&a1)).then(a.token.cmp(&b.token))
            };
            all.select_nth_unstable_by(n_top - 1, order);
            all.truncate(n_top);
            all.sort_unstable_by(order);
            found.extend(all);
        }
        Ok(found)
    }
}
