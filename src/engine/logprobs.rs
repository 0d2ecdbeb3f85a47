//! Log probabilities of single tokens: as the model gives them, and as the sampler draws.
//!
//! Invariant: "after" comes from the sampler's own weights over the logits that it would get, so that a token's
//! probability is that of the next draw over all seeds.

use super::grammar::nothing_left;
use super::session::{Session, State};
use super::slot::lock_slot;
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

/// Which log probabilities of a token that is chosen are wanted beside its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Top {
    /// So many of the likeliest.
    pub n: usize,
    /// Likeliest by what.
    pub by: By,
}

/// Where log probabilities of a vocabulary are made; used again, it takes no memory.
#[derive(Default)]
pub(super) struct Weighing {
    logits: Vec<f32>,
    before: Vec<f32>,
    after: Vec<f32>,
    all: Vec<Logprob>,
}

impl Weighing {
    /// The log probabilities of the session's current logits. `stoppable`: a cancel stops the making of a mask.
    fn weigh(&mut self, session: &Session, state: &mut State, stoppable: bool) -> Result<()> {
        state.logits_there()?;
        let Weighing { logits, before, after, .. } = self;
        for all in [&mut *logits, &mut *before, &mut *after] {
            reserve(all, session.n_vocab().saturating_sub(all.len()))?;
            all.resize(session.n_vocab(), 0.0);
        }
        session.model().inner.loaded.logits(&mut **lock_slot(&state.slot), logits)?;
        log_softmax(logits, before)?;
        session.mask(state, logits, stoppable)?;
        let position = state.tokens.len() as u64;
        let request = SampleRequest { params: &state.sampling, history: &state.tokens, position };
        match log_distribution(logits, &request, after) {
            Err(Error::State { .. }) if state.constraint.is_some() => Err(nothing_left()),
            made => made,
        }
    }

    fn of(&self, token: u32) -> Logprob {
        Logprob { token, before: self.before[token as usize], after: self.after[token as usize] }
    }

    /// Adds the likeliest to a list that has room for them.
    fn add_top(&mut self, top: Top, list: &mut Vec<Logprob>) -> Result<()> {
        if top.n == 0 {
            return Ok(());
        }
        let n_vocab = self.before.len();
        let mut all = std::mem::take(&mut self.all);
        all.clear();
        reserve(&mut all, n_vocab)?;
        all.extend((0..n_vocab as u32).map(|token| self.of(token)));
        let keys = |p: &Logprob| if top.by == By::Before { [p.before, p.after] } else { [p.after, p.before] };
        let order = |a: &Logprob, b: &Logprob| {
            let ([a0, a1], [b0, b1]) = (keys(a), keys(b));
            b0.total_cmp(&a0).then(b1.total_cmp(&a1)).then(a.token.cmp(&b.token))
        };
        let n = top.n.min(n_vocab);
        all.select_nth_unstable_by(n - 1, order);
        all[..n].sort_unstable_by(order);
        list.extend_from_slice(&all[..n]);
        self.all = all;
        Ok(())
    }

    /// What a token that has been chosen is drawn with, and the likeliest, which become `list`.
    pub(super) fn chosen(
        &mut self,
        session: &Session,
        state: &mut State,
        token: u32,
        top: Top,
        list: &mut Vec<Logprob>,
    ) -> Result<Logprob> {
        self.weigh(session, state, true)?;
        list.clear();
        reserve(list, top.n)?;
        self.add_top(top, list)?;
        Ok(self.of(token))
    }
}

impl Session {
    /// Whether there are current logits.
    pub fn has_logits(&self) -> Result<()> {
        self.call(|state| state.logits_there())
    }

    /// Copies the current logits; `out` has `n_vocab` elements.
    pub fn logits(&self, out: &mut [f32]) -> Result<()> {
        self.call(|state| {
            state.logits_there()?;
            self.model().inner.loaded.logits(&mut **lock_slot(&state.slot), out)
        })
    }

    /// The log probabilities of the current logits.
    pub fn logprobs(&self, out: &mut [f32]) -> Result<()> {
        let logits = self.call(|state| self.logits_of(state))?;
        log_softmax(&logits, out)
    }

    /// A copy of the current logits.
    pub(super) fn logits_of(&self, state: &State) -> Result<Vec<f32>> {
        state.logits_there()?;
        let mut logits = zeros(self.n_vocab())?;
        self.model().inner.loaded.logits(&mut **lock_slot(&state.slot), &mut logits)?;
        Ok(logits)
    }

    /// Fails where there are not so many tokens.
    pub fn check_top(&self, top: Top) -> Result<()> {
        let n_vocab = self.n_vocab();
        if top.n <= n_vocab {
            return Ok(());
        }
        let expected = format!("at most the vocabulary's {n_vocab}");
        Err(Error::Argument { name: "n_top", found: top.n.to_string(), expected })
    }

    /// The log probabilities of `tokens` in their order, and behind them those of the `n_top` largest, largest first.
    pub fn token_logprobs(&self, tokens: &[u32], n_top: usize, by: By) -> Result<Vec<Logprob>> {
        let top = Top { n: n_top, by };
        self.check(tokens)?;
        self.check_top(top)?;
        let mut weighing = Weighing::default();
        self.call(|state| weighing.weigh(self, state, false))?;
        let mut found = Vec::new();
        reserve(&mut found, tokens.len().saturating_add(n_top))?;
        found.extend(tokens.iter().map(|&token| weighing.of(token)));
        weighing.add_top(top, &mut found)?;
        Ok(found)
    }
}
